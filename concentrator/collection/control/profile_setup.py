"""Capture period and columns of a profile (class 7 Profile generic, Blue Book part 2, 4.3.6).

A meter empties the buffer of a profile when one of these is changed: what was not collected before is lost.
"""

from __future__ import annotations

from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    SetAttributes,
    Setting,
    as_number,
    attribute,
    fixed,
    number_like,
)
from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject, is_clock
from concentrator.dlms.axdr import Data
from concentrator.obis import Obis

PROFILE_GENERIC = 7
LOAD_PROFILE = "1-0:99.1.0*255"
_MOST_COLUMNS = 64
_LONGEST_PERIOD_S = 31 * 86_400


def _as_columns(value: Data) -> object:
    return [_shown(CaptureObject.from_data(item)) for item in value.items()]


def _shown(column: CaptureObject) -> dict[str, object]:
    return {
        "class_id": column.class_id,
        "obis": str(column.obis),
        "attribute": column.attribute,
        "data_index": column.data_index,
    }


def _period(obis: Obis, period_s: int) -> Setting:
    return Setting(
        "capture_period_s",
        attribute(PROFILE_GENERIC, obis, 4),
        period_s,
        number_like(period_s, axdr.double_long_unsigned),
        as_number,
    )


def make_set_capture_period(arguments: Arguments) -> Command:
    """{"period_s", "profile"}."""
    obis = arguments.obis("profile", LOAD_PROFILE)
    period_s = arguments.number("period_s", 0, _LONGEST_PERIOD_S)
    arguments.finish()
    about = (("entries_in_use", attribute(PROFILE_GENERIC, obis, 7), as_number),)
    return SetAttributes({"profile": str(obis), "period_s": period_s}, [_period(obis, period_s)], about)


def make_set_profile(arguments: Arguments) -> Command:
    """{"columns": [{"class_id", "obis", "attribute": 2, "data_index": 0}], "period_s", "entries", "profile"}."""
    obis = arguments.obis("profile", LOAD_PROFILE)
    columns: list[CaptureObject] = []
    for one in arguments.objects("columns", 1, _MOST_COLUMNS):
        columns.append(
            CaptureObject(
                one.number("class_id", 1, 0xFFFF),
                one.obis("obis"),
                one.number("attribute", -128, 127, 2),
                one.number("data_index", 0, 0xFFFF, 0),
            )
        )
        one.finish()
    if not is_clock(columns[0]):
        # Ranges are asked by the clock: a profile without it could not be collected any more.
        raise arguments.mistake("columns", f"a list that begins with the clock ({_shown(CLOCK_COLUMN)})")
    shown = [_shown(column) for column in columns]
    recorded: dict[str, object] = {"profile": str(obis), "columns": shown}
    settings = [
        Setting(
            "capture_objects",
            attribute(PROFILE_GENERIC, obis, 3),
            shown,
            fixed(axdr.array(*(column.to_data() for column in columns))),
            _as_columns,
        )
    ]
    period_s = arguments.optional_number("period_s", 0, _LONGEST_PERIOD_S)
    if period_s is not None:
        recorded["period_s"] = period_s
        settings.append(_period(obis, period_s))
    entries = arguments.optional_number("entries", 1, 0xFFFF_FFFF)
    if entries is not None:
        recorded["entries"] = entries
        settings.append(
            Setting(
                "profile_entries",
                attribute(PROFILE_GENERIC, obis, 8),
                entries,
                number_like(entries, axdr.double_long_unsigned),
                as_number,
            )
        )
    arguments.finish()
    about = (("entries_in_use", attribute(PROFILE_GENERIC, obis, 7), as_number),)
    return SetAttributes(recorded, settings, about)
