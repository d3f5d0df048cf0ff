"""Data records: codings, units, qualifiers, dates, and their OBIS channels."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from concentrator.model import Quality
from concentrator.obis import Obis
from concentrator.wmbus.address import Address
from concentrator.wmbus.answer import TELEGRAM_PROFILE, to_answer
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.record import Function
from concentrator.wmbus.records import decode_records
from concentrator.wmbus.telegram import decode_telegram

HEARD_AT = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


def only(hex_text):
    found = decode_records(bytes.fromhex(hex_text))
    assert not found.fault
    (record,) = found.records
    return record


@pytest.mark.parametrize(
    ("hex_text", "quantity", "number", "unit"),
    [
        ("0413 15550000", "volume", "21.781", "m3"),
        ("0C14 27048502", "volume", "28504.27", "m3"),
        ("0E84 00 563412000000", "energy", "1234560", "Wh"),
        ("0406 2C000000", "energy", "44000", "Wh"),
        ("040F 01000000", "energy", "10000000", "J"),
        ("04FB0D 05000000", "energy", "5000000", "cal"),
        ("04FB00 05000000", "energy", "500000", "Wh"),
        ("04FB09 05000000", "energy", "5000000000", "J"),
        ("02FF", None, None, None),
        ("02FD48 3102", "voltage", "56.1", "V"),
        ("02FD5B 0200", "current", "0.2", "A"),
        ("02FB1A 3102", "relative_humidity", "56.1", "%"),
        ("02FB2E E203", "frequency", "99.4", "Hz"),
        ("0AFB14 3412", "reactive_power", "1234", "var"),
        ("0443 64000000", "volume_flow", "0.0100", "m3/min"),
        ("01FD71 9C", "rf_level", "-100", "dBm"),
        ("0265 0AFC", "external_temperature", "-10.14", "C"),
        ("0A5A B9F2", "flow_temperature", None, "C"),
        ("0A5A 35F2", "flow_temperature", "-23.5", "C"),
        ("0494 7D 05000000", "volume", "50.000", "m3"),
        ("0413 00000080", "volume", None, "m3"),
        ("0F", None, None, None),
        ("0593 3B 0000C03F", "volume", "0.0015", "m3"),
        ("0D13 C3 563412", "volume", "123.456", "m3"),
        ("0D13 D3 563412", "volume", "-123.456", "m3"),
        ("0D13 E3 010203", "volume", "197.121", "m3"),
        ("05 13 0000C07F", "volume", None, "m3"),
    ],
)
def test_numbers_are_exact_in_their_unit(hex_text, quantity, number, unit):
    found = decode_records(bytes.fromhex(hex_text))
    if quantity is None:
        assert found.records == ()
        return
    (record,) = found.records
    assert (record.quantity, record.unit) == (quantity, unit)
    assert record.decimal == (None if number is None else Decimal(number))
    assert record.valid is (number is not None)


def test_storage_tariff_subunit_and_function_of_long_headers():
    record = only("D4 D3 21 13 00000000")
    assert (record.storage, record.tariff, record.subunit) == (1 | 3 << 1 | 1 << 5, 1 | 2 << 2, 1)
    assert record.function is Function.MAXIMUM
    assert only("2413 00000000").function is Function.MINIMUM
    assert only("3413 00000000").function is Function.AT_ERROR


@pytest.mark.parametrize(
    ("hex_text", "text"),
    [
        ("426C 1F2C", "2016-12-31"),
        ("046D 0A340B3C", "2024-12-11 20:10"),
        ("066D 1E5C11DA2140", "2022-01-26 17:28:30"),
        ("036D 1E1C11", "17:28:30"),
        ("426C E1F1", "-01-01"),
    ],
)
def test_dates_of_type_g_f_i_and_j(hex_text, text):
    record = only(hex_text)
    assert record.valid
    assert str(record.value) == text


@pytest.mark.parametrize(
    "hex_text", ["426C 0000", "426C FFFF", "046D 2B030000", "046D 8A340B3C", "036D FFFFFF"]
)
def test_no_date_is_invented(hex_text):
    assert not only(hex_text).valid


@pytest.mark.parametrize(
    ("hex_text", "qualifiers", "unit"),
    [
        ("04933C 00000000", ("accumulation_if_negative",), "m3"),
        ("02FDC9FC01 3102", ("phase_l1",), "V"),
        ("049028 0B000000", ("per_input_pulse",), "m3/pulse"),
        ("02BB56 0000", ("duration_of_last_lower_limit_exceed",), "h"),
        ("02BB4A 1F2C", ("begin_of_first_upper_limit_exceed",), "date"),
        ("04A9FF01 FF240000", ("manufacturer_01",), "W"),
        ("01AB3E 01", ("base_conditions",), "W"),
    ],
)
def test_combinable_vifes(hex_text, qualifiers, unit):
    record = only(hex_text)
    assert (record.qualifiers, record.unit) == (qualifiers, unit)


@pytest.mark.parametrize("vife", ["15", "16", "17", "18"])
@pytest.mark.parametrize(
    "kind", ["04 93 {} 78563412", "0C 93 {} 78563412", "02 EC {} 1F2C", "05 93 {} 0000C03F"]
)
def test_a_value_that_the_meter_says_is_none_is_not_shown(kind, vife):
    data = bytes.fromhex(kind.format(vife) + "0413 15550000")
    for _ in range(2):  # the second time by the layout of the first
        missing, volume = decode_records(data).records
        assert (missing.value, missing.decimal, missing.valid) == (None, None, False)
        assert missing.qualifiers[0].startswith("error_")
        assert volume.decimal == Decimal("21.781")
    assert channels(data.hex(), 0x07) == [("8-0:1.0.0*255", 13, -3, 21781)]


def test_the_time_in_error_of_a_heat_meter_is_a_value():
    record = only("0A A6 18 3412")
    assert (record.decimal, record.unit, record.qualifiers) == (Decimal(1234), "h", ("error_data",))


def test_no_unit_is_claimed_for_values_in_other_units():
    for octets in ("04 93 3D 15550000", "04 BB 3D 15550000", "04 93 BD 73 15550000", "04 93 F3 3D 15550000"):
        record = only(octets)
        assert (record.unit, record.decimal) == ("", Decimal(21781))
        assert "non_metric" in record.qualifiers


def test_the_second_level_of_the_main_extension_keeps_its_value_without_a_name():
    for code in ("3D", "15", "7C", "22"):
        record = only(f"04 FD FD {code} 15550000")
        assert (record.quantity, record.qualifiers) == (f"reserved_FD_FD_{code}", ())
        assert (record.value, record.unit, record.valid) == (21781, "", True)
    assert only("02 FD FD A2 15 5555").qualifiers == ("error_no_data",)


def test_units_in_plain_text_before_and_after_the_vifes():
    after = only("02FC74034825227C0D")
    assert (after.unit, after.decimal) == ('"%H', Decimal("34.52"))
    before = only("02FC0348522574 7C0D".replace(" ", ""))
    assert (before.unit, before.decimal) == ("%RH", Decimal("34.52"))


def test_identifiers_keep_their_digits():
    assert only("0C78 75376800").value == "00683775"
    assert only("0478 39803801").value == "01388039"
    assert only("0D78 083430363030383332").value == "23800604"


def test_a_chain_that_breaks_off_keeps_its_good_records():
    found = decode_records(bytes.fromhex("0413155500000413FF"))
    assert len(found.records) == 1
    assert "4 octets" in found.fault
    assert decode_records(bytes.fromhex("1F010203")).more_follows
    assert decode_records(bytes.fromhex("0F010203")).manufacturer_data == b"\x01\x02\x03"


def telegram_of(records_hex, device_type=0x07, status=0):
    payload = b"\x7a\x01" + bytes((status, 0, 0)) + bytes.fromhex(records_hex)
    address = Address("ELS", "12345678", 0x33, device_type)
    return decode_telegram(encode_frame(LinkFrame(0x44, address, payload, FrameFormat.WITHOUT_CRC)))


def channels(records_hex, device_type):
    answer = to_answer(telegram_of(records_hex, device_type), HEARD_AT)
    return [(str(r.channel.obis), r.channel.unit, r.channel.scaler, r.value) for r in answer.readings]


def test_readings_of_every_medium():
    assert channels("0413 15550000 023B 0700", 0x07) == [
        ("8-0:1.0.0*255", 13, -3, 21781),
        ("8-0:2.0.0*255", 15, -3, 7),
    ]
    assert channels("0413 15550000", 0x06) == [("9-0:1.0.0*255", 13, -3, 21781)]
    assert channels("0413 15550000", 0x03) == [("7-0:3.0.0*255", 13, -3, 21781)]
    assert channels("036E 0A0000", 0x08) == [("4-0:1.0.0*255", 255, 0, 10)]
    assert channels("0406 2C000000 025B 1400 142B 05000000", 0x04) == [
        ("6-0:1.0.0*255", 30, 3, 44),
        ("6-0:10.0.0*255", 9, 0, 20),
        ("6-0:8.5.0*255", 27, 0, 5),
    ]
    assert channels("0406 2C000000", 0x0A) == [("5-0:1.0.0*255", 30, 3, 44)]
    assert channels("841004 E0810200 04833C 01000000 02FDC9FC02 3102 04A93C 05000000", 0x02) == [
        ("1-0:1.8.1*255", 30, 1, 164320),
        ("1-0:2.8.0*255", 30, 0, 1),
        ("1-0:52.7.0*255", 35, 0, 561),
        ("1-0:2.7.0*255", 27, -2, 5),
    ]


def test_history_carries_the_date_of_its_storage_and_nothing_is_stamped_without_one():
    zone = timezone(timedelta(hours=1))
    telegram = telegram_of("0413 15550000 4413 10270000 426C 1F3C 840113 05000000")
    answer = to_answer(telegram, HEARD_AT, zone=zone)
    assert [(r.channel.obis.f, r.captured_at) for r in answer.readings] == [
        (255, HEARD_AT),
        (1, datetime(2025, 1, 1, tzinfo=UTC) - timedelta(hours=1)),
    ]
    assert answer.profile == TELEGRAM_PROFILE
    assert answer.meter == "ELS-12345678-33-07"


def test_display_codes_are_told_as_wrong_digits():
    (reading,) = to_answer(telegram_of("0C13 BBBBBBBB", status=4), HEARD_AT, meter="kitchen").readings
    assert (reading.value, reading.quality, reading.status) == ("BBBBBBBB", Quality.WRONG_DIGITS, 4)


def test_flow_a_minute_is_told_an_hour_and_floats_become_integers():
    assert channels("0443 64000000", 0x07) == [("8-0:2.0.0*255", 15, -4, 6000)]
    assert channels("0514 0000C03F", 0x07) == [("8-0:1.0.0*255", 13, -5, 1500)]


def test_the_first_of_two_units_stands_for_the_value():
    (reading,) = to_answer(telegram_of("0406 2C000000 040E 01000000", 0x04), HEARD_AT).readings
    assert (reading.channel.obis, reading.channel.unit) == (Obis(6, 0, 1, 0, 0), 30)


@pytest.mark.parametrize(
    ("hex_text", "quantity", "octets"),
    [
        ("04FD72 01020304", "daylight_saving", "01020304"),  # type K
        ("0DFD73 E3 AABBCC", "listening_window", "AABBCC"),  # type L
        ("0D6D E5 0102030405", "date_time", "0102030405"),  # type M
        ("0D6D E6 010203040506", "date_time", "010203040506"),  # type M of the length of type I
        ("0DFD70 E4 01020304", "battery_change", "01020304"),  # type M of the length of type F
        ("04EF01 11223344", "reserved_EF", "11223344"),
    ],
)
def test_what_has_no_public_layout_is_named_and_kept_and_the_rest_is_read(hex_text, quantity, octets):
    found = decode_records(bytes.fromhex("0413 15550000" + hex_text + "022B 0A00"))
    assert not found.fault
    volume, unknown, power = found.records
    assert (unknown.quantity, unknown.value) == (quantity, bytes.fromhex(octets))
    assert (volume.decimal, power.decimal) == (Decimal("21.781"), Decimal(10))


def test_a_time_of_type_m_stamps_nothing():
    data = bytes.fromhex("4D6D E6 010203040506 4413 15550000 0413 16550000")
    address = Address("ELS", "12345678", 0x33, 0x07)
    frame = encode_frame(LinkFrame(0x44, address, bytes.fromhex("78") + data, FrameFormat.WITHOUT_CRC))
    answer = to_answer(decode_telegram(frame), HEARD_AT)
    assert [(str(one.channel.obis), one.captured_at) for one in answer.readings] == [
        ("8-0:1.0.0*255", HEARD_AT)
    ]
