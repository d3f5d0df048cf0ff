"""The security policy of version 1, each bit of it in each direction; what a server protects, and what it refuses."""

import itertools

import pytest

from concentrator.dlms import apdu, axdr, elliptic
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.protection import GeneralCiphered, GeneralSigning
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem.security_setup import SecuritySetup
from concentrator.dlms.errors import AssociationRejectedError, SecurityError, ServiceRefusedError
from concentrator.dlms.security import BOTH, MemoryCounter, SecurityKeys, SecurityPolicy
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.obis import Obis

from dlms_talk import talk

THING = Obis(0, 0, 96, 1, 9, 255)
READ = AttributeDescriptor(1, THING, 2)
METER, CLIENT = b"ODCMETER", b"ODCTEST1"
CONTROLS = (0, 0x10, 0x20, 0x30)
PAIRS = [elliptic.generate_private_key(1) for _ in range(2)]


def keys(own=None, peer=None):
    return SecurityKeys(
        bytes(range(16)), bytes(range(16, 32)), signing=own, peer_signing=peer and peer.public_key()
    )


def meter(policy, suite=0, version=1):
    own = keys(*PAIRS) if suite else keys()
    setup = SecuritySetup(own, METER, suite=suite, version=version, policy=policy)
    thing = CosemObject(1, THING, {2: axdr.unsigned(7)})
    definition = AssociationDefinition(
        16, keys=own, security_suite=suite, security_policy=0, policy=lambda: setup.policy
    )
    device = LogicalDevice(1, [thing, setup.cosem_object()], [definition], system_title=METER)
    return Server([device]), setup


def client(policy, suite=0, **more):
    more.setdefault("response_policy", 0)
    return Client(
        ClientSettings(
            keys=keys(*PAIRS[::-1]) if suite else keys(),
            system_title=CLIENT,
            meter_system_title=METER,
            security_suite=suite,
            security_policy=policy,
            general_ciphering=True,
            conformance=DEFAULT_CONFORMANCE | Conformance.GENERAL_PROTECTION,
            **more,
        ),
        MemoryCounter(1),
    )


def policy_of(request, response):
    return SecurityPolicy(request >> 2 | response << 1)


@pytest.mark.parametrize(("request_control", "response_control"), list(itertools.product(CONTROLS, CONTROLS)))
def test_each_direction_needs_what_its_bits_say(request_control, response_control):
    policy = policy_of(request_control, response_control)
    assert (policy.request_control, policy.response_control) == (request_control, response_control)
    for control in CONTROLS:
        server, _ = meter(policy)
        seen = []

        def watch(replies, seen=seen):
            seen.extend(replies)
            return replies

        one = client(control)
        if request_control & ~control:
            with pytest.raises(AssociationRejectedError):
                talk(server, one.associate())
            continue
        talk(server, one.associate())
        assert talk(server, one.get(READ), upset=watch).integer() == 7
        answer = apdu.decode(seen[-1])
        assert isinstance(answer, GeneralCiphered)
        assert answer.content[0] & BOTH == response_control | control


def test_plain_requests_are_served_and_protected_as_the_policy_says():
    for response_control in CONTROLS:
        server, _ = meter(policy_of(0, response_control))
        one = client(0)
        talk(server, one.associate())
        (answer,) = server.receive_apdu(16, 1, b"\xc0\x01\xc1" + READ.to_bytes() + b"\x00")
        assert (answer[0] == 0xC4) is (response_control == 0)
        if response_control:
            assert apdu.decode(answer).content[0] & BOTH == response_control
    server, _ = meter(policy_of(0x10, 0))
    talk(server, client(0x10).associate())
    (refusal,) = server.receive_apdu(16, 1, b"\xc0\x01\xc1" + READ.to_bytes() + b"\x00")
    assert isinstance(apdu.decode(refusal), ExceptionResponse)


def test_a_policy_activated_holds_from_the_next_association_on():
    server, setup = meter(SecurityPolicy.NONE)
    one = client(0x20)
    talk(server, one.associate())
    setup.policy = policy_of(0x30, 0x20)
    assert talk(server, one.get(READ)).integer() == 7
    talk(server, one.release())
    with pytest.raises(AssociationRejectedError):
        talk(server, client(0x20).associate())
    server.devices[1].keys_changed()
    strict = client(0x30, response_policy=0x20)
    talk(server, strict.associate())
    assert talk(server, strict.get(READ)).integer() == 7


@pytest.mark.parametrize("signed_response", [False, True])
@pytest.mark.parametrize("signed_request", [False, True])
def test_signatures_are_asked_for_in_each_direction(signed_request, signed_response):
    policy = policy_of(0x30, 0x30)
    policy |= SecurityPolicy.SIGNED_REQUEST if signed_request else SecurityPolicy.NONE
    policy |= SecurityPolicy.SIGNED_RESPONSE if signed_response else SecurityPolicy.NONE
    server, _ = meter(policy, suite=1)
    seen = []

    def watch(replies):
        seen.extend(replies)
        return replies

    signing = client(0x30, suite=1, signed=True)
    talk(server, signing.associate())
    assert talk(server, signing.get(READ), upset=watch).integer() == 7
    assert isinstance(apdu.decode(seen[-1]), GeneralSigning)
    server.devices[1].keys_changed()
    plain = client(0x30, suite=1)
    talk(server, plain.associate())
    if signed_request:
        with pytest.raises(ServiceRefusedError):
            talk(server, plain.get(READ))
        return
    assert talk(server, plain.get(READ), upset=watch).integer() == 7
    assert isinstance(apdu.decode(seen[-1]), GeneralSigning) is signed_response


def test_a_client_accepts_no_less_than_agreed():
    for control in CONTROLS[1:]:
        server, _ = meter(policy_of(0, 0))
        demanding = client(0, response_policy=control)
        with pytest.raises(SecurityError, match="less than agreed"):
            talk(server, demanding.associate())


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_show_their_own_numbers(version):
    _, setup = meter(policy_of(0x30, 0x30), version=version)
    shown = setup.cosem_object().attributes[2]()
    assert shown == axdr.enumeration(3 if version == 0 else 0x6C)


def test_hls_works_under_every_policy():
    for request_control, response_control in itertools.product(CONTROLS, CONTROLS):
        own = keys()
        definition = AssociationDefinition(
            16,
            AuthenticationMechanism.HLS_GMAC,
            keys=own,
            security_policy=0,
            policy=lambda both=(request_control, response_control): policy_of(*both),
        )
        server = Server([LogicalDevice(1, [], [definition], system_title=METER)])
        one = client(
            request_control, response_policy=response_control, mechanism=AuthenticationMechanism.HLS_GMAC
        )
        talk(server, one.associate())
        assert one.associated
