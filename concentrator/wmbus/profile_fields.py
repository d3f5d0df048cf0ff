"""Values at fixed places of octets that are no records: the layouts of meter profiles.

A field has a place (from the end where negative), a coding and a meaning. A place outside of the octets
gives no value: meters leave out what they do not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from concentrator.wmbus.record import Function, Record, RecordHeader
from concentrator.wmbus.values import DecodedValue, MeterTime, Value, decode_time, decode_value
from concentrator.wmbus.vif import Kind

_CODING_BCD = 0x9
_NOTHING = DecodedValue(None, valid=False)
# Decimal digits kept below a field's own where its number is not a decimal one (thirds of a litre).
_DIVIDED_DIGITS = 3
_DATE_OCTETS = 2


@dataclass(frozen=True, slots=True)
class Field:
    """One value, or `count` values that follow each other `stride` octets apart."""

    name: str
    quantity: str
    unit: str
    exponent: int
    at: int
    octets: int
    coding: str
    storage: int
    function: Function
    qualifiers: tuple[str, ...]
    divisor: int
    plus: str
    after: str
    none: int | None
    count: int
    stride: int
    storage_step: int
    nibble_at: int
    nibble_shift: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one kind of octets: `where` they stand, with which CI-field, first octets and length."""

    where: str
    cis: frozenset[int]
    starts: bytes
    least_octets: int
    fields: tuple[Field, ...]

    def fits(self, ci: int | None, octets: bytes) -> bool:
        """Whether these octets have this layout."""
        if self.cis and ci not in self.cis:
            return False
        return len(octets) >= max(1, self.least_octets) and octets.startswith(self.starts)

    def read(self, octets: bytes) -> tuple[Record, ...]:
        """The values as records, in the order of the fields."""
        found: dict[str, DecodedValue] = {}
        records: list[Record] = []
        for field in self.fields:
            for position in range(field.count):
                raw, decoded = _decode(field, position, octets, found)
                if raw is None:
                    continue
                if position == 0:
                    found[field.name] = decoded
                records.append(_record(field, position, raw, decoded))
        return tuple(records)


def layout_from_table(table: dict[str, Any]) -> Layout:
    """A layout out of its TOML table."""
    return Layout(
        where=table["where"],
        cis=frozenset(table.get("cis", ())),
        starts=bytes.fromhex(table.get("starts", "")),
        least_octets=table.get("least_octets", 0),
        fields=tuple(_field_from_table(one) for one in table["fields"]),
    )


def _field_from_table(table: dict[str, Any]) -> Field:
    octets = table.get("octets", _DATE_OCTETS)
    return Field(
        name=table["name"],
        quantity=table["quantity"],
        unit=table.get("unit", ""),
        exponent=table.get("exponent", 0),
        at=table["at"],
        octets=octets,
        coding=table.get("coding", "unsigned"),
        storage=table.get("storage", 0),
        function=Function(table.get("function", "instantaneous")),
        qualifiers=tuple(table.get("qualifiers", ())),
        divisor=table.get("divisor", 1),
        plus=table.get("plus", ""),
        after=table.get("after", ""),
        none=table.get("none"),
        count=table.get("count", 1),
        stride=table.get("stride", octets),
        storage_step=table.get("storage_step", 1),
        nibble_at=table.get("nibble_at", 0),
        nibble_shift=4 if table.get("nibble") == "high" else 0,
    )


def _slice(octets: bytes, at: int, length: int) -> bytes | None:
    start = at if at >= 0 else len(octets) + at
    if start < 0 or start + length > len(octets):
        return None
    return octets[start : start + length]


def _decode(
    field: Field, position: int, octets: bytes, found: dict[str, DecodedValue]
) -> tuple[bytes | None, DecodedValue]:
    shift = position * field.stride
    raw = _slice(octets, field.at + shift, field.octets)
    if raw is None:
        return None, _NOTHING
    if field.coding == "twelve_bits":
        nibble = _slice(octets, field.nibble_at + shift, 1)
        if nibble is None:
            return None, _NOTHING
        high = nibble[0] >> field.nibble_shift & 0x0F
        return raw, DecodedValue(high << 8 | raw[0])
    decoded = _decode_octets(field, raw, found)
    if not isinstance(decoded.value, int):
        return raw, decoded
    if field.none is not None and decoded.value == field.none:
        return raw, _NOTHING
    other = found.get(field.plus)
    number = decoded.value + (other.value if other is not None and isinstance(other.value, int) else 0)
    if field.divisor == 1:
        return raw, DecodedValue(number)
    return raw, DecodedValue(round(Fraction(number * 10**_DIVIDED_DIGITS, field.divisor)), -_DIVIDED_DIGITS)


def _decode_octets(field: Field, raw: bytes, found: dict[str, DecodedValue]) -> DecodedValue:
    if field.coding == "unsigned":
        return DecodedValue(int.from_bytes(raw, "little"))
    if field.coding == "signed":
        return DecodedValue(int.from_bytes(raw, "little", signed=True))
    if field.coding == "bcd":
        return decode_value(_CODING_BCD, raw, Kind.NUMBER)
    if field.coding == "bcd_date":
        text = raw.hex()
        return _date(2000 + int(text[4:6]), int(text[2:4]), int(text[0:2])) if text.isdecimal() else _NOTHING
    if field.coding == "techem_date":
        number = int.from_bytes(raw, "little")
        return _date(2000 + (number >> 9), number >> 5 & 0x0F, number & 0x1F)
    if field.coding == "techem_day":
        return _techem_day(raw, found.get(field.after))
    return decode_time(raw)


def _techem_day(raw: bytes, after: DecodedValue | None) -> DecodedValue:
    """Day and month without a year: the first such day after another date of the telegram."""
    number = int.from_bytes(raw, "little")
    day, month = number >> 4 & 0x1F, number >> 9 & 0x0F
    earlier: Value = None if after is None else after.value
    if not isinstance(earlier, MeterTime) or earlier.year is None:
        return _NOTHING
    later = (month, day) > (earlier.month or 0, earlier.day or 0)
    return _date(earlier.year + (0 if later else 1), month, day)


def _date(year: int, month: int, day: int) -> DecodedValue:
    moment = MeterTime(year, month, day)
    return _NOTHING if moment.to_datetime() is None else DecodedValue(moment)


def _record(field: Field, position: int, raw: bytes, decoded: DecodedValue) -> Record:
    number = isinstance(decoded.value, int)
    scaler = field.exponent + (decoded.exponent if number else 0)
    header = RecordHeader(
        octets=b"",
        coding=0,
        function=field.function,
        storage=field.storage + position * field.storage_step,
        tariff=0,
        subunit=0,
        quantity=field.quantity,
        unit=field.unit,
        exponent=scaler,
        kind=Kind.NUMBER,
        qualifiers=field.qualifiers,
    )
    return Record(header, decoded.value, scaler if number or not decoded.valid else 0, decoded.valid, raw)
