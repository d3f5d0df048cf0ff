"""Coordinator: drives a G3-PLC coordinator modem, whichever side has the bootstrap server.

In generation B the modem runs LBP and EAP-PSK by itself: the host gives it the keys, and answers each join
request with a short address or a refusal. In generation A the host does both. Data travels as IPv6 and UDP, which
the host builds. A G3 device tells no serial text, so nodes join with an empty identity.

G3 nodes do not say that they go. A node to which no route is found several times in a row is told as left; it
is back when a packet of it comes, when it joins anew, or when a route to it is found at the next refresh.

Not here: groups and multicast.
"""

from plc.errors import LocalPlcError, MessageError
from plc.g3 import commands, coordinator_commands, enumerations, ib, ipv6
from plc.g3.admission import KEY_SIZE, Admission
from plc.g3.bootstrap import BootstrapServer
from plc.g3.commands import COMMANDS
from plc.g3.data_path import DATA_CONFIRM_TIMEOUT_S
from plc.g3.nodes import Node
from plc.g3.steps import (
    BOOTSTRAP_SERVER_QUESTION,
    COORDINATOR_SHORT_ADDRESS,
    MAX_HOPS,
    NetworkParameters,
    adp_get,
    form_network,
    has_bootstrap_server,
    is_refusal,
    mac_get,
    number_of,
    record_of,
    refusal_in_words,
    value_of,
)
from plc.host import Answer, Request
from plc.network import DiagnosticsRead, NetworkStarted, NodeDiagnosticsRead, NodeJoined, TopologyChanged
from plc.prime.enumerations import name_of
from plc.usi.framing import EXTENDED_LENGTH_HARMONY, LARGEST_PAYLOAD, PROTOCOL_COORDINATOR_G3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from plc.commands import Message
    from plc.g3.ciphers import Aes
    from plc.host import Procedure, Step

ROUTE_DISCOVERY_TIMEOUT_S = 30.0
REFRESH_INTERVAL_S = 900.0
KEEPALIVE_INTERVAL_S = 60.0
# Of the nodes that may be there, so many are looked for at each refresh: a route discovery is a broadcast.
SEARCHES_PER_REFRESH = 4
LARGEST_TABLE_WALK = 2048
_DATA_REQUEST_FIELDS = 6  # command, handle, route discovery, quality of service, length

PATH_METRIC = 0x0F  # hop count and link cost of each hop (ITU-T G.9903)

GENERATION_A = "a"
GENERATION_B = "b"
GENERATION_AUTO = "auto"


class Coordinator(Admission):
    """A G3 network behind a coordinator modem.

    `known_addresses` maps the EUI-64 of each device that ever joined to its short address;
    ShortAddressAssigned tells each new one. `allowed` are the EUI-64 that may join, None for all. `eui64` is
    written to a modem that has none. With `reset` the modem is initialised even when its network runs
    already. `psk` and `gmk` of 16 octets are never shown; `gmk_index` is 0 or 1.

    `generation` is "b", "a", or "auto" to ask the modem. Generation A needs `aes` (see plc/g3/ciphers.py) and
    `random`, which gives so many unpredictable octets; only there `device_psks` holds PSKs of single devices by
    EUI-64, beside which `psk` may be empty: devices that have none are then declined. `frame_counter` is what
    FrameCounterAdvanced told last.
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
        generation: str = GENERATION_B,
        aes: "Aes | None" = None,
        random: "Callable[[int], bytes] | None" = None,
        device_psks: "dict[bytes, bytes] | None" = None,
        gmk_index: int = 0,
        frame_counter: int = 0,
    ) -> None:
        if (len(psk) != KEY_SIZE and (psk or not device_psks)) or len(gmk) != KEY_SIZE:
            raise LocalPlcError(f"PSK and GMK take {KEY_SIZE} octets, got {len(psk)} and {len(gmk)}")
        if gmk_index not in (0, 1):
            raise LocalPlcError(f"the index of a GMK is 0 or 1, got {gmk_index}")
        if not 0 <= pan_id < 0xFFFF:
            raise LocalPlcError(f"a PAN id is 0x0000 to 0xFFFE, got 0x{pan_id:X}")
        if generation not in (GENERATION_A, GENERATION_B, GENERATION_AUTO):
            raise LocalPlcError(f"a generation is a, b or auto, got {generation}")
        if generation == GENERATION_A and (aes is None or random is None):
            raise LocalPlcError("generation A needs an AES function and a source of random octets")
        super().__init__(
            pan_id,
            known_addresses or {},
            allowed,
            data_confirm_timeout_s,
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self.eui64 = eui64
        self.generation = "" if generation == GENERATION_AUTO else generation  # "" until the modem was asked
        self._generation_asked = generation
        self._psk = psk
        self._gmk = gmk
        self._gmk_index = gmk_index
        self._frame_counter = frame_counter
        self._device_psks = device_psks or {}
        self._aes = aes
        self._random = random
        self._server_identity = server_identity
        self._band = band
        self._reset = reset
        self.counters["network_status_indications"] = 0
        self.counters["coordinator_protocol_frames"] = 0
        self.counters["routes_not_found"] = 0

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
        if self._generation_asked == GENERATION_AUTO:
            yield from self._find_generation()
        host_serves = self.generation == GENERATION_A
        # Older firmware knows no extended length: what is longer than ten bits can say would be taken for garbage.
        self.capabilities.largest_apdu = (
            LARGEST_PAYLOAD - _DATA_REQUEST_FIELDS if host_serves else commands.LARGEST_PACKET
        ) - ipv6.OVERHEAD
        failure = self._missing(host_serves)
        if failure:
            self._lose_modem(failure, self._now)
            return
        running = Answer([], False)
        if not self._reset:
            running = yield from self._network_runs()
        if not running.complete:
            parameters = NetworkParameters(self.pan_id, self._band, self.eui64, self._gmk, self._gmk_index)
            parameters.server_identity = self._server_identity
            parameters.psk = self._psk
            parameters.host_serves = host_serves
            parameters.frame_counter = self._frame_counter
            refusal = yield from form_network(parameters)
            if refusal.messages:
                self._lose_modem(refusal_in_words(refusal.messages[0]), self._now)
                return
        self.eui64 = value_of((yield from mac_get(ib.MAC_EXTENDED_ADDRESS))) or self.eui64
        self._serve_joins(host_serves)
        self._started(self._now)
        description = (
            f"G3-PLC coordinator, generation {self.generation.upper()}, PAN 0x{self.pan_id:04X}, band "
            + name_of(enumerations.BANDS, self._band)
            + (", was running" if running.complete else "")
        )
        self._emit(NetworkStarted(self.eui64, description))
        for node in self._nodes.nodes():
            # Devices keep short address and keys over a restart of the coordinator: they need not join anew.
            self._join(node, True)
        yield from self._list_nodes(False)
        if host_serves:
            yield from self._keep_frame_counter()
        if self._next_gmk:
            # The rotation that the loss of the modem ended begins anew.
            yield from self._begin_rotation()

    def _find_generation(self) -> "Procedure":
        answer = yield Request(
            BOOTSTRAP_SERVER_QUESTION, commands.LBP_SET_CONFIRM, optional=True, timeout_s=1.0, attempts=2
        )
        in_modem = has_bootstrap_server(answer.messages[0] if answer.messages else None)
        self.generation = GENERATION_B if in_modem else GENERATION_A

    def _missing(self, host_serves: bool) -> str:
        if host_serves and (self._aes is None or self._random is None):
            return "the modem has no bootstrap server (generation A), and the host has no AES function for its own"
        if not host_serves and not self._psk:
            return "the modem's bootstrap server (generation B) needs one PSK for all devices"
        return ""

    def _serve_joins(self, host_serves: bool) -> None:
        self._server = None
        if host_serves and self._aes is not None and self._random is not None:
            self._server = BootstrapServer(
                self._aes,
                self._random,
                self._admit,
                self._server_identity or self.eui64,
                self._gmk,
                self._gmk_index,
                self._psk,
                self._device_psks,
            )

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
        tables: "list[tuple[str, list[dict[str, int | bytes]]]]" = []
        for layer, attribute in ib.DIAGNOSTIC_TABLES:
            records = yield from self._read_table(layer, attribute)
            if records:
                tables.append((ib.attribute_name(layer, attribute), records))
        self._emit(DiagnosticsRead(tables))

    def _read_table(
        self, layer: str, attribute: int
    ) -> "Generator[Request, Answer, list[dict[str, int | bytes]]]":
        """The records of a table, up to the index that the modem refuses."""
        records: "list[dict[str, int | bytes]]" = []
        read = adp_get if layer == "adp" else mac_get
        for index in range(LARGEST_TABLE_WALK):
            value = value_of((yield from read(attribute, index, True)))
            if not value:
                break
            record = record_of(layer, attribute, value)
            if record and record.get("destination", 0) != commands.DECLINE:
                records.append(record)
        return records

    def discover_networks(self, now: float, duration_s: int = 10) -> None:
        """Listen for the beacons of other PANs; TopologyChanged tells each that is offered."""
        self._queue(self._discover_networks(duration_s))
        self._advance(now)

    def _discover_networks(self, duration_s: int) -> "Procedure":
        payload = COMMANDS.encode(commands.DISCOVERY_REQUEST, duration_s=duration_s)
        yield Request(
            payload, commands.DISCOVERY_CONFIRM, optional=True, timeout_s=duration_s + 5.0, attempts=1
        )

    def read_node_diagnostics(self, eui: bytes, now: float) -> None:
        """Find the path to a node, hop by hop, and its entries in the modem's tables. Raises LocalPlcError."""
        node = self._nodes.get(eui)
        if node is None:
            raise LocalPlcError(f"no node has EUI-64 {eui.hex()}")
        self._queue(self._diagnose_node(node))
        self._advance(now)

    def _diagnose_node(self, node: Node) -> "Procedure":
        payload = COMMANDS.encode(
            commands.PATH_DISCOVERY_REQUEST, destination=node.address, metric_type=PATH_METRIC
        )
        answer = yield Request(
            payload,
            commands.PATH_DISCOVERY_CONFIRM,
            "destination",
            node.address,
            optional=True,
            timeout_s=ROUTE_DISCOVERY_TIMEOUT_S,
            attempts=1,
        )
        values: "list[tuple[str, str]]" = []
        reason = "" if answer.messages else "the modem did not answer the path discovery"
        for message in answer.messages:
            if is_refusal(answer):
                reason = "path discovery: " + refusal_in_words(message)
                continue
            hops = commands.decode_hops(message.octets("hops"))
            forward = message.number("forward_count")
            for index, hop in enumerate(hops):
                name = f"forward hop {index + 1}" if index < forward else f"reverse hop {index + 1 - forward}"
                values.append((name, commands.hop_in_words(hop)))
        for layer, attribute, field in (
            ("adp", ib.ADP_ROUTING_TABLE, "destination"),
            ("mac", ib.MAC_POS_TABLE, "short_address"),
            ("mac", ib.MAC_NEIGHBOUR_TABLE, "short_address"),
            ("mac", ib.MAC_RF_POS_TABLE, "short_address"),
        ):
            for record in (yield from self._read_table(layer, attribute)):
                if record.get(field) == node.address:
                    values.append(
                        (ib.attribute_name(layer, attribute), ib.record_in_words(layer, attribute, record))
                    )
        self._emit(NodeDiagnosticsRead(node.eui64, values, reason))

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        self._refresh_queued = False
        yield from self._check_alive()
        if not self._running:
            return
        qualities: dict[int, int] = {}
        reverse: dict[int, int] = {}
        modulations: dict[int, str] = {}
        for entry in (yield from self._read_table("mac", ib.MAC_POS_TABLE)):
            qualities[number_of(entry, "short_address")] = number_of(entry, "lqi")
        for entry in (yield from self._read_table("mac", ib.MAC_NEIGHBOUR_TABLE)):
            # The neighbour's word on how it hears us.
            neighbour = number_of(entry, "short_address")
            reverse[neighbour] = number_of(entry, "lqi")
            modulations[neighbour] = name_of(enumerations.MODULATIONS, number_of(entry, "modulation"))
        over_rf: "dict[int, dict[str, int | bytes]]" = {}
        for entry in (yield from self._read_table("mac", ib.MAC_RF_POS_TABLE)):
            over_rf[number_of(entry, "short_address")] = entry
        routes: dict[int, "dict[str, int | bytes]"] = {}
        routers: dict[int, bool] = {}
        for entry in (yield from self._read_table("adp", ib.ADP_ROUTING_TABLE)):
            destination = number_of(entry, "destination")
            routes[destination] = entry
            if number_of(entry, "next_hop") != destination:
                routers[number_of(entry, "next_hop")] = True
        for node in self._nodes.nodes():
            node.reverse_quality = reverse.get(node.address, node.reverse_quality)
            node.modulation = modulations.get(node.address, node.modulation)
            route = routes.get(node.address)
            if route is not None:
                node.media = ib.media_of_route(route)
            if node.media == "rf" and node.address in over_rf:
                qualities[node.address] = number_of(over_rf[node.address], "forward_lqi")
                node.reverse_quality = number_of(over_rf[node.address], "reverse_lqi")
            self._update_link(node, route, qualities.get(node.address), node.address in routers, tell_all)
            if tell_all and node.joined:
                self._emit(NodeJoined(node.eui64, node.address, ""))
        if self._server is not None:
            yield from self._keep_frame_counter()
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

    # Messages.

    def _take_foreign(self, protocol: int, payload: bytes, now: float) -> bool:  # noqa: ARG002 a hook
        if protocol != PROTOCOL_COORDINATOR_G3:
            return False
        self.counters["coordinator_protocol_frames"] += 1
        try:
            message = coordinator_commands.COMMANDS.decode(payload)
        except MessageError:
            return True
        if message.command in (coordinator_commands.JOIN_INDICATION, coordinator_commands.LEAVE_INDICATION):
            # Its fields are not public: the tables tell what came of it.
            body = message.octets("body")
            words = "the modem's old coordinator protocol (0x26) tells: " + message.name
            self._emit(TopologyChanged(body if len(body) == 8 else self.eui64, words))
            self._queue_refresh()
        return True

    def _handle_message(self, message: "Message", now: float) -> None:
        command = message.command
        if command == commands.DATA_INDICATION:
            self._receive_packet(message.octets("packet"), message.number("link_quality"))
        elif command == commands.DATA_CONFIRM:
            self._confirm_data(message.number("handle"), message.number("status"), now)
        elif command in (commands.LBP_INDICATION, commands.LBP_CONFIRM):
            self._take_lbp(message, now)
        elif command == commands.NON_VOLATILE_DATA_INDICATION:
            self._queue(self._keep_frame_counter())
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
            self._pause(message.number("full_buffers") != 0, now)
        elif command == commands.NETWORK_STATUS_INDICATION:
            self.counters["network_status_indications"] += 1
            if message.number("mac_status") == enumerations.MAC_ALTERNATE_PAN:
                words = f"another PAN is in reach: 0x{message.number('pan_id'):04X}"
                self._emit(TopologyChanged(self.eui64, words))
        elif command == commands.ROUTE_NOT_FOUND_INDICATION:
            self.counters["routes_not_found"] += 1
            lost = self._nodes.by_address(message.number("destination"))
            if lost is not None and lost.joined:
                self._emit(TopologyChanged(lost.eui64, "a router found no route to it"))
        elif command == commands.DISCOVERY_INDICATION:
            words = (
                f"PAN 0x{message.number('pan_id'):04X} is offered by 0x{message.number('lba'):04X}, "
                f"LQI {message.number('link_quality')}, route cost {message.number('rc_coord')}"
            )
            self._emit(TopologyChanged(self.eui64, words))
        elif command == commands.STATUS:
            self._status(message.number("status"), message.number("refused_command"), now)
        elif ".confirm" in message.name:
            self.counters["unexpected_confirms"] += 1

    def _status(self, status: int, command: int, now: float) -> None:
        if status == enumerations.SERIAL_SUCCESS or not self._running:
            self.counters["unexpected_confirms"] += 1
        elif command == commands.DATA_REQUEST and status == enumerations.SERIAL_NOT_ALLOWED:
            self._lose_modem("the modem restarted: it is not initialised", now)
