"""Estimates of missing intervals: made only when somebody asks, and always marked.

Pure. A register's gap lies between two values that are known, and its total with them: only how it spreads is
estimated, evenly (`linear`) or as on a day like it (`like-day`: the same weekday of the weeks around, else the days
around). Where the far end is not known, a day like it is taken as it was; a straight line leads nowhere, and nothing
is estimated.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

_DAY_S = 86_400
# Days like the one that is missing, the best first: the same weekday, then the neighbours.
_LIKE_DAYS = (-7, 7, -14, 14, -21, 21, -1, 1, -2, 2)


class Method(enum.StrEnum):
    """How a gap is filled."""

    LINEAR = "linear"
    LIKE_DAY = "like-day"


def missing_runs(first: int, last: int, period_s: int, known: Mapping[int, int]) -> list[list[int]]:
    """The interval ends from `first` to `last` that are not known, neighbours together."""
    runs: list[list[int]] = []
    for at in range(-(-first // period_s) * period_s, last + 1, period_s):
        if at in known:
            continue
        if runs and runs[-1][-1] == at - period_s:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def estimate_register(
    run: Sequence[int], known: Mapping[int, int], period_s: int, method: Method
) -> dict[int, int]:
    """Values for a run of missing intervals of a register; none where nothing bounds or resembles them."""
    before = known.get(run[0] - period_s)
    after = known.get(run[-1] + period_s)
    if before is None:
        return {}
    # One increment more than there are values: the last leads to the value behind the run.
    ends = [*run, run[-1] + period_s]
    increments = _like_increments(ends, known, period_s) if method is Method.LIKE_DAY else None
    if after is None:
        if increments is None:
            return {}
        return _added(run, before, [float(step) for step in increments])
    total = after - before
    if total < 0:
        return {}
    if increments is None or sum(increments) <= 0:
        increments = [1] * len(ends)
    scale = total / sum(increments)
    return _added(run, before, [step * scale for step in increments])


def estimate_amounts(
    run: Sequence[int], known: Mapping[int, int], period_s: int, method: Method
) -> dict[int, int]:
    """Values for a run of missing intervals that have their own amounts."""
    if method is Method.LIKE_DAY:
        like = [_like(at, known) for at in run]
        if all(value is not None for value in like):
            return {at: value for at, value in zip(run, like, strict=True) if value is not None}
    before, after = known.get(run[0] - period_s), known.get(run[-1] + period_s)
    if before is None or after is None:
        return {}
    step = (after - before) / (len(run) + 1)
    return {at: round(before + step * number) for number, at in enumerate(run, 1)}


def _added(run: Sequence[int], before: int, increments: Sequence[float]) -> dict[int, int]:
    values: dict[int, int] = {}
    total = float(before)
    for at, step in zip(run, increments, strict=False):
        total += step
        values[at] = int(total)
    return values


def _like(at: int, known: Mapping[int, int]) -> int | None:
    return next((known[at + day * _DAY_S] for day in _LIKE_DAYS if at + day * _DAY_S in known), None)


def _like_increments(ends: Sequence[int], known: Mapping[int, int], period_s: int) -> list[int] | None:
    found: list[int] = []
    for at in ends:
        step = next(
            (
                known[then] - known[then - period_s]
                for then in (at + day * _DAY_S for day in _LIKE_DAYS)
                if then in known and then - period_s in known and known[then] >= known[then - period_s]
            ),
            None,
        )
        if step is None:
            return None
        found.append(step)
    return found
