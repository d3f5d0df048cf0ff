"""The far side of radio modules beside the iM871A: iU891A, AMB8465, RC1180, and a stick with culfw.

Each is a device for a port: it answers its host's questions with its own bytes, and reports telegrams that it is
handed while it listens. Written from the modules' own interfaces; of the drivers only framing helpers are used.
"""

from __future__ import annotations

from collections.abc import Callable

from concentrator.wmbus.frame import FrameFormat, decode_frame, encode_frame
from concentrator.wmbus.modules.iu891a import hci_message, parse_message
from concentrator.wmbus.modules.slip import SlipReader


def _xor(octets: bytes) -> int:
    check = 0
    for octet in octets:
        check ^= octet
    return check


class SimulatedDevice:
    """A module behind a port; `sent` are the telegrams that its host had it put on the air."""

    def __init__(self) -> None:
        self.output: Callable[[bytes], None] | None = None
        self.sent: list[bytes] = []

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        raise NotImplementedError

    def hear(self, telegram: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air: from its L-field on, without CRCs."""
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        if self.output is not None:
            self.output(data)


class SimulatedIu891a(SimulatedDevice):
    """An iU891A-XL."""

    def __init__(self) -> None:
        super().__init__()
        self.link_mode = 0
        self._reader = SlipReader()

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        self._reader.receive_data(data)
        while (frame := self._reader.next_frame()) is not None:
            message = parse_message(frame)
            if message is not None:
                self._obey(*message)

    def hear(self, telegram: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air."""
        if self.link_mode:
            head = bytes(8)[:7] + bytes((rssi_dbm & 0xFF,))
            self._write(hci_message(0x09, 0x20, b"\0" + head + telegram))

    def _obey(self, service: int, number: int, payload: bytes) -> None:
        answer = b"\0"
        if (service, number) == (0x01, 0x03):
            answer += bytes.fromhex("6E 04030201")
        elif (service, number) == (0x09, 0x03):
            answer = b"\0" if len(payload) == 11 and payload[0] in (1, 2, 3, 5, 6) else b"\x03"  # noqa: PLR2004
            self.link_mode = payload[0] if answer == b"\0" else self.link_mode
        elif (service, number) == (0x09, 0x39):
            self.sent.append(payload)
        elif (service, number) != (0x01, 0x01):
            answer = b"\x02"
        self._write(hci_message(service, number + 1, answer))


class SimulatedAmb8465(SimulatedDevice):
    """An AMB8465 in command mode; as delivered it sends telegrams unframed and without RSSI."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters = bytearray(0x80)
        self._active = bytes(self.parameters)
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        self._buffer += data
        while (start := self._buffer.find(0xFF)) >= 0:
            del self._buffer[:start]
            total = self._buffer[2] + 4 if len(self._buffer) > 2 else 4  # noqa: PLR2004 - FF, command, length
            if len(self._buffer) < total:
                return
            octets = bytes(self._buffer[:total])
            if _xor(octets) != 0:
                del self._buffer[:1]
                continue
            del self._buffer[:total]
            self._obey(octets[1], octets[3:-1])
        self._buffer.clear()

    def hear(self, telegram: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air."""
        if self._active[0x05] and self._active[0x45]:
            self._say(0x03, telegram[1:] + bytes(((rssi_dbm + 74) * 2 & 0xFF,)))
        else:
            self._write(telegram)

    def _obey(self, command: int, data: bytes) -> None:
        if command == 0x0A:  # noqa: PLR2004 - get parameters
            self._say(0x8A, data + self.parameters[data[0] : data[0] + data[1]])
            return
        if command == 0x09:  # noqa: PLR2004 - set parameters
            self.parameters[data[0] : data[0] + data[1]] = data[2:]
        elif command == 0x05:  # noqa: PLR2004 - reset
            self._active = bytes(self.parameters)
        elif command == 0x00:
            self.sent.append(bytes((len(data),)) + data)
        self._say(command | 0x80, b"\0")

    def _say(self, command: int, data: bytes) -> None:
        octets = bytes((0xFF, command, len(data))) + data
        self._write(octets + bytes((_xor(octets),)))


class SimulatedRc1180(SimulatedDevice):
    """An RC1180-MBUS."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = bytearray(256)
        self._configuring = False
        self._command = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        for octet in data:
            if not self._configuring:
                self._configuring = octet == 0
                self._write(b">" if self._configuring else b"")
                continue
            self._command.append(octet)
            self._obey()

    def hear(self, telegram: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air."""
        if not self._configuring:
            self._write(telegram + (bytes((-2 * rssi_dbm,)) if self.memory[0x05] == 1 else b""))

    def _obey(self) -> None:
        command = bytes(self._command)
        if command[:1] == b"0":
            self._write(bytes(self.memory) + b">")
        elif command[:1] == b"X":
            self._configuring = False
        elif command[:1] == b"M":
            if len(command) < 4:  # noqa: PLR2004 - M, address, value, FF
                return
            self.memory[command[1]] = command[2]
            self._write(b">")
        elif command != b"\0":
            self._write(b">")
        self._command.clear()


class SimulatedCulStick(SimulatedDevice):
    """A nanoCUL with culfw."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = b""
        self._line = b""

    def receive_data(self, data: bytes) -> None:
        """Octets from the host."""
        *lines, self._line = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line == b"V":
                self._write(b"V 1.67 nanoCUL868\r\n")
            elif line in (b"brt", b"brc", b"brs"):
                self.mode = line
                self._write(line[2:].upper() + b"MODE\r\n")
            elif line[:3] in (b"bss", b"bst"):
                self.sent.append(bytes.fromhex(line[3:].decode()))

    def hear(self, telegram: bytes, rssi_dbm: int) -> None:
        """A telegram arrived over the air."""
        if self.mode:
            with_crc = encode_frame(
                decode_frame(telegram, FrameFormat.WITHOUT_CRC)._replace(frame_format=FrameFormat.A)
            )
            rssi = (rssi_dbm + 74) * 2 & 0xFF
            self._write(b"b" + (with_crc + b"\x80" + bytes((rssi,))).hex().upper().encode() + b"\r\n")
