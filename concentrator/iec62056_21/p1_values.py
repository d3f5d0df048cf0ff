"""What the objects of a P1 telegram mean: registers, the meters on its M-Bus channels, the log of power failures.

DSMR and ESMR P1 companion standards 2.2 to 5.0 (Netherlands), e-MUCS (Belgium), Smarty (Luxembourg), and the Swedish
consumer port. They agree on the OBIS codes; versions 2 and 3 write an M-Bus channel's value as a profile
(0-n:24.3.0) over two lines, later ones as 0-n:24.2.1 (Belgium: 24.2.3). Times are of Central Europe: a letter
behind them says whether summer time held.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from concentrator.iec62056_21.p1 import P1Object, P1Telegram

_TIME = re.compile(r"^(\d{12})([SW]?)$")
_NUMBER = re.compile(r"^(-?\d{1,12}(?:\.\d{1,6})?)(?:\*([A-Za-z0-9]+))?$")
_PLACE = re.compile(r"^(\d+)-(\d+):(\d+\.\d+\.\d+)$")
_SUMMER_TIME, _WINTER_TIME = timedelta(hours=2), timedelta(hours=1)
_VERSIONS = ("1-3:0.2.8", "0-0:96.1.4")
_CLOCK = "0-0:1.0.0"
_EQUIPMENT = ("0-0:96.1.1", "0-0:96.1.0", "0-0:42.0.0")
_POWER_FAILURES = "1-0:99.97.0"
_PEAK_HISTORY = ("0-0:98.1.0", "1-0:98.1.0")
_DEVICE_TYPE, _OLD_VALUE = "24.1.0", "24.3.0"
_VALUES = ("24.2.1", "24.2.3")
_CHANNEL_IDENTITIES = ("96.1.0", "96.1.1", "96.1.2")
_VALVE = "24.4.0"
_HIGHEST_CHANNEL = 4
_LOG_HEAD_VALUES, _OLD_PROFILE_VALUES = 2, 6
_VALUES_WITH_TIME = 2


@dataclass(frozen=True, slots=True)
class P1Register:
    """One number. `obis` as written, without its media channel rules; `unit` as written, "" for a bare number.

    `captured_at` only where the meter gives the register a time of its own (a peak of this month, Belgium).
    """

    obis: str
    value: Decimal
    unit: str
    captured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class MonthlyPeak:
    """The highest average demand of one month that has ended (Belgium, the last thirteen of them).

    `obis` is the register that it is a peak of, as the telegram names it (1-0:1.6.0).
    """

    obis: str
    month_ended_at: datetime | None
    reached_at: datetime | None
    value: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class P1ChannelMeter:
    """A gas, water, heat or slave electricity meter on an M-Bus channel of the meter."""

    channel: int
    device_type: int | None = None
    equipment_identifier: str = ""
    value: Decimal | None = None
    unit: str = ""
    captured_at: datetime | None = None
    valve_open: bool | None = None


@dataclass(frozen=True, slots=True)
class PowerFailure:
    """One long power failure: when it ended, and how long it was."""

    ended_at: datetime | None
    duration_s: int


@dataclass(frozen=True, slots=True)
class P1Reading:
    """A telegram with its meaning. Texts (messages, identifiers that are none of a meter) are in `texts`."""

    identification: str
    version: str
    equipment_identifier: str
    captured_at: datetime | None
    registers: tuple[P1Register, ...]
    channel_meters: tuple[P1ChannelMeter, ...]
    power_failures: tuple[PowerFailure, ...]
    monthly_peaks: tuple[MonthlyPeak, ...]
    texts: tuple[P1Object, ...]


def interpret_p1(telegram: P1Telegram) -> P1Reading:
    """Give the objects of a telegram their meaning; what has none is left as text. Never raises."""
    version, equipment, captured_at = "", "", None
    registers: list[P1Register] = []
    failures: tuple[PowerFailure, ...] = ()
    peaks: tuple[MonthlyPeak, ...] = ()
    texts: list[P1Object] = []
    channels: dict[int, dict[str, P1Object]] = {}
    for one in telegram.objects:
        first = one.values[0] if one.values else ""
        place = _PLACE.match(one.obis)
        if one.obis in _VERSIONS:
            version = first
        elif one.obis == _CLOCK:
            captured_at = p1_time(first)
        elif one.obis in _EQUIPMENT and not equipment:
            equipment = decode_identifier(first)
        elif one.obis == _POWER_FAILURES:
            failures = _power_failures(one.values)
        elif one.obis in _PEAK_HISTORY:
            peaks = _monthly_peaks(one.values)
        elif place is not None and place[1] == "0" and 1 <= int(place[2]) <= _HIGHEST_CHANNEL:
            channels.setdefault(int(place[2]), {})[place[3]] = one
        elif (register := _register(one)) is not None:
            registers.append(register)
        else:
            texts.append(one)
    return P1Reading(
        identification=telegram.identification,
        version=version,
        equipment_identifier=equipment,
        captured_at=captured_at,
        registers=tuple(registers),
        channel_meters=tuple(_channel_meter(number, objects) for number, objects in sorted(channels.items())),
        power_failures=failures,
        monthly_peaks=peaks,
        texts=tuple(texts),
    )


def p1_time(text: str) -> datetime | None:
    """YYMMDDhhmmss with S (summer) or W (winter time), in UTC; without a letter winter time is taken."""
    match = _TIME.match(text)
    if match is None:
        return None
    try:
        local = datetime.strptime(match[1], "%y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return local - (_SUMMER_TIME if match[2] == "S" else _WINTER_TIME)


def decode_identifier(text: str) -> str:
    """An equipment identifier: sent as the hexadecimal of its characters, or as it is."""
    try:
        plain = bytes.fromhex(text).decode("ascii")
    except ValueError:
        return text
    return plain if plain.isprintable() and plain.strip() else text


def _register(one: P1Object) -> P1Register | None:
    """A number alone, or behind the time that it belongs to; None for anything else."""
    number = _NUMBER.match(one.values[-1]) if one.values else None
    if number is None:
        return None
    value, unit = Decimal(number[1]), number[2] or ""
    if len(one.values) == 1:
        return P1Register(one.obis, value, unit)
    if len(one.values) == _VALUES_WITH_TIME and unit:
        return P1Register(one.obis, value, unit, p1_time(one.values[0]))
    return None


def _monthly_peaks(values: tuple[str, ...]) -> tuple[MonthlyPeak, ...]:
    """(count)(1-0:1.6.0)(1-0:1.6.0) and threes: end of the month, time of the peak, peak."""
    found: list[MonthlyPeak] = []
    # The first name is that of the end of the month (class 5 attribute 5 or 6), the second that of the peak.
    names = [one for one in values[1:] if _PLACE.match(one) is not None]
    entries = [one for one in values[1:] if _PLACE.match(one) is None]
    for ended, reached, peak in zip(entries[::3], entries[1::3], entries[2::3], strict=False):
        number = _NUMBER.match(peak)
        if number is not None and names:
            value, unit = Decimal(number[1]), number[2] or ""
            found.append(MonthlyPeak(names[-1], p1_time(ended), p1_time(reached), value, unit))
    return tuple(found)


def _power_failures(values: tuple[str, ...]) -> tuple[PowerFailure, ...]:
    """(count)(0-0:96.7.19) and pairs of end and duration."""
    found: list[PowerFailure] = []
    pairs = values[_LOG_HEAD_VALUES:]
    for ended, duration in zip(pairs[::2], pairs[1::2], strict=False):
        number = _NUMBER.match(duration)
        if number is not None:
            found.append(PowerFailure(p1_time(ended), int(Decimal(number[1]))))
    return tuple(found)


def _channel_meter(channel: int, objects: dict[str, P1Object]) -> P1ChannelMeter:
    def text(code: str) -> str:
        one = objects.get(code)
        return one.values[0] if one is not None and one.values else ""

    identity = next((decode_identifier(text(code)) for code in _CHANNEL_IDENTITIES if text(code)), "")
    value, unit, captured_at = _channel_value(objects)
    valve = text(_VALVE)
    return P1ChannelMeter(
        channel=channel,
        device_type=int(text(_DEVICE_TYPE)) if text(_DEVICE_TYPE).isdecimal() else None,
        equipment_identifier=identity,
        value=value,
        unit=unit,
        captured_at=captured_at,
        valve_open=valve == "1" if valve.isdecimal() else None,
    )


def _texts(objects: dict[str, P1Object], code: str) -> tuple[str, ...]:
    one = objects.get(code)
    return () if one is None else one.values


def _channel_value(objects: dict[str, P1Object]) -> tuple[Decimal | None, str, datetime | None]:
    for code in _VALUES:
        values = _texts(objects, code)
        number = _NUMBER.match(values[-1]) if values else None
        if number is not None:
            return Decimal(number[1]), number[2] or "", p1_time(values[0])
    # (time)(status)(period)(number of values)(OBIS)(unit)(value): the profile of versions 2 and 3.
    old = _texts(objects, _OLD_VALUE)
    if len(old) > _OLD_PROFILE_VALUES and (number := _NUMBER.match(old[6])) is not None:
        return Decimal(number[1]), old[5], p1_time(old[0])
    return None, "", None
