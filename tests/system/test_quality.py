"""Qualities, estimates and what follows from readings, with the real program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3

import pytest

from bench import CONCENTRATOR, until

pytestmark = pytest.mark.system


async def concentrator(bench, verb, *arguments):
    """Run a verb beside the product; its standard output."""
    process = await asyncio.create_subprocess_exec(
        *CONCENTRATOR,
        verb,
        "--config",
        str(bench.config_file),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, (out, error, bench.log[-2000:])
    return out.decode()


async def test_an_estimate_leaves_marked_for_both_head_ends(bench):
    await bench.start_outside()
    bench.start_substation(meters=1)
    bench.write_config()
    await bench.start_product()
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)
    said = frozenset().union(*bench.mqtt.ledger.qualities.values())
    assert said <= {"power_down", "inferred_time"}, "the simulated registers are steady"
    await bench.stop_product()
    meter = bench.substation.meters[0].serial
    last = int(bench.last.timestamp())
    lost = (last - 4 * 900, last - 2 * 900)
    with contextlib.closing(sqlite3.connect(bench.directory / "state" / "store.db")) as store, store:
        store.execute("DELETE FROM reading WHERE captured_at BETWEEN ? AND ?", lost)
        store.execute(
            "INSERT INTO closed_gap SELECT meter_id, '1-0:99.1.0*255', ?, ?, 'lost by the test', 0 FROM meter"
            " WHERE identity = ?",
            (*lost, meter),
        )
    for ledger in (bench.mqtt.ledger, bench.push.ledger):
        for key in [key for key in ledger.values if lost[0] <= key[2] <= lost[1]]:
            del ledger.values[key]
            del ledger.qualities[key]
            del ledger._numbers[key]
    await bench.start_product()
    await bench.until_status(lambda s: s["totals"]["intervals_closed"] >= 3)
    found = json.loads(
        await concentrator(
            bench,
            "estimate",
            "--json",
            "--method",
            "linear",
            meter,
            bench.first.isoformat(),
            bench.last.isoformat(),
        )
    )
    assert (found["missing"], found["estimated"], found["left_open"]) == (12, 12, 0)
    for ledger in (bench.mqtt.ledger, bench.push.ledger):
        await until(
            lambda ledger=ledger: (
                sum("estimated" in qualities for qualities in ledger.qualities.values()) == 12
            ),
            30,
            "estimates at the head-end",
        )
        assert all(
            ("estimated" in qualities) == (lost[0] <= at <= lost[1])
            for (name, _obis, at), qualities in ledger.qualities.items()
            if name == meter
        )
    assert "0 left open" in await concentrator(
        bench, "estimate", meter, bench.first.isoformat(), bench.last.isoformat()
    )
