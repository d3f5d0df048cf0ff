"""Storing meter answers, beside a bare `executemany` of the same rows into the same kind of file.

Prints rows a second for both, and with each value judged as the service does it, their ratio, and the octets written
to flash (WAL) for each row. The limit of 520 octets a row is what 200 MB a day leave at 1,000 meters with 4 channels
and a quarter-hourly profile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from concentrator.clock import SystemClock
from concentrator.collection.validation import Validator
from concentrator.model import Answer, Channel, MeterRecord, Reading
from concentrator.obis import Obis
from concentrator.store.store import Store

PROFILE = Obis(1, 0, 99, 1, 0)
UNITS = {1: 30, 2: 30, 3: 32, 4: 32}
CHANNELS = [Channel(Obis(1, 0, c, 8, 0), unit, 0, period_s=900) for c, unit in UNITS.items()]
START = datetime(2026, 11, 1, tzinfo=UTC)
FLASH_LIMIT_OCTETS_A_ROW = 200e6 / (1000 * 96 * 4)


def answers(meters: int, days: int) -> list[Answer]:
    """A day of a meter is one answer, as the collector stores them."""
    result = []
    for day in range(days):
        for meter in range(meters):
            readings = tuple(
                Reading(
                    channel, START + timedelta(days=day, minutes=15 * slot), 1000 * meter + 96 * day + slot, 0
                )
                for channel in CHANNELS
                for slot in range(96)
            )
            result.append(Answer(f"M{meter}", PROFILE, readings, START + timedelta(days=days)))
    return result


class WalMeter:
    """Octets that SQLite wrote to the WAL: its frames only grow until a checkpoint starts it anew."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}-wal")
        self._last = 0
        self.octets = 0

    def look(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        self.octets += size - self._last if size >= self._last else size
        self._last = size


async def store_rate(
    directory: Path, work: list[Answer], meters: int, judge: Validator | None = None
) -> tuple[float, float]:
    store = Store(directory / "store.db", SystemClock(), judge)
    for meter in range(meters):
        await store.save_meter(MeterRecord(f"M{meter}"))
    # No checkpoint in between: the WAL's size is then what was written.
    store._database._writing.execute("PRAGMA wal_autocheckpoint = 0")  # noqa: SLF001
    wal = WalMeter(directory / "store.db")
    wal.look()
    before, began = wal.octets, time.perf_counter()
    rows = 0
    for answer in work:
        rows += (await store.store_answer(answer)).new
    seconds = time.perf_counter() - began
    wal.look()
    octets = (wal.octets - before) / rows
    store.close()
    return rows / seconds, octets


def bare_rate(directory: Path, work: list[Answer]) -> float:
    """The limit: the same rows, one commit an answer, no question asked."""
    connection = sqlite3.connect(directory / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE reading (channel_id INTEGER, captured_at INTEGER, value INTEGER, status INTEGER,"
        " quality INTEGER, sequence INTEGER, PRIMARY KEY (channel_id, captured_at)) STRICT, WITHOUT ROWID"
    )
    channels: dict[tuple[str, Channel], int] = {}
    batches = [
        [
            (
                channels.setdefault((answer.meter, one.channel), len(channels)),
                int(one.captured_at.timestamp()),
                one.value,
                one.status,
                0,
                number,
            )
            for one in answer.readings
        ]
        for number, answer in enumerate(work)
    ]
    began = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO reading VALUES (?, ?, ?, ?, ?, ?)", batch)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    connection.close()
    return sum(map(len, batches)) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    work = answers(options.meters, options.days)
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_rate(Path(folder), work)
        ours, octets = asyncio.run(store_rate(Path(folder), work, options.meters))
    with tempfile.TemporaryDirectory() as folder:
        judged, _ = asyncio.run(store_rate(Path(folder), work, options.meters, Validator()))
    result = {
        "store_rows_per_s": round(ours),
        "validated_rows_per_s": round(judged),
        "bare_rows_per_s": round(bare),
        "ratio_to_bare": round(ours / bare, 3),
        "wal_octets_per_row": round(octets, 1),
        "wal_limit_octets_per_row": round(FLASH_LIMIT_OCTETS_A_ROW),
    }
    if options.json:
        print(json.dumps(result))
    else:
        print("store: " + ", ".join(f"{name} {value}" for name, value in result.items()))
    return 0 if octets < FLASH_LIMIT_OCTETS_A_ROW else 1


if __name__ == "__main__":
    sys.exit(main())
