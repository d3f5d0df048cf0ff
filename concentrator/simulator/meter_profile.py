"""The periodic profiles of a simulated meter: rows as a function of time, of columns and period that clients set.

A change of either empties the buffer, as in real meters: rows begin anew from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject, is_clock, is_status
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject, capture_objects, refused
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.errors import DecodeError
from concentrator.obis import Obis
from concentrator.simulator.load_model import SLOT_S, LoadModel
from concentrator.simulator.meter_memory import MeterMemory

PROFILE_STATUS = Obis(0, 0, 96, 10, 1, 255)
_DAY_S = 86400
RETENTION_S = 60 * _DAY_S
_PERIODS_S = (60, 300, 600, 900, 1800, 3600, 86400)


class TruthRow(NamedTuple):
    """One row that a reader of the meter should end up with."""

    captured_at: datetime
    status: int | None
    values: tuple[int, ...]


class Host(Protocol):
    """The meter around it."""

    load: LoadModel
    installed_at: datetime
    dead: tuple[tuple[int, int], ...]
    forgotten: tuple[tuple[int, int], ...]

    def to_utc(self, local: datetime) -> datetime:
        """A local time as a moment."""
        ...

    def now(self) -> datetime:
        """The meter's clock, in UTC."""
        ...

    def profile_status(self, captured_at: datetime, period_s: int) -> int:
        """The status of the interval that ends then."""
        ...


class PeriodicRows:
    """Rows captured every so many seconds, numbered by the periods since 1970.

    `values` are the registers that it can capture, each by a function of time.
    """

    def __init__(
        self,
        host: Host,
        memory: MeterMemory,
        obis: Obis,
        period_s: int,
        energy: Sequence[Obis],
        others: dict[Obis, Callable[[datetime], int]],
        shown: Callable[[datetime], bytes],
    ) -> None:
        self.obis = obis
        self._host = host
        self._memory = memory
        self._energy = tuple(energy)
        self._others = others
        self._shown = shown
        columns = (
            CLOCK_COLUMN,
            CaptureObject(1, PROFILE_STATUS, 2),
            *(CaptureObject(3, one, 2) for one in energy),
        )
        memory.begin(obis, "capture_objects", capture_objects(columns))
        memory.begin(obis, "capture_period", axdr.double_long_unsigned(period_s))
        # Seconds since 1970 from which on the buffer holds rows.
        memory.begin(obis, "since", axdr.double_long_unsigned(0))
        self.columns: Sequence[CaptureObject] = columns
        self.period_s = period_s
        self._take_over()

    def _take_over(self) -> None:
        """Work by what the memory has."""
        columns = self._memory.get(self.obis, "capture_objects").items()
        self.columns = tuple([CaptureObject.from_data(column) for column in columns])
        self.period_s = self._memory.get(self.obis, "capture_period").integer()
        self._since = self._memory.get(self.obis, "since").integer()
        # The usual columns are served as fast as can be: a thousand meters are read by them.
        captured = tuple([one.obis for one in self.columns if one.class_id == 3])  # noqa: PLR2004 - Register
        self._usual = captured == self._energy

    def entries(self) -> Sequence[int]:
        """All rows in the buffer."""
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        """The rows captured between two moments."""
        now = self._host.now().timestamp()
        last = int(now + self._behind_s) // self.period_s
        first = max(last - RETENTION_S // self.period_s + 1, int(self._since) // self.period_s)
        if start is not None:
            first = max(first, int(start.timestamp()) // self.period_s)
        if end is not None:
            last = min(last, int(end.timestamp() + self._behind_s) // self.period_s)
        earliest = self._since if start is None else max(self._since, start.timestamp())
        earliest = max(earliest, self._host.installed_at.timestamp())
        latest = now if end is None else min(now, end.timestamp())
        while first <= last and self._captured(first) < earliest:
            first += 1
        while first <= last and self._captured(last) > latest:
            last -= 1
        lacking = self._host.dead + self._host.forgotten
        rows = range(first, last + 1)
        if not lacking:
            return rows
        return [n for n in rows if not any(a < self._captured(n) <= b for a, b in lacking)]

    @property
    def _behind_s(self) -> int:
        """How much earlier than its number says a day may end in UTC: it ends at local midnight."""
        return 3 * 3600 if self.period_s == _DAY_S else 0

    def _captured(self, entry: int) -> int:
        """When a row was captured, in seconds since 1970."""
        if self.period_s != _DAY_S:
            return entry * self.period_s
        midnight = datetime.fromtimestamp(entry * _DAY_S, UTC).replace(tzinfo=None)
        return int(self._host.to_utc(midnight).timestamp())

    def row(self, entry: int) -> TruthRow:
        """The row captured at the end of a period."""
        captured = self._captured(entry)
        captured_at = datetime.fromtimestamp(captured, UTC)
        status = self._host.profile_status(captured_at, self.period_s)
        if self._usual and self.period_s % SLOT_S == 0:
            return TruthRow(captured_at, status, self._host.load.at_slot(captured // SLOT_S))
        energy = dict(zip(self._energy, self._host.load.at(captured_at), strict=True))
        values = tuple(
            [
                energy[one.obis] if one.obis in energy else self._others[one.obis](captured_at)
                for one in self.columns
                if not is_clock(one) and not is_status(one)
            ]
        )
        return TruthRow(captured_at, status, values)

    def cells(self, entry: int) -> Sequence[bytes]:
        """The encoded cells of one row."""
        row = self.row(entry)
        numbers = iter(row.values)
        cells: list[bytes] = []
        for column in self.columns:
            if is_clock(column):
                cells.append(b"\x09\x0c" + self._shown(row.captured_at))
            elif is_status(column):
                cells.append(bytes((0x11, row.status or 0)))
            else:
                cells.append(b"\x06" + (next(numbers) & 0xFFFFFFFF).to_bytes(4, "big"))
        return cells

    def cosem_object(self, *, compressed: bool, default_deviation: int) -> CosemObject:
        """The object of class 7, whose columns and period can be set."""
        made = profile_object(
            self.obis,
            self,
            capacity=RETENTION_S // self.period_s,
            compressed=compressed,
            default_deviation=default_deviation,
        )
        made.attributes[3] = lambda: self._memory.get(self.obis, "capture_objects")
        made.attributes[4] = lambda: self._memory.get(self.obis, "capture_period")
        made.setters[3] = self._set_columns
        made.setters[4] = self._set_period
        made.methods[1] = self._reset
        return made

    def _set_columns(self, value: Data) -> None:
        try:
            columns = [CaptureObject.from_data(item) for item in value.items()]
        except DecodeError:
            raise refused(DataAccessResult.TYPE_UNMATCHED) from None
        known = {CLOCK_COLUMN, CaptureObject(1, PROFILE_STATUS, 2)}
        known |= {CaptureObject(3, one, 2) for one in (*self._energy, *self._others)}
        if not columns or not known.issuperset(columns):
            raise refused(DataAccessResult.OBJECT_UNDEFINED)
        self._memory.put(self.obis, "capture_objects", value)
        self._begin_anew()

    def _set_period(self, value: Data) -> None:
        if value.type is not axdr.DataType.DOUBLE_LONG_UNSIGNED:
            raise refused(DataAccessResult.TYPE_UNMATCHED)
        if value.integer() not in _PERIODS_S:
            raise refused(DataAccessResult.OTHER_REASON)
        self._memory.put(self.obis, "capture_period", value)
        self._begin_anew()

    def _reset(self, _parameter: Data | None) -> Data | None:
        self._begin_anew()
        return None

    def _begin_anew(self) -> None:
        now = int(self._host.now().timestamp())
        self._memory.put(self.obis, "since", axdr.double_long_unsigned(now))
        self._take_over()
