"""DLMS carried by M-Bus long frames, as consumer ports in Austria and Norway push it (EN 13757-3, IEC 62056-7-3).

A long frame is 68 L L 68, then C, A, CI, source and destination SAP, a part of the APDU, check sum, 16. CI 00 to 1F
says that it is such a part: bits 0 to 3 number it, bit 4 marks the last one. Some meters let L wrap: L of 01 is then
257.
"""

from __future__ import annotations

from dataclasses import dataclass

from concentrator.dlms.errors import DecodeError

START, STOP = 0x68, 0x16
LAST_SEGMENT = 0x10
LARGEST_CI = 0x1F
_HEADER = 4
_TRAILER = 2
_CONTENT_BEFORE_APDU = 5
_WRAP = 256


@dataclass(frozen=True, slots=True)
class MbusSegment:
    """One frame. `length` counts from C on; `content` are C, A, CI and what follows, without the check sum."""

    length: int
    content: bytes
    checksum_ok: bool
    stop_ok: bool

    @property
    def ci(self) -> int:
        """The CI-field."""
        return self.content[2]

    @property
    def carries_dlms(self) -> bool:
        """Whether its CI-field says that a part of an APDU follows."""
        return self.ci <= LARGEST_CI

    @property
    def part(self) -> bytes:
        """The part of the APDU."""
        return self.content[_CONTENT_BEFORE_APDU:]


def decode_segments(data: bytes) -> list[MbusSegment]:
    """Cut octets into long frames.

    Raises:
        DecodeError: they are none, or the last is cut off.
    """
    segments: list[MbusSegment] = []
    offset = 0
    while offset < len(data):
        header = data[offset : offset + _HEADER]
        if len(header) < _HEADER or header[0] != START or header[3] != START or header[1] != header[2]:
            raise DecodeError(f"no M-Bus long frame at octet {offset}: {header.hex()}")
        length = header[1]
        # L of 0 to 2 cannot hold C, A and CI: it wrapped.
        if length < 3:  # noqa: PLR2004 - C, A, CI
            length += _WRAP
        end = offset + _HEADER + length + _TRAILER
        if end > len(data):
            raise DecodeError(
                f"M-Bus frame cut off: {length} octets announced, {len(data) - offset - _HEADER} here"
            )
        content = data[offset + _HEADER : end - _TRAILER]
        checksum_ok = sum(content) & 0xFF == data[end - 2]
        segments.append(MbusSegment(length, content, checksum_ok, data[end - 1] == STOP))
        offset = end
    return segments


class SegmentAssembler:
    """Puts the parts of an APDU together; a part out of turn drops what was begun."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._next = 0

    def receive(self, segment: MbusSegment) -> bytes | None:
        """Take a frame; returns the whole APDU with its last part."""
        number = segment.ci & 0x0F
        if number != self._next:
            self._parts.clear()
            self._next = 0
            if number:
                return None
        self._parts += segment.part
        self._next = (number + 1) & 0x0F
        if not segment.ci & LAST_SEGMENT:
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        self._next = 0
        return whole
