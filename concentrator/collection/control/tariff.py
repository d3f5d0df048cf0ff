"""Tariff programming: activity calendar (class 20) and special days (class 11), Blue Book part 2, 4.5.1 and 4.5.4.

A calendar is written as the passive one, read back, and put into use by an order of its own or at a time that is
written with it.
"""

from __future__ import annotations

from typing import Any

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    SetAttributes,
    Setting,
    State,
    Verdict,
    as_obis,
    as_text,
    attribute,
    fixed,
    is_unreadable,
    readable,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError
from concentrator.obis import Obis

ACTIVITY_CALENDAR, SPECIAL_DAYS_TABLE = 20, 11
CALENDAR_NAME = "0-0:13.0.0*255"
SPECIAL_DAYS_NAME = "0-0:11.0.0*255"
TARIFF_SCRIPTS = "0-0:10.0.100*255"
_ACTIVATE = 1
_ACTIVATION_TIME = 10
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_PARTS = ("name", "seasons", "weeks", "days")
_MOST_SEASONS, _MOST_DAYS, _MOST_ACTIONS, _MOST_SPECIAL_DAYS = 52, 64, 48, 200
_LONGEST_NAME = 32


# Tables as JSON and as COSEM data.


def _as_seasons(value: Data) -> object:
    found: list[dict[str, object]] = []
    for season in value.items():
        name, start, week = season.items(3)[:3]
        found.append(
            {"name": as_text(name), "start": times.show_date_time(start.octets()), "week": as_text(week)}
        )
    return found


def _as_weeks(value: Data) -> object:
    found: list[dict[str, object]] = []
    for week in value.items():
        name, *days = week.items(8)[:8]
        found.append(
            {
                "name": as_text(name),
                **{day: item.integer() for day, item in zip(_WEEKDAYS, days, strict=True)},
            }
        )
    return found


def _as_days(value: Data) -> object:
    found: list[dict[str, object]] = []
    for day in value.items():
        identifier, schedule = day.items(2)[:2]
        actions: list[dict[str, object]] = []
        for action in schedule.items():
            start, script, selector = action.items(3)[:3]
            actions.append(
                {
                    "at": times.show_time(start.octets()),
                    "script_table": as_obis(script),
                    "selector": selector.integer(),
                }
            )
        found.append({"id": identifier.integer(), "actions": actions})
    return found


def _as_special_days(value: Data) -> object:
    found: list[dict[str, object]] = []
    for entry in value.items():
        index, day, identifier = entry.items(3)[:3]
        found.append(
            {"index": index.integer(), "date": times.show_date(day.octets()), "day": identifier.integer()}
        )
    return sorted(found, key=lambda one: str(one["index"]).zfill(5))


def _as_moment(value: Data) -> object:
    return times.show_date_time(value.octets())


_SHOWN = (as_text, _as_seasons, _as_weeks, _as_days)


def _name(arguments: Arguments, name: str) -> tuple[str, Data]:
    text = arguments.text(name, _LONGEST_NAME, least=1)
    octets = bytes.fromhex(text[2:]) if _is_hex(text) else text.encode()
    # Shown as a meter's name would be, so that both can be compared.
    return str(as_text(axdr.octet_string(octets))), axdr.octet_string(octets)


def _is_hex(text: str) -> bool:
    digits = text[2:]
    return (
        text.startswith("0x")
        and len(digits) % 2 == 0
        and bool(digits)
        and all(digit in "0123456789abcdefABCDEF" for digit in digits)
    )


def _seasons(arguments: Arguments, weeks: set[str]) -> tuple[object, Data]:
    shown: list[dict[str, object]] = []
    items: list[Data] = []
    for one in arguments.objects("seasons", 1, _MOST_SEASONS):
        name, encoded_name = _name(one, "name")
        start = one.date_time("start")
        week, encoded_week = _name(one, "week")
        if week not in weeks:
            raise one.mistake("week", f"the name of one of weeks: {', '.join(sorted(weeks))}")
        one.finish()
        shown.append({"name": name, "start": times.show_date_time(start), "week": week})
        items.append(axdr.structure(encoded_name, axdr.octet_string(start), encoded_week))
    return shown, axdr.array(*items)


def _weeks(arguments: Arguments, days: set[int]) -> tuple[list[dict[str, object]], Data]:
    shown: list[dict[str, object]] = []
    items: list[Data] = []
    for one in arguments.objects("weeks", 1, _MOST_SEASONS):
        name, encoded_name = _name(one, "name")
        week = {day: one.number(day, 0, 0xFF) for day in _WEEKDAYS}
        for day, identifier in week.items():
            if identifier not in days:
                raise one.mistake(day, f"the id of one of days: {', '.join(map(str, sorted(days)))}")
        one.finish()
        shown.append({"name": name, **week})
        items.append(axdr.structure(encoded_name, *map(axdr.unsigned, week.values())))
    return shown, axdr.array(*items)


def _days(arguments: Arguments) -> tuple[list[dict[str, Any]], Data]:
    shown: list[dict[str, Any]] = []
    items: list[Data] = []
    for one in arguments.objects("days", 1, _MOST_DAYS):
        identifier = one.number("id", 0, 0xFF)
        if any(other["id"] == identifier for other in shown):
            raise one.mistake("id", "each day's id once")
        actions: list[dict[str, object]] = []
        encoded: list[Data] = []
        for action in one.objects("actions", 1, _MOST_ACTIONS):
            at = action.time("at")
            table = action.obis("script_table", TARIFF_SCRIPTS)
            selector = action.number("selector", 0, 0xFFFF)
            action.finish()
            actions.append({"at": times.show_time(at), "script_table": str(table), "selector": selector})
            encoded.append(
                axdr.structure(
                    axdr.octet_string(at), axdr.octet_string(bytes(table)), axdr.long_unsigned(selector)
                )
            )
        one.finish()
        shown.append({"id": identifier, "actions": actions})
        items.append(axdr.structure(axdr.unsigned(identifier), axdr.array(*encoded)))
    return shown, axdr.array(*items)


# Orders


def read_tariff(client: Client, arguments: Arguments) -> Conversation[State]:
    """{"obis", "special_days": the tables}: both calendars, the time of activation, and the special days."""
    obis = arguments.obis("obis", CALENDAR_NAME)
    special_days = arguments.obis("special_days", SPECIAL_DAYS_NAME)
    arguments.finish()
    state = yield from _read_calendar(client, obis)
    (value,) = yield from client.get_many([attribute(SPECIAL_DAYS_TABLE, special_days, 2)])
    state["special_days"] = readable(value, _as_special_days)
    return state


def _read_calendar(client: Client, obis: Obis) -> Conversation[State]:
    values = yield from client.get_many(
        [attribute(ACTIVITY_CALENDAR, obis, number) for number in range(2, 11)]
    )
    if all(isinstance(value, AccessError) for value in values) and isinstance(values[0], AccessError):
        raise values[0]
    shown = [
        readable(value, show) for value, show in zip(values, (*_SHOWN, *_SHOWN, _as_moment), strict=True)
    ]
    return {
        "active": dict(zip(_PARTS, shown[:4], strict=True)),
        "passive": dict(zip(_PARTS, shown[4:8], strict=True)),
        "activation_time": shown[8],
    }


def make_set_tariff(arguments: Arguments) -> Command:
    """{"name", "seasons", "weeks", "days", "activation_time", "obis"}: the passive calendar, whole."""
    obis = arguments.obis("obis", CALENDAR_NAME)
    name, encoded_name = _name(arguments, "name")
    days, encoded_days = _days(arguments)
    weeks, encoded_weeks = _weeks(arguments, {int(day["id"]) for day in days})
    seasons, encoded_seasons = _seasons(arguments, {str(week["name"]) for week in weeks})
    moment = arguments.date_time("activation_time") if arguments.has("activation_time") else None
    arguments.finish()
    settings = [
        Setting(part, attribute(ACTIVITY_CALENDAR, obis, number), wanted, fixed(encoded), show)
        for part, number, wanted, encoded, show in (
            ("days", 9, days, encoded_days, _as_days),
            ("weeks", 8, weeks, encoded_weeks, _as_weeks),
            ("seasons", 7, seasons, encoded_seasons, _as_seasons),
            ("name", 6, name, encoded_name, as_text),
        )
    ]
    recorded: dict[str, object] = {
        "obis": str(obis), "name": name, "seasons": seasons, "weeks": weeks, "days": days,
    }  # fmt: skip
    if moment is not None:
        recorded["activation_time"] = times.show_date_time(moment)
        settings.append(_activation(obis, moment))
    about = (("active_name", attribute(ACTIVITY_CALENDAR, obis, 2), as_text),)
    return SetAttributes(recorded, settings, about)


def _activation(obis: Obis, moment: bytes) -> Setting:
    return Setting(
        "activation_time",
        attribute(ACTIVITY_CALENDAR, obis, _ACTIVATION_TIME),
        times.show_date_time(moment),
        fixed(axdr.octet_string(moment)),
        _as_moment,
    )


class _Activate(Command):
    """activate_passive_calendar: the passive calendar becomes the active one."""

    def __init__(self, obis: Obis, name: str) -> None:
        super().__init__({"obis": str(obis), "name": name} if name else {"obis": str(obis)})
        self._obis = obis
        self._wanted = name

    def observe(self, client: Client) -> Conversation[State]:
        """Both calendars."""
        return (yield from _read_calendar(client, self._obis))

    def refusal(self, before: State) -> str:
        """The passive calendar has to be the one that is meant."""
        name = before["passive"]["name"]
        if self._wanted and name != self._wanted and before["active"]["name"] != self._wanted:
            return f"the passive calendar is {name!r}, not {self._wanted!r}: set it first (set_tariff)"
        return ""

    def already(self, before: State) -> bool:
        """Both are the same, or the one that is meant is in use."""
        if any(is_unreadable(part) for part in before["active"].values()):
            return False
        if before["active"] == before["passive"]:
            return True
        return bool(self._wanted) and before["active"]["name"] == self._wanted != before["passive"]["name"]

    def send(self, client: Client) -> Conversation[State]:
        """Invoke the method."""
        method = MethodDescriptor(ACTIVITY_CALENDAR, self._obis, _ACTIVATE)
        yield from client.action(method, axdr.integer(0))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """The active calendar has to be what the passive one was."""
        active, wanted = after["active"], before["passive"]
        comparable = [
            part for part in _PARTS if not is_unreadable(active[part]) and not is_unreadable(wanted[part])
        ]
        if not comparable:
            return Verdict(Outcome.UNKNOWN, "the meter does not show its calendars")
        differing = [part for part in comparable if active[part] != wanted[part]]
        if differing:
            return Verdict(
                Outcome.NOT_DONE,
                f"the active calendar is {active['name']!r}; other than ordered: {', '.join(differing)}",
            )
        return Verdict(Outcome.DONE)


def make_activate_tariff(arguments: Arguments) -> Command:
    """{"name": of the passive calendar, "at": a moment; without it at once, "obis"}."""
    obis = arguments.obis("obis", CALENDAR_NAME)
    name = _name(arguments, "name")[0] if arguments.has("name") else ""
    if not arguments.has("at"):
        arguments.finish()
        return _Activate(obis, name)
    moment = arguments.date_time("at")
    arguments.finish()
    about = (
        ("passive_name", attribute(ACTIVITY_CALENDAR, obis, 6), as_text),
        ("active_name", attribute(ACTIVITY_CALENDAR, obis, 2), as_text),
    )
    recorded = {"obis": str(obis), "at": times.show_date_time(moment)}
    if name:
        recorded["name"] = name
    return _ActivateAt(recorded, name, [_activation(obis, moment)], about)


class _ActivateAt(SetAttributes):
    """The time of activation, for the passive calendar that is meant."""

    def __init__(self, recorded: dict[str, Any], name: str, settings: list[Setting], about: Any) -> None:  # noqa: ANN401 - handed on
        super().__init__(recorded, settings, about)
        self._wanted = name

    def refusal(self, before: State) -> str:
        """The passive calendar has to be the one that is meant."""
        if self._wanted and before["passive_name"] != self._wanted:
            passive = before["passive_name"]
            return f"the passive calendar is {passive!r}, not {self._wanted!r}: set it first (set_tariff)"
        return super().refusal(before)


def make_set_special_days(arguments: Arguments) -> Command:
    """{"days": [{"index", "date", "day": id of a day profile}], "obis"}: the whole table; an empty list empties it."""
    obis = arguments.obis("obis", SPECIAL_DAYS_NAME)
    shown: list[dict[str, object]] = []
    encoded: dict[int, Data] = {}
    for one in arguments.objects("days", 0, _MOST_SPECIAL_DAYS):
        index, day, identifier = one.number("index", 0, 0xFFFF), one.date("date"), one.number("day", 0, 0xFF)
        one.finish()
        if index in encoded:
            raise one.mistake("index", "each index once")
        shown.append({"index": index, "date": times.show_date(day), "day": identifier})
        encoded[index] = axdr.structure(
            axdr.long_unsigned(index), axdr.octet_string(day), axdr.unsigned(identifier)
        )
    arguments.finish()
    shown.sort(key=lambda one: str(one["index"]).zfill(5))
    table = axdr.array(*(encoded[index] for index in sorted(encoded)))
    setting = Setting(
        "special_days", attribute(SPECIAL_DAYS_TABLE, obis, 2), shown, fixed(table), _as_special_days
    )
    return SetAttributes({"obis": str(obis), "days": shown}, [setting])
