"""What the listener to wireless meters remembers over a restart."""

import asyncio

import pytest
from test_wmbus_layers import COMPACT, FULL, OMS_KEY, OMS_MODE_7

from concentrator.clock import SystemClock
from concentrator.collection.radio_listener import RadioListener
from concentrator.model import MeterState
from concentrator.store.store import Store
from concentrator.wmbus.modules.face import TelegramHeard

from bench import until


def listener_on(store):
    return RadioListener(store, SystemClock(), {"12345678": OMS_KEY}, 900)


def heard(octets):
    return TelegramHeard(octets, -70, None)


async def run_shortly(listener):
    task = asyncio.create_task(listener.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_message_counters_and_formats_survive_a_restart(tmp_path):
    async def first():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = listener_on(store)
        await listener.load()
        listener.hear(heard(OMS_MODE_7))
        listener.hear(heard(FULL))
        await run_shortly(listener)
        store.close()

    async def second():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = listener_on(store)
        await listener.load()
        listener.hear(heard(OMS_MODE_7))
        listener.hear(heard(COMPACT))
        store.close()
        return listener

    asyncio.run(first())
    listener = asyncio.run(second())
    assert listener.counters["replays"] == 1
    (kamstrup,) = (record for record in listener.records.values() if record.manufacturer == "KAM")
    assert (kamstrup.state, kamstrup.reason) == (MeterState.ACTIVE, "")


def test_without_a_restart_nothing_is_written_twice(tmp_path):
    class CountingStore(Store):
        writes = 0

        async def keep_setting(self, name, value):
            self.writes += 1
            await super().keep_setting(name, value)

    async def scenario():
        store = CountingStore(tmp_path / "store.db", SystemClock())
        listener = listener_on(store)
        await listener.keep_memory()
        assert store.writes == 0
        listener.hear(heard(FULL))
        await listener.keep_memory()
        await listener.keep_memory()
        assert store.writes == 2  # the format, and how the meter was heard
        store.close()

    asyncio.run(scenario())


def test_kept_memory_that_is_damaged_is_left_out(tmp_path):
    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        await store.keep_setting("wmbus_formats", '["zz"]')
        await store.keep_setting("wmbus_message_counters", "[1]")
        listener = listener_on(store)
        await listener.load()
        listener.hear(heard(OMS_MODE_7))
        store.close()
        return listener

    assert asyncio.run(scenario()).counters["replays"] == 0


def test_a_repeaters_copy_is_not_stored_twice_and_statistics_survive_a_restart(tmp_path):
    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = listener_on(store)
        await listener.load()
        listener.hear(heard(FULL))
        listener.hear(heard(FULL))
        assert (listener.counters["telegrams"], listener.counters["duplicates"]) == (2, 1)
        await run_shortly(listener)
        again = listener_on(store)
        await again.load()
        (name,) = (meter for meter in again.reception if meter)
        assert (again.reception[name].received, again.reception[name].duplicates) == (1, 1)
        assert again.reception[""].received == 2
        store.close()

    asyncio.run(scenario())


def test_a_meter_that_is_not_set_up_is_listed_and_not_stored(tmp_path):
    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = RadioListener(store, SystemClock(), {"12345678": OMS_KEY}, 900, ["kam-99999999"])
        listener.hear(heard(FULL))
        listener.hear(heard(OMS_MODE_7))
        await run_shortly(listener)
        store.close()
        return {record.serial: (record.state, record.reason) for record in listener.records.values()}

    states = asyncio.run(scenario())
    assert states["67676767"] == (MeterState.DISCOVERED, "heard, and not set up")
    assert states["12345678"][0] is MeterState.ACTIVE


@pytest.mark.parametrize(("keys", "believed"), [({}, True), ({"12345678": OMS_KEY}, False)])
def test_a_meter_with_a_key_that_speaks_in_the_clear_is_not_believed(tmp_path, keys, believed):
    address = bytes.fromhex("9315 78563412 3303")
    plain = bytes.fromhex("44") + address + bytes.fromhex("7A 01 00 0000 0C14 77000000")

    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = RadioListener(store, SystemClock(), keys, 900)
        listener.hear(heard(bytes((len(plain),)) + plain))
        (record,) = listener.records.values()
        state = record.state
        listener.hear(heard(OMS_MODE_7))
        listener.hear(heard(FULL))  # of another meter: when it is stored, all before it was
        task = asyncio.create_task(listener.run())
        await until(lambda: listener.counters["stored"] and listener.queued == 0, timeout_s=5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        values = await store.read(lambda c: {value for (value,) in c.execute("SELECT value FROM reading")})
        store.close()
        return state, listener.counters["unprotected"], values

    state, unprotected, values = asyncio.run(scenario())
    assert (77 in values) is believed
    assert state is (MeterState.ACTIVE if believed else MeterState.KEY_WRONG)
    assert unprotected == (not believed)
