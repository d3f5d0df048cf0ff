"""What a meter lacks, in words: also of those that speak when they like."""

from datetime import UTC, datetime, timedelta

from concentrator.clock import SystemClock
from concentrator.collection.gap_report import gaps_of_heard
from concentrator.model import Answer, Channel, Medium, MeterRecord, MeterState, Reading
from concentrator.obis import Obis
from concentrator.store.store import Store

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
VOLUME = Channel(Obis(8, 0, 1, 0, 0, 255), 13, -3)


async def test_intervals_in_which_nothing_was_heard_are_told(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    record = MeterRecord(
        "W1", Medium.WATER, MeterState.ACTIVE, link="wmbus", first_seen=NOON - timedelta(hours=3)
    )
    await store.save_meter(record)
    heard = [NOON - timedelta(minutes=m) for m in (175, 160, 145, 130, 40, 25, 10)]
    readings = tuple(Reading(VOLUME, at, 1000 + n) for n, at in enumerate(heard))
    await store.store_answer(Answer("W1", Obis(0, 0, 24, 3, 0), readings, NOON))
    report = await gaps_of_heard(store, record, 900, timedelta(days=7), NOON)
    (profile,) = report["profiles"]
    assert (profile["expected"], profile["stored"]) == (11, 6)
    (gap,) = profile["closed"]
    assert gap == {
        "first": "2026-11-17T10:15:00+00:00", "last": "2026-11-17T11:15:00+00:00", "reason": "nothing was received",
    }  # fmt: skip
    store.close()
