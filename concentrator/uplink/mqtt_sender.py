"""Batches as messages of one connection: windowed, halved where too large, parked when refused for good."""

from __future__ import annotations

import asyncio
from typing import Protocol

from concentrator.config import MqttSection
from concentrator.store.outbox import OutgoingBatch
from concentrator.tasks import until_first_ends
from concentrator.uplink.messages import SCHEMA, BatchMessage, Topics
from concentrator.uplink.mqtt_connection import BrokerRefusedError, Connection, message_properties
from concentrator.uplink.mqtt_forms import FORMS
from concentrator.uplink.mqtt_reasons import OVER_A_MESSAGE, Remedy, in_words, reason_of
from concentrator.uplink.uplink import UplinkLostError

_FIRST_FAILURE = 0x80
# Content type and user property of a reading, with their lengths.
_PROPERTIES_OCTETS = 48
# Publications beside the batches: results of orders, health, the list of meters.
_KEPT_FREE = 4
_CAREFUL_MESSAGES = 100
_ENDS_OF_A_CULPRIT = 3


class BatchQueue(Protocol):
    """Where batches come from, and who is told what became of them."""

    async def next_batch(self) -> OutgoingBatch:
        """The next batch to send."""
        ...

    def delivered(self, batch: OutgoingBatch) -> None:
        """The broker has all of it."""
        ...

    def park(self, batch: OutgoingBatch, reason: str) -> None:
        """The broker will never take some of it."""
        ...

    def succeeded(self) -> None:
        """The broker has acknowledged a message."""
        ...


class Suspicion:
    """Finds the message over which a broker ends connections, where it says no more than that it does.

    After such an end messages go one at a time, so that the next end names the culprit. A culprit that has halves
    teaches a size; one that has none, and is alone three times, is refused for good.
    """

    def __init__(self) -> None:
        self._too_large: int | None = None
        self._culprits: dict[int, int] = {}
        self._careful_for = 0

    @property
    def is_careful(self) -> bool:
        """Whether messages go one at a time."""
        return self._careful_for > 0

    def ended(self, error: BrokerRefusedError, in_flight: list[tuple[BatchMessage, int]]) -> None:
        """A broker ended the connection while these were not acknowledged."""
        if error.code not in OVER_A_MESSAGE or not in_flight:
            return
        self._careful_for = _CAREFUL_MESSAGES
        if len(in_flight) > 1:
            return
        message, octets = in_flight[0]
        if message.halves():
            self._too_large = octets
        else:
            self._culprits[message.number] = self._culprits.get(message.number, 0) + 1

    def acknowledged(self) -> None:
        """The broker took one."""
        self._careful_for = max(0, self._careful_for - 1)

    def is_too_large(self, message: BatchMessage, octets: int) -> bool:
        """Whether a message is as large as one that was too large, and can be made smaller."""
        return self._too_large is not None and octets >= self._too_large and bool(message.halves())

    def verdict(self, message: BatchMessage) -> str:
        """Why a message is not sent any more; "" for all others."""
        if self._culprits.get(message.number, 0) < _ENDS_OF_A_CULPRIT:
            return ""
        return f"the broker ended {_ENDS_OF_A_CULPRIT} connections over it"


class _Sending:
    """One batch on its way: what is still to be acknowledged, and whether any of it was refused for good."""

    __slots__ = ("batch", "refused", "remaining")

    def __init__(self, batch: OutgoingBatch) -> None:
        self.batch = batch
        self.remaining = 0
        self.refused = ""


class BatchSender:
    """Sends batches on one connection, in order, with at most so many messages unacknowledged."""

    def __init__(
        self,
        queue: BatchQueue,
        topics: Topics,
        connection: Connection,
        settings: MqttSection,
        suspicion: Suspicion,
    ) -> None:
        self._queue = queue
        self._topics = topics
        self._connection = connection
        self._timeout_s = settings.acknowledge_timeout_s
        self._form = FORMS[settings.encoding]
        self._properties = message_properties(self._form.content_type, SCHEMA)
        self._suspicion = suspicion
        # The broker's receive maximum is for everything that we publish: a few are left for results and states.
        most = min(settings.in_flight, max(1, connection.limits.receive_maximum - _KEPT_FREE))
        self._window = asyncio.Semaphore(1 if suspicion.is_careful else most)
        self._in_flight: dict[int, tuple[BatchMessage, int]] = {}
        # Halves of what was too large.
        self._halves: asyncio.Queue[tuple[BatchMessage, _Sending]] = asyncio.Queue()

    @property
    def in_flight(self) -> list[tuple[BatchMessage, int]]:
        """What is sent and not acknowledged: messages, and the octets of their payloads."""
        return list(self._in_flight.values())

    async def run(self) -> None:
        """Send until cancelled or the connection is lost."""
        await until_first_ends(self._send_batches(), self._send_halves())

    async def _send_batches(self) -> None:
        while True:
            batch = await self._queue.next_batch()
            sending = _Sending(batch)
            messages = self._form.messages(self._topics, batch)
            sending.remaining = len(messages)
            if not messages:
                # Every reading of it was corrected since, and left with a later batch.
                self._queue.delivered(batch)
            for message in messages:
                await self._send(message, sending)

    async def _send_halves(self) -> None:
        while True:
            await self._send(*await self._halves.get())

    async def _send(self, message: BatchMessage, sending: _Sending) -> None:
        payload = self._form.encode(message)
        if not self._connection.fits(message.topic, payload, _PROPERTIES_OCTETS):
            self._part(message, sending, "larger than the broker's maximum packet size")
            return
        if self._suspicion.is_too_large(message, len(payload)):
            self._part(message, sending, "larger than the broker takes")
            return
        if words := self._suspicion.verdict(message):
            sending.refused = words
            self._ended(sending)
            return
        if self._window.locked():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._window.acquire()
            except TimeoutError:
                raise UplinkLostError("the broker acknowledges nothing any more") from None
        else:
            await self._window.acquire()
        self._in_flight[message.number] = (message, len(payload))

        def acknowledged(code: int) -> None:
            self._window.release()
            self._in_flight.pop(message.number, None)
            self._acknowledged(message, sending, code)

        self._connection.publish(message.topic, payload, acknowledged, properties=self._properties)

    def _acknowledged(self, message: BatchMessage, sending: _Sending, code: int) -> None:
        if code >= _FIRST_FAILURE:
            remedy = reason_of(code).remedy
            words = in_words(code)
            if remedy is Remedy.SPLIT:
                self._part(message, sending, words)
            elif remedy is Remedy.PARK:
                sending.refused = words
                self._ended(sending)
            else:
                # Quota exceeded, not authorized: the rows stay, and the connection is tried anew later.
                self._connection.give_up(BrokerRefusedError(code, what="the broker refused a message"))
            return
        self._suspicion.acknowledged()
        self._queue.succeeded()
        self._ended(sending)

    def _part(self, message: BatchMessage, sending: _Sending, words: str) -> None:
        """Send the halves of a message in its place; what has no halves is refused for good."""
        halves = message.halves()
        if not halves:
            sending.refused = words
            self._ended(sending)
            return
        sending.remaining += len(halves) - 1
        for half in halves:
            self._halves.put_nowait((half, sending))

    def _ended(self, sending: _Sending) -> None:
        sending.remaining -= 1
        if sending.remaining:
            return
        if sending.refused:
            self._queue.park(sending.batch, sending.refused)
        else:
            self._queue.delivered(sending.batch)
