"""A simulated G3-PLC coordinator modem of generation A: the host is the bootstrap server.

It carries LBP frames (ADPM_LBP) between the host and its devices, which do EAP-PSK by themselves (g3_device.py),
and holds the group keys of its MAC. Devices refuse frames whose counter is lower than one that they have seen, as
G.9903's MAC does: a host that does not keep the counter over a restart of the modem talks to nobody.

As its firmware does not document it, the modem says nothing to ADP_INITIALIZE. Every `counter_step` frames it asks
for its frame counter to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import Feeder
from concentrator.simulator.g3_device import BootstrapDevice
from concentrator.simulator.g3_modem_base import DECLINED_PAUSE_S, RETRY_JOIN_S, G3ModemBase
from concentrator.simulator.g3_tables import G3Node
from concentrator.simulator.scheduler import Scheduler
from plc.commands import Message
from plc.g3 import commands, enumerations, ib

_LBP_TIMEOUT_S = 120.0
_COUNTER_STEP = 1000
_SHORT_ADDRESS_OCTETS = 2
_KEY_SIZE = 16


class G3ModemA(G3ModemBase):
    """The modem and its network. `device_psks` maps the EUI-64 of each device to its key, or is one for all."""

    def __init__(
        self,
        devices: Sequence[Device],
        scheduler: Scheduler,
        feeder: Feeder | None = None,
        seed: int = 1,
        output: Callable[[bytes], None] | None = None,
        eui64: bytes = bytes(8),
        device_psks: Mapping[bytes, bytes] | bytes = bytes(16),
        join_spread_s: float = 120.0,
        counter_step: int = _COUNTER_STEP,
    ) -> None:
        self._keys: dict[int, bytes] = {}
        self._active_index = 0
        self._frame_counter = 0
        super().__init__(devices, scheduler, feeder, seed, output, eui64, join_spread_s)
        self._counter_step = counter_step
        self._bootstraps = {
            device.eui64: BootstrapDevice(
                device.eui64,
                device_psks if isinstance(device_psks, bytes) else device_psks[device.eui64],
                self._draws,
            )
            for device in devices
        }
        self._highest_counter: dict[bytes, int] = {}
        self._handlers.update(
            {
                commands.INITIALIZE_REQUEST: self._initialize_silently,
                commands.LBP_REQUEST: self._lbp_request,
                commands.MAC_SET_REQUEST: self._mac_set_a,
                commands.SET_REQUEST: self._adp_set_a,
            }
        )

    # What tests use.

    def bootstrap_of(self, eui64: bytes) -> BootstrapDevice:
        """What a device knows."""
        return self._bootstraps[eui64]

    def leave(self, eui64: bytes) -> None:
        """Let a device leave the network on its own, for good."""
        node = self._find(eui64)
        if not self._is_member(node):
            return
        source = node.short_address or 0
        frame = self._bootstraps[eui64].leaving()
        node.visit += 1
        node.device.link_lost()
        self._indicate(source, frame, node)

    # Membership is what the device's keys say.

    def _forget(self) -> None:
        super()._forget()
        self._keys = {}
        self._active_index = 0
        self._frame_counter = 0

    def _is_member(self, node: G3Node) -> bool:
        bootstrap = self._bootstraps[node.device.eui64]
        key = self._keys.get(self._active_index)
        return (
            self._pan_id is not None
            and node.membership is not None
            and node.membership[0] == self._pan_id
            and bootstrap.joined
            and key is not None
            and bootstrap.group_keys.get(self._active_index) == key
            # What the device sends has to be decoded too.
            and self._keys.get(bootstrap.active_index) == bootstrap.group_keys.get(bootstrap.active_index)
            and self._frame_counter >= self._highest_counter.get(node.device.eui64, 0)
        )

    def _count_frame(self, node: G3Node) -> None:
        self._frame_counter += 1
        for place in node.place.path():
            hop = self._by_place[place.index]
            if self._is_member(hop):
                self._highest_counter[hop.device.eui64] = self._frame_counter
        if self._frame_counter % self._counter_step == 0:
            self._send(commands.NON_VOLATILE_DATA_INDICATION)

    # The host's requests.

    def _initialize_silently(self, message: Message) -> None:  # noqa: ARG002 one signature for all handlers
        self._initialize(lambda: None)

    def _mac_set_a(self, message: Message) -> None:
        attribute, index, value = (
            message.number("attribute"),
            message.number("index"),
            message.octets("value"),
        )
        if attribute == ib.MAC_KEY_TABLE:
            right = len(value) == _KEY_SIZE and index in (0, 1)
            if right:
                self._keys[index] = value
            status = enumerations.MAC_SUCCESS if right else 0xE8
            self._send(commands.MAC_SET_CONFIRM, mac_status=status, attribute=attribute, index=index)
            return
        if attribute == ib.MAC_FRAME_COUNTER:
            self._frame_counter = int.from_bytes(value, "big")
        self._mac_set(message)

    def _adp_set_a(self, message: Message) -> None:
        if message.number("attribute") == ib.ADP_ACTIVE_KEY_INDEX:
            self._active_index = message.octets("value")[0]
        self._adp_set(message)

    def _mac_get(self, message: Message) -> None:
        if message.number("attribute") == ib.MAC_FRAME_COUNTER:
            self._mac[(ib.MAC_FRAME_COUNTER, 0)] = self._frame_counter.to_bytes(4, "big")
        super()._mac_get(message)

    def _data(self, message: Message) -> None:
        node = self._addressed(message.octets("packet"))
        if node is not None:
            self._count_frame(node)
        super()._data(message)

    def _addressed(self, packet: bytes) -> G3Node | None:
        return self._member(int.from_bytes(packet[38:40], "big"))

    # Bootstrapping.

    def _ask_to_join(self, node: G3Node, visit: int) -> None:
        if node.visit != visit or not node.heard or self._is_member(node) or self._pan_id is None:
            return
        bootstrap = self._bootstraps[node.device.eui64]
        parent = self._by_place[node.place.parent.index] if node.place.parent is not None else None
        if parent is not None and not self._reachable(parent):
            self._seek(node, RETRY_JOIN_S * self._draws.uniform(0.7, 1.3))
            return
        bootstrap.forget()
        node.bootstrapping = True
        self._indicate(self._agent_of(node), bootstrap.first_joining(), node)
        self._seek(node, _LBP_TIMEOUT_S * self._draws.uniform(0.8, 1.2))

    def _agent_of(self, node: G3Node) -> int:
        """The short address that a joining device's frames come from; 0 when the coordinator hears it itself."""
        if node.place.parent is None:
            return 0
        return self._by_place[node.place.parent.index].short_address or 0

    def _indicate(self, source: int, frame: bytes, node: G3Node) -> None:
        now = self.now()
        transfer = self.feeder.transfer(node.place, len(frame), now)
        if not transfer.delivered:
            return
        quality = self.feeder.link_quality(node.place.path()[0], now)
        self.after(
            transfer.duration_s,
            lambda: self._send(
                commands.LBP_INDICATION,
                source=source,
                frame=frame,
                link_quality=quality,
                security=5 if source else 0,
            ),
        )

    def _lbp_request(self, message: Message) -> None:
        size, handle = message.number("address_size"), message.number("handle")
        octets = message.octets("address_and_frame")
        address, frame = octets[:size], octets[size:]

        def confirm(status: int) -> None:
            self._send(commands.LBP_CONFIRM, status=status, handle=handle)

        if len(frame) != message.number("length") or size not in (_SHORT_ADDRESS_OCTETS, 8):
            confirm(0xA1)
            return
        node = self._target(address, frame[2:10])
        # Under the group key to those who have it, and in the open to those who have not.
        if node is None or message.number("security") != (1 if size == _SHORT_ADDRESS_OCTETS else 0):
            self.later(8.0, lambda: confirm(enumerations.ADP_ROUTE_ERROR))
            return
        self._count_frame(node)
        transfer = self.feeder.transfer(node.place, len(frame), self.now())
        if not transfer.delivered or not node.heard:
            self.after(transfer.duration_s, lambda: confirm(enumerations.ADP_ROUTE_ERROR))
            return

        def arrive() -> None:
            confirm(enumerations.ADP_SUCCESS)
            self._deliver_lbp(node, frame)

        self.after(transfer.duration_s, arrive)

    def _target(self, address: bytes, eui64: bytes) -> G3Node | None:
        """The device that a frame to this address ends at: itself, or the one that asks through this agent."""
        nodes = [node for node in self._nodes if node.device.eui64 == eui64]
        if not nodes:
            return None
        node = nodes[0]
        if len(address) != _SHORT_ADDRESS_OCTETS:
            return node if node.place.parent is None and address == eui64 else None
        short_address = int.from_bytes(address, "big")
        if self._is_member(node) and node.short_address == short_address:
            return node if self._reachable(node) else None
        if node.place.parent is None:
            return None
        agent = self._by_place[node.place.parent.index]
        return node if agent.short_address == short_address and self._reachable(agent) else None

    def _deliver_lbp(self, node: G3Node, frame: bytes) -> None:
        bootstrap = self._bootstraps[node.device.eui64]
        was_joined = bootstrap.joined
        answer = bootstrap.receive_frame(frame)
        if bootstrap.joined and not was_joined:
            node.bootstrapping = False
            node.visit += 1
            node.short_address = bootstrap.short_address
            node.membership = (self._pan_id or 0, b"")
            self._highest_counter[node.device.eui64] = 0
            self.counters.joins += 1
            self._plan_drop(node)
        elif was_joined and not bootstrap.joined:
            node.visit += 1
            node.device.link_lost()
            self._plan_drop(node)
            self._seek(node, DECLINED_PAUSE_S)
        elif frame[0] >> 4 == 0xB and not bootstrap.joined:
            self.counters.failed_authentications += 1
            node.visit += 1
            self._plan_drop(node)
            self._seek(node, DECLINED_PAUSE_S)
        if answer is not None:
            source = node.short_address if bootstrap.joined and node.short_address else self._agent_of(node)
            self._indicate(source, answer, node)
