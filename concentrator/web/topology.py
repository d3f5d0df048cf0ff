"""The PLC network as a picture: the tree of PRIME, the routes of G3, the stations of S-FSK.

Rows from top to bottom, levels from left to right. A node with others below it has a row of its own; those that
have none stand as dots in lines to its right, so that five hundred nodes are one screen or two, or with their names
when there are few. Where a way is known only by its hops, nodes are gathered by these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from concentrator.web.words import Tone

WIDTH = 1000
# Up to so many nodes all have their names in the picture.
_MOST_NAMED = 60
_LEFT, _TOP = 14, 20
_ROW, _DOT_STEP = 24, 15
_WIDEST_STEP, _NARROWEST_STEP = 150, 34
_NAME_ROOM = 230
_MOST_TRACED = 20
_MOST_FOUND = 300
# LQI of G3 is (SNR + 10 dB) times 4 (ITU-T G.9903): 10 dB and 3 dB. The SNR code of PRIME counts 0 to 7. Of wireless
# M-Bus it is dBm: EN 13757-4 asks a receiver for -100 dBm or better; from -95 dBm on little is left for fading.
_GOOD = {"g3": 80, "prime": 4, "wmbus": -85}
_FAIR = {"g3": 52, "prime": 2, "wmbus": -95}


@dataclass(frozen=True, slots=True)
class Place:
    """One node, where it is. `tone` and `link_words` say how good the way to it is."""

    eui: str
    meter: str
    available: bool
    since: str | None
    parent: str
    level: int | None
    hops: int | None
    role: str
    quality: int | None
    reverse_quality: int | None
    modulation: str
    media: str
    tone: Tone
    link_words: str

    @property
    def name(self) -> str:
        """For a reader."""
        return self.meter or self.eui

    @property
    def distance(self) -> int | None:
        """How many hops away, 1 directly: as G3 tells it, or by the level of PRIME."""
        if self.hops:
            return self.hops
        return self.level + 1 if self.level is not None else None

    @classmethod
    def from_told(cls, node: Mapping[str, Any], family: str, names: Mapping[str, str]) -> Place:
        """From what the service told or the store kept."""
        quality = node.get("quality")
        tone, words = link_quality(quality, family)
        return cls(
            eui=str(node["eui"]),
            meter=str(node.get("meter") or names.get(str(node["eui"]), "")),
            available=bool(node.get("available")),
            since=node.get("since"),
            parent=str(node.get("parent") or ""),
            level=node.get("level"),
            hops=node.get("hops"),
            role=str(node.get("role") or ""),
            quality=quality,
            reverse_quality=node.get("reverse_quality"),
            modulation=str(node.get("modulation") or ""),
            media=str(node.get("media") or ""),
            tone=tone if node.get("available") else "off",
            link_words=words,
        )


def link_quality(quality: int | None, family: str) -> tuple[Tone, str]:
    """A link's figure as a tone and a word."""
    if quality is None or family not in _GOOD:
        return "busy", "not known"
    if quality >= _GOOD[family]:
        return "good", "good"
    return ("warn", "fair") if quality >= _FAIR[family] else ("bad", "weak")


@dataclass(frozen=True, slots=True)
class Mark:
    """A node in the picture; `below` is how many hang under it, `folded` how many of them are not drawn.

    `start` is where the way to it begins: the node above it, the concentrator, or a gathering.
    """

    place: Place
    x: float
    y: float
    named: bool
    below: int
    folded: int
    start: tuple[float, float] = (0.0, 0.0)

    @property
    def way(self) -> str:
        """The way to it, as an SVG path."""
        return f"M{self.start[0]:g} {self.start[1]:g}V{self.y:g}H{self.x:g}"


@dataclass(frozen=True, slots=True)
class Gathering:
    """A row for nodes that have a number of hops or levels in common, and no known parent."""

    words: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn. `ways` is one path of all links."""

    height: int
    marks: tuple[Mark, ...]
    gatherings: tuple[Gathering, ...]
    ways: str
    deepest: int
    circles: int


class _Layout:
    """Places rows one after the other."""

    def __init__(
        self, children: Mapping[str, Sequence[Place]], step: float, levels: int, *, named: bool
    ) -> None:
        self.y = float(_TOP)
        self.marks: list[Mark] = []
        self.ways: list[str] = []
        self.seen: set[str] = set()
        self._children = children
        self._step = step
        self._levels = levels
        self._named = named

    def below(self, eui: str) -> int:
        """How many nodes hang under one, at any depth."""
        count, waiting, met = 0, [eui], {eui}
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child.eui not in met:
                    met.add(child.eui)
                    waiting.append(child.eui)
                    count += 1
        return count

    def children_of(self, eui: str, depth: int, x: float, y: float) -> None:
        """Draw everything under a node that stands at `x`, `y`."""
        children = [child for child in self._children.get(eui, ()) if child.eui not in self.seen]
        self.seen.update(child.eui for child in children)
        leaves = [child for child in children if self._named or not self._children.get(child.eui)]
        branches = [child for child in children if child not in leaves or self._children.get(child.eui)]
        leaves = [child for child in leaves if child not in branches]
        left = x + self._step
        if self._named:
            for leaf in leaves:
                self.y += _ROW
                self._way(x, y, left)
                self.marks.append(Mark(leaf, left, self.y, named=True, below=0, folded=0, start=(x, y)))
        else:
            self._dots(leaves, x, y, left)
        for branch in branches:
            self.y += _ROW
            self._way(x, y, left)
            below = self.below(branch.eui)
            folded = below if depth >= self._levels else 0
            self.marks.append(
                Mark(branch, left, self.y, named=True, below=below, folded=folded, start=(x, y))
            )
            if not folded:
                self.children_of(branch.eui, depth + 1, left, self.y)

    def _dots(self, leaves: Sequence[Place], x: float, y: float, left: float) -> None:
        a_line = max(8, int((WIDTH - left - _LEFT) // _DOT_STEP))
        for first in range(0, len(leaves), a_line):
            self.y += _ROW if first == 0 else _DOT_STEP
            self._way(x, y, left)
            for number, leaf in enumerate(leaves[first : first + a_line]):
                at = left + number * _DOT_STEP
                self.marks.append(Mark(leaf, at, self.y, named=False, below=0, folded=0, start=(x, y)))

    def _way(self, x: float, y: float, to: float) -> None:
        self.ways.append(f"M{x:g} {y:g}V{self.y:g}H{to:g}")


def draw(places: Sequence[Place], *, below: str = "", levels: int = 99) -> Picture:
    """Draw the nodes that are on the network: all, or those under the node `below`; `levels` deep."""
    present = {place.eui: place for place in places if place.available}
    children: dict[str, list[Place]] = {}
    gathered: dict[str, list[Place]] = {}
    for place in sorted(present.values(), key=lambda place: place.name):
        far = (place.hops or 1) - 1 or (place.level or 0)
        if place.parent in present:
            children.setdefault(place.parent, []).append(place)
        elif far > 0:
            words = f"{place.hops} hops" if place.hops else f"level {place.level}"
            gathered.setdefault(words, []).append(place)
        else:
            children.setdefault("", []).append(place)
    for words, nodes in gathered.items():
        children[f"gathered {words}"] = nodes
    deepest = _deepest(children, below)
    room = (WIDTH - _NAME_ROOM) / max(1, min(deepest, levels))
    step = max(_NARROWEST_STEP, min(_WIDEST_STEP, room))
    layout = _Layout(children, step, levels, named=False)
    shown = layout.below(below) if below else len(present)
    layout = _Layout(children, step, levels, named=shown <= _MOST_NAMED)
    layout.seen.add(below)
    layout.children_of(below, 1, _LEFT, _TOP)
    gatherings: list[Gathering] = []
    if not below:
        for words in sorted(gathered):
            layout.y += _ROW
            gatherings.append(Gathering(words, _LEFT, layout.y))
            layout.children_of(f"gathered {words}", 1, _LEFT, layout.y)
    drawn = {mark.place.eui for mark in layout.marks}
    circles = 0 if below or levels <= deepest else len(present.keys() - drawn)
    return Picture(
        round(layout.y + _TOP), tuple(layout.marks), tuple(gatherings), "".join(layout.ways), deepest, circles
    )


@dataclass(frozen=True, slots=True)
class Trace:
    """Where nodes that were searched for are: their marks, and the ways from the concentrator to them as one path."""

    marks: tuple[Mark, ...]
    ways: str
    found: int


def trace(picture: Picture, found: Sequence[Place]) -> Trace:
    """Find nodes in a picture. Ways are drawn to the first few only: to many they would be the whole picture."""
    marks = {mark.place.eui: mark for mark in picture.marks}
    drawn = [marks[place.eui] for place in found if place.eui in marks]
    ways: dict[str, None] = {}
    for mark in drawn[:_MOST_TRACED]:
        above: Mark | None = mark
        while above is not None and above.way not in ways:
            ways[above.way] = None
            above = marks.get(above.place.parent)
    return Trace(tuple(drawn[:_MOST_FOUND]), "".join(ways), len(found))


def matching(places: Sequence[Place], text: str) -> list[Place]:
    """The nodes whose name or EUI contains a text."""
    wanted = text.casefold()
    return [place for place in places if wanted in place.name.casefold() or wanted in place.eui]


def branch(places: Sequence[Place], eui: str) -> list[Place]:
    """A node and all that hang under it."""
    children: dict[str, list[Place]] = {}
    for place in places:
        if place.available:
            children.setdefault(place.parent, []).append(place)
    found = {place.eui: place for place in places if place.eui == eui}
    waiting = [eui]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.eui not in found:
                found[child.eui] = child
                waiting.append(child.eui)
    return list(found.values())


def _deepest(children: Mapping[str, Sequence[Place]], root: str) -> int:
    begin = [root] if root else [key for key in children if not key or key.startswith("gathered ")]
    depth, met = 0, set(begin)
    while begin:
        begin = [child.eui for key in begin for child in children.get(key, ()) if child.eui not in met]
        met.update(begin)
        depth += bool(begin)
    return depth
