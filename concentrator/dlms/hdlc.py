"""HDLC frames of DLMS (IEC 62056-46, ISO/IEC 13239 frame format type 3): encode, decode, find in a stream.

A frame is delimited by its length, not by its flags: 7E within is data, and nothing is stuffed. The
state machines of a connection are in `hdlc_link.py`.
"""

from __future__ import annotations

import enum
from binascii import crc_hqx
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

from concentrator.dlms.errors import DecodeError, EncodeError

FLAG = 0x7E
_FLAG_OCTET = b"\x7e"
LLC_COMMAND = b"\xe6\xe6\x00"
LLC_RESPONSE = b"\xe6\xe7\x00"
# Format type 3 in the top nibble, segmentation bit, 11 bits of length.
_TYPE_3 = 0xA000
_SEGMENTED = 0x0800
_LENGTH_MASK = 0x07FF
_SHORTEST = 7
_GOOD_REMAINDER = 0x1D0F
_REVERSED = bytes(int(f"{octet:08b}"[::-1], 2) for octet in range(256))


def check_sequence(data: bytes) -> bytes:
    """The two octets of an HCS or FCS: CRC-16/X-25, least octet first."""
    # X-25 shifts right where crc_hqx shifts left: feed it mirrored octets, and mirror what comes.
    crc = crc_hqx(data.translate(_REVERSED), 0xFFFF) ^ 0xFFFF
    return bytes((_REVERSED[crc >> 8], _REVERSED[crc & 0xFF]))


class HdlcError(DecodeError):
    """Octets that are no HDLC frame."""


class FrameType(enum.Enum):
    """What the control field says, apart from its numbers and the poll/final bit (0x10)."""

    I = 0x00  # noqa: E741 - the standard's name
    RR = 0x01
    RNR = 0x05
    REJ = 0x09
    UI = 0x03
    DM = 0x0F
    SNRM = 0x83
    DISC = 0x43
    UA = 0x63
    FRMR = 0x87


_FRAME_TYPES = {kind.value: kind for kind in FrameType}


class HdlcAddress(NamedTuple):
    """An address: upper (logical device or client) and lower (physical device); `size` octets on the line."""

    upper: int
    lower: int | None = None
    size: int = 1

    @classmethod
    def client(cls, sap: int) -> HdlcAddress:
        """A client's address: one octet."""
        return cls(sap)

    @classmethod
    def server(cls, logical: int, physical: int | None = None, size: int | None = None) -> HdlcAddress:
        """A server's address; two or four octets where there is a physical device address."""
        if size is None:
            size = 1 if physical is None else 4 if max(logical, physical) > 0x7F else 2
        return cls(logical, physical if size > 1 else None, size)

    @classmethod
    def all_stations(cls, size: int = 1) -> HdlcAddress:
        """The address that every device with addresses of this size listens to (IEC 62056-46, 6.4.2.3)."""
        part = 0x3FFF if size == 4 else 0x7F
        return cls(part, None if size == 1 else part, size)

    @property
    def is_broadcast(self) -> bool:
        """Whether it is for all stations."""
        return self == self.all_stations(self.size)

    def to_bytes(self) -> bytes:
        """The octets, the last with its lowest bit set.

        Raises:
            EncodeError: a part does not fit.
        """
        bits = 14 if self.size == 4 else 7
        parts = (self.upper,) if self.size == 1 else (self.upper, self.lower or 0)
        if any(part >> bits for part in parts) or self.size not in (1, 2, 4):
            raise EncodeError(f"{self} does not fit {self.size} octets")
        octets = bytearray()
        for part in parts:
            if bits == 14:
                octets.append(part >> 7 << 1)
            octets.append((part & 0x7F) << 1)
        octets[-1] |= 1
        return bytes(octets)

    @classmethod
    @lru_cache(maxsize=256)
    def from_bytes(cls, octets: bytes) -> HdlcAddress:
        """The address of 1, 2 or 4 octets."""
        parts = [octet >> 1 for octet in octets]
        if len(parts) == 1:
            return cls(parts[0])
        if len(parts) == 2:
            return cls(parts[0], parts[1], 2)
        if len(parts) != 4:
            raise HdlcError(f"an HDLC address has 1, 2 or 4 octets, got {len(parts)}")
        return cls(parts[0] << 7 | parts[1], parts[2] << 7 | parts[3], 4)


class HdlcFrame(NamedTuple):
    """One frame. `send` and `receive` are N(S) and N(R), where the type has them."""

    destination: HdlcAddress
    source: HdlcAddress
    type: FrameType
    poll_final: bool = True
    send: int = 0
    receive: int = 0
    segmented: bool = False
    information: bytes = b""

    @property
    def control(self) -> int:
        """The control octet."""
        control = self.type.value | self.poll_final << 4
        if self.type == FrameType.I:
            return control | (self.send & 7) << 1 | (self.receive & 7) << 5
        if self.type in (FrameType.RR, FrameType.RNR, FrameType.REJ):
            return control | (self.receive & 7) << 5
        return control

    def to_bytes(self) -> bytes:
        """The frame between its two flags.

        Raises:
            EncodeError: it would be longer than 2047 octets.
        """
        addresses = self.destination.to_bytes() + self.source.to_bytes()
        length = 2 + len(addresses) + 1 + 2 + (len(self.information) + 2 if self.information else 0)
        if length > _LENGTH_MASK:
            raise EncodeError(f"a frame has at most {_LENGTH_MASK} octets, not {length}")
        head = (_TYPE_3 | (_SEGMENTED if self.segmented else 0) | length).to_bytes(2, "big")
        head += addresses + bytes((self.control,))
        body = head + check_sequence(head)
        if self.information:
            body += self.information
            body += check_sequence(body)
        return b"\x7e" + body + b"\x7e"

    @classmethod
    def from_bytes(cls, data: bytes) -> HdlcFrame:
        """Decode one frame with both flags. Raises HdlcError."""
        if len(data) < _SHORTEST + 2 or data[0] != FLAG or data[-1] != FLAG:
            raise HdlcError(f"{len(data)} octets are no frame between flags")
        return decode_body(data[1:-1])


def _address_size(data: bytes, offset: int) -> int:
    """How many octets the address at `offset` has: up to the first whose lowest bit is set."""
    for size in (1, 2, 3, 4):
        if offset + size <= len(data) and data[offset + size - 1] & 1:
            if size == 3:
                break
            return size
    raise HdlcError(f"no address of 1, 2 or 4 octets at {offset}")


# What the class itself does, without a step of Python for the arguments.
_new_frame = cast(
    "Callable[[type[HdlcFrame], tuple[object, ...]], HdlcFrame]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType]
)


def decode_body(body: bytes) -> HdlcFrame:
    """Decode what stands between the flags.

    Raises:
        HdlcError: another format type, another length, or a check sequence that does not fit.
    """
    if len(body) < _SHORTEST:
        raise HdlcError(f"{len(body)} octets between flags are too few for a frame")
    head = body[0] << 8 | body[1]
    if head & 0xF000 != _TYPE_3:
        raise HdlcError(f"frame format {head:#06x} is not type 3")
    if head & _LENGTH_MASK != len(body):
        raise HdlcError(f"frame length {head & _LENGTH_MASK}, but {len(body)} octets are here")
    return _decode_whole(body)


def _decode_whole(body: bytes) -> HdlcFrame:
    """Decode a body whose format and length were found right. Raises HdlcError."""
    # Over a body with its own FCS the remainder is always the same.
    if crc_hqx(body.translate(_REVERSED), 0xFFFF) != _GOOD_REMAINDER:
        raise HdlcError(f"FCS {body[-2:].hex()} does not fit, {check_sequence(body[:-2]).hex()} would")
    # One octet is the usual size of an address.
    at = 3 if body[2] & 1 else 2 + _address_size(body, 2)
    at += 4 if body[at] & 1 else 3 + _address_size(body, at)
    size = len(body)
    if at < size - 1:
        return _new_frame(HdlcFrame, (*_checked_header(body[:at]), body[at:-2]))
    if at == size:
        return _new_frame(HdlcFrame, (*_parse_header(body[:-2]), b""))
    raise HdlcError("the frame ends within its header")


def decode_damaged(data: bytes) -> HdlcFrame:
    """What can be told of a frame that is cut off or fails its check, from its first flag on; nothing in it is sure.

    Raises:
        HdlcError: not even its header is there.
    """
    body = data[1:] if data[:1] == _FLAG_OCTET else data
    if len(body) < _SHORTEST - 2 or body[0] & 0xF0 != _TYPE_3 >> 8:
        raise HdlcError("the frame ends before its control field")
    at = 2 + _address_size(body, 2)
    at += _address_size(body, at)
    if at >= len(body):
        raise HdlcError("the frame ends before its control field")
    header = _parse_header(body[: at + 1])
    length = (body[0] << 8 | body[1]) & _LENGTH_MASK
    # A whole frame ends with its FCS and a flag; one that is cut off with whatever came.
    return HdlcFrame(*header, body[at + 3 : length - 2])


_Header: TypeAlias = "tuple[HdlcAddress, HdlcAddress, FrameType, bool, int, int, bool]"


# The frames of one connection have a few different headers only.
@lru_cache(maxsize=512)
def _checked_header(octets: bytes) -> _Header:
    """The header, from frame format to HCS. Raises HdlcError."""
    if crc_hqx(octets.translate(_REVERSED), 0xFFFF) != _GOOD_REMAINDER:
        raise HdlcError(f"HCS {octets[-2:].hex()} does not fit")
    return _parse_header(octets[:-2])


def _parse_header(octets: bytes) -> _Header:
    """Frame format, addresses and control. Raises HdlcError."""
    destination = HdlcAddress.from_bytes(octets[2 : 2 + _address_size(octets, 2)])
    source = HdlcAddress.from_bytes(octets[2 + destination.size : -1])
    kind, send, receive = _parse_control(octets[-1])
    segmented = bool(octets[0] << 8 & _SEGMENTED)
    return destination, source, kind, bool(octets[-1] & 0x10), send, receive, segmented


def _parse_control(control: int) -> tuple[FrameType, int, int]:
    if not control & 1:
        return FrameType.I, control >> 1 & 7, control >> 5
    if control & 3 == 1:
        kind, receive = control & 0x0F, control >> 5
    else:
        kind, receive = control & 0xEF, 0
    found = _FRAME_TYPES.get(kind)
    if found is None:
        raise HdlcError(f"control field {control:#04x} is none of IEC 62056-46")
    return found, 0, receive


def _next_flag(data: bytes, at: int) -> int:
    """Where the next flag stands, from `at` on; behind the data where there is none."""
    start = data.find(_FLAG_OCTET, at)
    return len(data) if start < 0 else start


class HdlcDecoder:
    """Finds frames in a stream of octets, whatever their chunks; skips what is none.

    `dropped_octets` counts what lay between frames, `bad_frames` what looked like a frame and
    failed its check; `last_error` is why the last one did.
    """

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self.dropped_octets = 0
        self.bad_frames = 0
        self.last_error = ""

    def receive_data(self, data: bytes) -> None:
        """Take what came from the line."""
        self._data = self._data[self._at :] + data
        self._at = 0

    @property
    def pending(self) -> int:
        """Octets that are no whole frame yet."""
        return len(self._data) - self._at

    def next_event(self) -> HdlcFrame | None:
        """The next good frame, or None until more data came."""
        data, at = self._data, self._at
        size = len(data)
        while size - at >= 3:
            head = data[at + 1] << 8 | data[at + 2]
            length = head & _LENGTH_MASK
            if data[at] != FLAG or head & 0xF000 != _TYPE_3 or length < _SHORTEST:
                # Two flags between frames are usual; anything else is a flag within data, or noise.
                start = _next_flag(data, at + 1)
                self.dropped_octets += start - at - (data[at] == FLAG == data[at + 1])
                at = start
                continue
            end = at + length + 1
            if end >= size:
                break
            try:
                if data[end] != FLAG:
                    raise HdlcError(f"no flag after the {length} octets of a frame")
                frame = _decode_whole(data[at + 1 : end])
            except HdlcError as error:
                self.bad_frames += 1
                self.last_error = str(error)
                # The flag was none, or the frame is spoilt: what follows may hold the next one.
                start = _next_flag(data, at + 1)
                self.dropped_octets += start - at - 1
                at = start
                continue
            # The closing flag may open the next frame.
            self._at = end
            return frame
        start = _next_flag(data, at)
        self.dropped_octets += start - at
        self._at = start
        return None


class Reassembler:
    """Puts the information fields of segmented frames together to APDUs, without their LLC header.

    One per direction. `limit` bounds an APDU; `broken` counts those whose segments were lost.
    """

    def __init__(self, limit: int = 0x20000) -> None:
        self._limit = limit
        self._parts = bytearray()
        self._open = False
        self.broken = 0

    def receive_frame(self, frame: HdlcFrame) -> bytes | None:
        """Take an I or UI frame; gives the APDU that it completes."""
        information = frame.information
        fresh = information[:3] in (LLC_COMMAND, LLC_RESPONSE)
        if fresh and self._open and frame.type == FrameType.UI:
            self.broken += 1
            self.reset()
        if not self._open:
            self._parts = bytearray(information[3:] if fresh else information)
        else:
            self._parts += information
        self._open = frame.segmented
        if len(self._parts) > self._limit:
            self.broken += 1
            self.reset()
            return None
        if self._open:
            return None
        apdu = bytes(self._parts)
        self._parts = bytearray()
        return apdu or None

    def reset(self) -> None:
        """Forget the segments so far."""
        self._parts = bytearray()
        self._open = False
