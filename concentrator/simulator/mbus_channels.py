"""What a simulated electricity meter has on its M-Bus: gas and water meters, as objects of its COSEM server.

Each counts as a function of seed, number and hour alone. The electricity meter reads them on the hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis

HOUR_S = 3600
GAS, WATER = 0x03, 0x07
_MANUFACTURER, _MANUFACTURER_CODE, _VERSION = "ODC", 0x3C83, 0x01
_RETENTION_HOURS = 60 * 24
_CUBIC_METRES, _LITRES = 13, -3
# Litres an hour, at most, by device type.
_DRAW = {GAS: 1800, WATER: 60}


class ChannelRow(NamedTuple):
    """One value: when the electricity meter read it, and litres."""

    captured_at: datetime
    value: int


class SimulatedChannelMeter:
    """One meter on M-Bus channel `channel`, from 1.

    `now` is the electricity meter's clock, `shown` how it writes times.
    """

    def __init__(
        self,
        seed: int,
        serial: str,
        channel: int,
        device_type: int,
        now: Callable[[], datetime],
        shown: Callable[[datetime], CosemDateTime],
    ) -> None:
        digest = hashlib.sha256(f"{seed}/{serial}/channel {channel}".encode()).digest()
        self.channel = channel
        self.device_type = device_type
        self.identification = f"{int.from_bytes(digest[:4], 'big') % 10**8:08}"
        self.profile = Obis(0, channel, 24, 3, 0, 255)
        self.register = Obis(0, channel, 24, 2, 1, 255)
        self._status = Obis(0, channel, 96, 10, 3, 255)
        self._start = int.from_bytes(digest[4:7], "big")
        self._salt = digest[8:16]
        self._now = now
        self._shown = shown
        # ProfileRows
        self.period_s = HOUR_S
        self.columns: Sequence[CaptureObject] = (
            CLOCK_COLUMN,
            CaptureObject(1, self._status, 2),
            CaptureObject(4, self.register, 2),
        )

    @property
    def identity(self) -> str:
        """What the product calls it."""
        return f"{_MANUFACTURER}-{self.identification}-{_VERSION:02X}-{self.device_type:02X}"

    def litres(self, hour: int) -> int:
        """The register at the end of an hour (hours since 1970): it never falls."""
        draw = _DRAW[self.device_type]
        part = hashlib.sha256(self._salt + hour.to_bytes(4, "big")).digest()[0]
        return self._start + (hour - 480_000) * draw // 2 + part * draw // 1024

    def truth(self, start: datetime, end: datetime) -> list[ChannelRow]:
        """The rows captured from `start` to `end`, both included, that the buffer holds now."""
        return [self._row(entry) for entry in self.between(start, end)]

    def entries(self) -> range:
        """The hours in the buffer."""
        last = int(self._now().timestamp()) // HOUR_S
        return range(last - _RETENTION_HOURS + 1, last + 1)

    def between(self, start: datetime | None, end: datetime | None) -> range:
        """The hours captured from `start` to `end`, both included."""
        entries = self.entries()
        first = entries.start if start is None else -(-int(start.timestamp()) // HOUR_S)
        last = entries.stop - 1 if end is None else int(end.timestamp()) // HOUR_S
        return range(max(first, entries.start), min(last + 1, entries.stop))

    def cells(self, entry: int) -> Sequence[bytes]:
        """One row, encoded."""
        row = self._row(entry)
        clock = b"\x09\x0c" + self._shown(row.captured_at).to_bytes()
        return [clock, b"\x11\x00", b"\x06" + row.value.to_bytes(4, "big")]

    def _row(self, entry: int) -> ChannelRow:
        return ChannelRow(datetime.fromtimestamp(entry * HOUR_S, UTC), self.litres(entry))

    def objects(self, default_deviation: int) -> list[CosemObject]:
        """M-Bus client, extended register, status and profile of the channel."""

        def last() -> ChannelRow:
            return self._row(self.entries().stop - 1)

        unit = axdr.structure(axdr.integer(_LITRES), axdr.enumeration(_CUBIC_METRES))
        client = CosemObject(
            72,
            Obis(0, self.channel, 24, 1, 0, 255),
            {
                2: axdr.octet_string(bytes(Obis(0, 0, 24, 6, 0, 255))),
                3: axdr.array(),
                4: axdr.double_long_unsigned(HOUR_S),
                5: axdr.unsigned(self.channel),
                6: axdr.double_long_unsigned(int(self.identification, 16)),
                7: axdr.long_unsigned(_MANUFACTURER_CODE),
                8: axdr.unsigned(_VERSION),
                9: axdr.unsigned(self.device_type),
                10: axdr.unsigned(0),
                11: axdr.unsigned(0),
                12: axdr.unsigned(0),
            },
        )
        register = CosemObject(
            4,
            self.register,
            {
                2: lambda: axdr.double_long_unsigned(last().value),
                3: unit,
                4: axdr.unsigned(0),
                5: lambda: axdr.octet_string(self._shown(last().captured_at).to_bytes()),
            },
        )
        return [
            client,
            register,
            data(self._status, axdr.unsigned(0)),
            profile_object(
                self.profile, self, capacity=_RETENTION_HOURS, default_deviation=default_deviation
            ),
        ]
