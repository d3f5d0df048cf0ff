"""The layout of a profile's rows, learned once: where the tags stand, and what lies between them.

Most rows of a buffer have one shape: the same types in the same order. Rows of one shape stand at a
fixed distance from each other, so each of their columns is a slice of the buffer with a stride, and a run
of rows is checked, unpacked and dated column by column, without a step of Python for each value. Clocks are
those of the Blue Book (4.1.6.1): 12 octets of local time, with the deviation from UTC.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import accumulate, repeat
from operator import add, itemgetter
from typing import NamedTuple

from concentrator.dlms.axdr import DELTA_TYPES, FIXED_FORMATS, Data, DataType, Native
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader

CLOCK_OCTETS = 12
_STATUS_AT = 11
# The octets of a clock that are the same for all rows of a day: date and deviation.
_OF_THE_DAY = (3, 1, 2, 0, 9, 10)
# Hour, minute, second, hundredths, and the clock status.
_OF_THE_ROW = (5, 6, 7, 8, _STATUS_AT)
_OPEN_OR_ZERO = b"\x00\xff"
# Rows that are looked at for one day: more than a day of quarter hours.
_DAY_WINDOW = 128
# By the two octets of hour and minute.
_TIME_OF_DAY = {
    hour << 8 | minute: timedelta(hours=hour, minutes=minute) for hour in range(24) for minute in range(60)
}
_FORMATS: dict[DataType, str] = {**FIXED_FORMATS, DataType.BOOLEAN: "?"}


class Cell(NamedTuple):
    """Where the contents of a cell stand in their row; tags and lengths stand outside."""

    type: DataType
    start: int
    end: int


class RowShape:
    """The layout of one row of a buffer.

    `octets` are the row that it is learned from, `cells` what it holds; `clock` and `status` are the columns with
    these meanings, or -1.
    """

    __slots__ = ("_checks", "_clock_at", "_fixed", "_mask", "_sent", "_status", "_values", "nulls", "stride")

    def __init__(self, octets: bytes, cells: Sequence[Cell], clock: int, status: int) -> None:
        self.stride = len(octets)
        self._clock_at = -1
        self._status: Cell | None = None
        self._checks: list[tuple[int, bytes]] = []
        layout = ""
        offset = checked = 0
        sent: list[bool] = []
        for number, cell in enumerate(cells):
            self._checks += [(i, octets[i : i + 1]) for i in range(checked, cell.start)]
            checked = cell.end
            if cell.type == DataType.NULL_DATA:
                if number not in (clock, status):
                    sent.append(False)
                continue
            if number == clock:
                self._clock_at = cell.start
            elif number == status:
                self._status = cell
            else:
                sent.append(True)
                code = _FORMATS.get(cell.type, f"{cell.end - cell.start}s")
                layout += f"{cell.start - offset}x{code}"
                offset = cell.end
        self._checks += [(i, octets[i : i + 1]) for i in range(checked, self.stride)]
        mask = bytearray(self.stride)
        for i, _ in self._checks:
            mask[i] = 0xFF
        self._mask = int.from_bytes(mask, "big")
        self._fixed = int.from_bytes(octets, "big") & self._mask
        self._values = struct.Struct(f">{layout}{self.stride - offset}x")
        self.nulls = tuple(i for i, was_sent in enumerate(sent) if not was_sent)
        self._sent = tuple(sent)

    def matching(self, data: bytes, start: int, rows: int) -> int:
        """How many of the next `rows` rows have this shape."""
        stride = self.stride
        if int.from_bytes(data[start : start + stride], "big") & self._mask != self._fixed:
            return 0
        for offset, octet in self._checks:
            end = start + rows * stride
            column = data[start + offset : end : stride]
            if column.count(octet) != rows:
                rows = len(column) - len(column.lstrip(octet))
                if rows == 1:
                    break
        return rows

    @staticmethod
    def can_hold(cell: Data) -> bool:
        """Whether a row with this cell has a shape that others may share."""
        return cell.type == DataType.OCTET_STRING or (cell.type in _FORMATS and cell.type not in DELTA_TYPES)

    @property
    def has_clock(self) -> bool:
        """Whether rows of this shape carry their own time."""
        return self._clock_at >= 0

    def values(self, octets: bytes, before: tuple[Native, ...] | None) -> Iterable[tuple[Native, ...]]:
        """The values of each row; what it leaves out stands as it did in `before`, or is None."""
        rows = self._values.iter_unpack(octets)
        if not self.nulls:
            return rows
        fields = zip(*rows, strict=True)
        left_out = iter(self.nulls)
        columns: list[Iterable[Native]] = [
            next(fields)
            if was_sent
            else repeat(before[next(left_out)] if before else None, len(octets) // self.stride)
            for was_sent in self._sent
        ]
        return zip(*columns, strict=True)

    def statuses(self, octets: bytes) -> Iterable[int] | None:
        """The profile status of each row, as a number; None where the rows have none."""
        if self._status is None:
            return None
        kind, start, end = self._status
        if end - start == 1 and kind == DataType.UNSIGNED:
            return octets[start :: self.stride]
        fields = struct.Struct(f">{start}x{_FORMATS.get(kind, f'{end - start}s')}{self.stride - end}x")
        numbers = map(itemgetter(0), fields.iter_unpack(octets))
        if kind in FIXED_FORMATS:
            return numbers
        if kind == DataType.BOOLEAN:
            return map(int, numbers)
        return [int.from_bytes(number, "big") for number in numbers]

    def clock_statuses(self, octets: bytes) -> bytes:
        """The clock status of each row."""
        return octets[self._clock_at + _STATUS_AT :: self.stride]

    def times(self, octets: bytes, default_deviation: int | None) -> list[datetime | None]:
        """The time of each row in UTC; None where its clock names no moment.

        Raises:
            DecodeError: a clock has no deviation, and no default is given; or lies beyond the calendar.
        """
        stride, rows = self.stride, len(octets) // self.stride
        if rows == 1:
            return [_time_of(octets[self._clock_at : self._clock_at + CLOCK_OCTETS], default_deviation)]
        columns = [octets[self._clock_at + i :: stride] for i in range(CLOCK_OCTETS)]
        changing = [columns[i] for i in _OF_THE_DAY if columns[i].count(columns[i][:1]) != rows]
        of_each_row = [columns[i] for i in _OF_THE_ROW]
        times: list[datetime | None] = []
        first = 0
        while first < rows:
            last = min(first + _DAY_WINDOW, rows)
            for column in changing:
                here = column[first:last]
                if here.count(here[:1]) != last - first:
                    last = first + len(here) - len(here.lstrip(here[:1]))
            at = self._clock_at + first * stride
            times += times_of_day(
                octets[at : at + CLOCK_OCTETS],
                *[column[first:last] for column in of_each_row],
                default_deviation,
            )
            first = last
        return times


# Meters behind one substation stamp the same quarter hours: what one of them had is there for the others.
@lru_cache(maxsize=64)
def times_of_day(  # noqa: PLR0917 - the columns of a clock
    first_clock: bytes,
    hours: bytes,
    minutes: bytes,
    seconds: bytes,
    hundredths: bytes,
    statuses: bytes,
    default_deviation: int | None,
) -> tuple[datetime | None, ...]:
    """The moments of rows that share date and deviation with `first_clock`."""
    date, zone = first_clock[:5], first_clock[9:11]
    one_status = statuses.count(statuses[:1]) == len(statuses)
    if one_status and not seconds.strip(_OPEN_OR_ZERO) and not hundredths.strip(_OPEN_OR_ZERO):
        midnight = moment_of(date + bytes(4) + zone + statuses[:1], default_deviation)
        if midnight is None:
            return (None,) * len(hours)
        try:
            hours_and_minutes = bytearray(2 * len(hours))
            hours_and_minutes[::2], hours_and_minutes[1::2] = hours, minutes
            keys = struct.unpack(f">{len(hours)}H", hours_and_minutes)
            return tuple(map(add, repeat(midnight), map(_TIME_OF_DAY.__getitem__, keys)))
        except KeyError:
            # One of them is no time of day.
            pass
        except OverflowError:
            raise DecodeError("the profile's times run beyond the calendar") from None
    times_of_day = map(bytes, zip(hours, minutes, seconds, hundredths, strict=True))
    return tuple(
        [
            moment_of(date + time + zone + bytes((status,)), default_deviation)
            for time, status in zip(times_of_day, statuses, strict=True)
        ]
    )


@lru_cache(maxsize=1024)
def _time_of(clock: bytes, default_deviation: int | None) -> datetime | None:
    return moment_of(clock, default_deviation)


def moment_of(clock: bytes, default_deviation: int | None) -> datetime | None:
    """The moment that a clock of 12 octets names, in UTC; None where it names none.

    Raises:
        DecodeError: it has no deviation, and no default is given; or lies beyond the calendar.
    """
    moment = CosemDateTime.from_bytes(clock)
    return moment.to_utc(default_deviation) if moment.is_moment else None


@lru_cache(maxsize=64)
def following(captured_at: datetime, period: timedelta, rows: int) -> tuple[datetime, ...]:
    """The next `rows` moments, one period after the other.

    Raises:
        DecodeError: they run beyond the calendar.
    """
    try:
        return tuple(accumulate(repeat(period, rows - 1), datetime.__add__, initial=captured_at + period))
    except OverflowError:
        raise DecodeError("the profile's times run beyond the calendar") from None


def locate_cells(row: Data, octets: bytes, *, described: bool) -> list[Cell]:
    """Where the cells of a row stand in its octets; `described`: in a compact-array, without tags."""
    reader = Reader(octets)
    if not described:
        reader.octet()
        reader.length()
    cells: list[Cell] = []
    for cell in row.items():
        if not described:
            reader.octet()
        if cell.type == DataType.OCTET_STRING:
            size = reader.length()
        else:
            size = struct.calcsize(">" + _FORMATS.get(cell.type, ""))
        cells.append(Cell(cell.type, reader.offset, reader.offset + size))
        reader.take(size)
    return cells
