"""Lists of keys as they come from manufacturers and from the utility: JSON or CSV, checked as a whole.

JSON: the key file's own form, or a list of objects with `meter` and keys by kind. CSV: a first line with `meter` and
kinds of keys, then one meter a line; commas or semicolons. An error names the place and never repeats a key.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KEY_KINDS

METER_COLUMNS = ("meter", "identity", "serial", "name")
_HEX = re.compile(r"^(?:[0-9A-Fa-f]{2})+$")
_NAME = re.compile(r"^[ -~]{1,64}$")
_MOST_ERRORS = 10

Found = dict[str, dict[str, bytes]]


def read_key_list(path: Path) -> Found:
    """The keys of a file by meter and kind.

    Raises:
        KeyFileError: it cannot be read, or something in it is wrong: a line for each of the first mistakes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise KeyFileError(f"{path}: cannot be read: {reason}") from None
    return key_list_of(path, text)


def key_list_of(path: Path, text: str) -> Found:
    """The keys of the text of a list by meter and kind; `path` is what errors call it.

    Raises:
        KeyFileError: as for `read_key_list`.
    """
    rows = _json_rows(path, text) if text.lstrip()[:1] in ("{", "[") else csv_rows(path, text)
    return keys_of_rows(str(path), rows)


def csv_rows(path: Path, text: str) -> list[tuple[str, Mapping[str, object]]]:
    """The lines of a CSV file as (place, row); commas or semicolons, by the first line.

    Raises:
        KeyFileError: it has no first line with names.
    """
    head = text.partition("\n")[0]
    try:
        reader = csv.DictReader(
            io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ","
        )
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if not set(names) & set(METER_COLUMNS):
            raise KeyFileError(
                f"{path}: line 1: names of columns are expected, one of them {' or '.join(METER_COLUMNS)}"
            )
        reader.fieldnames = names
        rows: list[tuple[str, Mapping[str, object]]] = []
        for row in reader:
            given = {
                name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None)
            }
            rows.append((f"line {reader.line_num}", {name: value for name, value in given.items() if value}))
    except csv.Error:
        raise KeyFileError(f"{path}: is neither JSON nor CSV") from None
    return rows


def _json_rows(path: Path, text: str) -> list[tuple[str, Mapping[str, object]]]:
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        raise KeyFileError(f"{path}: is not JSON") from None
    if isinstance(content, list):
        items = cast("list[object]", content)
        return [(f"entry {number}", _object(path, item)) for number, item in enumerate(items, 1)]
    tables = _object(path, content)
    unknown = sorted(set(tables) - {"meters", "wmbus"})
    if unknown:
        raise KeyFileError(
            f"{path}: {unknown[0]!r} is not known; allowed: meters, wmbus, or a list of objects"
        )
    rows: list[tuple[str, Mapping[str, object]]] = []
    for name, entry in _object(path, tables.get("meters", {})).items():
        rows.append((f"meters {name}", {**_object(path, entry), "meter": name}))
    for name, key in _object(path, tables.get("wmbus", {})).items():
        rows.append((f"wmbus {name}", {"meter": name, "wmbus_key": key}))
    return rows


def _object(path: Path, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KeyFileError(f"{path}: an object was expected; see docs/deployment.md for the forms")
    return cast("dict[str, Any]", value)


def keys_of_rows(source: str, rows: Iterable[tuple[str, Mapping[str, object]]]) -> Found:
    """The keys of rows that name their meter in one of `METER_COLUMNS`; other columns are left alone.

    Raises:
        KeyFileError: one line for each of the first mistakes.
    """
    found: Found = {}
    mistakes: list[str] = []
    for place, row in rows:
        name = next((str(row[column]).strip() for column in METER_COLUMNS if row.get(column)), "")
        if not _NAME.match(name):
            mistakes.append(f"{source}: {place}: names no meter: {' or '.join(METER_COLUMNS)} is needed")
            continue
        for kind in KEY_KINDS:
            given = row.get(kind)
            if given is None or given == "":
                continue
            key = _key(kind, given)
            if key is None:
                mistakes.append(f"{source}: {place}: {kind} of {name}: {_allowed(kind)}")
            else:
                found.setdefault(name.upper() if kind == "wmbus_key" else name, {})[kind] = key
    if mistakes:
        more = [f"and {len(mistakes) - _MOST_ERRORS} more"] if len(mistakes) > _MOST_ERRORS else []
        raise KeyFileError("\n".join([*mistakes[:_MOST_ERRORS], *more]))
    return found


def _key(kind: str, given: object) -> bytes | None:
    if not isinstance(given, str):
        return None
    text = given.strip()
    if kind == "password" and not text.startswith("hex:"):
        key = text.encode()
    else:
        digits = text.removeprefix("hex:").replace(" ", "")
        if not _HEX.match(digits):
            return None
        key = bytes.fromhex(digits)
    return key if len(key) in KEY_KINDS[kind] else None


def _allowed(kind: str) -> str:
    if kind == "password":
        return "allowed: 1 to 64 characters, or hex: and hexadecimal digits"
    digits = " or ".join(str(2 * octets) for octets in KEY_KINDS[kind])
    return f"has to be {digits} hexadecimal digits"
