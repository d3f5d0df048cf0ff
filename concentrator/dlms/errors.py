"""The errors of the DLMS/COSEM stack: one small tree.

A decoder raises `DecodeError` and nothing else. A conversation raises any `DlmsError`; what the meter
answered stands in the message, in words. A fault of the caller is an `EncodeError`.
"""

from __future__ import annotations

from concentrator.dlms.codes import (
    AcseServiceProviderDiagnostic,
    AcseServiceUserDiagnostic,
    AssociationResult,
    ServiceError,
    StateError,
    named,
    words,
)
from concentrator.errors import ConnectionLostError, LocalError, RemoteError, TransientError


class DlmsError(RemoteError):
    """Root of what a DLMS peer can do wrong or refuse."""


class DecodeError(DlmsError):
    """Octets that are no valid encoding of what they should be.

    `offset` is where in an APDU the value began that could not be decoded, where that is known.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class TruncatedError(DecodeError):
    """Octets that end before the value does: more of them may make it whole."""


class EncodeError(LocalError):
    """A value that the encoding asked for cannot carry."""


class AccessError(DlmsError):
    """An attribute was not read or written, or a method not invoked. `result` is the peer's code."""

    def __init__(self, result: int, what: str) -> None:
        super().__init__(f"{what} refused: {words(result)}")
        self.result = result
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessError) and (self.result, self.what) == (other.result, other.what)

    def __hash__(self) -> int:
        return hash((self.result, self.what))


class AssociationRejectedError(DlmsError):
    """The peer did not accept the association. `source` is 1 for the service user, 2 for the provider."""

    def __init__(self, result: int, source: int, diagnostic: int, detail: str = "") -> None:
        table = AcseServiceUserDiagnostic if source == 1 else AcseServiceProviderDiagnostic
        reason = words(named(table, diagnostic))
        text = f"association refused: {words(named(AssociationResult, result))}, {reason}"
        super().__init__(f"{text}; {detail}" if detail else text)
        self.result = result
        self.source = source
        self.diagnostic = diagnostic


class ServiceRefusedError(DlmsError):
    """The peer answered with an exception-response or a confirmed-service-error."""

    def __init__(
        self, message: str, *, state: int = 0, service: int = 0, expected_counter: int | None = None
    ) -> None:
        super().__init__(message)
        self.state = state
        self.service = service
        self.expected_counter = expected_counter

    @classmethod
    def from_exception(cls, state: int, service: int, expected_counter: int | None) -> ServiceRefusedError:
        """The error of one exception-response."""
        text = f"exception-response: {words(named(StateError, state))}, {words(named(ServiceError, service))}"
        if expected_counter is not None:
            text += f"; the peer expects an invocation counter above {expected_counter}"
        return cls(text, state=state, service=service, expected_counter=expected_counter)


class SecurityError(DlmsError):
    """Protection that cannot be taken off or must not be trusted: wrong key, tag, or security control."""


class ReplayError(SecurityError):
    """A received invocation counter did not rise: the APDU is old, or somebody plays it again."""


class UnexpectedReplyError(DlmsError):
    """The peer's answer does not belong to the question."""


class LinkLostError(ConnectionLostError, DlmsError):
    """The connection below ended in the middle of a conversation. Drivers throw this in."""


class AssociationEndedError(ConnectionLostError, DlmsError):
    """The peer released the association in the middle of a conversation: a new one may be opened."""


class ReplyTimeoutError(TransientError, DlmsError):
    """The peer did not answer in time. Drivers throw this in."""
