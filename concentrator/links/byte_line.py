"""Octets to and from a place that is a serial port's path or HOST:PORT of a converter or bridge."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

from concentrator.links.errors import PortError
from concentrator.links.serial_port import SerialPort

_CONNECT_TIMEOUT_S = 5.0
_READ_SIZE = 4096
_TCP = re.compile(r"^(?P<host>\[[^\]]+\]|[^/:]+):(?P<port>\d{1,5})$")


def is_tcp(where: str) -> bool:
    """Whether a place is HOST:PORT and not a serial port's path."""
    return _TCP.match(where) is not None


class ByteLine:
    """One line. `on_data` gets what arrives; `on_lost` is told once, with the reason, when it goes away."""

    def __init__(
        self,
        where: str,
        baud_rate: int,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        *,
        parity: str = "N",
    ) -> None:
        self.where = where
        self._on_data = on_data
        self._on_lost = on_lost
        self._port = None if is_tcp(where) else SerialPort(where, baud_rate, on_data, on_lost, parity=parity)
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open it.

        Raises:
            PortError: the port or host cannot be reached.
        """
        if self._port is not None:
            self._port.open()
            return
        match = _TCP.match(self.where)
        host, port = (match["host"].strip("[]"), int(match["port"])) if match is not None else ("", 0)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, self._writer = await asyncio.open_connection(host, port)
        except (OSError, OverflowError, TimeoutError) as error:
            reason = str(error) or f"no connection within {_CONNECT_TIMEOUT_S:g} s"
            raise PortError(f"{self.where}: {reason}") from error
        self._pump = asyncio.create_task(self._read(reader))

    def write(self, data: bytes) -> None:
        """Queue octets."""
        if self._port is not None:
            self._port.write(data)
        elif self._writer is not None:
            self._writer.write(data)

    def set_baud_rate(self, baud_rate: int) -> None:
        """Have another baud rate; behind TCP that is the converter's own business."""
        if self._port is not None:
            self._port.set_baud_rate(baud_rate)

    async def close(self) -> None:
        """Close without telling `on_lost`."""
        if self._port is not None:
            self._port.close()
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_READ_SIZE):
                self._on_data(data)
        except OSError as error:
            self._on_lost(f"{self.where}: {error}")
            return
        self._on_lost(f"{self.where}: closed on the other side")
