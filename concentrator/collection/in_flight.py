"""How many dialogues to hold at a time: as many as the network bears.

Requests that are lost, and answers that take much longer than they can, are signs of a network that has too much
to carry: the limit falls by half. Answers in good time raise it again, one place for each round of the limit (as TCP
does). A network that carries one request at a time still gains from a second dialogue: it fills the first one's pauses.
"""

from __future__ import annotations

LEAST = 1
_FALL_PAUSE_S = 30.0
_SLOW_FACTOR = 4.0
_SMOOTHING = 0.1
_PATIENCE_FACTOR = 6.0


class InFlight:
    """The limit, and what it is made of. Times are monotonic seconds."""

    def __init__(self, most: int, start: int | None = None) -> None:
        self.most = most
        self.limit = max(LEAST, min(most, most if start is None else start))
        self.falls = 0
        self.latency_s: float | None = None
        self._best_s: float | None = None
        self._answers = 0
        self._fell_at = float("-inf")

    def answered(self, latency_s: float, now: float) -> None:
        """A request was answered after this time."""
        self.latency_s = (
            latency_s
            if self.latency_s is None
            else self.latency_s + _SMOOTHING * (latency_s - self.latency_s)
        )
        # The best is what one request takes alone; it is let go slowly, since networks change.
        self._best_s = latency_s if self._best_s is None else min(latency_s, self._best_s * 1.001)
        if self.latency_s > self._best_s * _SLOW_FACTOR * self.limit:
            self._fall(now)
            return
        self._answers += 1
        if self._answers >= self.limit * 4 and self.limit < self.most:
            self._answers = 0
            self.limit += 1

    def lost(self, now: float) -> None:
        """A request was not delivered, or not answered in time."""
        self._fall(now)

    def patience_s(self, least_s: float, most_s: float) -> float:
        """How long to wait for an answer: a multiple of what answers take here, within bounds."""
        if self.latency_s is None:
            return most_s
        return max(least_s, min(most_s, self.latency_s * _PATIENCE_FACTOR))

    def _fall(self, now: float) -> None:
        self._answers = 0
        # What is lost within one pause is one sign, not many.
        if now - self._fell_at < _FALL_PAUSE_S or self.limit == LEAST:
            return
        self._fell_at = now
        self.falls += 1
        self.limit = max(LEAST, self.limit // 2)
