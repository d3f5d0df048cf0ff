"""PRIME_API messages in words, for people who read the traffic.

One row for each field whose numbers have names. describe() never raises: what cannot be decoded is shown as
octets. Device unique keys are never shown; mask_keys() takes them out of a payload that is to be kept.
"""

from plc.commands import FROM_HOST, FROM_MODEM
from plc.errors import MessageError
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS

# Field name -> enumeration.
_NAMED_FIELDS = (
    ("connection_type", enumerations.CONNECTION_TYPES),
    ("transmit_status", enumerations.TRANSMIT_STATUSES),
    ("event", enumerations.NETWORK_EVENTS),
    ("page_size", enumerations.FU_PAGE_SIZES),
)
# Command -> enumeration of its `result`, `ack` or `state`.
_NAMED_RESULTS = (
    ("CON_ESTABLISH", enumerations.CON_ESTABLISH_RESULTS),
    ("CON_DATA", enumerations.CON_DATA_RESULTS),
    ("PLME", enumerations.PLME_RESULTS),
    ("MLME", enumerations.MLME_RESULTS),
    ("FU_ACK", enumerations.FU_ACKS),
    ("FU_STATUS", enumerations.FU_STATES),
    ("PPROF_ACK", enumerations.ACKS),
    ("WHITELIST_ACK", enumerations.ACKS),
)

_HIDDEN = "(not shown)"
# Set requests: the key follows the EUI-48 in the value of the device unique key.
_SECRET_COMMANDS = (commands.MLME_SET_REQUEST, commands.PLME_SET_REQUEST)
# Command, attribute, size, EUI-48: what comes before the key.
_BEFORE_KEY = 1 + 2 + 1 + 6


def _holds_key(payload: bytes) -> bool:
    return (
        payload[:1] in (bytes((_SECRET_COMMANDS[0],)), bytes((_SECRET_COMMANDS[1],)))
        and int.from_bytes(payload[1:3], "big") == pib.DEVICE_UNIQUE_KEY
    )


def mask_keys(payload: bytes) -> bytes:
    """The payload with zeros in place of a key, for a file of traffic; the same length, and it decodes."""
    if not _holds_key(payload):
        return payload
    return payload[:_BEFORE_KEY] + bytes(max(0, len(payload) - _BEFORE_KEY))


def _in_words(message_name: str, field: str, value: int) -> str:
    if field == "pib":
        return f"0x{value:04X} {pib.attribute_name(value)}"
    for name, rows in _NAMED_FIELDS:
        if name == field:
            return f"{value} {enumerations.name_of(rows, value)}"
    if field in ("result", "ack", "state"):
        for prefix, rows in _NAMED_RESULTS:
            if message_name.startswith(prefix):
                return f"{value} {enumerations.name_of(rows, value)}"
    if "address" in field:
        return f"0x{value:04X}"
    if field == "echoed_command":
        row = COMMANDS.row(value)
        return f"0x{value:02X}" if row is None else f"0x{value:02X} {row[2]}"
    return str(value)


def _octets_in_words(field: str, value: bytes) -> str:
    if field in ("device_id", "vendor", "model", "version") and all(
        [0x20 <= octet < 0x7F for octet in value]
    ):
        return value.decode("ascii")
    return value.hex()


def describe(payload: bytes, from_host: bool) -> "tuple[str, list[tuple[str, str]]]":
    """Name a PRIME_API payload and its fields, in the order of the wire.

    A list's records are shown one by one. A message that goes against its row's direction is marked.
    """
    try:
        message = COMMANDS.decode(payload)
    except MessageError as error:
        return "not decoded", [("reason", str(error)), ("octets", mask_keys(payload).hex())]
    fields: "list[tuple[str, str]]" = []
    row = COMMANDS.row(message.command)
    if row is None:
        return message.name, fields
    if row[1] != (FROM_HOST if from_host else FROM_MODEM):
        fields.append(("direction", "unexpected"))
    for name, _ in row[3] + row[4]:
        value = message.values[name]
        if isinstance(value, int):
            fields.append((name, _in_words(message.name, name, value)))
        elif isinstance(value, bytes):
            if name == "records" and value:
                fields += _describe_records(message.number("pib"), value)
            elif name == "value" and _holds_key(payload):
                fields.append((name, value[:6].hex() + " " + _HIDDEN))
            else:
                fields.append((name, _octets_in_words(name, value)))
    if message.trailing:
        fields.append(("trailing", _HIDDEN if _holds_key(payload) else message.trailing.hex()))
    return message.name, fields


def _describe_records(attribute: int, octets: bytes) -> "list[tuple[str, str]]":
    try:
        records = pib.decode_records(attribute, octets)
    except MessageError:
        return [("records", octets.hex())]
    fields: "list[tuple[str, str]]" = []
    names = [name for name, _ in pib.record_fields(attribute)]
    for record in records:
        words: list[str] = []
        for name in names:
            value = record[name]
            words.append(name + "=" + (value.hex() if isinstance(value, bytes) else str(value)))
        fields.append(("record", ", ".join(words)))
    return fields
