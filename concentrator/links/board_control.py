"""What the service does with the board's pins: it resets a modem that keeps silent, and lights its lamps.

A modem whose firmware hangs can only be helped by its reset line. It is pulled after the network has lost the
modem twice without a start in between, and not again for two minutes: a pulse makes every node of a PRIME
network register anew, so it is the last resort.
"""

from __future__ import annotations

import asyncio

import structlog

from board import raspberry_pi
from board.linux import LinuxMachine
from board.machine import OUT, BoardError, Machine, reset_steps, set_led
from board.profile import Board
from concentrator.config import BoardSection
from plc.network import Event, ModemLost, NetworkStarted

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_BOARDS = {raspberry_pi.BOARD.name: raspberry_pi.BOARD}
_LOSSES_BEFORE_RESET = 2
_REST_BETWEEN_RESETS_S = 120.0
_PLC = "plc"


class BoardControl:
    """One board. A pin that cannot be driven is told once in the log and does not stop anything."""

    def __init__(self, board: Board, machine: Machine) -> None:
        self.resets = 0
        self._board = board
        self._machine = machine
        self._losses = 0
        self._wanted = asyncio.Event()
        self._complained: set[str] = set()

    def note(self, event: Event) -> None:
        """Follow the network: decide whether its modem needs the reset line."""
        if isinstance(event, NetworkStarted):
            self._losses = 0
        elif isinstance(event, ModemLost):
            self._losses += 1
            if self._losses >= _LOSSES_BEFORE_RESET:
                self._wanted.set()

    def light(self, name: str, *, lit: bool) -> None:
        """Light a lamp by its meaning; a board without it is left alone."""
        try:
            set_led(self._machine, self._board, name, lit)
        except BoardError as error:
            self._complain(f"lamp {name}", error)

    async def run(self, rest_s: float = _REST_BETWEEN_RESETS_S) -> None:
        """Pulse the modem's reset line when that is wanted, until cancelled; release all pins then."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                self._losses = 0
                await self.reset_modem()
                await asyncio.sleep(rest_s)
        finally:
            self._machine.close()

    async def reset_modem(self) -> None:
        """Give the PLC modem one reset pulse, and the time that it needs afterwards."""
        line = self._board.reset_line(_PLC)
        if line is None:
            return
        log.warning("modem reset", board=self._board.name, pin=line.pin)
        try:
            pin = self._machine.pin(line.pin, OUT, 1 if line.active_low else 0)
            for level, wait_s in reset_steps(line):
                pin.value(level)
                await asyncio.sleep(wait_s)
        except BoardError as error:
            self._complain("reset line", error)
            return
        self.resets += 1

    def _complain(self, what: str, error: BoardError) -> None:
        if what not in self._complained:
            self._complained.add(what)
            log.warning("board cannot be driven", what=what, reason=str(error))


def make_board_control(settings: BoardSection) -> BoardControl | None:
    """The configured board with its pins; None for one without, or where the pins cannot be reached."""
    board = _BOARDS.get(settings.model)
    if board is None:
        return None
    try:
        machine = LinuxMachine(board.chip)
    except BoardError as error:
        log.warning("board without pins", board=board.name, reason=str(error))
        return None
    return BoardControl(board, machine)
