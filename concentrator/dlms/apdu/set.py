"""SET request and response, whole, as a list, and in blocks (Green Book 9.3.4, 9.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, Selection, encode_selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import DataAccessResult, named
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader, encode_length, encode_octet_string

SET_REQUEST = 0xC1
SET_RESPONSE = 0xC5
_Attributes: TypeAlias = "tuple[tuple[AttributeDescriptor, Selection | None], ...]"


def _encode_attributes(attributes: _Attributes) -> bytes:
    parts = [attribute.to_bytes() + encode_selection(selection) for attribute, selection in attributes]
    return encode_length(len(parts)) + b"".join(parts)


def _read_attributes(reader: Reader) -> _Attributes:
    count = reader.length()
    if count * 10 > reader.end - reader.offset:
        raise DecodeError(f"a set-request claims {count} attributes, more than octets left")
    return tuple([(AttributeDescriptor.read(reader), Selection.read_optional(reader)) for _ in range(count)])


def encode_values(values: tuple[Data, ...]) -> bytes:
    """The value list of a SET with list, as it is sent whole or in blocks."""
    return encode_length(len(values)) + b"".join(value.to_bytes() for value in values)


def read_values(reader: Reader) -> tuple[Data, ...]:
    """Take a value list. Raises DecodeError."""
    count = reader.length()
    if count > reader.end - reader.offset:
        raise DecodeError(f"a value list claims {count} values, more than octets left")
    return tuple([axdr.read(reader) for _ in range(count)])


@dataclass(frozen=True, slots=True)
class SetRequestNormal:
    """Write one attribute."""

    TAG: ClassVar[int] = SET_REQUEST
    invoke: int
    attribute: AttributeDescriptor
    selection: Selection | None
    value: Data

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = b"\xc1\x01" + bytes((self.invoke,)) + self.attribute.to_bytes()
        return head + encode_selection(self.selection) + self.value.to_bytes()


@dataclass(frozen=True, slots=True)
class SetRequestWithFirstDatablock:
    """Write one attribute, or several, with a value too long for one APDU: the first block.

    With one element in `attributes` and `with_list` false this is set-request-with-first-datablock, else
    set-request-with-list-and-first-datablock.
    """

    TAG: ClassVar[int] = SET_REQUEST
    invoke: int
    attributes: _Attributes
    last: bool
    block_number: int
    block: bytes
    with_list: bool = False

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        if self.with_list:
            named_part = _encode_attributes(self.attributes)
        else:
            attribute, selection = self.attributes[0]
            named_part = attribute.to_bytes() + encode_selection(selection)
        head = bytes((SET_REQUEST, 5 if self.with_list else 2, self.invoke))
        return head + named_part + _encode_block(self.last, self.block_number, self.block)


@dataclass(frozen=True, slots=True)
class SetRequestWithDatablock:
    """A further block."""

    TAG: ClassVar[int] = SET_REQUEST
    invoke: int
    last: bool
    block_number: int
    block: bytes

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((SET_REQUEST, 3, self.invoke)) + _encode_block(self.last, self.block_number, self.block)


@dataclass(frozen=True, slots=True)
class SetRequestWithList:
    """Write several attributes at once."""

    TAG: ClassVar[int] = SET_REQUEST
    invoke: int
    attributes: _Attributes
    values: tuple[Data, ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = bytes((SET_REQUEST, 4, self.invoke))
        return head + _encode_attributes(self.attributes) + encode_values(self.values)


SetRequest: TypeAlias = (
    SetRequestNormal | SetRequestWithFirstDatablock | SetRequestWithDatablock | SetRequestWithList
)


def _encode_block(last: bool, number: int, block: bytes) -> bytes:  # noqa: FBT001
    return bytes((last,)) + number.to_bytes(4, "big") + encode_octet_string(block)


def read_set_request(reader: Reader) -> SetRequest:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        attribute = AttributeDescriptor.read(reader)
        return SetRequestNormal(invoke, attribute, Selection.read_optional(reader), axdr.read(reader))
    if choice in (2, 5):
        if choice == 5:
            attributes = _read_attributes(reader)
        else:
            attributes = ((AttributeDescriptor.read(reader), Selection.read_optional(reader)),)
        last, number, block = reader.flag(), reader.unsigned(4), reader.octet_string()
        return SetRequestWithFirstDatablock(invoke, attributes, last, number, block, choice == 5)
    if choice == 3:
        return SetRequestWithDatablock(invoke, reader.flag(), reader.unsigned(4), reader.octet_string())
    if choice == 4:
        return SetRequestWithList(invoke, _read_attributes(reader), read_values(reader))
    raise DecodeError(f"set-request has no choice {choice}")


@dataclass(frozen=True, slots=True)
class SetResponseNormal:
    """What became of writing one attribute."""

    TAG: ClassVar[int] = SET_RESPONSE
    invoke: int
    result: DataAccessResult | int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((SET_RESPONSE, 1, self.invoke, self.result))


@dataclass(frozen=True, slots=True)
class SetResponseDatablock:
    """A block arrived; the next one may come."""

    TAG: ClassVar[int] = SET_RESPONSE
    invoke: int
    block_number: int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((SET_RESPONSE, 2, self.invoke)) + self.block_number.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class SetResponseLastDatablock:
    """The last block arrived: the result, or with list the results."""

    TAG: ClassVar[int] = SET_RESPONSE
    invoke: int
    results: tuple[DataAccessResult | int, ...]
    block_number: int
    with_list: bool = False

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        results = bytes(self.results)
        if self.with_list:
            results = encode_length(len(results)) + results
        head = bytes((SET_RESPONSE, 4 if self.with_list else 3, self.invoke))
        return head + results + self.block_number.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class SetResponseWithList:
    """What became of writing several attributes, in the order asked for."""

    TAG: ClassVar[int] = SET_RESPONSE
    invoke: int
    results: tuple[DataAccessResult | int, ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((SET_RESPONSE, 5, self.invoke)) + encode_octet_string(bytes(self.results))


SetResponse: TypeAlias = (
    SetResponseNormal | SetResponseDatablock | SetResponseLastDatablock | SetResponseWithList
)


def _results(octets: bytes) -> tuple[DataAccessResult | int, ...]:
    return tuple([named(DataAccessResult, octet) for octet in octets])


def read_set_response(reader: Reader) -> SetResponse:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        return SetResponseNormal(invoke, named(DataAccessResult, reader.octet()))
    if choice == 2:
        return SetResponseDatablock(invoke, reader.unsigned(4))
    if choice == 3:
        return SetResponseLastDatablock(invoke, _results(reader.take(1)), reader.unsigned(4))
    if choice == 4:
        return SetResponseLastDatablock(invoke, _results(reader.octet_string()), reader.unsigned(4), True)
    if choice == 5:
        return SetResponseWithList(invoke, _results(reader.octet_string()))
    raise DecodeError(f"set-response has no choice {choice}")
