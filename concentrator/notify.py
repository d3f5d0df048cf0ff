"""What the service manager is told: ready, status, stopping, and that the work goes on (sd_notify(3)).

The watchdog is fed only while every registered work loop proves progress: a loop that hangs lets the
service manager restart us, however well the others do. Without a service manager nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from concentrator.clock import Clock
from concentrator.errors import LocalError

# Asked for this often within the limit, so that one late message is no restart.
_WATCHDOG_MESSAGES_PER_LIMIT = 3
_CHECK_WITHOUT_WATCHDOG_S = 5.0


class NotifyError(LocalError):
    """A loop that was not registered gave a sign of life, or NOTIFY_SOCKET is no address."""


class Notifier:
    """The socket that the service manager opened for us; `address` "" means there is none."""

    def __init__(self, address: str = "") -> None:
        if address and address[0] not in "/@":
            raise NotifyError(f"NOTIFY_SOCKET must be a path or start with @, got {address!r}")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Notifier:
        """The one named by NOTIFY_SOCKET."""
        return cls((os.environ if environment is None else environment).get("NOTIFY_SOCKET", ""))

    def send(self, **fields: str | int) -> None:
        """Send fields such as READY=1. A service manager that went away is no reason to stop working."""
        if not self._address:
            return
        text = "\n".join(f"{name}={_one_line(str(value))}" for name, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)

    def ready(self, status: str = "running") -> None:
        """Start-up is done."""
        self.send(READY=1, STATUS=status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self.send(STATUS=text)

    def stopping(self, status: str = "stopping") -> None:
        """Shutdown has begun."""
        self.send(STOPPING=1, STATUS=status)

    def watchdog(self) -> None:
        """Still alive."""
        self.send(WATCHDOG=1)


def watchdog_limit_s(environment: Mapping[str, str] | None = None) -> float | None:
    """WatchdogSec= as the service manager told it, or None when it watches no one, or not us."""
    found = os.environ if environment is None else environment
    microseconds = found.get("WATCHDOG_USEC", "")
    owner = found.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (owner and owner != str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000


class Watchdog:
    """Collects signs of life of the work loops and passes them on together.

    Each loop registers with the longest time that it may need between two signs of life, and calls
    `beat` whenever it got something done. `run` is the task that feeds the service manager.
    """

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        limit_s: float | None = None,
        on_overdue: Callable[[tuple[str, ...]], None] | None = None,
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._limit_s = limit_s
        self._on_overdue = on_overdue
        self._limits: dict[str, float] = {}
        self._beats: dict[str, float] = {}
        self._told: tuple[str, ...] = ()

    def register(self, name: str, limit_s: float) -> None:
        """A loop begins; its first sign of life is now."""
        self._limits[name] = limit_s
        self._beats[name] = self._clock.monotonic()

    def unregister(self, name: str) -> None:
        """A loop ended as it should: nobody waits for it any more."""
        self._limits.pop(name, None)
        self._beats.pop(name, None)

    def beat(self, name: str) -> None:
        """A loop got something done.

        Raises:
            NotifyError: no loop of that name is registered.
        """
        if name not in self._limits:
            raise NotifyError(f"no work loop {name!r} is registered: {', '.join(self._limits) or 'none is'}")
        self._beats[name] = self._clock.monotonic()

    def overdue(self) -> tuple[str, ...]:
        """The loops whose last sign of life is longer ago than they may need."""
        now = self._clock.monotonic()
        return tuple(name for name, limit_s in self._limits.items() if now - self._beats[name] > limit_s)

    def check(self) -> bool:
        """Feed the service manager if every loop is alive; else tell once which one is not."""
        overdue = self.overdue()
        if not overdue:
            self._notifier.watchdog()
        elif overdue != self._told:
            self._notifier.status(f"no progress: {', '.join(overdue)}")
            if self._on_overdue is not None:
                self._on_overdue(overdue)
        self._told = overdue
        return not overdue

    async def run(self) -> None:
        """Check until cancelled, often enough for the service manager's limit."""
        interval_s = (
            _CHECK_WITHOUT_WATCHDOG_S
            if self._limit_s is None
            else self._limit_s / _WATCHDOG_MESSAGES_PER_LIMIT
        )
        while True:
            self.check()
            await asyncio.sleep(interval_s)


def _one_line(text: str) -> str:
    return " ".join(text.split())
