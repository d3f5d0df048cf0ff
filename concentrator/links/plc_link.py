"""A PLC network on a serial port, with channels to its meters.

The network object (`plc.network.Network`) holds all protocol, the port shell all I/O. What is here sorts
what comes out: APDUs to the dialogue that waits for them, everything else to `on_event`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from concentrator.links.errors import AnswerTimeoutError, LinkLostError, NotDeliveredError
from concentrator.links.port_shell import RUNNING, PortMaker, PortShell
from concentrator.links.serial_port import SerialPort
from plc.errors import LocalPlcError
from plc.network import (
    ApduNotSent,
    ApduReceived,
    ApduSent,
    Event,
    ModemLost,
    Network,
    NetworkStarted,
    NodeLeft,
)

_ChannelKey = tuple[int, int, int]
# Answers of one meter that nobody has taken yet; more is a meter gone mad, and the oldest go.
_LONGEST_QUEUE = 32


class MeterChannel:
    """An open way to one logical device of one node: APDUs out, APDUs in. Use as a context manager."""

    def __init__(self, link: PlcLink, key: _ChannelKey, *, urgent: bool = False) -> None:
        self.urgent = urgent
        self._link = link
        self._key = key
        self._received: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    @property
    def client_sap(self) -> int:
        """Ours."""
        return self._key[1]

    async def send(self, apdu: bytes) -> None:
        """Send one APDU; returns when the modem has delivered it to the next hop.

        Raises:
            NotDeliveredError, LinkLostError: it did not get there.
        """
        address, client_sap, server_sap = self._key
        await self._link.send(address, client_sap, server_sap, apdu, urgent=self.urgent)

    async def receive(self, timeout_s: float) -> bytes:
        """The next APDU that came.

        Raises:
            AnswerTimeoutError: none came in time.
            LinkLostError: the node or the modem went away.
        """
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._received.get()
        except TimeoutError:
            address, client_sap, _server_sap = self._key
            raise AnswerTimeoutError(
                f"node {address}: no answer to client {client_sap} within {timeout_s:g} s"
            ) from None
        if isinstance(item, Exception):
            raise item
        return item

    def deliver(self, item: bytes | Exception) -> None:
        """Called by the link with what came for this channel."""
        if self._received.qsize() >= _LONGEST_QUEUE:
            self._received.get_nowait()
        self._received.put_nowait(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._link.close_channel(self._key)


class PlcLink:
    """One modem on one port."""

    def __init__(
        self,
        network: Network,
        port: str,
        baud_rate: int,
        on_event: Callable[[Event], None],
        on_progress: Callable[[], None] = lambda: None,
        make_port: PortMaker = SerialPort,
    ) -> None:
        self.network = network
        self.description = ""
        self._on_event = on_event
        self.shell: PortShell[Event] = PortShell(
            "modem", network, port, baud_rate, self._handle, self._port_lost, on_progress, make_port
        )
        self._channels: dict[_ChannelKey, MeterChannel] = {}
        self._sending: dict[int, asyncio.Future[None]] = {}

    @property
    def is_running(self) -> bool:
        """Whether the modem has started its network and takes APDUs."""
        return self.shell.state == RUNNING

    async def run(self) -> None:
        """Keep the port open and the network running, until cancelled."""
        try:
            await self.shell.run()
        finally:
            self._fail_everything("the concentrator is stopping")

    def open_channel(
        self, address: int, client_sap: int, server_sap: int, *, urgent: bool = False
    ) -> MeterChannel:
        """A way to one logical device of a node; while it is `urgent` its APDUs go before those that are not.

        Raises:
            LinkLostError: one is open already: there are never two masters on a meter.
        """
        key = (address, client_sap, server_sap)
        if key in self._channels:
            raise LinkLostError(f"node {address}: another dialogue of client {client_sap} is under way")
        self._channels[key] = channel = MeterChannel(self, key, urgent=urgent)
        return channel

    def close_channel(self, key: _ChannelKey) -> None:
        """Forget a channel; what still comes for it is unsolicited from now on."""
        self._channels.pop(key, None)

    async def send(
        self, address: int, client_sap: int, server_sap: int, apdu: bytes, *, urgent: bool = False
    ) -> None:
        """Send one APDU to a node; returns when the modem has delivered it to the next hop.

        Raises:
            NotDeliveredError, LinkLostError: it did not get there.
        """
        loop = asyncio.get_running_loop()
        if not self.shell.is_open:
            raise LinkLostError(f"node {address}: the modem is not there: {self.shell.reason}")
        try:
            token = self.network.send_apdu(address, client_sap, server_sap, apdu, loop.time(), urgent)
        except LocalPlcError as error:
            raise NotDeliveredError(f"node {address}: {error}") from error
        future: asyncio.Future[None] = loop.create_future()
        self._sending[token] = future
        self.shell.pump()
        try:
            await future
        finally:
            self._sending.pop(token, None)

    def refresh(self) -> None:
        """List the nodes anew."""
        self.network.refresh(asyncio.get_running_loop().time())
        self.shell.pump()

    def _handle(self, event: Event) -> None:
        match event:
            case ApduReceived():
                # A meter answers from its logical device to our client SAP.
                channel = self._channels.get((event.address, event.destination_sap, event.source_sap))
                if channel is not None:
                    channel.deliver(event.apdu)
                    return
            case ApduSent():
                self._finish_sending(event.token, None)
                return
            case ApduNotSent():
                self._finish_sending(event.token, NotDeliveredError(event.reason))
                return
            case NetworkStarted():
                self.description = event.description
                self.shell.works()
            case ModemLost():
                self.shell.set_state("not answering", event.reason)
                self._fail_everything(event.reason)
            case NodeLeft():
                for key, channel in self._channels.items():
                    if key[0] == event.address:
                        channel.deliver(LinkLostError(f"node {event.address} left: {event.reason}"))
            case _:
                pass
        self._on_event(event)

    def _finish_sending(self, token: int, error: Exception | None) -> None:
        future = self._sending.pop(token, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _port_lost(self, reason: str) -> None:
        self._fail_everything(reason)
        self._on_event(ModemLost(reason))

    def _fail_everything(self, reason: str) -> None:
        for token in list(self._sending):
            self._finish_sending(token, LinkLostError(reason))
        for channel in self._channels.values():
            channel.deliver(LinkLostError(reason))
