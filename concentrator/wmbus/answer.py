"""A decoded telegram as readings of the shared model: what the store and the uplink understand.

Present values are stamped with the moment of reception, as the telegram's own clock is seldom better.
Historical values (storage number above 0) are stamped with the date that the meter sent for the same
storage number: a date alone means the end of that day. A historical value without a date is left out,
because any stamp would be an invention.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal

from concentrator.model import Answer, Channel, Quality, Reading
from concentrator.obis import Obis
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.obis_map import map_record
from concentrator.wmbus.record import Function, Record
from concentrator.wmbus.telegram import Telegram
from concentrator.wmbus.values import MeterTime

# Blue Book: M-Bus profile of channel 0, here the name of "what a telegram brought".
TELEGRAM_PROFILE = Obis(0, 0, 24, 3, 0, 255)
# A float has no fixed resolution: three decimals below its VIF's unit are kept.
_REAL_EXTRA_DIGITS = 3


def to_answer(telegram: Telegram, received_at: datetime, *, meter: str = "", zone: tzinfo = UTC) -> Answer:
    """Give the readings of a telegram, of all records that have an OBIS code.

    Args:
        telegram: decoded; one that is not readable gives an answer without readings.
        received_at: when it was heard, with a zone.
        meter: the identity in the registry; by default the telegram's own, `ELS-12345678-33-03`.
        zone: the zone that the meter's clock shows.

    Raises:
        WmbusUsageError: neither the telegram nor the caller names a meter.
    """
    if not meter and telegram.meter is None:
        raise WmbusUsageError("the telegram names no meter: say which one it is")
    readings: dict[tuple[Obis, datetime], Reading] = {}
    if telegram.security.readable and telegram.meter is not None:
        dates = _dates_of_storages(telegram.records)
        for record in telegram.records:
            captured_at = received_at if record.storage == 0 else _stamp(dates.get(record.storage), zone)
            if captured_at is None:
                continue
            reading = _reading(record, telegram.device_type, captured_at, telegram.status)
            if reading is not None:
                # A meter may send one value in two units: the first one stands for it.
                readings.setdefault((reading.channel.obis, captured_at), reading)
    return Answer(
        meter=meter or str(telegram.meter),
        profile=TELEGRAM_PROFILE,
        readings=tuple(readings.values()),
        received_at=received_at,
    )


def _dates_of_storages(records: tuple[Record, ...]) -> dict[int, MeterTime]:
    dates: dict[int, MeterTime] = {}
    for record in records:
        if (
            isinstance(record.value, MeterTime)
            and record.quantity in ("date", "date_time")
            and record.function is Function.INSTANTANEOUS
            and not record.qualifiers
        ):
            dates.setdefault(record.storage, record.value)
    return dates


def _stamp(moment: MeterTime | None, zone: tzinfo) -> datetime | None:
    local = moment.to_datetime() if moment is not None else None
    if moment is None or local is None or moment.clock_invalid:
        return None
    if moment.is_date:
        local += timedelta(days=1)
    return local.replace(tzinfo=zone).astimezone(UTC)


def _reading(record: Record, device_type: int, captured_at: datetime, status: int | None) -> Reading | None:
    mapped = map_record(record, device_type)
    if mapped is None:
        return None
    channel = mapped.channel
    if isinstance(record.value, int):
        number = record.value
        if record.scaler != record.unit_scaler:
            channel = Channel(channel.obis, channel.unit, channel.scaler - _REAL_EXTRA_DIGITS)
            scaled = Decimal(f"{record.value}E{record.scaler - channel.scaler}")
            number = int(scaled.to_integral_value(ROUND_HALF_EVEN))
        return Reading(channel, captured_at, number * mapped.factor, status)
    if not record.valid and record.is_bcd:
        return Reading(channel, captured_at, record.raw[::-1].hex().upper(), status, Quality.WRONG_DIGITS)
    return None
