"""What follows from the records of a telegram by a meter's own rules: sums, and the dates of its history."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from concentrator.wmbus.record import Record
from concentrator.wmbus.values import MeterTime


@dataclass(frozen=True, slots=True)
class Sum:
    """One value that is the sum of records with the headers `of`, all of one unit and scaler."""

    quantity: str
    qualifiers: tuple[str, ...]
    of: tuple[bytes, ...]

    def derive(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The sum, if every part was sent."""
        by_header = {record.header.octets: record for record in records}
        parts = [by_header[octets] for octets in self.of if octets in by_header]
        numbers = [part.value for part in parts if isinstance(part.value, int)]
        if len(numbers) < len(self.of) or len({(part.unit, part.scaler) for part in parts}) != 1:
            return ()
        header = replace(
            parts[0].header, octets=b"", quantity=self.quantity, qualifiers=self.qualifiers, tariff=0
        )
        return (Record(header, sum(numbers), parts[0].scaler, True, b""),)


@dataclass(frozen=True, slots=True)
class DateSeries:
    """The dates of a history that are not sent: those of `first` and the storages after it, month by month.

    They are counted from the date record of storage `base_storage` (`date_time` there for a meter that
    counts from its clock); storage `first` is `first_months` from it, each further one `months` more. Only
    storages that hold a value and no date get one, as valid as the date that they are counted from.
    """

    quantity: str
    base_storage: int
    first: int
    last: int
    first_months: int
    months: int

    def derive(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """The date records."""
        base = next((one for one in records if self._is_base(one)), None)
        start = base.value.to_datetime() if base is not None and isinstance(base.value, MeterTime) else None
        if base is None or start is None:
            return ()
        dated = {one.storage for one in records if one.quantity in ("date", "date_time")}
        storages = sorted({one.storage for one in records if self.first <= one.storage <= self.last} - dated)
        found: list[Record] = []
        for storage in storages:
            moved = months_on(start, self.first_months + self.months * (storage - self.first))
            if moved is not None:
                header = replace(base.header, octets=b"", storage=storage, quantity="date")
                found.append(
                    Record(header, MeterTime(moved.year, moved.month, moved.day), 0, base.valid, b"")
                )
        return tuple(found)

    def _is_base(self, record: Record) -> bool:
        return record.quantity == self.quantity and record.storage == self.base_storage


def months_on(start: datetime, months: int) -> datetime | None:
    """The same day of another month; the last day of a month stays the last one; None beyond the calendar."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not 1 <= year <= 9999:  # noqa: PLR2004 - the calendar's limits
        return None
    last = calendar.monthrange(year, month + 1)[1]
    was_last = start.day == calendar.monthrange(start.year, start.month)[1]
    return start.replace(year=year, month=month + 1, day=last if was_last else min(start.day, last))


def sum_from_table(table: dict[str, Any]) -> Sum:
    """A sum out of its TOML table."""
    return Sum(
        table["quantity"],
        tuple(table.get("qualifiers", ())),
        tuple(bytes.fromhex(one) for one in table["of"]),
    )


def series_from_table(table: dict[str, Any]) -> DateSeries:
    """A series of dates out of its TOML table."""
    return DateSeries(
        quantity=table.get("quantity", "date"),
        base_storage=table["base_storage"],
        first=table["first"],
        last=table["last"],
        first_months=table["first_months"],
        months=table["months"],
    )
