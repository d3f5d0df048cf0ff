"""Gas, water and heat meters behind electricity meters: registered, and their gaps filled, like any other meter's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection import meter_reader
from concentrator.collection.local_meters import LocalMeters
from concentrator.collection.mbus_client_channels import (
    LINK,
    ChannelMeter,
    find_channel_meters,
    own_shape,
    read_channel_value,
    value_answer,
)
from concentrator.collection.meter_models import MeterModel
from concentrator.collection.meter_reader import LocalTime
from concentrator.collection.profile_visit import ProfileOrder, ProfileVisit
from concentrator.collection.registry import CollectedMeter
from concentrator.config import CollectionSection
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.errors import TransientError
from concentrator.model import Answer, MeterRecord, MeterState
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")
# Meters are put on a channel by a person: looking once a day is enough.
_LOOK_INTERVAL_S = 86_400.0
# An electricity meter reads its M-Bus hourly; a day without a value is silence.
_SILENT_AFTER = timedelta(days=1)


class Converse(Protocol):
    """Carries a conversation to its result within the association that is open."""

    def __call__(self, conversation: Conversation[Result], /) -> Awaitable[Result]:
        """Its result."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """The electricity meter that was just read, and the association with it."""

    record: MeterRecord
    model: MeterModel
    client: Client
    local_time: LocalTime | None
    converse: Converse


class _ChannelDialogue:
    """The electricity meter's association, as the reading of a profile of its channel takes it."""

    def __init__(
        self,
        host: Host,
        meter: CollectedMeter,
        store: Store,
        clock: Clock,
        keep: Callable[[Answer], Awaitable[None]],
    ) -> None:
        self.meter = meter
        self.store = store
        self.local_time = host.local_time
        self._host = host
        self._clock = clock
        self._keep = keep

    @property
    def selective_access(self) -> bool:
        return self._host.model.quirks.selective_access

    @property
    def client(self) -> Client:
        return self._host.client

    def now(self) -> datetime:
        return self._clock.now()

    async def converse(self, conversation: Conversation[Result]) -> Result:
        return await self._host.converse(conversation)

    async def keep(self, answer: Answer) -> None:
        await self._keep(answer)

    async def give_way(self) -> bool:
        return False


class SubMeters(LocalMeters):
    """The meters on the channels of all electricity meters."""

    def __init__(self, settings: CollectionSection, store: Store, clock: Clock) -> None:
        super().__init__(LINK, store, clock)
        self._settings = settings
        self._store = store
        self._clock = clock
        # Electricity meter: when it was asked who is there, and who was.
        self._found: dict[str, tuple[float, list[ChannelMeter]]] = {}
        self._collected: dict[str, CollectedMeter] = {}
        # Whether a meter is known by another way, which then tells how it is; set by the composition.
        self.known_elsewhere: Callable[[str], bool] = lambda _identity: False

    def collected(self) -> list[CollectedMeter]:
        """All of them, with the book of what has been read."""
        return [
            self._collected.get(identity) or CollectedMeter(record, identified=True)
            for identity, record in self.records.items()
        ]

    async def collect(self, host: Host) -> None:
        """Read what the channels of an electricity meter have; what one refuses does not keep the others.

        Raises:
            TransientError: the meter or the link went away.
            StoreError: what it said could not be kept.
        """
        try:
            meters = await self._meters_of(host)
        except DlmsError as error:
            if isinstance(error, TransientError):
                raise
            log.info("M-Bus channels not read", meter=host.record.identity, reason=str(error))
            return
        for meter in meters:
            await self._collect_one(host, meter)

    async def _meters_of(self, host: Host) -> list[ChannelMeter]:
        now = self._clock.monotonic()
        before = self._found.get(host.record.identity)
        meters = before[1] if before is not None else []
        if before is None or now - before[0] >= _LOOK_INTERVAL_S:
            binary = host.model.quirks.mbus_identification == "binary"
            meters = await host.converse(
                find_channel_meters(host.client, host.model.mbus_channels, binary=binary)
            )
            self._found[host.record.identity] = (now, meters)
            await self._note_gone(host, meters)
        return meters

    async def _note_gone(self, host: Host, meters: list[ChannelMeter]) -> None:
        """Meters that were on this one's channels and are no longer."""
        there = {f"{host.record.identity}/{one.channel}": one.identity for one in meters}
        prefix = f"{host.record.identity}/"
        for record in self.records.values():
            address = record.link_address
            if address.startswith(prefix) and there.get(address) != record.identity and not record.left_alone:
                self.set_state(record, MeterState.UNREACHABLE, f"no longer on M-Bus channel {address}")
                await self.keep(record, None)

    async def _collect_one(self, host: Host, meter: ChannelMeter) -> None:
        record = self.record(
            meter.identity,
            medium=meter.medium,
            link_address=f"{host.record.identity}/{meter.channel}",
            serial=meter.address.identification,
            manufacturer=meter.address.manufacturer,
            model=f"version {meter.address.version}",
        )
        if record.left_alone:
            return
        if not self.known_elsewhere(meter.identity):
            await self._store.save_meter(record)
        try:
            # The profile first: the last value is mostly its last row, and is then nothing new.
            await self._fill_gaps(host, meter, record)
            await self._read_value(host, meter, record)
        except DlmsError as error:
            if isinstance(error, TransientError):
                raise
            self.set_state(record, MeterState.REFUSED, str(error))
        if not self.known_elsewhere(meter.identity):
            await self._store.save_meter(record)

    async def _read_value(self, host: Host, meter: ChannelMeter, record: MeterRecord) -> None:
        reading = await host.converse(read_channel_value(host.client, meter, host.local_time))
        now = self._clock.now()
        if reading is None or not is_plausible(reading.captured_at):
            self.set_state(record, MeterState.UNREACHABLE, "the electricity meter has no value of it")
            return
        if now - reading.captured_at > _SILENT_AFTER:
            reason = f"its last value is of {reading.captured_at:%Y-%m-%dT%H:%MZ}"
            self.set_state(record, MeterState.UNREACHABLE, reason)
        else:
            self.set_state(record, MeterState.ACTIVE)
        await self._keep_answer(value_answer(meter, reading, now))

    async def _fill_gaps(self, host: Host, meter: ChannelMeter, record: MeterRecord) -> None:
        try:
            _clock, shape = await host.converse(meter_reader.read_clock_and_shape(host.client, meter.profile))
        except AccessError:
            return  # the electricity meter keeps no profile of it: its last values have to do
        order = ProfileOrder(
            timedelta(days=self._settings.history_days), timedelta(seconds=self._settings.answer_delay_s)
        )
        collected = self._collected.setdefault(meter.identity, CollectedMeter(record, identified=True))
        dialogue = _ChannelDialogue(host, collected, self._store, self._clock, self._keep_answer)
        await ProfileVisit(dialogue, own_shape(shape, meter.medium), order).hold()

    async def _keep_answer(self, answer: Answer) -> None:
        if answer.readings:
            self.stored += (await self._store.store_answer(answer)).new
