"""OBIS codes: the names of everything a meter measures (IEC 62056-6-1, DLMS UA Blue Book part 1).

A code is six value groups A to F. A is the medium (0 abstract, 1 electricity, 4 heat cost allocator,
5 cooling, 6 heat, 7 gas, 8 cold water, 9 hot water), B the channel, C the quantity, D the processing,
E mostly the tariff, F the storage (255 = the present value).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from concentrator.errors import LocalError

_REDUCED = re.compile(
    r"^(?:(?P<a>\d{1,3})-(?P<b>\d{1,3}):)?(?P<c>\d{1,3})\.(?P<d>\d{1,3})(?:\.(?P<e>\d{1,3}))?(?:[*&](?P<f>\d{1,3}))?$"
)
_DOTTED = re.compile(r"^\d{1,3}(?:\.\d{1,3}){5}$")


_MEDIA = {
    0: "abstract", 1: "electricity", 4: "heat cost allocator", 5: "cooling", 6: "heat", 7: "gas",
    8: "cold water", 9: "hot water", 15: "other medium", 16: "oil", 17: "compressed air", 18: "nitrogen",
}  # fmt: skip
_ELECTRICITY = {
    1: "active power +", 2: "active power -", 3: "reactive power +", 4: "reactive power -",
    5: "reactive power QI",
    6: "reactive power QII", 7: "reactive power QIII", 8: "reactive power QIV", 9: "apparent power +",
    10: "apparent power -", 11: "current", 12: "voltage", 13: "power factor", 14: "frequency",
    15: "active power, sum of absolutes", 16: "active power, net", 91: "current of neutral", 81: "angle",
}  # fmt: skip
_PHASE_OFFSETS = ((60, "L3"), (40, "L2"), (20, "L1"))
_PROCESSING = {
    2: "cumulative maximum", 3: "minimum", 4: "current average", 5: "last average", 6: "maximum",
    7: "instantaneous value", 8: "time integral", 9: "time integral of the billing period",
    10: "time integral above the limit", 24: "average", 25: "last average of the period",
    27: "minimum of the period",
    29: "time integral of the interval", 31: "threshold", 35: "upper threshold",
}  # fmt: skip
# Unit codes of electricity by quantity: of the instantaneous value, and of the time integral.
_POWER_UNITS = {"active": (27, 30), "reactive": (29, 32), "apparent": (28, 31)}
_ELECTRICITY_UNITS = {"current": 33, "voltage": 35, "frequency": 44, "power factor": 255, "angle": 8}
_VOLUME, _CORRECTED_VOLUME, _ENERGY = 13, 14, 30
_ABSTRACT = {
    (1, 0): "clock", (1, 1): "UNIX clock", (2, 0): "modem configuration", (10, 0): "scripts",
    (11, 0): "special days", (13, 0): "activity calendar", (15, 0): "single action schedule",
    (17, 0): "limiter", (22, 0): "HDLC setup", (24, 1): "M-Bus client", (24, 2): "M-Bus value",
    (24, 3): "M-Bus profile", (25, 0): "TCP-UDP setup", (25, 1): "IPv4 setup", (25, 2): "MAC address",
    (25, 4): "GPRS setup", (25, 6): "GSM diagnostic", (25, 7): "IPv6 setup", (25, 9): "push setup",
    (28, 0): "PRIME 61334-4-32 LLC SSCS setup", (28, 1): "PRIME physical layer counters",
    (28, 2): "PRIME MAC setup", (28, 3): "PRIME MAC functional parameters", (28, 4): "PRIME MAC counters",
    (28, 5): "PRIME network administration", (28, 6): "PRIME identification", (28, 7): "EUI-48",
    (29, 0): "G3 MAC layer counters", (29, 1): "G3 MAC setup", (29, 2): "G3 6LoWPAN adaptation layer setup",
    (40, 0): "association", (41, 0): "SAP assignment", (42, 0): "logical device name",
    (43, 0): "security setup", (43, 1): "invocation counter", (44, 0): "image transfer",
    (65, 0): "utility tables", (94, 0): "country specific", (96, 1): "device identification",
    (96, 2): "parameter changes", (96, 3): "disconnect control", (96, 5): "internal operating status",
    (96, 6): "battery", (96, 7): "power failures", (96, 8): "operating time", (96, 10): "profile status",
    (96, 11): "event code", (96, 13): "message", (96, 14): "active tariff", (96, 15): "event counter",
    (97, 97): "error register", (97, 98): "alarm register", (98, 1): "billing profile",
    (99, 98): "event log", (99, 1): "load profile", (99, 2): "load profile", (99, 97): "power failure log",
}  # fmt: skip


class ObisError(LocalError):
    """A text or octet-string that is no OBIS code."""


class Obis(NamedTuple):
    """One OBIS code; compares and hashes as the tuple of its value groups, each 0 to 255."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int = 255

    @classmethod
    def from_bytes(cls, data: bytes) -> Obis:
        """The code in a COSEM logical_name: exactly six octets.

        Raises:
            ObisError: `data` has another length.
        """
        if len(data) != 6:  # noqa: PLR2004 - the six value groups
            raise ObisError(f"a logical name has 6 octets, got {len(data)}: {data.hex()}")
        return cls(*data)

    @classmethod
    def parse(cls, text: str) -> Obis:
        """Read `1.0.1.8.0.255`, `1-0:1.8.0*255`, `1-0:1.8.0` or `1.8.0` (A-B then taken as 0-0).

        Raises:
            ObisError: the text has none of these forms, or a value group above 255.
        """
        if _DOTTED.match(text):
            groups = tuple(int(part) for part in text.split("."))
        elif match := _REDUCED.match(text):
            defaults = {"a": "0", "b": "0", "e": "255", "f": "255"}
            groups = tuple(int(match[name] or defaults[name]) for name in "abcdef")
        else:
            raise ObisError(f"not an OBIS code: {text!r}; write it as 1-0:1.8.0*255 or 1.0.1.8.0.255")
        if max(groups) > 255:  # noqa: PLR2004 - one octet each
            raise ObisError(f"not an OBIS code: {text!r} has a value group above 255")
        return cls(*groups)

    def to_bytes(self) -> bytes:
        """The six octets of a COSEM logical_name."""
        return bytes(self)

    def matches(self, pattern: str) -> bool:
        """Whether this code fits a pattern: six groups with `*` for any, `1.*.1.8.*.255` or `1-*:1.8.*`.

        Groups left out at the end of the second form count as `*`.

        Raises:
            ObisError: the pattern has neither form.
        """
        parts = re.split(r"[.\-:]", pattern)
        if not 1 <= len(parts) <= len(self) or not all(p == "*" or p.isdecimal() for p in parts):
            raise ObisError(
                f"not a pattern of OBIS codes: {pattern!r}; write it as 1-*:1.8.* or 1.*.1.8.*.255"
            )
        return all(part in ("*", str(group)) for part, group in zip(parts, self, strict=False))

    def describe(self) -> str:
        """What the code names, in words: `electricity, active power + L1, time integral, tariff 1`."""
        medium = _MEDIA.get(self.a, f"medium {self.a}")
        channel = f", channel {self.b}" if self.b else ""
        abstract = _ABSTRACT.get((self.c, self.d)) or _ABSTRACT.get((self.c, 0))
        if self.a == 0 or (self.c in (94, 96, 97, 98, 99) and abstract):
            return f"{medium}{channel}, {abstract or f'{self.c}.{self.d}.{self.e}'}"
        if self.a != 1:
            quantity = "volume or energy" if self.c in (1, 2, 3) else f"quantity {self.c}"
            return f"{medium}{channel}, {quantity}, {_PROCESSING.get(self.d, f'processing {self.d}')}"
        quantity = self._quantity()
        tariff = f", tariff {self.e}" if 0 < self.e < 64 else ""  # noqa: PLR2004 - above: harmonics, phases
        storage = "" if self.f == 255 else f", billing period {self.f}"  # noqa: PLR2004 - the present value
        processing = _PROCESSING.get(self.d, f"processing {self.d}")
        return f"{medium}{channel}, {quantity}, {processing}{tariff}{storage}"

    def _quantity(self) -> str:
        """The quantity of an electricity code, with its phase."""
        if self.c in _ELECTRICITY:
            return _ELECTRICITY[self.c]
        for offset, phase in _PHASE_OFFSETS:
            if self.c > offset and self.c - offset in _ELECTRICITY:
                return f"{_ELECTRICITY[self.c - offset]} {phase}"
        return f"quantity {self.c}"

    def usual_unit(self) -> int | None:
        """The Blue Book's unit code that this quantity mostly has; the meter's own scaler_unit decides.

        None where the code does not tell.
        """
        if self.a == 1:
            words = self._quantity()
            integral = self.d in (8, 9, 10, 29)
            for name, units in _POWER_UNITS.items():
                if words.startswith(f"{name} power"):
                    return units[integral]
            return next((unit for name, unit in _ELECTRICITY_UNITS.items() if words.startswith(name)), None)
        if self.a in (5, 6) and self.c == 1:
            return _ENERGY
        if self.a in (7, 8, 9) and self.c in (1, 2, 3, 11, 12, 13):
            return _CORRECTED_VOLUME if self.a == 7 and self.c in (2, 12) else _VOLUME  # noqa: PLR2004
        return None

    @property
    def dotted(self) -> str:
        """The form of the Blue Book's tables: `1.0.1.8.0.255`."""
        return ".".join(map(str, self))

    def __str__(self) -> str:
        return f"{self.a}-{self.b}:{self.c}.{self.d}.{self.e}*{self.f}"
