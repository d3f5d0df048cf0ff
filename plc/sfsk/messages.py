"""Local frames of an S-FSK modem in words, for people who read the traffic. There are no keys in them."""

from plc.errors import MessageError
from plc.prime.enumerations import name_of
from plc.sfsk import ciase, commands, llc, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.data_path import is_management

_MAC_NAMES = ((mac.NO_BODY, "nobody"), (mac.NEW, "New"), (mac.ALL_PHYSICAL, "all physical"))


def _address_in_words(address: int) -> str:
    text = f"0x{address:03X}"
    for value, name in _MAC_NAMES:
        if value == address:
            return text + " " + name
    return text + " initiator" if mac.FIRST_INITIATOR <= address <= mac.LAST_INITIATOR else text


def _mac_frame_in_words(octets: bytes) -> "list[tuple[str, str]]":
    frame = mac.decode_mac_frame(octets)
    fields = [
        ("source", _address_in_words(frame.source)),
        ("destination", _address_in_words(frame.destination)),
        ("initial_credit", str(frame.initial_credit)),
        ("current_credit", str(frame.current_credit)),
        ("delta_credit", str(frame.delta_credit)),
        ("subframes", str(mac.subframes(len(frame.sdu)))),
    ]
    destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
    fields += [("destination_lsap", f"0x{destination_lsap:02X}"), ("source_lsap", f"0x{source_lsap:02X}")]
    if is_management(destination_lsap, source_lsap, data):
        fields += ciase.describe_ciase(data)
    else:
        fields.append(("data", data.hex()))
    return fields


def describe(payload: bytes) -> "tuple[str, list[tuple[str, str]]]":
    """Name the payload of a local frame and its fields, in the order of the wire; never raises."""
    try:
        message = COMMANDS.decode(payload)
    except MessageError as error:
        return "not decoded", [("reason", str(error)), ("octets", payload.hex())]
    fields: "list[tuple[str, str]]" = []
    row = COMMANDS.row(message.command)
    for name, _ in () if row is None else row[3] + row[4]:
        value = message.values[name]
        if name == "mac_frame":
            try:
                fields += _mac_frame_in_words(message.octets(name))
            except MessageError as error:
                fields += [("reason", str(error)), ("octets", message.octets(name).hex())]
        elif isinstance(value, bytes):
            fields.append((name, value.hex()))
        elif isinstance(value, int):
            fields.append((name, _number_in_words(name, value)))
    return message.name, fields


def _number_in_words(field: str, value: int) -> str:
    for name, rows in (
        ("entry", commands.DB_ENTRIES),
        ("transmission_status", commands.TRANSMISSION_STATUSES),
        ("error_code", commands.ERRORS),
        ("state", commands.SYNCHRO_STATES),
    ):
        if name == field:
            return f"0x{value:02X} " + name_of(rows, value)
    return str(value)


def apdu_of(payload: bytes) -> bytes:
    """The APDU that a local frame carries; empty when it carries none."""
    if payload[:1] not in (bytes((commands.MA_DATA_REQUEST,)), bytes((commands.MA_DATA_INDICATION,))):
        return b""
    try:
        frame = mac.decode_mac_frame(payload[1:])
        destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
    except MessageError:
        return b""
    return b"" if is_management(destination_lsap, source_lsap, data) else data
