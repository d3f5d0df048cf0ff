"""What an order may ask of a meter, and who may ask it."""

import pytest

from concentrator.clock import SystemClock
from concentrator.collection.collector import Collector
from concentrator.collection.errors import UnknownMeterError
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_orders import METER_OPERATIONS, check_order
from concentrator.config import CollectionSection
from concentrator.dlms.client import Client, ClientSettings
from concentrator.orders import LOCAL, MQTT, PAGE, Order, OrderError
from concentrator.store.store import Store


def order(operation, origin=LOCAL, **arguments):
    payload = {"id": "1", "op": operation, "target": "M1", "args": arguments}
    return Order.from_payload(payload, origin)


@pytest.mark.parametrize("origin", [MQTT, PAGE])
@pytest.mark.parametrize("operation", ["write", "action"])
def test_only_the_concentrator_itself_may_change_a_meter(operation, origin):
    arguments = {"class_id": 70, "obis": "0-0:96.3.10*255", "value": "1100"}
    if operation == "action":
        del arguments["value"]
    with pytest.raises(OrderError, match=f"is not taken from {origin}"):
        check_order(order(operation, origin, **arguments))
    assert check_order(order(operation, **arguments)).changes_meter


@pytest.mark.parametrize("origin", [LOCAL, MQTT, PAGE])
@pytest.mark.parametrize("operation", ["read", "ping", "browse"])
def test_everybody_may_read(operation, origin):
    assert not check_order(order(operation, origin)).changes_meter


def test_an_unknown_operation_names_those_that_are_known():
    with pytest.raises(OrderError, match=r"known: ping, read, .*collect"):
        check_order(order("explode"))


async def test_an_unknown_operation_is_told_before_an_unknown_meter(tmp_path):
    clock = SystemClock()
    store = Store(tmp_path / "store.sqlite", clock)
    collector = Collector(CollectionSection(), store, clock, Keyring({}, {}))
    with pytest.raises(OrderError, match=r"unknown op 'nonsense'; known: .*collect, .*expel"):
        await collector.carry_out(Order("1", "nonsense"), ("expel",))
    for operation in ("collect", "read"):
        with pytest.raises(UnknownMeterError, match="no meter 'M1'"):
            await collector.carry_out(order(operation))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "OBIS"),
        ({"obis": "1-0:1.8.0*255", "class_id": "three"}, "class_id"),
        ({"obis": "1-0:1.8.0*255", "attribute": True}, "attribute"),
    ],
)
def test_a_mistake_in_reading_is_named_before_anything_is_sent(arguments, words):
    conversation = METER_OPERATIONS["read"].converse(Client(ClientSettings()), order("read", **arguments))
    with pytest.raises(OrderError, match=words):
        next(conversation)


@pytest.mark.parametrize(
    ("operation", "arguments", "words"),
    [
        ("write", {"obis": "1-0:1.8.0*255"}, "value: missing"),
        ("write", {"obis": "1-0:1.8.0*255", "value": "5EC5E7"}, "no A-XDR data"),
        ("action", {"obis": "1-0:1.8.0*255"}, "class_id"),
        ("action", {"obis": "1-0:1.8.0*255", "class_id": 3, "method": "x"}, "method"),
    ],
)
def test_a_mistake_in_a_change_is_named_when_the_order_is_taken(operation, arguments, words):
    with pytest.raises(OrderError, match=words) as caught:
        check_order(order(operation, **arguments))
    assert "5EC5E7" not in str(caught.value)
