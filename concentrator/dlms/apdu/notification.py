"""What a server sends unasked, and how it says no: notifications and exception-response (Green Book 9.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.errors import EncodeError
from concentrator.dlms.reader import Reader, encode_octet_string


@dataclass(frozen=True, slots=True)
class DataNotification:
    """A push. `date_time` is 12 octets, or 5 or 4, or none; `body` is one value.

    `long_invoke` is long-invoke-id-and-priority: bits 0 to 23 the id, 28 self-descriptive, 29 break on
    error, 30 confirmed, 31 high priority.
    """

    TAG: ClassVar[int] = 0x0F
    long_invoke: int
    date_time: bytes | None
    body: Data

    @classmethod
    def read(cls, reader: Reader) -> DataNotification:
        """Take the contents behind the tag. Raises DecodeError."""
        long_invoke = reader.unsigned(4)
        # The date-time is an octet-string without tag. Some meters write its tag all the same: 09 0C.
        if reader.data[reader.offset : reader.offset + 2] == b"\x09\x0c":
            reader.octet()
        date_time = reader.octet_string()
        return cls(long_invoke, date_time or None, axdr.read(reader))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        head = b"\x0f" + self.long_invoke.to_bytes(4, "big")
        return head + encode_octet_string(self.date_time or b"") + self.body.to_bytes()

    @property
    def confirmed(self) -> bool:
        """Whether the sender wants a data-notification-confirm."""
        return bool(self.long_invoke & 0x4000_0000)


@dataclass(frozen=True, slots=True)
class DataNotificationConfirm:
    """The receiver has the push of this long-invoke-id-and-priority."""

    TAG: ClassVar[int] = 0x10
    long_invoke: int
    date_time: bytes | None = None

    @classmethod
    def read(cls, reader: Reader) -> DataNotificationConfirm:
        """Take the contents behind the tag. Raises DecodeError."""
        return cls(reader.unsigned(4), reader.octet_string() or None)

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        return b"\x10" + self.long_invoke.to_bytes(4, "big") + encode_octet_string(self.date_time or b"")


@dataclass(frozen=True, slots=True)
class EventNotification:
    """The value of one attribute, sent because something happened."""

    TAG: ClassVar[int] = 0xC2
    date_time: bytes | None
    attribute: AttributeDescriptor
    value: Data

    @classmethod
    def read(cls, reader: Reader) -> EventNotification:
        """Take the contents behind the tag. Raises DecodeError."""
        date_time = reader.octet_string() if reader.flag() else None
        return cls(date_time, AttributeDescriptor.read(reader), axdr.read(reader))

    def to_bytes(self) -> bytes:
        """The whole APDU."""
        time = b"\x00" if self.date_time is None else b"\x01" + encode_octet_string(self.date_time)
        return b"\xc2" + time + self.attribute.to_bytes() + self.value.to_bytes()


@dataclass(frozen=True, slots=True)
class ExceptionResponse:
    """The server cannot serve the request. With service error 6 comes the counter that it expects."""

    TAG: ClassVar[int] = 0xD8
    state: int
    service: int
    expected_counter: int | None = None

    @classmethod
    def read(cls, reader: Reader) -> ExceptionResponse:
        """Take the contents behind the tag. Raises DecodeError."""
        state, service = reader.octet(), reader.octet()
        counter = reader.unsigned(4) if service == 6 and reader.offset + 4 <= reader.end else None
        return cls(state, service, counter)

    def to_bytes(self) -> bytes:
        """The whole APDU. Raises EncodeError."""
        if self.expected_counter is None:
            return bytes((self.TAG, self.state, self.service))
        if self.service != 6:
            raise EncodeError("only an invocation-counter-error tells a counter")
        return bytes((self.TAG, self.state, self.service)) + self.expected_counter.to_bytes(4, "big")
