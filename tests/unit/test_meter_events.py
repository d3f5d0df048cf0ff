"""Event logs and alarms of meters: each entry once, in words, stored before anybody is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.collection import meter_events
from concentrator.collection.alarms import AlarmDesk, alarm_events, pushed_values
from concentrator.collection.event_codes import EventCodesError, companions, event_codes
from concentrator.collection.keyring import Keyring, MeterKeys
from concentrator.collection.meter_events import EventReader
from concentrator.collection.meter_reader import LocalTime
from concentrator.collection.received_counters import ReceivedCounters
from concentrator.collection.registry import CollectedMeter, Registry
from concentrator.config import CollectionSection
from concentrator.dlms import axdr
from concentrator.dlms.apdu import DataNotification, DataNotificationConfirm, EventNotification
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.security import MemoryCounter
from concentrator.model import EventSeverity, MeterRecord, MeterState
from concentrator.obis import Obis
from concentrator.simulator.meter import EVENT_LOG, FRAUD_LOG, SimulatedMeter
from concentrator.simulator.meter_events import STRONG_DC_FIELD, TERMINAL_COVER_REMOVED, Happening
from concentrator.store.meter_events import events_between
from concentrator.store.store import Store
from concentrator.uplink.messages import Topics, batch_messages
from plc.network import ApduReceived

from dlms_talk import talk

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DESCRIPTOR_1, DESCRIPTOR_2 = Obis(0, 0, 97, 98, 20), Obis(0, 0, 97, 98, 21)


class At:
    """A clock that stands where a test puts it."""

    def __init__(self, moment):
        self.moment = moment

    def now(self):
        return self.moment

    def monotonic(self):
        return self.moment.timestamp()


@pytest.fixture
def clock():
    return At(NOW)


@pytest.fixture
async def store(tmp_path, clock):
    store = Store(tmp_path / "store.db", clock)
    await store.save_meter(MeterRecord("M1"))
    yield store
    store.close()


# Words


def test_codes_are_those_of_the_companion():
    idis, dsmr = event_codes("idis"), event_codes("dsmr")
    assert companions() == ("dsmr", "idis")
    assert idis.event(40) == (EventSeverity.ALARM, "cover", "terminal cover removed")
    assert idis.event(78).words == "undervoltage L3"
    assert idis.event(123).words == "fraud attempt at the M-Bus device, channel 3"
    assert idis.event(72).kind == "switch"
    assert dsmr.event(72).words == "technical maintenance"
    assert dsmr.event(40) == idis.event(40)
    assert idis.alarm(1, 0).kind == dsmr.alarm(2, 0).kind == "power_down"
    assert idis.event(222).words == "event 222"
    assert idis.alarm(0, 63).severity is EventSeverity.ALARM
    with pytest.raises(EventCodesError, match="known: dsmr, idis"):
        event_codes("nobody's")


# Logs


def meter_and_client(clock, **changes):
    meter = SimulatedMeter("ODC0010000007", 3, lambda: clock.now(), clock_offset_s=0)
    for name, value in changes.items():
        setattr(meter, name, value)
    client = Client(
        ClientSettings(
            1,
            1,
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=meter.keys,
            system_title=b"ODCTEST1",
        ),
        MemoryCounter(1),
    )
    talk(meter.server, client.associate(), (1, 1))
    return meter, client


async def read(reader, meter, client, local_time=None):
    async def converse(conversation):
        return talk(meter.server, conversation, (1, 1))

    return await reader.read("M1", client, converse, local_time or LocalTime(-60, -60), event_codes("idis"))


async def stored(store, meter="M1"):
    found = await store.read(
        lambda c: events_between(c, NOW - timedelta(days=400), NOW + timedelta(days=9), meter)
    )
    return [(event.log, event.happened_at, event.code) for _meter, event in found]


@pytest.mark.parametrize("tells_deviation", [True, False])
async def test_every_entry_of_every_log_comes_once(store, clock, tells_deviation):
    meter, client = meter_and_client(clock, tells_deviation=tells_deviation)
    cover = int((NOW - timedelta(hours=30)).timestamp())
    # Two of one code in one second: both are kept.
    meter.happenings += [Happening(cover, TERMINAL_COVER_REMOVED)] * 2 + [
        Happening(cover + 5, STRONG_DC_FIELD)
    ]
    reader = EventReader(store, clock, 3600)
    local_time = LocalTime(-60, -60, tells_deviation)
    new = await read(reader, meter, client, local_time)
    truth = [
        (log, row.captured_at, row.values[0])
        for log in (EVENT_LOG, FRAUD_LOG)
        for row in meter.truth(log, NOW - timedelta(days=90), NOW)
    ]
    assert new == len(truth) > 5
    assert sorted(await stored(store)) == sorted(truth)
    assert await read(reader, meter, client, local_time) == 0
    # Later there is more, and only that is new.
    clock.moment += timedelta(hours=2)
    meter.happenings.append(Happening(int((NOW + timedelta(hours=1)).timestamp()), STRONG_DC_FIELD))
    assert await read(reader, meter, client, local_time) == 1


async def test_a_clock_that_was_set_back_hides_nothing(store, clock):
    meter, client = meter_and_client(clock)
    reader = EventReader(store, clock, 3600)
    meter.happenings.append(Happening(int((NOW - timedelta(minutes=1)).timestamp()), STRONG_DC_FIELD))
    await read(reader, meter, client)
    meter.happenings.append(Happening(int((NOW - timedelta(hours=1)).timestamp()), TERMINAL_COVER_REMOVED))
    assert await read(reader, meter, client) == 1


async def test_logs_that_a_meter_lacks_are_asked_for_once(store, clock, monkeypatch):
    meter, client = meter_and_client(clock)
    await read(EventReader(store, clock, 3600), meter, client)
    states = {one.log: one.state for one in await store.event_log_states("M1")}
    assert states[EVENT_LOG] == states[FRAUD_LOG] == ""
    assert states[Obis(0, 0, 99, 98, 4)] == "the meter has no such log"
    asked = []
    original = meter_events.read_log_columns

    def columns(client, logs):
        asked.extend(one.obis for one in logs)
        return original(client, logs)

    monkeypatch.setattr(meter_events, "read_log_columns", columns)
    await read(EventReader(store, clock, 3600), meter, client)
    assert asked == [EVENT_LOG, FRAUD_LOG]
    # New firmware may bring what was not there.
    clock.moment += timedelta(days=31)
    await read(EventReader(store, clock, 3600), meter, client)
    assert len(asked) > 4


async def test_due_again_after_the_interval_or_at_once_when_something_happened(store, clock):
    meter, client = meter_and_client(clock)
    reader = EventReader(store, clock, 3600)
    assert reader.is_due("M1")
    await read(reader, meter, client)
    assert not reader.is_due("M1")
    reader.hurry("M1")
    assert reader.is_due("M1")
    await read(reader, meter, client)
    clock.moment += timedelta(hours=1)
    assert reader.is_due("M1")


async def test_events_leave_in_order_and_once(store, clock):
    await store.register_destination("a")
    meter, client = meter_and_client(clock)
    meter.happenings.append(Happening(int((NOW - timedelta(hours=1)).timestamp()), STRONG_DC_FIELD))
    await read(EventReader(store, clock, 3600), meter, client)
    batches = await store.pending("a", 0, 10)
    assert [batch.profile for batch in batches] == [EVENT_LOG, FRAUD_LOG]
    topics = Topics("lab", "box")
    messages = batch_messages(topics, batches[1])
    assert len(messages) == 1
    assert messages[0].topic == "dcu/v1/lab/box/m/M1/event"
    assert messages[0].payload() == {
        "schema": 1,
        "seq": batches[1].sequence * 1_000_000,
        "batch": batches[1].sequence,
        "medium": "electricity",
        "profile": "0-0:99.98.1*255",
        "t": "2026-11-20T11:00:00Z",
        "code": 42,
        "group": "fraud",
        "severity": "alarm",
        "kind": "magnet",
        "detail": "strong DC field detected",
        "ordinal": 0,
    }
    await store.acknowledge("a", [batch.sequence for batch in batches])
    assert await store.pending("a", 0, 10) == []


async def test_what_was_let_go_does_not_come_again(store, clock):
    await store.register_destination("a")
    meter, client = meter_and_client(clock)
    reader = EventReader(store, clock, 3600)
    await read(reader, meter, client)
    before = await stored(store)
    await store.acknowledge("a", [batch.sequence for batch in await store.pending("a", 0, 10)])
    await store.purge(timedelta(seconds=1))
    left = await stored(store)
    assert 0 < len(left) < len(before), "the newest stay: they tell what is known"
    assert await read(EventReader(store, clock, 3600), meter, client) == 0


# Alarms


def octets(obis):
    return axdr.octet_string(bytes(obis))


def notification(body, date_time=None):
    return DataNotification(0, date_time, body)


IDIS = event_codes("idis")


def kinds(note):
    return [(event.log, event.code, event.kind) for event in alarm_events(note, IDIS, NOW)]


def test_alarms_are_found_by_their_names_wherever_they_stand():
    bits = axdr.double_long_unsigned(1 << 13 | 1 << 1)
    expected = [(DESCRIPTOR_1, 1, "fault"), (DESCRIPTOR_1, 13, "tamper")]
    in_pairs = axdr.structure(
        octets(Obis(0, 0, 96, 1, 0)), axdr.octet_string(b"123"), octets(DESCRIPTOR_1), bits
    )
    assert kinds(notification(in_pairs)) == expected
    assert kinds(notification(axdr.structure(axdr.octet_string(b"push"), in_pairs))) == expected

    def column(class_id, obis):
        return axdr.structure(
            axdr.long_unsigned(class_id), octets(obis), axdr.integer(2), axdr.long_unsigned(0)
        )

    listed = axdr.structure(
        axdr.array(column(40, Obis(0, 0, 25, 9, 0)), column(8, Obis(0, 0, 1, 0, 0)), column(1, DESCRIPTOR_1)),
        axdr.octet_string(CosemDateTime.from_datetime(NOW, 0).to_bytes()),
        bits,
    )
    assert kinds(notification(listed)) == expected
    event_note = EventNotification(
        None, AttributeDescriptor(1, DESCRIPTOR_2, 2), axdr.double_long_unsigned(1)
    )
    assert kinds(event_note) == [(DESCRIPTOR_2, 0, "power_down")]
    code = EventNotification(None, AttributeDescriptor(1, Obis(0, 0, 96, 11, 1), 2), axdr.unsigned(44))
    assert kinds(code) == [(Obis(0, 0, 96, 11, 1), 44, "cover")]


def test_what_is_no_alarm_is_none():
    energy = axdr.structure(octets(Obis(1, 0, 1, 8, 0)), axdr.double_long_unsigned(5))
    assert kinds(notification(energy)) == []
    filters = axdr.structure(octets(Obis(0, 0, 97, 98, 10)), axdr.double_long_unsigned(5))
    assert kinds(notification(filters)) == []
    assert kinds(notification(axdr.NULL)) == []
    quiet = axdr.structure(octets(DESCRIPTOR_1), axdr.double_long_unsigned(0))
    assert kinds(notification(quiet)) == []


def test_the_meters_own_time_counts_where_it_tells_one():
    body = axdr.structure(octets(DESCRIPTOR_1), axdr.double_long_unsigned(1))
    told = CosemDateTime.from_datetime(NOW - timedelta(minutes=3), -60).to_bytes()
    (event,) = alarm_events(notification(body, told), IDIS, NOW)
    assert event.happened_at == NOW - timedelta(minutes=3)
    for unknown in (None, b"\xff" * 12, told[:9] + b"\x80\x00\x00"):
        (event,) = alarm_events(notification(body, unknown), IDIS, NOW)
        assert event.happened_at == NOW


class Desk:
    """An alarm desk with one meter on the line."""

    def __init__(self, store, clock, keyring=None, **record):
        self.registry = Registry()
        self.simulated = SimulatedMeter("M1", 3, clock.now, clock_offset_s=0)
        self.meter = CollectedMeter(
            MeterRecord("M1", link_address="02aa", state=MeterState.ACTIVE, **record), 7, identified=True
        )
        self.registry.add(self.meter)
        keys = MeterKeys(self.simulated.keys.encryption, self.simulated.keys.authentication)
        self.sent = []
        self.seen = []
        self.desk = AlarmDesk(
            store,
            clock,
            self.registry,
            keyring or Keyring({"M1": keys}, {}),
            ReceivedCounters(store),
            CollectionSection(),
            lambda meter, event: self.seen.append((meter.identity, event.kind)),
        )
        self.desk.send = self._send

    async def _send(self, *confirmation):
        self.sent.append(confirmation)

    def take(self, apdu, address=7):
        self.desk.take(ApduReceived(address, 1, 1, apdu))

    async def settle(self):
        task = asyncio.create_task(self.desk.run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("ciphered", [True, False])
async def test_a_last_gasp_is_stored_and_marks_the_meter(store, clock, ciphered):
    desk = Desk(store, clock)
    desk.take(desk.simulated.alarm(1, 1, ciphered=ciphered))
    assert desk.meter.record.state is MeterState.UNREACHABLE
    assert desk.meter.record.reason.startswith(
        "without power since 2026-11-20 12:00:00 UTC: total power failure"
    )
    assert ("not protected" in desk.meter.record.reason) == (not ciphered)
    await desk.settle()
    assert await stored(store) == [(DESCRIPTOR_2, NOW, 0)]
    assert desk.seen == [("M1", "power_down")]
    assert desk.sent == []


async def test_an_alarm_that_asks_for_it_is_confirmed_once_stored_and_never_doubled(store, clock):
    desk = Desk(store, clock)
    desk.take(desk.simulated.alarm(0, 1 << 13, ciphered=False, confirmed=True))
    desk.take(desk.simulated.alarm(0, 1 << 13, ciphered=False, confirmed=True))
    assert desk.sent == []
    await desk.settle()
    assert await stored(store) == [(DESCRIPTOR_1, NOW, 13)]
    confirm = DataNotificationConfirm(0x4000_0000).to_bytes()
    assert desk.sent == [(7, 1, 1, confirm)] * 2


async def test_a_ciphered_alarm_is_confirmed_ciphered(store, clock):
    desk = Desk(store, clock)
    desk.take(desk.simulated.alarm(0, 1, confirmed=True))
    await desk.settle()
    ((_address, _client, _server, apdu),) = desk.sent
    assert apdu[0] == 0xDB


async def test_a_replayed_alarm_and_one_under_another_key_are_refused(store, clock):
    desk = Desk(store, clock)
    apdu = desk.simulated.alarm(0, 1)
    desk.take(apdu)
    desk.take(apdu)
    other = SimulatedMeter("M1", 99, clock.now, clock_offset_s=0)
    desk.take(other.alarm(0, 2))
    assert desk.desk.counters["refused"] == 2
    await desk.settle()
    assert await stored(store) == [(DESCRIPTOR_1, NOW, 0)]


async def test_an_alarm_without_keys_or_node_is_told_and_survived(store, clock):
    desk = Desk(store, clock, Keyring({}, {}))
    desk.take(desk.simulated.alarm(0, 1))
    assert desk.desk.counters["refused"] == 1
    desk.take(desk.simulated.alarm(0, 1, ciphered=False), address=99)
    assert desk.desk.counters["not_understood"] == 1
    await desk.settle()
    assert await stored(store) == []


async def test_a_meter_that_is_not_identified_has_its_alarm_stored_when_it_is(store, clock):
    desk = Desk(store, clock)
    desk.meter.identified = False
    desk.take(desk.simulated.alarm(0, 1))
    await desk.settle()
    assert await stored(store) == []
    desk.meter.identified = True
    await desk.settle()
    assert await stored(store) == [(DESCRIPTOR_1, NOW, 0)]


async def test_an_alarm_descriptor_of_s_fsk_is_told_once_until_it_changes(store, clock):
    desk = Desk(store, clock)
    for alarm in (3, 3, 3, 4):
        desk.desk.take_report(desk.meter, alarm)
    await desk.settle()
    assert [code for _log, _at, code in await stored(store)] == [3, 4]


@settings(max_examples=300)
@given(
    st.binary(max_size=80), st.sampled_from([b"", b"\x0f", b"\xc2", b"\xdb\x08", b"\xca", b"\xdd", b"\xe0"])
)
def test_anything_may_come_from_a_meter(junk, head):
    desk = Desk(None, At(NOW), Keyring({}, {}))
    desk.take(head + junk)
    assert sum(desk.desk.counters.values()) >= 1


@given(st.recursive(st.binary(max_size=8) | st.integers(0, 255), lambda inner: st.lists(inner, max_size=4)))
def test_any_body_can_be_looked_through(tree):
    def data(part):
        if isinstance(part, bytes):
            return axdr.octet_string(part)
        if isinstance(part, int):
            return axdr.unsigned(part)
        return axdr.structure(*(data(one) for one in part))

    for obis, number in pushed_values(data(tree)):
        assert len(obis) == 6
        assert isinstance(number, int)
