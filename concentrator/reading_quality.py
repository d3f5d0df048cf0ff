"""Qualities of readings as IEC 61968-9 codes them: system.category.index, with what each says.

The system is where a quality was found: 1 the meter, 2 the metering network, which is this concentrator. Category and
index are the standard's tables of ReadingQualityType.
"""

from __future__ import annotations

from typing import NamedTuple

from concentrator.model import Quality

END_DEVICE, METERING_NETWORK = 1, 2


class ReadingQuality(NamedTuple):
    """One flag: who said it, category, index within it, and the words."""

    system: int
    category: int
    subcategory: int
    words: str

    @property
    def code(self) -> str:
        """As it is written: `2.5.258`."""
        return f"{self.system}.{self.category}.{self.subcategory}"


VALID = ReadingQuality(METERING_NETWORK, 0, 1, "validated")
_TABLE: dict[Quality, ReadingQuality] = {
    Quality.CLOCK_INVALID: ReadingQuality(END_DEVICE, 1, 9, "the meter's clock was invalid"),
    Quality.CLOCK_DOUBTFUL: ReadingQuality(END_DEVICE, 1, 9, "the meter's clock was doubtful"),
    Quality.POWER_DOWN: ReadingQuality(END_DEVICE, 2, 32, "power failed within the interval"),
    Quality.CLOCK_ADJUSTED: ReadingQuality(END_DEVICE, 4, 9, "the clock was set within the interval"),
    Quality.INFERRED_TIME: ReadingQuality(METERING_NETWORK, 11, 1, "the time was inferred"),
    Quality.NOT_VALIDATED: ReadingQuality(METERING_NETWORK, 10, 0, "no check could judge it"),
    Quality.SUSPECT: ReadingQuality(METERING_NETWORK, 5, 258, "suspect"),
    Quality.ESTIMATED: ReadingQuality(METERING_NETWORK, 8, 0, "estimated"),
    Quality.WRONG_DIGITS: ReadingQuality(END_DEVICE, 5, 257, "an error code in the place of a number"),
    Quality.OUT_OF_RANGE: ReadingQuality(METERING_NETWORK, 5, 256, "outside of the expected range"),
    Quality.RUNS_BACKWARDS: ReadingQuality(METERING_NETWORK, 6, 4, "the register ran backwards"),
    Quality.UNIT_UNEXPECTED: ReadingQuality(METERING_NETWORK, 4, 6, "unit or scaler changed"),
    Quality.SUM_CHECK: ReadingQuality(METERING_NETWORK, 6, 9, "intervals and registers disagree"),
    Quality.DIFFERS: ReadingQuality(METERING_NETWORK, 10, 0, "two values for the same time"),
    Quality.AFTER_GAP: ReadingQuality(END_DEVICE, 4, 4, "the interval before was skipped"),
    Quality.ROLLED_OVER: ReadingQuality(END_DEVICE, 4, 1, "the register overflowed"),
}


def reading_qualities(quality: Quality) -> tuple[ReadingQuality, ...]:
    """What IEC 61968-9 says of a value with these flags; `VALID` alone where there are none."""
    found = tuple(meaning for flag, meaning in _TABLE.items() if flag in quality)
    return found or (VALID,)
