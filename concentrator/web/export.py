"""Readings as CSV or JSON lines, for head-ends that fetch: straight from the store, a piece at a time."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from concentrator.errors import LocalError
from concentrator.model import IDENTITY_PATTERN
from concentrator.store.readings import from_epoch
from concentrator.web.store_reader import StoreReader

COLUMNS = ("meter", "profile", "obis", "unit", "scaler", "captured_at", "value", "status", "quality")
FORMATS: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
_USUAL_SPAN = timedelta(days=1)
# Rows that are in memory at once.
_ROWS = 2000
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

ExportRow = tuple[str, str, str, int, int, str, int | float | str, int | None, int]


class ExportError(LocalError):
    """The readings cannot be given as asked for; the text says what is allowed."""


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """Which readings: captured from `first` to `last`, both included, of one meter or, with "", of all."""

    form: str
    first: datetime
    last: datetime
    meter: str

    @classmethod
    def from_parameters(cls, given: Mapping[str, str], now: datetime) -> ExportQuery:
        """Take an address's parameters: format, from, to, meter; by default the last day as CSV.

        Raises:
            ExportError: one of them makes no sense.
        """
        form, meter = given.get("format", "csv"), given.get("meter", "")
        if form not in FORMATS:
            raise ExportError(f"format: got {form[:64]!r}; allowed: {', '.join(FORMATS)}")
        if meter and not IDENTITY_PATTERN.match(meter):
            raise ExportError(f"meter: got {meter[:64]!r}; allowed: a meter's identity")
        last = _moment("to", given["to"]) if "to" in given else now
        first = _moment("from", given["from"]) if "from" in given else max(_FIRST, last - _USUAL_SPAN)
        if first > last:
            raise ExportError(f"from: got {given['from'][:64]!r}; allowed: a time that is not after `to`")
        return cls(form, first, last, meter)


def _moment(name: str, given: str) -> datetime:
    try:
        # A plus sign in an address is a blank: who did not escape it meant it.
        found = datetime.fromisoformat(given.strip().replace(" ", "+") if given.count(":") > 1 else given)
    except ValueError:
        found = None
    if found is not None and found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if found is None or not _FIRST <= found <= _LAST:
        raise ExportError(f"{name}: got {given[:64]!r}; allowed: an RFC 3339 time or a date, from 1970 on")
    return found


async def rows(reader: StoreReader, query: ExportQuery) -> AsyncGenerator[list[ExportRow]]:
    """The readings in pieces, by meter and channel, oldest first. The store is free for others between the pieces.

    Raises:
        StoreError: it cannot be read.
    """
    first, last = int(query.first.timestamp()), int(query.last.timestamp())
    for channel in await reader.read(lambda c: _channels(c, query.meter)):
        since = first
        while piece := await reader.read(_piece_of(channel, since, last)):
            yield [row for _at, row in piece]
            if len(piece) < _ROWS:
                break
            since = piece[-1][0] + 1


_Channel = tuple[int, str, str, str, int, int]


def _channels(connection: sqlite3.Connection, meter: str) -> list[_Channel]:
    return connection.execute(
        "SELECT channel_id, identity, profile, obis, unit, scaler FROM channel JOIN meter USING (meter_id)"
        " WHERE ?1 = '' OR identity = ?1 ORDER BY identity, channel_id",
        (meter,),
    ).fetchall()


def _piece_of(
    channel: _Channel, first: int, last: int
) -> Callable[[sqlite3.Connection], list[tuple[int, ExportRow]]]:
    channel_id, *names = channel

    def read(connection: sqlite3.Connection) -> list[tuple[int, ExportRow]]:
        found = connection.execute(
            "SELECT captured_at, value, status, quality FROM reading"
            " WHERE channel_id = ? AND captured_at BETWEEN ? AND ? ORDER BY captured_at LIMIT ?",
            (channel_id, first, last, _ROWS),
        )
        return [
            (at, (*names, from_epoch(at).isoformat(), value, status, quality))  # pyright: ignore[reportReturnType] - the columns of SQL
            for at, value, status, quality in found
        ]

    return read


def head(form: str) -> bytes:
    """What comes before the first row."""
    return next(_csv([COLUMNS])) if form == "csv" else b""


def written(form: str, piece: list[ExportRow]) -> bytes:
    """A piece in one of `FORMATS`."""
    if form == "csv":
        return b"".join(_csv(piece))
    lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in piece)
    return "".join(f"{line}\n" for line in lines).encode()


def _csv(piece: list[ExportRow] | list[tuple[str, ...]]) -> Iterator[bytes]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(piece)
    yield text.getvalue().encode()
