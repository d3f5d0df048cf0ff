"""The pages as data: each is a set of named parts, made the same way for a first load and for the live stream.

A part is a template and the data that it shows. The page places all its parts; the stream renders again
only those whose data has changed. So a page without script shows the same as one with it, at its age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from concentrator.errors import LocalError
from concentrator.model import IDENTITY_PATTERN
from concentrator.web import attention, profile_chart, queries
from concentrator.web.live import Snapshot
from concentrator.web.machine import Machine
from concentrator.web.meters import MeterQuery, MeterView, select
from concentrator.web.order_desk import CHANGES, CONFIRMED, OPERATIONS, TASKS, OrderDesk
from concentrator.web.sources import Sources
from concentrator.web.task_views import TASK_KINDS
from concentrator.web.topology import link_quality
from concentrator.web.translations import Message, mark
from concentrator.web.visitors import Visitor

MATRIX_ROWS = 40
# What a wall screen shows without being scrolled: the more there is to tell, the fewer rows.
_WALL_ROWS, _LEAST_WALL_ROWS = 8, 3
_WALL_CONCERNS = 4
_METER_EVENT_ROWS = 20
_METER_EVENT_DAYS = 30
_DAY_S = 86_400
_GAP_ROWS = 50
_PORT_TROUBLES: dict[str, dict[str, str]] = {
    "modem": {
        "port lost": mark("The modem's port was lost."),
        "port missing": mark("The modem's port cannot be opened."),
    },
    "radio": {
        "port lost": mark("The radio module's port was lost."),
        "port missing": mark("The radio module's port cannot be opened."),
    },
}


class UnknownMeterError(LocalError):
    """Neither the service nor the store knows this meter."""

    def __init__(self, identity: str) -> None:
        super().__init__(f"no meter {identity!r} is known here; the meter list has those that are")


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a page that is replaced as a whole. Parts with equal data look the same."""

    template: str
    data: Any


@dataclass(frozen=True, slots=True)
class View:
    """A page: its template, its parts, and what else the template needs that does not change live."""

    template: str
    title: Message | str
    parts: dict[str, Part]
    fixed: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: the meter in the path, the parameters of the address; and by whom."""

    parameters: Mapping[str, str]
    identity: str = ""
    visitor: Visitor = field(default_factory=Visitor)


class Views:
    """Makes the pages."""

    def __init__(self, sources: Sources, desk: OrderDesk) -> None:
        self._sources = sources
        self._desk = desk

    async def overview(self, snapshot: Snapshot, asked: Asked) -> View:
        """Is everything read? What is not, and why?"""
        sources = self._sources
        status: dict[str, Any] = snapshot.status or {}
        meters = await sources.meters(snapshot)
        wall = asked.parameters.get("view") == "wall"
        totals = sources.totals(meters)
        by_hour = asked.parameters.get("by") == "hour"
        matrix, store_reason = await sources.matrix(snapshot)
        concerns = await attention.look(sources, snapshot, store_reason)
        rows, most = MATRIX_ROWS, attention.MOST_SHOWN
        if wall:
            told = min(len(concerns), _WALL_CONCERNS) + bool(totals.never_read)
            rows, most = max(_LEAST_WALL_ROWS, _WALL_ROWS - told), _WALL_CONCERNS
        completeness = Part("matrix.html", (matrix, store_reason, rows))
        if by_hour:
            completeness = Part("hours.html", (await sources.hours(snapshot), store_reason, rows))
        box = sources.config.concentrator
        who = (
            box.name,
            box.site,
            status.get("software", ""),
            _moment(status.get("started_at")),
            snapshot.state,
        )
        store: dict[str, Any] = status.get("store") or {}
        disk = sources.disk()
        return View(
            "wall.html" if wall else "overview.html",
            mark("Overview"),
            {
                # What stands on top of other pages is here among all that needs a person.
                **notices(snapshot, {}),
                "attention": Part("attention.html", (concerns, most)),
                "totals": Part("totals.html", (snapshot.state, totals)),
                "box": Part("box.html", who),
                "modem": Part(
                    "port.html", (mark("Modem"), sources.config.modem, status.get("modem"), snapshot.state)
                ),
                "radio": Part(
                    "port.html", (mark("Radio"), sources.config.radio, status.get("radio"), snapshot.state)
                ),
                "destinations": Part(
                    "destinations.html", (snapshot.state, await sources.destinations(snapshot))
                ),
                "store": Part(
                    "store.html",
                    (
                        store.get("unavailable", "") or store_reason,
                        # In steps, so that not every written page of the file is news.
                        sources.store_octets() // 10_000 * 10_000,
                        tuple(octets // 10_000_000 * 10_000_000 for octets in disk) if disk else None,
                        sources.config.store.retention_days,
                    ),
                ),
                "matrix": completeness,
                "reachability": Part("reachability.html", await sources.reachability()),
                "alarms": Part("alarms.html", await sources.alarms()),
                "machine": Part("machine.html", (status.get("clock"), _coarse(sources.machine()))),
            },
        )

    async def meters(self, snapshot: Snapshot, asked: Asked) -> View:
        """The list."""
        query = MeterQuery.from_parameters(asked.parameters)
        found = select(await self._sources.meters(snapshot), query, self._sources.clock.now())
        rows = {f"meter-{meter.identity}": Part("meter_row.html", meter) for meter in found.rows}
        summary = (found.found, found.known, found.page, found.pages, query)
        filters = (
            found.states,
            found.media,
            found.keys,
            (found.incomplete, found.stale, found.below),
            query,
        )
        return View(
            "meters.html",
            mark("Meters"),
            {
                **notices(snapshot, snapshot.status or {}),
                "filters": Part("filters.html", filters),
                "found": Part("found.html", summary),
                **rows,
            },
            {"rows": list(rows), "query": query},
        )

    async def meter(self, snapshot: Snapshot, asked: Asked) -> View:
        """One meter.

        Raises:
            UnknownMeterError: nobody knows it.
        """
        sources, identity = self._sources, asked.identity
        if not IDENTITY_PATTERN.match(identity):
            raise UnknownMeterError(identity)
        meter = next((one for one in await sources.meters(snapshot) if one.identity == identity), None)
        if meter is None:
            raise UnknownMeterError(identity)
        latest, reason = await sources.ask(lambda c: queries.latest_values(c, identity), [])
        gaps, _reason = await sources.ask(lambda c: queries.gaps(c, identity, _GAP_ROWS), [])
        events, _reason = await sources.ask(
            lambda c: queries.events(c, _METER_EVENT_ROWS, meter=identity), []
        )
        since = int(sources.clock.now().timestamp()) - _METER_EVENT_DAYS * _DAY_S
        own_events, _reason = await sources.ask(
            lambda c: queries.meter_events(c, _METER_EVENT_ROWS, since, identity), []
        )
        parent = await self._parent(snapshot, meter)
        charted = await profile_chart.shown(sources, identity, latest, asked.parameters)
        return View(
            "meter.html",
            identity,
            {
                **notices(snapshot, snapshot.status or {}, reason),
                "meter": Part("meter_facts.html", (meter, parent, signal_quality(meter, snapshot))),
                "orders": Part("orders.html", [order.data for order in self._desk.of(identity)]),
                "latest": Part("latest.html", latest),
                "chart": Part("chart.html", (identity, charted)),
                "gaps": Part("gaps.html", gaps),
                "own_events": Part("meter_events.html", (own_events, False, _METER_EVENT_DAYS, identity)),
                "events": Part("events.html", (events, None)),
            },
            {
                "identity": identity,
                "meter": meter,
                "channels": latest,
                "channel": charted.channel.channel_id if charted.channel else None,
                "days": charted.days,
                "day": charted.day,
                "buttons": _buttons(asked.visitor) if meter.link == "plc" else {},
                "switch": _switch_buttons(asked.visitor) if meter.link == "plc" else {},
            },
        )

    async def tasks(self, snapshot: Snapshot, _asked: Asked) -> View:
        """What is read from which meters, when, and how far it is."""
        status: dict[str, Any] = snapshot.status or {}
        return View(
            "tasks.html",
            mark("Tasks"),
            {
                **notices(snapshot, status),
                "tasks": Part("tasks.html", (snapshot.state, status.get("tasks", []))),
                "orders": Part("orders.html", [order.data for order in self._desk.of(TASKS)]),
            },
            {"kinds": TASK_KINDS},
        )

    async def _parent(self, snapshot: Snapshot, meter: MeterView) -> str:
        """The identity of the node that a meter hangs from, where it is a known meter."""
        if not meter.parent:
            return ""
        meters = await self._sources.meters(snapshot)
        return next((one.identity for one in meters if one.link_address == meter.parent), "")


def signal_quality(meter: MeterView, snapshot: Snapshot) -> tuple[str, str]:
    """A meter's signal as a tone and a word, on the same scale as the network's picture; ("", "") when not known."""
    if meter.signal is None:
        return "", ""
    modem: Mapping[str, Any] = (snapshot.status or {}).get("modem") or {}
    family = "wmbus" if meter.link == "wmbus" else str(modem.get("family") or "")
    tone, word = link_quality(round(meter.signal), family)
    return ("", "") if tone == "busy" else (tone, word)


def _buttons(visitor: Visitor) -> dict[str, str]:
    return {op: words for op, words in OPERATIONS.items() if visitor.may(op)} | {
        op: words for op, words in CHANGES.items() if visitor.may_change(op)
    }


def _switch_buttons(visitor: Visitor) -> dict[str, str]:
    return {op: words for op, words in CONFIRMED.items() if visitor.may_change(op)}


def _coarse(seen: Machine) -> Machine:
    """In steps, so that not every degree and every written page is news."""
    warm, written = seen.temperature_c, seen.written_octets
    return replace(
        seen,
        temperature_c=None if warm is None else round(warm / 2) * 2,
        written_octets=None if written is None else written // 10_000_000 * 10_000_000,
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def notices(snapshot: Snapshot, status: Mapping[str, Any], store_reason: str = "") -> dict[str, Part]:
    """The parts on top of every page: the head's word on the service, and what is wrong, worst first."""
    wrong: list[tuple[str, Message | str, Message | str]] = []
    if snapshot.status is None:
        title = (
            mark("The collecting service is not running.")
            if snapshot.state == "absent"
            else mark("The collecting service does not answer.")
        )
        kept = Message(
            "What you see is what the store kept. On the box, journalctl -u concentrator tells why,"
            " systemctl restart concentrator starts it. %(reason)s",
            {"reason": snapshot.reason},
        )
        wrong.append(("bad", title, kept))
    for what, titles in _PORT_TROUBLES.items():
        port = status.get(what)
        if port and port["state"] in titles:
            again = Message("%(reason)s It is tried again by itself.", {"reason": port["reason"]})
            wrong.append(("bad", titles[port["state"]], again))
    store: Mapping[str, Any] = status.get("store") or {}
    unavailable = store.get("unavailable") or store_reason
    if unavailable:
        wrong.append(("bad", mark("The store cannot be used."), unavailable))
    wrong.extend(
        ("warn", Message("Destination %(name)s is not connected.", {"name": one["name"]}), one["reason"])
        for one in status.get("destinations", ())
        if one["state"] == "not connected"
    )
    return {
        "service": Part("service.html", (snapshot.state, snapshot.last_answer_at if wrong else None)),
        "notices": Part("notices.html", wrong),
    }
