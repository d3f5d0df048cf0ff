"""Ciphered and signed APDUs: putting one into its envelope, and taking it out (Green Book 9.2.7.2, 9.5).

Service-specific (glo-, ded-), general-glo, general-ded and general-ciphering with each kind of key-info;
general-signing around any of them. What comes out of an envelope tells which it was, so that the answer to
a request goes in the same.
"""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass
from functools import lru_cache

from concentrator.dlms import apdu as apdus
from concentrator.dlms import elliptic
from concentrator.dlms.apdu import Apdu
from concentrator.dlms.apdu.protection import (
    DEDICATED_TAGS,
    GENERAL_DED,
    GENERAL_GLO,
    GLOBAL_TAGS,
    SERVICE_OF_DEDICATED,
    GeneralCiphered,
    GeneralCiphering,
    GeneralSigning,
    KeyInfo,
    ServiceCiphered,
)
from concentrator.dlms.errors import EncodeError, SecurityError
from concentrator.dlms.reader import encode_octet_string
from concentrator.dlms.security import (
    BOTH,
    KEY_LENGTHS,
    SecurityContext,
    SecurityControl,
    unwrap_key,
    wrap_key,
)

# Tags, lengths, security header, authentication tag, and the system title of a general- envelope.
_CIPHERING_OVERHEAD = 32
# Transaction-id, two system titles, empty date-time and other-information, lengths.
_HEADER_OVERHEAD = 40
# A key of 32 octets, wrapped, with its lengths.
_KEY_INFO_OVERHEAD = 48
_UNICAST, _BROADCAST = 0, 1
_MASTER = 0
_ONE_PASS, _STATIC_UNIFIED = 1, 2
_COMPRESSED = int(SecurityControl.COMPRESSED)


class EnvelopeKind(enum.Enum):
    """The APDU around the APDU."""

    PLAIN = "plain"
    SERVICE_SPECIFIC = "service-specific"
    GENERAL = "general-glo or general-ded"
    GENERAL_CIPHERING = "general-ciphering"


class KeyEstablishment(enum.Enum):
    """Where the key of general-ciphering comes from (Key-Info)."""

    IDENTIFIED = "identified key"
    BROADCAST = "identified broadcast key"
    WRAPPED = "wrapped key"
    ONE_PASS = "agreed key, one-pass Diffie-Hellman C(1e, 1s)"  # noqa: S105
    STATIC_UNIFIED = "agreed key, static unified model C(0e, 2s)"


@dataclass(frozen=True, slots=True)
class Envelope:
    """How an APDU is protected. `establishment` counts with general-ciphering only.

    `compressed` tells that it was, or may be where that makes it shorter: in general-glo, general-ded and
    general-ciphering, with suites 1 and 2. `control` are bits of the security control beyond the policy's.
    `transaction_id` and `other_information` go into the header of general-ciphering and general-signing; a
    transaction-id that is not given is made up.
    """

    kind: EnvelopeKind = EnvelopeKind.SERVICE_SPECIFIC
    dedicated: bool = False
    establishment: KeyEstablishment = KeyEstablishment.IDENTIFIED
    signed: bool = False
    compressed: bool = False
    control: int = 0
    transaction_id: bytes = b""
    other_information: bytes = b""

    @property
    def compresses(self) -> bool:
        """Whether what it carries is compressed where that makes it shorter."""
        return self.compressed and self.kind in (EnvelopeKind.GENERAL, EnvelopeKind.GENERAL_CIPHERING)

    def overhead(self, suite: int) -> int:
        """Octets that it adds to an APDU, at most."""
        octets = 0 if self.kind == EnvelopeKind.PLAIN else _CIPHERING_OVERHEAD
        if self.kind == EnvelopeKind.GENERAL_CIPHERING:
            octets += _HEADER_OVERHEAD + _KEY_INFO_OVERHEAD
            if self.establishment == KeyEstablishment.ONE_PASS:
                octets += 4 * elliptic.coordinate_length(suite)
        if self.signed:
            octets += _HEADER_OVERHEAD + 2 * elliptic.coordinate_length(suite)
        return octets


PLAIN = Envelope(EnvelopeKind.PLAIN)
Protected = ServiceCiphered | GeneralCiphered | GeneralCiphering | GeneralSigning


def wrap(security: SecurityContext, plain: bytes, envelope: Envelope) -> bytes:
    """Protect an APDU.

    Raises:
        EncodeError: a key that it takes is not set up.
        SecurityError: a system title is not known.
    """
    octets = plain
    if envelope.kind == EnvelopeKind.GENERAL_CIPHERING:
        octets = _cipher(security, plain, envelope).to_bytes()
    elif envelope.kind != EnvelopeKind.PLAIN:
        tags = DEDICATED_TAGS if envelope.dedicated else GLOBAL_TAGS
        content = security.protect(
            plain, dedicated=envelope.dedicated, compressed=envelope.compresses, more=envelope.control
        )
        tag = tags.get(plain[0])
        # ACCESS and notifications have no service-specific form.
        if envelope.kind == EnvelopeKind.SERVICE_SPECIFIC and tag is not None:
            octets = ServiceCiphered(tag, content).to_bytes()
        else:
            general = GENERAL_DED if envelope.dedicated else GENERAL_GLO
            octets = GeneralCiphered(general, security.system_title, content).to_bytes()
    return sign(security, octets, envelope).to_bytes() if envelope.signed else octets


def unwrap(security: SecurityContext, protected: Protected) -> tuple[bytes, Envelope]:
    """The plain APDU, and the envelope that it came in.

    Raises:
        ReplayError: it is old.
        SecurityError: the protection is less than agreed, or does not hold.
        DecodeError: what was signed is malformed.
    """
    signed = False
    inner: Apdu = protected
    if isinstance(inner, GeneralSigning):
        signed = True
        content = verify(security, inner)
        signature = inner.signature
        inner = apdus.decode(content)
        if not isinstance(inner, ServiceCiphered | GeneralCiphered | GeneralCiphering):
            if isinstance(inner, GeneralSigning):
                raise SecurityError("a signed APDU is signed again")
            if security.accepted:
                raise SecurityError("a signed APDU is plain, where ciphered is agreed")
            security.remember_signature(signature)
            return content, Envelope(EnvelopeKind.PLAIN, signed=True)
    elif security.signed:
        raise SecurityError("an APDU came without signature, where signed is agreed")
    if isinstance(inner, GeneralCiphering):
        plain, establishment = _decipher(security, inner)
        return plain, _envelope(GeneralCiphering.TAG, inner.content[0], signed, establishment)
    title = inner.system_title if isinstance(inner, GeneralCiphered) else b""
    plain = security.unprotect(inner.content, title, dedicated=inner.dedicated)
    if isinstance(inner, ServiceCiphered) and plain[:1] != bytes((inner.service_tag,)):
        raise SecurityError(f"{apdus.name_of(inner.tag)} carries another service")
    return plain, _envelope(inner.tag, inner.content[0], signed)


# There are few of them, and one for each APDU that comes.
@lru_cache(maxsize=256)
def _envelope(
    tag: int,
    control: int,
    signed: bool,  # noqa: FBT001 - counts as the rest of the key does
    establishment: KeyEstablishment | None = None,
) -> Envelope:
    """The envelope of an APDU with this tag and this security control."""
    if establishment is not None:
        kind = EnvelopeKind.GENERAL_CIPHERING
    else:
        kind = EnvelopeKind.GENERAL if tag in (GENERAL_GLO, GENERAL_DED) else EnvelopeKind.SERVICE_SPECIFIC
    dedicated = tag == GENERAL_DED or tag in SERVICE_OF_DEDICATED
    established = establishment or KeyEstablishment.IDENTIFIED
    return Envelope(kind, dedicated, established, signed, control & _COMPRESSED != 0, control & BOTH)


# general-ciphering


def _cipher(security: SecurityContext, plain: bytes, how: Envelope) -> GeneralCiphering:
    keys, peer_title, establishment = security.keys, security.peer_system_title, how.establishment
    if len(peer_title) != 8:
        raise SecurityError("general-ciphering names its recipient: the peer's system title is not known")
    transaction, other = how.transaction_id or secrets.token_bytes(8), how.other_information
    if establishment == KeyEstablishment.IDENTIFIED:
        key, info = keys.encryption, KeyInfo(0, _UNICAST)
    elif establishment == KeyEstablishment.BROADCAST:
        key, info = keys.broadcast, KeyInfo(0, _BROADCAST)
    elif establishment == KeyEstablishment.WRAPPED:
        if not keys.master:
            raise EncodeError("a key is wrapped with the master key, which is not set up")
        key = secrets.token_bytes(KEY_LENGTHS[security.suite])
        info = KeyInfo(1, _MASTER, data=wrap_key(keys.master, key))
    else:
        key, info = _agree(security, transaction, establishment)
    envelope = GeneralCiphering(transaction, security.system_title, peer_title, b"", other, info, b"")
    header = envelope.header if security.header_authenticated else b""
    broadcast = establishment == KeyEstablishment.BROADCAST
    content = security.protect_with(
        key, plain, header, broadcast=broadcast, compressed=how.compressed, more=how.control
    )
    return GeneralCiphering(transaction, security.system_title, peer_title, b"", other, info, content)


def _agree(
    security: SecurityContext, transaction: bytes, establishment: KeyEstablishment
) -> tuple[bytes, KeyInfo]:
    """A fresh key that only the peer can derive too, and what it needs for that."""
    keys, suite = security.keys, security.suite
    if keys.peer_agreement is None:
        raise EncodeError("the peer's public key for key agreement is not set up")
    if establishment == KeyEstablishment.STATIC_UNIFIED:
        if keys.agreement is None:
            raise EncodeError("our private key for key agreement is not set up")
        secret = elliptic.shared_secret(keys.agreement, keys.peer_agreement)
        key = _static_key(suite, secret, security.system_title, security.peer_system_title, transaction)
        return key, KeyInfo(2, parameters=bytes((_STATIC_UNIFIED,)))
    if keys.signing is None:
        raise EncodeError("our private signing key is not set up")
    ephemeral = elliptic.generate_private_key(suite)
    point = elliptic.public_octets(ephemeral.public_key())
    secret = elliptic.shared_secret(ephemeral, keys.peer_agreement)
    key = elliptic.derive_key(suite, secret, security.system_title, security.peer_system_title)
    data = point + elliptic.sign(keys.signing, point)
    return key, KeyInfo(2, parameters=bytes((_ONE_PASS,)), data=data)


def _static_key(suite: int, secret: bytes, originator: bytes, recipient: bytes, transaction: bytes) -> bytes:
    # The secret is always the same: the transaction-id makes the key another one each time.
    return elliptic.derive_key(suite, secret, originator + encode_octet_string(transaction), recipient)


def _decipher(security: SecurityContext, envelope: GeneralCiphering) -> tuple[bytes, KeyEstablishment]:
    recipient = envelope.recipient_system_title
    if recipient and recipient != security.system_title:
        raise SecurityError(f"an APDU for {recipient.hex()} came to {security.system_title.hex()}")
    title = security.check_originator(envelope.originator_system_title)
    info = envelope.key_info or KeyInfo(0, _UNICAST)
    if info.kind == 0:
        if info.identity not in (_UNICAST, _BROADCAST):
            raise SecurityError(f"key-info names key {info.identity}, which is not global")
        broadcast = info.identity == _BROADCAST
        establishment = KeyEstablishment.BROADCAST if broadcast else KeyEstablishment.IDENTIFIED
        kind = "broadcast" if broadcast else "unicast"
        key = security.keys.broadcast if broadcast else security.keys.encryption
    elif info.kind == 1:
        if info.identity != _MASTER:
            raise SecurityError(f"key-info names wrapping key {info.identity}, which is not the master key")
        if not security.keys.master:
            raise SecurityError("a key is wrapped with the master key, which is not set up")
        establishment, kind = KeyEstablishment.WRAPPED, "wrapped"
        key = unwrap_key(security.keys.master, info.data)
    else:
        establishment, key = _agreed(security, envelope, info, title)
        kind = "agreed"
    header = envelope.header if security.header_authenticated else b""
    return security.unprotect_with(key, kind, envelope.content, title, header), establishment


def _agreed(
    security: SecurityContext, envelope: GeneralCiphering, info: KeyInfo, title: bytes
) -> tuple[KeyEstablishment, bytes]:
    keys, suite = security.keys, security.suite
    if suite == 0:
        raise SecurityError("security suite 0 has no key agreement")
    if keys.agreement is None:
        raise SecurityError("our private key for key agreement is not set up")
    if info.parameters == bytes((_STATIC_UNIFIED,)):
        if keys.peer_agreement is None:
            raise SecurityError("the peer's public key for key agreement is not set up")
        secret = elliptic.shared_secret(keys.agreement, keys.peer_agreement)
        key = _static_key(suite, secret, title, security.system_title, envelope.transaction_id)
        return KeyEstablishment.STATIC_UNIFIED, key
    if info.parameters != bytes((_ONE_PASS,)):
        raise SecurityError(f"key-info asks for key agreement {info.parameters.hex()!r}, which is unknown")
    if keys.peer_signing is None:
        raise SecurityError("the peer's public signing key is not set up")
    size = 2 * elliptic.coordinate_length(suite)
    point, signature = info.data[:size], info.data[size:]
    try:
        elliptic.verify(keys.peer_signing, point, signature)
    except SecurityError:
        # Gurux puts the number of the scheme before the point.
        elliptic.verify(keys.peer_signing, bytes((_ONE_PASS,)) + point, signature)
    secret = elliptic.shared_secret(keys.agreement, elliptic.public_key(suite, point))
    return KeyEstablishment.ONE_PASS, elliptic.derive_key(suite, secret, title, security.system_title)


# general-signing


def sign(security: SecurityContext, content: bytes, how: Envelope = PLAIN) -> GeneralSigning:
    """An APDU with our signature. Raises EncodeError where our signing key is not set up."""
    if security.keys.signing is None:
        raise EncodeError("our private signing key is not set up")
    transaction, other = how.transaction_id or secrets.token_bytes(8), how.other_information
    plain = GeneralSigning(
        transaction, security.system_title, security.peer_system_title, b"", other, content, b""
    )
    signature = elliptic.sign(security.keys.signing, plain.signed_octets(with_length=security.length_signed))
    return GeneralSigning(
        transaction, plain.originator_system_title, plain.recipient_system_title, b"", other, content, signature,
    )  # fmt: skip


def verify(security: SecurityContext, signed: GeneralSigning) -> bytes:
    """The APDU that the peer signed.

    Raises:
        SecurityError: the signature does not fit, or the APDU is for or from somebody else.
    """
    if security.keys.peer_signing is None:
        raise SecurityError("the peer's public signing key is not set up")
    recipient = signed.recipient_system_title
    if recipient and recipient != security.system_title:
        raise SecurityError(f"an APDU for {recipient.hex()} came to {security.system_title.hex()}")
    security.check_originator(signed.originator_system_title)
    octets = signed.signed_octets(with_length=security.length_signed)
    elliptic.verify(security.keys.peer_signing, octets, signed.signature)
    return signed.content
