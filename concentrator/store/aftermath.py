"""What a new file has to know of the damaged one that it follows: numbers that must never be given twice.

Receivers drop repeats by the number of a batch, and a counter used twice with one key breaks AES-GCM. What the damaged
file still tells of counters is taken over; what it does not begins at the seconds since 1970, which no counter that
began at 1 and rises with each telegram has reached.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from concentrator.store import counters
from concentrator.store.database import Database
from concentrator.store.readings import to_epoch

# For a box whose clock is not set yet.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


def follow_damaged(database: Database, aside: Path, now: datetime) -> None:
    """Begin the numbers of a new file above those of the damaged one.

    Raises:
        StoreError: the new file cannot be written.
    """
    floor = to_epoch(max(now, _EARLIEST))
    newest = _readable(aside, "SELECT 'batch', seq FROM sqlite_sequence WHERE name = 'batch'")
    known = _readable(aside, "SELECT name, reserved FROM invocation_counter")
    first = max([floor, *(seq + counters.BLOCK for _name, seq in newest)])

    def work(connection: sqlite3.Connection) -> None:
        # A row of the table that AUTOINCREMENT goes on from (SQLite, "Autoincrement").
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'batch'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('batch', ?)", (first,))
        counters.begin_above(connection, floor, known)

    database.at_start(work)


def _readable(aside: Path, query: str) -> list[tuple[str, int]]:
    """As many rows as can be read."""
    found: list[tuple[str, int]] = []
    try:
        with closing(sqlite3.connect(aside)) as connection:
            found.extend(
                (name, number)
                for name, number in connection.execute(query)
                if isinstance(name, str) and isinstance(number, int)
            )
    except sqlite3.Error:
        return found
    return found
