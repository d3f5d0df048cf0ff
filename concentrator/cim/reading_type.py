"""ReadingType: what a value is, as the eighteen dotted numbers of IEC 61968-9, annex C.

    macroPeriod.aggregate.measuringPeriod.accumulation.flowDirection.commodity.measurementKind.
    interharmonic(2).argument(2).tou.cpp.consumptionTier.phases.multiplier.unit.currency

Values leave in the base unit of their reading type, as exact decimals: the type of a quantity does not change with the
scaler that one meter happens to use. A quantity that has no place in the tables keeps its OBIS code as its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from concentrator.model import Channel

_DAILY, _MONTHLY = 11, 13
_AVERAGE, _MAXIMUM, _MINIMUM = 2, 8, 9
_BULK_QUANTITY, _CUMULATIVE, _DELTA, _INDICATING, _INSTANTANEOUS = 1, 3, 4, 6, 12
_FORWARD, _NET, _REVERSE, _TOTAL = 1, 4, 19, 20
_CURRENT, _DEMAND, _ENERGY, _FREQUENCY, _POWER, _POWER_FACTOR = 4, 8, 12, 15, 37, 38
_TEMPERATURE, _RMS_VOLTAGE, _VOLUME, _BATTERY_VOLTAGE, _VOLUMETRIC_FLOW = 46, 54, 58, 94, 155
_COUNT, _POWER_FACTOR_UNIT = 111, 65

# OBIS value group A: the commodity.
_COMMODITIES = {1: 1, 5: 13, 6: 12, 7: 7, 8: 9, 9: 9}
# measuringPeriod by seconds.
_PERIODS = {
    60: 3,
    120: 10,
    180: 14,
    300: 6,
    600: 1,
    720: 78,
    900: 2,
    1200: 31,
    1800: 5,
    3600: 7,
    7200: 79,
    10_800: 83,
    14_400: 80,
    21_600: 81,
    43_200: 82,
}
_DAY_S = 86_400
_SHORTEST_MONTH_S = 28 * _DAY_S


@dataclass(frozen=True, slots=True)
class _Unit:
    """A unit of the Blue Book in IEC 61968-9: its number, the multiplier it comes with, and what it measures."""

    code: int
    kind: int
    multiplier: int = 0


_UNITS = {
    7: _Unit(27, 0),
    6: _Unit(159, 0),
    5: _Unit(160, 0),
    4: _Unit(195, 0),
    8: _Unit(9, 0),
    9: _Unit(23, _TEMPERATURE),
    13: _Unit(42, _VOLUME),
    14: _Unit(167, _VOLUME),
    15: _Unit(125, _VOLUMETRIC_FLOW),
    16: _Unit(126, _VOLUMETRIC_FLOW),
    19: _Unit(134, _VOLUME),
    20: _Unit(3, 0, 3),
    23: _Unit(39, 0),
    24: _Unit(214, 0),
    25: _Unit(31, _ENERGY),
    27: _Unit(38, _POWER),
    28: _Unit(61, _POWER),
    29: _Unit(63, _POWER),
    30: _Unit(72, _ENERGY),
    31: _Unit(71, _ENERGY),
    32: _Unit(73, _ENERGY),
    33: _Unit(5, _CURRENT),
    35: _Unit(29, _RMS_VOLTAGE),
    38: _Unit(30, 0),
    44: _Unit(33, _FREQUENCY),
    48: _Unit(104, 0),
    49: _Unit(105, 0),
    52: _Unit(6, _TEMPERATURE),
    57: _Unit(106, 0),
    60: _Unit(107, 0),
    61: _Unit(181, 0),
    65: _Unit(165, 0),
    # A decibel is a tenth of a bel.
    70: _Unit(113, 115, -1),
    72: _Unit(79, 117, -1),
}
_NO_UNIT = 255

# OBIS value group C of electricity: the flow. Of each phase twenty further, forty, sixty.
_FLOWS = {
    1: _FORWARD,
    2: _REVERSE,
    3: 5,
    4: 13,
    5: 15,
    6: 16,
    7: 17,
    8: 18,
    9: _FORWARD,
    10: _REVERSE,
    15: _TOTAL,
    16: _NET,
}
_POWER_FACTOR_C, _CURRENT_C, _VOLTAGE_C = 13, 11, 12
_PHASE_A, _PHASE_B, _PHASE_C, _NEUTRAL, _TO_NEUTRAL = 128, 64, 32, 16, 1
_PHASES = {0: 0, 1: _PHASE_A, 2: _PHASE_B, 3: _PHASE_C}
_PHASE_STEP, _LAST_PHASE_C, _NEUTRAL_CURRENT_C = 20, 80, 91

# OBIS value group D of electricity: aggregate, accumulation, and whether a power is a demand (IEC 62056-6-1, table 11).
_PROCESSINGS = {
    2: (0, _CUMULATIVE, True),
    3: (_MINIMUM, _INSTANTANEOUS, False),
    4: (_AVERAGE, _INDICATING, True),
    5: (_AVERAGE, _INDICATING, True),
    6: (_MAXIMUM, _INDICATING, True),
    7: (0, _INSTANTANEOUS, False),
    8: (0, _BULK_QUANTITY, False),
    9: (0, _BULK_QUANTITY, False),
    16: (_MAXIMUM, _INDICATING, True),
    13: (_MINIMUM, _INDICATING, True),
    23: (_MINIMUM, _INDICATING, True),
    24: (_AVERAGE, _INDICATING, True),
    25: (_AVERAGE, _INDICATING, True),
    26: (_MAXIMUM, _INDICATING, True),
    27: (_AVERAGE, _INDICATING, True),
    29: (0, _DELTA, False),
    30: (0, _DELTA, False),
}
_TARIFFED = (2, 6, 8, 9, 29, 30)
_MOST_TARIFFS = 63
_ELECTRICITY, _ABSTRACT = 1, 0
_BATTERY = ((96, 6, 3),)


@dataclass(frozen=True, slots=True)
class ReadingType:
    """What a channel's values are: `ref`, and by which power of ten its integers become values of that type.

    `ref` is the eighteen numbers, or the OBIS code where those cannot say what it is (`is_coded` is False).
    """

    ref: str
    scaler: int
    is_coded: bool

    def value(self, raw: int | str) -> str:
        """A raw value as the decimal that stands in a message; text stays as it is."""
        if isinstance(raw, str):
            return raw
        return f"{Decimal(raw).scaleb(self.scaler):f}"


def reading_type(channel: Channel) -> ReadingType:
    """The reading type of a channel."""
    obis = channel.obis
    by_obis = ReadingType(str(obis), channel.scaler, is_coded=False)
    unit = _unit_of(channel)
    commodity = _COMMODITIES.get(obis.a)
    if unit is None or (commodity is None and obis.a != _ABSTRACT) or not unit.kind:
        return by_obis
    macro_period, measuring_period = _periods(channel.period_s)
    if channel.period_s and not macro_period and not measuring_period:
        return by_obis
    kind, tou, phases = unit.kind, 0, 0
    if obis.a == _ELECTRICITY:
        if obis.d not in _PROCESSINGS:
            return by_obis
        aggregate, accumulation, is_demand = _PROCESSINGS[obis.d]
        flow, phases = _flow_and_phases(obis.c)
        if flow is None:
            return by_obis
        kind = _DEMAND if is_demand and kind == _POWER else kind
        tou = obis.e if obis.d in _TARIFFED and obis.e <= _MOST_TARIFFS else 0
        if obis.e and not tou:
            # A harmonic, a direction, or what else value group E says of this quantity.
            return by_obis
    else:
        aggregate, flow = 0, _FORWARD if kind in (_ENERGY, _VOLUME) else 0
        accumulation = _BULK_QUANTITY if kind in (_ENERGY, _VOLUME) else _INSTANTANEOUS
        if obis.a == _ABSTRACT:
            if (obis.c, obis.d, obis.e) not in _BATTERY:
                return by_obis
            kind = _BATTERY_VOLTAGE
        elif obis.d or obis.e or obis.f != 255:  # noqa: PLR2004 - the present value
            # Stored and differentiated values of the other media need more words than these numbers have.
            return by_obis
    numbers = (
        macro_period,
        aggregate,
        measuring_period,
        accumulation,
        flow,
        commodity or 0,
        kind,
        *(0, 0, 0, 0),
        tou,
        *(0, 0),
        phases,
        unit.multiplier,
        unit.code,
        0,
    )
    return ReadingType(".".join(str(number) for number in numbers), channel.scaler, is_coded=True)


def _unit_of(channel: Channel) -> _Unit | None:
    if channel.unit == _NO_UNIT and channel.obis.a == _ELECTRICITY:
        c = channel.obis.c
        if c <= _LAST_PHASE_C and (c % _PHASE_STEP or _PHASE_STEP) == _POWER_FACTOR_C:
            return _Unit(_POWER_FACTOR_UNIT, _POWER_FACTOR)
        return None
    return _UNITS.get(channel.unit)


def _periods(period_s: int) -> tuple[int, int]:
    """MacroPeriod and measuringPeriod."""
    if period_s == _DAY_S:
        return _DAILY, 0
    if period_s >= _SHORTEST_MONTH_S:
        return _MONTHLY, 0
    return 0, _PERIODS.get(period_s, 0)


def _flow_and_phases(c: int) -> tuple[int | None, int]:
    """FlowDirection and phases of value group C; None for a quantity that these tables do not have."""
    if c == _NEUTRAL_CURRENT_C:
        return 0, _NEUTRAL
    if not 1 <= c <= _LAST_PHASE_C:
        return None, 0
    phase, quantity = divmod(c - 1, _PHASE_STEP)
    quantity += 1
    phases = _PHASES[phase]
    if quantity == _VOLTAGE_C:
        return 0, phases and phases | _TO_NEUTRAL
    if quantity in (_CURRENT_C, _POWER_FACTOR_C, 14):
        return 0, phases
    return _FLOWS.get(quantity), phases
