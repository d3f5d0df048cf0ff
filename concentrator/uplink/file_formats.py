"""Batches as the content of files: CSV, JSON lines, and IEC 61968-9 in XML and JSON.

The same batches always make the same content: a file that is delivered twice is the same file. Whoever reads the files
drops what it has by `batch`, or by meter, OBIS code and time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from concentrator.cim.message import JSON, XML
from concentrator.cim.readings import MeterEvents, MeterValues, end_device_events, meter_readings
from concentrator.store.outbox import OutgoingBatch
from concentrator.units import unit_symbol
from concentrator.uplink.messages import Topics, batch_messages, encode, quality_names, timestamp

READING_COLUMNS = (
    "batch", "meter", "medium", "profile", "obis", "unit", "scaler", "period_s", "time", "value", "status", "quality",
    "received_at",
)  # fmt: skip
EVENT_COLUMNS = (
    "batch",
    "meter",
    "medium",
    "log",
    "time",
    "code",
    "group",
    "severity",
    "kind",
    "detail",
    "ordinal",
)


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file to be: what it holds (readings, events or both), and its octets."""

    what: str
    data: bytes


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How files are written; `write` takes the topics of the concentrator, for its names, and the batches."""

    suffix: str
    media_type: str
    write: Callable[[Topics, Sequence[OutgoingBatch]], list[FileContent]]


def _as_csv(_topics: Topics, batches: Sequence[OutgoingBatch]) -> list[FileContent]:
    readings = [
        (
            batch.sequence,
            batch.meter,
            batch.medium,
            batch.profile,
            reading.channel.obis,
            unit_symbol(reading.channel.unit),
            reading.channel.scaler,
            reading.channel.period_s,
            timestamp(reading.captured_at),
            reading.value,
            "" if reading.status is None else reading.status,
            " ".join(quality_names(reading.quality)),
            timestamp(batch.received_at),
        )
        for batch in batches
        for reading in batch.readings
    ]
    events = [
        (
            batch.sequence,
            batch.meter,
            batch.medium,
            event.log,
            timestamp(event.happened_at),
            event.code,
            event.group,
            event.severity.value,
            event.kind,
            event.detail,
            event.ordinal,
        )
        for batch in batches
        for event in batch.events
    ]
    files: list[FileContent] = []
    if readings:
        files.append(FileContent("readings", _table(READING_COLUMNS, readings)))
    if events:
        files.append(FileContent("events", _table(EVENT_COLUMNS, events)))
    return files


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """RFC 4180, with a line of names."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _harmless(cell: object) -> object:
    """Text that a spreadsheet would run as a formula is kept from being one."""
    if (isinstance(cell, str) and cell[:1] in ("=", "+", "@", "\t", "\r")) or cell == "-":
        return f"'{cell}"
    return cell


def _as_lines(topics: Topics, batches: Sequence[OutgoingBatch]) -> list[FileContent]:
    """The payloads of MQTT, one a line, each with the topic that it would have had."""
    lines = [
        encode({"topic": message.topic, **message.payload()})
        for batch in batches
        for message in batch_messages(topics, batch)
    ]
    return [FileContent("messages", b"\n".join(lines) + b"\n")] if lines else []


def _as_cim(media_type: str) -> Callable[[Topics, Sequence[OutgoingBatch]], list[FileContent]]:
    def write(topics: Topics, batches: Sequence[OutgoingBatch]) -> list[FileContent]:
        source = f"{topics.site}/{topics.concentrator}"
        identity = [batch.sequence for batch in batches]
        created_at = max(batch.received_at for batch in batches)
        values = [
            MeterValues(batch.meter, batch.medium, batch.readings, batch.received_at)
            for batch in batches
            if batch.readings
        ]
        events = [
            MeterEvents(batch.meter, batch.medium, batch.events, batch.received_at)
            for batch in batches
            if batch.events
        ]
        files: list[FileContent] = []
        if values:
            message = meter_readings(source, created_at, values, *identity)
            files.append(FileContent("readings", message.encode(media_type)))
        if events:
            message = end_device_events(source, created_at, events, *identity)
            files.append(FileContent("events", message.encode(media_type)))
        return files

    return write


FORMATS = {
    "csv": FileFormat("csv", "text/csv; charset=utf-8", _as_csv),
    "jsonl": FileFormat("jsonl", "application/jsonl", _as_lines),
    "cim-xml": FileFormat("xml", XML, _as_cim(XML)),
    "cim-json": FileFormat("json", JSON, _as_cim(JSON)),
}
