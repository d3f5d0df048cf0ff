"""A meter's clock: how it stands to ours, and setting it (Blue Book, class 8)."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from concentrator.collection.clock_rule import LARGEST_SHIFT_S
from concentrator.collection.meter_reader import CLOCK, LocalTime, clock_offset_s, read_time_zone
from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DlmsError

_CLOCK_CLASS = 8
_TIME = AttributeDescriptor(_CLOCK_CLASS, CLOCK, 2)
_SHIFT_TIME = MethodDescriptor(_CLOCK_CLASS, CLOCK, 6)


class ClockNotSetError(DlmsError):
    """The meter took a new time, but reading back shows another."""


class ClockSet(TypedDict):
    """How far a clock was off before and after, in seconds, and what it shows."""

    offset_before_s: float
    offset_after_s: float
    time: str


def read_clock(client: Client) -> Conversation[tuple[CosemDateTime, LocalTime | None]]:
    """The meter's time, and how it stands to UTC."""
    clock = CosemDateTime.from_bytes((yield from client.get(_TIME)).octets())
    zone = None if clock.utc_offset is not None else (yield from read_time_zone(client))
    return clock, LocalTime.of(clock, zone)


def shift_clock(client: Client, seconds: int) -> Conversation[CosemDateTime]:
    """Shift a meter's clock by -900 to 900 seconds; returns what it shows then.

    Raises:
        DlmsError: the meter refused, or has no such method.
    """
    yield from client.action(_SHIFT_TIME, axdr.long(seconds))
    return CosemDateTime.from_bytes((yield from client.get(_TIME)).octets())


def set_clock(client: Client, now: datetime) -> Conversation[ClockSet]:
    """Bring a meter's clock to `now`: by a shift where that reaches, else by setting its time. Confirmed by reading.

    The new time is in the meter's own zone and form. `now` is UTC at the moment that this begins.

    Raises:
        DlmsError: the meter refused, or shows another time afterwards.
    """
    clock, local_time = yield from read_clock(client)
    before = clock_offset_s(clock, now, local_time)
    if before is None:
        raise DlmsError(
            f"the meter's clock shows {clock}, which tells no time in UTC: its zone has to be set first"
        )
    if abs(before) <= LARGEST_SHIFT_S:
        after = yield from shift_clock(client, round(-before))
    else:
        yield from client.set(_TIME, axdr.octet_string((local_time or LocalTime()).bound(now).to_bytes()))
        after = CosemDateTime.from_bytes((yield from client.get(_TIME)).octets())
    offset = clock_offset_s(after, now, local_time)
    # What the exchanges took is in it.
    if offset is None or abs(offset) > max(60.0, abs(before) / 2):
        raise ClockNotSetError(f"the meter took the time, but reading back shows {after}")
    return ClockSet(offset_before_s=round(before, 1), offset_after_s=round(offset, 1), time=str(after))
