"""What is read from which meters, when, and how hard it is tried: the tasks of a concentrator.

They are those that operators know from the STG-DC interface (concentrator-practice, section 1): what, which
meters, first run, period, window, priority, store, send, and go on until complete. A task comes from the
configuration or by an order; both are checked here.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from concentrator.collection.schedule import Period, Schedule, ScheduleError
from concentrator.config import CollectionSection, TaskSection
from concentrator.errors import LocalError
from concentrator.model import Medium
from concentrator.obis import Obis, ObisError

# Runs without a first run are counted from here: midnight of the zone, a Thursday, and the first of a month.
_EPOCH = datetime(2026, 1, 1)  # noqa: DTZ001 - gets the zone of the calendar
_NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
PRIORITIES = (1, 2, 3)
_SHORTEST_PERIOD_S = 60
_UNTIL_THE_NEXT = Period()


class TaskError(LocalError):
    """A task that makes no sense: the text names the key, what was given, and what is allowed."""


class TaskKind(enum.StrEnum):
    """What a task reads."""

    PROFILE = "profile"  # intervals of load profiles: exactly those that are missing
    BILLING = "billing"  # what billing profiles captured since the last time
    EVENTS = "events"  # what event logs hold since the last time
    REGISTERS = "registers"  # registers as they are now
    INSTANTANEOUS = "instantaneous"  # voltages, currents and powers as they are now
    PARAMETERS = "parameters"  # what the meter is set to
    STATUS = "status"  # switch, errors, clock


@dataclass(frozen=True, slots=True)
class MeterSelection:
    """Which meters a task is for: all, those of a group or a medium, or those named."""

    text: str = "all"

    def __post_init__(self) -> None:
        """Check the text.

        Raises:
            TaskError: it selects nothing that could exist.
        """
        kind, _, value = self.text.partition(":")
        media = [medium.value for medium in Medium]
        names = self.text.replace(",", " ").split()
        if not (
            self.text == "all"
            or (kind == "group" and _NAME.match(value))
            or (kind == "medium" and value in media)
            or (":" not in self.text and names and all(_NAME.match(name) for name in names))
        ):
            raise TaskError(
                f"meters: got {self.text!r}; allowed: all, group:NAME, medium: with one of {', '.join(media)}, "
                "or identities with commas between"
            )

    def holds(self, identity: str, medium: str, groups: tuple[str, ...] = ()) -> bool:
        """Whether a meter is among them."""
        kind, _, value = self.text.partition(":")
        if self.text == "all":
            return True
        if kind == "group":
            return value in groups
        if kind == "medium":
            return value == medium
        return identity in self.text.replace(",", " ").split()


@dataclass(frozen=True, slots=True)
class MeterTask:
    """One task. Without `objects` they are those that the meter's model names for the kind.

    A run that is due may begin until `window` has passed, or until the next run when that is zero. `priority` 1 goes
    before 2 and 3. What is read is kept in the store when `store` is set, and goes to the destinations when `send` is;
    what is sent but not to be kept goes from the store once every destination has it. With `complete` each meter is
    tried until it has answered or the run is over; without it, once in each run.
    """

    name: str
    what: TaskKind
    schedule: Schedule
    objects: tuple[Obis, ...] = ()
    meters: MeterSelection = MeterSelection()
    window: Period = _UNTIL_THE_NEXT
    priority: int = 2
    store: bool = True
    send: bool = True
    complete: bool = True
    origin: str = "configuration"

    def current_run(self, now: datetime) -> datetime | None:
        """The due time of the run that meters are read for at `now`; None when none is on."""
        due = self.schedule.latest_due(now)
        end = None if due is None else self.run_end(due)
        return due if end is None or now < end else None

    def run_end(self, due: datetime) -> datetime | None:
        """When the window of a run closes; None where it has none."""
        if self.window.is_once:
            return None
        return due + timedelta(days=self.window.days, seconds=self.window.seconds)

    def definition(self) -> dict[str, Any]:
        """The task as an order gives it, and the store keeps it."""
        return {
            "name": self.name,
            "what": self.what.value,
            "objects": ", ".join(str(obis) for obis in self.objects),
            "meters": self.meters.text,
            "first_run": self.schedule.first.isoformat(),
            "period": str(self.schedule.period),
            "window": str(self.window),
            "priority": self.priority,
            "store": self.store,
            "send": self.send,
            "complete": self.complete,
        }

    @classmethod
    def from_definition(  # noqa: C901 - one line for each key
        cls, given: Mapping[str, Any], zone: tzinfo = UTC, origin: str = "configuration"
    ) -> MeterTask:
        """Check a task as it is written in the configuration or in an order.

        Raises:
            TaskError: a key is missing, unknown or wrong.
        """
        unknown = [key for key in given if key not in _DEFAULTS]
        if unknown:
            raise TaskError(f"{unknown[0]}: unknown key; allowed: {', '.join(_DEFAULTS)}")
        values = {**_DEFAULTS, **given}
        for key, default in _DEFAULTS.items():
            if type(values[key]) is not type(default):
                raise TaskError(f"{key}: got {values[key]!r}; allowed: {_WORDS[type(default)]}")
        if not _NAME.match(values["name"]):
            raise TaskError(f"name: got {values['name']!r}; allowed: 1 to 64 letters, digits, _ or -")
        kinds = [kind.value for kind in TaskKind]
        if values["what"] not in kinds:
            raise TaskError(f"what: got {values['what']!r}; allowed: one of {', '.join(kinds)}")
        if values["priority"] not in PRIORITIES:
            raise TaskError(f"priority: got {values['priority']!r}; allowed: 1, 2 or 3")
        if not (values["store"] or values["send"]):
            raise TaskError(
                "store, send: both are false; allowed: at least one true, or the values go nowhere"
            )
        try:
            objects = tuple(Obis.parse(word) for word in values["objects"].replace(",", " ").split())
            period = Period.parse(values["period"])
            window = Period.parse(values["window"], "window")
        except ObisError as error:
            raise TaskError(f"objects: {error}") from None
        except ScheduleError as error:
            raise TaskError(str(error)) from None
        if 0 < period.seconds < _SHORTEST_PERIOD_S:
            raise TaskError(f"period: got {values['period']!r}; allowed: a minute or more")
        if window.months:
            raise TaskError(f"window: got {values['window']!r}; allowed: a number with s, min, h or d")
        return cls(
            values["name"],
            TaskKind(values["what"]),
            Schedule(_first_run(values["first_run"], zone), period, zone),
            objects,
            MeterSelection(values["meters"]),
            window,
            values["priority"],
            values["store"],
            values["send"],
            values["complete"],
            origin,
        )


_DEFAULTS: dict[str, Any] = {
    "name": "",
    "what": "profile",
    "objects": "",
    "meters": "all",
    "first_run": "",
    "period": "1d",
    "window": "",
    "priority": 2,
    "store": True,
    "send": True,
    "complete": True,
}
_WORDS: dict[type, str] = {str: "text in quotes", int: "a whole number", bool: "true or false"}


def _first_run(text: str, zone: tzinfo) -> datetime:
    if not text:
        return _EPOCH.replace(tzinfo=zone)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TaskError(
            f"first_run: got {text!r}; allowed: a time such as 2026-01-01T01:10, or empty: midnight"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def zone_of(settings: CollectionSection) -> tzinfo:
    """The time zone of calendars."""
    return UTC if settings.time_zone == "UTC" else ZoneInfo(settings.time_zone)


def default_task(settings: CollectionSection) -> MeterTask:
    """What is read when the configuration names no task: the load profile of all meters, every `interval_s`."""
    schedule = Schedule(_EPOCH.replace(tzinfo=UTC), Period(seconds=settings.interval_s), zone_of(settings))
    return MeterTask("load_profile", TaskKind.PROFILE, schedule)


def tasks_of(sections: Iterable[TaskSection], settings: CollectionSection) -> list[MeterTask]:
    """The tasks of the configuration; that of the load profile when it has none.

    Raises:
        TaskError: one makes no sense, or two have the same name.
    """
    tasks: list[MeterTask] = []
    for number, section in enumerate(sections, 1):
        try:
            task = MeterTask.from_definition(dataclasses.asdict(section), zone_of(settings))
        except TaskError as error:
            raise TaskError(f"task[{number}].{error}") from None
        if any(task.name == other.name for other in tasks):
            raise TaskError(
                f"task[{number}].name: got {task.name!r} again; allowed: a name of its own for each"
            )
        tasks.append(task)
    return tasks or [default_task(settings)]
