"""Events of meters: each once, in batches of the same outbox that readings leave by."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from concentrator.model import EventSeverity, MeterEvent
from concentrator.obis import Obis
from concentrator.store.readings import add_batch, from_epoch, to_epoch

# Logs are read again from so long before their newest entry: a clock that was set back puts entries there.
OVERLAP_S = 86_400


@dataclass(frozen=True, slots=True)
class LogState:
    """How far one log has been read; `read_up_to` is None for one that never had an entry."""

    log: Obis
    read_up_to: datetime | None
    read_at: datetime
    state: str


def store_events(
    connection: sqlite3.Connection, meter: str, events: Sequence[MeterEvent], received_at: datetime
) -> int | None:
    """Store the events of one log that are new, in one batch; returns its number, or None when all were known.

    Raises:
        KeyError: the meter is not in the registry.
    """
    meter_id = _meter_id(connection, meter)
    known = {
        row
        for event in {(event.log, to_epoch(event.happened_at)) for event in events}
        for row in connection.execute(
            "SELECT log, happened_at, code, ordinal FROM meter_event"
            " WHERE meter_id = ? AND log = ? AND happened_at = ?",
            (meter_id, str(event[0]), event[1]),
        )
    }
    new = [
        event
        for event in events
        if (str(event.log), to_epoch(event.happened_at), event.code, event.ordinal) not in known
    ]
    if not new:
        return None
    times = [to_epoch(event.happened_at) for event in new]
    sequence = add_batch(connection, meter_id, str(new[0].log), times, received_at)
    connection.executemany(
        "INSERT OR IGNORE INTO meter_event (meter_id, log, happened_at, code, ordinal, event_group, severity, kind,"
        " detail, sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                meter_id,
                str(event.log),
                to_epoch(event.happened_at),
                event.code,
                event.ordinal,
                event.group,
                event.severity.value,
                event.kind,
                event.detail,
                sequence,
            )
            for event in new
        ],
    )
    return sequence


def _meter_id(connection: sqlite3.Connection, meter: str) -> int:
    found = connection.execute("SELECT meter_id FROM meter WHERE identity = ?", (meter,)).fetchone()
    if found is None:
        raise KeyError(meter)
    return int(found[0])


def note_log_read(
    connection: sqlite3.Connection,
    meter: str,
    log: Obis,
    read_up_to: datetime | None,
    read_at: datetime,
    state: str = "",
) -> None:
    """Note how far a log has been read, or in `state` why it cannot be."""
    connection.execute(
        "INSERT INTO meter_event_log (meter_id, log, read_up_to, read_at, state) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (meter_id, log) DO UPDATE SET read_at = excluded.read_at, state = excluded.state,"
        " read_up_to = MAX(COALESCE(read_up_to, 0), COALESCE(excluded.read_up_to, 0))",
        (
            _meter_id(connection, meter),
            str(log),
            None if read_up_to is None else to_epoch(read_up_to),
            to_epoch(read_at),
            state,
        ),
    )


def log_states(connection: sqlite3.Connection, meter: str) -> list[LogState]:
    """How far each log of a meter has been read."""
    rows = connection.execute(
        "SELECT log, read_up_to, read_at, meter_event_log.state FROM meter_event_log JOIN meter USING (meter_id)"
        " WHERE identity = ? ORDER BY log",
        (meter,),
    )
    return [
        LogState(Obis.parse(log), from_epoch(up_to) if up_to else None, from_epoch(read_at), state)
        for log, up_to, read_at, state in rows
    ]


def events_of_batch(connection: sqlite3.Connection, sequence: int) -> tuple[MeterEvent, ...]:
    """The events that leave with a batch, oldest first."""
    rows = connection.execute(
        "SELECT log, happened_at, code, ordinal, event_group, severity, kind, detail FROM meter_event"
        " WHERE sequence = ? ORDER BY happened_at, meter_event_id",
        (sequence,),
    )
    return tuple(_event(*row) for row in rows)


def _event(  # noqa: PLR0913 - the columns
    log: str, at: int, code: int, ordinal: int, group: str, severity: str, kind: str, detail: str
) -> MeterEvent:
    return MeterEvent(
        Obis.parse(log), from_epoch(at), code, ordinal, group, EventSeverity(severity), kind, detail
    )


def events_between(
    connection: sqlite3.Connection, first: datetime, last: datetime, meter: str = ""
) -> list[tuple[str, MeterEvent]]:
    """Meters and what happened to them from `first` to `last`, oldest first; of one meter when it is named."""
    rows = connection.execute(
        "SELECT identity, log, happened_at, code, ordinal, event_group, severity, kind, detail"
        " FROM meter_event JOIN meter USING (meter_id)"
        " WHERE happened_at BETWEEN ?1 AND ?2 AND (?3 = '' OR identity = ?3) ORDER BY happened_at, meter_event_id",
        (to_epoch(first), to_epoch(last), meter),
    )
    return [(row[0], _event(*row[1:])) for row in rows]


def delete_events(connection: sqlite3.Connection, sequence: int) -> int:
    """Let the events of a batch go, but for those by which the next reading of a log knows what it has."""
    return connection.execute(
        "DELETE FROM meter_event WHERE sequence = ? AND happened_at < COALESCE((SELECT read_up_to - ? FROM"
        " meter_event_log AS one WHERE one.meter_id = meter_event.meter_id AND one.log = meter_event.log),"
        " happened_at + 1)",
        (sequence, OVERLAP_S),
    ).rowcount
