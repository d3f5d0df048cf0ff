"""The page of the real product: a simulated substation's meters, live in a real browser."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess

import httpx
import pytest
from playwright.async_api import async_playwright, expect

from bench import CONCENTRATOR, LOOPBACK, until
from chromium import CHROMIUM_ARGUMENTS

pytestmark = [pytest.mark.system, pytest.mark.browser]


@pytest.fixture
async def tab():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        yield page
        await browser.close()


async def test_the_meters_of_a_substation_are_seen_live(bench, tab):
    await bench.start_outside()
    bench.start_substation(meters=4, speed=100.0)
    bench.write_config(web={"open_view": True})
    await bench.start_product(page=True)
    address = f"http://{LOOPBACK}:{bench.web_port}"

    async def serves():
        async with httpx.AsyncClient(timeout=2) as client:
            try:
                return (await client.get(address + "/static/icon.svg")).status_code == 200
            except httpx.TransportError:
                return False

    await until(serves, 30, "the page")
    await tab.goto(address + "/meters")
    await tab.evaluate("window.notLoadedAgain = true")
    for meter in bench.substation.meters:
        row = tab.locator(f'[data-part="meter-{meter.serial}"]')
        await expect(row.get_by_text("Active", exact=True)).to_be_visible(timeout=60_000)
        # A day and the hour more that the collector reads at the edge of the history.
        await expect(row.get_by_text(re.compile(r"^(\d+)/\1"))).to_be_visible(timeout=60_000)
    await expect(tab.get_by_text("-72 dBm")).to_be_visible(timeout=30_000)
    assert await tab.evaluate("window.notLoadedAgain")

    # The modem is pulled, and the open page says so; it comes back, and the page says that too.
    await tab.goto(address + "/")
    bench.substation.modem_port.unplug()
    await expect(tab.get_by_text("The modem's port")).to_be_visible(timeout=30_000)
    bench.substation.modem_port.plug()
    await expect(tab.get_by_text("The modem's port")).not_to_be_visible(timeout=60_000)

    # Read now, from the page, on the real meter.
    serial = bench.substation.meters[0].serial
    command = [
        *CONCENTRATOR,
        "users",
        "add",
        "--config",
        str(bench.config_file),
        "--role",
        "operator",
        "otto",
    ]
    await asyncio.to_thread(
        subprocess.run, [*command, "--password-stdin"], input="correct horse battery", text=True, check=True
    )
    await tab.goto(f"{address}/login?next=/meters/{serial}")
    await tab.get_by_label("Name").fill("otto")
    await tab.get_by_label("Password").fill("correct horse battery")
    await tab.keyboard.press("Enter")
    await tab.get_by_role("button", name="Ping").click()
    await expect(tab.get_by_text("Ping: done")).to_be_visible(timeout=60_000)

    # What was said is on its dialogue's page, deciphered by the service.
    await tab.get_by_role("link", name="Last dialogue").click()
    asked = tab.locator(".frames li", has_text="deciphered").filter(has_text="get-request")
    await expect(asked.first).to_be_visible(timeout=30_000)
    await asked.first.locator("summary").click()
    await expect(asked.first.get_by_text("As it was on the line:")).to_be_visible()
    await expect(asked.first.get_by_text("glo-get-request").first).to_be_visible()
    await tab.goto(f"{address}/meters/{serial}")
    await tab.get_by_role("link", name="Place in the network").click()
    await expect(tab.get_by_text("What became of it").first).to_be_visible()
    await expect(tab.get_by_text("joined", exact=True).first).to_be_visible()

    # The modem's frames and the radio's telegrams, live.
    await tab.goto(address + "/traffic")
    for source in ("modem", "radio"):
        badge = tab.locator("#frames .badge").get_by_text(source, exact=True)
        await expect(badge.first).to_be_visible(timeout=60_000)

    # The service stops and takes its page along, open stream or not.
    assert await bench.stop_product() == 0
    assert not await serves()
