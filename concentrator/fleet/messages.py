"""The messages of concentrators, read as the rows that they become (docs/uplink.md, MQTT).

Everything that arrives is foreign: whatever does not have the form of its topic is refused with words, whole, so that
half a message is never stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import cbor2

from concentrator.errors import LocalError

_PREFIX, _VERSION = "dcu", "v1"
_STATUS_PARTS, _METER_PARTS = 5, 7
_LARGEST_BIGINT = 2**63 - 1
_CBOR_MAP = range(0xA0, 0xC0)
# The topics that a consumer subscribes to, below a shared subscription.
TOPICS = ("dcu/v1/+/+/m/+/+", "dcu/v1/+/+/status", "dcu/v1/+/+/health")


class FleetMessageError(LocalError):
    """A message without the form of its topic; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """What a value belongs to."""

    meter: str
    profile: str
    obis: str
    unit: str
    scaler: int
    period_s: int


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """One value; `text` where it is no number that fits 64 bits."""

    channel: ChannelKey
    at: datetime
    value: int | None
    text: str | None
    status: int | None
    quality: str | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One entry of a meter's log."""

    log: str
    at: datetime
    code: int
    ordinal: int
    group: str
    severity: str
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class MeterMessage:
    """What one message says of one meter."""

    site: str
    concentrator: str
    meter: str
    medium: str
    seq: int
    readings: tuple[ReadingRow, ...] = ()
    events: tuple[EventRow, ...] = ()


@dataclass(frozen=True, slots=True)
class StateMessage:
    """What a concentrator says of itself: a status or its health."""

    site: str
    concentrator: str
    fields: dict[str, Any]
    is_status: bool


def parse_message(topic: str, payload: bytes, content_type: str = "") -> MeterMessage | StateMessage:
    """Read one message: JSON, or CBOR by its content type or first octet (RFC 8949: a map).

    Raises:
        FleetMessageError: topic or payload is not one of a concentrator's.
    """
    parts = topic.split("/")
    if parts[:2] != [_PREFIX, _VERSION] or len(parts) not in (_STATUS_PARTS, _METER_PARTS):
        raise FleetMessageError(f"topic {topic}: not one of a concentrator, version 1")
    try:
        body: object = cbor2.loads(payload) if _is_cbor(payload, content_type) else json.loads(payload)
    except (ValueError, RecursionError, OverflowError, TypeError, MemoryError, cbor2.CBORError):
        raise FleetMessageError(
            f"topic {topic}: payload of {len(payload)} octets is no JSON, and no CBOR"
        ) from None
    if not isinstance(body, dict):
        raise FleetMessageError(f"topic {topic}: a JSON object or a CBOR map is expected")
    fields = cast("dict[str, Any]", body)
    site, concentrator = parts[2], parts[3]
    try:
        if len(parts) == _STATUS_PARTS:
            return StateMessage(site, concentrator, fields, parts[4] == "status")
        return _meter_message(site, concentrator, parts[5], parts[6], fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FleetMessageError(f"topic {topic}: {type(error).__name__}: {error}") from None


def _is_cbor(payload: bytes, content_type: str) -> bool:
    return content_type == "application/cbor" or (
        not content_type and payload[:1] != b"" and payload[0] in _CBOR_MAP
    )


def _meter_message(
    site: str, concentrator: str, meter: str, kind: str, fields: dict[str, Any]
) -> MeterMessage:
    seq, medium, profile = _whole(fields["seq"]), _text(fields["medium"]), _text(fields["profile"])
    if kind == "reading":
        channel = ChannelKey(
            meter,
            profile,
            _text(fields["obis"]),
            _text(fields["unit"]),
            _whole(fields["scaler"]),
            _whole(fields["period_s"]),
        )
        readings = tuple(_reading(channel, one) for one in fields["values"])
        return MeterMessage(site, concentrator, meter, medium, seq, readings)
    if kind == "register":
        readings = tuple(
            _reading(
                ChannelKey(meter, profile, _text(one["obis"]), _text(one["unit"]), _whole(one["scaler"]), 0),
                one,
            )
            for one in fields["items"]
        )
        return MeterMessage(site, concentrator, meter, medium, seq, readings)
    if kind != "event":
        raise ValueError(f"kind {kind}; known: reading, register, event")
    event = EventRow(
        profile,
        _moment(fields["t"]),
        _whole(fields["code"]),
        _whole(fields["ordinal"]),
        _text(fields["group"]),
        _text(fields["severity"]),
        _text(fields["kind"]),
        _text(fields["detail"]),
    )
    return MeterMessage(site, concentrator, meter, medium, seq, events=(event,))


def _reading(channel: ChannelKey, item: dict[str, Any]) -> ReadingRow:
    value = item["v"]
    fits = isinstance(value, int) and -_LARGEST_BIGINT <= value <= _LARGEST_BIGINT
    status = item.get("s")
    return ReadingRow(
        channel,
        _moment(item["t"]),
        value if fits else None,
        None if fits else _text(str(value)),
        None if status is None else _whole(status),
        " ".join(_text(flag) for flag in item["q"]) if item.get("q") else None,
    )


def _whole(value: object) -> int:
    if type(value) is not int or not -_LARGEST_BIGINT <= value <= _LARGEST_BIGINT:
        raise ValueError(f"a whole number is expected, got {value!r}")
    return value


def _text(value: object) -> str:
    """Text without what PostgreSQL cannot keep."""
    if not isinstance(value, str):
        raise TypeError(f"text is expected, got {value!r}")
    return value.replace("\x00", "").encode("utf-8", "replace").decode()


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"a time with its zone is expected, got {value!r}")
    return moment
