"""What a meter shows to its customer, and load control: scripts (class 9), schedules (classes 22 and 10).

Blue Book part 1: 0-0:96.13.0 is the message to the customer, 0-0:10.0.103 the script table of load management,
0-0:15.0.1 the single action schedule of the disconnector. Part 2: 4.5.2 Script table, 4.5.3 Schedule, 4.5.7 Single
action schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Acknowledged,
    Command,
    Outcome,
    SetAttributes,
    Setting,
    State,
    Verdict,
    as_number,
    as_obis,
    as_plain,
    as_text,
    attribute,
    brief,
    fixed,
    readable,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.client import Client, Conversation
from concentrator.obis import Obis

DATA, SCRIPT_TABLE, SCHEDULE, SINGLE_ACTION_SCHEDULE = 1, 9, 10, 22
CUSTOMER_MESSAGE = "0-0:96.13.0*255"
LOAD_SCRIPTS = "0-0:10.0.103*255"
DISCONNECT_SCRIPTS = "0-0:10.0.106*255"
DISCONNECT_SCHEDULE = "0-0:15.0.1*255"
SCHEDULE_NAME = "0-0:12.0.0*255"
_LONGEST_MESSAGE = 2048
_MOST_TIMES = 64
_MOST_ENTRIES = 128
_MOST_WATCHED = 8
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_OPEN = b"\xff"


# Customer message


def make_show_message(arguments: Arguments) -> Command:
    """{"text", "obis"}; an empty text clears the message."""
    obis = arguments.obis("obis", CUSTOMER_MESSAGE)
    text = arguments.text("text", _LONGEST_MESSAGE)
    if not text.isprintable():
        raise arguments.mistake("text", "printable text on one line")
    arguments.finish()
    setting = Setting(
        "message", attribute(DATA, obis, 2), text, lambda present: _message(text, present), _as_message
    )
    return SetAttributes({"obis": str(obis), "text": text}, [setting])


def _as_message(value: Data) -> object:
    if value.is_null:
        return ""
    return value.text() if isinstance(value.value, str) else as_text(value)


def _message(text: str, present: Data | None) -> Data:
    if present is not None and present.type in (DataType.VISIBLE_STRING, DataType.UTF8_STRING):
        return Data(present.type, text)
    return axdr.octet_string(text.encode())


# Scripts


class _RunScript(Acknowledged):
    """Execute a script, and look at what it is to change, where the order tells that."""

    def __init__(
        self,
        recorded: dict[str, object],
        table: Obis,
        selector: int,
        watched: Sequence[tuple[AttributeDescriptor, object]],
    ) -> None:
        super().__init__(recorded)
        self._table = table
        self._selector = selector
        self._watched = tuple(watched)

    def observe(self, client: Client) -> Conversation[State]:
        """What is watched."""
        if not self._watched:
            return {}
        values = yield from client.get_many([one for one, _expected in self._watched])
        return {
            _place(one): readable(value, as_plain)
            for (one, _expected), value in zip(self._watched, values, strict=True)
        }

    def send(self, client: Client) -> Conversation[State]:
        """Execute it."""
        method = MethodDescriptor(SCRIPT_TABLE, self._table, 1)
        yield from client.action(method, axdr.long_unsigned(self._selector))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """By what was expected; where nothing was, the acknowledgement is all there is."""
        del before
        expected = {_place(one): value for one, value in self._watched if value is not None}
        if not expected:
            return Verdict(
                Outcome.ACKNOWLEDGED, "the order names nothing by which its effect could be read back"
            )
        differing = [
            f"{place} is {brief(after[place])}" for place, value in expected.items() if after[place] != value
        ]
        return Verdict(Outcome.NOT_DONE, "; ".join(differing)) if differing else Verdict(Outcome.DONE)

    def judge_later(self, before: State, after: State) -> Verdict:
        """Without an acknowledgement only what was expected tells."""
        verdict = self.judge(before, after)
        return Verdict(Outcome.UNKNOWN, verdict.words) if verdict.outcome is Outcome.ACKNOWLEDGED else verdict


def _place(one: AttributeDescriptor) -> str:
    return f"{one.class_id}/{one.obis}/{one.attribute}"


def make_run_script(arguments: Arguments) -> Command:
    """{"selector", "script_table", "watch": [{"class_id", "obis", "attribute": 2, "expect": a value}]}."""
    table = arguments.obis("script_table", LOAD_SCRIPTS)
    selector = arguments.number("selector", 0, 0xFFFF)
    recorded: dict[str, object] = {"script_table": str(table), "selector": selector}
    watched: list[tuple[AttributeDescriptor, object]] = []
    if arguments.has("watch"):
        kept: list[dict[str, object]] = []
        for one in arguments.objects("watch", 1, _MOST_WATCHED):
            class_id, obis = one.number("class_id", 1, 0xFFFF), one.obis("obis")
            number = one.number("attribute", 1, 127, 2)
            expected = one.plain("expect")
            one.finish()
            watched.append((attribute(class_id, obis, number), expected))
            entry: dict[str, object] = {"class_id": class_id, "obis": str(obis), "attribute": number}
            kept.append(entry if expected is None else {**entry, "expect": expected})
        recorded["watch"] = kept
    arguments.finish()
    return _RunScript(recorded, table, selector, watched)


# Single action schedule


def _as_script(value: Data) -> object:
    table, selector = value.items(2)[:2]
    return {"script_table": as_obis(table), "selector": selector.integer()}


def _as_times(value: Data) -> object:
    found: list[dict[str, str]] = []
    for item in value.items():
        at, day = item.items(2)[:2]
        found.append({"at": times.show_time(at.octets()), "date": times.show_date(day.octets())})
    return found


def _schedule_type(moments: Sequence[tuple[bytes, bytes]]) -> int:
    """The type of a list of execution times: whether they have one time of day, and dates with open fields."""
    if len(moments) <= 1:
        return 1
    one_time = len({at for at, _day in moments}) == 1
    # The weekday of a full date may stay open.
    open_dates = any(_DAY_OPEN in day[:4] or any(part > 31 for part in day[2:4]) for _at, day in moments)  # noqa: PLR2004
    if one_time:
        return 3 if open_dates else 2
    return 5 if open_dates else 4


def make_set_schedule(arguments: Arguments) -> Command:
    """{"times": [{"at", "date"}], "script_table", "selector", "obis": a single action schedule}; no times: never."""
    obis = arguments.obis("obis", DISCONNECT_SCHEDULE)
    table = arguments.obis("script_table", DISCONNECT_SCRIPTS)
    selector = arguments.number("selector", 0, 0xFFFF)
    moments: list[tuple[bytes, bytes]] = []
    for one in arguments.objects("times", 0, _MOST_TIMES):
        moments.append((one.time("at"), one.date("date")))
        one.finish()
    arguments.finish()
    shown = [{"at": times.show_time(at), "date": times.show_date(day)} for at, day in moments]
    script = {"script_table": str(table), "selector": selector}
    kind = _schedule_type(moments)
    settings = [
        Setting(
            "executed_script",
            attribute(SINGLE_ACTION_SCHEDULE, obis, 2),
            script,
            fixed(axdr.structure(axdr.octet_string(bytes(table)), axdr.long_unsigned(selector))),
            _as_script,
        ),
        Setting(
            "type",
            attribute(SINGLE_ACTION_SCHEDULE, obis, 3),
            kind,
            fixed(axdr.enumeration(kind)),
            as_number,
        ),
        Setting(
            "execution_time",
            attribute(SINGLE_ACTION_SCHEDULE, obis, 4),
            shown,
            fixed(
                axdr.array(
                    *(axdr.structure(axdr.octet_string(at), axdr.octet_string(day)) for at, day in moments)
                )
            ),
            _as_times,
        ),
    ]
    return SetAttributes({"obis": str(obis), **script, "times": shown}, settings)


# Schedule


def _as_bits(value: Data) -> str:
    return value.value if isinstance(value.value, str) else ""


def _as_entries(value: Data) -> object:
    found: list[dict[str, object]] = []
    for entry in value.items():
        index, enabled, table, selector, at, window, weekdays, special, begin, end = entry.items(10)[:10]
        found.append(
            {
                "index": index.integer(),
                "enabled": bool(enabled.value),
                "script_table": as_obis(table),
                "selector": selector.integer(),
                "at": times.show_time(at.octets()),
                "validity_window_min": window.integer(),
                "weekdays": [
                    day for day, bit in zip(_WEEKDAYS, _as_bits(weekdays), strict=False) if bit == "1"
                ],
                "special_days": [number for number, bit in enumerate(_as_bits(special)) if bit == "1"],
                "begin": times.show_date(begin.octets()),
                "end": times.show_date(end.octets()),
            }
        )
    return sorted(found, key=lambda one: str(one["index"]).zfill(5))


def make_set_relay_schedule(arguments: Arguments) -> Command:
    """{"entries": [{"index", "at", "selector", ...}], "obis": a Schedule}: the whole table.

    Of each entry "enabled", "script_table", "validity_window_min", "weekdays", "special_days" (numbers of bits),
    "begin" and "end" may be left out: enabled, load scripts, whenever, every day, none, always.
    """
    obis = arguments.obis("obis", SCHEDULE_NAME)
    shown: list[dict[str, object]] = []
    encoded: dict[int, Data] = {}
    for one in arguments.objects("entries", 0, _MOST_ENTRIES):
        index = one.number("index", 1, 9999)
        if index in encoded:
            raise one.mistake("index", "each index once")
        enabled = one.flag("enabled", default=True)
        table, selector = one.obis("script_table", LOAD_SCRIPTS), one.number("selector", 0, 0xFFFF)
        at = one.time("at")
        # 0xFFFF: a script that was missed in a power failure is executed whenever power comes back.
        window = one.number("validity_window_min", 0, 0xFFFF, 0xFFFF)
        weekdays = sorted(one.words("weekdays", _WEEKDAYS, _WEEKDAYS), key=_WEEKDAYS.index)
        special = sorted(set(one.numbers("special_days", 0, 63, 64))) if one.has("special_days") else []
        begin = one.date("begin") if one.has("begin") else times.parse_date("*-*-*")
        end = one.date("end") if one.has("end") else times.parse_date("*-*-*")
        one.finish()
        bits = "".join("1" if day in weekdays else "0" for day in _WEEKDAYS)
        special_bits = "".join("1" if n in special else "0" for n in range(max(special, default=-1) + 1))
        shown.append(
            {
                "index": index,
                "enabled": enabled,
                "script_table": str(table),
                "selector": selector,
                "at": times.show_time(at),
                "validity_window_min": window,
                "weekdays": weekdays,
                "special_days": special,
                "begin": times.show_date(begin),
                "end": times.show_date(end),
            }
        )
        encoded[index] = axdr.structure(
            axdr.long_unsigned(index),
            axdr.boolean(enabled),
            axdr.octet_string(bytes(table)),
            axdr.long_unsigned(selector),
            axdr.octet_string(at),
            axdr.long_unsigned(window),
            Data(DataType.BIT_STRING, bits),
            Data(DataType.BIT_STRING, special_bits),
            axdr.octet_string(begin),
            axdr.octet_string(end),
        )
    arguments.finish()
    shown.sort(key=lambda one: str(one["index"]).zfill(5))
    entries = axdr.array(*(encoded[index] for index in sorted(encoded)))
    setting = Setting("entries", attribute(SCHEDULE, obis, 2), shown, fixed(entries), _as_entries)
    return SetAttributes({"obis": str(obis), "entries": shown}, [setting])
