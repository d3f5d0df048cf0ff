"""The reset line of a silent modem, and the lamps."""

from __future__ import annotations

import asyncio

from board.machine import BoardError, Machine
from board.simulated import SimulatedMachine, simulated_board
from concentrator.config import BoardSection
from concentrator.links.board_control import BoardControl, make_board_control
from concentrator.tasks import cancel_and_wait
from plc.network import ModemLost, NetworkStarted

from bench import until

BOARD = simulated_board("/dev/plc", "/dev/radio")
RESET_PIN, ALIVE_PIN = 17, 23


async def test_a_modem_that_stays_silent_gets_one_pulse():
    machine = SimulatedMachine()
    control = BoardControl(BOARD, machine)
    task = asyncio.create_task(control.run(rest_s=0.0))
    control.note(ModemLost("no confirm"))
    control.note(NetworkStarted(b"", "came back"))
    control.note(ModemLost("no confirm"))
    await asyncio.sleep(0)
    assert machine.history == [], "it came back in between: once is not enough"
    control.note(ModemLost("no confirm"))
    await until(lambda: control.resets == 1)
    assert machine.history[-2:] == [(RESET_PIN, 0), (RESET_PIN, 1)]
    await cancel_and_wait(task)


async def test_resets_keep_their_distance():
    control = BoardControl(BOARD, SimulatedMachine())
    task = asyncio.create_task(control.run(rest_s=3600.0))
    for _ in range(10):
        control.note(ModemLost("no confirm"))
    await until(lambda: control.resets == 1)
    for _ in range(10):
        control.note(ModemLost("no confirm"))
    await asyncio.sleep(0.1)
    assert control.resets == 1
    await cancel_and_wait(task)


def test_lamps_are_lit_by_their_meaning():
    machine = SimulatedMachine()
    control = BoardControl(BOARD, machine)
    control.light("alive", lit=True)
    assert machine.levels[ALIVE_PIN] == 1
    control.light("alive", lit=False)
    assert machine.levels[ALIVE_PIN] == 0
    control.light("no such lamp", lit=True)


async def test_pins_that_cannot_be_driven_stop_nothing():
    class Broken(Machine):
        def pin(self, number, mode, value=None):
            raise BoardError("taken")

    control = BoardControl(BOARD, Broken())
    control.light("alive", lit=True)
    await control.reset_modem()
    assert control.resets == 0


def test_no_board_is_the_default():
    assert make_board_control(BoardSection()) is None
