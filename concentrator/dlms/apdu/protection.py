"""The envelopes: ciphered, signed, split into blocks, and addressed through a gateway (Green Book 9.5).

These only frame; `security.py` protects and unprotects what they carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concentrator.dlms.errors import DecodeError, EncodeError
from concentrator.dlms.reader import Reader, encode_octet_string

# Service tag -> tag of the service-specific ciphered APDU, with the global and with the dedicated key.
GLOBAL_TAGS = {
    0x01: 0x21, 0x05: 0x25, 0x06: 0x26, 0x08: 0x28, 0x0C: 0x2C, 0x0D: 0x2D, 0x0E: 0x2E, 0x16: 0x36,
    0x18: 0x38,
    0xC0: 0xC8, 0xC1: 0xC9, 0xC2: 0xCA, 0xC3: 0xCB, 0xC4: 0xCC, 0xC5: 0xCD, 0xC7: 0xCF,
}  # fmt: skip
DEDICATED_TAGS = {
    0x05: 0x45, 0x06: 0x46, 0x0C: 0x4C, 0x0D: 0x4D, 0x0E: 0x4E, 0x16: 0x56, 0x18: 0x58,
    0xC0: 0xD0, 0xC1: 0xD1, 0xC2: 0xD2, 0xC3: 0xD3, 0xC4: 0xD4, 0xC5: 0xD5, 0xC7: 0xD7,
}  # fmt: skip
SERVICE_OF_GLOBAL = {ciphered: plain for plain, ciphered in GLOBAL_TAGS.items()}
SERVICE_OF_DEDICATED = {ciphered: plain for plain, ciphered in DEDICATED_TAGS.items()}

GENERAL_GLO = 0xDB
GENERAL_DED = 0xDC


@dataclass(frozen=True, slots=True)
class ServiceCiphered:
    """A service-specific ciphered APDU (glo-get-request, ded-set-response, ...).

    `content` is security header, ciphertext and tag.
    """

    tag: int
    content: bytes

    @property
    def dedicated(self) -> bool:
        """Whether the dedicated key protects it."""
        return self.tag in SERVICE_OF_DEDICATED

    @property
    def service_tag(self) -> int:
        """The tag of the APDU within."""
        return SERVICE_OF_GLOBAL.get(self.tag) or SERVICE_OF_DEDICATED[self.tag]

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((self.tag,)) + encode_octet_string(self.content)


@dataclass(frozen=True, slots=True)
class GeneralCiphered:
    """general-glo-ciphering or general-ded-ciphering: any APDU, and the title of who protected it."""

    tag: int
    system_title: bytes
    content: bytes

    @property
    def dedicated(self) -> bool:
        """Whether the dedicated key protects it."""
        return self.tag == GENERAL_DED

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return bytes((self.tag,)) + encode_octet_string(self.system_title) + encode_octet_string(self.content)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Which key protects a general-ciphering APDU.

    `kind` 0: an identified key, `identity` 0 global unicast or 1 global broadcast. 1: a wrapped key,
    `identity` the wrapping key, `data` the wrapped one. 2: an agreed key, `parameters` and `data` of the
    agreement.
    """

    kind: int
    identity: int = 0
    parameters: bytes = b""
    data: bytes = b""

    @classmethod
    def read(cls, reader: Reader) -> KeyInfo:
        """Take a Key-Info. Raises DecodeError."""
        kind = reader.octet()
        if kind == 0:
            return cls(kind, reader.octet())
        if kind == 1:
            return cls(kind, reader.octet(), data=reader.octet_string())
        if kind == 2:
            return cls(kind, parameters=reader.octet_string(), data=reader.octet_string())
        raise DecodeError(f"key-info has no choice {kind}")

    def to_bytes(self) -> bytes:
        """The encoded Key-Info."""
        if self.kind == 0:
            return bytes((0, self.identity))
        if self.kind == 1:
            return bytes((1, self.identity)) + encode_octet_string(self.data)
        return b"\x02" + encode_octet_string(self.parameters) + encode_octet_string(self.data)


@dataclass(frozen=True, slots=True)
class GeneralCiphering:
    """general-ciphering: any APDU, with originator, recipient and which key was used."""

    TAG: ClassVar[int] = 0xDD
    transaction_id: bytes
    originator_system_title: bytes
    recipient_system_title: bytes
    date_time: bytes
    other_information: bytes
    key_info: KeyInfo | None
    content: bytes

    @property
    def header(self) -> bytes:
        """The fields that the authentication covers beside the content."""
        fields = (
            self.transaction_id,
            self.originator_system_title,
            self.recipient_system_title,
            self.date_time,
            self.other_information,
        )
        return b"".join(encode_octet_string(field) for field in fields)

    @classmethod
    def read(cls, reader: Reader) -> GeneralCiphering:
        """Take the contents behind the tag. Raises DecodeError."""
        transaction, originator, recipient, date_time, other = [reader.octet_string() for _ in range(5)]
        key_info = KeyInfo.read(reader) if reader.flag() else None
        return cls(transaction, originator, recipient, date_time, other, key_info, reader.octet_string())

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        key_info = b"\x00" if self.key_info is None else b"\x01" + self.key_info.to_bytes()
        return b"\xdd" + self.header + key_info + encode_octet_string(self.content)


@dataclass(frozen=True, slots=True)
class GeneralSigning:
    """general-signing: an APDU and its originator's signature over header and content."""

    TAG: ClassVar[int] = 0xDF
    transaction_id: bytes
    originator_system_title: bytes
    recipient_system_title: bytes
    date_time: bytes
    other_information: bytes
    content: bytes
    signature: bytes

    @classmethod
    def read(cls, reader: Reader) -> GeneralSigning:
        """Take the contents behind the tag. Raises DecodeError."""
        return cls(*[reader.octet_string() for _ in range(7)])

    @property
    def header(self) -> bytes:
        """The fields before the content."""
        fields = (
            self.transaction_id,
            self.originator_system_title,
            self.recipient_system_title,
            self.date_time,
            self.other_information,
        )
        return b"".join(encode_octet_string(field) for field in fields)

    def signed_octets(self, *, with_length: bool = False) -> bytes:
        """What the signature covers: header and content, the content's length included or not."""
        return self.header + (encode_octet_string(self.content) if with_length else self.content)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return b"\xdf" + self.header + encode_octet_string(self.content) + encode_octet_string(self.signature)


@dataclass(frozen=True, slots=True)
class GeneralBlockTransfer:
    """One block of an APDU that is split below the services. Blocks count from 1.

    `window` is how many blocks the sender of this one can take; `acknowledged` the last it has in order.
    """

    TAG: ClassVar[int] = 0xE0
    last: bool
    streaming: bool
    window: int
    block_number: int
    acknowledged: int
    block: bytes

    @classmethod
    def read(cls, reader: Reader) -> GeneralBlockTransfer:
        """Take the contents behind the tag. Raises DecodeError."""
        control = reader.octet()
        number, acknowledged = reader.unsigned(2), reader.unsigned(2)
        block = reader.octet_string()
        return cls(bool(control & 0x80), bool(control & 0x40), control & 0x3F, number, acknowledged, block)

    def to_bytes(self) -> bytes:
        """The whole APDU. Raises EncodeError."""
        if not 0 <= self.window <= 63:
            raise EncodeError(f"a window is 0 to 63 blocks, not {self.window}")
        control = self.last << 7 | self.streaming << 6 | self.window
        head = (
            bytes((0xE0, control))
            + self.block_number.to_bytes(2, "big")
            + self.acknowledged.to_bytes(2, "big")
        )
        return head + encode_octet_string(self.block)


@dataclass(frozen=True, slots=True)
class GatewayApdu:
    """An APDU for (E6), or from (E7), a device behind a gateway."""

    REQUEST: ClassVar[int] = 0xE6
    RESPONSE: ClassVar[int] = 0xE7
    tag: int
    network_id: int
    device_address: bytes
    content: bytes

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = bytes((self.tag, self.network_id))
        return head + encode_octet_string(self.device_address) + self.content


def read_service_ciphered(tag: int, reader: Reader) -> ServiceCiphered:
    """Take the contents behind the tag. Raises DecodeError."""
    return ServiceCiphered(tag, reader.octet_string())


def read_general_ciphered(tag: int, reader: Reader) -> GeneralCiphered:
    """Take the contents behind the tag. Raises DecodeError."""
    title = reader.octet_string()
    if len(title) not in (0, 8):
        raise DecodeError(f"a system title has 8 octets, got {len(title)}")
    return GeneralCiphered(tag, title, reader.octet_string())


def read_gateway(tag: int, reader: Reader) -> GatewayApdu:
    """Take the contents behind the tag. Raises DecodeError."""
    network, address = reader.octet(), reader.octet_string()
    return GatewayApdu(tag, network, address, reader.rest())
