"""The schema, as ordered, named and recorded migrations (sqlite-utils).

Every released schema stays here as a step. A step is never changed after a release: a new one is added.
Tables that hold readings are WITHOUT ROWID and keyed by what makes a reading unique, so that storing
one twice is impossible rather than forbidden.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from concentrator.store import collection_tables, firmware, head_end_counters, parked

# "ODCs": marks the file as ours in SQLite's header (PRAGMA application_id).
APPLICATION_ID = 0x4F444373
# PRAGMA user_version after the newest step below; a file with a higher one was written by a newer release.
SCHEMA_VERSION = 11

migrations = Migrations("concentrator")

_INITIAL = (
    """
    CREATE TABLE meter (
        meter_id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL UNIQUE,
        medium TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        link TEXT NOT NULL,
        link_address TEXT NOT NULL,
        serial TEXT NOT NULL,
        logical_device_name TEXT NOT NULL,
        manufacturer TEXT NOT NULL,
        model TEXT NOT NULL,
        firmware TEXT NOT NULL,
        first_seen INTEGER,
        last_contact INTEGER,
        clock_offset_s REAL,
        signal REAL,
        details TEXT NOT NULL
    ) STRICT
    """,
    # One column of what a meter delivers. Another unit or scaler makes another channel: history keeps its own.
    """
    CREATE TABLE channel (
        channel_id INTEGER PRIMARY KEY,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        obis TEXT NOT NULL,
        class_id INTEGER NOT NULL,
        attribute INTEGER NOT NULL,
        unit INTEGER NOT NULL,
        scaler INTEGER NOT NULL,
        period_s INTEGER NOT NULL,
        UNIQUE (meter_id, profile, obis, class_id, attribute, unit, scaler)
    ) STRICT
    """,
    # One answer of one meter: one commit, and one entry of every destination's outbox. `sequence` only rises.
    """
    CREATE TABLE batch (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reading_count INTEGER NOT NULL,
        received_at INTEGER NOT NULL
    ) STRICT
    """,
    # captured_at: end of the interval, UTC, seconds since 1970. `value` is an integer (times 10^scaler) or text.
    """
    CREATE TABLE reading (
        channel_id INTEGER NOT NULL,
        captured_at INTEGER NOT NULL,
        value ANY NOT NULL,
        status INTEGER,
        quality INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (channel_id, captured_at)
    ) STRICT, WITHOUT ROWID
    """,
    # Everything up to `cursor` is acknowledged; what was acknowledged ahead of it stands in `acknowledgement`.
    """
    CREATE TABLE destination (
        destination_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        cursor INTEGER NOT NULL,
        acknowledged_at INTEGER
    ) STRICT
    """,
    """
    CREATE TABLE acknowledgement (
        destination_id INTEGER NOT NULL REFERENCES destination (destination_id),
        sequence INTEGER NOT NULL,
        PRIMARY KEY (destination_id, sequence)
    ) STRICT, WITHOUT ROWID
    """,
    # Intervals that will never come, each with the reason, so that they are neither asked for again nor forgotten.
    """
    CREATE TABLE closed_gap (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        profile TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        closed_at INTEGER NOT NULL,
        PRIMARY KEY (meter_id, profile, first_at)
    ) STRICT, WITHOUT ROWID
    """,
    # Invocation counters up to `reserved` may have been used: a restart goes on above it.
    """
    CREATE TABLE invocation_counter (
        name TEXT PRIMARY KEY,
        reserved INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE event (
        event_id INTEGER PRIMARY KEY,
        happened_at INTEGER NOT NULL,
        meter_id INTEGER,
        code TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE setting (
        name TEXT PRIMARY KEY,
        value ANY NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # For people and ad-hoc queries: every reading with its names, unit, scaler and times spelt out.
    """
    CREATE VIEW reading_in_full AS
    SELECT meter.identity AS meter, channel.profile, channel.obis, channel.unit, channel.scaler,
           reading.value, reading.status, reading.quality,
           strftime('%Y-%m-%dT%H:%M:%SZ', reading.captured_at, 'unixepoch') AS captured_at,
           strftime('%Y-%m-%dT%H:%M:%SZ', batch.received_at, 'unixepoch') AS received_at,
           reading.sequence
    FROM reading
    JOIN channel USING (channel_id)
    JOIN meter USING (meter_id)
    JOIN batch ON batch.sequence = reading.sequence
    """,
)


# The history of the PLC network: as collection/topology.py keeps it, written about once a minute.
_NETWORK_HISTORY = (
    # `state` is JSON: where the node hangs, and its counts of the day that is not over.
    """
    CREATE TABLE network_node (
        eui TEXT PRIMARY KEY,
        state TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE network_change (
        change_id INTEGER PRIMARY KEY,
        eui TEXT NOT NULL,
        happened_at REAL NOT NULL,
        what TEXT NOT NULL,
        why TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX network_change_of_node ON network_change (eui, change_id)",
    """
    CREATE TABLE network_hour (
        start INTEGER PRIMARY KEY,
        mean REAL NOT NULL,
        highest INTEGER NOT NULL,
        lowest INTEGER NOT NULL,
        total INTEGER NOT NULL,
        up_minutes REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE network_node_day (
        eui TEXT NOT NULL,
        start INTEGER NOT NULL,
        available_minutes REAL NOT NULL,
        changes INTEGER NOT NULL,
        up_minutes REAL NOT NULL,
        PRIMARY KEY (eui, start)
    ) STRICT, WITHOUT ROWID
    """,
)


# Orders that change meters. `arguments`, `before` and `after` are JSON without secrets.
_AUDIT = (
    """
    CREATE TABLE audit (
        audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
        order_id TEXT NOT NULL,
        operation TEXT NOT NULL,
        meter TEXT NOT NULL,
        origin TEXT NOT NULL,
        arguments TEXT NOT NULL,
        begun_at INTEGER NOT NULL,
        completed_at INTEGER,
        state TEXT NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX audit_open ON audit (audit_id) WHERE state = 'begun'",
    "CREATE INDEX audit_of_meter ON audit (meter, audit_id)",
    "CREATE INDEX audit_of_order ON audit (order_id, audit_id)",
)
# What the operator and the registry say of a meter. `groups` is a JSON list of labels.
_REGISTRATION = """
    CREATE TABLE meter_registration (
        meter_id INTEGER PRIMARY KEY REFERENCES meter (meter_id),
        installed_at INTEGER,
        removed_at INTEGER,
        manual INTEGER NOT NULL,
        groups TEXT NOT NULL,
        connection_limit INTEGER,
        replaced_by TEXT NOT NULL
    ) STRICT
    """
# What meters say has happened: each entry of their logs once, and how far each log has been read.
_METER_EVENTS = (
    # `sequence` is the batch that it leaves with; `severity` and `kind` as collection/event_codes.toml has them.
    """
    CREATE TABLE meter_event (
        meter_event_id INTEGER PRIMARY KEY,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        log TEXT NOT NULL,
        happened_at INTEGER NOT NULL,
        code INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        event_group TEXT NOT NULL,
        severity TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        UNIQUE (meter_id, log, happened_at, code, ordinal)
    ) STRICT
    """,
    "CREATE INDEX meter_event_of_batch ON meter_event (sequence)",
    "CREATE INDEX meter_event_by_kind ON meter_event (kind, happened_at)",
    # `read_up_to` is the capture time of the newest entry that is stored; `state` says why a log cannot be read, or "".
    """
    CREATE TABLE meter_event_log (
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        log TEXT NOT NULL,
        read_up_to INTEGER,
        read_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (meter_id, log)
    ) STRICT, WITHOUT ROWID
    """,
)


# Figures of each day (its beginning in seconds since 1970, UTC): of the whole as JSON, and of each meter.
_KPI = (
    """
    CREATE TABLE kpi_day (
        day INTEGER PRIMARY KEY,
        figures TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE kpi_meter_day (
        day INTEGER NOT NULL,
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        expected INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        at_0800 INTEGER NOT NULL,
        at_d1 INTEGER NOT NULL,
        at_d3 INTEGER NOT NULL,
        visits INTEGER NOT NULL,
        first_tries INTEGER NOT NULL,
        first_successes INTEGER NOT NULL,
        retries INTEGER NOT NULL,
        dialogue_s REAL NOT NULL,
        PRIMARY KEY (day, meter_id)
    ) STRICT, WITHOUT ROWID
    """,
)


# What a destination acknowledged ahead of its cursor, as ranges of batch numbers: however long the backlog, the list is
# short. A destination that the configuration does not name any more is retired, and holds nothing back.
_ACKNOWLEDGED_RANGES = (
    """
    CREATE TABLE acknowledged_range (
        destination_id INTEGER NOT NULL REFERENCES destination (destination_id),
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (destination_id, first)
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO acknowledged_range (destination_id, first, last)
    SELECT destination_id, MIN(sequence), MAX(sequence) FROM (
        SELECT destination_id, sequence,
               sequence - ROW_NUMBER() OVER (PARTITION BY destination_id ORDER BY sequence) AS run
        FROM acknowledgement
    ) GROUP BY destination_id, run
    """,
    "DROP TABLE acknowledgement",
    "ALTER TABLE destination ADD COLUMN retired_at INTEGER",
)


@migrations()
def m0001_initial(database: Database) -> None:
    """Meters, channels, readings, batches and destinations."""
    for statement in _INITIAL:
        database.conn.execute(statement)
    database.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.conn.execute("PRAGMA user_version = 1")


@migrations()
def m0002_network_history(database: Database) -> None:
    """Nodes of the PLC network, what became of them, and the network's availability."""
    for statement in _NETWORK_HISTORY:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 2")


@migrations()
def m0003_collection(database: Database) -> None:
    """Open gaps, task runs, tasks and orders; batches that are not for the destinations, or not to be kept."""
    for statement in collection_tables.STATEMENTS:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 3")


@migrations()
def m0004_audit(database: Database) -> None:
    """The audit trail of orders that change meters."""
    for statement in _AUDIT:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 4")


@migrations()
def m0005_registration(database: Database) -> None:
    """When meters were installed and removed, by whom they were replaced, their groups and limits."""
    database.conn.execute(_REGISTRATION)
    database.conn.execute("PRAGMA user_version = 5")


@migrations()
def m0006_meter_events(database: Database) -> None:
    """Events of meters, and how far their logs have been read."""
    for statement in _METER_EVENTS:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 6")


@migrations()
def m0007_kpi(database: Database) -> None:
    """Figures of each day."""
    for statement in _KPI:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 7")


@migrations()
def m0008_acknowledged_ranges(database: Database) -> None:
    """Acknowledgements ahead of the cursor as ranges; retired destinations."""
    for statement in _ACKNOWLEDGED_RANGES:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 8")


@migrations()
def m0009_parked_batches(database: Database) -> None:
    """Batches that a destination refused for good."""
    for statement in parked.STATEMENTS:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 9")


@migrations()
def m0010_head_end_counters(database: Database) -> None:
    """The invocation counters that came from head-ends."""
    database.conn.execute(head_end_counters.TABLE)
    database.conn.execute("PRAGMA user_version = 10")


@migrations()
def m0011_firmware(database: Database) -> None:
    """Campaigns that bring firmware to meters."""
    for statement in firmware.STATEMENTS:
        database.conn.execute(statement)
    database.conn.execute("PRAGMA user_version = 11")
