"""Keeps the history of the PLC network in the store, so that it survives restarts."""

from __future__ import annotations

import asyncio

import structlog

from concentrator.collection.topology import Topology
from concentrator.store.errors import StoreError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Flash wears by writing: what a power cut may cost is this much of the counts, and the changes of this time.
_INTERVAL_S = 600.0


class HistoryKeeper:
    """Writes what is new every ten minutes, and at the end."""

    def __init__(self, store: Store, topology: Topology, interval_s: float = _INTERVAL_S) -> None:
        self._store = store
        self._topology = topology
        self._interval_s = interval_s

    async def load(self) -> None:
        """Give the topology what was kept."""
        self._topology.restore(await self._store.load_network_history())

    async def run(self) -> None:
        """Write until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self.write()
        finally:
            await asyncio.shield(self.write())

    async def write(self) -> None:
        """Write what is new; what the store does not take is tried again."""
        topology = self._topology
        batch = topology.take_batch()
        try:
            await self._store.save_network_history(
                batch, topology.hours, topology.days, topology.changes_of_a_node
            )
        except StoreError as error:
            topology.put_back(batch)
            log.warning("network history not kept", reason=str(error))
