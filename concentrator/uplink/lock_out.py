"""Clients that fail to prove who they are: each wrong proof after the first few makes the next wait longer.

Counted by address and client, so that a stranger does not lock out a head-end that comes from elsewhere. Bounded: the
longest forgotten give way.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FREE_FAILURES = 3
LONGEST_S = 300.0
_REMEMBERED = 4096
# The address that a client comes from, and its client SAP.
Suspect = tuple[str, int]


@dataclass(slots=True)
class _Record:
    failures: int = 0
    until: float = 0.0


class LockOut:
    """Who has to wait, and how long; times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._records: OrderedDict[Suspect, _Record] = OrderedDict()

    def left_s(self, suspect: Suspect, now: float) -> float:
        """Seconds that this client is not listened to any more; 0 for one that is."""
        record = self._records.get(suspect)
        return 0.0 if record is None else max(0.0, record.until - now)

    def failed(self, suspect: Suspect, now: float) -> float:
        """A proof was wrong; gives the seconds that the client is not listened to: 1, 2, 4 and so on, at most 300."""
        record = self._records.setdefault(suspect, _Record())
        self._records.move_to_end(suspect)
        if len(self._records) > _REMEMBERED:
            self._records.popitem(last=False)
        record.failures += 1
        beyond = record.failures - FREE_FAILURES
        wait = 0.0 if beyond <= 0 else min(LONGEST_S, 2.0 ** min(beyond - 1, 16))
        record.until = now + wait
        return wait

    def succeeded(self, suspect: Suspect) -> None:
        """It has proven who it is: what was before is forgotten."""
        self._records.pop(suspect, None)
