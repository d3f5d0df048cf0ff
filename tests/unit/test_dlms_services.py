"""Lists, ACCESS, blocks below the services, short names, and what of it gets lost: our client and our server."""

import pytest

from concentrator.dlms import apdu, axdr
from concentrator.dlms.apdu.access import AccessKind, AccessRequest, AccessSpecification
from concentrator.dlms.apdu.action import ActionRequestNormal
from concentrator.dlms.apdu.get import GetRequestNormal
from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm, ExceptionResponse
from concentrator.dlms.apdu.protection import GeneralBlockTransfer
from concentrator.dlms.apdu.set import SetRequestWithList
from concentrator.dlms.attributes import AttributeDescriptor, EntryDescriptor, MethodDescriptor
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance, DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject, refused
from concentrator.dlms.elliptic import generate_private_key
from concentrator.dlms.envelopes import KeyEstablishment
from concentrator.dlms.errors import (
    AccessError,
    AssociationRejectedError,
    EncodeError,
    LinkLostError,
    ReplyTimeoutError,
    SecurityError,
    ServiceRefusedError,
)
from concentrator.dlms.gbt import BlockTransfer
from concentrator.dlms.security import MemoryCounter, SecurityKeys
from concentrator.dlms.server import (
    SERVER_CONFORMANCE,
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    Server,
    visible_only,
)
from concentrator.dlms.short_name_client import DEFAULT_SHORT_NAME_CONFORMANCE, ShortNameClient
from concentrator.obis import Obis

from dlms_talk import talk

THING, OTHER = Obis(0, 0, 96, 1, 9, 255), Obis(0, 0, 96, 1, 8, 255)
LONG, SHORT = AttributeDescriptor(1, THING, 2), AttributeDescriptor(1, OTHER, 2)
ECHO, COUNT = MethodDescriptor(1, THING, 1), MethodDescriptor(1, THING, 2)
MISSING = AttributeDescriptor(1, Obis(0, 0, 96, 1, 7, 255), 2)
TEXT = axdr.octet_string(bytes(range(256)) * 8)
ALL = SERVER_CONFORMANCE
NO_BLOCKS = ALL & ~(
    Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ
    | Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE
    | Conformance.BLOCK_TRANSFER_WITH_ACTION
)


class Meter:
    """Two objects to read and write, and methods that count how often they are invoked."""

    def __init__(self, *, max_pdu_size=200, **definition):
        self.values = {THING: TEXT, OTHER: axdr.unsigned(5)}
        self.invoked = 0

        def count(_parameters):
            self.invoked += 1
            return axdr.unsigned(self.invoked)

        def refuse(_parameters):
            raise refused(3)

        def setter(obis):
            def write(value):
                self.values[obis] = value

            return write

        objects = [
            CosemObject(
                1, obis, {2: lambda obis=obis: self.values[obis]}, {2: setter(obis)},
                {1: lambda parameters: parameters, 2: count, 3: refuse},
            )
            for obis in (THING, OTHER)
        ]  # fmt: skip
        self.device = LogicalDevice(
            1,
            objects,
            [AssociationDefinition(16, **definition)],
            system_title=b"ODCMETER",
            max_pdu_size=max_pdu_size,
        )
        self.server = Server([self.device])


def associated(meter, kind=Client, *, counter=None, **settings):
    settings.setdefault("conformance", ALL)
    client = kind(
        ClientSettings(system_title=b"ODCTEST1", max_pdu_size=180, **settings), counter or MemoryCounter(1)
    )
    talk(meter.server, client.associate())
    return client


@pytest.fixture(params=[ALL, NO_BLOCKS, DEFAULT_CONFORMANCE], ids=["all", "gbt-only", "no-gbt"])
def pair(request):
    meter = Meter()
    return meter, associated(meter, conformance=request.param)


def test_lists_are_written_and_invoked(pair):
    meter, client = pair
    new = axdr.octet_string(b"new")
    results = talk(meter.server, client.set_many([(LONG, new), (MISSING, new), (SHORT, axdr.unsigned(9))]))
    assert results[0] is results[2] is None
    assert results[1].result == DataAccessResult.OBJECT_UNDEFINED
    assert meter.values == {THING: new, OTHER: axdr.unsigned(9)}
    outcomes = talk(
        meter.server,
        client.action_many([(ECHO, new), (COUNT, None), (MethodDescriptor(1, THING, 3), None)]),
    )
    assert outcomes[:2] == [new, axdr.unsigned(1)]
    assert isinstance(outcomes[2], AccessError)


def test_long_lists_go_in_blocks_and_never_exceed_what_the_meter_takes(pair):
    meter, client = pair
    sent = []
    receive = meter.server.receive_apdu

    def watch(client_sap, server_sap, octets):
        sent.append(len(octets))
        return receive(client_sap, server_sap, octets)

    meter.server.receive_apdu = watch
    values = [axdr.octet_string(bytes((n,)) * 700) for n in range(2)]
    assert talk(meter.server, client.set_many([(LONG, values[0]), (SHORT, values[1])])) == [None, None]
    assert meter.values == {THING: values[0], OTHER: values[1]}
    assert talk(meter.server, client.action_many([(ECHO, values[0]), (ECHO, values[1])])) == values
    assert talk(meter.server, client.get_many([LONG, SHORT])) == values
    assert talk(meter.server, client.action(ECHO, values[0])) == values[0]
    many = talk(meter.server, client.set_many([(SHORT, axdr.unsigned(n)) for n in range(60)]))
    assert many == [None] * 60
    assert max(sent) <= 200


def test_a_long_list_in_blocks_with_its_first_block():
    meter = Meter(max_pdu_size=80)
    client = associated(meter)
    # Two elements whose names fit and whose values do not: one set-request-with-list-and-first-datablock.
    client._batches = lambda items, _size: [items]
    values = [axdr.octet_string(bytes((n,)) * 300) for n in range(2)]
    assert talk(meter.server, client.set_many([(LONG, values[0]), (SHORT, values[1])])) == [None, None]
    assert meter.values == {THING: values[0], OTHER: values[1]}
    assert talk(meter.server, client.action_many([(ECHO, values[0]), (ECHO, values[1])])) == values


def test_access_reads_writes_and_acts_in_one_request():
    meter = Meter()
    client = associated(meter)
    get = AccessSpecification(AccessKind.GET, LONG)
    items = [
        (get, None),
        (AccessSpecification(AccessKind.SET, SHORT), axdr.unsigned(7)),
        (AccessSpecification(AccessKind.ACTION, COUNT), None),
        (AccessSpecification(AccessKind.GET, MISSING), None),
        (AccessSpecification(AccessKind.GET, SHORT), None),
        (AccessSpecification(AccessKind.GET_WITH_SELECTION, LONG, EntryDescriptor().to_selection()), None),
    ]
    results = talk(meter.server, client.access(items))
    assert results[:3] == [TEXT, None, axdr.unsigned(1)]
    assert isinstance(results[3], AccessError)
    assert results[4] == axdr.unsigned(7)
    assert isinstance(results[5], AccessError)
    broken = talk(meter.server, client.access([items[3], items[2]], break_on_error=True))
    assert all(isinstance(result, AccessError) for result in broken)
    assert meter.invoked == 1
    unconfirmed = AccessRequest(0x0000_0001, None, (items[2][0],), (axdr.NULL,))
    assert meter.server.receive_apdu(16, 1, unconfirmed.to_bytes()) == []
    assert meter.invoked == 2
    with pytest.raises(EncodeError, match="ACCESS"):
        talk(meter.server, associated(meter, conformance=DEFAULT_CONFORMANCE).access(items))


def test_more_than_one_access_request_can_carry_goes_in_several():
    meter = Meter(max_pdu_size=150)
    client = associated(meter, conformance=DEFAULT_CONFORMANCE | Conformance.ACCESS)
    get, write = AccessSpecification(AccessKind.GET, SHORT), AccessSpecification(AccessKind.SET, SHORT)
    refused = AccessSpecification(AccessKind.GET, MISSING)
    items = [(write, axdr.unsigned(5)), *[(get, None)] * 20, (refused, None), *[(get, None)] * 20]
    results = talk(meter.server, client.access(items))
    assert results[1:21] == results[22:] == [axdr.unsigned(5)] * 20
    assert isinstance(results[21], AccessError)
    results = talk(meter.server, client.access(items, break_on_error=True))
    assert results[1:21] == [axdr.unsigned(5)] * 20
    assert all(isinstance(result, AccessError) for result in results[21:])
    with pytest.raises(ServiceRefusedError, match="pdu-too-long"):
        talk(meter.server, client.access([(AccessSpecification(AccessKind.GET, LONG), None)]))


def test_a_self_descriptive_access_repeats_what_it_answers():
    meter = Meter()
    associated(meter)
    get = AccessSpecification(AccessKind.GET, SHORT)
    for flags, repeated in ((0x5000_0001, (get,)), (0x4000_0001, None)):
        (reply,) = meter.server.receive_apdu(
            16, 1, AccessRequest(flags, None, (get,), (axdr.NULL,)).to_bytes()
        )
        assert apdu.decode(reply).specifications == repeated


def test_unconfirmed_requests_are_carried_out_in_silence():
    meter = Meter()
    associated(meter)
    write = SetRequestWithList(0x01, ((SHORT, None),), (axdr.unsigned(3),))
    assert meter.server.receive_apdu(16, 1, write.to_bytes()) == []
    assert meter.values[OTHER] == axdr.unsigned(3)
    count = ActionRequestNormal(0x01, COUNT, None)
    assert meter.server.receive_apdu(16, 1, count.to_bytes()) == []
    assert meter.invoked == 1
    read = GetRequestNormal(0x01, SHORT, None)
    assert len(meter.server.receive_apdu(16, 1, read.to_bytes())) == 1


def test_lists_with_a_wrong_number_of_values_change_nothing():
    meter = Meter()
    associated(meter)
    request = SetRequestWithList(0xC1, ((LONG, None), (SHORT, None)), (axdr.unsigned(1),))
    (reply,) = meter.server.receive_apdu(16, 1, request.to_bytes())
    assert set(apdu.decode(reply).results) == {DataAccessResult.TYPE_UNMATCHED}
    assert meter.values[THING] == TEXT


# What gets lost


def every(number):
    """Loses every n-th reply."""
    seen = 0

    def lose(_reply):
        nonlocal seen
        seen += 1
        return seen % number == 0

    return lose


CIPHERED = {
    "mechanism": AuthenticationMechanism.HLS_GMAC,
    "keys": SecurityKeys(bytes(range(16)), bytes(range(16, 32))),
}


@pytest.mark.parametrize("security", [{}, CIPHERED], ids=["plain", "ciphered"])
@pytest.mark.parametrize("conformance", [ALL, NO_BLOCKS], ids=["service", "gbt"])
def test_lost_answers_within_a_transfer_are_asked_for_again(security, conformance):
    meter = Meter(**security)
    client = associated(meter, conformance=conformance, repetition_budget=200, **security)
    first = True

    def lose_not_the_first(reply, lose):
        nonlocal first
        if first:
            first = False
            return False
        return lose(reply)

    for number in (2, 3, 5):
        lose, first = every(number), True
        assert (
            talk(meter.server, client.get(LONG), lose=lambda r, lose=lose: lose_not_the_first(r, lose))
            == TEXT
        )
    assert client.repetitions > 5
    if security:
        assert client.security.replays == meter.device.replays == 0


def test_lost_acknowledgements_of_blocks_are_met_by_the_same_block():
    meter = Meter()
    client = associated(meter)
    value = axdr.octet_string(b"new value " * 150)
    lost = []

    def lose_some(reply):
        if reply[:2] in (b"\xc5\x02", b"\xc7\x04") and len(lost) < 6 and reply not in lost:
            lost.append(reply)
            return True
        return False

    talk(meter.server, client.set(LONG, value), lose=lose_some)
    assert meter.values[THING] == value
    assert talk(meter.server, client.action(ECHO, value), lose=lose_some) == value
    assert len(lost) == client.repetitions == 6


def test_what_the_last_block_sets_off_happens_once():
    meter = Meter()
    client = associated(meter)
    with pytest.raises(ReplyTimeoutError):
        talk(meter.server, client.action(COUNT, TEXT), lose=lambda reply: reply[:2] == b"\xc7\x01")
    with pytest.raises(ReplyTimeoutError):
        talk(meter.server, client.action(COUNT), lose=lambda _: True)
    assert meter.invoked == 2


def test_late_answers_are_passed_over():
    meter = Meter()
    client = associated(meter)
    doubled = talk(meter.server, client.get(LONG), upset=lambda replies: replies * 2)
    assert doubled == TEXT
    talk(meter.server, client.set(LONG, TEXT), upset=lambda replies: replies * 2)
    assert talk(meter.server, client.action(ECHO, TEXT), upset=lambda replies: replies * 2) == TEXT


@pytest.mark.parametrize("conformance", [ALL, NO_BLOCKS], ids=["service", "gbt"])
def test_repetition_comes_to_an_end(conformance):
    meter = Meter()
    client = associated(meter, conformance=conformance)
    answers = 0

    def only_two(_reply):
        nonlocal answers
        answers += 1
        return answers > 2

    with pytest.raises(ReplyTimeoutError):
        talk(meter.server, client.get(LONG), lose=only_two)
    assert 0 < client.repetitions <= client.settings.repetition_budget


def test_a_lost_link_is_not_asked_again():
    meter = Meter()
    client = associated(meter)
    conversation = client.get(LONG)
    (reply,) = meter.server.receive_apdu(16, 1, *next(conversation))
    conversation.send(reply)
    with pytest.raises(LinkLostError):
        conversation.throw(LinkLostError("the port is gone"))
    assert client.repetitions == 0


def test_a_notification_that_wants_it_is_confirmed():
    meter = Meter(**CIPHERED)
    client = associated(meter, **CIPHERED)
    push = DataNotification(0x4000_0007, None, axdr.unsigned(7))

    def push_before(replies):
        return [push.to_bytes(), *replies] if replies else []

    assert talk(meter.server, client.get(LONG), upset=push_before) == TEXT
    confirmations = meter.server.association(16, 1).confirmations
    assert set(confirmations) == {DataNotificationConfirm(0x4000_0007)}
    assert set(client.notifications) == {push}


# General-block-transfer by itself


@pytest.mark.parametrize("loss", [0, 3, 4, 7])
def test_a_request_goes_in_windows_and_lost_blocks_go_again(loss):
    meter = Meter()
    client = associated(meter, conformance=NO_BLOCKS, repetition_budget=200)
    value = axdr.octet_string(bytes(range(256)) * 40)
    windows = []

    def watched(conversation):
        requests = next(conversation)
        while True:
            windows.append(len(requests))
            try:
                incoming = yield requests
            except ReplyTimeoutError as error:
                requests = conversation.throw(error)
            else:
                requests = conversation.send(incoming)

    lose = {"lose": every(loss), "lose_request": every(loss + 2)} if loss else {}
    with pytest.raises(RuntimeError):
        talk(meter.server, watched(client.set(LONG, value)), **lose)
    assert meter.values[THING] == value
    assert max(windows) == 8
    if not loss:
        # All but the last in full windows, once the meter's window is known.
        assert set(windows[1:-1]) == {8}
        with pytest.raises(RuntimeError):
            talk(meter.server, watched(client.action(ECHO, value)))
        assert client.repetitions == 0


def test_an_answer_that_comes_twice_does_not_double_what_goes():
    meter = Meter()
    client = associated(meter, conformance=NO_BLOCKS)
    value = axdr.octet_string(bytes(range(256)) * 40)
    went = []
    late = []

    def delay_once(replies):
        if not replies:
            return []
        went.extend(replies)
        if len(went) == 3:
            late.extend(replies)
            return []
        return [*late, *replies] if len(went) == 4 else replies

    sent = talk(meter.server, client.set(LONG, value), upset=delay_once)
    assert sent is None
    assert meter.values[THING] == value
    assert client.repetitions == 1
    # 10 kB in blocks of at most 191 octets, in windows of 8: few acknowledgements more than windows.
    assert len(went) < 16


@pytest.mark.parametrize("window", [1, 3, 63])
@pytest.mark.parametrize("loss", [0, 2, 3, 7])
def test_blocks_in_windows_arrive_whatever_is_lost(window, loss):
    payload = bytes(range(256)) * 5
    sender, receiver = BlockTransfer(), BlockTransfer(window)
    # The receiver asks first, as a client does: from that the sender knows the window.
    sender.receive_block(GeneralBlockTransfer(True, False, window, 1, 0, b""))
    lose = every(loss) if loss else lambda _: False
    on_the_way = sender.send(payload, 20)
    assert len(on_the_way) == min(window, 64)
    for _ in range(1000):
        back, whole = [], None
        for block in on_the_way:
            assert block.to_bytes()[0] == GeneralBlockTransfer.TAG
            if not lose(block):
                answers, whole = receiver.receive_block(block)
                back += answers
            if whole is not None:
                assert whole == payload
                return
        on_the_way = []
        for block in [b for b in back if not lose(b)] or receiver.repetition():
            on_the_way += sender.receive_block(block)[0]
    pytest.fail("the transfer does not end")


# Security of whole dialogues


def asymmetric(suite, **symmetric):
    pairs = [[generate_private_key(suite) for _ in range(2)] for _ in range(2)]
    return [
        SecurityKeys(
            **symmetric,
            signing=pairs[me][0],
            agreement=pairs[me][1],
            peer_signing=pairs[1 - me][0].public_key(),
            peer_agreement=pairs[1 - me][1].public_key(),
        )
        for me in range(2)
    ]


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("ciphered", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_hls_with_ecdsa(suite, ciphered, signed):
    length = 16 * suite
    mine, theirs = asymmetric(suite, encryption=bytes(length), authentication=bytes(length))
    shared = {
        "mechanism": AuthenticationMechanism.HLS_ECDSA, "security_suite": suite, "ciphered": ciphered,
        "signed": signed,
    }  # fmt: skip
    meter = Meter(max_pdu_size=400, keys=theirs, **shared)
    client = associated(meter, keys=mine, meter_system_title=b"ODCMETER", **shared)
    assert client.associated
    assert talk(meter.server, client.get(LONG)) == TEXT
    assert (b"\x00\x00\x60\x01\x09" in next(client.get(LONG))[0]) is not ciphered
    stranger, _ = asymmetric(suite, encryption=bytes(length), authentication=bytes(length))
    with pytest.raises((SecurityError, ServiceRefusedError)):
        associated(
            meter, keys=stranger, meter_system_title=b"ODCMETER", counter=MemoryCounter(99_999), **shared
        )


@pytest.mark.parametrize("establishment", [e for e in KeyEstablishment if "broadcast" not in e.value])
@pytest.mark.parametrize("suite", [1, 2])
def test_dialogues_with_general_ciphering(establishment, suite):
    mine, theirs = asymmetric(
        suite, authentication=bytes(16 * suite), encryption=bytes(16 * suite), master=bytes(16 * suite)
    )
    shared = {"mechanism": AuthenticationMechanism.HLS_ECDSA, "security_suite": suite}
    meter = Meter(max_pdu_size=500, keys=theirs, **shared)
    sent = []
    receive = meter.server.receive_apdu
    meter.server.receive_apdu = lambda c, s, octets: sent.append(octets) or receive(c, s, octets)
    client = associated(
        meter, keys=mine, key_establishment=establishment, meter_system_title=b"ODCMETER", **shared
    )
    assert talk(meter.server, client.get(SHORT)) == axdr.unsigned(5)
    talk(meter.server, client.set(LONG, TEXT))
    assert max(map(len, sent)) <= 500
    assert 0xDD in {octets[0] for octets in sent[1:]} <= {0xDD, 0xE0}


def test_gmac_proves_in_a_plain_association():
    plain = {**CIPHERED, "ciphered": False}
    meter = Meter(**plain)
    client = associated(meter, **plain)
    assert b"\x00\x00\x60\x01\x09" in next(client.get(LONG))[0]
    assert talk(meter.server, client.get(LONG)) == TEXT
    wrong = {**plain, "keys": SecurityKeys(bytes(16), bytes(16))}
    with pytest.raises(SecurityError, match="proof"):
        associated(meter, **wrong)
    with pytest.raises(AssociationRejectedError):
        associated(meter, **CIPHERED)


def test_the_mechanism_of_a_manufacturer_is_plugged_in():
    def function(challenge, secret):
        return bytes(a ^ b for a, b in zip(challenge, secret * 16, strict=False))

    shared = {
        "mechanism": AuthenticationMechanism.HLS_MANUFACTURER, "secret": b"theirs", "manufacturer": function,
    }  # fmt: skip
    meter = Meter(**shared)
    assert talk(meter.server, associated(meter, **shared).get(LONG)) == TEXT
    with pytest.raises(SecurityError):
        associated(meter, **{**shared, "secret": b"another"})
    with pytest.raises(EncodeError, match="manufacturer"):
        associated(meter, **{**shared, "manufacturer": None})


def test_a_peer_that_reflects_our_challenge_learns_nothing():
    meter = Meter(mechanism=AuthenticationMechanism.HLS_MD5, secret=b"secret")
    client = Client(
        ClientSettings(mechanism=AuthenticationMechanism.HLS_MD5, secret=b"secret"),
        random_octets=lambda count: bytes(count),
    )
    meter.device.random_octets = bytes
    with pytest.raises(SecurityError, match="own challenge"):
        talk(meter.server, client.associate())


def test_secrets_are_changed():
    shared = {"mechanism": AuthenticationMechanism.HLS_SHA256, "secret": b"first"}
    meter = Meter(**shared)
    client = associated(meter, **shared)
    change = MethodDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 2)
    talk(meter.server, client.action(change, axdr.octet_string(b"second")))
    with pytest.raises(SecurityError):
        associated(meter, **shared)
    assert associated(meter, **{**shared, "secret": b"second"}).associated
    low = {"mechanism": AuthenticationMechanism.LLS, "secret": b"first"}
    meter = Meter(**low)
    secret = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 7)
    talk(meter.server, associated(meter, **low).set(secret, axdr.octet_string(b"second")))
    assert associated(meter, **{**low, "secret": b"second"}).associated


def test_a_public_client_invokes_nothing():
    meter = Meter(access=visible_only([THING]))
    client = associated(meter)
    assert talk(meter.server, client.get(LONG)) == TEXT
    with pytest.raises(AccessError, match="denied"):
        talk(meter.server, client.action(COUNT))
    assert meter.invoked == 0


# Short names


SHORT_NAMES = {"short_names": True, "conformance": SHORT_NAME_CONFORMANCE}


@pytest.mark.parametrize("security", [{}, CIPHERED], ids=["plain", "ciphered"])
def test_dialogues_by_short_names(security):
    meter = Meter(**SHORT_NAMES, **security)
    client = associated(meter, ShortNameClient, conformance=DEFAULT_SHORT_NAME_CONFORMANCE, **security)
    names = talk(meter.server, client.read_names())
    assert {(class_id, obis) for class_id, obis in names} == {(1, THING), (1, OTHER)}
    assert talk(meter.server, client.get(SHORT)) == axdr.unsigned(5)
    assert talk(meter.server, client.get(LONG)) == TEXT
    value = axdr.octet_string(b"new value " * 90)
    talk(meter.server, client.set(LONG, value))
    assert meter.values[THING] == value
    short, long, missing = talk(meter.server, client.get_many([SHORT, LONG, MISSING]))
    assert (short, long) == (axdr.unsigned(5), value)
    assert missing.result == DataAccessResult.OBJECT_UNDEFINED
    assert talk(meter.server, client.set_many([(SHORT, axdr.unsigned(8)), (LONG, TEXT)])) == [None, None]
    assert meter.values == {THING: TEXT, OTHER: axdr.unsigned(8)}
    with pytest.raises(AccessError):
        talk(meter.server, client.get(AttributeDescriptor(1, THING, 9)))
    talk(meter.server, client.release())
    with pytest.raises(ServiceRefusedError):
        talk(meter.server, client.get(SHORT))


def test_lost_blocks_by_short_names():
    meter = Meter(**SHORT_NAMES)
    client = associated(
        meter, ShortNameClient, conformance=DEFAULT_SHORT_NAME_CONFORMANCE, repetition_budget=100
    )
    talk(meter.server, client.read_names())
    blocks = every(3)
    lose = lambda reply: reply[:3] == b"\x0c\x01\x02" and reply[4:6] > b"\x00\x01" and blocks(reply)  # noqa: E731
    assert talk(meter.server, client.get(LONG), lose=lose) == TEXT
    assert client.repetitions > 2
    acknowledgements = every(3)
    lose = lambda reply: reply[:3] == b"\x0d\x01\x02" and acknowledgements(reply)  # noqa: E731
    talk(meter.server, client.set(LONG, TEXT), lose=lose)


def test_unknown_services_by_short_names_and_noise():
    meter = Meter(**SHORT_NAMES)
    for noise in (b"\x05\x01\x02\xfa\x08", b"\xc0\x01\xc1" + bytes(10)):
        (reply,) = meter.server.receive_apdu(16, 1, noise)
        assert isinstance(apdu.decode(reply), ExceptionResponse)
    associated(meter, ShortNameClient, conformance=DEFAULT_SHORT_NAME_CONFORMANCE)
    for noise in (b"\xc0\x01\xc1" + bytes(10), b"\x05\x01\x02\x12\x34", b"\x06\x01\x02\x01\x00\x00"):
        (reply,) = meter.server.receive_apdu(16, 1, noise)
        apdu.decode(reply)
