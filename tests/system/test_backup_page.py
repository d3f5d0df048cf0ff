"""Backup and restore through the whole program: made on the page, uploaded, seen, confirmed, put in place."""

from __future__ import annotations

import re
import sqlite3
import tarfile
from contextlib import closing

import httpx
import pytest
from test_page_access import BARE, PASSWORD, start

from concentrator.control import give_order

from bench import LOOPBACK, until

pytestmark = pytest.mark.system

PASSPHRASE = "canary-of-the-backup"


def token_in(answer) -> str:
    return re.search(r'name="token" value="([^"]+)"', answer.text)[1]


async def log_in(client, password):
    fields = {"token": token_in(await client.get("/login")), "name": "admin", "password": password}
    assert (await client.post("/login", data=fields)).status_code == 303


async def meters(bench) -> set[str]:
    told = await give_order(bench.directory / "state" / "control.sock", "meters")
    return {one["identity"] for one in told["meters"]}


async def test_a_box_goes_back_to_its_backup(bench, tmp_path):
    one_time = await start(bench, **BARE)
    address = f"http://{LOOPBACK}:{bench.web_port}"
    state = bench.directory / "state"
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        await log_in(client, one_time)
        fields = {"token": token_in(await client.get("/password")), "password": one_time}
        await client.post("/password", data={**fields, "new": PASSWORD, "again": PASSWORD})
        token = token_in(await client.get("/backup"))
        await give_order(
            state / "control.sock", "meter_add", "ODC0000000001", {"link": "plc", "medium": "electricity"}
        )
        before = await meters(bench)
        answer = await client.post(
            "/backup",
            data={
                "token": token,
                "op": "make",
                "passphrase": PASSPHRASE,
                "again": PASSPHRASE,
                "with_readings": "on",
            },
        )
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["content-length"]) == len(answer.content)
        saved = tmp_path / "saved"
        saved.write_bytes(answer.content)
        with tarfile.open(saved) as archive:
            assert {"manifest.json", "store.db"} <= set(archive.getnames())
        await give_order(
            state / "control.sock", "meter_add", "ODC0000000002", {"link": "plc", "medium": "electricity"}
        )
        assert len(await meters(bench)) == len(before) + 1

        async def upload(content, passphrase=PASSPHRASE):
            return await client.post(
                "/backup/upload",
                data={"token": token, "passphrase": passphrase},
                files={"backup": ("b", content)},
            )

        damaged = await upload(saved.read_bytes()[:-200])
        assert damaged.status_code == 400
        assert "damaged" in damaged.text
        wrong = await upload(saved.read_bytes(), "another passphrase")
        assert wrong.status_code == 400
        assert "passphrase" in wrong.text
        assert len(await meters(bench)) == len(before) + 1
        seen = await upload(saved.read_bytes())
        assert seen.status_code == 200, seen.text
        identity = re.search(r'name="id" value="([^"]+)"', seen.text)[1]
        name = re.search(r"type the name of this box, ([^<]+?) <input", seen.text)[1]
        for confirm, status in (("something", 409), (name, 202)):
            answer = await client.post(
                "/backup", data={"token": token, "op": "apply", "id": identity, "confirm": confirm}
            )
            assert answer.status_code == status, answer.text

    async def is_back():
        try:
            return await meters(bench) == before
        except Exception:  # noqa: BLE001 - the service is on its way
            return False

    await until(is_back, 40, "the restored service")
    await until(lambda: any("restored" in row[0] for row in trail(state)), 10, "the trail")
    assert not (state / "archive").exists()
    assert (state / "before-restore" / "store.db").exists()
    assert PASSPHRASE not in bench.log


def trail(state):
    with closing(sqlite3.connect(state / "store.db")) as connection:
        return connection.execute("SELECT detail FROM audit WHERE operation = 'restore'").fetchall()
