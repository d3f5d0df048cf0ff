"""The framing of the IMST WMBus HCI (iM871A, iM170A): A5, control and endpoint, message, length, payload.

The high nibble of the second octet says what follows the payload: a time stamp of the module (4 octets,
low first), an RSSI octet, a check sum (CRC-16 of X.25, low first, over all after the A5). The low nibble
is the endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from concentrator.wmbus.errors import WmbusUsageError

START = 0xA5
HEADER_OCTETS = 4
MAX_PAYLOAD = 255
ENDPOINT_DEVICE = 0x1
ENDPOINT_RADIO_LINK = 0x2
ENDPOINT_RADIO_TEST = 0x3
ENDPOINT_HARDWARE_TEST = 0x4
_ENDPOINTS = (ENDPOINT_DEVICE, ENDPOINT_RADIO_LINK, ENDPOINT_RADIO_TEST, ENDPOINT_HARDWARE_TEST)

_HAS_TIMESTAMP = 0x2
_HAS_RSSI = 0x4
_HAS_CHECK = 0x8
_RESERVED_CONTROL = 0x1
_TIMESTAMP_OCTETS = 4
_CHECK_OCTETS = 2

# Device management messages (endpoint 1): an answer has the number of its request plus one.
PING = 0x01
SET_CONFIG = 0x03
GET_CONFIG = 0x05
RESET = 0x07
GET_DEVICE_INFO = 0x0F
# Radio link messages (endpoint 2).
RADIO_SEND_REQUEST, RADIO_SEND_RESPONSE = 0x01, 0x02
RADIO_MESSAGE_INDICATION = 0x03

# The module's RSSI octet is no dBm: a straight line through the radio chip's curve.
_RSSI_LOW, _DBM_LOW = 45, -100
_RSSI_STEPS, _DBM_STEPS = 160, 80
_RSSI_CLIPPED = 230


@dataclass(frozen=True, slots=True)
class HciMessage:
    """One message in either direction; `timestamp` and `rssi` are raw, None where they were not sent."""

    endpoint: int
    message: int
    payload: bytes = b""
    timestamp: int | None = None
    rssi: int | None = None

    @property
    def rssi_dbm(self) -> int | None:
        """The strength of reception in dBm, to a few dB."""
        if self.rssi is None:
            return None
        if self.rssi >= _RSSI_CLIPPED:
            return 0
        return _DBM_LOW + round((self.rssi - _RSSI_LOW) * _DBM_STEPS / _RSSI_STEPS)

    def to_bytes(self, *, check: bool = False) -> bytes:
        """The octets on the line, with a check sum if wanted.

        Raises:
            WmbusUsageError: the payload has more than 255 octets.
        """
        if len(self.payload) > MAX_PAYLOAD:
            raise WmbusUsageError(f"an HCI message carries at most 255 octets, got {len(self.payload)}")
        control = (
            (_HAS_TIMESTAMP if self.timestamp is not None else 0)
            | (_HAS_RSSI if self.rssi is not None else 0)
            | (_HAS_CHECK if check else 0)
        )
        octets = bytes((control << 4 | self.endpoint, self.message, len(self.payload))) + self.payload
        if self.timestamp is not None:
            octets += self.timestamp.to_bytes(_TIMESTAMP_OCTETS, "little")
        if self.rssi is not None:
            octets += bytes((self.rssi,))
        if check:
            octets += crc_x25(octets).to_bytes(_CHECK_OCTETS, "little")
        return bytes((START,)) + octets


def crc_x25(data: bytes) -> int:
    """CRC-16 with polynomial 0x1021 reflected, start FFFF, complemented."""
    remainder = 0xFFFF
    for octet in data:
        remainder ^= octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x8408 if remainder & 1 else 0)
    return remainder ^ 0xFFFF


class HciReader:
    """Cuts a byte stream into messages, and finds the next start after anything else.

    An A5 may also be a stray octet or belong to a telegram. A header that cannot be one, or a check sum
    that misses, costs only that A5: reading goes on behind it, so that no good message is lost with it.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.octets_skipped = 0
        self.checks_missed = 0

    @property
    def partial(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        self._buffer += data

    def give_up_partial(self) -> None:
        """The rest of a begun message did not come in time: go on behind its A5."""
        if self._buffer:
            self._skip(1)

    def next_message(self) -> HciMessage | None:
        """Give the next complete message, or None until more bytes came."""
        while True:
            start = self._buffer.find(START)
            if start < 0:
                self._skip(len(self._buffer))
                return None
            if start:
                self._skip(start)
            if len(self._buffer) < 2:  # noqa: PLR2004 - control and endpoint come second
                return None
            control, endpoint = self._buffer[1] >> 4, self._buffer[1] & 0x0F
            if endpoint not in _ENDPOINTS or control & _RESERVED_CONTROL:
                self._skip(1)
                continue
            if len(self._buffer) < HEADER_OCTETS:
                return None
            tail = (
                (_TIMESTAMP_OCTETS if control & _HAS_TIMESTAMP else 0)
                + (1 if control & _HAS_RSSI else 0)
                + (_CHECK_OCTETS if control & _HAS_CHECK else 0)
            )
            total = HEADER_OCTETS + self._buffer[3] + tail
            if len(self._buffer) < total:
                return None
            octets = bytes(self._buffer[:total])
            if control & _HAS_CHECK and crc_x25(octets[1:-2]) != int.from_bytes(octets[-2:], "little"):
                self.checks_missed += 1
                self._skip(1)
                continue
            del self._buffer[:total]
            return _parse(octets, control, endpoint)

    def _skip(self, octets: int) -> None:
        self.octets_skipped += octets
        del self._buffer[:octets]


def _parse(octets: bytes, control: int, endpoint: int) -> HciMessage:
    at = HEADER_OCTETS + octets[3]
    timestamp = rssi = None
    if control & _HAS_TIMESTAMP:
        timestamp = int.from_bytes(octets[at : at + _TIMESTAMP_OCTETS], "little")
        at += _TIMESTAMP_OCTETS
    if control & _HAS_RSSI:
        rssi = octets[at]
    return HciMessage(endpoint, octets[2], octets[HEADER_OCTETS : HEADER_OCTETS + octets[3]], timestamp, rssi)
