"""OBIS codes: the names of everything a meter measures (IEC 62056-6-1, DLMS UA Blue Book part 1).

A code is six value groups A to F. A is the medium (0 abstract, 1 electricity, 4 heat cost allocator,
5 cooling, 6 heat, 7 gas, 8 cold water, 9 hot water), B the channel, C the quantity, D the processing,
E mostly the tariff, F the storage (255 = the present value).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from concentrator import obis_words
from concentrator.errors import LocalError

_REDUCED = re.compile(
    r"^(?:(?P<a>\d{1,3})-(?P<b>\d{1,3}):)?(?P<c>\d{1,3})\.(?P<d>\d{1,3})(?:\.(?P<e>\d{1,3}))?(?:[*&](?P<f>\d{1,3}))?",
    re.ASCII,
)
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){5}", re.ASCII)
_PATTERN = re.compile(
    r"^(\d{1,3}|\*)-(\d{1,3}|\*)(?::(\d{1,3}|\*)(?:\.(\d{1,3}|\*)(?:\.(\d{1,3}|\*)(?:[*&](\d{1,3}|\*))?)?)?)?",
    re.ASCII,
)
_DOTTED_PATTERN = re.compile(r"(?:\d{1,3}|\*)(?:\.(?:\d{1,3}|\*)){0,5}", re.ASCII)


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
        if _DOTTED.fullmatch(text):
            groups = tuple(int(part) for part in text.split("."))
        elif match := _REDUCED.fullmatch(text):
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
        """Whether this code fits a pattern: groups with `*` for any, `1.*.1.8.*.255`, `1-*:1.8.*` or `1-0:1.8.**255`.

        Groups left out at the end count as `*`.

        Raises:
            ObisError: the pattern has neither form.
        """
        if _DOTTED_PATTERN.fullmatch(pattern):
            parts: list[str | None] = [*pattern.split(".")]
        elif match := _PATTERN.fullmatch(pattern):
            parts = list(match.groups())
        else:
            raise ObisError(
                f"not a pattern of OBIS codes: {pattern!r}; write it as 1-*:1.8.* or 1.*.1.8.*.255"
            )
        return all(
            part is None or part == "*" or int(part) == group
            for part, group in zip(parts, self, strict=False)
        )

    def describe(self) -> str:
        """What the code names, in words: `electricity, active energy + L1, total, tariff 1`."""
        return obis_words.describe(self)

    def usual_unit(self) -> int | None:
        """The Blue Book's unit code that this quantity mostly has; the meter's own scaler_unit decides.

        None where the code does not tell.
        """
        return obis_words.usual_unit(self)

    @property
    def dotted(self) -> str:
        """The form of the Blue Book's tables: `1.0.1.8.0.255`."""
        return ".".join(map(str, self))

    def __str__(self) -> str:
        return f"{self.a}-{self.b}:{self.c}.{self.d}.{self.e}*{self.f}"
