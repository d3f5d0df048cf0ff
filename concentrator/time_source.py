"""Whether the time of this box can be trusted: what the kernel says of its synchronisation.

The kernel knows, whichever program disciplines its clock (adjtimex(2), TIME_ERROR and STA_UNSYNC). The service's
sandbox (ProtectClock) forbids even that question, so that systemd's timedated is asked in its place. A clock that
steps is found by comparing it with the monotonic one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ctypes.util
import enum
from collections.abc import Awaitable, Callable

import structlog

from concentrator.clock import Clock, is_plausible

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

CHECK_INTERVAL_S = 60.0
_LARGEST_DRIFT_S = 2.0
_TIMEDATECTL = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
_ANSWER_TIMEOUT_S = 10.0
_TIME_ERROR = 5
# struct timex of Linux has 208 octets on 64-bit and 128 on 32-bit machines; the kernel writes no more.
_TIMEX_OCTETS = 256


class TimeState(enum.StrEnum):
    """How sure the time is."""

    NOT_SET = "not set"  # before this product was made: nobody has set it since power-up
    UNSYNCHRONISED = "not synchronised"
    SYNCHRONISED = "synchronised"
    UNKNOWN = "unknown"  # nobody can be asked


def ask_kernel() -> bool | None:
    """Whether the kernel's clock is synchronised; None where it may not be asked."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    adjtimex = getattr(library, "adjtimex", None)
    if adjtimex is None:
        return None
    # All zero: no mode is set, so nothing is changed.
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    return None if state < 0 else state != _TIME_ERROR


async def ask_timedated() -> bool | None:
    """Whether systemd says that the clock is synchronised; None where it cannot be asked."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_TIMEDATECTL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    return {b"yes": True, b"no": False}.get(output.strip())


async def is_synchronised() -> bool | None:
    """Ask the kernel, and timedated where that is forbidden."""
    told = ask_kernel()
    return told if told is not None else await ask_timedated()


class TimeWatch:
    """Keeps the state. All of `on_step` are called with the seconds that the clock jumped by."""

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[], Awaitable[bool | None]] = is_synchronised,
    ) -> None:
        self.state = TimeState.UNKNOWN if is_plausible(clock.now()) else TimeState.NOT_SET
        self.steps = 0
        self.on_step: list[Callable[[float], None]] = []
        self._clock = clock
        self._ask = ask
        self._difference = self._measure()

    @property
    def is_sure(self) -> bool:
        """Whether meters may be set by it."""
        return self.state is TimeState.SYNCHRONISED

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def look(self) -> None:
        """Look once."""
        difference = self._measure()
        step = difference - self._difference
        self._difference = difference
        if abs(step) > _LARGEST_DRIFT_S:
            self.steps += 1
            log.warning("the clock was set", step_s=round(step, 1), now=self._clock.now().isoformat())
            for listener in self.on_step:
                listener(step)
        synchronised = await self._ask()
        if not is_plausible(self._clock.now()):
            state = TimeState.NOT_SET
        elif synchronised is None:
            state = TimeState.UNKNOWN
        else:
            state = TimeState.SYNCHRONISED if synchronised else TimeState.UNSYNCHRONISED
        if state is not self.state:
            emit = log.info if state is TimeState.SYNCHRONISED else log.warning
            emit("time " + state.value)
        self.state = state

    def _measure(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
