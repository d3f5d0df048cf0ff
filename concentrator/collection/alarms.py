"""Alarms that meters send by themselves: understood, stored at once, confirmed when they are stored.

A meter tells of an alarm by event-notification or data-notification, in plain or ciphered with its keys, in the midst
of a dialogue or out of the blue. What counts in it are alarm registers and descriptors (0-b:97.98.e, each bit one
alarm) and event codes (0-b:96.11.e); where they stand in a push differs from meter to meter, so that they are looked
for by their names and never by their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import structlog

from concentrator.clock import Clock
from concentrator.collection.control.desk import counter_name
from concentrator.collection.event_codes import EventCodes, event_codes
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_events import companion_of
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.config import CollectionSection
from concentrator.dlms import apdu as apdus
from concentrator.dlms.apdu import DataNotification, DataNotificationConfirm, EventNotification
from concentrator.dlms.apdu.protection import GeneralCiphered, GeneralCiphering, ServiceCiphered
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.data import Data, DataType
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, unwrap, wrap
from concentrator.dlms.errors import DecodeError, DlmsError
from concentrator.dlms.exchange import Notification
from concentrator.dlms.security import SecurityContext, SecurityKeys
from concentrator.errors import ConcentratorError
from concentrator.model import EventSeverity, MeterEvent, MeterState
from concentrator.obis import Obis
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from plc.network import ApduReceived

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

POWER_DOWN, POWER_UP = "power_down", "power_up"
_ALARM_OBJECT, _EVENT_CODE = (97, 98), (96, 11)
# Registers are 97.98.0 to .9; filters follow from .10 on, descriptors from .20 on.
_FILTERS, _DESCRIPTORS, _END = 10, 20, 30
# The place of the alarms that an S-FSK server tells with its Discover.report.
_REPORTED_ALARM = Obis(0, 0, 97, 98, 255)
_ALARM_BITS = 64
_OBIS_OCTETS = 6
_COLUMN_PARTS = 4
# Alarms that wait for the store; a feeder that loses its power sends one a meter.
_LONGEST_QUEUE = 4096
_RETRY_S = 5.0
# After an alarm the meter's own logs tell more.
_VISIT_AFTER_S = 5.0
_CHECK_AFTER_S = 30.0

Send = Callable[[int, int, int, bytes], Awaitable[None]]


def pushed_values(body: Data) -> Iterator[tuple[Obis, int]]:
    """The integers of a push by the names that they stand under: names and values in turn, or a list of names first."""
    items = _items(body)
    columns = [_column(item) for item in _items(items[0])] if items else []
    if columns and all(column is not None for column in columns):
        # The push object list comes first; where the list names itself, that is the place it stands at.
        named = columns[1:] if len(columns) == len(items) else columns
        for column, value in zip(named, items[1:], strict=False):
            number = _integer(value)
            if column is not None and number is not None:
                yield column, number
        return
    for name, value in pairwise(items):
        obis, number = _obis(name), _integer(value)
        if obis is not None and number is not None:
            yield obis, number
    for item in items:
        yield from pushed_values(item)


def _items(data: Data) -> list[Data]:
    if data.type not in (DataType.STRUCTURE, DataType.ARRAY) or not isinstance(data.value, tuple):
        return []
    return [item for item in data.value if isinstance(item, Data)]


def _obis(data: Data) -> Obis | None:
    value = data.value
    if data.type is DataType.OCTET_STRING and isinstance(value, bytes) and len(value) == _OBIS_OCTETS:
        return Obis(*value)
    return None


def _column(data: Data) -> Obis | None:
    """The name in an element of a push object list: class, logical name, attribute, data index, and maybe more."""
    items = _items(data)
    if len(items) < _COLUMN_PARTS or not isinstance(items[0].value, int):
        return None
    return _obis(items[1])


def _integer(data: Data) -> int | None:
    value = data.value
    if data.type is DataType.BIT_STRING and isinstance(value, str):
        return int(value[::-1] or "0", 2)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def alarm_events(
    notification: Notification, codes: EventCodes, received_at: datetime, default_deviation: int | None = None
) -> list[MeterEvent]:
    """The alarms in a notification; none where it is about something else."""
    if isinstance(notification, EventNotification):
        number = _integer(notification.value)
        values = [] if number is None else [(notification.attribute.obis, number)]
        stamp = notification.date_time
    elif isinstance(notification, DataNotification):
        values = list(pushed_values(notification.body))
        stamp = notification.date_time
    else:
        return []
    at = _moment(stamp, default_deviation) or received_at
    events: list[MeterEvent] = []
    for obis, number in values:
        events += _events_of(obis, number, codes, at.replace(microsecond=0))
    return events


def _events_of(obis: Obis, number: int, codes: EventCodes, at: datetime) -> list[MeterEvent]:
    if obis.a == 0 and obis[2:4] == _EVENT_CODE:
        meaning = codes.event(number)
        log_name = Obis(0, obis.b, 99, 98, obis.e)
        return [MeterEvent(obis, at, number, 0, codes.group_of(log_name), *_parts(meaning))]
    if obis.a != 0 or obis[2:4] != _ALARM_OBJECT or _FILTERS <= obis.e < _DESCRIPTORS or obis.e >= _END:
        return []
    register = obis.e % _DESCRIPTORS
    return [
        MeterEvent(obis, at, bit, 0, "alarm", *_parts(codes.alarm(register, bit)))
        for bit in range(_ALARM_BITS)
        if number >> bit & 1
    ]


def _parts(meaning: tuple[EventSeverity, str, str]) -> tuple[EventSeverity, str, str]:
    severity, kind, words = meaning
    return severity, kind, words


def _moment(stamp: bytes | None, default_deviation: int | None) -> datetime | None:
    try:
        return CosemDateTime.from_bytes(stamp).to_utc(default_deviation) if stamp else None
    except DecodeError:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Alarms on their way to the store, and what confirms them when they are there."""

    meter: CollectedMeter
    events: list[MeterEvent]
    confirmation: tuple[int, int, int, bytes] | None = None


class AlarmDesk:
    """Takes what meters send unasked; `run()` stores it. `send` is set while there is a link to confirm over."""

    def __init__(  # noqa: PLR0913 - what it is made of, once, in the collector
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        keyring: Keyring,
        received_counters: ReceivedCounters,
        settings: CollectionSection,
        on_alarm: Callable[[CollectedMeter, MeterEvent], None] = lambda _meter, _event: None,
    ) -> None:
        self.send: Send | None = None
        self.counters = {"alarms": 0, "not_understood": 0, "refused": 0, "dropped": 0}
        self._store = store
        self._clock = clock
        self._registry = registry
        self._keyring = keyring
        self._received_counters = received_counters
        self._settings = settings
        self._on_alarm = on_alarm
        self._reported: dict[str, int] = {}
        self._unkept: list[_Waiting] = []
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(_LONGEST_QUEUE)

    # What comes in

    def take(self, received: ApduReceived) -> None:
        """Take an APDU that nobody asked for."""
        meter = next((one for one in self._registry if one.address == received.address), None)
        if meter is None:
            self.counters["not_understood"] += 1
            log.warning(
                "unsolicited apdu of an unknown node", node=received.address, octets=len(received.apdu)
            )
            return
        try:
            notification, security = self._open(meter, received.apdu)
        except ConcentratorError as error:
            self.counters["refused"] += 1
            log.warning(
                "unsolicited apdu refused",
                meter=meter.identity,
                tag=received.apdu[:1].hex(),
                octets=len(received.apdu),
                reason=str(error),
            )
            return
        if notification is None:
            self.counters["not_understood"] += 1
            log.info(
                "unsolicited apdu",
                meter=meter.identity,
                octets=len(received.apdu),
                tag=received.apdu[:1].hex(),
            )
            return
        self._note(
            meter, notification, self._confirmation(received, notification, security), trusted=security
        )

    def take_notifications(self, meter: CollectedMeter, notifications: Iterable[Notification]) -> None:
        """Take what a meter sent in the midst of a dialogue, where its protection was checked and it was confirmed."""
        for notification in notifications:
            self._note(meter, notification, None, trusted=True)

    def take_report(self, meter: CollectedMeter, alarm: int) -> None:
        """Take the alarm descriptor of an S-FSK Discover.report, which comes until it is cleared."""
        if self._reported.get(meter.identity) == alarm:
            return
        self._reported[meter.identity] = alarm
        event = MeterEvent(
            _REPORTED_ALARM,
            self._clock.now().replace(microsecond=0),
            alarm,
            0,
            "alarm",
            EventSeverity.ALARM,
            "none",
            f"alarm descriptor {alarm} reported",
        )
        self._enqueue(_Waiting(meter, [event]))

    def _open(
        self, meter: CollectedMeter, octets: bytes
    ) -> tuple[Notification | None, SecurityContext | None]:
        """The notification within an APDU, and by which context it was deciphered.

        Raises:
            DlmsError: it is malformed, or its protection does not hold.
            AlarmKeysMissingError: it is ciphered, and there are no keys.
        """
        received = apdus.decode(octets)
        security = None
        if isinstance(received, (GeneralCiphered, GeneralCiphering, ServiceCiphered)):
            security = self._security(meter)
            received = apdus.decode(unwrap(security, received)[0])
        if isinstance(received, (DataNotification, EventNotification)):
            return received, security
        return None, security

    def _security(self, meter: CollectedMeter) -> SecurityContext:
        record = meter.record
        keys = self._keyring.meter_keys(
            record.identity, record.serial, meter.joined_as, record.link_address, record.logical_device_name
        )
        if keys is None:
            raise DecodeError(f"it is ciphered, and there are no keys for meter {record.identity}")
        name = counter_name(f"{record.link_address}/{self._settings.client_sap}", keys)
        counter = meter.counters.get(name)
        if counter is None:
            counter = meter.counters[name] = self._store.invocation_counter(name)
        security = SecurityContext(
            SecurityKeys(keys.encryption_key, keys.authentication_key),
            bytes.fromhex(self._settings.system_title),
            counter,
        )
        security.received_counters = self._received_counters.of(record.link_address, keys)
        return security

    def _confirmation(
        self, received: ApduReceived, notification: Notification, security: SecurityContext | None
    ) -> tuple[int, int, int, bytes] | None:
        if not isinstance(notification, DataNotification) or not notification.confirmed:
            return None
        apdu = DataNotificationConfirm(notification.long_invoke).to_bytes()
        try:
            if security is not None:
                apdu = wrap(security, apdu, Envelope(EnvelopeKind.GENERAL))
        except DlmsError as error:
            log.warning("alarm cannot be confirmed", node=received.address, reason=str(error))
            return None
        return received.address, received.destination_sap, received.source_sap, apdu

    def _note(
        self,
        meter: CollectedMeter,
        notification: Notification,
        confirmation: tuple[int, int, int, bytes] | None,
        *,
        trusted: object,
    ) -> None:
        codes = event_codes(companion_of(meter.record.details, self._settings.companion))
        events = alarm_events(notification, codes, self._clock.now())
        if not events:
            self.counters["not_understood"] += 1
            log.info("notification without an alarm", meter=meter.identity)
            return
        if not trusted and self._settings.authentication != "none":
            # Anybody on the line can have sent it.
            events = [replace(event, detail=f"{event.detail} (not protected)") for event in events]
        self._enqueue(_Waiting(meter, events, confirmation))

    def _enqueue(self, waiting: _Waiting) -> None:
        meter = waiting.meter
        for event in waiting.events:
            self.counters["alarms"] += 1
            log.warning("alarm", meter=meter.identity, kind=event.kind, detail=event.detail, code=event.code)
            if event.kind == POWER_DOWN:
                since = f"{event.happened_at:%Y-%m-%d %H:%M:%S} UTC"
                meter.without_power = f"without power since {since}: {event.detail}"
                meter.record.state, meter.record.reason = MeterState.UNREACHABLE, meter.without_power
                # Not every network tells when it is back.
                meter.rests_until = self._clock.monotonic() + _CHECK_AFTER_S
            self._on_alarm(meter, event)
        if all(event.kind != POWER_DOWN for event in waiting.events):
            meter.rests_until = min(meter.rests_until, self._clock.monotonic() + _VISIT_AFTER_S)
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            self.counters["dropped"] += 1
            log.error("alarm dropped: the store takes nothing", meter=meter.identity)

    # What goes out

    async def run(self) -> None:
        """Store alarms and confirm them, until cancelled; what waits then is stored first."""
        try:
            while True:
                await self._next()
        finally:
            await asyncio.shield(self._keep_what_waits())

    async def _next(self) -> None:
        try:
            async with asyncio.timeout(_RETRY_S if self._unkept else None):
                self._unkept.append(await self._queue.get())
        except TimeoutError:
            pass
        await self._keep_what_waits()

    async def _keep_what_waits(self) -> None:
        """Store in their order what can be stored: not while the store takes nothing, nor for whom nobody knows yet."""
        while not self._queue.empty():
            self._unkept.append(self._queue.get_nowait())
        del self._unkept[:-_LONGEST_QUEUE]
        place = 0
        while place < len(self._unkept):
            one = self._unkept[place]
            # A meter that was identified since may have become another entry.
            meter = self._registry.at_address(one.meter.record.link_address) or one.meter
            if not meter.identified:
                place += 1
            elif await self._keep(replace(one, meter=meter)):
                # Only now: whoever cancels this in between finds it still waiting.
                self._unkept.remove(one)
            else:
                return

    async def _keep(self, waiting: _Waiting) -> bool:
        meter = waiting.meter.identity
        by_log: dict[Obis, list[MeterEvent]] = {}
        for event in waiting.events:
            by_log.setdefault(event.log, []).append(event)
        try:
            await self._store.save_meter(waiting.meter.record)
            for name, events in by_log.items():
                await self._store.store_meter_events(meter, name, events)
        except StoreError as error:
            log.warning("alarm not stored yet", meter=meter, reason=str(error))
            return False
        if waiting.confirmation is not None and self.send is not None:
            try:
                await self.send(*waiting.confirmation)
            except ConcentratorError as error:
                # The meter sends it again: what is stored is recognised.
                log.info("alarm not confirmed", meter=meter, reason=str(error))
        return True
