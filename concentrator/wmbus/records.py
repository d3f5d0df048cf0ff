"""Data records of the M-Bus application layer (EN 13757-3 clause 6): DIF, DIFE, VIF, VIFE and value.

A telegram's data are a chain of records. `decode_records` reads the chain, `merge_records` makes one of headers
and values that came apart: what compact frames need (EN 13757-7). A chain that breaks off keeps its good records
and says where it broke (`fault`).
"""

from __future__ import annotations

from functools import lru_cache

from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.record import Function, RecordHeader, RecordList
from concentrator.wmbus.record_plan import Place, PlanMemory, RecordPlan, read_record
from concentrator.wmbus.values import value_length
from concentrator.wmbus.vif import interpret_vib, read_vib

MAX_DIFES = 10
_EXTENSION = 0x80
_SPECIAL = 0x0F
_MANUFACTURER_DATA = 0x0F
_MANUFACTURER_DATA_MORE_FOLLOWS = 0x1F
_FILLER = 0x2F
_GLOBAL_READOUT = 0x7F


_FUNCTIONS = (Function.INSTANTANEOUS, Function.MAXIMUM, Function.MINIMUM, Function.AT_ERROR)
_plans = PlanMemory()


def decode_records(data: bytes) -> RecordList:
    """Read a chain of records; what cannot be read ends the chain and is told in `fault`."""
    plan = _plans.find(data)
    if plan is not None:
        return plan.read(data)
    places: list[Place] = []
    headers = bytearray()
    at, tail_at, more_follows = 0, None, False
    try:
        while at < len(data):
            dif = data[at]
            if dif in (_MANUFACTURER_DATA, _MANUFACTURER_DATA_MORE_FOLLOWS):
                more_follows = dif == _MANUFACTURER_DATA_MORE_FOLLOWS
                headers.append(dif)
                tail_at = at + 1
                break
            if dif in (_FILLER, _GLOBAL_READOUT):
                at += 1
                continue
            header, at = read_header(data, at)
            raw = _take_value(header, data, at)
            headers += header.octets
            places.append(Place(header, at, len(raw)))
            at += len(raw)
    except TelegramError as error:
        records = (read_record(header, data[at : at + octets]) for header, at, octets in places)
        return RecordList(tuple(records), fault=str(error))
    plan = RecordPlan(data, places, tail_at, bytes(headers), more_follows=more_follows)
    _plans.keep(data, plan)
    return plan.read(data)


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


@lru_cache(maxsize=1024)
def read_headers(headers: bytes) -> tuple[RecordHeader, ...]:
    """The headers of a chain without its values; manufacturer data (DIF 0F, 1F) have none.

    Raises:
        TelegramError: they do not end where the octets end.
    """
    found: list[RecordHeader] = []
    at = 0
    while at < len(headers) and headers[at] not in (_MANUFACTURER_DATA, _MANUFACTURER_DATA_MORE_FOLLOWS):
        header, at = read_header(headers, at)
        found.append(header)
    return tuple(found)


def merge_records(headers: bytes, values: bytes) -> bytes:
    """The chain as a full frame would have carried it: `headers` as in `RecordList`, the values in their order.

    Raises:
        TelegramError: values and headers do not fit each other.
    """
    whole = bytearray()
    at = taken = 0
    for header in read_headers(headers):
        at += len(header.octets)
        raw = _take_value(header, values, taken)
        taken += len(raw)
        whole += header.octets + raw
    if at < len(headers):
        return bytes(whole) + headers[at : at + 1] + values[taken:]
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
    meaning = interpret_vib(octets[dib_octets:])
    return RecordHeader(
        octets=octets,
        coding=dif & 0x0F,
        function=_FUNCTIONS[dif >> 4 & 0x03],
        storage=storage,
        tariff=tariff,
        subunit=subunit,
        quantity=meaning.quantity,
        unit=meaning.unit,
        exponent=meaning.exponent,
        kind=meaning.kind,
        qualifiers=meaning.qualifiers,
        has_value=meaning.has_value,
    )
