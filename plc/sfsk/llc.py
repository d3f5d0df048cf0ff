"""The logical link control of S-FSK (IEC 61334-4-32): control octet, destination and source LSAP, data.

Connectionless and unacknowledged; there is no segmentation: what does not fit a MAC frame is the application layer's
to cut. The LSAPs of COSEM are the logical device and the client SAP, those of the system management (CIASE) are
fixed.
"""

from plc.errors import LocalPlcError, MessageError
from plc.sfsk.mac import LARGEST_SDU

UNNUMBERED_DATA = 0x90
CIASE_CLIENT_LSAP = 0x00
CIASE_SERVER_LSAP = 0xFD
ALL_LSAPS = 0xFF
_HEADER_SIZE = 3
LARGEST_DATA = LARGEST_SDU - _HEADER_SIZE


def encode_llc(destination_lsap: int, source_lsap: int, data: bytes) -> bytes:
    """One LPDU. Raises LocalPlcError for an LSAP of more than 8 bits or too much data."""
    if not (0 <= destination_lsap <= 0xFF and 0 <= source_lsap <= 0xFF):
        raise LocalPlcError(f"an LSAP has 8 bits, got {destination_lsap} and {source_lsap}")
    if len(data) > LARGEST_DATA:
        raise LocalPlcError(f"S-FSK carries APDUs of at most {LARGEST_DATA} octets, got {len(data)}")
    return bytes((UNNUMBERED_DATA, destination_lsap, source_lsap)) + data


def decode_llc(octets: bytes) -> "tuple[int, int, bytes]":
    """Take an LPDU apart into destination LSAP, source LSAP and data. Raises MessageError."""
    if len(octets) < _HEADER_SIZE or octets[0] != UNNUMBERED_DATA:
        raise MessageError(f"{len(octets)} octets are no LPDU of IEC 61334-4-32")
    return octets[1], octets[2], octets[_HEADER_SIZE:]
