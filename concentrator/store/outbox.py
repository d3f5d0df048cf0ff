"""The outbox: what each destination has yet to acknowledge.

There is no row per message. Batches are numbered without end; a destination has one cursor, below which
everything is acknowledged, and a short list of what was acknowledged ahead of it. Whatever lies above, and is
meant for destinations (bit 0 of `handling` is clear), is still to be sent: after a crash, a broker's absence or
a restart, nothing else needs to be remembered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
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
    """How far one destination is. `oldest_unsent_at` is when its oldest waiting batch was received."""

    name: str
    cursor: int
    pending_batches: int
    pending_readings: int
    oldest_unsent_at: datetime | None
    acknowledged_at: datetime | None


def register_destination(connection: sqlite3.Connection, name: str) -> None:
    """Make a destination known. A new one gets everything that the store still has."""
    connection.execute("INSERT OR IGNORE INTO destination (name, cursor) VALUES (?, 0)", (name,))


def pending(connection: sqlite3.Connection, destination: str, after: int, limit: int) -> list[OutgoingBatch]:
    """Up to `limit` unacknowledged batches with a sequence above `after`, oldest first."""
    rows = connection.execute(
        "SELECT batch.sequence, batch.meter_id, meter.identity, meter.medium, batch.profile,"
        " batch.first_at, batch.last_at, batch.received_at"
        " FROM batch JOIN meter USING (meter_id), destination"
        " WHERE destination.name = ? AND batch.sequence > MAX(?, destination.cursor) AND batch.handling & 1 = 0"
        " AND NOT EXISTS (SELECT 1 FROM acknowledgement WHERE destination_id = destination.destination_id"
        "                 AND sequence = batch.sequence)"
        " ORDER BY batch.sequence LIMIT ?",
        (destination, after, limit),
    ).fetchall()
    found: list[OutgoingBatch] = []
    for sequence, meter_id, identity, medium, profile, first_at, last_at, received_at in rows:
        readings = _readings_of(connection, sequence, meter_id, profile, first_at, last_at)
        # A batch is of one kind.
        events = () if readings else events_of_batch(connection, sequence)
        found.append(
            OutgoingBatch(
                sequence, identity, medium, Obis.parse(profile), from_epoch(received_at), readings, events
            )
        )
    return found


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
    (destination_id, cursor) = connection.execute(
        "SELECT destination_id, cursor FROM destination WHERE name = ?", (destination,)
    ).fetchone()
    connection.executemany(
        "INSERT OR IGNORE INTO acknowledgement (destination_id, sequence) VALUES (?, ?)",
        [(destination_id, sequence) for sequence in sequences if sequence > cursor],
    )
    # Up to the first batch that is not acknowledged; over everything when there is none.
    (hole,) = connection.execute(
        "SELECT MIN(batch.sequence) FROM batch WHERE batch.sequence > ? AND batch.handling & 1 = 0 AND NOT EXISTS"
        " (SELECT 1 FROM acknowledgement WHERE destination_id = ? AND sequence = batch.sequence)",
        (cursor, destination_id),
    ).fetchone()
    if hole is None:
        (newest,) = connection.execute("SELECT MAX(sequence) FROM batch").fetchone()
        cursor = newest if newest is not None else cursor
    else:
        cursor = hole - 1
    connection.execute(
        "UPDATE destination SET cursor = ?, acknowledged_at = ? WHERE destination_id = ?",
        (cursor, to_epoch(at), destination_id),
    )
    connection.execute(
        "DELETE FROM acknowledgement WHERE destination_id = ? AND sequence <= ?", (destination_id, cursor)
    )


def states(connection: sqlite3.Connection) -> list[DestinationState]:
    """How far every destination is."""
    result: list[DestinationState] = []
    for destination_id, name, cursor, acknowledged_at in connection.execute(
        "SELECT destination_id, name, cursor, acknowledged_at FROM destination ORDER BY name"
    ).fetchall():
        batches, readings, oldest = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(reading_count), 0), MIN(received_at) FROM batch"
            " WHERE sequence > ? AND batch.handling & 1 = 0 AND NOT EXISTS (SELECT 1 FROM acknowledgement"
            " WHERE destination_id = ? AND sequence = batch.sequence)",
            (cursor, destination_id),
        ).fetchone()
        result.append(
            DestinationState(
                name,
                cursor,
                batches,
                readings,
                from_epoch(oldest) if oldest is not None else None,
                from_epoch(acknowledged_at) if acknowledged_at is not None else None,
            )
        )
    return result
