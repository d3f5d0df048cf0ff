"""The PRIME driver under any chunking, any octets and a bad line; its table under any values."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from concentrator.simulator.feeder import Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.scheduler import VirtualScheduler
from concentrator.simulator.virtual_link import NoisyLine
from plc import commands as kinds
from plc.errors import MessageError
from plc.prime import mngp, pib
from plc.prime.base_node import BaseNode
from plc.prime.commands import COMMANDS, ROWS
from plc.prime.messages import describe
from plc.usi.framing import encode_frame

from plc_rig import EchoDevice, Rig


def values_of(kind):
    if 0 < kind <= 4:
        return st.integers(0, (1 << (8 * kind)) - 1)
    if kind < 0:
        return st.binary(min_size=-kind, max_size=-kind)
    if kind == kinds.MAC_THEN_1:
        return st.sampled_from([6, 8]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
    return st.binary(max_size=40)


@st.composite
def messages(draw, directions=(">", "<", "-")):
    row = draw(st.sampled_from([row for row in ROWS if row[1] in directions]))
    fields = row[3] + (row[4] if draw(st.booleans()) else ())
    return row[0], {name: draw(values_of(kind)) for name, kind in fields}


@given(messages())
def test_every_command_round_trips(message):
    command, values = message
    decoded = COMMANDS.decode(COMMANDS.encode(command, **values))
    assert decoded.command == command
    assert {name: value for name, value in decoded.values.items() if value is not None} == values


@given(st.binary(max_size=60), st.booleans())
def test_any_payload_decodes_or_is_refused(payload, from_host):
    with contextlib.suppress(MessageError):
        COMMANDS.decode(payload)
    name, fields = describe(payload, from_host)
    assert name
    assert all(isinstance(text, str) for field in fields for text in field)


@given(st.sampled_from([row[0] for row in pib.RECORDS]), st.binary(max_size=120))
def test_any_records_decode(attribute, octets):
    assert len(pib.decode_records(attribute, octets)) == len(octets) // pib.record_size(attribute)


@given(st.integers(0, 7), st.binary(max_size=80))
def test_any_mngp_body_is_described(protocol, body):
    name, fields = mngp.describe(protocol, body)
    assert name
    assert all(isinstance(text, str) for field in fields for text in field)


def events_of(chunks):
    network = BaseNode()
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
    wire = b"".join(encode_frame(0x30, COMMANDS.encode(command, **values)) for command, values in sent)
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    whole = events_of([wire])
    assert events_of([wire[start:end] for start, end in itertools.pairwise(edges)]) == whole
    assert events_of([bytes([octet]) for octet in wire]) == whole


@given(st.lists(st.tuples(st.floats(0, 50), st.binary(max_size=40) | messages()), max_size=20))
def test_nothing_that_a_modem_sends_breaks_the_driver(script):
    network = BaseNode()
    now = 0.0
    network.start(now)
    for pause, part in script:
        now += pause
        due = network.next_timeout()
        if due is not None and due <= now:
            network.handle_timeout(now)
            assert network.next_timeout() is None or network.next_timeout() > now
        if isinstance(part, tuple):
            part = encode_frame(0x30, COMMANDS.encode(part[0], **part[1]))
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
    modem = PrimeModem(
        [EchoDevice(number) for number in range(12)], scheduler, Feeder(12, seed, steady=True), seed
    )
    rig = Rig(BaseNode(data_confirm_timeout_s=5.0, refresh_interval_s=60.0), modem, scheduler, line=line)
    rig.network.start(0.0)
    modem.start()
    rig.link.run_for(200.0)
    for _ in range(3):
        for address in list(rig.addresses.values()):
            rig.send(address)
        assert rig.link.run_while(lambda: bool(rig.open_tokens), 2000.0)
    line.loss = line.garbage = 0.0
    rig.link.run_for(150.0)
    assert rig.addresses == {node.device.eui48: node.address for node in modem._nodes if node.connected}
    assert len(rig.addresses) == 12
    assert rig.poll_all() == 12
