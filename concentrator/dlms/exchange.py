"""One request and its answer, as a client exchanges them: protection, what comes in between, and repetition.

A conversation is a generator: it yields the APDUs to send, in their order, and is sent the APDU that came.
Mostly it is one; a window of a general-block-transfer is several; none means: hand in the next APDU. What goes
wrong below is thrown in from outside: a `ConnectionLostError` ends the conversation, any other `TransientError`
is an answer that did not come, and is met by asking again where that does no harm. Nothing here knows sockets
or time.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from concentrator.dlms import apdu as apdus
from concentrator.dlms.acse import AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.initiate import ConfirmedServiceError
from concentrator.dlms.apdu.notification import (
    DataNotification,
    DataNotificationConfirm,
    EventNotification,
    ExceptionResponse,
)
from concentrator.dlms.apdu.protection import (
    GeneralBlockTransfer,
    GeneralCiphered,
    GeneralCiphering,
    GeneralSigning,
    ServiceCiphered,
)
from concentrator.dlms.apdu.short_name import InformationReport
from concentrator.dlms.attributes import EntryDescriptor, RangeDescriptor, Selection
from concentrator.dlms.authentication import ManufacturerFunction
from concentrator.dlms.certificates import TrustAnchors
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.envelopes import (
    Envelope,
    EnvelopeKind,
    KeyEstablishment,
    Protected,
    unwrap,
    wrap,
)
from concentrator.dlms.errors import (
    AssociationEndedError,
    DlmsError,
    EncodeError,
    ReplayError,
    ReplyTimeoutError,
    SecurityError,
    ServiceRefusedError,
    UnexpectedReplyError,
)
from concentrator.dlms.gateway import GatewayAddress
from concentrator.dlms.gbt import BLOCK_OVERHEAD, MAX_WINDOW, BlockTransfer
from concentrator.dlms.security import BOTH, CounterSource, SecurityContext, SecurityKeys
from concentrator.errors import ConnectionLostError, TransientError
from concentrator.obis import Obis

T = TypeVar("T")
Outgoing: TypeAlias = tuple[bytes, ...]
Conversation: TypeAlias = Generator[Outgoing, bytes, T]
Selectable: TypeAlias = Selection | RangeDescriptor | EntryDescriptor | None
Notification: TypeAlias = DataNotification | EventNotification | InformationReport

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
UNRELATED_LIMIT = 16
# Notifications and replays in between, before a conversation gives up.
UNASKED_LIMIT = 256
# How often in a row the same block may be asked for.
_STALL_LIMIT = 16
# Blocks in a row that bring nothing new: some whole windows may come again.
_IDLE_LIMIT = 4 * MAX_WINDOW
# Blocks of one general-block-transfer, before a conversation gives up.
_BLOCK_LIMIT = 2 * 0xFFFF


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to speak to one meter. `secret` is the LLS password or the HLS secret (mechanisms 2, 3, 4, 6).

    `security_policy` are the bits of the security control that requests have, and responses must have, unless
    `response_policy` says otherwise for these. With `keys` the association is ciphered, unless `ciphered` is
    false: then they only prove who we are (mechanisms 5 and 7). `general_ciphering` wraps requests as general-
    glo-ciphering instead of the service-specific APDUs, `key_establishment` as general-ciphering; with `signed`
    requests and answers are signed. `compressed` lets requests be compressed (suites 1 and 2, in a general
    envelope). `manufacturer` is f of mechanism 2.

    `max_pdu_size` is what we can receive; `gbt_window` how many blocks of a general-block-transfer, where
    `conformance` proposes it. `repetitions` is how often one answer that did not come is asked for again within
    a transfer in blocks; `repetition_budget` how often in the whole of it. With mechanism 7 we show our
    `certificate` (for digital signature, in DER), and with `trust` believe the meter's. `gateway` addresses a
    meter behind a gateway, to which all APDUs go then.
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
    response_policy: int | None = None
    general_ciphering: bool = False
    dedicated_key: bytes = field(default=b"", repr=False)
    max_pdu_size: int = 0xFFFF
    conformance: Conformance = DEFAULT_CONFORMANCE
    association_name: Obis = ASSOCIATION_LN
    gbt_window: int = 8
    max_value_octets: int = 16 * 1024 * 1024
    ciphered: bool = True
    key_establishment: KeyEstablishment | None = None
    signed: bool = False
    header_authenticated: bool = True
    length_signed: bool = False
    manufacturer: ManufacturerFunction | None = None
    repetitions: int = 3
    repetition_budget: int = 32
    compressed: bool = False
    gateway: GatewayAddress | None = None
    certificate: bytes = b""
    trust: TrustAnchors | None = None

    @property
    def envelope(self) -> Envelope:
        """How requests are protected, where they are."""
        if not self.ciphered:
            return Envelope(EnvelopeKind.PLAIN, signed=self.signed)
        if self.key_establishment is not None:
            kind = EnvelopeKind.GENERAL_CIPHERING
            return Envelope(kind, False, self.key_establishment, self.signed, self.compressed)
        kind = EnvelopeKind.GENERAL if self.general_ciphering else EnvelopeKind.SERVICE_SPECIFIC
        return Envelope(kind, bool(self.dedicated_key), signed=self.signed, compressed=self.compressed)


# As tuples: a union is slower to look into, and this is asked for each APDU.
_NOTIFICATIONS = (DataNotification, EventNotification, InformationReport)
_PROTECTED = (ServiceCiphered, GeneralCiphered, GeneralCiphering, GeneralSigning)


def _described(reply: Apdu) -> str:
    invoke = getattr(reply, "invoke", None)
    name = type(reply).__name__
    return name if invoke is None else f"{name} with invoke-id {invoke & 0x0F}"


def _encoded(blocks: list[GeneralBlockTransfer]) -> Outgoing:
    return tuple([block.to_bytes() for block in blocks])


class Exchange:
    """What all clients share: protection, notifications in between, blocks below the services.

    `counter` gives the invocation counters where keys are used. `on_plain` is told each APDU as it is before it is
    protected (with True) and after its protection was taken off. `notifications` keeps what the meter sent
    unasked in between, `unprotected_notifications` what came in plain where ciphered is agreed: anybody could have
    sent that. What is to be confirmed is confirmed. After association, `conformance` and
    `max_send_size` are what was agreed.
    """

    def __init__(
        self,
        settings: ClientSettings,
        counter: CounterSource | None = None,
        *,
        random_octets: Callable[[int], bytes] = secrets.token_bytes,
        on_plain: Callable[[bool, bytes], None] | None = None,
    ) -> None:
        self.settings = settings
        self._on_plain = on_plain
        self.notifications: deque[Notification] = deque(maxlen=256)
        self.unprotected_notifications: deque[Notification] = deque(maxlen=256)
        self.conformance = Conformance.NONE
        self.max_send_size = 0
        self.associated = False
        self.unrelated_replies = 0
        self.repetitions = 0
        self._random = random_octets
        self._envelope = settings.envelope
        if settings.compressed and not (self._envelope.compresses and settings.security_suite):
            raise EncodeError("compression takes a general envelope, and security suite 1 or 2")
        self._overhead = self._envelope.overhead(settings.security_suite)
        self._gateway_overhead = settings.gateway.overhead if settings.gateway else 0
        self._budget = 0
        self._peer_window = 1
        self._aside: deque[bytes] = deque(maxlen=16)
        self._confirmations: deque[bytes] = deque(maxlen=16)
        self._authentication: SecurityContext | None = None
        if settings.keys is not None:
            if counter is None:
                raise EncodeError("keys need a source of invocation counters")
            self._authentication = SecurityContext(
                settings.keys.with_dedicated(settings.dedicated_key),
                settings.system_title,
                counter,
                peer_system_title=settings.meter_system_title,
                suite=settings.security_suite,
                policy=settings.security_policy if settings.ciphered else 0,
                accepted=settings.response_policy if settings.ciphered else None,
                signed=settings.signed,
                header_authenticated=settings.header_authenticated,
                length_signed=settings.length_signed,
            )
        protects = settings.ciphered or settings.signed
        self.security: SecurityContext | None = self._authentication if protects else None

    def room(self) -> int:
        """Octets of plain APDU that the meter can take."""
        limit = self._send_size or 0xFFFF
        if self.security is None:
            return limit
        return limit - self._overhead

    @property
    def _send_size(self) -> int:
        """Octets that the meter takes of one APDU, the gateway's header aside; 0 where it has not told."""
        return self.max_send_size - self._gateway_overhead if self.max_send_size else 0

    def transmit(self, outgoing: Outgoing) -> Conversation[bytes]:
        """Send APDUs and take the next that comes: through the gateway, where there is one."""
        gateway = self.settings.gateway
        if gateway is None:
            return (yield outgoing)
        incoming = yield tuple([gateway.request(apdu) for apdu in outgoing])
        for _ in range(UNRELATED_LIMIT):
            found = gateway.within(incoming)
            if found is not None:
                return found
            self.unrelated_replies += 1
            incoming = yield ()
        raise UnexpectedReplyError(f"{UNRELATED_LIMIT} APDUs came from other meters behind the gateway")

    def start_service(self) -> None:
        """A new request by the caller: its repetitions are counted from here."""
        self._budget = self.settings.repetition_budget
        self._aside.clear()

    def ask(
        self, request: bytes, belongs: Callable[[Apdu], bool], *, repeatable: bool = False
    ) -> Conversation[Apdu]:
        """Send a request and await the answer that belongs to it.

        A `repeatable` request is sent again, under a new invocation counter, when no answer comes.

        Raises:
            TransientError: no answer came, or the link is lost.
            DlmsError: the meter refuses, or what came cannot be trusted.
        """
        tries = self.settings.repetitions if repeatable else 0
        while True:
            try:
                return (yield from self._once(request, belongs))
            except TransientError as error:
                if tries <= 0:
                    raise
                tries -= 1
                self._spend(error)

    def _spend(self, error: TransientError) -> None:
        """Take one repetition off the budget; raises the error where that is of no use any more."""
        if isinstance(error, ConnectionLostError) or self._budget <= 0:
            raise error
        self._budget -= 1
        self.repetitions += 1

    def _once(self, request: bytes, belongs: Callable[[Apdu], bool]) -> Conversation[Apdu]:
        protected = self._protect(request)
        if 0 < self.max_send_size < len(protected) + self._gateway_overhead and (
            self.conformance & Conformance.GENERAL_BLOCK_TRANSFER
        ):
            incoming = yield from self._send_by_gbt(protected)
        elif self._gateway_overhead:
            incoming = yield from self.transmit((protected,))
        else:
            incoming = yield (protected,)
        return (yield from self.await_reply(incoming, belongs))

    def await_reply(self, incoming: bytes, belongs: Callable[[Apdu], bool]) -> Conversation[Apdu]:
        """The answer among what comes, beginning with `incoming`."""
        unasked = unrelated = 0
        instead: Apdu | None = None
        while True:
            if incoming[:1] == b"\xe0":
                transfer = self._transfer()
                incoming = yield from self._by_gbt(transfer, incoming)
            try:
                reply = self.take_apart(incoming)
            except ReplayError:
                # Counted by the security context. Whoever plays old APDUs again does not end our dialogue.
                reply = None
            if reply is not None:
                if belongs(reply):
                    self._look_at_what_came_aside()
                    return reply
                self.unrelated_replies += 1
                unrelated += 1
                instead = reply
                if self.associated and isinstance(reply, (ReleaseRequest, ReleaseResponse)):
                    self.associated = False
                    raise AssociationEndedError("the meter released the association before it answered")
            else:
                unasked += 1
            if unrelated >= UNRELATED_LIMIT or unasked >= UNASKED_LIMIT:
                break
            if self._aside:
                incoming = self._aside.popleft()
                continue
            try:
                incoming = yield from self.transmit(self._idle())
            except ConnectionLostError:
                raise
            except TransientError as error:
                if instead is None:
                    raise
                raise ReplyTimeoutError(f"{error}; instead came {_described(instead)}") from error
        if instead is None:
            raise UnexpectedReplyError(f"{unasked} APDUs came unasked, and no answer")
        raise UnexpectedReplyError(
            f"{unrelated} APDUs came, none of them the answer; the last was {_described(instead)}"
        )

    def _look_at_what_came_aside(self) -> None:
        while self._aside:
            with contextlib.suppress(DlmsError):
                self.unrelated_replies += self.take_apart(self._aside.popleft()) is not None

    def _idle(self) -> Outgoing:
        """What to send when nothing is to be asked: the confirmations that are due."""
        due = tuple(self._confirmations)
        self._confirmations.clear()
        return due

    # General-block-transfer

    def _transfer(self) -> BlockTransfer:
        return BlockTransfer(
            self.settings.gbt_window, self.settings.max_value_octets, peer_window=self._peer_window
        )

    def _send_by_gbt(self, apdu: bytes) -> Conversation[bytes]:
        """Send a long APDU in blocks; gives the answer to it."""
        transfer = self._transfer()
        first = transfer.send(apdu, self._send_size - BLOCK_OVERHEAD)
        return (yield from self._by_gbt(transfer, b"", _encoded(first)))

    def _by_gbt(
        self, transfer: BlockTransfer, incoming: bytes, outgoing: Outgoing = ()
    ) -> Conversation[bytes]:
        """The APDU that comes in blocks, or the plain one that answers what we sent in blocks."""
        answered = False
        progress, idle = -1, 0
        for _ in range(_BLOCK_LIMIT):
            if incoming[:1] == b"\xe0":
                answered = True
                block = apdus.decode(incoming)
                if isinstance(block, GeneralBlockTransfer):
                    answers, whole = transfer.receive_block(block)
                    self._peer_window = transfer.peer_window
                    if whole is not None:
                        return whole
                    idle = idle + 1 if transfer.progress == progress else 0
                    progress = transfer.progress
                    if transfer.stalls > _STALL_LIMIT or idle > _IDLE_LIMIT:
                        break
                    outgoing = _encoded(answers)
            elif incoming:
                if not transfer.sending and not transfer.receiving and answered:
                    return incoming
                if transfer.receiving:
                    # Protected after what comes in blocks, and so to be looked at after that.
                    self._aside.append(incoming)
                elif self.take_apart(incoming) is not None:
                    self.unrelated_replies += 1
                outgoing = self._idle()
            try:
                incoming = yield from self.transmit(outgoing)
            except TransientError as error:
                self._spend(error)
                outgoing, incoming = _encoded(transfer.repetition()), b""
        raise UnexpectedReplyError("a general-block-transfer does not come to its end")

    # Protection

    def _protect(self, request: bytes) -> bytes:
        if self.security is None:
            return request
        if self._on_plain is not None:
            self._on_plain(True, request)
        return wrap(self.security, request, self._envelope)

    def unprotect(self, protected: Protected) -> bytes:
        """The plain APDU within. Raises SecurityError."""
        if self.security is None:
            raise SecurityError("the meter sent a ciphered APDU in an association without keys")
        plain = unwrap(self.security, protected)[0]
        if self._on_plain is not None:
            self._on_plain(False, plain)
        return plain

    def take_apart(self, incoming: bytes) -> Apdu | None:
        """The reply within what came; None for a notification, which is kept.

        Raises:
            ServiceRefusedError: the meter says that it cannot.
            DlmsError: what came is malformed, or its protection does not hold.
        """
        reply = apdus.decode(incoming)
        protected = isinstance(reply, _PROTECTED)
        if protected:
            reply = apdus.decode(self.unprotect(reply))
        if isinstance(reply, _NOTIFICATIONS):
            self._keep(reply, trusted=protected or self.security is None)
            return None
        if isinstance(reply, ExceptionResponse):
            raise ServiceRefusedError.from_exception(reply.state, reply.service, reply.expected_counter)
        if isinstance(reply, ConfirmedServiceError):
            raise ServiceRefusedError(f"confirmed-service-error: {reply.words}")
        if (
            self.security is not None
            and not protected
            and not isinstance(reply, (AssociationResponse, ReleaseRequest, ReleaseResponse))
        ):
            raise SecurityError(
                f"the meter answered with {apdus.name_of(incoming[0])} in plain, where ciphered is agreed"
            )
        return reply

    def _keep(self, notification: Notification, *, trusted: bool) -> None:
        (self.notifications if trusted else self.unprotected_notifications).append(notification)
        if isinstance(notification, DataNotification) and notification.confirmed:
            confirmation = DataNotificationConfirm(notification.long_invoke).to_bytes()
            self._confirmations.append(self._protect(confirmation))
