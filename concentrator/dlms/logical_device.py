"""Logical devices as a server has them: objects, and which client may do what after which proof."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from concentrator.dlms.authentication import ManufacturerFunction
from concentrator.dlms.certificates import TrustAnchors
from concentrator.dlms.codes import ApplicationContext, AuthenticationMechanism, Conformance
from concentrator.dlms.cosem.association import SECURITY_SETUP
from concentrator.dlms.cosem.objects import AccessMode, CosemObject
from concentrator.dlms.cosem.short_names import assign_names
from concentrator.dlms.security import BOTH, CounterSource, MemoryCounter, SecurityKeys, SecurityPolicy
from concentrator.obis import Obis

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
    | Conformance.ACCESS
    | Conformance.GENERAL_PROTECTION
    | Conformance.GENERAL_BLOCK_TRANSFER
)
SHORT_NAME_CONFORMANCE = (
    Conformance.READ
    | Conformance.WRITE
    | Conformance.UNCONFIRMED_WRITE
    | Conformance.MULTIPLE_REFERENCES
    | Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ
    | Conformance.BLOCK_TRANSFER_WITH_SET_OR_WRITE
    | Conformance.PARAMETERIZED_ACCESS
    | Conformance.INFORMATION_REPORT
    | Conformance.GENERAL_PROTECTION
    | Conformance.GENERAL_BLOCK_TRANSFER
)


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
    """What one client SAP may do, and how it must prove itself.

    With `keys` the association is ciphered, unless `ciphered` is false: then they only prove who the client is
    (mechanisms 5 and 7). `security_policy` are bits of the security control that requests need and answers
    have; `policy` adds what a Security setup asks for, in each direction. An association opens with what both
    say then, and an answer has the protection of its request where that is more. `may_invoke` tells whether
    methods may be invoked, or those of which objects; left open, clients may that prove who they are or have full
    access. `short_names` makes it an association by short names. `security_setup` is the object that its association
    names as its own. The other fields are those of the client's settings.
    """

    client_sap: int
    mechanism: AuthenticationMechanism = AuthenticationMechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    keys: SecurityKeys | None = None
    security_suite: int = 0
    security_policy: int = BOTH
    access: Callable[[CosemObject, int], AccessMode] = full_access
    conformance: Conformance = SERVER_CONFORMANCE
    ciphered: bool = True
    signed: bool = False
    header_authenticated: bool = True
    length_signed: bool = False
    manufacturer: ManufacturerFunction | None = None
    policy: Callable[[], SecurityPolicy] = lambda: SecurityPolicy.NONE
    may_invoke: bool | Callable[[CosemObject], bool] | None = None
    short_names: bool = False
    trust: TrustAnchors | None = None
    security_setup: Obis = SECURITY_SETUP

    @property
    def context(self) -> ApplicationContext:
        """The application context that the client must ask for."""
        if self.keys is not None and self.ciphered:
            return (
                ApplicationContext.SHORT_NAME_CIPHERED
                if self.short_names
                else ApplicationContext.LOGICAL_NAME_CIPHERED
            )
        return ApplicationContext.SHORT_NAME if self.short_names else ApplicationContext.LOGICAL_NAME

    def invokes(self, cosem_object: CosemObject) -> bool:
        """Whether the methods of an object may be invoked."""
        if self.may_invoke is not None:
            return self.may_invoke(cosem_object) if callable(self.may_invoke) else self.may_invoke
        return self.mechanism != AuthenticationMechanism.NONE or self.access is full_access


class LogicalDevice:
    """One logical device: its server SAP, objects and associations.

    `received_counters` are the highest counters taken from each client, which outlive an association; so do
    `secrets`, the passwords and HLS secrets by client. `certificate` is shown to clients that prove themselves
    by ECDSA. `failed_proofs` counts the associations that were refused since a client did not prove who it is.
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
        certificate: bytes = b"",
        random_octets: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.sap = sap
        self.system_title = system_title
        self.counter = counter or MemoryCounter()
        self.max_pdu_size = max_pdu_size
        self.certificate = certificate
        self.random_octets = random_octets
        self.objects: dict[tuple[int, Obis], CosemObject] = {(o.class_id, o.obis): o for o in objects}
        self.associations = {definition.client_sap: definition for definition in associations}
        self.secrets = {sap: definition.secret for sap, definition in self.associations.items()}
        self.received_counters: dict[int, dict[tuple[bytes, str], int]] = {}
        self.replays = 0
        self.failed_proofs = 0
        self._names: dict[int, CosemObject] = {}

    def short_names(self) -> dict[int, CosemObject]:
        """The objects by their base names, rising."""
        if len(self._names) != len(self.objects):
            self._names = assign_names(self.objects.values())
        return self._names

    def keys_changed(self) -> None:
        """Keys were exchanged: what was received under the old ones says nothing about the new."""
        self.received_counters.clear()
