"""What is stored of an M-Bus telegram: its records, or the registers of a DLMS push within it.

A meter may send DLMS in the place of records (CI 60, 61, 7C, 7D). Registers are taken from a data-notification, at any
depth of its body, in the forms in which meters push them:

* logical name and value, behind them scaler and unit where the meter sends these too;
* values alone behind their push object list, which then names each of them (Blue Book, class 40).

A register whose unit was not sent has the unit and scaler that the meter's profile gives it (`push_registers`), or else
none: unit 255 and the bare integer. Floats, and pushes that DLMS itself has ciphered once more, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from concentrator.dlms import apdu as apdus
from concentrator.dlms.apdu import DataNotification
from concentrator.dlms.data import Data, DataType
from concentrator.dlms.errors import DecodeError
from concentrator.model import Answer, Channel, Reading
from concentrator.obis import Obis
from concentrator.units import NO_UNIT
from concentrator.wmbus.answer import to_answer
from concentrator.wmbus.layers import Content
from concentrator.wmbus.profile import PushRegister, profile_for
from concentrator.wmbus.telegram import Telegram

_OBIS_OCTETS = 6
_NO_NUMBERS = (DataType.BOOLEAN, DataType.ENUM, DataType.BCD)
# One entry of a push object list: class_id, logical_name, attribute_index, data_index (and restrictions, columns).
_OBJECT_TYPES = (DataType.LONG_UNSIGNED, DataType.OCTET_STRING, DataType.INTEGER, DataType.LONG_UNSIGNED)
_VALUE_ATTRIBUTE, _SCALER_UNIT_ATTRIBUTE = 2, 3

Template = Mapping[Obis, PushRegister]


def telegram_answer(telegram: Telegram, received_at: datetime, *, meter: str) -> Answer:
    """The readings of a telegram, whatever its application is; DLMS registers are stamped with `received_at`."""
    answer = to_answer(telegram, received_at, meter=meter)
    if telegram.content is not Content.DLMS or not telegram.security.readable:
        return answer
    profile = profile_for(telegram.meter) if telegram.meter is not None else None
    template = {} if profile is None else profile.push_registers
    readings: dict[Obis, Reading] = {}
    for channel, value in pushed_registers(telegram.payload, template):
        readings.setdefault(channel.obis, Reading(channel, received_at, value, telegram.status))
    return replace(answer, readings=answer.readings + tuple(readings.values()))


def pushed_registers(octets: bytes, template: Template | None = None) -> list[tuple[Channel, int]]:
    """The registers of a data-notification at the beginning of `octets`; none where there is something else.

    `template` has the units and scalers of those that are sent without.
    """
    try:
        decoded, _ = apdus.decode_from(octets)
    except DecodeError:
        return []
    return list(_registers(decoded.body, template or {})) if isinstance(decoded, DataNotification) else []


def _items(data: Data) -> list[Data]:
    if data.type not in (DataType.STRUCTURE, DataType.ARRAY) or not isinstance(data.value, tuple):
        return []
    return [item for item in data.value if isinstance(item, Data)]


def _registers(data: Data, template: Template) -> Iterator[tuple[Channel, int]]:
    items = _items(data)
    named = _object_list(items[0]) if items else []
    if named and len(named) == len(items):
        yield from _listed(named, items, template)
        return
    if not items or _is_object(items):
        return
    for at, name in enumerate(items[:-1]):
        obis = _logical_name(name)
        value = items[at + 1]
        if obis is None or not _is_number(value):
            continue
        sent = _scaler_unit(items[at + 2]) if at + 2 < len(items) else None
        yield _channel(obis, sent, template), _number(value)
    for item in items:
        yield from _registers(item, template)


def _listed(
    named: list[tuple[int, Obis, int]], items: list[Data], template: Template
) -> Iterator[tuple[Channel, int]]:
    """Values in the order of their push object list, whose first entry is the list itself."""
    units = {
        obis: _scaler_unit(item)
        for (_, obis, attribute), item in zip(named, items, strict=True)
        if attribute == _SCALER_UNIT_ATTRIBUTE
    }
    for (class_id, obis, attribute), item in zip(named, items, strict=True):
        if attribute == _VALUE_ATTRIBUTE and _is_number(item):
            yield replace(_channel(obis, units.get(obis), template), class_id=class_id), _number(item)


def _object_list(data: Data) -> list[tuple[int, Obis, int]]:
    """Class, logical name and attribute of each entry of a push object list; [] for anything else."""
    found: list[tuple[int, Obis, int]] = []
    for entry in _items(data):
        fields = _items(entry)
        obis = _logical_name(fields[1]) if _is_object(fields) else None
        if obis is None:
            return []
        found.append((_number(fields[0]), obis, _number(fields[2])))
    return found


def _is_object(fields: list[Data]) -> bool:
    return tuple(one.type for one in fields[:4]) == _OBJECT_TYPES and _logical_name(fields[1]) is not None


def _is_number(data: Data) -> bool:
    return isinstance(data.value, int) and data.type not in _NO_NUMBERS


def _number(data: Data) -> int:
    return data.value if isinstance(data.value, int) else 0


def _logical_name(data: Data) -> Obis | None:
    octets = data.value if data.type is DataType.OCTET_STRING else None
    return Obis(*octets) if isinstance(octets, bytes) and len(octets) == _OBIS_OCTETS else None


def _scaler_unit(data: Data) -> tuple[int, int] | None:
    fields = _items(data) if data.type is DataType.STRUCTURE else []
    if [one.type for one in fields] != [DataType.INTEGER, DataType.ENUM]:
        return None
    return _number(fields[0]), _number(fields[1])


def _channel(obis: Obis, sent: tuple[int, int] | None, template: Template) -> Channel:
    if sent is not None:
        return Channel(obis, sent[1], sent[0])
    known = template.get(obis)
    return Channel(obis, NO_UNIT) if known is None else Channel(obis, known.unit, known.scaler)
