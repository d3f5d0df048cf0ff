"""The second file: figures and histories that are worth keeping, and that nothing depends on.

What arrives from meters, is owed to a destination or must never be used twice stands in the store, on flash when it is
acknowledged. Figures by day and the history of the network stand here, with `synchronous = NORMAL`: a power cut may
cost the last minutes of them, never the file. A file that is damaged is set aside and begun anew at once; one that
cannot be opened is replaced by one in the temporary folder until the next start. Neither stops the service.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import TypeVar

import structlog
from sqlite_utils import Database as SqliteUtilsDatabase
from sqlite_utils.migrations import Migrations

from concentrator.store.database import Connector, Database, Schema, Work, connect
from concentrator.store.errors import StoreDamagedError, StoreError
from concentrator.store.network_history import RUNNING_SETTING

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

# "ODCt" in SQLite's header.
STATISTICS_APPLICATION_ID = 0x4F444374
STATISTICS_VERSION = 1

statistics_migrations = Migrations("concentrator-statistics")

_INITIAL = (
    """
    CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value ANY NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # `state` is JSON: where the node hangs, and its counts of the day that is not over.
    """
    CREATE TABLE network_node (
        eui TEXT PRIMARY KEY,
        state TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE network_change (
        change_id INTEGER PRIMARY KEY,
        eui TEXT NOT NULL,
        happened_at REAL NOT NULL,
        what TEXT NOT NULL,
        why TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX network_change_of_node ON network_change (eui, change_id)",
    """
    CREATE TABLE network_hour (
        start INTEGER PRIMARY KEY,
        mean REAL NOT NULL,
        highest INTEGER NOT NULL,
        lowest INTEGER NOT NULL,
        total INTEGER NOT NULL,
        up_minutes REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE network_node_day (
        eui TEXT NOT NULL,
        start INTEGER NOT NULL,
        available_minutes REAL NOT NULL,
        changes INTEGER NOT NULL,
        up_minutes REAL NOT NULL,
        PRIMARY KEY (eui, start)
    ) STRICT, WITHOUT ROWID
    """,
    # Figures of each day (its beginning in seconds since 1970, UTC): of the whole as JSON, and of each meter.
    """
    CREATE TABLE kpi_day (
        day INTEGER PRIMARY KEY,
        figures TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE kpi_meter_day (
        day INTEGER NOT NULL,
        meter TEXT NOT NULL,
        expected INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        at_0800 INTEGER NOT NULL,
        at_d1 INTEGER NOT NULL,
        at_d3 INTEGER NOT NULL,
        visits INTEGER NOT NULL,
        first_tries INTEGER NOT NULL,
        first_successes INTEGER NOT NULL,
        retries INTEGER NOT NULL,
        dialogue_s REAL NOT NULL,
        PRIMARY KEY (day, meter)
    ) STRICT, WITHOUT ROWID
    """,
)

# Of a store that had these tables itself (schemas 2 to 7): the same columns, but for the name of the meter.
_MOVED = {
    "network_node": "SELECT eui, state FROM network_node",
    "network_change": "SELECT change_id, eui, happened_at, what, why FROM network_change",
    "network_hour": "SELECT start, mean, highest, lowest, total, up_minutes FROM network_hour",
    "network_node_day": "SELECT eui, start, available_minutes, changes, up_minutes FROM network_node_day",
    "kpi_day": "SELECT day, figures FROM kpi_day",
    "kpi_meter_day": "SELECT day, identity, expected, stored, closed, at_0800, at_d1, at_d3, visits, first_tries,"
    " first_successes, retries, dialogue_s FROM kpi_meter_day JOIN meter USING (meter_id)",
}


@statistics_migrations()
def s0001_initial(database: SqliteUtilsDatabase) -> None:
    """Figures of each day, and the history of the network."""
    for statement in _INITIAL:
        database.conn.execute(statement)
    database.conn.execute(f"PRAGMA application_id = {STATISTICS_APPLICATION_ID}")
    database.conn.execute("PRAGMA user_version = 1")


STATISTICS_SCHEMA = Schema(
    STATISTICS_APPLICATION_ID, STATISTICS_VERSION, statistics_migrations, synchronous="NORMAL"
)


def statistics_path(store: Path) -> Path:
    """Where the statistics of a store are."""
    return store.with_name("statistics.db")


class Statistics:
    """The file, and what becomes of it when it cannot be used."""

    def __init__(self, path: Path, connector: Connector = connect) -> None:
        self.path = path
        self._connector = connector
        self._replacement: tempfile.TemporaryDirectory[str] | None = None
        self._database = self._open()

    @property
    def replaced(self) -> bool:
        """Whether the file cannot be opened, and another stands in for it until the next start."""
        return self._replacement is not None

    def _open(self) -> Database:
        try:
            return Database(self.path, STATISTICS_SCHEMA, self._connector)
        except StoreError as error:
            log.error("statistics cannot be kept over a restart", path=str(self.path), reason=str(error))
        self._replacement = tempfile.TemporaryDirectory(prefix="concentrator-")
        return Database(Path(self._replacement.name) / "statistics.db", STATISTICS_SCHEMA)

    def take_over(self, store: Database) -> None:
        """Move what a store of an older schema has: first it is on flash here, then it goes there.

        A cut in between leaves both; the next start finds them equal, and goes on. A store that is full or
        read-only keeps its tables until a later start.
        """
        if self.replaced:
            return
        try:
            if store.at_start(_has_statistics):
                store.at_start(self._copy)
                self._database.fold()
                store.at_start(_drop)
        except StoreError as error:
            log.error("statistics of the older store not moved", path=str(self.path), reason=str(error))

    def _copy(self, connection: sqlite3.Connection) -> None:
        def insert(into: sqlite3.Connection) -> None:
            for table, query in _MOVED.items():
                if not _has_table(connection, table):
                    continue
                rows = connection.execute(query)
                marks = ", ".join("?" * len(rows.description))
                into.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our own names
            into.executemany(
                "INSERT OR IGNORE INTO setting (name, value) VALUES (?, ?)",
                connection.execute("SELECT name, value FROM setting WHERE name = ?", (RUNNING_SETTING,)),
            )

        self._database.at_start(insert)

    async def read(self, work: Work[Result]) -> Result:
        """Run a query.

        Raises:
            StoreError: it cannot be read now.
        """
        try:
            return await self._database.read(work)
        except StoreDamagedError:
            self._begin_anew()
            return await self._database.read(work)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in a transaction; a power cut may undo it.

        Raises:
            StoreError: it cannot be written now.
        """
        try:
            return await self._database.write(work)
        except StoreDamagedError:
            self._begin_anew()
            return await self._database.write(work)

    def _begin_anew(self) -> None:
        self._database.close()
        self._database = self._open()

    def close(self) -> None:
        """Close the file."""
        self._database.close()
        if self._replacement is not None:
            with contextlib.suppress(OSError):
                self._replacement.cleanup()


def _has_table(connection: sqlite3.Connection, table: str) -> bool:
    return bool(
        connection.execute(
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchone()[0]
    )


def _has_statistics(connection: sqlite3.Connection) -> bool:
    return any(_has_table(connection, table) for table in _MOVED)


def _drop(connection: sqlite3.Connection) -> None:
    for table in _MOVED:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.execute("DELETE FROM setting WHERE name = ?", (RUNNING_SETTING,))
