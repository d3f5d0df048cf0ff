"""Through the whole program: the first login, an order to its result, configurations that revert themselves, keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

from concentrator.control import request

from bench import CONCENTRATOR, LOOPBACK, until
from chromium import CHROMIUM_ARGUMENTS

pytestmark = pytest.mark.system

PASSWORD = "canary-our-own-password"
# No modem and no meters: what is tested needs none.
BARE = {"modem": None, "push": None, "collection": {"key_file": ""}}
KEY = "ca1a57caca1a57caca1a57caca1a57ca"


@pytest_asyncio.fixture
async def tab():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(30_000)
        yield page
        await browser.close()


async def start(bench, **changes) -> str:
    """The product with its page; gives the one-time password that it told."""
    bench.write_config(radio=None, **changes)
    await bench.start_product(page=True)
    await until(lambda: bench.directory.joinpath("product.log").exists() and one_time(bench), 15, "password")
    await until(lambda: answers(bench), 30, "the page")
    return one_time(bench)


def one_time(bench) -> str:
    found = re.search(r"One-time password of admin .*: (\S+)", bench.log)
    return found[1] if found else ""


async def answers(bench) -> bool:
    async with httpx.AsyncClient(timeout=2) as client:
        try:
            return (await client.get(f"http://{LOOPBACK}:{bench.web_port}/login")).status_code == 200
        except httpx.TransportError:
            return False


async def log_in(bench, tab, password: str, name: str = "admin") -> None:
    await tab.goto(f"http://{LOOPBACK}:{bench.web_port}/login")
    await tab.get_by_label("Name").fill(name)
    await tab.get_by_label("Password").fill(password)
    await tab.get_by_role("button", name="Log in").click()


async def first_login(bench, tab, password: str) -> None:
    await log_in(bench, tab, password)
    await expect(tab.get_by_text("The one-time password has to be changed")).to_be_visible()
    await tab.get_by_label("Present password").fill(password)
    await tab.get_by_label("New password, 10").fill(PASSWORD)
    await tab.get_by_label("New password again").fill(PASSWORD)
    await tab.get_by_role("button", name="Change").click()
    await expect(tab.locator("#logout")).to_be_attached()


async def audit(bench) -> list[dict]:
    done = await asyncio.to_thread(
        subprocess.run,
        [*CONCENTRATOR, "audit", "--config", str(bench.config_file), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def edit(tab, before: str, after: str) -> None:
    box = tab.locator("textarea")
    text = await box.input_value()
    assert before in text
    await box.fill(text.replace(before, after))
    await tab.get_by_role("button", name="Check and compare").click()


async def test_from_the_first_login_to_an_order_and_its_place_in_the_trail(bench, tab):
    await bench.start_outside()
    bench.start_substation(meters=2, speed=200.0)
    password = await start(bench, orders={"allow_page": "disconnect, reconnect"})
    await first_login(bench, tab, password)
    # The one-time password is told once, and opens nothing any more.
    serial = bench.substation.meters[0].serial
    await bench.until_status(
        lambda status: any(
            one["identity"] == serial and one["state"] == "active" for one in status["meters"]
        ),
        90,
        "the meter is read",
    )
    await tab.goto(f"http://{LOOPBACK}:{bench.web_port}/meters/{serial}")
    await tab.get_by_text("Disconnect or reconnect the supply").click()
    await tab.get_by_label("To confirm").fill(serial)
    await tab.get_by_role("button", name="Disconnect").click()
    await expect(tab.get_by_text("Disconnect: done")).to_be_visible(timeout=60_000)
    await tab.get_by_role("link", name="All orders").click()
    await expect(tab.locator("td", has_text="admin (admin) at 127.0.0.1").first).to_be_visible()
    await tab.locator("details.menu.wide summary").click()
    await tab.get_by_role("link", name="Audit trail").click()
    row = tab.locator("tr", has_text="disconnect")
    await expect(row.get_by_text("the page, admin (admin) at 127.0.0.1")).to_be_visible()

    # A viewer sees the meter, and is refused: by the page, and by the service whatever the page says.
    done = await asyncio.to_thread(
        subprocess.run,
        [*CONCENTRATOR, "users", "add", "--config", str(bench.config_file), "--password-stdin", "vera"],
        input=PASSWORD,
        capture_output=True,
        text=True,
        check=True,
    )
    assert PASSWORD not in done.stdout + done.stderr
    await tab.locator("details.menu.wide summary").click()
    await tab.get_by_role("button", name="Log out").click()
    await log_in(bench, tab, PASSWORD, "vera")
    await tab.goto(f"http://{LOOPBACK}:{bench.web_port}/meters/{serial}")
    await expect(tab.get_by_role("heading", name=serial)).to_be_visible()
    await expect(tab.get_by_role("button", name="Ping")).to_have_count(0)
    told = await request(
        bench.socket, {"op": "login", "name": "vera", "password": PASSWORD, "address": "::1"}
    )
    order = {"id": "x1", "op": "ping", "target": serial}
    with pytest.raises(Exception, match="ping is for operators; vera is viewer"):
        await request(bench.socket, {"op": "order", "order": order, "session": told["session"]})
    entries = await audit(bench)
    assert {("login", "done"), ("user_add", "done"), ("ping", "refused"), ("password", "done")} <= {
        (entry["op"], entry["state"]) for entry in entries
    }
    everything = "".join(
        path.read_bytes().decode("latin-1")
        for path in (*bench.directory.glob("*.log"), *(bench.directory / "state").glob("*.json"))
    )
    assert PASSWORD not in everything + json.dumps(entries)
    assert await tab.context.cookies() != []
    assert all(one["value"] not in everything for one in await tab.context.cookies())


async def test_a_configuration_is_compared_tried_confirmed_and_taken_back(bench, tab):
    await bench.start_outside()
    password = await start(bench, **BARE, concentrator={"configuration_trial_s": 12})
    process = bench.product.pid
    await first_login(bench, tab, password)
    await bench.until_status(
        lambda status: any(one["state"] == "connected" for one in status["destinations"]), 30
    )
    await tab.locator("details.menu.wide summary").click()
    await tab.get_by_role("link", name="Configuration").click()

    # A mistake is named by its line, and cannot be applied.
    line = bench.config_file.read_text().splitlines().index(f"port = {bench.web_port}") + 1
    await edit(tab, f"port = {bench.web_port}", "port = 99999")
    await expect(tab.get_by_text(f"Line {line}:")).to_be_visible()
    await expect(tab.get_by_role("button", name="Apply on trial")).to_have_count(0)

    # Another name is compared, applied, and kept once it is confirmed; the session goes on.
    await tab.goto(f"http://{LOOPBACK}:{bench.web_port}/configuration")
    before = bench.config_file.read_text()
    await edit(tab, 'site = "lab"', 'site = "attic"')
    await expect(tab.locator(".difference .added")).to_have_text('+site = "attic"')
    assert bench.config_file.read_text() == before
    await tab.get_by_role("button", name="Apply on trial").click()
    await bench.until_status(lambda status: status["site"] == "attic", 30, "the service with the new site")
    assert bench.product.pid == process
    assert bench.product.returncode is None
    await tab.get_by_role("button", name="Confirm").click(timeout=20_000)
    await expect(tab.get_by_text("A configuration is on trial.")).to_have_count(0)
    assert 'site = "attic"' in bench.config_file.read_text()
    assert not list(bench.directory.glob("*.trial")) + list(bench.directory.glob("*.former"))

    # One under which the head-end is lost cannot be confirmed, and is taken back by itself.
    good = bench.config_file.read_text()
    await edit(tab, f"port = {bench.network.port}", "port = 1")
    await tab.get_by_role("button", name="Apply on trial").click()
    await bench.until_status(
        lambda status: any("Connection refused" in one["reason"] for one in status["destinations"]),
        30,
        "a lost head-end",
    )
    refused = await asyncio.to_thread(
        subprocess.run,
        [*CONCENTRATOR, "config", "confirm", "--config", str(bench.config_file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "mqtt" in refused.stderr
    await bench.until_status(
        lambda status: any(one["state"] == "connected" for one in status["destinations"]),
        40,
        "the head-end is back",
    )
    assert bench.config_file.read_text() == good
    reverted = next(one for one in await audit(bench) if one["op"] == "configuration_revert")
    assert "not confirmed within 12 s; not connected again: mqtt" in reverted["detail"]


async def test_a_configuration_under_which_nothing_starts_is_taken_back_after_a_power_cut_too(bench):
    await bench.start_outside()
    await start(bench, **BARE)
    await bench.until_status(
        lambda status: any(one["state"] == "connected" for one in status["destinations"]), 30
    )
    good = bench.config_file.read_text()
    key_file = bench.directory / "keys_of_others.json"
    key_file.write_text("{}")
    key_file.chmod(0o600)
    proposed = bench.directory / "proposed.toml"
    proposed.write_text(good.replace('key_file = ""', f'key_file = "{key_file}"'))
    await asyncio.to_thread(
        subprocess.run,
        [*CONCENTRATOR, "config", "apply", "--yes", "--config", str(bench.config_file), str(proposed)],
        check=True,
        capture_output=True,
    )
    # The power is cut, and what the configuration names is gone when it is back.
    await bench.stop_product(9)
    assert bench.config_file.read_text() != good
    key_file.unlink()
    await bench.start_product(page=False)
    await bench.until_status(
        lambda status: any(one["state"] == "connected" for one in status["destinations"]), 30
    )
    assert bench.config_file.read_text() == good
    assert "the former configuration is taken back" in bench.log
    assert any("does not start under it" in one["detail"] for one in await audit(bench))


def everything_of(directory: Path) -> list[str]:
    """Logs, state and the command lines of all processes."""
    found = []
    state = directory / "state"
    for path in (*directory.glob("*.log"), *state.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")):
        # Processes and files of the store come and go.
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode("latin-1"))
    return found


async def test_keys_go_in_and_never_come_out(bench, tab):
    await bench.start_outside()
    password = await start(bench, **BARE)
    await first_login(bench, tab, password)
    address = f"http://{LOOPBACK}:{bench.web_port}"
    await tab.locator("details.menu.wide summary").click()
    await tab.get_by_role("link", name="Keys").click()
    lists = bench.directory / "lists"
    lists.mkdir()
    wrong, right = lists / "wrong.csv", lists / "right.csv"
    wrong.write_text(f"meter;encryption_key\nM1;{KEY}\nM2;{KEY}00\n")
    right.write_text(f"meter;encryption_key;authentication_key\nM1;{KEY};{KEY}\n12345678;{KEY};{KEY}\n")
    seen = []
    for file, words in ((wrong, "line 3: encryption_key of M2"), (right, "4 keys of 2 meters were taken in")):
        await tab.goto(address + "/keys")
        await tab.locator("input[type=file]").set_input_files(file)
        await tab.get_by_role("button", name="Import").click()
        await expect(tab.get_by_text(words)).to_be_visible()
        seen.append(await tab.content())
    cookies = {one["name"]: one["value"] for one in await tab.context.cookies()}
    async with httpx.AsyncClient(base_url=address, cookies=cookies, timeout=10) as client:
        for path in (
            "/keys",
            "/audit",
            "/configuration",
            "/log",
            "/orders",
            "/api/meters",
            "/api/events",
            "/metrics",
        ):
            answer = await client.get(path)
            assert answer.status_code == 200
            seen.append(answer.text)
        assert "meter not met yet" in seen[2]
    assert any(one["op"] == "keys_import" and one["state"] == "done" for one in await audit(bench))
    seen += await asyncio.to_thread(everything_of, bench.directory)
    assert [
        text for text in seen if KEY in text.lower() or bytes.fromhex(KEY).decode("latin-1") in text
    ] == []


async def test_the_page_goes_by_tls_with_its_own_certificate(bench):
    bench.write_config(**BARE, radio=None, web={"tls": "own", "host": "0.0.0.0"})
    await bench.start_product(page=True)

    async def serves():
        async with httpx.AsyncClient(verify=False, timeout=2) as client:  # noqa: S501 - compared by its fingerprint
            try:
                return (await client.get(f"https://{LOOPBACK}:{bench.web_port}/login")).status_code == 200
            except httpx.TransportError:
                return False

    await until(serves, 30, "the page by TLS")
    done = await asyncio.to_thread(
        subprocess.run,
        [*CONCENTRATOR, "page", "fingerprint", "--config", str(bench.config_file)],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _FINGERPRINT, str(bench.web_port)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().replace(":", "").lower() == shown.stdout.strip()
    assert done.stdout.strip() in bench.log


_FINGERPRINT = """
import hashlib, ssl, sys
pem = ssl.get_server_certificate(("127.0.0.1", int(sys.argv[1])))
print(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest())
"""
