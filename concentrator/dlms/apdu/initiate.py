"""What an association negotiates: InitiateRequest, InitiateResponse, confirmed-service-error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concentrator.dlms.codes import Conformance
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader, encode_octet_string

DLMS_VERSION = 6
VAA_NAME_LN = 0x0007
VAA_NAME_SN = 0xFA00
# ServiceError choices of confirmed-service-error.
SERVICE_ERRORS = {
    0: ("application-reference", ("other", "time-elapsed", "application-unreachable",
                                  "application-reference-invalid", "application-context-unsupported",
                                  "provider-communication-error", "deciphering-error")),
    1: ("hardware-resource", ("other", "memory-unavailable", "processor-resource-unavailable",
                              "mass-storage-unavailable", "other-resource-unavailable")),
    2: ("vde-state-error", ("other", "no-dlms-context", "loading-data-set", "status-nochange",
                            "status-inoperable")),
    3: ("service", ("other", "pdu-size", "service-unsupported")),
    4: ("definition", ("other", "object-undefined", "object-class-inconsistent",
                       "object-attribute-inconsistent")),
    5: ("access", ("other", "scope-of-access-violated", "object-access-violated", "hardware-fault",
                   "object-unavailable")),
    6: ("initiate", ("other", "dlms-version-too-low", "incompatible-conformance", "pdu-size-too-short",
                     "refused-by-the-vde-handler")),
    7: ("load-data-set", ("other", "primitive-out-of-sequence", "not-loadable", "dataset-size-too-large",
                          "not-awaited-segment", "interpretation-failure", "storage-failure",
                          "data-set-not-ready")),
    9: ("task", ("other", "no-remote-control", "ti-stopped", "ti-running", "ti-unusable")),
}  # fmt: skip


def _read_conformance(reader: Reader) -> Conformance:
    # [APPLICATION 31] is 5F 1F; some peers write 5F alone, as the first editions did.
    if reader.octet() != 0x5F:
        raise DecodeError(f"conformance block expected at {reader.offset - 1}")
    length = reader.octet()
    if length == 0x1F:
        length = reader.octet()
    if length != 4:
        raise DecodeError(f"a conformance block has 4 octets, got {length}")
    if reader.octet() != 0:
        raise DecodeError("a conformance block has 24 bits")
    return Conformance(reader.unsigned(3))


def _encode_conformance(conformance: Conformance) -> bytes:
    return b"\x5f\x1f\x04\x00" + (conformance & 0xFFFFFF).to_bytes(3, "big")


@dataclass(frozen=True, slots=True)
class InitiateRequest:
    """What a client proposes. `max_receive_pdu_size` is what it can receive; 0 means no limit."""

    TAG: ClassVar[int] = 0x01

    conformance: Conformance
    max_receive_pdu_size: int
    dedicated_key: bytes | None = None
    response_allowed: bool = True
    quality_of_service: int | None = None
    dlms_version: int = DLMS_VERSION

    @classmethod
    def read(cls, reader: Reader) -> InitiateRequest:
        """Take the contents behind the tag."""
        dedicated_key = reader.octet_string() if reader.flag() else None
        response_allowed = not reader.flag() or reader.flag()
        quality = reader.signed(1) if reader.flag() else None
        version = reader.octet()
        conformance = _read_conformance(reader)
        return cls(conformance, reader.unsigned(2), dedicated_key, response_allowed, quality, version)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        key = b"\x00" if self.dedicated_key is None else b"\x01" + encode_octet_string(self.dedicated_key)
        allowed = b"\x00" if self.response_allowed else b"\x01\x00"
        quality = b"\x00" if self.quality_of_service is None else bytes((1, self.quality_of_service & 0xFF))
        return b"".join(
            (
                b"\x01",
                key,
                allowed,
                quality,
                bytes((self.dlms_version,)),
                _encode_conformance(self.conformance),
                self.max_receive_pdu_size.to_bytes(2, "big"),
            )
        )

    def __repr__(self) -> str:
        key = "none" if self.dedicated_key is None else "hidden"
        return (
            f"InitiateRequest(conformance={self.conformance!r}, "
            f"max_receive_pdu_size={self.max_receive_pdu_size}, dedicated_key={key})"
        )


@dataclass(frozen=True, slots=True)
class InitiateResponse:
    """What the server grants. `vaa_name` is 0x0007 with logical names, 0xFA00 with short names."""

    TAG: ClassVar[int] = 0x08

    conformance: Conformance
    max_receive_pdu_size: int
    vaa_name: int = VAA_NAME_LN
    quality_of_service: int | None = None
    dlms_version: int = DLMS_VERSION

    @classmethod
    def read(cls, reader: Reader) -> InitiateResponse:
        """Take the contents behind the tag."""
        quality = reader.signed(1) if reader.flag() else None
        version = reader.octet()
        conformance = _read_conformance(reader)
        return cls(conformance, reader.unsigned(2), reader.unsigned(2), quality, version)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        quality = b"\x00" if self.quality_of_service is None else bytes((1, self.quality_of_service & 0xFF))
        return b"".join(
            (
                b"\x08",
                quality,
                bytes((self.dlms_version,)),
                _encode_conformance(self.conformance),
                self.max_receive_pdu_size.to_bytes(2, "big"),
                self.vaa_name.to_bytes(2, "big"),
            )
        )


@dataclass(frozen=True, slots=True)
class ConfirmedServiceError:
    """A confirmed service failed. `service` 1 is initiate; `kind` and `code` choose in `SERVICE_ERRORS`."""

    TAG: ClassVar[int] = 0x0E

    service: int
    kind: int
    code: int

    @classmethod
    def read(cls, reader: Reader) -> ConfirmedServiceError:
        """Take the contents behind the tag."""
        return cls(reader.octet(), reader.octet(), reader.octet())

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((self.TAG, self.service, self.kind, self.code))

    @property
    def words(self) -> str:
        """The error as a person reads it: `initiate: dlms-version-too-low`."""
        kind, codes = SERVICE_ERRORS.get(self.kind, (f"error {self.kind}", ()))
        return f"{kind}: {codes[self.code] if self.code < len(codes) else self.code}"
