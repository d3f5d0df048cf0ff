"""The checks that need more than one answer: made when what they need has come, some minutes after it was stored."""

from __future__ import annotations

import asyncio

import structlog

from concentrator.collection import sum_check
from concentrator.store import series
from concentrator.store.errors import StoreError
from concentrator.store.series import Requalification, StoredBatch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_S = 300.0
_SETTING = "sum_checked_batch"
_BATCHES_AT_ONCE = 500
# What was stored is held against registers of the days around it.
_AROUND_S = 2 * 86_400


class LateValidator:
    """Goes through new batches in their order; how far it came is kept."""

    def __init__(self, store: Store, interval_s: float = _INTERVAL_S) -> None:
        self._store = store
        self._interval_s = interval_s

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.check_new()
            except StoreError as error:
                log.warning("sum checks not made", reason=str(error))

    async def check_new(self) -> int:
        """Check what came since the last time; returns how many stored values got other flags.

        Raises:
            StoreError: the store cannot be read or written.
        """
        last = int(await self._store.setting(_SETTING) or 0)
        requalified = 0
        while batches := await self._store.read(
            lambda c, last=last: series.batches_after(c, last, _BATCHES_AT_ONCE)
        ):
            for meter, (first_at, last_at) in _spans(batches).items():
                requalified += await self._check(meter, first_at - _AROUND_S, last_at + _AROUND_S)
            last = batches[-1].sequence
            await self._store.keep_setting(_SETTING, str(last))
        return requalified

    async def _check(self, meter: str, first: int, last: int) -> int:
        channels = await self._store.read(lambda c: series.channels_of(c, meter))
        changes: dict[tuple[int, int], Requalification] = {}
        for one, other in sum_check.pairs(channels):
            values = await self._store.read(
                lambda c, number=one.channel_id: series.values_of(c, number, first, last)
            )
            against = await self._store.read(
                lambda c, number=other.channel_id: series.values_of(c, number, first, last)
            )
            for change in sum_check.check(one, values, other, against):
                changes[change.channel_id, change.at] = change
        if changes:
            await self._store.requalify(list(changes.values()))
            log.info("stored values judged anew", meter=meter, values=len(changes))
        return len(changes)


def _spans(batches: list[StoredBatch]) -> dict[str, tuple[int, int]]:
    """From when to when something came, by meter."""
    spans: dict[str, tuple[int, int]] = {}
    for batch in batches:
        first, last = spans.get(batch.meter, (batch.first_at, batch.last_at))
        spans[batch.meter] = min(first, batch.first_at), max(last, batch.last_at)
    return spans
