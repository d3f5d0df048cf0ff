"""Ways to one meter: TCP or a serial port, with the WRAPPER or HDLC, or an optical head handed over to HDLC (mode E).

Each is an `ApduChannel`, as a conversation's driver wants it: APDUs out, APDUs in.
"""

from __future__ import annotations

import asyncio
import contextlib
import termios
from abc import ABC, abstractmethod

import serial

from concentrator.dlms.errors import DlmsError
from concentrator.dlms.hdlc import HdlcAddress
from concentrator.dlms.hdlc_link import ApduReceived, HdlcClientLink, LinkConnected, LinkDisconnected
from concentrator.dlms.optical import HandedOver, LineSettings, ModeEOpening
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.links.errors import AnswerTimeoutError, LinkLostError, PortError

_READ_SIZE_OCTETS = 4096
_CONNECT_TIMEOUT_S = 10.0
_HDLC_REPEAT_S = 1.5
# A meter needs a moment before it sends, and we before we change speed (IEC 62056-21: 200 ms).
_SPEED_CHANGE_S = 0.2


class ByteStream(ABC):
    """Octets to and from a meter."""

    @abstractmethod
    async def read(self) -> bytes:
        """What came; waits for at least one octet. Raises LinkLostError at the end."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send."""

    @abstractmethod
    async def close(self) -> None:
        """End it."""


class TcpStream(ByteStream):
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> TcpStream:
        """Connect.

        Raises:
            LinkLostError: nobody listens there.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                return cls(*await asyncio.open_connection(host, port))
        except (OSError, TimeoutError) as error:
            raise LinkLostError(
                f"{host}:{port}: {error or 'no answer'}; does the meter listen there?"
            ) from None

    async def read(self) -> bytes:
        """What came."""
        data = await self._reader.read(_READ_SIZE_OCTETS)
        if not data:
            raise LinkLostError("the meter closed the connection")
        return data

    async def write(self, data: bytes) -> None:
        """Send."""
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """End it."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class SerialStream(ByteStream):
    """A serial port, 8N1 unless mode E sets it otherwise."""

    def __init__(self, port: str, baud_rate: int) -> None:
        """Open the port.

        Raises:
            PortError: it is not there, or used by another program.
        """
        try:
            self._serial = serial.Serial(port, baud_rate, timeout=0, write_timeout=5, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise PortError(f"serial port {port}: {error}") from error

    def set_line(self, settings: LineSettings) -> None:
        """Set speed, data bits and parity."""
        self._serial.baudrate = settings.baud_rate
        try:
            self._serial.bytesize = settings.data_bits
            self._serial.parity = settings.parity
        except termios.error:
            # A pseudo-terminal knows eight bits without parity only.
            self._serial.bytesize, self._serial.parity = 8, "N"

    async def read(self) -> bytes:
        """What came."""
        loop = asyncio.get_running_loop()
        try:
            while not (data := self._serial.read(_READ_SIZE_OCTETS)):
                readable: asyncio.Future[None] = loop.create_future()
                loop.add_reader(self._serial.fileno(), readable.set_result, None)
                try:
                    await readable
                finally:
                    loop.remove_reader(self._serial.fileno())
        except (serial.SerialException, OSError) as error:
            raise LinkLostError(f"serial port {self._serial.port}: {error}") from error
        return data

    async def write(self, data: bytes) -> None:
        """Send, and wait until it has left the port."""

        def send() -> None:
            self._serial.write(data)
            self._serial.flush()

        try:
            await asyncio.to_thread(send)
        except (serial.SerialException, OSError) as error:
            raise LinkLostError(f"serial port {self._serial.port}: {error}") from error

    async def close(self) -> None:
        """End it."""
        self._serial.close()


class WrapperChannel:
    """The WRAPPER on a stream."""

    def __init__(self, stream: ByteStream, client_sap: int, server_sap: int) -> None:
        self._stream = stream
        self._saps = client_sap, server_sap
        self._decoder = WrapperDecoder()

    async def send(self, apdu: bytes) -> None:
        """Send one APDU."""
        await self._stream.write(WrapperFrame(*self._saps, apdu).to_bytes())

    async def receive(self, timeout_s: float) -> bytes:
        """The next APDU."""
        try:
            async with asyncio.timeout(timeout_s):
                while (frame := self._decoder.next_event()) is None:
                    self._decoder.receive_data(await self._stream.read())
        except TimeoutError:
            raise AnswerTimeoutError(f"the meter did not answer within {timeout_s:g} s") from None
        return frame.apdu

    async def close(self) -> None:
        """End it."""
        await self._stream.close()


class HdlcChannel:
    """HDLC on a stream."""

    def __init__(self, stream: ByteStream, client: HdlcAddress, server: HdlcAddress) -> None:
        self._stream = stream
        self._link = HdlcClientLink(client, server)
        self._answered = False

    async def connect(self) -> None:
        """Set the HDLC connection up.

        Raises:
            LinkLostError: no answer, or the meter refuses.
        """
        self._link.connect()
        while not isinstance(event := await self._event(None), LinkConnected):
            if isinstance(event, LinkDisconnected):
                raise LinkLostError(f"the meter refused the HDLC connection: {event.reason}")

    async def send(self, apdu: bytes) -> None:
        """Send one APDU."""
        self._link.send_apdu(apdu)
        self._answered = False
        await self._flush()

    async def receive(self, timeout_s: float) -> bytes:
        """The next APDU."""
        if self._answered:
            self._link.poll()
        while True:
            event = await self._event(timeout_s)
            if isinstance(event, ApduReceived):
                self._answered = not event.unsolicited
                return event.apdu
            if isinstance(event, LinkDisconnected):
                raise LinkLostError(f"the HDLC connection ended: {event.reason}")

    async def close(self) -> None:
        """Disconnect, and end it."""
        with contextlib.suppress(LinkLostError, DlmsError):
            self._link.disconnect()
            await self._flush()
        await self._stream.close()

    async def _flush(self) -> None:
        if data := self._link.data_to_send():
            await self._stream.write(data)

    async def _event(self, timeout_s: float | None) -> object:
        """The next event of the link, which is repeated to as long as it bears with."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while (event := self._link.next_event()) is None:
            await self._flush()
            try:
                async with asyncio.timeout(_HDLC_REPEAT_S):
                    self._link.receive_data(await self._stream.read())
            except TimeoutError:
                if deadline is not None and loop.time() > deadline:
                    raise AnswerTimeoutError(f"the meter did not answer within {timeout_s:g} s") from None
                self._link.handle_timeout()
        await self._flush()
        return event


async def open_optical(stream: SerialStream, address: str = "") -> HandedOver:
    """Hand an optical port over to HDLC by mode E; the stream is then set as HDLC needs it.

    Raises:
        LinkLostError: no meter answers, or it offers no HDLC.
    """
    opening = ModeEOpening(address)
    opening.start()
    while True:
        while (event := opening.next_event()) is not None:
            if data := opening.data_to_send():
                await stream.write(data)
                await asyncio.sleep(_SPEED_CHANGE_S)
            if isinstance(event, HandedOver):
                return event
            stream.set_line(event)
        if data := opening.data_to_send():
            await stream.write(data)
        try:
            async with asyncio.timeout(_HDLC_REPEAT_S):
                opening.receive_data(await stream.read())
        except TimeoutError:
            opening.handle_timeout()
