"""Whether a meter's intervals and its registers tell the same story.

Pure. Two channels of one meter are compared: the same register in two profiles (a load profile and a daily one, or a
register that was read between two intervals), or the amounts of intervals with the register that they add up to.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from concentrator.collection.quantities import Kind, quantity_of
from concentrator.model import Channel, Quality
from concentrator.store.judgement import Known
from concentrator.store.series import Requalification, StoredChannel

# Registers further apart say nothing of a value between them, and amounts are not added up over more.
_LONGEST_S = 32 * 86_400
_NOT_TRUSTED = int(Quality.ESTIMATED | Quality.OUT_OF_RANGE | Quality.RUNS_BACKWARDS | Quality.WRONG_DIGITS)
_OTHER_SUSPICIONS = int(
    Quality.OUT_OF_RANGE | Quality.RUNS_BACKWARDS | Quality.UNIT_UNEXPECTED | Quality.DIFFERS
)
_FAILED = int(Quality.SUM_CHECK | Quality.SUSPECT)
# Of the profile status of the European companion standards: the data are not valid.
_STATUS_NOT_VALID = 0x04

Verdicts = dict[int, bool]


def pairs(channels: Sequence[StoredChannel]) -> list[tuple[StoredChannel, StoredChannel]]:
    """The channels of one meter that can be held against each other, the one with the shorter period first."""
    found: list[tuple[StoredChannel, StoredChannel]] = []
    for one in channels:
        for other in channels:
            kind, against = quantity_of(one.channel).kind, quantity_of(other.channel).kind
            if against is not Kind.REGISTER or one.channel.unit != other.channel.unit:
                continue
            if kind is Kind.INTERVAL and one.channel.period_s:
                if one.channel.obis._replace(d=other.channel.obis.d) == other.channel.obis:
                    found.append((one, other))
            elif (
                kind is Kind.REGISTER
                and one.profile != other.profile
                and one.channel.obis == other.channel.obis
                and _rank(one) < _rank(other)
            ):
                found.append((one, other))
    return found


def _rank(stored: StoredChannel) -> tuple[int, int]:
    return (stored.channel.period_s or _LONGEST_S, stored.channel_id)


def check(
    one: StoredChannel, values: Sequence[Known], other: StoredChannel, against: Sequence[Known]
) -> list[Requalification]:
    """The new flags of both channels, where they change."""
    if quantity_of(one.channel).kind is Kind.INTERVAL:
        return _changes(one, values, amounts_against_register(one.channel, values, other.channel, against))
    mine, theirs = register_against_register(one.channel, values, other.channel, against)
    return _changes(one, values, mine) + _changes(other, against, theirs)


def register_against_register(
    one: Channel, values: Sequence[Known], other: Channel, against: Sequence[Known]
) -> tuple[Verdicts, Verdicts]:
    """Each value of the second channel must be the first's of that time, or lie between those around it."""
    series = _numbers(one, values)
    times = [at for at, _ in series]
    tolerance = 10.0**one.scaler + 10.0**other.scaler
    mine: Verdicts = {}
    theirs: Verdicts = {}
    for at, value in _numbers(other, against):
        place = bisect_left(times, at)
        if place < len(times) and times[place] == at:
            mine[at] = theirs[at] = abs(series[place][1] - value) <= tolerance
        elif 0 < place < len(times) and times[place] - times[place - 1] <= _LONGEST_S:
            low, high = series[place - 1][1], series[place][1]
            if low <= high:
                theirs[at] = low - tolerance <= value <= high + tolerance
    return mine, theirs


def amounts_against_register(
    one: Channel, values: Sequence[Known], other: Channel, against: Sequence[Known]
) -> Verdicts:
    """The amounts between two readings of the register must add up to what it rose by; holes judge nothing."""
    period_s = one.period_s
    amounts = dict(_numbers(one, values))
    verdicts: Verdicts = {}
    for (begin, low), (end, high) in pairwise(_numbers(other, against)):
        times = range(begin + period_s, end + 1, period_s)
        if (end - begin) % period_s or begin % period_s or not 0 < end - begin <= _LONGEST_S:
            continue
        if any(at not in amounts for at in times):
            continue
        total = sum(amounts[at] for at in times)
        # Each amount and both registers are cut to their last digit.
        tolerance = len(times) * 10.0**one.scaler + 2 * 10.0**other.scaler
        verdicts |= dict.fromkeys(times, abs(total - (high - low)) <= tolerance)
    return verdicts


def _numbers(channel: Channel, values: Sequence[Known]) -> list[tuple[int, float]]:
    unit = 10.0**channel.scaler
    return [
        (row.at, row.value * unit)
        for row in values
        if isinstance(row.value, int) and not row.quality & _NOT_TRUSTED
    ]


def _changes(stored: StoredChannel, values: Sequence[Known], verdicts: Verdicts) -> list[Requalification]:
    found: list[Requalification] = []
    for row in values:
        if row.at not in verdicts:
            continue
        flags = row.quality & ~int(Quality.NOT_VALIDATED)
        if not verdicts[row.at]:
            flags |= _FAILED
        elif flags & int(Quality.SUM_CHECK):
            flags &= ~int(Quality.SUM_CHECK)
            if not flags & _OTHER_SUSPICIONS and not (row.status or 0) & _STATUS_NOT_VALID:
                flags &= ~int(Quality.SUSPECT)
        if flags != row.quality:
            found.append(Requalification(stored.channel_id, row.at, flags))
    return found
