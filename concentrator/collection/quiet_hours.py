"""Hours of the day in which routine reading rests, so that firmware gets through to nodes and meters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo

_HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `begin` up to `end` in local time; over midnight when the end is earlier. Equal: never."""

    begin: time = time()
    end: time = time()
    zone: tzinfo = UTC

    @classmethod
    def parse(cls, text: str, zone: tzinfo) -> QuietHours:
        """From text such as "02:00-04:00"; anything else is never."""
        match = _HOURS.match(text)
        if match is None:
            return cls()
        numbers = [int(group) for group in match.groups()]
        return cls(time(numbers[0], numbers[1]), time(numbers[2], numbers[3]), zone)

    @staticmethod
    def is_span(text: str) -> bool:
        """Whether a text names two times of day."""
        return bool(_HOURS.match(text))

    def holds(self, now: datetime) -> bool:
        """Whether reading rests now."""
        if self.begin == self.end:
            return False
        local = now.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= local < self.end
        return local >= self.begin or local < self.end
