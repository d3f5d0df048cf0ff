"""Coordinator: drives a G3-PLC coordinator modem whose bootstrap server is its own ("generation B").

The modem runs LBP and EAP-PSK by itself; the host gives it the keys, and answers each join request with a
short address or a refusal. Data travels as IPv6 and UDP, which the host builds. A G3 device tells no serial
text, so nodes join with an empty identity.

G3 nodes do not say that they go. A node to which no route is found several times in a row is told as left; it
is back when a packet of it comes, when it joins anew, or when a route to it is found at the next refresh.

Not here: generation A (bootstrap server on the host), rekeying, groups and multicast.
"""

from plc.errors import LocalPlcError, MessageError
from plc.g3 import commands, enumerations, ib, ipv6
from plc.g3.commands import COMMANDS
from plc.g3.nodes import FIRST_SHORT_ADDRESS, LAST_SHORT_ADDRESS, Node, NodeTable
from plc.g3.steps import (
    COORDINATOR_SHORT_ADDRESS,
    MAX_HOPS,
    adp_get,
    form_network,
    is_refusal,
    mac_get,
    number_of,
    record_of,
    refusal_in_words,
    value_of,
)
from plc.host import LARGEST_APDU_QUEUE, Answer, ModemHost, Request
from plc.network import (
    ApduReceived,
    ApduSent,
    Capabilities,
    LinkQualityReported,
    NetworkStarted,
    NodeDeclined,
    NodeJoined,
    NodeLeft,
    ShortAddressAssigned,
    TopologyChanged,
)
from plc.prime.enumerations import name_of
from plc.usi.framing import EXTENDED_LENGTH_HARMONY, PROTOCOL_ADP_G3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure, Step

KEY_SIZE = 16
# A route discovery may precede the transmission.
DATA_CONFIRM_TIMEOUT_S = 60.0
ROUTE_DISCOVERY_TIMEOUT_S = 30.0
TRANSMIT_ATTEMPTS = 3
FIRST_RETRY_PAUSE_S = 1.0
FULL_BUFFER_PAUSE_S = 5.0
REQUESTS_IN_FLIGHT = 8
REFRESH_INTERVAL_S = 900.0
KEEPALIVE_INTERVAL_S = 60.0
# Route errors in a row, retries included, that tell that a node has gone.
ROUTE_ERRORS_UNTIL_LEFT = 3
# Of the nodes that may be there, so many are looked for at each refresh: a route discovery is a broadcast.
SEARCHES_PER_REFRESH = 4
LARGEST_TABLE_WALK = 2048
# A smaller change of link quality is not told.
LQI_STEP = 10


class _Transmission:
    """One APDU on its way out."""

    __slots__ = ("address", "attempts", "deadline", "handle", "not_before", "packet", "token")

    def __init__(self, token: int, address: int, packet: bytes) -> None:
        self.token = token
        self.address = address
        self.packet = packet
        self.attempts = 0
        self.handle = 0
        self.not_before: float | None = None
        self.deadline = 0.0


class Coordinator(ModemHost):
    """A G3 network behind a coordinator modem.

    `known_addresses` maps the EUI-64 of each device that ever joined to its short address;
    ShortAddressAssigned tells each new one. `allowed` are the EUI-64 that may join, None for all. `eui64` is
    written to a modem that has none. With `reset` the modem is initialised even when its network runs
    already. `psk` and `gmk` of 16 octets are never shown.
    """

    def __init__(
        self,
        pan_id: int,
        psk: bytes,
        gmk: bytes,
        known_addresses: "dict[bytes, int] | None" = None,
        allowed: "set[bytes] | None" = None,
        eui64: bytes = b"",
        server_identity: bytes = b"",
        band: int = enumerations.BAND_CENELEC_A,
        reset: bool = False,
        data_confirm_timeout_s: float = DATA_CONFIRM_TIMEOUT_S,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
    ) -> None:
        if len(psk) != KEY_SIZE or len(gmk) != KEY_SIZE:
            raise LocalPlcError(f"PSK and GMK take {KEY_SIZE} octets, got {len(psk)} and {len(gmk)}")
        if not 0 <= pan_id < 0xFFFF:
            raise LocalPlcError(f"a PAN id is 0x0000 to 0xFFFE, got 0x{pan_id:X}")
        super().__init__(
            PROTOCOL_ADP_G3,
            COMMANDS,
            Capabilities("g3", commands.LARGEST_PACKET - ipv6.OVERHEAD, REQUESTS_IN_FLIGHT, False),
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self.pan_id = pan_id
        self.eui64 = eui64
        self._psk = psk
        self._gmk = gmk
        self._server_identity = server_identity
        self._band = band
        self._reset = reset
        self._data_confirm_timeout_s = data_confirm_timeout_s
        self._allowed = allowed
        self._declined: dict[bytes, bool] = {}
        self._nodes = NodeTable(known_addresses or {})
        self._queue_out: list[_Transmission] = []
        self._in_flight: dict[int, _Transmission] = {}
        self._next_handle = 0
        self._paused_until: float | None = None
        self._told_nodes = False
        for name in (
            "retransmissions",
            "apdus_sent",
            "apdus_received",
            "foreign_packets",
            "declined_joins",
            "route_errors",
            "network_status_indications",
        ):
            self.counters[name] = 0

    # Commands.

    def send_apdu(self, address: int, source_sap: int, destination_sap: int, apdu: bytes, now: float) -> int:
        """Queue an APDU for a node: wrapper, UDP and IPv6 are put around it.

        `source_sap` is our client SAP and `destination_sap` the logical device. Raises LocalPlcError for an
        APDU or SAP that does not fit and for an address that no joined node has.
        """
        if len(apdu) > self.capabilities.largest_apdu:
            raise LocalPlcError(
                f"G3 carries APDUs of at most {self.capabilities.largest_apdu} octets, got {len(apdu)}"
            )
        node = self._nodes.by_address(address)
        if node is None or not node.joined:
            raise LocalPlcError(f"no node has short address 0x{address:04X}")
        if not (0 <= source_sap <= 0xFFFF and 0 <= destination_sap <= 0xFFFF):
            raise LocalPlcError(f"a wrapper port has 16 bits, got {source_sap} and {destination_sap}")
        packet = ipv6.encode_udp(
            ipv6.link_local_address(self.pan_id, COORDINATOR_SHORT_ADDRESS),
            ipv6.link_local_address(self.pan_id, address),
            ipv6.DLMS_PORT,
            ipv6.DLMS_PORT,
            ipv6.encode_wrapper(source_sap, destination_sap, apdu),
        )
        token = self._token()
        if len(self._queue_out) >= LARGEST_APDU_QUEUE:
            self._not_sent(token, "too many APDUs wait", True)
        elif not self._running:
            self._not_sent(token, "the modem is not ready", True)
        else:
            self._queue_out.append(_Transmission(token, address, packet))
            self._advance(now)
        return token

    def expel(self, eui: bytes, now: float) -> None:
        """Kick a node out; it may ask to join again. Raises LocalPlcError when it is not known."""
        node = self._nodes.get(eui)
        if node is None:
            raise LocalPlcError(f"no node has EUI-64 {eui.hex()}")
        self._send(COMMANDS.encode(commands.KICK_REQUEST, short_address=node.address, eui64=eui))
        self._leave(node, "expelled")
        self._advance(now)

    def set_allowed(self, allowed: "set[bytes] | None") -> None:
        """Replace the EUI-64 that may join; None lets all join. Nodes that have joined stay."""
        self._allowed = allowed
        self._declined = {}

    # Procedures.

    def _answers(self, request: Request, message: "Message") -> bool:
        if message.command == commands.STATUS:
            # A refusal, or, for ADP_INITIALIZE, the good news.
            return message.number("refused_command") == request.payload[0]
        return super()._answers(request, message)

    def _network_runs(self) -> "Step":
        pan = yield from mac_get(ib.MAC_PAN_ID, optional=True)
        address = yield from mac_get(ib.MAC_SHORT_ADDRESS, optional=True)
        runs = value_of(pan) == self.pan_id.to_bytes(2, "big") and value_of(
            address
        ) == COORDINATOR_SHORT_ADDRESS.to_bytes(2, "big")
        return Answer(pan.messages if runs else [], runs)

    def _start_up(self) -> "Procedure":
        running = Answer([], False)
        if not self._reset:
            running = yield from self._network_runs()
        if not running.complete:
            failure = yield from form_network(
                self.pan_id, self._band, self.eui64, self._server_identity, self._psk, self._gmk
            )
            if failure.messages:
                self._lose_modem(refusal_in_words(failure.messages[0]), self._now)
                return
        self.eui64 = value_of((yield from mac_get(ib.MAC_EXTENDED_ADDRESS))) or self.eui64
        self._started(self._now)
        description = (
            f"G3-PLC coordinator, PAN 0x{self.pan_id:04X}, band "
            + name_of(enumerations.BANDS, self._band)
            + (", was running" if running.complete else "")
        )
        self._emit(NetworkStarted(self.eui64, description))
        for node in self._nodes.nodes():
            # Devices keep short address and keys over a restart of the coordinator: they need not join anew.
            self._join(node, True)
        yield from self._list_nodes(False)

    def _check_alive(self) -> "Procedure":
        pan = yield from mac_get(ib.MAC_PAN_ID)
        if value_of(pan) != self.pan_id.to_bytes(2, "big"):
            self._lose_modem("the modem restarted: its network is not ours any more", self._now)

    def _read_counters(self) -> "Procedure":
        for attribute in ib.DIAGNOSTIC_MAC_ATTRIBUTES:
            value = value_of((yield from mac_get(attribute, optional=True)))
            if value:
                self.counters[ib.attribute_name("mac", attribute)] = int.from_bytes(value, "big")
        for attribute in ib.DIAGNOSTIC_ADP_ATTRIBUTES:
            value = value_of((yield from adp_get(attribute, optional=True)))
            if value:
                self.counters[ib.attribute_name("adp", attribute)] = int.from_bytes(value, "big")

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        self._refresh_queued = False
        yield from self._check_alive()
        if not self._running:
            return
        qualities: dict[int, int] = {}
        for index in range(LARGEST_TABLE_WALK):
            value = value_of((yield from mac_get(ib.MAC_POS_TABLE, index, True)))
            if not value:
                break
            entry = record_of("mac", ib.MAC_POS_TABLE, value)
            qualities[number_of(entry, "short_address")] = number_of(entry, "lqi")
        routes: dict[int, "dict[str, int | bytes]"] = {}
        routers: dict[int, bool] = {}
        for index in range(LARGEST_TABLE_WALK):
            value = value_of((yield from adp_get(ib.ADP_ROUTING_TABLE, index, True)))
            if not value:
                break
            entry = record_of("adp", ib.ADP_ROUTING_TABLE, value)
            destination = number_of(entry, "destination")
            if destination == commands.DECLINE:
                continue
            routes[destination] = entry
            if number_of(entry, "next_hop") != destination:
                routers[number_of(entry, "next_hop")] = True
        for node in self._nodes.nodes():
            route = routes.get(node.address)
            self._update_link(node, route, qualities.get(node.address), node.address in routers, tell_all)
            if tell_all and node.joined:
                self._emit(NodeJoined(node.eui64, node.address, ""))
        yield from self._search()

    def _search(self) -> "Procedure":
        sought = [node for node in self._nodes.nodes() if not node.joined and node.sought]
        sought.sort(key=lambda node: node.searches)
        for node in sought[:SEARCHES_PER_REFRESH]:
            node.searches += 1
            payload = COMMANDS.encode(
                commands.ROUTE_DISCOVERY_REQUEST, destination=node.address, max_hops=MAX_HOPS
            )
            answer = yield Request(
                payload,
                commands.ROUTE_DISCOVERY_CONFIRM,
                optional=True,
                timeout_s=ROUTE_DISCOVERY_TIMEOUT_S,
                attempts=1,
            )
            if answer.messages and not is_refusal(answer):
                self._join(node, False)

    # Nodes.

    def _update_link(
        self,
        node: Node,
        route: "dict[str, int | bytes] | None",
        quality: int | None,
        is_router: bool,
        tell: bool,
    ) -> None:
        parent: bytes | None = None
        hops = node.hops
        if route is not None:
            hops = ib.hop_count(route)
            next_hop = self._nodes.by_address(number_of(route, "next_hop"))
            if next_hop is not None and next_hop is not node:
                parent = next_hop.eui64
        if quality is None:
            quality = node.quality
        role = "router" if is_router else ""
        moved = (parent, hops, role) != (node.parent, node.hops, node.role)
        node.parent, node.hops, node.role = parent, hops, role
        self._update_quality(node, quality, moved or tell)

    def _update_quality(self, node: Node, quality: int | None, tell: bool) -> None:
        old = node.quality
        if not tell and (quality is None or (old is not None and abs(quality - old) < LQI_STEP)):
            return
        node.quality = quality
        if not tell or node.joined:
            self._emit(
                LinkQualityReported(
                    node.eui64,
                    node.address,
                    parent=node.parent,
                    hops=node.hops,
                    quality=quality,
                    role=node.role,
                )
            )

    def _join(self, node: Node, tell: bool) -> None:
        joined = node.joined
        node.joined = True
        node.sought = False
        node.route_errors = 0
        if tell or not joined:
            self._emit(NodeJoined(node.eui64, node.address, ""))

    def _leave(self, node: Node, reason: str) -> None:
        if not node.joined:
            return
        node.joined = False
        waiting = self._queue_out
        self._queue_out = [entry for entry in waiting if entry.address != node.address]
        for entry in waiting:
            if entry.address == node.address:
                self._not_sent(entry.token, reason, True)
        self._emit(NodeLeft(node.eui64, node.address, reason))

    def _answer_join_request(self, eui64: bytes) -> None:
        address = commands.DECLINE
        if self._allowed is not None and eui64 not in self._allowed:
            self._decline(eui64, "not on the whitelist")
        else:
            node = self._nodes.get(eui64)
            if node is None:
                node = self._nodes.add(eui64)
                if node is None:
                    self._decline(eui64, "all short addresses are given")
                else:
                    self._emit(ShortAddressAssigned(eui64, node.address))
            elif node.joined:
                # It has lost its keys, or its power for long: until it has joined again it cannot be reached.
                self._leave(node, "joins anew")
            if node is not None:
                address = node.address
                # Should the indication that it has joined be lost on the line.
                node.sought = True
        self._send(COMMANDS.encode(commands.SHORT_ADDRESS_ASSIGN, eui64=eui64, short_address=address))

    def _decline(self, eui64: bytes, reason: str) -> None:
        self.counters["declined_joins"] += 1
        if eui64 not in self._declined and len(self._declined) < LAST_SHORT_ADDRESS:
            self._declined[eui64] = True
            self._emit(NodeDeclined(eui64, reason))

    def _complete_join(self, eui64: bytes, address: int) -> None:
        if not FIRST_SHORT_ADDRESS <= address <= LAST_SHORT_ADDRESS:
            return
        node = self._nodes.get(eui64)
        if node is None or node.address != address:
            # The modem knows better: it told the device.
            holder = self._nodes.by_address(address)
            for old in (node, holder):
                if old is not None:
                    self._leave(old, "its short address was given to another node")
                    self._nodes.remove(old)
            node = self._nodes.put(eui64, address)
            self._emit(ShortAddressAssigned(eui64, address))
        self._join(node, True)
        self._emit(TopologyChanged(eui64, f"joined with short address 0x{address:04X}"))

    # Messages.

    def _handle_message(self, message: "Message", now: float) -> None:
        command = message.command
        if command == commands.DATA_INDICATION:
            self._receive_packet(message.octets("packet"), message.number("link_quality"))
        elif command == commands.DATA_CONFIRM:
            self._confirm_data(message.number("handle"), message.number("status"), now)
        elif command == commands.JOIN_REQUEST_INDICATION:
            self._answer_join_request(message.octets("eui64"))
        elif command == commands.JOIN_COMPLETE_INDICATION:
            self._complete_join(message.octets("eui64"), message.number("short_address"))
        elif command == commands.LEAVE_INDICATION:
            node = self._nodes.by_address(message.number("short_address"))
            if node is not None:
                node.sought = False
                self._leave(node, "left the network")
        elif command == commands.BUFFER_INDICATION:
            full = message.number("full_buffers") != 0
            self._paused_until = now + FULL_BUFFER_PAUSE_S if full else None
        elif command == commands.NETWORK_STATUS_INDICATION:
            self.counters["network_status_indications"] += 1
        elif command == commands.STATUS:
            self._status(message.number("status"), message.number("refused_command"), now)
        elif ".confirm" in message.name:
            self.counters["unexpected_confirms"] += 1

    def _status(self, status: int, command: int, now: float) -> None:
        if status == enumerations.SERIAL_SUCCESS or not self._running:
            self.counters["unexpected_confirms"] += 1
        elif command == commands.DATA_REQUEST and status == enumerations.SERIAL_NOT_ALLOWED:
            self._lose_modem("the modem restarted: it is not initialised", now)

    def _receive_packet(self, packet: bytes, link_quality: int) -> None:
        try:
            source, _, _, destination_port, data = ipv6.decode_udp(packet)
            if destination_port != ipv6.DLMS_PORT:
                raise MessageError(f"UDP port {destination_port} is not ours")
            wrapped = ipv6.decode_wrapper(data)
        except MessageError:
            self.counters["foreign_packets"] += 1
            return
        address = ipv6.short_address_of(source, self.pan_id)
        node = (
            self._nodes.by_address(address) if address is not None else self._nodes.get(ipv6.eui64_of(source))
        )
        if node is None:
            self.counters["foreign_packets"] += 1
            return
        if not node.joined:
            self._join(node, False)
        node.route_errors = 0
        self._update_quality(node, link_quality, False)
        for server_sap, client_sap, apdu in wrapped:
            self.counters["apdus_received"] += 1
            self._emit(ApduReceived(node.address, server_sap, client_sap, apdu))

    # The data path: several requests in flight, one for each node.

    def _send_apdus(self, now: float) -> None:
        if not self._running or self._paused_until is not None:
            return
        blocked = [entry.address for entry in self._in_flight.values()]
        index = 0
        while index < len(self._queue_out) and len(self._in_flight) < REQUESTS_IN_FLIGHT:
            entry = self._queue_out[index]
            if entry.not_before is None and entry.address not in blocked:
                self._queue_out.pop(index)
                self._transmit(entry, now)
            else:
                index += 1
            blocked.append(entry.address)

    def _transmit(self, entry: _Transmission, now: float) -> None:
        while self._next_handle in self._in_flight:
            self._next_handle = (self._next_handle + 1) & 0xFF
        entry.handle = self._next_handle
        self._next_handle = (self._next_handle + 1) & 0xFF
        entry.attempts += 1
        entry.not_before = None
        entry.deadline = now + self._data_confirm_timeout_s
        self._in_flight[entry.handle] = entry
        self._send(
            COMMANDS.encode(
                commands.DATA_REQUEST,
                handle=entry.handle,
                discover_route=1,
                quality_of_service=0,
                packet=entry.packet,
            )
        )

    def _confirm_data(self, handle: int, status: int, now: float) -> None:
        entry = self._in_flight.pop(handle, None)
        if entry is None:
            self.counters["unexpected_confirms"] += 1
            return
        node = self._nodes.by_address(entry.address)
        if status == enumerations.ADP_SUCCESS:
            self.counters["apdus_sent"] += 1
            if node is not None:
                node.route_errors = 0
            self._emit(ApduSent(entry.token))
            return
        reason = "ADP status " + name_of(enumerations.ADP_STATUSES, status)
        transient = status in enumerations.TRANSIENT_ADP_STATUSES
        if status == enumerations.ADP_ROUTE_ERROR:
            self.counters["route_errors"] += 1
            if node is not None:
                node.route_errors += 1
        gone = node is not None and node.route_errors >= ROUTE_ERRORS_UNTIL_LEFT
        if transient and not gone and entry.attempts < TRANSMIT_ATTEMPTS:
            self.counters["retransmissions"] += 1
            entry.not_before = now + FIRST_RETRY_PAUSE_S * (1 << (entry.attempts - 1))
            self._queue_out.insert(0, entry)
            return
        self._not_sent(entry.token, reason, transient)
        if node is not None and gone:
            self._leave(node, "no route to it was found")
            node.sought = True

    def _data_timeout(self) -> float | None:
        nearest = self._paused_until if self._queue_out else None
        for entry in self._in_flight.values():
            if nearest is None or entry.deadline < nearest:
                nearest = entry.deadline
        for entry in self._queue_out:
            due = entry.not_before
            if due is not None and (nearest is None or due < nearest):
                nearest = due
        return nearest

    def _handle_data_timeout(self, now: float) -> None:
        # What may go but cannot yet waits for a confirm, and no longer for a time.
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
        for entry in self._queue_out:
            if entry.not_before is not None and now >= entry.not_before:
                entry.not_before = None
        late = [entry for entry in self._in_flight.values() if now >= entry.deadline]
        for entry in late:
            self._in_flight.pop(entry.handle)
            self.counters["missing_confirms"] += 1
            self._not_sent(entry.token, "the modem did not confirm it", True)
        if late and self._procedure is None and not self._procedures:
            self._queue(self._check_alive())

    def _abandon_data(self, reason: str, now: float) -> None:  # noqa: ARG002 a hook
        unsent = list(self._in_flight.values()) + self._queue_out
        self._in_flight = {}
        self._queue_out = []
        self._paused_until = None
        for entry in unsent:
            self._not_sent(entry.token, reason, True)
