"""One client's association with a logical device, from the server's side (Green Book 4.4, 9.4).

Opening with both passes of HLS, the association object, and the way of one request to its answer: blocks below
the services put together, protection taken off, served, and protected in kind.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import replace

from concentrator.dlms import apdu as apdus
from concentrator.dlms import axdr
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.initiate import (
    VAA_NAME_LN,
    VAA_NAME_SN,
    ConfirmedServiceError,
    InitiateRequest,
    InitiateResponse,
)
from concentrator.dlms.apdu.notification import (
    DataNotificationConfirm,
    EventNotification,
    ExceptionResponse,
)
from concentrator.dlms.apdu.protection import GLOBAL_TAGS, GeneralBlockTransfer, ServiceCiphered
from concentrator.dlms.apdu.short_name import InformationReport, VariableName
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.authentication import HighLevelSecurity, challenge_length
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import (
    AcseServiceUserDiagnostic,
    ActionResult,
    AssociationResult,
    AuthenticationMechanism,
    Conformance,
    DataAccessResult,
    ServiceError,
    StateError,
)
from concentrator.dlms.cosem.association import (
    ASSOCIATION_LN,
    AssociationView,
    association_ln,
    object_list_ln,
    object_list_sn,
)
from concentrator.dlms.cosem.objects import AccessMode, CosemObject, refused
from concentrator.dlms.envelopes import PLAIN, Envelope, EnvelopeKind, Protected, unwrap, wrap
from concentrator.dlms.errors import DecodeError, DlmsError, EncodeError, ReplayError, SecurityError
from concentrator.dlms.gbt import BLOCK_OVERHEAD, BlockTransfer
from concentrator.dlms.logical_device import SHORT_NAME_CONFORMANCE, AssociationDefinition, LogicalDevice
from concentrator.dlms.security import BOTH, SecurityContext, SecurityKeys, SecurityPolicy
from concentrator.dlms.services import ServiceEngine
from concentrator.dlms.short_name_services import ShortNameEngine
from concentrator.obis import Obis

_MINIMUM_PDU_SIZE = 64
_GBT_WINDOW = 8
_NOT_ALLOWED = ExceptionResponse(
    StateError.SERVICE_NOT_ALLOWED, ServiceError.OPERATION_NOT_POSSIBLE
).to_bytes()

_TOO_LONG = ExceptionResponse(StateError.SERVICE_NOT_ALLOWED, ServiceError.PDU_TOO_LONG).to_bytes()


class Association:
    """The state of one client's association with one logical device."""

    def __init__(self, device: LogicalDevice, definition: AssociationDefinition) -> None:
        self.device = device
        self.definition = definition
        self.associated = False
        self.security: SecurityContext | None = None
        self.hls: HighLevelSecurity | None = None
        self.pending_proof = False
        self.engine: ServiceEngine | None = None
        self.confirmations: list[DataNotificationConfirm] = []
        self._short_names: ShortNameEngine | None = None
        self._transfer: BlockTransfer | None = None
        self._limit = self._room = 0
        self._granted = b""
        self._initiate_envelope = PLAIN
        self._initiate_control = 0
        self._signs = False

    def close(self) -> None:
        """End the association."""
        self.associated = False
        self.pending_proof = False
        self.security = None
        self.engine = None
        self._short_names = None
        self._transfer = None

    # Opening

    def open(self, request: AssociationRequest) -> AssociationResponse:
        """Answer an AARQ."""
        self.close()
        definition = self.definition
        context = definition.context
        if request.context != context:
            return self._reject(AcseServiceUserDiagnostic.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED)
        mechanism = request.mechanism or AuthenticationMechanism.NONE
        if mechanism != definition.mechanism:
            required = mechanism == AuthenticationMechanism.NONE
            return self._reject(
                AcseServiceUserDiagnostic.AUTHENTICATION_MECHANISM_NAME_REQUIRED
                if required
                else AcseServiceUserDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED,
            )
        client_title = request.calling_ap_title or b""
        if definition.keys is not None:
            if len(client_title) != 8:
                return self._reject(AcseServiceUserDiagnostic.CALLING_AP_TITLE_NOT_RECOGNIZED)
            self.security = self._security_context(definition.keys, client_title)
            if definition.trust is not None and request.calling_ae_qualifier:
                try:
                    key = definition.trust.signing_key(request.calling_ae_qualifier, client_title)
                    self.security.keys = self.security.keys.with_peer_signing(key)
                except DlmsError:
                    return self._not_proven()
        try:
            initiate = self._initiate(request.user_information)
        except DlmsError as error:
            replayed = isinstance(error, ReplayError)
            self.device.replays += replayed
            self.device.failed_proofs += isinstance(error, SecurityError) and not replayed
            return self._reject(AcseServiceUserDiagnostic.NO_REASON_GIVEN)
        value = request.authentication_value or b""
        secret = self.device.secrets.get(definition.client_sap, b"")
        if mechanism == AuthenticationMechanism.LLS and not hmac.compare_digest(value, secret):
            return self._not_proven()
        conformance = initiate.conformance & definition.conformance
        if definition.short_names:
            conformance &= SHORT_NAME_CONFORMANCE
            wanted = Conformance.READ | Conformance.WRITE
        else:
            wanted = Conformance.GET | Conformance.SET | Conformance.ACTION | Conformance.ACCESS
        if initiate.dlms_version < 6:
            return self._reject(AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 1))
        if not conformance & wanted:
            return self._reject(AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 2))
        if 0 < initiate.max_receive_pdu_size < _MINIMUM_PDU_SIZE:
            return self._reject(AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 3))
        return self._accept(request, initiate, conformance, mechanism, value)

    def _security_context(self, keys: SecurityKeys, client_title: bytes) -> SecurityContext:
        definition, device = self.definition, self.device
        policy = definition.policy()
        self._signs = definition.signed or bool(policy & SecurityPolicy.SIGNED_RESPONSE)
        least = definition.security_policy
        # A copy: keys that this association exchanges are used from the next one on.
        security = SecurityContext(
            keys.with_dedicated(b""),
            device.system_title,
            device.counter,
            peer_system_title=client_title,
            suite=definition.security_suite,
            policy=least | policy.response_control if definition.ciphered else 0,
            accepted=least | policy.request_control if definition.ciphered else 0,
            signed=definition.signed or bool(policy & SecurityPolicy.SIGNED_REQUEST),
            header_authenticated=definition.header_authenticated,
            length_signed=definition.length_signed,
        )
        security.received_counters = device.received_counters.setdefault(definition.client_sap, {})
        return security

    def _initiate(self, information: bytes | None) -> InitiateRequest:
        if information is None:
            raise DecodeError("an AARQ without user-information")
        inner = apdus.decode(information)
        if self.security is not None and self.definition.ciphered:
            if not isinstance(inner, Protected):
                raise SecurityError("a ciphered context needs a ciphered InitiateRequest")
            inner = apdus.decode(self._initiate_plain(self.security, inner))
        if not isinstance(inner, InitiateRequest):
            raise DecodeError("the user-information is no InitiateRequest")
        return inner

    def _initiate_plain(self, security: SecurityContext, inner: Protected) -> bytes:
        if not isinstance(inner, ServiceCiphered):
            plain, self._initiate_envelope = unwrap(security, inner)
            return plain
        # Never signed: the envelope of the AARQ is the association's, not that of a service.
        self._initiate_envelope = PLAIN
        self._initiate_control = inner.content[0] & BOTH if inner.content else 0
        plain = security.unprotect(inner.content)
        if plain[:1] != bytes((inner.service_tag,)):
            raise SecurityError(f"{apdus.name_of(inner.tag)} carries another service")
        return plain

    def _initiate_response(self, security: SecurityContext) -> bytes:
        """What was granted, ciphered as the InitiateRequest was."""
        if self._initiate_envelope.kind != EnvelopeKind.PLAIN:
            return wrap(security, self._granted, self._initiate_envelope)
        content = security.protect(self._granted, more=self._initiate_control)
        return ServiceCiphered(GLOBAL_TAGS[InitiateResponse.TAG], content).to_bytes()

    def _not_proven(self) -> AssociationResponse:
        self.device.failed_proofs += 1
        return self._reject(AcseServiceUserDiagnostic.AUTHENTICATION_FAILURE)

    def _reject(
        self, diagnostic: AcseServiceUserDiagnostic, *, error: tuple[int, int] = (6, 0)
    ) -> AssociationResponse:
        self.close()
        return AssociationResponse(
            self.definition.context,
            AssociationResult.REJECTED_PERMANENT,
            1,
            diagnostic,
            ConfirmedServiceError(1, *error).to_bytes(),
        )

    def _accept(
        self,
        request: AssociationRequest,
        initiate: InitiateRequest,
        conformance: Conformance,
        mechanism: int,
        value: bytes,
    ) -> AssociationResponse:
        definition, device = self.definition, self.device
        self._start_services(initiate, conformance)
        if initiate.dedicated_key and self.security is not None:
            self.security.new_dedicated_key(initiate.dedicated_key)
        names = VAA_NAME_SN if definition.short_names else VAA_NAME_LN
        response = self._granted = InitiateResponse(conformance, device.max_pdu_size, names).to_bytes()
        if self.security is not None and definition.ciphered:
            response = self._initiate_response(self.security)
        title = device.system_title or None
        if mechanism < AuthenticationMechanism.HLS_MANUFACTURER:
            self._associated()
            return AssociationResponse(
                definition.context, AssociationResult.ACCEPTED, 1, 0, response, responding_ap_title=title
            )
        self.hls = HighLevelSecurity(
            mechanism,
            secret=device.secrets.get(definition.client_sap, b""),
            security=self.security,
            own_system_title=device.system_title,
            peer_system_title=request.calling_ap_title or b"",
            manufacturer=definition.manufacturer,
        )
        self.hls.peer_challenge = value
        self.hls.own_challenge = device.random_octets(challenge_length(mechanism))
        self.pending_proof = True
        shown = device.certificate if mechanism == AuthenticationMechanism.HLS_ECDSA else b""
        return AssociationResponse(
            definition.context,
            AssociationResult.ACCEPTED,
            1,
            AcseServiceUserDiagnostic.AUTHENTICATION_REQUIRED,
            response,
            responding_ap_title=title,
            responding_ae_qualifier=shown or None,
            mechanism=mechanism,
            authentication_value=self.hls.own_challenge,
        )

    def _start_services(self, initiate: InitiateRequest, conformance: Conformance) -> None:
        definition, device = self.definition, self.device
        # A device whose own buffer is small does not fill a client's large one either.
        self._limit = min(initiate.max_receive_pdu_size or 0xFFFF, device.max_pdu_size or 0xFFFF)
        # What each envelope takes away of it is known with the request.
        room = self._room = self._limit
        self.engine = ServiceEngine(self._find, self._access, conformance, room, may_invoke=self._may_invoke)
        if definition.short_names:
            self._short_names = ShortNameEngine(
                self.engine, device.short_names, self._object_list_sn, self._reply_to_hls, room
            )

    def _associated(self) -> None:
        self.associated = True
        if self.engine is not None:
            self.engine.open = True

    def _reply_to_hls(self, parameters: Data | None) -> Data | None:
        """reply_to_HLS_authentication of the association object: passes 3 and 4."""
        if self.hls is None or not self.pending_proof or parameters is None:
            raise refused(ActionResult.READ_WRITE_DENIED)
        self.pending_proof = False
        try:
            self.hls.check(parameters.octets())
            answer = self.hls.answer()
        except (DlmsError, EncodeError):
            self.device.failed_proofs += 1
            self.close()
            raise refused(ActionResult.READ_WRITE_DENIED) from None
        self._associated()
        return axdr.octet_string(answer)

    # Objects

    def _find(self, class_id: int, obis: Obis) -> CosemObject | None:
        if class_id == 15 and obis in (ASSOCIATION_LN, self.own_name):
            return association_ln(obis, self._view(), self._object_list_ln)
        return self.device.objects.get((class_id, obis)) if self.associated else None

    def _access(self, cosem_object: CosemObject, attribute: int) -> AccessMode:
        if cosem_object.class_id != 15:
            return self.definition.access(cosem_object, attribute)
        if not self.associated:
            return AccessMode.NO_ACCESS
        return AccessMode.WRITE_ONLY if attribute == 7 else AccessMode.READ_ONLY

    def _may_invoke(self, cosem_object: CosemObject) -> bool:
        return cosem_object.class_id == 15 or self.definition.invokes(cosem_object)

    @property
    def own_name(self) -> Obis:
        """The logical name of this client's own association; 0.0.40.0.0.255 is the current one."""
        index = sorted(self.device.associations).index(self.definition.client_sap) + 1
        return Obis(0, 0, 40, 0, index, 255)

    def _view(self) -> AssociationView:
        definition = self.definition
        methods = {1: self._reply_to_hls}
        secret = definition.mechanism in (
            AuthenticationMechanism.HLS_MANUFACTURER,
            AuthenticationMechanism.HLS_MD5,
            AuthenticationMechanism.HLS_SHA1,
            AuthenticationMechanism.HLS_SHA256,
        )
        if self.associated and secret:
            methods[2] = self._change_secret
        setters = {}
        if self.associated and definition.mechanism == AuthenticationMechanism.LLS:
            setters = {7: self._set_secret}
        return AssociationView(
            definition.client_sap,
            self.device.sap,
            definition.context,
            definition.mechanism,
            self.engine.conformance if self.engine else definition.conformance,
            self.device.max_pdu_size,
            2 if self.associated else 1,
            security_setup=definition.security_setup,
            methods=methods,
            setters=setters,
        )

    def _change_secret(self, parameters: Data | None) -> Data | None:
        """change_HLS_secret: the new secret, which the next association uses."""
        if parameters is None:
            raise refused(ActionResult.TYPE_UNMATCHED)
        self._set_secret(parameters)
        return None

    def _set_secret(self, value: Data) -> None:
        self.device.secrets[self.definition.client_sap] = value.octets()

    def _object_list_ln(self) -> Data:
        view = self._view()
        # Under its own name, and as the current one.
        own = [association_ln(name, view, self._object_list_ln) for name in (ASSOCIATION_LN, self.own_name)]
        return object_list_ln([*own, *self.device.objects.values()], self._access)

    def _object_list_sn(self) -> Data:
        return object_list_sn(self.device.short_names(), self._access)

    # One APDU

    def receive(self, apdu: Apdu) -> Iterator[bytes]:
        """Answer any APDU but AARQ."""
        if isinstance(apdu, ReleaseRequest):
            was_open = self.associated or self.pending_proof
            information = self._release_information(apdu) if was_open else None
            self.close()
            if was_open:
                yield ReleaseResponse(0, information).to_bytes()
        elif self.engine is None or not (self.associated or self.pending_proof):
            yield _NOT_ALLOWED
        elif not isinstance(apdu, GeneralBlockTransfer):
            for reply in self._serve(apdu):
                yield from self._send(reply, in_blocks=False)
        elif self.engine.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            yield from self._receive_block(apdu)
        else:
            yield ExceptionResponse(StateError.SERVICE_UNKNOWN, ServiceError.SERVICE_NOT_SUPPORTED).to_bytes()

    def notify(self, attributes: Sequence[AttributeDescriptor], date_time: bytes | None) -> Iterator[bytes]:
        """See `Server.notify`."""
        engine, definition = self.engine, self.definition
        service = Conformance.INFORMATION_REPORT if definition.short_names else Conformance.EVENT_NOTIFICATION
        if engine is None or not self.associated or not engine.conformance & service:
            raise EncodeError(f"client {definition.client_sap} has no association that takes notifications")
        values = [axdr.decode(b"".join(engine.read(attribute, None))) for attribute in attributes]
        if definition.short_names:
            names = tuple([VariableName(self._short_name(attribute)) for attribute in attributes])
            told: list[bytes] = [InformationReport(date_time, names, tuple(values)).to_bytes()]
        else:
            told = [
                EventNotification(date_time, attribute, value).to_bytes()
                for attribute, value in zip(attributes, values, strict=True)
            ]
        for notification in told:
            yield from self._send(self._protected(notification, self._reply_envelope(PLAIN)), in_blocks=False)

    def _short_name(self, attribute: AttributeDescriptor) -> int:
        for base, cosem_object in self.device.short_names().items():
            if (cosem_object.class_id, cosem_object.obis) == (attribute.class_id, attribute.obis):
                return base + 8 * (attribute.attribute - 1)
        raise refused(DataAccessResult.OBJECT_UNDEFINED, f"notifying {attribute}")

    def _release_information(self, request: ReleaseRequest) -> bytes | None:
        """The InitiateResponse once more, ciphered, where the request had its InitiateRequest ciphered."""
        if self.security is None or not self.definition.ciphered or request.user_information is None:
            return None
        try:
            self._initiate(request.user_information)
        except DlmsError as error:
            self.device.replays += isinstance(error, ReplayError)
            return None
        return self._initiate_response(self.security)

    def _receive_block(self, block: GeneralBlockTransfer) -> Iterator[bytes]:
        transfer = self._transfer
        fresh = block.block_number == 1 and bool(block.block) and not (transfer and transfer.receiving)
        if transfer is None or fresh:
            transfer = self._transfer = BlockTransfer(_GBT_WINDOW)
        answers, whole = transfer.receive_block(block)
        for answer in answers:
            yield answer.to_bytes()
        if whole is not None:
            for reply in self._serve(apdus.decode(whole)):
                yield from self._send(reply, in_blocks=True)

    def _send(self, reply: bytes, *, in_blocks: bool) -> Iterator[bytes]:
        """A reply as it is, or in blocks where it is too long or answers blocks."""
        engine = self.engine
        allowed = engine is not None and engine.conformance & Conformance.GENERAL_BLOCK_TRANSFER
        if not allowed or (len(reply) <= self._limit and not in_blocks):
            yield reply if len(reply) <= self._limit else _TOO_LONG
            return
        if not in_blocks or self._transfer is None:
            self._transfer = BlockTransfer(_GBT_WINDOW)
        for block in self._transfer.send(reply, self._limit - BLOCK_OVERHEAD):
            yield block.to_bytes()

    def _serve(self, apdu: Apdu) -> Iterator[bytes]:
        """The replies to one whole request, protected as it was."""
        engine = self._short_names or self.engine
        security, envelope = self.security, PLAIN
        if isinstance(apdu, Protected):
            try:
                if security is None:
                    raise SecurityError("a ciphered APDU in an association without keys")
                plain, envelope = unwrap(security, apdu)
                apdu = apdus.decode(plain)
            except ReplayError:
                self.device.replays += 1
                yield self._counter_error()
                return
            except DlmsError:
                yield ExceptionResponse(
                    StateError.SERVICE_NOT_ALLOWED, ServiceError.DECIPHERING_ERROR
                ).to_bytes()
                return
        elif security is not None and (security.accepted or security.signed):
            yield _NOT_ALLOWED
            return
        if isinstance(apdu, DataNotificationConfirm):
            self.confirmations.append(apdu)
        elif engine is not None:
            envelope = self._reply_envelope(envelope)
            room = self._limit - (
                0 if envelope == PLAIN else envelope.overhead(self.definition.security_suite)
            )
            if room != self._room:
                self._room = room
                engine.set_room(room)
            for reply in engine.receive(apdu):
                yield self._protected(reply, envelope)

    def _protected(self, reply: bytes, envelope: Envelope) -> bytes:
        """A reply in this envelope. An exception-response is plain."""
        security = self.security
        if security is None or envelope == PLAIN or reply[0] == ExceptionResponse.TAG:
            return reply
        return wrap(security, reply, envelope)

    def _reply_envelope(self, envelope: Envelope) -> Envelope:
        """The envelope of the replies to a request in this one: the same, and what the policy asks for."""
        security = self.security
        if security is None:
            return PLAIN
        if envelope.kind == EnvelopeKind.PLAIN and security.policy:
            envelope = replace(self._own_envelope(), signed=envelope.signed)
        return replace(envelope, signed=True) if self._signs and not envelope.signed else envelope

    def _own_envelope(self) -> Envelope:
        """The envelope of what is protected although nothing came before that was."""
        general = self.engine is not None and self.engine.conformance & Conformance.GENERAL_PROTECTION
        return Envelope(EnvelopeKind.GENERAL if general else EnvelopeKind.SERVICE_SPECIFIC)

    def _counter_error(self) -> bytes:
        counters = self.device.received_counters.get(self.definition.client_sap, {})
        expected = max(counters.values(), default=0)
        return ExceptionResponse(
            StateError.SERVICE_NOT_ALLOWED, ServiceError.INVOCATION_COUNTER_ERROR, expected & 0xFFFFFFFF
        ).to_bytes()
