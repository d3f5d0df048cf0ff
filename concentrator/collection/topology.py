"""Who hangs where on the power line, since when, and how well: the history of a PLC network.

Fed with the events of a network (plc/network.py) and their times, it keeps for each node where it is and what
became of it, and counts what the reports of the Spanish concentrator interface call G01, the network's availability
by hour, and G02, each meter's by day. A node is available from NodeJoined to NodeLeft while the modem works; time
in which the modem is lost counts for nobody. Hours and days are UTC's. Pure: no clock; what is to be kept over a
restart is taken and given as batches; memory is bounded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from concentrator.store.network_history import Change, HistoryBatch, NetworkHour, NodeDay
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

_MINUTE_S = 60.0
# After a restart of the service a node has so long to be told as joined before it is said to be away.
_CONFIRM_S = 600.0
# Changes that wait for the store; beyond it the oldest go.
_LARGEST_UNKEPT = 20_000


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
    reverse_quality: int | None = None
    modulation: str = ""
    media: str = ""
    role: str = ""
    since: float = 0.0  # of its availability, or of its absence
    changes: deque[Change] = field(default_factory=deque[Change])
    days: deque[NodeDay] = field(default_factory=deque[NodeDay])
    available_s: float = 0.0  # of the day that is not over, up to `counted_to_s`
    counted_to_s: float = 0.0  # in seconds of the concentrator's being up
    comings_and_goings: int = 0  # of the day that is not over
    expected: bool = False  # it was available when the service ended, and is not told anew yet


class Topology:
    """The history of one network; `feed()` takes its events in their order."""

    def __init__(
        self,
        largest_network: int = 4096,
        changes_of_a_node: int = 64,
        hours: int = 8 * 24,
        days: int = 45,
    ) -> None:
        self.changes_of_a_node = changes_of_a_node
        self.hours = hours
        self.days = days
        self._largest_network = largest_network
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
        self._confirm_until: float | None = None  # restored nodes have to be told until then
        # What is new since take_batch() was called last.
        self._new = HistoryBatch()
        self._touched: set[bytes] = set()

    # What goes in.

    def feed(self, event: Event, at: float) -> None:
        """Take an event of the network and the time it came at, in seconds since 1970."""
        self.advance(at)
        match event:
            case NetworkStarted():
                self._up = True
                if self._confirm_until is None and any(node.expected for node in self._nodes.values()):
                    self._confirm_until = at + _CONFIRM_S
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
        if self._up and self._confirm_until is not None and at >= self._confirm_until:
            self._give_up_expected(at)

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

    # Keeping it over restarts.

    def take_batch(self) -> HistoryBatch:
        """What is new since this was called last, for the store."""
        batch, self._new = self._new, HistoryBatch()
        for eui in self._touched:
            node = self._nodes[eui]
            self._count_node(node)
            batch.nodes[eui.hex()] = _state_of(node)
        self._touched = set(self._available)
        batch.running = {
            "now": self._now,
            "hour_node_s": self._hour_node_s,
            "hour_up_s": self._hour_up_s,
            "day_up_s": self._day_up_s,
            "highest": self._highest,
            "lowest": self._lowest,
        }
        return batch

    def put_back(self, batch: HistoryBatch) -> None:
        """Undo take_batch(): the store did not take it."""
        for name in ("changes", "hours", "days", "forgotten"):
            setattr(self._new, name, getattr(batch, name) + getattr(self._new, name))
        self._touched |= {bytes.fromhex(eui) for eui in batch.nodes} & self._nodes.keys()

    def restore(self, batch: HistoryBatch) -> None:
        """Begin with what the store has kept. Nodes that were available are expected, and count when they are told."""
        for name, state in batch.nodes.items():
            node = self._find(bytes.fromhex(name))
            for field_name in _KEPT_FIELDS:
                setattr(node, field_name, state.get(field_name, getattr(node, field_name)))
            node.parent = bytes.fromhex(state["parent"]) if state.get("parent") else None
            node.expected = bool(state.get("available"))
        for name, change in batch.changes:
            node = self._nodes.get(bytes.fromhex(name))
            if node is not None:
                node.changes.append(change)
        for name, day in batch.days:
            node = self._nodes.get(bytes.fromhex(name))
            if node is not None:
                node.days.append(day)
        self._hours.extend(batch.hours)
        running = batch.running
        self._now = running.get("now")
        self._hour_node_s = running.get("hour_node_s", 0.0)
        self._hour_up_s = running.get("hour_up_s", 0.0)
        self._day_up_s = running.get("day_up_s", 0.0)
        self._highest = running.get("highest", 0)
        self._lowest = running.get("lowest")

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
        hour = NetworkHour(start, mean, self._highest, self._lowest or 0, len(self._nodes), up_minutes)
        self._hours.append(hour)
        self._new.hours.append(hour)
        self._hour_node_s = self._hour_up_s = 0.0
        self._highest, self._lowest = 0, None
        if self._up:
            self._note_count()

    def _end_day(self, start: int) -> None:
        up_minutes = self._day_up_s / _MINUTE_S
        for node in self._nodes.values():
            self._count_node(node)
            day = NodeDay(start, node.available_s / _MINUTE_S, node.comings_and_goings, up_minutes)
            node.days.append(day)
            self._new.days.append((node.eui.hex(), day))
            self._touched.add(node.eui)
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
                eui, changes=deque(maxlen=self.changes_of_a_node), days=deque(maxlen=self.days)
            )
            node.counted_to_s = self._up_s
            self._nodes[eui] = node
        return node

    def _forget_one(self) -> None:
        """Make room: the node that has been away for longest goes, or else the oldest one."""
        oldest = min(self._nodes.values(), key=lambda node: (node.available, node.since))
        self._available.discard(oldest.eui)
        del self._nodes[oldest.eui]
        self._touched.discard(oldest.eui)
        name = oldest.eui.hex()
        self._new.changes = [entry for entry in self._new.changes if entry[0] != name]
        self._new.days = [entry for entry in self._new.days if entry[0] != name]
        self._new.forgotten.append(name)

    def _change(self, node: NodeHistory, at: float, what: str, why: str) -> None:
        change = Change(at, what, why)
        node.changes.append(change)
        self._new.changes.append((node.eui.hex(), change))
        if len(self._new.changes) > 2 * _LARGEST_UNKEPT:
            # The store has taken nothing for long.
            del self._new.changes[:_LARGEST_UNKEPT]

    def _give_up_expected(self, at: float) -> None:
        self._confirm_until = None
        for node in self._nodes.values():
            if node.expected:
                node.expected = False
                node.since = at
                node.comings_and_goings += 1
                self._touched.add(node.eui)
                self._change(
                    node, at, "left", "not on the network any more after a restart of the concentrator"
                )

    def _join(self, event: NodeJoined, at: float) -> None:
        node = self._find(event.eui)
        node.address = event.address
        if node.available:
            # Told again, as it is after each list.
            return
        self._count_node(node)
        node.available = True
        self._touched.add(event.eui)
        self._available.add(event.eui)
        self._note_count()
        if node.expected:
            # It never went: the concentrator did.
            node.expected = False
            return
        node.since = at
        node.comings_and_goings += 1
        self._change(node, at, "joined", f"address 0x{event.address:04X}")

    def _leave(self, event: NodeLeft, at: float) -> None:
        node = self._nodes.get(event.eui)
        if node is None or not node.available:
            return
        self._count_node(node)
        node.available, node.since, node.address = False, at, None
        node.comings_and_goings += 1
        self._available.discard(event.eui)
        self._note_count()
        self._touched.add(event.eui)
        self._change(node, at, "left", event.reason)

    def _link(self, event: LinkQualityReported, at: float) -> None:
        node = self._find(event.eui)
        placed = node.level is not None or node.hops is not None
        if placed and event.parent != node.parent:
            self._change(node, at, "moved", f"from {_name(node.parent)} to {_name(event.parent)}")
        if event.role and node.role and event.role != node.role:
            self._change(node, at, "role", f"from {node.role} to {event.role}")
        self._touched.add(event.eui)
        node.parent, node.level, node.hops = event.parent, event.level, event.hops
        node.role = event.role or node.role
        if event.quality is not None:
            node.quality = event.quality
        if event.reverse_quality is not None:
            node.reverse_quality = event.reverse_quality
        node.modulation = event.modulation or node.modulation
        if event.media and node.media and event.media != node.media:
            self._change(node, at, "moved", f"from {node.media.upper()} to {event.media.upper()}")
        node.media = event.media or node.media


# What a node's row in the store holds beside its parent and whether it was available.
_KEPT_FIELDS = (
    "level", "hops", "quality", "reverse_quality", "modulation", "media", "role", "since", "available_s",
    "comings_and_goings",
)  # fmt: skip


def _state_of(node: NodeHistory) -> dict[str, Any]:
    state: dict[str, Any] = {name: getattr(node, name) for name in _KEPT_FIELDS}
    state["parent"] = node.parent.hex() if node.parent is not None else None
    state["available"] = node.available or node.expected
    return state


def _name(parent: bytes | None) -> str:
    return "the modem" if parent is None else parent.hex()
