"""The far side of an IMST iM871A: what the module itself would answer and report on its serial port.

It answers ping, device information, set and get configuration and reset, and reports telegrams that
simulated meters sent while it was listening, with RSSI, time stamp and check sum as configured. It knows
nothing of the driver: it is written from the HCI's octets, apart from the framing helper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from concentrator.wmbus.modules.imst_hci import (
    ENDPOINT_DEVICE,
    ENDPOINT_RADIO_LINK,
    GET_CONFIG,
    GET_DEVICE_INFO,
    PING,
    RADIO_MESSAGE_INDICATION,
    RESET,
    SET_CONFIG,
    HciMessage,
    HciReader,
)

_MODULE_TYPE_IM871A = 0x33
_FIRMWARE = 0x15
_HCI_VERSION = 0x17
_DEVICE_MODE_OTHER = 0x00
_OK = b"\x00"
_REFUSED = b"\x01"
_LARGEST_LINK_MODE = 0x0B
_RADIO_MODES_HEARD = {0x03, 0x04, 0x0A}  # T1, T2, C/T: the simulated meters send mode T

# Fields of the two flag octets of a configuration, in their order: name, octets.
_FIRST_FIELDS = (
    ("device_mode", 1),
    ("link_mode", 1),
    ("c_field", 1),
    ("manufacturer", 2),
    ("device_id", 4),
    ("version", 1),
    ("device_type", 1),
    ("radio_channel", 1),
)
_SECOND_FIELDS = (
    ("power_level", 1),
    ("data_rate", 1),
    ("receive_window", 1),
    ("power_saving", 1),
    ("rssi", 1),
    ("timestamp", 1),
    ("led", 1),
    ("clock", 1),
)


class Scheduler(Protocol):
    """Simulated or real time: seconds since some start."""

    def now(self) -> float:
        """The present moment in seconds."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call `callback` once, `delay_s` from now."""
        ...


class SimulatedRadioModule:
    """An iM871A: `write` takes what it sends on its serial port.

    `loses_messages` and `answers` let a test make it fail: octets of every n-th message are damaged, or
    it stays silent.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        scheduler: Scheduler,
        *,
        serial_number: int = 0x25041971,
        answer_delay_s: float = 0.002,
        with_check: bool = True,
    ) -> None:
        self.answers = True
        self.damage_every = 0
        self.config: dict[str, bytes] = self._default_config()
        self._write = write
        self._scheduler = scheduler
        self._serial_number = serial_number
        self._answer_delay_s = answer_delay_s
        self._with_check = with_check
        self._reader = HciReader()
        self._messages_sent = 0

    @property
    def listening(self) -> bool:
        """Whether its link mode hears the simulated meters."""
        return self.config["link_mode"][0] in _RADIO_MODES_HEARD

    def receive_data(self, data: bytes) -> None:
        """Take what the host wrote, in any chunking."""
        self._reader.receive_data(data)
        while (message := self._reader.next_message()) is not None:
            self._handle(message)

    def hear(self, octets: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air: from the L-field on, without CRCs."""
        if not self.listening or not self.answers:
            return
        milliseconds = int(self._scheduler.now() * 1000) & 0xFFFFFFFF
        raw_rssi = max(0, min(255, 45 + (rssi_dbm + 100) * 2))
        self._send(
            HciMessage(
                ENDPOINT_RADIO_LINK,
                RADIO_MESSAGE_INDICATION,
                octets[1 : 1 + octets[0]],
                timestamp=milliseconds if self._wants("timestamp") else None,
                rssi=raw_rssi if self._wants("rssi") else None,
            )
        )

    def power_cycle(self) -> None:
        """It restarts: the temporary configuration is gone."""
        self.config = self._default_config()
        self._reader = HciReader()

    @staticmethod
    def _default_config() -> dict[str, bytes]:
        """What a module is delivered with: mode S2, nothing attached."""
        config = {name: bytes(octets) for name, octets in _FIRST_FIELDS + _SECOND_FIELDS}
        return config | {"link_mode": b"\x02"}

    def _wants(self, field: str) -> bool:
        return self.config[field] != b"\x00"

    def _handle(self, message: HciMessage) -> None:
        if message.endpoint != ENDPOINT_DEVICE or not self.answers:
            return
        if message.message == PING:
            self._answer(message, b"")
        elif message.message == GET_DEVICE_INFO:
            head = bytes((_MODULE_TYPE_IM871A, _DEVICE_MODE_OTHER, _FIRMWARE, _HCI_VERSION))
            self._answer(message, head + self._serial_number.to_bytes(4, "little"))
        elif message.message == SET_CONFIG:
            self._answer(message, _OK if self._configure(message.payload) else _REFUSED)
        elif message.message == GET_CONFIG:
            first = b"".join(self.config[name] for name, _ in _FIRST_FIELDS)
            second = b"".join(self.config[name] for name, _ in _SECOND_FIELDS)
            self._answer(message, b"\xff" + first + b"\xff" + second)
        elif message.message == RESET:
            self._answer(message, _OK)
            self.power_cycle()

    def _configure(self, payload: bytes) -> bool:
        """Read flags and fields; a payload that does not end where its flags say is refused whole."""
        found: dict[str, bytes] = {}
        at = 1
        for fields in (_FIRST_FIELDS, _SECOND_FIELDS):
            if at >= len(payload):
                return False
            flags = payload[at]
            at += 1
            for bit, (name, octets) in enumerate(fields):
                if flags >> bit & 1:
                    found[name] = payload[at : at + octets]
                    at += octets
        if at != len(payload) or found.get("link_mode", b"\x00")[0] > _LARGEST_LINK_MODE:
            return False
        self.config |= found
        return True

    def _answer(self, request: HciMessage, payload: bytes) -> None:
        answer = HciMessage(ENDPOINT_DEVICE, request.message + 1, payload)
        self._scheduler.call_later(self._answer_delay_s, lambda: self._send(answer))

    def _send(self, message: HciMessage) -> None:
        octets = bytearray(message.to_bytes(check=self._with_check))
        self._messages_sent += 1
        if self.damage_every and self._messages_sent % self.damage_every == 0:
            octets[len(octets) // 2] ^= 0x55
        self._write(bytes(octets))
