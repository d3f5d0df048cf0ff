"""The pins of a Linux board. What runs on MicroPython too is in tests/micropython/test_board_pins.py."""

import importlib
import sys
from types import SimpleNamespace

import pytest

from board.linux import LinuxMachine
from board.machine import OUT, BoardError


def test_linux_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BoardError, match="gpiod"):
        LinuxMachine("/dev/gpiochip0")


def test_linux_drives_and_releases_lines_through_gpiod(monkeypatch):
    calls = []

    class Request:
        def set_value(self, line, value):
            calls.append(("set", line, value))

        def get_value(self, line):
            return "active"

        def release(self):
            calls.append(("release",))

    def request_lines(chip, consumer, config):
        if 40 in config:
            raise OSError("no such line")
        calls.append((chip, consumer, tuple(config)))
        return Request()

    line = SimpleNamespace(
        Value=SimpleNamespace(ACTIVE="active", INACTIVE="inactive"),
        Direction=SimpleNamespace(OUTPUT="out", INPUT="in"),
    )
    fake = SimpleNamespace(request_lines=request_lines, LineSettings=lambda **settings: settings, line=line)
    monkeypatch.setitem(sys.modules, "gpiod", fake)
    machine = LinuxMachine("/dev/gpiochip0")
    machine.pin(17, OUT, 1).off()
    assert machine.pin(17, OUT).value() == 1
    with pytest.raises(BoardError, match="line 40"):
        machine.pin(40, OUT)
    machine.close()
    assert calls == [("/dev/gpiochip0", "concentrator", (17,)), ("set", 17, "inactive"), ("release",)]
