"""What passes on the lines of this box, for whoever watches: frames, telegrams, APDUs, messages.

Nothing is kept and nothing is made ready while nobody watches: whoever publishes asks `watched` first. Each watcher has
a queue of its own with a bound; one that does not keep up loses the oldest and is told how many. Nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from concentrator.clock import Clock

# What a watcher may leave untaken: the traffic of some seconds of a busy modem.
LARGEST_QUEUE = 1000
_LARGEST_BATCH = 200


class Source(StrEnum):
    """Where something passed."""

    MODEM = "modem"
    RADIO = "radio"
    DIALOGUE = "dialogue"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Passage:
    """One thing that passed. `octets` are its own; `note` says what octets do not, or stands for them."""

    at: datetime
    source: Source
    direction: str
    octets: bytes
    meter: str
    note: str

    def as_json(self) -> dict[str, Any]:
        """As a line of the control socket carries it."""
        return {
            "at": self.at.isoformat(timespec="milliseconds"),
            "source": self.source.value,
            "direction": self.direction,
            "octets": self.octets.hex(),
            "meter": self.meter,
            "note": self.note,
        }


class Watcher:
    """One who watches."""

    def __init__(self, largest_queue: int) -> None:
        self.dropped = 0
        self._queue: deque[Passage] = deque()
        self._largest_queue = largest_queue
        self._came = asyncio.Event()

    def put(self, passage: Passage) -> None:
        """Called by the hub."""
        if len(self._queue) >= self._largest_queue:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(passage)
        self._came.set()

    async def take(self, timeout_s: float) -> list[Passage]:
        """What passed since, oldest first; nothing when nothing did for `timeout_s`."""
        if not self._queue:
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._came.wait()
        return [self._queue.popleft() for _ in range(min(len(self._queue), _LARGEST_BATCH))]


class TrafficHub:
    """Between those who publish and those who watch. `on_watched` is called when the first comes and the last goes."""

    def __init__(self, clock: Clock, largest_queue: int = LARGEST_QUEUE) -> None:
        self.on_watched: list[Callable[[], None]] = []
        self._clock = clock
        self._largest_queue = largest_queue
        self._watchers: list[Watcher] = []

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    @contextlib.contextmanager
    def watch(self) -> Generator[Watcher]:
        """Watch for as long as the context lasts."""
        watcher = Watcher(self._largest_queue)
        self._watchers.append(watcher)
        self._tell()
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)
            self._tell()

    def publish(
        self, source: Source, direction: str, octets: bytes = b"", meter: str = "", note: str = ""
    ) -> None:
        """Hand something to all who watch. Passwords and keys have been taken out of `octets` before."""
        if not self._watchers:
            return
        passage = Passage(self._clock.now(), source, direction, octets, meter, note)
        for watcher in self._watchers:
            watcher.put(passage)

    def _tell(self) -> None:
        for tell in self.on_watched:
            tell()
