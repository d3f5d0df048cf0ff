"""Real telegrams of many vendors, decoded by the standard and by the meter profiles.

The expected values come from another decoder that has a driver for each model; the records must hold every one
of them, but for those that have a reason here why not.
"""

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from concentrator.cli import main
from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.security import KeyRing, SecurityState
from concentrator.wmbus.telegram import decode_telegram

DATA = Path(__file__).parents[2] / "../shared/data/wmbus/telegrams.jsonl"
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "month": 86400 * 365.2425 / 12, "a": 86400 * 365.2425}
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
    "pct": {"%": Fraction(1)},
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


def rows():
    if not DATA.exists():
        pytest.skip(f"real telegrams are not here: {DATA}")
    found = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [{**row, "hex": row["hex"][: len(row["hex"]) // 2 * 2]} for row in found]


def decode(row):
    keys, formats = KeyRing(), FormatMemory()
    if row["key"]:
        keys.add(row["expected"]["id"], bytes.fromhex(row["key"]))
    for earlier in row.get("preceding", []):
        decode_telegram(bytes.fromhex(earlier), keys=keys, formats=formats)
    return decode_telegram(bytes.fromhex(row["hex"]), keys=keys, formats=formats)


def holds_number(telegram, suffix, wanted):
    # The other decoder prints six decimals.
    tolerance = max(Fraction(1, 10**6) * abs(Fraction(str(wanted))), Fraction(1, 2 * 10**6))
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


def holds_bits(telegram, name, wanted):
    """Words for bits: "OK" when none is set, some bit set otherwise."""
    status = telegram.status or 0
    flags = [r.value for r in telegram.records if r.quantity in BITS and isinstance(r.value, int)]
    flags += [r.value for r in telegram.records if r.quantity == "manufacturer_specific"]
    raised = bool(status or any(flags))
    return True if wanted == "OK" and name in MASKED else raised != (wanted == "OK")


def given(telegram, name, wanted):
    """Whether a telegram's records hold what the other decoder prints under a name."""
    if name == "id":
        return telegram.meter is not None and telegram.meter.identification == wanted.upper()
    if name == "media":
        return bool(telegram.meter is None or telegram.meter.device_type_name)
    if isinstance(wanted, str) and ("status" in name or name == "error_flags"):
        return holds_bits(telegram, name, wanted)
    if isinstance(wanted, str):
        number = re.fullmatch(r"([0-9.]+)V", wanted)
        return holds_number(telegram, "v", number[1]) if number else holds_text(telegram, wanted)
    return holds_number(telegram, name.rsplit("_", 1)[-1], wanted)


BITS = {"error_flags", "digital_input", "digital_output", "frame_flags", "history_flags", "alarm_state"}
# The drivers of these leave bits out that the standard counts among the status.
MASKED = {"status", "error_flags", "current_status", "frame_status", "historic_status"}
# Names of words that the other decoder makes of bits: the bits are in the records.
WORDS = {
    "location_hex",
    "dust_level",
    "obstacle_distance",
    "contents",
    "fraud_type",
    "info",
    "power_mode",
    "is_repeater_listening",
    "repeater_listening_on_weekdays",
    "unknowna",
    "unknownb",
}
NO_DATE = "the meter sent a pattern that means: no date"
NO_VALUE = "the meter sent a pattern that means: no value"
NOT_SENT = "not in this telegram: the other decoder keeps it from an earlier one, or prints a default"
MAKERS_OWN = "in the manufacturer's own encoding, not publicly known"
# Every expected value that is not given, with the reason.
NOT_GIVEN = {
    ("emerlin868_1", "target_date"): NO_DATE,
    ("emerlin868_2", "target_date"): NO_DATE,
    ("emerlin868_2", "target_m3"): NO_VALUE,
    ("esyswm_2", "fabrication_no"): NOT_SENT,
    ("esyswm_2", "enhanced_id"): NOT_SENT,
    ("esyswm_2", "location"): NOT_SENT,
    ("esyswm_2", "version"): NOT_SENT,
    ("gwfgas_1", "target_date"): NO_DATE,
    ("hcae2_5", "meter_datetime_at_error"): NO_DATE,
    ("hydrodigit_4", "June_total_m3"): NO_VALUE,
    ("hydrodigit_4", "July_total_m3"): NO_VALUE,
    ("istaheat_1", "last_year_date"): NO_DATE,
    ("kaden_1", "target_date"): "a day of every year, given without a year",
    ("kaden_2", "target_date"): "a day of every year, given without a year",
    ("kamheat_18", "target_date"): NO_DATE,
    ("qheat5us_1", "meter_date_at_error"): NO_DATE,
    ("qwater_2", "volume_flow_m3h"): NOT_SENT,
    ("qwater_17", "volume_flow_m3h"): NOT_SENT,
    ("qwater_18", "volume_flow_m3h"): NOT_SENT,
    ("qwaterv2_2", "volume_delta_2_m3"): NO_VALUE,
    ("rfmtx1_1", "total_m3"): MAKERS_OWN,
    ("sensostar_1", "target_date"): NO_DATE,
    ("simulation_metershell_2", "total_m3"): "the other decoder was told to print another number",
    ("simulation_log_test_5", "current_date"): "the same day, printed as a moment in UTC",
    ("simulation_log_test_5", "previous_date"): "the same day, printed as a moment in UTC",
    ("werhlemodwm_1", "meter_datetime"): NO_DATE,
    ("gwfwater_3", "status"): "the words name the kind of the manufacturer's data",
}


def test_every_expected_value_is_given_or_has_its_reason():
    values = complete = 0
    wrong = []
    for row in rows():
        telegram = decode(row)
        wanted = {
            name: value for name, value in row["expected"].items() if value is not None and name not in WORDS
        }
        absent = {name for name, value in wanted.items() if not given(telegram, name, value)}
        excused = {name for telegram_name, name in NOT_GIVEN if telegram_name == row["name"]}
        wrong += [(row["name"], name, wanted.get(name)) for name in absent ^ excused]
        values += len(wanted)
        complete += not absent
    assert not wrong
    assert values > 2500
    assert complete > 220


def test_the_command_gives_the_same_values(tmp_path):
    if not DATA.exists():
        pytest.skip(f"real telegrams are not here: {DATA}")
    file = tmp_path / "telegrams.hex"
    chosen = [row for row in rows() if not row.get("preceding")]
    lines = [f"{row['hex']}{' key=' + row['key'] if row['key'] else ''}" for row in chosen]
    file.write_text("\n".join(lines))
    answer = CliRunner().invoke(main, ["decode", "--json", str(file)])
    trees = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(trees) == len(chosen)
    for row, tree in zip(chosen, trees, strict=True):
        telegram = decode(row)
        assert tree["id"] == row["expected"]["id"].upper(), row["name"]
        assert (tree["manufacturer"], tree["version"]) == (
            telegram.meter.manufacturer,
            telegram.meter.version,
        )
        if not telegram.fault:
            shown = [(one["quantity"], one["storage"], one["tariff"], one["unit"]) for one in tree["records"]]
            records = telegram.records
            assert shown == [(r.quantity, r.storage, r.tariff, r.unit) for r in records], row["name"]
            for record, one in zip(records, tree["records"], strict=True):
                if record.decimal is not None:
                    assert one["value"] == pytest.approx(float(record.decimal)), row["name"]


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
