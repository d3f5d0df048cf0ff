"""pydlms and ours: every envelope of suites 0 to 2, security setup, images, lists, ACCESS, blocks, short names."""

from datetime import UTC, datetime

import pytest
from cryptography import x509

from concentrator.dlms import axdr, elliptic
from concentrator.dlms.apdu.access import AccessKind, AccessSpecification
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.certificates import Certificate
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.image_transfer import ImageToActivate, ImageTransfer, Outcome
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem.security_setup import SecuritySetup
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, KeyEstablishment, wrap
from concentrator.dlms.errors import AccessError
from concentrator.dlms.security import MemoryCounter, SecurityContext, SecurityKeys
from concentrator.dlms.server import (
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    Server,
)
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.obis import Obis

from dlms_certificates import certificate
from dlms_wire import WrapperService, WrapperWire

pytestmark = pytest.mark.system

THEM, US = b"PYDLMS01", b"ODCMETER"
THING = Obis(0, 0, 96, 1, 9, 255)
NAME = "0.0.96.1.9.255"
LONG = bytes(range(256)) * 6


class Keys:
    """Key pairs of both sides and the shared keys of one suite."""

    def __init__(self, suite):
        self.suite = suite
        length = 32 if suite == 2 else 16
        self.encryption, self.authentication = bytes(range(length)), bytes(range(1, length + 1))
        self.master = bytes(range(2, length + 2))
        make = elliptic.generate_private_key
        self.pairs = [[make(suite) for _ in range(2)] for _ in range(2)] if suite else None

    def ours(self):
        if self.pairs is None:
            return SecurityKeys(self.encryption, self.authentication, master=self.master)
        (signing, agreement), (peer_signing, peer_agreement) = self.pairs
        return SecurityKeys(
            self.encryption,
            self.authentication,
            master=self.master,
            signing=signing,
            agreement=agreement,
            peer_signing=peer_signing.public_key(),
            peer_agreement=peer_agreement.public_key(),
        )

    def theirs(self, **more):
        from pydlms.security.context import SecurityContext

        if self.pairs is not None:
            (peer_signing, peer_agreement), (signing, agreement) = self.pairs
            more |= {
                "signing_key": signing,
                "key_agreement_key": agreement,
                "peer_signing_key": peer_signing.public_key(),
                "peer_key_agreement_key": peer_agreement.public_key(),
            }
        return SecurityContext(
            self.encryption,
            self.authentication,
            client_system_title=THEM,
            server_system_title=US,
            suite=self.suite,
            master_key=self.master,
            invocation_counter=1,
            **more,
        )


def our_device(*objects, **definition):
    stored = {2: axdr.octet_string(LONG)}

    def write(value):
        stored[2] = value

    thing = CosemObject(1, THING, {2: lambda: stored[2]}, {2: write}, {1: lambda parameters: parameters})
    device = LogicalDevice(
        1, [thing, *objects], [AssociationDefinition(16, **definition)], system_title=US, max_pdu_size=700
    )
    return device, WrapperService(Server([device]))


def their_client(port, **settings):
    from pydlms import DlmsClient

    return DlmsClient.tcp("127.0.0.1", port, client_sap=16, max_receive_pdu_size=600, **settings)


ECDSA = AuthenticationMechanism.HLS_ECDSA


def ecdsa_settings(keys, context, **more):
    from pydlms.security.hls import Mechanism

    (our_signing, _), (signing, _) = keys.pairs
    return {
        "mechanism": Mechanism.HLS_ECDSA,
        "security": context,
        "signing_key": signing,
        "server_public_key": our_signing.public_key(),
        **more,
    }


def key_info(kind, scheme=1):
    from pydlms.security.general import KeyInfo

    return KeyInfo(kind, scheme=scheme)


ENVELOPES = {
    "glo": {"protection": "glo"},
    "general-glo": {"protection": "general-glo"},
    "identified": {"protection": "general-ciphering"},
    "wrapped": {"protection": "general-ciphering", "kind": "wrapped"},
    "one-pass": {"protection": "general-ciphering", "kind": "agreed", "scheme": 1},
    "static-unified": {"protection": "general-ciphering", "kind": "agreed", "scheme": 2},
    "glo-signed": {"protection": "glo+signing"},
    "identified-signed": {"protection": "general-ciphering+signing"},
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("with_header", [False, True])
def test_every_envelope_of_theirs_is_opened_and_answered(suite, envelope, with_header):
    keys = Keys(suite)
    settings = dict(envelope)
    if "kind" in settings:
        settings["key_info"] = key_info(settings.pop("kind"), settings.pop("scheme", 1))
    _, service = our_device(
        mechanism=ECDSA,
        keys=keys.ours(),
        security_suite=suite,
        signed="signing" in envelope["protection"],
        header_authenticated=with_header,
        length_signed=with_header,
    )
    context = keys.theirs(
        general_aad="with-header" if with_header else "sc-ak",
        signing_form="length-prefixed-content" if with_header else "content",
    )
    with service, their_client(service.port, **ecdsa_settings(keys, context, **settings)) as client:
        assert client.get(NAME, 1, 2).value == LONG
        from pydlms.cosem.data import DlmsData

        client.set(NAME, 1, 2, DlmsData.octet_string(b"new"))
        assert client.get(NAME, 1, 2).value == b"new"


@pytest.mark.parametrize("ciphered", [False, True])
@pytest.mark.parametrize("suite", [1, 2])
def test_our_client_proves_itself_by_ecdsa_to_their_meter(suite, ciphered):
    from pydlms.security.hls import Mechanism
    from pydlms.simulator import ClientProfile, example_meter, serve

    keys = Keys(suite)
    meter = example_meter(system_title=THEM)
    meter.security = keys.theirs()
    meter.encryption_key, meter.authentication_key = keys.encryption, keys.authentication
    (ours, _), (theirs, _) = keys.pairs
    meter.signing_key = theirs
    meter.clients[16] = ClientProfile(
        Mechanism.HLS_ECDSA, ciphered=ciphered, client_public_key=ours.public_key()
    )
    service = serve(meter)
    client = Client(
        ClientSettings(
            mechanism=ECDSA, keys=keys.ours(), system_title=US, meter_system_title=THEM,
            security_suite=suite, ciphered=ciphered,
        ),
        MemoryCounter(1),
    )  # fmt: skip
    with WrapperWire(service.server_address[1], 16) as wire:
        wire.run(client.associate())
        energy = AttributeDescriptor(3, Obis(1, 0, 1, 8, 0, 255), 2)
        assert wire.run(client.get(energy)).integer() == 12345678
        wire.run(client.release())
    service.shutdown()
    service.server_close()


@pytest.mark.parametrize("establishment", [e for e in KeyEstablishment if e != KeyEstablishment.BROADCAST])
@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("signed", [False, True])
def test_our_envelopes_are_opened_by_theirs(suite, establishment, signed):
    from pydlms.security.ciphering import unwrap
    from pydlms.security.general import verify_general_signing

    keys = Keys(suite)
    security = SecurityContext(
        keys.ours(), US, MemoryCounter(1), peer_system_title=THEM, suite=suite, header_authenticated=False
    )
    theirs = keys.theirs()
    request = bytes.fromhex("c001c100030100010800ff0200")
    envelope = Envelope(EnvelopeKind.GENERAL_CIPHERING, establishment=establishment, signed=signed)
    protected = wrap(security, request, envelope)
    inner = verify_general_signing(theirs, protected)[1] if signed else protected
    assert unwrap(theirs, inner).plaintext == request


@pytest.mark.parametrize("suite", [0, 1, 2])
def test_their_client_manages_our_security_setup(suite):
    from pydlms.security.hls import Mechanism
    from pydlms.security.keywrap import KeyId

    keys = Keys(suite)
    ours = keys.ours()
    setup = SecuritySetup(ours, US, suite=suite, client_system_title=lambda: THEM)
    device, service = our_device(
        setup.cosem_object(),
        mechanism=AuthenticationMechanism.HLS_GMAC,
        keys=ours,
        security_suite=suite,
        policy=lambda: setup.policy,
    )
    setup.holder = device
    with service:
        with their_client(service.port, mechanism=Mechanism.HLS_GMAC, security=keys.theirs()) as client:
            client.security_activate(0x6C)
            keys.encryption = bytes(range(50, 50 + len(keys.encryption)))
            client.transfer_keys({KeyId.GLOBAL_UNICAST_ENCRYPTION: keys.encryption})
            assert client.get("0.0.43.0.0.255", 64, 2).value == 0x6C
        if suite:
            with their_client(service.port, mechanism=Mechanism.HLS_GMAC, security=keys.theirs()) as client:
                agreed = client.agree_keys([KeyId.GLOBAL_UNICAST_ENCRYPTION, KeyId.AUTHENTICATION])
                keys.encryption = agreed[KeyId.GLOBAL_UNICAST_ENCRYPTION]
                keys.authentication = agreed[KeyId.AUTHENTICATION]
                client.generate_key_pair(0)
                request = client.certificate_request(0)
                assert request.is_signature_valid
        with their_client(service.port, mechanism=Mechanism.HLS_GMAC, security=keys.theirs()) as client:
            assert client.get("0.0.43.0.0.255", 64, 3).value == suite


def test_their_client_sends_our_meter_an_image():
    from pydlms.image import transfer_image

    installed = []
    image = ImageTransfer(
        100,
        lambda name, octets: (Outcome.DONE, (ImageToActivate(len(octets), name, b"signature"),)),
        lambda _, octets: installed.append(octets) or Outcome.DONE,
    )
    image.enabled = True
    _, service = our_device(image.cosem_object())
    with service, their_client(service.port) as client:
        transfer_image(client, LONG, b"firmware", activate=True, poll=0.01)
    assert installed == [LONG]


@pytest.mark.parametrize("gbt", [False, True])
def test_their_client_writes_lists_and_invokes_and_accesses(gbt):
    from pydlms.client import AccessAction, AccessGet
    from pydlms.cosem.data import DlmsData

    _, service = our_device()
    value = DlmsData.octet_string(bytes(1500))
    with service, their_client(service.port, propose_access=True, propose_gbt=gbt, gbt_window=4) as client:
        results = client.set_many([(NAME, 1, 2, value), ("0.0.96.1.8.255", 1, 2, value)])
        assert [int(result) for result in results] == [0, 4]
        assert client.get(NAME, 1, 2).value == bytes(1500)
        assert client.action(NAME, 1, 1, value).value == bytes(1500)
        short = DlmsData.octet_string(b"short")
        # Their client takes the answer to a list in one piece only.
        many = client.action_many([(NAME, 1, 1, short), (NAME, 1, 1, short)])
        assert [item.value for item in many] == [b"short"] * 2
        client.set(NAME, 1, 2, short)
        outcomes = client.access([AccessGet(NAME), AccessAction(NAME, 1, 1, short)])
        assert [outcome.data.value for outcome in outcomes] == [b"short", b"short"]


@pytest.mark.parametrize("lost", [set(), {2, 3, 5}], ids=["clean", "lossy"])
@pytest.mark.parametrize("gbt", [False, True])
def test_our_client_writes_lists_and_invokes_and_accesses(gbt, lost):
    from pydlms.apdu.xdlms import Conformance as TheirConformance
    from pydlms.simulator import example_meter, serve

    meter = example_meter(max_pdu=200)
    meter.conformance |= TheirConformance.GENERAL_BLOCK_TRANSFER
    meter.gbt_window, meter.drop_gbt_requests = 4, set(lost) if gbt else set()
    obis = "0.0.96.1.0.255"
    meter.add_method(1, obis, 1, lambda _meter, parameters: parameters)
    service = serve(meter)
    blocks = Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE | Conformance.BLOCK_TRANSFER_WITH_ACTION
    conformance = DEFAULT_CONFORMANCE | Conformance.ACCESS
    conformance = conformance & ~blocks | Conformance.GENERAL_BLOCK_TRANSFER if gbt else conformance
    client = Client(ClientSettings(conformance=conformance, max_pdu_size=200))
    serial = AttributeDescriptor(1, Obis.parse(obis), 2)
    missing = AttributeDescriptor(1, THING, 2)
    echo = MethodDescriptor(1, Obis.parse(obis), 1)
    long = axdr.octet_string(LONG)
    with WrapperWire(service.server_address[1], 16, timeout=0.3) as wire:
        wire.run(client.associate())
        results = wire.run(client.set_many([(serial, long), (missing, axdr.NULL)]))
        assert results[0] is None
        assert isinstance(results[1], AccessError)
        assert wire.run(client.get(serial)) == long
        assert wire.run(client.action(echo, long)) == long
        short = axdr.octet_string(b"short")
        assert wire.run(client.action_many([(echo, short), (echo, short)])) == [short, short]
        wire.run(client.set(serial, short))
        read = AccessSpecification(AccessKind.GET, serial)
        act = AccessSpecification(AccessKind.ACTION, echo)
        assert wire.run(client.access([(read, None), (act, short)])) == [short, short]
        wire.run(client.release())
        assert wire.longest_window == (4 if gbt else 1)
    # Blocks lost within a window are told by the meter; only the last of a window is missed by us.
    assert client.repetitions <= (len(lost) if gbt else 0)
    assert not meter.drop_gbt_requests
    service.shutdown()
    service.server_close()


def test_their_client_reads_our_meter_by_short_names():
    from pydlms.cosem.data import DlmsData

    _, service = our_device(short_names=True, conformance=SHORT_NAME_CONFORMANCE)
    with service, their_client(service.port, logical_names=False) as client:
        assert client.get(NAME, 1, 2).value == LONG
        client.set(NAME, 1, 2, DlmsData.octet_string(bytes(1500)))
        assert client.get(NAME, 1, 2).value == bytes(1500)


def test_our_client_reads_their_meter_by_short_names():
    from pydlms.apdu.xdlms import Conformance as TheirConformance
    from pydlms.simulator import example_meter, serve

    meter = example_meter(max_pdu=200, conformance=TheirConformance(int(DEFAULT_SHORT_NAME_CONFORMANCE)))
    service = serve(meter)
    client = ShortNameClient(ClientSettings(conformance=DEFAULT_SHORT_NAME_CONFORMANCE, max_pdu_size=200))
    with WrapperWire(service.server_address[1], 16) as wire:
        wire.run(client.associate())
        energy = AttributeDescriptor(3, Obis(1, 0, 1, 8, 0, 255), 2)
        serial = AttributeDescriptor(1, Obis.parse("0.0.96.1.0.255"), 2)
        assert wire.run(client.get(energy)).integer() == 12345678
        assert wire.run(client.get_many([energy, serial]))[1].text() == "PYD0000000001"
        wire.run(client.set(serial, axdr.octet_string(LONG)))
        assert wire.run(client.get(serial)).octets() == LONG
        wire.run(client.release())
    service.shutdown()
    service.server_close()


@pytest.mark.parametrize("suite", [1, 2])
def test_their_client_manages_our_certificates(suite):
    from pydlms.security.certificates import CertificateEntity, CertificateSelector
    from pydlms.security.certificates import CertificateType as TheirType
    from pydlms.security.hls import Mechanism

    keys = Keys(suite)
    ours = keys.ours()
    root = elliptic.generate_private_key(suite)
    authority = Certificate.from_bytes(
        certificate(root.public_key(), "Root", issuer_key=root, ca=True, serial=1)
    )
    setup = SecuritySetup(
        ours, US, suite=suite, client_system_title=lambda: THEM, authorities=(authority,),
        now=lambda: datetime(2026, 7, 1, tzinfo=UTC),
    )  # fmt: skip
    device, service = our_device(
        setup.cosem_object(), mechanism=AuthenticationMechanism.HLS_GMAC, keys=ours, security_suite=suite
    )
    setup.holder = device
    fresh = elliptic.generate_private_key(suite).public_key()
    shown = certificate(fresh, THEM.hex().upper(), issuer="Root", issuer_key=root)
    with (
        service,
        their_client(service.port, mechanism=Mechanism.HLS_GMAC, security=keys.theirs()) as client,
    ):
        client.import_certificate(shown)
        assert ours.peer_signing.public_numbers() == fresh.public_numbers()
        listed = client.get("0.0.43.0.0.255", 64, 6).value
        assert len(listed) == 2
        loaded = x509.load_der_x509_certificate(shown)
        selectors = [
            CertificateSelector.by_entity_type(CertificateEntity.CLIENT, TheirType.DIGITAL_SIGNATURE, THEM),
            CertificateSelector.by_serial_issuer(*[bytes(listed[1].value[n].value) for n in (2, 3)]),
        ]
        for selector in selectors:
            assert client.export_certificate(selector).certificate == loaded
        client.remove_certificate(selectors[0])
        assert len(client.get("0.0.43.0.0.255", 64, 6).value) == 1
