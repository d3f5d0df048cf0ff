"""Accounts and tokens as the page and the command line change them; every change is in the audit trail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from concentrator.access.errors import UserError
from concentrator.access.roles import Role
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import Token, TokenBook
from concentrator.access.users import UserBook

# Tells what was done, by whom and what came of it: for the audit trail.
Note = Callable[[str, str, str, str], Awaitable[None]]
LOOKING = ("list", "tokens")
_CHANGES = ("add", "reset", "role", "remove", "end_sessions", "token_add", "token_remove")


class AccountDesk:
    """Changes accounts, sessions and tokens of one state directory."""

    def __init__(self, users: UserBook, sessions: Sessions, tokens: TokenBook) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens

    async def answer(
        self, do: str, request: Mapping[str, Any], who: str, own_name: str, note: Note
    ) -> dict[str, Any]:
        """Do what is asked. `own_name` is the account of whoever asks on the page; "" for a command on the box.

        Raises:
            UserError: it cannot be done; the text says why.
        """
        if do == "list":
            return {"users": self._told_users()}
        if do == "tokens":
            return {"tokens": [told_token(one) for one in self._tokens.tokens()]}
        if do not in _CHANGES:
            raise UserError(f"users: got {do!r}; allowed: {', '.join((*LOOKING, *_CHANGES))}")
        name = text_of(request, "name")
        if own_name and name == own_name and do in ("reset", "role", "remove"):
            raise UserError(
                "this is your own account: another administrator changes it; your password has a page of its own"
            )
        if do.startswith("token_"):
            return await self._change_tokens(do, request, who, note)
        made, detail = self._change(do, name, request)
        await note(f"user_{do}", who, "done", detail)
        return {"one_time_password": made} if made else {}

    def _change(self, do: str, name: str, request: Mapping[str, Any]) -> tuple[str, str]:
        """Gives the one-time password that was made, and the words for the trail."""
        match do:
            case "add":
                role = role_of(request)
                if self._users.find(name) is None:
                    # Tokens of somebody who once had the name are not those of a later one.
                    self._tokens.remove_of(name)
                return self._users.add(name, role, text_of(request, "new")), f"{name}: {role}"
            case "reset":
                made = self._users.reset(name, text_of(request, "new"))
                return made, f"{name}{self._tokens_ended(name)}"
            case "role":
                role = role_of(request)
                self._users.set_role(name, role)
                return "", f"{name}: {role}"
            case "remove":
                self._users.remove(name)
                return "", f"{name}{self._tokens_ended(name)}"
            case _:
                if self._users.find(name) is None:
                    raise UserError(f"user {name!r}: there is none")
                return "", f"{name}: {self._sessions.end_all_of(name)} sessions ended"

    def _tokens_ended(self, name: str) -> str:
        count = self._tokens.remove_of(name)
        return f"; {count} tokens ended" if count else ""

    async def _change_tokens(
        self, do: str, request: Mapping[str, Any], who: str, note: Note
    ) -> dict[str, Any]:
        if do == "token_remove":
            gone = self._tokens.remove(text_of(request, "id"))
            await note("token_remove", who, "done", f"{gone.user}: {gone.label}")
            return {}
        name, label = text_of(request, "name"), text_of(request, "label")
        role = role_of(request) if text_of(request, "role") else None
        days = request.get("days")
        if days is not None and (not isinstance(days, int) or isinstance(days, bool)):
            raise UserError(f"token: days: got {str(days)[:32]!r}; allowed: a whole number, or none")
        token = self._tokens.add(name, label, role, days)
        until = f" for {days} days" if days else ", without an end"
        await note("token_add", who, "done", f"{name}: {label}{until}")
        return {"token": token}

    def _told_users(self) -> list[dict[str, Any]]:
        open_sessions = self._sessions.count_by_user()
        tokens = [one.user for one in self._tokens.tokens()]
        return [
            {
                "name": user.name,
                "role": user.role.value,
                "one_time": user.one_time,
                "last_login": iso(self._sessions.last_login(user.name)),
                "sessions": open_sessions.get(user.name, 0),
                "tokens": tokens.count(user.name),
            }
            for user in self._users.users()
        ]


def told_token(token: Token) -> dict[str, Any]:
    """A token as it is listed: not itself, nor its digest."""
    return {
        "id": token.identity,
        "user": token.user,
        "label": token.label,
        "role": token.role.value,
        "made_at": iso(token.made_at),
        "ends_at": iso(token.ends_at),
        "used_on": iso(token.used_at),
    }


def iso(epoch: int | None) -> str | None:
    """A time as RFC 3339, in UTC."""
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")


def text_of(request: Mapping[str, Any], name: str) -> str:
    """A text of a request; "" where there is none."""
    value = request.get(name, "")
    return value if isinstance(value, str) else ""


def role_of(request: Mapping[str, Any]) -> Role:
    """The role of a request. Raises UserError."""
    given = text_of(request, "role")
    try:
        return Role(given)
    except ValueError:
        raise UserError(f"role: got {given[:32]!r}; allowed: {', '.join(Role)}") from None
