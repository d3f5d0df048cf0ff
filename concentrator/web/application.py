"""The page as an ASGI application: addresses to views, and nothing that knows more than that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

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
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.order_desk import (
    MOST_WAITING,
    OPERATIONS,
    TASK_OPERATIONS,
    TASKS,
    DeskFullError,
    OrderDesk,
)
from concentrator.web.render import STATIC, Renderer, Renderers
from concentrator.web.report_views import ReportViews
from concentrator.web.security import Actions, SecurityMiddleware
from concentrator.web.sources import Sources
from concentrator.web.streams import MOST_STREAMS, Streams
from concentrator.web.task_views import task_arguments
from concentrator.web.translations import (
    LANGUAGE_COOKIE,
    LANGUAGE_COOKIE_AGE_S,
    LANGUAGES,
    Message,
    language_of,
    mark,
)
from concentrator.web.views import Asked, UnknownMeterError, View, Views

MakeView = Callable[[Snapshot, Asked], Awaitable[View]]
_LARGEST_FORM_OCTETS = 4096
_STATIC_AGE_S = 31_536_000
_DESK_FULL = Message("%(count)s orders wait already; wait until one is done.", {"count": MOST_WAITING})


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
        self._renderers = Renderers(clock)
        self._actions = Actions(config.web.host)
        self.streams = Streams(self._watch, clock)
        views = Views(self._sources, self._desk)
        reports = ReportViews(self._sources)
        api = Api(self._sources)
        pages: tuple[tuple[str, MakeView], ...] = (
            ("/", views.overview),
            ("/meters", views.meters),
            ("/meters/{identity}", views.meter),
            ("/tasks", views.tasks),
            ("/log", reports.log),
            ("/balance", reports.balance),
            ("/firmware", reports.firmware),
            ("/support", reports.support),
        )
        routes: list[Route | Mount] = []
        for path, make in pages:
            routes += [
                Route(path, self._page(make), methods=["GET"]),
                Route("/events" + path, self._stream(make), methods=["GET"]),
            ]
        routes += [
            Route("/meters/{identity}/orders", self._order, methods=["POST"]),
            Route("/support/bundle", self._support_bundle, methods=["POST"]),
            Route("/tasks/orders", self._task_order, methods=["POST"]),
            Route("/language/{code}", _choose_language, methods=["GET"]),
            *api.routes,
            Mount("/static", _KeptFiles(directory=STATIC)),
        ]
        inner = Starlette(
            routes=routes,
            middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)],
            exception_handlers={404: self._not_found, UnknownMeterError: self._not_found},
            lifespan=self._lifespan,
        )
        # Outermost, so that an error's answer has the headers too.
        self.application: ASGIApp = SecurityMiddleware(inner, config.web.host)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        yield
        self.streams.stop()
        await self._desk.close()
        self._sources.store.close()

    def _page(self, make: MakeView) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            view = await make(await self._watch.snapshot(), _asked(request))
            return HTMLResponse(self._html(request, view))

        return answer

    def _html(self, request: Request, view: View) -> str:
        renderer = self._renderer(request)
        # The stream speaks the language of the page that it belongs to, whatever is chosen elsewhere meanwhile.
        asked = [
            (name, value) for name, value in request.query_params.multi_items() if name != LANGUAGE_COOKIE
        ]
        query = urlencode([*asked, (LANGUAGE_COOKIE, renderer.language)])
        return renderer.page(
            view,
            path=request.url.path,
            back=_back(request),
            stream=f"/events{quote(request.url.path)}?{query}",
            baseline=self.streams.baselines.keep(view.parts),
            box=self._config.concentrator,
            actions=self._actions,
        )

    def _renderer(self, request: Request) -> Renderer:
        chosen = request.cookies.get(LANGUAGE_COOKIE, "")
        if request.url.path.startswith("/events/"):
            chosen = request.query_params.get(LANGUAGE_COOKIE, chosen)
        return self._renderers.of(language_of(chosen, request.headers.get("accept-language", "")))

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
                self.streams.stream(view_of, baseline, self._renderer(request)),
                media_type="text/event-stream",
                headers={"X-Accel-Buffering": "no"},
            )

        return answer

    async def _order(self, request: Request) -> Response:
        fields = await _form(request)
        identity = request.path_params["identity"]
        if refusal := self._actions.refusal(request.headers, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        operation = fields.get("op", "")
        if operation not in OPERATIONS:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        meters = await self._sources.meters(await self._watch.snapshot())
        if not any(meter.identity == identity for meter in meters):
            raise UnknownMeterError(identity)
        try:
            self._desk.give(operation, identity)
        except DeskFullError:
            return self._say(request, mark("Not done"), _DESK_FULL, 429)
        return RedirectResponse(f"/meters/{identity}#orders", 303)

    async def _task_order(self, request: Request) -> Response:
        fields = await _form(request)
        if refusal := self._actions.refusal(request.headers, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        operation = fields.get("op", "")
        if operation not in TASK_OPERATIONS:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        arguments: dict[str, Any] = {"name": fields.get("name", "")}
        if operation == "add_task":
            arguments = task_arguments(fields)
        try:
            self._desk.give(operation, TASKS, arguments)
        except DeskFullError:
            return self._say(request, mark("Not done"), _DESK_FULL, 429)
        return RedirectResponse("/tasks#orders", 303)

    async def _support_bundle(self, request: Request) -> Response:
        fields = await _form(request)
        if refusal := self._actions.refusal(request.headers, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        content, reason = await self._sources.questions.support_bundle()
        if not content:
            return self._say(request, mark("Not done"), reason, 503)
        name = f"{self._config.concentrator.name}-support.tar.gz"
        return Response(
            content,
            media_type="application/gzip",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def _say(self, request: Request, title: str, text: Message | str, status: int) -> Response:
        html = self._renderer(request).message(
            title,
            text,
            path=request.url.path,
            back=_back(request),
            box=self._config.concentrator,
            actions=self._actions,
        )
        return HTMLResponse(html, status)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        words = (
            mark("No such meter is known here.")
            if isinstance(error, UnknownMeterError)
            else mark("There is no such page.")
        )
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": words}, 404)
        if request.url.path.startswith("/events/"):
            return PlainTextResponse(words + "\n", 404)
        return self._say(request, mark("Not found"), words, 404)


def make_page(config: Config, clock: Clock | None = None, watch: ServiceWatch | None = None) -> Page:
    """The page for a configuration."""
    return Page(config, clock or SystemClock(), watch)


def _asked(request: Request) -> Asked:
    return Asked(request.query_params, str(request.path_params.get("identity", "")))


def _back(request: Request) -> str:
    """Where the choice of a language leads back to: this page; the overview from what only a form leads to."""
    if request.method != "GET":
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _is_local(address: str) -> bool:
    """Whether an address stays on this page, however a browser reads it: two slashes of either kind do not."""
    return address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()


async def _choose_language(request: Request) -> Response:
    """Keep the chosen language in a cookie, which holds nothing else, and go back."""
    code, back = request.path_params["code"], request.query_params.get("back", "/")
    answer = RedirectResponse(back if _is_local(back) else "/", 303)
    if code in LANGUAGES:
        answer.set_cookie(
            LANGUAGE_COOKIE, code, max_age=LANGUAGE_COOKIE_AGE_S, httponly=True, samesite="lax", path="/"
        )
    return answer


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; nothing of one that is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_FORM_OCTETS:
            return {}
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=16)
    return {name: values[0] for name, values in fields.items()}
