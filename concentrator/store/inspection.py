"""Whether a store is sound: SQLite's own checks, and what our tables owe each other."""

from __future__ import annotations

import sqlite3

from concentrator.store.migrations import APPLICATION_ID, SCHEMA_VERSION

_MOST_TOLD = 20

# Each counts rows that must not be, with the words for it.
_AGREEMENTS = (
    (
        "readings without their batch",
        "SELECT COUNT(*) FROM reading WHERE sequence NOT IN (SELECT sequence FROM batch)",
    ),
    (
        "readings without their channel",
        "SELECT COUNT(*) FROM reading WHERE channel_id NOT IN (SELECT channel_id FROM channel)",
    ),
    (
        "readings outside the times of their batch",
        "SELECT COUNT(*) FROM reading JOIN batch USING (sequence) WHERE captured_at NOT BETWEEN first_at AND last_at",
    ),
    (
        "batches with more readings than were stored with them",
        (
            "SELECT COUNT(*) FROM batch JOIN (SELECT sequence, COUNT(*) AS found FROM reading GROUP BY sequence)"
            " USING (sequence) WHERE found > reading_count"
        ),
    ),
    (
        "destinations whose cursor is above every batch that was ever given",
        (
            "SELECT COUNT(*) FROM destination WHERE cursor >"
            " (SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'batch')"
        ),
    ),
    (
        "ranges of acknowledgements that end before they begin, or lie below the cursor",
        (
            "SELECT COUNT(*) FROM acknowledged_range JOIN destination USING (destination_id)"
            " WHERE last < first OR last <= cursor"
        ),
    ),
    (
        "ranges of acknowledgements that overlap",
        (
            "SELECT COUNT(*) FROM acknowledged_range AS a JOIN acknowledged_range AS b USING (destination_id)"
            " WHERE b.first > a.first AND b.first <= a.last"
        ),
    ),
)


def complaints(connection: sqlite3.Connection, *, full: bool) -> list[str]:
    """What is wrong with a store, in words; empty for a sound one. `full` looks into the indexes too.

    Raises:
        sqlite3.Error: it is too damaged for a query.
    """
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if (
        application == version == 0
        and not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    ):
        # The service was cut off before it made the first table: it does so when it runs.
        return []
    if application != APPLICATION_ID:
        return [f"belongs to another program (application_id {application:#x})"]
    check = "integrity_check" if full else "quick_check"
    found = [
        f"{check}: {row[0]}" for row in connection.execute(f"PRAGMA {check}({_MOST_TOLD})") if row[0] != "ok"
    ]
    if version != SCHEMA_VERSION:
        found.append(f"has schema {version}, this release has {SCHEMA_VERSION}: the service migrates it")
        return found
    found += [
        f"foreign key: row {row[1]} of {row[0]} names a row of {row[2]} that is not there"
        for row in connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_TOLD)
    ]
    for words, query in _AGREEMENTS:
        (count,) = connection.execute(query).fetchone()
        if count:
            found.append(f"{count} {words}")
    return found
