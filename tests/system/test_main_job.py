"""The main job, and what happens to it when the world outside fails. The product is a real process throughout."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import time

import pytest

from concentrator.control import request

from bench import until

pytestmark = pytest.mark.system


@pytest.mark.parametrize("protocol", ["prime", "g3", "g3-a", "s-fsk"])
async def test_every_interval_reaches_both_head_ends_once(bench, protocol):
    await bench.start_outside()
    bench.start_substation(protocol=protocol)
    bench.write_config()
    await bench.start_product()
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)
    bench.check_ledger(bench.push.ledger)
    status = await bench.until_status(lambda s: all(d["pending_batches"] == 0 for d in s["destinations"]))
    assert status["modem"]["state"] == "running"
    meters = {meter["identity"]: meter for meter in status["meters"]}
    for simulated in bench.substation.meters:
        meter = meters[simulated.serial]
        assert meter["state"] == "active"
        euis = {"prime": simulated.eui48, "s-fsk": simulated.system_title}
        eui = euis.get(protocol, simulated.eui64)
        assert meter["link_address"] == eui.hex()
        assert meter["manufacturer"] == "ODC"
        assert abs(meter["clock_offset_s"] - simulated.clock_offset_s) < 3


async def test_the_wireless_meter_flows_through_the_same_store_and_uplinks(bench):
    await bench.start_outside()
    bench.start_substation(meters=1)
    bench.write_config()
    await bench.start_product()
    number = bench.substation.water.identification
    status = await bench.until_status(lambda s: any(m["medium"] == "water" for m in s["meters"]))
    (water,) = [meter for meter in status["meters"] if meter["medium"] == "water"]
    assert number in water["identity"]
    assert water["state"] == "active"
    assert water["signal"] == -72

    def volumes(ledger):
        return {
            at: v
            for (meter, obis, at), v in ledger.values.copy().items()
            if meter == water["identity"] and obis == "8-0:1.0.0*255"
        }

    await until(
        lambda: volumes(bench.mqtt.ledger) and volumes(bench.push.ledger), 60, "a volume at both head-ends"
    )
    ((_at, litres),) = list(volumes(bench.mqtt.ledger).items())[:1]
    now = bench.substation.water.now()
    assert 0 < litres <= bench.substation.water.volume_litres(now)


@pytest.mark.parametrize("protocol", ["prime", "g3"])
async def test_a_pulled_modem_is_told_survived_and_recovered_from(bench, protocol):
    await bench.start_outside()
    bench.start_substation(protocol=protocol, meters=6, speed=20.0)
    bench.write_config()
    await bench.start_product(page=False)
    await until(lambda: len(bench.mqtt.ledger.values) > 100, 60, "reading has begun")
    bench.substation.modem_port.unplug()
    status = await bench.until_status(lambda s: s["modem"]["state"] in ("port lost", "port missing"))
    assert "modem" in status["modem"]["reason"]
    assert all(not meter["reachable"] for meter in status["meters"] if meter["link"] == "plc")
    # The rest goes on: the uplinks stay, and what is stored is still delivered.
    assert {d["state"] for d in status["destinations"]} == {"connected"}
    await bench.until_status(lambda s: all(d["pending_batches"] == 0 for d in s["destinations"]))
    assert bench.product.returncode is None
    bench.substation.modem_port.plug()
    await bench.until_status(lambda s: s["modem"]["state"] == "running", 60)
    await bench.until_delivered(120)
    bench.check_ledger(bench.mqtt.ledger)


async def test_rows_wait_for_a_vanished_broker_and_leave_in_order(bench):
    await bench.start_outside()
    await bench.network.cut()
    bench.start_substation()
    bench.write_config()
    await bench.start_product()
    # The other destination does not wait for this one.
    await bench.until_delivered(90, bench.push.ledger)
    status = await bench.status()
    mqtt = next(d for d in status["destinations"] if d["kind"] == "mqtt")
    assert mqtt["state"] == "not connected"
    assert mqtt["pending_readings"] >= 4 * 96 * 4
    assert mqtt["oldest_unsent_at"]
    numbers = []
    original = bench.mqtt.ledger.take

    def take(meter, obis, at, value, number, *more):
        numbers.append(number)
        original(meter, obis, at, value, number, *more)

    bench.mqtt.ledger.take = take
    # The broker was really gone meanwhile, and comes back empty; its subscriber finds it first.
    bench.broker.kill()
    await until(lambda: not bench.mqtt.subscribed, 10)
    bench.broker.start()
    await until(lambda: bench.mqtt.subscribed, 10)
    await bench.network.mend()
    await bench.until_delivered(90, bench.mqtt.ledger)
    assert numbers == sorted(numbers)
    bench.check_ledger(bench.mqtt.ledger)


async def test_a_broker_lost_again_and_again_loses_nothing(bench):
    await bench.start_outside()
    bench.start_substation(meters=6)
    bench.write_config()
    await bench.start_product()
    for threshold in (200, 600, 1200):
        await until(
            lambda threshold=threshold: len(bench.mqtt.ledger.values) > threshold, 60, "delivery goes on"
        )
        await bench.network.cut()
        await bench.until_status(lambda s: any(d["state"] == "not connected" for d in s["destinations"]))
        await bench.network.mend()
    await bench.until_delivered(120)
    bench.check_ledger(bench.mqtt.ledger)


@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_at_any_time_loses_and_doubles_nothing(bench, seed):
    await bench.start_outside()
    bench.start_substation(meters=5, speed=100.0, seed=seed)
    bench.write_config()
    draws = random.Random(seed)
    for _ in range(6):
        await bench.start_product()
        seen = len(bench.mqtt.ledger.values)
        goal = seen + draws.randrange(0, 400)
        deadline = time.monotonic() + draws.uniform(0.5, 4.0)
        await until(
            lambda goal=goal, deadline=deadline: (
                len(bench.mqtt.ledger.values) > goal or time.monotonic() > deadline
            )
        )
        await bench.stop_product(signal.SIGKILL)
    await bench.start_product()
    await bench.until_delivered(120)
    bench.check_ledger(bench.mqtt.ledger)
    bench.check_ledger(bench.push.ledger)


async def test_kill_9_of_the_service_alone_takes_its_page_along(bench):
    """The next start must find the page's port free."""
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config()
    for _ in range(3):
        await bench.start_product(page=True)
        await until(lambda: page_answers(bench.web_port), 30, "the page answers")
        bench.product.kill()
        await bench.product.wait()
    await bench.start_product(page=True)
    await until(lambda: page_answers(bench.web_port), 30, "the page answers")
    await bench.until_delivered()


async def page_answers(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_the_journal_tells_what_changed(bench):
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config()
    await bench.start_product()
    await bench.until_delivered()
    bench.substation.modem_port.unplug()
    await bench.until_status(lambda s: s["modem"]["state"] == "port missing")
    assert await bench.stop_product() == 0
    with contextlib.closing(sqlite3.connect(bench.directory / "state" / "store.db")) as store:
        events = store.execute(
            "SELECT code, detail, COALESCE(identity, '') FROM event LEFT JOIN meter USING (meter_id) ORDER BY event_id"
        ).fetchall()
    assert [code for code, _detail, _meter in events[:2]] == ["boot", "service_started"]
    assert events[-1][0] == "service_stopped"
    details = {(code, detail) for code, detail, _meter in events}
    assert ("destination_state", "mqtt: not connected → connected") in details
    assert any(code == "modem_state" and "port missing" in detail for code, detail in details)
    meters = {meter.serial for meter in bench.substation.meters}
    assert meters <= {meter for code, _detail, meter in events if code == "meter_state"}


async def test_a_restart_sends_nothing_again(bench):
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config()
    await bench.start_product()
    await bench.until_delivered()
    await bench.until_status(lambda s: all(d["pending_batches"] == 0 for d in s["destinations"]))
    assert await bench.stop_product() == 0
    before = len(bench.mqtt.ledger.values)
    await bench.start_product()
    await bench.until_status(
        lambda s: all(m["reachable"] for m in s["meters"] if m["link"] == "plc") and len(s["meters"]) >= 2
    )
    await bench.until_status(lambda s: s["totals"]["intervals_stored"] >= 2 * 96)
    assert bench.mqtt.ledger.repeats == 0
    assert bench.mqtt.ledger.duplicates == 0
    assert len(bench.mqtt.ledger.values) >= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_within_five_seconds(bench, number):
    await bench.start_outside()
    bench.start_substation()
    bench.write_config()
    await bench.start_product(page=True)
    await until(lambda: len(bench.mqtt.ledger.values) > 50, 60, "reading has begun")
    began = time.monotonic()
    async with asyncio.timeout(5):
        assert await bench.stop_product(number) == 0
    assert time.monotonic() - began < 5
    await until(
        lambda: bench.mqtt.statuses and bench.mqtt.statuses[-1]["state"] == "offline", 5, "offline is told"
    )


async def test_an_order_comes_back_with_its_result(bench):
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config()
    await bench.start_product()
    meter = bench.substation.meters[0]
    await bench.until_status(
        lambda s: any(m["identity"] == meter.serial and m["state"] == "active" for m in s["meters"])
    )
    bench.mqtt.send_order(
        "lab", "bench", {"id": "o1", "op": "read", "target": meter.serial, "args": {"obis": "1-0:1.8.0*255"}}
    )
    done = await until(
        lambda: next((r for r in bench.mqtt.results if r["state"] not in ("accepted", "running")), None),
        30,
        "a result",
    )
    assert done["id"] == "o1"
    assert done["state"] == "done", done
    assert isinstance(done["result"]["value"], int)
    bench.mqtt.send_order("lab", "bench", {"id": "o2", "op": "read", "target": "nobody"})
    failed = await until(
        lambda: next((r for r in bench.mqtt.results if r["id"] == "o2" and r["state"] == "failed"), None), 30
    )
    assert "nobody" in failed["error"]
    bench.mqtt.send_order(
        "lab",
        "bench",
        {"id": "o3", "op": "ping", "target": meter.serial, "not_after": "2020-01-01T00:00:00Z"},
    )
    await until(lambda: any(r["id"] == "o3" and r["state"] == "expired" for r in bench.mqtt.results), 30)
    answer = await request(
        bench.socket, {"op": "order", "order": {"id": "o4", "op": "ping", "target": meter.serial}}
    )
    assert answer["state"] == "done"


@pytest.mark.parametrize("protocol", ["prime", "g3"])
async def test_the_place_of_each_meter_is_known(bench, protocol):
    """Also of those whose registration was told before they opened their connection."""
    bench.start_substation(protocol=protocol, meters=8)
    bench.write_config(mqtt=None, push=None, radio=None)
    await bench.start_product()

    def nodes(status):
        return [meter for meter in status["meters"] if meter["link"] == "plc"]

    status = await bench.until_status(lambda s: len(nodes(s)) == 8 and all(m["firmware"] for m in nodes(s)))
    if protocol == "prime":
        assert all(meter["role"] and meter["level"] is not None for meter in nodes(status))
    else:
        assert all(meter["signal"] is not None for meter in nodes(status))
