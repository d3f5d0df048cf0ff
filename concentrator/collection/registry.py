"""The registry: every meter that is or ever was here, by identity and by address on its network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from concentrator.collection.errors import UnknownMeterError
from concentrator.collection.object_reader import KnownObjects
from concentrator.collection.profile_book import ProfileBook
from concentrator.model import MeterRecord, safe_identity
from concentrator.obis import Obis
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
    # What is known of its profiles, and of the objects that tasks read.
    profiles: dict[Obis, ProfileBook] = field(default_factory=lambda: dict[Obis, ProfileBook]())
    objects: KnownObjects = field(default_factory=KnownObjects)
    # Our invocation counters to it, by name: another one begins with a new key when the first runs out.
    counters: dict[str, InvocationCounter] = field(default_factory=dict[str, InvocationCounter])
    # The highest invocation counter that the meter says it has seen from us; used once.
    told_counter: int | None = None
    # APDUs refused because their invocation counter was not above the last.
    replays: int = 0
    # How often it refused us in a row.
    refusals: int = 0
    # Not to be visited for routine before this moment (monotonic seconds): it failed lately.
    rests_until: float = 0.0
    failures: int = 0
    visits: int = 0
    # Somebody else waits to speak with it, or does: our own dialogue makes way.
    wanted: int = 0
    # An order wants everything read, whether a task is due or not.
    collect_now: bool = False
    # Said once, not at every visit.
    clock_trouble: str = ""
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

    def add_order(self, pending: PendingOrder) -> None:
        """Take in an order: behind those that are as urgent, before the others."""
        place = next(
            (n for n, other in enumerate(self.orders) if other.order.priority > pending.order.priority),
            len(self.orders),
        )
        self.orders.insert(place, pending)

    @property
    def expected(self) -> int:
        """Intervals that it should have given, over all profiles and the history that is asked for."""
        return sum(book.expected for book in self.profiles.values())

    @property
    def stored(self) -> int:
        """Of these, how many are stored."""
        return sum(book.stored for book in self.profiles.values())

    @property
    def closed(self) -> int:
        """Of these, how many will never come."""
        return sum(book.closed for book in self.profiles.values())


class Registry:
    """Meters by identity, and by link address (EUI in hex). A `registry_orders.RecordHolder`."""

    link = "plc"

    def __init__(self) -> None:
        self._by_identity: dict[str, CollectedMeter] = {}
        self._by_address: dict[str, CollectedMeter] = {}
        # Identity, address before and after, of meters that were met at another address; taken by who writes it down.
        self.moves: list[tuple[str, str, str]] = []

    def __iter__(self) -> Iterator[CollectedMeter]:
        return iter(list(self._by_identity.values()))

    def __len__(self) -> int:
        return len(self._by_identity)

    def add(self, meter: CollectedMeter) -> None:
        """Take in a meter, new or from the store."""
        self._by_identity[meter.identity] = meter
        if meter.record.link_address:
            self._by_address[meter.record.link_address] = meter

    def find(self, identity: str) -> MeterRecord | None:
        """The record of a meter, or None."""
        meter = self._by_identity.get(identity)
        return None if meter is None else meter.record

    def adopt(self, record: MeterRecord) -> None:
        """Take in a meter that somebody entered, or that stands at another address now."""
        meter = self._by_identity.get(record.identity)
        if meter is None:
            meter = CollectedMeter(record)
        elif self._by_address.get(record.link_address) is not meter:
            meter.address = None
            for address in [address for address, one in self._by_address.items() if one is meter]:
                del self._by_address[address]
        met = self._by_address.get(record.link_address)
        if met is not None and met is not meter and not met.identified:
            # Its node was met before anybody said who it is.
            self._by_identity.pop(met.identity, None)
            _take_place(meter, met)
        meter.rests_until, meter.refusals = 0.0, 0
        self.add(meter)

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
            raise UnknownMeterError(
                f"no meter {identity!r} is known on the PLC network here; the meter list has those that are, "
                "and the link of each"
            )
        return meter

    def identify(self, meter: CollectedMeter, name: str) -> CollectedMeter:
        """Give a meter its own identity; returns the entry to go on with.

        When that identity is known already, its communication module was exchanged: the old entry lives on
        with its history, at the new address.
        """
        identity = safe_identity(name)
        if identity == meter.identity or meter.record.registration.manual:
            # Whoever entered it by hand has given it the identity that the head-end knows.
            meter.identified = True
            return meter
        self._by_identity.pop(meter.identity, None)
        known = self._by_identity.get(identity)
        if known is not None:
            self._by_address.pop(known.record.link_address, None)
            self.moves.append((identity, known.record.link_address, meter.record.link_address))
            known.record.link_address = meter.record.link_address
            _take_place(known, meter)
            meter = known
        meter.record.identity = identity
        meter.identified = True
        self.add(meter)
        return meter


def _take_place(meter: CollectedMeter, met: CollectedMeter) -> None:
    """What is known of a node is known of the meter that turned out to be it."""
    meter.address, meter.joined_as = met.address, met.joined_as
    meter.parent, meter.level, meter.hops, meter.role = met.parent, met.level, met.hops, met.role
    meter.orders.extend(met.orders)
