"""The form of a meter model's file, checked: every mistake as one line, nothing guessed."""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from zoneinfo import ZoneInfo

from concentrator.obis import Obis, ObisError

Table = dict[str, Any]
Check = Callable[[Any], bool]

_NAME = re.compile(r"^[a-z0-9]+(?:-[a-z0-9]+)*$")
_LARGEST_SAP = 0x3FFF
_LARGEST_CLASS, _LARGEST_ATTRIBUTE = 0xFFFF, 127
_SMALLEST_PDU, _LARGEST_PDU = 64, 0xFFFF
_MOST_CHANNELS = 8
# Class of the objects in a role, where an entry does not tell; 0: it has to.
ROLES = {
    "load_profile": 7,
    "daily_profile": 7,
    "billing": 7,
    "event_logs": 7,
    "registers": 3,
    "instantaneous": 3,
    "parameters": 0,
    "status": 0,
}
KEY_NAME_FIELDS = ("serial", "manufacturer", "logical_device_name", "model")


def _no_tables() -> list[Table]:
    return []


def _no_table() -> Table:
    return {}


def _no_objects() -> dict[str, list[Table]]:
    return {}


@dataclass(slots=True)
class ModelTables:
    """A file's content, right in form."""

    name: str = ""
    title: str = ""
    fallback: bool = False
    match: list[Table] = field(default_factory=_no_tables)
    objects: dict[str, list[Table]] = field(default_factory=_no_objects)
    quirks: Table = field(default_factory=_no_table)
    credentials: Table = field(default_factory=_no_table)
    clock: Table = field(default_factory=_no_table)
    mbus: Table = field(default_factory=_no_table)


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_yes_no(value: object) -> bool:
    return isinstance(value, bool)


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _is_manufacturers(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(isinstance(one, str) and re.fullmatch("[A-Z]{3}", one) for one in items)


def _is_zone(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _is_key_names(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for one in cast("list[object]", value):
        if not isinstance(one, str) or not one:
            return False
        try:
            parts = list(string.Formatter().parse(one))
        except ValueError:
            return False
        if any(
            name is not None and (name not in KEY_NAME_FIELDS or spec or conversion)
            for _text, name, spec, conversion in parts
        ):
            return False
    return True


def _one_of(*words: str) -> Check:
    return lambda value: value in words


# Each key of each table: how it is checked, and what is allowed in words.
_MATCH: dict[str, tuple[Check, str]] = {
    "logical_device_name": (_is_pattern, "a regular expression"),
    "serial": (_is_pattern, "a regular expression"),
    "firmware": (_is_pattern, "a regular expression"),
    "type": (_is_pattern, "a regular expression"),
    "manufacturer": (_is_manufacturers, "a list of three capital letters each"),
}
_QUIRKS: dict[str, tuple[Check, str]] = {
    "selective_access": (_is_yes_no, "true or false"),
    "get_with_list": (_is_yes_no, "true or false"),
    "clock_deviation": (_is_yes_no, "true or false"),
    "largest_pdu": (
        _whole(_SMALLEST_PDU, _LARGEST_PDU),
        f"a whole number from {_SMALLEST_PDU} to {_LARGEST_PDU}",
    ),
    "mbus_identification": (_one_of("bcd", "binary"), "bcd or binary"),
}
_CREDENTIALS: dict[str, tuple[Check, str]] = {
    "client_sap": (_whole(1, 127), "a whole number from 1 to 127"),
    "server_sap": (_whole(1, _LARGEST_SAP), f"a whole number from 1 to {_LARGEST_SAP}"),
    "mechanism": (_one_of("none", "low", "hls-gmac"), "none, low or hls-gmac"),
    "key_names": (_is_key_names, "a list of names, with {" + "}, {".join(KEY_NAME_FIELDS) + "}"),
}
_CLOCK: dict[str, tuple[Check, str]] = {"time_zone": (_is_zone, "an IANA time zone such as Europe/Madrid")}
_MBUS: dict[str, tuple[Check, str]] = {
    "channels": (_whole(0, _MOST_CHANNELS), f"a whole number from 0 to {_MOST_CHANNELS}")
}
_OBJECT: dict[str, tuple[Check, str]] = {
    "obis": (lambda value: _is_obis(value), "an OBIS code such as 1-0:1.8.0*255"),
    "class_id": (_whole(1, _LARGEST_CLASS), f"a whole number from 1 to {_LARGEST_CLASS}"),
    "attribute": (_whole(1, _LARGEST_ATTRIBUTE), f"a whole number from 1 to {_LARGEST_ATTRIBUTE}"),
    "name": (_is_text, "text"),
}
_TABLES = {"quirks": _QUIRKS, "credentials": _CREDENTIALS, "clock": _CLOCK, "mbus": _MBUS}
_KEYS = ("name", "title", "fallback", "match", "objects", *_TABLES)


def _is_obis(value: object) -> bool:
    try:
        Obis.parse(value if isinstance(value, str) else "")
    except ObisError:
        return False
    return True


def read_model_file(content: bytes, source: str) -> tuple[ModelTables, list[str]]:
    """The tables of a file, and every mistake in it as a line that names the file, the key and what is allowed."""
    try:
        parsed = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = (
            str(error)
            if isinstance(error, tomllib.TOMLDecodeError)
            else "not UTF-8 text, or nested too deeply"
        )
        return ModelTables(), [f"{source}: not TOML: {reason}"]
    return _Reader(source).read(parsed)


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._mistakes: list[str] = []

    def read(self, parsed: Table) -> tuple[ModelTables, list[str]]:
        tables = ModelTables()
        for key in parsed:
            if key not in _KEYS:
                self._tell(key, "unknown key", ", ".join(_KEYS))
        tables.name = (
            self._single(
                parsed,
                "name",
                lambda v: isinstance(v, str) and bool(_NAME.match(v)),
                "small letters, digits and single hyphens",
                required=True,
            )
            or ""
        )
        tables.title = self._single(parsed, "title", _is_text, "text") or ""
        tables.fallback = bool(self._single(parsed, "fallback", _is_yes_no, "true or false"))
        tables.match = self._rules(parsed.get("match", []))
        if not tables.match and not tables.fallback:
            self._tell("match", "missing", "at least one [[match]], or fallback = true")
        tables.objects = self._objects(parsed.get("objects", {}))
        for name, checks in _TABLES.items():
            setattr(tables, name, self._table(name, parsed.get(name, {}), checks))
        return tables, self._mistakes

    def _tell(self, key: str, got: str, allowed: str) -> None:
        self._mistakes.append(f"{self._source}: {key}: {got}; allowed: {allowed}")

    def _single(self, parsed: Table, key: str, check: Check, allowed: str, *, required: bool = False) -> Any:  # noqa: ANN401 - TOML
        if key not in parsed:
            if required:
                self._tell(key, "missing", allowed)
            return None
        value = parsed[key]
        if not check(value):
            self._tell(key, f"got {_shown(value)}", allowed)
            return None
        return value

    def _table(self, name: str, given: object, checks: dict[str, tuple[Check, str]]) -> Table:
        if not isinstance(given, dict):
            self._tell(name, f"got {_shown(given)}", f"a table [{name}]")
            return {}
        found: Table = {}
        for key, value in cast("Table", given).items():
            if key not in checks:
                self._tell(f"{name}.{key}", "unknown key", ", ".join(checks))
                continue
            check, allowed = checks[key]
            if check(value):
                found[key] = value
            else:
                self._tell(f"{name}.{key}", f"got {_shown(value)}", allowed)
        return found

    def _rules(self, given: object) -> list[Table]:
        if not isinstance(given, list):
            self._tell("match", f"got {_shown(given)}", "tables [[match]]")
            return []
        found: list[Table] = []
        for number, one in enumerate(cast("list[object]", given), 1):
            rule = self._table(f"match[{number}]", one, _MATCH)
            if rule:
                found.append(rule)
            elif isinstance(one, dict) and not one:
                self._tell(f"match[{number}]", "empty, it would fit every meter", ", ".join(_MATCH))
        return found

    def _objects(self, given: object) -> dict[str, list[Table]]:
        if not isinstance(given, dict):
            self._tell("objects", f"got {_shown(given)}", "a table [objects]")
            return {}
        found: dict[str, list[Table]] = {}
        for role, value in cast("Table", given).items():
            if role not in ROLES:
                self._tell(f"objects.{role}", "unknown role", ", ".join(ROLES))
                continue
            entries = cast("list[object]", value) if isinstance(value, list) else [value]
            found[role] = []
            for number, entry in enumerate(entries, 1):
                where = f"objects.{role}[{number}]"
                table = self._table(where, {"obis": entry} if isinstance(entry, str) else entry, _OBJECT)
                if not isinstance(entry, str | dict):
                    continue
                if "obis" not in table and (isinstance(entry, dict) and "obis" not in entry):
                    self._tell(
                        where, "has no obis", "an OBIS code, or a table with obis, class_id, attribute, name"
                    )
                if not ROLES[role] and "class_id" not in table:
                    self._tell(where, "has no class_id", f"a table with obis and class_id, for {role}")
                found[role].append(table)
        return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - one line
