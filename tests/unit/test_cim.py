"""IEC 61968-9 messages: the right reading types and event types, valid by the schemas, in XML and in JSON alike."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.cim.controls import (
    CONTROLS,
    OrderOutcome,
    control_reply,
    controls_requested,
    refusal,
)
from concentrator.cim.errors import CimError
from concentrator.cim.event_type import event_type
from concentrator.cim.message import JSON, LARGEST_MESSAGE_OCTETS, XML, parse
from concentrator.cim.reading_type import reading_type
from concentrator.cim.readings import (
    MeterEvents,
    MeterValues,
    end_device_events,
    meter_readings,
    write_meter_readings,
)
from concentrator.collection.event_codes import companions, event_codes
from concentrator.collection.meter_orders import METER_OPERATIONS
from concentrator.model import Channel, EventSeverity, MeterEvent, Quality, Reading
from concentrator.obis import Obis
from concentrator.orders import MQTT

from cim_schemas import check_json, check_xml

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LOG, FRAUD = Obis(0, 0, 99, 98, 0), Obis(0, 0, 99, 98, 1)
M = "{http://iec.ch/TC57/2011/MeterReadings#}"


def channel(obis: str, unit: int, scaler: int = 0, period_s: int = 0) -> Channel:
    return Channel(Obis.parse(obis), unit, scaler, period_s=period_s)


@pytest.mark.parametrize(
    ("of", "ref"),
    [
        # The two examples of the practice reference, then one of each family.
        (channel("1-0:1.29.0", 30, period_s=900), "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (channel("1-0:1.8.0", 30), "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (channel("1-0:1.8.0", 30, 3), "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (channel("1-0:2.8.0", 30, period_s=900), "0.0.2.1.19.1.12.0.0.0.0.0.0.0.0.0.72.0"),
        (channel("1-0:1.8.2", 30, period_s=86_400), "11.0.0.1.1.1.12.0.0.0.0.2.0.0.0.0.72.0"),
        (channel("1-0:5.8.0", 32), "0.0.0.1.15.1.12.0.0.0.0.0.0.0.0.0.73.0"),
        (channel("1-0:3.8.0", 32), "0.0.0.1.5.1.12.0.0.0.0.0.0.0.0.0.73.0"),
        (channel("1-0:1.6.0", 27), "0.8.0.6.1.1.8.0.0.0.0.0.0.0.0.0.38.0"),
        (channel("1-0:1.7.0", 27), "0.0.0.12.1.1.37.0.0.0.0.0.0.0.0.0.38.0"),
        (channel("1-0:21.7.0", 27), "0.0.0.12.1.1.37.0.0.0.0.0.0.0.128.0.38.0"),
        (channel("1-0:32.7.0", 35, -1), "0.0.0.12.0.1.54.0.0.0.0.0.0.0.129.0.29.0"),
        (channel("1-0:72.7.0", 35, -1), "0.0.0.12.0.1.54.0.0.0.0.0.0.0.33.0.29.0"),
        (channel("1-0:51.7.0", 33, -2), "0.0.0.12.0.1.4.0.0.0.0.0.0.0.64.0.5.0"),
        (channel("1-0:91.7.0", 33), "0.0.0.12.0.1.4.0.0.0.0.0.0.0.16.0.5.0"),
        (channel("1-0:13.7.0", 255, -3), "0.0.0.12.0.1.38.0.0.0.0.0.0.0.0.0.65.0"),
        (channel("1-0:14.7.0", 44), "0.0.0.12.0.1.15.0.0.0.0.0.0.0.0.0.33.0"),
        (channel("7-0:1.0.0", 13, -3), "0.0.0.1.1.7.58.0.0.0.0.0.0.0.0.0.42.0"),
        (channel("7-0:1.0.0", 14, -2, 3600), "0.0.7.1.1.7.58.0.0.0.0.0.0.0.0.0.167.0"),
        (channel("8-0:1.0.0", 13, -3), "0.0.0.1.1.9.58.0.0.0.0.0.0.0.0.0.42.0"),
        (channel("8-0:2.0.0", 15, -3), "0.0.0.12.0.9.155.0.0.0.0.0.0.0.0.0.125.0"),
        (channel("6-0:1.0.0", 30, 3), "0.0.0.1.1.12.12.0.0.0.0.0.0.0.0.0.72.0"),
        (channel("6-0:10.0.0", 9, -2), "0.0.0.12.0.12.46.0.0.0.0.0.0.0.0.0.23.0"),
        (channel("5-0:1.0.0", 25, 6), "0.0.0.1.1.13.12.0.0.0.0.0.0.0.0.0.31.0"),
        (channel("0-0:96.6.3", 35, -2), "0.0.0.12.0.0.94.0.0.0.0.0.0.0.0.0.29.0"),
        # What the numbers cannot say keeps its OBIS code.
        (channel("1-0:32.7.7", 35), "1-0:32.7.7*255"),
        (channel("1-0:1.8.0", 30, period_s=1234), "1-0:1.8.0*255"),
        (channel("0-0:96.8.0", 7), "0-0:96.8.0*255"),
        (channel("4-0:1.0.0", 255), "4-0:1.0.0*255"),
        (channel("1-0:99.8.0", 30), "1-0:99.8.0*255"),
    ],
)
def test_reading_types(of, ref):
    found = reading_type(of)
    assert found.ref == ref
    assert found.is_coded == (ref.count(".") == 17)


def test_values_are_exact_in_the_base_unit():
    assert reading_type(channel("1-0:1.8.0", 30, 3)).value(123) == "123000"
    assert reading_type(channel("7-0:1.0.0", 13, -3)).value(180_949) == "180.949"
    assert reading_type(channel("1-0:1.8.0", 30)).value(2**64 - 1) == str(2**64 - 1)
    assert reading_type(channel("1-0:1.8.0", 30, -2)).value(-5) == "-0.05"
    assert reading_type(channel("0-0:96.1.0", 255)).value("ABC") == "ABC"


def readings(
    of: Channel, *values: int, quality: Quality = Quality.VALID, status: int | None = 0
) -> list[Reading]:
    return [
        Reading(of, NOW + place * timedelta(minutes=15), value, status, quality)
        for place, value in enumerate(values)
    ]


def both(message) -> tuple[ET.Element, dict]:
    check_xml(message.to_xml())
    check_json(message.to_json())
    return ET.fromstring(message.to_xml()), json.loads(message.to_json())


def test_meter_readings():
    energy, volume = channel("1-0:1.8.0", 30, period_s=900), channel("0-0:96.8.0", 7)
    values = MeterValues(
        "ODC1",
        "electricity",
        [
            *readings(energy, 100, 250),
            *readings(volume, 7, quality=Quality.SUSPECT | Quality.CLOCK_DOUBTFUL, status=128),
        ],
        NOW,
        serial="123",
    )
    message = meter_readings("dcu-1", NOW, [values], 12)
    xml, plain = both(message)
    assert xml.find(f".//{M}IntervalReadings/{M}value").text == "100"
    assert [one.text for one in xml.iter(f"{M}mRID")] == ["ODC1", "0-0:96.8.0*255"]
    (reading,) = plain["EventMessage"]["Payload"]["MeterReadings"]["MeterReading"]
    assert reading["Meter"]["Names"][1] == {"name": "123", "NameType": {"name": "SerialNumber"}}
    assert reading["valuesInterval"] == {"start": "2026-11-22T09:45:00Z", "end": "2026-11-22T10:15:00Z"}
    (register,) = reading["Readings"]
    assert [one["ReadingQualityType"]["ref"] for one in register["ReadingQualities"]] == ["1.1.9", "2.5.258"]
    assert "status 128" in register["ReadingQualities"][0]["comment"]
    block = reading["IntervalBlocks"][0]["IntervalReadings"][0]
    assert [one["ReadingQualityType"]["ref"] for one in block["ReadingQualities"]] == ["2.0.1"]
    # The same batch is the same message, another is another.
    again = meter_readings("dcu-1", NOW, [values], 12)
    assert again.header.message_id == message.header.message_id
    assert meter_readings("dcu-1", NOW, [values], 13).header.message_id != message.header.message_id


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("with_uncoded", [False, True])
def test_a_stream_says_what_a_message_says(count, with_uncoded):
    energy, hours = channel("1-0:1.8.0", 30, period_s=900), channel("0-0:96.8.0", 7)
    of = [*readings(energy, 1, 2), *(readings(hours, 7) if with_uncoded else ())]
    meters = [MeterValues(f"M{number}", "electricity", of, NOW) for number in range(count)]
    whole = meter_readings("dcu-1", NOW, meters, NOW)
    for media_type, check in ((XML, check_xml), (JSON, check_json)):
        out = io.BytesIO()
        write_meter_readings("dcu-1", NOW, iter(meters), media_type, out)
        check(out.getvalue())
        assert not count or out.getvalue() == whole.encode(media_type)


@given(st.text(max_size=20), st.one_of(st.integers(), st.text(max_size=20)), st.integers(0, 2**16))
def test_whatever_a_meter_says_is_a_valid_message(name, value, flags):
    reading = Reading(channel("1-0:1.8.0", 30), NOW, value, None, Quality(flags & 0xFFFF))
    both(meter_readings("dcu-1", NOW, [MeterValues(name, "electricity", [reading], NOW, name)], name))
    event = MeterEvent(LOG, NOW, 300, detail=name)
    both(end_device_events("dcu-1", NOW, [MeterEvents(name, "gas", [event], NOW)], name))


@pytest.mark.parametrize(
    ("log", "code", "detail", "medium", "expected"),
    [
        (LOG, 1, "power down", "electricity", "3.26.0.85"),
        (FRAUD, 40, "terminal cover removed", "electricity", "3.12.29.212"),
        (LOG, 77, "undervoltage L2", "electricity", "3.26.132.223"),
        (LOG, 123, "fraud attempt at the M-Bus device, channel 3", "electricity", "3.12.147.7"),
        (LOG, 171, "valve opened by hand, M-Bus channel 2", "electricity", "3.31.147.42"),
        (Obis(0, 0, 97, 98, 0), 13, "fraud attempt", "electricity", "3.12.43.257"),
        (Obis(0, 0, 97, 98, 0), 21, "fraud attempt at the M-Bus device, channel 2", "gas", "4.12.147.7"),
        (Obis(0, 0, 97, 98, 1), 3, "voltage missing L2", "electricity", "3.26.25.47"),
        (LOG, 250, "what a maker thought of", "water", "24.0.0.0"),
    ],
)
def test_event_types(log, code, detail, medium, expected):
    assert event_type(MeterEvent(log, NOW, code, detail=detail), medium) == expected


def test_every_code_that_has_a_meaning_has_a_type():
    """But the handful that say nothing an end device event type could say more precisely than its kind."""
    for name in companions():
        for code, meaning in event_codes(name).codes.items():
            found = event_type(
                MeterEvent(LOG, NOW, code, kind=meaning.kind, detail=meaning.words), "electricity"
            )
            assert found != "3.0.0.0" or meaning.kind == "none", (name, code, meaning)
        for number, bits in event_codes(name).alarms.items():
            for bit, meaning in bits.items():
                log = Obis(0, 0, 97, 98, number)
                found = event_type(
                    MeterEvent(log, NOW, bit, kind=meaning.kind, detail=meaning.words), "electricity"
                )
                assert found != "3.0.0.0" or meaning.kind == "none", (name, number, bit, meaning)


def test_end_device_events():
    event = MeterEvent(FRAUD, NOW, 42, 0, "fraud", EventSeverity.ALARM, "magnet", "strong DC field detected")
    message = end_device_events("dcu-1", NOW, [MeterEvents("ODC1", "electricity", [event], NOW)], 14)
    _xml, plain = both(message)
    (told,) = plain["EventMessage"]["Payload"]["EndDeviceEvents"]["EndDeviceEvent"]
    assert told["EndDeviceEventType"] == {"ref": "3.12.66.242"}
    assert (told["severity"], told["Assets"]["mRID"]) == ("alarm", "ODC1")


CONTROL = """<?xml version="1.0"?>
<CreateEndDeviceControls xmlns="http://iec.ch/TC57/2017/EndDeviceControlsMessage"
  xmlns:m="http://iec.ch/TC57/2011/schema/message" xmlns:e="http://iec.ch/TC57/2011/EndDeviceControls#">
 <Header><m:Verb>create</m:Verb><m:Noun>EndDeviceControls</m:Noun><m:MessageID>aab72e66</m:MessageID>
  <m:CorrelationID>3a913c02</m:CorrelationID></Header>
 <Payload><e:EndDeviceControls>
  <e:EndDeviceControl><e:EndDeviceControlType ref="3.31.0.23"/>
   <e:EndDevices><e:mRID>ODC1</e:mRID></e:EndDevices><e:EndDevices><e:Names><e:name>ODC2</e:name></e:Names></e:EndDevices>
   <e:scheduledInterval><e:end>2026-11-22T12:00:00Z</e:end><e:start>2026-11-22T11:00:00Z</e:start></e:scheduledInterval>
  </e:EndDeviceControl>
  <e:EndDeviceControl><e:EndDeviceControlType ref="3.36.116.13"/><e:EndDevices><e:mRID>ODC1</e:mRID></e:EndDevices>
  </e:EndDeviceControl></e:EndDeviceControls></Payload>
</CreateEndDeviceControls>"""


def test_controls_become_orders_once():
    request = controls_requested(parse(CONTROL.encode()), MQTT)
    assert [(order.operation, order.target) for order in request.orders] == [
        ("disconnect", "ODC1"),
        ("disconnect", "ODC2"),
        ("sync_clock", "ODC1"),
    ]
    first = request.orders[0]
    assert first.arguments == {"confirm": "ODC1"}
    assert (first.not_before.hour, first.not_after.hour, first.origin) == (11, 12, MQTT)
    assert request.correlation_id == "3a913c02"
    again = controls_requested(parse(CONTROL.encode()), MQTT)
    assert [order.order_id for order in again.orders] == [order.order_id for order in request.orders]
    assert len({order.order_id for order in request.orders}) == 3


def request_message(**changes) -> dict:
    header = {"Verb": "create", "Noun": "EndDeviceControls", "MessageID": "m-1"}
    control = {"EndDeviceControlType": {"@ref": "3.31.0.18"}, "EndDevices": [{"mRID": "ODC1"}]}
    header |= changes.pop("header", {})
    return {
        "RequestMessage": {
            "Header": header,
            "Payload": {"EndDeviceControls": {"EndDeviceControl": [control | changes]}},
        }
    }


def test_the_same_in_json():
    for whole in (request_message(), request_message()["RequestMessage"]):
        (order,) = controls_requested(parse(json.dumps(whole).encode()), MQTT).orders
        assert (order.operation, order.target) == ("reconnect", "ODC1")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"hello", "neither XML nor JSON"),
        (b"[1]", "a JSON object"),
        (b"<a", "no XML"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        (b"<a/>", "is empty"),
        (b"<a><b/></a>", "no Header"),
        (b"<a>" * 100, "deeper"),
        (b"{" + b'"a":{' * 100 + b"}" * 101, "deeper"),
        (b" " * (LARGEST_MESSAGE_OCTETS + 1), "at most"),
        (request_message(header={"Verb": "delete"}), "verb delete"),
        (request_message(header={"MessageID": ""}), "neither MessageID"),
        (request_message(EndDeviceControlType={"ref": "3.99.0.1"}), "3.99.0.1: not known"),
        (request_message(EndDeviceControlType={}), "none: not known"),
        (request_message(EndDevices=[]), "no EndDevices"),
        (request_message(EndDevices=[{"mRID": "a/b"}]), "target"),
        (request_message(scheduledInterval={"start": "tomorrow"}), "not_before"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(message, words):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(CimError, match=words):
        controls_requested(parse(data), MQTT)


@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises(CimError):
        controls_requested(parse(data), MQTT)


@given(st.integers(0, len(CONTROL) - 1), st.binary(max_size=4))
def test_broken_messages_are_refused_or_are_orders(place, noise):
    data = CONTROL.encode()
    with contextlib.suppress(CimError):
        controls_requested(parse(data[:place] + noise + data[place + len(noise) :]), MQTT)


def test_replies():
    request = controls_requested(parse(CONTROL.encode()), MQTT)
    outcomes = [OrderOutcome(order) for order in request.orders]
    for failures, result in ((0, "OK"), (1, "PARTIAL"), (3, "FAILED")):
        told = [OrderOutcome(one.order, "it did not answer") for one in outcomes[:failures]] + outcomes[
            failures:
        ]
        _xml, plain = both(control_reply("dcu-1", NOW, request, told))
        assert plain["ResponseMessage"]["Reply"]["Result"] == result
        assert plain["ResponseMessage"]["Header"]["CorrelationID"] == "3a913c02"
        assert len(plain["ResponseMessage"]["Reply"].get("Error", ())) == failures
    _xml, plain = both(refusal("dcu-1", NOW, "x", "no"))
    assert plain["ResponseMessage"]["Reply"]["Error"][0]["reason"] == "no"


def test_the_controls_are_operations_that_orders_know():
    assert set(CONTROLS.values()) <= {*METER_OPERATIONS, "collect", "sync_clock"}
