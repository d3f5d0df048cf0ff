"""Dates and times of orders as text, and as the octets of COSEM (Blue Book 4.1.6.1): any field may be open, as `*`.

What a meter keeps is its own local time. Text without a zone is written with an open deviation, text with a zone with
that deviation.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime

from concentrator.dlms.cosem_time import (
    DAYLIGHT_SAVINGS_BEGIN,
    DAYLIGHT_SAVINGS_END,
    DEVIATION_NOT_SPECIFIED,
    LAST_DAY_OF_MONTH,
    NOT_SPECIFIED,
    SECOND_LAST_DAY_OF_MONTH,
    YEAR_NOT_SPECIFIED,
    CosemDateTime,
)
from concentrator.dlms.errors import DecodeError

DATE_WORDS = (
    "a date such as 2026-12-25, *-12-25 or *-03-last sun; fields may be *, the month dst-begin or dst-end, "
    "the day last or second-last, and a weekday may follow"
)
TIME_WORDS = "a time of day such as 07:00 or 07:00:30"
DATE_TIME_WORDS = (
    "a moment such as 2026-12-01T00:00:00 (the meter's local time) or 2026-12-01T00:00:00+01:00, "
    "a date and a time with a space between, whose fields may be *, or never"
)
NEVER = "never"
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = {"dst-begin": DAYLIGHT_SAVINGS_BEGIN, "dst-end": DAYLIGHT_SAVINGS_END}
_DAYS = {"second-last": SECOND_LAST_DAY_OF_MONTH, "last": LAST_DAY_OF_MONTH}
_MONTH_WORDS = {code: word for word, code in _MONTHS.items()}
_DAY_WORDS = {code: word for word, code in _DAYS.items()}
_DATE = re.compile(
    r"(?P<year>\*|\d{4})-(?P<month>\*|\d{2}|dst-begin|dst-end)-(?P<day>\*|\d{2}|last|second-last)"
    r"(?: (?P<weekday>mon|tue|wed|thu|fri|sat|sun))?"
)
_TIME = re.compile(r"(?P<hour>\*|\d{2}):(?P<minute>\*|\d{2})(?::(?P<second>\*|\d{2}))?")
_OPEN = CosemDateTime().to_bytes()


def _field(text: str | None, low: int, high: int, unset: int, words: dict[str, int]) -> int:
    if text is None or text == "*":
        return unset
    if text in words:
        return words[text]
    number = int(text)
    if not low <= number <= high:
        raise ValueError
    return number


def parse_date(text: str) -> bytes:
    """The five octets of a date. A full date gets its weekday left open.

    Raises:
        ValueError: it is not of the form in `DATE_WORDS`, or no day.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError
    year = _field(found["year"], 1970, 9999, YEAR_NOT_SPECIFIED, {})
    month = _field(found["month"], 1, 12, NOT_SPECIFIED, _MONTHS)
    day = _field(found["day"], 1, 31, NOT_SPECIFIED, _DAYS)
    if 1 <= month <= 12 and 1 <= day <= 31:  # noqa: PLR2004 - a month and a day
        # The 29th of February is one in some year.
        longest = calendar.monthrange(2024 if year == YEAR_NOT_SPECIFIED else year, month)[1]
        if day > longest:
            raise ValueError
    weekday = _WEEKDAYS.index(found["weekday"]) + 1 if found["weekday"] else NOT_SPECIFIED
    return CosemDateTime(year, month, day, weekday).date_bytes()


def parse_time(text: str) -> bytes:
    """The four octets of a time of day; hundredths are zero, and seconds where none are given.

    Raises:
        ValueError: it is not of the form in `TIME_WORDS`, or no time.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError
    hour = _field(found["hour"], 0, 23, NOT_SPECIFIED, {})
    minute = _field(found["minute"], 0, 59, NOT_SPECIFIED, {})
    second = 0 if found["second"] is None else _field(found["second"], 0, 59, NOT_SPECIFIED, {})
    return CosemDateTime(hour=hour, minute=minute, second=second, hundredths=0).time_bytes()


def parse_date_time(text: str) -> bytes:
    """The 12 octets of a moment or a pattern.

    Raises:
        ValueError: it is not of the form in `DATE_TIME_WORDS`.
    """
    if text == NEVER:
        return _OPEN
    day, separator, at = text.rpartition(" ")
    if separator and _TIME.fullmatch(at):
        tail = DEVIATION_NOT_SPECIFIED.to_bytes(2, "big", signed=True) + bytes((NOT_SPECIFIED,))
        return parse_date(day) + parse_time(at) + tail
    moment = datetime.fromisoformat(text)
    if moment.year < 1970:  # noqa: PLR2004 - before all clocks
        raise ValueError
    offset = moment.utcoffset()
    if offset is None:
        return CosemDateTime.from_datetime(moment, None, NOT_SPECIFIED).to_bytes()
    return CosemDateTime.from_datetime(moment, -int(offset.total_seconds() // 60)).to_bytes()


def show_date(octets: bytes) -> str:
    """A date as `parse_date` takes it; octets that are none in hexadecimal."""
    try:
        if len(octets) != 5:  # noqa: PLR2004 - a date
            return octets.hex()
        value = CosemDateTime.from_bytes(octets)
    except DecodeError:
        return octets.hex()
    year = "*" if value.year == YEAR_NOT_SPECIFIED else f"{value.year:04d}"
    month = "*" if value.month == NOT_SPECIFIED else _MONTH_WORDS.get(value.month, f"{value.month:02d}")
    day = "*" if value.day == NOT_SPECIFIED else _DAY_WORDS.get(value.day, f"{value.day:02d}")
    text = f"{year}-{month}-{day}"
    if not 1 <= value.weekday <= 7 or _is_its_weekday(value):  # noqa: PLR2004 - days of a week
        return text
    return f"{text} {_WEEKDAYS[value.weekday - 1]}"


def _is_its_weekday(value: CosemDateTime) -> bool:
    """Whether the weekday says no more than the date does: some meters fill it in."""
    try:
        return date(value.year, value.month, value.day).isoweekday() == value.weekday
    except ValueError:
        return False


def show_time(octets: bytes) -> str:
    """A time of day as `parse_time` takes it; octets that are none in hexadecimal."""
    if len(octets) != 4:  # noqa: PLR2004 - a time
        return octets.hex()
    parts = ["*" if part == NOT_SPECIFIED else f"{part:02d}" for part in octets[:3]]
    text = ":".join(parts if octets[2] != 0 else parts[:2])
    return f"{text}.{octets[3]:02d}" if octets[3] not in (0, NOT_SPECIFIED) else text


def show_date_time(octets: bytes) -> str:
    """A moment in ISO 8601, a pattern as date and time, `never` where all is open; else hexadecimal."""
    if len(octets) != len(_OPEN):
        return octets.hex()
    value = CosemDateTime.from_bytes(octets)
    if octets[:9] == _OPEN[:9] or not any(octets):
        return NEVER
    try:
        moment = value.local().replace(microsecond=0)
    except DecodeError:
        return f"{show_date(octets[:5])} {show_time(octets[5:9])}"
    return moment.isoformat() + ("" if value.utc_offset is None else _offset(value))


def _offset(value: CosemDateTime) -> str:
    minutes = -value.deviation
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
