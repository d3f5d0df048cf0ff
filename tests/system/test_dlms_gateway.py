"""Meters behind a gateway: our client and Gurux's through our gateway, and what it says when it cannot."""

import asyncio

import pytest

from concentrator.dlms import apdu, axdr
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.protection import GatewayApdu
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import Client
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.errors import ReplyTimeoutError, ServiceRefusedError, UnexpectedReplyError
from concentrator.dlms.gateway import (
    ApduTooLongError,
    DeviceBusyError,
    GatewayAddress,
    UnknownDeviceError,
    relay_async,
)
from concentrator.dlms.hdlc_link import HdlcParameters
from concentrator.dlms.security import MemoryCounter
from concentrator.dlms.server import Server

from dlms_peers import LONG, THING, Case, CurrentServer, GuruxPeer, our_meter, our_settings
from dlms_talk import talk
from dlms_wire import HdlcService, WrapperService

pytestmark = pytest.mark.system

GMAC = AuthenticationMechanism.HLS_GMAC
METER = GatewayAddress(3, b"30000007")
THING_VALUE = AttributeDescriptor(1, THING, 2)


class Meters:
    """A router to meters of ours; `trouble` is raised for every request."""

    def __init__(self, case):
        self.meters = {METER: our_meter(case)}
        self.trouble = None
        self.seen = []

    def __call__(self, request):
        self.seen.append(request)
        if self.trouble is not None:
            raise self.trouble
        if request.address not in self.meters:
            raise UnknownDeviceError(f"no meter {request.address.device_address!r}")
        return self.meters[request.address].receive_apdu(request.client_sap, request.server_sap, request.apdu)


@pytest.mark.parametrize("conformance", [Conformance.NONE, Conformance.GENERAL_BLOCK_TRANSFER])
@pytest.mark.parametrize(
    "case", [Case(AuthenticationMechanism.NONE, "plain", 0), Case(GMAC, "glo", 0)], ids=str
)
def test_a_client_reads_and_writes_through_a_gateway(case, conformance):
    router = Meters(case)
    server = Server([], router)
    settings = our_settings(case, gateway=METER)
    client = Client(
        our_settings(case, gateway=METER, conformance=settings.conformance | conformance), MemoryCounter(1)
    )
    talk(server, client.associate())
    value = axdr.octet_string(LONG * 2)
    talk(server, client.set(THING_VALUE, value))
    assert talk(server, client.get(THING_VALUE)) == value
    talk(server, client.release())
    assert {request.address for request in router.seen} == {METER}
    assert max(len(METER.request(request.apdu)) for request in router.seen) <= 700


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (UnknownDeviceError("nobody"), r"service-unknown .*operation-not-possible"),
        (DeviceBusyError("busy"), r"service-not-allowed .*other-reason"),
        (ReplyTimeoutError("late"), r"service-not-allowed .*operation-not-possible"),
        (ApduTooLongError("long"), r"service-not-allowed .*pdu-too-long"),
    ],
)
def test_a_gateway_that_cannot_tells_why(trouble, words):
    case = Case(AuthenticationMechanism.NONE, "plain", 0)
    router = Meters(case)
    server = Server([], router)
    client = Client(our_settings(case, gateway=METER))
    talk(server, client.associate())
    router.trouble = trouble
    with pytest.raises(ServiceRefusedError, match=words):
        talk(server, client.get(THING_VALUE))

    async def slow(request):
        await asyncio.sleep(0)
        return router(request)

    request = METER.request(b"\xc0\x01\xc1\x00\x01\x00\x00\x60\x01\x09\xff\x02\x00")
    (answer,) = asyncio.run(relay_async(slow, 16, 1, request))
    inner = apdu.decode(apdu.decode(answer).content)
    assert isinstance(inner, ExceptionResponse)
    router.trouble = None
    (answer,) = asyncio.run(relay_async(slow, 16, 1, request))
    assert METER.within(answer)[0] == 0xC4


def test_an_unknown_meter_and_a_malformed_header():
    server = Server([], Meters(Case(AuthenticationMechanism.NONE, "plain", 0)))
    (answer,) = server.receive_apdu(16, 1, GatewayAddress(3, b"other").request(b"\xc0"))
    assert apdu.decode(answer) == GatewayApdu(0xE7, 3, b"other", bytes.fromhex("d80201"))
    assert server.receive_apdu(16, 1, b"\xe6\x03\x84\xff\xff\xff\xff") == [bytes.fromhex("d80202")]
    # A server that is no gateway does not know the APDU.
    plain = our_meter(Case(AuthenticationMechanism.NONE, "plain", 0))
    assert plain.receive_apdu(16, 1, METER.request(b"\xc0"))[0][0] == 0xD8


def test_answers_of_other_meters_are_passed_over():
    case = Case(AuthenticationMechanism.NONE, "plain", 0)
    server = Server([], Meters(case))
    client = Client(our_settings(case, gateway=METER))
    other = GatewayAddress(3, b"30000008").response(b"\xc4\x01\xc1\x00\x11\x07")
    talk(server, client.associate(), upset=lambda replies: [other, *replies])
    assert talk(server, client.get(THING_VALUE), upset=lambda replies: [other, *replies]).octets() == LONG
    assert client.unrelated_replies > 0
    with pytest.raises(UnexpectedReplyError, match="other meters"):
        talk(server, client.get(THING_VALUE), upset=lambda _replies: [other] * 40)


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
def test_gurux_reads_through_our_gateway(hdlc):
    from gurux_dlms import GXDLMSGateway

    # In plain only: what it ciphers has the header within, where a gateway without keys must find it outside (Green
    # Book 9.5, gateway-request).
    case = Case(AuthenticationMechanism.NONE, "plain", 0)
    current, router = CurrentServer(), Meters(case)
    current.server = Server([], router)
    with HdlcService(current, HdlcParameters()) if hdlc else WrapperService(current) as service:
        gateway = GXDLMSGateway()
        gateway.networkId = METER.network_id
        gateway.physicalDeviceAddress = METER.device_address
        with GuruxPeer(service.port, case, hdlc=hdlc, gateway=gateway) as peer:
            assert peer.get() == LONG
            peer.set(b"new")
            assert peer.get() == b"new"
            assert peer.action(b"echo") == b"echo"
    assert set(current.tags) == {0xE6}
    assert {request.address for request in router.seen} == {METER}
