"""A wired M-Bus behind a level converter: on a serial port (8E1), or behind a TCP port.

It runs the conversations of `wmbus.wired_master`: writes a request, collects what comes until the answer is complete
or the line has been silent for longer than the standard allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Self, TypeVar

from concentrator.links.errors import PortError
from concentrator.links.serial_port import SerialPort
from concentrator.wmbus.wired_master import Conversation, Request, is_complete

T = TypeVar("T")
DEFAULT_BAUD_RATE = 2400
# A slave answers within 330 bit times and 50 ms (EN 13757-2); converters and networks take their own time.
_ANSWER_BITS, _ANSWER_S, _SERIAL_SLACK_S, _TCP_SLACK_S = 330, 0.05, 0.1, 0.4
# Between the octets of a frame the line is silent for at most 33 bit times.
_OCTET_BITS, _SILENCE_BITS = 11, 66
_CONNECT_TIMEOUT_S = 5.0
_TCP = re.compile(r"^(?P<host>\[[^\]]+\]|[^/:]+):(?P<port>\d{1,5})$")


def is_tcp(where: str) -> bool:
    """Whether a place is HOST:PORT and not a serial port's path."""
    return _TCP.match(where) is not None


class MbusLine:
    """One bus; use it as `async with`. One conversation at a time."""

    def __init__(self, where: str, baud_rate: int = DEFAULT_BAUD_RATE) -> None:
        self.where = where
        self.baud_rate = baud_rate
        self._slack_s = _TCP_SLACK_S if is_tcp(where) else _SERIAL_SLACK_S
        self._port: SerialPort | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._lost = ""

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            PortError: the port or host cannot be reached.
        """
        self._lost = ""
        match = _TCP.match(self.where)
        if match is None:
            self._port = SerialPort(self.where, self.baud_rate, self._take, self._lose, parity="E")
            self._port.open()
            return self
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, self._writer = await asyncio.open_connection(
                    match["host"].strip("[]"), int(match["port"])
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no connection within {_CONNECT_TIMEOUT_S:g} s"
            raise PortError(f"M-Bus at {self.where}: {reason}") from error
        self._pump = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._port is not None:
            self._port.close()
        if self._pump is not None:
            self._pump.cancel()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def run(self, conversation: Conversation[T]) -> T:
        """Hold a conversation to its end.

        Raises:
            PortError: the line went away.
            TelegramError: what the conversation raises.
        """
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self._exchange(request))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _exchange(self, request: Request) -> bytes:
        self._received.clear()
        self._write(request.octets)
        loop = asyncio.get_running_loop()
        sending_s = len(request.octets) * _OCTET_BITS / self.baud_rate
        deadline = loop.time() + sending_s + _ANSWER_BITS / self.baud_rate + _ANSWER_S + self._slack_s
        silence_s = _SILENCE_BITS / self.baud_rate + self._slack_s
        while not (request.expects_answer and is_complete(request, bytes(self._received))):
            self._check()
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                break
            if len(self._received) > len(request.octets):
                deadline = loop.time() + silence_s
        self._check()
        if request.baud_rate is not None:
            self.baud_rate = request.baud_rate
            if self._port is not None:
                self._port.set_baud_rate(request.baud_rate)
        return bytes(self._received)

    def _write(self, octets: bytes) -> None:
        self._check()
        if self._port is not None:
            self._port.write(octets)
        elif self._writer is not None:
            self._writer.write(octets)

    def _check(self) -> None:
        if self._lost:
            raise PortError(self._lost)

    def _take(self, data: bytes) -> None:
        self._received += data
        self._arrived.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._arrived.set()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(4096):
                self._take(data)
        except OSError as error:
            self._lose(f"M-Bus at {self.where}: {error}")
            return
        self._lose(f"M-Bus at {self.where}: closed on the other side")
