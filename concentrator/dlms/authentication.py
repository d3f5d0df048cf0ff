"""Authentication of an association: passes 3 and 4 of high level security (Green Book 9.2.2.2.2, 9.2.7.4).

Mechanisms 3 (MD5), 4 (SHA-1), 5 (GMAC), 6 (SHA-256) and 7 (ECDSA); mechanism 2 is the manufacturer's own, a
function to be plugged in. What the peer proves is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TypeAlias

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from concentrator.dlms import elliptic
from concentrator.dlms.codes import AuthenticationMechanism, words
from concentrator.dlms.errors import EncodeError, SecurityError
from concentrator.dlms.security import (
    HEADER_LENGTH,
    TAG_LENGTH,
    SecurityContext,
    SecurityControl,
    initialisation_vector,
)

# f of mechanism 2: challenge and secret in, answer out.
ManufacturerFunction: TypeAlias = Callable[[bytes, bytes], bytes]
_AUTHENTICATED = int(SecurityControl.AUTHENTICATED)
_SUITE = 0x0F
# Octets of a challenge: 8 to 64, with ECDSA 32 at least.
_CHALLENGE_LENGTH = 16
_CHALLENGE_LENGTH_ECDSA = 32


def challenge_length(mechanism: int) -> int:
    """Octets of a challenge that every peer takes."""
    return _CHALLENGE_LENGTH_ECDSA if mechanism == AuthenticationMechanism.HLS_ECDSA else _CHALLENGE_LENGTH


def gmac(
    key: bytes, authentication_key: bytes, system_title: bytes, suite: int, counter: int, text: bytes
) -> bytes:
    """f(challenge) of HLS with GMAC: security control, invocation counter and tag, 17 octets."""
    control = bytes((suite | _AUTHENTICATED,))
    vector = initialisation_vector(system_title, counter)
    tag = AESGCM(key).encrypt(vector, b"", control + authentication_key + text)[:TAG_LENGTH]
    return control + counter.to_bytes(4, "big") + tag


class HighLevelSecurity:
    """Pass 3 and 4 of one HLS authentication: answer the peer's challenge, check its answer to ours.

    `security` holds the keys of mechanisms 5 and 7, whether or not the association is ciphered.
    """

    def __init__(
        self,
        mechanism: AuthenticationMechanism | int,
        *,
        secret: bytes = b"",
        security: SecurityContext | None = None,
        own_system_title: bytes = b"",
        peer_system_title: bytes = b"",
        manufacturer: ManufacturerFunction | None = None,
    ) -> None:
        if mechanism in (AuthenticationMechanism.HLS_GMAC, AuthenticationMechanism.HLS_ECDSA):
            if security is None:
                raise EncodeError(f"authentication mechanism {words(mechanism)} needs keys")
        elif mechanism == AuthenticationMechanism.HLS_MANUFACTURER and manufacturer is None:
            raise EncodeError("authentication mechanism 2 needs the manufacturer's function")
        self.mechanism = mechanism
        self._secret = secret
        self._security = security
        self._own_title = own_system_title
        self._peer_title = peer_system_title
        self._manufacturer = manufacturer
        self.own_challenge = b""
        self.peer_challenge = b""

    def answer(self) -> bytes:
        """f(peer's challenge), to be sent. Uses up one invocation counter with GMAC.

        Raises:
            EncodeError: a key that it takes is not set up.
            SecurityError: the peer sent our own challenge back.
        """
        if hmac.compare_digest(self.own_challenge, self.peer_challenge):
            # Else somebody without the secret could have us answer for him.
            raise SecurityError("the peer sent our own challenge back")
        security = self._security
        if self.mechanism == AuthenticationMechanism.HLS_GMAC and security is not None:
            keys = security.keys
            if not keys.encryption:
                raise EncodeError("HLS with GMAC needs the encryption key")
            return gmac(
                keys.encryption,
                keys.authentication,
                self._own_title,
                security.suite,
                security.counter.next(),
                self.peer_challenge,
            )
        if self.mechanism == AuthenticationMechanism.HLS_ECDSA and security is not None:
            if security.keys.signing is None:
                raise EncodeError("HLS with ECDSA needs our signing key")
            text = self._own_title + self._peer_title + self.peer_challenge + self.own_challenge
            return elliptic.sign(security.keys.signing, text)
        return self._digest(self.peer_challenge, self._own_title, self._peer_title, self.own_challenge)

    def check(self, answer: bytes) -> None:
        """Check the peer's f(own challenge).

        Raises:
            SecurityError: it is wrong: the peer does not know the secret.
        """
        security = self._security
        if self.mechanism == AuthenticationMechanism.HLS_GMAC and security is not None:
            good = self._gmac_fits(security, answer)
        elif self.mechanism == AuthenticationMechanism.HLS_ECDSA and security is not None:
            if security.keys.peer_signing is None:
                raise SecurityError("the peer's public signing key is not set up")
            text = self._peer_title + self._own_title + self.own_challenge + self.peer_challenge
            elliptic.verify(security.keys.peer_signing, text, answer)
            good = True
        else:
            expected = self._digest(
                self.own_challenge, self._peer_title, self._own_title, self.peer_challenge
            )
            good = hmac.compare_digest(expected, answer)
        if not good:
            raise SecurityError("the peer's answer to our challenge is wrong: it does not know the secret")

    def _gmac_fits(self, security: SecurityContext, answer: bytes) -> bool:
        if len(answer) != HEADER_LENGTH + TAG_LENGTH:
            raise SecurityError(f"f(challenge) of HLS GMAC has 17 octets, got {len(answer)}")
        if not security.keys.encryption:
            raise SecurityError("HLS with GMAC needs the encryption key")
        if answer[0] & ~_SUITE != _AUTHENTICATED:
            raise SecurityError(f"f(challenge) of HLS GMAC has security control {answer[0]:#04x}, not 0x1.")
        expected = gmac(
            security.keys.encryption,
            security.keys.authentication,
            self._peer_title,
            # As the peer wrote it, under its tag: there are meters of suite 1 that write suite 0 here.
            answer[0] & _SUITE,
            int.from_bytes(answer[1:5], "big"),
            self.own_challenge,
        )
        return hmac.compare_digest(expected, answer)

    def _digest(self, challenge: bytes, sender: bytes, receiver: bytes, other_challenge: bytes) -> bytes:
        mechanism, secret = self.mechanism, self._secret
        if mechanism == AuthenticationMechanism.HLS_MANUFACTURER and self._manufacturer is not None:
            return self._manufacturer(challenge, secret)
        if mechanism == AuthenticationMechanism.HLS_MD5:
            return hashlib.md5(challenge + secret, usedforsecurity=False).digest()
        if mechanism == AuthenticationMechanism.HLS_SHA1:
            return hashlib.sha1(challenge + secret, usedforsecurity=False).digest()
        if mechanism == AuthenticationMechanism.HLS_SHA256:
            return hashlib.sha256(secret + sender + receiver + challenge + other_challenge).digest()
        raise EncodeError(f"authentication mechanism {words(mechanism)} is not supported")
