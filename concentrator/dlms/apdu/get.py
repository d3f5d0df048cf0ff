"""GET request and response (Green Book 9.3.3, 9.5).

The value of a plain response stays encoded: a profile buffer of thousands of rows goes to
`profile.py` as octets, and is never built as a tree of values.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, Selection, encode_selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import DataAccessResult, named
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader, encode_length, encode_octet_string

GET_REQUEST = 0xC0
GET_RESPONSE = 0xC4


@dataclass(frozen=True, slots=True)
class GetRequestNormal:
    """Read one attribute, whole or in part. `invoke` is invoke-id-and-priority."""

    TAG: ClassVar[int] = GET_REQUEST
    invoke: int
    attribute: AttributeDescriptor
    selection: Selection | None = None

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return (
            b"\xc0\x01" + bytes((self.invoke,)) + self.attribute.to_bytes() + encode_selection(self.selection)
        )


@dataclass(frozen=True, slots=True)
class GetRequestNext:
    """Ask for the block after `block_number`, the last one received."""

    TAG: ClassVar[int] = GET_REQUEST
    invoke: int
    block_number: int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return b"\xc0\x02" + bytes((self.invoke,)) + self.block_number.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class GetRequestWithList:
    """Read several attributes at once."""

    TAG: ClassVar[int] = GET_REQUEST
    invoke: int
    attributes: tuple[tuple[AttributeDescriptor, Selection | None], ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        parts = [
            attribute.to_bytes() + encode_selection(selection) for attribute, selection in self.attributes
        ]
        return b"\xc0\x03" + bytes((self.invoke,)) + encode_length(len(parts)) + b"".join(parts)


GetRequest: TypeAlias = GetRequestNormal | GetRequestNext | GetRequestWithList


def read_get_request(reader: Reader) -> GetRequest:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        return GetRequestNormal(invoke, AttributeDescriptor.read(reader), Selection.read_optional(reader))
    if choice == 2:
        return GetRequestNext(invoke, reader.unsigned(4))
    if choice == 3:
        count = reader.length()
        if count * 10 > reader.end - reader.offset:
            raise DecodeError(f"get-request-with-list claims {count} attributes, more than octets left")
        pairs = [(AttributeDescriptor.read(reader), Selection.read_optional(reader)) for _ in range(count)]
        return GetRequestWithList(invoke, tuple(pairs))
    raise DecodeError(f"get-request has no choice {choice}")


@dataclass(frozen=True, slots=True)
class GetResponseNormal:
    """The value, encoded, or why there is none."""

    TAG: ClassVar[int] = GET_RESPONSE
    invoke: int
    result: bytes | DataAccessResult | int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = bytes((GET_RESPONSE, 1, self.invoke))
        if isinstance(self.result, bytes):
            return head + b"\x00" + self.result
        return head + bytes((1, self.result))

    def data(self) -> Data:
        """The value decoded. Raises DecodeError, also where the result is no value."""
        if not isinstance(self.result, bytes):
            raise DecodeError("the response holds no value")
        return axdr.decode(self.result)


@dataclass(frozen=True, slots=True)
class GetResponseWithBlock:
    """One block of a value too long for one APDU, or why the transfer ends."""

    TAG: ClassVar[int] = GET_RESPONSE
    invoke: int
    last: bool
    block_number: int
    result: bytes | DataAccessResult | int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = bytes((GET_RESPONSE, 2, self.invoke, self.last)) + self.block_number.to_bytes(4, "big")
        if isinstance(self.result, bytes):
            return head + b"\x00" + encode_octet_string(self.result)
        return head + bytes((1, self.result))


@dataclass(frozen=True, slots=True)
class GetResponseWithList:
    """The values of several attributes, or why one has none, in the order asked for."""

    TAG: ClassVar[int] = GET_RESPONSE
    invoke: int
    results: tuple[Data | DataAccessResult | int, ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((GET_RESPONSE, 3, self.invoke)) + encode_get_results(self.results)


_BLOCK = struct.Struct(">?IB")

GetResponse: TypeAlias = GetResponseNormal | GetResponseWithBlock | GetResponseWithList


def encode_get_results(results: tuple[Data | DataAccessResult | int, ...]) -> bytes:
    """A sequence of Get-Data-Result, as a response with list carries it whole or in blocks."""
    parts = [b"\x00" + r.to_bytes() if isinstance(r, Data) else bytes((1, r)) for r in results]
    return encode_length(len(parts)) + b"".join(parts)


def read_get_results(reader: Reader) -> tuple[Data | DataAccessResult | int, ...]:
    """Take a sequence of Get-Data-Result. Raises DecodeError."""
    count = reader.length()
    if count * 2 > reader.end - reader.offset:
        raise DecodeError(f"a list of results claims {count} elements, more than octets left")
    return tuple([_read_result(reader) for _ in range(count)])


def _read_result(reader: Reader) -> Data | DataAccessResult | int:
    choice = reader.octet()
    if choice == 0:
        return axdr.read(reader)
    if choice == 1:
        return named(DataAccessResult, reader.octet())
    raise DecodeError(f"get-data-result has no choice {choice}")


def read_get_response(reader: Reader) -> GetResponse:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        kind = reader.octet()
        if kind == 0:
            start = reader.offset
            reader.offset = axdr.skip(reader.data, start)
            return GetResponseNormal(invoke, reader.data[start : reader.offset])
        if kind == 1:
            return GetResponseNormal(invoke, named(DataAccessResult, reader.octet()))
        raise DecodeError(f"get-data-result has no choice {kind}")
    if choice == 2:
        # Nearly all octets that a meter sends come in these: last-block, block-number, choice.
        last, number, kind = _BLOCK.unpack(reader.take(_BLOCK.size))
        if kind == 0:
            return GetResponseWithBlock(invoke, last, number, reader.octet_string())
        if kind == 1:
            return GetResponseWithBlock(invoke, last, number, named(DataAccessResult, reader.octet()))
        raise DecodeError(f"a data block has no choice {kind}")
    if choice == 3:
        return GetResponseWithList(invoke, read_get_results(reader))
    raise DecodeError(f"get-response has no choice {choice}")
