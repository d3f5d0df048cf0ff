"""The link layer of wireless M-Bus (EN 13757-4), formats A and B, and the long frame of EN 13757-2.

Receivers differ in what they leave in: the CRCs of format A or B, or none. `decode_frame` takes all of
these; told nothing, it takes the CRCs for CRCs when every one of them fits. 3-out-of-6 and Manchester
coding are undone in `raw_bits`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from concentrator.wmbus.address import ADDRESS_OCTETS, Address
from concentrator.wmbus.crc import crc_en13757
from concentrator.wmbus.errors import TelegramError, WmbusUsageError

CRC_OCTETS = 2
FIRST_BLOCK_OCTETS = 10  # L C M M A A A A V T
FORMAT_A_BLOCK_OCTETS = 16
FORMAT_B_FIRST_PART_OCTETS = 126  # blocks 1 and 2 together, their one CRC not counted
MAX_LENGTH_FIELD = 255
# A file of telegrams may have lost so many octets of one: what is whole in it is still read.
MOST_MISSING_OCTETS = 8
_WIRED_START = 0x68
_WIRED_STOP = 0x16
_WIRED_OVERHEAD = 6  # 68 L L 68 ... check sum 16

# EN 13757-4 C-fields: what a telegram is for.
C_FIELD_NAMES: dict[int, str] = {
    0x00: "ACK",
    0x06: "CNF-IR",
    0x08: "RSP-UD",
    0x18: "RSP-UD",
    0x28: "RSP-UD",
    0x38: "RSP-UD",
    0x40: "SND-NKE",
    0x43: "SND-UD2",
    0x44: "SND-NR",
    0x45: "SND-UD3",
    0x46: "SND-IR",
    0x47: "ACC-NR",
    0x48: "ACC-DMD",
    0x53: "SND-UD",
    0x73: "SND-UD",
    0x5A: "REQ-UD1",
    0x7A: "REQ-UD1",
    0x5B: "REQ-UD2",
    0x7B: "REQ-UD2",
}


class FrameFormat(enum.StrEnum):
    """What the octets of a telegram contain beside its content."""

    WITHOUT_CRC = "without_crc"  # L counts all octets after it
    A = "A"  # a CRC after the first 10 and after each further 16 octets; L counts none of them
    B = "B"  # a CRC at the end of at most 128 octets, and one at the end of the rest; L counts them
    WIRED = "wired"  # EN 13757-2: 68 L L 68 C A CI ... check sum 16


class LinkFrame(NamedTuple):
    """A telegram without its link layer's framing. `payload` starts with the first CI-field.

    `address` is the sender's; None on the wire, where only `primary_address` (0..255) is sent.
    `surplus_octets` came after the end that the L-field states: mostly a receiver's own. `missing` counts octets
    that the L-field states and that did not come.
    """

    c_field: int
    address: Address | None
    payload: bytes
    frame_format: FrameFormat
    primary_address: int | None = None
    surplus_octets: bytes = b""
    missing: int = 0

    @property
    def surplus(self) -> int:
        """How many octets came after the end."""
        return len(self.surplus_octets)

    @property
    def c_field_name(self) -> str:
        """The C-field as the standard names it, or in hex."""
        return C_FIELD_NAMES.get(self.c_field, f"{self.c_field:02X}")


def decode_frame(data: bytes, frame_format: FrameFormat | None = None) -> LinkFrame:
    """Take a telegram's link layer off.

    Args:
        data: from the L-field (on the wire: from the first 68) to the end.
        frame_format: what the receiver left in; None finds out.

    Raises:
        TelegramError: no frame of that format: too short, cut off, a CRC or check sum that misses. Of a
            frame without CRC whose format was not told, a few octets may be missing.
    """
    found = frame_format or _detect(data)
    if found is FrameFormat.WIRED:
        return _decode_wired(data)
    if found is FrameFormat.A:
        content, end = _strip_format_a(data)
    elif found is FrameFormat.B:
        content, end = _strip_format_b(data)
    else:
        end = data[0] + 1 if data else FIRST_BLOCK_OCTETS
        if frame_format is not None or len(data) + MOST_MISSING_OCTETS < end:
            _require(data, end)
        content = data[1:end]
    if len(content) < FIRST_BLOCK_OCTETS:
        raise TelegramError(f"a radio telegram has at least 10 octets after L, got {data.hex()}")
    return LinkFrame(
        c_field=content[0],
        address=Address.from_link_layer(content[1 : 1 + ADDRESS_OCTETS]),
        payload=content[1 + ADDRESS_OCTETS :],
        frame_format=found,
        surplus_octets=data[end:],
        missing=max(0, end - len(data)),
    )


def encode_frame(frame: LinkFrame) -> bytes:
    """Write a telegram in the format that `frame.frame_format` names; the reverse of `decode_frame`.

    Raises:
        WmbusUsageError: too long for one L-field, or without the address that the format needs.
    """
    if frame.frame_format is FrameFormat.WIRED:
        if frame.primary_address is None:
            raise WmbusUsageError("a wired frame needs a primary address")
        body = bytes((frame.c_field, frame.primary_address)) + frame.payload
        start = bytes((_WIRED_START, _checked_length(len(body)), len(body), _WIRED_START))
        return start + body + bytes((sum(body) & 0xFF, _WIRED_STOP))
    if frame.address is None:
        raise WmbusUsageError("a radio frame needs its sender's address")
    content = bytes((frame.c_field,)) + frame.address.to_link_layer() + frame.payload
    if frame.frame_format is FrameFormat.A:
        whole = bytes((_checked_length(len(content)),)) + content
        blocks = [whole[:FIRST_BLOCK_OCTETS]]
        rest = whole[FIRST_BLOCK_OCTETS:]
        blocks += [rest[i : i + FORMAT_A_BLOCK_OCTETS] for i in range(0, len(rest), FORMAT_A_BLOCK_OCTETS)]
        return b"".join(map(_with_crc, blocks))
    if frame.frame_format is FrameFormat.B:
        parts = 1 if len(content) < FORMAT_B_FIRST_PART_OCTETS else 2
        whole = bytes((_checked_length(len(content) + parts * CRC_OCTETS),)) + content
        second = whole[FORMAT_B_FIRST_PART_OCTETS:]
        return _with_crc(whole[:FORMAT_B_FIRST_PART_OCTETS]) + (_with_crc(second) if second else b"")
    return bytes((_checked_length(len(content)),)) + content


def _detect(data: bytes) -> FrameFormat:
    """The format whose every check fits; octets without any check are the last resort."""
    if len(data) > _WIRED_OVERHEAD and data[0] == data[3] == _WIRED_START and data[1] == data[2]:
        return FrameFormat.WIRED
    if (
        len(data) >= FIRST_BLOCK_OCTETS + CRC_OCTETS
        and len(data) == format_a_octets(data[0])
        and _crc_fits(data[: FIRST_BLOCK_OCTETS + CRC_OCTETS])
    ):
        return FrameFormat.A
    if len(data) > FIRST_BLOCK_OCTETS + CRC_OCTETS and len(data) == data[0] + 1:
        end = min(len(data), FORMAT_B_FIRST_PART_OCTETS + CRC_OCTETS)
        if _crc_fits(data[:end]):
            return FrameFormat.B
    return FrameFormat.WITHOUT_CRC


def format_a_octets(length_field: int) -> int:
    """Octets of a whole telegram of format A, its CRCs included, by its L-field."""
    rest = max(0, length_field + 1 - FIRST_BLOCK_OCTETS)
    blocks = 1 + -(-rest // FORMAT_A_BLOCK_OCTETS)
    return length_field + 1 + blocks * CRC_OCTETS


def _strip_format_a(data: bytes) -> tuple[bytes, int]:
    total = format_a_octets(data[0]) if data else FIRST_BLOCK_OCTETS
    _require(data, total)
    data_blocks: list[bytes] = []
    start, end = 0, FIRST_BLOCK_OCTETS + CRC_OCTETS
    while start < total:
        end = min(end, total)
        block = data[start : end - CRC_OCTETS]
        if not block or crc_en13757(block) != data[end - 2] << 8 | data[end - 1]:
            raise TelegramError(f"the CRC of the block at octet {start} misses: {data[start:end].hex()}")
        data_blocks.append(block)
        start, end = end, end + FORMAT_A_BLOCK_OCTETS + CRC_OCTETS
    return b"".join(data_blocks)[1:], total


def _strip_format_b(data: bytes) -> tuple[bytes, int]:
    total = data[0] + 1 if data else FIRST_BLOCK_OCTETS
    _require(data, total)
    end = min(total, FORMAT_B_FIRST_PART_OCTETS + CRC_OCTETS)
    content = _checked_block(data[:end], 0)
    if end < total:
        content += _checked_block(data[end:total], end)
    return content[1:], total


def _decode_wired(data: bytes) -> LinkFrame:
    _require(data, _WIRED_OVERHEAD + 3)
    length = data[1]
    total = length + _WIRED_OVERHEAD
    if len(data) < total:
        _require(data, total)
    body = bytes(data[4 : 4 + length])
    if data[0] != _WIRED_START or data[3] != _WIRED_START or data[2] != length or length < 3:  # noqa: PLR2004
        raise TelegramError(f"a wired long frame starts 68 L L 68, got {data[:4].hex()}")
    if data[total - 2] != sum(body) & 0xFF or data[total - 1] != _WIRED_STOP:
        raise TelegramError(
            f"a wired long frame should end {sum(body) & 0xFF:02x}16, got {data[total - 2 : total].hex()}"
        )
    return LinkFrame(body[0], None, body[2:], FrameFormat.WIRED, body[1], data[total:])


def _require(data: bytes, octets: int) -> None:
    if len(data) < octets or not data:
        raise TelegramError(f"the telegram is cut off: {octets} octets announced, {len(data)} came")


def _with_crc(block: bytes) -> bytes:
    return block + crc_en13757(block).to_bytes(2, "big")


def _crc_fits(block: bytes) -> bool:
    return crc_en13757(block[:-CRC_OCTETS]) == int.from_bytes(block[-CRC_OCTETS:], "big")


def _checked_block(block: bytes, offset: int) -> bytes:
    if len(block) <= CRC_OCTETS or not _crc_fits(block):
        raise TelegramError(f"the CRC of the block at octet {offset} misses: {block.hex()}")
    return bytes(block[:-CRC_OCTETS])


def _checked_length(length: int) -> int:
    if length > MAX_LENGTH_FIELD:
        raise WmbusUsageError(f"a telegram holds at most 255 octets after L, this one has {length}")
    return length
