"""What a household draws and feeds in: energy registers as a pure function of seed, meter and time.

A register's value at any moment is computed, not accumulated: the energy of whole days rises by a
daily amount that varies, and within the day by a shape. Chance moves each value less than the step to the
next, so that registers never run backwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

SLOT_S = 900
SLOTS_PER_DAY = 96
INSTALLED = datetime(2023, 1, 1, tzinfo=UTC)
_INSTALLED_DAY = int(INSTALLED.timestamp()) // 86400
_MASK = 0xFFFFFFFFFFFFFFFF


def chance(*numbers: int) -> float:
    """A number from 0 to below 1 that depends on these numbers only (splitmix64)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ number) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 30) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return (state >> 11) / (1 << 53)


def _shape(peaks: tuple[tuple[float, float, float], ...], base: float) -> tuple[float, ...]:
    """The share of a day's energy in each slot: a base, and peaks of (hour, width in hours, height)."""
    weights: list[float] = []
    for slot in range(SLOTS_PER_DAY):
        hour = slot / 4
        weight = base
        for middle, width, height in peaks:
            weight += height * math.exp(-(((hour - middle) / width) ** 2))
        weights.append(weight if weight > 0.01 else 0.0)
    total = sum(weights)
    return tuple(weight / total for weight in weights)


_HOUSEHOLD = _shape(((7.0, 1.2, 0.8), (12.0, 1.5, 0.5), (19.0, 2.0, 1.4)), 0.35)
_SUN = _shape(((12.0, 2.8, 1.0),), -0.05)
_CUMULATED = {shape: (0.0, *accumulate(shape)) for shape in (_HOUSEHOLD, _SUN)}


class _Register(NamedTuple):
    """Energy per day in Wh or varh, and how it spreads over the day."""

    per_day: float
    shape: tuple[float, ...]


class LoadModel:
    """The four energy registers of one meter: A+, A-, R+, R-, in Wh and varh."""

    def __init__(self, seed: int, serial: str) -> None:
        digest = hashlib.sha256(f"{seed}/{serial}/load".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big")
        draw = 4000 + 14000 * chance(self._key, 1)
        solar = 2000 + 16000 * chance(self._key, 2) if chance(self._key, 3) < 0.3 else 0.0
        self._registers = (
            _Register(draw, _HOUSEHOLD),
            _Register(solar, _SUN),
            _Register(draw * 0.2, _HOUSEHOLD),
            _Register(draw * 0.05, _HOUSEHOLD),
        )
        self.at_slot = lru_cache(maxsize=4)(self._at_slot)

    def _at_slot(self, slot: int) -> tuple[int, int, int, int]:
        """The registers at the end of a slot of 900 s, counted from 1970."""
        day, part = divmod(slot, SLOTS_PER_DAY)
        key = self._key
        wobble = 0.8 * chance(key, 5, slot)
        this_day = day - _INSTALLED_DAY + 0.3 * chance(key, 4, day)
        next_day = day + 1 - _INSTALLED_DAY + 0.3 * chance(key, 4, day + 1)
        values: list[int] = []
        for per_day, shape in self._registers:
            within = _CUMULATED[shape][part] + wobble * shape[part]
            values.append(max(0, int(per_day * (this_day + (next_day - this_day) * within))))
        return values[0], values[1], values[2], values[3]

    def at(self, moment: datetime) -> tuple[int, int, int, int]:
        """The registers at any moment."""
        slot, second = divmod(int(moment.timestamp()), SLOT_S)
        before, after = self.at_slot(slot), self.at_slot(slot + 1)
        a, b, c, d = (old + (new - old) * second // SLOT_S for old, new in zip(before, after, strict=True))
        return a, b, c, d

    def power(self, moment: datetime) -> int:
        """Active power drawn, in W, as the mean of the slot."""
        slot = int(moment.timestamp()) // SLOT_S
        return (self.at_slot(slot + 1)[0] - self.at_slot(slot)[0]) * 3600 // SLOT_S

    def voltage(self, moment: datetime) -> int:
        """Volts of one phase, in tenths."""
        return 2250 + int(100 * chance(self._key, 6, int(moment.timestamp()) // 60))

    def outage(self, day: int) -> tuple[int, int] | None:
        """Start and end of that day's power failure in seconds from 1970; most days have none."""
        if chance(self._key, 7, day) > 0.06:
            return None
        start = day * 86400 + int(80000 * chance(self._key, 8, day))
        return start, start + 60 + int(3000 * chance(self._key, 9, day))


class TamperedLoad(LoadModel):
    """A household whose meter counts only a share of what it draws since a moment: the rest goes beside the meter."""

    def __init__(self, seed: int, serial: str, share: float, since: datetime) -> None:
        super().__init__(seed, serial)
        # What is really drawn, and what a supervisor meter sees.
        self.drawn = LoadModel(seed, serial)
        self._share = share
        self._since_slot = int(since.timestamp()) // SLOT_S
        self.at_slot = lru_cache(maxsize=4)(self._counted_at)

    def _counted_at(self, slot: int) -> tuple[int, int, int, int]:
        drawn = self.drawn.at_slot(slot)
        if slot <= self._since_slot:
            return drawn
        base = self.drawn.at_slot(self._since_slot)
        a, c, d = (base[i] + int((drawn[i] - base[i]) * self._share) for i in (0, 2, 3))
        return a, drawn[1], c, d


class SupervisedLoad(LoadModel):
    """What a supervisor meter at the transformer sees: everything drawn behind it, with the losses of the line."""

    def __init__(self, seed: int, serial: str, members: Sequence[LoadModel], losses: float) -> None:
        super().__init__(seed, serial)
        self._members = [one.drawn if isinstance(one, TamperedLoad) else one for one in members]
        self._losses = losses
        self.at_slot = lru_cache(maxsize=128)(self._sum_at)

    def _sum_at(self, slot: int) -> tuple[int, int, int, int]:
        every = [one.at_slot(slot) for one in self._members]
        a, b, c, d = (sum(column) for column in zip(*every, strict=True))
        return int(a * (1 + self._losses)), b, c, d
