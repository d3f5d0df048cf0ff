"""Batches that a destination will never take as they are: out of the way of the others, and not forgotten.

A parked batch counts as dealt with for the queue; its row here tells that the destination does not have it, and why.
Its readings stay in the store as all others do.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from concentrator.store.readings import from_epoch, to_epoch

STATEMENTS = (
    """
    CREATE TABLE parked_batch (
        destination_id INTEGER NOT NULL REFERENCES destination (destination_id),
        sequence INTEGER NOT NULL,
        parked_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (destination_id, sequence)
    ) STRICT, WITHOUT ROWID
    """,
)


@dataclass(frozen=True, slots=True)
class ParkedBatch:
    """One batch that a destination refused for good."""

    sequence: int
    parked_at: datetime
    reason: str


def park(connection: sqlite3.Connection, destination: str, sequence: int, reason: str, at: datetime) -> None:
    """Note that a destination refused a batch for good."""
    connection.execute(
        "INSERT OR REPLACE INTO parked_batch (destination_id, sequence, parked_at, reason)"
        " SELECT destination_id, ?, ?, ? FROM destination WHERE name = ?",
        (sequence, to_epoch(at), reason, destination),
    )


def load(connection: sqlite3.Connection, destination: str) -> list[ParkedBatch]:
    """What is parked of a destination, oldest first."""
    rows = connection.execute(
        "SELECT sequence, parked_at, reason FROM parked_batch JOIN destination USING (destination_id)"
        " WHERE name = ? ORDER BY sequence",
        (destination,),
    )
    return [ParkedBatch(sequence, from_epoch(at), reason) for sequence, at, reason in rows]


def release(connection: sqlite3.Connection, destination: str, sequence: int) -> None:
    """Note that a destination has taken a batch after all."""
    connection.execute(
        "DELETE FROM parked_batch WHERE sequence = ? AND destination_id ="
        " (SELECT destination_id FROM destination WHERE name = ?)",
        (sequence, destination),
    )
