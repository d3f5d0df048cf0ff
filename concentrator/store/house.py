"""House-keeping: what is old goes, the file stays in its bounds, and the WAL is folded into it."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic

import structlog

from concentrator.clock import Clock
from concentrator.store import retention
from concentrator.store.database import Database
from concentrator.store.readings import from_epoch, to_epoch

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Four times what is checkpointed by itself: a reader holds on to it.
_LONG_WAL_OCTETS = 16 * 2**20
_PAGES_AT_ONCE = 1000
# Free pages are given back when they are more than one in so many.
_LARGEST_FREE_SHARE = 4


class House:
    """Keeps a store in order. `checkpoint_blocked` says why the WAL grows when a reader holds on to it, else "".

    Since the start: `lost` readings and events were removed before every destination had them, `made_room` in all
    because the store was too large.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.lost = 0
        self.made_room = 0
        self.checkpoint_blocked = ""
        self._database = database
        self._clock = clock

    async def purge(self, older_than: timedelta) -> int:
        """Delete readings that every destination has acknowledged and that are older; returns how many."""
        before = to_epoch(self._clock.now() - older_than)
        removed, position = 0, 0
        while position is not None:
            chunk = await self._database.write(
                lambda c, position=position: retention.purge_old(c, position, before)
            )
            removed += chunk.removed
            position = chunk.position
        while await self._database.write(lambda c: retention.purge_gaps(c, before)):
            pass
        return removed

    async def make_room(self, most_octets: int) -> int:
        """Delete the oldest until the store takes no more than that; returns how many readings and events went.

        What every destination has goes first, then unsent statistics, then unsent billing data: an event tells of
        what was lost.
        """
        removed = 0
        for kind in retention.Removal:
            lost, meters = 0, set[int]()
            spans: list[int] = []
            position: int | None = 0
            while position is not None and await self._database.read(retention.used_octets) > most_octets:
                now = self._clock.now()
                chunk = await self._database.write(
                    lambda c, position=position, kind=kind, now=now: retention.purge_for_room(
                        c, position, kind, now
                    )
                )
                self.made_room += chunk.removed
                removed, position = removed + chunk.removed, chunk.position
                lost, meters = lost + chunk.lost, meters | chunk.lost_meters
                spans += [at for at in (chunk.lost_first, chunk.lost_last) if at is not None]
            if lost:
                await self._tell_loss(kind, lost, len(meters), min(spans), max(spans))
        return removed

    async def _tell_loss(
        self, kind: retention.Removal, lost: int, meters: int, first: int, last: int
    ) -> None:
        self.lost += lost
        detail = (
            f"{lost} rows of {kind.value}, {meters} meters, from {from_epoch(first):%Y-%m-%dT%H:%M:%SZ} to "
            f"{from_epoch(last):%Y-%m-%dT%H:%M:%SZ}: removed before every destination had them, as the store is full"
        )
        log.error("unsent readings removed", detail=detail)
        now = self._clock.now()
        await self._database.write(lambda c: retention.note_loss(c, detail, now))

    async def give_back_space(self) -> None:
        """Cut free pages off the file, where they are many: some are kept for what comes next."""
        free, pages = await self._database.read(retention.free_pages)
        while free * _LARGEST_FREE_SHARE > pages:
            await self._database.give_back_pages(_PAGES_AT_ONCE)
            before = free
            free, pages = await self._database.read(retention.free_pages)
            if free >= before:
                return

    async def checkpoint_if_idle(self, idle_s: float) -> None:
        """Fold the WAL into the file when nothing was written for so long, or when it is too long."""
        octets = self._database.wal_octets()
        too_long = octets > _LONG_WAL_OCTETS
        if octets == 0 or not (too_long or monotonic() - self._database.wrote_at >= idle_s):
            self.checkpoint_blocked = "" if not too_long else self.checkpoint_blocked
            return
        blocked, octets = await self._database.checkpoint()
        reason = ""
        if blocked and octets > _LONG_WAL_OCTETS:
            reason = (
                f"store {self._database.path}: a reader holds on to the WAL, which has {octets // 2**20} MiB; "
                "end the program that reads the file"
            )
        if reason and not self.checkpoint_blocked:
            log.error("checkpoint blocked", reason=reason)
        self.checkpoint_blocked = reason
