"""Draining an outage over MQTT: a real store, the product's uplink and a real Mosquitto on loopback.

72 hours of 1,000 meters with 4 channels and quarter-hourly intervals, in two forms: each meter's day as one batch, and
each interval as a batch of its own (for a fraction of the meters; the whole follows from it in proportion). Meanwhile
live intervals are stored, and the time until each is at the receiver is measured. Beside it, in the same run, a bare
paho loop publishes the same payloads with the same window. The limit is 30 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from concentrator.model import MeterRecord
from concentrator.uplink.messages import batch_messages, encode
from concentrator.uplink.mqtt_connection import message_properties

from bench import until
from mqtt_rig import TOPICS, Rig, answer

METERS, HOURS, SLOTS_AN_HOUR = 1000, 72, 4
LIMIT_S = 1800.0
WINDOW = 20
# A receiver may fall behind: by default Mosquitto would drop what waits for it above 1,000 messages.
BROKER = ("max_queued_messages 0",)
LIVE_INTERVAL_S = 0.5


class Arrivals:
    """Counts messages, and notes when each live meter's message came."""

    def __init__(self) -> None:
        self.readings = 0
        self.live: dict[str, float] = {}

    def look(self, topic: str, _payload: bytes) -> None:
        parts = topic.split("/")
        if len(parts) == 7 and parts[6] == "reading":  # noqa: PLR2004 - .../m/METER/reading
            self.readings += 1
            if parts[5].startswith("L"):
                self.live.setdefault(parts[5], time.perf_counter())


async def drain(folder: Path, meters: int, slots_a_batch: int) -> dict[str, float]:
    """Drain everything of so many meters; seconds, messages, and delays of live data."""
    folder.mkdir()  # noqa: ASYNC240 - a moment
    rig = Rig(folder, *BROKER)
    arrivals = Arrivals()
    rig.receiver._take = lambda *_rest: None  # noqa: SLF001 - only arrivals count here
    rig.receiver.look = arrivals.look
    await rig.save_meters(meters)
    batches = HOURS * SLOTS_AN_HOUR // slots_a_batch
    for batch in range(batches):
        for number in range(meters):
            await rig.store.store_answer(answer(f"M{number}", batch * slots_a_batch, slots_a_batch))
    rig.broker.start()
    await rig.listen()
    stored: dict[str, float] = {}

    async def live() -> None:
        while True:
            name = f"L{len(stored)}"
            await rig.store.save_meter(MeterRecord(name))
            await rig.store.store_answer(answer(name, HOURS * SLOTS_AN_HOUR, 1))
            stored[name] = time.perf_counter()
            await asyncio.sleep(LIVE_INTERVAL_S)

    began = time.perf_counter()
    rig.start(in_flight=WINDOW)
    storing = asyncio.ensure_future(live())
    messages = meters * batches * 4
    await until(lambda: arrivals.readings - 4 * len(arrivals.live) >= messages, 1200)
    seconds = time.perf_counter() - began
    await until(lambda: stored, 10)
    storing.cancel()
    await until(lambda: len(arrivals.live) >= len(stored), 60)
    delays = sorted(arrivals.live[name] - stored[name] for name in stored)
    await rig.close()
    return {
        "seconds": seconds,
        "messages_per_s": messages / seconds,
        "live_median_s": delays[len(delays) // 2],
        "live_longest_s": delays[-1],
    }


async def payloads(folder: Path, slots: int, count: int) -> list[tuple[str, bytes]]:
    """What the uplink would publish."""
    folder.mkdir()  # noqa: ASYNC240 - a moment
    rig = Rig(folder, *BROKER)
    await rig.save_meters(1)
    await rig.store.store_answer(answer("M0", 0, slots))
    await rig.store.register_destination("x")
    batch = (await rig.store.pending("x", 0, 1))[0]
    found = [(one.topic, encode(one.payload())) for one in batch_messages(TOPICS, batch)]
    await rig.close()
    return [found[number % len(found)] for number in range(count)]


def bare_rate(port: int, work: list[tuple[str, bytes]]) -> float:
    """The limit: paho publishing the same payloads with the same window, and nothing else."""
    window = threading.Semaphore(WINDOW)
    client = paho.Client(CallbackAPIVersion.VERSION2, "bare", protocol=MQTTProtocolVersion.MQTTv5)
    connected = threading.Event()
    client.max_inflight_messages_set(0)
    client.on_connect = lambda *_rest: connected.set()
    client.on_publish = lambda *_rest: window.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    connected.wait(10)
    properties: Properties = message_properties("application/json", 1)
    began = time.perf_counter()
    for topic, payload in work:
        window.acquire()
        client.publish(topic, payload, 1, properties=properties)
    for _ in range(WINDOW):
        window.acquire()
    seconds = time.perf_counter() - began
    client.disconnect()
    client.loop_stop()
    return len(work) / seconds


async def bare(folder: Path, work: list[tuple[str, bytes]]) -> float:
    """The bare loop against a broker of its own, with a receiver as the uplink has one."""
    folder.mkdir()  # noqa: ASYNC240 - a moment
    rig = Rig(folder, *BROKER)
    arrivals = Arrivals()
    rig.receiver._take = lambda *_rest: None  # noqa: SLF001 - only arrivals count here
    rig.receiver.look = arrivals.look
    rig.broker.start()
    await rig.listen()
    rate = await asyncio.to_thread(bare_rate, rig.broker.port, work)
    await rig.close()
    return rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=200, help="of 1,000: the rest follows in proportion")
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    result: dict[str, float] = {}
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        # Mosquitto gives its root rights up, and has to reach its files.
        root = Path(folder) / "x"
        root.mkdir()
        for name, slots, share in (("day", 96, 1.0), ("interval", 1, 0.1)):
            meters = max(1, round(options.meters * share))
            seen = asyncio.run(drain(root / name, meters, slots))
            whole = seen["seconds"] * METERS / meters
            worst = max(worst, whole)
            work = asyncio.run(payloads(root / f"{name}-payloads", slots, 4000))
            rate = asyncio.run(bare(root / f"{name}-bare", work))
            result |= {
                f"{name}_meters": meters,
                f"{name}_messages_per_s": round(seen["messages_per_s"]),
                f"{name}_bare_messages_per_s": round(rate),
                f"{name}_ratio_to_bare": round(seen["messages_per_s"] / rate, 2),
                f"{name}_whole_s": round(whole, 1),
                f"{name}_live_median_s": round(seen["live_median_s"], 2),
                f"{name}_live_longest_s": round(seen["live_longest_s"], 2),
            }
    result["limit_s"] = LIMIT_S
    if options.json:
        print(json.dumps(result))
    else:
        print("mqtt: " + ", ".join(f"{name} {value}" for name, value in result.items()))
    return 0 if worst < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
