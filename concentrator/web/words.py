"""What the page says in words: states, ages, quantities, OBIS codes.

Pure functions of values, shared by the templates, the chart and the JSON answers. Everything that an
engineer reads on the page and that is no data of a meter stands here or in a template.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from concentrator.model import Quality
from concentrator.obis import Obis, ObisError
from concentrator.units import unit_symbol

Tone = Literal["good", "busy", "warn", "bad", "off"]
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


class StateWords(NamedTuple):
    """A state as the page shows it: a tone for its colour, a word, and what it means."""

    tone: Tone
    word: str
    meaning: str


METER_STATES: dict[str, StateWords] = {
    "discovered": StateWords("busy", "Discovered", "Seen on the network or on the air, not yet identified."),
    "identifying": StateWords("busy", "Identifying", "Being asked who it is."),
    "active": StateWords("good", "Active", "Identified, and read as planned."),
    "unreachable": StateWords("bad", "Unreachable", "Known, but does not answer."),
    "refused": StateWords("bad", "Refused", "Answers, but refuses our credentials or requests."),
    "key_missing": StateWords("warn", "Key missing", "Encrypted, and no key is set up."),
    "key_wrong": StateWords("warn", "Key wrong", "What the key gives is noise: check the key."),
    "foreign": StateWords("off", "Foreign", "Not one of ours: listed and left alone."),
    "removed": StateWords("off", "Removed", "Was here once; its history stays."),
}
PORT_TONES: dict[str, Tone] = {
    "running": "good",
    "starting": "busy",
    "closed": "off",
    "port missing": "bad",
    "port lost": "bad",
}
DESTINATION_TONES: dict[str, Tone] = {
    "connected": "good",
    "not connected": "bad",
    "not configured": "off",
    "unknown": "off",
}
MEDIA: dict[str, str] = {
    "electricity": "Electricity",
    "gas": "Gas",
    "water": "Water",
    "hot_water": "Hot water",
    "heat": "Heat",
    "cooling": "Cooling",
    "heat_cost": "Heat cost",
    "other": "Other",
}
_EVENT_CODES: dict[str, str] = {
    "boot": "The machine was started",
    "fault": "A fault",
    "updated": "The software was updated",
    "clock_step": "The clock was set",
    "access": "An order was given",
    "registration": "A node came, went or was turned away",
    "value_differs": "A meter gave another value for an interval that was stored before",
    "store_set_aside": "The store was damaged and set aside",
}
_QUALITY_WORDS: dict[Quality, str] = {
    Quality.CLOCK_INVALID: "clock invalid",
    Quality.CLOCK_DOUBTFUL: "clock doubtful",
    Quality.POWER_DOWN: "power failed within",
    Quality.CLOCK_ADJUSTED: "clock was set within",
    Quality.INFERRED_TIME: "time inferred",
    Quality.NOT_VALIDATED: "not validated",
    Quality.SUSPECT: "suspect",
    Quality.ESTIMATED: "estimated",
    Quality.WRONG_DIGITS: "not a number at the meter",
    Quality.OUT_OF_RANGE: "more than the connection can carry",
    Quality.RUNS_BACKWARDS: "register ran backwards",
    Quality.UNIT_UNEXPECTED: "unexpected unit or scaler",
    Quality.SUM_CHECK: "intervals and register disagree",
    Quality.DIFFERS: "the meter gave another value too",
    Quality.AFTER_GAP: "interval before is missing",
    Quality.ROLLED_OVER: "register began again",
}

# Value groups C and D of electricity (A = 1): Blue Book part 1, tables of value groups C and D.
_ELECTRICITY_C: dict[int, str] = {
    1: "Active power import (+P)",
    2: "Active power export (-P)",
    3: "Reactive power import (+Q)",
    4: "Reactive power export (-Q)",
    5: "Reactive power QI",
    6: "Reactive power QII",
    7: "Reactive power QIII",
    8: "Reactive power QIV",
    9: "Apparent power import (+S)",
    10: "Apparent power export (-S)",
    11: "Current",
    12: "Voltage",
    13: "Power factor",
    14: "Frequency",
    15: "Active power |+P|+|-P|",
    16: "Active power |+P|-|-P|",
    91: "Current, neutral",
}
_LAST_POWER_C = 10
_PHASE_STEP = 20
_PHASES = (1, 2, 3)
_ELECTRICITY_D: dict[int, str] = {
    2: "cumulative maximum",
    3: "minimum",
    4: "average",
    5: "last average",
    6: "maximum",
    7: "instantaneous",
    8: "energy register",
    9: "energy in the billing period",
    29: "energy in the interval",
}
# D of what counts up for ever: time integral 1.
TIME_INTEGRAL_1 = 8
_ELECTRICITY, _HEAT_COST, _COOLING, _HEAT, _GAS, _COLD_WATER, _HOT_WATER = 1, 4, 5, 6, 7, 8, 9
_THERMAL_C: dict[int, str] = {
    1: "Energy",
    2: "Volume",
    3: "Mass",
    8: "Power",
    9: "Volume flow",
    10: "Flow temperature",
    11: "Return temperature",
    12: "Temperature difference",
    13: "Pressure",
}
_WATER_C: dict[int, str] = {1: "Volume", 2: "Volume flow", 3: "Temperature"}
_OTHER_MEDIA: dict[int, dict[int, str]] = {
    _HEAT_COST: {1: "Heat cost units"},
    _COOLING: _THERMAL_C,
    _HEAT: _THERMAL_C,
    _GAS: {3: "Volume", 43: "Volume flow"},
    _COLD_WATER: _WATER_C,
    _HOT_WATER: _WATER_C,
}
_ABSTRACT: dict[tuple[int, int], str] = {
    (96, 8): "Operating time",
    (96, 6): "Battery",
    (97, 97): "Error flags",
    (1, 0): "Clock",
}
_PRESENT_VALUE = 255


def obis_words(text: str) -> str:
    """What an OBIS code measures, in words; "" when this table does not say."""
    try:
        code = Obis.parse(text)
    except ObisError:
        return ""
    words = _electricity(code) if code.a == _ELECTRICITY else _other(code)
    if not words:
        return ""
    if code.a and code.e:
        words += f", tariff {code.e}"
    if code.f != _PRESENT_VALUE:
        words += f", stored value {code.f}"
    return words


def _electricity(code: Obis) -> str:
    quantity, phase = _ELECTRICITY_C.get(code.c, ""), ""
    if not quantity:
        for number in _PHASES:
            base = code.c - _PHASE_STEP * number
            if base in _ELECTRICITY_C:
                quantity, phase = _ELECTRICITY_C[base], f" L{number}"
                break
    if not quantity:
        return ""
    processing = _ELECTRICITY_D.get(code.d, "")
    if processing.startswith("energy"):
        quantity = quantity.replace("power", "energy")
        processing = processing.removeprefix("energy ").replace("register", "total")
    return quantity + phase + (f", {processing}" if processing else "")


def _other(code: Obis) -> str:
    if code.a == 0:
        return _ABSTRACT.get((code.c, code.d), "")
    return _OTHER_MEDIA.get(code.a, {}).get(code.c, "")


def is_counter(obis: str) -> bool:
    """Whether a channel counts up for ever, so that its profile is best seen as differences."""
    try:
        code = Obis.parse(obis)
    except ObisError:
        return False
    if code.a == _ELECTRICITY:
        return code.d == TIME_INTEGRAL_1
    return code.d == 0 and _other(code) in ("Energy", "Volume", "Mass", "Heat cost units")


def quality_words(quality: int) -> str:
    """The flags of a reading's quality; "valid" when nothing speaks against it."""
    flags = Quality(quality)
    if not flags:
        return "valid"
    return ", ".join(words for flag, words in _QUALITY_WORDS.items() if flag in flags)


def is_doubtful(quality: int) -> bool:
    """Whether something speaks against a value. That its time follows from the row before does not."""
    return bool(Quality(quality) & ~(Quality.INFERRED_TIME | Quality.NOT_VALIDATED))


def event_words(code: str) -> str:
    """What a code of the event log means; the code itself when it is not in the table."""
    return _EVENT_CODES.get(code, code.replace("_", " "))


def age_words(then: datetime, now: datetime) -> str:
    """How long ago, in the coarsest two units that matter. The script of the page says the same."""
    seconds = int((now - then).total_seconds())
    if seconds < -_MINUTE_S:
        return "in the future"
    if seconds < _MINUTE_S:
        return f"{max(0, seconds)} s ago"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S} min ago"
    if seconds < _DAY_S:
        minutes = seconds % _HOUR_S // _MINUTE_S
        return f"{seconds // _HOUR_S} h {minutes} min ago"
    return f"{seconds // _DAY_S} d {seconds % _DAY_S // _HOUR_S} h ago"


def octets_words(octets: float) -> str:
    """A size with its unit, powers of ten as on the card's label."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(octets) < 1000:  # noqa: PLR2004 - the step of the prefixes
            return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"  # noqa: PLR2004 - three digits
        octets /= 1000
    return f"{octets:.1f} TB"


def number_words(number: int) -> str:
    """A whole number with thin spaces between thousands (ISO 31-0), read right in every language."""
    return f"{number:,}".replace(",", "\u202f")


def scaled(value: float | str, scaler: int) -> str:
    """A raw value times 10**scaler, with exactly the digits that the meter gave."""
    if not isinstance(value, int):
        return str(value)
    if scaler >= 0:
        return number_words(value * 10**scaler)
    whole, rest = divmod(abs(value), 10**-scaler)
    return f"{'-' if value < 0 else ''}{number_words(whole)}.{rest:0{-scaler}d}"


def percent_words(part: int, whole: int) -> str:
    """A share as a whole percentage that says 100 only when nothing lacks, and 0 only when all does."""
    if whole <= 0:
        return "-"
    if part >= whole:
        return "100 %"
    if part <= 0:
        return "0 %"
    return f"{min(99, max(1, round(100 * part / whole)))} %"


def unit_words(unit: int) -> str:
    """The symbol of a Blue Book unit code."""
    return unit_symbol(unit)


def signal_words(signal: float | None, link: str) -> str:
    """A signal with its unit: dBm from a radio; the PLC family's own figure otherwise."""
    if signal is None:
        return ""
    return f"{signal:.0f} dBm" if link == "wmbus" else f"{signal:.0f}"
