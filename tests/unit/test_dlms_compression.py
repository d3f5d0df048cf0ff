"""Compressed APDUs (V.44) through whole dialogues and foreign decoders."""

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.apdu.get import GetResponseNormal
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import Client
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, wrap
from concentrator.dlms.errors import DecodeError, EncodeError
from concentrator.dlms.explain import explain
from concentrator.dlms.security import BOTH, MemoryCounter, SecurityContext, SecurityKeys, protect
from concentrator.dlms.server import AssociationDefinition

from dlms_peers import LONG, METER_TITLE, THING, Case, CaseKeys, PydlmsPeer, our_meter, our_settings
from dlms_talk import talk

GMAC = AuthenticationMechanism.HLS_GMAC
ATTRIBUTE = AttributeDescriptor(1, THING, 2)
REPETITIVE = axdr.octet_string(b"energy" * 100)


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("protection", ["general-glo", "general-ded"])
def test_a_client_may_compress_and_is_answered_in_kind(suite, protection):
    case = Case(GMAC, protection, suite)
    server = our_meter(case)
    client = Client(our_settings(case, compressed=True), MemoryCounter(1))
    seen = []

    def watch(replies):
        seen.extend(replies)
        return replies

    talk(server, client.associate())
    talk(server, client.set(ATTRIBUTE, REPETITIVE), upset=watch)
    assert talk(server, client.get(ATTRIBUTE), upset=watch) == REPETITIVE
    # Longer than an APDU may be, but for compression.
    long = axdr.octet_string(LONG * 4)
    talk(server, client.set(ATTRIBUTE, long), upset=watch)
    assert talk(server, client.get(ATTRIBUTE), upset=watch) == long
    assert max(map(len, seen)) <= client.settings.max_pdu_size
    talk(server, client.release())


def test_what_does_not_get_shorter_goes_as_it_is():
    case = Case(GMAC, "general-glo", 1)
    keys = CaseKeys(case).of_meter()
    ours = SecurityContext(keys, METER_TITLE, MemoryCounter(1), suite=1)
    envelope = Envelope(EnvelopeKind.GENERAL, compressed=True)
    assert wrap(ours, b"\xc4\x01\xc1\x00\x11\x07", envelope)[11] == BOTH | 1
    assert wrap(ours, b"\xc4\x01\xc1\x00" + REPETITIVE.to_bytes(), envelope)[11] == BOTH | 1 | 0x80


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("kind", [EnvelopeKind.GENERAL, EnvelopeKind.GENERAL_CIPHERING])
def test_pydlms_decompresses_what_we_compress(suite, kind):
    from pydlms.security.ciphering import unwrap as their_unwrap
    from pydlms.security.v44 import v44_decompressor

    case = Case(GMAC, "general-glo", suite)
    keys = CaseKeys(case).of_meter()
    ours = SecurityContext(
        keys,
        METER_TITLE,
        MemoryCounter(1),
        peer_system_title=b"PEERCLNT",
        suite=suite,
        header_authenticated=False,
    )
    reply = GetResponseNormal(0xC1, REPETITIVE.to_bytes()).to_bytes()
    protected = wrap(ours, reply, Envelope(kind, compressed=True))
    assert len(protected) < len(reply) / 3
    theirs = PydlmsPeer.context(case, decompressor=v44_decompressor())
    assert their_unwrap(theirs, protected).plaintext == reply


def test_suite_0_and_service_specific_envelopes_do_not_compress():
    for case in (Case(GMAC, "general-glo", 0), Case(GMAC, "glo", 1)):
        with pytest.raises(EncodeError, match="compression"):
            Client(our_settings(case, compressed=True), MemoryCounter(1))
    keys = SecurityKeys(bytes(16), bytes(16))
    with pytest.raises(EncodeError, match="suite 0"):
        SecurityContext(keys, METER_TITLE, MemoryCounter()).protect(bytes(100), compressed=True)
    assert AssociationDefinition(1).security_suite == 0


def test_a_compressed_apdu_is_explained():
    plain = GetResponseNormal(0xC1, REPETITIVE.to_bytes()).to_bytes()
    keys = SecurityKeys(bytes(range(16)), bytes(range(16)))
    content = protect(keys.encryption, keys.authentication, METER_TITLE, BOTH | 0x81, 7, plain)
    tree = explain(b"\xdb\x08" + METER_TITLE + bytes((len(content),)) + content, keys)
    assert tree["decoded"]["apdu"] == "get-response"
    assert "energyenergy" in str(tree["decoded"])


def test_a_packet_that_does_not_decompress_is_refused():
    keys = SecurityKeys(bytes(range(16)), bytes(range(16)))
    security = SecurityContext(keys, b"OTHERONE", MemoryCounter(1), peer_system_title=METER_TITLE)
    bomb = bytes(3_000_000)
    content = protect(keys.encryption, keys.authentication, METER_TITLE, BOTH | 0x80, 7, bomb)
    with pytest.raises(DecodeError, match="more than"):
        security.unprotect(content)
