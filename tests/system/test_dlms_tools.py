"""`concentrator dlms` against a foreign meter, over TCP and HDLC, and through the running concentrator."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.cosem.objects import register
from concentrator.dlms.logical_device import AssociationDefinition, LogicalDevice
from concentrator.dlms.server import Server
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE
from concentrator.obis import Obis

from dlms_wire import WrapperService
from ports import free_port

pytestmark = pytest.mark.system

KEY = "000102030405060708090A0B0C0D0E0F"
AUTHENTICATION_KEY = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"


@pytest.fixture
def meter(request):
    """pydlms' meter; its options come from the test's parameter."""
    port = free_port()
    arguments = ["--port", str(port), *getattr(request, "param", [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "pydlms.simulator", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            break
        except OSError:
            assert time.monotonic() < deadline
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def dlms(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "concentrator", "dlms", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_register_is_read_with_its_unit(meter):
    result = dlms("read", "--tcp", meter, "--json", "1-0:32.7.0*255")
    assert result.returncode == 0, result.stderr
    tree = json.loads(result.stdout)
    assert tree["value"] == {"long-unsigned": 2301}
    assert (tree["scaler"], tree["unit"]) == (-1, "V")
    assert "voltage" in tree["meaning"]


@pytest.mark.parametrize("meter", [["--hdlc", "--hdlc-window", "3"]], indirect=True)
def test_the_same_over_hdlc(meter):
    result = dlms("read", "--tcp", meter, "--hdlc", "--json", "1-0:1.8.0*255")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["value"] == {"double-long-unsigned": 12345678}


CIPHERED = ["--key", KEY, "--auth-key", AUTHENTICATION_KEY, "--client", "1:5"]


@pytest.mark.parametrize("meter", [CIPHERED], indirect=True)
def test_a_ciphered_association_browses_writes_and_acts(meter):
    way = ["--tcp", meter, "--client", "1", "--mechanism", "hls-gmac", "--key", KEY]
    way += ["--authentication-key", AUTHENTICATION_KEY]
    result = dlms("browse", *way, "--json")
    assert result.returncode == 0, result.stderr
    objects = {tree["obis"]: tree for tree in map(json.loads, result.stdout.splitlines())}
    assert objects["1-0:99.1.0*255"]["class"] == "Profile generic"
    assert objects["0-0:1.0.0*255"]["class"] == "Clock"
    # The time zone of the clock, one minute more and back.
    zone = ["--class-id", "8", "--attribute", "3", "--type", "long", "0-0:1.0.0*255"]
    written = dlms("write", *way, *zone, "--", "-59")
    assert written.returncode == 0, written.stderr
    read = dlms("read", *way, "--class-id", "8", "--attribute", "3", "--json", "0-0:1.0.0*255")
    assert json.loads(read.stdout)["value"] == {"long": -59}
    acted = dlms(
        "action", *way, "--class-id", "70", "--method", "remote_disconnect", "0-0:96.3.10*255", "0F00"
    )
    assert acted.returncode == 0, acted.stderr
    assert KEY not in result.stdout + result.stderr + acted.stdout
    every = dlms("read", *way, "--class-id", "8", "--all", "--json", "0-0:1.0.0*255")
    clock = json.loads(every.stdout)
    assert clock["time_zone"] == {"long": -59}
    assert {"time", "status", "daylight_savings_enabled", "clock_base"} <= set(clock)
    wrong = dlms("read", *way, "--class-id", "8", "--attribute", "zone", "0-0:1.0.0*255")
    assert wrong.returncode == 2
    assert "time_zone" in wrong.stderr


@pytest.mark.parametrize("meter", [["--client", "6:6:12345678"]], indirect=True)
def test_sha256_tells_the_system_title_that_it_hashes(meter, tmp_path):
    password = tmp_path / "password"
    password.write_text("12345678")
    way = ["--tcp", meter, "--client", "6", "--mechanism", "hls-sha256", "--password-file", str(password)]
    result = dlms("read", *way, "--json", "1-0:1.8.0*255")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("meter", [CIPHERED], indirect=True)
def test_a_wrong_key_is_refused_without_being_shown(meter):
    wrong = "FF" * 16
    result = dlms(
        "read",
        "--tcp",
        meter,
        "--client",
        "1",
        "--mechanism",
        "hls-gmac",
        "--key",
        wrong,
        "--authentication-key",
        wrong,
        "--timeout",
        "3",
        "1-0:1.8.0*255",
    )
    assert result.returncode == 1
    assert wrong not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["read", "1-0:1.8.0*255"], "one way to the meter"),
        (["read", "--tcp", "nowhere", "1-0:1.8.0*255"], "HOST:PORT"),
        (["read", "--tcp", "127.0.0.1:1", "--mechanism", "hls-gmac", "1-0:1.8.0*255"], "needs keys"),
        (["write", "--tcp", "127.0.0.1:1", "1-0:1.8.0*255", "06"], "no axdr"),
        (["write", "--tcp", "127.0.0.1:1", "--type", "unsigned", "1-0:1.8.0*255", "256"], "no unsigned"),
        (["read", "--tcp", "127.0.0.1:1", "--mechanism", "hls-ecdsa", "1-0:1.8.0*255"], "--signing-key"),
        (["read", "--tcp", "127.0.0.1:1", "--config", "x", "1-0:1.8.0*255"], "leave --tcp"),
    ],
)
def test_a_mistake_is_named_with_status_2(arguments, words):
    result = dlms(*arguments)
    assert result.returncode == 2, result
    assert words in result.stderr


def test_nobody_there_is_a_failure():
    result = dlms("read", "--tcp", f"127.0.0.1:{free_port()}", "1-0:1.8.0*255")
    assert result.returncode == 1
    assert "does the meter listen there" in result.stderr


async def test_through_the_running_concentrator(bench):
    import asyncio

    await bench.start_outside()
    bench.start_substation(meters=1)
    config = bench.write_config()
    await bench.start_product()
    serial = bench.substation.meters[0].serial
    await bench.until_status(
        lambda s: any(m["identity"] == serial and m["state"] == "active" for m in s["meters"])
    )
    way = ["--config", str(config), "--meter", serial]

    async def run(verb: str, *arguments: str) -> subprocess.CompletedProcess:
        result = await asyncio.to_thread(dlms, verb, *way, *arguments)
        assert result.returncode == 0, result.stderr
        return result

    tree = json.loads((await run("read", "--json", "1-0:1.8.0*255")).stdout)
    assert isinstance(tree["value"]["double-long-unsigned"], int)
    assert tree["unit"] == "Wh"
    listed = [json.loads(line) for line in (await run("browse", "--json")).stdout.splitlines()]
    assert {"Profile generic", "Clock", "Disconnect control"} <= {entry["class"] for entry in listed}
    disconnector = ["--class-id", "70", "0-0:96.3.10*255"]
    await run("action", "--method", "1", "--type", "integer", *disconnector, "0")
    read = await run("read", "--attribute", "2", "--json", *disconnector)
    assert json.loads(read.stdout)["value"] == {"boolean": False}
    assert bench.substation.meters[0].connected is False
    clock = ["--class-id", "8", "--type", "date-time", "0-0:1.0.0*255"]
    await run("write", *clock, datetime.now(UTC).isoformat())
    refused = await asyncio.to_thread(dlms, "write", *way, "--type", "unsigned", "1-0:1.8.0*255", "1")
    assert refused.returncode == 1
    assert "refused: object-undefined" in refused.stderr


def test_an_old_meter_is_read_by_short_names():
    objects = [register(Obis.parse("1.0.1.8.0.255"), axdr.double_long_unsigned(4711), 1, 30)]
    definition = AssociationDefinition(16, short_names=True, conformance=DEFAULT_SHORT_NAME_CONFORMANCE)
    with WrapperService(Server([LogicalDevice(1, objects, [definition])])) as service:
        way = ["--tcp", f"127.0.0.1:{service.port}", "--short-names"]
        read = dlms("read", *way, "--json", "1-0:1.8.0*255")
        assert read.returncode == 0, read.stderr
        tree = json.loads(read.stdout)
        assert tree["value"] == {"double-long-unsigned": 4711}
        assert (tree["scaler"], tree["unit"]) == (1, "Wh")
        browsed = dlms("browse", *way, "--json")
        assert "1-0:1.8.0*255" in {json.loads(line)["obis"] for line in browsed.stdout.splitlines()}


def test_a_gateway_that_is_none_is_named():
    result = dlms("read", "--tcp", "127.0.0.1:1", "--gateway", "x", "1-0:1.8.0*255")
    assert result.returncode == 2
    assert "NETWORK:ADDRESS" in result.stderr
