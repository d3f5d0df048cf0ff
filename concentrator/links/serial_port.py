"""A serial port on the event loop: pyserial opens and sets it, the loop watches its descriptor."""

from __future__ import annotations

import asyncio
import errno
import os
import termios
from collections.abc import Callable

import serial

from concentrator.links.errors import PortError

_READ_SIZE_OCTETS = 4096
# A modem that takes nothing while this much waits is not there any more (22 s at 230400 baud).
_LARGEST_BACKLOG_OCTETS = 512 * 1024


class SerialPort:
    """One port. `on_data` gets what arrives; `on_lost` is told once, with the reason, when it goes away."""

    def __init__(
        self,
        port: str,
        baud_rate: int,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        *,
        parity: str = "N",
    ) -> None:
        """`parity` is N, E or O."""
        self.port = port
        self._baud_rate = baud_rate
        self._parity = parity
        self._on_data = on_data
        self._on_lost = on_lost
        self._serial: serial.Serial | None = None
        self._waiting = bytearray()
        self._writing = False

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._serial is not None

    def open(self) -> None:
        """Open for ourselves alone, eight data bits, one stop bit, no flow control.

        Raises:
            PortError: it is not there, not ours to open, or used by another program.
        """
        try:
            opened = self._open()
        except (serial.SerialException, termios.error, OSError, ValueError) as error:
            raise PortError(f"serial port {self.port}: {_advice(error)}") from error
        self._serial = opened
        self._waiting.clear()
        asyncio.get_running_loop().add_reader(opened.fileno(), self._readable)

    def _open(self) -> serial.Serial:
        try:
            return self._open_with(self._parity)
        except termios.error:
            # A pseudo-terminal knows no parity, and says so when it is asked for it a second time.
            if self._parity == "N":
                raise
            return self._open_with("N")

    def _open_with(self, parity: str) -> serial.Serial:
        return serial.Serial(
            self.port, self._baud_rate, parity=parity, timeout=0, write_timeout=0, exclusive=True
        )

    def write(self, data: bytes) -> None:
        """Queue octets; a port that is not open drops them, as `on_lost` has been told."""
        if self._serial is None:
            return
        if len(self._waiting) + len(data) > _LARGEST_BACKLOG_OCTETS:
            self._lose("takes no more data: the modem behind it does not read")
            return
        self._waiting += data
        if not self._writing:
            self._writable()

    def set_baud_rate(self, baud_rate: int) -> None:
        """Have another baud rate from now on, on an open port too."""
        self._baud_rate = baud_rate
        if self._serial is not None:
            self._serial.baudrate = baud_rate

    def close(self) -> None:
        """Close without telling `on_lost`."""
        opened, self._serial = self._serial, None
        if opened is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened.fileno())
        loop.remove_writer(opened.fileno())
        self._writing = False
        opened.close()

    def _readable(self) -> None:
        if self._serial is None:
            return
        try:
            data = os.read(self._serial.fileno(), _READ_SIZE_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(_advice(error))
            return
        if not data:
            self._lose("closed on the other side")
            return
        self._on_data(data)

    def _writable(self) -> None:
        if self._serial is None:
            return
        descriptor = self._serial.fileno()
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                written = os.write(descriptor, self._waiting)
                self._waiting = self._waiting[written:]
        except BlockingIOError:
            if not self._writing:
                loop.add_writer(descriptor, self._writable)
                self._writing = True
            return
        except OSError as error:
            self._lose(_advice(error))
            return
        if self._writing:
            loop.remove_writer(descriptor)
            self._writing = False

    def _lose(self, reason: str) -> None:
        self.close()
        self._on_lost(f"serial port {self.port}: {reason}")


def _advice(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "is not there; is the modem plugged in, and the path right?"
    if number in (errno.EACCES, errno.EPERM):
        return "may not be opened; is this user in the group dialout?"
    if number in (errno.EAGAIN, errno.EBUSY):
        return "is in use by another program"
    if number in (errno.EIO, errno.ENXIO, errno.ENODEV):
        return "the device went away"
    return str(error)
