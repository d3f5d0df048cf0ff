"""The registry: every meter that is or ever was here, by identity and by address on its network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from concentrator.collection.errors import UnknownMeterError
from concentrator.collection.meter_reader import ProfileShape
from concentrator.model import MeterRecord, safe_identity
from concentrator.orders import Order
from concentrator.store.counters import InvocationCounter


@dataclass(slots=True)
class PendingOrder:
    """An order that waits for its meter's turn, and where its result goes."""

    order: Order
    result: asyncio.Future[dict[str, Any]]


def _no_orders() -> deque[PendingOrder]:
    return deque()


@dataclass(slots=True)
class CollectedMeter:
    """A meter with what this run of the service knows of it beyond its record."""

    record: MeterRecord
    # Where APDUs reach it now; None while its node is not on the network.
    address: int | None = None
    # The identity is the meter's own (from a serial number), not made from its address.
    identified: bool = False
    # The text that the node told when it joined: helps to find its keys before it is identified.
    joined_as: str = ""
    shape: ProfileShape | None = None
    counter: InvocationCounter | None = None
    # The highest invocation counter that the meter says it has seen from us; used once.
    told_counter: int | None = None
    # APDUs refused because their invocation counter was not above the last.
    replays: int = 0
    expected: int = 0
    stored: int = 0
    closed: int = 0
    next_visit: float = 0.0
    failures: int = 0
    busy: bool = False
    activity: str = ""
    parent: str = ""
    level: int | None = None
    hops: int | None = None
    role: str = ""
    # What its last gasp said, until it is heard again.
    without_power: str = ""
    orders: deque[PendingOrder] = field(default_factory=_no_orders)

    @property
    def identity(self) -> str:
        """What the head-end calls it."""
        return self.record.identity


class Registry:
    """Meters by identity, and by link address (EUI in hex)."""

    def __init__(self) -> None:
        self._by_identity: dict[str, CollectedMeter] = {}
        self._by_address: dict[str, CollectedMeter] = {}

    def __iter__(self) -> Iterator[CollectedMeter]:
        return iter(list(self._by_identity.values()))

    def __len__(self) -> int:
        return len(self._by_identity)

    def add(self, meter: CollectedMeter) -> None:
        """Take in a meter, new or from the store."""
        self._by_identity[meter.identity] = meter
        if meter.record.link_address:
            self._by_address[meter.record.link_address] = meter

    def at_address(self, link_address: str) -> CollectedMeter | None:
        """The meter at an EUI."""
        return self._by_address.get(link_address)

    def known(self, identity: str) -> CollectedMeter:
        """The meter of an identity.

        Raises:
            UnknownMeterError: there is none.
        """
        meter = self._by_identity.get(identity)
        if meter is None:
            raise UnknownMeterError(f"no meter {identity!r} is known here; the meter list has those that are")
        return meter

    def identify(self, meter: CollectedMeter, name: str) -> CollectedMeter:
        """Give a meter its own identity; returns the entry to go on with.

        When that identity is known already, its communication module was exchanged: the old entry lives on
        with its history, at the new address.
        """
        identity = safe_identity(name)
        if identity == meter.identity:
            meter.identified = True
            return meter
        self._by_identity.pop(meter.identity, None)
        known = self._by_identity.get(identity)
        if known is not None:
            self._by_address.pop(known.record.link_address, None)
            known.record.link_address = meter.record.link_address
            known.address, known.joined_as = meter.address, meter.joined_as
            known.parent, known.level, known.hops, known.role = (
                meter.parent,
                meter.level,
                meter.hops,
                meter.role,
            )
            known.orders.extend(meter.orders)
            meter = known
        meter.record.identity = identity
        meter.identified = True
        self.add(meter)
        return meter
