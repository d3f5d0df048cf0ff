"""Which intervals are owed, by calendar, and what becomes of those that a meter does not give."""

from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.gaps import (
    NO_DATA,
    ClosedGap,
    IntervalCalendar,
    OpenGap,
    asked_in_vain,
    due_times,
    joined,
    missing_times,
    without,
)

QUARTER = IntervalCalendar(900)
DAY = 86_400


def test_intervals_end_on_multiples_of_the_period():
    assert list(QUARTER.expected(1, 2700)) == [900, 1800, 2700]
    assert QUARTER.place(1795) == 1800
    assert QUARTER.place(1800 + 61) is None
    # India is five and a half hours ahead: its hours end at half past in UTC.
    assert list(IntervalCalendar(3600, -330).expected(0, 7200)) == [1800, 5400]


def test_days_end_at_local_midnight_in_both_seasons():
    madrid = IntervalCalendar(DAY, -60)
    assert madrid.expected(0, 3 * DAY)[0] == DAY - 3600
    # In summer midnight is an hour earlier in UTC, and it is the same day's.
    assert madrid.place(DAY - 7200) == DAY - 3600
    assert madrid.place(DAY // 2) is None


def test_missing_is_what_is_neither_stored_nor_closed():
    expected = QUARTER.expected(900, 9000)
    closed = [ClosedGap(1800, 2700, "x"), ClosedGap(8100, 90000, "y")]
    assert missing_times(expected, {900, 4500}, closed) == [3600, 5400, 6300, 7200]


def test_spans_are_newest_first_and_no_longer_than_asked():
    assert QUARTER.spans([900, 1800, 3600, 4500, 5400], 2) == [(4500, 5400), (3600, 3600), (900, 1800)]


def test_what_was_asked_for_in_vain_rests_longer_each_time():
    now = 100_000
    gaps, rests = [], []
    for _ in range(4):
        gaps = asked_in_vain(QUARTER, [900, 1800, 3600], gaps, now)
        assert [(gap.first, gap.last, gap.reason) for gap in gaps] == [
            (3600, 3600, NO_DATA),
            (900, 1800, NO_DATA),
        ]
        assert due_times([900, 1800, 2700, 3600], gaps, now) == [2700]
        rests.append(gaps[0].next_try - now)
        now = gaps[0].next_try
        assert due_times([900, 3600], gaps, now) == [900, 3600]
    assert rests == [3600, 6 * 3600, DAY, DAY]
    assert [gap.tries for gap in gaps] == [4, 4]


def test_what_came_is_taken_out_of_an_open_gap():
    gap = OpenGap(900, 4500, NO_DATA, 2, 7)
    assert without(QUARTER, [gap], {2700}) == [
        OpenGap(900, 1800, NO_DATA, 2, 7),
        OpenGap(3600, 4500, NO_DATA, 2, 7),
    ]
    assert without(QUARTER, [gap], set(range(900, 5400, 900))) == []


@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)), st.integers(1, 20))
def test_spans_and_joining_lose_nothing(times, others, longest):
    ends = {900 * number for number in times}
    spans = QUARTER.spans(ends, longest)
    assert {at for first, last in spans for at in QUARTER.expected(first, last)} == ends
    assert all((last - first) // 900 < longest for first, last in spans)
    closed = [ClosedGap(at, at, "a") for at in ends] + [
        ClosedGap(900 * n, 900 * n, "b") for n in others - times
    ]
    covered = {
        (at, gap.reason) for gap in joined(closed, 900) for at in QUARTER.expected(gap.first, gap.last)
    }
    assert covered == {(gap.first, gap.reason) for gap in closed}


@given(st.sampled_from([300, 900, 1800, 3600, 7200, DAY]), st.integers(-840, 840), st.integers(0, 10**9))
def test_every_expected_time_is_its_own_place(period, quarter_hours, begin):
    calendar = IntervalCalendar(period, quarter_hours // 15 * 15)
    for at in calendar.expected(begin, begin + 3 * period):
        assert calendar.place(at) == at
        assert calendar.place(at + calendar.tolerance_s) == at
        assert calendar.place(at - calendar.tolerance_s) == at
