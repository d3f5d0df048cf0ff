"""When a push destination gets what: as it comes, by schedule, within windows. Pure: moments in, moments out.

Times of day are local ones of the utility's zone. Slots of the schedule are counted from `at`, anew each day.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PushCalendar:
    """What the configuration says. Without windows everything is open always."""

    zone: tzinfo
    fresh: bool
    scheduled: bool
    events: bool
    every: timedelta
    at: time
    windows: tuple[tuple[time, time], ...] = ()

    @classmethod
    def from_words(cls, zone: tzinfo, when: str, every_s: int, at: str, windows: str) -> PushCalendar:
        """From the keys of the configuration, which are checked there."""
        words = when.replace(",", " ").split()
        spans = [word.partition("-") for word in windows.replace(",", " ").split()]
        return cls(
            zone,
            "fresh" in words,
            "schedule" in words,
            "events" in words,
            timedelta(seconds=every_s),
            time.fromisoformat(at),
            tuple((time.fromisoformat(first), time.fromisoformat(last)) for first, _, last in spans),
        )

    @property
    def takes_readings(self) -> bool:
        """Whether readings are for this destination at all."""
        return self.fresh or self.scheduled

    def is_open(self, now: datetime) -> bool:
        """Whether a window is open."""
        at = now.astimezone(self.zone).time().replace(tzinfo=None)
        return not self.windows or any(_within(at, first, last) for first, last in self.windows)

    def next_opening(self, now: datetime) -> datetime:
        """When the next window is open: `now` where one is."""
        if self.is_open(now):
            return now
        return min(self._next_time(first, now) for first, _ in self.windows)

    def next_closing(self, now: datetime) -> datetime | None:
        """When the windows that are open now will be closed; None without windows."""
        if not self.windows:
            return None
        at = now.astimezone(self.zone).time().replace(tzinfo=None)
        return max(
            (self._next_time(last, now) for first, last in self.windows if _within(at, first, last)),
            default=now,
        )

    def next_slot(self, now: datetime) -> datetime:
        """The first moment of the schedule after now, at which a window is open or opens next."""
        begins = self._next_time(self.at, now) - _DAY
        local = now.astimezone(self.zone)
        passed = (local - begins.astimezone(self.zone)) // self.every
        slot = begins + (passed + 1) * self.every
        return self.next_opening(min(slot, self._next_time(self.at, now)))

    def _next_time(self, at: time, now: datetime) -> datetime:
        """The next moment after now with this local time."""
        local = now.astimezone(self.zone)
        for days in range(3):
            day = local.date() + timedelta(days=days)
            moment = datetime.combine(day, at, self.zone).astimezone(now.tzinfo)
            if moment > now:
                return moment
        return now + _DAY


def _within(at: time, first: time, last: time) -> bool:
    return first <= at < last if first < last else at >= first or at < last


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of some moments, of which some may never come."""
    return min((moment for moment in moments if moment is not None), default=None)
