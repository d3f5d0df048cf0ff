"""What is stored of an M-Bus telegram: its records, or the registers of a DLMS push within it.

A meter may send DLMS in the place of records (CI 60, 61, 7C, 7D). Registers are taken from a data-notification, at any
depth of its body, where their logical name, value, and scaler with unit follow each other in this order. Values without
scaler and unit, in floats, and pushes that DLMS itself has ciphered once more are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from concentrator.dlms import apdu as apdus
from concentrator.dlms.apdu import DataNotification
from concentrator.dlms.data import Data, DataType
from concentrator.dlms.errors import DecodeError
from concentrator.model import Answer, Channel, Reading
from concentrator.obis import Obis
from concentrator.wmbus.answer import to_answer
from concentrator.wmbus.layers import Content
from concentrator.wmbus.telegram import Telegram

_OBIS_OCTETS = 6
_NO_NUMBERS = (DataType.BOOLEAN, DataType.ENUM, DataType.BCD)


def telegram_answer(telegram: Telegram, received_at: datetime, *, meter: str) -> Answer:
    """The readings of a telegram, whatever its application is; DLMS registers are stamped with `received_at`."""
    answer = to_answer(telegram, received_at, meter=meter)
    if telegram.content is not Content.DLMS or not telegram.security.readable:
        return answer
    readings: dict[Obis, Reading] = {}
    for channel, value in pushed_registers(telegram.payload):
        readings.setdefault(channel.obis, Reading(channel, received_at, value, telegram.status))
    return replace(answer, readings=answer.readings + tuple(readings.values()))


def pushed_registers(octets: bytes) -> list[tuple[Channel, int]]:
    """The registers of a data-notification at the beginning of `octets`; none where there is something else."""
    try:
        decoded, _ = apdus.decode_from(octets)
    except DecodeError:
        return []
    return list(_registers(decoded.body)) if isinstance(decoded, DataNotification) else []


def _registers(data: Data) -> Iterator[tuple[Channel, int]]:
    if data.type not in (DataType.STRUCTURE, DataType.ARRAY) or not isinstance(data.value, tuple):
        return
    items = [item for item in data.value if isinstance(item, Data)]
    for name, value, scaler_unit in zip(items, items[1:], items[2:], strict=False):
        channel = _channel(name, scaler_unit)
        if channel is not None and isinstance(value.value, int) and value.type not in _NO_NUMBERS:
            yield channel, value.value
    for item in items:
        yield from _registers(item)


def _channel(name: Data, scaler_unit: Data) -> Channel | None:
    if name.type is not DataType.OCTET_STRING or not isinstance(name.value, bytes):
        return None
    if scaler_unit.type is not DataType.STRUCTURE or not isinstance(scaler_unit.value, tuple):
        return None
    types = [item.type for item in scaler_unit.value if isinstance(item, Data)]
    if len(name.value) != _OBIS_OCTETS or types != [DataType.INTEGER, DataType.ENUM]:
        return None
    scaler, unit = (item.value for item in scaler_unit.value if isinstance(item, Data))
    if not isinstance(scaler, int) or not isinstance(unit, int):
        return None
    return Channel(Obis(*name.value), unit, scaler)
