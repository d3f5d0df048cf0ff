"""What one destination is to be sent next, and the keeping of what it acknowledged.

Both uplinks are built on this: take batches in order, send them in a window, report each as acknowledged
when the peer said so. Acknowledgements are written together, a few times a second, since each write is
an fsync; a crash in between only sends those batches again, which receivers must bear anyway.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from concentrator.store.errors import StoreError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_READ_AHEAD_BATCHES = 16
_FLUSH_INTERVAL_S = 0.25
_POLL_INTERVAL_S = 5.0


class Feed:
    """The outbox of one destination. `run()` must be running while it is used."""

    def __init__(self, store: Store, destination: str) -> None:
        self.destination = destination
        self.acknowledged_batches = 0
        self._store = store
        self._position = 0
        self._ahead: deque[OutgoingBatch] = deque()
        # Acknowledged by the peer, not yet on flash.
        self._acknowledged: set[int] = set()
        self._flush_wanted = asyncio.Event()

    async def run(self) -> None:
        """Write acknowledgements to the store, until cancelled; writes what is left when cancelled."""
        await self._store.register_destination(self.destination)
        try:
            while True:
                await self._flush_wanted.wait()
                await self._flush()
                await asyncio.sleep(_FLUSH_INTERVAL_S)
        finally:
            await asyncio.shield(self._flush())

    async def next_batch(self) -> OutgoingBatch:
        """The next batch to send; waits until there is one."""
        while not self._ahead:
            try:
                found = await self._store.pending(self.destination, self._position, _READ_AHEAD_BATCHES)
            except StoreError as error:
                log.warning("outbox cannot be read", destination=self.destination, reason=str(error))
                await asyncio.sleep(_POLL_INTERVAL_S)
                continue
            if found:
                self._position = found[-1].sequence
                self._ahead.extend(batch for batch in found if batch.sequence not in self._acknowledged)
            else:
                await self._store.wait_for_newer(self._position, _POLL_INTERVAL_S)
        return self._ahead.popleft()

    def acknowledged(self, sequence: int) -> None:
        """The peer has this batch for good."""
        self.acknowledged_batches += 1
        self._acknowledged.add(sequence)
        self._flush_wanted.set()

    def start_again(self) -> None:
        """The connection was lost: go on from the oldest batch that is not acknowledged."""
        self._ahead.clear()
        self._position = 0

    async def _flush(self) -> None:
        self._flush_wanted.clear()
        writing = set(self._acknowledged)
        if not writing:
            return
        try:
            await self._store.acknowledge(self.destination, writing)
        except StoreError as error:
            # They stay in the set: nothing is sent twice while we run, and the next flush tries again.
            log.warning("acknowledgements cannot be kept", destination=self.destination, reason=str(error))
            self._flush_wanted.set()
            await asyncio.sleep(_POLL_INTERVAL_S)
            return
        self._acknowledged -= writing
