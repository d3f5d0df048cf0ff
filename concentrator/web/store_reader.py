"""The store as the page reads it: read-only, on one thread, and without ever making the file.

The page runs under a user that cannot write the folder. While the service runs, its WAL and shared memory
are there to read along. After a clean stop they are gone, and SQLite would have to make them: the file is
then opened as immutable, which is right for as long as nobody writes. It is opened anew when it was
replaced (a damaged file is set aside) or when a WAL appears again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from concentrator.store.errors import StoreError, named_error
from concentrator.store.migrations import APPLICATION_ID, SCHEMA_VERSION

Result = TypeVar("Result")
_BUSY_TIMEOUT_MS = 2000


class StoreAbsentError(StoreError):
    """There is no store yet: the service has never run with this configuration."""


class StoreReader:
    """One connection on one thread, opened when it is first needed. The store's, or another file of the service's."""

    def __init__(
        self, path: Path, application_id: int = APPLICATION_ID, version: int = SCHEMA_VERSION
    ) -> None:
        self._path = path
        self._application_id = application_id
        self._version = version
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._immutable = False

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a query.

        Raises:
            StoreAbsentError: there is no file yet.
            StoreError: it cannot be read; the text says why.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._query, work)

    def close(self) -> None:
        """Let go of the file."""
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=True)

    def _query(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return work(self._current())
        except sqlite3.Error as error:
            self._drop()
            raise named_error(error, str(self._path)) from error

    def _current(self) -> sqlite3.Connection:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._drop()
            raise StoreAbsentError(
                f"store {self._path}: does not exist yet; the service makes it when it first runs"
            ) from None
        except OSError as error:
            self._drop()
            raise StoreError(f"store {self._path}: {error.strerror}; check the folder's rights") from error
        file = (found.st_dev, found.st_ino)
        written_again = self._immutable and self._wal_exists()
        if self._connection is None or file != self._opened or written_again:
            self._drop()
            self._connection, self._opened = self._open(), file
        return self._connection

    def _wal_exists(self) -> bool:
        return Path(f"{self._path}-wal").exists()

    def _open(self) -> sqlite3.Connection:
        self._immutable = False
        connection = self._connect("mode=ro")
        try:
            self._check(connection)
        except sqlite3.OperationalError:
            connection.close()
            if self._wal_exists():
                raise
            self._immutable = True
            connection = self._connect("mode=ro&immutable=1")
            self._check(connection)
        return connection

    def _connect(self, parameters: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?{parameters}", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if application == self._application_id and version == self._version:
            return
        connection.close()
        if application in (0, self._application_id) and version < self._version:
            raise StoreAbsentError(
                f"store {self._path}: has schema {version}, this release reads {self._version}; "
                "the service brings it up to date when it runs"
            )
        raise StoreError(f"store {self._path}: schema {version} of program {application:#x} is not ours")

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
