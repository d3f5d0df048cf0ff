"""kill -9 at random moments of the real service: what was acknowledged is there once, here and at the head-ends.

`--kills 1000` is the full proof. The store is looked at after every kill, as the dead service left it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest

from concentrator.simulator.head_end import Ledger
from concentrator.store.inspection import complaints
from concentrator.store.migrations import SCHEMA_VERSION

from bench import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(0)]

_KILLS_A_ROUND = 20


def stored(path) -> dict[tuple[str, str, int], int]:
    """What is in the store that the dead service left; it is checked on the way."""
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            # Killed before the first table was made, which the next start does.
            assert complaints(connection, full=True) == []
            return {}
        if version < SCHEMA_VERSION:
            # Killed between two migrations of a new file: each is there whole or not at all.
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT COUNT(*) FROM reading").fetchone() == (0,)
            return {}
        assert complaints(connection, full=True) == []
        rows = connection.execute(
            "SELECT identity, obis, captured_at, value FROM reading JOIN channel USING (channel_id)"
            " JOIN meter USING (meter_id) WHERE link = 'plc'"
        ).fetchall()
    found = {(meter, obis, at): value for meter, obis, at, value in rows}
    assert len(found) == len(rows), "doubled"
    return found


async def test_kill_9_at_random_moments(bench, pytestconfig):
    kills = pytestconfig.getoption("--kills")
    bench.days = 4
    await bench.start_outside()
    bench.start_substation(meters=5, speed=60.0)
    bench.write_config()
    draws = random.Random(kills)
    state = bench.directory / "state"
    done = 0
    while done < kills:
        # Each round begins with an empty store and empty head-ends, so that there is always something to lose.
        shutil.rmtree(state, ignore_errors=True)
        bench.mqtt.ledger, bench.push.ledger = Ledger(), Ledger()
        before: dict = {}
        for _ in range(min(_KILLS_A_ROUND, kills - done)):
            await bench.start_product()
            # While it starts, while it forms the network, while it reads and delivers.
            await asyncio.sleep(draws.uniform(0.2, 3.0))
            await bench.stop_product(signal.SIGKILL)
            done += 1
            path = state / "store.db"
            now = await asyncio.to_thread(stored, path) if path.exists() else {}
            assert before.items() <= now.items(), "what was on flash stays"
            before = now
            truth = bench.truth()
            for ledger in (bench.mqtt.ledger, bench.push.ledger):
                told = {key: value for key, value in dict(ledger.values).items() if key in truth}
                assert told.items() <= now.items(), "what a head-end has was stored before"
        await bench.start_product()
        await bench.until_delivered(180)
        await until(lambda: bench.mqtt.ledger.values.keys() >= bench.push.ledger.values.keys(), 60)
        await bench.stop_product()
        left = await asyncio.to_thread(stored, state / "store.db")
        for ledger in (bench.mqtt.ledger, bench.push.ledger):
            bench.check_ledger(ledger)
            told = {key: value for key, value in ledger.values.items() if key in left}
            assert told.items() <= left.items()
            assert bench.truth().keys() <= left.keys()
        print(f"{done} kills", flush=True)
