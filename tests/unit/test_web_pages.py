"""The page's answers: what they say of a running, a lost and a failing box, and what they refuse."""

from __future__ import annotations

import html
import re
import socket
import time

import pytest
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.web.application import make_page
from concentrator.web.live import ServiceWatch
from concentrator.web.order_desk import outcome_words

import web_bench
from web_bench import HOSTILE, METERS, WATER, FakeService

PAGES = ("/", "/meters", f"/meters/{METERS[0]}", f"/meters/{METERS[2]}", f"/meters/{WATER}", "/tasks", "/log")
ANSWERS = (
    "/api/overview",
    "/api/meters",
    f"/api/meters/{METERS[0]}",
    "/api/completeness",
    "/api/events",
    "/api/tasks",
)
ORIGIN = "http://127.0.0.1:8080"


@pytest.fixture
def directory(tmp_path):
    web_bench.fill_store(tmp_path)
    return tmp_path


@pytest.fixture
def service(tmp_path):
    service = FakeService(tmp_path / "control.sock")
    service.start()
    yield service
    service.stop()


def client_of(directory, patience_s=30.0, **options):
    config = web_bench.config(directory, **options)
    watch = ServiceWatch(config.control_socket, SystemClock(), answer_timeout_s=patience_s)
    return TestClient(make_page(config, watch=watch).application, base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def client(directory):
    with client_of(directory) as client:
        yield client


def text_of(answer) -> str:
    """What a reader sees: no tags, entities decoded, single blanks."""
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def test_the_overview_says_how_much_is_read_and_where_it_goes(service, client):
    service.status["meters"][1]["stored"] = 200
    text = text_of(client.get("/"))
    assert "box-7" in text
    assert "Service running" in text
    assert "500 of 600 intervals, 100 to come" in text
    assert "83 %" in text
    assert "Modem running Network PRIME Port /dev/ttyAMA0" in text
    assert "mqtt connected Waiting 0 readings" in text
    assert "Radio none" in text


def test_the_matrix_shows_the_missing_hour_and_the_meter_that_was_never_read_first(service, client):
    rows = re.findall(
        r'<tr><th scope="row"><a href="/meters/(\w+)">.*?</tr>', client.get("/").text, re.DOTALL
    )
    assert rows == [METERS[2], METERS[1], METERS[0]]
    matrix = client.get("/api/completeness").json()
    lacking = {
        meter: sum(max(0, cell["expected"] - cell["stored"] - cell["closed"]) for cell in cells)
        for meter, cells in matrix["meters"].items()
    }
    assert lacking[METERS[0]] == 0
    assert lacking[METERS[1]] == 4
    assert lacking[METERS[2]] == sum(cell["expected"] for cell in matrix["meters"][METERS[0]])


def test_a_service_that_is_not_there_is_said_and_the_store_still_shown(client):
    text = text_of(client.get("/"))
    assert "The collecting service is not running." in text
    assert "is the concentrator running?" in text
    assert "journalctl -u concentrator tells why" in text
    assert "Active when last known" in text
    assert "no meter does" not in text
    meters = text_of(client.get("/meters"))
    assert METERS[0] in meters
    assert "Unreachable" in meters
    meter = text_of(client.get(f"/meters/{METERS[0]}"))
    assert "As the store last knew it" in meter
    assert "Active energy import (+P), total" in meter


def test_a_service_that_hangs_is_told_apart_from_one_that_is_gone(service, directory):
    service.hangs = True
    with client_of(directory, patience_s=0.3) as client:
        text = text_of(client.get("/"))
    assert "The collecting service does not answer." in text
    assert "within 0.3 s" in text
    assert METERS[0] in text


def test_the_way_back_is_noticed(service, client):
    service.stop()
    assert "Service not running" in text_of(client.get("/"))
    service.start()
    deadline = time.monotonic() + 5
    while "Service running" not in text_of(client.get("/")):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("path", ["/", "/meters", "/log"])
def test_what_is_wrong_stands_on_top_of_every_page(service, client, path):
    service.status["modem"] |= {"state": "port lost", "reason": "modem /dev/ttyAMA0: Input/output error"}
    service.status["destinations"][0] |= {"state": "not connected", "reason": "broker: Connection refused"}
    service.status["store"]["unavailable"] = "the disk is full: free space on the data partition"
    text = text_of(client.get(path))
    assert "The modem's port was lost. modem /dev/ttyAMA0: Input/output error" in text
    assert "Destination mqtt is not connected. broker: Connection refused" in text
    assert "the disk is full" in text


def test_without_a_store_the_page_says_so_and_makes_none(tmp_path):
    with client_of(tmp_path) as client:
        text = text_of(client.get("/"))
        assert "does not exist yet" in text
        assert "does not exist yet" in client.get("/api/completeness").json()["error"]
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_program_is_told(tmp_path):
    (tmp_path / "store.db").write_bytes(b"not a database, and long enough to be looked at" * 40)
    with client_of(tmp_path) as client:
        assert "the service sets it aside and reads the meters again" in text_of(client.get("/"))


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("path", PAGES)
def test_what_a_meter_calls_itself_stays_text(tmp_path, path, running):
    web_bench.fill_store(tmp_path, hostile=HOSTILE)
    service = FakeService(tmp_path / "control.sock")
    service.status["meters"] = [
        web_bench.plc_meter(
            name, firmware=HOSTILE, manufacturer=HOSTILE, reason=HOSTILE, activity=HOSTILE, role=HOSTILE
        )
        for name in METERS
    ] + [web_bench.plc_meter(WATER, link="wmbus", medium=HOSTILE, state="odd")]
    service.status["modem"] |= {"reason": HOSTILE, "description": HOSTILE, "state": HOSTILE}
    if running:
        service.start()
    try:
        with client_of(tmp_path) as client:
            answer = client.get(path)
            assert answer.status_code == 200
            assert "<img" not in answer.text
            assert "<script>" not in answer.text
            assert answer.text.count("<script") == answer.text.count('<script src="/static/')
    finally:
        service.stop()


def test_the_hostile_text_is_really_on_the_page(tmp_path):
    web_bench.fill_store(tmp_path, hostile=HOSTILE)
    with client_of(tmp_path) as client:
        assert HOSTILE in text_of_escaped(client.get("/meters"))
        assert HOSTILE in text_of_escaped(client.get("/log"))
        assert HOSTILE in text_of_escaped(client.get(f"/meters/{METERS[1]}"))


def text_of_escaped(answer) -> str:
    return html.unescape(answer.text)


@pytest.mark.parametrize(
    "path", [*PAGES, *ANSWERS, "/health", "/metrics", "/static/page.js", "/nothing", "/meters/nobody"]
)
def test_every_answer_has_the_security_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == (
        "public, max-age=31536000, immutable" if "static" in path else "no-store"
    )


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_script_or_a_style_of_its_own_or_a_file_from_elsewhere(service, client, path):
    text = client.get(path).text
    assert " style=" not in text
    assert "<style" not in text
    assert not re.findall(r"\son\w+=", text)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text)


@pytest.mark.parametrize(
    "path", ["/meters/nobody", "/meters/..%2f..%2fetc", "/api/meters/nobody", "/events/meters/nobody", "/x"]
)
def test_what_is_not_there_is_a_404(service, client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_a_name_that_is_not_loopback_is_turned_away(client, host):
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7:8080", 303),
        ("[2001:db8::7]:8080", 303),
        ("box-7.lan", 303),
        (socket.gethostname(), 303),
        ("evil.example", 421),
        ("192.0.2.7.evil.example", 421),
    ],
)
def test_on_the_network_addresses_and_its_own_names_are_served(directory, host, expected):
    with client_of(directory, host="0.0.0.0", web='tls = "own"\nnames = "box-7.lan"\n') as client:
        assert client.get("/", headers={"host": host}).status_code == expected


# The list


def many(count):
    states = ("active", "active", "active", "unreachable", "key_missing")
    return [
        web_bench.plc_meter(
            f"ODC{number:010d}",
            state=states[number % 5],
            reason="no answer within 30 s" if number % 5 == 3 else "",
            stored=number % 201,
            level=number % 7,
            firmware=f"ODC-SIM {number % 4}.0",
        )
        for number in range(count)
    ]


def identities(answer):
    return re.findall(r'data-part="meter-([\w-]+)"', answer.text)


def test_the_list_filters_sorts_and_searches(service, client):
    service.status["meters"] = [
        *many(20),
        web_bench.plc_meter(WATER, link="wmbus", medium="water", expected=None),
    ]
    everything = identities(client.get("/meters?sort=meter"))
    assert everything == sorted(everything)
    assert len(everything) == 21
    assert identities(client.get("/meters?sort=-meter")) == everything[::-1]
    assert identities(client.get("/meters?state=unreachable&sort=meter")) == [
        f"ODC{n:010d}" for n in (3, 8, 13, 18)
    ]
    assert identities(client.get("/meters?medium=water")) == [WATER]
    assert identities(client.get("/meters?q=0000000007")) == ["ODC0000000007"]
    assert identities(client.get("/meters?q=no+ANSWER")) == identities(
        client.get("/meters?state=unreachable")
    )
    assert "No meter matches." in text_of(client.get("/meters?q=%3Cscript%3E"))
    assert identities(client.get("/meters?sort=nonsense&page=-4&state=odd")) == identities(
        client.get("/meters")
    )


def test_those_that_need_a_person_come_first(service, client):
    service.status["meters"] = many(20)
    first = identities(client.get("/meters"))[:4]
    assert {int(identity[3:]) % 5 for identity in first} == {3}


def test_pages_of_two_thousand_meters_are_small(service, client):
    service.status["meters"] = many(2000)
    for path in ("/meters", "/meters?q=17", "/", "/meters?page=8"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 300_000
    assert "250 of" not in text_of(client.get("/meters"))
    assert (
        len({identity for page in range(1, 9) for identity in identities(client.get(f"/meters?page={page}"))})
        == 2000
    )


def test_the_first_view_is_small(service, client):
    page = client.get("/")
    files = re.findall(r'"(/static/[^"]+)"', page.text)
    assert len(files) == 3
    assert len(page.content) + sum(len(client.get(file).content) for file in files) < 100_000


# A meter


def test_a_meters_page_has_values_with_obis_unit_quality_and_age(service, client):
    text = text_of(client.get(f"/meters/{METERS[1]}"))
    assert "Active energy import (+P), total 1-0:1.8.0*255" in text
    assert re.search(r"1 0\d\d \d{3} Wh", text)
    assert "valid" in text
    assert "the meter has no data for it" in text
    assert "4 missing." in text


def test_a_scaled_value_keeps_its_digits_and_its_doubts(client):
    text = text_of(client.get(f"/meters/{WATER}"))
    assert "Volume 8-0:1.0.0*255 180.949 m³" in text
    assert "suspect" in text
    assert "-72 dBm" in text


def test_the_chart_is_of_the_channel_that_was_asked_for(service, client):
    latest = client.get(f"/api/meters/{METERS[0]}").json()["latest"]
    other = next(one for one in latest if one["obis"] == str(web_bench.EXPORT.obis))
    page = client.get(f"/meters/{METERS[0]}?channel={other['channel_id']}&days=3")
    assert "Active energy export (-P), total over 3 days" in page.text
    assert text_of(client.get(f"/meters/{METERS[0]}?channel=x&days=999999"))


# Actions


def log_in(client, name="otto"):
    token = re.search(r'name="token" value="([^"]+)"', client.get("/login").text)[1]
    fields = {"token": token, "name": name, "password": web_bench.PASSWORD}
    assert client.post("/login", data=fields).status_code == 303


def token_of(client, meter=METERS[0]):
    log_in(client)
    return re.search(r'name="token" value="([^"]+)"', client.get(f"/meters/{meter}").text)[1]


def test_an_order_runs_to_its_result(service, client):
    answer = client.post(f"/meters/{METERS[0]}/orders", data={"token": token_of(client), "op": "ping"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/meters/{METERS[0]}#orders")
    deadline = time.monotonic() + 5
    while "Ping: done" not in text_of(page := client.get(f"/meters/{METERS[0]}")):
        assert time.monotonic() < deadline
    assert "<img" not in page.text
    assert [(order.operation, order.target) for order in service.orders] == [("ping", METERS[0])]


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        ({}, {"op": "ping"}, 403),
        ({}, {"op": "ping", "token": "wrong"}, 403),
        ({"origin": "null"}, {"op": "ping", "token": "right"}, 403),
        ({"origin": "http://evil.example"}, {"op": "ping", "token": "right"}, 403),
        ({"sec-fetch-site": "cross-site"}, {"op": "ping", "token": "right"}, 403),
        ({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, {"op": "ping", "token": "right"}, 303),
        ({}, {"op": "switch", "token": "right"}, 400),
        ({}, {"op": "x" * 9000, "token": "right"}, 403),
        ({}, {"op": "disconnect", "token": "right", "confirm": METERS[0]}, 403),
        ({}, {"op": "change_keys", "token": "right"}, 400),
    ],
)
def test_only_our_own_page_may_act(service, client, headers, fields, expected):
    if fields.get("token") == "right":
        fields = {**fields, "token": token_of(client)}
    assert client.post(f"/meters/{METERS[0]}/orders", data=fields, headers=headers).status_code == expected
    if expected != 303:
        assert service.orders == []


def test_tasks_are_shown_with_how_far_they_are(service, client):
    words = text_of(page := client.get("/tasks"))
    assert "2 of 3" in words
    assert "1 × no answer <b>at all</b>" in words  # noqa: RUF001 - as written on the page
    assert "<b>at all" not in page.text


def test_a_task_is_run_and_added_on_the_page(service, client):
    token = token_of(client)
    fields = {"token": token, "op": "run_task", "name": "load_profile"}
    assert client.post("/tasks/orders", data=fields).headers["location"] == "/tasks#orders"
    fields = {
        "token": token,
        "op": "add_task",
        "name": "volts",
        "what": "instantaneous",
        "period": "1h",
        "priority": "1",
    }
    client.post("/tasks/orders", data={**fields, "objects": " ", "send": "on"})
    deadline = time.monotonic() + 5
    while "Add volts: done" not in text_of(client.get("/tasks")):
        assert time.monotonic() < deadline
    first, second = service.orders
    assert (first.operation, first.target, first.arguments) == ("run_task", "", {"name": "load_profile"})
    expected = {"name": "volts", "what": "instantaneous", "period": "1h", "priority": 1}
    assert second.arguments == {**expected, "store": False, "send": True, "complete": False}
    assert client.post("/tasks/orders", data={"op": "run_task", "name": "x"}).status_code == 403
    assert client.post("/tasks/orders", data={"token": token, "op": "ping"}).status_code == 400


def test_an_order_for_nobody_is_a_404(service, client):
    fields = {"token": token_of(client), "op": "ping"}
    assert client.post("/meters/nobody/orders", data=fields).status_code == 404


def test_no_action_is_offered_or_taken_without_a_login(service, client):
    page = client.get(f"/meters/{METERS[0]}")
    assert 'method="post"' not in page.text
    assert client.post(f"/meters/{METERS[0]}/orders", data={"op": "ping"}).status_code == 403
    assert service.orders == []


# For machines


def test_health_is_bad_while_nothing_can_be_stored(service, client):
    assert client.get("/health").json() == {"healthy": True, "reasons": []}
    service.status["store"]["unavailable"] = "the disk is full"
    deadline = time.monotonic() + 5
    while (answer := client.get("/health")).status_code == 200:
        assert time.monotonic() < deadline
    assert answer.json() == {"healthy": False, "reasons": ["the disk is full"]}


def test_health_is_bad_while_the_service_is_gone(client):
    assert client.get("/health").status_code == 503


def test_metrics_are_prometheus_text(service, client):
    service.status["destinations"][0]["name"] = 'a"b\\c\nd'
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(
        r'^concentrator_\w+(\{\w+="([^"\\\n]|\\["\\n])*"(,\w+="([^"\\\n]|\\["\\n])*")*\})? -?[\d.e+]+$'
    )
    lines = answer.text.splitlines()
    assert [line for line in lines if not line.startswith("# ") and not sample.match(line)] == []
    assert "concentrator_up 1" in lines
    assert 'concentrator_intervals{kind="stored"} 450' in lines
    assert r'concentrator_destination_connected{destination="a\"b\\c\nd"} 1' in lines


def test_metrics_of_a_box_without_its_service(client):
    lines = client.get("/metrics").text.splitlines()
    assert "concentrator_up 0" in lines
    assert 'concentrator_meters{state="unreachable"} 1' in lines
    assert not [line for line in lines if line.startswith("concentrator_intervals")]


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("running", [True, False])
def test_there_is_json_beside_every_page(tmp_path, path, running):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    if running:
        service.start()
    with client_of(tmp_path) as client:
        answer = client.get(path)
        assert answer.status_code == 200
        assert isinstance(answer.json(), dict)
    service.stop()


def test_the_log_is_paged(service, client):
    assert "The store was damaged and set aside" in text_of(client.get("/log"))
    assert "No event is logged." in text_of(client.get("/log?before=1"))
    assert client.get("/api/events?before=1").json() == {"events": []}
    assert len(client.get("/api/events?before=nonsense").json()["events"]) == 1


def test_a_meters_page_has_what_the_meter_itself_logged(service, client):
    own = text_of(client.get(f"/meters/{METERS[0]}")).split("Events of this meter")[1]
    assert "power down" in own.split("Events")[0]
    assert "None in 30 days." in text_of(client.get(f"/meters/{METERS[1]}"))


@pytest.mark.parametrize(
    ("operation", "result", "expected"),
    [
        ("ping", {"meter": "A", "value": "2026-03-01 12:00:00", "axdr": "09"}, "its clock shows 2026-03-01"),
        ("read_switch", {"output_state": False, "control_state": "disconnected"}, "the supply is off"),
        (
            "reconnect",
            {"outcome": "done", "after": {"output_state": False, "control_state": "ready_for_reconnection"}},
            "the switch is ready for reconnection, the supply is off",
        ),
        (
            "disconnect",
            {"outcome": "unknown", "after": {"control_state": "connected"}},
            '"outcome": "unknown"',
        ),
        ("sync_clock", {"shift_s": 3}, '{"shift_s": 3}'),
        ("ping", None, "null"),
    ],
)
def test_results_of_orders_are_words_where_there_are_words(operation, result, expected):
    assert expected in outcome_words(operation, result)
