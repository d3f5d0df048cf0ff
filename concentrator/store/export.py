"""Stored readings as rows for files, and back: CSV, JSON lines, Parquet.

A format is a writer that takes rows as they come and a binary stream; others are added to `WRITERS` by name.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from importlib import import_module
from typing import Any, BinaryIO

from concentrator.errors import LocalError
from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis, ObisError
from concentrator.store.errors import StoreError
from concentrator.store.readings import from_epoch, to_epoch

_ROWS_AT_ONCE = 50_000


class ExportError(StoreError, LocalError):
    """A format cannot be written here, or a file cannot be read back; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredReading:
    """One reading with its names spelt out. Times are UTC; `value` times 10^`scaler` is in `unit`.

    `quality` are the flags of `model.Quality`; `sequence` is the batch that it left with last.
    """

    meter: str
    medium: str
    profile: str
    obis: str
    captured_at: datetime
    value: int | str
    unit: int
    scaler: int
    status: int | None
    quality: int
    class_id: int
    attribute: int
    period_s: int
    received_at: datetime
    sequence: int


COLUMNS = tuple(one.name for one in fields(StoredReading))


def stored_readings(
    connection: sqlite3.Connection,
    first: datetime | None = None,
    last: datetime | None = None,
    meter: str = "",
    obis: str = "",
) -> Iterator[StoredReading]:
    """Readings captured from `first` to `last`, both included, by meter, channel and time; "" and None: all."""
    rows = connection.execute(
        "SELECT identity, medium, channel.profile, obis, captured_at, value, unit, scaler, status, quality, class_id,"
        " attribute, period_s, received_at, sequence FROM meter JOIN channel USING (meter_id)"
        " JOIN reading USING (channel_id) JOIN batch USING (sequence)"
        " WHERE (?1 = '' OR identity = ?1) AND (?2 = '' OR obis = ?2)"
        " AND captured_at BETWEEN ?3 AND ?4 ORDER BY identity, channel_id, captured_at",
        (
            meter,
            obis,
            -(2**62) if first is None else to_epoch(first),
            2**62 if last is None else to_epoch(last),
        ),
    )
    at, received = COLUMNS.index("captured_at"), COLUMNS.index("received_at")
    for row in rows:
        columns: list[Any] = list(row)
        columns[at], columns[received] = from_epoch(row[at]), from_epoch(row[received])
        yield StoredReading(*columns)


def _plain(row: StoredReading) -> dict[str, Any]:
    return {
        **asdict(row),
        "captured_at": _iso(row.captured_at),
        "received_at": _iso(row.received_at),
    }


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def write_csv(rows: Iterable[StoredReading], out: BinaryIO) -> None:
    """RFC 4180, with a header."""
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(map(_plain, rows))
    finally:
        text.detach()


def write_json_lines(rows: Iterable[StoredReading], out: BinaryIO) -> None:
    """One JSON object a line; `concentrator store import` reads it back."""
    out.writelines(
        json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for row in rows
    )


def write_parquet(rows: Iterable[StoredReading], out: BinaryIO) -> None:
    """Apache Parquet. Values are text, since a column has one type.

    Raises:
        ExportError: the extra `parquet` of the package is not installed.
    """
    try:
        # pyarrow has no types: any is what pyright has to see.
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ExportError(
            "export: Parquet needs the extra [parquet] of the package (pyarrow), which is not installed; "
            "allowed without it: csv, jsonl"
        ) from None
    moment = arrow.timestamp("s", tz="UTC")
    kinds: dict[str, Any] = {"captured_at": moment, "received_at": moment}
    texts = ("meter", "medium", "profile", "obis", "value")
    schema = arrow.schema(
        [(name, kinds.get(name, arrow.string() if name in texts else arrow.int64())) for name in COLUMNS]
    )
    with parquet.ParquetWriter(out, schema) as writer:
        for part in _parts(rows):
            plain = [{**asdict(row), "value": str(row.value)} for row in part]
            writer.write_table(arrow.Table.from_pylist(plain, schema=schema))


def _parts(rows: Iterable[StoredReading]) -> Iterator[list[StoredReading]]:
    part: list[StoredReading] = []
    for row in rows:
        part.append(row)
        if len(part) >= _ROWS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


WRITERS: dict[str, Callable[[Iterable[StoredReading], BinaryIO], None]] = {
    "csv": write_csv,
    "jsonl": write_json_lines,
    "parquet": write_parquet,
}


def read_json_lines(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, Answer]]:
    """The answers that an export as JSON lines was made of: the medium of each meter, and rows of one profile together.

    Raises:
        ExportError: a line is not what the export writes.
    """
    group: list[Reading] = []
    now: tuple[Any, ...] | None = None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            reading = _reading(row)
            key = (row["medium"], row["meter"], Obis.parse(row["profile"]), row["received_at"])
            hash(key)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError, ObisError) as error:
            raise ExportError(
                f"{name}: line {number} is no line of an export as jsonl ({type(error).__name__}: {error})"
            ) from None
        if now is not None and (key != now or len(group) >= _ROWS_AT_ONCE):
            yield _answer(now, group)
            group = []
        now = key
        group.append(reading)
    if now is not None:
        yield _answer(now, group)


def _reading(row: Any) -> Reading:  # noqa: ANN401 - decoded JSON
    value = row["value"]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"value {value!r}")
    channel = Channel(
        Obis.parse(row["obis"]),
        int(row["unit"]),
        int(row["scaler"]),
        int(row["class_id"]),
        int(row["attribute"]),
        int(row["period_s"]),
    )
    status = None if row["status"] is None else int(row["status"])
    captured_at = datetime.fromisoformat(row["captured_at"])
    if captured_at.tzinfo is None:
        raise ValueError(f"captured_at {row['captured_at']!r} has no time zone")
    return Reading(channel, captured_at, value, status, Quality(int(row["quality"])))


def _answer(key: tuple[Any, ...], readings: list[Reading]) -> tuple[str, Answer]:
    medium, meter, profile, received_at = key
    try:
        return str(medium), Answer(str(meter), profile, tuple(readings), datetime.fromisoformat(received_at))
    except (ValueError, TypeError):
        raise ExportError(f"received_at of meter {meter}: got {received_at!r}") from None
