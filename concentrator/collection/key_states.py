"""Whether a meter has the keys that it needs, told without any key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from concentrator.clock import Clock
from concentrator.collection.keyring import Keyring
from concentrator.model import MeterRecord, MeterState

# missing: encrypted, and no key is set up; wrong: refused, or noise; none: there is none, and none is asked for.
KeyState = Literal["present", "missing", "wrong", "none"]
KEY_IS_WRONG = (MeterState.KEY_WRONG, MeterState.REFUSED)
_ANY = "*"
# Which meter has which kinds changes by hand only.
_KEPT_S = 10.0


def names_in_key_lists(record: MeterRecord) -> set[str]:
    """What a list of keys may call a meter: identity, serial number, address; of M-Bus the identification number."""
    names = {record.identity, record.serial, record.link_address, record.link_address.upper()} - {""}
    return names | {record.identity.upper(), record.identity.partition("-")[2].partition("-")[0]} - {""}


def kinds_of(record: MeterRecord, kinds: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The kinds of keys that a meter has, of its own or those that hold for all."""
    own = names_in_key_lists(record) & kinds.keys()
    return sorted({kind for name in own or {_ANY} & kinds.keys() for kind in kinds[name]})


def key_state(record: MeterRecord, *, has_keys: bool) -> KeyState:
    """How a meter stands with its keys."""
    if record.state is MeterState.KEY_MISSING:
        return "missing"
    if record.state in KEY_IS_WRONG:
        return "wrong"
    return "present" if has_keys else "none"


class KeyStates:
    """The key state of meters for who asks often: which have keys is looked up anew every ten seconds."""

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self._keyring = keyring
        self._clock = clock
        self._kinds: dict[str, tuple[str, ...]] = {}
        self._has_keys: dict[tuple[str, str, str], bool] = {}
        self._looked_at: float | None = None

    def of(self, record: MeterRecord) -> KeyState:
        """The state of one meter."""
        now = self._clock.monotonic()
        if self._looked_at is None or now - self._looked_at >= _KEPT_S:
            self._kinds, self._has_keys, self._looked_at = self._keyring.kinds(), {}, now
        named = (record.identity, record.serial, record.link_address)
        has_keys = self._has_keys.get(named)
        if has_keys is None:
            has_keys = self._has_keys[named] = bool(kinds_of(record, self._kinds))
        return key_state(record, has_keys=has_keys)
