"""ACSE: opening and closing an association (ISO/IEC 8650 as Green Book 9.4 and 9.5 cut it down).

AARQ, AARE, RLRQ and RLRE, with the user-information left as octets: an InitiateRequest or
InitiateResponse, ciphered or not, or a confirmed-service-error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from concentrator.dlms import ber
from concentrator.dlms.codes import ApplicationContext, AuthenticationMechanism, named
from concentrator.dlms.errors import DecodeError

# 2.16.756.5.8.1.x and .2.x: country Switzerland, organisation DLMS UA.
_CONTEXT_PREFIX = bytes.fromhex("608574050801")
_MECHANISM_PREFIX = bytes.fromhex("608574050802")
# acse-requirements: one bit, authentication.
_AUTHENTICATION_REQUIRED = b"\x07\x80"


def _arc(octets: bytes, prefix: bytes, what: str) -> int:
    if len(octets) != len(prefix) + 1 or not octets.startswith(prefix):
        raise DecodeError(f"{octets.hex()} is no {what} of the DLMS UA")
    return octets[-1]


def _authentication_value(contents: bytes) -> bytes:
    found = list(ber.elements(contents))
    if len(found) != 1:
        raise DecodeError("an authentication value has one element")
    tag, value = found[0]
    # [0] charstring is the usual choice; [1] bitstring carries a count of unused bits first.
    if tag == 0x80:
        return value
    if tag == 0x81:
        return value[1:]
    raise DecodeError(f"authentication value of choice {tag:#04x}")


@dataclass(slots=True)
class _Fields:
    """The elements of one APDU by tag; the first of each counts."""

    contents: dict[int, bytes] = field(default_factory=dict[int, bytes])

    @classmethod
    def of(cls, data: bytes) -> _Fields:
        fields = cls()
        for tag, contents in ber.elements(data):
            fields.contents.setdefault(tag, contents)
        return fields

    def wrapped(self, tag: int) -> bytes | None:
        """The octet-string within an explicit tag."""
        contents = self.contents.get(tag)
        return None if contents is None else ber.single(contents, 0x04)

    def number(self, tag: int) -> int | None:
        contents = self.contents.get(tag)
        return None if contents is None else ber.integer(contents)

    def context(self) -> ApplicationContext | int:
        contents = self.contents.get(0xA1)
        if contents is None:
            raise DecodeError("the application-context-name is missing")
        return named(
            ApplicationContext, _arc(ber.single(contents, 0x06), _CONTEXT_PREFIX, "application context")
        )

    def mechanism(self, tag: int) -> AuthenticationMechanism | int | None:
        contents = self.contents.get(tag)
        if contents is None:
            return None
        return named(AuthenticationMechanism, _arc(contents, _MECHANISM_PREFIX, "mechanism name"))

    def authentication(self, tag: int) -> bytes | None:
        contents = self.contents.get(tag)
        return None if contents is None else _authentication_value(contents)


def _context_element(context: int) -> bytes:
    return ber.encode(0xA1, ber.encode(0x06, _CONTEXT_PREFIX + bytes((context,))))


def _wrapped(tag: int, octets: bytes | None) -> bytes:
    return b"" if octets is None else ber.encode(tag, ber.encode(0x04, octets))


def _plain(tag: int, contents: bytes | None) -> bytes:
    return b"" if contents is None else ber.encode(tag, contents)


def _number(tag: int, value: int | None) -> bytes:
    return b"" if value is None else ber.encode(tag, ber.encode_integer(value))


def _authentication_elements(
    requirements_tag: int, mechanism_tag: int, value_tag: int, mechanism: int | None, value: bytes | None
) -> bytes:
    if mechanism is None:
        return b""
    out = ber.encode(requirements_tag, _AUTHENTICATION_REQUIRED)
    out += ber.encode(mechanism_tag, _MECHANISM_PREFIX + bytes((mechanism,)))
    return out if value is None else out + ber.encode(value_tag, ber.encode(0x80, value))


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """AARQ. `authentication_value` is the password (LLS) or the challenge CtoS (HLS).

    `calling_ae_qualifier` carries the client's certificate for digital signature where it has one (suites 1
    and 2); `protocol_version` is a BIT STRING's contents, its count of unused bits first.
    """

    TAG: ClassVar[int] = 0x60
    context: ApplicationContext | int
    user_information: bytes | None
    calling_ap_title: bytes | None = None
    calling_ae_qualifier: bytes | None = None
    calling_ae_invocation_id: int | None = None
    mechanism: AuthenticationMechanism | int | None = None
    authentication_value: bytes | None = field(default=None, repr=False)
    called_ap_title: bytes | None = None
    called_ae_qualifier: bytes | None = None
    called_ap_invocation_id: int | None = None
    called_ae_invocation_id: int | None = None
    calling_ap_invocation_id: int | None = None
    protocol_version: bytes | None = None
    implementation_information: bytes | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> AssociationRequest:
        """Decode a whole AARQ. Raises DecodeError."""
        fields = _Fields.of(ber.single(data, cls.TAG))
        return cls(
            context=fields.context(),
            user_information=fields.wrapped(0xBE),
            calling_ap_title=fields.wrapped(0xA6),
            calling_ae_qualifier=fields.wrapped(0xA7),
            calling_ae_invocation_id=fields.number(0xA9),
            mechanism=fields.mechanism(0x8B),
            authentication_value=fields.authentication(0xAC),
            called_ap_title=fields.wrapped(0xA2),
            called_ae_qualifier=fields.wrapped(0xA3),
            called_ap_invocation_id=fields.number(0xA4),
            called_ae_invocation_id=fields.number(0xA5),
            calling_ap_invocation_id=fields.number(0xA8),
            protocol_version=fields.contents.get(0x80),
            implementation_information=fields.contents.get(0x9D),
        )

    def to_bytes(self) -> bytes:
        """The whole APDU, elements in the order of their tags' numbers."""
        return ber.encode(
            self.TAG,
            b"".join(
                (
                    _plain(0x80, self.protocol_version),
                    _context_element(self.context),
                    _wrapped(0xA2, self.called_ap_title),
                    _wrapped(0xA3, self.called_ae_qualifier),
                    _number(0xA4, self.called_ap_invocation_id),
                    _number(0xA5, self.called_ae_invocation_id),
                    _wrapped(0xA6, self.calling_ap_title),
                    _wrapped(0xA7, self.calling_ae_qualifier),
                    _number(0xA8, self.calling_ap_invocation_id),
                    _number(0xA9, self.calling_ae_invocation_id),
                    _authentication_elements(0x8A, 0x8B, 0xAC, self.mechanism, self.authentication_value),
                    _plain(0x9D, self.implementation_information),
                    _wrapped(0xBE, self.user_information),
                )
            ),
        )


@dataclass(frozen=True, slots=True)
class AssociationResponse:
    """AARE. `diagnostic_source` is 1 for the ACSE service user, 2 for the provider.

    `authentication_value` is the challenge StoC (HLS); `responding_ae_qualifier` carries the server's
    certificate for digital signature where it has one.
    """

    TAG: ClassVar[int] = 0x61
    context: ApplicationContext | int
    result: int
    diagnostic_source: int
    diagnostic: int
    user_information: bytes | None
    responding_ap_title: bytes | None = None
    responding_ae_qualifier: bytes | None = None
    mechanism: AuthenticationMechanism | int | None = None
    authentication_value: bytes | None = field(default=None, repr=False)
    responding_ap_invocation_id: int | None = None
    responding_ae_invocation_id: int | None = None
    protocol_version: bytes | None = None
    implementation_information: bytes | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> AssociationResponse:
        """Decode a whole AARE. Raises DecodeError."""
        fields = _Fields.of(ber.single(data, cls.TAG))
        result = fields.number(0xA2)
        if result is None:
            raise DecodeError("an AARE without result")
        source, diagnostic = 1, 0
        if contents := fields.contents.get(0xA3):
            choices = list(ber.elements(contents))
            if len(choices) != 1 or choices[0][0] not in (0xA1, 0xA2):
                raise DecodeError("an AARE with a malformed diagnostic")
            source = choices[0][0] & 0x1F
            diagnostic = ber.integer(choices[0][1])
        return cls(
            context=fields.context(),
            result=result,
            diagnostic_source=source,
            diagnostic=diagnostic,
            user_information=fields.wrapped(0xBE),
            responding_ap_title=fields.wrapped(0xA4),
            responding_ae_qualifier=fields.wrapped(0xA5),
            mechanism=fields.mechanism(0x89),
            authentication_value=fields.authentication(0xAA),
            responding_ap_invocation_id=fields.number(0xA6),
            responding_ae_invocation_id=fields.number(0xA7),
            protocol_version=fields.contents.get(0x80),
            implementation_information=fields.contents.get(0x9D),
        )

    def to_bytes(self) -> bytes:
        """The whole APDU, elements in the order of their tags' numbers."""
        diagnostic = ber.encode(0xA0 | self.diagnostic_source, ber.encode_integer(self.diagnostic))
        return ber.encode(
            self.TAG,
            b"".join(
                (
                    _plain(0x80, self.protocol_version),
                    _context_element(self.context),
                    _number(0xA2, self.result),
                    ber.encode(0xA3, diagnostic),
                    _wrapped(0xA4, self.responding_ap_title),
                    _wrapped(0xA5, self.responding_ae_qualifier),
                    _number(0xA6, self.responding_ap_invocation_id),
                    _number(0xA7, self.responding_ae_invocation_id),
                    _authentication_elements(0x88, 0x89, 0xAA, self.mechanism, self.authentication_value),
                    _plain(0x9D, self.implementation_information),
                    _wrapped(0xBE, self.user_information),
                )
            ),
        )


def _read_release(data: bytes, tag: int) -> tuple[int | None, bytes | None]:
    fields = _Fields.of(ber.single(data, tag))
    reason = fields.contents.get(0x80)
    if reason is not None and len(reason) != 1:
        raise DecodeError("a release reason has one octet")
    return (None if reason is None else reason[0]), fields.wrapped(0xBE)


def _encode_release(tag: int, reason: int | None, user_information: bytes | None) -> bytes:
    element = b"" if reason is None else ber.encode(0x80, bytes((reason,)))
    return ber.encode(tag, element + _wrapped(0xBE, user_information))


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """RLRQ. Reason 0 is normal, 1 urgent, 30 user defined."""

    TAG: ClassVar[int] = 0x62
    reason: int | None = 0
    user_information: bytes | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> ReleaseRequest:
        """Decode a whole RLRQ. Raises DecodeError."""
        return cls(*_read_release(data, cls.TAG))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return _encode_release(self.TAG, self.reason, self.user_information)


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    """RLRE. Reason 0 is normal, 1 not finished, 30 user defined."""

    TAG: ClassVar[int] = 0x63
    reason: int | None = 0
    user_information: bytes | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> ReleaseResponse:
        """Decode a whole RLRE. Raises DecodeError."""
        return cls(*_read_release(data, cls.TAG))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return _encode_release(self.TAG, self.reason, self.user_information)
