"""Links take any frames in any chunks; objects, gateways and certificates take any parameters."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import elliptic
from concentrator.dlms.certificates import Certificate, TrustAnchors
from concentrator.dlms.cosem.protection_parameters import ProtectionLayer
from concentrator.dlms.cosem.push_setup import PushObject, PushSetup
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import Window, last_moment, next_moment, next_opening
from concentrator.dlms.errors import AccessError, DecodeError, EncodeError, LinkLostError, SecurityError
from concentrator.dlms.gateway import GatewayAddress, GatewayRequest
from concentrator.dlms.hdlc import FrameType, HdlcAddress, HdlcFrame
from concentrator.dlms.hdlc_link import HdlcClientLink, HdlcParameters, HdlcServerLink
from concentrator.dlms.server import Server

from dlms_certificates import certificate
from dlms_strategies import data

CLIENT, SERVER = HdlcAddress.client(16), HdlcAddress.server(1, 17)
frames = st.builds(
    HdlcFrame,
    st.sampled_from([CLIENT, SERVER, HdlcAddress.all_stations(2), HdlcAddress.server(2)]),
    st.sampled_from([CLIENT, SERVER]),
    st.sampled_from(FrameType),
    st.booleans(), st.integers(0, 7), st.integers(0, 7), st.booleans(),
    st.binary(max_size=40) | st.sampled_from([b"\xe6\xe6\x00\xc0", b"\xe6\xe7\x00\xc4", HdlcParameters().to_bytes()]),
)  # fmt: skip
lines = st.lists(frames.map(lambda frame: frame.to_bytes()) | st.binary(max_size=20), max_size=15)


def events_of(link, pieces):
    """All that a link says and sends when these octets come."""
    link_says, sends = [], b""
    for piece in pieces:
        link.receive_data(piece)
        while event := link.next_event():
            link_says.append(event)
        sends += link.data_to_send()
    return link_says, sends


@settings(max_examples=200, deadline=None)
@given(lines, st.integers(1, 30), st.booleans())
def test_a_link_takes_any_frames_in_any_chunks(pieces, size, is_client):
    whole = b"".join(pieces)
    found = []
    for chunks in ([whole], [whole[start : start + size] for start in range(0, len(whole), size)]):
        kind = HdlcClientLink if is_client else HdlcServerLink
        link = kind(CLIENT, SERVER, HdlcParameters(64, 64, 3, 3))
        if is_client:
            link.connect()
            link.data_to_send()
        found.append(events_of(link, chunks))
        with contextlib.suppress(EncodeError):
            link.send_apdu(bytes(300))
        if is_client:
            with contextlib.suppress(LinkLostError):
                link.handle_timeout()
    assert found[0] == found[1]


@settings(max_examples=200)
@given(st.integers(0, 3), data)
def test_push_setups_take_any_values(version, value):
    setup = PushSetup(lambda *_: None, lambda: bytes(12), lambda _: None, version=version)
    cosem_object = setup.cosem_object()
    for setter in cosem_object.setters.values():
        with contextlib.suppress(DecodeError):
            setter(value)
    for attribute in cosem_object.attributes:
        assert b"".join(cosem_object.encoded(attribute, None))
    with contextlib.suppress(AccessError, EncodeError):
        setup.notification()
    for decode in (PushObject.from_data,):
        with contextlib.suppress(DecodeError):
            assert PushObject.from_data(decode(value, version).to_data(version), version)
    with contextlib.suppress(DecodeError):
        ProtectionLayer.list_from_data(value)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=12, max_size=12), st.binary(min_size=12, max_size=12), st.datetimes())
def test_any_pattern_names_moments_or_is_refused(start, end, now):
    window = Window(CosemDateTime.from_bytes(start), CosemDateTime.from_bytes(end))
    for work in (
        lambda: next_moment(window.start, now),
        lambda: last_moment(window.end, now),
        lambda: window.is_open(now),
        lambda: next_opening([window], now),
    ):
        with contextlib.suppress(DecodeError):
            work()


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 255), st.binary(max_size=20))
def test_any_gateway_request_is_answered(octets, network, address):
    server = Server([], lambda request: [request.apdu])
    for request in (b"\xe6" + octets, GatewayAddress(network, address).request(octets)):
        (answer,) = server.receive_apdu(16, 1, request)
        with contextlib.suppress(DecodeError):
            one = GatewayRequest.from_bytes(16, 1, request)
            assert one.address.within(answer) == one.apdu


_ROOT = elliptic.generate_private_key(1)
_AUTHORITY = Certificate.from_bytes(certificate(_ROOT.public_key(), "Root", issuer_key=_ROOT, ca=True))
_SHOWN = certificate(_ROOT.public_key(), "4F44434D45544552", issuer="Root", issuer_key=_ROOT)
# Header of the certificate, and all that its signature covers.
_SIGNED_END = 4 + len(Certificate.from_bytes(_SHOWN).x509.tbs_certificate_bytes)


@settings(max_examples=200)
@given(st.binary(max_size=100) | st.tuples(st.integers(0, _SIGNED_END - 1), st.integers(1, 255)))
def test_any_shown_certificate_is_believed_or_refused(shown):
    if isinstance(shown, tuple):
        position, change = shown
        changed = bytearray(_SHOWN)
        changed[position] ^= change
        shown = bytes(changed)
    trust = TrustAnchors([_AUTHORITY])
    with contextlib.suppress(DecodeError, SecurityError):
        trust.signing_key(shown, b"ODCMETER")
        raise AssertionError("an altered certificate is believed")
    assert trust.signing_key(_SHOWN, b"ODCMETER")
