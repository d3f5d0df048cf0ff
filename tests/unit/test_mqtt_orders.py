"""Orders from the broker: none is lost without a word, however many come and whatever they are."""

import json

from concentrator.clock import SystemClock
from concentrator.config import MqttSection
from concentrator.store.store import Store
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt import MqttUplink


async def uplink(tmp_path, handler):
    store = Store(tmp_path / "store.db", SystemClock())
    return MqttUplink(MqttSection(), Topics("s", "d"), store, SystemClock(), "boot", dict, handler)


def results(one):
    return [(topic, json.loads(payload)) for topic, payload in one._results.values()]


async def test_what_is_no_order_is_refused_with_its_reason(tmp_path):
    one = await uplink(tmp_path, None)
    one.command_received(b'{"id": "a", "op": 5}')
    one.command_received(b'{"id": "b", "op": "ping", "target": "' + b"x" * 70_000 + b'"}')
    one.command_received(b'{"id": "c", ')
    one.command_received(b"garbage")
    assert [(topic, result["id"], result["state"]) for topic, result in results(one)] == [
        (f"dcu/v1/s/d/cmd/{name}/result", name, "failed") for name in "abc"
    ]
    assert "op: got 5" in results(one)[0][1]["error"]
    assert "at most 65536 octets" in results(one)[1][1]["error"]


async def test_a_burst_is_taken_whole(tmp_path):
    taken = []

    async def handle(order):
        taken.append(order.order_id)
        return {}

    one = await uplink(tmp_path, handle)
    for number in range(200):
        one.command_received(json.dumps({"id": f"o{number}", "op": "tasks"}).encode())
    for task in list(one._orders):
        await task
    assert len(taken) == 200
