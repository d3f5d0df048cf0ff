"""The store as the other rooms see it: asynchronous, and safe the moment an `await` returns."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from concentrator.clock import Clock, is_plausible
from concentrator.model import Answer, MeterEvent, MeterRecord, MeterState
from concentrator.obis import Obis
from concentrator.store import (
    audit,
    collection_tables,
    counters,
    kpi,
    latest,
    meter_events,
    meters,
    network_history,
    outbox,
    parked,
    readings,
    registrations,
    series,
)
from concentrator.store.aftermath import follow_damaged
from concentrator.store.collection_tables import GapRow, GivenOrderRow, TaskRunRow
from concentrator.store.database import Connector, Database, connect
from concentrator.store.errors import StoreError, StoreUnavailableError
from concentrator.store.firmware import FirmwareTables
from concentrator.store.house import House
from concentrator.store.judgement import Judge
from concentrator.store.readings import ReadingTable, StoredAnswer, add_event, to_epoch
from concentrator.store.series import Requalification
from concentrator.store.statistics import Statistics, statistics_path

Result = TypeVar("Result")


class Store:
    """Readings, meters, outbox, counters and events in one file."""

    def __init__(
        self, path: Path, clock: Clock, judge: Judge | None = None, connector: Connector = connect
    ) -> None:
        """Open or create the file; `judge` says of each answer how good its values are.

        Raises:
            StoreVersionError: the file is not ours, or a newer release's.
            StoreError: it cannot be opened.
        """
        self._clock = clock
        self._database = Database(path, connector=connector)
        try:
            if self._database.set_aside is not None:
                follow_damaged(self._database, self._database.set_aside, clock.now())
            self._statistics = Statistics(statistics_path(path), connector)
            self._statistics.take_over(self._database)
        except StoreError:
            self._database.close()
            raise
        self.house = House(self._database, clock)
        self.firmware = FirmwareTables(self._database)
        self._readings = ReadingTable(judge)
        self._stored = asyncio.Condition()
        self._newest_sequence = self._database.newest_sequence()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def unavailable(self) -> str:
        """Why the store does not take data now; "" while it does."""
        return str(self._database.failure or "")

    @property
    def state(self) -> str:
        """`in use`, or what is wrong: `disk full`, `read-only`, `input/output error`, `damaged`, `busy`."""
        failure = self._database.failure
        if failure is None:
            return "in use"
        return failure.state if isinstance(failure, StoreUnavailableError) else "failing"

    async def until_damaged(self) -> None:
        """Return when the file is found damaged: it has to be opened anew, and is set aside then."""
        await self._database.damaged.wait()

    @property
    def set_aside(self) -> Path | None:
        """The damaged file that was found and renamed at start, if there was one."""
        return self._database.set_aside

    async def boot_id(self) -> str:
        """Make and keep the identity of this run of the service."""
        boot = secrets.token_hex(8)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES ('boot_id', ?)", (boot,))

        await self._database.write(work)
        return boot

    async def setting(self, name: str) -> str | None:
        """One kept setting, or None."""

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
            return str(row[0]) if row else None

        return await self._database.read(work)

    async def keep_setting(self, name: str, value: str) -> None:
        """Keep a setting for the next start."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))

        await self._database.write(work)

    # Readings

    async def store_answer(self, answer: Answer) -> StoredAnswer:
        """Put one meter's answer on flash, in one commit.

        Raises:
            StoreUnavailableError: nothing was stored.
        """

        def work(connection: sqlite3.Connection) -> StoredAnswer:
            return self._readings.store(connection, answer)

        try:
            stored = await self._database.write(work)
        except BaseException:
            self._readings.forget()
            raise
        await self._tell_newest(stored.sequence)
        return stored

    async def stored_times(self, meter: str, profile: Obis, first: datetime, last: datetime) -> set[int]:
        """The capture times (seconds since 1970) of a profile that are stored, from `first` to `last`."""
        return await self._database.read(lambda c: readings.stored_times(c, meter, profile, first, last))

    async def requalify(self, changes: Sequence[Requalification]) -> None:
        """Give stored values new flags, and forward them anew."""
        now = self._clock.now()
        sequences = await self._database.write(lambda c: series.requalify(c, changes, now))
        await self._tell_newest(max(sequences, default=None))

    async def _tell_newest(self, sequence: int | None) -> None:
        if sequence is not None:
            async with self._stored:
                self._newest_sequence = max(sequence, self._newest_sequence)
                self._stored.notify_all()

    async def newest_time(self, meter: str, profile: Obis) -> int | None:
        """The newest capture time of a profile (seconds since 1970), or None."""
        return await self._database.read(lambda c: readings.newest_time(c, meter, profile))

    async def reading_times(self, meter: str, first: datetime, last: datetime) -> set[int]:
        """When anything was captured of a meter (seconds since 1970), whatever the profile."""
        return await self._database.read(lambda c: readings.reading_times(c, meter, first, last))

    async def keep_gaps(
        self,
        meter: str,
        profile: Obis,
        still_open: Sequence[GapRow],
        closed: Sequence[tuple[int, int, str]] = (),
    ) -> None:
        """Replace what is open of a meter's profile; what is `closed` will never come: first, last, reason."""
        now = to_epoch(self._clock.now())
        await self._database.write(
            lambda c: collection_tables.keep_gaps(c, meter, str(profile), still_open, closed, now)
        )

    async def open_gaps(self, meter: str, profile: Obis) -> list[GapRow]:
        """The open gaps of a profile."""
        return await self._database.read(lambda c: collection_tables.open_gaps(c, meter, str(profile)))

    async def closed_gaps(self, meter: str, profile: Obis) -> list[tuple[int, int, str]]:
        """The closed gaps of a profile: first and last capture time, and the reason."""
        return await self._database.read(lambda c: meters.closed_gaps(c, meter, profile))

    # Tasks and orders

    async def task_runs(self) -> list[TaskRunRow]:
        """The newest run of every task and meter."""
        return await self._database.read(collection_tables.task_runs)

    async def keep_task(self, name: str, definition: dict[str, Any] | None) -> None:
        """Keep a task that came by order; None forgets it."""
        await self._database.write(lambda c: collection_tables.keep_task(c, name, definition))

    async def tasks(self) -> list[dict[str, Any]]:
        """The tasks that came by order."""
        return await self._database.read(collection_tables.tasks)

    async def keep_order(self, row: GivenOrderRow, forget_before: int) -> None:
        """Keep an order with its state; ended ones that changed before `forget_before` go."""
        await self._database.write(lambda c: collection_tables.keep_order(c, row, forget_before))

    async def given_orders(self) -> list[GivenOrderRow]:
        """Every order that is kept, oldest first."""
        return await self._database.read(collection_tables.given_orders)

    # Meters

    async def save_meter(self, record: MeterRecord, runs: Sequence[TaskRunRow] = ()) -> None:
        """Insert or update one meter by its identity, and how it came out of the runs of tasks.

        One that is read for the first time counts as installed now.
        """
        registration, now = record.registration, self._clock.now()
        installed = (
            record.state is MeterState.ACTIVE and registration.installed_at is None and is_plausible(now)
        )
        if installed:
            registration.installed_at = now

        def work(connection: sqlite3.Connection) -> None:
            meters.save_meter(connection, record)
            if installed:
                registrations.save(connection, record.identity, registration)
            collection_tables.keep_task_runs(connection, runs)

        await self._database.write(work)

    async def save_registration(self, *records: MeterRecord) -> None:
        """Keep meters with what the registry says of them, all in one commit."""

        def work(connection: sqlite3.Connection) -> None:
            for record in records:
                meters.save_meter(connection, record)
                registrations.save(connection, record.identity, record.registration)

        await self._database.write(work)

    async def load_meters(self) -> list[MeterRecord]:
        """Every meter that was ever known."""
        return await self._database.read(meters.load_meters)

    # Outbox

    async def register_destination(self, name: str) -> None:
        """Make a destination known; a new one gets everything that the store still has."""
        await self._database.write(lambda c: outbox.register_destination(c, name))

    async def retire_destinations(self, configured: Iterable[str]) -> list[str]:
        """Let destinations that are not configured any more hold nothing back; returns their names."""
        names, now = list(configured), self._clock.now()
        return await self._database.write(lambda c: outbox.retire_destinations(c, names, now))

    async def pending(
        self, destination: str, after: int, limit: int, up_to: int = outbox.NO_END
    ) -> list[outbox.OutgoingBatch]:
        """Unacknowledged batches above sequence `after`, up to `up_to`, oldest first."""
        return await self._database.read(lambda c: outbox.pending(c, destination, after, limit, up_to))

    async def pending_numbers(self, destination: str, limit: int) -> list[int]:
        """The numbers of the oldest unacknowledged batches."""
        return await self._database.read(lambda c: outbox.pending_numbers(c, destination, limit))

    async def newest_of_each(self, destination: str, up_to: int) -> list[int]:
        """The newest unacknowledged batch of each meter and profile, newest first."""
        return await self._database.read(lambda c: outbox.newest_of_each(c, destination, up_to))

    async def batches(self, destination: str, sequences: Sequence[int]) -> list[outbox.OutgoingBatch]:
        """Those of the batches that are still unacknowledged, in this order."""
        return await self._database.read(lambda c: outbox.batches(c, destination, sequences))

    def newest_sequence(self) -> int:
        """The number of the newest batch; 0 when there was never one."""
        return self._newest_sequence

    async def acknowledge(self, destination: str, sequences: Iterable[int]) -> None:
        """Note what a destination has; on flash when this returns."""
        numbers = list(sequences)
        now = self._clock.now()
        await self._database.write(lambda c: outbox.acknowledge(c, destination, numbers, now))

    async def latest_values(self, meter: str) -> list[latest.LatestValue]:
        """The newest reading of every channel of a meter."""
        return await self._database.read(lambda c: latest.latest_values(c, meter))

    async def park(self, destination: str, sequence: int, reason: str) -> None:
        """Note that a destination refuses a batch for good."""
        now = self._clock.now()
        await self._database.write(lambda c: parked.park(c, destination, sequence, reason, now))

    async def destination_states(self) -> list[outbox.DestinationState]:
        """How far every destination is."""
        return await self._database.read(outbox.states)

    async def wait_for_newer(self, sequence: int, timeout_s: float) -> None:
        """Return when a batch above `sequence` is stored, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self._stored:
                await self._stored.wait_for(lambda: self._newest_sequence > sequence)
        except TimeoutError:
            return

    # Counters, events

    def invocation_counter(self, name: str) -> counters.InvocationCounter:
        """A counter that no crash can repeat."""
        return counters.InvocationCounter(name, counters.reserve_on_own_connection(self.path))

    async def add_events(self, events: Iterable[tuple[str, str, str]]) -> None:
        """Append to the concentrator's own event log: code, detail, and the meter's identity or ""."""
        rows = list(events)
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            for code, detail, meter in rows:
                found = connection.execute(
                    "SELECT meter_id FROM meter WHERE identity = ?", (meter,)
                ).fetchone()
                # A meter that is not kept yet is named in the detail.
                named = detail if found or not meter else f"{meter}: {detail}"
                add_event(connection, now, code, named, found[0] if found else None)

        await self._database.write(work)

    # The audit trail

    async def add_audit_entry(self, entry: audit.AuditEntry) -> int:
        """Append an entry to the audit trail; on flash when this returns its number."""
        return await self._database.write(lambda c: audit.add(c, entry))

    async def complete_audit_entry(
        self, audit_id: int, state: str, after: dict[str, Any], detail: str
    ) -> None:
        """Close an entry that was begun."""
        now = self._clock.now()
        await self._database.write(lambda c: audit.complete(c, audit_id, state, after, detail, now))

    async def open_audit_entries(self) -> list[audit.AuditEntry]:
        """The entries whose outcome is not known yet, oldest first."""
        return await self._database.read(audit.opened)

    async def audit_entries(self, limit: int, meter: str = "") -> list[audit.AuditEntry]:
        """The newest entries, of one meter or of all, newest first."""
        return await self._database.read(lambda c: audit.newest(c, limit, meter))

    async def last_changes_of_keys(self) -> dict[str, datetime]:
        """When the keys of each meter were last changed by order."""
        return await self._database.read(lambda c: audit.last_done(c, "change_keys"))

    async def audited_order(self, order_id: str, origin: str) -> audit.AuditEntry | None:
        """What is known of an order that was taken before."""
        return await self._database.read(lambda c: audit.of_order(c, order_id, origin))

    async def trim_events(self, most: int) -> None:
        """Let the oldest entries of the concentrator's own event log go, above so many."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM event WHERE event_id <= (SELECT MAX(event_id) FROM event) - ?", (most,)
            )

        await self._database.write(work)

    # Events of meters

    async def store_meter_events(
        self, meter: str, log: Obis, events: Sequence[MeterEvent], read_up_to: datetime | None = None
    ) -> int:
        """Keep what is new of one log, in one commit, with how far it was read; returns how many were new.

        Alarms are no log that is read: they come without `read_up_to`.

        Raises:
            StoreUnavailableError: nothing was stored.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[int | None, int]:
            before = connection.total_changes
            sequence = meter_events.store_events(connection, meter, events, now)
            new = connection.total_changes - before - 1 if sequence is not None else 0
            if read_up_to is not None or not events:
                meter_events.note_log_read(connection, meter, log, read_up_to, now)
            return sequence, new

        sequence, new = await self._database.write(work)
        await self._tell_newest(sequence)
        return new

    async def note_event_log(self, meter: str, log: Obis, state: str) -> None:
        """Note why a log cannot be read."""
        now = self._clock.now()
        await self._database.write(lambda c: meter_events.note_log_read(c, meter, log, None, now, state))

    async def event_log_states(self, meter: str) -> list[meter_events.LogState]:
        """How far each event log of a meter has been read."""
        return await self._database.read(lambda c: meter_events.log_states(c, meter))

    # The history of the network

    async def load_network_history(self) -> network_history.HistoryBatch:
        """Everything that is kept of the PLC network's history."""
        return await self._statistics.read(network_history.load)

    async def save_network_history(
        self, batch: network_history.HistoryBatch, hours: int, days: int, changes_of_a_node: int
    ) -> None:
        """Add what is new in it, and let go what is older than the limits."""
        await self._statistics.write(lambda c: network_history.save(c, batch, hours, days, changes_of_a_node))

    async def network_signs(self, first: datetime, last: datetime) -> list[tuple[float, str, str]]:
        """When meters left and joined the PLC network: time, meter, and what; oldest first."""
        addresses = await self._database.read(
            lambda c: dict(c.execute("SELECT link_address, identity FROM meter").fetchall())
        )
        seen = await self._statistics.read(
            lambda c: network_history.signs(c, first.timestamp(), last.timestamp())
        )
        return [(at, addresses[eui], what) for at, eui, what in seen if eui in addresses]

    async def save_kpi_day(
        self, day: int, figures: Mapping[str, Any], rows: Sequence[kpi.MeterDay], keep_days: int
    ) -> None:
        """Keep the figures of a day: of the whole, and of each meter."""

        def work(connection: sqlite3.Connection) -> None:
            kpi.save_meter_days(connection, day, rows)
            kpi.save_day(connection, day, figures, keep_days)

        await self._statistics.write(work)

    async def purge(self, older_than: timedelta) -> int:
        """Delete readings that every destination has acknowledged and that are older; returns how many."""
        return await self.house.purge(older_than)

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a query on the reader's thread and connection."""
        return await self._database.read(work)

    async def read_statistics(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a query on the statistics."""
        return await self._statistics.read(work)

    def close(self) -> None:
        """Finish what is queued and close the files."""
        self._statistics.close()
        self._database.close()
