"""The older coordinator protocol of generation A: a bootstrap server on the chip, asked over USI protocol 0x26.

Rare: most modems of that generation leave the bootstrap server to the host (19, 41, 42 of plc/g3/commands.py), which is
what plc/g3/coordinator.py drives. Here are its rows, for traffic in words; the fields of its indications are not in
public source. An indication on a line that we drive is told and counted.
"""

from plc.commands import DATA8, FROM_HOST, FROM_MODEM, REST, U8, U16, U32, CommandTable
from plc.errors import MessageError

JOIN_INDICATION = 8
LEAVE_INDICATION = 9

_ATTRIBUTE = ("attribute", U32)
_INDEX = ("index", U16)
_VALUE = ("value", DATA8)
_STATUS = ("status", U8)

ROWS = (
    (1, FROM_HOST, "COORD_INITIALIZE.request", (("band", U8),), ()),
    (2, FROM_HOST, "COORD_SET.request", (_ATTRIBUTE, _INDEX, _VALUE), ()),
    (3, FROM_HOST, "COORD_GET.request", (_ATTRIBUTE, _INDEX), ()),
    (4, FROM_HOST, "COORD_KICK.request", (("short_address", U16),), ()),
    (5, FROM_HOST, "COORD_REKEY.request", (), (("body", REST),)),
    (6, FROM_MODEM, "COORD_SET.confirm", (_STATUS, _ATTRIBUTE, _INDEX), ()),
    (7, FROM_MODEM, "COORD_GET.confirm", (_STATUS, _ATTRIBUTE, _INDEX), (_VALUE,)),
    (8, FROM_MODEM, "COORD_JOIN.indication", (("body", REST),), ()),
    (9, FROM_MODEM, "COORD_LEAVE.indication", (("body", REST),), ()),
)

COMMANDS = CommandTable("G3 coordinator", ROWS)


def describe(payload: bytes) -> "tuple[str, list[tuple[str, str]]]":
    """Name a payload of USI protocol 0x26 and its fields; never raises. Values may be keys, and are not shown."""
    try:
        message = COMMANDS.decode(payload)
    except MessageError as error:
        return "not decoded", [("reason", str(error)), ("octets", payload[:1].hex() + " (rest not shown)")]
    fields: "list[tuple[str, str]]" = []
    for name in message.values:
        value = message.values[name]
        if isinstance(value, int):
            fields.append((name, str(value)))
        elif isinstance(value, bytes):
            fields.append((name, "(not shown)" if name == "value" else value.hex()))
    return message.name, fields


def mask_keys(payload: bytes) -> bytes:
    """The payload with zeros in place of what may be a key, for a file of traffic; the same length."""
    # COORD_SET: command, attribute, index and length come before the value; a rekey may hold anything.
    kept = {2: 8, 5: 1}.get(payload[0] if payload else 0, len(payload))
    return payload[:kept] + bytes(max(0, len(payload) - kept))
