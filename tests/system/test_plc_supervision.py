"""What goes wrong between host and modem, on real pseudo-terminals: each is found out, named, and got over.

The product's own link and port drive the networks; behind the ports stand the simulated modems, and things that only
look like them.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from concentrator.links.errors import LinkLostError, NotDeliveredError
from concentrator.links.plc_link import PlcLink
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, PRIME_PHY, SFSK_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.pty_port import PtyPort
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.simulator.sfsk_modem import SfskModem
from plc.g3.coordinator import Coordinator
from plc.network import ModemLost, NetworkStarted, NodeJoined
from plc.prime import commands as prime_commands
from plc.prime.base_node import BaseNode
from plc.prime.commands import COMMANDS
from plc.sfsk.initiator import Initiator
from plc.usi.framing import encode_frame

from plc_rig import EchoDevice

pytestmark = pytest.mark.system

PSK = b"PSK-secret-octet"
FAMILIES = ("prime", "g3", "s-fsk")


def make(family, **options):
    """A network with short intervals, and a fast modem for it."""
    devices = [EchoDevice(number) for number in range(3)]
    phy = {"prime": PRIME_PHY, "g3": G3_CENELEC_A_PHY, "s-fsk": SFSK_PHY}[family]
    arguments = (devices, AsyncioScheduler(), Feeder(3, phy=phy, steady=True, speed=500.0))
    intervals = {"keepalive_interval_s": 0.3, "refresh_interval_s": 5.0, **options}
    if family == "prime":
        return BaseNode(**intervals), PrimeModem(*arguments, join_spread_s=10.0)
    if family == "s-fsk":
        return Initiator(b"ODC\x00\x00\x00\x00\x01", **intervals), SfskModem(*arguments, join_spread_s=10.0)
    modem = G3Modem(*arguments, join_spread_s=10.0, device_psk=PSK, eui64=bytes(7) + b"\x01")
    return Coordinator(0x781D, PSK, PSK, **intervals), modem


class Watched:
    """One link on one port, with what it told."""

    def __init__(self, network, device, path):
        self.network = network
        self.device = device
        self.port = PtyPort(path, device)
        self.events = []
        self.changed = asyncio.Event()
        self.link = PlcLink(network, str(path), 115200, self.take)

    def take(self, event):
        self.events.append(event)
        self.changed.set()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, condition, timeout_s=90.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await self.changed.wait()

    async def started(self, times=1):
        await self.wait_for(lambda: len(self.of(NetworkStarted)) >= times)

    async def lost(self, words, timeout_s=90.0):
        """The longest is a route discovery that the silence cuts short: 30 seconds, then three requests of three."""
        await self.wait_for(lambda: any(words in event.reason for event in self.of(ModemLost)), timeout_s)
        assert words in self.link.shell.reason or self.link.shell.state == "running"


@contextlib.asynccontextmanager
async def watched(tmp_path, network, device):
    watch = Watched(network, device, tmp_path / "modem")
    watch.port.plug()
    task = asyncio.create_task(watch.link.run())
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        watch.port.close()


class Valve:
    """Lets the octets of a modem through, or not."""

    def __init__(self, modem):
        self.modem = modem
        self.output = None
        self.open = True
        modem.output = self.pass_on

    def pass_on(self, octets):
        if self.open and self.output is not None:
            self.output(octets)

    def receive_data(self, data):
        self.modem.receive_data(data)


async def missing_confirms(tmp_path, family):
    network, modem = make(family, data_confirm_timeout_s=0.5)
    valve = Valve(modem)
    modem.start()
    async with watched(tmp_path, network, valve) as watch:
        await watch.started()
        await watch.wait_for(lambda: len({event.eui for event in watch.of(NodeJoined)}) == 3)
        valve.open = False
        address = watch.of(NodeJoined)[0].address
        sending = asyncio.create_task(watch.link.send(address, 16, 1, b"request"))
        await watch.lost("the modem does not answer")
        with pytest.raises((LinkLostError, NotDeliveredError)):
            await sending
        assert network.counters["missing_confirms"] > 0
        assert watch.link.shell.state == "not answering"
        valve.open = True
        await watch.started(2)
        await watch.wait_for(lambda: watch.link.shell.state == "running")


@pytest.mark.parametrize("family", ["prime", "g3"])
async def test_a_silent_restart(tmp_path, family):
    network, modem = make(family)
    modem.start()
    async with watched(tmp_path, network, modem) as watch:
        await watch.wait_for(lambda: len({event.eui for event in watch.of(NodeJoined)}) == 3)
        if family == "prime":
            # Nobody is back yet when the list is read: it has forgotten them all.
            modem.start = lambda: None
        modem.restart()
        if family == "prime":
            network.refresh(asyncio.get_running_loop().time())
            watch.link.shell.pump()
        await watch.lost("restarted")
        if family == "prime":
            PrimeModem.start(modem)
        await watch.started(2)
        before = len(watch.of(NodeJoined))
        await watch.wait_for(lambda: len(watch.of(NodeJoined)) >= before)


class OtherProtocol:
    """Answers whatever comes with a frame of another family."""

    output = None

    def receive_data(self, data):
        self.output(encode_frame(0x25, bytes.fromhex("000217")))


class WrongSpeed:
    """Answers with what a UART makes of another speed."""

    output = None

    def receive_data(self, data):
        self.output(bytes(octet ^ 0xA5 for octet in data if octet != 0xDB))


async def a_mismatch(tmp_path, device, words):
    network, modem = make("prime")
    async with watched(tmp_path, network, device()) as watch:
        await watch.lost(words)
        # Somebody plugs the right one in.
        watch.port.unplug()
        await watch.wait_for(lambda: watch.link.shell.state in ("port lost", "port missing"))
        right = PtyPort(tmp_path / "modem", modem)
        right.plug()
        modem.start()
        await watch.started()
        await watch.wait_for(lambda: watch.link.shell.state == "running")
        right.close()


async def test_a_pseudo_terminal_whose_far_side_is_gone(tmp_path):
    network, modem = make("prime")
    async with watched(tmp_path, network, modem) as watch:
        await watch.started()
        watch.port.unplug()
        await watch.wait_for(lambda: watch.link.shell.state in ("port lost", "port missing"))
        assert watch.of(ModemLost)
        watch.port.plug()
        await watch.started(2)


async def a_far_side_that_does_not_read(tmp_path):
    network, modem = make("prime")
    async with watched(tmp_path, network, modem) as watch:
        await watch.started()
        # Half open: it is there, but nobody takes what is written.
        asyncio.get_running_loop().remove_reader(watch.port._master)
        await watch.lost("the modem does not answer")
        assert watch.link.shell.state == "not answering"
        asyncio.get_running_loop().add_reader(watch.port._master, watch.port._readable)
        await watch.started(2)


async def test_silences_have_names_and_end(tmp_path):
    """Each takes three requests of three seconds to be noticed: side by side."""
    cases = [
        *((missing_confirms, family) for family in FAMILIES),
        (a_mismatch, OtherProtocol, "speaks another protocol than prime"),
        (a_mismatch, WrongSpeed, "no frames: wrong speed"),
        (a_far_side_that_does_not_read,),
    ]
    async with asyncio.TaskGroup() as group:
        for number, (case, *arguments) in enumerate(cases):
            folder = tmp_path / str(number)
            folder.mkdir()
            group.create_task(case(folder, *arguments))


async def test_a_flood_of_indications(tmp_path):
    network, modem = make("prime")
    modem.start()
    async with watched(tmp_path, network, modem) as watch:
        await watch.wait_for(lambda: len({event.eui for event in watch.of(NodeJoined)}) == 3)
        told = len(watch.events)
        event = COMMANDS.encode(
            prime_commands.NETWORK_EVENT_INDICATION, event=4, eui48=bytes(6), sid=0, lnid=1, lsid=255,
            alive_rx=1, alive_tx=1, alive_time=1,
        )  # fmt: skip
        for _ in range(40):
            modem.write(encode_frame(0x30, event) * 100)
            await asyncio.sleep(0.01)
        await watch.lost("the modem floods: more than")
        assert network.counters["indication_floods"] >= 1
        assert network.counters["indications_ignored"] > 0
        assert len(watch.events) < told + 200
        await watch.started(2)
        await watch.wait_for(lambda: watch.link.shell.state == "running")
