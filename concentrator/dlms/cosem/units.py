"""Physical units by the codes of scaler_unit (Blue Book part 2, class Register, table of units)."""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """One unit: its code, its symbol, and the quantity it measures."""

    code: int
    symbol: str
    quantity: str


_ROWS = (
    (1, "a", "time"), (2, "mo", "time"), (3, "wk", "time"), (4, "d", "time"), (5, "h", "time"),
    (6, "min", "time"),
    (7, "s", "time"), (8, "°", "phase angle"), (9, "°C", "temperature"), (10, "currency", "local currency"),
    (11, "m", "length"), (12, "m/s", "speed"), (13, "m³", "volume"), (14, "m³", "corrected volume"),
    (15, "m³/h", "volume flux"), (16, "m³/h", "corrected volume flux"), (17, "m³/d", "volume flux"),
    (18, "m³/d", "corrected volume flux"), (19, "l", "volume"), (20, "kg", "mass"), (21, "N", "force"),
    (22, "Nm", "energy"), (23, "Pa", "pressure"), (24, "bar", "pressure"), (25, "J", "energy"),
    (26, "J/h", "thermal power"), (27, "W", "active power"), (28, "VA", "apparent power"),
    (29, "var", "reactive power"), (30, "Wh", "active energy"), (31, "VAh", "apparent energy"),
    (32, "varh", "reactive energy"), (33, "A", "current"), (34, "C", "electrical charge"),
    (35, "V", "voltage"),
    (36, "V/m", "electric field strength"), (37, "F", "capacitance"), (38, "Ω", "resistance"),
    (39, "Ωm²/m", "resistivity"), (40, "Wb", "magnetic flux"), (41, "T", "magnetic flux density"),
    (42, "A/m", "magnetic field strength"), (43, "H", "inductance"), (44, "Hz", "frequency"),
    (45, "1/Wh", "active energy meter constant"), (46, "1/varh", "reactive energy meter constant"),
    (47, "1/VAh", "apparent energy meter constant"), (48, "V²h", "volt-squared hours"),
    (49, "A²h", "ampere-squared hours"), (50, "kg/s", "mass flux"), (51, "S", "conductance"),
    (52, "K", "temperature"), (53, "1/V²h", "volt-squared hour meter constant"),
    (54, "1/A²h", "ampere-squared hour meter constant"), (55, "1/m³", "volume meter constant"),
    (56, "%", "percentage"),
    (57, "Ah", "ampere-hours"), (60, "Wh/m³", "energy per volume"), (61, "J/m³", "calorific value"),
    (62, "Mol%", "molar fraction"), (63, "g/m³", "mass density"), (64, "Pa s", "dynamic viscosity"),
    (65, "J/kg", "specific energy"), (66, "g/cm²", "pressure"), (67, "atm", "pressure"),
    (70, "dBm", "signal strength"), (71, "dBµV", "signal strength"), (72, "dB", "logarithmic ratio"),
    (128, "in", "length"), (129, "ft", "length"), (130, "lb", "mass"), (131, "°F", "temperature"),
    (132, "°R", "temperature"), (133, "sq in", "area"), (134, "sq ft", "area"), (135, "ac", "area"),
    (136, "cu in", "volume"), (137, "cu ft", "volume"), (138, "ac ft", "volume"), (139, "gal", "volume"),
    (140, "gal (UK)", "volume"), (141, "fl oz", "volume"), (253, "", "reserved"), (254, "", "other unit"),
    (255, "", "no unit, count"),
)  # fmt: skip

UNITS: dict[int, Unit] = {row[0]: Unit(*row) for row in _ROWS}


def symbol(code: int) -> str:
    """The symbol of a unit code; empty for counts, `unit N` for a code of nobody's."""
    unit = UNITS.get(code)
    return f"unit {code}" if unit is None else unit.symbol
