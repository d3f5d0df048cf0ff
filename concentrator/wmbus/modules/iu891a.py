"""Driver of the newer IMST modules: iU891A-XL, iM891A-XL, iM881A-XL (HCI in SLIP frames).

A message is service, number, in answers and indications a status, payload, and a check sum (CRC-16 of X.25, low
first). The configuration is the active one only: a restarted module is set up again.
"""

from __future__ import annotations

from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.asking import AskingModule, Question
from concentrator.wmbus.modules.face import TelegramHeard, TelegramSent
from concentrator.wmbus.modules.imst_hci import crc_x25
from concentrator.wmbus.modules.slip import SlipReader, encode_slip

DEVICE_MANAGEMENT, GATEWAY = 0x01, 0x09
PING, GET_DEVICE_INFO = 0x01, 0x03
SET_ACTIVE_CONFIGURATION, RECEIVED, SEND_PACKET, TRANSMITTED = 0x03, 0x20, 0x39, 0x34
# Link modes of the gateway service.
IU891A_MODES = {"S1": 0x01, "T1": 0x02, "T2": 0x02, "C/T": 0x03, "C1-A": 0x05, "C1-B": 0x05}
_MODULE_TYPES = {0x6D: "iM891A-XL", 0x6E: "iU891A-XL", 0xA3: "iM881A-XL"}
# Forward everything, tell what was received and what was sent.
_OPTIONS = 0x0006
_REST_OF_CONFIGURATION = bytes(8)
_RSSI_AT, _TELEGRAM_AT = 7, 8
_CHECK_OCTETS, _HEADER_OCTETS = 2, 2
_DEVICE_INFO_OCTETS = 5


def hci_message(service: int, number: int, payload: bytes = b"") -> bytes:
    """The octets of one message on the line."""
    content = bytes((service, number)) + payload
    return encode_slip(content + crc_x25(content).to_bytes(_CHECK_OCTETS, "little"))


def parse_message(frame: bytes) -> tuple[int, int, bytes] | None:
    """Service, number and payload of a frame; None when it is too short or its check sum misses."""
    if len(frame) < _HEADER_OCTETS + _CHECK_OCTETS:
        return None
    if crc_x25(frame[:-_CHECK_OCTETS]) != int.from_bytes(frame[-_CHECK_OCTETS:], "little"):
        return None
    return frame[0], frame[1], frame[_HEADER_OCTETS:-_CHECK_OCTETS]


class Iu891aModule(AskingModule):
    """One of these modules, listening in one link mode."""

    baud_rate = 115_200
    can_transmit = True

    def __init__(self, link_mode: str = "C/T") -> None:
        if link_mode not in IU891A_MODES:
            raise WmbusUsageError(f"no link mode {link_mode!r}: use one of {', '.join(IU891A_MODES)}")
        configuration = (
            bytes((IU891A_MODES[link_mode],)) + _OPTIONS.to_bytes(2, "little") + _REST_OF_CONFIGURATION
        )
        super().__init__(
            (
                Question("a ping", hci_message(DEVICE_MANAGEMENT, PING)),
                Question("the question who it is", hci_message(DEVICE_MANAGEMENT, GET_DEVICE_INFO)),
                Question("its link mode", hci_message(GATEWAY, SET_ACTIVE_CONFIGURATION, configuration)),
            )
        )
        self._reader = SlipReader()
        self._identity = "iU891A"
        self.counters = dict.fromkeys(
            ("telegrams_heard", "telegrams_malformed", "telegrams_sent", "messages_unknown", "checks_missed"),
            0,
        )

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""
        self._reader.receive_data(data)
        while (frame := self._reader.next_frame()) is not None:
            message = parse_message(frame)
            if message is None:
                self._count("checks_missed")
            else:
                self._take(*message, now)

    def _forget_input(self) -> None:
        self._reader = SlipReader()

    def _take(self, service: int, number: int, payload: bytes, now: float) -> None:
        if (service, number) == (GATEWAY, RECEIVED):
            self._hear(payload[1:])
        elif (service, number) == (DEVICE_MANAGEMENT, PING + 1) and self._waiting_for == 0:
            self._answered(now)
        elif (service, number) == (DEVICE_MANAGEMENT, GET_DEVICE_INFO + 1) and self._waiting_for == 1:
            self._identity = _describe(payload[1:])
            self._answered(now)
        elif (service, number) == (GATEWAY, SET_ACTIVE_CONFIGURATION + 1) and self._waiting_for == 2:  # noqa: PLR2004 - the third question
            if payload[:1] == b"\0":
                self._answered(now)
            else:
                self._lose(f"the link mode was refused with {payload.hex() or 'nothing'}", now)
        elif (service, number) == (GATEWAY, SEND_PACKET + 1):
            self._count("telegrams_sent")
            self._events.append(TelegramSent(accepted=payload[:1] == b"\0"))
        elif (service, number) != (GATEWAY, TRANSMITTED):
            self._count("messages_unknown")

    def _hear(self, payload: bytes) -> None:
        if not self._listening:
            return
        telegram = payload[_TELEGRAM_AT:]
        if len(telegram) <= FIRST_BLOCK_OCTETS:
            self._count("telegrams_malformed")
            return
        self._count("telegrams_heard")
        module_time = int.from_bytes(payload[:4], "little")
        rssi_dbm = payload[_RSSI_AT] - 256 if payload[_RSSI_AT] > 127 else payload[_RSSI_AT]  # noqa: PLR2004 - the sign
        self._events.append(TelegramHeard(telegram, rssi_dbm, FrameFormat.WITHOUT_CRC, module_time))

    def _put_on_the_air(self, telegram: bytes) -> None:
        self._write(hci_message(GATEWAY, SEND_PACKET, telegram))


def _describe(payload: bytes) -> str:
    if len(payload) < _DEVICE_INFO_OCTETS:
        return f"IMST module ({payload.hex() or 'no information'})"
    kind = _MODULE_TYPES.get(payload[0], f"IMST module type {payload[0]:02X}")
    return f"{kind} {int.from_bytes(payload[1:5], 'little'):08X}"
