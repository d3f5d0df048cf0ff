"""A load profile as a drawing: pure geometry, from stored values to the shapes of an SVG.

A register that counts up for ever (OBIS D = 8) is drawn as its differences, one bar for each interval;
anything else as a line. An interval that is not in the store is a hole, never bridged: the bar before and
after a hole stand, the hole is drawn as such.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from concentrator.web.queries import Gap, Point
from concentrator.web.translations import mark
from concentrator.web.words import is_doubtful

WIDTH, HEIGHT = 960, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 12, 26
_STEPS = (1, 2, 2.5, 5, 10)
_MOST_TICKS = 5
_BAR_SHARE = 0.82
_HOUR_S = 3600
_MOST_DOTS = 100
# Of a counter: what was used in the interval is not known.
NOTHING_BEFORE = mark("stored, but the value before it is missing")
BEFORE_HISTORY = mark("before the days that are read (history_days)")

Axis = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis; `day` is the day that begins there, which each language writes its own way."""

    at: float
    label: str
    strong: bool = False
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Hole:
    """A span without values: its place in the drawing, how many intervals of it are not stored, when it was, and why.

    `reason` is "" where nobody gave one up or asked in vain: it is still to be read. `early`: before all that is read.
    """

    x: float
    width: float
    intervals: int
    begin: datetime
    end: datetime
    reason: str = ""
    early: bool = False


@dataclass(frozen=True, slots=True)
class ChartValue:
    """One interval, or one value of a quantity without intervals: `x`, `y` are its place; without a value, a hole's.

    `end` is the capture time; `begin` the same where there is no period.
    """

    x: float
    y: float
    begin: datetime
    end: datetime
    value: float | None
    quality: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws. `path` is filled for bars and stroked for a line."""

    kind: str
    path: str
    doubtful_path: str
    dots: str
    holes: tuple[Hole, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    shown: int
    missing: int
    doubtful: int
    lowest: float
    highest: float
    total: float
    values: tuple[ChartValue, ...] = ()


def scale_for(highest: float, lowest: float) -> tuple[float, float, float]:
    """A round lower end, upper end and step that hold the values in at most five steps."""
    span = highest - lowest
    if span <= 0:
        span = abs(highest) / 10 or 1.0
        lowest, highest = lowest - span / 2, highest + span / 2
    rough = span / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
    return math.floor(lowest / step) * step, math.ceil(highest / step - 1e-9) * step, step


def draw(  # noqa: PLR0913 - one drawing's inputs
    points: Sequence[Point],
    first: int,
    last: int,
    *,
    period_s: int,
    scaler: int,
    counter: bool,
    zone: tzinfo | None,
    gaps: Sequence[Gap] = (),
    history_from: int = 0,
) -> Chart | None:
    """Draw the values with capture times from `first` to `last`; None when there is nothing to draw.

    For a counter, `points` should begin one interval before `first`. `gaps` are those that explain holes; what ends
    before `history_from` is never asked for, and does not count as missing.
    `zone` is that of the labels. Without a period the values are joined as they come.
    """
    values = _values(points, period_s, scaler, counter=counter)
    shown = [(at, value, doubtful) for at, value, doubtful in values if first <= at <= last]
    if not shown:
        return None
    numbers = [value for _at, value, _doubtful in shown]
    low, high, step = scale_for(
        *((max(*numbers, 0.0), min(*numbers, 0.0)) if counter else (max(numbers), min(numbers)))
    )
    x_of, y_of = _axes(first - period_s, last, low, high)
    width = (x_of(first) - x_of(first - period_s)) * _BAR_SHARE
    bars = _bars if counter else _line
    drawn = {at for at, _value, _doubtful in shown}
    stored = {point.captured_at for point in points}
    holes = _holes(drawn, stored, (first, last), period_s, history_from) if period_s else []
    sound = [(at, value) for at, value, doubtful in shown if not (doubtful and counter)]
    doubtful_bars = [(at, value) for at, value, doubtful in shown if doubtful and counter]
    few = not counter and len(shown) <= _MOST_DOTS
    return Chart(
        "bars" if counter else "line",
        bars(sound, x_of, y_of, width, period_s),
        bars(doubtful_bars, x_of, y_of, width, period_s),
        "".join(f"M{x_of(at):.1f} {y_of(value):.1f}h.01" for at, value in sound) if few else "",
        tuple(
            Hole(
                round(x_of(first_end - period_s), 1),
                round(x_of(last_end) - x_of(first_end - period_s), 1),
                missing,
                datetime.fromtimestamp(first_end - period_s, zone),
                datetime.fromtimestamp(last_end, zone),
                _reason(gaps, first_end, last_end, history_from),
                early=last_end < history_from,
            )
            for first_end, last_end, missing in holes
        ),
        _time_ticks(first - period_s, last, x_of, zone),
        tuple(
            Tick(round(y_of(low + number * step), 1), f"{low + number * step:g}", number == 0)
            for number in range(round((high - low) / step) + 1)
        ),
        len(shown),
        sum(missing for _first, last_end, missing in holes if last_end >= history_from),
        len(doubtful_bars),
        min(numbers),
        max(numbers),
        sum(numbers),
        _chart_values(
            shown,
            {point.captured_at: point.quality for point in points},
            holes,
            (gaps, history_from),
            period_s,
            x_of,
            y_of,
            zone,
        ),
    )


def _chart_values(  # noqa: PLR0913, PLR0917 - one drawing's inputs
    shown: Sequence[tuple[int, float, bool]],
    qualities: Mapping[int, int],
    holes: Sequence[tuple[int, int, int]],
    known: tuple[Sequence[Gap], int],
    period_s: int,
    x_of: Axis,
    y_of: Axis,
    zone: tzinfo | None,
) -> tuple[ChartValue, ...]:
    """Every interval in its order, those of holes too."""

    def made(at: int, value: float | None, quality: int, reason: str = "") -> ChartValue:
        begin, end = datetime.fromtimestamp(at - period_s, zone), datetime.fromtimestamp(at, zone)
        y = y_of(value) if value is not None else float(HEIGHT - BOTTOM)
        return ChartValue(round(x_of(at - period_s / 2), 1), round(y, 1), begin, end, value, quality, reason)

    found = {at: made(at, value, qualities[at]) for at, value, _doubtful in shown}
    for first_end, last_end, _missing in holes:
        for at in range(first_end, last_end + 1, period_s):
            reason = NOTHING_BEFORE if at in qualities else _reason(known[0], at, at, known[1])
            found[at] = made(at, None, qualities.get(at, 0), reason)
    return tuple(found[at] for at in sorted(found))


def _reason(gaps: Sequence[Gap], first_end: int, last_end: int, history_from: int) -> str:
    """Why intervals lack: the reasons of the gaps that lie in them."""
    reasons = {
        gap.reason: None
        for gap in gaps
        if gap.first_at.timestamp() <= last_end and gap.last_at.timestamp() >= first_end
    }
    return "; ".join(reasons) or (BEFORE_HISTORY if last_end < history_from else "")


def _values(
    points: Sequence[Point], period_s: int, scaler: int, *, counter: bool
) -> list[tuple[int, float, bool]]:
    factor = 10.0**scaler
    numbers = [
        (point.captured_at, point.value, is_doubtful(point.quality))
        for point in points
        if isinstance(point.value, int)
    ]
    if not counter:
        return [(at, value * factor, doubtful) for at, value, doubtful in numbers]
    return [
        (at, (value - before) * factor, doubtful)
        for (at_before, before, _), (at, value, doubtful) in itertools.pairwise(numbers)
        if at - at_before == period_s
    ]


def _axes(first: int, last: int, low: float, high: float) -> tuple[Axis, Axis]:
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(at: float) -> float:
        return LEFT + wide * (at - first) / max(1, last - first)

    def y_of(value: float) -> float:
        return TOP + tall * (1 - (value - low) / (high - low))

    return x_of, y_of


def _bars(shown: Sequence[tuple[int, float]], x_of: Axis, y_of: Axis, width: float, period_s: int) -> str:
    base = y_of(0.0)
    return "".join(
        f"M{x_of(at - period_s):.1f} {base:.1f}V{y_of(value):.1f}h{width:.1f}V{base:.1f}z"
        for at, value in shown
    )


def _line(shown: Sequence[tuple[int, float]], x_of: Axis, y_of: Axis, _width: float, period_s: int) -> str:
    parts: list[str] = []
    before: int | None = None
    for at, value in shown:
        joined = before is not None and (not period_s or at - before <= period_s)
        parts.append(f"{'L' if joined else 'M'}{x_of(at):.1f} {y_of(value):.1f}")
        before = at
    return "".join(parts)


def _holes(
    drawn: set[int], stored: set[int], edges: tuple[int, int], period_s: int, history_from: int
) -> list[tuple[int, int, int]]:
    """Spans that nothing is drawn for: the ends of the first and last interval, and how many are not stored.

    The interval after a hole of a counter is stored, but has nothing to be compared with.
    """
    result: list[tuple[int, int, int]] = []
    first, last = edges
    start = -(-first // period_s) * period_s
    ends_in_order = range(start, last + 1, period_s)
    for (lacking, _early), group in itertools.groupby(
        ends_in_order, key=lambda at: (at not in drawn, at < history_from)
    ):
        if not lacking:
            continue
        ends = list(group)
        result.append((ends[0], ends[-1], sum(at not in stored for at in ends)))
    return result


def _time_ticks(first: int, last: int, x_of: Axis, zone: tzinfo | None) -> tuple[Tick, ...]:
    hours = (last - first) / _HOUR_S
    every = 3 if hours <= 30 else 6 if hours <= 54 else 24  # noqa: PLR2004 - hours shown
    at = datetime.fromtimestamp(first, zone).replace(minute=0, second=0, microsecond=0)
    ticks: list[Tick] = []
    while at.timestamp() <= last:
        if at.hour % every == 0 and at.timestamp() >= first:
            midnight = at.hour == 0
            place = round(x_of(at.timestamp()), 1)
            ticks.append(
                Tick(place, "", strong=True, day=at.date()) if midnight else Tick(place, f"{at:%H}:00")
            )
        at += timedelta(hours=1)
    if hours > 24 * 16:  # noqa: PLR2004 - hours shown
        ticks = ticks[::3]
    return tuple(ticks)
