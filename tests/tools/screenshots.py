"""Make the pictures of the diagnostics page: a substation as they are, with a few things wrong; read, then shoot.

The product runs as anybody runs it, with a simulated substation of a fixed seed and a real broker. One meter's
key was never delivered, another's is wrong. Writes docs/images/*.png; a folder as argument takes them instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from bench import Mosquitto, free_port  # noqa: E402

METERS, DAYS, SEED = 64, 6, 7
START_TIMEOUT_S = 300
# Nothing more comes: whoever can be read has been.
SETTLED_S = 12
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE, WALL = (
    {"width": 1400, "height": 900},
    {"width": 390, "height": 844},
    {"width": 1920, "height": 1080},
)
METER = f"ODC{SEED:03d}{4:07d}"
WITHOUT_KEY, WITH_WRONG_KEY = f"ODC{SEED:03d}{9:07d}", f"ODC{SEED:03d}{17:07d}"
# File name, address, size, colour scheme.
PICTURES = (
    ("overview", "/", DESKTOP, "light"),
    ("overview-dark", "/", DESKTOP, "dark"),
    ("overview-phone", "/", PHONE, "light"),
    ("wall", "/?view=wall", WALL, "dark"),
    ("meters", "/meters", DESKTOP, "light"),
    ("meter", f"/meters/{METER}", DESKTOP, "light"),
    ("network", "/topology", DESKTOP, "light"),
)
CONFIGURATION = """[concentrator]
name = "dc-0417"
site = "calle-mayor-12"
state_directory = "{directory}/state"

[modem]
family = "prime"
port = "{directory}/modem"

[radio]
port = "{directory}/radio"

[collection]
key_file = "{directory}/keys.json"
history_days = {days}
meters_in_flight = 6
answer_timeout_s = 5

[web]
port = {port}
open_view = true

[[mqtt]]
name = "mdm"
host = "127.0.0.1"
port = {broker}
tls = false

[[files]]
name = "archive"
url = "file://{directory}/archive"
every_s = 30
"""


@contextlib.contextmanager
def process(directory: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A command of the product, ended at the end."""
    with (directory / f"{arguments[0]}.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "concentrator", *arguments], stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield running
        finally:
            running.terminate()
            running.wait(20)


def spoil_keys(file: Path) -> None:
    """Take one meter's keys away, and give another wrong ones."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not file.with_name("modem").exists():
        if time.monotonic() > deadline:
            sys.exit("screenshots: the simulated substation did not start")
        time.sleep(0.1)
    keys = json.loads(file.read_text())
    del keys["meters"][WITHOUT_KEY]
    entry = keys["meters"][WITH_WRONG_KEY]
    entry["authentication_key"] = os.urandom(16).hex()
    file.write_text(json.dumps(keys))


def wait_until_settled(address: str, product: subprocess.Popen, log: Path) -> None:
    """Wait until all that can be read has been, and has been delivered."""
    deadline = time.monotonic() + START_TIMEOUT_S
    last, since = 0, time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(address + "/api/overview", timeout=5) as answer:
                overview = json.load(answer)
        except OSError:
            overview = {}
        totals = overview.get("totals") or {}
        waiting = sum(one["pending_readings"] for one in overview.get("destinations", ()))
        stored = totals.get("stored", 0)
        if stored != last or waiting or totals.get("active", 0) < METERS / 2:
            last, since = stored, time.monotonic()
        if last and time.monotonic() - since > SETTLED_S:
            return
        if product.poll() is not None or time.monotonic() > deadline:
            sys.exit(
                f"screenshots: the substation was not read; the service said:\n{log.read_text()[-2000:]}"
            )
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
    with tempfile.TemporaryDirectory(prefix="dcu-") as name:
        directory = Path(name)
        (directory / "archive").mkdir()
        broker = Mosquitto(directory)
        broker.start()
        configuration = directory / "concentrator.toml"
        configuration.write_text(
            CONFIGURATION.format(directory=directory, days=DAYS, port=port, broker=broker.port)
        )
        substation = (
            "simulate", "--directory", name, "--meters", str(METERS), "--seed", str(SEED), "--speed", "60",
        )  # fmt: skip
        try:
            with process(directory, *substation):
                spoil_keys(directory / "keys.json")
                with process(directory, "run", "--config", str(configuration)) as product:
                    wait_until_settled(f"http://127.0.0.1:{port}", product, directory / "run.log")
                    shoot(f"http://127.0.0.1:{port}", folder)
                    if len(sys.argv) > 2:  # noqa: PLR2004 - a second argument: keep it open
                        print(f"http://127.0.0.1:{port}")
                        input()
        finally:
            broker.kill()


if __name__ == "__main__":
    main()
