"""The meters' keys at rest: one file in which each key is encrypted under the machine's secret (AES-256-GCM).

Which meter has which kinds of keys can be read in it by whoever may read the file; the keys only with the secret. Name
and kind are authenticated with each key, so that nobody can give one meter the key of another. Keys are unwrapped when
they are used, one at a time.

    {"version": 1, "check": "...", "keys": {"12345678": {"encryption_key": "nonce, key, tag in hexadecimal"}}}
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from concentrator.collection.errors import KeyFileError
from concentrator.collection.machine_secret import wrapping_key, write_private

FILE = "key_store.json"
_VERSION = 1
_NONCE_OCTETS = 12
_CHECK = b"the right machine secret"

# Kinds of keys, and how many octets each may have.
KEY_KINDS: dict[str, tuple[int, ...]] = {
    "encryption_key": (16, 32),  # DLMS global unicast encryption key
    "authentication_key": (16, 32),  # DLMS authentication key
    "master_key": (16, 32),  # DLMS key encrypting key
    "password": tuple(range(1, 65)),  # DLMS low level security, or HLS with a shared secret
    "wmbus_key": (8, 16),  # M-Bus, wired or wireless; 8: DES
}

Keys = Mapping[str, Mapping[str, bytes]]


class KeyStore:
    """The key store of one state directory. Its content is read once, and again by `reload`."""

    def __init__(self, state_directory: Path) -> None:
        """Open it; a folder without one has an empty one, which is not written before there is a key.

        Raises:
            KeyFileError: it cannot be read, or is damaged.
        """
        self.path = state_directory / FILE
        self._directory = state_directory
        self._wrapped: dict[str, dict[str, bytes]] = {}
        self._check = b""
        self._cipher: AESGCM | None = None
        self.reload()

    def __repr__(self) -> str:
        return f"KeyStore({len(self._wrapped)} meters)"

    def __len__(self) -> int:
        return len(self._wrapped)

    def reload(self) -> None:
        """Take the file as it is now.

        Raises:
            KeyFileError: as on opening; then what was read before stays in force.
        """
        try:
            text = self.path.read_text(encoding="ascii")
        except FileNotFoundError:
            self._wrapped, self._check = {}, b""
            return
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise KeyFileError(f"key store {self.path}: cannot be read: {reason}") from None
        check, wrapped = self._parse(text)
        if self._cipher is not None:
            self._verify(self._cipher, check)
        self._check, self._wrapped = check, wrapped

    def unlock(self) -> None:
        """Take the machine's secret, where there are keys that need it: what a key would be asked for first.

        Raises:
            KeyFileError: it is missing, or not the one that the store was encrypted under.
        """
        if self._cipher is None and self._check:
            cipher = AESGCM(wrapping_key(self._directory, may_create=False))
            self._verify(cipher, self._check)
            self._cipher = cipher

    def _verify(self, cipher: AESGCM, check: bytes) -> None:
        if _unwrap(cipher, check, b"check") != _CHECK:
            raise KeyFileError(
                f"key store {self.path}: was encrypted under another machine secret; restore that, or remove the key "
                "store and import the keys again"
            )

    def _parse(self, text: str) -> tuple[bytes, dict[str, dict[str, bytes]]]:
        try:
            content: dict[str, Any] = json.loads(text)
            if content["version"] != _VERSION:
                raise KeyFileError(
                    f"key store {self.path}: has version {content['version']!r}, this release knows {_VERSION}"
                )
            tables = cast("dict[str, dict[str, str]]", content["keys"])
            wrapped = {
                name: {kind: bytes.fromhex(sealed) for kind, sealed in kinds.items()}
                for name, kinds in tables.items()
            }
            return bytes.fromhex(content["check"]), wrapped
        except (ValueError, KeyError, TypeError, AttributeError):
            raise KeyFileError(
                f"key store {self.path}: is damaged; restore it from the backup, or remove it and import the keys again"
            ) from None

    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Which kinds of keys each meter has; never a key."""
        return {name: tuple(sorted(kinds)) for name, kinds in sorted(self._wrapped.items())}

    def key(self, name: str, kind: str) -> bytes | None:
        """The key of a meter, or None.

        Raises:
            KeyFileError: there is no machine secret, or this entry was changed by somebody without it.
        """
        sealed = self._wrapped.get(name, {}).get(kind)
        if sealed is None:
            return None
        self.unlock()
        opened = _unwrap(self._cipher, sealed, _label(name, kind)) if self._cipher is not None else None
        if opened is None:
            raise KeyFileError(
                f"key store {self.path}: {kind} of {name} is damaged, or of another meter; import it again"
            )
        return opened

    def change(self, add: Keys, remove: Iterable[str] = ()) -> None:
        """Add keys, or put them in the place of earlier ones; remove all keys of some meters. All or nothing.

        Raises:
            KeyFileError: it could not be written, and is as it was.
        """
        with self._locked():
            self.reload()
            self.unlock()
            cipher = self._cipher or AESGCM(wrapping_key(self._directory, may_create=True))
            wrapped = {name: dict(kinds) for name, kinds in self._wrapped.items()}
            for name in remove:
                wrapped.pop(name, None)
            for name, keys in add.items():
                for kind, key in keys.items():
                    wrapped.setdefault(name, {})[kind] = _wrap(cipher, key, _label(name, kind))
            check = _wrap(cipher, _CHECK, b"check")
            content = {
                "version": _VERSION,
                "check": check.hex(),
                "keys": {
                    name: {kind: sealed.hex() for kind, sealed in sorted(kinds.items())}
                    for name, kinds in sorted(wrapped.items())
                },
            }
            write_private(self.path, json.dumps(content, indent=1).encode())
            self._cipher, self._check, self._wrapped = cipher, check, wrapped

    @contextmanager
    def _locked(self) -> Generator[None]:
        """One writer at a time: commands and the service are processes of their own."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._directory, os.O_RDONLY)
        except OSError as error:
            raise KeyFileError(
                f"key store {self.path}: its folder cannot be used: {error.strerror}"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _label(name: str, kind: str) -> bytes:
    return f"{kind} of {name}".encode()


def _wrap(cipher: AESGCM, key: bytes, label: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_OCTETS)
    return nonce + cipher.encrypt(nonce, key, label)


def _unwrap(cipher: AESGCM, sealed: bytes, label: bytes) -> bytes | None:
    try:
        return cipher.decrypt(sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:], label)
    except (InvalidTag, ValueError):
        return None
