"""Protecting and unprotecting APDUs, and proving who one is (Green Book 9.2).

Suites 0, 1 and 2 protect with AES-GCM (128, 128 and 256 bits) and a tag of 12 octets. Authentication
mechanisms 0, 1, 3, 4, 5 and 6 are here. Keys live in one object that shows them to nobody;
received invocation counters must rise, and tags are compared in constant time. Compression,
signatures and key agreement are not done here.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from concentrator.dlms.codes import AuthenticationMechanism, words
from concentrator.dlms.errors import EncodeError, ReplayError, SecurityError

TAG_LENGTH = 12
SYSTEM_TITLE_LENGTH = 8
HEADER_LENGTH = 5
COUNTER_LIMIT = 0xFFFFFFFF
KEY_LENGTHS = {0: 16, 1: 16, 2: 32}


class SecurityControl(enum.IntFlag):
    """The bits of the security control octet above the suite number (bits 0 to 3)."""

    NONE = 0
    AUTHENTICATED = 0x10
    ENCRYPTED = 0x20
    BROADCAST = 0x40
    COMPRESSED = 0x80


# Plain numbers on the way of every APDU: operations on flags cost as much as the cipher.
_AUTHENTICATED, _ENCRYPTED, _BROADCAST, _COMPRESSED = 0x10, 0x20, 0x40, 0x80
BOTH = _AUTHENTICATED | _ENCRYPTED


class CounterSource(Protocol):
    """Where invocation counters come from. None gives the same number twice, not even after a crash."""

    def next(self) -> int:
        """The counter to use now; each is higher than the one before."""
        ...


class MemoryCounter:
    """A counter that lives as long as the process: for tests, simulators and single dialogues."""

    def __init__(self, start: int = 1) -> None:
        self.value = start

    def next(self) -> int:
        """The counter to use now."""
        value = self.value
        self.value = value + 1
        return value


class SecurityKeys:
    """The keys shared with one peer; neither printed nor pickled.

    `encryption` is the global unicast encryption key (GUEK), `authentication` the authentication key (GAK),
    `broadcast` the global broadcast key (GBEK), `dedicated` that of the association at hand.
    """

    __slots__ = ("authentication", "broadcast", "dedicated", "encryption")

    def __init__(
        self, encryption: bytes, authentication: bytes = b"", broadcast: bytes = b"", dedicated: bytes = b""
    ) -> None:
        for key in (encryption, authentication, broadcast, dedicated):
            if len(key) not in (0, 16, 24, 32):
                raise EncodeError(f"an AES key has 16 or 32 octets, got {len(key)}")
        self.encryption = encryption
        self.authentication = authentication
        self.broadcast = broadcast
        self.dedicated = dedicated

    def __repr__(self) -> str:
        return "SecurityKeys(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("keys are not serialised")


def _initialisation_vector(system_title: bytes, counter: int) -> bytes:
    if len(system_title) != SYSTEM_TITLE_LENGTH:
        raise SecurityError(f"a system title has 8 octets, got {len(system_title)}: it is not known yet")
    return system_title + counter.to_bytes(4, "big")


def protect(
    key: bytes,
    authentication_key: bytes,
    system_title: bytes,
    control: int,
    counter: int,
    plain: bytes,
    header: bytes = b"",
) -> bytes:
    """Security header, contents and tag for an APDU.

    `header` is what general-ciphering authenticates beside the contents.

    Raises:
        EncodeError: the control octet asks for what is not done here, or the counter is used up.
        SecurityError: the system title is not known.
    """
    if control & _COMPRESSED:
        raise EncodeError("compression is not supported")
    if counter > COUNTER_LIMIT:
        raise EncodeError("the invocation counter is used up: the key must be changed")
    vector = _initialisation_vector(system_title, counter)
    security_header = bytes((control,)) + counter.to_bytes(4, "big")
    additional = bytes((control,)) + authentication_key + header
    if control & BOTH == BOTH:
        return security_header + AESGCM(key).encrypt(vector, plain, additional)[: -(16 - TAG_LENGTH)]
    if control & _AUTHENTICATED:
        tag = AESGCM(key).encrypt(vector, b"", additional + plain)[:TAG_LENGTH]
        return security_header + plain + tag
    if control & _ENCRYPTED:
        return security_header + AESGCM(key).encrypt(vector, plain, None)[:-16]
    return security_header + plain


def unprotect(
    key: bytes, authentication_key: bytes, system_title: bytes, content: bytes, header: bytes = b""
) -> bytes:
    """The APDU within security header, contents and tag.

    Raises:
        SecurityError: too short, compressed, or the tag does not fit (wrong key, or altered on the way).
    """
    if len(content) < HEADER_LENGTH:
        raise SecurityError(f"a ciphered APDU has a security header of 5 octets, got {len(content)}")
    control = content[0]
    if control & _COMPRESSED:
        raise SecurityError(f"security control {control:#04x} asks for decompression, which is not supported")
    vector = _initialisation_vector(system_title, int.from_bytes(content[1:5], "big"))
    additional = content[:1] + authentication_key + header
    if not control & _AUTHENTICATED:
        body = content[HEADER_LENGTH:]
        if not control & _ENCRYPTED:
            return body
        # GCM encrypts in counter mode from block 2 on; without a tag nothing else is left of it.
        decryptor = Cipher(algorithms.AES(key), modes.CTR(vector + b"\x00\x00\x00\x02")).decryptor()
        return decryptor.update(body) + decryptor.finalize()
    if len(content) < HEADER_LENGTH + TAG_LENGTH:
        raise SecurityError(f"an authenticated APDU ends with a tag of 12 octets, got {len(content) - 5}")
    body, tag = content[HEADER_LENGTH:-TAG_LENGTH], content[-TAG_LENGTH:]
    if not control & _ENCRYPTED:
        expected = AESGCM(key).encrypt(vector, b"", additional + body)[:TAG_LENGTH]
        if not hmac.compare_digest(expected, tag):
            raise SecurityError("the authentication tag does not fit: wrong key, or altered on the way")
        return body
    decryptor = Cipher(algorithms.AES(key), modes.GCM(vector, tag, TAG_LENGTH)).decryptor()
    decryptor.authenticate_additional_data(additional)
    try:
        return decryptor.update(body) + decryptor.finalize()
    except InvalidTag:
        raise SecurityError("the authentication tag does not fit: wrong key, or altered on the way") from None


class SecurityContext:
    """Protection between us and one peer: keys, titles, and the counters of both directions.

    `replays` counts what was refused because its counter did not rise. `policy` is how we protect, and
    the least protection that is accepted from the peer.
    """

    def __init__(
        self,
        keys: SecurityKeys,
        system_title: bytes,
        counter: CounterSource,
        *,
        peer_system_title: bytes = b"",
        suite: int = 0,
        policy: int = BOTH,
    ) -> None:
        if suite not in KEY_LENGTHS:
            raise EncodeError(f"security suite {suite} is not 0, 1 or 2")
        if len(keys.encryption) != KEY_LENGTHS[suite]:
            raise EncodeError(f"suite {suite} needs an encryption key of {KEY_LENGTHS[suite]} octets")
        self.keys = keys
        self.system_title = system_title
        self.counter = counter
        self.peer_system_title = peer_system_title
        self.suite = suite
        self.policy = policy
        self.replays = 0
        self.received_counters: dict[tuple[bytes, str], int] = {}
        self._dedicated_counter = MemoryCounter(1)

    def protect(self, plain: bytes, *, dedicated: bool = False) -> bytes:
        """Protect an APDU as the policy says. Raises EncodeError, SecurityError."""
        key = self.keys.dedicated if dedicated else self.keys.encryption
        counter = (self._dedicated_counter if dedicated else self.counter).next()
        control = self.suite | self.policy
        return protect(key, self.keys.authentication, self.system_title, control, counter, plain)

    def unprotect(self, content: bytes, system_title: bytes = b"", *, dedicated: bool = False) -> bytes:
        """Take the protection off, and remember the counter.

        Raises:
            ReplayError: the counter did not rise.
            SecurityError: the protection is less than agreed, of another suite, or does not hold.
        """
        title = system_title or self.peer_system_title
        if self.peer_system_title and title != self.peer_system_title:
            raise SecurityError(
                f"protected by {title.hex()}, the association is with {self.peer_system_title.hex()}"
            )
        control = content[0] if content else 0
        if control & 0x0F != self.suite:
            raise SecurityError(f"protected with suite {control & 0x0F}, agreed is suite {self.suite}")
        if self.policy & ~control & BOTH:
            raise SecurityError(f"security control {control:#04x} protects less than agreed")
        if control & _BROADCAST:
            key, kind = self.keys.broadcast, "broadcast"
        elif dedicated:
            key, kind = self.keys.dedicated, "dedicated"
        else:
            key, kind = self.keys.encryption, "unicast"
        if not key:
            raise SecurityError(f"protected with the {kind} key, which is not set up")
        plain = unprotect(key, self.keys.authentication, title, content)
        received = int.from_bytes(content[1:5], "big")
        last = self.received_counters.get((title, kind), -1)
        if received <= last:
            self.replays += 1
            raise ReplayError(
                f"invocation counter {received} from {title.hex()} is not above {last}: old, or a replay"
            )
        self.received_counters[title, kind] = received
        return plain

    def new_dedicated_key(self, key: bytes) -> None:
        """Use this dedicated key from now on; its counters start anew."""
        self.keys.dedicated = key
        self._dedicated_counter = MemoryCounter(1)
        self.received_counters = {k: v for k, v in self.received_counters.items() if k[1] != "dedicated"}


def gmac(
    key: bytes, authentication_key: bytes, system_title: bytes, suite: int, counter: int, text: bytes
) -> bytes:
    """f(challenge) of HLS with GMAC: security control, invocation counter and tag, 17 octets."""
    header = bytes((suite | _AUTHENTICATED,)) + counter.to_bytes(4, "big")
    return header + _gmac_tag(key, authentication_key, system_title, suite, counter, text)


def _gmac_tag(
    key: bytes, authentication_key: bytes, system_title: bytes, suite: int, counter: int, text: bytes
) -> bytes:
    control = bytes((suite | _AUTHENTICATED,))
    vector = _initialisation_vector(system_title, counter)
    return AESGCM(key).encrypt(vector, b"", control + authentication_key + text)[:TAG_LENGTH]


def _digest(
    mechanism: int, secret: bytes, challenge: bytes, sender: bytes, receiver: bytes, other_challenge: bytes
) -> bytes:
    if mechanism == AuthenticationMechanism.HLS_MD5:
        return hashlib.md5(challenge + secret, usedforsecurity=False).digest()
    if mechanism == AuthenticationMechanism.HLS_SHA1:
        return hashlib.sha1(challenge + secret, usedforsecurity=False).digest()
    if mechanism == AuthenticationMechanism.HLS_SHA256:
        return hashlib.sha256(secret + sender + receiver + challenge + other_challenge).digest()
    raise EncodeError(f"authentication mechanism {words(mechanism)} is not supported")


class HighLevelSecurity:
    """Pass 3 and 4 of one HLS authentication: answer the peer's challenge, check its answer to ours."""

    def __init__(
        self,
        mechanism: AuthenticationMechanism | int,
        *,
        secret: bytes = b"",
        security: SecurityContext | None = None,
        own_system_title: bytes = b"",
        peer_system_title: bytes = b"",
    ) -> None:
        if mechanism == AuthenticationMechanism.HLS_GMAC and security is None:
            raise EncodeError("HLS with GMAC needs keys")
        self.mechanism = mechanism
        self._secret = secret
        self._security = security
        self._own_title = own_system_title
        self._peer_title = peer_system_title
        self.own_challenge = b""
        self.peer_challenge = b""

    def answer(self) -> bytes:
        """f(peer's challenge), to be sent. Uses up one invocation counter with GMAC."""
        security = self._security
        if self.mechanism == AuthenticationMechanism.HLS_GMAC and security is not None:
            keys = security.keys
            return gmac(
                keys.encryption,
                keys.authentication,
                self._own_title,
                security.suite,
                security.counter.next(),
                self.peer_challenge,
            )
        return _digest(
            self.mechanism,
            self._secret,
            self.peer_challenge,
            self._own_title,
            self._peer_title,
            self.own_challenge,
        )

    def check(self, answer: bytes) -> None:
        """Check the peer's f(own challenge).

        Raises:
            SecurityError: it is wrong: the peer does not know the secret.
        """
        security = self._security
        if self.mechanism == AuthenticationMechanism.HLS_GMAC and security is not None:
            if len(answer) != HEADER_LENGTH + TAG_LENGTH:
                raise SecurityError(f"f(challenge) of HLS GMAC has 17 octets, got {len(answer)}")
            expected = _gmac_tag(
                security.keys.encryption,
                security.keys.authentication,
                self._peer_title,
                security.suite,
                int.from_bytes(answer[1:5], "big"),
                self.own_challenge,
            )
            control = security.suite | _AUTHENTICATED
            good = answer[0] == control and hmac.compare_digest(expected, answer[HEADER_LENGTH:])
        else:
            expected = _digest(
                self.mechanism,
                self._secret,
                self.own_challenge,
                self._peer_title,
                self._own_title,
                self.peer_challenge,
            )
            good = hmac.compare_digest(expected, answer)
        if not good:
            raise SecurityError("the peer's answer to our challenge is wrong: it does not know the secret")


def wrap_key(key_encryption_key: bytes, key: bytes) -> bytes:
    """A key for transfer (AES key wrap, RFC 3394)."""
    return aes_key_wrap(key_encryption_key, key)


def unwrap_key(key_encryption_key: bytes, wrapped: bytes) -> bytes:
    """A transferred key.

    Raises:
        SecurityError: the key encryption key is another one, or the octets were altered.
    """
    try:
        return aes_key_unwrap(key_encryption_key, wrapped)
    except (InvalidUnwrap, ValueError):
        raise SecurityError("the wrapped key does not unwrap: wrong key, or altered on the way") from None
