"""The store as an unprivileged reader has it: a folder that it cannot write, with the service running or gone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest

from concentrator.clock import SystemClock
from concentrator.model import MeterRecord
from concentrator.store import meters
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.web.store_reader import StoreAbsentError, StoreReader

import web_bench

NOBODY = 65534


def read_meters(path: Path) -> list[str]:
    reader = StoreReader(path)
    try:
        return [record.identity for record in asyncio.run(reader.read(meters.load_meters))]
    finally:
        reader.close()


def _as_nobody(path: Path, answers) -> None:
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        answers.put(read_meters(path))
    except StoreError as error:
        answers.put(str(error))


def read_as_nobody(path: Path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_as_nobody, args=(path, answers))
    process.start()
    process.join(20)
    return answers.get()


def names_in(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


@pytest.fixture
def directory():
    # Not below pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        # As in the product: the reader is in the group of the folder and its files.
        if os.getuid() == 0:
            os.chown(name, 0, NOBODY)
        Path(name).chmod(0o2755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
async def test_a_user_who_cannot_write_reads_beside_the_service_and_after_it(directory):
    path = directory / "store.db"
    store = Store(path, SystemClock())
    await store.save_meter(MeterRecord("M1"))
    assert "store.db-wal" in names_in(directory)
    assert read_as_nobody(path) == ["M1"]
    store.close()
    assert names_in(directory) == ["statistics.db", "store.db"]
    assert read_as_nobody(path) == ["M1"]
    assert names_in(directory) == ["statistics.db", "store.db"]


async def test_what_the_service_writes_is_seen_and_a_replaced_file_too(tmp_path):
    path = tmp_path / "store.db"
    reader = StoreReader(path)
    with pytest.raises(StoreAbsentError, match="does not exist yet"):
        await reader.read(meters.load_meters)
    for run in ("M1", "M2"):
        store = Store(path, SystemClock())
        await store.save_meter(MeterRecord(run))
        assert run in [record.identity for record in await reader.read(meters.load_meters)]
        store.close()
        assert run in [record.identity for record in await reader.read(meters.load_meters)]
    path.rename(tmp_path / "store.db.damaged-1")
    store = Store(path, SystemClock())
    await store.save_meter(MeterRecord("M3"))
    assert [record.identity for record in await reader.read(meters.load_meters)] == ["M3"]
    store.close()
    reader.close()


async def test_the_reader_cannot_write(tmp_path):
    web_bench.fill_store(tmp_path)
    reader = StoreReader(tmp_path / "store.db")
    with pytest.raises(StoreError):
        await reader.read(lambda connection: connection.execute("DELETE FROM meter"))
    assert len(await reader.read(meters.load_meters)) == 4
    reader.close()


async def test_a_newer_releases_store_is_not_read(tmp_path):
    import sqlite3

    web_bench.fill_store(tmp_path)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    reader = StoreReader(tmp_path / "store.db")
    with pytest.raises(StoreError, match="schema 99"):
        await reader.read(meters.load_meters)
    reader.close()
