"""Which meter is visited next: by what it owes, how urgent that is, and what the network bears."""

from __future__ import annotations

import asyncio
import contextlib

from concentrator.clock import Clock
from concentrator.collection.agenda import Agenda, Rank
from concentrator.collection.in_flight import InFlight
from concentrator.collection.meter_events import EventReader
from concentrator.collection.quiet_hours import QuietHours
from concentrator.collection.registry import CollectedMeter, PendingOrder, Registry
from concentrator.collection.task_book import TaskBook

# Levels of urgency: tasks have their priority, 1 to 3.
ORDERED, BACKLOG = 0, 9
# How long a visit may go on with old gaps while meters with fresh data wait.
_FAIR_SHARE_S = 60.0
_EVENTS_LATER_S = 30.0
_IDLE_S = 5.0
_LEAST_WAIT_S = 0.05


class Scheduler:
    """Keeps the agenda. `wake` is set when somebody may be ready; `working` counts routine visits under way."""

    def __init__(  # noqa: PLR0913 - what it decides by
        self,
        registry: Registry,
        tasks: TaskBook,
        event_reader: EventReader,
        in_flight: InFlight,
        quiet: QuietHours,
        clock: Clock,
    ) -> None:
        self.wake = asyncio.Event()
        self.working = 0
        self.order_place_taken = False
        self._registry = registry
        self._tasks = tasks
        self._event_reader = event_reader
        self._in_flight = in_flight
        self._quiet = quiet
        self._clock = clock
        self._agenda = Agenda()
        self._with_orders: dict[str, CollectedMeter] = {}
        self._freed = asyncio.Event()

    def add_order(self, meter: CollectedMeter, pending: PendingOrder) -> None:
        """Somebody wants something of a meter."""
        meter.add_order(pending)
        self._with_orders[meter.record.link_address] = meter
        self.wake.set()

    def drop(self, meter: CollectedMeter) -> None:
        """A meter left the network: it is not visited."""
        self._agenda.drop(meter.record.link_address)

    def visit_ended(self, meter: CollectedMeter, *, complete: bool) -> None:
        """Nobody speaks with a meter any more; what is left of a backlog goes behind all that is fresh."""
        self.plan(meter, None if complete else BACKLOG)
        self._freed.set()

    async def wait_for_work(self, *, for_orders: bool) -> None:
        """Return when somebody may be ready."""
        now = self._clock.monotonic()
        next_time = None if for_orders else self._agenda.next_time(now)
        # Somebody may be ready while the network bears no more dialogues: the end of one wakes us.
        wait_s = _IDLE_S if next_time is None or next_time <= now else min(next_time - now, _IDLE_S)
        self.wake.clear()
        try:
            async with asyncio.timeout(max(_LEAST_WAIT_S, wait_s)):
                await self.wake.wait()
        except TimeoutError:
            return

    async def wait_for_modem(self) -> None:
        """Return when the modem may have started."""
        self.wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self.wake.wait()

    def plan_all(self) -> None:
        """Plan every meter anew: what is due, or who there is, has changed."""
        for meter in self._registry:
            self.plan(meter)
        self.wake.set()

    def plan(self, meter: CollectedMeter, level: int | None = None) -> None:
        """Put a meter on the agenda for when it owes something; `level` overrides how urgent that is."""
        if meter.address is None or meter.busy or meter.record.left_alone:
            return
        now = self._clock.now()
        owed = self._tasks.owed(meter.record, now)
        until_next = 0.0
        if not owed and not meter.collect_now:
            until_next = (self._tasks.next_change(now) - now).total_seconds()
            until_events = self._event_reader.due_in_s(meter.identity)
            until_next = min(until_next, max(until_events, _EVENTS_LATER_S))
        at = max(self._clock.monotonic() + until_next, meter.rests_until)
        if level is None:
            level = (
                ORDERED if meter.collect_now else min((run.task.priority for run in owed), default=BACKLOG)
            )
        self._agenda.plan(meter.record.link_address, at, Rank(level, meter.failures))

    def next_with_order(self) -> CollectedMeter | None:
        """The meter whose order is the most urgent, and longest there."""
        ready: list[CollectedMeter] = []
        for link_address, meter in list(self._with_orders.items()):
            if not meter.orders:
                del self._with_orders[link_address]
            elif not (meter.busy or meter.wanted or meter.record.left_alone) and meter.address is not None:
                ready.append(meter)
        return min(ready, key=lambda meter: meter.orders[0].order.priority, default=None)

    def next_meter(self) -> CollectedMeter | None:
        """The meter whose turn it is in routine reading."""
        if not self.has_place or self._quiet.holds(self._clock.now()):
            return None
        while (name := self._agenda.take(self._clock.monotonic())) is not None:
            meter = self._registry.at_address(name)
            # Whoever speaks with it plans it anew.
            if meter is None or meter.wanted or meter.busy:
                continue
            owed = self._tasks.owed(meter.record, self._clock.now())
            if owed or meter.collect_now or self._event_reader.is_due(meter.identity):
                return meter
            # A task began that is not for this one.
            self.plan(meter)
        return None

    @property
    def has_place(self) -> bool:
        """Whether the network bears one more dialogue."""
        return self.working < self._in_flight.limit

    @property
    def routine_waits(self) -> bool:
        """Whether a meter that lately did not fail has fresh data to give, and routine does not rest."""
        best = self._agenda.best_rank(self._clock.monotonic())
        waits = best is not None and best.level < BACKLOG and not best.failures
        return waits and not self._quiet.holds(self._clock.now())

    @property
    def orders_waiting(self) -> bool:
        """Whether a meter that nobody speaks with has an order."""
        return any(meter.orders and not meter.busy for meter in self._with_orders.values())

    @property
    def others_waiting(self) -> bool:
        """Whether a meter that nobody speaks with has fresh data to give."""
        best = self._agenda.best_rank(self._clock.monotonic())
        return best is not None and best.level < BACKLOG

    def others_wait(self, lasted_s: float) -> bool:
        """Whether a visit that has lasted this long should leave the rest of a backlog for later."""
        if self.orders_waiting and self.order_place_taken:
            return True
        best = self._agenda.best_rank(self._clock.monotonic())
        return lasted_s > _FAIR_SHARE_S and best is not None and best.level < BACKLOG and not best.failures

    # The gateway's turn

    async def borrow(self, meter: CollectedMeter) -> None:
        """Wait until nobody speaks with a meter, and keep everybody off it."""
        meter.wanted += 1
        try:
            while meter.busy:
                self._freed.clear()
                await self._freed.wait()
            meter.busy = True
        finally:
            meter.wanted -= 1
        self._agenda.drop(meter.record.link_address)

    def give_back(self, meter: CollectedMeter) -> None:
        """Speak with it again."""
        meter.busy = False
        meter.activity = ""
        self.plan(meter)
        self._freed.set()
        self.wake.set()
