"""Security setup, Image transfer and Push setup, as a client sees them."""

import random

import pytest

from concentrator.dlms import axdr, elliptic
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.certificates import Certificate, CertificateType, read_certificate_request
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import ActionResult, AuthenticationMechanism
from concentrator.dlms.cosem.image_transfer import (
    IMAGE_TRANSFER,
    ImageToActivate,
    ImageTransfer,
    ImageTransferStatus,
    Outcome,
)
from concentrator.dlms.cosem.security_setup import SECURITY_SETUP, SecurityPolicy, SecuritySetup
from concentrator.dlms.errors import AccessError, AssociationRejectedError
from concentrator.dlms.key_agreement import KeyAgreement, KeyId, wrapped_keys
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server

from dlms_certificates import certificate
from dlms_talk import talk

CLIENT, METER = b"ODCTEST1", b"ODCMETER"


class Device:
    """A meter with these objects, and a client that is associated with it."""

    def __init__(self, *objects, **definition):
        self.device = LogicalDevice(1, objects, [AssociationDefinition(16, **definition)], system_title=METER)
        self.server = Server([self.device])

    def associate(self, **settings):
        self.client = Client(
            ClientSettings(system_title=CLIENT, meter_system_title=METER, **settings), MemoryCounter(1)
        )
        talk(self.server, self.client.associate())
        return self

    def get(self, class_id, obis, attribute):
        return talk(self.server, self.client.get(AttributeDescriptor(class_id, obis, attribute)))

    def set(self, class_id, obis, attribute, value):
        talk(self.server, self.client.set(AttributeDescriptor(class_id, obis, attribute), value))

    def act(self, class_id, obis, method, parameters=None):
        return talk(self.server, self.client.action(MethodDescriptor(class_id, obis, method), parameters))


# Security setup


class Secured(Device):
    def __init__(self, suite, version=1, **more):
        length = 32 if suite == 2 else 16
        shared = bytes(range(length)), bytes(range(1, length + 1))
        self.master = bytes(range(2, length + 2))
        pairs = [elliptic.generate_private_key(suite) for _ in range(2)] if suite else [None, None]
        public = [pair.public_key() if pair else None for pair in pairs]
        self.mine = SecurityKeys(*shared, signing=pairs[0], peer_signing=public[1])
        self.theirs = SecurityKeys(*shared, master=self.master, signing=pairs[1], peer_signing=public[0])
        self.root = elliptic.generate_private_key(suite or 1)
        root = certificate(self.root.public_key(), "Root", issuer_key=self.root, ca=True, serial=1)
        self.authority = Certificate.from_bytes(root)
        self.setup = SecuritySetup(
            self.theirs,
            METER,
            suite=suite,
            version=version,
            client_system_title=lambda: CLIENT,
            authorities=(self.authority,),
        )
        self.suite = suite
        super().__init__(
            self.setup.cosem_object(),
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=self.theirs,
            security_suite=suite,
            policy=lambda: self.setup.policy,
            **more,
        )
        self.setup.holder = self.device
        self.again(security_policy=more.get("security_policy", 0x30))

    def again(self, **changed):
        self.associate(
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=self.mine,
            security_suite=self.suite,
            **changed,
        )

    def method(self, number, parameters=None):
        return self.act(64, SECURITY_SETUP, number, parameters)

    def issue(self, public, title, usage=CertificateType.DIGITAL_SIGNATURE, issuer_key=None):
        return certificate(
            public, title.hex().upper(), issuer="Root", issuer_key=issuer_key or self.root, usage=usage
        )


@pytest.mark.parametrize("version", [0, 1])
def test_the_policy_is_raised_and_never_lowered(version):
    meter = Secured(0, version, security_policy=0x20)
    authenticated = 1 if version == 0 else 0x24
    meter.method(1, axdr.enumeration(authenticated))
    assert meter.get(64, SECURITY_SETUP, 2) == axdr.enumeration(authenticated)
    assert meter.get(64, SECURITY_SETUP, 5).octets() == METER
    with pytest.raises(AccessError):
        meter.method(1, axdr.enumeration(0))
    for nonsense in (4 if version == 0 else 1, 0x90 if version else 255):
        with pytest.raises(AccessError):
            meter.method(1, axdr.enumeration(nonsense))
    meter.device.keys_changed()
    with pytest.raises(AssociationRejectedError):
        meter.again(security_policy=0x20)
    meter.again(security_policy=0x30)
    assert meter.setup.policy & SecurityPolicy.AUTHENTICATED_REQUEST


@pytest.mark.parametrize("suite", [0, 1, 2])
def test_keys_are_transferred_and_used_from_the_next_association_on(suite):
    meter = Secured(suite)
    new = bytes(range(100, 100 + len(meter.mine.encryption)))
    transfer = wrapped_keys(meter.master, {KeyId.GLOBAL_UNICAST: new, KeyId.AUTHENTICATION: new})
    meter.method(2, transfer)
    # This association goes on with the keys that it was opened with.
    assert meter.get(64, SECURITY_SETUP, 3) == axdr.enumeration(suite)
    meter.mine = SecurityKeys(new, new)
    meter.again()
    assert meter.get(64, SECURITY_SETUP, 3) == axdr.enumeration(suite)
    with pytest.raises(AccessError):
        meter.method(2, wrapped_keys(new, {KeyId.GLOBAL_UNICAST: new}))
    with pytest.raises(AccessError):
        meter.method(2, axdr.array(axdr.structure(axdr.enumeration(9), axdr.octet_string(new))))
    assert meter.theirs.encryption == new


@pytest.mark.parametrize("suite", [1, 2])
def test_keys_are_agreed_over_the_line(suite):
    meter = Secured(suite)
    agreement = KeyAgreement(suite, meter.mine.signing, meter.mine.peer_signing, CLIENT, METER)
    answer = meter.method(3, agreement.offer([KeyId.GLOBAL_UNICAST, KeyId.AUTHENTICATION]))
    keys = agreement.agree(answer)
    meter.mine = SecurityKeys(keys[KeyId.GLOBAL_UNICAST], keys[KeyId.AUTHENTICATION])
    meter.again()
    assert meter.get(64, SECURITY_SETUP, 3) == axdr.enumeration(suite)
    stranger = elliptic.generate_private_key(suite)
    forged = KeyAgreement(suite, stranger, stranger.public_key(), CLIENT, METER)
    with pytest.raises(AccessError):
        meter.method(3, forged.offer([KeyId.GLOBAL_UNICAST]))
    assert meter.theirs.encryption == keys[KeyId.GLOBAL_UNICAST]


@pytest.mark.parametrize("suite", [1, 2])
def test_a_key_pair_comes_into_use_with_its_certificate(suite):
    meter = Secured(suite)
    old = meter.theirs.signing
    meter.method(4, axdr.enumeration(0))
    title, public = read_certificate_request(meter.method(5, axdr.enumeration(0)).octets())
    assert title == METER
    assert meter.theirs.signing is old
    issued = meter.issue(public, METER)
    meter.method(6, axdr.octet_string(issued))
    elliptic.verify(public, b"text", elliptic.sign(meter.theirs.signing, b"text"))
    by_entity = axdr.structure(
        axdr.enumeration(0),
        axdr.structure(axdr.enumeration(0), axdr.enumeration(0), axdr.octet_string(METER)),
    )
    assert meter.method(7, by_entity).octets() == issued
    listed = meter.get(64, SECURITY_SETUP, 6).items()
    assert [item.items()[0].value for item in listed] == [2, 0]
    by_serial = axdr.structure(
        axdr.enumeration(1), axdr.structure(listed[1].items()[2], listed[1].items()[3])
    )
    assert meter.method(7, by_serial).octets() == issued
    meter.method(8, by_serial)
    with pytest.raises(AccessError, match="object-undefined"):
        meter.method(7, by_entity)
    root = axdr.structure(axdr.enumeration(1), axdr.structure(listed[0].items()[2], listed[0].items()[3]))
    with pytest.raises(AccessError, match="denied"):
        meter.method(8, root)


def test_certificates_of_the_client_give_its_keys_and_others_are_refused():
    meter = Secured(1)
    signing, agreement = (elliptic.generate_private_key(1) for _ in range(2))
    meter.method(6, axdr.octet_string(meter.issue(signing.public_key(), CLIENT)))
    meter.method(
        6, axdr.octet_string(meter.issue(agreement.public_key(), CLIENT, CertificateType.KEY_AGREEMENT))
    )
    assert elliptic.public_octets(meter.theirs.peer_signing) == elliptic.public_octets(signing.public_key())
    assert elliptic.public_octets(meter.theirs.peer_agreement) == elliptic.public_octets(
        agreement.public_key()
    )
    stranger = elliptic.generate_private_key(1)
    for refused in (
        meter.issue(stranger.public_key(), CLIENT, issuer_key=stranger),
        meter.issue(elliptic.generate_private_key(2).public_key(), CLIENT),
        # For the meter itself, but not for a key pair that it made.
        meter.issue(stranger.public_key(), METER),
        b"no certificate",
    ):
        with pytest.raises(AccessError):
            meter.method(6, axdr.octet_string(refused))
    assert elliptic.public_octets(meter.theirs.peer_signing) == elliptic.public_octets(signing.public_key())
    for method in range(1, 9):
        for nonsense in (None, axdr.NULL, axdr.array(), axdr.structure(axdr.enumeration(7), axdr.NULL)):
            if method == 2 and nonsense == axdr.array():
                continue
            if method == 3 and nonsense == axdr.array():
                continue
            with pytest.raises(AccessError):
                meter.method(method, nonsense)
    assert "hidden" in repr(meter.theirs)


# Image transfer


class Updatable(Device):
    def __init__(self, block_size=100):
        self.verdicts = [Outcome.DONE]
        self.installed = b""
        self.image = ImageTransfer(block_size, self.verify, self.activate)
        super().__init__(self.image.cosem_object())
        self.associate()

    def verify(self, identification, octets):
        return self.verdicts.pop(0), (ImageToActivate(len(octets), identification, b"signature"),)

    def activate(self, _images, octets):
        self.installed = octets
        return self.verdicts.pop(0)

    def read(self, attribute):
        return self.get(18, IMAGE_TRANSFER, attribute).native

    def method(self, number, *parameters):
        value = axdr.structure(*parameters) if parameters else axdr.integer(0)
        self.act(18, IMAGE_TRANSFER, number, value)

    def initiate(self, octets):
        self.method(1, axdr.octet_string(b"image"), axdr.double_long_unsigned(len(octets)))

    def block(self, number, octets):
        self.method(2, axdr.double_long_unsigned(number), axdr.octet_string(octets))


IMAGE = bytes(random.Random(5).randrange(256) for _ in range(950))


def test_an_image_is_sent_in_any_order_checked_and_used():
    meter = Updatable()
    assert (meter.read(2), meter.read(5), meter.read(6)) == (100, True, ImageTransferStatus.NOT_INITIATED)
    meter.initiate(IMAGE)
    order = [0, 1, 4, 9, 8, 3, 6]
    for number in order:
        meter.block(number, IMAGE[number * 100 :][:100])
    assert meter.read(3) == "1101101011"
    assert meter.read(4) == 2
    with pytest.raises(AccessError, match="other-reason"):
        meter.method(3)
    assert meter.read(6) == ImageTransferStatus.INITIATED
    for number in (2, 5, 7, 7):
        meter.block(number, IMAGE[number * 100 :][:100])
    assert (meter.read(3), meter.read(4)) == ("1" * 10, 10)
    meter.verdicts = [Outcome.PENDING, Outcome.DONE, Outcome.PENDING, Outcome.DONE]
    with pytest.raises(AccessError, match="temporary-failure"):
        meter.method(3)
    assert meter.read(6) == ImageTransferStatus.VERIFICATION_INITIATED
    meter.method(3)
    assert meter.read(7) == [[950, b"image", b"signature"]]
    with pytest.raises(AccessError, match="temporary-failure"):
        meter.method(4)
    assert meter.read(6) == ImageTransferStatus.ACTIVATION_INITIATED
    meter.method(4)
    assert meter.read(6) == ImageTransferStatus.ACTIVATION_SUCCESSFUL
    assert meter.installed == IMAGE


def test_initiating_erases_and_resuming_does_not():
    meter = Updatable()
    meter.initiate(IMAGE)
    meter.block(3, IMAGE[300:400])
    meter.server.link_lost()
    meter.associate()
    assert meter.read(3) == "0001000000"
    meter.initiate(IMAGE[:250])
    assert meter.read(3) == "000"


@pytest.mark.parametrize(
    ("number", "octets", "result"),
    [
        (10, bytes(100), ActionResult.SCOPE_OF_ACCESS_VIOLATED),
        (0xFFFFFFFF, bytes(100), ActionResult.SCOPE_OF_ACCESS_VIOLATED),
        (0, bytes(99), ActionResult.TYPE_UNMATCHED),
        (9, bytes(100), ActionResult.TYPE_UNMATCHED),
        (0, b"", ActionResult.TYPE_UNMATCHED),
    ],
)
def test_blocks_that_do_not_belong_are_refused(number, octets, result):
    meter = Updatable()
    meter.initiate(IMAGE)
    with pytest.raises(AccessError) as refusal:
        meter.block(number, octets)
    assert refusal.value.result == result
    assert meter.read(3) == "0" * 10


def test_images_that_cannot_be_are_refused():
    meter = Updatable()
    with pytest.raises(AccessError):
        meter.block(0, bytes(100))
    for size in (0, 2**32 - 1):
        with pytest.raises(AccessError):
            meter.method(1, axdr.octet_string(b"image"), axdr.double_long_unsigned(size))
    meter.initiate(IMAGE[:100])
    meter.block(0, IMAGE[:100])
    meter.verdicts = [Outcome.FAILED]
    with pytest.raises(AccessError):
        meter.method(3)
    assert meter.read(6) == ImageTransferStatus.VERIFICATION_FAILED
    with pytest.raises(AccessError):
        meter.method(4)
    meter.initiate(IMAGE[:100])
    meter.block(0, IMAGE[:100])
    meter.verdicts = [Outcome.DONE, Outcome.FAILED]
    with pytest.raises(AccessError):
        meter.method(4)
    assert meter.read(6) == ImageTransferStatus.ACTIVATION_FAILED
    meter.set(18, IMAGE_TRANSFER, 5, axdr.boolean(False))
    with pytest.raises(AccessError, match="denied"):
        meter.initiate(IMAGE)
