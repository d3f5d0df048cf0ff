"""The collector: follows the network, and visits each meter when it owes something.

A few workers hold dialogues side by side, one per meter. Who is visited next: meters with orders first,
then whoever is due longest. A visit reads exactly what is missing, newest first. A meter that does not
answer is tried again with growing pauses, so that the dead do not keep the living waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.alarms import AlarmDesk
from concentrator.collection.errors import MeterUnreachableError
from concentrator.collection.keyring import Keyring
from concentrator.collection.kpi import VisitLog
from concentrator.collection.meter_events import EventReader
from concentrator.collection.meter_orders import check_order
from concentrator.collection.phases import PhaseFinder
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, PendingOrder, Registry
from concentrator.collection.topology import Topology
from concentrator.collection.visit import KeysMissingError, Visit
from concentrator.config import CollectionSection
from concentrator.dlms.errors import AssociationRejectedError, SecurityError
from concentrator.errors import ConcentratorError, TransientError
from concentrator.links.plc_link import PlcLink
from concentrator.model import IdentityError, MeterEvent, MeterRecord, MeterState, safe_identity
from concentrator.orders import Order
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
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
    ) -> None:
        self.registry = Registry()
        self.topology = Topology()
        self.received_counters = ReceivedCounters(store)
        self.visits = VisitLog()
        self.phases = PhaseFinder()
        self.event_reader = EventReader(store, clock, settings.events_interval_s)
        self.alarms = AlarmDesk(
            store, clock, self.registry, keyring, self.received_counters, settings, self._alarm_came
        )
        self._settings = settings
        self._store = store
        self._clock = clock
        self._keyring = keyring
        self.on_progress = on_progress
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Take the known meters from the store; they are not reachable until their nodes join."""
        for record in await self._store.load_meters():
            if record.link == "plc":
                self.registry.add(CollectedMeter(record, identified=True))
        await self.received_counters.load()

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
                    meter.address = None
                    self._set_state(meter, MeterState.UNREACHABLE, f"left the network: {event.reason}")
            case ModemLost():
                for meter in self.registry:
                    meter.address = None
            case NetworkStarted():
                log.info("network started", modem=event.description, eui=event.identity.hex())
            case LinkQualityReported():
                known = self.registry.at_address(event.eui.hex())
                if known is not None:
                    self._place(known, event.eui)
            case TopologyChanged():
                log.info("topology changed", eui=event.eui.hex(), change=event.description)
            case NodeDeclined():
                log.warning("foreign device declined", eui=event.eui.hex())
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
        self._wake.set()

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
        self._place(meter, event.eui)
        if meter.address != event.address:
            meter.address = event.address
            meter.failures = 0
            meter.next_visit = 0.0
        if meter.record.state is MeterState.UNREACHABLE:
            self._set_state(meter, MeterState.ACTIVE if meter.identified else MeterState.DISCOVERED, "")
        self._wake.set()

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
        if order.operation != _COLLECT:
            check_order(order, network_operations)
        meter = self.registry.known(order.target)
        if order.operation == _COLLECT:
            meter.next_visit = 0.0
            self._wake.set()
            return {"meter": meter.identity, "queued": True}
        if meter.address is None:
            raise MeterUnreachableError(
                f"meter {meter.identity} is not on the network: {meter.record.reason}"
            )
        pending = PendingOrder(order, asyncio.get_running_loop().create_future())
        meter.orders.append(pending)
        self._wake.set()
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_S):
                return await pending.result
        except TimeoutError:
            raise MeterUnreachableError(
                f"meter {meter.identity}: no turn within {_ORDER_TIMEOUT_S:g} s"
            ) from None

    @property
    def orders_waiting(self) -> bool:
        """Whether a meter that nobody speaks with has an order."""
        return any(meter.orders and not meter.busy for meter in self.registry)

    @property
    def others_waiting(self) -> bool:
        """Whether a meter that nobody speaks with is due."""
        now = self._clock.monotonic()
        return any(
            meter.address is not None and not meter.busy and meter.next_visit <= now
            for meter in self.registry
        )

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
            meter = self._next_meter(for_orders=for_orders)
            if meter is None:
                await self._wait_for_work(for_orders=for_orders)
                continue
            await self._visit(link, meter, for_orders=for_orders)
            self.on_progress()

    def _next_meter(self, *, for_orders: bool) -> CollectedMeter | None:
        """The meter whose turn it is: orders first, then by how long it has been due."""
        now = self._clock.monotonic()
        ready = [
            meter
            for meter in self.registry
            if meter.address is not None
            and not meter.busy
            and (meter.orders or (not for_orders and meter.next_visit <= now))
        ]
        return min(
            ready, key=lambda meter: (not meter.orders, meter.failures, meter.next_visit), default=None
        )

    async def _wait_for_work(self, *, for_orders: bool) -> None:
        now = self._clock.monotonic()
        due = [
            meter.next_visit - now
            for meter in self.registry
            if not for_orders and meter.address is not None and not meter.busy
        ]
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0.05, min([*due, 5.0]))):
                await self._wake.wait()
        except TimeoutError:
            pass
        self.on_progress()

    async def _visit(self, link: PlcLink, meter: CollectedMeter, *, for_orders: bool) -> None:
        meter.busy = True
        last_gasp, retry, began_s = meter.without_power, meter.failures > 0, self._clock.monotonic()
        self.visits.began(began_s)
        visit = Visit(
            self, link, meter, self._settings, self._store, self._clock, self._keyring, orders_only=for_orders
        )
        try:
            async with asyncio.timeout(self._settings.dialogue_timeout_s):
                await visit.hold()
        except (TransientError, TimeoutError) as error:
            self._failed(visit.meter, str(error) or self._out_of_time(visit.meter))
        except KeysMissingError as error:
            self._refused(visit.meter, MeterState.KEY_MISSING, str(error))
        except (AssociationRejectedError, SecurityError) as error:
            self._refused(visit.meter, MeterState.REFUSED, str(error))
        except StoreError as error:
            visit.meter.next_visit = self._clock.monotonic() + _STORE_RETRY_S
            log.warning("visit ended", meter=visit.meter.identity, reason=str(error))
        except ConcentratorError as error:
            self._failed(visit.meter, str(error))
        except Exception as error:  # noqa: BLE001 - one meter must not stop the reading of all others
            log.exception("visit broke", meter=visit.meter.identity)
            self._failed(visit.meter, f"internal error: {type(error).__name__}; the log has the details")
        else:
            self._succeeded(visit.meter, last_gasp, for_orders=for_orders)
            self.phases.ask(link, visit.meter, asyncio.get_running_loop().time())
        finally:
            visit.meter.busy = False
            visit.meter.activity = ""
            succeeded = visit.meter.failures == 0
            now_s = self._clock.monotonic()
            self.visits.ended(visit.meter.identity, began_s, now_s, succeeded=succeeded, retry=retry)
            self._fail_orders(visit.meter)
        await self._save(visit.meter)
        self._wake.set()

    def _out_of_time(self, meter: CollectedMeter) -> str:
        doing = f", {meter.activity} then" if meter.activity else ""
        return f"took longer than {self._settings.dialogue_timeout_s} s{doing}"

    def _succeeded(self, meter: CollectedMeter, last_gasp: str, *, for_orders: bool) -> None:
        meter.failures = 0
        if not for_orders and meter.next_visit <= self._clock.monotonic():
            meter.next_visit = self._clock.monotonic() + self._until_next_round()
        # A last gasp that came in the midst of the visit is younger than what the meter answered.
        if meter.without_power == last_gasp:
            self._set_state(meter, MeterState.ACTIVE, "")

    def _until_next_round(self) -> float:
        """Seconds until meters have something new: rounds begin on whole multiples of the interval, in UTC.

        So a day is asked for when it has ended, whenever the meter was met first.
        """
        interval_s = self._settings.interval_s
        now = self._clock.now().timestamp() - self._settings.answer_delay_s
        return interval_s - now % interval_s

    def _failed(self, meter: CollectedMeter, reason: str) -> None:
        meter.failures += 1
        pause_s = min(_FIRST_RETRY_S * 2 ** (meter.failures - 1), _LONGEST_RETRY_S)
        meter.next_visit = self._clock.monotonic() + pause_s
        log.warning("visit failed", meter=meter.identity, failures=meter.failures, reason=reason)
        if meter.failures >= _UNREACHABLE_AFTER_FAILURES:
            self._set_state(meter, MeterState.UNREACHABLE, reason)
        else:
            meter.record.reason = meter.without_power or reason

    def _refused(self, meter: CollectedMeter, state: MeterState, reason: str) -> None:
        meter.failures += 1
        meter.next_visit = self._clock.monotonic() + _REFUSED_RETRY_S
        self._set_state(meter, state, reason)

    @staticmethod
    def _fail_orders(meter: CollectedMeter) -> None:
        """Orders that a failed visit left: their senders are told now, not by a time-out later."""
        if not meter.record.reason:
            return
        while meter.orders:
            pending = meter.orders.popleft()
            if not pending.result.done():
                pending.result.set_exception(
                    MeterUnreachableError(f"meter {meter.identity}: {meter.record.reason}")
                )

    def _set_state(self, meter: CollectedMeter, state: MeterState, reason: str) -> None:
        if state is MeterState.UNREACHABLE:
            reason = meter.without_power or reason
        else:
            meter.without_power = ""
        if (meter.record.state, meter.record.reason) != (state, reason):
            emit = log.info if state in (MeterState.ACTIVE, MeterState.DISCOVERED) else log.warning
            emit("meter " + state.value, meter=meter.identity, reason=reason)
        meter.record.state, meter.record.reason = state, reason

    async def _save(self, meter: CollectedMeter) -> None:
        if not meter.identified:
            return
        try:
            await self._store.save_meter(meter.record)
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

    def totals(self) -> dict[str, int]:
        """Meters and intervals, summed over the registry."""
        meters = list(self.registry)
        return {
            "meters": len(meters),
            "meters_identified": sum(meter.identified for meter in meters),
            "meters_reachable": sum(meter.address is not None for meter in meters),
            "intervals_expected": sum(meter.expected for meter in meters),
            "intervals_stored": sum(meter.stored for meter in meters),
            "intervals_closed": sum(meter.closed for meter in meters),
        }
