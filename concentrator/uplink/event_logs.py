"""The concentrator's event logs as Profile generic objects: all of it, and what belongs to one matter.

Each row is the time, the event's number, and words. Rows count from the oldest of what is kept, 1000 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.obis import Obis
from concentrator.uplink.management_names import (
    ACCESS_LOG,
    COMMUNICATION_LOG,
    EVENT_CODE,
    EVENT_LOG,
    EVENT_TEXT,
    FIRMWARE_LOG,
)
from concentrator.uplink.stored_meters import StoredMeters, moment_octets, text

# Numbers of the event log's codes; what has none is 0, with its name in the text. New ones go to the end.
EVENT_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            "service_started",
            "service_stopped",
            "clock_step",
            "clock_state",
            "modem_state",
            "radio_state",
            "destination_state",
            "store_state",
            "meter_state",
            "value_differs",
            "clock_shifted",
            "clock_set",
            "clock_wrong",
            "store_set_aside",
            "access",
            "head_end",
            "boot",
            "fault",
            "updated",
            "update",
            "registration",
            "mbus_state",
            "p1_state",
        ),
        1,
    )
}
_LOGS: tuple[tuple[Obis, tuple[str, ...]], ...] = (
    (EVENT_LOG, ()),
    (ACCESS_LOG, ("access", "head_end")),
    (
        COMMUNICATION_LOG,
        ("modem_state", "radio_state", "mbus_state", "p1_state", "destination_state", "registration"),
    ),
    (FIRMWARE_LOG, ("update", "updated", "boot")),
)
_CAPACITY = 1000


def event_log_objects(stored: StoredMeters) -> list[CosemObject]:
    """The logs, and of each the objects of its columns."""
    found = [data(EVENT_TEXT, lambda: text(_last(stored, ())[1]))]
    for log, codes in _LOGS:
        number = Obis(*EVENT_CODE[:4], log.e, 255)
        found += [
            data(number, lambda codes=codes: axdr.unsigned(_last(stored, codes)[0])),
            profile_object(log, _EventRows(stored, number, codes), capacity=_CAPACITY),
        ]
    return found


def _last(stored: StoredMeters, codes: Sequence[str]) -> tuple[int, str]:
    events = stored.events(None, None, codes)
    return (EVENT_NUMBERS.get(events[-1][1], 0), events[-1][2]) if events else (0, "")


class _EventRows:
    """The rows of one log."""

    period_s = 0

    def __init__(self, stored: StoredMeters, number: Obis, codes: Sequence[str]) -> None:
        self.columns: Sequence[CaptureObject] = (
            CLOCK_COLUMN,
            CaptureObject(1, number, 2),
            CaptureObject(1, EVENT_TEXT, 2),
        )
        self._stored = stored
        self._codes = codes
        self._found: list[tuple[int, str, str]] = []

    def entries(self) -> Sequence[int]:
        """All that are kept."""
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        """Those of a span."""
        first = None if start is None else int(start.timestamp())
        last = None if end is None else int(end.timestamp())
        self._found = self._stored.events(first, last, self._codes)
        return range(len(self._found))

    def cells(self, entry: int) -> Sequence[bytes]:
        """When, which code, and what."""
        at, code, detail = self._found[entry]
        number = EVENT_NUMBERS.get(code, 0)
        words = detail if number else f"{code}: {detail}"
        return [
            axdr.octet_string(moment_octets(at)).to_bytes(),
            axdr.unsigned(number).to_bytes(),
            text(words).to_bytes(),
        ]
