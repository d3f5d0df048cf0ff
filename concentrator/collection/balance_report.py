"""The energy balance of a day from what is stored, as an operator asks for it; yesterday's is kept at hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.balance import Amount, Feeder, FeederBalance, Registers, amounts, balance
from concentrator.collection.errors import CollectionError
from concentrator.collection.suspicion import suspicions
from concentrator.config import BalanceSection, FeederSection
from concentrator.errors import LocalError
from concentrator.model import Medium, MeterEvent, MeterRecord, Quality
from concentrator.obis import Obis
from concentrator.store import series
from concentrator.store.errors import StoreError
from concentrator.store.meter_events import events_between
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_DAY_S = 86_400
_INTERVAL_S = 3600.0
_IMPORT, _EXPORT = Obis(1, 0, 1, 8, 0), Obis(1, 0, 2, 8, 0)
_NOT_TRUSTED = int(Quality.SUSPECT | Quality.ESTIMATED | Quality.WRONG_DIGITS)
# Registry details: the phase that a meter is registered on, and the one that the network sees it on.
PHASE_DETAIL, SEEN_PHASE_DETAIL = "phase", "seen_phase"
_MOST_LISTED = 20


class BalanceError(CollectionError, LocalError):
    """No balance can be made; the text says what is missing."""


class BalanceReport:
    """Makes balances on request; `latest` is yesterday's in short, for status and page."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: BalanceSection,
        feeders: tuple[FeederSection, ...],
        profile: str,
    ) -> None:
        self.latest: dict[str, Any] = {}
        self._store = store
        self._clock = clock
        self._settings = settings
        self._sections = feeders
        self._profile = Obis.parse(profile)

    @property
    def is_set_up(self) -> bool:
        """Whether there is a supervisor meter."""
        return bool(self._settings.supervisor or self._sections)

    async def run(self) -> None:
        """Bring yesterday's balance up to date every hour, until cancelled."""
        while True:
            now = self._clock.now()
            if self.is_set_up and is_plausible(now):
                try:
                    found = await self.day((now - timedelta(days=1)).date())
                except (StoreError, BalanceError) as error:
                    log.info("no balance", reason=str(error))
                else:
                    self.latest = {
                        "day": found["day"],
                        "feeders": [
                            {"name": one["name"], **one["totals"], "suspicions": one["suspicions"][:3]}
                            for one in found["feeders"]
                        ],
                    }
            await asyncio.sleep(_INTERVAL_S)

    async def feeders(self) -> list[Feeder]:
        """The feeders as configured; a feeder without members has all meters that no other has.

        Raises:
            BalanceError: no supervisor is set up.
        """
        if not self.is_set_up:
            raise BalanceError(
                "no supervisor meter is set up: name it in balance.supervisor, or in a [[feeder]] of the configuration"
            )
        electric = {
            record.identity
            for record in await self._store.load_meters()
            if record.medium is Medium.ELECTRICITY and record.link == "plc"
        }
        sections = self._sections or (FeederSection("transformer", self._settings.supervisor, ""),)
        taken = {one.supervisor for one in sections} | {self._settings.supervisor}
        for one in sections:
            taken |= set(_names(one.members))
        rest = tuple(sorted(electric - taken))
        found = [Feeder(one.name, one.supervisor, _names(one.members) or rest) for one in sections]
        if self._sections and self._settings.supervisor:
            # The transformer against its feeders: what is lost before these is nobody's meter's fault.
            whole = tuple(one.supervisor for one in sections)
            found.insert(0, Feeder("transformer", self._settings.supervisor, whole))
        return found

    async def day(self, day: date) -> dict[str, Any]:
        """The balance of one day (UTC) of every feeder, with its suspicions.

        Raises:
            BalanceError: no supervisor is set up.
            StoreError: the store cannot be read.
        """
        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        end = begin + _DAY_S
        since = begin - (self._settings.suspicion_days - 1) * _DAY_S
        records = {record.identity: record for record in await self._store.load_meters()}
        happened = await self._store.read(
            lambda c: events_between(c, datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(end, UTC))
        )
        found: list[dict[str, Any]] = []
        for feeder in await self.feeders():
            registers: dict[str, Registers] = {}
            imports: dict[str, Registers] = {}
            period_s = 0
            for name in (feeder.supervisor, *feeder.members):
                registers[name], imports[name], own_period_s = await self._registers(name, since, end)
                period_s = max(period_s, own_period_s)
            span = since, begin, end
            found.append(self._feeder(feeder, registers, imports, period_s, span, happened, records))
        return {"day": day.isoformat(), "feeders": found}

    def _feeder(  # noqa: PLR0913 - what one feeder's report is made of
        self,
        feeder: Feeder,
        registers: dict[str, Registers],
        imports: dict[str, Registers],
        period_s: int,
        span: tuple[int, int, int],
        happened: list[tuple[str, MeterEvent]],
        records: dict[str, MeterRecord],
    ) -> dict[str, Any]:
        since, begin, end = span
        if not period_s:
            return {"name": feeder.name, "supervisor": feeder.supervisor, "members": len(feeder.members)} | {
                "totals": FeederBalance(feeder, []).totals(),
                "intervals": [],
                "suspicions": [],
            }
        coverage = self._settings.coverage_pct / 100
        whole = balance(feeder, registers, since + period_s, end, period_s, coverage)
        members: dict[str, dict[int, Amount]] = {
            name: amounts(imports[name], since + period_s, end, period_s) for name in feeder.members
        }
        phases = {
            name: (
                records[name].details.get(PHASE_DETAIL, ""),
                records[name].details.get(SEEN_PHASE_DETAIL, ""),
            )
            for name in feeder.members
            if name in records
        }
        today = FeederBalance(feeder, [one for one in whole.intervals if begin < one.at <= end])
        return {
            "name": feeder.name,
            "supervisor": feeder.supervisor,
            "members": len(feeder.members),
            "totals": today.totals(),
            "phases": _phase_counts(phases),
            "intervals": [
                {
                    "t": datetime.fromtimestamp(one.at, UTC).isoformat(),
                    "supplied_wh": None if one.supplied is None else round(one.supplied.value, 1),
                    "delivered_wh": round(one.delivered, 1),
                    "loss_wh": None if one.loss is None else round(one.loss, 1),
                    "loss_bounds_wh": one.loss_bounds,
                    "measured": one.measured,
                    "unknown": one.unknown,
                    "judged": one.judged,
                }
                for one in today.intervals
            ],
            "suspicions": [
                {"meter": one.meter, "score": round(one.score, 2), "reasons": one.reasons}
                for one in suspicions(whole, members, happened, phases, period_s)[:_MOST_LISTED]
            ],
        }

    async def _registers(self, meter: str, first: int, last: int) -> tuple[Registers, Registers, int]:
        """Net and import registers of a meter in Wh, with those just outside of the span, and their period."""
        channels = await self._store.read(lambda c: series.channels_of(c, meter))
        parts: dict[Obis, dict[int, float]] = {_IMPORT: {}, _EXPORT: {}}
        period_s = 0
        for one in channels:
            if one.profile != self._profile or one.channel.obis not in parts:
                continue
            values = await self._store.read(
                lambda c, number=one.channel_id: series.values_of(c, number, first - _DAY_S, last + _DAY_S)
            )
            unit = 10.0**one.channel.scaler
            parts[one.channel.obis].update(
                {
                    row.at: row.value * unit
                    for row in values
                    if isinstance(row.value, int) and not row.quality & _NOT_TRUSTED
                }
            )
            period_s = one.channel.period_s or period_s
        imported, exported = parts[_IMPORT], parts[_EXPORT]
        if not exported:
            return imported, imported, period_s
        net = {at: value - exported[at] for at, value in imported.items() if at in exported}
        return net, imported, period_s


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _phase_counts(phases: dict[str, tuple[str, str]]) -> dict[str, int]:
    """How many members hang on each phase, as the network sees them or else as they are registered."""
    counts: dict[str, int] = {}
    for registered, seen in phases.values():
        name = seen or registered or "not known"
        counts[name] = counts.get(name, 0) + 1
    return counts
