"""Servers answer, and conversations end, whatever the other side sends."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from concentrator.dlms import axdr
from concentrator.dlms.apdu.access import AccessKind, AccessSpecification
from concentrator.dlms.apdu.protection import GeneralBlockTransfer
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.certificates import Certificate, read_certificate_request
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.cosem.image_transfer import ImageTransfer, Outcome
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem.security_setup import SecuritySetup
from concentrator.dlms.elliptic import generate_private_key
from concentrator.dlms.errors import AccessError, DecodeError, DlmsError, EncodeError, SecurityError
from concentrator.dlms.gbt import BlockTransfer
from concentrator.dlms.key_agreement import KeyAgreement, unwrapped_keys
from concentrator.dlms.security import SecurityKeys
from concentrator.dlms.server import (
    SERVER_CONFORMANCE,
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    Server,
)
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.obis import Obis

from dlms_strategies import apdu_values, data

THING = Obis(0, 0, 96, 1, 0, 255)
NAME = AttributeDescriptor(1, THING, 2)
ECHO = MethodDescriptor(1, THING, 1)
LONG = axdr.octet_string(bytes(600))


def associated(*, short):
    signing = generate_private_key(1)
    keys = SecurityKeys(bytes(16), bytes(16), master=bytes(16), signing=signing)
    objects = [
        CosemObject(1, THING, {2: LONG}, {2: lambda _: None}, {1: lambda parameters: parameters}),
        SecuritySetup(keys, b"ODCMETER", suite=1).cosem_object(),
        ImageTransfer(16, lambda *_: (Outcome.DONE, ()), lambda *_: Outcome.DONE).cosem_object(),
    ]
    conformance = SHORT_NAME_CONFORMANCE if short else SERVER_CONFORMANCE
    definition = AssociationDefinition(16, short_names=short, conformance=conformance)
    server = Server([LogicalDevice(1, objects, [definition], max_pdu_size=100)])
    kind = ShortNameClient if short else Client
    client = kind(
        ClientSettings(
            conformance=DEFAULT_SHORT_NAME_CONFORMANCE if short else SERVER_CONFORMANCE, max_pdu_size=100
        )
    )
    conversation = client.associate()
    with pytest.raises(StopIteration):
        conversation.send(server.receive_apdu(16, 1, *next(conversation))[0])
    return server, client


octets = st.one_of(
    st.binary(max_size=60),
    apdu_values.map(lambda value: value.to_bytes()),
    st.builds(
        lambda value, at, octet: bytearray(value.to_bytes()).replace(
            value.to_bytes()[at % 20 : at % 20 + 1], bytes((octet,)), 1
        ),
        apdu_values, st.integers(0, 19), st.integers(0, 255),
    ).map(bytes),
    st.builds(
        GeneralBlockTransfer, st.booleans(), st.booleans(), st.integers(0, 63), st.integers(0, 9),
        st.integers(0, 9), st.binary(max_size=20),
    ).map(lambda block: block.to_bytes()),
)  # fmt: skip


@pytest.mark.parametrize("short", [False, True])
def test_a_server_answers_whatever_comes(short):
    server, _ = associated(short=short)

    @settings(max_examples=400, suppress_health_check=list(HealthCheck))
    @given(octets)
    def answers(request):
        for reply in server.receive_apdu(16, 1, request):
            assert isinstance(reply, bytes)

    answers()


def conversations(client):
    yield client.get(NAME)
    yield client.get_many([NAME, NAME])
    yield client.set(NAME, LONG)
    yield client.set_many([(NAME, LONG), (NAME, axdr.NULL)])
    yield client.action(ECHO, LONG)
    if isinstance(client, Client):
        yield client.action_many([(ECHO, LONG), (ECHO, None)])
        yield client.access([(AccessSpecification(AccessKind.GET, NAME), None)])
    yield client.release()


@pytest.mark.parametrize("short", [False, True])
def test_a_conversation_ends_whatever_comes(short):
    _, client = associated(short=short)
    if short:
        client.names = {(1, THING): (0x100, 0)}

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(st.lists(octets, min_size=1, max_size=8))
    def ends(replies):
        for conversation in conversations(client):
            try:
                next(conversation)
                for step in range(60_000):
                    conversation.send(replies[step % len(replies)])
            except (StopIteration, DlmsError, EncodeError):
                continue
            pytest.fail("the conversation goes on for ever")

    ends()


@given(st.lists(octets, max_size=20), st.binary(max_size=300))
def test_block_transfers_take_any_block(pieces, own):
    transfer = BlockTransfer(limit=100)
    transfer.send(own, 20)
    for piece in pieces:
        if piece[:1] == b"\xe0":
            try:
                block = GeneralBlockTransfer.read(axdr.Reader(piece, 1))
            except DecodeError:
                continue
            answers, whole = transfer.receive_block(block)
            assert len(answers) <= 63
            assert whole is None or len(whole) <= 100


@settings(max_examples=300)
@given(data)
def test_objects_take_any_parameters(value):
    keys = SecurityKeys(bytes(16), bytes(16), master=bytes(16), signing=_SIGNING)
    setup = SecuritySetup(keys, b"ODCMETER", suite=1).cosem_object()
    image = ImageTransfer(16, lambda *_: (Outcome.DONE, ()), lambda *_: Outcome.DONE).cosem_object()
    for method in [*setup.methods.values(), *image.methods.values()]:
        try:
            method(value)
        except (AccessError, DecodeError, SecurityError):
            continue
    peer = _SIGNING.public_key()
    for take in (
        lambda: unwrapped_keys(bytes(16), 1, value),
        lambda: KeyAgreement(1, _SIGNING, peer, bytes(8), bytes(8)).answer(value),
    ):
        try:
            take()
        except (DecodeError, SecurityError):
            continue


@given(st.binary(max_size=200))
def test_certificates_decode_or_are_refused(value):
    for decode in (Certificate.from_bytes, read_certificate_request):
        with pytest.raises((DecodeError, SecurityError)):
            decode(value)


_SIGNING = generate_private_key(1)
