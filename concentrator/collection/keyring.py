"""The meters' keys: from the key store and from a file of mode 0600, handed to the protocol stacks, shown to nobody.

The key store (`key_store`) is encrypted at rest and goes first. The file is JSON, in the clear:

    {"meters": {"SERIAL or EUI in hex or *": {"encryption_key": "32 hex digits", "authentication_key": "..."}},
     "wmbus": {"12345678": "32 hex digits"}}

`*` holds for every meter that has no entry of its own. An entry may also have `master_key`, which wraps keys that are
changed, `suite` (0, 1 or 2), and of suites 1 and 2 `signing_key` (our private one, a number in hexadecimal) and
`meter_signing_key` (the meter's public one, X and Y in hexadecimal); with both the association is opened by ECDSA. Keys
that were changed since are kept in a file of their own: see `changed_keys`.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec

from concentrator.collection.changed_keys import ChangedEntry, ChangedKeys, KeySet
from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KeyStore
from concentrator.dlms import elliptic
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.elliptic import PrivateKey, PublicKey
from concentrator.dlms.errors import SecurityError
from concentrator.dlms.security import KEY_LENGTHS, SecurityKeys

_HEX_KEY = re.compile(r"^(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})$")
_HEX_WMBUS_KEY = re.compile(r"^(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$")
_PRIVATE_BITS = stat.S_IRWXG | stat.S_IRWXO


class Standing(enum.Enum):
    """What is known of whether a meter takes some keys."""

    CURRENT = "current"
    PENDING = "pending"
    RETIRED = "retired"
    # The meter may hold a key that never reached us: the association is protected by a key under the master key.
    RECOVERY = "recovery"


class MeterKeys:
    """The keys of one meter: block cipher (encryption) and authentication, 16 or 32 octets, and what changes them.

    `generation` counts how often they were changed, `counter` names our invocation counter (see `KeySet`), `origin` is
    the fingerprint of the key file's entry.
    """

    __slots__ = (
        "authentication_key", "counter", "encryption_key", "generation", "master_key", "meter_signing_key",
        "meter_system_title", "origin", "signing_key", "standing", "suite",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - an entry of the key file
        self,
        encryption_key: bytes,
        authentication_key: bytes,
        *,
        master_key: bytes = b"",
        suite: int = 0,
        signing_key: PrivateKey | None = None,
        meter_signing_key: PublicKey | None = None,
        generation: int = 0,
        counter: int = 0,
        standing: Standing = Standing.CURRENT,
        origin: str = "",
        meter_system_title: bytes = b"",
    ) -> None:
        self.encryption_key = encryption_key
        self.authentication_key = authentication_key
        self.master_key = master_key
        self.suite = suite
        self.signing_key = signing_key
        self.meter_signing_key = meter_signing_key
        self.generation = generation
        self.counter = counter
        self.standing = standing
        self.origin = (
            origin
            or hashlib.sha256(
                b"meter keys" + encryption_key + b"/" + authentication_key + b"/" + master_key
            ).hexdigest()
        )
        self.meter_system_title = meter_system_title

    def __repr__(self) -> str:
        return "MeterKeys(not shown)"

    @property
    def mechanism(self) -> AuthenticationMechanism:
        """How the association is opened."""
        if self.signing_key is not None and self.meter_signing_key is not None:
            return AuthenticationMechanism.HLS_ECDSA
        return AuthenticationMechanism.HLS_GMAC

    def security_keys(self) -> SecurityKeys:
        """As the DLMS client takes them."""
        return SecurityKeys(
            self.encryption_key,
            self.authentication_key,
            master=self.master_key,
            signing=self.signing_key,
            peer_signing=self.meter_signing_key,
        )

    def changed(self, keys: KeySet, standing: Standing) -> MeterKeys:
        """The same meter's keys after a change."""
        return MeterKeys(
            keys.encryption_key,
            keys.authentication_key,
            master_key=keys.master_key,
            suite=self.suite,
            signing_key=self.signing_key,
            meter_signing_key=self.meter_signing_key,
            generation=keys.generation,
            counter=keys.counter,
            standing=standing,
            origin=self.origin,
        )

    def key_set(self) -> KeySet:
        """As they are kept after a change."""
        return KeySet(
            self.generation, self.counter, self.encryption_key, self.authentication_key, self.master_key
        )


class Keyring:
    """Keys by meter, of the file and of the `store`. `changed` are those that were changed since they were given."""

    def __init__(
        self,
        meters: dict[str, MeterKeys],
        wmbus: dict[str, bytes],
        changed: ChangedKeys | None = None,
        store: KeyStore | None = None,
    ) -> None:
        self.store = store
        self._meters = meters
        self._wmbus = wmbus
        self.changed = changed

    def __repr__(self) -> str:
        return f"Keyring({len(self._meters)} meters, {len(self._wmbus)} wireless meters)"

    @classmethod
    def load(cls, path: Path | None, changed: Path | None = None, store: KeyStore | None = None) -> Keyring:
        """Read a key file; None gives a ring with the keys of the store only, if there is one.

        `changed` is the file of keys that were changed since.

        Raises:
            KeyFileError: it cannot be read, others may read it, or an entry has the wrong form.
        """
        kept = None if changed is None else ChangedKeys(changed)
        if path is None:
            return cls({}, {}, kept, store)
        try:
            content: Any = json.loads(read_private(path))
        except ValueError:
            raise KeyFileError(f"key file {path}: is not JSON; see docs/deployment.md for its form") from None
        meters = {
            name: _meter_keys(path, name, entry) for name, entry in _table(path, content, "meters").items()
        }
        wmbus = {
            name.upper(): _key(path, name, {"key": value}, "key", _HEX_WMBUS_KEY, "32 (DES: 16)")
            for name, value in _table(path, content, "wmbus").items()
        }
        return cls(meters, wmbus, kept, store)

    def meter_keys(self, *names: str) -> MeterKeys | None:
        """The keys to try first of a meter by any of these names (serial, EUI in hex, logical device name)."""
        return next(iter(self.candidates(*names)), None)

    def candidates(self, *names: str) -> list[MeterKeys]:
        """The keys that a meter by any of these names may take, the likeliest first.

        After a change that was not confirmed these are the pending ones, those before, and what was given up.

        Raises:
            KeyFileError: its entry in the key store was changed by somebody without the machine's secret.
        """
        configured = next(
            (keys for name in (*names, "*") if name and (keys := self._configured(name)) is not None), None
        )
        if configured is None:
            return []
        entry = self._changed_entry(configured, names)
        if entry is None:
            return [configured]
        current = configured if entry.current is None else configured.changed(entry.current, Standing.CURRENT)
        found: list[MeterKeys] = []
        if entry.pending is not None and entry.pending.encryption_key:
            found.append(configured.changed(entry.pending, Standing.PENDING))
        found.append(current)
        found += [configured.changed(one, Standing.RETIRED) for one in reversed(entry.retired)]
        if entry.current is not None:
            # The meter was exchanged, or set back: the key file may be right again.
            found.append(configured.changed(configured.key_set(), Standing.RETIRED))
        if entry.lost and current.master_key and current.mechanism is AuthenticationMechanism.HLS_ECDSA:
            recovery = configured.changed(current.key_set(), Standing.RECOVERY)
            recovery.meter_system_title = entry.meter_system_title
            found.append(recovery)
        return found

    def _configured(self, name: str) -> MeterKeys | None:
        """What was given under one name: the store goes first."""
        encryption, authentication = (
            self._stored(name, kind) for kind in ("encryption_key", "authentication_key")
        )
        if encryption is None or authentication is None:
            return self._meters.get(name)
        return MeterKeys(encryption, authentication, master_key=self._stored(name, "master_key") or b"")

    def _changed_entry(self, configured: MeterKeys, names: tuple[str, ...]) -> ChangedEntry | None:
        if self.changed is None:
            return None
        found = (self.changed.entry(name, configured.origin) for name in names if name)
        return next((entry for entry in found if entry is not None), None)

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


def _meter_keys(path: Path, name: str, entry: object) -> MeterKeys:
    """One entry of the meters' table. Raises KeyFileError."""
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    suite = fields.get("suite", 0)
    if suite not in KEY_LENGTHS or isinstance(suite, bool):
        raise KeyFileError(f"key file {path}: {name}: suite has to be 0, 1 or 2")
    optional = {field for field in ("master_key", "signing_key", "meter_signing_key") if field in fields}
    signing: PrivateKey | None = None
    peer: PublicKey | None = None
    if optional & {"signing_key", "meter_signing_key"}:
        if not suite:
            raise KeyFileError(f"key file {path}: {name}: signing keys need suite 1 or 2")
        try:
            number = int.from_bytes(bytes.fromhex(str(fields.get("signing_key"))), "big")
            signing = ec.derive_private_key(number, elliptic.curve_of(suite))
            peer = elliptic.public_key(suite, bytes.fromhex(str(fields.get("meter_signing_key"))))
        except (ValueError, SecurityError):
            raise KeyFileError(
                f"key file {path}: {name}: signing_key and meter_signing_key have to be a private number and a "
                f"public point of suite {suite} in hexadecimal, both"
            ) from None
    keys = MeterKeys(
        _key(path, name, fields, "encryption_key"),
        _key(path, name, fields, "authentication_key"),
        master_key=_key(path, name, fields, "master_key") if "master_key" in optional else b"",
        suite=suite,
        signing_key=signing,
        meter_signing_key=peer,
    )
    if len(keys.encryption_key) != KEY_LENGTHS[suite]:
        raise KeyFileError(
            f"key file {path}: {name}: encryption_key of suite {suite} has {2 * KEY_LENGTHS[suite]} digits"
        )
    return keys
