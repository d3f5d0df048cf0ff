"""A simulated electricity meter: a real COSEM server over a computed load profile.

Everything that it answers is a function of (seed, serial, time), so that a thousand meters cost little and
`truth` can say afterwards what should have arrived. Meters differ by seed in what they can: their APDU
size, and whether they compress their profiles with null-data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.apdu.protection import GENERAL_GLO, GeneralCiphered
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import AuthenticationMechanism, DataAccessResult
from concentrator.dlms.cosem.image_transfer import ImageToActivate, ImageTransfer, Outcome
from concentrator.dlms.cosem.objects import CosemObject, data, refused, register
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem.security_setup import SecurityPolicy, SecuritySetup
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, ClockStatus, CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.security import MemoryCounter, SecurityControl, SecurityKeys, protect
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server, visible_only
from concentrator.obis import Obis
from concentrator.simulator.load_model import SLOT_S, LoadModel
from concentrator.simulator.meter_events import EventRows, Happening, alarm_notification

MANUFACTURER = b"ODC"
PUBLIC_CLIENT = 16
MANAGEMENT_CLIENT = 1
MANAGEMENT_DEVICE = 1

CLOCK = Obis(0, 0, 1, 0, 0, 255)
LOGICAL_DEVICE_NAME = Obis(0, 0, 42, 0, 0, 255)
INVOCATION_COUNTER = Obis(0, 0, 43, 1, 0, 255)
SECURITY_SETUP = Obis(0, 0, 43, 0, 0, 255)
SERIAL_NUMBER = Obis(0, 0, 96, 1, 0, 255)
FIRMWARE = Obis(1, 0, 0, 2, 0, 255)
PROFILE_STATUS = Obis(0, 0, 96, 10, 1, 255)
EVENT_CODE = Obis(0, 0, 96, 11, 0, 255)
DISCONNECTOR = Obis(0, 0, 96, 3, 10, 255)
SAP_ASSIGNMENT = Obis(0, 0, 41, 0, 0, 255)
LOAD_PROFILE = Obis(1, 0, 99, 1, 0, 255)
DAILY_PROFILE = Obis(1, 0, 99, 2, 0, 255)
EVENT_LOG = Obis(0, 0, 99, 98, 0, 255)
FRAUD_LOG = Obis(0, 0, 99, 98, 1, 255)
ENERGY = (
    Obis(1, 0, 1, 8, 0, 255),
    Obis(1, 0, 2, 8, 0, 255),
    Obis(1, 0, 3, 8, 0, 255),
    Obis(1, 0, 4, 8, 0, 255),
)
_ENERGY_UNITS = (30, 30, 32, 32)

# Bits of the profile status, as the European companion standards use them.
STATUS_DAYLIGHT_SAVING = 0x08
STATUS_CLOCK_ADJUSTED = 0x20
STATUS_POWER_DOWN = 0x80

_RETENTION_S = 60 * 86400
_IMAGE_BLOCK_SIZE = 128
_POLICY = (
    SecurityPolicy.AUTHENTICATED_REQUEST
    | SecurityPolicy.ENCRYPTED_REQUEST
    | SecurityPolicy.AUTHENTICATED_RESPONSE
    | SecurityPolicy.ENCRYPTED_RESPONSE
)
_ALARM_CONTROL = SecurityControl.AUTHENTICATED | SecurityControl.ENCRYPTED
_WINTER, _SUMMER = -60, -120


class TruthRow(NamedTuple):
    """One row that a reader of the meter should end up with."""

    captured_at: datetime
    status: int | None
    values: tuple[int, ...]


@lru_cache(maxsize=64)
def _last_sunday(year: int, month: int) -> datetime:
    """One o'clock UTC of the last Sunday: when the European Union changes its clocks."""
    last = datetime(year, month, 31, 1, tzinfo=UTC)
    return last - timedelta(days=last.isoweekday() % 7)


def deviation_at(moment: datetime) -> int:
    """The deviation of Central European time, in minutes."""
    summer = _last_sunday(moment.year, 3) <= moment < _last_sunday(moment.year, 10)
    return _SUMMER if summer else _WINTER


def local_time(moment: datetime) -> CosemDateTime:
    """A moment as the meter's clock shows it."""
    deviation = deviation_at(moment)
    status = ClockStatus.DAYLIGHT_SAVING_ACTIVE if deviation == _SUMMER else ClockStatus.OK
    return CosemDateTime.from_datetime(moment, deviation, int(status))


class _PeriodicRows:
    """Rows captured every so many seconds, numbered by the periods since 1970."""

    def __init__(self, meter: SimulatedMeter, period_s: int, columns: Sequence[CaptureObject]) -> None:
        self.columns = columns
        self.period_s = period_s
        self._meter = meter

    def entries(self) -> range:
        last = int(self._meter.now().timestamp()) // self.period_s
        return range(last - _RETENTION_S // self.period_s + 1, last + 1)

    def between(self, start: datetime | None, end: datetime | None) -> range:
        entries = self.entries()
        first = entries.start if start is None else -(-int(start.timestamp()) // self.period_s)
        last = entries.stop - 1 if end is None else int(end.timestamp()) // self.period_s
        return range(max(first, entries.start), min(last + 1, entries.stop))

    def row(self, entry: int) -> TruthRow:
        """The row captured at the end of a period."""
        captured_at = datetime.fromtimestamp(entry * self.period_s, UTC)
        values = self._meter.load.at_slot(entry * self.period_s // SLOT_S)
        return TruthRow(captured_at, self._meter.profile_status(captured_at, self.period_s), values)

    def cells(self, entry: int) -> Sequence[bytes]:
        row = self.row(entry)
        clock = b"\x09\x0c" + self._meter.shown(row.captured_at).to_bytes()
        return [
            clock,
            bytes((0x11, row.status or 0)),
            *[b"\x06" + (v & 0xFFFFFFFF).to_bytes(4, "big") for v in row.values],
        ]


class SimulatedMeter:
    """One meter; satisfies `concentrator.simulator.device.Device`.

    `clock` gives the true time, aware, in UTC; the meter's own clock is off by `clock_offset_s`. `keys` are
    what a key list for the product holds.
    """

    def __init__(
        self, serial: str, seed: int, clock: Callable[[], datetime], *, clock_offset_s: float | None = None
    ) -> None:
        digest = hashlib.sha256(f"{seed}/{serial}/meter".encode()).digest()
        self.identity = serial
        self.serial = serial
        self.eui48 = b"\x02\x0d\xc0" + digest[:3]
        self.eui64 = self.eui48[:3] + b"\xff\xfe" + self.eui48[3:]
        self.system_title = MANUFACTURER + digest[3:8]
        self.max_pdu_size = (256, 512, 1024)[digest[8] % 3]
        self.compressed = digest[9] % 4 == 0
        self.clock_offset_s = digest[10] % 21 - 10.0 if clock_offset_s is None else clock_offset_s
        self.load = LoadModel(seed, serial)
        self.keys = SecurityKeys(
            self._key(seed, "encryption"), self._key(seed, "authentication"), master=self._key(seed, "master")
        )
        self.security_setup = SecuritySetup(self.keys, self.system_title, policy=_POLICY)
        self.image_transfer = ImageTransfer(_IMAGE_BLOCK_SIZE, self._verify_image, self._activate_image)
        self.firmware = b"ODC-SIM 1.0"
        self.connected = True
        # Many meters leave the deviation of their times open.
        self.tells_deviation = True
        self._clock = clock
        self._adjusted_at: list[datetime] = []
        self._server: Server | None = None
        columns = (
            CLOCK_COLUMN,
            CaptureObject(1, PROFILE_STATUS, 2),
            *(CaptureObject(3, obis, 2) for obis in ENERGY),
        )
        self._profiles = {
            LOAD_PROFILE: _PeriodicRows(self, SLOT_S, columns),
            DAILY_PROFILE: _PeriodicRows(self, 86400, columns),
        }
        # Power failures and tampering that a test or a demonstration made happen.
        self.happenings: list[Happening] = []
        self.power_failures: list[tuple[int, int]] = []
        self.counter = MemoryCounter()
        self._events = {
            EVENT_LOG: EventRows(self, fraud=False),
            FRAUD_LOG: EventRows(self, fraud=True),
        }

    def _key(self, seed: int, use: str) -> bytes:
        return hashlib.sha256(f"{seed}/{self.serial}/{use} key".encode()).digest()[:16]

    @property
    def logical_device_name(self) -> bytes:
        """16 octets: the manufacturer's three letters, and the serial number."""
        return (MANUFACTURER + self.serial.encode("ascii", "replace")[-13:].rjust(13, b"0"))[:16]

    def now(self) -> datetime:
        """The meter's own clock, in UTC."""
        return self._clock() + timedelta(seconds=self.clock_offset_s)

    def shown(self, moment: datetime) -> CosemDateTime:
        """A moment as this meter writes it."""
        time = local_time(moment)
        return time if self.tells_deviation else time._replace(deviation=DEVIATION_NOT_SPECIFIED)

    def profile_status(self, captured_at: datetime, period_s: int) -> int:
        """The status of the interval that ends then."""
        end = int(captured_at.timestamp())
        status = STATUS_DAYLIGHT_SAVING if deviation_at(captured_at) == _SUMMER else 0
        for day in {(end - period_s) // 86400, (end - 1) // 86400}:
            outage = self.load.outage(day)
            if outage and outage[0] < end and outage[1] > end - period_s:
                status |= STATUS_POWER_DOWN
        if any(start < end and stop > end - period_s for start, stop in self.power_failures):
            status |= STATUS_POWER_DOWN
        if any(
            captured_at - timedelta(seconds=period_s) < moment <= captured_at for moment in self._adjusted_at
        ):
            status |= STATUS_CLOCK_ADJUSTED
        return status

    def truth(self, profile: Obis, start: datetime, end: datetime) -> list[TruthRow]:
        """The rows of a profile captured from `start` to `end`, both included, that the buffer holds now."""
        if profile in self._events:
            log = self._events[profile]
            events = log.events()
            return [
                TruthRow(datetime.fromtimestamp(moment, UTC), None, (code,))
                for moment, code in (events[entry] for entry in log.between(start, end))
            ]
        rows = self._profiles[profile]
        return [rows.row(entry) for entry in rows.between(start, end)]

    # Device

    def receive_apdu(
        self, client_sap: int, server_sap: int, apdu: bytes, reply: Callable[[bytes], None]
    ) -> None:
        """Take an APDU; answers go to `reply` at once."""
        for answer in self.server.receive_apdu(client_sap, server_sap, apdu):
            reply(answer)

    def link_lost(self) -> None:
        """The network connection ended: associations end with it."""
        if self._server is not None:
            self._server.link_lost()

    def push(self) -> bytes:
        """A data-notification with clock, serial number and energy registers, as OBIS and value in pairs."""
        now = self.now()
        pairs = [
            (SERIAL_NUMBER, axdr.octet_string(self.serial.encode())),
            *zip(ENERGY, map(axdr.double_long_unsigned, self.load.at(now)), strict=True),
        ]
        items = [part for obis, value in pairs for part in (axdr.octet_string(bytes(obis)), value)]
        return DataNotification(0, self.shown(now).to_bytes(), axdr.structure(*items)).to_bytes()

    def alarm(self, register: int, bits: int, *, ciphered: bool = True, confirmed: bool = False) -> bytes:
        """A data-notification of an alarm descriptor (0: the first)."""
        plain = alarm_notification(
            self.serial, self.shown(self.now()), register, bits, confirmed=confirmed
        ).to_bytes()
        if not ciphered:
            return plain
        control = int(_ALARM_CONTROL)
        content = protect(
            self.keys.encryption,
            self.keys.authentication,
            self.system_title,
            control,
            self.counter.next(),
            plain,
        )
        return GeneralCiphered(GENERAL_GLO, self.system_title, content).to_bytes()

    @property
    def server(self) -> Server:
        """The COSEM server; built when the first APDU comes, as most of a thousand meters are idle."""
        if self._server is None:
            self._server = Server([self._logical_device()])
        return self._server

    def _logical_device(self) -> LogicalDevice:
        public = visible_only({CLOCK, LOGICAL_DEVICE_NAME, INVOCATION_COUNTER, SERIAL_NUMBER, SAP_ASSIGNMENT})
        device = LogicalDevice(
            MANAGEMENT_DEVICE,
            (),
            [
                AssociationDefinition(PUBLIC_CLIENT, access=public),
                AssociationDefinition(
                    MANAGEMENT_CLIENT,
                    AuthenticationMechanism.HLS_GMAC,
                    keys=self.keys,
                    policy=lambda: self.security_setup.policy,
                ),
            ],
            system_title=self.system_title,
            counter=self.counter,
            max_pdu_size=self.max_pdu_size,
        )
        self.security_setup.holder = device
        for cosem_object in self._objects(device):
            device.objects[cosem_object.class_id, cosem_object.obis] = cosem_object
        return device

    def _objects(self, device: LogicalDevice) -> list[CosemObject]:
        load = self.load

        def received_counter() -> Data:
            counters = device.received_counters.get(MANAGEMENT_CLIENT, {})
            return axdr.double_long_unsigned(max(counters.values(), default=0))

        def energy(index: int) -> Callable[[], Data]:
            return lambda: axdr.double_long_unsigned(load.at(self.now())[index])

        names = axdr.array(
            axdr.structure(axdr.long_unsigned(MANAGEMENT_DEVICE), axdr.octet_string(self.logical_device_name))
        )
        return [
            data(LOGICAL_DEVICE_NAME, axdr.octet_string(self.logical_device_name)),
            data(SERIAL_NUMBER, axdr.octet_string(self.serial.encode())),
            data(FIRMWARE, lambda: axdr.octet_string(self.firmware)),
            data(INVOCATION_COUNTER, received_counter),
            data(PROFILE_STATUS, lambda: axdr.unsigned(self.profile_status(self.now(), SLOT_S))),
            data(EVENT_CODE, lambda: axdr.unsigned(self._last_event())),
            CosemObject(17, SAP_ASSIGNMENT, {2: names}),
            self._clock_object(),
            *[register(obis, energy(i), 0, _ENERGY_UNITS[i]) for i, obis in enumerate(ENERGY)],
            register(
                Obis(1, 0, 1, 7, 0, 255), lambda: axdr.double_long_unsigned(load.power(self.now())), 0, 27
            ),
            register(Obis(1, 0, 32, 7, 0, 255), lambda: axdr.long_unsigned(load.voltage(self.now())), -1, 35),
            *[
                profile_object(
                    obis,
                    rows,
                    capacity=_RETENTION_S // rows.period_s,
                    compressed=self.compressed,
                    default_deviation=_WINTER,
                )
                for obis, rows in self._profiles.items()
            ],
            *[
                profile_object(obis, rows, capacity=512, default_deviation=_WINTER)
                for obis, rows in self._events.items()
            ],
            self._disconnect_control(),
            self.security_setup.cosem_object(SECURITY_SETUP),
            self.image_transfer.cosem_object(),
        ]

    def _last_event(self) -> int:
        events = self._events[EVENT_LOG].events()
        return events[-1].code if events else 0

    def _clock_object(self) -> CosemObject:
        def set_time(value: Data) -> None:
            wanted = CosemDateTime.from_bytes(value.octets())
            try:
                moment = wanted.to_utc(_WINTER if wanted.daylight_saving else deviation_at(self.now()))
            except DecodeError:
                raise refused(DataAccessResult.TYPE_UNMATCHED) from None
            self._adjusted_at = [*self._adjusted_at[-15:], moment]
            self.clock_offset_s = (moment - self._clock()).total_seconds()

        def shift_time(parameters: Data | None) -> Data | None:
            if parameters is None or not -900 <= parameters.integer() <= 900:
                raise refused(DataAccessResult.TYPE_UNMATCHED)
            self.clock_offset_s += parameters.integer()
            self._adjusted_at = [*self._adjusted_at[-15:], self.now()]
            return None

        # Central Europe: the last Sunday of March at 2 and of October at 3, local time.
        begin = CosemDateTime(month=3, day=0xFE, weekday=7, hour=2, minute=0, second=0, hundredths=0)
        end = CosemDateTime(month=10, day=0xFE, weekday=7, hour=3, minute=0, second=0, hundredths=0)
        return CosemObject(
            8,
            CLOCK,
            {
                2: lambda: axdr.octet_string(self.shown(self.now()).to_bytes()),
                3: axdr.long(_WINTER),
                4: lambda: axdr.unsigned(local_time(self.now()).status),
                5: axdr.octet_string(begin.to_bytes()),
                6: axdr.octet_string(end.to_bytes()),
                7: axdr.integer(60),
                8: axdr.boolean(True),
                9: axdr.enumeration(1),
            },
            setters={2: set_time},
            methods={6: shift_time},
        )

    def _disconnect_control(self) -> CosemObject:
        def switch(connected: bool) -> Callable[[Data | None], Data | None]:  # noqa: FBT001
            def act(_parameters: Data | None) -> Data | None:
                self.connected = connected
                return None

            return act

        return CosemObject(
            70,
            DISCONNECTOR,
            {
                2: lambda: axdr.boolean(self.connected),
                3: lambda: axdr.enumeration(1 if self.connected else 0),
                4: axdr.enumeration(4),
            },
            methods={1: switch(False), 2: switch(True)},
        )

    def _verify_image(
        self, identification: bytes, octets: bytes
    ) -> tuple[Outcome, tuple[ImageToActivate, ...]]:
        """An image begins with the manufacturer's letters; its signature is its SHA-256."""
        if not octets.startswith(MANUFACTURER):
            return Outcome.FAILED, ()
        signature = hashlib.sha256(octets).digest()
        return Outcome.DONE, (ImageToActivate(len(octets), identification, signature),)

    def _activate_image(self, images: tuple[ImageToActivate, ...], _octets: bytes) -> Outcome:
        self.firmware = images[0].identification
        return Outcome.DONE
