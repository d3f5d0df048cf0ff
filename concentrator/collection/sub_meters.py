"""Gas, water and heat meters behind electricity meters: registered, and their gaps filled, like any other meter's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection import gaps, meter_reader
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
from concentrator.config import CollectionSection
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.errors import TransientError
from concentrator.model import Answer, MeterRecord, MeterState
from concentrator.store.readings import from_epoch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")
# Meters are put on a channel by a person: looking once a day is enough.
_LOOK_INTERVAL_S = 86_400.0
_DAY_S = 86_400
_EDGE = timedelta(hours=1)
# An electricity meter reads its M-Bus hourly; a day without a value is silence.
_SILENT_AFTER = timedelta(days=1)
_NO_DATA = "the electricity meter has no data for it"


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


class SubMeters(LocalMeters):
    """The meters on the channels of all electricity meters."""

    def __init__(self, settings: CollectionSection, store: Store, clock: Clock) -> None:
        super().__init__(LINK, store, clock)
        self._settings = settings
        self._store = store
        self._clock = clock
        # Electricity meter: when it was asked who is there, and who was.
        self._found: dict[str, tuple[float, list[ChannelMeter]]] = {}
        # Whether a meter is known by another way, which then tells how it is; set by the composition.
        self.known_elsewhere: Callable[[str], bool] = lambda _identity: False

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
            await self._fill_gaps(host, meter)
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

    async def _fill_gaps(self, host: Host, meter: ChannelMeter) -> None:
        try:
            _clock, shape = await host.converse(meter_reader.read_clock_and_shape(host.client, meter.profile))
        except AccessError:
            return  # the electricity meter keeps no profile of it: its last values have to do
        if shape.period_s <= 0:
            return
        shape = own_shape(shape, meter.medium)
        now = self._clock.now()
        first = now - timedelta(days=self._settings.history_days) - _EDGE
        last = now - timedelta(seconds=self._settings.answer_delay_s)
        expected = gaps.expected_times(round(first.timestamp()), int(last.timestamp()), shape.period_s)
        stored = await self._store.stored_times(meter.identity, shape.obis, first, last)
        missing = gaps.missing_times(
            expected, stored, await self._store.closed_gaps(meter.identity, shape.obis)
        )
        longest = max(1, _DAY_S // shape.period_s)
        for begin, end in gaps.spans(missing, shape.period_s, longest):
            rows = await host.converse(
                meter_reader.read_range(
                    host.client, shape, from_epoch(begin), from_epoch(end), host.local_time
                )
            )
            answer = meter_reader.to_answer(meter.identity, shape, rows, self._clock.now())
            await self._keep_answer(answer)
            came = {round(reading.captured_at.timestamp()) for reading in answer.readings}
            # The newest may not be captured yet: the electricity meter asks its M-Bus in its own time.
            settled = int(now.timestamp()) - 2 * shape.period_s
            lacking = [at for at in range(begin, end + 1, shape.period_s) if at not in came and at <= settled]
            for gap_first, gap_last in gaps.spans(lacking, shape.period_s, longest):
                await self._store.close_gap(
                    meter.identity, shape.obis, from_epoch(gap_first), from_epoch(gap_last), _NO_DATA
                )

    async def _keep_answer(self, answer: Answer) -> None:
        if answer.readings:
            self.stored += (await self._store.store_answer(answer)).new
