"""What kind of value a channel has, from its OBIS code and unit: register, amount of an interval, power, or other.

Blue Book part 1: value group D of electricity 8 is a time integral from the beginning of measurement (a register), 29
and 9 to 10 one over an interval; 7 is momentary. Of the other media, volumes, energies and masses are registers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

from concentrator.model import Channel
from concentrator.obis import Obis

_ELECTRICITY = 1
_REGISTER_D, _INTERVAL_D = 8, 29
# Net energy (consumed less fed in) may fall: C = 16, 36, 56, 76.
_NET = (16, 36, 56, 76)
_METRES, _CORRECTED, _LITRES, _KILOGRAMS = 13, 14, 19, 20
_WH, _VAH, _VARH, _JOULES = 30, 31, 32, 25
_W, _VA, _VAR = 27, 28, 29
_JOULES_PER_WH = 3600
# Beyond one megawatt no meter of heat or cooling behind a low-voltage feeder goes.
_THERMAL_LIMIT_W = 1_000_000
# Units of one kind: meters differ in which of them they tell.
_SAME_KIND = (
    frozenset({_METRES, _CORRECTED, _LITRES}),
    frozenset({15, 16, 17, 18}),
    frozenset({_WH, _JOULES, 22}),
    frozenset({_W, 26}),
    frozenset({9, 52}),
)
# What a quantity can be at the most, by unit: the instruments of a low-voltage network and of houses.
_RANGES: dict[int, tuple[float, float]] = {
    8: (-360, 360),
    9: (-100, 300),
    15: (-1000, 1000),
    16: (-1000, 1000),
    23: (0, 100e6),
    24: (-1, 1000),
    26: (-_THERMAL_LIMIT_W * _JOULES_PER_WH, _THERMAL_LIMIT_W * _JOULES_PER_WH),
    33: (-10_000, 10_000),
    35: (0, 60_000),
    44: (0, 100),
    52: (-300, 300),
    56: (0, 100),
}


class Kind(enum.Enum):
    """How the values of a channel follow each other."""

    REGISTER = enum.auto()  # only rises
    INTERVAL = enum.auto()  # the amount of one capture period
    POWER = enum.auto()  # momentary, bounded by the connection
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class Quantity:
    """What bounds a channel's values.

    `per_hour_of_watts` turns a connection's limit in W into the rise per second in the channel's unit; 0 where
    the connection does not bound it. `per_cubic_metre`: units in a cubic metre, 0 for no volume.
    """

    kind: Kind
    per_hour_of_watts: float = 0.0
    per_cubic_metre: float = 0.0
    most_per_s: float = 0.0
    range: tuple[float, float] | None = None

    @property
    def is_volume(self) -> bool:
        """Whether the channel counts a volume."""
        return self.per_cubic_metre > 0


def quantity_of(channel: Channel) -> Quantity:
    """The quantity of a channel."""
    return _quantity(channel.obis, channel.unit)


@lru_cache(maxsize=2048)
def _quantity(obis: Obis, unit: int) -> Quantity:
    if obis.a == _ELECTRICITY:
        return _electricity(obis, unit)
    if unit in (_METRES, _CORRECTED):
        return Quantity(Kind.REGISTER, per_cubic_metre=1)
    if unit == _LITRES:
        return Quantity(Kind.REGISTER, per_cubic_metre=1000)
    if unit == _WH:
        return Quantity(Kind.REGISTER, most_per_s=_THERMAL_LIMIT_W / _JOULES_PER_WH)
    if unit == _JOULES:
        return Quantity(Kind.REGISTER, most_per_s=_THERMAL_LIMIT_W)
    if unit == _KILOGRAMS:
        return Quantity(Kind.REGISTER, most_per_s=1000)
    return Quantity(Kind.OTHER, range=_RANGES.get(unit))


def _electricity(obis: Obis, unit: int) -> Quantity:
    if unit in (_WH, _VAH, _VARH):
        if obis.d == _INTERVAL_D:
            return Quantity(Kind.INTERVAL, 1 / _JOULES_PER_WH)
        if obis.d == _REGISTER_D and obis.c not in _NET:
            return Quantity(Kind.REGISTER, 1 / _JOULES_PER_WH)
        return Quantity(Kind.OTHER)
    if unit in (_W, _VA, _VAR):
        return Quantity(Kind.POWER, 1.0)
    return Quantity(Kind.OTHER, range=_RANGES.get(unit))


@lru_cache(maxsize=2048)
def expected_units(obis: Obis) -> frozenset[int]:
    """The unit codes that a quantity can have; none where its code does not tell."""
    usual = obis.usual_unit()
    if usual is None:
        return frozenset()
    return next((kind for kind in _SAME_KIND if usual in kind), frozenset({usual}))
