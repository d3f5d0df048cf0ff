"""Fills the gaps of one meter's profile with estimates, in the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from concentrator.clock import Clock
from concentrator.collection import estimation
from concentrator.collection.errors import CollectionError
from concentrator.collection.estimation import Method
from concentrator.collection.quantities import Kind, quantity_of
from concentrator.errors import LocalError
from concentrator.model import Answer, Quality, Reading
from concentrator.obis import Obis
from concentrator.store import series
from concentrator.store.judgement import Known
from concentrator.store.readings import from_epoch, to_epoch
from concentrator.store.store import Store

# Days like the missing one are looked for this far around.
_AROUND_S = 22 * 86_400
_LONGEST_S = 400 * 86_400
_NOT_TRUSTED = int(Quality.ESTIMATED | Quality.SUSPECT | Quality.WRONG_DIGITS)


class EstimationError(CollectionError, LocalError):
    """Nothing can be estimated as it was asked; the text says why."""


@dataclass(slots=True)
class Estimates:
    """What came of a request: values that were missing and are estimated now, and those that nothing bounds."""

    missing: int = 0
    estimated: int = 0
    open: int = 0
    channels: dict[str, int] = field(default_factory=dict[str, int])


class Estimator:
    """Estimates on request."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def fill(
        self, meter: str, profile: Obis, first: datetime, last: datetime, method: Method
    ) -> Estimates:
        """Estimate what a profile lacks from `first` to `last`, and store it.

        Raises:
            EstimationError: the meter has no such profile, or the span makes no sense.
            StoreError: it cannot be kept.
        """
        begin, end = to_epoch(first), min(to_epoch(last), to_epoch(self._clock.now()))
        if not 0 <= end - begin <= _LONGEST_S:
            raise EstimationError(
                f"from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}: no span of up to 400 days"
            )
        channels = [
            one
            for one in await self._store.read(lambda c: series.channels_of(c, meter))
            if one.profile == profile and one.channel.period_s
        ]
        if not channels:
            raise EstimationError(
                f"meter {meter} has delivered nothing of profile {profile}: nothing to estimate from"
            )
        result = Estimates()
        readings: list[Reading] = []
        for one in channels:
            values = await self._store.read(
                lambda c, number=one.channel_id: series.values_of(
                    c, number, begin - _AROUND_S, end + _AROUND_S
                )
            )
            found = self._estimate(
                one.channel.period_s, quantity_of(one.channel).kind, values, begin, end, method
            )
            missing, estimates = found
            result.missing += missing
            result.estimated += len(estimates)
            if estimates:
                result.channels[str(one.channel.obis)] = len(estimates)
            readings += [
                Reading(one.channel, from_epoch(at), value, None, Quality.ESTIMATED)
                for at, value in estimates.items()
            ]
        result.open = result.missing - result.estimated
        if readings:
            await self._store.store_answer(Answer(meter, profile, tuple(readings), self._clock.now()))
        return result

    @staticmethod
    def _estimate(  # noqa: PLR0913 - what one channel's estimate needs
        period_s: int, kind: Kind, values: list[Known], first: int, last: int, method: Method
    ) -> tuple[int, dict[int, int]]:
        """How many are missing, and the estimates of those for which there are any."""
        if kind not in (Kind.REGISTER, Kind.INTERVAL):
            return 0, {}
        known = {
            row.at: row.value
            for row in values
            if isinstance(row.value, int) and not row.quality & _NOT_TRUSTED
        }
        # A value that was measured and is suspect is not missing.
        present = {row.at: 0 for row in values if not row.quality & int(Quality.ESTIMATED)}
        make = estimation.estimate_register if kind is Kind.REGISTER else estimation.estimate_amounts
        missing = 0
        estimates: dict[int, int] = {}
        for run in estimation.missing_runs(first, last, period_s, present):
            missing += len(run)
            estimates |= make(run, known, period_s, method)
        return missing, estimates
