"""A store of every schema that was ever released opens, and keeps its rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from concentrator.clock import SystemClock
from concentrator.obis import Obis
from concentrator.store import kpi, statistics
from concentrator.store.errors import StoreError, StoreFullError
from concentrator.store.inspection import complaints
from concentrator.store.migrations import SCHEMA_VERSION
from concentrator.store.store import Store

FOLDER = Path(__file__).parents[1] / "support" / "stores"
LOAD = Obis(1, 0, 99, 1, 0)
T = 1_793_491_200
DAY = T // 86_400 * 86_400
FIRST, LAST = datetime.fromtimestamp(T, UTC), datetime.fromtimestamp(T + 86_400, UTC)
STATISTICS = (
    "network_node",
    "network_change",
    "network_hour",
    "network_node_day",
    "kpi_day",
    "kpi_meter_day",
)


def old_store(path: Path, schema: int) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((FOLDER / f"schema_{schema}.sql").read_text())
    return path


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_there_is_a_store_of_every_schema():
    assert sorted(FOLDER.glob("*.sql")) == sorted(
        FOLDER / f"schema_{number}.sql" for number in range(1, SCHEMA_VERSION + 1)
    )


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION + 1))
async def test_every_schema_opens_and_keeps_its_rows(tmp_path, schema):
    path = old_store(tmp_path / "store.db", schema)
    for _ in range(2):
        store = Store(path, SystemClock())
        assert store.set_aside is None
        meters = {one.identity: one for one in await store.load_meters()}
        assert (meters["ODC1"].serial, meters["WTR2"].details) == ("123", {"note": "cellar"})
        assert len(await store.stored_times("ODC1", LOAD, FIRST, LAST)) == 8
        owed = {name: await store.pending_numbers(name, 99) for name in ("mqtt", "push")}
        events = [10] if schema >= 6 else []
        # 3 to 9 but for those acknowledged ahead of the cursor; 6 was not for the destinations since schema 3.
        six = [] if schema >= 3 else [6]
        assert owed["mqtt"] == [3, *six, 8, 9, *events]
        assert owed["push"] == [1, 2, 3, 4, 5, *six, 7, 8, *events]
        (water,) = await store.batches("mqtt", [9])
        assert [one.value for one in water.readings] == ["18446744073709551615"]
        assert [reason for *_, reason in await store.closed_gaps("ODC1", LOAD)] == ["lost"]
        assert await store.setting("boot_id") == "0011223344556677"
        assert store.invocation_counter("meter/ODC1").next() > 3000
        if 2 <= schema < 8:
            history = await store.load_network_history()
            assert (history.nodes, history.running) == ({"aabb": {"available": True}}, {"now": 1.0})
            assert [change.what for _eui, change in history.changes] == ["joined"]
            assert (len(history.hours), len(history.days)) == (1, 1)
            assert await store.network_signs(FIRST, LAST) == [(T + 0.5, "ODC1", "joined")]
        if schema >= 3:
            assert [row.reason for row in await store.open_gaps("ODC1", LOAD)] == ["busy"]
            assert [row.state for row in await store.task_runs()] == ["done"]
        if schema >= 4:
            assert [entry.operation for entry in await store.audit_entries(9)] == ["disconnect"]
        if schema >= 5:
            assert meters["ODC1"].registration.groups == ("east",)
        if schema >= 6:
            (log,) = await store.batches("push", [10])
            assert [event.kind for event in log.events] == ["tamper"]
        if schema >= 11:
            campaigns, (progress,) = await store.firmware.load()
            assert [(one.name, one.state, one.forgiven) for one in campaigns] == [("spring", "paused", 1)]
            assert (progress.meter, progress.blocks_done, progress.reason) == ("ODC1", 40, "no answer")
        if schema == 7:
            days = await store.read_statistics(lambda c: kpi.meter_days(c, DAY))
            assert (days["ODC1"].stored, days["ODC1"].dialogue_s) == (95, 12.5)
        store.close()
        assert not tables(path) & {*STATISTICS, "acknowledgement"}
        with closing(sqlite3.connect(path)) as connection:
            assert complaints(connection, full=True) == []


async def test_a_cut_while_statistics_move_loses_and_doubles_none(tmp_path, monkeypatch):
    path = old_store(tmp_path / "store.db", 7)

    def cut(_connection):
        raise sqlite3.OperationalError("the power was cut")

    monkeypatch.setattr(statistics, "_drop", cut)
    store = Store(path, SystemClock())
    store.close()
    assert tables(path) >= set(STATISTICS)
    monkeypatch.undo()
    store = Store(path, SystemClock())
    history = await store.load_network_history()
    assert (len(history.changes), len(history.hours), len(history.days)) == (1, 1, 1)
    assert len(await store.read_statistics(lambda c: kpi.days(c, 0))) == 1
    store.close()
    assert not tables(path) & set(STATISTICS)


async def test_statistics_that_cannot_move_yet_stay_where_they_are(tmp_path, monkeypatch):
    path = old_store(tmp_path / "store.db", 7)

    def full(_self):
        raise StoreFullError("no room")

    monkeypatch.setattr(statistics.Database, "fold", full)
    store = Store(path, SystemClock())
    assert len((await store.load_network_history()).changes) == 1
    store.close()
    assert tables(path) >= set(STATISTICS)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 400, None])
async def test_statistics_that_are_missing_or_damaged_stop_nothing(tmp_path, content):
    path = tmp_path / "store.db"
    other = statistics.statistics_path(path)
    if content is None:
        other.mkdir()  # cannot be opened at all
    else:
        other.write_bytes(content)
    store = Store(path, SystemClock())
    await store.save_kpi_day(DAY, {"n": 1}, (), 400)
    assert await store.read_statistics(lambda c: kpi.days(c, 0)) == [(DAY, {"n": 1})]
    store.close()


async def test_statistics_found_damaged_in_use_are_begun_anew(tmp_path):
    path = tmp_path / "store.db"
    store = Store(path, SystemClock())
    for day in range(400):
        await store.save_kpi_day(DAY + day, {"n": "x" * 2000}, (), 10_000)
    store._statistics._database.fold()
    octets = bytearray(statistics.statistics_path(path).read_bytes())
    # What the tables hold, not what says that there are tables.
    octets[65536:] = bytes(len(octets) - 65536)
    statistics.statistics_path(path).write_bytes(octets)
    # What the connections remember is not read again: they look into the file when it has changed.
    store._statistics._database._reading.execute("PRAGMA cache_size = 0")
    assert await store.read_statistics(lambda c: kpi.days(c, 0)) == []
    await store.save_kpi_day(DAY, {"n": 1}, (), 400)
    assert store.state == "in use"
    store.close()
    assert statistics.statistics_path(path).with_name("statistics.db.damaged-1").exists()


def test_a_store_of_a_newer_release_and_another_programs_are_refused(tmp_path):
    path = old_store(tmp_path / "store.db", 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer release"):
        Store(path, SystemClock())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
    with pytest.raises(StoreError, match="another program"):
        Store(path, SystemClock())
    assert "acknowledgement" in tables(path), "nothing was changed"
