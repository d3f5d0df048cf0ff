"""S-FSK under any values, any chunking, any octets and a bad line."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.simulator.feeder import SFSK_PHY, Feeder
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.sfsk_modem import SfskModem
from concentrator.simulator.virtual_link import NoisyLine
from plc.commands import U16_LITTLE
from plc.errors import MessageError
from plc.sfsk import ciase, llc, mac
from plc.sfsk.commands import COMMANDS, ROWS
from plc.sfsk.framing import LARGEST_PAYLOAD, LocalFrameDecoder, encode_local_frame
from plc.sfsk.initiator import Initiator
from plc.sfsk.messages import apdu_of, describe

from plc_rig import EchoDevice, Rig

TITLE = b"ODC\x00\x00\x00\x00\x01"
titles = st.binary(min_size=8, max_size=8)
octet = st.integers(0, 255)


def values_of(kind):
    if kind == U16_LITTLE:
        return st.integers(0, 0xFFFF)
    if 0 < kind <= 4:
        return st.integers(0, (1 << (8 * kind)) - 1)
    return st.binary(max_size=60)


@st.composite
def messages(draw, directions=("<", ">")):
    row = draw(st.sampled_from([row for row in ROWS if row[1] in directions]))
    return row[0], {name: draw(values_of(kind)) for name, kind in row[3] + row[4]}


@given(messages())
def test_every_command_round_trips(message):
    command, values = message
    decoded = COMMANDS.decode(COMMANDS.encode(command, **values))
    assert decoded.values == values


@given(st.binary(max_size=80))
def test_any_payload_decodes_or_is_refused(payload):
    for decode in (
        COMMANDS.decode,
        mac.decode_mac_frame,
        llc.decode_llc,
        ciase.describe_ciase,
        ciase.decode_clear_alarm,
    ):
        with contextlib.suppress(MessageError):
            decode(payload)
    name, fields = describe(payload)
    assert name
    assert all(isinstance(text, str) for field in fields for text in field)
    apdu_of(payload)


@given(
    st.integers(0, 0xFFF),
    st.integers(0, 0xFFF),
    st.binary(max_size=mac.LARGEST_SDU),
    st.integers(0, 7),
    st.integers(0, 7),
    st.integers(0, 3),
)
def test_mac_frames_round_trip(source, destination, sdu, initial, current, delta):
    frame = mac.decode_mac_frame(mac.MacFrame(source, destination, sdu, initial, current, delta).to_bytes())
    assert (frame.source, frame.destination, frame.sdu) == (source, destination, sdu)
    assert (frame.initial_credit, frame.current_credit, frame.delta_credit) == (initial, current, delta)


@given(
    st.lists(st.tuples(titles, st.none() | octet), max_size=20),
    st.lists(st.tuples(titles, octet), max_size=20),
)
def test_lists_of_ciase_round_trip(systems, pairs):
    # A title of eight octets that reads like one of six with an alarm cannot be told apart; eight is tried first.
    assert ciase.decode_discover_report(ciase.encode_discover_report(systems)) == systems
    assert ciase.decode_register_request(ciase.encode_register_request(TITLE, pairs)) == (TITLE, pairs)
    if pairs:
        assert ciase.decode_clear_alarm(ciase.encode_clear_alarm_by_server(pairs)) == pairs


@given(
    st.lists(st.binary(min_size=1, max_size=LARGEST_PAYLOAD), max_size=5),
    st.lists(st.integers(0, 2000), max_size=9),
)
def test_local_frames_in_any_chunking(payloads, cuts):
    wire = b"".join(encode_local_frame(payload) for payload in payloads)
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    decoder = LocalFrameDecoder()
    for start, end in itertools.pairwise(edges):
        decoder.receive_data(wire[start:end])
    found = []
    while (frame := decoder.next_frame()) is not None:
        found.append(frame[1])
    assert found == payloads


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=60))
def test_a_frame_is_found_behind_any_garbage(garbage, payload):
    decoder = LocalFrameDecoder()
    decoder.receive_data(garbage)
    decoder.give_up()
    while decoder.next_frame() is not None:
        pass
    decoder.receive_data(encode_local_frame(payload))
    assert decoder.next_frame() == (0, payload)


def events_of(chunks):
    network = Initiator(TITLE, {b"ABCDEFGH": 1})
    network.start(0.0)
    events = []
    for chunk in chunks:
        network.receive_data(chunk, 0.0)
        network.data_to_send()
        while (event := network.next_event()) is not None:
            events.append(repr(event))
    return events, network.counters


@given(st.lists(messages(("<",)), max_size=8), st.lists(st.integers(0, 5000), max_size=10))
def test_any_chunking_gives_the_same_events(sent, cuts):
    wire = b"".join(encode_local_frame(COMMANDS.encode(command, **values)) for command, values in sent)
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    whole = events_of([wire])
    assert events_of([wire[start:end] for start, end in itertools.pairwise(edges)]) == whole
    assert events_of([bytes([one]) for one in wire]) == whole


@given(st.lists(st.tuples(st.floats(0, 50), st.binary(max_size=40) | messages()), max_size=20))
def test_nothing_that_a_modem_sends_breaks_the_driver(script):
    network = Initiator(TITLE, {b"ABCDEFGH": 1})
    now = 0.0
    network.start(now)
    for pause, part in script:
        now += pause
        due = network.next_timeout()
        if due is not None and due <= now:
            network.handle_timeout(now)
            assert network.next_timeout() is None or network.next_timeout() > now
        if isinstance(part, tuple):
            part = encode_local_frame(COMMANDS.encode(part[0], **part[1]))
        network.receive_data(part, now)
        network.data_to_send()
        while network.next_event() is not None:
            pass
    assert network.next_timeout() is not None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1_000_000))
def test_one_percent_of_loss_and_garbage_is_recovered(seed):
    scheduler = VirtualScheduler()
    line = NoisyLine(loss=0.01, garbage=0.01, seed=seed)
    feeder = Feeder(8, seed, SFSK_PHY, steady=True)
    modem = SfskModem([EchoDevice(number) for number in range(8)], scheduler, feeder, seed)
    network = Initiator(TITLE, data_confirm_timeout_s=5.0, refresh_interval_s=120.0, search_interval_s=60.0)
    rig = Rig(network, modem, scheduler, line=line)
    rig.network.start(0.0)
    modem.start()
    rig.link.run_for(1500.0)
    for _ in range(2):
        for address in list(rig.addresses.values()):
            rig.send(address)
        assert rig.link.run_while(lambda: bool(rig.open_tokens), 2000.0)
    line.loss = line.garbage = 0.0
    rig.link.run_for(2400.0)
    assert rig.addresses == modem.addresses()
    assert len(rig.addresses) == 8
    assert rig.poll_all() == 8
