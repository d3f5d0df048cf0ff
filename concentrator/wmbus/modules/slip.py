"""SLIP framing (RFC 1055), as the newer IMST modules have it on their serial port."""

from __future__ import annotations

END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE = 0xC0, 0xDB, 0xDC, 0xDD
_LONGEST_FRAME = 1024
_UNESCAPED = {ESCAPED_END: END, ESCAPED_ESCAPE: ESCAPE}


def encode_slip(content: bytes) -> bytes:
    """The octets on the line, an END on both sides."""
    escaped = content.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return bytes((END,)) + escaped + bytes((END,))


class SlipReader:
    """Cuts a byte stream into frames; one that grows too long or holds a wrong escape is dropped and counted."""

    def __init__(self) -> None:
        self._frame = bytearray()
        self._escaped = False
        self._broken = False
        self._frames: list[bytes] = []
        self.frames_dropped = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        for octet in data:
            self._take(octet)

    def next_frame(self) -> bytes | None:
        """The oldest frame, or None."""
        return self._frames.pop(0) if self._frames else None

    def _take(self, octet: int) -> None:
        if octet == END:
            if self._frame and not self._broken and not self._escaped:
                self._frames.append(bytes(self._frame))
            elif self._frame or self._broken:
                self.frames_dropped += 1
            self._frame.clear()
            self._escaped = self._broken = False
        elif self._escaped:
            self._escaped = False
            self._broken = self._broken or octet not in _UNESCAPED
            self._frame.append(_UNESCAPED.get(octet, octet))
        elif octet == ESCAPE:
            self._escaped = True
        else:
            self._frame.append(octet)
        if len(self._frame) > _LONGEST_FRAME:
            self._frame.clear()
            self._broken = True
