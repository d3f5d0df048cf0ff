"""Pins on Linux, through libgpiod version 2 (the `gpiod` package). CPython only.

The package is not a dependency: a concentrator whose modem needs no reset line runs without it.
"""

from __future__ import annotations

import importlib
from typing import Any

from board.machine import OUT, BoardError, Machine, Pin

_CONSUMER = "concentrator"


class LinuxPin(Pin):
    """One requested line of a GPIO chip."""

    # gpiod is no dependency, so its types are not known here.
    def __init__(self, gpiod: Any, request: Any, number: int, mode: int) -> None:  # noqa: ANN401
        self._gpiod = gpiod
        self._request = request
        self._number = number
        self._mode = mode

    def value(self, x: int | None = None) -> int | None:
        """Read the line, or drive it to `x`."""
        values = self._gpiod.line.Value
        if x is None:
            return 1 if self._request.get_value(self._number) == values.ACTIVE else 0
        if self._mode != OUT:
            raise BoardError(f"line {self._number} is an input and cannot be driven")
        self._request.set_value(self._number, values.ACTIVE if x else values.INACTIVE)
        return None

    def release(self) -> None:
        """Give the line back to the kernel."""
        self._request.release()


class LinuxMachine(Machine):
    """The lines of one GPIO chip, such as /dev/gpiochip0."""

    def __init__(self, chip: str) -> None:
        """Open nothing yet, but make sure that it could be.

        Raises:
            BoardError: the `gpiod` package (version 2) is not installed.
        """
        try:
            self._gpiod: Any = importlib.import_module("gpiod")
        except ImportError as error:
            raise BoardError(
                "pins need the Python package gpiod, version 2: install it, or set up a board without pins"
            ) from error
        if not hasattr(self._gpiod, "request_lines"):
            raise BoardError("the installed gpiod package is version 1: version 2 is needed")
        self._chip = chip
        self._pins: dict[int, LinuxPin] = {}

    def pin(self, number: int, mode: int, value: int | None = None) -> Pin:
        """Open a line; an output starts at `value`. A line that is open already is given again.

        Raises:
            BoardError: there is no such chip or line, it is taken, or access is denied.
        """
        if (found := self._pins.get(number)) is not None:
            return found
        line = self._gpiod.line
        settings = self._gpiod.LineSettings(
            direction=line.Direction.OUTPUT if mode == OUT else line.Direction.INPUT,
            output_value=line.Value.ACTIVE if value else line.Value.INACTIVE,
        )
        try:
            request = self._gpiod.request_lines(self._chip, consumer=_CONSUMER, config={number: settings})
        except (OSError, ValueError) as error:
            raise BoardError(f"line {number} of {self._chip} cannot be opened: {error}") from error
        pin = self._pins[number] = LinuxPin(self._gpiod, request, number, mode)
        return pin

    def close(self) -> None:
        """Release every line that was opened."""
        for pin in self._pins.values():
            pin.release()
        self._pins.clear()
