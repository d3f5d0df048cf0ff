"""Conversations with meters that do not keep to the script: they recover, or end with the reason in words."""

import pytest

from concentrator.dlms import apdu, axdr
from concentrator.dlms.acse import ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu.get import GetResponseNormal
from concentrator.dlms.apdu.notification import DataNotification, EventNotification, ExceptionResponse
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import Client
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.errors import (
    AssociationEndedError,
    LinkLostError,
    ReplyTimeoutError,
    UnexpectedReplyError,
)
from concentrator.dlms.security import MemoryCounter

from dlms_peers import LONG, THING, Case, our_meter, our_settings
from dlms_talk import talk

PLAIN = Case(AuthenticationMechanism.NONE, "plain", 0)
GMAC = Case(AuthenticationMechanism.HLS_GMAC, "glo", 0)
VALUE = AttributeDescriptor(1, THING, 2)
NAME = AttributeDescriptor(1, THING, 1)


def associated(case=PLAIN, **more):
    server = our_meter(case)
    client = Client(our_settings(case, **more), MemoryCounter(1))
    talk(server, client.associate())
    return server, client


def wrong_invoke(reply, by=1):
    return reply[:2] + bytes((reply[2] ^ by,)) + reply[3:]


def test_answers_with_another_invoke_id_are_passed_over():
    server, client = associated()
    late = [wrong_invoke(GetResponseNormal(0xC1, b"\x11\x07").to_bytes(), n) for n in (1, 2, 4, 8)]
    assert talk(server, client.get(NAME), upset=lambda replies: [*late[1:], *replies]).octets() == bytes(
        THING
    )
    assert client.unrelated_replies == 3


def test_a_meter_that_only_ever_gives_another_invoke_id_is_told_apart_from_silence():
    server, client = associated()
    with pytest.raises(
        ReplyTimeoutError, match=r"no reply; instead came GetResponseNormal with invoke-id \d"
    ):
        talk(server, client.get(NAME), upset=lambda replies: [wrong_invoke(reply) for reply in replies])
    with pytest.raises(ReplyTimeoutError, match=r"^no reply$"):
        talk(server, client.get(NAME), lose=lambda _: True)
    with pytest.raises(UnexpectedReplyError, match="16 APDUs came, none of them the answer; the last was"):
        talk(server, client.get(NAME), upset=lambda replies: [wrong_invoke(reply) for reply in replies] * 40)


def test_a_burst_of_notifications_does_not_end_a_dialogue():
    server, client = associated()
    burst = [DataNotification(number, None, axdr.unsigned(number)).to_bytes() for number in range(100)]
    burst += [EventNotification(None, NAME, axdr.NULL).to_bytes()] * 50
    assert talk(server, client.get(VALUE), upset=lambda replies: [*burst, *replies]).octets() == LONG
    assert len(client.notifications) == 256
    burst *= 2
    with pytest.raises(UnexpectedReplyError, match="256 APDUs came unasked, and no answer"):
        talk(server, client.get(VALUE), upset=lambda _replies: burst)


@pytest.mark.parametrize("release", [ReleaseRequest(0), ReleaseResponse(0)], ids=["rlrq", "rlre"])
@pytest.mark.parametrize("case", [PLAIN, GMAC], ids=str)
def test_a_meter_that_releases_early_is_said_to(case, release):
    server, client = associated(case)
    with pytest.raises(AssociationEndedError, match="released the association"):
        talk(server, client.get(VALUE), upset=lambda _replies: [release.to_bytes()])
    assert not client.associated
    talk(server, client.associate())
    assert talk(server, client.get(VALUE)).octets() == LONG


def test_a_late_release_response_does_not_spoil_the_next_association():
    server, client = associated()
    late = ReleaseResponse(0).to_bytes()
    talk(server, client.release())
    talk(server, client.associate(), upset=lambda replies: [late, *replies])
    assert client.associated


def test_a_link_that_is_lost_is_said_to_be_lost_whatever_came_before():
    server, client = associated()
    conversation = client.get(NAME)
    (request,) = next(conversation)
    (reply,) = server.receive_apdu(16, 1, request)
    assert conversation.send(wrong_invoke(reply)) == ()
    with pytest.raises(LinkLostError, match="the port is gone"):
        conversation.throw(LinkLostError("the port is gone"))


def test_a_list_that_a_meter_answers_by_exception_is_read_one_by_one():
    server, client = associated()
    refused = []

    def refuse_lists(replies):
        if not refused:
            refused.extend(replies)
            return [ExceptionResponse(1, 4).to_bytes()]
        return replies

    first, second = talk(server, client.get_many([VALUE, NAME]), upset=refuse_lists)
    assert (first.octets(), second.octets()) == (LONG, bytes(THING))


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_what_the_conformance_allows_is_used_and_nothing_else(lists, blocks):
    wanted = Conformance.GET | Conformance.SET
    wanted |= Conformance.MULTIPLE_REFERENCES if lists else Conformance.NONE
    if blocks:
        wanted |= Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ | Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE
    server, client = associated(conformance=wanted)
    requests = []
    receive = server.receive_apdu

    def watch(client_sap, server_sap, octets):
        requests.append(octets[:2])
        return receive(client_sap, server_sap, octets)

    server.receive_apdu = watch
    short = [AttributeDescriptor(1, THING, 1)] * 3
    assert len(talk(server, client.get_many(short))) == 3
    assert (b"\xc0\x03" in requests) is lists
    if blocks:
        talk(server, client.set(VALUE, axdr.octet_string(bytes(2000))))
        assert talk(server, client.get(VALUE)).octets() == bytes(2000)
    assert (b"\xc1\x02" in requests) is blocks
    assert (b"\xc0\x02" in requests) is blocks
    assert client.max_send_size == 700


def test_noise_in_between_is_told_with_what_it_was():
    server, client = associated()
    with pytest.raises(apdu.DecodeError, match="octets"):
        talk(server, client.get(VALUE), upset=lambda _replies: [b"\xc4\x01"])
