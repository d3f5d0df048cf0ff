"""The little of BER that ACSE needs: tag, definite length, contents (ISO/IEC 8825-1)."""

from __future__ import annotations

from collections.abc import Iterator

from concentrator.dlms.errors import DecodeError, EncodeError


def encode(tag: int, contents: bytes) -> bytes:
    """One element with a tag of one octet."""
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    octets = (length.bit_length() + 7) // 8
    if octets > 4:
        raise EncodeError(f"{length} octets are too many for one element")
    return bytes((tag, 0x80 | octets)) + length.to_bytes(octets, "big") + contents


def encode_integer(value: int) -> bytes:
    """An INTEGER in its shortest form."""
    octets = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return encode(0x02, value.to_bytes(octets, "big", signed=True))


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that `data` consists of: tag and contents.

    Raises:
        DecodeError: a length that is indefinite, or runs over the end.
    """
    offset = 0
    end = len(data)
    while offset < end:
        tag = data[offset]
        if tag & 0x1F == 0x1F:
            raise DecodeError(f"tag {tag:#04x} has more than one octet")
        offset += 1
        if offset >= end:
            raise DecodeError(f"truncated: element {tag:#04x} has no length")
        length = data[offset]
        offset += 1
        if length >= 0x80:
            octets = length & 0x7F
            if not 1 <= octets <= 4 or offset + octets > end:
                raise DecodeError(f"element {tag:#04x} has a bad length")
            length = int.from_bytes(data[offset : offset + octets], "big")
            offset += octets
        if offset + length > end:
            raise DecodeError(f"truncated: element {tag:#04x} wants {length} octets, {end - offset} left")
        yield tag, data[offset : offset + length]
        offset += length


def single(data: bytes, tag: int) -> bytes:
    """The contents of the one element in `data`, which must have this tag.

    Raises:
        DecodeError: it is something else.
    """
    found = list(elements(data))
    if len(found) != 1 or found[0][0] != tag:
        raise DecodeError(f"one element {tag:#04x} expected in {data[:16].hex()}")
    return found[0][1]


def integer(data: bytes) -> int:
    """The value of a small INTEGER element."""
    contents = single(data, 0x02)
    if not 1 <= len(contents) <= 4:
        raise DecodeError(f"an INTEGER of {len(contents)} octets")
    return int.from_bytes(contents, "big", signed=True)
