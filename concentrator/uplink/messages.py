"""MQTT topics and JSON payloads, version 1 (concentrator-practice, section 3.2).

Times are RFC 3339 in UTC; an interval's time is its END. Energy is an integer with a scaler, never a float.
`seq` rises for ever in one concentrator: whoever sees a (concentrator, seq) or a (meter, obis, t) again
drops it. `q` is left out when nothing speaks against a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.store.outbox import OutgoingBatch
from concentrator.units import unit_symbol

SCHEMA = 1
# Keeps a message well under the smallest packet limit seen on brokers (64 KiB).
VALUES_PER_MESSAGE = 500
# A batch is cut into at most this many messages; `seq` = batch * this + place of the message in the batch.
MESSAGES_PER_BATCH = 10_000


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
        """Retained: the list of meters."""
        return f"{self.base}/meters"

    @property
    def command(self) -> str:
        """Where orders come from."""
        return f"{self.base}/cmd"

    def result(self, order: str) -> str:
        """Where the states of one order go."""
        return f"{self.base}/cmd/{order}/result"

    def meter(self, meter: str, kind: str) -> str:
        """`kind`: reading, register or event."""
        return f"{self.base}/m/{meter}/{kind}"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(payload: dict[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def batch_messages(topics: Topics, batch: OutgoingBatch) -> list[tuple[str, bytes]]:
    """The messages of one batch, as topic and payload; always the same for the same batch."""
    messages: list[tuple[str, dict[str, Any]]] = []
    for channel, group in groupby(batch.readings, key=lambda reading: reading.channel):
        kind = "reading" if channel.period_s else "register"
        for part in _parts(list(group)):
            body = _interval_body(channel, part) if channel.period_s else _register_body(part)
            messages.append((topics.meter(batch.meter, kind), body))
    messages += [(topics.meter(batch.meter, "event"), _event_body(event)) for event in batch.events]
    first = batch.sequence * MESSAGES_PER_BATCH
    return [
        (
            topic,
            encode(
                {
                    "schema": SCHEMA,
                    "seq": first + place,
                    "batch": batch.sequence,
                    "medium": batch.medium,
                    "profile": str(batch.profile),
                    **body,
                }
            ),
        )
        for place, (topic, body) in enumerate(messages)
    ]


def _parts(readings: list[Reading]) -> Iterator[list[Reading]]:
    for start in range(0, len(readings), VALUES_PER_MESSAGE):
        yield readings[start : start + VALUES_PER_MESSAGE]


def _interval_body(channel: Channel, readings: list[Reading]) -> dict[str, Any]:
    return {
        "obis": str(channel.obis),
        "unit": unit_symbol(channel.unit),
        "scaler": channel.scaler,
        "period_s": channel.period_s,
        "values": [_value({"t": timestamp(reading.captured_at)}, reading) for reading in readings],
    }


def _register_body(readings: list[Reading]) -> dict[str, Any]:
    return {
        "t": timestamp(readings[0].captured_at),
        "items": [
            _value(
                {
                    "t": timestamp(reading.captured_at),
                    "obis": str(reading.channel.obis),
                    "unit": unit_symbol(reading.channel.unit),
                    "scaler": reading.channel.scaler,
                },
                reading,
            )
            for reading in readings
        ],
    }


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
