"""Real telegrams of many vendors, decoded by the standard and by the meter profiles.

The expected values come from another decoder that has a driver for each model; the records must hold them.
What a driver computes, and content that only a vendor can open, is not counted as found, and the share that
is found must not fall.
"""

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.security import KeyRing, SecurityState
from concentrator.wmbus.telegram import decode_telegram

DATA = Path(__file__).parents[2] / "../shared/data/wmbus/telegrams.jsonl"
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "month": 86400 * 30.4375, "a": 86400 * 365.25}
# Suffix of an expected field: units that a record may have, each with the factor into the suffix's unit.
FACTORS = {
    "m3": {"m3": Fraction(1)},
    "m3h": {"m3/h": Fraction(1), "m3/min": Fraction(60), "m3/s": Fraction(3600)},
    "kwh": {"Wh": Fraction(1, 1000), "J": Fraction(1, 3_600_000), "cal": Fraction(4184, 3_600_000_000)},
    "kw": {"W": Fraction(1, 1000), "J/h": Fraction(1, 3_600_000)},
    "kvarh": {"varh": Fraction(1, 1000)},
    "kvar": {"var": Fraction(1, 1000)},
    "kva": {"VA": Fraction(1, 1000)},
    "mj": {"J": Fraction(1, 10**6), "Wh": Fraction(3600, 10**6)},
    "gj": {"J": Fraction(1, 10**9), "Wh": Fraction(3600, 10**9)},
    "c": {"C": Fraction(1), "K": Fraction(1)},
    "v": {"V": Fraction(1)},
    "a": {"A": Fraction(1)},
    "hz": {"Hz": Fraction(1)},
    "bar": {"bar": Fraction(1)},
    "hca": {"hca": Fraction(1)},
    "rh": {"%": Fraction(1)},
    "kg": {"kg": Fraction(1)},
    "dbm": {"dBm": Fraction(1)},
    "m3c": {"m3C": Fraction(1)},
    "counter": {"m3C": Fraction(1), "": Fraction(1)},
    **{
        suffix: {unit: Fraction(seconds) / Fraction(SECONDS[name]) for unit, seconds in SECONDS.items()}
        for suffix, name in (
            ("s", "s"),
            ("min", "min"),
            ("h", "h"),
            ("d", "d"),
            ("y", "a"),
            ("month", "month"),
        )
    },
}
DATE = re.compile(r"\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?)?$")
# Measured on the 255 telegrams; see docs/wmbus.md.
LEAST_VALUES_FOUND = 0.88
LEAST_TELEGRAMS_COMPLETE = 0.72


def rows():
    if not DATA.exists():
        pytest.skip(f"real telegrams are not here: {DATA}")
    found = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [row for row in found if len(row["hex"]) % 2 == 0]


def decode(row):
    keys, formats = KeyRing(), FormatMemory()
    if row["key"] and len(row["key"]) == 32:
        keys.add(row["expected"]["id"], bytes.fromhex(row["key"]))
    for earlier in row.get("preceding", []):
        decode_telegram(bytes.fromhex(earlier), keys=keys, formats=formats)
    return decode_telegram(bytes.fromhex(row["hex"]), keys=keys, formats=formats)


def holds_number(telegram, suffix, wanted):
    tolerance = Fraction(1, 10**6) * abs(Fraction(str(wanted)))
    for record in telegram.records:
        if record.decimal is None:
            continue
        factor = FACTORS.get(suffix, {}).get(record.unit)
        if factor is None and suffix in ("counter", "factor") and record.unit == "":
            factor = Fraction(1)
        if factor is not None:
            got = Fraction(record.decimal) * factor
            if abs(got - Fraction(str(wanted))) <= tolerance:
                return True
    return False


def holds_text(telegram, wanted):
    for record in telegram.records:
        shown = str(record.value)
        if shown == wanted or (DATE.match(wanted) and shown.startswith(wanted)):
            return True
        # A driver may print the time of a date-only record, or the day of a date-time.
        if DATE.match(wanted) and wanted.endswith(" 00:00") and shown == wanted[:10]:
            return True
    return False


def comparable(row):
    """The expected values that stand for something measured: numbers with a unit, and dates."""
    for name, wanted in row["expected"].items():
        if isinstance(wanted, (int, float)):
            yield name, name.rsplit("_", 1)[-1], wanted
        elif isinstance(wanted, str) and (DATE.match(wanted) or name == "fabrication_no"):
            yield name, None, wanted


def share_found():
    values = values_found = telegrams = complete = 0
    missing = []
    for row in rows():
        if row["security"] in ("mode16", "mode2"):
            continue
        telegram = decode(row)
        wanted = list(comparable(row))
        absent = [
            name
            for name, suffix, value in wanted
            if not (holds_text(telegram, value) if suffix is None else holds_number(telegram, suffix, value))
        ]
        values += len(wanted)
        values_found += len(wanted) - len(absent)
        telegrams += 1
        complete += not absent
        if absent:
            missing.append((row["name"], absent[:6], len(absent)))
    return values, values_found, telegrams, complete, missing


def test_the_records_hold_the_values_of_a_decoder_with_drivers():
    values, values_found, telegrams, complete, missing = share_found()
    assert telegrams > 200
    assert values_found / values >= LEAST_VALUES_FOUND, missing
    assert complete / telegrams >= LEAST_TELEGRAMS_COMPLETE, missing


def test_every_identification_is_the_one_printed_on_the_meter():
    for row in rows():
        telegram = decode(row)
        if telegram.meter is not None and row["security"] != "mfct_specific":
            assert telegram.meter.identification == row["expected"]["id"].upper(), row["name"]


def test_real_keys_open_their_telegrams():
    opened = [row for row in rows() if row["security"] == "mode5"]
    assert opened
    for row in opened:
        assert decode(row).security.state is SecurityState.DECODED, row["name"]


def test_content_that_a_receiver_decrypted_is_read_and_marked():
    stripped = [row for row in rows() if row["security"].endswith("_removed")]
    assert stripped
    for row in stripped:
        assert decode(row).security.state is SecurityState.ALREADY_PLAIN, row["name"]


def test_numbers_are_exact():
    for row in rows():
        for record in decode(row).records:
            assert not isinstance(record.value, float)
            assert record.decimal is None or isinstance(record.decimal, Decimal)
