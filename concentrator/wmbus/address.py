"""Who a telegram is about: manufacturer, identification, version, device type (EN 13757-3, -4, -7).

The identification number is eight BCD digits by the standard; some meters send hex digits there, so it
stays eight characters and never becomes a number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from concentrator.model import Medium
from concentrator.wmbus.errors import TelegramError, WmbusUsageError

ADDRESS_OCTETS = 8
_LETTER_BITS = 5
_UNIQUE_ELSEWHERE = 0x8000

# EN 13757-3 table of device types: code, what it says, the medium we file it under.
_DEVICE_TYPES: tuple[tuple[int, str, Medium], ...] = (
    (0x00, "other", Medium.OTHER),
    (0x01, "oil", Medium.OTHER),
    (0x02, "electricity", Medium.ELECTRICITY),
    (0x03, "gas", Medium.GAS),
    (0x04, "heat (return)", Medium.HEAT),
    (0x05, "steam", Medium.OTHER),
    (0x06, "warm water", Medium.HOT_WATER),
    (0x07, "water", Medium.WATER),
    (0x08, "heat cost allocator", Medium.HEAT_COST),
    (0x09, "compressed air", Medium.OTHER),
    (0x0A, "cooling (return)", Medium.COOLING),
    (0x0B, "cooling (flow)", Medium.COOLING),
    (0x0C, "heat (flow)", Medium.HEAT),
    (0x0D, "heat and cooling", Medium.HEAT),
    (0x0E, "bus or system component", Medium.OTHER),
    (0x0F, "unknown", Medium.OTHER),
    (0x14, "calorific value", Medium.OTHER),
    (0x15, "hot water", Medium.HOT_WATER),
    (0x16, "cold water", Medium.WATER),
    (0x17, "hot and cold water", Medium.WATER),
    (0x18, "pressure", Medium.OTHER),
    (0x19, "analogue-digital converter", Medium.OTHER),
    (0x1A, "smoke detector", Medium.OTHER),
    (0x1B, "room sensor", Medium.OTHER),
    (0x1C, "gas detector", Medium.OTHER),
    (0x20, "breaker (electricity)", Medium.ELECTRICITY),
    (0x21, "valve (gas or water)", Medium.OTHER),
    (0x25, "customer unit (display)", Medium.OTHER),
    (0x28, "waste water", Medium.OTHER),
    (0x29, "garbage", Medium.OTHER),
    (0x30, "service tool", Medium.OTHER),
    (0x31, "communication controller", Medium.OTHER),
    (0x32, "unidirectional repeater", Medium.OTHER),
    (0x33, "bidirectional repeater", Medium.OTHER),
    (0x36, "radio converter (system side)", Medium.OTHER),
    (0x37, "radio converter (meter side)", Medium.OTHER),
    (0x38, "bus converter (meter side)", Medium.OTHER),
    # Reserved by the standard; what Techem means by them.
    (0x43, "heat", Medium.HEAT),
    (0x45, "heat", Medium.HEAT),
    (0xC3, "heat", Medium.HEAT),
    (0x62, "warm water", Medium.HOT_WATER),
    (0x72, "water", Medium.WATER),
    (0x80, "heat cost allocator", Medium.HEAT_COST),
    (0xF0, "smoke detector", Medium.OTHER),
)
_BY_CODE = {code: (name, medium) for code, name, medium in _DEVICE_TYPES}


def medium_of(device_type: int) -> Medium:
    """What a meter of this device type measures."""
    return _BY_CODE.get(device_type, ("", Medium.OTHER))[1]


def manufacturer_letters(code: int) -> str:
    """The three letters of an M-field: five bits each, `A` = 1. A code outside of `A`..`Z` gives hex."""
    letters = "".join(chr((code >> shift & 0x1F) + 64) for shift in (10, 5, 0))
    return letters if letters.isalpha() else f"{code & 0x7FFF:04X}"


def manufacturer_code(letters: str) -> int:
    """The M-field of three letters, or of the four hex digits that stand in for impossible letters.

    Raises:
        WmbusUsageError: `letters` is neither.
    """
    if len(letters) == 3 and letters.isascii() and letters.isalpha():  # noqa: PLR2004 - three by the standard
        code = 0
        for letter in letters.upper():
            code = code << _LETTER_BITS | ord(letter) - 64
        return code
    if len(letters) == 4:  # noqa: PLR2004
        try:
            return int(letters, 16)
        except ValueError:
            pass
    raise WmbusUsageError(f"a manufacturer is three letters, got {letters!r}")


class Address(NamedTuple):
    """The address of a meter or radio module.

    `identification` is eight hex characters as printed on the meter (most significant first).
    `unique_elsewhere` is bit 15 of the M-field: the address is only unique within another system.
    """

    manufacturer: str
    identification: str
    version: int
    device_type: int
    unique_elsewhere: bool = False

    @staticmethod
    def from_link_layer(data: bytes) -> Address:
        """The eight octets M M A A A A V T of the link layer and of the ELL."""
        return _address_of(data)

    @staticmethod
    def from_transport_layer(data: bytes) -> Address:
        """The eight octets A A A A M M V T of a long transport header."""
        return _transport_address_of(data)

    def to_link_layer(self) -> bytes:
        """M M A A A A V T: as sent in the link layer, and as the start of the AES vectors."""
        return _link_octets_of(self)

    def to_transport_layer(self) -> bytes:
        """A A A A M M V T: as sent in a long transport header."""
        link = self.to_link_layer()
        return link[2:6] + link[0:2] + link[6:8]

    @property
    def device_type_name(self) -> str:
        """The device type in words."""
        return _BY_CODE.get(self.device_type, (f"device type {self.device_type:02X}", Medium.OTHER))[0]

    @property
    def medium(self) -> Medium:
        """What the meter measures."""
        return medium_of(self.device_type)

    def __str__(self) -> str:
        return f"{self.manufacturer}-{self.identification}-{self.version:02X}-{self.device_type:02X}"


# A receiver hears the same few hundred meters again and again.
@lru_cache(maxsize=4096)
def _address_of(data: bytes) -> Address:
    if len(data) != ADDRESS_OCTETS:
        raise TelegramError(f"an M-Bus address has 8 octets, got {len(data)}: {data.hex()}")
    code = int.from_bytes(data[:2], "little")
    return Address(
        manufacturer_letters(code),
        data[5:1:-1].hex().upper(),
        data[6],
        data[7],
        bool(code & _UNIQUE_ELSEWHERE),
    )


@lru_cache(maxsize=4096)
def _transport_address_of(data: bytes) -> Address:
    return _address_of(data[4:6] + data[0:4] + data[6:])


@lru_cache(maxsize=4096)
def _link_octets_of(address: Address) -> bytes:
    code = manufacturer_code(address.manufacturer) | (_UNIQUE_ELSEWHERE if address.unique_elsewhere else 0)
    number = bytes.fromhex(address.identification)[::-1]
    return code.to_bytes(2, "little") + number + bytes((address.version, address.device_type))
