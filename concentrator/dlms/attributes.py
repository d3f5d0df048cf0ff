"""What a request names: an attribute or method of an object, and which part of it (selective access).

Green Book 9.3 (Cosem_Attribute_Descriptor) and Blue Book class 7 (range_descriptor, entry_descriptor).
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypeAlias

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError
from concentrator.dlms.reader import Reader
from concentrator.obis import Obis

RANGE_SELECTOR = 1
ENTRY_SELECTOR = 2


class AttributeDescriptor(NamedTuple):
    """One attribute of one object. Attribute 0 means all attributes, where both sides support it."""

    class_id: int
    obis: Obis
    attribute: int

    @classmethod
    def read(cls, reader: Reader) -> AttributeDescriptor:
        """Take the nine octets from a cursor."""
        return cls(reader.unsigned(2), reader.obis(), reader.signed(1))

    def to_bytes(self) -> bytes:
        """Nine octets: class, logical name, attribute."""
        return (
            self.class_id.to_bytes(2, "big")
            + bytes(self.obis)
            + self.attribute.to_bytes(1, "big", signed=True)
        )

    def __str__(self) -> str:
        return f"attribute {self.attribute} of {self.obis} (class {self.class_id})"


class MethodDescriptor(NamedTuple):
    """One method of one object."""

    class_id: int
    obis: Obis
    method: int

    @classmethod
    def read(cls, reader: Reader) -> MethodDescriptor:
        """Take the nine octets from a cursor."""
        return cls(reader.unsigned(2), reader.obis(), reader.signed(1))

    def to_bytes(self) -> bytes:
        """Nine octets: class, logical name, method."""
        return (
            self.class_id.to_bytes(2, "big") + bytes(self.obis) + self.method.to_bytes(1, "big", signed=True)
        )

    def __str__(self) -> str:
        return f"method {self.method} of {self.obis} (class {self.class_id})"


class Selection(NamedTuple):
    """Selective access as it is on the line: a selector and its parameters."""

    selector: int
    parameters: Data

    @classmethod
    def read_optional(cls, reader: Reader) -> Selection | None:
        """Take the presence octet and, where it says so, the selection."""
        if not reader.flag():
            return None
        return cls(reader.octet(), axdr.read(reader))


def encode_selection(selection: Selection | None) -> bytes:
    """The presence octet and the selection."""
    if selection is None:
        return b"\x00"
    return bytes((1, selection.selector)) + selection.parameters.to_bytes()


class CaptureObject(NamedTuple):
    """One column of a profile: an attribute of an object; `data_index` picks an element of it (0: all)."""

    class_id: int
    obis: Obis
    attribute: int
    data_index: int = 0

    @classmethod
    def from_data(cls, data: Data) -> CaptureObject:
        """Decode one element of capture_objects. Raises DecodeError."""
        class_id, name, attribute, index = data.items(4)[:4]
        octets = name.octets()
        if len(octets) != 6:
            raise DecodeError(f"a logical name has 6 octets, got {octets.hex()}")
        return cls(class_id.integer(), Obis(*octets), attribute.integer(), index.integer())

    def to_data(self) -> Data:
        """The structure of the Blue Book."""
        return axdr.structure(
            axdr.long_unsigned(self.class_id),
            axdr.octet_string(bytes(self.obis)),
            axdr.integer(self.attribute),
            axdr.long_unsigned(self.data_index),
        )


def is_status(column: CaptureObject) -> bool:
    """Whether a column holds the profile status: 0-b:96.10.e."""
    return column.class_id == 1 and column.obis.a == 0 and column.obis[2:4] == (96, 10)


def is_clock(column: CaptureObject) -> bool:
    """Whether a column holds the time of capture."""
    return column.class_id == 8 and column.attribute == 2


CLOCK_COLUMN = CaptureObject(8, Obis(0, 0, 1, 0, 0, 255), 2)

RangeBound: TypeAlias = "CosemDateTime | int | datetime"


class RangeDescriptor(NamedTuple):
    """The rows of a profile whose restricting object lies between two bounds, both included.

    `deviation` says how `datetime` bounds are written, in minutes as the meter's clock counts them; None
    leaves the deviation of the bounds open and takes their fields as the meter's local time: some meters
    refuse the one form, some the other. The restricting object is the profile's sort object.
    """

    start: RangeBound
    end: RangeBound
    restricting_object: CaptureObject = CLOCK_COLUMN
    columns: tuple[CaptureObject, ...] = ()
    deviation: int | None = 0

    def _bound(self, bound: RangeBound) -> Data:
        if isinstance(bound, datetime):
            bound = CosemDateTime.from_datetime(bound, self.deviation)
        if isinstance(bound, CosemDateTime):
            return axdr.octet_string(bound.to_bytes())
        return axdr.double_long_unsigned(bound)

    def to_selection(self) -> Selection:
        """Selector 1 with its four parameters. Raises EncodeError."""
        parameters = axdr.structure(
            self.restricting_object.to_data(),
            self._bound(self.start),
            self._bound(self.end),
            axdr.array(*(column.to_data() for column in self.columns)),
        )
        return Selection(RANGE_SELECTOR, parameters)

    @classmethod
    def from_selection(cls, selection: Selection) -> RangeDescriptor:
        """Decode what a client asked for.

        Raises:
            DecodeError: it is no range descriptor.
        """
        if selection.selector != RANGE_SELECTOR:
            raise DecodeError(f"selector {selection.selector} is no range_descriptor")
        restricting, start, end, columns = selection.parameters.items(4)[:4]

        def bound(data: Data) -> CosemDateTime | int:
            if isinstance(data.value, int):
                return data.value
            return CosemDateTime.from_bytes(data.octets())

        return cls(
            bound(start),
            bound(end),
            CaptureObject.from_data(restricting),
            tuple([CaptureObject.from_data(column) for column in columns.items()]),
        )


class EntryDescriptor(NamedTuple):
    """Rows and columns of a profile by number, counted from 1; 0 as an upper bound means the last."""

    from_entry: int = 1
    to_entry: int = 0
    from_selected_value: int = 1
    to_selected_value: int = 0

    def to_selection(self) -> Selection:
        """Selector 2 with its four parameters."""
        parameters = axdr.structure(
            axdr.double_long_unsigned(self.from_entry),
            axdr.double_long_unsigned(self.to_entry),
            axdr.long_unsigned(self.from_selected_value),
            axdr.long_unsigned(self.to_selected_value),
        )
        return Selection(ENTRY_SELECTOR, parameters)

    @classmethod
    def from_selection(cls, selection: Selection) -> EntryDescriptor:
        """Decode what a client asked for.

        Raises:
            DecodeError: it is no entry descriptor.
        """
        if selection.selector != ENTRY_SELECTOR:
            raise DecodeError(f"selector {selection.selector} is no entry_descriptor")
        return cls(*[item.integer() for item in selection.parameters.items(4)[:4]])


def selection_of(selection: Selection | RangeDescriptor | EntryDescriptor | None) -> Selection | None:
    """What is put on the line for any of the ways to say it."""
    if selection is None or isinstance(selection, Selection):
        return selection
    return selection.to_selection()
