"""Readings in and out: idempotent, one commit per meter answer.

A reading's identity is (meter, profile, OBIS, captured_at). The same one again changes nothing; a
different value for it wins only if its quality is better, and then counts as new, so that it is
forwarded; otherwise the first stays and the difference is kept as an event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.collection_tables import NOT_KEPT, NOT_SENT

# SQLite integers are 64 bit signed; a long64-unsigned register above that is kept as text.
_LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What storing an answer came to. `sequence` is None when there was nothing new in it."""

    sequence: int | None
    new: int
    repeated: int
    different: int


def to_epoch(moment: datetime) -> int:
    """Seconds since 1970 of an aware moment."""
    return round(moment.timestamp())


def from_epoch(seconds: int) -> datetime:
    """The aware UTC moment of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def add_event(
    connection: sqlite3.Connection, happened_at: datetime, code: str, detail: str, meter_id: int | None = None
) -> None:
    """Append to the concentrator's own event log."""
    connection.execute(
        "INSERT INTO event (happened_at, meter_id, code, detail) VALUES (?, ?, ?, ?)",
        (to_epoch(happened_at), meter_id, code, detail),
    )


class ReadingTable:
    """The prepared statements of the hot path, with the ids of meters and channels remembered.

    Lives on the writer's thread: every method takes the writer's connection, inside a transaction.
    """

    def __init__(self) -> None:
        self._channel_ids: dict[tuple[int, str, Channel], int] = {}

    def forget(self) -> None:
        """Drop remembered ids: a transaction that made some was rolled back."""
        self._channel_ids.clear()

    def store(self, connection: sqlite3.Connection, answer: Answer) -> StoredAnswer:
        """Store one answer; the caller's transaction makes it durable.

        Raises:
            KeyError: the meter is not in the registry.
        """
        found = connection.execute(
            "SELECT meter_id FROM meter WHERE identity = ?", (answer.meter,)
        ).fetchone()
        if found is None:
            raise KeyError(answer.meter)
        meter_id = int(found[0])
        profile = str(answer.profile)
        new: list[tuple[int, int, int | str, int | None, int]] = []
        repeated = different = 0
        by_channel: dict[Channel, list[Reading]] = {}
        for reading in answer.readings:
            by_channel.setdefault(reading.channel, []).append(reading)
        for channel, readings in by_channel.items():
            channel_id = self._channel_id(connection, meter_id, profile, channel)
            known = self._known(connection, channel_id, readings)
            for reading in readings:
                at = to_epoch(reading.captured_at)
                value = _storable(reading.value)
                if at in known:
                    known_value, known_quality = known[at]
                    if known_value == value:
                        repeated += 1
                        continue
                    different += 1
                    add_event(
                        connection,
                        answer.received_at,
                        "value_differs",
                        f"{channel.obis} at {reading.captured_at:%Y-%m-%dT%H:%M:%SZ}: "
                        f"had {known_value}, meter now says {value}",
                        meter_id,
                    )
                    if _badness(int(reading.quality)) >= _badness(known_quality):
                        continue
                known[at] = (value, int(reading.quality))
                new.append((channel_id, at, value, reading.status, int(reading.quality)))
        if not new:
            return StoredAnswer(None, 0, repeated, different)
        times = [row[1] for row in new]
        cursor = connection.execute(
            "INSERT INTO batch (meter_id, profile, first_at, last_at, reading_count, received_at, handling)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                meter_id,
                profile,
                min(times),
                max(times),
                len(new),
                to_epoch(answer.received_at),
                (0 if answer.send else NOT_SENT) | (0 if answer.keep else NOT_KEPT),
            ),
        )
        sequence = cursor.lastrowid
        connection.executemany(
            "INSERT OR REPLACE INTO reading (channel_id, captured_at, value, status, quality, sequence)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(*row, sequence) for row in new],
        )
        return StoredAnswer(sequence, len(new), repeated, different)

    def _channel_id(
        self, connection: sqlite3.Connection, meter_id: int, profile: str, channel: Channel
    ) -> int:
        key = (meter_id, profile, channel)
        if key not in self._channel_ids:
            identity = (meter_id, profile, str(channel.obis), channel.class_id, channel.attribute)
            connection.execute(
                "INSERT OR IGNORE INTO channel"
                " (meter_id, profile, obis, class_id, attribute, unit, scaler, period_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*identity, channel.unit, channel.scaler, channel.period_s),
            )
            found = connection.execute(
                "SELECT channel_id FROM channel WHERE meter_id = ? AND profile = ? AND obis = ?"
                " AND class_id = ? AND attribute = ? AND unit = ? AND scaler = ?",
                (*identity, channel.unit, channel.scaler),
            ).fetchone()
            self._channel_ids[key] = int(found[0])
        return self._channel_ids[key]

    @staticmethod
    def _known(
        connection: sqlite3.Connection, channel_id: int, readings: Iterable[Reading]
    ) -> dict[int, tuple[int | str, int]]:
        times = [to_epoch(reading.captured_at) for reading in readings]
        rows = connection.execute(
            "SELECT captured_at, value, quality FROM reading"
            " WHERE channel_id = ? AND captured_at BETWEEN ? AND ?",
            (channel_id, min(times), max(times)),
        )
        return {int(at): (value, int(quality)) for at, value, quality in rows}


def _storable(value: int | str) -> int | str:
    if isinstance(value, int) and not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
        return str(value)
    return value


def _badness(quality: int) -> int:
    """How many things speak against a value."""
    return (quality & ~int(Quality.NOT_VALIDATED)).bit_count()


def stored_times(
    connection: sqlite3.Connection, meter: str, profile: Obis, first: datetime, last: datetime
) -> set[int]:
    """The capture times (seconds since 1970) from `first` to `last` that are stored for a profile.

    A row of a profile is stored whole, in one transaction: a reading in any of its channels speaks for all.
    """
    rows = connection.execute(
        "SELECT DISTINCT reading.captured_at"
        " FROM meter JOIN channel USING (meter_id) JOIN reading USING (channel_id)"
        " WHERE meter.identity = ? AND channel.profile = ? AND reading.captured_at BETWEEN ? AND ?",
        (meter, str(profile), to_epoch(first), to_epoch(last)),
    )
    return {int(at) for (at,) in rows}


def newest_time(connection: sqlite3.Connection, meter: str, profile: Obis) -> int | None:
    """The newest capture time that is stored for a profile (seconds since 1970), or None."""
    (newest,) = connection.execute(
        "SELECT MAX((SELECT MAX(captured_at) FROM reading WHERE reading.channel_id = channel.channel_id))"
        " FROM meter JOIN channel USING (meter_id) WHERE identity = ? AND channel.profile = ?",
        (meter, str(profile)),
    ).fetchone()
    return None if newest is None else int(newest)
