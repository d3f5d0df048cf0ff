"""What can go wrong with the store, named by what the operator has to do about it."""

from __future__ import annotations

import sqlite3
from typing import ClassVar

from concentrator.errors import ConcentratorError, LocalError


class StoreError(ConcentratorError):
    """Root of the store's errors."""


class StoreUnavailableError(StoreError):
    """The store cannot take data now. Polling pauses; page and uplink go on; it recovers by itself.

    `state` is the name of this state in the status and in the event log.
    """

    state: ClassVar[str] = "busy"


class StoreFullError(StoreUnavailableError):
    """The file system is full."""

    state = "disk full"


class StoreReadOnlyError(StoreUnavailableError):
    """The file system or the file is read-only."""

    state = "read-only"


class StoreInputOutputError(StoreUnavailableError):
    """The storage device reported an error."""

    state = "input/output error"


class StoreDamagedError(StoreUnavailableError):
    """The file is damaged: it is set aside when it is opened anew, and the meters are read again."""

    state = "damaged"


class StoreVersionError(StoreError, LocalError):
    """The file belongs to another program, or to a newer release than this one."""


_BY_CODE: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_FULL: (StoreFullError, "free space on the data partition"),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnlyError,
        "check the mount and the log",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreReadOnlyError,
        "check the folder and its rights",
    ),
    sqlite3.SQLITE_IOERR: (StoreInputOutputError, "check the card"),
    sqlite3.SQLITE_CORRUPT: (StoreDamagedError, "it is set aside and the meters are read again"),
    sqlite3.SQLITE_NOTADB: (StoreDamagedError, "it is set aside and the meters are read again"),
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "another program holds the file"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "another program holds the file"),
}


def named_error(error: sqlite3.Error, path: str) -> StoreError:
    """The error of ours that says what an SQLite error means for the operator."""
    # The primary result code is the low octet of the extended one.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, advice = _BY_CODE.get(code, (StoreError, "see the log"))
    return kind(f"store {path}: {error}; {advice}")
