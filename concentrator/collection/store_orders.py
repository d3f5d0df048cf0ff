"""Orders that need no meter: they ask what is stored, or estimate what is missing there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.alarms import POWER_DOWN, POWER_UP
from concentrator.collection.balance_report import BalanceReport
from concentrator.collection.estimation import Method
from concentrator.collection.estimator import Estimator
from concentrator.collection.interruptions import Evidence, Outage, Sign, reconstruct
from concentrator.collection.kpi_keeper import KpiKeeper
from concentrator.obis import Obis, ObisError
from concentrator.orders import Order, OrderError
from concentrator.store.meter_events import events_between
from concentrator.store.readings import from_epoch
from concentrator.store.store import Store

_MOST_DAYS = 400
_MOST_EVENTS = 5000
# A meter's clock may be ahead of ours.
_AHEAD = timedelta(days=1)

Answer = dict[str, Any]
Handler = Callable[[Order], Awaitable[Answer]]


class StoreOrders:
    """The operations by name, each with what carries it out; `profile` is the load profile that is collected."""

    def __init__(
        self, store: Store, clock: Clock, profile: str, kpi: KpiKeeper, balance: BalanceReport
    ) -> None:
        self._kpi, self._balance = kpi, balance
        self._profile = profile
        self._estimator = Estimator(store, clock)
        self._store = store
        self._clock = clock
        self._handlers: dict[str, Handler] = {
            "estimate": self._estimate,
            "events": self._events,
            "interruptions": self._interruptions,
            "kpi": self._figures,
            "balance": self._day_balance,
        }

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

    async def _events(self, order: Order) -> Answer:
        last = self._clock.now()
        first = last - timedelta(days=_days(order, 7))
        found = await self._store.read(lambda c: events_between(c, first, last + _AHEAD, order.target))
        return {
            "events": [
                {
                    "meter": meter,
                    "t": event.happened_at.isoformat(),
                    "group": event.group,
                    "code": event.code,
                    "severity": event.severity.value,
                    "kind": event.kind,
                    "detail": event.detail,
                }
                for meter, event in found[-_MOST_EVENTS:]
            ],
            "left_out": max(0, len(found) - _MOST_EVENTS),
        }

    async def _day_balance(self, order: Order) -> Answer:
        day = self._clock.now() - timedelta(days=1)
        if "day" in order.arguments:
            day = moment(order, "day")
        return await self._balance.day(day.astimezone(UTC).date())

    async def _figures(self, order: Order) -> Answer:
        await self._kpi.count()
        found: Answer = {**self._kpi.latest, "days": await self._kpi.days(_days(order, 7))}
        availability = self._kpi.availability()
        if order.target:
            availability = {order.target: availability.get(order.target, [])}
        return {**found, "availability": availability}

    async def _interruptions(self, order: Order) -> Answer:
        last = self._clock.now()
        first = last - timedelta(days=_days(order, 7))
        feeders: dict[str, str] = {}
        if self._balance.is_set_up:
            # The transformer comes first: what a feeder says of its meters is nearer.
            for feeder in await self._balance.feeders():
                feeders |= dict.fromkeys(feeder.members, feeder.name)
        outages = await outages_between(self._store, first, last + _AHEAD, feeders)
        return {
            "from": first.isoformat(timespec="seconds"),
            "to": last.isoformat(timespec="seconds"),
            "outages": [
                outage_as_json(one) for one in outages if not order.target or order.target in one.meters
            ],
        }


def outage_as_json(outage: Outage) -> Answer:
    """An outage with its times written out."""
    return {
        "start": from_epoch(round(outage.start)).isoformat(),
        "end": None if outage.end is None else from_epoch(round(outage.end)).isoformat(),
        "minutes": None if outage.end is None else round((outage.end - outage.start) / 60, 1),
        "meters": outage.count,
        "scale": outage.scale.value,
        "suspected": outage.suspected,
        "feeders": outage.feeders,
        "meter_minutes": round(outage.meter_minutes, 1),
        "names": [*outage.meters, *outage.silent],
    }


async def outages_between(
    store: Store, first: datetime, last: datetime, feeders: Mapping[str, str]
) -> list[Outage]:
    """The outages that began between two moments, by what is stored.

    Raises:
        StoreError: it cannot be read.
    """
    happened = await store.read(lambda c: events_between(c, first, last))
    seen = await store.network_signs(first, last)
    known = sum(record.link == "plc" for record in await store.load_meters())
    signs = {POWER_DOWN: Sign.DOWN, POWER_UP: Sign.UP}
    evidence = [
        Evidence(event.happened_at.timestamp(), meter, signs[event.kind])
        for meter, event in happened
        if event.kind in signs
    ]
    evidence += [
        Evidence(at, meter, Sign.LEFT if what == "left" else Sign.JOINED) for at, meter, what in seen
    ]
    return reconstruct(evidence, feeders, known)


def _days(order: Order, default: int) -> int:
    given = order.arguments.get("days", default)
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= _MOST_DAYS:
        return given
    raise OrderError(f"order {order.order_id}: args: days: got {given!r}; allowed: 1 to {_MOST_DAYS}")


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
