"""`concentrator modem probe`: find out by asking which modem is at a port, at which speed.

The questions are those of plc/probe.py; here are the port and the speeds. Nothing of the modem is changed.
"""

from __future__ import annotations

import asyncio

import click

from concentrator.errors import ConcentratorError
from concentrator.links.errors import PortError
from concentrator.links.serial_port import SerialPort
from plc.probe import Finding, ModemProbe

# What firmware is built for, most likely first.
USUAL_BAUD_RATES = (230400, 115200, 57600, 921600, 460800, 38400, 19200, 9600)

_GENERATIONS = {
    ("prime", "harmony"): "PRIME base node, firmware of the Harmony generation",
    ("prime", "2021"): "PRIME base node, firmware of the 2021 generation",
    ("g3", "b"): "G3-PLC coordinator, generation B: its bootstrap server is in the modem",
    ("g3", "a"): "G3-PLC coordinator, generation A: the host is the bootstrap server",
    ("s-fsk", "amis-49587"): "S-FSK modem with the MAC sub-layer, of the AMIS-49587 kind",
}


class NoModemError(ConcentratorError):
    """Nothing that can be driven answered at the port: the text says what came instead."""


async def probe(port: str, baud_rates: tuple[int, ...], answer_timeout_s: float = 1.0) -> tuple[Finding, int]:
    """What stands at a port, and the speed at which it answered.

    Raises:
        PortError: the port cannot be opened, or went away.
        NoModemError: nothing answered at any of the speeds.
    """
    silences: list[str] = []
    for baud_rate in baud_rates:
        asked = await _probe_at(port, baud_rate, answer_timeout_s)
        if asked.finding is not None:
            return asked.finding, baud_rate
        silences.append(f"at {baud_rate} baud {asked.silence()}")
    raise NoModemError(
        f"{port}: no PRIME, G3 or S-FSK modem answered: {'; '.join(silences)}. Check power, wiring (TX to RX) and the "
        "speed that its firmware was built for"
    )


async def _probe_at(port: str, baud_rate: int, answer_timeout_s: float) -> ModemProbe:
    loop = asyncio.get_running_loop()
    asked = ModemProbe(answer_timeout_s)
    wake = asyncio.Event()
    lost: list[str] = []

    def take(data: bytes) -> None:
        asked.receive_data(data, loop.time())
        wake.set()

    def lose(reason: str) -> None:
        lost.append(reason)
        wake.set()

    serial_port = SerialPort(port, baud_rate, take, lose)
    serial_port.open()
    try:
        asked.start(loop.time())
        while not asked.done:
            serial_port.write(asked.data_to_send())
            wake.clear()
            try:
                async with asyncio.timeout_at(asked.next_timeout()):
                    await wake.wait()
            except TimeoutError:
                asked.handle_timeout(loop.time())
            if lost:
                raise PortError(lost[0])
    finally:
        serial_port.close()
    return asked


def in_words(finding: Finding, port: str, baud_rate: int) -> list[str]:
    """A finding as lines for people."""
    lines = [
        f"{port} at {baud_rate} baud: {_GENERATIONS[finding.family, finding.generation]}",
        f"  identity: {finding.identity.hex() or 'none told'}",
    ]
    if finding.remark:
        lines.append(f"  note: {finding.remark}")
    for title, pairs in (("told", finding.facts), ("counters", finding.counters)):
        if pairs:
            lines.append(f"  {title}:")
            lines += [f"    {name}: {value}" for name, value in pairs]
    return lines


def run_probe(port: str, baud_rate: int | None) -> int:
    """Print what stands at a port; returns the exit status.

    Raises:
        PortError, NoModemError: as for `probe`.
    """
    baud_rates = USUAL_BAUD_RATES if baud_rate is None else (baud_rate,)
    finding, found_at = asyncio.run(probe(port, baud_rates))
    click.echo("\n".join(in_words(finding, port, found_at)))
    return 0
