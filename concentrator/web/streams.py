"""The live stream: server-sent events that carry only those parts of the open page that have changed.

Events: `parts` (name to HTML), `reload` (the page has other parts now: load it again), `time` (the box's
clock; its absence tells the script that the stream is stale). A page begins from a baseline that is kept
under a number; the stream sends the difference to it, and so does one that comes back after a broken line.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from concentrator.clock import Clock
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.render import Renderer
from concentrator.web.views import Part, UnknownMeterError, View
from concentrator.web.visitors import SessionEndedError

MOST_STREAMS = 16
_KEPT_BASELINES = 64
_HEARTBEAT_S = 5.0
# zlib: the largest window, in the form of gzip (RFC 1952).
_GZIP = 31


class Baselines:
    """What pages were last sent, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: OrderedDict[str, dict[str, Part]] = OrderedDict()
        # Numbers of an earlier run of the page mean nothing now.
        self._run = secrets.token_hex(4)

    def keep(self, parts: dict[str, Part]) -> str:
        """Keep what was sent; returns its number."""
        number = f"{self._run}-{next(self._numbers)}"
        self._kept[number] = parts
        while len(self._kept) > _KEPT_BASELINES:
            self._kept.popitem(last=False)
        return number

    def find(self, number: str) -> dict[str, Part] | None:
        """What was sent under a number, if it is still known."""
        return self._kept.get(number)


def event(kind: str, data: Any, number: str = "") -> bytes:  # noqa: ANN401 - JSON
    """One server-sent event."""
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def event_stream(request: Request, events: AsyncGenerator[bytes]) -> StreamingResponse:
    """The answer that carries a stream, compressed where the browser takes it: each event can be read when it comes."""
    headers = {"X-Accel-Buffering": "no", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        events = _compressed(events)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _compressed(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    packer = zlib.compressobj(wbits=_GZIP)
    async with contextlib.aclosing(events):
        async for one in events:
            yield packer.compress(one) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


class Streams:
    """Runs the streams of all open pages."""

    def __init__(self, watch: ServiceWatch, clock: Clock) -> None:
        self.baselines = Baselines()
        self.open = 0
        self._stopping = False
        self._watch = watch
        self._clock = clock

    @property
    def stopping(self) -> bool:
        """Whether every stream is to end."""
        return self._stopping

    @contextlib.contextmanager
    def counted(self) -> Generator[None]:
        """Counts a stream of another kind among those that are open."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    async def pause(self, seconds: float) -> None:
        """Wait between two events, unless all streams end."""
        if not self._stopping:
            await asyncio.sleep(seconds)

    def stop(self) -> None:
        """End every stream soon."""
        self._stopping = True

    async def stream(
        self, make: Callable[[Snapshot], Awaitable[View]], baseline: str, renderer: Renderer
    ) -> AsyncGenerator[bytes]:
        """The events of one open page, in its reader's language."""
        self.open += 1
        try:
            async with self._watch.page_open():
                async for one in self._events(make, self.baselines.find(baseline), renderer):
                    yield one
        finally:
            self.open -= 1

    async def _events(
        self,
        make: Callable[[Snapshot], Awaitable[View]],
        known: dict[str, Part] | None,
        renderer: Renderer,
    ) -> AsyncGenerator[bytes]:
        yield b"retry: 2000\n\n"
        told_at = -_HEARTBEAT_S
        number = ""
        snapshot = await self._watch.snapshot()
        while not self._stopping:
            try:
                parts = (await make(snapshot)).parts
            except (UnknownMeterError, SessionEndedError):
                # It has got its own identity, under which it has another page; or nobody is logged in any more.
                yield event("reload", {})
                return
            if known is None or known.keys() != parts.keys():
                yield event("reload", {})
                number = ""
            elif changed := {name: part for name, part in parts.items() if part != known[name]}:
                number = self.baselines.keep(parts)
                html = {name: str(renderer.part(name, part)) for name, part in changed.items()}
                yield event("parts", html, number)
            known = parts
            if self._clock.monotonic() - told_at >= _HEARTBEAT_S:
                told_at = self._clock.monotonic()
                yield event("time", {"now": _iso(self._clock.now())})
            snapshot = await self._watch.wait(1.0)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
