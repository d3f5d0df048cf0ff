"""Stored values of a meter as series, and the flags of stored values that are judged anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from concentrator.model import Channel
from concentrator.obis import Obis
from concentrator.store.judgement import Known
from concentrator.store.readings import add_batch


@dataclass(frozen=True, slots=True)
class StoredChannel:
    """A channel with its number in the store, and the profile that it was read from."""

    channel_id: int
    profile: Obis
    channel: Channel


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """What a batch spans: whose, and from when to when (seconds since 1970)."""

    sequence: int
    meter: str
    profile: str
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Requalification:
    """New flags of one stored value."""

    channel_id: int
    at: int
    quality: int


def channels_of(connection: sqlite3.Connection, meter: str) -> list[StoredChannel]:
    """Every channel that a meter ever delivered."""
    rows = connection.execute(
        "SELECT channel_id, profile, obis, unit, scaler, class_id, attribute, period_s"
        " FROM channel JOIN meter USING (meter_id) WHERE identity = ? ORDER BY channel_id",
        (meter,),
    )
    return [
        StoredChannel(
            channel_id,
            Obis.parse(profile),
            Channel(Obis.parse(obis), unit, scaler, class_id, attribute, period_s),
        )
        for channel_id, profile, obis, unit, scaler, class_id, attribute, period_s in rows
    ]


def values_of(connection: sqlite3.Connection, channel_id: int, first: int, last: int) -> list[Known]:
    """The values of a channel from `first` to `last` (seconds since 1970), oldest first."""
    rows = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading"
        " WHERE channel_id = ? AND captured_at BETWEEN ? AND ? ORDER BY captured_at",
        (channel_id, first, last),
    )
    return [Known(*row) for row in rows]


def batches_after(connection: sqlite3.Connection, sequence: int, limit: int) -> list[StoredBatch]:
    """Up to `limit` batches behind a number, in their order."""
    rows = connection.execute(
        "SELECT sequence, identity, profile, first_at, last_at FROM batch JOIN meter USING (meter_id)"
        " WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [StoredBatch(*row) for row in rows]


def requalify(connection: sqlite3.Connection, changes: Sequence[Requalification], at: datetime) -> list[int]:
    """Give stored values new flags, in a batch for each meter and profile, so that they are forwarded.

    Returns the numbers of the batches.
    """
    by_profile: dict[tuple[int, str], list[Requalification]] = {}
    for change in changes:
        row = connection.execute(
            "SELECT meter_id, profile FROM channel WHERE channel_id = ?", (change.channel_id,)
        ).fetchone()
        by_profile.setdefault((int(row[0]), str(row[1])), []).append(change)
    sequences: list[int] = []
    for (meter_id, profile), group in by_profile.items():
        sequence = add_batch(connection, meter_id, profile, [change.at for change in group], at)
        connection.executemany(
            "UPDATE reading SET sequence = ?, quality = ? WHERE channel_id = ? AND captured_at = ?",
            [(sequence, change.quality, change.channel_id, change.at) for change in group],
        )
        sequences.append(sequence)
    return sequences
