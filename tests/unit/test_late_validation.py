"""Sum checks: intervals against registers, made when both are there; and estimates, made when asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.collection import estimation
from concentrator.collection.estimation import Method
from concentrator.collection.estimator import EstimationError, Estimator
from concentrator.collection.late_validation import LateValidator
from concentrator.collection.validation import Validator
from concentrator.model import Answer, Channel, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store

LOAD, DAILY = Obis(1, 0, 99, 1, 0), Obis(1, 0, 99, 2, 0)
START = datetime(2026, 11, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
REGISTER = Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=900)
AMOUNT = Channel(Obis(1, 0, 1, 29, 0), 30, 0, period_s=900)
DAY_REGISTER = Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=86_400)
READ_NOW = Channel(Obis(1, 0, 1, 8, 0), 30, 1)


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock(), Validator())
    await store.save_meter(MeterRecord("M1"))
    yield store
    store.close()


def series(channel, profile, values, first=START, step=QUARTER):
    readings = tuple(
        Reading(channel, first + step * n, value, 0) for n, value in enumerate(values) if value is not None
    )
    return Answer("M1", profile, readings, START + timedelta(days=15))


async def flags(store, channel, profile):
    rows = await store.read(
        lambda c: c.execute(
            "SELECT (captured_at - ?) / 900, quality FROM reading JOIN channel USING (channel_id)"
            " WHERE obis = ? AND profile = ? ORDER BY captured_at",
            (to_epoch(START), str(channel.obis), str(profile)),
        ).fetchall()
    )
    return {number: Quality(quality) for number, quality in rows}


FAILED = Quality.SUSPECT | Quality.SUM_CHECK


async def test_a_register_in_two_profiles_must_be_the_same(store):
    await store.store_answer(series(REGISTER, LOAD, [1000 + 10 * n for n in range(97)]))
    await store.store_answer(series(DAY_REGISTER, DAILY, [1000, 1960], step=timedelta(days=1)))
    late = LateValidator(store)
    assert await late.check_new() == 0
    await store.store_answer(
        series(DAY_REGISTER, DAILY, [2900], START + timedelta(days=2), timedelta(days=1))
    )
    await store.store_answer(series(REGISTER, LOAD, [1970 + 10 * n for n in range(96)], START + 97 * QUARTER))
    assert await late.check_new() == 2
    assert (await flags(store, DAY_REGISTER, DAILY))[192] == FAILED
    assert (await flags(store, REGISTER, LOAD))[192] == FAILED
    assert await late.check_new() == 0, "told once"


async def test_a_register_read_between_intervals_must_lie_between_them(store):
    await store.store_answer(series(REGISTER, LOAD, [1000, 1100, 1200]))
    right = Reading(READ_NOW, START + timedelta(minutes=20), 115, None)
    wrong = Reading(READ_NOW, START + timedelta(minutes=25), 180, None)
    registers = Obis(0, 0, 21, 0, 1)
    await store.store_answer(Answer("M1", registers, (right,), START + timedelta(days=1)))
    await store.store_answer(Answer("M1", registers, (wrong,), START + timedelta(days=1)))
    late = LateValidator(store)
    assert await late.check_new() == 1
    found = await store.read(
        lambda c: c.execute(
            "SELECT value, quality FROM reading JOIN channel USING (channel_id) WHERE scaler = 1"
            " ORDER BY captured_at"
        ).fetchall()
    )
    assert [(value, Quality(quality)) for value, quality in found] == [(115, Quality.VALID), (180, FAILED)]


async def test_amounts_must_add_up_to_what_the_register_rose_by(store):
    await store.register_destination("a")
    await store.store_answer(series(AMOUNT, LOAD, [25] * 96, START + QUARTER))
    late = LateValidator(store)
    assert await late.check_new() == 0
    sent = await store.pending("a", 0, 10)
    await store.acknowledge("a", [batch.sequence for batch in sent])
    await store.store_answer(series(DAY_REGISTER, DAILY, [10_000, 13_000], step=timedelta(days=1)))
    assert await late.check_new() == 96
    assert set((await flags(store, AMOUNT, LOAD)).values()) == {FAILED}
    # What was valid once leaves anew, and says what is wrong with it.
    again = [batch for batch in await store.pending("a", 0, 10) if batch.profile == LOAD]
    assert [len(batch.readings) for batch in again] == [96]
    assert {reading.quality for reading in again[0].readings} == {FAILED}


async def test_amounts_within_rounding_agree_and_holes_judge_nothing(store):
    await store.store_answer(series(AMOUNT, LOAD, [25] * 96, START + QUARTER))
    await store.store_answer(
        series(AMOUNT, LOAD, [25] * 50 + [None] + [90] * 45, START + QUARTER + timedelta(days=1))
    )
    await store.store_answer(series(DAY_REGISTER, DAILY, [10_000, 12_450, 19_000], step=timedelta(days=1)))
    assert await LateValidator(store).check_new() == 0


async def test_where_it_came_is_kept(store):
    await store.store_answer(series(REGISTER, LOAD, [1, 2]))
    await LateValidator(store).check_new()
    assert await store.setting("sum_checked_batch") == "1"


# Estimates


class At(SystemClock):
    def now(self):
        return START + timedelta(days=20)


async def estimate(store, first, last, method):
    return await Estimator(store, At()).fill("M1", LOAD, START + first, START + last, method)


async def test_a_gap_is_filled_evenly_and_marked(store):
    await store.store_answer(series(REGISTER, LOAD, [1000, None, None, None, 1400]))
    found = await estimate(store, timedelta(), QUARTER * 4, Method.LINEAR)
    assert (found.missing, found.estimated, found.open) == (3, 3, 0)
    rows = await store.read(
        lambda c: c.execute("SELECT value, quality FROM reading ORDER BY captured_at").fetchall()
    )
    marked = int(Quality.ESTIMATED)
    assert [value for value, _ in rows] == [1000, 1100, 1200, 1300, 1400]
    assert [quality for _, quality in rows][1:4] == [marked] * 3
    # They are still owed: what the meter says later takes their place.
    assert len(await store.stored_times("M1", LOAD, START, START + timedelta(days=1))) == 2
    await store.store_answer(series(REGISTER, LOAD, [1010], START + QUARTER))
    assert list((await flags(store, REGISTER, LOAD)).values())[:2] == [Quality.VALID, Quality.VALID]


async def test_a_gap_spreads_as_on_the_same_weekday(store):
    week = 7 * 96
    steps = [10 if n % 96 < 48 else 30 for n in range(week + 96)]
    values = [1000]
    for step in steps:
        values.append(values[-1] + step)
    lacking = list(values)
    for n in range(week + 40, week + 60):
        lacking[n] = None
    await store.store_answer(series(REGISTER, LOAD, lacking))
    await estimate(store, timedelta(days=7), timedelta(days=8), Method.LIKE_DAY)
    rows = await store.read(lambda c: c.execute("SELECT value FROM reading ORDER BY captured_at").fetchall())
    assert [value for (value,) in rows] == values


async def test_an_open_end_is_estimated_by_a_like_day_only(store):
    await store.store_answer(series(REGISTER, LOAD, [1000 + 10 * n for n in range(97)]))
    end = timedelta(days=1, hours=1)
    linear = await estimate(store, timedelta(days=1), end, Method.LINEAR)
    assert (linear.missing, linear.estimated, linear.open) == (4, 0, 4)
    like = await estimate(store, timedelta(days=1), end, Method.LIKE_DAY)
    assert (like.estimated, like.open) == (4, 0)


async def test_what_cannot_be_estimated_is_told(store):
    with pytest.raises(EstimationError, match="nothing to estimate from"):
        await estimate(store, timedelta(), timedelta(days=1), Method.LINEAR)
    await store.store_answer(series(REGISTER, LOAD, [1, 2]))
    with pytest.raises(EstimationError, match="400 days"):
        await estimate(store, timedelta(days=2), timedelta(days=1), Method.LINEAR)


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(1, 200),
    st.sampled_from(list(Method)),
    st.data(),
)
def test_an_estimated_register_never_leaves_its_bounds(low, rise, count, method, data):
    known = {0: low, (count + 1) * 900: low + rise}
    if data.draw(st.booleans()):
        value = 5
        for n in range(count + 2):
            known[n * 900 - 7 * 86_400] = value
            value += data.draw(st.integers(0, 50))
    run = [n * 900 for n in range(1, count + 1)]
    if any(at in known for at in run):
        return
    values = list(estimation.estimate_register(run, known, 900, method).values())
    assert len(values) == count
    assert [low, *values, low + rise] == sorted([low, *values, low + rise])
