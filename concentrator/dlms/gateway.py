"""Meters behind a gateway: APDUs with a network id and a physical device address before them (Green Book 10.10, 9.5).

A client puts each APDU into a gateway-request (E6) and finds what the meter answered in a gateway-response (E7). A
gateway takes the header off, hands the rest on as it is, and puts the header before what comes back: it needs
no key, and reads nothing. What a gateway says when it cannot reach a meter is left open by the standard; here it is an
exception-response in the meter's place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from concentrator.dlms import apdu as apdus
from concentrator.dlms.apdu.notification import ExceptionResponse
from concentrator.dlms.apdu.protection import GatewayApdu
from concentrator.dlms.codes import ServiceError, StateError
from concentrator.dlms.errors import DecodeError, DlmsError
from concentrator.errors import ConcentratorError, TransientError


class UnknownDeviceError(DlmsError):
    """No meter has this address, or this network is none of ours."""


class DeviceBusyError(TransientError, DlmsError):
    """The meter is in a dialogue with somebody else."""


class ApduTooLongError(DlmsError):
    """The way to the meter cannot carry so long an APDU."""


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Which meter: the network behind the gateway (0 to 255), and the meter's address in it.

    What the octets of `device_address` are is the deployment's own: often the serial number in ASCII.
    """

    network_id: int
    device_address: bytes

    @property
    def overhead(self) -> int:
        """Octets that the header adds to an APDU."""
        return len(self.request(b""))

    def request(self, apdu: bytes) -> bytes:
        """The APDU for the meter, as it goes to the gateway."""
        return GatewayApdu(GatewayApdu.REQUEST, self.network_id, self.device_address, apdu).to_bytes()

    def response(self, apdu: bytes) -> bytes:
        """The APDU from the meter, as the gateway hands it on."""
        return GatewayApdu(GatewayApdu.RESPONSE, self.network_id, self.device_address, apdu).to_bytes()

    def within(self, incoming: bytes) -> bytes | None:
        """What a meter answered; None where it was another meter.

        An APDU without header is the gateway's own word, and given as it is.

        Raises:
            DecodeError: the header is malformed.
        """
        if incoming[:1] != _RESPONSE:
            return incoming
        found = apdus.decode(incoming)
        assert isinstance(found, GatewayApdu)  # noqa: S101
        own = found.network_id == self.network_id and found.device_address == self.device_address
        return found.content if own else None


class GatewayRequest(NamedTuple):
    """One APDU that a gateway was given for a meter behind it."""

    address: GatewayAddress
    client_sap: int
    server_sap: int
    apdu: bytes

    @classmethod
    def from_bytes(cls, client_sap: int, server_sap: int, apdu: bytes) -> GatewayRequest:
        """Decode a gateway-request. Raises DecodeError."""
        found = apdus.decode(apdu)
        if not isinstance(found, GatewayApdu) or found.tag != GatewayApdu.REQUEST:
            raise DecodeError(f"{apdus.name_of(apdu[0])} is no gateway-request")
        address = GatewayAddress(found.network_id, found.device_address)
        return cls(address, client_sap, server_sap, found.content)

    def answers(self, answered: Iterable[bytes]) -> list[bytes]:
        """What the meter answered, for the client."""
        return [self.address.response(apdu) for apdu in answered]

    def refusal(self, error: ConcentratorError) -> list[bytes]:
        """What to tell the client in the meter's place."""
        state, service = StateError.SERVICE_NOT_ALLOWED, ServiceError.OTHER_REASON
        if isinstance(error, UnknownDeviceError):
            state, service = StateError.SERVICE_UNKNOWN, ServiceError.OPERATION_NOT_POSSIBLE
        elif isinstance(error, ApduTooLongError):
            service = ServiceError.PDU_TOO_LONG
        elif isinstance(error, TransientError) and not isinstance(error, DeviceBusyError):
            service = ServiceError.OPERATION_NOT_POSSIBLE
        return [self.address.response(ExceptionResponse(state, service).to_bytes())]


# How a gateway reaches its meters: gives what the meter answers, which may be nothing. Raises UnknownDeviceError,
# DeviceBusyError, ApduTooLongError, or any TransientError for a meter that does not answer.
Router: TypeAlias = Callable[[GatewayRequest], Iterable[bytes]]
AsyncRouter: TypeAlias = Callable[[GatewayRequest], Awaitable[Iterable[bytes]]]

_RESPONSE = bytes((GatewayApdu.RESPONSE,))
_MALFORMED = ExceptionResponse(StateError.SERVICE_UNKNOWN, ServiceError.SERVICE_NOT_SUPPORTED).to_bytes()


def relay(router: Router, client_sap: int, server_sap: int, apdu: bytes) -> list[bytes]:
    """Answer one gateway-request by a router that answers at once."""
    try:
        request = GatewayRequest.from_bytes(client_sap, server_sap, apdu)
    except DecodeError:
        return [_MALFORMED]
    try:
        return request.answers(router(request))
    except ConcentratorError as error:
        return request.refusal(error)


async def relay_async(router: AsyncRouter, client_sap: int, server_sap: int, apdu: bytes) -> list[bytes]:
    """Answer one gateway-request by a router that takes its time, and limits it."""
    try:
        request = GatewayRequest.from_bytes(client_sap, server_sap, apdu)
    except DecodeError:
        return [_MALFORMED]
    try:
        return request.answers(await router(request))
    except ConcentratorError as error:
        return request.refusal(error)
