"""The book that is kept of one profile of one meter: what is expected, there, closed and open."""

from __future__ import annotations

from dataclasses import dataclass, field

from concentrator.collection.gaps import BufferExtent, ClosedGap, OpenGap
from concentrator.store.collection_tables import GapRow


@dataclass(slots=True)
class ProfileBook:
    """What this run of the service knows of it; `open_gaps` is None until the store was asked.

    `extent_asked_at` is in seconds since 1970, `kept` what the store has of the open gaps.
    """

    extent: BufferExtent | None = None
    extent_asked_at: float = float("-inf")
    expected: int = 0
    stored: int = 0
    closed: int = 0
    missing: int = 0
    open_gaps: list[OpenGap] | None = None
    kept: list[GapRow] = field(default_factory=lambda: list[GapRow]())
    closed_gaps: list[ClosedGap] = field(default_factory=lambda: list[ClosedGap]())
    closed_as_of: int = -1  # how much the store had removed to make room when they were read
