"""One visit to one meter: a dialogue from association to release."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import structlog

from concentrator.clock import Clock
from concentrator.collection import meter_reader
from concentrator.collection.alarms import AlarmDesk
from concentrator.collection.association import NO_AUTHENTICATION, client_settings, key_candidates
from concentrator.collection.clock_keeper import ClockKeeper
from concentrator.collection.control.desk import ControlDesk, Dialogue, counter_name
from concentrator.collection.control.errors import AssociateAgainError
from concentrator.collection.control.operations import ControlOperation
from concentrator.collection.control.rules import SYNC_CLOCK
from concentrator.collection.conversation import converse
from concentrator.collection.dialogue_book import DialogueBook, RecordedChannel
from concentrator.collection.errors import CollectionError, KeysMissingError
from concentrator.collection.event_codes import event_codes
from concentrator.collection.firmware.desk import FirmwareDesk
from concentrator.collection.firmware.transfer import MeterTransfer
from concentrator.collection.foreign import OwnMeters
from concentrator.collection.in_flight import InFlight
from concentrator.collection.keyring import Keyring, MeterKeys, Standing
from concentrator.collection.meter_events import EventReader, companion_of
from concentrator.collection.meter_models import ModelLibrary
from concentrator.collection.meter_orders import check_order
from concentrator.collection.meter_reader import LocalTime, ProfileShape
from concentrator.collection.meter_tasks import MeterTask, TaskKind
from concentrator.collection.object_reader import DEFAULT_OBJECTS, read_objects, to_answer
from concentrator.collection.profile_visit import ProfileOrder, ProfileVisit
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, PendingOrder, Registry
from concentrator.collection.scheduler import Scheduler
from concentrator.collection.sub_meters import Host as SubMeterHost
from concentrator.collection.sub_meters import SubMeters
from concentrator.collection.task_book import OwedRun, TaskBook
from concentrator.config import CollectionSection
from concentrator.dlms.client import Client, ClientSettings, Conversation
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, CosemDateTime
from concentrator.dlms.errors import AssociationRejectedError, DlmsError
from concentrator.errors import ConcentratorError, ConnectionLostError, TransientError
from concentrator.links.plc_link import MeterChannel, PlcLink
from concentrator.model import Answer, MeterState
from concentrator.obis import Obis
from concentrator.orders import OrderError
from concentrator.store.collection_tables import TaskRunRow
from concentrator.store.counters import InvocationCounter
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

_PUBLIC_CLIENT_SAP = 16
_BILLING_PROFILE = Obis(0, 0, 98, 1, 0, 255)
_RELEASE_TIMEOUT_S = 5.0
_LEAST_PATIENCE_SHARE = 0.5
# Of the longest time of a visit: then firmware goes on in another.
_FIRMWARE_SHARE = 0.5


class _Host(Protocol):
    """What a visit needs of the collector."""

    registry: Registry
    models: ModelLibrary
    own_meters: OwnMeters
    sub_meters: SubMeters
    received_counters: ReceivedCounters
    control: ControlDesk
    on_progress: Callable[[], None]
    tasks: TaskBook
    in_flight: InFlight
    clocks: ClockKeeper

    event_reader: EventReader
    alarms: AlarmDesk

    scheduler: Scheduler
    dialogues: DialogueBook
    firmware: FirmwareDesk

    def intern(self, shape: ProfileShape) -> ProfileShape: ...


class Visit:
    """A dialogue with `meter`, which becomes another entry when the meter turns out to be a known one.

    With `orders_only` nothing is read but what orders ask for; with `for_firmware` the meter's part in a firmware
    campaign goes on, and nothing is read. `is_complete` tells afterwards whether the meter owes nothing more, `runs`
    how it came out of the runs of its tasks.
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
        for_firmware: bool = False,
    ) -> None:
        self.meter = meter
        self.store = store
        self.local_time: LocalTime | None = None
        self.is_complete = True
        self.runs: list[TaskRunRow] = []
        # What is being read, for whoever has to say what a failure interrupted.
        self.under_way: list[OwedRun] = []
        self.record = host.dialogues.begin()
        self._orders_only = orders_only
        self._for_firmware = for_firmware
        self._host = host
        self._link = link
        self._settings = settings
        self._clock = clock
        self._keyring = keyring
        self._began = clock.monotonic()
        self._client_now: Client | None = None
        self._keys_in_use: MeterKeys | None = None
        self._channel: MeterChannel | None = None
        self._first_exchange: tuple[float, float] | None = None

    async def hold(self) -> None:
        """Hold the dialogue; `meter` is the entry that it was held with.

        Raises:
            TransientError: the meter or the link went away.
            DlmsError: the meter refused or made no sense.
            KeysMissingError: there are no keys for it.
            StoreError: what it said could not be kept.
        """
        if not (self._orders_only or self._for_firmware):
            self.under_way = self._owed()
        if self._settings.authentication != NO_AUTHENTICATION and not self.meter.identified:
            await self._introduce()
        candidates = self._candidates()
        settings = self._settings_for(candidates[0])
        with self._open_channel(settings.client_sap, settings.server_sap) as channel:
            self._channel = channel
            while True:
                client = self._client_now = await self._associate(candidates)
                try:
                    await self._after_association(client)
                    return
                except AssociateAgainError:
                    log.info("associating anew with other keys", meter=self.meter.identity)
                    candidates = self._candidates()
                finally:
                    await self._release(client, channel)
                    self._tell_replays(client)
                    self._host.alarms.take_notifications(self.meter, client.notifications)

    def _candidates(self) -> list[MeterKeys | None]:
        record = self.meter.record
        return key_candidates(
            self._host.models.match(record), self._settings, self._keyring, record, self.meter.joined_as
        )

    async def _associate(self, candidates: list[MeterKeys | None]) -> Client:
        """Associate with the keys that the meter takes: after a change these may be the new ones or the old ones."""
        settled = candidates[0] is None or candidates[0].standing is Standing.CURRENT
        for number, keys in enumerate(candidates, 1):
            client = self._client(self._settings_for(keys), keys)
            try:
                await self.converse(client.associate())
            except ConcentratorError as error:
                self._tell_replays(client)
                silent = isinstance(error, TransientError)
                lost = isinstance(error, ConnectionLostError)
                # A meter may be silent where it cannot decipher; one whose keys are settled is just away.
                if number < len(candidates) and not lost and not (silent and settled):
                    continue
                self._host.control.keys_refused(self.meter.identity, error)
                raise
            self._keys_in_use = keys
            return client
        raise KeysMissingError(f"no keys for meter {self.meter.identity}: add them to the key file")

    def _dialogue(self, client: Client) -> Dialogue:
        """The open association, as the control desk takes it."""

        async def carry(conversation: Conversation[Result], /) -> Result:
            result = await self.converse(conversation)
            self._heard()
            return result

        return Dialogue(
            self.meter.identity, self._counter_name(client.settings), client, self._keys_in_use, carry
        )

    async def _after_association(self, client: Client) -> None:
        self._heard()
        if not self.meter.identified or not self.meter.record.firmware:
            await self._identify(client)
        await self._host.control.associated(self._dialogue(client))
        await self._carry_out_orders(client)
        if self._orders_only:
            return
        if self._for_firmware:
            await self._go_on_with_firmware()
            return
        await self._carry_out_tasks(client, self._owed())
        if self.is_complete:
            await self._collect_sub_meters(client)
            await self._read_events(client)

    async def _go_on_with_firmware(self) -> None:
        record, firmware = self.meter.record, self._host.firmware
        before = record.firmware
        found = firmware.of_meter(self.meter.identity)
        if found is None:
            return
        try:
            await MeterTransfer(firmware, *found, self).hold()
        finally:
            if record.firmware != before:
                record.model = self._host.models.match(record).name
                self._host.event_reader.hurry(self.meter.identity)

    async def _collect_sub_meters(self, client: Client) -> None:
        record = self.meter.record
        self.meter.activity = "reading its M-Bus channels"
        model = self._host.models.named(record.model)
        await self._host.sub_meters.collect(
            SubMeterHost(record, model, client, self.local_time, self.converse)
        )
        self._heard()

    # Tasks

    def _owed(self) -> list[OwedRun]:
        return self._host.tasks.owed(self.meter.record, self.now())

    async def _carry_out_tasks(self, client: Client, owed: list[OwedRun]) -> None:
        profiles = list(dict.fromkeys(obis for run in owed for obis in self._profiles(run.task)))
        self._first_exchange = None
        clock, shapes = await self.converse(meter_reader.read_clock_and_shapes(client, profiles))
        self._heard()
        await self._compare_clock(clock, client)
        by_profile = dict(zip(profiles, shapes, strict=True))
        captured = [shape.period_s for shape in shapes if isinstance(shape, ProfileShape) and shape.period_s]
        await self._host.clocks.correct(self, min(captured, default=0))
        for number, run in enumerate(owed):
            self.under_way = owed[number : number + 1]
            try:
                complete = await self._carry_out_task(run, by_profile, client)
            except TransientError:
                raise
            except DlmsError as error:
                self.runs.append(self._host.tasks.refused(run, self.meter, str(error), self.now()))
                log.warning("task refused", meter=self.meter.identity, task=run.task.name, reason=str(error))
                continue
            if not complete:
                self.is_complete = False
                return
            self.runs.append(self._host.tasks.succeeded(run, self.meter, self.now()))
        self.under_way = []

    def _profiles(self, task: MeterTask) -> tuple[Obis, ...]:
        if task.what is TaskKind.EVENTS:
            return task.objects
        if task.what not in (TaskKind.PROFILE, TaskKind.BILLING):
            return ()
        if task.what is TaskKind.BILLING:
            return task.objects or self._of_model("billing") or (_BILLING_PROFILE,)
        configured = (Obis.parse(self._settings.profile),)
        if self._settings.profile != CollectionSection().profile:
            # Somebody has said which, for all meters.
            return task.objects or configured
        return task.objects or self._of_model("load_profile") or configured

    def _of_model(self, role: str) -> tuple[Obis, ...]:
        """What the meter's model has for a role, if it says."""
        found = self._host.models.objects_of(self.meter.record.model, role)
        return tuple(dict.fromkeys(entry.obis for entry in found))

    async def _carry_out_task(
        self, run: OwedRun, shapes: Mapping[Obis, ProfileShape | DlmsError], client: Client
    ) -> bool:
        """Returns False when the meter has to be visited again for the rest."""
        task = run.task
        profiles = self._profiles(task)
        if task.what is TaskKind.EVENTS and not task.objects:
            # All logs that the meter's companion places, with a book of their own.
            self._host.event_reader.hurry(self.meter.identity)
            await self._read_events(client)
            return not self._host.event_reader.is_due(self.meter.identity)
        for obis in profiles:
            shape = shapes[obis]
            if isinstance(shape, DlmsError):
                raise shape
            order = ProfileOrder(
                timedelta(days=self._settings.history_days),
                timedelta(seconds=self._settings.answer_delay_s),
                task.send,
                task.store,
            )
            if not await ProfileVisit(self, self._host.intern(shape), order).hold():
                return False
        if not profiles:
            await self._read_objects(task, client)
        return True

    async def _read_objects(self, task: MeterTask, client: Client) -> None:
        self.meter.activity = f"reading {task.what.value}"
        objects = task.objects or self._of_model(task.what.value) or DEFAULT_OBJECTS[task.what]
        deviation = None if self.local_time is None else self.local_time.normal_deviation
        readings = await self.converse(
            read_objects(client, objects, self.meter.objects, self.now().replace(microsecond=0), deviation)
        )
        self._heard()
        if not readings:
            raise DlmsError(f"the meter has none of {', '.join(map(str, objects))}")
        await self.keep(to_answer(self.meter.identity, readings, self.now(), send=task.send, keep=task.store))

    # What whoever reads something is given

    @property
    def client(self) -> Client:
        """The association."""
        if self._client_now is None:
            raise MeterGoneError(f"meter {self.meter.identity}: no association is open")
        return self._client_now

    def now(self) -> datetime:
        """The time, in UTC."""
        return self._clock.now()

    async def converse(self, conversation: Conversation[Result]) -> Result:
        """Carry a conversation with the meter to its end.

        Raises:
            TransientError: the meter or the link went away.
            DlmsError: the meter refused or made no sense.
        """
        if self._channel is None:
            raise MeterGoneError(f"meter {self.meter.identity}: no association is open")
        return await self._converse(conversation, self._channel)

    @property
    def selective_access(self) -> bool:
        """Whether the meter can be asked for a part of a profile."""
        return self._host.models.named(self.meter.record.model).quirks.selective_access

    async def keep(self, answer: Answer) -> None:
        """Put an answer on flash. Raises StoreError."""
        await self.store.store_answer(answer)

    async def give_way(self) -> bool:
        """Carry out orders for this meter; True: others need the place, and what is left has to wait."""
        self._heard()
        await self._carry_out_orders(self.client)
        return self.meter.wanted > 0 or self._host.scheduler.others_wait(
            self._clock.monotonic() - self._began
        )

    async def step_aside(self) -> bool:
        """For what has the lowest priority: as `give_way`, and all fresh data go first."""
        self._heard()
        await self._carry_out_orders(self.client)
        scheduler = self._host.scheduler
        lasted_s = self._clock.monotonic() - self._began
        return (
            self.meter.wanted > 0
            or (scheduler.orders_waiting and scheduler.order_place_taken)
            or scheduler.routine_waits
            or lasted_s > _FIRMWARE_SHARE * self._settings.dialogue_timeout_s
        )

    # Opening

    def _open_channel(self, client_sap: int, server_sap: int) -> MeterChannel:
        if self.meter.address is None:
            raise MeterGoneError(f"meter {self.meter.identity} left the network")
        return self._link.open_channel(self.meter.address, client_sap, server_sap, urgent=self._orders_only)

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
        with self._open_channel(_PUBLIC_CLIENT_SAP, self._settings.server_sap) as channel:
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
        self._host.own_meters.check(self.meter.record)

    def _counter(self, settings: ClientSettings, keys: MeterKeys | None) -> InvocationCounter | None:
        if keys is None:
            return None
        meter = self.meter
        name = counter_name(self._counter_name(settings), keys)
        counter = meter.counters.get(name)
        if counter is None:
            counter = meter.counters[name] = self.store.invocation_counter(name)
        if meter.told_counter is not None:
            counter.raise_to(meter.told_counter + 1)
            meter.told_counter = None
        return counter

    def _counter_name(self, settings: ClientSettings) -> str:
        return f"{self.meter.record.link_address}/{settings.client_sap}"

    def _settings_for(self, keys: MeterKeys | None) -> ClientSettings:
        record = self.meter.record
        return client_settings(
            self._host.models.match(record),
            self._settings,
            self._keyring,
            record,
            self.meter.joined_as,
            self._link.network.capabilities.largest_apdu,
            keys,
        )

    def _client(self, settings: ClientSettings, keys: MeterKeys | None) -> Client:
        client = Client(settings, self._counter(settings, keys), on_plain=self.record.opened)
        if client.security is not None and keys is not None and keys.standing is not Standing.RECOVERY:
            client.security.received_counters = self._host.received_counters.of(
                self.meter.record.link_address, keys, forget_others=keys.standing is Standing.CURRENT
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
            await converse(client.release(), self._recorded(channel), _RELEASE_TIMEOUT_S)

    def _recorded(self, channel: MeterChannel) -> RecordedChannel:
        meter = self.meter
        return RecordedChannel(
            channel,
            self.record,
            self._host.dialogues,
            meter.identity,
            channel.client_sap,
            meter.activity,
        )

    async def _converse(self, conversation: Conversation[Result], channel: MeterChannel) -> Result:
        timeout_s = self._settings.answer_timeout_s
        flight = self._host.in_flight
        # Never less than a slow network needs: an answer given up comes all the same, and takes its air time.
        patience_s = flight.patience_s(_LEAST_PATIENCE_SHARE * timeout_s, timeout_s)
        try:
            return await converse(conversation, self._recorded(channel), patience_s, self._note_exchange)
        except TransientError:
            if not self.meter.failures:
                flight.lost(self._clock.monotonic())
            raise

    def _note_exchange(self, asked_at: float, answered_at: float) -> None:
        if self._first_exchange is None:
            self._first_exchange = asked_at, answered_at
        self._host.in_flight.answered(answered_at - asked_at, answered_at)

    def _heard(self) -> None:
        self.meter.record.last_contact = self._clock.now()
        self._host.on_progress()

    # Reading

    async def _identify(self, client: Client) -> None:
        self.meter.activity = "identifying"
        if self.meter.record.state is not MeterState.ACTIVE:
            self.meter.record.state = MeterState.IDENTIFYING
        who = await self.converse(meter_reader.read_identity(client))
        name = who.serial or who.logical_device_name or self.meter.joined_as or self.meter.identity
        busy, self.meter.busy = self.meter.busy, False
        before = self.meter.identity
        self.meter = self._host.registry.identify(self.meter, name)
        self._host.tasks.renamed(before, self.meter.identity)
        self.meter.busy = busy
        record = self.meter.record
        record.serial, record.firmware = who.serial, who.firmware
        record.logical_device_name, record.manufacturer = who.logical_device_name, who.manufacturer
        record.model = self._host.models.match(record).name
        await self.store.save_meter(record)
        self._host.own_meters.check(record)
        log.info("meter identified", meter=record.identity, eui=record.link_address, firmware=record.firmware)

    async def _compare_clock(self, clock: CosemDateTime | None, client: Client) -> None:
        if clock is None:
            return
        asked_at, answered_at = self._first_exchange or (0.0, 0.0)
        # The meter looked at its clock between question and answer.
        seen_at = self.now() - timedelta(seconds=self._clock.monotonic() - (asked_at + answered_at) / 2)
        model = self._host.models.named(self.meter.record.model)
        if not model.quirks.clock_deviation:
            clock = clock._replace(deviation=DEVIATION_NOT_SPECIFIED)
        zone: int | None = None
        if clock.utc_offset is None:
            zone = model.normal_deviation
        if clock.utc_offset is None and zone is None:
            zone = await self.converse(meter_reader.read_time_zone(client))
        self.local_time = LocalTime.of(clock, zone)
        self.meter.record.clock_offset_s = meter_reader.clock_offset_s(clock, seen_at, self.local_time)

    async def _read_events(self, client: Client) -> None:
        """Read the event logs where they are due; not while other meters wait for their day's readings."""
        meter, reader = self.meter, self._host.event_reader
        if not reader.is_due(meter.identity):
            return
        if self._host.scheduler.others_waiting:
            return
        meter.activity = "reading event logs"
        codes = event_codes(companion_of(meter.record.details, self._settings.companion))

        async def carry(conversation: Conversation[Result]) -> Result:
            result = await self.converse(conversation)
            self._heard()
            return result

        await reader.read(meter.identity, client, carry, self.local_time, codes)

    # Orders

    async def _carry_out_orders(self, client: Client) -> None:
        while self.meter.orders:
            pending = self.meter.orders.popleft()
            if pending.result.done():
                continue
            self.meter.activity = f"order {pending.order.operation}"
            self._set_urgent(True)
            try:
                result = await self._carry_out(pending, client)
            except ConcentratorError as error:
                if not pending.result.done():
                    pending.result.set_exception(error)
                if isinstance(error, TransientError):
                    raise
            except AssociateAgainError:
                raise
            except Exception as error:
                if not pending.result.done():
                    text = f"internal error: {type(error).__name__}; the log has the details"
                    pending.result.set_exception(OrderError(f"order {pending.order.order_id}: {text}"))
                raise
            else:
                if not pending.result.done():
                    pending.result.set_result(result)
            finally:
                self._set_urgent(self._orders_only)

    def _set_urgent(self, urgent: bool) -> None:  # noqa: FBT001 - a state of the channel
        if self._channel is not None:
            self._channel.urgent = urgent

    async def _carry_out(self, pending: PendingOrder, client: Client) -> dict[str, Any]:
        order = pending.order
        if order.operation == SYNC_CLOCK:
            result = await self._host.clocks.sync(self, order)
            return {"meter": self.meter.identity, "at": self._clock.now().isoformat(), **result}
        operation = check_order(order, rules=self._host.control.rules)
        if isinstance(operation, ControlOperation):
            result = await self._host.control.carry_out(pending, operation, self._dialogue(client))
        else:
            result = await self.converse(operation.converse(client, order))
        self._heard()
        return {"meter": self.meter.identity, "at": self._clock.now().isoformat(), **result}


class MeterGoneError(CollectionError, TransientError):
    """The meter's node left the network before its turn."""
