"""Where every page, JSON answer and metric takes its facts from: the service if it answers, the store always."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from concentrator.clock import Clock
from concentrator.config import Config
from concentrator.store import meters as meter_table
from concentrator.store import outbox
from concentrator.store.errors import StoreError
from concentrator.store.network_history import NetworkHour
from concentrator.store.readings import from_epoch
from concentrator.store.statistics import STATISTICS_APPLICATION_ID, STATISTICS_VERSION, statistics_path
from concentrator.web import machine, network_queries, queries
from concentrator.web.completeness import Completeness, Matrix
from concentrator.web.hours import HourMatrix, hour_matrix
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.machine import Machine
from concentrator.web.meters import MeterView, is_uncounted, moment
from concentrator.web.questions import Questions
from concentrator.web.store_reader import StoreReader
from concentrator.web.translations import mark
from concentrator.web.visitors import Visitor

Result = TypeVar("Result")
_HOUR_S, _DAY_S = 3600, 86_400
_ALARM_ROWS = 10
_SET_ASIDE_TOLD_S = 7 * _DAY_S
_SLOW_S = 10.0
# The newest values of all meters are kept for this long, or longer where looking takes more than its share.
_SHORTEST_KEEP_S = 2.0
_LARGEST_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class DestinationView:
    """One destination of the uplink."""

    name: str
    kind: str
    state: str
    reason: str
    pending_readings: int
    oldest_unsent_at: datetime | None
    acknowledged_at: datetime | None
    pending_batches: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all meters. Intervals are known only while the service runs.

    By how they are reached: PLC, radio, `behind` another meter, `wired` M-Bus, a P1 port. `uncounted` are those of
    which nothing is expected, as they could not be read yet.
    """

    meters: int
    active: int
    attention: int
    reachable: int | None
    plc: int
    wireless: int
    behind: int
    wired: int
    consumer_port: int
    uncounted: int
    expected: int
    stored: int
    closed: int


class Sources:
    """The service and the store, behind questions that both can answer."""

    def __init__(self, config: Config, clock: Clock, watch: ServiceWatch) -> None:
        self.config = config
        self.clock = clock
        self.watch = watch
        self.store = StoreReader(config.store_file)
        self.statistics = StoreReader(
            statistics_path(config.store_file), STATISTICS_APPLICATION_ID, STATISTICS_VERSION
        )
        self.questions = Questions(config.control_socket, clock)
        self._completeness = Completeness(config.collection)
        self._slow: dict[str, tuple[float, Any]] = {}
        self._parsed: tuple[Snapshot, Mapping[str, datetime], list[MeterView]] | None = None
        self._looking = asyncio.Lock()
        self._last_epochs: dict[str, int] = {}
        self._last_found: Mapping[str, datetime] = {}
        self._last_values_until = 0.0

    def close(self) -> None:
        """Let go of both files."""
        self.store.close()
        self.statistics.close()

    async def ask(self, work: Callable[[Any], Result], default: Result) -> tuple[Result, str]:
        """Ask the store; the default and the reason when it cannot be read."""
        try:
            return await self.store.read(work), ""
        except StoreError as error:
            return default, str(error)

    async def ask_statistics(self, work: Callable[[Any], Result], default: Result) -> tuple[Result, str]:
        """Ask what counts over time, the network's history; the default and the reason when it cannot be read."""
        try:
            return await self.statistics.read(work), ""
        except StoreError as error:
            return default, str(error)

    async def question(
        self,
        snapshot: Snapshot,
        visitor: Visitor,
        operation: str,
        arguments: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any] | None, str]:
        """Ask the service something that it has to work out; None and the reason when it cannot tell."""
        if snapshot.status is None:
            return None, snapshot.reason
        return await self.questions.ask(visitor, operation, arguments)

    async def meters(self, snapshot: Snapshot) -> list[MeterView]:
        """Every meter: as the service says now, or as the store remembers."""
        last = await self._last_values()
        if snapshot.status is None:
            records, _reason = await self.ask(meter_table.load_meters, [])
            return [MeterView.from_record(record, last.get(record.identity)) for record in records]
        if self._parsed is None or self._parsed[0] is not snapshot or self._parsed[1] is not last:
            meters = snapshot.status["meters"]
            views = [MeterView.from_status(meter, last.get(str(meter["identity"]))) for meter in meters]
            self._parsed = (snapshot, last, views)
        return self._parsed[2]

    async def _last_values(self) -> Mapping[str, datetime]:
        """When the newest value of each meter was captured. Looked up anew at most every few seconds, by one asker."""
        async with self._looking:
            now = self.clock.monotonic()
            if now >= self._last_values_until:
                found, _reason = await self.ask(queries.last_values, {})
                if found != self._last_epochs:
                    self._last_epochs = found
                    self._last_found = {meter: from_epoch(at) for meter, at in found.items()}
                took = self.clock.monotonic() - now
                self._last_values_until = now + max(_SHORTEST_KEEP_S, took / _LARGEST_SHARE)
            return self._last_found

    async def destinations(self, snapshot: Snapshot) -> list[DestinationView]:
        """Where readings go, and what waits."""
        if snapshot.status is not None:
            return [
                DestinationView(
                    one["name"],
                    one["kind"],
                    one["state"],
                    one["reason"],
                    one["pending_readings"],
                    moment(one["oldest_unsent_at"]),
                    moment(one["acknowledged_at"]),
                    one.get("pending_batches"),
                )
                for one in snapshot.status["destinations"]
            ]
        states, _reason = await self.ask(outbox.states, [])
        kinds = {
            one.name: kind
            for kind, section in (
                ("mqtt", self.config.mqtt),
                ("push", self.config.push),
                ("sparkplug", self.config.sparkplug),
            )
            for one in section
        }
        return [
            DestinationView(
                state.name,
                kinds.get(state.name, "not configured"),
                "unknown",
                mark("the service does not run"),
                state.pending_readings,
                state.oldest_unsent_at,
                state.acknowledged_at,
                state.pending_batches,
            )
            for state in states
        ]

    async def matrix(self) -> tuple[Matrix | None, str]:
        """The completeness of the last days."""
        now = self.clock.now().astimezone()
        return await self.ask(lambda connection: self._completeness.matrix(connection, now), None)

    def disk(self) -> tuple[int, int] | None:
        """Free and total octets where the store lies."""
        try:
            usage = shutil.disk_usage(self.config.state_directory)
        except OSError:
            return None
        return usage.free, usage.total

    async def _kept_for(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what `make` gives
        """What changes slowly is asked for again only after a while, however many look."""
        kept = self._slow.get(name)
        if kept is None or self.clock.monotonic() - kept[0] > _SLOW_S:
            kept = self._slow[name] = (self.clock.monotonic(), await make())
        return kept[1]

    async def reachability(self) -> list[tuple[int, NetworkHour | None]]:
        """The last 24 hours of the network that are over, oldest first: when each began, and what is kept of it."""
        return await self._kept_for("reachability", self._reachability)

    async def alarms(self) -> tuple[int, list[queries.Alarm]]:
        """The alarms of meters of the last 24 hours: how many, and the newest."""
        return await self._kept_for("alarms", self._alarms)

    async def hours(self) -> HourMatrix | None:
        """The completeness of today's hours."""
        return await self._kept_for("hours", self._hours)

    async def _hours(self) -> HourMatrix | None:
        now = self.clock.now().astimezone()
        settings = self.config.collection
        found, _reason = await self.ask(lambda c: hour_matrix(c, settings, now), None)
        return found

    async def _reachability(self) -> list[tuple[int, NetworkHour | None]]:
        newest = int(self.clock.now().timestamp()) // _HOUR_S * _HOUR_S - _HOUR_S
        since = newest - 23 * _HOUR_S
        rows, _reason = await self.ask_statistics(lambda c: network_queries.hours(c, since), [])
        found = {row.start: row for row in rows}
        return [(start, found.get(start)) for start in range(since, newest + 1, _HOUR_S)]

    async def _alarms(self) -> tuple[int, list[queries.Alarm]]:
        since = int(self.clock.now().timestamp()) - _DAY_S
        found, _reason = await self.ask(lambda c: queries.alarms(c, since, _ALARM_ROWS), (0, []))
        return found

    async def set_aside_at(self) -> datetime | None:
        """When a damaged store was set aside in the last week, if one was."""
        return await self._kept_for("set aside", self._set_aside_at)

    async def _set_aside_at(self) -> datetime | None:
        since = int(self.clock.now().timestamp()) - _SET_ASIDE_TOLD_S
        found, _reason = await self.ask(lambda c: queries.newest_of_code(c, "store_set_aside", since), None)
        return found

    def machine(self) -> Machine:
        """The box itself."""
        return machine.look(self.config.state_directory)

    def store_octets(self) -> int:
        """The size of the store's file with its write-ahead log; 0 when there is none."""
        octets = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(OSError):
                octets += Path(f"{self.config.store_file}{suffix}").stat().st_size
        return octets

    @staticmethod
    def totals(meters: list[MeterView]) -> Totals:
        """Sums over all meters."""
        told = [meter for meter in meters if meter.reachable is not None]
        links = Counter(meter.link for meter in meters)
        return Totals(
            meters=len(meters),
            active=sum(meter.state == "active" for meter in meters),
            attention=sum(meter.state_words.tone in ("bad", "warn") for meter in meters),
            reachable=sum(bool(meter.reachable) for meter in told) if told else None,
            plc=links["plc"],
            wireless=links["wmbus"],
            behind=links["mbus-client"],
            wired=links["mbus"],
            consumer_port=links["p1"],
            uncounted=sum(is_uncounted(meter) for meter in meters),
            expected=sum(meter.expected for meter in meters),
            stored=sum(meter.stored for meter in meters),
            closed=sum(meter.closed for meter in meters),
        )
