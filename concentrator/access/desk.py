"""Where the page's requests are judged: who is this, and may they? Runs in the service; the page only asks.

Requests come over the control socket with the token of a session. Everything that is done or refused is in the audit
trail with the name, the role and the address that the page saw.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from concentrator.access.account_desk import LOOKING, AccountDesk, Note
from concentrator.access.account_desk import text_of as _text
from concentrator.access.configuration_desk import ConfigurationDesk
from concentrator.access.errors import AccessError, NotLoggedInError, RoleRefusedError, UserError
from concentrator.access.key_desk import KeyDesk
from concentrator.access.lockout import Lockout
from concentrator.access.passwords import check_password
from concentrator.access.roles import (
    BACKUP,
    BY_PASSWORD_ONLY,
    CONFIGURATION,
    KEYS,
    PREFIX,
    USERS,
    Role,
    needed_role,
    permits,
)
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import TokenBook
from concentrator.access.users import User, UserBook
from concentrator.clock import Clock
from concentrator.collection.control.operations import CONTROL_OPERATIONS
from concentrator.collection.control.rules import SYNC_CLOCK
from concentrator.collection.firmware.orders import FIRMWARE_ORDERS
from concentrator.errors import ConcentratorError
from concentrator.orders import LOCAL, PAGE, Order, OrderHandler
from concentrator.store.audit import REFUSED, AuditEntry
from concentrator.store.errors import StoreError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

DONE, FAILED, ACCEPTED = "done", "failed", "accepted"
LOGIN, LOGOUT, SESSION, PASSWORD, DOWNLOAD = "login", "logout", "session", "password", "download"
REFUSAL = "refusal"
# What is handed out and leaves a trace: what it is called, and what its receiver has to be allowed.
_DOWNLOADS = {"traffic_capture": "traffic"}
_MOST_WAITING_LOGINS = 8
# Wrong passwords may not push everything else out of the trail.
_MOST_REFUSALS_AN_HOUR = 120
_HOUR_S = 3600.0


class ArchiveDesk(Protocol):
    """Makes backups and puts them in place: `archive.backup_desk`."""

    async def answer(self, do: str, request: Mapping[str, Any], who: str, note: Note) -> dict[str, Any]:
        """Do what is asked. Raises ConcentratorError."""
        ...


class AccessDesk:
    """Answers `operations`, and lets orders of the page through to `handle_order` when their sender may give them."""

    operations = (LOGIN, LOGOUT, SESSION, PASSWORD, DOWNLOAD, REFUSAL, USERS, CONFIGURATION, KEYS, BACKUP)

    def __init__(  # noqa: PLR0913 - what it is made of, once
        self,
        users: UserBook,
        sessions: Sessions,
        tokens: TokenBook,
        store: Store,
        clock: Clock,
        handle_order: OrderHandler,
        configuration: ConfigurationDesk | None = None,
        keys: KeyDesk | None = None,
        archive: ArchiveDesk | None = None,
        *,
        open_view: bool = False,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._accounts = AccountDesk(users, sessions, tokens)
        self._archive = archive
        self._open_view = open_view
        self._store = store
        self._clock = clock
        self._handle_order = handle_order
        self._configuration = configuration
        self._keys = keys
        self._lockout = Lockout(clock)
        # One password is tried at a time: nobody tries many before the first is counted, or fills the memory.
        self._trying = asyncio.Lock()
        self._waiting = 0
        self._refusals: list[float] = []

    async def answer(self, request: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Answer one request; a refusal is an answer with `refused` (why, as a word) and `reason`.

        Raises:
            ConcentratorError: it could not be done.
        """
        address = _text(request, "address") or "the box"
        try:
            match request["op"]:
                case "login":
                    return await self._login(_text(request, "name"), _text(request, "password"), address)
                case "logout":
                    return await self._logout(_text(request, "session"), address)
                case "session":
                    return await self._about_session(request, address)
                case "download":
                    return await self._about_download(request, origin, address)
                case "refusal":
                    return await self._about_refusal(request, address)
                case "password":
                    return await self._change_password(request, address)
                case operation:
                    return await self._administrate(str(operation), request, origin, address)
        except NotLoggedInError as error:
            return {"refused": "login", "reason": str(error)}
        except RoleRefusedError as error:
            return {"refused": "role", "reason": str(error)}
        except UserError as error:
            return {"refused": "user", "reason": str(error)}

    async def carry_out(self, order: Order, session: str, address: str) -> dict[str, Any]:
        """Carry out an order of somebody who is logged in.

        Raises:
            NotLoggedInError: there is no such session.
            RoleRefusedError: their role may not give it; it is in the audit trail.
            ConcentratorError: it was not done.
        """
        user = self._user(session, use=needed_role(order.operation) is not Role.VIEWER)
        given = replace(order, origin=PAGE, given_by=_named(user, address))
        try:
            self._check(user, order.operation)
        except RoleRefusedError as error:
            await self._note(order.operation, given.who, REFUSED, str(error), order.target, order.order_id)
            raise
        # What changes a meter has an entry with the meter's states, made where it is carried out.
        told_there = order.operation in (*CONTROL_OPERATIONS, *FIRMWARE_ORDERS, SYNC_CLOCK)
        if told_there or needed_role(order.operation) is Role.VIEWER:
            return await self._handle_order(given)
        try:
            result = await self._handle_order(given)
        except ConcentratorError as error:
            await self._note(order.operation, given.who, FAILED, str(error), order.target, order.order_id)
            raise
        # Of one that is deferred the outcome is with the order.
        state = ACCEPTED if order.deferred else DONE
        await self._note(order.operation, given.who, state, "", order.target, order.order_id)
        return result

    async def allow(
        self, operation: str, request: Mapping[str, Any], origin: str, *, use: bool = True
    ) -> str:
        """Whether a question may be answered: gives who asks, for the audit trail. `use` is as for a session.

        Root and the service's user need no session. With `web.open_view` nobody needs one to look.

        Raises:
            NotLoggedInError: there is no such session.
            RoleRefusedError: their role may not.
        """
        session = _text(request, "session")
        if "session" not in request and origin == LOCAL:
            return LOCAL
        if not session and self._open_view and needed_role(operation) is Role.VIEWER:
            return PAGE
        user = self._user(session, use=use)
        who = f"{PAGE}, {_named(user, _text(request, 'address') or 'the box')}"
        try:
            self._check(user, operation)
        except RoleRefusedError as error:
            if self._may_note_refusal():
                await self._note(operation, who, REFUSED, str(error))
            raise
        return who

    async def note(self, operation: str, who: str, state: str, detail: str) -> None:
        """Enter something into the audit trail."""
        await self._note(operation, who, state, detail)

    # Sessions

    async def _about_session(self, request: Mapping[str, Any], address: str) -> dict[str, Any]:
        """Whose session or token this is."""
        session = _text(request, "session")
        if not session.startswith(PREFIX):
            return self._told(self._user(session, use=request.get("use") is not False))
        # A right one is never kept out: nobody guesses 256 bits. Wrong ones are noted, and answered ever more seldom.
        if self._tokens.user_of(session) is not None:
            return self._told(self._user(session))
        key = f"token {_network(address)}"
        if wait_s := self._lockout.wait_s(key):
            return {"refused": "locked", "reason": "too many wrong tokens", "wait_s": _whole(wait_s)}
        delay_s = self._lockout.failed(key)
        log.warning("token refused", address=address, locked_s=delay_s)
        if self._may_note_refusal():
            await self._note(
                LOGIN, f"{PAGE}, a token at {address}", REFUSED, "the token is wrong or has ended"
            )
        reason = "the token is wrong, was removed, or has ended"
        return {"refused": "wrong", "reason": reason, "wait_s": _whole(delay_s)}

    async def _about_download(self, request: Mapping[str, Any], origin: str, address: str) -> dict[str, Any]:
        """What the page has at hand and gives away: noted before it does."""
        del address
        what = _text(request, "what")
        if what not in _DOWNLOADS:
            raise AccessError(f"download: got {what[:32]!r}; allowed: {', '.join(_DOWNLOADS)}")
        who = await self.allow(_DOWNLOADS[what], request, origin)
        await self._note(what, who, DONE, "downloaded")
        return {}

    async def _about_refusal(self, request: Mapping[str, Any], address: str) -> dict[str, Any]:
        """What the page itself refused to somebody who is logged in, by its address."""
        user = self._user(_text(request, "session"), use=False)
        if self._may_note_refusal():
            await self._note(
                "page", f"{PAGE}, {_named(user, address)}", REFUSED, _text(request, "what")[:200]
            )
        return {}

    async def _login(self, name: str, password: str, address: str) -> dict[str, Any]:
        tried = await self._verified(name, password, address)
        if not isinstance(tried, User):
            return tried
        token = self._sessions.begin(tried)
        log.info("logged in", name=tried.name, role=tried.role.value, address=address)
        await self._note(LOGIN, f"{PAGE}, {_named(tried, address)}", DONE)
        return {"session": token, **self._told(tried)}

    async def _verified(self, name: str, password: str, address: str) -> User | dict[str, Any]:
        """Whose name and password these are, or the refusal."""
        if self._waiting >= _MOST_WAITING_LOGINS:
            return {"refused": "busy", "reason": "too many log in at the moment: try again", "wait_s": 2}
        self._waiting += 1
        try:
            async with self._trying:
                return await self._try(name, password, address)
        finally:
            self._waiting -= 1

    async def _try(self, name: str, password: str, address: str) -> User | dict[str, Any]:
        known = self._users.find(name)
        # A password that was reset on the box opens a name that somebody else has locked.
        keys = (f"name {name[:64]} {known.generation if known else ''}", f"address {_network(address)}")
        if wait_s := self._lockout.wait_s(*keys):
            return {"refused": "locked", "reason": "too many wrong passwords", "wait_s": _whole(wait_s)}
        user = await asyncio.to_thread(self._users.verify, name, password)
        who = f"{PAGE}, {name[:32]!r} at {address}"
        if user is None:
            delay_s = self._lockout.failed(*keys)
            detail = "name or password is wrong"
            if delay_s:
                detail += f"; locked for {delay_s:g} s"
            log.warning("login refused", name=name[:32], address=address, locked_s=delay_s)
            if self._may_note_refusal():
                await self._note(LOGIN, who, REFUSED, detail)
            return {
                "refused": "wrong",
                "reason": "name or password is wrong",
                "wait_s": _whole(delay_s),
            }
        self._lockout.succeeded(*keys)
        return user

    async def _logout(self, session: str, address: str) -> dict[str, Any]:
        user = self._sessions.user_of(session)
        self._sessions.end(session)
        if user is not None:
            await self._note(LOGOUT, f"{PAGE}, {_named(user, address)}", DONE)
        return {}

    async def _change_password(self, request: Mapping[str, Any], address: str) -> dict[str, Any]:
        user = self._user(_text(request, "session"))
        if _text(request, "session").startswith(PREFIX):
            raise RoleRefusedError("a token changes no password: log in for that")
        fresh = _text(request, "new")
        check_password(user.name, fresh)
        if fresh == _text(request, "password"):
            raise UserError("password: the new one is the old one")
        tried = await self._verified(user.name, _text(request, "password"), address)
        if not isinstance(tried, User):
            return tried
        self._users.reset(user.name, fresh)
        changed = self._users.find(user.name)
        if changed is None:
            raise NotLoggedInError("the account was removed meanwhile")
        token = self._sessions.begin(changed)
        log.info("password changed", name=user.name, address=address)
        await self._note(
            PASSWORD, f"{PAGE}, {_named(changed, address)}", DONE, "changed; other sessions ended"
        )
        return {"session": token, **self._told(changed)}

    def _user(self, session: str, *, use: bool = True) -> User:
        if session.startswith(PREFIX):
            found = self._tokens.user_of(session)
            user = None if found is None else found[0]
        else:
            user = self._sessions.user_of(session, use=use) if session else None
        if user is None:
            raise NotLoggedInError("not logged in, or the session has ended")
        return user

    @staticmethod
    def _told(user: User) -> dict[str, Any]:
        return {"name": user.name, "role": user.role.value, "one_time": user.one_time}

    @staticmethod
    def _check(user: User, operation: str) -> None:
        if user.one_time:
            raise RoleRefusedError("the one-time password has to be changed first")
        if not permits(user.role, operation):
            raise RoleRefusedError(
                f"{operation} is for {needed_role(operation)}s; {user.name} is {user.role}"
            )

    # Administration

    async def _administrate(
        self, operation: str, request: Mapping[str, Any], origin: str, address: str
    ) -> dict[str, Any]:
        """Users, configuration and keys: for administrators, and for root and the service's user on the box."""
        do, own_name = _text(request, "do"), ""
        if "session" not in request and origin == LOCAL:
            who = LOCAL
        else:
            session = _text(request, "session")
            user = self._user(session, use=do != "state")
            own_name, who = user.name, f"{PAGE}, {_named(user, address)}"
            try:
                self._check(user, operation)
                if session.startswith(PREFIX) and operation in BY_PASSWORD_ONLY and do not in LOOKING:
                    raise RoleRefusedError(f"{operation}: not with a token; log in for that")
            except RoleRefusedError as error:
                await self._note(operation, who, REFUSED, str(error))
                raise
        if operation == CONFIGURATION and self._configuration is not None:
            return await self._configuration.answer(do, request, who, self.note)
        if operation == KEYS and self._keys is not None:
            return await self._about_keys(self._keys, do, request, who)
        if operation == BACKUP and self._archive is not None:
            return await self._archive.answer(do, request, who, self.note)
        if operation == USERS:
            answer = await self._accounts.answer(do, request, who, own_name, self.note)
            if do not in LOOKING:
                log.warning("accounts changed", what=do, user=_text(request, "name")[:32], by=who)
            return answer
        raise AccessError(f"{operation}: is not known here")

    async def _about_keys(
        self, keys: KeyDesk, do: str, request: Mapping[str, Any], who: str
    ) -> dict[str, Any]:
        if do != "import":
            return {"meters": await keys.state()}
        try:
            taken = await keys.take(request.get("text"))
        except ConcentratorError as error:
            await self._note("keys_import", who, FAILED, str(error)[:500])
            raise
        detail = f"{taken['keys']} keys of {taken['meters']} meters"
        log.info("keys imported", by=who, meters=taken["meters"])
        await self._note("keys_import", who, DONE, detail)
        return dict(taken)

    # The audit trail

    async def _note(  # noqa: PLR0913 - the columns of an entry
        self, operation: str, who: str, state: str, detail: str = "", meter: str = "", order_id: str = ""
    ) -> None:
        now = self._clock.now()
        entry = AuditEntry(
            order_id or f"access-{secrets.token_hex(6)}",
            operation,
            meter,
            who,
            now,
            state=state,
            detail=detail,
            completed_at=now,
        )
        try:
            await self._store.add_audit_entry(entry)
        except StoreError as error:
            log.error("not in the audit trail", op=operation, by=who, state=state, reason=str(error))

    def _may_note_refusal(self) -> bool:
        now = self._clock.monotonic()
        self._refusals = [at for at in self._refusals if now - at < _HOUR_S]
        if len(self._refusals) >= _MOST_REFUSALS_AN_HOUR:
            return False
        self._refusals.append(now)
        return True


def _named(user: User, address: str) -> str:
    return f"{user.name} ({user.role}) at {address}"


def _whole(seconds: float) -> int:
    """Not less than it is, but for the rounding of sums."""
    return math.ceil(seconds - 1e-6)


def _network(address: str) -> str:
    """What counts as one address: a whole /64 of IPv6, which one machine may use as it likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)  # noqa: PLR2004 - IPv6
