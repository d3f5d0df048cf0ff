"""A simulated G3-PLC coordinator modem of generation B: it has the bootstrap server, the host decides.

EAP-PSK on the air is modelled by its airtime, and by whether the device's PSK is the network's. Not modelled:
rekeying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import Feeder
from concentrator.simulator.g3_modem_base import DECLINED_PAUSE_S, RETRY_JOIN_S, G3ModemBase, G3Node
from concentrator.simulator.scheduler import Scheduler
from plc.commands import Message
from plc.g3 import commands, enumerations

_LBP_MESSAGE_TIMEOUT_S = 300.0
# EAP-PSK: four messages of this size with LBP and EAP headers; assumption within what RFC 4764 gives.
_EAP_MESSAGES = 4
_EAP_OCTETS = 90
_KEY_SIZE = 16


class G3Modem(G3ModemBase):
    """The modem and its network.

    `device_psk` is the key that the devices hold; those behind a modem with another one never get in.
    """

    _FIRST_COMMANDS = (commands.INITIALIZE_REQUEST, commands.LBP_SET_REQUEST)

    def __init__(
        self,
        devices: Sequence[Device],
        scheduler: Scheduler,
        feeder: Feeder | None = None,
        seed: int = 1,
        output: Callable[[bytes], None] | None = None,
        eui64: bytes = bytes(8),
        device_psk: bytes | None = None,
        join_spread_s: float = 120.0,
    ) -> None:
        super().__init__(devices, scheduler, feeder, seed, output, eui64, join_spread_s)
        self._device_psk = device_psk
        self._psk = b""
        self._handlers.update(
            {
                commands.INITIALIZE_REQUEST: self._initialize_as_coordinator,
                commands.LBP_SET_REQUEST: self._lbp_set,
                commands.SHORT_ADDRESS_ASSIGN: self._assign,
                commands.KICK_REQUEST: self._kick,
            }
        )

    def _is_member(self, node: G3Node) -> bool:
        return self._pan_id is not None and node.membership == (self._pan_id, self._gmk)

    def _ask_to_join(self, node: G3Node, visit: int) -> None:
        if node.visit != visit or not node.heard or self._is_member(node) or self._pan_id is None:
            return
        parent = self._by_place[node.place.parent.index] if node.place.parent is not None else None
        if parent is not None and not self._reachable(parent):
            self._seek(node, RETRY_JOIN_S * self._draws.uniform(0.7, 1.3))
            return
        node.bootstrapping = True
        transfer = self.feeder.transfer(node.place, _EAP_OCTETS, self.now())
        if not transfer.delivered:
            self._seek(node, RETRY_JOIN_S)
            return
        self.after(
            transfer.duration_s,
            lambda: self._send(commands.JOIN_REQUEST_INDICATION, eui64=node.device.eui64),
        )
        self._seek(node, _LBP_MESSAGE_TIMEOUT_S)

    def _assign(self, message: Message) -> None:
        address = message.number("short_address")
        nodes = [node for node in self._nodes if node.device.eui64 == message.octets("eui64")]
        if not nodes or not nodes[0].bootstrapping:
            return
        node = nodes[0]
        node.bootstrapping = False
        node.visit += 1
        self._plan_drop(node)
        if address == commands.DECLINE:
            self._seek(node, DECLINED_PAUSE_S)
            return
        if self._device_psk is not None and self._device_psk != self._psk:
            self.counters.failed_authentications += 1
            self._seek(node, DECLINED_PAUSE_S)
            return
        now = self.now()
        transfers = [self.feeder.transfer(node.place, _EAP_OCTETS, now) for _ in range(_EAP_MESSAGES)]
        visit = node.visit
        if all(transfer.delivered for transfer in transfers):
            self.after(transfers[-1].duration_s, lambda: self._complete(node, address, visit))
        else:
            self._seek(node, RETRY_JOIN_S)

    def _complete(self, node: G3Node, address: int, visit: int) -> None:
        if node.visit != visit or not node.heard or self._pan_id is None:
            return
        node.short_address = address
        node.membership = (self._pan_id, self._gmk)
        self.counters.joins += 1
        self._send(commands.JOIN_COMPLETE_INDICATION, eui64=node.device.eui64, short_address=address)

    def _initialize_as_coordinator(self, message: Message) -> None:
        if message.values["role"] != enumerations.ROLE_COORDINATOR:
            self._refuse(enumerations.SERIAL_INVALID_PARAMETER, message.command)
            return
        self._psk = b""
        self._initialize(
            lambda: self._send(
                commands.STATUS,
                status=enumerations.SERIAL_SUCCESS,
                refused_command=commands.INITIALIZE_REQUEST,
            )
        )

    def _lbp_set(self, message: Message) -> None:
        attribute, index, value = (
            message.number("attribute"),
            message.number("index"),
            message.octets("value"),
        )
        status = enumerations.LBP_SUCCESS
        if attribute in (commands.LBP_PSK, commands.LBP_GMK) and len(value) != _KEY_SIZE:
            status = 4
        elif attribute == commands.LBP_PSK:
            self._psk = value
        elif attribute == commands.LBP_GMK:
            self._gmk = value
        elif attribute not in (commands.LBP_IDS, commands.LBP_REKEY_GMK, commands.LBP_MESSAGE_TIMEOUT):
            status = 2
        self._send(commands.LBP_SET_CONFIRM, lbp_status=status, attribute=attribute, index=index)

    def _kick(self, message: Message) -> None:
        for node in self._nodes:
            if node.device.eui64 == message.octets("eui64") and self._is_member(node):
                node.membership = None
                node.visit += 1
                node.device.link_lost()
                self._plan_drop(node)
                self._seek(node, DECLINED_PAUSE_S)
