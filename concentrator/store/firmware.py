"""Campaigns that bring firmware to meters, and how far each meter is: kept through power cuts.

All times are seconds since 1970, UTC. `state` of a campaign is running, paused, aborted or finished; that of a meter
is one of `FINAL`, or what is being done. A meter is in one campaign that is not over at most: an index sees to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # The database applies the migrations, which take their statements from here.
    from concentrator.store.database import Database

FINAL = ("done", "failed", "aborted")
_KEPT_CAMPAIGNS = 20

STATEMENTS = (
    # `definition` is the order as JSON, with the manifest that was signed; `forgiven` failures do not count any more.
    """
    CREATE TABLE firmware_campaign (
        name TEXT PRIMARY KEY,
        definition TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        forgiven INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    # `block_size` is in octets; `activated_at` is when the meter was last told to use the image.
    """
    CREATE TABLE firmware_meter (
        campaign TEXT NOT NULL REFERENCES firmware_campaign (name),
        meter_id INTEGER NOT NULL REFERENCES meter (meter_id),
        state TEXT NOT NULL,
        blocks_done INTEGER NOT NULL,
        blocks INTEGER NOT NULL,
        block_size INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        next_try_at INTEGER NOT NULL,
        activated_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        from_version TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (campaign, meter_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE UNIQUE INDEX firmware_meter_once ON firmware_meter (meter_id)
    WHERE state NOT IN ('done', 'failed', 'aborted')
    """,
)


class CampaignRow(NamedTuple):
    """A campaign as it is kept."""

    name: str
    definition: str
    state: str
    reason: str
    started_at: int
    changed_at: int
    forgiven: int = 0


class FirmwareMeterRow(NamedTuple):
    """How far one meter is, by its identity."""

    campaign: str
    meter: str
    state: str
    blocks_done: int
    blocks: int
    block_size: int
    tries: int
    next_try_at: int
    activated_at: int
    changed_at: int
    from_version: str
    reason: str


class FirmwareTables:
    """The two tables in one store; on flash when a method returns. Raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, campaign: CampaignRow, meters: Sequence[FirmwareMeterRow]) -> None:
        """Keep a new campaign with its meters, in one commit; the oldest that are over go."""

        def work(connection: sqlite3.Connection) -> None:
            _keep_campaign(connection, campaign)
            _keep_meters(connection, meters)
            _forget(connection)

        await self._database.write(work)

    async def keep(
        self, campaign: CampaignRow | None = None, meters: Iterable[FirmwareMeterRow] = ()
    ) -> None:
        """Keep what has changed, in one commit."""
        rows = list(meters)

        def work(connection: sqlite3.Connection) -> None:
            if campaign is not None:
                _keep_campaign(connection, campaign)
            _keep_meters(connection, rows)

        await self._database.write(work)

    async def load(self) -> tuple[list[CampaignRow], list[FirmwareMeterRow]]:
        """Every campaign, oldest first, and every meter's row."""
        return await self._database.read(lambda c: (campaigns(c), meters_of(c)))


def campaigns(connection: sqlite3.Connection) -> list[CampaignRow]:
    """Every campaign that is kept, oldest first."""
    rows = connection.execute(
        "SELECT name, definition, state, reason, started_at, changed_at, forgiven FROM firmware_campaign"
        " ORDER BY started_at, name"
    )
    return [CampaignRow(*row) for row in rows]


def meters_of(connection: sqlite3.Connection) -> list[FirmwareMeterRow]:
    """The meters of every campaign."""
    rows = connection.execute(
        "SELECT campaign, identity, firmware_meter.state, blocks_done, blocks, block_size, tries, next_try_at,"
        " activated_at, changed_at, from_version, firmware_meter.reason FROM firmware_meter"
        " JOIN meter USING (meter_id) ORDER BY campaign, identity"
    )
    return [FirmwareMeterRow(*row) for row in rows]


def _keep_campaign(connection: sqlite3.Connection, row: CampaignRow) -> None:
    connection.execute(
        "INSERT INTO firmware_campaign (name, definition, state, reason, started_at, changed_at, forgiven)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET state = excluded.state,"
        " reason = excluded.reason, changed_at = excluded.changed_at, forgiven = excluded.forgiven",
        row,
    )


def _keep_meters(connection: sqlite3.Connection, rows: Iterable[FirmwareMeterRow]) -> None:
    connection.executemany(
        "INSERT INTO firmware_meter (campaign, meter_id, state, blocks_done, blocks, block_size, tries, next_try_at,"
        " activated_at, changed_at, from_version, reason)"
        " SELECT ?, meter_id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM meter WHERE identity = ?"
        " ON CONFLICT (campaign, meter_id) DO UPDATE SET state = excluded.state, blocks_done = excluded.blocks_done,"
        " blocks = excluded.blocks, block_size = excluded.block_size, tries = excluded.tries,"
        " next_try_at = excluded.next_try_at, activated_at = excluded.activated_at,"
        " changed_at = excluded.changed_at, from_version = excluded.from_version, reason = excluded.reason",
        [(row.campaign, *row[2:], row.meter) for row in rows],
    )


def _forget(connection: sqlite3.Connection) -> None:
    old = [row.name for row in reversed(campaigns(connection)) if row.state not in ("running", "paused")][
        _KEPT_CAMPAIGNS:
    ]
    for name in old:
        left = connection.execute(
            "SELECT COUNT(*) FROM firmware_meter WHERE campaign = ? AND state NOT IN (?, ?, ?)",
            (name, *FINAL),
        ).fetchone()
        if left == (0,):
            connection.execute("DELETE FROM firmware_meter WHERE campaign = ?", (name,))
            connection.execute("DELETE FROM firmware_campaign WHERE name = ?", (name,))
