"""A simulated modem behind a real pseudo-terminal: to the product it is a serial port like any other.

The path is a symbolic link that stays the same while the pseudo-terminal behind it comes and goes, as
udev's links do. One descriptor of the terminal's own side stays open here, so that the product may close and
reopen the port at will; unplug() closes everything, and the product sees what it would see of a pulled USB
plug.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# What a product that does not read may leave standing here; beyond it octets are lost, as on a UART.
_LARGEST_BACKLOG = 256 * 1024
_READ_SIZE = 65536


class SerialDevice(Protocol):
    """What stands behind the port: octets in, and a callback for octets out."""

    output: Callable[[bytes], None] | None

    def receive_data(self, data: bytes) -> None:
        """Take octets from the product."""
        ...


class PtyPort:
    """Connects a device to a pseudo-terminal on the running event loop; never blocks it."""

    def __init__(self, path: Path, device: SerialDevice) -> None:
        self.path = path
        self.octets_lost = 0
        self._device = device
        self._loop = asyncio.get_running_loop()
        self._master: int | None = None
        self._slave: int | None = None
        self._backlog = bytearray()
        self._writing = False
        device.output = self._write

    def plug(self) -> None:
        """Create the pseudo-terminal and its link."""
        if self._master is not None:
            return
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._master, self._slave = master, slave
        # Renaming replaces an old link without a moment in which there is none.
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.ttyname(slave))
        fresh.replace(self.path)
        self._loop.add_reader(master, self._readable)

    def unplug(self) -> None:
        """Take the port away, as when a plug is pulled: what is under way is lost."""
        if self._master is None or self._slave is None:
            return
        self._loop.remove_reader(self._master)
        self._stop_writing()
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = None
        self._backlog = bytearray()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Unplug for good."""
        self.unplug()
        self._device.output = None

    def _readable(self) -> None:
        if self._master is None:
            return
        try:
            data = os.read(self._master, _READ_SIZE)
        except BlockingIOError:
            return
        self._device.receive_data(data)

    def _write(self, data: bytes) -> None:
        if self._master is None:
            self.octets_lost += len(data)
            return
        if len(self._backlog) + len(data) > _LARGEST_BACKLOG:
            self.octets_lost += len(data)
            return
        self._backlog += data
        if not self._writing:
            self._writable()

    def _writable(self) -> None:
        if self._master is None:
            return
        try:
            while self._backlog:
                written = os.write(self._master, self._backlog)
                del self._backlog[:written]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._master, self._writable)
            return
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing and self._master is not None:
            self._loop.remove_writer(self._master)
        self._writing = False
