"""What the simulated modems of all families share: counters, a clock, and callbacks that a restart cancels."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from concentrator.simulator.feeder import Feeder
from concentrator.simulator.scheduler import Scheduler


@dataclass(slots=True)
class ModemCounters:
    """What a simulation did, for tests and the demo. Each family counts what it can meet."""

    apdus_down: int = 0
    apdus_up: int = 0
    apdus_lost_down: int = 0
    apdus_lost_up: int = 0
    drops: int = 0
    joins: int = 0
    refused_commands: int = 0
    unknown_commands: int = 0
    slot_overruns: int = 0  # PRIME: messages that came while one was pending
    failed_authentications: int = 0  # G3
    collisions: int = 0  # S-FSK: reports that chose the same slot


class SimulatedModem:
    """A modem on a feeder. Set `output` to get its octets."""

    def __init__(
        self,
        name: str,
        scheduler: Scheduler,
        feeder: Feeder,
        seed: int,
        output: Callable[[bytes], None] | None,
        join_spread_s: float,
    ) -> None:
        self.output = output
        self.counters = ModemCounters()
        self.feeder = feeder
        self._scheduler = scheduler
        self._draws = random.Random(f"{name} {seed}")
        self._join_spread_s = join_spread_s
        self._epoch: int = 0  # counts restarts, so that callbacks of an earlier life do nothing

    def now(self) -> float:
        """Seconds of the scheduler."""
        return self._scheduler.now()

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back, unless the modem restarts before."""
        epoch = self._epoch
        self._scheduler.call_later(delay_s, lambda: callback() if epoch == self._epoch else None)

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after a pause of the protocol, which the feeder's speed divides."""
        self.after(delay_s / self.feeder.speed, callback)

    def write(self, octets: bytes) -> None:
        """Give octets to the host, if there is one."""
        if self.output is not None:
            self.output(octets)
