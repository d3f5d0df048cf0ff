"""A simulated water meter with radio: an OMS telegram (security mode 5) every few seconds.

Telegrams are put together octet by octet and encrypted here, independently of the decoder. What the
meter counts is a function of its seed and of time alone: two runs, or a run in virtual time, give the
same volumes. The meter's clock runs in UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.simulator.radio_module import Scheduler

_MANUFACTURER = "ODC"
_VERSION = 0x01
_DEVICE_TYPE_WATER = 0x07
_C_SEND_NO_REPLY = 0x44
_CI_SHORT_HEADER = 0x7A
_MODE_5 = 0x0500
_BLOCK = 16
_SECONDS_PER_HOUR = 3600
_STATUS_LOW_POWER = 0x04
# Litres an hour that a household draws, by hour of the day (UTC), before the meter's own variation.
_HOUSEHOLD_LITRES = (1, 0, 0, 0, 1, 6, 22, 28, 18, 9, 6, 7, 12, 9, 6, 6, 9, 16, 24, 22, 14, 9, 6, 3)
# Nominal transmission interval of OMS for water meters is up to 112.5 s; this one is talkative.
DEFAULT_INTERVAL_S = 16.0


class SimulatedWaterMeter:
    """One meter: `transmit` takes its telegrams (from the L-field on, without CRCs).

    `started_at` is the wall-clock time at `scheduler.now() == 0`. `key` is the meter's AES-128 key, for
    the concentrator's key list; `identification` its eight digits.
    """

    def __init__(
        self,
        seed: int,
        number: int,
        scheduler: Scheduler,
        transmit: Callable[[bytes], None],
        *,
        started_at: datetime,
        interval_s: float = DEFAULT_INTERVAL_S,
    ) -> None:
        self.identification = f"{int.from_bytes(self._digest(seed, number, 'id')[:4], 'big') % 10**8:08}"
        self.key = self._digest(seed, number, "key")[:16]
        self.telegrams_sent = 0
        self.battery_low = False
        self._seed = seed
        self._number = number
        self._scheduler = scheduler
        self._transmit = transmit
        self._started_at = started_at.astimezone(UTC)
        self._interval_s = interval_s
        self._access_number = self._digest(seed, number, "access")[0]
        self._volumes: dict[int, int] = {}
        self._running = False

    def start(self) -> None:
        """Begin to send; the first telegram comes within one interval, at a moment of its own."""
        self._running = True
        offset = self._digest(self._seed, self._number, "offset")[0] / 256
        self._scheduler.call_later(offset * self._interval_s, self._send)

    def stop(self) -> None:
        """Send no more."""
        self._running = False

    def now(self) -> datetime:
        """The meter's clock."""
        return self._started_at + timedelta(seconds=self._scheduler.now())

    def volume_litres(self, moment: datetime) -> int:
        """The register at `moment`: monotonic, from the meter's start value up."""
        base = int.from_bytes(self._digest(self._seed, self._number, "base")[:4], "big") % 800_000
        hour = int(moment.timestamp()) // _SECONDS_PER_HOUR
        first_hour = int(self._started_at.timestamp()) // _SECONDS_PER_HOUR - 24 * 400
        return (
            base
            + self._whole_hours(first_hour, hour)
            + (self._hour_litres(hour) * (int(moment.timestamp()) % _SECONDS_PER_HOUR) // _SECONDS_PER_HOUR)
        )

    def flow_litres_per_hour(self, moment: datetime) -> int:
        """The present flow: what the hour draws, evenly."""
        return self._hour_litres(int(moment.timestamp()) // _SECONDS_PER_HOUR)

    def target_date(self, moment: datetime) -> datetime:
        """The end of the last month: midnight of the first."""
        return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)

    def build_telegram(self, moment: datetime, access_number: int) -> bytes:
        """The telegram that the meter sends at `moment`, from the L-field on, without CRCs."""
        address = self._address()
        plain = self._records(moment)
        plain = b"\x2f\x2f" + plain
        plain += b"\x2f" * (-len(plain) % _BLOCK)
        vector = address + bytes((access_number,)) * 8
        encryptor = Cipher(algorithms.AES(self.key), modes.CBC(vector)).encryptor()
        ciphertext = encryptor.update(plain) + encryptor.finalize()
        configuration = _MODE_5 | len(plain) // _BLOCK << 4
        status = _STATUS_LOW_POWER if self.battery_low else 0
        header = bytes((_CI_SHORT_HEADER, access_number, status)) + configuration.to_bytes(2, "little")
        content = bytes((_C_SEND_NO_REPLY,)) + address + header + ciphertext
        return bytes((len(content),)) + content

    def _records(self, moment: datetime) -> bytes:
        """Volume, clock, volume at the target date with its date, flow, and the error flags."""
        target = self.target_date(moment)
        last_day = target - timedelta(days=1)
        return b"".join(
            (
                b"\x04\x13" + self.volume_litres(moment).to_bytes(4, "little"),
                b"\x04\x6d" + _type_f(moment),
                b"\x44\x13" + self.volume_litres(target).to_bytes(4, "little"),
                b"\x42\x6c" + _type_g(last_day),
                b"\x02\x3b" + self.flow_litres_per_hour(moment).to_bytes(2, "little"),
                b"\x02\xfd\x17\x00\x00",
            )
        )

    def _address(self) -> bytes:
        code = 0
        for letter in _MANUFACTURER:
            code = code << 5 | ord(letter) - 64
        number = bytes.fromhex(self.identification)[::-1]
        return code.to_bytes(2, "little") + number + bytes((_VERSION, _DEVICE_TYPE_WATER))

    def _send(self) -> None:
        if not self._running:
            return
        self._access_number = self._access_number + 1 & 0xFF
        self.telegrams_sent += 1
        self._transmit(self.build_telegram(self.now(), self._access_number))
        self._scheduler.call_later(self._interval_s, self._send)

    def _hour_litres(self, hour: int) -> int:
        variation = self._digest(self._seed, self._number, f"hour{hour}")[0]
        return _HOUSEHOLD_LITRES[hour % 24] * (64 + variation) // 128

    def _whole_hours(self, first: int, last: int) -> int:
        """Litres drawn from `first` up to the hour before `last`; remembered by the day."""
        total = 0
        hour = first
        while hour < last:
            if hour % 24 == 0 and hour + 24 <= last:
                day = hour // 24
                if day not in self._volumes:
                    self._volumes[day] = sum(self._hour_litres(day * 24 + h) for h in range(24))
                total += self._volumes[day]
                hour += 24
            else:
                total += self._hour_litres(hour)
                hour += 1
        return total

    @staticmethod
    def _digest(seed: int, number: int, purpose: str) -> bytes:
        return hashlib.sha256(f"water meter {seed} {number} {purpose}".encode()).digest()


def _type_g(moment: datetime) -> bytes:
    year = moment.year % 100
    return bytes((moment.day | (year & 0x07) << 5, moment.month | (year & 0x78) << 1))


def _type_f(moment: datetime) -> bytes:
    century = (moment.year - 1900) // 100
    return bytes((moment.minute, moment.hour | century << 5)) + _type_g(moment)
