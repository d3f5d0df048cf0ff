"""The highest invocation counters that came from head-ends, by client, key and system title.

They are read once at start and written with each association that opens, by a plain function that has committed when
it returns: the DLMS server is synchronous. Counters are bound to their key by a fingerprint, since a new key begins
a new count.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from concentrator.store.errors import named_error

TABLE = """
    CREATE TABLE head_end_counter (
        client_sap INTEGER NOT NULL,
        key_fingerprint TEXT NOT NULL,
        system_title BLOB NOT NULL,
        kind TEXT NOT NULL,
        highest INTEGER NOT NULL,
        PRIMARY KEY (client_sap, key_fingerprint, system_title, kind)
    ) STRICT, WITHOUT ROWID
    """
# Counts by system title and kind of key, as a security context has them.
Counters = dict[tuple[bytes, str], int]


class HeadEndCounters:
    """The table in one store, for the thread that serves head-ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, client_sap: int, key_fingerprint: str) -> Counters:
        """What is kept of one client under one key.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
                rows = connection.execute(
                    "SELECT system_title, kind, highest FROM head_end_counter"
                    " WHERE client_sap = ? AND key_fingerprint = ?",
                    (client_sap, key_fingerprint),
                ).fetchall()
        except sqlite3.Error as error:
            raise named_error(error, str(self._path)) from error
        return {(bytes(title), str(kind)): int(highest) for title, kind, highest in rows}

    def keep(self, client_sap: int, key_fingerprint: str, counters: Mapping[tuple[bytes, str], int]) -> None:
        """Write what has risen; what is kept of the client under other keys goes. On flash when this returns.

        Raises:
            StoreError: nothing was written.
        """
        rows = [
            (client_sap, key_fingerprint, title, kind, count) for (title, kind), count in counters.items()
        ]
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.execute("PRAGMA busy_timeout = 5000")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "DELETE FROM head_end_counter WHERE client_sap = ? AND key_fingerprint <> ?",
                    (client_sap, key_fingerprint),
                )
                connection.executemany(
                    "INSERT INTO head_end_counter (client_sap, key_fingerprint, system_title, kind, highest)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET highest = MAX(highest, excluded.highest)",
                    rows,
                )
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise named_error(error, str(self._path)) from error
