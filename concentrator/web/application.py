"""The page as an ASGI application: addresses to views, and nothing that knows more than that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from concentrator.access.roles import AUDIT, BACKUP, CONFIGURATION, KEYS, SUPPORT_BUNDLE, TRAFFIC, USERS
from concentrator.clock import Clock, SystemClock
from concentrator.config import Config
from concentrator.web.access_pages import AccessPages, form_of, local_path
from concentrator.web.access_views import AccessViews
from concentrator.web.api import Api
from concentrator.web.api_access import AccessApi
from concentrator.web.backup_pages import UPLOAD, BackupPages
from concentrator.web.connections import PatienceMiddleware
from concentrator.web.decode_views import DecodeViews
from concentrator.web.decoder import DecoderDesk
from concentrator.web.firmware_pages import FirmwarePages
from concentrator.web.firmware_views import FirmwareViews
from concentrator.web.gate import LOGIN, Gate, visitor_of
from concentrator.web.live import ServiceWatch, Snapshot
from concentrator.web.network_views import NetworkViews, UnknownNodeError
from concentrator.web.order_desk import (
    CHANGES,
    CONFIRMED,
    MOST_WAITING,
    OPERATIONS,
    TASK_OPERATIONS,
    TASKS,
    DeskFullError,
    OrderDesk,
)
from concentrator.web.render import STATIC, Renderer, Renderers
from concentrator.web.report_views import ReportViews
from concentrator.web.security import Forms, SecurityMiddleware
from concentrator.web.sources import Sources
from concentrator.web.streams import MOST_STREAMS, Streams, event_stream
from concentrator.web.task_views import task_arguments
from concentrator.web.traffic import TrafficWatch
from concentrator.web.traffic_pages import TrafficPages
from concentrator.web.translations import (
    LANGUAGE_COOKIE,
    LANGUAGE_COOKIE_AGE_S,
    LANGUAGES,
    Message,
    language_of,
    mark,
)
from concentrator.web.views import Asked, UnknownMeterError, View, Views
from concentrator.web.visitors import AccessClient, SessionEndedError, Visitor

MakeView = Callable[[Snapshot, Asked], Awaitable[View]]
_STATIC_AGE_S = 31_536_000
_DESK_FULL = Message("%(count)s orders wait already; wait until one is done.", {"count": MOST_WAITING})


class _KeptFiles(StaticFiles):
    """Our own files: their addresses change with their content."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if "\0" in path:
            raise HTTPException(404)
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
        self._access = AccessClient(config.control_socket, clock, config.orders)
        self._forms = Forms()
        self.streams = Streams(self._watch, clock)
        views = Views(self._sources, self._desk)
        reports = ReportViews(self._sources)
        firmware = FirmwareViews(self._sources, self._desk)
        network = NetworkViews(self._sources)
        self._traffic = TrafficWatch(config.control_socket)
        decoder = DecodeViews(self._sources, DecoderDesk())
        traffic_pages = TrafficPages(
            self._watch,
            self._access,
            self._traffic,
            decoder,
            self.streams,
            self._forms,
            self._renderer,
            self._show_still,
            self._say,
            self._check_still,
        )
        access_api = AccessApi(self._sources, network, self._access, self._traffic, decoder)
        api = Api(self._sources, network, firmware, self._forms, access_api.endpoints)
        firmware_pages = FirmwarePages(self._forms, self._say, self._give, self._refused)
        more = AccessViews(self._sources, self._access)
        access_pages = AccessPages(
            config.web,
            self._access,
            more,
            self._desk,
            self._forms,
            self._watch,
            self._say,
            self._show,
            self._plain,
        )
        backup_pages = BackupPages(self._access, self._watch, self._forms, self._say, self._show)
        # Address, what makes it, what it is live by, and what somebody has to be allowed for it; "" for all.
        pages: tuple[tuple[str, MakeView, MakeView, str], ...] = (
            ("/", views.overview, views.overview, ""),
            ("/meters", views.meters, views.meters, ""),
            ("/meters/{identity}", views.meter, views.meter, ""),
            ("/topology", network.topology, network.topology, ""),
            ("/topology/{identity}", network.node, network.node, ""),
            ("/tasks", views.tasks, views.tasks, ""),
            ("/log", reports.log, reports.log, ""),
            ("/balance", reports.balance, reports.balance, ""),
            ("/firmware", firmware.firmware, firmware.firmware, ""),
            ("/support", reports.support, reports.support, ""),
            ("/traffic", traffic_pages.traffic, traffic_pages.traffic, TRAFFIC),
            ("/orders", more.orders, more.orders, ""),
            ("/configuration", more.configuration, more.configuration_trial, CONFIGURATION),
            ("/keys", more.keys, more.keys, KEYS),
            ("/users", more.users, more.users, USERS),
            ("/backup", backup_pages.backup, backup_pages.backup, BACKUP),
            ("/audit", more.audit, more.audit, AUDIT),
        )
        routes: list[Route | Mount] = []
        for path, make, live, needed in pages:
            routes += [
                Route(path, self._page(make, needed), methods=["GET"]),
                Route("/events" + path, self._stream(live, needed), methods=["GET"]),
            ]
        routes += [
            Route("/meters/{identity}/orders", self._order, methods=["POST"]),
            Route("/support/bundle", self._support_bundle, methods=["POST"]),
            Route("/tasks/orders", self._task_order, methods=["POST"]),
            *traffic_pages.routes,
            *firmware_pages.routes,
            Route("/language/{code}", _choose_language, methods=["GET"]),
            *access_pages.routes,
            *backup_pages.routes,
            *api.routes,
            Mount("/static", _KeptFiles(directory=STATIC)),
        ]
        inner = Starlette(
            routes=routes,
            middleware=[
                Middleware(PatienceMiddleware, uploads=(UPLOAD,)),
                Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
                Middleware(Gate, web=config.web, access=self._access),
            ],
            exception_handlers={
                404: self._not_found,
                UnknownMeterError: self._not_found,
                UnknownNodeError: self._not_found,
            },
            lifespan=self._lifespan,
        )
        # Outermost, so that an error's answer has the headers too.
        self.application: ASGIApp = SecurityMiddleware(inner, config.web)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        yield
        self.streams.stop()
        await self._desk.close()
        await self._traffic.close()
        self._sources.close()

    def _page(self, make: MakeView, needed: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visitor = visitor_of(request)
            if needed and not visitor.may(needed):
                if visitor.role is None:
                    return RedirectResponse(f"{LOGIN}?next={request.url.path}", 303)
                return self._refused(request, needed)
            return self._show(request, await make(await self._watch.snapshot(), _asked(request)))

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
            actions=visitor_of(request),
        )

    def _renderer(self, request: Request) -> Renderer:
        chosen = request.cookies.get(LANGUAGE_COOKIE, "")
        if request.url.path.startswith("/events/"):
            chosen = request.query_params.get(LANGUAGE_COOKIE, chosen)
        return self._renderers.of(language_of(chosen, request.headers.get("accept-language", "")))

    def _stream(self, make: MakeView, needed: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visitor = visitor_of(request)
            if needed and not visitor.may(needed):
                return PlainTextResponse("Not for this role.\n", 403)
            if self.streams.open >= MOST_STREAMS:
                return PlainTextResponse("Too many pages are open.\n", 503, {"Retry-After": "10"})
            asked = _asked(request)
            baseline = request.headers.get("last-event-id") or request.query_params.get("baseline", "")
            # An unknown meter is told now, as a status, not in the middle of a stream.
            await make(await self._watch.snapshot(), asked)

            async def view_of(snapshot: Snapshot) -> View:
                await self._check_still(visitor)
                return await make(snapshot, asked)

            return event_stream(request, self.streams.stream(view_of, baseline, self._renderer(request)))

        return answer

    async def _check_still(self, visitor: Visitor) -> None:
        """Whether an open page may go on. Raises SessionEndedError."""
        if not visitor.session:
            return
        now = await self._access.visitor(visitor.session, visitor.address, use=False)
        # Without the service a session goes on as one that may only look, and its page stays as it is.
        if now is None or (now.role is not visitor.role and self._watch.answers):
            raise SessionEndedError("the session has ended")

    async def _order(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        identity = request.path_params["identity"]
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        operation = fields.get("op", "")
        if operation not in OPERATIONS and operation not in CHANGES and operation not in CONFIRMED:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        allowed = visitor.may(operation) if operation in OPERATIONS else visitor.may_change(operation)
        if not allowed:
            return self._refused(request, operation)
        arguments: dict[str, Any] = {}
        if operation in CONFIRMED:
            if fields.get("confirm", "").strip() != identity:
                words = Message(
                    "For this the meter's identity %(identity)s has to be typed in.", {"identity": identity}
                )
                return self._say(request, mark("Not done"), words, 400, identity)
            arguments = {"confirm": identity}
        meters = await self._sources.meters(await self._watch.snapshot())
        if not any(meter.identity == identity for meter in meters):
            raise UnknownMeterError(identity)
        return self._give(request, operation, identity, arguments, f"/meters/{identity}#orders")

    async def _task_order(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        operation = fields.get("op", "")
        if operation not in TASK_OPERATIONS:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        if not visitor.may(operation):
            return self._refused(request, operation)
        arguments: dict[str, Any] = {"name": fields.get("name", "")}
        if operation == "add_task":
            arguments = task_arguments(fields)
        return self._give(request, operation, TASKS, arguments, "/tasks#orders")

    def _give(
        self, request: Request, operation: str, target: str, arguments: dict[str, Any], then: str
    ) -> Response:
        try:
            self._desk.give(visitor_of(request), operation, target, arguments)
        except DeskFullError:
            return self._say(request, mark("Not done"), _DESK_FULL, 429)
        return RedirectResponse(then, 303)

    async def _support_bundle(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        if not visitor.may(SUPPORT_BUNDLE):
            return self._refused(request, SUPPORT_BUNDLE)
        content, reason = await self._sources.questions.support_bundle(visitor)
        if not content:
            return self._say(request, mark("Not done"), reason, 503)
        name = f"{self._config.concentrator.name}-support.tar.gz"
        return Response(
            content,
            media_type="application/gzip",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def _refused(self, request: Request, operation: str) -> Response:
        visitor = visitor_of(request)
        words: Message | str
        if visitor.role is None:
            words = mark("Log in first.")
        elif not visitor.may(operation):
            words = visitor.refusal
        else:
            words = mark(
                "The section [orders] of the configuration does not take this from the page (allow_page)."
            )
        return self._say(request, mark("Not done"), words, 403)

    def _say(
        self, request: Request, title: str, text: Message | str, status: int, meter: str = ""
    ) -> Response:
        return self._plain(request, "message.html", title, status, text=text, meter=meter)

    def _plain(self, request: Request, template: str, title: str, status: int, **more: Any) -> Response:  # noqa: ANN401 - whatever the template takes
        html = self._renderer(request).plain(
            template,
            title=title,
            path=request.url.path,
            back=_back(request),
            box=self._config.concentrator,
            actions=visitor_of(request),
            **more,
        )
        return HTMLResponse(html, status)

    def _show(self, request: Request, view: View, status: int = 200) -> Response:
        return HTMLResponse(self._html(request, view), status)

    def _show_still(self, request: Request, view: View, status: int = 200) -> Response:
        """A page without live parts."""
        html = self._renderer(request).page(
            view,
            path=request.url.path,
            back=_back(request),
            box=self._config.concentrator,
            actions=visitor_of(request),
        )
        return HTMLResponse(html, status)

    async def _not_found(self, request: Request, error: Exception) -> Response:
        words = (
            mark("No such meter is known here.")
            if isinstance(error, UnknownMeterError)
            else mark("No such node of the network is known here.")
            if isinstance(error, UnknownNodeError)
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
    return Asked(request.query_params, str(request.path_params.get("identity", "")), visitor_of(request))


def _back(request: Request) -> str:
    """Where the choice of a language leads back to: this page; the overview from what only a form leads to."""
    if request.method != "GET":
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


async def _choose_language(request: Request) -> Response:
    """Keep the chosen language in a cookie, which holds nothing else, and go back."""
    code, back = request.path_params["code"], request.query_params.get("back", "/")
    answer = RedirectResponse(local_path(back), 303)
    if code in LANGUAGES:
        answer.set_cookie(
            LANGUAGE_COOKIE, code, max_age=LANGUAGE_COOKIE_AGE_S, httponly=True, samesite="lax", path="/"
        )
    return answer
