"""The three check sequences of USI frames, by protocol id.

Sources: service/pcrc of Microchip's smartenergy repository (modem side), confirmed by two independent hosts.
They are not the ones that libraries know by similar names: the 16-bit one is *non-augmented*, that is the
plain remainder of the message by the polynomial, and the 8-bit one is an XOR and not PRIME's CRC-8.
"""

try:
    from binascii import crc_hqx  # CPython: the augmented CRC over the same polynomial, in C
except ImportError:  # MicroPython
    crc_hqx = None

CRC_16_POLYNOMIAL = 0x1021
CRC_32_POLYNOMIAL = 0x04C11DB7

# Protocol ids by check sequence; every id that is not named here has the XOR octet.
CRC_32_PROTOCOLS = (0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07)
CRC_16_PROTOCOLS = (0x13, 0x1F, 0x22, 0x23, 0x24, 0x25, 0x26, 0x28)

# Octets of XOR folded by big integers from this length on; below, the plain loop is quicker.
_FOLD_FROM = 24


def _make_table(polynomial: int, width: int) -> tuple[int, ...]:
    top = 1 << (width - 1)
    mask = (1 << width) - 1
    table: list[int] = []
    for octet in range(256):
        remainder = octet << (width - 8)
        for _ in range(8):
            remainder = ((remainder << 1) ^ polynomial if remainder & top else remainder << 1) & mask
        table.append(remainder)
    return tuple(table)


_TABLE_16 = _make_table(CRC_16_POLYNOMIAL, 16)
_TABLE_32 = _make_table(CRC_32_POLYNOMIAL, 32)


def crc_32(data: bytes) -> int:
    """CRC-32 of MNGP: initial value 0, not reflected, no final XOR."""
    table = _TABLE_32
    crc = 0
    for octet in data:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ table[(crc >> 24) ^ octet]
    return crc


def crc_16(data: bytes) -> int:
    """Non-augmented CRC-16 of G3 and of the sniffers: initial value 0, not reflected."""
    if crc_hqx is not None and len(data) > 2:
        # The augmented CRC of all but the last two octets is what those two are then added to.
        return crc_hqx(data[:-2], 0) ^ int.from_bytes(data[-2:], "big")
    table = _TABLE_16
    crc = 0
    for octet in data:
        crc = table[crc >> 8] ^ ((crc << 8) & 0xFF00) ^ octet
    return crc


def xor_8(data: bytes) -> int:
    """The exclusive or of all octets: PRIME_API, Meters and More, and whatever has no CRC of its own."""
    length = len(data)
    if length < _FOLD_FROM:
        folded = 0
        for octet in data:
            folded ^= octet
        return folded
    folded = int.from_bytes(data, "big")
    while length > 1:
        half = (length + 1) // 2
        folded = (folded >> (8 * half)) ^ (folded & ((1 << (8 * half)) - 1))
        length = half
    return folded


def crc_size(protocol: int) -> int:
    """Octets of the check sequence that frames of a protocol end with."""
    if protocol in CRC_16_PROTOCOLS:
        return 2
    return 4 if protocol in CRC_32_PROTOCOLS else 1


def crc(protocol: int, data: bytes) -> int:
    """The check sequence of a frame: over both header octets and the payload, before escaping."""
    if protocol in CRC_16_PROTOCOLS:
        return crc_16(data)
    return crc_32(data) if protocol in CRC_32_PROTOCOLS else xor_8(data)
