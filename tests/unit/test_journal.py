"""The concentrator's own log: boot, access, clock, registration, updates, faults; each is there, and it is bounded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from concentrator import journal as journal_module
from concentrator.journal import Journal
from concentrator.orders import MQTT, Order
from concentrator.store.store import Store
from plc.network import NodeDeclined, NodeJoined, NodeLeft

from bench import until

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
EUI = b"\x02\x0d\xc0\0\0\1"


class At:
    """A clock with two hands: the wall's, and the one that never jumps."""

    def __init__(self):
        self.moment, self.seconds = START, 0.0

    def now(self):
        return self.moment

    def monotonic(self):
        return self.seconds

    def pass_by(self, seconds, step=0.0):
        self.seconds += seconds
        self.moment += timedelta(seconds=seconds + step)


@pytest.fixture
def clock():
    return At()


@pytest.fixture
async def store(tmp_path, clock, monkeypatch):
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(journal_module, "_MACHINE_BOOT", boot)
    monkeypatch.setattr(journal_module, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(journal_module, "version", lambda _name: "1.0")
    store = Store(tmp_path / "store.db", clock)
    yield store
    store.close()


async def entries(store):
    return await store.read(
        lambda c: c.execute("SELECT code, detail FROM event ORDER BY event_id").fetchall()
    )


class Running:
    """A journal that runs; leaving it is a stop in order, or a crash."""

    def __init__(self, store, clock, states=None, *, crash=False):
        self.journal = Journal(store, lambda: dict(states or {}), clock)
        self._store, self._crash = store, crash

    async def __aenter__(self):
        before = len(await entries(self._store))
        self._task = asyncio.create_task(self.journal.run())

        async def began():
            return len(await entries(self._store)) > before

        await until(began, 5)
        return self

    async def until(self, code, detail=""):
        async def found():
            return [one[1] for one in await entries(self._store) if one[0] == code and detail in one[1]]

        return await until(found, 5)

    async def __aexit__(self, *_):
        if self._crash:

            async def nothing():
                """A process that was killed writes nothing any more."""

            self.journal._end = nothing
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def run(store, clock, **more):
    before = len(await entries(store))
    async with Running(store, clock, **more):
        pass
    return (await entries(store))[before:]


async def test_a_boot_is_told_from_a_start(store, clock, tmp_path):
    assert await run(store, clock) == [
        ("boot", "the machine was started"),
        ("service_started", ""),
        ("service_stopped", ""),
    ]
    assert await run(store, clock) == [("service_started", ""), ("service_stopped", "")]
    (tmp_path / "boot_id").write_text("second\n")
    assert (await run(store, clock))[0][0] == "boot"


async def test_a_crash_and_a_power_cut_are_faults(store, clock, tmp_path):
    await run(store, clock, crash=True)
    again = await run(store, clock, crash=True)
    assert again[0] == ("fault", "the service did not stop in order the last time: it was killed, or crashed")
    (tmp_path / "boot_id").write_text("second\n")
    after_cut = await run(store, clock)
    assert after_cut[1] == (
        "fault",
        "the service did not stop in order the last time: power was cut, or the machine crashed",
    )
    assert [code for code, _ in await run(store, clock)] == ["service_started", "service_stopped"]


async def test_an_update_is_told_with_both_versions(store, clock, monkeypatch):
    await run(store, clock)
    monkeypatch.setattr(journal_module, "version", lambda _name: "1.1")
    assert ("updated", "software 1.0 → 1.1") in await run(store, clock)
    assert [code for code, _ in await run(store, clock)] == ["service_started", "service_stopped"]


async def test_a_clock_that_is_set_is_told_and_one_that_drifts_is_not(store, clock):
    async with Running(store, clock) as running:
        for number in range(5):
            clock.pass_by(1.0, step=0.5)
            # The journal has looked at the clock when this is there.
            running.journal.note("tick", str(number))
            await running.until("tick", str(number))
        clock.pass_by(1.0, step=-90.0)
        assert await running.until("clock_step") == ["the clock was set by -90.0 s"]


async def test_the_first_setting_of_a_clock_without_battery_is_told_as_such(store, clock):
    clock.moment = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    async with Running(store, clock) as running:
        clock.moment = START
        (detail,) = await running.until("clock_step")
        assert detail.endswith("; it had not been set before")


async def test_access_is_told_with_its_origin_and_without_its_arguments(store, clock):
    async with Running(store, clock) as running:
        order = Order("o1", "write", "M1", {"value": "0906736563726574"}, origin=MQTT)
        running.journal.note_access(order, "failed: not allowed")
        assert await running.until("access") == ["M1: write, order o1 from MQTT: failed: not allowed"]
    assert "0906736563726574" not in str(await entries(store))


async def test_registration_is_told_once_until_the_node_leaves(store, clock):
    async with Running(store, clock) as running:
        for event in (
            NodeJoined(EUI, 1, "ODC1"),
            NodeJoined(EUI, 1, "ODC1"),
            NodeLeft(EUI, 1, "silent"),
            NodeJoined(EUI, 2, "ODC1"),
            NodeDeclined(EUI, "no key"),
        ):
            running.journal.note_network(event)
        told = await running.until("registration")
    name = EUI.hex()
    assert told == [
        f"node {name} registered as 'ODC1'",
        f"node {name} left: silent",
        f"node {name} registered as 'ODC1'",
        f"foreign node {name} was turned away: no key",
    ]


async def test_faults_and_states_are_told_as_they_come(store, clock):
    states = {("modem", ""): ("running", "")}
    async with Running(store, clock, states) as running:
        running.journal.note("fault", "no progress: collection")
        assert await running.until("fault") == ["no progress: collection"]


async def test_what_a_full_store_does_not_take_waits(store, clock):
    async with Running(store, clock) as running:
        pages = store._database._writing.execute("PRAGMA page_count").fetchone()[0]
        store._database._writing.execute(f"PRAGMA max_page_count = {pages}")
        running.journal.note("fault", "x" * 200_000)
        await until(lambda: store.unavailable, 5)
        store._database._writing.execute("PRAGMA max_page_count = 1073741823")
        assert len((await running.until("fault"))[0]) == 200_000


async def test_the_log_is_bounded(store, clock):
    await store.add_events([("fault", str(n), "") for n in range(50)])
    await store.trim_events(20)
    assert [detail for _code, detail in await entries(store)] == [str(n) for n in range(30, 50)]
