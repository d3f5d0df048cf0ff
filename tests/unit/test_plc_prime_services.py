"""What a base node's host asks for by hand, against the simulated modem: PPROF, MNGP, attributes, multicast."""

from __future__ import annotations

import pytest

from concentrator.simulator.feeder import Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.scheduler import VirtualScheduler
from plc.errors import LocalPlcError
from plc.network import DiagnosticsRead, NodeDiagnosticsRead
from plc.prime import commands
from plc.prime.base_node import BaseNode
from plc.prime.commands import COMMANDS
from plc.usi.framing import encode_frame

from plc_rig import EchoDevice, Rig

GHOST = b"\x09" * 6


class Bench(Rig):
    def __init__(self, count=8, seed=1, **options):
        scheduler = VirtualScheduler()
        devices = [EchoDevice(number) for number in range(count)]
        modem = PrimeModem(devices, scheduler, Feeder(count, seed, steady=True), seed, **options)
        self.events = []
        super().__init__(BaseNode(), modem, scheduler)
        self.network.start(0.0)
        modem.start()
        assert self.link.run_while(lambda: len(self.addresses) < count, 600.0)
        self.link.run_for(60.0)

    def __repr__(self):
        return "Bench"

    def take(self, event, now):
        self.events.append(event)
        super().take(event, now)

    def after(self, name, limit_s=120.0, **wanted):
        """The next event of a name."""
        start = len(self.events)

        def found():
            return [one for one in self.events[start:] if type(one).__name__ == name]

        assert self.link.run_while(lambda: not found(), limit_s), name
        event = found()[0]
        for field, value in wanted.items():
            assert getattr(event, field) == value
        return event

    @property
    def eui(self):
        return max(self.addresses)


def test_a_node_is_set_reset_and_rebooted():
    rig = Bench()
    rig.network.set_node_attribute(rig.eui, 0x0025, b"\x01\x02", rig.link.now())
    rig.after("NodeCommandDone", eui=rig.eui, command="set", reason="")
    rig.link.run_for(10.0)
    rig.network.query_node(rig.eui, [(0x0025, 0), (0x0041, 0)], rig.link.now())
    assert rig.after("NodeAttributesRead").attributes == [(0x25, 0, b"\x01\x02"), (0x41, 0, b"\0\0\0\x01")]
    rig.network.reset_node_statistics(rig.eui, rig.link.now())
    rig.after("NodeCommandDone", command="reset statistics", reason="")
    rig.link.run_for(10.0)
    rig.network.query_node(rig.eui, [(0x0041, 0)], rig.link.now())
    assert rig.after("NodeAttributesRead").attributes == [(0x41, 0, b"\0\0\0\x01")]
    eui = rig.eui
    rig.network.reboot_node(eui, rig.link.now())
    rig.after("NodeCommandDone", command="reboot", reason="")
    rig.after("NodeLeft", eui=eui)
    rig.after("NodeJoined", eui=eui)
    with pytest.raises(LocalPlcError):
        rig.network.reboot_node(GHOST, rig.link.now())


def test_what_the_modem_refuses_is_said():
    rig = Bench()
    rig.modem._find(rig.eui).registered = False
    rig.network.reboot_node(rig.eui, rig.link.now())
    rig.after("NodeCommandDone", reason="the modem refused it")
    rig.network.read_zero_cross(rig.eui, rig.link.now())
    rig.after("ZeroCrossRead", reason="the modem refused it")
    rig.network.promote(rig.eui, rig.link.now())
    rig.after("NodeCommandDone", command="promote", reason="no such device")


def test_zero_cross_tells_the_phase():
    rig = Bench()
    times = set()
    for eui in sorted(rig.addresses):
        rig.network.read_zero_cross(eui, rig.link.now())
        event = rig.after("ZeroCrossRead", eui=eui, reason="")
        assert event.frequency_time == 10_000
        times.add(event.difference_time)
    assert times == {0, 3333, 6666}


def test_promotion_and_demotion():
    rig = Bench()
    leaf = next(node for node in rig.modem.nodes if not node.switch).device.eui48
    rig.network.promote(leaf, rig.link.now())
    rig.after("NodeCommandDone", eui=leaf, command="promote", reason="")
    assert rig.modem._find(leaf).switch
    rig.link.run_for(5.0)
    assert rig.network._nodes.get(leaf).role == "switch"
    rig.network.demote(leaf, rig.link.now())
    rig.after("NodeCommandDone", command="demote", reason="")
    rig.link.run_for(5.0)
    assert rig.network._nodes.get(leaf).role == "terminal"
    rig.network.promote(leaf, rig.link.now(), pch=1)
    rig.after("NodeCommandDone", command="promote", reason="")


def test_a_connection_is_closed_and_opened_anew():
    rig = Bench()
    before = rig.addresses[rig.eui]
    rig.network.close_connection(before, rig.link.now())
    eui = rig.eui
    rig.after("NodeLeft", eui=eui)
    rig.after("NodeJoined", eui=eui)
    assert rig.addresses[eui] != before
    with pytest.raises(LocalPlcError):
        rig.network.close_connection(before, rig.link.now())


@pytest.mark.parametrize("generation", ["harmony", "2021"])
def test_attributes_of_the_modem_by_mlme_and_plme(generation):
    rig = Bench(3, generation=generation)
    rig.network.write_attribute(0x002D, b"\x01\x14", rig.link.now())
    rig.after("AttributeWritten", attribute=0x2D, reason="")
    rig.network.write_attribute(0x8090, b"\x02", rig.link.now())
    rig.after("AttributeWritten", attribute=0x8090, reason="")
    rig.network.write_attribute(0x0075, bytes(16), rig.link.now())
    rig.after("AttributeWritten", reason="read only")
    rig.network.read_attributes([0x002D, 0x8090, 0x7777], rig.link.now())
    found = rig.after("AttributesRead").attributes
    assert found == [(0x2D, b"\x01\x14"), (0x8090, b"\x02"), (0x7777, b"")]


def test_the_modem_by_mngp():
    rig = Bench(3)
    rig.network.set_modem_attribute(0x8090, b"\x03", rig.link.now())
    rig.network.query_modem([(0x8090, 0), (0x8101, 0)], rig.link.now())
    assert rig.after("AttributesRead").attributes == [(0x8090, b"\x03"), (0x8101, b"\x04")]
    rig.network.query_modem_list(0x0050, rig.link.now())
    euis = {record[:6] for _attribute, record in rig.after("AttributesRead").attributes}
    assert euis == set(rig.addresses)
    rig.modem._values[0x0040] = b"\0\0\0\x09"
    rig.network.reset_modem_statistics(rig.link.now())
    rig.link.run_for(1.0)
    assert rig.modem._values[0x0040] == bytes(4)
    rig.modem._values[0x0040] = rig.modem._values[0x0041] = b"\0\0\0\x09"
    rig.network.reset_modem_statistics(rig.link.now(), [(0x0041, 0)])
    rig.link.run_for(1.0)
    assert (rig.modem._values[0x0040][-1], rig.modem._values[0x0041][-1]) == (9, 0)
    rig.network.reboot_modem(rig.link.now())
    assert rig.link.run_while(lambda: rig.names["NodeLeft"] < 3, 2000.0)
    assert rig.link.run_while(lambda: len(rig.addresses) < 3, 2000.0)


def test_mngp_that_is_not_answered_or_spoilt():
    rig = Bench(1)
    take = rig.modem.services.take_mngp
    rig.modem.services.take_mngp = lambda *_: True
    rig.network.query_modem([(0x8090, 0)], rig.link.now())
    assert rig.after("AttributesRead").attributes == [(0x8090, b"")]
    rig.network.query_modem([(0x8090, 0)], rig.link.now())
    rig.network.receive_data(encode_frame(0x01, b"\x80\x90\x00"), rig.link.now())
    assert rig.after("AttributesRead").attributes == [(0x8090, b"")]
    assert rig.network.counters["short_messages"] == 1
    rig.modem.services.take_mngp = take


def test_multicast():
    rig = Bench()
    first, second, third = sorted(rig.addresses)[:3]
    for eui in (first, second):
        rig.network.invite_to_group(7, eui, rig.link.now())
        rig.after("MulticastMemberJoined", handle=7, eui=eui, reason="")
    # One asks by itself: into a group that exists it may.
    rig.modem.services.ask_in(third, 7)
    rig.link.run_for(1.0)
    assert rig.network.group_members(7) == [first, second, third]
    assert rig.modem.services.groups[7] == {first, second, third}
    rig.modem.services.ask_in(third, 8)
    rig.link.run_for(1.0)
    assert rig.network.group_members(8) == []
    rig.network.send_multicast(7, b"to all of you", rig.link.now())
    rig.after("MulticastSent", handle=7, reason="")
    assert {eui for eui, data in rig.modem.services.heard if data == b"to all of you"} <= {
        first,
        second,
        third,
    }
    assert rig.modem.services.heard
    rig.network.remove_from_group(7, second, rig.link.now())
    rig.after("MulticastMemberLeft", eui=second)
    assert rig.network.group_members(7) == [first, third]
    rig.modem.send(commands.CON_LEAVE_INDICATION, handle=7, eui48=b"\xff" * 6)
    assert rig.network.group_members(7) == []
    with pytest.raises(LocalPlcError):
        rig.network.send_multicast(7, b"nobody", rig.link.now())
    rig.modem._go(rig.modem._find(second), None)
    rig.network.invite_to_group(9, second, rig.link.now())
    rig.after("MulticastMemberJoined", reason="no such device")


def test_other_connections_are_refused():
    rig = Bench(1)
    received = []
    rig.modem._handlers[commands.CON_ESTABLISH_RESPONSE] = received.append
    rig.modem.send(
        commands.CON_ESTABLISH_INDICATION, handle=3, eui48=rig.eui, connection_type=2, data=b"", cf_bytes=0,
        authenticated_encryption=0,
    )  # fmt: skip
    rig.link.run_for(1.0)
    assert [(message.number("handle"), message.number("answer")) for message in received] == [(3, 1)]
    assert rig.network.counters["connections_refused"] == 1


def test_diagnostics_of_modem_and_node():
    rig = Bench(12)
    rig.network.read_diagnostics(rig.link.now())
    tables = dict(rig.after("DiagnosticsRead").tables)
    assert len(tables["phy_communication"]) == 12
    rig.network.read_node_diagnostics(rig.eui, rig.link.now())
    event = rig.after("NodeDiagnosticsRead", eui=rig.eui, reason="")
    values = dict(event.values)
    assert values["firmware_version"] == "1.0.0"
    assert values["mac_sid"] == str(rig.modem._find(rig.eui).sid)
    with pytest.raises(LocalPlcError):
        rig.network.read_node_diagnostics(GHOST, rig.link.now())
    assert isinstance(event, NodeDiagnosticsRead)
    assert {type(one) for one in rig.events} >= {DiagnosticsRead}


def test_links_tell_their_signal():
    rig = Bench(12)
    rig.network.refresh(rig.link.now())
    rig.link.run_for(10.0)
    for node in rig.network._nodes.nodes():
        assert node.quality is not None
        assert node.modulation in ("D8PSK_CC", "DQPSK_CC", "DBPSK_CC", "robust DBPSK")
    assert COMMANDS.row(0x30)[2] == "MLME_LIST_GET.confirm"


def test_what_does_not_fit_its_field_stops_nothing():
    rig = Bench(2)
    with pytest.raises(LocalPlcError):
        rig.network.set_allowed({bytes(8)}, rig.link.now())
    rig.network.write_attribute(0x0025, bytes(300), rig.link.now())
    rig.network.promote(rig.eui, rig.link.now(), beacon_mode=999)
    assert rig.network.counters["procedures_failed"] == 2
    assert rig.poll_all() == 2
