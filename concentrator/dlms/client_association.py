"""Opening and closing an association from the client's side (Green Book 4.4, 9.4.4): AARQ to HLS pass 4, RLRQ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from concentrator.dlms import apdu as apdus
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.protection import GLOBAL_TAGS, ServiceCiphered
from concentrator.dlms.authentication import HighLevelSecurity, challenge_length
from concentrator.dlms.codes import ApplicationContext, AuthenticationMechanism, words
from concentrator.dlms.envelopes import Protected, wrap
from concentrator.dlms.errors import (
    AccessError,
    AssociationRejectedError,
    DecodeError,
    SecurityError,
    ServiceRefusedError,
    UnexpectedReplyError,
)
from concentrator.dlms.exchange import Conversation, Exchange


def _is(kind: type[Apdu]) -> Callable[[Apdu], bool]:
    return lambda reply: isinstance(reply, kind)


class AssociationClient(Exchange, ABC):
    """Opens and closes; what names attributes, by logical or by short names, is up to the subclass."""

    CONTEXT: ClassVar[ApplicationContext]
    CIPHERED_CONTEXT: ClassVar[ApplicationContext]

    def associate(self) -> Conversation[None]:
        """Open the association, with both passes of HLS where the mechanism has them.

        Raises:
            AssociationRejectedError: the meter refused; its diagnostic is in the error.
            SecurityError: the meter could not prove who it is.
        """
        settings = self.settings
        mechanism = settings.mechanism
        high = mechanism >= AuthenticationMechanism.HLS_MANUFACTURER
        self.start_service()
        self.associated = False
        self.max_send_size = 0
        self._peer_window = 1
        challenge = self._random(challenge_length(mechanism)) if high else settings.secret
        ciphered = self._authentication is not None and settings.ciphered
        request = AssociationRequest(
            context=self.CIPHERED_CONTEXT if ciphered else self.CONTEXT,
            user_information=self._user_information(),
            calling_ap_title=settings.system_title or None,
            calling_ae_qualifier=settings.certificate or None,
            mechanism=mechanism or None,
            authentication_value=challenge if mechanism else None,
        )
        incoming = yield from self.transmit((request.to_bytes(),))
        response = yield from self.await_reply(incoming, _is(AssociationResponse))
        assert isinstance(response, AssociationResponse)  # noqa: S101
        self._accept(response)
        if high:
            yield from self._prove(challenge, response)
        self.associated = True

    def _user_information(self) -> bytes:
        settings = self.settings
        request = InitiateRequest(
            settings.conformance, settings.max_pdu_size, settings.dedicated_key or None
        ).to_bytes()
        security = self._authentication
        if security is None or not settings.ciphered:
            return request
        if settings.key_establishment is not None:
            return wrap(security, request, settings.envelope)
        return ServiceCiphered(GLOBAL_TAGS[InitiateRequest.TAG], security.protect(request)).to_bytes()

    def _accept(self, response: AssociationResponse) -> None:
        settings = self.settings
        # A refusal may come without user-information: result and diagnostic first.
        if response.result != 0:
            detail = ""
            if response.user_information:
                try:
                    inner = apdus.decode(response.user_information)
                    detail = inner.words if isinstance(inner, ConfirmedServiceError) else ""
                except DecodeError:
                    detail = "and its user-information is malformed"
            raise AssociationRejectedError(
                response.result, response.diagnostic_source, response.diagnostic, detail
            )
        security = self._authentication
        if security is not None and response.responding_ap_title:
            if len(response.responding_ap_title) != 8:
                raise SecurityError(f"a system title has 8 octets, got {response.responding_ap_title.hex()}")
            security.peer_system_title = response.responding_ap_title
        if security is not None and settings.trust is not None and response.responding_ae_qualifier:
            key = settings.trust.signing_key(response.responding_ae_qualifier, security.peer_system_title)
            security.keys = security.keys.with_peer_signing(key)
        if response.user_information is None:
            raise UnexpectedReplyError("the association was accepted without an InitiateResponse")
        inner = self._initiate_response(response.user_information)
        if isinstance(inner, ConfirmedServiceError):
            raise ServiceRefusedError(f"association refused: {inner.words}")
        if not isinstance(inner, InitiateResponse):
            raise UnexpectedReplyError("the association was accepted without an InitiateResponse")
        self.conformance = inner.conformance & self.settings.conformance
        self.max_send_size = inner.max_receive_pdu_size

    def _initiate_response(self, octets: bytes) -> Apdu:
        inner = apdus.decode(octets)
        security = self._authentication
        if security is None or not self.settings.ciphered:
            return inner
        if not isinstance(inner, Protected):
            raise SecurityError("the meter answered a ciphered InitiateRequest in plain")
        if not isinstance(inner, ServiceCiphered):
            return apdus.decode(self.unprotect(inner))
        # Never signed: the envelope of the AARE is the association's, not that of a service.
        plain = security.unprotect(inner.content)
        if plain[:1] != bytes((inner.service_tag,)):
            raise SecurityError(f"{apdus.name_of(inner.tag)} carries another service")
        return apdus.decode(plain)

    def _prove(self, challenge: bytes, response: AssociationResponse) -> Conversation[None]:
        if not response.authentication_value:
            raise SecurityError("the meter sent no challenge: it cannot do the authentication asked for")
        proof = HighLevelSecurity(
            self.settings.mechanism,
            secret=self.settings.secret,
            security=self._authentication,
            own_system_title=self.settings.system_title,
            peer_system_title=response.responding_ap_title or self.settings.meter_system_title,
            manufacturer=self.settings.manufacturer,
        )
        proof.own_challenge = challenge
        proof.peer_challenge = response.authentication_value
        try:
            answer = yield from self._reply_to_hls(proof.answer())
        except AccessError as error:
            raise SecurityError(f"the meter does not accept our proof: {words(error.result)}") from None
        if answer is None:
            raise SecurityError("the meter did not answer our challenge")
        proof.check(answer)

    @abstractmethod
    def _reply_to_hls(self, proof: bytes) -> Conversation[bytes | None]:
        """Invoke reply_to_HLS_authentication with our proof; gives the meter's."""

    def release(self) -> Conversation[None]:
        """Close the association. A meter that answers otherwise, or not at all, has closed it too."""
        self.associated = False
        ciphered = self._authentication is not None and self.settings.ciphered
        information = self._user_information() if ciphered else None
        incoming = yield from self.transmit((ReleaseRequest(0, information).to_bytes(),))
        yield from self.await_reply(incoming, _is(ReleaseResponse))
