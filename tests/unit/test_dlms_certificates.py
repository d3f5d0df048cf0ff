"""Certificates that peers show, import, export and remove: whom to believe, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest
from test_dlms_objects import CLIENT, METER, Secured

from concentrator.dlms import apdu, axdr, elliptic
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.certificates import Certificate, CertificateType, TrustAnchors
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem.objects import data
from concentrator.dlms.cosem.security_setup import SECURITY_SETUP, SecuritySetup
from concentrator.dlms.errors import AccessError, AssociationRejectedError, DecodeError, SecurityError
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.obis import Obis

from dlms_certificates import certificate
from dlms_talk import talk

ECDSA = AuthenticationMechanism.HLS_ECDSA
THING = Obis(0, 0, 96, 1, 9, 255)
VALID = datetime(2026, 7, 1, tzinfo=UTC)


class Authority:
    def __init__(self, suite=1, name="Root"):
        self.key = elliptic.generate_private_key(suite)
        self.name = name
        own = certificate(self.key.public_key(), name, issuer_key=self.key, ca=True, serial=1)
        self.certificate = Certificate.from_bytes(own)

    def issue(self, key, title, usage=CertificateType.DIGITAL_SIGNATURE):
        return certificate(
            key.public_key(), title.hex().upper(), issuer=self.name, issuer_key=self.key, usage=usage
        )

    def trusted(self, now=VALID):
        return TrustAnchors([self.certificate], lambda: now)


class Parties:
    """A meter and a client that know each other by their certificates only."""

    def __init__(self, suite=1):
        self.suite = suite
        self.authority = Authority(suite)
        self.client_key, self.meter_key = [elliptic.generate_private_key(suite) for _ in range(2)]
        self.client_certificate = self.authority.issue(self.client_key, CLIENT)
        self.meter_certificate = self.authority.issue(self.meter_key, METER)
        self.client_trust = self.meter_trust = self.authority.trusted()
        self.known = None
        self.aarq = None

    def dialogue(self, *, ciphered=True):
        length = 32 if self.suite == 2 else 16
        shared = bytes(range(length)), bytes(range(1, length + 1))
        definition = AssociationDefinition(
            16, ECDSA, keys=SecurityKeys(*shared, signing=self.meter_key, peer_signing=self.known),
            security_suite=self.suite, ciphered=ciphered, trust=self.meter_trust,
        )  # fmt: skip
        device = LogicalDevice(
            1,
            [data(THING, axdr.unsigned(7))],
            [definition],
            system_title=METER,
            certificate=self.meter_certificate,
        )
        server = Server([device])
        client = Client(
            ClientSettings(
                mechanism=ECDSA, keys=SecurityKeys(*shared, signing=self.client_key), system_title=CLIENT,
                security_suite=self.suite, ciphered=ciphered, certificate=self.client_certificate,
                trust=self.client_trust,
            ),
            MemoryCounter(1),
        )  # fmt: skip
        talk(server, client.associate())
        assert talk(server, client.get(AttributeDescriptor(1, THING, 2))).integer() == 7


@pytest.mark.parametrize("ciphered", [False, True])
@pytest.mark.parametrize("suite", [1, 2])
def test_both_sides_prove_themselves_by_their_certificates(suite, ciphered):
    parties = Parties(suite)
    parties.dialogue(ciphered=ciphered)
    parties.known = parties.client_key.public_key()
    parties.dialogue(ciphered=ciphered)


def test_aarq_and_aare_carry_them_as_ae_qualifiers():
    parties = Parties()
    settings = ClientSettings(
        mechanism=ECDSA, keys=SecurityKeys(bytes(16), bytes(16), signing=parties.client_key),
        system_title=CLIENT, security_suite=1, certificate=parties.client_certificate,
    )  # fmt: skip
    (request,) = next(Client(settings, MemoryCounter(1)).associate())
    aarq = apdu.decode(request)
    assert aarq.calling_ae_qualifier == parties.client_certificate
    assert aarq.calling_ap_title == CLIENT


@pytest.mark.parametrize("who", ["client", "meter"])
@pytest.mark.parametrize(
    "flaw", ["authority", "title", "purpose", "too early", "too late", "other key", "noise"]
)
def test_what_is_not_to_be_believed_is_refused(who, flaw):
    parties = Parties()
    key, title = (parties.client_key, CLIENT) if who == "client" else (parties.meter_key, METER)
    shown = {
        "authority": lambda: Authority(name="Somebody").issue(key, title),
        "title": lambda: parties.authority.issue(key, b"ODCOTHER"),
        "purpose": lambda: parties.authority.issue(key, title, CertificateType.KEY_AGREEMENT),
        "other key": lambda: parties.authority.issue(elliptic.generate_private_key(1), title),
        "noise": lambda: b"\x30\x03\x02\x01\x00",
    }.get(flaw)
    if shown is not None:
        setattr(parties, f"{who}_certificate", shown())
    else:
        now = VALID + timedelta(days=-1000 if flaw == "too early" else 5000)
        setattr(parties, "meter_trust" if who == "client" else "client_trust", parties.authority.trusted(now))
    with pytest.raises((AssociationRejectedError, SecurityError, DecodeError)):
        parties.dialogue()


def test_a_key_that_is_set_up_is_not_replaced_by_a_certificate():
    parties = Parties()
    parties.known = elliptic.generate_private_key(1).public_key()
    with pytest.raises(AssociationRejectedError):
        parties.dialogue()


def test_without_a_clock_validity_is_not_looked_at():
    authority = Authority()
    key = elliptic.generate_private_key(1)
    shown = authority.issue(key, METER)
    TrustAnchors([authority.certificate]).signing_key(shown, METER)
    with pytest.raises(SecurityError, match=r"valid from 2026-01-01 to 20\d\d-\d\d-\d\d, and not on 2050"):
        authority.trusted(datetime(2050, 1, 1, tzinfo=UTC)).signing_key(shown, METER)


@pytest.mark.parametrize("suite", [1, 2])
def test_an_expired_certificate_is_not_imported(suite):
    meter = Secured(suite)
    shown = meter.issue(elliptic.generate_private_key(suite).public_key(), CLIENT)
    times = []
    meter.setup._trust = TrustAnchors([meter.authority], lambda: times[-1])
    for now in (datetime(2020, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)):
        times.append(now)
        with pytest.raises(AccessError):
            meter.method(6, axdr.octet_string(shown))
    times.append(VALID)
    meter.method(6, axdr.octet_string(shown))
    listed = meter.get(64, SECURITY_SETUP, 6).items()
    assert len(listed) == 2
    by_title = axdr.structure(
        axdr.enumeration(0),
        axdr.structure(axdr.enumeration(1), axdr.enumeration(0), axdr.octet_string(CLIENT)),
    )
    assert meter.method(7, by_title).octets() == shown
    meter.method(8, by_title)
    with pytest.raises(AccessError):
        meter.method(7, by_title)


def test_the_setup_takes_its_time_from_the_device():
    authority = Authority()
    keys = SecurityKeys(bytes(16), bytes(16))
    for now, taken in ((VALID, True), (datetime(2050, 1, 1, tzinfo=UTC), False)):
        setup = SecuritySetup(
            keys, METER, suite=1, authorities=(authority.certificate,), now=lambda now=now: now
        )
        method = setup.cosem_object().methods[6]
        shown = axdr.octet_string(authority.issue(elliptic.generate_private_key(1), CLIENT))
        if taken:
            assert method(shown) is None
        else:
            with pytest.raises(AccessError):
                method(shown)
