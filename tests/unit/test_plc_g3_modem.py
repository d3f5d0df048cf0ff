"""Coordinator and the simulated G3 modem, in virtual time."""

from __future__ import annotations

from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.virtual_link import NoisyLine
from plc.g3 import commands
from plc.g3.commands import COMMANDS
from plc.g3.coordinator import Coordinator
from plc.network import LinkQualityReported, NodeDeclined, ShortAddressAssigned
from plc.usi.framing import FrameDecoder, encode_frame

from plc_rig import EchoDevice, Rig

PSK = b"PSK-secret-octet"
GMK = b"GMK-secret-octet"
EUI = bytes.fromhex("0080E1FFFE000000")


def make_rig(count, seed=1, loss=0.0, steady=True, line=None, modem_options=None, **network_options):
    scheduler = VirtualScheduler()
    devices = [EchoDevice(number) for number in range(count)]
    feeder = Feeder(count, seed, G3_CENELEC_A_PHY, loss=loss, steady=steady)
    modem = G3Modem(devices, scheduler, feeder, seed, **{"device_psk": PSK, **(modem_options or {})})
    options = {} if line is None else {"line": line}
    network_options.setdefault("eui64", EUI)
    return Rig(Coordinator(0x781D, PSK, GMK, **network_options), modem, scheduler, **options)


def start(rig, seconds=400.0):
    rig.network.start(rig.link.now())
    rig.modem.start()
    rig.link.run_for(seconds)


def truth(rig):
    return {node.device.eui64: node.short_address for node in rig.modem._nodes if rig.modem._is_member(node)}


def test_a_hundred_meters_join_and_answer():
    rig = make_rig(100)
    start(rig)
    assert rig.addresses == truth(rig)
    assert len(rig.addresses) == 100
    assert rig.names["ShortAddressAssigned"] == 100
    assert set(rig.identities.values()) == {""}
    assert rig.poll_all() == 100
    assert {answer[1:] for answer in rig.answers} == {(1, 16, b"echo request")}
    assert rig.modem._eui64 == EUI
    assert rig.modem.counters.refused_commands == 2  # the question whether a network runs already


def test_addresses_survive_a_restart_of_the_product():
    rig = make_rig(20)
    assigned = {}
    take = rig.take

    def note(event, now):
        if isinstance(event, ShortAddressAssigned):
            assigned[event.eui] = event.address
        take(event, now)

    rig.link._on_event = note
    start(rig)
    assert assigned == rig.addresses
    joins = rig.modem.counters.joins
    again = Rig(Coordinator(0x781D, PSK, GMK, known_addresses=assigned), rig.modem, rig.link._scheduler)
    again.network.start(rig.link.now())
    again.link.run_for(30.0)
    assert again.addresses == assigned
    assert again.poll_all() == 20
    assert rig.modem.counters.joins == joins


def test_whitelist():
    allowed = {EchoDevice(number).eui64 for number in range(0, 10, 2)}
    rig = make_rig(10, allowed=allowed)
    declined = set()
    take = rig.take

    def note(event, now):
        if isinstance(event, NodeDeclined):
            declined.add(event.eui)
        take(event, now)

    rig.link._on_event = note
    start(rig, 2000.0)
    assert set(rig.addresses) <= allowed
    # A device behind a declined one finds no agent, and does not ask.
    assert declined
    assert not declined & allowed


def test_devices_with_another_psk_stay_outside():
    rig = make_rig(5, modem_options={"device_psk": bytes(16)})
    start(rig)
    assert rig.addresses == {}
    assert rig.modem.counters.failed_authentications > 0


def test_silent_restart_of_the_modem():
    rig = make_rig(30)
    start(rig)
    joins = rig.modem.counters.joins
    rig.modem.restart()
    rig.send(next(iter(rig.addresses.values())))
    rig.link.run_for(60.0)
    assert rig.reasons == ["started", "the modem restarted: it is not initialised", "started"]
    assert rig.poll_all() == 30
    assert rig.modem.counters.joins == joins


def test_silent_restart_is_found_without_traffic():
    rig = make_rig(5)
    start(rig)
    rig.modem.restart()
    rig.link.run_for(100.0)
    assert len(rig.reasons) == 3
    assert rig.poll_all() == 5


def test_a_device_that_drops_and_returns():
    rig = make_rig(10, refresh_interval_s=300.0)
    start(rig)
    eui = next(node.device.eui64 for node in rig.modem._nodes if node.place.level == 0)
    address = rig.addresses[eui]
    rig.modem.drop(eui, duration_s=200.0)
    rig.send(address)
    rig.link.run_for(100.0)
    assert eui not in rig.addresses
    rig.link.run_for(900.0)
    assert rig.addresses[eui] == address
    assert rig.poll_all() == 10


def test_a_device_that_was_away_for_long_joins_anew_with_its_address():
    rig = make_rig(10)
    start(rig)
    eui = next(iter(rig.addresses))
    address = rig.addresses[eui]
    rig.modem.drop(eui, duration_s=7200.0)
    rig.link.run_for(8000.0)
    assert rig.addresses[eui] == address
    assert rig.modem.counters.joins == 11
    assert rig.poll_all() == 10


def test_leave_and_expel():
    rig = make_rig(6)
    start(rig)
    first, second, *_ = rig.addresses
    rig.modem.leave(first)
    rig.network.expel(second, rig.link.now())
    rig.link.run_for(30.0)
    assert first not in rig.addresses
    assert second not in rig.addresses
    # One that was kicked may ask again; one that has left does not.
    rig.link.run_for(600.0)
    assert second in rig.addresses
    assert first not in rig.addresses


def test_routes_are_reported_as_they_are():
    rig = make_rig(60, seed=2)
    reports = {}
    take = rig.take

    def note(event, now):
        if isinstance(event, LinkQualityReported):
            reports[event.eui] = event
        take(event, now)

    rig.link._on_event = note
    start(rig, 900.0)
    rig.poll_all()
    rig.network.refresh(rig.link.now())
    rig.link.run_for(20.0)
    assert any(node.place.level for node in rig.modem._nodes)
    for node in rig.modem._nodes:
        path = node.place.path()
        assert reports[node.device.eui64].hops == len(path)
        first = rig.modem._by_place[path[0].index].device.eui64
        assert reports[node.device.eui64].parent == (None if len(path) == 1 else first)


def test_a_bad_serial_line_is_survived():
    line = NoisyLine(loss=0.01, garbage=0.01, seed=9)
    rig = make_rig(20, line=line, data_confirm_timeout_s=30.0, refresh_interval_s=120.0)
    start(rig, 3000.0)
    for _ in range(3):
        for address in list(rig.addresses.values()):
            rig.send(address)
        assert rig.link.run_while(lambda: bool(rig.open_tokens), 3000.0)
    line.loss = line.garbage = 0.0
    rig.link.run_for(2400.0)
    assert rig.addresses == truth(rig)
    assert len(rig.addresses) == 20
    assert rig.poll_all() == 20


def test_a_day_with_drops_loses_no_request():
    rig = make_rig(60, seed=4, steady=False, loss=0.02)
    start(rig, 1800.0)
    answered = asked = 0
    for _ in range(24):
        asked += len(rig.addresses)
        answered += rig.poll_all(3000.0)
        rig.link.run_for(3000.0)
    assert rig.names["ModemLost"] == 0
    assert rig.modem.counters.drops > 50
    assert asked > 24 * 60 * 0.6
    assert answered > 0.85 * asked
    assert set(rig.addresses.values()) <= {node.short_address for node in rig.modem._nodes}


def test_same_seed_same_day():
    def day():
        rig = make_rig(20, seed=3, loss=0.05, steady=False)
        start(rig, 3600.0)
        rig.poll_all()
        return rig.names, rig.answers, rig.modem.counters

    assert day() == day()


# The modem octet by octet.


def ask(modem, scheduler, payload, wait_s=1.0):
    sent = bytearray()
    modem.output = sent.extend
    modem.receive_data(encode_frame(0x25, payload))
    scheduler.run_for(wait_s)
    decoder = FrameDecoder()
    decoder.receive_data(bytes(sent))
    frames = []
    while (frame := decoder.next_frame()) is not None:
        assert frame[0] == 0x25
        frames.append(frame[1])
    return frames


def test_start_up_on_the_wire():
    scheduler = VirtualScheduler()
    modem = G3Modem([EchoDevice(1)], scheduler, device_psk=PSK)
    assert ask(modem, scheduler, bytes.fromhex("170000005000 00".replace(" ", ""))) == [
        bytes.fromhex("000117")
    ]
    assert ask(modem, scheduler, bytes.fromhex("0A0001")) == [bytes.fromhex("00000A")]
    psk = COMMANDS.encode(commands.LBP_SET_REQUEST, attribute=2, index=0, value=PSK)
    assert ask(modem, scheduler, psk) == [bytes.fromhex("4600000000020000")]
    assert ask(modem, scheduler, psk[:-1]) == [bytes.fromhex("00033C")]
    assert ask(modem, scheduler, bytes.fromhex("0D781D"), 3.0) == [bytes.fromhex("2200")]
    assert ask(modem, scheduler, bytes.fromhex("17000000500000")) == [
        bytes.fromhex("2E00000000500000" + "02781D")
    ]
    assert ask(modem, scheduler, bytes.fromhex("120000000C0000")) == [bytes.fromhex("28A70000000C0000")]
    assert ask(modem, scheduler, bytes.fromhex("17 12345678 0000".replace(" ", "")))[0][:2] == bytes.fromhex(
        "2EF4"
    )
    modem.start()
    joined = ask(modem, scheduler, bytes.fromhex("120000000C0000"), 200.0)[1:]
    eui = EchoDevice(1).eui64
    assert joined == [b"\x47" + eui]
    assert ask(modem, scheduler, b"\x42" + eui + b"\x00\x01", 60.0) == [b"\x48" + eui + b"\x00\x01"]
    assert ask(modem, scheduler, bytes.fromhex("15000100"), 5.0) == [
        bytes.fromhex("2C00000100000001 01".replace(" ", "")) + bytes.fromhex("00010014000000") * 2
    ]


def test_whatever_comes_the_modem_stays():
    scheduler = VirtualScheduler()
    modem = G3Modem([EchoDevice(1)], scheduler)
    ask(modem, scheduler, bytes.fromhex("0A0001"))
    for command in range(128):
        for tail in (b"", b"\x00", bytes(12), b"\xff" * 40, b"\x00\x01\x00\x00\x00\x00"):
            ask(modem, scheduler, bytes([command]) + tail, 0.01)
    ask(modem, scheduler, bytes.fromhex("0A0001"))
    assert ask(modem, scheduler, bytes.fromhex("17000000500000"))
