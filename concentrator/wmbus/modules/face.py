"""The one face of a radio module, whatever its make.

Sans-IO: bytes from the module go in by `receive_data`, bytes for it come out of `data_to_send`; time is
an argument (monotonic seconds). The shell around it does this, and nothing else:

    module.start(now)
    loop: write data_to_send(); drain next_event(); wait for bytes or until next_timeout();
          then receive_data(data, now) or handle_timeout(now)

A module that is lost recovers by itself: after `ModuleLost` it is asked again, and `ModuleReady` follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from concentrator.wmbus.errors import TransmissionRefusedError, WmbusUsageError
from concentrator.wmbus.frame import FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.duty_cycle import DutyCycle, air_time_s


@dataclass(frozen=True, slots=True)
class ModuleReady:
    """The module answered and listens as configured."""

    identity: str  # make, firmware and serial number, for people


@dataclass(frozen=True, slots=True)
class TelegramHeard:
    """A telegram came over the air: for `decode_telegram(octets, frame_format=...)`."""

    octets: bytes  # from the L-field on
    rssi_dbm: int | None
    frame_format: FrameFormat = FrameFormat.WITHOUT_CRC
    # The module's own clock at the moment of reception, in its own unit (IMST: milliseconds since its start).
    module_time: int | None = None


@dataclass(frozen=True, slots=True)
class ModuleLost:
    """The module does not answer or refused its configuration; it is tried again."""

    reason: str


@dataclass(frozen=True, slots=True)
class TelegramSent:
    """The module took a telegram for the air, or refused it."""

    accepted: bool


ModuleEvent = ModuleReady | TelegramHeard | TelegramSent | ModuleLost


class RadioModule(ABC):
    """What every radio module does; `counters` maps the name of each counter to its value.

    `baud_rate` is what the serial port is to be opened with (8 data bits, no parity).
    """

    baud_rate: int
    # Whether the driver can have a telegram sent.
    can_transmit = False
    # Whether the module says what became of it (`TelegramSent`).
    tells_what_was_sent = True

    def __init__(self) -> None:
        self._duty_cycle = DutyCycle()
        self.counters: dict[str, int] = {}
        self._events: deque[ModuleEvent] = deque()
        self._output = bytearray()

    @abstractmethod
    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened: identify and configure the module."""

    @abstractmethod
    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""

    @abstractmethod
    def next_timeout(self) -> float | None:
        """Tell when `handle_timeout` wants to be called, or None."""

    @abstractmethod
    def handle_timeout(self, now: float) -> None:
        """Act on every timer that has run out at `now`."""

    def transmit(self, telegram: bytes, now: float) -> None:
        """Send a telegram (from its L-field, without CRCs), as commands of modes T2 and C2 are.

        Raises:
            WmbusUsageError: this module cannot, or it is no telegram.
            TransmissionRefusedError: the band's duty cycle is used up.
        """
        if not self.can_transmit:
            raise WmbusUsageError("this radio module's driver cannot send")
        if len(telegram) <= FIRST_BLOCK_OCTETS or len(telegram) != telegram[0] + 1:
            raise WmbusUsageError(f"not a telegram from its L-field on: {telegram.hex()}")
        if not self._duty_cycle.take(air_time_s(telegram), now):
            raise TransmissionRefusedError("1 % of the last hour was spent on the air: try again later")
        self._put_on_the_air(telegram)

    def _put_on_the_air(self, telegram: bytes) -> None:
        """Write what makes the module send; a driver that can send has its own."""
        raise WmbusUsageError(f"no way to send {len(telegram)} octets")

    def data_to_send(self) -> bytes:
        """Give the bytes that are to be written to the module now; b"" when there are none."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def next_event(self) -> ModuleEvent | None:
        """Give the oldest event that was not yet taken, or None."""
        return self._events.popleft() if self._events else None

    def _write(self, data: bytes) -> None:
        self._output += data

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1
