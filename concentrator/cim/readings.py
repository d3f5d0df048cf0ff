"""MeterReadings and EndDeviceEvents: what a batch of one meter says, as IEC 61968-9 has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import BinaryIO

from concentrator.cim.event_type import event_type
from concentrator.cim.message import XML, CimMessage, Header, Node, fragment, message_id, moment
from concentrator.cim.reading_type import ReadingType, reading_type
from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.reading_quality import reading_qualities

METER_READINGS, END_DEVICE_EVENTS = "MeterReadings", "EndDeviceEvents"
_PLACE = "e5b1c8f2-here-come-the-readings"


@dataclass(frozen=True, slots=True)
class MeterValues:
    """What is to be told of one meter: its readings, and when they came in (None: not told)."""

    meter: str
    medium: str
    readings: Sequence[Reading]
    received_at: datetime | None
    serial: str = ""


@dataclass(frozen=True, slots=True)
class MeterEvents:
    """Events of one meter, and when they came in."""

    meter: str
    medium: str
    events: Sequence[MeterEvent]
    received_at: datetime


def meter_readings(
    source: str, created_at: datetime, meters: Iterable[MeterValues], *identity: object
) -> CimMessage:
    """An EventMessage with the values of meters.

    `source` names the concentrator. `identity` is what makes the message the same one when it is made again, a batch's
    number for instance.
    """
    types: dict[str, ReadingType] = {}
    names: dict[str, Channel] = {}
    readings = [_meter_reading(values, types, names) for values in meters]
    payload: Node = {"MeterReading": readings}
    declared = [
        _declaration(types[ref], channel) for ref, channel in names.items() if not types[ref].is_coded
    ]
    if declared:
        payload["ReadingType"] = declared
    return CimMessage("EventMessage", _header(METER_READINGS, source, created_at, identity), payload)


class MeterReadingsStream:
    """`meter_readings` piece by piece: a whole store needs no more memory than its largest piece.

    Write `head`, then each of `meter()`, then `tail()`. One meter may come several times.
    """

    def __init__(self, source: str, created_at: datetime, media_type: str) -> None:
        self._media_type = media_type
        self._types: dict[str, ReadingType] = {}
        self._names: dict[str, Channel] = {}
        place: Node = {"MeterReading": [{"mRID": _PLACE}], "ReadingType": [{"mRID": _PLACE}]}
        envelope = CimMessage(
            "EventMessage", _header(METER_READINGS, source, created_at, (created_at,)), place
        )
        whole = envelope.encode(media_type)
        self.head, rest = whole.split(fragment("MeterReading", {"mRID": _PLACE}, media_type), 1)
        self._between, self._end = rest.split(fragment("ReadingType", {"mRID": _PLACE}, media_type), 1)
        self._is_first = True

    @property
    def _comma(self) -> bytes:
        return b"" if self._media_type == XML else b","

    def meter(self, values: MeterValues) -> bytes:
        """The values of one meter."""
        comma, self._is_first = b"" if self._is_first else self._comma, False
        return comma + fragment(
            "MeterReading", _meter_reading(values, self._types, self._names), self._media_type
        )

    def tail(self) -> bytes:
        """What declares the reading types that are no codes, and the end."""
        declared = [
            fragment("ReadingType", _declaration(self._types[ref], channel), self._media_type)
            for ref, channel in self._names.items()
            if not self._types[ref].is_coded
        ]
        return (self._between + self._comma.join(declared) if declared else b"") + self._end


def write_meter_readings(
    source: str, created_at: datetime, meters: Iterable[MeterValues], media_type: str, out: BinaryIO
) -> None:
    """`meter_readings`, meter by meter, into a binary stream."""
    stream = MeterReadingsStream(source, created_at, media_type)
    out.write(stream.head)
    out.writelines(stream.meter(values) for values in meters)
    out.write(stream.tail())


def end_device_events(
    source: str, created_at: datetime, meters: Iterable[MeterEvents], *identity: object
) -> CimMessage:
    """An EventMessage with events of meters."""
    events = [_event(source, values, event) for values in meters for event in values.events]
    payload: Node = {"EndDeviceEvent": events}
    return CimMessage("EventMessage", _header(END_DEVICE_EVENTS, source, created_at, identity), payload)


def _header(noun: str, source: str, created_at: datetime, identity: Sequence[object]) -> Header:
    return Header("created", noun, created_at, source, message_id(source, noun, *identity))


def _meter_reading(values: MeterValues, types: dict[str, ReadingType], names: dict[str, Channel]) -> Node:
    blocks: list[Node] = []
    registers: list[Node] = []
    for channel, group in groupby(values.readings, key=lambda reading: reading.channel):
        kind = reading_type(channel)
        types[kind.ref], names[kind.ref] = kind, channel
        if channel.period_s:
            blocks.append(
                {
                    "IntervalReadings": [
                        _base_reading(kind, reading, values.received_at) for reading in group
                    ],
                    "ReadingType": {"ref": kind.ref},
                }
            )
        else:
            registers += [_register(kind, reading, values.received_at) for reading in group]
    node: Node = {}
    if blocks:
        node["IntervalBlocks"] = blocks
    node["Meter"] = _meter(values)
    if registers:
        node["Readings"] = registers
    if values.readings:
        first = min(values.readings, key=_began)
        last = max(values.readings, key=lambda reading: reading.captured_at)
        # An interval is named by its end; what it spans begins a period earlier.
        node["valuesInterval"] = {"end": moment(last.captured_at), "start": moment(_began(first))}
    return node


def _began(reading: Reading) -> datetime:
    return reading.captured_at - timedelta(seconds=reading.channel.period_s)


def _meter(values: MeterValues) -> Node:
    names: list[Node] = [{"name": values.meter, "NameType": {"name": "MeterIdentity"}}]
    if values.serial and values.serial != values.meter:
        names.append({"name": values.serial, "NameType": {"name": "SerialNumber"}})
    return {"mRID": values.meter, "Names": names}


def _base_reading(kind: ReadingType, reading: Reading, received_at: datetime | None) -> Node:
    told: Node = {} if received_at is None else {"reportedDateTime": moment(received_at)}
    node: Node = {
        **told,
        "timeStamp": moment(reading.captured_at),
        "value": kind.value(reading.value),
    }
    node["ReadingQualities"] = _qualities(reading)
    return node


def _register(kind: ReadingType, reading: Reading, received_at: datetime | None) -> Node:
    return {**_base_reading(kind, reading, received_at), "ReadingType": {"ref": kind.ref}}


def _qualities(reading: Reading) -> list[Node]:
    """Each flag by its code; the meter's own status word stands as a comment beside the first."""
    nodes: list[Node] = []
    codes: dict[str, list[str]] = {}
    for quality in reading_qualities(Quality(reading.quality)):
        codes.setdefault(quality.code, []).append(quality.words)
    for place, (code, words) in enumerate(codes.items()):
        comment = "; ".join(words)
        if place == 0 and reading.status:
            comment = f"{comment}; status {reading.status}"
        nodes.append({"comment": comment, "ReadingQualityType": {"ref": code}})
    return nodes


def _declaration(kind: ReadingType, channel: Channel) -> Node:
    """A reading type that is no code of the standard: named by its OBIS code, which is its mRID too."""
    return {
        "mRID": kind.ref,
        "Names": [{"name": str(channel.obis), "NameType": {"name": "OBIS"}}],
    }


def _event(source: str, values: MeterEvents, event: MeterEvent) -> Node:
    log, ordinal = str(event.log), event.ordinal
    details: list[Node] = [
        {"name": "log", "value": log},
        {"name": "code", "value": str(event.code)},
        {"name": "group", "value": event.group},
    ]
    return {
        "mRID": message_id(source, values.meter, log, moment(event.happened_at), event.code, ordinal),
        "createdDateTime": moment(event.happened_at),
        "issuerID": source,
        "reason": event.detail,
        "severity": event.severity.value,
        "Assets": {"mRID": values.meter},
        "EndDeviceEventDetails": details,
        "EndDeviceEventType": {"ref": event_type(event, values.medium)},
    }
