"""Push setup in its versions: what is pushed, when, how often, and how it is protected."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.dlms import apdu, axdr, elliptic
from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm
from concentrator.dlms.attributes import (
    AttributeDescriptor,
    CaptureObject,
    EntryDescriptor,
    MethodDescriptor,
    RangeDescriptor,
)
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.cosem.objects import data, register
from concentrator.dlms.cosem.protection_parameters import ProtectionLayer, ProtectionType
from concentrator.dlms.cosem.push_delivery import DeliveryState, PushDelivery
from concentrator.dlms.cosem.push_setup import (
    PUSH_SETUP,
    PushObject,
    PushSetup,
    RepetitionDelay,
    SendDestination,
)
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import Window, falls_on, last_moment, next_moment, next_opening
from concentrator.dlms.envelopes import KeyEstablishment, unwrap
from concentrator.dlms.errors import AccessError, DecodeError, EncodeError
from concentrator.dlms.security import MemoryCounter, SecurityContext, SecurityKeys
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE, SimulatedMeter

from dlms_talk import talk

ENERGY, SERIAL = Obis(1, 0, 1, 8, 0, 255), Obis(0, 0, 96, 1, 0, 255)
METER, HEAD_END = b"ODCMETER", b"ODCHEAD1"
# Without zone, as the clock of a device shows it.
local = datetime
NOON = local(2026, 7, 3, 12, 0)
OBJECTS = [
    register(ENERGY, axdr.double_long_unsigned(4711), -1, 30),
    data(SERIAL, axdr.octet_string(b"42")),
]
TARGETS = [CaptureObject(1, SERIAL, 2), CaptureObject(3, ENERGY, 2), CaptureObject(3, ENERGY, 3, 2)]
DESTINATION = SendDestination(0, b"192.0.2.1:4059")


def find(class_id, obis):
    return next((found for found in OBJECTS if (found.class_id, found.obis) == (class_id, obis)), None)


def push_setup(**more):
    more.setdefault("object_list", tuple(map(PushObject, TARGETS)))
    return PushSetup(
        find, lambda: bytes(12), more.pop("on_push", lambda _: None), destination=DESTINATION, **more
    )


class Meter:
    def __init__(self, setup):
        self.server = Server(
            [LogicalDevice(1, [*OBJECTS, setup.cosem_object()], [AssociationDefinition(16)])]
        )
        self.client = Client(ClientSettings())
        talk(self.server, self.client.associate())

    def get(self, attribute):
        return talk(self.server, self.client.get(AttributeDescriptor(40, PUSH_SETUP, attribute)))

    def set(self, attribute, value):
        talk(self.server, self.client.set(AttributeDescriptor(40, PUSH_SETUP, attribute), value))

    def push(self, method=1):
        talk(self.server, self.client.action(MethodDescriptor(40, PUSH_SETUP, method), axdr.integer(0)))


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_attribute_of_every_version_is_read_and_written(version):
    setup = push_setup(version=version, object_list=())
    meter = Meter(setup)
    window = Window(CosemDateTime(hour=1, minute=0, second=0), CosemDateTime(hour=5, minute=30, second=0))
    layer = ProtectionLayer(ProtectionType.AUTHENTICATION_AND_ENCRYPTION, recipient=HEAD_END)
    delay = (
        axdr.long_unsigned(60) if version < 2 else axdr.structure(*map(axdr.long_unsigned, (60, 200, 900)))
    )
    written = {
        2: axdr.array(*(PushObject(target).to_data(version) for target in TARGETS)),
        3: DESTINATION.to_data(),
        4: axdr.array(window.to_data()),
        5: axdr.long_unsigned(300),
        6: axdr.unsigned(3),
        7: delay,
    }
    if version >= 1:
        written |= {8: axdr.octet_string(b"port"), 9: axdr.integer(16), 10: axdr.array(layer.to_data())}
    if version >= 2:
        start = axdr.octet_string(CosemDateTime().to_bytes())
        written |= {11: axdr.enumeration(2), 12: axdr.structure(start, axdr.double_long_unsigned(3600))}
    for attribute, value in written.items():
        meter.set(attribute, value)
        assert meter.get(attribute) == value
        for nonsense in (axdr.NULL, axdr.array(axdr.unsigned(1)), axdr.structure(axdr.NULL, axdr.NULL)):
            with pytest.raises(AccessError):
                meter.set(attribute, nonsense)
        assert meter.get(attribute) == value
    assert [element.target for element in setup.object_list] == TARGETS
    assert setup.communication_windows == (window,)
    assert setup.repetition_delay == RepetitionDelay(60, *((200, 900) if version >= 2 else ()))
    with pytest.raises(AccessError):
        meter.get({0: 8, 1: 11, 2: 14}[version])


def test_a_push_carries_what_the_object_list_names():
    sent = []
    setup = push_setup(confirmed=True, on_push=lambda setup: sent.append(setup.notification()))
    meter = Meter(setup)
    meter.push()
    meter.push()
    first, second = sent
    assert first.confirmed
    assert first.body.native == [b"42", 4711, 30]
    assert second.long_invoke == first.long_invoke + 1
    setup.object_list = (PushObject(CaptureObject(1, Obis(0, 0, 96, 1, 1, 255), 2)),)
    with pytest.raises(AccessError):
        meter.push()


def test_a_profile_is_pushed_in_part():
    now = datetime.fromisoformat("2026-07-03T12:05:00+00:00")
    simulated = SimulatedMeter("30000007", 11, lambda: now, clock_offset_s=0)
    simulated.compressed = False
    objects = simulated.server.devices[1].objects
    buffer = CaptureObject(7, LOAD_PROFILE, 2)
    bounds = [CosemDateTime.from_datetime(now - timedelta(hours=hours), -120) for hours in (3, 0)]
    columns = tuple(CaptureObject.from_data(c) for c in objects[7, LOAD_PROFILE].attributes[3]().items())
    wanted = (
        PushObject(buffer, EntryDescriptor(2, 4)),
        PushObject(buffer, RangeDescriptor(*bounds)),
        PushObject(buffer, RangeDescriptor(*bounds), columns[2:3]),
        PushObject(buffer, None, columns[2:3]),
    )
    setup = PushSetup(
        lambda class_id, obis: objects.get((class_id, obis)), lambda: bytes(12), lambda _: None, version=2
    )
    Meter(setup).set(2, axdr.array(*(element.to_data(2) for element in wanted)))
    by_entry, by_range, one_column, all_of_it = setup.notification().body.items()
    assert len(by_entry.items()) == 3
    assert len(by_range.items()) == 12
    assert {len(row.items()) for row in one_column.items()} == {1}
    assert len(all_of_it.items()) == len(objects[7, LOAD_PROFILE].attributes[2]._rows.entries())


# Delivery


def delivery(chance=0.0, **more):
    setup = push_setup(**more)
    return setup, PushDelivery(setup, chance=lambda: chance, confirmation_timeout_s=30)


def run_to(one, moment):
    one.handle_timeout(moment)
    return one.next_transmission()


def test_a_push_goes_at_once_and_is_done_when_it_is_sent():
    _, one = delivery()
    one.trigger(NOON)
    transmission = one.next_transmission()
    assert transmission.destination == DESTINATION
    assert isinstance(apdu.decode(transmission.apdu), DataNotification)
    one.trigger(NOON)
    assert one.next_transmission() is None
    one.sent(NOON)
    assert (one.state, one.delivered, one.next_timeout()) == (DeliveryState.IDLE, 1, None)


@pytest.mark.parametrize("version", [0, 2])
def test_a_failed_push_is_repeated_as_often_as_set(version):
    setup, one = delivery(version=version)
    setup.number_of_retries = 3
    setup.repetition_delay = RepetitionDelay(10, 300, 60) if version == 2 else RepetitionDelay(10)
    one.trigger(NOON)
    now, seen = NOON, [one.next_transmission()]
    waits = []
    while seen[-1] is not None:
        one.failed(now)
        if one.next_timeout() is None:
            break
        assert run_to(one, one.next_timeout() - timedelta(seconds=0.1)) is None
        waits.append((one.next_timeout() - now).total_seconds())
        now = one.next_timeout()
        seen.append(run_to(one, now))
    assert waits == ([10, 30, 60] if version == 2 else [10, 10, 10])
    assert [transmission.attempt for transmission in seen] == [1, 2, 3, 4]
    assert (one.delivered, one.abandoned, one.retries) == (0, 1, 3)
    invokes = {apdu.decode(transmission.apdu).long_invoke for transmission in seen}
    assert len(invokes) == 1


def test_a_confirmed_push_is_repeated_until_it_is_confirmed():
    setup, one = delivery(confirmed=True)
    setup.number_of_retries, setup.repetition_delay = 2, RepetitionDelay(5)
    one.trigger(NOON)
    notification = apdu.decode(one.next_transmission().apdu)
    assert notification.confirmed
    one.sent(NOON)
    assert one.state == DeliveryState.AWAITING_CONFIRMATION
    other = DataNotificationConfirm(notification.long_invoke + 1)
    assert not one.receive_confirmation(other, NOON)
    late = NOON + timedelta(seconds=30)
    assert run_to(one, late) is None
    again = run_to(one, late + timedelta(seconds=5))
    assert again.attempt == 2
    one.sent(late)
    assert one.receive_confirmation(DataNotificationConfirm(notification.long_invoke), late)
    assert not one.receive_confirmation(DataNotificationConfirm(notification.long_invoke), late)
    assert (one.delivered, one.retries, one.abandoned) == (1, 1, 0)
    assert setup.last_confirmation.local() == late


def test_a_push_waits_for_its_window_and_a_random_time():
    setup, one = delivery(chance=0.5)
    setup.randomisation_start_interval_s = 600
    setup.number_of_retries, setup.repetition_delay = 99, RepetitionDelay(3600)
    setup.communication_windows = (
        Window(CosemDateTime(hour=1, minute=0, second=0), CosemDateTime(hour=3, minute=0, second=0)),
    )
    one.trigger(NOON)
    assert one.next_transmission() is None
    assert one.next_timeout() == local(2026, 7, 4, 1, 5)
    assert run_to(one, local(2026, 7, 4, 1, 0)) is None
    assert run_to(one, local(2026, 7, 4, 1, 5)).attempt == 1
    one.failed(local(2026, 7, 4, 1, 6))
    assert run_to(one, local(2026, 7, 4, 2, 6)).attempt == 2
    one.failed(local(2026, 7, 4, 2, 7))
    # The window closes before the next attempt.
    assert run_to(one, local(2026, 7, 4, 3, 7)) is None
    assert (one.state, one.abandoned) == (DeliveryState.IDLE, 1)
    setup.communication_windows = (
        Window(CosemDateTime(2020, 1, 1, hour=0, minute=0), CosemDateTime(2020, 1, 2)),
    )
    one.trigger(NOON)
    assert one.next_timeout() == local(2026, 7, 3, 12, 5) or one.abandoned == 2


def test_reset_gives_up_what_is_under_way():
    setup, one = delivery(version=2, confirmed=True)
    meter = Meter(setup)
    one.trigger(NOON)
    one.next_transmission()
    one.sent(NOON)
    setup.last_confirmation = CosemDateTime.from_datetime(NOON, None)
    meter.push(method=2)
    assert one.state == DeliveryState.IDLE
    assert setup.last_confirmation == CosemDateTime()
    assert meter.get(13).octets() == CosemDateTime().to_bytes()


# Windows


def test_windows_open_and_close():
    night = Window(CosemDateTime(hour=22, minute=0), CosemDateTime(hour=6, minute=0))
    sunday = Window(CosemDateTime(weekday=7, hour=8, minute=30), CosemDateTime(weekday=7, hour=9, minute=0))
    assert night.is_open(local(2026, 7, 3, 23, 0))
    assert night.is_open(local(2026, 7, 4, 5, 59, 59))
    assert not night.is_open(local(2026, 7, 4, 6, 0))
    assert sunday.is_open(local(2026, 7, 5, 8, 30))
    assert not sunday.is_open(NOON)
    assert next_opening([night, sunday], NOON) == local(2026, 7, 3, 22, 0)
    assert next_opening([sunday], NOON) == local(2026, 7, 5, 8, 30)
    assert next_opening([], NOON) == NOON
    last_day = CosemDateTime(day=0xFE, hour=0, minute=0)
    assert next_moment(last_day, NOON) == local(2026, 7, 31)
    assert last_moment(last_day, NOON) == local(2026, 6, 30)
    assert next_moment(CosemDateTime(day=0xFD, hour=0, minute=0), NOON) == local(2026, 7, 30)
    assert next_moment(CosemDateTime(2020, 1, 1, hour=0, minute=0), NOON) is None
    assert next_moment(CosemDateTime(month=2, day=29, hour=0, minute=0), NOON) == local(2028, 2, 29)
    with pytest.raises(DecodeError):
        next_moment(CosemDateTime(hour=25), NOON)


@given(
    st.builds(
        CosemDateTime,
        st.sampled_from([2026, 2027, 0xFFFF]), st.integers(1, 12) | st.just(0xFF),
        st.integers(1, 31) | st.sampled_from([0xFD, 0xFE, 0xFF]), st.integers(1, 7) | st.just(0xFF),
        st.integers(0, 23) | st.just(0xFF), st.integers(0, 59) | st.just(0xFF), st.integers(0, 59) | st.just(0xFF),
        st.just(0xFF), st.just(0), st.just(0),
    ),
    st.datetimes(local(2026, 1, 1), local(2026, 12, 31)),
)  # fmt: skip
def test_moments_fit_their_pattern(pattern, now):
    for moment in (next_moment(pattern, now), last_moment(pattern, now)):
        if moment is not None:
            assert falls_on(pattern, moment.date())
            assert pattern.hour in (0xFF, moment.hour)
            assert pattern.minute in (0xFF, moment.minute)
    following, before = next_moment(pattern, now), last_moment(pattern, now)
    assert following is None or following >= now
    assert before is None or before <= now


# Protection


def both_sides(suite):
    length = 32 if suite == 2 else 16
    pairs = [[elliptic.generate_private_key(suite) for _ in range(2)] for _ in range(2)] if suite else None
    contexts = []
    for own, peer, titles in ((0, 1, (METER, HEAD_END)), (1, 0, (HEAD_END, METER))):
        asymmetric = {}
        if pairs:
            asymmetric = {
                "signing": pairs[own][0],
                "agreement": pairs[own][1],
                "peer_signing": pairs[peer][0].public_key(),
                "peer_agreement": pairs[peer][1].public_key(),
            }
        keys = SecurityKeys(
            bytes(range(length)), bytes(range(1, length + 1)), bytes(range(2, length + 2)),
            master=bytes(range(3, length + 3)), **asymmetric,
        )  # fmt: skip
        contexts.append(
            SecurityContext(
                keys, titles[0], MemoryCounter(1), peer_system_title=titles[1], suite=suite, policy=0
            )
        )
    return contexts


@pytest.mark.parametrize("establishment", KeyEstablishment)
@pytest.mark.parametrize("kind", ProtectionType)
@pytest.mark.parametrize("suite", [0, 1, 2])
def test_a_push_is_protected_by_its_layers(suite, kind, establishment):
    asymmetric = kind == ProtectionType.SIGNATURE or establishment in (
        KeyEstablishment.ONE_PASS,
        KeyEstablishment.STATIC_UNIFIED,
    )
    meter, head_end = both_sides(suite)
    setup = push_setup(version=1, security=meter)
    layer = ProtectionLayer(kind, establishment, b"12345678", METER, HEAD_END, b"more")
    Meter(setup).set(10, axdr.array(layer.to_data()))
    assert setup.protection_parameters == (layer,)
    notification = setup.notification()
    if asymmetric and not suite:
        with pytest.raises(EncodeError):
            setup.protected(notification)
        return
    protected = apdu.decode(setup.protected(notification))
    assert protected.transaction_id == b"12345678"
    assert protected.recipient_system_title == HEAD_END
    assert protected.other_information == b"more"
    plain, envelope = unwrap(head_end, protected)
    assert plain == notification.to_bytes()
    assert envelope.signed is (kind == ProtectionType.SIGNATURE)
    assert envelope.control == {0: 0x10, 1: 0x20, 2: 0x30, 3: 0}[kind]
    # Each attempt has a counter or a transaction of its own.
    assert setup.protected(notification) != setup.protected(notification)


def test_a_push_may_be_ciphered_and_then_signed():
    meter, head_end = both_sides(1)
    setup = push_setup(version=1, security=meter)
    setup.protection_parameters = (
        ProtectionLayer(ProtectionType.AUTHENTICATION_AND_ENCRYPTION, KeyEstablishment.WRAPPED),
        ProtectionLayer(ProtectionType.SIGNATURE),
    )
    notification = setup.notification()
    plain, envelope = unwrap(head_end, apdu.decode(setup.protected(notification)))
    assert plain == notification.to_bytes()
    assert (envelope.signed, envelope.control) == (True, 0x30)
    setup.protection_parameters = ()
    plain, envelope = unwrap(head_end, apdu.decode(setup.protected(notification)))
    assert plain == notification.to_bytes()
    bare = push_setup(version=1)
    bare.protection_parameters = (ProtectionLayer(ProtectionType.ENCRYPTION),)
    with pytest.raises(EncodeError, match="no keys"):
        bare.protected(bare.notification())
