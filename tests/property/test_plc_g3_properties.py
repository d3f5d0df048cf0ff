"""The G3 driver, table and packets under any values, any chunking and a bad line."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_modem import G3Modem
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.virtual_link import NoisyLine
from plc.errors import MessageError
from plc.g3 import coordinator_commands, ib, ipv6
from plc.g3.commands import COMMANDS, ROWS
from plc.g3.coordinator import Coordinator
from plc.g3.messages import describe
from plc.usi.framing import encode_frame

from plc_rig import EchoDevice, Rig

KEY = b"never-to-be-seen"


def values_of(kind):
    if 0 < kind <= 4:
        return st.integers(0, (1 << (8 * kind)) - 1)
    if kind < 0:
        return st.binary(min_size=-kind, max_size=-kind)
    return st.binary(max_size=60)


@st.composite
def messages(draw, directions=("<", ">")):
    row = draw(st.sampled_from([row for row in ROWS if row[1] in directions]))
    fields = row[3] + (row[4] if draw(st.booleans()) else ())
    return row[0], {name: draw(values_of(kind)) for name, kind in fields}


@given(messages())
def test_every_command_round_trips(message):
    command, values = message
    decoded = COMMANDS.decode(COMMANDS.encode(command, **values))
    assert {name: value for name, value in decoded.values.items() if value is not None} == values


@given(st.sampled_from(coordinator_commands.ROWS), st.data())
def test_every_command_of_the_older_coordinator_round_trips(row, data):
    values = {name: data.draw(values_of(kind)) for name, kind in row[3] + row[4]}
    payload = coordinator_commands.COMMANDS.encode(row[0], **values)
    assert coordinator_commands.COMMANDS.decode(payload).values == values
    assert coordinator_commands.describe(payload)[0] == row[2]
    coordinator_commands.describe(payload[:-1])


@given(st.binary(max_size=80), st.booleans())
def test_any_payload_decodes_or_is_refused(payload, from_host):
    with contextlib.suppress(MessageError):
        COMMANDS.decode(payload)
    name, fields = describe(payload, from_host)
    assert name
    assert all(isinstance(text, str) for field in fields for text in field)


@given(st.integers(0, 0xFFFE), st.integers(0, 0x7FFF), st.binary(max_size=300), st.integers(0, 0xFFFF))
def test_packets_round_trip(pan_id, address, data, port):
    source = ipv6.link_local_address(pan_id, address)
    destination = ipv6.link_local_address(pan_id, 0)
    packet = ipv6.encode_udp(source, destination, port, 4059, data)
    assert ipv6.decode_udp(packet) == (source, destination, port, 4059, data)
    assert ipv6.short_address_of(source, pan_id) == address


@given(st.binary(max_size=120))
def test_any_packet_decodes_or_is_refused(octets):
    for decode in (ipv6.decode_udp, ipv6.decode_wrapper):
        with contextlib.suppress(MessageError):
            decode(octets)
    for layer, attribute, _ in ib.RECORDS:
        with contextlib.suppress(MessageError):
            ib.decode_record(layer, attribute, octets)


def events_of(chunks):
    network = Coordinator(0x781D, KEY, KEY, known_addresses={bytes(8): 1})
    network.start(0.0)
    events = []
    for chunk in chunks:
        network.receive_data(chunk, 0.0)
        network.data_to_send()
        while (event := network.next_event()) is not None:
            events.append(repr(event))
    assert KEY.hex() not in str(events)
    return events, network.counters


@given(st.lists(messages(("<",)), max_size=8), st.lists(st.integers(0, 5000), max_size=10))
def test_any_chunking_gives_the_same_events(sent, cuts):
    payloads = [COMMANDS.encode(command, **values) for command, values in sent]
    wire = b"".join(encode_frame(0x25, payload) for payload in payloads)
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    whole = events_of([wire])
    assert events_of([wire[start:end] for start, end in itertools.pairwise(edges)]) == whole
    assert events_of([bytes([octet]) for octet in wire]) == whole


@given(st.lists(st.tuples(st.floats(0, 50), st.binary(max_size=40) | messages()), max_size=20))
def test_nothing_that_a_modem_sends_breaks_the_driver(script):
    network = Coordinator(0x781D, KEY, KEY, known_addresses={bytes(8): 1})
    now = 0.0
    network.start(now)
    for pause, part in script:
        now += pause
        due = network.next_timeout()
        if due is not None and due <= now:
            network.handle_timeout(now)
            assert network.next_timeout() is None or network.next_timeout() > now
        if isinstance(part, tuple):
            part = encode_frame(0x25, COMMANDS.encode(part[0], **part[1]))
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
    feeder = Feeder(10, seed, G3_CENELEC_A_PHY, steady=True)
    modem = G3Modem([EchoDevice(number) for number in range(10)], scheduler, feeder, seed)
    network = Coordinator(0x781D, KEY, KEY, data_confirm_timeout_s=30.0, refresh_interval_s=120.0)
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
    members = {node.device.eui64: node.short_address for node in modem._nodes if modem._is_member(node)}
    assert rig.addresses == members
    assert len(members) == 10
    assert rig.poll_all() == 10
