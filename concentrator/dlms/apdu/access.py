"""ACCESS: several reads, writes and method calls in one request (Green Book 9.3.7, 9.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, Selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.errors import DecodeError, EncodeError
from concentrator.dlms.reader import Reader, encode_length, encode_octet_string


class AccessKind(enum.IntEnum):
    """What one element of a request does; results carry the first three only."""

    GET = 1
    SET = 2
    ACTION = 3
    GET_WITH_SELECTION = 4
    SET_WITH_SELECTION = 5


@dataclass(frozen=True, slots=True)
class AccessSpecification:
    """One element: what to do with which attribute or method, and the part of it selected."""

    kind: AccessKind
    target: AttributeDescriptor | MethodDescriptor
    selection: Selection | None = None

    def to_bytes(self) -> bytes:
        """The choice and the descriptor."""
        octets = bytes((self.kind,)) + self.target.to_bytes()
        if self.kind in (AccessKind.GET_WITH_SELECTION, AccessKind.SET_WITH_SELECTION):
            if self.selection is None:
                raise EncodeError("an access with selection needs one")
            octets += bytes((self.selection.selector,)) + self.selection.parameters.to_bytes()
        return octets

    @classmethod
    def read(cls, reader: Reader) -> AccessSpecification:
        """Take one element. Raises DecodeError."""
        choice = reader.octet()
        if not AccessKind.GET <= choice <= AccessKind.SET_WITH_SELECTION:
            raise DecodeError(f"access-request-specification has no choice {choice}")
        kind = AccessKind(choice)
        if kind == AccessKind.ACTION:
            return cls(kind, MethodDescriptor.read(reader))
        target = AttributeDescriptor.read(reader)
        if kind in (AccessKind.GET_WITH_SELECTION, AccessKind.SET_WITH_SELECTION):
            return cls(kind, target, Selection(reader.octet(), axdr.read(reader)))
        return cls(kind, target)


def _encode_specifications(specifications: tuple[AccessSpecification, ...]) -> bytes:
    return encode_length(len(specifications)) + b"".join(one.to_bytes() for one in specifications)


def _read_count(reader: Reader, octets_each: int) -> int:
    count = reader.length()
    if count * octets_each > reader.end - reader.offset:
        raise DecodeError(f"an access APDU claims {count} elements, more than octets left")
    return count


def _read_specifications(reader: Reader) -> tuple[AccessSpecification, ...]:
    return tuple([AccessSpecification.read(reader) for _ in range(_read_count(reader, 10))])


def _encode_values(values: tuple[Data, ...]) -> bytes:
    return encode_length(len(values)) + b"".join(value.to_bytes() for value in values)


def _read_values(reader: Reader) -> tuple[Data, ...]:
    return tuple([axdr.read(reader) for _ in range(_read_count(reader, 1))])


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """`values` has one element for each specification; null-data where it needs none.

    `long_invoke` is long-invoke-id-and-priority, as in data-notification.
    """

    TAG: ClassVar[int] = 0xD9
    long_invoke: int
    date_time: bytes | None
    specifications: tuple[AccessSpecification, ...]
    values: tuple[Data, ...]

    @classmethod
    def read(cls, reader: Reader) -> AccessRequest:
        """Take the contents behind the tag. Raises DecodeError."""
        return cls(
            reader.unsigned(4),
            reader.octet_string() or None,
            _read_specifications(reader),
            _read_values(reader),
        )

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = b"\xd9" + self.long_invoke.to_bytes(4, "big") + encode_octet_string(self.date_time or b"")
        return head + _encode_specifications(self.specifications) + _encode_values(self.values)


@dataclass(frozen=True, slots=True)
class AccessResponse:
    """`results` has kind and result code of each element; `specifications` may repeat the request's."""

    TAG: ClassVar[int] = 0xDA
    long_invoke: int
    date_time: bytes | None
    specifications: tuple[AccessSpecification, ...] | None
    values: tuple[Data, ...]
    results: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, reader: Reader) -> AccessResponse:
        """Take the contents behind the tag. Raises DecodeError."""
        long_invoke, date_time = reader.unsigned(4), reader.octet_string() or None
        specifications = _read_specifications(reader) if reader.flag() else None
        values = _read_values(reader)
        results = tuple([(reader.octet(), reader.octet()) for _ in range(_read_count(reader, 2))])
        return cls(long_invoke, date_time, specifications, values, results)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = b"\xda" + self.long_invoke.to_bytes(4, "big") + encode_octet_string(self.date_time or b"")
        repeated = (
            b"\x00" if self.specifications is None else b"\x01" + _encode_specifications(self.specifications)
        )
        results = encode_length(len(self.results)) + b"".join(bytes(pair) for pair in self.results)
        return head + repeated + _encode_values(self.values) + results
