"""The encrypted consumer port of Luxembourg (Smarty) and its kin: a P1 telegram in a general-glo-ciphering envelope.

DB, length and system title, 82 and the length in two octets, security control 30, frame counter (4), ciphertext, and
a tag of 12 octets: AES-128-GCM with the vector system title and frame counter. The authentication key of these ports
is public; a meter's own may be given.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.iec62056_21.errors import TelegramError

ENVELOPE_START = b"\xdb\x08"
ENVELOPE_HEAD_OCTETS = 13  # DB 08 title(8) 82 length(2)
PUBLIC_AUTHENTICATION_KEY = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
_TWO_OCTET_LENGTH = 0x82
_CONTROL_AND_COUNTER_OCTETS, _TAG_OCTETS, _KEY_OCTETS = 5, 12, 16


def envelope_length(head: bytes) -> int | None:
    """Octets of an envelope by its first 13; None while they are not there. A wrong length octet gives 1."""
    if len(head) < ENVELOPE_HEAD_OCTETS:
        return None
    if head[10] != _TWO_OCTET_LENGTH:
        return 1
    return ENVELOPE_HEAD_OCTETS + int.from_bytes(head[11:13], "big")


def open_envelope(octets: bytes, key: bytes, authentication_key: bytes = b"") -> bytes:
    """The P1 telegram in an envelope.

    Raises:
        TelegramError: no envelope, cut off, no key of 16 octets, or the tag misses under this key.
    """
    total = envelope_length(octets[:ENVELOPE_HEAD_OCTETS])
    least = ENVELOPE_HEAD_OCTETS + _CONTROL_AND_COUNTER_OCTETS + _TAG_OCTETS
    if not octets.startswith(ENVELOPE_START) or total is None or not least <= total <= len(octets):
        raise TelegramError(
            f"no encrypted P1 telegram, or it is cut off: {octets[:ENVELOPE_HEAD_OCTETS].hex()}"
        )
    if len(key) != _KEY_OCTETS:
        raise TelegramError(f"the port is encrypted and wants a key of 16 octets, got {len(key)}")
    control = octets[13:14]
    vector = octets[2:10] + octets[14:18]
    ciphertext, tag = octets[18 : total - _TAG_OCTETS], octets[total - _TAG_OCTETS : total]
    decryptor = Cipher(algorithms.AES(key), modes.GCM(vector, tag, _TAG_OCTETS)).decryptor()
    decryptor.authenticate_additional_data(control + (authentication_key or PUBLIC_AUTHENTICATION_KEY))
    try:
        return decryptor.update(ciphertext) + decryptor.finalize()
    except InvalidTag:
        raise TelegramError("the tag of an encrypted P1 telegram misses: a wrong key") from None
