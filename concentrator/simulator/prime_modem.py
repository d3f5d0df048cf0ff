"""A simulated PRIME base node modem: the far side of PRIME_API, with a feeder full of meters behind it.

Speaks USI and PRIME_API octet for octet as Microchip's `prime_base_1_4_modem` application does, with its
habits: one receive slot (a message that arrives while one is pending vanishes without a word), lists in
several confirms ended by an empty one, eight octets of MAC address in the join indication, no message
that tells of a restart, the command octet read without masking the length bit. `generation="2021"` writes the
field widths of the older firmware.

PRIME's MAC repeats lost frames by itself, so loss shows as latency; a transfer that fails for good ends in
transmit status 2 downwards, and in silence upwards. With a security profile a node registers only when the host
has given the modem the node's own device unique key. Not modelled: connections other than 4-32, the ciphering itself,
the time that octets take on the serial line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import PRIME_PHY, Feeder
from concentrator.simulator.prime_data_path import DataPath
from concentrator.simulator.prime_nodes import PrimeNode, RemoteNodes
from concentrator.simulator.prime_services import ModemServices
from concentrator.simulator.prime_tables import information_base, list_records
from concentrator.simulator.prime_upgrade import UpgradeEngine
from concentrator.simulator.scheduler import Scheduler
from concentrator.simulator.simulated_modem import SimulatedModem
from plc.commands import Message
from plc.errors import MessageError
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS
from plc.usi.framing import PROTOCOL_PRIME_API, FrameDecoder, encode_frame

# The application's receive slot is free again after its main loop has come round: assumption.
_PROCESSING_S = 0.002
_RECORDS_PER_CONFIRM = 20
_ALIVE_INTERVAL_S = 1024.0
# How long the base node believes in a node that has gone silent: PRIME's alive time, at its shortest;
# assumption.
_SILENCE_UNTIL_UNREGISTERED_S = 64.0
_CONNECT_S = 2.0
_RETRY_REGISTRATION_S = 8.0
_RETRY_REFUSED_S = 60.0
_KEY_VALUE_SIZE = 22
_FIRST_ADDRESS = 0x0001
_LARGEST_MESSAGE = 1020
_RESERVED_LNIDS = 0x3FFE
# Attributes that a host may write: lengths of the frame structure, the transmit channel, the smoothing of the EVM.
_WRITABLE = (0x0025, 0x002D, 0x002E, 0x00A8, 0x8090)


class PrimeModem(SimulatedModem):
    """The modem and its network. Hand octets from the host to receive_data(); set `output` to get its own.

    `join_spread_s` is the time within which the meters first register; it is divided by the feeder's speed,
    as are all pauses of the protocol but alive times.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        scheduler: Scheduler,
        feeder: Feeder | None = None,
        seed: int = 1,
        output: Callable[[bytes], None] | None = None,
        eui48: bytes = bytes.fromhex("0080E1000001"),
        join_spread_s: float = 60.0,
        generation: str = "harmony",
        alive_interval_s: float = _ALIVE_INTERVAL_S,
        security_profile: int = 0,
        device_keys: Mapping[bytes, bytes] | None = None,
    ) -> None:
        feeder = feeder or Feeder(len(devices), seed, PRIME_PHY)
        super().__init__("prime modem", scheduler, feeder, seed, output, join_spread_s)
        self.eui48 = eui48
        self._harmony = generation == "harmony"
        self._alive_interval_s = alive_interval_s
        self._decoder = FrameDecoder()
        self._pending = False  # the receive slot is taken
        self._nodes = [
            PrimeNode(device, place) for device, place in zip(devices, self.feeder.nodes, strict=True)
        ]
        self._by_place = {node.place.index: node for node in self._nodes}
        self._next_address = _FIRST_ADDRESS
        self._next_lnid = 1
        self._whitelist: set[bytes] = set()
        self._security_profile = security_profile
        self._device_keys = device_keys or {}  # what the nodes hold
        self._known_keys: dict[bytes, bytes] = {}  # what the host has told
        self._expelled: set[bytes] = set()
        self._values = information_base(self.eui48, self._security_profile)
        self._data_path = DataPath(self)
        self._far = RemoteNodes(self)
        self._upgrade = UpgradeEngine(self)
        self.services = ModemServices(
            self,
            lambda: self._values,
            lambda attribute: list(list_records(self, attribute, self._data_path.by_address)),
            self.restart,
        )
        self._handlers = {
            **self._own_handlers(),
            **self._far.handlers(),
            **self._upgrade.handlers(),
            **self.services.handlers(),
        }

    # What tests and the demo use.

    def start(self) -> None:
        """Let the nodes find the network, one after the other, within `join_spread_s`."""
        for node in self._nodes:
            delay_s = self._draws.uniform(0.0, self._join_spread_s)
            self.later(delay_s, lambda node=node: self._come(node))

    def restart(self) -> None:
        """Lose power for a moment: everything is forgotten, and no message tells."""
        self._forget_all()
        self.start()

    def connected_euis(self) -> set[bytes]:
        """EUI-48 of every node with an open 4-32 connection."""
        return {node.device.eui48 for node in self._data_path.by_address.values()}

    def drop(self, eui48: bytes, duration_s: float | None = None) -> None:
        """Make a node unreachable; it comes back after the duration, or not at all when None."""
        self._go(self._find(eui48), duration_s)

    def expelled_euis(self) -> set[bytes]:
        """EUI-48 of every node that the host has expelled."""
        return set(self._expelled)

    def push_apdu(self, eui48: bytes, client_sap: int, server_sap: int, apdu: bytes) -> None:
        """Let a meter send on its own: a data notification."""
        self._data_path.send_up(self._find(eui48), client_sap, server_sap, apdu)

    def receive_data(self, data: bytes) -> None:
        """Take octets from the host."""
        self._decoder.receive_data(data)
        while (frame := self._decoder.next_frame()) is not None:
            protocol, payload = frame
            if protocol != PROTOCOL_PRIME_API and self.services.take_mngp(
                protocol, payload, self._answer_mngp
            ):
                continue
            if protocol != PROTOCOL_PRIME_API or len(payload) > _LARGEST_MESSAGE:
                self.counters.unknown_commands += 1
            elif self._pending:
                self.counters.slot_overruns += 1
            else:
                self._pending = True
                self.after(_PROCESSING_S, lambda payload=payload: self._process(payload))

    def _answer_mngp(self, protocol: int, body: bytes) -> None:
        self.after(_PROCESSING_S, lambda: self.write(encode_frame(protocol, body)))

    # What the parts of the modem use.

    @property
    def nodes(self) -> Sequence[PrimeNode]:
        """All nodes."""
        return self._nodes

    def disappear(self, node: PrimeNode, duration_s: float) -> None:
        """Make a node restart: it is away for a while."""
        self._go(node, duration_s)

    def send(self, command: int, **values: int | bytes | None) -> None:
        """Send a message to the host."""
        self.write(encode_frame(PROTOCOL_PRIME_API, COMMANDS.encode(command, **values)))

    def reachable(self, node: PrimeNode) -> bool:
        """Whether a node and all before it hear."""
        return all(self._by_place[place.index].heard for place in node.place.path())

    # The life of a node.

    def _find(self, eui48: bytes) -> PrimeNode:
        return next(node for node in self._nodes if node.device.eui48 == eui48)

    def _come(self, node: PrimeNode) -> None:
        node.heard = True
        node.visit += 1
        self._plan_drop(node)
        self._register(node, node.visit)

    def _plan_drop(self, node: PrimeNode) -> None:
        delay_s = self.feeder.time_until_drop_s(node.place, self.now())
        if delay_s is not None:
            visit = node.visit
            self.after(delay_s, lambda: self._drop_planned(node, visit))

    def _drop_planned(self, node: PrimeNode, visit: int) -> None:
        if node.visit == visit:
            self._go(node, self.feeder.outage_s(node.place, self.now()))

    def _register(self, node: PrimeNode, visit: int) -> None:
        if node.visit != visit or not node.heard or node.device.eui48 in self._expelled:
            return
        parent = self._parent_of(node)
        if parent is not None and not parent.registered:
            delay_s = _RETRY_REGISTRATION_S * self._draws.uniform(0.7, 1.3)
            self.later(delay_s, lambda: self._register(node, visit))
            return
        has_place = parent is None or parent.switch or self._promote(parent)
        if not has_place or not self._may_register(node):
            self.later(_RETRY_REFUSED_S, lambda: self._register(node, visit))
            return
        # Back before it was missed: the old registration ends here.
        self._unregister(node)
        node.registered = True
        node.switch = False
        node.lsid = 0xFF
        node.sid = 0 if parent is None else parent.lsid
        node.lnid = self._next_lnid
        self._next_lnid = self._next_lnid % (_RESERVED_LNIDS - 1) + 1
        self._network_event(enumerations.EVENT_REGISTER, node)
        self._plan_alive(node, visit)
        self.later(_CONNECT_S * self._draws.uniform(0.5, 1.5), lambda: self._connect(node, visit))

    def _parent_of(self, node: PrimeNode) -> PrimeNode | None:
        """Whose beacons it hears: its parent's, else those of another switch, under which it then hangs."""
        place = node.place
        if place.parent is None:
            return None
        parent = self._by_place[place.parent.index]
        if parent.registered:
            return parent
        for other, _ in place.others:
            found = self._by_place[other.index]
            if found.registered and found.switch:
                place.hang_under(other)
                return found
        return parent

    def _may_register(self, node: PrimeNode) -> bool:
        eui48 = node.device.eui48
        event = None
        if self._values[pib.WHITELIST_ENABLED] != b"\x00" and eui48 not in self._whitelist:
            event = enumerations.EVENT_UNKNOWN_NODE
        elif self._security_profile and eui48 not in self._known_keys:
            event = enumerations.EVENT_NO_DUK
        if event is not None:
            self._network_event(event, node)
            return False
        # With another key the node's registration does not authenticate, and nothing is told.
        return not self._security_profile or self._known_keys[eui48] == self._device_keys.get(eui48)

    def _free_lsid(self) -> int | None:
        used = {other.lsid for other in self._nodes if other.switch}
        return next((lsid for lsid in range(1, 0xFF) if lsid not in used), None)

    def _promote(self, node: PrimeNode) -> bool:
        """Make a node a switch, unless all 254 identifiers of switches are in use: the base then declines."""
        free = self._free_lsid()
        if free is None:
            return False
        node.lsid, node.switch = free, True
        self._network_event(enumerations.EVENT_PROMOTE, node)
        return True

    def _connect(self, node: PrimeNode, visit: int) -> None:
        if node.visit != visit or not node.registered or node.connected:
            return
        node.address = self._free_address()
        self._data_path.by_address[node.address] = node
        self.counters.joins += 1
        self.send(
            commands.CL_432_JOIN_INDICATION,
            device_id=node.device.identity.encode("ascii")[:16],
            address=node.address,
            mac=node.device.eui48 + (b"\x00\x00" if self._harmony else b""),
            authenticated_encryption=0,
        )

    def _free_address(self) -> int:
        while self._next_address in self._data_path.by_address:
            self._next_address += 1
        address = self._next_address
        self._next_address += 1
        if self._next_address >= commands.FIRST_RESERVED_ADDRESS:
            self._next_address = _FIRST_ADDRESS
        return address

    def _plan_alive(self, node: PrimeNode, visit: int) -> None:
        delay_s = self._alive_interval_s * self._draws.uniform(0.8, 1.2)
        self.after(delay_s, lambda: self._alive(node, visit))

    def _alive(self, node: PrimeNode, visit: int) -> None:
        if node.visit == visit and node.registered and node.heard:
            self._network_event(enumerations.EVENT_ALIVE, node)
            self._plan_alive(node, visit)

    def _go(self, node: PrimeNode, duration_s: float | None) -> None:
        if not node.heard:
            return
        self.counters.drops += 1
        node.heard = False
        node.visit += 1
        visit = node.visit
        node.device.link_lost()
        self.later(_SILENCE_UNTIL_UNREGISTERED_S, lambda: self._give_up(node, visit))
        if duration_s is not None:
            self.after(duration_s, lambda: self._come(node) if node.visit == visit else None)

    def _give_up(self, node: PrimeNode, visit: int) -> None:
        if node.visit == visit:
            self._unregister(node)

    def _unregister(self, node: PrimeNode) -> None:
        if not node.registered:
            return
        self._disconnect(node)
        self._network_event(enumerations.EVENT_UNREGISTER, node)
        node.registered = False
        was_switch, node.switch = node.switch, False
        if was_switch:
            self._release_children(node)

    def _release_children(self, node: PrimeNode) -> None:
        """Its children lose their beacons with a switch, and look for the network again."""
        for child in self._nodes:
            if child.place.parent is node.place and child.heard and child.registered:
                child.device.link_lost()
                self._unregister(child)
                child.visit += 1
                self._plan_drop(child)
                visit = child.visit
                self.later(
                    _RETRY_REGISTRATION_S, lambda child=child, visit=visit: self._register(child, visit)
                )

    def _disconnect(self, node: PrimeNode) -> None:
        if node.address is None:
            return
        address, node.address = node.address, None
        self._data_path.by_address.pop(address, None)
        self.send(commands.CL_432_LEAVE_INDICATION, address=address)

    def _network_event(self, event: int, node: PrimeNode) -> None:
        channel: dict[str, int] = {"pch": 1, "pch_lsid": 0} if self._harmony else {}
        self.send(
            commands.NETWORK_EVENT_INDICATION,
            event=event,
            eui48=node.device.eui48,
            sid=node.sid,
            lnid=node.lnid,
            lsid=node.lsid,
            alive_rx=7,
            alive_tx=7,
            alive_time=5,
            **channel,
        )

    def _forget_all(self) -> None:
        self._epoch += 1
        self._decoder.reset()
        self._pending = False
        self._data_path.forget()
        self._next_address = _FIRST_ADDRESS
        self._next_lnid = 1
        self._expelled = set()
        self._whitelist = set()
        self._known_keys = {}
        self._values = information_base(self.eui48, self._security_profile)
        self._upgrade.forget()
        self.services.forget()
        for node in self._nodes:
            if node.registered:
                node.device.link_lost()
            node.visit += 1
            node.heard = node.registered = node.switch = False
            node.address = None

    # Requests of the host.

    def _process(self, payload: bytes) -> None:
        self._pending = False
        try:
            message = COMMANDS.decode(payload)
        except MessageError:
            self.counters.unknown_commands += 1
            return
        handler = self._handlers.get(message.command)
        if handler is None:
            self.counters.unknown_commands += 1
        else:
            handler(message)

    def _get(self, message: Message) -> None:
        attribute = message.number("pib")
        value = self._values.get(attribute)
        result = enumerations.MLME_BAD_ATTRIBUTE if value is None else enumerations.MLME_SUCCESS
        if message.command == commands.MLME_GET_REQUEST:
            self.send(commands.MLME_GET_CONFIRM, result=result, pib=attribute, value=value or b"")
            return
        result = min(result, 2)
        pch = message.values["pch"] if self._harmony else None
        self.send(commands.PLME_GET_CONFIRM, result=result, pib=attribute, value=value or b"", pch=pch)

    def _set(self, message: Message) -> None:
        attribute = message.number("pib")
        value = message.octets("value")
        result = enumerations.MLME_READ_ONLY
        if attribute == pib.ACTION_UNREGISTER:
            nodes = [node for node in self._nodes if node.device.eui48 == value and node.registered]
            result = enumerations.MLME_SUCCESS if nodes else 4
            for node in nodes:
                self._expelled.add(value)
                node.device.link_lost()
                self.later(_CONNECT_S, lambda node=node: self._unregister(node))
        elif attribute == pib.ACTION_DEMOTE:
            nodes = [node for node in self._nodes if node.device.eui48 == value and node.switch]
            result = enumerations.MLME_SUCCESS if nodes else 4
            for node in nodes:
                self._demote(node)
        elif attribute == pib.DEVICE_UNIQUE_KEY:
            result = enumerations.MLME_SUCCESS if len(value) == _KEY_VALUE_SIZE else 12
            self._known_keys[value[:6]] = value[6:]
        elif attribute == pib.WHITELIST_ENABLED and len(value) == 1:
            self._values[attribute] = value
            result = enumerations.MLME_SUCCESS
        elif attribute not in self._values:
            result = enumerations.MLME_BAD_ATTRIBUTE
        elif attribute in _WRITABLE and len(value) == len(self._values[attribute]):
            self._values[attribute] = value
            result = enumerations.MLME_SUCCESS
        if message.command == commands.MLME_SET_REQUEST:
            self.send(commands.MLME_SET_CONFIRM, result=result)
        else:
            pch = message.values["pch"] if self._harmony else None
            self.send(commands.PLME_SET_CONFIRM, result=min(result, 2), pch=pch)

    def _list(self, message: Message) -> None:
        attribute = message.number("pib")
        records = list(list_records(self, attribute, self._data_path.by_address))
        if not records and attribute not in (pib.LIST_REGISTERED_DEVICES, pib.LIST_432_NODES):
            result = enumerations.MLME_BAD_ATTRIBUTE
            self.send(commands.MLME_LIST_GET_CONFIRM, result=result, pib=attribute, records=b"")
            return
        parts = [
            b"".join(records[first : first + _RECORDS_PER_CONFIRM])
            for first in range(0, len(records), _RECORDS_PER_CONFIRM)
        ]
        for part in [*parts, b""]:
            self.send(commands.MLME_LIST_GET_CONFIRM, result=0, pib=attribute, records=part)

    def _reset(self, message: Message) -> None:  # noqa: ARG002 one signature for all handlers
        self._forget_all()
        self.send(commands.MLME_RESET_CONFIRM, result=enumerations.MLME_SUCCESS)
        self.start()

    def _release(self, message: Message) -> None:
        node = self._data_path.by_address.get(message.number("address"))
        if node is not None:
            node.device.link_lost()
            self._disconnect(node)
            visit = node.visit
            self.later(_RETRY_REGISTRATION_S, lambda: self._connect(node, visit))

    def _whitelist_change(self, message: Message) -> None:
        if message.command == commands.WHITELIST_ADD_REQUEST:
            self._whitelist.add(message.octets("eui48"))
        else:
            self._whitelist.discard(message.octets("eui48"))
        self.send(commands.WHITELIST_ACK, echoed_command=message.command, ack=0)

    def _promote_requested(self, message: Message) -> None:
        nodes = [node for node in self._nodes if node.device.eui48 == message.octets("eui48")]
        ready = bool(nodes) and nodes[0].registered and not nodes[0].switch and self._free_lsid() is not None
        multi = message.command == commands.MLME_MULTI_PHY_PROMOTE_REQUEST
        confirm = commands.MLME_MULTI_PHY_PROMOTE_CONFIRM if multi else commands.MLME_PROMOTE_CONFIRM
        self.send(confirm, result=0 if ready else 4)
        if ready:
            self._promote(nodes[0])

    def _plme_reset(self, message: Message) -> None:
        pch = message.values["pch"] if self._harmony else None
        self.send(commands.PLME_RESET_CONFIRM, result=0, pch=pch)

    def _demote(self, node: PrimeNode) -> None:
        node.switch = False
        node.lsid = 0xFF
        self._network_event(enumerations.EVENT_DEMOTE, node)
        # Its children have no beacons any more; looking for the network they promote it again.
        self._release_children(node)

    def _own_handlers(self) -> dict[int, Callable[[Message], None]]:
        return {
            commands.MLME_GET_REQUEST: self._get,
            commands.PLME_GET_REQUEST: self._get,
            commands.MLME_SET_REQUEST: self._set,
            commands.PLME_SET_REQUEST: self._set,
            commands.PLME_RESET_REQUEST: self._plme_reset,
            commands.MLME_MULTI_PHY_PROMOTE_REQUEST: self._promote_requested,
            commands.MLME_LIST_GET_REQUEST: self._list,
            commands.MLME_RESET_REQUEST: self._reset,
            commands.CL_432_RELEASE_REQUEST: self._release,
            commands.CL_432_DL_DATA_REQUEST: self._data_path.take_request,
            commands.WHITELIST_ADD_REQUEST: self._whitelist_change,
            commands.WHITELIST_REMOVE_REQUEST: self._whitelist_change,
            commands.MLME_PROMOTE_REQUEST: self._promote_requested,
        }
