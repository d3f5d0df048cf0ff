"""The MQTT uplink: every batch as JSON or CBOR, QoS 1, forwarded only when the broker has acknowledged it."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import structlog

from concentrator.clock import Clock
from concentrator.config import MqttSection
from concentrator.orders import Order, OrderHandler
from concentrator.store import parked
from concentrator.store.errors import StoreError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.uplink.home_assistant import HomeAssistant
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt_connection import BrokerRefusedError, Connection, Will
from concentrator.uplink.mqtt_forms import FORMS
from concentrator.uplink.mqtt_orders import OrderDesk
from concentrator.uplink.mqtt_reasons import OVER_A_MESSAGE, in_words
from concentrator.uplink.mqtt_sender import BatchSender, Suspicion
from concentrator.uplink.mqtt_state import BoxReport, StatePublisher
from concentrator.uplink.uplink import CONNECTED, NOT_CONNECTED, Uplink, UplinkLostError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# The broker keeps our command subscription and its messages this long while we are away.
_SESSION_EXPIRY_S = 7 * 86_400
_LONG_PAUSE_S = 30.0


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
        report: BoxReport,
        handle_order: OrderHandler,
    ) -> None:
        super().__init__(settings.name, settings.host, store)
        self._settings = settings
        self._topics = topics
        self._store = store
        self._clock = clock
        self._encoding = FORMS[settings.encoding].other
        self._state_publisher = StatePublisher(topics, self._encoding, clock, boot_id, report)
        self.orders = OrderDesk(topics, clock, handle_order, settings.reply_prefixes, self._encoding)
        self._home_assistant = (
            HomeAssistant(topics, settings.home_assistant_prefix, store, report.meters)
            if settings.home_assistant
            else None
        )
        self._suspicion = Suspicion()
        self._parked = 0
        self._parking: set[asyncio.Task[None]] = set()
        # Of what may get lost: topics that the broker does not take, with its reason.
        self._refused_topics: dict[str, str] = {}

    async def _connect_and_drain(self) -> None:
        connection = Connection(
            self._settings,
            f"dcu-{self._topics.site}-{self._topics.concentrator}-{self._settings.name}",
            Will(
                self._topics.status,
                self._state_publisher.status("offline"),
                content_type=self._encoding.content_type,
            ),
            self.orders.received,
            session_expiry_s=_SESSION_EXPIRY_S,
            passed=self.tell_message,
        )
        farewell: list[tuple[str, bytes]] = []
        try:
            await connection.open()
            self._refused_topics.clear()
            await self._serve(connection)
        except BrokerRefusedError as error:
            if not error.lasts:
                raise
            self._set_state(NOT_CONNECTED, str(error))
            await self._end(connection, farewell)
            await asyncio.sleep(_LONG_PAUSE_S)
            raise
        except UplinkLostError:
            raise
        except BaseException:
            farewell.append((self._topics.status, self._state_publisher.status("offline")))
            raise
        finally:
            await self._end(connection, farewell)

    async def _end(self, connection: Connection, farewell: list[tuple[str, bytes]]) -> None:
        self.orders.use(None)
        await connection.close(*farewell)

    async def _serve(self, connection: Connection) -> None:
        if connection.limits.maximum_qos == 0:
            raise UplinkLostError("the broker takes QoS 0 only: it would acknowledge nothing; allowed: QoS 1")
        await self._look_at_parked()
        sender = BatchSender(self, self._topics, connection, self._settings, self._suspicion)
        # A broker that does not let us listen still gets the readings.
        await until_first_ends(
            self._watch(connection, sender),
            self._listen(connection),
            sender.run(),
            self._state_publisher.run(connection, self._note_refused),
            *([] if self._home_assistant is None else [self._home_assistant.run(connection)]),
        )

    async def _watch(self, connection: Connection, sender: BatchSender) -> None:
        try:
            await connection.watch()
        except BrokerRefusedError as error:
            self._suspicion.ended(error, sender.in_flight)
            if error.code in OVER_A_MESSAGE and not sender.in_flight:
                self._state_publisher.make_pages_smaller()
            raise

    async def _listen(self, connection: Connection) -> None:
        try:
            await connection.subscribe(self._topics.command)
        except BrokerRefusedError as error:
            self._note_refused(self._topics.command, error.code)
        self._tell_connected()
        self.orders.use(connection)
        await connection.watch()

    def _note_refused(self, topic: str, code: int) -> None:
        if topic not in self._refused_topics:
            self._refused_topics[topic] = in_words(code)
            self._tell_connected()

    def _tell_connected(self) -> None:
        words = [f"{topic} refused: {reason}" for topic, reason in self._refused_topics.items()]
        if self._parked:
            words.insert(0, f"{self._parked} batches parked: the broker will never take them as they are")
        self._set_state(CONNECTED, "; ".join(words))

    # What the sender of batches asks for and tells.

    async def next_batch(self) -> OutgoingBatch:
        """The next batch to send."""
        return await self.feed.next_batch()

    def delivered(self, batch: OutgoingBatch) -> None:
        """The broker has all of a batch."""
        self.feed.acknowledged(batch.sequence)

    def succeeded(self) -> None:
        """The broker has acknowledged a message."""
        self._backoff.succeeded()

    def park(self, batch: OutgoingBatch, reason: str) -> None:
        """Take a batch out of the way that the broker will never take; it stays in the store, and is told."""
        task = asyncio.get_running_loop().create_task(self._park(batch, reason))
        self._parking.add(task)
        task.add_done_callback(self._parking.discard)

    async def _park(self, batch: OutgoingBatch, reason: str) -> None:
        destination, sequence = self.feed.destination, batch.sequence
        log.error("batch parked", destination=destination, batch=sequence, meter=batch.meter, reason=reason)
        try:
            await self._store.park(destination, sequence, reason)
            await self._store.add_events(
                [("parked", f"{destination} refuses batch {sequence} for good: {reason}", batch.meter)]
            )
        except StoreError as error:
            # It stays in the queue, and comes here again on the next connection.
            log.warning("a parked batch cannot be noted", destination=destination, reason=str(error))
            return
        self.feed.acknowledged(sequence)
        await self._look_at_parked()
        if self.state == CONNECTED:
            self._tell_connected()

    async def _look_at_parked(self) -> None:
        try:
            self._parked = len(await self._store.read(lambda c: parked.load(c, self.feed.destination)))
        except StoreError as error:
            log.warning("parked batches cannot be counted", reason=str(error))

    # What the service tells.

    def tell_order(self, order: Order, state: str, outcome: dict[str, Any]) -> None:
        """An order has changed its state."""
        self.orders.tell(order, state, outcome)

    def tell_update(self, update: dict[str, Any]) -> None:
        """How far an update of the concentrator is: job, target, state, progress, error."""
        self._state_publisher.tell_update(update)
