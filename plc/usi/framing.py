"""USI frames: the serial envelope between a host and a Microchip (Atmel) PLC modem.

    7E | escaped( HDR0 HDR1 PAYLOAD CRC ) | 7E

Ten bits of payload length and six of protocol id make the header; for some protocols an eleventh bit
of the length travels in bit 7 of the first payload octet ("extended length"). Source: service/usi of
Microchip's smartenergy repository. There is no acknowledgement and no retransmission: a bad frame is dropped
without a word, on both sides.
"""

from plc.errors import LocalPlcError
from plc.usi.crc import crc, crc_size

PROTOCOL_MNGP_GET_QUERY = 0x00
PROTOCOL_MNGP_GET_RESPONSE = 0x01
PROTOCOL_MNGP_SET = 0x02
PROTOCOL_MNGP_RESET_STATISTICS = 0x03
PROTOCOL_MNGP_REBOOT = 0x04
PROTOCOL_MNGP_FIRMWARE_UPGRADE = 0x05
PROTOCOL_MNGP_LIST_QUERY = 0x06
PROTOCOL_MNGP_LIST_RESPONSE = 0x07
PROTOCOL_SNIFFER_PRIME = 0x13
PROTOCOL_PHY_PRIME = 0x1F
PROTOCOL_PHY_TESTER = 0x22
PROTOCOL_SNIFFER_G3 = 0x23
PROTOCOL_MAC_G3 = 0x24
PROTOCOL_ADP_G3 = 0x25
PROTOCOL_COORDINATOR_G3 = 0x26
PROTOCOL_PHY_MICROPLC = 0x27
PROTOCOL_PHY_RF215 = 0x28
PROTOCOL_PRIME_API = 0x30
PROTOCOL_METERS_AND_MORE = 0x31

# Protocols with extended length, by generation of the modem's firmware. Up to 1023 octets of payload
# the generations are the same on the wire.
EXTENDED_LENGTH_HARMONY = (
    PROTOCOL_ADP_G3,
    PROTOCOL_COORDINATOR_G3,
    PROTOCOL_PRIME_API,
    PROTOCOL_METERS_AND_MORE,
)
EXTENDED_LENGTH_2021 = (PROTOCOL_PRIME_API,)

LARGEST_PAYLOAD = 1023
LARGEST_EXTENDED_PAYLOAD = 2047

_FLAG = b"\x7e"
_ESCAPE = b"\x7d"
_ESCAPED_FLAG = b"\x7d\x5e"
_ESCAPED_ESCAPE = b"\x7d\x5d"
_HEADER_SIZE = 2
# Every octet of the largest frame may have been escaped.
_LARGEST_ESCAPED = 2 * (_HEADER_SIZE + LARGEST_EXTENDED_PAYLOAD + 4)


def encode_frame(
    protocol: int, payload: bytes, extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY
) -> bytes:
    """Wrap a payload into one frame, with its opening and its closing flag.

    `extended_length` names the protocols whose length has the eleventh bit. Raises LocalPlcError for a
    protocol id beyond 6 bits, a payload that is too long, or a command beyond 7 bits where bit 7 is a length
    bit.
    """
    if not 0 <= protocol <= 0x3F:
        raise LocalPlcError(f"a USI protocol id is 0..63, got {protocol}")
    length = len(payload)
    extended = protocol in extended_length
    if length > (LARGEST_EXTENDED_PAYLOAD if extended else LARGEST_PAYLOAD):
        raise LocalPlcError(f"a payload of {length} octets is too long for USI protocol 0x{protocol:02X}")
    if extended and length and payload[0] & 0x80:
        raise LocalPlcError(
            f"command 0x{payload[0]:02X} has no room beside the length bit of 0x{protocol:02X}"
        )
    if length > LARGEST_PAYLOAD:
        payload = bytes((payload[0] | 0x80,)) + payload[1:]
    body = bytes(((length >> 2) & 0xFF, (length & 3) << 6 | protocol)) + payload
    body += crc(protocol, body).to_bytes(crc_size(protocol), "big")
    # The escape itself first, or it would escape what it has just written.
    return _FLAG + body.replace(_ESCAPE, _ESCAPED_ESCAPE).replace(_FLAG, _ESCAPED_FLAG) + _FLAG


class FrameDecoder:
    """Finds the frames in a stream of octets, in any chunking.

    Looser than the modem's own receiver in one point: a flag may both close a frame and open the next, so
    that one lost flag costs one frame and not two. What is dropped is counted by its reason in `counters`.
    Memory is bounded to one frame beside the complete ones that next_frame() has not yet taken.
    """

    __slots__ = (
        "_after_good",
        "_discarding",
        "_extended_length",
        "_frames",
        "_open",
        "_position",
        "_tail",
        "counters",
    )

    def __init__(self, extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY) -> None:
        self._extended_length = extended_length
        self._frames: list[tuple[int, bytes]] = []
        self._position = 0  # of the next frame to hand out; cheaper than list.pop(0)
        self.counters: dict[str, int] = {
            "frames": 0,
            "bad_crc": 0,
            "bad_length": 0,
            "bad_escape": 0,
            "too_long": 0,
            "too_short": 0,
            "garbage_octets": 0,
        }
        self.reset()

    def reset(self) -> None:
        """Forget an incomplete frame: the port was reopened."""
        self._tail = bytearray()
        self._open = False  # a flag was seen
        self._after_good = False  # the last flag closed a good frame: what follows need not be a frame
        self._discarding = False  # the frame was too long: wait for the next flag

    def receive_data(self, data: bytes) -> None:
        """Take octets from the line; never raises."""
        if _FLAG not in data:
            self._collect(data)
            return
        pieces = bytes(data).split(_FLAG)
        self._collect(pieces[0])
        self._finish(bytes(self._tail))
        last = len(pieces) - 1
        for index in range(1, last):
            piece = pieces[index]
            if piece:
                if len(piece) > _LARGEST_ESCAPED:
                    self._collect(piece)
                    piece = b""
                self._finish(piece)
        self._tail = bytearray()
        self._collect(pieces[last])

    def next_frame(self) -> tuple[int, bytes] | None:
        """Give the oldest frame not yet taken as (protocol, payload), the length bit cleared; or None."""
        frames = self._frames
        if self._position >= len(frames):
            return None
        frame = frames[self._position]
        self._position += 1
        if self._position == len(frames):
            self._frames = []
            self._position = 0
        return frame

    def _collect(self, piece: bytes) -> None:
        if not self._open:
            self.counters["garbage_octets"] += len(piece)
        elif not self._discarding:
            if len(self._tail) + len(piece) > _LARGEST_ESCAPED:
                self.counters["too_long"] += 1
                self._discarding = True
                self._tail = bytearray()
            else:
                self._tail += piece

    def _finish(self, escaped: bytes) -> None:
        # A flag came after `escaped`.
        if self._discarding:
            self._discarding = False
            self._after_good = False
        elif escaped:
            reason = self._decode(escaped)
            if reason is None:
                self._after_good = True
            elif self._after_good:
                self.counters["garbage_octets"] += len(escaped)
                self._after_good = False
            else:
                self.counters[reason] += 1
        else:
            self._after_good = False
        self._open = True
        self._tail = bytearray()

    def _decode(self, body: bytes) -> str | None:
        if _ESCAPE in body:
            if body.count(_ESCAPE) != body.count(_ESCAPED_FLAG) + body.count(_ESCAPED_ESCAPE):
                return "bad_escape"
            body = body.replace(_ESCAPED_FLAG, _FLAG).replace(_ESCAPED_ESCAPE, _ESCAPE)
        if len(body) < _HEADER_SIZE:
            return "too_short"
        protocol = body[1] & 0x3F
        check_size = crc_size(protocol)
        end = len(body) - check_size
        if end < _HEADER_SIZE:
            return "too_short"
        length = body[0] << 2 | body[1] >> 6
        payload = body[_HEADER_SIZE:end]
        if payload and payload[0] & 0x80 and protocol in self._extended_length:
            length |= 0x400
            payload = bytes((payload[0] & 0x7F,)) + payload[1:]
        if len(payload) != length:
            return "bad_length"
        if crc(protocol, body[:end]) != int.from_bytes(body[end:], "big"):
            return "bad_crc"
        self.counters["frames"] += 1
        self._frames.append((protocol, payload))
        return None
