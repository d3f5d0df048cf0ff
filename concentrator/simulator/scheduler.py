"""When simulated things happen: one small face, in virtual time for large runs or on a real event loop."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that will be called later."""

    def cancel(self) -> None:
        """Do not call it after all."""
        ...


class Scheduler(Protocol):
    """Seconds since the simulation began, and callbacks at later moments."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never runs backwards."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after the delay."""
        ...


class _VirtualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualScheduler:
    """Time that jumps from one callback to the next; callbacks of the same moment keep their order."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._heap: list[tuple[float, int, _VirtualTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after the delay."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._heap, (self._now + max(0.0, delay_s), next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """The moment of the next callback, or None when nothing is planned."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def step(self, limit: float | None = None) -> bool:
        """Jump to the next callback and call it.

        False when there is none up to `limit`; time is then at `limit`.
        """
        due = self.next_due()
        if due is None or (limit is not None and due > limit):
            if limit is not None:
                self._now = max(self._now, limit)
            return False
        moment, _, timer = heapq.heappop(self._heap)
        self._now = max(self._now, moment)
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
        return True

    def run_until(self, moment: float) -> None:
        """Call everything that is due up to and at `moment`."""
        while self.step(moment):
            pass

    def run_for(self, duration_s: float) -> None:
        """Call everything that is due within a duration."""
        self.run_until(self._now + duration_s)


class AsyncioScheduler:
    """Real time, on the running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> float:
        """Seconds of the event loop's clock."""
        return self._loop.time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after the delay."""
        return self._loop.call_later(max(0.0, delay_s), callback)
