"""The client's side of a dialogue with a meter by logical names (Green Book 9.3, 9.4), as conversations.

GET, SET and ACTION, single, with list, and in blocks; ACCESS. How one request is exchanged for its answer is in
`exchange`, the association in `client_association`, short names in `short_name_client`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

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
    read_action_outcomes,
)
from concentrator.dlms.apdu.get import (
    GetRequestNext,
    GetRequestNormal,
    GetRequestWithList,
    GetResponseNormal,
    GetResponseWithBlock,
    GetResponseWithList,
    read_get_results,
)
from concentrator.dlms.apdu.set import (
    SetRequestNormal,
    SetRequestWithDatablock,
    SetRequestWithFirstDatablock,
    SetRequestWithList,
    SetResponseDatablock,
    SetResponseLastDatablock,
    SetResponseNormal,
    SetResponseWithList,
    encode_values,
)
from concentrator.dlms.attributes import (
    AttributeDescriptor,
    MethodDescriptor,
    Selection,
    encode_selection,
    selection_of,
)
from concentrator.dlms.axdr import Data
from concentrator.dlms.client_association import AssociationClient
from concentrator.dlms.codes import ActionResult, ApplicationContext, Conformance, DataAccessResult
from concentrator.dlms.errors import (
    AccessError,
    EncodeError,
    ServiceRefusedError,
    UnexpectedReplyError,
)
from concentrator.dlms.exchange import (
    ASSOCIATION_LN,
    DEFAULT_CONFORMANCE,
    ClientSettings,
    Conversation,
    Notification,
    Selectable,
)
from concentrator.dlms.reader import Reader

__all__ = [
    "ASSOCIATION_LN",
    "DEFAULT_CONFORMANCE",
    "Client",
    "ClientSettings",
    "Conversation",
    "Notification",
    "Selectable",
]

AttributeValue: TypeAlias = "tuple[AttributeDescriptor, Data] | tuple[AttributeDescriptor, Data, Selectable]"
_Item = TypeVar("_Item")
# Confirmed service, high priority.
_INVOKE_FLAGS = 0xC0
_LONG_INVOKE_FLAGS = 0xC000_0000
_BREAK_ON_ERROR = 0x2000_0000
# Elements of one list at most: all meters can count that far.
_LIST_LIMIT = 100
# What a first block of SET or ACTION adds beside the descriptors: tag, choice, invoke-id, count, block header.
_FIRST_BLOCK_OVERHEAD = 16


class Client(AssociationClient):
    """One association with one meter, by logical names."""

    CONTEXT = ApplicationContext.LOGICAL_NAME
    CIPHERED_CONTEXT = ApplicationContext.LOGICAL_NAME_CIPHERED
    _invoke = 0

    def _reply_to_hls(self, proof: bytes) -> Conversation[bytes | None]:
        method = MethodDescriptor(15, self.settings.association_name, 1)
        answer = yield from self.action(method, axdr.octet_string(proof))
        return None if answer is None else answer.octets()

    # Reading

    def get(self, attribute: AttributeDescriptor, selection: Selectable = None) -> Conversation[Data]:
        """Read one attribute. Raises AccessError where the meter refuses."""
        return axdr.decode((yield from self.get_encoded(attribute, selection)))

    def get_encoded(
        self,
        attribute: AttributeDescriptor,
        selection: Selectable = None,
        *,
        sink: Callable[[bytes], None] | None = None,
    ) -> Conversation[bytes]:
        """Read one attribute, and leave its value encoded: for profile buffers.

        With a `sink` the octets go there block by block, and nothing is kept.
        """
        request = GetRequestNormal(self._next_invoke(), attribute, selection_of(selection))
        reply = yield from self._request(request.to_bytes(), request.invoke)
        if isinstance(reply, GetResponseNormal):
            if not isinstance(reply.result, bytes):
                raise AccessError(reply.result, f"reading {attribute}")
            if sink is None:
                return reply.result
            sink(reply.result)
            return b""
        return (yield from self._collect(reply, request.invoke, f"reading {attribute}", sink))

    def _collect(
        self, reply: Apdu, invoke: int, what: str, sink: Callable[[bytes], None] | None = None
    ) -> Conversation[bytes]:
        """The octets of a value that comes in blocks, of which `reply` is the first."""
        blocks: list[bytes] = []
        total = 0
        number = 0
        while True:
            if not isinstance(reply, GetResponseWithBlock):
                if isinstance(reply, GetResponseNormal) and not isinstance(reply.result, bytes):
                    raise AccessError(reply.result, what)
                raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
            if not isinstance(reply.result, bytes):
                raise AccessError(reply.result, what)
            if reply.block_number != number + 1:
                raise UnexpectedReplyError(f"{what}: block {reply.block_number} came after block {number}")
            number += 1
            total += len(reply.result)
            if total > self.settings.max_value_octets and sink is None:
                raise UnexpectedReplyError(f"{what}: the value is longer than {total} octets")
            (blocks.append if sink is None else sink)(reply.result)
            if reply.last:
                return b"".join(blocks)
            further = GetRequestNext(invoke, number).to_bytes()
            reply = yield from self._request(further, invoke, have=number, repeatable=True)

    def get_many(
        self, attributes: Sequence[AttributeDescriptor | tuple[AttributeDescriptor, Selectable]]
    ) -> Conversation[list[Data | AccessError]]:
        """Read several attributes, as a list where the meter can; each gives a value or why it has none."""
        pairs = [(item, None) if isinstance(item, AttributeDescriptor) else item for item in attributes]
        results: list[Data | AccessError] = []
        if not self._lists(len(pairs)):
            return (yield from self._get_each(pairs))
        named = [(attribute, selection_of(selectable)) for attribute, selectable in pairs]
        for batch in self._batches(named, lambda item: 9 + len(encode_selection(item[1]))):
            try:
                results += yield from self._get_list(batch)
            except (AccessError, ServiceRefusedError):
                # The meter refuses the list as such, or its answer is too long: its parts may still be had.
                results += yield from self._get_each(batch)
        return results

    def _get_each(
        self, pairs: Sequence[tuple[AttributeDescriptor, Selectable]]
    ) -> Conversation[list[Data | AccessError]]:
        results: list[Data | AccessError] = []
        for attribute, selection in pairs:
            try:
                results.append((yield from self.get(attribute, selection)))
            except AccessError as error:
                results.append(error)
        return results

    def _get_list(
        self, batch: Sequence[tuple[AttributeDescriptor, Selection | None]]
    ) -> Conversation[list[Data | AccessError]]:
        request = GetRequestWithList(self._next_invoke(), tuple(batch))
        what = f"reading a list of {len(batch)} attributes"
        reply = yield from self._request(request.to_bytes(), request.invoke)
        if isinstance(reply, GetResponseWithList):
            found = reply.results
        elif isinstance(reply, GetResponseNormal) and not isinstance(reply.result, bytes):
            raise AccessError(reply.result, what)
        else:
            reader = Reader((yield from self._collect(reply, request.invoke, what)))
            found = read_get_results(reader)
            reader.finish("a list of results")
        if len(found) != len(batch):
            raise UnexpectedReplyError(f"{len(batch)} attributes were asked for, {len(found)} results came")
        return [
            result if isinstance(result, Data) else AccessError(result, f"reading {attribute}")
            for (attribute, _), result in zip(batch, found, strict=True)
        ]

    # Writing

    def set(
        self, attribute: AttributeDescriptor, value: Data, selection: Selectable = None
    ) -> Conversation[None]:
        """Write one attribute, in blocks where it is long. Raises AccessError where the meter refuses."""
        what = f"writing {attribute}"
        (result,) = yield from self._write([(attribute, selection_of(selection), value)], what)
        if result != DataAccessResult.SUCCESS:
            raise AccessError(result, what)

    def set_many(self, items: Sequence[AttributeValue]) -> Conversation[list[AccessError | None]]:
        """Write several attributes, as a list where the meter can; each gives None or why it was refused."""
        named = [(item[0], selection_of(item[2]) if len(item) == 3 else None, item[1]) for item in items]
        if self._lists(len(named)):
            batches = self._batches(
                named, lambda item: 9 + len(encode_selection(item[1])) + len(item[2].to_bytes())
            )
        else:
            batches = [[item] for item in named]
        results: list[AccessError | None] = []
        for batch in batches:
            found = yield from self._write(batch, f"writing a list of {len(batch)} attributes")
            results += [
                None if result == DataAccessResult.SUCCESS else AccessError(result, f"writing {attribute}")
                for (attribute, _, _), result in zip(batch, found, strict=True)
            ]
        return results

    def _write(
        self, items: Sequence[tuple[AttributeDescriptor, Selection | None, Data]], what: str
    ) -> Conversation[tuple[int, ...]]:
        """Write one attribute, or with list several; gives the result of each."""
        invoke = self._next_invoke()
        named = tuple([(attribute, selection) for attribute, selection, _ in items])
        values = tuple([value for _, _, value in items])
        with_list = len(items) > 1
        if with_list:
            whole = SetRequestWithList(invoke, named, values).to_bytes()
        else:
            whole = SetRequestNormal(invoke, *named[0], values[0]).to_bytes()
        if self._goes_whole(whole, Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE):
            reply = yield from self._request(whole, invoke)
        else:
            octets = encode_values(values) if with_list else values[0].to_bytes()
            size = self.room() - _FIRST_BLOCK_OVERHEAD
            size -= sum(9 + len(encode_selection(selection)) for _, selection in named)

            def request(number: int, last: bool, block: bytes) -> bytes:  # noqa: FBT001
                if number == 1:
                    return SetRequestWithFirstDatablock(invoke, named, last, 1, block, with_list).to_bytes()
                return SetRequestWithDatablock(invoke, last, number, block).to_bytes()

            reply = yield from self._send(invoke, self._split(octets, size, what), request)
        if isinstance(reply, SetResponseNormal):
            results: tuple[int, ...] = (reply.result,) * len(items)
        elif isinstance(reply, SetResponseLastDatablock | SetResponseWithList):
            results = reply.results
        else:
            raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
        if len(results) != len(items):
            if len(results) == 1:
                raise AccessError(results[0], what)
            raise UnexpectedReplyError(f"{what}: {len(results)} results came")
        return results

    # Acting

    def action(self, method: MethodDescriptor, parameters: Data | None = None) -> Conversation[Data | None]:
        """Invoke a method; gives what it returned. Raises AccessError where the meter refuses."""
        what = f"invoking {method}"
        (outcome,) = yield from self._act([(method, parameters)], what)
        returned = _returned(outcome, what)
        if isinstance(returned, AccessError):
            raise returned
        return returned

    def action_many(
        self, items: Sequence[tuple[MethodDescriptor, Data | None]]
    ) -> Conversation[list[Data | AccessError | None]]:
        """Invoke several methods, as a list where the meter can; each gives what it returned, or why not."""
        if self._lists(len(items)):
            batches = self._batches(items, lambda item: 9 + len((item[1] or axdr.NULL).to_bytes()))
        else:
            batches = [[item] for item in items]
        results: list[Data | AccessError | None] = []
        for batch in batches:
            outcomes = yield from self._act(batch, f"invoking a list of {len(batch)} methods")
            results += [
                _returned(outcome, f"invoking {method}")
                for (method, _), outcome in zip(batch, outcomes, strict=True)
            ]
        return results

    def _act(
        self, items: Sequence[tuple[MethodDescriptor, Data | None]], what: str
    ) -> Conversation[tuple[ActionOutcome, ...]]:
        invoke = self._next_invoke()
        methods = tuple([method for method, _ in items])
        values = tuple([parameters or axdr.NULL for _, parameters in items])
        with_list = len(items) > 1
        if with_list:
            whole = ActionRequestWithList(invoke, methods, values).to_bytes()
        else:
            whole = ActionRequestNormal(invoke, *items[0]).to_bytes()
        if self._goes_whole(whole, Conformance.BLOCK_TRANSFER_WITH_ACTION):
            reply = yield from self._request(whole, invoke)
        else:
            octets = encode_values(values) if with_list else values[0].to_bytes()
            size = self.room() - _FIRST_BLOCK_OVERHEAD - 9 * len(methods)

            def request(number: int, last: bool, block: bytes) -> bytes:  # noqa: FBT001
                if number == 1:
                    return ActionRequestWithFirstPblock(invoke, methods, last, 1, block, with_list).to_bytes()
                return ActionRequestWithPblock(invoke, last, number, block).to_bytes()

            reply = yield from self._send(invoke, self._split(octets, size, what), request)
        outcomes: tuple[ActionOutcome, ...]
        if isinstance(reply, ActionResponseWithPblock):
            outcomes = yield from self._collect_action(reply, invoke, what, with_list=with_list)
        elif isinstance(reply, ActionResponseWithList):
            outcomes = reply.outcomes
        elif isinstance(reply, ActionResponseNormal):
            outcomes = (reply.outcome,)
        else:
            raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
        if len(outcomes) != len(items):
            if len(outcomes) == 1:
                raise AccessError(outcomes[0].result, what)
            raise UnexpectedReplyError(f"{what}: {len(outcomes)} results came")
        return outcomes

    def _collect_action(
        self, reply: Apdu, invoke: int, what: str, *, with_list: bool
    ) -> Conversation[tuple[ActionOutcome, ...]]:
        blocks: list[bytes] = []
        total = 0
        while True:
            if not isinstance(reply, ActionResponseWithPblock) or reply.block_number != len(blocks) + 1:
                raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
            blocks.append(reply.block)
            total += len(reply.block)
            if reply.last:
                break
            if total > self.settings.max_value_octets:
                raise UnexpectedReplyError(f"{what}: the answer is longer than agreed")
            further = ActionRequestNextPblock(invoke, len(blocks)).to_bytes()
            reply = yield from self._request(further, invoke, have=len(blocks), repeatable=True)
        reader = Reader(b"".join(blocks))
        if with_list:
            return read_action_outcomes(reader)
        # Some meters send the outcome in blocks, some only the value that it holds.
        if reader.data[:1] == bytes((ActionResult.SUCCESS,)):
            return (ActionOutcome.read(reader),)
        return (ActionOutcome(ActionResult.SUCCESS, axdr.decode(reader.data)),)

    # ACCESS

    def access(
        self, items: Sequence[tuple[AccessSpecification, Data | None]], *, break_on_error: bool = False
    ) -> Conversation[list[Data | AccessError | None]]:
        """Read, write and act in one request; each element gives its value, None, or why it was refused.

        With `break_on_error` the meter leaves out what follows the first refusal. More than one APDU can carry goes in
        several requests, unless general-block-transfer is agreed.

        Raises:
            EncodeError: the meter does not do ACCESS.
        """
        if not self.conformance & Conformance.ACCESS:
            raise EncodeError("the association does not allow ACCESS: propose it in the conformance")
        if self.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            return (yield from self._access(items, break_on_error=break_on_error))
        results: list[Data | AccessError | None] = []
        for batch in self._batches(items, _access_size):
            if break_on_error and any(isinstance(result, AccessError) for result in results):
                left_out = DataAccessResult.OTHER_REASON
                results += [AccessError(left_out, f"access to {item[0].target}") for item in batch]
            else:
                results += yield from self._access(batch, break_on_error=break_on_error)
        return results

    def _access(
        self, items: Sequence[tuple[AccessSpecification, Data | None]], *, break_on_error: bool
    ) -> Conversation[list[Data | AccessError | None]]:
        flags = _LONG_INVOKE_FLAGS | (_BREAK_ON_ERROR if break_on_error else 0)
        long_invoke = flags | (self._next_invoke() & 0x0F)
        specifications = tuple([specification for specification, _ in items])
        values = tuple([value or axdr.NULL for _, value in items])
        request = AccessRequest(long_invoke, None, specifications, values)

        def belongs(reply: Apdu) -> bool:
            return isinstance(reply, AccessResponse) and (reply.long_invoke ^ long_invoke) & 0xFF_FFFF == 0

        reply = yield from self.ask(request.to_bytes(), belongs)
        if (
            not isinstance(reply, AccessResponse)
            or len(reply.results) != len(items)
            or len(reply.values) != len(items)
        ):
            raise UnexpectedReplyError(f"access to {len(items)} elements: another number of results came")
        return [
            _accessed(specification, value, result)
            for specification, value, (_, result) in zip(
                specifications, reply.values, reply.results, strict=True
            )
        ]

    # What the services share

    def _next_invoke(self) -> int:
        self.start_service()
        self._invoke = (self._invoke + 1) & 0x0F
        return _INVOKE_FLAGS | self._invoke

    def _request(
        self, request: bytes, invoke: int, *, have: int = 0, acknowledged: int = 0, repeatable: bool = False
    ) -> Conversation[Apdu]:
        """The reply to a request.

        Received blocks up to number `have`, and acknowledgements up to `acknowledged`, are late answers to
        what was asked twice, and passed over.
        """

        def belongs(reply: Apdu) -> bool:
            if getattr(reply, "invoke", ~invoke) & 0x0F != invoke & 0x0F:
                return False
            if isinstance(reply, GetResponseWithBlock):
                return not isinstance(reply.result, bytes) or reply.block_number > have
            if isinstance(reply, ActionResponseWithPblock):
                return reply.block_number > have
            if isinstance(reply, SetResponseDatablock | ActionResponseNextPblock):
                return reply.block_number > acknowledged
            return True

        return (yield from self.ask(request, belongs, repeatable=repeatable))

    def _send(
        self, invoke: int, blocks: list[bytes], request: Callable[[int, bool, bytes], bytes]
    ) -> Conversation[Apdu]:
        """Send a value in blocks; gives the reply to the last, or that which ended it before."""
        reply: Apdu | None = None
        for number, block in enumerate(blocks, 1):
            last = number == len(blocks)
            encoded = request(number, last, block)
            # What the last block sets off must not happen twice.
            reply = yield from self._request(encoded, invoke, acknowledged=number - 1, repeatable=not last)
            if not isinstance(reply, SetResponseDatablock | ActionResponseNextPblock):
                break
            if reply.block_number != number:
                raise UnexpectedReplyError(
                    f"block {number} was sent, block {reply.block_number} acknowledged"
                )
        assert reply is not None  # noqa: S101
        return reply

    def _lists(self, count: int) -> bool:
        return count > 1 and bool(self.conformance & Conformance.MULTIPLE_REFERENCES)

    def _batches(self, items: Sequence[_Item], size_of: Callable[[_Item], int]) -> Iterator[Sequence[_Item]]:
        """Lists whose requests the meter can take whole; one element that is too long makes its own."""
        room = self.room() - 8
        start = left = 0
        for index, item in enumerate(items):
            size = size_of(item)
            if index == start:
                left = room - size
            elif left < size or index - start >= _LIST_LIMIT:
                yield items[start:index]
                start, left = index, room - size
            else:
                left -= size
        if start < len(items):
            yield items[start:]

    def _goes_whole(self, request: bytes, blocks: Conformance) -> bool:
        """Whether a request fits, or goes in blocks below the services only."""
        if len(request) <= self.room():
            return True
        return not self.conformance & blocks and bool(self.conformance & Conformance.GENERAL_BLOCK_TRANSFER)

    def _split(self, octets: bytes, size: int, what: str) -> list[bytes]:
        if size < 1:
            raise EncodeError(
                f"{what}: the meter's APDU size of {self.max_send_size} leaves no room for a block"
            )
        return [octets[start : start + size] for start in range(0, len(octets), size)]


def _returned(outcome: ActionOutcome, what: str) -> Data | AccessError | None:
    if outcome.result != ActionResult.SUCCESS:
        return AccessError(outcome.result, what)
    if outcome.returned is None or isinstance(outcome.returned, Data):
        return outcome.returned
    return None if outcome.returned == DataAccessResult.SUCCESS else AccessError(outcome.returned, what)


def _access_size(item: tuple[AccessSpecification, Data | None]) -> int:
    return len(item[0].to_bytes()) + len((item[1] or axdr.NULL).to_bytes())


def _accessed(specification: AccessSpecification, value: Data, result: int) -> Data | AccessError | None:
    if result != DataAccessResult.SUCCESS:
        return AccessError(result, f"access to {specification.target}")
    if specification.kind in (AccessKind.SET, AccessKind.SET_WITH_SELECTION):
        return None
    return None if value.is_null and specification.kind == AccessKind.ACTION else value
