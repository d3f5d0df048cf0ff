"""Generation A: Coordinator as the bootstrap server, and simulated devices that do EAP-PSK by themselves."""

from __future__ import annotations

import random

import pytest

from concentrator.links.aes import aes
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.g3_modem_a import G3ModemA
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.virtual_link import NoisyLine
from plc.g3.coordinator import Coordinator
from plc.network import (
    FrameCounterAdvanced,
    GroupKeyChanged,
    LinkQualityReported,
    NodeDeclined,
    ShortAddressAssigned,
)

from plc_rig import EchoDevice, Rig

GMK = b"GMK-secret-octet"
NEXT_GMK = b"next-secret-octe"
EUI = bytes.fromhex("0080E1FFFE000000")


def psk_of(eui64):
    return bytes(8) + eui64


class BootstrapRig(Rig):
    def __init__(self, *arguments, **options):
        self.declined = {}
        self.assigned = {}
        self.key_changes = []
        self.counters_told = []
        super().__init__(*arguments, **options)

    def take(self, event, now):
        if isinstance(event, NodeDeclined):
            self.declined[event.eui] = event.reason
        elif isinstance(event, ShortAddressAssigned):
            self.assigned[event.eui] = event.address
        elif isinstance(event, GroupKeyChanged):
            self.key_changes.append(event.index)
        elif isinstance(event, FrameCounterAdvanced):
            self.counters_told.append(event.counter)
        super().take(event, now)


def make_network(devices, **options):
    options.setdefault("psk", b"")
    options.setdefault("device_psks", {device.eui64: psk_of(device.eui64) for device in devices})
    options.setdefault("generation", "a")
    draws = random.Random("network")
    psk = options.pop("psk")
    gmk = options.pop("gmk", GMK)
    return Coordinator(0x781D, psk, gmk, eui64=EUI, aes=aes, random=draws.randbytes, **options)


def make_rig(count, seed=1, loss=0.0, steady=True, line=None, modem_options=None, **network_options):
    scheduler = VirtualScheduler()
    devices = [EchoDevice(number) for number in range(count)]
    feeder = Feeder(count, seed, G3_CENELEC_A_PHY, loss=loss, steady=steady)
    psks = {device.eui64: psk_of(device.eui64) for device in devices}
    modem = G3ModemA(devices, scheduler, feeder, seed, **{"device_psks": psks, **(modem_options or {})})
    options = {} if line is None else {"line": line}
    return BootstrapRig(make_network(devices, **network_options), modem, scheduler, **options)


def start(rig, seconds=600.0):
    rig.network.start(rig.link.now())
    rig.modem.start()
    rig.link.run_for(seconds)


def members(rig):
    return {node.device.eui64: node.short_address for node in rig.modem._nodes if rig.modem._is_member(node)}


@pytest.mark.parametrize("generation", ["a", "auto"])
def test_meters_join_with_keys_of_their_own_and_answer(generation):
    rig = make_rig(60, generation=generation)
    start(rig, 1500.0)
    assert rig.network.generation == "a"
    assert len(rig.addresses) == 60
    assert rig.addresses == members(rig) == rig.assigned
    assert any(node.place.level for node in rig.modem._nodes)  # some joined through an agent
    assert rig.poll_all() == 60
    assert rig.network.counters["lbp_failed_authentications"] == 0
    for eui, address in rig.addresses.items():
        device = rig.modem.bootstrap_of(eui)
        assert (device.short_address, device.group_keys, device.active_index) == (address, {0: GMK}, 0)


def test_the_generation_is_found_by_asking():
    scheduler = VirtualScheduler()
    psk = b"PSK-secret-octet"
    devices = [EchoDevice(number) for number in range(5)]
    feeder = Feeder(5, 1, G3_CENELEC_A_PHY, steady=True)
    modem = G3Modem(devices, scheduler, feeder, device_psk=psk)
    rig = BootstrapRig(make_network(devices, psk=psk, device_psks=None, generation="auto"), modem, scheduler)
    start(rig)
    assert rig.network.generation == "b"
    assert len(rig.addresses) == 5


def test_what_a_generation_lacks_is_said():
    rig = make_rig(2, generation="auto")
    rig.network._aes = None
    start(rig, 30.0)
    assert "no AES function" in rig.reasons[0]
    scheduler = VirtualScheduler()
    devices = [EchoDevice(0)]
    modem = G3Modem(devices, scheduler, Feeder(1, 1, G3_CENELEC_A_PHY), device_psk=b"x" * 16)
    rig = BootstrapRig(make_network(devices, generation="auto"), modem, scheduler)
    start(rig, 30.0)
    assert "needs one PSK for all" in rig.reasons[0]


def test_foreign_devices_and_wrong_keys_are_declined_and_listed():
    devices = [EchoDevice(number) for number in range(8)]
    eui = [device.eui64 for device in devices]
    psks = {name: psk_of(name) for name in eui}
    psks.pop(eui[0])  # a device nobody knows
    psks[eui[1]] = b"another key here"
    rig = make_rig(8, device_psks=psks, allowed=set(eui) - {eui[2]})
    for node in rig.modem._nodes:
        node.place.parent = None
    start(rig, 900.0)
    assert set(rig.addresses) == set(eui[3:])
    assert set(rig.declined) == {eui[0], eui[1], eui[2]}
    assert "no PSK" in rig.declined[eui[0]]
    assert "PSK is another" in rig.declined[eui[1]]
    assert "whitelist" in rig.declined[eui[2]]
    # It asks again and again, and is told once; once it is allowed, it gets in.
    rig.network.set_allowed(None, rig.link.now())
    rig.link.run_for(900.0)
    assert eui[2] in rig.addresses


def test_addresses_and_keys_survive_a_restart_of_the_product():
    rig = make_rig(20)
    start(rig)
    joins = rig.modem.counters.joins
    devices = [node.device for node in rig.modem._nodes]
    again = BootstrapRig(
        make_network(devices, known_addresses=rig.assigned, frame_counter=rig.counters_told[-1]),
        rig.modem,
        rig.link._scheduler,
    )
    again.network.start(rig.link.now())
    again.link.run_for(60.0)
    assert again.addresses == rig.addresses
    assert again.poll_all() == 20
    # A power cut: modem and product begin anew together.
    rig.modem.restart()
    third = BootstrapRig(
        make_network(devices, known_addresses=rig.assigned, frame_counter=rig.counters_told[-1]),
        rig.modem,
        rig.link._scheduler,
    )
    third.network.start(rig.link.now())
    third.link.run_for(60.0)
    assert third.poll_all() == 20
    assert rig.modem.counters.joins == joins


def test_a_lost_frame_counter_costs_every_member_a_new_join():
    rig = make_rig(5)
    start(rig)
    rig.poll_all()
    joins = rig.modem.counters.joins
    rig.modem.restart()
    devices = [node.device for node in rig.modem._nodes]
    again = BootstrapRig(make_network(devices, known_addresses=rig.assigned), rig.modem, rig.link._scheduler)
    again.network.start(rig.link.now())
    again.link.run_for(1500.0)
    assert rig.modem.counters.joins > joins
    assert again.addresses == rig.assigned
    assert again.poll_all() == 5


def test_silent_restart_of_the_modem():
    rig = make_rig(20, modem_options={"counter_step": 20})
    start(rig)
    rig.poll_all()
    joins = rig.modem.counters.joins
    rig.modem.restart()
    rig.link.run_for(180.0)
    assert rig.poll_all() == 20
    assert rig.modem.counters.joins == joins


def test_expel_and_leave():
    rig = make_rig(6)
    start(rig)
    first, second, *_ = rig.addresses
    rig.modem.leave(first)
    rig.network.expel(second, rig.link.now())
    rig.link.run_for(60.0)
    assert first not in rig.addresses
    assert second not in rig.addresses
    assert not rig.modem.bootstrap_of(second).joined
    rig.link.run_for(900.0)
    assert rig.addresses[second] == rig.assigned[second]


def test_rotation_of_the_group_key():
    rig = make_rig(25)
    start(rig, 900.0)
    assert rig.poll_all() == 25
    rig.network.rotate_group_key(NEXT_GMK, rig.link.now())
    rig.link.run_for(5.0)
    # The network works on while the key is handed out.
    rig.send(next(iter(rig.addresses.values())))
    assert rig.link.run_while(lambda: not rig.key_changes, 900.0)
    assert rig.key_changes == [1]
    rig.link.run_for(10.0)
    for eui in rig.addresses:
        device = rig.modem.bootstrap_of(eui)
        assert device.group_keys == {0: GMK, 1: NEXT_GMK}
        assert device.active_index == 1
    assert len(rig.addresses) == 25
    assert rig.poll_all() == 25
    assert rig.modem.counters.joins == 25
    # And back to index 0; a member that is away meanwhile joins anew.
    eui = next(iter(node.device.eui64 for node in rig.modem._nodes[::-1]))
    rig.modem.drop(eui, duration_s=900.0)
    rig.network.rotate_group_key(b"third-secret-oct", rig.link.now())
    assert rig.link.run_while(lambda: len(rig.key_changes) < 2, 900.0)
    assert rig.key_changes == [1, 0]
    assert eui not in rig.addresses
    rig.link.run_for(1500.0)
    assert len(rig.addresses) == 25
    assert rig.poll_all() == 25


def test_a_device_that_joins_during_a_rotation_gets_both_keys():
    rig = make_rig(12)
    start(rig, 900.0)
    eui = next(node.device.eui64 for node in rig.modem._nodes if node.place.parent is None)
    rig.network.expel(eui, rig.link.now())
    rig.link.run_for(290.0)
    rig.network.rotate_group_key(NEXT_GMK, rig.link.now())
    assert rig.link.run_while(lambda: not rig.key_changes, 900.0)
    rig.link.run_for(900.0)
    assert len(rig.addresses) == 12
    assert rig.modem.bootstrap_of(eui).group_keys[1] == NEXT_GMK
    assert rig.poll_all() == 12


def test_a_modem_lost_during_a_rotation():
    rig = make_rig(12, modem_options={"counter_step": 20})
    start(rig, 900.0)
    rig.network.rotate_group_key(NEXT_GMK, rig.link.now())
    rig.link.run_for(1.0)
    rig.modem.restart()
    assert rig.link.run_while(lambda: not rig.key_changes, 900.0)
    rig.link.run_for(900.0)
    assert rig.poll_all() == 12
    assert {rig.modem.bootstrap_of(eui).active_index for eui in rig.addresses} == {1}


def test_loss_on_the_power_line():
    rig = make_rig(30, loss=0.25)
    start(rig, 3600.0)
    assert len(rig.addresses) == 30
    assert rig.addresses == members(rig)


def test_a_bad_serial_line_is_survived():
    line = NoisyLine(loss=0.01, garbage=0.01, seed=5)
    rig = make_rig(15, line=line, refresh_interval_s=120.0, data_confirm_timeout_s=30.0)
    start(rig, 4000.0)
    line.loss = line.garbage = 0.0
    rig.link.run_for(2400.0)
    assert len(rig.addresses) == 15
    assert rig.addresses == members(rig)
    assert rig.poll_all() == 15
    assert rig.network.counters["lbp_retransmissions"] > 0


def test_a_day_with_drops():
    rig = make_rig(40, seed=4, steady=False, loss=0.02)
    start(rig, 1800.0)
    reports = 0

    def note(event, now):
        nonlocal reports
        reports += isinstance(event, LinkQualityReported)
        rig.take(event, now)

    rig.link._on_event = note
    asked = answered = 0
    for _ in range(24):
        asked += len(rig.addresses)
        answered += rig.poll_all(3000.0)
        rig.link.run_for(3000.0)
    assert reports
    assert asked > 24 * 40 * 0.6
    assert answered > 0.85 * asked


def test_keys_are_shown_nowhere():
    rig = make_rig(3)
    texts = []
    rig.link._on_event = lambda event, now: (texts.append(repr(event)), rig.take(event, now))
    start(rig)
    rig.network.rotate_group_key(NEXT_GMK, rig.link.now())
    rig.link.run_for(120.0)
    shown = " ".join(texts) + repr(rig.network)
    for key in (GMK, NEXT_GMK, *(psk_of(eui) for eui in rig.addresses)):
        assert key.hex() not in shown
        assert repr(key)[2:-1] not in shown
