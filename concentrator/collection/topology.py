"""Who hangs where on the power line, since when, and how well: the history of a PLC network.

Fed with the events of a network (plc/network.py) and their times, it keeps for each node where it is and what became
of it, and counts what the reports of the Spanish concentrator interface call G01, the network's availability by hour,
and G02, each meter's by day. A node is available from NodeJoined to NodeLeft while the modem works; time in which
the modem is lost counts for nobody. Hours and days are UTC's. Pure: no clock, no store; memory is bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from plc.network import (
    Event,
    LinkQualityReported,
    ModemLost,
    NetworkStarted,
    NodeJoined,
    NodeLeft,
)

HOUR_S = 3600
DAY_S = 86_400

_PERCENT = 100.0
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that became of a node: `what` is joined, left, moved or role; `why` says it in words."""

    at: float  # seconds since 1970
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class NetworkHour:
    """A row of G01."""

    start: int  # seconds since 1970
    mean: float  # nodes available, mean over the time that the concentrator was up
    highest: int
    lowest: int
    total: int  # nodes known
    up_minutes: float

    @property
    def percent(self) -> float:
        """Share of the known nodes that were available."""
        return _PERCENT * self.mean / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class NodeDay:
    """A row of G02."""

    start: int  # seconds since 1970
    available_minutes: float
    changes: int  # times that it came or went
    up_minutes: float  # of the concentrator and its modem

    @property
    def percent(self) -> float:
        """Share of the time that the concentrator was up."""
        return _PERCENT * self.available_minutes / self.up_minutes if self.up_minutes else 0.0


@dataclass(slots=True)
class NodeHistory:
    """One node, as it is now, and what became of it, oldest first."""

    eui: bytes
    available: bool = False
    address: int | None = None
    parent: bytes | None = None
    level: int | None = None
    hops: int | None = None
    quality: int | None = None
    role: str = ""
    since: float = 0.0  # of its availability, or of its absence
    changes: deque[Change] = field(default_factory=deque[Change])
    days: deque[NodeDay] = field(default_factory=deque[NodeDay])
    available_s: float = 0.0  # of the day that is not over, up to `counted_to_s`
    counted_to_s: float = 0.0  # in seconds of the concentrator's being up
    comings_and_goings: int = 0  # of the day that is not over


class Topology:
    """The history of one network; `feed()` takes its events in their order."""

    def __init__(
        self,
        largest_network: int = 4096,
        changes_of_a_node: int = 64,
        hours: int = 8 * 24,
        days: int = 45,
    ) -> None:
        self._largest_network = largest_network
        self._changes_of_a_node = changes_of_a_node
        self._days = days
        self._nodes: dict[bytes, NodeHistory] = {}
        self._available: set[bytes] = set()
        self._hours: deque[NetworkHour] = deque(maxlen=hours)
        self._up = False
        self._now: float | None = None
        # Of the hour and the day that are not over.
        self._hour_node_s = 0.0
        self._hour_up_s = 0.0
        self._day_up_s = 0.0
        self._up_s = 0.0  # since ever: the clock by which availability is counted
        self._highest = 0
        self._lowest: int | None = None

    # What goes in.

    def feed(self, event: Event, at: float) -> None:
        """Take an event of the network and the time it came at, in seconds since 1970."""
        self.advance(at)
        match event:
            case NetworkStarted():
                self._up = True
                self._note_count()
            case ModemLost():
                self._up = False
            case NodeJoined():
                self._join(event, at)
            case NodeLeft():
                self._leave(event, at)
            case LinkQualityReported():
                self._link(event, at)
            case _:
                pass

    def advance(self, at: float) -> None:
        """Let time pass; a clock that was set back changes nothing until it has caught up."""
        if self._now is None:
            self._now = at
        while self._now < at:
            hour_end = (self._now // HOUR_S + 1) * HOUR_S
            end = min(at, hour_end)
            self._count(end - self._now)
            self._now = end
            if end == hour_end:
                self._end_hour(int(hour_end) - HOUR_S)
                if end % DAY_S == 0:
                    self._end_day(int(end) - DAY_S)

    # What comes out.

    def nodes(self) -> list[NodeHistory]:
        """All nodes that are known."""
        return list(self._nodes.values())

    def node(self, eui: bytes) -> NodeHistory | None:
        """One node, or None."""
        return self._nodes.get(eui)

    def children(self, eui: bytes | None) -> list[NodeHistory]:
        """The available nodes that hang directly under a node; under the modem with None."""
        return [self._nodes[one] for one in self._available if self._nodes[one].parent == eui]

    def network_hours(self) -> list[NetworkHour]:
        """The rows of G01, oldest first: hours that are over."""
        return list(self._hours)

    def node_days(self, eui: bytes) -> list[NodeDay]:
        """The rows of G02 of a node, oldest first: days that are over."""
        node = self._nodes.get(eui)
        return list(node.days) if node is not None else []

    # Counting.

    def _count(self, duration_s: float) -> None:
        if not self._up:
            return
        self._hour_up_s += duration_s
        self._day_up_s += duration_s
        self._up_s += duration_s
        self._hour_node_s += duration_s * len(self._available)
        self._note_count()

    def _note_count(self) -> None:
        count = len(self._available)
        self._highest = max(self._highest, count)
        self._lowest = count if self._lowest is None else min(self._lowest, count)

    def _end_hour(self, start: int) -> None:
        mean = self._hour_node_s / self._hour_up_s if self._hour_up_s else 0.0
        up_minutes = self._hour_up_s / _MINUTE_S
        self._hours.append(
            NetworkHour(start, mean, self._highest, self._lowest or 0, len(self._nodes), up_minutes)
        )
        self._hour_node_s = self._hour_up_s = 0.0
        self._highest, self._lowest = 0, None
        if self._up:
            self._note_count()

    def _end_day(self, start: int) -> None:
        up_minutes = self._day_up_s / _MINUTE_S
        for node in self._nodes.values():
            self._count_node(node)
            node.days.append(
                NodeDay(start, node.available_s / _MINUTE_S, node.comings_and_goings, up_minutes)
            )
            node.available_s = 0.0
            node.comings_and_goings = 0
        self._day_up_s = 0.0

    def _count_node(self, node: NodeHistory) -> None:
        if node.available:
            node.available_s += self._up_s - node.counted_to_s
        node.counted_to_s = self._up_s

    # Nodes.

    def _find(self, eui: bytes) -> NodeHistory:
        node = self._nodes.get(eui)
        if node is None:
            if len(self._nodes) >= self._largest_network:
                self._forget_one()
            node = NodeHistory(
                eui, changes=deque(maxlen=self._changes_of_a_node), days=deque(maxlen=self._days)
            )
            node.counted_to_s = self._up_s
            self._nodes[eui] = node
        return node

    def _forget_one(self) -> None:
        """Make room: the node that has been away for longest goes, or else the oldest one."""
        oldest = min(self._nodes.values(), key=lambda node: (node.available, node.since))
        self._available.discard(oldest.eui)
        del self._nodes[oldest.eui]

    def _join(self, event: NodeJoined, at: float) -> None:
        node = self._find(event.eui)
        node.address = event.address
        if node.available:
            # Told again, as it is after each list.
            return
        self._count_node(node)
        node.available, node.since = True, at
        node.comings_and_goings += 1
        self._available.add(event.eui)
        self._note_count()
        node.changes.append(Change(at, "joined", f"address 0x{event.address:04X}"))

    def _leave(self, event: NodeLeft, at: float) -> None:
        node = self._nodes.get(event.eui)
        if node is None or not node.available:
            return
        self._count_node(node)
        node.available, node.since, node.address = False, at, None
        node.comings_and_goings += 1
        self._available.discard(event.eui)
        self._note_count()
        node.changes.append(Change(at, "left", event.reason))

    def _link(self, event: LinkQualityReported, at: float) -> None:
        node = self._find(event.eui)
        placed = node.level is not None or node.hops is not None
        if placed and event.parent != node.parent:
            node.changes.append(Change(at, "moved", f"from {_name(node.parent)} to {_name(event.parent)}"))
        if event.role and node.role and event.role != node.role:
            node.changes.append(Change(at, "role", f"from {node.role} to {event.role}"))
        node.parent, node.level, node.hops = event.parent, event.level, event.hops
        node.role = event.role or node.role
        if event.quality is not None:
            node.quality = event.quality


def _name(parent: bytes | None) -> str:
    return "the modem" if parent is None else parent.hex()
