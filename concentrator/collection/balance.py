"""The energy balance of a transformer or of its feeders: what a supervisor meter saw go out, less what meters took.

Pure. Everything is computed by intervals from net energy (import less export, in Wh). An interval that a meter lacks is
bridged where its registers before and after are known: the total is certain, its place within the hole is bounded. An
interval is judged only where enough meters are known; for others the estimate and its bounds are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# Net registers in Wh by capture time, in seconds since 1970.
Registers = Mapping[int, float]
_WH_PER_KWH = 1000.0
_PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class Feeder:
    """A supervisor and those behind it; a transformer without feeders of its own is one."""

    name: str
    supervisor: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Amount:
    """Net energy of one interval in Wh, with its bounds; they are the same where it was measured."""

    value: float
    low: float
    high: float
    measured: bool


@dataclass(slots=True)
class IntervalBalance:
    """One interval by its end; energies in Wh. Without `supplied` there is nothing to say of it."""

    at: int
    supplied: Amount | None
    delivered: float = 0.0
    delivered_low: float = 0.0
    delivered_high: float = 0.0
    measured: int = 0  # members whose interval was measured
    unknown: list[str] = field(default_factory=list[str])  # members of whom nothing is known
    judged: bool = False

    @property
    def loss(self) -> float | None:
        """What went out and did not arrive at a meter; None where the supervisor or a member is unknown."""
        return None if self.supplied is None or self.unknown else self.supplied.value - self.delivered

    @property
    def loss_bounds(self) -> tuple[float, float] | None:
        """The least and the most that the loss can be."""
        if self.supplied is None or self.unknown:
            return None
        return self.supplied.low - self.delivered_high, self.supplied.high - self.delivered_low


@dataclass(slots=True)
class FeederBalance:
    """A span of a feeder, by intervals and in all."""

    feeder: Feeder
    intervals: list[IntervalBalance]

    @property
    def judged(self) -> list[IntervalBalance]:
        """The intervals of which enough is known."""
        return [one for one in self.intervals if one.judged]

    def totals(self) -> dict[str, float | int | None]:
        """Energy in kWh and the loss in kWh and per cent: of judged intervals, and of all that can be estimated."""
        judged, estimable = self.judged, [one for one in self.intervals if one.loss is not None]
        coverage = (
            sum(one.measured for one in self.intervals) / (len(self.intervals) * len(self.feeder.members))
            if self.intervals and self.feeder.members
            else 0.0
        )
        bounds = [one.loss_bounds for one in estimable if one.loss_bounds is not None]
        return {
            "intervals": len(self.intervals),
            "intervals_judged": len(judged),
            "coverage_pct": round(_PERCENT * coverage, 2),
            **_sums("", judged),
            **_sums("estimated_", estimable),
            "estimated_loss_low_kwh": _kwh(sum(low for low, _ in bounds)) if bounds else None,
            "estimated_loss_high_kwh": _kwh(sum(high for _, high in bounds)) if bounds else None,
        }


def _sums(prefix: str, intervals: Sequence[IntervalBalance]) -> dict[str, float | None]:
    supplied = sum(one.supplied.value for one in intervals if one.supplied is not None)
    delivered = sum(one.delivered for one in intervals)
    loss = supplied - delivered
    return {
        f"{prefix}supplied_kwh": _kwh(supplied) if intervals else None,
        f"{prefix}delivered_kwh": _kwh(delivered) if intervals else None,
        f"{prefix}loss_kwh": _kwh(loss) if intervals else None,
        f"{prefix}loss_pct": round(_PERCENT * loss / supplied, 2) if intervals and supplied else None,
    }


def _kwh(watt_hours: float) -> float:
    return round(watt_hours / _WH_PER_KWH, 3)


def amounts(registers: Registers, first: int, last: int, period_s: int) -> dict[int, Amount]:
    """The net energy of each interval that ends from `first` to `last`, as far as the registers tell it.

    Within a hole between two known registers the total is spread evenly. A meter that only takes, or only gives, has
    between nothing and all of it in any one interval; who does both is bounded likewise by what came of it in all.
    """
    found: dict[int, Amount] = {}
    known = sorted(registers)
    for before, after in pairwise(known):
        steps = (after - before) // period_s
        if steps < 1 or (after - before) % period_s:
            continue
        total = registers[after] - registers[before]
        measured = steps == 1
        share = total / steps
        low, high = (total, total) if measured else (min(0.0, total), max(0.0, total))
        for at in range(before + period_s, after + 1, period_s):
            if first <= at <= last:
                found[at] = Amount(share, low, high, measured)
    return found


def balance(  # noqa: PLR0913 - what a balance is made of
    feeder: Feeder,
    registers: Mapping[str, Registers],
    first: int,
    last: int,
    period_s: int,
    least_coverage: float,
) -> FeederBalance:
    """The balance of the intervals that end from `first` to `last`; `least_coverage` from 0 to 1."""
    supplied = amounts(registers.get(feeder.supervisor, {}), first, last, period_s)
    members = {name: amounts(registers.get(name, {}), first, last, period_s) for name in feeder.members}
    intervals: list[IntervalBalance] = []
    for at in range(-(-first // period_s) * period_s, last + 1, period_s):
        one = IntervalBalance(at, supplied.get(at))
        for name, series in members.items():
            amount = series.get(at)
            if amount is None:
                one.unknown.append(name)
                continue
            one.delivered += amount.value
            one.delivered_low += amount.low
            one.delivered_high += amount.high
            one.measured += amount.measured
        one.judged = (
            one.loss is not None
            and one.supplied is not None
            and one.supplied.measured
            and one.measured >= least_coverage * len(members)
        )
        intervals.append(one)
    return FeederBalance(feeder, intervals)
