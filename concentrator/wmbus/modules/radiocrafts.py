"""Driver of the Radiocrafts RC1180-MBUS and RC1701-MBUS families, as they are set to send bare telegrams.

The module writes each telegram from its L-field on, CRCs taken out, and an RSSI octet behind it when its memory says
so. A zero puts it into configuration: it prompts with `>`; `0` gives its memory, `M` writes an octet of it, `X` leaves.
The driver reads the memory and writes only what is not as it should be. Nothing frames the stream: a telegram that
does not begin like one, or pauses, costs its first octet only.
"""

from __future__ import annotations

import enum

from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import C_FIELD_NAMES, FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.face import ModuleLost, ModuleReady, RadioModule, TelegramHeard

ENTER, PROMPT, DUMP, WRITE, LEAVE, WRITE_END = 0x00, 0x3E, 0x30, 0x4D, 0x58, 0xFF
MEMORY_OCTETS = 256
# Memory: the link mode, and whether an RSSI octet follows each telegram.
MEMORY_MODE, MEMORY_RSSI = 0x03, 0x05
RADIOCRAFTS_MODES = {"S1": 0x00, "T1": 0x01, "T2": 0x01, "C1-A": 0x04, "C1-B": 0x04, "C/T": 0x04}

ANSWER_TIMEOUT_S = 1.0
ATTEMPTS = 3
RETRY_AFTER_LOSS_S = 5.0
# The longest telegram takes 135 ms at 19200 baud: one that pauses longer is broken.
PARTIAL_TIMEOUT_S = 0.25


class _State(enum.Enum):
    STOPPED = enum.auto()
    ENTERING = enum.auto()
    DUMPING = enum.auto()
    WRITING = enum.auto()
    LISTENING = enum.auto()
    LOST = enum.auto()


class RadiocraftsModule(RadioModule):
    """One of these modules, listening in one link mode. It cannot be asked while it listens."""

    baud_rate = 19_200

    def __init__(self, link_mode: str = "T1") -> None:
        super().__init__()
        if link_mode not in RADIOCRAFTS_MODES:
            raise WmbusUsageError(f"no link mode {link_mode!r}: use one of {', '.join(RADIOCRAFTS_MODES)}")
        self._wanted = {MEMORY_MODE: RADIOCRAFTS_MODES[link_mode], MEMORY_RSSI: 1}
        self._to_write: list[tuple[int, int]] = []
        self._buffer = bytearray()
        self._state = _State.STOPPED
        self._attempts = 0
        self._deadline: float | None = None
        self.counters = dict.fromkeys(("telegrams_heard", "octets_skipped"), 0)

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened."""
        self.data_to_send()  # what was meant for the port as it was before
        self._attempts = 0
        self._enter(now)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""
        self._buffer += data
        if self._state is _State.LISTENING:
            self._hear()
            self._deadline = now + PARTIAL_TIMEOUT_S if self._buffer else None
        elif self._state is _State.ENTERING and self._buffer.endswith(bytes((PROMPT,))):
            self._buffer.clear()
            self._state = _State.DUMPING
            self._send(bytes((DUMP,)), now)
        elif self._state is _State.DUMPING and len(self._buffer) > MEMORY_OCTETS:
            memory = bytes(self._buffer[:MEMORY_OCTETS])
            self._buffer.clear()
            self._to_write = [(at, value) for at, value in self._wanted.items() if memory[at] != value]
            self._write_next(now)
        elif self._state is _State.WRITING and self._buffer.endswith(bytes((PROMPT,))):
            self._buffer.clear()
            self._write_next(now)

    def next_timeout(self) -> float | None:
        """Tell when `handle_timeout` wants to be called, or None."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Act on the timer if it has run out at `now`."""
        if self._deadline is None or now < self._deadline:
            return
        if self._state is _State.LISTENING:
            self._skip()
            self._hear()
            self._deadline = now + PARTIAL_TIMEOUT_S if self._buffer else None
        elif self._state is not _State.LOST and self._attempts < ATTEMPTS:
            self._enter(now)
        elif self._state is _State.LOST:
            self.start(now)
        else:
            self._state = _State.LOST
            self._deadline = now + RETRY_AFTER_LOSS_S
            self._events.append(ModuleLost(f"no prompt for its configuration, asked {ATTEMPTS} times"))

    def _enter(self, now: float) -> None:
        self._buffer.clear()
        self._attempts += 1
        self._state = _State.ENTERING
        self._send(bytes((ENTER,)), now)

    def _write_next(self, now: float) -> None:
        if self._to_write:
            at, value = self._to_write.pop()
            self._state = _State.WRITING
            self._send(bytes((WRITE, at, value, WRITE_END)), now)
            return
        self._write(bytes((LEAVE,)))
        self._state, self._deadline = _State.LISTENING, None
        self._events.append(ModuleReady("Radiocrafts MBUS module"))

    def _send(self, octets: bytes, now: float) -> None:
        self._write(octets)
        self._deadline = now + ANSWER_TIMEOUT_S

    def _hear(self) -> None:
        while len(self._buffer) > 1:
            length = self._buffer[0]
            if length < FIRST_BLOCK_OCTETS or self._buffer[1] not in C_FIELD_NAMES:
                self._skip()
                continue
            total = length + 2  # L itself, and the RSSI octet
            if len(self._buffer) < total:
                return
            octets, rssi = bytes(self._buffer[: total - 1]), self._buffer[total - 1]
            del self._buffer[:total]
            self._count("telegrams_heard")
            self._events.append(TelegramHeard(octets, -rssi // 2, FrameFormat.WITHOUT_CRC))

    def _skip(self) -> None:
        if self._buffer:
            del self._buffer[:1]
            self._count("octets_skipped")
