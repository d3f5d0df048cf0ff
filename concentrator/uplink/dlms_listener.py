"""Head-ends on TCP: the concentrator as a DLMS server and gateway (WRAPPER, IEC 62056-47, port 4059).

Each connection has associations of its own with the management logical device and with one logical device for each
meter, served from the store on a thread that only reads. Gateway-requests go through to the meters. A connection that
is silent, slow or talks nonsense ends by itself, and none of it is in the way of reading meters.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from concentrator.clock import Clock
from concentrator.config import Config, DlmsSection
from concentrator.dlms.apdu.protection import GatewayApdu
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.gateway import GatewayRequest, relay_async
from concentrator.dlms.logical_device import AssociationDefinition, LogicalDevice
from concentrator.dlms.security import CounterSource
from concentrator.dlms.server import Server
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.tasks import cancel_and_wait
from concentrator.uplink.management_device import MANAGEMENT_DEVICE, BoxState, management_objects
from concentrator.uplink.stored_meters import StoredMeters

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_READ_OCTETS = 65_536
_LARGEST_PDU = 0xFFFF
_WRITE_LIMIT_OCTETS = 262_144
_MOST_WAITING = 32
_AARQ = 0x60
_GATEWAY_REQUEST = GatewayApdu.REQUEST

# Hands a gateway-request on; the second argument takes what the meter sends after its answer.
Route = Callable[[GatewayRequest, Callable[[bytes], None]], Awaitable[Iterable[bytes]]]
CloseRoute = Callable[[Callable[[bytes], None]], Awaitable[None]]


class DlmsListener:
    """Listens until cancelled. `connections` are open now; `counters` count what came of all."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        config: Config,
        settings: DlmsSection,
        store_file: Path,
        clock: Clock,
        box: BoxState,
        clients: Iterable[AssociationDefinition],
        counter: CounterSource,
        route: Route | None = None,
        close_route: CloseRoute | None = None,
    ) -> None:
        self.connections = 0
        self.counters = {"accepted": 0, "refused": 0, "malformed": 0, "idle": 0, "apdus": 0, "gateway": 0}
        self._config = config
        self._settings = settings
        self._store_file = store_file
        self._clock = clock
        self._box = box
        self._clients = tuple(clients)
        self._counter = counter
        self._route = route
        self._close_route = close_route
        self._devices: dict[int, LogicalDevice] = {}
        self._stored: StoredMeters | None = None
        self._thread = ThreadPoolExecutor(1, "head-ends")

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the port cannot be had."""
        server = await asyncio.start_server(
            self._serve, self._settings.host, self._settings.port, ssl=self._tls(), limit=_READ_OCTETS
        )
        log.info("listening for head-ends", host=self._settings.host, port=self._settings.port)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if not settings.certificate_file:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.certificate_file, settings.private_key_file or None)
        if settings.ca_file:
            context.load_verify_locations(settings.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self.connections >= self._settings.most_connections:
            self.counters["refused"] += 1
            writer.close()
            return
        self.connections += 1
        self.counters["accepted"] += 1
        connection = _Connection(self, writer)
        try:
            await connection.serve(reader)
        except DlmsError as error:
            self.counters["malformed"] += 1
            log.warning("head-end disconnected", peer=peer, reason=str(error))
        except TimeoutError:
            self.counters["idle"] += 1
        except (ConnectionError, ssl.SSLError) as error:
            log.info("head-end gone", peer=peer, reason=str(error))
        except asyncio.CancelledError:
            # The service stops.
            return
        finally:
            self.connections -= 1
            await connection.close()

    # On the thread

    def answer(self, server: Server, frame: WrapperFrame) -> list[bytes]:
        """Answer one APDU. Runs on the server's own thread, as everything that touches the devices does."""
        self._refresh(frame)
        return server.receive_apdu(frame.source, frame.destination, frame.apdu)

    def new_server(self) -> Server:
        """Associations of a new connection, with the devices that all share."""
        server = Server(())
        server.devices = self._devices
        return server

    def _refresh(self, frame: WrapperFrame) -> None:
        """Make the device that is spoken to, as the store has it now: at each association."""
        if frame.apdu[0] != _AARQ:
            return
        if self._stored is None:
            self._stored = StoredMeters(self._store_file)
        number = frame.destination
        if number == MANAGEMENT_DEVICE:
            objects = management_objects(self._config, self._stored, self._box)
        else:
            meter = self._stored.meter(number)
            if meter is None:
                self._devices.pop(number, None)
                return
            objects = self._stored.objects(meter)
        device = self._devices.get(number)
        if device is None:
            device = self._devices[number] = LogicalDevice(
                number,
                (),
                self._clients,
                system_title=bytes.fromhex(self._config.collection.system_title),
                counter=self._counter,
                max_pdu_size=_LARGEST_PDU,
            )
        device.objects.clear()
        device.objects.update({(entry.class_id, entry.obis): entry for entry in objects})

    # For connections

    @property
    def settings(self) -> DlmsSection:
        """What is configured."""
        return self._settings

    async def on_thread(self, server: Server, frame: WrapperFrame) -> list[bytes]:
        """`answer`, off the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.answer, server, frame)

    async def relay(self, frame: WrapperFrame, deliver: Callable[[bytes], None]) -> list[bytes]:
        """Hand a gateway-request on."""
        self.counters["gateway"] += 1
        route = self._route
        if route is None:
            return []
        return await relay_async(
            lambda request: route(request, deliver), frame.source, frame.destination, frame.apdu
        )

    async def give_back(self, deliver: Callable[[bytes], None]) -> None:
        """The connection ended: meters that it spoke with are free."""
        if self._close_route is not None:
            await self._close_route(deliver)


class _Connection:
    """One head-end."""

    def __init__(self, listener: DlmsListener, writer: asyncio.StreamWriter) -> None:
        self._listener = listener
        self._writer = writer
        self._server = listener.new_server()
        self._decoder = WrapperDecoder(_LARGEST_PDU)
        self._relaying: set[asyncio.Task[None]] = set()
        # One way of delivery for each pair of wPorts: what a meter sends unasked goes back where it was asked from.
        self._ways: dict[tuple[int, int, bytes], Callable[[bytes], None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        while True:
            async with asyncio.timeout(self._listener.settings.idle_s):
                octets = await reader.read(_READ_OCTETS)
            if not octets:
                return
            self._decoder.receive_data(octets)
            while (frame := self._decoder.next_event()) is not None:
                await self._take(frame)

    async def _take(self, frame: WrapperFrame) -> None:
        self._listener.counters["apdus"] += 1
        if frame.apdu[0] == _GATEWAY_REQUEST:
            if len(self._relaying) < _MOST_WAITING:
                # Others of this connection need not wait for a meter.
                task = asyncio.create_task(self._relay(frame))
                self._relaying.add(task)
                task.add_done_callback(self._relaying.discard)
            return
        await self._send(frame, await self._listener.on_thread(self._server, frame))

    async def _relay(self, frame: WrapperFrame) -> None:
        answers = await self._listener.relay(frame, self._way(frame))
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._send(frame, answers)

    def _way(self, frame: WrapperFrame) -> Callable[[bytes], None]:
        """Where what a meter sends after its answer goes; the same for the same meter and wPorts."""
        header = GatewayRequest.from_bytes(frame.source, frame.destination, frame.apdu).address
        key = (frame.source, frame.destination, header.request(b""))

        def deliver(apdu: bytes) -> None:
            if not self._writer.is_closing():
                self._writer.write(
                    WrapperFrame(frame.destination, frame.source, header.response(apdu)).to_bytes()
                )

        return self._ways.setdefault(key, deliver)

    async def _send(self, frame: WrapperFrame, apdus: Iterable[bytes]) -> None:
        for apdu in apdus:
            self._writer.write(WrapperFrame(frame.destination, frame.source, apdu).to_bytes())
        async with asyncio.timeout(self._listener.settings.idle_s):
            await self._writer.drain()

    async def close(self) -> None:
        for task in list(self._relaying):
            await cancel_and_wait(task)
        for way in self._ways.values():
            await self._listener.give_back(way)
        self._writer.close()
        with contextlib.suppress(Exception):
            await self._writer.wait_closed()
