"""Initiator and the simulated S-FSK modem, in virtual time."""

from __future__ import annotations

import pytest

from concentrator.simulator.feeder import SFSK_PHY, Feeder
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.sfsk_modem import SfskModem
from concentrator.simulator.virtual_link import NoisyLine
from plc.sfsk import commands, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.framing import LOCAL_FRAME, LocalFrameDecoder, encode_local_frame
from plc.sfsk.initiator import Initiator

from plc_rig import EchoDevice, Rig

TITLE = b"ODC\x00\x00\x00\x00\x01"


def make_rig(count, seed=1, loss=0.0, steady=True, line=None, known=None, **network_options):
    scheduler = VirtualScheduler()
    devices = [EchoDevice(number) for number in range(count)]
    feeder = Feeder(count, seed, SFSK_PHY, loss=loss, steady=steady)
    modem = SfskModem(devices, scheduler, feeder, seed)
    options = {} if line is None else {"line": line}
    return Rig(Initiator(TITLE, known, **network_options), modem, scheduler, **options)


def start(rig, limit_s=6000.0):
    rig.network.start(rig.link.now())
    rig.modem.start()
    count = len(rig.modem._nodes)
    assert rig.link.run_while(lambda: len(rig.addresses) < count, limit_s), len(rig.addresses)


def test_a_hundred_servers_are_discovered_over_time_and_answer():
    rig = make_rig(100)
    start(rig)
    assert rig.addresses == rig.modem.addresses()
    assert rig.names["ShortAddressAssigned"] == 100
    # They report in slots of their own choice: some meet, and report again.
    assert rig.modem.counters.collisions > 0
    assert rig.network.counters["discover_rounds"] > 5
    assert rig.poll_all(3000.0) == 100
    assert {answer[1:] for answer in rig.answers} == {(1, 16, b"echo request")}


def test_credits_follow_the_distance():
    rig = make_rig(100)
    start(rig)
    rig.poll_all(3000.0)
    levels = {node.title: node.place.level for node in rig.modem._nodes}
    assert set(levels.values()) >= {0, 1}
    for node in rig.network._nodes.nodes():
        assert node.hops == levels[node.title]
        wanted = levels[node.title] + 1
        assert node.initial_credit == (wanted if levels[node.title] < 3 else mac.LARGEST_CREDIT)


def test_airtime_is_that_of_slots_and_repetitions():
    # 150 ms a slot at 2400 baud; one subframe down with its credit and one up.
    rig = make_rig(1, search_interval_s=3000.0)
    start(rig)
    rig.link.run_for(600.0)
    rig.poll_all()
    before = rig.modem.feeder.airtime_s
    rig.poll_all()
    assert rig.modem.feeder.airtime_s - before == pytest.approx(0.15 * 2 + 0.15 * 2)


def test_a_restart_of_the_modem_is_noticed_and_mended():
    rig = make_rig(12)
    start(rig)
    rig.modem.restart()
    assert rig.link.run_while(lambda: rig.names["NetworkStarted"] < 2, 300.0)
    assert rig.reasons[1] == "the modem restarted: it has lost its configuration"
    assert rig.poll_all() == 12


def test_a_server_without_power_leaves_and_comes_back_with_its_address():
    rig = make_rig(12, search_interval_s=60.0)
    start(rig)
    title = rig.modem._nodes[0].title
    address = rig.addresses[title]
    rig.modem.drop(title, 900.0)
    for _ in range(3):
        rig.send(address)
        assert rig.link.run_while(lambda: bool(rig.open_tokens), 200.0)
    assert rig.link.run_while(lambda: title in rig.addresses, 300.0)
    assert rig.link.run_while(lambda: title not in rig.addresses, 3000.0)
    assert rig.addresses[title] == address


def test_addresses_survive_a_restart_of_the_product():
    rig = make_rig(12)
    start(rig)
    known = dict(rig.addresses)
    again = Rig(Initiator(TITLE, known), rig.modem, rig.link._scheduler)
    again.network.start(again.link.now())
    assert again.link.run_while(lambda: len(again.addresses) < 12, 600.0)
    assert again.addresses == known
    assert again.names["ShortAddressAssigned"] == 0


def test_a_server_that_forgot_its_registration_is_registered_anew():
    rig = make_rig(3, search_interval_s=60.0)
    start(rig)
    node = rig.modem._nodes[1]
    node.address = mac.NEW
    assert rig.link.run_while(lambda: not node.registered, 600.0)
    rig.link.run_for(60.0)
    assert rig.addresses == rig.modem.addresses()
    assert rig.names["NodeLeft"] == 1


def test_alarms_are_reported_and_cleared():
    rig = make_rig(3)
    title = rig.modem._nodes[2].title
    rig.modem.raise_alarm(title, 0x82)
    start(rig)
    assert rig.names["AlarmReported"] >= 1
    rig.network.clear_alarm([0x82], rig.link.now(), [title])
    assert rig.link.run_while(lambda: bool(rig.modem.alarms()), 120.0)


def test_a_day_with_drops_has_no_stuck_server():
    rig = make_rig(30, steady=False, search_interval_s=120.0)
    rig.network.start(0.0)
    rig.modem.start()
    rig.link.run_for(3600.0)
    for _ in range(11):
        for address in list(rig.addresses.values()):
            rig.send(address)
        assert rig.link.run_while(lambda: bool(rig.open_tokens), 7000.0)
        rig.link.run_for(3600.0)
    # Everyone has power again: what the host believes has to be the truth soon.
    rig.modem.feeder.steady = True
    for node in rig.modem._nodes:
        node.place.availability = 1.0
        node.visit += 1  # its planned drop is off
        if not node.heard:
            rig.modem._come(node)
    rig.network.refresh(rig.link.now())
    rig.link.run_for(3600.0)
    assert rig.addresses == rig.modem.addresses()
    assert len(rig.addresses) == 30


def test_spoilt_octets_in_both_directions():
    rig = make_rig(6, line=NoisyLine(loss=0.002, garbage=0.002, seed=3), data_confirm_timeout_s=5.0)
    start(rig)
    rig.poll_all()
    assert rig.network.counters["garbage_octets"] > 0
    rig.link.line.loss = rig.link.line.garbage = 0.0
    rig.link.run_for(600.0)
    assert rig.poll_all() == 6


# The modem octet by octet.


def ask(modem, scheduler, payload, wait_s=10.0):
    sent = bytearray()
    modem.output = sent.extend
    modem.receive_data(encode_local_frame(payload))
    scheduler.run_for(wait_s)
    decoder = LocalFrameDecoder()
    decoder.receive_data(bytes(sent))
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append(frame[1])
    return frames


def test_the_modem_on_the_wire():
    scheduler = VirtualScheduler()
    modem = SfskModem([EchoDevice(1)], scheduler)
    assert ask(modem, scheduler, bytes.fromhex("411200")) == [b"\x06", bytes.fromhex("4321")]
    config = commands.master_config(0xC00, 2400)
    assert ask(modem, scheduler, b"\x71" + config) == [b"\x06", b"\x72" + config]
    assert ask(modem, scheduler, b"\x71" + config[:-1]) == [b"\x06", bytes.fromhex("7322")]
    assert ask(modem, scheduler, bytes.fromhex("411200")) == [b"\x06", bytes.fromhex("421200") + config]
    modem.start()
    scheduler.run_for(100.0)
    discover = bytes.fromhex("51" + "24c00fff00" + "90fd00" + "1d64000a0100")
    title = EchoDevice(1).eui64
    report = bytes.fromhex("50" + "24ffec0000" + "9000fd" + "1e01") + title + b"\x00"
    assert ask(modem, scheduler, discover) == [b"\x06", bytes.fromhex("52ff"), report]
    register = bytes.fromhex("51" + "24c00fff00" + "90fd00" + "1c") + TITLE + b"\x01" + title + b"\x00\x05"
    assert ask(modem, scheduler, register) == [b"\x06", bytes.fromhex("52ff")]
    ping = bytes.fromhex("51" + "24c0000500" + "90fd00" + "19") + title
    answer = bytes.fromhex("50" + "fc005c0000" + "9000fd" + "1a") + title
    assert ask(modem, scheduler, ping) == [b"\x06", bytes.fromhex("52ff"), answer]
    assert ask(modem, scheduler, bytes.fromhex("5124c00fff00")) == [b"\x06", bytes.fromhex("5203")]


def test_whatever_comes_the_modem_stays():
    scheduler = VirtualScheduler()
    modem = SfskModem([EchoDevice(1)], scheduler)
    ask(modem, scheduler, b"\x71" + commands.master_config(0xC00, 2400))
    for command in range(256):
        for tail in (
            b"",
            b"\x00",
            bytes(12),
            b"\xff" * 40,
            bytes.fromhex("00c00fff0090fd00") + bytes((command,)),
        ):
            ask(modem, scheduler, bytes([command]) + tail, 0.01)
    modem.receive_data(bytes(range(256)))
    scheduler.run_for(60.0)
    frames = ask(modem, scheduler, b"\x71" + commands.master_config(0xC00, 2400))
    assert frames[-1][:1] == b"\x72"
    assert COMMANDS.decode(frames[-1]).name == "WriteConfig_Confirm"
    assert LOCAL_FRAME == 0
