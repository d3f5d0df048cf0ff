"""MQTT topics and payloads, version 1 (concentrator-practice, section 3.2; JSON Schema files in `schemas/`).

Times are RFC 3339 in UTC; an interval's time is its END. Energy is an integer with a scaler, never a float.
`seq` rises for ever in one concentrator: whoever sees a (concentrator, seq) or a (meter, obis, t) again
drops it. `q` is left out when nothing speaks against a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import cbor2

from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.store.outbox import OutgoingBatch
from concentrator.units import unit_symbol

SCHEMA = 1
# Keeps a message well under the smallest packet limit seen on brokers (64 KiB).
VALUES_PER_MESSAGE = 500
# `seq` = batch * this + place of the message in the batch * _PIECES_OF_A_MESSAGE + which piece of it.
NUMBERS_PER_BATCH = 1_000_000
# A message may be halved eight times over; its pieces are numbered like a heap: 1 the whole, 2 and 3 its halves.
_PIECES_OF_A_MESSAGE = 512


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one concentrator."""

    site: str
    concentrator: str

    @property
    def base(self) -> str:
        """What they all begin with."""
        return f"dcu/v1/{self.site}/{self.concentrator}"

    @property
    def status(self) -> str:
        """Retained: online or offline (the will)."""
        return f"{self.base}/status"

    @property
    def health(self) -> str:
        """Queue depth, meters reachable, disk."""
        return f"{self.base}/health"

    @property
    def meters(self) -> str:
        """Retained: the list of meters, its first page."""
        return f"{self.base}/meters"

    def meters_page(self, number: int) -> str:
        """Retained: one page of the list of meters, counted from 0."""
        return f"{self.meters}/{number}" if number else self.meters

    @property
    def update(self) -> str:
        """How far an update of the concentrator is."""
        return f"{self.base}/update"

    @property
    def command(self) -> str:
        """Where orders come from."""
        return f"{self.base}/cmd"

    @property
    def replies(self) -> str:
        """Below this, response topics may lie."""
        return f"{self.base}/reply/"

    def result(self, order: str) -> str:
        """Where the states of one order go that names no response topic."""
        return f"{self.base}/cmd/{order}/result"

    def response_message(self, name: str) -> str:
        """Where the answer to a CIM message goes that names no response topic."""
        return f"{self.base}/cmd/{name}/ResponseMessage"

    def meter(self, meter: str, kind: str) -> str:
        """`kind`: reading, register, event or latest; MeterReadings or EndDeviceEvents."""
        return f"{self.base}/m/{meter}/{kind}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How payloads are written; `content_type` is the MQTT 5 property."""

    name: str
    content_type: str
    encode: Callable[[dict[str, Any]], bytes]


def encode(payload: dict[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


JSON = Encoding("json", "application/json", encode)
CBOR = Encoding("cbor", "application/cbor", cbor2.dumps)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[:19] + "Z"


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of a batch: always the same, with the same number, for the same batch.

    `values` stand under `key` in the payload; an event has none. `piece` tells which part of the message it is, where a
    broker's limits want it in pieces: a piece has a number of its own, which the whole never has.
    """

    topic: str
    batch: int
    place: int
    head: dict[str, Any]
    key: str = ""
    values: tuple[dict[str, Any], ...] = ()
    piece: int = 1

    @property
    def number(self) -> int:
        """`seq`."""
        return self.batch * NUMBERS_PER_BATCH + self.place * _PIECES_OF_A_MESSAGE + self.piece - 1

    def payload(self) -> dict[str, Any]:
        """The whole body."""
        body = {"schema": SCHEMA, "seq": self.number, **self.head}
        if self.key == "items":
            body["t"] = self.values[0]["t"]
        if self.key:
            body[self.key] = self.values
        return body

    @staticmethod
    def has_room(piece: int) -> bool:
        """Whether there is a number for this piece of a message."""
        return piece < _PIECES_OF_A_MESSAGE

    def halves(self) -> tuple[BatchMessage, ...]:
        """The same values as two messages; none when they cannot be parted any further."""
        middle = len(self.values) // 2
        if not middle or not self.has_room(2 * self.piece + 1):
            return ()
        return tuple(
            BatchMessage(
                self.topic, self.batch, self.place, self.head, self.key, values, 2 * self.piece + half
            )
            for half, values in enumerate((self.values[:middle], self.values[middle:]))
        )


def batch_messages(topics: Topics, batch: OutgoingBatch) -> list[BatchMessage]:
    """The messages of one batch; always the same for the same batch."""
    messages: list[BatchMessage] = []
    common = {"batch": batch.sequence, "medium": batch.medium, "profile": str(batch.profile)}

    def add(kind: str, head: dict[str, Any], key: str = "", values: tuple[dict[str, Any], ...] = ()) -> None:
        messages.append(
            BatchMessage(
                topics.meter(batch.meter, kind),
                batch.sequence,
                len(messages),
                {**common, **head},
                key,
                values,
            )
        )

    for channel, group in groupby(batch.readings, key=lambda reading: reading.channel):
        if channel.period_s:
            head = _interval_head(channel)
            for part in _parts([_value({"t": timestamp(one.captured_at)}, one) for one in group]):
                add("reading", head, "values", part)
    for part in _parts([_item(one) for one in batch.readings if not one.channel.period_s]):
        add("register", {}, "items", part)
    for event in batch.events:
        add("event", _event_body(event))
    return messages


def _parts(values: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    for start in range(0, len(values), VALUES_PER_MESSAGE):
        yield tuple(values[start : start + VALUES_PER_MESSAGE])


def _interval_head(channel: Channel) -> dict[str, Any]:
    return {
        "obis": str(channel.obis),
        "unit": unit_symbol(channel.unit),
        "scaler": channel.scaler,
        "period_s": channel.period_s,
    }


def _item(reading: Reading) -> dict[str, Any]:
    return _value(
        {
            "t": timestamp(reading.captured_at),
            "obis": str(reading.channel.obis),
            "unit": unit_symbol(reading.channel.unit),
            "scaler": reading.channel.scaler,
        },
        reading,
    )


def _event_body(event: MeterEvent) -> dict[str, Any]:
    return {
        "t": timestamp(event.happened_at),
        "code": event.code,
        "group": event.group,
        "severity": event.severity.value,
        "kind": event.kind,
        "detail": event.detail,
        "ordinal": event.ordinal,
    }


def _value(head: dict[str, Any], reading: Reading) -> dict[str, Any]:
    item = {**head, "v": reading.value}
    if reading.status is not None:
        item["s"] = reading.status
    if reading.quality:
        item["q"] = quality_names(reading.quality)
    return item


def quality_names(quality: Quality) -> list[str]:
    """The flags by name, lower case."""
    return [flag.name.lower() for flag in Quality if flag in quality and flag.name]
