"""M-Bus records as OBIS channels, so that a water meter flows through the same store as a meter on PLC.

After the tables of IEC 62056-6-1 (media 1, 4 to 9) and the mapping of OMS volume 2, annex A. Value group
B is the sub-unit, E the tariff, F the storage number (255 = the present value). A record that has no row
keeps its M-Bus form and gets no channel: nothing is guessed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from concentrator.model import Channel
from concentrator.obis import Obis
from concentrator.wmbus.record import Function, Record, RecordHeader

PRESENT_VALUE = 255
LARGEST_HISTORY = 99
LARGEST_SUBUNIT = 64
LARGEST_TARIFF = 63
_ABSTRACT, _ELECTRICITY, _HEAT_COST, _COOLING, _HEAT, _GAS, _COLD_WATER, _HOT_WATER = 0, 1, 4, 5, 6, 7, 8, 9

# EN 13757-3 device type: value group A.
_MEDIA: dict[int, int] = {
    0x02: _ELECTRICITY,
    0x03: _GAS,
    0x04: _HEAT,
    0x0C: _HEAT,
    0x0D: _HEAT,
    0x06: _HOT_WATER,
    0x15: _HOT_WATER,
    0x07: _COLD_WATER,
    0x16: _COLD_WATER,
    0x17: _COLD_WATER,
    0x08: _HEAT_COST,
    0x0A: _COOLING,
    0x0B: _COOLING,
    # Techem's own.
    0x43: _HEAT,
    0x45: _HEAT,
    0xC3: _HEAT,
    0x62: _HOT_WATER,
    0x72: _COLD_WATER,
    0x80: _HEAT_COST,
}


class _Unit(NamedTuple):
    """A unit of the Blue Book (table of class 3), and the whole number that takes a value into it."""

    code: int
    factor: int = 1


_UNITS: dict[str, _Unit] = {
    "a": _Unit(1),
    "month": _Unit(2),
    "d": _Unit(4),
    "h": _Unit(5),
    "min": _Unit(6),
    "s": _Unit(7),
    "C": _Unit(9),
    "m3": _Unit(13),
    "m3/h": _Unit(15),
    "m3/min": _Unit(15, 60),
    "m3/s": _Unit(15, 3600),
    "kg": _Unit(20),
    "bar": _Unit(24),
    "J": _Unit(25),
    "J/h": _Unit(26),
    "W": _Unit(27),
    "VA": _Unit(28),
    "var": _Unit(29),
    "Wh": _Unit(30),
    "VAh": _Unit(31),
    "varh": _Unit(32),
    "A": _Unit(33),
    "V": _Unit(35),
    "Hz": _Unit(44),
    "K": _Unit(52),
    "%": _Unit(56),
    "dBm": _Unit(70),
    "date": _Unit(255),
    "hca": _Unit(255),
    "": _Unit(255),
}

# D by function field. Electricity has a number for each processing; the other media share theirs.
_OTHER_MEDIA_D = {Function.INSTANTANEOUS: 0, Function.MINIMUM: 4, Function.MAXIMUM: 5}
_INTEGRAL_D = {Function.INSTANTANEOUS: 8}
_PRESENT_D = {Function.INSTANTANEOUS: 7, Function.MINIMUM: 3, Function.MAXIMUM: 6}
_FLOW_RATE_GAS_D = {Function.INSTANTANEOUS: 15}
_BASE_CONDITIONS_D = {Function.INSTANTANEOUS: 2}
_PHASE_STEP = 20

_Key = tuple[int, str, frozenset[str]]
_Row = tuple[int, dict[Function, int]]


def _table() -> dict[_Key, _Row]:
    rows: dict[_Key, _Row] = {}

    def add(media: tuple[int, ...], quantity: str, qualifiers: str, c: int, d: dict[Function, int]) -> None:
        for medium in media:
            rows[medium, quantity, frozenset(qualifiers.split())] = (c, d)

    one = (_ELECTRICITY,)
    forward, backward = "accumulation_if_positive", "accumulation_if_negative"
    for quantity, c, d in (
        ("energy", 1, _INTEGRAL_D),
        ("reactive_energy", 3, _INTEGRAL_D),
        ("apparent_energy", 9, _INTEGRAL_D),
        ("power", 1, _PRESENT_D),
        ("reactive_power", 3, _PRESENT_D),
        ("apparent_power", 9, _PRESENT_D),
    ):
        for phase in range(4):
            where = f"phase_l{phase}" if phase else ""
            add(one, quantity, where, c + _PHASE_STEP * phase, d)
            add(one, quantity, f"{forward} {where}", c + _PHASE_STEP * phase, d)
            add(one, quantity, f"{backward} {where}", c + 1 + _PHASE_STEP * phase, d)
    for quadrant in range(1, 5):
        add(one, "reactive_energy", f"quadrant_{quadrant}", 4 + quadrant, _INTEGRAL_D)
    for quantity, c in (("current", 11), ("voltage", 12)):
        add(one, quantity, "", c, _PRESENT_D)
        for phase in range(1, 4):
            add(one, quantity, f"phase_l{phase}", c + _PHASE_STEP * phase, _PRESENT_D)
    add(one, "current", "neutral", 91, _PRESENT_D)
    add(one, "frequency", "", 14, _PRESENT_D)

    water = (_COLD_WATER, _HOT_WATER)
    add(water, "volume", "", 1, _OTHER_MEDIA_D)
    add(water, "volume", forward, 1, _OTHER_MEDIA_D)
    add(water, "volume_flow", "", 2, _OTHER_MEDIA_D)
    add(water, "flow_temperature", "", 3, _OTHER_MEDIA_D)

    gas = (_GAS,)
    add(gas, "volume", "", 3, {Function.INSTANTANEOUS: 0})
    add(gas, "volume", "uncorrected", 3, {Function.INSTANTANEOUS: 0})
    add(gas, "volume", "base_conditions", 3, _BASE_CONDITIONS_D)
    add(gas, "volume_flow", "", 43, _FLOW_RATE_GAS_D)

    for c, quantity in (
        (1, "energy"),
        (2, "volume"),
        (3, "mass"),
        (8, "power"),
        (9, "volume_flow"),
        (10, "flow_temperature"),
        (11, "return_temperature"),
        (12, "temperature_difference"),
        (13, "pressure"),
    ):
        add((_HEAT, _COOLING), quantity, "", c, _OTHER_MEDIA_D)
    add((_HEAT_COST,), "heat_cost_allocation", "", 1, _OTHER_MEDIA_D)
    return rows


_TABLE = _table()

# Of every medium: the whole code in value group A = 0.
_ABSTRACT_TABLE: dict[str, tuple[int, int, int]] = {
    "external_temperature": (96, 9, 0),
    "relative_humidity": (96, 9, 2),
    "digital_input": (96, 3, 1),
    "digital_output": (96, 3, 2),
    "battery_operating_time": (96, 6, 0),
    "battery_voltage": (96, 6, 3),
    "operating_time": (96, 8, 0),
    "remaining_battery_life": (96, 6, 6),
    "error_flags": (97, 97, 0),
}


# Of every medium, in its own value group A: numbers and versions of the meter.
_OWN_MEDIUM_TABLE: dict[str, tuple[int, int, int]] = {
    "fabrication_number": (0, 0, 0),
    "enhanced_identification": (0, 0, 1),
    "firmware_version": (0, 2, 0),
    "software_version": (0, 2, 1),
}
_CLOCK = (1, 0, 0)
_TIME_OF_STORAGE = (0, 1, 2)


class MappedRecord(NamedTuple):
    """A record's channel, and the whole number that its value is to be multiplied by for it."""

    channel: Channel
    factor: int


def map_record(record: Record, device_type: int) -> MappedRecord | None:
    """Find the channel of a record of a meter of `device_type`; None where there is no standard one."""
    return map_header(record.header, device_type)


@lru_cache(maxsize=4096)
def map_header(record: RecordHeader, device_type: int) -> MappedRecord | None:
    """The channel of all records with this header."""
    unit = _UNITS.get(record.unit)
    if unit is None or record.subunit > LARGEST_SUBUNIT or record.tariff > LARGEST_TARIFF:
        return None
    if record.storage > LARGEST_HISTORY:
        return None
    f = record.storage or PRESENT_VALUE
    medium = _MEDIA.get(device_type)
    row = _TABLE.get((medium, record.quantity, frozenset(record.qualifiers))) if medium is not None else None
    if row is not None and medium is not None and record.function in row[1]:
        c, by_function = row
        obis = Obis(medium, record.subunit, c, by_function[record.function], record.tariff, f)
    elif record.quantity in _ABSTRACT_TABLE and not record.qualifiers and record.tariff == 0:
        if record.function is not Function.INSTANTANEOUS:
            return None
        obis = Obis(_ABSTRACT, record.subunit, *_ABSTRACT_TABLE[record.quantity], f)
    elif not record.qualifiers and record.function is Function.INSTANTANEOUS:
        codes = _time_or_number(record)
        group = _ABSTRACT if codes == _CLOCK else medium
        if codes is None or group is None:
            return None
        obis = Obis(group, record.subunit, *codes, f)
    else:
        return None
    return MappedRecord(Channel(obis, unit.code, record.exponent), unit.factor)


def _time_or_number(record: RecordHeader) -> tuple[int, int, int] | None:
    """C, D and E of the meter's clock, of the time of a stored value, or of a number of the meter."""
    if record.quantity in ("date", "date_time") and record.tariff == 0:
        return _TIME_OF_STORAGE if record.storage else _CLOCK
    return _OWN_MEDIUM_TABLE.get(record.quantity)
