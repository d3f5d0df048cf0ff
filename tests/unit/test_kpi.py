"""The figures of a day: counted while it lasts, fixed at their deadlines, explained where they are bad."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from concentrator.collection.kpi import MeterFacts, VisitLog, probable_reason, until_deadline_s, worst_meters
from concentrator.collection.kpi_keeper import KpiKeeper
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.collection.topology import Topology
from concentrator.model import Answer, Channel, MeterRecord, MeterState, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.kpi import MeterDay
from concentrator.store.store import Store
from plc.network import NetworkStarted, NodeJoined, NodeLeft

PROFILE = Obis(1, 0, 99, 1, 0)
IMPORT = Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=900)
DAY = datetime(2026, 11, 18, tzinfo=UTC)
EUIS = {"M1": b"\x02\xaa\0\0\0\1", "M2": b"\x02\xaa\0\0\0\2"}


class At:
    def __init__(self, moment):
        self.moment = moment

    def now(self):
        return self.moment

    def monotonic(self):
        return self.moment.timestamp()


class House:
    """Two meters, a store, and a clock that a test moves."""

    def __init__(self, path):
        self.clock = At(DAY + timedelta(hours=1))
        self.store = Store(path, self.clock)
        self.registry, self.topology, self.visits = Registry(), Topology(), VisitLog()
        for number, (name, eui) in enumerate(EUIS.items()):
            record = MeterRecord(name, link_address=eui.hex(), first_seen=DAY, state=MeterState.ACTIVE)
            self.registry.add(CollectedMeter(record, number, identified=True))
        self.keeper = self.new_keeper()

    def new_keeper(self):
        return KpiKeeper(self.store, self.clock, self.registry, self.topology, self.visits, str(PROFILE))

    async def deliver(self, meter, first, count, quality=Quality.VALID):
        readings = tuple(
            Reading(IMPORT, DAY + timedelta(minutes=15 * n), n, 0, quality)
            for n in range(first, first + count)
        )
        await self.store.store_answer(Answer(meter, PROFILE, readings, self.clock.now()))

    async def count_at(self, **after):
        self.clock.moment = DAY + timedelta(**after)
        await self.keeper.count()
        return {one["day"]: one for one in await self.keeper.days(5)}


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path / "store.db")
    for meter in house.registry:
        await house.store.save_meter(meter.record)
    yield house
    house.store.close()


async def test_completeness_is_fixed_at_each_deadline(house):
    await house.deliver("M1", 1, 96)
    await house.deliver("M2", 1, 48)
    found = (await house.count_at(days=1, hours=8))["2026-11-18"]
    assert (found["completeness_pct"], found["completeness_0800_pct"]) == (75.0, 75.0)
    assert found["completeness_d1_pct"] is found["completeness_d3_pct"] is None
    await house.deliver("M2", 49, 24)
    await house.count_at(days=1, hours=20)
    found = (await house.count_at(days=2))["2026-11-18"]
    assert (found["completeness_0800_pct"], found["completeness_d1_pct"]) == (75.0, 87.5)
    await house.deliver("M2", 73, 24)
    found = (await house.count_at(days=4, minutes=1))["2026-11-18"]
    assert (found["completeness_d1_pct"], found["completeness_pct"]) == (87.5, 100.0)
    assert found["completeness_d3_pct"] == 87.5, "what came a minute late came late"


async def test_estimates_do_not_make_a_day_complete(house):
    await house.deliver("M1", 1, 96)
    await house.deliver("M2", 1, 96, Quality.ESTIMATED)
    assert (await house.count_at(days=1, hours=8))["2026-11-18"]["completeness_pct"] == 50.0


async def test_today_owes_only_what_has_ended(house):
    await house.deliver("M1", 1, 8)
    await house.deliver("M2", 1, 4)
    # M2's eighth has just ended: it is not owed yet; M1's is there.
    assert (await house.count_at(hours=2))["2026-11-18"]["completeness_pct"] == 80.0
    assert (await house.count_at(hours=2.2))["2026-11-18"]["completeness_pct"] == 75.0


async def test_visits_are_counted_with_their_tries_and_their_time(house):
    for began, ended, succeeded, retry in (
        (0, 10, True, False),
        (5, 20, False, False),
        (30, 40, False, True),
        (50, 60, True, True),
    ):
        if began != 5:
            house.visits.began(began)
        if began == 0:
            house.visits.began(5)
        house.visits.ended("M1", began, ended, succeeded=succeeded, retry=retry)
    found = (await house.count_at(hours=1))["2026-11-18"]
    assert (found["visits"], found["first_try_pct"], found["retries"]) == (4, 50.0, 2)
    # Two visits side by side hold the line once.
    assert found["busy_s"] == 40.0
    assert found["airtime_pct"] == pytest.approx(100 * 40 / 3600, abs=0.001)


async def test_figures_outlive_a_restart(house):
    house.visits.began(0)
    house.visits.ended("M1", 0, 10, succeeded=True, retry=False)
    await house.count_at(hours=1)
    house.keeper = house.new_keeper()
    await house.keeper.load()
    house.visits.began(0)
    house.visits.ended("M1", 0, 5, succeeded=True, retry=True)
    found = (await house.count_at(hours=2))["2026-11-18"]
    assert (found["visits"], found["retries"], found["busy_s"]) == (2, 1, 15.0)


async def test_reachability_is_that_of_the_network_by_hours(house):
    start = DAY.timestamp()
    for event in (
        NetworkStarted(b"\x02", "modem"),
        *(NodeJoined(e, n, "") for n, e in enumerate(EUIS.values())),
    ):
        house.topology.feed(event, start)
    house.topology.feed(NodeLeft(EUIS["M2"], 1, "gone"), start + 1800)
    house.topology.advance(start + 3 * 3600)
    found = (await house.count_at(hours=3))["2026-11-18"]
    assert found["reachability_pct"] == pytest.approx((75 + 50 + 50) / 3, abs=0.01)
    assert found["reachability_lowest_pct"] == 50.0
    house.topology.advance(start + 86_400)
    await house.count_at(days=1, hours=1)
    (day,) = house.keeper.availability()["M2"]
    assert (day["minutes"], day["changes"]) == (30.0, 2)


async def test_a_day_before_the_meters_came_is_not_judged(house):
    await house.count_at(hours=5)
    assert list(await house.count_at(hours=6)) == ["2026-11-18"]


def test_deadlines_wake_the_count():
    assert until_deadline_s(7 * 3600) == 3600
    assert until_deadline_s(8 * 3600) == 16 * 3600


def row(**changes):
    return MeterDay("M1", **{"expected": 96, "stored": 10, **changes})


@pytest.mark.parametrize(
    ("facts", "day", "words"),
    [
        ({"state": MeterState.KEY_MISSING, "reason": "no keys for meter M1"}, row(), "keys: no keys"),
        ({"state": MeterState.REFUSED, "reason": "result 1"}, row(), "refuses us: result 1"),
        ({"reason": "without power since noon"}, row(), "without power since noon"),
        ({"reachable": False, "reason": "left the network: silent"}, row(), "no route: left the network"),
        ({"availability_pct": 1.0}, row(), "no route"),
        ({"changes": 9, "availability_pct": 80.0}, row(), "comes and goes: 9 times"),
        ({"availability_pct": 40.0}, row(), "seldom there"),
        ({"clock_offset_s": -4000.0}, row(), "clock: -4000 s"),
        ({}, row(closed=86), "no data in the meter"),
        ({"weak_signal": True}, row(retries=3), "weak signal"),
        ({"failures": 2, "reason": "no answer"}, row(), "does not answer: no answer"),
        ({}, row(), "being read"),
    ],
)
def test_the_reason_is_told_in_words(facts, day, words):
    assert words in probable_reason(MeterFacts("M1", **{"state": MeterState.ACTIVE, **facts}), day)


def test_the_worst_come_first():
    rows = [MeterDay(name, expected=96, stored=stored) for name, stored in (("A", 90), ("B", 0), ("C", 96))]
    facts = {name: MeterFacts(name, MeterState.ACTIVE) for name in "ABC"}
    assert [one["meter"] for one in worst_meters(rows, facts, 5)] == ["B", "A"]


@pytest.mark.parametrize("state", [MeterState.REMOVED, MeterState.FOREIGN, MeterState.DISCOVERED])
async def test_meters_that_are_left_alone_or_not_met_yet_owe_nothing(house, state):
    await house.deliver("M1", 1, 96)
    other = next(meter for meter in house.registry if meter.identity == "M2")
    other.record.state = state
    if state is MeterState.DISCOVERED:
        other.record.registration.manual, other.address = True, None
    figures = await house.count_at(hours=25)
    assert figures["2026-11-18"]["completeness_pct"] == 100.0
    assert "M2" not in [one["meter"] for one in house.keeper.latest["worst"]]
