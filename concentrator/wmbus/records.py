"""Data records of the M-Bus application layer (EN 13757-3 clause 6): DIF, DIFE, VIF, VIFE and value.

A telegram's data are a chain of records. `decode_records` reads the chain, `split_records` separates the
headers from the values and `merge_records` puts them together again: what compact frames need
(EN 13757-7). A chain that breaks off keeps its good records and says where it broke (`fault`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.values import BCD_CODINGS, Value, decode_value, value_length
from concentrator.wmbus.vif import Meaning, interpret_vib, read_vib

MAX_DIFES = 10
_EXTENSION = 0x80
_SPECIAL = 0x0F
_MANUFACTURER_DATA = 0x0F
_MANUFACTURER_DATA_MORE_FOLLOWS = 0x1F
_FILLER = 0x2F
_GLOBAL_READOUT = 0x7F


class Function(enum.StrEnum):
    """The function field of a DIF."""

    INSTANTANEOUS = "instantaneous"
    MAXIMUM = "maximum"
    MINIMUM = "minimum"
    AT_ERROR = "at_error"


_FUNCTIONS = (Function.INSTANTANEOUS, Function.MAXIMUM, Function.MINIMUM, Function.AT_ERROR)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What a DIB and VIB say of the value that follows."""

    octets: bytes
    coding: int
    function: Function
    storage: int
    tariff: int
    subunit: int
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Record:
    """One value as the meter sent it.

    A number is `value * 10**scaler` of `unit`; a text, octets or a point in time have scaler 0. `valid`
    is False where the meter sent a pattern that means "no value" (then `value` is None) or a time of a
    clock that it knows to be wrong. `raw` are the value's octets. `unit_scaler` is what the VIF says; it
    differs from `scaler` where the meter sent a float, whose power of ten is its own.
    """

    quantity: str
    value: Value
    scaler: int
    unit: str
    function: Function
    storage: int
    tariff: int
    subunit: int
    qualifiers: tuple[str, ...]
    valid: bool
    header: bytes
    raw: bytes
    unit_scaler: int
    is_bcd: bool = False

    @property
    def decimal(self) -> Decimal | None:
        """The number in `unit`, exact; None for what is no number."""
        return Decimal(f"{self.value}E{self.scaler}") if isinstance(self.value, int) else None


@dataclass(frozen=True, slots=True)
class RecordList:
    """The records of one telegram.

    `manufacturer_data` follow the last record in the manufacturer's own form; `more_follows` says that
    another telegram continues this one. `fault` is empty, or says why reading stopped early.
    """

    records: tuple[Record, ...] = ()
    manufacturer_data: bytes = b""
    more_follows: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class SplitRecords:
    """Record headers and values apart: `headers` is what a format frame carries, `whole` what was read."""

    headers: bytes
    values: bytes
    whole: bytes


def decode_records(data: bytes) -> RecordList:
    """Read a chain of records; what cannot be read ends the chain and is told in `fault`."""
    records: list[Record] = []
    at = 0
    try:
        while at < len(data):
            dif = data[at]
            if dif in (_MANUFACTURER_DATA, _MANUFACTURER_DATA_MORE_FOLLOWS):
                more = dif == _MANUFACTURER_DATA_MORE_FOLLOWS
                return RecordList(tuple(records), data[at + 1 :], more)
            if dif in (_FILLER, _GLOBAL_READOUT):
                at += 1
                continue
            header, at = read_header(data, at)
            raw = _take_value(header, data, at)
            at += len(raw)
            records.append(_make_record(header, raw))
    except TelegramError as error:
        return RecordList(tuple(records), fault=str(error))
    return RecordList(tuple(records))


def read_header(data: bytes, offset: int) -> tuple[RecordHeader, int]:
    """Read the header at `offset`; returns it and the offset of what follows.

    Raises:
        TelegramError: a reserved DIF, too many extensions, or the data end within it.
    """
    at = offset
    dif = data[at]
    if dif & 0x0F == _SPECIAL:
        raise TelegramError(f"reserved DIF {dif:02X} at octet {offset}")
    while data[at] & _EXTENSION:
        at += 1
        if at >= len(data):
            raise TelegramError(f"the data end within a DIFE at octet {offset}: {data[offset:].hex()}")
        if at - offset > MAX_DIFES:
            raise TelegramError(f"more than {MAX_DIFES} DIFEs at octet {offset}: {data[offset:at].hex()}")
    end = read_vib(data, at + 1)
    return _interpret_header(bytes(data[offset:end]), at + 1 - offset), end


def split_records(data: bytes) -> SplitRecords | None:
    """Separate headers from values, fillers left out; None when the chain is not complete.

    Manufacturer data (DIF 0F, 1F) count as value: their DIF belongs to the header.
    """
    headers, values, whole = bytearray(), bytearray(), bytearray()
    at = 0
    try:
        while at < len(data):
            dif = data[at]
            if dif in (_FILLER, _GLOBAL_READOUT):
                at += 1
                continue
            start = at
            if dif in (_MANUFACTURER_DATA, _MANUFACTURER_DATA_MORE_FOLLOWS):
                headers.append(dif)
                values += data[at + 1 :]
                whole += data[at:]
                break
            header, at = read_header(data, at)
            raw = _take_value(header, data, at)
            at += len(raw)
            headers += header.octets
            values += raw
            whole += data[start:at]
    except TelegramError:
        return None
    return SplitRecords(bytes(headers), bytes(values), bytes(whole))


def merge_records(headers: bytes, values: bytes) -> bytes:
    """The reverse of `split_records`: the chain as a full frame would have carried it.

    Raises:
        TelegramError: values and headers do not fit each other.
    """
    whole = bytearray()
    at = taken = 0
    while at < len(headers):
        if headers[at] in (_MANUFACTURER_DATA, _MANUFACTURER_DATA_MORE_FOLLOWS):
            whole.append(headers[at])
            whole += values[taken:]
            return bytes(whole)
        header, at = read_header(headers, at)
        raw = _take_value(header, values, taken)
        taken += len(raw)
        whole += header.octets + raw
    if values[taken:].strip(bytes((_FILLER,))):
        raise TelegramError(f"{len(values) - taken} octets are left over after the last record's value")
    return bytes(whole)


def _take_value(header: RecordHeader, data: bytes, at: int) -> bytes:
    length = value_length(header.coding, data, at)
    if at + length > len(data):
        raise TelegramError(
            f"record {header.octets.hex()} needs {length} octets at octet {at}, {len(data) - at} are left"
        )
    return bytes(data[at : at + length])


@lru_cache(maxsize=4096)
def _interpret_header(octets: bytes, dib_octets: int) -> RecordHeader:
    dif = octets[0]
    storage, tariff, subunit = dif >> 6 & 1, 0, 0
    for position, dife in enumerate(octets[1:dib_octets]):
        storage |= (dife & 0x0F) << (1 + 4 * position)
        tariff |= (dife >> 4 & 0x03) << (2 * position)
        subunit |= (dife >> 6 & 0x01) << position
    return RecordHeader(
        octets=octets,
        coding=dif & 0x0F,
        function=_FUNCTIONS[dif >> 4 & 0x03],
        storage=storage,
        tariff=tariff,
        subunit=subunit,
        meaning=interpret_vib(octets[dib_octets:]),
    )


def _make_record(header: RecordHeader, raw: bytes) -> Record:
    meaning = header.meaning
    decoded = decode_value(header.coding, raw, meaning.kind)
    number = isinstance(decoded.value, int)
    return Record(
        quantity=meaning.quantity,
        value=decoded.value,
        scaler=meaning.exponent + decoded.exponent if number or not decoded.valid else 0,
        unit=meaning.unit,
        function=header.function,
        storage=header.storage,
        tariff=header.tariff,
        subunit=header.subunit,
        qualifiers=meaning.qualifiers,
        valid=decoded.valid,
        header=header.octets,
        raw=raw,
        unit_scaler=meaning.exponent,
        is_bcd=header.coding in BCD_CODINGS,
    )
