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

_OBJECT = re.compile(r"^(\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}(?:[.*&]\d{1,3})?)((?:\([^()]*\))*)$")
_VALUES = re.compile(r"\(([^()]*)\)")
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
