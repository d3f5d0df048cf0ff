"""When a task runs: pure arithmetic on times.

A run begins at its *due* time: the first run, and then one a period later each time. Periods of minutes and hours
are so many seconds; days and months are those of the calendar in the utility's time zone, so that a run at 01:10 stays
at 01:10 on the days of 23 and 25 hours (a local time that a change of season skips comes an hour later).
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from concentrator.errors import LocalError

_PERIOD = re.compile(r"^(\d{1,4})(s|min|h|d|month)$")
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_MONTHS_A_YEAR = 12
PERIOD_WORDS = "a number with s, min, h, d or month, such as 15min, 1d or 1month; empty: once"


class ScheduleError(LocalError):
    """A period that makes no sense; the text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Period:
    """How long from one run to the next: seconds, days or months. All zero: there is one run only."""

    seconds: int = 0
    days: int = 0
    months: int = 0

    @classmethod
    def parse(cls, text: str, what: str = "period") -> Period:
        """From text such as "15min", "1d", "1month"; "" is once. `what` it is stands in the error.

        Raises:
            ScheduleError: it is nothing of that kind.
        """
        if not text:
            return cls()
        match = _PERIOD.match(text)
        count = int(match[1]) if match else 0
        if match is None or not count:
            raise ScheduleError(f"{what}: got {text!r}; allowed: {PERIOD_WORDS}")
        unit = match[2]
        if unit == "d":
            return cls(days=count)
        if unit == "month":
            return cls(months=count)
        return cls(seconds=count * _SECONDS[unit])

    def __str__(self) -> str:
        """As `parse` takes it."""
        if self.months:
            return f"{self.months}month"
        if self.days:
            return f"{self.days}d"
        if not self.seconds:
            return ""
        unit, size = next(
            (unit, size) for unit, size in reversed(_SECONDS.items()) if not self.seconds % size
        )
        return f"{self.seconds // size}{unit}"

    @property
    def is_once(self) -> bool:
        """Whether there is one run only."""
        return not (self.seconds or self.days or self.months)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Runs from `first` (aware) on, every `period`; `zone` is the calendar's."""

    first: datetime
    period: Period
    zone: tzinfo = UTC

    def run_time(self, count: int) -> datetime:
        """When the run with this number is due, in UTC; the first has number 0."""
        period = self.period
        if period.seconds:
            # In UTC: sums and differences of local times leave the changes of season out.
            return self.first.astimezone(UTC) + count * timedelta(seconds=period.seconds)
        local = self.first.astimezone(self.zone).replace(tzinfo=None)
        if period.months:
            month = local.year * _MONTHS_A_YEAR + local.month - 1 + count * period.months
            year, month = divmod(month, _MONTHS_A_YEAR)
            # The 31st of a month that has none is its last day.
            day = min(local.day, monthrange(year, month + 1)[1])
            local = local.replace(year=year, month=month + 1, day=day)
        else:
            local += timedelta(days=count * period.days)
        return local.replace(tzinfo=self.zone).astimezone(UTC)

    def latest_due(self, now: datetime) -> datetime | None:
        """The newest run that is due at `now` (UTC), or None before the first."""
        if now < self.first:
            return None
        return self.run_time(self._number(now))

    def next_due(self, now: datetime) -> datetime | None:
        """The first run after `now`; None when there is none any more."""
        if now < self.first:
            return self.first.astimezone(UTC)
        if self.period.is_once:
            return None
        return self.run_time(self._number(now) + 1)

    def _number(self, now: datetime) -> int:
        period = self.period
        if period.is_once:
            return 0
        if period.seconds:
            return (now - self.first.astimezone(UTC)) // timedelta(seconds=period.seconds)
        if period.months:
            local, begin = now.astimezone(self.zone), self.first.astimezone(self.zone)
            months = (local.year - begin.year) * _MONTHS_A_YEAR + local.month - begin.month
            number = months // period.months + 1
        else:
            number = (now - self.first.astimezone(UTC)) // timedelta(days=period.days) + 1
        # Counted generously: a change of season may have made the last one later.
        while self.run_time(number) > now:
            number -= 1
        return number
