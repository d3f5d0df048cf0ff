"""Orders that need no meter: they ask what is stored, or estimate what is missing there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.estimation import Method
from concentrator.collection.estimator import Estimator
from concentrator.obis import Obis, ObisError
from concentrator.orders import Order, OrderError
from concentrator.store.store import Store

Answer = dict[str, Any]
Handler = Callable[[Order], Awaitable[Answer]]


class StoreOrders:
    """The operations by name, each with what carries it out; `profile` is the load profile that is collected."""

    def __init__(self, store: Store, clock: Clock, profile: str) -> None:
        self._profile = profile
        self._estimator = Estimator(store, clock)
        self._handlers: dict[str, Handler] = {"estimate": self._estimate}

    @property
    def names(self) -> tuple[str, ...]:
        """Every operation."""
        return tuple(self._handlers)

    async def carry_out(self, order: Order) -> Answer:
        """Carry out one order.

        Raises:
            OrderError: its arguments make no sense.
            ConcentratorError: it cannot be done; the text says why.
        """
        return await self._handlers[order.operation](order)

    async def _estimate(self, order: Order) -> Answer:
        if not order.target:
            raise OrderError(f"order {order.order_id}: target: missing; allowed: a meter's identity")
        method = str(order.arguments.get("method", Method.LIKE_DAY))
        if method not in list(Method):
            raise OrderError(
                f"order {order.order_id}: args: method: got {method!r}; allowed: {', '.join(Method)}"
            )
        try:
            profile = Obis.parse(str(order.arguments.get("profile", self._profile)))
        except ObisError as error:
            raise OrderError(f"order {order.order_id}: args: profile: {error}") from None
        found = await self._estimator.fill(
            order.target, profile, moment(order, "from"), moment(order, "to"), Method(method)
        )
        return {
            "meter": order.target,
            "profile": str(profile),
            "method": method,
            "missing": found.missing,
            "estimated": found.estimated,
            "left_open": found.open,
            "channels": found.channels,
        }


def moment(order: Order, name: str) -> datetime:
    """An argument that is a time; without a zone it is UTC's.

    Raises:
        OrderError: it is missing, or no time.
    """
    try:
        found = datetime.fromisoformat(str(order.arguments.get(name)))
    except ValueError:
        raise OrderError(
            f"order {order.order_id}: args: {name}: got {order.arguments.get(name)!r}; "
            "allowed: a date or an RFC 3339 time"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
