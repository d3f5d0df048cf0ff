"""Local frames: the serial envelope between a host and an S-FSK modem of the AMIS-49587 kind.

    02 | length | command | data ... | check sum (2 octets, least significant first)

The length counts command, data and check sum; the check sum adds all octets from the length on. The receiver of a
frame answers 06 (taken) or 15 (not taken: send it again). A status message is 3F and one octet. Source: the public
data sheet of ON Semiconductor's AMIS-49587, "Local communication"; that a status has one octet is an assumption.

Not here: the T_REQ line by which that part is asked to listen, which a plain serial port does not have.
"""

from plc.errors import LocalPlcError

# What next_frame() calls the kinds of things that it finds, in the place of a USI protocol.
LOCAL_FRAME = 0
ANSWER = 1  # 06 or 15
STATUS = 2

ACK = 0x06
NAK = 0x15
_STX = 0x02
_STATUS_MARK = 0x3F
_CHECK_SIZE = 2
_SMALLEST_LENGTH = 1 + _CHECK_SIZE
LARGEST_LENGTH = 250
LARGEST_PAYLOAD = LARGEST_LENGTH - _CHECK_SIZE


def encode_local_frame(payload: bytes) -> bytes:
    """Wrap a command and its data into one frame. Raises LocalPlcError when it is empty or too long."""
    if not 1 <= len(payload) <= LARGEST_PAYLOAD:
        raise LocalPlcError(f"a local frame carries 1 to {LARGEST_PAYLOAD} octets, got {len(payload)}")
    body = bytes((len(payload) + _CHECK_SIZE,)) + payload
    return bytes((_STX,)) + body + (sum(body) & 0xFFFF).to_bytes(2, "little")


class LocalFrameDecoder:
    """Finds local frames, answers and statuses in a stream of octets, in any chunking.

    The envelope has no end mark. An octet 02 of garbage may claim octets of a good frame behind it; when the check sum
    shows it, they are searched anew. Only what hides in an unfinished claim has to wait: for more octets, or for
    give_up(). What is dropped is counted in `counters`.
    """

    __slots__ = ("_buffer", "_frames", "counters")

    def __init__(self) -> None:
        self._frames: list[tuple[int, bytes]] = []
        self.counters: dict[str, int] = {
            "frames": 0,
            "bad_crc": 0,
            "bad_length": 0,
            "garbage_octets": 0,
        }
        self._buffer = b""

    def reset(self) -> None:
        """Forget an incomplete frame: the port was reopened."""
        self._buffer = b""

    def receive_data(self, data: bytes) -> None:
        """Take octets from the line; never raises."""
        self._buffer += bytes(data)
        self._search()

    def give_up(self) -> None:
        """Nothing came for a while: an unfinished frame will not be finished, but may hide others."""
        while self._buffer:
            self.counters["garbage_octets"] += 1
            self._buffer = self._buffer[1:]
            self._search()

    def next_frame(self) -> "tuple[int, bytes] | None":
        """Give the oldest thing not yet taken as (kind, octets); or None."""
        return self._frames.pop(0) if self._frames else None

    def _search(self) -> None:
        buffer = self._buffer
        position = 0
        while position < len(buffer):
            first = buffer[position]
            left = len(buffer) - position
            if first in (ACK, NAK):
                self._frames.append((ANSWER, bytes((first,))))
                position += 1
            elif first == _STATUS_MARK:
                if left < 2:
                    break
                self._frames.append((STATUS, buffer[position + 1 : position + 2]))
                position += 2
            elif first != _STX:
                self.counters["garbage_octets"] += 1
                position += 1
            else:
                if left < 2:
                    break
                length = buffer[position + 1]
                if not _SMALLEST_LENGTH <= length <= LARGEST_LENGTH:
                    self.counters["bad_length"] += 1
                    position += 1
                    continue
                if left < 2 + length:
                    break
                body = buffer[position + 1 : position + 2 + length - _CHECK_SIZE]
                check = buffer[position + 2 + length - _CHECK_SIZE : position + 2 + length]
                if sum(body) & 0xFFFF != int.from_bytes(check, "little"):
                    self.counters["bad_crc"] += 1
                    position += 1
                    continue
                self.counters["frames"] += 1
                self._frames.append((LOCAL_FRAME, body[1:]))
                position += 2 + length
        self._buffer = buffer[position:]
