"""The link layer of wired M-Bus (EN 13757-2): acknowledgement, short, control and long frames, as a stream.

A control frame is a long frame with nothing behind its CI-field. Answers of several slaves at once overlap on the
line: what comes then is no frame, and `octets_skipped` counts it.
"""

from __future__ import annotations

from typing import NamedTuple

from concentrator.wmbus.errors import WmbusUsageError

ACKNOWLEDGEMENT = 0xE5
SHORT_START, LONG_START, STOP = 0x10, 0x68, 0x16
_SHORT_OCTETS = 5
_LONG_OVERHEAD = 6
_LEAST_LENGTH = 3
MOST_PAYLOAD_OCTETS = 253  # CI-field and user data

# C-fields, without the bits of frame count.
C_SND_NKE, C_SND_UD, C_REQ_UD1, C_REQ_UD2, C_RSP_UD = 0x40, 0x53, 0x5A, 0x5B, 0x08
FRAME_COUNT_BIT = 0x20

# Addresses with a meaning of their own.
ADDRESS_SELECTED, ADDRESS_ALL_WITH_ANSWER, ADDRESS_ALL = 0xFD, 0xFE, 0xFF
HIGHEST_PRIMARY_ADDRESS = 250


class Acknowledgement(NamedTuple):
    """One octet, E5."""

    def to_bytes(self) -> bytes:
        """The octet."""
        return bytes((ACKNOWLEDGEMENT,))


class ShortFrame(NamedTuple):
    """10 C A check 16."""

    c_field: int
    address: int

    def to_bytes(self) -> bytes:
        """The octets on the line."""
        check = (self.c_field + self.address) & 0xFF
        return bytes((SHORT_START, self.c_field, self.address, check, STOP))


class LongFrame(NamedTuple):
    """68 L L 68 C A CI ... check 16. `payload` starts with the CI-field."""

    c_field: int
    address: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """The octets on the line.

        Raises:
            WmbusUsageError: no CI-field, or more than 253 octets of payload.
        """
        if not 1 <= len(self.payload) <= MOST_PAYLOAD_OCTETS:
            raise WmbusUsageError(
                f"a long frame holds 1 to 253 octets of payload, this one {len(self.payload)}"
            )
        body = bytes((self.c_field, self.address)) + self.payload
        return bytes((LONG_START, len(body), len(body), LONG_START)) + body + bytes((sum(body) & 0xFF, STOP))


WiredFrame = Acknowledgement | ShortFrame | LongFrame


class WiredReader:
    """Cuts a byte stream into frames; what is no frame costs one octet at a time and is counted."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.octets_skipped = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        self._buffer += data

    def give_up_partial(self) -> None:
        """The line fell silent: what began is no frame; the octets behind its start may hold one."""
        if self._buffer:
            self._skip()

    def next_frame(self) -> WiredFrame | None:
        """The next frame, or None until more bytes came."""
        while self._buffer:
            taken = self._take()
            if taken is None:
                return None
            octets, frame = taken
            if frame is None:
                self._skip()
                continue
            del self._buffer[:octets]
            return frame
        return None

    def _skip(self) -> None:
        del self._buffer[:1]
        self.octets_skipped += 1

    def _take(self) -> tuple[int, WiredFrame | None] | None:
        """Octets and frame at the start; no frame there (None), or not complete (None as a whole)."""
        buffer = self._buffer
        if buffer[0] == ACKNOWLEDGEMENT:
            return 1, Acknowledgement()
        if buffer[0] == SHORT_START:
            if len(buffer) < _SHORT_OCTETS:
                return None
            good = buffer[4] == STOP and buffer[3] == (buffer[1] + buffer[2]) & 0xFF
            return _SHORT_OCTETS, ShortFrame(buffer[1], buffer[2]) if good else None
        if buffer[0] != LONG_START:
            return 1, None
        if len(buffer) < 4:  # noqa: PLR2004 - 68 L L 68
            return None
        length = buffer[1]
        if buffer[2] != length or buffer[3] != LONG_START or length < _LEAST_LENGTH:
            return 1, None
        total = length + _LONG_OVERHEAD
        if len(buffer) < total:
            return None
        body = bytes(buffer[4 : 4 + length])
        if buffer[total - 1] != STOP or buffer[total - 2] != sum(body) & 0xFF:
            return 1, None
        return total, LongFrame(body[0], body[1], body[2:])
