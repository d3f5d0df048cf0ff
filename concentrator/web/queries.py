"""What the page asks the store: each function is one question, answered by plain SQL on a read connection."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from concentrator.store.readings import from_epoch


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest reading of a channel."""

    channel_id: int
    profile: str
    obis: str
    unit: int
    scaler: int
    period_s: int
    captured_at: datetime
    value: int | str
    status: int | None
    quality: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Intervals that will never come, or, while `closed_at` is None, that the meter was asked for in vain."""

    profile: str
    first_at: datetime
    last_at: datetime
    reason: str
    closed_at: datetime | None
    next_try_at: datetime | None


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One line of the concentrator's own event log."""

    event_id: int
    happened_at: datetime
    meter: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Point:
    """One stored value of a channel."""

    captured_at: int
    value: int | str
    status: int | None
    quality: int


def meter_id(connection: sqlite3.Connection, identity: str) -> int | None:
    """The store's number of a meter."""
    row = connection.execute("SELECT meter_id FROM meter WHERE identity = ?", (identity,)).fetchone()
    return int(row[0]) if row else None


def latest_values(connection: sqlite3.Connection, identity: str) -> list[LatestValue]:
    """The newest reading of every channel of a meter, by profile and OBIS code."""
    rows = connection.execute(
        "SELECT channel_id, profile, obis, unit, scaler, period_s, captured_at, value, status, quality"
        " FROM channel JOIN reading USING (channel_id) JOIN meter USING (meter_id)"
        " WHERE meter.identity = ? AND captured_at ="
        " (SELECT MAX(captured_at) FROM reading AS newest WHERE newest.channel_id = channel.channel_id)"
        " ORDER BY profile, channel_id",
        (identity,),
    )
    return [
        LatestValue(channel, profile, obis, unit, scaler, period_s, from_epoch(at), value, status, quality)
        for channel, profile, obis, unit, scaler, period_s, at, value, status, quality in rows
    ]


def last_values(connection: sqlite3.Connection) -> dict[str, int]:
    """When the newest stored value of each meter was captured, in seconds since 1970."""
    rows = connection.execute(
        "SELECT identity, MAX((SELECT MAX(captured_at) FROM reading WHERE reading.channel_id = channel.channel_id))"
        " FROM channel JOIN meter USING (meter_id) GROUP BY meter_id"
    )
    return {identity: at for identity, at in rows if at is not None}


def points(connection: sqlite3.Connection, channel_id: int, first: int, last: int) -> list[Point]:
    """The stored values of a channel from `first` to `last` (seconds since 1970), oldest first."""
    rows = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading"
        " WHERE channel_id = ? AND captured_at BETWEEN ? AND ? ORDER BY captured_at",
        (channel_id, first, last),
    )
    return [Point(*row) for row in rows]


def gaps(connection: sqlite3.Connection, identity: str, limit: int) -> list[Gap]:
    """The gaps of a meter that are still tried, then the closed ones, each newest first."""
    rows = connection.execute(
        "SELECT * FROM (SELECT profile, first_at, last_at, closed_gap.reason, closed_at, NULL"
        " FROM closed_gap JOIN meter USING (meter_id) WHERE identity = ?1"
        " UNION ALL SELECT profile, first_at, last_at, open_gap.reason, NULL, next_try_at"
        " FROM open_gap JOIN meter USING (meter_id) WHERE identity = ?1)"
        " ORDER BY closed_at IS NOT NULL, last_at DESC LIMIT ?2",
        (identity, limit),
    )
    return [
        Gap(
            profile,
            from_epoch(first),
            from_epoch(last),
            reason,
            from_epoch(closed) if closed is not None else None,
            from_epoch(next_try) if next_try is not None else None,
        )
        for profile, first, last, reason, closed, next_try in rows
    ]


def events(
    connection: sqlite3.Connection, limit: int, before: int | None = None, meter: str = ""
) -> list[LoggedEvent]:
    """The newest events, or those before the number `before`; of one meter when it is named."""
    rows = connection.execute(
        "SELECT event_id, happened_at, COALESCE(identity, ''), code, detail"
        " FROM event LEFT JOIN meter USING (meter_id)"
        " WHERE (?1 IS NULL OR event_id < ?1) AND (?2 = '' OR identity = ?2)"
        " ORDER BY event_id DESC LIMIT ?3",
        (before, meter, limit),
    )
    return [LoggedEvent(row[0], from_epoch(row[1]), *row[2:]) for row in rows]


def newest_of_code(connection: sqlite3.Connection, code: str, since: int) -> datetime | None:
    """When an event of the concentrator's own log happened last, since a moment (seconds since 1970)."""
    row = connection.execute(
        "SELECT MAX(happened_at) FROM event WHERE code = ? AND happened_at >= ?", (code, since)
    ).fetchone()
    return from_epoch(row[0]) if row[0] is not None else None


@dataclass(frozen=True, slots=True)
class LoggedMeterEvent:
    """One entry of a meter's own event log, or an alarm that it sent; `code` is the meter's own number."""

    event_id: int
    happened_at: datetime
    meter: str
    group: str
    code: int
    severity: str
    kind: str
    detail: str


def meter_events(
    connection: sqlite3.Connection, limit: int, since: int, meter: str = "", severity: str = ""
) -> list[LoggedMeterEvent]:
    """The newest events of meters since a moment (seconds since 1970); of one meter or severity when it is named."""
    rows = connection.execute(
        "SELECT meter_event_id, happened_at, identity, event_group, code, severity, kind, detail"
        " FROM meter_event JOIN meter USING (meter_id)"
        " WHERE happened_at >= ?1 AND (?2 = '' OR identity = ?2) AND (?3 = '' OR severity = ?3)"
        " ORDER BY happened_at DESC, meter_event_id DESC LIMIT ?4",
        (since, meter, severity, limit),
    )
    return [LoggedMeterEvent(row[0], from_epoch(row[1]), *row[2:]) for row in rows]


def stored_counts(
    connection: sqlite3.Connection, profile: str, edges: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """For each meter on PLC: how many intervals of a profile end after the first edge and up to the second.

    One quantity speaks for the row, which is stored whole. The second number is the capture period, 0 for
    a meter that never delivered anything.
    """
    rows = connection.execute(
        "SELECT identity, COALESCE(period_s, 0),"
        " (SELECT COUNT(*) FROM reading WHERE reading.channel_id = channel.channel_id"
        "  AND captured_at > ?1 AND captured_at <= ?2)"
        " FROM meter LEFT JOIN channel ON channel.meter_id = meter.meter_id AND profile = ?3 AND obis ="
        " (SELECT obis FROM channel AS one WHERE one.meter_id = meter.meter_id AND one.profile = ?3"
        "  ORDER BY channel_id LIMIT 1)"
        " WHERE link = 'plc'",
        (*edges, profile),
    )
    counts: dict[str, tuple[int, int]] = {}
    for identity, period_s, count in rows:
        # A changed unit or scaler made a second channel of the same quantity: they follow each other in time.
        before = counts.get(identity, (0, 0))[0]
        counts[identity] = (before + int(count), int(period_s))
    return counts


def closed_spans(
    connection: sqlite3.Connection, profile: str, edges: tuple[int, int]
) -> list[tuple[str, int, int]]:
    """The closed gaps of a profile that reach into a day: meter, first and last capture time."""
    return connection.execute(
        "SELECT identity, first_at, last_at FROM closed_gap JOIN meter USING (meter_id)"
        " WHERE profile = ? AND last_at > ? AND first_at <= ?",
        (profile, *edges),
    ).fetchall()


def newest_event(connection: sqlite3.Connection) -> int:
    """The number of the newest event; 0 in an empty log."""
    return int(connection.execute("SELECT COALESCE(MAX(event_id), 0) FROM event").fetchone()[0])


@dataclass(frozen=True, slots=True)
class Alarm:
    """An event of a meter that somebody should look at."""

    happened_at: datetime
    meter: str
    kind: str
    detail: str


def alarms(connection: sqlite3.Connection, since: int, limit: int) -> tuple[int, list[Alarm]]:
    """How many alarms meters had since a moment, and the newest of them."""
    rows = connection.execute(
        "SELECT happened_at, identity, kind, detail, COUNT(*) OVER () FROM meter_event JOIN meter USING (meter_id)"
        " WHERE severity = 'alarm' AND happened_at >= ? ORDER BY happened_at DESC LIMIT ?",
        (since, limit),
    ).fetchall()
    return (rows[0][4] if rows else 0), [Alarm(from_epoch(row[0]), *row[1:4]) for row in rows]
