"""A board that is only remembered: for the demo, and for tests of what is done to pins."""

from board.machine import OUT, BoardError, Machine, Pin
from board.profile import Board, Led, ResetLine, SerialPort

LINES = 32


def simulated_board(plc_path: str, radio_path: str) -> Board:
    """A board whose serial ports are the given pseudo-terminals."""
    return Board(
        name="simulated",
        chip="",
        serial_ports=(SerialPort("plc", plc_path), SerialPort("radio", radio_path)),
        resets=(ResetLine("plc", pin=17, active_low=True, pulse_s=0.01, settle_s=0.05),),
        leds=(Led("alive", pin=23, active_low=False),),
    )


class SimulatedPin(Pin):
    """A line in memory; writing to an input is an error, as it is on the real thing."""

    def __init__(self, machine: "SimulatedMachine", number: int, mode: int) -> None:
        self._machine = machine
        self._number = number
        self._mode = mode

    def value(self, x: int | None = None) -> int | None:
        """Read the line, or drive it to `x`."""
        if x is None:
            return self._machine.levels[self._number]
        if self._mode != OUT:
            raise BoardError("line " + str(self._number) + " is an input and cannot be driven")
        self._machine.drive(self._number, 1 if x else 0)
        return None


class SimulatedMachine(Machine):
    """`levels` holds each line's level; `history` every (line, level) that was driven."""

    def __init__(self) -> None:
        self.levels: list[int] = [0] * LINES
        self.history: list[tuple[int, int]] = []

    def pin(self, number: int, mode: int, value: int | None = None) -> Pin:
        """Open a line; an output starts at `value`."""
        if not 0 <= number < LINES:
            raise BoardError("there is no line " + str(number) + ": 0 to " + str(LINES - 1))
        if mode == OUT and value is not None:
            self.drive(number, 1 if value else 0)
        return SimulatedPin(self, number, mode)

    def drive(self, number: int, level: int) -> None:
        """Set a line's level from the outside or the inside."""
        self.levels[number] = level
        self.history.append((number, level))
