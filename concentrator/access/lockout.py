"""Delays that grow with each wrong password, for each name and each address."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from concentrator.clock import Clock

FREE_TRIES = 3
_FIRST_DELAY_S = 2.0
_LONGEST_DELAY_S = 900.0
_FORGOTTEN_AFTER_S = 86_400.0
_MOST_KEYS = 2000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_at: float = 0.0
    locked_until: float = 0.0


class Lockout:
    """Counts failures by key. The first three cost nothing; each further one doubles the delay, up to 15 minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """How long none of these may try; 0 when they may."""
        now = self._clock.monotonic()
        return max(
            (max(0.0, found.locked_until - now) for key in keys if (found := self._failures.get(key))),
            default=0.0,
        )

    def failed(self, *keys: str) -> float:
        """Note a failure of each; gives the longest delay that follows from it."""
        now = self._clock.monotonic()
        longest = 0.0
        for key in keys:
            found = self._failures.pop(key, None)
            if found is None or now - found.last_at > _FORGOTTEN_AFTER_S:
                found = _Failures()
            found.count += 1
            found.last_at = now
            if found.count > FREE_TRIES:
                # Bounded before it is raised to a power: the count is not.
                doublings = min(found.count - FREE_TRIES - 1, 16)
                delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**doublings)
                found.locked_until = now + delay_s
                longest = max(longest, delay_s)
            self._failures[key] = found
        while len(self._failures) > _MOST_KEYS:
            self._failures.popitem(last=False)
        return longest

    def succeeded(self, *keys: str) -> None:
        """Forget the failures of these."""
        for key in keys:
            self._failures.pop(key, None)
