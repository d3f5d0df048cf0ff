"""What the page does against a hostile network neighbour, web site or meter.

It answers to names that are its own only: a web site cannot reach it by re-pointing its own name. An action needs a
session and a token that only pages of that session carry. The content security policy allows nothing but our own
files: what a meter puts into its name stays text.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from concentrator.config import WebSection
from concentrator.config_rules import is_loopback
from concentrator.web.translations import mark
from concentrator.web.visitors import Visitor

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
# Not with the own certificate: a browser that once was told so would not let anybody past its warning.
_STRICT_TRANSPORT = "max-age=31536000"


class Forms:
    """Whether a form that came is one of ours."""

    def __init__(self) -> None:
        # For the login, where there is no session yet.
        self.login_token = secrets.token_urlsafe(24)

    def refusal(self, headers: Headers, visitor: Visitor | None, token: str) -> str:
        """Why a form is not taken; "" when it is. Without a visitor it is the form of the login."""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return mark("This request comes from another site.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return mark("This request comes from another site.")
        expected = self.login_token if visitor is None else visitor.token
        if not expected:
            return mark("Log in first.")
        if not secrets.compare_digest(token.encode(), expected.encode()):
            return mark(
                "The page was made before the last restart or login: load it again, then repeat the action."
            )
        return ""


class SecurityMiddleware:
    """Puts the headers on every answer, and turns away names that are not ours."""

    def __init__(self, app: ASGIApp, web: WebSection) -> None:
        self._app = app
        self._is_local = is_loopback(web.host)
        self._headers = dict(_HEADERS)
        if web.tls == "files":
            self._headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
        if self._is_local:
            self._names = _LOOPBACK_NAMES | {web.host}
        else:
            own = socket.gethostname().lower()
            names = {web.host, own, f"{own}.local", *web.names.replace(",", " ").split()}
            self._names = _LOOPBACK_NAMES | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if not self._is_ours(_host_name(Headers(scope=scope))):
            words = (
                "This page is reached as localhost or 127.0.0.1 (through an SSH tunnel, for instance).\n"
                if self._is_local
                else "This page is reached by its address, or by a name that web.names has.\n"
            )
            await PlainTextResponse(words, 421)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        # Who asks for an address cannot have been led here by a name. On the loopback only its own will do.
        return not self._is_local and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _host_name(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
