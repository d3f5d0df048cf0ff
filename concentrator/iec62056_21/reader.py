"""Read-out of a meter through its optical head: modes A, B, C and D of IEC 62056-21. Sans-IO.

Mode C: request, identification, acknowledgement, change of the baud rate, data message with block check
character; or, with `registers` or `writes`, programming mode: password, writing and reading of single registers.
A block that came wrong is asked for again, partial blocks (EOT) are acknowledged and put together. Modes A and B
send their data behind the identification by themselves, mode D without having been asked. Signatures and mode E
(HDLC) are not done here.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from concentrator.iec62056_21.errors import DialogueUsageError, TelegramError
from concentrator.iec62056_21.messages import (
    ACK,
    EOT,
    ETX,
    NAK,
    SOH,
    STX,
    DataSet,
    Identification,
    block_check_character,
    command_message,
    decode_data_sets,
    decode_identification,
    with_parity,
    without_parity,
)

START_BAUD_RATE = 300
MODE_D_BAUD_RATE = 2400
# A meter reacts within 1.5 s and pauses no longer than that between characters; adapters add their own.
REACTION_TIMEOUT_S = 3.0
ATTEMPTS = 2
# How often a block that came wrong is asked for again.
REPETITIONS = 2
LONGEST_MESSAGE_OCTETS = 256 * 1024
# Battery devices wake up on zeros for 2.2 s, and want 1.5 s of silence after it.
WAKE_UP = bytes(66)
WAKE_UP_PAUSE_S = 1.7


@dataclass(frozen=True, slots=True)
class Identified:
    """A meter answered."""

    identification: Identification


@dataclass(frozen=True, slots=True)
class BaudRateChanged:
    """What was given to be sent goes out at the old rate; from then on the line has this one."""

    baud_rate: int


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A data message, its check right (`checked`), or without any (mode D)."""

    data_sets: tuple[DataSet, ...]
    checked: bool


@dataclass(frozen=True, slots=True)
class RegisterWritten:
    """The meter acknowledged what was written to a register."""

    register: str


@dataclass(frozen=True, slots=True)
class ReadingFinished:
    """All was read."""


@dataclass(frozen=True, slots=True)
class ReadingFailed:
    """It ended; `reason` says what came, or did not."""

    reason: str


ReaderEvent = Identified | BaudRateChanged | DataReceived | RegisterWritten | ReadingFinished | ReadingFailed


class _State(enum.Enum):
    WAKING = enum.auto()
    IDENTIFYING = enum.auto()
    READING = enum.auto()
    PASSWORD_WANTED = enum.auto()
    PASSWORD_SENT = enum.auto()
    REGISTER_ASKED = enum.auto()
    REGISTER_WRITTEN = enum.auto()
    PUSHED = enum.auto()
    ENDED = enum.auto()


# Where a block with its check character is waited for, which can be asked for again.
_BLOCK_WANTED = (_State.READING, _State.PASSWORD_WANTED, _State.REGISTER_ASKED)
# Where the meter answers with one character, or with an error message.
_ACKNOWLEDGED = (_State.PASSWORD_SENT, _State.REGISTER_WRITTEN)


def _check_sendable(what: str, text: str, *, secret: bool = False) -> None:
    if not (text.isascii() and (text.isprintable() or not text)) or any(one in text for one in "()/!"):
        got = "something else" if secret else repr(text)
        raise DialogueUsageError(f"{what}: got {got}; allowed: printable ASCII characters without ( ) / !")


class OpticalReader:
    """One dialogue with one meter; bytes on both sides carry parity as their highest bit."""

    def __init__(  # noqa: PLR0913 - all that a dialogue can differ in
        self,
        *,
        device_address: str = "",
        registers: tuple[str, ...] = (),
        writes: tuple[tuple[str, str], ...] = (),
        write_command: str = "W1",
        password: str = "",
        secure_algorithm: Callable[[str], str] | None = None,
        wake_up: bool = False,
        pushed: bool = False,
        highest_baud_rate: int = 19200,
    ) -> None:
        """`registers` and `writes` choose programming mode instead of the read-out; `pushed` waits for mode D.

        What is written goes first: pairs of register and value, by `write_command` (W1: as text; W2 and W5: the
        formatted codings of some makers). `secure_algorithm` makes the result of the operand that the meter sends; it
        takes the place of the password, and may raise `TelegramError` where it cannot.

        Raises:
            DialogueUsageError: an address, register, value or password has characters that no message can carry.
        """
        _check_sendable("device address", device_address)
        for register in (*registers, *(register for register, _value in writes)):
            _check_sendable("register", register)
        for register, value in writes:
            _check_sendable(f"value of register {register}", value, secret=True)
        _check_sendable("password", password, secret=True)
        self._device_address = device_address
        self._registers = deque(registers)
        self._writes = deque(writes)
        self._write_command = write_command
        self._programming = bool(registers or writes)
        self._password = password
        self._secure_algorithm = secure_algorithm
        self._wake_up = wake_up
        self._pushed = pushed
        self._highest_baud_rate = highest_baud_rate
        self._buffer = bytearray()
        self._output = bytearray()
        self._events: deque[ReaderEvent] = deque()
        self._deadline: float | None = None
        self._attempts = 0
        self._repetitions = 0
        self._partial = b""
        self._state = _State.ENDED
        self._parity_missed = False

    @property
    def start_baud_rate(self) -> int:
        """What the port is to be opened with."""
        return MODE_D_BAUD_RATE if self._pushed else START_BAUD_RATE

    def start(self, now: float) -> None:
        """Begin."""
        if self._pushed:
            self._state, self._deadline = _State.PUSHED, None
        elif self._wake_up:
            self._output += WAKE_UP
            self._state = _State.WAKING
            self._deadline = now + len(WAKE_UP) * 10 / START_BAUD_RATE + WAKE_UP_PAUSE_S
        else:
            self._request(now)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the line, in any chunking."""
        if self._state in (_State.WAKING, _State.ENDED):
            return
        characters, right = without_parity(data)
        self._parity_missed = self._parity_missed or not right
        self._buffer += characters
        if self._deadline is not None:
            self._deadline = now + REACTION_TIMEOUT_S
        if len(self._buffer) > LONGEST_MESSAGE_OCTETS:
            self._fail(f"more than {LONGEST_MESSAGE_OCTETS} characters without an end")
            return
        while self._advance(now):
            pass

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called, or None."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Act on the timer if it has run out at `now`."""
        if self._deadline is None or now < self._deadline:
            return
        if self._state is _State.WAKING or (self._state is _State.IDENTIFYING and self._attempts < ATTEMPTS):
            self._request(now)
            return
        if self._buffer and self._state in _BLOCK_WANTED and self._ask_again(now):
            return
        came = f"{len(self._buffer)} characters came" if self._buffer else "nothing came"
        hint = "; is the head on the meter, and the right way round?" if not self._buffer else ""
        self._fail(f"no answer while {self._state.name.lower().replace('_', ' ')}: {came}{hint}")

    def data_to_send(self) -> bytes:
        """The bytes that are to be written now."""
        data = with_parity(bytes(self._output))
        self._output.clear()
        return data

    def next_event(self) -> ReaderEvent | None:
        """The oldest event that was not yet taken, or None."""
        return self._events.popleft() if self._events else None

    def _request(self, now: float) -> None:
        self._state = _State.IDENTIFYING
        self._attempts += 1
        self._buffer.clear()
        self._output += b"/?" + self._device_address.encode("ascii") + b"!\r\n"
        self._deadline = now + REACTION_TIMEOUT_S

    def _advance(self, now: float) -> bool:
        """Take one message out of the buffer; False when none is complete."""
        if self._state is _State.ENDED:
            return False
        if self._state is _State.IDENTIFYING:
            return self._take_identification(now)
        if self._state is _State.PUSHED:
            return self._take_pushed()
        return self._take_block(now)

    def _take_identification(self, now: float) -> bool:
        end = self._buffer.find(b"\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        # An optical head sees its own light: the request may come back first.
        start = line.find(b"/")
        if start < 0 or line.startswith(b"/?", start):
            return True
        try:
            identification = decode_identification(line[start:].rstrip(b"\r"))
        except TelegramError as error:
            self._fail(str(error))
            return False
        self._events.append(Identified(identification))
        self._choose(identification, now)
        return True

    def _choose(self, identification: Identification, now: float) -> None:
        self._state = _State.READING
        self._deadline = now + REACTION_TIMEOUT_S
        if identification.mode != "C":
            if self._programming:
                self._fail(f"single registers need mode C, the meter speaks mode {identification.mode}")
            elif identification.mode == "B":
                self._events.append(BaudRateChanged(identification.baud_rate))
            return
        character, baud_rate = identification.baud_rate_character, identification.baud_rate
        if baud_rate > self._highest_baud_rate:
            character, baud_rate = "0", START_BAUD_RATE
        mode = b"1" if self._programming else b"0"
        self._output += ACK + b"0" + character.encode("ascii") + mode + b"\r\n"
        if self._programming:
            self._state = _State.PASSWORD_WANTED
        self._events.append(BaudRateChanged(baud_rate))

    def _take_pushed(self) -> bool:
        start = self._buffer.find(b"/")
        end = self._buffer.find(b"!\r\n", start)
        if start < 0 or end < 0:
            return False
        head, _, block = bytes(self._buffer[start:end]).partition(b"\r\n")
        try:
            self._events.append(Identified(decode_identification(head)))
        except TelegramError as error:
            self._fail(str(error))
            return False
        self._events.append(DataReceived(decode_data_sets(block), checked=False))
        self._finish()
        return False

    def _take_block(self, now: float) -> bool:
        first = bytes(self._buffer[:1])
        if self._state in _ACKNOWLEDGED and first in (ACK, NAK):
            accepted = first == ACK
            del self._buffer[:1]
            if not accepted:
                self._refused()
                return False
            if self._state is _State.REGISTER_WRITTEN:
                self._events.append(RegisterWritten(self._writes.popleft()[0]))
            self._go_on(now)
            return True
        starts = [at for mark in (SOH, STX) if (at := self._buffer.find(mark)) >= 0]
        if not starts:
            return False
        start = min(starts)
        ends = [at for mark in (ETX, EOT) if (at := self._buffer.find(mark, start)) >= 0]
        if not ends or min(ends) + 1 >= len(self._buffer):
            return False
        end = min(ends)
        body, check = bytes(self._buffer[start + 1 : end + 1]), self._buffer[end + 1]
        is_data = self._buffer.startswith(STX, start)
        del self._buffer[: end + 2]
        if block_check_character(body) != check:
            if self._ask_again(now):
                return False
            parity = ", and parities miss" if self._parity_missed else ""
            self._fail(
                f"the block check character misses: {check:02X} came for {len(body)} characters{parity}"
            )
            return False
        self._repetitions = 0
        if body.endswith(EOT):
            return self._take_partial(body, now)
        body, self._partial = self._partial + body, b""
        self._handle_block(body, is_data=is_data, now=now)
        return True

    def _take_partial(self, body: bytes, now: float) -> bool:
        """Keep a block that more follow after; the meter sends the next one when this is acknowledged."""
        self._partial += body[:-1]
        if len(self._partial) > LONGEST_MESSAGE_OCTETS:
            self._fail(f"more than {LONGEST_MESSAGE_OCTETS} characters in partial blocks")
            return False
        self._output += ACK
        self._deadline = now + REACTION_TIMEOUT_S
        return True

    def _ask_again(self, now: float) -> bool:
        """Ask for the last block once more; False when it was asked for often enough."""
        if self._repetitions >= REPETITIONS:
            return False
        self._repetitions += 1
        self._parity_missed = False
        self._buffer.clear()
        self._output += NAK
        self._deadline = now + REACTION_TIMEOUT_S
        return True

    def _handle_block(self, body: bytes, *, is_data: bool, now: float) -> None:
        if self._state is _State.PASSWORD_WANTED and not is_data and body.startswith(b"P0"):
            self._unlock(body, now)
        elif self._state in _ACKNOWLEDGED:
            self._refused(body[:-1].decode("ascii", "replace"))
        elif is_data and self._state is _State.REGISTER_ASKED:
            asked = self._registers.popleft()
            found = decode_data_sets(body[:-1])
            self._events.append(
                DataReceived(tuple(DataSet(one.address or asked, one.values) for one in found), checked=True)
            )
            self._go_on(now)
        elif is_data and self._state is _State.READING:
            self._events.append(DataReceived(decode_data_sets(body[:-1]), checked=True))
            self._finish()

    def _unlock(self, operand_message: bytes, now: float) -> None:
        """Answer the operand message P0 with P2 or P1, or go on without a password."""
        if self._secure_algorithm is not None:
            operands = [value for one in decode_data_sets(operand_message[2:-1]) for value in one.values]
            if not operands:
                self._break_off(
                    "the meter sent no operand for the secure algorithm: it takes a password only"
                )
                return
            try:
                result = self._secure_algorithm(operands[0])
            except TelegramError as error:
                self._break_off(str(error))
                return
            self._output += command_message("P2", f"({result})")
        elif self._password:
            self._output += command_message("P1", f"({self._password})")
        else:
            self._go_on(now)
            return
        self._state = _State.PASSWORD_SENT

    def _refused(self, said: str = "") -> None:
        if self._state is _State.PASSWORD_SENT:
            what = "the password" if self._secure_algorithm is None else "the result of the secure algorithm"
            self._break_off(f"the meter refused {what}")
        else:
            words = f" ({said})" if said else ""
            self._break_off(f"the meter refused to write register {self._writes[0][0]}{words}")

    def _break_off(self, reason: str) -> None:
        # The break: a meter left in programming mode stays there until its own timer ends it.
        self._output += command_message("B0")
        self._fail(reason)

    def _go_on(self, now: float) -> None:
        """The next command of programming mode: writes, then reads, then the break."""
        self._deadline = now + REACTION_TIMEOUT_S
        if self._writes:
            register, value = self._writes[0]
            self._state = _State.REGISTER_WRITTEN
            self._output += command_message(self._write_command, f"{register}({value})")
            return
        if not self._registers:
            self._output += command_message("B0")
            self._finish()
            return
        self._state = _State.REGISTER_ASKED
        self._output += command_message("R1", f"{self._registers[0]}()")

    def _finish(self) -> None:
        self._state, self._deadline = _State.ENDED, None
        self._events.append(ReadingFinished())

    def _fail(self, reason: str) -> None:
        self._state, self._deadline = _State.ENDED, None
        self._events.append(ReadingFailed(reason))
