"""A simulated electricity meter: a real COSEM server over a computed load profile.

Everything that it answers is a function of (seed, serial, time), so that a thousand meters cost little and
`truth` can say afterwards what should have arrived. Meters differ by seed in what they can: their APDU
size, and whether they compress their profiles with null-data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from concentrator.dlms import axdr
from concentrator.dlms.apdu.notification import DataNotification
from concentrator.dlms.apdu.protection import GENERAL_GLO, GeneralCiphered
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import AuthenticationMechanism, DataAccessResult
from concentrator.dlms.cosem.image_transfer import ImageToActivate, ImageTransfer, Outcome
from concentrator.dlms.cosem.objects import CosemObject, data, refused, register
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem.security_setup import SecurityPolicy, SecuritySetup
from concentrator.dlms.cosem_time import DEVIATION_NOT_SPECIFIED, ClockStatus, CosemDateTime
from concentrator.dlms.elliptic import PrivateKey, curve_of, public_octets
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.security import KEY_LENGTHS, MemoryCounter, SecurityControl, SecurityKeys, protect
from concentrator.dlms.server import AssociationDefinition, LogicalDevice, Server, visible_only
from concentrator.obis import Obis
from concentrator.simulator.load_model import INSTALLED, SLOT_S, LoadModel
from concentrator.simulator.mbus_channels import SimulatedChannelMeter
from concentrator.simulator.meter_controls import MeterControls
from concentrator.simulator.meter_events import EventRows, Happening, alarm_notification
from concentrator.simulator.meter_profile import PROFILE_STATUS, PeriodicRows, TruthRow

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
EVENT_CODE = Obis(0, 0, 96, 11, 0, 255)
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
POWER = Obis(1, 0, 1, 7, 0, 255)
VOLTAGE = Obis(1, 0, 32, 7, 0, 255)
_ENERGY_UNITS = (30, 30, 32, 32)

# Bits of the profile status, as the European companion standards use them.
STATUS_DAYLIGHT_SAVING = 0x08
STATUS_CLOCK_ADJUSTED = 0x20
STATUS_POWER_DOWN = 0x80

_IMAGE_BLOCK_SIZE = 128
_POLICY = (
    SecurityPolicy.AUTHENTICATED_REQUEST
    | SecurityPolicy.ENCRYPTED_REQUEST
    | SecurityPolicy.AUTHENTICATED_RESPONSE
    | SecurityPolicy.ENCRYPTED_RESPONSE
)
_ALARM_CONTROL = SecurityControl.AUTHENTICATED | SecurityControl.ENCRYPTED
_WINTER, _SUMMER = -60, -120


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


class SimulatedMeter:
    """One meter; satisfies `concentrator.simulator.device.Device`.

    `clock` gives the true time, aware, in UTC; the meter's own clock is off by `clock_offset_s`. `keys` are
    what a key list for the product holds. With `security_suite` 1 or 2 its client proves itself by ECDSA, with
    `client_signing_key` and as `client_system_title`. `channels` are the device types of the meters on its M-Bus.
    """

    def __init__(  # noqa: PLR0913 - what a meter is
        self,
        serial: str,
        seed: int,
        clock: Callable[[], datetime],
        *,
        clock_offset_s: float | None = None,
        security_suite: int = 0,
        client_system_title: bytes = b"ODC\0\0\0\0\1",
        channels: Sequence[int] = (),
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
        self.security_suite = security_suite
        self.client_signing_key: PrivateKey | None = None
        self.keys = SecurityKeys(
            self._key(seed, "encryption"), self._key(seed, "authentication"), master=self._key(seed, "master")
        )
        if security_suite:
            self.client_signing_key = self._private_key(seed, "client")
            self.keys.signing = self._private_key(seed, "meter")
            self.keys.peer_signing = self.client_signing_key.public_key()
        self.security_setup = SecuritySetup(
            self.keys,
            self.system_title,
            suite=security_suite,
            policy=_POLICY,
            client_system_title=lambda: client_system_title,
        )
        self.image_transfer = ImageTransfer(_IMAGE_BLOCK_SIZE, self._verify_image, self._activate_image)
        self.firmware = b"ODC-SIM 1.0"
        self.installed_at = INSTALLED
        # Spans in which it had no power, and such that it has no rows of though nobody knows why: seconds from 1970,
        # after the first and up to the last.
        self.dead: tuple[tuple[int, int], ...] = ()
        self.forgotten: tuple[tuple[int, int], ...] = ()
        # Without power it neither hears nor answers.
        self.powered = True
        # Many meters leave the deviation of their times open.
        self.tells_deviation = True
        self._clock = clock
        self._adjusted_at: list[datetime] = []
        self._server: Server | None = None
        self.counter = MemoryCounter()
        self._received_counters: dict[int, dict[tuple[bytes, str], int]] = {}
        self.channels = [
            SimulatedChannelMeter(seed, serial, number, device_type, self.now, self.shown)
            for number, device_type in enumerate(channels, 1)
        ]
        # Power failures and tampering that a test or a demonstration made happen.
        self.happenings: list[Happening] = []
        self.power_failures: list[tuple[int, int]] = []
        self._events = {
            EVENT_LOG: EventRows(self, fraud=False),
            FRAUD_LOG: EventRows(self, fraud=True),
        }

    def _key(self, seed: int, use: str) -> bytes:
        digest = hashlib.sha256(f"{seed}/{self.serial}/{use} key".encode()).digest()
        return digest[: KEY_LENGTHS[self.security_suite]]

    def _private_key(self, seed: int, use: str) -> PrivateKey:
        digest = hashlib.sha256(f"{seed}/{self.serial}/{use} signing key".encode()).digest()
        return ec.derive_private_key(int.from_bytes(digest, "big") >> 1, curve_of(self.security_suite))

    @cached_property
    def controls(self) -> MeterControls:
        """What it can be told to do; made when it is asked for first, as most of a thousand meters are idle."""
        return MeterControls(self, ENERGY, _WINTER)

    @cached_property
    def _profiles(self) -> dict[Obis, PeriodicRows]:
        others = {POWER: self.load.power, VOLTAGE: self.load.voltage}
        return {
            obis: PeriodicRows(
                self,
                self.controls.memory,
                obis,
                period_s,
                ENERGY,
                others,
                lambda at: self.shown(at).to_bytes(),
            )
            for obis, period_s in ((LOAD_PROFILE, SLOT_S), (DAILY_PROFILE, 86400))
        }

    def key_file_entry(self) -> dict[str, Any]:
        """The meter's entry in the product's key file."""
        entry: dict[str, Any] = {
            "encryption_key": self.keys.encryption.hex(),
            "authentication_key": self.keys.authentication.hex(),
            "master_key": self.keys.master.hex(),
        }
        if self.client_signing_key is not None and self.keys.signing is not None:
            number = self.client_signing_key.private_numbers().private_value
            entry["suite"] = self.security_suite
            entry["signing_key"] = number.to_bytes(48, "big").hex()
            entry["meter_signing_key"] = public_octets(self.keys.signing.public_key()).hex()
        return entry

    @property
    def logical_device_name(self) -> bytes:
        """16 octets: the manufacturer's three letters, and the serial number."""
        return (MANUFACTURER + self.serial.encode("ascii", "replace")[-13:].rjust(13, b"0"))[:16]

    def now(self) -> datetime:
        """The meter's own clock, in UTC."""
        return self._clock() + timedelta(seconds=self.clock_offset_s)

    def local(self, moment: datetime) -> datetime:
        """A moment as local time, without zone."""
        return local_time(moment).local()

    def to_utc(self, local: datetime) -> datetime:
        """A local time as a moment; of the hour that comes twice the first."""
        summer = local.replace(tzinfo=UTC) + timedelta(minutes=_SUMMER)
        if deviation_at(summer) == _SUMMER:
            return summer
        return local.replace(tzinfo=UTC) + timedelta(minutes=_WINTER)

    def shown(self, moment: datetime) -> CosemDateTime:
        """A moment as this meter writes it."""
        time = local_time(moment)
        return time if self.tells_deviation else time._replace(deviation=DEVIATION_NOT_SPECIFIED)

    def profile_status(self, captured_at: datetime, period_s: int) -> int:
        """The status of the interval that ends then."""
        end = int(captured_at.timestamp())
        status = STATUS_DAYLIGHT_SAVING if deviation_at(captured_at) == _SUMMER else 0
        if any(end - period_s <= last < end for _, last in self.dead):
            status |= STATUS_POWER_DOWN
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
        """Take an APDU; answers go to `reply` at once. One that the power fails under is not answered."""
        if not self.powered:
            return
        self.controls.advance()
        answers = list(self.server.receive_apdu(client_sap, server_sap, apdu))
        if self.powered:
            for answer in answers:
                reply(answer)

    def power_off(self) -> None:
        """The power fails: associations and all that is not kept are gone."""
        self.powered = False
        self._server = None
        self.controls.power_failed()

    def power_on(self) -> None:
        """The power is back."""
        self.powered = True

    @property
    def connected(self) -> bool:
        """Whether the customer has power."""
        return self.controls.switch.connected

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
                    AuthenticationMechanism.HLS_ECDSA
                    if self.security_suite
                    else AuthenticationMechanism.HLS_GMAC,
                    keys=self.keys,
                    security_suite=self.security_suite,
                    policy=lambda: self.security_setup.policy,
                ),
            ],
            system_title=self.system_title,
            counter=self.counter,
            max_pdu_size=self.max_pdu_size,
        )
        # Like all that security rests on, these outlive a power failure.
        device.received_counters = self._received_counters
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
            register(POWER, lambda: axdr.double_long_unsigned(load.power(self.now())), 0, 27),
            register(VOLTAGE, lambda: axdr.long_unsigned(load.voltage(self.now())), -1, 35),
            *[
                rows.cosem_object(compressed=self.compressed, default_deviation=_WINTER)
                for rows in self._profiles.values()
            ],
            *[
                profile_object(obis, rows, capacity=512, default_deviation=_WINTER)
                for obis, rows in self._events.items()
            ],
            *self.controls.cosem_objects(),
            *[one for channel in self.channels for one in channel.objects(_WINTER)],
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
