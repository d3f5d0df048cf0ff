"""The list of meters, what a chart tells of each value, and the nodes that are searched for."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from concentrator.collection.key_states import KeyStates
from concentrator.collection.keyring import Keyring
from concentrator.model import MeterRecord, MeterState
from concentrator.web.application import make_page
from concentrator.web.chart import BEFORE_HISTORY, draw
from concentrator.web.meters import MeterQuery, MeterView, as_csv, select
from concentrator.web.network_marks import marks_svg
from concentrator.web.network_views import NetworkQuery
from concentrator.web.queries import Gap, Point
from concentrator.web.topology import Place, branch, matching, trace
from concentrator.web.topology import draw as draw_network
from concentrator.web.translations import english

import web_bench
from web_bench import HOSTILE, METERS, WATER, FakeService

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def service(tmp_path):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    service.status["meters"].append(
        web_bench.plc_meter(WATER, link="wmbus", medium="water", signal=-97.0, keys="present", expected=0)
    )
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(tmp_path, service):
    with TestClient(
        make_page(web_bench.config(tmp_path)).application, base_url="http://127.0.0.1:8080"
    ) as client:
        yield client


def identities(answer) -> list[str]:
    return re.findall(r'data-part="meter-([\w-]+)"', answer.text)


# The list


def test_the_age_of_the_last_value_is_that_of_the_store_whatever_the_last_contact(client):
    told = {one["identity"]: one for one in client.get("/api/meters").json()["meters"]}
    newest = datetime.fromisoformat(told[METERS[0]]["last_value"])
    assert abs(newest - web_bench.latest_end()) <= timedelta(minutes=15)
    assert told[METERS[2]]["last_value"] is None
    assert datetime.fromisoformat(told[WATER]["last_value"]) < web_bench.now() - timedelta(minutes=4)
    assert identities(client.get("/meters?sort=value"))[0] == METERS[2]
    assert identities(client.get("/meters?sort=-value"))[-1] == METERS[2]


def test_keys_are_shown_filtered_and_never_told(service, client):
    for one, state in zip(service.status["meters"], ("missing", "present", "none", "present"), strict=True):
        one["keys"] = state
    assert identities(client.get("/meters?keys=missing")) == [METERS[0]]
    assert sorted(identities(client.get("/meters?keys=present"))) == sorted([METERS[1], WATER])
    assert len(identities(client.get("/meters?keys=odd"))) == 4
    assert "not needed" in client.get(f"/meters/{METERS[2]}").text


def test_the_state_of_keys_follows_the_key_ring_and_the_meter():
    class Stopped:
        def monotonic(self):
            return 0.0

    ring = Keyring({"A": object()}, {"12345678": b""})
    states = KeyStates(ring, Stopped())
    assert states.of(MeterRecord("A")) == "present"
    assert states.of(MeterRecord("B")) == "none"
    assert states.of(MeterRecord("ODC-12345678-01-07", link="wmbus")) == "present"
    assert states.of(MeterRecord("B", state=MeterState.KEY_MISSING)) == "missing"
    assert states.of(MeterRecord("A", state=MeterState.REFUSED)) == "wrong"


def test_the_list_below_a_node_is_its_branch(service, client):
    for one, (address, parent) in zip(
        service.status["meters"], (("0a", ""), ("0b", "0a"), ("0c", "0b"), ("", "")), strict=True
    ):
        one |= {"link_address": address, "parent": parent}
    assert sorted(identities(client.get("/meters?below=0b"))) == sorted(METERS[1:])
    assert len(identities(client.get("/meters?below=0a"))) == 3
    assert identities(client.get("/meters?below=ff")) == []


def test_old_values_are_found(service, client):
    view = MeterView.from_status(web_bench.plc_meter("A"), NOW - timedelta(hours=30))
    fresh = MeterView.from_status(web_bench.plc_meter("B"), NOW - timedelta(hours=2))
    found = select([view, fresh], MeterQuery(state="stale"), NOW)
    assert [one.identity for one in found.rows] == ["A"]
    assert found.stale == 1


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_csv_gives_back_what_went_in_and_no_formula(firmware, reason):
    view = MeterView.from_status(web_bench.plc_meter("A", firmware=firmware, reason=reason))
    (row,) = csv.DictReader(io.StringIO(as_csv([view]), newline=""))
    for name, given_text in (("firmware", firmware), ("reason", reason)):
        assert row[name] in (given_text, f"'{given_text}")
        assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_the_csv_is_of_what_the_list_shows(client):
    answer = client.get("/api/meters.csv?medium=water")
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["meter"] == WATER
    assert '/api/meters.csv?medium=water"' in client.get("/meters?medium=water").text


# The chart


def cursor_of(page: str) -> list:
    return json.loads(
        re.search(r'data-chart="([^"]*)"', page)[1]
        .replace("&#34;", '"')
        .replace("&#39;", "'")
        .replace("&amp;", "&")
    )


def test_the_cursor_tells_every_interval_and_why_one_lacks(client):
    values = cursor_of(client.get(f"/meters/{METERS[1]}?days=4").text)
    assert [x for x, _y, _words in values] == sorted(x for x, _y, _words in values)
    said = [words for _x, y, words in values if y is None]
    assert any("the meter has no data for it" in words for words in said)
    # Four lack; one more may have ended since the store was filled.
    assert sum("still to be read" in words for words in said) in (4, 5)
    # The interval after each hole of a counter is there and cannot be compared, and so is the first of all.
    assert sum("the value before it is missing" in words for words in said) == 3
    assert any(words.endswith("150 Wh, valid") for _x, _y, words in values)


def test_a_table_says_the_same_and_long_ones_go_by_day(client):
    short = client.get(f"/meters/{METERS[0]}?days=2").text
    long = client.get(f"/meters/{METERS[0]}?days=7").text
    rows = re.search(r'id="chart-table".*?</details>', short, re.DOTALL)[0].count("<tr>")
    assert rows == len(cursor_of(short)) + 1
    assert re.search(r'id="chart-table".*?</details>', long, re.DOTALL)[0].count("<tr>") <= 9


def test_days_are_stepped_through(client):
    page = client.get(f"/meters/{METERS[0]}?days=1").text
    assert "Later" not in page
    address = re.search(r'rel="prev" href="([^"]+)"', page)[1].replace("&amp;", "&")
    before = client.get(f"/meters/{METERS[0]}{address}").text
    assert "Later" in before
    yesterday = web_bench.now().astimezone().date() - timedelta(days=1)
    assert f'value="{yesterday}"' in before
    assert len(cursor_of(before)) in (92, 96, 100)


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "2026-13-01", "today", "", "%00"])
def test_days_that_make_no_sense_are_today_or_empty(client, day):
    assert client.get(f"/meters/{METERS[0]}?day={day}").status_code == 200
    assert client.get(f"/api/meters/{METERS[0]}/profile?day={day}").status_code == 200


def test_the_csv_of_a_chart_is_what_it_shows(client):
    shown = client.get(f"/api/meters/{METERS[1]}/profile?days=3").json()["values"]
    rows = list(csv.DictReader(io.StringIO(client.get(f"/api/meters/{METERS[1]}/profile.csv?days=3").text)))
    assert [row["to"] for row in rows] == [one["to"] for one in shown]
    assert [row["value"] == "" for row in rows] == [one["value"] is None for one in shown]
    assert {row["unit"] for row in rows} == {"Wh"}


@given(
    st.sets(st.integers(0, 40), max_size=41),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)), max_size=4),
    st.booleans(),
)
def test_every_interval_is_told_once_in_its_order(stored, history, spans, counter):
    points = [Point(900 * (number + 1), 5 * number, None, 0) for number in sorted(stored)]
    gaps = [Gap("p", _at(first), _at(first + more), f"because {first}", None, None) for first, more in spans]
    drawn = draw(
        points,
        900,
        900 * 41,
        period_s=900,
        scaler=0,
        counter=counter,
        zone=UTC,
        gaps=gaps,
        history_from=900 * history,
    )
    if drawn is None:
        return
    ends = [int(one.end.timestamp()) for one in drawn.values]
    assert ends == [900 * (number + 1) for number in range(41)]
    assert sum(one.value is not None for one in drawn.values) == drawn.shown
    for one in drawn.values:
        if one.value is None and not one.reason:
            assert one.end.timestamp() >= 900 * history
        if one.reason == BEFORE_HISTORY:
            assert one.end.timestamp() < 900 * history


def _at(number: int) -> datetime:
    return datetime.fromtimestamp(900 * (number + 1), UTC)


def test_a_signal_has_its_word_on_the_meters_page(client):
    assert re.search(r'<span class="badge bad">weak</span> -97 dBm', client.get(f"/meters/{WATER}").text)


# The network


def network(switches=3, terminals=5) -> list[Place]:
    return [Place.from_told(node, "prime", {}) for node in web_bench.prime_tree(switches, terminals)]


def test_a_found_node_has_the_way_to_it_from_the_concentrator():
    places = network()
    leaf = "020000120003"
    (found,) = matching(places, leaf)
    picture = draw_network(places)
    traced = trace(picture, [found])
    # It hangs under the third switch, which hangs under the second: three ways.
    assert traced.ways.count("M") == 3
    assert traced.ways.count("M14 20V") == 1
    assert [mark.place.eui for mark in traced.marks] == [leaf]
    assert all(way in picture.ways for way in re.findall(r"M[^M]+", traced.ways))


def test_many_that_are_found_are_marked_and_some_are_traced():
    places = network(12, 40)
    traced = trace(draw_network(places), matching(places, "02"))
    assert traced.found == len(places)
    assert len(traced.marks) <= 300
    assert traced.ways.count("M") <= 60


def test_a_branch_is_a_node_and_all_below_it_even_in_a_circle():
    places = network()
    assert len(branch(places, "0200000a0001")) == 12
    circle = [Place.from_told(web_bench.node(a, b), "prime", {}) for a, b in (("0a", "0b"), ("0b", "0a"))]
    assert len(branch(circle, "0a")) == 2


def test_marks_are_links_with_words_and_hostile_names_stay_text():
    places = [Place.from_told(web_bench.node("0a", meter=HOSTILE, media=HOSTILE), "prime", {})]
    for by_hops in (False, True):
        text = str(marks_svg(draw_network(places), english, by_hops=by_hops))
        assert "<img" not in text
        assert "<script" not in text
        assert 'href="/topology/0a"' in text
    assert 'class="mark d1"' in text


@given(st.dictionaries(st.sampled_from(["below", "levels", "find", "colour", "page"]), st.text(max_size=40)))
def test_any_address_of_the_network_makes_sense_of_it_and_back(given_parameters):
    query = NetworkQuery.from_parameters(given_parameters)
    assert NetworkQuery.from_parameters(query.parameters()) == query


def test_the_table_has_pages_and_follows_search_and_branch(service, client):
    service.nodes = web_bench.prime_tree(12, 40)
    first, fifth = client.get("/topology").text, client.get("/topology?page=5").text
    assert "page 1 of 5" in first
    assert len(first) < 300_000
    names = [set(re.findall(r'<th scope="row"><a href="/topology/(\w+)"', page)) for page in (first, fifth)]
    assert len(names[0]) == 100
    assert not names[0] & names[1]
    found = client.get("/topology?find=0200000a0002").text
    assert "1 node found" in found
    assert 'class="halo"' in found
    assert re.findall(r'<th scope="row"><a href="/topology/(\w+)"', found) == ["0200000a0002"]
    assert "No node matches." in client.get("/topology?find=nothing").text
    assert 'href="/meters?below=0200000a0002"' in client.get("/topology?below=0200000a0002").text
