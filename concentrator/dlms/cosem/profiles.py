"""The buffer of a Profile generic object, served without being held: rows are made as they leave.

Selective access by range and by entry, columns picked, and repeated cells sent as null-data where the
device compresses (Blue Book part 2, class Profile generic).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from concentrator.dlms import axdr
from concentrator.dlms.attributes import (
    ENTRY_SELECTOR,
    RANGE_SELECTOR,
    CaptureObject,
    EntryDescriptor,
    RangeBound,
    RangeDescriptor,
    Selection,
    is_status,
)
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject, capture_objects, refused
from concentrator.dlms.cosem_time import NOT_SPECIFIED, YEAR_NOT_SPECIFIED, CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import encode_length
from concentrator.obis import Obis

SORT_FIFO = 1
_NULL = b"\x00"


class ProfileRows(Protocol):
    """Where the rows of a profile come from. Entries are numbered by the device, rising with time."""

    columns: Sequence[CaptureObject]
    period_s: int

    def entries(self) -> Sequence[int]:
        """All entries in the buffer now, oldest first."""
        ...

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        """The entries captured from `start` to `end`, both included; None is open."""
        ...

    def cells(self, entry: int) -> Sequence[bytes]:
        """The encoded cells of one row, in the order of `columns`."""
        ...


class ProfileBuffer:
    """Attribute 2 of a profile, read from its rows.

    With `compressed` a cell that repeats the row before is null-data, as is the clock of a row that is one
    capture period later; but for rows whose status changed. `default_deviation` (minutes) serves range
    bounds that leave theirs open.
    """

    def __init__(self, rows: ProfileRows, *, compressed: bool = False, default_deviation: int = 0) -> None:
        self._rows = rows
        self._compressed = compressed
        self._default_deviation = default_deviation

    def read(self, selection: Selection | None) -> Iterator[bytes]:
        """The encoded buffer, or the part selected. Raises AccessError and DecodeError."""
        entries, columns = self._chosen(selection)
        return self._encoded(entries, columns)

    def _chosen(self, selection: Selection | None) -> tuple[Sequence[int], list[int]]:
        everything = list(range(len(self._rows.columns)))
        if selection is None:
            return self._rows.entries(), everything
        if selection.selector == RANGE_SELECTOR:
            return self._by_range(RangeDescriptor.from_selection(selection), everything)
        if selection.selector == ENTRY_SELECTOR:
            wanted = EntryDescriptor.from_selection(selection)
            entries = self._rows.entries()
            if wanted.from_entry < 1 or wanted.from_selected_value < 1:
                raise refused(DataAccessResult.TYPE_UNMATCHED)
            last = wanted.to_entry or len(entries)
            last_column = wanted.to_selected_value or len(everything)
            return entries[wanted.from_entry - 1 : last], everything[
                wanted.from_selected_value - 1 : last_column
            ]
        raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)

    def _by_range(self, wanted: RangeDescriptor, everything: list[int]) -> tuple[Sequence[int], list[int]]:
        restricting = wanted.restricting_object
        if (restricting.class_id, restricting.attribute) != (8, 2):
            raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)
        columns = everything
        if wanted.columns:
            known = [column[:3] for column in self._rows.columns]
            try:
                columns = [known.index(column[:3]) for column in wanted.columns]
            except ValueError:
                raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED) from None
        return self._rows.between(self._moment(wanted.start), self._moment(wanted.end)), columns

    def _moment(self, bound: RangeBound) -> datetime | None:
        if not isinstance(bound, CosemDateTime):
            raise DecodeError("the clock is compared with a date-time")
        if bound.year == YEAR_NOT_SPECIFIED:
            return None
        if bound.hour == NOT_SPECIFIED:
            bound = bound._replace(hour=0, minute=0, second=0)
        return bound.to_utc(self._default_deviation)

    def _encoded(self, entries: Sequence[int], columns: list[int]) -> Iterator[bytes]:
        yield b"\x01" + encode_length(len(entries))
        head = b"\x02" + encode_length(len(columns))
        whole = columns == list(range(len(self._rows.columns)))
        clock = next((i for i, c in enumerate(self._rows.columns) if (c.class_id, c.attribute) == (8, 2)), -1)
        status = next((i for i, c in enumerate(self._rows.columns) if is_status(c)), clock)
        before: Sequence[bytes] = ()
        last_entry: int | None = None
        for entry in entries:
            cells = self._rows.cells(entry)
            # A reader may not infer across a change of status, so nothing is left out there.
            if self._compressed and before and cells[status] == before[status]:
                follows = self._rows.period_s and last_entry == entry - 1
                sent = [
                    _NULL if cell == old or (number == clock and follows) else cell
                    for number, (cell, old) in enumerate(zip(cells, before, strict=True))
                ]
            else:
                sent = cells
            before, last_entry = cells, entry
            yield head + b"".join(sent if whole else [sent[column] for column in columns])


def profile_object(
    obis: Obis, rows: ProfileRows, *, capacity: int, compressed: bool = False, default_deviation: int = 0
) -> CosemObject:
    """A Profile generic object over these rows."""
    clock = next((c for c in rows.columns if (c.class_id, c.attribute) == (8, 2)), rows.columns[0])
    return CosemObject(
        7,
        obis,
        {
            2: ProfileBuffer(rows, compressed=compressed, default_deviation=default_deviation),
            3: capture_objects(rows.columns),
            4: axdr.double_long_unsigned(rows.period_s),
            5: axdr.enumeration(SORT_FIFO),
            6: clock.to_data(),
            7: lambda: axdr.double_long_unsigned(len(rows.entries())),
            8: axdr.double_long_unsigned(capacity),
        },
        version=1,
    )
