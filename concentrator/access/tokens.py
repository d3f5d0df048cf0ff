"""Tokens of programs: what a program sends as `Authorization: Bearer` (RFC 6750) in the name of an account.

One file of mode 0600 in the state directory, which the page's process cannot read. It has digests only: a token is
random (256 bits), so that nobody finds it from its digest, and it is told once, when it is made.

    {"version": 1, "tokens": {"k3v9": {"digest": "...", "user": "prometheus", "label": "Prometheus", "role": "viewer",
     "made_at": 1790000000, "ends_at": null, "used_at": null}}}
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from concentrator.access.errors import UserError
from concentrator.access.roles import PREFIX, Role, lesser
from concentrator.access.users import User, UserBook, locked
from concentrator.clock import Clock
from concentrator.collection.errors import KeyFileError
from concentrator.collection.machine_secret import write_private

FILE = "tokens.json"
LONGEST_LABEL = 64
LONGEST_DAYS = 3660
_VERSION = 1
_SECRET_OCTETS = 32
_IDENTITY_OCTETS = 4
_MOST_TOKENS = 100
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without itself. Times in seconds since 1970; `ends_at` None: it has no end."""

    identity: str
    digest: str
    user: str
    label: str
    role: Role
    made_at: int
    ends_at: int | None
    used_at: int | None


class TokenBook:
    """The tokens of one state directory. The running service sees changes that a command makes."""

    def __init__(self, users: UserBook, clock: Clock, state_directory: Path) -> None:
        self._path = state_directory / FILE
        self._users = users
        self._clock = clock
        self._tokens: dict[str, Token] = {}
        self._by_digest: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"TokenBook({len(self._tokens)} tokens)"

    def tokens(self) -> list[Token]:
        """All of them, by account and label.

        Raises:
            UserError: the file cannot be read, or is damaged.
        """
        self._refresh()
        return sorted(self._tokens.values(), key=lambda one: (one.user, one.label, one.identity))

    def add(self, user: str, label: str, role: Role | None = None, days: int | None = None) -> str:
        """Make a token of an account, with its role or a lesser one, for some days or without an end; gives it.

        Raises:
            UserError: there is no such account, the label or the days are not allowed, or the role is above its own.
        """
        account = self._users.find(user)
        if account is None:
            raise UserError(f"user {user!r}: there is none; `concentrator users list` has those that are")
        label = label.strip()
        if not label or len(label) > LONGEST_LABEL or not label.isprintable():
            raise UserError(f"token: label: got {label[:80]!r}; allowed: 1 to {LONGEST_LABEL} characters")
        if days is not None and not 1 <= days <= LONGEST_DAYS:
            raise UserError(f"token: days: got {days}; allowed: 1 to {LONGEST_DAYS}")
        role = account.role if role is None else role
        if lesser(role, account.role) is not role:
            raise UserError(f"token: role: got {role}; allowed: at most that of {user}, {account.role}")
        now = int(self._clock.now().timestamp())
        token = PREFIX + secrets.token_urlsafe(_SECRET_OCTETS)
        with locked(self._path):
            self._refresh()
            if len(self._tokens) >= _MOST_TOKENS:
                raise UserError(f"token: there are {_MOST_TOKENS}; remove one first")
            identity = secrets.token_hex(_IDENTITY_OCTETS)
            ends_at = None if days is None else now + days * _DAY_S
            made = Token(identity, _digest(token), user, label, role, now, ends_at, None)
            self._write({**self._tokens, identity: made})
        return token

    def remove(self, identity: str) -> Token:
        """Remove one; it opens nothing from now on.

        Raises:
            UserError: there is none of this identity.
        """
        with locked(self._path):
            self._refresh()
            found = self._tokens.get(identity)
            if found is None:
                raise UserError(
                    f"token {identity[:32]!r}: there is none; `concentrator users token list` has them"
                )
            self._write({name: one for name, one in self._tokens.items() if name != identity})
        return found

    def remove_of(self, user: str) -> int:
        """Remove all of an account; gives how many there were. Raises UserError."""
        with locked(self._path):
            self._refresh()
            left = {name: one for name, one in self._tokens.items() if one.user != user}
            removed = len(self._tokens) - len(left)
            if removed:
                self._write(left)
        return removed

    def user_of(self, token: str) -> tuple[User, Token] | None:
        """The account of a token with the lesser of both roles; None when it is no token, or has ended.

        Raises:
            UserError: accounts or tokens cannot be read.
        """
        self._refresh()
        found = self._tokens.get(self._by_digest.get(_digest(token), ""))
        now = int(self._clock.now().timestamp())
        if found is None or (found.ends_at is not None and now >= found.ends_at):
            return None
        user = self._users.find(found.user)
        if user is None:
            return None
        if found.used_at is None or now - found.used_at >= _DAY_S:
            # Once a day: enough to find those that nobody uses, and little for the flash.
            self._note_use(found.identity, now)
        # A one-time password that waits for its change is no matter of programs.
        return replace(user, role=lesser(found.role, user.role), one_time=False), found

    def _note_use(self, identity: str, now: int) -> None:
        with locked(self._path):
            self._refresh()
            found = self._tokens.get(identity)
            if found is not None:
                self._write({**self._tokens, identity: replace(found, used_at=now)})

    def _write(self, tokens: dict[str, Token]) -> None:
        rows = {name: asdict(one) for name, one in sorted(tokens.items())}
        for row in rows.values():
            del row["identity"]
        try:
            write_private(self._path, json.dumps({"version": _VERSION, "tokens": rows}, indent=1).encode())
        except KeyFileError as error:
            raise UserError(str(error)) from None
        self._take(tokens)
        self._seen = self._state_of_file()

    def _take(self, tokens: dict[str, Token]) -> None:
        self._tokens = tokens
        self._by_digest = {one.digest: name for name, one in tokens.items()}

    def _refresh(self) -> None:
        seen = self._state_of_file()
        if seen == self._seen:
            return
        self._take({} if seen is None else self._read())
        self._seen = seen

    def _state_of_file(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, Token]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            if content["version"] != _VERSION:
                raise UserError(
                    f"tokens {self._path}: has version {content['version']!r}, this release knows {_VERSION}"
                )
            rows = cast("dict[str, dict[str, Any]]", content["tokens"])
            return {
                name: Token(
                    name,
                    str(row["digest"]),
                    str(row["user"]),
                    str(row["label"]),
                    Role(row["role"]),
                    int(row["made_at"]),
                    None if row["ends_at"] is None else int(row["ends_at"]),
                    None if row["used_at"] is None else int(row["used_at"]),
                )
                for name, row in rows.items()
            }
        except OSError as error:
            raise UserError(f"tokens {self._path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"tokens {self._path}: is damaged; remove it, and make the tokens anew") from None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
