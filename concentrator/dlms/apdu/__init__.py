"""Every APDU of xDLMS and ACSE: one frozen class each, `decode` by the first octet, `to_bytes` back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu.access import AccessRequest, AccessResponse
from concentrator.dlms.apdu.action import (
    ActionRequest,
    ActionResponse,
    read_action_request,
    read_action_response,
)
from concentrator.dlms.apdu.get import GetRequest, GetResponse, read_get_request, read_get_response
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import (
    DataNotification,
    DataNotificationConfirm,
    EventNotification,
    ExceptionResponse,
)
from concentrator.dlms.apdu.protection import (
    GENERAL_DED,
    GENERAL_GLO,
    SERVICE_OF_DEDICATED,
    SERVICE_OF_GLOBAL,
    GatewayApdu,
    GeneralBlockTransfer,
    GeneralCiphered,
    GeneralCiphering,
    GeneralSigning,
    ServiceCiphered,
    read_gateway,
    read_general_ciphered,
    read_service_ciphered,
)
from concentrator.dlms.apdu.set import SetRequest, SetResponse, read_set_request, read_set_response
from concentrator.dlms.apdu.short_name import (
    InformationReport,
    ReadRequest,
    ReadResponse,
    WriteRequest,
    WriteResponse,
)
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader

Apdu: TypeAlias = (
    AccessRequest
    | AccessResponse
    | ActionRequest
    | ActionResponse
    | AssociationRequest
    | AssociationResponse
    | ConfirmedServiceError
    | DataNotification
    | DataNotificationConfirm
    | EventNotification
    | ExceptionResponse
    | GatewayApdu
    | GeneralBlockTransfer
    | GeneralCiphered
    | GeneralCiphering
    | GeneralSigning
    | GetRequest
    | GetResponse
    | InformationReport
    | InitiateRequest
    | InitiateResponse
    | ReadRequest
    | ReadResponse
    | ReleaseRequest
    | ReleaseResponse
    | ServiceCiphered
    | SetRequest
    | SetResponse
    | WriteRequest
    | WriteResponse
)

_READERS: dict[int, Callable[[Reader], Apdu]] = {
    0x01: InitiateRequest.read,
    0x05: ReadRequest.read,
    0x08: InitiateResponse.read,
    0x0C: ReadResponse.read,
    0x0D: WriteResponse.read,
    0x0E: ConfirmedServiceError.read,
    0x0F: DataNotification.read,
    0x10: DataNotificationConfirm.read,
    0x18: InformationReport.read,
    0xC0: read_get_request,
    0xC1: read_set_request,
    0xC2: EventNotification.read,
    0xC3: read_action_request,
    0xC4: read_get_response,
    0xC5: read_set_response,
    0xC7: read_action_response,
    0xD8: ExceptionResponse.read,
    0xD9: AccessRequest.read,
    0xDA: AccessResponse.read,
    0xDD: GeneralCiphering.read,
    0xDF: GeneralSigning.read,
    0xE0: GeneralBlockTransfer.read,
}
_TAGGED_READERS: dict[int, Callable[[int, Reader], Apdu]] = {
    **dict.fromkeys((*SERVICE_OF_GLOBAL, *SERVICE_OF_DEDICATED), read_service_ciphered),
    0x06: WriteRequest.read,
    0x16: WriteRequest.read,
    GENERAL_GLO: read_general_ciphered,
    GENERAL_DED: read_general_ciphered,
    GatewayApdu.REQUEST: read_gateway,
    GatewayApdu.RESPONSE: read_gateway,
}
_ACSE: dict[int, Callable[[bytes], Apdu]] = {
    0x60: AssociationRequest.from_bytes,
    0x61: AssociationResponse.from_bytes,
    0x62: ReleaseRequest.from_bytes,
    0x63: ReleaseResponse.from_bytes,
}

NAMES: dict[int, str] = {
    0x01: "initiate-request", 0x05: "read-request", 0x06: "write-request", 0x08: "initiate-response",
    0x0C: "read-response", 0x0D: "write-response", 0x0E: "confirmed-service-error", 0x0F: "data-notification",
    0x10: "data-notification-confirm", 0x16: "unconfirmed-write-request", 0x18: "information-report-request",
    0x60: "aarq", 0x61: "aare", 0x62: "rlrq", 0x63: "rlre",
    0xC0: "get-request", 0xC1: "set-request", 0xC2: "event-notification-request", 0xC3: "action-request",
    0xC4: "get-response", 0xC5: "set-response", 0xC7: "action-response", 0xD8: "exception-response",
    0xD9: "access-request", 0xDA: "access-response",
    GENERAL_GLO: "general-glo-ciphering", GENERAL_DED: "general-ded-ciphering", 0xDD: "general-ciphering",
    0xDF: "general-signing", 0xE0: "general-block-transfer",
    0xE6: "gateway-request", 0xE7: "gateway-response",
}  # fmt: skip
NAMES.update({tag: f"glo-{NAMES[plain]}" for tag, plain in SERVICE_OF_GLOBAL.items()})
NAMES.update({tag: f"ded-{NAMES[plain]}" for tag, plain in SERVICE_OF_DEDICATED.items()})


def name_of(tag: int) -> str:
    """The standard's name of the APDU with this first octet."""
    return NAMES.get(tag, f"apdu {tag:#04x}")


def decode_from(data: bytes) -> tuple[Apdu, int]:
    """Decode the APDU that `data` starts with; gives it and the offset behind it.

    Raises:
        DecodeError: it is unknown, malformed or truncated.
    """
    if not data:
        raise DecodeError("an APDU without octets")
    tag = data[0]
    if acse := _ACSE.get(tag):
        return acse(data), len(data)
    reader = Reader(data, 1)
    try:
        if read := _READERS.get(tag):
            apdu = read(reader)
        elif tagged := _TAGGED_READERS.get(tag):
            apdu = tagged(tag, reader)
        else:
            raise DecodeError("its first octet names no APDU that is known here")
    except DecodeError as error:
        raise DecodeError(f"{name_of(tag)} of {len(data)} octets: {error}", reader.offset) from None
    return apdu, reader.offset


def decode(data: bytes) -> Apdu:
    """Decode one whole APDU.

    Raises:
        DecodeError: it is unknown, malformed, truncated or too long.
    """
    apdu, end = decode_from(data)
    if end != len(data):
        raise DecodeError(f"{name_of(data[0])} ends at {end}, but {len(data) - end} octets follow")
    return apdu
