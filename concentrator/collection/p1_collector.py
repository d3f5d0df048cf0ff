"""A meter's consumer port P1, and the meters on its M-Bus channels: registered and stored like any other meter.

The port speaks every second to ten seconds; one telegram of each interval is kept. The highest demands of the months
that have ended (Belgium) are kept twice: in the profile of billing periods at the end of their month, and as the
register's own readings at the moments when they were reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.keyring import read_single_key
from concentrator.collection.local_meters import LocalMeters
from concentrator.collection.mbus_client_channels import REGISTER_OF_MEDIUM
from concentrator.config import P1Section
from concentrator.iec62056_21.errors import TelegramError
from concentrator.iec62056_21.p1 import P1Reader
from concentrator.iec62056_21.p1_values import P1ChannelMeter, P1Reading, interpret_p1
from concentrator.links.backoff import Backoff
from concentrator.links.byte_line import ByteLine
from concentrator.links.errors import PortError
from concentrator.links.p1_port import read_p1_octets
from concentrator.model import Answer, Channel, IdentityError, Medium, MeterState, Reading, safe_identity
from concentrator.obis import Obis, ObisError
from concentrator.store.store import Store
from concentrator.wmbus.address import medium_of
from concentrator.wmbus.answer import TELEGRAM_PROFILE

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

LINK = "p1"
# Blue Book: data of billing period (1), which is what Belgium lists its months under.
_BILLING_PERIODS = Obis(0, 0, 98, 1, 0, 255)
# Units as written: the Blue Book's code (table of class 3), and the power of ten into its unit.
_UNITS: dict[str, tuple[int, int]] = {
    "": (255, 0),
    "Wh": (30, 0),
    "kWh": (30, 3),
    "MWh": (30, 6),
    "W": (27, 0),
    "kW": (27, 3),
    "varh": (32, 0),
    "kvarh": (32, 3),
    "kVArh": (32, 3),
    "var": (29, 0),
    "kvar": (29, 3),
    "kVAr": (29, 3),
    "VA": (28, 0),
    "kVA": (28, 3),
    "V": (35, 0),
    "A": (33, 0),
    "Hz": (44, 0),
    "m3": (13, 0),
    "J": (25, 0),
    "MJ": (25, 6),
    "GJ": (25, 9),
    "s": (7, 0),
}


class P1Collector:
    """Listens to one port. `state` and `reason` say how it is."""

    def __init__(self, settings: P1Section, store: Store, clock: Clock) -> None:
        """Take the settings.

        Raises:
            KeyFileError: the key file cannot be used.
        """
        self.state, self.reason = "starting", ""
        self.meters = LocalMeters(LINK, store, clock)
        self.counters = {"telegrams": 0, "malformed": 0, "crc_missed": 0}
        self._settings = settings
        self._clock = clock
        self._key = read_single_key(Path(settings.key_file)) if settings.key_file else b""
        self._backoff = Backoff()
        self._reader = P1Reader()
        self._newest: bytes | None = None
        self._arrived = asyncio.Event()
        self._lost = ""

    async def load(self) -> None:
        """Take the known meters from the store."""
        await self.meters.load()

    async def run(self) -> None:
        """Listen and store, until cancelled; a lost port is opened again."""
        while True:
            line = ByteLine(self._settings.port, self._settings.baud_rate, self._take, self._lose)
            try:
                await line.open()
                self.state, self.reason, self._lost = "open", "", ""
                self._backoff.succeeded()
                await self._listen()
            except PortError as error:
                self.state, self.reason = "not open", str(error)
                log.warning("P1 port not open", reason=str(error))
            finally:
                await line.close()
            await asyncio.sleep(self._backoff.next_delay_s())

    async def _listen(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            octets, self._newest = self._newest, None
            if self._lost:
                raise PortError(self._lost)
            if octets is not None and await self._store(octets):
                await asyncio.sleep(self._settings.store_interval_s)

    def _take(self, data: bytes) -> None:
        self._reader.receive_data(data)
        while (octets := self._reader.next_telegram()) is not None:
            self.counters["telegrams"] += 1
            self._newest = octets
            self._arrived.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._arrived.set()

    async def _store(self, octets: bytes) -> bool:
        """Keep one telegram; False when it is none that can be used."""
        try:
            telegram = read_p1_octets(octets, self._key)
        except TelegramError as error:
            self.counters["malformed"] += 1
            self.reason = str(error)
            return False
        if telegram.crc_ok is False:
            self.counters["crc_missed"] += 1
            return False
        self.reason = ""
        now = self._clock.now()
        reading = interpret_p1(telegram)
        await self._keep_meter(reading, now)
        for meter in reading.channel_meters:
            if meter.value is not None:
                await self._keep_channel_meter(meter, now)
        return True

    async def _keep_meter(self, reading: P1Reading, now: datetime) -> None:
        try:
            identity = safe_identity(reading.equipment_identifier or reading.identification.lstrip("/"))
        except IdentityError:
            self.counters["malformed"] += 1
            return
        record = self.meters.record(
            identity,
            medium=Medium.ELECTRICITY,
            link_address=self._settings.port,
            serial=reading.equipment_identifier,
            manufacturer=reading.identification[1:4],
            model=reading.identification[5:],
        )
        self.meters.set_state(record, MeterState.ACTIVE)
        captured_at = reading.captured_at or now
        found = [
            _reading(one.obis, one.value, one.unit, one.captured_at or captured_at)
            for one in reading.registers
            if one.captured_at is None or is_plausible(one.captured_at)
        ]
        found += [
            _reading(peak.obis, peak.value, peak.unit, peak.reached_at)
            for peak in reading.monthly_peaks
            if peak.reached_at is not None and peak.reached_at <= now
        ]
        readings = tuple(one for one in found if one is not None)
        answer = Answer(identity, TELEGRAM_PROFILE, readings, now) if is_plausible(captured_at) else None
        await self.meters.keep(record, answer)
        months = tuple(_months(reading, now))
        if months and answer is not None:
            await self.meters.keep(record, Answer(identity, _BILLING_PERIODS, months, now))

    async def _keep_channel_meter(self, meter: P1ChannelMeter, now: datetime) -> None:
        medium = medium_of(meter.device_type or 0)
        obis = REGISTER_OF_MEDIUM.get(medium)
        try:
            identity = safe_identity(meter.equipment_identifier)
        except IdentityError:
            return
        record = self.meters.record(
            identity,
            medium=medium,
            link_address=f"channel {meter.channel}",
            serial=meter.equipment_identifier,
            manufacturer="",
            model="",
        )
        self.meters.set_state(record, MeterState.ACTIVE)
        captured_at = meter.captured_at or now
        reading = None
        if obis is not None and meter.value is not None and is_plausible(captured_at):
            reading = _reading(str(obis), meter.value, meter.unit, captured_at)
        await self.meters.keep(
            record, None if reading is None else Answer(identity, TELEGRAM_PROFILE, (reading,), now)
        )


def _months(reading: P1Reading, now: datetime) -> Iterator[Reading]:
    for peak in reading.monthly_peaks:
        if peak.month_ended_at is not None and peak.month_ended_at <= now:
            found = _reading(peak.obis, peak.value, peak.unit, peak.month_ended_at)
            if found is not None:
                yield found


def _reading(code: str, value: Decimal, unit: str, captured_at: datetime) -> Reading | None:
    """One register as a reading; None for a code or unit that is none of the Blue Book's."""
    if unit not in _UNITS:
        return None
    try:
        obis = Obis.parse(code)
    except ObisError:
        return None
    unit_code, exponent = _UNITS[unit]
    sign, digits, scaler = value.as_tuple()
    number = int("".join(map(str, digits)))
    channel = Channel(obis, unit_code, exponent + int(scaler))
    return Reading(channel, captured_at, -number if sign else number)
