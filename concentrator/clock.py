"""Where time comes from: one object that is handed to whoever needs to know the time.

Two times exist. `now()` is wall-clock time in UTC, for stamps that leave the box; it may jump when
NTP sets it, and it starts in 1970 on a board without a battery. `monotonic()` counts seconds, never
jumps, and is what timeouts are made of. Tests and the simulator in virtual time hand in their own.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

# A wall clock before this moment has not been set since power-up: no product of ours is older.
EARLIEST_PLAUSIBLE_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """The time, as the rest of the product sees it."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never runs backwards."""
        ...


class SystemClock:
    """The clock of the operating system."""

    def now(self) -> datetime:
        """Wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never runs backwards."""
        return time.monotonic()


def is_plausible(moment: datetime) -> bool:
    """Tell whether a wall-clock reading can be trusted, or comes from a clock that was never set."""
    return moment >= EARLIEST_PLAUSIBLE_TIME
