"""What the registry keeps of a meter beside what it says of itself: written when somebody changes it, seldom else."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime

from concentrator.model import Registration
from concentrator.store.readings import from_epoch, to_epoch

_COLUMNS = "installed_at, removed_at, manual, groups, connection_limit, replaced_by"


def save(connection: sqlite3.Connection, identity: str, registration: Registration) -> None:
    """Insert or update the registration of a meter that is kept."""
    connection.execute(
        f"INSERT INTO meter_registration (meter_id, {_COLUMNS})"  # noqa: S608 - our own columns
        " SELECT meter_id, ?, ?, ?, ?, ?, ? FROM meter WHERE identity = ?"
        " ON CONFLICT (meter_id) DO UPDATE SET installed_at = excluded.installed_at,"
        " removed_at = excluded.removed_at, manual = excluded.manual, groups = excluded.groups,"
        " connection_limit = excluded.connection_limit, replaced_by = excluded.replaced_by",
        (
            _epoch(registration.installed_at),
            _epoch(registration.removed_at),
            int(registration.manual),
            json.dumps(list(registration.groups), ensure_ascii=False),
            registration.connection_limit,
            registration.replaced_by,
            identity,
        ),
    )


def load(connection: sqlite3.Connection) -> dict[str, Registration]:
    """Every registration, by the meter's identity."""
    rows = connection.execute(
        f"SELECT identity, {_COLUMNS} FROM meter_registration JOIN meter USING (meter_id)"  # noqa: S608 - our own
    )
    return {
        row[0]: Registration(
            installed_at=_moment(row[1]),
            removed_at=_moment(row[2]),
            manual=bool(row[3]),
            groups=tuple(json.loads(row[4])),
            connection_limit=row[5],
            replaced_by=row[6],
        )
        for row in rows
    }


def _epoch(moment: datetime | None) -> int | None:
    return None if moment is None else to_epoch(moment)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else from_epoch(seconds)
