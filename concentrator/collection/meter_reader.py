"""Reading one meter: what is asked of it in a dialogue, and what its answers mean.

A dialogue is: associate, clock and the shapes of the profiles in one list, then what is missing of them, range by
range, then release. Each range that came is stored before the next is
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from concentrator.collection.gaps import BufferExtent
from concentrator.dlms import axdr
from concentrator.dlms.attributes import (
    AttributeDescriptor,
    CaptureObject,
    EntryDescriptor,
    RangeDescriptor,
    is_clock,
    is_status,
)
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, CosemDateTime
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.dlms.profile import ProfileDecoder, ProfileRow, capture_objects
from concentrator.dlms.short_name_client import ShortNameClient
from concentrator.errors import TransientError
from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.units import NO_UNIT

CLOCK = Obis(0, 0, 1, 0, 0)
LOGICAL_DEVICE_NAME = Obis(0, 0, 42, 0, 0)
SERIAL_NUMBER = Obis(0, 0, 96, 1, 0)
FIRMWARE = Obis(1, 0, 0, 2, 0)
# Invocation counter of the unicast key, as IDIS and DSMR companions place it (Blue Book, 0-b:43.1.e).
INVOCATION_COUNTER = Obis(0, 0, 43, 1, 0)

_DAYLIGHT_SAVING_MINUTES = 60
_SORT_LIFO = 2
_SEASON_MARGIN = timedelta(hours=1)
_DATA, _REGISTER, _EXTENDED_REGISTER, _DEMAND_REGISTER, _PROFILE_GENERIC, _CLOCK_CLASS = 1, 3, 4, 5, 7, 8
# Attribute with scaler and unit, by class.
_SCALER_UNIT = {_REGISTER: 3, _EXTENDED_REGISTER: 3, _DEMAND_REGISTER: 4}

# The AMR profile status, as the DSMR and IDIS companion specifications define its bits.
_PROFILE_STATUS = (
    (0x02, Quality.CLOCK_INVALID),
    (0x04, Quality.SUSPECT),
    (0x20, Quality.CLOCK_ADJUSTED),
    (0x80, Quality.POWER_DOWN),
)
_CLOCK_STATUS = ((0x01, Quality.CLOCK_INVALID), (0x02, Quality.CLOCK_DOUBTFUL))


@dataclass(frozen=True, slots=True)
class MeterIdentity:
    """Who a meter says that it is."""

    logical_device_name: str
    serial: str
    firmware: str

    @property
    def manufacturer(self) -> str:
        """The three letters that open a logical device name (FLAG identification)."""
        return self.logical_device_name[:3]


class LocalTime(NamedTuple):
    """How a meter's clock stands to UTC, in minutes as it counts them: now, and in normal time.

    `told` says whether its times carry the deviation. Ranges are asked in the meter's own local time and form, which
    is right whether a meter honours the deviation of a bound or ignores it.
    """

    deviation: int = 0
    normal_deviation: int = 0
    told: bool = True

    @classmethod
    def of(cls, clock: CosemDateTime, time_zone: int | None) -> LocalTime | None:
        """What a clock tells; `time_zone` is its attribute 3. None where neither tells a deviation."""
        ahead = _DAYLIGHT_SAVING_MINUTES if clock.daylight_saving else 0
        if clock.utc_offset is not None:
            return cls(clock.deviation, clock.deviation + ahead)
        return None if time_zone is None else cls(time_zone - ahead, time_zone, told=False)

    def bound(self, moment: datetime) -> CosemDateTime:
        """A moment as the bound of a range."""
        bound = CosemDateTime.from_datetime(moment, self.deviation)
        return bound if self.told else bound._replace(deviation=DEVIATION_NOT_SPECIFIED)


@dataclass(frozen=True, slots=True)
class ProfileShape:
    """The columns of a load profile and how often it captures: read anew in every dialogue, since both can be set."""

    obis: Obis
    period_s: int
    columns: tuple[CaptureObject, ...]
    # One for each column but clock and status, in their order: what the values of a row belong to.
    channels: tuple[Channel, ...]

    @property
    def clock_column(self) -> CaptureObject:
        """The column that ranges are asked by.

        Raises:
            DlmsError: the profile captures no clock.
        """
        for column in self.columns:
            if is_clock(column):
                return column
        raise DlmsError(f"profile {self.obis}: captures no clock, so no range of it can be read")


def _text(value: Data | AccessError) -> str:
    """Octets or text of an identifying object as readable text: ASCII where it is, else hex."""
    if isinstance(value, AccessError):
        return ""
    native = value.native
    if isinstance(native, bytes):
        stripped = native.strip(b"\x00 ")
        return (
            stripped.decode("ascii")
            if stripped.isascii() and stripped.decode().isprintable()
            else native.hex()
        )
    return "" if native is None else str(native).strip("\x00 ")


def read_public_identity(client: Client) -> Conversation[tuple[str, str]]:
    """Logical device name and serial number, each "" where the association may not read it."""
    values = yield from client.get_many(
        [AttributeDescriptor(_DATA, LOGICAL_DEVICE_NAME, 2), AttributeDescriptor(_DATA, SERIAL_NUMBER, 2)]
    )
    return _text(values[0]), _text(values[1])


def read_invocation_counter(client: Client | ShortNameClient) -> Conversation[int | None]:
    """The counter that the meter has seen last from our client, where it tells."""
    try:
        value = yield from client.get(AttributeDescriptor(_DATA, INVOCATION_COUNTER, 2))
    except AccessError:
        return None
    return value.native if isinstance(value.native, int) else None


def read_identity(client: Client) -> Conversation[MeterIdentity]:
    """Logical device name, serial number and firmware."""
    values = yield from client.get_many(
        [
            AttributeDescriptor(_DATA, LOGICAL_DEVICE_NAME, 2),
            AttributeDescriptor(_DATA, SERIAL_NUMBER, 2),
            AttributeDescriptor(_DATA, FIRMWARE, 2),
        ]
    )
    return MeterIdentity(*(_text(value) for value in values))


def read_clock_and_shapes(
    client: Client, profiles: Sequence[Obis]
) -> Conversation[tuple[CosemDateTime | None, list[ProfileShape | DlmsError]]]:
    """The meter's clock, and of each profile the columns, period, units and scalers, or why it has none."""
    values = yield from client.get_many(
        [
            AttributeDescriptor(_CLOCK_CLASS, CLOCK, 2),
            *(
                AttributeDescriptor(_PROFILE_GENERIC, obis, attribute)
                for obis in profiles
                for attribute in (3, 4)
            ),
        ]
    )
    clock = values[0]
    moment = None if isinstance(clock, AccessError) else CosemDateTime.from_bytes(clock.octets())
    described: list[tuple[tuple[CaptureObject, ...], int] | DlmsError] = []
    for columns, period in zip(values[1::2], values[2::2], strict=True):
        try:
            described.append(_columns_and_period(columns, period))
        except DlmsError as error:
            described.append(error)
    with_unit = list(
        dict.fromkeys(
            column
            for entry in described
            if isinstance(entry, tuple)
            for column in entry[0]
            if column.class_id in _SCALER_UNIT
        )
    )
    units = yield from client.get_many(
        [
            AttributeDescriptor(column.class_id, column.obis, _SCALER_UNIT[column.class_id])
            for column in with_unit
        ]
    )
    by_column = dict(zip(with_unit, units, strict=True))
    return moment, [
        entry if isinstance(entry, DlmsError) else _shape(obis, *entry, by_column)
        for obis, entry in zip(profiles, described, strict=True)
    ]


def read_clock_and_shape(
    client: Client, profile: Obis
) -> Conversation[tuple[CosemDateTime | None, ProfileShape]]:
    """As `read_clock_and_shapes`, of one profile.

    Raises:
        DlmsError: the meter has no such profile, or describes it in a way that makes no sense.
    """
    moment, (shape,) = yield from read_clock_and_shapes(client, (profile,))
    if isinstance(shape, DlmsError):
        raise shape
    return moment, shape


def _columns_and_period(
    columns: Data | AccessError, period: Data | AccessError
) -> tuple[tuple[CaptureObject, ...], int]:
    if isinstance(columns, AccessError):
        raise columns
    if isinstance(period, AccessError):
        raise period
    return capture_objects(columns), period.integer()


def _shape(
    obis: Obis,
    columns: tuple[CaptureObject, ...],
    period_s: int,
    units: Mapping[CaptureObject, Data | AccessError],
) -> ProfileShape:
    channels = tuple(
        _channel(column, units.get(column), period_s)
        for column in columns
        if not is_clock(column) and not is_status(column)
    )
    return ProfileShape(obis, period_s, columns, channels)


def read_extent(
    client: Client, shape: ProfileShape, local_time: LocalTime | None
) -> Conversation[BufferExtent | None]:
    """How far back a profile's buffer reaches; None where the meter does not tell, or the buffer is empty."""
    values = yield from client.get_many(
        [AttributeDescriptor(_PROFILE_GENERIC, shape.obis, attribute) for attribute in (5, 7, 8)]
    )
    if isinstance(values[1], AccessError):
        return None
    in_use = values[1].integer()
    if in_use < 1:
        return None
    capacity = 0 if isinstance(values[2], AccessError) else values[2].integer()
    newest_first = not isinstance(values[0], AccessError) and values[0].value == _SORT_LIFO
    entry = in_use if newest_first else 1
    try:
        column = shape.columns.index(shape.clock_column) + 1
        octets = yield from client.get_encoded(
            AttributeDescriptor(_PROFILE_GENERIC, shape.obis, 2),
            EntryDescriptor(entry, entry, column, column),
        )
        (row,) = axdr.decode(octets).items(1)
        moment = CosemDateTime.from_bytes(row.items(1)[0].octets())
        oldest = moment.to_utc(None if local_time is None else local_time.normal_deviation)
    except TransientError:
        raise
    except DlmsError:
        # Access by entry is optional.
        return None
    return BufferExtent(round(oldest.timestamp()), is_full=in_use >= capacity > 0)


def _channel(column: CaptureObject, scaler_unit: Data | AccessError | None, period_s: int) -> Channel:
    scaler, unit = 0, NO_UNIT
    if isinstance(scaler_unit, Data):
        items = scaler_unit.items(2)
        scaler, unit = items[0].integer(), items[1].integer()
    return Channel(column.obis, unit, scaler, column.class_id, column.attribute, period_s)


def read_time_zone(client: Client) -> Conversation[int | None]:
    """Attribute 3 of the clock: the deviation of normal time in minutes, where the meter tells it."""
    try:
        value = yield from client.get(AttributeDescriptor(_CLOCK_CLASS, CLOCK, 3))
    except AccessError:
        return None
    return value.value if isinstance(value.value, int) else None


def read_range(  # noqa: PLR0913 - what is read of what, and how
    client: Client,
    shape: ProfileShape,
    first: datetime,
    last: datetime,
    local_time: LocalTime | None,
    *,
    selective: bool = True,
) -> Conversation[list[ProfileRow]]:
    """The rows of a profile with capture times from `first` to `last`, both included.

    A meter without selective access is asked for all that it has.
    Without `local_time` the meter is asked in UTC, and its rows have to tell their deviation.
    """
    known = local_time or LocalTime()
    if not known.told:
        # Within the span the season may change, and with it what the fields of the bounds mean.
        first, last = first - _SEASON_MARGIN, last + _SEASON_MARGIN
    selection = RangeDescriptor(known.bound(first), known.bound(last), shape.clock_column)
    deviation = None if local_time is None else local_time.normal_deviation
    decoder = ProfileDecoder(shape.columns, shape.period_s, default_deviation=deviation)
    rows: list[ProfileRow] = []

    def receive_block(octets: bytes) -> None:
        # Decoded block by block: the encoded buffer as a whole is never kept.
        decoder.receive_data(octets)
        rows.extend(decoder.rows())

    buffer = AttributeDescriptor(_PROFILE_GENERIC, shape.obis, 2)
    yield from client.get_encoded(buffer, selection if selective else None, sink=receive_block)
    decoder.finish()
    if selective:
        return rows
    return [row for row in rows if row.captured_at is not None and first <= row.captured_at <= last]


def clock_offset_s(clock: CosemDateTime, now: datetime, local_time: LocalTime | None) -> float | None:
    """How many seconds a meter's clock is ahead of ours; None when it tells no zone or no time."""
    try:
        deviation = None if local_time is None else local_time.normal_deviation
        return (clock.to_utc(deviation) - now).total_seconds()
    except DlmsError:
        return None


def to_answer(  # noqa: PLR0913 - an answer's fields
    meter: str,
    shape: ProfileShape,
    rows: list[ProfileRow],
    received_at: datetime,
    *,
    send: bool = True,
    keep: bool = True,
) -> Answer:
    """The rows of a range as readings: one for each value of each channel, with status and quality."""
    readings: list[Reading] = []
    for row in rows:
        if row.captured_at is None:
            # A value that belongs to no known time is no reading.
            continue
        quality = row_quality(row)
        readings.extend(
            Reading(channel, row.captured_at, value, row.status, quality)
            for channel, value in zip(shape.channels, row.values, strict=False)
            if isinstance(value, int | str) and not isinstance(value, bool)
        )
    return Answer(meter, shape.obis, tuple(readings), received_at, send, keep)


def row_quality(row: ProfileRow) -> Quality:
    """What the status of a row, and that of its clock, say of its values."""
    quality = Quality.INFERRED_TIME if row.inferred_time else Quality.VALID
    for bits, meanings in ((row.status, _PROFILE_STATUS), (row.clock_status, _CLOCK_STATUS)):
        for bit, meaning in meanings:
            if bits is not None and bits & bit:
                quality |= meaning
    return quality
