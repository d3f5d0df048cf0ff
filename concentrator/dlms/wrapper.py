"""The WRAPPER of DLMS over TCP and UDP (IEC 62056-47, Green Book 7.3.3.2): version, two ports, length.

On TCP the stream is cut anywhere; on UDP one datagram is one wrapper.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from concentrator.dlms.errors import DecodeError, EncodeError

PORT = 4059
VERSION = 1
HEADER_LENGTH = 8
_HEADER = struct.Struct(">HHHH")


class WrapperFrame(NamedTuple):
    """One APDU and its wPorts: the client's is its client SAP, the server's its logical device."""

    source: int
    destination: int
    apdu: bytes

    def to_bytes(self) -> bytes:
        """Header and APDU.

        Raises:
            EncodeError: the APDU is empty or longer than 65535 octets.
        """
        if not 0 < len(self.apdu) <= 0xFFFF:
            raise EncodeError(f"a wrapper carries 1 to 65535 octets, not {len(self.apdu)}")
        return _HEADER.pack(VERSION, self.source, self.destination, len(self.apdu)) + self.apdu

    @classmethod
    def from_bytes(cls, datagram: bytes) -> WrapperFrame:
        """Decode one whole UDP datagram.

        Raises:
            DecodeError: it is no wrapper, or its length is another.
        """
        if len(datagram) < HEADER_LENGTH:
            raise DecodeError(f"a wrapper has a header of 8 octets, got {len(datagram)}")
        version, source, destination, length = _HEADER.unpack_from(datagram)
        _check(version, length)
        if length != len(datagram) - HEADER_LENGTH:
            raise DecodeError(f"wrapper length {length}, but {len(datagram) - HEADER_LENGTH} octets follow")
        return cls(source, destination, datagram[HEADER_LENGTH:])


def _check(version: int, length: int) -> None:
    if version != VERSION:
        raise DecodeError(f"wrapper version {version}: this is no DLMS over TCP")
    if length == 0:
        raise DecodeError("a wrapper without APDU")


class WrapperDecoder:
    """Cuts a TCP stream into frames. After an error the stream cannot be trusted: close the connection.

    `limit` bounds the length of one APDU, so that a peer cannot make us wait for what nobody agreed on.
    """

    def __init__(self, limit: int = 0xFFFF) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Take what came from the connection."""
        self._buffer += data

    @property
    def pending(self) -> bytes:
        """What is no whole frame yet."""
        return bytes(self._buffer)

    def next_event(self) -> WrapperFrame | None:
        """The next whole frame, or None until more data came.

        Raises:
            DecodeError: this is no stream of wrappers, or an APDU is longer than the limit.
        """
        buffer = self._buffer
        if len(buffer) < HEADER_LENGTH:
            return None
        version, source, destination, length = _HEADER.unpack_from(buffer)
        _check(version, length)
        if length > self._limit:
            raise DecodeError(f"wrapper length {length} is above the limit of {self._limit}")
        end = HEADER_LENGTH + length
        if len(buffer) < end:
            return None
        apdu = bytes(buffer[HEADER_LENGTH:end])
        del buffer[:end]
        return WrapperFrame(source, destination, apdu)
