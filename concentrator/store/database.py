"""One SQLite file: opened with care, written by one thread, read by another.

The rules, and what each is for: WAL and `synchronous=FULL`, so that what was acknowledged survives a
power cut; one writer, so that nobody waits for a lock; readers with `query_only`; `quick_check` at start,
and a damaged file set aside rather than trusted, since the meters still hold the last weeks
(concentrator-practice, section 4).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import structlog
from sqlite_utils import Database as SqliteUtilsDatabase

from concentrator.store.errors import StoreError, StoreUnavailableError, StoreVersionError, named_error
from concentrator.store.migrations import APPLICATION_ID, SCHEMA_VERSION, migrations

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

_BUSY_TIMEOUT_MS = 5000
# SQLite's default; a longer WAL only makes the next start slower.
_JOURNAL_SIZE_LIMIT_OCTETS = 4 * 1024 * 1024


def connect(path: Path, *, query_only: bool) -> sqlite3.Connection:
    """A connection set up by the rules above; `query_only` for everybody but the writer.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        if query_only:
            connection.execute("PRAGMA query_only = 1")
        else:
            # Takes effect only before the first table exists: a new file can give space back later.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT_OCTETS}")
    except sqlite3.Error as error:
        raise named_error(error, str(path)) from error
    return connection


def _is_damaged(path: Path) -> str:
    """What `quick_check` complains of; "" for a sound file."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return "" if verdict == "ok" else verdict
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return str(error)
        raise named_error(error, str(path)) from error


def _set_aside(path: Path) -> Path:
    """Rename a damaged file and its WAL, for analysis; returns the new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        source = Path(f"{path}{suffix}")
        if source.exists():
            source.rename(f"{aside}{suffix}")
    return aside


class Database:
    """The file and its two threads. `set_aside` names the damaged file that was found at start, if any."""

    def __init__(self, path: Path) -> None:
        """Open, check and migrate.

        Raises:
            StoreVersionError: the file is another program's, or a newer release's.
            StoreError: it cannot be opened or created.
        """
        self.path = path
        self.set_aside: Path | None = None
        self.unavailable: str = ""  # why the last write failed; "" while writing works
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {path}: its folder cannot be made: {error}") from error
        if path.exists() and (verdict := _is_damaged(path)):
            self.set_aside = _set_aside(path)
            log.error("store damaged, set aside", path=str(path), verdict=verdict, aside=str(self.set_aside))
        self._writing = connect(path, query_only=False)
        try:
            self._migrate()
        except sqlite3.Error as error:
            self._writing.close()
            raise named_error(error, str(path)) from error
        except StoreError:
            self._writing.close()
            raise
        self._reading = connect(path, query_only=True)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    def _migrate(self) -> None:
        version = int(self._writing.execute("PRAGMA user_version").fetchone()[0])
        application = int(self._writing.execute("PRAGMA application_id").fetchone()[0])
        if application not in (0, APPLICATION_ID):
            raise StoreVersionError(f"store {self.path}: belongs to another program; give another file")
        if version > SCHEMA_VERSION:
            raise StoreVersionError(
                f"store {self.path}: has schema {version}, this release knows up to {SCHEMA_VERSION}; "
                "install the newer release again or give another file"
            )
        migrations.apply(SqliteUtilsDatabase(self._writing))

    def newest_sequence(self) -> int:
        """The highest batch number that was ever given; 0 in a new file."""
        row = self._writing.execute("SELECT MAX(sequence) FROM batch").fetchone()
        return int(row[0] or 0)

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in one transaction on the writer's thread; returns once it is on flash.

        Raises:
            StoreUnavailableError: the disk is full, read-only or failing; nothing was changed.
        """

        def transaction() -> Result:
            connection = self._writing
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise named_error(error, str(self.path)) from error
                raise
            return result

        try:
            result = await asyncio.get_running_loop().run_in_executor(self._writer, transaction)
        except StoreUnavailableError as error:
            if not self.unavailable:
                log.error("store unavailable", reason=str(error))
            self.unavailable = str(error)
            raise
        if self.unavailable:
            log.info("store available again")
            self.unavailable = ""
        return result

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` on the reader's thread and connection."""

        def query() -> Result:
            try:
                return work(self._reading)
            except sqlite3.Error as error:
                raise named_error(error, str(self.path)) from error

        return await asyncio.get_running_loop().run_in_executor(self._reader, query)

    def close(self) -> None:
        """Finish what is queued, fold the WAL into the file, close."""
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)
        self._reading.close()
        self._writing.close()
