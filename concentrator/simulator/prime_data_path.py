"""How a simulated PRIME base node carries APDUs: CL_432_DL_DATA over the feeder, one request at a time."""

from __future__ import annotations

from collections.abc import Callable

from concentrator.simulator.prime_nodes import Base, PrimeNode
from plc.commands import Message
from plc.prime import commands, enumerations

_CONFIRM_S = 0.001


class DataPath:
    """The open 4-32 connections by their address, and what travels on them."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self.by_address: dict[int, PrimeNode] = {}
        self.sending = False  # a CL_432_DL_DATA.request is not yet confirmed

    def forget(self) -> None:
        """Lose all connections, as by a restart."""
        self.by_address = {}
        self.sending = False

    def take_request(self, message: Message) -> None:
        """Carry an APDU of the host to its node, or to all."""
        address = message.number("destination_address")
        server_sap = message.number("destination_lsap")
        client_sap = message.number("source_lsap")
        apdu = message.octets("data")

        def confirm(status: int) -> None:
            self._base.send(
                commands.CL_432_DL_DATA_CONFIRM,
                destination_lsap=server_sap,
                source_lsap=client_sap,
                destination_address=address,
                transmit_status=status,
            )

        def done(status: int) -> None:
            self.sending = False
            confirm(status)

        if self.sending:
            self._base.after(_CONFIRM_S, lambda: confirm(0x81))
            return
        if address == commands.BROADCAST_ADDRESS:
            self.sending = True
            self._broadcast(client_sap, server_sap, apdu, done)
            return
        node = self.by_address.get(address)
        if node is None:
            self._base.after(_CONFIRM_S, lambda: confirm(enumerations.TRANSMIT_BAD_ADDRESS))
            return
        self.sending = True
        now = self._base.now()
        self._base.counters.apdus_down += 1
        if self._base.reachable(node):
            transfer = self._base.feeder.transfer(node.place, len(apdu), now)
        else:
            transfer = self._base.feeder.attempt_in_vain(node.place, len(apdu), now)
        if not transfer.delivered:
            self._base.counters.apdus_lost_down += 1
            self._base.after(transfer.duration_s, lambda: done(enumerations.TRANSMIT_TIMEOUT))
            return

        def arrive() -> None:
            done(enumerations.TRANSMIT_SUCCESS)
            self._deliver(node, client_sap, server_sap, apdu)

        self._base.after(transfer.duration_s, arrive)

    def _deliver(self, node: PrimeNode, client_sap: int, server_sap: int, apdu: bytes) -> None:
        visit = node.visit

        def reply(answer: bytes) -> None:
            if node.visit == visit:
                self.send_up(node, client_sap, server_sap, answer)

        node.device.receive_apdu(client_sap, server_sap, apdu, reply)

    def _broadcast(self, client_sap: int, server_sap: int, apdu: bytes, done: Callable[[int], None]) -> None:
        # Unacknowledged: each switch repeats the frames once, and each node has one chance to hear them.
        now = self._base.now()
        phy = self._base.feeder.phy
        segments = -(-max(1, len(apdu)) // phy.segment_octets)
        switches = sum(1 for node in self._base.nodes if node.switch)
        airtime_s = (
            phy.airtime_s(min(len(apdu), phy.segment_octets), phy.modulations[-1]) - phy.acknowledgement_s
        )
        heard = [
            node
            for node in self.by_address.values()
            if self._base.reachable(node)
            and node.place.draws.random() >= self._base.feeder.frame_loss(node.place, now) * segments
        ]

        def arrive() -> None:
            done(enumerations.TRANSMIT_SUCCESS)
            for node in heard:
                self._deliver(node, client_sap, server_sap, apdu)

        self._base.later((1 + switches) * segments * airtime_s, arrive)

    def send_up(self, node: PrimeNode, client_sap: int, server_sap: int, apdu: bytes) -> None:
        """Carry an APDU of a node to the host."""
        address = node.address
        if address is None or not self._base.reachable(node):
            self._base.counters.apdus_lost_up += 1
            return
        transfer = self._base.feeder.transfer(node.place, len(apdu), self._base.now())
        if not transfer.delivered or len(apdu) > commands.LARGEST_APDU:
            self._base.counters.apdus_lost_up += 1
            return

        def arrive() -> None:
            self._base.counters.apdus_up += 1
            self._base.send(
                commands.CL_432_DL_DATA_INDICATION,
                destination_lsap=client_sap,
                source_lsap=server_sap,
                destination_address=0,
                source_address=address,
                data=apdu,
                link_class=0,
            )

        self._base.after(transfer.duration_s, arrive)
