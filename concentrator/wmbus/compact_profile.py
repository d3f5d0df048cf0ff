"""Load profiles in one record (EN 13757-3 annex on compact profiles; VIFE 13, 1E, 1F), opened into records.

A base record and a date share the profile's storage number. The profile tells the spacing (control octet, number)
and then values of one coding: a plain one goes on from the base forwards, an inverse one backwards in time. The
control octet also says whether they are values or differences. Each value becomes a record with the next storage
number, and beside it one with its date, so that history finds its time. The original record is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from concentrator.wmbus.profile_derived import months_on
from concentrator.wmbus.record import Function, Record
from concentrator.wmbus.records import read_headers
from concentrator.wmbus.values import BCD_CODINGS, FIXED_LENGTHS, MeterTime, decode_value
from concentrator.wmbus.vif import Kind

_INVERSE = "inverse_compact_profile"
_PROFILES = frozenset((_INVERSE, "compact_profile", "compact_profile_with_registers"))
_HEAD_OCTETS = 2
_NUMERIC_CODINGS = frozenset((1, 2, 3, 4, 6, 7, *BCD_CODINGS))
# Bits 4 and 5 of the control octet: the unit of the spacing; days have two more meanings.
_SPACINGS = (timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1))
_DAYS = 3
_ONE_MONTH = 254
_LARGEST_NUMBER = 250
# Bits 6 and 7: what is added to the value before for one step, by the number that was sent.
_ABSOLUTE, _DECREMENTS = 0, 2


@lru_cache(maxsize=1024)
def may_hold_compact_profiles(headers: bytes) -> bool:
    """Whether one of the headers of a chain is a profile's; of an unfinished chain nothing is known."""
    return not headers or any(_PROFILES.intersection(one.qualifiers) for one in read_headers(headers))


def open_compact_profiles(records: Sequence[Record]) -> tuple[Record, ...]:
    """The records that the compact profiles among `records` stand for; nothing where there are none."""
    found: list[Record] = []
    for record in records:
        kinds = _PROFILES.intersection(record.qualifiers)
        if kinds and isinstance(record.value, bytes) and len(record.value) > _HEAD_OCTETS:
            found += _open(record, record.value, records, inverse=_INVERSE in kinds)
    return tuple(found)


def _open(profile: Record, content: bytes, records: Sequence[Record], *, inverse: bool) -> Iterable[Record]:
    control, number = content[0], content[1]
    mode, unit, coding = control >> 6, control >> 4 & 0x03, control & 0x0F
    octets = FIXED_LENGTHS[coding]
    if coding not in _NUMERIC_CODINGS or octets is None:
        return
    date = _same_storage(profile, records, ("date", "date_time"), ())
    qualifiers = tuple(one for one in profile.qualifiers if one not in _PROFILES)
    base = _same_storage(profile, records, (profile.quantity,), qualifiers)
    previous = base.value if base is not None and isinstance(base.value, int) else None
    taken = {
        one.storage for one in records if one.quantity == profile.quantity and one.qualifiers == qualifiers
    }
    for step, at in enumerate(range(_HEAD_OCTETS, len(content) - octets + 1, octets), 1):
        raw = content[at : at + octets]
        # Differences have a sign of their own in the last mode; plain integers have no reserved pattern there.
        decoded = decode_value(coding, raw, Kind.NUMBER)
        value = decoded.value if isinstance(decoded.value, int) else None
        if mode != _ABSOLUTE:
            if value is None or previous is None:
                return
            value = previous + (-value if (mode == _DECREMENTS) != inverse else value)
            previous = value
        storage = profile.storage + step
        if value is None or storage in taken:
            continue
        header = replace(profile.header, octets=b"", coding=coding, storage=storage, qualifiers=qualifiers)
        yield Record(header, value, profile.unit_scaler, True, raw)
        moment = None if date is None else _moved(date.value, unit, number, -step if inverse else step)
        if date is not None and moment is not None:
            yield Record(replace(date.header, octets=b"", storage=storage), moment, 0, True, b"")


def _same_storage(
    profile: Record, records: Sequence[Record], quantities: tuple[str, ...], qualifiers: tuple[str, ...]
) -> Record | None:
    for one in records:
        if (
            one.storage == profile.storage
            and one.quantity in quantities
            and one.qualifiers == qualifiers
            and one.valid
            and (one.function is Function.INSTANTANEOUS or one.function is profile.function)
        ):
            return one
    return None


def _moved(date: object, unit: int, number: int, steps: int) -> MeterTime | None:
    """The base date so many spacings on; None for a spacing of another kind."""
    start = date.to_datetime() if isinstance(date, MeterTime) else None
    if not isinstance(date, MeterTime) or start is None:
        return None
    try:
        if unit == _DAYS and number == _ONE_MONTH:
            moved = months_on(start, steps)
        elif 0 < number <= _LARGEST_NUMBER:
            moved = start + _SPACINGS[unit] * number * steps
        else:
            return None
    except (OverflowError, ValueError):
        return None
    if moved is None:
        return None
    if date.is_date and unit == _DAYS:
        return MeterTime(moved.year, moved.month, moved.day)
    second = None if date.second is None and not moved.second else moved.second
    return MeterTime(moved.year, moved.month, moved.day, moved.hour, moved.minute, second)
