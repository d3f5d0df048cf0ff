"""What needs a person: each fact that does is told with what to do about it, and one that does not is not."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from concentrator.web.application import make_page
from concentrator.web.attention import MOST_SHOWN, Facts, concerns
from concentrator.web.machine import Machine
from concentrator.web.meters import MeterView
from concentrator.web.sources import DestinationView
from concentrator.web.words import METER_STATES

import web_bench
from web_bench import METERS, FakeService

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALM = Facts(
    status={"clock": {"state": "synchronised"}, "store": {"lost_readings": 0, "unavailable": ""}},
    meters=(),
    destinations=(),
    store_reason="",
    disk=(50, 100),
    store_octets=1,
    most_store_octets=100,
    clock_limit_s=3600,
    machine=Machine(40.0, None, 10),
    set_aside_at=None,
    now=NOW,
)


def meter(identity="A", state="active", **changes) -> MeterView:
    told = web_bench.plc_meter(identity, state=state, last_contact=NOW.isoformat(), clock_offset_s=None)
    return replace(MeterView.from_status(told, NOW - timedelta(minutes=20)), **changes)


def destination(**changes) -> DestinationView:
    return replace(DestinationView("mqtt", "mqtt", "connected", "", 0, None, NOW), **changes)


def kinds(**changes) -> list[str]:
    return [one.kind for one in concerns(replace(CALM, **changes))]


def test_a_box_that_is_well_needs_nobody():
    meters = tuple(
        meter(state, state) for state in ("active", "discovered", "identifying", "foreign", "removed")
    )
    assert kinds(meters=meters, destinations=(destination(pending_readings=3, oldest_unsent_at=NOW),)) == []


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("port", {"status": {"p1": {"state": "port missing", "reason": "gone"}}}),
        ("store", {"store_reason": "the disk is full"}),
        ("lost_readings", {"status": {"store": {"lost_readings": 7}}}),
        ("disk", {"disk": (9, 100)}),
        ("store_set_aside", {"set_aside_at": NOW}),
        ("destination", {"destinations": (destination(state="not connected"),)}),
        (
            "destination_waits",
            {
                "destinations": (
                    destination(pending_readings=1, oldest_unsent_at=NOW - timedelta(minutes=61)),
                )
            },
        ),
        (
            "store_full",
            {"store_octets": 91, "destinations": (destination(pending_readings=1, oldest_unsent_at=NOW),)},
        ),
        ("clock", {"status": {"clock": {"state": "not synchronised"}}}),
        ("temperature", {"machine": Machine(80.0, None, None)}),
        ("flash", {"machine": Machine(None, None, 90)}),
        ("refused", {"meters": (meter(state="refused"),)}),
        ("unreachable", {"meters": (meter(state="unreachable"),)}),
        ("key_wrong", {"meters": (meter(state="key_wrong"),)}),
        ("key_missing", {"meters": (meter(state="key_missing"),)}),
        ("old_values", {"meters": (meter(last_value=NOW - timedelta(hours=25)),)}),
        ("meter_clock", {"meters": (meter(clock_offset_s=-3601.0),)}),
    ],
)
def test_each_trouble_is_told_alone_with_what_to_do(kind, changes):
    (found,) = concerns(replace(CALM, **changes))
    assert found.kind == kind
    told = found.told()
    assert told.text.endswith(".")
    assert told.action.endswith(".")
    assert "%(" not in told.text + told.action
    assert told.link.startswith("/")


def test_a_full_store_without_anything_unsent_needs_nobody():
    assert kinds(store_octets=99, destinations=(destination(),)) == []


def test_meters_of_one_state_are_one_line_with_their_commonest_reasons_and_the_first_silence():
    silent = tuple(
        meter(str(number), "unreachable", reason=reason, last_contact=NOW - timedelta(hours=number))
        for number, reason in enumerate(["left the network", "left the network", "no answer", "odd"])
    )
    (found,) = concerns(replace(CALM, meters=silent))
    assert found.count == 4
    assert found.reason == "left the network (2); no answer (1); …"
    assert found.since == NOW - timedelta(hours=3)
    assert found.link == "/meters?state=unreachable"
    (alone,) = concerns(replace(CALM, meters=silent[:1]))
    assert alone.link == "/meters/0"
    assert alone.reason == "left the network"


def test_a_destination_out_of_the_configuration_is_nobodys_work():
    status = {"destinations": [{"name": "mqtt", "retired_at": NOW.isoformat()}]}
    waiting = destination(
        state="not configured", pending_readings=5, oldest_unsent_at=NOW - timedelta(days=9)
    )
    assert kinds(status=status, destinations=(waiting,)) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(METER_STATES)), st.text(max_size=9), st.integers(0, 99)), max_size=30
    ),
    st.integers(0, 100),
    st.none() | st.floats(-50, 150),
)
def test_whatever_the_facts_the_worst_come_first_and_every_meter_is_counted_once(told, free, warm):
    meters = [
        meter(str(number), state, reason=reason, last_value=NOW - timedelta(hours=hours))
        for number, (state, reason, hours) in enumerate(told)
    ]
    found = concerns(replace(CALM, meters=meters, disk=(free, 100), machine=Machine(warm, None, None)))
    severities = [one.severity for one in found]
    assert severities == sorted(severities)
    in_trouble = sum(state in ("refused", "unreachable", "key_wrong", "key_missing") for state, *_ in told)
    assert sum(one.count for one in found if one.kind in METER_STATES) == in_trouble


@pytest.fixture
def service(tmp_path):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    service.status["store"]["unavailable"] = ""
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(tmp_path, service):
    with TestClient(
        make_page(web_bench.config(tmp_path)).application, base_url="http://127.0.0.1:8080"
    ) as client:
        yield client


def test_the_overview_and_its_json_tell_the_same(service, client):
    service.status["meters"][2] |= {"state": "unreachable", "reason": "left the network"}
    service.status["meters"][1] |= {"state": "key_missing"}
    page = client.get("/").text
    told = {one["kind"]: one for one in client.get("/api/overview").json()["attention"]}
    assert {"unreachable", "key_missing", "store_set_aside"} <= told.keys()
    assert told["unreachable"]["text"] == f"Meter {METERS[2]} does not answer."
    assert told["unreachable"]["reason"] == "left the network"
    for one in told.values():
        assert one["text"].replace("'", "&#39;") in page
        assert f'href="{one["link"]}"' in page
    assert page.index("What needs attention") > page.index("Load profiles read")


def test_more_than_a_screen_of_them_is_folded(service, client):
    states = ("refused", "unreachable", "key_wrong", "key_missing", "active")
    service.status["meters"] = [
        web_bench.plc_meter(f"ODC000000010{n}", state=state, clock_offset_s=9999.0)
        for n, state in enumerate(states)
    ]
    service.status["clock"] = {"state": "not set", "steps": 0}
    service.status["modem"] |= {"state": "port lost", "reason": "gone"}
    service.status["destinations"][0] |= {"state": "not connected", "reason": "refused"}
    service.status["store"] |= {"lost_readings": 5}
    page = client.get("/").text
    count = len(client.get("/api/overview").json()["attention"])
    assert count > MOST_SHOWN
    assert f"{count - MOST_SHOWN} more" in page
    wall = client.get("/?view=wall").text
    assert f"{count - 4} more" in wall


def test_totals_add_up_and_who_was_never_read_counts_like_the_others(service, client):
    links = ("plc", "wmbus", "mbus-client", "mbus", "p1")
    service.status["meters"] = [
        web_bench.plc_meter(f"M{n}", link=link, expected=0, stored=0) for n, link in enumerate(links)
    ] + [
        web_bench.plc_meter("N1", state="discovered", expected=0, stored=0),
        web_bench.plc_meter("N2", expected=100, stored=100),
        # Known only to be there: all that was read is not all that there is.
        web_bench.plc_meter("N3", state="key_missing", expected=0, stored=0),
        web_bench.plc_meter("N4", state="refused", expected=0, stored=0),
        web_bench.plc_meter("N5", state="refused", expected=100, stored=100),
        web_bench.plc_meter("N6", link="wmbus", state="key_missing", expected=0, stored=0),
    ]
    page = client.get("/").text
    assert "6 on PLC, 2 by radio, 1 behind meters, 1 on wired M-Bus, 1 on P1" in page
    assert "3 meters were never read, and count like the others" in page
    assert "200 of 500 intervals" in page
    totals = client.get("/api/overview").json()["totals"]
    ways = ("plc", "wireless", "behind", "wired", "consumer_port")
    assert sum(totals[way] for way in ways) == totals["meters"] == 11
    assert totals["never_read"] == 3
    assert (totals["expected"], totals["stored"]) == (500, 200)
    listed = client.get("/api/meters?state=never_read").json()["meters"]
    assert {(one["identity"], one["expected"], one["stored"]) for one in listed} == {
        ("N1", 100, 0),
        ("N3", 100, 0),
        ("N4", 100, 0),
    }
    # Its days and hours are holes too, before all others.
    completeness = client.get("/api/completeness").json()
    assert {cell["stored"] for cell in completeness["meters"]["N1"]} == {0}
    assert min(cell["expected"] for cell in completeness["meters"]["N1"][1:]) > 0
    for address in ("/", "/?by=hour"):
        rows = re.findall(r'<th scope="row"><a href="/meters/(\w+)">', client.get(address).text)
        assert "N1" in rows[:3]


def test_a_wall_screen_has_no_forms_and_loads_itself_again_without_script(client):
    wall = client.get("/?view=wall").text
    main = wall[wall.index("<main") : wall.index("</main>")]
    assert "<form" not in main
    assert '<noscript><meta http-equiv="refresh"' in wall
    assert "Load profiles read" in main
    assert "data-stream=" in wall


def test_after_a_restart_a_meter_that_was_not_yet_visited_shows_what_the_store_has_of_it(service, client):
    service.status["meters"] = [
        web_bench.plc_meter(identity, expected=0, stored=0) for identity in METERS[:2]
    ]
    listed = {one["identity"]: one for one in client.get("/api/meters").json()["meters"]}
    completeness = client.get("/api/completeness").json()["meters"]
    for identity in METERS[:2]:
        cells = completeness[identity]
        assert listed[identity]["expected"] == sum(cell["expected"] for cell in cells) > 0
        assert listed[identity]["stored"] == sum(cell["stored"] for cell in cells) > 0
    totals = client.get("/api/overview").json()["totals"]
    assert totals["stored"] < totals["expected"]
    assert totals["never_read"] == 0


def test_reasons_of_several_meters_are_told_in_the_readers_language(service, client):
    refusal = "association refused: rejected-permanent (1)"
    service.status["meters"] = [
        web_bench.plc_meter(f"M{n}", state="refused", reason=reason)
        for n, reason in enumerate((refusal, refusal, "the meter did not answer our challenge"))
    ]
    page = client.get("/", headers={"Accept-Language": "de"}).text
    assert "association refused" not in page
    assert "did not answer our challenge" not in page
    assert "(2); " in page
    assert (
        client.get("/api/overview").json()["attention"][0]["reason"].startswith(f"{refusal} (2); the meter")
    )
