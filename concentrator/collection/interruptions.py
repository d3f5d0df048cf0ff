"""Interruptions of supply, put together from what meters and network tell: one outage of a feeder is one outage.

Pure. Evidence are power-down and power-up entries of event logs, last gasps (both carry the meter's own time), and
nodes that left and joined the network (the time at which that was noticed). Interruptions of several meters that begin
together are one outage. Nodes that go together without a word may have lost their power or only their way: such an
outage is suspected, until logs say that it was one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

# Meters' clocks differ; a last gasp comes some seconds after its reason.
_SAME_START_S = 120.0
# A network notices that nodes are gone minutes later, one after the other.
_LEFT_TOGETHER_S = 300.0
_LEFT_AFTER_S = 1800.0
# An entry of a log and a last gasp tell of one interruption.
_SAME_S = 180.0
_FEWEST_OF_A_FEEDER = 3
_SHARE_OF_A_FEEDER = 0.3


class Sign(enum.Enum):
    """What was seen of a meter."""

    DOWN = "power down"  # an entry of its log, or a last gasp
    UP = "power up"
    LEFT = "left the network"
    JOINED = "joined the network"


class Evidence(NamedTuple):
    """One sign, with its time in seconds since 1970."""

    at: float
    meter: str
    sign: Sign


class Scale(enum.StrEnum):
    """How far an outage reached."""

    METER = "meter"
    SEVERAL = "several meters"
    FEEDER = "feeder"


@dataclass(slots=True)
class Outage:
    """One outage; `end` is None while a meter of it is without power. Times are seconds since 1970."""

    start: float
    end: float | None
    meters: list[str]
    scale: Scale
    feeders: list[str] = field(default_factory=list[str])
    suspected: bool = False  # nobody has said that power failed
    silent: list[str] = field(default_factory=list[str])  # went with the others, and said nothing
    meter_minutes: float = 0.0  # of those that are over, summed over the meters

    @property
    def count(self) -> int:
        """Meters that were without power."""
        return len(self.meters) + len(self.silent)


@dataclass(slots=True)
class _Interruption:
    meter: str
    start: float
    end: float | None


def reconstruct(evidence: Sequence[Evidence], feeders: Mapping[str, str], known: int) -> list[Outage]:
    """The outages that the evidence tells of, oldest first.

    `feeders` names the feeder of each meter where it is known; `known` is how many meters there are.
    """
    ordered = sorted(evidence, key=_order)
    interruptions = _of_each_meter(ordered)
    outages: list[Outage] = []
    for group in _groups(interruptions):
        names = [one.meter for one in group]
        ends = [one.end for one in group]
        over = [one.end - one.start for one in group if one.end is not None]
        outages.append(
            Outage(
                median(one.start for one in group),
                None if None in ends else max(end for end in ends if end is not None),
                names,
                _scale(len(names), known),
                sorted({feeders[name] for name in names if name in feeders}),
                meter_minutes=sum(over) / 60,
            )
        )
    _add_silent(outages, ordered, known)
    outages += _left_together(outages, ordered, feeders, known)
    return sorted(outages, key=_start)


def _order(one: Evidence) -> tuple[float, str, str]:
    return one.at, one.meter, one.sign.value


def _start(outage: Outage) -> float:
    return outage.start


def _scale(count: int, known: int) -> Scale:
    if count >= max(_FEWEST_OF_A_FEEDER, _SHARE_OF_A_FEEDER * known):
        return Scale.FEEDER
    return Scale.METER if count == 1 else Scale.SEVERAL


def _of_each_meter(ordered: Sequence[Evidence]) -> list[_Interruption]:
    found: list[_Interruption] = []
    latest: dict[str, _Interruption] = {}
    for at, meter, sign in ordered:
        open_one = latest.get(meter)
        if sign is Sign.DOWN:
            if open_one is not None and (at - open_one.start <= _SAME_S):
                continue
            latest[meter] = _Interruption(meter, at, None)
            found.append(latest[meter])
        elif open_one is not None and open_one.end is None and sign in (Sign.UP, Sign.JOINED):
            open_one.end = at
    return found


def _groups(interruptions: Sequence[_Interruption]) -> list[list[_Interruption]]:
    groups: list[list[_Interruption]] = []
    for one in sorted(interruptions, key=lambda each: each.start):
        together = groups and one.start - groups[-1][0].start <= _SAME_START_S
        if together and all(other.meter != one.meter for other in groups[-1]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _add_silent(outages: Sequence[Outage], ordered: Sequence[Evidence], known: int) -> None:
    """Meters that left with a large outage and could not send a last gasp."""
    for outage in outages:
        if outage.scale is Scale.METER:
            continue
        until = outage.end if outage.end is not None else outage.start + _LEFT_AFTER_S
        last = min(until, outage.start + _LEFT_AFTER_S)
        said = set(outage.meters)
        for at, meter, sign in ordered:
            if sign is Sign.LEFT and outage.start <= at <= last and meter not in said:
                said.add(meter)
                outage.silent.append(meter)
        outage.scale = _scale(outage.count, known)


def _left_together(
    outages: Sequence[Outage], ordered: Sequence[Evidence], feeders: Mapping[str, str], known: int
) -> list[Outage]:
    explained = {
        (meter, at)
        for at, meter, sign in ordered
        if sign is Sign.LEFT
        and any(
            outage.start <= at <= (outage.end or at) + _LEFT_AFTER_S
            and meter in (*outage.meters, *outage.silent)
            for outage in outages
        )
    }
    groups: list[list[Evidence]] = []
    for one in ordered:
        if one.sign is not Sign.LEFT or (one.meter, one.at) in explained:
            continue
        if groups and one.at - groups[-1][0].at <= _LEFT_TOGETHER_S:
            groups[-1].append(one)
        else:
            groups.append([one])
    found: list[Outage] = []
    for group in groups:
        names = sorted({one.meter for one in group})
        if _scale(len(names), known) is not Scale.FEEDER:
            continue
        start = group[0].at
        back = [
            next(
                (at for at, meter, sign in ordered if sign is Sign.JOINED and meter == name and at > start),
                None,
            )
            for name in names
        ]
        end = None if None in back else max(at for at in back if at is not None)
        found.append(
            Outage(
                start,
                end,
                names,
                Scale.FEEDER,
                sorted({feeders[name] for name in names if name in feeders}),
                suspected=True,
                meter_minutes=sum(at - start for at in back if at is not None) / 60,
            )
        )
    return found
