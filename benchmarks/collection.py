"""Collection: days of a whole substation in virtual time, against the operator's targets and the channel's own limit.

The product's collector, PLC driver and store, unchanged, read simulated PRIME meters that drop in and out as those of
a real network do (117 meters; see the feeder). Printed are the shares of intervals that were stored by 08:00 of the
next day, by the end of D+1 and of D+3; the time that a daily cycle takes until 95 of 100 meters are read, as a ratio to
the airtime that its transfers had to take; duplicates; the longest that an order to read a register took in the rush
after midnight; CPU seconds of the collecting side (the simulation's own are taken out); resident memory, which the
simulation shares.

The targets: 99.5 % by 08:00, 99.9 % by D+3, no duplicate, 1.15 times the airtime.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from concentrator.collection.collector import Collector
from concentrator.collection.keyring import Keyring, MeterKeys
from concentrator.collection.meter_tasks import tasks_of
from concentrator.collection.validation import Validator
from concentrator.config import CollectionSection, TaskSection
from concentrator.errors import ConcentratorError
from concentrator.links.plc_link import PlcLink
from concentrator.orders import Order
from concentrator.simulator.feeder import PRIME_PHY, Feeder
from concentrator.simulator.meter import SimulatedMeter
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.simulator.substation import Substation
from concentrator.simulator.virtual_loop import DirectPort, VirtualClock, VirtualEventLoop
from concentrator.store.store import Store
from plc.prime.base_node import BaseNode

PERIOD_S = 900
CHANNELS = 4
DAY_S = 86_400
SAMPLE_S = 10
# After midnight UTC, counted from the start at six in the evening.
ORDERS_AT_S = 6 * 3600 + 300
FIRST_DAY = datetime(2026, 11, 17, tzinfo=UTC)
# The network forms in the evening before.
START = FIRST_DAY - timedelta(hours=6)
PROFILE, DAILY = "1-0:99.1.0*255", "1-0:99.2.0*255"
# The operator's targets, printed beside the figures. The ratio holds where many meters fill the channel: of a hundred
# the last few, which are away just then, make the cycle longer than its airtime.
BOUNDS = {
    "completeness_0800": " (at least 0.995)",
    "completeness_d3": " (at least 0.999)",
    "duplicates": " (0)",
    "airtime_ratio": " (at most 1.15 at 1,000 meters)",
    "cpu_share_of_virtual_time": " (at most 0.1)",
}
# A day's intervals once it is over, in UTC; and the registers at local midnight.
TASKS = (
    TaskSection("load_profile", "profile", PROFILE, first_run="2026-01-01T00:00+00:00", period="1d"),
    TaskSection("daily_registers", "profile", DAILY, first_run="2026-01-01T00:00+00:00", period="1d"),
)


@dataclass
class Stopwatch:
    """CPU seconds that the simulated side takes."""

    seconds: float = 0.0


class TimedDevice:
    """The simulated modem, with its time taken."""

    def __init__(self, modem: PrimeModem, stopwatch: Stopwatch) -> None:
        self._modem, self._stopwatch = modem, stopwatch
        self.output = None

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        before = time.thread_time()
        self._modem.receive_data(data)
        self._stopwatch.seconds += time.thread_time() - before

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        super().__setattr__(name, value)
        if name == "output" and "_modem" in self.__dict__:
            self._modem.output = value


class TimedScheduler(AsyncioScheduler):
    """Timers of the simulated side, with their time taken."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch

    def call_later(self, delay_s, callback):  # noqa: ANN001, ANN201
        """Call back once, after the delay."""

        def timed() -> None:
            before = time.thread_time()
            callback()
            self._stopwatch.seconds += time.thread_time() - before

        return super().call_later(delay_s, timed)


async def run(count: int, days: int, seed: int, directory: Path) -> dict[str, Any]:
    """The whole run; returns what is printed."""
    loop = asyncio.get_running_loop()
    clock = VirtualClock(loop, START)
    stopwatch = Stopwatch()
    meters: list[SimulatedMeter] = [Substation._meter(n, seed, clock.now) for n in range(1, count + 1)]  # noqa: SLF001
    feeder = Feeder(count, seed, PRIME_PHY, day_offset_s=START.hour * 3600.0)
    modem = PrimeModem(meters, TimedScheduler(stopwatch), feeder, seed, join_spread_s=3600.0)
    device = TimedDevice(modem, stopwatch)
    keys = {m.serial: MeterKeys(m.keys.encryption, m.keys.authentication) for m in meters}
    settings = CollectionSection(history_days=days + 1, answer_delay_s=120, time_zone="Europe/Madrid")
    store = Store(directory / "readings.db", clock, Validator())
    collector = Collector(settings, store, clock, Keyring(keys, {}), tasks=tasks_of(TASKS, settings))
    link = PlcLink(
        BaseNode(),
        "virtual",
        115200,
        collector.handle_event,
        make_port=lambda _port, _baud, on_data, on_lost: DirectPort(device, on_data, on_lost),
    )
    modem.start()
    cpu, began = time.process_time(), time.monotonic()
    end = (FIRST_DAY - START).total_seconds() + days * DAY_S
    tasks = [loop.create_task(link.run()), loop.create_task(collector.run(link))]
    airtime: dict[float, tuple[float, float]] = {}
    latencies: list[float] = []
    tasks.append(loop.create_task(give_orders(collector, latencies)))
    while loop.time() < end:
        moment = clock.now().timestamp()
        airtime[moment] = feeder.airtime_s, feeder.least_airtime_s
        if moment % DAY_S == 0:
            sys.stderr.write(f"{clock.now():%Y-%m-%d}: {time.monotonic() - began:.0f} s\n")
        await asyncio.sleep(SAMPLE_S)
    cpu = time.process_time() - cpu - stopwatch.seconds
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    store.close()
    found = evaluate(directory / "readings.db", count, days)
    # Of each cycle: how long it took, how long the channel was held, and how long it had to be.
    cycles: list[tuple[float, float, float]] = []
    for begin, finish in found.pop("cycles"):
        held, least = (airtime[finish // SAMPLE_S * SAMPLE_S][i] - airtime[begin][i] for i in (0, 1))
        cycles.append((finish - begin, held, least))
    cycle_s, held_s, least_s = (sum(column) / len(cycles) for column in zip(*cycles, strict=True))
    return {
        "meters": count,
        "days": days,
        **found,
        "cycle_s": round(cycle_s),
        "channel_held_s": round(held_s),
        "airtime_bound_s": round(least_s),
        "airtime_ratio": round(cycle_s / least_s, 3),
        "order_latency_s": round(max(latencies), 1) if latencies else None,
        "cpu_seconds": round(cpu, 1),
        "cpu_share_of_virtual_time": round(cpu / end, 4),
        "simulation_cpu_seconds": round(stopwatch.seconds, 1),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "database_mib": round((directory / "readings.db").stat().st_size / 2**20, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


async def give_orders(collector: Collector, latencies: list[float]) -> None:
    """In the rush after each midnight, read a register of meters that nobody speaks with; note how long that took."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep((ORDERS_AT_S - loop.time()) % DAY_S or DAY_S)
        free = [m for m in collector.registry if m.address is not None and m.identified and not m.busy]
        for meter in free[:: max(1, len(free) // 5)]:
            order = Order("bench", "read", meter.identity, {"obis": "1-0:1.8.0*255"})
            began = loop.time()
            with contextlib.suppress(ConcentratorError):
                await collector.carry_out(order)
                latencies.append(loop.time() - began)


def evaluate(database: Path, count: int, days: int) -> dict[str, Any]:
    """Shares of intervals that were there in time, from the store's own stamps."""
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "SELECT r.captured_at, b.received_at, count(*) FROM reading r JOIN batch b USING (sequence)"
        " JOIN channel c ON c.channel_id = r.channel_id WHERE c.profile = ?"
        " GROUP BY r.captured_at, b.received_at",
        (PROFILE,),
    ).fetchall()
    duplicates = connection.execute(
        "SELECT coalesce(sum(n - 1), 0) FROM"
        " (SELECT count(*) n FROM reading GROUP BY channel_id, captured_at HAVING n > 1)"
    ).fetchone()[0]
    connection.close()
    first = int(FIRST_DAY.timestamp())
    expected = count * CHANNELS * DAY_S // PERIOD_S

    def share(day: int, limit: int) -> float:
        begin, end = first + day * DAY_S, first + (day + 1) * DAY_S
        there = sum(n for at, received, n in rows if begin < at <= end and received <= limit)
        return there / expected

    by_eight = [share(d, first + (d + 1) * DAY_S + 8 * 3600) for d in range(days - 1)]
    by_d1 = [share(d, first + (d + 2) * DAY_S) for d in range(days - 1)]
    by_d3 = [share(d, first + (d + 4) * DAY_S) for d in range(max(1, days - 3))]
    # A cycle lasts from midnight until 95 of 100 meters have given their day.
    cycles: list[tuple[int, int]] = []
    for day in range(days - 1):
        end = first + (day + 1) * DAY_S
        last_interval = sorted((received, n) for at, received, n in rows if at == end)
        wanted, seen = 0.95 * count * CHANNELS, 0
        for received, n in last_interval:
            seen += n
            if seen >= wanted:
                cycles.append((end, received))
                break
    return {
        "completeness_0800": round(sum(by_eight) / len(by_eight), 5),
        "completeness_d1": round(sum(by_d1) / len(by_d1), 5),
        "completeness_d3": round(sum(by_d3) / len(by_d3), 5),
        "duplicates": duplicates,
        "cycles": cycles,
    }


def print_scale(days: int, seed: int) -> None:
    """What each meter costs, by how many there are. Each run is a process of its own, for its memory."""
    for count in (100, 500, 1000, 2000):
        words = [
            sys.executable,
            __file__,
            "--meters",
            str(count),
            "--days",
            str(days),
            "--seed",
            str(seed),
            "--json",
        ]
        found = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)  # noqa: S603
        sys.stdout.write(
            f"{count} meters: {1000 * found['cpu_seconds'] / count / days:.0f} ms of CPU a meter and day, "
            f"{1024 * found['rss_mib'] / count:.0f} KiB of memory a meter with its simulation, "
            f"{1024 * found['database_mib'] / count:.0f} KiB of database, order latency {found['order_latency_s']} s, "
            f"airtime ratio {found['airtime_ratio']}\n"
        )
        sys.stdout.flush()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--scale", action="store_true", help="100, 500, 1,000 and 2,000 meters, one after the other"
    )
    arguments = parser.parse_args()
    if arguments.scale:
        print_scale(arguments.days, arguments.seed)
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    loop = VirtualEventLoop()
    with tempfile.TemporaryDirectory() as directory:
        found = loop.run_until_complete(
            run(arguments.meters, arguments.days, arguments.seed, Path(directory))
        )
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(f"collection: {arguments.meters} meters, {arguments.days} days\n")
        for name, value in found.items():
            sys.stdout.write(f"  {name}: {value}{BOUNDS.get(name, '')}\n")


if __name__ == "__main__":
    main()
