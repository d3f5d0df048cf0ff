"""The DLMS push uplink: batches as data-notifications over the TCP WRAPPER (IEC 62056-5-3, -4-7), plain or over TLS.

Readings go as they come, or by a schedule and within windows; events at once where that is wanted. Confirmed
notifications (service class 1) are answered by data-notification-confirm, which names the long invoke id: only then
is a batch acknowledged. For a head-end that never confirms, TCP's own acknowledgement of every octet has to do; that
says that its host has the data, not that it stored it. What could not be delivered stays in the store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import random
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import structlog

from concentrator.client_tls import client_context
from concentrator.clock import Clock
from concentrator.config import PushSection
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.errors import RemoteError
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.uplink.push_bodies import notification_bodies
from concentrator.uplink.push_calendar import PushCalendar
from concentrator.uplink.push_protection import PushProtection
from concentrator.uplink.uplink import CONNECTED, NOT_CONNECTED, SENT, Uplink, UplinkLostError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

WAITING = "waiting"
_CONNECT_TIMEOUT_S = 20.0
_READ_SIZE_OCTETS = 4096
_QUEUE_POLL_S = 0.05
_DRAINED_S = 1.0
_LONGEST_WAIT_S = 30.0
_LONGEST_RETRY_DELAY_S = 3600.0
# long-invoke-id-and-priority: bits 0..23 the id, bit 30 service class (1 = confirmed).
_INVOKE_ID_MODULUS = 2**24
_CONFIRMED = 0x4000_0000
_RANDOM = random.SystemRandom()


@dataclass(slots=True)
class _Waiting:
    """A batch of which some notifications are not yet confirmed; `since` is when the newest of them left."""

    sequence: int
    left: int
    since: float


@dataclass(slots=True)
class _Session:
    """What is sent over one connection: readings too, until `ends`; and whether it ends when all is sent."""

    readings: bool
    ends: datetime | None = None
    once: bool = False


class PushUplink(Uplink):
    """One head-end. `next_invoke` numbers notifications and, but for 2**24 of them, never repeats."""

    kind: ClassVar[str] = "push"

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        settings: PushSection,
        store: Store,
        clock: Clock,
        calendar: PushCalendar,
        protection: PushProtection,
        next_invoke: Callable[[], int],
    ) -> None:
        super().__init__(settings.name, settings.host, store)
        self.settings = settings
        self.calendar = calendar
        self.delivered = 0
        self.confirmed_at: datetime | None = None
        self._store = store
        self._clock = clock
        self._protection = protection
        self._next_invoke = next_invoke
        self._kinds = frozenset(settings.event_kinds.replace(",", " ").split())
        self._asked = asyncio.Event()
        self._slot: datetime | None = None
        self._attempts = 0
        self._not_before: datetime | None = None
        self._held: OutgoingBatch | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._all_confirmed = asyncio.Event()

    def push_now(self) -> None:
        """Send everything that waits, whatever the schedule says."""
        self._asked.set()

    # When

    async def _keep_connected(self) -> None:
        while True:
            session = await self._next_session()
            before = self.delivered
            try:
                await self._connect_and_send(session)
            except (RemoteError, OSError) as error:
                self._set_state(NOT_CONNECTED, str(error) or type(error).__name__)
                await self._after_failure(progress=self.delivered > before)
            else:
                self._attempts = 0
            self._held = None
            self.feed.start_again()

    async def _next_session(self) -> _Session:
        """Wait until something is to be sent."""
        calendar = self.calendar
        while True:
            now = self._clock.now()
            if self._asked.is_set():
                self._asked.clear()
                self._not_before = None
                return _Session(readings=True, once=True)
            if self._not_before is not None and now >= self._not_before:
                self._not_before, self._attempts = None, 0
            if self._not_before is None and calendar.fresh and calendar.is_open(now):
                ends = calendar.next_closing(now)
                if ends is not None and self._slot is None and await self._randomised():
                    continue
                self._slot = now
                return _Session(readings=True, ends=ends)
            if calendar.fresh:
                self._slot = None
            elif calendar.scheduled:
                if self._slot is None:
                    self._slot = calendar.next_slot(now) + self._chance()
                if now >= self._slot:
                    self._slot = calendar.next_slot(now) + self._chance()
                    return _Session(readings=True, ends=calendar.next_closing(now), once=True)
            until = self._next_moment(now)
            if calendar.events and self._not_before is None:
                if await self._event_comes(until):
                    return _Session(readings=False, ends=until)
            else:
                self._tell_waiting(until)
                await self._sleep_until(until)

    def _chance(self) -> timedelta:
        return timedelta(seconds=_RANDOM.random() * self.settings.randomisation_s)

    async def _randomised(self) -> bool:
        """Let a window begin later by chance; tells whether time has passed."""
        if not self.settings.randomisation_s:
            return False
        self._slot = self._clock.now()
        await self._sleep_until(self._slot + self._chance())
        return True

    def _next_moment(self, now: datetime) -> datetime | None:
        """When something other than an event may have to be sent; None where nothing will."""
        calendar = self.calendar
        moments = [self._not_before] if self._not_before is not None else []
        if calendar.fresh and not calendar.is_open(now):
            moments.append(calendar.next_opening(now))
        elif calendar.scheduled and not calendar.fresh and self._slot is not None:
            moments.append(self._slot)
        return max(moments, default=None)

    def _tell_waiting(self, until: datetime | None) -> None:
        words = f"next at {until:%Y-%m-%d %H:%M:%S}" if until is not None else "nothing is to be sent"
        if not self._attempts:
            self._set_state(WAITING, words)
        elif "; next at" not in self.reason:
            self._set_state(NOT_CONNECTED, f"{self._attempts} tries failed: {self.reason}; {words}")

    async def _sleep_until(self, until: datetime | None) -> None:
        """Sleep in pieces, since clocks are set; being asked to push ends it."""
        while not self._asked.is_set():
            left = _LONGEST_WAIT_S if until is None else (until - self._clock.now()).total_seconds()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(left, _LONGEST_WAIT_S)):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _event_comes(self, until: datetime | None) -> bool:
        """Wait for an event that is to be sent at once."""
        self._tell_waiting(until)
        while not self._asked.is_set():
            left = _LONGEST_WAIT_S if until is None else (until - self._clock.now()).total_seconds()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(min(left, _DRAINED_S)):
                    batch = await self.feed.next_batch()
            except TimeoutError:
                continue
            self._held = self._wanted(batch, readings=False)
            if self._held is not None:
                return True
        return False

    async def _after_failure(self, *, progress: bool) -> None:
        """Wait for the next try; after the last of them for the next schedule or window."""
        settings = self.settings
        self._attempts = 0 if progress else self._attempts + 1
        if not settings.retries:
            await asyncio.sleep(self._backoff.next_delay_s())
            return
        if self._attempts <= settings.retries:
            delay = min(settings.retry_delay_s * 2.0 ** (max(self._attempts, 1) - 1), _LONGEST_RETRY_DELAY_S)
            await self._sleep_until(self._clock.now() + timedelta(seconds=delay))
            # The slot is not over: what it is for has not been sent.
            self._slot = (
                self._clock.now() if self.calendar.scheduled and not self.calendar.fresh else self._slot
            )
            return
        now = self._clock.now()
        closes = self.calendar.next_closing(now)
        if self.calendar.scheduled and not self.calendar.fresh:
            self._not_before = self._slot = self.calendar.next_slot(now) + self._chance()
        elif closes is not None:
            self._not_before = self.calendar.next_opening(closes) + self._chance()
        else:
            self._not_before = now + timedelta(seconds=settings.pause_s)
        self._tell_waiting(self._not_before)

    # What

    def _wanted(self, batch: OutgoingBatch, *, readings: bool) -> OutgoingBatch | None:
        """What of a batch is to be sent now. What is never sent here is acknowledged unsent; the rest stays."""
        if not batch.events:
            if not self.calendar.takes_readings:
                self.feed.acknowledged(batch.sequence)
            return batch if readings and self.calendar.takes_readings else None
        events = tuple([event for event in batch.events if not self._kinds or event.kind in self._kinds])
        if not events:
            self.feed.acknowledged(batch.sequence)
            return None
        return dataclasses.replace(batch, events=events)

    async def _next_batch(self, session: _Session) -> OutgoingBatch | None:
        """The next batch of a session; None when it is over."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        while True:
            if session.ends is not None and self._clock.now() >= session.ends:
                return None
            try:
                async with asyncio.timeout(_DRAINED_S):
                    batch = await self.feed.next_batch()
            except TimeoutError:
                if (session.once or not session.readings) and not self._waiting:
                    return None
                if self._asked.is_set() and not session.readings:
                    return None
                continue
            wanted = self._wanted(batch, readings=session.readings)
            if wanted is not None:
                return wanted

    # How

    def _tls(self) -> ssl.SSLContext | None:
        settings = self.settings
        if not settings.tls:
            return None
        return client_context(settings.ca_file, settings.certificate_file, settings.private_key_file)

    async def _connect_and_drain(self) -> None:
        await self._connect_and_send(_Session(readings=True))

    async def _connect_and_send(self, session: _Session) -> None:
        settings = self.settings
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(settings.host, settings.port, ssl=self._tls())
        except TimeoutError:
            raise UplinkLostError("the head-end does not accept the connection") from None
        self._waiting = {}
        self._all_confirmed.set()
        window = asyncio.Semaphore(settings.in_flight)
        try:
            self._set_state(CONNECTED, "")
            await until_first_ends(
                self._receive(reader, window),
                self._send(writer, session, window),
                self._watch_confirmations(),
            )
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, session: _Session, window: asyncio.Semaphore) -> None:
        while (batch := await self._next_batch(session)) is not None:
            bodies = notification_bodies(batch)
            entry = _Waiting(batch.sequence, len(bodies), self._clock.monotonic())
            for body in bodies:
                await window.acquire()
                await self._notify(writer, body, entry, window)
            if not bodies:
                self.feed.acknowledged(batch.sequence)
        await self._all_confirmed.wait()

    async def _notify(
        self, writer: asyncio.StreamWriter, body: Data, entry: _Waiting, window: asyncio.Semaphore
    ) -> None:
        settings = self.settings
        invoke = self._next_invoke() % _INVOKE_ID_MODULUS
        entry.since = self._clock.monotonic()
        self._waiting[invoke] = entry
        self._all_confirmed.clear()
        date_time = CosemDateTime.from_datetime(self._clock.now(), deviation=0)
        long_invoke = invoke | (_CONFIRMED if settings.confirmed else 0)
        apdu = self._protection.protect(DataNotification(long_invoke, date_time.to_bytes(), body).to_bytes())
        frame = WrapperFrame(settings.source_wport, settings.destination_wport, apdu).to_bytes()
        self.tell_traffic(SENT, f"{len(frame)} octets", frame)
        writer.write(frame)
        await writer.drain()
        if not settings.confirmed:
            await self._until_delivered(writer)
            self._confirmed(invoke, window)

    async def _watch_confirmations(self) -> None:
        """A head-end that takes everything and confirms nothing is as good as gone."""
        limit = self.settings.timeout_s
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            oldest = min((entry.since for entry in self._waiting.values()), default=None)
            if oldest is not None and self._clock.monotonic() - oldest > limit:
                raise UplinkLostError(f"the head-end did not confirm within {limit} s")

    async def _until_delivered(self, writer: asyncio.StreamWriter) -> None:
        """Wait until the peer's TCP has acknowledged every octet."""
        peer: socket.socket = writer.get_extra_info("socket")
        while not writer.is_closing():
            # SIOCOUTQ (the same number as TIOCOUTQ): octets sent or to be sent that are not acknowledged.
            (octets,) = struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, b"\0" * 4))
            if octets == 0 and not writer.transport.get_write_buffer_size():
                return
            await asyncio.sleep(_QUEUE_POLL_S)
        raise UplinkLostError("the head-end closed the connection")

    async def _receive(self, reader: asyncio.StreamReader, window: asyncio.Semaphore) -> None:
        decoder = WrapperDecoder()
        while data := await reader.read(_READ_SIZE_OCTETS):
            decoder.receive_data(data)
            while (frame := decoder.next_event()) is not None:
                try:
                    confirm = self._protection.confirmation(frame.apdu)
                except DlmsError as error:
                    log.warning("push: unexpected answer", destination=self.settings.name, reason=str(error))
                    continue
                self._confirmed(confirm.long_invoke % _INVOKE_ID_MODULUS, window)
        raise UplinkLostError("the head-end closed the connection")

    def _confirmed(self, invoke_id: int, window: asyncio.Semaphore) -> None:
        entry = self._waiting.pop(invoke_id, None)
        if entry is None:
            return
        if not self._waiting:
            self._all_confirmed.set()
        window.release()
        self._backoff.succeeded()
        self.delivered += 1
        self.confirmed_at = self._clock.now()
        entry.left -= 1
        if entry.left == 0:
            self.feed.acknowledged(entry.sequence)
