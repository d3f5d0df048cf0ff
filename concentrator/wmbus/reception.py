"""How well meters are heard: last time, interval, strength, missed transmissions, copies from repeaters.

A meter counts its transmissions in the access number; two telegrams that are n apart in it tell the interval, and
that n - 1 between them were missed. A meter without access number is judged by its interval alone. A telegram that
says word for word what the last one said, with the same access number, is a repeater's copy. Time is an argument
(seconds that survive a restart, such as Unix time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_ACCESS_NUMBERS = 256
# A copy follows within a few seconds; a meter without access number may say the same again soon after.
_COPY_WINDOW_S, _COPY_WINDOW_WITHOUT_NUMBER_S = 60.0, 3.0
# Weight of the newest interval and strength in what is shown.
_WEIGHT = 0.125
# After so many intervals the access number may have gone round: nothing is counted as missed.
_LONGEST_GAP = 200
_SHORTEST_INTERVAL_S = 1.0


@dataclass(slots=True)
class Reception:
    """One meter, or one module (then `missed` and `interval_s` stay as they are)."""

    received: int = 0
    missed: int = 0
    duplicates: int = 0
    last_heard_at: float | None = None
    interval_s: float | None = None
    rssi_dbm: float | None = None
    access_number: int | None = None
    fingerprint: int | None = None

    def note(
        self, heard_at: float, rssi_dbm: int | None, access_number: int | None, fingerprint: int
    ) -> bool:
        """Enter a telegram; False when it is a copy of the last one, which is only counted."""
        if self._is_copy(heard_at, access_number, fingerprint):
            self.duplicates += 1
            return False
        self._count_missed(heard_at, access_number)
        self.received += 1
        self.last_heard_at, self.access_number, self.fingerprint = heard_at, access_number, fingerprint
        if rssi_dbm is not None:
            self.rssi_dbm = _smoothed(self.rssi_dbm, float(rssi_dbm))
        return True

    @property
    def received_share(self) -> float | None:
        """The share of its transmissions that was received; None before there were any."""
        sent = self.received + self.missed
        return self.received / sent if sent else None

    def to_json(self) -> dict[str, Any]:
        """All fields, for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reception:
        """From what `to_json` gave; fields that are not known are left out.

        Raises:
            TypeError, ValueError: a value that is no number.
        """
        known = {one.name for one in fields(cls)}
        found = {name: value for name, value in values.items() if name in known}
        if any(value is not None and not isinstance(value, int | float) for value in found.values()):
            raise ValueError("a reception statistic is made of numbers")
        return cls(**found)

    def _is_copy(self, heard_at: float, access_number: int | None, fingerprint: int) -> bool:
        if self.last_heard_at is None or fingerprint != self.fingerprint:
            return False
        window = _COPY_WINDOW_WITHOUT_NUMBER_S if access_number is None else _COPY_WINDOW_S
        return access_number == self.access_number and 0 <= heard_at - self.last_heard_at <= window

    def _count_missed(self, heard_at: float, access_number: int | None) -> None:
        if self.last_heard_at is None or heard_at <= self.last_heard_at:
            return
        gap_s = heard_at - self.last_heard_at
        steps = 1
        if access_number is not None and self.access_number is not None:
            steps = (access_number - self.access_number) % _ACCESS_NUMBERS or _ACCESS_NUMBERS
        elif self.interval_s is not None:
            steps = max(1, round(gap_s / self.interval_s))
        if self.interval_s is not None and gap_s > self.interval_s * _LONGEST_GAP:
            return
        if steps <= _LONGEST_GAP and gap_s / steps >= _SHORTEST_INTERVAL_S:
            self.missed += steps - 1
            self.interval_s = _smoothed(self.interval_s, gap_s / steps)


def _smoothed(before: float | None, newest: float) -> float:
    return newest if before is None else before + (newest - before) * _WEIGHT
