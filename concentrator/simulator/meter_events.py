"""What happens to a simulated meter: power failures of its load model, and what somebody lets happen to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis
from concentrator.simulator.load_model import LoadModel

POWER_DOWN_EVENT, POWER_UP_EVENT = 1, 2
TERMINAL_COVER_REMOVED, STRONG_DC_FIELD = 40, 42
# As IDIS places them: codes of the fraud detection log.
_FRAUD_CODES = range(40, 53)
_ALARM_DESCRIPTOR_1 = Obis(0, 0, 97, 98, 20, 255)
_SERIAL_NUMBER = Obis(0, 0, 96, 1, 0, 255)
_CONFIRMED = 0x4000_0000
_KEPT_DAYS = 90


class Happening(NamedTuple):
    """An entry of a log: seconds from 1970, and the code."""

    at: int
    code: int


class EventfulMeter(Protocol):
    """What the logs need of a meter."""

    load: LoadModel
    happenings: list[Happening]
    power_failures: list[tuple[int, int]]

    def now(self) -> datetime:
        """Its clock, in UTC."""
        ...

    def shown(self, moment: datetime) -> CosemDateTime:
        """A moment as it writes it."""
        ...


class EventRows:
    """The standard event log, or that of fraud detection, as rows of a profile."""

    period_s = 0

    def __init__(self, meter: EventfulMeter, *, fraud: bool) -> None:
        code = Obis(0, 0, 96, 11, 1 if fraud else 0, 255)
        self.columns: Sequence[CaptureObject] = (CLOCK_COLUMN, CaptureObject(1, code, 2))
        self._meter = meter
        self._fraud = fraud
        self._day = -1
        self._computed: list[Happening] = []

    def events(self) -> list[Happening]:
        """All entries of the log, oldest first."""
        now = int(self._meter.now().timestamp())
        happened = [one for one in self._meter.happenings if (one.code in _FRAUD_CODES) == self._fraud]
        if not self._fraud:
            if now // 86400 != self._day:
                self._day = now // 86400
                outages = [
                    self._meter.load.outage(day) for day in range(self._day - _KEPT_DAYS, self._day + 1)
                ]
                self._computed = [one for outage in outages if outage for one in _failure(outage)]
            happened += self._computed
            happened += [one for failure in self._meter.power_failures for one in _failure(failure)]
        return sorted(one for one in happened if one.at <= now)

    def entries(self) -> range:
        """All entries by their numbers."""
        return range(len(self.events()))

    def between(self, start: datetime | None, end: datetime | None) -> range:
        """The entries from one moment to another."""
        events = self.events()
        first = 0 if start is None else sum(1 for one in events if one.at < start.timestamp())
        last = len(events) if end is None else sum(1 for one in events if one.at <= end.timestamp())
        return range(first, max(first, last))

    def cells(self, entry: int) -> Sequence[bytes]:
        """One row."""
        moment, code = self.events()[entry]
        clock = self._meter.shown(datetime.fromtimestamp(moment, UTC)).to_bytes()
        return [b"\x09\x0c" + clock, bytes((0x11, code))]


def _failure(failure: tuple[int, int]) -> tuple[Happening, Happening]:
    start, end = failure
    return Happening(start, POWER_DOWN_EVENT), Happening(end, POWER_UP_EVENT)


def alarm_notification(
    serial: str, clock: CosemDateTime, register: int, bits: int, *, confirmed: bool
) -> DataNotification:
    """What a meter pushes when a bit of an alarm descriptor is set: its serial number and the descriptor."""
    descriptor = _ALARM_DESCRIPTOR_1._replace(e=_ALARM_DESCRIPTOR_1.e + register)
    body = axdr.structure(
        axdr.octet_string(bytes(_SERIAL_NUMBER)),
        axdr.octet_string(serial.encode()),
        axdr.octet_string(bytes(descriptor)),
        axdr.double_long_unsigned(bits),
    )
    return DataNotification(_CONFIRMED if confirmed else 0, clock.to_bytes(), body)
