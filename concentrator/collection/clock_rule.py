"""What to do about a meter's clock: leave it, bring it nearer in small steps, or say that somebody has to look.

Billing hangs on intervals, and a clock that jumps makes one interval longer or shorter than it says. So a small
error is left, a larger one is taken away in steps that stay within the interval that is being captured, and one above
a limit is never corrected without an order (concentrator-practice, section 1). Steps are those of Clock.shift_time
(Blue Book, class 8, method 6: at most 900 seconds either way).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

LARGEST_SHIFT_S = 900


class ClockAction(enum.StrEnum):
    """What the rule says."""

    LEAVE = "leave"
    SHIFT = "shift"
    WAIT = "wait"  # a step now would cross an interval's end, or our own time is not sure
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class ClockDecision:
    """An action, the seconds to shift the meter's clock by, and the reason in words."""

    action: ClockAction
    shift_s: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClockRule:
    """Seconds: below `leave_s` nothing is done, above `limit_s` an order is needed, one step is at most `step_s`."""

    leave_s: int = 30
    limit_s: int = 3600
    step_s: int = 60

    def decide(
        self, offset_s: float, meter_time: datetime, period_s: int, *, time_is_sure: bool
    ) -> ClockDecision:
        """Decide for a meter that is `offset_s` ahead (negative: behind), and captures every `period_s` seconds.

        `meter_time` is what the meter's clock shows, in UTC; `time_is_sure` says that ours is synchronised.
        """
        size = abs(offset_s)
        if size < self.leave_s:
            return ClockDecision(ClockAction.LEAVE)
        ahead = f"the meter's clock is {size:.0f} s {'ahead' if offset_s > 0 else 'behind'}"
        if not time_is_sure:
            return ClockDecision(ClockAction.WAIT, reason=f"{ahead}; our own time is not synchronised")
        if size > self.limit_s:
            return ClockDecision(
                ClockAction.FLAG, reason=f"{ahead}: more than {self.limit_s} s needs an order"
            )
        shift = round(-offset_s)
        step = max(-self.step_s, min(self.step_s, shift))
        if period_s > 0 and _interval(meter_time, 0, period_s) != _interval(meter_time, step, period_s):
            return ClockDecision(
                ClockAction.WAIT, reason=f"{ahead}; a step now would cross an interval's end"
            )
        return ClockDecision(ClockAction.SHIFT, step, ahead)


def _interval(meter_time: datetime, later_s: int, period_s: int) -> int:
    # A margin of a few seconds: the step takes its time to get there.
    return int(meter_time.timestamp() + later_s + (2 if later_s else 0)) // period_s
