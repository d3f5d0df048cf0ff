"""What must not take the service down, and what must not work beside it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from concentrator.instance_lock import InUseError, hold, is_held

from bench import LOOPBACK, until
from ports import free_port

pytestmark = pytest.mark.system


def command(*arguments):
    whole = [sys.executable, "-m", "concentrator", *arguments]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


def test_one_holds_the_state_directory_and_leaves_it_free(tmp_path):
    assert not is_held(tmp_path)
    with hold(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(InUseError, match="another concentrator"), hold(tmp_path):
            pass
    assert not is_held(tmp_path)


async def test_a_second_service_is_refused_and_the_first_goes_on(bench):
    bench.write_config(modem=None, radio=None, mqtt=None, push=None, collection=None)
    await bench.start_product()
    await bench.until_status(lambda status: True)
    second = command("run", "--config", str(bench.config_file), "--no-page")
    assert second.returncode == 2
    assert "another concentrator works with it" in second.stderr
    assert "Traceback" not in second.stderr
    assert (await bench.status())["store"]["state"] == "in use"
    # Nor may anything be put in the place of what it works with.
    for name in ("store.db", "statistics.db"):
        file = str(bench.directory / "state" / name)
        for verb in (("backup", "--config", str(bench.config_file), file),
                     ("export", "--config", str(bench.config_file), "--out", file)):  # fmt: skip
            refused = command("store", *verb)
            assert refused.returncode != 0
            assert "file of the store itself" in refused.stderr
    assert (
        command("store", "export", "--config", str(bench.config_file), "--out", "/dev/null").returncode == 0
    )
    assert (
        command("store", "query", "--config", str(bench.config_file), "pragma journal_mode=delete").returncode
        == 1
    )
    assert await bench.stop_product() == 0


async def test_head_ends_port_that_is_taken_is_told_and_tried_again(bench):
    port = free_port()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOOPBACK, port))
        taken.listen()
        bench.write_config(modem=None, radio=None, mqtt=None, push=None, collection=None, dlms={"port": port})
        await bench.start_product()
        await until(lambda: "no head-end can connect" in bench.log, 30, "the port is missed")
        assert (await bench.until_status(lambda status: True))["store"]["state"] == "in use"
    await until(lambda: "listening for head-ends" in bench.log, 30, "the port is had")
    assert "Traceback" not in bench.log
    assert await bench.stop_product() == 0
