"""How a batch becomes messages: our own payloads in JSON or CBOR, or IEC 61968-9 in XML or JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from concentrator.cim import message as cim
from concentrator.cim.readings import (
    END_DEVICE_EVENTS,
    METER_READINGS,
    MeterEvents,
    MeterValues,
    end_device_events,
    meter_readings,
)
from concentrator.model import Reading
from concentrator.store.outbox import OutgoingBatch
from concentrator.uplink.messages import (
    CBOR,
    JSON,
    VALUES_PER_MESSAGE,
    BatchMessage,
    Encoding,
    Topics,
    batch_messages,
)


@dataclass(frozen=True, slots=True)
class BatchForm:
    """One way to write batches. What is no batch (states, results) is written in `other`."""

    content_type: str
    messages: Callable[[Topics, OutgoingBatch], list[BatchMessage]]
    encode: Callable[[BatchMessage], bytes]
    other: Encoding = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class _CimBatchMessage(BatchMessage):
    """Some of a batch as one CIM message; `values` are its readings."""

    source: str
    of: OutgoingBatch
    readings: tuple[Reading, ...] = ()

    def halves(self) -> tuple[BatchMessage, ...]:
        """The same readings as two messages."""
        middle = len(self.readings) // 2
        piece = 2 * self.piece
        if not middle or not self.has_room(piece + 1):
            return ()
        return tuple(
            _cim_message(self, part, piece + half)
            for half, part in enumerate((self.readings[:middle], self.readings[middle:]))
        )


def _cim_message(like: _CimBatchMessage, readings: tuple[Reading, ...], piece: int) -> _CimBatchMessage:
    return _CimBatchMessage(
        like.topic,
        like.batch,
        like.place,
        like.head,
        piece=piece,
        source=like.source,
        of=like.of,
        readings=readings,
    )


def _cim_messages(topics: Topics, batch: OutgoingBatch) -> list[BatchMessage]:
    source = f"{topics.site}/{topics.concentrator}"
    messages: list[BatchMessage] = [
        _CimBatchMessage(
            topics.meter(batch.meter, METER_READINGS),
            batch.sequence,
            place,
            {},
            source=source,
            of=batch,
            readings=batch.readings[start : start + VALUES_PER_MESSAGE],
        )
        for place, start in enumerate(range(0, len(batch.readings), VALUES_PER_MESSAGE))
    ]
    if batch.events:
        topic = topics.meter(batch.meter, END_DEVICE_EVENTS)
        messages.append(_CimBatchMessage(topic, batch.sequence, len(messages), {}, source=source, of=batch))
    return messages


def _encode_cim(media_type: str) -> Callable[[BatchMessage], bytes]:
    def encode(message: BatchMessage) -> bytes:
        if not isinstance(message, _CimBatchMessage):
            raise TypeError(f"a message of a batch as CIM is expected, got {type(message).__name__}")
        batch = message.of
        if message.readings:
            values = MeterValues(batch.meter, batch.medium, message.readings, batch.received_at)
            written = meter_readings(message.source, batch.received_at, [values], message.number)
        else:
            events = MeterEvents(batch.meter, batch.medium, batch.events, batch.received_at)
            written = end_device_events(message.source, batch.received_at, [events], message.number)
        return written.encode(media_type)

    return encode


FORMS = {
    "json": BatchForm(JSON.content_type, batch_messages, lambda message: JSON.encode(message.payload())),
    "cbor": BatchForm(
        CBOR.content_type, batch_messages, lambda message: CBOR.encode(message.payload()), CBOR
    ),
    "cim-xml": BatchForm(cim.XML, _cim_messages, _encode_cim(cim.XML)),
    "cim-json": BatchForm(cim.JSON, _cim_messages, _encode_cim(cim.JSON)),
}
