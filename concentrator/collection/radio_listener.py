"""Wireless M-Bus meters: heard, decoded, registered and stored like any other meter.

Nobody asks these meters; they speak every few seconds to hours. Each is registered when first heard, with
a state that tells the engineer what is missing: a key, the right key, or nothing.

Message counters (against replays) and formats (for compact frames) survive a restart. They are kept on
flash seldom: after a power cut, what was heard in the last minutes could be replayed once.
"""

from __future__ import annotations

import asyncio
import json
from binascii import crc32
from collections.abc import Collection
from datetime import datetime
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.telegram_answer import telegram_answer
from concentrator.model import Answer, MeterRecord, MeterState
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.fragments import FragmentMemory
from concentrator.wmbus.modules.face import TelegramHeard
from concentrator.wmbus.reception import Reception
from concentrator.wmbus.security import KeyRing, MessageCounters, SecurityState
from concentrator.wmbus.telegram import Telegram, decode_telegram

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Telegrams that wait to be stored; the air brings more than this only when the store stands still.
_LONGEST_QUEUE = 1000
# A neighbourhood has hundreds of meters; noise that looks like meters must not fill the memory.
_MOST_METERS = 5000

# How often counters and formats are written, when they changed.
KEEP_INTERVAL_S = 900.0
_COUNTERS_SETTING, _FORMATS_SETTING = "wmbus_message_counters", "wmbus_formats"
_RECEPTION_SETTING = "wmbus_reception"

_STATES = {
    SecurityState.KEY_MISSING: MeterState.KEY_MISSING,
    SecurityState.KEY_WRONG: MeterState.KEY_WRONG,
    SecurityState.NOT_SUPPORTED: MeterState.REFUSED,
    SecurityState.REPLAY: None,
}


class RadioListener:
    """Takes telegrams from the radio link; `run()` stores what they brought. A `registry_orders.RecordHolder`."""

    link = "wmbus"

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keys: dict[str, bytes],
        store_interval_s: int,
        meters: Collection[str] = (),
    ) -> None:
        """`meters` are those to collect, with those that have a key; none: all that are heard."""
        self.records: dict[str, MeterRecord] = {}
        self.counters = {
            "telegrams": 0,
            "malformed": 0,
            "replays": 0,
            "unprotected": 0,
            "dropped": 0,
            "stored": 0,
            "fragments": 0,
            "duplicates": 0,
        }
        # By meter; the one named "" is all that the module heard.
        self.reception: dict[str, Reception] = {"": Reception()}
        self._store = store
        self._clock = clock
        self._keys = KeyRing(keys)
        self._meters = tuple(meters)
        self._set_up = frozenset(name.upper() for name in (*meters, *keys)) if meters else None
        self._formats = FormatMemory()
        self._fragments = FragmentMemory()
        self._message_counters = MessageCounters()
        self._kept: dict[str, str] = {}
        self._kept_at = clock.monotonic()
        self._store_interval_s = store_interval_s
        self._stored_at: dict[str, float] = {}
        self._saved: dict[str, tuple[MeterState, str]] = {}
        self._queue: asyncio.Queue[tuple[MeterRecord, Answer | None]] = asyncio.Queue(_LONGEST_QUEUE)

    def find(self, identity: str) -> MeterRecord | None:
        """The record of a meter, or None."""
        return self.records.get(identity)

    def adopt(self, record: MeterRecord) -> None:
        """Take in a meter that somebody entered: it counts as set up."""
        self.records[record.identity] = record

    def use_keys(self, keys: dict[str, bytes]) -> None:
        """Have these keys from now on, instead of those of before; a meter that has one counts as set up."""
        self._keys = KeyRing(keys)
        if self._meters:
            self._set_up = frozenset(name.upper() for name in (*self._meters, *keys))

    async def load(self) -> None:
        """Take the known wireless meters, message counters and formats from the store."""
        await self._load_memory()
        for record in await self._store.load_meters():
            if record.link == "wmbus":
                self.records[record.identity] = record
                self._saved[record.identity] = (record.state, record.reason)

    async def _load_memory(self) -> None:
        for name, restore in (
            (_COUNTERS_SETTING, self._restore_counters),
            (_FORMATS_SETTING, self._restore_formats),
            (_RECEPTION_SETTING, self._restore_reception),
        ):
            text = await self._store.setting(name)
            if text is None:
                continue
            try:
                restore(json.loads(text))
                self._kept[name] = text
            except (ValueError, TypeError, AttributeError) as error:
                log.warning("kept setting not understood", name=name, reason=str(error))

    def _restore_counters(self, kept: dict[str, int]) -> None:
        self._message_counters = MessageCounters({str(meter): int(count) for meter, count in kept.items()})

    def _restore_formats(self, kept: list[str]) -> None:
        self._formats = FormatMemory(bytes.fromhex(headers) for headers in kept)

    def _restore_reception(self, kept: dict[str, dict[str, Any]]) -> None:
        self.reception |= {str(meter): Reception.from_json(values) for meter, values in kept.items()}

    async def keep_memory(self) -> None:
        """Write message counters and formats, as far as they changed since."""
        self._kept_at = self._clock.monotonic()
        for name, content in (
            (_COUNTERS_SETTING, self._message_counters.highest),
            (_FORMATS_SETTING, sorted(headers.hex() for headers in self._formats)),
            (
                _RECEPTION_SETTING,
                {meter: one.to_json() for meter, one in self.reception.items() if one.received},
            ),
        ):
            text = json.dumps(content, sort_keys=True)
            if content and text != self._kept.get(name):
                await self._store.keep_setting(name, text)
                self._kept[name] = text

    def hear(self, heard: TelegramHeard) -> None:
        """Take one telegram: decode it now, store it soon."""
        self.counters["telegrams"] += 1
        try:
            telegram = decode_telegram(
                heard.octets,
                keys=self._keys,
                formats=self._formats,
                counters=self._message_counters,
                fragments=self._fragments,
                frame_format=heard.frame_format,
            )
        except TelegramError as error:
            self.counters["malformed"] += 1
            log.debug("telegram malformed", reason=str(error), octets=heard.octets.hex())
            return
        if telegram.meter is None:
            return
        if telegram.security.state is SecurityState.INCOMPLETE:
            self.counters["fragments"] += 1
            return
        fresh = self._note_reception(telegram, heard.rssi_dbm)
        if telegram.security.state is SecurityState.REPLAY:
            self.counters["replays"] += 1
            if fresh:
                log.warning("telegram replayed", meter=str(telegram.meter), counter=telegram.security.counter)
            return
        if not fresh:
            self.counters["duplicates"] += 1
            return
        self._register(telegram, heard.rssi_dbm)

    def _note_reception(self, telegram: Telegram, rssi_dbm: int | None) -> bool:
        """Enter it in the statistics; False for a copy that a repeater sent."""
        heard_at = self._clock.now().timestamp()
        meter = str(telegram.meter)
        if meter not in self.reception and len(self.reception) > _MOST_METERS:
            return True
        reception = self.reception.setdefault(meter, Reception())
        # A repeater changes the communication control octet of the extended link layer, no other.
        octets = telegram.frame.payload
        control = octets[:1] + octets[2:] if telegram.ell is not None else octets
        fresh = reception.note(heard_at, rssi_dbm, telegram.access_number, crc32(control))
        self.reception[""].note(heard_at, rssi_dbm, None, self.counters["telegrams"])
        return fresh

    def _register(self, telegram: Telegram, rssi_dbm: int | None) -> None:
        identity = str(telegram.meter)
        record = self.records.get(identity)
        now = self._clock.now()
        if record is None:
            if len(self.records) >= _MOST_METERS or telegram.meter is None:
                self.counters["dropped"] += 1
                return
            record = MeterRecord(
                identity,
                medium=telegram.medium,
                link="wmbus",
                link_address=identity,
                serial=telegram.meter.identification,
                manufacturer=telegram.meter.manufacturer,
                model=f"version {telegram.meter.version}",
                first_seen=now,
            )
            self.records[identity] = record
            log.info("meter heard", meter=identity, medium=record.medium.value)
        record.last_contact = now
        record.signal = float(rssi_dbm) if rssi_dbm is not None else record.signal
        if record.left_alone:
            return
        record.state = _STATES.get(telegram.security.state) or MeterState.ACTIVE
        record.reason = telegram.security.reason if record.state is not MeterState.ACTIVE else telegram.fault
        if self._is_unprotected(telegram):
            # Whoever has a transmitter could send this: a meter whose key we know protects what it says.
            record.state, record.reason = (
                MeterState.KEY_WRONG,
                "sent in the clear, but this meter has a key: a forgery, or remove the key",
            )
            self.counters["unprotected"] += 1
            self._enqueue(record, None)
            return
        if not self._is_set_up(telegram):
            record.state, record.reason = MeterState.DISCOVERED, "heard, and not set up"
            self._enqueue(record, None)
            return
        self._enqueue(record, self._answer(telegram, now, identity))

    def _is_set_up(self, telegram: Telegram) -> bool:
        if self._set_up is None or telegram.meter is None:
            return True
        meter = telegram.meter
        entered = self.records.get(str(meter))
        if entered is not None and entered.registration.manual:
            return True
        return not self._set_up.isdisjoint(
            (meter.identification, f"{meter.manufacturer}-{meter.identification}")
        )

    def _is_unprotected(self, telegram: Telegram) -> bool:
        """Whether a meter that has a key of its own speaks without any protection, and says something."""
        return (
            telegram.meter is not None
            and telegram.security.state is SecurityState.PLAIN
            and bool(telegram.payload)
            and self._keys.key_for(telegram.meter) is not None
        )

    def _answer(self, telegram: Telegram, now: datetime, identity: str) -> Answer | None:
        """What is to be stored of a telegram: nothing when it is too soon, or the time is not known."""
        monotonic = self._clock.monotonic()
        last = self._stored_at.get(identity)
        if not telegram.security.readable or not is_plausible(now):
            return None
        if last is not None and monotonic - last < self._store_interval_s:
            return None
        answer = telegram_answer(telegram, now, meter=identity)
        if not answer.readings:
            return None
        self._stored_at[identity] = monotonic
        return answer

    def _enqueue(self, record: MeterRecord, answer: Answer | None) -> None:
        changed = self._saved.get(record.identity) != (record.state, record.reason)
        if answer is None and not changed:
            return
        self._saved[record.identity] = (record.state, record.reason)
        try:
            self._queue.put_nowait((record, answer))
        except asyncio.QueueFull:
            self.counters["dropped"] += 1

    @property
    def queued(self) -> int:
        """How many records wait to be stored."""
        return self._queue.qsize()

    async def run(self) -> None:
        """Store what was heard, until cancelled."""
        try:
            while True:
                await self._store_next()
        finally:
            await self._keep_memory_if_possible()

    async def _store_next(self) -> None:
        wait_s = max(0.0, self._kept_at + KEEP_INTERVAL_S - self._clock.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                record, answer = await self._queue.get()
        except TimeoutError:
            await self._keep_memory_if_possible()
            return
        try:
            await self._store.save_meter(record)
            if answer is not None:
                stored = await self._store.store_answer(answer)
                self.counters["stored"] += stored.new
        except StoreError as error:
            self.counters["dropped"] += 1
            self._stored_at.pop(record.identity, None)
            log.warning("telegram not stored", meter=record.identity, reason=str(error))

    async def _keep_memory_if_possible(self) -> None:
        try:
            await self.keep_memory()
        except StoreError as error:
            log.warning("message counters and formats not kept", reason=str(error))
