"""What a field engineer meets: full disks, wrong keys, ports that are not there yet."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from bench import until

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(bench):
    """The state directory on a file system of 700 KiB that can grow."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    directory = bench.directory / "state"
    directory.mkdir()

    def resize(size: str, *, first: bool = False) -> None:
        option = f"size={size}" if first else f"remount,size={size}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(directory)], check=True)

    resize("700k", first=True)
    yield resize
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_a_full_disk_is_told_loses_nothing_and_passes(bench, small_disk):
    bench.days = 3
    await bench.start_outside()
    bench.start_substation(meters=6)
    bench.write_config()
    await bench.start_product()
    status = await bench.until_status(lambda s: s["store"]["unavailable"])
    assert "free space" in status["store"]["unavailable"]
    # What was stored goes on to the head-end, whose acknowledgements cannot be kept yet.
    assert bench.product.returncode is None
    small_disk("40m")
    await bench.until_status(lambda s: not s["store"]["unavailable"])
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)


async def test_missing_and_wrong_keys_are_two_states_with_reasons(bench):
    await bench.start_outside()
    substation = bench.start_substation(meters=3)
    keys = json.loads((bench.directory / "keys.json").read_text())
    without, wrong, right = (meter.serial for meter in substation.meters)
    del keys["meters"][without]
    keys["meters"][wrong]["encryption_key"] = "00" * 16
    water = next(iter(keys["wmbus"]))
    keys["wmbus"][water] = "11" * 16
    (bench.directory / "keys.json").write_text(json.dumps(keys))
    bench.write_config()
    await bench.start_product()

    def states(status):
        return {meter["identity"]: meter for meter in status["meters"]}

    status = await bench.until_status(
        lambda s: {m["state"] for m in s["meters"]} == {"key_missing", "refused", "active", "key_wrong"}
    )
    meters = states(status)
    assert meters[right]["state"] == "active"
    assert meters[without]["state"] == "key_missing"
    assert "no keys" in meters[without]["reason"]
    assert meters[wrong]["state"] == "refused"
    assert meters[wrong]["reason"]
    (heard,) = [meter for meter in meters.values() if meter["medium"] == "water"]
    assert heard["state"] == "key_wrong"
    shown = json.dumps(status) + bench.log
    for entry in keys["meters"].values():
        assert entry["authentication_key"] not in shown


async def test_a_port_that_comes_late_is_waited_for(bench):
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.substation.modem_port.unplug()
    bench.write_config(modem={"wait_for_port": True})
    await bench.start_product()
    status = await bench.until_status(lambda s: s["modem"]["state"] == "port missing")
    assert "plugged in" in status["modem"]["reason"]
    bench.substation.modem_port.plug()
    await bench.until_delivered()


async def test_a_port_that_is_not_there_stops_the_start_with_status_2(bench):
    bench.start_substation(meters=1)
    bench.substation.modem_port.unplug()
    bench.write_config()
    await bench.start_product()
    assert await bench.product.wait() == 2
    bench.product = None
    assert "modem.port" in bench.log


async def test_a_head_end_that_never_confirms_can_be_served(bench):
    """`confirmed = false`: what TCP has delivered counts."""
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config(push={"confirmed": False})
    await bench.start_product()
    await bench.until_delivered()
    bench.check_ledger(bench.push.ledger)
    await bench.until_status(lambda s: all(d["pending_batches"] == 0 for d in s["destinations"]))


async def test_a_push_that_is_not_confirmed_is_not_forwarded(bench):
    await bench.start_outside()
    bench.push.confirms = False
    bench.start_substation(meters=2)
    bench.write_config(push={"timeout_s": 2, "in_flight": 2})
    await bench.start_product()
    await until(lambda: bench.push.ledger.messages >= 4, 60, "pushes are tried again")
    status = await bench.status()
    push = next(d for d in status["destinations"] if d["kind"] == "push")
    assert push["cursor"] == 0
    assert push["pending_readings"] > 0
    bench.push.confirms = True
    await bench.until_delivered()
    await bench.until_status(lambda s: all(d["pending_batches"] == 0 for d in s["destinations"]))
    assert bench.push.ledger.conflicts == 0
