"""Elliptic curves of security suites 1 and 2: signatures, key agreement and key derivation (Green Book 9.2.3).

Suite 1 uses P-256 with SHA-256, suite 2 P-384 with SHA-384. Signatures are the plain pair r || s (FIPS 186-4),
public keys the plain point X || Y, and keys are derived by the single-step function of NIST SP 800-56A.
Suite 0 has no curve.
"""

from __future__ import annotations

import enum
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from concentrator.dlms.errors import EncodeError, SecurityError

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

_CURVES: dict[int, ec.EllipticCurve] = {1: ec.SECP256R1(), 2: ec.SECP384R1()}
# 2.16.756.5.8.3.x: DLMS UA, algorithms.
_ALGORITHM_PREFIX = bytes.fromhex("608574050803")


class KeyUse(enum.IntEnum):
    """What an agreed key is for, as the last arc of its AlgorithmID."""

    AES_GCM_128 = 0
    AES_GCM_256 = 1
    AES_WRAP_128 = 2
    AES_WRAP_256 = 3


def curve_of(suite: int) -> ec.EllipticCurve:
    """The curve of a security suite. Raises EncodeError for suites without one."""
    curve = _CURVES.get(suite)
    if curve is None:
        raise EncodeError(f"security suite {suite} has neither signatures nor key agreement")
    return curve


def suite_of(key: PrivateKey | PublicKey) -> int:
    """The security suite that a key is made for. Raises EncodeError."""
    for suite, curve in _CURVES.items():
        if curve.name == key.curve.name:
            return suite
    raise EncodeError(f"a key on {key.curve.name} is of no security suite")


def generate_private_key(suite: int) -> PrivateKey:
    """A new key pair."""
    return ec.generate_private_key(curve_of(suite))


def coordinate_length(suite: int) -> int:
    """Octets of one coordinate, which is half a point and half a signature."""
    return curve_of(suite).key_size // 8


def public_octets(key: PublicKey) -> bytes:
    """A public key as it is sent: X || Y."""
    numbers, size = key.public_numbers(), key.curve.key_size // 8
    return numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")


def public_key(suite: int, octets: bytes) -> PublicKey:
    """The public key of these coordinates.

    Raises:
        SecurityError: they have the wrong length, or name no point of the curve.
    """
    try:
        return PublicKey.from_encoded_point(curve_of(suite), b"\x04" + octets)
    except ValueError:
        raise SecurityError(f"{len(octets)} octets are no public key of suite {suite}") from None


def _hash(key: PrivateKey | PublicKey) -> hashes.HashAlgorithm:
    return hashes.SHA256() if suite_of(key) == 1 else hashes.SHA384()


def sign(key: PrivateKey, octets: bytes) -> bytes:
    """The signature r || s."""
    size = key.curve.key_size // 8
    r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(_hash(key))))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def verify(key: PublicKey, octets: bytes, signature: bytes) -> None:
    """Check a signature.

    Raises:
        SecurityError: it is not of these octets, or by another key.
    """
    size = key.curve.key_size // 8
    if len(signature) != 2 * size:
        raise SecurityError(
            f"a signature of suite {suite_of(key)} has {2 * size} octets, got {len(signature)}"
        )
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    try:
        key.verify(encode_dss_signature(r, s), octets, ec.ECDSA(_hash(key)))
    except InvalidSignature:
        raise SecurityError("the signature does not fit: wrong key, or altered on the way") from None


def shared_secret(own: PrivateKey, peer: PublicKey) -> bytes:
    """Z of an ECDH key agreement. Raises SecurityError where the curves differ."""
    if own.curve.name != peer.curve.name:
        raise SecurityError(f"the peer's key is on {peer.curve.name}, ours on {own.curve.name}")
    return own.exchange(ec.ECDH(), peer)


def derive_key(
    suite: int, secret: bytes, party_u_info: bytes, party_v_info: bytes, *, wrapping: bool = False
) -> bytes:
    """A key from a shared secret: hash of counter, Z, AlgorithmID, PartyUInfo and PartyVInfo, cut to length.

    `wrapping` derives a key that wraps others (the master key) instead of one that encrypts.
    """
    curve_of(suite)
    use = KeyUse((2 if wrapping else 0) + suite - 1)
    text = b"\x00\x00\x00\x01" + secret + _ALGORITHM_PREFIX + bytes((use,)) + party_u_info + party_v_info
    if suite == 1:
        return hashlib.sha256(text).digest()[:16]
    return hashlib.sha384(text).digest()[:32]
