"""Invocation counters that no crash can repeat.

A counter used twice with one key breaks AES-GCM, so the store reserves a block ahead of use: what stands
in the file is a counter that was never used, whatever happens to the process. A restart skips the rest
of the block, which costs nothing: 32 bits last for centuries of polling.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from concentrator.errors import LocalError
from concentrator.store.errors import named_error

BLOCK = 1000
_FLOOR_SETTING = "invocation_counter_floor"
_LARGEST = 2**32 - 1


class CounterExhaustedError(LocalError):
    """The 32 bits of an invocation counter are used up: the key must be changed."""


def reserve(connection: sqlite3.Connection, name: str, at_least: int, count: int = BLOCK) -> range:
    """Reserve the next `count` values of a counter, none of them below `at_least`."""
    row = connection.execute("SELECT reserved FROM invocation_counter WHERE name = ?", (name,)).fetchone()
    first = max(int(row[0]) + 1 if row else _floor(connection), at_least)
    last = first + count - 1
    if last > _LARGEST:
        raise CounterExhaustedError(f"invocation counter {name}: used up; change the key of this meter")
    connection.execute(
        "INSERT INTO invocation_counter (name, reserved) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET reserved = excluded.reserved",
        (name, last),
    )
    return range(first, last + 1)


def _floor(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (_FLOOR_SETTING,)).fetchone()
    return int(row[0]) + 1 if row else 1


def begin_above(connection: sqlite3.Connection, floor: int, known: Iterable[tuple[str, int]]) -> None:
    """In a new file that follows a damaged one: no counter begins below what may have been used.

    `known` are counters that could still be read; every other one begins above `floor`.
    """
    connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (_FLOOR_SETTING, floor))
    connection.executemany(
        "INSERT OR REPLACE INTO invocation_counter (name, reserved) VALUES (?, ?)",
        [(name, max(min(reserved, _LARGEST), 0)) for name, reserved in known],
    )


class InvocationCounter:
    """Hands out the values of one counter; `next()` is called by the DLMS stack for each ciphered APDU.

    The DLMS stack is synchronous and must not wait for an event loop, so a block is reserved by
    `reserve_block`, a plain function that commits before it returns. It is called once per 1000 APDUs.
    """

    def __init__(self, name: str, reserve_block: Callable[[str, int], range]) -> None:
        self._name = name
        self._reserve_block = reserve_block
        self._block: range = range(0)
        self._at_least = 0

    def next(self) -> int:
        """The next value, never given before."""
        if not self._block:
            self._block = self._reserve_block(self._name, self._at_least)
        value = self._block[0]
        self._block = self._block[1:]
        return value

    def raise_to(self, at_least: int) -> None:
        """Skip to `at_least`: the meter expects a higher counter than ours (it was read by another box)."""
        self._at_least = max(self._at_least, at_least)
        if self._block and self._block[0] < at_least:
            self._block = self._block[max(0, at_least - self._block[0]) :]


def reserve_on_own_connection(path: Path) -> Callable[[str, int], range]:
    """A reserving function with a connection of its own, committed (and synced) before it returns."""

    def reserve_block(name: str, at_least: int) -> range:
        try:
            connection = sqlite3.connect(path, isolation_level=None)
            try:
                connection.execute("PRAGMA busy_timeout = 5000")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                block = reserve(connection, name, at_least)
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise named_error(error, str(path)) from error
        return block

    return reserve_block
