"""Home Assistant discovery through a real broker: what Home Assistant would find there."""

from __future__ import annotations

import json

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from concentrator.model import Answer, Channel, Reading
from concentrator.obis import Obis

from bench import LOOPBACK, until
from mqtt_rig import START, Rig, answer

pytestmark = pytest.mark.system

VOLUME = Channel(Obis(8, 0, 1, 0, 0), 13, -3)


@pytest.fixture
async def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    await rig.close()


def retained(port: int) -> tuple[paho.Client, dict[str, bytes]]:
    """A client that was never there before: it sees what is retained."""
    found: dict[str, bytes] = {}
    client = paho.Client(CallbackAPIVersion.VERSION2)

    def note(_client, _data, message):
        if message.payload:
            found[message.topic] = message.payload
        else:
            found.pop(message.topic, None)

    client.on_message = note
    client.on_connect = lambda client, *_rest: client.subscribe("#", qos=1)
    client.connect(LOOPBACK, port)
    client.loop_start()
    return client, found


async def test_meters_appear_as_devices_and_go_again(rig):
    await rig.fill(2, 96, 1)
    await rig.put(Answer("M1", Obis(0, 0, 24, 3, 0), (Reading(VOLUME, START, 512_345),), START))
    rig.meters[1]["medium"] = "water"
    rig.broker.start()
    await rig.listen()
    rig.start(home_assistant=True)
    client, found = retained(rig.broker.port)
    topics = [f"homeassistant/device/box_M{number}/config" for number in (0, 1)]
    await until(lambda: all(topic in found for topic in topics), 20)
    device = json.loads(found[topics[0]])
    assert device["dev"]["ids"] == ["box_M0"]
    assert device["o"]["name"] == "open-data-concentrator"
    assert device["avty_t"] == "dcu/v1/lab/box/status"
    energy = device["cmps"]["1_0_1_8_0_255"]
    assert (energy["p"], energy["dev_cla"], energy["stat_cla"], energy["unit_of_meas"]) == (
        "sensor", "energy", "total_increasing", "Wh",
    )  # fmt: skip
    water = json.loads(found[topics[1]])["cmps"]["8_0_1_0_0_255"]
    assert (water["dev_cla"], water["unit_of_meas"]) == ("water", "m³")
    names = [one["uniq_id"] for topic in topics for one in json.loads(found[topic])["cmps"].values()]
    assert len(set(names)) == len(names)
    # The state is retained, plain, and where the device says; its template leads to a value.
    await until(lambda: device["stat_t"] in found, 10)
    state = json.loads(found[device["stat_t"]])
    assert state["values"]["1_0_1_8_0_255"] == "95"
    assert energy["val_tpl"] == "{{ value_json.values['1_0_1_8_0_255'] }}"
    await until(lambda: "dcu/v1/lab/box/m/M1/latest" in found, 10)
    assert json.loads(found["dcu/v1/lab/box/m/M1/latest"])["values"]["8_0_1_0_0_255"] == "512.345"
    # News comes by itself.
    await rig.put(answer("M0", 96, 1))
    await until(lambda: json.loads(found[device["stat_t"]])["values"]["1_0_1_8_0_255"] == "96", 20)
    rig.meters[0]["state"] = "removed"
    await until(lambda: topics[0] not in found and device["stat_t"] not in found, 20)
    assert topics[1] in found
    client.disconnect()
    client.loop_stop()


async def test_nothing_is_announced_by_default(rig):
    await rig.fill(1, 4, 1)
    rig.broker.start()
    await rig.listen()
    rig.start()
    client, found = retained(rig.broker.port)
    await rig.until_acknowledged()
    await until(lambda: "dcu/v1/lab/box/meters" in found, 10)
    assert not [topic for topic in found if topic.startswith("homeassistant") or topic.endswith("/latest")]
    client.disconnect()
    client.loop_stop()
