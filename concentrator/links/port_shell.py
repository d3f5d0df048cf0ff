"""The asyncio shell of anything sans-IO at the end of a serial line: a port, one timer, and back-off.

It feeds the driver bytes and the time, writes what the driver wants written, hands out its events, and
reopens a lost port with growing pauses. It knows no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

import structlog

from concentrator.links.backoff import Backoff
from concentrator.links.errors import PortError
from concentrator.links.serial_port import SerialPort

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# The state in which the device answers.
RUNNING = "running"

EventType_co = TypeVar("EventType_co", covariant=True)
EventType = TypeVar("EventType")


class Driver(Protocol[EventType_co]):
    """What the shell drives: a PLC network or a radio module."""

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened."""
        ...

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes."""
        ...

    def data_to_send(self) -> bytes:
        """Give the bytes to write now."""
        ...

    def next_event(self) -> EventType_co | None:
        """Give the oldest event, or None."""
        ...

    def next_timeout(self) -> float | None:
        """Tell when handle_timeout() wants to be called, or None."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that has run out."""
        ...


class Port(Protocol):
    """What carries the octets: a serial port, or what a board has in its place."""

    @property
    def port(self) -> str:
        """Its name, for messages."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        ...

    def open(self) -> None:
        """Open it. Raises PortError."""
        ...

    def write(self, data: bytes) -> None:
        """Queue octets."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


# Makes a port from its path and speed, and from what to call with octets and with the reason of a loss.
PortMaker: TypeAlias = Callable[[str, int, Callable[[bytes], None], Callable[[str], None]], Port]


class PortShell(Generic[EventType]):
    """One driver on one port. `state` and `reason` say how it is, in words for the page."""

    def __init__(  # noqa: PLR0913 - a port, and what to do with what it brings
        self,
        what: str,
        driver: Driver[EventType],
        port: str,
        baud_rate: int,
        on_event: Callable[[EventType], None],
        on_port_lost: Callable[[str], None],
        on_progress: Callable[[], None],
        make_port: PortMaker = SerialPort,
    ) -> None:
        self.state = "closed"
        self.reason = ""
        # Told of all octets as they pass while somebody watches: first whether they come from the device.
        self.tap: Callable[[bool, bytes], None] | None = None
        self._what = what
        self._driver = driver
        self._on_event = on_event
        self._on_port_lost = on_port_lost
        self._on_progress = on_progress
        self._port = make_port(port, baud_rate, self._data_received, self._port_lost)
        self._lost = asyncio.Event()
        self._backoff = Backoff()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> str:
        """Path of the serial port."""
        return self._port.port

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._port.is_open

    async def run(self) -> None:
        """Keep the port open and the driver going, until cancelled."""
        try:
            while True:
                self._lost.clear()
                try:
                    self._port.open()
                except PortError as error:
                    self.set_state("port missing", str(error))
                    self._on_progress()
                else:
                    self.set_state("starting", "")
                    self._driver.start(asyncio.get_running_loop().time())
                    self.pump()
                    await self._lost.wait()
                await asyncio.sleep(self._backoff.next_delay_s())
        finally:
            self._stop_timer()
            self._port.close()

    def works(self) -> None:
        """The device answered: the next loss is met with the shortest pause again."""
        self._backoff.succeeded()
        self.set_state(RUNNING, "")

    def pump(self) -> None:
        """Write what is to be written, hand out what happened, set the timer anew."""
        self._flush()
        while (event := self._driver.next_event()) is not None:
            self._on_event(event)
        # Handling an event can make the driver want to write.
        self._flush()
        self._on_progress()
        self._stop_timer()
        at = self._driver.next_timeout()
        if at is not None and self._port.is_open:
            self._timer = asyncio.get_running_loop().call_at(at, self._timer_fired)

    def set_state(self, state: str, reason: str) -> None:
        """Say how it is; a change is logged."""
        if (state, reason) != (self.state, self.reason):
            emit = log.info if state in ("starting", RUNNING) else log.warning
            emit(f"{self._what} {state}", port=self.port, reason=reason)
        self.state, self.reason = state, reason

    def _flush(self) -> None:
        if data := self._driver.data_to_send():
            if self.tap is not None:
                self.tap(False, data)  # noqa: FBT003 - the direction
            self._port.write(data)

    def _data_received(self, data: bytes) -> None:
        if self.tap is not None:
            self.tap(True, data)  # noqa: FBT003 - the direction
        self._driver.receive_data(data, asyncio.get_running_loop().time())
        self.pump()

    def _timer_fired(self) -> None:
        self._timer = None
        self._driver.handle_timeout(asyncio.get_running_loop().time())
        self.pump()

    def _port_lost(self, reason: str) -> None:
        self._stop_timer()
        self.set_state("port lost", reason)
        self._on_port_lost(reason)
        self._lost.set()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
