"""Outages from signs: one of a feeder is one, whoever tells of it and in whatever order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.interruptions import Evidence, Scale, Sign, reconstruct

METERS = [f"M{n}" for n in range(10)]
START = 1_000_000.0


def signs(sign, meters, at, spread=5.0):
    return [Evidence(at + n * spread, meter, sign) for n, meter in enumerate(meters)]


def test_a_feeder_that_fails_is_one_outage():
    evidence = signs(Sign.DOWN, METERS[:6], START) + signs(Sign.UP, METERS[:6], START + 600)
    (outage,) = reconstruct(evidence, dict.fromkeys(METERS, "F1"), 10)
    assert (outage.scale, outage.count, outage.feeders) == (Scale.FEEDER, 6, ["F1"])
    assert abs(outage.start - START) <= 30
    assert outage.end == START + 625
    assert outage.meter_minutes == 60


def test_single_meters_stay_single():
    evidence = [
        Evidence(START, "M1", Sign.DOWN),
        Evidence(START + 60, "M1", Sign.UP),
        Evidence(START + 5000, "M2", Sign.DOWN),
    ]
    first, second = reconstruct(evidence, {}, 10)
    assert (first.scale, first.meters, first.end) == (Scale.METER, ["M1"], START + 60)
    assert (second.meters, second.end) == (["M2"], None)


def test_a_last_gasp_and_the_entry_of_the_log_are_one():
    evidence = [
        Evidence(START, "M1", Sign.DOWN),
        Evidence(START + 2, "M1", Sign.DOWN),
        Evidence(START + 900, "M1", Sign.JOINED),
        Evidence(START + 600, "M1", Sign.UP),
    ]
    (outage,) = reconstruct(evidence, {}, 10)
    assert (outage.start, outage.end) == (START, START + 600)


def test_without_an_entry_the_network_tells_the_end():
    evidence = [Evidence(START, "M1", Sign.DOWN), Evidence(START + 900, "M1", Sign.JOINED)]
    assert reconstruct(evidence, {}, 10)[0].end == START + 900


def test_who_left_with_the_others_counts_among_them():
    evidence = signs(Sign.DOWN, METERS[:2], START) + signs(Sign.LEFT, METERS[:5], START + 120)
    (outage,) = reconstruct(evidence, {}, 10)
    assert (outage.scale, outage.count, outage.silent) == (Scale.FEEDER, 5, METERS[2:5])
    assert not outage.suspected


def test_nodes_that_go_together_are_suspected_and_single_ones_are_not():
    together = signs(Sign.LEFT, METERS[:5], START, 20) + signs(Sign.JOINED, METERS[:5], START + 1000)
    (outage,) = reconstruct(together, {}, 10)
    assert (outage.suspected, outage.scale, outage.end) == (True, Scale.FEEDER, START + 1020)
    apart = signs(Sign.LEFT, METERS[:5], START, 2000)
    assert reconstruct(apart, {}, 10) == []
    assert reconstruct(signs(Sign.LEFT, METERS[:2], START), {}, 10) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_signs_does_not_matter(seed):
    evidence = (
        signs(Sign.DOWN, METERS[:6], START)
        + signs(Sign.LEFT, METERS[:7], START + 200)
        + signs(Sign.UP, METERS[:6], START + 900)
        + signs(Sign.JOINED, METERS[:7], START + 1500)
    )
    expected = reconstruct(evidence, {}, 10)
    random.Random(seed).shuffle(evidence)
    assert reconstruct(evidence, {}, 10) == expected
    assert len(expected) == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.sampled_from(METERS), st.sampled_from(list(Sign))).map(
            lambda one: Evidence(*one)
        ),
        max_size=60,
    )
)
def test_no_outage_ends_before_it_began_or_counts_a_meter_twice(evidence):
    for outage in reconstruct(evidence, {}, 10):
        assert outage.end is None or outage.end >= outage.start - 120
        names = [*outage.meters, *outage.silent]
        assert len(names) == len(set(names)) == outage.count
