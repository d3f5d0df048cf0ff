"""The client's side of a dialogue by short names (Green Book 9.3.14 to 9.3.17), for older meters.

Attributes are asked for as everywhere, by class, logical name and number: the meter's own object list, which
`read_names` fetches, tells the number of 16 bits that each has there.
"""

from __future__ import annotations

from collections.abc import Sequence

from concentrator.dlms import axdr
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.short_name import (
    BlockNumberAccess,
    BlockReceived,
    ReadBlock,
    ReadRequest,
    ReadResponse,
    ReadResult,
    ResultBlock,
    VariableName,
    WriteRequest,
    WriteResponse,
)
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, selection_of
from concentrator.dlms.axdr import Data
from concentrator.dlms.client_association import AssociationClient
from concentrator.dlms.codes import ApplicationContext, Conformance, DataAccessResult
from concentrator.dlms.cosem.short_names import ASSOCIATION_SN_BASE, REPLY_TO_HLS, method_offset
from concentrator.dlms.errors import AccessError, DecodeError, EncodeError, UnexpectedReplyError
from concentrator.dlms.exchange import Conversation, Selectable
from concentrator.dlms.reader import Reader
from concentrator.obis import Obis

DEFAULT_SHORT_NAME_CONFORMANCE = (
    Conformance.READ
    | Conformance.WRITE
    | Conformance.MULTIPLE_REFERENCES
    | Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ
    | Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE
    | Conformance.PARAMETERIZED_ACCESS
    | Conformance.INFORMATION_REPORT
)
_ASSOCIATION_SN = (12, Obis(0, 0, 40, 0, 0, 255))
_OBJECT_LIST = ASSOCIATION_SN_BASE + 8
# Names in one request at most: all meters can count that far.
_LIST_LIMIT = 64
# Tag, counts, choice, block number, type and length of a request with one block.
_BLOCK_OVERHEAD = 14


class ShortNameClient(AssociationClient):
    """One association with one meter, by short names. `names` gives base name and version of each object.

    The settings' conformance must propose READ and WRITE: `DEFAULT_SHORT_NAME_CONFORMANCE`.
    """

    CONTEXT = ApplicationContext.SHORT_NAME
    CIPHERED_CONTEXT = ApplicationContext.SHORT_NAME_CIPHERED
    names: dict[tuple[int, Obis], tuple[int, int]] | None = None

    def _reply_to_hls(self, proof: bytes) -> Conversation[bytes | None]:
        (result,) = yield from self._read([VariableName(REPLY_TO_HLS, 1, axdr.octet_string(proof))])
        if not isinstance(result, Data):
            raise AccessError(result, "the authentication")
        return result.octets()

    def read_names(self) -> Conversation[dict[tuple[int, Obis], tuple[int, int]]]:
        """Read the object list: which short name each object has, and its class's version."""
        self.start_service()
        (listed,) = yield from self._read([VariableName(_OBJECT_LIST)])
        if not isinstance(listed, Data):
            raise AccessError(listed, "reading the object list")
        names: dict[tuple[int, Obis], tuple[int, int]] = {}
        for item in listed.items():
            base, class_id, version, name = item.items(4)[:4]
            octets = name.octets()
            if len(octets) != 6:
                raise DecodeError(f"a logical name has 6 octets, got {octets.hex()}")
            names[class_id.integer(), Obis(*octets)] = base.integer() & 0xFFFF, version.integer()
        self.names = names
        return names

    def _base(self, class_id: int, obis: Obis) -> Conversation[tuple[int, int] | None]:
        if (class_id, obis) == _ASSOCIATION_SN:
            return ASSOCIATION_SN_BASE, 4
        names = self.names
        if names is None:
            names = yield from self.read_names()
        return names.get((class_id, obis))

    def _variable(self, attribute: AttributeDescriptor, selectable: Selectable) -> Conversation[VariableName]:
        base = yield from self._base(attribute.class_id, attribute.obis)
        if base is None:
            raise AccessError(DataAccessResult.OBJECT_UNDEFINED, str(attribute))
        name = base[0] + 8 * (attribute.attribute - 1)
        selection = selection_of(selectable)
        return VariableName(name) if selection is None else VariableName(name, *selection)

    # Reading

    def get(self, attribute: AttributeDescriptor, selection: Selectable = None) -> Conversation[Data]:
        """Read one attribute. Raises AccessError where the meter refuses."""
        (result,) = yield from self.get_many([(attribute, selection)])
        if isinstance(result, AccessError):
            raise result
        return result

    def get_many(
        self, attributes: Sequence[AttributeDescriptor | tuple[AttributeDescriptor, Selectable]]
    ) -> Conversation[list[Data | AccessError]]:
        """Read several attributes; each gives a value or why it has none."""
        self.start_service()
        pairs = [(item, None) if isinstance(item, AttributeDescriptor) else item for item in attributes]
        results: list[Data | AccessError] = [
            AccessError(DataAccessResult.OBJECT_UNDEFINED, f"reading {attribute}") for attribute, _ in pairs
        ]
        wanted: list[tuple[int, VariableName]] = []
        for index, (attribute, selection) in enumerate(pairs):
            try:
                wanted.append((index, (yield from self._variable(attribute, selection))))
            except AccessError:
                continue
        limit = _LIST_LIMIT if self.conformance & Conformance.MULTIPLE_REFERENCES else 1
        for start in range(0, len(wanted), limit):
            batch = wanted[start : start + limit]
            found = yield from self._read([variable for _, variable in batch])
            for (index, _), result in zip(batch, found, strict=True):
                what = f"reading {pairs[index][0]}"
                results[index] = result if isinstance(result, Data) else AccessError(result, what)
        return results

    def _read(self, variables: Sequence[VariableName]) -> Conversation[list[Data | int]]:
        """READ, its answer in blocks where it is long."""
        reply = yield from self._ask(ReadRequest(tuple(variables)).to_bytes(), variables=len(variables))
        if not isinstance(reply, ReadResponse):
            raise UnexpectedReplyError(f"READ was answered with {type(reply).__name__}")
        results = reply.results
        if len(results) == 1 and isinstance(results[0], ResultBlock):
            octets = yield from self._collect(results[0])
            results = _results(octets, len(variables))
        if len(results) == 1 and len(variables) > 1 and isinstance(results[0], int):
            results *= len(variables)
        if len(results) != len(variables):
            raise UnexpectedReplyError(f"{len(variables)} names were read, {len(results)} results came")
        values: list[Data | int] = []
        for result in results:
            if isinstance(result, ResultBlock | BlockReceived):
                raise UnexpectedReplyError("a block within a list of results")
            values.append(result)
        return values

    def _collect(self, block: ResultBlock) -> Conversation[bytes]:
        blocks: list[bytes] = []
        total = 0
        while True:
            if block.block_number != len(blocks) + 1:
                raise UnexpectedReplyError(f"block {block.block_number} came after block {len(blocks)}")
            blocks.append(block.octets)
            total += len(block.octets)
            if block.last:
                return b"".join(blocks)
            if total > self.settings.max_value_octets:
                raise UnexpectedReplyError(f"the value is longer than {total} octets")
            request = ReadRequest((BlockNumberAccess(len(blocks)),)).to_bytes()
            reply = yield from self._ask(request, have=len(blocks), repeatable=True)
            result = reply.results[0] if isinstance(reply, ReadResponse) and len(reply.results) == 1 else None
            if isinstance(result, int):
                raise AccessError(result, f"block {len(blocks) + 1}")
            if not isinstance(result, ResultBlock):
                raise UnexpectedReplyError("the next block of a value was answered with something else")
            block = result

    # Writing and acting

    def set(
        self, attribute: AttributeDescriptor, value: Data, selection: Selectable = None
    ) -> Conversation[None]:
        """Write one attribute, in blocks where it is long. Raises AccessError where the meter refuses."""
        self.start_service()
        variable = yield from self._variable(attribute, selection)
        (result,) = yield from self._write([(variable, value)])
        if result is not None:
            raise AccessError(result, f"writing {attribute}")

    def set_many(
        self, items: Sequence[tuple[AttributeDescriptor, Data]]
    ) -> Conversation[list[AccessError | None]]:
        """Write several attributes at once; each gives None or why it was refused."""
        self.start_service()
        named: list[tuple[VariableName, Data]] = []
        for attribute, value in items:
            variable = yield from self._variable(attribute, None)
            named.append((variable, value))
        if self.conformance & Conformance.MULTIPLE_REFERENCES:
            results = yield from self._write(named)
        else:
            results: list[int | None] = []
            for pair in named:
                results += yield from self._write([pair])
        return [
            None if result is None else AccessError(result, f"writing {attribute}")
            for (attribute, _), result in zip(items, results, strict=True)
        ]

    def action(self, method: MethodDescriptor, parameters: Data | None = None) -> Conversation[Data | None]:
        """Invoke a method: READ of its name with the parameters. Raises AccessError where the meter refuses."""
        self.start_service()
        base = yield from self._base(method.class_id, method.obis)
        offset = method_offset(method.class_id, base[1] if base else None)
        if base is None or offset is None:
            raise AccessError(DataAccessResult.OBJECT_UNDEFINED, f"invoking {method}")
        name = base[0] + offset + 8 * (method.method - 1)
        (result,) = yield from self._read([VariableName(name, 0, parameters or axdr.NULL)])
        if not isinstance(result, Data):
            raise AccessError(result, f"invoking {method}")
        return None if result.is_null else result

    def _write(self, items: Sequence[tuple[VariableName, Data]]) -> Conversation[list[int | None]]:
        request = WriteRequest(
            tuple(name for name, _ in items), tuple(value for _, value in items)
        ).to_bytes()
        if len(request) <= self.room():
            reply = yield from self._ask(request, variables=len(items))
        else:
            reply = yield from self._write_blocks(request[1:], len(items))
        results = reply.results if isinstance(reply, WriteResponse) else ()
        if len(results) == 1 and len(items) > 1:
            results *= len(items)
        if len(results) != len(items):
            raise UnexpectedReplyError(f"{len(items)} names were written, {len(results)} results came")
        # To the last block some meters answer only that they have it.
        return [None if isinstance(result, BlockReceived) else result for result in results]

    def _write_blocks(self, octets: bytes, variables: int) -> Conversation[Apdu]:
        size = self.room() - _BLOCK_OVERHEAD
        if size < 1:
            raise EncodeError(f"the meter's APDU size of {self.max_send_size} leaves no room for a block")
        blocks = [octets[start : start + size] for start in range(0, len(octets), size)]
        reply: Apdu | None = None
        for number, block in enumerate(blocks, 1):
            last = number == len(blocks)
            request = WriteRequest((ReadBlock(last, number, None),), (axdr.octet_string(block),)).to_bytes()
            reply = yield from self._ask(
                request, variables=variables, acknowledged=number - 1, repeatable=not last
            )
            if not isinstance(reply, WriteResponse) or reply.results != (BlockReceived(number),):
                break
        assert reply is not None  # noqa: S101
        return reply

    def _ask(
        self,
        request: bytes,
        *,
        variables: int = 1,
        have: int = 0,
        acknowledged: int = 0,
        repeatable: bool = False,
    ) -> Conversation[Apdu]:
        """The reply to a request. There are no invoke-ids here: late answers are told by their block numbers."""
        kind = WriteResponse if request[0] == 0x06 else ReadResponse

        def belongs(reply: Apdu) -> bool:
            if not isinstance(reply, kind) or len(reply.results) not in (1, variables):
                return False
            first: ReadResult | None = reply.results[0] if reply.results else None
            if isinstance(first, ResultBlock):
                return first.block_number > have
            if isinstance(first, BlockReceived):
                return first.block_number > acknowledged
            return True

        return (yield from self.ask(request, belongs, repeatable=repeatable))


def _results(octets: bytes, count: int) -> tuple[ReadResult, ...]:
    """What came in blocks: one bare value, or a list of results as in a whole response."""
    if count == 1:
        return (axdr.decode(octets),)
    reader = Reader(octets)
    response = ReadResponse.read(reader)
    reader.finish("the results in blocks")
    return response.results
