"""The registry's rows: every meter that was ever known, with what is known of it."""

from __future__ import annotations

import json
import sqlite3

from concentrator.model import Medium, MeterRecord, MeterState, Registration
from concentrator.obis import Obis
from concentrator.store import registrations
from concentrator.store.readings import from_epoch, to_epoch

_COLUMNS = (
    "identity, medium, state, reason, link, link_address, serial, logical_device_name, manufacturer,"
    " model, firmware, first_seen, last_contact, clock_offset_s, signal, details"
)


def save_meter(connection: sqlite3.Connection, record: MeterRecord) -> None:
    """Insert or update one meter by its identity."""
    values = (
        record.identity,
        record.medium.value,
        record.state.value,
        record.reason,
        record.link,
        record.link_address,
        record.serial,
        record.logical_device_name,
        record.manufacturer,
        record.model,
        record.firmware,
        to_epoch(record.first_seen) if record.first_seen else None,
        to_epoch(record.last_contact) if record.last_contact else None,
        record.clock_offset_s,
        record.signal,
        json.dumps(record.details, sort_keys=True),
    )
    names = [name.strip() for name in _COLUMNS.split(",")]
    updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    marks = ", ".join("?" * len(names))
    connection.execute(
        f"INSERT INTO meter ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 - names of our own columns
        f" ON CONFLICT (identity) DO UPDATE SET {updates}",
        values,
    )


def load_meters(connection: sqlite3.Connection) -> list[MeterRecord]:
    """Every meter, by identity."""
    registered = registrations.load(connection)
    rows = connection.execute(f"SELECT {_COLUMNS} FROM meter ORDER BY identity")  # noqa: S608 - our own columns
    return [
        MeterRecord(
            identity=row[0],
            medium=Medium(row[1]),
            state=MeterState(row[2]),
            reason=row[3],
            link=row[4],
            link_address=row[5],
            serial=row[6],
            logical_device_name=row[7],
            manufacturer=row[8],
            model=row[9],
            firmware=row[10],
            first_seen=from_epoch(row[11]) if row[11] is not None else None,
            last_contact=from_epoch(row[12]) if row[12] is not None else None,
            clock_offset_s=row[13],
            signal=row[14],
            details=json.loads(row[15]),
            registration=registered.get(row[0]) or Registration(),
        )
        for row in rows
    ]


def closed_gaps(connection: sqlite3.Connection, meter: str, profile: Obis) -> list[tuple[int, int, str]]:
    """The closed gaps of a profile: first and last capture time (seconds since 1970), and the reason."""
    return connection.execute(
        "SELECT first_at, last_at, closed_gap.reason FROM closed_gap JOIN meter USING (meter_id)"
        " WHERE identity = ? AND profile = ? ORDER BY first_at",
        (meter, str(profile)),
    ).fetchall()
