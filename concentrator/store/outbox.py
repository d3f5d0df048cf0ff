"""The outbox: what each destination has yet to acknowledge.

There is no row per message. Batches are numbered without end; a destination has one cursor, below which
everything is acknowledged, and a short list of ranges that were acknowledged ahead of it. Whatever lies above, and is
meant for destinations (bit 0 of `handling` is clear), is still to be sent: after a crash, a broker's absence or
a restart, nothing else needs to be remembered. A destination that was taken out of the configuration is retired: its
cursor stays, and holds nothing back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.meter_events import events_of_batch
from concentrator.store.readings import from_epoch, to_epoch


@dataclass(frozen=True, slots=True)
class OutgoingBatch:
    """One meter answer on its way out. `sequence` is its number for ever: receivers drop repeats by it."""

    sequence: int
    meter: str
    medium: str
    profile: Obis
    received_at: datetime
    readings: tuple[Reading, ...]
    events: tuple[MeterEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How far one destination is. `oldest_unsent_at` is when its oldest waiting batch was received.

    `retired_at` is since when the configuration does not name it any more, or None.
    """

    name: str
    cursor: int
    pending_batches: int
    pending_readings: int
    oldest_unsent_at: datetime | None
    acknowledged_at: datetime | None
    retired_at: datetime | None = None


# Whether batch `b` of a query is still owed to destination `d`: the range that begins nearest below it decides.
OWED = (
    "b.sequence > d.cursor AND b.handling & 1 = 0 AND b.sequence > COALESCE((SELECT last FROM acknowledged_range AS r"
    " WHERE r.destination_id = d.destination_id AND r.first <= b.sequence ORDER BY r.first DESC LIMIT 1), 0)"
)
_BATCH = (
    "SELECT b.sequence, b.meter_id, meter.identity, meter.medium, b.profile, b.first_at, b.last_at, b.received_at"
    " FROM batch AS b JOIN meter USING (meter_id), destination AS d"
)
NO_END = 2**63 - 1


def register_destination(connection: sqlite3.Connection, name: str) -> None:
    """Make a destination known. A new one gets everything that the store still has."""
    connection.execute(
        "INSERT INTO destination (name, cursor) VALUES (?, 0)"
        " ON CONFLICT (name) DO UPDATE SET retired_at = NULL WHERE retired_at IS NOT NULL",
        (name,),
    )


def retire_destinations(connection: sqlite3.Connection, configured: Iterable[str], at: datetime) -> list[str]:
    """Let every destination that is not among the `configured` hold nothing back any more; returns their names."""
    known = [name for (name,) in connection.execute("SELECT name FROM destination WHERE retired_at IS NULL")]
    retired = sorted(set(known) - set(configured))
    connection.executemany(
        "UPDATE destination SET retired_at = ? WHERE name = ?", [(to_epoch(at), name) for name in retired]
    )
    return retired


def forget_destination(connection: sqlite3.Connection, name: str) -> bool:
    """Forget a retired destination with its cursor; whether there was one. Configured again, it gets everything."""
    found = connection.execute(
        "SELECT destination_id FROM destination WHERE name = ? AND retired_at IS NOT NULL", (name,)
    ).fetchone()
    if found is None:
        return False
    connection.execute("DELETE FROM acknowledged_range WHERE destination_id = ?", found)
    connection.execute("DELETE FROM destination WHERE destination_id = ?", found)
    return True


def pending(
    connection: sqlite3.Connection, destination: str, after: int, limit: int, up_to: int = NO_END
) -> list[OutgoingBatch]:
    """Up to `limit` unacknowledged batches with a sequence above `after` and not above `up_to`, oldest first."""
    rows = connection.execute(
        f"{_BATCH} WHERE d.name = ? AND b.sequence > MAX(?, d.cursor) AND b.sequence <= ? AND {OWED}"
        " ORDER BY b.sequence LIMIT ?",
        (destination, after, up_to, limit),
    ).fetchall()
    return [_outgoing(connection, *row) for row in rows]


def pending_numbers(connection: sqlite3.Connection, destination: str, limit: int) -> list[int]:
    """The numbers of the oldest `limit` batches that are owed."""
    rows = connection.execute(
        f"SELECT b.sequence FROM batch AS b, destination AS d WHERE d.name = ? AND b.sequence > d.cursor"  # noqa: S608 - our own words
        f" AND {OWED} ORDER BY b.sequence LIMIT ?",
        (destination, limit),
    )
    return [sequence for (sequence,) in rows]


def batches(
    connection: sqlite3.Connection, destination: str, sequences: Sequence[int]
) -> list[OutgoingBatch]:
    """Those of the batches that are still owed, in the order that is given."""
    found: list[OutgoingBatch] = []
    for sequence in sequences:
        row = connection.execute(
            f"{_BATCH} WHERE d.name = ? AND b.sequence = ? AND {OWED}", (destination, sequence)
        ).fetchone()
        if row is not None:
            found.append(_outgoing(connection, *row))
    return found


def newest_of_each(connection: sqlite3.Connection, destination: str, up_to: int) -> list[int]:
    """The newest owed batch of each meter and profile (registers, event logs), the newest of them first."""
    rows = connection.execute(
        f"SELECT MAX(b.sequence) FROM batch AS b, destination AS d WHERE d.name = ? AND b.sequence > d.cursor"  # noqa: S608
        f" AND b.sequence <= ? AND {OWED} GROUP BY b.meter_id, b.profile ORDER BY 1 DESC",
        (destination, up_to),
    )
    return [sequence for (sequence,) in rows]


def _outgoing(  # noqa: PLR0913 - the columns
    connection: sqlite3.Connection,
    sequence: int,
    meter_id: int,
    identity: str,
    medium: str,
    profile: str,
    first_at: int,
    last_at: int,
    received_at: int,
) -> OutgoingBatch:
    readings = _readings_of(connection, sequence, meter_id, profile, first_at, last_at)
    # A batch is of one kind.
    events = () if readings else events_of_batch(connection, sequence)
    return OutgoingBatch(
        sequence, identity, medium, Obis.parse(profile), from_epoch(received_at), readings, events
    )


def _readings_of(
    connection: sqlite3.Connection, sequence: int, meter_id: int, profile: str, first_at: int, last_at: int
) -> tuple[Reading, ...]:
    # By channel and time, which is the table's own order: no index on `sequence` has to be written for this.
    channels = connection.execute(
        "SELECT channel_id, obis, unit, scaler, class_id, attribute, period_s FROM channel"
        " WHERE meter_id = ? AND profile = ? ORDER BY channel_id",
        (meter_id, profile),
    ).fetchall()
    readings: list[Reading] = []
    for channel_id, obis, unit, scaler, class_id, attribute, period_s in channels:
        channel = Channel(Obis.parse(obis), unit, scaler, class_id, attribute, period_s)
        rows = connection.execute(
            "SELECT captured_at, value, status, quality FROM reading"
            " WHERE channel_id = ? AND captured_at BETWEEN ? AND ? AND sequence = ?",
            (channel_id, first_at, last_at, sequence),
        )
        readings.extend(
            Reading(channel, from_epoch(at), value, status, Quality(quality))
            for at, value, status, quality in rows
        )
    return tuple(readings)


def acknowledge(
    connection: sqlite3.Connection, destination: str, sequences: Iterable[int], at: datetime
) -> None:
    """Note that a destination has these batches, and advance its cursor over what is now without a hole."""
    found = connection.execute(
        "SELECT destination_id, cursor FROM destination WHERE name = ?", (destination,)
    ).fetchone()
    if found is None:
        return
    destination_id, cursor = found
    for first, last in _runs(sequence for sequence in sequences if sequence > cursor):
        _add_range(connection, destination_id, first, last)
    cursor = _advance(connection, destination_id, cursor)
    connection.execute(
        "UPDATE destination SET cursor = ?, acknowledged_at = ? WHERE destination_id = ?",
        (cursor, to_epoch(at), destination_id),
    )


def _runs(sequences: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers without a hole between, as first and last."""
    first = last = None
    for sequence in sorted(set(sequences)):
        if first is None or last is None:
            first = last = sequence
        elif sequence == last + 1:
            last = sequence
        else:
            yield first, last
            first = last = sequence
    if first is not None and last is not None:
        yield first, last


def _next_meant(connection: sqlite3.Connection, after: int) -> int | None:
    """The first batch above `after` that is meant for destinations."""
    found = connection.execute(
        "SELECT sequence FROM batch WHERE sequence > ? AND handling & 1 = 0 ORDER BY sequence LIMIT 1",
        (after,),
    ).fetchone()
    return None if found is None else int(found[0])


def _add_range(connection: sqlite3.Connection, destination_id: int, first: int, last: int) -> None:
    """Enter a range, made one with its neighbours where nothing that is meant for destinations lies between."""
    before = connection.execute(
        "SELECT first, last FROM acknowledged_range WHERE destination_id = ? AND first <= ?"
        " ORDER BY first DESC LIMIT 1",
        (destination_id, first),
    ).fetchone()
    if before is not None:
        between = _next_meant(connection, before[1])
        if before[1] >= first or between is None or between >= first:
            first, last = before[0], max(last, before[1])
    while True:
        behind = connection.execute(
            "SELECT first, last FROM acknowledged_range WHERE destination_id = ? AND first > ?"
            " ORDER BY first LIMIT 1",
            (destination_id, first),
        ).fetchone()
        if behind is None:
            break
        if behind[0] > last:
            between = _next_meant(connection, last)
            if between is not None and between < behind[0]:
                break
        last = max(last, behind[1])
        connection.execute(
            "DELETE FROM acknowledged_range WHERE destination_id = ? AND first = ?",
            (destination_id, behind[0]),
        )
    connection.execute(
        "INSERT OR REPLACE INTO acknowledged_range (destination_id, first, last) VALUES (?, ?, ?)",
        (destination_id, first, last),
    )


def _advance(connection: sqlite3.Connection, destination_id: int, cursor: int) -> int:
    """The cursor, moved up to below the first batch that is owed; the ranges below it are taken out."""
    while True:
        owed = _next_meant(connection, cursor)
        if owed is None:
            # Nothing is owed: over all that there is, sent or not meant to be.
            (newest,) = connection.execute("SELECT MAX(sequence) FROM batch").fetchone()
            cursor = max(cursor, newest or 0)
            break
        (last,) = connection.execute(
            "SELECT MAX(last) FROM acknowledged_range WHERE destination_id = ? AND first <= ?",
            (destination_id, owed),
        ).fetchone()
        if last is None or last < owed:
            cursor = owed - 1
            break
        cursor = last
    connection.execute(
        "DELETE FROM acknowledged_range WHERE destination_id = ? AND last <= ?", (destination_id, cursor)
    )
    return cursor


def states(connection: sqlite3.Connection) -> list[DestinationState]:
    """How far every destination is."""
    result: list[DestinationState] = []
    for destination_id, name, cursor, acknowledged_at, retired_at in connection.execute(
        "SELECT destination_id, name, cursor, acknowledged_at, retired_at FROM destination ORDER BY name"
    ).fetchall():
        # All above the cursor, less what the ranges cover: no question for each batch.
        count, readings = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(reading_count), 0) FROM batch WHERE sequence > ? AND handling & 1 = 0",
            (cursor,),
        ).fetchone()
        done, done_readings = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(reading_count), 0) FROM acknowledged_range CROSS JOIN batch"
            " ON sequence BETWEEN MAX(first, ?) AND last AND handling & 1 = 0 WHERE destination_id = ?",
            (cursor + 1, destination_id),
        ).fetchone()
        oldest = connection.execute(
            f"SELECT received_at FROM batch AS b, destination AS d WHERE d.destination_id = ? AND b.sequence > ?"  # noqa: S608
            f" AND {OWED} ORDER BY b.sequence LIMIT 1",
            (destination_id, cursor),
        ).fetchone()
        result.append(
            DestinationState(
                name,
                cursor,
                count - done,
                readings - done_readings,
                from_epoch(oldest[0]) if oldest is not None else None,
                from_epoch(acknowledged_at) if acknowledged_at is not None else None,
                from_epoch(retired_at) if retired_at is not None else None,
            )
        )
    return result
