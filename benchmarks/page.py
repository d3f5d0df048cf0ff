"""How fast the page is with two thousand meters, while their readings are being stored.

The page is a process of its own over a store that a writer keeps busy; the service's status names all meters. Told are
the time to the first octet (median and worst) and what an answer weighs on the line, gzip-compressed as a browser asks
for it.

    python benchmarks/page.py [--meters 2000] [--rounds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from concentrator.clock import SystemClock  # noqa: E402
from concentrator.model import Answer, MeterRecord, MeterState, Quality, Reading  # noqa: E402
from concentrator.store.store import Store  # noqa: E402

import web_bench  # noqa: E402
from page_process import PageProcess  # noqa: E402

_PATHS = (
    "/",
    "/?by=hour",
    "/meters",
    "/meters?sort=-progress&q=7",
    "/meters/ODC0000000500",
    "/topology",
    "/log",
)
_DAY_ROWS = 96


async def _write(
    directory: Path, meters: int, filled: threading.Event, stop: threading.Event, stored: list[int]
) -> None:
    store = Store(directory / "store.db", SystemClock())
    await store.boot_id()
    last = web_bench.latest_end()

    async def answer(number: int, rows: int, first_back: int) -> None:
        readings = tuple(
            Reading(
                web_bench.IMPORT,
                last - (first_back + back) * web_bench.PERIOD,
                10_000 - back,
                0,
                Quality.VALID,
            )
            for back in range(rows - 1, -1, -1)
        )
        await store.store_answer(Answer(f"ODC{number:010d}", web_bench.PROFILE, readings, web_bench.now()))

    for number in range(meters):
        await store.save_meter(
            MeterRecord(
                f"ODC{number:010d}",
                state=MeterState.ACTIVE,
                link_address=f"0200{number:08x}",
                manufacturer="ODC",
                firmware="1.0",
                first_seen=web_bench.now() - timedelta(days=9),
                last_contact=web_bench.now(),
            )
        )
        await answer(number, _DAY_ROWS, 0)
    filled.set()
    number = 0
    # One meter's hour after the other, as polling stores them.
    while not stop.is_set():
        await answer(number % meters, 4, _DAY_ROWS + 4 * (number // meters))
        stored.append(number)
        number += 1
        await asyncio.sleep(0.02)
    store.close()


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        filled, stop, stored = threading.Event(), threading.Event(), list[int]()
        writer = threading.Thread(
            target=lambda: asyncio.run(_write(directory, arguments.meters, filled, stop, stored)), daemon=True
        )
        writer.start()
        filled.wait()
        service = web_bench.FakeService(directory / "control.sock")
        service.status["meters"] = [
            web_bench.plc_meter(f"ODC{number:010d}", link_address=f"0200{number:08x}", stored=number % 200)
            for number in range(arguments.meters)
        ]
        service.nodes = web_bench.prime_tree(arguments.meters // 40, 39)
        service.start()
        page = PageProcess(directory, history_days=1)
        page.start()
        try:
            with httpx.Client(base_url=page.address, timeout=60) as client:
                for path in _PATHS:
                    _measure(client, path, arguments.rounds)
        finally:
            stop.set()
            page.stop()
            service.stop()
            writer.join(10)
            if writer.is_alive() or not stored:
                raise SystemExit("the writer did not store while the page was measured")
            print(f"stored meanwhile: {len(stored)} answers of an hour each")  # noqa: T201


def _measure(client: httpx.Client, path: str, rounds: int) -> None:
    times: list[float] = []
    weight = 0
    for _ in range(rounds):
        began = time.perf_counter()
        with client.stream("GET", path) as answer:
            raw = answer.iter_raw()
            first = next(raw)
            times.append(time.perf_counter() - began)
            weight = len(first) + sum(len(one) for one in raw)
            if answer.status_code != 200:  # noqa: PLR2004 - HTTP's
                raise SystemExit(f"{path}: status {answer.status_code}")
        time.sleep(0.1)
    median, worst = 1000 * statistics.median(times), 1000 * max(times)
    print(f"{path:30} first octet {median:7.1f} ms, worst {worst:7.1f} ms, {weight / 1000:7.1f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
