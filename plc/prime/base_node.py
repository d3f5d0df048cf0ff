"""BaseNode: drives a PRIME base node modem and shows it as a Network.

The order of start-up and the rules of the data path are those of the reference host for Microchip's base node
firmware. The modem keeps the whole PRIME MAC and the 4-32 convergence layer to itself; the host learns
of nodes by three indications (network event, 4-32 join, 4-32 leave) and by two lists (registered devices,
4-32 nodes). No message tells that a modem restarted: the lists do.

Not here: direct connections between nodes, and connections other than 4-32, which are refused.
"""

from plc.host import Answer, Request
from plc.network import (
    ApduReceived,
    LinkQualityReported,
    NetworkStarted,
    NodeJoined,
    NodeLeft,
    TopologyChanged,
)
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS
from plc.prime.data_path import DATA_CONFIRM_TIMEOUT_S
from plc.prime.nodes import Node, parent_of
from plc.prime.services import Services
from plc.prime.steps import get, get_list, value_of
from plc.usi.framing import EXTENDED_LENGTH_HARMONY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure

REFRESH_INTERVAL_S = 900.0
KEEPALIVE_INTERVAL_S = 60.0
RESET_TIMEOUT_S = 10.0


class BaseNode(Services):
    """A PRIME network behind a base node modem.

    `reset` restarts the modem's MAC at each start: all nodes then have to register anew, so the default
    leaves a running network alone. `allowed` are the EUI-48 that may register, None for all; `device_keys` are
    the device unique keys of nodes by EUI-48, for security profiles 1 and 2, and are never shown.
    `data_confirm_timeout_s` bounds the wait for CL_432_DL_DATA.confirm.
    """

    def __init__(
        self,
        reset: bool = False,
        allowed: "set[bytes] | None" = None,
        device_keys: "dict[bytes, bytes] | None" = None,
        data_confirm_timeout_s: float = DATA_CONFIRM_TIMEOUT_S,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
    ) -> None:
        super().__init__(
            allowed,
            device_keys,
            data_confirm_timeout_s,
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self._reset = reset
        self._phy_list: int | None = None  # which list tells of links; 0: the modem has none
        self._changes = 0  # indications about nodes so far: tells what is newer than a list
        self.eui48 = b""
        self.security_profile: int | None = None
        for name in ("alive_events", "nodes_dropped"):
            self.counters[name] = 0

    # Procedures.

    def _start_up(self) -> "Procedure":
        if self._reset:
            yield Request(
                COMMANDS.encode(commands.MLME_RESET_REQUEST),
                commands.MLME_RESET_CONFIRM,
                timeout_s=RESET_TIMEOUT_S,
            )
        yield from get(pib.PLC_STATE)
        yield from get(pib.MAC_STATE)
        eui48 = value_of((yield from get(pib.EUI48_PRODUCTION)))
        if len(eui48) != 6:
            eui48 = value_of((yield from get(pib.MAC_EUI48)))
        profile = value_of((yield from get(pib.MAC_SECURITY_PROFILE)))
        versions: list[str] = []
        for attribute in pib.VERSION_ATTRIBUTES:
            version = value_of((yield from get(attribute, True)))
            if version:
                versions.append(pib.attribute_name(attribute) + " " + version.hex())
        self.eui48 = eui48
        self.security_profile = profile[0] if profile else None
        description = "PRIME base node, security profile " + (str(profile[0]) if profile else "unknown")
        yield from self._apply_rules()
        self._started(self._now)
        self._emit(NetworkStarted(eui48, ", ".join([description] + versions)))
        yield from self._list_nodes(True)

    def _check_alive(self) -> "Procedure":
        yield from get(pib.PLC_STATE)
        if self._list_enabled and value_of((yield from get(pib.WHITELIST_ENABLED, True))) == b"\x00":
            # It restarted without a word, and lets everybody in.
            yield from self._apply_rules()

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        self._refresh_queued = False
        before = self._changes
        registered = yield from get_list(pib.LIST_REGISTERED_DEVICES)
        connected = yield from get_list(pib.LIST_432_NODES)
        yield from self._read_phy_table()
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

    def _read_phy_table(self) -> "Procedure":
        """SNR and modulation of each link; which of two lists a modem has depends on its release."""
        if self._phy_list == 0 or not len(self._nodes):
            return
        answer = yield from get_list(self._phy_list or pib.LISTS_PHY[0], True)
        if not answer.messages or answer.messages[0].number("result") != enumerations.MLME_SUCCESS:
            if self._phy_list is not None:
                return
            self._phy_list = pib.LISTS_PHY[1]
            answer = yield from get_list(self._phy_list, True)
            if not answer.messages or answer.messages[0].number("result") != enumerations.MLME_SUCCESS:
                self._phy_list = 0
                return
        elif self._phy_list is None:
            self._phy_list = pib.LISTS_PHY[0]
        by_place: "dict[tuple[int, int], Node]" = {}
        for node in self._nodes.nodes():
            if node.sid is not None and node.lnid is not None:
                by_place[(node.sid, node.lnid)] = node
        switches = self._nodes.switches()
        for record in self._records(answer, self._phy_list):
            node = by_place.get((_number(record["sid"]), _number(record["lnid"])))
            if node is None:
                continue
            found = (
                _number(record["snr"]),
                enumerations.name_of(enumerations.MODULATIONS, _number(record["tx_modulation"])),
            )
            if found != (node.quality, node.modulation):
                node.quality, node.modulation = found
                self._report_link(node, parent_of(node, switches))

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
                quality=node.quality,
                role=node.role,
                modulation=node.modulation,
                media="plc",
            )
        )

    def _network_event(self, message: "Message") -> None:
        event = message.number("event")
        if event == enumerations.EVENT_ALIVE:
            self.counters["alive_events"] += 1
            alive = self._nodes.get(message.octets("eui48"))
            if alive is not None:
                alive.alive_time = message.number("alive_time")
            return
        eui48 = message.octets("eui48")
        name = enumerations.name_of(enumerations.NETWORK_EVENTS, event)
        if event in (enumerations.EVENT_UNREGISTER, enumerations.EVENT_UNKNOWN_NODE):
            node = self._nodes.get(eui48)
            if node is not None and event == enumerations.EVENT_UNREGISTER:
                self._leave(node, "unregistered")
                self._nodes.remove(node)
            self._emit(TopologyChanged(eui48, name))
            if event == enumerations.EVENT_UNKNOWN_NODE:
                self._decline(eui48, "not on the whitelist")
            return
        if event == enumerations.EVENT_NO_DUK:
            self._decline(eui48, "no device unique key is known for it")
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
        elif (
            not self._take_upgrade_message(message, now)
            and not self._take_service_message(message)
            and ".confirm" in message.name
        ):
            self.counters["unexpected_confirms"] += 1


def _number(value: "int | bytes") -> int:
    return value if isinstance(value, int) else 0


def _octets(value: "int | bytes") -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(octets: bytes) -> str:
    """The serial text of a node: printable ASCII, padding left out."""
    return "".join([chr(octet) for octet in octets if 0x20 <= octet < 0x7F]).strip()
