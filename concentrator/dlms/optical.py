"""Handing an optical port over from IEC 62056-21 to HDLC: mode E (IEC 62056-21 annex B, Green Book annex).

Sans-IO: characters in, characters and line settings out. The dialogue starts at 300 baud, 7 data bits, even
parity: sign-on, the meter's identification, our choice of HDLC and speed, the meter's confirmation. Then the line
is set to 8 data bits without parity, and belongs to HDLC. Optical heads that echo are borne with.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import NamedTuple, TypeAlias

from concentrator.dlms.errors import EncodeError, LinkLostError

_BAUD_RATES = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
_END = b"\r\n"
_ACKNOWLEDGE = b"\x06"
# Protocol control character and mode control character: HDLC, binary.
_HDLC, _BINARY = "2", "2"
_BUFFER_LIMIT = 256


class LineSettings(NamedTuple):
    """How the serial port must be set from now on; everything handed out before is sent first."""

    baud_rate: int
    data_bits: int
    parity: str


SIGN_ON = LineSettings(300, 7, "E")


class HandedOver(NamedTuple):
    """The line belongs to HDLC. `manufacturer` has three letters, `identification` what the meter says it is."""

    manufacturer: str
    identification: str


Event: TypeAlias = LineSettings | HandedOver


class _State(enum.Enum):
    IDLE = 0
    SIGNED_ON = 1
    ACKNOWLEDGED = 2
    HANDED_OVER = 3


class ModeEOpening:
    """One opening. `address` is the meter's, where several share an optical or current-loop port.

    `fastest` bounds the baud rate. Call `handle_timeout` when nothing came for 1.5 s: a sign-on that was not
    answered is repeated, `attempts` times at most; a meter that does not confirm has switched already.
    """

    def __init__(self, address: str = "", *, fastest: int = 19200, attempts: int = 3) -> None:
        if (not address.isalnum() and address) or not address.isascii() or len(address) > 32:
            raise EncodeError(f"a device address has up to 32 letters and digits, not {address!r}")
        self._address = address
        self._fastest = fastest
        self._attempts = attempts
        self._state = _State.IDLE
        self._tries = 0
        self._buffer = b""
        self._echo = b""
        self._echoes = False
        self._outgoing = b""
        self._events: deque[Event] = deque()
        self._identity = HandedOver("", "")
        self._baud_rate = SIGN_ON.baud_rate

    def start(self) -> None:
        """Sign on; set the line to `SIGN_ON` first, as the first event says."""
        self._events.append(SIGN_ON)
        self._sign_on()

    def _sign_on(self) -> None:
        self._tries += 1
        self._state = _State.SIGNED_ON
        self._put(b"/?" + self._address.encode("ascii") + b"!" + _END)

    def _put(self, octets: bytes) -> None:
        self._buffer = b""
        self._outgoing += octets
        self._echo = octets if self._echoes or self._state == _State.SIGNED_ON else b""

    def data_to_send(self) -> bytes:
        """What is to be sent now; each octet is handed out once."""
        octets, self._outgoing = self._outgoing, b""
        return octets

    def next_event(self) -> Event | None:
        """The next event, or None."""
        return self._events.popleft() if self._events else None

    def receive_data(self, data: bytes) -> None:
        """Take what came from the line, in any pieces. Noise is passed over; a parity bit is cut off.

        Raises:
            LinkLostError: the meter does not speak HDLC here.
        """
        if self._state not in (_State.SIGNED_ON, _State.ACKNOWLEDGED):
            return
        self._buffer = (self._buffer + bytes(octet & 0x7F for octet in data))[-_BUFFER_LIMIT:]
        while _END in self._buffer:
            line, self._buffer = self._buffer.split(_END, 1)
            self._receive_line(line + _END)

    def _receive_line(self, line: bytes) -> None:
        if self._echo and line.endswith(self._echo):
            # The meter confirms with the very characters that we sent: whether they are an echo tells
            # the sign-on, which no meter sends.
            self._echo = b""
            self._echoes = True
        elif self._state == _State.SIGNED_ON and b"/" in line:
            self._identified(line[line.rindex(b"/") :])
        elif self._state == _State.ACKNOWLEDGED and _ACKNOWLEDGE in line:
            self._hand_over()

    def _identified(self, line: bytes) -> None:
        """Take the identification: manufacturer, speed, and that HDLC is spoken here."""
        text = line[1:-2].decode("ascii")
        if len(text) < 4:
            return
        manufacturer, speed, rest = text[:3], text[3], text[4:]
        # Escape sequences come before the identification: \2 is HDLC.
        modes = ""
        while rest.startswith("\\") and len(rest) >= 2:
            modes += rest[1]
            rest = rest[2:]
        if _HDLC not in modes or speed not in _BAUD_RATES:
            raise LinkLostError(f"the meter {manufacturer} {rest!r} offers no HDLC on its optical port")
        self._identity = HandedOver(manufacturer, rest)
        offered = min(_BAUD_RATES[speed], self._fastest)
        chosen = max((key for key in _BAUD_RATES if _BAUD_RATES[key] <= offered), default="0")
        self._baud_rate = _BAUD_RATES[chosen]
        self._state = _State.ACKNOWLEDGED
        self._put(_ACKNOWLEDGE + f"{_HDLC}{chosen}{_BINARY}".encode("ascii") + _END)

    def _hand_over(self) -> None:
        self._state = _State.HANDED_OVER
        self._events += (LineSettings(self._baud_rate, 8, "N"), self._identity)

    def handle_timeout(self) -> None:
        """Nothing came.

        Raises:
            LinkLostError: the meter did not answer any sign-on.
        """
        if self._state == _State.ACKNOWLEDGED:
            # Some meters switch without a word.
            self._hand_over()
        elif self._state == _State.SIGNED_ON:
            if self._tries >= self._attempts:
                raise LinkLostError(f"no meter identified itself after {self._tries} sign-ons at 300 baud")
            self._sign_on()
