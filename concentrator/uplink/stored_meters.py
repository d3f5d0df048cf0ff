"""Meters as logical devices whose objects are served from the store: what was read, with its time and quality.

Each value is an Extended register (Blue Book, class 4) with the time of its capture and, as its status, the quality
flags of `concentrator.model.Quality`; text is an object of class Data. Each profile is a Profile generic whose rows
have the interval's end, the meter's own status word, the quality, and the values. Every call happens on one thread,
with a connection of its own that only reads.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis
from concentrator.store import outbox
from concentrator.store.outbox import DestinationState
from concentrator.store.readings import from_epoch

# Logical devices of meters are numbered from here by the store's own numbers, which never change.
FIRST_METER_DEVICE = 256
LOGICAL_DEVICE_NAME = Obis(0, 0, 42, 0, 0, 255)
SERIAL_NUMBER = Obis(0, 0, 96, 1, 0, 255)
FIRMWARE = Obis(1, 0, 0, 2, 0, 255)
STATUS = Obis(0, 0, 96, 10, 1, 255)
# Ours (value group C from 128 on is the manufacturer's): the quality of a row; and state, reason, last contact and
# clock offset of the meter.
QUALITY = Obis(0, 0, 128, 0, 1, 255)
METER_STATE = Obis(0, 0, 128, 0, 0, 255)
_STATUS_COLUMNS = (CLOCK_COLUMN, CaptureObject(1, STATUS, 2), CaptureObject(1, QUALITY, 2))
_EXTENDED_REGISTER, _DATA = 4, 1
_NULL = b"\x00"


@dataclass(frozen=True, slots=True)
class StoredMeter:
    """One meter as the store has it. `device` is its logical device number."""

    meter_id: int
    identity: str
    logical_device_name: str
    serial: str
    firmware: str
    medium: str
    state: str
    reason: str
    last_contact: int | None
    clock_offset_s: float | None

    @property
    def device(self) -> int:
        """Number of its logical device: the server's wPort."""
        return FIRST_METER_DEVICE + self.meter_id

    @property
    def name(self) -> bytes:
        """What SAP assignment calls it: its own logical device name, else its identity."""
        return (self.logical_device_name or self.identity).encode("ascii", "replace")[:16]


@dataclass(frozen=True, slots=True)
class _Channel:
    channel_id: int
    obis: Obis
    unit: int
    scaler: int
    profile: Obis
    period_s: int


_METER = (
    "SELECT meter_id, identity, logical_device_name, serial, firmware, medium, state, reason, last_contact,"
    " clock_offset_s FROM meter"
)


class StoredMeters:
    """The store as the DLMS server sees it. Use it on one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def meters(self) -> list[StoredMeter]:
        """All meters, by number."""
        return [StoredMeter(*row) for row in self._connection.execute(_METER + " ORDER BY meter_id")]

    def meter(self, device: int) -> StoredMeter | None:
        """The meter of a logical device number."""
        row = self._connection.execute(
            _METER + " WHERE meter_id = ?", (device - FIRST_METER_DEVICE,)
        ).fetchone()
        return None if row is None else StoredMeter(*row)

    def events(
        self, first: int | None, last: int | None, codes: Sequence[str] = ()
    ) -> list[tuple[int, str, str]]:
        """The newest 1000 of the concentrator's event log: when, code, and detail with the meter's name.

        Those of all codes, or of some.
        """
        marks = f" AND code IN ({', '.join('?' * len(codes))})" if codes else ""
        rows = self._connection.execute(
            "SELECT happened_at, code, COALESCE(identity || ': ', '') || detail"  # noqa: S608 - marks only
            " FROM event LEFT JOIN meter USING (meter_id)"
            f" WHERE happened_at BETWEEN COALESCE(?, -1) AND COALESCE(?, 1 << 60){marks}"
            " ORDER BY event_id DESC LIMIT 1000",
            (first, last, *codes),
        ).fetchall()
        return rows[::-1]

    def destinations(self) -> list[DestinationState]:
        """How far every destination is."""
        return outbox.states(self._connection)

    def day_figures(self, first: int | None, last: int | None) -> list[tuple[int, str]]:
        """The figures of the last days: the day's beginning in seconds since 1970, and JSON."""
        return self._connection.execute(
            "SELECT day, figures FROM kpi_day WHERE day BETWEEN COALESCE(?, -1) AND COALESCE(?, 1 << 60)"
            " ORDER BY day",
            (first, last),
        ).fetchall()

    def objects(self, meter: StoredMeter) -> list[CosemObject]:
        """Everything that is served of one meter."""
        channels = self._channels(meter.meter_id)
        found = [
            data(LOGICAL_DEVICE_NAME, axdr.octet_string(meter.name)),
            data(SERIAL_NUMBER, axdr.octet_string(meter.serial.encode())),
            data(FIRMWARE, axdr.octet_string(meter.firmware.encode())),
            data(METER_STATE, _state(meter)),
            data(STATUS, axdr.NULL),
            data(QUALITY, axdr.NULL),
        ]
        taken = {entry.obis for entry in found}
        newest: dict[Obis, tuple[int, CosemObject]] = {}
        for channel in channels:
            row = self._connection.execute(
                "SELECT captured_at, value, quality FROM reading WHERE channel_id = ?"
                " ORDER BY captured_at DESC LIMIT 1",
                (channel.channel_id,),
            ).fetchone()
            if row is not None and channel.obis not in taken:
                at, value, quality = row
                if channel.obis not in newest or newest[channel.obis][0] < at:
                    newest[channel.obis] = at, _value_object(channel, at, value, quality)
        found += [entry for _, entry in newest.values()]
        classes = {entry.obis: entry.class_id for entry in found}
        for profile in dict.fromkeys(channel.profile for channel in channels):
            mine = [one for one in channels if one.profile == profile and one.obis in classes]
            if mine and profile not in classes:
                rows = _StoredRows(self._connection, mine, classes)
                found.append(profile_object(profile, rows, capacity=0xFFFFFFFF))
        return found

    def _channels(self, meter_id: int) -> list[_Channel]:
        """The channels of a meter; of those that differ in unit or scaler only, the newest."""
        with closing(
            self._connection.execute(
                "SELECT channel_id, obis, unit, scaler, profile, period_s FROM channel WHERE meter_id = ?"
                " ORDER BY channel_id",
                (meter_id,),
            )
        ) as rows:
            newest = {
                (profile, obis): _Channel(
                    number, Obis.parse(obis), unit, scaler, Obis.parse(profile), period_s
                )
                for number, obis, unit, scaler, profile, period_s in rows
            }
        return list(newest.values())


class _StoredRows:
    """The rows of a profile; entries are interval ends, in seconds since 1970."""

    def __init__(
        self, connection: sqlite3.Connection, channels: Sequence[_Channel], classes: dict[Obis, int]
    ) -> None:
        self._connection = connection
        self._channels = [channel.channel_id for channel in channels]
        self.columns: Sequence[CaptureObject] = (
            *_STATUS_COLUMNS,
            *(CaptureObject(classes[channel.obis], channel.obis, 2) for channel in channels),
        )
        self.period_s = max(channel.period_s for channel in channels)
        self._rows: dict[int, dict[int, tuple[int | str, int | None, int]]] = {}

    def entries(self) -> Sequence[int]:
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        first = -1 if start is None else int(start.timestamp())
        last = 1 << 60 if end is None else int(end.timestamp())
        self._rows = {}
        for channel_id in self._channels:
            for at, value, status, quality in self._connection.execute(
                "SELECT captured_at, value, status, quality FROM reading"
                " WHERE channel_id = ? AND captured_at BETWEEN ? AND ?",
                (channel_id, first, last),
            ):
                self._rows.setdefault(at, {})[channel_id] = value, status, quality
        return sorted(self._rows)

    def cells(self, entry: int) -> Sequence[bytes]:
        row = self._rows[entry]
        statuses = [status for _, status, _ in row.values() if status is not None]
        quality = 0
        for _, _, one in row.values():
            quality |= one
        return [
            axdr.octet_string(moment_octets(entry)).to_bytes(),
            axdr.double_long_unsigned(statuses[0]).to_bytes() if statuses else _NULL,
            axdr.long_unsigned(quality).to_bytes(),
            *(_value(row[one][0]).to_bytes() if one in row else _NULL for one in self._channels),
        ]


def moment_octets(seconds: int) -> bytes:
    """A moment in UTC as the 12 octets of a date-time."""
    return CosemDateTime.from_datetime(from_epoch(seconds), 0).to_bytes()


def text(words: str) -> Data:
    """Words as a visible-string: what is not ASCII is a question mark."""
    return axdr.visible_string(words[:200].encode("ascii", "replace").decode())


def _value(value: int | str) -> Data:
    return Data(DataType.LONG64, value) if isinstance(value, int) else text(value)


def _value_object(channel: _Channel, at: int, value: int | str, quality: int) -> CosemObject:
    if isinstance(value, str):
        return data(channel.obis, text(value))
    scaler_unit = axdr.structure(axdr.integer(channel.scaler), axdr.enumeration(channel.unit))
    return CosemObject(
        _EXTENDED_REGISTER,
        channel.obis,
        {
            2: Data(DataType.LONG64, value),
            3: scaler_unit,
            4: axdr.long_unsigned(quality),
            5: axdr.octet_string(moment_octets(at)),
        },
    )


def _state(meter: StoredMeter) -> Data:
    contact = (
        axdr.NULL if meter.last_contact is None else axdr.octet_string(moment_octets(meter.last_contact))
    )
    offset = axdr.NULL if meter.clock_offset_s is None else axdr.double_long(round(meter.clock_offset_s))
    return axdr.structure(text(meter.state), text(meter.reason), contact, offset)
