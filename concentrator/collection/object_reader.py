"""Reading objects as they are now: registers, instantaneous values, parameters and states.

A task names them by OBIS code. Which interface class has a code is the meter's own affair, but custom is strong
(Blue Book part 1, clause 6): the likely one is asked first, then others, and what answered is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from concentrator.collection.meter_tasks import TaskKind
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.units import NO_UNIT

# What objects read as they are stand under: the Blue Book's general read-out list.
READ_OUT = Obis(0, 0, 21, 0, 0, 255)
_DATE_TIME_OCTETS = 12

_DATA, _REGISTER, _EXTENDED_REGISTER, _DEMAND_REGISTER = 1, 3, 4, 5
_PROFILE_GENERIC, _CLOCK, _ACTIVITY_CALENDAR, _DISCONNECT_CONTROL, _LIMITER = 7, 8, 20, 70, 71
# Of each class: the attributes with values, the one with scaler and unit, and the one with the time of capture.
_ATTRIBUTES: dict[int, tuple[tuple[int, ...], int, int]] = {
    _DATA: ((2,), 0, 0),
    _REGISTER: ((2,), 3, 0),
    _EXTENDED_REGISTER: ((2,), 3, 5),
    _DEMAND_REGISTER: ((3,), 4, 6),
    _PROFILE_GENERIC: ((4,), 0, 0),
    _CLOCK: ((3,), 0, 0),
    _ACTIVITY_CALENDAR: ((2,), 0, 0),
    _DISCONNECT_CONTROL: ((2, 3), 0, 0),
    _LIMITER: ((3, 4), 0, 0),
}
# By value groups C and D of electricity, and by C of media-independent objects.
_MAXIMA, _LAST_AVERAGES = (2, 6, 12, 16, 26), (4, 5, 14, 15, 24, 25)
_ABSTRACT = {
    0: _DATA,
    1: _CLOCK,
    13: _ACTIVITY_CALENDAR,
    17: _LIMITER,
    99: _PROFILE_GENERIC,
    98: _PROFILE_GENERIC,
}
_DISCONNECTOR = (96, 3, 10)


def _objects(*codes: str) -> tuple[Obis, ...]:
    return tuple(Obis.parse(code) for code in codes)


# What is read when neither the task nor the meter's model says more.
DEFAULT_OBJECTS: dict[TaskKind, tuple[Obis, ...]] = {
    TaskKind.REGISTERS: _objects("1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:3.8.0*255", "1-0:4.8.0*255"),
    TaskKind.INSTANTANEOUS: _objects(
        "1-0:1.7.0*255", "1-0:2.7.0*255", "1-0:32.7.0*255", "1-0:52.7.0*255", "1-0:72.7.0*255",
        "1-0:31.7.0*255", "1-0:51.7.0*255", "1-0:71.7.0*255", "1-0:14.7.0*255",
    ),
    TaskKind.PARAMETERS: _objects(
        "1-0:0.2.0*255", "0-0:96.1.0*255", "0-0:1.0.0*255", "0-0:13.0.0*255", "0-0:17.0.0*255", "1-0:99.1.0*255",
    ),
    TaskKind.STATUS: _objects("0-0:96.3.10*255", "0-0:97.97.0*255", "0-0:96.10.1*255"),
}  # fmt: skip


def likely_classes(obis: Obis) -> list[int]:
    """The interface classes that an OBIS code may have, likeliest first."""
    if (obis.c, obis.d, obis.e) == _DISCONNECTOR:
        first = _DISCONNECT_CONTROL
    elif obis.a == 0 or obis.c in (0, 98, 99):
        first = _ABSTRACT.get(obis.c, _DATA)
    elif obis.d in _MAXIMA:
        first = _EXTENDED_REGISTER
    elif obis.d in _LAST_AVERAGES:
        first = _DEMAND_REGISTER
    else:
        first = _REGISTER
    others = [kind for kind in (_REGISTER, _EXTENDED_REGISTER, _DATA, _DEMAND_REGISTER) if kind != first]
    return [first, *others]


@dataclass(slots=True)
class KnownObjects:
    """What a meter has shown of its objects: the class of each code, and unit and scaler of registers."""

    classes: dict[Obis, int | None] = field(default_factory=lambda: dict[Obis, int | None]())
    units: dict[tuple[int, Obis], tuple[int, int]] = field(
        default_factory=lambda: dict[tuple[int, Obis], tuple[int, int]]()
    )


def read_objects(
    client: Client, objects: Sequence[Obis], known: KnownObjects, now: datetime, deviation: int | None
) -> Conversation[list[Reading]]:
    """The values of objects, those that the meter has; `now` is the time of those that have none of their own.

    `deviation` is that of the meter's normal time in minutes, for times that leave theirs open.
    """
    yield from _find_classes(client, objects, known)
    asked = [(known.classes[obis], obis) for obis in objects]
    items: list[AttributeDescriptor] = []
    for class_id, obis in asked:
        if class_id is not None:
            values, scaler_unit, captured = _ATTRIBUTES[class_id]
            wanted = [*values, captured, 0 if (class_id, obis) in known.units else scaler_unit]
            items += [AttributeDescriptor(class_id, obis, number) for number in wanted if number]
    answers = dict(zip(items, (yield from client.get_many(items)), strict=True))
    readings: list[Reading] = []
    for class_id, obis in asked:
        if class_id is None:
            continue
        values, scaler_unit, captured = _ATTRIBUTES[class_id]
        told = answers.get(AttributeDescriptor(class_id, obis, scaler_unit))
        if isinstance(told, Data):
            scaler, unit = told.items(2)
            known.units[class_id, obis] = (unit.integer(), scaler.integer())
        unit, scaler = known.units.get((class_id, obis), (NO_UNIT, 0))
        moment = _moment(answers.get(AttributeDescriptor(class_id, obis, captured)), deviation) or now
        for number in values:
            value = answers[AttributeDescriptor(class_id, obis, number)]
            shown = None if isinstance(value, AccessError) else _value(value)
            if shown is not None:
                channel = Channel(obis, unit, scaler, class_id, number)
                readings.append(Reading(channel, moment, shown, None, Quality.VALID))
    return readings


def _find_classes(client: Client, objects: Sequence[Obis], known: KnownObjects) -> Conversation[None]:
    open_codes = [obis for obis in objects if obis not in known.classes]
    choices = {obis: likely_classes(obis) for obis in open_codes}
    while open_codes:
        items = [
            AttributeDescriptor(choices[obis][0], obis, _ATTRIBUTES[choices[obis][0]][0][0])
            for obis in open_codes
        ]
        answers = yield from client.get_many(items)
        for item, answer in zip(items, answers, strict=True):
            if not isinstance(answer, AccessError):
                known.classes[item.obis] = item.class_id
            elif len(choices[item.obis]) > 1:
                choices[item.obis].pop(0)
            else:
                known.classes[item.obis] = None
        open_codes = [obis for obis in open_codes if obis not in known.classes]


def _moment(value: Data | AccessError | None, deviation: int | None) -> datetime | None:
    if not isinstance(value, Data):
        return None
    try:
        return CosemDateTime.from_bytes(value.octets()).to_utc(deviation)
    except DlmsError:
        return None


def _value(value: Data) -> int | str | None:
    """A value as the store takes it: whole numbers as they are, everything else as text."""
    native = value.native
    if isinstance(native, bool):
        return int(native)
    if isinstance(native, int | str):
        return native
    if isinstance(native, bytes):
        if len(native) == _DATE_TIME_OCTETS and CosemDateTime.from_bytes(native).is_moment:
            return str(CosemDateTime.from_bytes(native))
        stripped = native.strip(b"\x00 ")
        return stripped.decode() if stripped.isascii() and stripped.decode().isprintable() else native.hex()
    return None if native is None else str(native)


def to_answer(
    meter: str, readings: Sequence[Reading], received_at: datetime, *, send: bool, keep: bool
) -> Answer:
    """What was read, on its way to the store."""
    return Answer(meter, READ_OUT, tuple(readings), received_at, send, keep)
