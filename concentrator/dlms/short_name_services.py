"""READ and WRITE as a server answers them: short names, parameterized access, blocks (Green Book 9.3.14, 9.5)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping

from concentrator.dlms import axdr
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.short_name import (
    BlockNumberAccess,
    BlockReceived,
    ReadBlock,
    ReadRequest,
    ReadResponse,
    ReadResult,
    ResultBlock,
    VariableAccess,
    VariableName,
    WriteRequest,
    WriteResponse,
)
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, Selection
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult, Conformance, DataAccessResult, ServiceError, StateError
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem.short_names import (
    ASSOCIATION_SN_BASE,
    READ_BY_LOGICAL_NAME,
    REPLY_TO_HLS,
    method_offset,
)
from concentrator.dlms.errors import AccessError, DecodeError, DlmsError
from concentrator.dlms.reader import Reader
from concentrator.dlms.services import ServiceEngine

_INCOMING_LIMIT = 1024 * 1024
# Tag, counts, choice, block number and length of a response with one block.
_BLOCK_OVERHEAD = 12
_OBJECT_LIST = ASSOCIATION_SN_BASE + 8


class ShortNameEngine:
    """The services of one association by short names, over the access to objects that `engine` has.

    `names` gives the base names; `object_list` and `reply_to_hls` are those of the Association SN object.
    """

    def __init__(
        self,
        engine: ServiceEngine,
        names: Callable[[], Mapping[int, CosemObject]],
        object_list: Callable[[], Data],
        reply_to_hls: Callable[[Data | None], Data | None],
        room: int,
    ) -> None:
        self.conformance = engine.conformance
        self._engine = engine
        self._names = names
        self._object_list = object_list
        self._reply_to_hls = reply_to_hls
        self.set_room(room)
        self._outgoing: list[bytes] = []
        self._incoming = bytearray()
        self._incoming_number: int = 0

    def set_room(self, room: int) -> None:
        """How long a plain APDU may be from now on."""
        self._size = max(room - _BLOCK_OVERHEAD, 8)

    def receive(self, request: Apdu) -> Iterator[bytes]:
        """Answer one plain request."""
        if isinstance(request, ReadRequest):
            yield self._read_request(request)
        elif isinstance(request, WriteRequest):
            response = self._write_request(request)
            if request.confirmed:
                yield response
        else:
            yield ExceptionResponse(StateError.SERVICE_UNKNOWN, ServiceError.SERVICE_NOT_SUPPORTED).to_bytes()

    # READ

    def _read_request(self, request: ReadRequest) -> bytes:
        first = request.variables[0] if request.variables else None
        if isinstance(first, ReadBlock):
            return self._read_block(first, len(request.variables))
        if isinstance(first, BlockNumberAccess):
            return ReadResponse((self._next_block(first.block_number),)).to_bytes()
        results = tuple([self._read(variable) for variable in request.variables])
        response = ReadResponse(results).to_bytes()
        if len(response) <= self._size + _BLOCK_OVERHEAD:
            return response
        if not self.conformance & Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ:
            return ReadResponse((DataAccessResult.OTHER_REASON,) * len(results)).to_bytes()
        # A single value goes in blocks as it is, a list with its count and choices.
        octets = results[0].to_bytes() if len(results) == 1 and isinstance(results[0], Data) else response[1:]
        self._outgoing = [octets[start : start + self._size] for start in range(0, len(octets), self._size)]
        return ReadResponse((self._next_block(0),)).to_bytes()

    def _next_block(self, received: int) -> ReadResult:
        if not self._outgoing:
            return DataAccessResult.NO_LONG_GET_IN_PROGRESS
        if received >= len(self._outgoing):
            self._outgoing = []
            return DataAccessResult.DATA_BLOCK_NUMBER_INVALID
        return ResultBlock(received + 1 == len(self._outgoing), received + 1, self._outgoing[received])

    def _read_block(self, block: ReadBlock, count: int) -> bytes:
        """A long request comes in blocks, joined to the contents of one."""
        failure = self._collect(block, block.octets or b"", count)
        if failure is not None:
            return ReadResponse((failure,)).to_bytes()
        if not block.last:
            return ReadResponse((BlockReceived(block.block_number),)).to_bytes()
        reader = Reader(bytes(self._incoming))
        self._incoming_number = 0
        try:
            whole = ReadRequest.read(reader)
            reader.finish("a read-request in blocks")
        except DecodeError:
            return ReadResponse((DataAccessResult.TYPE_UNMATCHED,)).to_bytes()
        if any(isinstance(variable, ReadBlock) for variable in whole.variables):
            return ReadResponse((DataAccessResult.DATA_BLOCK_UNAVAILABLE,)).to_bytes()
        return self._read_request(whole)

    def _read(self, variable: VariableAccess) -> ReadResult:
        if not isinstance(variable, VariableName):
            return DataAccessResult.DATA_BLOCK_UNAVAILABLE
        try:
            return self._read_name(variable)
        except AccessError as error:
            return error.result
        except DlmsError:
            return DataAccessResult.TYPE_UNMATCHED

    def _read_name(self, variable: VariableName) -> ReadResult:
        name = variable.name
        if name == REPLY_TO_HLS:
            return self._reply_to_hls(variable.parameter) or axdr.NULL
        if name == _OBJECT_LIST and self._engine.open:
            return self._object_list()
        if name == READ_BY_LOGICAL_NAME and self._engine.open and variable.parameter is not None:
            return self._by_logical_name(variable.parameter)
        found = self._find(name)
        if found is None:
            return DataAccessResult.OBJECT_UNDEFINED
        cosem_object, offset = found
        methods = method_offset(cosem_object.class_id, cosem_object.version)
        if methods is not None and offset >= methods:
            method = MethodDescriptor(cosem_object.class_id, cosem_object.obis, (offset - methods) // 8 + 1)
            outcome = self._engine.act(method, variable.parameter)
            if outcome.result != ActionResult.SUCCESS:
                return outcome.result
            return axdr.NULL if outcome.returned is None else outcome.returned
        selection = None
        if variable.selector is not None and variable.parameter is not None:
            selection = Selection(variable.selector, variable.parameter)
        attribute = AttributeDescriptor(cosem_object.class_id, cosem_object.obis, offset // 8 + 1)
        return axdr.decode(b"".join(self._engine.read(attribute, selection)))

    def _by_logical_name(self, parameter: Data) -> Data:
        """Several attributes by class, logical name and number, as read_by_logicalname gives them."""
        values: list[Data] = []
        for item in parameter.items():
            class_id, name, attribute = item.items(3)[:3]
            octets = name.octets()
            wanted = next(
                (
                    o
                    for o in self._names().values()
                    if (o.class_id, bytes(o.obis)) == (class_id.integer(), octets)
                ),
                None,
            )
            if wanted is None:
                values.append(axdr.NULL)
                continue
            descriptor = AttributeDescriptor(wanted.class_id, wanted.obis, attribute.integer())
            values.append(axdr.decode(b"".join(self._engine.read(descriptor, None))))
        return axdr.array(*values)

    def _find(self, name: int) -> tuple[CosemObject, int] | None:
        """The object that a name belongs to, and the offset within it."""
        if not self._engine.open or name % 8:
            return None
        names = self._names()
        bases = list(names)
        index = bisect_right(bases, name) - 1
        return None if index < 0 else (names[bases[index]], name - bases[index])

    # WRITE

    def _write_request(self, request: WriteRequest) -> bytes:
        first = request.variables[0] if request.variables else None
        if isinstance(first, ReadBlock):
            return self._write_block(first, request)
        if len(request.variables) != len(request.values):
            return WriteResponse((DataAccessResult.TYPE_UNMATCHED,) * len(request.variables)).to_bytes()
        results: list[DataAccessResult | int | BlockReceived | None] = []
        for variable, value in zip(request.variables, request.values, strict=True):
            result = self._write(variable, value)
            results.append(None if result == DataAccessResult.SUCCESS else result)
        return WriteResponse(tuple(results)).to_bytes()

    def _write_block(self, block: ReadBlock, request: WriteRequest) -> bytes:
        octets = request.values[0].value if request.values else None
        failure = (
            self._collect(block, octets, len(request.variables))
            if isinstance(octets, bytes) and block.octets is None
            else DataAccessResult.DATA_BLOCK_UNAVAILABLE
        )
        if failure is not None:
            return WriteResponse((failure,)).to_bytes()
        if not block.last:
            return WriteResponse((BlockReceived(block.block_number),)).to_bytes()
        reader = Reader(bytes(self._incoming))
        self._incoming_number = 0
        try:
            whole = WriteRequest.read(0x06, reader)
            reader.finish("a write-request in blocks")
        except DecodeError:
            return WriteResponse((DataAccessResult.TYPE_UNMATCHED,)).to_bytes()
        if any(isinstance(variable, ReadBlock) for variable in whole.variables):
            return WriteResponse((DataAccessResult.DATA_BLOCK_UNAVAILABLE,)).to_bytes()
        return self._write_request(whole)

    def _write(self, variable: VariableAccess, value: Data) -> int:
        if not isinstance(variable, VariableName):
            return DataAccessResult.DATA_BLOCK_UNAVAILABLE
        found = self._find(variable.name)
        if found is None:
            return DataAccessResult.OBJECT_UNDEFINED
        cosem_object, offset = found
        attribute = AttributeDescriptor(cosem_object.class_id, cosem_object.obis, offset // 8 + 1)
        return self._engine.write(attribute, None, value)

    def _collect(self, block: ReadBlock, octets: bytes, count: int) -> DataAccessResult | None:
        """Take one block of a long request; gives why it cannot be taken."""
        if count != 1:
            return DataAccessResult.DATA_BLOCK_UNAVAILABLE
        if block.block_number == self._incoming_number != 0:
            # Our acknowledgement was lost: the same block once more.
            return None
        if block.block_number == 1:
            self._incoming = bytearray()
            self._incoming_number = 0
        if block.block_number != self._incoming_number + 1:
            self._incoming_number = 0
            return DataAccessResult.DATA_BLOCK_NUMBER_INVALID
        if len(self._incoming) + len(octets) > _INCOMING_LIMIT:
            self._incoming_number = 0
            return DataAccessResult.LONG_SET_ABORTED
        self._incoming_number = block.block_number
        self._incoming += octets
        return None
