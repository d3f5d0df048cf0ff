"""Suites 1 and 2: the standard's own numbers, and what must be refused."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from concentrator.dlms import apdu, elliptic
from concentrator.dlms.certificates import (
    Certificate,
    CertificateType,
    certificate_request,
    read_certificate_request,
)
from concentrator.dlms.envelopes import PLAIN, Envelope, EnvelopeKind, KeyEstablishment, unwrap, wrap
from concentrator.dlms.errors import DecodeError, EncodeError, ReplayError, SecurityError
from concentrator.dlms.key_agreement import KeyAgreement, KeyId, unwrapped_keys, wrapped_keys
from concentrator.dlms.security import BOTH, MemoryCounter, SecurityContext, SecurityKeys

from dlms_certificates import certificate

CLIENT, SERVER = bytes.fromhex("4d4d4d0000bc614e"), bytes.fromhex("4d4d4d0000000001")
PLAIN_APDU = bytes.fromhex("c001c100080000010000ff0200")
LENGTHS = {1: 16, 2: 32}


def private(hexadecimal):
    return ec.derive_private_key(int(hexadecimal, 16), ec.SECP256R1())


def test_ephemeral_unified_model_of_the_green_book():
    # IEC 62056-5-3, annex I.1: key_agreement of the global unicast key.
    own = private("34a8c23a34dbb519d09b245754c85a6cfe05d14a063efa5aa41545aa8241efae")
    peer = elliptic.public_key(
        1,
        bytes.fromhex(
            "2914d60e10ab705f62ed6cc349d7cb99b9ab3f3978e59278c7af595b3af98794"
            "1372dab6d5af1fa867e134167e6f23de664a6693e05f43414611058d1b48f894"
        ),
    )
    secret = elliptic.shared_secret(own, peer)
    assert secret.hex() == "c1cf8fe7891aef3617d7190795e61fe6c24efc3cca2e08469bad1a225ce6ea08"
    assert elliptic.derive_key(1, secret, CLIENT, SERVER).hex() == "c5f4512846ede51cfb8ccf59f08a694e"


def test_one_pass_diffie_hellman_of_the_green_book():
    # IEC 62056-5-3, annex I.2: the key of a general-ciphering APDU.
    static = private("aad3fd0732e991cf52a74c66c1f2827ddc53522a2e0a169d7c4ffcc0fb5d6a4d")
    ephemeral = private("47dab03842e5b6e74828ef4f449b378d7dd1a5dae1ffca5ae0b0be0ad18ec57e")
    point = elliptic.public_octets(ephemeral.public_key())
    assert point.hex().startswith("c323c2bd45711de4688637d919f92e9db8fb2dfc213a88d21c9dc8dcba917d81")
    secret = elliptic.shared_secret(static, elliptic.public_key(1, point))
    assert secret.hex() == "0d4385ba0dd756cbcab9887eb538396ee8f090a14c1079b4359f115b977f4615"
    assert elliptic.derive_key(1, secret, CLIENT, SERVER).hex() == "59a71fd81c929a86a99438da17a66c05"


@pytest.fixture(params=[1, 2])
def suite(request):
    return request.param


def keys_for(suite):
    """Keys of both sides, which know each other's public ones."""
    signing = [elliptic.generate_private_key(suite) for _ in range(2)]
    agreement = [elliptic.generate_private_key(suite) for _ in range(2)]
    length = LENGTHS[suite]
    shared = bytes(range(length)), bytes(range(1, length + 1)), bytes(range(2, length + 2))
    return [
        SecurityKeys(
            *shared,
            master=bytes(range(3, length + 3)),
            signing=signing[me],
            agreement=agreement[me],
            peer_signing=signing[1 - me].public_key(),
            peer_agreement=agreement[1 - me].public_key(),
        )
        for me in range(2)
    ]


def contexts(suite, keys=None, **more):
    client, server = keys or keys_for(suite)
    return (
        SecurityContext(client, CLIENT, MemoryCounter(), peer_system_title=SERVER, suite=suite, **more),
        SecurityContext(server, SERVER, MemoryCounter(), peer_system_title=CLIENT, suite=suite, **more),
    )


ENVELOPES = [
    *[Envelope(EnvelopeKind.GENERAL_CIPHERING, establishment=e) for e in KeyEstablishment],
    *[Envelope(EnvelopeKind.GENERAL_CIPHERING, establishment=e, signed=True) for e in KeyEstablishment],
    Envelope(EnvelopeKind.GENERAL, signed=True),
    Envelope(EnvelopeKind.SERVICE_SPECIFIC, signed=True),
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=str)
@pytest.mark.parametrize("header_authenticated", [False, True])
@pytest.mark.parametrize("length_signed", [False, True])
def test_every_envelope_both_ways(suite, envelope, header_authenticated, length_signed):
    client, server = contexts(
        suite,
        signed=envelope.signed,
        header_authenticated=header_authenticated,
        length_signed=length_signed,
    )
    protected = wrap(client, PLAIN_APDU, envelope)
    assert PLAIN_APDU not in protected
    decoded = apdu.decode(protected)
    assert decoded.to_bytes() == protected
    found = replace(envelope, control=0 if envelope.kind == EnvelopeKind.PLAIN else BOTH)
    assert unwrap(server, decoded) == (PLAIN_APDU, found)
    with pytest.raises(ReplayError):
        unwrap(server, decoded)
    assert server.replays == 1
    assert unwrap(client, apdu.decode(wrap(server, PLAIN_APDU, envelope))) == (PLAIN_APDU, found)


@pytest.mark.parametrize("envelope", ENVELOPES, ids=str)
def test_every_octet_of_an_envelope_counts(envelope):
    client, server = contexts(1, signed=envelope.signed)
    protected = wrap(client, PLAIN_APDU, envelope)
    for index in range(1, len(protected)):
        altered = bytearray(protected)
        altered[index] ^= 0x01
        # Altered transaction-ids and such are told too: the header is authenticated.
        with pytest.raises((DecodeError, SecurityError)):
            unwrap(server, apdu.decode(bytes(altered)))
    assert unwrap(server, apdu.decode(protected))[0] == PLAIN_APDU


def test_a_signature_alone_protects_a_plain_association(suite):
    client, server = contexts(suite, policy=0, signed=True)
    signed = wrap(client, PLAIN_APDU, Envelope(EnvelopeKind.PLAIN, signed=True))
    assert PLAIN_APDU in signed
    plain, envelope = unwrap(server, apdu.decode(signed))
    assert (plain, envelope.kind, envelope.signed) == (PLAIN_APDU, EnvelopeKind.PLAIN, True)
    with pytest.raises(ReplayError):
        unwrap(server, apdu.decode(signed))
    with pytest.raises(SecurityError, match="without signature"):
        unwrap(server, apdu.decode(wrap(client, PLAIN_APDU, Envelope(EnvelopeKind.GENERAL))))
    assert wrap(client, PLAIN_APDU, PLAIN) == PLAIN_APDU


def test_signed_plain_is_refused_where_ciphered_is_agreed():
    client, server = contexts(1, signed=True)
    with pytest.raises(SecurityError, match="ciphered is agreed"):
        unwrap(server, apdu.decode(wrap(client, PLAIN_APDU, Envelope(EnvelopeKind.PLAIN, signed=True))))


@pytest.mark.parametrize("envelope", ENVELOPES[2:], ids=str)
def test_another_peer_cannot_stand_in(envelope):
    keys = keys_for(1)
    stranger = keys_for(1)[0]
    for name in ("signing", "agreement", "master"):
        forged = SecurityKeys(
            keys[0].encryption,
            keys[0].authentication,
            bytes(16),
            master=stranger.master if name != "master" else bytes(16),
            signing=stranger.signing,
            agreement=stranger.agreement,
            peer_agreement=keys[0].peer_agreement,
        )
        attacker, server = contexts(1, [forged, keys[1]], signed=envelope.signed)
        if envelope.establishment == KeyEstablishment.WRAPPED and name != "master" and not envelope.signed:
            continue
        with pytest.raises(SecurityError):
            unwrap(server, apdu.decode(wrap(attacker, PLAIN_APDU, envelope)))


def test_apdus_for_others_and_missing_keys_are_refused():
    client, _ = contexts(1)
    bystander = SecurityContext(client.keys, b"OTHERONE", MemoryCounter(), peer_system_title=CLIENT, suite=1)
    for kind in (EnvelopeKind.GENERAL_CIPHERING,):
        with pytest.raises(SecurityError, match="came to"):
            unwrap(bystander, apdu.decode(wrap(client, PLAIN_APDU, Envelope(kind))))
    bare = SecurityContext(
        SecurityKeys(bytes(16)), CLIENT, MemoryCounter(), peer_system_title=SERVER, suite=1
    )
    for envelope in ENVELOPES[1:]:
        with pytest.raises(EncodeError, match="not set up"):
            wrap(bare, PLAIN_APDU, envelope)
        with pytest.raises(SecurityError, match=r"not set up|without signature"):
            unwrap(
                SecurityContext(SecurityKeys(), SERVER, MemoryCounter(), peer_system_title=CLIENT, suite=1),
                apdu.decode(wrap(client, PLAIN_APDU, envelope)),
            )
    with pytest.raises(EncodeError, match="suite 0"):
        elliptic.generate_private_key(0)


def test_keys_are_agreed(suite):
    client_keys, server_keys = keys_for(suite)
    ids = list(KeyId)
    client = KeyAgreement(suite, client_keys.signing, client_keys.peer_signing, CLIENT, SERVER)
    server = KeyAgreement(suite, server_keys.signing, server_keys.peer_signing, CLIENT, SERVER)
    answer, served = server.answer(client.offer(ids))
    agreed = client.agree(answer)
    assert agreed == served
    assert {len(key) for key in agreed.values()} == {LENGTHS[suite]}
    assert len(set(agreed.values())) == len(ids)
    # An answer to other keys than were offered, or by somebody else.
    fewer = KeyAgreement(suite, client_keys.signing, client_keys.peer_signing, CLIENT, SERVER)
    fewer.offer(ids[:1])
    with pytest.raises(SecurityError, match="other keys"):
        fewer.agree(answer)
    forger = KeyAgreement(suite, client_keys.signing, client_keys.peer_signing, CLIENT, SERVER)
    with pytest.raises(SecurityError):
        client.agree(forger.offer(ids))


def test_keys_are_transferred(suite):
    master, key = bytes(LENGTHS[suite]), bytes(range(LENGTHS[suite]))
    data = wrapped_keys(master, {KeyId.GLOBAL_UNICAST: key, KeyId.AUTHENTICATION: key})
    assert unwrapped_keys(master, suite, data) == {KeyId.GLOBAL_UNICAST: key, KeyId.AUTHENTICATION: key}
    with pytest.raises(SecurityError, match="unwrap"):
        unwrapped_keys(key, suite, data)
    short = wrapped_keys(master, {KeyId.GLOBAL_UNICAST: key + key if suite == 1 else key[:16]})
    with pytest.raises(SecurityError, match="octets"):
        unwrapped_keys(master, suite, short)


def test_certificates_bind_keys_to_system_titles(suite):
    root, key = elliptic.generate_private_key(suite), elliptic.generate_private_key(suite)
    authority = Certificate.from_bytes(certificate(root.public_key(), "Test root", issuer_key=root, ca=True))
    title, public = read_certificate_request(certificate_request(key, CLIENT))
    octets = certificate(public, title.hex().upper(), issuer="Test root", issuer_key=root)
    issued = Certificate.from_bytes(octets)
    assert issued.to_bytes() == octets
    assert issued.system_title == CLIENT
    assert issued.suite == suite
    assert issued.type == CertificateType.DIGITAL_SIGNATURE
    assert issued.serial_number == b"\x00\x8a\x5c"
    assert issued.issuer == authority.subject
    assert not issued.is_authority
    issued.check_issuer(authority)
    elliptic.verify(issued.public_key, b"text", elliptic.sign(key, b"text"))
    with pytest.raises(SecurityError, match="may not issue"):
        issued.check_issuer(issued)
    other_root = elliptic.generate_private_key(suite)
    impostor = certificate(other_root.public_key(), "Test root", issuer_key=other_root, ca=True)
    with pytest.raises(SecurityError, match="not issued by"):
        issued.check_issuer(Certificate.from_bytes(impostor))
    pem = issued.x509.public_bytes(serialization.Encoding.PEM)
    assert Certificate.from_bytes(pem) == issued


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----", bytes(300)])
def test_what_is_no_certificate_is_refused(octets):
    with pytest.raises(DecodeError):
        Certificate.from_bytes(octets)
    with pytest.raises(DecodeError):
        read_certificate_request(octets)
