"""Qualities, estimates and what follows from readings, with the real program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import urllib.request
from datetime import datetime, timedelta

import pytest

from concentrator.simulator.meter import EVENT_LOG, FRAUD_LOG
from concentrator.simulator.meter_events import TERMINAL_COVER_REMOVED, Happening

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


async def test_event_logs_reach_both_head_ends_once_whatever_happens(bench):
    await bench.start_outside()
    bench.start_substation(meters=3)
    bench.write_config()
    cover = int(bench.last.timestamp()) - 3000
    bench.substation.meters[0].happenings.append(Happening(cover, TERMINAL_COVER_REMOVED))
    truth = {
        (meter.serial, round(row.captured_at.timestamp()), row.values[0])
        for meter in bench.substation.meters
        for log in (EVENT_LOG, FRAUD_LOG)
        for row in meter.truth(log, bench.last - timedelta(days=89), bench.last)
    }
    assert len(truth) > 10

    def by_mqtt():
        return {(meter, _epoch(one["t"]), one["code"]) for meter, one in bench.mqtt.events}

    for number in (signal.SIGKILL, signal.SIGKILL, None):
        await bench.start_product()
        seen = len(bench.mqtt.events)
        if number is not None:
            await until(lambda seen=seen: len(bench.mqtt.events) > seen or truth <= by_mqtt(), 90)
            await bench.stop_product(number)
    await until(lambda: truth <= by_mqtt() and truth <= set(bench.push.events), 90, "every event")
    # The same number may come again, the same event under another number may not.
    numbers = {}
    for meter, one in bench.mqtt.events:
        key = (meter, one["profile"], one["t"], one["code"], one["ordinal"])
        assert numbers.setdefault(key, one["seq"]) == one["seq"]
    (tampered,) = {
        one["detail"] for _meter, one in bench.mqtt.events if one["code"] == TERMINAL_COVER_REMOVED
    }
    assert tampered == "terminal cover removed"
    listed = await concentrator(bench, "events", "--days", "9")
    assert "terminal cover removed" in listed


def _epoch(text):
    return round(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize("protocol", ["prime", "g3"])
async def test_a_feeder_without_power_is_told_at_once_and_is_one_outage(bench, protocol):
    await bench.start_outside()
    bench.start_substation(meters=5, protocol=protocol)
    bench.write_config(collection={"events_interval_s": 5})
    await bench.start_product()
    await bench.until_delivered()
    dark = bench.substation.meters[:4]
    bench.substation.fail_power(dark, 20)
    names = {meter.serial for meter in dark}

    def gasps():
        return {m for m, one in bench.mqtt.events if one["kind"] == "power_down" and one["group"] == "alarm"}

    # One or the other may be lost on the line: nobody hears a last gasp twice.
    await until(lambda: len(gasps() & names) >= 3, 30, "last gasps at the head-end")
    status = await bench.status()
    reasons = {meter["identity"]: meter["reason"] for meter in status["meters"]}
    assert sum("without power since" in reasons[name] for name in names) >= 3
    await bench.until_status(
        lambda s: all(m["state"] == "active" for m in s["meters"] if m["link"] == "plc"), 120, "power is back"
    )

    async def outage():
        found = json.loads(await concentrator(bench, "interruptions", "--json", "--days", "1"))
        today = [one for one in found["outages"] if one["scale"] == "feeder"]
        return today[0] if today and today[0]["end"] and today[0]["meters"] == 4 else None

    found = await until(outage, 90, "one outage of four meters")
    assert set(found["names"]) == names
    assert not found["suspected"]
    assert "feeder, 4 meters" in await concentrator(bench, "interruptions", "--days", "1")


async def test_the_figures_of_the_day_are_told_everywhere(bench):
    await bench.start_outside()
    bench.start_substation(meters=3)
    bench.write_config()
    await bench.start_product(page=True)
    await bench.until_delivered()

    async def counted():
        found = json.loads(await concentrator(bench, "kpi", "--json"))
        return found if found["days"] and found["days"][-1]["visits"] >= 3 else None

    found = await until(counted, 30, "visits are counted")
    today = found["days"][-1]
    # In the first minutes after midnight no interval of the day has ended: there is no share to tell.
    owes = today["intervals_expected"] > 0
    assert today["completeness_pct"] == (100.0 if owes else None)
    assert today["first_try_pct"] == 100.0
    assert 0 < today["airtime_pct"] < 100
    assert set(found["availability"]) == {meter.serial for meter in bench.substation.meters}
    assert today["day"] in await concentrator(bench, "kpi")
    status = await bench.until_status(lambda s: s["kpi"].get("days"))
    assert status["kpi"]["days"][-1]["meters"] == 3

    told = "completeness" if owes else "first_try"

    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{bench.web_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    async def exposed():
        with contextlib.suppress(OSError):
            text = await asyncio.to_thread(metrics)
            return text if f"concentrator_kpi_{told}_percent" in text else None

    text = await until(exposed, 30, "metrics")
    assert f'concentrator_kpi_{told}_percent{{day="{today["day"]}"}} 100' in text


async def test_the_thief_behind_the_transformer_is_found(bench):
    await bench.start_outside()
    bench.days = 8
    bench.start_substation(meters=6, supervisor=True, thief=4, thief_days=3, speed=1000.0)
    supervisor, thief = bench.substation.supervisor.serial, bench.substation.meters[3].serial
    bench.write_config(balance={"supervisor": supervisor, "suspicion_days": 8})
    await bench.start_product()
    await bench.until_delivered(150, bench.mqtt.ledger)
    day = (bench.last - timedelta(days=1)).date().isoformat()

    async def told():
        found = json.loads(await concentrator(bench, "balance", "--json", "--day", day))["feeders"][0]
        # The event log comes after the readings.
        reasons = "; ".join(found["suspicions"][0]["reasons"]) if found["suspicions"] else ""
        return found if "cover" in reasons and sum(found["phases"].values()) == 6 else None

    found = await until(told, 90, "the thief's cover and the phases")
    assert found["suspicions"][0]["meter"] == thief
    assert "losses rose by" in "; ".join(found["suspicions"][0]["reasons"])
    assert found["totals"]["intervals_judged"] == 96
    assert found["totals"]["loss_pct"] > 5
    text = await concentrator(bench, "balance", "--day", day)
    assert text.splitlines()[2].split()[0] == thief or thief in text
