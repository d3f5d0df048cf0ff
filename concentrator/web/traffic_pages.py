"""The addresses of the traffic and of the decoder: for those who may work with meters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from concentrator.access.roles import DIALOGUE, TRAFFIC
from concentrator.control import ControlError
from concentrator.web.access_pages import form_of
from concentrator.web.decode_views import KEY_FIELDS, LARGEST_TEXT, DecodeViews
from concentrator.web.gate import LOGIN, visitor_of
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.render import Renderer
from concentrator.web.security import Forms
from concentrator.web.streams import MOST_STREAMS, Streams, event, event_stream
from concentrator.web.traffic import TrafficQuery, TrafficWatch, as_capture
from concentrator.web.translations import Message, mark
from concentrator.web.views import Asked, View, notices
from concentrator.web.visitors import AccessClient, RefusedError, SessionEndedError, Visitor

# The text, percent-encoded at worst, and the other fields.
_LARGEST_FORM_OCTETS = 3 * LARGEST_TEXT + 4096
_SHOWN_AT_FIRST = 100
_BATCH_S = 0.25
_BEAT_S = 5.0


class TrafficPages:
    """Traffic: the page, its stream and its download; the decoder and the last dialogues.

    `renderer` gives that of a reader's language, `show` makes a page without live parts, `say` one that says something,
    `check_still` raises SessionEndedError when an open page may not go on.
    """

    def __init__(  # noqa: PLR0913 - what the pages are made of
        self,
        watch: ServiceWatch,
        access: AccessClient,
        traffic: TrafficWatch,
        views: DecodeViews,
        streams: Streams,
        forms: Forms,
        renderer: Callable[[Request], Renderer],
        show: Callable[[Request, View, int], Response],
        say: Callable[[Request, str, Message | str, int], Response],
        check_still: Callable[[Visitor], Awaitable[None]],
    ) -> None:
        self._watch = watch
        self._access = access
        self._traffic = traffic
        self._views = views
        self._streams = streams
        self._forms = forms
        self._renderer = renderer
        self._show = show
        self._say = say
        self._check_still = check_still
        self.routes = [
            Route("/events/traffic/frames", self._stream, methods=["GET"]),
            Route("/traffic/capture", self._capture, methods=["GET"]),
            Route("/decode", self._decoder, methods=["GET"]),
            Route("/decode", self._decode, methods=["POST"]),
            Route("/meters/{identity}/dialogue", self._dialogue, methods=["GET"]),
        ]

    async def traffic(self, snapshot: Snapshot, asked: Asked) -> View:
        """The page."""
        self._traffic.look(asked.visitor)
        query = TrafficQuery.from_parameters(asked.parameters)
        fields = {"source": query.source, "meter": query.meter, "q": query.text}
        return View(
            "traffic.html",
            mark("Traffic"),
            {**notices(snapshot, snapshot.status or {})},
            {
                "query": query,
                "address": urlencode({name: value for name, value in fields.items() if value}),
                "frames": self._traffic.frames(query)[: -_SHOWN_AT_FIRST - 1 : -1],
                "newest": self._traffic.newest,
            },
        )

    async def _stream(self, request: Request) -> Response:
        visitor = visitor_of(request)
        if not visitor.may(TRAFFIC):
            return PlainTextResponse("Not for this role.\n", 403)
        if self._streams.open >= MOST_STREAMS:
            return PlainTextResponse("Too many pages are open.\n", 503, {"Retry-After": "10"})
        given = request.query_params.get("after", "0")
        after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0  # noqa: PLR2004 - digits
        query = TrafficQuery.from_parameters(request.query_params)
        return event_stream(request, self._events(query, after, self._renderer(request), visitor))

    async def _events(
        self, query: TrafficQuery, after: int, renderer: Renderer, visitor: Visitor
    ) -> AsyncGenerator[bytes]:
        traffic = self._traffic
        # Numbers of an earlier run of the page mean nothing now.
        after = min(after, traffic.newest)
        dropped = traffic.dropped
        with self._streams.counted():
            async with traffic.looking(visitor):
                yield b": listening\n\n"
                while not self._streams.stopping:
                    await traffic.wait(after, _BEAT_S)
                    try:
                        await self._check_still(visitor)
                    except SessionEndedError:
                        # The page's other stream tells it.
                        return
                    missed = max(0, traffic.oldest - after - 1) if traffic.newest > after else 0
                    missed, dropped = missed + traffic.dropped - dropped, traffic.dropped
                    frames = traffic.frames(query, after)
                    after = traffic.newest
                    html = renderer.snippet("traffic_rows.html", frames=frames) if frames else ""
                    yield event("frames", {"html": html, "newest": after, "missed": missed})
                    # Several frames at a time: a browser puts in place no more than it can show.
                    await self._streams.pause(_BATCH_S)

    async def _capture(self, request: Request) -> Response:
        if refusal := self._refusal(request, TRAFFIC):
            return refusal
        try:
            # In the trail before it is given away.
            await self._access.ask(visitor_of(request), {"op": "download", "what": "traffic_capture"})
        except (ControlError, RefusedError) as error:
            return self._say(request, mark("Not done"), str(error), 503)
        frames = self._traffic.frames(TrafficQuery.from_parameters(request.query_params))
        return PlainTextResponse(
            as_capture(frames), headers={"Content-Disposition": 'attachment; filename="traffic.txt"'}
        )

    async def _decoder(self, request: Request) -> Response:
        if refusal := self._refusal(request, TRAFFIC):
            return refusal
        return self._show(request, await self._views.decode(await self._watch.snapshot(), "", {}), 200)

    async def _decode(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request, _LARGEST_FORM_OCTETS)
        if not fields:
            words = Message("More than %(size)s kB; paste less.", {"size": LARGEST_TEXT // 1024})
            return self._say(request, mark("Not done"), words, 413)
        # Another site may not have this box work.
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        if refused := self._refusal(request, TRAFFIC):
            return refused
        keys = {name: fields.get(name, "") for name in KEY_FIELDS}
        view = await self._views.decode(await self._watch.snapshot(), fields.get("text", ""), keys)
        return self._show(request, view, 400 if view.fixed["problem"] else 200)

    async def _dialogue(self, request: Request) -> Response:
        if refusal := self._refusal(request, DIALOGUE):
            return refusal
        asked = Asked(request.query_params, str(request.path_params["identity"]), visitor_of(request))
        view = await self._views.dialogue(await self._watch.snapshot(), asked)
        return self._show(request, view, 200)

    def _refusal(self, request: Request, operation: str) -> Response | None:
        visitor = visitor_of(request)
        if visitor.may(operation):
            return None
        if visitor.role is None:
            return RedirectResponse(f"{LOGIN}?next={request.url.path}", 303)
        return self._say(request, mark("Not done"), visitor.refusal, 403)
