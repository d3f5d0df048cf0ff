"""Two ends of an HDLC connection, with a line between them that loses and garbles frames by plan."""

import random

import pytest

from concentrator.dlms.errors import EncodeError, LinkLostError
from concentrator.dlms.hdlc import FrameType, HdlcAddress, HdlcDecoder, HdlcFrame
from concentrator.dlms.hdlc_link import (
    ApduReceived,
    HdlcClientLink,
    HdlcParameters,
    HdlcServerLink,
    LinkConnected,
    LinkDisconnected,
)

CLIENT, SERVER = HdlcAddress.client(16), HdlcAddress.server(1, 17)


def ends(length=128, window=1):
    parameters = HdlcParameters(length, length, window, window)
    return HdlcClientLink(CLIENT, SERVER, parameters, attempts=20), HdlcServerLink(CLIENT, SERVER, parameters)


def drain(link):
    events = []
    while (event := link.next_event()) is not None:
        events.append(event)
    return events


def exchange(client, server, damage=lambda data: data, rounds=400, answer=b""):
    """Carry octets both ways until it is quiet; a silent line is a time-out of the client."""
    heard = [], []
    for _ in range(rounds):
        down, up = damage(client.data_to_send()), damage(server.data_to_send())
        if down:
            server.receive_data(down)
        if up:
            client.receive_data(up)
        heard[0].extend(drain(client))
        events = drain(server)
        heard[1].extend(events)
        if answer and any(isinstance(event, ApduReceived) for event in events):
            server.send_apdu(answer)
        if not down and not up and not server._outgoing:
            if answer and heard[0]:
                break
            if client.connected and not client._unacknowledged and not server._unacknowledged:
                break
            client.handle_timeout()
    return heard


@pytest.mark.parametrize("window", [1, 3, 7])
@pytest.mark.parametrize("length", [32, 128, 500])
def test_long_apdus_both_ways(length, window):
    client, server = ends(length, window)
    client.connect()
    assert [type(event) for event in exchange(client, server)[0]] == [LinkConnected]
    question, answer = bytes(range(256)) * 3, bytes(reversed(range(256))) * 9
    client.send_apdu(question)
    heard = exchange(client, server, answer=answer)
    assert heard[1][-1:] == [ApduReceived(question)]
    assert heard[0] == [ApduReceived(answer)]
    client.disconnect()
    assert any(isinstance(event, LinkDisconnected) for event in exchange(client, server, rounds=3)[0])
    assert client.repetitions == 0


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("seed", range(6))
def test_lost_and_garbled_frames_are_repeated_not_doubled(seed, window):
    chance = random.Random(seed)

    def damage(data):
        if not data or chance.random() > 0.2:
            return data
        broken = bytearray(data)
        broken[chance.randrange(len(broken))] ^= 0x55
        return bytes(broken) if chance.random() < 0.5 else b""

    client, server = ends(64, window)
    client.connect()
    exchange(client, server, damage)
    assert client.connected
    for number in range(3):
        question = bytes([number]) * 500
        client.send_apdu(question)
        assert [event.apdu for event in exchange(client, server, damage)[1]] == [question]
        answer = bytes([number + 100]) * 700
        server.send_apdu(answer)
        assert [event.apdu for event in exchange(client, server, damage)[0]] == [answer]
    assert client.repetitions + server.repetitions > 0


def test_a_dead_line_is_said_to_be_dead():
    client, _ = ends()
    client.connect()
    for _ in range(19):
        client.handle_timeout()
    with pytest.raises(LinkLostError, match="no answer"):
        client.handle_timeout()
    with pytest.raises(EncodeError, match="not connected"):
        client.send_apdu(b"\xc0")


def test_pushes_come_without_a_connection():
    client, server = ends()
    server.send_unsolicited(b"\x0f" * 300)
    client.receive_data(server.data_to_send())
    assert drain(client) == [ApduReceived(b"\x0f" * 300, unsolicited=True)]


def test_parameters_in_one_or_two_octets_and_none():
    assert HdlcParameters.from_bytes(b"") == HdlcParameters()
    for parameters in (HdlcParameters(), HdlcParameters(1000, 300, 3, 7)):
        assert HdlcParameters.from_bytes(parameters.to_bytes()) == parameters
    foreign = bytes.fromhex("8180140502008006020080070400000001080400000001")
    assert HdlcParameters.from_bytes(foreign) == HdlcParameters()


# Odd peers


def frames(octets):
    decoder = HdlcDecoder()
    decoder.receive_data(octets)
    found = []
    while frame := decoder.next_event():
        found.append(frame)
    return found


def sent(link):
    return frames(link.data_to_send())


def connected(length=128, window=1):
    client, server = ends(length, window)
    client.connect()
    exchange(client, server)
    assert client.connected
    return client, server


def from_server(kind, **fields):
    return HdlcFrame(CLIENT, SERVER, kind, **fields).to_bytes()


def test_a_meter_that_is_not_ready_is_asked_until_it_is():
    client, server = connected(window=3)
    client.send_apdu(bytes(300))
    (first, *_) = sent(client)
    client.receive_data(from_server(FrameType.RNR, receive=1))
    assert sent(client) == []
    for _ in range(3):
        client.handle_timeout()
        assert [(frame.type, frame.poll_final) for frame in sent(client)] == [(FrameType.RR, True)]
        client.receive_data(from_server(FrameType.RNR, receive=1))
    client.receive_data(from_server(FrameType.RR, receive=1))
    again = sent(client)
    assert [frame.send for frame in again] == [1, 2]
    assert first.send == 0
    server.receive_data(first.to_bytes() + b"".join(frame.to_bytes() for frame in again))
    assert drain(server)[-1] == ApduReceived(bytes(300))


def test_a_rejected_frame_and_those_after_it_go_again():
    client, server = connected(length=32, window=4)
    client.send_apdu(bytes(range(200)))
    out = sent(client)
    assert [frame.send for frame in out] == [0, 1, 2, 3]
    lossy = [frame for frame in out if frame.send != 2]
    server.receive_data(b"".join(frame.to_bytes() for frame in lossy))
    (reject,) = sent(server)
    assert (reject.type, reject.receive) == (FrameType.REJ, 2)
    client.receive_data(reject.to_bytes())
    assert [frame.send for frame in sent(client)] == [2, 3]
    assert drain(server) == []


def test_a_window_whose_final_bit_is_forgotten_is_acknowledged():
    client, _ = connected(window=1)
    first = from_server(FrameType.I, poll_final=False, segmented=True, information=b"\xe6\xe7\x00\xc4")
    client.receive_data(first)
    assert [(frame.type, frame.receive) for frame in sent(client)] == [(FrameType.RR, 1)]
    last = from_server(FrameType.I, send=1, information=b"\x01")
    client.receive_data(last)
    assert drain(client) == [ApduReceived(b"\xc4\x01")]


@pytest.mark.parametrize("refusal", [FrameType.DM, FrameType.FRMR])
def test_a_meter_that_refuses_parameters_is_called_without(refusal):
    client, _ = ends(length=500, window=3)
    client.connect()
    (call,) = sent(client)
    assert call.information
    client.receive_data(from_server(refusal))
    (call,) = sent(client)
    assert (call.type, call.information) == (FrameType.SNRM, b"")
    client.receive_data(from_server(FrameType.UA))
    assert [type(event) for event in drain(client)] == [LinkConnected]
    client.send_apdu(bytes(200))
    assert len(sent(client)[0].information) == 128


def test_a_meter_that_refuses_altogether_is_said_to():
    client, _ = ends()
    client.connect()
    sent(client)
    client.receive_data(from_server(FrameType.DM))
    assert drain(client) == [LinkDisconnected("refused")]


def test_a_frame_that_is_too_long_is_rejected_and_the_reason_told():
    client, server = connected()
    long = HdlcFrame(SERVER, CLIENT, FrameType.I, information=b"\xe6\xe6\x00" + bytes(500))
    server.receive_data(long.to_bytes())
    (reject,) = sent(server)
    assert reject.type == FrameType.FRMR
    assert drain(server)[-1] == LinkDisconnected("the client sent a frame that is too long")
    client.receive_data(reject.to_bytes())
    assert drain(client) == [
        LinkDisconnected("the meter rejected a frame: its information field is too long")
    ]


def test_a_server_says_that_it_is_not_connected_only_when_asked():
    _, server = ends()
    for final, answers in ((False, []), (True, [FrameType.DM])):
        server.receive_data(HdlcFrame(SERVER, CLIENT, FrameType.RR, final).to_bytes())
        assert [frame.type for frame in sent(server)] == answers
    server.receive_data(HdlcFrame(SERVER, CLIENT, FrameType.DISC).to_bytes())
    assert [frame.type for frame in sent(server)] == [FrameType.DM]


@pytest.mark.parametrize(
    "address", [HdlcAddress.server(1), HdlcAddress.server(1, 17), HdlcAddress.server(1, 300)], ids=str
)
def test_a_broadcast_reaches_every_device_and_nobody_answers(address):
    client = HdlcClientLink(CLIENT, address)
    server = HdlcServerLink(CLIENT, address)
    other = HdlcServerLink(CLIENT, HdlcAddress.server(5, address.lower, address.size))
    client.broadcast(bytes(300))
    octets = client.data_to_send()
    assert all(frame.destination.is_broadcast and not frame.poll_final for frame in frames(octets))
    for link in (server, other):
        link.receive_data(octets)
        assert drain(link) == [ApduReceived(bytes(300), unsolicited=True)]
        assert sent(link) == []
    foreign = HdlcFrame(
        HdlcAddress.server(9, address.lower, address.size), CLIENT, FrameType.UI, information=b"x"
    )
    server.receive_data(foreign.to_bytes())
    assert drain(server) == []


@pytest.mark.parametrize(
    "address", [HdlcAddress.server(1), HdlcAddress.server(1, 17), HdlcAddress.server(300, 16381)], ids=str
)
@pytest.mark.parametrize("window", [1, 5, 7])
def test_addresses_of_every_size_with_every_window(address, window):
    parameters = HdlcParameters(64, 64, window, window)
    client = HdlcClientLink(CLIENT, address, parameters)
    server = HdlcServerLink(CLIENT, address, parameters)
    client.connect()
    exchange(client, server)
    for number in range(5):
        client.send_apdu(bytes([number]) * 900)
        heard = exchange(client, server, answer=bytes([number]) * 1100)
        assert heard[1] == [ApduReceived(bytes([number]) * 900)]
        assert heard[0] == [ApduReceived(bytes([number]) * 1100)]
    assert client.repetitions == server.repetitions == 0


@pytest.mark.parametrize(
    ("granted", "size", "window"),
    [
        ("", 128, 1),
        ("818000", 128, 1),
        ("8180 06 05 02 0040 06 01 20", 32, 1),
        ("8180 0c 07 04 00000009 08 04 00000000", 128, 1),
        ("8180 0e 05 02 0400 06 02 0400 07 01 07 08 01 07", 500, 7),
        ("8180 03 09 01 01", 128, 1),
        ("ffff", 128, 1),
    ],
)
def test_what_odd_meters_grant(granted, size, window):
    client, _ = ends(length=500, window=7)
    client.connect()
    sent(client)
    client.receive_data(from_server(FrameType.UA, information=bytes.fromhex(granted)))
    assert client.connected
    client.send_apdu(bytes(5000))
    out = sent(client)
    assert {len(frame.information) for frame in out} == {size}
    assert len(out) == window
