"""READ, WRITE, UnconfirmedWrite and InformationReport: short-name referencing (Green Book 9.5).

For older meters: an attribute is named by a number of 16 bits, the base name of its object and 8 for each
attribute on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import DataAccessResult, named
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader, encode_length, encode_octet_string


@dataclass(frozen=True, slots=True)
class VariableName:
    """One attribute, or with a `selector` a part of it (parameterized access)."""

    name: int
    selector: int | None = None
    parameter: Data | None = None

    def to_bytes(self) -> bytes:
        """The choice and its contents."""
        octets = self.name.to_bytes(2, "big")
        if self.selector is None or self.parameter is None:
            return b"\x02" + octets
        return b"\x04" + octets + bytes((self.selector,)) + self.parameter.to_bytes()


@dataclass(frozen=True, slots=True)
class BlockNumberAccess:
    """Asks for the block after this one."""

    block_number: int

    def to_bytes(self) -> bytes:
        """The choice and its contents."""
        return b"\x05" + self.block_number.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """A block of a long request: of READ with `octets`, of WRITE without (they are in the values)."""

    last: bool
    block_number: int
    octets: bytes | None

    def to_bytes(self) -> bytes:
        """The choice and its contents."""
        head = bytes((7 if self.octets is None else 6, self.last)) + self.block_number.to_bytes(2, "big")
        return head if self.octets is None else head + encode_octet_string(self.octets)


VariableAccess: TypeAlias = VariableName | BlockNumberAccess | ReadBlock


def _read_access(reader: Reader) -> VariableAccess:
    choice = reader.octet()
    if choice == 2:
        return VariableName(reader.unsigned(2))
    if choice == 4:
        return VariableName(reader.unsigned(2), reader.octet(), axdr.read(reader))
    if choice == 5:
        return BlockNumberAccess(reader.unsigned(2))
    if choice in (6, 7):
        last, number = reader.flag(), reader.unsigned(2)
        return ReadBlock(last, number, reader.octet_string() if choice == 6 else None)
    raise DecodeError(f"variable-access-specification has no choice {choice}")


def _count(reader: Reader, octets_each: int) -> int:
    count = reader.length()
    if count * octets_each > reader.end - reader.offset:
        raise DecodeError(f"a list claims {count} elements, more than octets left")
    return count


def _read_accesses(reader: Reader) -> tuple[VariableAccess, ...]:
    return tuple([_read_access(reader) for _ in range(_count(reader, 3))])


def _read_values(reader: Reader) -> tuple[Data, ...]:
    return tuple([axdr.read(reader) for _ in range(_count(reader, 1))])


def _encode_accesses(accesses: tuple[VariableAccess, ...]) -> bytes:
    return encode_length(len(accesses)) + b"".join(access.to_bytes() for access in accesses)


def _encode_values(values: tuple[Data, ...]) -> bytes:
    return encode_length(len(values)) + b"".join(value.to_bytes() for value in values)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Read attributes by short name."""

    TAG: ClassVar[int] = 0x05
    variables: tuple[VariableAccess, ...]

    @classmethod
    def read(cls, reader: Reader) -> ReadRequest:
        """Take the contents behind the tag. Raises DecodeError."""
        return cls(_read_accesses(reader))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return b"\x05" + _encode_accesses(self.variables)


@dataclass(frozen=True, slots=True)
class ResultBlock:
    """One block of a long READ response."""

    last: bool
    block_number: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """The block of this number arrived; the next one may come."""

    block_number: int


ReadResult: TypeAlias = "Data | DataAccessResult | int | ResultBlock | BlockReceived"


@dataclass(frozen=True, slots=True)
class ReadResponse:
    """The values, or why there is none, in the order asked for."""

    TAG: ClassVar[int] = 0x0C
    results: tuple[ReadResult, ...]

    @classmethod
    def read(cls, reader: Reader) -> ReadResponse:
        """Take the contents behind the tag. Raises DecodeError."""

        def one() -> ReadResult:
            choice = reader.octet()
            if choice == 0:
                return axdr.read(reader)
            if choice == 1:
                return named(DataAccessResult, reader.octet())
            if choice == 2:
                return ResultBlock(reader.flag(), reader.unsigned(2), reader.octet_string())
            if choice == 3:
                return BlockReceived(reader.unsigned(2))
            raise DecodeError(f"read-response has no choice {choice}")

        return cls(tuple([one() for _ in range(_count(reader, 2))]))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        parts: list[bytes] = []
        for result in self.results:
            if isinstance(result, Data):
                parts.append(b"\x00" + result.to_bytes())
            elif isinstance(result, ResultBlock):
                head = bytes((2, result.last)) + result.block_number.to_bytes(2, "big")
                parts.append(head + encode_octet_string(result.octets))
            elif isinstance(result, BlockReceived):
                parts.append(b"\x03" + result.block_number.to_bytes(2, "big"))
            else:
                parts.append(bytes((1, result)))
        return b"\x0c" + encode_length(len(parts)) + b"".join(parts)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Write attributes by short name; with `confirmed` false it is an UnconfirmedWriteRequest."""

    variables: tuple[VariableAccess, ...]
    values: tuple[Data, ...]
    confirmed: bool = True

    @classmethod
    def read(cls, tag: int, reader: Reader) -> WriteRequest:
        """Take the contents behind the tag. Raises DecodeError."""
        return cls(_read_accesses(reader), _read_values(reader), tag == 0x06)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        tag = b"\x06" if self.confirmed else b"\x16"
        return tag + _encode_accesses(self.variables) + _encode_values(self.values)


@dataclass(frozen=True, slots=True)
class WriteResponse:
    """What became of each write: None is success."""

    TAG: ClassVar[int] = 0x0D
    results: tuple[DataAccessResult | int | BlockReceived | None, ...]

    @classmethod
    def read(cls, reader: Reader) -> WriteResponse:
        """Take the contents behind the tag. Raises DecodeError."""

        def one() -> DataAccessResult | int | BlockReceived | None:
            choice = reader.octet()
            if choice == 0:
                return None
            if choice == 1:
                return named(DataAccessResult, reader.octet())
            if choice == 2:
                return BlockReceived(reader.unsigned(2))
            raise DecodeError(f"write-response has no choice {choice}")

        return cls(tuple([one() for _ in range(_count(reader, 1))]))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        parts: list[bytes] = []
        for result in self.results:
            if result is None:
                parts.append(b"\x00")
            elif isinstance(result, BlockReceived):
                parts.append(b"\x02" + result.block_number.to_bytes(2, "big"))
            else:
                parts.append(bytes((1, result)))
        return b"\x0d" + encode_length(len(parts)) + b"".join(parts)


@dataclass(frozen=True, slots=True)
class InformationReport:
    """Values that a server sends unasked, by short name. `current_time` is a GeneralizedTime, or None."""

    TAG: ClassVar[int] = 0x18
    current_time: bytes | None
    variables: tuple[VariableAccess, ...]
    values: tuple[Data, ...]

    @classmethod
    def read(cls, reader: Reader) -> InformationReport:
        """Take the contents behind the tag. Raises DecodeError."""
        # Gurux writes 12 octets of date-time without the flag that says they are there.
        bare = reader.data[reader.offset : reader.offset + 1] == b"\x0c"
        current_time = reader.octet_string() if bare or reader.flag() else None
        return cls(current_time, _read_accesses(reader), _read_values(reader))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        time = b"\x00" if self.current_time is None else b"\x01" + encode_octet_string(self.current_time)
        return b"\x18" + time + _encode_accesses(self.variables) + _encode_values(self.values)
