"""The orders that were given: carried out once, in their time, and remembered until whoever asked knows how it went.

An order from a broker may arrive twice, and a cut cable may come between an order and its result: the same id is never
carried out again, but answered with what came of it. Orders with an earliest time, and deferred ones, survive a
restart; one that cannot be carried out before its latest time is reported as expired, never dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from concentrator.clock import Clock
from concentrator.collection.control.errors import OutcomeOpenError
from concentrator.errors import ConcentratorError, LocalError, TransientError
from concentrator.orders import MQTT, Order, OrderError, OrderHandler, OrderRefusedError
from concentrator.store.collection_tables import GivenOrderRow
from concentrator.store.errors import StoreError
from concentrator.store.readings import from_epoch, to_epoch
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

ACCEPTED, RUNNING, DONE, FAILED, EXPIRED = "accepted", "running", "done", "failed", "expired"
_OVER = (DONE, FAILED, EXPIRED)
OPERATIONS = ("orders", "order_state", "cancel_order")
_RETRY_S = 30.0
_KEPT = timedelta(days=7)
_MOST_UNDER_WAY = 256
_MOST_REMEMBERED = 1000
_SHOWN = 100
# A longer result of an order that somebody waited for is not remembered: lists of all meters, again and again.
_LONGEST_REMEMBERED = 4096


class OrderExpiredError(LocalError):
    """An order's latest time passed before it could be carried out."""


@dataclass(slots=True)
class _Given:
    """One order with what became of it so far; `future` is of those that run in this service's run."""

    order: Order
    state: str
    outcome: dict[str, Any]
    given_at: datetime
    changed_at: datetime
    is_kept: bool
    fingerprint: str
    future: asyncio.Future[dict[str, Any]] | None = None
    task: asyncio.Task[None] | None = None


class OrderBook:
    """Carries orders out by `handler`. `on_state` is told each change: the order, its state, result or error."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        handler: OrderHandler,
        on_state: Callable[[Order, str, dict[str, Any]], None] = lambda _order, _state, _outcome: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._handler = handler
        self._on_state = on_state
        self._given: dict[str, _Given] = {}

    async def load(self) -> None:
        """Take over the orders of an earlier run of the service; those that are not over go on."""
        for row in await self._store.given_orders():
            try:
                payload = json.loads(row.payload)
                order = replace(
                    Order.from_payload(payload, row.origin), given_by=str(payload.get("given_by", ""))
                )
            except (ValueError, OrderError) as error:
                log.warning("order forgotten", order=row.order_id, reason=str(error))
                continue
            given = _Given(
                order,
                row.state,
                json.loads(row.outcome),
                from_epoch(row.given_at),
                from_epoch(row.changed_at),
                is_kept=True,
                fingerprint=payload.get("fingerprint") or _fingerprint(order),
            )
            self._given[order.order_id] = given
            if row.state not in _OVER:
                self._begin(given)

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry an order out; one that is deferred, or from a broker, is taken and this returns at once.

        Raises:
            OrderError: it makes no sense; OrderRefusedError: it was not even taken.
            OrderExpiredError: its latest time passed first.
            ConcentratorError: it could not be done; the text says why.
        """
        if order.operation in OPERATIONS:
            return await self._about_orders(order)
        known = self._given.get(order.order_id)
        if known is not None:
            if known.fingerprint != _fingerprint(order):
                raise OrderRefusedError(
                    f"order {order.order_id}: another order had this id; allowed: an id of its own for each"
                )
            if known.state in _OVER:
                # It came twice, or its sender missed how it went.
                self._on_state(order, known.state, known.outcome)
        else:
            known = await self._take(order)
        if (order.deferred or order.origin == MQTT) and known.state not in _OVER:
            return {"order": order.order_id, "state": known.state}
        return await self._outcome(known)

    async def close(self) -> None:
        """End what is under way; it goes on at the next start if it is kept."""
        tasks = [given.task for given in self._given.values() if given.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, order: Order) -> _Given:
        if sum(given.state not in _OVER for given in self._given.values()) >= _MOST_UNDER_WAY:
            raise OrderRefusedError(
                f"order {order.order_id}: {_MOST_UNDER_WAY} orders are under way already; give it later"
            )
        now = self._clock.now()
        is_kept = order.deferred or order.not_before is not None or order.origin == MQTT
        given = _Given(order, ACCEPTED, {}, now, now, is_kept, _fingerprint(order))
        self._given[order.order_id] = given
        self._forget_old()
        await self._keep(given)
        self._on_state(order, ACCEPTED, {})
        self._begin(given)
        return given

    def _begin(self, given: _Given) -> None:
        given.future = asyncio.get_running_loop().create_future()
        # Nobody may be waiting for it.
        given.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        given.task = asyncio.create_task(self._carry_on(given, given.future))

    @staticmethod
    async def _outcome(given: _Given) -> dict[str, Any]:
        if given.future is not None:
            return await asyncio.shield(given.future)
        if given.state == DONE:
            return given.outcome
        kind = OrderExpiredError if given.state == EXPIRED else OrderError
        raise kind(str(given.outcome.get("error", given.state)))

    async def _carry_on(self, given: _Given, future: asyncio.Future[dict[str, Any]]) -> None:
        try:
            result = await self._in_time(given)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except ConcentratorError as error:
            state = EXPIRED if isinstance(error, OrderExpiredError) else FAILED
            await self._change(given, state, {"error": str(error)})
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whoever gave it is told, whatever happened
            log.exception("order broke", order=given.order.order_id, op=given.order.operation)
            text = f"order {given.order.order_id}: internal error: {type(error).__name__}; the log has the details"
            await self._change(given, FAILED, {"error": text})
            future.set_exception(OrderError(text))
        else:
            await self._change(given, DONE, result)
            if not future.done():
                future.set_result(result)
            if not given.is_kept and len(json.dumps(result, default=str)) > _LONGEST_REMEMBERED:
                given.outcome, given.future = {"note": "too long to be remembered"}, None

    async def _in_time(self, given: _Given) -> dict[str, Any]:
        order = given.order
        while order.not_before is not None and (wait := self._seconds_until(order.not_before)) > 0:  # noqa: ASYNC110
            # In parts: the clock may be set meanwhile.
            await asyncio.sleep(min(wait, _RETRY_S))
        trouble = ""
        while True:
            left = None if order.not_after is None else self._seconds_until(order.not_after)
            if left is not None and left <= 0:
                late = f": {trouble}" if trouble else ""
                expired = f"order {order.order_id}: expired at {order.not_after:%Y-%m-%dT%H:%M:%S%z}{late}"
                raise OrderExpiredError(expired)
            await self._change(given, RUNNING, {})
            try:
                async with asyncio.timeout(left):
                    return await self._handler(order)
            except TimeoutError:
                trouble = trouble or "it was under way"
            except TransientError as error:
                # A command that went out is not sent again, whether it was done or not.
                if left is None or isinstance(error, OutcomeOpenError):
                    raise
                trouble = str(error)
                await asyncio.sleep(min(_RETRY_S, left))

    def _seconds_until(self, moment: datetime) -> float:
        return (moment - self._clock.now()).total_seconds()

    async def _change(self, given: _Given, state: str, outcome: dict[str, Any]) -> None:
        if given.state == state:
            return
        given.state, given.outcome, given.changed_at = state, outcome, self._clock.now()
        await self._keep(given)
        self._on_state(given.order, state, outcome)

    async def _keep(self, given: _Given) -> None:
        if not given.is_kept:
            return
        payload = given.order.payload() | {"given_by": given.order.given_by}
        if given.state in _OVER:
            # A token or a value that was written does not stay on flash longer than it is needed.
            payload |= {"args": {}, "fingerprint": given.fingerprint}
        row = GivenOrderRow(
            given.order.order_id,
            json.dumps(payload),
            given.order.origin,
            given.state,
            json.dumps(given.outcome, default=str),
            to_epoch(given.given_at),
            to_epoch(given.changed_at),
        )
        try:
            await self._store.keep_order(row, to_epoch(self._clock.now() - _KEPT))
        except StoreError as error:
            log.warning("order not kept", order=given.order.order_id, reason=str(error))

    def _forget_old(self) -> None:
        over = [key for key, given in self._given.items() if given.state in _OVER]
        for key in over[: max(0, len(self._given) - _MOST_REMEMBERED)]:
            del self._given[key]

    # Orders about orders

    async def _about_orders(self, order: Order) -> dict[str, Any]:
        if order.operation == "orders":
            return {"orders": self.listed()}
        name = str(order.arguments.get("id", ""))
        given = self._given.get(name)
        if given is None:
            raise OrderError(f"order {order.order_id}: args: id: no order {name!r} is known")
        if order.operation == "cancel_order":
            if given.state in _OVER:
                raise OrderError(f"order {order.order_id}: order {name} is over: {given.state}")
            if given.task is not None:
                given.task.cancel()
                await asyncio.gather(given.task, return_exceptions=True)
            await self._change(given, FAILED, {"error": f"cancelled by order {order.order_id}"})
        return _shown(given)

    def listed(self) -> list[dict[str, Any]]:
        """The orders that are remembered, newest first."""
        newest = sorted(self._given.values(), key=lambda given: given.given_at, reverse=True)
        return [_shown(given) for given in newest[:_SHOWN]]


def _fingerprint(order: Order) -> str:
    """What tells an order that came twice from another one with its id."""
    content = json.dumps([order.payload(), order.origin], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _shown(given: _Given) -> dict[str, Any]:
    order = given.order
    return {
        "id": order.order_id,
        "op": order.operation,
        "target": order.target,
        "origin": order.who,
        "priority": order.priority,
        "not_before": order.not_before.isoformat() if order.not_before else None,
        "not_after": order.not_after.isoformat() if order.not_after else None,
        "state": given.state,
        "given_at": given.given_at.isoformat(),
        "changed_at": given.changed_at.isoformat(),
        **({"result": given.outcome} if given.state == DONE else given.outcome),
    }
