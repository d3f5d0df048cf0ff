"""Meter by day: how much of the load profile is in the store, so that holes are seen at a glance.

An interval belongs to the day in which it ends, midnight's to the day before (IEC 62056-6-2: the capture
time of a row is the end of its interval). Days are those of the box's own time zone. What is expected is
what the collector asks for: the configured history, up to what a meter can have captured by now.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal

from concentrator.config import CollectionSection
from concentrator.web import queries

MOST_DAYS = 14
# The collector reads an hour more than the history, so that nothing on its edge is given up.
_EDGE_S = 3600
# For a meter that has not yet told its own.
USUAL_PERIOD_S = 900
# A count that took long is kept longer: counting may take this share of the time.
_SHARE = 0.05
_SHORTEST_KEEP_S = 2.0
# A day this far back changes only when a gap is filled late.
_OLD_DAY_KEEP_S = 60.0

CellKind = Literal["full", "closed", "part", "none", "open"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One meter on one day. `closed` intervals will never come, each with a reason in the store."""

    expected: int
    stored: int
    closed: int

    @property
    def missing(self) -> int:
        """What is still to be read."""
        return max(0, self.expected - self.stored - self.closed)

    @property
    def kind(self) -> CellKind:
        """How it is drawn. "open": nothing can be expected of that day yet."""
        if self.expected == 0:
            return "open"
        if self.missing == 0:
            return "closed" if self.closed else "full"
        return "part" if self.stored + self.closed else "none"


@dataclass(frozen=True, slots=True)
class Row:
    """One meter, or all together."""

    meter: str
    cells: tuple[Cell, ...]

    @property
    def missing(self) -> int:
        """What is still to be read, over all days."""
        return sum(cell.missing for cell in self.cells)

    @property
    def closed(self) -> int:
        """What will never come, over all days."""
        return sum(cell.closed for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Days, oldest first, and a row for each meter that has the profile, those with holes first.

    `usual` is how much is expected of each day of a meter that captures as most do.
    """

    days: tuple[date, ...]
    total: Row
    rows: tuple[Row, ...]
    usual: tuple[int, ...]

    @property
    def complete(self) -> int:
        """Meters without a hole."""
        return sum(row.missing == 0 for row in self.rows)

    def with_unread(self, meters: Iterable[str]) -> Matrix:
        """The same with these meters, of which the store knows nothing."""
        unread = unread_rows(self.rows, self.usual, meters)
        total = tuple(
            Cell(cell.expected + len(unread) * expected, cell.stored, cell.closed)
            for cell, expected in zip(self.total.cells, self.usual, strict=True)
        )
        return replace(self, total=Row("", total), rows=holes_first((*self.rows, *unread)))


@dataclass(frozen=True, slots=True)
class _Day:
    counts: dict[str, tuple[int, int]]
    closed: list[tuple[str, int, int]]


def day_edges(now: datetime, days: int) -> list[tuple[date, int, int]]:
    """The last days of the zone that `now` is in, oldest first: each with its begin and its end, in epoch seconds."""
    today = now.date()
    result: list[tuple[date, int, int]] = []
    for back in range(days - 1, -1, -1):
        day = today - timedelta(days=back)
        begin, end = (
            round(datetime(one.year, one.month, one.day).astimezone().timestamp())  # noqa: DTZ001 - the box's zone is meant
            for one in (day, day + timedelta(days=1))
        )
        result.append((day, begin, end))
    return result


class Completeness:
    """Counts, and remembers what it counted: lives on the store reader's thread."""

    def __init__(self, settings: CollectionSection) -> None:
        self._settings = settings
        self._days: dict[tuple[int, int], tuple[float, _Day]] = {}
        self._matrix: Matrix | None = None
        self._kept_until = 0.0

    def matrix(self, connection: sqlite3.Connection, now: datetime) -> Matrix:
        """The matrix for the configured history up to `now` (aware, in the box's zone)."""
        began = time.monotonic()
        if self._matrix is not None and began < self._kept_until and self._matrix.days[-1] == now.date():
            return self._matrix
        matrix = self._count(connection, now)
        took_s = time.monotonic() - began
        self._matrix = matrix
        self._kept_until = began + max(_SHORTEST_KEEP_S, took_s / _SHARE)
        return matrix

    def _count(self, connection: sqlite3.Connection, now: datetime) -> Matrix:
        settings = self._settings
        begin = int(now.timestamp()) - settings.history_days * 86_400 - _EDGE_S
        end = int(now.timestamp()) - settings.answer_delay_s
        edges = day_edges(now, max(1, min(MOST_DAYS, settings.history_days + 1)))
        dates = [day for day, _begin, _end in edges]
        # A day that the history begins in is counted from there; in steps, so that the count can be kept.
        since = (begin - 1) // USUAL_PERIOD_S * USUAL_PERIOD_S
        days = [
            self._day(connection, (max(day_begin, since), day_end), recent=day in dates[-2:])
            for day, day_begin, day_end in edges
        ]
        periods = {meter: period_s for day in days for meter, (_count, period_s) in day.counts.items()}
        usual = statistics.mode([period for period in periods.values() if period] or [USUAL_PERIOD_S])
        cells: dict[str, list[Cell]] = {meter: [] for meter in periods}
        for (_date, day_begin, day_end), day in zip(edges, days, strict=True):
            first, last = max(day_begin + 1, begin), min(day_end, end)
            closed = closed_by_meter(day.closed, first, last)
            for meter, period_s in periods.items():
                stored, _period_s = day.counts.get(meter, (0, 0))
                expected = multiples(first, last, period_s or usual)
                given_up = sum(
                    multiples(start, stop, period_s or usual) for start, stop in closed.get(meter, [])
                )
                lacking = max(0, expected - stored)
                cells[meter].append(Cell(expected, min(stored, expected), min(given_up, lacking)))
        rows = [Row(meter, tuple(row)) for meter, row in cells.items()]
        total = tuple(
            Cell(
                sum(row.cells[number].expected for row in rows),
                sum(row.cells[number].stored for row in rows),
                sum(row.cells[number].closed for row in rows),
            )
            for number in range(len(edges))
        )
        expected = (
            multiples(max(day_begin + 1, begin), min(day_end, end), usual)
            for _day, day_begin, day_end in edges
        )
        return Matrix(tuple(dates), Row("", total), holes_first(rows), tuple(expected))

    def _day(self, connection: sqlite3.Connection, edges: tuple[int, int], *, recent: bool) -> _Day:
        now = time.monotonic()
        kept = self._days.get(edges)
        if kept is not None and not recent and now - kept[0] < _OLD_DAY_KEEP_S and _is_full(kept[1]):
            return kept[1]
        profile = self._settings.profile
        day = _Day(
            queries.stored_counts(connection, profile, edges),
            queries.closed_spans(connection, profile, edges),
        )
        self._days[edges] = (now, day)
        if len(self._days) > 2 * MOST_DAYS:
            del self._days[min(self._days)]
        return day


def unread_rows(rows: Iterable[Row], usual: Sequence[int], meters: Iterable[str]) -> list[Row]:
    """A row for each of these meters that has none: all of it is missing."""
    known = {row.meter for row in rows}
    empty = tuple(Cell(expected, 0, 0) for expected in usual)
    return [Row(meter, empty) for meter in meters if meter not in known]


def holes_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows in the order in which they are shown."""
    return tuple(sorted(rows, key=lambda row: (-row.missing, row.meter)))


def _is_full(day: _Day) -> bool:
    """Whether every meter has all of a day of 24 hours: then it need not be counted again soon."""
    return bool(day.counts) and all(
        period_s > 0 and count >= 86_400 // period_s for count, period_s in day.counts.values()
    )


def multiples(first: int, last: int, period_s: int) -> int:
    """How many whole multiples of a period lie from `first` to `last`."""
    return max(0, last // period_s - (first - 1) // period_s)


def closed_by_meter(
    spans: list[tuple[str, int, int]], first: int, last: int
) -> dict[str, list[tuple[int, int]]]:
    """Closed gaps by meter, cut to a span of time."""
    result: dict[str, list[tuple[int, int]]] = {}
    for meter, begin, end in spans:
        result.setdefault(meter, []).append((max(begin, first), min(end, last)))
    return result
