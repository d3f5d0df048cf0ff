"""Firmware of meters and of the box through the whole program: signed, ordered, killed in the middle, told on."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing

import firmware_rig
import pytest
from firmware_rig import NEW, OLD

from concentrator.control import ControlError, request
from concentrator.store.inspection import complaints
from concentrator.store.migrations import SCHEMA_VERSION

from bench import CONCENTRATOR, until

pytestmark = pytest.mark.system


async def run(*arguments):
    process = await asyncio.create_subprocess_exec(
        *CONCENTRATOR, *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def campaign(bench):
    try:
        told = await request(bench.socket, {"op": "firmware"})
    except (ControlError, OSError, ValueError):
        # It is starting, or was killed.
        return None
    return told["campaigns"][0] if told["campaigns"] else None


async def test_a_campaign_by_command_outlives_kill_9(bench):
    folder, images = bench.directory, bench.directory / "images"
    images.mkdir()
    firmware_rig.make_key(folder)
    octets = firmware_rig.octets_of(20_000)
    (images / "meter.bin").write_bytes(octets)
    signed = await run(
        *("firmware", "sign", images / "meter.bin", "--key", folder / "release.pem", "--manufacturer", "ODC"),
        *("--model", "simulated", "--from-version", OLD, "--to-version", NEW),
    )
    assert signed[0] == 0, signed
    manifest = images / "meter.bin.json"
    if shutil.which("openssl"):
        verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", folder / "release.pub", "-rawin"]
        files = ["-in", manifest, "-sigfile", f"{manifest}.sig"]
        openssl = await asyncio.to_thread(subprocess.run, [*verify, *files], check=False, capture_output=True)
        assert openssl.returncode == 0, openssl
    await bench.start_outside()
    bench.start_substation(meters=3, speed=200.0)
    bench.write_config(firmware={"trusted_keys": str(folder / "release.pub"), "folder": str(images)})
    config = ("--config", bench.config_file)
    checked = await run("firmware", "check", manifest, *config)
    assert (checked[0], "ODC simulated: ODC-SIM 1.0 to ODC-SIM 2.0" in checked[1]) == (0, True), checked
    await bench.start_product()
    await bench.until_status(
        lambda s: sum(bool(m["firmware"] and m["reachable"]) for m in s["meters"] if m["link"] == "plc") == 3
    )
    started = await run(
        "firmware", "start", "meter.bin.json", "--name", "spring", "--first", "0", "--settle-s", "10", *config
    )
    assert (started[0], started[1].splitlines()[0]) == (0, "campaign spring: 3 meters, 0 left out"), started

    async def blocks(least):
        now = await campaign(bench)
        return now is not None and sum(one["blocks_done"] for one in now["meters"]) >= least

    for least in (40, 200):
        await until(lambda least=least: blocks(least), 60)
        await bench.stop_product(signal.SIGKILL)
        assert complaints_of(bench) == []
        await bench.start_product()

    async def over():
        now = await campaign(bench)
        return now if now is not None and now["state"] == "finished" else None

    done = await until(over, 90)
    assert done["counts"]["done"] == 3
    meters = bench.substation.meters
    assert [bytes(meter.image_transfer._blocks.octets()) for meter in meters] == [octets] * 3
    assert [meter.firmware.decode() for meter in meters] == [NEW] * 3
    listed = await run("firmware", "status", "spring", *config)
    assert listed[1].count("done 157 of 157 blocks") == 3, listed
    refused = await run("firmware", "start", "meter.bin.json", "--name", "again", *config)
    assert refused[0] == 1, refused
    assert "it has ODC-SIM 2.0 already" in refused[2]


def complaints_of(bench):
    with closing(sqlite3.connect(bench.directory / "state" / "store.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        return complaints(connection, full=True)


async def test_an_own_update_is_told_to_the_service_the_page_and_the_head_end(bench):
    heard = []
    look = bench.mqtt.look

    def listen(topic, payload):
        look(topic, payload)
        if topic.endswith("/update"):
            heard.append(json.loads(payload))

    bench.mqtt.look = listen
    await bench.start_outside()
    bench.write_config(modem=None, radio=None, collection={"key_file": ""})
    await bench.start_product()
    await bench.until_status(lambda s: any(one["state"] == "connected" for one in s["destinations"]))
    bundle = bench.directory / "box.raucb"
    bundle.write_bytes(b"no bundle")
    # No bus is here, or no RAUC on it: refused, and recorded.
    code, _out, err = await run(
        "update", "install", bundle, "--bus", "session", "--config", bench.config_file
    )
    assert code == 3, err

    async def job():
        told = await request(bench.socket, {"op": "firmware"})
        return told["job"] if told["job"] and told["job"]["state"] == "failed" else None

    found = await until(job, 20)
    assert found["target"] == "box.raucb"
    assert found["begun_by"] == "concentrator update install, on the box"
    assert found["error"]
    await until(lambda: any((one["job"], one["state"]) == (found["job"], "failed") for one in heard), 20)
    await bench.stop_product()
    await bench.start_product()
    await bench.until_status(lambda s: s["name"] == "bench")
    assert (await until(job, 20))["job"] == found["job"], "kept over a restart"
