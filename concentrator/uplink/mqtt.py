"""The MQTT uplink: every batch as JSON, QoS 1, forwarded only when the broker has acknowledged it.

paho runs its network loop in a thread of its own; its callbacks are handed to the event loop and do
nothing else. Each connection gets a new client object, so that nothing is kept in the library's memory
across connections: the store is the only queue.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from concentrator.clock import Clock
from concentrator.config import MqttSection
from concentrator.errors import ConcentratorError
from concentrator.orders import MQTT, Order, OrderError, OrderHandler, OrderRefusedError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.uplink.messages import Topics, batch_messages, encode, timestamp
from concentrator.uplink.uplink import CONNECTED, RECEIVED, SENT, Uplink, UplinkLostError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_KEEP_ALIVE_S = 30
_CONNECT_TIMEOUT_S = 20.0
_ACKNOWLEDGE_TIMEOUT_S = 60.0
_HEALTH_INTERVAL_S = 60.0
# The broker keeps our command subscription and its messages this long while we are away.
_SESSION_EXPIRY_S = 7 * 86_400
_LARGEST_COMMAND_OCTETS = 64 * 1024
_MOST_ORDERS_UNDER_WAY = 1024
_ORDER_ID = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
_MOST_RESULTS_KEPT = 1000


class _Connection:
    """One connection of one paho client. Lives until it is lost; everything here runs on the event loop."""

    def __init__(self, uplink: MqttUplink, settings: MqttSection) -> None:
        self._loop = asyncio.get_running_loop()
        self._uplink = uplink
        self._settings = settings
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._unacknowledged: dict[int, Callable[[ReasonCode], None]] = {}
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        settings, topics = self._settings, self._uplink.topics
        five = settings.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"dcu-{topics.site}-{topics.concentrator}-{settings.name}",
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else False,
            reconnect_on_failure=False,
        )
        if settings.username:
            password = Path(settings.password_file).read_text().strip() if settings.password_file else None
            client.username_pw_set(settings.username, password)
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.certificate_file:
                context.load_cert_chain(settings.certificate_file, settings.private_key_file or None)
            client.tls_set_context(context)  # pyright: ignore[reportUnknownMemberType] - untyped in paho
        client.max_inflight_messages_set(settings.in_flight)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.will_set(topics.status, self._uplink.status_payload("offline"), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    async def open(self) -> None:
        """Connect; returns when the broker has accepted us."""
        settings = self._settings
        properties = None
        arguments: dict[str, Any] = {}
        if settings.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
            arguments = {"clean_start": False, "properties": properties}
        try:
            await asyncio.to_thread(
                self._client.connect, settings.host, settings.port, _KEEP_ALIVE_S, **arguments
            )
        except (OSError, ValueError) as error:
            raise UplinkLostError(str(error)) from error
        self._client.loop_start()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._connected
        except TimeoutError:
            raise UplinkLostError("the broker does not answer CONNECT") from None

    async def close(self, *, politely: bool) -> None:
        """End the connection, and paho's thread."""
        if politely and not self.lost.done():
            info = self._client.publish(
                self._uplink.topics.status, self._uplink.status_payload("offline"), qos=1, retain=True
            )
            await asyncio.to_thread(_wait_for_publish, info)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def subscribe(self, topic: str) -> None:
        """Listen to a topic, QoS 1."""
        self._client.subscribe(topic, qos=1)

    def publish(
        self,
        topic: str,
        payload: bytes,
        acknowledged: Callable[[ReasonCode], None],
        *,
        retain: bool = False,
    ) -> None:
        """Publish with QoS 1; `acknowledged` is called with the broker's reason code."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        self._uplink.tell_traffic(SENT, f"{topic}, {len(payload)} octets")
        # The PUBACK is handed to this loop, so it cannot overtake the next line.
        self._unacknowledged[info.mid] = acknowledged

    # Callbacks of paho's thread: each only hands over to the loop.

    def _on_connect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        self._loop.call_soon_threadsafe(self._connect_answered, reason)

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        self._call_soon(self._disconnected, str(reason))

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._call_soon(self._published, mid, reason)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._call_soon(self._uplink.command_received, bytes(message.payload))

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the loop.

    def _connect_answered(self, reason: ReasonCode) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(UplinkLostError(f"the broker refused us: {reason}"))
        else:
            self._connected.set_result(None)

    def _disconnected(self, reason: str) -> None:
        if not self._connected.done():
            self._connected.set_exception(UplinkLostError(reason))
        if not self.lost.done():
            self.lost.set_result(reason)

    def _published(self, mid: int, reason: ReasonCode) -> None:
        acknowledged = self._unacknowledged.pop(mid, None)
        if acknowledged is not None:
            acknowledged(reason)


def _ignore(_reason: ReasonCode) -> None:
    """For what may get lost: the next one says the same."""


def _wait_for_publish(info: paho.MQTTMessageInfo) -> None:
    try:
        info.wait_for_publish(2.0)
    except (RuntimeError, ValueError):
        return


class MqttUplink(Uplink):
    """One broker."""

    kind: ClassVar[str] = "mqtt"

    def __init__(  # noqa: PLR0913 - what it is made of, once, in app.py
        self,
        settings: MqttSection,
        topics: Topics,
        store: Store,
        clock: Clock,
        boot_id: str,
        health: Callable[[], dict[str, Any]],
        handle_order: OrderHandler,
    ) -> None:
        super().__init__(settings.name, settings.host, store)
        self.topics = topics
        self._settings = settings
        self._clock = clock
        self._boot_id = boot_id
        self._health = health
        self._handle_order = handle_order
        self._connection: _Connection | None = None
        self._orders: set[asyncio.Task[None]] = set()
        # What became of orders, as long as the broker has not said that it has it.
        self._results: dict[int, tuple[str, bytes]] = {}
        self._result_numbers = count()

    def status_payload(self, state: str) -> bytes:
        """The retained status, also used as the will."""
        return encode({"state": state, "boot_id": self._boot_id, "ts": timestamp(self._clock.now())})

    async def _connect_and_drain(self) -> None:
        connection = _Connection(self, self._settings)
        politely = True
        try:
            await connection.open()
            self._connection = connection
            self._set_state(CONNECTED, "")
            connection.subscribe(self.topics.command)
            connection.publish(self.topics.status, self.status_payload("online"), _ignore, retain=True)
            for number in list(self._results):
                self._send_result(number)
            await until_first_ends(
                self._watch(connection), self._drain(connection), self._report_health(connection)
            )
        except UplinkLostError:
            politely = False
            raise
        finally:
            self._connection = None
            await connection.close(politely=politely)

    async def _watch(self, connection: _Connection) -> None:
        raise UplinkLostError(await asyncio.shield(connection.lost))

    async def _drain(self, connection: _Connection) -> None:
        """Send batches in order, at most `in_flight` messages unacknowledged."""
        window = asyncio.Semaphore(self._settings.in_flight)
        while True:
            batch = await self.feed.next_batch()
            await self._send_batch(connection, batch, window)

    async def _send_batch(
        self, connection: _Connection, batch: OutgoingBatch, window: asyncio.Semaphore
    ) -> None:
        messages = batch_messages(self.topics, batch)
        remaining = len(messages)
        if not remaining:
            # Every reading of it was corrected since, and left with a later batch.
            self.feed.acknowledged(batch.sequence)
        for topic, payload in messages:
            try:
                async with asyncio.timeout(_ACKNOWLEDGE_TIMEOUT_S):
                    await window.acquire()
            except TimeoutError:
                raise UplinkLostError("the broker acknowledges nothing any more") from None

            def acknowledged(reason: ReasonCode) -> None:
                nonlocal remaining
                window.release()
                if reason.is_failure:
                    # Quota exceeded, not authorised: the rows stay, and the connection is tried anew later.
                    if not connection.lost.done():
                        connection.lost.set_result(f"the broker refused a message: {reason}")
                    return
                self._backoff.succeeded()
                remaining -= 1
                if remaining == 0:
                    self.feed.acknowledged(batch.sequence)

            connection.publish(topic, payload, acknowledged)

    async def _report_health(self, connection: _Connection) -> None:
        while True:
            payload = {"ts": timestamp(self._clock.now()), **self._health()}
            connection.publish(self.topics.health, encode(payload), _ignore)
            await asyncio.sleep(_HEALTH_INTERVAL_S)

    def command_received(self, payload: bytes) -> None:
        """An order came from the broker."""
        self.tell_traffic(RECEIVED, f"{self.topics.command}, {len(payload)} octets")
        if len(payload) > _LARGEST_COMMAND_OCTETS:
            self._refuse(
                payload, f"an order has at most {_LARGEST_COMMAND_OCTETS} octets, got {len(payload)}"
            )
            return
        if len(self._orders) >= _MOST_ORDERS_UNDER_WAY:
            self._refuse(payload, f"{_MOST_ORDERS_UNDER_WAY} orders are being taken in; give it later")
            return
        try:
            order = Order.from_payload(json.loads(payload), MQTT)
        except OrderError as error:
            self._refuse(payload, str(error))
            return
        except (ValueError, RecursionError):
            self._refuse(payload, "an order is a JSON object with id, op and target")
            return
        task = asyncio.get_running_loop().create_task(self._carry_out(order))
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    def _refuse(self, payload: bytes, reason: str) -> None:
        """Tell the sender of what was not even read, where its id can be found."""
        log.warning("order refused", octets=len(payload), reason=reason)
        found = _ORDER_ID.search(payload[:_LARGEST_COMMAND_OCTETS])
        if found is not None:
            self._publish_result(found[1].decode(), {"state": "failed", "error": reason})

    async def _carry_out(self, order: Order) -> None:
        try:
            await self._handle_order(order)
        except OrderRefusedError as error:
            self._publish_result(order.order_id, {"state": "failed", "error": str(error)})
        except ConcentratorError as error:
            # Told by `tell_order`, like every state of an order that was taken.
            log.info("order not carried out", order=order.order_id, reason=str(error))

    def tell_order(self, order: Order, state: str, outcome: dict[str, Any]) -> None:
        """An order that came by MQTT has changed its state: its sender is told, here or on the next connection."""
        if order.origin == MQTT:
            fields = {"result": outcome} if state == "done" else outcome
            self._publish_result(order.order_id, {"state": state, **fields})

    def _publish_result(self, order_id: str, fields: dict[str, Any]) -> None:
        payload = encode({"id": order_id, **fields, "ts": timestamp(self._clock.now())})
        number = next(self._result_numbers)
        self._results[number] = self.topics.result(order_id), payload
        while len(self._results) > _MOST_RESULTS_KEPT:
            del self._results[next(iter(self._results))]
        self._send_result(number)

    def _send_result(self, number: int) -> None:
        """Send a result; it is kept until the broker has it."""
        if self._connection is None:
            return

        def acknowledged(reason: ReasonCode) -> None:
            if not reason.is_failure:
                self._results.pop(number, None)

        topic, payload = self._results[number]
        self._connection.publish(topic, payload, acknowledged)
