"""Lists of meters in and out: CSV or JSON, each meter one entry, checked as a whole. Keys are read by `key_import`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from concentrator.collection.errors import MeterEntryError
from concentrator.collection.key_store import KEY_KINDS
from concentrator.model import IDENTITY_PATTERN, Medium, MeterRecord

LINKS = ("plc", "wmbus", "mbus", "p1")
GROUP_PATTERN = re.compile(r"^[^\x00-\x1f;,]{1,64}$")
_EUI = re.compile(r"^(?:[0-9a-f]{12}|[0-9a-f]{16})$")
_LARGEST_LIMIT_W = 10_000_000
_MOST_ERRORS = 10
_TEXTS = ("link_address", "serial", "manufacturer", "model")
_LONGEST_TEXT = 64
FIELDS = ("identity", "medium", "link", *_TEXTS, "groups", "connection_limit")
# What an export has beside these; an import passes over it.
EXPORTED = (
    "state",
    "reason",
    "firmware",
    "first_seen",
    "last_contact",
    "installed_at",
    "removed_at",
    "replaced_by",
)
_IGNORED = frozenset((*EXPORTED, *KEY_KINDS, "logical_device_name", "manual"))


@dataclass(frozen=True, slots=True)
class MeterEntry:
    """What somebody says of one meter; None and "" leave what is known."""

    identity: str
    medium: Medium | None = None
    link: str = ""
    link_address: str = ""
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    groups: tuple[str, ...] | None = None
    connection_limit: int | None = None


def parse_entry(place: str, row: Mapping[str, object]) -> MeterEntry:
    """One meter of a list or an order.

    Raises:
        MeterEntryError: a field is unknown or wrong; the text names place, field, what was given and what is allowed.
    """
    unknown = [name for name in row if name not in FIELDS and name not in _IGNORED]
    if unknown:
        raise MeterEntryError(f"{place}: {unknown[0]}: unknown; allowed: {', '.join(FIELDS)}")
    identity = str(row.get("identity") or "")
    if not IDENTITY_PATTERN.match(identity):
        raise MeterEntryError(
            f"{place}: identity: got {identity[:64]!r}; allowed: 1 to 64 letters, digits, _ or -"
        )
    texts = {name: _text(place, row, name) for name in _TEXTS}
    link = _choice(place, row, "link", LINKS)
    address = texts["link_address"].replace(":", "").lower()
    if _EUI.match(address):
        texts["link_address"] = address
    elif link == "plc" and address:
        raise MeterEntryError(
            f"{place}: link_address: got {texts['link_address']!r}; allowed: an EUI-48 or EUI-64 in hexadecimal"
        )
    media = [medium.value for medium in Medium]
    medium = _choice(place, row, "medium", media)
    return MeterEntry(
        identity,
        medium=Medium(medium) if medium else None,
        link=link,
        groups=_groups(place, row.get("groups")),
        connection_limit=_limit(place, row.get("connection_limit")),
        **texts,
    )


def parse_entries(source: str, rows: Iterable[tuple[str, Mapping[str, object]]]) -> list[MeterEntry]:
    """All meters of a list, each once.

    Raises:
        MeterEntryError: a line for each of the first mistakes.
    """
    entries: dict[str, MeterEntry] = {}
    mistakes: list[str] = []
    for place, row in rows:
        try:
            entry = parse_entry(f"{source}: {place}", row)
        except MeterEntryError as error:
            mistakes.append(str(error))
            continue
        if entry.identity in entries:
            mistakes.append(f"{source}: {place}: identity: {entry.identity} is in the list twice")
        entries[entry.identity] = entry
    if mistakes:
        more = [f"and {len(mistakes) - _MOST_ERRORS} more"] if len(mistakes) > _MOST_ERRORS else []
        raise MeterEntryError("\n".join([*mistakes[:_MOST_ERRORS], *more]))
    return list(entries.values())


def json_rows(source: str, text: str) -> list[tuple[str, Mapping[str, object]]]:
    """The entries of a JSON list of objects as (place, row).

    Raises:
        MeterEntryError: it is something else.
    """
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        raise MeterEntryError(f"{source}: is not JSON") from None
    items = cast("list[object]", content) if isinstance(content, list) else []
    if not items or not all(isinstance(one, dict) for one in items):
        raise MeterEntryError(f"{source}: a list of objects was expected, one for each meter")
    return [(f"entry {number}", cast("dict[str, object]", one)) for number, one in enumerate(items, 1)]


def entry_of(record: MeterRecord) -> dict[str, Any]:
    """A meter as an export and the list of meters have it. Never a key."""
    registration = record.registration
    return {
        "identity": record.identity,
        "medium": record.medium.value,
        "link": record.link,
        "link_address": record.link_address,
        "serial": record.serial,
        "logical_device_name": record.logical_device_name,
        "manufacturer": record.manufacturer,
        "model": record.model,
        "firmware": record.firmware,
        "groups": list(registration.groups),
        "connection_limit": registration.connection_limit,
        "state": record.state.value,
        "reason": record.reason,
        "manual": registration.manual,
        "first_seen": _iso(record.first_seen),
        "last_contact": _iso(record.last_contact),
        "installed_at": _iso(registration.installed_at),
        "removed_at": _iso(registration.removed_at),
        "replaced_by": registration.replaced_by,
    }


def entries_as_csv(entries: Iterable[Mapping[str, Any]]) -> str:
    """Entries as CSV with a first line of names; groups with semicolons between.

    What a spreadsheet would take for a formula gets an apostrophe before it: names come from meters.
    """
    rows = [{**one, "groups": ";".join(one["groups"])} for one in entries]
    text = io.StringIO()
    names = list(rows[0]) if rows else [*FIELDS, *EXPORTED]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _choice(place: str, row: Mapping[str, object], name: str, allowed: Sequence[str]) -> str:
    value = row.get(name) or ""
    if value and value not in allowed:
        raise MeterEntryError(f"{place}: {name}: got {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def _text(place: str, row: Mapping[str, object], name: str) -> str:
    value = row.get(name)
    text = "" if value is None else str(value).strip().removeprefix("'")
    if len(text) > _LONGEST_TEXT or not (text.isprintable() or not text):
        raise MeterEntryError(
            f"{place}: {name}: got {text[:20]!r}; allowed: text of at most {_LONGEST_TEXT} characters"
        )
    return text


def _groups(place: str, given: object) -> tuple[str, ...] | None:
    if given is None or given == "":
        return None
    if isinstance(given, str):
        parts: list[object] = [part.strip() for part in given.split(";") if part.strip()]
    else:
        parts = cast("list[object]", given) if isinstance(given, list) else [None]
    if not all(isinstance(one, str) and GROUP_PATTERN.match(one) for one in parts):
        raise MeterEntryError(
            f"{place}: groups: got {given!r}; allowed: labels of up to 64 characters without comma and semicolon"
        )
    return tuple(dict.fromkeys(str(one) for one in parts))


def _limit(place: str, given: object) -> int | None:
    if given is None or given == "":
        return None
    text = str(given)
    if isinstance(given, bool) or not text.isdecimal() or not 0 < int(text) <= _LARGEST_LIMIT_W:
        raise MeterEntryError(
            f"{place}: connection_limit: got {given!r}; allowed: a whole number of watts, 1 to {_LARGEST_LIMIT_W}"
        )
    return int(text)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
