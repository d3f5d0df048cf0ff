"""COSEM values: `Data` carries its type, and encodes itself (IEC 61334-6, Green Book 9.5, Blue Book 4.1.5).

What was decoded encodes to the same octets; `native` gives the plain Python value. Strings of date and time stay
octets here; `cosem_time` gives them meaning. Decoding is in `axdr`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from concentrator.dlms.errors import DecodeError, EncodeError
from concentrator.dlms.reader import encode_length


class DataType(enum.IntEnum):
    """The choices of `Data`, numbered by their tags."""

    NULL_DATA = 0
    ARRAY = 1
    STRUCTURE = 2
    BOOLEAN = 3
    BIT_STRING = 4
    DOUBLE_LONG = 5
    DOUBLE_LONG_UNSIGNED = 6
    OCTET_STRING = 9
    VISIBLE_STRING = 10
    UTF8_STRING = 12
    BCD = 13
    INTEGER = 15
    LONG = 16
    UNSIGNED = 17
    LONG_UNSIGNED = 18
    COMPACT_ARRAY = 19
    LONG64 = 20
    LONG64_UNSIGNED = 21
    ENUM = 22
    FLOAT32 = 23
    FLOAT64 = 24
    DATE_TIME = 25
    DATE = 26
    TIME = 27
    DELTA_INTEGER = 28
    DELTA_LONG = 29
    DELTA_DOUBLE_LONG = 30
    DELTA_UNSIGNED = 31
    DELTA_LONG_UNSIGNED = 32
    DELTA_DOUBLE_LONG_UNSIGNED = 33
    DONT_CARE = 255

    @property
    def label(self) -> str:
        """The name as the standard writes it: `double-long-unsigned`."""
        return self.name.lower().replace("_", "-")


class TypeDescription(NamedTuple):
    """What the elements of a compact-array are: a simple type, an array of so many, or a structure."""

    type: DataType
    elements: tuple[TypeDescription, ...] = ()
    length: int = 0


class CompactArray(NamedTuple):
    """The value of a compact-array: elements that all have the one type described."""

    description: TypeDescription
    items: tuple[Data, ...]


Value: TypeAlias = "bool | int | float | str | bytes | tuple[Data, ...] | CompactArray | None"
Native: TypeAlias = "bool | int | float | str | bytes | list[Native] | None"


class Data(NamedTuple):
    """One COSEM value and its type.

    `value` by type: integers of any size, bcd and enum are `int`; octet-string, date-time, date and time are
    `bytes`; visible-string and utf8-string are `str`; a bit-string is a `str` of 0 and 1; array and
    structure are tuples of `Data`; null-data and don't-care are None.
    """

    type: DataType
    value: Value = None

    @property
    def native(self) -> Native:
        """The plain Python value; arrays and structures become lists."""
        value = self.value
        if isinstance(value, CompactArray):
            return [item.native for item in value.items]
        if isinstance(value, tuple):
            return [item.native for item in value]
        return value

    @property
    def is_null(self) -> bool:
        """Whether this is null-data."""
        return self.type == DataType.NULL_DATA

    def integer(self) -> int:
        """The value of any integer type.

        Raises:
            DecodeError: the peer sent another type.
        """
        if isinstance(self.value, int):
            return self.value
        raise DecodeError(f"a number was expected, got {self.type.label}")

    def octets(self) -> bytes:
        """The octets of an octet-string, date-time, date or time, or of a visible-string.

        Raises:
            DecodeError: the peer sent another type.
        """
        if isinstance(self.value, bytes):
            return self.value
        if self.type == DataType.VISIBLE_STRING and isinstance(self.value, str):
            return self.value.encode("latin-1")
        raise DecodeError(f"an octet-string was expected, got {self.type.label}")

    def text(self) -> str:
        """A text, sent as any kind of string; octets that are no text are replaced.

        Raises:
            DecodeError: the peer sent another type.
        """
        if isinstance(self.value, str) and self.type != DataType.BIT_STRING:
            return self.value
        if isinstance(self.value, bytes):
            return self.value.decode("utf-8", "replace")
        raise DecodeError(f"a text was expected, got {self.type.label}")

    def items(self, count: int | None = None) -> tuple[Data, ...]:
        """The elements of an array, compact-array or structure, `count` of them at least when given.

        Raises:
            DecodeError: the peer sent another type, or fewer elements.
        """
        value = self.value
        if isinstance(value, CompactArray):
            value = value.items
        if not isinstance(value, tuple):
            raise DecodeError(f"an array or structure was expected, got {self.type.label}")
        if count is not None and len(value) < count:
            raise DecodeError(f"{self.type.label} has {len(value)} elements, {count} expected")
        return value

    def to_bytes(self) -> bytes:
        """The A-XDR encoding. Raises EncodeError where the value does not fit the type."""
        return encode(self)


NULL = Data(DataType.NULL_DATA)

# Types of fixed size, with the `struct` format of their contents.
FIXED_FORMATS: dict[DataType, str] = {
    DataType.DOUBLE_LONG: "i",
    DataType.DOUBLE_LONG_UNSIGNED: "I",
    DataType.BCD: "B",
    DataType.INTEGER: "b",
    DataType.LONG: "h",
    DataType.UNSIGNED: "B",
    DataType.LONG_UNSIGNED: "H",
    DataType.LONG64: "q",
    DataType.LONG64_UNSIGNED: "Q",
    DataType.ENUM: "B",
    DataType.FLOAT32: "f",
    DataType.FLOAT64: "d",
    DataType.DATE_TIME: "12s",
    DataType.DATE: "5s",
    DataType.TIME: "4s",
    DataType.DELTA_INTEGER: "b",
    DataType.DELTA_LONG: "h",
    DataType.DELTA_DOUBLE_LONG: "i",
    DataType.DELTA_UNSIGNED: "B",
    DataType.DELTA_LONG_UNSIGNED: "H",
    DataType.DELTA_DOUBLE_LONG_UNSIGNED: "I",
}
DELTA_TYPES: dict[DataType, DataType] = {
    DataType.DELTA_INTEGER: DataType.INTEGER,
    DataType.DELTA_LONG: DataType.LONG,
    DataType.DELTA_DOUBLE_LONG: DataType.DOUBLE_LONG,
    DataType.DELTA_UNSIGNED: DataType.UNSIGNED,
    DataType.DELTA_LONG_UNSIGNED: DataType.LONG_UNSIGNED,
    DataType.DELTA_DOUBLE_LONG_UNSIGNED: DataType.DOUBLE_LONG_UNSIGNED,
}
_FIXED = {kind: struct.Struct(">" + code) for kind, code in FIXED_FORMATS.items()}
_STRING_LENGTHS = {DataType.DATE_TIME: 12, DataType.DATE: 5, DataType.TIME: 4}


def encode(data: Data) -> bytes:
    """The A-XDR encoding of one value.

    Raises:
        EncodeError: the value does not fit its type.
    """
    out = bytearray()
    _encode_into(out, data)
    return bytes(out)


def _encode_into(out: bytearray, data: Data) -> None:
    kind = data.type
    out.append(kind)
    if kind in (DataType.ARRAY, DataType.STRUCTURE):
        items = _items(data)
        out += encode_length(len(items))
        for item in items:
            _encode_into(out, item)
    elif kind == DataType.COMPACT_ARRAY:
        if not isinstance(data.value, CompactArray):
            raise EncodeError("the value of a compact-array is a CompactArray")
        _encode_description(out, data.value.description)
        contents = bytearray()
        for item in data.value.items:
            _encode_described(contents, data.value.description, item)
        out += encode_length(len(contents))
        out += contents
    else:
        out += _encode_contents(data)


def _items(data: Data) -> tuple[Data, ...]:
    if not isinstance(data.value, tuple) or isinstance(data.value, CompactArray):
        raise EncodeError(
            f"the value of {data.type.label} is a tuple of Data, not {type(data.value).__name__}"
        )
    return data.value


def _encode_contents(data: Data) -> bytes:
    kind, value = data
    fixed = _FIXED.get(kind)
    try:
        if fixed is not None:
            length = _STRING_LENGTHS.get(kind)
            if length is not None and len(data.octets()) != length:
                raise EncodeError(f"{kind.label} has {length} octets")
            return fixed.pack(value)
        encoder = _VARIABLE[kind]
        return encoder(value)
    except (struct.error, OverflowError, TypeError, AttributeError, ValueError, DecodeError):
        shown = type(value).__name__ if isinstance(value, bytes | str) else repr(value)[:40]
        raise EncodeError(f"{shown} does not fit {kind.label}") from None


def _encode_bits(value: Value) -> bytes:
    if not isinstance(value, str) or value.strip("01"):
        raise ValueError
    octets = (len(value) + 7) // 8
    return encode_length(len(value)) + int(value.ljust(octets * 8, "0") or "0", 2).to_bytes(octets, "big")


def _encode_octets(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError
    return encode_length(len(value)) + value


def _encode_visible(value: Value) -> bytes:
    return _encode_octets(str(value).encode("latin-1"))


def _encode_utf8(value: Value) -> bytes:
    return _encode_octets(str(value).encode("utf-8", "surrogateescape"))


_VARIABLE: dict[DataType, Callable[[Value], bytes]] = {
    DataType.NULL_DATA: lambda _: b"",
    DataType.DONT_CARE: lambda _: b"",
    DataType.BOOLEAN: lambda value: b"\x01" if value else b"\x00",
    DataType.BIT_STRING: _encode_bits,
    DataType.OCTET_STRING: _encode_octets,
    DataType.VISIBLE_STRING: _encode_visible,
    DataType.UTF8_STRING: _encode_utf8,
}


def _encode_description(out: bytearray, description: TypeDescription) -> None:
    out.append(description.type)
    if description.type == DataType.ARRAY:
        out += description.length.to_bytes(2, "big")
    elif description.type == DataType.STRUCTURE:
        out += encode_length(len(description.elements))
    for element in description.elements:
        _encode_description(out, element)


def _encode_described(out: bytearray, description: TypeDescription, data: Data) -> None:
    if data.type != description.type:
        raise EncodeError(f"a compact-array of {description.type.label} cannot hold {data.type.label}")
    if description.type == DataType.ARRAY:
        elements = description.elements * description.length
    elif description.type == DataType.STRUCTURE:
        elements = description.elements
    else:
        out += _encode_contents(data)
        return
    items = _items(data)
    if len(items) != len(elements):
        raise EncodeError(f"{len(items)} elements where a compact-array describes {len(elements)}")
    for element, item in zip(elements, items, strict=True):
        _encode_described(out, element, item)


def structure(*items: Data) -> Data:
    """A structure of these elements."""
    return Data(DataType.STRUCTURE, items)


def array(*items: Data) -> Data:
    """An array of these elements."""
    return Data(DataType.ARRAY, items)


def octet_string(value: bytes) -> Data:
    """An octet-string; an `Obis` is one too."""
    return Data(DataType.OCTET_STRING, bytes(value))


def visible_string(value: str) -> Data:
    """A visible-string."""
    return Data(DataType.VISIBLE_STRING, value)


def boolean(value: bool) -> Data:  # noqa: FBT001 - it is the value itself
    """A boolean."""
    return Data(DataType.BOOLEAN, value)


def integer(value: int) -> Data:
    """An integer: 8 bits, signed."""
    return Data(DataType.INTEGER, value)


def unsigned(value: int) -> Data:
    """An unsigned: 8 bits."""
    return Data(DataType.UNSIGNED, value)


def long(value: int) -> Data:
    """A long: 16 bits, signed."""
    return Data(DataType.LONG, value)


def long_unsigned(value: int) -> Data:
    """A long-unsigned: 16 bits."""
    return Data(DataType.LONG_UNSIGNED, value)


def double_long(value: int) -> Data:
    """A double-long: 32 bits, signed."""
    return Data(DataType.DOUBLE_LONG, value)


def double_long_unsigned(value: int) -> Data:
    """A double-long-unsigned: 32 bits."""
    return Data(DataType.DOUBLE_LONG_UNSIGNED, value)


def enumeration(value: int) -> Data:
    """An enum."""
    return Data(DataType.ENUM, value)
