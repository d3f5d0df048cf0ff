"""The billing profile of a simulated meter: its registers at the end of each period.

A period ends with the month, in local time, and whenever the script for it is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.obis import Obis
from concentrator.simulator.meter_memory import MeterMemory

BILLING_PROFILE = Obis(0, 0, 98, 1, 0, 255)
PERIOD_COUNTER = Obis(1, 0, 0, 1, 0, 255)
LAST_RESET = Obis(1, 0, 0, 1, 2, 255)
_MONTHS = 15
_CAPACITY = 48


class Billing:
    """The periods: ends of months as the calendar has them, and those of scripts as the memory keeps them."""

    period_s = 0

    def __init__(
        self,
        memory: MeterMemory,
        registers: Sequence[Obis],
        values: Callable[[datetime], Sequence[int]],
        now: Callable[[], datetime],
        to_utc: Callable[[datetime], datetime],
        shown: Callable[[datetime], bytes],
    ) -> None:
        self.columns: Sequence[CaptureObject] = (
            CLOCK_COLUMN,
            *(CaptureObject(3, obis, 2) for obis in registers),
        )
        self._memory = memory
        self._values = values
        self._now = now
        self._to_utc = to_utc
        self._shown = shown
        memory.begin(BILLING_PROFILE, "resets", axdr.array())

    def reset(self) -> None:
        """End the period now."""
        moment = axdr.double_long_unsigned(int(self._now().timestamp()))
        kept = self._memory.get(BILLING_PROFILE, "resets").items()
        self._memory.put(BILLING_PROFILE, "resets", axdr.array(*kept[-_CAPACITY:], moment))

    def _ends(self) -> list[datetime]:
        """When the periods in the buffer ended, oldest first."""
        now = self._now()
        year, month = now.year, now.month
        months: list[datetime] = []
        for _ in range(_MONTHS):
            months.append(self._to_utc(datetime(year, month, 1)))  # noqa: DTZ001 - the meter's local time
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        kept = self._memory.get(BILLING_PROFILE, "resets").items()
        resets = [datetime.fromtimestamp(item.integer(), UTC) for item in kept]
        return sorted(end for end in (*months, *resets) if end <= now)

    def periods(self) -> int:
        """How many periods have ended since 1970."""
        now = self._now()
        begun = self._to_utc(datetime(now.year, now.month, 1)) <= now  # noqa: DTZ001 - the meter's local time
        months = (now.year - 1970) * 12 + now.month - (0 if begun else 1)
        return months + len(self._memory.get(BILLING_PROFILE, "resets").items())

    def entries(self) -> range:
        """All rows."""
        return range(len(self._ends()))

    def between(self, start: datetime | None, end: datetime | None) -> range:
        """The rows captured between two moments."""
        ends = self._ends()
        first = 0 if start is None else sum(1 for one in ends if one < start)
        last = len(ends) if end is None else sum(1 for one in ends if one <= end)
        return range(first, max(first, last))

    def cells(self, entry: int) -> Sequence[bytes]:
        """One row."""
        moment = self._ends()[entry]
        numbers = [b"\x06" + (value & 0xFFFFFFFF).to_bytes(4, "big") for value in self._values(moment)]
        return [b"\x09\x0c" + self._shown(moment), *numbers]

    def truth(self) -> list[tuple[datetime, tuple[int, ...]]]:
        """The rows as a reader should end up with them."""
        return [(end, tuple(self._values(end))) for end in self._ends()]

    def cosem_objects(self, default_deviation: int) -> list[CosemObject]:
        """The profile, the number of periods and the time of the last end."""

        def last() -> Data:
            return axdr.octet_string(self._shown(self._ends()[-1]))

        profile = profile_object(
            BILLING_PROFILE, self, capacity=_CAPACITY, default_deviation=default_deviation
        )

        def capture(_parameter: Data | None) -> Data | None:
            self.reset()
            return None

        profile.methods[2] = capture
        return [
            profile,
            data(PERIOD_COUNTER, lambda: axdr.double_long_unsigned(self.periods())),
            data(LAST_RESET, last),
        ]
