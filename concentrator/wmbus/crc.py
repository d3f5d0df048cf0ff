"""The cyclic redundancy check of EN 13757-4: link-layer blocks, ELL payloads, compact frames.

Polynomial 0x3D65, start value 0, not reflected, complemented, sent high octet first.
"""

from __future__ import annotations

from fastcrc.crc16 import en_13757


def crc_en13757(data: bytes) -> int:
    """The check of `data` as a number; on the air it is sent high octet first."""
    return en_13757(data)
