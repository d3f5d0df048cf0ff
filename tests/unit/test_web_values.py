"""The page's values: words, the completeness matrix and the chart's geometry."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.config import CollectionSection
from concentrator.model import Answer, MeterRecord, Quality, Reading
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store
from concentrator.web import chart, words
from concentrator.web.completeness import Cell, Completeness, day_edges
from concentrator.web.queries import Point

from web_bench import IMPORT, PROFILE

NOW = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)


@pytest.fixture(autouse=True)
def box_in_utc(monkeypatch):
    """Days are those of the box's zone: whatever this machine has, these tests are told in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("obis", "expected"),
    [
        ("1-0:1.8.0*255", "Active energy import (+P), total"),
        ("1-0:2.8.1*255", "Active energy export (-P), total, tariff 1"),
        ("1-0:1.29.0*255", "Active energy import (+P), in the interval"),
        ("1-0:32.7.0*255", "Voltage L1, instantaneous"),
        ("1-0:71.7.0*255", "Current L3, instantaneous"),
        ("8-0:1.0.0*1", "Volume, stored value 1"),
        ("6-0:10.0.0*255", "Flow temperature"),
        ("0-0:97.97.0*255", "Error flags"),
        ("1-0:200.7.0*255", ""),
        ("nonsense", ""),
    ],
)
def test_obis_codes_in_words(obis, expected):
    assert words.obis_words(obis) == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_only_everything_is_a_hundred_percent_and_only_nothing_is_zero(part, whole):
    said = words.percent_words(part, whole)
    assert (said == "100 %") == (whole > 0 and part >= whole)
    assert (said == "0 %") == (whole > 0 and part == 0)


@given(st.integers(-(10**18), 10**18), st.integers(-6, 6))
def test_a_scaled_value_is_exact(value, scaler):
    text = words.scaled(value, scaler).replace("\u202f", "")
    from decimal import Decimal

    assert Decimal(text) == Decimal(value).scaleb(scaler)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s ago"),
        (-90, "in the future"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (7260, "2 h 1 min ago"),
        (90_000, "1 d 1 h ago"),
    ],
)
def test_ages(seconds, expected):
    assert words.age_words(NOW - timedelta(seconds=seconds), NOW) == expected


def test_inferred_times_are_no_doubt_but_flags_are():
    assert not words.is_doubtful(Quality.INFERRED_TIME)
    assert words.is_doubtful(Quality.INFERRED_TIME | Quality.POWER_DOWN)
    assert words.quality_words(Quality.SUSPECT | Quality.ESTIMATED) == "suspect, estimated"


# Completeness


async def matrix_of(tmp_path, ends, *, closed=(), now=NOW, meters=("M1",), history_days=2):
    store = Store(tmp_path / "store.db", SystemClock())
    for meter in meters:
        await store.save_meter(MeterRecord(meter))
    readings = tuple(Reading(IMPORT, end, 5) for end in ends)
    if readings:
        await store.store_answer(Answer(meters[0], PROFILE, readings, NOW))
    for first, last in closed:
        await store.keep_gaps(meters[0], PROFILE, (), [(to_epoch(first), to_epoch(last), "no data")])
    store.close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        return Completeness(CollectionSection(history_days=history_days)).matrix(connection, now)


def ends_of(first, last):
    return [
        first + timedelta(minutes=15 * n) for n in range(round((last - first) / timedelta(minutes=15)) + 1)
    ]


async def test_midnights_interval_belongs_to_the_day_that_ends(tmp_path):
    midnight = NOW.replace(hour=0, minute=0)
    matrix = await matrix_of(tmp_path, ends_of(midnight - timedelta(hours=23, minutes=45), midnight))
    (row,) = matrix.rows
    assert matrix.days == tuple((NOW - timedelta(days=back)).date() for back in (2, 1, 0))
    assert row.cells[1] == Cell(expected=96, stored=96, closed=0)
    assert row.cells[1].kind == "full"
    assert row.cells[2] == Cell(expected=48, stored=0, closed=0)
    assert row.cells[2].kind == "none"


async def test_the_oldest_day_is_expected_from_where_the_history_begins(tmp_path):
    matrix = await matrix_of(tmp_path, ends_of(NOW - timedelta(days=3), NOW))
    # 12:10 less an hour: the first end is 11:15, the last of that day 24:00.
    assert matrix.rows[0].cells[0] == Cell(expected=52, stored=52, closed=0)
    assert matrix.complete == 1


async def test_closed_gaps_are_told_apart_from_holes(tmp_path):
    first = NOW.replace(hour=0, minute=15)
    ends = [end for end in ends_of(first, NOW.replace(minute=0)) if not 3 <= end.hour < 5]
    closed = [(NOW.replace(hour=3, minute=0), NOW.replace(hour=3, minute=45))]
    (row,) = (await matrix_of(tmp_path, ends, closed=closed)).rows
    assert row.cells[2] == Cell(expected=48, stored=40, closed=4)
    assert (row.cells[2].missing, row.cells[2].kind) == (4, "part")


async def test_a_meter_that_never_delivered_is_a_row_of_holes_and_comes_first(tmp_path):
    matrix = await matrix_of(tmp_path, ends_of(NOW - timedelta(days=3), NOW), meters=("M1", "M2"))
    assert [row.meter for row in matrix.rows] == ["M2", "M1"]
    assert {cell.kind for cell in matrix.rows[0].cells} == {"none"}
    assert matrix.total.cells[1] == Cell(expected=192, stored=96, closed=0)


async def test_without_any_meter_there_is_no_row(tmp_path):
    assert (await matrix_of(tmp_path, (), meters=())).rows == ()


def test_the_days_of_a_clock_change_have_23_and_25_hours(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Europe/Madrid")
    time.tzset()
    try:
        zone = ZoneInfo("Europe/Madrid")
        hours = {
            day.isoformat(): (end - begin) // 3600
            for moment in (datetime(2026, 3, 30, 9, tzinfo=zone), datetime(2026, 10, 26, 9, tzinfo=zone))
            for day, begin, end in day_edges(moment, 3)
        }
    finally:
        monkeypatch.undo()
        time.tzset()
    assert hours["2026-03-29"] == 23
    assert hours["2026-10-25"] == 25
    assert hours["2026-03-30"] == 24


# Chart

START = round(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
END = START + 86_400


def drawn(points, *, counter=True, scaler=0, period_s=900):
    return chart.draw(points, START + 900, END, period_s=period_s, scaler=scaler, counter=counter, zone=UTC)


def test_a_counter_is_drawn_as_differences_and_never_over_a_hole():
    points = [Point(START + 900 * n, 1000 + 10 * n, 0, 0) for n in range(97) if n not in (40, 41)]
    picture = drawn(points)
    # Two ends lack; the interval after the hole has nothing to be compared with.
    assert (picture.shown, picture.missing) == (93, 2)
    assert (picture.lowest, picture.highest, picture.total) == (10, 10, 930)
    assert [(hole.intervals, f"{hole.begin:%H:%M}", f"{hole.end:%H:%M}") for hole in picture.holes] == [
        (2, "09:45", "10:30")
    ]
    assert picture.path.count("M") == 93


def test_values_that_are_in_doubt_are_drawn_apart():
    points = [Point(START + 900 * n, 10 * n, 0, Quality.SUSPECT if n == 5 else 0) for n in range(97)]
    picture = drawn(points)
    assert (picture.path.count("M"), picture.doubtful_path.count("M"), picture.doubtful) == (95, 1, 1)


def test_a_line_breaks_at_a_hole():
    points = [Point(START + 900 * n, 230, 0, 0) for n in range(1, 97) if n != 50]
    picture = drawn(points, counter=False, scaler=-1)
    assert picture.path.count("M") == 2
    assert (picture.lowest, picture.missing) == (23.0, 1)


@pytest.mark.parametrize("points", [[], [Point(START + 900, "text", None, 0)], [Point(START - 5, 5, 0, 0)]])
def test_nothing_to_draw_is_nothing(points):
    assert drawn(points) is None


def test_one_value_is_drawn_as_a_dot():
    picture = drawn([Point(START + 1000, 180_949, 0, 0)], counter=False, scaler=-3, period_s=0)
    assert picture.dots.startswith("M")
    assert picture.y_ticks[0].at > picture.y_ticks[-1].at


@given(
    st.lists(st.tuples(st.integers(0, 96), st.integers(-(2**63), 2**63 - 1)), max_size=60),
    st.booleans(),
    st.integers(-9, 9),
)
def test_any_values_give_a_picture_within_its_frame(values, counter, scaler):
    points = [Point(START + 900 * n, value, None, 0) for n, value in sorted(dict(values).items())]
    picture = drawn(points, counter=counter, scaler=scaler)
    if picture is None:
        return
    assert 2 <= len(picture.y_ticks) <= 12
    for tick in picture.y_ticks:
        assert chart.TOP - 1 <= tick.at <= chart.HEIGHT - chart.BOTTOM + 1
    for hole in picture.holes:
        assert chart.LEFT - 1 <= hole.x <= hole.x + hole.width <= chart.WIDTH
