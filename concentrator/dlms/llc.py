"""The LLC header of power-line profiles without HDLC (IEC 61334-4-32): S-FSK, and PRIME's 4-32 convergence layer.

Control octet, destination and source LSAP, then one APDU: connectionless, unacknowledged, one frame to one
APDU. The client's LSAP is its SAP, the meter's that of its logical device. Where a modem keeps this layer to
itself, as PRIME base nodes do, the LSAPs are arguments of its own messages instead.
"""

from __future__ import annotations

from typing import NamedTuple

from concentrator.dlms.errors import DecodeError, EncodeError

# DL_Data: an unnumbered frame that wants no answer of the LLC's own.
_CONTROL = 0x90
HEADER_LENGTH = 3
# LSAP of the system management (CIASE), which discovers and registers S-FSK devices; no COSEM.
SYSTEM_MANAGEMENT = 0x00
ALL_LSAPS = 0xFF


class LlcFrame(NamedTuple):
    """One frame: where to, where from, and the APDU."""

    destination: int
    source: int
    apdu: bytes

    @classmethod
    def from_bytes(cls, octets: bytes) -> LlcFrame:
        """Decode one whole frame.

        Raises:
            DecodeError: it is too short, or no data frame.
        """
        if len(octets) < HEADER_LENGTH:
            raise DecodeError(f"an LLC frame has a header of 3 octets, got {len(octets)}")
        if octets[0] != _CONTROL:
            raise DecodeError(f"LLC control {octets[0]:#04x} is no data frame ({_CONTROL:#04x})")
        return cls(octets[1], octets[2], octets[HEADER_LENGTH:])

    def to_bytes(self) -> bytes:
        """The whole frame. Raises EncodeError."""
        if not (0 <= self.destination <= 0xFF and 0 <= self.source <= 0xFF):
            raise EncodeError(f"LSAPs have one octet: {self.destination}, {self.source}")
        return bytes((_CONTROL, self.destination, self.source)) + self.apdu

    def reply(self, apdu: bytes) -> LlcFrame:
        """The frame that answers this one."""
        return LlcFrame(self.source, self.destination, apdu)
