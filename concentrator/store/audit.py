"""The audit trail of orders that change meters: an entry before the command goes out, completed with what came of it.

An entry that was begun and not completed is one whose outcome has to be asked of the meter. Arguments and states
are JSON without secrets. Old entries go when there are too many, open ones never.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concentrator.store.readings import from_epoch, to_epoch

BEGUN = "begun"
REFUSED = "refused"
_KEPT = 50_000
_COLUMNS = (
    "audit_id, order_id, operation, meter, origin, arguments, begun_at, completed_at, state, before, after,"
    " detail"
)


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(slots=True)
class AuditEntry:
    """One order. `state` is begun, refused (who asked may not), or an outcome of `control.command`."""

    order_id: str
    operation: str
    meter: str
    origin: str
    begun_at: datetime
    arguments: dict[str, Any] = field(default_factory=_nothing)
    before: dict[str, Any] = field(default_factory=_nothing)
    after: dict[str, Any] = field(default_factory=_nothing)
    state: str = BEGUN
    detail: str = ""
    completed_at: datetime | None = None
    audit_id: int = 0


def add(connection: sqlite3.Connection, entry: AuditEntry) -> int:
    """Append an entry; gives its number."""
    cursor = connection.execute(
        "INSERT INTO audit (order_id, operation, meter, origin, arguments, begun_at, completed_at, state, before,"
        " after, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.order_id,
            entry.operation,
            entry.meter,
            entry.origin,
            _json(entry.arguments),
            to_epoch(entry.begun_at),
            None if entry.completed_at is None else to_epoch(entry.completed_at),
            entry.state,
            _json(entry.before),
            _json(entry.after),
            entry.detail,
        ),
    )
    number = int(cursor.lastrowid or 0)
    connection.execute("DELETE FROM audit WHERE audit_id <= ? AND state <> ?", (number - _KEPT, BEGUN))
    return number


def complete(
    connection: sqlite3.Connection,
    audit_id: int,
    state: str,
    after: dict[str, Any],
    detail: str,
    completed_at: datetime,
) -> None:
    """Close an entry that was begun; one that is closed stays as it is."""
    connection.execute(
        "UPDATE audit SET state = ?, after = ?, detail = ?, completed_at = ? WHERE audit_id = ? AND state = ?",
        (state, _json(after), detail, to_epoch(completed_at), audit_id, BEGUN),
    )


def opened(connection: sqlite3.Connection) -> list[AuditEntry]:
    """The entries that were begun and not completed, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE state = ? ORDER BY audit_id",  # noqa: S608 - our own names
        (BEGUN,),
    )
    return [_entry(row) for row in rows]


def newest(connection: sqlite3.Connection, limit: int, meter: str = "") -> list[AuditEntry]:
    """The newest entries, of one meter or of all, newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE meter = ? OR ? = '' ORDER BY audit_id DESC LIMIT ?",  # noqa: S608 - our own names
        (meter, meter, limit),
    )
    return [_entry(row) for row in rows]


def of_order(connection: sqlite3.Connection, order_id: str, origin: str) -> AuditEntry | None:
    """The newest entry of an order by its identity that was not refused."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM audit WHERE order_id = ? AND origin = ? AND state <> ?"  # noqa: S608 - our own names
        " ORDER BY audit_id DESC LIMIT 1",
        (order_id, origin, REFUSED),
    ).fetchone()
    return None if row is None else _entry(row)


def last_done(connection: sqlite3.Connection, operation: str) -> dict[str, datetime]:
    """When an operation was last done, by meter."""
    rows = connection.execute(
        "SELECT meter, max(completed_at) FROM audit WHERE operation = ? AND state = 'done' GROUP BY meter",
        (operation,),
    )
    return {meter: from_epoch(at) for meter, at in rows if at is not None}


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), sort_keys=True)


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    (
        audit_id,
        order_id,
        operation,
        meter,
        origin,
        arguments,
        begun_at,
        completed_at,
        state,
        before,
        after,
        detail,
    ) = row
    return AuditEntry(
        order_id,
        operation,
        meter,
        origin,
        from_epoch(begun_at),
        json.loads(arguments),
        json.loads(before),
        json.loads(after),
        state,
        detail,
        None if completed_at is None else from_epoch(completed_at),
        audit_id,
    )
