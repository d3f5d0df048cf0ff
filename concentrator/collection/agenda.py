"""Who is next: meters by when they may be visited, and by how urgent that is.

Two heaps: those whose time has not come, by their time; and those that are ready, by urgency. An entry that was
planned anew is left where it is, and thrown away when it comes up: planning costs the logarithm of what waits.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import NamedTuple


class Rank(NamedTuple):
    """How urgent a visit is: lower goes first. Whoever failed goes behind whoever did not, within a level."""

    level: int
    failures: int = 0


class _Entry(NamedTuple):
    at: float
    rank: Rank
    number: int
    name: str


class Agenda:
    """Names with a time and a rank; times are monotonic seconds."""

    def __init__(self) -> None:
        self._numbers = count()
        self._valid: dict[str, int] = {}
        self._waiting: list[_Entry] = []
        self._ready: list[tuple[Rank, float, int, str]] = []

    def __len__(self) -> int:
        return len(self._valid)

    def plan(self, name: str, at: float, rank: Rank) -> None:
        """Visit it from a time on; replaces what was planned before."""
        number = next(self._numbers)
        self._valid[name] = number
        heapq.heappush(self._waiting, _Entry(at, rank, number, name))

    def drop(self, name: str) -> None:
        """Do not visit it."""
        self._valid.pop(name, None)

    def take(self, now: float) -> str | None:
        """The one whose turn it is, which leaves the agenda; None when nobody is ready."""
        name = self._first_ready(now)
        if name is not None:
            heapq.heappop(self._ready)
            del self._valid[name]
        return name

    def best_rank(self, now: float) -> Rank | None:
        """How urgent the most urgent is that waits for its turn now."""
        return None if self._first_ready(now) is None else self._ready[0][0]

    def next_time(self, now: float) -> float | None:
        """When somebody is ready: `now` if somebody is; None when nobody is planned."""
        if self._first_ready(now) is not None:
            return now
        while self._waiting and self._valid.get(self._waiting[0].name) != self._waiting[0].number:
            heapq.heappop(self._waiting)
        return self._waiting[0].at if self._waiting else None

    def _first_ready(self, now: float) -> str | None:
        while self._waiting and self._waiting[0].at <= now:
            entry = heapq.heappop(self._waiting)
            if self._valid.get(entry.name) == entry.number:
                heapq.heappush(self._ready, (entry.rank, entry.at, entry.number, entry.name))
        while self._ready:
            _rank, _at, number, name = self._ready[0]
            if self._valid.get(name) == number:
                return name
            heapq.heappop(self._ready)
        return None
