"""The highest invocation counter that came from each meter under each key, kept over a restart of the service.

An APDU whose counter does not rise is old, or somebody plays it again. Counters are bound to their keys by a
fingerprint, since a new key begins a new count. They are written every few minutes and at the end, not for each
APDU: after a crash the last minutes' APDUs could be played again, to no use, as the rows that they hold are stored.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

import structlog

from concentrator.collection.keyring import MeterKeys
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_SETTING = "dlms_received_counters"
_FINGERPRINT_OCTETS = 4
# Counts by system title and kind of key, as `SecurityContext.received_counters` has them.
Counters = dict[tuple[bytes, str], int]


class ReceivedCounters:
    """Counters by meter and key; what a dialogue is given it raises in place."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counters: dict[str, Counters] = {}
        self._kept = ""

    async def load(self) -> None:
        """Take what was kept from the store."""
        text = await self._store.setting(_SETTING)
        if text is None:
            return
        try:
            content = cast("dict[str, dict[str, int]]", json.loads(text))
            self._counters = {name: _from_names(counts) for name, counts in content.items()}
            self._kept = text
        except (ValueError, TypeError, AttributeError) as error:
            log.warning("kept setting not understood", name=_SETTING, reason=str(error))

    def of(self, link_address: str, keys: MeterKeys, *, forget_others: bool = True) -> Counters:
        """The counters of one meter under these keys. Keys that are only tried do not `forget_others`."""
        fingerprint = hashlib.sha256(b"received" + keys.encryption_key).digest()[:_FINGERPRINT_OCTETS].hex()
        name = f"{link_address}/{fingerprint}"
        found = self._counters.get(name)
        if found is None:
            # Of a key that was replaced nothing can come any more.
            others = [old for old in self._counters if old.partition("/")[0] == link_address]
            for old in others if forget_others else ():
                del self._counters[old]
            found = self._counters[name] = {}
        return found

    async def keep(self) -> None:
        """Write them, where any has risen. Raises StoreError."""
        content: dict[str, Any] = {
            name: {
                f"{title.hex()}/{kind}": count
                for (title, kind), count in counts.items()
                if kind != "dedicated"
            }
            for name, counts in self._counters.items()
            if counts
        }
        text = json.dumps(content, sort_keys=True)
        if content and text != self._kept:
            await self._store.keep_setting(_SETTING, text)
            self._kept = text


def _from_names(counts: dict[str, int]) -> Counters:
    found: Counters = {}
    for name, count in counts.items():
        title, _, kind = name.partition("/")
        found[bytes.fromhex(title), kind] = int(count)
    return found
