"""Foreign clients on objects that do something: profiles by range and entry, images, long values; both lower layers."""

from datetime import UTC, datetime, timedelta

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, EntryDescriptor, RangeDescriptor
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.image_transfer import ImageToActivate, ImageTransfer, Outcome
from concentrator.dlms.cosem.objects import data
from concentrator.dlms.hdlc import HdlcAddress
from concentrator.dlms.hdlc_link import HdlcClientLink, HdlcParameters
from concentrator.dlms.profile import capture_objects, decode_profile
from concentrator.dlms.security import MemoryCounter
from concentrator.dlms.server import (
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    Server,
)
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE, SimulatedMeter

from dlms_peers import (
    LONG,
    METER_TITLE,
    SECRET,
    THING,
    Case,
    CaseKeys,
    CurrentServer,
    DlmsCosemPeer,
    GuruxPeer,
    PydlmsPeer,
    our_meter,
    our_settings,
    set_up,
)
from dlms_wire import HdlcService, HdlcWire, WrapperService, WrapperWire

pytestmark = pytest.mark.system

NOW = datetime(2026, 7, 3, 12, 5, tzinfo=UTC)
START = NOW - timedelta(hours=6)
CASE = Case(AuthenticationMechanism.HLS_GMAC, "general-glo", 0)
PLAIN = Case(AuthenticationMechanism.NONE, "plain", 0)
PROFILE = "1.0.99.1.0.255"


@pytest.fixture(scope="module", params=["wrapper", "hdlc"])
def service(request):
    current = CurrentServer()
    hdlc = request.param == "hdlc"
    found = HdlcService(current, HdlcParameters(256, 256, 3, 3)) if hdlc else WrapperService(current)
    with found:
        found.hdlc, found.current = hdlc, current
        yield found


@pytest.fixture(scope="module")
def meter():
    found = SimulatedMeter("30000007", 11, lambda: NOW, clock_offset_s=0)
    found.compressed = False
    return found


@pytest.fixture
def profiles(service, meter):
    service.current.server = our_meter(CASE, *meter.server.devices[1].objects.values())
    return service


def truth(meter):
    return [row.values for row in meter.truth(LOAD_PROFILE, START, NOW)]


def energies(rows):
    """The columns of a row behind clock and status."""
    return [tuple(row[2:]) for row in rows]


def test_gurux_reads_profiles_by_range_entry_and_column(profiles, meter):
    from gurux_dlms.objects import GXDLMSProfileGeneric

    with GuruxPeer(profiles.port, CASE, hdlc=profiles.hdlc) as peer:
        client, profile = peer.client, GXDLMSProfileGeneric(PROFILE)
        for attribute in (3, 6):
            client.updateValue(profile, attribute, peer.ask(client.read(profile, attribute)).value)
        rows = peer.ask(client.readRowsByRange(profile, START, NOW)).value
        assert energies(rows) == truth(meter)
        picked = peer.ask(client.readRowsByRange(profile, START, NOW, profile.captureObjects[2:3])).value
        assert [tuple(row) for row in picked] == [values[:1] for values in truth(meter)]
        first = meter.truth(LOAD_PROFILE, NOW - timedelta(days=60), NOW)[2:7]
        rows = peer.ask(client.readRowsByEntry(profile, 3, 5)).value
        assert energies(rows) == [row.values for row in first]


def test_pydlms_reads_profiles_by_range_and_entry(profiles, meter):
    from pydlms.apdu.xdlms import entry_descriptor, range_descriptor
    from pydlms.cosem.data import DlmsData
    from pydlms.cosem.time import CosemDateTime

    bounds = [DlmsData.octet_string(CosemDateTime.from_datetime(at).to_bytes()) for at in (START, NOW)]
    with PydlmsPeer(profiles.port, CASE, hdlc=profiles.hdlc) as peer:
        rows = peer.client.read_profile(PROFILE, range_descriptor(*bounds)).rows
        assert energies(rows) == truth(meter)
        rows = peer.client.read_profile(PROFILE, entry_descriptor(3, 7)).rows
        first = meter.truth(LOAD_PROFILE, NOW - timedelta(days=60), NOW)[2:7]
        assert energies(rows) == [row.values for row in first]


def test_dlms_cosem_reads_profiles_by_range(profiles, meter):
    from dlms_cosem import cosem, enumerations, utils
    from dlms_cosem.cosem.capture_object import CaptureObject
    from dlms_cosem.cosem.selective_access import RangeDescriptor as TheirRange

    clock = cosem.CosemAttribute(enumerations.CosemInterface.CLOCK, cosem.Obis(0, 0, 1, 0, 0), 2)
    profile = cosem.CosemAttribute(enumerations.CosemInterface.PROFILE_GENERIC, cosem.Obis(*LOAD_PROFILE), 2)
    with DlmsCosemPeer(profiles.port, CASE, hdlc=profiles.hdlc) as peer:
        wanted = TheirRange(CaptureObject(clock), START, NOW)
        rows = utils.parse_as_dlms_data(peer.client.get(profile, access_descriptor=wanted))
    assert energies(rows) == truth(meter)


@pytest.mark.parametrize("hdlc", [False, True], ids=["wrapper", "hdlc"])
def test_our_client_reads_their_profile_by_range_and_entry(hdlc):
    from pydlms.simulator import example_meter, serve

    served = serve(example_meter(), hdlc=hdlc, hdlc_window=2)
    port = served.server_address[1]
    if hdlc:
        link = HdlcClientLink(HdlcAddress.client(16), HdlcAddress.server(1), HdlcParameters(128, 128, 2, 2))
        wire = HdlcWire(port, link)
    else:
        wire = WrapperWire(port, 16)
    client = Client(our_settings(PLAIN))
    buffer = AttributeDescriptor(7, Obis.parse(PROFILE), 2)
    with wire:
        wire.run(client.associate())
        columns = capture_objects(wire.run(client.get(AttributeDescriptor(7, Obis.parse(PROFILE), 3))))
        rows = decode_profile(wire.run(client.get_encoded(buffer)), columns, 900)
        bounds = RangeDescriptor(rows[5].captured_at, rows[20].captured_at)
        assert decode_profile(wire.run(client.get_encoded(buffer, bounds)), columns, 900) == rows[5:21]
        by_entry = wire.run(client.get_encoded(buffer, EntryDescriptor(3, 7)))
        assert decode_profile(by_entry, columns, 900) == rows[2:7]
        wire.run(client.release())
    served.shutdown()
    served.server_close()


def image_transfer():
    installed = []
    image = ImageTransfer(
        100,
        lambda name, octets: (Outcome.DONE, (ImageToActivate(len(octets), name, b"signature"),)),
        lambda _, octets: installed.append(octets) or Outcome.DONE,
    )
    return image, installed


def test_gurux_sends_our_meter_an_image(service):
    from gurux_dlms import GXByteBuffer
    from gurux_dlms.enums import DataType
    from gurux_dlms.objects import GXDLMSImageTransfer

    image, installed = image_transfer()
    service.current.server = our_meter(CASE, image.cosem_object())
    with GuruxPeer(service.port, CASE, hdlc=service.hdlc) as peer:
        client, theirs = peer.client, GXDLMSImageTransfer()

        def read(attribute):
            client.updateValue(theirs, attribute, peer.ask(client.read(theirs, attribute)).value)

        read(2)
        read(5)
        assert theirs.imageTransferEnabled
        assert theirs.imageBlockSize == 100
        peer.ask(theirs.imageTransferInitiate(client, "firmware", len(LONG)))
        # Its packets are numbered (HDLC) and ciphered when they are made: all are sent, and in their order.
        for packet in theirs.imageBlockTransfer(client, LONG[:1000], None):
            peer.ask(packet)
        read(3)
        read(4)
        assert str(theirs.imageTransferredBlocksStatus) == "11111111110"
        assert theirs.imageFirstNotTransferredBlockNumber == 10
        block = axdr.structure(axdr.double_long_unsigned(10), axdr.octet_string(LONG[1000:]))
        peer.ask(client.method(theirs, 2, GXByteBuffer(block.to_bytes()), DataType.STRUCTURE))
        peer.ask(theirs.imageVerify(client))
        read(7)
        assert [(int(item.size), bytes(item.identification)) for item in theirs.imageActivateInfo] == [
            (len(LONG), b"firmware")
        ]
        peer.ask(theirs.imageActivate(client))
        read(6)
        assert theirs.imageTransferStatus == 6
    assert installed == [LONG]


def test_pydlms_sends_our_meter_an_image(service):
    from pydlms.image import transfer_image

    image, installed = image_transfer()
    service.current.server = our_meter(CASE, image.cosem_object())
    with PydlmsPeer(service.port, CASE, hdlc=service.hdlc) as peer:
        transfer_image(peer.client, LONG, b"firmware", activate=True, poll=0.01)
    assert installed == [LONG]


def test_gurux_writes_and_reads_long_values_in_blocks(service):
    service.current.server = our_meter(CASE, max_pdu_size=300)
    with GuruxPeer(service.port, CASE, hdlc=service.hdlc) as peer:
        peer.set(LONG[::-1])
        assert peer.get() == LONG[::-1]
        assert peer.action(LONG) == LONG


def test_gurux_sends_general_blocks(service):
    from gurux_dlms.enums import Conformance as TheirConformance

    # Only sends: the acknowledgements that it makes stay at the second block for ever, where each tells the last
    # block received in order (Green Book 9.4.6.13.4, block-number-ack).
    service.current.server = our_meter(PLAIN, max_pdu_size=300)
    peer = GuruxPeer(service.port, PLAIN, hdlc=service.hdlc, gbtWindowSize=4)
    peer.client.proposedConformance |= TheirConformance.GENERAL_BLOCK_TRANSFER
    service.current.tags.clear()
    with peer:
        peer.set(LONG[::-1])
        assert service.current.tags.count(0xE0) == 4
        assert peer.get() == LONG[::-1]


def test_pydlms_writes_lists_in_blocks(service):
    from pydlms.cosem.data import DlmsData

    service.current.server = our_meter(CASE, max_pdu_size=300)
    value = DlmsData.octet_string(LONG[::-1])
    name = "0.0.96.1.9.255"
    with PydlmsPeer(service.port, CASE, hdlc=service.hdlc, window=3) as peer:
        results = peer.client.set_many([(name, 1, 2, value), ("0.0.96.1.8.255", 1, 2, value)])
        assert [int(result) for result in results] == [0, 4]
        assert peer.get() == LONG[::-1]


def test_general_block_transfer_is_agreed_only_where_both_want_it():
    assert not our_settings(PLAIN).conformance & Conformance.GENERAL_BLOCK_TRANSFER
    assert not DEFAULT_CONFORMANCE & Conformance.GENERAL_BLOCK_TRANSFER


def short_name_server(case):
    thing = data(THING, axdr.octet_string(LONG[:100]))
    stored = {}
    thing.setters[2] = lambda value: stored.update(value=value) or thing.attributes.update({2: value})
    thing.methods[1] = lambda parameters: parameters
    keys = CaseKeys(case).of_meter() if case.keys else None
    definition = AssociationDefinition(
        16, case.mechanism, secret=SECRET, keys=keys, short_names=True, conformance=SHORT_NAME_CONFORMANCE,
        ciphered=case.ciphered, security_suite=case.suite,
    )  # fmt: skip
    return Server([LogicalDevice(1, [thing], [definition], system_title=b"ODCMETER", max_pdu_size=300)])


# Long values it cannot read by short names, nor write lists: both call methods that its own classes lack. HLS it does
# by WRITE, which cannot give f(CtoS) back: reply_to_HLS_authentication is read, with parameterized access (Green
# Book 9.3.14, Blue Book class 12).
@pytest.mark.parametrize("mechanism", [AuthenticationMechanism.NONE, AuthenticationMechanism.LLS])
def test_gurux_reads_and_writes_by_short_names(service, mechanism):
    from gurux_dlms.enums import DataType
    from gurux_dlms.objects import GXDLMSData

    case = Case(mechanism, "plain", 0)
    service.current.server = short_name_server(case)
    service.current.tags.clear()
    with GuruxPeer(service.port, case, hdlc=service.hdlc, useLogicalNameReferencing=False) as peer:
        listed = peer.client.parseObjects(peer.ask(peer.client.getObjectsRequest()).data, False, False)
        assert "0.0.96.1.9.255" in [str(found.logicalName) for found in listed]
        thing = GXDLMSData("0.0.96.1.9.255", 0x100)
        assert bytes(peer.ask(peer.client.read(thing, 2)).value) == LONG[:100]
        thing.setDataType(2, DataType.OCTET_STRING)
        thing.value = b"new"
        peer.ask(peer.client.write(thing, 2))
        assert bytes(peer.ask(peer.client.read(thing, 2)).value) == b"new"
    assert {0x05, 0x06} <= set(service.current.tags)


SHORT_NAME_CASES = [
    *(Case(AuthenticationMechanism(number), "plain", 0) for number in (0, 1, 3, 4, 5, 6)),
    Case(AuthenticationMechanism.HLS_GMAC, "glo", 0),
    Case(AuthenticationMechanism.HLS_GMAC, "ded", 2),
]


@pytest.mark.parametrize("case", SHORT_NAME_CASES, ids=str)
def test_pydlms_reads_and_writes_by_short_names(service, case):
    service.current.server = short_name_server(case)
    with PydlmsPeer(service.port, case, hdlc=service.hdlc, logical_names=False) as peer:
        assert peer.get() == LONG[:100]
        peer.set(LONG)
        assert peer.get() == LONG


@pytest.mark.parametrize("case", SHORT_NAME_CASES, ids=str)
def test_our_short_name_client_uses_a_foreign_meter(case):
    from pydlms.apdu.xdlms import Conformance as TheirConformance
    from pydlms.simulator import MeterSimulator, serve

    meter = MeterSimulator(
        system_title=METER_TITLE,
        max_pdu=500,
        conformance=TheirConformance(int(DEFAULT_SHORT_NAME_CONFORMANCE)),
    )
    set_up(meter, case)
    meter.base_names[1, next(obis for class_id, obis in meter.objects if class_id == 1)] = 0x100
    for (class_id, obis), _ in list(meter.objects.items()):
        meter.base_names.setdefault((class_id, obis), 0x200)
    served = serve(meter)
    client = ShortNameClient(our_settings(case, conformance=DEFAULT_SHORT_NAME_CONFORMANCE), MemoryCounter(1))
    thing = AttributeDescriptor(1, THING, 2)
    with WrapperWire(served.server_address[1], 16) as wire:
        wire.run(client.associate())
        assert wire.run(client.get(thing)).octets() == LONG
        wire.run(client.set(thing, axdr.octet_string(LONG[::-1])))
        assert wire.run(client.get(thing)).octets() == LONG[::-1]
        wire.run(client.release())
    served.shutdown()
    served.server_close()
