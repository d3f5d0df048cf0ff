"""A wired M-Bus behind a level converter: on a serial port (8E1), or behind a TCP port.

It runs the conversations of `wmbus.wired_master`: writes a request, collects what comes until the answer is complete
or the line has been silent for longer than the standard allows.
"""

from __future__ import annotations

import asyncio
from typing import Self, TypeVar

from concentrator.links.byte_line import ByteLine, is_tcp
from concentrator.links.errors import PortError
from concentrator.wmbus.wired_master import Conversation, Request, is_complete

T = TypeVar("T")
DEFAULT_BAUD_RATE = 2400
# A slave answers within 330 bit times and 50 ms (EN 13757-2); converters and networks take their own time.
_ANSWER_BITS, _ANSWER_S, _SERIAL_SLACK_S, _TCP_SLACK_S = 330, 0.05, 0.1, 0.4
# Between the octets of a frame the line is silent for at most 33 bit times.
_OCTET_BITS, _SILENCE_BITS = 11, 66


class MbusLine:
    """One bus; use it as `async with`. One conversation at a time."""

    def __init__(self, where: str, baud_rate: int = DEFAULT_BAUD_RATE) -> None:
        self.baud_rate = baud_rate
        self._line = ByteLine(where, baud_rate, self._take, self._lose, parity="E")
        self._slack_s = _TCP_SLACK_S if is_tcp(where) else _SERIAL_SLACK_S
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._lost = ""

    async def __aenter__(self) -> Self:
        """Open it.

        Raises:
            PortError: the port or host cannot be reached.
        """
        self._lost = ""
        await self._line.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._line.close()

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
        self._check()
        self._line.write(request.octets)
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
            self._line.set_baud_rate(request.baud_rate)
        return bytes(self._received)

    def _check(self) -> None:
        if self._lost:
            raise PortError(self._lost)

    def _take(self, data: bytes) -> None:
        self._received += data
        self._arrived.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._arrived.set()
