"""The command line: one verb each, heavy modules imported only by the verb that needs them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import ClassVar, NoReturn, TextIO

import click

from concentrator.command_options import CONFIG_OPTION
from concentrator.command_types import FolderType, OctetsType
from concentrator.errors import ConcentratorError, LocalError, RemoteError

# Exit status: 1 for what failed, 2 for what was asked or configured wrongly.
FAILED = 1
WRONG = 2


def _fail(error: ConcentratorError) -> NoReturn:
    for line in str(error).splitlines():
        click.echo(f"concentrator: {line}", err=True)
    wrong = isinstance(error, LocalError) and not isinstance(error, RemoteError)
    sys.exit(WRONG if wrong else FAILED)


class _Main(click.Group):
    """The verbs. Groups of many options live in rooms of their own, imported when they are called."""

    lazy: ClassVar[dict[str, tuple[str, str]]] = {
        "audit": ("concentrator.audit_command", "audit"),
        "support-bundle": ("concentrator.archive.command", "support_bundle"),
        "backup": ("concentrator.archive.command", "backup"),
        "restore": ("concentrator.archive.command", "restore_command"),
        "factory-reset": ("concentrator.archive.command", "factory_reset_command"),
        "config": ("concentrator.config_command", "config_group"),
        "page": ("concentrator.page_command", "page"),
        "run": ("concentrator.run_command", "run"),
        "users": ("concentrator.users_command", "users"),
        "dlms": ("concentrator.dlms_tools.command", "dlms"),
        **{
            verb: ("concentrator.operator_tools.command", f"{verb}_command")
            for verb in ("order", "orders", "tasks", "gaps", "topology")
        },
        "firmware": ("concentrator.firmware_command", "firmware"),
        "fleet-consumer": ("concentrator.fleet.command", "fleet_consumer"),
        "head-ends": ("concentrator.head_end_command", "head_ends"),
        "keys": ("concentrator.registry_tools.keys", "keys"),
        "meters": ("concentrator.registry_tools.meters", "meters"),
        "store": ("concentrator.store_command", "store"),
        "mqtt-schemas": ("concentrator.schemas_command", "mqtt_schemas"),
        "models": ("concentrator.registry_tools.models", "models"),
        "estimate": ("concentrator.quality_command", "estimate"),
        "events": ("concentrator.quality_command", "events"),
        "balance": ("concentrator.quality_command", "balance"),
        "kpi": ("concentrator.quality_command", "kpi"),
        "interruptions": ("concentrator.quality_command", "interruptions"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb by name."""
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One verb."""
        if cmd_name in self.lazy:
            module, name = self.lazy[cmd_name]
            return getattr(import_module(module), name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb; every error of ours ends it with one line and the status that fits."""
        try:
            return super().invoke(ctx)
        except ConcentratorError as error:
            _fail(error)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="open-data-concentrator", prog_name="concentrator")
def main() -> None:
    """An open data concentrator: collects from every meter behind a transformer, forwards to the utility."""


@main.command()
@CONFIG_OPTION
def status(config_file: Path) -> None:
    """Print the status of the running concentrator as JSON."""
    from concentrator.config import load_config
    from concentrator.control import request

    config = load_config(config_file, ports_exist=False)
    click.echo(json.dumps(asyncio.run(request(config.control_socket, {"op": "status"})), indent=2))


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Check a configuration file: exit status 0 when it is right, 2 and one line when it is not."""
    from concentrator.access.full_check import check_everything
    from concentrator.config import load_config

    check_everything(load_config(file), str(file))
    click.echo(f"{file}: right")


def _simulation_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `demo` and `simulate` have in common."""
    for option in (
        click.option(
            "--loss", type=click.FloatRange(0, 0.5), default=0.0, help="Extra frame loss, 0 to 0.5."
        ),
        click.option("--seed", type=int, default=1, help="Seed of everything random."),
        click.option("--meters", type=click.IntRange(1, 2000), default=12, help="Electricity meters."),
        click.option(
            "--protocol",
            type=click.Choice(["prime", "g3", "g3-a", "s-fsk"]),
            default="prime",
            help="PLC family; g3-a: bootstrap server on the host.",
        ),
    ):
        command = option(command)
    return command


@main.command(context_settings={"show_default": True})
@_simulation_options
@click.option("--days", type=click.IntRange(1, 60), default=2, help="Days of load profile to collect.")
@click.option(
    "--speed", type=click.FloatRange(1, 10_000), default=60.0, help="Airtime runs this much faster."
)
@click.option("--once", is_flag=True, help="End when everything is collected and acknowledged.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
@click.option(
    "--timeout", "timeout_s", type=click.IntRange(1), default=1800, help="With --once: give up after (s)."
)
@click.option(
    "--web-port", type=click.IntRange(0, 65535), default=0, help="Port of the page; 0 takes a free one."
)
@click.option("--keep", type=FolderType(), help="Keep state and logs in this folder.")
def demo(**options: object) -> None:
    """Run the main job on an embedded simulated substation, with a broker and a head-end in the process."""
    try:
        from concentrator.demo import DemoOptions, run_demo
    except ImportError as error:
        click.echo(f"concentrator: the demo needs the extra [demo] of the package: no {error.name}", err=True)
        sys.exit(FAILED)
    sys.exit(run_demo(DemoOptions(**options)))  # pyright: ignore[reportArgumentType] - checked by click


@main.command(context_settings={"show_default": True})
@_simulation_options
@click.option("--directory", type=FolderType(), required=True, help="Where the ports go.")
@click.option("--speed", type=click.FloatRange(1, 10_000), default=1.0, help="Airtime runs this much faster.")
@click.option("--supervisor", is_flag=True, help="A supervisor meter at the transformer: the last one.")
@click.option(
    "--thief", type=click.IntRange(0), default=0, help="Number of a meter that was tampered with; 0: none."
)
def simulate(directory: Path, **options: object) -> None:
    """Simulate a substation behind pseudo-terminals: DIRECTORY/modem and DIRECTORY/radio."""
    from concentrator.simulator.run import run_substation

    sys.exit(run_substation(directory, **options))  # pyright: ignore[reportArgumentType] - checked by click


@main.command()
@click.argument("source", metavar="HEX|FILE|-")
@click.option(
    "--key", type=OctetsType(), default=b"", help="DLMS encryption key, or the key of an M-Bus meter."
)
@click.option("--authentication-key", type=OctetsType(), default=b"", help="DLMS authentication key.")
@click.option(
    "--system-title", type=OctetsType(), default=b"", help="DLMS system title of the sender (8 octets)."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of a tree.")
def decode(source: str, key: bytes, authentication_key: bytes, system_title: bytes, as_json: bool) -> None:  # noqa: FBT001
    """Recognise and explain any frame or APDU of metering.

    A file, or - for standard input, has one frame in hexadecimal a line, each optionally followed by key=HEX
    ak=HEX st=HEX. Exit status 1 when something cannot be decoded.
    """
    from concentrator.inspect.command import run_decode

    sys.exit(run_decode(source, key, authentication_key, system_title, as_json=as_json))


@main.command()
@click.option("--optical", metavar="PORT", help="Serial port of an optical head (IEC 62056-21).")
@click.option("--mbus", metavar="PORT|HOST:PORT", help="A wired M-Bus: level converter, serial or over TCP.")
@click.option("--p1", metavar="PORT|HOST:PORT", help="Consumer port P1 of a meter.")
@click.option(
    "--han", metavar="PORT|HOST:PORT", help="Consumer port that pushes DLMS (M-Bus or HDLC frames)."
)
@click.option("--address", default="", help="Optical: device address. M-Bus: primary address, 0 to 250.")
@click.option("--secondary", default="", help="M-Bus: secondary address, 8 or 16 digits, F for any.")
@click.option("--search", is_flag=True, help="M-Bus: find all slaves by their secondary addresses.")
@click.option(
    "--baud-rate", type=click.IntRange(300, 115_200), help="M-Bus, HAN: 2400 by default. P1: 115200."
)
@click.option(
    "--register", "registers", multiple=True, help="Optical: read this register only; may be repeated."
)
@click.option(
    "--write",
    "writes",
    multiple=True,
    metavar="REGISTER=VALUE",
    help="Optical: write a register; may be repeated.",
)
@click.option(
    "--password-file", type=click.File(), help="Optical: file with the password of programming mode."
)
@click.option(
    "--secure-algorithm",
    metavar="PROGRAM",
    help="Optical: maker's program for password command P2; gets the operand as a line, prints the result.",
)
@click.option("--hdlc", is_flag=True, help="Optical: by mode E into HDLC, registers by DLMS.")
@click.option("--wake-up", is_flag=True, help="Optical: wake up a meter with battery first.")
@click.option("--pushed", is_flag=True, help="Optical: wait for a meter that sends by itself (mode D).")
@click.option("--key", type=OctetsType(), default=b"", help="P1, HAN, M-Bus, --hdlc: encryption key.")
@click.option(
    "--authentication-key", type=OctetsType(), default=b"", help="P1, HAN, --hdlc: authentication key."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def read(  # noqa: PLR0913 - a command's options
    optical: str | None,
    mbus: str | None,
    p1: str | None,
    han: str | None,
    address: str,
    secondary: str,
    registers: tuple[str, ...],
    writes: tuple[str, ...],
    password_file: TextIO | None,
    secure_algorithm: str | None,
    baud_rate: int | None,
    key: bytes,
    authentication_key: bytes,
    *,
    search: bool,
    hdlc: bool,
    wake_up: bool,
    pushed: bool,
    as_json: bool,
) -> None:
    """Read a meter on site: optical head (IEC 62056-21, modes A to E), wired M-Bus, or consumer port P1.

    Exit status 1 when it does not answer.
    """
    if sum(one is not None for one in (optical, mbus, p1, han)) != 1:
        raise click.UsageError("give one of --optical, --mbus, --p1 and --han")
    if mbus is not None:
        from concentrator.mbus_tools.read import run_read_mbus

        if address and not address.isdecimal():
            raise click.UsageError(f"--address of an M-Bus is a number, got {address!r}")
        primary = int(address) if address else None
        sys.exit(
            run_read_mbus(
                mbus,
                baud_rate or 2400,
                address=primary,
                secondary=secondary,
                search=search,
                key=key,
                as_json=as_json,
            )
        )
    if p1 is not None:
        from concentrator.links.p1_port import run_read_p1

        run_read_p1(p1, baud_rate, key, authentication_key, as_json=as_json)
        return
    if han is not None:
        from concentrator.mbus_tools.han import run_read_han

        run_read_han(han, baud_rate, key, authentication_key, as_json=as_json)
        return
    if hdlc:
        _read_by_hdlc(optical or "", registers, key, authentication_key, as_json=as_json)
        return
    from concentrator.iec62056_21.reader import OpticalReader
    from concentrator.links.optical_head import program_as_algorithm, run_read

    if secure_algorithm and password_file is not None:
        raise click.UsageError("give one of --password-file and --secure-algorithm")
    password = password_file.read().strip() if password_file is not None else ""
    reader = OpticalReader(
        device_address=address,
        registers=registers,
        writes=_pairs(writes),
        password=password,
        secure_algorithm=program_as_algorithm(secure_algorithm) if secure_algorithm else None,
        wake_up=wake_up,
        pushed=pushed,
    )
    run_read(optical or "", reader, as_json=as_json)


def _read_by_hdlc(
    port: str, registers: tuple[str, ...], key: bytes, authentication_key: bytes, *, as_json: bool
) -> None:
    """The bench's DLMS client over an optical head; without registers every object with its value."""
    from concentrator.dlms_tools.command import dlms as dlms_client

    options = ["--serial", port, "--optical", *(("--json",) if as_json else ())]
    for name, octets in (("--key", key), ("--authentication-key", authentication_key)):
        options += [name, octets.hex()] if octets else []
    for register in registers:
        dlms_client.main(["read", *options, register], standalone_mode=False)
    if not registers:
        dlms_client.main(["browse", "--values", *options], standalone_mode=False)


def _pairs(writes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [one.partition("=") for one in writes]
    if not all(separator and register for register, separator, _value in pairs):
        raise click.UsageError("--write wants REGISTER=VALUE")
    return tuple((register, value) for register, _separator, value in pairs)


@main.group()
def modem() -> None:
    """A PLC modem on the bench."""


_MODEM_PORT_OPTION = click.option("--port", required=True, help="The serial port of the modem.")


@modem.command("probe")
@_MODEM_PORT_OPTION
@click.option("--baud-rate", type=click.IntRange(1200, 4_000_000), help="Its speed; else the usual ones.")
def modem_probe(port: str, baud_rate: int | None) -> None:
    """Find out which modem is at a port: family, generation, identity, versions, counters.

    Asks, and changes nothing. Exit status 1 when no modem answers.
    """
    from concentrator.modem_tools.probe import run_probe

    sys.exit(run_probe(port, baud_rate))


@modem.command("sniff")
@_MODEM_PORT_OPTION
@click.option("--baud-rate", type=click.IntRange(1200, 4_000_000), default=230400, show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), help="File for the frames; `concentrator decode` reads it."
)
@click.option(
    "--tee",
    type=click.Path(path_type=Path),
    metavar="LINK",
    help="Stand between product and modem: point the product's modem.port at LINK.",
)
def modem_sniff(port: str, baud_rate: int, output: Path | None, tee: Path | None) -> None:
    """Print the traffic of a modem, decoded, until Ctrl-C. Says nothing itself.

    Without --tee PORT is a second adapter that taps the line.
    """
    from concentrator.modem_tools.sniff import run_sniff

    sys.exit(run_sniff(port, baud_rate, output, tee))


@main.group()
def radio() -> None:
    """A wireless M-Bus module on the bench."""


@radio.command("probe")
@click.option("--port", required=True, help="The serial port of the module.")
@click.option("--mode", default="T1", show_default=True, help="Link mode to set on the way.")
def radio_probe(port: str, mode: str) -> None:
    """Find out which radio module is at a port, and print its lines of the configuration."""
    from concentrator.mbus_tools.radio import run_probe_radio

    run_probe_radio(port, mode)


_RADIO_MODULE_OPTION = click.option(
    "--module", default="auto", show_default=True, help="Its driver, as radio.module in the configuration."
)
_RADIO_MODE_OPTION = click.option("--mode", default="T1", show_default=True, help="Link mode.")


@radio.command("listen")
@click.option("--port", required=True, help="The serial port of the module.")
@_RADIO_MODULE_OPTION
@_RADIO_MODE_OPTION
@click.option("--key", type=OctetsType(), default=b"", help="Key to try on every telegram.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Stop after this time; else at Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def radio_listen(  # noqa: PLR0913 - a command's options
    port: str, module: str, mode: str, key: bytes, seconds: float | None, *, as_json: bool
) -> None:
    """Print every telegram that the module hears, decoded."""
    from concentrator.config import RadioSection
    from concentrator.mbus_tools.radio import run_listen

    run_listen(RadioSection(module=module, port=port, mode=mode), key, seconds=seconds, as_json=as_json)


@radio.command("send")
@click.option("--port", required=True, help="The serial port of the module.")
@_RADIO_MODULE_OPTION
@_RADIO_MODE_OPTION
@click.argument("telegram", type=OctetsType())
def radio_send(port: str, module: str, mode: str, telegram: bytes) -> None:
    """Have the module send TELEGRAM, in hexadecimal from its L-field on, without CRCs."""
    from concentrator.config import RadioSection
    from concentrator.mbus_tools.radio import run_send

    run_send(RadioSection(module=module, port=port, mode=mode), telegram)


@main.group()
def update() -> None:
    """Update the concentrator itself."""


@update.command("install")
@click.argument("file", type=click.Path())
@click.option("--bus", type=click.Choice(["system", "session"]), help="The D-Bus that RAUC is on.")
@CONFIG_OPTION
def update_install(file: str, bus: str | None, config_file: Path) -> None:
    """Let RAUC check the signed bundle FILE and install it into the other slot.

    The running service of the configuration is told, if there is one.
    """
    from concentrator.update.command import install

    sys.exit(install(file, bus, config_file))
