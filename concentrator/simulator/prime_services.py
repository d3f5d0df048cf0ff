"""What a simulated PRIME base node does beside its daily work: multicast groups, promotion, MNGP to itself.

The handles of groups are the modem's; the handle of an invitation names the group that exists, or a new one. The data
of a multicast goes out once, each switch repeats it once, and every member has one chance for each frame.
"""

from __future__ import annotations

from collections.abc import Callable

from concentrator.simulator.prime_nodes import Base, PrimeNode
from plc.commands import Message
from plc.errors import MessageError
from plc.prime import commands, mngp, pib
from plc.usi.framing import (
    PROTOCOL_MNGP_GET_QUERY,
    PROTOCOL_MNGP_GET_RESPONSE,
    PROTOCOL_MNGP_LIST_QUERY,
    PROTOCOL_MNGP_LIST_RESPONSE,
    PROTOCOL_MNGP_REBOOT,
    PROTOCOL_MNGP_RESET_STATISTICS,
    PROTOCOL_MNGP_SET,
)

_JOIN_S = 3.0
_NO_SUCH_DEVICE = 4


class ModemServices:
    """Groups by handle, and the modem's own answers to MNGP."""

    def __init__(
        self,
        base: Base,
        values: Callable[[], dict[int, bytes]],
        records: Callable[[int], list[bytes]],
        restart: Callable[[], None],
    ) -> None:
        self._base = base
        self._values = values
        self._records = records
        self._restart = restart
        self.groups: dict[int, set[bytes]] = {}
        self.heard: list[
            tuple[bytes, bytes]
        ] = []  # (EUI-48, data) of every multicast that a member has heard

    def forget(self) -> None:
        """Lose everything, as by a restart."""
        self.groups = {}

    def handlers(self) -> dict[int, Callable[[Message], None]]:
        """The commands that end here."""
        return {
            commands.CON_JOIN_REQUEST: self._invite,
            commands.CON_JOIN_RESPONSE: self._join_answered,
            commands.CON_LEAVE_REQUEST: self._remove,
            commands.CON_DATA_REQUEST: self._multicast,
        }

    def ask_in(self, eui48: bytes, handle: int) -> None:
        """Let a node ask into a group by itself."""
        self._base.send(
            commands.CON_JOIN_INDICATION,
            handle=handle,
            eui48=eui48,
            connection_type=3,
            data=b"",
            authenticated_encryption=0,
        )

    def _node(self, eui48: bytes) -> PrimeNode | None:
        nodes = [node for node in self._base.nodes if node.device.eui48 == eui48 and node.registered]
        return nodes[0] if nodes else None

    def _invite(self, message: Message) -> None:
        handle, eui48 = message.number("handle"), message.octets("eui48")
        node = self._node(eui48)
        there = node is not None and self._base.reachable(node)
        result = 0 if there else _NO_SUCH_DEVICE
        if there:
            self.groups.setdefault(handle, set()).add(eui48)
        self._base.later(
            _JOIN_S,
            lambda: self._base.send(
                commands.CON_JOIN_CONFIRM, handle=handle, result=result, authenticated_encryption=0
            ),
        )

    def _join_answered(self, message: Message) -> None:
        if message.number("answer") == 0:
            self.groups.setdefault(message.number("handle"), set()).add(message.octets("eui48"))

    def _remove(self, message: Message) -> None:
        handle, eui48 = message.number("handle"), message.octets("eui48")
        known = eui48 in self.groups.get(handle, set())
        if known:
            self.groups[handle].discard(eui48)
        self._base.send(commands.CON_LEAVE_CONFIRM, handle=handle, result=0 if known else 1)

    def _multicast(self, message: Message) -> None:
        handle, data = message.number("handle"), message.octets("data")
        members = [node for node in self._base.nodes if node.device.eui48 in self.groups.get(handle, set())]
        feeder, now = self._base.feeder, self._base.now()
        segments = -(-max(1, len(data)) // feeder.phy.segment_octets)
        heard = [
            node
            for node in members
            if self._base.reachable(node)
            and node.place.draws.random() >= feeder.frame_loss(node.place, now) * segments
        ]
        switches = sum(1 for node in self._base.nodes if node.switch)
        airtime_s = feeder.phy.airtime_s(
            min(len(data), feeder.phy.segment_octets), feeder.phy.modulations[-1]
        )
        held_s = feeder.hold((1 + switches) * segments * (airtime_s - feeder.phy.acknowledgement_s), now)

        def sent() -> None:
            self._base.send(commands.CON_DATA_CONFIRM, handle=handle, buffer=0, result=0 if members else 0x83)
            self.heard += [(node.device.eui48, data) for node in heard]

        self._base.after(held_s, sent)

    # MNGP to the modem itself.

    def take_mngp(self, protocol: int, body: bytes, answer: Callable[[int, bytes], None]) -> bool:
        """Take an MNGP frame of the host; tells whether it was one that the modem knows."""
        values = self._values()
        try:
            if protocol == PROTOCOL_MNGP_GET_QUERY:
                found = [
                    (attribute, index, values[attribute])
                    for attribute, index in mngp.decode_get_query(body)
                    if attribute in values
                ]
                answer(PROTOCOL_MNGP_GET_RESPONSE, mngp.encode_get_response(found))
            elif protocol == PROTOCOL_MNGP_SET:
                attribute, value = mngp.decode_set(body)
                if attribute in values:
                    values[attribute] = value
            elif protocol == PROTOCOL_MNGP_RESET_STATISTICS:
                asked = [attribute for attribute, _index in mngp.decode_get_query(body)]
                for attribute in asked or pib.DIAGNOSTIC_ATTRIBUTES:
                    values[attribute] = bytes(len(values.get(attribute, b"")))
            elif protocol == PROTOCOL_MNGP_LIST_QUERY:
                attribute, most, iterator = mngp.decode_list_query(body)
                numbered = list(enumerate(self._records(attribute), 1))[iterator : iterator + most]
                answer(PROTOCOL_MNGP_LIST_RESPONSE, mngp.encode_list_response(attribute, numbered))
            elif protocol == PROTOCOL_MNGP_REBOOT:
                self._restart()
            else:
                return False
        except MessageError:
            return False
        return True
