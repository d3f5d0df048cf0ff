"""GET, SET, ACTION and ACCESS as a server answers them, with lists and blocks in both directions (Green Book 9.3).

One engine lives as long as an association. It keeps one transfer in blocks at a time, as the
standard's state machine does: a new request ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from concentrator.dlms import axdr
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.access import AccessKind, AccessRequest, AccessResponse, AccessSpecification
from concentrator.dlms.apdu.action import (
    ActionOutcome,
    ActionRequestNextPblock,
    ActionRequestNormal,
    ActionRequestWithFirstPblock,
    ActionRequestWithList,
    ActionRequestWithPblock,
    ActionResponseNextPblock,
    ActionResponseNormal,
    ActionResponseWithList,
    ActionResponseWithPblock,
    encode_action_outcomes,
)
from concentrator.dlms.apdu.get import (
    GetRequestNext,
    GetRequestNormal,
    GetRequestWithList,
    GetResponseNormal,
    GetResponseWithBlock,
)
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.set import (
    SetRequestNormal,
    SetRequestWithDatablock,
    SetRequestWithFirstDatablock,
    SetRequestWithList,
    SetResponseDatablock,
    SetResponseLastDatablock,
    SetResponseNormal,
    SetResponseWithList,
    read_values,
)
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, Selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult, Conformance, DataAccessResult, ServiceError, StateError
from concentrator.dlms.cosem.objects import AccessMode, CosemObject, refused
from concentrator.dlms.errors import AccessError, DecodeError, DlmsError
from concentrator.dlms.reader import Reader, encode_length
from concentrator.obis import Obis

# Octets that a client may send in blocks for one value.
_INCOMING_LIMIT = 1024 * 1024
# An answer that goes in blocks below the services may be this long.
_GBT_ROOM = 1024 * 1024
# What a response with block adds to its octets: tags, number, result choice, length.
_BLOCK_HEADER = 14
# Service class in invoke-id-and-priority: 1 is confirmed.
_SERVICE_CLASS = 0x40
_MAY_BE_UNCONFIRMED = (SetRequestNormal, SetRequestWithList, ActionRequestNormal, ActionRequestWithList)
# Bits of long-invoke-id-and-priority.
_CONFIRMED = 0x4000_0000
_BREAK_ON_ERROR = 0x2000_0000
_SELF_DESCRIPTIVE = 0x1000_0000


@dataclass(slots=True)
class _Outgoing:
    """A value that leaves in blocks: what is left of it, and what the client must ask for next."""

    pieces: Iterator[bytes]
    pending: bytes
    number: int = 0
    response: bytes = b""
    last: bool = False

    def take(self, size: int) -> tuple[bytes, bool]:
        """The next block, and whether it is the last."""
        parts = bytearray(self.pending)
        while len(parts) <= size:
            piece = next(self.pieces, None)
            if piece is None:
                self.pending = b""
                self.number += 1
                return bytes(parts), True
            parts += piece
        self.pending = bytes(parts[size:])
        self.number += 1
        return bytes(parts[:size]), False


@dataclass(slots=True)
class _Incoming:
    """A value that arrives in blocks."""

    target: SetRequestWithFirstDatablock | ActionRequestWithFirstPblock
    octets: bytearray
    number: int


class ServiceEngine:
    """The services of one association. `room` is how long a plain APDU to this client may be.

    `open` tells whether the client has proved who it is; until then only the association object is found.
    """

    def __init__(
        self,
        find: Callable[[int, Obis], CosemObject | None],
        access: Callable[[CosemObject, int], AccessMode],
        conformance: Conformance,
        room: int,
        *,
        may_invoke: Callable[[CosemObject], bool] = lambda _: True,
    ) -> None:
        self._find = find
        self._access = access
        self._may_invoke = may_invoke
        self.conformance = conformance
        self.open = False
        self.set_room(room)
        self._outgoing: _Outgoing | None = None
        self._incoming: _Incoming | None = None

    def set_room(self, room: int) -> None:
        """How long a plain APDU may be from now on: envelopes differ in what they add."""
        room = max(room, _BLOCK_HEADER + 8)
        self._get_room = self._room_for(Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ, room)
        self._action_room = self._room_for(Conformance.BLOCK_TRANSFER_WITH_ACTION, room)

    def _room_for(self, blocks: Conformance, room: int) -> int:
        """How long an answer may be: what goes in blocks below the services only is not cut here."""
        if self.conformance & blocks or not self.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            return room
        return _GBT_ROOM

    def receive(self, request: Apdu) -> Iterator[bytes]:
        """Answer one plain request; one that is unconfirmed is carried out, and not answered (9.3.4, 9.3.5)."""
        unconfirmed = isinstance(request, _MAY_BE_UNCONFIRMED) and not request.invoke & _SERVICE_CLASS
        for answer in self._answers(request):
            if not unconfirmed:
                yield answer

    def _answers(self, request: Apdu) -> Iterator[bytes]:
        if isinstance(request, GetRequestNormal):
            yield self._get(request)
        elif isinstance(request, GetRequestNext):
            yield self._get_next(request)
        elif isinstance(request, GetRequestWithList):
            yield self._get_list(request)
        elif isinstance(request, SetRequestNormal):
            result = self.write(request.attribute, request.selection, request.value)
            yield SetResponseNormal(request.invoke, result).to_bytes()
        elif isinstance(request, SetRequestWithList):
            results = self._write_all(request.attributes, request.values)
            yield SetResponseWithList(request.invoke, results).to_bytes()
        elif isinstance(request, SetRequestWithFirstDatablock | SetRequestWithDatablock):
            yield self._set_block(request)
        elif isinstance(request, ActionRequestNormal):
            yield self._action_reply(request.invoke, self.act(request.method, request.parameters))
        elif isinstance(request, ActionRequestWithList):
            yield self._action_list_reply(request.invoke, request.methods, request.parameters)
        elif isinstance(request, ActionRequestWithFirstPblock | ActionRequestWithPblock):
            yield self._action_block(request)
        elif isinstance(request, ActionRequestNextPblock):
            yield self._action_next(request)
        elif isinstance(request, AccessRequest):
            if self.conformance & Conformance.ACCESS:
                yield from self._access_all(request)
            else:
                yield ExceptionResponse(
                    StateError.SERVICE_NOT_ALLOWED, ServiceError.SERVICE_NOT_SUPPORTED
                ).to_bytes()
        else:
            yield ExceptionResponse(StateError.SERVICE_UNKNOWN, ServiceError.SERVICE_NOT_SUPPORTED).to_bytes()

    # GET

    def read(self, attribute: AttributeDescriptor, selection: Selection | None) -> Iterator[bytes]:
        """The encoded value of an attribute, cut anywhere. Raises AccessError."""
        cosem_object = self._find(attribute.class_id, attribute.obis)
        if cosem_object is None:
            raise refused(DataAccessResult.OBJECT_UNDEFINED)
        if not self._access(cosem_object, attribute.attribute).readable:
            raise refused(DataAccessResult.READ_WRITE_DENIED)
        if selection is not None and not self.conformance & Conformance.SELECTIVE_ACCESS:
            raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)
        try:
            return cosem_object.encoded(attribute.attribute, selection)
        except DecodeError:
            raise refused(DataAccessResult.TYPE_UNMATCHED) from None

    def _get(self, request: GetRequestNormal) -> bytes:
        try:
            pieces = self.read(request.attribute, request.selection)
        except AccessError as error:
            self._outgoing = None
            return GetResponseNormal(request.invoke, error.result).to_bytes()
        block, whole = self._start(pieces, self._get_room - 4)
        if whole:
            return GetResponseNormal(request.invoke, block).to_bytes()
        return self._first_block(request.invoke)

    def _start(self, pieces: Iterator[bytes], size: int) -> tuple[bytes, bool]:
        """Take a whole short value; or keep a long one as the transfer of this engine."""
        outgoing = _Outgoing(pieces, b"")
        block, whole = outgoing.take(size)
        outgoing.pending = block + outgoing.pending
        outgoing.number = 0
        self._outgoing = None if whole else outgoing
        return block, whole

    def _first_block(self, invoke: int) -> bytes:
        if not self.conformance & Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ:
            self._outgoing = None
            return GetResponseNormal(invoke, DataAccessResult.OTHER_REASON).to_bytes()
        return self._next_block(invoke)

    def _next_block(self, invoke: int) -> bytes:
        outgoing = self._outgoing
        if outgoing is None:
            return GetResponseNormal(invoke, DataAccessResult.NO_LONG_GET_IN_PROGRESS).to_bytes()
        block, outgoing.last = outgoing.take(self._get_room - _BLOCK_HEADER)
        outgoing.response = GetResponseWithBlock(invoke, outgoing.last, outgoing.number, block).to_bytes()
        return outgoing.response

    def _get_next(self, request: GetRequestNext) -> bytes:
        outgoing = self._outgoing
        if outgoing is None:
            result = DataAccessResult.NO_LONG_GET_IN_PROGRESS
        elif outgoing.number == request.block_number and not outgoing.last:
            return self._next_block(request.invoke)
        elif outgoing.number == request.block_number + 1:
            # Our answer was lost: the same block once more.
            return outgoing.response
        else:
            self._outgoing = None
            result = DataAccessResult.DATA_BLOCK_NUMBER_INVALID
        return GetResponseWithBlock(request.invoke, True, request.block_number, result).to_bytes()

    def _get_list(self, request: GetRequestWithList) -> bytes:
        block, whole = self._start(self._list_pieces(request), self._get_room - 3)
        if whole:
            return bytes((0xC4, 3, request.invoke)) + block
        return self._first_block(request.invoke)

    def _list_pieces(self, request: GetRequestWithList) -> Iterator[bytes]:
        yield encode_length(len(request.attributes))
        for attribute, selection in request.attributes:
            try:
                pieces = self.read(attribute, selection)
            except AccessError as error:
                yield bytes((1, error.result))
                continue
            yield b"\x00"
            yield from pieces

    # SET

    def _write_all(
        self, attributes: Sequence[tuple[AttributeDescriptor, Selection | None]], values: Sequence[Data]
    ) -> tuple[DataAccessResult | int, ...]:
        """Write a list; with another number of values than attributes nothing is written."""
        if len(attributes) != len(values):
            return (DataAccessResult.TYPE_UNMATCHED,) * max(1, len(attributes))
        return tuple(
            [
                self.write(attribute, selection, value)
                for (attribute, selection), value in zip(attributes, values, strict=True)
            ]
        )

    def write(
        self, attribute: AttributeDescriptor, selection: Selection | None, value: Data
    ) -> DataAccessResult | int:
        """Write an attribute; gives the result."""
        cosem_object = self._find(attribute.class_id, attribute.obis)
        if cosem_object is None:
            return DataAccessResult.OBJECT_UNDEFINED
        setter = cosem_object.setters.get(attribute.attribute)
        if setter is None or not self._access(cosem_object, attribute.attribute).writable:
            return DataAccessResult.READ_WRITE_DENIED
        if selection is not None:
            return DataAccessResult.SCOPE_OF_ACCESS_VIOLATED
        try:
            setter(value)
        except AccessError as error:
            return error.result
        except DlmsError:
            return DataAccessResult.TYPE_UNMATCHED
        return DataAccessResult.SUCCESS

    def _set_block(self, request: SetRequestWithFirstDatablock | SetRequestWithDatablock) -> bytes:
        incoming = self._take_block(request)
        if isinstance(incoming, DataAccessResult):
            self._incoming = None
            return SetResponseLastDatablock(request.invoke, (incoming,), request.block_number).to_bytes()
        if not request.last:
            return SetResponseDatablock(request.invoke, request.block_number).to_bytes()
        self._incoming = None
        target = incoming.target
        if not isinstance(target, SetRequestWithFirstDatablock):
            result = DataAccessResult.NO_LONG_SET_IN_PROGRESS
            return SetResponseLastDatablock(request.invoke, (result,), request.block_number).to_bytes()
        results: tuple[DataAccessResult | int, ...]
        try:
            if target.with_list:
                reader = Reader(bytes(incoming.octets))
                values = read_values(reader)
                reader.finish("the values")
            else:
                values = (axdr.decode(bytes(incoming.octets)),)
            results = self._write_all(target.attributes, values)
        except DecodeError:
            results = (DataAccessResult.TYPE_UNMATCHED,) * max(1, len(target.attributes))
        return SetResponseLastDatablock(
            request.invoke, results, request.block_number, target.with_list
        ).to_bytes()

    def _take_block(
        self,
        request: SetRequestWithFirstDatablock
        | SetRequestWithDatablock
        | ActionRequestWithFirstPblock
        | ActionRequestWithPblock,
    ) -> _Incoming | DataAccessResult:
        if isinstance(request, SetRequestWithFirstDatablock | ActionRequestWithFirstPblock):
            if request.block_number != 1:
                return DataAccessResult.DATA_BLOCK_NUMBER_INVALID
            self._incoming = incoming = _Incoming(request, bytearray(request.block), 1)
            return incoming
        incoming = self._incoming
        if incoming is None:
            return DataAccessResult.NO_LONG_SET_IN_PROGRESS
        if request.block_number == incoming.number and not request.last:
            # Our acknowledgement was lost: the same block once more.
            return incoming
        if request.block_number != incoming.number + 1:
            return DataAccessResult.DATA_BLOCK_NUMBER_INVALID
        if len(incoming.octets) + len(request.block) > _INCOMING_LIMIT:
            return DataAccessResult.LONG_SET_ABORTED
        incoming.number += 1
        incoming.octets += request.block
        return incoming

    # ACTION

    def act(self, method: MethodDescriptor, parameters: Data | None) -> ActionOutcome:
        """Invoke a method; gives the outcome."""
        cosem_object = self._find(method.class_id, method.obis)
        if cosem_object is None:
            return ActionOutcome(ActionResult.OBJECT_UNDEFINED)
        function = cosem_object.methods.get(method.method)
        if function is None or not self._may_invoke(cosem_object):
            return ActionOutcome(ActionResult.READ_WRITE_DENIED)
        try:
            return ActionOutcome(ActionResult.SUCCESS, function(parameters))
        except AccessError as error:
            return ActionOutcome(error.result)
        except DlmsError:
            return ActionOutcome(ActionResult.TYPE_UNMATCHED)

    def _act_all(
        self, methods: Sequence[MethodDescriptor], parameters: Sequence[Data]
    ) -> tuple[ActionOutcome, ...]:
        """Invoke a list; with another number of parameters than methods nothing is invoked."""
        if len(methods) != len(parameters):
            return (ActionOutcome(ActionResult.TYPE_UNMATCHED),) * max(1, len(methods))
        return tuple(
            [
                self.act(method, None if value.is_null else value)
                for method, value in zip(methods, parameters, strict=True)
            ]
        )

    def _action_list_reply(
        self, invoke: int, methods: Sequence[MethodDescriptor], parameters: Sequence[Data]
    ) -> bytes:
        outcomes = self._act_all(methods, parameters)
        whole = ActionResponseWithList(invoke, outcomes).to_bytes()
        return self._action_whole(invoke, whole, encode_action_outcomes(outcomes))

    def _action_reply(self, invoke: int, outcome: ActionOutcome) -> bytes:
        whole = ActionResponseNormal(invoke, outcome).to_bytes()
        returned = outcome.returned
        # What goes in blocks is the value alone: only success returns one.
        return self._action_whole(invoke, whole, returned.to_bytes() if isinstance(returned, Data) else b"")

    def _action_whole(self, invoke: int, whole: bytes, octets: bytes) -> bytes:
        if len(whole) <= self._action_room:
            return whole
        self._outgoing = _Outgoing(iter(()), octets)
        return self._action_piece(invoke)

    def _action_piece(self, invoke: int) -> bytes:
        outgoing = self._outgoing
        if outgoing is None or outgoing.last:
            outcome = ActionOutcome(ActionResult.NO_LONG_ACTION_IN_PROGRESS)
            return ActionResponseNormal(invoke, outcome).to_bytes()
        block, outgoing.last = outgoing.take(self._action_room - _BLOCK_HEADER)
        outgoing.response = ActionResponseWithPblock(invoke, outgoing.last, outgoing.number, block).to_bytes()
        return outgoing.response

    def _action_next(self, request: ActionRequestNextPblock) -> bytes:
        outgoing = self._outgoing
        if outgoing is not None and outgoing.number == request.block_number + 1:
            return outgoing.response
        if outgoing is not None and outgoing.number != request.block_number:
            self._outgoing = None
        return self._action_piece(request.invoke)

    def _action_block(self, request: ActionRequestWithFirstPblock | ActionRequestWithPblock) -> bytes:
        incoming = self._take_block(request)
        if isinstance(incoming, DataAccessResult):
            self._incoming = None
            outcome = ActionOutcome(ActionResult.LONG_ACTION_ABORTED)
            return ActionResponseNormal(request.invoke, outcome).to_bytes()
        if not request.last:
            return ActionResponseNextPblock(request.invoke, request.block_number).to_bytes()
        self._incoming = None
        target = incoming.target
        if not isinstance(target, ActionRequestWithFirstPblock):
            outcome = ActionOutcome(ActionResult.NO_LONG_ACTION_IN_PROGRESS)
            return ActionResponseNormal(request.invoke, outcome).to_bytes()
        try:
            if not target.with_list:
                parameters = axdr.decode(bytes(incoming.octets))
                return self._action_reply(request.invoke, self.act(target.methods[0], parameters))
            reader = Reader(bytes(incoming.octets))
            values = read_values(reader)
        except DecodeError:
            outcome = ActionOutcome(ActionResult.TYPE_UNMATCHED)
            return ActionResponseNormal(request.invoke, outcome).to_bytes()
        return self._action_list_reply(request.invoke, target.methods, values)

    # ACCESS

    def _access_all(self, request: AccessRequest) -> Iterator[bytes]:
        """Each element in its order; after a refusal the rest is left out where the client wants that."""
        if len(request.specifications) != len(request.values):
            yield ExceptionResponse(
                StateError.SERVICE_NOT_ALLOWED, ServiceError.OPERATION_NOT_POSSIBLE
            ).to_bytes()
            return
        values: list[Data] = []
        results: list[tuple[int, int]] = []
        broken = False
        for specification, value in zip(request.specifications, request.values, strict=True):
            returned, result = (
                (axdr.NULL, int(DataAccessResult.OTHER_REASON))
                if broken
                else self._access_one(specification, value)
            )
            kind = specification.kind
            values.append(returned)
            results.append((kind - 3 if kind > AccessKind.ACTION else kind, result))
            broken = broken or (result != 0 and bool(request.long_invoke & _BREAK_ON_ERROR))
        if request.long_invoke & _CONFIRMED:
            repeated = request.specifications if request.long_invoke & _SELF_DESCRIPTIVE else None
            yield AccessResponse(
                request.long_invoke, None, repeated, tuple(values), tuple(results)
            ).to_bytes()

    def _access_one(self, specification: AccessSpecification, value: Data) -> tuple[Data, int]:
        target, selection = specification.target, specification.selection
        if isinstance(target, MethodDescriptor):
            outcome = self.act(target, None if value.is_null else value)
            returned = outcome.returned
            return (returned if isinstance(returned, Data) else axdr.NULL), outcome.result
        if specification.kind in (AccessKind.SET, AccessKind.SET_WITH_SELECTION):
            return axdr.NULL, self.write(target, selection, value)
        try:
            return axdr.decode(b"".join(self.read(target, selection))), DataAccessResult.SUCCESS
        except AccessError as error:
            return axdr.NULL, error.result
