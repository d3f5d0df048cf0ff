"""Which network object goes with which modem, and what a G3 network has to remember across restarts."""

from __future__ import annotations

import json

from concentrator.config import ModemSection
from concentrator.store.store import Store
from plc.network import Network
from plc.prime.base_node import BaseNode


async def load_known_addresses(store: Store) -> dict[bytes, int]:
    """The short addresses that G3 devices were given, by EUI-64."""
    kept = await store.setting("g3_short_addresses")
    return {bytes.fromhex(eui): int(address) for eui, address in json.loads(kept or "{}").items()}


def make_network(settings: ModemSection, known_addresses: dict[bytes, int]) -> Network:
    """The network of the configured family."""
    return BaseNode(data_confirm_timeout_s=settings.confirm_timeout_s)
