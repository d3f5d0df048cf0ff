"""Moments that a date-time with open fields names: windows and schedules (Blue Book 4.1.6.1, 4.1.6.3).

A field that is not specified fits any value, but for seconds and hundredths, which then are zero. Local time of the
clock at hand, without zone: deviation and clock status are not looked at.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.cosem_time import (
    DAYLIGHT_SAVINGS_END,
    LAST_DAY_OF_MONTH,
    NOT_SPECIFIED,
    SECOND_LAST_DAY_OF_MONTH,
    YEAR_NOT_SPECIFIED,
    CosemDateTime,
)
from concentrator.dlms.data import Data
from concentrator.dlms.errors import DecodeError

# Every pattern without a year comes again within four years, but for the leap days of century years.
_HORIZON_DAYS = 4 * 366
_WINDOWS_LIMIT = 32


def falls_on(pattern: CosemDateTime, day: date) -> bool:
    """Whether the date of the pattern fits this day. Begin and end of daylight saving are no dates here."""
    if pattern.year not in (YEAR_NOT_SPECIFIED, day.year) or pattern.weekday not in (
        NOT_SPECIFIED,
        day.isoweekday(),
    ):
        return False
    if pattern.month not in (NOT_SPECIFIED, day.month):
        return False
    if pattern.day in (LAST_DAY_OF_MONTH, SECOND_LAST_DAY_OF_MONTH):
        last = calendar.monthrange(day.year, day.month)[1]
        return day.day == last - (pattern.day == SECOND_LAST_DAY_OF_MONTH)
    return pattern.day in (NOT_SPECIFIED, day.day)


def _times(pattern: CosemDateTime) -> list[time]:
    """The times of a day that the pattern names, rising. Raises DecodeError."""
    hours = range(24) if pattern.hour == NOT_SPECIFIED else (pattern.hour,)
    minutes = range(60) if pattern.minute == NOT_SPECIFIED else (pattern.minute,)
    second = 0 if pattern.second == NOT_SPECIFIED else pattern.second
    try:
        return [time(hour, minute, second) for hour in hours for minute in minutes]
    except (ValueError, OverflowError):
        raise DecodeError(f"{pattern} has an impossible time") from None


def _on(pattern: CosemDateTime, days: Iterable[date]) -> Iterator[tuple[date, list[time]]]:
    times = _times(pattern)
    if pattern.month in range(13, DAYLIGHT_SAVINGS_END) or not times:
        raise DecodeError(f"{pattern} has an impossible date")
    return ((day, times) for day in days if falls_on(pattern, day))


def next_moment(pattern: CosemDateTime, after: datetime) -> datetime | None:
    """The first moment of the pattern that is not before `after`; None where there is none in four years.

    Raises:
        DecodeError: the pattern names nothing.
    """
    days = (after.date() + timedelta(days=number) for number in range(_HORIZON_DAYS))
    for day, times in _on(pattern, days):
        for at in times:
            moment = datetime.combine(day, at)
            if moment >= after:
                return moment
    return None


def last_moment(pattern: CosemDateTime, before: datetime) -> datetime | None:
    """The last moment of the pattern that is not after `before`; None where there was none in four years.

    Raises:
        DecodeError: the pattern names nothing.
    """
    days = (before.date() - timedelta(days=number) for number in range(_HORIZON_DAYS))
    for day, times in _on(pattern, days):
        for at in reversed(times):
            moment = datetime.combine(day, at)
            if moment <= before:
                return moment
    return None


class Window(NamedTuple):
    """A time that opens and closes, once or again and again: an element of a communication or listening window."""

    start: CosemDateTime
    end: CosemDateTime

    @classmethod
    def list_from_data(cls, data: Data) -> tuple[Window, ...]:
        """Decode an array of windows. Raises DecodeError."""
        elements = data.items()
        if len(elements) > _WINDOWS_LIMIT:
            raise DecodeError(f"{len(elements)} windows are too many")
        found = [
            cls(*[CosemDateTime.from_bytes(end.octets()) for end in element.items(2)[:2]])
            for element in elements
        ]
        for window in found:
            _times(window.start)
            _times(window.end)
        return tuple(found)

    def to_data(self) -> Data:
        """The structure of two octet-strings."""
        return axdr.structure(*(axdr.octet_string(end.to_bytes()) for end in self))

    def is_open(self, now: datetime) -> bool:
        """Whether it is open at this local time: it has opened, and not closed since."""
        opened = last_moment(self.start, now)
        if opened is None:
            return False
        closes = next_moment(self.end, opened + timedelta(seconds=1))
        return closes is None or closes > now


def next_opening(windows: Iterable[Window], now: datetime) -> datetime | None:
    """When the next of these windows is open: now, later, or never. Without windows it is always."""
    found = list(windows)
    if not found or any(window.is_open(now) for window in found):
        return now
    openings = [next_moment(window.start, now) for window in found]
    return min((moment for moment in openings if moment is not None), default=None)
