"""One data record of the M-Bus application layer (EN 13757-3 clause 6) as a value.

A record is a header that never changes for a meter model (DIB and VIB, with what they mean) and what one
telegram said under it. Headers are shared by all records that have the same octets.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from concentrator.wmbus.values import BCD_CODINGS, Value
from concentrator.wmbus.vif import Kind


class Function(enum.StrEnum):
    """The function field of a DIF."""

    INSTANTANEOUS = "instantaneous"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"
    AT_ERROR = "at_error"


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a DIB and VIB say of the value that follows: a number is an integer * 10**exponent of `unit`.

    `octets` are those of the DIB and VIB, empty for a value that was no record on the air. `coding` is the
    low nibble of the DIF. Without `has_value` the VIFEs say that there is none, whatever octets follow.
    """

    octets: bytes
    coding: int
    function: Function
    storage: int
    tariff: int
    subunit: int
    quantity: str
    unit: str
    exponent: int
    kind: Kind
    qualifiers: tuple[str, ...] = ()
    has_value: bool = True

    def __hash__(self) -> int:
        """Of what tells most headers apart: they are looked up for every record."""
        return hash((self.octets, self.storage, self.quantity))


class Record(NamedTuple):
    """One value as the meter sent it.

    A number is `value * 10**scaler` of `unit`; a text, octets or a point in time have scaler 0. `valid`
    is False where the meter sent a pattern that means "no value" (then `value` is None) or a time of a
    clock that it knows to be wrong. `raw` are the value's octets.
    """

    header: RecordHeader
    value: Value
    scaler: int
    valid: bool
    raw: bytes

    @property
    def quantity(self) -> str:
        """What was measured."""
        return self.header.quantity

    @property
    def unit(self) -> str:
        """The base unit of the number, "" where it has none, "date" for a point in time."""
        return self.header.unit

    @property
    def function(self) -> Function:
        """Present value, maximum, minimum, or value at an error."""
        return self.header.function

    @property
    def storage(self) -> int:
        """The storage number; 0 is the present value."""
        return self.header.storage

    @property
    def tariff(self) -> int:
        """The tariff; 0 is the total."""
        return self.header.tariff

    @property
    def subunit(self) -> int:
        """The device within the meter; 0 is the meter itself."""
        return self.header.subunit

    @property
    def qualifiers(self) -> tuple[str, ...]:
        """What the combinable VIFEs say of the quantity."""
        return self.header.qualifiers

    @property
    def unit_scaler(self) -> int:
        """What the VIF says of the scaler; a float's own power of ten is not in it."""
        return self.header.exponent

    @property
    def is_bcd(self) -> bool:
        """Whether the value was sent in decimal digits."""
        return self.header.coding in BCD_CODINGS

    @property
    def decimal(self) -> Decimal | None:
        """The number in `unit`, exact; None for what is no number."""
        return Decimal(f"{self.value}E{self.scaler}") if isinstance(self.value, int) else None


class RecordList(NamedTuple):
    """The records of one telegram.

    `manufacturer_data` follow the last record in the manufacturer's own form; `more_follows` says that
    another telegram continues this one. `fault` is empty, or says why reading stopped early. `headers` are
    the octets of all headers, fillers left out, of a chain that was read to its end: its format.
    """

    records: tuple[Record, ...] = ()
    manufacturer_data: bytes = b""
    more_follows: bool = False
    fault: str = ""
    headers: bytes = b""


NO_RECORDS = RecordList()
