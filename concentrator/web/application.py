"""The page as an ASGI application: addresses to views, and nothing that knows more than that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from concentrator.clock import Clock, SystemClock
from concentrator.config import Config
from concentrator.web.api import Api
from concentrator.web.decode_views import DecodeViews
from concentrator.web.decoder import DecoderDesk
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.network_views import NetworkViews, UnknownNodeError
from concentrator.web.order_desk import OPERATIONS, TASK_OPERATIONS, TASKS, DeskFullError, OrderDesk
from concentrator.web.render import STATIC, Renderer
from concentrator.web.security import Actions, SecurityMiddleware
from concentrator.web.sources import Sources
from concentrator.web.streams import MOST_STREAMS, Streams
from concentrator.web.task_views import task_arguments
from concentrator.web.traffic import TrafficWatch
from concentrator.web.traffic_pages import TrafficPages
from concentrator.web.views import Asked, UnknownMeterError, View, Views

MakeView = Callable[[Snapshot, Asked], Awaitable[View]]
_LARGEST_FORM_OCTETS = 4096
_STATIC_AGE_S = 31_536_000


class _KeptFiles(StaticFiles):
    """Our own files: their addresses change with their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = f"public, max-age={_STATIC_AGE_S}, immutable"
        return response


class Page:
    """Everything behind the addresses."""

    def __init__(self, config: Config, clock: Clock, watch: ServiceWatch | None = None) -> None:
        self._config = config
        self._watch = watch or ServiceWatch(config.control_socket, clock)
        self._sources = Sources(config, clock, self._watch)
        self._desk = OrderDesk(config.control_socket, clock)
        self._renderer = Renderer(clock)
        self._actions = Actions(config.web.host)
        self.streams = Streams(self._watch, self._renderer, clock)
        views = Views(self._sources, self._desk)
        network = NetworkViews(self._sources)
        self._traffic = TrafficWatch(config.control_socket)
        traffic_pages = TrafficPages(
            self._watch,
            self._traffic,
            DecodeViews(self._sources, DecoderDesk()),
            self._renderer,
            self.streams,
            self._still_html,
        )
        api = Api(self._sources)
        pages: tuple[tuple[str, MakeView], ...] = (
            ("/", views.overview),
            ("/meters", views.meters),
            ("/meters/{identity}", views.meter),
            ("/tasks", views.tasks),
            ("/log", views.log),
            ("/topology", network.topology),
            ("/topology/{identity}", network.node),
            ("/traffic", traffic_pages.traffic),
        )
        routes: list[Route | Mount] = []
        for path, make in pages:
            routes += [
                Route(path, self._page(make), methods=["GET"]),
                Route("/events" + path, self._stream(make), methods=["GET"]),
            ]
        routes += [
            Route("/meters/{identity}/orders", self._order, methods=["POST"]),
            Route("/tasks/orders", self._task_order, methods=["POST"]),
            *traffic_pages.routes,
            *api.routes,
            Mount("/static", _KeptFiles(directory=STATIC)),
        ]
        inner = Starlette(
            routes=routes,
            middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)],
            exception_handlers={
                404: self._not_found,
                UnknownMeterError: self._not_found,
                UnknownNodeError: self._not_found,
            },
            lifespan=self._lifespan,
        )
        # Outermost, so that an error's answer has the headers too.
        self.application: ASGIApp = SecurityMiddleware(inner, config.web.host)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        yield
        self.streams.stop()
        await self._desk.close()
        await self._traffic.close()
        self._sources.store.close()

    def _page(self, make: MakeView) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            view = await make(await self._watch.snapshot(), _asked(request))
            return HTMLResponse(self._html(request, view))

        return answer

    def _html(self, request: Request, view: View) -> str:
        query = f"?{request.url.query}" if request.url.query else ""
        return self._renderer.page(
            view,
            path=request.url.path,
            stream=f"/events{request.url.path}{query}",
            baseline=self.streams.baselines.keep(view.parts),
            box=self._config.concentrator,
            actions=self._actions,
        )

    def _still_html(self, request: Request, view: View) -> str:
        """A page without live parts."""
        return self._renderer.page(
            view, path=request.url.path, box=self._config.concentrator, actions=self._actions
        )

    def _stream(self, make: MakeView) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if self.streams.open >= MOST_STREAMS:
                return PlainTextResponse("Too many pages are open.\n", 503, {"Retry-After": "10"})
            asked = _asked(request)
            baseline = request.headers.get("last-event-id") or request.query_params.get("baseline", "")
            # An unknown meter is told now, as a status, not in the middle of a stream.
            await make(await self._watch.snapshot(), asked)

            async def view_of(snapshot: Snapshot) -> View:
                return await make(snapshot, asked)

            return StreamingResponse(
                self.streams.stream(view_of, baseline),
                media_type="text/event-stream",
                headers={"X-Accel-Buffering": "no"},
            )

        return answer

    async def _order(self, request: Request) -> Response:
        fields = await _form(request)
        identity = request.path_params["identity"]
        if refusal := self._actions.refusal(request.headers, fields.get("token", "")):
            return self._say(request, "Not done", refusal, 403)
        operation = fields.get("op", "")
        if operation not in OPERATIONS:
            return self._say(request, "Not done", "The page does not know this action.", 400)
        meters = await self._sources.meters(await self._watch.snapshot())
        if not any(meter.identity == identity for meter in meters):
            raise UnknownMeterError(identity)
        try:
            self._desk.give(operation, identity)
        except DeskFullError as error:
            return self._say(request, "Not done", str(error), 429)
        return RedirectResponse(f"/meters/{identity}#orders", 303)

    async def _task_order(self, request: Request) -> Response:
        fields = await _form(request)
        if refusal := self._actions.refusal(request.headers, fields.get("token", "")):
            return self._say(request, "Not done", refusal, 403)
        operation = fields.get("op", "")
        if operation not in TASK_OPERATIONS:
            return self._say(request, "Not done", "The page does not know this action.", 400)
        arguments: dict[str, Any] = {"name": fields.get("name", "")}
        if operation == "add_task":
            arguments = task_arguments(fields)
        try:
            self._desk.give(operation, TASKS, arguments)
        except DeskFullError as error:
            return self._say(request, "Not done", str(error), 429)
        return RedirectResponse("/tasks#orders", 303)

    def _say(self, request: Request, title: str, text: str, status: int) -> Response:
        html = self._renderer.message(
            title, text, path=request.url.path, box=self._config.concentrator, actions=self._actions
        )
        return HTMLResponse(html, status)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        words = (
            "No such meter is known here."
            if isinstance(error, UnknownMeterError)
            else "No such node of the network is known here."
            if isinstance(error, UnknownNodeError)
            else "There is no such page."
        )
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": words}, 404)
        if request.url.path.startswith("/events/"):
            return PlainTextResponse(words + "\n", 404)
        return self._say(request, "Not found", words, 404)


def make_page(config: Config, clock: Clock | None = None, watch: ServiceWatch | None = None) -> Page:
    """The page for a configuration."""
    return Page(config, clock or SystemClock(), watch)


def _asked(request: Request) -> Asked:
    return Asked(request.query_params, str(request.path_params.get("identity", "")))


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; nothing of one that is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM_OCTETS:
            return {}
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    return {name: values[0] for name, values in fields.items()}
