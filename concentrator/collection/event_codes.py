"""Codes of meters' event logs and alarm registers in words, from `event_codes.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from concentrator.errors import LocalError
from concentrator.model import EventSeverity
from concentrator.obis import Obis

_PHASES = ("L1", "L2", "L3")
_CHANNELS = 4
_CHANNEL_STEP = 10


class EventCodesError(LocalError):
    """The data file is wrong, or has no such companion specification."""


class Meaning(NamedTuple):
    """What a code says: how bad it is, what kind of thing it is, and words."""

    severity: EventSeverity
    kind: str
    words: str


class EventLog(NamedTuple):
    """An event log as a companion specification places it."""

    obis: Obis
    group: str


@dataclass(frozen=True, slots=True)
class EventCodes:
    """The codes of one companion specification."""

    logs: tuple[EventLog, ...] = ()
    codes: Mapping[int, Meaning] = field(default_factory=dict[int, Meaning])
    alarms: Mapping[int, Mapping[int, Meaning]] = field(default_factory=dict[int, Mapping[int, Meaning]])

    def event(self, code: int) -> Meaning:
        """What a code of an event log says; one that is not in the table is told by its number."""
        return self.codes.get(code) or Meaning(EventSeverity.WARNING, "none", f"event {code}")

    def alarm(self, register: int, bit: int) -> Meaning:
        """What a bit of an alarm register (0 is the first) says."""
        known = self.alarms.get(register, {}).get(bit)
        return known or Meaning(EventSeverity.ALARM, "none", f"alarm register {register + 1}, bit {bit}")

    def group_of(self, log: Obis) -> str:
        """The group of a log; "other" for one that the companion does not have."""
        return next((one.group for one in self.logs if one.obis == log), "other")


@lru_cache(maxsize=8)
def event_codes(companion: str) -> EventCodes:
    """The codes of a companion specification.

    Raises:
        EventCodesError: there is none of this name.
    """
    tables = _tables()
    if companion not in tables:
        raise EventCodesError(f"event codes of {companion!r}: unknown; known: {', '.join(sorted(tables))}")
    table = tables[companion]
    base = event_codes(str(table["extends"])) if "extends" in table else EventCodes()
    logs = tuple(EventLog(Obis.parse(one["obis"]), str(one["group"])) for one in table.get("log", ()))
    alarms = {number: dict(bits) for number, bits in base.alarms.items()}
    for number, bits in table.get("alarms", {}).items():
        alarms.setdefault(int(number), {}).update({int(bit): _meaning(text) for bit, text in bits.items()})
    return EventCodes(logs or base.logs, {**base.codes, **_expanded(table.get("codes", {}))}, alarms)


def companions() -> tuple[str, ...]:
    """The names of the companion specifications whose codes are known."""
    return tuple(sorted(_tables()))


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(files("concentrator.collection").joinpath("event_codes.toml").read_text("utf-8"))


def _expanded(texts: Mapping[str, str]) -> dict[int, Meaning]:
    codes: dict[int, Meaning] = {}
    for number, text in texts.items():
        if "{phase}" in text:
            for place, phase in enumerate(_PHASES):
                codes[int(number) + place] = _meaning(text.replace("{phase}", phase))
        elif "{channel}" in text:
            for place in range(_CHANNELS):
                codes[int(number) + _CHANNEL_STEP * place] = _meaning(
                    text.replace("{channel}", str(place + 1))
                )
        else:
            codes[int(number)] = _meaning(text)
    return codes


def _meaning(text: str) -> Meaning:
    head, _, words = text.partition(": ")
    severity, _, kind = head.partition(" ")
    try:
        return Meaning(EventSeverity(severity), kind, words)
    except ValueError:
        raise EventCodesError(
            f"event code {text!r}: got severity {severity!r}; allowed: info, warning, alarm"
        ) from None
