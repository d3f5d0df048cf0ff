"""Make the pictures of the diagnostics page: run the demo with a fixed seed, wait until all is read, shoot.

Writes docs/images/*.png. A folder as argument takes them instead.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
METERS, DAYS, SEED = 24, 6, 7
START_TIMEOUT_S = 300
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
METER = f"ODC{SEED:03d}{4:07d}"
# File name, address, size, colour scheme.
PICTURES = (
    ("overview", "/", DESKTOP, "light"),
    ("overview-dark", "/", DESKTOP, "dark"),
    ("overview-phone", "/", PHONE, "light"),
    ("meters", "/meters", DESKTOP, "light"),
    ("meter", f"/meters/{METER}", DESKTOP, "light"),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_complete(address: str, demo: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(address + "/api/overview", timeout=5) as answer:
                overview = json.load(answer)
        except OSError:
            overview = {}
        totals = overview.get("totals") or {}
        waiting = sum(one["pending_readings"] for one in overview.get("destinations", ()))
        if totals.get("plc") == METERS and 0 < totals["expected"] == totals["stored"] and not waiting:
            return
        if demo.poll() is not None or time.monotonic() > deadline:
            sys.exit("screenshots: the demo did not complete; run it by itself: make demo")
        time.sleep(0.5)


def shoot(address: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        for name, path, size, scheme in PICTURES:
            page = browser.new_page(viewport=size, color_scheme=scheme, locale="en-GB")
            page.goto(address + path)
            page.locator("#stream[data-kind=live]").wait_for()
            page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")
            page.close()
        browser.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dcu-") as directory:
        demo = subprocess.Popen(
            [
                *(sys.executable, "-m", "concentrator", "demo", "--json"),
                *("--meters", str(METERS), "--days", str(DAYS), "--seed", str(SEED)),
                *("--keep", directory, "--web-port", str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_complete(f"http://127.0.0.1:{port}", demo)
            shoot(f"http://127.0.0.1:{port}", folder)
        finally:
            demo.terminate()
            demo.wait(20)


if __name__ == "__main__":
    main()
