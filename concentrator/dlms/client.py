"""The client's side of a dialogue with a meter (Green Book 4.4, 9.3, 9.4), as conversations.

A conversation is a generator: it yields the APDU to send and is sent the APDU that came. An empty yield
means: send nothing, hand in the next APDU. Time-outs and lost links are thrown in from outside, as
`ReplyTimeoutError` and `LinkLostError`. Nothing here knows sockets or time.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from concentrator.dlms import apdu as apdus
from concentrator.dlms import axdr
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.action import (
    ActionOutcome,
    ActionRequestNextPblock,
    ActionRequestNormal,
    ActionRequestWithFirstPblock,
    ActionRequestWithPblock,
    ActionResponseNextPblock,
    ActionResponseNormal,
    ActionResponseWithPblock,
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
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import DataNotification, EventNotification, ExceptionResponse
from concentrator.dlms.apdu.protection import (
    DEDICATED_TAGS,
    GENERAL_DED,
    GENERAL_GLO,
    GLOBAL_TAGS,
    GeneralBlockTransfer,
    GeneralCiphered,
    ServiceCiphered,
)
from concentrator.dlms.apdu.set import (
    SetRequestNormal,
    SetRequestWithDatablock,
    SetRequestWithFirstDatablock,
    SetResponseDatablock,
    SetResponseLastDatablock,
    SetResponseNormal,
)
from concentrator.dlms.attributes import (
    AttributeDescriptor,
    EntryDescriptor,
    MethodDescriptor,
    RangeDescriptor,
    Selection,
    encode_selection,
    selection_of,
)
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import (
    ActionResult,
    ApplicationContext,
    AuthenticationMechanism,
    Conformance,
    DataAccessResult,
    words,
)
from concentrator.dlms.errors import (
    AccessError,
    AssociationRejectedError,
    DecodeError,
    EncodeError,
    ReplayError,
    ReplyTimeoutError,
    SecurityError,
    ServiceRefusedError,
    UnexpectedReplyError,
)
from concentrator.dlms.gbt import BlockReceiver
from concentrator.dlms.reader import Reader
from concentrator.dlms.security import (
    BOTH,
    CounterSource,
    HighLevelSecurity,
    SecurityContext,
    SecurityKeys,
)
from concentrator.obis import Obis

T = TypeVar("T")
Conversation: TypeAlias = Generator[bytes, bytes, T]
Selectable: TypeAlias = Selection | RangeDescriptor | EntryDescriptor | None
Notification: TypeAlias = DataNotification | EventNotification

ASSOCIATION_LN = Obis(0, 0, 40, 0, 0, 255)
DEFAULT_CONFORMANCE = (
    Conformance.GET
    | Conformance.SET
    | Conformance.ACTION
    | Conformance.SELECTIVE_ACCESS
    | Conformance.MULTIPLE_REFERENCES
    | Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ
    | Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE
    | Conformance.BLOCK_TRANSFER_WITH_ACTION
    | Conformance.PRIORITY_MGMT_SUPPORTED
    | Conformance.DATA_NOTIFICATION
    | Conformance.EVENT_NOTIFICATION
)
# Answers that do not belong to the question, before a conversation gives up.
_UNRELATED_LIMIT = 16
# Confirmed service, high priority.
_INVOKE_FLAGS = 0xC0
_CHALLENGE_LENGTH = 16
# Windows of one general-block-transfer, before a conversation gives up.
_BLOCK_ANSWER_LIMIT = 0xFFFF
# Time-outs within it that are met by asking again.
_REPEAT_LIMIT = 5
# Tag, length, security header and authentication tag of a ciphered APDU, at most.
_CIPHERING_OVERHEAD = 32


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to speak to one meter. `secret` is the LLS password or the HLS secret (mechanisms 3, 4, 6).

    With `keys` the association is ciphered. `general_ciphering` wraps requests as general-glo-ciphering
    instead of the service-specific APDUs. `max_pdu_size` is what we can receive; `gbt_window` how many
    blocks of a general-block-transfer, where `conformance` proposes it.
    """

    client_sap: int = 16
    server_sap: int = 1
    mechanism: AuthenticationMechanism = AuthenticationMechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    keys: SecurityKeys | None = None
    system_title: bytes = b""
    meter_system_title: bytes = b""
    security_suite: int = 0
    security_policy: int = BOTH
    general_ciphering: bool = False
    dedicated_key: bytes = field(default=b"", repr=False)
    max_pdu_size: int = 0xFFFF
    conformance: Conformance = DEFAULT_CONFORMANCE
    association_name: Obis = ASSOCIATION_LN
    gbt_window: int = 8
    max_value_octets: int = 16 * 1024 * 1024


class Client:
    """One association with one meter.

    `counter` gives the invocation counters of a ciphered association. `notifications` keeps what the
    meter sent unasked in between. After `associate`, `conformance` and `max_send_size` are what was agreed.
    """

    def __init__(
        self,
        settings: ClientSettings,
        counter: CounterSource | None = None,
        *,
        random_octets: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.settings = settings
        self.notifications: deque[Notification] = deque(maxlen=256)
        self.conformance = Conformance.NONE
        self.max_send_size = 0
        self.associated = False
        self.unrelated_replies = 0
        self._random = random_octets
        self._invoke = 0
        self.security: SecurityContext | None = None
        if settings.keys is not None:
            if counter is None:
                raise EncodeError("a ciphered association needs a source of invocation counters")
            keys = settings.keys
            self.security = SecurityContext(
                SecurityKeys(keys.encryption, keys.authentication, keys.broadcast, settings.dedicated_key),
                settings.system_title,
                counter,
                peer_system_title=settings.meter_system_title,
                suite=settings.security_suite,
                policy=settings.security_policy,
            )

    # Association

    def associate(self) -> Conversation[None]:
        """Open the association, with both passes of HLS where the mechanism has them.

        Raises:
            AssociationRejectedError: the meter refused; its diagnostic is in the error.
            SecurityError: the meter could not prove who it is.
        """
        settings = self.settings
        mechanism = settings.mechanism
        high = mechanism >= AuthenticationMechanism.HLS_MANUFACTURER
        self.associated = False
        challenge = self._random(_CHALLENGE_LENGTH) if high else settings.secret
        context = (
            ApplicationContext.LOGICAL_NAME_CIPHERED if self.security else ApplicationContext.LOGICAL_NAME
        )
        request = AssociationRequest(
            context=context,
            user_information=self._user_information(),
            calling_ap_title=settings.system_title or None,
            mechanism=mechanism or None,
            authentication_value=challenge if mechanism else None,
        )
        incoming = yield request.to_bytes()
        response = yield from self._acse_reply(incoming, AssociationResponse)
        self._accept(response)
        if high:
            yield from self._prove(challenge, response)
        self.associated = True

    def _user_information(self) -> bytes:
        settings = self.settings
        request = InitiateRequest(
            settings.conformance, settings.max_pdu_size, settings.dedicated_key or None
        ).to_bytes()
        if self.security is None:
            return request
        return ServiceCiphered(GLOBAL_TAGS[InitiateRequest.TAG], self.security.protect(request)).to_bytes()

    def _acse_reply(self, incoming: bytes, kind: type[T]) -> Conversation[T]:
        for _ in range(_UNRELATED_LIMIT):
            reply = (
                self._unwrap(incoming) if incoming[:1] not in (b"\x61", b"\x63") else apdus.decode(incoming)
            )
            if isinstance(reply, kind):
                return reply
            if reply is not None:
                self.unrelated_replies += 1
            incoming = yield b""
        raise UnexpectedReplyError(f"{_UNRELATED_LIMIT} APDUs came, none of them the answer")

    def _accept(self, response: AssociationResponse) -> None:
        # A refusal may come without user-information: result and diagnostic first.
        if response.result != 0:
            detail = ""
            if response.user_information:
                try:
                    inner = apdus.decode(response.user_information)
                    detail = inner.words if isinstance(inner, ConfirmedServiceError) else ""
                except DecodeError:
                    detail = "and its user-information is malformed"
            raise AssociationRejectedError(
                response.result, response.diagnostic_source, response.diagnostic, detail
            )
        if self.security is not None and response.responding_ap_title:
            if len(response.responding_ap_title) != 8:
                raise SecurityError(f"a system title has 8 octets, got {response.responding_ap_title.hex()}")
            self.security.peer_system_title = response.responding_ap_title
        if response.user_information is None:
            raise UnexpectedReplyError("the association was accepted without an InitiateResponse")
        inner = apdus.decode(response.user_information)
        if self.security is not None:
            if not isinstance(inner, ServiceCiphered | GeneralCiphered):
                raise SecurityError("the meter answered a ciphered InitiateRequest in plain")
            inner = apdus.decode(self._unprotect(inner))
        if isinstance(inner, ConfirmedServiceError):
            raise ServiceRefusedError(f"association refused: {inner.words}")
        if not isinstance(inner, InitiateResponse):
            raise UnexpectedReplyError("the association was accepted without an InitiateResponse")
        self.conformance = inner.conformance & self.settings.conformance
        self.max_send_size = inner.max_receive_pdu_size

    def _prove(self, challenge: bytes, response: AssociationResponse) -> Conversation[None]:
        if not response.authentication_value:
            raise SecurityError("the meter sent no challenge: it cannot do the authentication asked for")
        security = HighLevelSecurity(
            self.settings.mechanism,
            secret=self.settings.secret,
            security=self.security,
            own_system_title=self.settings.system_title,
            peer_system_title=response.responding_ap_title or self.settings.meter_system_title,
        )
        security.own_challenge = challenge
        security.peer_challenge = response.authentication_value
        method = MethodDescriptor(15, self.settings.association_name, 1)
        try:
            answer = yield from self.action(method, axdr.octet_string(security.answer()))
        except AccessError as error:
            raise SecurityError(f"the meter does not accept our proof: {words(error.result)}") from None
        if answer is None:
            raise SecurityError("the meter did not answer our challenge")
        security.check(answer.octets())

    def release(self) -> Conversation[None]:
        """Close the association. A meter that answers otherwise, or not at all, has closed it too."""
        self.associated = False
        information = None if self.security is None else self._user_information()
        incoming = yield ReleaseRequest(0, information).to_bytes()
        yield from self._acse_reply(incoming, ReleaseResponse)

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
            if reply.block_number == number + 1:
                number += 1
                total += len(reply.result)
                if total > self.settings.max_value_octets and sink is None:
                    raise UnexpectedReplyError(f"{what}: the value is longer than {total} octets")
                (blocks.append if sink is None else sink)(reply.result)
                if reply.last:
                    return b"".join(blocks)
            elif reply.block_number > number + 1 or number == 0:
                raise UnexpectedReplyError(f"{what}: block {reply.block_number} came after block {number}")
            reply = yield from self._request(GetRequestNext(invoke, number).to_bytes(), invoke)

    def get_many(
        self, attributes: Sequence[AttributeDescriptor | tuple[AttributeDescriptor, Selectable]]
    ) -> Conversation[list[Data | AccessError]]:
        """Read several attributes, as a list where the meter can; each gives a value or why it has none."""
        pairs = [(item, None) if isinstance(item, AttributeDescriptor) else item for item in attributes]
        results: list[Data | AccessError] = []
        if not Conformance.MULTIPLE_REFERENCES & self.conformance or len(pairs) == 1:
            return (yield from self._get_each(pairs))
        for batch in self._batches(pairs):
            try:
                results += yield from self._get_list(batch)
            except AccessError:
                # The meter refuses the list as such: its parts may still be had.
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

    def _batches(
        self, pairs: Sequence[tuple[AttributeDescriptor, Selectable]]
    ) -> list[list[tuple[AttributeDescriptor, Selection | None]]]:
        room = (self.max_send_size or 0xFFFF) - _CIPHERING_OVERHEAD - 8
        batches: list[list[tuple[AttributeDescriptor, Selection | None]]] = []
        left = 0
        for attribute, selectable in pairs:
            selection = selection_of(selectable)
            size = 9 + len(encode_selection(selection))
            if not batches or left < size or len(batches[-1]) >= 100:
                batches.append([])
                left = room
            batches[-1].append((attribute, selection))
            left -= size
        return batches

    def _get_list(
        self, batch: list[tuple[AttributeDescriptor, Selection | None]]
    ) -> Conversation[list[Data | AccessError]]:
        request = GetRequestWithList(self._next_invoke(), tuple(batch))
        reply = yield from self._request(request.to_bytes(), request.invoke)
        if isinstance(reply, GetResponseWithList):
            found = reply.results
        elif isinstance(reply, GetResponseNormal) and not isinstance(reply.result, bytes):
            raise AccessError(reply.result, f"reading a list of {len(batch)} attributes")
        else:
            encoded = yield from self._collect(
                reply, request.invoke, f"reading a list of {len(batch)} attributes"
            )
            reader = Reader(encoded)
            found = read_get_results(reader)
            reader.finish("a list of results")
        if len(found) != len(batch):
            raise UnexpectedReplyError(f"{len(batch)} attributes were asked for, {len(found)} results came")
        return [
            result if isinstance(result, Data) else AccessError(result, f"reading {attribute}")
            for (attribute, _), result in zip(batch, found, strict=True)
        ]

    # Writing and acting

    def set(
        self, attribute: AttributeDescriptor, value: Data, selection: Selectable = None
    ) -> Conversation[None]:
        """Write one attribute, in blocks where it is long. Raises AccessError where the meter refuses."""
        invoke = self._next_invoke()
        chosen = selection_of(selection)
        encoded = SetRequestNormal(invoke, attribute, chosen, value).to_bytes()
        what = f"writing {attribute}"
        if len(encoded) <= self._room():
            reply = yield from self._request(encoded, invoke)
        else:
            octets = value.to_bytes()
            size = self._room() - 12 - len(encode_selection(chosen)) - 12
            blocks = self._split(octets, size, what)
            first = SetRequestWithFirstDatablock(
                invoke, ((attribute, chosen),), len(blocks) == 1, 1, blocks[0]
            )
            reply = yield from self._request(first.to_bytes(), invoke)
            for number, block in enumerate(blocks[1:], 2):
                if not isinstance(reply, SetResponseDatablock) or reply.block_number != number - 1:
                    break
                further = SetRequestWithDatablock(invoke, number == len(blocks), number, block)
                reply = yield from self._request(further.to_bytes(), invoke)
        if isinstance(reply, SetResponseNormal):
            result = reply.result
        elif isinstance(reply, SetResponseLastDatablock) and len(reply.results) == 1:
            result = reply.results[0]
        else:
            raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
        if result != DataAccessResult.SUCCESS:
            raise AccessError(result, what)

    def action(self, method: MethodDescriptor, parameters: Data | None = None) -> Conversation[Data | None]:
        """Invoke a method; gives what it returned. Raises AccessError where the meter refuses."""
        invoke = self._next_invoke()
        what = f"invoking {method}"
        encoded = ActionRequestNormal(invoke, method, parameters).to_bytes()
        if len(encoded) <= self._room() or parameters is None:
            reply = yield from self._request(encoded, invoke)
        else:
            blocks = self._split(parameters.to_bytes(), self._room() - 24, what)
            first = ActionRequestWithFirstPblock(invoke, (method,), len(blocks) == 1, 1, blocks[0])
            reply = yield from self._request(first.to_bytes(), invoke)
            for number, block in enumerate(blocks[1:], 2):
                if not isinstance(reply, ActionResponseNextPblock) or reply.block_number != number - 1:
                    break
                further = ActionRequestWithPblock(invoke, number == len(blocks), number, block)
                reply = yield from self._request(further.to_bytes(), invoke)
        if isinstance(reply, ActionResponseWithPblock):
            outcome = yield from self._collect_action(reply, invoke, what)
        elif isinstance(reply, ActionResponseNormal):
            outcome = reply.outcome
        else:
            raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
        if outcome.result != ActionResult.SUCCESS:
            raise AccessError(outcome.result, what)
        if outcome.returned is None or isinstance(outcome.returned, Data):
            return outcome.returned
        if outcome.returned == DataAccessResult.SUCCESS:
            return None
        raise AccessError(outcome.returned, what)

    def _collect_action(self, reply: Apdu, invoke: int, what: str) -> Conversation[ActionOutcome]:
        blocks: list[bytes] = []
        while True:
            if not isinstance(reply, ActionResponseWithPblock) or reply.block_number != len(blocks) + 1:
                raise UnexpectedReplyError(f"{what}: answered with {type(reply).__name__}")
            blocks.append(reply.block)
            if reply.last:
                return ActionOutcome.read(Reader(b"".join(blocks)))
            if sum(map(len, blocks)) > self.settings.max_value_octets:
                raise UnexpectedReplyError(f"{what}: the answer is longer than agreed")
            further = ActionRequestNextPblock(invoke, len(blocks))
            reply = yield from self._request(further.to_bytes(), invoke)

    def _room(self) -> int:
        """Octets of plain APDU that the meter can take."""
        limit = self.max_send_size or 0xFFFF
        return limit - (_CIPHERING_OVERHEAD if self.security else 0)

    def _split(self, octets: bytes, size: int, what: str) -> list[bytes]:
        if size < 1:
            raise EncodeError(
                f"{what}: the meter's APDU size of {self.max_send_size} leaves no room for a block"
            )
        return [octets[start : start + size] for start in range(0, len(octets), size)]

    # The exchange of one request and its reply

    def _next_invoke(self) -> int:
        self._invoke = (self._invoke + 1) & 0x0F
        return _INVOKE_FLAGS | self._invoke

    def _request(self, request: bytes, invoke: int) -> Conversation[Apdu]:
        incoming = yield self._protect(request)
        for _ in range(_UNRELATED_LIMIT):
            if incoming[:1] == b"\xe0":
                incoming = yield from self._joined(incoming)
            try:
                reply = self._unwrap(incoming)
            except ReplayError:
                # Counted by the security context. Whoever plays old APDUs again does not end our dialogue.
                reply = None
            if reply is not None:
                if getattr(reply, "invoke", ~invoke) & 0x0F == invoke & 0x0F:
                    return reply
                self.unrelated_replies += 1
            incoming = yield b""
        raise UnexpectedReplyError(f"{_UNRELATED_LIMIT} APDUs came, none of them the answer")

    def _joined(self, incoming: bytes) -> Conversation[bytes]:
        """The APDU that comes by general-block-transfer, of which `incoming` is the first block."""
        receiver = BlockReceiver(self.settings.gbt_window, self.settings.max_value_octets)
        answers = repeats = 0
        while True:
            window_ends = False
            if incoming[:1] == b"\xe0":
                block = apdus.decode(incoming)
                if isinstance(block, GeneralBlockTransfer):
                    whole = receiver.receive_block(block)
                    if whole is not None:
                        return whole
                    window_ends = block.last or not block.streaming
            elif self._unwrap(incoming) is not None:
                self.unrelated_replies += 1
            try:
                if window_ends:
                    # Tell the sender what is in order: it goes on from there.
                    answers += 1
                    if answers > _BLOCK_ANSWER_LIMIT:
                        raise UnexpectedReplyError("a general-block-transfer does not come to its end")
                    incoming = yield receiver.acknowledgement(answers).to_bytes()
                else:
                    incoming = yield b""
            except ReplyTimeoutError:
                # The end of the window was lost: ask for what is missing.
                repeats += 1
                if repeats > _REPEAT_LIMIT:
                    raise
                answers += 1
                incoming = yield receiver.acknowledgement(answers).to_bytes()

    def _protect(self, request: bytes) -> bytes:
        security = self.security
        if security is None:
            return request
        dedicated = bool(security.keys.dedicated)
        content = security.protect(request, dedicated=dedicated)
        if self.settings.general_ciphering:
            tag = GENERAL_DED if dedicated else GENERAL_GLO
            return GeneralCiphered(tag, security.system_title, content).to_bytes()
        tags = DEDICATED_TAGS if dedicated else GLOBAL_TAGS
        return ServiceCiphered(tags[request[0]], content).to_bytes()

    def _unprotect(self, reply: ServiceCiphered | GeneralCiphered) -> bytes:
        if self.security is None:
            raise SecurityError("the meter sent a ciphered APDU in an association without keys")
        title = reply.system_title if isinstance(reply, GeneralCiphered) else b""
        plain = self.security.unprotect(reply.content, title, dedicated=reply.dedicated)
        if isinstance(reply, ServiceCiphered) and plain[:1] != bytes((reply.service_tag,)):
            raise SecurityError(f"{apdus.name_of(reply.tag)} carries another service")
        return plain

    def _unwrap(self, incoming: bytes) -> Apdu | None:
        """The reply within what came; None for a notification, which is kept.

        Raises:
            ServiceRefusedError: the meter says that it cannot.
            DlmsError: what came is malformed, or its protection does not hold.
        """
        reply = apdus.decode(incoming)
        protected = isinstance(reply, ServiceCiphered | GeneralCiphered)
        if protected:
            reply = apdus.decode(self._unprotect(reply))
        if isinstance(reply, DataNotification | EventNotification):
            self.notifications.append(reply)
            return None
        if isinstance(reply, ExceptionResponse):
            raise ServiceRefusedError.from_exception(reply.state, reply.service, reply.expected_counter)
        if isinstance(reply, ConfirmedServiceError):
            raise ServiceRefusedError(f"confirmed-service-error: {reply.words}")
        if self.security is not None and not protected and not isinstance(reply, AssociationResponse):
            raise SecurityError(
                f"the meter answered with {apdus.name_of(incoming[0])} in plain, where ciphered is agreed"
            )
        return reply
