"""COSEM date-time, date and time (Blue Book 4.1.6.1): 12, 5 and 4 octets, any field open.

The fields are local time; UTC is local time plus the deviation, which is in minutes and has the sign
opposite to ISO 8601 (Central Europe: -60 in winter, -120 in summer). A date-time with a field not
specified is a pattern, not a moment: it has no `to_utc`.
"""

from __future__ import annotations

import enum
import struct
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from concentrator.dlms.errors import DecodeError, EncodeError

DEVIATION_NOT_SPECIFIED = -0x8000
YEAR_NOT_SPECIFIED = 0xFFFF
NOT_SPECIFIED = 0xFF
# Months and days beyond the calendar's numbers.
DAYLIGHT_SAVINGS_END = 0xFD
DAYLIGHT_SAVINGS_BEGIN = 0xFE
SECOND_LAST_DAY_OF_MONTH = 0xFD
LAST_DAY_OF_MONTH = 0xFE

# What nearly all of the world sets clocks ahead by; a clock that leaves its deviation open does not tell.
_DAYLIGHT_SAVING = timedelta(hours=1)

_DATE_TIME = struct.Struct(">HBBBBBBBhB")


class ClockStatus(enum.IntFlag):
    """The last octet of a date-time. 0xFF as a whole means: not specified."""

    OK = 0
    INVALID_VALUE = 1
    DOUBTFUL_VALUE = 2
    DIFFERENT_CLOCK_BASE = 4
    INVALID_CLOCK_STATUS = 8
    DAYLIGHT_SAVING_ACTIVE = 128


class CosemDateTime(NamedTuple):
    """A date-time with its fields as they are on the line. `deviation` is in minutes."""

    year: int = YEAR_NOT_SPECIFIED
    month: int = NOT_SPECIFIED
    day: int = NOT_SPECIFIED
    weekday: int = NOT_SPECIFIED
    hour: int = NOT_SPECIFIED
    minute: int = NOT_SPECIFIED
    second: int = NOT_SPECIFIED
    hundredths: int = NOT_SPECIFIED
    deviation: int = DEVIATION_NOT_SPECIFIED
    status: int = NOT_SPECIFIED

    @classmethod
    def from_bytes(cls, data: bytes) -> CosemDateTime:
        """Decode 12 octets; also 5 (a date) and 4 (a time), the rest then being open.

        Raises:
            DecodeError: another length.
        """
        if len(data) == 12:
            return cls._make(_DATE_TIME.unpack(data))
        if len(data) == 5:
            return cls(int.from_bytes(data[:2], "big"), data[2], data[3], data[4])
        if len(data) == 4:
            return cls(hour=data[0], minute=data[1], second=data[2], hundredths=data[3])
        raise DecodeError(f"a date-time has 12 octets, a date 5, a time 4; got {len(data)}")

    @classmethod
    def from_datetime(cls, moment: datetime, deviation: int | None = 0, status: int = 0) -> CosemDateTime:
        """The moment as the local time of a clock with this deviation.

        With `deviation` None the fields are those of `moment` as it stands, and the deviation is left open.

        Raises:
            EncodeError: a moment without time zone, although a deviation is given.
        """
        if deviation is not None:
            if moment.tzinfo is None:
                raise EncodeError("a moment without time zone cannot be given a deviation")
            moment = moment.astimezone(UTC) - timedelta(minutes=deviation)
        return cls(
            moment.year,
            moment.month,
            moment.day,
            moment.isoweekday(),
            moment.hour,
            moment.minute,
            moment.second,
            moment.microsecond // 10000,
            DEVIATION_NOT_SPECIFIED if deviation is None else deviation,
            status,
        )

    def to_bytes(self) -> bytes:
        """The 12 octets.

        Raises:
            EncodeError: a field does not fit.
        """
        try:
            return _DATE_TIME.pack(*self)
        except struct.error as error:
            raise EncodeError(f"{self} has a field out of range: {error}") from None

    def date_bytes(self) -> bytes:
        """The five octets of the date alone."""
        return self.to_bytes()[:5]

    def time_bytes(self) -> bytes:
        """The four octets of the time alone."""
        return self.to_bytes()[5:9]

    @property
    def utc_offset(self) -> timedelta | None:
        """Local time minus UTC, as ISO 8601 counts it; None where the deviation is open.

        -1 (0xFFFF) is what some peers send for "not specified": no zone of the world has it.
        """
        if self.deviation in (DEVIATION_NOT_SPECIFIED, -1) or not -720 <= self.deviation <= 840:
            return None
        return timedelta(minutes=-self.deviation)

    @property
    def status_flags(self) -> ClockStatus | None:
        """The clock status, or None where it is not specified."""
        return None if self.status == NOT_SPECIFIED else ClockStatus(self.status)

    @property
    def daylight_saving(self) -> bool:
        """Whether the clock says that daylight saving is active."""
        return self.status != NOT_SPECIFIED and bool(self.status & ClockStatus.DAYLIGHT_SAVING_ACTIVE)

    @property
    def is_moment(self) -> bool:
        """Whether date, hour and minute are specified, so that this names one moment."""
        try:
            self.local()
        except DecodeError:
            return False
        return True

    def local(self) -> datetime:
        """The local time, without zone. Seconds and hundredths that are open count as zero.

        Raises:
            DecodeError: a field that is open or impossible.
        """
        second = 0 if self.second == NOT_SPECIFIED else self.second
        hundredths = 0 if self.hundredths == NOT_SPECIFIED else self.hundredths
        try:
            return datetime(  # noqa: DTZ001 - local time of a meter, whose zone is the caller's business
                self.year, self.month, self.day, self.hour, self.minute, second, hundredths * 10000
            )
        except ValueError:
            raise DecodeError(
                f"{self.to_bytes().hex()} names no moment: a field is open or impossible"
            ) from None

    def to_utc(self, default_deviation: int | None = None) -> datetime:
        """The moment in UTC; `default_deviation` (minutes) serves where the meter left the deviation open.

        The default is that of normal time: with daylight saving active the clock is an hour further ahead.

        Raises:
            DecodeError: a field is open or impossible, or no deviation is known.
        """
        offset = self.utc_offset
        if offset is None:
            if default_deviation is None:
                raise DecodeError(f"{self.to_bytes().hex()} has no deviation, and none is configured")
            offset = timedelta(minutes=-default_deviation)
            if self.daylight_saving:
                offset += _DAYLIGHT_SAVING
        try:
            return (self.local() - offset).replace(tzinfo=UTC)
        except OverflowError:
            raise DecodeError(f"{self.to_bytes().hex()} lies beyond the calendar") from None

    def __str__(self) -> str:
        def field(value: int, width: int, unset: int) -> str:
            return "*" * width if value == unset else f"{value:0{width}d}"

        date = "-".join(
            (field(self.year, 4, YEAR_NOT_SPECIFIED), field(self.month, 2, 255), field(self.day, 2, 255))
        )
        time = ":".join(field(part, 2, 255) for part in (self.hour, self.minute, self.second))
        if self.hundredths not in (0, NOT_SPECIFIED):
            time += f".{self.hundredths:02d}"
        offset = self.utc_offset
        if offset is None:
            return f"{date} {time}"
        minutes = int(offset.total_seconds()) // 60
        return f"{date} {time}{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
