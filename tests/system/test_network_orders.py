"""Orders to the PLC network, and its history, through the real program: expel, whitelist, keys, firmware, topology."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from concentrator.control import ControlError, request
from plc.prime.firmware_upgrade import CONFIRMED

from bench import until

pytestmark = pytest.mark.system

_count = iter(range(1_000_000))


async def order(bench, operation, target="", **arguments):
    given = {"id": f"test-{next(_count)}", "op": operation, "target": target, "args": arguments}
    answer = await request(bench.socket, {"op": "order", "order": given})
    assert answer["state"] == "done"
    return answer["result"]


async def refusal(bench, operation, target="", **arguments):
    with pytest.raises(ControlError) as error:
        await order(bench, operation, target, **arguments)
    return str(error.value)


async def command(bench, verb, *arguments):
    """A command of the box; the simulated modem lives on this event loop, so it must not wait."""
    whole = [sys.executable, "-m", "concentrator", verb, "--config", str(bench.config_file), *arguments]
    return await asyncio.to_thread(
        subprocess.run, whole, capture_output=True, text=True, timeout=60, check=False
    )


async def started(bench, protocol="prime", **options):
    modem = options.pop("modem", {})
    bench.start_substation(protocol=protocol, **{"meters": 5, **options})
    bench.write_config(mqtt=None, push=None, radio=None, modem=modem)
    await bench.start_product()
    return await all_known(bench, len(bench.substation.meters))


async def all_known(bench, count=5):
    return await bench.until_status(
        lambda s: (
            sum(bool(m["firmware"] and m["reachable"]) for m in s["meters"] if m["link"] == "plc") == count
        )
    )


async def test_topology_history_survives_a_restart(bench):
    await started(bench)
    before = await order(bench, "topology")
    assert len(before["nodes"]) == 5
    assert all(node["available"] and node["level"] is not None for node in before["nodes"])
    assert {change["what"] for node in before["nodes"] for change in node["changes"]} >= {"joined"}
    assert await bench.stop_product(signal.SIGTERM) == 0
    await bench.start_product()
    await all_known(bench)
    after = await order(bench, "topology")
    histories = {node["eui"]: node["changes"] for node in before["nodes"]}
    for node in after["nodes"]:
        # Nobody joined anew: only the concentrator was away.
        assert node["changes"] == histories[node["eui"]]
        assert node["available"]
    serial = bench.substation.meters[0].serial
    shown = await command(bench, "topology")
    assert shown.returncode == 0, shown.stderr
    assert serial in shown.stdout
    one = await command(bench, "topology", "--meter", serial)
    assert "joined" in one.stdout
    assert "hangs under" in one.stdout
    whole = json.loads((await command(bench, "topology", "--json")).stdout)
    assert {node["eui"] for node in whole["nodes"]} == set(histories)


async def test_prime_network_orders(bench):
    status = await started(bench)
    network = status["modem"]["network"]
    assert network["capabilities"]["operations"] == ["device_keys", "node_upgrade", "multicast", "promotion"]
    # Meters on their M-Bus channels may have turned up too: those are no nodes of the network.
    meters = {meter["identity"]: meter for meter in status["meters"] if meter["link"] == "plc"}
    first, second = sorted(meters)[:2]

    found = await order(bench, "diagnostics")
    assert "mac_tx_data_packets" in found["counters"]
    assert len(found["tables"]["phy_communication"]) == 5
    values = dict((await order(bench, "diagnostics", first))["values"])
    assert values["firmware_version"] == "1.0.0"
    assert await order(bench, "refresh") == {"begun": True}

    # Expelled, and kept out by the whitelist.
    everyone = [meter["link_address"] for meter in meters.values()]
    others = [eui for eui in everyone if eui != meters[first]["link_address"]]
    assert (await order(bench, "whitelist"))["everyone"] is True
    assert (await order(bench, "whitelist", add=others))["allowed"] == sorted(others)
    await order(bench, "expel", first)
    eui = meters[first]["link_address"]
    await until(lambda: bytes.fromhex(eui) not in bench.substation.modem.connected_euis(), 30)
    await bench.until_status(
        lambda s: not next(m for m in s["meters"] if m["identity"] == first)["reachable"]
    )
    history = await order(bench, "topology", first)
    assert history["changes"][-1]["what"] == "left"

    assert "unknown" in await refusal(bench, "whitelist", colour="blue")
    assert "EUIs of 6 octets" in await refusal(bench, "whitelist", add=["0011223344556677"])
    about = {"file": "x.bin", "vendor": "", "model": "", "version": ""}
    (bench.directory / "state" / "node_firmware").mkdir()
    (bench.directory / "state" / "node_firmware" / "x.bin").write_bytes(b"x")
    assert "field page_size takes" in await refusal(bench, "upgrade", **about, page_size=300)
    assert (await order(bench, "upgrade_status"))["state"] == "none"
    assert "not known to a prime network" in await refusal(bench, "rotate_group_key")
    assert "needs a meter" in await refusal(bench, "expel")
    assert "is for the whole network" in await refusal(bench, "refresh", first)
    assert "no meter 'NOBODY'" in await refusal(bench, "diagnostics", "NOBODY")
    # The whitelist that orders have made survives a restart.
    await bench.stop_product(signal.SIGTERM)
    await bench.start_product()
    await all_known(bench, 4)
    assert (await order(bench, "whitelist"))["allowed"] == sorted(others)
    assert (await order(bench, "whitelist", everyone=True))["everyone"] is True
    shown = await command(bench, "order", "--target", second, "diagnostics")
    assert shown.returncode == 0, shown.stderr
    assert "firmware_version" in shown.stdout


async def test_node_firmware_upgrade(bench):
    await started(bench, meters=4)
    folder = bench.directory / "state" / "node_firmware"
    folder.mkdir()
    (folder / "node.bin").write_bytes(bytes(range(256)) * 20)
    about = {"file": "node.bin", "vendor": "ODC", "model": "SIM", "version": "2.0.0"}
    assert "allowed: a name in" in await refusal(bench, "upgrade", **{**about, "file": "../secret"})
    assert "No such file" in await refusal(bench, "upgrade", **{**about, "file": "other.bin"})
    assert "args: model" in await refusal(bench, "upgrade", **{**about, "model": 3})
    assert await order(bench, "upgrade_status") == {"state": "none"}
    begun = await order(bench, "upgrade", **about, restart_delay_s=1, safety_timer_s=600)
    assert begun == {"begun": True, "targets": 4}

    async def finished():
        status = await order(bench, "upgrade_status")
        return status if status["state"] == "finished" else None

    status = await until(finished, 90)
    assert set(status["outcomes"].values()) == {CONFIRMED}, status
    assert "no firmware upgrade is under way" in await refusal(bench, "abort_upgrade")


@pytest.mark.parametrize("protocol", ["g3", "g3-a"])
async def test_rotation_of_the_group_key_survives_a_restart(bench, protocol):
    await started(bench, protocol, meters=3, modem={"generation": "a" if protocol == "g3-a" else "b"})
    modem = bench.substation.modem
    assert await order(bench, "rotate_group_key") == {"begun": True}
    await bench.until_status(lambda s: not s["modem"]["network"]["rotating_group_key"])
    kept = bench.directory / "state" / "group_key.json"
    assert kept.stat().st_mode & 0o077 == 0
    key = json.loads(kept.read_text())
    assert (key["index"], key["next_gmk"]) == (1, "")
    if protocol == "g3":
        assert key["gmk"] == modem._gmk.hex()
    assert key["gmk"] not in (bench.directory / "g3.toml").read_text()
    assert key["gmk"] not in bench.log
    await bench.stop_product(signal.SIGTERM)
    modem.restart()
    await bench.start_product()
    await all_known(bench, 3)
    assert json.loads(kept.read_text()) == key
    assert len(modem.joined_euis()) == 3
    values = dict((await order(bench, "diagnostics", bench.substation.meters[0].serial))["values"])
    assert "forward hop 1" in values


async def test_a_whitelist_file_and_device_keys(bench):
    whitelist = bench.directory / "whitelist.txt"
    keys = bench.directory / "prime.toml"
    whitelist.write_text("# ours\n020dc0000001\n02:0d:c0:00:00:02  # next door\n")
    keys.write_text('[device_keys]\n020dc0000001 = "202122232425262728292a2b2c2d2e2f"\n')
    keys.chmod(0o600)
    bench.start_substation(meters=3)
    third = bytes.fromhex("020dc0000003")
    modem = bench.substation.modem
    modem._expelled.add(third)  # it has no power yet
    bench.write_config(
        mqtt=None, push=None, radio=None, modem={"whitelist_file": str(whitelist), "key_file": str(keys)}
    )
    await bench.start_product()
    await all_known(bench, 2)
    assert bench.substation.modem._known_keys == {
        bytes.fromhex("020dc0000001"): bytes.fromhex("202122232425262728292a2b2c2d2e2f")
    }
    modem._expelled.clear()
    modem._come(modem._find(third))
    await bench.until_status(
        lambda s: s["modem"]["network"]["declined"] == {third.hex(): "not on the whitelist"}
    )
    assert third not in modem.connected_euis()
    whitelist.write_text(whitelist.read_text() + "020dc0000003\n")
    keys.write_text(keys.read_text() + '020dc0000003 = "303132333435363738393a3b3c3d3e3f"\n')
    assert await order(bench, "reload_keys") == {"whitelist": 3, "device_keys": 2}
    await all_known(bench, 3)
    assert third in modem._known_keys
    whitelist.write_text("not an eui\n")
    assert "whitelist.txt: line 1" in await refusal(bench, "reload_keys")
    assert "30313233" not in bench.log


async def test_s_fsk_orders(bench):
    await started(bench, "s-fsk", meters=3)
    meter = bench.substation.meters[0]
    values = dict((await order(bench, "diagnostics", meter.serial))["values"])
    assert values["repetitions"] in "012"
    assert len((await order(bench, "diagnostics"))["tables"]["servers"]) == 3
    bench.substation.modem.raise_alarm(meter.system_title, 0x82)
    assert await order(bench, "repeater_call") == {"begun": True}
    assert await order(bench, "clear_alarm", alarms=[0x82], titles=[meter.system_title.hex()]) == {
        "begun": True
    }
    await until(lambda: not bench.substation.modem.alarms(), 30)
    assert "alarms: got" in await refusal(bench, "clear_alarm")
