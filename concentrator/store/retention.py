"""What leaves the store, in which order: by age what every destination has, by size the oldest, sent before unsent.

Rows go in transactions of at most a thousand, so that the WAL stays short and answers of meters come in between.
Retired destinations hold nothing back; where there is no destination at all, age alone decides.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from concentrator.obis import Obis, ObisError
from concentrator.store.collection_tables import NOT_KEPT
from concentrator.store.meter_events import delete_events
from concentrator.store.outbox import OWED
from concentrator.store.readings import add_event, to_epoch

_ROWS_AT_ONCE = 1000
_BATCHES_AT_ONCE = 5000
# Consecutive spans of one meter's profile that went are one closed gap.
_SAME_GAP_S = 2 * 86_400
REMOVED_REASON = "removed from the full store"
# Value group D of load profiles 1 and 2 (Blue Book, OBIS identification of general and service entry objects).
_LOAD_PROFILES = (1, 2)
_PROFILE_OBJECTS = 99  # value group C of profiles and logs

# A parked batch was refused for good: its destination does not have it, whatever its cursor says.
_HELD = (
    f"EXISTS (SELECT 1 FROM destination AS d WHERE d.retired_at IS NULL AND ({OWED} OR EXISTS"  # noqa: S608 - our own words
    " (SELECT 1 FROM parked_batch AS p WHERE p.destination_id = d.destination_id AND p.sequence = b.sequence)))"
)


class Removal(Enum):
    """What is given up when the store is too large, in this order."""

    SENT = "sent"
    UNSENT_STATISTICS = "unsent statistics"
    UNSENT_BILLING = "unsent billing data"


class _Row(NamedTuple):
    sequence: int
    meter_id: int
    profile: str
    first_at: int
    last_at: int
    held: int


@dataclass(slots=True)
class Chunk:
    """What one transaction removed. `position` is the last batch that was looked at, None when there are no more.

    `lost` are readings and events that some destination never got, with the meters and the times that they are of.
    """

    position: int | None
    removed: int = 0
    lost: int = 0
    lost_meters: set[int] = field(default_factory=set[int])
    lost_first: int | None = None
    lost_last: int | None = None


def used_octets(connection: sqlite3.Connection) -> int:
    """What the store takes, without the pages that are free for what comes next."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def free_pages(connection: sqlite3.Connection) -> tuple[int, int]:
    """Free pages of the file, and all of them."""
    return (
        int(connection.execute("PRAGMA freelist_count").fetchone()[0]),
        int(connection.execute("PRAGMA page_count").fetchone()[0]),
    )


def is_billing(profile: str) -> bool:
    """Whether readings of a profile are what is billed by; other profiles, and event logs, are statistics.

    Registers that are read singly, and those of gas, water and heat meters, count as billing data.
    """
    try:
        code = Obis.parse(profile)
    except ObisError:
        return True
    return code.c != _PROFILE_OBJECTS or code.d in _LOAD_PROFILES


def purge_old(connection: sqlite3.Connection, after: int, before: int) -> Chunk:
    """Remove what was captured before a moment (seconds since 1970), and what is not to be kept, if all have it."""
    return _remove(
        connection,
        after,
        f"(b.last_at < {int(before)} OR b.handling & {NOT_KEPT}) AND NOT {_HELD}",
        frozenset((False, True)),
    )


def purge_for_room(connection: sqlite3.Connection, after: int, kind: Removal, now: datetime) -> Chunk:
    """Remove the oldest of a kind, and note the intervals as closed, so that no meter is asked for them again."""
    kinds = frozenset((False, True))
    if kind is Removal.UNSENT_STATISTICS:
        kinds = frozenset((False,))
    return _remove(connection, after, f"NOT {_HELD}" if kind is Removal.SENT else _HELD, kinds, now)


def _remove(
    connection: sqlite3.Connection, after: int, which: str, kinds: Iterable[bool], now: datetime | None = None
) -> Chunk:
    window = (
        "(SELECT * FROM batch WHERE sequence > ? ORDER BY sequence"  # noqa: S608 - our own words
        f" LIMIT {_BATCHES_AT_ONCE}) AS b"
    )
    (end,) = connection.execute(f"SELECT MAX(b.sequence) FROM {window}", (after,)).fetchone()  # noqa: S608
    if end is None:
        return Chunk(None)
    rows = connection.execute(
        f"SELECT b.sequence, b.meter_id, b.profile, b.first_at, b.last_at, {_HELD} FROM {window}"  # noqa: S608
        f" WHERE {which} ORDER BY b.sequence",
        (after,),
    ).fetchall()
    chunk = Chunk(int(end))
    for row in map(_Row._make, rows):
        if is_billing(row.profile) not in kinds:
            continue
        room = _ROWS_AT_ONCE - chunk.removed
        if room <= 0:
            chunk.position = row.sequence - 1
            break
        removed, whole = _remove_batch(connection, row, room)
        chunk.removed += removed
        if now is not None:
            _close_gap(connection, row, now)
        if row.held and removed:
            chunk.lost += removed
            chunk.lost_meters.add(row.meter_id)
            chunk.lost_first = min(row.first_at, chunk.lost_first or row.first_at)
            chunk.lost_last = max(row.last_at, chunk.lost_last or row.last_at)
        if not whole:
            chunk.position = row.sequence - 1
            break
    return chunk


def _remove_batch(connection: sqlite3.Connection, row: _Row, room: int) -> tuple[int, bool]:
    """Remove at most `room` rows of a batch; how many went, and whether nothing of it is left."""
    removed = connection.execute(
        "DELETE FROM reading WHERE (channel_id, captured_at) IN (SELECT channel_id, captured_at FROM reading"
        " WHERE channel_id IN (SELECT channel_id FROM channel WHERE meter_id = ? AND profile = ?)"
        " AND captured_at BETWEEN ? AND ? AND sequence = ? LIMIT ?)",
        (row.meter_id, row.profile, row.first_at, row.last_at, row.sequence, room),
    ).rowcount
    if removed == room:
        return removed, False
    removed += delete_events(connection, row.sequence)
    connection.execute("DELETE FROM parked_batch WHERE sequence = ?", (row.sequence,))
    connection.execute("DELETE FROM batch WHERE sequence = ?", (row.sequence,))
    return removed, True


def _close_gap(connection: sqlite3.Connection, row: _Row, now: datetime) -> None:
    near = connection.execute(
        "SELECT first_at, last_at FROM closed_gap WHERE meter_id = ? AND profile = ? AND reason = ?"
        " AND first_at <= ? AND last_at >= ? ORDER BY first_at LIMIT 1",
        (
            row.meter_id,
            row.profile,
            REMOVED_REASON,
            row.last_at + _SAME_GAP_S,
            row.first_at - _SAME_GAP_S,
        ),
    ).fetchone()
    first, last = row.first_at, row.last_at
    if near is not None:
        connection.execute(
            "DELETE FROM closed_gap WHERE meter_id = ? AND profile = ? AND first_at = ?",
            (row.meter_id, row.profile, near[0]),
        )
        first, last = min(first, near[0]), max(last, near[1])
    connection.execute(
        "INSERT OR REPLACE INTO closed_gap (meter_id, profile, first_at, last_at, reason, closed_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (row.meter_id, row.profile, first, last, REMOVED_REASON, to_epoch(now)),
    )


def purge_gaps(connection: sqlite3.Connection, before: int) -> int:
    """Remove gaps that ended before a moment (seconds since 1970): nobody asks for those times any more."""
    removed = 0
    for table in ("open_gap", "closed_gap"):
        removed += connection.execute(
            f"DELETE FROM {table} WHERE (meter_id, profile, first_at) IN (SELECT meter_id, profile, first_at"  # noqa: S608
            f" FROM {table} WHERE last_at < ? LIMIT {_ROWS_AT_ONCE // 2})",
            (before,),
        ).rowcount
    return removed


def note_loss(connection: sqlite3.Connection, detail: str, now: datetime) -> None:
    """Enter in the event log that readings went which a destination never got."""
    add_event(connection, now, "readings_lost", detail)
