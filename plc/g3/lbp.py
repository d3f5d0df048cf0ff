"""LBP: the frames of the LoWPAN bootstrapping protocol, and its configuration parameters (ITU-T G.9903).

    type and flags | transaction | EUI-64 of the device | bootstrapping data

The data is an EAP packet, or configuration parameters when bit 0 of its first octet is set.
"""

from plc.errors import LocalPlcError, MessageError

JOINING = 0x1
KICK_FROM_DEVICE = 0x4
ACCEPTED = 0x9
CHALLENGE = 0xA
DECLINE = 0xB
KICK_TO_DEVICE = 0xC

TYPES = (
    (JOINING, "joining"),
    (KICK_FROM_DEVICE, "kick from device"),
    (ACCEPTED, "accepted"),
    (CHALLENGE, "challenge"),
    (DECLINE, "decline"),
    (KICK_TO_DEVICE, "kick to device"),
)

PARAMETER_SHORT_ADDRESS = 0x1D
PARAMETER_GMK = 0x27
PARAMETER_GMK_ACTIVATION = 0x2B
PARAMETER_GMK_REMOVAL = 0x2F
PARAMETER_RESULT = 0x31

RESULT_SUCCESS = 0
# Results of the device for one parameter.
PARAMETER_RESULTS = ((0, "success"), (1, "missing parameter"), (2, "bad value"), (3, "unknown parameter"))

_HEAD_SIZE = 10
_EUI64_SIZE = 8
_MEDIA = 0x08
_DISABLE_BACKUP = 0x04


class Frame:
    """One LBP frame."""

    __slots__ = ("data", "disable_backup", "eui64", "kind", "media", "transaction")

    def __init__(
        self,
        kind: int,
        eui64: bytes,
        data: bytes = b"",
        media: int = 0,
        disable_backup: bool = False,
        transaction: int = 0,
    ) -> None:
        if not 0 <= kind <= 0xF or len(eui64) != _EUI64_SIZE:
            raise LocalPlcError(f"an LBP frame has a type of 4 bits and an EUI-64, got {kind}, {eui64.hex()}")
        self.kind = kind
        self.eui64 = eui64
        self.data = data
        self.media = media  # 0 PLC, 1 RF
        self.disable_backup = disable_backup
        self.transaction = transaction

    @property
    def holds_parameters(self) -> bool:
        """Whether the data is configuration parameters and no EAP packet."""
        return bool(self.data) and bool(self.data[0] & 1)

    def to_bytes(self) -> bytes:
        """The frame as it travels in ADPM_LBP."""
        flags = (_MEDIA if self.media else 0) | (_DISABLE_BACKUP if self.disable_backup else 0)
        return bytes((self.kind << 4 | flags, self.transaction)) + self.eui64 + self.data


def decode_frame(octets: bytes) -> Frame:
    """Take a frame apart. Raises MessageError when it is too short."""
    if len(octets) < _HEAD_SIZE:
        raise MessageError(f"{len(octets)} octets are no LBP frame")
    return Frame(
        octets[0] >> 4,
        octets[2:_HEAD_SIZE],
        octets[_HEAD_SIZE:],
        1 if octets[0] & _MEDIA else 0,
        bool(octets[0] & _DISABLE_BACKUP),
        octets[1],
    )


def encode_parameter(identifier: int, value: bytes) -> bytes:
    """Make one configuration parameter."""
    if len(value) > 0xFF:
        raise LocalPlcError(f"a configuration parameter takes at most 255 octets, got {len(value)}")
    return bytes((identifier, len(value))) + value


def decode_parameters(octets: bytes) -> "list[tuple[int, bytes]]":
    """Take configuration parameters apart. Raises MessageError when the last one is cut off."""
    parameters: "list[tuple[int, bytes]]" = []
    position = 0
    while position < len(octets):
        if position + 2 > len(octets) or position + 2 + octets[position + 1] > len(octets):
            raise MessageError("the last configuration parameter is cut off")
        end = position + 2 + octets[position + 1]
        parameters.append((octets[position], octets[position + 2 : end]))
        position = end
    return parameters
