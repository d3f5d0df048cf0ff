"""What of a meter's values is charted: the channel and the days that were asked for, drawn, and the same as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from concentrator.units import unit_symbol
from concentrator.web import chart, queries
from concentrator.web.chart import Chart, ChartValue
from concentrator.web.sources import Sources
from concentrator.web.words import is_counter, obis_words, quality_words

MOST_DAYS = 14
_USUAL_DAYS = 2
_GAP_ROWS = 500
# More lines than this are told by day.
_MOST_LINES = 200
_FIRST_YEAR = 2000


@dataclass(frozen=True, slots=True)
class DaySum:
    """One day of a long chart: how many values, how many lack, their sum (a counter's), lowest and highest."""

    day: date
    values: int
    missing: int
    total: float
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is charted: `days` days up to and with `day`. `after` is None on the newest day. None: nothing is stored."""

    channel: queries.LatestValue | None
    drawn: Chart | None
    days: int
    day: date
    before: date
    after: date | None

    @property
    def parameters(self) -> dict[str, str]:
        """Of the address that shows just this."""
        channel = {"channel": str(self.channel.channel_id)} if self.channel else {}
        return {**channel, "days": str(self.days), "day": self.day.isoformat()}

    @property
    def values(self) -> tuple[ChartValue, ...]:
        """All intervals, or values."""
        return self.drawn.values if self.drawn is not None else ()

    @property
    def day_sums(self) -> tuple[DaySum, ...]:
        """By day, where there are too many values to be read one by one; newest last. An interval ends in its day."""
        if len(self.values) <= _MOST_LINES:
            return ()
        found: dict[date, list[ChartValue]] = {}
        for one in self.values:
            found.setdefault((one.end - timedelta(seconds=1)).date(), []).append(one)
        return tuple(_sum_of(day, values) for day, values in found.items())


def _sum_of(day: date, values: Sequence[ChartValue]) -> DaySum:
    numbers = [one.value for one in values if one.value is not None]
    return DaySum(
        day,
        len(numbers),
        len(values) - len(numbers),
        sum(numbers),
        min(numbers, default=None),
        max(numbers, default=None),
    )


async def shown(
    sources: Sources, identity: str, latest: Sequence[queries.LatestValue], parameters: Mapping[str, str]
) -> Shown:
    """The chart of the parameters `channel`, `days` and `day` (the last one); what makes no sense is left out."""
    now = sources.clock.now().astimezone()
    channel = _channel(latest, parameters.get("channel", ""), sources.config.collection.profile)
    days = _days(parameters.get("days", ""))
    day = min(_day(parameters.get("day", ""), now.date()), now.date())
    drawn = await _draw(sources, identity, channel, days, day, now) if channel is not None else None
    after = min(day + timedelta(days=days), now.date()) if day < now.date() else None
    return Shown(channel, drawn, days, day, day - timedelta(days=days), after)


async def _draw(  # noqa: PLR0913, PLR0917 - one drawing's inputs
    sources: Sources, identity: str, channel: queries.LatestValue, days: int, day: date, now: datetime
) -> Chart | None:
    period_s = channel.period_s
    first = int(_midnight(day - timedelta(days=days - 1)).timestamp()) + period_s
    end = int(_midnight(day + timedelta(days=1)).timestamp())
    # Up to the last interval that any meter can have captured by now.
    due = int(now.timestamp()) - sources.config.collection.answer_delay_s
    last = max(first, due // period_s * period_s if period_s else int(now.timestamp()))
    last = min(last, end)
    points, _reason = await sources.ask(
        lambda c: queries.points(c, channel.channel_id, first - period_s, last), []
    )
    gaps, _reason = await sources.ask(lambda c: queries.gaps(c, identity, _GAP_ROWS), [])
    return chart.draw(
        points,
        first,
        last,
        period_s=period_s,
        scaler=channel.scaler,
        counter=period_s > 0 and is_counter(channel.obis),
        zone=None,
        gaps=[gap for gap in gaps if gap.profile == channel.profile],
        history_from=int(now.timestamp()) - sources.config.collection.history_days * 86_400,
    )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day).astimezone()  # noqa: DTZ001 - the box's zone is meant


def _channel(latest: Sequence[queries.LatestValue], asked: str, profile: str) -> queries.LatestValue | None:
    """The one asked for, or the first of the load profile."""
    for one in latest:
        if str(one.channel_id) == asked:
            return one
    for one in latest:
        if one.profile == profile and obis_words(one.obis):
            return one
    return latest[0] if latest else None


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 3):  # noqa: PLR2004 - digits
        return _USUAL_DAYS
    return min(MOST_DAYS, max(1, int(text)))


def _day(text: str, today: date) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return today
    return found if found.year >= _FIRST_YEAR else today


def as_rows(found: Shown) -> list[dict[str, Any]]:
    """The values as JSON tells them: a hole has the value null, and the reason where there is one."""
    return [
        {
            "from": one.begin.astimezone().isoformat(),
            "to": one.end.astimezone().isoformat(),
            "value": one.value,
            "quality": quality_words(one.quality) if one.value is not None else "",
            "reason": one.reason,
        }
        for one in found.values
    ]


def as_csv(identity: str, found: Shown) -> str:
    """The values as CSV (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(("meter", "obis", "from", "to", "value", "unit", "quality", "reason"))
    if found.channel is not None:
        unit = unit_symbol(found.channel.unit)
        for row in as_rows(found):
            value = "" if row["value"] is None else f"{row['value']:.12g}"
            writer.writerow(
                (
                    identity,
                    found.channel.obis,
                    row["from"],
                    row["to"],
                    value,
                    unit,
                    row["quality"],
                    row["reason"],
                )
            )
    return text.getvalue()
