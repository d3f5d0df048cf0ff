"""Values whose exact octets matter: types, time, profiles, OBIS codes."""

from datetime import UTC, datetime, timedelta

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CaptureObject
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.cosem.classes import CLASSES, interface_class
from concentrator.dlms.cosem.units import symbol
from concentrator.dlms.cosem_time import ClockStatus, CosemDateTime
from concentrator.dlms.errors import DecodeError, EncodeError
from concentrator.dlms.explain import explain
from concentrator.dlms.profile import decode_profile, decode_raw_rows
from concentrator.dlms.security import SecurityKeys
from concentrator.obis import Obis, ObisError

CLOCK = CaptureObject(8, Obis(0, 0, 1, 0, 0, 255), 2)
STATUS = CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2)
ENERGY = CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2)


def test_local_time_plus_deviation_is_utc():
    summer = CosemDateTime.from_bytes(bytes.fromhex("07ea05040113131e00ff8880"))
    assert summer.to_utc() == datetime(2026, 5, 4, 17, 19, 30, tzinfo=UTC)
    assert summer.status_flags == ClockStatus.DAYLIGHT_SAVING_ACTIVE
    assert str(summer) == "2026-05-04 19:19:30+02:00"
    again = CosemDateTime.from_datetime(summer.to_utc(), -120, 0x80)
    assert again.to_bytes() == summer.to_bytes()


@pytest.mark.parametrize("deviation", ["8000", "ffff"])
def test_an_open_deviation_needs_one_configured(deviation):
    open_one = CosemDateTime.from_bytes(bytes.fromhex(f"07e8021d04163032ff{deviation}00"))
    with pytest.raises(DecodeError, match="no deviation"):
        open_one.to_utc()
    assert open_one.to_utc(-60) == datetime(2024, 2, 29, 21, 48, 50, tzinfo=UTC)


def test_wildcards_are_no_moment():
    pattern = CosemDateTime(month=3, day=0xFE, weekday=7, hour=2)
    assert not pattern.is_moment
    assert CosemDateTime.from_bytes(pattern.to_bytes()) == pattern
    with pytest.raises(DecodeError, match="no moment"):
        pattern.to_utc(0)


@pytest.mark.parametrize(
    "octets",
    [
        "0908ffff",  # shorter than its length says
        "02ff",  # a bad length
        "0184ffffffff",  # more elements than octets
        "13011000",  # a compact-array of arrays that take no octets
        "130101ffff01ffff01ffff000100",  # a compact-array that would make 65535 to the third values
        "08",  # no such type
        "02" * 40,  # too deep
    ],
)
def test_hostile_values_are_refused(octets):
    with pytest.raises(DecodeError):
        axdr.decode(bytes.fromhex(octets))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DataType.UNSIGNED, 256),
        (DataType.OCTET_STRING, "text"),
        (DataType.DATE_TIME, b"short"),
        (DataType.BIT_STRING, "012"),
        (DataType.STRUCTURE, 5),
    ],
)
def test_values_that_do_not_fit_their_type(kind, value):
    with pytest.raises(EncodeError):
        Data(kind, value).to_bytes()


def row(clock, status, energy):
    encoded = clock if isinstance(clock, bytes) else b"\x00"
    encoded += b"\x00" if status is None else bytes((0x11, status))
    encoded += b"\x00" if energy is None else b"\x06" + energy.to_bytes(4, "big")
    return b"\x02\x03" + encoded


def clock_at(moment, deviation=-60):
    return b"\x09\x0c" + CosemDateTime.from_datetime(moment, deviation).to_bytes()


def profile(*rows):
    return bytes((1, len(rows))) + b"".join(rows)


START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


def test_nulls_are_restored_but_told_apart():
    octets = profile(row(clock_at(START), 0, 100), row(None, None, None), row(None, None, 130))
    first, second, third = decode_profile(octets, [CLOCK, STATUS, ENERGY], 900)
    assert (second.captured_at, second.status, second.values) == (START + timedelta(minutes=15), 0, (100,))
    assert (second.inferred_time, second.nulls) == (True, (0,))
    assert (third.values, third.nulls, third.inferred_time) == ((130,), (), True)
    assert not first.inferred_time


def test_nothing_is_inferred_across_a_change_of_status():
    octets = profile(row(clock_at(START), 0, 100), row(None, 0x80, None))
    assert decode_profile(octets, [CLOCK, STATUS, ENERGY], 900)[1].values == (None,)


def test_raw_rows_are_what_was_sent():
    sent = [row(clock_at(START), 0, n) for n in range(40)] + [
        row(None, None, 41),
        row(clock_at(START), 0, 42),
    ]
    rows = decode_raw_rows(profile(*sent), [CLOCK, STATUS, ENERGY])
    clock = clock_at(START)[2:]
    assert rows == [*[(clock, 0, n) for n in range(40)], (None, None, 41), (clock, 0, 42)]
    contents = clock_at(START)[1:] + b"\x00\x00\x00\x00\x07"
    compact = b"\x13\x02\x03\x09\x11\x06" + bytes((len(contents),)) + contents
    assert decode_raw_rows(compact, [CLOCK, STATUS, ENERGY]) == [(clock, 0, 7)]


def test_a_first_row_of_nulls_has_no_time():
    rows = decode_profile(profile(row(None, None, None)), [CLOCK, STATUS, ENERGY], 900)
    assert (rows[0].captured_at, rows[0].values) == (None, (None,))


def test_season_change_within_a_buffer():
    moments = [START + timedelta(minutes=15 * step) for step in range(8)]
    change = datetime(2026, 3, 29, 1, tzinfo=UTC)
    rows = [row(clock_at(moment, -120 if moment >= change else -60), 0, 1) for moment in moments]
    assert [r.captured_at for r in decode_profile(profile(*rows), [CLOCK, STATUS, ENERGY], 900)] == moments


def test_clock_in_the_last_column_and_newest_first():
    cells = [b"\x02\x02\x06\0\0\0\2" + clock_at(START), b"\x02\x02\x06\0\0\0\1\x00"]
    rows = decode_profile(profile(*cells), [ENERGY, CLOCK], 900, descending=True)
    assert [(r.captured_at, r.values) for r in rows] == [(START, (2,)), (START - timedelta(minutes=15), (1,))]


def test_delta_values_add_up():
    octets = profile(row(clock_at(START), 0, 100), b"\x02\x03\x00\x00\x1f\x05", b"\x02\x03\x00\x00\x1c\xff")
    assert [r.values for r in decode_profile(octets, [CLOCK, STATUS, ENERGY], 900)] == [
        (100,),
        (105,),
        (104,),
    ]


def test_deltas_in_the_clock_and_the_status_add_up():
    unix = CLOCK._replace(class_id=8)
    rows = [b"\x02\x02\x06" + (1767225600).to_bytes(4, "big") + b"\x11\x05", b"\x02\x02\x1f\xfa\x11\x06"]
    found = decode_profile(profile(*rows), [unix, ENERGY], 900)
    assert [row.captured_at for row in found] == [
        datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 4, 10, tzinfo=UTC)
    ]  # fmt: skip
    rows = [row(clock_at(START), 4, 5), b"\x02\x03\x00\x1f\x01\x06\0\0\0\6"]
    assert [r.status for r in decode_profile(profile(*rows), [CLOCK, STATUS, ENERGY], 900)] == [4, 5]
    with pytest.raises(DecodeError, match="follows no value"):
        decode_profile(profile(rows[1]), [CLOCK, STATUS, ENERGY], 900)


def test_a_delta_adds_to_what_was_sent_last_also_where_that_is_not_shown():
    rows = [row(clock_at(START), 0, 5), row(None, 8, None), b"\x02\x03\x00\x00\x1f\x03"]
    found = decode_profile(profile(*rows), [CLOCK, STATUS, ENERGY], 900)
    assert [r.values for r in found] == [(5,), (None,), (8,)]


def test_a_boolean_status_is_a_number():
    rows = [b"\x02\x03" + clock_at(START) + bytes((3, n % 2)) + b"\x06\0\0\0\1" for n in range(5)]
    assert [r.status for r in decode_profile(profile(*rows), [CLOCK, STATUS, ENERGY], 900)] == [0, 1, 0, 1, 0]


def test_a_compact_array_is_a_buffer_too():
    contents = b"".join(b"\x0c" + clock_at(START)[2:] + bytes((0,)) + n.to_bytes(4, "big") for n in (7, 8))
    octets = b"\x13\x02\x03\x09\x11\x06" + bytes((len(contents),)) + contents
    assert [r.values for r in decode_profile(octets, [CLOCK, STATUS, ENERGY], 900)] == [(7,), (8,)]


@pytest.mark.parametrize("broken", [b"\x01\x05", b"\x06\0\0\0\1", b"\x01\x01\x02\x01\x06\0\0\0\1\x00"])
def test_broken_buffers_are_refused(broken):
    with pytest.raises(DecodeError):
        decode_profile(broken, [ENERGY], 900)


def test_every_class_starts_with_its_logical_name():
    for row_of_table in CLASSES.values():
        assert row_of_table.attributes[0].name == "logical_name"
        assert [a.number for a in row_of_table.attributes] == list(range(1, len(row_of_table.attributes) + 1))
    assert CLASSES[7].attribute_name(4) == "capture_period"
    assert CLASSES[70].method_name(1) == "remote_disconnect"
    assert interface_class(9999).attribute_name(3) == "attribute 3"


def test_obis_codes_in_words_and_patterns():
    energy = Obis.parse("1-0:1.8.1*255")
    assert energy.describe() == "electricity, active energy +, total, tariff 1"
    assert symbol(energy.usual_unit()) == "Wh"
    assert Obis.parse("1.0.52.7.0.255").describe() == "electricity, voltage L2, instantaneous value"
    assert Obis.parse("0.0.1.0.0.255").describe() == "abstract, clock"
    assert energy.matches("1-*:1.8.*")
    assert energy.matches("1.*.1.8.*.255")
    assert not energy.matches("1-*:2.8.*")
    with pytest.raises(ObisError):
        energy.matches("1-a")


def test_explaining_tells_wrong_keys_truncation_and_noise():
    pushed = bytes.fromhex(
        "db082f192291991641033b30000001e5025ce9d2271fd78be8c204211a916a9d7f587e0a7a814cadea89e9593f01f92ea8c0"
        "87b5bdfdefeab6becf282dfe49c08f5be6dc8400"
    )
    key = b"MYDTUMMYGLOBALKEY"[:16]
    assert "error" not in explain(pushed)
    wrong = explain(pushed, SecurityKeys(key, key))
    assert "tag does not fit" in wrong["error"]
    assert wrong["invocation_counter"] == 485
    assert "truncated" in explain(pushed[:30])["error"]
    assert "no APDU" in explain(b"\xff\xff\xff")["error"]
    assert explain(bytes.fromhex("c003c100000001"))["trailing"] == "000001"
