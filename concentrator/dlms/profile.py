"""From the encoded buffer of a Profile generic object to rows with their time in UTC.

Most rows of a buffer have one shape: the same types in the same order. The shape of a row is learned
once; the rows that follow are checked for its tags, all at a stroke, and unpacked by one `struct`. Any
other row is decoded generically. Null-data and delta values are restored from the row before and the
capture period (Blue Book part 2, class Profile generic); what was restored is told apart from what was sent.
Decoding is a stream: blocks go in as they come, rows come out, and memory stays flat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CaptureObject, is_clock, is_status
from concentrator.dlms.axdr import DELTA_TYPES, FIXED_FORMATS, CompactArray, Data, DataType, Native
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, CosemDateTime
from concentrator.dlms.errors import DecodeError, TruncatedError
from concentrator.dlms.reader import Reader

Cell: TypeAlias = "Native"

_CLOCK_FORMAT = "IxHBxhB"
_CLOCK_FIELDS = 5
# Rows checked for one shape at a stroke: few at first, more while it holds.
_FIRST_RUN = 16
_LONGEST_RUN = 4096
_MINUTES: list[timedelta | None] = [
    timedelta(hours=index >> 8, minutes=index & 0xFF) if index >> 8 < 24 and index & 0xFF < 60 else None
    for index in range(24 * 256)
]
_SECONDS = [timedelta(seconds=second) for second in range(60)]
_NO_SECONDS = (0, 0xFF)
_MINUTE_LIMIT = len(_MINUTES)
# Shapes kept: rows of a compressed profile take turns between a few.
_SHAPES_KEPT = 6


class ProfileRow(NamedTuple):
    """One row. `captured_at` is UTC; None where no clock was sent and none can be inferred.

    `values` are the columns but clock and status, in their order; None where the meter sent none and none
    may be inferred. `nulls` are the positions in `values` that came as null-data: what stands there now
    was taken from the row before. `inferred_time` says that `captured_at` follows from the row before.
    """

    captured_at: datetime | None
    status: int | None
    values: tuple[Cell, ...]
    inferred_time: bool
    clock_status: int | None
    nulls: tuple[int, ...] = ()


class _Shape:
    """The learned layout of a row: where its tags are, and how to unpack what lies between."""

    __slots__ = ("checks", "clock", "layout", "nulls", "pick", "single", "status", "stride")

    def __init__(self, row: Data, octets: bytes, decoder: ProfileDecoder) -> None:
        reader = Reader(octets, 1)
        reader.length()
        self.checks = [(i, octets[i : i + 1]) for i in range(reader.offset)]
        layout = f"{reader.offset}x"
        self.clock = self.status = -1
        fields: list[int | None] = []
        position = 0
        offset = reader.offset
        for number, cell in enumerate(row.items()):
            end = axdr.skip(octets, offset)
            header = 1
            if cell.is_null:
                self.checks.append((offset, b"\x00"))
                layout += "x"
                if number not in (decoder.clock_column, decoder.status_column):
                    fields.append(None)
                offset = end
                continue
            if cell.type == DataType.OCTET_STRING:
                header = end - offset - len(cell.octets())
            self.checks += [(offset + i, octets[offset + i : offset + i + 1]) for i in range(header)]
            size = end - offset - header
            layout += f"{header}x"
            if number == decoder.clock_column:
                self.clock = position
                layout += _CLOCK_FORMAT
                position += _CLOCK_FIELDS
            else:
                code = FIXED_FORMATS.get(cell.type)
                layout += code if code is not None else f"{size}s"
                if number == decoder.status_column:
                    self.status = position
                else:
                    fields.append(position)
                position += 1
            offset = end
        self.stride = offset
        self.layout = struct.Struct(">" + layout)
        self.single = len(fields) == 1
        self.nulls = tuple(i for i, field in enumerate(fields) if field is None)
        # What a row leaves out is taken from behind its own fields, where `_unpacked` puts it.
        places = iter(range(position, position + len(self.nulls)))
        picked = [next(places) if field is None else field for field in fields]
        self.pick = itemgetter(*picked) if picked else itemgetter(slice(0, 0))

    def matching(self, data: bytes, start: int, rows: int) -> int:
        """How many of the next `rows` rows have this shape."""
        stride = self.stride
        for offset, octet in self.checks:
            end = start + rows * stride
            column = data[start + offset : end : stride]
            if column.count(octet) != rows:
                rows = len(column) - len(column.lstrip(octet))
                if rows == 0:
                    return 0
        return rows


class ProfileDecoder:
    """Decodes one buffer. `receive_data` takes its octets in any pieces, `rows` gives what is complete.

    `columns` are the capture objects that the reply has, in their order; `period_s` the capture period (0:
    rows are not periodic). `default_deviation`, in minutes, serves clocks that leave theirs open. With
    `descending` each row is one period earlier than the one before.
    """

    def __init__(
        self,
        columns: Sequence[CaptureObject],
        period_s: int,
        *,
        default_deviation: int | None = None,
        descending: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self.clock_column = next((i for i, column in enumerate(columns) if is_clock(column)), -1)
        self.status_column = next((i for i, column in enumerate(columns) if is_status(column)), -1)
        self.value_columns = tuple(
            column for i, column in enumerate(columns) if i not in (self.clock_column, self.status_column)
        )
        self._period = timedelta(seconds=-period_s if descending else period_s)
        self._default_deviation = default_deviation
        self._buffer = b""
        self._offset = 0
        self._rows_left: int | None = None
        self._compact = False
        self._before: ProfileRow | None = None
        self._run = _FIRST_RUN
        self._shapes: list[_Shape] = []
        self._day = (-1, -1)
        self._midnight = datetime(1970, 1, 1, tzinfo=UTC)

    def receive_data(self, data: bytes) -> None:
        """Take the next octets of the buffer."""
        self._buffer = self._buffer[self._offset :] + data
        self._offset = 0

    def rows(self) -> Iterator[ProfileRow]:
        """The rows that are complete by now.

        Raises:
            DecodeError: this is no buffer.
        """
        try:
            if self._rows_left is None:
                self._open()
            if self._compact:
                yield from self._compact_rows()
                return
            while self._rows_left:
                yield from self._fast_rows()
                if self._rows_left:
                    yield self._generic_row()
        except TruncatedError:
            return

    def finish(self) -> None:
        """Check that the buffer ended where it said that it would.

        Raises:
            DecodeError: rows are missing, or octets follow the last one.
        """
        if self._rows_left != 0:
            raise DecodeError(f"the profile ends early: {self._rows_left} rows are missing")
        if self._offset != len(self._buffer):
            raise DecodeError(f"{len(self._buffer) - self._offset} octets follow the last row of the profile")

    def _open(self) -> None:
        reader = Reader(self._buffer, self._offset)
        tag = reader.octet()
        if tag == DataType.COMPACT_ARRAY:
            self._compact = True
            self._rows_left = -1
            return
        if tag == DataType.NULL_DATA:
            self._rows_left = 0
        elif tag == DataType.ARRAY:
            self._rows_left = reader.length()
        else:
            raise DecodeError(f"a profile buffer is an array, got data type tag {tag}")
        self._offset = reader.offset

    def _compact_rows(self) -> Iterator[ProfileRow]:
        if not self._rows_left:
            return
        value, self._offset = axdr.decode_from(self._buffer, self._offset)
        self._rows_left = 0
        if isinstance(value.value, CompactArray):
            for row in value.value.items:
                yield self._restored(row)

    def raw_rows(self) -> Iterator[tuple[Cell, ...]]:
        """The cells of the rows that are complete by now, as sent; for a decoder without clock and status."""
        try:
            if self._rows_left is None:
                self._open()
            if self._compact:
                value, self._offset = axdr.decode_from(self._buffer, self._offset)
                self._rows_left = 0
                yield from [tuple([cell.native for cell in row.items()]) for row in value.items()]
            while self._rows_left:
                for shape in self._shapes:
                    whole = min(
                        (len(self._buffer) - self._offset) // shape.stride, self._rows_left, self._run
                    )
                    rows = (
                        shape.matching(self._buffer, self._offset, whole) if whole and not shape.nulls else 0
                    )
                    if rows:
                        octets = memoryview(self._buffer)[self._offset : self._offset + rows * shape.stride]
                        self._offset += rows * shape.stride
                        self._rows_left -= rows
                        self._run = min(self._run * 4, _LONGEST_RUN)
                        yield from shape.layout.iter_unpack(octets)
                        break
                else:
                    self._run = _FIRST_RUN
                    row, end = axdr.decode_from(self._buffer, self._offset)
                    octets = self._buffer[self._offset : end]
                    self._offset = end
                    self._rows_left -= 1
                    shape = self._learn(row, bytes(octets))
                    if shape is not None:
                        self._shapes = [shape, *self._shapes[: _SHAPES_KEPT - 1]]
                    yield tuple([cell.native for cell in row.items()])
        except TruncatedError:
            return

    # Rows of the learned shape

    def _fast_rows(self) -> Iterator[ProfileRow]:
        while self._rows_left:
            for shape in self._shapes:
                whole = min((len(self._buffer) - self._offset) // shape.stride, self._rows_left, self._run)
                rows = shape.matching(self._buffer, self._offset, whole) if whole else 0
                if rows:
                    break
            else:
                self._run = _FIRST_RUN
                return
            start = self._offset
            self._offset += rows * shape.stride
            self._rows_left -= rows
            self._run = min(self._run * 4, _LONGEST_RUN) if rows == whole else _FIRST_RUN
            yield from self._unpacked(shape, memoryview(self._buffer)[start : self._offset])

    def _unpacked(self, shape: _Shape, octets: memoryview) -> Iterator[ProfileRow]:
        clock, status_at, pick, single = shape.clock, shape.status, shape.pick, shape.single
        minutes, seconds, no_seconds, period = _MINUTES, _SECONDS, _NO_SECONDS, self._period
        make, nulls = ProfileRow._make, shape.nulls
        before = self._before
        known_date, known_deviation = self._day
        midnight = self._midnight
        captured_at = before.captured_at if before else None
        clock_status = before.clock_status if before else None
        status = before.status if before else None
        inferred = clock < 0 <= self.clock_column and captured_at is not None and bool(period)
        if clock < 0 and not inferred:
            captured_at = clock_status = None
        # Within rows of one shape, what is left out stays what it was before them.
        left_out: tuple[Cell, ...] = (
            tuple([before.values[i] for i in nulls]) if before else (None,) * len(nulls)
        )
        row: ProfileRow | None = None
        try:
            for fields in shape.layout.iter_unpack(octets):
                if clock >= 0:
                    date, minute, second, deviation, clock_status = fields[clock : clock + _CLOCK_FIELDS]
                    if date != known_date or deviation != known_deviation:
                        midnight = self._midnight_of(date, deviation)
                        known_date, known_deviation = date, deviation
                    delta: timedelta | None = minutes[int(minute)] if minute < _MINUTE_LIMIT else None
                    if delta is None or (second >= 60 and second != 0xFF):
                        raise DecodeError(
                            f"a row's clock has the time {minute >> 8}:{minute & 0xFF}:{second}"
                        )
                    captured_at = midnight + delta
                    if second not in no_seconds:
                        captured_at += seconds[int(second)]
                elif inferred and captured_at is not None:
                    captured_at += period
                if nulls:
                    fields += left_out
                values: tuple[Cell, ...] = (pick(fields),) if single else pick(fields)
                if status_at >= 0:
                    status = fields[status_at]
                row = make((captured_at, status, values, inferred, clock_status, nulls))
                yield row
        except OverflowError:
            raise DecodeError("the profile's times run beyond the calendar") from None
        finally:
            self._day, self._midnight = (known_date, known_deviation), midnight
            if row is not None:
                self._before = row

    def _midnight_of(self, date: int, deviation: int) -> datetime:
        """UTC of the local midnight of a date: year, month and day as one number."""
        if deviation in (DEVIATION_NOT_SPECIFIED, -1):
            if self._default_deviation is None:
                raise DecodeError("the profile's clock has no deviation, and none is configured")
            deviation = self._default_deviation
        try:
            day = datetime(date >> 16, date >> 8 & 0xFF, date & 0xFF, tzinfo=UTC)
            return day + timedelta(minutes=deviation)
        except (ValueError, OverflowError):
            raise DecodeError(f"a row's clock has the date {date:08x}, which is none") from None

    # Any other row

    def _generic_row(self) -> ProfileRow:
        start = self._offset
        row, end = axdr.decode_from(self._buffer, start)
        octets = self._buffer[start:end]
        self._offset = end
        self._rows_left = (self._rows_left or 0) - 1
        restored = self._restored(row)
        shape = self._learn(row, octets)
        if shape is not None:
            self._shapes = [shape, *self._shapes[: _SHAPES_KEPT - 1]]
        return restored

    def _learn(self, row: Data, octets: bytes) -> _Shape | None:
        """The shape of a row, where it is complete and all of fixed types."""
        if row.type != DataType.STRUCTURE:
            return None
        cells = row.items()
        if len(cells) != len(self.columns):
            return None
        sent_status = self.status_column >= 0 and not cells[self.status_column].is_null
        for number, cell in enumerate(cells):
            if cell.is_null:
                # Beside a status that may change from row to row, null-data needs a look at each row.
                if sent_status and number != self.clock_column:
                    return None
            elif number == self.clock_column:
                if cell.type not in (DataType.OCTET_STRING, DataType.DATE_TIME) or len(cell.octets()) != 12:
                    return None
            elif cell.type in DELTA_TYPES or (
                cell.type not in FIXED_FORMATS and cell.type != DataType.OCTET_STRING
            ):
                return None
        return _Shape(row, octets, self)

    def _restored(self, row: Data) -> ProfileRow:
        """A row with its gaps filled from the row before, as far as that may be done."""
        before = self._before
        cells: list[Data | None] = list(row.items()[: len(self.columns)])
        cells += [None] * (len(self.columns) - len(cells))
        captured_at, clock_status, inferred = self._time(
            cells[self.clock_column] if self.clock_column >= 0 else None
        )
        status = before.status if before else None
        changed = False
        if self.status_column >= 0:
            cell = cells[self.status_column]
            if cell is not None and not cell.is_null:
                status = self._status(cell)
                changed = before is not None and status != before.status
        values: list[Cell] = []
        nulls: list[int] = []
        for number, cell in enumerate(cells):
            if number in (self.clock_column, self.status_column):
                continue
            position = len(values)
            old = before.values[position] if before is not None and len(before.values) > position else None
            if cell is None or cell.is_null:
                nulls.append(position)
                # Across a change of status "as before" would hide a power failure or a set clock.
                values.append(None if changed or cell is None else old)
            elif cell.type in DELTA_TYPES:
                if not isinstance(old, int):
                    raise DecodeError("a delta value follows no value")
                values.append(old + cell.integer())
            else:
                values.append(cell.native)
        restored = ProfileRow(captured_at, status, tuple(values), inferred, clock_status, tuple(nulls))
        self._before = restored
        return restored

    def _status(self, cell: Data) -> int:
        if cell.type == DataType.BIT_STRING and isinstance(cell.value, str):
            return int(cell.value or "0", 2)
        if isinstance(cell.value, bytes):
            return int.from_bytes(cell.value, "big")
        return cell.integer()

    def _time(self, cell: Data | None) -> tuple[datetime | None, int | None, bool]:
        before = self._before
        if cell is None or cell.is_null:
            if before is None or before.captured_at is None or not self._period:
                return None, None, False
            try:
                return before.captured_at + self._period, before.clock_status, True
            except OverflowError:
                raise DecodeError("the profile's times run beyond the calendar") from None
        if isinstance(cell.value, int):
            # Some meters capture UNIX time.
            try:
                return datetime.fromtimestamp(cell.value, UTC), None, False
            except (ValueError, OverflowError, OSError):
                raise DecodeError(f"a row's clock is {cell.value}, which is no time") from None
        clock = CosemDateTime.from_bytes(cell.octets())
        return clock.to_utc(self._default_deviation), clock.status, False


def decode_profile(
    encoded: bytes,
    columns: Sequence[CaptureObject],
    period_s: int,
    *,
    default_deviation: int | None = None,
    descending: bool = False,
) -> list[ProfileRow]:
    """Decode a whole buffer.

    Raises:
        DecodeError: it is none, or it is incomplete.
    """
    decoder = ProfileDecoder(columns, period_s, default_deviation=default_deviation, descending=descending)
    decoder.receive_data(encoded)
    rows = list(decoder.rows())
    decoder.finish()
    return rows


def decode_raw_rows(encoded: bytes, columns: Sequence[CaptureObject]) -> list[tuple[Cell, ...]]:
    """The cells of a whole buffer as they were sent: clocks as octets, null-data as None, nothing restored.

    Raises:
        DecodeError: it is no buffer, or it is incomplete.
    """
    # Taken for a profile without clock and status, a row is nothing but its cells.
    plain = [column._replace(class_id=0) for column in columns]
    decoder = ProfileDecoder(plain, 0)
    decoder.receive_data(encoded)
    rows = list(decoder.raw_rows())
    decoder.finish()
    return rows


def capture_objects(data: Data) -> tuple[CaptureObject, ...]:
    """The columns of a profile, from its attribute 3.

    Raises:
        DecodeError: it is no array of capture objects.
    """
    return tuple([CaptureObject.from_data(element) for element in data.items()])
