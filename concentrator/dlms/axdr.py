"""Decoding A-XDR (IEC 61334-6, Green Book 9.5, Blue Book 4.1.5); the values themselves are in `data`.

Decoding is bounded: in depth, and by the octets that are there. A value takes one octet at least, but for those of a
compact-array: of those that it describes without octets there may only be a few beside each that has some.
"""

from __future__ import annotations

import struct

from concentrator.dlms.data import (
    DELTA_TYPES,
    FIXED_FORMATS,
    NULL,
    CompactArray,
    Data,
    DataType,
    Native,
    TypeDescription,
    Value,
    array,
    boolean,
    double_long,
    double_long_unsigned,
    encode,
    enumeration,
    integer,
    long,
    long_unsigned,
    octet_string,
    structure,
    unsigned,
    visible_string,
)
from concentrator.dlms.errors import DecodeError, TruncatedError
from concentrator.dlms.reader import Reader

__all__ = [
    "DELTA_TYPES",
    "FIXED_FORMATS",
    "MAX_DEPTH",
    "NULL",
    "CompactArray",
    "Data",
    "DataType",
    "Native",
    "TypeDescription",
    "Value",
    "array",
    "boolean",
    "data_type",
    "decode",
    "decode_described",
    "decode_from",
    "double_long",
    "double_long_unsigned",
    "encode",
    "enumeration",
    "integer",
    "long",
    "long_unsigned",
    "octet_string",
    "read",
    "read_description",
    "skip",
    "structure",
    "unsigned",
    "visible_string",
]

MAX_DEPTH = 16
# Values without octets that a compact-array may describe beside each that has some.
_EMPTY_VALUES = 4
_EMPTY = (DataType.NULL_DATA, DataType.DONT_CARE)
_FIXED = {kind: struct.Struct(">" + code) for kind, code in FIXED_FORMATS.items()}
_TYPES: tuple[DataType | None, ...] = tuple(
    DataType(tag) if tag in DataType._value2member_map_ else None for tag in range(256)
)
_FIXED_BY_TAG: tuple[struct.Struct | None, ...] = tuple(
    _FIXED.get(kind) if kind is not None else None for kind in _TYPES
)


def data_type(tag: int) -> DataType:
    """The type of a tag octet.

    Raises:
        DecodeError: no type has this tag.
    """
    kind = _TYPES[tag & 0xFF]
    if kind is None:
        raise DecodeError(f"unknown data type tag {tag} ({tag:#04x})")
    return kind


class _Decoder:
    """One decoding run."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset

    def value(self, depth: int) -> Data:
        offset = self.offset
        if offset >= len(self.data):
            raise TruncatedError(f"truncated: a value is missing at {offset}")
        kind = _TYPES[self.data[offset]]
        if kind is None:
            tag = self.data[offset]
            raise DecodeError(f"unknown data type tag {tag} ({tag:#04x}) at {offset}")
        self.offset = offset + 1
        return self.contents(kind, depth)

    def contents(self, kind: DataType, depth: int) -> Data:
        """The contents of a value whose tag is known."""
        fixed = _FIXED_BY_TAG[kind]
        if fixed is not None:
            try:
                (value,) = fixed.unpack_from(self.data, self.offset)
            except struct.error:
                raise TruncatedError(f"truncated: {kind.label} at {self.offset} is incomplete") from None
            self.offset += fixed.size
            return Data(kind, value)
        if kind in _EMPTY:
            return Data(kind)
        if kind in (DataType.ARRAY, DataType.STRUCTURE):
            if depth >= MAX_DEPTH:
                raise DecodeError(f"values are nested deeper than {MAX_DEPTH}")
            count = self.length()
            if count > len(self.data) - self.offset:
                raise TruncatedError(
                    f"{kind.label} at {self.offset} claims {count} elements, more than octets left"
                )
            return Data(kind, tuple([self.value(depth + 1) for _ in range(count)]))
        if kind == DataType.COMPACT_ARRAY:
            return Data(kind, self.compact_array(depth))
        if kind == DataType.BOOLEAN:
            return Data(kind, self.take(1) != b"\x00")
        if kind == DataType.BIT_STRING:
            bits = self.length()
            octets = self.take((bits + 7) // 8)
            return Data(
                kind, format(int.from_bytes(octets, "big"), f"0{len(octets) * 8}b")[:bits] if bits else ""
            )
        octets = self.take(self.length())
        if kind == DataType.OCTET_STRING:
            return Data(kind, octets)
        if kind == DataType.VISIBLE_STRING:
            return Data(kind, octets.decode("latin-1"))
        return Data(kind, octets.decode("utf-8", "surrogateescape"))

    def take(self, count: int) -> bytes:
        offset = self.offset
        stop = offset + count
        if stop > len(self.data):
            raise TruncatedError(
                f"truncated: {count} octets wanted at {offset}, {len(self.data) - offset} left"
            )
        self.offset = stop
        return self.data[offset:stop]

    def length(self) -> int:
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if not 0x81 <= first <= 0x84:
            raise DecodeError(f"length octet {first:#04x} at {self.offset - 1} is not 0x81 to 0x84")
        return int.from_bytes(self.take(first & 0x7F), "big")

    def compact_array(self, depth: int) -> CompactArray:
        description = self.description(depth + 1)
        stop = self.length() + self.offset
        if stop > len(self.data):
            raise DecodeError(
                f"truncated: contents of a compact-array end at {stop} of {len(self.data)} octets"
            )
        items: list[Data] = []
        while self.offset < stop:
            before = self.offset
            items.append(self.described(description, depth + 1))
            if self.offset == before:
                raise DecodeError("the elements of a compact-array take no octets")
        if self.offset != stop:
            raise DecodeError("the contents of a compact-array end within an element")
        return CompactArray(description, tuple(items))

    def description(self, depth: int) -> TypeDescription:
        return self._description(depth)[0]

    def _description(self, depth: int) -> tuple[TypeDescription, int, int]:
        """A type, and how many values without and with octets it describes, an array's counted once."""
        if depth > MAX_DEPTH:
            raise DecodeError(f"types are nested deeper than {MAX_DEPTH}")
        kind = data_type(self.take(1)[0])
        if kind == DataType.ARRAY:
            count = int.from_bytes(self.take(2), "big")
            element, empty, sized = self._description(depth + 1)
            if count and not sized:
                raise DecodeError("a compact-array describes an array of values without octets")
            description = TypeDescription(kind, (element,), count)
            return (description, empty, sized) if count else (description, 1, 0)
        if kind == DataType.STRUCTURE:
            count = self.length()
            if count > len(self.data) - self.offset:
                raise TruncatedError(f"a type description claims {count} elements, more than octets left")
            found = [self._description(depth + 1) for _ in range(count)]
            empty = sum(element[1] for element in found) or not count
            sized = sum(element[2] for element in found)
            if empty > _EMPTY_VALUES * (sized + 1):
                raise DecodeError("a compact-array describes more values than its octets can hold")
            return TypeDescription(kind, tuple([element[0] for element in found]), count), empty, sized
        if kind == DataType.COMPACT_ARRAY:
            raise DecodeError("a compact-array cannot hold compact-arrays")
        return TypeDescription(kind), kind in _EMPTY, kind not in _EMPTY

    def described(self, description: TypeDescription, depth: int) -> Data:
        kind = description.type
        if kind == DataType.ARRAY:
            element = description.elements[0]
            return Data(kind, tuple([self.described(element, depth + 1) for _ in range(description.length)]))
        if kind == DataType.STRUCTURE:
            return Data(kind, tuple([self.described(element, depth + 1) for element in description.elements]))
        return self.contents(kind, depth)


def decode_from(data: bytes, offset: int = 0) -> tuple[Data, int]:
    """Decode one value at `offset`; returns it and the offset behind it.

    Raises:
        DecodeError: the octets are no value.
    """
    decoder = _Decoder(data, offset)
    return decoder.value(0), decoder.offset


def read_description(reader: Reader) -> TypeDescription:
    """Take the type description of a compact-array from a cursor, behind the array's tag.

    Raises:
        DecodeError: the octets are none.
    """
    decoder = _Decoder(reader.data, reader.offset)
    description = decoder.description(0)
    reader.offset = decoder.offset
    return description


def decode_described(data: bytes, offset: int, description: TypeDescription) -> tuple[Data, int]:
    """Decode one element of a compact-array at `offset`; returns it and the offset behind it.

    Raises:
        DecodeError: the octets are no such element.
    """
    decoder = _Decoder(data, offset)
    return decoder.described(description, 0), decoder.offset


def decode(data: bytes) -> Data:
    """Decode octets that are exactly one value.

    Raises:
        DecodeError: they are not.
    """
    value, offset = decode_from(data)
    if offset != len(data):
        raise DecodeError(f"{len(data) - offset} octets too many after a value of {offset} octets")
    return value


def read(reader: Reader) -> Data:
    """Take one value from a cursor."""
    value, reader.offset = decode_from(reader.data, reader.offset)
    return value


def skip(data: bytes, offset: int) -> int:
    """The offset behind the value at `offset`, without building it.

    Raises:
        DecodeError: the octets are no value.
    """
    pending = 1
    end = len(data)
    while pending:
        pending -= 1
        if offset >= end:
            raise TruncatedError(f"truncated: a value is missing at {offset}")
        tag = data[offset]
        fixed = _FIXED_BY_TAG[tag]
        if fixed is not None:
            offset += 1 + fixed.size
        elif tag in (DataType.NULL_DATA, DataType.DONT_CARE):
            offset += 1
        elif tag == DataType.BOOLEAN:
            offset += 2
        elif tag in (DataType.ARRAY, DataType.STRUCTURE):
            reader = Reader(data, offset + 1)
            pending += reader.length()
            offset = reader.offset
        elif tag == DataType.COMPACT_ARRAY:
            _, offset = decode_from(data, offset)
        elif _TYPES[tag] is None:
            raise DecodeError(f"unknown data type tag {tag} ({tag:#04x}) at {offset}")
        else:
            reader = Reader(data, offset + 1)
            length = reader.length()
            offset = reader.offset + ((length + 7) // 8 if tag == DataType.BIT_STRING else length)
    if offset > end:
        raise TruncatedError(f"truncated: a value ends at {offset}, {end} octets are here")
    return offset
