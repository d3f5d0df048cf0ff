"""Receivers that write one line for each telegram: CUL and its kin (culfw), and the program rtl_wmbus.

culfw: `b` hex for format A, `bY` hex for format B, CRCs left in; after `X21` the last two octets are link
quality and RSSI. rtl_wmbus: `MODE;crc_ok;3outof6_ok;time;rssi;rssi2;id;0xHEX`, CRCs taken out; its RSSI
has no unit and is left out. It is only listened to: give it a pseudo-terminal as port.
"""

from __future__ import annotations

import re

from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.asking import AskingModule, Question
from concentrator.wmbus.modules.face import ModuleReady, RadioModule, TelegramHeard

# The longest telegram of format A has 291 octets; a line beyond that is noise.
LONGEST_LINE_OCTETS = 1024
_RSSI_OFFSET_DBM = -74

# culfw: command and confirmation of each link mode.
CUL_MODES = {
    "S1": (b"brs", b"SMODE"),
    "T1": (b"brt", b"TMODE"),
    "C1-A": (b"brc", b"CMODE"),
    "C1-B": (b"brc", b"CMODE"),
}
_CUL_TELEGRAM = re.compile(rb"b(Y?)((?:[0-9A-Fa-f]{2})+)$")
_RTL_TELEGRAM = re.compile(
    rb"(?:[A-Z]\d[A-Za-z]?);([01]);([01]);[^;]*;[^;]*;[^;]*;[^;]*;0x((?:[0-9A-Fa-f]{2})+)$"
)


def dbm_of(rssi: int) -> int:
    """The RSSI octet of a CC1101 in dBm: half decibels in two's complement."""
    return (rssi - 256 if rssi > 127 else rssi) // 2 + _RSSI_OFFSET_DBM  # noqa: PLR2004 - the sign bit


class LineReader:
    """Cuts a byte stream into lines; what is longer than any line is dropped and counted."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.octets_skipped = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """Give the next line without its end, or None until more bytes came."""
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).strip()
            del self._buffer[: end + 1]
            if len(line) <= LONGEST_LINE_OCTETS:
                return line
            self.octets_skipped += len(line)
        if len(self._buffer) > LONGEST_LINE_OCTETS:
            self.octets_skipped += len(self._buffer)
            self._buffer.clear()
        return None


class CulModule(AskingModule):
    """A CUL, nanoCUL or another stick with culfw, listening in one link mode."""

    baud_rate = 38400
    can_transmit = True
    tells_what_was_sent = False

    def __init__(self, link_mode: str = "T1") -> None:
        if link_mode not in CUL_MODES:
            raise WmbusUsageError(f"culfw has no link mode {link_mode!r}: use one of {', '.join(CUL_MODES)}")
        command, self._confirmation = CUL_MODES[link_mode]
        self._send_command = b"bss" if link_mode == "S1" else b"bst"
        super().__init__(
            (
                Question("the question for its version", b"\r\nV\r\n"),
                Question("its link mode", command + b"\r\nX21\r\n"),
            )
        )
        self._reader = LineReader()
        self.counters = dict.fromkeys(("telegrams_heard", "telegrams_malformed", "lines_unknown"), 0)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""
        self._reader.receive_data(data)
        while (line := self._reader.next_line()) is not None:
            self._take(line, now)

    def _forget_input(self) -> None:
        self._reader = LineReader()

    def _put_on_the_air(self, telegram: bytes) -> None:
        # culfw makes the CRCs; it says nothing of what became of it.
        self._write(self._send_command + telegram.hex().upper().encode() + b"\r\n")

    def _take(self, line: bytes, now: float) -> None:
        if line.startswith(b"V ") and self._waiting_for == 0:
            self._identity = line[2:].decode("ascii", "replace")
            self._answered(now)
        elif line == self._confirmation and self._waiting_for == 1:
            self._answered(now)
        elif line.startswith(b"b"):
            self._hear(line)
        elif line:
            self._count("lines_unknown")

    def _hear(self, line: bytes) -> None:
        match = _CUL_TELEGRAM.match(line)
        octets = bytes.fromhex(match[2].decode()) if match else b""
        # Old firmware cuts long lines; what is left of them is no telegram.
        if match is None or len(octets) < FIRST_BLOCK_OCTETS + 2:
            self._count("telegrams_malformed")
            return
        self._count("telegrams_heard")
        frame_format = FrameFormat.B if match[1] else FrameFormat.A
        self._events.append(TelegramHeard(octets[:-2], dbm_of(octets[-1]), frame_format))


class RtlWmbusLines(RadioModule):
    """The output of rtl_wmbus. There is nobody to ask: it is ready when the port is open."""

    baud_rate = 115200

    def __init__(self) -> None:
        super().__init__()
        self._reader = LineReader()
        self.counters = dict.fromkeys(("telegrams_heard", "telegrams_malformed", "lines_unknown"), 0)

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened."""
        del now
        self._reader = LineReader()
        self._events.append(ModuleReady("rtl_wmbus"))

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes, in any chunking."""
        del now
        self._reader.receive_data(data)
        while (line := self._reader.next_line()) is not None:
            match = _RTL_TELEGRAM.match(line)
            if match is None:
                self._count("lines_unknown")
            elif match[1] != b"1" or match[2] != b"1":
                self._count("telegrams_malformed")
            else:
                self._count("telegrams_heard")
                octets = bytes.fromhex(match[3].decode())
                self._events.append(TelegramHeard(octets, None, FrameFormat.WITHOUT_CRC))

    def next_timeout(self) -> float | None:
        """There is nothing to wait for."""
        return None

    def handle_timeout(self, now: float) -> None:
        """There is nothing to do."""
