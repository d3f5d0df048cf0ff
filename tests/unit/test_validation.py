"""Values are judged where they enter: what is wrong is marked, what cannot be judged is told, nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.collection.validation import Validator, parse_limits
from concentrator.config import ConfigError, ValidationSection
from concentrator.model import Answer, Channel, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.reading_quality import VALID, reading_qualities
from concentrator.store.judgement import JudgedMeter, Surroundings
from concentrator.store.store import Store

PROFILE = Obis(1, 0, 99, 1, 0)
START = datetime(2026, 11, 1, tzinfo=UTC)
IMPORT = Channel(Obis(1, 0, 1, 8, 0), unit=30, scaler=0, period_s=900)
QUARTER = timedelta(minutes=15)


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock(), Validator())
    await store.save_meter(MeterRecord("M1"))
    yield store
    store.close()


def rows(values, first=0, channel=IMPORT, profile=PROFILE):
    """An answer with values of successive quarters of an hour; None leaves one out."""
    readings = tuple(
        Reading(channel, START + QUARTER * (first + n), value, 0)
        for n, value in enumerate(values)
        if value is not None
    )
    return Answer("M1", profile, readings, START + timedelta(days=9))


async def stored(store):
    found = await store.read(
        lambda c: c.execute("SELECT captured_at, quality FROM reading ORDER BY captured_at").fetchall()
    )
    return {(at - START.timestamp()) // 900: Quality(quality) for at, quality in found}


async def qualities(store, *answers):
    for one in answers:
        await store.store_answer(one)
    return list((await stored(store)).values())


async def test_a_steady_register_is_valid(store):
    assert await qualities(store, rows([1000, 1000, 1250, 2000])) == [Quality.VALID] * 4


async def test_what_stands_alone_is_not_validated_until_a_second_value_comes(store):
    assert await qualities(store, rows([1000])) == [Quality.NOT_VALIDATED]
    second = await store.store_answer(rows([1100], first=4))
    assert (second.new, second.requalified) == (1, 1)
    assert list((await stored(store)).values()) == [Quality.VALID] * 2
    # Both leave: the first anew, without what spoke against it.
    batches = await store.pending("nobody", 0, 10)
    assert batches == []
    await store.register_destination("a")
    batches = await store.pending("a", 0, 10)
    assert [[(r.value, r.quality) for r in batch.readings] for batch in batches] == [
        [],
        [(1000, Quality.VALID), (1100, Quality.VALID)],
    ]


async def test_an_older_day_is_judged_against_the_newer_one_that_came_before(store):
    await store.store_answer(rows([5000], first=96))
    found = await qualities(store, rows([4000 + n for n in range(96)]))
    assert found == [Quality.VALID] * 97


@pytest.mark.parametrize("wrong", [9_999_999, 0])
async def test_one_wrong_value_is_marked_and_its_neighbours_are_not(store, wrong):
    reason = Quality.OUT_OF_RANGE if wrong else Quality.RUNS_BACKWARDS
    found = await qualities(store, rows([1000, 1100, wrong, 1200, 1300]))
    assert found == [Quality.VALID, Quality.VALID, Quality.SUSPECT | reason, Quality.VALID, Quality.VALID]


async def test_a_wrong_value_is_told_from_a_new_level_by_the_next_answer(store):
    suspect = Quality.SUSPECT | Quality.RUNS_BACKWARDS
    assert await qualities(store, rows([70_000_001, 70_000_100, 40])) == [
        Quality.VALID,
        Quality.VALID,
        suspect,
    ]
    # The meter was exchanged: from the step on the register counts from the new level.
    assert (await qualities(store, rows([60, 90], first=3)))[3:] == [Quality.VALID] * 2


async def test_a_first_value_that_nothing_speaks_for_is_the_one_to_blame(store):
    found = await qualities(store, rows([8_000_000, 1000, 1010, 1020]))
    assert found == [Quality.SUSPECT | Quality.RUNS_BACKWARDS, *[Quality.VALID] * 3]


async def test_a_register_that_begins_again_is_told_and_not_suspected(store):
    found = await qualities(store, rows([999_900, 999_990, 50, 120]))
    assert found == [Quality.VALID, Quality.VALID, Quality.ROLLED_OVER, Quality.VALID]


async def test_the_connection_bounds_what_can_be_drawn(tmp_path):
    settings = ValidationSection(connection_limit_w=17_250, connection_limits="BIG=400000")
    store = Store(tmp_path / "store.db", SystemClock(), Validator.from_settings(settings))
    await store.save_meter(MeterRecord("M1"))
    await store.save_meter(MeterRecord("BIG"))
    await store.save_meter(MeterRecord("M2", details={"connection_limit_w": "40000"}))
    energy = [10_000, 14_000, 24_000]
    flags = {}
    for meter in ("M1", "M2", "BIG"):
        answer = rows(energy)
        await store.store_answer(Answer(meter, PROFILE, answer.readings, answer.received_at))
        flags[meter] = await store.read(
            lambda c, meter=meter: [
                Quality(q)
                for (q,) in c.execute(
                    "SELECT quality FROM reading JOIN channel USING (channel_id) JOIN meter USING (meter_id)"
                    " WHERE identity = ? ORDER BY captured_at",
                    (meter,),
                )
            ]
        )
    assert flags["M1"] == [Quality.VALID, Quality.VALID, Quality.SUSPECT | Quality.OUT_OF_RANGE]
    assert flags["M2"] == flags["BIG"] == [Quality.VALID] * 3
    store.close()


def test_limits_are_written_as_pairs():
    assert parse_limits("A=1, B-2=30") == {"A": 1, "B-2": 30}
    with pytest.raises(ConfigError, match="METER=WATTS"):
        parse_limits("A:1")


async def test_a_hole_in_the_meters_own_rows_is_told(store):
    found = await stored_after(store, rows([1000, 1010, None, 1030, 1040]))
    assert found == {0: Quality.VALID, 1: Quality.VALID, 3: Quality.AFTER_GAP, 4: Quality.VALID}


async def stored_after(store, *answers):
    for one in answers:
        await store.store_answer(one)
    return await stored(store)


async def test_a_value_from_the_future_is_suspect(store):
    answer = rows([1000, 1010])
    early = Answer("M1", PROFILE, answer.readings, START)
    found = await stored_after(store, early)
    assert found[0] == Quality.NOT_VALIDATED
    assert found[1] == Quality.SUSPECT | Quality.CLOCK_INVALID


async def test_a_unit_that_the_quantity_cannot_have_is_suspect(store):
    volts = Channel(IMPORT.obis, unit=35, period_s=900)
    assert (await qualities(store, rows([1, 2], channel=volts))) == [
        Quality.SUSPECT | Quality.UNIT_UNEXPECTED
    ] * 2


async def test_another_scaler_goes_on_where_the_former_ended(store):
    kilo = Channel(IMPORT.obis, unit=30, scaler=3, period_s=900)
    found = await stored_after(store, rows([5_000_000, 5_001_000]), rows([5002, 5003], 2, kilo))
    assert list(found.values()) == [Quality.VALID] * 4


async def test_another_scaler_that_does_not_fit_the_former_value_is_suspect(store):
    kilo = Channel(IMPORT.obis, unit=30, scaler=3, period_s=900)
    found = await stored_after(
        store, rows([5_000_000, 5_001_000]), rows([5_002_000, 5_003_000, 5_004_000], 2, kilo)
    )
    assert Quality.UNIT_UNEXPECTED | Quality.SUSPECT in found[2]


@pytest.mark.parametrize(
    ("channel", "value", "quality"),
    [
        (Channel(Obis(1, 0, 32, 7, 0), 35, -1), 2301, Quality.VALID),
        (Channel(Obis(1, 0, 32, 7, 0), 35, 3), 2301, Quality.SUSPECT | Quality.OUT_OF_RANGE),
        (Channel(Obis(1, 0, 1, 7, 0), 27), 99_000, Quality.VALID),
        (Channel(Obis(1, 0, 1, 7, 0), 27), 200_000, Quality.SUSPECT | Quality.OUT_OF_RANGE),
        (Channel(Obis(1, 0, 1, 29, 0), 30, period_s=900), 20_000, Quality.VALID),
        (Channel(Obis(1, 0, 1, 29, 0), 30, period_s=900), 40_000, Quality.SUSPECT | Quality.OUT_OF_RANGE),
        (Channel(Obis(1, 0, 1, 29, 0), 30, period_s=900), -1, Quality.SUSPECT | Quality.OUT_OF_RANGE),
        (Channel(Obis(1, 0, 16, 8, 0), 30), 5, Quality.NOT_VALIDATED),
        (Channel(Obis(0, 0, 96, 1, 0), 255), "12345", Quality.NOT_VALIDATED),
        (Channel(Obis(0, 0, 96, 3, 10), 255), 1, Quality.NOT_VALIDATED),
    ],
)
async def test_single_values_are_judged_by_what_the_quantity_can_be(store, channel, value, quality):
    assert await qualities(store, rows([value], channel=channel)) == [quality]


async def test_gas_and_water_are_bounded_by_their_flow(store):
    litres = Channel(Obis(8, 0, 1, 0, 0), 13, -3)
    found = await stored_after(store, rows([1000, 1500, 900_000, 1600], channel=litres))
    assert list(found.values()) == [
        Quality.VALID,
        Quality.VALID,
        Quality.SUSPECT | Quality.OUT_OF_RANGE,
        Quality.VALID,
    ]


async def test_two_values_for_one_time_leave_the_first_marked(store):
    await store.store_answer(rows([1000, 1010, 1020]))
    again = await store.store_answer(rows([1000, 1011, 1020]))
    assert (again.new, again.different, again.requalified) == (0, 1, 1)
    assert (await stored(store))[1] == Quality.SUSPECT | Quality.DIFFERS
    third = await store.store_answer(rows([1011], first=1))
    assert (third.sequence, third.requalified) == (None, 0)


async def test_a_measured_value_takes_the_place_of_an_estimate_and_never_the_other_way(store):
    estimate = Reading(IMPORT, START + QUARTER, 1234, None, Quality.ESTIMATED)
    only = Answer("M1", PROFILE, (estimate,), START + timedelta(days=2))
    await store.store_answer(only)
    assert (await stored(store))[1] & Quality.ESTIMATED
    assert await store.stored_times("M1", PROFILE, START, START + timedelta(days=1)) == set()
    measured = await store.store_answer(rows([1000, 1010, 1020]))
    assert (measured.new, measured.different) == (3, 0)
    assert list((await stored(store)).values()) == [Quality.VALID] * 3
    assert (await store.store_answer(only)).sequence is None
    assert list((await stored(store)).values()) == [Quality.VALID] * 3


def test_each_flag_has_its_code():
    assert reading_qualities(Quality.VALID) == (VALID,)
    assert [one.code for one in reading_qualities(Quality.SUSPECT | Quality.OUT_OF_RANGE)] == [
        "2.5.258",
        "2.5.256",
    ]
    for flag in Quality:
        (only,) = reading_qualities(flag)
        assert only.words
        assert only != VALID


@given(
    st.lists(st.integers(-(2**40), 2**70) | st.text(max_size=4), min_size=1, max_size=40),
    st.lists(st.integers(0, 2**40), max_size=3),
)
def test_no_value_is_lost_altered_or_passed_unjudged(values, before):
    from concentrator.store.judgement import Known

    readings = [Reading(IMPORT, START + QUARTER * n, value, 0) for n, value in enumerate(values)]
    epoch = int(START.timestamp())
    known = [Known(epoch - 900 * (3 - n), value, 0, 0) for n, value in enumerate(before)]
    verdict = Validator()(JudgedMeter("M1"), IMPORT, readings, Surroundings(known), START + timedelta(days=1))
    assert [(r.captured_at, r.value) for r in verdict.readings] == [
        (r.captured_at, r.value) for r in readings
    ]
    # What is valid follows from another value that it agrees with.
    trusted = [r.value for r in verdict.readings if r.quality == Quality.VALID]
    assert all(isinstance(value, int) for value in trusted)
    if len(values) == 1 and not before:
        assert verdict.readings[0].quality != Quality.VALID
