"""The traffic as the page shows it: asked of the service only while somebody looks, decoded beside it, bounded.

One subscription and one decoder serve all who look. What came is kept in a ring; each reader takes from it by number,
so one that is slow misses frames, is told how many, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concentrator.control import ControlError, subscribe
from concentrator.tasks import cancel_and_wait
from concentrator.web.decoder import Decoder, DecoderError, Tree, has_error, title_of
from concentrator.web.visitors import Visitor

RING = 500
SOURCES = ("modem", "radio", "dialogue", "upstream")
# A page without script looks when it is loaded: the subscription stays for so long after each look.
_LINGER_S = 30.0
_RETRY_S = 2.0
# Longer trees make a page heavy: what is cut off is in the download.
_LARGEST_DECODED_OCTETS = 2048


@dataclass(frozen=True, slots=True)
class Frame:
    """One passage, decoded."""

    number: int
    at: str
    source: str
    direction: str
    meter: str
    note: str
    octets: str
    title: str
    tree: Tree
    wrong: bool

    @property
    def text(self) -> str:
        """Where a search for text looks."""
        return f"{self.title} {self.meter} {self.note} {self.direction} {self.octets} {self.tree}".casefold()


@dataclass(frozen=True, slots=True)
class TrafficQuery:
    """What of the traffic is shown."""

    source: str = ""
    meter: str = ""
    text: str = ""

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> TrafficQuery:
        """Take an address's parameters; what makes no sense is left out."""
        source = given.get("source", "")
        return cls(
            source if source in SOURCES else "",
            given.get("meter", "").strip()[:64],
            given.get("q", "").strip()[:64],
        )

    def matches(self, frame: Frame) -> bool:
        """Whether a frame is shown."""
        if self.source and frame.source != self.source:
            return False
        if self.meter and self.meter.casefold() not in frame.meter.casefold():
            return False
        return all(word in frame.text for word in self.text.casefold().split())


class TrafficWatch:
    """Keeps the ring."""

    def __init__(self, control_socket: Path) -> None:
        self.dropped = 0
        self._socket = control_socket
        self._ring: deque[Frame] = deque(maxlen=RING)
        self._number = 0
        self._changed = asyncio.Condition()
        # Who looks, the newest last: the service is asked in the name of one of them.
        self._looking: list[Visitor] = []
        self._last: Visitor | None = None
        self._task: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def looking(self, visitor: Visitor) -> AsyncGenerator[None]:
        """While at least one looks, the service is asked."""
        self._looking.append(visitor)
        self._begin()
        try:
            yield
        finally:
            self._looking.remove(visitor)
            self.look(visitor)

    def look(self, visitor: Visitor) -> None:
        """Somebody has looked: the service is asked for a while more."""
        self._last = visitor
        self._begin()
        if self._linger is not None:
            self._linger.cancel()
        self._linger = asyncio.get_running_loop().call_later(_LINGER_S, self._end)

    def frames(self, query: TrafficQuery, after: int = 0) -> list[Frame]:
        """The frames of the ring that match, oldest first."""
        return [frame for frame in self._ring if frame.number > after and query.matches(frame)]

    @property
    def newest(self) -> int:
        """The number of the newest frame."""
        return self._number

    @property
    def oldest(self) -> int:
        """The number of the oldest that is kept; the next one's when none is."""
        return self._ring[0].number if self._ring else self._number + 1

    async def wait(self, after: int, timeout_s: float) -> None:
        """Until there is a frame after a number, or `timeout_s` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._number > after)

    async def close(self) -> None:
        """Stop asking."""
        if self._linger is not None:
            self._linger.cancel()
        task, self._task = self._task, None
        if task is not None:
            await cancel_and_wait(task)

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def _end(self) -> None:
        if not self._looking and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        async with Decoder() as decoder:
            for turn in itertools.count():
                dropped_before = self.dropped
                # Another's name the next time: one session may end while others look.
                names = [*self._looking, *([] if self._last is None else [self._last])]
                visitor = names[turn % len(names)] if names else Visitor()
                with contextlib.suppress(ControlError, OSError, ValueError):
                    async for line in subscribe(self._socket, "traffic", **visitor.credentials):
                        self.dropped = dropped_before + int(line.get("dropped", 0))
                        for passage in line.get("passages", ()):
                            await self._take(passage, decoder)
                # The service has gone, or is of a release that does not tell.
                await asyncio.sleep(_RETRY_S)

    async def _take(self, passage: Mapping[str, Any], decoder: Decoder) -> None:
        octets = str(passage.get("octets", ""))
        tree: Tree = {}
        if octets and len(octets) <= 2 * _LARGEST_DECODED_OCTETS:
            try:
                tree = await decoder.explain(octets)
            except DecoderError as error:
                tree = {"error": str(error)}
        self._number += 1
        frame = Frame(
            self._number,
            str(passage["at"]),
            str(passage["source"]),
            str(passage["direction"]),
            str(passage.get("meter", "")),
            str(passage.get("note", "")),
            octets,
            title_of(tree) if tree else ("message" if not octets else "octets"),
            tree,
            has_error(tree),
        )
        async with self._changed:
            self._ring.append(frame)
            self._changed.notify_all()


def as_capture(frames: list[Frame]) -> str:
    """Frames as `concentrator modem sniff` writes them and `concentrator decode` reads them."""
    lines: list[str] = []
    for frame in frames:
        words = " ".join(one for one in (frame.at, frame.direction, frame.meter, frame.note) if one)
        # A comment is one line, whatever a meter or a broker called something.
        lines.append("# " + "".join(sign if sign.isprintable() else " " for sign in words))
        if frame.octets:
            lines.append(frame.octets)
    return "\n".join(lines) + "\n"
