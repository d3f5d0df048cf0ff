"""Who is next, how many at a time, and when reading rests."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.agenda import Agenda, Rank
from concentrator.collection.in_flight import InFlight
from concentrator.collection.quiet_hours import QuietHours


def test_the_urgent_go_first_then_who_did_not_fail_then_who_waits_longest():
    agenda = Agenda()
    agenda.plan("late", 3.0, Rank(2))
    agenda.plan("failed", 1.0, Rank(2, 1))
    agenda.plan("early", 2.0, Rank(2))
    agenda.plan("urgent", 4.0, Rank(1))
    agenda.plan("tomorrow", 99.0, Rank(0))
    assert agenda.take(0.5) is None
    assert agenda.next_time(0.5) == 1.0
    assert agenda.best_rank(5.0) == Rank(1)
    assert [agenda.take(5.0) for _ in range(5)] == ["urgent", "early", "late", "failed", None]
    assert agenda.next_time(5.0) == 99.0


def test_planning_anew_replaces_and_dropping_forgets():
    agenda = Agenda()
    agenda.plan("a", 1.0, Rank(1))
    assert agenda.best_rank(1.0) == Rank(1)
    agenda.plan("a", 50.0, Rank(2))
    assert agenda.take(2.0) is None
    agenda.plan("b", 1.0, Rank(1))
    agenda.drop("b")
    agenda.drop("unknown")
    assert (agenda.take(2.0), len(agenda), agenda.take(50.0), agenda.next_time(60.0)) == (None, 1, "a", None)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 10), st.integers(0, 3)), max_size=60))
def test_everyone_planned_comes_once(plans):
    agenda = Agenda()
    last = {}
    for name, at, level in plans:
        agenda.plan(name, at, Rank(level))
        last[name] = level
    taken = [agenda.take(11.0) for _ in range(len(last) + 1)]
    assert taken.pop() is None
    assert sorted(taken) == sorted(last)
    assert [last[name] for name in taken] == sorted(last.values())


def test_the_limit_falls_with_losses_and_rises_with_answers():
    flight = InFlight(8)
    flight.lost(100.0)
    flight.lost(101.0)
    assert (flight.limit, flight.falls) == (4, 1)
    flight.lost(140.0)
    flight.lost(180.0)
    flight.lost(220.0)
    assert flight.limit == 1
    for second in range(200):
        flight.answered(1.0, 300.0 + second)
    assert flight.limit == 8


def test_answers_that_take_much_longer_are_a_sign_too():
    flight = InFlight(4)
    for second in range(20):
        flight.answered(0.5, float(second))
    for second in range(40):
        flight.answered(30.0, 100.0 + second)
    assert flight.limit < 4


def test_patience_follows_what_answers_take():
    flight = InFlight(4)
    assert flight.patience_s(5.0, 30.0) == 30.0
    for _ in range(60):
        flight.answered(2.0, 1.0)
    assert flight.patience_s(5.0, 30.0) == 12.0
    assert flight.patience_s(15.0, 30.0) == 15.0


def test_quiet_hours_in_local_time_and_over_midnight():
    madrid = ZoneInfo("Europe/Madrid")
    quiet = QuietHours.parse("02:00-04:00", madrid)
    assert quiet.holds(datetime(2026, 7, 1, 0, 30, tzinfo=UTC))
    assert not quiet.holds(datetime(2026, 7, 1, 2, 0, tzinfo=UTC))
    night = QuietHours.parse("23:00-01:00", UTC)
    assert night.holds(datetime(2026, 7, 1, 23, 0, tzinfo=UTC))
    assert night.holds(datetime(2026, 7, 1, 0, 59, tzinfo=UTC))
    assert not night.holds(datetime(2026, 7, 1, 1, 0, tzinfo=UTC))
    assert not QuietHours.parse("", UTC).holds(datetime(2026, 7, 1, tzinfo=UTC))
