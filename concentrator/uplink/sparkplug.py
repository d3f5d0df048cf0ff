"""The Sparkplug B uplink: this box is an edge node, each meter a device (specification 3.0).

Births and data go out with QoS 0, as the specification wants: that alone proves nothing. A batch counts as forwarded
when the broker has answered a SUBSCRIBE that was sent after it: brokers take the packets of a connection in order, so
that it has the batch then. With `primary_host` set nothing is sent while that host is not online.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import paho.mqtt.client as paho
import structlog

from concentrator.clock import Clock
from concentrator.config import SparkplugSection
from concentrator.store.errors import StoreError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt_connection import Connection, Will
from concentrator.uplink.sparkplug_payload import SparkplugError, decode_payload
from concentrator.uplink.sparkplug_session import BD_SEQ_MODULUS, REBIRTH, EdgeSession, Outgoing
from concentrator.uplink.uplink import CONNECTED, NOT_CONNECTED, Uplink, UplinkLostError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_NAMESPACE = "spBv1.0"
_LOOK_INTERVAL_S = 2.0
_BATCHES_PER_PROOF = 64
_UNREACHABLE = ("unreachable", "removed", "foreign")


class SparkplugUplink(Uplink):
    """One broker, as Sparkplug hosts use it."""

    kind: ClassVar[str] = "sparkplug"

    def __init__(
        self,
        settings: SparkplugSection,
        topics: Topics,
        store: Store,
        clock: Clock,
        meters: Callable[[], Sequence[dict[str, Any]]],
    ) -> None:
        super().__init__(settings.name, settings.host, store)
        self._settings = settings
        self._store = store
        self._clock = clock
        self._meters = meters
        self._group = settings.group or topics.site
        self._edge = settings.edge_node or topics.concentrator
        self._host_online = asyncio.Event()
        self._host_told_at = -1
        self._host_lost = asyncio.Event()
        self._rebirth = asyncio.Event()
        self._sending = asyncio.Lock()

    def topic(self, kind: str, device: str = "") -> str:
        """A topic of this edge node, or of one of its devices."""
        return f"{_NAMESPACE}/{self._group}/{kind}/{self._edge}" + (f"/{device}" if device else "")

    async def _next_bd_seq(self) -> int:
        """The number of this session, one more than that of the last, over restarts too."""
        name = f"sparkplug:{self.feed.destination}:bdSeq"
        last = await self._store.setting(name)
        number = (int(last) + 1) % BD_SEQ_MODULUS if last is not None else 0
        await self._store.keep_setting(name, str(number))
        return number

    async def _connect_and_drain(self) -> None:
        try:
            bd_seq = await self._next_bd_seq()
        except StoreError as error:
            raise UplinkLostError(f"the session's number cannot be kept: {error}") from error
        session = EdgeSession(self._clock, bd_seq)
        self._host_online.clear()
        self._host_lost.clear()
        self._host_told_at = -1
        death = session.death()
        connection = Connection(
            self._settings,
            f"{self._edge}-{self.feed.destination}",
            Will(self.topic("NDEATH"), death, retain=False),
            self._received,
            passed=self.tell_message,
        )
        born = False
        try:
            await connection.open()
            topics = [self.topic("NCMD"), self.topic("DCMD") + "/#"]
            host = self._settings.primary_host
            await connection.subscribe(*topics, *([f"{_NAMESPACE}/STATE/{host}"] if host else []))
            if host:
                self._set_state(NOT_CONNECTED, f"the primary host {host} is not online; readings wait for it")
                await until_first_ends(self._wait_for_host(), connection.watch())
            born = True
            await self._be_born(connection, session)
            self._set_state(CONNECTED, "")
            await until_first_ends(
                connection.watch(),
                self._drain(connection, session),
                self._keep_births(connection, session),
                self._watch_host(),
            )
        finally:
            if born and not connection.lost.done():
                # DISCONNECT makes the broker forget the will: the death is told by ourselves.
                connection.publish(self.topic("NDEATH"), death, qos=1)
                await asyncio.shield(asyncio.sleep(0.1))
            await connection.close()

    async def _wait_for_host(self) -> None:
        await self._host_online.wait()

    async def _watch_host(self) -> None:
        await self._host_lost.wait()
        raise UplinkLostError(f"the primary host {self._settings.primary_host} went offline")

    def _send(self, connection: Connection, outgoing: Outgoing) -> None:
        connection.publish(self.topic(outgoing.kind, outgoing.device), outgoing.payload, qos=0)

    async def _be_born(self, connection: Connection, session: EdgeSession) -> None:
        """Birth of the node and of each meter that has values and answers."""
        async with self._sending:
            meters = [one for one in self._meters() if one["state"] not in _UNREACHABLE]
            self._send(connection, session.node_birth(len(meters)))
            for one in meters:
                await self._device_birth(connection, session, one["id"])

    async def _device_birth(self, connection: Connection, session: EdgeSession, meter: str) -> None:
        values = await self._store.latest_values(meter)
        if values:
            self._send(connection, session.device_birth(meter, values))

    async def _keep_births(self, connection: Connection, session: EdgeSession) -> None:
        """Births and deaths of meters as they come and go; everything anew when a host asks for it."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_INTERVAL_S):
                    await self._rebirth.wait()
            except TimeoutError:
                pass
            if self._rebirth.is_set():
                self._rebirth.clear()
                session.begin_again()
                await self._be_born(connection, session)
                continue
            async with self._sending:
                for one in self._meters():
                    gone = one["state"] in _UNREACHABLE
                    if gone and session.lives(one["id"]):
                        self._send(connection, session.device_death(one["id"]))
                    elif not gone and not session.lives(one["id"]):
                        await self._device_birth(connection, session, one["id"])

    async def _drain(self, connection: Connection, session: EdgeSession) -> None:
        unproven: list[int] = []
        while True:
            try:
                async with asyncio.timeout(0.2 if unproven else None):
                    batch = await self.feed.next_batch()
            except TimeoutError:
                await self._prove(connection, unproven)
                continue
            async with self._sending:
                await self._send_batch(connection, session, batch)
            unproven.append(batch.sequence)
            if len(unproven) >= _BATCHES_PER_PROOF:
                await self._prove(connection, unproven)

    async def _send_batch(self, connection: Connection, session: EdgeSession, batch: OutgoingBatch) -> None:
        if not session.knows(batch):
            # A channel that its birth did not name: the device is born anew, as the specification wants.
            values = await self._store.latest_values(batch.meter)
            self._send(connection, session.device_birth(batch.meter, values, batch))
        for outgoing in session.data(batch):
            self._send(connection, outgoing)

    async def _prove(self, connection: Connection, unproven: list[int]) -> None:
        """Wait until the broker has taken everything sent so far, and acknowledge it."""
        await connection.subscribe(self.topic("NCMD"))
        self._backoff.succeeded()
        for sequence in unproven:
            self.feed.acknowledged(sequence)
        unproven.clear()

    def _received(self, message: paho.MQTTMessage) -> None:
        """A command to the node or a device, or the state of the primary host."""
        if message.topic.startswith(f"{_NAMESPACE}/STATE/"):
            self._host_state(bytes(message.payload))
            return
        try:
            payload = decode_payload(bytes(message.payload))
        except SparkplugError as error:
            log.warning("command not understood", topic=message.topic, reason=str(error))
            return
        names = {metric.name: metric.value for metric in payload.metrics}
        if message.topic == self.topic("NCMD") and names.get(REBIRTH) is True:
            self._rebirth.set()
        else:
            # Orders that change meters have rules, confirmations and an audit trail: they come by other ways.
            log.warning("command refused", topic=message.topic, metrics=",".join(names)[:200])

    def _host_state(self, payload: bytes) -> None:
        try:
            state: object = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(state, dict):
            return
        fields = cast("dict[str, object]", state)
        told_at = fields.get("timestamp")
        # An older message may be a late will of an earlier session of the host.
        if type(told_at) is not int or told_at < self._host_told_at:
            return
        self._host_told_at = told_at
        if fields.get("online") is True:
            self._host_online.set()
        elif self._host_online.is_set():
            self._host_lost.set()
