"""BaseNode: drives a PRIME base node modem and shows it as a Network.

The order of start-up and the rules of the data path are those of the reference host for Microchip's base node
firmware. The modem keeps the whole PRIME MAC and the 4-32 convergence layer to itself; the host learns
of nodes by three indications (network event, 4-32 join, 4-32 leave) and by two lists (registered devices,
4-32 nodes). No message tells that a modem restarted: the lists do.

Not here: device keys, whitelist, firmware upgrade of nodes, direct connections (see plc/prime/commands.py for
their messages).
"""

from plc.errors import LocalPlcError
from plc.host import LARGEST_APDU_QUEUE, Answer, ModemHost, Request
from plc.network import (
    ApduReceived,
    ApduSent,
    Capabilities,
    LinkQualityReported,
    NetworkStarted,
    NodeJoined,
    NodeLeft,
    TopologyChanged,
)
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS
from plc.prime.nodes import Node, NodeTable, parent_of
from plc.usi.framing import EXTENDED_LENGTH_HARMONY, PROTOCOL_PRIME_API

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure, Step

# The reference host gives up on a missing CL_432_DL_DATA.confirm after this time.
DATA_CONFIRM_TIMEOUT_S = 40.0
TRANSMIT_ATTEMPTS = 3
FIRST_RETRY_PAUSE_S = 0.5
REFRESH_INTERVAL_S = 900.0
KEEPALIVE_INTERVAL_S = 60.0
LARGEST_NETWORK = 4096  # nodes; LNIDs would allow more, no transformer has them
LINK_CLASS = 0
RESET_TIMEOUT_S = 10.0
LIST_ATTEMPTS = 3  # of which one comes whole


class _Transmission:
    """One APDU on its way out."""

    __slots__ = ("address", "attempts", "destination_sap", "not_before", "payload", "source_sap", "token")

    def __init__(
        self, token: int, address: int, source_sap: int, destination_sap: int, payload: bytes
    ) -> None:
        self.token = token
        self.address = address
        self.source_sap = source_sap
        self.destination_sap = destination_sap
        self.payload = payload
        self.attempts = 0
        self.not_before: float | None = None


class BaseNode(ModemHost):
    """A PRIME network behind a base node modem.

    `reset` restarts the modem's MAC at each start: all nodes then have to register anew, so the default
    leaves a running network alone. `data_confirm_timeout_s` bounds the wait for CL_432_DL_DATA.confirm.
    """

    def __init__(
        self,
        reset: bool = False,
        data_confirm_timeout_s: float = DATA_CONFIRM_TIMEOUT_S,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
    ) -> None:
        super().__init__(
            PROTOCOL_PRIME_API,
            COMMANDS,
            Capabilities("prime", commands.LARGEST_APDU, 1, True),
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self._reset = reset
        self._data_confirm_timeout_s = data_confirm_timeout_s
        self._nodes = NodeTable(LARGEST_NETWORK)
        self._changes = 0  # indications about nodes so far: tells what is newer than a list
        self._transmissions: list[_Transmission] = []
        self._transmitting: _Transmission | None = None
        self._transmit_deadline: float | None = None
        self.eui48 = b""
        self.security_profile: int | None = None
        for name in (
            "retransmissions",
            "inferred_confirms",
            "alive_events",
            "apdus_sent",
            "apdus_received",
            "nodes_dropped",
        ):
            self.counters[name] = 0

    # Commands.

    def send_apdu(self, address: int, source_sap: int, destination_sap: int, apdu: bytes, now: float) -> int:
        """Queue an APDU for a node, or for all of them at commands.BROADCAST_ADDRESS.

        `source_sap` is our client SAP and `destination_sap` the logical device: they travel as LSAPs. Raises
        LocalPlcError for an APDU or SAP that does not fit and for an address that no node has.
        """
        if len(apdu) > commands.LARGEST_APDU:
            raise LocalPlcError(
                f"PRIME carries APDUs of at most {commands.LARGEST_APDU} octets, got {len(apdu)}"
            )
        if address != commands.BROADCAST_ADDRESS and self._nodes.by_address(address) is None:
            raise LocalPlcError(f"no node has 4-32 address 0x{address:04X}")
        payload = COMMANDS.encode(
            commands.CL_432_DL_DATA_REQUEST,
            destination_lsap=destination_sap,
            source_lsap=source_sap,
            destination_address=address,
            data=apdu,
            link_class=LINK_CLASS,
        )
        token = self._token()
        if len(self._transmissions) >= LARGEST_APDU_QUEUE:
            self._not_sent(token, "too many APDUs wait", True)
        elif not self._running:
            self._not_sent(token, "the modem is not ready", True)
        else:
            self._transmissions.append(_Transmission(token, address, source_sap, destination_sap, payload))
            self._advance(now)
        return token

    def expel(self, eui: bytes, now: float) -> None:
        """Make a node unregister. Raises LocalPlcError when it is not known."""
        if self._nodes.get(eui) is None:
            raise LocalPlcError(f"no node has EUI-48 {eui.hex()}")
        self._queue(self._expel(eui))
        self._advance(now)

    # Procedures.

    def _get(self, attribute: int, optional: bool = False) -> "Step":
        confirm = commands.MLME_GET_CONFIRM
        if pib.is_phy(attribute):
            # The channel is 0: the only one of a single-PHY modem.
            payload = COMMANDS.encode(commands.PLME_GET_REQUEST, pib=attribute, pch=0)
            confirm = commands.PLME_GET_CONFIRM
        else:
            payload = COMMANDS.encode(commands.MLME_GET_REQUEST, pib=attribute)
        return (yield Request(payload, confirm, "pib", attribute, optional, attempts=1 if optional else 3))

    def _get_list(self, attribute: int) -> "Step":
        payload = COMMANDS.encode(commands.MLME_LIST_GET_REQUEST, pib=attribute)
        answer = Answer([], False)
        for _ in range(LIST_ATTEMPTS):
            answer = yield Request(payload, commands.MLME_LIST_GET_CONFIRM, "pib", attribute, parts=True)
            if answer.complete:
                break
        return answer

    def _start_up(self) -> "Procedure":
        if self._reset:
            yield Request(
                COMMANDS.encode(commands.MLME_RESET_REQUEST),
                commands.MLME_RESET_CONFIRM,
                timeout_s=RESET_TIMEOUT_S,
            )
        yield from self._get(pib.PLC_STATE)
        yield from self._get(pib.MAC_STATE)
        eui48 = _value((yield from self._get(pib.EUI48_PRODUCTION)))
        if len(eui48) != 6:
            eui48 = _value((yield from self._get(pib.MAC_EUI48)))
        profile = _value((yield from self._get(pib.MAC_SECURITY_PROFILE)))
        versions: list[str] = []
        for attribute in pib.VERSION_ATTRIBUTES:
            version = _value((yield from self._get(attribute, True)))
            if version:
                versions.append(pib.attribute_name(attribute) + " " + version.hex())
        self.eui48 = eui48
        self.security_profile = profile[0] if profile else None
        description = "PRIME base node, security profile " + (str(profile[0]) if profile else "unknown")
        self._started(self._now)
        self._emit(NetworkStarted(eui48, ", ".join([description] + versions)))
        yield from self._list_nodes(True)

    def _check_alive(self) -> "Procedure":
        yield from self._get(pib.PLC_STATE)

    def _check_after_silence(self) -> "Procedure":
        # A confirm is missing: the modem may be gone, or have restarted and forgotten everyone.
        yield from self._get(pib.PLC_STATE)
        yield from self._list_nodes(False)

    def _expel(self, eui48: bytes) -> "Procedure":
        payload = COMMANDS.encode(commands.MLME_SET_REQUEST, pib=pib.ACTION_UNREGISTER, value=eui48)
        answer = yield Request(payload, commands.MLME_SET_CONFIRM, optional=True)
        if not answer.messages:
            outcome = "the modem did not answer the order to expel it"
        else:
            outcome = "expelled: " + enumerations.name_of(
                enumerations.MLME_RESULTS, answer.messages[0].number("result")
            )
        self._emit(TopologyChanged(eui48, outcome))

    def _read_counters(self) -> "Procedure":
        for attribute in pib.DIAGNOSTIC_ATTRIBUTES + pib.VERSION_ATTRIBUTES:
            value = _value((yield from self._get(attribute, True)))
            if value:
                self.counters[pib.attribute_name(attribute)] = int.from_bytes(value, "big")

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        self._refresh_queued = False
        before = self._changes
        registered = yield from self._get_list(pib.LIST_REGISTERED_DEVICES)
        connected = yield from self._get_list(pib.LIST_432_NODES)
        known = [node for node in self._nodes.connected() if node.connection_changed <= before]
        self._take_registered(registered, before, tell_all)
        addresses = self._addresses(connected)
        if connected.complete and known and not [node for node in known if node.eui48 in addresses]:
            for node in known:
                self._leave(node, "the modem restarted and forgot it")
                self._nodes.remove(node)
            self._lose_modem("the modem restarted: it has forgotten its nodes", self._now)
            return
        for eui48, entry in addresses.items():
            node = self._nodes.get(eui48)
            if node is None or node.connection_changed <= before:
                self._join(eui48, entry[0], entry[1], tell_all)
        if connected.complete:
            for node in known:
                if node.eui48 not in addresses and node.connection_changed <= before:
                    self._leave(node, "not in the modem's list of 4-32 nodes")
        if registered.complete:
            self._forget_unregistered(registered, before)

    # Lists.

    def _records(self, answer: Answer, attribute: int) -> "list[dict[str, int | bytes]]":
        octets = b"".join([message.octets("records") for message in answer.messages])
        return pib.decode_records(attribute, octets)

    def _take_registered(self, answer: Answer, before: int, tell_all: bool) -> None:
        changed: list[Node] = []
        for record in self._records(answer, pib.LIST_REGISTERED_DEVICES):
            eui48 = _octets(record["eui48"])
            node = self._nodes.add(eui48)
            if node is None:
                self.counters["nodes_dropped"] += 1
                continue
            if node.changed > before:
                continue
            old = (node.sid, node.lsid, node.level, node.role)
            node.lnid = _number(record["lnid"])
            node.lsid = _number(record["lsid"])
            node.sid = _number(record["sid"])
            node.level = _number(record["level"])
            node.role = "switch" if record["state"] == enumerations.STATE_SWITCH else "terminal"
            if tell_all or old != (node.sid, node.lsid, node.level, node.role):
                changed.append(node)
        # Only now is every switch known that may be a parent.
        switches = self._nodes.switches()
        for node in changed:
            self._report_link(node, parent_of(node, switches))

    def _addresses(self, answer: Answer) -> "dict[bytes, tuple[int, str]]":
        addresses: "dict[bytes, tuple[int, str]]" = {}
        for record in self._records(answer, pib.LIST_432_NODES):
            address = _number(record["address"])
            if address < commands.FIRST_RESERVED_ADDRESS:
                serial = _octets(record["serial"])[: _number(record["serial_length"])]
                addresses[_octets(record["eui48"])] = (address, _text(serial))
        return addresses

    def _forget_unregistered(self, answer: Answer, before: int) -> None:
        listed: dict[bytes, bool] = {}
        for record in self._records(answer, pib.LIST_REGISTERED_DEVICES):
            listed[_octets(record["eui48"])] = True
        for node in self._nodes.nodes():
            if node.address is None and node.changed <= before and node.eui48 not in listed:
                self._nodes.remove(node)

    # Nodes.

    def _join(self, eui48: bytes, address: int, identity: str, tell: bool) -> None:
        holder = self._nodes.by_address(address)
        if holder is not None and holder.eui48 != eui48:
            self._leave(holder, "its 4-32 address was given to another node")
        node = self._nodes.add(eui48)
        if node is None:
            self.counters["nodes_dropped"] += 1
            return
        if node.address is not None and node.address != address:
            self._fail_transmissions(node.address, "the node has a new 4-32 address")
        if tell or node.address != address or node.identity != identity:
            self._nodes.connect(node, address)
            node.identity = identity
            self._emit(NodeJoined(eui48, address, identity))

    def _leave(self, node: Node, reason: str) -> None:
        address = node.address
        if address is None:
            return
        self._nodes.disconnect(node)
        self._fail_transmissions(address, reason)
        self._emit(NodeLeft(node.eui48, address, reason))

    def _report_link(self, node: Node, parent: Node | None) -> None:
        self._emit(
            LinkQualityReported(
                node.eui48,
                commands.INVALID_ADDRESS if node.address is None else node.address,
                parent=None if parent is None else parent.eui48,
                level=node.level,
                role=node.role,
            )
        )

    def _network_event(self, message: "Message") -> None:
        event = message.number("event")
        if event == enumerations.EVENT_ALIVE:
            self.counters["alive_events"] += 1
            return
        eui48 = message.octets("eui48")
        name = enumerations.name_of(enumerations.NETWORK_EVENTS, event)
        if event in (enumerations.EVENT_UNREGISTER, enumerations.EVENT_UNKNOWN_NODE):
            node = self._nodes.get(eui48)
            if node is not None and event == enumerations.EVENT_UNREGISTER:
                self._leave(node, "unregistered")
                self._nodes.remove(node)
            self._emit(TopologyChanged(eui48, name))
            return
        node = self._nodes.add(eui48)
        if node is None:
            self.counters["nodes_dropped"] += 1
            return
        node.changed = self._changes
        if event == enumerations.EVENT_REGISTER:
            node.connection_changed = self._changes
            self._leave(node, "registered anew")
            node.role = "terminal"
        elif event == enumerations.EVENT_PROMOTE:
            node.role = "switch"
        elif event == enumerations.EVENT_DEMOTE:
            node.role = "terminal"
        if event <= enumerations.EVENT_DEMOTE:
            node.sid = message.number("sid")
            node.lnid = message.number("lnid")
            node.lsid = message.number("lsid")
            parent = parent_of(node, self._nodes.switches())
            if node.sid == 0:
                node.level = 0
            elif parent is not None and parent.level is not None:
                node.level = parent.level + 1
            name += f", SID {node.sid} LNID {node.lnid} LSID {node.lsid}"
            self._report_link(node, parent)
        self._emit(TopologyChanged(eui48, name))

    # Messages.

    def _is_last_part(self, message: "Message") -> bool:
        return not message.octets("records")

    def _handle_message(self, message: "Message", now: float) -> None:
        command = message.command
        if command == commands.CL_432_DL_DATA_INDICATION:
            address = message.number("source_address")
            self.counters["apdus_received"] += 1
            if self._nodes.by_address(address) is None:
                # Its join indication was lost on the line.
                self._queue_refresh()
            self._infer_confirm(address, message)
            self._emit(
                ApduReceived(
                    address,
                    message.number("source_lsap"),
                    message.number("destination_lsap"),
                    message.octets("data"),
                )
            )
        elif command == commands.CL_432_DL_DATA_CONFIRM:
            self._confirm_data(message, now)
        elif command == commands.CL_432_JOIN_INDICATION:
            self._changes += 1
            eui48 = message.octets("mac")[:6]
            self._join(eui48, message.number("address"), _text(message.octets("device_id")), True)
            node = self._nodes.get(eui48)
            if node is not None:
                node.changed = node.connection_changed = self._changes
        elif command == commands.CL_432_LEAVE_INDICATION:
            self._changes += 1
            node = self._nodes.by_address(message.number("address"))
            if node is not None:
                node.changed = node.connection_changed = self._changes
                self._leave(node, "closed its 4-32 connection")
        elif command == commands.NETWORK_EVENT_INDICATION:
            self._changes += 1
            self._network_event(message)
        elif ".confirm" in message.name:
            self.counters["unexpected_confirms"] += 1

    # The data path: one CL_432_DL_DATA.request at a time, since its confirm has no sequence number.

    def _may_ask(self) -> bool:
        return self._transmitting is None

    def _send_apdus(self, now: float) -> None:
        if self._transmitting is not None or self._procedure is not None or not self._running:
            return
        blocked: list[int] = []
        for index, transmission in enumerate(self._transmissions):
            if transmission.not_before is None and transmission.address not in blocked:
                self._transmissions.pop(index)
                transmission.attempts += 1
                self._transmitting = transmission
                self._transmit_deadline = now + self._data_confirm_timeout_s
                self._send(transmission.payload)
                return
            blocked.append(transmission.address)

    def _confirm_data(self, message: "Message", now: float) -> None:
        transmission = self._transmitting
        if (
            transmission is None
            or message.number("destination_lsap") != transmission.destination_sap
            or message.number("source_lsap") != transmission.source_sap
            or message.number("destination_address") != transmission.address
        ):
            self.counters["unexpected_confirms"] += 1
            return
        status = message.number("transmit_status")
        if status == enumerations.TRANSMIT_SUCCESS:
            self._finish_transmission(transmission)
            return
        self._transmitting = None
        self._transmit_deadline = None
        reason = "transmit status " + enumerations.name_of(enumerations.TRANSMIT_STATUSES, status)
        transient = status in enumerations.TRANSIENT_TRANSMIT_STATUSES
        if transient and transmission.attempts < TRANSMIT_ATTEMPTS:
            self.counters["retransmissions"] += 1
            transmission.not_before = now + FIRST_RETRY_PAUSE_S * (1 << (transmission.attempts - 1))
            self._transmissions.insert(0, transmission)
            return
        self._not_sent(transmission.token, reason, transient)
        if not transient:
            self._queue_refresh()

    def _infer_confirm(self, address: int, message: "Message") -> None:
        # An answer to what is still unconfirmed: the confirm was lost on the line. Without this it would hold
        # up the whole network until its time-out.
        transmission = self._transmitting
        if (
            transmission is not None
            and address == transmission.address
            and message.number("source_lsap") == transmission.destination_sap
            and message.number("destination_lsap") == transmission.source_sap
        ):
            self.counters["inferred_confirms"] += 1
            self._finish_transmission(transmission)

    def _finish_transmission(self, transmission: _Transmission) -> None:
        self._transmitting = None
        self._transmit_deadline = None
        self.counters["apdus_sent"] += 1
        self._emit(ApduSent(transmission.token))

    def _fail_transmissions(self, address: int, reason: str) -> None:
        # The one that is out keeps its place: its confirm is still to come.
        waiting = self._transmissions
        self._transmissions = [entry for entry in waiting if entry.address != address]
        for entry in waiting:
            if entry.address == address:
                self._not_sent(entry.token, reason, True)

    def _data_timeout(self) -> float | None:
        if self._transmitting is not None:
            return self._transmit_deadline
        nearest: float | None = None
        for transmission in self._transmissions:
            due = transmission.not_before
            if due is not None and (nearest is None or due < nearest):
                nearest = due
        return nearest

    def _handle_data_timeout(self, now: float) -> None:
        for waiting in self._transmissions:
            if waiting.not_before is not None and now >= waiting.not_before:
                # It may go; what it waits for now is its turn, and no longer a time.
                waiting.not_before = None
        transmission = self._transmitting
        if transmission is None or self._transmit_deadline is None or now < self._transmit_deadline:
            return
        self._transmitting = None
        self._transmit_deadline = None
        self.counters["missing_confirms"] += 1
        self._not_sent(transmission.token, "the modem did not confirm it", True)
        self._queue(self._check_after_silence())

    def _abandon_data(self, reason: str, now: float) -> None:  # noqa: ARG002 a hook
        unsent = self._transmissions
        if self._transmitting is not None:
            unsent = [self._transmitting] + unsent
        self._transmissions = []
        self._transmitting = None
        self._transmit_deadline = None
        for transmission in unsent:
            self._not_sent(transmission.token, reason, True)


def _value(answer: Answer) -> bytes:
    """The value of a get confirm; empty when the modem refused or kept silent."""
    if not answer.messages or answer.messages[0].number("result") != enumerations.MLME_SUCCESS:
        return b""
    return answer.messages[0].octets("value")


def _number(value: "int | bytes") -> int:
    return value if isinstance(value, int) else 0


def _octets(value: "int | bytes") -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(octets: bytes) -> str:
    """The serial text of a node: printable ASCII, padding left out."""
    return "".join([chr(octet) for octet in octets if 0x20 <= octet < 0x7F]).strip()
