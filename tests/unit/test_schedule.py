"""When tasks run: periods of seconds, and days and months of a calendar with its short and long days."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.schedule import Period, Schedule, ScheduleError

MADRID = ZoneInfo("Europe/Madrid")


@pytest.mark.parametrize("text", ["15", "d", "1 d", "-1d", "0min", "1week", "15m", "1.5h"])
def test_what_is_no_period(text):
    with pytest.raises(ScheduleError, match=r"period: got .*allowed: a number with s, min, h, d or month"):
        Period.parse(text)


def test_periods():
    assert Period.parse("90s") == Period(seconds=90)
    assert Period.parse("15min") == Period(seconds=900)
    assert Period.parse("2h") == Period(seconds=7200)
    assert Period.parse("1d") == Period(days=1)
    assert Period.parse("3month") == Period(months=3)
    assert Period.parse("").is_once


def test_before_the_first_and_once():
    first = datetime(2026, 5, 1, tzinfo=UTC)
    schedule = Schedule(first, Period())
    assert schedule.latest_due(first - timedelta(seconds=1)) is None
    assert schedule.next_due(first - timedelta(seconds=1)) == first
    assert schedule.latest_due(first + timedelta(days=400)) == first
    assert schedule.next_due(first) is None


def test_a_daily_run_stays_at_its_local_time_over_both_changes_of_season():
    schedule = Schedule(datetime(2026, 1, 1, 1, 10, tzinfo=MADRID), Period(days=1), MADRID)
    for month, day, hour in ((3, 28, 0), (3, 29, 0), (3, 30, 23), (10, 24, 23), (10, 25, 23), (10, 26, 0)):
        due = schedule.latest_due(datetime(2026, month, day, 22, 0, tzinfo=UTC))
        assert (due.hour, due.minute) == (hour, 10), (month, day)
    # A local time that the change of March skips comes an hour later, and the day has its run.
    skipped = Schedule(datetime(2026, 1, 1, 2, 30, tzinfo=MADRID), Period(days=1), MADRID)
    assert skipped.latest_due(datetime(2026, 3, 29, 12, tzinfo=UTC)) == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )


def test_a_month_without_a_31st_has_its_run_on_the_last_day():
    schedule = Schedule(datetime(2026, 1, 31, tzinfo=UTC), Period(months=1))
    runs = [schedule.run_time(number) for number in range(5)]
    assert [(run.month, run.day) for run in runs] == [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31)]
    assert schedule.latest_due(datetime(2026, 3, 1, tzinfo=UTC)) == runs[1]
    assert schedule.next_due(runs[1]) == runs[2]


@given(
    st.sampled_from(["1s", "7min", "15min", "1h", "5h", "1d", "3d", "1month", "5month"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001
    st.floats(0, 3e7),
    st.sampled_from([UTC, MADRID, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/New_York")]),
)
def test_latest_and_next_lie_around_every_moment(text, first, later, zone):
    schedule = Schedule(first.replace(tzinfo=zone), Period.parse(text), zone)
    now = first.replace(tzinfo=zone).astimezone(UTC) + timedelta(seconds=later)
    latest, following = schedule.latest_due(now), schedule.next_due(now)
    assert latest <= now < following
    assert schedule.latest_due(following) == following
    assert schedule.next_due(latest) == following
