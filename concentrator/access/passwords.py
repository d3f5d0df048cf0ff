"""Passwords: made, judged and turned into verifiers (scrypt, RFC 7914)."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from concentrator.access.errors import UserError

# 32 MB and about a tenth of a second on a fast core; each verifier names its own, so that it can grow.
COST = 2**15
_BLOCK_SIZE, _PARALLEL, _OCTETS, _SALT_OCTETS = 8, 1, 32, 16
_SHORTEST, _LONGEST = 10, 256
# Without letters and digits that look alike on a console.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP_LENGTH = 4, 5


class Verifier(NamedTuple):
    """What is kept of a password."""

    salt: bytes
    octets: bytes
    cost: int

    def __repr__(self) -> str:
        return "Verifier(not shown)"

    def verifies(self, password: str) -> bool:
        """Whether it is this password's; takes as long when it is not."""
        try:
            _scrypt(self.salt, self.cost).verify(_octets(password), self.octets)
        except InvalidKey:
            return False
        return True


def make_verifier(password: str, cost: int = COST) -> Verifier:
    """A new verifier of a password."""
    salt = secrets.token_bytes(_SALT_OCTETS)
    return Verifier(salt, _scrypt(salt, cost).derive(_octets(password)), cost)


def make_password() -> str:
    """A random password of 20 characters, about 99 bits."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_LENGTH)) for _ in range(_GROUPS))
    return "-".join(groups)


def check_password(name: str, password: str) -> None:
    """Whether somebody may have this password. Raises UserError, which does not repeat it."""
    if not _SHORTEST <= len(password) <= _LONGEST or password.strip() == "":
        raise UserError(f"password: allowed: {_SHORTEST} to {_LONGEST} characters")
    if name.lower() in password.lower() or len(set(password)) < _SHORTEST // 2:
        raise UserError(
            "password: allowed: one that does not hold the name and has 5 different characters or more"
        )


def _octets(password: str) -> bytes:
    return password[: _LONGEST + 1].encode("utf-8", "surrogatepass")


def _scrypt(salt: bytes, cost: int) -> Scrypt:
    return Scrypt(salt=salt, length=_OCTETS, n=cost, r=_BLOCK_SIZE, p=_PARALLEL)
