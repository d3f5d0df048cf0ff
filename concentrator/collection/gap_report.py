"""What a meter lacks, and why: the gap book of its profiles in words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from concentrator.collection.gaps import IntervalCalendar
from concentrator.collection.registry import CollectedMeter
from concentrator.model import MeterRecord, MeterState
from concentrator.store.readings import from_epoch
from concentrator.store.store import Store


async def gaps_of(store: Store, meter: CollectedMeter) -> dict[str, Any]:
    """Of each profile what is expected, there, closed with its reason, and still tried, with times as interval ends."""
    profiles: list[dict[str, Any]] = []
    for obis, book in meter.profiles.items():
        still_open = await store.open_gaps(meter.identity, obis)
        closed = await store.closed_gaps(meter.identity, obis)
        profiles.append(
            {
                "profile": str(obis),
                "expected": book.expected,
                "stored": book.stored,
                "closed": [
                    {"first": _time(first), "last": _time(last), "reason": reason}
                    for first, last, reason in closed
                ],
                "open": [
                    {
                        "first": _time(gap.first_at),
                        "last": _time(gap.last_at),
                        "reason": gap.reason,
                        "tries": gap.tries,
                        "next_try": _time(gap.next_try_at),
                    }
                    for gap in still_open
                ],
                "missing": max(0, book.expected - book.stored - book.closed),
            }
        )
    return {"meter": meter.identity, "why_missing": _why(meter), "profiles": profiles}


async def gaps_of_heard(
    store: Store, record: MeterRecord, interval_s: int, history: timedelta, now: datetime
) -> dict[str, Any]:
    """The same of a meter that speaks when it likes, or is read at a local port: each `interval_s` owes a reading.

    What was not heard never comes; the last interval is still open.
    """
    since = max(now - history, record.first_seen or now)
    first, last = int(since.timestamp()) // interval_s + 1, int(now.timestamp()) // interval_s
    expected = range(first, last)
    moments = await store.reading_times(record.identity, since, now)
    heard = {at // interval_s for at in moments}
    missing = [(number + 1) * interval_s for number in expected if number not in heard]
    spans = IntervalCalendar(interval_s).spans(missing, len(missing))
    return {
        "meter": record.identity,
        "why_missing": record.reason or record.state.value,
        "profiles": [
            {
                "profile": f"a reading each {interval_s} s",
                "expected": len(expected),
                "stored": len(expected) - len(missing),
                "closed": [
                    {"first": _time(begin), "last": _time(end), "reason": "nothing was received"}
                    for begin, end in reversed(spans)
                ],
                "open": [],
                "missing": 0,
            }
        ],
    }


def _why(meter: CollectedMeter) -> str:
    """Why what is missing and was not asked for in vain has not come yet."""
    if meter.record.state is MeterState.ACTIVE and meter.address is not None:
        return "not read yet: its turn comes" if not meter.record.reason else meter.record.reason
    return (
        f"{meter.record.state.value}: {meter.record.reason}"
        if meter.record.reason
        else meter.record.state.value
    )


def _time(seconds: int) -> str:
    return from_epoch(seconds).isoformat()
