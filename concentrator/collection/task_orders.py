"""Orders about tasks and gaps: the list of tasks, changed while the service runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta, tzinfo
from typing import Any, Protocol

import structlog

from concentrator.clock import Clock
from concentrator.collection.gap_report import gaps_of, gaps_of_heard
from concentrator.collection.meter_tasks import MeterTask, TaskError
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.collection.task_book import TaskBook
from concentrator.model import MeterRecord
from concentrator.orders import Order, OrderError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

TASK_ORDERS = ("tasks", "add_task", "remove_task", "run_task", "gaps")


class OtherMeters(Protocol):
    """The meters that are not nodes of the power line network."""

    def channel_meters(self) -> Iterable[CollectedMeter]:
        """Those on M-Bus channels of electricity meters: their profiles are read."""
        ...

    def heard_meters(self) -> Iterable[tuple[MeterRecord, int]]:
        """Those that are heard, or read at a local port, each with the seconds in which one reading is kept."""
        ...


class NoOtherMeters:
    """A box that has none."""

    def channel_meters(self) -> Iterable[CollectedMeter]:
        """None."""
        return ()

    def heard_meters(self) -> Iterable[tuple[MeterRecord, int]]:
        """None."""
        return ()


class TaskOrders:
    """Carries them out; `replan` is called when what is due may have changed."""

    def __init__(  # noqa: PLR0913 - what the orders are about
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        tasks: TaskBook,
        zone: tzinfo,
        replan: Callable[[], None],
        history: timedelta,
    ) -> None:
        self.others: OtherMeters = NoOtherMeters()
        self._history = history
        self._store = store
        self._clock = clock
        self._registry = registry
        self._tasks = tasks
        self._zone = zone
        self._replan = replan

    async def _gaps(self, identity: str) -> dict[str, Any]:
        for meter in self.others.channel_meters():
            if meter.identity == identity:
                return await gaps_of(self._store, meter)
        for record, interval_s in self.others.heard_meters():
            if record.identity == identity:
                return await gaps_of_heard(self._store, record, interval_s, self._history, self._clock.now())
        return await gaps_of(self._store, self._registry.known(identity))

    def progress(self) -> list[dict[str, Any]]:
        """Every task with its run, and how many meters are done with it."""
        return self._tasks.progress([meter.record for meter in self._registry], self._clock.now())

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry out one of TASK_ORDERS.

        Raises:
            OrderError: it makes no sense.
            UnknownMeterError: there is no such meter.
            StoreError: a task could not be kept.
        """
        arguments = order.arguments
        if order.operation == "gaps":
            return await self._gaps(order.target)
        now = self._clock.now()
        if order.operation == "tasks":
            return {"tasks": self.progress()}
        name = str(arguments.get("name", ""))
        try:
            if order.operation == "add_task":
                task = MeterTask.from_definition(arguments, self._zone, "order")
                self._tasks.add(task)
                await self._store.keep_task(task.name, task.definition())
            elif order.operation == "remove_task":
                self._tasks.remove(name)
                await self._store.keep_task(name, None)
            else:
                self._tasks.run_now(name, now)
        except TaskError as error:
            raise OrderError(f"order {order.order_id}: args: {error}") from None
        log.info("tasks changed by order", op=order.operation, task=name, order=order.order_id)
        self._replan()
        return {"task": name, "done": order.operation}
