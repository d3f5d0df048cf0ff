"""Real telegrams whose protection was taken off, put under keys of our own again, and their link CRCs with it.

Everything is computed here, apart from the decoder's functions: CRC, AES-CBC with the vectors of modes 5 and 7, key
derivation and MAC by CMAC, AES-CTR of the extended link layer. The records have to be those of the plain telegram.
"""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from test_wmbus_real_telegrams import rows

from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.frame import FrameFormat
from concentrator.wmbus.security import KeyRing, MessageCounters, SecurityState
from concentrator.wmbus.telegram import decode_telegram

KEY = bytes(range(16, 32))
KEYS = KeyRing(everyone=KEY)


def chosen(security):
    found = [row for row in rows() if row["security"] == security and row["layout"] == "no_crc"]
    return [(row["name"], bytes.fromhex(row["hex"])) for row in found]


def crc(block):
    remainder = 0
    for octet in block:
        remainder ^= octet << 8
        for _ in range(8):
            remainder = ((remainder << 1) ^ 0x3D65 if remainder & 0x8000 else remainder << 1) & 0xFFFF
    return block + (remainder ^ 0xFFFF).to_bytes(2, "big")


def format_a(octets):
    return crc(octets[:10]) + b"".join(crc(octets[at : at + 16]) for at in range(10, len(octets), 16))


def format_b(octets):
    parts = 1 if len(octets) <= 126 else 2
    whole = bytes((len(octets) - 1 + 2 * parts,)) + octets[1:]
    return crc(whole[:126]) + (crc(whole[126:]) if parts == 2 else b"")


def encrypt(key, mode, octets):
    encryptor = Cipher(algorithms.AES(key), mode).encryptor()
    return encryptor.update(octets) + encryptor.finalize()


def cmac(key, octets):
    mac = CMAC(algorithms.AES(key))
    mac.update(octets)
    return mac.finalize()


def transport_header(octets, at):
    """Where ACC stands behind the CI-field at `at`, and the meter's address as M M A A A A V T."""
    if octets[at] == 0x7A:
        return at + 1, octets[2:10]
    long = octets[at + 1 : at + 9]
    return at + 9, long[4:6] + long[:4] + long[6:]


def test_link_crcs_of_formats_a_and_b_are_recognised():
    for security in ("none", "mode5_removed", "mode7_removed"):
        for name, octets in chosen(security):
            if len(octets) > 250:
                continue
            plain = decode_telegram(octets)
            for framed, frame_format in (
                (format_a(octets), FrameFormat.A),
                (format_b(octets), FrameFormat.B),
            ):
                telegram = decode_telegram(framed)
                assert telegram.frame.frame_format is frame_format, name
                assert telegram.records == plain.records, name
                damaged = bytearray(framed)
                damaged[len(framed) // 2] ^= 4
                assert decode_telegram_or_none(bytes(damaged), frame_format) is None, name


def decode_telegram_or_none(octets, frame_format):
    try:
        return decode_telegram(octets, frame_format=frame_format)
    except TelegramError:
        return None


def test_mode_5_opens_with_the_key_only():
    telegrams = chosen("mode5_removed")
    assert telegrams
    for name, octets in telegrams:
        at = 13 if octets[10] == 0x8C else 10
        acc_at, address = transport_header(octets, at)
        encrypted = (octets[acc_at + 2] >> 4) * 16
        body = octets[acc_at + 4 :]
        assert len(body) >= encrypted, name
        vector = address + octets[acc_at : acc_at + 1] * 8
        sealed = encrypt(KEY, modes.CBC(vector), body[:encrypted]) + body[encrypted:]
        telegram = decode_telegram(octets[: acc_at + 4] + sealed, keys=KEYS)
        assert telegram.security.state is SecurityState.DECODED, name
        assert telegram.records == decode_telegram(octets).records, name
        wrong = decode_telegram(octets[: acc_at + 4] + sealed, keys=KeyRing(everyone=bytes(16)))
        assert wrong.security.state is SecurityState.KEY_WRONG, name
        missing = decode_telegram(octets[: acc_at + 4] + sealed)
        assert missing.security.state is SecurityState.KEY_MISSING, name


def test_mode_7_opens_once_and_only_with_its_mac():
    telegrams = chosen("mode7_removed")
    assert telegrams
    for name, octets in telegrams:
        afl = octets[15 : 15 + octets[14]]
        at = 15 + octets[14]
        control, counter, mac_octets = afl[2:3], afl[3:7], len(afl) - 7
        acc_at, address = transport_header(octets, at)
        encrypted = (octets[acc_at + 2] >> 4) * 16
        derived = [
            cmac(KEY, bytes((constant,)) + counter + address[2:6] + b"\x07" * 7) for constant in (0, 1)
        ]
        body = octets[acc_at + 5 :]
        message = octets[at : acc_at + 5]
        message += encrypt(derived[0], modes.CBC(bytes(16)), body[:encrypted]) + body[encrypted:]
        mac = cmac(derived[1], control + counter + message)[:mac_octets]
        counters = MessageCounters()
        sealed = octets[:15] + afl[:7] + mac + message
        telegram = decode_telegram(sealed, keys=KEYS, counters=counters)
        assert telegram.security.state is SecurityState.DECODED, name
        assert telegram.records == decode_telegram(octets).records, name
        assert decode_telegram(sealed, keys=KEYS, counters=counters).security.state is SecurityState.REPLAY
        forged = octets[:15] + afl[:7] + mac + message[:-1] + bytes((message[-1] ^ 1,))
        assert decode_telegram(forged, keys=KEYS).security.state is SecurityState.KEY_WRONG, name


@pytest.mark.parametrize("hop", [0x00, 0x10])
def test_ell_aes_ctr_opens_also_through_a_repeater(hop):
    telegrams = chosen("ell_aes_ctr_removed")
    assert telegrams
    for name, octets in telegrams:
        at = 13 if octets[10] == 0x8D else 21
        control = octets[11] & ~0x10
        block = octets[2:10] + bytes((control,)) + octets[at : at + 4] + bytes(3)
        head = octets[:11] + bytes((control | hop,)) + octets[12 : at + 4]
        sealed = head + encrypt(KEY, modes.CTR(block), octets[at + 4 :])
        telegram = decode_telegram(sealed, keys=KEYS, formats=FormatMemory())
        assert telegram.security.state is SecurityState.DECODED, name
        assert telegram.records == decode_telegram(octets, formats=FormatMemory()).records, name
        assert decode_telegram(sealed).security.state is SecurityState.KEY_MISSING, name
