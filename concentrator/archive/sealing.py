"""Octets under a passphrase: scrypt (RFC 7914) to a key, AES-256-GCM with it."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from concentrator.errors import LocalError

LEAST_PASSPHRASE = 12
_SALT_OCTETS, _NONCE_OCTETS = 16, 12
# 64 MB and about a second on a Raspberry Pi: what each guess costs.
_COST, _BLOCK, _PARALLEL = 2**16, 8, 1
_PURPOSE = b"open data concentrator: backup"


class ArchiveError(LocalError):
    """A backup or bundle cannot be made or used; the text says why, and shows no secret."""


def seal(content: bytes, passphrase: str) -> bytes:
    """Encrypt: salt, nonce, ciphertext with its tag.

    Raises:
        ArchiveError: the passphrase is too short.
    """
    if len(passphrase) < LEAST_PASSPHRASE:
        raise ArchiveError(
            f"passphrase: has {len(passphrase)} characters; allowed: {LEAST_PASSPHRASE} or more"
        )
    salt, nonce = secrets.token_bytes(_SALT_OCTETS), secrets.token_bytes(_NONCE_OCTETS)
    return salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, content, _PURPOSE)


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """Decrypt what `seal` made.

    Raises:
        ArchiveError: the passphrase is another, or the content was changed.
    """
    salt, rest = sealed[:_SALT_OCTETS], sealed[_SALT_OCTETS:]
    nonce, text = rest[:_NONCE_OCTETS], rest[_NONCE_OCTETS:]
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, text, _PURPOSE)
    except (InvalidTag, ValueError):
        raise ArchiveError(
            "backup: the passphrase is not the one that it was made with, or it is damaged"
        ) from None


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt, 32, _COST, _BLOCK, _PARALLEL).derive(passphrase.encode())
