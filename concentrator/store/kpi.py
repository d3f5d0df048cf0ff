"""The figures of each day by which the work of a concentrator is judged: of the whole, and of each meter."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from concentrator.model import Quality

_ESTIMATED = int(Quality.ESTIMATED)
_COLUMNS = (
    "expected", "stored", "closed", "at_0800", "at_d1", "at_d3", "visits", "first_tries", "first_successes",
    "retries", "dialogue_s",
)  # fmt: skip


@dataclass(slots=True)
class MeterDay:
    """One meter on one day (UTC). Intervals are those of the load profile that end in it, midnight's included.

    `at_0800`, `at_d1` and `at_d3` are how many were stored by 08:00 of the next day, by its end, and by the end of the
    third day after. `first_tries` are visits that followed no failure, `retries` those that did; `dialogue_s` is how
    long the meter was spoken with.
    """

    meter: str
    expected: int = 0
    stored: int = 0
    closed: int = 0
    at_0800: int = 0
    at_d1: int = 0
    at_d3: int = 0
    visits: int = 0
    first_tries: int = 0
    first_successes: int = 0
    retries: int = 0
    dialogue_s: float = 0.0


def interval_counts(
    connection: sqlite3.Connection, profile: str, day: int
) -> dict[str, tuple[int, int, int]]:
    """Of each meter on PLC: intervals of a profile stored and closed for a day that begins then, and their period.

    The period is 0 for a meter that never delivered anything. Estimates do not count.
    """
    rows = connection.execute(
        "SELECT identity, meter_id, COALESCE(channel.period_s, 0),"
        " (SELECT COUNT(*) FROM reading WHERE reading.channel_id = channel.channel_id"
        "  AND captured_at > ?1 AND captured_at <= ?1 + 86400 AND quality & ?3 = 0)"
        " FROM meter LEFT JOIN channel USING (meter_id)"
        " WHERE link = 'plc' AND (channel.channel_id IS NULL OR (profile = ?2 AND obis ="
        " (SELECT obis FROM channel AS one WHERE one.meter_id = meter.meter_id AND one.profile = ?2"
        "  ORDER BY channel_id LIMIT 1)))",
        (day, profile, _ESTIMATED),
    ).fetchall()
    gaps: dict[int, list[tuple[int, int]]] = {}
    for meter_id, first, last in connection.execute(
        "SELECT meter_id, MAX(first_at, ?1 + 1), MIN(last_at, ?1 + 86400) FROM closed_gap"
        " WHERE profile = ?2 AND last_at > ?1 AND first_at <= ?1 + 86400",
        (day, profile),
    ):
        gaps.setdefault(meter_id, []).append((first, last))
    counts: dict[str, tuple[int, int, int]] = {}
    for identity, meter_id, period_s, stored in rows:
        before = counts.get(identity, (0, 0, 0))
        period = int(period_s) or before[2]
        closed = (
            sum(last // period - (first - 1) // period for first, last in gaps.get(meter_id, ()))
            if period
            else 0
        )
        # A changed unit or scaler made a second channel of the same quantity: they follow each other in time.
        counts[identity] = (before[0] + int(stored), closed, period)
    return counts


def save_meter_days(connection: sqlite3.Connection, day: int, rows: Iterable[MeterDay]) -> None:
    """Keep the figures of meters for a day. What has not changed is not written: flash wears."""
    names = ", ".join(_COLUMNS)
    marks = ", ".join("?" * len(_COLUMNS))
    new = ", ".join(f"excluded.{name}" for name in _COLUMNS)
    connection.executemany(
        f"INSERT INTO kpi_meter_day (day, meter, {names}) VALUES (?, ?, {marks})"  # noqa: S608 - our own columns
        f" ON CONFLICT (day, meter) DO UPDATE SET ({names}) = ({new}) WHERE ({names}) IS NOT ({new})",
        [(day, row.meter, *(getattr(row, name) for name in _COLUMNS)) for row in rows],
    )


def meter_days(connection: sqlite3.Connection, day: int) -> dict[str, MeterDay]:
    """The figures of every meter for a day."""
    rows = connection.execute(
        f"SELECT meter, {', '.join(_COLUMNS)} FROM kpi_meter_day WHERE day = ?",  # noqa: S608 - our own columns
        (day,),
    )
    return {row[0]: MeterDay(*row) for row in rows}


def save_day(connection: sqlite3.Connection, day: int, figures: Mapping[str, Any], keep_days: int) -> None:
    """Keep the figures of the whole for a day, and let go what is older than so many days."""
    connection.execute(
        "INSERT INTO kpi_day (day, figures) VALUES (?, ?)"
        " ON CONFLICT (day) DO UPDATE SET figures = excluded.figures WHERE figures IS NOT excluded.figures",
        (day, json.dumps(figures)),
    )
    for table in ("kpi_day", "kpi_meter_day"):
        connection.execute(f"DELETE FROM {table} WHERE day < ?", (day - 86_400 * keep_days,))  # noqa: S608 - our own names


def days(connection: sqlite3.Connection, first: int) -> list[tuple[int, dict[str, Any]]]:
    """The figures of the whole from a day on, oldest first."""
    rows = connection.execute("SELECT day, figures FROM kpi_day WHERE day >= ? ORDER BY day", (first,))
    return [(day, json.loads(figures)) for day, figures in rows]
