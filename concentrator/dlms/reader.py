"""A cursor over received octets that cannot run off their end."""

from __future__ import annotations

from concentrator.dlms.errors import DecodeError, EncodeError, TruncatedError
from concentrator.obis import Obis


class Reader:
    """Takes octets from the front of `data`; every shortage is a `DecodeError` that tells the position."""

    __slots__ = ("data", "end", "offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data)

    def octet(self) -> int:
        """One octet."""
        offset = self.offset
        if offset >= self.end:
            raise TruncatedError(f"truncated: an octet is missing at {offset}")
        self.offset = offset + 1
        return self.data[offset]

    def take(self, count: int) -> bytes:
        """The next `count` octets."""
        offset = self.offset
        stop = offset + count
        if stop > self.end:
            raise TruncatedError(f"truncated: {count} octets wanted at {offset}, {self.end - offset} left")
        self.offset = stop
        return self.data[offset:stop]

    def unsigned(self, octets: int) -> int:
        """A big-endian unsigned number."""
        offset = self.offset
        stop = offset + octets
        if stop > self.end:
            raise TruncatedError(f"truncated: {octets} octets wanted at {offset}, {self.end - offset} left")
        self.offset = stop
        return int.from_bytes(self.data[offset:stop], "big")

    def signed(self, octets: int) -> int:
        """A big-endian two's complement number."""
        return int.from_bytes(self.take(octets), "big", signed=True)

    def length(self) -> int:
        """An A-XDR length: one octet below 128, else 0x81..0x84 and that many octets."""
        first = self.octet()
        if first < 0x80:
            return first
        octets = first & 0x7F
        if not 1 <= octets <= 4:
            raise DecodeError(f"length octet {first:#04x} at {self.offset - 1} is not 0x81 to 0x84")
        return self.unsigned(octets)

    def octet_string(self) -> bytes:
        """A length and that many octets."""
        data, offset = self.data, self.offset
        # Most lengths are one octet, or 0x82 and two.
        if offset + 3 <= self.end and (data[offset] < 0x80 or data[offset] == 0x82):
            start = offset + 1 if data[offset] < 0x80 else offset + 3
            stop = start + (data[offset] if data[offset] < 0x80 else data[offset + 1] << 8 | data[offset + 2])
            if stop <= self.end:
                self.offset = stop
                return data[start:stop]
        return self.take(self.length())

    def flag(self) -> bool:
        """The presence octet of an OPTIONAL, or a BOOLEAN: zero is false."""
        return self.octet() != 0

    def obis(self) -> Obis:
        """A logical name."""
        return Obis(*self.take(6))

    def rest(self) -> bytes:
        """All that is left."""
        data = self.data[self.offset : self.end]
        self.offset = self.end
        return data

    def finish(self, what: str) -> None:
        """Check that nothing is left.

        Raises:
            DecodeError: octets follow the end of `what`.
        """
        if self.offset != self.end:
            raise DecodeError(f"{self.end - self.offset} octets too many after {what} at {self.offset}")


def encode_length(length: int) -> bytes:
    """An A-XDR length, in its shortest form."""
    if length < 0x80:
        return bytes((length,))
    if length > 0xFFFFFFFF:
        raise EncodeError(f"a length of {length} octets does not fit an A-XDR length")
    octets = (length.bit_length() + 7) // 8
    return bytes((0x80 | octets,)) + length.to_bytes(octets, "big")


def encode_octet_string(data: bytes) -> bytes:
    """A length and the octets."""
    return encode_length(len(data)) + data
