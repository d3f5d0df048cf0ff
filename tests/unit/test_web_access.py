"""Logging in on the page: cookies, forms of one's own only, roles, and what nobody gets to see."""

from __future__ import annotations

import re
import time

import pytest
from starlette.testclient import TestClient

from concentrator.access.lockout import FREE_TRIES
from concentrator.access.roles import Role
from concentrator.web.access_pages import local_path
from concentrator.web.application import make_page
from concentrator.web.visitors import Visitor

import web_bench
from web_bench import METERS, PASSWORD, FakeService

ORIGIN = "http://127.0.0.1:8080"
CLOSED = (
    "/",
    "/meters",
    f"/meters/{METERS[0]}",
    "/tasks",
    "/log",
    "/orders",
    "/configuration",
    "/keys",
    "/audit",
    "/password",
)
ADMIN_ONLY = ("/configuration", "/keys", "/audit")


@pytest.fixture
def service(tmp_path):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    service.start()
    yield service
    service.stop()


def client_of(service, origin=ORIGIN, **options):
    options = {"open_view": False, "allow_page": "sync_clock, disconnect", **options}
    page = make_page(web_bench.config(service.socket.parent, **options))
    return TestClient(page.application, base_url=origin, follow_redirects=False)


@pytest.fixture
def client(service):
    with client_of(service) as client:
        yield client


def token_in(answer):
    return re.search(r'name="token" value="([^"]+)"', answer.text)[1]


def log_in(client, name="otto", password=PASSWORD, **more):
    fields = {"token": token_in(client.get("/login")), "name": name, "password": password, **more}
    return client.post("/login", data=fields)


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_login_every_page_leads_to_it(client, path):
    answer = client.get(path + "?a=1")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=")
    assert METERS[0] not in answer.text
    assert client.get("/events" + path).status_code == 401


@pytest.mark.parametrize(
    "path", ["/api/overview", "/api/meters", "/api/events", "/api/tasks", "/api/completeness"]
)
def test_without_a_login_json_is_refused_and_health_is_not(client, path):
    assert client.get(path).status_code == 401
    assert client.get("/health").status_code == 200


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_lines(service, client):
    answer = log_in(client, next="/meters?q=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/meters?q=1")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("session=")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "secure" not in cookie.lower()
    assert client.get("/meters").status_code == 200
    secure = client_of(service, "https://127.0.0.1:8080", host="0.0.0.0", web='tls = "own"\n')
    with secure:
        cookie = log_in(secure).headers["set-cookie"]
        assert cookie.startswith("__Host-session=")
        assert "secure" in cookie.lower()
        assert "strict-transport-security" not in secure.get("/").headers


def test_a_session_that_was_planted_before_is_not_taken_over(client):
    client.cookies.set("session", "planted-by-somebody-else")
    log_in(client)
    values = [cookie.value for cookie in client.cookies.jar]
    client.cookies.clear()
    client.cookies.set("session", "planted-by-somebody-else")
    assert client.get("/").status_code == 303
    fresh = next(value for value in values if value != "planted-by-somebody-else")
    client.cookies.clear()
    client.cookies.set("session", fresh)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("headers", "change"),
    [
        ({}, {"token": ""}),
        ({}, {"token": "wrong"}),
        ({"origin": "http://evil.example"}, {}),
        ({"origin": "null"}, {}),
        ({"sec-fetch-site": "cross-site"}, {}),
        ({"sec-fetch-site": "same-site"}, {}),
    ],
)
@pytest.mark.parametrize("path", ["/login", "/logout", "/password", "/orders", "/configuration", "/keys"])
def test_no_form_of_another_site_is_taken(service, client, path, headers, change):
    if path == "/login":
        token = token_in(client.get("/login"))
    else:
        log_in(client, "ada")
        token = token_in(client.get("/password"))
    fields = {"token": token, "name": "ada", "password": PASSWORD, "op": "revert", "new": "x" * 12, **change}
    assert client.post(path, data=fields, headers=headers).status_code == 403
    assert service.orders == []
    if path != "/login":
        assert client.get("/").status_code == 200


def test_the_token_of_one_session_is_not_anothers(service, client):
    log_in(client, "vera")
    token = token_in(client.get("/password"))
    client.cookies.clear()
    log_in(client, "otto")
    assert client.post(f"/meters/{METERS[0]}/orders", data={"token": token, "op": "ping"}).status_code == 403


@pytest.mark.parametrize("name", ["vera", "otto", "ada"])
@pytest.mark.parametrize("path", ADMIN_ONLY)
def test_administration_is_shown_to_administrators(client, name, path):
    log_in(client, name)
    assert client.get(path).status_code == (200 if name == "ada" else 403)
    if name != "ada":
        assert client.get("/events" + path).status_code == 403
        assert f'href="{path}"' not in client.get("/").text


@pytest.mark.parametrize(
    ("name", "operation", "expected"),
    [
        ("vera", "ping", 403),
        ("vera", "disconnect", 403),
        ("otto", "ping", 303),
        ("otto", "read_switch", 303),
        ("otto", "sync_clock", 303),
        ("otto", "disconnect", 303),
        ("otto", "reconnect", 403),  # not in orders.allow_page
        ("ada", "ping", 303),
    ],
)
def test_buttons_and_orders_are_by_role_and_by_the_rules(service, client, name, operation, expected):
    log_in(client, name)
    page = client.get(f"/meters/{METERS[0]}")
    assert (f'value="{operation}"' in page.text) is (expected == 303)
    fields = {"token": token_in(client.get("/password")), "op": operation, "confirm": METERS[0]}
    assert client.post(f"/meters/{METERS[0]}/orders", data=fields).status_code == expected
    deadline = time.monotonic() + 5
    while expected == 303 and not service.orders:
        assert time.monotonic() < deadline
        client.get("/health")
    if expected != 303:
        assert service.orders == []
    else:
        (order,) = service.orders
        assert order.given_by.startswith(f"{name} (")
        assert order.arguments == ({"confirm": METERS[0]} if operation == "disconnect" else {})


def test_a_supply_is_cut_only_with_the_meters_identity_typed_in(service, client):
    log_in(client)
    token = token_in(client.get("/password"))
    for confirm in ("", METERS[1], METERS[0].lower()):
        fields = {"token": token, "op": "disconnect", "confirm": confirm}
        assert client.post(f"/meters/{METERS[0]}/orders", data=fields).status_code == 400
    assert service.orders == []


def test_a_one_time_password_leads_to_its_change_and_nowhere_else(service, client):
    password = service.users.add("new", web_bench.Role.ADMIN)
    log_in(client, "new", password)
    for path in CLOSED[:-1]:
        assert client.get(path).headers["location"] == "/password"
    assert client.get("/api/meters").status_code == 403
    page = client.get("/password")
    fields = {
        "token": token_in(page),
        "password": password,
        "new": "a better one 12",
        "again": "a better one 13",
    }
    assert "repeated differently" in client.post("/password", data=fields).text
    before = client.cookies["session"]
    assert client.post("/password", data={**fields, "again": fields["new"]}).status_code == 303
    assert client.cookies["session"] != before
    assert client.get("/").status_code == 200


def test_wrong_passwords_say_how_long_to_wait_and_never_what_was_typed(client):
    for _ in range(FREE_TRIES):
        answer = log_in(client, password="canary-password")
        assert answer.status_code == 401
    assert "retry-after" not in answer.headers
    answer = log_in(client, password="canary-password")
    assert answer.headers["retry-after"] == "2"
    locked = log_in(client)
    assert (locked.status_code, "wait" in locked.text) == (429, True)
    assert "canary" not in answer.text + locked.text


def test_logging_out_ends_the_session_on_the_box_too(client):
    log_in(client)
    session = client.cookies["session"]
    assert client.post("/logout", data={"token": token_in(client.get("/password"))}).status_code == 303
    client.cookies.set("session", session)
    assert client.get("/").status_code == 303


def test_without_the_service_who_was_logged_in_may_look_on_and_nobody_may_log_in(service, client):
    log_in(client)
    assert client.get("/").status_code == 200
    service.stop()
    page = client.get(f"/meters/{METERS[0]}")
    assert page.status_code == 200
    assert f'action="/meters/{METERS[0]}/orders"' not in page.text
    client.cookies.clear()
    assert client.get("/").status_code == 303
    assert log_in(client).status_code == 503


def test_an_open_view_shows_and_offers_nothing(service):
    with client_of(service, open_view=True) as client:
        page = client.get(f"/meters/{METERS[0]}")
        assert page.status_code == 200
        assert 'method="post"' not in page.text
        for path in ADMIN_ONLY:
            assert client.get(path).headers["location"].startswith("/login")
        assert "Log in to see the orders." in client.get("/orders").text
        assert client.post("/tasks/orders", data={"op": "run_task", "token": ""}).status_code == 403


def test_all_orders_are_listed_with_who_gave_them_and_open_ones_can_be_cancelled(service, client):
    given = web_bench.now().isoformat()
    service.listed = [
        {"id": "a1", "op": "disconnect", "target": METERS[0], "origin": "the page, otto (operator) at ::1",
         "state": "done", "given_at": given, "changed_at": given, "result": {"x": web_bench.HOSTILE}},
        {"id": "a2", "op": "read", "target": METERS[1], "origin": "MQTT", "state": "running", "given_at": given,
         "changed_at": given},
    ]  # fmt: skip
    log_in(client)
    page = client.get("/orders")
    assert "otto (operator) at ::1" in page.text
    assert "<img" not in page.text
    assert METERS[1] not in client.get(f"/orders?meter={METERS[0]}").text
    assert re.findall(r'form="cancel" name="id" value="(\w+)"', page.text) == ["a2"]
    client.post("/orders", data={"token": token_in(page), "id": "a2"})
    deadline = time.monotonic() + 5
    while not service.orders:
        assert time.monotonic() < deadline
        client.get("/health")
    assert (service.orders[0].operation, service.orders[0].arguments) == ("cancel_order", {"id": "a2"})
    client.cookies.clear()
    log_in(client, "vera")
    assert 'form="cancel"' not in client.get("/orders").text


def test_what_the_page_refuses_is_in_the_trail(service, client):
    log_in(client, "vera")
    for form in ({"op": "add", "name": "x"}, {"op": "add", "token": token_in(client.get("/password"))}):
        assert client.post("/users", data=form).status_code == 403
    refused = [(one.state, one.detail) for one in service.trail.entries if one.operation == "page"]
    assert refused == [("refused", "POST /users")] * 2
    assert all("vera (viewer) at " in one.origin for one in service.trail.entries)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("/meters?q=a", "/meters?q=a"),
        ("", "/"),
        ("//evil.example", "/"),
        ("//[", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_a_login_leads_to_our_own_pages_only(asked, expected):
    assert local_path(asked) == expected


def test_the_login_says_so_while_nobody_can_log_in(service):
    service.stop()
    with client_of(service) as client:
        assert "Nobody can log in while the collecting service does not answer." in client.get("/login").text


def test_an_unconfirmed_switch_leads_back_to_its_meter(client):
    log_in(client, "ada")
    path = f"/meters/{METERS[0]}"
    fields = {"token": token_in(client.get(path)), "op": "disconnect", "confirm": "x"}
    answer = client.post(f"{path}/orders", data=fields)
    assert answer.status_code == 400
    assert f'<a href="{path}">' in answer.text


def test_who_is_known_from_before_only_is_told_that_the_service_is_away():
    here = Visitor("ada", Role.ADMIN, "s")
    away = Visitor("ada", Role.VIEWER, "s", remembered=True)
    assert "admin" in here.refusal.values.values()
    assert "away" in away.refusal.text
    assert "role" not in away.refusal.text
