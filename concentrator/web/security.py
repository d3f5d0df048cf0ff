"""What the page does against a hostile network neighbour, web site or meter.

There is no login yet. So the page listens on loopback unless it is told otherwise, answers there only to
names of loopback (a web site cannot reach it by re-pointing its own name), and offers actions only there.
An action needs a token that only our own pages carry. The content security policy allows nothing but our
own files: what a meter puts into its name stays text.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from concentrator.web.translations import mark

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer a browser would not name the origin of our own forms either.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this box only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Actions:
    """Whether actions are offered at all, and whether a request may act."""

    def __init__(self, host: str) -> None:
        self.offered = is_loopback(host)
        self.token = secrets.token_urlsafe(24)

    def refusal(self, headers: Headers, token: str) -> str:
        """Why a request may not act; "" when it may."""
        if not self.offered:
            return mark("Actions are not offered: the page listens on more than loopback and has no login.")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return mark("This request comes from another site.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return mark("This request comes from another site.")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return mark("The page was made before the last restart: load it again, then repeat the action.")
        return ""


class SecurityMiddleware:
    """Puts the headers on every answer, and turns away names that are not ours."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = _LOOPBACK_NAMES | {host} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if self._names is not None and _host_name(Headers(scope=scope)) not in self._names:
            answer = PlainTextResponse(
                "This page is reached as localhost or 127.0.0.1 (through an SSH tunnel, for instance).\n", 421
            )
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _host_name(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
