"""Which meters deserve a look, and why: what speaks for tampering, with a score for its weight.

Pure. Nothing here is proof: a list for whoever goes and looks, the most suspicious first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from statistics import correlation, fmean, linear_regression

from concentrator.collection.balance import Amount, FeederBalance
from concentrator.model import MeterEvent

_DAY_S = 86_400
# By what an event is about; each more of its kind adds little.
_EVENT_WEIGHTS = {"magnet": 4.0, "cover": 3.0, "tamper": 3.0, "phase": 2.0}
_EVENT_WORDS = {
    "magnet": "magnetic field",
    "cover": "cover opened",
    "tamper": "tampering",
    "phase": "phases or current wrong",
}
# An event that tells the end of something is no second attempt: "closed", "no strong field any more".
_ALARMING = ("alarm", "warning")
_MORE_OF_A_KIND = 0.5
_PHASE_MISMATCH = 2.0
_FELL_TO = 0.6
_STEP_WEIGHT = 3.0
_STEP_AND_LOSSES = 2.0
_LEAST_WH_A_DAY = 500.0
_FEWEST_DAYS_BEFORE = 2
_WHOLE_DAY = 0.8
_FEWEST_POINTS = 48
_STRONG_CORRELATION = 0.5
_CORRELATION_WEIGHT = 2.0
# Of what a meter counts: less may be the wire to it.
_LEAST_SHARE = 0.2
_LEAST_REST_WH = 1.0


@dataclass(slots=True)
class Suspicion:
    """A meter, the weight of what speaks against it, and each reason in words."""

    meter: str
    score: float = 0.0
    reasons: list[str] = field(default_factory=list[str])

    def add(self, weight: float, words: str) -> None:
        """One reason more."""
        self.score += weight
        self.reasons.append(words)


def suspicions(
    balance: FeederBalance,
    members: Mapping[str, Mapping[int, Amount]],
    events: Sequence[tuple[str, MeterEvent]],
    phases: Mapping[str, tuple[str, str]],
    period_s: int,
) -> list[Suspicion]:
    """The members of a feeder against whom something speaks, the most suspicious first.

    `members` has what each took by interval (import alone: who begins to feed in does not take less), `phases` the
    phase of each as it is registered and as the network sees it.
    """
    found = {name: Suspicion(name) for name in balance.feeder.members}
    _by_events(found, events)
    for name, (registered, seen) in phases.items():
        if name in found and registered and seen and registered != seen:
            found[name].add(_PHASE_MISMATCH, f"phase mismatch: registered on {registered}, seen on {seen}")
    losses = {one.at: one.loss for one in balance.judged if one.loss is not None}
    daily_losses = _by_day(losses, period_s)
    for name, series in members.items():
        if name in found:
            taken = {at: amount.value for at, amount in series.items() if amount.measured}
            _by_step(found[name], _by_day(taken, period_s), daily_losses)
    _by_correlation(found, members, losses)
    listed = [one for one in found.values() if one.reasons]
    return sorted(listed, key=lambda one: (-one.score, one.meter))


def _by_events(found: Mapping[str, Suspicion], events: Sequence[tuple[str, MeterEvent]]) -> None:
    counts: Counter[tuple[str, str]] = Counter(
        (meter, event.kind)
        for meter, event in events
        if event.kind in _EVENT_WEIGHTS and event.severity.value in _ALARMING and meter in found
    )
    last = {(meter, event.kind): event.happened_at for meter, event in events}
    for (meter, kind), count in counts.items():
        weight = _EVENT_WEIGHTS[kind] + _MORE_OF_A_KIND * min(count - 1, 4)
        times = "once" if count == 1 else f"{count} times"
        found[meter].add(weight, f"{_EVENT_WORDS[kind]} {times}, last {last[meter, kind]:%Y-%m-%d %H:%M}")


def _by_day(values: Mapping[int, float], period_s: int) -> dict[int, float]:
    """Sums of days of which most is known, made up to a whole day."""
    sums: dict[int, list[float]] = {}
    for at, value in values.items():
        sums.setdefault((at - 1) // _DAY_S * _DAY_S, []).append(value)
    whole = _DAY_S // period_s
    return {
        day: sum(parts) * whole / len(parts)
        for day, parts in sums.items()
        if len(parts) >= _WHOLE_DAY * whole
    }


def _by_step(one: Suspicion, days: Mapping[int, float], losses: Mapping[int, float]) -> None:
    """Consumption that fell and stayed low, above all where losses rose at the same time."""
    ordered = sorted(days)
    best: tuple[float, int] | None = None
    for place in range(_FEWEST_DAYS_BEFORE, len(ordered)):
        before = fmean(days[day] for day in ordered[:place])
        after = fmean(days[day] for day in ordered[place:])
        if before >= _LEAST_WH_A_DAY and (best is None or after / before < best[0]):
            best = after / before, place
    if best is None or best[0] > _FELL_TO:
        return
    ratio, place = best
    since = ordered[place]
    one.add(
        _STEP_WEIGHT * (1 - max(0.0, ratio)),
        f"consumption fell by {100 * (1 - ratio):.0f} % from {datetime.fromtimestamp(since, UTC):%Y-%m-%d} on",
    )
    before = [loss for day, loss in losses.items() if day < since]
    after = [loss for day, loss in losses.items() if day >= since]
    if not before or not after:
        return
    drop = fmean(days[day] for day in ordered[:place]) - fmean(days[day] for day in ordered[place:])
    rise = fmean(after) - fmean(before)
    if rise >= drop / 2:
        one.add(_STEP_AND_LOSSES, f"losses rose by {rise / 1000:.1f} kWh a day at the same time")


def _by_correlation(
    found: Mapping[str, Suspicion],
    members: Mapping[str, Mapping[int, Amount]],
    losses: Mapping[int, float],
) -> None:
    """Who takes part of the energy beside the meter has losses that move with the meter.

    All households move with the hours and so with each other, and what any line loses goes with the load: only what is
    left of losses and of a meter when the load of all is taken out of both says something of that meter.
    """
    loads = {
        at: sum(series[at].value for series in members.values())
        for at in losses
        if all(at in series and series[at].measured for series in members.values())
    }
    best: tuple[float, str] | None = None
    for name, series in members.items():
        if name not in found or len(loads) < _FEWEST_POINTS:
            continue
        load = list(loads.values())
        taken, lost = [series[at].value for at in loads], [losses[at] for at in loads]
        if _constant(load) or _constant(taken) or _constant(lost):
            continue
        taken_rest, lost_rest = _without(load, taken), _without(load, lost)
        if _is_nothing(taken_rest) or _is_nothing(lost_rest):
            continue
        strength = correlation(taken_rest, lost_rest)
        share = linear_regression(taken_rest, lost_rest).slope
        if share >= _LEAST_SHARE and (best is None or strength > best[0]):
            best = strength, name
    if best is not None and best[0] >= _STRONG_CORRELATION:
        strength, name = best
        found[name].add(
            _CORRELATION_WEIGHT * strength, f"losses move with its consumption (correlation {strength:.2f})"
        )


def _without(load: Sequence[float], values: Sequence[float]) -> list[float]:
    """What is left of values when what follows from the load is taken out."""
    slope, intercept = linear_regression(load, values)
    return [value - slope * one - intercept for one, value in zip(load, values, strict=True)]


def _is_nothing(values: Sequence[float]) -> bool:
    return max(map(abs, values)) < _LEAST_REST_WH


def _constant(values: Sequence[float]) -> bool:
    return all(one == other for one, other in pairwise(values))
