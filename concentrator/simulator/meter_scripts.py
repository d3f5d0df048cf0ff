"""Scripts and schedules of a simulated meter (classes 9, 22 and 10, Blue Book part 2, 4.5.2, 4.5.7 and 4.5.3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import CosemObject, refused
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import falls_on
from concentrator.obis import Obis
from concentrator.simulator.meter_memory import MeterMemory, kept_object

# The longest power failure after which what was missed is still looked at.
_LONGEST_CATCH_UP = timedelta(days=2)
_ANY_WINDOW = 0xFFFF
_WRITE, _EXECUTE = 1, 2


class ScriptAction(NamedTuple):
    """What one script does: execute a method of an object. `run` does it; `local` tells that the meter itself asks."""

    class_id: int
    obis: Obis
    method: int
    run: Callable[[bool], None]


class ScriptTables:
    """All script tables: selector to action, by table."""

    def __init__(self) -> None:
        self._tables: dict[Obis, dict[int, ScriptAction]] = {}

    def add(self, table: Obis, scripts: dict[int, ScriptAction]) -> None:
        """A table with its scripts."""
        self._tables[table] = scripts

    def execute(self, table: Obis, selector: int, *, local: bool) -> bool:
        """Execute a script; False where there is none."""
        action = self._tables.get(table, {}).get(selector)
        if action is None:
            return False
        action.run(local)
        return True

    def cosem_objects(self) -> list[CosemObject]:
        """An object of class 9 for each table."""
        return [self._cosem_object(table, scripts) for table, scripts in self._tables.items()]

    def _cosem_object(self, table: Obis, scripts: dict[int, ScriptAction]) -> CosemObject:
        listed = axdr.array(
            *(
                axdr.structure(
                    axdr.long_unsigned(selector),
                    axdr.array(
                        axdr.structure(
                            axdr.enumeration(_EXECUTE),
                            axdr.long_unsigned(action.class_id),
                            axdr.octet_string(bytes(action.obis)),
                            axdr.integer(action.method),
                            axdr.integer(0),
                        )
                    ),
                )
                for selector, action in scripts.items()
            )
        )

        def execute(parameter: Data | None) -> Data | None:
            if parameter is None or not self.execute(table, parameter.integer(), local=False):
                raise refused(ActionResult.OBJECT_UNDEFINED)
            return None

        return CosemObject(9, table, {2: listed}, methods={1: execute})


class SingleActionSchedule:
    """A script at moments that clients set."""

    def __init__(self, memory: MeterMemory, obis: Obis, table: Obis, selector: int) -> None:
        self._memory = memory
        self._obis = obis
        self._factory: dict[str, Data] = {
            "executed_script": axdr.structure(axdr.octet_string(bytes(table)), axdr.long_unsigned(selector)),
            "type": axdr.enumeration(1),
            "execution_time": axdr.array(),
        }
        for name, value in self._factory.items():
            memory.begin(obis, name, value)

    def due(self, since: datetime, now: datetime) -> tuple[Obis, int] | None:
        """The script, where one of its moments lies after `since` and not after `now` (local time)."""
        for item in self._memory.get(self._obis, "execution_time").items():
            at, day = (one.octets() for one in item.items(2)[:2])
            if _came(at, since, now, CosemDateTime.from_bytes(day)):
                table, selector = self._memory.get(self._obis, "executed_script").items(2)[:2]
                return Obis.from_bytes(table.octets()), selector.integer()
        return None

    def cosem_object(self) -> CosemObject:
        """The object of class 22."""

        def check_times(value: Data) -> None:
            for item in value.items():
                at, day = (one.octets() for one in item.items(2)[:2])
                if (len(at), len(day)) != (4, 5):
                    raise ValueError("a time has 4 octets, a date 5")

        return kept_object(
            self._memory,
            22,
            self._obis,
            self._factory,
            {
                "type": lambda value: (1, 2, 3, 4, 5).index(value.integer()),
                "execution_time": check_times,
                "executed_script": lambda value: Obis.from_bytes(value.items(2)[0].octets()),
            },
        )


class Schedule:
    """A table of scripts by time, weekday and season."""

    def __init__(self, memory: MeterMemory, obis: Obis) -> None:
        self._memory = memory
        self._obis = obis
        memory.begin(obis, "entries", axdr.array())

    def due(self, since: datetime, now: datetime) -> list[tuple[Obis, int]]:
        """The scripts whose times lie after `since` and not after `now` (local time), in the order of their entries."""
        found: list[tuple[Obis, int]] = []
        for entry in self._memory.get(self._obis, "entries").items():
            _index, enabled, table, selector, at, window, weekdays, _special, begin, end = entry.items(10)[
                :10
            ]
            minutes = window.integer()
            # What was missed while there was no power is made up for within the window.
            earliest = (
                since if minutes == _ANY_WINDOW else max(since, now - timedelta(minutes=max(1, minutes)))
            )
            days = weekdays.value if isinstance(weekdays.value, str) else ""
            if enabled.value and _came(
                at.octets(), earliest, now, None, days, (begin.octets(), end.octets())
            ):
                found.append((Obis.from_bytes(table.octets()), selector.integer()))
        return found

    def cosem_object(self) -> CosemObject:
        """The object of class 10."""

        def entries() -> dict[int, Data]:
            listed = self._memory.get(self._obis, "entries").items()
            return {entry.items(10)[0].integer(): entry for entry in listed}

        def put(changed: dict[int, Data]) -> None:
            self._memory.put(
                self._obis, "entries", axdr.array(*(changed[index] for index in sorted(changed)))
            )

        def enable_disable(parameter: Data | None) -> Data | None:
            first_off, last_off, first_on, last_on = _numbers(parameter, 4)
            changed: dict[int, Data] = {}
            for index, entry in entries().items():
                items = list(entry.items(10))
                if first_off <= index <= last_off:
                    items[1] = axdr.boolean(False)
                if first_on <= index <= last_on:
                    items[1] = axdr.boolean(True)
                changed[index] = axdr.structure(*items)
            put(changed)
            return None

        def insert(parameter: Data | None) -> Data | None:
            if parameter is None:
                raise refused(ActionResult.TYPE_UNMATCHED)
            put({**entries(), parameter.items(10)[0].integer(): parameter})
            return None

        def delete(parameter: Data | None) -> Data | None:
            first, last = _numbers(parameter, 2)
            put({index: entry for index, entry in entries().items() if not first <= index <= last})
            return None

        return kept_object(
            self._memory,
            10,
            self._obis,
            {"entries": axdr.array()},
            {"entries": _check_entries},
            {"enable_disable": enable_disable, "insert": insert, "delete": delete},
        )


def _check_entries(value: Data) -> None:
    for entry in value.items():
        index, _enabled, table, selector, at, _window, weekdays, _special, begin, end = entry.items(10)[:10]
        index.integer()
        selector.integer()
        Obis.from_bytes(table.octets())
        if weekdays.type is not DataType.BIT_STRING or len(str(weekdays.value)) != 7:
            raise ValueError("seven weekdays")
        if (len(at.octets()), len(begin.octets()), len(end.octets())) != (4, 5, 5):
            raise ValueError("a time has 4 octets, a date 5")


def _numbers(parameter: Data | None, count: int) -> list[int]:
    if parameter is None:
        raise refused(ActionResult.TYPE_UNMATCHED)
    return [item.integer() for item in parameter.items(count)[:count]]


def _came(
    at: bytes,
    since: datetime,
    now: datetime,
    pattern: CosemDateTime | None,
    weekdays: str = "1111111",
    season: tuple[bytes, bytes] | None = None,
) -> bool:
    """Whether a time of day came after `since` and not after `now`, on a day that fits."""
    hour, minute, second = (0 if part == 0xFF else part for part in at[:3])
    since = max(since, now - _LONGEST_CATCH_UP)
    day = since.date()
    while day <= now.date():
        moment = datetime.combine(day, datetime.min.time()).replace(hour=hour, minute=minute, second=second)
        fits = pattern is None or falls_on(pattern, day)
        fits = fits and weekdays[day.isoweekday() - 1 :][:1] == "1"
        fits = fits and (season is None or _within(day, season))
        if fits and since < moment <= now:
            return True
        day += timedelta(days=1)
    return False


def _within(day: date, season: tuple[bytes, bytes]) -> bool:
    """Whether a day lies between two dates whose year or all may be open."""
    begin, end = (CosemDateTime.from_bytes(octets) for octets in season)
    for bound, later in ((begin, True), (end, False)):
        if bound.month > 12 or bound.day > 31:
            continue
        year = day.year if bound.year == 0xFFFF else bound.year
        edge = date(year, bound.month, bound.day)
        if (day < edge) if later else (day > edge):
            return False
    return True
