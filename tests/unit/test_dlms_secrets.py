"""Keys and passwords stand in no repr, log or exception: every object of ours is shown after good and bad dialogues."""

import contextlib
import gc
import logging
import pickle
import traceback

import pytest
import structlog

from concentrator.collection.keyring import MeterKeys
from concentrator.dlms import axdr, elliptic
from concentrator.dlms.acse import AssociationRequest
from concentrator.dlms.apdu.initiate import InitiateRequest
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.security_setup import SECURITY_SETUP, SecuritySetup
from concentrator.dlms.explain import explain
from concentrator.dlms.key_agreement import KeyId, wrapped_keys
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server

from dlms_talk import talk

SECRETS = {
    "encryption": b"GUEK is secret!!",
    "authentication": b"GAK is a secret!",
    "broadcast": b"GBEK as well is.",
    "master": b"KEK the wrapper.",
    "dedicated": b"DED this time...",
    "password": b"LLS pass by word",
    "hls": b"HLS shared word!",
    "new": b"NEW key to come.",
}
METER, CLIENT = b"ODCMETER", b"ODCTEST1"


def forms(secret):
    """The ways that a secret may show."""
    text = secret.decode()
    return [text, secret.hex(), secret.hex().upper(), secret.hex(" "), repr(secret)[2:-1], str(list(secret))]


def assert_silent(shown, where):
    for name, secret in SECRETS.items():
        for form in forms(secret):
            assert form not in shown, f"{name} shows in {where}"


def keys(**more):
    chosen = {name: SECRETS[name] for name in ("encryption", "authentication", "broadcast", "master")}
    return SecurityKeys(**chosen | more)


def dialogue(mechanism, *, secret=b"", ciphered=False, wrong=None, dedicated=b""):
    signing = [elliptic.generate_private_key(1) for _ in range(2)]
    needs_keys = ciphered or mechanism in (5, 7)
    suite = 1 if mechanism == 7 else 0
    pair = [
        keys(signing=signing[a], peer_signing=signing[b].public_key()) if needs_keys else None
        for a, b in ((0, 1), (1, 0))
    ]
    setup = SecuritySetup(pair[0] or keys(), METER)
    definition = AssociationDefinition(
        16, mechanism, secret=secret, keys=pair[0], ciphered=ciphered, security_suite=suite,
        manufacturer=lambda challenge, word: bytes(a ^ b for a, b in zip(challenge, word, strict=False)),
    )  # fmt: skip
    device = LogicalDevice(1, [setup.cosem_object()], [definition], system_title=METER)
    server = Server([device])
    if wrong is not None:
        pair[1] = wrong
    client = Client(
        ClientSettings(
            mechanism=mechanism, secret=secret, keys=pair[1], ciphered=ciphered, security_suite=suite,
            system_title=CLIENT, meter_system_title=METER, dedicated_key=dedicated,
            manufacturer=definition.manufacturer,
            conformance=ClientSettings().conformance | Conformance.GENERAL_PROTECTION,
        ),
        MemoryCounter(1),
    )  # fmt: skip
    alive = [server, client, definition, setup]
    talk(server, client.associate())
    talk(server, client.get(AttributeDescriptor(64, SECURITY_SETUP, 2)))
    new = wrapped_keys(SECRETS["master"], {KeyId.GLOBAL_UNICAST: SECRETS["new"]})
    talk(server, client.action(MethodDescriptor(64, SECURITY_SETUP, 2), new))
    wrapped_otherwise = wrapped_keys(SECRETS["hls"], {KeyId.MASTER: SECRETS["new"]})
    for nonsense in (wrapped_otherwise, axdr.array(axdr.octet_string(bytes(24))), axdr.NULL):
        with contextlib.suppress(Exception):
            talk(server, client.action(MethodDescriptor(64, SECURITY_SETUP, 2), nonsense))
    return alive


DIALOGUES = [
    {"mechanism": AuthenticationMechanism.LLS, "secret": SECRETS["password"]},
    *(
        {"mechanism": AuthenticationMechanism(number), "secret": SECRETS["hls"], "ciphered": ciphered}
        for number in (2, 3, 4, 5, 6, 7)
        for ciphered in (False, True)
    ),
    {"mechanism": AuthenticationMechanism.HLS_GMAC, "ciphered": True, "dedicated": SECRETS["dedicated"]},
]


def ours():
    """Every object of our classes that is alive."""
    return [found for found in gc.get_objects() if str(type(found).__module__).startswith("concentrator.")]


@pytest.mark.parametrize(
    "given", DIALOGUES, ids=lambda given: f"{given['mechanism'].name}-{'ciphered' in given}"
)
def test_nothing_shows_after_a_dialogue(given, caplog):
    caplog.set_level(logging.DEBUG)
    alive = dialogue(**given)
    found = ours()
    assert len(found) > len(alive)
    for one in found:
        assert_silent(f"{one!r} {one}", type(one).__name__)
    assert_silent(caplog.text, "the log")


@pytest.mark.parametrize("ciphered", [False, True])
@pytest.mark.parametrize("mechanism", [5, 7])
def test_nothing_shows_in_what_is_raised(mechanism, ciphered):
    wrong = SecurityKeys(SECRETS["new"], SECRETS["authentication"], signing=elliptic.generate_private_key(1))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is, it must not tell
        dialogue(AuthenticationMechanism(mechanism), ciphered=ciphered, wrong=wrong)
    chain = "".join(traceback.format_exception(caught.value))
    assert_silent(chain + repr(caught.value), "an exception")


def test_keys_of_a_wrong_length_are_not_told():
    for make in (
        lambda: SecurityKeys(SECRETS["encryption"][:-1]),
        lambda: keys(master=SECRETS["master"] + b"!"),
        lambda: Client(ClientSettings(keys=keys(), security_suite=2), MemoryCounter(1)),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            make()
        assert_silent(repr(caught.value), "an exception")


def test_holders_of_keys_neither_show_nor_pickle_them():
    holder, other = keys(), MeterKeys(SECRETS["encryption"], SECRETS["authentication"])
    assert_silent(f"{holder!r} {other!r} {[holder, other]} {structlog.processors.JSONRenderer()}", "repr")
    with pytest.raises(TypeError, match="not serialised"):
        pickle.dumps(holder)


def test_the_explanation_of_an_association_hides_what_it_proves_itself_with():
    request = AssociationRequest(1, None, mechanism=1, authentication_value=SECRETS["password"])
    assert_silent(repr(request) + str(explain(request.to_bytes())), "an explained AARQ")
    initiate = InitiateRequest(Conformance.GET, 500, SECRETS["dedicated"])
    assert_silent(repr(initiate) + str(explain(initiate.to_bytes())), "an explained InitiateRequest")
