"""What a visit does about a profile: finds what is missing, reads it newest first, keeps book of what does not come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from concentrator.collection import gaps, meter_reader
from concentrator.collection.gaps import BufferExtent, ClosedGap, IntervalCalendar, OpenGap
from concentrator.collection.meter_reader import LocalTime, ProfileShape
from concentrator.collection.profile_book import ProfileBook
from concentrator.collection.registry import CollectedMeter
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.profile import ProfileRow
from concentrator.model import Answer, Quality
from concentrator.store.collection_tables import GapRow
from concentrator.store.readings import from_epoch, to_epoch
from concentrator.store.store import Store

Result = TypeVar("Result")

_DAY_S = 86_400
# An interval on the edge of the history is not given up because its meter's turn came a little later.
_EDGE = timedelta(hours=1)
# Intervals asked for in one request: a day of quarter hours, or as many of a longer period.
_LONGEST_SPAN = 96
# How far back a buffer reaches is asked for again after this time.
_EXTENT_AGE_S = float(_DAY_S)


class Dialogue(Protocol):
    """What there is of a visit for whoever reads something in it."""

    meter: CollectedMeter
    store: Store
    local_time: LocalTime | None

    @property
    def selective_access(self) -> bool:
        """Whether the meter can be asked for a part of a profile."""
        ...

    @property
    def client(self) -> Client:
        """The association."""
        ...

    def now(self) -> datetime:
        """The time, in UTC."""
        ...

    async def converse(self, conversation: Conversation[Result]) -> Result:
        """Carry a conversation with the meter to its end."""
        ...

    async def keep(self, answer: Answer) -> None:
        """Put an answer on flash."""
        ...

    async def give_way(self) -> bool:
        """Let orders go first; True: others need the place, and what is left has to wait."""
        ...


@dataclass(frozen=True, slots=True)
class ProfileOrder:
    """How a profile is to be read: how far back, how long after an interval's end, and where the values go."""

    history: timedelta
    delay: timedelta
    send: bool = True
    keep: bool = True


class ProfileVisit:
    """The reading of one profile within one visit."""

    def __init__(self, dialogue: Dialogue, shape: ProfileShape, order: ProfileOrder) -> None:
        self._dialogue = dialogue
        self._shape = shape
        self._order = order
        self._book = dialogue.meter.profiles.setdefault(shape.obis, ProfileBook())
        local_time = dialogue.local_time
        deviation = 0 if local_time is None else local_time.normal_deviation
        self._calendar = IntervalCalendar(shape.period_s, deviation) if shape.period_s else None
        # In summer an interval that follows local time has ended before its place in normal time.
        self._ahead = timedelta()
        if local_time is not None and shape.period_s > gaps.HOUR_S:
            self._ahead = timedelta(minutes=local_time.normal_deviation - local_time.deviation)
        self._newly_closed: list[ClosedGap] = []
        # Times that are no gaps any more: they came, or were closed.
        self._gone: set[int] = set()

    async def hold(self) -> bool:
        """Read what is missing. Returns False when it gave way before it had everything.

        Raises:
            TransientError: the meter or the link went away; what came until then is stored.
            DlmsError: the meter refused or made no sense.
            StoreError: what it said could not be kept.
        """
        if self._calendar is None:
            return await self._read_captured()
        try:
            return await self._fill_gaps(self._calendar)
        finally:
            await self._keep_gaps(self._calendar)

    async def _read_captured(self) -> bool:
        """A profile without a period captures when something happens: everything after what is stored is read."""
        dialogue, shape = self._dialogue, self._shape
        newest = await dialogue.store.newest_time(dialogue.meter.identity, shape.obis)
        now = dialogue.now()
        first = now - self._order.history if newest is None else from_epoch(newest + 1)
        await self._read(first, now)
        return True

    async def _fill_gaps(self, calendar: IntervalCalendar) -> bool:
        book, dialogue = self._book, self._dialogue
        now = dialogue.now()
        missing = await self._missing(calendar, now)
        wanted = gaps.due_times(missing, book.open_gaps or (), to_epoch(now))
        while wanted:
            begin, end = calendar.spans(wanted, _LONGEST_SPAN)[0]
            if not dialogue.selective_access:
                # It gives all that it has, each time.
                begin = wanted[0]
            dialogue.meter.activity = f"reading {from_epoch(begin):%Y-%m-%d}"
            rows = await self._read(
                from_epoch(begin - calendar.tolerance_s), from_epoch(end + calendar.tolerance_s)
            )
            came = calendar.places(to_epoch(row.captured_at) for row in rows if row.captured_at is not None)
            asked = calendar.expected(begin, end)
            self._gone |= came
            book.stored += len(came.intersection(asked))
            wanted = [at for at in wanted if at < begin]
            # The newest may not be captured yet, where the meter's clock is behind ours.
            settled = to_epoch(dialogue.now()) - 2 * min(calendar.period_s, _DAY_S // 4)
            lacking = [at for at in asked if at not in came and at <= settled]
            if lacking:
                await self._explain(calendar, lacking, rows)
                if book.extent is not None:
                    wanted = self._close_before(calendar, wanted, book.extent)
            book.missing = book.expected - book.stored - book.closed
            if wanted and await dialogue.give_way():
                return False
        return True

    async def _missing(self, calendar: IntervalCalendar, now: datetime) -> list[int]:
        book, meter, shape = self._book, self._dialogue.meter, self._shape
        store = self._dialogue.store
        first = now - self._order.history - _EDGE
        last = now - self._order.delay + self._ahead
        expected = calendar.expected(to_epoch(first), int(last.timestamp()))
        if book.open_gaps is None:
            book.kept = await store.open_gaps(meter.identity, shape.obis)
            book.open_gaps = [OpenGap(*row) for row in book.kept]
            book.closed_as_of = -1
        if book.closed_as_of != store.house.made_room:
            # What a full store removed is closed there: it is not asked for again.
            book.closed_as_of = store.house.made_room
            book.closed_gaps = [
                ClosedGap(*row) for row in await store.closed_gaps(meter.identity, shape.obis)
            ]
        for gap in book.open_gaps:
            if gap.last < expected.start:
                self._close(calendar, gap.first, gap.last, gaps.GIVEN_UP)
        margin = timedelta(seconds=calendar.tolerance_s)
        times = await store.stored_times(meter.identity, shape.obis, first - margin, now + margin)
        stored = calendar.places(times).intersection(expected)
        missing = gaps.missing_times(expected, stored, book.closed_gaps)
        book.expected, book.stored = len(expected), len(stored)
        book.missing = len(missing)
        book.closed = book.expected - book.stored - book.missing
        return missing

    async def _read(self, first: datetime, last: datetime) -> list[ProfileRow]:
        """Read and store the rows captured from `first` to `last`."""
        dialogue, shape = self._dialogue, self._shape
        rows = await dialogue.converse(
            meter_reader.read_range(
                dialogue.client,
                shape,
                first,
                last,
                dialogue.local_time,
                selective=dialogue.selective_access,
            )
        )
        answer = meter_reader.to_answer(
            dialogue.meter.identity, shape, rows, dialogue.now(), send=self._order.send, keep=self._order.keep
        )
        if answer.readings:
            await dialogue.keep(answer)
        return rows

    # What does not come

    async def _explain(self, calendar: IntervalCalendar, lacking: list[int], rows: list[ProfileRow]) -> None:
        """Close what can never come, with its reason; the rest stays open, to be asked for again."""
        await self._ask_extent()
        book = self._book
        open_still: list[int] = []
        for at in lacking:
            reason = self._final_reason(at, rows)
            if reason is None:
                open_still.append(at)
            else:
                self._close(calendar, at, at, reason)
        book.open_gaps = gaps.asked_in_vain(
            calendar, open_still, book.open_gaps or [], to_epoch(self._dialogue.now())
        )

    def _final_reason(self, at: int, rows: list[ProfileRow]) -> str | None:
        extent = self._book.extent
        if extent is not None and at < extent.oldest:
            return extent.reason
        following = next(
            (row for row in rows if row.captured_at is not None and to_epoch(row.captured_at) > at), None
        )
        if following is None:
            return None
        quality = meter_reader.row_quality(following)
        return gaps.reason_of_row(
            power_down=Quality.POWER_DOWN in quality, clock_adjusted=Quality.CLOCK_ADJUSTED in quality
        )

    async def _ask_extent(self) -> None:
        book, dialogue = self._book, self._dialogue
        now = dialogue.now().timestamp()
        if now - book.extent_asked_at < _EXTENT_AGE_S:
            return
        book.extent_asked_at = now
        book.extent = await dialogue.converse(
            meter_reader.read_extent(dialogue.client, self._shape, dialogue.local_time)
        )

    def _close_before(self, calendar: IntervalCalendar, wanted: list[int], extent: BufferExtent) -> list[int]:
        """What lies before the buffer is not asked for."""
        oldest = extent.oldest - calendar.tolerance_s
        gone = [at for at in wanted if at < oldest]
        for first, last in calendar.spans(gone, len(gone)):
            self._close(calendar, first, last, extent.reason)
        return [at for at in wanted if at >= oldest]

    def _close(self, calendar: IntervalCalendar, first: int, last: int, reason: str) -> None:
        times = calendar.expected(first, last)
        self._gone.update(times)
        self._newly_closed.append(ClosedGap(first, last, reason))
        self._book.closed += len(times)

    async def _keep_gaps(self, calendar: IntervalCalendar) -> None:
        book, meter, obis = self._book, self._dialogue.meter, self._shape.obis
        before = book.open_gaps or []
        book.open_gaps = gaps.without(calendar, before, self._gone)
        rows = sorted(
            GapRow(gap.first, gap.last, gap.reason, gap.tries, gap.next_try) for gap in book.open_gaps
        )
        if self._newly_closed or rows != book.kept:
            closed = gaps.joined(self._newly_closed, calendar.period_s)
            await self._dialogue.store.keep_gaps(meter.identity, obis, rows, closed)
            book.closed_gaps = gaps.joined([*book.closed_gaps, *closed], calendar.period_s)
            book.kept, self._newly_closed = rows, []
