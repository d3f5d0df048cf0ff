"""`concentrator modem sniff`: the traffic between a host and its modem, explained as it passes.

Two ways to listen, and neither says a word of its own:

* `--port` alone listens to a line that somebody else has tapped: a second serial adapter on the modem's TX and
  RX. Which side a message comes from is told by its command.
* `--port` with `--tee LINK` stands between: it opens the modem's port, makes a pseudo-terminal with the link LINK
  to it, and passes every octet on as it came. The product is pointed at LINK (`modem.port`).

The file has one frame a line in hexadecimal, each after a comment with its time and direction;
`concentrator decode FILE` reads it back. Keys of the network and passwords are replaced by zeros in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tty
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from concentrator.errors import ConcentratorError
from concentrator.inspect.command import render
from concentrator.inspect.inspector import Inspector
from concentrator.links.errors import PortError
from concentrator.links.frame_tap import FROM_HOST, FROM_MODEM, HEARD, FrameTap
from concentrator.links.serial_port import SerialPort

_READ_SIZE_OCTETS = 4096
# What the host may leave unread; a product that reads nothing loses octets, as on a UART.
_LARGEST_BACKLOG_OCTETS = 64 * 1024


class SniffError(ConcentratorError):
    """The traffic cannot be listened to or kept: the text says why."""


class Sniffer:
    """Turns octets of each direction into explained frames. `counters` tells what was heard."""

    def __init__(
        self,
        show: Callable[[str], None],
        output: TextIO | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._show = show
        self._output = output
        self._clock = clock
        self._tap = FrameTap()
        self._inspector = Inspector()

    def receive_data(self, direction: str, data: bytes) -> None:
        """Take octets that passed; every whole frame in them is shown and kept."""
        for frame in self._tap.receive_data(direction, data):
            self._take(direction, frame)

    def summary(self) -> str:
        """How many frames passed, and what was no frame."""
        total = self._tap.counters()
        frames = total.pop("frames", 0)
        dropped = ", ".join(f"{name} {count}" for name, count in total.items() if count)
        return f"{frames} frames" + (f"; dropped: {dropped}" if dropped else "")

    def _take(self, direction: str, frame: bytes) -> None:
        heading = f"{self._clock().isoformat(timespec='milliseconds')} {direction}"
        if self._output is not None:
            self._output.write(f"# {heading}\n{frame.hex()}\n")
            self._output.flush()
        tree = self._inspector.inspect(frame)
        self._show("\n".join([heading, *render(tree, "  ")]))


class Tee:
    """A pseudo-terminal for the host, named by a link; what the host writes comes out of `on_data`."""

    def __init__(self, link: Path, on_data: Callable[[bytes], None]) -> None:
        self._link = link
        self._on_data = on_data
        self._master = self._slave = -1

    def open(self) -> None:
        """Create it.

        Raises:
            SniffError: something that is no link is there already, or the folder cannot be written to.
        """
        if self._link.exists() and not self._link.is_symlink():
            raise SniffError(f"{self._link}: is there already, and no link; give --tee a new path")
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        try:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(os.ttyname(self._slave))
        except OSError as error:
            self._close_descriptors()
            raise SniffError(f"{self._link}: the link cannot be made: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    def write(self, data: bytes) -> None:
        """Pass octets on to the host; what it does not read is lost, as on a UART."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self._master, data[:_LARGEST_BACKLOG_OCTETS]) :]

    def close(self) -> None:
        """Take it away."""
        asyncio.get_running_loop().remove_reader(self._master)
        self._close_descriptors()
        self._link.unlink(missing_ok=True)

    def _close_descriptors(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._on_data(os.read(self._master, _READ_SIZE_OCTETS))


async def sniff(
    port: str,
    baud_rate: int,
    tee: Path | None,
    sniffer: Sniffer,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Listen until `stop`; `ready` is called when everything is open.

    Raises:
        PortError: the port cannot be opened, or went away.
        SniffError: the tee's link cannot be made.
    """
    lost: list[str] = []
    between: Tee | None = None

    def from_modem(data: bytes) -> None:
        if between is not None:
            between.write(data)
        sniffer.receive_data(HEARD if between is None else FROM_MODEM, data)

    def from_host(data: bytes) -> None:
        serial_port.write(data)
        sniffer.receive_data(FROM_HOST, data)

    def lose(reason: str) -> None:
        lost.append(reason)
        stop.set()

    serial_port = SerialPort(port, baud_rate, from_modem, lose)
    serial_port.open()
    try:
        if tee is not None:
            between = Tee(tee, from_host)
            between.open()
        try:
            ready()
            await stop.wait()
        finally:
            if between is not None:
                between.close()
    finally:
        serial_port.close()
    if lost:
        raise PortError(lost[0])


def run_sniff(port: str, baud_rate: int, output: Path | None, tee: Path | None) -> int:
    """Show the traffic until Ctrl-C or SIGTERM; returns the exit status.

    Raises:
        PortError, SniffError: as for `sniff`, or the file cannot be written.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        where = f"{port} at {baud_rate} baud"
        words = f"listening to {where}" if tee is None else f"{tee} leads to {where}"
        await sniff(port, baud_rate, tee, sniffer, lambda: click.echo(f"{words}; Ctrl-C ends it"), stop)

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_private(output)) if output is not None else None
        sniffer = Sniffer(click.echo, file)
        try:
            asyncio.run(run())
        finally:
            click.echo(sniffer.summary(), err=True)
    return 0


def _open_private(path: Path) -> TextIO:
    """A new file that only we can read: the traffic tells of people's consumption."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise SniffError(f"{path}: cannot be written: {error.strerror}") from error
    return os.fdopen(descriptor, "w", encoding="ascii")
