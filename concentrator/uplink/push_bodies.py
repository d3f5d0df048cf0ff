"""What a push carries: the body of the data-notifications of one batch.

It is a structure of what a push object list would name (Blue Book, class 40): the meter's identity,
the logical name of the profile, its capture objects, its buffer, scaler and unit of each column, and the
qualities of those values that have any. A head-end needs nothing else to understand it.
"""

from __future__ import annotations

from collections.abc import Sequence

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.model import Channel, MeterEvent, Reading
from concentrator.obis import Obis
from concentrator.store.outbox import OutgoingBatch
from concentrator.units import NO_UNIT

_ROWS_PER_NOTIFICATION = 250
_CLOCK = (8, Obis(0, 0, 1, 0, 0), 2)
_STATUS = (1, Obis(0, 0, 96, 10, 1), 2)
_FIRST_VALUE_COLUMN = 2


def notification_bodies(batch: OutgoingBatch) -> list[Data]:
    """The bodies of one batch: rows of at most 250 capture times each, oldest first."""
    if batch.events:
        return [
            _events_body(batch, batch.events[start : start + _ROWS_PER_NOTIFICATION])
            for start in range(0, len(batch.events), _ROWS_PER_NOTIFICATION)
        ]
    channels = list(dict.fromkeys(reading.channel for reading in batch.readings))
    rows: dict[tuple[int, int | None], dict[Channel, Reading]] = {}
    for reading in batch.readings:
        rows.setdefault((round(reading.captured_at.timestamp()), reading.status), {})[reading.channel] = (
            reading
        )
    ordered = [rows[key] for key in sorted(rows, key=lambda key: key[0])]
    return [
        _body(batch, channels, ordered[start : start + _ROWS_PER_NOTIFICATION])
        for start in range(0, len(ordered), _ROWS_PER_NOTIFICATION)
    ]


def _events_body(batch: OutgoingBatch, events: Sequence[MeterEvent]) -> Data:
    """Events as the log has them: clock, and the code of the event object that belongs to the log."""
    code = Obis(0, batch.profile.b, 96, 11, batch.profile.e)
    return axdr.structure(
        axdr.octet_string(batch.meter.encode()),
        axdr.octet_string(batch.profile.to_bytes()),
        _capture_objects([_CLOCK, _STATUS, (1, code, 2)]),
        axdr.array(
            *(
                axdr.structure(
                    axdr.octet_string(CosemDateTime.from_datetime(event.happened_at, deviation=0).to_bytes()),
                    axdr.NULL,
                    axdr.double_long_unsigned(event.code),
                )
                for event in events
            )
        ),
        axdr.array(axdr.structure(axdr.integer(0), axdr.enumeration(NO_UNIT))),
        axdr.array(),
    )


def _capture_objects(columns: Sequence[tuple[int, Obis, int]]) -> Data:
    return axdr.array(
        *(
            axdr.structure(
                axdr.long_unsigned(class_id),
                axdr.octet_string(obis.to_bytes()),
                axdr.integer(attribute),
                axdr.long_unsigned(0),
            )
            for class_id, obis, attribute in columns
        )
    )


def _body(batch: OutgoingBatch, channels: list[Channel], rows: list[dict[Channel, Reading]]) -> Data:
    columns = [
        _CLOCK,
        _STATUS,
        *((channel.class_id, channel.obis, channel.attribute) for channel in channels),
    ]
    return axdr.structure(
        axdr.octet_string(batch.meter.encode()),
        axdr.octet_string(batch.profile.to_bytes()),
        _capture_objects(columns),
        axdr.array(*(_row(channels, row) for row in rows)),
        axdr.array(
            *(
                axdr.structure(axdr.integer(channel.scaler), axdr.enumeration(channel.unit))
                for channel in channels
            )
        ),
        axdr.array(*_qualities(channels, rows)),
    )


def _qualities(channels: list[Channel], rows: list[dict[Channel, Reading]]) -> list[Data]:
    """What speaks against values: row, column and flags of each that has any, all counted from 0."""
    return [
        axdr.structure(
            axdr.long_unsigned(number),
            axdr.long_unsigned(column),
            axdr.double_long_unsigned(int(row[channel].quality)),
        )
        for number, row in enumerate(rows)
        for column, channel in enumerate(channels, _FIRST_VALUE_COLUMN)
        if channel in row and row[channel].quality != 0
    ]


def _row(channels: list[Channel], row: dict[Channel, Reading]) -> Data:
    first = next(iter(row.values()))
    captured_at = CosemDateTime.from_datetime(first.captured_at, deviation=0)
    status = axdr.NULL if first.status is None else axdr.double_long_unsigned(first.status)
    values = (_value(row[channel]) if channel in row else axdr.NULL for channel in channels)
    return axdr.structure(axdr.octet_string(captured_at.to_bytes()), status, *values)


def _value(reading: Reading) -> Data:
    value = reading.value
    if isinstance(value, str):
        return axdr.visible_string(value) if value.isascii() else Data(DataType.UTF8_STRING, value)
    if 0 <= value < 2**32:
        return axdr.double_long_unsigned(value)
    return Data(DataType.LONG64, value)
