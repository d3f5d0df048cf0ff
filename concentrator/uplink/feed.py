"""What one destination is to be sent next, and the keeping of what it acknowledged.

All uplinks are built on this: take batches, send them in a window, report each as acknowledged
when the peer said so. Acknowledgements are written together, a few times a second, since each write is
an fsync; a crash in between only sends those batches again, which receivers must bear anyway.

After an outage the head-end first gets the newest registers and events of every meter, then the backlog from its oldest
batch on. What comes in meanwhile has a share of every read-ahead, so that neither waits for the other. A short backlog
leaves in its order.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from concentrator.store.errors import StoreError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_READ_AHEAD_BATCHES = 64
# Of a read-ahead, while there is a backlog; what comes in is far less than this.
_LIVE_SHARE_BATCHES = 16
# A backlog of fewer batches leaves in a moment: there is no need to put the newest first.
_SHORT_BACKLOG_BATCHES = 200
_FLUSH_INTERVAL_S = 0.25
_POLL_INTERVAL_S = 5.0


class Feed:
    """The outbox of one destination. `run()` must be running while it is used."""

    def __init__(self, store: Store, destination: str) -> None:
        self.destination = destination
        self.acknowledged_batches = 0
        self._store = store
        self._ahead: deque[OutgoingBatch] = deque()
        # Acknowledged by the peer, not yet on flash.
        self._acknowledged: set[int] = set()
        # All that was acknowledged when the store was last asked, or since: what it answers may be older than that.
        self._seen: set[int] = set()
        self._flush_wanted = asyncio.Event()
        self._registered = False
        self.start_again()

    async def run(self) -> None:
        """Write acknowledgements to the store, until cancelled; writes what is left when cancelled."""
        try:
            await self._register()
            while True:
                await self._flush_wanted.wait()
                await self._flush()
                await asyncio.sleep(_FLUSH_INTERVAL_S)
        finally:
            await asyncio.shield(self._flush())

    async def _register(self) -> None:
        while True:
            try:
                await self._store.register_destination(self.destination)
                self._registered = True
                return
            except StoreError as error:
                log.warning("destination not registered", destination=self.destination, reason=str(error))
                await asyncio.sleep(_POLL_INTERVAL_S)

    async def next_batch(self) -> OutgoingBatch:
        """The next batch to send; waits until there is one."""
        if not self._registered:
            # Before the store knows the destination it owes it nothing: a plan made then would leave the backlog out.
            await self._register()
        while not self._ahead:
            try:
                if not self._planned:
                    await self._plan()
                if not await self._read_ahead():
                    await self._store.wait_for_newer(self._live, _POLL_INTERVAL_S)
            except StoreError as error:
                log.warning("outbox cannot be read", destination=self.destination, reason=str(error))
                await asyncio.sleep(_POLL_INTERVAL_S)
        return self._ahead.popleft()

    async def _plan(self) -> None:
        """Tell backlog from what comes in, and find the newest of each meter."""
        self._seen = set(self._acknowledged)
        end = self._store.newest_sequence()
        short = len(await self._store.pending_numbers(self.destination, _SHORT_BACKLOG_BATCHES))
        newest = (
            await self._store.newest_of_each(self.destination, end) if short == _SHORT_BACKLOG_BATCHES else []
        )
        self._newest = deque(number for number in newest if number not in self._seen)
        self._early = set[int]()
        self._backlog, self._backlog_end, self._live = 0, end, end
        self._planned = True

    async def _read_ahead(self) -> bool:
        """Read what is to be sent next; whether anything was there.

        Whoever waits for a batch may give up at any `await`: nothing is taken down as read before all of it is.
        """
        store, destination = self._store, self.destination
        self._seen = set(self._acknowledged)
        draining = bool(self._newest) or self._backlog < self._backlog_end
        live_limit = _LIVE_SHARE_BATCHES if draining else _READ_AHEAD_BATCHES
        live = await store.pending(destination, self._live, live_limit)
        room = _READ_AHEAD_BATCHES - len(live)
        numbers: list[int] = []
        rest: list[OutgoingBatch] = []
        backlog = self._backlog
        if self._newest:
            numbers = list(self._newest)[:room]
            rest = await store.batches(destination, numbers)
        elif backlog < self._backlog_end:
            rest = await store.pending(destination, backlog, room, self._backlog_end)
            backlog = rest[-1].sequence if rest else self._backlog_end
            rest = [batch for batch in rest if batch.sequence not in self._early]
        for _ in numbers:
            self._newest.popleft()
        self._early |= set(numbers)
        self._backlog = backlog
        if live:
            self._live = live[-1].sequence
        self._ahead.extend(batch for batch in [*rest, *live] if batch.sequence not in self._seen)
        return draining or bool(live)

    def acknowledged(self, sequence: int) -> None:
        """The peer has this batch for good."""
        self.acknowledged_batches += 1
        self._acknowledged.add(sequence)
        self._seen.add(sequence)
        self._flush_wanted.set()

    def start_again(self) -> None:
        """The connection was lost: plan anew, from what is not acknowledged."""
        self._ahead.clear()
        self._planned = False
        self._newest: deque[int] = deque()
        self._early: set[int] = set()
        self._backlog = self._backlog_end = self._live = 0

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
