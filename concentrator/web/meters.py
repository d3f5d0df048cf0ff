"""The meters as the page lists them: one shape, whether the service runs and tells, or only the store remembers."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concentrator.model import MeterRecord
from concentrator.web.translations import mark
from concentrator.web.words import KEY_STATES, METER_STATES, StateWords

PAGE_ROWS = 250
# A value is greyed from this age on, so that nobody takes it for the present.
OLD_AFTER_S = 24 * 3600
# What the list can be cut down to besides the states of a meter.
SPECIAL_STATES = ("incomplete", "stale", "uncounted")
_UNREAD = ("discovered", "identifying", "unreachable", "refused", "key_missing", "key_wrong")
_UNKNOWN_STATE = StateWords("off", mark("Unknown"), mark("A state that this page does not know."))


@dataclass(frozen=True, slots=True)
class MeterView:
    """One meter. `live` tells whether this is what the service says now, or what the store kept."""

    identity: str
    medium: str
    state: str
    reason: str
    link: str
    link_address: str
    manufacturer: str
    model: str
    firmware: str
    last_contact: datetime | None
    clock_offset_s: float | None
    signal: float | None
    live: bool
    reachable: bool | None = None
    parent: str = ""
    level: int | None = None
    hops: int | None = None
    role: str = ""
    expected: int = 0
    stored: int = 0
    closed: int = 0
    activity: str = ""
    keys: str = ""
    last_value: datetime | None = None

    @property
    def state_words(self) -> StateWords:
        """The state for a reader."""
        return METER_STATES.get(self.state, _UNKNOWN_STATE)

    @property
    def key_words(self) -> StateWords | None:
        """How it stands with its keys, for a reader; None while nobody tells."""
        if self.keys == "none" and self.state not in ("active", "unreachable"):
            return None
        return KEY_STATES.get(self.keys)

    @property
    def missing(self) -> int:
        """Intervals that are still to be read."""
        return max(0, self.expected - self.stored - self.closed)

    @property
    def complete(self) -> bool:
        """Nothing is owed."""
        return self.expected > 0 and self.missing == 0

    @classmethod
    def from_status(cls, meter: Mapping[str, Any], last_value: datetime | None = None) -> MeterView:
        """From one entry of the service's status; `last_value` is when its newest stored value was captured."""
        return cls(
            identity=str(meter["identity"]),
            medium=str(meter["medium"]),
            state=str(meter["state"]),
            reason=str(meter["reason"]),
            link=str(meter["link"]),
            link_address=str(meter["link_address"]),
            manufacturer=str(meter["manufacturer"]),
            model=str(meter.get("model", "")),
            firmware=str(meter["firmware"]),
            last_contact=moment(meter["last_contact"]),
            clock_offset_s=meter["clock_offset_s"],
            signal=meter["signal"],
            live=True,
            reachable=meter.get("reachable"),
            parent=str(meter.get("parent") or ""),
            level=meter.get("level"),
            hops=meter.get("hops"),
            role=str(meter.get("role") or ""),
            expected=int(meter.get("expected") or 0),
            stored=int(meter.get("stored") or 0),
            closed=int(meter.get("closed") or 0),
            activity=str(meter.get("activity") or ""),
            keys=str(meter.get("keys") or ""),
            last_value=last_value,
        )

    @classmethod
    def from_record(cls, record: MeterRecord, last_value: datetime | None = None) -> MeterView:
        """From the store: the last that was known."""
        return cls(
            identity=record.identity,
            medium=record.medium.value,
            state=record.state.value,
            reason=record.reason,
            link=record.link,
            link_address=record.link_address,
            manufacturer=record.manufacturer,
            model=record.model,
            firmware=record.firmware,
            last_contact=record.last_contact,
            clock_offset_s=record.clock_offset_s,
            signal=record.signal,
            live=False,
            last_value=last_value,
        )


def moment(text: str | None) -> datetime | None:
    """A time of the status."""
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True, slots=True)
class MeterQuery:
    """What of the list is shown: the parameters of the address, checked."""

    search: str = ""
    state: str = ""
    medium: str = ""
    keys: str = ""
    below: str = ""
    sort: str = "attention"
    page: int = 1

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> MeterQuery:
        """Take an address's parameters; what makes no sense is left out."""
        number = given.get("page", "1")
        sort = given.get("sort", "attention")
        return cls(
            search=given.get("q", "").strip()[:64],
            state=_one_of(given.get("state", ""), (*METER_STATES, *SPECIAL_STATES)),
            medium=given.get("medium", "")[:32],
            keys=_one_of(given.get("keys", ""), KEY_STATES),
            below=given.get("below", "").strip().lower()[:32],
            sort=sort if sort.lstrip("-") in SORTS else "attention",
            page=max(1, int(number)) if number.isascii() and number.isdigit() and len(number) < 6 else 1,  # noqa: PLR2004 - digits
        )

    def parameters(self, **changes: str | int) -> dict[str, str]:
        """The address's parameters of this query, with changes; the defaults are left out."""
        values: dict[str, str | int] = {
            "q": self.search,
            "state": self.state,
            "medium": self.medium,
            "keys": self.keys,
            "below": self.below,
            "sort": self.sort,
            "page": self.page,
            **changes,
        }
        defaults = {"sort": "attention", "page": 1}
        return {name: str(value) for name, value in values.items() if value != defaults.get(name, "")}


@dataclass(frozen=True, slots=True)
class MeterList:
    """One page of the list, and what the filters found."""

    rows: tuple[MeterView, ...]
    found: int
    known: int
    pages: int
    page: int
    states: tuple[tuple[str, int], ...]
    media: tuple[tuple[str, int], ...]
    keys: tuple[tuple[str, int], ...]
    incomplete: int
    stale: int
    below: str


def _one_of(text: str, allowed: Container[str]) -> str:
    return text if text in allowed else ""


def _time_key(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


_ATTENTION = {"bad": 0, "warn": 1, "busy": 2, "good": 3, "off": 4}

# What the list can be sorted by; each is a column's head. "attention": what needs a person comes first.
SORTS: dict[str, Callable[[MeterView], Any]] = {
    "attention": lambda meter: (_ATTENTION[meter.state_words.tone], -meter.missing),
    "meter": lambda meter: meter.identity,
    "medium": lambda meter: meter.medium,
    "state": lambda meter: meter.state_words.word,
    "value": lambda meter: _time_key(meter.last_value),
    "contact": lambda meter: _time_key(meter.last_contact),
    "progress": lambda meter: (meter.stored + meter.closed) / meter.expected if meter.expected else -1.0,
    "signal": lambda meter: meter.signal if meter.signal is not None else -1e9,
    "level": lambda meter: (meter.level if meter.level is not None else -1, meter.hops or 0),
    "keys": lambda meter: meter.keys,
    "firmware": lambda meter: (meter.manufacturer, meter.model, meter.firmware),
}


def select(
    meters: Iterable[MeterView], query: MeterQuery, now: datetime, rows_per_page: int = PAGE_ROWS
) -> MeterList:
    """Filter, sort and cut the list."""
    known = list(meters)
    states, media, keys = Counter[str](), Counter[str](), Counter[str]()
    for meter in known:
        states[meter.state] += 1
        media[meter.medium] += 1
        keys[meter.keys] += 1
    old = {meter.identity for meter in known if is_stale(meter, now)}
    special: dict[str, Callable[[MeterView], bool]] = {
        "incomplete": lambda meter: meter.missing > 0,
        "stale": lambda meter: meter.identity in old,
        "uncounted": is_uncounted,
    }
    inside = _below(known, query.below) if query.below else None
    words = query.search.casefold().split()
    found = [
        meter
        for meter in known
        if (not query.state or special.get(query.state, lambda one: one.state == query.state)(meter))
        and (not query.medium or meter.medium == query.medium)
        and (not query.keys or meter.keys == query.keys)
        and (inside is None or meter.link_address in inside)
        and (not words or _has_words(meter, words))
    ]
    found.sort(key=lambda meter: meter.identity)
    found.sort(key=SORTS[query.sort.lstrip("-")], reverse=query.sort.startswith("-"))
    pages = max(1, -(-len(found) // rows_per_page))
    page = min(query.page, pages)
    top = next((meter.identity for meter in known if query.below and meter.link_address == query.below), "")
    return MeterList(
        tuple(found[(page - 1) * rows_per_page : page * rows_per_page]),
        len(found),
        len(known),
        pages,
        page,
        tuple((state, states[state]) for state in METER_STATES if states[state]),
        tuple(sorted(media.items())),
        tuple((state, keys[state]) for state in KEY_STATES if keys[state]),
        sum(meter.missing > 0 for meter in known),
        len(old),
        top or query.below,
    )


def is_stale(meter: MeterView, now: datetime) -> bool:
    """Whether a meter that is read has given no value for so long that its values are not of today."""
    return (
        meter.state == "active"
        and meter.last_value is not None
        and (now - meter.last_value).total_seconds() > OLD_AFTER_S
    )


def is_uncounted(meter: MeterView) -> bool:
    """Whether a meter is here, but nothing can be expected of it: what it records was never learnt."""
    return meter.link == "plc" and meter.state in _UNREAD and meter.expected == 0


def _below(meters: Iterable[MeterView], eui: str) -> set[str]:
    """The addresses of a node and of all that hangs under it."""
    children: dict[str, list[str]] = {}
    for meter in meters:
        if meter.parent:
            children.setdefault(meter.parent, []).append(meter.link_address)
    found, waiting = {eui}, [eui]
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(new)
        waiting += new
    return found


def _has_words(meter: MeterView, words: Iterable[str]) -> bool:
    fields = (
        meter.identity,
        meter.link_address,
        meter.manufacturer,
        meter.model,
        meter.firmware,
        meter.reason,
    )
    text = " ".join(fields).casefold()
    return all(word in text for word in words)


_CSV_COLUMNS = (
    "meter", "medium", "state", "reason", "last_value", "last_contact", "expected", "stored", "closed", "signal",
    "link", "address", "parent", "level", "hops", "keys", "manufacturer", "model", "firmware",
)  # fmt: skip
# A spreadsheet takes what begins so for a formula (CWE-1236); some of these texts are the meter's own.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(meters: Iterable[MeterView]) -> str:
    """The list as CSV (RFC 4180), times as RFC 3339."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_CSV_COLUMNS)
    for one in meters:
        row = (
            one.identity, one.medium, one.state, one.reason, _iso(one.last_value), _iso(one.last_contact),
            one.expected, one.stored, one.closed, one.signal, one.link, one.link_address, one.parent, one.level,
            one.hops, one.keys, one.manufacturer, one.model, one.firmware,
        )  # fmt: skip
        writer.writerow(
            ""
            if value is None
            else f"'{value}"
            if isinstance(value, str) and value.startswith(_FORMULA)
            else value
            for value in row
        )
    return text.getvalue()


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else ""
