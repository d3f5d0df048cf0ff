"""Protecting and unprotecting octets, and the keys for it (Green Book 9.2).

Suites 0, 1 and 2 protect with AES-GCM (128, 128 and 256 bits) and a tag of 12 octets. Keys live in one object
that shows them to nobody; received invocation counters must rise, and tags are compared in constant time.
Who one is proves `authentication`; `envelopes` puts APDUs into what is protected here. An APDU with bit 7 of the
security control was compressed (V.44) before it was protected.
"""

from __future__ import annotations

import enum
import hmac
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from concentrator.dlms import v44
from concentrator.dlms.elliptic import PrivateKey, PublicKey
from concentrator.dlms.errors import EncodeError, ReplayError, SecurityError

TAG_LENGTH = 12
SYSTEM_TITLE_LENGTH = 8
HEADER_LENGTH = 5
COUNTER_LIMIT = 0xFFFFFFFF
KEY_LENGTHS = {0: 16, 1: 16, 2: 32}
_SIGNATURES_REMEMBERED = 1024


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


class SecurityPolicy(enum.IntFlag):
    """What must protect requests, and what responses: security_policy of Security setup in version 1.

    Version 0 has 1 for authenticated, 2 for encrypted, 3 for both, always in both directions.
    """

    NONE = 0
    AUTHENTICATED_REQUEST = 0x04
    ENCRYPTED_REQUEST = 0x08
    SIGNED_REQUEST = 0x10
    AUTHENTICATED_RESPONSE = 0x20
    ENCRYPTED_RESPONSE = 0x40
    SIGNED_RESPONSE = 0x80

    @property
    def request_control(self) -> int:
        """The bits of the security control that requests need."""
        return int(self) << 2 & BOTH

    @property
    def response_control(self) -> int:
        """The bits of the security control that responses need."""
        return int(self) >> 1 & BOTH


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
    `broadcast` the global broadcast key (GBEK), `dedicated` that of the association at hand, `master` the key
    that wraps others (KEK). Of suites 1 and 2: `signing` and `agreement` are our private keys, `peer_signing`
    and `peer_agreement` the peer's public ones.
    """

    __slots__ = (
        "_ciphers", "agreement", "authentication", "broadcast", "dedicated", "encryption", "master",
        "peer_agreement", "peer_signing", "signing",
    )  # fmt: skip

    def __init__(
        self,
        encryption: bytes = b"",
        authentication: bytes = b"",
        broadcast: bytes = b"",
        dedicated: bytes = b"",
        *,
        master: bytes = b"",
        signing: PrivateKey | None = None,
        agreement: PrivateKey | None = None,
        peer_signing: PublicKey | None = None,
        peer_agreement: PublicKey | None = None,
    ) -> None:
        for key in (encryption, authentication, broadcast, dedicated, master):
            if len(key) not in (0, 16, 24, 32):
                raise EncodeError(f"an AES key has 16 or 32 octets, got {len(key)}")
        self.encryption = encryption
        self.authentication = authentication
        self.broadcast = broadcast
        self.dedicated = dedicated
        self.master = master
        self.signing = signing
        self.agreement = agreement
        self.peer_signing = peer_signing
        self.peer_agreement = peer_agreement
        self._ciphers: dict[bytes, AESGCM] = {}

    def cipher(self, key: bytes) -> AESGCM:
        """AES-GCM with one of these keys, or with one that was agreed for a single APDU.

        Those of the association are kept: making one takes as long as using it.
        """
        cipher = self._ciphers.get(key)
        if cipher is None:
            cipher = AESGCM(key)
            if key in (self.encryption, self.broadcast, self.dedicated):
                self._ciphers[key] = cipher
        return cipher

    def with_dedicated(self, dedicated: bytes) -> SecurityKeys:
        """The same keys with this dedicated key, which only one association has."""
        return SecurityKeys(
            self.encryption,
            self.authentication,
            self.broadcast,
            dedicated,
            master=self.master,
            signing=self.signing,
            agreement=self.agreement,
            peer_signing=self.peer_signing,
            peer_agreement=self.peer_agreement,
        )

    def with_peer_signing(self, key: PublicKey) -> SecurityKeys:
        """The same keys with the peer's public signing key as its certificate has it.

        Raises:
            SecurityError: another one is set up.
        """
        known = self.peer_signing
        if known is not None and known.public_numbers() != key.public_numbers():
            raise SecurityError("the peer shows a certificate for another signing key than is set up")
        found = self.with_dedicated(self.dedicated)
        found.peer_signing = key
        return found

    def __repr__(self) -> str:
        return "SecurityKeys(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("keys are not serialised")


def initialisation_vector(system_title: bytes, counter: int) -> bytes:
    """System title and invocation counter. Raises SecurityError where the title is not known."""
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
    """Security header, contents and tag for an APDU, which is compressed where the control octet says so.

    `header` is what general-ciphering authenticates beside the contents.

    Raises:
        EncodeError: the counter is used up.
        SecurityError: the system title is not known.
    """
    return _seal(AESGCM(key), authentication_key, system_title, control, counter, plain, header)


def _seal(
    cipher: AESGCM,
    authentication_key: bytes,
    system_title: bytes,
    control: int,
    counter: int,
    plain: bytes,
    header: bytes,
) -> bytes:
    if control & _COMPRESSED:
        plain = v44.compress(plain)
    if counter > COUNTER_LIMIT:
        raise EncodeError("the invocation counter is used up: the key must be changed")
    vector = initialisation_vector(system_title, counter)
    security_header = bytes((control,)) + vector[SYSTEM_TITLE_LENGTH:]
    additional = bytes((control,)) + authentication_key + header
    if control & BOTH == BOTH:
        return security_header + cipher.encrypt(vector, plain, additional)[: -(16 - TAG_LENGTH)]
    if control & _AUTHENTICATED:
        tag = cipher.encrypt(vector, b"", additional + plain)[:TAG_LENGTH]
        return security_header + plain + tag
    if control & _ENCRYPTED:
        return security_header + cipher.encrypt(vector, plain, None)[:-16]
    return security_header + plain


def unprotect(
    key: bytes, authentication_key: bytes, system_title: bytes, content: bytes, header: bytes = b""
) -> bytes:
    """The APDU within security header, contents and tag.

    Raises:
        SecurityError: too short, or the tag does not fit (wrong key, or altered on the way).
        DecodeError: it is compressed, and does not decompress.
    """
    plain = _open(AESGCM(key), authentication_key, system_title, content, header)
    return v44.decompress(plain) if content[0] & _COMPRESSED else plain


def _open(
    cipher: AESGCM, authentication_key: bytes, system_title: bytes, content: bytes, header: bytes
) -> bytes:
    """What was protected, which may be compressed."""
    if len(content) < HEADER_LENGTH:
        raise SecurityError(f"a ciphered APDU has a security header of 5 octets, got {len(content)}")
    if len(system_title) != SYSTEM_TITLE_LENGTH:
        raise SecurityError(f"a system title has 8 octets, got {len(system_title)}: it is not known yet")
    control = content[0]
    vector = system_title + content[1:HEADER_LENGTH]
    if not control & _AUTHENTICATED:
        body = content[HEADER_LENGTH:]
        # GCM encrypts in counter mode: done once more it deciphers. Without a tag nothing else is left of it.
        return cipher.encrypt(vector, body, None)[:-16] if control & _ENCRYPTED else body
    if len(content) < HEADER_LENGTH + TAG_LENGTH:
        raise SecurityError(f"an authenticated APDU ends with a tag of 12 octets, got {len(content) - 5}")
    body, tag = content[HEADER_LENGTH:-TAG_LENGTH], content[-TAG_LENGTH:]
    additional = content[:1] + authentication_key + header
    if not control & _ENCRYPTED:
        plain = body
        expected = cipher.encrypt(vector, b"", additional + body)
    else:
        # The library's one-shot call knows tags of 16 octets only, and its other call is four times slower: so
        # it is deciphered here too by enciphering, and enciphered again for the tag to compare.
        plain = cipher.encrypt(vector, body, None)[:-16]
        expected = cipher.encrypt(vector, plain, additional)[-16:]
    if not hmac.compare_digest(expected[:TAG_LENGTH], tag):
        raise SecurityError("the authentication tag does not fit: wrong key, or altered on the way")
    return plain


class SecurityContext:
    """Protection between us and one peer: keys, titles, and the counters of both directions.

    `policy` is how we protect at least, `accepted` the least protection that is accepted from the peer (the same,
    if not given); with `signed` its APDUs must be signed. `replays` counts what was refused because its counter
    did not rise.

    Two readings of the standard are in the field; each peer follows one, and never both are tried:
    `header_authenticated` says that general-ciphering authenticates its header fields (Green Book) and not
    only security control and key (Gurux); `length_signed` that a signature covers the length of the content.
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
        accepted: int | None = None,
        signed: bool = False,
        header_authenticated: bool = True,
        length_signed: bool = False,
    ) -> None:
        if suite not in KEY_LENGTHS:
            raise EncodeError(f"security suite {suite} is not 0, 1 or 2")
        if keys.encryption and len(keys.encryption) != KEY_LENGTHS[suite]:
            raise EncodeError(f"suite {suite} needs an encryption key of {KEY_LENGTHS[suite]} octets")
        self.keys = keys
        self.system_title = system_title
        self.counter = counter
        self.peer_system_title = peer_system_title
        self.suite = suite
        self.policy = policy
        self.accepted = policy if accepted is None else accepted
        self.signed = signed
        self.header_authenticated = header_authenticated
        self.length_signed = length_signed
        self.replays = 0
        self.received_counters: dict[tuple[bytes, str], int] = {}
        self._dedicated_counter = MemoryCounter(1)
        self._signatures: dict[bytes, None] = {}

    def protect(
        self, plain: bytes, *, dedicated: bool = False, compressed: bool = False, more: int = 0
    ) -> bytes:
        """Protect an APDU as the policy says, and `more` bits of the control. Raises EncodeError, SecurityError."""
        if dedicated:
            key, counter = self.keys.dedicated, self._dedicated_counter
        else:
            key, counter = self.keys.encryption, self.counter
        return self.protect_with(key, plain, counter=counter, compressed=compressed, more=more)

    def protect_with(
        self,
        key: bytes,
        plain: bytes,
        header: bytes = b"",
        *,
        counter: CounterSource | None = None,
        broadcast: bool = False,
        compressed: bool = False,
        more: int = 0,
    ) -> bytes:
        """Protect with a key of one's choice, and compress where that helps. Raises EncodeError, SecurityError."""
        if not key:
            raise EncodeError("the key to protect with is not set up")
        control = self.suite | self.policy | more | (_BROADCAST if broadcast else 0)
        if compressed:
            if self.suite == 0:
                raise EncodeError("security suite 0 has no compression")
            control |= _COMPRESSED if len(v44.compress(plain)) < len(plain) else 0
        number = (counter or self.counter).next()
        cipher = self.keys.cipher(key)
        return _seal(cipher, self.keys.authentication, self.system_title, control, number, plain, header)

    def check_originator(self, title: bytes) -> bytes:
        """The title to decipher with: the sender's, or where it names none the association's.

        Raises:
            SecurityError: the association is with somebody else.
        """
        if self.peer_system_title and title and title != self.peer_system_title:
            raise SecurityError(
                f"protected by {title.hex()}, the association is with {self.peer_system_title.hex()}"
            )
        return title or self.peer_system_title

    def unprotect(self, content: bytes, system_title: bytes = b"", *, dedicated: bool = False) -> bytes:
        """Take the protection off, and remember the counter.

        Raises:
            ReplayError: the counter did not rise.
            SecurityError: the protection is less than agreed, of another suite, or does not hold.
            DecodeError: it is compressed, and does not decompress.
        """
        title = self.check_originator(system_title)
        if content and content[0] & _BROADCAST:
            key, kind = self.keys.broadcast, "broadcast"
        elif dedicated:
            key, kind = self.keys.dedicated, "dedicated"
        else:
            key, kind = self.keys.encryption, "unicast"
        return self.unprotect_with(key, kind, content, title)

    def unprotect_with(
        self, key: bytes, kind: str, content: bytes, title: bytes, header: bytes = b""
    ) -> bytes:
        """Take the protection off with this key; each `kind` of key counts on its own. Raises as `unprotect`."""
        control = content[0] if content else 0
        if control & 0x0F != self.suite:
            raise SecurityError(f"protected with suite {control & 0x0F}, agreed is suite {self.suite}")
        if self.accepted & ~control & BOTH:
            raise SecurityError(f"security control {control:#04x} protects less than agreed")
        if not key:
            raise SecurityError(f"protected with the {kind} key, which is not set up")
        plain = _open(self.keys.cipher(key), self.keys.authentication, title, content, header)
        received = int.from_bytes(content[1:5], "big")
        last = self.received_counters.get((title, kind), -1)
        if received <= last:
            self.replays += 1
            raise ReplayError(
                f"invocation counter {received} from {title.hex()} is not above {last}: old, or a replay"
            )
        self.received_counters[title, kind] = received
        return v44.decompress(plain) if control & _COMPRESSED else plain

    def remember_signature(self, signature: bytes) -> None:
        """Take a verified signature once: a signed plain APDU has no counter to tell a replay by.

        Raises:
            ReplayError: it was here before.
        """
        if signature in self._signatures:
            self.replays += 1
            raise ReplayError("a signed APDU came twice: a replay")
        self._signatures[signature] = None
        if len(self._signatures) > _SIGNATURES_REMEMBERED:
            del self._signatures[next(iter(self._signatures))]

    def towards(self, recipient: bytes) -> SecurityContext:
        """The same keys and counter towards this peer, and no protection but what each APDU asks for."""
        return SecurityContext(
            self.keys,
            self.system_title,
            self.counter,
            peer_system_title=recipient or self.peer_system_title,
            suite=self.suite,
            policy=0,
            header_authenticated=self.header_authenticated,
            length_signed=self.length_signed,
        )

    def new_dedicated_key(self, key: bytes) -> None:
        """Use this dedicated key from now on; its counters start anew."""
        self.keys = self.keys.with_dedicated(key)
        self._dedicated_counter = MemoryCounter(1)
        for kind in [kind for kind in self.received_counters if kind[1] == "dedicated"]:
            del self.received_counters[kind]


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
