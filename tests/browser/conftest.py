"""Headless Chromium, and the page as a process of its own over a store and a service that tests control."""

from __future__ import annotations

import re
import shutil
import signal

import pytest
from playwright.sync_api import sync_playwright

import web_bench
from chromium import CHROMIUM_ARGUMENTS
from page_process import PageProcess


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
