"""G3 messages in words, for people who read the traffic.

describe() never raises: what cannot be decoded is shown as octets. Keys are never shown, not even within a
message that cannot be decoded; mask_keys() takes them out of a payload that is to be kept.
"""

from plc.commands import FROM_HOST, FROM_MODEM
from plc.errors import MessageError
from plc.g3 import commands, enumerations, ib, lbp
from plc.g3.commands import COMMANDS
from plc.prime.enumerations import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message

_HIDDEN = "(not shown)"

# Field name -> enumeration.
_NAMED_FIELDS = (
    ("status", enumerations.ADP_STATUSES),
    ("mac_status", enumerations.MAC_STATUSES),
    ("lbp_status", enumerations.LBP_STATUSES),
    ("band", enumerations.BANDS),
    ("role", enumerations.ROLES),
    ("media", enumerations.MEDIA),
)
_HEXADECIMAL_FIELDS = (
    "pan_id", "short_address", "destination", "originator", "source", "lba", "next_hop", "previous_hop",
)  # fmt: skip
_MAC_COMMANDS = (
    commands.MAC_SET_REQUEST,
    commands.MAC_GET_REQUEST,
    commands.MAC_SET_CONFIRM,
    commands.MAC_GET_CONFIRM,
)
_LBP_COMMANDS = (commands.LBP_SET_REQUEST, commands.LBP_SET_CONFIRM)
# Commands that may hold a key.
_SECRET_COMMANDS = (
    commands.SET_REQUEST,
    commands.MAC_SET_REQUEST,
    commands.LBP_SET_REQUEST,
    commands.FORCE_REGISTER_REQUEST,
)
_SECRET_LBP_ATTRIBUTES = (commands.LBP_PSK, commands.LBP_GMK, commands.LBP_REKEY_GMK)


def _is_secret(command: int, attribute: int, field: str) -> bool:
    if field == "gmk":
        return True
    if field != "value":
        return False
    if command == commands.LBP_SET_REQUEST:
        return attribute in _SECRET_LBP_ATTRIBUTES
    if command in _MAC_COMMANDS:
        return attribute == ib.MAC_KEY_TABLE
    return attribute == ib.ADP_PSK_GENERATION_A


def _number_in_words(command: int, field: str, value: int) -> str:
    if field == "attribute":
        if command in _LBP_COMMANDS:
            return f"{value} {name_of(enumerations.LBP_ATTRIBUTES, value)}"
        layer = "mac" if command in _MAC_COMMANDS else "adp"
        return f"0x{value:08X} {ib.attribute_name(layer, value)}"
    if field == "refused_command":
        row = COMMANDS.row(value)
        return str(value) if row is None else f"{value} {row[2]}"
    if command == commands.STATUS:
        return f"{value} {name_of(enumerations.SERIAL_STATUSES, value)}"
    for name, rows in _NAMED_FIELDS:
        if name == field:
            return f"{value} {name_of(rows, value)}"
    return f"0x{value:04X}" if field in _HEXADECIMAL_FIELDS else str(value)


def _octets_in_words(command: int, attribute: int, field: str, value: bytes) -> "list[tuple[str, str]]":
    if _is_secret(command, attribute, field):
        return [(field, _HIDDEN)]
    if field == "hops":
        fields: "list[tuple[str, str]]" = []
        for hop in commands.decode_hops(value):
            words = [name + "=" + str(hop[name]) for name, _ in commands.HOP_FIELDS[1:]]
            fields.append(("hop", f"0x{hop['address']:04X}: " + ", ".join(words)))
        return fields
    if field == "value" and value:
        layer = "mac" if command in _MAC_COMMANDS else "adp"
        try:
            record = ib.decode_record(layer, attribute, value)
        except MessageError:
            return [(field, value.hex())]
        words = [
            name + "=" + (entry.hex() if isinstance(entry, bytes) else str(entry))
            for name, entry in [(name, record[name]) for name, _ in ib.record_fields(layer, attribute)]
        ]
        return [(field, ", ".join(words))]
    return [(field, value.hex())]


def _lbp_in_words(message: "Message") -> "list[tuple[str, str]]":
    frame = message.values.get("frame")
    if not isinstance(frame, bytes):
        frame = message.octets("address_and_frame")[message.number("address_size") :]
    try:
        found = lbp.decode_frame(frame)
    except MessageError:
        return []
    words = name_of(lbp.TYPES, found.kind) + ", EUI-64 " + found.eui64.hex()
    if found.holds_parameters:
        words += ", configuration parameters"
    elif found.data:
        words += ", EAP"
    return [("lbp", words)]


def describe(payload: bytes, from_host: bool) -> "tuple[str, list[tuple[str, str]]]":
    """Name a payload of USI protocol 0x25 and its fields, in the order of the wire.

    A message that goes against its row's direction is marked.
    """
    try:
        message = COMMANDS.decode(payload)
    except MessageError as error:
        secret = bool(payload) and payload[0] in _SECRET_COMMANDS
        return "not decoded", [("reason", str(error)), ("octets", _HIDDEN if secret else payload.hex())]
    fields: "list[tuple[str, str]]" = []
    row = COMMANDS.row(message.command)
    if row is None:
        return message.name, fields
    if row[1] != (FROM_HOST if from_host else FROM_MODEM):
        fields.append(("direction", "unexpected"))
    attribute = message.number("attribute") if "attribute" in message.values else 0
    for name, _ in row[3] + row[4]:
        value = message.values[name]
        if isinstance(value, int):
            fields.append((name, _number_in_words(message.command, name, value)))
        elif isinstance(value, bytes):
            fields += _octets_in_words(message.command, attribute, name, value)
    if message.command in (commands.LBP_REQUEST, commands.LBP_INDICATION):
        fields += _lbp_in_words(message)
    if message.trailing:
        secret = message.command in _SECRET_COMMANDS
        fields.append(("trailing", _HIDDEN if secret else message.trailing.hex()))
    return message.name, fields


def mask_keys(payload: bytes) -> bytes:
    """The payload with zeros in place of every key, for a file of traffic; the same length, and it decodes."""
    if not payload or payload[0] not in _SECRET_COMMANDS:
        return payload
    try:
        message = COMMANDS.decode(payload)
    except MessageError:
        # Cut off or too long for its command: what is a key in it cannot be told.
        return payload[:1] + bytes(len(payload) - 1)
    attribute = message.number("attribute") if "attribute" in message.values else 0
    values: "dict[str, int | bytes | None]" = {}
    for name, value in message.values.items():
        secret = isinstance(value, bytes) and _is_secret(message.command, attribute, name)
        values[name] = bytes(len(value)) if secret and isinstance(value, bytes) else value
    return COMMANDS.encode(message.command, **values) + bytes(len(message.trailing))
