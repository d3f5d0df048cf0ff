"""The meters' keys: from the key store and from a file of mode 0600, handed to the protocol stacks, shown to nobody.

The key store (`key_store`) is encrypted at rest and goes first. The file is JSON, in the clear:

    {"meters": {"SERIAL or EUI in hex or *": {"encryption_key": "32 hex digits", "authentication_key": "..."}},
     "wmbus": {"12345678": "32 hex digits"}}

`*` holds for every meter that has no entry of its own.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any, cast

from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KeyStore

_HEX_KEY = re.compile(r"^(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})$")
_HEX_WMBUS_KEY = re.compile(r"^(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$")
_PRIVATE_BITS = stat.S_IRWXG | stat.S_IRWXO


class MeterKeys:
    """The two global keys of one meter: block cipher (encryption) and authentication. 16 or 32 octets."""

    __slots__ = ("authentication_key", "encryption_key")

    def __init__(self, encryption_key: bytes, authentication_key: bytes) -> None:
        self.encryption_key = encryption_key
        self.authentication_key = authentication_key

    def __repr__(self) -> str:
        return "MeterKeys(not shown)"


class Keyring:
    """Keys by meter, of the file and of the `store`."""

    def __init__(
        self, meters: dict[str, MeterKeys], wmbus: dict[str, bytes], store: KeyStore | None = None
    ) -> None:
        self.store = store
        self._meters = meters
        self._wmbus = wmbus

    def __repr__(self) -> str:
        return f"Keyring({len(self._meters)} meters, {len(self._wmbus)} wireless meters)"

    @classmethod
    def load(cls, path: Path | None, store: KeyStore | None = None) -> Keyring:
        """Read a key file; None gives a ring with the keys of the store only, if there is one.

        Raises:
            KeyFileError: it cannot be read, others may read it, or an entry has the wrong form.
        """
        if path is None:
            return cls({}, {}, store)
        try:
            content: Any = json.loads(read_private(path))
        except ValueError:
            raise KeyFileError(f"key file {path}: is not JSON; see docs/deployment.md for its form") from None
        meters = {
            name: MeterKeys(
                _key(path, name, entry, "encryption_key"), _key(path, name, entry, "authentication_key")
            )
            for name, entry in _table(path, content, "meters").items()
        }
        wmbus = {
            name.upper(): _key(path, name, {"key": value}, "key", _HEX_WMBUS_KEY, "32 (DES: 16)")
            for name, value in _table(path, content, "wmbus").items()
        }
        return cls(meters, wmbus, store)

    def meter_keys(self, *names: str) -> MeterKeys | None:
        """The keys of a meter that goes by any of these names (serial, EUI in hex, logical device name).

        Raises:
            KeyFileError: its entry in the key store was changed by somebody without the machine's secret.
        """
        for name in (*names, "*"):
            if not name:
                continue
            encryption, authentication = (
                self._stored(name, kind) for kind in ("encryption_key", "authentication_key")
            )
            if encryption is not None and authentication is not None:
                return MeterKeys(encryption, authentication)
            if name in self._meters:
                return self._meters[name]
        return None

    def secret(self, kind: str, *names: str) -> bytes | None:
        """One other kind of key (`key_store.KEY_KINDS`: a password, a master key) by the names of a meter.

        Raises:
            KeyFileError: as for `meter_keys`.
        """
        found = (self._stored(name, kind) for name in (*names, "*") if name)
        return next((key for key in found if key is not None), None)

    def wmbus_keys(self) -> dict[str, bytes]:
        """Keys of M-Bus meters by their eight-digit identification, or by manufacturer and identification.

        Raises:
            KeyFileError: as for `meter_keys`.
        """
        stored = {
            name: key
            for name, kinds in (self.store.kinds() if self.store is not None else {}).items()
            if "wmbus_key" in kinds and (key := self._stored(name, "wmbus_key")) is not None
        }
        return {**self._wmbus, **stored}

    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Which meter has which kinds of keys, in the store or in the file; never a key."""
        found: dict[str, set[str]] = {}
        for name in self._meters:
            found.setdefault(name, set()).update(("encryption_key", "authentication_key"))
        for name in self._wmbus:
            found.setdefault(name, set()).add("wmbus_key")
        for name, kinds in (self.store.kinds() if self.store is not None else {}).items():
            found.setdefault(name, set()).update(kinds)
        return {name: tuple(sorted(kinds)) for name, kinds in sorted(found.items())}

    def _stored(self, name: str, kind: str) -> bytes | None:
        return self.store.key(name, kind) if self.store is not None else None


def read_private(path: Path) -> str:
    """The text of a file that nobody else may read.

    Raises:
        KeyFileError: it cannot be read, or others may read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KeyFileError(f"key file {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"key file {path}: is not text") from None
    if mode & _PRIVATE_BITS:
        raise KeyFileError(
            f"key file {path}: has mode {stat.S_IMODE(mode):04o}, others could read it; run chmod 0600 on it"
        )
    return text


def read_single_key(path: Path) -> bytes:
    """The key in a file that holds nothing else: 32 hexadecimal digits.

    Raises:
        KeyFileError: it cannot be read, others may read it, or it holds something else.
    """
    text = read_private(path).strip()
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", text):
        raise KeyFileError(f"key file {path}: has to hold 32 hexadecimal digits")
    return bytes.fromhex(text)


def _table(path: Path, content: object, name: str) -> dict[str, Any]:
    table = cast("dict[str, Any]", content).get(name, {}) if isinstance(content, dict) else None
    if not isinstance(table, dict):
        raise KeyFileError(f"key file {path}: {name}: has to be an object of names; see docs/deployment.md")
    return cast("dict[str, Any]", table)


def _key(
    path: Path,
    name: str,
    entry: object,
    field: str,
    form: re.Pattern[str] = _HEX_KEY,
    digits: str = "32 or 64",
) -> bytes:
    value = cast("dict[str, Any]", entry).get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not form.match(value):
        raise KeyFileError(f"key file {path}: {name}: {field} has to be {digits} hexadecimal digits")
    return bytes.fromhex(value)
