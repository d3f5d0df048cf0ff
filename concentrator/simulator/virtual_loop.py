"""An event loop in virtual time: when nothing is ready, time jumps to the next timer.

The product runs on it unchanged, with its own sleeps and time-outs; days of a substation pass in minutes, and the
same seed gives the same run. Only work on threads takes real time, during which the virtual one stands still. All that
the product speaks with has to be on this loop too: nothing waits for the outside world.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

from concentrator.simulator.pty_port import SerialDevice

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class _VirtualSelector(selectors.SelectSelector):
    """Never waits for a timer: tells the loop how far it may jump instead."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float], None] = lambda _: None
        self.on_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.on_threads or timeout is None:
            return super().select(None)
        self.jump(timeout)
        return []


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual and starts at 0."""

    def __init__(self) -> None:
        self._virtual_selector = _VirtualSelector()
        self._now = 0.0
        super().__init__(self._virtual_selector)
        self._virtual_selector.jump = self._jump

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def run_in_executor(  # pyright: ignore[reportIncompatibleMethodOverride] - the base's is made of overloads
        self,
        executor: Executor | None,
        func: Callable[[*Arguments], Result],
        *args: *Arguments,
    ) -> asyncio.Future[Result]:
        """Run on a thread; virtual time waits for it."""
        future: asyncio.Future[Result] = super().run_in_executor(executor, func, *args)
        self._virtual_selector.on_threads += 1

        def done(_: asyncio.Future[Any]) -> None:
            self._virtual_selector.on_threads -= 1

        future.add_done_callback(done)
        return future


class VirtualClock:
    """The product's clock on a virtual loop: wall-clock time begins at `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime) -> None:
        self._loop = loop
        self._start = start.astimezone(UTC)

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        return self._start + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()


class DirectPort:
    """A serial port without a serial line: octets reach the simulated device, and come back, in the next turn."""

    def __init__(
        self,
        device: SerialDevice,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[str], None],  # noqa: ARG002 the driver's contract: nothing pulls this cable
    ) -> None:
        self.port = "virtual"
        self._device = device
        self._on_data = on_data
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._open

    def open(self) -> None:
        """Open it."""
        self._open = True
        self._device.output = self._arrived

    def write(self, data: bytes) -> None:
        """Send octets to the device."""
        if self._open:
            asyncio.get_running_loop().call_soon(self._device.receive_data, bytes(data))

    def close(self) -> None:
        """Close it."""
        self._open = False
        self._device.output = None

    def _arrived(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if self._open:
            self._on_data(data)
