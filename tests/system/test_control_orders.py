"""Control orders through the real program: control socket, MQTT, command line; killed in the middle; keys changed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from concentrator.control import ControlError, request

from bench import until

pytestmark = pytest.mark.system

_numbers = iter(range(1_000_000))


async def order(bench, operation, target, **arguments):
    given = {"id": f"c{next(_numbers)}", "op": operation, "target": target, "args": arguments}
    answer = await request(bench.socket, {"op": "order", "order": given})
    assert answer["state"] == "done", answer
    return answer["result"]


async def command(bench, *arguments):
    """A command of the box; the simulated modem lives on this event loop, so it must not wait."""
    verb, *rest = arguments
    whole = [sys.executable, "-m", "concentrator", verb, "--config", str(bench.config_file), *rest]
    return await asyncio.to_thread(
        subprocess.run, whole, capture_output=True, text=True, timeout=60, check=False
    )


async def trail(bench, *arguments):
    found = await command(bench, "audit", "--json", *arguments)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


async def started(bench, **changes):
    bench.start_substation(meters=2)
    bench.write_config(**{"push": None, "radio": None, "mqtt": None, **changes})
    await bench.start_product()
    await all_active(bench)
    return bench.substation.meters


async def all_active(bench):
    await bench.until_status(
        lambda s: (
            len(s["meters"]) == 2 and all(m["state"] == "active" and m["reachable"] for m in s["meters"])
        )
    )


async def test_a_meter_is_switched_off_and_on_and_the_trail_tells_it(bench):
    meter, other = await started(bench)
    result = await order(bench, "disconnect", meter.serial, confirm=meter.serial)
    assert (result["outcome"], result["after"]["control_state"]) == ("done", "disconnected")
    assert (meter.connected, other.connected) == (False, True)
    with pytest.raises(ControlError, match=r"confirm: got .*; allowed: the meter's identity again"):
        await order(bench, "reconnect", meter.serial, confirm=other.serial)
    meter.controls.switch.mode = 3
    result = await order(bench, "reconnect", meter.serial, confirm=meter.serial)
    assert result["outcome"] == "waiting_for_person"
    assert [(one["op"], one["meter"], one["state"]) for one in await trail(bench)] == [
        ("disconnect", meter.serial, "done"), ("reconnect", meter.serial, "waiting_for_person"),
    ]  # fmt: skip
    assert await trail(bench, "--meter", other.serial) == []
    shown = await command(bench, "audit")
    assert f"reconnect on {meter.serial}" in shown.stdout
    assert "a person must press" in shown.stdout
    given = await command(bench, "order", "--target", meter.serial, "read_limiter")
    assert json.loads(given.stdout)["threshold_normal"] == 50_000


async def test_the_head_end_may_do_what_the_configuration_gives_it(bench):
    await bench.start_outside()
    meter, _other = await started(bench, mqtt={}, orders={"allow_mqtt": "disconnect, show_message"})

    async def ordered(order_id, operation, **arguments):
        before = len(bench.mqtt.results)
        given = {"id": order_id, "op": operation, "target": meter.serial, "args": arguments}
        bench.mqtt.send_order("lab", "bench", given)
        on_the_way = ("accepted", "running")
        over = await until(
            lambda: [r for r in bench.mqtt.results[before:] if r["state"] not in on_the_way], 60
        )
        return over[0]

    done = await ordered("h1", "disconnect", confirm=meter.serial)
    assert (done["state"], done["result"]["outcome"]) == ("done", "done")
    refused = await ordered("h2", "reconnect", confirm=meter.serial)
    assert refused["state"] == "failed"
    assert "is not taken from MQTT" in refused["error"]
    assert not meter.connected
    entries = await trail(bench)
    assert [(one["order"], one["origin"], one["state"]) for one in entries] == [
        ("h1", "MQTT", "done"), ("h2", "MQTT", "refused"),
    ]  # fmt: skip


async def test_killed_between_the_meter_and_its_answer(bench):
    meter, _other = await started(bench)

    def kill(_what):
        meter.controls.memory.changed = lambda _what: None
        os.killpg(bench.product.pid, signal.SIGKILL)

    meter.controls.memory.changed = kill
    with pytest.raises(ControlError):
        await order(bench, "disconnect", meter.serial, confirm=meter.serial)
    await bench.product.wait()
    assert not meter.connected
    assert [one["state"] for one in await trail(bench)] == ["begun"]
    await bench.start_product()

    async def settled():
        return (await trail(bench))[0]["state"] != "begun"

    await until(settled, 60, "the meter was asked")
    (entry,) = await trail(bench)
    assert (entry["state"], entry["detail"]) == ("done", "found out later")
    assert entry["after"]["control_state"] == "disconnected"


@pytest.mark.parametrize("killed", [False, True])
async def test_keys_are_changed_and_the_meter_is_read_on(bench, killed):
    meter, other = await started(bench)
    old = meter.keys.encryption
    if killed:
        use = meter.security_setup._use

        def change(keys):
            meter.security_setup._use = use
            use(keys)
            os.killpg(bench.product.pid, signal.SIGKILL)

        meter.security_setup._use = change
        with pytest.raises(ControlError):
            await order(bench, "change_keys", meter.serial, confirm=meter.serial)
        await bench.product.wait()
        await bench.start_product()
    else:
        result = await order(bench, "change_keys", meter.serial, confirm=meter.serial)
        assert result["outcome"] == "done"
    assert meter.keys.encryption != old

    async def settled():
        return (await trail(bench))[0]["state"] == "done"

    await until(settled, 60, "the keys are settled")
    await all_active(bench)
    assert (await order(bench, "ping", meter.serial))["value"]
    assert (await order(bench, "ping", other.serial))["value"]
    kept = bench.directory / "state" / "meter_keys.json"
    assert kept.stat().st_mode & 0o077 == 0
    assert meter.keys.encryption.hex() in kept.read_text()
    texts = [bench.log, json.dumps(await trail(bench)), json.dumps(await bench.status())]
    for key in (old, meter.keys.encryption, meter.keys.authentication, meter.keys.master):
        assert not any(key.hex() in text.lower() for text in texts)


async def test_a_wrong_name_in_the_rules_is_told_at_start(bench):
    bench.start_substation(meters=2)
    bench.write_config(push=None, radio=None, mqtt=None, orders={"allow_mqtt": "switch_off"})
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "concentrator", "check-config", str(bench.config_file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2
    assert "orders.allow_mqtt: got 'switch_off'; allowed: some of all, disconnect, reconnect" in found.stderr
