"""Messages of IEC 62056-21: identification, data sets, block check character, seven bits with even parity.

Characters on the line have seven data bits and even parity. A port that is set to eight bits without parity
sends and receives just these bits, the parity as the highest one: `with_parity` and `without_parity` make it
so, which also works through pseudo-terminals and adapters that know eight bits only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from concentrator.iec62056_21.errors import TelegramError

SOH, STX, ETX, EOT, ACK, NAK = b"\x01", b"\x02", b"\x03", b"\x04", b"\x06", b"\x15"
# The baud rate character of mode A is any printable one but / and ! that modes B and C do not use.
_IDENTIFICATION = re.compile(r"^/([A-Za-z]{2})([A-Za-z])((?![/!])[ -~])((?:\\[^\\])*)([^/!]{0,16})$")
_DATA_SET = re.compile(r"([^()\r\n!]*)((?:\([^()]*\))+)")
_VALUE = re.compile(r"\(([^()]*)\)")

# Baud rate characters of the identification: mode C has digits, mode B letters.
MODE_C_BAUD_RATES = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
MODE_B_BAUD_RATES = {"A": 600, "B": 1200, "C": 2400, "D": 4800, "E": 9600, "F": 19200}
# What a meter sends in the place of a baud rate that speaks mode E (HDLC) is behind this escape.
_MODE_E_ESCAPE = "\\2"


@dataclass(frozen=True, slots=True)
class Identification:
    """Who answered. `mode` is A, B or C; `hdlc` says that the meter also offers mode E."""

    manufacturer: str
    baud_rate_character: str
    text: str
    fast_reaction: bool
    hdlc: bool

    @property
    def mode(self) -> str:
        """The protocol mode that the baud rate character stands for."""
        if self.baud_rate_character in MODE_C_BAUD_RATES:
            return "C"
        return "B" if self.baud_rate_character in MODE_B_BAUD_RATES else "A"

    @property
    def baud_rate(self) -> int:
        """The rate that the meter goes on with; mode A stays at 300."""
        character = self.baud_rate_character
        return MODE_C_BAUD_RATES.get(character) or MODE_B_BAUD_RATES.get(character) or 300


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set: its address (`1.8.0`, empty where the meter left it out) and its values as text."""

    address: str
    values: tuple[str, ...]


def decode_identification(line: bytes) -> Identification:
    """Read an identification, from `/`, without its line end.

    Raises:
        TelegramError: it is none.
    """
    match = _IDENTIFICATION.match(line.decode("ascii", "replace"))
    if match is None:
        raise TelegramError(f"an identification is /XXXZ and up to 16 characters, got {line!r}")
    maker, third, character, escapes, text = match.groups()
    return Identification(
        (maker + third).upper(),
        character,
        text,
        fast_reaction=third.islower(),
        hdlc=_MODE_E_ESCAPE in escapes,
    )


def decode_data_sets(block: bytes) -> tuple[DataSet, ...]:
    """Read the data sets of a data block; what is none of them is left out."""
    return tuple(
        DataSet(match[1].strip(), tuple(_VALUE.findall(match[2])))
        for match in _DATA_SET.finditer(block.decode("ascii", "replace"))
    )


def block_check_character(octets: bytes) -> int:
    """The XOR of all characters after the first SOH or STX, up to and with ETX or EOT."""
    check = 0
    for octet in octets:
        check ^= octet
    return check


def with_parity(characters: bytes) -> bytes:
    """Seven-bit characters with their even parity as the highest bit."""
    return bytes(one | (one.bit_count() & 1) << 7 for one in characters)


def without_parity(octets: bytes) -> tuple[bytes, bool]:
    """The characters, and whether all parities were even. Octets without any parity (8N1) count as right."""
    even = all(one.bit_count() & 1 == 0 for one in octets)
    plain = all(one < 0x80 for one in octets)  # noqa: PLR2004 - the parity bit
    return bytes(one & 0x7F for one in octets), even or plain


def command_message(command: str, data_set: str = "") -> bytes:
    """A programming mode message: `P1`, `R1`, `W1` with a data set, or `B0` (break) without."""
    body = command.encode("ascii") + (STX + data_set.encode("ascii") if data_set else b"") + ETX
    return SOH + body + bytes((block_check_character(body),))
