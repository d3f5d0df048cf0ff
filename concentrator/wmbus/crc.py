"""The cyclic redundancy check of EN 13757-4: link-layer blocks, ELL payloads, compact frames.

Polynomial 0x3D65, start value 0, not reflected, complemented, sent high octet first.
"""

from __future__ import annotations

_POLYNOMIAL = 0x3D65
_TOP_BIT = 0x8000


def _table() -> tuple[int, ...]:
    rows: list[int] = []
    for octet in range(256):
        remainder = octet << 8
        for _ in range(8):
            remainder = (remainder << 1) ^ (_POLYNOMIAL if remainder & _TOP_BIT else 0)
        rows.append(remainder & 0xFFFF)
    return tuple(rows)


_TABLE = _table()


def crc_en13757(data: bytes) -> int:
    """The check of `data` as a number; on the air it is sent high octet first."""
    remainder = 0
    for octet in data:
        remainder = ((remainder << 8) & 0xFFFF) ^ _TABLE[(remainder >> 8) ^ octet]
    return remainder ^ 0xFFFF
