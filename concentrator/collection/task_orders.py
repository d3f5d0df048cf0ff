"""Orders about tasks and gaps: the list of tasks, changed while the service runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Any

import structlog

from concentrator.clock import Clock
from concentrator.collection.gap_report import gaps_of
from concentrator.collection.meter_tasks import MeterTask, TaskError
from concentrator.collection.registry import Registry
from concentrator.collection.task_book import TaskBook
from concentrator.orders import Order, OrderError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

TASK_ORDERS = ("tasks", "add_task", "remove_task", "run_task", "gaps")


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
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._tasks = tasks
        self._zone = zone
        self._replan = replan

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
            return await gaps_of(self._store, self._registry.known(order.target))
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
