"""What simulated G3-PLC coordinator modems of both generations have in common: all but the bootstrapping.

Speaks USI and the ADP serial interface of Microchip's smartenergy_g3 octet for octet. Devices join along the
feeder: one that has joined serves those behind it as bootstrap agent. They keep short address and keys over
restarts of the modem, and are reachable at once when PAN and GMK are the same again.

G3's MAC repeats a frame three times on each hop; what still fails ends in a route error downwards and in silence
upwards. Which nodes are spoken to by radio is told in tables and paths; their airtime is that of the power line.
Not modelled: 6LoWPAN on the air (only its airtime), broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import G3_CENELEC_A_PHY, Feeder
from concentrator.simulator.g3_tables import G3Node, G3Tables
from concentrator.simulator.scheduler import Scheduler
from concentrator.simulator.simulated_modem import SimulatedModem
from plc.commands import Message
from plc.errors import MessageError
from plc.g3 import commands, enumerations, ib, ipv6
from plc.g3.commands import COMMANDS
from plc.usi.framing import PROTOCOL_ADP_G3, FrameDecoder, encode_frame

_PROCESSING_S = 0.001
INITIALIZE_S = 0.5
_NETWORK_START_S = 2.0
RETRY_JOIN_S = 20.0
DECLINED_PAUSE_S = 300.0
# A device that was away for longer has forgotten its network: assumption.
_REMEMBERS_S = 3600.0
_LARGEST_IN_FLIGHT = 16
_IPV6_COMPRESSION = 40  # octets of headers that IPHC saves; assumption


class G3ModemBase(SimulatedModem):
    """The modem and its network. Hand octets from the host to receive_data(); set `output` to get its own."""

    _FIRST_COMMANDS: tuple[int, ...] = (commands.INITIALIZE_REQUEST,)  # before it is initialised

    def __init__(
        self,
        devices: Sequence[Device],
        scheduler: Scheduler,
        feeder: Feeder | None = None,
        seed: int = 1,
        output: Callable[[bytes], None] | None = None,
        eui64: bytes = bytes(8),
        join_spread_s: float = 120.0,
    ) -> None:
        feeder = feeder or Feeder(len(devices), seed, G3_CENELEC_A_PHY)
        super().__init__("g3 modem", scheduler, feeder, seed, output, join_spread_s)
        self._eui64 = eui64
        self._decoder = FrameDecoder()
        self._nodes = [
            G3Node(device, place) for device, place in zip(devices, self.feeder.nodes, strict=True)
        ]
        self._by_place = {node.place.index: node for node in self._nodes}
        self._powered = False  # start() was called
        self._handlers = self._own_handlers()
        self._forget()

    def _forget(self) -> None:
        self._epoch += 1
        self._decoder.reset()
        self._initialized = False
        self._pan_id: int | None = None
        self._adp: dict[tuple[int, int], bytes] = {}
        self._mac: dict[tuple[int, int], bytes] = {}
        self._gmk = b""  # the group key that is in use
        self._in_flight = 0
        for node in self._nodes:
            node.bootstrapping = False
            node.routed = False

    # What tests and the demo use.

    def start(self) -> None:
        """Power the feeder: devices look for a network, one after the other, within `join_spread_s`."""
        self._powered = True
        for node in self._nodes:
            node.heard = True
            node.visit += 1
            self._plan_drop(node)
            self._seek(node, self._draws.uniform(0.0, self._join_spread_s))

    def restart(self) -> None:
        """Lose power for a moment: the modem is not initialised any more, and no message tells."""
        self._forget()

    def joined_euis(self) -> set[bytes]:
        """EUI-64 of every device that is a member of the running network and has power."""
        return {node.device.eui64 for node in self._nodes if self._is_member(node) and node.heard}

    def drop(self, eui64: bytes, duration_s: float | None = None) -> None:
        """Make a device unreachable; it comes back after the duration, or not at all when None."""
        self._go(self._find(eui64), duration_s)

    def leave(self, eui64: bytes) -> None:
        """Let a device leave the network on its own, for good."""
        node = self._find(eui64)
        address = node.short_address
        if address is None or not self._is_member(node):
            return
        node.membership = None
        node.visit += 1
        node.device.link_lost()
        self._send(commands.LEAVE_INDICATION, short_address=address)

    def receive_data(self, data: bytes) -> None:
        """Take octets from the host."""
        self._decoder.receive_data(data)
        while (frame := self._decoder.next_frame()) is not None:
            protocol, payload = frame
            if protocol == PROTOCOL_ADP_G3:
                self.after(_PROCESSING_S, lambda payload=payload: self._process(payload))

    def _send(self, command: int, **values: int | bytes | None) -> None:
        self.write(encode_frame(PROTOCOL_ADP_G3, COMMANDS.encode(command, **values)))

    # The life of a device.

    def _find(self, eui64: bytes) -> G3Node:
        return next(node for node in self._nodes if node.device.eui64 == eui64)

    def _is_member(self, node: G3Node) -> bool:
        """Whether a device is in the running network and has its key."""
        raise NotImplementedError

    def _ask_to_join(self, node: G3Node, visit: int) -> None:
        """Let a device ask for admission, unless it has moved on since `visit`."""
        raise NotImplementedError

    def _reachable(self, node: G3Node) -> bool:
        path = [self._by_place[place.index] for place in node.place.path()]
        return all(hop.heard and self._is_member(hop) for hop in path)

    def _plan_drop(self, node: G3Node) -> None:
        delay_s = self.feeder.time_until_drop_s(node.place, self.now())
        if delay_s is None or not node.heard:
            return
        visit = node.visit

        def drop() -> None:
            if node.visit == visit:
                self._go(node, self.feeder.outage_s(node.place, self.now()))

        # Not bound to the modem's life, as the device has its own power.
        self._scheduler.call_later(delay_s, drop)

    def _go(self, node: G3Node, duration_s: float | None) -> None:
        if not node.heard:
            return
        self.counters.drops += 1
        node.heard = False
        node.bootstrapping = False
        node.visit += 1
        node.gone_at = self.now()
        visit = node.visit
        node.device.link_lost()
        if duration_s is not None:
            self._scheduler.call_later(
                duration_s, lambda: self._return(node) if node.visit == visit else None
            )

    def _return(self, node: G3Node) -> None:
        node.heard = True
        node.visit += 1
        if self.now() - node.gone_at > _REMEMBERS_S:
            node.membership = None
        self._plan_drop(node)
        self._seek(node, 1.0)

    def _seek(self, node: G3Node, delay_s: float) -> None:
        visit = node.visit
        self.later(delay_s, lambda: self._ask_to_join(node, visit))

    # Requests of the host.

    def _process(self, payload: bytes) -> None:
        try:
            message = COMMANDS.decode(payload)
        except MessageError:
            if payload:
                self._refuse(enumerations.SERIAL_INVALID_PARAMETER, payload[0])
            return
        handler = self._handlers.get(message.command)
        if handler is None:
            self._refuse(enumerations.SERIAL_UNKNOWN_COMMAND, message.command)
        elif not self._initialized and message.command not in self._FIRST_COMMANDS:
            self._refuse(enumerations.SERIAL_NOT_ALLOWED, message.command)
        else:
            handler(message)

    def _refuse(self, status: int, command: int) -> None:
        self.counters.refused_commands += 1
        self._send(commands.STATUS, status=status, refused_command=command)

    def _initialize(self, then: Callable[[], None]) -> None:
        """Forget everything, and be ready a moment later."""
        self._forget()

        def ready() -> None:
            self._initialized = True
            self._mac[(ib.MAC_EXTENDED_ADDRESS, 0)] = self._eui64
            self._mac[(ib.MAC_PAN_ID, 0)] = b"\xff\xff"
            self._mac[(ib.MAC_SHORT_ADDRESS, 0)] = b"\xff\xff"
            self._adp[(ib.ADP_SOFT_VERSION, 0)] = bytes.fromhex("010203040506")
            self._adp[(ib.ADP_MANUFACTURER_VERSION, 0)] = bytes.fromhex("010203040506")
            then()

        self.after(INITIALIZE_S / self.feeder.speed, ready)

    def _reset(self, message: Message) -> None:  # noqa: ARG002 one signature for all handlers
        self._forget()
        self._send(commands.RESET_CONFIRM, status=enumerations.ADP_SUCCESS)

    def _start_network(self, message: Message) -> None:
        pan_id = message.number("pan_id")

        def started() -> None:
            self._pan_id = pan_id
            self._mac[(ib.MAC_PAN_ID, 0)] = pan_id.to_bytes(2, "big")
            self._send(commands.NETWORK_START_CONFIRM, status=enumerations.ADP_SUCCESS)
            for node in self._nodes:
                if self._powered and not self._is_member(node):
                    self._seek(node, self._draws.uniform(0.0, self._join_spread_s))

        self.later(_NETWORK_START_S, started)

    def _adp_set(self, message: Message) -> None:
        attribute, index = message.number("attribute"), message.number("index")
        self._adp[(attribute, index)] = message.octets("value")
        self._send(commands.SET_CONFIRM, status=0, attribute=attribute, index=index)

    def _mac_set(self, message: Message) -> None:
        attribute, index = message.number("attribute"), message.number("index")
        if attribute == ib.MAC_EXTENDED_ADDRESS:
            self._eui64 = message.octets("value")
        self._mac[(attribute, index)] = message.octets("value")
        self._send(commands.MAC_SET_CONFIRM, mac_status=0, attribute=attribute, index=index)

    def _adp_get(self, message: Message) -> None:
        attribute, index = message.number("attribute"), message.number("index")
        if attribute == ib.ADP_ROUTING_TABLE:
            value = self._table_entry(index, self._tables().routes())
            status = enumerations.ADP_BAD_INDEX
        else:
            value = self._adp.get((attribute, index))
            known = any(row[0] == attribute for row in ib.ADP_ATTRIBUTES)
            if value is None and attribute in ib.DIAGNOSTIC_ADP_ATTRIBUTES:
                value = bytes(4)
            status = enumerations.ADP_BAD_INDEX if known else 0xB1
        self._send(
            commands.GET_CONFIRM,
            status=status if value is None else 0,
            attribute=attribute,
            index=index,
            value=value,
        )

    def _mac_get(self, message: Message) -> None:
        attribute, index = message.number("attribute"), message.number("index")
        status = enumerations.MAC_BAD_INDEX
        entries = self._tables().mac(attribute)
        if entries is not None:
            value = self._table_entry(index, entries)
        else:
            value = self._mac.get((attribute, index))
            if value is None and attribute in ib.DIAGNOSTIC_MAC_ATTRIBUTES:
                value = self.counters.apdus_down.to_bytes(4, "big")
            if not any(row[0] == attribute for row in ib.MAC_ATTRIBUTES):
                status = 0xF4
        self._send(
            commands.MAC_GET_CONFIRM,
            mac_status=status if value is None else 0,
            attribute=attribute,
            index=index,
            value=value,
        )

    @staticmethod
    def _table_entry(index: int, entries: list[bytes]) -> bytes | None:
        return entries[index] if index < len(entries) else None

    def _tables(self) -> G3Tables:
        """The tables as they are now."""
        members = [node for node in self._nodes if self._is_member(node)]
        return G3Tables(members, self._by_place, self.feeder, self.now())

    def _member(self, address: int) -> G3Node | None:
        nodes = [node for node in self._nodes if node.short_address == address and self._is_member(node)]
        return nodes[0] if nodes else None

    def _discover_route(self, message: Message) -> None:
        node = self._member(message.number("destination"))
        found = node is not None and self._reachable(node)
        if node is not None:
            node.routed = found
        status = enumerations.ADP_SUCCESS if found else enumerations.ADP_ROUTE_ERROR
        delay_s = 1.0 if found else 8.0
        self.later(delay_s, lambda: self._send(commands.ROUTE_DISCOVERY_CONFIRM, status=status))

    def _discover_path(self, message: Message) -> None:
        destination = message.number("destination")
        node = self._member(destination)
        hops: list[bytes] = []
        if node is not None and self._reachable(node):
            for place in node.place.path():
                address = self._by_place[place.index].short_address or 0
                media = self._by_place[place.index].media
                hops.append(address.to_bytes(2, "big") + bytes([0, 20, 0, media, media]))
        found = bool(hops)
        self.later(
            1.0,
            lambda: self._send(
                commands.PATH_DISCOVERY_CONFIRM,
                status=enumerations.ADP_SUCCESS if found else enumerations.ADP_ROUTE_ERROR,
                destination=destination,
                originator=0,
                metric_type=message.number("metric_type"),
                forward_count=len(hops),
                reverse_count=len(hops),
                hops=b"".join(hops + hops[::-1]),
            ),
        )

    def _discover_networks(self, message: Message) -> None:
        """Nobody else is on this feeder, but our own routers answer a beacon request."""
        routers = [node for node in self._tables().near() if node.short_address is not None]
        for node in routers[:1]:
            self._send(
                commands.DISCOVERY_INDICATION,
                pan_id=self._pan_id or 0,
                link_quality=self.feeder.link_quality(node.place, self.now()),
                lba=node.short_address,
                rc_coord=20,
                media=node.media,
            )
        self.later(
            message.number("duration_s"),
            lambda: self._send(commands.DISCOVERY_CONFIRM, status=enumerations.ADP_SUCCESS),
        )

    # The data path.

    def _data(self, message: Message) -> None:
        handle = message.number("handle")

        def confirm(status: int) -> None:
            self._send(commands.DATA_CONFIRM, status=status, handle=handle)

        def done(status: int) -> None:
            if self._in_flight == _LARGEST_IN_FLIGHT:
                self._send(commands.BUFFER_INDICATION, full_buffers=0)
            self._in_flight -= 1
            confirm(status)

        if self._pan_id is None:
            self._refuse(enumerations.SERIAL_NOT_ALLOWED, message.command)
            return
        if self._in_flight >= _LARGEST_IN_FLIGHT:
            confirm(0xB4)
            return
        packet = message.octets("packet")
        try:
            _, destination, _, port, data = ipv6.decode_udp(packet)
            wrapped = ipv6.decode_wrapper(data) if port == ipv6.DLMS_PORT else []
        except MessageError:
            confirm(0xA3)
            return
        address = ipv6.short_address_of(destination, self._pan_id)
        node = None if address is None else self._member(address)
        self._in_flight += 1
        if self._in_flight == _LARGEST_IN_FLIGHT:
            self._send(commands.BUFFER_INDICATION, full_buffers=1)
        self.counters.apdus_down += 1
        now = self.now()
        octets = max(1, len(packet) - _IPV6_COMPRESSION)
        if node is None or not self._reachable(node):
            # A route discovery in vain.
            self.counters.apdus_lost_down += 1
            if node is not None:
                node.routed = False
            self.later(8.0, lambda: done(enumerations.ADP_ROUTE_ERROR))
            return
        transfer = self.feeder.transfer(node.place, octets, now)
        delay_s = transfer.duration_s if node.routed else transfer.duration_s + 0.5 / self.feeder.speed
        if not transfer.delivered:
            self.counters.apdus_lost_down += 1
            node.routed = False
            self.after(delay_s, lambda: done(enumerations.ADP_ROUTE_ERROR))
            return

        def arrive() -> None:
            node.routed = True
            done(enumerations.ADP_SUCCESS)
            for client_sap, server_sap, apdu in wrapped:
                self._deliver(node, client_sap, server_sap, apdu)

        self.after(delay_s, arrive)

    def _deliver(self, node: G3Node, client_sap: int, server_sap: int, apdu: bytes) -> None:
        visit, epoch = node.visit, self._epoch

        def reply(answer: bytes) -> None:
            if node.visit == visit and epoch == self._epoch:
                self._send_up(node, client_sap, server_sap, answer)

        node.device.receive_apdu(client_sap, server_sap, apdu, reply)

    def _send_up(self, node: G3Node, client_sap: int, server_sap: int, apdu: bytes) -> None:
        address = node.short_address
        if address is None or self._pan_id is None or not self._reachable(node):
            self.counters.apdus_lost_up += 1
            return
        packet = ipv6.encode_udp(
            ipv6.link_local_address(self._pan_id, address),
            ipv6.link_local_address(self._pan_id, 0),
            ipv6.DLMS_PORT,
            ipv6.DLMS_PORT,
            ipv6.encode_wrapper(server_sap, client_sap, apdu),
        )
        now = self.now()
        transfer = self.feeder.transfer(node.place, len(packet) - _IPV6_COMPRESSION, now)
        if not transfer.delivered or len(packet) > commands.LARGEST_PACKET:
            self.counters.apdus_lost_up += 1
            return
        quality = self.feeder.link_quality(node.place.path()[0], now)

        def arrive() -> None:
            self.counters.apdus_up += 1
            self._send(commands.DATA_INDICATION, link_quality=quality, packet=packet)

        self.after(transfer.duration_s, arrive)

    def push_apdu(self, eui64: bytes, client_sap: int, server_sap: int, apdu: bytes) -> None:
        """Let a meter send on its own: a data notification."""
        self._send_up(self._find(eui64), client_sap, server_sap, apdu)

    def _own_handlers(self) -> dict[int, Callable[[Message], None]]:
        return {
            commands.RESET_REQUEST: self._reset,
            commands.NETWORK_START_REQUEST: self._start_network,
            commands.SET_REQUEST: self._adp_set,
            commands.GET_REQUEST: self._adp_get,
            commands.MAC_SET_REQUEST: self._mac_set,
            commands.MAC_GET_REQUEST: self._mac_get,
            commands.ROUTE_DISCOVERY_REQUEST: self._discover_route,
            commands.PATH_DISCOVERY_REQUEST: self._discover_path,
            commands.DISCOVERY_REQUEST: self._discover_networks,
            commands.DATA_REQUEST: self._data,
        }
