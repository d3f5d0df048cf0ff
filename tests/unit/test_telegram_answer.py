"""Registers of DLMS pushes that were heard in M-Bus telegrams, as readings."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_inspect import METER_KEY, in_mode_5, radio_telegram
from test_radio_listener import heard
from test_wmbus_layers import FULL

from concentrator.clock import SystemClock
from concentrator.collection.radio_listener import RadioListener
from concentrator.collection.telegram_answer import pushed_registers, telegram_answer
from concentrator.obis import Obis
from concentrator.store.store import Store
from concentrator.wmbus.answer import to_answer
from concentrator.wmbus.profile import profile_from_table
from concentrator.wmbus.security import KeyRing
from concentrator.wmbus.telegram import decode_telegram

from bench import until

HEARD_AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
HEADER = "0F 00000001 00"
IMPORT = "0906 0100010800FF 06 00001234 0202 0F01 161E"
POWER = "0906 0100010700FF 10 FFFB 0202 0FFF 161B"
WITHOUT_UNIT = "0906 0100020800FF 06 00001234"
EXPECTED = [("1-0:1.8.0*255", 30, 1, 0x1234), ("1-0:1.7.0*255", 27, -1, -5)]


def shown(registers):
    return [(str(channel.obis), channel.unit, channel.scaler, value) for channel, value in registers]


@pytest.mark.parametrize(
    "body",
    [
        f"0202 0203 {IMPORT} 0203 {POWER}",
        f"0102 0203 {IMPORT} 0203 {POWER}",
        f"0206 {IMPORT} {POWER}",
        f"0202 0A026161 0202 0203 {IMPORT} 0203 {POWER}",
    ],
)
def test_registers_are_found_in_lists_of_every_shape(body):
    assert shown(pushed_registers(bytes.fromhex(HEADER + body))) == EXPECTED


def test_a_register_without_unit_has_none_or_that_of_the_profile():
    export = Obis(1, 0, 2, 8, 0, 255)
    body = bytes.fromhex(f"{HEADER} 0208 {WITHOUT_UNIT} {IMPORT} {POWER}")
    assert shown(pushed_registers(body)) == [("1-0:2.8.0*255", 255, 0, 0x1234), *EXPECTED]
    profile = profile_from_table(
        {
            "name": "one that leaves units out",
            "meters": [{"manufacturer": "XYZ"}],
            "push_registers": [{"obis": "1-0:2.8.0*255", "unit": 30, "scaler": 1}],
        }
    )
    assert profile.push_registers[export] == (30, 1)
    given = shown(pushed_registers(body, profile.push_registers))
    assert given == [("1-0:2.8.0*255", 30, 1, 0x1234), *EXPECTED]


# Class, logical name, attribute, data index: as class 40 lists what is pushed.
LISTED = "0204 12 {:04X} 0906 {} 0F {:02X} 12 0000"
THE_LIST = LISTED.format(40, "0000190900FF", 2)


def test_values_behind_their_push_object_list_are_named_by_it():
    clock = LISTED.format(8, "0000010000FF", 2)
    energy = LISTED.format(3, "0100010800FF", 2)
    unit = LISTED.format(3, "0100010800FF", 3)
    power = LISTED.format(3, "0100010700FF", 2)
    moment = "090C 07EA050401 0A000000 FFC400"
    values = f"{moment} 06 00001234 0202 0F01 161E 10 FFFB"
    body = f"{HEADER} 0206 0105 {THE_LIST} {clock} {energy} {unit} {power} {values} 1107"
    # Five entries and six elements: the list does not fit, nothing of it may be taken for a register.
    assert pushed_registers(bytes.fromhex(body)) == []
    body = f"{HEADER} 0205 0105 {THE_LIST} {clock} {energy} {unit} {power} {values}"
    assert shown(pushed_registers(bytes.fromhex(body))) == [
        ("1-0:1.8.0*255", 30, 1, 0x1234),
        ("1-0:1.7.0*255", 255, 0, -5),
    ]


def test_what_is_no_push_gives_no_register():
    assert pushed_registers(bytes.fromhex("C401C100 06 00001234")) == []
    assert pushed_registers(b"") == []


@given(st.binary(max_size=80))
def test_any_octets_give_a_list(octets):
    assert isinstance(pushed_registers(octets), list)
    assert isinstance(pushed_registers(bytes.fromhex(HEADER) + octets), list)


def test_a_telegram_of_records_gives_what_it_gave():
    telegram = decode_telegram(FULL)
    assert telegram_answer(telegram, HEARD_AT, meter="one") == to_answer(telegram, HEARD_AT, meter="one")


def test_an_encrypted_push_gives_readings_with_its_key_only():
    octets = in_mode_5(0x7D, bytes.fromhex(f"{HEADER} 0202 0203 {IMPORT} 0203 {POWER}"))
    opened = decode_telegram(octets, keys=KeyRing(everyone=METER_KEY))
    answer = telegram_answer(opened, HEARD_AT, meter="one")
    assert [
        (str(r.channel.obis), r.channel.unit, r.channel.scaler, r.value) for r in answer.readings
    ] == EXPECTED
    assert {reading.captured_at for reading in answer.readings} == {HEARD_AT}
    assert telegram_answer(decode_telegram(octets), HEARD_AT, meter="one").readings == ()


def test_a_push_that_is_heard_is_stored(tmp_path):
    async def scenario():
        store = Store(tmp_path / "store.db", SystemClock())
        listener = RadioListener(store, SystemClock(), {}, 900)
        push = bytes.fromhex(f"{HEADER} 0203 {IMPORT}")
        listener.hear(heard(radio_telegram(bytes.fromhex("7D75000000") + push)))
        task = asyncio.create_task(listener.run())
        await until(lambda: listener.counters["stored"], timeout_s=5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()
        return listener.counters["stored"]

    assert asyncio.run(scenario()) == 1
