"""The nodes behind a simulated PRIME base node, and how they answer management queries (PPROF).

A query and its answer cross the feeder like any other data; a node that does not hear it never answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import Feeder, FeederNode
from concentrator.simulator.simulated_modem import ModemCounters
from plc.commands import Message
from plc.errors import MessageError
from plc.prime import commands, mngp, pib

VENDOR = b"ODC"
MODEL = b"SIM"
_LIST_AVAILABLE_SWITCHES = 0x0056
_RX_DATA_PACKETS = 0x0041
_REBOOT_S = 15.0
_HALF_PERIOD_US = 10_000


@dataclass(slots=True)
class PrimeNode:
    """A meter at its place on the feeder."""

    device: Device
    place: FeederNode
    heard: bool = False  # it has power and can hear its parent
    lnid: int = 0
    sid: int = 0
    lsid: int = 0xFF
    registered: bool = False
    switch: bool = False
    address: int | None = None  # of its open 4-32 connection
    version: bytes = b"1.0.0"  # of the firmware that it runs
    attributes: dict[int, bytes] = field(default_factory=dict[int, bytes])  # what the host has set
    answered: int = 0  # management queries, told as its count of received packets
    visit: int = 0  # counts changes of state, so that callbacks of an earlier state do nothing

    @property
    def connected(self) -> bool:
        """Whether its 4-32 connection is open."""
        return self.address is not None


class Base(Protocol):
    """What is needed of the modem."""

    feeder: Feeder
    eui48: bytes
    counters: ModemCounters

    @property
    def nodes(self) -> Sequence[PrimeNode]:
        """All nodes."""
        ...

    def now(self) -> float:
        """Seconds."""
        ...

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back, unless the modem restarts before."""
        ...

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after a pause of the protocol, which the feeder's speed divides."""
        ...

    def send(self, command: int, **values: int | bytes | None) -> None:
        """Send a message to the host."""
        ...

    def reachable(self, node: PrimeNode) -> bool:
        """Whether a node and all before it hear."""
        ...

    def disappear(self, node: PrimeNode, duration_s: float) -> None:
        """Make a node restart: it is away for a while."""
        ...


class RemoteNodes:
    """PPROF: queries of the host that its nodes answer."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def handlers(self) -> dict[int, Callable[[Message], None]]:
        """The commands that end here."""
        return {
            commands.PPROF_GET_REQUEST: self._get,
            commands.PPROF_ENHANCED_GET_REQUEST: self._get_list,
            commands.PPROF_SET_REQUEST: self._set,
            commands.PPROF_RESET_STATISTICS_REQUEST: self._reset_statistics,
            commands.PPROF_REBOOT_REQUEST: self._reboot,
            commands.PPROF_ZERO_CROSS_DIFFERENCE_REQUEST: self._zero_cross,
        }

    def _command(self, message: Message, then: Callable[[PrimeNode], None]) -> None:
        """A command without an answer of the node: the modem acknowledges, and sends it over the feeder."""
        base, eui48 = self._base, message.octets("eui48")
        nodes = [node for node in base.nodes if node.device.eui48 == eui48 and node.registered]
        base.send(commands.PPROF_ACK, echoed_command=message.command, ack=0 if nodes else 1)
        for node in nodes:
            octets = message.octets("data") if "data" in message.values else b""
            down = base.feeder.transfer(node.place, len(octets) + 2, base.now())
            if down.delivered and base.reachable(node):
                base.after(down.duration_s, lambda node=node: then(node))

    def _set(self, message: Message) -> None:
        def apply(node: PrimeNode) -> None:
            try:
                attribute, value = mngp.decode_set(message.octets("data"))
            except MessageError:
                return
            node.attributes[attribute] = value

        self._command(message, apply)

    def _reset_statistics(self, message: Message) -> None:
        def apply(node: PrimeNode) -> None:
            node.answered = 0

        self._command(message, apply)

    def _reboot(self, message: Message) -> None:
        self._command(message, lambda node: self._base.disappear(node, _REBOOT_S))

    def _zero_cross(self, message: Message) -> None:
        base = self._base

        def answer(node: PrimeNode) -> None:
            up = base.feeder.transfer(node.place, 8, base.now())
            if up.delivered and base.reachable(node):
                base.after(
                    up.duration_s,
                    lambda: base.send(
                        commands.PPROF_ZERO_CROSS_DIFFERENCE_RESPONSE,
                        eui48=node.device.eui48,
                        frequency_time=_HALF_PERIOD_US,
                        # One of three phases: a sixth of a period is a third of a half one.
                        difference_time=(node.place.index % 3) * _HALF_PERIOD_US // 3,
                    ),
                )

        self._command(message, answer)

    def _get(self, message: Message) -> None:
        self._carry(
            message,
            commands.PPROF_GET_REQUEST,
            commands.PPROF_GET_RESPONSE,
            self._attributes,
            mngp.decode_get_query,
        )

    def _get_list(self, message: Message) -> None:
        # The real modem echoes the id of the response here.
        self._carry(
            message,
            commands.PPROF_ENHANCED_GET_RESPONSE,
            commands.PPROF_ENHANCED_GET_RESPONSE,
            self._list,
            mngp.decode_list_query,
        )

    def _carry(
        self,
        message: Message,
        echoed: int,
        response: int,
        answer: Callable[[PrimeNode, bytes], bytes],
        check: Callable[[bytes], object],
    ) -> None:
        base, eui48, body = self._base, message.octets("eui48"), message.octets("data")
        nodes = [node for node in base.nodes if node.device.eui48 == eui48 and node.registered]
        try:
            check(body)
        except MessageError:
            nodes = []
        base.send(commands.PPROF_ACK, echoed_command=echoed, ack=0 if nodes else 1)
        if not nodes:
            return
        node = nodes[0]
        down = base.feeder.transfer(node.place, len(body), base.now())
        if not down.delivered or not base.reachable(node):
            return

        def arrive() -> None:
            octets = answer(node, body)
            up = base.feeder.transfer(node.place, len(octets), base.now())
            if up.delivered and base.reachable(node):
                base.after(up.duration_s, lambda: base.send(response, eui48=eui48, data=octets))

        base.after(down.duration_s, arrive)

    def _attributes(self, node: PrimeNode, body: bytes) -> bytes:
        node.answered += 1
        values = {
            pib.MAC_EUI48: node.device.eui48,
            0x0020: node.lnid.to_bytes(2, "big"),
            0x0021: bytes([node.lsid]),
            0x0022: bytes([node.sid]),
            0x0026: bytes([node.place.level]),
            0x0075: node.version[:16].ljust(16, b"\x00"),
            0x0076: VENDOR[:2],
            0x0077: MODEL[:2],
            _RX_DATA_PACKETS: node.answered.to_bytes(4, "big"),
            **node.attributes,
        }
        found: list[tuple[int, int, bytes]] = []
        for attribute, index in mngp.decode_get_query(body):
            value = values.get(attribute)
            if value is not None:
                found.append((attribute, index, value))
            elif attribute in pib.DIAGNOSTIC_ATTRIBUTES:
                found.append((attribute, index, bytes(pib.attribute_size(attribute))))
        return mngp.encode_get_response(found)

    def _list(self, node: PrimeNode, body: bytes) -> bytes:
        attribute, most, iterator = mngp.decode_list_query(body)
        base = self._base
        records: list[bytes] = []
        if attribute == _LIST_AVAILABLE_SWITCHES:
            near = [other for other in base.nodes if other.switch and other is not node]
            records = [
                pib.encode_record(
                    attribute,
                    sna=base.eui48,
                    lsid=other.lsid,
                    level=other.place.level + 1,
                    rx_level=8,
                    rx_snr=5,
                )
                for other in sorted(near, key=lambda other: other.lsid)
            ]
        numbered = list(enumerate(records, 1))[iterator : iterator + most]
        return mngp.encode_list_response(attribute, numbered)
