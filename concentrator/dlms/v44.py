"""Compression of APDUs by ITU-T V.44 (11/2000), packet method of its annex B.1 (Green Book 9.2.3).

Characters go as ordinals, strings met before as codewords, and after a codeword may come how many characters
more match (string-extension length). Both ends make the same new strings from each code and the one before it
(6.4, table 2), so no dictionary is sent. Each APDU is one packet: it starts with an empty dictionary and ends with
FLUSH. Nothing carries over, and no parameter is negotiated: those of the packet method hold (B.1.2).

Not done: the stream method, REINIT, and transparent mode but for a packet that goes as it is (ETM first).
"""

from __future__ import annotations

from concentrator.dlms.errors import DecodeError

# N2: number of codewords, those of the control codes included. N7: length of the longest string.
MAX_CODEWORDS = 1525
MAX_STRING = 255
DEFAULT_LIMIT = 0x100000

# Control codes (table 8); the first codeword follows them (N5).
_ETM, _FLUSH, _STEPUP, _FIRST_CODEWORD = 0, 1, 2, 4
_CODEWORD_BITS = 6
_MAX_CODEWORD_BITS = (MAX_CODEWORDS - 1).bit_length()
_ORDINAL_BITS, _MAX_ORDINAL_BITS = 7, 8
# Prefix and ETM in six bits, and a bit of filling.
_AS_IT_IS = b"\x01"
# How many strings with the same beginning are looked at.
_CANDIDATES = 48


class _Strings:
    """The strings that both ends have made so far: each has its end in the history, and a length."""

    def __init__(self) -> None:
        self._known: list[tuple[int, int]] = []
        # Length of what the last code stood for; 0 where the next code makes no string from it.
        self._last = 0

    def before(self, position: int) -> int | None:
        """An ordinal or codeword stands at `position`: with its first character the last string grows by one.

        Gives the codeword of the new string.
        """
        return self._make(position + 1, self._last + 1) if self._last else None

    def after_ordinal(self) -> None:
        """The code was an ordinal."""
        self._last = 1

    def after_codeword(self, codeword: int) -> tuple[int, int]:
        """The code was this codeword; gives the start and end of its string. Raises DecodeError."""
        index = codeword - _FIRST_CODEWORD
        if index >= len(self._known):
            raise DecodeError(f"V.44: codeword {codeword} stands for no string yet")
        end, self._last = self._known[index]
        return end - self._last, end

    def after_extension(self, end: int, octets: int) -> int | None:
        """The string of the codeword before was extended by so many octets, up to `end`."""
        length, self._last = self._last + octets, 0
        return self._make(end, length)

    def _make(self, end: int, length: int) -> int | None:
        codeword = _FIRST_CODEWORD + len(self._known)
        if codeword >= MAX_CODEWORDS or length > MAX_STRING:
            return None
        self._known.append((end, length))
        return codeword

    def text(self, codeword: int) -> tuple[int, int]:
        """Start and end of a string."""
        end, length = self._known[codeword - _FIRST_CODEWORD]
        return end - length, end


class _Writer:
    """Codes into octets, the lowest bit first (6.6)."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._pending = 0
        self._count = 0
        self._codeword_bits = _CODEWORD_BITS
        self._ordinal_bits = _ORDINAL_BITS
        self._after_codeword = False

    def _bits(self, value: int, count: int) -> None:
        self._pending |= value << self._count
        self._count += count
        while self._count >= 8:
            self._out.append(self._pending & 0xFF)
            self._pending >>= 8
            self._count -= 8

    def control(self, code: int) -> None:
        self._bits(1, 1)
        self._bits(code, self._codeword_bits)
        self._after_codeword = False

    def ordinal(self, character: int) -> None:
        if character >> self._ordinal_bits:
            self.control(_STEPUP)
            self._ordinal_bits = _MAX_ORDINAL_BITS
        # After a codeword a second bit tells it from an extension.
        self._bits(0, 2 if self._after_codeword else 1)
        self._bits(character, self._ordinal_bits)
        self._after_codeword = False

    def codeword(self, codeword: int) -> None:
        while codeword >> self._codeword_bits:
            self.control(_STEPUP)
            self._codeword_bits += 1
        self._bits(1, 1)
        self._bits(codeword, self._codeword_bits)
        self._after_codeword = True

    def extension(self, length: int) -> None:
        self._bits(0b10, 2)
        # Tables 3 and 4, for strings of up to 255 characters.
        if length == 1:
            self._bits(1, 1)
        elif length <= 4:
            self._bits((length - 1) << 1, 3)
        elif length <= 12:
            self._bits((length - 5) << 4, 7)
        else:
            self._bits(0b1000 | (length - 13) << 4, 12)
        self._after_codeword = False

    def finish(self) -> bytes:
        self.control(_FLUSH)
        if self._count:
            self._out.append(self._pending)
        return bytes(self._out)


def compress(octets: bytes) -> bytes:
    """One packet. What does not get shorter goes as it is, one octet longer."""
    packet = _compressed(octets)
    return packet if len(packet) <= len(octets) else _AS_IT_IS + octets


def _compressed(octets: bytes) -> bytes:
    strings, out = _Strings(), _Writer()
    by_beginning: dict[bytes, list[int]] = {}

    def remember(codeword: int | None) -> None:
        if codeword is not None:
            start, _ = strings.text(codeword)
            by_beginning.setdefault(octets[start : start + 2], []).append(codeword)

    position, end = 0, len(octets)
    while position < end:
        remember(strings.before(position))
        best = more = length = 0
        for codeword in by_beginning.get(octets[position : position + 2], ())[-_CANDIDATES:]:
            start, stop = strings.text(codeword)
            if not octets.startswith(octets[start:stop], position):
                continue
            matched = _common(octets, stop, position + stop - start, MAX_STRING - (stop - start))
            if matched + stop - start > length + more:
                best, length, more = codeword, stop - start, matched
        if not best:
            out.ordinal(octets[position])
            strings.after_ordinal()
            position += 1
            continue
        out.codeword(best)
        strings.after_codeword(best)
        position += length
        if more:
            out.extension(more)
            position += more
            remember(strings.after_extension(position, more))
    return out.finish()


def _common(octets: bytes, one: int, other: int, limit: int) -> int:
    """How many octets are the same at two positions, of which `other` is the later one."""
    limit = min(limit, len(octets) - other)
    count = 0
    while count < limit and octets[one + count] == octets[other + count]:
        count += 1
    return count


class _Reader:
    """Codes out of octets."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._position = 0

    def bits(self, count: int) -> int:
        """The next bits, up to 16 of them. Raises DecodeError."""
        position = self._position
        self._position = position + count
        if self._position > 8 * len(self._octets):
            raise DecodeError("V.44: the packet ends without FLUSH")
        octet = position >> 3
        window = int.from_bytes(self._octets[octet : octet + 4], "little")
        return window >> (position & 7) & ((1 << count) - 1)

    def finish(self) -> None:
        """Check that nothing but filling is left. Raises DecodeError."""
        octet = self._position + 7 >> 3
        if octet != len(self._octets) or self.bits(8 * octet - self._position):
            raise DecodeError("V.44: octets follow the FLUSH of a packet")

    def extension(self) -> int:
        """A string-extension length (tables 3 and 4)."""
        if self.bits(1):
            return 1
        if short := self.bits(2):
            return short + 1
        return self.bits(8) + 13 if self.bits(1) else self.bits(3) + 5


def decompress(packet: bytes, limit: int = DEFAULT_LIMIT) -> bytes:
    """What one packet holds, `limit` octets at most.

    Raises:
        DecodeError: the packet is malformed, or holds more.
    """
    if packet[:1] == _AS_IT_IS:
        if len(packet) - 1 > limit:
            raise DecodeError(f"V.44: a packet holds more than {limit} octets")
        return packet[1:]
    reader, strings, history = _Reader(packet), _Strings(), bytearray()
    codeword_bits, ordinal_bits = _CODEWORD_BITS, _ORDINAL_BITS
    after_codeword = stepping_up = False
    string_end = 0

    def repeat(start: int, count: int) -> None:
        """Append octets of the history, which may be those just appended."""
        if len(history) + count > limit:
            raise DecodeError(f"V.44: a packet holds more than {limit} octets")
        for index in range(start, start + count):
            history.append(history[index])

    while True:
        if reader.bits(1):
            codeword_bits += stepping_up
            stepping_up = False
            if codeword_bits > _MAX_CODEWORD_BITS:
                raise DecodeError(f"V.44: a codeword has {_MAX_CODEWORD_BITS} bits at most")
            code = reader.bits(codeword_bits)
            after_codeword = code >= _FIRST_CODEWORD
            if after_codeword:
                strings.before(len(history))
                start, string_end = strings.after_codeword(code)
                repeat(start, string_end - start)
            elif code == _STEPUP:
                stepping_up = True
            elif code == _FLUSH:
                reader.finish()
                return bytes(history)
            else:
                raise DecodeError(f"V.44: control code {code} has no place within a packet")
        elif after_codeword and reader.bits(1):
            count = reader.extension()
            repeat(string_end, count)
            strings.after_extension(len(history), count)
            after_codeword = False
        else:
            ordinal_bits += stepping_up
            stepping_up = after_codeword = False
            if ordinal_bits > _MAX_ORDINAL_BITS:
                raise DecodeError(f"V.44: an ordinal has {_MAX_ORDINAL_BITS} bits at most")
            if len(history) >= limit:
                raise DecodeError(f"V.44: a packet holds more than {limit} octets")
            strings.before(len(history))
            history.append(reader.bits(ordinal_bits))
            strings.after_ordinal()
