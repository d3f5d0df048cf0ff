"""What the store knows around new values, for whoever judges how good they are.

The store asks its judge within the transaction that keeps an answer, so that nothing is ever kept unjudged and no
answer of the same meter comes in between. The judge itself is the collection's (`collection/validation.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from concentrator.model import Channel, Quality, Reading
from concentrator.obis import Obis

# Rows looked at on each side: a value that failed needs one more beyond it to tell who was wrong.
_NEIGHBOURS = 2
_ESTIMATED = int(Quality.ESTIMATED)


class Known(NamedTuple):
    """A value that is stored: capture time in seconds since 1970, raw value, status and flags."""

    at: int
    value: int | str
    status: int | None
    quality: int


def _nothing() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class JudgedMeter:
    """What the registry says of the meter that is judged."""

    identity: str
    details: dict[str, str] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is stored of a channel around new values: before the first, between them, behind the last, oldest first.

    For a channel without a value before them, `former` is the same quantity with the unit or scaler that it had.
    """

    before: Sequence[Known] = ()
    between: Sequence[Known] = ()
    behind: Sequence[Known] = ()
    former: tuple[Channel, Known] | None = None


class Verdict(NamedTuple):
    """The new values with their qualities, and the flags of stored ones that are judged anew, by capture time."""

    readings: Sequence[Reading]
    requalified: dict[int, int]


class Judge(Protocol):
    """Says how good the new values of one channel are."""

    def __call__(
        self,
        meter: JudgedMeter,
        channel: Channel,
        readings: Sequence[Reading],
        around: Surroundings,
        received_at: datetime,
    ) -> Verdict:
        """Judge `readings`, which are in the order of their capture times."""
        ...


def surroundings(
    connection: sqlite3.Connection, channel_id: int, first: int, last: int, between: Sequence[Known]
) -> Surroundings:
    """What is stored of a channel around `first` to `last`; estimates are left out."""
    before = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading WHERE channel_id = ? AND captured_at < ?"
        " AND quality & ? = 0 ORDER BY captured_at DESC LIMIT ?",
        (channel_id, first, _ESTIMATED, _NEIGHBOURS),
    ).fetchall()
    behind = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading WHERE channel_id = ? AND captured_at > ?"
        " AND quality & ? = 0 ORDER BY captured_at LIMIT ?",
        (channel_id, last, _ESTIMATED, _NEIGHBOURS),
    ).fetchall()
    former = None if before else _former(connection, channel_id, first)
    return Surroundings(
        [Known(*row) for row in reversed(before)], between, [Known(*row) for row in behind], former
    )


def _former(connection: sqlite3.Connection, channel_id: int, first: int) -> tuple[Channel, Known] | None:
    row = connection.execute(
        "SELECT one.unit, one.scaler, one.class_id, one.attribute, one.period_s, one.channel_id"
        " FROM channel AS one JOIN channel AS this USING (meter_id, profile, obis, class_id, attribute)"
        " WHERE this.channel_id = ?1 AND one.channel_id <> ?1 ORDER BY one.channel_id DESC LIMIT 1",
        (channel_id,),
    ).fetchone()
    if row is None:
        return None
    unit, scaler, class_id, attribute, period_s, other = row
    found = connection.execute(
        "SELECT captured_at, value, status, quality FROM reading WHERE channel_id = ? AND captured_at < ?"
        " AND quality & ? = 0 ORDER BY captured_at DESC LIMIT 1",
        (other, first, _ESTIMATED | int(Quality.SUSPECT)),
    ).fetchone()
    if found is None:
        return None
    (code,) = connection.execute("SELECT obis FROM channel WHERE channel_id = ?", (other,)).fetchone()
    return Channel(Obis.parse(code), unit, scaler, class_id, attribute, period_s), Known(*found)
