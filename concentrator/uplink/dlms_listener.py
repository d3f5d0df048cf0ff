"""Head-ends on TCP: the concentrator as a DLMS server and gateway (WRAPPER, IEC 62056-47, port 4059).

Each connection has associations of its own with the management logical device and with one logical device for each
meter, served from the store on a thread of its own. Gateway-requests go through to the meters. A connection that is
silent, slow or talks nonsense ends by itself; when all places are taken, one that has not proven anything makes way for
a new one, of the address that has most of them. None of it is in the way of reading meters.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from concentrator.config import DlmsSection
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.gateway import DeviceBusyError, GatewayRequest, relay_async
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.traffic import TrafficHub
from concentrator.uplink.dlms_connection import HeadEndConnection
from concentrator.uplink.dlms_devices import DlmsDevices

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_READ_OCTETS = 65_536
_HANDSHAKE_S = 10.0
_LISTEN_RETRY_S = 5.0

# Hands a gateway-request on; the second argument takes what the meter sends after its answer.
Route = Callable[[GatewayRequest, Callable[[bytes], None]], Awaitable[Iterable[bytes]]]
CloseRoute = Callable[[Callable[[bytes], None]], Awaitable[None]]


class DlmsListener:
    """Listens until cancelled. `counters` count what came of all connections."""

    def __init__(
        self,
        settings: DlmsSection,
        devices: DlmsDevices,
        route: Route | None = None,
        close_route: CloseRoute | None = None,
    ) -> None:
        self.counters: dict[str, int] = dict.fromkeys(
            ("accepted", "refused", "displaced", "malformed", "idle", "apdus", "gateway"), 0
        )
        self.devices = devices
        self.traffic: TrafficHub | None = None
        self._settings = settings
        self._route = route
        self._close_route = close_route
        self._thread = ThreadPoolExecutor(1, "head-ends")
        self._open: dict[HeadEndConnection, None] = {}

        # Why nobody can connect; "" while they can.
        self.trouble = ""

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    @property
    def idle_s(self) -> float:
        """Longest silence of a connection."""
        return self._settings.idle_s

    def count(self, name: str) -> None:
        """Count what came."""
        self.counters[name] += 1

    async def run(self) -> None:
        """Serve until cancelled; a port or a certificate that cannot be had is told, and tried again."""
        try:
            while True:
                try:
                    server = await self._listen()
                except OSError as error:
                    # ssl.SSLError is one too.
                    self._tell_trouble(error.strerror or str(error))
                    await asyncio.sleep(_LISTEN_RETRY_S)
                    continue
                self._tell_trouble("")
                async with server:
                    await server.serve_forever()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _listen(self) -> asyncio.Server:
        context = self._tls()
        return await asyncio.start_server(
            self._serve,
            self._settings.host,
            self._settings.port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else _HANDSHAKE_S,
            limit=_READ_OCTETS,
        )

    def _tell_trouble(self, reason: str) -> None:
        where = {"host": self._settings.host, "port": self._settings.port}
        if reason and reason != self.trouble:
            log.error("no head-end can connect, trying again", **where, reason=reason)
        elif not reason:
            log.info("listening for head-ends", **where)
        self.trouble = reason

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
        address = str(peer[0]) if peer else ""
        if self.connections >= self._settings.most_connections and not self._make_way():
            self.count("refused")
            writer.close()
            return
        self.count("accepted")
        connection = HeadEndConnection(self, self.devices.new_server(), address, writer)
        connection.traffic = self.traffic
        self._open[connection] = None
        try:
            await connection.serve(reader)
        except DlmsError as error:
            self.count("malformed")
            log.warning("head-end disconnected", peer=peer, reason=str(error))
        except TimeoutError:
            self.count("idle")
        except (ConnectionError, ssl.SSLError) as error:
            log.info("head-end gone", peer=peer, reason=str(error))
        except asyncio.CancelledError:
            # The service stops.
            return
        finally:
            self._open.pop(connection, None)
            await connection.close()

    def _make_way(self) -> bool:
        """End the oldest connection that has proven nothing, of the address that has most of these."""
        strangers = [one for one in self._open if not one.proven]
        if not strangers:
            return False
        crowds = Counter(one.address for one in strangers)
        largest = max(crowds, key=crowds.__getitem__)
        leaving = next(one for one in strangers if one.address == largest)
        self.count("displaced")
        self._open.pop(leaving)
        leaving.end()
        return True

    # For connections

    async def answer_frame(self, connection: HeadEndConnection, frame: WrapperFrame) -> list[bytes]:
        """Answer an APDU to one of our logical devices, off the event loop."""
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(
            self._thread, self.devices.answer, connection.server, frame, connection.address
        )
        association = connection.server.association(frame.source, frame.destination)
        if association is not None and association.associated:
            connection.proven = True
        return answers

    async def relay(
        self, connection: HeadEndConnection, frame: WrapperFrame, deliver: Callable[[bytes], None]
    ) -> list[bytes]:
        """Hand a gateway-request on, where this connection may have that."""
        self.count("gateway")
        route = self._route

        async def handed_on(request: GatewayRequest) -> Iterable[bytes]:
            if route is None or (self._settings.gateway == "associated" and not connection.proven):
                raise DeviceBusyError("gateway-requests are not taken from this connection")
            answers = await route(request, deliver)
            connection.proven = True
            return answers

        return await relay_async(handed_on, frame.source, frame.destination, frame.apdu)

    async def give_back(self, deliver: Callable[[bytes], None]) -> None:
        """The connection ended: meters that it spoke with are free."""
        if self._close_route is not None:
            await self._close_route(deliver)
