"""What leaves the store, and in which order."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.clock import SystemClock
from concentrator.model import Answer, Channel, MeterRecord, Reading
from concentrator.obis import Obis
from concentrator.store import retention
from concentrator.store.store import Store

LOAD = Obis(1, 0, 99, 1, 0)
QUALITY = Obis(1, 0, 99, 14, 0)
CHANNEL = Channel(Obis(1, 0, 1, 8, 0), unit=30, scaler=0, period_s=900)
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def answer(days_ago: float, profile: Obis = LOAD, rows: int = 400, meter: str = "M1") -> Answer:
    start = NOW - days_ago * DAY
    readings = tuple(Reading(CHANNEL, start + timedelta(seconds=n), n, 0) for n in range(rows))
    return Answer(meter, profile, readings, NOW)


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    await store.save_meter(MeterRecord("M1"))
    yield store
    store.close()


async def count(store, profile: Obis = LOAD) -> int:
    return await store.read(
        lambda c: c.execute(
            "SELECT COUNT(*) FROM reading JOIN channel USING (channel_id) WHERE profile = ?", (str(profile),)
        ).fetchone()[0]
    )


async def test_readings_older_than_retention_are_gone_without_any_destination(store):
    await store.store_answer(answer(50))
    await store.store_answer(answer(2))
    await store.keep_gaps("M1", LOAD, (), [(1, 2, "old"), (1, int(NOW.timestamp()), "new")])
    assert await store.purge(45 * DAY) == 400
    assert await count(store) == 400
    left = await store.read(lambda c: c.execute("SELECT MIN(captured_at) FROM reading").fetchone()[0])
    assert left > (NOW - 45 * DAY).timestamp()
    assert [reason for *_, reason in await store.closed_gaps("M1", LOAD)] == ["new"]


async def test_a_destination_holds_back_only_what_it_lacks_and_a_retired_one_nothing(store):
    await store.register_destination("a")
    numbers = [(await store.store_answer(answer(60 - day))).sequence for day in range(4)]
    # The first cannot be delivered; those behind it are not kept because of that.
    await store.acknowledge("a", numbers[1:])
    assert await store.purge(45 * DAY) == 1200
    assert await store.pending_numbers("a", 9) == numbers[:1]
    await store.retire_destinations([])
    assert await store.purge(45 * DAY) == 400


async def test_a_purge_goes_in_transactions_of_at_most_a_thousand_rows(store, monkeypatch):
    await store.store_answer(answer(60, rows=3500))
    for day in range(4):
        await store.store_answer(answer(58 - day))
    sizes = []
    original = store._database.write

    async def write(work):
        def counted(connection: sqlite3.Connection):
            before = connection.execute("SELECT COUNT(*) FROM reading").fetchone()[0]
            result = work(connection)
            sizes.append(before - connection.execute("SELECT COUNT(*) FROM reading").fetchone()[0])
            return result

        return await original(counted)

    monkeypatch.setattr(store._database, "write", write)
    assert await store.purge(45 * DAY) == 5100
    assert max(sizes) == 1000
    assert await count(store) == 0


async def test_room_is_made_by_sent_data_first_then_statistics_then_billing(store):
    await store.register_destination("a")
    sent = (await store.store_answer(answer(3, rows=5000))).sequence
    await store.acknowledge("a", [sent])
    await store.store_answer(answer(9, rows=5000))
    two = await store.read(retention.used_octets)
    await store.store_answer(answer(8, QUALITY, rows=5000))
    used = await store.read(retention.used_octets)
    one = used - two
    # A little: what was sent goes, though it is the newest.
    assert await store.house.make_room(used - one // 3)
    assert await count(store) > 5000 - 1
    assert await count(store, QUALITY) == 5000
    assert store.house.lost == 0
    # More: statistics go before what is billed.
    assert await store.house.make_room(used - one - one // 2)
    assert (await count(store), await count(store, QUALITY) < 5000) == (5000, True)
    lost = store.house.lost
    assert lost > 0
    # All: the oldest of what is billed.
    assert await store.house.make_room(used - 2 * one - one // 2)
    assert 0 < await count(store) < 5000
    assert store.house.lost > lost
    told = await store.read(
        lambda c: c.execute("SELECT detail FROM event WHERE code = 'readings_lost'").fetchall()
    )
    assert "unsent statistics" in told[0][0]
    assert "unsent billing data" in told[-1][0]
    assert "1 meters" in told[0][0]
    # They are not asked for again.
    gaps = await store.closed_gaps("M1", LOAD)
    assert {reason for *_, reason in gaps} == {retention.REMOVED_REASON}
    assert len(gaps) <= 2


async def test_space_is_given_back_where_there_is_much(store, tmp_path):
    for day in range(10):
        await store.store_answer(answer(60 - day, rows=5000))
    await store._database.checkpoint()
    before = (tmp_path / "store.db").stat().st_size
    await store.purge(45 * DAY)
    await store.house.give_back_space()
    await store._database.checkpoint()
    assert (tmp_path / "store.db").stat().st_size < before / 3


async def test_the_wal_is_cut_at_rest_and_a_reader_that_holds_it_is_told(store, tmp_path, monkeypatch):
    wal = tmp_path / "store.db-wal"
    await store.store_answer(answer(1))
    assert wal.stat().st_size > 0
    await store.house.checkpoint_if_idle(3600)
    assert wal.stat().st_size > 0, "it was written a moment ago"
    await store.house.checkpoint_if_idle(0)
    assert wal.stat().st_size == 0
    reader = sqlite3.connect(tmp_path / "store.db")
    rows = reader.execute("SELECT * FROM reading")
    rows.fetchone()
    monkeypatch.setattr("concentrator.store.house._LONG_WAL_OCTETS", 100_000)
    await store.store_answer(answer(2, rows=5000))
    await store.house.checkpoint_if_idle(3600)
    assert "reader holds on" in store.house.checkpoint_blocked
    assert store.state == "in use"
    rows.close()
    reader.close()
    await store.house.checkpoint_if_idle(3600)
    assert (store.house.checkpoint_blocked, wal.stat().st_size) == ("", 0)
