"""Orders from the broker: none is lost without a word, however many come and whatever they are."""

import json

from concentrator.clock import SystemClock
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt_orders import OrderDesk


def desk(handler, prefixes=""):
    return OrderDesk(Topics("s", "d"), SystemClock(), handler, prefixes)


def results(one):
    return [(result.topic, json.loads(result.payload)) for result in one._results.values()]


async def test_what_is_no_order_is_refused_with_its_reason():
    one = desk(None)
    one.take(b'{"id": "a", "op": 5}')
    one.take(b'{"id": "b", "op": "ping", "target": "' + b"x" * 70_000 + b'"}')
    one.take(b'{"id": "c", ')
    one.take(b"garbage")
    assert [(topic, result["id"], result["state"]) for topic, result in results(one)] == [
        (f"dcu/v1/s/d/cmd/{name}/result", name, "failed") for name in "abc"
    ]
    assert "op: got 5" in results(one)[0][1]["error"]
    assert "at most 65536 octets" in results(one)[1][1]["error"]


async def test_a_burst_is_taken_whole():
    taken = []

    async def handle(order):
        taken.append(order.order_id)
        return {}

    one = desk(handle)
    for number in range(200):
        one.take(json.dumps({"id": f"o{number}", "op": "tasks"}).encode())
    for task in list(one._under_way):
        await task
    assert len(taken) == 200
