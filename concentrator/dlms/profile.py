"""From the encoded buffer of a Profile generic object to rows with their time in UTC.

Most rows of a buffer have one shape: the same types in the same order. The shape of a row is learned
once; the rows that follow are checked for its tags, all at a stroke, and unpacked by one `struct`. Any
other row is decoded generically. Null-data and delta values are restored from the row before and the
capture period (Blue Book part 2, class Profile generic); what was restored is told apart from what was sent.
Decoding is a stream: blocks go in as they come, rows come out, and memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, TypeAlias, cast

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CaptureObject, is_clock, is_status
from concentrator.dlms.axdr import DELTA_TYPES, NULL, Data, DataType, Native, TypeDescription
from concentrator.dlms.errors import DecodeError, TruncatedError
from concentrator.dlms.profile_shape import CLOCK_OCTETS, RowShape, following, locate_cells, moment_of
from concentrator.dlms.reader import Reader

Cell: TypeAlias = "Native"

# Rows taken for one shape at a stroke: fewer at first, more while it holds.
_FIRST_RUN = 128
_LONGEST_RUN = 4096
# Shapes kept: rows of a compressed profile take turns between a few.
_SHAPES_KEPT = 6
# What is longer is no row, and waiting for its end would take the memory.
_LONGEST_ROW = 1 << 16


class RowOrigin(NamedTuple):
    """What is known of a row beside its content; many rows share one.

    `inferred_time`: its time follows from the row before. `nulls`: the positions in its values that came as null-data;
    what stands there was taken from the row before.
    """

    inferred_time: bool
    clock_status: int | None
    nulls: tuple[int, ...] = ()


class ProfileRow(NamedTuple):
    """One row. `captured_at` is UTC; None where no clock was sent and none can be inferred.

    `values` are the columns but clock and status, in their order; None where the meter sent none and none
    may be inferred.
    """

    captured_at: datetime | None
    status: int | None
    values: tuple[Cell, ...]
    origin: RowOrigin

    @property
    def inferred_time(self) -> bool:
        """Whether `captured_at` was not sent, but follows from the row before."""
        return self.origin.inferred_time

    @property
    def clock_status(self) -> int | None:
        """The status that the meter's clock had."""
        return self.origin.clock_status

    @property
    def nulls(self) -> tuple[int, ...]:
        """The positions in `values` that came as null-data and were taken from the row before."""
        return self.origin.nulls


_new_row = cast(
    "Callable[[type[ProfileRow], tuple[object, ...]], ProfileRow]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType]
)


# Meters of one model lay out their rows alike: what was learned from one serves the next.
@lru_cache(maxsize=64)
def _known_shapes(columns: tuple[CaptureObject, ...], description: TypeDescription | None) -> list[RowShape]:
    """The shapes that rows of these columns were found to have, the last one first; of a compact-array by its type."""
    del columns, description
    return []


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
        # Of an array the rows that are still to come, of a compact-array the octets.
        self._left: int | None = None
        self._description: TypeDescription | None = None
        self._before: ProfileRow | None = None
        # What was sent last in each column: the base of deltas, also where it may not be shown any more.
        self._sent: tuple[Cell, ...] = ()
        self._sent_clock: int | None = None
        self._run = _FIRST_RUN
        self._shapes = _known_shapes(self.columns, None)

    def receive_data(self, data: bytes) -> None:
        """Take the next octets of the buffer."""
        self._buffer = self._buffer[self._offset :] + data
        self._offset = 0

    def rows(self) -> Iterator[ProfileRow]:
        """The rows that are complete by now.

        Raises:
            DecodeError: this is no buffer.
        """
        while rows := self.next_rows():
            yield from rows

    def next_rows(self) -> list[ProfileRow]:
        """Some of the rows that are complete by now; none when there are no more.

        Raises:
            DecodeError: this is no buffer.
        """
        found = self._next()
        if found is None:
            return []
        return [self._restored(found)] if isinstance(found, Data) else self._unpacked(*found)

    def next_raw_rows(self) -> Iterable[tuple[Cell, ...]] | None:
        """As `next_rows`, the cells as they were sent; for a decoder without clock and status. None at the end."""
        found = self._next()
        if found is None:
            return None
        if isinstance(found, Data):
            return (tuple([cell.native for cell in found.items()]),)
        shape, octets = found
        return shape.values(octets, None)

    def finish(self) -> None:
        """Check that the buffer ended where it said that it would.

        Raises:
            DecodeError: rows are missing, or octets follow the last one.
        """
        if self._left != 0:
            unit = "rows" if self._description is None else "octets"
            missing = "its beginning is" if self._left is None else f"{self._left} {unit} are"
            raise DecodeError(f"the profile ends early: {missing} missing")
        if self._offset != len(self._buffer):
            raise DecodeError(f"{len(self._buffer) - self._offset} octets follow the last row of the profile")

    def _next(self) -> Data | tuple[RowShape, bytes] | None:
        """The octets of the next rows of a known shape, or else the next row."""
        try:
            if self._left is None:
                self._open()
            if not self._left:
                return None
            return self._next_run() or self._next_row()
        except TruncatedError:
            if len(self._buffer) - self._offset > _LONGEST_ROW:
                raise DecodeError(
                    f"a row of the profile has more than {_LONGEST_ROW} octets, or is none"
                ) from None
            return None

    def _open(self) -> None:
        reader = Reader(self._buffer, self._offset)
        tag = reader.octet()
        if tag == DataType.NULL_DATA:
            self._left = 0
        elif tag == DataType.ARRAY:
            self._left = reader.length()
        elif tag == DataType.COMPACT_ARRAY:
            description = axdr.read_description(reader)
            self._left = reader.length()
            self._description = description
            self._shapes = _known_shapes(self.columns, description)
        else:
            raise DecodeError(f"a profile buffer is an array, got data type tag {tag}")
        self._offset = reader.offset

    def _took(self, octets: int, rows: int) -> None:
        self._offset += octets
        self._left = (self._left or 0) - (rows if self._description is None else octets)

    def _next_run(self) -> tuple[RowShape, bytes] | None:
        left = self._left or 0
        for shape in self._shapes:
            here = (len(self._buffer) - self._offset) // shape.stride
            wanted = min(here, self._run, left if self._description is None else left // shape.stride)
            rows = shape.matching(self._buffer, self._offset, wanted) if wanted else 0
            if rows:
                self._run = min(self._run * 4, _LONGEST_RUN) if rows == wanted else _FIRST_RUN
                octets = self._buffer[self._offset : self._offset + rows * shape.stride]
                self._took(len(octets), rows)
                return shape, octets
        self._run = _FIRST_RUN
        return None

    def _next_row(self) -> Data:
        start = self._offset
        if self._description is None:
            row, end = axdr.decode_from(self._buffer, start)
        else:
            stop = start + (self._left or 0)
            try:
                row, end = axdr.decode_described(self._buffer, start, self._description)
            except TruncatedError:
                if stop > len(self._buffer):
                    raise
                row, end = NULL, stop + 1
            if end > stop:
                raise DecodeError("the contents of a compact-array end within an element")
            if end == start:
                raise DecodeError("the elements of a compact-array take no octets")
        if end - start > _LONGEST_ROW:
            raise DecodeError(f"a row of the profile has more than {_LONGEST_ROW} octets")
        octets = self._buffer[start:end]
        self._took(end - start, 1)
        if self._can_be_learned(row):
            cells = locate_cells(row, octets, described=self._description is not None)
            shape = RowShape(octets, cells, self.clock_column, self.status_column)
            self._shapes.insert(0, shape)
            del self._shapes[_SHAPES_KEPT:]
        return row

    def _can_be_learned(self, row: Data) -> bool:
        """Whether the rows that follow may be unpacked as this one: it is complete, and all of fixed types."""
        if row.type != DataType.STRUCTURE:
            return False
        cells = row.items()
        if len(cells) != len(self.columns):
            return False
        sent_status = self.status_column >= 0 and not cells[self.status_column].is_null
        for number, cell in enumerate(cells):
            if cell.is_null:
                # Beside a status that may change from row to row, null-data needs a look at each row.
                if sent_status and number != self.clock_column:
                    return False
            elif number == self.clock_column:
                if cell.type not in (DataType.OCTET_STRING, DataType.DATE_TIME):
                    return False
                if len(cell.octets()) != CLOCK_OCTETS:
                    return False
            elif not RowShape.can_hold(cell):
                return False
        return True

    def _unpacked(self, shape: RowShape, octets: bytes) -> list[ProfileRow]:
        """The rows of one shape."""
        before = self._before
        rows = len(octets) // shape.stride
        times: Iterable[datetime | None] = repeat(None, rows)
        origins: Iterable[RowOrigin] = repeat(RowOrigin(False, None, shape.nulls))
        if shape.has_clock:
            times = shape.times(octets, self._default_deviation)
            seen = shape.clock_statuses(octets)
            known = {status: RowOrigin(False, status, shape.nulls) for status in set(seen)}
            origins = repeat(known[seen[0]]) if len(known) == 1 else map(known.__getitem__, seen)
        elif self.clock_column >= 0 and self._period and before and before.captured_at:
            times = following(before.captured_at, self._period, rows)
            origins = repeat(RowOrigin(True, before.clock_status, shape.nulls))
        statuses = shape.statuses(octets)
        if statuses is None:
            statuses = repeat(before.status if before else None)
        values = shape.values(octets, before.values if before else None)
        fields = zip(times, statuses, values, origins)  # noqa: B905 - some of them repeat for ever
        # What `ProfileRow._make` does, without a step of Python for each row.
        found = list(map(_new_row, repeat(ProfileRow), fields))
        self._before = last = found[-1]
        self._sent = tuple(
            [
                self._sent[i] if i in shape.nulls and i < len(self._sent) else value
                for i, value in enumerate(last.values)
            ]
        )
        return found

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
        sent: list[Cell] = []
        nulls: list[int] = []
        for number, cell in enumerate(cells):
            if number in (self.clock_column, self.status_column):
                continue
            position = len(values)
            old = before.values[position] if before is not None and len(before.values) > position else None
            base = self._sent[position] if len(self._sent) > position else None
            if cell is None or cell.is_null:
                nulls.append(position)
                sent.append(base)
                # Across a change of status "as before" would hide a power failure or a set clock.
                values.append(None if changed or cell is None else old)
            else:
                sent.append(_added(cell, base) if cell.type in DELTA_TYPES else cell.native)
                values.append(sent[-1])
        origin = RowOrigin(inferred, clock_status, tuple(nulls))
        restored = ProfileRow(captured_at, status, tuple(values), origin)
        self._before, self._sent = restored, tuple(sent)
        return restored

    def _status(self, cell: Data) -> int:
        if cell.type in DELTA_TYPES:
            return _added(cell, self._before.status if self._before else None)
        if cell.type == DataType.BIT_STRING and isinstance(cell.value, str):
            return int(cell.value or "0", 2)
        if isinstance(cell.value, bytes):
            return int.from_bytes(cell.value, "big")
        return int(cell.integer())

    def _time(self, cell: Data | None) -> tuple[datetime | None, int | None, bool]:
        before = self._before
        if cell is None or cell.is_null:
            if before is None or before.captured_at is None or not self._period:
                return None, None, False
            return following(before.captured_at, self._period, 1)[0], before.clock_status, True
        if isinstance(cell.value, int):
            # Some meters capture UNIX time.
            seconds = _added(cell, self._sent_clock) if cell.type in DELTA_TYPES else cell.value
            self._sent_clock = seconds
            try:
                return datetime.fromtimestamp(seconds, UTC), None, False
            except (ValueError, OverflowError, OSError):
                raise DecodeError(f"a row's clock is {seconds}, which is no time") from None
        octets = cell.octets()
        return (
            moment_of(octets, self._default_deviation),
            octets[-1] if len(octets) == CLOCK_OCTETS else None,
            False,
        )


def _added(delta: Data, base: Cell) -> int:
    """A delta value and what it is added to."""
    if not isinstance(base, int):
        raise DecodeError("a delta value follows no value")
    return base + delta.integer()


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
    rows: list[ProfileRow] = []
    while more := decoder.next_rows():
        rows += more
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
    rows: list[tuple[Cell, ...]] = []
    while (more := decoder.next_raw_rows()) is not None:
        rows += more
    decoder.finish()
    return rows


def capture_objects(data: Data) -> tuple[CaptureObject, ...]:
    """The columns of a profile, from its attribute 3.

    Raises:
        DecodeError: it is no array of capture objects.
    """
    return tuple([CaptureObject.from_data(element) for element in data.items()])
