"""Wireless and wired M-Bus telegrams as trees."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from concentrator.dlms.explain import Explained, Explainer, Tree
from concentrator.units import unit_symbol
from concentrator.wmbus.layers import Content
from concentrator.wmbus.obis_map import map_header
from concentrator.wmbus.profile import describe
from concentrator.wmbus.record import Record, RecordHeader
from concentrator.wmbus.security import SecurityState
from concentrator.wmbus.telegram import Telegram
from concentrator.wmbus.values import MeterTime

# C-fields of wireless telegrams (EN 13757-4): what a meter, a repeater or another device may begin with.
_C_FIELDS = frozenset(
    (
        0x00,
        0x06,
        0x08,
        0x18,
        0x28,
        0x38,
        0x40,
        0x44,
        0x46,
        0x47,
        0x48,
        0x53,
        0x58,
        0x5A,
        0x5B,
        0x73,
        0x7A,
        0x7B,
    )
)
_SHORTEST_OCTETS = 11
_LETTERS = 26
_BLOCK, _FIRST_BLOCK, _CRC = 16, 10, 2
# What a receiver may have put behind a telegram, or a file have lost.
_TOLERANCE_OCTETS = 8
_FILLER = b"\x2f"
_READABLE = (SecurityState.PLAIN, SecurityState.DECODED, SecurityState.ALREADY_PLAIN)


def plausible_wireless(octets: bytes, *, exactly: bool) -> bool:
    """Whether octets look like a wireless telegram: C-field and manufacturer can be, the L-field fits the length.

    With `exactly` it has to fit to the octet, with or without the CRCs of format A or B.
    """
    length = octets[0] + 1 if octets else 0
    manufacturer = int.from_bytes(octets[2:4], "little")
    if not all(0 < manufacturer >> shift & 0x1F <= _LETTERS for shift in (0, 5, 10)):
        return False
    if length < _SHORTEST_OCTETS or len(octets) < _SHORTEST_OCTETS or octets[1] not in _C_FIELDS:
        return False
    blocks = -(-(length - _FIRST_BLOCK) // _BLOCK)
    with_crc = length + _CRC * (1 + blocks)
    distance = min(abs(len(octets) - length), abs(len(octets) - with_crc))
    return distance == 0 if exactly else distance <= _TOLERANCE_OCTETS


def explain_telegram(telegram: Telegram, dlms: Explainer) -> Tree:
    """The tree of a telegram: who sent it, how it was protected, and its records."""
    meter = telegram.meter
    tree: Tree = {
        "frame": "mbus" if telegram.frame.address is None else "wmbus",
        "c": f"{telegram.frame.c_field:02x}",
    }
    if meter is not None:
        tree.update(
            id=meter.identification,
            manufacturer=meter.manufacturer,
            version=meter.version,
            device_type=meter.device_type,
            medium=meter.device_type_name,
        )
        if telegram.sender is not None and telegram.sender != meter:
            tree["sender"] = str(telegram.sender)
    else:
        tree["primary_address"] = telegram.frame.primary_address
    tree["access_number"] = telegram.access_number
    tree["status"] = telegram.status
    security = telegram.security
    tree["security"] = {"mode": security.mode, "name": security.mode_name, "state": security.state.value}
    if security.counter is not None:
        tree["message_counter"] = security.counter
    tree["content"] = telegram.content.value
    if telegram.content is Content.DLMS and security.readable:
        tree["decoded"] = _apdu(telegram.payload, dlms)
    device_type = telegram.device_type
    tree["records"] = [_record(record, device_type) for record in telegram.records]
    if telegram.profile:
        tree["profile"] = telegram.profile
        tree["fields"] = {describe(record): _value(record) for record in reversed(telegram.records)}
    if telegram.manufacturer_data:
        tree["manufacturer_data"] = telegram.manufacturer_data.hex()
    if telegram.more_follows:
        tree["more_follows"] = True
    if telegram.payload and not telegram.records and telegram.content is not Content.DLMS:
        tree["payload"] = telegram.payload.hex()
    if (
        security.state is SecurityState.INCOMPLETE
        and telegram.afl is not None
        and telegram.afl.more_fragments
    ):
        tree["note"] = f"incomplete: {security.reason}"
    elif security.state is SecurityState.INCOMPLETE:
        tree["error"] = "incomplete: the last fragment of a message of which others did not come"
    elif security.state not in _READABLE and security.state is not SecurityState.KEY_MISSING:
        tree["error"] = f"{security.state.value.replace('_', ' ')}: {security.reason}"
    elif security.state is SecurityState.KEY_MISSING:
        tree["note"] = f"key missing: {security.reason}" if security.reason else "key missing"
    elif telegram.fault:
        tree["error"] = telegram.fault
    return tree


def _apdu(payload: bytes, dlms: Explainer) -> Tree:
    """The APDU of a telegram. It tells its own end; idle fillers behind it fill the last encrypted block."""
    tree = dlms.apdu(payload)
    trailing = tree.get("trailing")
    if isinstance(trailing, str) and not bytes.fromhex(trailing).strip(_FILLER):
        del tree["trailing"]
    return tree


def _record(record: Record, device_type: int) -> Tree:
    tree = dict(_header(record.header, device_type))
    tree["value"] = _value(record)
    if isinstance(record.value, int) and record.scaler:
        tree["raw"], tree["scaler"] = record.value, record.scaler
    if record.qualifiers:
        tree["qualifiers"] = list(record.qualifiers)
    if not record.valid:
        tree["valid"] = False
    return tree


@lru_cache(maxsize=4096)
def _header(header: RecordHeader, device_type: int) -> Mapping[str, Explained]:
    """What a tree says of all records with one header."""
    tree: Tree = {}
    mapped = map_header(header, device_type)
    if mapped is not None:
        tree["obis"] = str(mapped.channel.obis)
        tree["obis_unit"] = unit_symbol(mapped.channel.unit)
    tree.update(
        quantity=header.quantity,
        function=header.function.name.lower(),
        storage=header.storage,
        tariff=header.tariff,
        subunit=header.subunit,
        value=None,
        unit=header.unit,
    )
    return tree


def _value(record: Record) -> Explained:
    """The value in its unit: a whole number where it is one, else a number with a fraction."""
    value = record.value
    if isinstance(value, int):
        if record.scaler >= 0:
            return value * 10**record.scaler
        whole, rest = divmod(value, 10**-record.scaler)
        return value / 10**-record.scaler if rest else whole
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, MeterTime):
        return str(value)
    return value
