"""Accounts, roles, sessions and lock-outs, on a clock that tests move."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.access.desk import AccessDesk
from concentrator.access.errors import NotLoggedInError, RoleRefusedError, UserError
from concentrator.access.lockout import FREE_TRIES, Lockout
from concentrator.access.roles import Role, needed_role, permits
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import TokenBook
from concentrator.access.users import FIRST_USER, UserBook
from concentrator.collection.control.operations import CONTROL_OPERATIONS
from concentrator.collection.meter_orders import METER_OPERATIONS
from concentrator.collection.task_orders import TASK_ORDERS
from concentrator.collection.whitelist import read_whitelist_file
from concentrator.config import ConfigError
from concentrator.orders import LOCAL, PAGE, Order

from web_bench import PASSWORD, USERS, FakeService, Trail

VIEW = {
    "balance", "events", "gaps", "interruptions", "kpi", "meters", "order_state", "orders", "tasks", "topology",
    "upgrade_status",
}  # fmt: skip
WORK = {
    "add_task", "browse", "cancel_order", "collect", "diagnostics", "dialogue", "disconnect", "ping", "read",
    "read_billing", "read_limiter", "read_prepayment", "read_switch", "read_tariff", "reconnect", "refresh",
    "remove_task", "run_task", "show_message", "support_bundle", "sync_clock", "traffic",
}  # fmt: skip
EVERY = sorted(
    {
        *METER_OPERATIONS, *CONTROL_OPERATIONS, *TASK_ORDERS, *VIEW, *WORK, "collect", "sync_clock", "orders",
        "cancel_order", "order_state", "estimate", "kpi", "meter_add", "meter_remove", "meter_replace", "meter_set",
        "meters_import", "reload_meter_keys", "expel", "whitelist", "reload_keys", "rotate_group_key", "upgrade",
        "abort_upgrade", "promote", "demote", "reboot_node", "audit", "configuration", "keys", "users", "unheard_of",
    }
)  # fmt: skip


class MovedClock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at


class Rig:
    def __init__(self, directory) -> None:
        self.clock = MovedClock()
        self.directory = directory
        self.users = UserBook(directory, cost=2)
        for name, role in USERS.items():
            self.users.add(name, role, PASSWORD)
        self.trail = Trail()
        self.orders: list[Order] = []
        self.start()

    def start(self) -> None:
        self.sessions = Sessions(self.users, self.clock, self.directory, idle_s=600, longest_s=7200)
        self.tokens = TokenBook(self.users, self.clock, self.directory)
        self.desk = AccessDesk(self.users, self.sessions, self.tokens, self.trail, self.clock, self.handle)

    async def handle(self, order: Order) -> dict:
        self.orders.append(order)
        return {"said": "yes"}

    async def ask(self, op: str, origin: str = PAGE, **fields) -> dict:
        return await self.desk.answer({"op": op, "address": "192.0.2.9", **fields}, origin)

    async def log_in(self, name: str = "otto", password: str = PASSWORD, **fields) -> dict:
        return await self.ask("login", name=name, password=password, **fields)

    async def order(self, session: str, operation: str) -> dict:
        return await self.desk.carry_out(Order("o1", operation, "M1", origin=PAGE), session, "192.0.2.9")

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(entry.operation, entry.state) for entry in self.trail.entries]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


# Roles


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("operation", EVERY)
async def test_each_role_may_give_its_orders_and_no_others(rig, operation, role):
    name = next(name for name, its in USERS.items() if its is role)
    session = (await rig.log_in(name))["session"]
    allowed = role is Role.ADMIN or operation in VIEW or (role is Role.OPERATOR and operation in WORK)
    assert permits(role, operation) is allowed
    if allowed:
        assert await rig.order(session, operation) == {"said": "yes"}
        (order,) = rig.orders
        assert (order.origin, order.given_by) == (PAGE, f"{name} ({role}) at 192.0.2.9")
    else:
        with pytest.raises(RoleRefusedError, match=f"{operation} is for .*; {name} is {role}"):
            await rig.order(session, operation)
        assert rig.orders == []
        assert rig.told[-1] == (operation, "refused")
        assert f"{name} ({role}) at 192.0.2.9" in rig.trail.entries[-1].origin


def test_what_changes_a_meter_is_never_for_viewers():
    assert all(needed_role(operation) is not Role.VIEWER for operation in CONTROL_OPERATIONS)


async def test_an_order_without_a_session_is_refused(rig):
    for session in ("", "made-up"):
        with pytest.raises(NotLoggedInError):
            await rig.order(session, "ping")
    assert rig.orders == []


async def test_administration_is_for_administrators_and_for_the_box_itself(rig):
    for name in ("vera", "otto"):
        session = (await rig.log_in(name))["session"]
        answer = await rig.ask("users", do="list", session=session)
        assert answer["refused"] == "role"
        assert rig.told[-1] == ("users", "refused")
    session = (await rig.log_in("ada"))["session"]
    assert len((await rig.ask("users", do="list", session=session))["users"]) == 3
    assert len((await rig.ask("users", LOCAL, do="list"))["users"]) == 3
    assert (await rig.ask("users", PAGE, do="list"))["refused"] == "login"
    # Whoever sends a session is judged by it, though the page runs as the service's own user.
    assert (await rig.ask("users", LOCAL, do="list", session=""))["refused"] == "login"


# Accounts


def test_two_boxes_have_different_first_passwords_and_no_default_one(tmp_path):
    first, second = (UserBook(tmp_path / name, cost=2) for name in ("a", "b"))
    passwords = [first.provision(), second.provision()]
    assert len(set(passwords)) == 2
    assert all(len(password) >= 20 for password in passwords)
    assert first.provision() is None
    assert first.verify(FIRST_USER, passwords[0]).one_time
    assert first.verify(FIRST_USER, passwords[1]) is None
    assert first.verify(FIRST_USER, "admin") is None
    assert (tmp_path / "a/users.json").stat().st_mode & 0o777 == 0o600
    assert passwords[0] not in (tmp_path / "a/users.json").read_text()


async def test_a_one_time_password_opens_nothing_but_its_change(rig):
    password = rig.users.add("new", Role.ADMIN)
    told = await rig.log_in("new", password)
    assert told["one_time"]
    with pytest.raises(RoleRefusedError, match="one-time password"):
        await rig.order(told["session"], "ping")
    assert (await rig.ask("users", do="list", session=told["session"]))["refused"] == "role"
    changed = await rig.ask("password", session=told["session"], password=password, new="something else 1")
    assert not changed["one_time"]
    await rig.order(changed["session"], "ping")
    assert (await rig.log_in("new", password))["refused"] == "wrong"


@pytest.mark.parametrize("password", ["short", "otto-is-my-name", "a" * 40, "", "x" * 257])
async def test_weak_passwords_are_refused_and_not_repeated(rig, password):
    session = (await rig.log_in())["session"]
    answer = await rig.ask("password", session=session, password=PASSWORD, new=password)
    assert answer["refused"] == "user"
    assert len(password) < 5 or password not in answer["reason"]
    assert "session" in await rig.log_in()


def test_the_last_administrator_stays(rig):
    with pytest.raises(UserError, match="last admin"):
        rig.users.remove("ada")
    with pytest.raises(UserError, match="last admin"):
        rig.users.set_role("ada", Role.VIEWER)
    rig.users.set_role("otto", Role.ADMIN)
    rig.users.remove("ada")
    assert [user.name for user in rig.users.users()] == ["otto", "vera"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 33, "-a", "é", "a\n"])
def test_names_that_are_none_are_refused(rig, name):
    with pytest.raises(UserError):
        rig.users.add(name, Role.VIEWER, PASSWORD)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"version": 2, "users": {}}', '{"version": 1, "users": {"a": {}}}', "é"]
)
def test_a_damaged_file_of_accounts_is_told_and_lets_nobody_in(tmp_path, content):
    (tmp_path / "users.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"users\.json"):
        UserBook(tmp_path, cost=2).verify("a", "b")


# Sessions


async def test_a_session_ends_by_idleness_by_age_and_at_the_logout(rig):
    session = (await rig.log_in())["session"]
    for _ in range(3):
        rig.clock.at += 590
        assert (await rig.ask("session", session=session))["name"] == "otto"
    # Being looked at by an open page is no use.
    rig.clock.at += 400
    assert (await rig.ask("session", session=session, use=False))["name"] == "otto"
    rig.clock.at += 300
    assert (await rig.ask("session", session=session))["refused"] == "login"
    session = (await rig.log_in())["session"]
    for _ in range(14):
        rig.clock.at += 500
        await rig.ask("session", session=session)
    rig.clock.at += 300
    assert (await rig.ask("session", session=session))["refused"] == "login"
    session = (await rig.log_in())["session"]
    await rig.ask("logout", session=session)
    assert (await rig.ask("session", session=session))["refused"] == "login"
    assert ("logout", "done") in rig.told


@pytest.mark.parametrize("change", ["password", "role", "reset", "remove", "again"])
async def test_a_change_of_the_account_ends_its_sessions(rig, change):
    first, second = [(await rig.log_in())["session"] for _ in range(2)]
    assert first != second
    match change:
        case "password":
            told = await rig.ask("password", session=first, password=PASSWORD, new="another good one 7")
            assert (await rig.ask("session", session=told["session"]))["name"] == "otto"
        case "role":
            rig.users.set_role("otto", Role.VIEWER)
        case "reset":
            rig.users.reset("otto")
        case "remove":
            rig.users.remove("otto")
        case _:
            rig.users.remove("otto")
            rig.users.add("otto", Role.OPERATOR, PASSWORD)
    for session in (first, second):
        assert (await rig.ask("session", session=session))["refused"] == "login"


async def test_another_process_may_change_the_accounts(rig):
    session = (await rig.log_in())["session"]
    UserBook(rig.directory, cost=2).remove("otto")
    assert (await rig.ask("session", session=session))["refused"] == "login"


async def test_sessions_outlive_a_restart_but_not_their_end_and_no_file_opens_one(rig):
    session = (await rig.log_in())["session"]
    kept = (rig.directory / "sessions.json").read_text()
    assert session not in kept
    rig.start()
    assert (await rig.ask("session", session=session))["name"] == "otto"
    for key in kept.split('"')[1::2]:
        assert (await rig.ask("session", session=key))["refused"] == "login"
    rig.clock.at += 7200
    rig.start()
    assert (await rig.ask("session", session=session))["refused"] == "login"
    (rig.directory / "sessions.json").write_text("[1")
    rig.start()
    assert (await rig.ask("session", session=session))["refused"] == "login"


# Lock-outs


async def test_each_wrong_password_costs_more_time_and_the_right_one_waits_too(rig):
    for _ in range(FREE_TRIES):
        assert (await rig.log_in(password="wrong"))["wait_s"] == 0
    waits = []
    for _ in range(12):
        answer = await rig.log_in(password="wrong")
        assert answer["refused"] == "wrong"
        waits.append(answer["wait_s"])
        locked = await rig.log_in()
        assert (locked["refused"], locked["wait_s"]) == ("locked", answer["wait_s"])
        rig.clock.at += answer["wait_s"] + 0.1
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert waits[-1] == 900
    assert "session" in await rig.log_in()
    assert (await rig.log_in(password="wrong"))["wait_s"] == 0
    assert ("login", "refused") in rig.told
    assert "locked for 2 s" in next(entry.detail for entry in rig.trail.entries if "locked" in entry.detail)


async def test_an_address_that_tries_many_names_is_locked_and_others_are_not(rig):
    for number in range(FREE_TRIES + 1):
        await rig.log_in(f"nobody{number}", "wrong")
    assert (await rig.log_in())["refused"] == "locked"
    assert "session" in await rig.log_in(address="192.0.2.10")
    # All of a /64 is one address.
    for number in range(FREE_TRIES + 1):
        await rig.log_in(f"nobody{number}", "wrong", address=f"2001:db8::{number}")
    assert (await rig.log_in(address="2001:db8::ffff"))["refused"] == "locked"
    assert "session" in await rig.log_in(address="2001:db8:0:1::1")


async def test_a_reset_on_the_box_unlocks_the_name(rig):
    for number in range(FREE_TRIES + 2):
        await rig.log_in(password="wrong", address=f"192.0.2.{number}")
    assert (await rig.log_in(address="198.51.100.1"))["refused"] == "locked"
    rig.users.reset("otto", "a new and good one")
    assert "session" in await rig.log_in(password="a new and good one", address="198.51.100.1")


async def test_many_tries_at_once_are_counted_one_by_one(rig):
    answers = await asyncio.gather(*(rig.log_in(password="wrong") for _ in range(30)))
    tried = [answer for answer in answers if answer["refused"] == "wrong"]
    assert len(tried) == FREE_TRIES + 1
    assert {answer["refused"] for answer in answers} == {"wrong", "locked", "busy"}


async def test_unknown_names_are_answered_like_known_ones_and_cost_a_hash_too(rig, monkeypatch):
    costs = []
    verifies = type(rig.users.find("otto").verifier).verifies
    monkeypatch.setattr(
        "concentrator.access.passwords.Verifier.verifies",
        lambda self, password: costs.append(self.cost) or verifies(self, password),
    )
    known, unknown = await rig.log_in(password="wrong"), await rig.log_in("nobody", "wrong")
    assert known == unknown
    assert costs == [2, 2]


async def test_wrong_passwords_do_not_fill_the_trail(rig):
    for _ in range(400):
        await rig.log_in(password="wrong")
        rig.clock.at += 1
    assert 0 < len(rig.trail.entries) <= 120


def test_the_memory_of_failures_is_bounded():
    lockout = Lockout(MovedClock())
    for number in range(5000):
        lockout.failed(f"name {number}")
    assert len(lockout._failures) <= 2000  # noqa: SLF001 - what is to be shown


async def test_no_password_and_no_token_is_in_the_trail_or_in_what_objects_say(rig):
    session = (await rig.log_in())["session"]
    await rig.log_in(password="canary-wrong-password")
    await rig.ask("password", session=session, password=PASSWORD, new="canary-new-password")
    text = repr([rig.trail.entries[0].__class__, *map(str, rig.trail.entries), rig.users, rig.users.users()])
    assert all(secret not in text for secret in (session, PASSWORD, "canary"))


@pytest.mark.parametrize(
    "line", [b'{"op": []}', b'{"op": {}}', b'{"op": "login", "name": "\\ud800", "password": "x"}']
)
def test_what_makes_no_sense_on_the_control_socket_is_answered(tmp_path, line):
    service = FakeService(tmp_path / "control.sock")
    service.start()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(service.socket))
            connection.sendall(line + b"\n")
            assert b"not understood" in connection.recv(1000)
    finally:
        service.stop()


def test_the_error_of_a_whitelist_does_not_repeat_what_stands_in_the_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("canary-of-the-broker\n")
    with pytest.raises(ConfigError, match=r"line 1: allowed: an EUI of 6 octets") as refused:
        read_whitelist_file(path, (6,))
    assert "canary" not in str(refused.value)
