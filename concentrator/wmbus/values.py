"""The data types of EN 13757-3 (annex A): integers, BCD, floats, variable length, points in time.

Values are exact. A number is an integer and a power of ten; a 32-bit float becomes the shortest decimal
number that is the same float. Octet patterns that the standard or the field uses for "no value" give
`valid=False`, never a number. Types K (summer time), L (listening window) and M (a time or a duration of variable
length) are given as octets: their layout is in the standard only, which was not at hand.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.vif import Kind

# Codings of the low nibble of a DIF: octets of the value, or None where the value itself tells.
FIXED_LENGTHS = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, None, 6, None)
CODING_REAL = 5
CODING_SELECTION = 8
CODING_VARIABLE = 0xD
BCD_CODINGS = (0x9, 0xA, 0xB, 0xC, 0xE)

_LVAR_TEXT_LAST = 0xBF
_LVAR_POSITIVE_BCD = range(0xC0, 0xCA)
_LVAR_NEGATIVE_BCD = range(0xD0, 0xDA)
_LVAR_BINARY = range(0xE0, 0xF0)
# EN 13757-3:2018: F0..F4 count in steps of four octets, F5 and F6 are long blocks.
_LVAR_LONG_BINARY = {0xF0: 16, 0xF1: 20, 0xF2: 24, 0xF3: 28, 0xF4: 32, 0xF5: 48, 0xF6: 64}

_LAST_YEAR_OF_2000 = 80  # a two-digit year above it belongs to the last century
_EVERY_YEAR = 127
_NO_ASCII = 0x80
_TYPE_J_OCTETS, _TYPE_F_OCTETS, _TYPE_G_OCTETS, _TYPE_I_OCTETS = 3, 4, 2, 6


@dataclass(frozen=True, slots=True)
class MeterTime:
    """A point in time by the meter's own clock, without zone.

    Only as many fields are set as the meter sent: a date has no hour, a time of day (type J) no day, a day
    that returns every year no year.
    """

    year: int | None = None
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None
    summer_time: bool = False
    clock_invalid: bool = False

    def to_datetime(self) -> datetime | None:
        """The naive local time, a date as its first moment; None where there is no such time."""
        if self.year is None or self.month is None or self.day is None:
            return None
        try:
            return datetime(  # noqa: DTZ001 - the meter told no zone
                self.year, self.month, self.day, self.hour or 0, self.minute or 0, self.second or 0
            )
        except ValueError:
            return None

    @property
    def is_date(self) -> bool:
        """Whether it is a day without a time."""
        return self.hour is None

    def __str__(self) -> str:
        parts: list[str] = []
        if self.day is not None:
            year = "" if self.year is None else f"{self.year:04}"
            parts.append(f"{year}-{self.month:02}-{self.day:02}")
        if self.hour is not None:
            seconds = "" if self.second is None else f":{self.second:02}"
            parts.append(f"{self.hour:02}:{self.minute:02}{seconds}")
        return " ".join(parts)


Value = int | str | bytes | MeterTime | None


class DecodedValue(NamedTuple):
    """A value, the power of ten that its own coding adds, and whether the meter meant it."""

    value: Value
    exponent: int = 0
    valid: bool = True


# Below it every integer is a 32-bit float of its own.
_EXACT_INTEGERS = 1 << 24
_REAL = struct.Struct("<f")
_INVALID = DecodedValue(None, 0, valid=False)
_NOTHING = DecodedValue(None)


def value_length(coding: int, data: bytes, offset: int) -> int:
    """Octets that the value at `offset` occupies, its LVAR octet included.

    Raises:
        TelegramError: a reserved LVAR, or the data end before it.
    """
    fixed = FIXED_LENGTHS[coding]
    if fixed is not None:
        return fixed
    if offset >= len(data):
        raise TelegramError(f"the data end before the length of a value at octet {offset}")
    lvar = data[offset]
    if lvar <= _LVAR_TEXT_LAST:
        return 1 + lvar
    if lvar in _LVAR_POSITIVE_BCD or lvar in _LVAR_NEGATIVE_BCD:
        return 1 + (lvar & 0x0F)
    if lvar in _LVAR_BINARY:
        return 1 + lvar - _LVAR_BINARY.start
    if lvar in _LVAR_LONG_BINARY:
        return 1 + _LVAR_LONG_BINARY[lvar]
    raise TelegramError(f"reserved length code {lvar:02X} of a value at octet {offset}")


def decode_value(coding: int, raw: bytes, kind: Kind) -> DecodedValue:
    """Read the octets of one value; `raw` has the length that `value_length` told."""
    if coding == CODING_VARIABLE:
        return _decode_variable(raw, kind)
    if not raw:
        return _NOTHING
    if kind is Kind.OCTETS and coding not in BCD_CODINGS:
        return DecodedValue(raw)
    if kind is Kind.DATE_TIME and coding not in BCD_CODINGS and coding != CODING_REAL:
        return decode_time(raw)
    if coding in BCD_CODINGS:
        return _decode_bcd(raw, kind)
    if coding == CODING_REAL:
        return _decode_real(raw)
    return _decode_integer(raw, kind)


@lru_cache(maxsize=4096)
def decode_time(raw: bytes) -> DecodedValue:
    """Types G (2 octets), J (3), F (4) and I (6): which one, the length tells."""
    if len(raw) == _TYPE_G_OCTETS:
        return _checked(_date_fields(raw))
    if len(raw) == _TYPE_J_OCTETS:
        if set(raw) == {0xFF}:
            return _INVALID
        return _checked({"second": raw[0] & 0x3F, "minute": raw[1] & 0x3F, "hour": raw[2] & 0x1F})
    if len(raw) == _TYPE_F_OCTETS:
        fields = _date_fields(raw[2:4])
        century = raw[1] >> 5 & 0x03
        if century and fields["year"] is not None:
            fields["year"] = 1900 + 100 * century + fields["year"] % 100
        fields |= {"minute": raw[0] & 0x3F, "hour": raw[1] & 0x1F}
        return _checked(fields, clock_invalid=bool(raw[0] & 0x80), summer_time=bool(raw[1] & 0x80))
    if len(raw) == _TYPE_I_OCTETS:
        fields = _date_fields(raw[3:5])
        fields |= {"second": raw[0] & 0x3F, "minute": raw[1] & 0x3F, "hour": raw[2] & 0x1F}
        return _checked(fields, clock_invalid=bool(raw[1] & 0x80), summer_time=bool(raw[0] & 0x40))
    return DecodedValue(raw)


def _date_fields(raw: bytes) -> dict[str, int | None]:
    sent = raw[0] >> 5 | (raw[1] & 0xF0) >> 1
    year = None if sent == _EVERY_YEAR else sent + (1900 if sent > _LAST_YEAR_OF_2000 else 2000)
    return {"year": year, "month": raw[1] & 0x0F, "day": raw[0] & 0x1F}


def _checked(
    fields: dict[str, int | None], *, clock_invalid: bool = False, summer_time: bool = False
) -> DecodedValue:
    moment = MeterTime(**fields, summer_time=summer_time, clock_invalid=clock_invalid)
    try:
        datetime(  # noqa: DTZ001 - only to see whether there is such a time; 2000 has a 29th of February
            _or(moment.year, 2000),
            _or(moment.month, 1),
            _or(moment.day, 1),
            moment.hour or 0,
            moment.minute or 0,
            moment.second or 0,
        )
    except ValueError:
        return _INVALID
    return DecodedValue(moment, valid=not clock_invalid)


def _or(sent: int | None, default: int) -> int:
    return default if sent is None else sent


def _decode_integer(raw: bytes, kind: Kind) -> DecodedValue:
    if kind is Kind.IDENTIFIER:
        return DecodedValue(raw[::-1].hex().upper())
    if kind is Kind.UNSIGNED:
        return DecodedValue(int.from_bytes(raw, "little"))
    number = int.from_bytes(raw, "little", signed=True)
    if number == -(1 << (8 * len(raw) - 1)):
        return _INVALID
    return DecodedValue(number)


def _decode_bcd(raw: bytes, kind: Kind, *, negative: bool | None = None) -> DecodedValue:
    digits = raw[::-1].hex().upper()
    if kind is Kind.IDENTIFIER:
        return DecodedValue(digits)
    if negative is None and digits[:1] == "F":
        negative, digits = True, digits[1:]
    if not digits.isdecimal():
        return _INVALID
    return DecodedValue(-int(digits) if negative else int(digits))


def _decode_real(raw: bytes) -> DecodedValue:
    """The shortest decimal number that is the same 32-bit float."""
    (number,) = _REAL.unpack(raw)
    if number - number != 0:  # infinite, or none at all
        return _INVALID
    if number.is_integer() and -_EXACT_INTEGERS < number < _EXACT_INTEGERS:
        return DecodedValue(int(number))
    text = ""
    for precision in (5, 6, 7, 8):  # nine digits always tell 32-bit floats apart
        text = f"{number:.{precision}e}"
        try:
            if precision == 8 or _REAL.pack(float(text)) == raw:  # noqa: PLR2004 - the last one
                break
        except OverflowError:
            continue  # rounded up beyond the largest 32-bit float
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    magnitude = int(whole + fraction)
    return DecodedValue(magnitude, int(exponent) - len(fraction))


def _decode_variable(raw: bytes, kind: Kind) -> DecodedValue:
    lvar, content = raw[0], raw[1:]
    if lvar <= _LVAR_TEXT_LAST:
        text = content[::-1].decode("latin-1")
        if content and all(octet >= _NO_ASCII for octet in content):
            return DecodedValue(content[::-1].hex().upper())  # some fill a text with octets that are none
        return DecodedValue(content if kind is Kind.OCTETS or not text.isprintable() else text)
    if lvar in _LVAR_POSITIVE_BCD or lvar in _LVAR_NEGATIVE_BCD:
        return _decode_bcd(content, kind, negative=lvar in _LVAR_NEGATIVE_BCD) if content else _NOTHING
    if kind is Kind.NUMBER or kind is Kind.UNSIGNED:
        return DecodedValue(int.from_bytes(content, "little")) if content else _NOTHING
    # A time of variable length is of type M, whatever its length: 6 octets of it are no type I.
    return DecodedValue(content)
