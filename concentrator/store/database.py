"""One SQLite file: opened with care, written by one thread, read by another.

The rules, and what each is for: WAL and `synchronous=FULL`, so that what was acknowledged survives a
power cut; one writer, so that nobody waits for a lock; readers with `query_only`; `quick_check` at start,
and a damaged file set aside rather than trusted, since the meters still hold the last weeks (docs/store.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import structlog
from sqlite_utils import Database as SqliteUtilsDatabase
from sqlite_utils.migrations import Migrations

from concentrator.store.errors import (
    StoreDamagedError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
    named_error,
)
from concentrator.store.migrations import APPLICATION_ID, SCHEMA_VERSION, migrations

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

_BUSY_TIMEOUT_MS = 5000
# A meter's answer goes into a few places of the file, a few hundred octets each: what is written is the pages around
# them, so small ones save flash (benchmarks/flash.py: a third less than with SQLite's 4096).
PAGE_OCTETS = 1024
# A page that many answers touch is folded into the file once for all of them. More would lengthen the next start.
_CHECKPOINT_PAGES = 8000
# SQLite's default; a longer WAL only makes the next start slower.
_JOURNAL_SIZE_LIMIT_OCTETS = 4 * 1024 * 1024
# The owner writes, the group (the page's user) reads, nobody else does either.
_FILE_MODE = 0o640
_OTHERS = 0o007


class Connector(Protocol):
    """Opens a connection by the rules above; tests give another, to cut the power."""

    def __call__(self, path: Path, *, query_only: bool, synchronous: str = "FULL") -> sqlite3.Connection:
        """As `connect`."""
        ...


@dataclass(frozen=True, slots=True)
class Schema:
    """What a file is to contain, and how much a power cut may cost it: nothing (FULL), or the last minutes (NORMAL)."""

    application_id: int
    version: int
    migrations: Migrations
    synchronous: str = "FULL"


class CheckpointResult(NamedTuple):
    """What came of folding the WAL into the file; `blocked`: a reader holds on to it. Octets left in the WAL."""

    blocked: bool
    wal_octets: int


STORE_SCHEMA = Schema(APPLICATION_ID, SCHEMA_VERSION, migrations)


def connect(path: Path, *, query_only: bool, synchronous: str = "FULL") -> sqlite3.Connection:
    """A connection set up by the rules above; `query_only` for everybody but the writer.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        set_up(connection, query_only=query_only, synchronous=synchronous)
    except sqlite3.Error as error:
        raise named_error(error, str(path)) from error
    return connection


def set_up(connection: sqlite3.Connection, *, query_only: bool, synchronous: str = "FULL") -> None:
    """The pragmas of a connection."""
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    if query_only:
        connection.execute("PRAGMA query_only = 1")
    else:
        # These two take effect only before the first table exists: a new file has small pages, and can give space back.
        connection.execute(f"PRAGMA page_size = {PAGE_OCTETS}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT_OCTETS}")


def damage_mark(path: Path) -> Path:
    """The file that says that the next start has to set a store aside, whatever `quick_check` finds."""
    return path.with_name(f"{path.name}.damaged")


def _damage_of(path: Path) -> str:
    """What was found while it ran, or what `quick_check` complains of; "" for a sound file."""
    mark = damage_mark(path)
    if mark.exists():
        return mark.read_text(errors="replace").strip() or "found damaged while it was in use"
    try:
        with closing(sqlite3.connect(path)) as connection:
            verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return "" if verdict == "ok" else verdict
    except sqlite3.DatabaseError as error:
        named = named_error(error, str(path))
        if isinstance(named, StoreDamagedError):
            return str(error)
        raise named from error


def _set_aside(path: Path) -> Path:
    """Rename a damaged file and its WAL, for analysis; returns the new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        source = Path(f"{path}{suffix}")
        if source.exists():
            source.rename(f"{aside}{suffix}")
    damage_mark(path).unlink(missing_ok=True)
    return aside


def _close_to_others(path: Path) -> None:
    """Make the file as nobody else may read it; the WAL gets the mode of the file."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, _FILE_MODE))
        if path.stat().st_mode & _OTHERS:
            path.chmod(_FILE_MODE)


class Database:
    """The file and its two threads. `set_aside` names the damaged file that was found at start, if any.

    `failure` is why it cannot be used now, if it cannot; `damaged` is set when the file is found damaged in use.
    """

    def __init__(self, path: Path, schema: Schema = STORE_SCHEMA, connector: Connector = connect) -> None:
        """Open, check and migrate.

        Raises:
            StoreVersionError: the file is another program's, or a newer release's.
            StoreError: it cannot be opened or created.
        """
        self.path = path
        self.set_aside: Path | None = None
        self.damaged = asyncio.Event()
        self.wrote_at = time.monotonic()
        self._schema = schema
        self._failures: dict[str, StoreError] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {path}: its folder cannot be made: {error}") from error
        if path.exists() and (verdict := _damage_of(path)):
            self.set_aside = _set_aside(path)
            log.error("store damaged, set aside", path=str(path), verdict=verdict, aside=str(self.set_aside))
        _close_to_others(path)
        self._writing = connector(path, query_only=False, synchronous=schema.synchronous)
        try:
            self._migrate()
        except sqlite3.Error as error:
            self._writing.close()
            raise named_error(error, str(path)) from error
        except StoreError:
            self._writing.close()
            raise
        self._reading = connector(path, query_only=True)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    @property
    def failure(self) -> StoreError | None:
        """Why the last write or read failed; None while both work."""
        return next(iter(self._failures.values()), None)

    def _migrate(self) -> None:
        version = int(self._writing.execute("PRAGMA user_version").fetchone()[0])
        application = int(self._writing.execute("PRAGMA application_id").fetchone()[0])
        schema = self._schema
        if application not in (0, schema.application_id):
            raise StoreVersionError(f"store {self.path}: belongs to another program; give another file")
        if version > schema.version:
            raise StoreVersionError(
                f"store {self.path}: has schema {version}, this release knows up to {schema.version}; "
                "install the newer release again or give another file"
            )
        if version < schema.version:
            schema.migrations.apply(SqliteUtilsDatabase(self._writing))

    def newest_sequence(self) -> int:
        """The highest batch number that was ever given; 0 in a new file. To be asked before anybody else uses it."""
        row = self._writing.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone()
        return int(row[0]) if row else 0

    def at_start(self, work: Work[Result]) -> Result:
        """Run `work` on the writer's connection, before anybody else uses it."""
        try:
            return _in_transaction(self._writing, work)
        except sqlite3.Error as error:
            raise named_error(error, str(self.path)) from error

    def fold(self) -> None:
        """Put what is written on flash, and into the file itself; before anybody else uses it.

        Raises:
            StoreUnavailableError: it cannot be done.
        """
        try:
            (blocked, _pages, _folded) = self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise named_error(error, str(self.path)) from error
        if blocked:
            raise StoreUnavailableError(f"store {self.path}: another program reads it; end that program")

    async def write(self, work: Work[Result]) -> Result:
        """Run `work` in one transaction on the writer's thread; returns once it is on flash.

        Raises:
            StoreUnavailableError: the disk is full, read-only, failing or damaged; nothing was changed.
        """
        result = await self._run(self._writer, "write", lambda: _in_transaction(self._writing, work))
        self.wrote_at = time.monotonic()
        return result

    async def read(self, work: Work[Result]) -> Result:
        """Run `work` on the reader's thread and connection.

        Raises:
            StoreError: it cannot be read; the text says why.
        """
        return await self._run(self._reader, "read", lambda: work(self._reading))

    async def _run(self, thread: ThreadPoolExecutor, kind: str, work: Callable[[], Result]) -> Result:
        def named() -> Result:
            try:
                return work()
            except sqlite3.Error as error:
                raise named_error(error, str(self.path)) from error

        try:
            result = await asyncio.get_running_loop().run_in_executor(thread, named)
        except StoreUnavailableError as error:
            if kind not in self._failures:
                log.error("store unavailable", state=error.state, reason=str(error))
            self._failures[kind] = error
            if isinstance(error, StoreDamagedError):
                self._note_damage(error)
            raise
        if self._failures.pop(kind, None) is not None:
            log.info("store available again", path=str(self.path))
        return result

    def _note_damage(self, error: StoreDamagedError) -> None:
        """Have the file set aside at the next start: `quick_check` does not see all that queries stumble over."""
        # A disk that takes no mark takes no rows either; then `quick_check` has to do.
        with contextlib.suppress(OSError):
            damage_mark(self.path).write_text(f"{error}\n")
        self.damaged.set()

    def wal_octets(self) -> int:
        """How long the WAL is."""
        try:
            return Path(f"{self.path}-wal").stat().st_size
        except OSError:
            return 0

    async def checkpoint(self) -> CheckpointResult:
        """Fold the WAL into the file and cut it to nothing; a reader that holds on to it is not waited for.

        Raises:
            StoreError: it cannot be done; the text says why.
        """

        def work() -> bool:
            connection = self._writing
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            finally:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")

        blocked = await self._run(self._writer, "write", work)
        return CheckpointResult(blocked, self.wal_octets())

    async def give_back_pages(self, pages: int) -> None:
        """Cut up to so many free pages off the file."""

        def work() -> None:
            # Each row is a page: they are given back while the rows are fetched.
            self._writing.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()

        await self._run(self._writer, "write", work)

    def close(self) -> None:
        """Finish what is queued, fold the WAL into the file, close."""
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)
        for connection in (self._reading, self._writing):
            # A card that is gone takes no last checkpoint: the WAL has everything for the next start.
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _in_transaction(connection: sqlite3.Connection, work: Work[Result]) -> Result:
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
