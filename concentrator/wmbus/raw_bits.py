"""From the bits of the air to telegrams (EN 13757-4): sync words, 3-out-of-6, Manchester, NRZ.

For receivers that hand out what they demodulated. Modes S and R are Manchester coded, T (meter to other)
is 3-out-of-6 coded, C and N are plain (NRZ). T and C share their first sync word; what follows tells
them apart. The polarity of Manchester bits is found out, as receivers differ in it. A telegram is given
only when all its CRCs fit. Not done: demodulation, the 4GFSK variant of mode N, the direction to the meter
in mode T (Manchester with the sync word of S: ask for mode S).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.frame import FrameFormat, decode_frame, format_a_octets

# EN 13757-4, table of the 3-out-of-6 code: six chips with three ones for each half octet, high one first.
THREE_OUT_OF_SIX = (
    "010110", "001101", "001110", "001011", "011100", "011001", "011010", "010011",
    "101100", "100101", "100110", "100011", "110100", "110001", "110010", "101001",
)  # fmt: skip
_HALF_OCTETS = {chips: value for value, chips in enumerate(THREE_OUT_OF_SIX)}
_CHIPS = 6


class RawMode(enum.StrEnum):
    """Modes of EN 13757-4 by their coding on the air."""

    S = "S"
    T = "T"
    C = "C"
    N = "N"
    R = "R"


ALL_MODES = tuple(RawMode)


@dataclass(frozen=True, slots=True)
class RawTelegram:
    """A telegram found among bits: `octets` from the L-field on with their CRCs; `end` is behind its last bit."""

    mode: RawMode
    frame_format: FrameFormat
    octets: bytes
    end: int


_Decode = Callable[[str, int, int], "tuple[bytes, int] | None"]


def decode_three_out_of_six(bits: str, start: int, octets: int) -> tuple[bytes, int] | None:
    """Decode so many octets from `start`; gives them and where they end, None for a code that is none."""
    end = start + octets * 2 * _CHIPS
    if end > len(bits):
        return None
    halves = [_HALF_OCTETS.get(bits[at : at + _CHIPS]) for at in range(start, end, _CHIPS)]
    text = "".join("" if half is None else f"{half:x}" for half in halves)
    return (bytes.fromhex(text), end) if len(text) == len(halves) else None


def decode_manchester(bits: str, start: int, octets: int, *, one: str = "01") -> tuple[bytes, int] | None:
    """Decode so many octets from `start`; `one` are the two chips of a 1. None for chips without a change."""
    end = start + octets * 16
    if end > len(bits):
        return None
    found = ""
    for at in range(start, end, 2):
        if bits[at] == bits[at + 1]:
            return None
        found += "1" if bits[at : at + 2] == one else "0"
    return _to_octets(found), end


def _decode_inverted_manchester(bits: str, start: int, octets: int) -> tuple[bytes, int] | None:
    return decode_manchester(bits, start, octets, one="10")


def _decode_plain(bits: str, start: int, octets: int) -> tuple[bytes, int] | None:
    end = start + octets * 8
    return (_to_octets(bits[start:end]), end) if end <= len(bits) else None


class _Sync(NamedTuple):
    """What a telegram of a mode and format begins with, and how it goes on."""

    mode: RawMode
    word: str
    frame_format: FrameFormat
    decode: _Decode


def to_bits(octets: bytes) -> str:
    """Octets as bits in the order of the air, high bit first."""
    return f"{int.from_bytes(octets):0{8 * len(octets)}b}" if octets else ""


def _to_octets(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8) if bits else b""


def _word(hexadecimal: str) -> str:
    return to_bits(bytes.fromhex(hexadecimal))


_SYNCS = (
    _Sync(RawMode.C, _word("543D54CD"), FrameFormat.A, _decode_plain),
    _Sync(RawMode.C, _word("543D543D"), FrameFormat.B, _decode_plain),
    _Sync(RawMode.T, _word("543D"), FrameFormat.A, decode_three_out_of_six),
    _Sync(RawMode.S, _word("7696"), FrameFormat.A, decode_manchester),
    _Sync(RawMode.S, _word("7696"), FrameFormat.A, _decode_inverted_manchester),
    _Sync(RawMode.R, _word("7696"), FrameFormat.A, decode_manchester),
    _Sync(RawMode.R, _word("7696"), FrameFormat.A, _decode_inverted_manchester),
    _Sync(RawMode.N, _word("F68D"), FrameFormat.A, _decode_plain),
    _Sync(RawMode.N, _word("F672"), FrameFormat.B, _decode_plain),
)


def find_telegrams(bits: str, modes: Iterable[RawMode] = ALL_MODES) -> Iterator[RawTelegram]:
    """Give the telegrams among demodulated bits (a text of 0 and 1), in their order.

    S and R look alike among bits: with both asked for, S is told. Bits after the `end` of the last
    telegram may belong to one whose rest is still to come: keep them for the next call.
    """
    wanted = set(modes)
    syncs = [sync for sync in _SYNCS if sync.mode in wanted]
    at = 0
    while (found := _next_telegram(bits, at, syncs)) is not None:
        yield found
        at = found.end


def _next_telegram(bits: str, start: int, syncs: list[_Sync]) -> RawTelegram | None:
    words = {sync.word for sync in syncs}
    at = start
    while True:
        places = [place for word in words if (place := bits.find(word, at)) >= 0]
        if not places:
            return None
        at = min(places)
        for sync in syncs:
            if bits.startswith(sync.word, at):
                found = _read(bits, at + len(sync.word), sync)
                if found is not None:
                    return found
        at += 1


def _read(bits: str, start: int, sync: _Sync) -> RawTelegram | None:
    head = sync.decode(bits, start, 1)
    if head is None:
        return None
    length = head[0][0]
    total = format_a_octets(length) if sync.frame_format is FrameFormat.A else length + 1
    whole = sync.decode(bits, start, total)
    if whole is None:
        return None
    octets, end = whole
    try:
        decode_frame(octets, sync.frame_format)
    except TelegramError:
        return None
    return RawTelegram(sync.mode, sync.frame_format, octets, end)
