"""The page as a process of its own, over a store and a service that tests control."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import web_bench
from bench import free_port

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "test-output" / "page"


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
