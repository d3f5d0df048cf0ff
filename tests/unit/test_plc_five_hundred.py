"""Five hundred meters in virtual time: two days here, the whole week in benchmarks/plc_network.py."""

from __future__ import annotations

from collections import Counter

from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.scheduler import VirtualScheduler
from plc.g3.coordinator import Coordinator

from plc_rig import EchoDevice, Rig
from plc_truth import LargeNetwork


def test_two_days_of_five_hundred_prime_meters():
    large = LargeNetwork(500)
    large.run(days=2, polls_a_day=4)
    large.check()
    assert len(large.expelled) == 3
    assert len(large.rekeyed) == 3
    assert large.moved
    hours = large.topology.network_hours()[1:]
    assert 80 < sum(hour.percent for hour in hours) / len(hours) < 96
    assert Counter(change.what for node in large.topology.nodes() for change in node.changes)["moved"] > 0


def test_five_hundred_g3_meters_are_given_a_new_group_key():
    scheduler = VirtualScheduler()
    psk = b"PSK-secret-octet"
    feeder = Feeder(500, 2, G3_CENELEC_A_PHY, steady=True)
    modem = G3Modem([EchoDevice(number) for number in range(500)], scheduler, feeder, 2, device_psk=psk)
    rig = Rig(Coordinator(0x781D, psk, b"GMK-secret-octet", eui64=bytes(7) + b"\x01"), modem, scheduler)
    rig.network.start(0.0)
    modem.start()
    assert rig.link.run_while(lambda: len(rig.addresses) < 500, 7200.0)
    parents = {node.place.parent.index for node in modem._nodes if node.place.parent is not None}
    # Those behind a kicked router would be cut off with it.
    leaves = [node.device.eui64 for node in modem._nodes if node.place.index not in parents]
    kicked = leaves[::100][:5]
    for eui in kicked:
        rig.network.expel(eui, rig.link.now())
    rig.link.run_for(5.0)
    rig.network.set_allowed(set(rig.addresses), rig.link.now())
    rig.network.rotate_group_key(b"another-secret-k", rig.link.now())
    assert rig.link.run_while(lambda: rig.names["GroupKeyChanged"] == 0, 20_000.0)
    rig.link.run_for(600.0)
    assert rig.poll_all(3000.0) == 500 - len(kicked)
    assert set(rig.addresses) == modem.joined_euis()
    assert not set(kicked) & modem.joined_euis()
