"""EndDeviceEventType: what has happened, as four dotted numbers (IEC 61968-9, annex E).

device type.domain.subdomain.eventOrAction
"""

from __future__ import annotations

import functools
import re
import tomllib
from importlib.resources import files
from typing import cast

from concentrator.model import Medium, MeterEvent

# Device types (annex E, table E.1).
COLLECTOR = 10
_DEVICE_TYPES = {
    Medium.ELECTRICITY: 3,
    Medium.GAS: 4,
    Medium.WATER: 24,
    Medium.HOT_WATER: 24,
}
# The logs of IDIS and DSMR whose codes the table knows; alarms stand under 97.98.
_LOG_C, _ALARM_C = 99, 97
_CHANNELS, _CHANNEL_STEP = 4, 10
_PLACE = re.compile(r"(?:, (?:M-Bus )?channel \d| L[123])$")
_UNKNOWN = "0.0.0"


def device_type(medium: str) -> int:
    """The number of a meter's device type; 0 where the table has none (heat, cooling)."""
    try:
        return _DEVICE_TYPES.get(Medium(medium), 0)
    except ValueError:
        return 0


def event_type(event: MeterEvent, medium: str) -> str:
    """The type of a meter's event; ends in `0.0.0` when nothing is known of it but that it happened."""
    return f"{device_type(medium)}.{_what(event)}"


def _what(event: MeterEvent) -> str:
    codes, words, kinds = _tables()
    if event.log.c == _LOG_C and (found := codes.get(event.code)):
        return found
    if found := words.get(_PLACE.sub("", event.detail)):
        return found
    return kinds.get(event.kind, _UNKNOWN)


@functools.cache
def _tables() -> tuple[dict[int, str], dict[str, str], dict[str, str]]:
    text = files("concentrator.cim").joinpath("event_types.toml").read_text()
    table = cast("dict[str, dict[str, str]]", tomllib.loads(text))
    codes = {int(code): what for code, what in table["codes"].items()}
    for first, what in table["channel_codes"].items():
        for channel in range(_CHANNELS):
            codes[int(first) + channel * _CHANNEL_STEP] = what
    return codes, table["words"], table["kinds"]
