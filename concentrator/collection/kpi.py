"""The figures by which an operator judges a concentrator, and what is probably the matter with its worst meters.

Pure: figures of meters and of the network in, figures of the whole out. Days are UTC's. What each figure is:
docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from concentrator.model import MeterState
from concentrator.store.kpi import MeterDay
from concentrator.store.network_history import NetworkHour

DAY_S = 86_400
_PERCENT = 100.0
# Deadlines from the beginning of the day: 08:00 of the next, the end of the next, the end of the third after.
DEADLINES_S = {"at_0800": DAY_S + 8 * 3600, "at_d1": 2 * DAY_S, "at_d3": 4 * DAY_S}
_USUAL_PERIOD_S = 900
# A count that a deadline woke is made a moment after it.
_LATE_S = 5.0
# What is told of a meter that lacks intervals: the first that holds.
_FLAPS = 6
_HARDLY_THERE_PCT = 5.0
_SELDOM_THERE_PCT = 70.0
_CLOCK_OFF_S = 300.0


@dataclass(slots=True)
class VisitCounts:
    """What visits to one meter came to, since they were taken last."""

    visits: int = 0
    first_tries: int = 0
    first_successes: int = 0
    retries: int = 0
    dialogue_s: float = 0.0


class VisitLog:
    """Counts visits, and the time in which at least one was under way."""

    def __init__(self) -> None:
        self._counts: dict[str, VisitCounts] = {}
        self._under_way = 0
        self._busy_since = 0.0
        self._busy_s = 0.0

    def began(self, now_s: float) -> None:
        """A visit begins; `now_s` never runs backwards."""
        if not self._under_way:
            self._busy_since = now_s
        self._under_way += 1

    def ended(self, meter: str, began_s: float, now_s: float, *, succeeded: bool, retry: bool) -> None:
        """A visit ended; `retry`: the one before had failed."""
        self._under_way -= 1
        if not self._under_way:
            self._busy_s += now_s - self._busy_since
        counts = self._counts.setdefault(meter, VisitCounts())
        counts.visits += 1
        counts.dialogue_s += now_s - began_s
        if retry:
            counts.retries += 1
        else:
            counts.first_tries += 1
            counts.first_successes += succeeded

    def take(self, now_s: float) -> tuple[dict[str, VisitCounts], float]:
        """The counts by meter since this was called last, and the seconds in which somebody was spoken with."""
        if self._under_way:
            self._busy_s += now_s - self._busy_since
            self._busy_since = now_s
        counts, self._counts = self._counts, {}
        busy_s, self._busy_s = self._busy_s, 0.0
        return counts, busy_s


@dataclass(frozen=True, slots=True)
class MeterFacts:
    """What tells why a meter is behind. `availability_pct` and `changes` are of the day; None where not known."""

    meter: str
    state: MeterState
    reason: str = ""
    reachable: bool = True
    weak_signal: bool = False
    changes: int | None = None
    availability_pct: float | None = None
    clock_offset_s: float | None = None
    failures: int = 0


# How long after its end an interval may take until its meter was asked for it.
_TURN_S = 600.0


def until_deadline_s(since_midnight_s: float) -> float:
    """Seconds from a time of day to the next at which some day has a deadline."""
    marks = sorted({deadline_s % DAY_S or DAY_S for deadline_s in DEADLINES_S.values()})
    return next(mark for mark in marks if mark > since_midnight_s) - since_midnight_s


def count_day(row: MeterDay, stored: int, closed: int, period_s: int, since_day_began_s: float) -> MeterDay:
    """Enter what is stored now; a figure with a deadline stays as it was when that passed."""
    period = period_s or _USUAL_PERIOD_S
    ended = int(min(since_day_began_s, DAY_S) // period)
    # One that has just ended is not owed before its turn can have come; when it is there, it counts.
    owed = int(min(max(since_day_began_s - _TURN_S, 0.0), DAY_S) // period)
    row.expected = max(owed, min(stored + closed, ended))
    row.stored, row.closed = stored, closed
    for name, deadline_s in DEADLINES_S.items():
        if since_day_began_s <= deadline_s + _LATE_S:
            setattr(row, name, stored)
    return row


def add_visits(row: MeterDay, counts: VisitCounts) -> None:
    """Add what visits came to."""
    row.visits += counts.visits
    row.first_tries += counts.first_tries
    row.first_successes += counts.first_successes
    row.retries += counts.retries
    row.dialogue_s += counts.dialogue_s


def day_figures(
    rows: Iterable[MeterDay], hours: Sequence[NetworkHour], busy_s: float, since_day_began_s: float
) -> dict[str, Any]:
    """The figures of a day; one that cannot be told yet is None. Shares are in per cent."""
    every = list(rows)
    expected = sum(row.expected for row in every)
    first_tries = sum(row.first_tries for row in every)
    over = min(since_day_began_s, float(DAY_S))
    up_minutes = sum(hour.up_minutes for hour in hours)
    figures: dict[str, Any] = {
        "meters": len(every),
        "intervals_expected": expected,
        "intervals_stored": sum(row.stored for row in every),
        "intervals_closed": sum(row.closed for row in every),
        "completeness_pct": _share(sum(row.stored for row in every), expected),
        "reachability_pct": (
            round(sum(hour.percent * hour.up_minutes for hour in hours) / up_minutes, 2)
            if up_minutes
            else None
        ),
        "reachability_lowest_pct": round(min(hour.percent for hour in hours), 2) if hours else None,
        "visits": sum(row.visits for row in every),
        "first_try_pct": _share(sum(row.first_successes for row in every), first_tries),
        "retries": sum(row.retries for row in every),
        "airtime_pct": _share(busy_s, over),
        "busy_s": round(busy_s, 1),
    }
    for name, deadline_s in DEADLINES_S.items():
        due = since_day_began_s >= deadline_s
        figures[f"completeness_{name[3:]}_pct"] = (
            _share(sum(getattr(row, name) for row in every), expected) if due else None
        )
    return figures


def _share(part: float, whole: float) -> float | None:
    return round(_PERCENT * part / whole, 3) if whole else None


def worst_meters(rows: Iterable[MeterDay], facts: dict[str, MeterFacts], most: int) -> list[dict[str, Any]]:
    """The meters that lack most of what they owe, each with what is probably the matter."""
    behind = sorted(
        (row for row in rows if row.stored < row.expected),
        key=lambda row: (row.stored / row.expected, -row.retries, row.meter),
    )
    return [
        {
            "meter": row.meter,
            "stored": row.stored,
            "expected": row.expected,
            "closed": row.closed,
            "retries": row.retries,
            "reason": probable_reason(facts[row.meter], row) if row.meter in facts else "not known any more",
        }
        for row in behind[:most]
    ]


def probable_reason(facts: MeterFacts, row: MeterDay) -> str:  # noqa: PLR0911 - one rule after the other
    """What is probably the matter with a meter that is behind, in words."""
    match facts.state:
        case MeterState.KEY_MISSING | MeterState.KEY_WRONG:
            return f"keys: {facts.reason or facts.state.value}"
        case MeterState.REFUSED:
            return f"refuses us: {facts.reason or 'no reason given'}"
        case MeterState.FOREIGN:
            return "not ours"
        case _:
            pass
    if facts.reason.startswith("without power"):
        return facts.reason
    if not facts.reachable or (
        facts.availability_pct is not None and facts.availability_pct < _HARDLY_THERE_PCT
    ):
        return f"no route: {facts.reason or 'not on the network'}"
    if facts.changes is not None and facts.changes >= _FLAPS:
        return f"comes and goes: {facts.changes} times that day; its parent or the line is not steady"
    if facts.availability_pct is not None and facts.availability_pct < _SELDOM_THERE_PCT:
        return f"seldom there: on the network {facts.availability_pct:.0f} % of the day"
    if facts.clock_offset_s is not None and abs(facts.clock_offset_s) > _CLOCK_OFF_S:
        return f"clock: {facts.clock_offset_s:+.0f} s off, so that its rows lie elsewhere"
    if row.closed and row.stored + row.closed >= row.expected:
        return f"no data in the meter: it lacks {row.closed} intervals itself"
    if facts.weak_signal and facts.failures + row.retries:
        return f"weak signal: {row.retries} visits tried again"
    if facts.failures or facts.reason:
        return f"does not answer: {facts.reason or f'{facts.failures} visits failed'}"
    return "being read"
