"""The file uplink: what has come since the last file becomes a file, and is delivered.

A file is complete when it has `most_values`, or when its first batch has waited for `every_s`. Its batches count as
acknowledged when the place has it. After an interruption the same batches are delivered again, perhaps in other
company: their numbers tell.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import structlog

from concentrator.clock import Clock
from concentrator.config_sections import FilesSection
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.uplink.file_formats import FORMATS
from concentrator.uplink.file_places import FilePlace, make_place
from concentrator.uplink.messages import Topics
from concentrator.uplink.uplink import CONNECTED, SENT, Uplink

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class FileUplink(Uplink):
    """One place that gets files."""

    kind: ClassVar[str] = "files"

    def __init__(self, settings: FilesSection, topics: Topics, store: Store, clock: Clock) -> None:
        """Set it up; nothing is connected yet.

        Raises:
            ConfigError: a file with a password or a key cannot be used.
        """
        super().__init__(settings.name, urlsplit(settings.url).hostname or settings.url, store)
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self._format = FORMATS[settings.format]
        make_place(settings)

    async def _connect_and_drain(self) -> None:
        place = make_place(self._settings)
        try:
            await place.open()
            if not self.reason:
                self._set_state(CONNECTED, "")
            while True:
                batches = await self._next_batches()
                await self._deliver(place, batches)
                # After a failure only a file that was taken shows that all is well again.
                self._set_state(CONNECTED, "")
                for batch in batches:
                    self.feed.acknowledged(batch.sequence)
                self._backoff.succeeded()
        finally:
            await place.close()

    async def _next_batches(self) -> list[OutgoingBatch]:
        """What the next file is to hold: waits until it is due."""
        batches = [await self.feed.next_batch()]
        due = self._clock.monotonic() + self._settings.every_s
        values = _count(batches[0])
        while values < self._settings.most_values and (left := due - self._clock.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    batch = await self.feed.next_batch()
            except TimeoutError:
                break
            batches.append(batch)
            values += _count(batch)
        return batches

    async def _deliver(self, place: FilePlace, batches: Sequence[OutgoingBatch]) -> None:
        settings = self._settings
        numbers = [batch.sequence for batch in batches]
        for content in await asyncio.to_thread(self._format.write, self._topics, batches):
            name = (
                f"{self._topics.concentrator}_{content.what}_{min(numbers):012d}-{max(numbers):012d}."
                f"{self._format.suffix}"
            )
            data = content.data
            if settings.compress:
                # Without a time in its header, so that the same content is the same file.
                data = await asyncio.to_thread(gzip.compress, data, mtime=0)
                name += ".gz"
            await place.put(name, data, self._format.media_type)
            self.tell_traffic(SENT, f"{name}, {len(data)} octets")
            log.info("file delivered", destination=settings.name, name=name, octets=len(data))


def _count(batch: OutgoingBatch) -> int:
    return len(batch.readings) + len(batch.events)
