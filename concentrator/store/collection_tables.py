"""What collection has to remember over a restart: open gaps, task runs, tasks and orders that were given.

All times are seconds since 1970, UTC.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

STATEMENTS = (
    # Intervals that a meter was asked for and had no data for: asked again until its buffer has lost them.
    """
    CREATE TABLE open_gap (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        tries INTEGER NOT NULL,
        next_try_at INTEGER NOT NULL,
        PRIMARY KEY (meter_id, profile, first_at)
    ) STRICT, WITHOUT ROWID
    """,
    # The newest run of a task that a meter is done with: `state` is done, failed or expired.
    """
    CREATE TABLE task_run (
        task TEXT NOT NULL,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        due_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        finished_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (task, meter_id)
    ) STRICT, WITHOUT ROWID
    """,
    # Tasks that came by order; those of the configuration stand there.
    """
    CREATE TABLE task (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # Orders that are carried out later than given; kept a while after their end, for whoever asks.
    """
    CREATE TABLE given_order (
        order_id TEXT PRIMARY KEY,
        payload TEXT NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT NOT NULL,
        given_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # Bit 0: not for the destinations. Bit 1: goes from the store once every destination has it.
    "ALTER TABLE batch ADD COLUMN handling INTEGER NOT NULL DEFAULT 0",
)

NOT_SENT, NOT_KEPT = 1, 2


class TaskRunRow(NamedTuple):
    """How one meter came out of a run of a task."""

    task: str
    meter: str
    due_at: int
    state: str
    attempts: int
    finished_at: int
    reason: str


class GivenOrderRow(NamedTuple):
    """An order as it was given, and what became of it. `outcome` is JSON."""

    order_id: str
    payload: str
    origin: str
    state: str
    outcome: str
    given_at: int
    changed_at: int


class GapRow(NamedTuple):
    """One open gap, as `collection/gaps.py` has it."""

    first_at: int
    last_at: int
    reason: str
    tries: int
    next_try_at: int


def keep_gaps(  # noqa: PLR0913 - one meter's gaps of one profile
    connection: sqlite3.Connection,
    meter: str,
    profile: str,
    still_open: Sequence[GapRow],
    closed: Iterable[tuple[int, int, str]],
    closed_at: int,
) -> None:
    """Replace what is open of a profile, and add what is closed now."""
    found = connection.execute("SELECT meter_id FROM meter WHERE identity = ?", (meter,)).fetchone()
    if found is None:
        return
    connection.execute("DELETE FROM open_gap WHERE meter_id = ? AND profile = ?", (found[0], profile))
    connection.executemany(
        "INSERT INTO open_gap (meter_id, profile, first_at, last_at, reason, tries, next_try_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(found[0], profile, *row) for row in still_open],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO closed_gap (meter_id, profile, first_at, last_at, reason, closed_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(found[0], profile, first, last, reason, closed_at) for first, last, reason in closed],
    )


def open_gaps(connection: sqlite3.Connection, meter: str, profile: str) -> list[GapRow]:
    """What is open of a profile, oldest first."""
    rows = connection.execute(
        "SELECT first_at, last_at, open_gap.reason, tries, next_try_at FROM open_gap JOIN meter USING (meter_id)"
        " WHERE identity = ? AND profile = ? ORDER BY first_at",
        (meter, profile),
    )
    return [GapRow(*row) for row in rows]


def keep_task_runs(connection: sqlite3.Connection, runs: Iterable[TaskRunRow]) -> None:
    """Keep how meters came out of runs: the newest of each task."""
    connection.executemany(
        "INSERT OR REPLACE INTO task_run (task, meter_id, due_at, state, attempts, finished_at, reason)"
        " SELECT ?, meter_id, ?, ?, ?, ?, ? FROM meter WHERE identity = ?",
        [
            (run.task, run.due_at, run.state, run.attempts, run.finished_at, run.reason, run.meter)
            for run in runs
        ],
    )


def task_runs(connection: sqlite3.Connection) -> list[TaskRunRow]:
    """The newest run of every task and meter."""
    rows = connection.execute(
        "SELECT task, identity, due_at, task_run.state, attempts, finished_at, task_run.reason"
        " FROM task_run JOIN meter USING (meter_id)"
    )
    return [TaskRunRow(*row) for row in rows]


def keep_task(connection: sqlite3.Connection, name: str, definition: dict[str, Any] | None) -> None:
    """Keep a task that came by order, or forget it."""
    connection.execute("DELETE FROM task WHERE name = ?", (name,))
    connection.execute("DELETE FROM task_run WHERE task = ?", (name,))
    if definition is not None:
        connection.execute(
            "INSERT INTO task (name, definition) VALUES (?, ?)", (name, json.dumps(definition))
        )


def tasks(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The tasks that came by order."""
    rows = connection.execute("SELECT definition FROM task ORDER BY name")
    return [json.loads(definition) for (definition,) in rows]


def keep_order(connection: sqlite3.Connection, row: GivenOrderRow, forget_before: int) -> None:
    """Keep an order with its state; those that ended before a moment are forgotten."""
    connection.execute(
        "INSERT OR REPLACE INTO given_order"
        " (order_id, payload, origin, state, outcome, given_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    connection.execute(
        "DELETE FROM given_order WHERE changed_at < ? AND state IN ('done', 'failed', 'expired')",
        (forget_before,),
    )


def given_orders(connection: sqlite3.Connection) -> list[GivenOrderRow]:
    """Every order that is kept, oldest first."""
    rows = connection.execute(
        "SELECT order_id, payload, origin, state, outcome, given_at, changed_at FROM given_order"
        " ORDER BY given_at, order_id"
    )
    return [GivenOrderRow(*row) for row in rows]
