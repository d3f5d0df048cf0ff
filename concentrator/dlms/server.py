"""A COSEM server, sans-IO (Green Book 4.4, 9.3, 9.4).

`Server.receive_apdu` takes one APDU and gives back those to send. The same server stands in the
simulated meters and for the concentrator's own logical devices. By logical or by short names, as the
association's definition says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from concentrator.dlms import apdu as apdus
from concentrator.dlms.acse import AssociationRequest
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.protection import GatewayApdu
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.codes import ServiceError, StateError
from concentrator.dlms.errors import DecodeError, DlmsError, EncodeError
from concentrator.dlms.gateway import Router, relay
from concentrator.dlms.logical_device import (
    SERVER_CONFORMANCE,
    SHORT_NAME_CONFORMANCE,
    AssociationDefinition,
    LogicalDevice,
    full_access,
    visible_only,
)
from concentrator.dlms.server_association import Association

__all__ = [
    "SERVER_CONFORMANCE",
    "SHORT_NAME_CONFORMANCE",
    "AssociationDefinition",
    "LogicalDevice",
    "Server",
    "full_access",
    "visible_only",
]

_GATEWAY_REQUEST = bytes((GatewayApdu.REQUEST,))


class Server:
    """The logical devices behind one address, and every client's association with them.

    With a `router` it is a gateway too: what comes for other devices goes there. A router that takes its time is
    asked by `gateway.relay_async`, before this server.
    """

    def __init__(self, devices: Iterable[LogicalDevice], router: Router | None = None) -> None:
        self._router = router
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
        if self._router is not None and apdu[:1] == _GATEWAY_REQUEST:
            return relay(self._router, client_sap, server_sap, apdu)
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

    def notify(
        self,
        client_sap: int,
        server_sap: int,
        attributes: Sequence[AttributeDescriptor],
        date_time: bytes | None = None,
    ) -> list[bytes]:
        """Tell an associated client the values of attributes unasked, as they are now.

        By logical names this is an EventNotification for each, by short names one InformationReport; protected as the
        association's policy says. `date_time` is 12 octets.

        Raises:
            EncodeError: the client is not associated, or did not agree to be told.
            AccessError: it may not read one of these attributes, or there is none.
        """
        association = self.association(client_sap, server_sap)
        if association is None:
            raise EncodeError(f"device {server_sap} knows no client {client_sap}")
        return list(association.notify(attributes, date_time))

    def link_lost(self, client_sap: int | None = None) -> None:
        """The connection below ended: so do all associations, or those of the client that it was of."""
        for (sap, _), association in self._associations.items():
            if client_sap in (None, sap):
                association.close()
