"""MQTT payloads: schemas and code say the same; pieces of a message hold what it held; nothing unreadable does harm."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.clock import SystemClock
from concentrator.model import Channel, EventSeverity, Medium, MeterEvent, Quality, Reading
from concentrator.obis import Obis
from concentrator.orders import MQTT, Order, OrderError
from concentrator.store.outbox import OutgoingBatch
from concentrator.uplink.messages import ENCODINGS, Topics, batch_messages
from concentrator.uplink.mqtt_orders import OrderDesk, decode_order
from concentrator.uplink.schemas import schema_texts
from concentrator.uplink.sparkplug_payload import (
    INT64,
    STRING,
    Metric,
    Payload,
    SparkplugError,
    decode_payload,
    encode_payload,
)

from mqtt_schemas import MessageCheck, validator

TOPICS = Topics("lab", "box")
octet = st.integers(0, 255)
obis = st.builds(Obis, octet, octet, octet, octet, octet, octet)
channels = st.builds(
    Channel, obis, st.sampled_from([30, 13, 255, 200]), st.integers(-9, 9), st.just(3), st.just(2),
    st.sampled_from([0, 900, 3600]),
)  # fmt: skip
moments = st.integers(0, 10**8).map(
    lambda second: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
)
values = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=40)
readings = st.builds(
    Reading, channels, moments, values, st.none() | st.integers(0, 2**32), st.integers(0, 65_535).map(Quality)
)
events = st.builds(
    MeterEvent, obis, moments, st.integers(0, 65_535), st.integers(0, 5), st.text(max_size=9),
    st.sampled_from(EventSeverity), st.text(max_size=9), st.text(max_size=40),
)  # fmt: skip
batches = st.builds(
    OutgoingBatch, st.integers(1, 10**9), st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z"),
    st.sampled_from([one.value for one in Medium]), obis, moments,
    st.lists(readings, max_size=30).map(tuple), st.lists(events, max_size=3).map(tuple),
)  # fmt: skip


@pytest.mark.parametrize("encoding", list(ENCODINGS))
@given(batch=batches)
def test_every_message_of_every_batch_fits_its_schema(encoding, batch):
    check = MessageCheck()
    messages = batch_messages(TOPICS, batch)
    for message in messages:
        check.look(message.topic, ENCODINGS[encoding].encode(message.payload()))
    assert not check.complaints
    assert sum(len(message.values) for message in messages) == len(batch.readings)
    numbers = [message.number for message in messages]
    assert len(set(numbers)) == len(numbers)


@given(batches, st.randoms(use_true_random=False))
def test_pieces_hold_what_the_whole_held_under_numbers_of_their_own(batch, random):
    used = set()
    for whole in batch_messages(TOPICS, batch):
        pieces = [whole]
        for _ in range(6):
            place = random.randrange(len(pieces))
            used.add(pieces[place].number)
            pieces[place : place + 1] = pieces[place].halves() or [pieces[place]]
        used |= {piece.number for piece in pieces}
        assert tuple(value for piece in pieces for value in piece.values) == whole.values
        assert len({piece.number for piece in pieces}) == len(pieces)
        assert all(
            whole.batch * 1_000_000 <= piece.number < (whole.batch + 1) * 1_000_000 for piece in pieces
        )


def test_halving_ends():
    values = tuple({"t": "2026-01-01T00:00:00Z", "v": number} for number in range(500))
    reading = Reading(Channel(Obis(1, 0, 1, 8, 0), 30, 0, period_s=900), datetime(2026, 1, 1, tzinfo=UTC), 1)
    batch = OutgoingBatch(1, "M", "electricity", Obis(1, 0, 99, 1, 0), reading.captured_at, (reading,) * 500)
    (whole,) = batch_messages(TOPICS, batch)
    assert len(whole.values) == len(values)
    open_ones, ended = [whole], []
    while open_ones:
        one = open_ones.pop()
        halves = one.halves()
        (open_ones if halves else ended).extend(halves or [one])
    assert sum(len(one.values) for one in ended) == 500
    assert max(len(one.values) for one in ended) <= 2
    assert len({one.number for one in ended}) == len(ended)


identities = st.from_regex(r"\A[A-Za-z0-9_-]{0,66}\Z") | st.text(max_size=5) | st.none() | st.integers()
times = st.none() | moments.map(lambda moment: moment.isoformat())
orders = st.fixed_dictionaries(
    {},
    optional={
        "id": identities, "op": st.text(max_size=5) | st.none() | st.integers(), "target": identities,
        "args": st.dictionaries(st.text(max_size=3), st.integers(), max_size=2) | st.none() | st.just([]),
        "not_before": times, "priority": st.integers(-1, 4) | st.booleans() | st.none() | st.text(max_size=2),
        "deferred": st.booleans() | st.none() | st.integers(), "schema": st.just(1), "new": st.none(),
    },
)  # fmt: skip
ORDER = validator("order", strict=False)


@given(orders)
def test_an_order_is_taken_exactly_when_it_fits_its_schema(payload):
    try:
        Order.from_payload(payload, MQTT)
        taken = True
    except OrderError:
        taken = False
    assert taken == ORDER.is_valid(payload)


def test_schemas_are_sound_and_numbered():
    names = set(schema_texts())
    assert names == {
        "event", "health", "latest", "meters", "order", "reading", "register", "result", "status", "update",
    }  # fmt: skip
    for name in names:
        schema = validator(name).schema
        assert schema["$id"].endswith(f":1:{name}")
        assert schema["properties"]["schema"]["const"] == 1


@given(st.binary(max_size=200), st.sampled_from(["", "application/json", "application/cbor", "text/x"]))
def test_no_octets_harm_the_taking_of_orders(payload, content_type):
    desk = OrderDesk(TOPICS, SystemClock(), None, "")
    try:
        value, _ = decode_order(payload, content_type)
        Order.from_payload(value, MQTT)
    except OrderError:
        desk.take(payload, content_type=content_type)


@given(
    st.recursive(
        st.none() | st.integers(-(2**60), 2**60) | st.text(), lambda inner: st.dictionaries(st.text(), inner)
    )
)
def test_cbor_and_json_say_the_same(value):
    assert decode_order(cbor2.dumps(value), "application/cbor")[0] == value
    assert decode_order(json.dumps(value).encode(), "application/json")[0] == value


@pytest.mark.parametrize(
    "payload",
    [
        b"\xa1" * 100_000,
        b"\xd9\xd9\xf7\xf6",
        b"\xc1\xfb\x7f\xf0" + bytes(6),
        b"\xa1\x01\x02",
        b"\xbf",
        b"[" * 90_000,
    ],
)
def test_what_json_cannot_say_is_no_order(payload):
    with pytest.raises(OrderError):
        Order.from_payload(decode_order(payload)[0], MQTT)


metrics = st.one_of(
    st.builds(
        Metric, st.integers(-(2**63), 2**63 - 1), st.just(INT64), st.integers(1, 2**60), st.text(max_size=9),
        st.none() | st.integers(0, 2**63), st.booleans(), st.booleans(),
        st.dictionaries(st.text(max_size=5), st.integers(-(2**31), 2**31 - 1) | st.text(max_size=9), max_size=3),
    ),
    st.builds(Metric, st.text(max_size=20) | st.none(), st.just(STRING), st.integers(1, 2**60)),
)  # fmt: skip


@given(
    st.builds(
        Payload,
        st.integers(1, 2**60),
        st.lists(metrics, max_size=4).map(tuple),
        st.none() | st.integers(0, 255),
    )
)
def test_sparkplug_payloads_come_back(payload):
    assert decode_payload(encode_payload(payload)) == payload


@given(st.binary(max_size=200))
def test_no_octets_harm_the_sparkplug_decoder(data):
    with contextlib.suppress(SparkplugError):
        decode_payload(data)
