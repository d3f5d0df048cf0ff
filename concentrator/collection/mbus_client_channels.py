"""The meters on an electricity meter's own M-Bus: its M-Bus client channels (Blue Book, class 72), read by DLMS.

Each channel n has the objects M-Bus client 0-n:24.1.0 (who is there), extended register 0-n:24.2.1 (the value that was
read last, with its time) and profile 0-n:24.3.0. What comes of them belongs to the meter on the channel, under its own
identity and the OBIS code of its medium, as if it had been heard or read directly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from concentrator.collection.meter_reader import LocalTime, ProfileShape
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import AccessError, DecodeError
from concentrator.model import Answer, Channel, Medium, Reading, safe_identity
from concentrator.obis import Obis
from concentrator.wmbus.address import Address, manufacturer_letters

LINK = "mbus-client"
_MBUS_CLIENT, _EXTENDED_REGISTER = 72, 4
_PRIMARY_ADDRESS, _IDENTIFICATION, _MANUFACTURER, _VERSION, _DEVICE_TYPE = 5, 6, 7, 8, 9
_VALUE, _SCALER_UNIT, _STATUS, _CAPTURE_TIME = 2, 3, 4, 5
_VALUES_OF_CHANNEL = (24, 2)
_IDENTIFICATION_DIGITS = 8
_UNIT_M3 = (13, 14)
# The register of a medium that a channel's first value is (as P1 ports and OMS map it).
REGISTER_OF_MEDIUM: dict[Medium, Obis] = {
    Medium.GAS: Obis(7, 0, 3, 0, 0, 255),
    Medium.WATER: Obis(8, 0, 1, 0, 0, 255),
    Medium.HOT_WATER: Obis(9, 0, 1, 0, 0, 255),
    Medium.HEAT: Obis(6, 0, 1, 0, 0, 255),
    Medium.COOLING: Obis(5, 0, 1, 0, 0, 255),
    Medium.HEAT_COST: Obis(4, 0, 1, 0, 0, 255),
    Medium.ELECTRICITY: Obis(1, 0, 1, 8, 0, 255),
}
# Where heat and cooling are told in cubic metres.
_VOLUME_OF_MEDIUM = {Medium.HEAT: Obis(6, 0, 2, 0, 0, 255), Medium.COOLING: Obis(5, 0, 2, 0, 0, 255)}


@dataclass(frozen=True, slots=True)
class ChannelMeter:
    """A meter on a channel: who it is by its M-Bus address, and which channel it is on."""

    channel: int
    address: Address

    @property
    def identity(self) -> str:
        """As it would be called if it were heard directly."""
        return safe_identity(str(self.address))

    @property
    def medium(self) -> Medium:
        """What it measures."""
        return self.address.medium

    @property
    def profile(self) -> Obis:
        """The profile of its values."""
        return Obis(0, self.channel, 24, 3, 0, 255)

    @property
    def register(self) -> Obis:
        """Its value that was read last."""
        return Obis(0, self.channel, 24, 2, 1, 255)


def find_channel_meters(
    client: Client, channels: int, *, binary: bool = False
) -> Conversation[list[ChannelMeter]]:
    """The meters on the first `channels` channels; a channel that is not there, or has nobody, is left out.

    Args:
        client: within an association.
        channels: how many there may be.
        binary: the identification number is a number, not BCD digits.

    Raises:
        DlmsError: the dialogue broke off.
    """
    if channels <= 0:
        return []
    wanted = (_PRIMARY_ADDRESS, _IDENTIFICATION, _MANUFACTURER, _VERSION, _DEVICE_TYPE)
    descriptors = [
        AttributeDescriptor(_MBUS_CLIENT, Obis(0, channel, 24, 1, 0, 255), attribute)
        for channel in range(1, channels + 1)
        for attribute in wanted
    ]
    values = yield from client.get_many(descriptors)
    found: list[ChannelMeter] = []
    for channel in range(1, channels + 1):
        at = (channel - 1) * len(wanted)
        address = _address(values[at : at + len(wanted)], binary=binary)
        if address is not None:
            found.append(ChannelMeter(channel, address))
    return found


def _address(values: list[Data | AccessError], *, binary: bool) -> Address | None:
    numbers = [value.value if isinstance(value, Data) else None for value in values]
    primary, identification, manufacturer, version, device_type = numbers
    # Primary address 0 and number 0: no meter was ever installed there.
    if not isinstance(identification, int) or not identification or primary == 0:
        return None
    if not isinstance(manufacturer, int) or not isinstance(version, int) or not isinstance(device_type, int):
        return None
    digits = f"{identification:0{_IDENTIFICATION_DIGITS}d}" if binary else f"{identification:08X}"
    return Address(
        manufacturer_letters(manufacturer),
        digits[-_IDENTIFICATION_DIGITS:],
        version & 0xFF,
        device_type & 0xFF,
    )


def read_channel_value(
    client: Client, meter: ChannelMeter, local_time: LocalTime | None
) -> Conversation[Reading | None]:
    """The value that the electricity meter has read last, at its time; None where there is none yet.

    Raises:
        DlmsError: the dialogue broke off.
    """
    value, scaler_unit, status, capture_time = yield from client.get_many(
        [
            AttributeDescriptor(_EXTENDED_REGISTER, meter.register, attribute)
            for attribute in (_VALUE, _SCALER_UNIT, _STATUS, _CAPTURE_TIME)
        ]
    )
    if isinstance(value, AccessError) or isinstance(scaler_unit, AccessError):
        return None
    if isinstance(capture_time, AccessError) or not isinstance(value.value, int):
        return None
    try:
        scaler, unit = (item.integer() for item in scaler_unit.items(2))
        deviation = None if local_time is None else local_time.normal_deviation
        captured_at = CosemDateTime.from_bytes(capture_time.octets()).to_utc(deviation)
    except DecodeError:
        return None
    word = status.value if isinstance(status, Data) and isinstance(status.value, int) else None
    channel = own_channel(Channel(meter.register, unit, scaler, _EXTENDED_REGISTER), meter.medium)
    return Reading(channel, captured_at, value.value, word)


def own_channel(channel: Channel, medium: Medium) -> Channel:
    """A channel of the electricity meter as one of the meter on it; what has no code of the medium keeps its own."""
    obis = channel.obis
    if obis.a != 0 or obis[2:4] != _VALUES_OF_CHANNEL or channel.attribute != _VALUE or obis.e != 1:
        return channel
    own = REGISTER_OF_MEDIUM.get(medium)
    if channel.unit in _UNIT_M3:
        own = _VOLUME_OF_MEDIUM.get(medium, own)
    return channel if own is None else replace(channel, obis=own)


def own_shape(shape: ProfileShape, medium: Medium) -> ProfileShape:
    """The profile of a channel with its values named as those of the meter on it."""
    return replace(shape, channels=tuple(own_channel(channel, medium) for channel in shape.channels))


def value_answer(meter: ChannelMeter, reading: Reading, received_at: datetime) -> Answer:
    """One value as an answer of the meter on the channel; a row of its profile at the same time is the same reading."""
    return Answer(meter.identity, meter.profile, (reading,), received_at)
