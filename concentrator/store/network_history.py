"""The rows of a PLC network's history: changes of nodes, hours of the network, days of each node.

`NetworkHour` and `NodeDay` are what the reports of the Spanish concentrator interface call G01 and G02.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that became of a node: `what` is joined, left, moved or role; `why` says it in words."""

    at: float  # seconds since 1970
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class NetworkHour:
    """A row of G01."""

    start: int  # seconds since 1970
    mean: float  # nodes available, mean over the time that the concentrator was up
    highest: int
    lowest: int
    total: int  # nodes known
    up_minutes: float

    @property
    def percent(self) -> float:
        """Share of the known nodes that were available."""
        return _PERCENT * self.mean / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class NodeDay:
    """A row of G02."""

    start: int  # seconds since 1970
    available_minutes: float
    changes: int  # times that it came or went
    up_minutes: float  # of the concentrator and its modem

    @property
    def percent(self) -> float:
        """Share of the time that the concentrator was up."""
        return _PERCENT * self.available_minutes / self.up_minutes if self.up_minutes else 0.0


def _no_state() -> dict[str, Any]:
    return {}


@dataclass(slots=True)
class HistoryBatch:
    """What is kept of a history, or what is new in it since it was kept last. EUIs are in hexadecimal."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    changes: list[tuple[str, Change]] = field(default_factory=list[tuple[str, Change]])
    hours: list[NetworkHour] = field(default_factory=list[NetworkHour])
    days: list[tuple[str, NodeDay]] = field(default_factory=list[tuple[str, NodeDay]])
    forgotten: list[str] = field(default_factory=list[str])  # nodes that are not kept any more
    running: dict[str, Any] = field(default_factory=_no_state)  # counts of the hour and day that are not over


RUNNING_SETTING = "network_history"


def save(
    connection: sqlite3.Connection, batch: HistoryBatch, hours: int, days: int, changes_of_a_node: int
) -> None:
    """Add what is new, and let go what is older than so many hours, days and changes."""
    for eui in batch.forgotten:
        for table in ("network_node", "network_change", "network_node_day"):
            connection.execute(f"DELETE FROM {table} WHERE eui = ?", (eui,))  # noqa: S608 - our own names
    connection.executemany(
        "INSERT INTO network_node (eui, state) VALUES (?, ?)"
        " ON CONFLICT (eui) DO UPDATE SET state = excluded.state WHERE state IS NOT excluded.state",
        [(eui, json.dumps(state, separators=(",", ":"))) for eui, state in batch.nodes.items()],
    )
    connection.executemany(
        "INSERT INTO network_change (eui, happened_at, what, why) VALUES (?, ?, ?, ?)",
        [(eui, change.at, change.what, change.why) for eui, change in batch.changes],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO network_hour (start, mean, highest, lowest, total, up_minutes)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(one.start, one.mean, one.highest, one.lowest, one.total, one.up_minutes) for one in batch.hours],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO network_node_day (eui, start, available_minutes, changes, up_minutes)"
        " VALUES (?, ?, ?, ?, ?)",
        [(eui, day.start, day.available_minutes, day.changes, day.up_minutes) for eui, day in batch.days],
    )
    connection.execute(
        "INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)",
        (RUNNING_SETTING, json.dumps(batch.running)),
    )
    if batch.hours:
        connection.execute(
            "DELETE FROM network_hour WHERE start <= ?", (batch.hours[-1].start - 3600 * hours,)
        )
    if batch.days:
        connection.execute(
            "DELETE FROM network_node_day WHERE start <= ?", (batch.days[-1][1].start - 86_400 * days,)
        )
    for eui in {eui for eui, _change in batch.changes}:
        connection.execute(
            "DELETE FROM network_change WHERE eui = ? AND change_id <= (SELECT change_id FROM network_change"
            " WHERE eui = ? ORDER BY change_id DESC LIMIT 1 OFFSET ?)",
            (eui, eui, changes_of_a_node),
        )


def load(connection: sqlite3.Connection) -> HistoryBatch:
    """Everything that is kept, oldest first."""
    batch = HistoryBatch()
    batch.nodes = {
        eui: json.loads(state) for eui, state in connection.execute("SELECT eui, state FROM network_node")
    }
    batch.changes = [
        (eui, Change(at, what, why))
        for eui, at, what, why in connection.execute(
            "SELECT eui, happened_at, what, why FROM network_change ORDER BY change_id"
        )
    ]
    batch.hours = [
        NetworkHour(*row)
        for row in connection.execute(
            "SELECT start, mean, highest, lowest, total, up_minutes FROM network_hour ORDER BY start"
        )
    ]
    batch.days = [
        (eui, NodeDay(*row))
        for eui, *row in connection.execute(
            "SELECT eui, start, available_minutes, changes, up_minutes FROM network_node_day ORDER BY start"
        )
    ]
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (RUNNING_SETTING,)).fetchone()
    batch.running = json.loads(row[0]) if row else {}
    return batch


def signs(connection: sqlite3.Connection, first: float, last: float) -> list[tuple[float, str, str]]:
    """When nodes left and joined: time, EUI in hexadecimal, and what; oldest first."""
    return connection.execute(
        "SELECT happened_at, eui, what FROM network_change"
        " WHERE happened_at BETWEEN ? AND ? AND what IN ('left', 'joined') ORDER BY happened_at",
        (first, last),
    ).fetchall()
