"""Sessions: who is logged in. Kept in the service as digests; they outlive its restart, a stolen file opens none."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog

from concentrator.access.users import User, UserBook
from concentrator.clock import Clock
from concentrator.collection.errors import KeyFileError
from concentrator.collection.machine_secret import write_private

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

FILE = "sessions.json"
_TOKEN_OCTETS = 32
_MOST_SESSIONS = 200


@dataclass(slots=True)
class _Session:
    name: str
    generation: int
    # In the time of the running service; the end also by the wall clock, for the next run.
    used_at: float
    ends_at: float
    ends_at_epoch: float


class Sessions:
    """The open sessions. One ends `idle_s` after its last use, `longest_s` after its begin, or with its user."""

    def __init__(
        self, users: UserBook, clock: Clock, state_directory: Path, *, idle_s: float, longest_s: float
    ) -> None:
        self._users = users
        self._clock = clock
        self._path = state_directory / FILE
        self._idle_s, self._longest_s = idle_s, longest_s
        self._sessions: dict[str, _Session] = {}
        self._last_logins: dict[str, int] = {}
        self._load()

    def begin(self, user: User) -> str:
        """A new session; gives its token, which is kept nowhere."""
        now = self._clock.monotonic()
        self._drop_ended()
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used_at)]
        token = secrets.token_urlsafe(_TOKEN_OCTETS)
        self._sessions[_digest(token)] = _Session(
            user.name,
            user.generation,
            now,
            now + self._longest_s,
            self._clock.now().timestamp() + self._longest_s,
        )
        self._last_logins[user.name] = int(self._clock.now().timestamp())
        self._save()
        return token

    def user_of(self, token: str, *, use: bool = True) -> User | None:
        """Whose session this is, as the account is now; None when it has ended. `use` begins its idle time anew.

        Raises:
            UserError: the accounts cannot be read.
        """
        key = _digest(token)
        session = self._sessions.get(key)
        if session is None:
            return None
        user = self._users.find(session.name)
        if user is None or user.generation != session.generation or self._is_over(session):
            del self._sessions[key]
            self._save()
            return None
        if use:
            session.used_at = self._clock.monotonic()
        return user

    def end(self, token: str) -> None:
        """End one."""
        if self._sessions.pop(_digest(token), None) is not None:
            self._save()

    def end_all_of(self, name: str) -> int:
        """End all of an account; gives how many there were."""
        left = {key: one for key, one in self._sessions.items() if one.name != name}
        ended, self._sessions = len(self._sessions) - len(left), left
        if ended:
            self._save()
        return ended

    def count_by_user(self) -> Counter[str]:
        """How many are open now, by account. Raises UserError."""
        open_now: Counter[str] = Counter()
        for session in self._sessions.values():
            user = self._users.find(session.name)
            if user is not None and user.generation == session.generation and not self._is_over(session):
                open_now[session.name] += 1
        return open_now

    def last_login(self, name: str) -> int | None:
        """When a session of an account was last begun, in seconds since 1970."""
        return self._last_logins.get(name)

    def _is_over(self, session: _Session) -> bool:
        now = self._clock.monotonic()
        return now >= session.ends_at or now - session.used_at >= self._idle_s

    def _drop_ended(self) -> None:
        self._sessions = {key: one for key, one in self._sessions.items() if not self._is_over(one)}

    def _save(self) -> None:
        names = {user.name for user in self._users.users()}
        self._last_logins = {name: at for name, at in self._last_logins.items() if name in names}
        content = {
            "sessions": {
                key: [one.name, one.generation, round(one.ends_at_epoch)]
                for key, one in self._sessions.items()
            },
            "last_logins": self._last_logins,
        }
        try:
            write_private(self._path, json.dumps(content).encode())
        except KeyFileError as error:
            # They go on in this run.
            log.warning("sessions not kept", reason=str(error))

    def _load(self) -> None:
        try:
            content = cast("dict[str, dict[str, Any]]", json.loads(self._path.read_text(encoding="ascii")))
            now, epoch = self._clock.monotonic(), self._clock.now().timestamp()
            self._last_logins = {name: int(at) for name, at in content["last_logins"].items()}
            for key, (name, generation, ends_at_epoch) in content["sessions"].items():
                left_s = min(self._longest_s, ends_at_epoch - epoch)
                if left_s > 0:
                    self._sessions[key] = _Session(
                        str(name), int(generation), now, now + left_s, float(ends_at_epoch)
                    )
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            # Whoever was logged in logs in again.
            self._sessions = {}
            log.warning("kept sessions cannot be read", file=str(self._path))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
