"""The history of a PLC network: rules one by one, and a virtual week against the simulator's truth."""

from __future__ import annotations

import pytest

from concentrator.collection.topology import DAY_S, HOUR_S, Topology
from concentrator.links.aes import aes
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_modem_a import G3ModemA
from concentrator.simulator.scheduler import VirtualScheduler
from plc.g3.coordinator import Coordinator
from plc.network import LinkQualityReported, ModemLost, NetworkStarted, NodeJoined, NodeLeft
from plc.prime.base_node import BaseNode

from plc_rig import EchoDevice, Rig
from plc_truth import Truth, watched_prime_modem

A, B, C = (bytes([0, 0, 0, 0, 0, number]) for number in (1, 2, 3))
T = 1_700_006_400.0  # 2023-11-15 00:00:00 UTC


def fed(*events, end, **limits):
    topology = Topology(**limits)
    for at, event in events:
        topology.feed(event, T + at)
    topology.advance(T + end)
    return topology


def test_an_hour_and_a_day():
    topology = fed(
        (0, NetworkStarted(b"", "")),
        (0, NodeJoined(A, 1, "")),
        (900, NodeJoined(B, 2, "")),
        (1800, NodeJoined(B, 2, "")),  # told again: not a change
        (2700, NodeLeft(B, 2, "unregistered")),
        end=DAY_S,
    )
    first, *others = topology.network_hours()
    assert (first.start, first.mean, first.highest, first.lowest, first.total) == (T, 1.5, 2, 0, 2)
    assert first.percent == 75.0
    assert len(others) == 23
    assert {(hour.mean, hour.highest, hour.lowest, hour.up_minutes) for hour in others} == {(1.0, 1, 1, 60.0)}
    (day,) = topology.node_days(A)
    assert (day.start, day.available_minutes, day.changes, day.up_minutes, day.percent) == (
        T,
        1440,
        1,
        1440,
        100,
    )
    (day,) = topology.node_days(B)
    assert (day.available_minutes, day.changes) == (30, 2)
    assert [(change.at - T, change.what, change.why) for change in topology.node(B).changes] == [
        (900, "joined", "address 0x0002"),
        (2700, "left", "unregistered"),
    ]


def test_time_without_the_modem_counts_for_nobody():
    topology = fed(
        (0, NetworkStarted(b"", "")),
        (0, NodeJoined(A, 1, "")),
        (600, ModemLost("pulled")),
        (1200, NodeLeft(A, 1, "gone meanwhile")),
        (1800, NetworkStarted(b"", "")),
        (2400, NodeJoined(A, 1, "")),
        end=DAY_S,
    )
    hour = topology.network_hours()[0]
    assert hour.up_minutes == 40.0
    assert hour.mean == pytest.approx((600 + 1200) / 2400)
    (day,) = topology.node_days(A)
    assert day.up_minutes == 1440 - 20
    assert day.available_minutes == 1440 - 20 - 10


def test_moves_and_roles():
    topology = fed(
        (0, NetworkStarted(b"", "")),
        (0, NodeJoined(A, 1, "")),
        (0, NodeJoined(B, 2, "")),
        (1, LinkQualityReported(A, 1, None, level=0, role="terminal")),
        (2, LinkQualityReported(B, 2, None, level=0, role="terminal")),
        (3, LinkQualityReported(A, 1, None, level=0, role="switch")),
        (4, LinkQualityReported(B, 2, A, level=1, role="terminal", quality=7)),
        (5, LinkQualityReported(B, 2, A, level=1, role="terminal")),
        end=10,
    )
    node = topology.node(B)
    assert [(change.what, change.why) for change in node.changes][1:] == [
        ("moved", f"from the modem to {A.hex()}")
    ]
    assert (node.parent, node.level, node.quality) == (A, 1, 7)
    assert topology.node(A).changes[-1].why == "from terminal to switch"
    assert [child.eui for child in topology.children(A)] == [B]
    assert [child.eui for child in topology.children(None)] == [A]


def test_memory_is_bounded():
    topology = fed(
        (0, NetworkStarted(b"", "")), end=0, largest_network=2, changes_of_a_node=3, hours=5, days=2
    )
    for number in range(20):
        topology.feed(NodeJoined(A, 1, ""), T + number * HOUR_S)
        topology.feed(NodeLeft(A, 1, "x"), T + number * HOUR_S + 60)
    topology.feed(NodeJoined(B, 2, ""), T + 20 * HOUR_S)
    topology.feed(NodeJoined(C, 3, ""), T + 20 * HOUR_S)
    topology.advance(T + 10 * DAY_S)
    assert {node.eui for node in topology.nodes()} == {B, C}  # the one that was away made room
    assert len(topology.network_hours()) == 5
    assert len(topology.node_days(B)) == 2
    topology.feed(NodeJoined(A, 1, ""), T + 11 * DAY_S)
    for number in range(10):
        topology.feed(NodeLeft(A, 1, "x"), T + 11 * DAY_S + number)
        topology.feed(NodeJoined(A, 1, ""), T + 11 * DAY_S + number)
    assert len(topology.node(A).changes) == 3
    assert len(topology.nodes()) == 2
    assert topology.node_days(b"unknown") == []


def test_a_clock_that_is_set_back():
    topology = fed((0, NetworkStarted(b"", "")), (100, NodeJoined(A, 1, "")), end=200)
    topology.feed(NodeLeft(A, 1, "x"), T + 50)
    topology.advance(T + HOUR_S)
    assert topology.network_hours()[0].mean == pytest.approx(100 / HOUR_S)


# A week against the truth.


def test_a_week_of_prime_agrees_with_the_simulators_truth():
    scheduler = VirtualScheduler()
    truth = Truth(scheduler)
    count, days = 60, 7
    devices = [EchoDevice(number) for number in range(count)]
    modem = watched_prime_modem(truth, devices, scheduler, Feeder(count, 3), 3)
    rig = Rig(BaseNode(), modem, scheduler)
    topology = Topology()
    rig.link._on_event = lambda event, now: topology.feed(event, now)
    rig.network.start(0.0)
    modem.start()
    rig.link.run_until(days * DAY_S)
    topology.advance(scheduler.now())
    truth.close()
    hours = topology.network_hours()
    assert len(hours) == days * 24
    for hour in hours:
        assert hour.mean * hour.up_minutes * 60 == pytest.approx(truth.hours[hour.start // HOUR_S], abs=10)
    shares = [hour.percent for hour in hours[1:]]
    # As in the real network that the feeder follows.
    assert 80 < sum(shares) / len(shares) < 97
    assert min(shares) < 90
    moves = 0
    for node in modem.nodes:
        eui = node.device.eui48
        found = topology.node(eui)
        assert found.available == node.connected
        if node.connected:
            assert found.address == node.address
            assert found.level == node.place.level
            parent = node.place.parent
            truth_parent = None if parent is None else modem._by_place[parent.index].device.eui48
            assert found.parent == truth_parent
        for day in topology.node_days(eui):
            number = day.start // DAY_S
            assert day.available_minutes * 60 == pytest.approx(truth.days[eui, number], abs=5)
            assert day.changes == truth.comings[eui, number]
            moves += day.changes
    assert moves > 500


def test_days_of_g3_agree_but_for_what_g3_does_not_tell():
    scheduler = VirtualScheduler()
    count, days = 40, 3
    devices = [EchoDevice(number) for number in range(count)]
    feeder = Feeder(count, 3, G3_CENELEC_A_PHY)
    modem = G3ModemA(devices, scheduler, feeder, 3, device_psks=b"PSK-secret-octet")
    network = Coordinator(
        0x781D, b"PSK-secret-octet", b"GMK-secret-octet", generation="a", aes=aes, random=bytes
    )
    rig = Rig(network, modem, scheduler)
    topology = Topology()

    def take(event, now):
        topology.feed(event, now)
        rig.take(event, now)

    rig.link._on_event = take
    network.start(0.0)
    modem.start()
    rig.link.run_for(1800.0)
    sampled = seen = both = 0
    while scheduler.now() < days * DAY_S:
        for address in list(rig.addresses.values()):
            rig.send(address)
        rig.link.run_for(900.0)
        truth = {node.device.eui64 for node in modem._nodes if modem._reachable(node)}
        model = {node.eui for node in topology.nodes() if node.available}
        sampled += len(truth)
        seen += len(model)
        both += len(truth & model)
    # G3 nodes do not say that they go: the polls find it out, and the searches that they are back.
    assert both / sampled > 0.9
    assert both / seen > 0.9
    assert len(topology.network_hours()) >= days * 24 - 1
    away = [node for node in modem._nodes if node.place.availability < 0.9]
    steady = [node for node in modem._nodes if node.place.availability > 0.995 and node.place.parent is None]
    mean = {
        node.device.eui64: sum(day.percent for day in topology.node_days(node.device.eui64)) / days
        for node in modem._nodes
    }
    assert max(mean[node.device.eui64] for node in away) < min(mean[node.device.eui64] for node in steady)
