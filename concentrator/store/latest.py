"""The newest value of each channel of a meter, for whoever shows how things stand."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from concentrator.model import Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.readings import from_epoch


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The newest reading of a channel of a profile. `channel_id` is the store's own number, which never changes."""

    channel_id: int
    profile: Obis
    reading: Reading


def latest_values(connection: sqlite3.Connection, meter: str) -> list[LatestValue]:
    """The newest reading of every channel of one meter that has any, in the order in which the channels came up."""
    channels = connection.execute(
        "SELECT channel_id, profile, obis, channel.unit, scaler, class_id, attribute, period_s"
        " FROM channel JOIN meter USING (meter_id) WHERE identity = ? ORDER BY channel_id",
        (meter,),
    ).fetchall()
    found: list[LatestValue] = []
    for channel_id, profile, obis, unit, scaler, class_id, attribute, period_s in channels:
        row = connection.execute(
            "SELECT captured_at, value, status, quality FROM reading WHERE channel_id = ?"
            " ORDER BY captured_at DESC LIMIT 1",
            (channel_id,),
        ).fetchone()
        if row is not None:
            channel = Channel(Obis.parse(obis), unit, scaler, class_id, attribute, period_s)
            reading = Reading(channel, from_epoch(row[0]), row[1], row[2], Quality(row[3]))
            found.append(LatestValue(channel_id, Obis.parse(profile), reading))
    return found


def meters_since(connection: sqlite3.Connection, sequence: int) -> tuple[set[str], int]:
    """The meters that have batches above `sequence`, and the newest batch's number."""
    rows = connection.execute(
        "SELECT identity, MAX(sequence) FROM batch JOIN meter USING (meter_id) WHERE sequence > ? GROUP BY meter_id",
        (sequence,),
    ).fetchall()
    return {row[0] for row in rows}, max((row[1] for row in rows), default=sequence)
