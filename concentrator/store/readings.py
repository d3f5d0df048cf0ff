"""Readings in and out: idempotent, one commit per meter answer.

A reading's identity is (meter, profile, OBIS, captured_at). The same one again changes nothing; a
different value for it wins only if its quality is better, and then counts as new, so that it is
forwarded; otherwise the first stays, is marked, and the difference is kept as an event. A measured value takes the
place of an estimate; an estimate never that of a measured value.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.collection_tables import NOT_KEPT, NOT_SENT
from concentrator.store.judgement import Judge, JudgedMeter, Known, surroundings

# SQLite integers are 64 bit signed; a long64-unsigned register above that is kept as text.
_LARGEST_INTEGER = 2**63 - 1
_ESTIMATED = int(Quality.ESTIMATED)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What storing an answer came to. `sequence` is None when there was nothing new in it."""

    sequence: int | None
    new: int
    repeated: int
    different: int
    requalified: int = 0  # values that were here, and are judged anew


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


class _Batch:
    """What one answer changes: rows to write, and rows whose flags alone change."""

    def __init__(self) -> None:
        self.new: list[tuple[int, int, int | str, int | None, int]] = []
        self.requalified: list[tuple[int, int, int]] = []  # flags, channel, capture time
        self.repeated = 0
        self.different = 0

    def times(self) -> list[int]:
        return [row[1] for row in self.new] + [row[2] for row in self.requalified]

    def __len__(self) -> int:
        return len(self.new) + len(self.requalified)


class ReadingTable:
    """The prepared statements of the hot path, with the ids of meters and channels remembered.

    Lives on the writer's thread: every method takes the writer's connection, inside a transaction. Without a `judge`
    values keep the qualities that they come with.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        self._judge = judge
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
            "SELECT meter_id, details FROM meter WHERE identity = ?", (answer.meter,)
        ).fetchone()
        if found is None:
            raise KeyError(answer.meter)
        meter_id, meter = int(found[0]), JudgedMeter(answer.meter, json.loads(found[1]))
        profile = str(answer.profile)
        by_channel: dict[Channel, list[Reading]] = {}
        for reading in answer.readings:
            by_channel.setdefault(reading.channel, []).append(reading)
        batch = _Batch()
        for channel, readings in by_channel.items():
            channel_id = self._channel_id(connection, meter_id, profile, channel)
            self._take(connection, batch, answer, meter_id, channel_id, self._sorted(readings), meter)
        if not batch:
            return StoredAnswer(None, 0, batch.repeated, batch.different)
        handling = (0 if answer.send else NOT_SENT) | (0 if answer.keep else NOT_KEPT)
        sequence = add_batch(connection, meter_id, profile, batch.times(), answer.received_at, handling)
        connection.executemany(
            "INSERT OR REPLACE INTO reading (channel_id, captured_at, value, status, quality, sequence)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [(*row, sequence) for row in batch.new],
        )
        connection.executemany(
            "UPDATE reading SET sequence = ?, quality = ? WHERE channel_id = ? AND captured_at = ?",
            [(sequence, *row) for row in batch.requalified],
        )
        return StoredAnswer(sequence, len(batch.new), batch.repeated, batch.different, len(batch.requalified))

    @staticmethod
    def _sorted(readings: list[Reading]) -> list[Reading]:
        return sorted(readings, key=lambda reading: reading.captured_at)

    def _take(  # noqa: PLR0913 - one channel of one answer, and what belongs to it
        self,
        connection: sqlite3.Connection,
        batch: _Batch,
        answer: Answer,
        meter_id: int,
        channel_id: int,
        readings: list[Reading],
        meter: JudgedMeter,
    ) -> None:
        """What one channel's values add to the batch."""
        first, last = to_epoch(readings[0].captured_at), to_epoch(readings[-1].captured_at)
        known = {row.at: row for row in _between(connection, channel_id, first, last)}
        fresh: dict[int, Reading] = {}
        for reading in readings:
            at = to_epoch(reading.captured_at)
            before = _as_known(at, fresh[at]) if at in fresh else known.get(at)
            if self._is_wanted(connection, batch, answer, meter_id, channel_id, reading, before):
                fresh[at] = reading
        if not fresh:
            return
        # An estimate is marked as one; it neither needs judging nor speaks for anything.
        if self._judge is not None and Quality.ESTIMATED not in readings[0].quality:
            between = [row for at, row in known.items() if at not in fresh and not row.quality & _ESTIMATED]
            edges = min(fresh), max(fresh)
            around = surroundings(connection, channel_id, *edges, between)
            channel = readings[0].channel
            verdict = self._judge(meter, channel, list(fresh.values()), around, answer.received_at)
            fresh = dict(zip(fresh, verdict.readings, strict=True))
            batch.requalified += [(flags, channel_id, at) for at, flags in verdict.requalified.items()]
        batch.new += [
            (channel_id, at, _storable(reading.value), reading.status, int(reading.quality))
            for at, reading in fresh.items()
        ]

    @staticmethod
    def _is_wanted(  # noqa: PLR0913 - one value, and what belongs to it
        connection: sqlite3.Connection,
        batch: _Batch,
        answer: Answer,
        meter_id: int,
        channel_id: int,
        reading: Reading,
        known: Known | None,
    ) -> bool:
        """Whether a value is to be kept: it is new, or better than what is known."""
        if known is None:
            return True
        estimated, was_estimated = Quality.ESTIMATED in reading.quality, bool(known.quality & _ESTIMATED)
        if estimated != was_estimated:
            # A measured value takes the place of an estimate, an estimate never that of a measured value.
            return was_estimated
        value = _storable(reading.value)
        if known.value == value:
            batch.repeated += 1
            return False
        if estimated:
            return True
        batch.different += 1
        add_event(
            connection,
            answer.received_at,
            "value_differs",
            f"{reading.channel.obis} at {reading.captured_at:%Y-%m-%dT%H:%M:%SZ}: "
            f"had {known.value}, meter now says {value}",
            meter_id,
        )
        differs = int(Quality.DIFFERS | Quality.SUSPECT)
        # That it was contradicted already does not make the next contradiction true.
        contradicted = known.quality & int(Quality.DIFFERS)
        if _badness(int(reading.quality)) < _badness(
            known.quality & ~differs if contradicted else known.quality
        ):
            return True
        if known.quality & differs != differs:
            batch.requalified.append((known.quality | differs, channel_id, known.at))
        return False

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


def add_batch(  # noqa: PLR0913 - one row's columns
    connection: sqlite3.Connection,
    meter_id: int,
    profile: str,
    times: list[int],
    received_at: datetime,
    handling: int = 0,
) -> int:
    """Begin a batch of so many rows; returns its number, which they are to carry. `handling`: see `NOT_SENT`."""
    cursor = connection.execute(
        "INSERT INTO batch (meter_id, profile, first_at, last_at, reading_count, received_at, handling)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (meter_id, profile, min(times), max(times), len(times), to_epoch(received_at), handling),
    )
    return int(cursor.lastrowid or 0)


def _between(connection: sqlite3.Connection, channel_id: int, first: int, last: int) -> list[Known]:
    rows = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading"
        " WHERE channel_id = ? AND captured_at BETWEEN ? AND ?",
        (channel_id, first, last),
    )
    return [Known(*row) for row in rows]


def _as_known(at: int, reading: Reading) -> Known:
    return Known(at, _storable(reading.value), reading.status, int(reading.quality))


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

    A row of a profile is stored whole, in one transaction: a reading in any of its channels speaks for all. Estimates
    do not count: what was measured is still owed.
    """
    rows = connection.execute(
        "SELECT DISTINCT reading.captured_at"
        " FROM meter JOIN channel USING (meter_id) JOIN reading USING (channel_id)"
        " WHERE meter.identity = ? AND channel.profile = ? AND reading.captured_at BETWEEN ? AND ?"
        " AND reading.quality & ? = 0",
        (meter, str(profile), to_epoch(first), to_epoch(last), _ESTIMATED),
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


def reading_times(connection: sqlite3.Connection, meter: str, first: datetime, last: datetime) -> set[int]:
    """The capture times (seconds since 1970) of all that was measured of a meter from `first` to `last`."""
    rows = connection.execute(
        "SELECT DISTINCT reading.captured_at"
        " FROM meter JOIN channel USING (meter_id) JOIN reading USING (channel_id)"
        " WHERE meter.identity = ? AND reading.captured_at BETWEEN ? AND ? AND reading.quality & ? = 0",
        (meter, to_epoch(first), to_epoch(last), _ESTIMATED),
    )
    return {int(at) for (at,) in rows}
