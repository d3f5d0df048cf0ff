"""The fleet's side: Mosquitto with shared subscriptions into a real PostgreSQL, through kills of everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from datetime import UTC, datetime, timedelta

import asyncpg
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from concentrator.fleet.database import FleetDatabase
from concentrator.fleet.messages import FleetMessageError, parse_message
from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.outbox import OutgoingBatch
from concentrator.uplink.messages import CBOR, Topics, batch_messages, encode

from bench import LOOPBACK, until
from postgres import Postgres

pytestmark = pytest.mark.system

START = datetime(2026, 11, 20, tzinfo=UTC)
PROFILE = Obis(1, 0, 99, 1, 0)
CHANNELS = [Channel(Obis(1, 0, c, 8, 0), 30, 0, period_s=900) for c in (1, 2)]


@pytest.fixture
def postgres(tmp_path):
    server = Postgres(tmp_path)
    server.start()
    yield server
    server.close()


def batch(concentrator: int, sequence: int, meter: str, first: int, count: int = 4) -> OutgoingBatch:
    """So many intervals of a meter; each value tells where and when it belongs."""
    readings = tuple(
        Reading(channel, START + place * timedelta(minutes=15), 1000 * concentrator + place, 0)
        for channel in CHANNELS
        for place in range(first, first + count)
    )
    return OutgoingBatch(sequence, meter, "electricity", PROFILE, START, readings)


def published(concentrator: int, whole: OutgoingBatch) -> list[tuple[str, bytes]]:
    topics = Topics("lab", f"dcu-{concentrator}")
    return [(one.topic, encode(one.payload())) for one in batch_messages(topics, whole)]


def messages_of(concentrator: int, sequence: int, meter: str, first: int) -> list[tuple[str, bytes]]:
    return published(concentrator, batch(concentrator, sequence, meter, first))


class Consumer:
    """A consumer as a process of its own, as it runs in the field."""

    def __init__(self, bench, postgres, name: str) -> None:
        self._arguments = [
            *(sys.executable, "-m", "concentrator", "fleet-consumer"),
            *(
                "--broker",
                f"mqtt://{LOOPBACK}:{bench.broker.port}",
                "--database",
                postgres.dsn,
                "--name",
                name,
            ),
            *("--most-messages", "50"),
        ]
        self._log = bench.directory / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*self._arguments, stdout=log, stderr=log)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        return await process.wait()


async def rows(postgres, query: str) -> list[tuple]:
    """What a query gives; nothing while the database is away or has no tables yet."""
    try:
        connection = await asyncpg.connect(postgres.dsn, timeout=5)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError):
        return []


READINGS = (
    "SELECT meter.identity, obis, extract(epoch FROM at)::bigint, value"
    " FROM reading JOIN channel USING (channel_id) JOIN meter USING (meter_id)"
)


async def stored(postgres) -> dict[tuple[str, str, int], int]:
    return {(meter, obis, at): value for meter, obis, at, value in await rows(postgres, READINGS)}


class Publisher:
    """Concentrators' publishing, QoS 1, by a plain client: it only goes on when the broker has each message."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


async def test_each_value_once_through_kills_of_consumers_and_database(bench, postgres):
    bench.broker.start()
    consumers = [Consumer(bench, postgres, f"consumer-{number}") for number in (1, 2)]
    for consumer in consumers:
        await consumer.start()
    await until(lambda: all("connected" in consumer.log for consumer in consumers), 30, "both are connected")
    publisher = Publisher(bench.broker.port)
    truth: dict[tuple[str, str, int], int] = {}
    try:
        for number in range(300):
            concentrator, meter = number % 10, f"M{number % 10}"
            whole = batch(concentrator, number + 1, meter, 4 * (number // 10))
            for reading in whole.readings:
                key = (meter, str(reading.channel.obis), round(reading.captured_at.timestamp()))
                truth[key] = int(reading.value)
            for topic, payload in published(concentrator, whole):
                await asyncio.to_thread(publisher.publish, topic, payload)
                if number % 7 == 0:
                    # QoS 1 says at least once.
                    await asyncio.to_thread(publisher.publish, topic, payload)
            if number in (60, 160):
                await consumers[0].stop(signal.SIGKILL)
            if number in (90, 190):
                await consumers[0].start()
            if number == 120:
                await asyncio.to_thread(postgres.kill)
            if number == 150:
                await asyncio.to_thread(postgres.start)
        publisher.publish("dcu/v1/lab/dcu-1/m/M1/reading", b"{")

        async def complete():
            return (await stored(postgres)).keys() >= truth.keys()

        await until(complete, 60, "everything is in the database")
        assert await stored(postgres) == truth

        async def kept_aside():
            return await rows(postgres, "SELECT topic, payload, reason FROM rejected")

        ((topic, payload, reason),) = await until(kept_aside, 20, "what nobody understands is kept aside")
        assert (topic, payload) == ("dcu/v1/lab/dcu-1/m/M1/reading", b"{")
        assert "no JSON" in reason
    finally:
        publisher.close()
        for consumer in consumers:
            assert await consumer.stop() == 0


async def test_the_product_and_its_fleet(bench, postgres):
    """What a real run publishes is what the fleet's database has, state and events included."""
    await bench.start_outside()
    consumer = Consumer(bench, postgres, "consumer-1")
    await consumer.start()
    await until(lambda: "connected" in consumer.log, 30, "connected")
    bench.start_substation()
    bench.write_config(push=None)
    await bench.start_product()
    await bench.until_delivered(90, bench.mqtt.ledger)
    truth = bench.truth()

    async def complete():
        return (await stored(postgres)).keys() >= truth.keys()

    await until(complete, 60, "everything is in the database")
    found = await stored(postgres)
    assert all(found[key] == value for key, value in truth.items())
    ((state, boot_id),) = await rows(postgres, "SELECT state, boot_id FROM concentrator")
    assert state == "online"
    assert boot_id
    assert not await rows(postgres, "SELECT * FROM rejected")
    await bench.stop_product()

    async def offline():
        return await rows(postgres, "SELECT 1 FROM concentrator WHERE state = 'offline'")

    await until(offline, 20, "it said farewell")
    assert await consumer.stop() == 0


async def test_the_later_of_two_wins_in_any_order(postgres):
    database = FleetDatabase(postgres.dsn)
    await database.open()
    first = [parse_message(*one) for one in messages_of(1, 1, "M1", 0)]
    better = batch(1, 2, "M1", 0)
    better = OutgoingBatch(
        2, "M1", "electricity", PROFILE, START,
        tuple(Reading(one.channel, one.captured_at, 77, 0, Quality.ESTIMATED) for one in better.readings),
    )  # fmt: skip
    later = [parse_message(*one) for one in published(1, better)]
    event = OutgoingBatch(
        3,
        "M1",
        "electricity",
        Obis(0, 0, 99, 98, 1),
        START,
        (),
        (MeterEvent(Obis(0, 0, 99, 98, 1), START, 40),),
    )
    events = [parse_message(*one) for one in published(1, event)]
    try:
        await database.store(later + events)
        await database.store(first + later + events + events)
        await database.store(first)
        assert set((await stored(postgres)).values()) == {77}
        assert await rows(postgres, "SELECT count(*), min(quality) FROM reading") == [(8, "estimated")]
        assert await rows(postgres, "SELECT code, count(*) FROM meter_event GROUP BY code") == [(40, 1)]
        # All or nothing: a transaction that fails leaves no trace, and the next one works.
        with pytest.raises(asyncpg.PostgresError):
            await database.store([parse_message(*messages_of(2, 9, "M9", 0)[0])], [("t", b"", "\x00")])
        assert await rows(postgres, "SELECT count(*) FROM concentrator") == [(1,)]
        await database.store([parse_message(*messages_of(2, 9, "M9", 0)[0])])
        assert await rows(postgres, "SELECT count(*) FROM concentrator") == [(2,)]
    finally:
        await database.close()


def test_cbor_says_the_same():
    topic, payload = messages_of(1, 1, "M1", 0)[0]
    assert parse_message(topic, CBOR.encode(json.loads(payload)), CBOR.content_type) == parse_message(
        topic, payload
    )
    assert parse_message(topic, CBOR.encode(json.loads(payload))) == parse_message(topic, payload)


GOOD = json.loads(messages_of(1, 1, "M1", 0)[0][1])


@pytest.mark.parametrize(
    ("topic", "body", "words"),
    [
        ("dcu/v2/lab/d/m/M1/reading", GOOD, "not one of a concentrator"),
        ("dcu/v1/lab/d/m/M1/weather", GOOD, "kind weather"),
        ("dcu/v1/lab/d/m/M1/reading", [], "a JSON object"),
        ("dcu/v1/lab/d/m/M1/reading", {**GOOD, "seq": "1"}, "whole number"),
        ("dcu/v1/lab/d/m/M1/reading", {**GOOD, "seq": 2**63}, "whole number"),
        ("dcu/v1/lab/d/m/M1/reading", {**GOOD, "obis": None}, "text is expected"),
        ("dcu/v1/lab/d/m/M1/reading", {**GOOD, "values": [{"v": 1}]}, "'t'"),
        (
            "dcu/v1/lab/d/m/M1/reading",
            {**GOOD, "values": [{"v": 1, "t": "2026-01-01T00:00:00"}]},
            "with its zone",
        ),
        ("dcu/v1/lab/d/m/M1/reading", {**GOOD, "values": 7}, "TypeError"),
        ("dcu/v1/lab/d/m/M1/register", GOOD, "'items'"),
        ("dcu/v1/lab/d/m/M1/event", GOOD, "'t'"),
    ],
)
def test_what_has_not_its_form_is_refused_in_words(topic, body, words):
    with pytest.raises(FleetMessageError, match=words):
        parse_message(topic, json.dumps(body).encode())


@given(st.text(max_size=40), st.binary(max_size=60))
def test_noise_is_refused(topic, payload):
    with pytest.raises(FleetMessageError):
        parse_message("dcu/v1/" + topic, payload)
