"""Values at fixed places of octets that are no records: the layouts of meter profiles.

A field has a place (from the end where negative), a coding and a meaning. A place outside of the octets
gives no value: meters leave out what they do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from concentrator.wmbus.address import Address
from concentrator.wmbus.diehl import open_prios
from concentrator.wmbus.record import Function, Record, RecordHeader
from concentrator.wmbus.security import MeterKey, decrypt_mode_5
from concentrator.wmbus.values import DecodedValue, MeterTime, decode_time, decode_value
from concentrator.wmbus.vif import Kind

_CODING_BCD, _CODING_REAL = 0x9, 0x5
_NOTHING = DecodedValue(None, valid=False)
# Decimal digits kept below a field's own where its number is not a decimal one (thirds of a litre).
_DIVIDED_DIGITS = 3
_DATE_OCTETS = 2
_EPOCH_2000 = datetime(2000, 1, 1)  # noqa: DTZ001 - the meter's own clock, without zone


@dataclass(frozen=True, slots=True, eq=False)
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
    tariff: int
    function: Function
    qualifiers: tuple[str, ...]
    divisor: int
    plus: str
    minus: str
    after: str
    none: int | None
    count: int
    stride: int
    storage_step: int
    nibble_at: int
    nibble_shift: int
    # Bits from several octets, the lowest first: place, first bit, number of bits.
    parts: tuple[tuple[int, int, int], ...]
    mapped: Mapping[int, int]
    mapped_default: int | None
    hidden: bool
    register: int | None


class Origin(NamedTuple):
    """Whose octets they are: the meter, its address as it was sent (M M A A A A V T), the CI-field."""

    meter: Address
    sent_address: bytes
    ci: int | None = None


@dataclass(frozen=True, slots=True)
class Cipher:
    """Content in AES-CBC with a key that all meters of a model share, and the vector of mode 5."""

    key: MeterKey
    access_number_at: int
    at: int
    octets: int

    def open(self, octets: bytes, origin: Origin) -> bytes | None:
        """The plain content: what stands before and behind the ciphertext is left as it is."""
        end = self.at + self.octets
        if len(octets) < end:
            return None
        plain = decrypt_mode_5(
            self.key, origin.meter, octets[self.access_number_at], octets[self.at : end], b"\x2f"
        )
        return None if plain is None else octets[: self.at] + plain + octets[end:]


@dataclass(frozen=True, slots=True)
class PriosScrambling:
    """Content that the Diehl companies scramble."""

    def open(self, octets: bytes, origin: Origin) -> bytes | None:
        """The plain content behind the four octets before it."""
        plain = open_prios(origin.sent_address, bytes((origin.ci or 0,)) + octets)
        return None if plain is None else octets[:4] + plain


@dataclass(frozen=True, slots=True)
class Registers:
    """Content in tagged pieces: from `start` on an octet that names a register, then as many as it has."""

    start: int
    stop: int
    sizes: Mapping[int, int]

    def find(self, octets: bytes) -> dict[int, int]:
        """Where the content of each register begins; what follows an unknown one is not found."""
        found: dict[int, int] = {}
        at = self.start
        while at < len(octets) and octets[at] != self.stop and octets[at] in self.sizes:
            found[octets[at]] = at + 1
            at += 1 + self.sizes[octets[at]]
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one kind of octets: `where` they stand, with which CI-field, first octets and length."""

    where: str
    cis: frozenset[int]
    starts: bytes
    marks: tuple[tuple[int, bytes], ...]
    least_octets: int
    most_octets: int
    cipher: Cipher | PriosScrambling | None
    registers: Registers | None
    fields: tuple[Field, ...]

    def fits(self, ci: int | None, octets: bytes) -> bool:
        """Whether these octets have this layout."""
        if self.cis and ci not in self.cis:
            return False
        if not max(1, self.least_octets) <= len(octets) <= self.most_octets:
            return False
        return octets.startswith(self.starts) and all(octets.startswith(mark, at) for at, mark in self.marks)

    def read(self, octets: bytes, origin: Origin) -> tuple[Record, ...]:
        """The values as records, in the order of the fields."""
        if self.cipher is not None:
            plain = self.cipher.open(octets, origin)
            if plain is None:
                return ()
            octets = plain
        found: dict[str, DecodedValue] = {}
        records: list[Record] = []
        registers = {} if self.registers is None else self.registers.find(octets)
        for field in self.fields:
            if field.register is not None and field.register not in registers:
                continue
            base = 0 if field.register is None else registers[field.register]
            for position in range(field.count):
                raw, decoded = _decode(field, position, base, octets, found)
                if raw is None:
                    continue
                if position == 0:
                    found[field.name] = decoded
                if not field.hidden:
                    records.append(_record(field, position, raw, decoded))
        return tuple(records)


def layout_from_table(table: dict[str, Any]) -> Layout:
    """A layout out of its TOML table."""
    registers = table.get("registers")
    return Layout(
        where=table["where"],
        cis=frozenset(table.get("cis", ())),
        starts=bytes.fromhex(table.get("starts", "")),
        marks=tuple((at, bytes.fromhex(mark)) for at, mark in table.get("marks", ())),
        least_octets=table.get("least_octets", 0),
        most_octets=table.get("most_octets", 1 << 16),
        cipher=_cipher_from_table(table.get("cipher")),
        registers=None
        if registers is None
        else Registers(
            registers["start"],
            registers["stop"],
            {int(tag, 16): size for tag, size in registers["sizes"].items()},
        ),
        fields=tuple(_field_from_table(one) for one in table["fields"]),
    )


def _cipher_from_table(table: dict[str, Any] | None) -> Cipher | PriosScrambling | None:
    if table is None:
        return None
    if table.get("kind") == "prios":
        return PriosScrambling()
    return Cipher(MeterKey.from_hex(table["key"]), table["access_number_at"], table["at"], table["octets"])


def _field_from_table(table: dict[str, Any]) -> Field:
    octets = table.get("octets", _DATE_OCTETS)
    mapped = {int(sent): value for sent, value in table.get("map", {}).items() if sent != "else"}
    return Field(
        name=table["name"],
        quantity=table.get("quantity", table["name"]),
        unit=table.get("unit", ""),
        exponent=table.get("exponent", 0),
        at=table.get("at", 0),
        octets=octets,
        coding=table.get("coding", "unsigned"),
        storage=table.get("storage", 0),
        tariff=table.get("tariff", 0),
        function=Function(table.get("function", "instantaneous")),
        qualifiers=tuple(table.get("qualifiers", ())),
        divisor=table.get("divisor", 1),
        plus=table.get("plus", ""),
        minus=table.get("minus", ""),
        after=table.get("after", ""),
        none=table.get("none"),
        count=table.get("count", 1),
        stride=table.get("stride", octets),
        storage_step=table.get("storage_step", 1),
        nibble_at=table.get("nibble_at", 0),
        nibble_shift=4 if table.get("nibble") == "high" else 0,
        parts=tuple((part[0], part[1], part[2]) for part in table.get("parts", ())),
        mapped=mapped,
        mapped_default=table.get("map", {}).get("else"),
        hidden=table.get("hidden", False),
        register=table.get("register"),
    )


def _slice(octets: bytes, at: int, length: int) -> bytes | None:
    start = at if at >= 0 else len(octets) + at
    if start < 0 or start + length > len(octets):
        return None
    return octets[start : start + length]


def _decode(
    field: Field, position: int, base: int, octets: bytes, found: dict[str, DecodedValue]
) -> tuple[bytes | None, DecodedValue]:
    shift = base + position * field.stride
    if field.parts:
        return _decode_parts(field, octets, found)
    raw = _slice(octets, field.at + shift, field.octets)
    if raw is None:
        return None, _NOTHING
    if field.coding == "twelve_bits":
        nibble = _slice(octets, field.nibble_at + shift, 1)
        if nibble is None:
            return None, _NOTHING
        high = nibble[0] >> field.nibble_shift & 0x0F
        return raw, DecodedValue(high << 8 | raw[0])
    return raw, _computed(field, _CODINGS[field.coding](field, raw, found), found)


def _decode_parts(
    field: Field, octets: bytes, found: dict[str, DecodedValue]
) -> tuple[bytes | None, DecodedValue]:
    number = taken = 0
    raw = b""
    for at, first_bit, bits in field.parts:
        octet = _slice(octets, at, 1)
        if octet is None:
            return None, _NOTHING
        raw += octet
        number |= (octet[0] >> first_bit & (1 << bits) - 1) << taken
        taken += bits
    return raw, _computed(field, DecodedValue(number), found)


def _computed(field: Field, decoded: DecodedValue, found: dict[str, DecodedValue]) -> DecodedValue:
    """What the field makes of the number that was sent."""
    number = decoded.value
    if not isinstance(number, int):
        return decoded
    if field.none is not None and number == field.none:
        return _NOTHING
    if field.mapped:
        number = field.mapped.get(number, field.mapped_default)
        if number is None:
            return _NOTHING
    if decoded.exponent:
        return decoded
    number += _number(found.get(field.plus)) - _number(found.get(field.minus))
    if field.divisor == 1:
        return DecodedValue(number)
    return DecodedValue(round(Fraction(number * 10**_DIVIDED_DIGITS, field.divisor)), -_DIVIDED_DIGITS)


def _number(decoded: DecodedValue | None) -> int:
    return decoded.value if decoded is not None and isinstance(decoded.value, int) else 0


def _unsigned(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return DecodedValue(int.from_bytes(raw, "little"))


def _unsigned_high_first(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return DecodedValue(int.from_bytes(raw, "big"))


def _signed(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return DecodedValue(int.from_bytes(raw, "little", signed=True))


def _bcd(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return decode_value(_CODING_BCD, raw, Kind.NUMBER)


def _real(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return decode_value(_CODING_REAL, raw, Kind.NUMBER)


def _sum_of_octets(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return DecodedValue(sum(raw))


def _bcd_date(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    """Day, month, year."""
    return _bcd_moment(raw[::-1].hex())


def _bcd_year_first(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    """Year, month, day; then hour, minute, where they are sent."""
    return _bcd_moment(raw.hex())


def _bcd_minute_first(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    """Minute, hour, day, month, year."""
    return _bcd_moment(raw[::-1].hex())


def _bcd_moment(text: str) -> DecodedValue:
    if not text.isdecimal():
        return _NOTHING
    year, month, day, *rest = (int(text[i : i + 2]) for i in range(0, len(text), 2))
    hour, minute = rest if len(rest) == 2 else (None, None)  # noqa: PLR2004 - hour and minute
    return _moment(MeterTime(2000 + year, month, day, hour, minute))


def _techem_date(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    number = int.from_bytes(raw, "little")
    return _moment(MeterTime(2000 + (number >> 9), number >> 5 & 0x0F, number & 0x1F))


def _apator_date(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    """A date with five bits for its year."""
    number = int.from_bytes(raw, "little")
    return _moment(MeterTime(2000 + (number >> 9 & 0x1F), number >> 5 & 0x0F, number & 0x1F))


def _techem_day(field: Field, raw: bytes, found: dict[str, DecodedValue]) -> DecodedValue:
    """Day and month without a year: the first such day after another date of the telegram."""
    number = int.from_bytes(raw, "little")
    day, month = number >> 4 & 0x1F, number >> 9 & 0x0F
    earlier = found.get(field.after, _NOTHING).value
    if not isinstance(earlier, MeterTime) or earlier.year is None:
        return _NOTHING
    later = (month, day) > (earlier.month or 0, earlier.day or 0)
    return _moment(MeterTime(earlier.year + (0 if later else 1), month, day))


def _seconds_since_2000(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return _from_datetime(_EPOCH_2000 + timedelta(seconds=int.from_bytes(raw, "little")), with_second=True)


def _hours_before(field: Field, _raw: bytes, found: dict[str, DecodedValue]) -> DecodedValue:
    """So many hours (`minus`) before another moment of the telegram (`after`)."""
    later = found.get(field.after, _NOTHING).value
    moment = later.to_datetime() if isinstance(later, MeterTime) else None
    if moment is None:
        return _NOTHING
    try:
        return _from_datetime(moment - timedelta(hours=_number(found.get(field.minus))), with_second=True)
    except OverflowError:
        return _NOTHING


def _time(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    return decode_time(raw)


def _text(_field: Field, raw: bytes, _found: dict[str, DecodedValue]) -> DecodedValue:
    text = raw.decode("latin-1").strip("\0 ")
    return DecodedValue(text if text.isprintable() else raw.hex().upper())


_Coding = Callable[[Field, bytes, dict[str, DecodedValue]], DecodedValue]
_CODINGS: dict[str, _Coding] = {
    "unsigned": _unsigned,
    "unsigned_high_first": _unsigned_high_first,
    "signed": _signed,
    "bcd": _bcd,
    "real": _real,
    "sum_of_octets": _sum_of_octets,
    "bcd_date": _bcd_date,
    "bcd_year_first": _bcd_year_first,
    "bcd_minute_first": _bcd_minute_first,
    "techem_date": _techem_date,
    "techem_day": _techem_day,
    "apator_date": _apator_date,
    "seconds_since_2000": _seconds_since_2000,
    "hours_before": _hours_before,
    "time": _time,
    "text": _text,
}


def _from_datetime(moment: datetime, *, with_second: bool) -> DecodedValue:
    second = moment.second if with_second else None
    return DecodedValue(MeterTime(moment.year, moment.month, moment.day, moment.hour, moment.minute, second))


def _moment(moment: MeterTime) -> DecodedValue:
    return _NOTHING if moment.to_datetime() is None else DecodedValue(moment)


def _record(field: Field, position: int, raw: bytes, decoded: DecodedValue) -> Record:
    number = isinstance(decoded.value, int)
    scaler = field.exponent + (decoded.exponent if number else 0)
    header = _header(field, position, scaler)
    return Record(header, decoded.value, scaler if number or not decoded.valid else 0, decoded.valid, raw)


@lru_cache(maxsize=2048)
def _header(field: Field, position: int, scaler: int) -> RecordHeader:
    """One header for all records of a field: what is known of it is then found by it."""
    return RecordHeader(
        octets=b"",
        coding=0,
        function=field.function,
        storage=field.storage + position * field.storage_step,
        tariff=field.tariff,
        subunit=0,
        quantity=field.quantity,
        unit=field.unit,
        exponent=scaler,
        kind=Kind.NUMBER,
        qualifiers=field.qualifiers,
    )
