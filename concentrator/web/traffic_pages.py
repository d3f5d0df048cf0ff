"""The addresses of the traffic and of the decoder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from concentrator.web.decode_views import KEY_FIELDS, LARGEST_TEXT, DecodeViews
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.render import Renderer
from concentrator.web.streams import MOST_STREAMS, Streams, event
from concentrator.web.traffic import TrafficQuery, TrafficWatch, as_capture
from concentrator.web.views import Asked, View, notices

# The text, percent-encoded at worst, and the key fields.
_LARGEST_FORM_OCTETS = 3 * LARGEST_TEXT + 4096
_SHOWN_AT_FIRST = 100
_BATCH_S = 0.25
_BEAT_S = 5.0

# Makes the HTML of a page that has no live parts.
Render = Callable[[Request, View], str]


class TrafficPages:
    """Traffic: the page, its stream and its download; the decoder and the last dialogues."""

    def __init__(
        self,
        watch: ServiceWatch,
        traffic: TrafficWatch,
        views: DecodeViews,
        renderer: Renderer,
        streams: Streams,
        render: Render,
    ) -> None:
        self._watch = watch
        self._traffic = traffic
        self._views = views
        self._renderer = renderer
        self._streams = streams
        self._render = render
        self.routes = [
            Route("/traffic/stream", self._stream, methods=["GET"]),
            Route("/traffic/capture", self._capture, methods=["GET"]),
            Route("/decode", self._decode, methods=["GET", "POST"]),
            Route("/meters/{identity}/dialogue", self._dialogue, methods=["GET"]),
        ]

    async def traffic(self, snapshot: Snapshot, asked: Asked) -> View:
        """The page."""
        self._traffic.look()
        query = TrafficQuery.from_parameters(asked.parameters)
        fields = {"source": query.source, "meter": query.meter, "q": query.text}
        return View(
            "traffic.html",
            "Traffic",
            {**notices(snapshot, snapshot.status or {})},
            {
                "query": query,
                "address": urlencode({name: value for name, value in fields.items() if value}),
                "frames": self._traffic.frames(query)[: -_SHOWN_AT_FIRST - 1 : -1],
                "newest": self._traffic.newest,
            },
        )

    async def _stream(self, request: Request) -> Response:
        if self._streams.open >= MOST_STREAMS:
            return PlainTextResponse("Too many pages are open.\n", 503, {"Retry-After": "10"})
        given = request.query_params.get("after", "0")
        after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0  # noqa: PLR2004 - digits
        query = TrafficQuery.from_parameters(request.query_params)
        return StreamingResponse(
            self._events(query, after), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _events(self, query: TrafficQuery, after: int) -> AsyncGenerator[bytes]:
        traffic = self._traffic
        # Numbers of an earlier run of the page mean nothing now.
        after = min(after, traffic.newest)
        dropped = traffic.dropped
        with self._streams.counted():
            async with traffic.looking():
                yield b": listening\n\n"
                while not self._streams.stopping:
                    await traffic.wait(after, _BEAT_S)
                    missed = max(0, traffic.oldest - after - 1) if traffic.newest > after else 0
                    missed, dropped = missed + traffic.dropped - dropped, traffic.dropped
                    frames = traffic.frames(query, after)
                    after = traffic.newest
                    html = self._renderer.snippet("traffic_rows.html", frames=frames) if frames else ""
                    yield event("frames", {"html": html, "newest": after, "missed": missed})
                    # Several frames at a time: a browser puts in place no more than it can show.
                    await self._streams.pause(_BATCH_S)

    async def _capture(self, request: Request) -> Response:
        frames = self._traffic.frames(TrafficQuery.from_parameters(request.query_params))
        return PlainTextResponse(
            as_capture(frames), headers={"Content-Disposition": 'attachment; filename="traffic.txt"'}
        )

    async def _decode(self, request: Request) -> Response:
        text, keys = "", dict[str, str]()
        if request.method == "POST":
            # Another site may not have this box work.
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return PlainTextResponse("This request comes from another site.\n", 403)
            fields = await _form(request)
            if fields is None:
                return PlainTextResponse(f"More than {LARGEST_TEXT // 1024} kB; paste less.\n", 413)
            text = fields.get("text", "")
            keys = {name: fields.get(name, "") for name in KEY_FIELDS}
        view = await self._views.decode(await self._watch.snapshot(), text, keys)
        return HTMLResponse(self._render(request, view), 400 if view.fixed["problem"] else 200)

    async def _dialogue(self, request: Request) -> Response:
        asked = Asked(request.query_params, str(request.path_params["identity"]))
        view = await self._views.dialogue(await self._watch.snapshot(), asked)
        return HTMLResponse(self._render(request, view))


async def _form(request: Request) -> dict[str, str] | None:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM_OCTETS:
            return None
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    return {name: values[0] for name, values in fields.items()}
