"""The S-FSK MAC frame (IEC 61334-5-1): credits, addresses, padding, and how many subframes it takes.

Every station that hears a frame with credit left repeats it in the next slot, all at once, with one credit less:
that is how it travels beyond the reach of one station. Initial minus current credit is the number of repetitions that
a frame has needed; the delta credit tells the initiator what its last frame to a server has needed.
"""

from plc.errors import LocalPlcError, MessageError

# MAC addresses have 12 bits.
NO_BODY = 0x000
FIRST_SERVER = 0x001
FIRST_INITIATOR = 0xC00  # FIMA
LAST_INITIATOR = 0xDFF  # LIMA
LAST_SERVER = FIRST_INITIATOR - 1
NEW = 0xFFE  # a server that no initiator has registered
ALL_PHYSICAL = 0xFFF

LARGEST_CREDIT = 7
LARGEST_DELTA_CREDIT = 3
# A long MAC frame has 1 to 7 subframes of 36 octets; its header and check sequence take 8 of them.
SUBFRAME_SIZE = 36
LARGEST_SUBFRAMES = 7
_HEADER_SIZE = 5
_CHECK_SEQUENCE_SIZE = 3
LARGEST_SDU = 242
# A slot holds preamble, start of subframe delimiter, the subframe with its indicator, and the pause.
SLOT_OCTETS = 45
# How the number of subframes is written before them: a code that survives bit errors.
SUBFRAME_CODES = ((1, 0x6C6C), (2, 0x3A3A), (3, 0x5656), (4, 0x7171), (5, 0x1D1D), (6, 0x4B4B), (7, 0x2727))


class MacFrame:
    """One MAC frame as a modem takes and gives it."""

    __slots__ = ("current_credit", "delta_credit", "destination", "initial_credit", "sdu", "source")

    def __init__(
        self,
        source: int,
        destination: int,
        sdu: bytes,
        initial_credit: int = 0,
        current_credit: int | None = None,
        delta_credit: int = 0,
    ) -> None:
        self.source = source
        self.destination = destination
        self.sdu = sdu
        self.initial_credit = initial_credit
        self.current_credit = initial_credit if current_credit is None else current_credit
        self.delta_credit = delta_credit

    @property
    def repetitions(self) -> int:
        """How often it was repeated on its way."""
        return max(0, self.initial_credit - self.current_credit)

    def to_bytes(self) -> bytes:
        """Credits, addresses, padding length 0 (the modem fills it in) and SDU. Raises LocalPlcError."""
        if not (0 <= self.source <= 0xFFF and 0 <= self.destination <= 0xFFF):
            raise LocalPlcError(f"a MAC address has 12 bits, got {self.source:#x} and {self.destination:#x}")
        if len(self.sdu) > LARGEST_SDU:
            raise LocalPlcError(f"a MAC frame carries at most {LARGEST_SDU} octets, got {len(self.sdu)}")
        if not (
            0 <= self.current_credit <= LARGEST_CREDIT
            and 0 <= self.initial_credit <= LARGEST_CREDIT
            and 0 <= self.delta_credit <= LARGEST_DELTA_CREDIT
        ):
            raise LocalPlcError("a credit is 0 to 7, a delta credit 0 to 3")
        credit_octet = self.initial_credit << 5 | self.current_credit << 2 | self.delta_credit
        addresses = self.source << 12 | self.destination
        return bytes((credit_octet,)) + addresses.to_bytes(3, "big") + b"\x00" + self.sdu


def decode_mac_frame(octets: bytes) -> MacFrame:
    """Take a MAC frame apart; raises MessageError when it is too short.

    The padding is cut off when it is there: with it the frame fills its subframes.
    """
    if len(octets) < _HEADER_SIZE:
        raise MessageError(f"{len(octets)} octets are no MAC frame")
    credit_octet, padding = octets[0], octets[4]
    addresses = int.from_bytes(octets[1:4], "big")
    sdu = octets[_HEADER_SIZE:]
    if 0 < padding <= len(sdu) and (len(octets) + _CHECK_SEQUENCE_SIZE) % SUBFRAME_SIZE == 0:
        sdu = sdu[: len(sdu) - padding]
    return MacFrame(
        addresses >> 12, addresses & 0xFFF, sdu, credit_octet >> 5, credit_octet >> 2 & 7, credit_octet & 3
    )


def subframes(sdu_size: int) -> int:
    """How many subframes a frame with an SDU of so many octets takes."""
    return -(-(_HEADER_SIZE + sdu_size + _CHECK_SEQUENCE_SIZE) // SUBFRAME_SIZE)


def slot_s(baud_rate: int) -> float:
    """Seconds of one slot: 0.15 at 2400 baud, which is 50 Hz mains times 48."""
    return SLOT_OCTETS * 8 / baud_rate


def airtime_s(sdu_size: int, initial_credit: int, baud_rate: int) -> float:
    """Seconds that a frame holds the channel, all of its repetitions included."""
    return subframes(sdu_size) * (1 + initial_credit) * slot_s(baud_rate)
