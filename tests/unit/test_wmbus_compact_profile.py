"""Compact profiles: plain, inverse, differences; values of real telegrams and octets of any kind."""

from hypothesis import given
from hypothesis import strategies as st

from concentrator.wmbus.compact_profile import open_compact_profiles
from concentrator.wmbus.records import decode_records
from concentrator.wmbus.values import MeterTime

BASE = bytes.fromhex("82046C 4132 8B046E 030200")  # storage 8: 2026-02-01 and 203 units


def opened(vife, content):
    data = BASE + bytes.fromhex("8D04EE") + bytes((vife, len(content))) + content
    found = open_compact_profiles(decode_records(data).records)
    values = {one.storage: one.value for one in found if one.quantity == "heat_cost_allocation"}
    dates = {one.storage: str(one.value) for one in found if isinstance(one.value, MeterTime)}
    return values, dates


def test_an_inverse_profile_goes_back_month_by_month_and_leaves_out_what_is_none():
    values, dates = opened(0x13, bytes.fromhex("3BFE990000520000100000000000FFFFFF"))
    assert values == {9: 99, 10: 52, 11: 10, 12: 0}
    assert dates == {9: "2026-01-01", 10: "2025-12-01", 11: "2025-11-01", 12: "2025-10-01"}


def test_a_plain_profile_goes_on():
    values, dates = opened(0x1E, bytes.fromhex("3BFE100200200200"))
    assert (values, dates) == ({9: 210, 10: 220}, {9: "2026-03-01", 10: "2026-04-01"})


def test_increments_are_added_to_the_base():
    assert opened(0x1F, bytes.fromhex("7101050A"))[0] == {9: 208, 10: 218}
    assert opened(0x1F, bytes.fromhex("7101050A"))[1] == {9: "2026-02-02", 10: "2026-02-03"}
    assert opened(0x13, bytes.fromhex("7101050A"))[0] == {9: 198, 10: 188}
    assert opened(0x1F, bytes.fromhex("B101050A"))[0] == {9: 198, 10: 188}


def test_the_last_day_of_a_month_stays_the_last_one():
    data = bytes.fromhex("82046C5F3C 840406E8030000 8D0486 13 0832FE010002000300".replace(" ", ""))
    found = open_compact_profiles(decode_records(data).records)
    assert [str(one.value) for one in found if one.quantity == "date"][:2] == ["2026-11-30", "2026-10-31"]


def test_a_spacing_of_unknown_kind_gives_values_without_dates():
    values, dates = opened(0x1F, bytes.fromhex("31FB05"))
    assert (values, dates) == ({9: 5}, {})


@given(st.sampled_from((0x13, 0x1E, 0x1F)), st.binary(max_size=60))
def test_any_content_gives_records_or_nothing(vife, content):
    values, dates = opened(vife, content)
    assert dates.keys() <= values.keys()
