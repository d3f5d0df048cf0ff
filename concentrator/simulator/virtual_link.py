"""A network driver and a simulated modem tied together in virtual time, with a serial line that may be bad.

Large runs (a week of five hundred meters) take seconds this way. The driver is the product's own; what a
shell on an event loop would do for it is done here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from concentrator.simulator.pty_port import SerialDevice
from concentrator.simulator.scheduler import VirtualScheduler
from plc.network import Event, Network


class NoisyLine:
    """Spoils octets on their way: each is lost, or has garbage put before it, by chance."""

    def __init__(self, loss: float = 0.0, garbage: float = 0.0, seed: int = 1) -> None:
        self.loss = loss
        self.garbage = garbage
        self._draws = random.Random(f"line {seed}")

    def __call__(self, data: bytes) -> bytes:
        """Give what arrives of the data."""
        if not self.loss and not self.garbage:
            return data
        arrived = bytearray()
        for octet in data:
            if self._draws.random() < self.garbage:
                arrived += self._draws.randbytes(self._draws.randint(1, 4))
            if self._draws.random() >= self.loss:
                arrived.append(octet)
        return bytes(arrived)


class VirtualLink:
    """Runs both sides; every event goes to `on_event` with the time it came at."""

    def __init__(
        self,
        network: Network,
        modem: SerialDevice,
        scheduler: VirtualScheduler,
        on_event: Callable[[Event, float], None],
        line: Callable[[bytes], bytes] = NoisyLine(),  # noqa: B008 a good line has no state
    ) -> None:
        self.line = line
        self.connected = True
        self._network = network
        self._modem = modem
        self._scheduler = scheduler
        self._on_event = on_event
        modem.output = self._from_modem

    def now(self) -> float:
        """Virtual seconds."""
        return self._scheduler.now()

    def _from_modem(self, data: bytes) -> None:
        if self.connected:
            self._network.receive_data(self.line(data), self.now())

    def _pump(self) -> None:
        while True:
            data = self._network.data_to_send()
            if data and self.connected:
                self._modem.receive_data(self.line(data))
            event = self._network.next_event()
            if event is not None:
                self._on_event(event, self.now())
            elif not data:
                return

    def run_until(self, moment: float) -> None:
        """Let everything happen that is due up to `moment`."""
        while True:
            self._pump()
            timeout = self._network.next_timeout()
            due = self._scheduler.next_due()
            following = min(time for time in (timeout, due, moment) if time is not None)
            if following >= moment:
                self._scheduler.run_until(moment)
                self._pump()
                return
            if due is not None and due <= following:
                self._scheduler.step()
            else:
                self._scheduler.run_until(following)
                self._network.handle_timeout(self.now())
                timeout = self._network.next_timeout()
                if timeout is not None and timeout <= self.now():
                    raise RuntimeError(f"the driver does not act on its time-out at {timeout}")

    def run_for(self, duration_s: float) -> None:
        """Let everything happen that is due within a duration."""
        self.run_until(self.now() + duration_s)

    def run_while(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Run in steps of a second as long as the condition holds; False when it still held at the limit."""
        end = self.now() + limit_s
        while condition():
            if self.now() >= end:
                return False
            self.run_for(1.0)
        return True
