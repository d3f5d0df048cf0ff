"""Agreeing and transferring global keys: the methods of Security setup (Green Book 9.2.3.4, Blue Book class 64).

`key_transfer` sends keys wrapped under the master key. `key_agreement` is the ephemeral unified model
C(2e, 0s): each side sends a fresh public key, signed with its static key, for each key to be agreed, and both
derive the same key. Pure transforms: who keeps the keys is up to the caller.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from concentrator.dlms import axdr, elliptic
from concentrator.dlms.axdr import Data
from concentrator.dlms.elliptic import PrivateKey, PublicKey
from concentrator.dlms.errors import DecodeError, SecurityError
from concentrator.dlms.security import KEY_LENGTHS, unwrap_key, wrap_key


class KeyId(enum.IntEnum):
    """Which key, as Security setup numbers them."""

    GLOBAL_UNICAST = 0
    GLOBAL_BROADCAST = 1
    AUTHENTICATION = 2
    MASTER = 3


def _pairs(data: Data | None) -> dict[KeyId, bytes]:
    """The pairs of key_id and octets that both methods exchange. Raises DecodeError."""
    if data is None:
        raise DecodeError("a list of keys was expected, got nothing")
    found: dict[KeyId, bytes] = {}
    for item in data.items():
        number, octets = item.items(2)[:2]
        try:
            key_id = KeyId(number.integer())
        except ValueError:
            raise DecodeError(f"no key has the number {number.integer()}") from None
        if key_id in found:
            raise DecodeError(f"key {key_id} is listed twice")
        found[key_id] = octets.octets()
    return found


def _list(pairs: Iterable[tuple[KeyId, bytes]]) -> Data:
    return axdr.array(
        *(axdr.structure(axdr.enumeration(key_id), axdr.octet_string(octets)) for key_id, octets in pairs)
    )


def wrapped_keys(master_key: bytes, keys: dict[KeyId, bytes]) -> Data:
    """The parameter of `key_transfer`: these keys, wrapped under the master key."""
    return _list((key_id, wrap_key(master_key, key)) for key_id, key in keys.items())


def unwrapped_keys(master_key: bytes, suite: int, data: Data | None) -> dict[KeyId, bytes]:
    """The keys of a `key_transfer`.

    Raises:
        DecodeError: the parameter is malformed.
        SecurityError: a key does not unwrap, or has not the length of the suite.
    """
    keys = {key_id: unwrap_key(master_key, octets) for key_id, octets in _pairs(data).items()}
    for key_id, key in keys.items():
        if len(key) != KEY_LENGTHS[suite]:
            raise SecurityError(
                f"key {key_id} has {len(key)} octets, suite {suite} needs {KEY_LENGTHS[suite]}"
            )
    return keys


class KeyAgreement:
    """One run of `key_agreement`, from either side: make `offer`, take the peer's, get the keys.

    `client_title` is party U, `server_title` party V, whoever runs this.
    """

    def __init__(
        self,
        suite: int,
        signing: PrivateKey,
        peer_signing: PublicKey,
        client_title: bytes,
        server_title: bytes,
    ) -> None:
        self._suite = suite
        self._signing = signing
        self._peer_signing = peer_signing
        self._titles = client_title, server_title
        self._ephemeral: dict[KeyId, PrivateKey] = {}

    def offer(self, key_ids: Iterable[KeyId]) -> Data:
        """Our signed ephemeral public keys, as parameter or return value of the method."""
        offers: list[tuple[KeyId, bytes]] = []
        for key_id in key_ids:
            ephemeral = elliptic.generate_private_key(self._suite)
            self._ephemeral[key_id] = ephemeral
            point = elliptic.public_octets(ephemeral.public_key())
            offers.append((key_id, point + elliptic.sign(self._signing, bytes((key_id,)) + point)))
        return _list(offers)

    def answer(self, offer: Data | None) -> tuple[Data, dict[KeyId, bytes]]:
        """Take a client's offer as its server: our own offer for the same keys, and the keys.

        Raises:
            DecodeError: the offer is malformed.
            SecurityError: its signature does not fit.
        """
        # The signatures are checked before anything is generated.
        points = self._points(_pairs(offer))
        own = self.offer(points)
        return own, self._derive(points)

    def agree(self, answer: Data | None) -> dict[KeyId, bytes]:
        """The agreed keys from the peer's answer to our offer.

        Raises:
            DecodeError: the answer is malformed.
            SecurityError: its signature does not fit, or it names other keys than we offered.
        """
        points = self._points(_pairs(answer))
        if points.keys() != self._ephemeral.keys():
            raise SecurityError("the answer names other keys than were offered")
        return self._derive(points)

    def _points(self, pairs: dict[KeyId, bytes]) -> dict[KeyId, PublicKey]:
        points: dict[KeyId, PublicKey] = {}
        size = 2 * elliptic.coordinate_length(self._suite)
        for key_id, octets in pairs.items():
            point, signature = octets[:size], octets[size:]
            elliptic.verify(self._peer_signing, bytes((key_id,)) + point, signature)
            points[key_id] = elliptic.public_key(self._suite, point)
        return points

    def _derive(self, points: dict[KeyId, PublicKey]) -> dict[KeyId, bytes]:
        return {
            key_id: elliptic.derive_key(
                self._suite,
                elliptic.shared_secret(self._ephemeral[key_id], point),
                *self._titles,
                wrapping=key_id == KeyId.MASTER,
            )
            for key_id, point in points.items()
        }
