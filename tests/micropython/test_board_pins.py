"""Boards as data, and pins that are only remembered. Runs on CPython and on MicroPython."""

import unittest

from board.machine import IN, OUT, BoardError, reset_steps, set_led
from board.raspberry_pi import BOARD
from board.simulated import SimulatedMachine, simulated_board


class BoardTest(unittest.TestCase):
    def test_the_raspberry_pi_names_its_ports_by_role(self):
        self.assertEqual(BOARD.serial_port("plc").path, "/dev/ttyAMA0")
        self.assertEqual(BOARD.serial_port("optical"), None)
        pins = [line.pin for line in BOARD.resets] + [led.pin for led in BOARD.leds]
        self.assertEqual(len(pins), len(set(pins)))
        self.assertTrue(all([0 <= pin <= 27 for pin in pins]))

    def test_a_reset_pulse_has_the_polarity_of_its_line(self):
        machine = SimulatedMachine()
        line = simulated_board("/dev/pts/1", "/dev/pts/2").reset_line("plc")
        pin = machine.pin(line.pin, OUT, 1)
        waited = 0.0
        for level, seconds in reset_steps(line):
            pin.value(level)
            waited += seconds
        self.assertEqual(machine.history, [(17, 1), (17, 0), (17, 1)])
        self.assertAlmostEqual(waited, line.pulse_s + line.settle_s)

    def test_lights_are_lit_by_their_meaning(self):
        machine = SimulatedMachine()
        self.assertTrue(set_led(machine, BOARD, "alive", True))
        self.assertEqual(machine.levels[23], 1)
        self.assertTrue(set_led(machine, BOARD, "alive", False))
        self.assertEqual(machine.levels[23], 0)
        self.assertFalse(set_led(machine, BOARD, "disco", True))

    def test_an_input_cannot_be_driven_and_a_missing_line_not_opened(self):
        machine = SimulatedMachine()
        with self.assertRaises(BoardError):
            machine.pin(3, IN).value(1)
        with self.assertRaises(BoardError):
            machine.pin(99, OUT)


if __name__ == "__main__":
    unittest.main()
