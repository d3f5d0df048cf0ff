"""Driver of the Amber Wireless (Würth Elektronik) AMB8465 family in command mode.

Messages are FF, command, length, data, XOR of all before; an answer has the request's command with bit 7
set. The driver reads the module's parameters and, only when telegrams would come without framing or without
RSSI, writes these two and resets the module. The link mode is set temporarily. A telegram to be sent is
handed over from its C-field on.
"""

from __future__ import annotations

from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.asking import AskingModule, Question
from concentrator.wmbus.modules.face import TelegramHeard, TelegramSent
from concentrator.wmbus.modules.lines import dbm_of

START = 0xFF
DATA_REQUEST = 0x00
DATA_INDICATION = 0x03
SET_MODE = 0x04
RESET = 0x05
SET_PARAMETERS = 0x09
GET_PARAMETERS = 0x0A
ANSWER = 0x80
# Link modes of the module's manual.
AMBER_MODES = {"S1": 0x03, "T1": 0x08, "C/T": 0x09, "C1-A": 0x0E, "C1-B": 0x0E}
# Parameters that have to be 1: telegrams framed as messages, and RSSI with each.
PARAMETER_COMMAND_OUTPUT = 0x05
PARAMETER_RSSI = 0x45
_PARAMETERS = 0x80
_HEADER_OCTETS = 3


def check_octet(octets: bytes) -> int:
    """The XOR of all octets; 0 over a message with its check."""
    check = 0
    for octet in octets:
        check ^= octet
    return check


def message(command: int, data: bytes = b"") -> bytes:
    """The octets of one message on the line."""
    octets = bytes((START, command, len(data))) + data
    return octets + bytes((check_octet(octets),))


class AmberReader:
    """Cuts a byte stream into (command, data); a check that misses costs only the FF it began with."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.octets_skipped = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes, in any chunking."""
        self._buffer += data

    def next_message(self) -> tuple[int, bytes] | None:
        """Give the next complete message, or None until more bytes came."""
        while True:
            start = self._buffer.find(START)
            skipped = len(self._buffer) if start < 0 else start
            self.octets_skipped += skipped
            del self._buffer[:skipped]
            if len(self._buffer) < _HEADER_OCTETS:
                return None
            total = _HEADER_OCTETS + self._buffer[2] + 1
            known = self._buffer[1] == DATA_INDICATION or self._buffer[1] & ANSWER
            if known and len(self._buffer) < total:
                return None
            octets = bytes(self._buffer[:total])
            if known and check_octet(octets) == 0:
                del self._buffer[:total]
                return octets[1], octets[_HEADER_OCTETS:-1]
            self.octets_skipped += 1
            del self._buffer[:1]


class AmberModule(AskingModule):
    """An AMB8465 or kin, listening in one link mode."""

    baud_rate = 9600
    can_transmit = True

    def __init__(self, link_mode: str = "C/T") -> None:
        if link_mode not in AMBER_MODES:
            raise WmbusUsageError(f"no link mode {link_mode!r}: use one of {', '.join(AMBER_MODES)}")
        super().__init__(
            (
                Question("the question for its parameters", message(GET_PARAMETERS, bytes((0, _PARAMETERS)))),
                Question("its link mode", message(SET_MODE, bytes((AMBER_MODES[link_mode],)))),
            )
        )
        self._reader = AmberReader()
        self._identity = "AMB8465"
        self.counters = dict.fromkeys(
            ("telegrams_heard", "telegrams_malformed", "messages_unknown", "octets_skipped"), 0
        )

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""
        self._reader.receive_data(data)
        while (found := self._reader.next_message()) is not None:
            self._take(*found, now)
        self.counters["octets_skipped"] = self._reader.octets_skipped

    def handle_timeout(self, now: float) -> None:
        """Act on the timer if it has run out; whatever was begun by then is broken."""
        if self._deadline is not None and now >= self._deadline:
            self._forget_input()
        super().handle_timeout(now)

    def _forget_input(self) -> None:
        skipped = self._reader.octets_skipped
        self._reader = AmberReader()
        self._reader.octets_skipped = skipped

    def _take(self, command: int, data: bytes, now: float) -> None:
        if command == DATA_INDICATION:
            self._hear(data)
        elif command == GET_PARAMETERS | ANSWER and self._waiting_for == 0:
            self._check_parameters(data[2:], now)
        elif command == SET_MODE | ANSWER and self._waiting_for == 1:
            if data == b"\x00":
                self._answered(now)
            else:
                self._lose(f"the link mode was refused with {data.hex() or 'nothing'}", now)
        elif command == DATA_REQUEST | ANSWER:
            self._events.append(TelegramSent(accepted=data[:1] == b"\x00"))
        elif command not in (SET_PARAMETERS | ANSWER, RESET | ANSWER):
            self._count("messages_unknown")

    def _check_parameters(self, parameters: bytes, now: float) -> None:
        if len(parameters) <= PARAMETER_RSSI:
            self._count("messages_unknown")
            return
        wrong = [at for at in (PARAMETER_COMMAND_OUTPUT, PARAMETER_RSSI) if parameters[at] != 1]
        if not wrong:
            self._answered(now)
            return
        for at in wrong:
            self._write(message(SET_PARAMETERS, bytes((at, 1, 1))))
        self._write(message(RESET))
        # The module starts anew: the question is asked again when its time is over.

    def _put_on_the_air(self, telegram: bytes) -> None:
        self._write(message(DATA_REQUEST, telegram[1:]))

    def _hear(self, data: bytes) -> None:
        if not self._listening:
            return
        if len(data) < FIRST_BLOCK_OCTETS:
            self._count("telegrams_malformed")
            return
        self._count("telegrams_heard")
        octets = bytes((len(data) - 1,)) + data[:-1]
        self._events.append(TelegramHeard(octets, dbm_of(data[-1]), FrameFormat.WITHOUT_CRC))
