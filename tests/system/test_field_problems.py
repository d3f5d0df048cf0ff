"""What a field engineer meets: full disks, wrong keys, ports that are not there yet."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
from contextlib import closing, suppress

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


@pytest.fixture
def mounted(bench):
    """The state directory on a file system of its own, which can be mounted anew with other options."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system")
    directory = bench.directory / "state"
    directory.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)

    mount("size=40m")
    yield mount
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def begin_collecting(bench) -> None:
    bench.days = 3
    await bench.start_outside()
    bench.start_substation(meters=6)
    bench.write_config()
    await bench.start_product()
    await until(lambda: len(bench.mqtt.ledger.values) > 50, 60, "readings flow")


async def events(bench, code: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{bench.directory}/state/store.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT detail FROM event WHERE code = ?", (code,)).fetchall()
    return [detail for (detail,) in rows]


async def test_a_failing_card_is_told_and_passes(bench):
    await begin_collecting(bench)
    process = bench.product
    # Writes beyond this fail in the WAL (SQLITE_IOERR), as of a card that takes no more data; the log is shorter.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    status = await bench.until_status(lambda s: s["store"]["state"] == "input/output error")
    assert "check the card" in status["store"]["unavailable"]
    await asyncio.sleep(3)
    assert process.returncode is None, "no crash"
    assert bench.log.count("Traceback") == 0
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await bench.until_status(lambda s: s["store"]["state"] == "in use")
    await bench.until_delivered()
    assert process.returncode is None
    bench.check_ledger(bench.mqtt.ledger)
    await until(lambda: events(bench, "store_state"), 10)
    assert any("input/output error" in detail for detail in await events(bench, "store_state"))


async def test_a_file_system_that_comes_up_read_only_is_told_and_waited_for(bench, mounted):
    """As after an error of the card: the kernel mounts it read-only, and the service is started on it."""
    await begin_collecting(bench)
    await bench.stop_product()
    mounted("remount,ro")
    await bench.start_product()
    await until(lambda: "state=read-only" in bench.log, 30, "told")
    await asyncio.sleep(6)
    assert bench.product.returncode is None, "no crash loop"
    mounted("remount,rw")
    await bench.until_delivered()
    bench.check_ledger(bench.mqtt.ledger)


async def test_a_page_damaged_in_use_leads_to_a_new_store_and_everything_is_read_again(bench):
    bench.days = 2
    await bench.start_outside()
    bench.start_substation(meters=4)
    bench.write_config()
    await bench.start_product()
    await bench.until_delivered()
    process, path = bench.product, bench.directory / "state" / "store.db"
    # Fold the WAL into the file, so that the pages of the file count; then overwrite all but the first.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    octets = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (octets - 4096))
    await until(lambda: (path.parent / "store.db.damaged-1").exists(), 60, "set aside")

    async def told() -> list[str]:
        # The new file is there a moment before its tables.
        with suppress(sqlite3.OperationalError):
            return await events(bench, "store_set_aside")
        return []

    await until(told, 30, "told")
    assert process.returncode is None, "the service went on by itself"
    # What the meters still hold is read again: the new store has all of it.
    truth = bench.truth()

    def readings() -> set:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT identity, obis, captured_at FROM reading JOIN channel USING (channel_id)"
                " JOIN meter USING (meter_id)"
            )
            return set(rows)

    await until(lambda: truth.keys() <= readings(), 90, "read again")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (first,) = connection.execute("SELECT MIN(sequence) FROM batch").fetchone()
        (counter,) = connection.execute("SELECT MIN(reserved) FROM invocation_counter").fetchone()
    assert first > 1_700_000_000, "no number of a batch is given twice"
    assert counter > 1_700_000_000, "no invocation counter is used twice"
    assert bench.log.count("store damaged, set aside") == 1
    assert bench.mqtt.ledger.conflicts == 0


async def test_a_disk_that_is_full_at_the_start_is_waited_for(bench, small_disk):
    small_disk("8k")
    await bench.start_outside()
    bench.start_substation(meters=2)
    bench.write_config()
    await bench.start_product()
    await until(lambda: "trying again" in bench.log, 30)
    assert bench.product.returncode is None
    small_disk("40m")
    await bench.until_delivered(120)
    bench.check_ledger(bench.mqtt.ledger)
