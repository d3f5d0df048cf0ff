"""A disk that forgets: every write of SQLite is logged, and any moment of the log can be made a power cut.

apsw's own SQLite library runs under a VFS that logs; `connector` gives its connections the face of `sqlite3`, which
is all that the store knows. A cut keeps what was synced, and of what was written since any part, in any order, torn
at 512 octets.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from pathlib import Path

import apsw

from concentrator.store.database import set_up

SECTOR = 512


class Log:
    """What was done to the files, in order; tests add marks of their own."""

    def __init__(self) -> None:
        self.entries: list[tuple] = []

    def add(self, *entry) -> None:
        self.entries.append(entry)


class LoggingVfs(apsw.VFS):
    def __init__(self, name: str, log: Log) -> None:
        self.log, self.name = log, name
        super().__init__(name, "")

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        return _LoggingFile(self.log, name, flags)

    def xDelete(self, name, sync_directory):  # noqa: N802
        self.log.add("delete", Path(name).name)
        super().xDelete(name, sync_directory)


class _LoggingFile(apsw.VFSFile):
    def __init__(self, log: Log, name, flags) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._log, self._name = log, Path(path).name if path else ""
        super().__init__("", name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        if self._name:
            self._log.add("write", self._name, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size):  # noqa: N802
        if self._name:
            self._log.add("truncate", self._name, size)
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802
        if self._name:
            self._log.add("sync", self._name)
        super().xSync(flags)


def _named(error: apsw.Error) -> sqlite3.Error:
    named = sqlite3.OperationalError(str(error))
    named.sqlite_errorcode = getattr(error, "extendedresult", 0)
    return named


class _Cursor:
    def __init__(self, connection: apsw.Connection, run) -> None:
        before = connection.total_changes()
        try:
            self._rows = run(connection.cursor())
        except apsw.Error as error:
            raise _named(error) from error
        self.rowcount = connection.total_changes() - before
        self.lastrowid = connection.last_insert_rowid()

    def fetchone(self):
        return next(self, None)

    def fetchall(self):
        return list(self)

    def fetchmany(self, count):
        return [row for _number, row in zip(range(count), self, strict=False)]

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self._rows)
        except apsw.Error as error:
            raise _named(error) from error


class Connection:
    """An apsw connection with as much of `sqlite3.Connection` as the store uses."""

    def __init__(self, path: Path, vfs: str, pragmas: dict[str, str]) -> None:
        self._apsw = apsw.Connection(str(path), vfs=vfs)
        self._pragmas = pragmas

    def execute(self, sql: str, parameters=()):
        for before, after in self._pragmas.items():
            sql = sql.replace(before, after)
        return _Cursor(self._apsw, lambda cursor: cursor.execute(sql, tuple(parameters)))

    def executemany(self, sql: str, rows):
        return _Cursor(self._apsw, lambda cursor: cursor.executemany(sql, rows))

    @property
    def in_transaction(self) -> bool:
        return self._apsw.in_transaction

    @property
    def total_changes(self) -> int:
        return self._apsw.total_changes()

    def close(self) -> None:
        self._apsw.close()


def connector(vfs: str, *, synchronous: str | None = None, checkpoint_pages: int = 40):
    """What opens connections for a `Store`; `synchronous` overrides what the store asks for."""

    def connect(path: Path, *, query_only: bool, synchronous_asked: str) -> Connection:
        pragmas = (
            {}
            if synchronous is None
            else {f"synchronous = {synchronous_asked}": f"synchronous = {synchronous}"}
        )
        connection = Connection(path, vfs, pragmas)
        set_up(connection, query_only=query_only, synchronous=synchronous_asked)
        connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
        return connection

    return lambda path, *, query_only, synchronous="FULL": connect(
        path, query_only=query_only, synchronous_asked=synchronous
    )


class Disk:
    """The files as a power cut leaves them at a point of the log."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._synced = defaultdict(bytearray, {name: bytearray(data) for name, data in files.items()})
        self._since: dict[str, list[tuple]] = defaultdict(list)

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """What lies in a folder, all of it synced."""
        return cls({one.name: one.read_bytes() for one in directory.iterdir()})

    def apply(self, entry: tuple) -> None:
        kind, name, *rest = entry
        if kind == "sync":
            for one in self._since.pop(name, ()):
                _change(self._synced[name], one)
        elif kind == "delete":
            self._synced.pop(name, None)
            self._since.pop(name, None)
        else:
            self._since[name].append((kind, *rest))

    def cut(self, draws: random.Random, directory: Path) -> None:
        """Write the files as they may be found: each unsynced change is there, lost, or torn, in any order."""
        for old in directory.iterdir():
            old.unlink()
        for name in self._synced.keys() | self._since.keys():
            data = bytearray(self._synced.get(name, b""))
            parts = [part for one in self._since.get(name, ()) for part in _sectors(one)]
            kept = [part for part in parts if draws.random() < 0.5]
            draws.shuffle(kept)
            for part in kept:
                _change(data, part)
            (directory / name).write_bytes(data)


def _sectors(change: tuple) -> list[tuple]:
    if change[0] != "write":
        return [change]
    _kind, offset, data = change
    parts, start = [], 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        parts.append(("write", offset + start, data[start:end]))
        start = end
    return parts


def _change(data: bytearray, change: tuple) -> None:
    if change[0] == "truncate":
        size = change[1]
        del data[size:]
        data.extend(bytes(size - len(data)))
        return
    _kind, offset, written = change
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written
