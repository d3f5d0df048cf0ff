"""What the running service tells a service manager (Type=notify, WatchdogSec)."""

from __future__ import annotations

import os
import socket

import pytest

from bench import until

pytestmark = pytest.mark.system


async def test_the_service_manager_hears_of_start_progress_and_end(bench, monkeypatch):
    path = str(bench.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        monkeypatch.setitem(os.environ, "NOTIFY_SOCKET", path)
        monkeypatch.setitem(os.environ, "WATCHDOG_USEC", "3000000")
        heard: list[str] = []

        def says(word: str) -> bool:
            while True:
                try:
                    heard.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return any(word in message for message in heard)

        await bench.start_outside()
        bench.start_substation(meters=2)
        bench.write_config()
        await bench.start_product()
        await until(lambda: says("READY=1"), 20, "READY=1")
        await until(lambda: says("WATCHDOG=1"), 20, "WATCHDOG=1")
        assert await bench.stop_product() == 0
        await until(lambda: says("STOPPING=1"), 5, "STOPPING=1")
