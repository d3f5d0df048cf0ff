"""M-Bus client channels of an electricity meter: who is there, and what their values mean."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.collection.mbus_client_channels import (
    find_channel_meters,
    own_channel,
    read_channel_value,
)
from concentrator.collection.meter_reader import LocalTime
from concentrator.dlms import axdr
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server
from concentrator.model import IDENTITY_PATTERN, Channel, Medium
from concentrator.obis import Obis
from concentrator.simulator.mbus_channels import GAS, WATER, SimulatedChannelMeter
from concentrator.simulator.meter import local_time

from dlms_strategies import data

NOW = datetime(2026, 7, 3, 10, 20, tzinfo=UTC)


def held(server, conversation):
    """A conversation with a server to its end."""
    try:
        apdus = next(conversation)
        while True:
            answers = [answer for apdu in apdus for answer in server.receive_apdu(16, 1, apdu)]
            apdus = conversation.send(answers[0])
    except StopIteration as stop:
        return stop.value


def talk(channels, change=lambda objects: None):
    objects = [one for channel in channels for one in channel.objects(-60)]
    change(objects)
    device = LogicalDevice(1, objects, [AssociationDefinition(16)])
    server, client = Server([device]), Client(ClientSettings())
    held(server, client.associate())
    return lambda conversation: held(server, conversation), client


def channel(number, device_type):
    return SimulatedChannelMeter(1, "S1", number, device_type, lambda: NOW, local_time)


def test_the_meters_on_channels_are_found_and_read():
    gas, water = channel(1, GAS), channel(3, WATER)
    ask, client = talk([gas, water])
    found = ask(find_channel_meters(client, 4))
    assert [(one.channel, one.identity, one.medium) for one in found] == [
        (1, gas.identity, Medium.GAS),
        (3, water.identity, Medium.WATER),
    ]
    reading = ask(read_channel_value(client, found[1], LocalTime(-120, -60)))
    assert (str(reading.channel.obis), reading.channel.unit, reading.channel.scaler) == (
        "8-0:1.0.0*255",
        13,
        -3,
    )
    assert reading.captured_at == NOW.replace(minute=0)
    (row,) = water.truth(NOW - timedelta(hours=1) + timedelta(seconds=1), NOW)
    assert (reading.value, reading.captured_at) == (row.value, row.captured_at)
    assert ask(find_channel_meters(client, 0)) == []


@pytest.mark.parametrize(
    ("attribute", "value"), [(5, b"\x11\x00"), (6, b"\x06\x00\x00\x00\x00"), (6, b"\x00"), (9, b"\x00")]
)
def test_a_channel_without_a_meter_is_left_out(attribute, value):
    def change(objects):
        objects[0].attributes[attribute] = axdr.decode(value)

    ask, client = talk([channel(1, GAS)], change)
    assert ask(find_channel_meters(client, 2)) == []


def test_a_number_may_be_binary():
    def change(objects):
        objects[0].attributes[6] = axdr.double_long_unsigned(12345678)

    ask, client = talk([channel(1, GAS)], change)
    (found,) = ask(find_channel_meters(client, 1, binary=True))
    assert found.identity == "ODC-12345678-01-03"
    (found,) = ask(find_channel_meters(client, 1))
    assert found.identity == "ODC-00BC614E-01-03"


@pytest.mark.parametrize(
    ("code", "unit", "medium", "own"),
    [
        (Obis(0, 2, 24, 2, 1), 13, Medium.GAS, "7-0:3.0.0*255"),
        (Obis(0, 2, 24, 2, 1), 30, Medium.HEAT, "6-0:1.0.0*255"),
        (Obis(0, 2, 24, 2, 1), 13, Medium.HEAT, "6-0:2.0.0*255"),
        (Obis(0, 2, 24, 2, 1), 13, Medium.OTHER, "0-2:24.2.1*255"),
        (Obis(0, 2, 24, 2, 2), 13, Medium.GAS, "0-2:24.2.2*255"),
        (Obis(1, 0, 1, 8, 0), 30, Medium.GAS, "1-0:1.8.0*255"),
    ],
)
def test_only_the_first_value_of_a_channel_is_its_mediums_register(code, unit, medium, own):
    assert str(own_channel(Channel(code, unit), medium).obis) == own


@given(st.lists(data, min_size=5, max_size=5), st.lists(data, min_size=4, max_size=4))
def test_whatever_a_meter_answers_is_a_meter_or_none(answers, values):
    def change(objects):
        objects[0].attributes.update(zip((5, 6, 7, 8, 9), answers, strict=True))
        objects[1].attributes.update(zip((2, 3, 4, 5), values, strict=True))

    ask, client = talk([channel(1, GAS)], change)
    for found in ask(find_channel_meters(client, 1)):
        assert IDENTITY_PATTERN.match(found.identity)
        reading = ask(read_channel_value(client, found, None))
        assert reading is None or isinstance(reading.value, int)
