"""The event logs of a meter: which it has, what is new in them, and when to look again.

A log is a profile (class 7) that captures the clock and a code when something happens. Each is read from its newest
known entry on, a little before that, and what is known already is recognised; so entries are neither lost nor doubled,
whatever happens in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import structlog

from concentrator.clock import Clock
from concentrator.collection.event_codes import EventCodes, EventLog
from concentrator.collection.meter_reader import LocalTime, ProfileShape, read_range
from concentrator.dlms.attributes import AttributeDescriptor, CaptureObject, is_clock, is_status
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.dlms.profile import ProfileDecoder, ProfileRow, capture_objects
from concentrator.errors import TransientError
from concentrator.model import MeterEvent
from concentrator.obis import Obis
from concentrator.store.meter_events import OVERLAP_S, LogState
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")
_PROFILE_GENERIC = 7
# Event objects, whose value is the code of the last event: 0-b:96.11.e.
_EVENT_CODE = (96, 11)
# Nothing that a meter kept from before counts as news: logs can hold years.
_FIRST_READ = timedelta(days=90)
# A meter's clock may be ahead of ours.
_AHEAD = timedelta(days=1)
# A log that a meter does not have may come with new firmware.
_ABSENT_AGAIN = timedelta(days=30)
_ABSENT = "the meter has no such log"


class Converse(Protocol):
    """Carries a conversation with the meter that is being visited."""

    def __call__(self, conversation: Conversation[Result]) -> Awaitable[Result]:
        """Carry it to its result."""
        ...


def read_log_columns(
    client: Client, logs: Sequence[EventLog]
) -> Conversation[dict[Obis, tuple[CaptureObject, ...]]]:
    """What each log captures; a log that the meter does not have is left out."""
    answers = yield from client.get_many([AttributeDescriptor(_PROFILE_GENERIC, one.obis, 3) for one in logs])
    found: dict[Obis, tuple[CaptureObject, ...]] = {}
    for one, answer in zip(logs, answers, strict=True):
        if isinstance(answer, AccessError):
            continue
        columns = capture_objects(answer)
        if any(is_clock(column) for column in columns):
            found[one.obis] = columns
    return found


def read_log(  # noqa: PLR0913 - what one log's reading needs
    client: Client,
    obis: Obis,
    columns: tuple[CaptureObject, ...],
    first: datetime,
    last: datetime,
    local_time: LocalTime | None,
) -> Conversation[list[ProfileRow]]:
    """The entries of a log from `first` to `last`; of a meter that knows no ranges all that it has since `first`.

    Raises:
        AccessError: the log may not be read.
        DlmsError: what came makes no sense.
    """
    shape = ProfileShape(obis, 0, columns, ())
    try:
        return (yield from read_range(client, shape, first, last, local_time))
    except AccessError:
        deviation = None if local_time is None else local_time.normal_deviation
        decoder = ProfileDecoder(columns, 0, default_deviation=deviation)
        rows: list[ProfileRow] = []

        def receive_block(octets: bytes) -> None:
            decoder.receive_data(octets)
            rows.extend(decoder.rows())

        yield from client.get_encoded(
            AttributeDescriptor(_PROFILE_GENERIC, obis, 2), None, sink=receive_block
        )
        decoder.finish()
        return [row for row in rows if row.captured_at is not None and row.captured_at >= first]


def to_events(
    obis: Obis, columns: Sequence[CaptureObject], rows: Sequence[ProfileRow], codes: EventCodes
) -> list[MeterEvent]:
    """Entries of a log as events, in words. Entries without a time or a code are none."""
    values = [column for column in columns if not is_clock(column) and not is_status(column)]
    place = next((n for n, column in enumerate(values) if column.obis[2:4] == _EVENT_CODE), 0)
    group = codes.group_of(obis)
    seen: Counter[tuple[datetime, int]] = Counter()
    events: list[MeterEvent] = []
    for row in rows:
        at, code = row.captured_at, row.values[place] if len(row.values) > place else None
        if at is None or not isinstance(code, int):
            continue
        at = at.replace(microsecond=0)
        severity, kind, words = codes.event(code)
        more = [
            f"{column.obis}={_shown(value)}"
            for n, (column, value) in enumerate(zip(values, row.values, strict=False))
            if n != place and value is not None
        ]
        detail = "; ".join([words, *more])
        events.append(MeterEvent(obis, at, code, seen[at, code], group, severity, kind, detail))
        seen[at, code] += 1
    return events


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


@dataclass(slots=True)
class _Known:
    """What this run of the service knows of one meter's logs."""

    columns: dict[Obis, tuple[CaptureObject, ...]]
    next_read: float


class EventReader:
    """Reads the logs of whatever meter is visited, when they are due."""

    def __init__(self, store: Store, clock: Clock, interval_s: float) -> None:
        self._store = store
        self._clock = clock
        self._interval_s = interval_s
        self._known: dict[str, _Known] = {}

    def is_due(self, meter: str) -> bool:
        """Whether a meter's logs should be read now."""
        known = self._known.get(meter)
        return known is None or known.next_read <= self._clock.monotonic()

    def due_in_s(self, meter: str) -> float:
        """How long until a meter's logs should be read, in seconds."""
        known = self._known.get(meter)
        return 0.0 if known is None else max(0.0, known.next_read - self._clock.monotonic())

    def hurry(self, meter: str) -> None:
        """Something happened at a meter: its logs are due."""
        known = self._known.get(meter)
        if known is not None:
            known.next_read = 0.0

    async def read(  # noqa: PLR0913 - a visit's parts
        self,
        meter: str,
        client: Client,
        converse: Converse,
        local_time: LocalTime | None,
        codes: EventCodes,
    ) -> int:
        """Read what is new in every log of the meter that is being visited; returns how many events were new.

        Raises:
            TransientError: the meter or the link went away.
            StoreError: what it said could not be kept.
        """
        now = self._clock.now()
        states = {one.log: one for one in await self._store.event_log_states(meter)}
        known = self._known.get(meter)
        if known is None:
            known = _Known(await self._columns(meter, client, converse, codes, states), 0.0)
            self._known[meter] = known
        new = 0
        for obis, columns in known.columns.items():
            new += await self._read_one(
                meter, obis, columns, client, converse, local_time, codes, states.get(obis)
            )
        known.next_read = self._clock.monotonic() + self._interval_s
        if new:
            log.info("events read", meter=meter, new=new, at=now.isoformat(timespec="seconds"))
        return new

    async def _columns(
        self,
        meter: str,
        client: Client,
        converse: Converse,
        codes: EventCodes,
        states: dict[Obis, LogState],
    ) -> dict[Obis, tuple[CaptureObject, ...]]:
        now = self._clock.now()
        wanted = [
            one
            for one in codes.logs
            if one.obis not in states
            or states[one.obis].state != _ABSENT
            or now - states[one.obis].read_at > _ABSENT_AGAIN
        ]
        try:
            columns = await converse(read_log_columns(client, wanted)) if wanted else {}
        except TransientError:
            raise
        except DlmsError as error:
            log.info("event logs not found out", meter=meter, reason=str(error))
            return {}
        for one in wanted:
            if one.obis not in columns:
                await self._store.note_event_log(meter, one.obis, _ABSENT)
        return columns

    async def _read_one(  # noqa: PLR0913 - one log's parts
        self,
        meter: str,
        obis: Obis,
        columns: tuple[CaptureObject, ...],
        client: Client,
        converse: Converse,
        local_time: LocalTime | None,
        codes: EventCodes,
        state: LogState | None,
    ) -> int:
        now = self._clock.now()
        up_to = state.read_up_to if state is not None else None
        first = up_to - timedelta(seconds=OVERLAP_S) if up_to is not None else now - _FIRST_READ
        try:
            rows = await converse(read_log(client, obis, columns, first, now + _AHEAD, local_time))
        except TransientError:
            raise
        except DlmsError as error:
            # One log that cannot be read does not keep the others from being read.
            log.info("event log not read", meter=meter, log=str(obis), reason=str(error))
            await self._store.note_event_log(meter, obis, str(error))
            return 0
        events = to_events(obis, columns, rows, codes)
        newest = max((event.happened_at for event in events), default=up_to)
        return await self._store.store_meter_events(meter, obis, events, newest)


def companion_of(details: dict[str, str], default: str) -> str:
    """The companion specification of a meter whose registry entry names one, else the configured one."""
    return details.get("companion") or default
