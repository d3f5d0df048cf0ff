"""A wired M-Bus with slaves, as a level converter shows it: what several slaves say at once overlaps on the line.

Slaves answer by the octets of EN 13757-2 and -3 and know nothing of the master. A slave pulls more current for a
0, so two answers at once read as the AND of their bits, and equal ones as one. Readouts are given as data records;
more than one makes a readout of several telegrams, whose last ones the slave announces by DIF 1F.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from concentrator.wmbus.address import Address
from concentrator.wmbus.wired import (
    ACKNOWLEDGEMENT,
    ADDRESS_ALL,
    ADDRESS_ALL_WITH_ANSWER,
    ADDRESS_SELECTED,
    C_REQ_UD2,
    C_RSP_UD,
    C_SND_NKE,
    C_SND_UD,
    FRAME_COUNT_BIT,
    LongFrame,
    ShortFrame,
    WiredFrame,
    WiredReader,
)

_CI_SELECT, _CI_RESET, _CI_SEND = 0x52, 0x50, 0x51
_CI_BAUD_RATES = range(0xB8, 0xC0)
_BAUD_RATES = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400)
_CI_LONG_HEADER = 0x72
_MORE_FOLLOWS = b"\x1f"
_WILD_DIGIT, _WILD_OCTET, _WILD_MAKER = "F", 0xFF, b"\xff\xff"


class SimulatedSlave:
    """One meter on the bus. `readout` gives its telegrams as records, anew for each reading."""

    def __init__(
        self,
        meter: Address,
        primary_address: int,
        readout: Callable[[], Sequence[bytes]],
        *,
        silent: bool = False,
    ) -> None:
        self.meter = meter
        self.primary_address = primary_address
        self.baud_rate = 2400
        self.silent = silent
        self.resets = 0
        self._readout = readout
        self._selected = False
        self._last_count: bool | None = None
        self._telegrams: Sequence[bytes] = ()
        self._position = 0
        # Meters have counted for years when a bus is searched: no two say the same.
        self._access_number = sum(meter.to_link_layer()) * 37 & 0xFF

    def answer(self, frame: WiredFrame) -> bytes:
        """What the slave says to a frame; b"" when it is not meant or says nothing."""
        if self.silent or not isinstance(frame, ShortFrame | LongFrame):
            return b""
        if (
            isinstance(frame, LongFrame)
            and frame.address == ADDRESS_SELECTED
            and frame.payload[0] == _CI_SELECT
        ):
            self._selected = self._matches(frame.payload[1:9])
            self._begin()
            return bytes((ACKNOWLEDGEMENT,)) if self._selected else b""
        meant = frame.address in (self.primary_address, ADDRESS_ALL, ADDRESS_ALL_WITH_ANSWER) or (
            frame.address == ADDRESS_SELECTED and self._selected
        )
        if not meant:
            return b""
        said = self._obey(frame)
        return b"" if frame.address == ADDRESS_ALL else said

    def _obey(self, frame: ShortFrame | LongFrame) -> bytes:
        kind = frame.c_field & ~FRAME_COUNT_BIT
        if frame.c_field == C_SND_NKE:
            self._begin()
            if frame.address in (ADDRESS_SELECTED, ADDRESS_ALL):
                self._selected = False
            return bytes((ACKNOWLEDGEMENT,))
        if isinstance(frame, ShortFrame):
            return (
                self._data(bool(frame.c_field & FRAME_COUNT_BIT))
                if kind == C_REQ_UD2 & ~FRAME_COUNT_BIT
                else b""
            )
        if kind != C_SND_UD & ~FRAME_COUNT_BIT:
            return b""
        ci = frame.payload[0]
        if ci == _CI_RESET:
            self.resets += 1
            self._begin()
        elif ci in _CI_BAUD_RATES:
            self.baud_rate = _BAUD_RATES[ci - _CI_BAUD_RATES.start]
        elif ci == _CI_SEND and frame.payload[1:3] == b"\x01\x7a":
            self.primary_address = frame.payload[3]
        return bytes((ACKNOWLEDGEMENT,))

    def _begin(self) -> None:
        self._last_count, self._telegrams, self._position = None, (), 0

    def _data(self, count: bool) -> bytes:  # noqa: FBT001 - a bit of the frame
        """The next telegram when the frame count bit changed, else the same once more."""
        if self._last_count is None or not self._telegrams:
            self._telegrams, self._position = tuple(self._readout()), 0
        elif count != self._last_count:
            self._position += 1
            self._access_number = self._access_number + 1 & 0xFF
            if self._position >= len(self._telegrams):
                self._telegrams, self._position = tuple(self._readout()), 0
        self._last_count = count
        records = self._telegrams[self._position]
        if self._position + 1 < len(self._telegrams):
            records += _MORE_FOLLOWS
        header = self.meter.to_transport_layer() + bytes((self._access_number, 0, 0, 0))
        return LongFrame(
            C_RSP_UD, self.primary_address, bytes((_CI_LONG_HEADER,)) + header + records
        ).to_bytes()

    def _matches(self, mask: bytes) -> bool:
        own = self.meter.to_transport_layer()
        digits = zip(mask[3::-1].hex().upper(), own[3::-1].hex().upper(), strict=True)
        return (
            len(mask) == len(own)
            and all(wanted in (_WILD_DIGIT, digit) for wanted, digit in digits)
            and mask[4:6] in (_WILD_MAKER, own[4:6])
            and mask[6] in (_WILD_OCTET, own[6])
            and mask[7] in (_WILD_OCTET, own[7])
        )


class SimulatedBus:
    """The line with its slaves: a device for a port. `echo` gives the master's octets back, as some converters do."""

    def __init__(self, slaves: Sequence[SimulatedSlave], *, echo: bool = False) -> None:
        self.slaves = list(slaves)
        self.output: Callable[[bytes], None] | None = None
        self.echo = echo
        self.collisions = 0
        self._reader = WiredReader()

    def receive_data(self, data: bytes) -> None:
        """Octets from the master."""
        if self.echo and self.output is not None:
            self.output(data)
        self._reader.receive_data(data)
        while (frame := self._reader.next_frame()) is not None:
            answers = [said for slave in self.slaves if (said := slave.answer(frame))]
            if answers and self.output is not None:
                self.collisions += len(set(answers)) > 1
                self.output(overlapped(answers))


def overlapped(answers: Sequence[bytes]) -> bytes:
    """What the line carries when these are sent at the same time."""
    line = bytearray()
    for octets in zip_longest(*answers, fillvalue=0xFF):
        together = 0xFF
        for octet in octets:
            together &= octet
        line.append(together)
    return bytes(line)
