"""Generation B: rotation of the group key, diagnostics, hybrid links, the older coordinator protocol."""

from __future__ import annotations

import pytest
from test_plc_g3_modem import GMK, PSK, make_rig, start

from plc.errors import LocalPlcError
from plc.g3 import commands, coordinator_commands, ib
from plc.g3.coordinator import Coordinator
from plc.usi.framing import PROTOCOL_COORDINATOR_G3, encode_frame

NEW = b"another-secret-k"


class Events:
    def __init__(self, rig):
        self.list = []
        take = rig.take

        def both(event, now):
            self.list.append(event)
            take(event, now)

        rig.link._on_event = both

    def of(self, name):
        return [event for event in self.list if type(event).__name__ == name]


@pytest.mark.parametrize("confirms", [True, False])
def test_rotation(confirms):
    rig = make_rig(20, modem_options={"rekey_confirms": confirms})
    start(rig)
    events = Events(rig)
    before = dict(rig.addresses)
    rig.network.rotate_group_key(NEW, rig.link.now())
    with pytest.raises(LocalPlcError):
        rig.network.rotate_group_key(NEW, rig.link.now())
    assert rig.link.run_while(lambda: not events.of("GroupKeyChanged"), 2000.0)
    assert events.of("GroupKeyChanged")[0].index == 1
    rig.link.run_for(60.0)
    assert rig.modem._gmk == NEW
    assert rig.addresses == before
    assert rig.poll_all() == 20
    assert NEW.hex() not in repr(events.list)
    # And back to the first index.
    rig.network.rotate_group_key(GMK, rig.link.now())
    assert rig.link.run_while(lambda: len(events.of("GroupKeyChanged")) < 2, 2000.0)
    assert events.of("GroupKeyChanged")[1].index == 0
    assert rig.poll_all() == 20


def test_who_misses_the_rotation_joins_anew():
    rig = make_rig(10)
    start(rig)
    eui = max(rig.addresses, key=rig.addresses.get)
    node = rig.modem._find(eui)
    node.heard = False
    rig.network.rotate_group_key(NEW, rig.link.now())
    rig.link.run_for(400.0)
    assert rig.modem._gmk == NEW
    node.heard = True
    rig.modem._seek(node, 1.0)
    rig.link.run_for(600.0)
    assert rig.modem._is_member(node)
    assert rig.poll_all() == 10


def test_a_rotation_that_the_loss_of_the_modem_ended_begins_anew():
    rig = make_rig(6)
    start(rig)
    events = Events(rig)
    rig.network.rotate_group_key(NEW, rig.link.now())
    rig.link.run_for(3.0)
    rig.modem.restart()
    assert rig.link.run_while(lambda: not events.of("GroupKeyChanged"), 3000.0)
    rig.link.run_for(900.0)
    assert rig.modem._gmk == NEW
    assert rig.poll_all() == 6


def test_after_a_restart_the_product_goes_on_with_the_new_key():
    rig = make_rig(6)
    start(rig)
    rig.network.rotate_group_key(NEW, rig.link.now())
    rig.link.run_for(600.0)
    rig.modem.restart()
    again = make_rig(6)
    again.network = Coordinator(0x781D, PSK, NEW, dict(rig.addresses), gmk_index=1, eui64=bytes(8))
    again.link._network, again.link._modem = again.network, rig.modem
    again.link._scheduler = rig.link._scheduler
    rig.modem.output = again.link._from_modem
    again.network.start(again.link.now())
    again.link.run_for(200.0)
    assert again.poll_all() == 6


def test_kick():
    rig = make_rig(5)
    start(rig)
    eui = next(iter(rig.addresses))
    rig.network.expel(eui, rig.link.now())
    rig.link.run_for(5.0)
    assert eui not in rig.addresses
    assert eui not in rig.modem.joined_euis()
    rig.network.set_allowed(set(rig.addresses), rig.link.now())
    rig.link.run_for(1000.0)
    assert eui not in rig.modem.joined_euis()
    assert rig.names["NodeDeclined"] == 1


def test_diagnostics_of_modem_and_node():
    rig = make_rig(100)
    start(rig)
    rig.poll_all()
    events = Events(rig)
    rig.network.read_diagnostics(rig.link.now())
    assert rig.link.run_while(lambda: not events.of("DiagnosticsRead"), 60.0)
    tables = dict(events.of("DiagnosticsRead")[0].tables)
    assert len(tables["adp_routing_table"]) == 100
    assert len(tables["mac_pos_table"]) == len(tables["mac_neighbour_table"]) > 3
    far = next(node for node in rig.modem._nodes if node.place.level >= 1)
    rig.network.read_node_diagnostics(far.device.eui64, rig.link.now())
    assert rig.link.run_while(lambda: not events.of("NodeDiagnosticsRead"), 60.0)
    found = events.of("NodeDiagnosticsRead")[0]
    values = dict(found.values)
    assert found.reason == ""
    assert f"0x{far.short_address:04X}" in values[f"forward hop {far.place.level + 1}"]
    assert f"destination=0x{far.short_address:04X}" in values["adp_routing_table"]
    rig.modem.drop(far.device.eui64)
    rig.network.read_node_diagnostics(far.device.eui64, rig.link.now())
    assert rig.link.run_while(lambda: len(events.of("NodeDiagnosticsRead")) < 2, 60.0)
    assert "path discovery" in events.of("NodeDiagnosticsRead")[1].reason
    with pytest.raises(LocalPlcError):
        rig.network.read_node_diagnostics(bytes(8), rig.link.now())


def test_hybrid_links():
    rig = make_rig(6)
    start(rig)
    events = Events(rig)
    node = next(node for node in rig.modem._nodes if node.place.parent is None)
    rig.poll_all()
    rig.network.refresh(rig.link.now())
    rig.link.run_for(10.0)
    node.media = 1
    rig.network.refresh(rig.link.now())
    rig.link.run_for(10.0)
    told = [event for event in events.of("LinkQualityReported") if event.eui == node.device.eui64]
    assert next(event.media for event in told if event.media) == "plc"
    assert told[-1].media == "rf"
    assert told[-1].reverse_quality == told[-1].quality - 8
    assert told[-1].modulation in ("robust", "DBPSK", "DQPSK", "D8PSK")
    record = {
        "flags": 0x23,
        "destination": 1,
        "next_hop": 1,
        "route_cost": 9,
        "hops_and_weak_links": 0x21,
        "valid_time": 5,
    }
    words = ib.record_in_words("adp", ib.ADP_ROUTING_TABLE, record)
    assert "flags=valid sequence number+bidirectional+over RF" in words
    assert "hops=1, weak_links=2" in words


def test_other_networks_are_looked_for():
    rig = make_rig(4)
    start(rig)
    events = Events(rig)
    rig.network.discover_networks(rig.link.now(), 5)
    rig.link.run_for(10.0)
    assert events.of("TopologyChanged")[0].description.startswith("PAN 0x781D is offered by 0x")


def test_routers_and_other_networks_tell_by_themselves():
    rig = make_rig(2)
    start(rig)
    events = Events(rig)
    rig.modem._send(
        commands.ROUTE_NOT_FOUND_INDICATION, source=0, destination=1, next_hop=2, previous_hop=0, route_cost=9,
        hop_count=2, weak_links=0, just_broken=1, compressed=0, frame=b"",
    )  # fmt: skip
    rig.modem._send(
        commands.NETWORK_STATUS_INDICATION, pan_id=0x1234, source=b"\0\1", destination_address=b"\0\0",
        mac_status=0x80, security_level=0, key_index=0,
    )  # fmt: skip
    assert [event.description for event in events.of("TopologyChanged")] == []
    rig.link.run_for(0.1)
    assert [event.description for event in events.of("TopologyChanged")] == [
        "a router found no route to it",
        "another PAN is in reach: 0x1234",
    ]


def test_the_older_coordinator_protocol_is_heard():
    rig = make_rig(2)
    start(rig)
    events = Events(rig)
    eui = next(iter(rig.addresses))
    indication = coordinator_commands.COMMANDS.encode(coordinator_commands.JOIN_INDICATION, body=eui)
    rig.link._from_modem(encode_frame(PROTOCOL_COORDINATOR_G3, indication))
    rig.link._from_modem(encode_frame(PROTOCOL_COORDINATOR_G3, b"\x63"))
    rig.link.run_for(1.0)
    assert [event.description for event in events.of("TopologyChanged")] == [
        "the modem's old coordinator protocol (0x26) tells: COORD_JOIN.indication"
    ]
    assert rig.network.counters["coordinator_protocol_frames"] == 2


def test_a_modem_with_full_buffers_is_left_alone():
    rig = make_rig(24)
    start(rig)
    rig.modem._in_flight = 10
    for address in list(rig.addresses.values()):
        rig.send(address)
    rig.link.run_for(0.01)
    # Six more fill it: the rest waits for its word.
    assert rig.modem._in_flight == 16
    assert rig.network._paused_until is not None
    assert rig.link.run_while(lambda: bool(rig.open_tokens), 600.0)
    assert rig.names["ApduSent"] == 24
