"""Our invocation counter towards head-ends: one for answers, on their thread, and for pushes, on the event loop."""

from __future__ import annotations

import threading

from concentrator.dlms.security import CounterSource


class SharedCounter:
    """A counter that several threads take numbers from: a key may be used for both, and no number twice with it."""

    def __init__(self, source: CounterSource) -> None:
        self._source = source
        self._turn = threading.Lock()

    def next(self) -> int:
        """The counter to use now."""
        with self._turn:
            return self._source.next()
