"""`concentrator dlms read|write|action|browse`: a DLMS client for the bench."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from concentrator.command_types import OctetsType
from concentrator.config import load_config
from concentrator.control import request
from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem.classes import interface_class
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.dlms.explain import explain_data
from concentrator.dlms_tools.session import (
    MECHANISMS,
    Session,
    SessionOptions,
    SessionUsageError,
    open_session,
)
from concentrator.inspect.command import render
from concentrator.obis import Obis, ObisError
from concentrator.units import unit_symbol

_ASSOCIATION_LN = Obis(0, 0, 40, 0, 0)
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
        click.option("--system-title", type=OctetsType(), default=b"ODC\0\0\0\0\1", help="Ours, 8 octets."),
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


def _options(values: dict[str, Any]) -> SessionOptions:
    password_file: Path | None = values.pop("password_file")
    password = b""
    if password_file is not None:
        try:
            password = password_file.read_bytes().strip()
        except OSError as error:
            raise SessionUsageError(f"{password_file}: cannot be read: {error.strerror}") from None
    return SessionOptions(password=password, **values)


def _print(tree: object, *, as_json: bool) -> None:
    click.echo(json.dumps(tree, ensure_ascii=False) if as_json else "\n".join(render(tree)))


@dlms.command()
@_session_options
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Read through the running concentrator."
)
@click.option(
    "--class-id", type=click.IntRange(1, 65535), default=3, help="Interface class: 1 Data, 3 Register, ..."
)
@click.option("--attribute", type=click.IntRange(-128, 127), default=2, help="Attribute number.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a tree.")
@click.argument("obis", type=ObisType())
def read(
    config_file: Path | None,
    class_id: int,
    attribute: int,
    as_json: bool,
    obis: Obis,
    **values: Any,  # noqa: ANN401, FBT001
) -> None:
    """Read one attribute, with its unit where it is a register's value.

    With --config and --meter the running concentrator reads it over its own network.
    """
    options = _options(values)
    if config_file is not None:
        tree = asyncio.run(_read_through_service(config_file, options.meter, obis, class_id, attribute))
    else:
        tree = asyncio.run(_read(options, AttributeDescriptor(class_id, obis, attribute)))
    _print(tree, as_json=as_json)


async def _read(options: SessionOptions, attribute: AttributeDescriptor) -> dict[str, Any]:
    async with open_session(options) as session:
        value = await session.run(session.client.get(attribute))
        tree: dict[str, Any] = {"obis": str(attribute.obis), "meaning": attribute.obis.describe()}
        tree["value"] = explain_data(value)
        if attribute.class_id in _WITH_UNIT and attribute.attribute == 2:  # noqa: PLR2004 - the value
            tree.update(await _unit(session, attribute))
    return tree


async def _unit(session: Session, attribute: AttributeDescriptor) -> dict[str, Any]:
    try:
        scaler_unit = await session.run(session.client.get(attribute._replace(attribute=3)))
        scaler, unit = scaler_unit.items(2)
        return {"scaler": scaler.integer(), "unit": unit_symbol(unit.integer())}
    except AccessError:
        return {}


async def _read_through_service(
    config_file: Path, meter: str, obis: Obis, class_id: int, attribute: int
) -> dict[str, Any]:
    if not meter:
        raise SessionUsageError("name the meter by --meter: its identity in the concentrator's list")
    arguments = {"obis": str(obis), "class_id": class_id, "attribute": attribute}
    order = {"id": "command-line", "op": "read", "target": meter, "args": arguments}
    answer = await request(load_config(config_file).control_socket, {"op": "order", "order": order})
    return answer["result"]


@dlms.command()
@_session_options
@click.option("--class-id", type=click.IntRange(1, 65535), default=1, help="Interface class.")
@click.option("--attribute", type=click.IntRange(-128, 127), default=2, help="Attribute number.")
@click.argument("obis", type=ObisType())
@click.argument("value", type=OctetsType())
def write(class_id: int, attribute: int, obis: Obis, value: bytes, **values: Any) -> None:  # noqa: ANN401
    """Write one attribute: VALUE is A-XDR data in hexadecimal, 0600000001 for a double-long-unsigned of 1."""
    asyncio.run(_write(_options(values), AttributeDescriptor(class_id, obis, attribute), _data(value)))
    click.echo("written")


async def _write(options: SessionOptions, attribute: AttributeDescriptor, value: Data) -> None:
    async with open_session(options) as session:
        await session.run(session.client.set(attribute, value))


@dlms.command()
@_session_options
@click.option("--class-id", type=click.IntRange(1, 65535), required=True, help="Interface class.")
@click.option("--method", type=click.IntRange(-128, 127), default=1, help="Method number.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a tree.")
@click.argument("obis", type=ObisType())
@click.argument("parameter", type=OctetsType(), required=False)
def action(
    class_id: int,
    method: int,
    as_json: bool,
    obis: Obis,
    parameter: bytes | None,
    **values: Any,  # noqa: ANN401, FBT001
) -> None:
    """Invoke one method: PARAMETER is A-XDR data in hexadecimal, 0F00 for an integer of 0."""
    data = None if parameter is None else _data(parameter)
    answer = asyncio.run(_action(_options(values), MethodDescriptor(class_id, obis, method), data))
    _print({"done": True} if answer is None else {"answer": explain_data(answer)}, as_json=as_json)


async def _action(options: SessionOptions, method: MethodDescriptor, parameter: Data | None) -> Data | None:
    async with open_session(options) as session:
        return await session.run(session.client.action(method, parameter))


@dlms.command()
@_session_options
@click.option("--values", "with_values", is_flag=True, help="Read the value of each object too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def browse(with_values: bool, as_json: bool, **values: Any) -> None:  # noqa: ANN401, FBT001
    """List the objects that this association may see."""
    for tree in asyncio.run(_browse(_options(values), with_values=with_values)):
        if as_json:
            click.echo(json.dumps(tree, ensure_ascii=False))
        else:
            shown = f"  = {tree['value']}" if "value" in tree else ""
            click.echo(f"{tree['obis']:<22} {tree['class']:<24} {tree['meaning']}{shown}")


async def _browse(options: SessionOptions, *, with_values: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with open_session(options) as session:
        listed = await session.run(session.client.get(AttributeDescriptor(15, _ASSOCIATION_LN, 2)))
        for element in listed.items():
            class_id, version, name, _rights = element.items(4)
            obis = Obis.from_bytes(name.octets())
            tree: dict[str, Any] = {
                "obis": str(obis),
                "class": interface_class(class_id.integer()).name,
                "class_id": class_id.integer(),
                "version": version.integer(),
                "meaning": obis.describe(),
            }
            # A profile's buffer may be a month of data: that is read by name, not in passing.
            if with_values and class_id.integer() in (1, 3, 4, 8):
                tree["value"] = await _value(session, AttributeDescriptor(class_id.integer(), obis, 2))
            found.append(tree)
    return found


async def _value(session: Session, attribute: AttributeDescriptor) -> object:
    try:
        return explain_data(await session.run(session.client.get(attribute)))
    except AccessError as error:
        return {"error": str(error)}


def _data(octets: bytes) -> Data:
    try:
        return axdr.decode(octets)
    except DlmsError as error:
        raise SessionUsageError(f"the value is no A-XDR data: {error}") from None
