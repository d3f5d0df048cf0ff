"""The face that every back end gives: pins as in MicroPython's `machine` module, and reset pulses.

A back end is a `Machine` (`simulated.SimulatedMachine`, `linux.LinuxMachine`); on a microcontroller
its `machine.Pin` fits as it is. Waiting is the caller's business: a pulse is a list of steps with the
time to wait after each, so that nothing here sleeps.
"""

from board.profile import Board, ResetLine

IN = 0
OUT = 1


class BoardError(Exception):
    """The board cannot do what was asked: no such line, no access, no back end on this system."""


class Pin:
    """One line: `value()` reads it, `value(0)` and `value(1)` drive it."""

    def value(self, x: int | None = None) -> int | None:
        """Read the line, or drive it to `x`."""
        raise NotImplementedError

    def on(self) -> None:
        """Drive the line high."""
        self.value(1)

    def off(self) -> None:
        """Drive the line low."""
        self.value(0)


class Machine:
    """What opens pins on a board."""

    def pin(self, number: int, mode: int, value: int | None = None) -> Pin:
        """Open a line; an output starts at `value`.

        Raises BoardError when there is no such line or it is taken.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release every line that was opened."""


def reset_steps(line: ResetLine) -> tuple[tuple[int, float], ...]:
    """The levels of a reset pulse, each with the seconds to wait after it."""
    active = 0 if line.active_low else 1
    return ((active, line.pulse_s), (1 - active, line.settle_s))


def set_led(machine: Machine, board: Board, name: str, lit: bool) -> bool:
    """Light a lamp by its meaning; False when the board has no such lamp."""
    led = board.led(name)
    if led is None:
        return False
    level = 1 if lit != led.active_low else 0
    machine.pin(led.pin, OUT, level).value(level)
    return True
