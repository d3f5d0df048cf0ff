"""The registry through the real program: keys taken in while it runs, meters grouped, foreign, removed and replaced."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import subprocess
import sys

import pytest

from bench import until

pytestmark = pytest.mark.system

CANARY = "C0FFEE0123456789C0FFEE9876543210"


async def command(bench, group, verb, *arguments):
    """A command of the box; the simulated modem lives on this event loop, so it must not wait."""
    whole = [
        sys.executable,
        "-m",
        "concentrator",
        group,
        verb,
        "--config",
        str(bench.config_file),
        *arguments,
    ]
    return await asyncio.to_thread(
        subprocess.run, whole, capture_output=True, text=True, timeout=60, check=False
    )


async def done(bench, group, verb, *arguments):
    result = await command(bench, group, verb, *map(str, arguments))
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def plc_states(status):
    return sorted(m["state"] for m in status["meters"] if m["link"] == "plc")


async def state_of(bench, identity):
    status = await bench.status()
    return next((m["state"] for m in status.get("meters", ()) if m["identity"] == identity), None)


def rows(bench, identity):
    with sqlite3.connect(bench.directory / "state" / "store.db") as store:
        return store.execute("SELECT COUNT(*) FROM reading_in_full WHERE meter = ?", (identity,)).fetchone()[
            0
        ]


async def test_keys_are_imported_while_the_service_runs_and_are_shown_nowhere(bench):
    bench.start_substation(meters=3)
    bench.write_config(mqtt=None, push=None, collection={"key_file": ""})
    await bench.start_product()
    await bench.until_status(lambda s: plc_states(s) == ["key_missing"] * 3, 90)
    file = bench.directory / "keys.json"
    keys = json.loads(file.read_text())
    keys["meters"]["somebody"] = {"encryption_key": CANARY, "authentication_key": CANARY}
    file.write_text(json.dumps(keys))
    outputs = [await done(bench, "keys", "import", file)]
    # Nothing else is done: the meters of both kinds are read with what was imported.
    await bench.until_status(
        lambda s: (
            {m["link"]: m["state"] for m in s["meters"] if m["link"] != "mbus-client"}
            == {"plc": "active", "wmbus": "active"}
            and plc_states(s) == ["active"] * 3
        ),
        90,
        "all are read with their keys",
    )
    secret = [value for entry in keys["meters"].values() for value in entry.values()] + [
        *keys["wmbus"].values()
    ]
    outputs += [
        await done(bench, "keys", "list"),
        await done(bench, "meters", "list", "--json"),
        await done(bench, "meters", "export"),
        json.dumps(await bench.status()),
        bench.log,
    ]
    await bench.stop_product()
    outputs += [
        path.read_bytes().decode("latin-1")
        for path in (bench.directory / "state").iterdir()
        if path.is_file()
    ]
    for text in outputs:
        for value in secret:
            assert value.lower() not in text.lower()
            assert bytes.fromhex(value).decode("latin-1") not in text
    # After a restart the key store alone has them.
    file.unlink()
    await bench.start_product()
    await bench.until_status(
        lambda s: sum(m.get("reachable", False) and m["state"] == "active" for m in s["meters"]) == 3, 90
    )


async def test_meters_are_grouped_left_alone_removed_and_replaced(bench):
    substation = bench.start_substation(meters=4)
    one, other, third, fourth = (meter.serial for meter in substation.meters)
    bench.write_config(mqtt=None, push=None, radio=None)
    await bench.start_product()
    await bench.until_status(lambda s: plc_states(s) == ["active"] * 4, 90)
    listed = json.loads(await done(bench, "meters", "list", "--json", "--link", "plc"))
    assert {m["model"] for m in listed} == {"simulated"}
    assert all(m["installed_at"] for m in listed)

    await done(
        bench, "meters", "set", one, "--group", "street 7", "--group", "pilot", "--connection-limit", 11_000
    )
    await done(bench, "meters", "set", one, "--no-group", "pilot")
    (grouped,) = json.loads(await done(bench, "meters", "list", "--json", "--group", "street 7"))
    assert (grouped["identity"], grouped["groups"], grouped["connection_limit"]) == (
        one,
        ["street 7"],
        11_000,
    )

    await done(bench, "meters", "foreign", other)
    await done(bench, "meters", "remove", third, "--reason", "house torn down")
    await done(bench, "meters", "replace", one, "--by", fourth)
    before = {identity: rows(bench, identity) for identity in (one, other, third)}
    assert min(before.values()) > 0
    for identity in (one, other, third):
        refused = await command(bench, "order", "read", "--target", identity)
        assert refused.returncode != 0
        assert "left alone" in refused.stderr
    listed = {m["identity"]: m for m in json.loads(await done(bench, "meters", "list", "--json"))}
    assert (listed[other]["state"], listed[third]["reason"]) == ("foreign", "house torn down")
    assert (listed[one]["state"], listed[one]["replaced_by"]) == ("removed", fourth)
    assert listed[one]["removed_at"] is not None
    assert (listed[fourth]["groups"], listed[fourth]["connection_limit"]) == (["street 7"], 11_000)

    # All of it survives a restart, and nobody who is left alone is asked when their nodes join again.
    await bench.stop_product()
    await bench.start_product()
    await bench.until_status(
        lambda s: any(
            m["identity"] == fourth and m["reachable"] and m["state"] == "active" for m in s["meters"]
        ),
        90,
    )
    assert [await state_of(bench, identity) for identity in (one, other, third)] == [
        "removed",
        "foreign",
        "removed",
    ]
    assert {identity: rows(bench, identity) for identity in (one, other, third)} == before

    await done(bench, "meters", "foreign", other, "--no")
    await done(bench, "meters", "add", third)
    await bench.until_status(
        lambda s: all(m["state"] == "active" for m in s["meters"] if m["identity"] in (other, third)), 60
    )
    refused = await command(bench, "meters", "remove", "nobody")
    assert refused.returncode != 0
    assert "no meter 'nobody'" in refused.stderr


async def test_a_list_of_meters_with_keys_is_imported_and_exported(bench):
    substation = bench.start_substation(meters=2)
    bench.write_config(mqtt=None, push=None, radio=None, collection={"key_file": ""})
    await bench.start_product()
    await until(lambda: bench.socket.exists(), 30)
    names = ["house-1", "house-2"]
    lines = ["identity,medium,link,link_address,groups,connection_limit,encryption_key,authentication_key"]
    lines += [
        f"{name},electricity,plc,{meter.eui48.hex()},north;new,9000,{meter.keys.encryption.hex()},"
        f"{meter.keys.authentication.hex()}"
        for name, meter in zip(names, substation.meters, strict=True)
    ]
    file = bench.directory / "meters.csv"
    file.write_text("\n".join(lines) + "\n")
    assert "2 new" in await done(bench, "meters", "import", file)
    await bench.until_status(
        lambda s: all(any(m["identity"] == n and m["state"] == "active" for m in s["meters"]) for n in names),
        90,
    )
    text = await done(bench, "meters", "export")
    exported = {row["identity"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(exported) == set(names)
    assert exported["house-1"]["serial"] == substation.meters[0].serial
    assert exported["house-2"]["groups"] == "north;new"
    assert substation.meters[0].keys.encryption.hex() not in text
    # What was exported can be imported again, here or elsewhere; with a mistake in it nothing of it is.
    file.write_text(text)
    assert "0 new, 2 known" in await done(bench, "meters", "import", file)
    file.write_text(text.replace("9000", "much") + "house-3,water,wmbus" + "," * 14 + "\n")
    refused = await command(bench, "meters", "import", str(file))
    assert refused.returncode == 2
    assert "line 2: connection_limit: got 'much'" in refused.stderr
    await bench.stop_product()
    offline = await done(bench, "meters", "list", "--json")
    assert {m["identity"] for m in json.loads(offline)} == set(names)


async def test_meters_of_another_utility_are_listed_and_never_asked_with_a_key(bench):
    substation = bench.start_substation(meters=3)
    ours, *others = (meter.serial for meter in substation.meters)
    bench.write_config(mqtt=None, push=None, radio=None, collection={"own_meters": ours})
    await bench.start_product()
    status = await bench.until_status(lambda s: plc_states(s) == ["active", "foreign", "foreign"], 90)
    assert {m["identity"] for m in status["meters"] if m["state"] == "foreign"} == set(others)
    assert all("own_meters" in m["reason"] for m in status["meters"] if m["state"] == "foreign")
    for meter in substation.meters[1:]:
        # The public client was let in, nobody else: no key of ours was tried.
        assert meter.security_setup.holder.received_counters.get(1, {}) == {}
    # When the rule changes they are ours after all.
    await bench.stop_product()
    bench.write_config(mqtt=None, push=None, radio=None, collection={"own_meters": ""})
    await bench.start_product()
    await bench.until_status(lambda s: plc_states(s) == ["active"] * 3, 90)


async def test_a_node_that_the_whitelist_declines_is_a_foreign_meter_until_it_may_join(bench):
    substation = bench.start_substation(meters=2)
    allowed, declined = substation.meters
    whitelist = bench.directory / "whitelist"
    whitelist.write_text(allowed.eui48.hex() + "\n")
    modem = substation.modem
    modem._expelled.add(declined.eui48)  # it has no power yet
    bench.write_config(mqtt=None, push=None, radio=None, modem={"whitelist_file": str(whitelist)})
    await bench.start_product()
    identity = f"eui-{declined.eui48.hex()}"
    await bench.until_status(lambda s: [m["state"] for m in s["meters"]] == ["active"], 90)
    modem._expelled.clear()
    modem._come(modem._find(declined.eui48))
    status = await bench.until_status(
        lambda s: sorted((m["state"]) for m in s["meters"]) == ["active", "foreign"], 90
    )
    (foreign,) = (m for m in status["meters"] if m["state"] == "foreign")
    assert (foreign["identity"], "whitelist" in foreign["reason"]) == (identity, True)
    await done(bench, "order", "whitelist", "--args", json.dumps({"add": [declined.eui48.hex()]}))
    await bench.until_status(
        lambda s: (
            sorted((m["identity"], m["state"]) for m in s["meters"])
            == sorted((meter.serial, "active") for meter in substation.meters)
        ),
        90,
    )


async def test_a_meter_that_refuses_us_counts_as_foreign_where_that_is_wanted(bench):
    substation = bench.start_substation(meters=2)
    file = bench.directory / "keys.json"
    keys = json.loads(file.read_text())
    refusing = substation.meters[1].serial
    keys["meters"][refusing] = {"encryption_key": CANARY, "authentication_key": CANARY}
    file.write_text(json.dumps(keys))
    bench.write_config(mqtt=None, push=None, radio=None, collection={"foreign_after_refusals": 1})
    await bench.start_product()
    status = await bench.until_status(lambda s: plc_states(s) == ["active", "foreign"], 90)
    (foreign,) = (m for m in status["meters"] if m["state"] == "foreign")
    assert (foreign["identity"], "refused us 1 times" in foreign["reason"]) == (refusing, True)
    assert CANARY.lower() not in bench.log.lower()
