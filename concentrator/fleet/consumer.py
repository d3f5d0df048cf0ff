"""The consumer: a shared subscription into the database; the broker is told only what is on disk.

Acknowledgements are given by hand, after the commit. What is not acknowledged when this process or its database dies
is delivered again, to it or to another consumer of the group; the database drops what it has. How many messages are
under way is bounded by the receive maximum: a slow database slows the broker down, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from concentrator.client_tls import client_context
from concentrator.errors import LocalError, RemoteError
from concentrator.fleet.database import FleetDatabase
from concentrator.fleet.messages import TOPICS, FleetMessageError, MeterMessage, StateMessage, parse_message
from concentrator.links.backoff import Backoff

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_KEEP_ALIVE_S = 30
_CONNECT_TIMEOUT_S = 20.0
_SESSION_EXPIRY_S = 7 * 86_400
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


class FleetError(LocalError):
    """Settings of the consumer that cannot be used."""


class _LostError(RemoteError):
    """Broker or database went away."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Where from, where to, and how much at once.

    `broker` is `mqtt://HOST:PORT` or `mqtts://HOST:PORT`. `group` names the shared subscription: consumers of one group
    share the messages. `most_messages` are taken in one transaction, or what has come within `longest_wait_s`.
    """

    broker: str
    database: str
    group: str = "fleet"
    name: str = "consumer-1"
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""
    most_messages: int = 1000
    longest_wait_s: float = 0.2


class FleetConsumer:
    """One consumer of a group; `run()` until cancelled."""

    def __init__(self, settings: FleetSettings) -> None:
        """Check the settings.

        Raises:
            FleetError: the broker's URL or one of the files cannot be used.
        """
        self.stored = 0
        self.rejected = 0
        self._settings = settings
        self._database = FleetDatabase(settings.database)
        self._backoff = Backoff()
        self._lost: asyncio.Future[str] | None = None
        self._queue: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
        for name, value in (("group", settings.group), ("name", settings.name)):
            if not _WORD.fullmatch(value):
                raise FleetError(
                    f"fleet consumer: {name}: got {value[:64]!r}; allowed: 1 to 64 letters, digits, _ or -"
                )
        if urlsplit(settings.database).scheme not in ("postgresql", "postgres"):
            raise FleetError("fleet consumer: database: allowed is postgresql://USER@HOST:PORT/NAME")
        for name in ("password_file", "ca_file", "certificate_file", "private_key_file"):
            if (value := getattr(settings, name)) and not Path(value).is_file():
                raise FleetError(f"fleet consumer: {name}: got {value!r}; allowed: the path of a file")
        try:
            self._make_client()
        except (OSError, ValueError) as error:
            raise FleetError(f"fleet consumer: {error}") from error

    async def run(self) -> None:
        """Connect to both, consume, connect anew, until cancelled."""
        while True:
            try:
                await self._consume()
            except (
                _LostError,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                TimeoutError,
            ) as error:
                log.warning("fleet consumer interrupted", reason=str(error) or type(error).__name__)
            await asyncio.sleep(self._backoff.next_delay_s())

    async def _consume(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._database.open()
        except (OSError, TimeoutError) as error:
            raise _LostError(f"the database cannot be reached: {error or type(error).__name__}") from error
        self._lost = loop.create_future()
        self._queue = asyncio.Queue()
        client = self._make_client()
        try:
            await self._connect(client)
            log.info("fleet consumer connected", broker=urlsplit(self._settings.broker).hostname)
            while True:
                await self._store(client, await self._next_messages())
                self._backoff.succeeded()
        finally:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)
            await self._database.close()

    def _make_client(self) -> paho.Client:
        settings = self._settings
        url = urlsplit(settings.broker)
        _ = url.port  # raises ValueError when it is none
        if url.scheme not in ("mqtt", "mqtts") or not url.hostname or "@" in url.netloc:
            raise ValueError(
                "broker: allowed is mqtt://HOST:PORT or mqtts://HOST:PORT, without names and passwords"
            )
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fleet-{settings.group}-{settings.name}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if settings.username:
            password = Path(settings.password_file).read_text().strip() if settings.password_file else None
            client.username_pw_set(settings.username, password)
        if url.scheme == "mqtts":
            context = client_context(settings.ca_file, settings.certificate_file, settings.private_key_file)
            client.tls_set_context(context)  # pyright: ignore[reportUnknownMemberType] - untyped in paho
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    async def _connect(self, client: paho.Client) -> None:
        url = urlsplit(self._settings.broker)
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = _SESSION_EXPIRY_S
        properties.ReceiveMaximum = min(65_535, 2 * self._settings.most_messages)
        try:
            await asyncio.to_thread(
                client.connect,
                unquote(url.hostname or ""),
                url.port or (8883 if url.scheme == "mqtts" else 1883),
                _KEEP_ALIVE_S,
                clean_start=False,
                properties=properties,
            )
            client.loop_start()
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._connected
        except (OSError, TimeoutError) as error:
            raise _LostError(f"the broker cannot be reached: {error or type(error).__name__}") from error
        client.subscribe([(f"$share/{self._settings.group}/{topic}", 1) for topic in TOPICS])

    # Callbacks of paho's thread: each only hands over to the loop.

    def _on_connect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        self._loop.call_soon_threadsafe(self._connect_answered, reason)

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._disconnected, str(reason))

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    # On the loop.

    def _connect_answered(self, reason: ReasonCode) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(_LostError(f"the broker refused us: {reason}"))
        else:
            self._connected.set_result(None)

    def _disconnected(self, reason: str) -> None:
        if not self._connected.done():
            self._connected.set_exception(_LostError(f"the broker refused us: {reason}"))
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(f"the broker is gone: {reason}")

    async def _next_messages(self) -> list[paho.MQTTMessage]:
        lost = self._lost
        assert lost is not None  # noqa: S101 - set before the client exists
        getting = asyncio.ensure_future(self._queue.get())
        try:
            await asyncio.wait({getting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise _LostError(await lost)
            messages = [await getting]
        finally:
            getting.cancel()
        deadline = asyncio.get_running_loop().time() + self._settings.longest_wait_s
        while len(messages) < self._settings.most_messages:
            try:
                messages.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                try:
                    async with asyncio.timeout(left):
                        messages.append(await self._queue.get())
                except TimeoutError:
                    break
        return messages

    async def _store(self, client: paho.Client, messages: list[paho.MQTTMessage]) -> None:
        understood: list[MeterMessage | StateMessage] = []
        refused: list[tuple[str, bytes, str]] = []
        for message in messages:
            payload = bytes(message.payload)
            try:
                understood.append(
                    parse_message(message.topic, payload, str(getattr(message.properties, "ContentType", "")))
                )
            except FleetMessageError as error:
                refused.append((message.topic, payload, str(error).replace("\x00", "")))
                log.warning("message refused", topic=message.topic, reason=str(error))
        await self._database.store(understood, refused)
        # On disk: now the broker may forget them, in the order in which they came.
        for message in messages:
            client.ack(message.mid, message.qos)
        self.stored += len(understood)
        self.rejected += len(refused)
