"""The security modes with derived keys and message counter (EN 13757-7, OMS volume 2): 7, 8, 9 and 10.

Mode 7: AES-128-CBC with zero vector; key derived by CMAC from the meter's key, message counter and identification;
the CMAC of the authentication and fragmentation layer (AFL) protects all from the AFL's message control on.
Modes 8 (AES-CTR and CMAC), 9 (AES-GCM) and 10 (AES-CCM) take keys, counter and MAC field from there.

Of modes 8 to 10 no telegram of a real meter and no published example was at hand. What the standard leaves to who
has not its text (the first counter block, nonce and authenticated header) is therefore tried in the few forms that
follow from the other modes, this project's own first. The MAC or tag decides between them under the meter's key,
so that a form more lets no forger in. A message in another form is refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.cmac import CMAC

from concentrator.wmbus.address import Address
from concentrator.wmbus.records import decode_records
from concentrator.wmbus.security import (
    BLOCK_OCTETS,
    DECRYPTION_CHECK,
    MODE_AES_CBC_DERIVED_KEY,
    MODE_AES_CTR,
    MODE_AES_GCM,
    MeterKey,
    crypt_ctr,
    decrypt_cbc,
)

# Derivation constants of the CMAC key derivation function, meter to other.
_ENCRYPTION_FROM_METER = 0x00
_MAC_FROM_METER = 0x01
_PADDING = b"\x07" * 7
_ONE = b"\0\0\0\1"
_GCM_NONCE_OCTETS, _CCM_NONCE_OCTETS = 12, 13
_TAG_OCTETS = range(4, 17, 2)


class Message(NamedTuple):
    """A message of modes 7 to 10.

    `afl_header` are the AFL's octets that the MAC covers, `tpl_header` the transport layer from its CI-field to
    the content, `tail` what follows the encrypted octets in the clear.
    """

    mode: int
    derives_keys: bool
    counter: int
    access_number: int
    afl_header: bytes
    tpl_header: bytes
    encrypted: bytes
    tail: bytes
    mac: bytes


def open_message(message: Message, key: MeterKey, meter: Address) -> bytes | None:
    """The plain octets; None when the MAC or tag misses, b"" when it fits and the content is noise."""
    encryption = key.reveal()
    if message.derives_keys:
        encryption = derive_key(key, meter, message.counter, _ENCRYPTION_FROM_METER)
    if message.mode not in (MODE_AES_CBC_DERIVED_KEY, MODE_AES_CTR):
        return _open_sealed(message, encryption, meter)
    authentication = key.reveal()
    if message.derives_keys:
        authentication = derive_key(key, meter, message.counter, _MAC_FROM_METER)
    whole = message.afl_header + message.tpl_header + message.encrypted + message.tail
    if not hmac.compare_digest(cmac(authentication, whole)[: len(message.mac)], message.mac):
        return None
    if message.mode == MODE_AES_CBC_DERIVED_KEY:
        plain = decrypt_cbc(encryption, bytes(BLOCK_OCTETS), message.encrypted)
        return plain if plain.startswith(DECRYPTION_CHECK) else b""
    return _open_counter_mode(message, encryption, meter)


def derive_key(key: MeterKey, meter: Address, counter: int, constant: int) -> bytes:
    """The key derivation function of EN 13757-7: CMAC(key, constant, counter, identification, padding)."""
    identification = bytes.fromhex(meter.identification)[::-1]
    return cmac(key.reveal(), bytes((constant,)) + counter.to_bytes(4, "little") + identification + _PADDING)


def cmac(key: bytes, data: bytes) -> bytes:
    """AES-CMAC, 16 octets."""
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()


def _open_counter_mode(message: Message, key: bytes, meter: Address) -> bytes:
    """Mode 8, whose MAC covers the ciphertext: the content tells which first counter block was meant."""
    address, counter = meter.to_link_layer(), message.counter
    first_blocks = (
        bytes(BLOCK_OCTETS),
        address + counter.to_bytes(4, "little") + bytes(4),
        address + bytes((message.access_number,)) * 8,
        counter.to_bytes(4, "little") + bytes(12),
        address + counter.to_bytes(4, "big") + bytes(4),
        address + counter.to_bytes(4, "little") + _ONE,
        address + counter.to_bytes(4, "big") + _ONE,
    )
    plains = [crypt_ctr(key, block, message.encrypted) for block in first_blocks]
    for plain in plains:
        if plain.startswith(DECRYPTION_CHECK):
            return plain
    return min(plains, key=_strangeness)


def _strangeness(plain: bytes) -> int:
    """How little octets look like records that a meter sends: noise breaks off, or has codes of no meaning."""
    found = decode_records(plain)
    score = 100 if found.fault or not found.records else 0
    for record in found.records:
        header = record.header
        reserved = any(
            name.startswith(("reserved", "manufacturer")) for name in (record.quantity, *record.qualifiers)
        )
        far_off = header.storage > 99 or header.tariff > 3 or header.subunit > 3  # noqa: PLR2004 - what meters have
        score += 3 * reserved + 3 * far_off + (not record.valid) + (record.quantity == "any")
    return score - len(found.records)


def _open_sealed(message: Message, key: bytes, meter: Address) -> bytes | None:
    """Modes 9 and 10, whose tag covers header and content."""
    sealed = message.encrypted + message.tail
    tags = [(sealed, message.mac)]
    if not message.mac:  # not in the AFL: behind the content
        tags = [(sealed[:-octets], sealed[-octets:]) for octets in (16, 12, 8) if len(sealed) > octets]
    headers = (
        message.afl_header + message.tpl_header,
        message.afl_header[1:] + message.tpl_header,  # from the counter on
        message.tpl_header,
        b"",
    )
    for content, tag in tags:
        if len(tag) not in _TAG_OCTETS:
            continue
        for nonce in _nonces(message, meter):
            for header in headers:
                plain = _unseal(message.mode, key, nonce, header, content, tag)
                if plain is not None:
                    return plain
    return None


def _nonces(message: Message, meter: Address) -> Iterator[bytes]:
    octets = _GCM_NONCE_OCTETS if message.mode == MODE_AES_GCM else _CCM_NONCE_OCTETS
    address = meter.to_link_layer()
    for counter in (message.counter.to_bytes(4, "little"), message.counter.to_bytes(4, "big")):
        yield (address + counter).ljust(octets, b"\0")
        yield (counter + address).ljust(octets, b"\0")
        if octets > _GCM_NONCE_OCTETS:
            yield address + counter
            yield address + bytes((message.access_number,)) + counter
            yield address + counter + bytes((message.access_number,))
            yield b"\0" + address + counter
    # The key is of this message only: a nonce may say nothing, as the vector of mode 7.
    yield bytes(octets)
    yield address + bytes((message.access_number,)) * (octets - len(address))


def _unseal(  # noqa: PLR0913 - all that a sealed message is made of
    mode: int, key: bytes, nonce: bytes, header: bytes, content: bytes, tag: bytes
) -> bytes | None:
    try:
        if mode == MODE_AES_GCM:
            parameters = modes.GCM(nonce, tag, _TAG_OCTETS.start)
            decryptor = Cipher(algorithms.AES(key), parameters).decryptor()
            decryptor.authenticate_additional_data(header)
            return decryptor.update(content) + decryptor.finalize()
        return AESCCM(key, tag_length=len(tag)).decrypt(nonce, content + tag, header)
    except InvalidTag:
        return None
