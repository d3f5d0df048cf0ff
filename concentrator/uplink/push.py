"""The DLMS push uplink: every batch as a data-notification over the TCP WRAPPER (IEC 62056-5-3, -4-7).

The body is a structure of what a push object list would name (Blue Book, class 40): the meter's identity,
the logical name of the profile, its capture objects, its buffer, scaler and unit of each column, and the
qualities of those values that have any. A head-end needs nothing else to understand it.

Confirmed notifications (service class 1) are answered by data-notification-confirm, which names the long
invoke id: only then is a batch acknowledged. For a head-end that never confirms, TCP's own acknowledgement
of every octet has to do; that says that its host has the data, not that it stored it.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from concentrator.clock import Clock
from concentrator.config import PushSection
from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.reader import Reader
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.model import Channel, MeterEvent, Reading
from concentrator.obis import Obis
from concentrator.store.outbox import OutgoingBatch
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.units import NO_UNIT
from concentrator.uplink.uplink import CONNECTED, Uplink, UplinkLostError

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_CONNECT_TIMEOUT_S = 20.0
_READ_SIZE_OCTETS = 4096
_QUEUE_POLL_S = 0.05
_ROWS_PER_NOTIFICATION = 250
# long-invoke-id-and-priority: bits 0..23 the id, bit 30 service class (1 = confirmed).
_INVOKE_ID_MODULUS = 2**24
_CONFIRMED = 0x4000_0000
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


@dataclass(slots=True)
class _Waiting:
    """A batch of which some notifications are not yet confirmed."""

    sequence: int
    left: int


class PushUplink(Uplink):
    """One head-end."""

    kind: ClassVar[str] = "push"

    def __init__(self, settings: PushSection, store: Store, clock: Clock) -> None:
        super().__init__(settings.name, settings.host, store)
        self._settings = settings
        self._clock = clock
        self._invoke_id = 0

    async def _connect_and_drain(self) -> None:
        settings = self._settings
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(settings.host, settings.port)
        except TimeoutError:
            raise UplinkLostError("the head-end does not accept the connection") from None
        try:
            self._set_state(CONNECTED, "")
            window = asyncio.Semaphore(settings.in_flight)
            waiting: dict[int, _Waiting] = {}
            await until_first_ends(
                self._receive(reader, waiting, window), self._send(writer, waiting, window)
            )
        finally:
            writer.close()

    async def _send(
        self, writer: asyncio.StreamWriter, waiting: dict[int, _Waiting], window: asyncio.Semaphore
    ) -> None:
        settings = self._settings
        while True:
            batch = await self.feed.next_batch()
            bodies = notification_bodies(batch)
            entry = _Waiting(batch.sequence, len(bodies))
            for body in bodies:
                try:
                    async with asyncio.timeout(settings.timeout_s):
                        await window.acquire()
                except TimeoutError:
                    raise UplinkLostError(
                        f"the head-end did not confirm within {settings.timeout_s} s"
                    ) from None
                self._invoke_id = (self._invoke_id + 1) % _INVOKE_ID_MODULUS
                long_invoke = self._invoke_id | (_CONFIRMED if settings.confirmed else 0)
                waiting[self._invoke_id] = entry
                date_time = CosemDateTime.from_datetime(self._clock.now(), deviation=0)
                apdu = DataNotification(long_invoke, date_time.to_bytes(), body).to_bytes()
                writer.write(WrapperFrame(settings.source_wport, settings.destination_wport, apdu).to_bytes())
                await writer.drain()
                if not settings.confirmed:
                    await self._until_delivered(writer)
                    self._confirmed(self._invoke_id, waiting, window)
            if not bodies:
                self.feed.acknowledged(batch.sequence)

    async def _until_delivered(self, writer: asyncio.StreamWriter) -> None:
        """Wait until the peer's TCP has acknowledged every octet."""
        peer: socket.socket = writer.get_extra_info("socket")
        async with asyncio.timeout(self._settings.timeout_s):
            while not writer.is_closing():
                # SIOCOUTQ (the same number as TIOCOUTQ): octets sent or to be sent that are not acknowledged.
                (octets,) = struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, b"\0" * 4))
                if octets == 0 and not writer.transport.get_write_buffer_size():
                    return
                await asyncio.sleep(_QUEUE_POLL_S)
        raise UplinkLostError("the head-end closed the connection")

    async def _receive(
        self, reader: asyncio.StreamReader, waiting: dict[int, _Waiting], window: asyncio.Semaphore
    ) -> None:
        decoder = WrapperDecoder()
        while data := await reader.read(_READ_SIZE_OCTETS):
            decoder.receive_data(data)
            while (frame := decoder.next_event()) is not None:
                if frame.apdu[:1] != bytes([DataNotificationConfirm.TAG]):
                    log.warning(
                        "push: unexpected answer", destination=self._settings.name, apdu=frame.apdu[:32].hex()
                    )
                    continue
                confirm = DataNotificationConfirm.read(Reader(frame.apdu, 1))
                self._confirmed(confirm.long_invoke % _INVOKE_ID_MODULUS, waiting, window)
        raise UplinkLostError("the head-end closed the connection")

    def _confirmed(self, invoke_id: int, waiting: dict[int, _Waiting], window: asyncio.Semaphore) -> None:
        entry = waiting.pop(invoke_id, None)
        if entry is None:
            return
        window.release()
        self._backoff.succeeded()
        entry.left -= 1
        if entry.left == 0:
            self.feed.acknowledged(entry.sequence)
