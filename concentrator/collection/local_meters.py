"""The meters of one local port (wired M-Bus, P1): their records, and what they brought, into the store."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from concentrator.clock import Clock
from concentrator.model import Answer, Medium, MeterRecord, MeterState
from concentrator.store.errors import StoreError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class LocalMeters:
    """The meters that were read over one kind of `link`. A `registry_orders.RecordHolder`."""

    def __init__(self, link: str, store: Store, clock: Clock) -> None:
        self.records: dict[str, MeterRecord] = {}
        self.stored = 0
        self.link = link
        self._store = store
        self._clock = clock

    async def load(self) -> None:
        """Take the known meters from the store."""
        for record in await self._store.load_meters():
            if record.link == self.link:
                self.records[record.identity] = record

    def find(self, identity: str) -> MeterRecord | None:
        """The record of a meter, or None."""
        return self.records.get(identity)

    def adopt(self, record: MeterRecord) -> None:
        """Take in a meter that somebody entered."""
        self.records[record.identity] = record

    def left_alone(self, link_address: str) -> bool:
        """Whether the meters at an address are none of ours, or were removed, all of them."""
        there = [record for record in self.records.values() if record.link_address == link_address]
        return bool(there) and all(record.left_alone for record in there)

    def record(  # noqa: PLR0913 - what a meter says of itself
        self, identity: str, *, medium: Medium, link_address: str, serial: str, manufacturer: str, model: str
    ) -> MeterRecord:
        """The record of a meter that was just read; a new one is made when it is met first."""
        now = self._clock.now()
        record = self.records.get(identity)
        if record is None:
            record = MeterRecord(identity, medium=medium, link=self.link, first_seen=now)
            self.records[identity] = record
            log.info("meter found", meter=identity, link=self.link, medium=medium.value)
        record.last_contact = now
        if not record.left_alone:
            record.link_address, record.serial = link_address, serial
            record.manufacturer, record.model = manufacturer, model
        return record

    def set_state(self, record: MeterRecord, state: MeterState, reason: str = "") -> None:
        """Say how a meter is; one that is left alone stays so."""
        if not record.left_alone:
            record.state, record.reason = state, reason

    async def keep(self, record: MeterRecord, answer: Answer | None) -> None:
        """Write a record and its readings; a store that does not take them is told in the log.

        Of a meter that is left alone nothing is written.
        """
        if record.left_alone:
            return
        try:
            await self._store.save_meter(record)
            if answer is not None and answer.readings:
                self.stored += (await self._store.store_answer(answer)).new
        except StoreError as error:
            log.warning("readout not stored", meter=record.identity, reason=str(error))

    async def note_silence(
        self, chosen: Callable[[MeterRecord], bool], state: MeterState, reason: str
    ) -> None:
        """Say of the chosen meters that they did not answer."""
        for record in self.records.values():
            if chosen(record):
                self.set_state(record, state, reason)
                await self.keep(record, None)
