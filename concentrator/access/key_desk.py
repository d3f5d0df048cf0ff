"""The meters' keys as the page sees them: which meter has which, and lists taken in. A key goes in, and never out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_import import key_list_of
from concentrator.collection.key_states import KEY_IS_WRONG, key_state, kinds_of, names_in_key_lists
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.model import MeterRecord, MeterState
from concentrator.store.store import Store

LARGEST_OCTETS = 200_000
_SOURCE = Path("list")
# They stand first.
_NEED_KEYS = (*KEY_IS_WRONG, MeterState.KEY_MISSING)


class KeyDesk:
    """Keys of one box. `met` gives the meters that are there now, those among them that nobody could read yet.

    `on_new_keys` is called when some were taken in.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        key_store: KeyStore,
        on_new_keys: Callable[[], None],
        met: Callable[[], Iterable[MeterRecord]] = tuple,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._key_store = key_store
        self._on_new_keys = on_new_keys
        self._met = met

    async def state(self) -> list[dict[str, Any]]:
        """Every meter that is known or has keys: `state` is present, missing, wrong or waiting (not met yet).

        Raises:
            StoreError: the store cannot be read.
        """
        kinds = self._keyring.kinds()
        replaced = await self._store.last_changes_of_keys()
        found: list[dict[str, Any]] = []
        named: set[str] = set()
        records = {record.identity: record for record in await self._store.load_meters()}
        # The store has those that were identified: a meter whose key is missing or wrong may not be among them.
        records |= {record.identity: record for record in self._met()}
        for record in sorted(records.values(), key=lambda one: (one.state not in _NEED_KEYS, one.identity)):
            named |= names_in_key_lists(record) & kinds.keys()
            held = kinds_of(record, kinds)
            at = replaced.get(record.identity)
            found.append(
                {
                    "meter": record.identity,
                    "kinds": held,
                    "state": key_state(record, has_keys=bool(held)),
                    "reason": record.reason if record.state in _NEED_KEYS else "",
                    "replaced_at": at.isoformat(timespec="seconds") if at else None,
                }
            )
        found += [
            {"meter": name, "kinds": list(held), "state": "waiting", "reason": "", "replaced_at": None}
            for name, held in kinds.items()
            if name not in named
        ]
        return found

    async def take(self, text: object) -> dict[str, int]:
        """Take a list in, all of it or nothing; gives how many keys of how many meters.

        Raises:
            KeyFileError: a line for each mistake; none repeats a key.
        """
        if not isinstance(text, str) or len(text) > LARGEST_OCTETS:
            raise KeyFileError(f"list: text of at most {LARGEST_OCTETS} octets is expected")
        found = key_list_of(_SOURCE, text)
        if not found:
            raise KeyFileError("list: has no keys")
        await asyncio.to_thread(self._key_store.change, found)
        self._on_new_keys()
        return {"keys": sum(map(len, found.values())), "meters": len(found)}
