"""Orders are carried out once, in their time, over a restart too, and never dropped in silence."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from virtual_substation import VirtualSubstation, in_virtual_time

from concentrator.collection.control.errors import OutcomeOpenError
from concentrator.collection.order_book import OrderBook, OrderExpiredError
from concentrator.collection.registry import CollectedMeter
from concentrator.errors import LocalError, TransientError
from concentrator.model import MeterRecord
from concentrator.orders import MQTT, Order, OrderError, OrderRefusedError
from concentrator.simulator.virtual_loop import VirtualClock
from concentrator.store.store import Store

START = datetime(2026, 11, 17, 12, tzinfo=UTC)


class AwayError(TransientError):
    """The meter is not there."""


class Bench:
    """A book with a handler that does what the test says."""

    def __init__(self, folder, start=START):
        self.clock = VirtualClock(asyncio.get_running_loop(), start)
        self.store = Store(folder / "store.db", self.clock)
        self.done = []
        self.told = []
        self.away_until = 0.0
        self.book = OrderBook(self.store, self.clock, self.handle, self.tell)

    async def handle(self, order):
        await asyncio.sleep(1.0)
        if self.clock.monotonic() < self.away_until:
            raise AwayError("the meter is away")
        if order.operation == "refused":
            raise LocalError("it refuses")
        self.done.append((order.order_id, round(self.clock.monotonic())))
        if order.operation == "lost":
            raise OutcomeOpenError("it is not known whether it was done")
        if order.operation == "broken":
            raise KeyError("what nobody thought of")
        if order.operation == "list":
            return {"meters": ["M" * 100] * 100}
        return {"value": 7}

    def tell(self, order, state, outcome):
        self.told.append((order.order_id, state, outcome))

    async def close(self):
        await self.book.close()
        self.store.close()


@in_virtual_time
async def test_an_order_is_carried_out_and_told(tmp_path):
    bench = Bench(tmp_path)
    assert await bench.book.carry_out(Order("a", "read", "M1")) == {"value": 7}
    assert bench.told == [("a", "accepted", {}), ("a", "running", {}), ("a", "done", {"value": 7})]
    with pytest.raises(LocalError, match="it refuses"):
        await bench.book.carry_out(Order("b", "refused", "M1"))
    assert bench.told[-1] == ("b", "failed", {"error": "it refuses"})
    await bench.close()


@in_virtual_time
async def test_an_order_that_comes_twice_is_done_once_and_told_twice(tmp_path):
    bench = Bench(tmp_path)
    order = Order("a", "disconnect", "M1", origin=MQTT)
    assert await bench.book.carry_out(order) == {"order": "a", "state": "accepted"}
    assert (await bench.book.carry_out(order))["order"] == "a"
    await asyncio.sleep(5)
    assert await bench.book.carry_out(order) == {"value": 7}
    assert bench.done == [("a", 1)]
    assert [state for _, state, _ in bench.told] == ["accepted", "running", "done", "done"]
    with pytest.raises(OrderRefusedError, match="another order had this id"):
        await bench.book.carry_out(Order("a", "reconnect", "M1", origin=MQTT))
    await bench.close()


@in_virtual_time
async def test_not_before_its_time_and_over_a_restart(tmp_path):
    bench = Bench(tmp_path)
    order = Order("a", "read", "M1", {"x": 1}, not_before=START + timedelta(hours=1), deferred=True)
    assert await bench.book.carry_out(order) == {"order": "a", "state": "accepted"}
    await asyncio.sleep(1800)
    await bench.close()
    bench = Bench(tmp_path)
    await bench.book.load()
    await asyncio.sleep(1700)
    assert bench.done == []
    await asyncio.sleep(200)
    assert [name for name, _ in bench.done] == ["a"]
    state = await bench.book.carry_out(Order("q", "order_state", arguments={"id": "a"}))
    assert (state["state"], state["result"]) == ("done", {"value": 7})
    await bench.close()
    bench = Bench(tmp_path)
    await bench.book.load()
    await asyncio.sleep(60)
    assert bench.done == []
    assert bench.book.listed()[0]["state"] == "done"
    await bench.close()


@in_virtual_time
async def test_tried_until_the_latest_time_then_expired_with_the_reason(tmp_path):
    bench = Bench(tmp_path)
    bench.away_until = 600.0
    until = START + timedelta(seconds=300)
    with pytest.raises(
        OrderExpiredError, match=r"order a: expired at 2026-11-17T12:05:00.*: the meter is away"
    ):
        await bench.book.carry_out(Order("a", "read", "M1", not_after=until))
    assert bench.told[-1][1] == "expired"
    assert await bench.book.carry_out(Order("b", "read", "M1", not_after=until + timedelta(hours=1))) == {
        "value": 7
    }
    assert 600 <= bench.done[0][1] <= 640
    bench.away_until = 9e9
    with pytest.raises(AwayError):
        await bench.book.carry_out(Order("c", "read", "M1"))
    await bench.close()


@in_virtual_time
async def test_a_cancelled_order_is_not_carried_out(tmp_path):
    bench = Bench(tmp_path)
    await bench.book.carry_out(Order("a", "read", "M1", not_before=START + timedelta(hours=1), deferred=True))
    state = await bench.book.carry_out(Order("x", "cancel_order", arguments={"id": "a"}))
    assert (state["state"], state["error"]) == ("failed", "cancelled by order x")
    await asyncio.sleep(7200)
    assert bench.done == []
    with pytest.raises(OrderError, match="order a is over"):
        await bench.book.carry_out(Order("y", "cancel_order", arguments={"id": "a"}))
    with pytest.raises(OrderError, match="no order 'z' is known"):
        await bench.book.carry_out(Order("y", "order_state", arguments={"id": "z"}))
    await bench.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"priority": 0}, "priority: got 0; allowed: 1, 2 or 3"),
        ({"priority": True}, "priority: got True"),
        ({"deferred": "yes"}, "deferred: got 'yes'; allowed: true or false"),
        ({"not_before": "tomorrow"}, "not_before: got 'tomorrow'; allowed: an RFC 3339 time"),
        (
            {"not_before": "2026-01-02T00:00:00Z", "not_after": "2026-01-01T00:00:00Z"},
            "not_after: is not after not_before",
        ),
    ],
)
def test_wrong_fields_are_named(fields, words):
    with pytest.raises(OrderError, match=words):
        Order.from_payload({"id": "a", "op": "ping", **fields}, MQTT)


def test_an_order_s_payload_gives_it_again():
    order = Order("a", "read", "M1", {"obis": "1.8.0"}, START, MQTT, START - timedelta(hours=1), 1, True)
    assert Order.from_payload(order.payload(), MQTT) == order


@in_virtual_time
async def test_a_command_that_went_out_is_not_sent_again_before_its_latest_time(tmp_path):
    bench = Bench(tmp_path)
    order = Order("a", "lost", "M1", not_after=START + timedelta(hours=1))
    with pytest.raises(OutcomeOpenError, match="not known"):
        await bench.book.carry_out(order)
    await asyncio.sleep(3600)
    assert len(bench.done) == 1
    assert bench.told[-1][1] == "failed"
    await bench.close()


@in_virtual_time
async def test_whoever_gave_an_order_that_breaks_is_told(tmp_path):
    bench = Bench(tmp_path)
    async with asyncio.timeout(60):
        with pytest.raises(OrderError, match="order a: internal error: KeyError"):
            await bench.book.carry_out(Order("a", "broken", "M1"))
    assert bench.told[-1][1] == "failed"
    await bench.close()


@in_virtual_time
async def test_arguments_leave_the_store_when_an_order_is_over_and_it_is_still_known(tmp_path):
    bench = Bench(tmp_path)
    order = Order("a", "enter_token", "M1", {"token": "12345678901234567890"}, origin=MQTT)
    await bench.book.carry_out(order)
    await asyncio.sleep(5)
    await bench.close()
    bench = Bench(tmp_path)
    (row,) = await bench.store.given_orders()
    assert "12345678901234567890" not in row.payload
    await bench.book.load()
    assert await bench.book.carry_out(order) == {"value": 7}
    assert bench.done == []
    with pytest.raises(OrderRefusedError, match="another order had this id"):
        await bench.book.carry_out(Order("a", "enter_token", "M1", {"token": "1"}, origin=MQTT))
    await bench.close()


@in_virtual_time
async def test_long_results_that_were_waited_for_are_not_remembered(tmp_path):
    bench = Bench(tmp_path)
    assert len((await bench.book.carry_out(Order("a", "list")))["meters"]) == 100
    assert bench.book.listed()[0]["result"] == {"note": "too long to be remembered"}
    await bench.close()


@in_virtual_time
async def test_an_order_for_a_meter_off_the_network_waits_for_it_until_its_latest_time(tmp_path):
    substation = VirtualSubstation(tmp_path, count=1)
    for number in (1, 9):
        record = MeterRecord(f"ODC001000000{number}", link="plc", link_address=f"020dc000000{number}")
        substation.collector.registry.add(CollectedMeter(record))
    book = OrderBook(substation.store, substation.clock, substation.collector.carry_out)
    until = substation.clock.now() + timedelta(minutes=10)
    reading = {"obis": "1-0:1.8.0*255"}
    async with substation.running():
        came = await book.carry_out(Order("a", "read", "ODC0010000001", reading, not_after=until))
        assert came["value"] > 0
        with pytest.raises(OrderExpiredError, match=r"expired at .* is not on the network"):
            await book.carry_out(Order("b", "read", "ODC0010000009", reading, not_after=until))
        await book.close()
