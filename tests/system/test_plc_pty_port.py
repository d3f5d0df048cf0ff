"""The simulated modem behind a real pseudo-terminal, opened as a product opens a serial port."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest
import serial

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from concentrator.simulator.feeder import Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.scheduler import AsyncioScheduler
from plc.network import ApduReceived, NodeJoined
from plc.prime.base_node import BaseNode

from bench import until
from plc_rig import EchoDevice

pytestmark = pytest.mark.system


class Shell:
    """What a product does around a network: nothing more."""

    def __init__(self, network, path):
        self.network = network
        self.path = path
        self.events = []
        self.changed = asyncio.Event()
        self.hung_up = False

    async def __aenter__(self):
        self.loop = asyncio.get_running_loop()
        self.port = serial.Serial(str(self.path), 230400, timeout=0)
        self.loop.add_reader(self.port.fileno(), self.read)
        self.network.start(self.loop.time())
        self.timer = None
        self.pump()
        return self

    async def __aexit__(self, *_):
        self.loop.remove_reader(self.port.fileno())
        if self.timer:
            self.timer.cancel()
        with contextlib.suppress(OSError):
            self.port.close()

    def read(self):
        try:
            data = self.port.read(65536)
        except serial.SerialException:
            data = b""
        if not data:
            self.hung_up = True
            self.loop.remove_reader(self.port.fileno())
            self.changed.set()
            return
        self.network.receive_data(data, self.loop.time())
        self.pump()

    def pump(self):
        if data := self.network.data_to_send():
            self.port.write(data)
        while (event := self.network.next_event()) is not None:
            self.events.append(event)
        self.changed.set()
        if self.timer:
            self.timer.cancel()
        if (due := self.network.next_timeout()) is not None:
            self.timer = self.loop.call_at(due, self.timeout)

    def timeout(self):
        self.network.handle_timeout(self.loop.time())
        self.pump()

    async def wait_for(self, condition):
        async with asyncio.timeout(20):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()

    def joined(self):
        # A node that joins while the nodes are listed is told twice.
        return {event.eui for event in self.of(NodeJoined)}

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
async def modem(tmp_path):
    modem = PrimeModem(
        [EchoDevice(number) for number in range(10)],
        AsyncioScheduler(),
        Feeder(10, steady=True, speed=200.0),
        join_spread_s=10.0,
    )
    port = PtyPort(tmp_path / "ttyPLC", modem)
    port.plug()
    modem.port = port
    yield modem
    port.close()


async def test_ten_meters_through_a_serial_port(modem):
    modem.start()
    async with Shell(BaseNode(), modem.port.path) as shell:
        await shell.wait_for(lambda shell: len(shell.joined()) == 10)
        for event in {event.eui: event for event in shell.of(NodeJoined)}.values():
            shell.network.send_apdu(event.address, 16, 1, bytes(range(256)), shell.loop.time())
        shell.pump()
        await shell.wait_for(lambda shell: len(shell.of(ApduReceived)) == 10)
        # Every octet value came through both ways: the terminal is raw.
        assert {event.apdu for event in shell.of(ApduReceived)} == {b"echo " + bytes(range(256))}


async def test_the_product_closes_and_opens_again(modem):
    modem.start()
    network = BaseNode()
    async with Shell(network, modem.port.path) as shell:
        await shell.wait_for(lambda shell: len(shell.joined()) == 10)
    async with Shell(network, modem.port.path) as shell:
        await shell.wait_for(lambda shell: len(shell.joined()) == 10)


async def test_unplugged_and_plugged_in_again(modem):
    modem.start()
    network = BaseNode()
    async with Shell(network, modem.port.path) as shell:
        await shell.wait_for(lambda shell: len(shell.joined()) == 10)
        modem.port.unplug()
        await shell.wait_for(lambda shell: shell.hung_up)
    assert not modem.port.path.exists()
    modem.port.plug()
    async with Shell(network, modem.port.path) as shell:
        await shell.wait_for(lambda shell: len(shell.joined()) == 10)


async def test_a_product_that_does_not_read_stops_nothing(modem):
    port = serial.Serial(str(modem.port.path), 230400, timeout=0)
    for _ in range(200):
        modem.output(bytes(4096))
    assert modem.port.octets_lost > 0
    # The terminal hands its octets over in its own time.
    await until(lambda: port.in_waiting, 10)
    port.close()


async def test_the_link_survives_an_old_one(tmp_path):
    path = tmp_path / "ttyOld"
    path.symlink_to("/nowhere")
    port = PtyPort(path, PrimeModem([], AsyncioScheduler(), Feeder(0)))
    port.plug()
    assert path.resolve().is_char_device()
    port.close()
    assert not path.is_symlink()
