r"""P1 telegrams: what a smart meter pushes on its consumer port (DSMR, ESMR and their kin).

A telegram is `/` identification, an empty line, one line for each object (`1-0:1.8.1(000047.719*kWh)`), and `!` with a
CRC since DSMR 4 (none before): CRC-16, polynomial 8005 reflected, start 0, over `/` to `!` (DSMR P1, 6.2).
Old telegrams continue an object on the next line (DSMR 2 and 3 gas readings). What a value means is not decided
here: values stay text, units stay beside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from concentrator.iec62056_21.errors import TelegramError
from concentrator.iec62056_21.p1_cipher import ENVELOPE_HEAD_OCTETS, ENVELOPE_START, envelope_length

_OBJECT = re.compile(r"^(\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}(?:[.*&]\d{1,3})?)((?:\([^()]*\))*)$")
_VALUES = re.compile(r"\(([^()]*)\)")
_LAST_LINE = re.compile(rb"[\r\n]!(?:[0-9A-Fa-f]{4})?\r?\n")
_CHECK = re.compile(rb"^[0-9A-Fa-f]{4}")
# The longest of the profiles (DSMR 5 with text message) has some 4 KiB.
LONGEST_TELEGRAM_OCTETS = 16 * 1024


def _table() -> tuple[int, ...]:
    rows: list[int] = []
    for octet in range(256):
        remainder = octet
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xA001 if remainder & 1 else 0)
        rows.append(remainder)
    return tuple(rows)


_CRC_TABLE = _table()


def crc16(data: bytes) -> int:
    """The check sum of a P1 telegram: over everything from `/` to `!`, both included."""
    crc = 0
    for octet in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ octet) & 0xFF]
    return crc


@dataclass(frozen=True, slots=True)
class P1Object:
    """One object: its reduced OBIS code as written, and its values as text (`000047.719*kWh`)."""

    obis: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class P1Telegram:
    """One telegram. `crc_ok` is None where the telegram carries no check sum."""

    identification: str
    objects: tuple[P1Object, ...]
    crc: int | None
    crc_ok: bool | None
    not_understood: tuple[str, ...] = ()


def decode_p1(data: bytes) -> P1Telegram:
    """Decode one telegram, from its `/`.

    A check sum that misses is told by `crc_ok`, since the engineer wants to see what came all the same.

    Raises:
        TelegramError: there is no `/`, no `!`, or no identification; or it is longer than any telegram is.
    """
    if len(data) > LONGEST_TELEGRAM_OCTETS:
        raise TelegramError(f"a P1 telegram has at most {LONGEST_TELEGRAM_OCTETS} octets, got {len(data)}")
    start = data.find(b"/")
    end = _end(data)
    if start < 0 or end <= start:
        raise TelegramError("a P1 telegram begins with / and ends with a line of !: it is cut off")
    check = _CHECK.match(data[end + 1 : end + 5])
    crc = int(check.group(), 16) if check else None
    # 8-bit characters do occur in text messages: each octet stays one character.
    lines = data[start:end].decode("latin-1").splitlines()
    objects: list[P1Object] = []
    not_understood: list[str] = []
    for line in lines[1:]:
        _take_line(line.strip(), objects, not_understood)
    return P1Telegram(
        lines[0].strip(),
        tuple(objects),
        crc,
        None if crc is None else crc == crc16(data[start : end + 1]),
        tuple(not_understood),
    )


class P1Reader:
    """Cuts a stream into telegrams, plain ones and those of an encrypted port (`p1_cipher`).

    What comes before a telegram's start, or grows longer than any telegram, is dropped and counted.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.octets_skipped = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        self._buffer += data

    def next_telegram(self) -> bytes | None:
        """The octets of the next telegram, from its `/` (or DB) to its end; None until more came."""
        while self._buffer:
            starts = [at for mark in (b"/", ENVELOPE_START) if (at := self._buffer.find(mark)) >= 0]
            start = min(starts, default=len(self._buffer))
            if start == len(self._buffer) and self._buffer.endswith(ENVELOPE_START[:1]):
                start -= 1
            self._skip(start)
            total = self._length()
            if total is not None and total <= len(self._buffer):
                telegram = bytes(self._buffer[:total])
                del self._buffer[:total]
                return telegram
            if len(self._buffer) <= LONGEST_TELEGRAM_OCTETS:
                return None
            self._skip(1)
        return None

    def _length(self) -> int | None:
        """How long the telegram at the start is; None while that is not known."""
        if self._buffer.startswith(b"/"):
            match = _LAST_LINE.search(self._buffer)
            return None if match is None else match.end()
        return envelope_length(bytes(self._buffer[:ENVELOPE_HEAD_OCTETS]))

    def _skip(self, octets: int) -> None:
        del self._buffer[:octets]
        self.octets_skipped += octets


def _end(data: bytes) -> int:
    """Where the `!` stands that begins a line: one within a text message does not count."""
    for mark in (b"\n!", b"\r!"):
        at = data.find(mark)
        if at >= 0:
            return at + 1
    return -1


def _take_line(line: str, objects: list[P1Object], not_understood: list[str]) -> None:
    if not line:
        return
    if line.startswith("(") and objects:
        last = objects[-1]
        objects[-1] = P1Object(last.obis, last.values + tuple(_VALUES.findall(line)))
        return
    match = _OBJECT.match(line)
    if match is None:
        not_understood.append(line)
        return
    objects.append(P1Object(match[1], tuple(_VALUES.findall(match[2]))))
