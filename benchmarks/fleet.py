"""The fleet's consumer: values per second from a real Mosquitto into a real PostgreSQL.

The need: 1,000 concentrators with 1,000 meters of 4 channels in quarters of an hour are 384 million values a day, 4,445
a second. The limit: the same rows by COPY and merge in one process, without broker and messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from concentrator.fleet.consumer import FleetConsumer, FleetSettings
from concentrator.fleet.database import FleetDatabase
from concentrator.fleet.messages import parse_message
from concentrator.model import Channel, Reading
from concentrator.obis import Obis
from concentrator.store.outbox import OutgoingBatch
from concentrator.uplink.messages import Topics, batch_messages, encode

from bench import LOOPBACK, Mosquitto
from postgres import Postgres

NEEDED_PER_S = 1000 * 1000 * 4 * 96 / 86_400
START = datetime(2026, 11, 20, tzinfo=UTC)
CHANNELS = [Channel(Obis(1, 0, c, 8, 0), 30, 0, period_s=900) for c in (1, 2, 3, 4)]
PROFILE = Obis(1, 0, 99, 1, 0)


def messages(batches: int, concentrators: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Batches of a meter's day, as so many concentrators in turn would send them."""
    result: list[tuple[str, bytes]] = []
    times = [START + place * timedelta(minutes=15) for place in range(96)]
    for number in range(first, first + batches):
        readings = tuple(
            Reading(channel, at, number * 100 + place, 0)
            for channel in CHANNELS
            for place, at in enumerate(times)
        )
        topics = Topics(f"site-{number % concentrators}", "dcu")
        batch = OutgoingBatch(number + 1, f"M{number:07d}", "electricity", PROFILE, START, readings)
        result += [(one.topic, encode(one.payload())) for one in batch_messages(topics, batch)]
    return result


async def direct(postgres: Postgres, batches: int, concentrators: int) -> float:
    """Values per second without broker and messages."""
    rows = [parse_message(*one) for one in messages(batches, concentrators)]
    database = FleetDatabase(postgres.dsn)
    await database.open()
    began = time.perf_counter()
    for start in range(0, len(rows), 1000):
        await database.store(rows[start : start + 1000])
    took = time.perf_counter() - began
    await database.close()
    return len(rows) * 96 / took


async def through_broker(
    postgres: Postgres, broker: Mosquitto, batches: int, concentrators: int, consumers: int
) -> tuple[float, float]:
    """Values per second from the first publish to the last commit, and how long the publishing alone took."""
    running = [
        FleetConsumer(FleetSettings(f"mqtt://{LOOPBACK}:{broker.port}", postgres.dsn, name=f"c{number}"))
        for number in range(consumers)
    ]
    tasks = [asyncio.create_task(one.run()) for one in running]
    await asyncio.sleep(2)
    whole = messages(batches, concentrators, first=batches)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(1000)
    client.connect(LOOPBACK, broker.port)
    client.loop_start()

    def publish() -> None:
        for topic, payload in whole[:-1]:
            client.publish(topic, payload, qos=1)
        client.publish(*whole[-1], qos=1).wait_for_publish(600)

    began = time.perf_counter()
    await asyncio.to_thread(publish)
    published = time.perf_counter() - began
    while sum(one.stored for one in running) < len(whole):  # noqa: ASYNC110 - a counter is looked at
        await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    client.disconnect()
    client.loop_stop()
    return len(whole) * 96 / took, published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=4000, help="days of single meters, 384 values each")
    parser.add_argument("--concentrators", type=int, default=1000)
    parser.add_argument("--consumers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        postgres = Postgres(directory)
        postgres.start()
        broker = Mosquitto(directory)
        config = directory / "mosquitto.conf"
        config.write_text(config.read_text() + "max_inflight_messages 0\nmax_queued_messages 0\n")
        broker.start()
        try:
            limit = asyncio.run(direct(postgres, options.batches, options.concentrators))
            rate, published = asyncio.run(
                through_broker(postgres, broker, options.batches, options.concentrators, options.consumers)
            )
        finally:
            broker.kill()
            postgres.close()
    result = {
        "concentrators": options.concentrators,
        "consumers": options.consumers,
        "values": options.batches * 384,
        "values_per_s": round(rate),
        "direct_values_per_s": round(limit),
        "of_direct": round(rate / limit, 2),
        "publishing_s": round(published, 1),
        "times_the_need_of_1000_concentrators": round(rate / NEEDED_PER_S, 1),
    }
    if options.json:
        print(json.dumps(result))
        return
    print("fleet consumer: Mosquitto into PostgreSQL")
    for name, value in result.items():
        print(f"  {name.replace('_', ' '):40} {value:>12,}")


if __name__ == "__main__":
    main()
