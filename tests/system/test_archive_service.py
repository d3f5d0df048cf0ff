"""The running service is asked for a support bundle and for what only it can work out; each bundle leaves a trace."""

from __future__ import annotations

import asyncio
import io
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing

import pytest

from concentrator.control import ControlError, request

pytestmark = pytest.mark.system

CONFIGURATION = """
[concentrator]
name = "box-9"
state_directory = "{state}"
[p1]
port = "{state}/no-port"
wait_for_port = true
[web]
enabled = false
[balance]
supervisor = "ODC1"
"""


def ask(socket, operation):
    return asyncio.run(request(socket, {"op": "ask", "order": {"id": f"test-{operation}", "op": operation}}))


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_running_service_gives_a_bundle_and_answers_questions(tmp_path):
    state, target = tmp_path / "state", tmp_path / "bundle.tar.gz"
    config_file = tmp_path / "concentrator.toml"
    config_file.write_text(CONFIGURATION.format(state=state))
    program = [sys.executable, "-m", "concentrator"]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen([*program, "run", "--config", str(config_file)], stderr=log, stdout=log)
    socket = state / "control.sock"

    def noted():
        with closing(sqlite3.connect(state / "store.db")) as connection:
            return connection.execute("SELECT detail FROM event WHERE code = 'access'").fetchall()

    try:
        until(socket.exists)
        made = subprocess.run(
            [*program, "support-bundle", "--config", str(config_file), str(target)], timeout=60, check=False
        )
        assert made.returncode == 0
        with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as archive:
            assert b"box-9" in archive.extractfile("support/status.json").read()
            assert b"P1 port not open" in archive.extractfile("support/log.txt").read()
        until(lambda: any("support_bundle" in row[0] and "done" in row[0] for row in noted()))
        assert ask(socket, "balance")["result"]["feeders"][0]["supervisor"] == "ODC1"
        assert ask(socket, "interruptions")["result"]["outages"] == []
        with pytest.raises(ControlError, match="allowed"):
            ask(socket, "set_parameter")
        # Questions are no orders: only the bundle is in the log.
        assert len(noted()) == 1
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
