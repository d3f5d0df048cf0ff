"""How long to wait before trying a lost link again: longer each time, never in step with others."""

from __future__ import annotations

import random

FIRST_S = 0.5
LONGEST_S = 30.0
_FACTOR = 2.0


class Backoff:
    """Delays that grow from `first_s` to `longest_s`, each shortened at random by up to a quarter.

    The randomness keeps a thousand concentrators from knocking at a recovering head-end at once.
    """

    def __init__(
        self, first_s: float = FIRST_S, longest_s: float = LONGEST_S, seed: int | None = None
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s
        self._random = random.Random(seed)

    def next_delay_s(self) -> float:
        """The delay before the next try."""
        delay = self._next_s
        self._next_s = min(self._next_s * _FACTOR, self._longest_s)
        return delay * (1 - self._random.random() / 4)

    def succeeded(self) -> None:
        """The link works: the next failure starts from the shortest delay again."""
        self._next_s = self._first_s
