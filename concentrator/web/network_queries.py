"""What the page asks of the network's history: places, changes, hours and days."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from concentrator.store.network_history import NetworkHour, NodeDay


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One thing that became of a node: `what` is joined, left, moved or role."""

    at: datetime
    what: str
    why: str


def places(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Every node as it was last kept, in the shape in which the service tells it."""
    rows = connection.execute("SELECT eui, state FROM network_node ORDER BY eui").fetchall()
    return [_place(eui, state) for eui, state in rows]


def names(connection: sqlite3.Connection) -> dict[str, str]:
    """The meters on the power line by EUI."""
    return dict(connection.execute("SELECT link_address, identity FROM meter WHERE link = 'plc'"))


def _place(eui: str, text: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(text)
    since = state.get("since")
    return {
        **state,
        "eui": eui,
        "meter": "",
        "since": datetime.fromtimestamp(since, UTC).isoformat() if since else None,
    }


def changes(connection: sqlite3.Connection, eui: str, limit: int) -> list[NodeChange]:
    """What became of a node, newest first."""
    rows = connection.execute(
        "SELECT happened_at, what, why FROM network_change WHERE eui = ? ORDER BY change_id DESC LIMIT ?",
        (eui, limit),
    )
    return [NodeChange(datetime.fromtimestamp(at, UTC), what, why) for at, what, why in rows]


def node_days(connection: sqlite3.Connection, eui: str, limit: int) -> list[NodeDay]:
    """A node's days (G02), newest first."""
    rows = connection.execute(
        "SELECT start, available_minutes, changes, up_minutes FROM network_node_day WHERE eui = ?"
        " ORDER BY start DESC LIMIT ?",
        (eui, limit),
    )
    return [NodeDay(*row) for row in rows]


def hours(connection: sqlite3.Connection, since: int) -> list[NetworkHour]:
    """The network's hours (G01) from a moment on, oldest first."""
    rows = connection.execute(
        "SELECT start, mean, highest, lowest, total, up_minutes FROM network_hour WHERE start >= ? ORDER BY start",
        (since,),
    )
    return [NetworkHour(*row) for row in rows]
