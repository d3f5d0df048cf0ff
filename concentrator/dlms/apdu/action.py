"""ACTION request and response, whole, as a list, and in blocks (Green Book 9.3.5, 9.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult, DataAccessResult, named
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader, encode_length, encode_octet_string

ACTION_REQUEST = 0xC3
ACTION_RESPONSE = 0xC7


@dataclass(frozen=True, slots=True)
class ActionRequestNormal:
    """Invoke one method; `parameters` None where it has none."""

    TAG: ClassVar[int] = ACTION_REQUEST
    invoke: int
    method: MethodDescriptor
    parameters: Data | None = None

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        parameters = b"\x00" if self.parameters is None else b"\x01" + self.parameters.to_bytes()
        return bytes((ACTION_REQUEST, 1, self.invoke)) + self.method.to_bytes() + parameters


@dataclass(frozen=True, slots=True)
class ActionRequestNextPblock:
    """Ask for the block of return parameters after `block_number`."""

    TAG: ClassVar[int] = ACTION_REQUEST
    invoke: int
    block_number: int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((ACTION_REQUEST, 2, self.invoke)) + self.block_number.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class ActionRequestWithList:
    """Invoke several methods; each with its parameters (null-data where it has none)."""

    TAG: ClassVar[int] = ACTION_REQUEST
    invoke: int
    methods: tuple[MethodDescriptor, ...]
    parameters: tuple[Data, ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        methods = encode_length(len(self.methods)) + b"".join(method.to_bytes() for method in self.methods)
        values = encode_length(len(self.parameters)) + b"".join(data.to_bytes() for data in self.parameters)
        return bytes((ACTION_REQUEST, 3, self.invoke)) + methods + values


@dataclass(frozen=True, slots=True)
class ActionRequestWithFirstPblock:
    """Invoke a method, or several, whose parameters are too long for one APDU: the first block."""

    TAG: ClassVar[int] = ACTION_REQUEST
    invoke: int
    methods: tuple[MethodDescriptor, ...]
    last: bool
    block_number: int
    block: bytes
    with_list: bool = False

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        methods = b"".join(method.to_bytes() for method in self.methods)
        if self.with_list:
            methods = encode_length(len(self.methods)) + methods
        head = bytes((ACTION_REQUEST, 5 if self.with_list else 4, self.invoke))
        return head + methods + _encode_block(self.last, self.block_number, self.block)


@dataclass(frozen=True, slots=True)
class ActionRequestWithPblock:
    """A further block of parameters."""

    TAG: ClassVar[int] = ACTION_REQUEST
    invoke: int
    last: bool
    block_number: int
    block: bytes

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((ACTION_REQUEST, 6, self.invoke)) + _encode_block(
            self.last, self.block_number, self.block
        )


ActionRequest: TypeAlias = (
    ActionRequestNormal
    | ActionRequestNextPblock
    | ActionRequestWithList
    | ActionRequestWithFirstPblock
    | ActionRequestWithPblock
)


def _encode_block(last: bool, number: int, block: bytes) -> bytes:  # noqa: FBT001
    return bytes((last,)) + number.to_bytes(4, "big") + encode_octet_string(block)


def _read_methods(reader: Reader) -> tuple[MethodDescriptor, ...]:
    count = reader.length()
    if count * 9 > reader.end - reader.offset:
        raise DecodeError(f"an action-request claims {count} methods, more than octets left")
    return tuple([MethodDescriptor.read(reader) for _ in range(count)])


def read_action_request(reader: Reader) -> ActionRequest:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        method = MethodDescriptor.read(reader)
        return ActionRequestNormal(invoke, method, axdr.read(reader) if reader.flag() else None)
    if choice == 2:
        return ActionRequestNextPblock(invoke, reader.unsigned(4))
    if choice == 3:
        methods = _read_methods(reader)
        count = reader.length()
        if count > reader.end - reader.offset:
            raise DecodeError(f"an action-request claims {count} parameters, more than octets left")
        return ActionRequestWithList(invoke, methods, tuple([axdr.read(reader) for _ in range(count)]))
    if choice in (4, 5):
        methods = _read_methods(reader) if choice == 5 else (MethodDescriptor.read(reader),)
        last, number, block = reader.flag(), reader.unsigned(4), reader.octet_string()
        return ActionRequestWithFirstPblock(invoke, methods, last, number, block, choice == 5)
    if choice == 6:
        return ActionRequestWithPblock(invoke, reader.flag(), reader.unsigned(4), reader.octet_string())
    raise DecodeError(f"action-request has no choice {choice}")


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """The result of one method, and what it returned: a value, a data-access-result, or nothing."""

    result: ActionResult | int
    returned: Data | DataAccessResult | int | None = None

    def to_bytes(self) -> bytes:
        """Action-Response-With-Optional-Data."""
        head = bytes((self.result,))
        if self.returned is None:
            return head + b"\x00"
        if isinstance(self.returned, Data):
            return head + b"\x01\x00" + self.returned.to_bytes()
        return head + b"\x01\x01" + bytes((self.returned,))

    @classmethod
    def read(cls, reader: Reader) -> ActionOutcome:
        """Take one outcome. Raises DecodeError."""
        result = named(ActionResult, reader.octet())
        if not reader.flag():
            return cls(result)
        choice = reader.octet()
        if choice == 0:
            return cls(result, axdr.read(reader))
        if choice == 1:
            return cls(result, named(DataAccessResult, reader.octet()))
        raise DecodeError(f"get-data-result has no choice {choice}")


def encode_action_outcomes(outcomes: tuple[ActionOutcome, ...]) -> bytes:
    """The outcomes of a list of methods, as a response carries them whole or in blocks."""
    return encode_length(len(outcomes)) + b"".join(outcome.to_bytes() for outcome in outcomes)


def read_action_outcomes(reader: Reader) -> tuple[ActionOutcome, ...]:
    """Take the outcomes of a list of methods. Raises DecodeError."""
    count = reader.length()
    if count * 2 > reader.end - reader.offset:
        raise DecodeError(f"an action-response claims {count} results, more than octets left")
    return tuple([ActionOutcome.read(reader) for _ in range(count)])


@dataclass(frozen=True, slots=True)
class ActionResponseNormal:
    """What became of one method."""

    TAG: ClassVar[int] = ACTION_RESPONSE
    invoke: int
    outcome: ActionOutcome

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((ACTION_RESPONSE, 1, self.invoke)) + self.outcome.to_bytes()


@dataclass(frozen=True, slots=True)
class ActionResponseWithPblock:
    """One block of return parameters."""

    TAG: ClassVar[int] = ACTION_RESPONSE
    invoke: int
    last: bool
    block_number: int
    block: bytes

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = bytes((ACTION_RESPONSE, 2, self.invoke))
        return head + _encode_block(self.last, self.block_number, self.block)


@dataclass(frozen=True, slots=True)
class ActionResponseWithList:
    """What became of several methods, in the order asked for."""

    TAG: ClassVar[int] = ACTION_RESPONSE
    invoke: int
    outcomes: tuple[ActionOutcome, ...]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((ACTION_RESPONSE, 3, self.invoke)) + encode_action_outcomes(self.outcomes)


@dataclass(frozen=True, slots=True)
class ActionResponseNextPblock:
    """A block of parameters arrived; the next one may come."""

    TAG: ClassVar[int] = ACTION_RESPONSE
    invoke: int
    block_number: int

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((ACTION_RESPONSE, 4, self.invoke)) + self.block_number.to_bytes(4, "big")


ActionResponse: TypeAlias = (
    ActionResponseNormal | ActionResponseWithPblock | ActionResponseWithList | ActionResponseNextPblock
)


def read_action_response(reader: Reader) -> ActionResponse:
    """Take the contents behind the tag. Raises DecodeError."""
    choice = reader.octet()
    invoke = reader.octet()
    if choice == 1:
        return ActionResponseNormal(invoke, ActionOutcome.read(reader))
    if choice == 2:
        return ActionResponseWithPblock(invoke, reader.flag(), reader.unsigned(4), reader.octet_string())
    if choice == 3:
        return ActionResponseWithList(invoke, read_action_outcomes(reader))
    if choice == 4:
        return ActionResponseNextPblock(invoke, reader.unsigned(4))
    raise DecodeError(f"action-response has no choice {choice}")
