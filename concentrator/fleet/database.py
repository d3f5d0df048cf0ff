"""Messages into PostgreSQL: many in one transaction, each value once however often it comes.

Rows travel by COPY into a table of the session and are merged from there: a value that is not there is added, one that
is there gives way only to a later one (a higher `seq` of the same concentrator), so that it does not matter in which
order, how often, or by how many consumers the messages are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

import asyncpg

from concentrator.fleet.messages import ChannelKey, MeterMessage, StateMessage

_INCOMING = """
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
    channel_id integer, at timestamptz, value bigint, text text, status bigint, quality text,
    concentrator_id integer, seq bigint
) ON COMMIT DELETE ROWS
"""
_COLUMNS = ("channel_id", "at", "value", "text", "status", "quality", "concentrator_id", "seq")
_MERGE = """
INSERT INTO reading (channel_id, at, value, text, status, quality, concentrator_id, seq)
SELECT DISTINCT ON (channel_id, at) channel_id, at, value, text, status, quality, concentrator_id, seq
FROM incoming ORDER BY channel_id, at, seq DESC
ON CONFLICT (channel_id, at) DO UPDATE SET
    value = excluded.value, text = excluded.text, status = excluded.status, quality = excluded.quality,
    concentrator_id = excluded.concentrator_id, seq = excluded.seq
WHERE excluded.seq > reading.seq OR excluded.concentrator_id <> reading.concentrator_id
"""
_EVENT = """
INSERT INTO meter_event (meter_id, log, at, code, ordinal, event_group, severity, kind, detail, seq)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""
_STATUS = """
UPDATE concentrator SET state = $2, boot_id = $3, software = $4, state_at = now() WHERE concentrator_id = $1
"""


class FleetDatabase:
    """One connection and what it has learnt: the numbers of concentrators, meters and channels."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection[Any] | None = None
        self._concentrators: dict[tuple[str, str], int] = {}
        self._meters: dict[tuple[str, int], int] = {}
        self._channels: dict[ChannelKey, int] = {}

    async def open(self, *, create: bool = True) -> None:
        """Connect; with `create` the tables are made where they are lacking.

        Raises:
            OSError, asyncpg.PostgresError: it cannot be reached, or does not let us in.
        """
        self._connection = await asyncpg.connect(self._dsn, timeout=20, command_timeout=60)
        if create:
            # Several consumers that start together must not make the tables at the same time.
            async with self._connection.transaction():
                await self._connection.execute("SELECT pg_advisory_xact_lock(4059)")
                await self._connection.execute(
                    files("concentrator.fleet").joinpath("schema.sql").read_text(encoding="utf-8")
                )
        await self._connection.execute(_INCOMING)

    async def close(self) -> None:
        """Let go; what was learnt is forgotten, since another may change it."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._concentrators.clear()
        self._meters.clear()
        self._channels.clear()

    async def store(
        self, messages: Sequence[MeterMessage | StateMessage], rejected: Iterable[tuple[str, bytes, str]] = ()
    ) -> None:
        """Write messages, and those that were refused (topic, payload, reason), in one transaction.

        When it returns they are on disk. When it raises nothing was written.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: the database is gone or refuses.
        """
        connection = self._connection
        if connection is None:
            raise asyncpg.InterfaceError("not connected")
        try:
            async with connection.transaction():
                await self._write(connection, messages)
                await connection.executemany(
                    "INSERT INTO rejected (topic, payload, reason) VALUES ($1, $2, $3)", list(rejected)
                )
        except BaseException:
            # Numbers that were given in a transaction that is undone do not exist.
            self._concentrators.clear()
            self._meters.clear()
            self._channels.clear()
            raise

    async def _write(
        self, connection: asyncpg.Connection[Any], messages: Sequence[MeterMessage | StateMessage]
    ) -> None:
        # In one order everywhere: two consumers must not wait for each other.
        for site, name in sorted({(one.site, one.concentrator) for one in messages}):
            await self._concentrator(connection, site, name)
        of_meters = [one for one in messages if isinstance(one, MeterMessage)]
        for meter, medium, site, name in sorted(
            {(one.meter, one.medium, one.site, one.concentrator) for one in of_meters}
        ):
            await self._meter(connection, meter, medium, self._concentrators[site, name])
        channels = {reading.channel for one in of_meters for reading in one.readings}
        for channel in sorted(channels - self._channels.keys(), key=repr):
            await self._channel(connection, channel)
        records = [
            (
                self._channels[reading.channel],
                reading.at,
                reading.value,
                reading.text,
                reading.status,
                reading.quality,
                self._concentrators[one.site, one.concentrator],
                one.seq,
            )
            for one in of_meters
            for reading in one.readings
        ]
        if records:
            await connection.copy_records_to_table("incoming", records=records, columns=_COLUMNS)
            await connection.execute(_MERGE)
        events = sorted(
            (
                self._meters[one.meter, self._concentrators[one.site, one.concentrator]],
                event.log,
                event.at,
                event.code,
                event.ordinal,
                event.group,
                event.severity,
                event.kind,
                event.detail,
                one.seq,
            )
            for one in of_meters
            for event in one.events
        )
        if events:
            await connection.executemany(_EVENT, events)
        for one in messages:
            if isinstance(one, StateMessage):
                await self._state(connection, one)

    async def _concentrator(self, connection: asyncpg.Connection[Any], site: str, name: str) -> None:
        if (site, name) not in self._concentrators:
            self._concentrators[site, name] = await connection.fetchval(
                "INSERT INTO concentrator (site, name) VALUES ($1, $2)"
                " ON CONFLICT (site, name) DO UPDATE SET site = excluded.site RETURNING concentrator_id",
                site,
                name,
            )

    async def _meter(
        self, connection: asyncpg.Connection[Any], meter: str, medium: str, concentrator_id: int
    ) -> None:
        if (meter, concentrator_id) not in self._meters:
            self._meters[meter, concentrator_id] = await connection.fetchval(
                "INSERT INTO meter (identity, medium, concentrator_id) VALUES ($1, $2, $3)"
                " ON CONFLICT (identity) DO UPDATE SET concentrator_id = excluded.concentrator_id RETURNING meter_id",
                meter,
                medium,
                concentrator_id,
            )

    async def _channel(self, connection: asyncpg.Connection[Any], channel: ChannelKey) -> None:
        self._channels[channel] = await connection.fetchval(
            "INSERT INTO channel (meter_id, profile, obis, unit, scaler, period_s)"
            " SELECT meter_id, $2, $3, $4, $5, $6 FROM meter WHERE identity = $1"
            " ON CONFLICT (meter_id, profile, obis, unit, scaler, period_s) DO UPDATE SET unit = excluded.unit"
            " RETURNING channel_id",
            channel.meter,
            channel.profile,
            channel.obis,
            channel.unit,
            channel.scaler,
            channel.period_s,
        )

    async def _state(self, connection: asyncpg.Connection[Any], message: StateMessage) -> None:
        concentrator_id = self._concentrators[message.site, message.concentrator]
        if message.is_status:
            values = (
                str(message.fields.get(name, "")).replace("\x00", "") for name in ("state", "boot_id", "sw")
            )
            await connection.execute(_STATUS, concentrator_id, *values)
        else:
            text = json_text(message.fields)
            await connection.execute(
                "UPDATE concentrator SET health = $2 WHERE concentrator_id = $1", concentrator_id, text
            )


def json_text(fields: dict[str, Any]) -> str:
    """JSON that PostgreSQL takes: NUL is the one character that it cannot keep."""
    return json.dumps(fields, default=str).replace("\\u0000", "")
