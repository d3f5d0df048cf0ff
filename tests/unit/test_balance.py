"""The balance of a transformer, with everything known and with holes; and who deserves a look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.collection.balance import Feeder, amounts, balance
from concentrator.collection.balance_report import BalanceError, BalanceReport
from concentrator.collection.phases import phase_of
from concentrator.collection.suspicion import suspicions
from concentrator.config import BalanceSection, FeederSection, parse_config
from concentrator.model import (
    Answer,
    Channel,
    EventSeverity,
    Medium,
    MeterEvent,
    MeterRecord,
    Quality,
    Reading,
)
from concentrator.obis import Obis
from concentrator.simulator.load_model import LoadModel, SupervisedLoad, TamperedLoad
from concentrator.store.store import Store

P = 900
DAY_S = 86_400
PROFILE = "1-0:99.1.0*255"
START = datetime(2026, 11, 1, tzinfo=UTC)
BEGIN = int(START.timestamp())
FEEDER = Feeder("F", "S", ("A", "B"))


def registers(steps, first=0, start=100.0):
    value, found = start, {first: start}
    for number, step in enumerate(steps, 1):
        value += step
        found[first + number * P] = value
    return found


def without(series, *times):
    return {at: value for at, value in series.items() if at not in times}


def test_losses_are_what_went_out_and_did_not_arrive():
    series = {"S": registers([100, 120]), "A": registers([40, 50]), "B": registers([50, 58])}
    found = balance(FEEDER, series, P, 2 * P, P, 1.0)
    assert [one.loss for one in found.intervals] == [10, 12]
    assert all(one.judged for one in found.intervals)
    totals = found.totals()
    assert (totals["supplied_kwh"], totals["delivered_kwh"], totals["loss_kwh"]) == (0.22, 0.198, 0.022)
    assert totals["loss_pct"] == 10.0
    assert totals["coverage_pct"] == 100.0


def test_who_feeds_in_counts_against_what_was_supplied():
    series = {"S": registers([-20]), "A": registers([-50]), "B": registers([28])}
    assert balance(FEEDER, series, P, P, P, 1.0).intervals[0].loss == 2


def test_a_hole_is_bridged_bounded_and_not_judged():
    series = {
        "S": registers([100] * 4),
        "A": without(registers([40, 10, 30, 40]), 2 * P),
        "B": registers([50] * 4),
    }
    found = balance(FEEDER, series, P, 4 * P, P, 0.9)
    assert [one.judged for one in found.intervals] == [True, False, False, True]
    second = found.intervals[1]
    assert second.loss == 30
    assert second.loss_bounds == (10, 50)
    totals = found.totals()
    assert (totals["intervals_judged"], totals["loss_kwh"], totals["estimated_loss_kwh"]) == (2, 0.02, 0.08)
    assert totals["estimated_loss_low_kwh"] == 0.04
    assert totals["estimated_loss_high_kwh"] == 0.12
    assert totals["coverage_pct"] == 75.0
    # With less coverage asked for, the bridged intervals count too.
    assert all(one.judged for one in balance(FEEDER, series, P, 4 * P, P, 0.5).intervals)


def test_a_meter_of_which_nothing_is_known_leaves_nothing_to_judge():
    series = {"S": registers([100] * 2), "A": registers([40] * 2)}
    found = balance(FEEDER, series, P, 2 * P, P, 0.1)
    assert [one.unknown for one in found.intervals] == [["B"], ["B"]]
    assert found.totals()["loss_kwh"] is found.totals()["estimated_loss_kwh"] is None
    series = {"A": registers([40] * 2), "B": registers([40] * 2)}
    assert not balance(FEEDER, series, P, 2 * P, P, 0.1).judged


@given(
    st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=1, max_size=40),
    st.sets(st.integers(1, 39), max_size=20),
)
def test_the_truth_lies_within_the_bounds(steps, holes):
    losses, first, second = zip(*steps, strict=True)
    supplied = [sum(one) for one in steps]
    last = len(steps)
    gone = {number * P for number in holes if number < last}
    series = {
        "S": registers(supplied),
        "A": without(registers(first), *gone),
        "B": registers(second),
    }
    found = balance(FEEDER, series, P, last * P, P, 1.0)
    total = found.totals()
    for one, loss in zip(found.intervals, losses, strict=True):
        low, high = one.loss_bounds
        assert low - 1e-6 <= loss <= high + 1e-6
        if one.judged:
            assert one.loss == pytest.approx(loss)
    assert total["estimated_loss_kwh"] == pytest.approx(sum(losses) / 1000, abs=0.002)


# Suspicions


def loads(days, thief_since=None, count=6):
    members = [
        TamperedLoad(1, f"M{n}", 0.35, START + timedelta(days=thief_since))
        if n == 2 and thief_since is not None
        else LoadModel(1, f"M{n}")
        for n in range(count)
    ]
    supervisor = SupervisedLoad(1, "S", members, 0.04)
    slots = range(BEGIN // P, BEGIN // P + days * 96 + 1)

    def net(load):
        return {slot * P: float(load.at_slot(slot)[0] - load.at_slot(slot)[1]) for slot in slots}

    def imported(load):
        return {slot * P: float(load.at_slot(slot)[0]) for slot in slots}

    return {"S": net(supervisor), **{f"M{n}": net(load) for n, load in enumerate(members)}}, {
        f"M{n}": imported(load) for n, load in enumerate(members)
    }


def suspects(days, events=(), phases=None, **options):
    series, imports = loads(days, **options)
    feeder = Feeder("F", "S", tuple(name for name in series if name != "S"))
    last = BEGIN + days * DAY_S
    found = balance(feeder, series, BEGIN + P, last, P, 1.0)
    members = {name: amounts(imports[name], BEGIN + P, last, P) for name in feeder.members}
    return suspicions(found, members, list(events), phases or {}, P)


def event(kind, severity=EventSeverity.ALARM):
    return MeterEvent(Obis(0, 0, 99, 98, 1), START, 40, 0, "fraud", severity, kind, kind)


def test_an_honest_feeder_has_nobody_to_look_at():
    assert suspects(8) == []


def test_the_thief_is_found_by_the_step_and_by_the_losses():
    found = suspects(8, thief_since=4)
    assert found[0].meter == "M2"
    words = "; ".join(found[0].reasons)
    assert "consumption fell by" in words
    assert "losses rose by" in words
    assert len(found) == 1


def test_a_thief_from_the_beginning_is_found_by_what_moves_together():
    found = suspects(8, thief_since=-400)
    assert found[0].meter == "M2"
    assert "losses move with its consumption" in found[0].reasons[0]


def test_events_weigh_by_what_they_tell():
    found = suspects(
        3,
        [
            ("M1", event("cover")),
            ("M1", event("cover")),
            ("M3", event("magnet")),
            ("M4", event("cover", EventSeverity.INFO)),
            ("M5", event("clock")),
            ("nobody", event("magnet")),
        ],
    )
    assert [one.meter for one in found] == ["M3", "M1"]
    assert "cover opened 2 times" in found[1].reasons[0]


def test_a_meter_on_another_phase_than_registered_is_told():
    found = suspects(3, phases={"M1": ("L1", "L2"), "M2": ("L1", "L1"), "M3": ("", "L3")})
    assert [(one.meter, one.reasons) for one in found] == [
        ("M1", ["phase mismatch: registered on L1, seen on L2"])
    ]


@pytest.mark.parametrize(
    ("half", "difference", "phase"),
    [
        (10_000, 0, "L1"),
        (10_000, 6667, "L2"),
        (10_000, 3333, "L3"),
        (10_000, 9990, "L1"),
        (10_000, 5000, ""),
        (0, 5, ""),
    ],
)
def test_zero_crossings_tell_the_phase(half, difference, phase):
    assert phase_of(half, difference) == phase


# From the store


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    for number, (name, values) in enumerate(loads(3)[0].items()):
        await store.save_meter(MeterRecord(name, medium=Medium.ELECTRICITY, link_address=f"{number:012x}"))
        channel = Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=P)
        readings = tuple(
            Reading(channel, datetime.fromtimestamp(at, UTC), round(value) + 10**6, 0)
            for at, value in values.items()
        )
        await store.store_answer(Answer(name, Obis.parse(PROFILE), readings, START + timedelta(days=4)))
    yield store
    store.close()


def report(store, settings=BalanceSection(supervisor="S"), feeders=()):  # noqa: B008 - frozen
    return BalanceReport(store, SystemClock(), settings, feeders, PROFILE)


async def test_a_day_of_the_transformer_from_what_is_stored(store):
    found = await report(store).day((START + timedelta(days=1)).date())
    (feeder,) = found["feeders"]
    assert (feeder["supervisor"], feeder["members"], feeder["suspicions"]) == ("S", 6, [])
    assert feeder["totals"]["intervals_judged"] == 96
    assert len(feeder["intervals"]) == 96
    assert 0 < feeder["totals"]["loss_pct"] < 10


async def test_what_is_suspect_or_estimated_counts_as_missing(store):
    marked = int(Quality.ESTIMATED)
    await store._database.write(
        lambda c: c.execute(
            "UPDATE reading SET quality = ? WHERE captured_at = ? AND channel_id IN (SELECT channel_id FROM channel"
            " JOIN meter USING (meter_id) WHERE identity IN ('M0', 'M1'))",
            (marked, BEGIN + DAY_S + 40 * P),
        )
    )
    found = await report(store).day((START + timedelta(days=1)).date())
    totals = found["feeders"][0]["totals"]
    assert totals["intervals_judged"] == 94
    assert totals["estimated_loss_low_kwh"] < totals["estimated_loss_kwh"] < totals["estimated_loss_high_kwh"]


async def test_feeders_share_the_meters_and_the_transformer_has_the_feeders(store):
    feeders = (FeederSection("east", "M0", "M1, M2"), FeederSection("west", "M3", ""))
    found = await report(store, BalanceSection(supervisor="S"), feeders).feeders()
    assert [(one.name, one.members) for one in found] == [
        ("transformer", ("M0", "M3")),
        ("east", ("M1", "M2")),
        ("west", ("M4", "M5")),
    ]


async def test_without_a_supervisor_it_is_told_what_to_set(store):
    with pytest.raises(BalanceError, match=r"balance\.supervisor"):
        await report(store, BalanceSection()).day(START.date())


def test_feeders_are_configured_by_name():
    config = parse_config('[[feeder]]\nname = "east"\nsupervisor = "S1"\nmembers = "A, B"\n')
    assert config.feeder[0].members == "A, B"
