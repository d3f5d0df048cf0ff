"""A COSEM server, sans-IO: logical devices, their associations and objects (Green Book 4.4, 9.3, 9.4).

`Server.receive_apdu` takes one APDU and gives back those to send. The same server stands in the
simulated meters and for the concentrator's own logical devices. Logical-name referencing only.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from concentrator.dlms import apdu as apdus
from concentrator.dlms import axdr
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.protection import (
    DEDICATED_TAGS,
    GLOBAL_TAGS,
    GeneralCiphered,
    ServiceCiphered,
)
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import (
    AcseServiceUserDiagnostic,
    ActionResult,
    ApplicationContext,
    AssociationResult,
    AuthenticationMechanism,
    Conformance,
    DataAccessResult,
    ServiceError,
    StateError,
)
from concentrator.dlms.cosem.objects import AccessMode, CosemObject, refused
from concentrator.dlms.errors import DecodeError, DlmsError, EncodeError, ReplayError, SecurityError
from concentrator.dlms.security import (
    BOTH,
    CounterSource,
    HighLevelSecurity,
    MemoryCounter,
    SecurityContext,
    SecurityKeys,
)
from concentrator.dlms.services import ServiceEngine
from concentrator.obis import Obis

ASSOCIATION_LN = Obis(0, 0, 40, 0, 0, 255)
SERVER_CONFORMANCE = (
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
# Tag, length, security header and authentication tag of a ciphered APDU, with an own title in it.
_CIPHERING_OVERHEAD = 40
_MINIMUM_PDU_SIZE = 64


def full_access(cosem_object: CosemObject, attribute: int) -> AccessMode:
    """Everything may be read, and written where the object has a setter."""
    return AccessMode.READ_AND_WRITE if attribute in cosem_object.setters else AccessMode.READ_ONLY


def visible_only(names: Iterable[Obis]) -> Callable[[CosemObject, int], AccessMode]:
    """Only these objects may be read, and nothing may be written: for a public client."""
    allowed = frozenset(names)

    def access(cosem_object: CosemObject, _attribute: int) -> AccessMode:
        return AccessMode.READ_ONLY if cosem_object.obis in allowed else AccessMode.NO_ACCESS

    return access


@dataclass(frozen=True, slots=True)
class AssociationDefinition:
    """What one client SAP may do, and how it must prove itself. With `keys` the association is ciphered.

    `counters` remembers the received invocation counters for as long as the device lives.
    """

    client_sap: int
    mechanism: AuthenticationMechanism = AuthenticationMechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    keys: SecurityKeys | None = None
    security_suite: int = 0
    security_policy: int = BOTH
    access: Callable[[CosemObject, int], AccessMode] = full_access
    conformance: Conformance = SERVER_CONFORMANCE


class LogicalDevice:
    """One logical device: its server SAP, objects and associations.

    `received_counters` are the highest counters taken from each client, which outlive an association.
    """

    def __init__(
        self,
        sap: int,
        objects: Iterable[CosemObject],
        associations: Iterable[AssociationDefinition],
        *,
        system_title: bytes = b"",
        counter: CounterSource | None = None,
        max_pdu_size: int = 0xFFFF,
        random_octets: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.sap = sap
        self.system_title = system_title
        self.counter = counter or MemoryCounter()
        self.max_pdu_size = max_pdu_size
        self.random_octets = random_octets
        self.objects: dict[tuple[int, Obis], CosemObject] = {(o.class_id, o.obis): o for o in objects}
        self.associations = {definition.client_sap: definition for definition in associations}
        self.received_counters: dict[int, dict[tuple[bytes, str], int]] = {}
        self.replays = 0


class Association:
    """The state of one client's association with one logical device."""

    def __init__(self, device: LogicalDevice, definition: AssociationDefinition) -> None:
        self.device = device
        self.definition = definition
        self.associated = False
        self.security: SecurityContext | None = None
        self.context = ApplicationContext.LOGICAL_NAME
        self.hls: HighLevelSecurity | None = None
        self.pending_proof = False
        self.engine: ServiceEngine | None = None

    def close(self) -> None:
        """End the association."""
        self.associated = False
        self.pending_proof = False
        self.security = None
        self.engine = None

    # Opening

    def open(self, request: AssociationRequest) -> AssociationResponse:
        """Answer an AARQ."""
        self.close()
        definition = self.definition
        context = (
            ApplicationContext.LOGICAL_NAME_CIPHERED if definition.keys else ApplicationContext.LOGICAL_NAME
        )
        if request.context != context:
            return self._reject(context, AcseServiceUserDiagnostic.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED)
        mechanism = request.mechanism or AuthenticationMechanism.NONE
        if mechanism != definition.mechanism:
            required = mechanism == AuthenticationMechanism.NONE
            return self._reject(
                context,
                AcseServiceUserDiagnostic.AUTHENTICATION_MECHANISM_NAME_REQUIRED
                if required
                else AcseServiceUserDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED,
            )
        client_title = request.calling_ap_title or b""
        if definition.keys is not None:
            if len(client_title) != 8:
                return self._reject(context, AcseServiceUserDiagnostic.CALLING_AP_TITLE_NOT_RECOGNIZED)
            self.security = SecurityContext(
                definition.keys,
                self.device.system_title,
                self.device.counter,
                peer_system_title=client_title,
                suite=definition.security_suite,
                policy=definition.security_policy,
            )
            self.security.received_counters = self.device.received_counters.setdefault(
                definition.client_sap, {}
            )
        try:
            initiate = self._initiate(request.user_information)
        except DlmsError as error:
            self.device.replays += isinstance(error, ReplayError)
            return self._reject(context, AcseServiceUserDiagnostic.NO_REASON_GIVEN)
        value = request.authentication_value or b""
        if mechanism == AuthenticationMechanism.LLS and not hmac.compare_digest(value, definition.secret):
            self.close()
            return self._reject(context, AcseServiceUserDiagnostic.AUTHENTICATION_FAILURE)
        conformance = initiate.conformance & definition.conformance
        if initiate.dlms_version < 6:
            return self._reject(context, AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 1))
        if not conformance & (Conformance.GET | Conformance.SET | Conformance.ACTION):
            return self._reject(context, AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 2))
        if 0 < initiate.max_receive_pdu_size < _MINIMUM_PDU_SIZE:
            return self._reject(context, AcseServiceUserDiagnostic.NO_REASON_GIVEN, error=(6, 3))
        return self._accept(request, initiate, conformance, mechanism, value)

    def _initiate(self, information: bytes | None) -> InitiateRequest:
        if information is None:
            raise DecodeError("an AARQ without user-information")
        inner = apdus.decode(information)
        if self.security is not None:
            if not isinstance(inner, ServiceCiphered | GeneralCiphered):
                raise SecurityError("a ciphered context needs a ciphered InitiateRequest")
            inner = apdus.decode(self._unprotect(inner))
        if not isinstance(inner, InitiateRequest):
            raise DecodeError("the user-information is no InitiateRequest")
        return inner

    def _reject(
        self, context: int, diagnostic: AcseServiceUserDiagnostic, *, error: tuple[int, int] | None = None
    ) -> AssociationResponse:
        kind, code = error or (6, 0)
        self.close()
        return AssociationResponse(
            context,
            AssociationResult.REJECTED_PERMANENT,
            1,
            diagnostic,
            ConfirmedServiceError(1, kind, code).to_bytes(),
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
        # A device whose own buffer is small does not fill a client's large one either.
        limit = min(initiate.max_receive_pdu_size or 0xFFFF, device.max_pdu_size or 0xFFFF)
        room = limit - (_CIPHERING_OVERHEAD if self.security else 0)
        self.engine = ServiceEngine(self._find, self._access, conformance, room)
        self.context = ApplicationContext(request.context)
        if initiate.dedicated_key and self.security is not None:
            keys = self.security.keys
            self.security.keys = SecurityKeys(keys.encryption, keys.authentication, keys.broadcast)
            self.security.new_dedicated_key(initiate.dedicated_key)
        response = InitiateResponse(conformance, device.max_pdu_size).to_bytes()
        if self.security is not None:
            content = self.security.protect(response)
            response = ServiceCiphered(GLOBAL_TAGS[InitiateResponse.TAG], content).to_bytes()
        title = device.system_title or None
        if mechanism < AuthenticationMechanism.HLS_MANUFACTURER:
            self.associated = True
            return AssociationResponse(
                self.context, AssociationResult.ACCEPTED, 1, 0, response, responding_ap_title=title
            )
        self.hls = HighLevelSecurity(
            mechanism,
            secret=definition.secret,
            security=self.security,
            own_system_title=device.system_title,
            peer_system_title=request.calling_ap_title or b"",
        )
        self.hls.peer_challenge = value
        self.hls.own_challenge = device.random_octets(16)
        self.pending_proof = True
        return AssociationResponse(
            self.context,
            AssociationResult.ACCEPTED,
            1,
            AcseServiceUserDiagnostic.AUTHENTICATION_REQUIRED,
            response,
            responding_ap_title=title,
            mechanism=mechanism,
            authentication_value=self.hls.own_challenge,
        )

    def _reply_to_hls(self, parameters: Data | None) -> Data | None:
        """Method 1 of the association object: passes 3 and 4."""
        if self.hls is None or not self.pending_proof or parameters is None:
            raise refused(ActionResult.READ_WRITE_DENIED)
        self.pending_proof = False
        try:
            self.hls.check(parameters.octets())
        except DlmsError:
            self.close()
            raise refused(ActionResult.READ_WRITE_DENIED) from None
        self.associated = True
        return axdr.octet_string(self.hls.answer())

    # Objects

    def _find(self, class_id: int, obis: Obis) -> CosemObject | None:
        if class_id == 15 and obis in (ASSOCIATION_LN, self.own_name):
            return self._association_object(obis)
        return self.device.objects.get((class_id, obis)) if self.associated else None

    def _access(self, cosem_object: CosemObject, attribute: int) -> AccessMode:
        if cosem_object.class_id == 15:
            return AccessMode.READ_ONLY if self.associated and attribute != 7 else AccessMode.NO_ACCESS
        return self.definition.access(cosem_object, attribute)

    @property
    def own_name(self) -> Obis:
        """The logical name of this client's own association; 0.0.40.0.0.255 is the current one."""
        index = sorted(self.device.associations).index(self.definition.client_sap) + 1
        return Obis(0, 0, 40, 0, index, 255)

    def _association_object(self, obis: Obis) -> CosemObject:
        definition = self.definition
        partners = axdr.structure(axdr.integer(definition.client_sap), axdr.long_unsigned(self.device.sap))
        context = bytes.fromhex("608574050801") + bytes((self.context,))
        mechanism = bytes.fromhex("608574050802") + bytes((definition.mechanism,))
        conformance = self.engine.conformance if self.engine else definition.conformance
        info = axdr.structure(
            Data(axdr.DataType.BIT_STRING, format(int(conformance), "024b")),
            axdr.long_unsigned(self.device.max_pdu_size),
            axdr.long_unsigned(self.device.max_pdu_size),
            axdr.unsigned(6),
            axdr.integer(0),
            axdr.octet_string(b""),
        )
        status = 2 if self.associated else 1
        attributes: dict[int, Data | Callable[[], Data]] = {
            2: self._object_list,
            3: partners,
            4: axdr.octet_string(context),
            5: info,
            6: axdr.octet_string(mechanism),
            8: axdr.enumeration(status),
            9: axdr.octet_string(bytes(Obis(0, 0, 43, 0, 0, 255))),
        }
        return CosemObject(15, obis, {**attributes}, methods={1: self._reply_to_hls}, version=1)

    def _object_list(self) -> Data:
        current = self._association_object(ASSOCIATION_LN)
        elements = [self._object_list_element(current)]
        for cosem_object in self.device.objects.values():
            element = self._object_list_element(cosem_object)
            if element is not None:
                elements.append(element)
        return axdr.array(*(element for element in elements if element is not None))

    def _object_list_element(self, cosem_object: CosemObject) -> Data | None:
        row = cosem_object.interface_class
        numbers = sorted({1, *cosem_object.attributes, *cosem_object.setters})
        modes = {number: self._access(cosem_object, number) for number in numbers}
        if not any(modes.values()):
            return None
        attribute_access = [
            axdr.structure(axdr.integer(number), axdr.enumeration(mode), axdr.NULL)
            for number, mode in modes.items()
        ]
        method_access = [
            axdr.structure(axdr.integer(number), axdr.enumeration(1))
            for number in sorted(cosem_object.methods)
        ]
        return axdr.structure(
            axdr.long_unsigned(cosem_object.class_id),
            axdr.unsigned(row.version if cosem_object.version is None else cosem_object.version),
            axdr.octet_string(bytes(cosem_object.obis)),
            axdr.structure(axdr.array(*attribute_access), axdr.array(*method_access)),
        )

    # One APDU

    def receive(self, apdu: Apdu) -> Iterator[bytes]:
        """Answer any APDU but AARQ."""
        if isinstance(apdu, ReleaseRequest):
            was_open = self.associated or self.pending_proof
            self.close()
            if was_open:
                yield ReleaseResponse(0).to_bytes()
            return
        if self.engine is None or not (self.associated or self.pending_proof):
            yield ExceptionResponse(
                StateError.SERVICE_NOT_ALLOWED, ServiceError.OPERATION_NOT_POSSIBLE
            ).to_bytes()
            return
        envelope: ServiceCiphered | GeneralCiphered | None = None
        if isinstance(apdu, ServiceCiphered | GeneralCiphered):
            envelope = apdu
            try:
                apdu = apdus.decode(self._unprotect(apdu))
            except ReplayError:
                self.device.replays += 1
                counters = self.device.received_counters.get(self.definition.client_sap, {})
                expected = max(counters.values(), default=0)
                yield ExceptionResponse(
                    StateError.SERVICE_NOT_ALLOWED,
                    ServiceError.INVOCATION_COUNTER_ERROR,
                    expected & 0xFFFFFFFF,
                ).to_bytes()
                return
            except DlmsError:
                yield ExceptionResponse(
                    StateError.SERVICE_NOT_ALLOWED, ServiceError.DECIPHERING_ERROR
                ).to_bytes()
                return
        elif self.security is not None:
            yield ExceptionResponse(
                StateError.SERVICE_NOT_ALLOWED, ServiceError.OPERATION_NOT_POSSIBLE
            ).to_bytes()
            return
        engine, security = self.engine, self.security
        for reply in engine.receive(apdu):
            yield _protected_in_kind(reply, envelope, security)

    def _unprotect(self, apdu: ServiceCiphered | GeneralCiphered) -> bytes:
        if self.security is None:
            raise SecurityError("a ciphered APDU in an association without keys")
        title = apdu.system_title if isinstance(apdu, GeneralCiphered) else b""
        plain = self.security.unprotect(apdu.content, title, dedicated=apdu.dedicated)
        if isinstance(apdu, ServiceCiphered) and plain[:1] != bytes((apdu.service_tag,)):
            raise SecurityError(f"{apdus.name_of(apdu.tag)} carries another service")
        return plain


def _protected_in_kind(
    reply: bytes, envelope: ServiceCiphered | GeneralCiphered | None, security: SecurityContext | None
) -> bytes:
    """A reply in the same envelope as its request. An exception-response goes in plain."""
    if envelope is None or security is None or reply[0] == ExceptionResponse.TAG:
        return reply
    content = security.protect(reply, dedicated=envelope.dedicated)
    if isinstance(envelope, GeneralCiphered):
        return GeneralCiphered(envelope.tag, security.system_title, content).to_bytes()
    tags = DEDICATED_TAGS if envelope.dedicated else GLOBAL_TAGS
    return ServiceCiphered(tags[reply[0]], content).to_bytes()


class Server:
    """The logical devices behind one address, and every client's association with them."""

    def __init__(self, devices: Iterable[LogicalDevice]) -> None:
        self.devices = {device.sap: device for device in devices}
        self._associations: dict[tuple[int, int], Association] = {}

    def association(self, client_sap: int, server_sap: int) -> Association | None:
        """The association of a client with a device; None where the device does not know the client."""
        found = self._associations.get((client_sap, server_sap))
        if found is None:
            device = self.devices.get(server_sap)
            definition = device.associations.get(client_sap) if device else None
            if device is None or definition is None:
                return None
            found = self._associations[client_sap, server_sap] = Association(device, definition)
        return found

    def receive_apdu(self, client_sap: int, server_sap: int, apdu: bytes) -> list[bytes]:
        """Take one APDU; gives those to send back, mostly one. Never raises on what a peer sends."""
        association = self.association(client_sap, server_sap)
        if association is None:
            return []
        try:
            decoded = apdus.decode(apdu)
        except DecodeError:
            return [
                ExceptionResponse(StateError.SERVICE_UNKNOWN, ServiceError.SERVICE_NOT_SUPPORTED).to_bytes()
            ]
        try:
            if isinstance(decoded, AssociationRequest):
                return [association.open(decoded).to_bytes()]
            return list(association.receive(decoded))
        except (DlmsError, EncodeError):
            return [ExceptionResponse(StateError.SERVICE_NOT_ALLOWED, ServiceError.OTHER_REASON).to_bytes()]

    def link_lost(self) -> None:
        """The connection below ended: so do all associations."""
        for association in self._associations.values():
            association.close()


__all__ = [
    "AssociationDefinition",
    "DataAccessResult",
    "LogicalDevice",
    "Server",
    "full_access",
    "visible_only",
]
