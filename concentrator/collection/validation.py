"""How good the values of a meter are: checks at the boundary where they enter, before anything is kept.

Pure: the judgement needs the new values, what the store has around them, and the limits. Registers must not run
backwards nor rise faster than the connection can carry; interval values and momentary values must lie within what
the quantity can be; units must be those of the quantity and of the channel until now; nothing comes from the
future; an interval that the meter itself lacks is told. A value that no check could judge is NOT_VALIDATED, until the
next one can be compared with it. Values are never altered and never left out: they get flags (`model.Quality`, with
their IEC 61968-9 codes in `reading_quality.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from operator import sub

from concentrator.collection.quantities import Kind, Quantity, expected_units, quantity_of
from concentrator.config import ConfigError, ValidationSection
from concentrator.model import Channel, Quality, Reading
from concentrator.store.judgement import JudgedMeter, Known, Surroundings, Verdict
from concentrator.store.readings import to_epoch
from concentrator.units import NO_UNIT

# Where the registry keeps the power that a meter's connection is made for, in W.
CONNECTION_LIMIT_DETAIL = "connection_limit_w"
# A meter's clock may be a little ahead of ours; beyond this its stamps are from the future.
_AHEAD = timedelta(minutes=5)
# Power is measured over whole intervals, and clocks are set within them: nobody is suspected for the last tenth.
_TOLERANCE = 1.1
_SLACK_S = 120
# Registers begin again at a power of ten, or where 32 bits end. The last tenth before counts as near the end.
_ENDS = (*(10**digits for digits in range(5, 13)), 2**32)
_NEAR_THE_END = 0.9
_LIMITS_PATTERN = re.compile(r"^\s*([A-Za-z0-9_-]{1,64})\s*=\s*(\d{1,9})\s*$")
_SUSPECT = int(Quality.SUSPECT)
_NOT_VALIDATED = int(Quality.NOT_VALIDATED)


def parse_limits(text: str) -> dict[str, int]:
    """`METER=WATTS, METER=WATTS` as a table.

    Raises:
        ConfigError: something else stands there.
    """
    limits: dict[str, int] = {}
    for part in filter(str.strip, text.split(",")):
        match = _LIMITS_PATTERN.match(part)
        if match is None:
            raise ConfigError(
                f"validation.connection_limits: got {part.strip()!r}; allowed: METER=WATTS, with commas between"
            )
        limits[match[1]] = int(match[2])
    return limits


@dataclass(slots=True)
class _Point:
    """One value of a series: new, or stored (then `old` has its flags)."""

    at: int
    value: int
    reading: Reading | None = None
    old: int | None = None
    flags: int = 0
    judged: bool = False

    @property
    def is_suspect(self) -> bool:
        return bool(self.flags & _SUSPECT)


@dataclass(frozen=True, slots=True)
class Validator:
    """Judges answers by the limits of the configuration; satisfies `store.judgement.Judge`."""

    settings: ValidationSection = field(default_factory=ValidationSection)
    limits: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def from_settings(cls, settings: ValidationSection) -> Validator:
        """Take the configuration.

        Raises:
            ConfigError: the limits are written wrongly.
        """
        return cls(settings, parse_limits(settings.connection_limits))

    def __call__(
        self,
        meter: JudgedMeter,
        channel: Channel,
        readings: Sequence[Reading],
        around: Surroundings,
        received_at: datetime,
    ) -> Verdict:
        """Judge the new values of one channel, which are in the order of their capture times."""
        quantity = quantity_of(channel)
        latest = received_at + _AHEAD
        if quantity.kind is Kind.REGISTER and readings[-1].captured_at <= latest and _fits(channel):
            limits = _Limits.of(self._rate(meter, quantity), channel)
            if _is_steady(readings, around, limits, channel.period_s):
                return Verdict(readings, {})
        points = [_point(reading) for reading in readings]
        if not _fits(channel):
            for point in points:
                point.flags |= int(Quality.UNIT_UNEXPECTED) | _SUSPECT
        if readings[-1].captured_at > latest:
            for point in points:
                if point.reading is not None and point.reading.captured_at > latest:
                    point.flags |= int(Quality.CLOCK_INVALID) | _SUSPECT
        numbers = [point for point in points if point.reading and isinstance(point.reading.value, int)]
        requalified: dict[int, int] = {}
        if quantity.kind is Kind.REGISTER:
            limits = _Limits.of(self._rate(meter, quantity), channel)
            requalified = _judge_register(numbers, around, limits, channel)
        elif quantity.kind is Kind.INTERVAL:
            period_s = channel.period_s or 86_400
            most = self._rate(meter, quantity) * _TOLERANCE * (period_s + _SLACK_S)
            _judge_range(numbers, 0, most, channel)
        elif quantity.kind is Kind.POWER:
            most = self._rate(meter, quantity) * _TOLERANCE
            _judge_range(numbers, -most, most, channel)
        elif quantity.range is not None:
            _judge_range(numbers, *quantity.range, channel)
        if channel.period_s:
            _mark_gaps(points, channel.period_s, around)
        return Verdict([_judged(point) for point in points], requalified)

    def _rate(self, meter: JudgedMeter, quantity: Quantity) -> float:
        """The most that a register can rise in a second, or a power can be, in the unit of the quantity."""
        if quantity.per_hour_of_watts:
            limit = self.limits.get(meter.identity) or _whole(meter.details.get(CONNECTION_LIMIT_DETAIL, ""))
            return (limit or self.settings.connection_limit_w) * quantity.per_hour_of_watts
        if quantity.is_volume:
            return self.settings.flow_limit_m3h * quantity.per_cubic_metre / 3600
        return quantity.most_per_s


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _point(reading: Reading) -> _Point:
    value = reading.value if isinstance(reading.value, int) else 0
    return _Point(to_epoch(reading.captured_at), value, reading, None, int(reading.quality) & ~_NOT_VALIDATED)


def _judged(point: _Point) -> Reading:
    reading = point.reading
    assert reading is not None  # noqa: S101 - only new values come here
    flags = point.flags
    if not point.judged and not flags & _SUSPECT:
        flags |= _NOT_VALIDATED
    return reading if flags == int(reading.quality) else replace(reading, quality=Quality(flags))


def _fits(channel: Channel) -> bool:
    """Whether the unit is one that the quantity can have; without a unit there is nothing to say."""
    allowed = expected_units(channel.obis)
    return not allowed or channel.unit in (*allowed, NO_UNIT)


def _judge_range(points: Sequence[_Point], least: float, most: float, channel: Channel) -> None:
    if channel.unit == NO_UNIT:
        return
    unit = 10.0**channel.scaler
    for point in points:
        point.judged = True
        if not least <= point.value * unit <= most:
            point.flags |= int(Quality.OUT_OF_RANGE) | _SUSPECT


def _mark_gaps(points: Sequence[_Point], period_s: int, around: Surroundings) -> None:
    """A row whose predecessor the meter itself lacks: a hole between the rows of one answer."""
    stored = {row.at for row in around.between}
    for before, point in pairwise(points):
        if point.at - before.at > period_s and point.at - period_s not in stored:
            point.flags |= int(Quality.AFTER_GAP)


# Registers


@dataclass(frozen=True, slots=True)
class _Limits:
    """The most that a register rises in a second, in raw counts; None where the unit is not known."""

    counts_per_s: float | None

    @classmethod
    def of(cls, rate: float, channel: Channel) -> _Limits:
        """From the rise in the channel's unit."""
        return cls(None if channel.unit == NO_UNIT else rate * _TOLERANCE * 10.0**-channel.scaler)

    def allow(self, before: _Point, after: _Point) -> bool:
        rise = after.value - before.value
        return rise >= 0 and self.possible(rise, after.at - before.at)

    def possible(self, rise: int, seconds: int) -> bool:
        # The last digit that a register shows may have been about to turn.
        return self.counts_per_s is None or rise <= self.counts_per_s * (seconds + _SLACK_S) + 1

    def rolled_over(self, before: _Point, after: _Point) -> bool:
        return any(
            _NEAR_THE_END * end <= before.value < end
            and 0 <= after.value < before.value
            and self.possible(after.value + end - before.value, after.at - before.at)
            for end in _ENDS
        )


def _is_steady(readings: Sequence[Reading], around: Surroundings, limits: _Limits, period_s: int) -> bool:
    """Whether nothing at all speaks against a run of values: what nearly all answers are, told at little cost."""
    neighbours = (*around.before, *around.between, *around.behind)
    if around.between or any(row.quality & (_SUSPECT | _NOT_VALIDATED) for row in neighbours):
        return False
    if len(readings) + len(neighbours) < 2 or (around.former is not None and not around.before):  # noqa: PLR2004 - one value says nothing
        return False
    if any(reading.quality != 0 for reading in readings):
        return False
    times = [to_epoch(reading.captured_at) for reading in readings]
    if period_s and times[-1] - times[0] != period_s * (len(times) - 1):
        return False
    values = [reading.value for reading in readings]
    for row in around.before[-1:]:
        times.insert(0, row.at)
        values.insert(0, row.value)
    for row in around.behind[:1]:
        times.append(row.at)
        values.append(row.value)
    return _rises_steadily(times, values, limits)


def _rises_steadily(times: Sequence[int], values: Sequence[int | str], limits: _Limits) -> bool:
    value = values[0]
    if not isinstance(value, int):
        return False
    for new, seconds in zip(values[1:], map(sub, times[1:], times), strict=True):
        if not isinstance(new, int) or new < value or not limits.possible(new - value, seconds):
            return False
        value = new
    return True


def _judge_register(
    points: Sequence[_Point], around: Surroundings, limits: _Limits, channel: Channel
) -> dict[int, int]:
    """Follow a register through what was stored and what is new; returns new flags of stored values."""
    stored = [_stored(row) for row in (*around.before, *around.between, *around.behind)]
    series = [point for point in stored if point is not None]
    series += points
    series.sort(key=_capture_time)
    former = _converted(around.former, channel)
    if former is not None:
        series.insert(0, former)
    _follow(series, limits)
    if former is not None and series[1].is_suspect and series[1].old is None:
        series[1].flags |= int(Quality.UNIT_UNEXPECTED)
    changed: dict[int, int] = {}
    for point in series:
        if point.old is None or point is former:
            continue
        flags = point.flags
        if point.judged or flags & _SUSPECT:
            flags &= ~_NOT_VALIDATED
        if flags != point.old:
            changed[point.at] = flags
    return changed


def _capture_time(point: _Point) -> int:
    return point.at


def _stored(row: Known) -> _Point | None:
    return _Point(row.at, row.value, None, row.quality, row.quality) if isinstance(row.value, int) else None


def _converted(former: tuple[Channel, Known] | None, channel: Channel) -> _Point | None:
    """The last value of the same quantity in its former scaler, as this channel would have it."""
    if former is None or not isinstance(former[1].value, int) or former[0].unit != channel.unit:
        return None
    value = round(former[1].value * 10.0 ** (former[0].scaler - channel.scaler))
    return _Point(former[1].at, value, None, 0, 0)


def _follow(series: Sequence[_Point], limits: _Limits) -> None:
    """Judge each value by the last that is trusted.

    One that does not fit is suspect. Where the next fits the suspect one instead, the register stands on a new level:
    it was reset or exchanged, or the value that was trusted was wrong, if nothing but its being first spoke for it.
    """
    trusted: _Point | None = None
    outlier: _Point | None = None
    for point in series:
        if point.is_suspect:
            if point.old is not None:
                outlier = point
            continue
        if trusted is None:
            trusted = point
            continue
        if limits.allow(trusted, point):
            trusted.judged = point.judged = True
            trusted, outlier = point, None
        elif limits.rolled_over(trusted, point):
            trusted.judged = point.judged = True
            point.flags |= int(Quality.ROLLED_OVER)
            trusted, outlier = point, None
        elif outlier is not None and limits.allow(outlier, point):
            point.judged = True
            if outlier.old is None and not trusted.judged and trusted.old is None:
                trusted.flags |= outlier.flags & int(Quality.OUT_OF_RANGE | Quality.RUNS_BACKWARDS) | _SUSPECT
                outlier.flags &= ~(int(Quality.OUT_OF_RANGE | Quality.RUNS_BACKWARDS) | _SUSPECT)
                outlier.judged = True
            trusted, outlier = point, None
        else:
            backwards = point.value < trusted.value
            reason = Quality.RUNS_BACKWARDS if backwards else Quality.OUT_OF_RANGE
            point.flags |= int(reason) | _SUSPECT
            point.judged = True
            outlier = point
