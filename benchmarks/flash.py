"""What a day of 1,000 meters with 4 channels writes to flash: readings, acknowledgements, statistics, journal.

Counts every octet that SQLite writes to the files: the WAL as it grows, and pages that checkpoints write into the
files (the kernel's count of the process, /proc/self/io, on a disk of its own). The limit is 200 MB a day. The octets of
the file system's own journal are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from concentrator.clock import SystemClock
from concentrator.collection.validation import Validator
from concentrator.model import Answer, Channel, MeterRecord, MeterState, Reading
from concentrator.obis import Obis
from concentrator.store.kpi import MeterDay
from concentrator.store.network_history import HistoryBatch, NetworkHour
from concentrator.store.store import Store

Result = TypeVar("Result")
PROFILE = Obis(1, 0, 99, 1, 0)
UNITS = {1: 30, 2: 30, 3: 32, 4: 32}
CHANNELS = [Channel(Obis(1, 0, c, 8, 0), unit, 0, period_s=900) for c, unit in UNITS.items()]
LIMIT_OCTETS = 200e6
DESTINATIONS = ("mqtt", "push")
DAY_S = 86_400
# As the rooms that write them: collection/kpi_keeper.py, collection/history_keeper.py.
KPI_INTERVAL_S, HISTORY_INTERVAL_S = 300, 600
KPI_DAYS = 5
BATCHES_A_FLUSH = 4


def written() -> int:
    """Octets that this process has handed to write()."""
    text = Path("/proc/self/io").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("wchar:")).split()[1])


def answer(meter: int, first: int, slots: int, start: datetime) -> Answer:
    readings = tuple(
        Reading(channel, start + timedelta(minutes=15 * slot), 1000 * meter + slot, 0)
        for channel in CHANNELS
        for slot in range(first, first + slots)
    )
    return Answer(f"M{meter}", PROFILE, readings, start + timedelta(minutes=15 * (first + slots)))


class Day:
    """One day of work; `octets` by what wrote them."""

    def __init__(self, store: Store, meters: int, visits: int) -> None:
        self.octets: dict[str, int] = {}
        self._store = store
        self._records = [
            MeterRecord(f"M{n}", state=MeterState.ACTIVE, link="plc", link_address=f"{n:012x}")
            for n in range(meters)
        ]
        self._visits = visits
        self._waiting: list[int] = []

    async def _counted(self, kind: str, work: Awaitable[Result]) -> Result:
        before = written()
        result = await work
        self.octets[kind] = self.octets.get(kind, 0) + written() - before
        return result

    async def prepare(self) -> None:
        await self._store.save_registration(*self._records)
        for name in DESTINATIONS:
            await self._store.register_destination(name)

    async def run(self, start: datetime) -> None:
        """The day's visits spread over it, with what else writes in between."""
        store, slots = self._store, 96 // self._visits
        total = len(self._records) * self._visits
        at = {"kpi": 0.0, "history": 0.0, "house": 0.0}
        for number in range(total):
            now_s = number * DAY_S / total
            visit, meter = divmod(number, len(self._records))
            one = answer(meter, visit * slots, slots, start)
            stored = await self._counted("readings", store.store_answer(one))
            self._waiting.append(stored.sequence)
            record = self._records[meter]
            record.last_contact, record.clock_offset_s = one.received_at, now_s % 7
            await self._counted("meters", store.save_meter(record))
            if len(self._waiting) >= BATCHES_A_FLUSH:
                for name in DESTINATIONS:
                    await self._counted("acknowledgements", store.acknowledge(name, self._waiting))
                self._waiting.clear()
            if now_s - at["kpi"] >= KPI_INTERVAL_S:
                at["kpi"] = now_s
                await self._counted("statistics", self._kpi(number))
            if now_s - at["history"] >= HISTORY_INTERVAL_S:
                at["history"] = now_s
                await self._counted("statistics", self._history(now_s))
            if now_s - at["house"] >= 3600:
                at["house"] = now_s
                await self._counted(
                    "journal", store.add_events([("meter_state", "active → away", "M1")] * 20)
                )
                await self._counted("retention", store.house.purge(timedelta(days=45)))
        await self._counted("checkpoint", store._database.checkpoint())  # noqa: SLF001
        before = written()
        store._statistics._database.fold()  # noqa: SLF001
        self.octets["checkpoint"] += written() - before

    async def _kpi(self, number: int) -> None:
        for day in range(KPI_DAYS):
            # Days that are over do not change; of today each meter that was visited does.
            rows = [
                MeterDay(record.identity, 96, min(96, number % 97) if day == 0 and n % 4 == 0 else 96)
                for n, record in enumerate(self._records)
            ]
            await self._store.save_kpi_day(
                (400 - day) * DAY_S, {"completeness_pct": number if day == 0 else 1}, rows, 400
            )

    async def _history(self, now_s: float) -> None:
        state = {"parent": "00" * 6, "level": 1, "available": True, "seconds": now_s, "changes": 0, "hops": 2}
        batch = HistoryBatch({record.link_address: state for record in self._records})
        batch.hours = [NetworkHour(int(now_s) // 3600 * 3600, 990.0, 1000, 980, 1000, 60.0)]
        await self._store.save_network_history(batch, 24 * 31, 400, 50)


async def measure(folder: Path, meters: int, visits: int) -> dict[str, float]:
    store = Store(folder / "store.db", SystemClock(), Validator())
    day = Day(store, meters, visits)
    await day.prepare()
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    # The first day makes the channels; the second is like all others.
    await day.run(start - timedelta(days=1))
    day.octets.clear()
    await day.run(start)
    store.close()
    return {kind: round(octets / 1e6, 1) for kind, octets in day.octets.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=1000)
    parser.add_argument("--visits", type=int, default=1, help="Answers of each meter a day (1, 4, 24, 96).")
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = asyncio.run(measure(Path(folder), options.meters, options.visits))
    # What a day of fewer meters writes says nothing of 1,000 but by this.
    total = sum(kinds.values()) * 1000 / options.meters
    result = {"visits": options.visits, "mb_a_day": round(total, 1), "limit_mb": LIMIT_OCTETS / 1e6, **kinds}
    print(
        json.dumps(result) if options.json else "flash: " + ", ".join(f"{k} {v}" for k, v in result.items())
    )
    return 0 if total * 1e6 < LIMIT_OCTETS or options.visits > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
