"""The pages of the PLC network: who hangs where, and what became of one node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from concentrator.errors import LocalError
from concentrator.web import network_queries
from concentrator.web.live import Snapshot
from concentrator.web.sources import Sources
from concentrator.web.topology import Picture, Place, branch, draw, matching, trace
from concentrator.web.translations import mark
from concentrator.web.views import Asked, Part, View, notices
from concentrator.web.visitors import Visitor

_EUI = re.compile(r"^[0-9a-f]{12}([0-9a-f]{4})?$")
_ALL_LEVELS = 99
_CHANGE_ROWS = 64
_DAY_ROWS = 45
# The service is asked anew after so long, however many look.
_KEPT_S = 3.0
_MOST_DRAWN = 16
_PAGE_ROWS = 100


@dataclass(frozen=True, slots=True)
class NetworkQuery:
    """What of the network is shown: the parameters of the address, checked. `levels` 0 is all of them."""

    below: str = ""
    levels: int = 0
    find: str = ""
    colour: str = ""
    page: int = 1

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> NetworkQuery:
        """Take an address's parameters; what makes no sense is left out."""
        levels, page = given.get("levels", ""), given.get("page", "")
        return cls(
            below=given.get("below", "").strip().lower()[:32],
            levels=int(levels) if re.fullmatch(r"[1-9]", levels) else 0,
            find=given.get("find", "").strip()[:64],
            colour="hops" if given.get("colour") == "hops" else "",
            page=int(page) if re.fullmatch(r"[1-9][0-9]{0,4}", page) else 1,
        )

    def parameters(self, **changes: str | int) -> dict[str, str]:
        """The address's parameters, with changes; the defaults are left out."""
        values: dict[str, str | int] = {**asdict(self), **changes}
        defaults = {"levels": 0, "page": 1}
        return {name: str(value) for name, value in values.items() if value != defaults.get(name, "")}


class UnknownNodeError(LocalError):
    """Nobody knows this node of the network."""

    def __init__(self, eui: str) -> None:
        super().__init__(f"no node {eui!r} is known here; the network's page has those that are")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: where it is, whether the service told so, who hangs below it, what became of it."""

    place: Place
    live: bool
    children: list[tuple[str, str]]
    changes: list[network_queries.NodeChange]
    days: list[network_queries.NodeDay]
    names: dict[str, str]


class NetworkViews:
    """Makes them."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._drawn: dict[tuple[str, int], tuple[tuple[Place, ...], Picture]] = {}
        self._kept: tuple[float, tuple[Place, ...], bool] | None = None

    async def topology(self, snapshot: Snapshot, asked: Asked) -> View:
        """The picture, and the same as a table."""
        places, live = await self.places(snapshot, asked.visitor)
        query = NetworkQuery.from_parameters(asked.parameters)
        below = query.below
        top = next((place for place in places if place.eui == below and place.available), None)
        if top is None:
            query, below = replace(query, below=""), ""
        picture = self._picture(places, below, query.levels or _ALL_LEVELS)
        inside = branch(places, below) if below else list(places)
        found = matching(inside, query.find) if query.find else inside
        traced = trace(picture, found) if query.find else None
        found.sort(key=lambda place: (place.available, place.name))
        pages = max(1, -(-len(found) // _PAGE_ROWS))
        page = min(query.page, pages)
        rows = tuple(found[(page - 1) * _PAGE_ROWS : page * _PAGE_ROWS])
        parents = {row.parent for row in rows}
        names = {place.eui: place.name for place in places if place.eui in parents}
        counts = (len(found), len(places), sum(not place.available for place in places))
        return View(
            "topology.html",
            mark("Network"),
            {
                **notices(snapshot, snapshot.status or {}),
                "picture": Part(
                    "network_picture.html", (self._family(snapshot), picture, (top, query), live, traced)
                ),
                "nodes": Part("network_table.html", (rows, counts, names, (page, pages), query)),
            },
            {"query": query},
        )

    async def node(self, snapshot: Snapshot, asked: Asked) -> View:
        """One node with what became of it.

        Raises:
            UnknownNodeError: nobody knows it.
        """
        found, reason = await self.node_facts(snapshot, asked.visitor, asked.identity)
        place, names = found.place, found.names
        return View(
            "node.html",
            place.name,
            {
                **notices(snapshot, snapshot.status or {}, reason),
                "facts": Part("node_facts.html", (place, names, found.children, found.live)),
                "changes": Part("node_changes.html", found.changes),
                "days": Part(
                    "node_days.html",
                    [(datetime.fromtimestamp(day.start, UTC).date(), day) for day in found.days],
                ),
            },
            {"place": place},
        )

    async def node_facts(self, snapshot: Snapshot, visitor: Visitor, eui: str) -> tuple[NodeFacts, str]:
        """What is known of a node, and why its history is not, or "".

        Raises:
            UnknownNodeError: nobody knows it.
        """
        if not _EUI.match(eui):
            raise UnknownNodeError(eui)
        places, live = await self.places(snapshot, visitor)
        place = next((one for one in places if one.eui == eui), None)
        if place is None:
            raise UnknownNodeError(eui)
        ask = self._sources.ask_statistics
        changes, reason = await ask(lambda c: network_queries.changes(c, eui, _CHANGE_ROWS), [])
        days, _reason = await ask(lambda c: network_queries.node_days(c, eui, _DAY_ROWS), [])
        told = await self._sources.watch.question("topology", visitor, eui) if live else None
        if told is not None and told.get("known"):
            # The store is up to a minute behind.
            changes = [
                network_queries.NodeChange(datetime.fromisoformat(one["at"]), one["what"], one["why"])
                for one in reversed(told["changes"])
                if one["at"]
            ]
        children = [(one.eui, one.name) for one in places if one.parent == eui and one.available]
        return NodeFacts(place, live, children, changes, days, _names(places)), reason

    def _picture(self, places: tuple[Place, ...], below: str, levels: int) -> Picture:
        """Drawn once for all who look, for as long as the places are the same."""
        drawn = self._drawn.get((below, levels))
        if drawn is None or drawn[0] is not places:
            if len(self._drawn) >= _MOST_DRAWN:
                self._drawn.clear()
            drawn = self._drawn[below, levels] = (places, draw(places, below=below, levels=levels))
        return drawn[1]

    async def places(self, snapshot: Snapshot, visitor: Visitor) -> tuple[tuple[Place, ...], bool]:
        """All nodes, and whether the service told them or the store kept them."""
        now = self._sources.clock.monotonic()
        if self._kept is not None and now - self._kept[0] < _KEPT_S:
            return self._kept[1:]
        family = self._family(snapshot)
        told = None
        if snapshot.status is not None:
            told = await self._sources.watch.question("topology", visitor)
        if told is not None and isinstance(told.get("nodes"), list):
            places = tuple(Place.from_told(node, family, {}) for node in told["nodes"])
        else:
            nodes, _reason = await self._sources.ask_statistics(network_queries.places, [])
            names: dict[str, str] = {}
            names, _reason = await self._sources.ask(network_queries.names, names)
            places = tuple(Place.from_told(node, family, names) for node in nodes)
            told = None
        if self._kept is not None and self._kept[1] == places:
            places = self._kept[1]
        self._kept = (now, places, told is not None)
        return places, told is not None

    def _family(self, snapshot: Snapshot) -> str:
        modem: Mapping[str, Any] = (snapshot.status or {}).get("modem") or {}
        configured = self._sources.config.modem
        return str(modem.get("family") or (configured.family if configured is not None else ""))


def _names(places: tuple[Place, ...]) -> dict[str, str]:
    return {place.eui: place.name for place in places}
