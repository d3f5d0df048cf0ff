"""Meter by hour of today: where in the day the holes are, counted as the days are (completeness.py)."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from concentrator.config import CollectionSection
from concentrator.web.completeness import (
    USUAL_PERIOD_S,
    Cell,
    Row,
    closed_by_meter,
    day_edges,
    holes_first,
    multiples,
    unread_rows,
)
from concentrator.web.queries import closed_spans

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class HourMatrix:
    """The hours of today that have begun, oldest first, by when each begins; and a row for each meter, holes first.

    `usual` is how much is expected of each hour of a meter that captures as most do.
    """

    begins: tuple[int, ...]
    rows: tuple[Row, ...]
    usual: tuple[int, ...]

    @property
    def complete(self) -> int:
        """Meters without a hole."""
        return sum(row.missing == 0 for row in self.rows)

    def with_unread(self, meters: Iterable[str]) -> HourMatrix:
        """The same with these meters, of which the store knows nothing."""
        return replace(self, rows=holes_first((*self.rows, *unread_rows(self.rows, self.usual, meters))))


def hour_matrix(connection: sqlite3.Connection, settings: CollectionSection, now: datetime) -> HourMatrix:
    """Count today up to `now` (aware, in the box's zone)."""
    ((_today, begin, end),) = day_edges(now, 1)
    due = min(end, int(now.timestamp()) - settings.answer_delay_s)
    begins = tuple(range(begin, max(begin + 1, min(end, int(now.timestamp()) + 1)), _HOUR_S))
    rows = connection.execute(
        "SELECT identity, COALESCE(period_s, 0), (captured_at - ?1 - 1) / 3600, COUNT(captured_at)"
        " FROM meter LEFT JOIN channel ON channel.meter_id = meter.meter_id AND profile = ?3 AND obis ="
        " (SELECT obis FROM channel AS one WHERE one.meter_id = meter.meter_id AND one.profile = ?3"
        "  ORDER BY channel_id LIMIT 1)"
        " LEFT JOIN reading ON reading.channel_id = channel.channel_id"
        "  AND captured_at > ?1 AND captured_at <= ?2"
        " WHERE link = 'plc' GROUP BY 1, 3",
        (begin, end, settings.profile),
    ).fetchall()
    periods: dict[str, int] = {}
    counts: dict[tuple[str, int], int] = {}
    for meter, period_s, hour, count in rows:
        periods[meter] = max(periods.get(meter, 0), period_s)
        if hour is not None:
            counts[meter, hour] = count
    usual = statistics.mode([period for period in periods.values() if period] or [USUAL_PERIOD_S])
    closed = closed_by_meter(closed_spans(connection, settings.profile, (begin, end)), begin + 1, end)
    found: list[Row] = []
    for meter, told_period_s in periods.items():
        period_s = told_period_s or usual
        cells: list[Cell] = []
        for number, first in enumerate(begins):
            last = min(first + _HOUR_S, due)
            expected = multiples(first + 1, last, period_s)
            stored = min(expected, counts.get((meter, number), 0))
            given_up = sum(
                multiples(max(start, first + 1), min(stop, last), period_s)
                for start, stop in closed.get(meter, ())
            )
            cells.append(Cell(expected, stored, min(given_up, expected - stored)))
        found.append(Row(meter, tuple(cells)))
    expected_of_most = tuple(multiples(first + 1, min(first + _HOUR_S, due), usual) for first in begins)
    return HourMatrix(begins, holes_first(found), expected_of_most)
