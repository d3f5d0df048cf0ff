"""What a server sends unasked, heard by foreign listeners: pushes, event-notifications, information-reports."""

import io

import pytest

from concentrator.dlms import apdu, axdr
from concentrator.dlms.apdu.notification import DataNotification, EventNotification
from concentrator.dlms.apdu.short_name import InformationReport
from concentrator.dlms.attributes import AttributeDescriptor, CaptureObject
from concentrator.dlms.client import Client
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.objects import data, register
from concentrator.dlms.cosem.protection_parameters import ProtectionLayer, ProtectionType
from concentrator.dlms.cosem.push_setup import PushObject, PushSetup, SendDestination
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.envelopes import KeyEstablishment
from concentrator.dlms.errors import EncodeError
from concentrator.dlms.hdlc import HdlcAddress, HdlcDecoder
from concentrator.dlms.hdlc_link import HdlcClientLink, HdlcParameters, HdlcServerLink
from concentrator.dlms.security import MemoryCounter, SecurityContext
from concentrator.dlms.server import (
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    Server,
)
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.dlms.wrapper import WrapperFrame
from concentrator.obis import Obis

from dlms_peers import (
    CLIENT_TITLE,
    LONG,
    METER_TITLE,
    THING,
    Case,
    CaseKeys,
    CurrentServer,
    PydlmsPeer,
    our_meter,
    our_settings,
    set_up,
)
from dlms_talk import talk
from dlms_wire import HdlcService, HdlcWire, WrapperService, WrapperWire

pytestmark = pytest.mark.system

GMAC = AuthenticationMechanism.HLS_GMAC
PLAIN = Case(AuthenticationMechanism.NONE, "plain", 0)
ENERGY, SERIAL = Obis(1, 0, 1, 8, 0, 255), Obis(0, 0, 96, 1, 0, 255)
NOW = CosemDateTime(2026, 7, 3, 5, 12, 0, 0, 0, -120, 0x80)
OBJECTS = [
    register(ENERGY, axdr.double_long_unsigned(4711), -1, 30),
    data(SERIAL, axdr.octet_string(b"0123456789ABCDEF" * 20)),
]
TARGETS = (CaptureObject(1, SERIAL, 2), CaptureObject(3, ENERGY, 2))
THING_VALUE = AttributeDescriptor(1, THING, 2)


def push(case, **more):
    """A push of ours, ciphered as the case says."""
    security = None
    if case.ciphered:
        keys = CaseKeys(case).of_meter()
        security = SecurityContext(
            keys, METER_TITLE, MemoryCounter(1), peer_system_title=CLIENT_TITLE, suite=case.suite, **more
        )
    setup = PushSetup(
        lambda class_id, obis: next((o for o in OBJECTS if (o.class_id, o.obis) == (class_id, obis)), None),
        NOW.to_bytes,
        lambda _: None,
        version=1,
        object_list=tuple(map(PushObject, TARGETS)),
        destination=SendDestination(0, b""),
        security=security,
    )
    return setup, lambda: setup.protected(setup.notification())


def framed(octets, *, hdlc):
    """As it goes on the line: in a WRAPPER frame, or in several UI frames."""
    if not hdlc:
        return WrapperFrame(1, 16, octets).to_bytes()
    link = HdlcServerLink(HdlcAddress.client(16), HdlcAddress.server(1))
    link.send_unsolicited(octets)
    return link.data_to_send()


CASES = [PLAIN, *(Case(GMAC, "general-glo", suite) for suite in (0, 1, 2))]
EXPECTED = [b"0123456789ABCDEF" * 20, 4711]


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pydlms_hears_our_pushes(case, hdlc):
    from pydlms.push import PushDecoder

    _, make = push(case)
    decoder = PushDecoder(
        "hdlc" if hdlc else "wrapper",
        security=PydlmsPeer.context(case) if case.ciphered else None,
        capture_objects=[(1, str(SERIAL), 2), (3, str(ENERGY), 2)],
    )
    for _ in range(2):
        (message,) = decoder.feed(framed(make(), hdlc=hdlc))
        assert message.timestamp.to_bytes() == NOW.to_bytes()
        assert [record.raw for record in message.records] == EXPECTED


@pytest.mark.parametrize("kind", [ProtectionType.AUTHENTICATION_AND_ENCRYPTION, ProtectionType.SIGNATURE])
@pytest.mark.parametrize("suite", [1, 2])
def test_pydlms_hears_our_protected_pushes(suite, kind):
    from pydlms.push import PushDecoder

    case = Case(GMAC, "general-glo", suite)
    keys = CaseKeys(case)
    setup, make = push(case, header_authenticated=False)
    setup.protection_parameters = (
        ProtectionLayer(kind, KeyEstablishment.IDENTIFIED, recipient=CLIENT_TITLE),
    )
    context = PydlmsPeer.context(case, signing_key=keys.client, peer_signing_key=keys.meter.public_key())
    decoder = PushDecoder(
        "wrapper", security=context, capture_objects=[(1, str(SERIAL), 2), (3, str(ENERGY), 2)]
    )
    (message,) = decoder.feed(framed(make(), hdlc=False))
    assert [record.raw for record in message.records] == EXPECTED


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gurux_hears_our_pushes(case, hdlc):
    from gurux_dlms import GXByteBuffer, GXReplyData
    from gurux_dlms.enums import InterfaceType, Security
    from gurux_dlms.secure import GXDLMSSecureClient

    client = GXDLMSSecureClient(
        True, 16, 1, interfaceType=InterfaceType.HDLC if hdlc else InterfaceType.WRAPPER
    )
    if case.ciphered:
        keys = CaseKeys(case)
        client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        client.ciphering.securitySuite = case.suite
        client.ciphering.blockCipherKey = keys.encryption
        client.ciphering.authenticationKey = keys.authentication
        client.settings.sourceSystemTitle = METER_TITLE
    _, make = push(case)
    stream = GXByteBuffer(framed(make(), hdlc=hdlc))
    reply, notification = GXReplyData(), GXReplyData()
    while not notification.value:
        client.getData(stream, reply, notification)
    found = notification.value
    assert [bytes(found[0]), int(found[1])] == EXPECTED


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_dlms_cosem_hears_our_pushes(case, hdlc):
    from dlms_cosem import utils
    from dlms_cosem.hdlc import frames
    from dlms_cosem.protocol.wrappers import WrapperHeader
    from dlms_cosem.protocol.xdlms import DataNotification as TheirNotification
    from dlms_cosem.protocol.xdlms import GeneralGlobalCipher

    _, make = push(case)
    octets = framed(make(), hdlc=hdlc)
    if hdlc:
        decoder, pieces = HdlcDecoder(), io.BytesIO()
        decoder.receive_data(octets)
        while ours := decoder.next_event():
            pieces.write(frames.UnnumberedInformationFrame.from_bytes(ours.to_bytes()).payload)
        octets = pieces.getvalue()[3:]
    else:
        header = WrapperHeader.from_bytes(octets[:8])
        octets = octets[8 : 8 + header.length]
    if case.ciphered:
        keys = CaseKeys(case)
        envelope = GeneralGlobalCipher.from_bytes(octets)
        octets = envelope.to_plain_apdu(keys.encryption, keys.authentication)
    found = utils.parse_as_dlms_data(TheirNotification.from_bytes(octets).body)
    assert [bytes(found[0]), found[1]] == EXPECTED


# Notifications within an association


class TellsFirst:
    """A server that tells these attributes before it answers, once."""

    def __init__(self, server):
        self.server, self.attributes = server, []
        self.link_lost = server.link_lost

    def receive_apdu(self, client_sap, server_sap, octets):
        told, self.attributes = self.attributes, []
        events = self.server.notify(16, 1, told, NOW.to_bytes()) if told else []
        return [*events, *self.server.receive_apdu(client_sap, server_sap, octets)]


def associated_server(case, **more):
    server = TellsFirst(our_meter(case))
    client = Client(our_settings(case, **more), MemoryCounter(1))
    talk(server, client.associate())
    return server, client


@pytest.mark.parametrize("case", [PLAIN, Case(GMAC, "glo", 0), Case(GMAC, "general-glo", 2)], ids=str)
def test_our_client_hears_events_in_between(case):
    server, client = associated_server(case)
    server.attributes = [AttributeDescriptor(1, THING, 1)]
    assert talk(server, client.get(THING_VALUE)).octets() == LONG
    told = EventNotification(
        NOW.to_bytes(), AttributeDescriptor(1, THING, 1), axdr.octet_string(bytes(THING))
    )
    assert list(client.notifications) == [told]
    talk(server, client.release())
    with pytest.raises(EncodeError, match="no association"):
        server.server.notify(16, 1, [THING_VALUE])


def test_a_long_event_comes_in_blocks():
    server, client = associated_server(
        PLAIN,
        conformance=Conformance.GET | Conformance.EVENT_NOTIFICATION | Conformance.GENERAL_BLOCK_TRANSFER,
    )
    server.attributes = [THING_VALUE]
    assert talk(server, client.get(AttributeDescriptor(1, THING, 1))).octets() == bytes(THING)
    assert [event.value.octets() for event in client.notifications] == [LONG]


def test_our_short_name_client_hears_reports():
    thing = data(THING, axdr.octet_string(b"value"))
    definition = AssociationDefinition(16, short_names=True, conformance=SHORT_NAME_CONFORMANCE)
    server = TellsFirst(Server([LogicalDevice(1, [thing], [definition])]))
    client = ShortNameClient(our_settings(PLAIN, conformance=DEFAULT_SHORT_NAME_CONFORMANCE))
    talk(server, client.associate())
    server.attributes = [THING_VALUE, AttributeDescriptor(1, THING, 1)]
    talk(server, client.get(THING_VALUE))
    (report,) = set(client.notifications)
    assert isinstance(report, InformationReport)
    assert [variable.name for variable in report.variables] == [0x108, 0x100]
    assert [value.octets() for value in report.values] == [b"value", bytes(THING)]
    assert report.current_time == NOW.to_bytes()
    bare = bytes.fromhex("18") + report.to_bytes()[2:]
    assert apdu.decode(bare).current_time == NOW.to_bytes()


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
@pytest.mark.parametrize("case", [PLAIN, Case(GMAC, "glo", 0), Case(GMAC, "general-glo", 1)], ids=str)
def test_pydlms_hears_our_events_in_between(case, hdlc):
    current = CurrentServer()
    current.server = TellsFirst(our_meter(case))
    with (
        HdlcService(current, HdlcParameters()) if hdlc else WrapperService(current) as service,
        PydlmsPeer(service.port, case, hdlc=hdlc) as peer,
    ):
        current.server.attributes = [AttributeDescriptor(1, THING, 1)]
        assert peer.get() == LONG
        message = peer.client.read_push(timeout=5)
        assert [record.raw for record in message.records] == [bytes(THING)]
        assert message.timestamp.to_bytes() == NOW.to_bytes()


@pytest.mark.parametrize("hdlc_frame", [None, "ui", "i"], ids=["wrapper", "hdlc-ui", "hdlc-i"])
@pytest.mark.parametrize("protection", [None, "general-glo"])
def test_our_client_hears_a_foreign_meter_in_between(protection, hdlc_frame):
    from pydlms.apdu.xdlms import DataNotification as TheirNotification
    from pydlms.cosem.data import DlmsData
    from pydlms.simulator import MeterSimulator, serve

    case = Case(GMAC, "general-glo", 0) if protection else PLAIN
    meter = MeterSimulator(system_title=METER_TITLE)
    set_up(meter, case)
    served = serve(meter, hdlc=hdlc_frame is not None)
    client = Client(our_settings(case), MemoryCounter(1))
    port = served.server_address[1]
    if hdlc_frame is None:
        wire = WrapperWire(port, 16)
    else:
        wire = HdlcWire(port, HdlcClientLink(HdlcAddress.client(16), HdlcAddress.server(1)))
    with wire:
        wire.run(client.associate())
        body = TheirNotification(7, DlmsData.uint32(4711)).to_bytes()
        meter.push_before_response(body, protection=protection, hdlc_frame=hdlc_frame or "ui")
        assert wire.run(client.get(THING_VALUE)).octets() == LONG
        wire.run(client.release())
    assert list(client.notifications) == [DataNotification(7, None, axdr.double_long_unsigned(4711))]
    served.shutdown()
    served.server_close()
