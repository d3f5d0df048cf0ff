"""The data path of a G3 coordinator: APDUs in the DLMS wrapper, UDP and IPv6, several requests in flight.

One request is in flight for each node. ADPD_DATA.confirm tells of the delivery to the next hop, or that no route
was found; a node to which none is found several times in a row has left.
"""

from plc.errors import LocalPlcError, MessageError
from plc.g3 import commands, enumerations, ipv6
from plc.g3.commands import COMMANDS
from plc.g3.nodes import Node, NodeTable
from plc.g3.steps import COORDINATOR_SHORT_ADDRESS
from plc.host import ModemHost
from plc.network import ApduReceived, ApduSent, Capabilities, LinkQualityReported
from plc.outgoing import Outgoing, place_of
from plc.prime.enumerations import name_of
from plc.usi.framing import EXTENDED_LENGTH_HARMONY, PROTOCOL_ADP_G3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.host import Procedure

# A route discovery may precede the transmission.
DATA_CONFIRM_TIMEOUT_S = 60.0
TRANSMIT_ATTEMPTS = 3
FIRST_RETRY_PAUSE_S = 1.0
FULL_BUFFER_PAUSE_S = 5.0
REQUESTS_IN_FLIGHT = 8
# Route errors in a row, retries included, that tell that a node has gone.
ROUTE_ERRORS_UNTIL_LEFT = 3
# A smaller change of link quality is not told.
LQI_STEP = 10


class _Transmission(Outgoing):
    """One APDU on its way out."""

    def __init__(self, token: int, address: int, urgent: bool, packet: bytes) -> None:
        super().__init__(token, address, urgent)
        self.packet = packet
        self.handle = 0
        self.deadline = 0.0


class DataPath(ModemHost):
    """The half of a coordinator that carries APDUs. Subclasses fill in the hooks at the end."""

    def __init__(
        self,
        pan_id: int,
        known_addresses: "dict[bytes, int]",
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
    ) -> None:
        super().__init__(
            PROTOCOL_ADP_G3,
            COMMANDS,
            Capabilities(
                "g3",
                commands.LARGEST_PACKET - ipv6.OVERHEAD,
                REQUESTS_IN_FLIGHT,
                False,
                ("group_key_rotation",),
            ),
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self.pan_id = pan_id
        self._data_confirm_timeout_s = data_confirm_timeout_s
        self._nodes = NodeTable(known_addresses)
        self._queue_out: list[_Transmission] = []
        self._in_flight: dict[int, _Transmission] = {}
        self._next_handle = 0
        self._paused_until: float | None = None
        for name in ("retransmissions", "apdus_sent", "apdus_received", "foreign_packets", "route_errors"):
            self.counters[name] = 0

    def _network_size(self) -> int:
        return len(self._nodes)

    def send_apdu(
        self,
        address: int,
        source_sap: int,
        destination_sap: int,
        apdu: bytes,
        now: float,
        urgent: bool = False,
    ) -> int:
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
        if self._may_wait(token, len(self._queue_out)):
            self._queue_out.insert(
                place_of(self._queue_out, urgent), _Transmission(token, address, urgent, packet)
            )
            self._advance(now)
        return token

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
                    reverse_quality=node.reverse_quality,
                    modulation=node.modulation,
                    media=node.media,
                )
            )

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

    def _pause(self, full: bool, now: float) -> None:
        """The modem's buffers are full, or no longer so."""
        self._paused_until = now + FULL_BUFFER_PAUSE_S if full else None

    def _fail_waiting(self, address: int, reason: str) -> None:
        # What is in flight keeps its handle: its confirm is still to come.
        waiting = self._queue_out
        self._queue_out = [entry for entry in waiting if entry.address != address]
        for entry in waiting:
            if entry.address == address:
                self._not_sent(entry.token, reason, True)

    # Hooks.

    def _check_alive(self) -> "Procedure":
        raise NotImplementedError

    def _join(self, node: Node, tell: bool) -> None:
        raise NotImplementedError

    def _leave(self, node: Node, reason: str) -> None:
        raise NotImplementedError
