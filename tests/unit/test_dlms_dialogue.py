"""Our client and our server speak to each other, through everything that goes wrong between them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from concentrator.collection import meter_reader
from concentrator.dlms import apdu, axdr
from concentrator.dlms.acse import AssociationResponse
from concentrator.dlms.apdu.get import GetResponseNormal
from concentrator.dlms.apdu.notification import DataNotification, ExceptionResponse
from concentrator.dlms.attributes import (
    AttributeDescriptor,
    EntryDescriptor,
    MethodDescriptor,
    RangeDescriptor,
)
from concentrator.dlms.client import ASSOCIATION_LN, Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance, DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import (
    AccessError,
    AssociationRejectedError,
    LinkLostError,
    ReplayError,
    SecurityError,
    ServiceRefusedError,
    UnexpectedReplyError,
)
from concentrator.dlms.profile import capture_objects, decode_profile
from concentrator.dlms.security import MemoryCounter, SecurityContext, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.obis import Obis
from concentrator.simulator.meter import (
    CLOCK,
    ENERGY,
    EVENT_LOG,
    INVOCATION_COUNTER,
    LOAD_PROFILE,
    LOGICAL_DEVICE_NAME,
    SimulatedMeter,
    local_time,
)
from concentrator.simulator.meter_controls import DISCONNECTOR

NOW = datetime(2026, 10, 26, 12, 5, tzinfo=UTC)
KEYS = SecurityKeys(bytes(range(16)), bytes(range(0xD0, 0xE0)))
LONG = Obis(0, 0, 96, 1, 9, 255)
NAME = AttributeDescriptor(1, LONG, 2)


def talk(server, conversation, saps=(16, 1), *, upset=lambda replies: replies):
    """Run a conversation against a server; `upset` may change what comes back."""
    pending = []
    try:
        requests = next(conversation)
        while True:
            for request in requests:
                pending += upset(server.receive_apdu(*saps, request))
            if not pending:
                requests = conversation.throw(LinkLostError("no reply"))
            else:
                requests = conversation.send(pending.pop(0))
    except StopIteration as done:
        return done.value


def server_with(mechanism=AuthenticationMechanism.NONE, keys=None, secret=b"", **more):
    stored = {2: axdr.octet_string(bytes(range(256)) * 8)}

    def write(value):
        stored[2] = axdr.octet_string(value.octets())

    def echo(parameters):
        return parameters

    thing = CosemObject(1, LONG, {2: lambda: stored[2]}, {2: write}, {1: echo})
    definition = AssociationDefinition(16, mechanism, secret=secret, keys=keys, **more)
    device = LogicalDevice(1, [thing], [definition], system_title=b"ODCMETER", max_pdu_size=200)
    return Server([device])


def client_for(mechanism=AuthenticationMechanism.NONE, keys=None, secret=b"", **more):
    settings = ClientSettings(
        mechanism=mechanism, keys=keys, secret=secret, system_title=b"ODCTEST1", max_pdu_size=180, **more
    )
    return Client(settings, MemoryCounter(1) if keys else None)


MECHANISMS = [
    (AuthenticationMechanism.NONE, b""),
    (AuthenticationMechanism.LLS, b"password"),
    (AuthenticationMechanism.HLS_MD5, b"secret"),
    (AuthenticationMechanism.HLS_SHA1, b"secret"),
    (AuthenticationMechanism.HLS_SHA256, b"secret"),
    (AuthenticationMechanism.HLS_GMAC, b""),
]


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize(
    ("mechanism", "secret", "ciphered"),
    [
        (mechanism, secret, ciphered)
        for mechanism, secret in MECHANISMS
        for ciphered in (False, True)
        # GMAC proves the possession of keys: without any there is nothing to prove.
        if ciphered or mechanism != AuthenticationMechanism.HLS_GMAC
    ],
)
def test_blocks_in_both_directions(mechanism, secret, ciphered, general):
    keys = KEYS if ciphered else None
    server = server_with(mechanism, keys, secret)
    client = client_for(mechanism, keys, secret, general_ciphering=general)
    longest = 0

    def watch(replies):
        nonlocal longest
        longest = max([longest, *map(len, replies)])
        return replies

    talk(server, client.associate(), upset=watch)
    assert talk(server, client.get(NAME), upset=watch).octets() == bytes(range(256)) * 8
    written = axdr.octet_string(b"new value " * 150)
    talk(server, client.set(NAME, written), upset=watch)
    assert talk(server, client.get(NAME), upset=watch) == written
    echoed = talk(server, client.action(MethodDescriptor(1, LONG, 1), written), upset=watch)
    assert echoed == written
    many = talk(server, client.get_many([NAME, AttributeDescriptor(1, CLOCK, 2), NAME]), upset=watch)
    assert many[0] == many[2] == written
    assert many[1].result == DataAccessResult.OBJECT_UNDEFINED
    talk(server, client.release(), upset=watch)
    # Neither side was ever sent more than it said that it can take.
    assert longest <= 180


@pytest.mark.parametrize(("suite", "length"), [(0, 16), (1, 16), (2, 32)])
@pytest.mark.parametrize("policy", [0x10, 0x20, 0x30])
def test_suites_and_policies(suite, length, policy):
    keys = SecurityKeys(bytes(range(length)), bytes(range(length)))
    server = server_with(AuthenticationMechanism.HLS_GMAC, keys, security_suite=suite, security_policy=policy)
    client = client_for(AuthenticationMechanism.HLS_GMAC, keys, security_suite=suite, security_policy=policy)
    talk(server, client.associate())
    assert talk(server, client.get(NAME)).octets()


def test_a_dedicated_key_protects_the_services():
    server = server_with(AuthenticationMechanism.HLS_GMAC, KEYS)
    client = client_for(AuthenticationMechanism.HLS_GMAC, KEYS, dedicated_key=bytes(16))
    talk(server, client.associate())
    seen = []
    talk(server, client.get(NAME), upset=lambda replies: seen.extend(replies) or replies)
    assert {reply[0] for reply in seen} == {0xD4}


@pytest.mark.parametrize(("mechanism", "secret"), MECHANISMS[1:5])
def test_a_wrong_secret_is_refused(mechanism, secret):
    server = server_with(mechanism, secret=secret)
    client = client_for(mechanism, secret=secret + b"x")
    with pytest.raises((AssociationRejectedError, SecurityError), match=r"authentication-failure|proof"):
        talk(server, client.associate())
    assert not client.associated
    with pytest.raises(ServiceRefusedError, match="service-not-allowed"):
        talk(server, client.get(NAME))


def test_a_meter_that_cannot_prove_itself_is_refused():
    server = server_with(AuthenticationMechanism.HLS_SHA256, secret=b"secret")
    client = client_for(AuthenticationMechanism.HLS_SHA256, secret=b"secret")

    def forge(replies):
        return [reply[:-1] + bytes((reply[-1] ^ 1,)) if reply[0] == 0xC7 else reply for reply in replies]

    with pytest.raises(SecurityError, match="answer to our challenge"):
        talk(server, client.associate(), upset=forge)


def test_notifications_and_strangers_in_between_do_no_harm():
    server, client = server_with(), client_for()
    talk(server, client.associate())
    push = DataNotification(1, None, axdr.unsigned(7))
    stray = GetResponseNormal(0xCF, b"\x00").to_bytes()
    value = talk(server, client.get(NAME), upset=lambda replies: [push.to_bytes(), stray, *replies])
    assert value.octets() == bytes(range(256)) * 8
    assert client.notifications[0] == push
    assert client.unrelated_replies > 0


def test_repeated_blocks_are_taken_once_and_lost_ones_end_the_read():
    server, client = server_with(), client_for()
    talk(server, client.associate())
    dropped = []

    def lose_second(replies):
        blocks = [reply for reply in replies if reply[:2] == b"\xc4\x02" and reply[7] == 2]
        if blocks and not dropped:
            dropped.extend(blocks)
            return []
        return replies

    with pytest.raises(LinkLostError):
        talk(server, client.get(NAME), upset=lose_second)
    assert talk(server, client.get(NAME)).octets() == bytes(range(256)) * 8


def test_a_meter_that_never_answers_the_question_ends_the_conversation():
    client = client_for()
    talk(server_with(), client.associate())
    conversation = client.get(NAME)
    next(conversation)
    push = DataNotification(1, None, axdr.NULL).to_bytes()
    for _ in range(255):
        assert conversation.send(push) == ()
    with pytest.raises(UnexpectedReplyError, match="256 APDUs came unasked"):
        conversation.send(push)


def test_plain_answers_are_refused_where_ciphered_is_agreed():
    server = server_with(AuthenticationMechanism.HLS_GMAC, KEYS)
    client = client_for(AuthenticationMechanism.HLS_GMAC, KEYS)
    talk(server, client.associate())
    plain = GetResponseNormal(0xC1, b"\x00")
    conversation = client.get(NAME)
    next(conversation)
    with pytest.raises(SecurityError, match="plain"):
        conversation.send(plain.to_bytes())


def test_replays_are_refused_and_counted_on_both_sides():
    server = server_with(AuthenticationMechanism.HLS_GMAC, KEYS)
    client = client_for(AuthenticationMechanism.HLS_GMAC, KEYS)
    talk(server, client.associate())
    conversation = client.get(AttributeDescriptor(1, LONG, 1))
    (request,) = next(conversation)
    (reply,) = server.receive_apdu(16, 1, request)
    with pytest.raises(StopIteration):
        conversation.send(reply)
    (again,) = server.receive_apdu(16, 1, request)
    refusal = apdu.decode(again)
    assert isinstance(refusal, ExceptionResponse)
    assert refusal.service == 6
    assert refusal.expected_counter is not None
    assert server.devices[1].replays == 1
    old = client.get(AttributeDescriptor(1, LONG, 1))
    (fresh,) = next(old)
    assert old.send(reply) == ()
    assert client.security.replays == 1
    with pytest.raises(StopIteration):
        old.send(server.receive_apdu(16, 1, fresh)[0])


def test_less_protection_than_agreed_is_refused():
    strict = SecurityContext(KEYS, b"ODCTEST1", MemoryCounter(), peer_system_title=b"ODCMETER")
    loose = SecurityContext(KEYS, b"ODCMETER", MemoryCounter(), peer_system_title=b"ODCTEST1", policy=0x20)
    with pytest.raises(SecurityError, match="less than agreed"):
        strict.unprotect(loose.protect(b"\xc4"))
    same = SecurityContext(KEYS, b"ODCMETER", MemoryCounter(), peer_system_title=b"ODCTEST1")
    content = same.protect(b"\xc4\x01")
    assert strict.unprotect(content) == b"\xc4\x01"
    with pytest.raises(ReplayError):
        strict.unprotect(content)


def test_keys_are_never_shown():
    client = client_for(
        AuthenticationMechanism.HLS_GMAC, KEYS, b"topsecret", dedicated_key=b"dedicated-key-16"
    )
    shown = f"{KEYS!r} {KEYS} {client.settings!r} {vars(client)!r}"
    assert "topsecret" not in shown
    assert "dedicated-key" not in shown
    assert KEYS.encryption.hex() not in shown
    assert repr(KEYS.encryption)[2:-1] not in shown


def test_a_rejection_without_user_information_tells_why():
    client = client_for()
    conversation = client.associate()
    next(conversation)
    rejection = AssociationResponse(1, 1, 1, 13, None).to_bytes()
    with pytest.raises(AssociationRejectedError, match="authentication-failure"):
        conversation.send(rejection)


def test_without_with_list_attributes_are_read_one_by_one():
    server = server_with(conformance=Conformance.GET | Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ)
    client = client_for()
    talk(server, client.associate())
    first, second = talk(server, client.get_many([NAME, AttributeDescriptor(1, CLOCK, 2)]))
    assert first.octets()
    assert isinstance(second, AccessError)


def test_a_list_that_is_refused_as_such_is_read_one_by_one():
    server, client = server_with(), client_for()
    talk(server, client.associate())

    def refuse_lists(replies):
        lists = [reply[:2] in (b"\xc4\x02", b"\xc4\x03") and not refused for reply in replies]
        refused.extend(replies)
        return (
            [GetResponseNormal(replies[0][2], DataAccessResult.OTHER_REASON).to_bytes()]
            if any(lists)
            else replies
        )

    refused = []
    first, second = talk(
        server, client.get_many([NAME, AttributeDescriptor(1, CLOCK, 2)]), upset=refuse_lists
    )
    assert first.octets() == bytes(range(256)) * 8
    assert second.result == DataAccessResult.OBJECT_UNDEFINED


def test_unknown_services_and_noise_get_an_exception_response():
    server = server_with()
    talk(server, client_for().associate())
    for noise in (b"\xd9\x00", b"\xc0", b"\x05\x01\x02\xfa\x00", b"\xff" * 20):
        (reply,) = server.receive_apdu(16, 1, noise)
        assert isinstance(apdu.decode(reply), ExceptionResponse)
    assert server.receive_apdu(99, 1, b"\xc0") == []


# The simulated meter


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def meter(request):
    found = SimulatedMeter("10000042", 3, lambda: NOW, clock_offset_s=0)
    found.compressed = request.param
    return found


def manage(meter):
    client = Client(
        ClientSettings(
            client_sap=1,
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=meter.keys,
            system_title=b"ODCTEST1",
        ),
        MemoryCounter(1),
    )
    talk(meter.server, client.associate(), (1, 1))
    return client, lambda conversation: talk(meter.server, conversation, (1, 1))


def test_the_public_client_sees_little(meter):
    client = Client(ClientSettings())
    talk(meter.server, client.associate())
    name = talk(meter.server, client.get(AttributeDescriptor(1, LOGICAL_DEVICE_NAME, 2)))
    assert name.octets() == meter.logical_device_name
    assert len(name.octets()) == 16
    assert talk(meter.server, client.get(AttributeDescriptor(1, INVOCATION_COUNTER, 2))).integer() == 0
    with pytest.raises(AccessError, match="read-write-denied"):
        talk(meter.server, client.get(AttributeDescriptor(3, ENERGY[0], 2)))
    objects = talk(meter.server, client.get(AttributeDescriptor(15, ASSOCIATION_LN, 2))).items()
    assert bytes(ENERGY[0]) not in [entry.items()[2].octets() for entry in objects]


def test_load_profile_by_range_is_the_truth_across_the_end_of_summer_time(meter):
    client, run = manage(meter)
    columns = capture_objects(run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 3))))
    start, end = NOW - timedelta(days=3), NOW
    for deviation in (0, -60, None):
        bounds = RangeDescriptor(start, end, deviation=deviation)
        if deviation is None:
            local = [CosemDateTime.from_datetime(m - timedelta(minutes=-60), None) for m in (start, end)]
            bounds = RangeDescriptor(*local)
        encoded = run(client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), bounds))
        rows = decode_profile(encoded, columns, 900)
        truth = meter.truth(LOAD_PROFILE, start, end)
        assert len(truth) == 288
        assert [(row.captured_at, row.status, row.values) for row in rows] == [tuple(row) for row in truth]
        assert any(row.inferred_time for row in rows) == meter.compressed


@pytest.mark.parametrize("now", [NOW, datetime(2026, 3, 30, 9, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)])
def test_a_meter_that_leaves_its_deviation_open_is_read_across_seasons(meter, now):
    meter.tells_deviation = False
    meter._clock = lambda: now
    client, run = manage(meter)
    clock, shape = run(meter_reader.read_clock_and_shape(client, LOAD_PROFILE))
    assert clock.utc_offset is None
    local_time = meter_reader.LocalTime.of(clock, run(meter_reader.read_time_zone(client)))
    assert local_time == (-120 if clock.daylight_saving else -60, -60, False)
    assert meter_reader.clock_offset_s(clock, now, local_time) == 0
    start = now - timedelta(days=3)
    rows = run(meter_reader.read_range(client, shape, start, now, local_time))
    truth = [tuple(row) for row in meter.truth(LOAD_PROFILE, start, now)]
    assert len(truth) >= 288
    assert truth == [(r.captured_at, r.status, r.values) for r in rows if start <= r.captured_at <= now]


def test_a_meter_whose_zone_nobody_knows_is_not_guessed():
    clock = CosemDateTime.from_datetime(NOW, None)
    assert meter_reader.LocalTime.of(clock, None) is None
    assert meter_reader.clock_offset_s(clock, NOW, None) is None


def test_load_profile_by_entry_and_by_column(meter):
    client, run = manage(meter)
    attribute = AttributeDescriptor(7, LOAD_PROFILE, 2)
    rows = run(client.get(attribute, EntryDescriptor(1, 3, 3, 3))).items()
    truth = meter.truth(LOAD_PROFILE, NOW - timedelta(days=60), NOW)[:3]
    values = [row.items()[0].value for row in rows]
    assert values[0] == truth[0].values[0]
    columns = capture_objects(run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 3))))
    picked = run(client.get(attribute, RangeDescriptor(NOW - timedelta(hours=1), NOW, columns=columns[:1])))
    assert {len(row.items()) for row in picked.items()} == {1}
    assert run(client.get(attribute, RangeDescriptor(NOW, NOW - timedelta(days=1)))).items() == ()


def test_a_buffer_streams_through_a_sink(meter):
    client, run = manage(meter)
    pieces = []
    run(client.get_encoded(AttributeDescriptor(7, LOAD_PROFILE, 2), sink=pieces.append))
    assert len(pieces) > 20
    assert max(map(len, pieces)) < meter.max_pdu_size
    columns = capture_objects(run(client.get(AttributeDescriptor(7, LOAD_PROFILE, 3))))
    assert len(decode_profile(b"".join(pieces), columns, 900)) == 60 * 96


def test_events_clock_and_breaker(meter):
    client, run = manage(meter)
    events = run(client.get(AttributeDescriptor(7, EVENT_LOG, 2))).items()
    assert len(events) == len(meter.truth(EVENT_LOG, NOW - timedelta(days=365), NOW)) > 0
    clock = AttributeDescriptor(8, CLOCK, 2)
    assert run(client.get(clock)).octets() == local_time(NOW).to_bytes()
    later = NOW + timedelta(seconds=30)
    run(client.set(clock, axdr.octet_string(CosemDateTime.from_datetime(later, -120).to_bytes())))
    assert meter.clock_offset_s == 30
    run(client.action(MethodDescriptor(70, DISCONNECTOR, 1)))
    assert not meter.connected
    meter.link_lost()
    with pytest.raises(ServiceRefusedError):
        run(client.get(clock))


def test_a_meter_is_the_same_whenever_it_is_asked():
    one = SimulatedMeter("10000042", 3, lambda: NOW)
    other = SimulatedMeter("10000042", 3, lambda: NOW + timedelta(days=2))
    start = NOW - timedelta(days=1)
    assert one.truth(LOAD_PROFILE, start, NOW) == other.truth(LOAD_PROFILE, start, NOW)
    assert one.keys.encryption == other.keys.encryption
    assert one.keys.encryption != SimulatedMeter("10000043", 3, lambda: NOW).keys.encryption
    values = [row.values for row in one.truth(LOAD_PROFILE, NOW - timedelta(days=59), NOW)]
    for earlier, later in pairwise(values):
        assert all(a <= b for a, b in zip(earlier, later, strict=True))
