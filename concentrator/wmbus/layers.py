"""The layers between link layer and data (EN 13757-4, -7, OMS volume 2), told apart by CI-fields.

From the outside in: extended link layer (8C to 8F), authentication and fragmentation layer (90),
transport layer (long, short or no header) and the application's own CI-field. The network layer (81) is
recognised and not opened.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from concentrator.wmbus.address import ADDRESS_OCTETS, Address
from concentrator.wmbus.errors import TelegramError

CI_NETWORK_LAYER = 0x81
CI_AUTHENTICATION = 0x90
CI_ELL_VARIABLE = 0x86
CI_MANUFACTURER_SPECIFIC = range(0xA0, 0xB8)

_AFL_MORE_FRAGMENTS = 0x4000
_AFL_MCL = 0x2000
_AFL_ML = 0x1000
_AFL_MCR = 0x0800
_AFL_MAC = 0x0400
_AFL_KI = 0x0200
# Authentication type (low nibble of MCL): octets of the MAC.
_MAC_OCTETS = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16}
# Modes whose configuration field has an extension octet: key derivation and number of the key.
_EXTENDED_MODES = range(7, 11)
_SHORT_HEADER_OCTETS = 4
_BLOCK_OCTETS = 16
_DES_MODES = (2, 3)


class Header(enum.Enum):
    """The transport header that a CI-field announces."""

    NONE = "none"
    SHORT = "short"
    LONG = "long"


class Content(enum.StrEnum):
    """What follows the transport header."""

    RECORDS = "records"
    COMPACT = "compact"
    FORMAT = "format"
    NOTHING = "nothing"
    COMMAND = "command"
    ALARM = "alarm"
    ERROR = "error"
    DLMS = "dlms"
    OBIS = "obis"
    CLOCK = "clock"
    SECURITY = "security"
    MANUFACTURER = "manufacturer"
    SELECTION = "selection"  # of an application or a device, application reset
    MANAGEMENT = "management"
    BAUD_RATE = "baud_rate"
    IMAGE = "image"
    UNKNOWN = "unknown"


class ApplicationCi(NamedTuple):
    """One CI-field: its transport header and what it carries."""

    header: Header
    content: Content


# EN 13757-7 table of CI-fields, those that end the chain of layers: content, then those with no, short and
# long transport header.
_CI_ROWS: tuple[tuple[Content, tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    (Content.RECORDS, (0x78,), (0x7A,), (0x72,)),
    (Content.COMPACT, (0x79,), (0x7B,), (0x73,)),
    (Content.FORMAT, (0x69,), (0x6A,), (0x6B,)),
    (Content.COMMAND, (0x51,), (0x5A,), (0x5B,)),
    (Content.SELECTION, (0x50, 0x52, 0x54, 0x5C, 0x66), (0x67,), (0x53, 0x55, 0x68)),
    (Content.ALARM, (0x71,), (0x74,), (0x75,)),
    (Content.ERROR, (0x70,), (0x6E,), (0x6F,)),
    # 00 to 1F: DLMS without a transport header, told from each other by the segmentation bits (EN 13757-1).
    (Content.DLMS, tuple(range(0x20)), (0x7D, 0x61), (0x7C, 0x60)),
    (Content.OBIS, (), (0x7F, 0x65), (0x7E, 0x64)),
    (Content.CLOCK, (), (), (0x6C, 0x6D)),
    (Content.NOTHING, (), (0x8A, 0x88), (0x8B, 0x80)),
    (Content.MANAGEMENT, (0x83,), (0x89,), (0x87,)),
    (Content.BAUD_RATE, tuple(range(0xB8, 0xC0)), (), ()),
    (Content.IMAGE, (), (0xC1,), (0xC0, 0xC2)),
    (Content.SECURITY, (), (0xC4,), (0xC3, 0xC5)),
    (Content.MANUFACTURER, (), (), (0x5F,)),
)
APPLICATION_CIS: dict[int, ApplicationCi] = {
    ci: ApplicationCi(header, content)
    for content, *columns in _CI_ROWS
    for header, cis in zip((Header.NONE, Header.SHORT, Header.LONG), columns, strict=True)
    for ci in cis
}


class _EllShape(NamedTuple):
    has_receiver: bool
    has_session: bool


_ELL_SHAPES = {
    0x8C: _EllShape(False, False),
    0x8D: _EllShape(False, True),
    0x8E: _EllShape(True, False),
    0x8F: _EllShape(True, True),
}
LOWER_LAYER_CIS = frozenset((*_ELL_SHAPES, CI_NETWORK_LAYER, CI_AUTHENTICATION, CI_ELL_VARIABLE))


@dataclass(frozen=True, slots=True)
class ExtendedLinkLayer:
    """The ELL. `session_number` carries the security bits; None where the form has none."""

    ci: int
    communication_control: int
    access_number: int
    receiver: Address | None
    session_number: int | None

    @property
    def encrypted(self) -> bool:
        """Whether AES-CTR is announced: bits 29 to 31 of the session number are 1."""
        return self.session_number is not None and self.session_number >> 29 == 1

    @property
    def security_known(self) -> bool:
        """Whether the security bits have a value of the standard: 0 (none) or 1 (AES-CTR)."""
        return self.session_number is None or self.session_number >> 29 <= 1


@dataclass(frozen=True, slots=True)
class AuthenticationLayer:
    """The AFL of an unfragmented message, or of one fragment."""

    fragment: int
    more_fragments: bool
    message_control: int | None
    key_information: int | None
    counter: int | None
    mac: bytes
    message_length: int | None

    @property
    def fragmented(self) -> bool:
        """Whether this is only a part of a message."""
        return self.more_fragments or self.fragment > 1

    def protected_header(self) -> bytes:
        """The octets of this layer that the MAC covers: MCL, MCR and ML, as far as they were sent."""
        octets = b"" if self.message_control is None else bytes((self.message_control,))
        if self.counter is not None:
            octets += self.counter.to_bytes(4, "little")
        if self.message_length is not None:
            octets += self.message_length.to_bytes(2, "little")
        return octets


class TransportLayer(NamedTuple):
    """The TPL: `address` is the meter's own where the header is long.

    `configuration` is the 16-bit configuration field; without a header it is 0, and there is no access
    number and no status.
    """

    ci: int
    content: Content
    header: Header
    address: Address | None = None
    access_number: int | None = None
    status: int | None = None
    configuration: int = 0
    key_derivation: int | None = None
    key_id: int | None = None

    @property
    def mode(self) -> int:
        """The security mode: bits 8 to 12 of the configuration field."""
        return self.configuration >> 8 & 0x1F

    @property
    def encrypted_octets(self) -> int:
        """How many octets are encrypted, in the modes that tell it: 2, 3 in octets, 4, 5 and 7 in blocks."""
        if self.mode in _DES_MODES:
            return self.configuration & 0xFF
        return (self.configuration >> 4 & 0x0F) * _BLOCK_OCTETS


class Cursor:
    """Reads a payload from the outside in; running out of octets is a `TelegramError`."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, octets: int, what: str) -> bytes:
        """The next octets, which `what` names for the error's text."""
        found = self.data[self.at : self.at + octets]
        if len(found) < octets:
            raise TelegramError(f"the telegram ends within the {what}: {self.data.hex()}")
        self.at += octets
        return bytes(found)

    def number(self, octets: int, what: str) -> int:
        """The next octets as an unsigned number, low octet first."""
        return int.from_bytes(self.take(octets, what), "little")

    @property
    def rest(self) -> bytes:
        """All that was not taken yet."""
        return bytes(self.data[self.at :])


def is_ell(ci: int) -> bool:
    """Whether a CI-field starts an extended link layer."""
    return ci in _ELL_SHAPES


def read_ell(cursor: Cursor) -> ExtendedLinkLayer:
    """Read an ELL up to its payload CRC, which is left for the one who decrypts.

    Raises:
        TelegramError: the data end within it.
    """
    ci = cursor.number(1, "ELL")
    shape = _ELL_SHAPES[ci]
    communication_control = cursor.number(1, "ELL communication control")
    access_number = cursor.number(1, "ELL access number")
    receiver = (
        Address.from_link_layer(cursor.take(ADDRESS_OCTETS, "ELL receiver address"))
        if shape.has_receiver
        else None
    )
    session = cursor.number(4, "ELL session number") if shape.has_session else None
    return ExtendedLinkLayer(ci, communication_control, access_number, receiver, session)


def read_afl(cursor: Cursor) -> AuthenticationLayer:
    """Read an AFL with its CI-field.

    Raises:
        TelegramError: the data end within it, or its length field misses its content.
    """
    cursor.take(1, "AFL")
    length = cursor.number(1, "AFL length")
    inner = Cursor(cursor.take(length, "AFL"))
    control = inner.number(2, "AFL fragmentation control")
    message_control = inner.number(1, "AFL message control") if control & _AFL_MCL else None
    key_information = inner.number(2, "AFL key information") if control & _AFL_KI else None
    counter = inner.number(4, "AFL message counter") if control & _AFL_MCR else None
    mac = b""
    if control & _AFL_MAC:
        authentication_type = (message_control or 0) & 0x0F
        octets = _MAC_OCTETS.get(authentication_type)
        if octets is None:
            if message_control is not None:
                raise TelegramError(f"AFL with unknown authentication type {authentication_type}")
            octets = len(inner.rest) - (2 if control & _AFL_ML else 0)
        mac = inner.take(max(0, octets), "AFL MAC")
    message_length = inner.number(2, "AFL message length") if control & _AFL_ML else None
    if inner.rest:
        raise TelegramError(f"AFL with {len(inner.rest)} octets too many: {inner.data.hex()}")
    return AuthenticationLayer(
        fragment=control & 0xFF,
        more_fragments=bool(control & _AFL_MORE_FRAGMENTS),
        message_control=message_control,
        key_information=key_information,
        counter=counter,
        mac=mac,
        message_length=message_length,
    )


def read_tpl(cursor: Cursor) -> TransportLayer:
    """Read the CI-field and its transport header; what is left is the content.

    Raises:
        TelegramError: the data end within it.
    """
    data, at = cursor.data, cursor.at
    if at >= len(data):
        raise TelegramError("the telegram ends before the CI-field")
    ci = data[at]
    cursor.at = at = at + 1
    if ci in CI_MANUFACTURER_SPECIFIC:
        return TransportLayer(ci, Content.MANUFACTURER, Header.NONE)
    row = APPLICATION_CIS.get(ci)
    if row is None:
        return TransportLayer(ci, Content.UNKNOWN, Header.NONE)
    header, content = row
    if header is Header.NONE:
        return TransportLayer(ci, content, header)
    address = None
    if header is Header.LONG:
        address = Address.from_transport_layer(data[at : at + ADDRESS_OCTETS])
        at += ADDRESS_OCTETS
    if at + _SHORT_HEADER_OCTETS > len(data):
        raise TelegramError(f"the telegram ends within the transport header: {data.hex()}")
    access_number, status, low, high = data[at : at + _SHORT_HEADER_OCTETS]
    cursor.at = at + _SHORT_HEADER_OCTETS
    extension = None
    if high & 0x1F in _EXTENDED_MODES:
        extension = cursor.number(1, "configuration field extension")
        return TransportLayer(
            ci,
            content,
            header,
            address,
            access_number,
            status,
            low | high << 8,
            extension >> 4 & 0x03,
            extension & 0x0F,
        )
    return TransportLayer(ci, content, header, address, access_number, status, low | high << 8)
