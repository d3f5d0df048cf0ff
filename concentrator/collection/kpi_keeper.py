"""Keeps the figures of each day: counts every few minutes, so that what a deadline found stays as it was."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection import kpi
from concentrator.collection.kpi import DAY_S, MeterFacts, VisitCounts, VisitLog
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.collection.topology import NodeHistory, Topology
from concentrator.store import kpi as kpi_table
from concentrator.store.errors import StoreError
from concentrator.store.kpi import MeterDay
from concentrator.store.network_history import NodeDay
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_S = 300.0
# A day counts until the last deadline has passed.
_COUNTED_DAYS = 5
_KEPT_DAYS = 400
_WORST = 10
_WEAK_LQI, _WEAK_SNR_CODE = 60, 3


class KpiKeeper:
    """Counts for the days that are not settled. `latest` are the figures of the last days, for status and page."""

    def __init__(  # noqa: PLR0913 - what it is made of, once, in app.py
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        topology: Topology,
        visits: VisitLog,
        profile: str,
    ) -> None:
        self.latest: dict[str, Any] = {}
        self._store = store
        self._clock = clock
        self._registry = registry
        self._topology = topology
        self._visits = visits
        self._profile = profile
        self._busy_s: dict[int, float] = {}
        self._rows: dict[int, dict[str, MeterDay]] = {}

    async def load(self) -> None:
        """Go on with what was kept."""
        today = _day_of(self._clock.now())
        first = today - _COUNTED_DAYS * DAY_S
        for day, figures in await self._store.read_statistics(lambda c: kpi_table.days(c, first)):
            self._busy_s[day] = float(figures.get("busy_s") or 0.0)
            self._rows[day] = await self._store.read_statistics(
                lambda c, day=day: kpi_table.meter_days(c, day)
            )

    async def run(self) -> None:
        """Count until cancelled, and once more then."""
        try:
            while True:
                await self._count_if_possible()
                since_midnight_s = self._clock.now().timestamp() % DAY_S
                await asyncio.sleep(min(_INTERVAL_S, kpi.until_deadline_s(since_midnight_s)))
        finally:
            await asyncio.shield(self._count_if_possible())

    async def _count_if_possible(self) -> None:
        try:
            await self.count()
        except StoreError as error:
            log.warning("figures not kept", reason=str(error))

    async def count(self) -> None:
        """Bring the figures of all days that are not settled up to now, and keep them.

        Raises:
            StoreError: they cannot be read or kept; visits counted so far go into the next count.
        """
        now = self._clock.now()
        if not is_plausible(now):
            return
        today = _day_of(now)
        counts, busy_s = self._visits.take(self._clock.monotonic())
        self._enter_visits(today, counts, busy_s)
        facts = {meter.identity: self._facts(meter, today) for meter in self._registry}
        for day in range(today - (_COUNTED_DAYS - 1) * DAY_S, today + 1, DAY_S):
            if day != today and day not in self._rows and not self._began_before(day):
                continue
            await self._count_day(day, now.timestamp() - day)
        for day in [day for day in self._rows if day < today - _COUNTED_DAYS * DAY_S]:
            del self._rows[day]
            self._busy_s.pop(day, None)
        self.latest = {"days": await self.days(3), "worst": self._worst(today, facts)}

    def _began_before(self, day: int) -> bool:
        return any(
            meter.record.first_seen is not None and meter.record.first_seen.timestamp() < day + DAY_S
            for meter in self._registry
        )

    def _enter_visits(self, today: int, counts: dict[str, VisitCounts], busy_s: float) -> None:
        rows = self._rows.setdefault(today, {})
        for meter, one in counts.items():
            kpi.add_visits(rows.setdefault(meter, MeterDay(meter)), one)
        self._busy_s[today] = self._busy_s.get(today, 0.0) + busy_s

    async def _count_day(self, day: int, since_s: float) -> None:
        found = await self._store.read(lambda c: kpi_table.interval_counts(c, self._profile, day))
        rows = self._rows.setdefault(day, {})
        for meter, (stored, closed, period_s) in found.items():
            kpi.count_day(rows.setdefault(meter, MeterDay(meter)), stored, closed, period_s, since_s)
        # A meter that had another identity before it told its own is no meter.
        nothing_owed = {meter.identity for meter in self._registry if _owes_nothing(meter)}
        known = [row for meter, row in rows.items() if meter in found and meter not in nothing_owed]
        hours = [hour for hour in self._topology.network_hours() if day <= hour.start < day + DAY_S]
        figures = kpi.day_figures(known, hours, self._busy_s.get(day, 0.0), since_s)
        await self._store.save_kpi_day(day, figures, known, _KEPT_DAYS)

    def _facts(self, meter: CollectedMeter, today: int) -> MeterFacts:
        record = meter.record
        try:
            eui = bytes.fromhex(record.link_address)
        except ValueError:
            eui = b""
        node = self._topology.node(eui)
        yesterday: NodeDay | None = next(
            (one for one in reversed(self._topology.node_days(eui)) if one.start == today - DAY_S), None
        )
        return MeterFacts(
            meter.identity,
            record.state,
            record.reason,
            meter.address is not None,
            node is not None and _is_weak(node),
            max(node.comings_and_goings if node is not None else 0, yesterday.changes if yesterday else 0),
            yesterday.percent if yesterday is not None else None,
            record.clock_offset_s,
            meter.failures,
        )

    def _worst(self, today: int, facts: dict[str, MeterFacts]) -> list[dict[str, Any]]:
        """Of yesterday, which is what is owed now; of today where there was no yesterday."""
        day = today - DAY_S if today - DAY_S in self._rows else today
        owing = {meter.identity for meter in self._registry if not _owes_nothing(meter)}
        rows = [row for meter, row in self._rows.get(day, {}).items() if meter in facts and meter in owing]
        return kpi.worst_meters(rows, facts, _WORST)

    async def days(self, count: int) -> list[dict[str, Any]]:
        """The figures of the last days, oldest first."""
        first = _day_of(self._clock.now()) - (count - 1) * DAY_S
        return [
            {"day": datetime.fromtimestamp(day, UTC).date().isoformat(), **figures}
            for day, figures in await self._store.read_statistics(lambda c: kpi_table.days(c, first))
        ]

    def availability(self) -> dict[str, list[dict[str, Any]]]:
        """Minutes on the network by day of each meter that is known: what operators call G02."""
        found: dict[str, list[dict[str, Any]]] = {}
        for meter in self._registry:
            try:
                eui = bytes.fromhex(meter.record.link_address)
            except ValueError:
                continue
            found[meter.identity] = [
                {
                    "day": datetime.fromtimestamp(day.start, UTC).date().isoformat(),
                    "minutes": round(day.available_minutes, 1),
                    "changes": day.changes,
                    "percent": round(day.percent, 1),
                }
                for day in self._topology.node_days(eui)[-31:]
            ]
        return found


def _owes_nothing(meter: CollectedMeter) -> bool:
    """Whether a meter is left alone, or was entered and has not been met yet."""
    record = meter.record
    not_met = record.registration.manual and record.last_contact is None and meter.address is None
    return record.left_alone or not_met


def _is_weak(node: NodeHistory) -> bool:
    """Whether the link of a node is bad: G3 tells a link quality of 0 to 255, PRIME an SNR code of 0 to 7."""
    if node.quality is None:
        return False
    return node.quality < (_WEAK_LQI if node.hops is not None else _WEAK_SNR_CODE)


def _day_of(moment: datetime) -> int:
    return int(moment.timestamp()) // DAY_S * DAY_S
