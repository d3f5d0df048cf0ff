"""What needs a person: problems grouped by what is to be done about them, worst first.

Shown below the totals of the overview and told by `/api/overview`. A problem that goes away by
itself (a meter that is being identified, intervals still to come) is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from concentrator.web.live import Snapshot
from concentrator.web.machine import Machine
from concentrator.web.meters import MeterView, is_stale
from concentrator.web.sources import DestinationView, Sources
from concentrator.web.translations import Message, english, mark
from concentrator.web.words import number_words

MOST_SHOWN = 8
HOTTEST_C = 80
_MOST_FLASH_PERCENT = 90
# Below these shares of the disk somebody should make room; below the second it is urgent.
_LITTLE_DISK, _HARDLY_ANY_DISK = 0.1, 0.03
# A destination that takes nothing for so long is not just busy.
_LONG_WAIT = timedelta(hours=1)
# From this share of its largest size on, the store is about to remove what was not sent.
_ALMOST_FULL = 0.9
_MOST_REASONS = 2
_PORTS = {
    "modem": mark("The modem's port was lost."),
    "radio": mark("The radio module's port was lost."),
    "mbus": mark("The M-Bus level converter's port was lost."),
    "p1": mark("The P1 port was lost."),
}
_PORTS_MISSING = {
    "modem": mark("The modem's port cannot be opened."),
    "radio": mark("The radio module's port cannot be opened."),
    "mbus": mark("The M-Bus level converter's port cannot be opened."),
    "p1": mark("The P1 port cannot be opened."),
}


class _Trouble(NamedTuple):
    """A state of meters that a person has to end: its words for one and for many, and what to do."""

    severity: Literal["bad", "warn"]
    one: str
    many: str
    action: str
    action_link: str


_METERS: dict[str, _Trouble] = {
    "refused": _Trouble(
        "bad",
        mark("Meter %(meter)s refuses our credentials or requests."),
        mark("%(count)s meters refuse our credentials or requests."),
        mark("Compare keys and client with the utility's list."),
        "/keys",
    ),
    "unreachable": _Trouble(
        "bad",
        mark("Meter %(meter)s does not answer."),
        mark("%(count)s meters do not answer."),
        mark("Look at their place in the network and at the supply of their feeder."),
        "/topology",
    ),
    "key_wrong": _Trouble(
        "warn",
        mark("The key of meter %(meter)s is wrong."),
        mark("The keys of %(count)s meters are wrong."),
        mark("Import the right keys."),
        "/keys",
    ),
    "key_missing": _Trouble(
        "warn",
        mark("Meter %(meter)s has no key here."),
        mark("%(count)s meters have no key here."),
        mark("Import their keys."),
        "/keys",
    ),
}


@dataclass(frozen=True, slots=True)
class ToldConcern:
    """A concern in English, with the number of meters or readings that it is about."""

    kind: str
    severity: Literal["bad", "warn"]
    count: int
    text: str
    reason: str
    since: datetime | None
    action: str
    link: str
    action_link: str


@dataclass(frozen=True, slots=True)
class Concern:
    """One problem. `link` leads to where it is seen, `action_link` to where something can be done about it, or is "".

    `reason` is in the words of whoever met it; where it is put together, `reasons` has its pieces, with the number of
    meters of each, or 0. `since` is when it began; of several meters, the first of them.
    """

    kind: str
    severity: Literal["bad", "warn"]
    text: Message | str
    reason: str
    since: datetime | None
    action: Message | str
    link: str
    action_link: str = ""
    count: int = 1
    reasons: tuple[tuple[str, int], ...] = ()

    def told(self) -> ToldConcern:
        """As JSON tells it."""
        return ToldConcern(
            self.kind,
            self.severity,
            self.count,
            _english(self.text),
            self.reason,
            self.since,
            _english(self.action),
            self.link,
            self.action_link,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What is looked at. `set_aside_at` is when the store was damaged lately; octets are of the disk and the store."""

    status: Mapping[str, Any]
    meters: Sequence[MeterView]
    destinations: Sequence[DestinationView]
    store_reason: str
    disk: tuple[int, int] | None
    store_octets: int
    most_store_octets: int
    clock_limit_s: float
    machine: Machine
    set_aside_at: datetime | None
    now: datetime


async def look(sources: Sources, snapshot: Snapshot, store_reason: str = "") -> list[Concern]:
    """What needs a person now. `store_reason` is why the store cannot be read, or ""."""
    config = sources.config
    return concerns(
        Facts(
            snapshot.status or {},
            await sources.meters(snapshot),
            await sources.destinations(snapshot),
            store_reason,
            sources.disk(),
            sources.store_octets(),
            config.store.most_megabytes * 1_000_000,
            config.collection.clock_limit_s,
            sources.machine(),
            await sources.set_aside_at(),
            sources.clock.now(),
        )
    )


def concerns(facts: Facts) -> list[Concern]:
    """Everything that needs a person, worst first; what concerns the whole box before single meters."""
    found = [
        *_ports(facts.status),
        *_store(facts),
        *_destinations(facts),
        *_box(facts),
        *_meters(facts),
    ]
    return sorted(found, key=lambda one: one.severity != "bad")


def _ports(status: Mapping[str, Any]) -> Iterable[Concern]:
    for name, lost in _PORTS.items():
        port = status.get(name)
        if not port or port["state"] not in ("port lost", "port missing"):
            continue
        text = lost if port["state"] == "port lost" else _PORTS_MISSING[name]
        action = mark("Look at the cable and the device; it is tried again by itself.")
        yield Concern("port", "bad", text, str(port["reason"]), None, action, "/log")


def _store(facts: Facts) -> Iterable[Concern]:
    status: Mapping[str, Any] = facts.status.get("store") or {}
    if reason := status.get("unavailable") or facts.store_reason:
        action = mark("Nothing is kept until this is put right.")
        yield Concern("store", "bad", mark("The store cannot be used."), str(reason), None, action, "/log")
    if lost := status.get("lost_readings"):
        text = Message(
            "%(count)s readings were removed before every destination had them.",
            {"count": number_words(int(lost))},
        )
        action = mark("Let destinations catch up, or give the store more room (most_megabytes).")
        yield Concern("lost_readings", "bad", text, "", None, action, "/log", "/configuration", int(lost))
    waiting = [one for one in facts.destinations if one.pending_readings]
    if waiting and facts.store_octets > _ALMOST_FULL * facts.most_store_octets:
        first = min((one.oldest_unsent_at for one in waiting if one.oldest_unsent_at), default=None)
        action = mark("Let destinations catch up, or give the store more room (most_megabytes).")
        text = mark("The store is almost full, and readings that were not sent will be removed next.")
        yield Concern("store_full", "bad", text, "", first, action, "/#destinations", "/configuration")
    if facts.disk is not None and facts.disk[0] < _LITTLE_DISK * facts.disk[1]:
        free, total = facts.disk
        urgent = free < _HARDLY_ANY_DISK * total
        text = Message("The disk is nearly full: %(percent)s %% are free.", {"percent": 100 * free // total})
        action = mark("Free space on the data partition, or keep readings for a shorter time.")
        yield Concern(
            "disk", "bad" if urgent else "warn", text, "", None, action, "/#store", "/configuration"
        )
    if facts.set_aside_at is not None:
        text = mark("The store was damaged and set aside; a new one was begun.")
        action = mark("Meters are read again as far as they remember. Check the card or flash.")
        yield Concern("store_set_aside", "warn", text, "", facts.set_aside_at, action, "/log")


def _destinations(facts: Facts) -> Iterable[Concern]:
    told = {one["name"]: one for one in facts.status.get("destinations", ())}
    for one in facts.destinations:
        since, count = one.oldest_unsent_at, one.pending_readings
        if told.get(one.name, {}).get("retired_at"):
            continue
        if one.state == "not connected":
            text: Message = Message("Destination %(name)s is not connected.", {"name": one.name})
            action = mark("Look at network, address and certificate; it is tried again by itself.")
            yield Concern(
                "destination",
                "bad",
                text,
                one.reason,
                since or one.acknowledged_at,
                action,
                "/#destinations",
                "/configuration",
                count,
            )
        elif count and since is not None and facts.now - since > _LONG_WAIT:
            text = Message(
                "Destination %(name)s has not taken %(count)s readings.",
                {"name": one.name, "count": number_words(count)},
            )
            action = mark("Look at the head-end: it is connected, and acknowledges too little.")
            yield Concern("destination_waits", "warn", text, "", since, action, "/#destinations", "", count)


def _box(facts: Facts) -> Iterable[Concern]:
    clock: Mapping[str, Any] = facts.status.get("clock") or {}
    if clock.get("state") in ("not set", "not synchronised"):
        text = (
            mark("The clock was never set.")
            if clock["state"] == "not set"
            else mark("The clock is not synchronised.")
        )
        action = mark("Look at the network's time server (NTP); no meter's clock is set meanwhile.")
        severity = "bad" if clock["state"] == "not set" else "warn"
        yield Concern("clock", severity, text, "", None, action, "/#machine")
    warm = facts.machine.temperature_c
    if warm is not None and warm >= HOTTEST_C:
        text = Message("The box is hot: %(degrees)s °C.", {"degrees": f"{warm:.0f}"})
        action = mark("Look at its ventilation; above 85 °C it slows down.")
        yield Concern("temperature", "bad", text, "", None, action, "/#machine")
    used = facts.machine.flash_used_percent
    if used is not None and used >= _MOST_FLASH_PERCENT:
        text = Message("The flash is worn: up to %(percent)s %% of its life are used.", {"percent": used})
        action = mark("Make a backup, and plan to replace the card or the box.")
        yield Concern("flash", "warn", text, "", None, action, "/#machine", "/support")


def _meters(facts: Facts) -> Iterable[Concern]:
    for state, trouble in _METERS.items():
        yield from _in_state(state, trouble, [one for one in facts.meters if one.state == state])
    old = [one for one in facts.meters if is_stale(one, facts.now)]
    if old:
        yield _of_meters(
            "old_values",
            "warn",
            (
                mark("Meter %(meter)s is reached, but gave no value for a day."),
                mark("%(count)s meters are reached, but gave no value for a day."),
            ),
            old,
            "",
            min(one.last_value for one in old if one.last_value),
            (mark("Look at the tasks, and at the gaps of one of them."), "/tasks"),
            "/meters?state=stale",
        )
    limit = facts.clock_limit_s
    wrong = [
        one
        for one in facts.meters
        if one.state == "active" and one.clock_offset_s is not None and abs(one.clock_offset_s) > limit
    ]
    if wrong:
        yield _of_meters(
            "meter_clock",
            "warn",
            (
                mark("The clock of meter %(meter)s is wrong by more than is set by itself."),
                mark("The clocks of %(count)s meters are wrong by more than is set by itself."),
            ),
            wrong,
            "",
            None,
            (mark("Set the clock from the meter's page."), ""),
            "/log",
        )


def _in_state(state: str, trouble: _Trouble, meters: Sequence[MeterView]) -> Iterable[Concern]:
    if not meters:
        return
    reasons = Counter(one.reason for one in meters if one.reason)
    common = reasons.most_common(_MOST_REASONS)
    pieces = [(reason, count if len(reasons) > 1 else 0) for reason, count in common]
    if len(reasons) > _MOST_REASONS:
        pieces.append(("…", 0))
    since = min((one.last_contact for one in meters if one.last_contact), default=None)
    concern = _of_meters(
        state,
        trouble.severity,
        (trouble.one, trouble.many),
        meters,
        "; ".join(f"{reason} ({count})" if count else reason for reason, count in pieces),
        since,
        (trouble.action, trouble.action_link),
        f"/meters?state={state}",
    )
    yield replace(concern, reasons=tuple(pieces))


def _of_meters(  # noqa: PLR0913, PLR0917 - the fields of one concern
    kind: str,
    severity: Literal["bad", "warn"],
    texts: tuple[str, str],
    meters: Sequence[MeterView],
    reason: str,
    since: datetime | None,
    action: tuple[str, str],
    link: str,
) -> Concern:
    if len(meters) == 1:
        name = meters[0].identity
        text, link = Message(texts[0], {"meter": name}), f"/meters/{name}"
    else:
        text = Message(texts[1], {"count": number_words(len(meters))})
    return Concern(kind, severity, text, reason, since, action[0], link, action[1], len(meters))


def _english(said: Message | str) -> str:
    return english(said.text, **said.values) if isinstance(said, Message) else said
