"""How long a transmitter may be on the air: the duty cycle of the band (ERC/REC 70-03, EN 300 220).

Commands to meters go out on 868.3 MHz (modes S and T) or 869.525 MHz (mode C), where 1 % of an hour is allowed at
least. The time is reckoned by the slowest of them, mode S.
"""

from __future__ import annotations

from collections import deque

from concentrator.wmbus.frame import format_a_octets

ALLOWED_SHARE = 0.01
WINDOW_S = 3600.0
_SLOWEST_BITS_PER_S = 16_384  # 32.768 kcps, Manchester
_PREAMBLE_OCTETS = 10


def air_time_s(telegram: bytes) -> float:
    """How long a telegram (from its L-field, without CRCs) is on the air at most."""
    return (format_a_octets(telegram[0]) + _PREAMBLE_OCTETS) * 8 / _SLOWEST_BITS_PER_S


class DutyCycle:
    """Keeps account of the last hour; time is an argument (monotonic seconds)."""

    def __init__(self, share: float = ALLOWED_SHARE, window_s: float = WINDOW_S) -> None:
        self._budget_s = share * window_s
        self._window_s = window_s
        self._sent: deque[tuple[float, float]] = deque()
        self._used_s = 0.0

    def used_s(self, now: float) -> float:
        """The time on the air within the window that ends now."""
        while self._sent and self._sent[0][0] <= now - self._window_s:
            self._used_s -= self._sent.popleft()[1]
        return max(0.0, self._used_s)

    def take(self, duration_s: float, now: float) -> bool:
        """Enter a transmission; False, and nothing entered, when it would exceed what is allowed."""
        if self.used_s(now) + duration_s > self._budget_s:
            return False
        self._sent.append((now, duration_s))
        self._used_s += duration_s
        return True
