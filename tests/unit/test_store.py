"""The store: once, in order, and nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.clock import SystemClock
from concentrator.model import Answer, Channel, MeterRecord, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.database import damage_mark
from concentrator.store.errors import StoreError, StoreUnavailableError, StoreVersionError
from concentrator.store.migrations import APPLICATION_ID
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store

PROFILE = Obis(1, 0, 99, 1, 0)
IMPORT = Channel(Obis(1, 0, 1, 8, 0), unit=30, scaler=0, period_s=900)
EXPORT = Channel(Obis(1, 0, 2, 8, 0), unit=30, scaler=0, period_s=900)
START = datetime(2026, 11, 1, tzinfo=UTC)


def answer(
    first: int, count: int, meter: str = "M1", offset: int = 0, quality: Quality = Quality.VALID
) -> Answer:
    readings = tuple(
        Reading(channel, START + timedelta(minutes=15 * n), 100 * n + offset, 0, quality)
        for channel in (IMPORT, EXPORT)
        for n in range(first, first + count)
    )
    return Answer(meter, PROFILE, readings, START + timedelta(days=2))


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.save_meter(MeterRecord("M1"))
    yield store
    store.close()


async def test_a_reading_is_stored_once_however_often_it_comes(store):
    first = await store.store_answer(answer(0, 96))
    again = await store.store_answer(answer(0, 96))
    overlapping = await store.store_answer(answer(90, 12))
    assert (first.new, first.repeated) == (192, 0)
    assert (again.sequence, again.new, again.repeated) == (None, 0, 192)
    assert (overlapping.new, overlapping.repeated) == (12, 12)
    times = await store.stored_times("M1", PROFILE, START, START + timedelta(days=3))
    assert len(times) == 102


async def test_a_different_value_wins_only_with_better_quality(store):
    await store.store_answer(answer(0, 1, quality=Quality.CLOCK_DOUBTFUL))
    better = await store.store_answer(answer(0, 1, offset=7))
    assert better.new == 2
    worse = await store.store_answer(answer(0, 1, offset=9, quality=Quality.SUSPECT))
    assert (worse.new, worse.different) == (0, 2)
    values = await store.read(lambda c: c.execute("SELECT DISTINCT value FROM reading").fetchall())
    assert values == [(7,)]
    events = await store.read(lambda c: c.execute("SELECT code FROM event").fetchall())
    assert events == [("value_differs",)] * 4


async def test_the_view_for_people_spells_everything_out(store):
    await store.store_answer(answer(4, 1))
    row = await store.read(lambda c: c.execute("SELECT * FROM reading_in_full").fetchone())
    assert row[:9] == ("M1", "1-0:99.1.0*255", "1-0:1.8.0*255", 30, 0, 400, 0, 0, "2026-11-01T01:00:00Z")


async def test_an_unknown_meter_is_refused(store):
    with pytest.raises(KeyError):
        await store.store_answer(answer(0, 1, meter="nobody"))


async def test_the_outbox_keeps_what_is_not_acknowledged_in_order(store):
    await store.register_destination("a")
    await store.register_destination("b")
    sequences = [(await store.store_answer(answer(n * 4, 4))).sequence for n in range(5)]
    await store.acknowledge("a", [sequences[0], sequences[1], sequences[3]])
    left = await store.pending("a", 0, 10)
    assert [batch.sequence for batch in left] == [sequences[2], sequences[4]]
    assert [batch.sequence for batch in await store.pending("b", 0, 10)] == sequences
    assert [reading.value for reading in left[0].readings] == [800, 900, 1000, 1100] * 2
    states = {state.name: state for state in await store.destination_states()}
    assert states["a"].cursor == sequences[1]
    assert (states["a"].pending_batches, states["a"].pending_readings) == (2, 16)
    await store.acknowledge("a", [sequences[2], sequences[4]])
    assert await store.pending("a", 0, 10) == []
    assert (await store.read(lambda c: c.execute("SELECT COUNT(*) FROM acknowledged_range").fetchone()))[
        0
    ] == 0


async def test_a_corrected_reading_leaves_with_its_new_batch_only(store):
    await store.register_destination("a")
    await store.store_answer(answer(0, 2, quality=Quality.SUSPECT))
    corrected = await store.store_answer(answer(0, 1, offset=5))
    first, second = await store.pending("a", 0, 10)
    assert [reading.value for reading in first.readings] == [100, 100]
    assert second.sequence == corrected.sequence
    assert [reading.value for reading in second.readings] == [5, 5]


async def test_everything_is_there_after_reopening(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.save_meter(MeterRecord("M1", serial="123"))
    await store.register_destination("a")
    stored = await store.store_answer(answer(0, 4))
    await store.keep_gaps(
        "M1",
        PROFILE,
        (),
        [(*map(to_epoch, (START, START + timedelta(hours=1))), "the meter has no data for it")],
    )
    store.close()
    store = Store(tmp_path / "store.db", SystemClock())
    assert [record.serial for record in await store.load_meters()] == ["123"]
    assert [batch.sequence for batch in await store.pending("a", 0, 10)] == [stored.sequence]
    assert len(await store.closed_gaps("M1", PROFILE)) == 1
    store.close()


async def test_a_sequence_is_never_given_twice_even_after_a_purge(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.save_meter(MeterRecord("M1"))
    await store.register_destination("a")
    old = await store.store_answer(answer(0, 4))
    assert await store.purge(timedelta(days=1)) == 0, "not acknowledged: stays"
    await store.acknowledge("a", [old.sequence])
    assert await store.purge(timedelta(seconds=1)) == 8
    new = await store.store_answer(answer(0, 4))
    assert new.sequence > old.sequence
    assert [batch.sequence for batch in await store.pending("a", 0, 10)] == [new.sequence]
    store.close()


async def test_invocation_counters_never_repeat_across_crashes(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    counter = store.invocation_counter("meter/1")
    given = [counter.next() for _ in range(1500)]
    store.close()
    # The process died: what it had reserved and not used is lost, nothing is used again.
    store = Store(tmp_path / "store.db", SystemClock())
    counter = store.invocation_counter("meter/1")
    given += [counter.next() for _ in range(10)]
    counter.raise_to(1_000_000)
    given += [counter.next() for _ in range(3)]
    store.close()
    assert given == sorted(set(given))
    assert given[-3] >= 1_000_000


async def test_a_damaged_file_is_set_aside_and_polling_can_go_on(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)
    store = Store(path, SystemClock())
    assert store.set_aside is not None
    assert store.set_aside.read_bytes().startswith(b"this is no")
    await store.save_meter(MeterRecord("M1"))
    assert (await store.store_answer(answer(0, 4))).new == 8
    store.close()


def test_a_newer_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreVersionError, match="newer release"):
        Store(path, SystemClock())
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("PRAGMA application_id = 12345")
    with pytest.raises(StoreVersionError, match="another program"):
        Store(other, SystemClock())


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / "file" / "store.db", SystemClock())


async def test_a_full_disk_is_a_state_and_passes(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.save_meter(MeterRecord("M1"))
    database = store._database
    pages = database._writing.execute("PRAGMA page_count").fetchone()[0]
    database._writing.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        await store.store_answer(answer(0, 5000))
    assert "full" in store.unavailable
    assert await store.stored_times("M1", PROFILE, START, START + timedelta(days=99)) == set()
    database._writing.execute("PRAGMA max_page_count = 1073741823")
    assert (await store.store_answer(answer(0, 5000))).new == 10000
    assert store.unavailable == ""
    store.close()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (sqlite3.SQLITE_FULL, "disk full"),
        (sqlite3.SQLITE_READONLY, "read-only"),
        (sqlite3.SQLITE_CANTOPEN, "read-only"),
        (sqlite3.SQLITE_IOERR_WRITE, "input/output error"),
        (sqlite3.SQLITE_CORRUPT_VTAB, "damaged"),
        (sqlite3.SQLITE_NOTADB, "damaged"),
        (sqlite3.SQLITE_BUSY, "busy"),
    ],
)
@pytest.mark.parametrize("reading", [True, False])
async def test_what_sqlite_refuses_is_a_state_by_name(tmp_path, code, state, reading):
    store = Store(tmp_path / "store.db", SystemClock())

    def refuse(_connection):
        error = sqlite3.OperationalError("refused")
        error.sqlite_errorcode = code
        raise error

    with pytest.raises(StoreUnavailableError, match="refused"):
        await (store._database.read(refuse) if reading else store._database.write(refuse))
    assert store.state == state
    assert "refused" in store.unavailable
    if state == "damaged":
        await asyncio.wait_for(store.until_damaged(), 1)
    await (store.setting("x") if reading else store.keep_setting("x", "y"))
    assert store.state == "in use"
    store.close()
    # What was found damaged is not trusted again, whatever a check finds.
    store = Store(tmp_path / "store.db", SystemClock())
    assert (store.set_aside is not None) == (state == "damaged")
    store.close()


async def test_a_connection_that_may_not_write_is_the_state_read_only(store):
    store._database._writing.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreUnavailableError):
        await store.keep_setting("a", "b")
    assert store.state == "read-only"
    store._database._writing.execute("PRAGMA query_only = 0")
    await store.keep_setting("a", "b")
    assert store.state == "in use"


async def test_numbers_go_on_above_those_of_a_damaged_file(tmp_path):
    path = tmp_path / "store.db"
    store = Store(path, SystemClock())
    await store.save_meter(MeterRecord("M1"))
    counter = store.invocation_counter("meter/1")
    counter.raise_to(4_000_000_000)
    used = counter.next()
    old = (await store.store_answer(answer(0, 4))).sequence
    store.close()
    damage_mark(path).write_text("a page was wrong")
    store = Store(path, SystemClock())
    assert store.set_aside is not None
    await store.save_meter(MeterRecord("M1"))
    assert (await store.store_answer(answer(0, 4))).sequence > old + 1_000_000
    assert store.invocation_counter("meter/1").next() > used
    assert store.invocation_counter("meter/2").next() > 1_700_000_000
    assert not damage_mark(path).exists()
    store.close()


async def test_nobody_else_may_read_the_files(tmp_path):
    path = tmp_path / "store.db"
    path.touch(0o644)
    path.chmod(0o644)
    store = Store(path, SystemClock())
    await store.save_meter(MeterRecord("M1"))
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert set(modes) >= {"store.db", "store.db-wal", "store.db-shm", "statistics.db", "statistics.db-wal"}
    assert {mode & 0o137 for mode in modes.values()} == {0}
    store.close()
