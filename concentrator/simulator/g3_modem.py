"""A simulated G3-PLC coordinator modem of generation B: it has the bootstrap server, the host decides.

EAP-PSK on the air is modelled by its airtime, and by whether the device's PSK is the network's. A rekeyed device is
told as joined again with `rekey_confirms`, which public sources leave open. A device that got the new key and the
order to use it lives on; one that missed either has to join anew once the modem uses the new key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import Feeder
from concentrator.simulator.g3_modem_base import DECLINED_PAUSE_S, RETRY_JOIN_S, G3ModemBase
from concentrator.simulator.g3_tables import G3Node
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
        rekey_confirms: bool = True,
    ) -> None:
        super().__init__(devices, scheduler, feeder, seed, output, eui64, join_spread_s)
        self._device_psk = device_psk
        self._psk = b""
        self._rekey_confirms = rekey_confirms
        self._rekey_gmk = b""
        self._rekey_phase = False
        self._holders: set[bytes] = set()  # who has the new key
        self._activated: set[bytes] = set()  # who uses it
        self._handlers.update(
            {
                commands.INITIALIZE_REQUEST: self._initialize_as_coordinator,
                commands.LBP_SET_REQUEST: self._lbp_set,
                commands.SHORT_ADDRESS_ASSIGN: self._assign,
                commands.KICK_REQUEST: self._kick,
                commands.REKEY_REQUEST: self._rekey,
                commands.SET_REKEY_PHASE: self._set_rekey_phase,
                commands.ACTIVATE_NEW_KEY: self._activate_new_key,
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
        if (
            attribute in (commands.LBP_PSK, commands.LBP_GMK, commands.LBP_REKEY_GMK)
            and len(value) != _KEY_SIZE
        ):
            status = 4
        elif attribute == commands.LBP_PSK:
            self._psk = value
        elif attribute == commands.LBP_GMK:
            self._gmk = value
        elif attribute == commands.LBP_REKEY_GMK:
            self._rekey_gmk = value
            self._holders, self._activated = set(), set()
        elif attribute not in (commands.LBP_IDS, commands.LBP_MESSAGE_TIMEOUT):
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

    # The group key.

    def _set_rekey_phase(self, message: Message) -> None:
        self._rekey_phase = message.number("start") != 0

    def _rekey(self, message: Message) -> None:
        nodes = [node for node in self._nodes if node.device.eui64 == message.octets("eui64")]
        if not nodes or not self._rekey_gmk or not self._is_member(nodes[0]):
            self._refuse(enumerations.SERIAL_INVALID_PARAMETER, message.command)
            return
        node, distribute = nodes[0], message.number("distribute") != 0
        if distribute != self._rekey_phase:
            self._refuse(enumerations.SERIAL_NOT_ALLOWED, message.command)
            return
        messages = _EAP_MESSAGES if distribute else 1
        now = self.now()
        transfers = [self.feeder.transfer(node.place, _EAP_OCTETS, now) for _ in range(messages)]
        if not self._reachable(node) or not all(transfer.delivered for transfer in transfers):
            return

        def given() -> None:
            (self._holders if distribute else self._activated).add(node.device.eui64)
            if distribute and self._rekey_confirms and node.short_address is not None:
                self._send(
                    commands.JOIN_COMPLETE_INDICATION,
                    eui64=node.device.eui64,
                    short_address=node.short_address,
                )

        self.after(transfers[-1].duration_s, given)

    def _activate_new_key(self, message: Message) -> None:  # noqa: ARG002 one signature for all handlers
        if not self._rekey_gmk or self._pan_id is None:
            return
        old, self._gmk, self._rekey_gmk = self._gmk, self._rekey_gmk, b""
        for node in self._nodes:
            if node.membership != (self._pan_id, old):
                continue
            if node.device.eui64 in self._holders & self._activated:
                node.membership = (self._pan_id, self._gmk)
            else:
                node.membership = None
                node.visit += 1
                node.device.link_lost()
                self._plan_drop(node)
                self._seek(node, RETRY_JOIN_S)
