"""A copy of the store while it is written: whole, or without its readings."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from concentrator.store.database import PAGE_OCTETS
from concentrator.store.errors import named_error

# What readings are made of, and what waits to be sent of them.
READING_TABLES = frozenset({"reading", "batch", "acknowledged_range", "parked_batch", "meter_event"})


def copy_store(source: Path, target: Path, *, with_readings: bool) -> None:
    """Copy the store into a new file, as it is at one moment.

    Raises:
        StoreError: it cannot be read, or the copy cannot be written.
    """
    try:
        if with_readings:
            _copy_whole(source, target)
        else:
            _copy_without_readings(source, target)
    except sqlite3.Error as error:
        raise named_error(error, str(source)) from error


def _copy_whole(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new, pages=1000)
        # In WAL mode a copy would bring a second file with it.
        new.execute("PRAGMA journal_mode = DELETE")


def _copy_without_readings(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(target, uri=True, isolation_level=None)) as new:
        new.execute(f"PRAGMA page_size = {PAGE_OCTETS}")
        new.execute("ATTACH ? AS old", (f"{source.as_uri()}?mode=ro",))
        new.execute("BEGIN")
        made = new.execute("SELECT type, name, sql FROM old.sqlite_master WHERE sql IS NOT NULL").fetchall()
        own = [one for one in made if not one[1].startswith("sqlite_")]
        tables = [(name, sql) for kind, name, sql in own if kind == "table"]
        for name, sql in tables:
            new.execute(sql)
            if name not in READING_TABLES:
                new.execute(f'INSERT INTO main."{name}" SELECT * FROM old."{name}"')  # noqa: S608 - the store's own names
        # Numbers of batches go on above those that were given: a head-end has seen them.
        new.execute("DELETE FROM main.sqlite_sequence")
        new.execute("INSERT INTO main.sqlite_sequence SELECT * FROM old.sqlite_sequence")
        for kind, _name, sql in own:
            if kind != "table":
                new.execute(sql)
        application = int(new.execute("PRAGMA old.application_id").fetchone()[0])
        schema = int(new.execute("PRAGMA old.user_version").fetchone()[0])
        new.execute("COMMIT")
        new.execute("DETACH old")
        new.execute(f"PRAGMA main.application_id = {application}")
        new.execute(f"PRAGMA main.user_version = {schema}")
