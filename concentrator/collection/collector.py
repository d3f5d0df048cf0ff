"""The collector: follows the network, and visits each meter when it owes something.

A few workers hold dialogues side by side, one per meter; how many of them work follows what the network bears. Who is
next: by the priority of the task, then whoever did not fail lately, then whoever is due longest; what is left of a long
backlog goes behind all that is fresh. Orders have a place of their own. A visit carries out all that the meter owes,
newest first. A meter that does not answer is tried again with growing pauses, so that the dead do not keep the living
waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection import foreign
from concentrator.collection.alarms import AlarmDesk
from concentrator.collection.clock_keeper import ClockKeeper
from concentrator.collection.clock_rule import ClockRule
from concentrator.collection.control.desk import ControlDesk
from concentrator.collection.control.errors import NotAuthorisedError
from concentrator.collection.control.rules import SYNC_CLOCK, OrderRules
from concentrator.collection.dialogue_book import DialogueBook
from concentrator.collection.errors import KeysMissingError, MeterAwayError, MeterUnreachableError
from concentrator.collection.firmware.desk import FirmwareDesk
from concentrator.collection.firmware.library import FirmwareLibrary
from concentrator.collection.firmware.orders import FIRMWARE_ORDERS, FirmwareOrders
from concentrator.collection.foreign import ForeignMeterError, OwnMeters
from concentrator.collection.in_flight import InFlight
from concentrator.collection.keyring import Keyring
from concentrator.collection.kpi import VisitLog
from concentrator.collection.meter_events import EventReader
from concentrator.collection.meter_models import ModelLibrary
from concentrator.collection.meter_orders import check_order
from concentrator.collection.meter_reader import ProfileShape
from concentrator.collection.meter_tasks import MeterTask, default_task, zone_of
from concentrator.collection.phases import PhaseFinder
from concentrator.collection.quiet_hours import QuietHours
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, PendingOrder, Registry
from concentrator.collection.scheduler import Scheduler
from concentrator.collection.sub_meters import SubMeters
from concentrator.collection.task_book import TaskBook
from concentrator.collection.task_orders import TASK_ORDERS, TaskOrders
from concentrator.collection.topology import Topology
from concentrator.collection.visit import Visit
from concentrator.config import CollectionSection, FirmwareSection, OrdersSection
from concentrator.dlms.errors import AssociationRejectedError, SecurityError
from concentrator.errors import ConcentratorError, TransientError
from concentrator.links.plc_link import PlcLink
from concentrator.model import IdentityError, MeterEvent, MeterRecord, MeterState, safe_identity
from concentrator.orders import Order
from concentrator.store.collection_tables import TaskRunRow
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.time_source import TimeWatch
from concentrator.traffic import TrafficHub
from plc.network import (
    ApduReceived,
    Event,
    LinkQualityReported,
    ModemLost,
    NetworkStarted,
    NodeDeclined,
    NodeJoined,
    NodeLeft,
    TopologyChanged,
)
from plc.prime.events import ZeroCrossRead
from plc.sfsk.events import AlarmReported

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_KEEP_COUNTERS_S = 600.0
_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 1800.0
# A meter that refuses us will not change its mind soon: somebody has to mend its keys.
_REFUSED_RETRY_S = 900.0
_UNREACHABLE_AFTER_FAILURES = 3
_STORE_RETRY_S = 5.0
_CLOCK_RETRY_S = 5.0
# Meters and declined nodes together; a street has hundreds, and nobody may fill the memory by asking to join.
_MOST_METERS = 5000
_COLLECT = "collect"
_ORDER_TIMEOUT_S = 300.0


class Collector:
    """Keeps the registry and the visits. `on_progress` is called whenever work was done (for the watchdog)."""

    def __init__(  # noqa: PLR0913 - what it is made of, once, in app.py
        self,
        settings: CollectionSection,
        store: Store,
        clock: Clock,
        keyring: Keyring,
        on_progress: Callable[[], None] = lambda: None,
        tasks: Sequence[MeterTask] = (),
        time_watch: TimeWatch | None = None,
        rules: OrderRules | None = None,
        traffic: TrafficHub | None = None,
        firmware: FirmwareSection | None = None,
    ) -> None:
        self.registry = Registry()
        self.dialogues = DialogueBook(clock, traffic or TrafficHub(clock))
        self.control = ControlDesk(
            store, clock, rules or OrderRules.from_settings(OrdersSection()), keyring.changed
        )
        self.own_meters = OwnMeters(settings)
        self.sub_meters = SubMeters(settings, store, clock)
        self.models = ModelLibrary.load(
            Path(settings.models_directory) if settings.models_directory else None
        )
        self.topology = Topology()
        self.received_counters = ReceivedCounters(store)
        self.tasks = TaskBook(tasks or [default_task(settings)], settings.answer_delay_s)
        self.in_flight = InFlight(settings.meters_in_flight)
        self.time_watch = time_watch or TimeWatch(clock)
        # What is due was worked out by the time before.
        self.time_watch.on_step.append(lambda _seconds: self.scheduler.plan_all())
        self.event_reader = EventReader(store, clock, settings.events_interval_s)
        quiet = QuietHours.parse(settings.quiet_hours, zone_of(settings))
        self.scheduler = Scheduler(self.registry, self.tasks, self.event_reader, self.in_flight, quiet, clock)
        library = FirmwareLibrary(firmware or FirmwareSection(), store.path.parent)
        self.firmware = FirmwareDesk(store, clock, self.registry, library, quiet, zone_of(settings))
        self.firmware_orders = FirmwareOrders(self.firmware, store, clock, self.control.rules)
        self.task_orders = TaskOrders(
            store,
            clock,
            self.registry,
            self.tasks,
            zone_of(settings),
            self.scheduler.plan_all,
            timedelta(days=settings.history_days),
        )
        self.clocks = ClockKeeper(
            store,
            ClockRule(settings.clock_leave_s, settings.clock_limit_s, settings.clock_step_s),
            self.time_watch,
            needs_ntp=settings.clock_needs_ntp,
        )
        self.visits = VisitLog()
        self.phases = PhaseFinder()
        self.alarms = AlarmDesk(
            store, clock, self.registry, keyring, self.received_counters, settings, self._alarm_came
        )
        self._settings = settings
        self._store = store
        self._clock = clock
        self._keyring = keyring
        self.on_progress = on_progress
        self._shapes: dict[ProfileShape, ProfileShape] = {}
        self._declined: asyncio.Queue[CollectedMeter] = asyncio.Queue()

    async def load(self) -> None:
        """Take the known meters from the store; they are not reachable until their nodes join."""
        for record in await self._store.load_meters():
            if record.link == "plc":
                if record.details.get(foreign.DETAIL) == foreign.BY_RULE and not self.own_meters.judge(
                    record
                ):
                    foreign.end(record)
                self.registry.add(CollectedMeter(record, identified=True))
        await self.sub_meters.load()
        for definition in await self._store.tasks():
            self.tasks.add(MeterTask.from_definition(definition, zone_of(self._settings), "order"))
        self.tasks.restore(await self._store.task_runs())
        await self.received_counters.load()
        await self.control.load()
        await self.firmware.load()

    async def run(self, link: PlcLink) -> None:
        """Visit meters through a link until cancelled."""
        self.alarms.send = link.send
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.alarms.run())
                for _ in range(self._settings.meters_in_flight):
                    group.create_task(self._work(link))
                # One place more, which routine never takes: whoever waits for a meter does not wait for others.
                group.create_task(self._work(link, for_orders=True))
                group.create_task(self._keep_counters())
                group.create_task(self._keep_declined())
                group.create_task(self.firmware.run())
        finally:
            await self._keep_counters_now()

    async def _keep_counters(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_COUNTERS_S)
            await self._keep_counters_now()

    async def _keep_counters_now(self) -> None:
        try:
            await self.received_counters.keep()
        except StoreError as error:
            log.warning("received invocation counters not kept", reason=str(error))

    # What the network tells

    def handle_event(self, event: Event) -> None:
        """Take one event of the network."""
        now = self._clock.now()
        if is_plausible(now):
            self.topology.feed(event, now.timestamp())
        match event:
            case NodeJoined():
                self._node_joined(event)
            case NodeLeft():
                meter = self.registry.at_address(event.eui.hex())
                if meter is not None:
                    self._gone(meter)
                    self._set_state(meter, MeterState.UNREACHABLE, f"left the network: {event.reason}")
            case ModemLost():
                for meter in self.registry:
                    self._gone(meter)
            case NetworkStarted():
                log.info("network started", modem=event.description, eui=event.identity.hex())
                self.scheduler.wake.set()
            case LinkQualityReported():
                known = self.registry.at_address(event.eui.hex())
                if known is not None:
                    self._place(known, event.eui)
            case TopologyChanged():
                log.info("topology changed", eui=event.eui.hex(), change=event.description)
            case NodeDeclined():
                log.warning("foreign device declined", eui=event.eui.hex())
                self._node_declined(event.eui)
            case ApduReceived():
                self.alarms.take(event)
            case ZeroCrossRead():
                self.phases.take(event, self.registry.at_address(event.eui.hex()))
            case AlarmReported():
                known = self.registry.at_address(event.eui.hex())
                if known is not None:
                    self.alarms.take_report(known, event.alarm)
            case _:
                pass

    def _alarm_came(self, meter: CollectedMeter, _event: MeterEvent) -> None:
        self.event_reader.hurry(meter.identity)
        self.scheduler.plan(meter)
        self.scheduler.wake.set()

    def _node_joined(self, event: NodeJoined) -> None:
        link_address = event.eui.hex()
        meter = self.registry.at_address(link_address)
        if meter is None:
            try:
                identity = safe_identity(event.identity)
            except IdentityError:
                identity = f"eui-{link_address}"
            record = MeterRecord(identity, link_address=link_address, first_seen=self._clock.now())
            meter = CollectedMeter(record)
            self.registry.add(meter)
            log.info("meter discovered", meter=identity, eui=link_address)
        meter.joined_as = event.identity
        if meter.record.details.get(foreign.DETAIL) == foreign.BY_WHITELIST:
            foreign.end(meter.record)
        self._place(meter, event.eui)
        if meter.address != event.address:
            meter.address = event.address
            meter.failures = 0
            meter.rests_until = 0.0
        self.scheduler.plan(meter)
        if meter.record.state is MeterState.UNREACHABLE:
            self._set_state(meter, MeterState.ACTIVE if meter.identified else MeterState.DISCOVERED, "")
        self.scheduler.wake.set()

    def _node_declined(self, eui: bytes) -> None:
        """List a node that the whitelist keeps out."""
        meter = self.registry.at_address(eui.hex())
        if meter is None and len(self.registry) < _MOST_METERS:
            record = MeterRecord(f"eui-{eui.hex()}", link_address=eui.hex(), first_seen=self._clock.now())
            meter = CollectedMeter(record)
            self.registry.add(meter)
        if meter is None or meter.record.left_alone:
            return
        meter.address = None
        foreign.mark(meter.record, foreign.BY_WHITELIST, "declined: not on the whitelist of the network")
        self._declined.put_nowait(meter)

    async def _keep_declined(self) -> None:
        while True:
            await self._save(await self._declined.get())

    def _gone(self, meter: CollectedMeter) -> None:
        meter.address = None
        self.scheduler.drop(meter)

    def _place(self, meter: CollectedMeter, eui: bytes) -> None:
        """Take over what is known of a node's place; it may have been told before the meter was known."""
        node = self.topology.node(eui)
        if node is None:
            return
        meter.parent = node.parent.hex() if node.parent is not None else ""
        meter.level, meter.hops, meter.role = node.level, node.hops, node.role
        if node.quality is not None:
            meter.record.signal = float(node.quality)

    # Orders

    async def carry_out(self, order: Order, network_operations: tuple[str, ...] = ()) -> dict[str, Any]:
        """Carry out one order on a meter: `collect`, or what `meter_orders` knows.

        `network_operations` are what somebody else here carries out: an unknown operation is answered with all.

        Raises:
            OrderError, UnknownMeterError: it makes no sense.
            MeterUnreachableError: the meter is not there, or did not answer.
            DlmsError: the meter refused.
        """
        if order.operation in TASK_ORDERS:
            return await self.task_orders.carry_out(order)
        if order.operation in FIRMWARE_ORDERS:
            result = await self.firmware_orders.carry_out(order)
            self.scheduler.wake.set()
            return result
        if order.operation != _COLLECT:
            try:
                if order.operation == SYNC_CLOCK:
                    self.control.rules.check(order)
                else:
                    check_order(
                        order,
                        (SYNC_CLOCK, *TASK_ORDERS, *FIRMWARE_ORDERS, *network_operations),
                        self.control.rules,
                    )
            except NotAuthorisedError as error:
                await self.control.refuse(order, error)
                raise
        meter = self.registry.known(order.target)
        if meter.record.left_alone:
            raise MeterUnreachableError(
                f"meter {meter.identity} is {meter.record.state.value} and left alone: {meter.record.reason}"
            )
        if order.operation == _COLLECT:
            meter.rests_until = 0.0
            meter.collect_now = True
            self.scheduler.plan(meter)
            self.scheduler.wake.set()
            return {"meter": meter.identity, "queued": True}
        if meter.address is None:
            raise MeterAwayError(f"meter {meter.identity} is not on the network: {meter.record.reason}")
        pending = PendingOrder(order, asyncio.get_running_loop().create_future())
        self.scheduler.add_order(meter, pending)
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_S):
                return await pending.result
        except TimeoutError:
            raise MeterUnreachableError(
                f"meter {meter.identity}: no turn within {_ORDER_TIMEOUT_S:g} s"
            ) from None

    # Visits

    async def _work(self, link: PlcLink, *, for_orders: bool = False) -> None:
        while True:
            if self._store.unavailable:
                # Nothing may be read that cannot be kept.
                await asyncio.sleep(_STORE_RETRY_S)
                await self._try_store()
                continue
            if not is_plausible(self._clock.now()):
                # Without the time there is no telling what is missing. NTP will set it.
                await asyncio.sleep(_CLOCK_RETRY_S)
                continue
            if not link.is_running:
                # Nodes are told while the modem still lists them: it takes no APDUs before it has started.
                await self.scheduler.wait_for_modem()
                continue
            meter = self.scheduler.next_with_order()
            for_firmware = False
            if meter is None and not for_orders:
                meter = self.scheduler.next_meter()
                if meter is None and self.scheduler.has_place:
                    meter = self.firmware.next_meter(self._clock.monotonic())
                    for_firmware = meter is not None
            if meter is None:
                await self.scheduler.wait_for_work(for_orders=for_orders)
                self.on_progress()
                continue
            if for_orders:
                self.scheduler.order_place_taken = True
            else:
                self.scheduler.working += 1
            try:
                await self._visit(link, meter, for_orders=for_orders, for_firmware=for_firmware)
            finally:
                if for_orders:
                    self.scheduler.order_place_taken = False
                else:
                    self.scheduler.working -= 1
            self.on_progress()

    def intern(self, shape: ProfileShape) -> ProfileShape:
        """The same shape as one object: thousands of meters of one model share it."""
        return self._shapes.setdefault(shape, shape)

    async def _visit(
        self, link: PlcLink, meter: CollectedMeter, *, for_orders: bool, for_firmware: bool
    ) -> None:
        meter.busy = True
        meter.visits += 1
        last_gasp, retry, began_s = meter.without_power, meter.failures > 0, self._clock.monotonic()
        self.visits.began(began_s)
        visit = Visit(
            self,
            link,
            meter,
            self._settings,
            self._store,
            self._clock,
            self._keyring,
            orders_only=for_orders,
            for_firmware=for_firmware,
        )
        try:
            async with asyncio.timeout(self._settings.dialogue_timeout_s):
                await visit.hold()
        except (TransientError, TimeoutError) as error:
            self._failed(visit, str(error) or self._out_of_time(visit.meter))
        except ForeignMeterError as error:
            visit.record.outcome = str(error)
            foreign.mark(visit.meter.record, foreign.BY_RULE, str(error))
        except KeysMissingError as error:
            self._refused(visit, MeterState.KEY_MISSING, str(error))
        except (AssociationRejectedError, SecurityError) as error:
            self._refused(visit, MeterState.REFUSED, str(error))
        except StoreError as error:
            visit.meter.rests_until = self._clock.monotonic() + _STORE_RETRY_S
            visit.record.outcome = str(error)
            log.warning("visit ended", meter=visit.meter.identity, reason=str(error))
        except ConcentratorError as error:
            self._failed(visit, str(error))
        except Exception as error:  # noqa: BLE001 - one meter must not stop the reading of all others
            log.exception("visit broke", meter=visit.meter.identity)
            self._failed(visit, f"internal error: {type(error).__name__}; the log has the details")
        else:
            visit.meter.failures = visit.meter.refusals = 0
            visit.meter.rests_until = 0.0
            if not (for_orders or for_firmware):
                visit.meter.collect_now = False
            # A last gasp that came in the midst of the visit is younger than what the meter answered.
            if visit.meter.without_power == last_gasp:
                self._set_state(visit.meter, MeterState.ACTIVE, "")
            self.phases.ask(link, visit.meter, asyncio.get_running_loop().time())
        finally:
            visit.meter.busy = meter.busy = False
            visit.meter.activity = ""
            succeeded = visit.meter.failures == 0
            now_s = self._clock.monotonic()
            self.visits.ended(visit.meter.identity, began_s, now_s, succeeded=succeeded, retry=retry)
            self._fail_orders(visit.meter)
            self.dialogues.keep(visit.record, visit.meter.identity)
            self.scheduler.visit_ended(visit.meter, complete=for_orders or visit.is_complete)
            if for_firmware:
                await asyncio.shield(self.firmware.tried(visit.meter.identity, visit.record.outcome))
        await self._save(visit.meter, visit.runs)
        self.scheduler.wake.set()

    def _out_of_time(self, meter: CollectedMeter) -> str:
        doing = f", {meter.activity} then" if meter.activity else ""
        return f"took longer than {self._settings.dialogue_timeout_s} s{doing}"

    def _failed(self, visit: Visit, reason: str) -> None:
        meter = visit.meter
        meter.failures += 1
        pause_s = min(_FIRST_RETRY_S * 2 ** (meter.failures - 1), _LONGEST_RETRY_S)
        meter.rests_until = self._clock.monotonic() + pause_s
        self._note_tries(visit, reason)
        log.warning("visit failed", meter=meter.identity, failures=meter.failures, reason=reason)
        if meter.failures >= _UNREACHABLE_AFTER_FAILURES:
            self._set_state(meter, MeterState.UNREACHABLE, reason)
        else:
            meter.record.reason = meter.without_power or reason

    def _refused(self, visit: Visit, state: MeterState, reason: str) -> None:
        if state is MeterState.REFUSED:
            # It said no: it is there.
            visit.meter.record.last_contact = self._clock.now()
        visit.meter.failures += 1
        visit.meter.rests_until = self._clock.monotonic() + _REFUSED_RETRY_S
        self._note_tries(visit, reason)
        self._set_state(visit.meter, state, reason)
        visit.meter.refusals += state is MeterState.REFUSED
        limit = self._settings.foreign_after_refusals
        if limit and visit.meter.refusals >= limit:
            refused = f"refused us {visit.meter.refusals} times: {reason}"
            foreign.mark(visit.meter.record, foreign.BY_REFUSAL, refused)

    def _note_tries(self, visit: Visit, reason: str) -> None:
        """Runs that were under way, or never got so far, have had a try."""
        visit.record.outcome = reason
        now = self._clock.now()
        for run in visit.under_way:
            row = self.tasks.tried(run, visit.meter, reason, now)
            if row is not None:
                visit.runs.append(row)

    @staticmethod
    def _fail_orders(meter: CollectedMeter) -> None:
        """Orders that a failed visit left: their senders are told now, not by a time-out later."""
        if not meter.record.reason:
            return
        refuses = meter.record.state in (MeterState.KEY_MISSING, MeterState.REFUSED)
        error = MeterUnreachableError if refuses or meter.record.left_alone else MeterAwayError
        while meter.orders:
            pending = meter.orders.popleft()
            if not pending.result.done():
                pending.result.set_exception(error(f"meter {meter.identity}: {meter.record.reason}"))

    def _set_state(self, meter: CollectedMeter, state: MeterState, reason: str) -> None:
        if meter.record.left_alone:
            return
        if state is MeterState.UNREACHABLE:
            reason = meter.without_power or reason
        else:
            meter.without_power = ""
        if (meter.record.state, meter.record.reason) != (state, reason):
            emit = log.info if state in (MeterState.ACTIVE, MeterState.DISCOVERED) else log.warning
            emit("meter " + state.value, meter=meter.identity, reason=reason)
        meter.record.state, meter.record.reason = state, reason

    def try_keys_again(self) -> None:
        """There are new keys: those who lacked the right ones are visited now."""
        for meter in self.registry:
            if meter.record.state in (MeterState.KEY_MISSING, MeterState.REFUSED):
                meter.rests_until, meter.refusals = 0.0, 0
                self.scheduler.plan(meter)
        self.scheduler.wake.set()

    async def _save(self, meter: CollectedMeter, runs: Sequence[TaskRunRow] = ()) -> None:
        if not meter.identified and not meter.record.left_alone:
            return
        try:
            await self._store.save_meter(meter.record, runs)
            while self.registry.moves:
                identity, before, after = self.registry.moves.pop()
                await self._store.add_events(
                    [("meter_moved", f"from {before or 'nowhere'} to {after}", identity)]
                )
        except StoreError as error:
            log.warning("meter not saved", meter=meter.identity, reason=str(error))

    async def _try_store(self) -> None:
        """See whether the store takes data again."""
        try:
            await self._store.keep_setting("last_try", self._clock.now().isoformat())
        except StoreError:
            return

    # For the page

    def availability(self) -> list[dict[str, float]]:
        """How many meters were reachable in each of the last 24 hours that are over (what operators call G01)."""
        now = self._clock.now()
        if is_plausible(now):
            self.topology.advance(now.timestamp())
        return [
            {
                "start": hour.start,
                "mean": round(hour.mean, 2),
                "lowest": hour.lowest,
                "highest": hour.highest,
                "total": hour.total,
                "percent": round(hour.percent, 1),
            }
            for hour in self.topology.network_hours()[-24:]
        ]

    def task_progress(self) -> list[dict[str, Any]]:
        """Every task with its run, and how many meters are done with it."""
        return self.task_orders.progress()

    def totals(self) -> dict[str, int]:
        """Meters and intervals, summed over the registry."""
        meters = [meter for meter in self.registry if not meter.record.left_alone]
        return {
            "meters": len(meters),
            "meters_identified": sum(meter.identified for meter in meters),
            "meters_reachable": sum(meter.address is not None for meter in meters),
            "intervals_expected": sum(meter.expected for meter in meters),
            "intervals_stored": sum(meter.stored for meter in meters),
            "intervals_closed": sum(meter.closed for meter in meters),
        }
