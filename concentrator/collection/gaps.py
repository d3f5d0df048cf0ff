"""Which intervals a meter still owes, and what is known of those that it does not give: pure arithmetic on times.

Times are seconds since 1970, UTC. An interval is named by its END.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

HOUR_S = 3600
_LARGEST_SHIFT_S = 3 * HOUR_S
_LARGEST_JITTER_S = 60
_JITTER_SHARE = 10
# How long to wait before a meter that had no data for an interval is asked again: by how often it was asked.
_RETRY_S = (HOUR_S, 6 * HOUR_S, 24 * HOUR_S)

NO_DATA = "the meter has no data for it"
POWER_DOWN = "the meter was without power"
CLOCK_MOVED = "the meter's clock was moved"
OVERWRITTEN = "the meter's buffer has lost it"
GIVEN_UP = "not had within the history that is asked for"
NOT_INSTALLED = "the meter did not record yet"

Span = tuple[int, int]


class ClosedGap(NamedTuple):
    """Intervals that will never come, by their first and last end, and why."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class OpenGap:
    """Intervals that the meter was asked for and did not give: tried again until its buffer has lost them."""

    first: int
    last: int
    reason: str
    tries: int
    next_try: int


class IntervalCalendar:
    """When a profile captures: whole multiples of its period in the meter's normal time.

    `deviation` is that of normal time in minutes, as the meter's clock counts it (UTC minus local time). Periods above
    an hour follow the meter's local time through the season: their ends lie an hour earlier in UTC half of the year.
    """

    def __init__(self, period_s: int, deviation: int = 0) -> None:
        self.period_s = period_s
        self._offset = deviation * 60 % period_s
        # How far from its place a capture time may lie and still be that interval's.
        self.tolerance_s = (
            min(period_s // 2 - 1, _LARGEST_SHIFT_S)
            if period_s > HOUR_S
            else min(period_s // _JITTER_SHARE, _LARGEST_JITTER_S)
        )

    def expected(self, first: int, last: int) -> range:
        """The interval ends from `first` to `last`, both included."""
        start = -(-(first - self._offset) // self.period_s) * self.period_s + self._offset
        return range(start, last + 1, self.period_s)

    def place(self, captured_at: int) -> int | None:
        """The interval that a capture time stands for, or None when it lies at none."""
        place = round((captured_at - self._offset) / self.period_s) * self.period_s + self._offset
        return place if abs(captured_at - place) <= self.tolerance_s else None

    def places(self, captured: Iterable[int]) -> set[int]:
        """The intervals that capture times stand for."""
        found = {self.place(at) for at in captured}
        return {at for at in found if at is not None}

    def spans(self, times: Iterable[int], longest: int) -> list[Span]:
        """Neighbouring times joined to (first, last), each of at most `longest` intervals; newest first.

        The newest come first because they are what the head-end waits for; a day is one request.
        """
        result: list[Span] = []
        for at in sorted(times, reverse=True):
            if result:
                first, last = result[-1]
                if first - at == self.period_s and (last - at) // self.period_s < longest:
                    result[-1] = (at, last)
                    continue
            result.append((at, at))
        return result


def missing_times(expected: range, stored: set[int], closed: Sequence[ClosedGap]) -> list[int]:
    """The expected times that are neither stored nor closed, oldest first."""
    gone: set[int] = set()
    for gap in closed:
        gone.update(expected[bisect_left(expected, gap.first) : bisect_left(expected, gap.last + 1)])
    return [at for at in expected if at not in stored and at not in gone]


def due_times(missing: Sequence[int], open_gaps: Sequence[OpenGap], now: int) -> list[int]:
    """Of the missing times those that may be asked for now: the others were asked for lately."""
    resting = [(gap.first, gap.last) for gap in open_gaps if gap.next_try > now]
    return [at for at in missing if not any(first <= at <= last for first, last in resting)]


def asked_in_vain(
    calendar: IntervalCalendar, lacking: Sequence[int], open_gaps: Sequence[OpenGap], now: int
) -> list[OpenGap]:
    """The open gaps after the meter had nothing for `lacking`: each time counts its own tries."""
    tries = {
        at: gap.tries
        for gap in open_gaps
        for at in lacking
        if gap.first <= at <= gap.last
    }  # fmt: skip
    again: list[OpenGap] = [
        gap for gap in open_gaps if not any(gap.first <= at <= gap.last for at in lacking)
    ]
    for count in sorted({tries.get(at, 0) for at in lacking}):
        same = [at for at in lacking if tries.get(at, 0) == count]
        wait = _RETRY_S[min(count, len(_RETRY_S) - 1)]
        again.extend(
            OpenGap(first, last, NO_DATA, count + 1, now + wait)
            for first, last in calendar.spans(same, len(same))
        )
    return again


def without(calendar: IntervalCalendar, open_gaps: Iterable[OpenGap], gone: set[int]) -> list[OpenGap]:
    """The open gaps without the times that came or were closed."""
    return [
        OpenGap(first, last, gap.reason, gap.tries, gap.next_try)
        for gap in open_gaps
        for first, last in reversed(
            calendar.spans(
                [at for at in calendar.expected(gap.first, gap.last) if at not in gone],
                (gap.last - gap.first) // calendar.period_s + 1,
            )
        )
    ]


def joined(closed: Iterable[ClosedGap], period_s: int) -> list[ClosedGap]:
    """Neighbours with the same reason as one gap."""
    result: list[ClosedGap] = []
    for gap in sorted(closed):
        if result and result[-1].reason == gap.reason and gap.first - result[-1].last <= period_s:
            result[-1] = ClosedGap(result[-1].first, max(result[-1].last, gap.last), gap.reason)
        else:
            result.append(gap)
    return result


class BufferExtent(NamedTuple):
    """How far back a meter's profile reaches: its oldest capture time, and whether it has begun to overwrite."""

    oldest: int
    is_full: bool

    @property
    def reason(self) -> str:
        """Why there is nothing before the oldest."""
        return OVERWRITTEN if self.is_full else NOT_INSTALLED


def reason_of_row(power_down: bool, clock_adjusted: bool) -> str | None:  # noqa: FBT001 - two bits of a status
    """Why the intervals before a row are missing, by the status of that row; None when it does not tell."""
    if power_down:
        return POWER_DOWN
    return CLOCK_MOVED if clock_adjusted else None
