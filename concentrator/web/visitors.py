"""Who looks at the page: asked of the service by the token in the cookie, and remembered only while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concentrator.access.roles import PREFIX, Role, permits
from concentrator.clock import Clock
from concentrator.config import OrdersSection
from concentrator.control import ControlError, OrderFailedError, ServiceAbsentError, request
from concentrator.errors import LocalError
from concentrator.web.translations import Message

_ANSWER_TIMEOUT_S = 10.0
_FRESH_S = 2.0
# Without the service a session that it knew may look on this long, and order nothing.
_REMEMBERED_S = 3600.0
_MOST_REMEMBERED = 200


class SessionEndedError(LocalError):
    """Whoever looked at a page may not any more."""


class RefusedError(LocalError):
    """The service refused: `why` is login, role, user, wrong, locked or busy; `wait_s` how long to wait."""

    def __init__(self, why: str, reason: str, wait_s: int = 0) -> None:
        super().__init__(reason)
        self.why = why
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is logged in; without a `role` somebody who may only look."""

    name: str = ""
    role: Role | None = None
    session: str = ""
    address: str = ""
    one_time: bool = False
    allowed: frozenset[str] = frozenset()
    # Known from before only: the service is away, and nobody can tell what this one may.
    remembered: bool = False

    @property
    def by_token(self) -> bool:
        """Whether it is a program, which no other site can have send anything."""
        return self.session.startswith(PREFIX)

    @property
    def credentials(self) -> dict[str, str]:
        """What goes with each request to the service: it judges by this, not by what the page believes."""
        return {"session": self.session, "address": self.address}

    @property
    def offered(self) -> bool:
        """Whether any action is offered."""
        return self.role in (Role.OPERATOR, Role.ADMIN)

    @property
    def token(self) -> str:
        """What a form has to carry: only pages of this session hold it, and it lives as long as the session."""
        return hmac.new(self.session.encode(), b"form", hashlib.sha256).hexdigest() if self.session else ""

    @property
    def refusal(self) -> Message:
        """Why one who may look may not do something."""
        if self.remembered:
            return Message("The service is away: what your account may do is known when it is back.")
        return Message("Your role, %(role)s, may not do this.", {"role": self.role or ""})

    def may(self, operation: str) -> bool:
        """Whether an action is worth a button; the service decides when it is given."""
        return self.role is not None and permits(self.role, operation)

    def may_change(self, operation: str) -> bool:
        """Whether an order that changes a meter is: by the role, and by `orders.allow_page`."""
        return self.may(operation) and bool(self.allowed & {"all", operation})


@dataclass(slots=True)
class _Known:
    visitor: Visitor
    asked_at: float


class AccessClient:
    """Asks the service who is who, and hands on what people ask of it."""

    def __init__(self, control_socket: Path, clock: Clock, orders: OrdersSection) -> None:
        self._socket = control_socket
        self._clock = clock
        self._allowed = frozenset(orders.allow_page.replace(",", " ").split())
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def visitor(self, session: str, address: str, *, use: bool = True) -> Visitor | None:
        """Who has this session, or None. While the service is away: who had it, as somebody who may only look."""
        try:
            return await self._visitor(session, address, use=use)
        except RefusedError:
            return None

    async def program(self, token: str, address: str) -> Visitor | None:
        """As `visitor`, by the token that a program sent.

        Raises:
            RefusedError: it is no token, has ended, or too many wrong ones came from there.
        """
        return await self._visitor(token, address, use=True)

    async def _visitor(self, session: str, address: str, *, use: bool) -> Visitor | None:
        if not session or len(session) > 128:  # noqa: PLR2004 - a token of ours is shorter
            return None
        key = hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()
        known, now = self._known.get(key), self._clock.monotonic()
        if not use and known is not None and now - known.asked_at < _FRESH_S:
            return known.visitor
        try:
            told = await self._ask({"op": "session", "session": session, "address": address, "use": use})
        except RefusedError:
            self._known.pop(key, None)
            raise
        except ControlError:
            if known is None or now - known.asked_at > _REMEMBERED_S:
                return None
            return Visitor(known.visitor.name, Role.VIEWER, session, address, remembered=True)
        found = Visitor(
            str(told["name"]),
            Role(told["role"]),
            session,
            address,
            told["one_time"] is True,
            self._allowed,
        )
        self._known[key] = _Known(found, now)
        while len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def login(self, name: str, password: str, address: str) -> str:
        """Log in; gives the token of the session.

        Raises:
            RefusedError: the service refused.
            ControlError: it does not answer.
        """
        told = await self._ask({"op": "login", "name": name, "password": password, "address": address})
        return str(told["session"])

    async def logout(self, visitor: Visitor) -> None:
        """End the session. Raises RefusedError, ControlError."""
        self._known.clear()
        await self._ask({"op": "logout", "session": visitor.session, "address": visitor.address})

    async def note_refusal(self, visitor: Visitor, what: str) -> None:
        """Tell the service's audit trail what somebody was refused here."""
        with contextlib.suppress(RefusedError, ControlError):
            await self.ask(visitor, {"op": "refusal", "what": what})

    async def change_password(self, visitor: Visitor, password: str, new: str) -> str:
        """Another password; gives the token of the new session, all others have ended.

        Raises:
            RefusedError, ControlError: it was not changed.
        """
        told = await self.ask(visitor, {"op": "password", "password": password, "new": new})
        self._known.clear()
        return str(told["session"])

    async def ask(
        self, visitor: Visitor, asked: Mapping[str, Any], timeout_s: float = _ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        """Anything else of the service, in the name of somebody; waits for `timeout_s` at most.

        Raises:
            RefusedError: they may not.
            ControlError: it could not be done, or the service does not answer.
        """
        return await self._ask({**asked, **visitor.credentials}, timeout_s)

    async def _ask(self, asked: Mapping[str, Any], timeout_s: float = _ANSWER_TIMEOUT_S) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await request(self._socket, dict(asked))
        except TimeoutError:
            raise ServiceAbsentError(f"no answer from the service within {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            raise ControlError(f"the service does not answer: {error}") from None
        if "refused" in answer:
            raise RefusedError(str(answer["refused"]), str(answer["reason"]), int(answer.get("wait_s", 0)))
        return answer


__all__ = ["AccessClient", "ControlError", "OrderFailedError", "RefusedError", "SessionEndedError", "Visitor"]
