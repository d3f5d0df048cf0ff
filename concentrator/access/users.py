"""The accounts of the page: one file of mode 0600 in the state directory, which the page's process cannot read.

    {"version": 1, "users": {"ana": {"role": "operator", "salt": "...", "verifier": "...", "cost": 32768,
     "one_time": false, "generation": 3}}}

`generation` counts the changes of an account: sessions that were begun before the last one are over. The running
service sees changes that a command makes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from concentrator.access.errors import UserError
from concentrator.access.passwords import COST, Verifier, check_password, make_password, make_verifier
from concentrator.access.roles import Role
from concentrator.collection.machine_secret import write_private

FILE = "users.json"
FIRST_USER = "admin"
_VERSION = 1
_MOST_USERS = 200
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class User:
    """One account. With `one_time` its password has to be changed before anything else."""

    name: str
    role: Role
    verifier: Verifier
    one_time: bool
    generation: int


class UserBook:
    """The accounts of one state directory. `cost` is that of new verifiers."""

    def __init__(self, state_directory: Path, cost: int = COST) -> None:
        self.path = state_directory / FILE
        self._cost = cost
        self._users: dict[str, User] = {}
        self._seen: tuple[int, int, int] | None = None
        self._nobody: Verifier | None = None

    def __repr__(self) -> str:
        return f"UserBook({len(self._users)} users)"

    def users(self) -> list[User]:
        """All accounts by name.

        Raises:
            UserError: the file cannot be read, or is damaged.
        """
        self._refresh()
        return sorted(self._users.values(), key=lambda user: user.name)

    def find(self, name: str) -> User | None:
        """The account of a name. Raises UserError."""
        self._refresh()
        return self._users.get(name)

    def verify(self, name: str, password: str) -> User | None:
        """The account, when the password is its own; slow on purpose, and as slow for a name that nobody has.

        Raises:
            UserError: as for `users`.
        """
        user = self.find(name)
        # For names that nobody has there is one to compare with, so that these take as long as others.
        if self._nobody is None:
            self._nobody = make_verifier(make_password(), self._cost)
        verifier = self._nobody if user is None else user.verifier
        return user if verifier.verifies(password) and user is not None else None

    def provision(self) -> str | None:
        """On a box without accounts make the first one; gives its one-time password, or None where there are some.

        Raises:
            UserError: the file cannot be read or written.
        """
        with self._locked():
            if self.path.exists():
                return None
            password = make_password()
            self._write({FIRST_USER: self._made(FIRST_USER, Role.ADMIN, password, one_time=True)})
        return password

    def add(self, name: str, role: Role, password: str = "") -> str:
        """Make an account; without a password a one-time one is made and given back.

        Raises:
            UserError: the name or the password is not allowed, or somebody has the name.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"user {name!r}: allowed: 1 to 32 letters, digits, points, _ or -, a letter or digit first"
            )
        if password:
            check_password(name, password)
        with self._locked():
            if name in self._users:
                raise UserError(f"user {name}: is there already; `concentrator users reset` gives a password")
            if len(self._users) >= _MOST_USERS:
                raise UserError(f"user {name}: there are {_MOST_USERS} users; remove one first")
            made = password or make_password()
            self._write({**self._users, name: self._made(name, role, made, one_time=not password)})
        return "" if password else made

    def reset(self, name: str, password: str = "") -> str:
        """Give somebody another password: this one, or a one-time one, which is given back; ends their sessions.

        Raises:
            UserError: there is no such user, or the password is not allowed.
        """
        if password:
            check_password(name, password)
        with self._locked():
            user = self._known(name)
            made = password or make_password()
            changed = replace(
                user,
                verifier=make_verifier(made, self._cost),
                one_time=not password,
                generation=user.generation + 1,
            )
            self._write({**self._users, name: changed})
        return "" if password else made

    def set_role(self, name: str, role: Role) -> None:
        """Give somebody another role; ends their sessions.

        Raises:
            UserError: there is no such user, or nobody would be left to administrate.
        """
        with self._locked():
            user = self._known(name)
            changed = {**self._users, name: replace(user, role=role, generation=user.generation + 1)}
            self._check_admins(changed)
            self._write(changed)

    def remove(self, name: str) -> None:
        """Remove an account; ends its sessions.

        Raises:
            UserError: there is no such user, or nobody would be left to administrate.
        """
        with self._locked():
            self._known(name)
            left = {one: user for one, user in self._users.items() if one != name}
            self._check_admins(left)
            self._write(left)

    def _made(self, name: str, role: Role, password: str, *, one_time: bool) -> User:
        # Not from 1 on: sessions of somebody who was removed are not those of a later one of the name.
        return User(
            name, role, make_verifier(password, self._cost), one_time, generation=secrets.randbelow(2**31)
        )

    def _known(self, name: str) -> User:
        if name not in self._users:
            raise UserError(f"user {name!r}: there is none; `concentrator users list` has those that are")
        return self._users[name]

    @staticmethod
    def _check_admins(users: dict[str, User]) -> None:
        if not any(user.role is Role.ADMIN for user in users.values()):
            raise UserError("the last admin stays: make another one first")

    def _write(self, users: dict[str, User]) -> None:
        content = {
            "version": _VERSION,
            "users": {
                name: {
                    "role": user.role.value,
                    "salt": user.verifier.salt.hex(),
                    "verifier": user.verifier.octets.hex(),
                    "cost": user.verifier.cost,
                    "one_time": user.one_time,
                    "generation": user.generation,
                }
                for name, user in sorted(users.items())
            },
        }
        write_private(self.path, json.dumps(content, indent=1).encode())
        self._users, self._seen = users, self._state_of_file()

    def _refresh(self) -> None:
        """Take the file as it is now, where it has changed."""
        seen = self._state_of_file()
        if seen == self._seen:
            return
        if seen is None:
            self._users, self._seen = {}, None
            return
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise UserError(f"users {self.path}: cannot be read: {reason}") from None
        self._users, self._seen = self._parse(text), seen

    def _state_of_file(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _parse(self, text: str) -> dict[str, User]:
        try:
            content: dict[str, Any] = json.loads(text)
            if content["version"] != _VERSION:
                raise UserError(
                    f"users {self.path}: has version {content['version']!r}, this release knows {_VERSION}"
                )
            rows = cast("dict[str, dict[str, Any]]", content["users"])
            return {
                name: User(
                    name,
                    Role(row["role"]),
                    Verifier(bytes.fromhex(row["salt"]), bytes.fromhex(row["verifier"]), int(row["cost"])),
                    bool(row["one_time"]),
                    int(row["generation"]),
                )
                for name, row in rows.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"users {self.path}: is damaged; remove it: the next start makes a first admin anew"
            ) from None

    @contextmanager
    def _locked(self) -> Generator[None]:
        with locked(self.path):
            self._refresh()
            yield


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One writer of a file at a time: commands and the service are processes of their own.

    Raises:
        UserError: its folder cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path}: its folder cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
