"""What every uplink is: a feed of one destination, and a connection that is made anew whenever it is lost."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

import structlog

from concentrator.errors import RemoteError
from concentrator.links.backoff import Backoff
from concentrator.store.store import Store
from concentrator.tasks import cancel_and_wait, until_first_ends
from concentrator.traffic import Source, TrafficHub
from concentrator.uplink.feed import Feed

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

CONNECTED = "connected"
NOT_CONNECTED = "not connected"
# Directions of what passes, for those who watch the traffic.
SENT, RECEIVED = "to the head-end", "from the head-end"


class UplinkLostError(RemoteError):
    """The connection ended, or the peer acknowledges nothing; the text says why."""


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)


class Uplink(ABC):
    """One destination. `state` and `reason` are for the page; `run()` until cancelled."""

    kind: ClassVar[str]

    def __init__(self, name: str, host: str, store: Store) -> None:
        self.state = NOT_CONNECTED
        self.reason = ""
        self.feed = Feed(store, name)
        self.traffic: TrafficHub | None = None
        self._host = host
        self._backoff = Backoff()

    async def run(self) -> None:
        """Connect, drain, reconnect, until cancelled."""
        feed = asyncio.ensure_future(self.feed.run())
        try:
            await until_first_ends(_ended(feed), self._keep_connected())
        finally:
            # After the connection: what is acknowledged while it closes is kept too, and not sent again.
            await cancel_and_wait(feed)

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._connect_and_drain()
            except (RemoteError, OSError) as error:
                self._set_state(NOT_CONNECTED, str(error) or type(error).__name__)
            self.feed.start_again()
            await asyncio.sleep(self._backoff.next_delay_s())

    @abstractmethod
    async def _connect_and_drain(self) -> None:
        """Connect and send what the feed has, until the connection is lost (RemoteError, OSError)."""

    def tell_traffic(self, direction: str, note: str, octets: bytes = b"") -> None:
        """Tell those who watch, if any, what passed."""
        if self.traffic is not None and self.traffic.watched:
            words = f"{self.kind} {self.feed.destination}: {note}"
            self.traffic.publish(Source.UPSTREAM, direction, octets, note=words)

    def tell_message(self, direction: str, topic: str, octets: int) -> None:
        """Tell them of a message: its topic and its size."""
        if self.traffic is not None and self.traffic.watched:
            self.tell_traffic(direction, f"{topic}, {octets} octets")

    def _set_state(self, state: str, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            emit = log.info if state == CONNECTED else log.warning
            emit(f"{self.kind} {state}", destination=self.feed.destination, host=self._host, reason=reason)
        self.state, self.reason = state, reason
