"""`concentrator dlms read|write|action|browse`: a DLMS client for the bench."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from concentrator.command_types import OctetsType
from concentrator.control import ControlError
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem.classes import interface_class
from concentrator.dlms.cosem.views import attribute_number, method_number
from concentrator.dlms.errors import AccessError
from concentrator.dlms.explain import explain_data
from concentrator.dlms_tools.bench_meter import BenchMeter, open_meter
from concentrator.dlms_tools.session import MECHANISMS, SessionOptions, SessionUsageError
from concentrator.dlms_tools.values import AXDR, VALUE_TYPES, parse_value
from concentrator.inspect.command import render
from concentrator.obis import Obis, ObisError
from concentrator.units import unit_symbol

# Classes whose attribute 3 is scaler and unit, and what is read by it.
_WITH_UNIT = {3, 4}


class ObisType(click.ParamType[Obis]):
    """An OBIS code."""

    name = "OBIS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Obis:
        """The code."""
        if isinstance(value, Obis):
            return value
        try:
            return Obis.parse(str(value))
        except ObisError as error:
            self.fail(str(error), param, ctx)


def _session_options(command: Callable[..., None]) -> Callable[..., None]:
    """The way to the meter and the association, for every verb."""
    for option in (
        click.option(
            "--timeout", "timeout_s", type=click.FloatRange(0.1), default=10.0, help="Seconds for an answer."
        ),
        click.option(
            "--system-title",
            type=OctetsType(),
            default=b"ODC\0\0\0\0\1",
            help="Ours, 8 octets.",
            show_default=False,
        ),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Go through the running concentrator with this configuration, to the meter named by --meter.",
        ),
        click.option(
            "--meter", default="", help="The meter's name in the key file, or in the running concentrator."
        ),
        click.option("--key-file", type=click.Path(path_type=Path), help="Key file of the concentrator."),
        click.option(
            "--authentication-key", type=OctetsType(), default=b"", help="Seen in the process list."
        ),
        click.option(
            "--key", type=OctetsType(), default=b"", help="Encryption key; seen in the process list."
        ),
        click.option("--short-names", is_flag=True, help="Short name referencing, as old meters have it."),
        click.option(
            "--gateway", default="", help="A meter behind a gateway: NETWORK:ADDRESS, in hexadecimal."
        ),
        click.option("--suite", type=click.IntRange(0, 2), default=0, help="Security suite."),
        click.option("--general", is_flag=True, help="general-glo-ciphering instead of service-specific."),
        click.option(
            "--signing-key",
            type=click.Path(path_type=Path),
            help="Our private signing key (PEM), for hls-ecdsa.",
        ),
        click.option(
            "--meter-certificate",
            type=click.Path(path_type=Path),
            help="The meter's signing certificate (PEM or DER), for hls-ecdsa.",
        ),
        click.option("--meter-title", type=OctetsType(), default=b"", help="The meter's system title."),
        click.option(
            "--password-file", type=click.Path(path_type=Path), help="File with the LLS or HLS secret."
        ),
        click.option(
            "--mechanism", type=click.Choice(list(MECHANISMS)), default="none", help="How to associate."
        ),
        click.option(
            "--physical-address", type=click.IntRange(0, 16383), help="HDLC: lower address of the meter."
        ),
        click.option(
            "--server", "server_sap", type=click.IntRange(0, 16383), default=1, help="Logical device."
        ),
        click.option("--client", "client_sap", type=click.IntRange(1, 127), default=16, help="Client SAP."),
        click.option("--hdlc", is_flag=True, help="HDLC instead of the WRAPPER on --tcp."),
        click.option("--optical", is_flag=True, help="Open the serial port by mode E (optical head)."),
        click.option("--baud-rate", type=int, default=9600, help="Of the serial port."),
        click.option("--serial", "serial_port", default="", help="Serial port, HDLC."),
        click.option("--tcp", default="", help="HOST:PORT, WRAPPER."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"show_default": True})
def dlms() -> None:
    """Read, write, act on and browse a meter by DLMS."""


def _options(values: dict[str, Any]) -> tuple[SessionOptions, Path | None]:
    config_file: Path | None = values.pop("config_file")
    password_file: Path | None = values.pop("password_file")
    password = b""
    if password_file is not None:
        try:
            password = password_file.read_bytes().strip()
        except OSError as error:
            raise SessionUsageError(f"{password_file}: cannot be read: {error.strerror}") from None
    return SessionOptions(password=password, **values), config_file


def _attribute(class_id: int, obis: Obis, attribute: str) -> AttributeDescriptor:
    number = attribute_number(interface_class(class_id), _number_or_name(attribute))
    return AttributeDescriptor(class_id, obis, number)


def _method(class_id: int, obis: Obis, method: str) -> MethodDescriptor:
    return MethodDescriptor(class_id, obis, method_number(interface_class(class_id), _number_or_name(method)))


def _number_or_name(text: str) -> int | str:
    try:
        number = int(text)
    except ValueError:
        return text
    if -128 <= number <= 127:  # noqa: PLR2004 - an integer of 8 bits
        return number
    raise SessionUsageError(f"got {text}; allowed: a number from -128 to 127, or a name")


def _print(tree: object, *, as_json: bool) -> None:
    click.echo(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join(render(tree)))


@dlms.command()
@_session_options
@click.option(
    "--class-id", type=click.IntRange(1, 65535), default=3, help="Interface class: 1 Data, 3 Register, ..."
)
@click.option("--attribute", default="2", help="Attribute: its number, or its name in the Blue Book.")
@click.option("--all", "every", is_flag=True, help="Every attribute of the object, by its name.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a tree.")
@click.argument("obis", type=ObisType())
def read(
    class_id: int,
    attribute: str,
    every: bool,
    as_json: bool,
    obis: Obis,
    **values: Any,  # noqa: ANN401, FBT001
) -> None:
    """Read one attribute, with its unit where it is a register's value."""
    if every:
        tree = asyncio.run(_read_all(*_options(values), class_id, obis))
    else:
        tree = asyncio.run(_read(*_options(values), _attribute(class_id, obis, attribute)))
    _print(tree, as_json=as_json)


async def _read(
    options: SessionOptions, config_file: Path | None, attribute: AttributeDescriptor
) -> dict[str, Any]:
    async with open_meter(options, config_file) as meter:
        value = await meter.get(attribute)
        tree: dict[str, Any] = {"obis": str(attribute.obis), "meaning": attribute.obis.describe()}
        tree["value"] = explain_data(value)
        if attribute.class_id in _WITH_UNIT and attribute.attribute == 2:  # noqa: PLR2004 - the value
            tree.update(await _unit(meter, attribute))
    return tree


async def _read_all(
    options: SessionOptions, config_file: Path | None, class_id: int, obis: Obis
) -> dict[str, Any]:
    row = interface_class(class_id)
    tree: dict[str, Any] = {"obis": str(obis), "meaning": obis.describe(), "class": row.name}
    async with open_meter(options, config_file) as meter:
        for known in row.attributes:
            tree[known.name] = await _value(meter, AttributeDescriptor(class_id, obis, known.number))
    return tree


async def _unit(meter: BenchMeter, attribute: AttributeDescriptor) -> dict[str, Any]:
    try:
        scaler_unit = await meter.get(attribute._replace(attribute=3))
        scaler, unit = scaler_unit.items(2)
        return {"scaler": scaler.integer(), "unit": unit_symbol(unit.integer())}
    except AccessError:
        return {}


_type_option = click.option(
    "--type",
    "kind",
    type=click.Choice(VALUE_TYPES),
    default=AXDR,
    help="What the value is; axdr: whole, in hex.",
)


@dlms.command()
@_session_options
@click.option("--class-id", type=click.IntRange(1, 65535), default=1, help="Interface class.")
@click.option("--attribute", default="2", help="Attribute: its number, or its name in the Blue Book.")
@_type_option
@click.argument("obis", type=ObisType())
@click.argument("value")
def write(
    class_id: int,
    attribute: str,
    kind: str,
    obis: Obis,
    value: str,
    **values: Any,  # noqa: ANN401
) -> None:
    """Write one attribute: --type double-long-unsigned 1, or A-XDR data in hexadecimal: 0600000001."""
    descriptor = _attribute(class_id, obis, attribute)
    asyncio.run(_write(*_options(values), descriptor, parse_value(kind, value)))
    click.echo("written")


async def _write(
    options: SessionOptions, config_file: Path | None, attribute: AttributeDescriptor, value: Data
) -> None:
    async with open_meter(options, config_file) as meter:
        await meter.set(attribute, value)


@dlms.command()
@_session_options
@click.option("--class-id", type=click.IntRange(1, 65535), required=True, help="Interface class.")
@click.option("--method", default="1", help="Method: its number, or its name in the Blue Book.")
@_type_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a tree.")
@click.argument("obis", type=ObisType())
@click.argument("parameter", required=False)
def action(
    class_id: int,
    method: str,
    kind: str,
    as_json: bool,
    obis: Obis,
    parameter: str | None,
    **values: Any,  # noqa: ANN401, FBT001
) -> None:
    """Invoke one method: --type integer 0, or PARAMETER as A-XDR data in hexadecimal: 0F00."""
    data = None if parameter is None else parse_value(kind, parameter)
    answer = asyncio.run(_action(*_options(values), _method(class_id, obis, method), data))
    _print({"done": True} if answer is None else {"answer": explain_data(answer)}, as_json=as_json)


async def _action(
    options: SessionOptions, config_file: Path | None, method: MethodDescriptor, parameter: Data | None
) -> Data | None:
    async with open_meter(options, config_file) as meter:
        return await meter.action(method, parameter)


@dlms.command()
@_session_options
@click.option("--values", "with_values", is_flag=True, help="Read the value of each object too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def browse(with_values: bool, as_json: bool, **values: Any) -> None:  # noqa: ANN401, FBT001
    """List the objects that this association may see."""
    for tree in asyncio.run(_browse(*_options(values), with_values=with_values)):
        if as_json:
            click.echo(json.dumps(tree, ensure_ascii=False))
        else:
            shown = f"  = {tree['value']}" if "value" in tree else ""
            click.echo(f"{tree['obis']:<22} {tree['class']:<24} {tree['meaning']}{shown}")


async def _browse(
    options: SessionOptions, config_file: Path | None, *, with_values: bool
) -> list[dict[str, Any]]:
    async with open_meter(options, config_file) as meter:
        found = await meter.objects()
        for tree in found:
            # A profile's buffer may be a month of data: that is read by name, not in passing.
            if with_values and tree["class_id"] in (1, 3, 4, 8):
                attribute = AttributeDescriptor(tree["class_id"], Obis.parse(tree["obis"]), 2)
                tree["value"] = await _value(meter, attribute)
    return found


async def _value(meter: BenchMeter, attribute: AttributeDescriptor) -> object:
    try:
        return explain_data(await meter.get(attribute))
    except (AccessError, ControlError) as error:
        return {"error": str(error)}
