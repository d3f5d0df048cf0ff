"""Thresholds and the emergency profile of a Limiter (class 71, Blue Book part 2, 4.5.9); contracted power."""

from __future__ import annotations

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Encode,
    SetAttributes,
    Setting,
    State,
    as_number,
    as_obis,
    as_plain,
    attribute,
    fixed,
    number_like,
    readable,
)
from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.errors import AccessError
from concentrator.obis import Obis
from concentrator.orders import OrderError

LIMITER = 71
DEFAULT_NAME = "0-0:17.0.0*255"
_REGISTER = 3
_LARGEST = 0xFFFF_FFFF
_ACTIONS_TIMES = 0xFFFF_FFFF
_NAMES = (
    "monitored_value",
    "threshold_active",
    "threshold_normal",
    "threshold_emergency",
    "min_over_threshold_duration_s",
    "min_under_threshold_duration_s",
    "emergency_profile",
    "emergency_profile_group_id_list",
    "emergency_profile_active",
    "actions",
)


def _as_monitored(value: Data) -> object:
    class_id, name, number = value.items(3)[:3]
    return {"class_id": class_id.integer(), "obis": as_obis(name), "attribute": number.integer()}


def _as_profile(value: Data) -> object:
    identifier, activation, duration = value.items(3)[:3]
    return {
        "id": identifier.integer(),
        "activation_time": times.show_date_time(activation.octets()),
        "duration_s": duration.integer(),
    }


def _as_groups(value: Data) -> object:
    return [item.integer() for item in value.items()]


def _as_actions(value: Data) -> object:
    return {
        name: {"script_table": as_obis(item.items(2)[0]), "selector": item.items(2)[1].integer()}
        for name, item in zip(("over", "under"), value.items(2), strict=False)
    }


_SHOWN = (
    _as_monitored, as_number, as_number, as_number, as_number, as_number, _as_profile, _as_groups,
    as_plain, _as_actions,
)  # fmt: skip


def _threshold(value: int) -> Encode:
    return number_like(value, axdr.double_long_unsigned)


def read_limiter(client: Client, arguments: Arguments) -> Conversation[State]:
    """{"obis": the limiter}: all attributes, and the unit of what it monitors."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    arguments.finish()
    values = yield from client.get_many([attribute(LIMITER, obis, number) for number in range(2, 12)])
    if all(isinstance(value, AccessError) for value in values) and isinstance(values[0], AccessError):
        raise values[0]
    state: State = {
        name: readable(value, show) for name, value, show in zip(_NAMES, values, _SHOWN, strict=True)
    }
    monitored = values[0]
    if isinstance(monitored, Data):
        class_id, name, _number = monitored.items(3)[:3]
        if class_id.integer() == _REGISTER:
            unit = yield from client.get_many([attribute(_REGISTER, Obis.from_bytes(name.octets()), 3)])
            state["scaler_unit"] = readable(unit[0], as_plain)
    return state


def make_set_limiter(arguments: Arguments) -> Command:
    """{"normal", "emergency": thresholds, "min_over_s", "min_under_s", "actions", "obis"}; in the meter's unit."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    settings: list[Setting] = []
    recorded: dict[str, object] = {"obis": str(obis)}
    for name, shown, number in (
        ("normal", "threshold_normal", 4),
        ("emergency", "threshold_emergency", 5),
        ("min_over_s", "min_over_threshold_duration_s", 6),
        ("min_under_s", "min_under_threshold_duration_s", 7),
    ):
        value = arguments.optional_number(name, 0, _LARGEST)
        if value is not None:
            recorded[name] = value
            settings.append(
                Setting(shown, attribute(LIMITER, obis, number), value, _threshold(value), as_number)
            )
    actions = _actions(arguments) if arguments.has("actions") else None
    if actions is not None:
        shown_actions, encoded = actions
        recorded["actions"] = shown_actions
        settings.append(
            Setting("actions", attribute(LIMITER, obis, 11), shown_actions, fixed(encoded), _as_actions)
        )
    arguments.finish()
    if not settings:
        raise arguments.mistake("", "at least one of normal, emergency, min_over_s, min_under_s, actions")
    about = (
        ("threshold_active", attribute(LIMITER, obis, 3), as_number),
        ("emergency_profile_active", attribute(LIMITER, obis, 10), as_plain),
    )
    return SetAttributes(recorded, settings, about)


def _actions(arguments: Arguments) -> tuple[dict[str, dict[str, object]], Data]:
    given = arguments.object("actions")
    shown: dict[str, dict[str, object]] = {}
    items: list[Data] = []
    for name in ("over", "under"):
        one = given.object(name)
        table, selector = one.obis("script_table"), one.number("selector", 0, 0xFFFF)
        one.finish()
        shown[name] = {"script_table": str(table), "selector": selector}
        items.append(axdr.structure(axdr.octet_string(bytes(table)), axdr.long_unsigned(selector)))
    given.finish()
    return shown, axdr.structure(*items)


def make_set_emergency_profile(arguments: Arguments) -> Command:
    """{"id", "activation_time", "duration_s", "groups": ids that this meter listens to, "obis"}."""
    obis = arguments.obis("obis", DEFAULT_NAME)
    identifier = arguments.number("id", 0, 0xFFFF)
    moment = arguments.date_time("activation_time")
    duration = arguments.number("duration_s", 0, _ACTIONS_TIMES)
    groups = arguments.numbers("groups", 0, 0xFFFF, 32) if arguments.has("groups") else None
    arguments.finish()
    settings: list[Setting] = []
    if groups is not None:
        # Before the profile: it is in force only where the meter is of its group.
        settings.append(
            Setting(
                "emergency_profile_group_id_list",
                attribute(LIMITER, obis, 9),
                groups,
                fixed(axdr.array(*map(axdr.long_unsigned, groups))),
                _as_groups,
            )
        )
    wanted = {"id": identifier, "activation_time": times.show_date_time(moment), "duration_s": duration}
    profile = axdr.structure(
        axdr.long_unsigned(identifier), axdr.octet_string(moment), axdr.double_long_unsigned(duration)
    )
    settings.append(
        Setting("emergency_profile", attribute(LIMITER, obis, 8), wanted, fixed(profile), _as_profile)
    )
    recorded: dict[str, object] = {"obis": str(obis), **wanted}
    if groups is not None:
        recorded["groups"] = groups
    about = (
        ("emergency_profile_active", attribute(LIMITER, obis, 10), as_plain),
        ("threshold_active", attribute(LIMITER, obis, 3), as_number),
    )
    return SetAttributes(recorded, settings, about)


def make_set_contracted_power(arguments: Arguments) -> Command:
    """{"powers": [{"period", "power"}], "contract": "active" or "passive"}; or {"obis", "power", "class_id"}.

    Periods are registers 0-1:94.34.N of the Spanish companion specification, active from 1, passive from 11 on;
    other meters have an object of their own.
    """
    settings: list[Setting] = []
    recorded: dict[str, object]
    if arguments.has("obis"):
        obis = arguments.obis("obis")
        class_id = arguments.number("class_id", 1, _REGISTER, _REGISTER)
        if class_id not in (1, _REGISTER):
            raise arguments.mistake("class_id", "1 (Data) or 3 (Register)")
        power = arguments.number("power", 0, _LARGEST)
        arguments.finish()
        recorded = {"obis": str(obis), "class_id": class_id, "power": power}
        settings.append(Setting("power", attribute(class_id, obis, 2), power, _threshold(power), as_number))
        return SetAttributes(recorded, settings, ())
    base = arguments.choice("contract", {"active": 0, "passive": 10}, "active")
    powers: list[dict[str, int]] = []
    for one in arguments.objects("powers", 1, 6):
        period, power = one.number("period", 1, 6), one.number("power", 0, _LARGEST)
        one.finish()
        if any(other["period"] == period for other in powers):
            raise OrderError(f"{one.mistake('period', 'each period once')}")
        powers.append({"period": period, "power": power})
        obis = Obis(0, 1, 94, 34, base + period, 255)
        settings.append(
            Setting(f"period_{period}", attribute(_REGISTER, obis, 2), power, _threshold(power), as_number)
        )
    arguments.finish()
    recorded = {"contract": "passive" if base else "active", "powers": powers}
    return SetAttributes(recorded, settings)
