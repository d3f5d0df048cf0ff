"""IEC 61968-9 over MQTT: readings as MeterReadings, EndDeviceControls as orders, through a real Mosquitto."""

from __future__ import annotations

import json
from datetime import datetime
from xml.etree import ElementTree as ET

import pytest
from test_mqtt_faults import Utility

from concentrator.model import EventSeverity, MeterEvent
from concentrator.obis import Obis

from bench import until
from cim_schemas import check_json, check_xml
from mqtt_rig import START, TOPICS, Rig

pytestmark = pytest.mark.system

M = "{http://iec.ch/TC57/2011/MeterReadings#}"
# Import and export of active energy, and the two reactive ones that the rig measures: by flow direction and unit.
OBIS_OF = {("1", "72"): "1-0:1.8.0*255", ("19", "72"): "1-0:2.8.0*255", ("5", "73"): "1-0:3.8.0*255",
           ("13", "73"): "1-0:4.8.0*255"}  # fmt: skip


@pytest.fixture
async def make_rig(tmp_path):
    rigs = []

    async def make(*lines, meters=2, slots=96, batches=2):
        rig = Rig(tmp_path, *lines)
        rigs.append(rig)
        await rig.fill(meters, slots, batches)
        return rig

    yield make
    for rig in rigs:
        await rig.close()


def values_in(payload: bytes) -> dict[tuple[str, str, int], int]:
    """(meter, OBIS, time) to value, of one message in either form."""
    found: dict[tuple[str, str, int], int] = {}

    def add(meter: str, ref: str, at: str, value: str) -> None:
        numbers = ref.split(".")
        key = (meter, OBIS_OF[numbers[4], numbers[16]], round(datetime.fromisoformat(at).timestamp()))
        assert key not in found
        found[key] = int(value)

    if payload.startswith(b"<"):
        check_xml(payload)
        for reading in ET.fromstring(payload).iter(f"{M}MeterReading"):
            meter = reading.find(f"{M}Meter/{M}mRID").text
            for block in reading.iter(f"{M}IntervalBlocks"):
                ref = block.find(f"{M}ReadingType").get("ref")
                for one in block.iter(f"{M}IntervalReadings"):
                    add(meter, ref, one.find(f"{M}timeStamp").text, one.find(f"{M}value").text)
    else:
        check_json(payload)
        for reading in json.loads(payload)["EventMessage"]["Payload"]["MeterReadings"]["MeterReading"]:
            for block in reading["IntervalBlocks"]:
                for one in block["IntervalReadings"]:
                    add(reading["Meter"]["mRID"], block["ReadingType"]["ref"], one["timeStamp"], one["value"])
    return found


@pytest.mark.parametrize("encoding", ["cim-xml", "cim-json"])
async def test_readings_and_events_reconcile_and_fit_the_brokers_packets(make_rig, encoding):
    rig = await make_rig("max_packet_size 20000")
    event = MeterEvent(
        Obis(0, 0, 99, 98, 1), START, 40, 0, "fraud", EventSeverity.ALARM, "cover", "terminal cover removed"
    )
    await rig.store.store_meter_events("M0", event.log, (event,))
    rig.broker.start()
    utility = Utility(rig.broker.port)
    await until(lambda: utility.subscribed, 10)
    rig.start(encoding=encoding)
    await rig.until_acknowledged()

    def found():
        result: dict[tuple[str, str, int], int] = {}
        for message in utility.heard:
            if message.topic.endswith("/MeterReadings"):
                result |= values_in(message.payload)
        return result

    await until(lambda: found().keys() >= rig.truth.keys(), 20)
    assert found() == rig.truth
    assert max(len(message.payload) for message in utility.heard) < 20_000
    events = TOPICS.meter("M0", "EndDeviceEvents")
    await until(lambda: utility.on(events), 10)
    (told,) = utility.on(events)
    assert b"3.12.29.212" in told.payload
    (check_xml if encoding == "cim-xml" else check_json)(told.payload)
    content = {message.properties.ContentType for message in utility.heard if "/m/" in message.topic}
    assert content == {"application/xml" if encoding == "cim-xml" else "application/json"}
    # What is no batch stays JSON.
    assert json.loads(utility.on(TOPICS.status)[0].payload)["state"] == "online"
    utility.stop()


CONTROLS = {
    "RequestMessage": {
        "Header": {"Verb": "create", "Noun": "EndDeviceControls", "MessageID": "m-1", "CorrelationID": "c-1"},
        "Payload": {
            "EndDeviceControls": {
                "EndDeviceControl": [
                    {
                        "EndDeviceControlType": {"ref": "3.1.111.46"},
                        "EndDevices": [{"mRID": "M0"}, {"mRID": "M1"}],
                    }
                ]
            }
        },
    }
}
XML_CONTROLS = b"""<RequestMessage xmlns="http://iec.ch/TC57/2011/schema/message"><Header><Verb>create</Verb>
<Noun>EndDeviceControls</Noun><MessageID>m-2</MessageID></Header><Payload>
<EndDeviceControls xmlns="http://iec.ch/TC57/2011/EndDeviceControls#"><EndDeviceControl>
<EndDeviceControlType ref="3.36.116.13"/><EndDevices><mRID>M0</mRID></EndDevices></EndDeviceControl></EndDeviceControls>
</Payload></RequestMessage>"""


async def test_controls_are_orders_and_are_answered_in_kind(make_rig):
    rig = await make_rig(meters=2, slots=1, batches=1)
    rig.broker.start()
    utility = Utility(rig.broker.port)
    await until(lambda: utility.subscribed, 10)
    uplink = rig.start()
    await until(lambda: uplink.state == "connected", 10)
    utility.order(json.dumps(CONTROLS).encode())
    utility.order(XML_CONTROLS, ContentType="application/xml", ResponseTopic=f"{TOPICS.replies}here")
    utility.order(
        XML_CONTROLS.replace(b"3.36.116.13", b"3.99.0.1").replace(b"m-2", b"m-3"), CorrelationData=b"7"
    )

    def answers():
        return [message for message in utility.heard if b"ResponseMessage" in message.payload[:200]]

    await until(lambda: len(answers()) == 3, 15)
    asked = sorted((order.operation, order.target, order.origin) for order in rig.orders)
    assert asked == [("ping", "M0", "MQTT"), ("ping", "M1", "MQTT"), ("sync_clock", "M0", "MQTT")]
    plain = next(message for message in answers() if message.payload.startswith(b"{"))
    check_json(plain.payload)
    answer = json.loads(plain.payload)["ResponseMessage"]
    assert (answer["Reply"], answer["Header"]["CorrelationID"]) == ({"Result": "OK"}, "c-1")
    (here,) = (one for one in utility.on(f"{TOPICS.replies}here") if one.payload.startswith(b"<"))
    check_xml(here.payload)
    refused = next(message for message in answers() if b"FAILED" in message.payload)
    check_xml(refused.payload)
    assert b"3.99.0.1: not known" in refused.payload
    assert refused.properties.CorrelationData == b"7"
    # The same message again: the same orders, which the order book recognises.
    first = {order.order_id for order in rig.orders}
    utility.order(json.dumps(CONTROLS).encode())
    await until(lambda: len(rig.orders) == 5, 10)
    assert {order.order_id for order in rig.orders} == first
    utility.stop()
