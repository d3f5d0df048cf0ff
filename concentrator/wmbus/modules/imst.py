"""Driver of the IMST radio modules with the WMBus HCI: iM871A (868 MHz) and iM170A (169 MHz).

Start-up is three questions (ping, device information, configuration), each repeated when unanswered.
After that the module reports telegrams by itself; a ping now and then proves that it still lives. The
configuration is temporary, so that a swapped or restarted module is set up again and nothing wears out.
A telegram to be sent is handed over as it is; the module puts it on the air in its link mode.
"""

from __future__ import annotations

import enum

from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FIRST_BLOCK_OCTETS, FrameFormat
from concentrator.wmbus.modules.face import ModuleLost, ModuleReady, RadioModule, TelegramHeard, TelegramSent
from concentrator.wmbus.modules.imst_hci import (
    ENDPOINT_DEVICE,
    ENDPOINT_RADIO_LINK,
    GET_DEVICE_INFO,
    PING,
    RADIO_MESSAGE_INDICATION,
    RADIO_SEND_REQUEST,
    RADIO_SEND_RESPONSE,
    SET_CONFIG,
    HciMessage,
    HciReader,
)

# Link modes of the HCI specification. C and T together needs firmware 1.4 or newer.
LINK_MODES: dict[str, int] = {
    "S1": 0x00,
    "S1-m": 0x01,
    "S2": 0x02,
    "T1": 0x03,
    "T2": 0x04,
    "R2": 0x05,
    "C1-A": 0x06,
    "C1-B": 0x07,
    "C2-A": 0x08,
    "C2-B": 0x09,
    "C/T": 0x0A,
}
_MODULE_TYPES = {0x33: "iM871A", 0x36: "iM170A"}
_DEVICE_INFO_OCTETS = 8

# SET_CONFIG: temporary; first flags: link mode; second flags: RSSI and time stamp attachment.
_CONFIG_TEMPORARY = 0x00
_CONFIG_HAS_LINK_MODE = 0x02
_CONFIG_HAS_RSSI_AND_TIMESTAMP = 0x30
_STATUS_OK = 0x00

ANSWER_TIMEOUT_S = 1.0
ATTEMPTS = 3
KEEP_ALIVE_S = 60.0
RETRY_AFTER_LOSS_S = 5.0
# The longest message takes 46 ms at 57600 baud: a begun one that pauses longer is broken.
PARTIAL_TIMEOUT_S = 0.25


_COUNTERS = ("telegrams_heard", "telegrams_malformed", "messages_unknown", "octets_skipped", "checks_missed")


class _State(enum.Enum):
    """What is being waited for."""

    STOPPED = enum.auto()
    PINGING = enum.auto()
    IDENTIFYING = enum.auto()
    CONFIGURING = enum.auto()
    LISTENING = enum.auto()
    CHECKING = enum.auto()
    LOST = enum.auto()


# The request of each state that waits for an answer.
_REQUESTS = {
    _State.PINGING: PING,
    _State.IDENTIFYING: GET_DEVICE_INFO,
    _State.CONFIGURING: SET_CONFIG,
    _State.CHECKING: PING,
}
_WORDS = {PING: "a ping", GET_DEVICE_INFO: "the question who it is", SET_CONFIG: "its configuration"}


class ImstModule(RadioModule):
    """An iM871A or iM170A on its serial port, listening in one link mode."""

    baud_rate = 57600
    can_transmit = True

    def __init__(self, link_mode: str = "C/T") -> None:
        super().__init__()
        if link_mode not in LINK_MODES:
            raise WmbusUsageError(f"no link mode {link_mode!r}: use one of {', '.join(LINK_MODES)}")
        self._link_mode = link_mode
        self._reader = HciReader()
        self._state = _State.STOPPED
        self._attempts = 0
        self._deadline: float | None = None
        self._partial_deadline: float | None = None
        self._identity = ""
        self.counters = dict.fromkeys(
            ("telegrams_heard", "octets_skipped", "checks_missed", "messages_unknown", "telegrams_malformed"),
            0,
        )

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened."""
        self._reader = HciReader()
        self._partial_deadline = None
        self.data_to_send()  # what was meant for the port as it was before
        self._enter(_State.PINGING, now)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the module, in any chunking."""
        self._reader.receive_data(data)
        self._read_messages(now)
        self._partial_deadline = now + PARTIAL_TIMEOUT_S if self._reader.partial else None

    def next_timeout(self) -> float | None:
        """Tell when `handle_timeout` wants to be called, or None."""
        deadlines = [time for time in (self._deadline, self._partial_deadline) if time is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that has run out at `now`."""
        if self._partial_deadline is not None and now >= self._partial_deadline:
            self._reader.give_up_partial()
            self._read_messages(now)
            self._partial_deadline = now + PARTIAL_TIMEOUT_S if self._reader.partial else None
        if self._deadline is None or now < self._deadline:
            return
        if self._state is _State.LISTENING:
            self._enter(_State.CHECKING, now)
        elif self._state is _State.LOST:
            self._enter(_State.PINGING, now)
        elif self._attempts < ATTEMPTS:
            self._send_request(now)
        else:
            request = _WORDS[_REQUESTS[self._state]]
            self._lose(f"no answer to {request}, asked {ATTEMPTS} times", now)

    def _read_messages(self, now: float) -> None:
        skipped, missed = self._reader.octets_skipped, self._reader.checks_missed
        while (message := self._reader.next_message()) is not None:
            if message.endpoint == ENDPOINT_RADIO_LINK and message.message == RADIO_MESSAGE_INDICATION:
                self._hear(message)
            elif message.endpoint == ENDPOINT_RADIO_LINK and message.message == RADIO_SEND_RESPONSE:
                self._events.append(TelegramSent(accepted=message.payload[:1] == bytes((_STATUS_OK,))))
            elif message.endpoint == ENDPOINT_DEVICE:
                self._handle_answer(message, now)
            else:
                self._count("messages_unknown")
        self.counters["octets_skipped"] += self._reader.octets_skipped - skipped
        self.counters["checks_missed"] += self._reader.checks_missed - missed

    def _hear(self, message: HciMessage) -> None:
        if self._state in (_State.STOPPED, _State.LOST):
            return
        if len(message.payload) < FIRST_BLOCK_OCTETS - 1:
            self._count("telegrams_malformed")
            return
        self._count("telegrams_heard")
        octets = bytes((len(message.payload),)) + message.payload
        self._events.append(
            TelegramHeard(octets, message.rssi_dbm, FrameFormat.WITHOUT_CRC, message.timestamp)
        )

    def _put_on_the_air(self, telegram: bytes) -> None:
        self._write(HciMessage(ENDPOINT_RADIO_LINK, RADIO_SEND_REQUEST, telegram[1:]).to_bytes())

    def _handle_answer(self, message: HciMessage, now: float) -> None:
        request = _REQUESTS.get(self._state)
        if request is None or message.message != request + 1:
            self._count("messages_unknown")
            return
        if self._state is _State.PINGING:
            self._enter(_State.IDENTIFYING, now)
        elif self._state is _State.IDENTIFYING:
            self._identity = _describe(message.payload)
            self._enter(_State.CONFIGURING, now)
        elif self._state is _State.CONFIGURING:
            if message.payload[:1] != bytes((_STATUS_OK,)):
                answer = message.payload.hex() or "nothing"
                self._lose(f"link mode {self._link_mode} was refused with {answer}", now)
                return
            self._events.append(ModuleReady(self._identity))
            self._listen(now)
        else:
            self._listen(now)

    def _enter(self, state: _State, now: float) -> None:
        self._state = state
        self._attempts = 0
        self._send_request(now)

    def _listen(self, now: float) -> None:
        self._state = _State.LISTENING
        self._deadline = now + KEEP_ALIVE_S

    def _send_request(self, now: float) -> None:
        request = _REQUESTS[self._state]
        payload = b""
        if request == SET_CONFIG:
            mode = LINK_MODES[self._link_mode]
            payload = bytes(
                (_CONFIG_TEMPORARY, _CONFIG_HAS_LINK_MODE, mode, _CONFIG_HAS_RSSI_AND_TIMESTAMP, 1, 1)
            )
        self._write(HciMessage(ENDPOINT_DEVICE, request, payload).to_bytes())
        self._attempts += 1
        self._deadline = now + ANSWER_TIMEOUT_S

    def _lose(self, reason: str, now: float) -> None:
        self._state = _State.LOST
        self._deadline = now + RETRY_AFTER_LOSS_S
        self._events.append(ModuleLost(reason))


def _describe(payload: bytes) -> str:
    """Type, firmware and serial number out of a device information answer."""
    if len(payload) < _DEVICE_INFO_OCTETS:
        return f"IMST module ({payload.hex() or 'no information'})"
    kind = _MODULE_TYPES.get(payload[0], f"IMST module type {payload[0]:02X}")
    serial = int.from_bytes(payload[4:8], "little")
    return f"{kind} {serial:08X}, firmware {payload[2] >> 4}.{payload[2] & 0x0F}"
