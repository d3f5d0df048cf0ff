"""The power is cut at every write and every sync of real work of the store: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from concentrator.clock import SystemClock
from concentrator.model import Answer, Channel, MeterRecord, Reading
from concentrator.obis import Obis
from concentrator.store import outbox
from concentrator.store.inspection import complaints
from concentrator.store.network_history import HistoryBatch
from concentrator.store.store import Store

apsw = pytest.importorskip("apsw")

from power_cut import Disk, Log, LoggingVfs, connector  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PROFILE = Obis(1, 0, 99, 1, 0)
CHANNELS = [Channel(Obis(1, 0, code, 8, 0), 30, 0, period_s=900) for code in (1, 2)]
METERS = 6
ROWS = 16
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def answer(number: int) -> Answer:
    """The next rows of one of the meters; every fifth answer repeats half of those before."""
    meter, step = number % METERS, number // METERS
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=60)
    first = step * ROWS - (ROWS // 2 if number % 5 == 4 and step else 0)
    readings = tuple(
        Reading(channel, start + timedelta(minutes=15 * slot), 1000 * meter + slot, 0)
        for channel in CHANNELS
        for slot in range(first, first + ROWS)
    )
    return Answer(f"M{meter}", PROFILE, readings, datetime.now(UTC))


def keys(one: Answer) -> dict[tuple[str, str, int], int]:
    return {(one.meter, str(r.channel.obis), round(r.captured_at.timestamp())): r.value for r in one.readings}


async def work(store: Store, log: Log, answers: int) -> None:
    """Answers, acknowledgements in and out of order, settings, statistics, checkpoints, and purges of what is sent."""
    stored: dict[int, dict] = {}
    confirmed = {"a": set(), "b": set()}
    for number in range(answers):
        one = answer(number)
        log.add("begin", keys(one))
        result = await store.store_answer(one)
        if result.sequence is not None:
            stored[result.sequence] = keys(one)
            log.add("stored", keys(one))
        if number % 3 == 2:
            for name, wanted in (("a", sorted(stored)[:-1]), ("b", sorted(stored)[::2])):
                new = [sequence for sequence in wanted if sequence not in confirmed[name]]
                log.add("confirming", name, new)
                await store.acknowledge(name, new)
                confirmed[name] |= set(new)
                log.add("confirmed", name, new)
        if number % 4 == 3:
            await store.save_network_history(HistoryBatch({"aa": {"n": number}}), 10, 10, 10)
            await store.save_kpi_day(number, {"n": number}, (), 400)
        if number % 12 == 11:
            both = confirmed["a"] & confirmed["b"]
            log.add("purging", {key for sequence in both for key in stored[sequence]})
            await store.purge(timedelta(days=30))
            await store.house.checkpoint_if_idle(0)
            await store.house.give_back_space()


@dataclass
class Known:
    """What the world outside was told until the cut."""

    stored: dict = field(default_factory=dict)
    begun: dict = field(default_factory=dict)
    confirmed: dict = field(default_factory=lambda: {"a": set(), "b": set()})
    confirming: dict = field(default_factory=lambda: {"a": set(), "b": set()})
    may_be_gone: set = field(default_factory=set)

    def take(self, entry: tuple) -> None:
        match entry:
            case ("begin", rows):
                self.begun |= rows
            case ("stored", rows):
                self.stored |= rows
            case ("confirming", name, sequences):
                self.confirming[name] |= set(sequences)
            case ("confirmed", name, sequences):
                self.confirmed[name] |= set(sequences)
            case ("purging", rows):
                self.may_be_gone |= rows


def verdict(directory: Path, known: Known) -> list[str]:
    """What is wrong with the files that the cut left."""
    found: list[str] = []
    try:
        with closing(sqlite3.connect(directory / "store.db", isolation_level=None)) as connection:
            found += complaints(connection, full=True)
            rows = {
                (meter, obis, at): value
                for meter, obis, at, value in connection.execute(
                    "SELECT identity, obis, captured_at, value FROM reading JOIN channel USING (channel_id)"
                    " JOIN meter USING (meter_id)"
                )
            }
            lost = [key for key in known.stored if key not in rows and key not in known.may_be_gone]
            wrong = [key for key, value in rows.items() if known.begun.get(key) != value]
            if lost:
                found.append(f"{len(lost)} acknowledged rows lost")
            if wrong:
                found.append(f"{len(wrong)} rows that nobody wrote")
            for name in ("a", "b"):
                owed = set(outbox.pending_numbers(connection, name, 10_000))
                (count,) = (one.pending_batches for one in outbox.states(connection) if one.name == name)
                sent = {number for (number,) in connection.execute("SELECT sequence FROM batch")} - owed
                if count != len(owed):
                    found.append(f"{name}: {count} batches counted, {len(owed)} owed")
                if again := owed & known.confirmed[name]:
                    found.append(f"{name}: {len(again)} acknowledged batches would be sent again")
                if unsent := sent - known.confirming[name]:
                    found.append(f"{name}: {len(unsent)} batches would never be sent")
        with closing(sqlite3.connect(directory / "statistics.db")) as connection:
            checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if checked != "ok":
                found.append(f"statistics: {checked}")
    except sqlite3.Error as error:
        found.append(str(error))
    return found


async def run_and_cut(tmp_path: Path, answers: int, synchronous: str | None) -> tuple[int, int, list[str]]:
    """The points of the work, how many of them were cut through with something wrong, and the first complaints."""
    store = Store(tmp_path / "store.db", SystemClock())
    for number in range(METERS):
        await store.save_meter(MeterRecord(f"M{number}"))
    for name in ("a", "b"):
        await store.register_destination(name)
    store.close()
    disk = Disk.of(tmp_path)
    log = Log()
    vfs = LoggingVfs(f"cut-{synchronous}", log)
    store = Store(
        tmp_path / "store.db", SystemClock(), connector=connector(vfs.name, synchronous=synchronous)
    )
    await work(store, log, answers)
    entries = list(log.entries)
    store.close()
    vfs.unregister()
    # All kinds of moments are among them: commits, and checkpoints into both files.
    written = {entry[1] for entry in entries if entry[0] == "write"}
    assert written >= {"store.db", "store.db-wal", "statistics.db-wal"}, written
    known, points, bad, told = Known(), 0, 0, []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        directory = Path(folder)
        for number, entry in enumerate(entries):
            if entry[0] not in ("write", "truncate", "sync", "delete"):
                known.take(entry)
                continue
            # Before it is done, so that what was told until then is held against it; then once more at the end.
            disk.cut(random.Random(number), directory)
            disk.apply(entry)
            points += 1
            if wrong := await asyncio.to_thread(verdict, directory, known):
                bad += 1
                told += [f"{number} {entry[:2]}: {one}" for one in wrong]
        disk.cut(random.Random(0), directory)
        told += verdict(directory, known)
    return points, bad, told


async def test_a_power_cut_at_any_point_loses_doubles_and_damages_nothing(tmp_path, pytestconfig):
    answers = pytestconfig.getoption("--cut-answers")
    points, bad, told = await run_and_cut(tmp_path, answers, None)
    assert not told, (bad, points, told[:10])
    assert points > 10 * answers
    print(f"{points} points")


async def test_the_same_cuts_without_syncs_are_seen_to_lose(tmp_path):
    points, bad, told = await run_and_cut(tmp_path, 24, "OFF")
    assert bad > points / 10
    assert any("lost" in one for one in told)
