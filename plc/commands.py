"""Command tables: how the payload of a modem's frame maps to named fields and back.

A command is a row (id, direction, name, fields, optional fields); a field is a pair of its name and its kind.
Host and modem side share the rows, so one table encodes and decodes both directions. Integers are big-endian unless
the kind says otherwise. A payload that is longer than its row is accepted, since firmware generations append fields; a
shorter one is a MessageError.
"""

from plc.errors import LocalPlcError, MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    FieldRow = tuple[str, int]
    CommandRow = tuple[int, str, str, tuple[FieldRow, ...], tuple[FieldRow, ...]]

# Kinds of fields. A positive one is an unsigned integer of so many octets, a negative one is a string of
# exactly so many octets.
U8 = 1
U16 = 2
U32 = 4
EUI48 = -6
EUI64 = -8
KEY = -16
DATA8 = 101  # octets after a length of 8 bits
DATA16 = 102  # octets after a length of 16 bits
REST = 103  # all octets that are left
MAC_THEN_1 = 104  # 6 or 8 octets, told by the length: all that is left but one octet
ADDRESS8 = 105  # octets after a length of 8 bits: an address of 2 or 8 octets
U16_LITTLE = 106  # an unsigned integer of 2 octets, the least significant first

# Directions of a row.
FROM_HOST = ">"
FROM_MODEM = "<"
UNUSED = "-"  # the id exists, but the application neither sends nor accepts it


class Message:
    """A decoded payload: the row's id and name, and the values of its fields.

    Optional fields that were not on the wire are None.
    """

    __slots__ = ("command", "name", "trailing", "values")

    def __init__(
        self, command: int, name: str, values: "dict[str, int | bytes | None]", trailing: bytes
    ) -> None:
        self.command = command
        self.name = name
        self.values = values
        self.trailing = trailing  # octets after the last field of the row

    def number(self, field: str) -> int:
        """The value of an integer field; 0 for an optional one that was not sent."""
        value = self.values[field]
        return value if isinstance(value, int) else 0

    def octets(self, field: str) -> bytes:
        """The value of a field of octets; empty for an optional one that was not sent."""
        value = self.values[field]
        return value if isinstance(value, bytes) else b""


def _encode_field(name: str, kind: int, value: object) -> bytes:
    if 0 < kind <= 4 or kind == U16_LITTLE:
        size = 2 if kind == U16_LITTLE else kind
        if not isinstance(value, int) or not 0 <= value < 1 << (8 * size):
            raise LocalPlcError(f"field {name} takes an integer of {8 * size} bits, got {value!r}")
        return value.to_bytes(size, "little" if kind == U16_LITTLE else "big")
    if not isinstance(value, (bytes, bytearray)):
        # The value is not shown: a field of octets may be a key.
        raise LocalPlcError(f"field {name} takes octets, got {type(value).__name__}")
    octets = bytes(value)
    if kind < 0 and len(octets) != -kind:
        raise LocalPlcError(f"field {name} takes {-kind} octets, got {len(octets)}")
    if kind == DATA16:
        if len(octets) > 0xFFFF:
            raise LocalPlcError(f"field {name} takes at most 65535 octets, got {len(octets)}")
        return len(octets).to_bytes(2, "big") + octets
    if kind in (DATA8, ADDRESS8):
        if len(octets) > 0xFF:
            raise LocalPlcError(f"field {name} takes at most 255 octets, got {len(octets)}")
        return len(octets).to_bytes(1, "big") + octets
    if kind == MAC_THEN_1 and len(octets) not in (6, 8):
        raise LocalPlcError(f"field {name} takes 6 or 8 octets, got {len(octets)}")
    return octets


def _decode_field(kind: int, data: bytes, position: int) -> "tuple[int | bytes, int]":
    left = len(data) - position
    if 0 < kind <= 4:
        if left < kind:
            raise MessageError
        return int.from_bytes(data[position : position + kind], "big"), position + kind
    if kind == U16_LITTLE:
        if left < 2:
            raise MessageError
        return int.from_bytes(data[position : position + 2], "little"), position + 2
    if kind < 0:
        size = -kind
    elif kind in (DATA8, ADDRESS8, DATA16):
        prefix = 2 if kind == DATA16 else 1
        if left < prefix:
            raise MessageError
        size = int.from_bytes(data[position : position + prefix], "big")
        position += prefix
        left -= prefix
    elif kind == MAC_THEN_1:
        size = 8 if left >= 9 else 6
    else:
        size = left
    if left < size:
        raise MessageError
    return data[position : position + size], position + size


class CommandTable:
    """The rows of one protocol."""

    __slots__ = ("_by_id", "_title", "rows")

    def __init__(self, title: str, rows: "tuple[CommandRow, ...]") -> None:
        self._title = title
        self.rows = rows
        self._by_id: "dict[int, CommandRow]" = {}
        for row in rows:
            self._by_id[row[0]] = row

    def row(self, command: int) -> "CommandRow | None":
        """The row of a command id, or None."""
        return self._by_id.get(command)

    def encode(self, command: int, **values: "int | bytes | None") -> bytes:
        """Make the payload of a command. Optional fields are left out together when the first is not given.

        Raises LocalPlcError naming the field that is missing, unknown or out of its range.
        """
        row = self._by_id.get(command)
        if row is None:
            raise LocalPlcError(f"{self._title} has no command 0x{command:02X}")
        payload = bytes((command,))
        used = 0
        for name, kind in row[3]:
            if name not in values:
                raise LocalPlcError(f"{row[2]} needs field {name}")
            payload += _encode_field(name, kind, values[name])
            used += 1
        for name, kind in row[4]:
            value = values.get(name)
            if value is None:
                break
            payload += _encode_field(name, kind, value)
            used += 1
        if used < len([value for value in values.values() if value is not None]):
            raise LocalPlcError(f"{row[2]} was given fields that it has not, of {sorted(values)}")
        return payload

    def decode(self, payload: bytes) -> Message:
        """Take a payload apart. Raises MessageError when it is empty, unknown or too short for its row."""
        if not payload:
            raise MessageError(f"an empty payload came as {self._title}")
        row = self._by_id.get(payload[0])
        if row is None:
            raise MessageError(f"{self._title} has no command 0x{payload[0]:02X}")
        values: "dict[str, int | bytes | None]" = {}
        position = 1
        for name, kind in row[3]:
            try:
                values[name], position = _decode_field(kind, payload, position)
            except MessageError:
                raise MessageError(f"{row[2]} is too short: {len(payload)} octets end within field {name}")
        for name, _ in row[4]:
            values[name] = None
        try:
            for name, kind in row[4]:
                values[name], position = _decode_field(kind, payload, position)
        except MessageError:
            pass
        return Message(payload[0], row[2], values, payload[position:])
