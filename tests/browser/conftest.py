"""Headless Chromium, and the page as a process of its own over a store and a service that tests control."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests import web_bench
from tests.system.conftest import free_port

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "test-output" / "page"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class PageProcess:
    """`concentrator page`, as the service or systemd starts it."""

    def __init__(self, directory: Path, **options) -> None:
        self.directory = directory
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.config = directory / "concentrator.toml"
        self.config.write_text(web_bench.config_text(directory, port=self.port, **options))
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "concentrator", "page", "--config", str(self.config)],
            stdout=(self.directory / "page.log").open("ab"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "TZ": "UTC"},
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(self.address + "/static/icon.svg", timeout=2).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.directory / "page.log").read_text()
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(10)


@pytest.fixture
def page_process(tmp_path):
    page = PageProcess(tmp_path)
    yield page
    page.stop(signal.SIGKILL)


@pytest.fixture
def service(tmp_path):
    service = web_bench.FakeService(tmp_path / "control.sock")
    yield service
    service.stop()


# Not for the whole run: playwright keeps an event loop going, which tests of other rooms could not bear.
@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium")
    assert program, "chromium is missing: make test names the Debian packages"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """Open a tab; whatever it says on its console, or any error, fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_tab(address: str, **options):
        context = chromium.new_context(**{"locale": "en-GB", "timezone_id": "UTC", **options})
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    open_tab.complaints = complaints
    yield open_tab
    for context in contexts:
        context.close()
    # A stream that the test ended itself is reported by the browser as a failed resource.
    unexpected = [one for one in complaints if not re.search(r"ERR_(CONNECTION|INCOMPLETE|EMPTY)", one)]
    assert unexpected == []
