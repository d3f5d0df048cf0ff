"""Two ends of an HDLC connection, with a line between them that loses and garbles frames by plan."""

import random

import pytest

from concentrator.dlms.errors import EncodeError, LinkLostError
from concentrator.dlms.hdlc import HdlcAddress
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
