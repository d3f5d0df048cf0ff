"""Tokens of programs, accounts on the page, and what the service decides whoever speaks to its socket."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from concentrator.access.errors import NotLoggedInError, RoleRefusedError, UserError
from concentrator.access.lockout import FREE_TRIES
from concentrator.access.roles import PREFIX, Role
from concentrator.access.tokens import FILE, TokenBook
from concentrator.access.users import UserBook
from concentrator.cli import main
from concentrator.orders import LOCAL, PAGE
from concentrator.web.application import make_page
from concentrator.web.uploads import FilePiece, FormField, FormReader, UploadError

import web_bench
from web_bench import METERS, PASSWORD, FakeService

ORIGIN = "http://127.0.0.1:8080"


class Clock:
    at = datetime(2026, 11, 1, tzinfo=UTC)

    def now(self):
        return self.at

    def monotonic(self):
        return self.at.timestamp()


@pytest.fixture
def book(tmp_path):
    users = UserBook(tmp_path, cost=2)
    users.add("ana", Role.OPERATOR)
    clock = Clock()
    return TokenBook(users, clock, tmp_path), users, clock


def test_a_token_is_its_accounts_until_its_end_and_is_not_kept(book, tmp_path):
    tokens, users, clock = book
    token = tokens.add("ana", "Prometheus", Role.VIEWER, days=2)
    user, found = tokens.user_of(token)
    assert (user.name, user.role, user.one_time, found.label) == ("ana", Role.VIEWER, False, "Prometheus")
    assert token not in (tmp_path / FILE).read_text()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert TokenBook(users, clock, tmp_path).user_of(token) is not None
    clock.at += timedelta(days=2)
    assert tokens.user_of(token) is None


def test_a_token_never_has_more_than_its_account(book):
    tokens, users, _clock = book
    with pytest.raises(UserError, match="at most"):
        tokens.add("ana", "x", Role.ADMIN)
    token = tokens.add("ana", "x")
    users.set_role("ana", Role.VIEWER) if users.add("boss", Role.ADMIN) else None
    assert tokens.user_of(token)[0].role is Role.VIEWER
    users.remove("ana")
    assert tokens.user_of(token) is None


@pytest.mark.parametrize(
    ("label", "days"), [("", None), ("x" * 65, None), ("a\nb", None), ("x", 0), ("x", 4000)]
)
def test_what_makes_no_token(book, label, days):
    with pytest.raises(UserError):
        book[0].add("ana", label, days=days)
    assert book[0].tokens() == []


def test_a_token_is_made_and_removed_on_the_box_while_no_service_runs(tmp_path):
    config = tmp_path / "concentrator.toml"
    config.write_text(web_bench.config_text(tmp_path / "state"))

    def run(*words):
        done = CliRunner().invoke(main, ["users", *words, "--config", str(config)])
        assert done.exit_code == 0, done.output
        return done.stdout

    run("add", "prometheus")
    token = run("token", "add", "prometheus", "--for", "Figures", "--days", "30")
    # Nothing but the token, so that it can be piped into a file.
    assert re.fullmatch(rf"{PREFIX}[A-Za-z0-9_-]{{43}}\n", token)
    listed = run("token", "list")
    assert "Figures" in listed
    assert token.strip() not in listed
    run("token", "remove", listed.split()[0])
    assert run("token", "list") == ""


# The page


@pytest.fixture
def service(tmp_path):
    web_bench.fill_store(tmp_path)
    service = FakeService(tmp_path / "control.sock")
    service.open_view = False
    service.start()
    yield service
    service.stop()


@pytest.fixture
def client(service):
    page = make_page(web_bench.config(service.socket.parent, open_view=False))
    with TestClient(page.application, base_url=ORIGIN, follow_redirects=False) as client:
        client.get("/health")
        yield client


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_a_program_does_what_its_role_may(service, client):
    viewer, operator = (service.tokens.add(name, "test") for name in ("vera", "otto"))
    assert client.get("/api/meters").status_code == 401
    assert client.get("/api/meters").headers["www-authenticate"] == "Bearer"
    assert client.get("/api/meters", headers=bearer(viewer)).status_code == 200
    assert client.get("/api/export", headers=bearer(viewer)).status_code == 200
    assert client.get("/api/traffic", headers=bearer(viewer)).status_code == 403
    order = {"op": "ping", "target": METERS[0]}
    assert client.post("/api/orders", json=order, headers=bearer(viewer)).status_code == 403
    assert service.orders == []
    answer = client.post("/api/orders", json=order, headers=bearer(operator))
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/orders/{answer.json()['id']}"
    assert [(one.operation, one.deferred) for one in service.orders] == [("ping", True)]
    assert service.orders[0].who.startswith("the page, otto (operator) at")
    cancelled = client.post(
        "/api/orders", json={"op": "cancel_order", "args": {"id": "x"}}, headers=bearer(operator)
    )
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "done"), (
        "not the state of what was cancelled"
    )


def test_a_program_is_told_that_the_service_is_away_and_not_that_it_may_not(service, client):
    admin, unseen = (service.tokens.add("ada", name) for name in ("seen", "unseen"))
    assert client.get("/api/keys", headers=bearer(admin)).status_code == 200
    service.stop()
    order = {"op": "ping", "target": METERS[0]}
    for answer in (
        client.get("/api/keys", headers=bearer(admin)),
        client.post("/api/orders", json=order, headers=bearer(admin)),
        client.get("/api/meters", headers=bearer(unseen)),
    ):
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "5"), answer.text
        assert "service does not answer" in answer.json()["error"]
    assert client.get("/api/meters", headers=bearer(admin)).status_code == 200, "who was known may look on"


def test_a_token_opens_no_page_and_is_no_cookie(service, client):
    token = service.tokens.add("ada", "test")
    assert client.get("/", headers=bearer(token)).status_code == 403
    client.cookies.set("session", token)
    assert client.get("/api/meters").status_code == 401


def test_a_cookie_gives_no_order_without_the_token_of_its_forms(service, client):
    log_in(client, "otto")
    order = {"op": "ping", "target": METERS[0]}
    assert client.post("/api/orders", json=order).status_code == 403
    assert service.orders == []
    token = form_token(client)
    assert client.post("/api/orders", json=order, headers={"X-Form-Token": token}).status_code == 202
    # A program's token is looked at alone: the cookie of somebody else does not help it.
    assert client.post("/api/orders", json=order, headers=bearer(f"{PREFIX}wrong")).status_code == 401


def test_wrong_tokens_are_answered_ever_more_seldom_and_right_ones_always(service, client):
    right = service.tokens.add("vera", "test")
    told = [
        client.get("/api/meters", headers=bearer(f"{PREFIX}{n}")).status_code for n in range(FREE_TRIES + 2)
    ]
    assert told == [401] * (FREE_TRIES + 1) + [429]
    assert client.get("/api/meters", headers=bearer(right)).status_code == 200
    assert [one.state for one in service.trail.entries].count("refused") == FREE_TRIES + 1
    assert right not in repr(service.trail.entries)


def test_a_token_changes_no_accounts(service, client):
    async def asked():
        desk = service.desk
        token = service.tokens.add("ada", "test")
        told = await desk.answer(
            {"op": "users", "do": "add", "name": "x", "role": "admin", "session": token}, PAGE
        )
        assert told["refused"] == "role"
        told = await desk.answer({"op": "password", "session": token, "password": "a", "new": "b"}, PAGE)
        assert told["refused"] == "role"
        assert "users" in await desk.answer({"op": "users", "do": "list", "session": token}, PAGE)

    asyncio.run(asked())


def form_token(client):
    return re.search(r'name="token" value="([^"]+)"', client.get("/password").text)[1]


def log_in(client, name):
    page = client.get("/login").text
    token = re.search(r'name="token" value="([^"]+)"', page)[1]
    assert client.post("/login", data={"token": token, "name": name, "password": PASSWORD}).status_code == 303


def test_accounts_are_changed_on_the_page(service, client):
    log_in(client, "ada")
    token = form_token(client)

    def change(**fields):
        return client.post("/users", data={"token": token, **fields})

    made = change(op="add", name="new", role="viewer")
    password = re.search(r"<code>([a-z0-9-]{23})</code>", made.text)[1]
    assert service.users.verify("new", password).one_time
    assert password not in client.get("/users").text
    assert change(op="role", name="new", role="operator").status_code == 303
    assert service.users.find("new").role is Role.OPERATOR
    assert change(op="remove", name="new", confirm="other").status_code == 400
    assert change(op="remove", name="ada", confirm="ada").status_code == 400
    assert change(op="role", name="ada", role="viewer").status_code == 400
    told = change(op="token_add", name="otto", label="Collector", role="viewer", days="30")
    program = re.search(rf"<code>({PREFIX}[^<]+)</code>", told.text)[1]
    assert client.get("/api/meters", headers=bearer(program)).status_code == 200
    assert "Collector" in client.get("/users").text
    # A reset ends what the account has handed out.
    assert change(op="reset", name="otto").status_code == 200
    assert client.get("/api/meters", headers=bearer(program)).status_code == 401
    assert change(op="remove", name="new", confirm="new").status_code == 303
    assert service.users.find("new") is None
    done = {one.operation for one in service.trail.entries if one.state == "done"}
    assert {"user_add", "user_role", "user_reset", "user_remove", "token_add"} <= done
    assert password not in repr(service.trail.entries)
    assert program not in repr(service.trail.entries)


def test_who_adds_an_account_that_is_there_ends_no_token_of_it(service, client):
    log_in(client, "ada")
    service.tokens.add("otto", "Prometheus")
    asked = {"token": form_token(client), "op": "add", "name": "otto", "role": "viewer"}
    assert client.post("/users", data=asked).status_code == 400
    assert [one.user for one in service.tokens.tokens()] == ["otto"]


def test_sessions_are_ended_by_an_admin(service, client):
    other = TestClient(client.app, base_url=ORIGIN, follow_redirects=False)
    log_in(other, "otto")
    assert other.get("/meters").status_code == 200
    log_in(client, "ada")
    client.post("/users", data={"token": form_token(client), "op": "end_sessions", "name": "otto"})
    assert other.get("/meters").status_code == 303


@pytest.mark.parametrize("name", ["vera", "otto"])
@pytest.mark.parametrize("path", ["/users", "/backup", "/backup/upload"])
def test_only_an_admin_changes_accounts_and_backups(service, client, name, path):
    log_in(client, name)
    fields = {"token": form_token(client), "op": "add", "name": "x", "role": "admin"}
    assert client.post(path, data=fields).status_code == 403
    assert service.users.find("x") is None


# Whoever speaks to the socket


@pytest.mark.parametrize(
    ("operation", "least"),
    [("traffic", "otto"), ("dialogue", "otto"), ("support_bundle", "otto"), ("topology", "vera")],
)
def test_the_service_asks_who_it_is(service, operation, least):
    async def ask():
        desk = service.desk
        assert await desk.allow(operation, {}, LOCAL) == LOCAL
        for request in ({}, {"session": ""}, {"session": "nobody's"}, {"session": f"{PREFIX}x"}):
            with pytest.raises(NotLoggedInError):
                await desk.allow(operation, request, PAGE)
        # Who sends a session is judged by it, even as root.
        with pytest.raises(NotLoggedInError):
            await desk.allow(operation, {"session": "nobody's"}, LOCAL)
        viewer = service.tokens.add("vera", "test")
        if least == "vera":
            assert "vera" in await desk.allow(operation, {"session": viewer}, PAGE)
        else:
            with pytest.raises(RoleRefusedError):
                await desk.allow(operation, {"session": viewer}, LOCAL)
            assert "otto" in await desk.allow(operation, {"session": service.tokens.add("otto", "t")}, PAGE)

    asyncio.run(ask())


def test_a_capture_is_in_the_trail_before_it_is_given_away(service, client):
    log_in(client, "otto")
    assert client.get("/traffic/capture").status_code == 200
    assert [one.origin for one in service.trail.entries if one.operation == "traffic_capture"] != []


# Uploads


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=300),
    note=st.text(max_size=20),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_a_form_is_the_same_however_it_is_cut(content, note, cuts):
    form = (
        b'--bound\r\nContent-Disposition: form-data; name="note"\r\n\r\n'
        + note.encode()
        + (b'\r\n--bound\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content)
        + b"\r\n--bound--\r\n"
    )
    if b"\r\n--bound" in content:
        return
    reader, found, rest, number = FormReader("multipart/form-data; boundary=bound"), [], form, 0
    while rest:
        size = cuts[number % len(cuts)]
        found += reader.receive_data(rest[:size])
        rest, number = rest[size:], number + 1
    assert reader.is_over
    assert [one for one in found if isinstance(one, FormField)] == [FormField("note", note)]
    assert b"".join(one.content for one in found if isinstance(one, FilePiece)) == content


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_octets_break_the_reader_of_forms(data, begun):
    reader = FormReader("multipart/form-data; boundary=b")
    try:
        list(reader.receive_data((b"--b\r\n" if begun else b"") + data))
    except UploadError:
        return
    assert reader.is_over or not data.endswith(b"--b--")
