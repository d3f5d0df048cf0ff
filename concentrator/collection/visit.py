"""One visit to one meter: a dialogue from association to release."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import structlog

from concentrator.clock import Clock
from concentrator.collection import gaps, meter_reader
from concentrator.collection.alarms import AlarmDesk
from concentrator.collection.conversation import converse
from concentrator.collection.errors import CollectionError
from concentrator.collection.event_codes import event_codes
from concentrator.collection.keyring import Keyring, MeterKeys
from concentrator.collection.meter_events import EventReader, companion_of
from concentrator.collection.meter_orders import check_order
from concentrator.collection.meter_reader import LocalTime, ProfileShape
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, PendingOrder, Registry
from concentrator.config import CollectionSection
from concentrator.dlms.client import Client, ClientSettings, Conversation
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AssociationRejectedError, DlmsError
from concentrator.dlms.security import SecurityKeys
from concentrator.errors import ConcentratorError, LocalError, TransientError
from concentrator.links.plc_link import MeterChannel, PlcLink
from concentrator.model import MeterState
from concentrator.obis import Obis
from concentrator.store.counters import InvocationCounter
from concentrator.store.readings import from_epoch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

_PUBLIC_CLIENT_SAP = 16
_DAY_S = 86_400
# An interval on the edge of the history is not given up because its meter's turn came a little later.
_EDGE = timedelta(hours=1)
_RELEASE_TIMEOUT_S = 5.0
# Tag, lengths, security header, counter, authentication tag and a system title. The PDU size that was agreed bounds
# an APDU with all that; some meters do not count it, and the modem drops what is too long without a word.
_CIPHERING_MARGIN_OCTETS = 40
_LONGEST_SPAN_DAYS = 16
_NO_DATA = "the meter has no data for it"
_EVENTS_LATER_S = 30.0


class KeysMissingError(CollectionError, LocalError):
    """A meter is to be read ciphered, and the key file has nothing for it."""


class _Host(Protocol):
    """What a visit needs of the collector."""

    registry: Registry
    received_counters: ReceivedCounters
    on_progress: Callable[[], None]

    event_reader: EventReader
    alarms: AlarmDesk

    @property
    def orders_waiting(self) -> bool: ...

    @property
    def others_waiting(self) -> bool: ...


class Visit:
    """A dialogue with `meter`, which becomes another entry when the meter turns out to be a known one.

    With `orders_only` nothing is read but what orders ask for.
    """

    def __init__(  # noqa: PLR0913 - handed down from the collector
        self,
        host: _Host,
        link: PlcLink,
        meter: CollectedMeter,
        settings: CollectionSection,
        store: Store,
        clock: Clock,
        keyring: Keyring,
        *,
        orders_only: bool = False,
    ) -> None:
        self.meter = meter
        self._orders_only = orders_only
        self._host = host
        self._link = link
        self._settings = settings
        self._store = store
        self._clock = clock
        self._keyring = keyring
        self._local_time: LocalTime | None = None

    async def hold(self) -> None:
        """Hold the dialogue; `meter` is the entry that it was held with.

        Raises:
            TransientError: the meter or the link went away.
            DlmsError: the meter refused or made no sense.
            KeysMissingError: there are no keys for it.
            StoreError: what it said could not be kept.
        """
        keys: MeterKeys | None = None
        if self._settings.authentication != "none":
            if not self.meter.identified:
                await self._introduce()
            keys = self._keys()
        with self._open_channel(self._settings.client_sap) as channel:
            client = self._client(keys, self._counter(keys))
            try:
                await self._converse(client.associate(), channel)
            except ConcentratorError:
                self._tell_replays(client)
                raise
            try:
                await self._after_association(client, channel)
            finally:
                await self._release(client, channel)
                self._tell_replays(client)
                self._host.alarms.take_notifications(self.meter, client.notifications)

    async def _after_association(self, client: Client, channel: MeterChannel) -> None:
        self._heard()
        if not self.meter.identified or not self.meter.record.firmware:
            await self._identify(client, channel)
        await self._carry_out_orders(client, channel)
        if self._orders_only:
            return
        profile = Obis.parse(self._settings.profile)
        clock, shape = await self._converse(meter_reader.read_clock_and_shape(client, profile), channel)
        self._heard()
        self.meter.shape = shape
        await self._compare_clock(clock, client, channel)
        await self._fill_gaps(client, channel, shape)
        await self._read_events(client, channel)

    # Opening

    def _open_channel(self, client_sap: int) -> MeterChannel:
        if self.meter.address is None:
            raise MeterGoneError(f"meter {self.meter.identity} left the network")
        return self._link.open_channel(self.meter.address, client_sap, self._settings.server_sap)

    async def _introduce(self) -> None:
        """Ask an unknown meter who it is by the public client, which needs no key.

        A meter without a public client is looked up by what its node told when it joined.
        """
        self.meter.activity = "introducing itself"
        client = Client(
            ClientSettings(
                _PUBLIC_CLIENT_SAP,
                self._settings.server_sap,
                max_pdu_size=self._link.network.capabilities.largest_apdu,
            )
        )
        with self._open_channel(_PUBLIC_CLIENT_SAP) as channel:
            try:
                await self._converse(client.associate(), channel)
                name, serial = await self._converse(meter_reader.read_public_identity(client), channel)
                self.meter.record.logical_device_name = name
                self.meter.record.serial = serial or self.meter.record.serial
                self.meter.told_counter = await self._converse(
                    meter_reader.read_invocation_counter(client), channel
                )
            except (AssociationRejectedError, DlmsError) as error:
                if isinstance(error, TransientError):
                    raise
                log.info("no public client", meter=self.meter.identity, reason=str(error))
                return
            await self._release(client, channel)

    def _keys(self) -> MeterKeys:
        record = self.meter.record
        names = (
            record.identity,
            record.serial,
            self.meter.joined_as,
            record.link_address,
            record.logical_device_name,
        )
        keys = self._keyring.meter_keys(*names)
        if keys is None:
            raise KeysMissingError(
                f"no keys for meter {record.identity} (EUI {record.link_address}): add them to the key file"
            )
        return keys

    def _counter(self, keys: MeterKeys | None) -> InvocationCounter | None:
        if keys is None:
            return None
        meter = self.meter
        if meter.counter is None:
            name = f"{meter.record.link_address}/{self._settings.client_sap}"
            meter.counter = self._store.invocation_counter(name)
        if meter.told_counter is not None:
            meter.counter.raise_to(meter.told_counter + 1)
            meter.told_counter = None
        return meter.counter

    def _client(self, keys: MeterKeys | None, counter: InvocationCounter | None) -> Client:
        settings = self._settings
        largest = self._link.network.capabilities.largest_apdu
        if keys is None:
            return Client(ClientSettings(settings.client_sap, settings.server_sap, max_pdu_size=largest))
        client = Client(
            ClientSettings(
                settings.client_sap,
                settings.server_sap,
                mechanism=AuthenticationMechanism.HLS_GMAC,
                keys=SecurityKeys(keys.encryption_key, keys.authentication_key),
                system_title=bytes.fromhex(settings.system_title),
                max_pdu_size=largest - _CIPHERING_MARGIN_OCTETS,
            ),
            counter,
        )
        if client.security is not None:
            client.security.received_counters = self._host.received_counters.of(
                self.meter.record.link_address, keys
            )
        return client

    def _tell_replays(self, client: Client) -> None:
        replays = client.security.replays if client.security is not None else 0
        if replays:
            self.meter.replays += replays
            log.warning(
                "invocation counters of a meter did not rise: APDUs refused as replays",
                meter=self.meter.identity,
                refused=replays,
                in_all=self.meter.replays,
            )

    async def _release(self, client: Client, channel: MeterChannel) -> None:
        # The meter closes an idle association by itself: a release that gets lost does no harm.
        with contextlib.suppress(TransientError, DlmsError):
            await converse(client.release(), channel, _RELEASE_TIMEOUT_S)

    async def _converse(self, conversation: Conversation[Result], channel: MeterChannel) -> Result:
        return await converse(conversation, channel, self._settings.answer_timeout_s)

    def _heard(self) -> None:
        self.meter.record.last_contact = self._clock.now()
        self._host.on_progress()

    # Reading

    async def _identify(self, client: Client, channel: MeterChannel) -> None:
        self.meter.activity = "identifying"
        if self.meter.record.state is not MeterState.ACTIVE:
            self.meter.record.state = MeterState.IDENTIFYING
        who = await self._converse(meter_reader.read_identity(client), channel)
        name = who.serial or who.logical_device_name or self.meter.joined_as or self.meter.identity
        busy, self.meter.busy = self.meter.busy, False
        self.meter = self._host.registry.identify(self.meter, name)
        self.meter.busy = busy
        record = self.meter.record
        record.serial, record.firmware = who.serial, who.firmware
        record.logical_device_name, record.manufacturer = who.logical_device_name, who.manufacturer
        await self._store.save_meter(record)
        log.info("meter identified", meter=record.identity, eui=record.link_address, firmware=record.firmware)

    async def _compare_clock(
        self, clock: CosemDateTime | None, client: Client, channel: MeterChannel
    ) -> None:
        if clock is None:
            return
        zone: int | None = None
        if clock.utc_offset is None:
            zone = await self._converse(meter_reader.read_time_zone(client), channel)
        self._local_time = LocalTime.of(clock, zone)
        self.meter.record.clock_offset_s = meter_reader.clock_offset_s(
            clock, self._clock.now(), self._local_time
        )

    async def _fill_gaps(self, client: Client, channel: MeterChannel, shape: ProfileShape) -> None:
        meter, now = self.meter, self._clock.now()
        first = now - timedelta(days=self._settings.history_days) - _EDGE
        last = now - timedelta(seconds=self._settings.answer_delay_s)
        expected = gaps.expected_times(round(first.timestamp()), int(last.timestamp()), shape.period_s)
        stored = await self._store.stored_times(meter.identity, shape.obis, first, last)
        closed = await self._store.closed_gaps(meter.identity, shape.obis)
        missing = gaps.missing_times(expected, stored, closed)
        meter.expected = len(expected)
        meter.stored = len(stored.intersection(expected))
        meter.closed = meter.expected - meter.stored - len(missing)
        per_day = max(1, _DAY_S // shape.period_s)
        longest = per_day
        while missing:
            begin, end = gaps.spans(missing, shape.period_s, longest)[0]
            meter.activity = f"reading {from_epoch(begin):%Y-%m-%d}"
            came = await self._read_span(client, channel, shape, begin, end)
            missing = [at for at in missing if at < begin]
            # Before a meter was installed there is nothing, and nothing costs little: ask for more at once.
            longest = per_day if came else min(longest * 2, _LONGEST_SPAN_DAYS * per_day)
            await self._carry_out_orders(client, channel)
            if self._host.orders_waiting:
                # Somebody waits for another meter: give the place up, and come back for the rest.
                meter.next_visit = self._clock.monotonic() + 0.01
                return

    async def _read_span(
        self, client: Client, channel: MeterChannel, shape: ProfileShape, begin: int, end: int
    ) -> int:
        """Read and store one span; returns how many of the intervals asked for came."""
        meter = self.meter
        conversation = meter_reader.read_range(
            client, shape, from_epoch(begin), from_epoch(end), self._local_time
        )
        rows = await self._converse(conversation, channel)
        self._heard()
        answer = meter_reader.to_answer(meter.identity, shape, rows, self._clock.now())
        if answer.readings:
            await self._store.store_answer(answer)
        asked = range(begin, end + 1, shape.period_s)
        came = {round(reading.captured_at.timestamp()) for reading in answer.readings}.intersection(asked)
        meter.stored += len(came)
        # The newest may not be captured yet, where the meter's clock is behind ours.
        settled = int(self._clock.now().timestamp()) - 2 * shape.period_s
        lacking = [at for at in asked if at not in came and at <= settled]
        for first, last in gaps.spans(lacking, shape.period_s, len(asked)):
            await self._store.close_gap(
                meter.identity, shape.obis, from_epoch(first), from_epoch(last), _NO_DATA
            )
        meter.closed += len(lacking)
        return len(came)

    async def _read_events(self, client: Client, channel: MeterChannel) -> None:
        """Read the event logs where they are due; not while other meters wait for their day's readings."""
        meter, reader = self.meter, self._host.event_reader
        if not reader.is_due(meter.identity):
            return
        if self._host.others_waiting:
            meter.next_visit = self._clock.monotonic() + _EVENTS_LATER_S
            return
        meter.activity = "reading event logs"
        codes = event_codes(companion_of(meter.record.details, self._settings.companion))

        async def carry(conversation: Conversation[Result]) -> Result:
            result = await self._converse(conversation, channel)
            self._heard()
            return result

        await reader.read(meter.identity, client, carry, self._local_time, codes)

    # Orders

    async def _carry_out_orders(self, client: Client, channel: MeterChannel) -> None:
        while self.meter.orders:
            pending = self.meter.orders.popleft()
            if pending.result.done():
                continue
            self.meter.activity = f"order {pending.order.operation}"
            try:
                result = await self._carry_out(pending, client, channel)
            except ConcentratorError as error:
                pending.result.set_exception(error)
                if isinstance(error, TransientError):
                    raise
            else:
                if not pending.result.done():
                    pending.result.set_result(result)

    async def _carry_out(
        self, pending: PendingOrder, client: Client, channel: MeterChannel
    ) -> dict[str, Any]:
        order = pending.order
        operation = check_order(order)
        result = await self._converse(operation.converse(client, order), channel)
        self._heard()
        if operation.changes_meter:
            log.info(
                "meter changed by order", meter=self.meter.identity, op=order.operation, order=order.order_id
            )
        return {"meter": self.meter.identity, "at": self._clock.now().isoformat(), **result}


class MeterGoneError(CollectionError, TransientError):
    """The meter's node left the network before its turn."""
