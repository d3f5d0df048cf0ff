"""Activity calendar and special days of a simulated meter (classes 20 and 11, Blue Book part 2, 4.5.5 and 4.5.4)."""

from __future__ import annotations

from datetime import datetime

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import CosemObject, refused
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import falls_on, last_moment
from concentrator.obis import Obis
from concentrator.simulator.meter_memory import MeterMemory, kept_object

_PARTS = ("calendar_name", "season_profile", "week_profile_table", "day_profile_table")
_TIME = "activate_passive_calendar_time"


def _day(identifier: int, script_table: Obis, *actions: tuple[int, int]) -> Data:
    return axdr.structure(
        axdr.unsigned(identifier),
        axdr.array(
            *(
                axdr.structure(
                    axdr.octet_string(bytes((hour, 0, 0, 0))),
                    axdr.octet_string(bytes(script_table)),
                    axdr.long_unsigned(selector),
                )
                for hour, selector in actions
            )
        ),
    )


class Calendar:
    """Which tariff is in force: a special day's profile, else that of season and weekday."""

    def __init__(self, memory: MeterMemory, obis: Obis, special_days: Obis, script_table: Obis) -> None:
        self._memory = memory
        self._obis = obis
        self._special_days = special_days
        start = CosemDateTime(month=1, day=1, hour=0, minute=0, second=0, hundredths=0)
        factory = (
            axdr.octet_string(b"FACTORY"),
            axdr.array(
                axdr.structure(
                    axdr.octet_string(b"S1"), axdr.octet_string(start.to_bytes()), axdr.octet_string(b"W1")
                )
            ),
            axdr.array(
                axdr.structure(axdr.octet_string(b"W1"), *[axdr.unsigned(1)] * 5, *[axdr.unsigned(2)] * 2)
            ),
            axdr.array(_day(1, script_table, (0, 2), (7, 1), (22, 2)), _day(2, script_table, (0, 2))),
        )
        for part, value in zip(_PARTS, factory, strict=True):
            for kind in ("active", "passive"):
                memory.begin(obis, f"{part}_{kind}", value)
        memory.begin(obis, _TIME, axdr.octet_string(CosemDateTime().to_bytes()))
        memory.begin(special_days, "entries", axdr.array())

    def activate(self) -> None:
        """The passive calendar becomes the active one too."""
        values = [self._memory.get(self._obis, f"{part}_passive") for part in _PARTS]
        for part, value in zip(_PARTS, values, strict=True):
            self._memory.put(self._obis, f"{part}_active", value)

    def advance(self, now: datetime, local: datetime) -> None:
        """Activate the passive calendar when its time has come."""
        wanted = CosemDateTime.from_bytes(self._memory.get(self._obis, _TIME).octets())
        if not wanted.is_moment:
            return
        due = wanted.local() <= local if wanted.utc_offset is None else wanted.to_utc() <= now
        if due:
            self._memory.put(self._obis, _TIME, axdr.octet_string(CosemDateTime().to_bytes()))
            self.activate()

    def tariff(self, local: datetime) -> int:
        """The selector that is in force at this local time; 0 where the calendar has none."""
        identifier = self._day_profile(local)
        table = self._memory.get(self._obis, "day_profile_table_active")
        for day in table.items():
            number, schedule = day.items(2)[:2]
            if number.integer() == identifier:
                at = bytes((local.hour, local.minute, local.second, 0))
                past = [action.items(3) for action in schedule.items() if action.items(3)[0].octets() <= at]
                return max(past, key=lambda action: action[0].octets())[2].integer() if past else 0
        return 0

    def _day_profile(self, local: datetime) -> int:
        for entry in self._memory.get(self._special_days, "entries").items():
            _index, day, identifier = entry.items(3)[:3]
            if falls_on(CosemDateTime.from_bytes(day.octets()), local.date()):
                return identifier.integer()
        begun: list[tuple[datetime, bytes]] = []
        for season in self._memory.get(self._obis, "season_profile_active").items():
            _name, start, week = season.items(3)[:3]
            moment = last_moment(CosemDateTime.from_bytes(start.octets()), local)
            if moment is not None:
                begun.append((moment, week.octets()))
        if not begun:
            return -1
        _moment, wanted = max(begun)
        for week in self._memory.get(self._obis, "week_profile_table_active").items():
            name, *days = week.items(8)[:8]
            if name.octets() == wanted:
                return days[local.isoweekday() - 1].integer()
        return -1

    def cosem_objects(self) -> list[CosemObject]:
        """The objects of class 20 and 11."""
        names = [f"{part}_{kind}" for kind in ("active", "passive") for part in _PARTS]

        def activate(_parameter: Data | None) -> Data | None:
            self.activate()
            return None

        calendar = kept_object(
            self._memory,
            20,
            self._obis,
            {name: self._memory.get(self._obis, name) for name in [*names, _TIME]},
            {
                "season_profile_passive": lambda value: [
                    CosemDateTime.from_bytes(item.items(3)[1].octets()).to_bytes() for item in value.items()
                ],
                "week_profile_table_passive": lambda value: [
                    [day.integer() for day in item.items(8)[1:]] for item in value.items()
                ],
                "day_profile_table_passive": lambda value: [
                    [action.items(3)[2].integer() for action in item.items(2)[1].items()]
                    for item in value.items()
                ],
                _TIME: lambda value: CosemDateTime.from_bytes(value.octets()),
            },
            {"activate_passive_calendar": activate},
        )
        return [calendar, self._special_days_object()]

    def _special_days_object(self) -> CosemObject:
        obis = self._special_days

        def entries() -> dict[int, Data]:
            return {entry.items(3)[0].integer(): entry for entry in self._memory.get(obis, "entries").items()}

        def put(changed: dict[int, Data]) -> None:
            self._memory.put(obis, "entries", axdr.array(*(changed[index] for index in sorted(changed))))

        def insert(parameter: Data | None) -> Data | None:
            if parameter is None:
                raise refused(ActionResult.TYPE_UNMATCHED)
            put({**entries(), parameter.items(3)[0].integer(): parameter})
            return None

        def delete(parameter: Data | None) -> Data | None:
            known = entries()
            if parameter is None or parameter.integer() not in known:
                raise refused(ActionResult.OBJECT_UNDEFINED)
            del known[parameter.integer()]
            put(known)
            return None

        def check(value: Data) -> None:
            for entry in value.items():
                index, day, identifier = entry.items(3)[:3]
                index.integer()
                identifier.integer()
                if len(day.octets()) != 5:
                    raise ValueError("a date has 5 octets")

        return kept_object(
            self._memory,
            11,
            obis,
            {"entries": self._memory.get(obis, "entries")},
            {"entries": check},
            {"insert": insert, "delete": delete},
        )
