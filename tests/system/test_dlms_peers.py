"""Foreign stacks and ours, over a loopback TCP WRAPPER: our client reads theirs, theirs read our server."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from concentrator.dlms.attributes import AttributeDescriptor, RangeDescriptor
from concentrator.dlms.client import ASSOCIATION_LN, DEFAULT_CONFORMANCE, Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AccessError, AssociationRejectedError
from concentrator.dlms.hdlc import HdlcAddress
from concentrator.dlms.hdlc_link import HdlcClientLink, HdlcParameters
from concentrator.dlms.profile import capture_objects, decode_profile
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.obis import Obis
from concentrator.simulator import meter as simulated

from dlms_wire import HdlcService, HdlcWire, WrapperService, WrapperWire
from ports import free_port

pytestmark = pytest.mark.system

KEY = bytes(range(16))
AUTHENTICATION_KEY = bytes(range(0xD0, 0xE0))
CLOCK = AttributeDescriptor(8, Obis.parse("0.0.1.0.0.255"), 2)
ENERGY = Obis.parse("1.0.1.8.0.255")
LOAD_PROFILE = Obis.parse("1.0.99.1.0.255")
COUNTER = AttributeDescriptor(1, Obis.parse("0.0.43.1.0.255"), 2)
NOW = datetime(2026, 7, 3, 12, 5, tzinfo=UTC)


def ciphered_settings(keys, **more):
    return ClientSettings(
        client_sap=1,
        mechanism=AuthenticationMechanism.HLS_GMAC,
        keys=keys,
        system_title=b"ODCTEST1",
        **more,
    )


@pytest.fixture(scope="module")
def foreign_meter():
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pydlms.simulator", "--port", str(port),
            "--key", KEY.hex(), "--auth-key", AUTHENTICATION_KEY.hex(), "--client", "1:5",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield port
    process.terminate()
    process.wait(10)


def public_counter(port):
    with WrapperWire(port, 16) as wire:
        client = Client(ClientSettings())
        wire.run(client.associate())
        counter = wire.run(client.get(COUNTER)).integer()
        wire.run(client.release())
    return counter


def test_public_client_reads_a_foreign_meter(foreign_meter):
    with WrapperWire(foreign_meter, 16) as wire:
        client = Client(ClientSettings())
        wire.run(client.associate())
        assert CosemDateTime.from_bytes(wire.run(client.get(CLOCK)).octets()).is_moment
        wire.run(client.release())
    assert not client.associated


@pytest.mark.parametrize("general", [False, True], ids=["service-specific", "general-glo"])
@pytest.mark.parametrize("dedicated", [b"", bytes(range(0x40, 0x50))], ids=["global-key", "dedicated-key"])
def test_ciphered_client_reads_a_foreign_meter(foreign_meter, general, dedicated):
    settings = ciphered_settings(
        SecurityKeys(KEY, AUTHENTICATION_KEY),
        general_ciphering=general,
        dedicated_key=dedicated,
        max_pdu_size=256,
    )
    client = Client(settings, MemoryCounter(public_counter(foreign_meter) + 1))
    with WrapperWire(foreign_meter, 1) as wire:
        wire.run(client.associate())
        clock, energy, unit, columns, period, missing = wire.run(
            client.get_many(
                [
                    CLOCK,
                    AttributeDescriptor(3, ENERGY, 2),
                    AttributeDescriptor(3, ENERGY, 3),
                    AttributeDescriptor(7, LOAD_PROFILE, 3),
                    AttributeDescriptor(7, LOAD_PROFILE, 4),
                    AttributeDescriptor(3, Obis.parse("1.0.99.99.0.255"), 2),
                ]
            )
        )
        assert CosemDateTime.from_bytes(clock.octets()).is_moment
        assert energy.integer() > 0
        assert unit.native == [0, 30]
        assert isinstance(missing, AccessError)
        objects = wire.run(client.get(AttributeDescriptor(15, ASSOCIATION_LN, 2)))
        assert any(entry.items()[2].octets() == bytes(LOAD_PROFILE) for entry in objects.items())
        # All rows come in blocks of 256 octets; then a part of them by range.
        everything = wire.run(client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2)))
        rows = decode_profile(everything, capture_objects(columns), period.integer())
        assert len(rows) > 50
        start, end = rows[3].captured_at, rows[9].captured_at
        part = wire.run(
            client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), RangeDescriptor(start, end))
        )
        assert decode_profile(part, capture_objects(columns), period.integer()) == rows[3:10]
        wire.run(client.release())


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("lost", [set(), {2, 5, 6}], ids=["clean", "lossy"])
def test_general_block_transfer_from_a_foreign_meter(lost, streaming):
    from pydlms.apdu.xdlms import Conformance as TheirConformance
    from pydlms.simulator import example_meter, serve

    meter = example_meter()
    meter.conformance |= TheirConformance.GENERAL_BLOCK_TRANSFER
    meter.gbt_window, meter.gbt_streaming, meter.drop_gbt_blocks = 4, streaming, lost
    service = serve(meter)
    settings = ClientSettings(
        max_pdu_size=200,
        gbt_window=4,
        conformance=DEFAULT_CONFORMANCE | Conformance.GENERAL_BLOCK_TRANSFER,
    )
    client = Client(settings)
    with WrapperWire(service.server_address[1], 16, timeout=1.5) as wire:
        wire.run(client.associate())
        assert client.conformance & Conformance.GENERAL_BLOCK_TRANSFER
        rows = wire.run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 2)))
        assert len(rows.items()) > 50
        assert sum(octets[0] == 0xE0 for octets in wire.seen) > 10
        wire.run(client.release())
    service.shutdown()
    service.server_close()


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("length", [128, 300])
def test_our_client_reads_a_foreign_meter_over_hdlc(window, length):
    from pydlms.simulator import example_meter, serve

    service = serve(example_meter(), hdlc=True, hdlc_window=window)
    link = HdlcClientLink(
        HdlcAddress.client(16), HdlcAddress.server(1), HdlcParameters(length, length, window, window)
    )
    client = Client(ClientSettings())
    with HdlcWire(service.server_address[1], link) as wire:
        wire.run(client.associate())
        rows = wire.run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 2)))
        assert len(rows.items()) > 50
        many = wire.run(client.get_many([CLOCK] * 20))
        assert many[0] == many[-1]
        wire.run(client.release())
        wire.disconnect()
    assert link.repetitions == 0
    assert link.bad_frames == 0
    service.shutdown()
    service.server_close()


def test_a_wrong_key_is_refused_with_words(foreign_meter):
    client = Client(ciphered_settings(SecurityKeys(bytes(16), AUTHENTICATION_KEY)), MemoryCounter(10_000))
    with WrapperWire(foreign_meter, 1) as wire, pytest.raises(Exception, match=r"refused|not"):
        wire.run(client.associate())


@pytest.fixture
def our_meter():
    meter = simulated.SimulatedMeter("30000007", 11, lambda: NOW, clock_offset_s=0)
    meter.compressed = False
    with WrapperService(meter.server) as service:
        meter.port = service.port
        yield meter


def test_our_client_reads_our_server_over_tcp(our_meter):
    client = Client(ciphered_settings(our_meter.keys), MemoryCounter(public_counter(our_meter.port) + 1))
    with WrapperWire(our_meter.port, 1) as wire:
        wire.run(client.associate())
        start = NOW - timedelta(days=3)
        columns = capture_objects(wire.run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 3))))
        encoded = wire.run(
            client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), RangeDescriptor(start, NOW))
        )
        rows = decode_profile(encoded, columns, 900)
        truth = our_meter.truth(LOAD_PROFILE, start, NOW)
        assert [(row.captured_at, row.status, row.values) for row in rows] == [tuple(row) for row in truth]
        wire.run(client.release())
    assert public_counter(our_meter.port) > 0


def test_pydlms_client_reads_our_server(our_meter):
    from pydlms import DlmsClient
    from pydlms.security.context import SecurityContext
    from pydlms.security.hls import Mechanism

    with DlmsClient.tcp("127.0.0.1", our_meter.port) as public:
        assert public.get("0.0.42.0.0.255").value == our_meter.logical_device_name
        counter = public.get("0.0.43.1.0.255").value
    security = SecurityContext(
        our_meter.keys.encryption,
        our_meter.keys.authentication,
        client_system_title=b"PYDLMS01",
        invocation_counter=counter + 1,
    )
    with DlmsClient.tcp(
        "127.0.0.1", our_meter.port, client_sap=1, mechanism=Mechanism.HLS_GMAC, security=security
    ) as client:
        assert client.get_clock().to_bytes() == simulated.local_time(NOW).to_bytes()
        assert client.get_register("1.0.1.8.0.255").raw == our_meter.load.at(NOW)[0]
        # The current association, and this one under its own name.
        assert len(client.get_association_view()) == len(our_meter.server.devices[1].objects) + 2
        buffer = client.read_profile("1.0.99.1.0.255")
        truth = our_meter.truth(LOAD_PROFILE, NOW - timedelta(days=60), NOW)
        assert [tuple(row[2:]) for row in buffer.rows] == [row.values for row in truth]


@pytest.mark.parametrize("window", [1, 3])
def test_pydlms_client_reads_our_server_over_hdlc(window):
    from pydlms import DlmsClient
    from pydlms.hdlc.connection import HdlcParameters as TheirParameters
    from pydlms.security.context import SecurityContext
    from pydlms.security.hls import Mechanism

    meter = simulated.SimulatedMeter("30000008", 11, lambda: NOW, clock_offset_s=0)
    meter.compressed = False
    security = SecurityContext(
        meter.keys.encryption,
        meter.keys.authentication,
        client_system_title=b"PYDLMS01",
        invocation_counter=1,
    )
    with (
        HdlcService(meter.server, HdlcParameters(256, 256, window, window)) as service,
        DlmsClient.tcp(
            "127.0.0.1",
            service.port,
            client_sap=1,
            hdlc=True,
            hdlc_parameters=TheirParameters(window_tx=window, window_rx=window),
            mechanism=Mechanism.HLS_GMAC,
            security=security,
        ) as client,
    ):
        assert client.get_clock().to_bytes() == simulated.local_time(NOW).to_bytes()
        buffer = client.read_profile("1.0.99.2.0.255")
        assert len(buffer.rows) == 60


def test_dlms_cosem_client_reads_our_server(our_meter):
    from dlms_cosem import cosem, enumerations, utils
    from dlms_cosem.client import DlmsClient
    from dlms_cosem.cosem.capture_object import CaptureObject
    from dlms_cosem.cosem.selective_access import RangeDescriptor as TheirRange
    from dlms_cosem.io import BlockingTcpIO, TcpTransport
    from dlms_cosem.security import HighLevelSecurityGmacAuthentication

    client = DlmsClient(
        transport=TcpTransport(1, 1, BlockingTcpIO("127.0.0.1", our_meter.port)),
        authentication=HighLevelSecurityGmacAuthentication(challenge_length=32),
        encryption_key=our_meter.keys.encryption,
        authentication_key=our_meter.keys.authentication,
        client_system_title=b"DLMSCOSE",
        client_initial_invocation_counter=public_counter(our_meter.port) + 1,
        block_transfer=True,
    )
    clock = cosem.CosemAttribute(enumerations.CosemInterface.CLOCK, cosem.Obis(0, 0, 1, 0, 0), 2)
    profile = cosem.CosemAttribute(enumerations.CosemInterface.PROFILE_GENERIC, cosem.Obis(1, 0, 99, 1, 0), 2)
    with client.session() as session:
        assert bytes(session.get(clock)) == b"\x09\x0c" + simulated.local_time(NOW).to_bytes()
        wanted = TheirRange(CaptureObject(clock), NOW - timedelta(hours=6), NOW)
        rows = utils.parse_as_dlms_data(session.get(profile, access_descriptor=wanted))
    truth = our_meter.truth(LOAD_PROFILE, NOW - timedelta(hours=6), NOW)
    assert [tuple(row[2:]) for row in rows] == [row.values for row in truth]


class GuruxDialogue:
    """As much of a Gurux reader as its library leaves to the application."""

    def __init__(self, client, port):
        from gurux_dlms import GXByteBuffer, GXReplyData

        self.client = client
        self.wire = WrapperWire(port, client.clientAddress)
        self._buffer, self._reply = GXByteBuffer, GXReplyData

    def _exchange(self, octets, reply):
        received = self._buffer()
        self.wire.socket.sendall(bytes(octets))
        while not self.client.getData(received, reply, None):
            received.set(self.wire.socket.recv(65536))

    def ask(self, requests):
        reply = self._reply()
        for request in requests if isinstance(requests, list) else [requests]:
            reply.clear()
            self._exchange(request, reply)
            while reply.isMoreData():
                self._exchange(self.client.receiverReady(reply), reply)
            assert reply.error == 0
        return reply

    def open(self):
        self.client.parseAareResponse(self.ask(self.client.aarqRequest()).data)
        if self.client.isAuthenticationRequired:
            reply = self.ask(self.client.getApplicationAssociationRequest())
            self.client.parseApplicationAssociationResponse(reply.data)


@pytest.mark.parametrize("ciphered", [False, True], ids=["public", "hls-gmac"])
def test_gurux_client_reads_our_server(our_meter, ciphered):
    from gurux_dlms.enums import Authentication, InterfaceType, Security
    from gurux_dlms.objects import GXDLMSData, GXDLMSProfileGeneric, GXDLMSRegister
    from gurux_dlms.secure import GXDLMSSecureClient

    if ciphered:
        client = GXDLMSSecureClient(True, 1, 1, Authentication.HIGH_GMAC, None, InterfaceType.WRAPPER)
        client.ciphering.systemTitle = b"GURUX001"
        client.ciphering.blockCipherKey = our_meter.keys.encryption
        client.ciphering.authenticationKey = our_meter.keys.authentication
        client.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        client.ciphering.invocationCounter = public_counter(our_meter.port) + 1
    else:
        client = GXDLMSSecureClient(True, 16, 1, Authentication.NONE, None, InterfaceType.WRAPPER)
    dialogue = GuruxDialogue(client, our_meter.port)
    dialogue.open()
    name = GXDLMSData("0.0.42.0.0.255")
    value = client.updateValue(name, 2, dialogue.ask(client.read(name, 2)).value)
    assert bytes(value) == our_meter.logical_device_name
    if ciphered:
        register = GXDLMSRegister("1.0.1.8.0.255")
        dialogue_value = dialogue.ask(client.read(register, 2)).value
        assert dialogue_value == our_meter.load.at(NOW)[0]
        profile = GXDLMSProfileGeneric("1.0.99.1.0.255")
        client.updateValue(profile, 3, dialogue.ask(client.read(profile, 3)).value)
        assert len(profile.captureObjects) == 6
        rows = dialogue.ask(client.readRowsByRange(profile, NOW - timedelta(hours=6), NOW)).value
        truth = our_meter.truth(LOAD_PROFILE, NOW - timedelta(hours=6), NOW)
        assert [tuple(row[2:]) for row in rows] == [row.values for row in truth]
    dialogue.wire.close()


def test_counters_that_do_not_rise_are_refused(our_meter):
    with WrapperWire(our_meter.port, 1) as wire:
        wire.run(Client(ciphered_settings(our_meter.keys), MemoryCounter(500)).associate())
    with WrapperWire(our_meter.port, 1) as wire, pytest.raises(AssociationRejectedError, match="refused"):
        wire.run(Client(ciphered_settings(our_meter.keys), MemoryCounter(500)).associate())
    assert our_meter.server.devices[1].replays == 1
