"""What each destination is sent, in which order, and how much of it is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.model import Answer, Channel, MeterRecord, Reading
from concentrator.obis import Obis
from concentrator.store import outbox
from concentrator.store.store import Store
from concentrator.uplink import feed as feed_module
from concentrator.uplink.feed import Feed

from bench import until

PROFILE = Obis(1, 0, 99, 1, 0)
CHANNEL = Channel(Obis(1, 0, 1, 8, 0), unit=30, scaler=0, period_s=900)
START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = START + timedelta(days=3)


def answer(meter: str, slot: int, *, send: bool = True) -> Answer:
    reading = Reading(CHANNEL, START + timedelta(minutes=15 * slot), slot, 0)
    return Answer(meter, PROFILE, (reading,), NOW, send=send)


@pytest.fixture
async def store(tmp_path):
    store = Store(tmp_path / "store.db", SystemClock())
    for name in ("M1", "M2"):
        await store.save_meter(MeterRecord(name))
    yield store
    store.close()


def ranges(connection):
    return connection.execute("SELECT first, last FROM acknowledged_range ORDER BY first").fetchall()


def fill(connection, count: int, meters: int = 2) -> None:
    """Batches without their readings, which counting and numbering do not look at."""
    connection.executemany(
        "INSERT INTO batch (meter_id, profile, first_at, last_at, reading_count, received_at, handling)"
        " VALUES (?, ?, 0, 0, 4, ?, 0)",
        ((1 + number % meters, str(PROFILE), number) for number in range(count)),
    )


@settings(max_examples=60, deadline=None)
@given(
    meant=st.lists(st.booleans(), min_size=1, max_size=30),
    order=st.permutations(range(1, 31)),
    cuts=st.lists(st.integers(1, 8), min_size=1, max_size=20),
)
def test_any_order_of_acknowledgements_comes_to_the_same(tmp_path_factory, meant, order, cuts):
    async def run() -> None:
        store = Store(tmp_path_factory.mktemp("outbox") / "store.db", SystemClock())
        await store.save_meter(MeterRecord("M1"))
        await store.register_destination("a")
        for slot, send in enumerate(meant):
            await store.store_answer(answer("M1", slot, send=send))
        owed = {number for number, send in enumerate(meant, 1) if send}
        left = [number for number in order if number in owed]
        parts = iter(cuts)
        while left:
            count = next(parts, 5)
            part, left = left[:count], left[count:]
            await store.acknowledge("a", part)
            owed -= set(part)
            assert set(await store.pending_numbers("a", 99)) == owed
            (state,) = await store.destination_states()
            assert (state.pending_batches, state.pending_readings) == (len(owed), len(owed))
            kept = await store.read(ranges)
            assert all(last < after for (_first, last), (after, _last) in pairwise(kept))
        assert not owed
        assert await store.read(ranges) == []
        store.close()

    asyncio.run(run())


async def test_what_is_acknowledged_ahead_takes_one_row_however_much_it_is(store):
    await store.register_destination("a")
    await store._database.write(lambda c: fill(c, 50_000))
    for first in range(40_001, 50_001, 250):
        await store.acknowledge("a", range(first, first + 250))
    assert await store.read(ranges) == [(40_001, 50_000)]
    # Batches that are not for the destinations make no hole between ranges.
    await store._database.write(
        lambda c: c.execute("UPDATE batch SET handling = 1 WHERE sequence BETWEEN 39901 AND 40000")
    )
    await store.acknowledge("a", range(39_801, 39_901))
    assert await store.read(ranges) == [(39_801, 50_000)]
    await store.acknowledge("a", range(1, 39_801))
    (state,) = await store.destination_states()
    assert (state.cursor, state.pending_batches, await store.read(ranges)) == (50_000, 0, [])


async def test_a_backlog_of_72_hours_is_counted_and_begun_in_moments(store):
    await store.register_destination("a")
    await store._database.write(lambda c: fill(c, 288_000))
    await store.acknowledge("a", range(200_001, 288_001))
    began = time.process_time()
    (state,) = await store.destination_states()
    assert state.pending_batches == 200_000
    assert state.pending_readings == 800_000
    assert len(await store.pending_numbers("a", 200)) == 200
    assert len(await store.newest_of_each("a", 288_000)) == 2
    # Processor time, as the machine may be busy; a tenth of this on an idle desktop.
    assert time.process_time() - began < 3


async def test_retired_destinations_are_told_kept_and_can_be_forgotten(store):
    for name in ("a", "b"):
        await store.register_destination(name)
    number = (await store.store_answer(answer("M1", 0))).sequence
    await store.acknowledge("a", [number])
    assert await store.retire_destinations(["a"]) == ["b"]
    assert await store.retire_destinations(["a"]) == []
    states = {state.name: state for state in await store.destination_states()}
    assert states["a"].retired_at is None
    assert states["b"].retired_at is not None
    # It was only away: configured again it goes on where it was.
    await store.register_destination("b")
    assert await store.pending_numbers("b", 9) == [number]
    assert not await store._database.write(lambda c: outbox.forget_destination(c, "b")), "it is in use"
    await store.retire_destinations(["a"])
    assert await store._database.write(lambda c: outbox.forget_destination(c, "b"))
    assert [state.name for state in await store.destination_states()] == ["a"]


@pytest.fixture
async def fed(store, monkeypatch):
    monkeypatch.setattr(feed_module, "_SHORT_BACKLOG_BATCHES", 10)
    monkeypatch.setattr(feed_module, "_READ_AHEAD_BATCHES", 8)
    monkeypatch.setattr(feed_module, "_LIVE_SHARE_BATCHES", 2)
    feed = Feed(store, "a")
    running = asyncio.ensure_future(feed.run())
    await until(store.destination_states, 10)
    yield feed
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_short_backlog_leaves_in_its_order(store, fed):
    numbers = [(await store.store_answer(answer("M1", slot))).sequence for slot in range(9)]
    assert [(await fed.next_batch()).sequence for _ in numbers] == numbers


async def test_after_an_outage_the_newest_comes_first_and_live_data_has_a_share(store, fed):
    backlog = [
        (await store.store_answer(answer(meter, slot))).sequence
        for slot in range(20)
        for meter in ("M1", "M2")
    ]
    sent = [(await fed.next_batch()).sequence for _ in range(2)]
    assert sent == [backlog[-1], backlog[-2]], "the newest of each meter"
    live = [(await store.store_answer(answer("M1", slot))).sequence for slot in range(30, 40)]
    sent += [(await fed.next_batch()).sequence for _ in range(48)]
    assert sorted(sent) == sorted(backlog + live), "each once"
    rest = sent[2:]
    assert [number for number in rest if number in backlog] == backlog[:-2], "oldest first"
    assert [number for number in rest if number in live] == live
    share = [number in live for number in rest[:32]]
    assert all(sum(share[start : start + 8]) == 2 for start in range(0, 32, 8))


@pytest.mark.parametrize("question", ["newest_of_each", "batches", "pending"])
async def test_what_is_acknowledged_while_the_store_answers_is_not_sent_again(
    store, fed, monkeypatch, question
):
    backlog = [(await store.store_answer(answer("M1", slot))).sequence for slot in range(30)]
    newest = (await fed.next_batch()).sequence
    answered = getattr(store, question)

    async def slow(*arguments, **named):
        found = await answered(*arguments, **named)
        # The answer is on its way; the acknowledgement is on flash before it arrives.
        if newest not in fed._acknowledged:
            fed.acknowledged(newest)

            async def kept() -> bool:
                return newest not in await store.pending_numbers("a", 99) and not fed._acknowledged

            await until(kept, 10)
        return found

    fed.start_again()
    monkeypatch.setattr(store, question, slow)
    assert sorted([(await fed.next_batch()).sequence for _ in range(29)]) == sorted(set(backlog) - {newest})


async def test_a_lost_connection_sends_what_is_not_acknowledged_and_nothing_else(store, fed):
    backlog = [(await store.store_answer(answer("M1", slot))).sequence for slot in range(30)]
    sent = [(await fed.next_batch()).sequence for _ in range(12)]
    for number in sent[:7]:
        fed.acknowledged(number)
    fed.start_again()
    again = [(await fed.next_batch()).sequence for _ in range(30 - 7)]
    assert sorted(again) == sorted(set(backlog) - set(sent[:7]))

    async def kept() -> bool:
        return len(await store.pending_numbers("a", 99)) == 23

    await until(kept, 10)
    # A restart: another feed, on what is kept.
    other = Feed(store, "a")
    third = [(await other.next_batch()).sequence for _ in range(23)]
    assert sorted(third) == sorted(again)
