"""The meters as the page lists them: one shape, whether the service runs and tells, or only the store remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concentrator.model import MeterRecord
from concentrator.web.translations import mark
from concentrator.web.words import METER_STATES, StateWords

PAGE_ROWS = 250
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

    @property
    def state_words(self) -> StateWords:
        """The state for a reader."""
        return METER_STATES.get(self.state, _UNKNOWN_STATE)

    @property
    def missing(self) -> int:
        """Intervals that are still to be read."""
        return max(0, self.expected - self.stored - self.closed)

    @property
    def complete(self) -> bool:
        """Nothing is owed."""
        return self.expected > 0 and self.missing == 0

    @classmethod
    def from_status(cls, meter: Mapping[str, Any]) -> MeterView:
        """From one entry of the service's status."""
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
        )

    @classmethod
    def from_record(cls, record: MeterRecord) -> MeterView:
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
    sort: str = "attention"
    page: int = 1

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> MeterQuery:
        """Take an address's parameters; what makes no sense is left out."""
        number = given.get("page", "1")
        sort = given.get("sort", "attention")
        return cls(
            search=given.get("q", "").strip()[:64],
            state=given.get("state", "") if given.get("state", "") in (*METER_STATES, "incomplete") else "",
            medium=given.get("medium", "")[:32],
            sort=sort if sort.lstrip("-") in SORTS else "attention",
            page=max(1, int(number)) if number.isascii() and number.isdigit() and len(number) < 6 else 1,  # noqa: PLR2004 - digits
        )

    def parameters(self, **changes: str | int) -> dict[str, str]:
        """The address's parameters of this query, with changes; the defaults are left out."""
        values: dict[str, str | int] = {
            "q": self.search,
            "state": self.state,
            "medium": self.medium,
            "sort": self.sort,
            "page": self.page,
            **changes,
        }
        defaults = {"q": "", "state": "", "medium": "", "sort": "attention", "page": 1}
        return {name: str(value) for name, value in values.items() if value != defaults[name]}


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
    incomplete: int


def _time_key(meter: MeterView) -> float:
    return meter.last_contact.timestamp() if meter.last_contact else 0.0


_ATTENTION = {"bad": 0, "warn": 1, "busy": 2, "good": 3, "off": 4}

# What the list can be sorted by; each is a column's head. "attention": what needs a person comes first.
SORTS: dict[str, Callable[[MeterView], Any]] = {
    "attention": lambda meter: (_ATTENTION[meter.state_words.tone], -meter.missing),
    "meter": lambda meter: meter.identity,
    "medium": lambda meter: meter.medium,
    "state": lambda meter: meter.state_words.word,
    "contact": _time_key,
    "progress": lambda meter: (meter.stored + meter.closed) / meter.expected if meter.expected else -1.0,
    "signal": lambda meter: meter.signal if meter.signal is not None else -1e9,
    "level": lambda meter: (meter.level if meter.level is not None else -1, meter.hops or 0),
    "firmware": lambda meter: (meter.manufacturer, meter.model, meter.firmware),
}


def select(meters: Iterable[MeterView], query: MeterQuery, rows_per_page: int = PAGE_ROWS) -> MeterList:
    """Filter, sort and cut the list."""
    known = list(meters)
    states = Counter(meter.state for meter in known)
    media = Counter(meter.medium for meter in known)
    found = [meter for meter in known if _matches(meter, query)]
    found.sort(key=lambda meter: meter.identity)
    found.sort(key=SORTS[query.sort.lstrip("-")], reverse=query.sort.startswith("-"))
    pages = max(1, -(-len(found) // rows_per_page))
    page = min(query.page, pages)
    return MeterList(
        tuple(found[(page - 1) * rows_per_page : page * rows_per_page]),
        len(found),
        len(known),
        pages,
        page,
        tuple((state, states[state]) for state in METER_STATES if states[state]),
        tuple(sorted(media.items())),
        sum(meter.missing > 0 for meter in known),
    )


def _matches(meter: MeterView, query: MeterQuery) -> bool:
    if query.state == "incomplete":
        if meter.missing == 0:
            return False
    elif query.state and meter.state != query.state:
        return False
    if query.medium and meter.medium != query.medium:
        return False
    if not query.search:
        return True
    fields = (
        meter.identity,
        meter.link_address,
        meter.manufacturer,
        meter.model,
        meter.firmware,
        meter.reason,
    )
    text = " ".join(fields).casefold()
    return all(word in text for word in query.search.casefold().split())
