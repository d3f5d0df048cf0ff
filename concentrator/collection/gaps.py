"""Which intervals a meter still owes: pure arithmetic on capture times.

Times are seconds since 1970, UTC. An interval is named by its END; ends lie on whole multiples of the
capture period, whatever the zone (zones are whole quarter hours).
"""

from __future__ import annotations

from collections.abc import Iterable

ClosedGap = tuple[int, int, str]
Span = tuple[int, int]


def expected_times(first: int, last: int, period_s: int) -> range:
    """The interval ends from `first` to `last`, both included."""
    start = -(-first // period_s) * period_s
    return range(start, last + 1, period_s)


def missing_times(expected: range, stored: set[int], closed: Iterable[ClosedGap]) -> list[int]:
    """The expected times that are neither stored nor closed, oldest first."""
    gaps = list(closed)
    return [
        at for at in expected if at not in stored and not any(first <= at <= last for first, last, _ in gaps)
    ]


def spans(times: Iterable[int], period_s: int, longest: int) -> list[Span]:
    """Neighbouring times joined to (first, last), each of at most `longest` intervals; newest first.

    The newest come first because they are what the head-end waits for; a day is one request.
    """
    result: list[Span] = []
    for at in sorted(times, reverse=True):
        if result:
            first, last = result[-1]
            if first - at == period_s and (last - at) // period_s < longest:
                result[-1] = (at, last)
                continue
        result.append((at, at))
    return result
