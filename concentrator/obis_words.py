"""OBIS codes in words, with the units that go with them (DLMS UA Blue Book part 1, EN 13757-1).

A table for each medium: value group C names the quantity, D how it was processed. What a table does not have is
named by its number, so that every code has words.
"""

from __future__ import annotations

from typing import TypeAlias

Groups: TypeAlias = "tuple[int, int, int, int, int, int]"

_ABSTRACT, _ELECTRICITY, _HEAT_COST, _COOLING, _HEAT, _GAS, _COLD_WATER, _HOT_WATER = 0, 1, 4, 5, 6, 7, 8, 9
_MEDIA = {
    0: "abstract", 1: "electricity", 4: "heat cost allocator", 5: "cooling", 6: "heat", 7: "gas",
    8: "cold water", 9: "hot water", 15: "other medium", 16: "oil", 17: "compressed air", 18: "nitrogen",
}  # fmt: skip
_PRESENT = 255
# Of instantaneous values, value group E is the harmonic, or the total distortion.
_INSTANTANEOUS, _LAST_HARMONIC, _DISTORTION = 7, 120, 124
_LAST_TARIFF = 63

# Units by their codes in the Blue Book's table.
_W, _VA, _VAR, _WH, _VAH, _VARH, _A, _V, _HZ = 27, 28, 29, 30, 31, 32, 33, 35, 44
_M3, _CORRECTED_M3, _M3_PER_HOUR, _CELSIUS, _KELVIN, _BAR, _DEGREE, _COUNT, _KG = (
    13, 14, 15, 9, 52, 24, 8, 255, 20,
)  # fmt: skip
_A2H, _V2H, _PERCENT = 49, 48, 56

# Electricity

_QUANTITIES = {
    1: "active power +", 2: "active power -", 3: "reactive power +", 4: "reactive power -",
    5: "reactive power QI", 6: "reactive power QII", 7: "reactive power QIII", 8: "reactive power QIV",
    9: "apparent power +", 10: "apparent power -", 11: "current", 12: "voltage", 13: "power factor",
    14: "frequency", 15: "active power, sum of absolutes", 16: "active power, net", 17: "active power QI",
    18: "active power QII", 19: "active power QIII", 20: "active power QIV",
}  # fmt: skip
# 21 to 40, 41 to 60 and 61 to 80 are the same for the phases.
_PHASES = {0: "", 1: " L1", 2: " L2", 3: " L3"}
_MORE_QUANTITIES = {
    0: "general purpose", 81: "angle", 82: "unitless quantity", 83: "losses of transformer and line",
    84: "power factor -",
    85: "power factor - L1", 86: "power factor - L2", 87: "power factor - L3", 88: "ampere-squared hours",
    89: "volt-squared hours", 90: "sum of currents", 91: "current of neutral", 92: "voltage of neutral",
    93: "consortium's", 94: "country's", 95: "number of events",
}  # fmt: skip
_PROCESSING = {
    0: "average of the billing period", 1: "cumulative minimum 1", 2: "cumulative maximum 1", 3: "minimum 1",
    4: "current average 1", 5: "last average 1", 6: "maximum 1", 7: "instantaneous value",
    8: "time integral 1",
    9: "time integral 2", 10: "time integral 3", 11: "cumulative minimum 2", 12: "cumulative maximum 2",
    13: "minimum 2", 14: "current average 2", 15: "last average 2", 16: "maximum 2",
    21: "cumulative minimum 3",
    22: "cumulative maximum 3", 23: "minimum 3", 24: "current average 3", 25: "last average 3",
    26: "maximum 3",
    27: "current average 5", 28: "current average 6", 29: "time integral 5", 30: "time integral 6",
    31: "under limit, threshold", 32: "under limit, occurrences", 33: "under limit, duration",
    34: "under limit, magnitude", 35: "over limit, threshold", 36: "over limit, occurrences",
    37: "over limit, duration", 38: "over limit, magnitude", 39: "missing, threshold",
    40: "missing, occurrences", 41: "missing, duration", 42: "missing, magnitude",
    43: "under limit, time threshold", 44: "over limit, time threshold", 45: "missing, time threshold",
    46: "contracted value", 55: "test average", 58: "time integral 4",
}  # fmt: skip
_INTEGRALS = frozenset((8, 9, 10, 17, 18, 19, 20, 29, 30, 58))
# What an integral covers, where its number does not say it to a reader.
_INTEGRAL_OF = {
    8: "total", 9: "of the billing period", 10: "above the limit", 29: "of the interval",
    30: "of the second interval", 58: "of the test",
}  # fmt: skip
_ENERGY = {
    "active power": "active energy",
    "reactive power": "reactive energy",
    "apparent power": "apparent energy",
}
_POWER_UNITS = {"active power": (_W, _WH), "reactive power": (_VAR, _VARH), "apparent power": (_VA, _VAH)}
_OTHER_UNITS = {
    "current": _A, "sum of currents": _A, "voltage": _V, "frequency": _HZ, "power factor": _COUNT, "angle": _DEGREE,
    "ampere-squared": _A2H, "volt-squared": _V2H,
}  # fmt: skip
# Value group E of C 81, as tens and ones: the angle between two of these.
_ANGLES = ("U(L1)", "U(L2)", "U(L3)", "", "I(L1)", "I(L2)", "I(L3)", "I(N)")

# Gas

_GAS_QUANTITIES = {
    0: "general purpose", 1: "forward undisturbed meter volume", 2: "forward disturbed meter volume",
    3: "forward absolute meter volume", 4: "reverse undisturbed meter volume",
    5: "reverse disturbed meter volume",
    6: "reverse absolute meter volume", 7: "forward absolute meter volume (encoder)",
    8: "reverse absolute meter volume (encoder)", 11: "forward undisturbed converter volume",
    12: "forward disturbed converter volume", 13: "forward absolute converter volume",
    14: "reverse undisturbed converter volume", 15: "reverse disturbed converter volume",
    16: "reverse absolute converter volume", 21: "forward undisturbed logger volume",
    22: "forward disturbed logger volume", 23: "forward absolute logger volume",
    31: "forward undisturbed energy", 32: "forward disturbed energy", 33: "forward absolute energy",
    34: "reverse undisturbed energy", 35: "reverse disturbed energy", 36: "reverse absolute energy",
    41: "absolute temperature", 42: "absolute pressure", 43: "flow rate", 44: "velocity of gas",
    45: "density",
    46: "relative density", 47: "gauge pressure", 48: "differential pressure", 49: "density of air",
    51: "correction factor", 52: "conversion factor", 53: "compressibility factor",
    54: "superior calorific value",
    55: "gas law deviation coefficient", 61: "forward undisturbed mass", 62: "forward disturbed mass",
    63: "forward absolute mass", 65: "mass flow", 70: "natural gas analysis",
}  # fmt: skip
_GAS_PROCESSING = {
    0: "at metering conditions", 1: "corrected", 2: "at base conditions",
    3: "redundant, at metering conditions",
}  # fmt: skip
_GAS_UNITS = {41: _KELVIN, 42: _BAR, 43: _M3_PER_HOUR, 47: _BAR, 48: _BAR}

# Water, heat, cooling, heat cost allocators

_WATER_QUANTITIES = {0: "general purpose", 1: "volume", 2: "flow rate", 3: "forward temperature"}
_HEAT_QUANTITIES = {
    0: "general purpose", 1: "energy", 2: "volume", 3: "mass", 4: "volume of the flow",
    5: "volume of the return",
    6: "energy, cooling", 7: "energy, heating", 8: "power", 9: "flow rate", 10: "flow temperature",
    11: "return temperature", 12: "temperature difference", 13: "pressure of the medium",
}  # fmt: skip
_HEAT_COST_QUANTITIES = {
    0: "general purpose", 1: "unrated integral", 2: "rated integral", 3: "radiator surface temperature",
    4: "heating medium temperature", 5: "flow temperature", 6: "return temperature", 7: "room temperature",
}  # fmt: skip
_MBUS_PROCESSING = {
    0: "current value", 1: "periodical value", 2: "set date value", 3: "billing date value", 4: "minimum",
    5: "maximum",
    6: "test value",
}  # fmt: skip
_QUANTITIES_OF = {
    _HEAT_COST: _HEAT_COST_QUANTITIES, _COOLING: _HEAT_QUANTITIES, _HEAT: _HEAT_QUANTITIES, _GAS: _GAS_QUANTITIES,
    _COLD_WATER: _WATER_QUANTITIES, _HOT_WATER: _WATER_QUANTITIES,
}  # fmt: skip
_HEAT_UNITS = {
    1: _WH, 2: _M3, 3: _KG, 4: _M3, 5: _M3, 6: _WH, 7: _WH, 8: _W, 9: _M3_PER_HOUR, 10: _CELSIUS, 11: _CELSIUS,
    12: _KELVIN, 13: _BAR,
}  # fmt: skip
_WATER_UNITS = {1: _M3, 2: _M3_PER_HOUR, 3: _CELSIUS}
_HEAT_COST_UNITS = {1: _COUNT, 2: _COUNT, 3: _CELSIUS, 4: _CELSIUS, 5: _CELSIUS, 6: _CELSIUS, 7: _CELSIUS}

# Abstract objects: by C and D, and by C alone; and those that have their D counted. Some serve all media.

_OBJECTS = {
    (0, 1): "billing period counter", (0, 2): "program entries", (0, 9): "time entries", (1, 0): "clock",
    (1, 1): "UNIX clock", (1, 2): "clock of high resolution", (1, 4): "billing period counter",
    (2, 0): "modem configuration",
    (2, 1): "auto connect", (2, 2): "auto answer", (10, 0): "script table", (11, 0): "special days table",
    (12, 0): "schedule", (13, 0): "activity calendar", (14, 0): "register activation",
    (15, 0): "single action schedule", (16, 0): "register monitor", (16, 1): "alarm monitor",
    (16, 2): "parameter monitor", (17, 0): "limiter", (18, 0): "array manager", (19, 0): "payment, account",
    (19, 10): "payment, credit", (19, 20): "payment, charge", (19, 40): "payment, token gateway",
    (19, 50): "payment, token code", (20, 0): "optical port setup", (20, 1): "electrical port setup",
    (21, 0): "standard readout", (22, 0): "HDLC setup", (23, 0): "twisted pair setup",
    (24, 0): "M-Bus slave port setup",
    (24, 1): "M-Bus client", (24, 2): "M-Bus value", (24, 3): "M-Bus profile", (24, 4): "M-Bus valve control",
    (24, 5): "M-Bus event log", (24, 6): "M-Bus master port setup", (24, 8): "DLMS server M-Bus port setup",
    (24, 9): "M-Bus diagnostic", (25, 0): "TCP-UDP setup", (25, 1): "IPv4 setup",
    (25, 2): "MAC address setup",
    (25, 3): "PPP setup", (25, 4): "GPRS modem setup", (25, 5): "SMTP setup", (25, 6): "GSM diagnostic",
    (25, 7): "IPv6 setup", (25, 8): "FTP setup", (25, 9): "push setup", (25, 10): "NTP setup",
    (25, 11): "LTE monitoring",
    (26, 0): "S-FSK physical and MAC setup", (26, 1): "S-FSK active initiator",
    (26, 2): "S-FSK MAC synchronization timeouts", (26, 3): "S-FSK MAC counters",
    (26, 5): "IEC 61334-4-32 LLC setup",
    (26, 6): "S-FSK reporting system list", (27, 0): "IEC 8802-2 LLC type 1 setup",
    (27, 1): "IEC 8802-2 LLC type 2 setup", (27, 2): "IEC 8802-2 LLC type 3 setup",
    (28, 0): "PRIME 61334-4-32 LLC SSCS setup", (28, 1): "PRIME physical layer counters",
    (28, 2): "PRIME MAC setup",
    (28, 3): "PRIME MAC functional parameters", (28, 4): "PRIME MAC counters",
    (28, 5): "PRIME network administration",
    (28, 6): "PRIME MAC address", (28, 7): "PRIME identification", (29, 0): "G3 MAC layer counters",
    (29, 1): "G3 MAC setup", (29, 2): "G3 6LoWPAN adaptation layer setup", (30, 0): "ZigBee SAS startup",
    (30, 1): "ZigBee SAS join", (30, 2): "ZigBee SAS APS fragmentation", (30, 3): "ZigBee network control",
    (30, 4): "ZigBee tunnel setup", (31, 0): "wireless mode Q channel", (33, 0): "HS-PLC setup",
    (40, 0): "association", (41, 0): "SAP assignment", (42, 0): "logical device name",
    (43, 0): "security setup",
    (43, 1): "invocation counter", (43, 2): "data protection", (44, 0): "image transfer",
    (44, 1): "function control", (44, 2): "communication port protection", (65, 0): "utility tables",
    (66, 0): "compact data", (67, 0): "sensor manager", (94, 0): "country's",
    (96, 1): "device identification",
    (96, 2): "parameter changes", (96, 3): "control of inputs and outputs", (96, 4): "control signals",
    (96, 5): "internal operating status", (96, 6): "battery", (96, 7): "power failures",
    (96, 8): "operating time",
    (96, 9): "environment", (96, 10): "status register", (96, 11): "event code",
    (96, 12): "communication port",
    (96, 13): "message to the customer", (96, 14): "active tariff", (96, 15): "event counter",
    (96, 16): "signature of a profile entry", (96, 17): "meter tamper", (96, 20): "meter tamper",
    (96, 50): "manufacturer's",
    (97, 97): "error register", (97, 98): "alarm register", (98, 1): "billing profile",
    (98, 2): "billing profile",
    (99, 1): "load profile", (99, 2): "load profile", (99, 3): "profile under test",
    (99, 10): "power quality profile",
    (99, 11): "power quality profile", (99, 12): "power quality profile", (99, 13): "harmonics profile",
    (99, 14): "measurement profile",
    (99, 97): "power failure log", (99, 98): "event log", (99, 99): "certification log",
}  # fmt: skip
_NAMED = {
    (43, 1, 0): "invocation counter", (65, 0, 0): "utility tables",
    (96, 1, 0): "device identification 1, serial number", (96, 2, 0): "number of parameter changes",
    (96, 2, 1): "last parameter change", (96, 3, 10): "disconnect control", (96, 6, 0): "battery use time",
    (96, 6, 3): "battery voltage", (96, 6, 6): "battery remaining use time",
    (96, 7, 0): "power failures in all phases", (96, 7, 1): "power failures in L1",
    (96, 7, 2): "power failures in L2",
    (96, 7, 3): "power failures in L3", (96, 7, 5): "long power failures in all phases",
    (96, 7, 9): "long power failures in any phase", (96, 7, 19): "duration of the last long power failure",
    (96, 7, 21): "power failures in any phase", (96, 8, 0): "operating time", (96, 12, 5): "signal strength",
    (25, 9, 0): "push setup", (97, 98, 10): "alarm filter", (97, 98, 20): "alarm descriptor",
    (10, 0, 0): "global meter reset", (10, 0, 1): "end of billing period script",
    (10, 0, 100): "tariffication script table",
    (10, 0, 106): "disconnect script table", (10, 0, 107): "image activation script table",
    (10, 0, 108): "push script table", (10, 0, 109): "load profile control script table",
    (15, 0, 0): "end of billing period schedule", (15, 0, 1): "disconnect control schedule",
    (15, 0, 2): "image activation schedule", (15, 0, 4): "push schedule",
}  # fmt: skip
# Value groups C whose objects mean the same in every medium.
_IN_EVERY_MEDIUM = (0, 94, 96, 97, 98, 99)
_IDENTIFICATION = "identification"


def describe(groups: Groups) -> str:
    """What a code names, in words: `electricity, active energy + L1, total, tariff 1`."""
    a, b, c, d, e, f = groups
    medium = _MEDIA.get(a, f"medium {a}")
    channel = f", channel {b}" if b else ""
    named = _object(c, d, e)
    if a == _ABSTRACT or (c in _IN_EVERY_MEDIUM and named is not None):
        words = named or f"{c}.{d}.{e}"
    elif a == _ELECTRICITY:
        words = _electricity(c, d, e)
    elif a == _GAS:
        words = f"{_gas_quantity(c)}, {_GAS_PROCESSING.get(d, f'processing {d}')}{_tariff(e)}"
    else:
        quantity = _QUANTITIES_OF.get(a, {}).get(c, f"quantity {c}")
        words = f"{quantity}, {_MBUS_PROCESSING.get(d, f'processing {d}')}{_tariff(e)}"
    storage = "" if f == _PRESENT or a == _ABSTRACT else f", billing period {f}"
    return f"{medium}{channel}, {words}{storage}"


def usual_unit(groups: Groups) -> int | None:
    """The Blue Book's unit code that a quantity mostly has; None where the code does not tell."""
    a, _, c, d, e, _ = groups
    if a == _ELECTRICITY:
        quantity = _quantity(c)
        if d == _INSTANTANEOUS and e == _DISTORTION:
            return _PERCENT
        for name, (power, energy) in _POWER_UNITS.items():
            if quantity.startswith(name):
                return energy if d in _INTEGRALS else power
        return next((unit for name, unit in _OTHER_UNITS.items() if quantity.startswith(name)), None)
    if a == _GAS:
        if "volume" in _gas_quantity(c):
            return _CORRECTED_M3 if d in (1, 2) else _M3
        return _WH if "energy" in _gas_quantity(c) else _GAS_UNITS.get(c)
    if a in (_HEAT, _COOLING):
        return _HEAT_UNITS.get(c)
    if a in (_COLD_WATER, _HOT_WATER):
        return _WATER_UNITS.get(c)
    return _HEAT_COST_UNITS.get(c) if a == _HEAT_COST else None


def _object(c: int, d: int, e: int) -> str | None:
    named = _NAMED.get((c, d, e)) or _OBJECTS.get((c, d))
    if named is None and c == 0:
        # 0.0.0 to 0.0.9 of every medium are the utility's identifications; others are its general purpose.
        return f"{_IDENTIFICATION} {e + 1}" if d == 0 and e < 10 else None  # noqa: PLR2004
    return named


def _quantity(c: int) -> str:
    """The quantity of an electricity code, with its phase."""
    if 1 <= c <= 80:  # noqa: PLR2004 - three times the twenty of the sum
        return _QUANTITIES[(c - 1) % 20 + 1] + _PHASES[(c - 1) // 20]
    return _MORE_QUANTITIES.get(c, f"quantity {c}")


def _gas_quantity(c: int) -> str:
    return _GAS_QUANTITIES.get(c, f"quantity {c}")


def _electricity(c: int, d: int, e: int) -> str:
    quantity = _quantity(c)
    if d in _INTEGRALS and d in _INTEGRAL_OF:
        for power, energy in _ENERGY.items():
            if quantity.startswith(power):
                return f"{quantity.replace(power, energy, 1)}, {_INTEGRAL_OF[d]}{_tariff(e)}"
    if quantity == "angle":
        return f"angle{_angle(e)}, {_processing(d)}"
    harmonic = f", harmonic {e}" if d == _INSTANTANEOUS and 0 < e <= _LAST_HARMONIC else ""
    if d == _INSTANTANEOUS and e == _DISTORTION:
        harmonic = ", total harmonic distortion"
    return f"{quantity}, {_processing(d)}{harmonic or _tariff(e)}"


def _processing(d: int) -> str:
    return _PROCESSING.get(d, f"processing {d}")


def _tariff(e: int) -> str:
    return f", tariff {e}" if 0 < e <= _LAST_TARIFF else ""


def _angle(e: int) -> str:
    to, of = divmod(e, 10)
    if to < len(_ANGLES) and of < len(_ANGLES) and _ANGLES[to] and _ANGLES[of]:
        return f" of {_ANGLES[of]} to {_ANGLES[to]}"
    return ""
