"""One head-end's connection: frames in, answers out, and its limits in time and memory.

A frame has to be whole soon after its first octet, whatever trickles in between; a connection without a whole frame for
`idle_s` ends; so does one that does not take its answers. One frame is answered at a time, so that no connection has
more than its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Protocol

from concentrator.dlms.apdu.protection import GatewayApdu
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.gateway import DeviceBusyError, GatewayRequest
from concentrator.dlms.redaction import without_passwords
from concentrator.dlms.server import Server
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.tasks import cancel_and_wait
from concentrator.traffic import Source, TrafficHub
from concentrator.uplink.uplink import RECEIVED, SENT

LARGEST_PDU = 0xFFFF
_READ_OCTETS = 65_536
_MOST_WAITING = 32
_GATEWAY_REQUEST = GatewayApdu.REQUEST
# A frame that was begun: a slow network takes seconds for it, whoever takes longer holds the connection only.
_FRAME_S = 20.0
# What a meter sends unasked to a head-end that does not read.
_MOST_UNREAD_OCTETS = 262_144


class Host(Protocol):
    """What a connection needs of the listener."""

    @property
    def idle_s(self) -> float:
        """Longest silence."""
        ...

    def count(self, name: str) -> None:
        """Count what came."""
        ...

    async def answer_frame(self, connection: HeadEndConnection, frame: WrapperFrame) -> list[bytes]:
        """Answer an APDU to one of our logical devices."""
        ...

    async def relay(
        self, connection: HeadEndConnection, frame: WrapperFrame, deliver: Callable[[bytes], None]
    ) -> list[bytes]:
        """Hand a gateway-request on."""
        ...

    async def give_back(self, deliver: Callable[[bytes], None]) -> None:
        """The connection ended: meters that it spoke with are free."""
        ...


class HeadEndConnection:
    """`server` has its associations; it is `proven` once a client has one, or a meter has answered through it."""

    def __init__(self, host: Host, server: Server, address: str, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.address = address
        self.proven = False
        self.traffic: TrafficHub | None = None
        self._host = host
        self._writer = writer
        self._decoder = WrapperDecoder(LARGEST_PDU)
        self._relaying: set[asyncio.Task[None]] = set()
        # One way of delivery for each pair of wPorts: what a meter sends unasked goes back where it was asked from.
        self._ways: dict[tuple[int, int, bytes], Callable[[bytes], None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Serve until the head-end is gone.

        Raises:
            DlmsError: it talks nonsense.
            TimeoutError: it is silent, slow, or does not read.
        """
        while True:
            frame = await self._next_frame(reader)
            if frame is None:
                return
            await self._take(frame)

    async def _next_frame(self, reader: asyncio.StreamReader) -> WrapperFrame | None:
        begun = bool(self._decoder.pending)
        frame = self._decoder.next_event()
        if frame is not None:
            return frame
        if not begun:
            async with asyncio.timeout(self._host.idle_s):
                octets = await reader.read(_READ_OCTETS)
            if not octets:
                return None
            self._decoder.receive_data(octets)
        async with asyncio.timeout(min(_FRAME_S, self._host.idle_s)):
            while (frame := self._decoder.next_event()) is None:
                octets = await reader.read(_READ_OCTETS)
                if not octets:
                    return None
                self._decoder.receive_data(octets)
        return frame

    async def _take(self, frame: WrapperFrame) -> None:
        self._host.count("apdus")
        self._tell_traffic(RECEIVED, frame)
        if frame.apdu[0] != _GATEWAY_REQUEST:
            await self._send(frame, await self._host.answer_frame(self, frame))
        elif len(self._relaying) >= _MOST_WAITING:
            await self._send(frame, _busy(frame))
        else:
            # Others of this connection need not wait for a meter.
            task = asyncio.create_task(self._relay(frame))
            self._relaying.add(task)
            task.add_done_callback(self._relaying.discard)

    async def _relay(self, frame: WrapperFrame) -> None:
        try:
            way = self._way(frame)
        except DecodeError:
            way = _nowhere
        answers = await self._host.relay(self, frame, way)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._send(frame, answers)

    def _way(self, frame: WrapperFrame) -> Callable[[bytes], None]:
        """Where what a meter sends after its answer goes; the same for the same meter and wPorts."""
        header = GatewayRequest.from_bytes(frame.source, frame.destination, frame.apdu).address
        key = (frame.source, frame.destination, header.request(b""))
        if key not in self._ways and len(self._ways) >= _MOST_WAITING * 32:
            return _nowhere

        def deliver(apdu: bytes) -> None:
            if self._writer.is_closing():
                return
            if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD_OCTETS:
                self.end()
                return
            answer = WrapperFrame(frame.destination, frame.source, header.response(apdu))
            self._writer.write(answer.to_bytes())

        return self._ways.setdefault(key, deliver)

    async def _send(self, frame: WrapperFrame, apdus: Iterable[bytes]) -> None:
        for apdu in apdus:
            answer = WrapperFrame(frame.destination, frame.source, apdu)
            self._tell_traffic(SENT, answer)
            self._writer.write(answer.to_bytes())
        async with asyncio.timeout(self._host.idle_s):
            await self._writer.drain()

    def _tell_traffic(self, direction: str, frame: WrapperFrame) -> None:
        if self.traffic is not None and self.traffic.watched:
            octets = without_passwords(frame.to_bytes())
            self.traffic.publish(Source.UPSTREAM, direction, octets, note=f"dlms {self.address}")

    def end(self) -> None:
        """Have it end at once; `serve` notices."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Free what it had."""
        for task in list(self._relaying):
            await cancel_and_wait(task)
        for way in self._ways.values():
            await self._host.give_back(way)
        self._writer.close()
        with contextlib.suppress(Exception):
            await self._writer.wait_closed()


def _nowhere(_apdu: bytes) -> None:
    """For what nobody asked for."""


def _busy(frame: WrapperFrame) -> list[bytes]:
    """Too many requests of one connection wait for meters."""
    try:
        request = GatewayRequest.from_bytes(frame.source, frame.destination, frame.apdu)
    except DecodeError:
        return []
    return request.refusal(DeviceBusyError("too many gateway-requests of this connection wait"))
