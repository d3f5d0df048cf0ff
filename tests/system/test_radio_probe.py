"""Every radio module at a port: found by asking, listened to, and sending; simulated ones speak their bytes."""

import asyncio
import json
import threading

import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.config import RadioSection
from concentrator.links import radio_modules
from concentrator.links.errors import PortError
from concentrator.links.radio_link import RadioLink
from concentrator.links.radio_modules import find_radio_module, make_radio_module
from concentrator.simulator.other_radio_modules import (
    SimulatedAmb8465,
    SimulatedCulStick,
    SimulatedIu891a,
    SimulatedRc1180,
)
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.radio_module import SimulatedRadioModule
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.wmbus.address import Address
from concentrator.wmbus.errors import TransmissionRefusedError, WmbusUsageError
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.modules.duty_cycle import DutyCycle, air_time_s
from concentrator.wmbus.modules.imst import ImstModule
from concentrator.wmbus.modules.radiocrafts import RadiocraftsModule
from concentrator.wmbus.telegram import decode_telegram

METER = Address("ELS", "12345678", 0x33, 0x03)
TELEGRAM = encode_frame(
    LinkFrame(0x44, METER, bytes.fromhex("780C1427048502046D32371F1502FD170000"), FrameFormat.WITHOUT_CRC)
)
COMMAND = encode_frame(
    LinkFrame(0x53, METER, bytes.fromhex("5A0100000004FD1700000000"), FrameFormat.WITHOUT_CRC)
)


class Im871a:
    """The simulated iM871A as a device for a port."""

    def __init__(self):
        self.output = None
        self.sent = None
        self._module = SimulatedRadioModule(lambda data: self.output(data), AsyncioScheduler())

    def receive_data(self, data):
        self._module.receive_data(data)

    def hear(self, telegram, rssi_dbm):
        self._module.hear(telegram, rssi_dbm)


MODULES = {
    "im871a": (Im871a, "iM871A"),
    "iu891a": (SimulatedIu891a, "iU891A-XL 01020304"),
    "amb8465": (SimulatedAmb8465, "AMB8465"),
    "rc1180": (SimulatedRc1180, "Radiocrafts"),
    "cul": (SimulatedCulStick, "nanoCUL"),
}


@pytest.fixture(autouse=True)
def _simulated_modules_answer_at_once(monkeypatch):
    monkeypatch.setattr(radio_modules, "_ANSWER_TIMEOUT_S", 0.5)
    monkeypatch.setattr(radio_modules, "_ANSWER_TIMEOUTS_S", {"amb8465": 2.5})


async def until(condition, timeout_s=15.0):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_found_by_asking_and_then_listened_to(name, tmp_path):
    make, identity = MODULES[name]

    async def scenario():
        device = make()
        port = PtyPort(tmp_path / "radio", device)
        port.plug()
        found = await find_radio_module(str(port.path))
        assert found.name == name
        assert identity in found.identity
        heard = []
        settings = RadioSection(module=found.name, port=str(port.path), mode="T1")
        link = RadioLink(make_radio_module(settings), settings.port, found.baud_rate, heard.append)
        task = asyncio.create_task(link.run())
        await until(lambda: link.shell.state == "running")
        # What the driver wrote last may still be on its way into the module.
        await until(lambda: device.hear(TELEGRAM, -80) or heard)
        telegram = decode_telegram(heard[0].octets, frame_format=heard[0].frame_format)
        assert telegram.meter == METER
        assert len(telegram.records) == 3
        assert heard[0].rssi_dbm == pytest.approx(-80, abs=1)
        if link.module.can_transmit and device.sent is not None:
            link.transmit(COMMAND)
            await until(lambda: device.sent)
            assert device.sent == [COMMAND]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        port.close()

    asyncio.run(scenario())


def test_the_bench_listens_and_sends(tmp_path):
    ready, stop, devices = threading.Event(), [], []

    async def serve():
        device = SimulatedIu891a()
        port = PtyPort(tmp_path / "radio", device)
        port.plug()
        devices.append(device)
        stop.append((asyncio.get_running_loop(), asyncio.Event()))
        ready.set()
        while not stop[0][1].is_set():
            device.hear(TELEGRAM, -71)
            await asyncio.sleep(0.1)
        port.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(5)
    try:
        place = ["--port", str(tmp_path / "radio"), "--module", "iu891a"]
        listened = CliRunner().invoke(main, ["radio", "listen", *place, "--seconds", "1.5", "--json"])
        sent = CliRunner().invoke(main, ["radio", "send", *place, COMMAND.hex()])
    finally:
        loop, ended = stop[0]
        loop.call_soon_threadsafe(ended.set)
        thread.join(5)
    assert listened.exit_code == 0, listened.output
    tree = next(json.loads(line) for line in listened.stdout.splitlines() if line.startswith("{"))
    assert (tree["id"], tree["rssi_dbm"], len(tree["records"])) == ("12345678", -71, 3)
    assert "sent" in sent.output, sent.output
    assert devices[0].sent == [COMMAND]


def test_a_port_without_module_says_what_was_tried(tmp_path):
    with pytest.raises(PortError, match="is not there"):
        asyncio.run(find_radio_module(str(tmp_path / "nothing")))


def test_what_may_be_sent_in_an_hour_is_bounded():
    duty = DutyCycle()
    seconds = air_time_s(COMMAND)
    sent = 0
    while duty.take(seconds, 0.0):
        sent += 1
    assert sent * seconds <= 36 < (sent + 1) * seconds
    assert not duty.take(seconds, 3599.0)
    assert duty.take(seconds, 3600.0)
    module = ImstModule()
    for _ in range(sent):
        module.transmit(COMMAND, 0.0)
    with pytest.raises(TransmissionRefusedError):
        module.transmit(COMMAND, 0.0)
    with pytest.raises(WmbusUsageError):
        RadiocraftsModule().transmit(COMMAND, 0.0)
    with pytest.raises(WmbusUsageError):
        module.transmit(COMMAND[:-1], 0.0)
