"""Meter profiles: every file's own samples, and octets that fit no layout."""

import contextlib
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.dlms.explain import Explainer
from concentrator.inspect.mbus import explain_telegram
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.profile import all_profiles
from concentrator.wmbus.telegram import decode_telegram
from concentrator.wmbus.values import MeterTime

FOLDER = Path(__file__).parents[2] / "concentrator/wmbus/profiles"
FILES = sorted(FOLDER.glob("*.toml"))
SAMPLES = [
    pytest.param(table["name"], sample, id=path.stem)
    for path in FILES
    for table in [tomllib.loads(path.read_text())]
    for sample in table.get("samples", ())
]


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_a_sample_gives_its_values(name, sample):
    telegram = decode_telegram(bytes.fromhex(sample["telegram"]))
    assert telegram.profile == name
    for key, wanted in sample["values"].items():
        quantity, _, storage = key.partition("@")
        values = [
            str(record.value) if isinstance(record.value, MeterTime) else record.decimal
            for record in telegram.records
            if record.quantity == quantity and record.storage == int(storage or 0)
        ]
        assert (wanted if quantity == "date" else Decimal(wanted)) in values, key
    tree = explain_telegram(telegram, Explainer())
    assert tree["profile"] == name
    assert tree["fields"]
    assert "error" not in tree


def test_every_file_is_loaded_and_has_a_name_of_its_own():
    assert len({profile.name for profile in all_profiles()}) == len(FILES) == len(all_profiles())


@given(st.sampled_from(SAMPLES), st.binary(max_size=80))
def test_any_content_of_a_meter_with_profile_gives_records_or_none(sample, content):
    start = bytes.fromhex(sample.values[1]["telegram"])[1:11]
    octets = bytes((len(start) + len(content),)) + start + content
    with contextlib.suppress(TelegramError):
        for record in decode_telegram(octets).records:
            assert record.quantity


def test_a_layout_that_is_longer_than_the_content_gives_nothing():
    octets = bytes.fromhex("0F446850313233347462A2069F2559B0")
    telegram = decode_telegram(octets)
    assert (telegram.records, telegram.profile) == ((), "")
