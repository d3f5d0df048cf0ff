"""A wired M-Bus over a pseudo-terminal and over TCP: our master, and a foreign one, on the simulated bus."""

import asyncio
import json
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.wired_mbus import SimulatedBus, SimulatedSlave
from concentrator.wmbus.address import Address

VOLUME, ENERGY = bytes.fromhex("0C1315000000"), bytes.fromhex("0C0678563412")


def make_bus():
    def slave(identification, primary, *readout, device_type=0x07):
        meter = Address("ELS", identification, 0x33, device_type)
        return SimulatedSlave(meter, primary, lambda: readout)

    return SimulatedBus(
        [
            slave("12345678", 1, VOLUME),
            slave("12345699", 2, ENERGY, VOLUME, device_type=0x04),
            slave("87654321", 3, VOLUME),
        ]
    )


@pytest.fixture
def served(tmp_path):
    """The bus behind a pseudo-terminal and a TCP port, on an event loop of its own."""
    ready, stop = threading.Event(), []
    places = {}

    async def serve():
        path = tmp_path / "mbus"
        port = PtyPort(path, make_bus())
        port.plug()

        async def connected(reader, writer):
            bus = make_bus()
            bus.output = writer.write
            while data := await reader.read(1000):
                bus.receive_data(data)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        places["serial"] = str(path)
        places["tcp"] = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ended = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ended))
        ready.set()
        await ended.wait()
        server.close()
        port.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(5)
    yield places
    loop, ended = stop[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(5)


def read(*arguments):
    answer = CliRunner().invoke(main, ["read", "--json", *arguments])
    assert answer.exit_code == 0, answer.output
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["serial", "tcp"])
def test_reading_by_primary_and_secondary_address(served, kind):
    (tree,) = read("--mbus", served[kind], "--address", "1")
    assert (tree["id"], tree["records"][0]["value"]) == ("12345678", 0.015)
    heat = read("--mbus", served[kind], "--secondary", "12345699")
    assert [one["records"][0]["quantity"] for one in heat] == ["energy", "volume"]
    answer = CliRunner().invoke(main, ["read", "--mbus", served[kind], "--address", "9"])
    assert answer.exit_code == 1
    assert "no answer" in answer.output


def test_a_search_finds_the_slaves(served):
    place = ("--mbus", served["serial"], "--search", "--baud-rate", "38400")
    (tree,) = read(*place, "--secondary", "123456FF")
    assert sorted(one["id"] for one in tree["slaves"]) == ["12345678", "12345699"]
    (tree,) = read(*place, "--secondary", "8FFFFFFF")
    assert [one["id"] for one in tree["slaves"]] == ["87654321"]


FOREIGN_MASTER = """
import sys, meterbus, serial
line = serial.Serial(sys.argv[1], 2400, 8, "E", 1, 0.5)
if sys.argv[2] == "primary":
    address = 1
    meterbus.send_ping_frame(line, address)
    assert meterbus.recv_frame(line, 1) == b"\\xe5"
else:
    address = 0xFD
    meterbus.send_select_frame(line, sys.argv[2])
    assert isinstance(meterbus.load(meterbus.recv_frame(line, 1)), meterbus.TelegramACK)
meterbus.send_request_frame(line, address)
print(meterbus.load(meterbus.recv_frame(line, meterbus.FRAME_DATA_LENGTH)).to_JSON())
"""


@pytest.mark.parametrize("address", ["primary", "12345678FFFFFFFF"])
def test_a_foreign_master_reads_our_slaves(served, address):
    pytest.importorskip("meterbus", reason="pyMeterBus is not installed: make test installs the peers")
    command = [sys.executable, "-c", FOREIGN_MASTER, served["serial"], address]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "0x12, 0x34, 0x56, 0x78" in answer.stdout, answer.stdout + answer.stderr
