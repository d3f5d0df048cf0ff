"""Who gets in: every address but the open ones needs a session, or `web.open_view` to look; programs have tokens."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from concentrator.access.roles import PREFIX
from concentrator.config import WebSection
from concentrator.config_rules import is_loopback
from concentrator.web.visitors import AccessClient, RefusedError, Visitor

LOGIN, LOGOUT, PASSWORD = "/login", "/logout", "/password"
_OPEN = (LOGIN, "/health")
# The choice of a language tells nothing and changes nothing but a cookie.
_LANGUAGES = "/language/"
# Figures without names of meters: for a collector of figures on the box itself.
_OPEN_ON_LOOPBACK = ("/metrics",)
# Where programs go: a token opens no page, so that nobody has to keep pages from programs of other sites.
_FOR_PROGRAMS = ("/api/", "/metrics", "/health")
_FORBIDDEN = 403
_WITH_ONE_TIME_PASSWORD = (LOGIN, LOGOUT, PASSWORD)


def cookie_name(web: WebSection) -> str:
    """The name of the session's cookie; with the prefix browsers hold it to this host and to TLS (RFC 6265bis)."""
    return "session" if web.tls == "off" else "__Host-session"


def visitor_of(request: Request) -> Visitor:
    """Who sent a request that the gate let through."""
    found: Visitor = request.scope["visitor"]
    return found


class Gate:
    """Lets through who may, with the visitor in the scope; sends others to the login."""

    def __init__(self, app: ASGIApp, web: WebSection, access: AccessClient) -> None:
        self._app = app
        self._access = access
        self._cookie = cookie_name(web)
        self._open_view = web.open_view
        self._open = _OPEN + (_OPEN_ON_LOOPBACK if is_loopback(web.host) else ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = request.url.path
        if path.startswith("/static/"):
            # For the page that says that there is no such file.
            scope["visitor"] = Visitor()
            await self._app(scope, receive, send)
            return
        address = request.client.host if request.client else ""
        # An open page that stays open is no use of the session.
        use = not path.startswith("/events/")
        token = _token_of(request)
        refusal: Response | None
        if token is not None:
            # A cookie that came too is not looked at.
            visitor, refusal = await self._program(token, address)
            if not path.startswith(_FOR_PROGRAMS):
                refusal = JSONResponse({"error": "a token opens /api, /metrics and /health only"}, 403)
        else:
            session = request.cookies.get(self._cookie, "")
            # What tells a token from a session is no session: it came where browsers send it by themselves.
            session = "" if session.startswith(PREFIX) else session
            visitor = await self._access.visitor(session, address, use=use)
            refusal = self._refusal(request, visitor)
        scope["visitor"] = visitor or Visitor(address=address)
        refused = False

        async def send_noting(message: Message) -> None:
            nonlocal refused
            refused = refused or (
                message["type"] == "http.response.start" and message["status"] == _FORBIDDEN
            )
            await send(message)

        await (self._app if refusal is None else refusal)(scope, receive, send_noting)
        # Open pages ask again and again: that they were refused once is enough.
        if refused and visitor is not None and visitor.role is not None and use:
            await self._access.note_refusal(visitor, f"{request.method} {path}")

    async def _program(self, token: str, address: str) -> tuple[Visitor | None, Response | None]:
        """Whose token this is, or what is answered."""
        wait_s, reason = 0, "the token is wrong, was removed, or has ended"
        if token.startswith(PREFIX):
            try:
                visitor = await self._access.program(token, address)
            except RefusedError as error:
                wait_s, reason = error.wait_s, str(error)
                if error.why == "locked":
                    return None, JSONResponse({"error": reason}, 429, {"Retry-After": str(wait_s)})
            else:
                if visitor is not None:
                    return visitor, None
                reason = "the collecting service does not answer, and the token was not seen of late"
                return None, JSONResponse({"error": reason}, 503, {"Retry-After": "5"})
        return None, _to_login_json(reason)

    def _refusal(self, request: Request, visitor: Visitor | None) -> Response | None:
        path = request.url.path
        if path in self._open or path.startswith(_LANGUAGES):
            return None
        if visitor is None:
            if self._open_view and request.method in ("GET", "HEAD"):
                return None
            return _to_login(request)
        if visitor.one_time and path not in _WITH_ONE_TIME_PASSWORD:
            if path.startswith("/api/"):
                return JSONResponse({"error": "the one-time password has to be changed first"}, 403)
            if path.startswith("/events/"):
                return PlainTextResponse("The one-time password has to be changed first.\n", 403)
            return RedirectResponse(PASSWORD, 303)
        return None


def _token_of(request: Request) -> str | None:
    """What a program sent as `Authorization: Bearer` (RFC 6750)."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _to_login_json(reason: str) -> Response:
    return JSONResponse({"error": reason}, 401, {"WWW-Authenticate": "Bearer"})


def _to_login(request: Request) -> Response:
    path = request.url.path
    if path.startswith(("/api/", "/metrics")):
        return _to_login_json("log in first, or send a token")
    if path.startswith("/events/"):
        return PlainTextResponse("Log in first.\n", 401)
    if request.method != "GET":
        return PlainTextResponse("Log in first.\n", 403)
    asked = path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(LOGIN if asked == "/" else f"{LOGIN}?next={quote(asked)}", 303)
