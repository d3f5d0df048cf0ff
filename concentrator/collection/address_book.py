"""What a G3 or S-FSK network has to remember across restarts: whose address is whose, and G3's frame counter."""

from __future__ import annotations

import asyncio
import json

import structlog

from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from plc.network import Event, FrameCounterAdvanced, ShortAddressAssigned

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# The setting that holds the addresses, by family.
_SETTINGS = {"g3": "g3_short_addresses", "s-fsk": "s_fsk_mac_addresses"}
_COUNTER_SETTING = "g3_frame_counter"
_RETRY_S = 5.0


class AddressBook:
    """The addresses that devices were given, by EUI-64 or system title. They stay the device's own over restarts."""

    def __init__(self, store: Store, family: str) -> None:
        self._setting = _SETTINGS.get(family, "")
        self.known: dict[bytes, int] = {}
        self.frame_counter = 0
        self._store = store
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Take them from the store."""
        kept = await self._store.setting(self._setting) if self._setting else None
        self.known = {bytes.fromhex(eui): int(address) for eui, address in json.loads(kept or "{}").items()}
        self.frame_counter = int(await self._store.setting(_COUNTER_SETTING) or 0)

    def note(self, event: Event) -> None:
        """Remember what a network tells of new addresses and of its counter."""
        if isinstance(event, ShortAddressAssigned):
            self.known[event.eui] = event.address
            self._changed.set()
        elif isinstance(event, FrameCounterAdvanced):
            self.frame_counter = event.counter
            self._changed.set()

    async def run(self) -> None:
        """Write changes to the store, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            text = json.dumps({eui.hex(): address for eui, address in self.known.items()})
            try:
                await self._store.keep_setting(self._setting, text)
                if self.frame_counter:
                    await self._store.keep_setting(_COUNTER_SETTING, str(self.frame_counter))
            except StoreError as error:
                log.warning("short addresses not kept", reason=str(error))
                self._changed.set()
                await asyncio.sleep(_RETRY_S)
