"""What the page says in words: states, ages, quantities, OBIS codes.

Pure functions of values, shared by the templates, the chart and the JSON answers. Everything that an
engineer reads on the page and that is no data of a meter stands here or in a template. Tables are in English and
translated where they are shown; a function that puts words together takes the language's `translate`.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal, NamedTuple

from concentrator.model import Quality
from concentrator.obis import Obis, ObisError
from concentrator.units import unit_symbol
from concentrator.web.translations import Translate, english, mark

Tone = Literal["good", "busy", "warn", "bad", "off"]
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


class StateWords(NamedTuple):
    """A state as the page shows it: a tone for its colour, a word, and what it means."""

    tone: Tone
    word: str
    meaning: str


METER_STATES: dict[str, StateWords] = {
    "discovered": StateWords(
        "busy", mark("Discovered"), mark("Seen on the network or on the air, not yet identified.")
    ),
    "identifying": StateWords("busy", mark("Identifying"), mark("Being asked who it is.")),
    "active": StateWords("good", mark("Active"), mark("Identified, and read as planned.")),
    "unreachable": StateWords("bad", mark("Unreachable"), mark("Known, but does not answer.")),
    "refused": StateWords("bad", mark("Refused"), mark("Answers, but refuses our credentials or requests.")),
    "key_missing": StateWords("warn", mark("Key missing"), mark("Encrypted, and no key is set up.")),
    "key_wrong": StateWords("warn", mark("Key wrong"), mark("What the key gives is noise: check the key.")),
    "foreign": StateWords("off", mark("Foreign"), mark("Not one of ours: listed and left alone.")),
    "removed": StateWords("off", mark("Removed"), mark("Was here once; its history stays.")),
}
KEY_STATES: dict[str, StateWords] = {
    "missing": StateWords("warn", mark("missing"), mark("Encrypted, and no key is set up.")),
    "wrong": StateWords("bad", mark("wrong"), mark("The meter refuses, or what the key gives is noise.")),
    "present": StateWords("good", mark("present"), mark("Keys are set up for it.")),
    "none": StateWords("off", mark("not needed"), mark("It is read without keys.")),
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
    "electricity": mark("Electricity"),
    "gas": mark("Gas"),
    "water": mark("Water"),
    "hot_water": mark("Hot water"),
    "heat": mark("Heat"),
    "cooling": mark("Cooling"),
    "heat_cost": mark("Heat cost"),
    "other": mark("Other"),
}
_EVENT_CODES: dict[str, str] = {
    "boot": mark("The machine was started"),
    "fault": mark("A fault"),
    "updated": mark("The software was updated"),
    "clock_step": mark("The clock was set"),
    "access": mark("An order was given"),
    "registration": mark("A node came, went or was turned away"),
    "value_differs": mark("A meter gave another value for an interval that was stored before"),
    "store_set_aside": mark("The store was damaged and set aside"),
    "service_started": mark("service started"),
    "service_stopped": mark("service stopped"),
    "order_outcome": mark("order outcome"),
    "clock_shifted": mark("clock shifted"),
    "clock_wrong": mark("clock wrong"),
    "clock_set": mark("clock set"),
    "meter_state": mark("meter state"),
    "modem_state": mark("modem state"),
    "radio_state": mark("radio state"),
    "mbus_state": mark("M-Bus state"),
    "p1_state": mark("P1 state"),
    "destination_state": mark("destination state"),
    "clock_state": mark("clock state"),
    "store_state": mark("store state"),
}
_QUALITY_WORDS: dict[Quality, str] = {
    Quality.CLOCK_INVALID: mark("clock invalid"),
    Quality.CLOCK_DOUBTFUL: mark("clock doubtful"),
    Quality.POWER_DOWN: mark("power failed within"),
    Quality.CLOCK_ADJUSTED: mark("clock was set within"),
    Quality.INFERRED_TIME: mark("time inferred"),
    Quality.NOT_VALIDATED: mark("not validated"),
    Quality.SUSPECT: mark("suspect"),
    Quality.ESTIMATED: mark("estimated"),
    Quality.WRONG_DIGITS: mark("not a number at the meter"),
    Quality.OUT_OF_RANGE: mark("more than the connection can carry"),
    Quality.RUNS_BACKWARDS: mark("register ran backwards"),
    Quality.UNIT_UNEXPECTED: mark("unexpected unit or scaler"),
    Quality.SUM_CHECK: mark("intervals and register disagree"),
    Quality.DIFFERS: mark("the meter gave another value too"),
    Quality.AFTER_GAP: mark("interval before is missing"),
    Quality.ROLLED_OVER: mark("register began again"),
}

# Value groups C and D of electricity (A = 1): Blue Book part 1, tables of value groups C and D.
_ELECTRICITY_C: dict[int, str] = {
    1: mark("Active power import (+P)"),
    2: mark("Active power export (-P)"),
    3: mark("Reactive power import (+Q)"),
    4: mark("Reactive power export (-Q)"),
    5: mark("Reactive power QI"),
    6: mark("Reactive power QII"),
    7: mark("Reactive power QIII"),
    8: mark("Reactive power QIV"),
    9: mark("Apparent power import (+S)"),
    10: mark("Apparent power export (-S)"),
    11: mark("Current"),
    12: mark("Voltage"),
    13: mark("Power factor"),
    14: mark("Frequency"),
    15: mark("Active power |+P|+|-P|"),
    16: mark("Active power |+P|-|-P|"),
    91: mark("Current, neutral"),
}
# The same over time.
_ENERGY_C: dict[int, str] = {
    1: mark("Active energy import (+P)"),
    2: mark("Active energy export (-P)"),
    3: mark("Reactive energy import (+Q)"),
    4: mark("Reactive energy export (-Q)"),
    5: mark("Reactive energy QI"),
    6: mark("Reactive energy QII"),
    7: mark("Reactive energy QIII"),
    8: mark("Reactive energy QIV"),
    9: mark("Apparent energy import (+S)"),
    10: mark("Apparent energy export (-S)"),
    15: mark("Active energy |+P|+|-P|"),
    16: mark("Active energy |+P|-|-P|"),
}
_PHASE_STEP = 20
_PHASES = (1, 2, 3)
_ELECTRICITY_D: dict[int, str] = {
    2: mark("cumulative maximum"),
    3: mark("minimum"),
    4: mark("average"),
    5: mark("last average"),
    6: mark("maximum"),
    7: mark("instantaneous"),
}
# Sums over time: what was energy is then said of the quantity.
_ENERGY_D: dict[int, str] = {
    8: mark("total"),
    9: mark("in the billing period"),
    29: mark("in the interval"),
}
# D of what counts up for ever: time integral 1.
TIME_INTEGRAL_1 = 8
_ELECTRICITY, _HEAT_COST, _COOLING, _HEAT, _GAS, _COLD_WATER, _HOT_WATER = 1, 4, 5, 6, 7, 8, 9
_THERMAL_C: dict[int, str] = {
    1: mark("Energy"),
    2: mark("Volume"),
    3: mark("Mass"),
    8: mark("Power"),
    9: mark("Volume flow"),
    10: mark("Flow temperature"),
    11: mark("Return temperature"),
    12: mark("Temperature difference"),
    13: mark("Pressure"),
}
_WATER_C: dict[int, str] = {1: mark("Volume"), 2: mark("Volume flow"), 3: mark("Temperature")}
_OTHER_MEDIA: dict[int, dict[int, str]] = {
    _HEAT_COST: {1: mark("Heat cost units")},
    _COOLING: _THERMAL_C,
    _HEAT: _THERMAL_C,
    _GAS: {3: mark("Volume"), 43: mark("Volume flow")},
    _COLD_WATER: _WATER_C,
    _HOT_WATER: _WATER_C,
}
_ABSTRACT: dict[tuple[int, int], str] = {
    (96, 8): mark("Operating time"),
    (96, 6): mark("Battery"),
    (97, 97): mark("Error flags"),
    (1, 0): mark("Clock"),
}
_PRESENT_VALUE = 255


def obis_words(text: str, translate: Translate = english) -> str:
    """What an OBIS code measures, in words; "" when this table does not say."""
    try:
        code = Obis.parse(text)
    except ObisError:
        return ""
    words = _electricity(code, translate) if code.a == _ELECTRICITY else translate(_other(code))
    if not words:
        return ""
    if code.a and code.e:
        words += ", " + translate("tariff %(number)s", number=code.e)
    if code.f != _PRESENT_VALUE:
        words += ", " + translate("stored value %(number)s", number=code.f)
    return words


def _electricity(code: Obis, translate: Translate) -> str:
    number, phase = code.c, ""
    if number not in _ELECTRICITY_C:
        for one in _PHASES:
            if code.c - _PHASE_STEP * one in _ELECTRICITY_C:
                number, phase = code.c - _PHASE_STEP * one, f" L{one}"
                break
        else:
            return ""
    if summed := _ENERGY_D.get(code.d):
        quantity, processing = _ENERGY_C.get(number, _ELECTRICITY_C[number]), summed
    else:
        quantity, processing = _ELECTRICITY_C[number], _ELECTRICITY_D.get(code.d, "")
    return translate(quantity) + phase + (f", {translate(processing)}" if processing else "")


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


def quality_words(quality: int, translate: Translate = english) -> str:
    """The flags of a reading's quality; "valid" when nothing speaks against it."""
    flags = Quality(quality)
    if not flags:
        return translate("valid")
    return ", ".join(translate(words) for flag, words in _QUALITY_WORDS.items() if flag in flags)


def is_doubtful(quality: int) -> bool:
    """Whether something speaks against a value. That its time follows from the row before does not."""
    return bool(Quality(quality) & ~(Quality.INFERRED_TIME | Quality.NOT_VALIDATED))


def event_words(code: str, translate: Translate = english) -> str:
    """What a code of the event log means; the code itself when it is not in the table."""
    return translate(_EVENT_CODES.get(code, code.replace("_", " ")))


# How ages are said; the script of the page has them from the page.
AGE_MESSAGES: dict[str, str] = {
    "future": mark("in the future"),
    "seconds": mark("%(seconds)s s ago"),
    "minutes": mark("%(minutes)s min ago"),
    "hours": mark("%(hours)s h %(minutes)s min ago"),
    "days": mark("%(days)s d %(hours)s h ago"),
}


def age_words(then: datetime, now: datetime, translate: Translate = english) -> str:
    """How long ago, in the coarsest two units that matter. The script of the page says the same."""
    seconds = int((now - then).total_seconds())
    if seconds < -_MINUTE_S:
        return translate(AGE_MESSAGES["future"])
    if seconds < _MINUTE_S:
        return translate(AGE_MESSAGES["seconds"], seconds=max(0, seconds))
    if seconds < _HOUR_S:
        return translate(AGE_MESSAGES["minutes"], minutes=seconds // _MINUTE_S)
    if seconds < _DAY_S:
        minutes = seconds % _HOUR_S // _MINUTE_S
        return translate(AGE_MESSAGES["hours"], hours=seconds // _HOUR_S, minutes=minutes)
    return translate(AGE_MESSAGES["days"], days=seconds // _DAY_S, hours=seconds % _DAY_S // _HOUR_S)


# What the script of the page says by itself.
STREAM_MESSAGES: dict[str, str] = {
    "live": mark("Live"),
    "stale": mark("Not live, values of %(time)s"),
    "first": mark("the first load"),
}
# States that the service tells, as the page words them.
STATE_MESSAGES: tuple[str, ...] = (
    mark("running"),
    mark("starting"),
    mark("closed"),
    mark("port missing"),
    mark("port lost"),
    mark("connected"),
    mark("not connected"),
    mark("not configured"),
    mark("unknown"),
    mark("waiting"),
    mark("done"),
    mark("failed"),
    mark("configuration"),
    mark("order"),
    mark("all"),
)
_MONTHS = (
    mark("Jan"),
    mark("Feb"),
    mark("Mar"),
    mark("Apr"),
    mark("May"),
    mark("Jun"),
    mark("Jul"),
    mark("Aug"),
    mark("Sep"),
    mark("Oct"),
    mark("Nov"),
    mark("Dec"),
)
_DAYS = (mark("Mon"), mark("Tue"), mark("Wed"), mark("Thu"), mark("Fri"), mark("Sat"), mark("Sun"))


def day_words(day: date, translate: Translate = english) -> str:
    """A day without its year, short: 22 Nov."""
    return translate("%(day)s %(month)s", day=day.day, month=translate(_MONTHS[day.month - 1]))


def weekday_words(day: date, translate: Translate = english) -> str:
    """The day of the week, short."""
    return translate(_DAYS[day.weekday()])


def moment_words(moment: datetime | None, translate: Translate = english) -> str:
    """A moment in the box's zone, to the second, in the order that the language writes."""
    if moment is None:
        return ""
    local = moment.astimezone()
    date_text = translate(
        "%(year)s-%(month)s-%(day)s", year=f"{local:%Y}", month=f"{local:%m}", day=f"{local:%d}"
    )
    return f"{date_text} {local:%H:%M:%S}"


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
