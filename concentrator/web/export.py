"""Readings as CSV, JSON lines or CIM, for head-ends that fetch: straight from the store, a piece at a time."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from concentrator.cim.message import JSON, XML
from concentrator.cim.readings import MeterReadingsStream, MeterValues
from concentrator.errors import LocalError
from concentrator.model import IDENTITY_PATTERN, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.readings import from_epoch
from concentrator.web.store_reader import StoreReader

COLUMNS = ("meter", "profile", "obis", "unit", "scaler", "captured_at", "value", "status", "quality")
FORMATS: Mapping[str, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "cim-xml": XML,
    "cim-json": JSON,
}
ENDINGS: Mapping[str, str] = {"csv": "csv", "jsonl": "jsonl", "cim-xml": "xml", "cim-json": "json"}
_USUAL_SPAN = timedelta(days=1)
# Rows that are in memory at once.
_ROWS = 2000
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

ExportRow = tuple[str, str, str, int, int, str, int | str, int | None, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Readings of one channel of one meter, oldest first; none of them in the empty piece."""

    meter: str = ""
    medium: str = ""
    profile: str = ""
    readings: tuple[Reading, ...] = ()

    def rows(self) -> list[ExportRow]:
        """The readings as rows of `COLUMNS`."""
        return [
            (
                self.meter,
                self.profile,
                str(one.channel.obis),
                one.channel.unit,
                one.channel.scaler,
                one.captured_at.isoformat(),
                one.value,
                one.status,
                int(one.quality),
            )
            for one in self.readings
        ]


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


async def pieces(reader: StoreReader, query: ExportQuery) -> AsyncGenerator[Piece]:
    """The readings in pieces, by meter and channel, oldest first. The store is free for others between the pieces.

    Raises:
        StoreError: it cannot be read.
    """
    first, last = int(query.first.timestamp()), int(query.last.timestamp())
    for channel in await reader.read(lambda c: _channels(c, query.meter)):
        since = first
        while (piece := await reader.read(_piece_of(channel, since, last))).readings:
            yield piece
            if len(piece.readings) < _ROWS:
                break
            since = int(piece.readings[-1].captured_at.timestamp()) + 1


_Channel = tuple[int, str, str, str, Channel]


def _channels(connection: sqlite3.Connection, meter: str) -> list[_Channel]:
    found = connection.execute(
        "SELECT channel_id, identity, medium, profile, obis, unit, scaler, class_id, attribute, period_s"
        " FROM channel JOIN meter USING (meter_id) WHERE ?1 = '' OR identity = ?1 ORDER BY identity, channel_id",
        (meter,),
    )
    return [
        (channel_id, identity, medium, profile, Channel(Obis.parse(obis), *rest))
        for channel_id, identity, medium, profile, obis, *rest in found
    ]


def _piece_of(channel: _Channel, first: int, last: int) -> Callable[[sqlite3.Connection], Piece]:
    channel_id, meter, medium, profile, of = channel

    def read(connection: sqlite3.Connection) -> Piece:
        found = connection.execute(
            "SELECT captured_at, value, status, quality FROM reading"
            " WHERE channel_id = ? AND captured_at BETWEEN ? AND ? ORDER BY captured_at LIMIT ?",
            (channel_id, first, last, _ROWS),
        )
        readings = tuple(
            Reading(of, from_epoch(at), value, status, Quality(quality))
            for at, value, status, quality in found
        )
        return Piece(meter, medium, profile, readings)

    return read


class Writer(Protocol):
    """Writes pieces in one of `FORMATS`."""

    head: bytes

    def piece(self, piece: Piece) -> bytes:
        """One piece."""
        ...

    def tail(self) -> bytes:
        """What comes after the last."""
        ...


def make_writer(form: str, source: str, now: datetime) -> Writer:
    """The writer of a format; `source` names the concentrator."""
    if form.startswith("cim-"):
        return _CimWriter(MeterReadingsStream(source, now, FORMATS[form]))
    return _TableWriter(form)


class _TableWriter:
    """CSV with a line of names, or JSON lines."""

    def __init__(self, form: str) -> None:
        self._is_csv = form == "csv"
        self.head = _csv([COLUMNS]) if self._is_csv else b""

    def piece(self, piece: Piece) -> bytes:
        """One piece."""
        if self._is_csv:
            return _csv(piece.rows())
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) for row in piece.rows())
        return "".join(f"{line}\n" for line in lines).encode()

    def tail(self) -> bytes:
        """Nothing."""
        return b""


class _CimWriter:
    """IEC 61968-9 MeterReadings; a meter has a MeterReading for each piece."""

    def __init__(self, stream: MeterReadingsStream) -> None:
        self._stream = stream
        self.head = stream.head

    def piece(self, piece: Piece) -> bytes:
        """One piece."""
        if not piece.readings:
            return b""
        return self._stream.meter(MeterValues(piece.meter, piece.medium, piece.readings, None))

    def tail(self) -> bytes:
        """Declarations, and the end."""
        return self._stream.tail()


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
