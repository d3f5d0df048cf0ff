"""What a data record measures: the VIF, VIFE and combinable VIFE tables of EN 13757-3 as rows.

A row covers `count` codes from `first` on. Its exponent belongs to the first code and rises by one a
code; where the unit is a tuple, the codes step through the units instead. Units are base units (Wh,
m3, W, ...), so that a value is always an integer times a power of ten of one of a few units.

Not decoded: VIF EF (third extension table; its value is given as octets), the second level of VIF FD (FD FD), the
units of non-metric values (VIFE 3D: such a value has no unit and the exponent 0), and the content of compact profiles,
which is named and given as octets.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from concentrator.wmbus.errors import TelegramError

MAX_VIFES = 10
_EXTENSION = 0x80
_PLAIN_TEXT = 0x7C
_ANY = 0x7E
_MANUFACTURER = 0x7F
_TABLE_FB = 0xFB
_TABLE_FD = 0xFD
_TABLE_EF = 0xEF
_COMBINABLE_EXTENSION = 0xFC
_LONGEST_EARLY_TEXT = 0x1F

# Heat meters count the time in error: theirs is a value, of which a VIFE of errors says what it counts.
_COUNTED_TIMES = ("on_time", "operating_time")

_TIME = ("s", "min", "h", "d")
_LONG_TIME = ("h", "d", "month", "a")


class Kind(enum.Enum):
    """How the octets of a value are to be read beyond their coding."""

    NUMBER = "number"  # signed; the most negative integer says "no value"
    UNSIGNED = "unsigned"  # bits and codes: no octet pattern is special
    IDENTIFIER = "identifier"  # BCD digits are kept as text with their leading zeros
    DATE_TIME = "date_time"  # type F, G, I or J, by length
    OCTETS = "octets"  # structured or vendor content, not opened here


class Vif(NamedTuple):
    """One code of a table."""

    quantity: str
    unit: str
    exponent: int
    kind: Kind


_Row = tuple[int, int, str, str | tuple[str, ...], int, Kind]

_N, _U, _I, _D, _O = Kind.NUMBER, Kind.UNSIGNED, Kind.IDENTIFIER, Kind.DATE_TIME, Kind.OCTETS

# first, count, quantity, unit(s), exponent of the first, kind
_PRIMARY_ROWS: tuple[_Row, ...] = (
    (0x00, 8, "energy", "Wh", -3, _N),
    (0x08, 8, "energy", "J", 0, _N),
    (0x10, 8, "volume", "m3", -6, _N),
    (0x18, 8, "mass", "kg", -3, _N),
    (0x20, 4, "on_time", _TIME, 0, _N),
    (0x24, 4, "operating_time", _TIME, 0, _N),
    (0x28, 8, "power", "W", -3, _N),
    (0x30, 8, "power", "J/h", 0, _N),
    (0x38, 8, "volume_flow", "m3/h", -6, _N),
    (0x40, 8, "volume_flow", "m3/min", -7, _N),
    (0x48, 8, "volume_flow", "m3/s", -9, _N),
    (0x50, 8, "mass_flow", "kg/h", -3, _N),
    (0x58, 4, "flow_temperature", "C", -3, _N),
    (0x5C, 4, "return_temperature", "C", -3, _N),
    (0x60, 4, "temperature_difference", "K", -3, _N),
    (0x64, 4, "external_temperature", "C", -3, _N),
    (0x68, 4, "pressure", "bar", -3, _N),
    (0x6C, 1, "date", "date", 0, _D),
    (0x6D, 1, "date_time", "date", 0, _D),
    (0x6E, 1, "heat_cost_allocation", "hca", 0, _N),
    (0x70, 4, "averaging_duration", _TIME, 0, _N),
    (0x74, 4, "actuality_duration", _TIME, 0, _N),
    (0x78, 1, "fabrication_number", "", 0, _I),
    (0x79, 1, "enhanced_identification", "", 0, _I),
    (0x7A, 1, "bus_address", "", 0, _U),
    (0x7E, 1, "any", "", 0, _N),
)

# Main extension table, after VIF FD.
_FD_ROWS: tuple[_Row, ...] = (
    (0x00, 4, "credit", "currency", -3, _N),
    (0x04, 4, "debit", "currency", -3, _N),
    (0x08, 1, "access_number", "", 0, _U),
    (0x09, 1, "device_type", "", 0, _U),
    (0x0A, 1, "manufacturer", "", 0, _U),
    (0x0B, 1, "parameter_set", "", 0, _I),
    (0x0C, 1, "model_version", "", 0, _I),
    (0x0D, 1, "hardware_version", "", 0, _I),
    (0x0E, 1, "firmware_version", "", 0, _I),
    (0x0F, 1, "software_version", "", 0, _I),
    (0x10, 1, "customer_location", "", 0, _I),
    (0x11, 1, "customer", "", 0, _I),
    (0x12, 1, "access_code_user", "", 0, _O),
    (0x13, 1, "access_code_operator", "", 0, _O),
    (0x14, 1, "access_code_system_operator", "", 0, _O),
    (0x15, 1, "access_code_developer", "", 0, _O),
    (0x16, 1, "password", "", 0, _O),
    (0x17, 1, "error_flags", "", 0, _U),
    (0x18, 1, "error_mask", "", 0, _U),
    (0x19, 1, "security_key", "", 0, _O),
    (0x1A, 1, "digital_output", "", 0, _U),
    (0x1B, 1, "digital_input", "", 0, _U),
    (0x1C, 1, "baud_rate", "baud", 0, _N),
    (0x1D, 1, "response_delay", "bit_time", 0, _N),
    (0x1E, 1, "retry", "", 0, _U),
    (0x1F, 1, "remote_control", "", 0, _U),
    (0x20, 1, "first_cyclic_storage", "", 0, _U),
    (0x21, 1, "last_cyclic_storage", "", 0, _U),
    (0x22, 1, "storage_block_size", "", 0, _U),
    (0x23, 1, "tariff_and_subunit_descriptor", "", 0, _U),
    (0x24, 4, "storage_interval", _TIME, 0, _N),
    (0x28, 2, "storage_interval", ("month", "a"), 0, _N),
    (0x2A, 1, "operator_data", "", 0, _O),
    (0x2B, 1, "second_of_time_point", "s", 0, _N),
    (0x2C, 4, "duration_since_last_readout", _TIME, 0, _N),
    (0x30, 1, "tariff_start", "date", 0, _D),
    (0x31, 3, "tariff_duration", _TIME[1:], 0, _N),
    (0x34, 4, "tariff_period", _TIME, 0, _N),
    (0x38, 2, "tariff_period", ("month", "a"), 0, _N),
    (0x3A, 1, "dimensionless", "", 0, _N),
    (0x3B, 1, "wireless_container", "", 0, _O),
    (0x3C, 4, "transmission_period", _TIME, 0, _N),
    (0x40, 16, "voltage", "V", -9, _N),
    (0x50, 16, "current", "A", -12, _N),
    (0x60, 1, "reset_counter", "", 0, _U),
    (0x61, 1, "cumulation_counter", "", 0, _U),
    (0x62, 1, "control_signal", "", 0, _U),
    (0x63, 1, "day_of_week", "", 0, _U),
    (0x64, 1, "week_number", "", 0, _U),
    (0x65, 1, "time_of_day_change", "", 0, _U),
    (0x66, 1, "parameter_activation_state", "", 0, _U),
    (0x67, 1, "special_supplier_information", "", 0, _U),
    (0x68, 4, "duration_since_last_cumulation", _LONG_TIME, 0, _N),
    (0x6C, 4, "battery_operating_time", _LONG_TIME, 0, _N),
    (0x70, 1, "battery_change", "date", 0, _D),
    (0x71, 1, "rf_level", "dBm", 0, _N),
    (0x72, 1, "daylight_saving", "", 0, _O),
    (0x73, 1, "listening_window", "", 0, _O),
    (0x74, 1, "remaining_battery_life", "d", 0, _N),
    (0x75, 1, "stop_counter", "", 0, _U),
    (0x76, 1, "manufacturer_container", "", 0, _O),
    (0x77, 1, "selected_application", "", 0, _U),
)

# First extension table, after VIF FB.
_FB_ROWS: tuple[_Row, ...] = (
    (0x00, 2, "energy", "Wh", 5, _N),
    (0x02, 2, "reactive_energy", "varh", 3, _N),
    (0x04, 2, "apparent_energy", "VAh", 3, _N),
    (0x08, 2, "energy", "J", 8, _N),
    (0x0C, 4, "energy", "cal", 5, _N),
    (0x10, 2, "volume", "m3", 2, _N),
    (0x14, 4, "reactive_power", "var", 0, _N),
    (0x18, 2, "mass", "kg", 5, _N),
    (0x1A, 2, "relative_humidity", "%", -1, _N),
    (0x20, 1, "volume", "ft3", 0, _N),
    (0x21, 1, "volume", "ft3", -1, _N),
    (0x22, 1, "volume", "gal", -1, _N),
    (0x23, 1, "volume", "gal", 0, _N),
    (0x24, 1, "volume_flow", "gal/min", -3, _N),
    (0x25, 1, "volume_flow", "gal/min", 0, _N),
    (0x26, 1, "volume_flow", "gal/h", 0, _N),
    (0x28, 2, "power", "W", 5, _N),
    (0x2A, 1, "phase_angle_voltage", "deg", -1, _N),
    (0x2B, 1, "phase_angle_current", "deg", -1, _N),
    (0x2C, 4, "frequency", "Hz", -3, _N),
    (0x30, 2, "power", "J/h", 8, _N),
    (0x34, 4, "apparent_power", "VA", 0, _N),
    (0x58, 4, "flow_temperature", "F", -3, _N),
    (0x5C, 4, "return_temperature", "F", -3, _N),
    (0x60, 4, "temperature_difference", "F", -3, _N),
    (0x64, 4, "external_temperature", "F", -3, _N),
    (0x70, 4, "temperature_limit", "F", -3, _N),
    (0x74, 4, "temperature_limit", "C", -3, _N),
    (0x78, 8, "cumulated_maximum_power", "W", -3, _N),
)


def _expand(rows: tuple[_Row, ...]) -> dict[int, Vif]:
    table: dict[int, Vif] = {}
    for first, count, quantity, unit, exponent, kind in rows:
        for step in range(count):
            if isinstance(unit, tuple):
                table[first + step] = Vif(quantity, unit[step], 0, kind)
            else:
                table[first + step] = Vif(quantity, unit, exponent + step, kind)
    return table


PRIMARY = _expand(_PRIMARY_ROWS)
MAIN_EXTENSION = _expand(_FD_ROWS)
FIRST_EXTENSION = _expand(_FB_ROWS)


class _Effect(enum.Enum):
    NAME = enum.auto()  # says something about the value, changes nothing
    SCALE = enum.auto()  # argument: exponent of the first code
    PER = enum.auto()  # argument: what follows the unit
    COUNT = enum.auto()  # the value counts events
    DATE = enum.auto()  # the value is a point in time
    DURATION = enum.auto()  # the value is a time: four codes step through s, min, h, d
    UNSIGNED = enum.auto()
    OCTETS = enum.auto()
    NO_VALUE = enum.auto()  # the meter had no value: what it sent in its place is none
    NON_METRIC = enum.auto()  # in another unit than the VIF's, and by another power of ten


# Combinable (orthogonal) VIFEs: first, count, name, effect, argument
_COMBINABLE_ROWS: tuple[tuple[int, int, str, _Effect, int | str], ...] = (
    (0x00, 1, "error_none", _Effect.NAME, 0),
    (0x01, 1, "error_too_many_difes", _Effect.NAME, 0),
    (0x02, 1, "error_storage_number", _Effect.NAME, 0),
    (0x03, 1, "error_unit_number", _Effect.NAME, 0),
    (0x04, 1, "error_tariff_number", _Effect.NAME, 0),
    (0x05, 1, "error_function", _Effect.NAME, 0),
    (0x06, 1, "error_data_class", _Effect.NAME, 0),
    (0x07, 1, "error_data_size", _Effect.NAME, 0),
    (0x0B, 1, "error_too_many_vifes", _Effect.NAME, 0),
    (0x0C, 1, "error_illegal_vif_group", _Effect.NAME, 0),
    (0x0D, 1, "error_illegal_vif_exponent", _Effect.NAME, 0),
    (0x0E, 1, "error_vif_dif_mismatch", _Effect.NAME, 0),
    (0x0F, 1, "error_unimplemented_action", _Effect.NAME, 0),
    (0x12, 1, "average", _Effect.NAME, 0),
    (0x13, 1, "inverse_compact_profile", _Effect.OCTETS, 0),
    (0x14, 1, "relative_deviation", _Effect.NAME, 0),
    (0x15, 1, "error_no_data", _Effect.NO_VALUE, 0),
    (0x16, 1, "error_overflow", _Effect.NO_VALUE, 0),
    (0x17, 1, "error_underflow", _Effect.NO_VALUE, 0),
    (0x18, 1, "error_data", _Effect.NO_VALUE, 0),
    (0x1C, 1, "error_premature_end", _Effect.NAME, 0),
    (0x1D, 1, "standard_conform_content", _Effect.NAME, 0),
    (0x1E, 1, "compact_profile_with_registers", _Effect.OCTETS, 0),
    (0x1F, 1, "compact_profile", _Effect.OCTETS, 0),
    (0x20, 1, "per_second", _Effect.PER, "/s"),
    (0x21, 1, "per_minute", _Effect.PER, "/min"),
    (0x22, 1, "per_hour", _Effect.PER, "/h"),
    (0x23, 1, "per_day", _Effect.PER, "/d"),
    (0x24, 1, "per_week", _Effect.PER, "/week"),
    (0x25, 1, "per_month", _Effect.PER, "/month"),
    (0x26, 1, "per_year", _Effect.PER, "/a"),
    (0x27, 1, "per_revolution", _Effect.PER, "/revolution"),
    (0x28, 2, "per_input_pulse", _Effect.PER, "/pulse"),
    (0x2A, 2, "per_output_pulse", _Effect.PER, "/pulse"),
    (0x2C, 1, "per_litre", _Effect.PER, "/l"),
    (0x2D, 1, "per_cubic_metre", _Effect.PER, "/m3"),
    (0x2E, 1, "per_kilogram", _Effect.PER, "/kg"),
    (0x2F, 1, "per_kelvin", _Effect.PER, "/K"),
    (0x30, 1, "per_kilowatt_hour", _Effect.PER, "/kWh"),
    (0x31, 1, "per_gigajoule", _Effect.PER, "/GJ"),
    (0x32, 1, "per_kilowatt", _Effect.PER, "/kW"),
    (0x33, 1, "per_kelvin_litre", _Effect.PER, "/(K l)"),
    (0x34, 1, "per_volt", _Effect.PER, "/V"),
    (0x35, 1, "per_ampere", _Effect.PER, "/A"),
    (0x36, 1, "times_second", _Effect.PER, " s"),
    (0x37, 1, "times_second_per_volt", _Effect.PER, " s/V"),
    (0x38, 1, "times_second_per_ampere", _Effect.PER, " s/A"),
    (0x39, 1, "start_date_of", _Effect.DATE, 0),
    (0x3A, 1, "uncorrected", _Effect.NAME, 0),
    (0x3B, 1, "accumulation_if_positive", _Effect.NAME, 0),
    (0x3C, 1, "accumulation_if_negative", _Effect.NAME, 0),
    (0x3D, 1, "non_metric", _Effect.NON_METRIC, 0),
    (0x3E, 1, "base_conditions", _Effect.NAME, 0),
    (0x3F, 1, "obis_declaration", _Effect.OCTETS, 0),
    (0x40, 1, "lower_limit", _Effect.NAME, 0),
    (0x48, 1, "upper_limit", _Effect.NAME, 0),
    (0x41, 1, "lower_limit_exceeds", _Effect.COUNT, 0),
    (0x49, 1, "upper_limit_exceeds", _Effect.COUNT, 0),
    (0x42, 1, "begin_of_first_lower_limit_exceed", _Effect.DATE, 0),
    (0x43, 1, "end_of_first_lower_limit_exceed", _Effect.DATE, 0),
    (0x46, 1, "begin_of_last_lower_limit_exceed", _Effect.DATE, 0),
    (0x47, 1, "end_of_last_lower_limit_exceed", _Effect.DATE, 0),
    (0x4A, 1, "begin_of_first_upper_limit_exceed", _Effect.DATE, 0),
    (0x4B, 1, "end_of_first_upper_limit_exceed", _Effect.DATE, 0),
    (0x4E, 1, "begin_of_last_upper_limit_exceed", _Effect.DATE, 0),
    (0x4F, 1, "end_of_last_upper_limit_exceed", _Effect.DATE, 0),
    (0x50, 4, "duration_of_first_lower_limit_exceed", _Effect.DURATION, 0),
    (0x54, 4, "duration_of_last_lower_limit_exceed", _Effect.DURATION, 0),
    (0x58, 4, "duration_of_first_upper_limit_exceed", _Effect.DURATION, 0),
    (0x5C, 4, "duration_of_last_upper_limit_exceed", _Effect.DURATION, 0),
    (0x60, 4, "duration_of_first", _Effect.DURATION, 0),
    (0x64, 4, "duration_of_last", _Effect.DURATION, 0),
    (0x68, 1, "during_lower_limit_exceed", _Effect.NAME, 0),
    (0x6C, 1, "during_upper_limit_exceed", _Effect.NAME, 0),
    (0x69, 1, "leakage", _Effect.NAME, 0),
    (0x6D, 1, "overflow", _Effect.NAME, 0),
    (0x6A, 1, "begin_of_first", _Effect.DATE, 0),
    (0x6B, 1, "end_of_first", _Effect.DATE, 0),
    (0x6E, 1, "begin_of_last", _Effect.DATE, 0),
    (0x6F, 1, "end_of_last", _Effect.DATE, 0),
    (0x70, 8, "", _Effect.SCALE, -6),
    (0x78, 4, "additive_correction", _Effect.SCALE, -3),
    (0x7D, 1, "", _Effect.SCALE, 3),
    (0x7E, 1, "future", _Effect.NAME, 0),
)

# Second table of combinable VIFEs, after VIFE FC.
_COMBINABLE_EXTENSION_ROWS: tuple[tuple[int, int, str, _Effect, int | str], ...] = (
    (0x01, 1, "phase_l1", _Effect.NAME, 0),
    (0x02, 1, "phase_l2", _Effect.NAME, 0),
    (0x03, 1, "phase_l3", _Effect.NAME, 0),
    (0x04, 1, "neutral", _Effect.NAME, 0),
    (0x05, 1, "between_l1_l2", _Effect.NAME, 0),
    (0x06, 1, "between_l2_l3", _Effect.NAME, 0),
    (0x07, 1, "between_l3_l1", _Effect.NAME, 0),
    (0x08, 1, "quadrant_1", _Effect.NAME, 0),
    (0x09, 1, "quadrant_2", _Effect.NAME, 0),
    (0x0A, 1, "quadrant_3", _Effect.NAME, 0),
    (0x0B, 1, "quadrant_4", _Effect.NAME, 0),
    (0x0C, 1, "import_minus_export", _Effect.NAME, 0),
    (0x10, 1, "accumulation_absolute", _Effect.NAME, 0),
    (0x11, 1, "unsigned", _Effect.UNSIGNED, 0),
    (0x12, 1, "boolean", _Effect.UNSIGNED, 0),
    (0x13, 1, "to_meter", _Effect.NAME, 0),
    (0x14, 1, "from_meter", _Effect.NAME, 0),
)


def _by_code(
    rows: tuple[tuple[int, int, str, _Effect, int | str], ...],
) -> dict[int, tuple[str, _Effect, int | str]]:
    table: dict[int, tuple[str, _Effect, int | str]] = {}
    for first, count, name, effect, argument in rows:
        for step in range(count):
            value = argument + step if effect is _Effect.SCALE and isinstance(argument, int) else argument
            table[first + step] = (name, effect, step if effect is _Effect.DURATION else value)
    return table


_COMBINABLE = _by_code(_COMBINABLE_ROWS)
_COMBINABLE_EXTENDED = _by_code(_COMBINABLE_EXTENSION_ROWS)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a value information block says: value = integer * 10**exponent of `unit`, if `has_value`."""

    quantity: str
    unit: str
    exponent: int
    kind: Kind
    qualifiers: tuple[str, ...] = ()
    has_value: bool = True


def read_vib(data: bytes, offset: int) -> int:
    """Find the end of the value information block that starts at `offset`.

    Raises:
        TelegramError: the data end within it, or it has more than ten VIFEs.
    """
    try:
        first = data[offset]
        at = offset + 1
        plain = first & 0x7F == _PLAIN_TEXT
        text_done = False
        if plain and (not first & _EXTENSION or _text_comes_first(data, at)):
            at += 1 + data[at]
            text_done = True
        more = bool(first & _EXTENSION)
        vifes = 0
        while more:
            more = bool(data[at] & _EXTENSION)
            at += 1
            vifes += 1
            if vifes > MAX_VIFES:
                raise TelegramError(f"more than {MAX_VIFES} VIFEs at octet {offset}: {data[offset:at].hex()}")
        if plain and not text_done:
            at += 1 + data[at]
    except IndexError:
        raise TelegramError(f"the data end within a VIF at octet {offset}: {data[offset:].hex()}") from None
    if at > len(data):
        raise TelegramError(f"the data end within a unit's text at octet {offset}: {data[offset:].hex()}")
    return at


def _text_comes_first(data: bytes, at: int) -> bool:
    """Old devices send the unit's text before the VIFEs; a text's length makes no sense as a VIFE there."""
    length = data[at]
    text = data[at + 1 : at + 1 + length]
    return 0 < length <= _LONGEST_EARLY_TEXT and len(text) == length and all(32 <= c < 127 for c in text)  # noqa: PLR2004 - printable ASCII


@lru_cache(maxsize=4096)
def interpret_vib(vib: bytes) -> Meaning:
    """Look a whole value information block (as delimited by `read_vib`) up in the tables."""
    first, vifes = vib[0], vib[1:]
    if first & 0x7F == _PLAIN_TEXT:
        return _interpret_plain_text(first, vifes)
    if first in (_TABLE_FB, _TABLE_FD):
        table, letter = (FIRST_EXTENSION, "FB") if first == _TABLE_FB else (MAIN_EXTENSION, "FD")
        code = vifes[0]
        if first == code == _TABLE_FD:
            name = f"reserved_FD_FD_{vifes[1] & 0x7F:02X}"
            return _qualify(Vif(name, "", 0, Kind.NUMBER), vifes[2:])
        base = table.get(code & 0x7F) or Vif(f"reserved_{letter}_{code & 0x7F:02X}", "", 0, Kind.NUMBER)
        return _qualify(base, vifes[1:])
    if first & 0x7F == _MANUFACTURER or first == _TABLE_EF:
        name, kind = (
            ("manufacturer_specific", Kind.UNSIGNED) if first != _TABLE_EF else ("reserved_EF", Kind.OCTETS)
        )
        return Meaning(name, "", 0, kind, (vifes.hex().upper(),) if vifes else ())
    base = PRIMARY.get(first & 0x7F) or Vif(f"reserved_{first & 0x7F:02X}", "", 0, Kind.NUMBER)
    return _qualify(base, vifes)


def _interpret_plain_text(first: int, rest: bytes) -> Meaning:
    if not first & _EXTENSION:
        text, vifes = rest[1:], b""
    elif _text_comes_first(rest, 0):
        text, vifes = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    else:
        end = next(i for i, octet in enumerate(rest) if not octet & _EXTENSION) + 1
        vifes, text = rest[:end], rest[end + 1 :]
    return _qualify(Vif("plain_text", text[::-1].decode("latin-1"), 0, Kind.NUMBER), vifes)


def _qualify(base: Vif, vifes: bytes) -> Meaning:
    """Apply the combinable VIFEs in order."""
    quantity, unit, exponent, kind = base
    names: list[str] = []
    at, has_value, metric = 0, True, True
    while at < len(vifes):
        code = vifes[at]
        at += 1
        table = _COMBINABLE
        if code == _COMBINABLE_EXTENSION and at < len(vifes):
            table, code = _COMBINABLE_EXTENDED, vifes[at]
            at += 1
        if code & 0x7F == _MANUFACTURER and table is _COMBINABLE:
            names.append("manufacturer_" + vifes[at:].hex().upper())
            break
        row = table.get(code & 0x7F)
        if row is None:
            prefix = "reserved_vife_" if table is _COMBINABLE else "reserved_vife_FC_"
            names.append(f"{prefix}{code & 0x7F:02X}")
            continue
        name, effect, argument = row
        if name:
            names.append(name)
        if effect is _Effect.SCALE:
            exponent += int(argument) if metric else 0
        elif effect is _Effect.PER:
            unit += str(argument) if metric else ""
        elif effect is _Effect.COUNT:
            unit, exponent, kind = "", 0, Kind.UNSIGNED
        elif effect is _Effect.DATE:
            unit, exponent, kind = "date", 0, Kind.DATE_TIME
        elif effect is _Effect.DURATION:
            unit, exponent, kind = _TIME[int(argument)], 0, Kind.NUMBER
        elif effect is _Effect.UNSIGNED:
            kind = Kind.UNSIGNED
        elif effect is _Effect.OCTETS:
            kind = Kind.OCTETS
        elif effect is _Effect.NO_VALUE:
            has_value = has_value and quantity in _COUNTED_TIMES
        elif effect is _Effect.NON_METRIC and kind is Kind.NUMBER:
            unit, exponent, metric = "", 0, False
    return Meaning(quantity, unit, exponent, kind, tuple(names), has_value)
