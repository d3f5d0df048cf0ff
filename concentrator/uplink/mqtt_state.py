"""What a concentrator publishes of itself: status, health, the list of meters, updates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from concentrator.clock import Clock
from concentrator.uplink.messages import SCHEMA, Encoding, Topics, timestamp
from concentrator.uplink.mqtt_connection import Connection, message_properties

_HEALTH_INTERVAL_S = 60.0
_METERS_INTERVAL_S = 5.0
# When each meter was heard changes all the time: that alone sends a page no more often than this.
_CONTACTS_INTERVAL_S = 900.0
# A page with so many meters has at most about 48 KiB: under the smallest packet limit seen on brokers (64 KiB).
METERS_PER_PAGE = 200
_LARGEST_METER_OCTETS = 240
_PAGE_HEAD_OCTETS = 512
_PASSING = ("last_seen", "lqi", "rssi_dbm")


@dataclass(frozen=True, slots=True)
class BoxReport:
    """What the rest of the service tells of itself: figures for health, and the list of its meters."""

    health: Callable[[], Awaitable[dict[str, Any]]]
    meters: Callable[[], Sequence[dict[str, Any]]]


class StatePublisher:
    """Publishes on one connection after the other; knows what it has published on this one."""

    def __init__(
        self, topics: Topics, encoding: Encoding, clock: Clock, boot_id: str, report: BoxReport
    ) -> None:
        self._topics = topics
        self._encoding = encoding
        self._clock = clock
        self._boot_id = boot_id
        self._report = report
        self._software = version("open-data-concentrator")
        # Of each page: what lasts, and the whole, as they were published.
        self._pages: dict[int, tuple[list[list[Any]], list[dict[str, Any]]]] = {}
        self._most_per_page = METERS_PER_PAGE
        self._contacts_at = 0.0
        self._next_list_at = 0.0
        self._update: dict[str, Any] | None = None
        self._connection: Connection | None = None

    def status(self, state: str) -> bytes:
        """The retained status, also used as the will."""
        return self._encoding.encode(
            {
                "schema": SCHEMA,
                "state": state,
                "boot_id": self._boot_id,
                "sw": self._software,
                "ts": timestamp(self._clock.now()),
            }
        )

    async def run(self, connection: Connection, refused: Callable[[str, int], None]) -> None:
        """Publish now and whenever there is news, until cancelled; `refused` is told topic and reason code."""
        self._connection, self._refused = connection, refused
        self._pages = {}
        self._contacts_at = self._next_list_at = self._clock.monotonic()
        self._properties = message_properties(self._encoding.content_type, SCHEMA)
        try:
            self._publish(self._topics.status, self.status("online"), retain=True)
            if self._update is not None:
                self.tell_update(self._update)
            next_health = self._clock.monotonic()
            while True:
                self._publish_meters(connection)
                if self._clock.monotonic() >= next_health:
                    next_health += _HEALTH_INTERVAL_S
                    await self._publish_health()
                await asyncio.sleep(_METERS_INTERVAL_S)
        finally:
            self._connection = None

    def make_pages_smaller(self) -> None:
        """The broker ended the connection over something that was no reading: a page of the list."""
        self._most_per_page = max(1, self._most_per_page // 2)

    def tell_update(self, update: dict[str, Any]) -> None:
        """How far an update of the concentrator is: job, target, state, progress, error."""
        self._update = update
        if self._connection is not None:
            body = {"schema": SCHEMA, **update, "ts": timestamp(self._clock.now())}
            self._publish(self._topics.update, self._encoding.encode(body))

    async def _publish_health(self) -> None:
        body = {"schema": SCHEMA, "ts": timestamp(self._clock.now()), **await self._report.health()}
        self._publish(self._topics.health, self._encoding.encode(body))

    def _publish_meters(self, connection: Connection) -> None:
        """Those pages of the list that have changed since they were published on this connection."""
        now = self._clock.monotonic()
        if now < self._next_list_at:
            return
        meters = sorted(self._report.meters(), key=lambda one: one["id"])
        room = (connection.limits.packet_octets - _PAGE_HEAD_OCTETS) // _LARGEST_METER_OCTETS
        size = max(1, min(self._most_per_page, room))
        pages = [meters[start : start + size] for start in range(0, len(meters), size)] or [[]]
        # A long list is looked at less often: a network that forms changes all of its pages each time.
        self._next_list_at = now + _METERS_INTERVAL_S * len(pages)
        contacts_are_due = now >= self._contacts_at + _CONTACTS_INTERVAL_S
        if contacts_are_due:
            self._contacts_at = now
        for number, page in enumerate(pages):
            lasting = [
                [value for name, value in one.items() if name not in _PASSING]
                for one in (*page, {"": len(pages)})
            ]
            known = self._pages.get(number)
            if known is not None and known[0] == lasting and (known[1] == page or not contacts_are_due):
                continue
            self._pages[number] = (lasting, page)
            body = {
                "schema": SCHEMA,
                "ts": timestamp(self._clock.now()),
                "total": len(meters),
                "page": number,
                "pages": len(pages),
                "meters": page,
            }
            self._publish(self._topics.meters_page(number), self._encoding.encode(body), retain=True)
        for number in [one for one in self._pages if one >= len(pages)]:
            del self._pages[number]
            self._publish(self._topics.meters_page(number), b"", retain=True)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish what may get lost, since the next one says the same."""
        connection, refused = self._connection, self._refused
        if connection is None:
            return

        def acknowledged(code: int) -> None:
            if code >= 0x80:  # noqa: PLR2004 - MQTT 5, 2.4: failures
                refused(topic, code)

        connection.publish(topic, payload, acknowledged, retain=retain, properties=self._properties)
