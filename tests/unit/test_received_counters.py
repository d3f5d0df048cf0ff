"""Received invocation counters outlive an association and the service; a replay is refused and counted."""

import asyncio
from datetime import UTC, datetime

import pytest

from concentrator.clock import SystemClock
from concentrator.collection.keyring import MeterKeys
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.errors import ReplyTimeoutError
from concentrator.dlms.security import MemoryCounter
from concentrator.obis import Obis
from concentrator.simulator.meter import SimulatedMeter
from concentrator.store.store import Store

from dlms_talk import talk

NOW = datetime(2026, 7, 3, 12, 5, tzinfo=UTC)
KEYS = MeterKeys(b"encryption key 1", b"authentication 1")
OTHER = MeterKeys(b"encryption key 2", b"authentication 1")
TITLE = b"ODC\0\0\0\0\1"


def with_store(path, work):
    async def run():
        store = Store(path, SystemClock())
        counters = ReceivedCounters(store)
        await counters.load()
        try:
            return await work(store, counters)
        finally:
            await counters.keep()
            store.close()

    return asyncio.run(run())


def test_counters_are_kept_by_meter_and_key(tmp_path):
    path = tmp_path / "store.db"

    async def receive(_store, counters):
        found = counters.of("02aa", KEYS)
        assert found == {}
        found[TITLE, "unicast"] = 41
        found[TITLE, "dedicated"] = 7
        counters.of("02bb", KEYS)[TITLE, "unicast"] = 5

    async def again(_store, counters):
        assert counters.of("02aa", KEYS) == {(TITLE, "unicast"): 41}
        # With a new key the meter begins a new count, and of the old one nothing comes any more.
        assert counters.of("02aa", OTHER) == {}
        assert counters.of("02aa", KEYS) == {}
        assert counters.of("02bb", KEYS) == {(TITLE, "unicast"): 5}

    with_store(path, receive)
    with_store(path, again)
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"dlms_received_counters" in content
    for secret in (KEYS.encryption_key, OTHER.encryption_key, KEYS.authentication_key):
        assert secret not in content
        assert secret.hex().encode() not in content


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"a": {"zz/unicast": 1}}', '{"a": {"00": "x"}}']
)
def test_a_setting_that_makes_no_sense_is_passed_over(tmp_path, text):
    async def spoil(store, _counters):
        await store.keep_setting("dlms_received_counters", text)

    async def again(_store, counters):
        assert counters.of("02aa", KEYS) == {}

    with_store(tmp_path / "store.db", spoil)
    with_store(tmp_path / "store.db", again)


def test_what_was_heard_before_the_restart_is_a_replay_after_it(tmp_path):
    meter = SimulatedMeter("30000007", 11, lambda: NOW, clock_offset_s=0)
    keys = MeterKeys(meter.keys.encryption, meter.keys.authentication)
    clock = AttributeDescriptor(8, Obis.parse("0.0.1.0.0.255"), 2)
    recorded, sent = [], MemoryCounter(1)

    def dialogue(counters, upset):
        settings = ClientSettings(
            client_sap=1, mechanism=AuthenticationMechanism.HLS_GMAC, keys=meter.keys, system_title=TITLE
        )
        client = Client(settings, sent)
        client.security.received_counters = counters.of("02aa", keys)
        talk(meter.server, client.associate(), (1, 1))
        try:
            talk(meter.server, client.get(clock), (1, 1), upset=upset)
        finally:
            refused = client.security.replays
        return refused

    def record(replies):
        recorded.extend(replies)
        return replies

    async def before(_store, counters):
        assert dialogue(counters, record) == 0

    async def after(_store, counters):
        with pytest.raises(ReplyTimeoutError):
            dialogue(counters, lambda _replies: recorded)
        # The answers of the meter itself still rise.
        assert dialogue(counters, lambda replies: replies) == 0

    with_store(tmp_path / "store.db", before)
    with_store(tmp_path / "store.db", after)
