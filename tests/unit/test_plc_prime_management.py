"""BaseNode's management of its nodes, against the simulated PRIME modem: keys, whitelist, queries, firmware."""

from __future__ import annotations

import pytest

from concentrator.simulator.feeder import Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.prime_nodes import MODEL, VENDOR
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.virtual_link import NoisyLine
from plc.errors import LocalPlcError
from plc.network import NodeDeclined
from plc.prime import firmware_upgrade as fu
from plc.prime.base_node import BaseNode
from plc.prime.events import (
    FirmwareUpgradeFinished,
    FirmwareUpgradeProgressed,
    FirmwareUpgradeStarted,
    NodeAttributesRead,
    NodeListRead,
)

from plc_rig import EchoDevice, Rig

NEW = b"2.0.0"


def key_of(eui48):
    return b"duk-secret" + eui48


class ManagementRig(Rig):
    def __init__(self, *arguments, **options):
        self.seen = []
        super().__init__(*arguments, **options)

    def take(self, event, now):
        self.seen.append(event)
        super().take(event, now)

    def of(self, kind):
        return [event for event in self.seen if isinstance(event, kind)]

    def wait_for(self, kind, limit_s=20_000.0):
        assert self.link.run_while(lambda: not self.of(kind), limit_s), f"no {kind.__name__}"
        return self.of(kind)[-1]


def make_rig(count, seed=1, loss=0.0, line=None, modem_options=None, **network_options):
    scheduler = VirtualScheduler()
    devices = [EchoDevice(number) for number in range(count)]
    feeder = Feeder(count, seed, loss=loss, steady=True)
    modem = PrimeModem(devices, scheduler, feeder, seed, **(modem_options or {}))
    rig = ManagementRig(
        BaseNode(**network_options), modem, scheduler, **({} if line is None else {"line": line})
    )
    rig.euis = [device.eui48 for device in devices]
    return rig


def start(rig, seconds=200.0):
    rig.network.start(rig.link.now())
    rig.modem.start()
    rig.link.run_for(seconds)


def direct(rig):
    return [node.device.eui48 for node in rig.modem.nodes if node.place.parent is None]


# Who may register.


def test_whitelist():
    euis = [EchoDevice(number).eui48 for number in range(12)]
    allowed = set(euis[:6])
    rig = make_rig(12, allowed=allowed)
    start(rig)
    declined = {event.eui for event in rig.of(NodeDeclined)}
    assert set(rig.addresses) <= allowed
    assert declined
    assert not declined & allowed
    assert len(rig.of(NodeDeclined)) == len(declined)  # told once, asked many times
    assert rig.network.counters["declined_joins"] > len(declined)
    rig.network.set_allowed(set(euis[3:]), rig.link.now())
    rig.link.run_for(300.0)
    assert rig.modem._whitelist == set(euis[3:])
    assert set(euis[:3]) & set(rig.addresses)  # those that are in stay in
    rig.network.set_allowed(None, rig.link.now())
    rig.link.run_for(300.0)
    assert set(rig.addresses) == set(euis)
    assert rig.modem._whitelist == set()


def test_rules_are_given_anew_to_a_modem_that_restarted():
    euis = [EchoDevice(number).eui48 for number in range(5)]
    rig = make_rig(
        5,
        allowed=set(euis),
        device_keys={eui: key_of(eui) for eui in euis},
        modem_options={"security_profile": 1, "device_keys": {eui: key_of(eui) for eui in euis}},
    )
    start(rig)
    assert set(rig.addresses) == set(euis)
    rig.modem.restart()
    rig.link.run_for(1500.0)
    assert rig.modem._whitelist == set(euis)
    assert set(rig.addresses) == set(euis)
    assert rig.poll_all() == 5


def test_a_whitelist_that_a_modem_forgot_without_a_word_is_given_anew():
    euis = [EchoDevice(number).eui48 for number in range(6)]
    rig = make_rig(6, allowed=set(euis[:3]))
    start(rig)
    rig.modem.restart()
    rig.link.run_for(200.0)
    assert rig.modem._whitelist == set(euis[:3])
    assert rig.modem._values[0x8151] == b"\x01"


@pytest.mark.parametrize("profile", [1, 2])
def test_device_unique_keys(profile):
    euis = [EchoDevice(number).eui48 for number in range(6)]
    truth = {eui: key_of(eui) for eui in euis}
    rig = make_rig(6, modem_options={"security_profile": profile, "device_keys": truth})
    start(rig)
    assert rig.network.security_profile == profile
    assert rig.addresses == {}
    assert {event.eui for event in rig.of(NodeDeclined)} == set(direct(rig))
    assert {event.reason for event in rig.of(NodeDeclined)} == {"no device unique key is known for it"}
    for eui in euis[1:]:
        rig.network.set_device_key(eui, truth[eui], rig.link.now())
    rig.network.set_device_key(euis[0], bytes(16), rig.link.now())  # the wrong one
    rig.link.run_for(300.0)
    assert set(rig.addresses) == set(euis[1:])
    rig.network.set_device_key(euis[0], truth[euis[0]], rig.link.now())
    rig.link.run_for(300.0)
    assert set(rig.addresses) == set(euis)
    shown = " ".join(repr(event) for event in rig.seen) + repr(rig.network)
    assert "duk-secret" not in shown
    assert b"duk-secret".hex() not in shown
    with pytest.raises(LocalPlcError):
        rig.network.set_device_key(euis[0], b"short", rig.link.now())


# Queries.


def test_attributes_of_a_far_node():
    rig = make_rig(60, seed=2)
    start(rig, 400.0)
    node = max(rig.modem.nodes, key=lambda node: node.place.level)
    assert node.place.level > 0
    rig.network.query_node(node.device.eui48, [(0x0075, 0), (0x0026, 0), (0x0040, 0)], rig.link.now())
    answer = rig.wait_for(NodeAttributesRead)
    assert answer.eui == node.device.eui48
    assert answer.attributes == [
        (0x0075, 0, b"1.0.0".ljust(16, b"\x00")),
        (0x0026, 0, bytes([node.place.level])),
        (0x0040, 0, bytes(4)),
    ]


def test_lists_come_in_pieces():
    rig = make_rig(60, seed=2)
    start(rig, 400.0)
    switches = [node for node in rig.modem.nodes if node.switch]
    assert len(switches) > 3
    eui = next(node.device.eui48 for node in rig.modem.nodes if not node.switch)
    for most in (2, 30, len(switches)):
        rig.network.query_node_list(eui, 0x0056, rig.link.now(), most)
        rig.seen.clear()
        answer = rig.wait_for(NodeListRead)
        assert answer.reason == ""
        assert [record["lsid"] for record in answer.records] == sorted(node.lsid for node in switches)


def test_a_node_that_does_not_answer():
    rig = make_rig(5)
    start(rig)
    eui = next(iter(rig.addresses))
    rig.modem.drop(eui)
    rig.network.query_node(eui, [(0x0075, 0)], rig.link.now())
    assert rig.wait_for(NodeAttributesRead).reason == "the node did not answer"
    rig.network.query_node_list(bytes(6), 0x0056, rig.link.now())
    assert rig.wait_for(NodeListRead).reason == "the node did not answer"
    assert rig.poll_all() == 4


def test_counters_of_phy_and_mac_are_diagnostics():
    rig = make_rig(2)
    start(rig)
    rig.network.read_diagnostics(rig.link.now())
    rig.link.run_for(30.0)
    assert rig.network.counters["mac_tx_data_packets"] == 0
    assert rig.network.counters["phy_rx_total"] == 0


# Firmware upgrade.


def image(size=5000, **changes):
    values = {"vendor": VENDOR, "model": MODEL, "version": NEW, **changes}
    return fu.FirmwareImage(bytes(number * 7 & 0xFF for number in range(size)), **values)


def upgrade(rig, targets, size=5000, changes=None, **options):
    options.setdefault("restart_delay_s", 10)
    options.setdefault("safety_timer_s", 600)
    rig.network.start_firmware_upgrade(
        image(size, **(changes or {})), targets, fu.UpgradeOptions(**options), rig.link.now()
    )


def test_every_page_gets_there_though_many_are_lost():
    rig = make_rig(12, seed=3, loss=0.45)
    start(rig, 900.0)
    targets = sorted(rig.addresses)
    upgrade(rig, targets, page_size=2)
    rig.wait_for(FirmwareUpgradeStarted)
    # The network works on meanwhile.
    before = len(rig.answers)
    rig.send(rig.addresses[targets[0]])
    finished = rig.wait_for(FirmwareUpgradeFinished)
    assert len(rig.answers) >= before
    assert finished.reason == ""
    assert finished.outcomes == dict.fromkeys(targets, fu.CONFIRMED)
    engine = rig.modem._upgrade
    assert engine.lost_pages > 0
    assert engine._image == image().data
    assert engine.page_count == -(-5000 // 64)
    for eui in targets:
        assert len(engine.targets[eui].pages) == engine.page_count
        states = [event.state for event in rig.of(FirmwareUpgradeProgressed) if event.eui == eui]
        assert [state for state in states if state != "receiving"] == [
            "complete",
            "countdown",
            "upgrade",
            "idle",
        ]
        pages = [event.pages for event in rig.of(FirmwareUpgradeProgressed) if event.eui == eui]
        assert pages == sorted(pages)
    assert {node.version for node in rig.modem.nodes} == {NEW}
    rig.link.run_for(200.0)
    assert rig.poll_all() > 0


def test_match_rules():
    rig = make_rig(3)
    start(rig)
    targets = sorted(rig.addresses)
    upgrade(rig, targets, changes={"model": b"other"})
    assert rig.wait_for(FirmwareUpgradeFinished).outcomes == dict.fromkeys(targets, fu.INCOMPLETE)
    rig.seen.clear()
    upgrade(rig, targets, changes={"model": b"other"}, match_rules=fu.MATCH_VENDOR)
    assert rig.wait_for(FirmwareUpgradeFinished).outcomes == dict.fromkeys(targets, fu.CONFIRMED)


def test_a_node_that_is_away_is_incomplete():
    rig = make_rig(4)
    start(rig)
    targets = sorted(rig.addresses)
    gone = next(node.device.eui48 for node in rig.modem.nodes if not node.switch)
    rig.modem.drop(gone)
    upgrade(rig, targets)
    outcomes = rig.wait_for(FirmwareUpgradeFinished).outcomes
    assert outcomes.pop(gone) in (fu.INCOMPLETE, fu.NOT_ANSWERED)
    assert set(outcomes.values()) == {fu.CONFIRMED}


def test_a_node_that_nobody_confirms_reverts():
    rig = make_rig(4)
    start(rig)
    targets = sorted(rig.addresses)
    lost = direct(rig)[0]
    node = rig.modem._find(lost)
    upgrade(rig, [lost], restart_delay_s=30, safety_timer_s=120)
    assert rig.link.run_while(lambda: node.version != NEW, 5000.0)
    # It does not come back from its restart in time.
    rig.modem._go(node, None)
    node.visit += 1
    assert rig.link.run_while(lambda: node.version == NEW, 5000.0)
    node.visit += 1
    rig.modem._come(node)
    finished = rig.wait_for(FirmwareUpgradeFinished)
    assert node.version == b"1.0.0"
    assert finished.outcomes[lost] in (fu.REVERTED, fu.NOT_ANSWERED)
    assert len(targets) == 4


def test_abort_of_one_and_of_all():
    rig = make_rig(4)
    start(rig)
    targets = sorted(rig.addresses)
    upgrade(rig, targets, size=60_000)
    rig.wait_for(FirmwareUpgradeStarted)
    with pytest.raises(LocalPlcError):
        upgrade(rig, targets)
    rig.network.abort_firmware_upgrade(rig.link.now(), targets[0])
    rig.link.run_for(5.0)
    rig.network.abort_firmware_upgrade(rig.link.now())
    finished = rig.wait_for(FirmwareUpgradeFinished)
    assert finished.reason == "aborted"
    assert set(finished.outcomes.values()) == {fu.ABORTED}
    assert not rig.modem._upgrade.running
    assert {node.version for node in rig.modem.nodes} == {b"1.0.0"}
    # And another one may follow.
    rig.seen.clear()
    upgrade(rig, targets)
    assert set(rig.wait_for(FirmwareUpgradeFinished).outcomes.values()) == {fu.CONFIRMED}


def test_a_modem_lost_on_the_way_ends_it():
    rig = make_rig(3)
    start(rig)
    upgrade(rig, sorted(rig.addresses), size=60_000)
    rig.wait_for(FirmwareUpgradeStarted)
    rig.modem.restart()
    finished = rig.wait_for(FirmwareUpgradeFinished)
    # Told by the loss of the modem, or by the modem that knows of no run any more.
    assert set(finished.outcomes.values()) <= {fu.ABORTED, fu.INCOMPLETE}


def test_a_bad_serial_line():
    rig = make_rig(4, line=NoisyLine(loss=0.0005, garbage=0.0005, seed=3))
    start(rig, 300.0)
    upgrade(rig, sorted(rig.addresses), size=20_000)
    finished = rig.wait_for(FirmwareUpgradeFinished)
    if finished.reason == "":
        assert set(finished.outcomes.values()) <= {fu.CONFIRMED, fu.NOT_ANSWERED}
        assert rig.modem._upgrade._image == image(20_000).data


def test_what_is_no_firmware():
    for changes in ({"vendor": b"x" * 33}, {"model": b"x" * 33}, {"version": b"x" * 33}):
        with pytest.raises(LocalPlcError):
            image(**changes)
    with pytest.raises(LocalPlcError):
        image(0)
    with pytest.raises(LocalPlcError):
        fu.FirmwareUpgrade(image(), [], fu.UpgradeOptions())
    with pytest.raises(LocalPlcError):
        fu.FirmwareUpgrade(image(), [b"short"], fu.UpgradeOptions())
