"""Logging in and out, passwords, and the forms of orders, configuration and keys."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from email.message import Message as MimeMessage
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from concentrator.access.roles import CONFIGURATION, KEYS, USERS
from concentrator.config import WebSection
from concentrator.control import ControlError
from concentrator.web.access_views import AccessViews
from concentrator.web.gate import LOGIN, LOGOUT, PASSWORD, cookie_name, visitor_of
from concentrator.web.live import ServiceWatch
from concentrator.web.order_desk import DeskFullError, OrderDesk
from concentrator.web.security import Forms
from concentrator.web.translations import Message, mark
from concentrator.web.views import Asked, View
from concentrator.web.visitors import AccessClient, RefusedError

# Urlencoded text takes up to three octets for one.
_LARGEST_CONFIGURATION_OCTETS = 200_000
_LARGEST_LIST_OCTETS = 220_000
_ORDERS = "/orders"
_USER_CHANGES = ("add", "reset", "role", "remove", "end_sessions", "token_add", "token_remove")


class AccessPages:
    """The handlers, and where they answer. `say` makes a page that says something, `show` one of a view."""

    def __init__(  # noqa: PLR0913 - what the pages are made of
        self,
        web: WebSection,
        access: AccessClient,
        views: AccessViews,
        desk: OrderDesk,
        forms: Forms,
        watch: ServiceWatch,
        say: Callable[[Request, str, Message | str, int], Response],
        show: Callable[..., Response],
        plain: Callable[..., Response],
    ) -> None:
        self._web = web
        self._access = access
        self._views = views
        self._desk = desk
        self._forms = forms
        self._watch = watch
        self._say = say
        self._show = show
        self._plain = plain
        self.routes = [
            Route(LOGIN, self._login_page, methods=["GET"]),
            Route(LOGIN, self._login, methods=["POST"]),
            Route(LOGOUT, self._logout, methods=["POST"]),
            Route(PASSWORD, self._password_page, methods=["GET"]),
            Route(PASSWORD, self._password, methods=["POST"]),
            Route(_ORDERS, self._cancel, methods=["POST"]),
            Route("/configuration", self._configuration, methods=["POST"]),
            Route("/keys", self._keys, methods=["POST"]),
            Route("/users", self._users, methods=["POST"]),
        ]

    # Sessions

    async def _login_page(self, request: Request) -> Response:
        if visitor_of(request).role is not None:
            return RedirectResponse("/", 303)
        snapshot = await self._watch.snapshot()
        reason = "" if snapshot.state == "running" else _nobody(snapshot.reason)
        return self._login_form(request, local_path(request.query_params.get("next", "")), reason)

    def _login_form(
        self, request: Request, after: str, reason: Message | str = "", status: int = 200
    ) -> Response:
        return self._plain(
            request,
            "login.html",
            mark("Log in"),
            status,
            token=self._forms.login_token,
            after=after,
            reason=reason,
        )

    async def _login(self, request: Request) -> Response:
        fields = await form_of(request)
        if refusal := self._forms.refusal(request.headers, None, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        after = local_path(fields.get("next", ""))
        try:
            token = await self._access.login(
                fields.get("name", ""), fields.get("password", ""), visitor_of(request).address
            )
        except RefusedError as error:
            status = 429 if error.why in ("locked", "busy") else 401
            answer = self._login_form(request, after, _refusal_words(error), status)
            if error.wait_s:
                answer.headers["Retry-After"] = str(error.wait_s)
            return answer
        except ControlError as error:
            return self._login_form(request, after, _nobody(str(error)), 503)
        answer = RedirectResponse(after, 303)
        self._set_cookie(answer, token)
        return answer

    async def _logout(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        try:
            await self._access.logout(visitor)
        except (ControlError, RefusedError) as error:
            return self._say(request, mark("Not logged out"), str(error), 503)
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(cookie_name(self._web), path="/", secure=self._web.tls != "off", httponly=True)
        return answer

    async def _password_page(self, request: Request) -> Response:
        return self._plain(request, "password.html", mark("Password"), 200, reason="")

    async def _password(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        reason: Message | str = mark("The new password was repeated differently.")
        if secrets.compare_digest(fields.get("new", "").encode(), fields.get("again", "").encode()):
            try:
                token = await self._access.change_password(
                    visitor, fields.get("password", ""), fields.get("new", "")
                )
            except RefusedError as error:
                reason = _refusal_words(error)
            except ControlError as error:
                reason = str(error)
            else:
                answer = RedirectResponse("/", 303)
                self._set_cookie(answer, token)
                return answer
        return self._plain(request, "password.html", mark("Password"), 400, reason=reason)

    def _set_cookie(self, answer: Response, token: str) -> None:
        answer.set_cookie(
            cookie_name(self._web),
            token,
            path="/",
            secure=self._web.tls != "off",
            httponly=True,
            samesite="strict",
        )

    # Orders, configuration, keys

    async def _cancel(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._refusal(request, "cancel_order", fields):
            return refusal
        try:
            self._desk.give(visitor, "cancel_order", _ORDERS, {"id": fields.get("id", "")})
        except DeskFullError as error:
            return self._say(request, mark("Not done"), str(error), 429)
        return RedirectResponse(_ORDERS, 303)

    async def _configuration(self, request: Request) -> Response:
        visitor = visitor_of(request)
        fields = await form_of(request, _LARGEST_CONFIGURATION_OCTETS)
        if refusal := self._refusal(request, CONFIGURATION, fields):
            return refusal
        do = fields.get("op", "")
        if do not in ("check", "apply", "confirm", "revert"):
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        asked: dict[str, Any] = {"op": CONFIGURATION, "do": do}
        if do in ("check", "apply"):
            asked |= {"text": fields.get("text", ""), "digest": fields.get("digest", "")}
        try:
            found = await self._access.ask(visitor, asked)
        except (ControlError, RefusedError) as error:
            return self._say(request, mark("Not done"), str(error), 409)
        if do in ("confirm", "revert") or found.get("applied") is True:
            return RedirectResponse("/configuration", 303)
        edited = {
            "text": fields.get("text", "").replace("\r\n", "\n"),
            "digest": fields.get("digest", "") or found["digest"],
            "mistakes": found["mistakes"],
            "difference": found["difference"],
            "checked": True,
        }
        return await self._shown(request, lambda asked: self._edited(asked, edited))

    async def _edited(self, asked: Asked, edited: dict[str, Any]) -> View:
        return await self._views.configuration(await self._watch.snapshot(), asked, edited)

    async def _keys(self, request: Request) -> Response:
        visitor = visitor_of(request)
        fields = await form_of(request, _LARGEST_LIST_OCTETS)
        if refusal := self._refusal(request, KEYS, fields):
            return refusal
        try:
            found = await self._access.ask(
                visitor, {"op": KEYS, "do": "import", "text": fields.get("list", "")}
            )
        except (ControlError, RefusedError) as error:
            mistakes = str(error).splitlines()
        else:
            words = Message(
                "%(keys)s keys of %(meters)s meters were taken in. The list itself is kept nowhere.",
                {"keys": found["keys"], "meters": found["meters"]},
            )
            return self._say(request, mark("Keys imported"), words, 200)

        async def with_mistakes(asked: Asked) -> View:
            view = await self._views.keys(await self._watch.snapshot(), asked)
            view.fixed["mistakes"] = mistakes
            return view

        return await self._shown(request, with_mistakes, 400)

    async def _users(self, request: Request) -> Response:
        visitor, fields = visitor_of(request), await form_of(request)
        if refusal := self._refusal(request, USERS, fields):
            return refusal
        do, name, label = (fields.get(one, "") for one in ("op", "name", "label"))
        if do not in _USER_CHANGES:
            return self._say(request, mark("Not done"), mark("The page does not know this action."), 400)
        days = fields.get("days", "")
        asked: dict[str, Any] = {
            "op": USERS,
            "do": do,
            "name": name,
            "label": label,
            "id": fields.get("id", ""),
        }
        asked |= {
            "role": fields.get("role", ""),
            "days": int(days) if re.fullmatch("[0-9]{1,6}", days) else None,
        }
        mistake: Message | str = ""
        made: dict[str, Any] = {}
        if do == "remove" and fields.get("confirm", "").strip() != name:
            mistake = Message("For this the name %(name)s has to be typed in.", {"name": name})
        elif days and asked["days"] is None:
            mistake = mark("Days: a whole number, or nothing.")
        else:
            try:
                made = await self._access.ask(visitor, asked)
            except (ControlError, RefusedError) as error:
                mistake = str(error)
        if not mistake and not made:
            return RedirectResponse("/users", 303)

        async def with_outcome(asked: Asked) -> View:
            view = await self._views.users(await self._watch.snapshot(), asked)
            view.fixed["mistake"] = mistake or view.fixed["mistake"]
            view.fixed["told"] |= {"name": name, "label": label, **made}
            return view

        return await self._shown(request, with_outcome, 400 if mistake else 200)

    async def _shown(
        self, request: Request, make: Callable[[Asked], Awaitable[View]], status: int = 200
    ) -> Response:
        view = await make(Asked(request.query_params, "", visitor_of(request)))
        return self._show(request, view, status)

    def _refusal(self, request: Request, operation: str, fields: dict[str, str]) -> Response | None:
        visitor = visitor_of(request)
        if refusal := self._forms.refusal(request.headers, visitor, fields.get("token", "")):
            return self._say(request, mark("Not done"), refusal, 403)
        if not visitor.may(operation):
            return self._say(request, mark("Not done"), visitor.refusal, 403)
        return None


def local_path(asked: str) -> str:
    """Where to go after a login: an address of this page, or its first one."""
    try:
        is_elsewhere = bool(urlsplit(asked).netloc)
    except ValueError:
        # A bracket that would begin an address of IPv6.
        return "/"
    is_ours = asked.startswith("/") and not asked.startswith(("//", "/\\")) and not is_elsewhere
    return asked if is_ours and asked.isprintable() and len(asked) < 1000 else "/"  # noqa: PLR2004 - an address


def _refusal_words(error: RefusedError) -> Message | str:
    if error.why == "locked":
        return Message("Too many wrong passwords: wait %(seconds)s s.", {"seconds": error.wait_s})
    if error.why == "wrong":
        words = mark("Name or password is wrong. The next try is taken in %(seconds)s s.")
        return (
            Message(words, {"seconds": error.wait_s}) if error.wait_s else mark("Name or password is wrong.")
        )
    if error.why == "busy":
        return mark("Too many log in at the moment: try again.")
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


async def form_of(request: Request, largest: int = 4096) -> dict[str, str]:
    """The fields of a form, urlencoded or with a file; nothing of one that is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            return {}
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        return _parts_of(kind, body)
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20, keep_blank_values=False)
    except ValueError:
        # More fields than any form of ours has.
        return {}
    return {name: values[0] for name, values in fields.items()}


def _parts_of(kind: str, body: bytes) -> dict[str, str]:
    """The fields of multipart/form-data (RFC 7578)."""
    head = b"Content-Type: " + kind.encode("latin-1", "replace").replace(b"\n", b"") + b"\r\n\r\n"
    message: MimeMessage = BytesParser(policy=HTTP).parsebytes(head + body)
    found: dict[str, str] = {}
    for part in message.get_payload() if message.is_multipart() else ():
        if isinstance(part, MimeMessage):
            name = part.get_param("name", header="content-disposition")
            content = part.get_payload(decode=True)
            if isinstance(name, str) and isinstance(content, bytes) and len(found) < 20:  # noqa: PLR2004 - fields
                found[name] = content.decode("utf-8-sig", "replace")
    return found


def _nobody(reason: str) -> Message:
    return Message(
        "Nobody can log in while the collecting service does not answer. %(reason)s", {"reason": reason}
    )
