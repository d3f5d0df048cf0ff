"""What a base node's host can do beside its daily work: multicast, remote commands, attributes, promotion.

Remote commands (PPROF) are acknowledged by the modem, not by the node. The modem's own attributes are read and written
with MLME and PLME, or with MNGP, the same protocol that it speaks to nodes, in USI frames of their own. In a multicast
group the host invites nodes, or answers those that ask; its data is a bare payload of the connection.
"""

from plc.errors import LocalPlcError, MessageError
from plc.host import Request
from plc.prime import commands, enumerations, mngp, pib
from plc.prime.commands import COMMANDS
from plc.prime.enumerations import name_of
from plc.prime.events import (
    AttributesRead,
    AttributeWritten,
    MulticastMemberJoined,
    MulticastMemberLeft,
    MulticastSent,
    NodeCommandDone,
    ZeroCrossRead,
)
from plc.prime.management import NODE_ANSWER_TIMEOUT_S, Management
from plc.prime.steps import get, result_in_words, set_attribute, value_of
from plc.usi.framing import (
    PROTOCOL_MNGP_GET_QUERY,
    PROTOCOL_MNGP_GET_RESPONSE,
    PROTOCOL_MNGP_LIST_QUERY,
    PROTOCOL_MNGP_LIST_RESPONSE,
    PROTOCOL_MNGP_REBOOT,
    PROTOCOL_MNGP_RESET_STATISTICS,
    PROTOCOL_MNGP_SET,
    encode_frame,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure

# Who may open or close what, in the answers to a node.
ACCEPT = 0
REJECT = 1
MULTICAST = 0
MULTICAST_TIMEOUT_S = 30.0
LARGEST_MULTICAST = 1000
MNGP_TIMEOUT_S = 3.0
SLOT_PAUSE_S = 0.05
_NO_COMMAND = -1
_REMOTE_COMMANDS = (
    ("set", commands.PPROF_SET_REQUEST),
    ("reset statistics", commands.PPROF_RESET_STATISTICS_REQUEST),
    ("reboot", commands.PPROF_REBOOT_REQUEST),
)


class Services(Management):
    """The half of a base node that is asked for by hand."""

    def __init__(
        self,
        allowed: "set[bytes] | None",
        device_keys: "dict[bytes, bytes] | None",
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...],
    ) -> None:
        super().__init__(
            allowed,
            device_keys,
            data_confirm_timeout_s,
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self._groups: "dict[int, set[bytes]]" = {}  # members of each multicast group, by its handle
        self._mngp_answer: "tuple[int, bytes] | None" = None
        self._mngp_waits = _NO_COMMAND  # the protocol that is waited for
        for name in ("mngp_frames", "connections_refused", "zero_cross_reports"):
            self.counters[name] = 0

    # Nodes far away.

    def set_node_attribute(self, eui: bytes, attribute: int, value: bytes, now: float) -> None:
        """Set an attribute of a node; NodeCommandDone tells what the modem says to it."""
        self._command_node(eui, "set", now, data=mngp.encode_set(attribute, value))

    def reset_node_statistics(self, eui: bytes, now: float) -> None:
        """Let a node begin its counters anew; NodeCommandDone tells what the modem says to it."""
        self._command_node(eui, "reset statistics", now)

    def reboot_node(self, eui: bytes, now: float) -> None:
        """Restart a node; it registers anew. NodeCommandDone tells what the modem says to it."""
        self._command_node(eui, "reboot", now)

    def read_zero_cross(self, eui: bytes, now: float) -> None:
        """Ask a node for its zero crossing, which tells its phase; ZeroCrossRead brings it."""
        self._check_known(eui)
        self._queue(self._zero_cross(eui))
        self._advance(now)

    def promote(self, eui: bytes, now: float, beacon_mode: int = 0, pch: int | None = None) -> None:
        """Make a terminal a switch; `pch` names the channel of a modem with several PHYs."""
        self._check_known(eui)
        self._queue(self._promote(eui, beacon_mode, pch))
        self._advance(now)

    def demote(self, eui: bytes, now: float) -> None:
        """Make a switch a terminal."""
        self._check_known(eui)
        self._queue(self._demote(eui))
        self._advance(now)

    def close_connection(self, address: int, now: float) -> None:
        """Close the 4-32 connection of a node; it opens a new one. Raises LocalPlcError when no node has it."""
        if self._nodes.by_address(address) is None:
            raise LocalPlcError(f"no node has 4-32 address 0x{address:04X}")
        self._queue(_say(COMMANDS.encode(commands.CL_432_RELEASE_REQUEST, address=address)))
        self._advance(now)

    # The modem's own attributes.

    def read_attributes(self, attributes: "list[int]", now: float) -> None:
        """Read attributes of the modem by MLME and PLME; AttributesRead brings them."""
        self._queue(self._read_attributes(attributes))
        self._advance(now)

    def write_attribute(self, attribute: int, value: bytes, now: float) -> None:
        """Write an attribute of the modem by MLME or PLME; AttributeWritten tells."""
        self._queue(self._write_attribute(attribute, value))
        self._advance(now)

    def query_modem(self, attributes: "list[tuple[int, int]]", now: float) -> None:
        """Read attributes of the modem by MNGP, each with its index; AttributesRead brings them."""
        self._queue(self._query_modem(attributes))
        self._advance(now)

    def query_modem_list(self, attribute: int, now: float) -> None:
        """Read the first records of a list of the modem by MNGP; AttributesRead brings their octets."""
        self._queue(self._query_modem_list(attribute))
        self._advance(now)

    def set_modem_attribute(self, attribute: int, value: bytes, now: float) -> None:
        """Write an attribute of the modem by MNGP, which does not confirm."""
        self._send_mngp(PROTOCOL_MNGP_SET, mngp.encode_set(attribute, value), now)

    def reset_modem_statistics(self, now: float, attributes: "list[tuple[int, int]] | None" = None) -> None:
        """Let the modem begin its counters anew, all of them or some, by MNGP."""
        self._send_mngp(PROTOCOL_MNGP_RESET_STATISTICS, mngp.encode_get_query(attributes or []), now)

    def reboot_modem(self, now: float) -> None:
        """Restart the modem by MNGP: that it is back is found like any other restart."""
        self._send_mngp(PROTOCOL_MNGP_REBOOT, b"", now)

    # Multicast.

    def invite_to_group(self, handle: int, eui: bytes, now: float, data: bytes = b"") -> None:
        """Ask a node into the multicast group of a handle; MulticastMemberJoined tells."""
        self._check_known(eui)
        self._queue(self._invite(handle, eui, data))
        self._advance(now)

    def remove_from_group(self, handle: int, eui: bytes, now: float) -> None:
        """Take a node out of a multicast group; MulticastMemberLeft tells."""
        self._queue(self._remove(handle, eui))
        self._advance(now)

    def send_multicast(self, handle: int, data: bytes, now: float) -> None:
        """Send data to a multicast group; MulticastSent tells that it is out. Raises LocalPlcError."""
        if not self._groups.get(handle):
            raise LocalPlcError(f"multicast group {handle} has no member")
        if len(data) > LARGEST_MULTICAST:
            raise LocalPlcError(f"a multicast carries at most {LARGEST_MULTICAST} octets, got {len(data)}")
        self._queue(self._multicast(handle, data))
        self._advance(now)

    def group_members(self, handle: int) -> "list[bytes]":
        """The EUI-48 of the members of a multicast group."""
        return sorted(self._groups.get(handle, ()))

    # Procedures.

    def _check_known(self, eui: bytes) -> None:
        if self._nodes.get(eui) is None:
            raise LocalPlcError(f"no node has EUI-48 {eui.hex()}")

    def _command_node(self, eui: bytes, name: str, now: float, data: bytes | None = None) -> None:
        self._check_known(eui)
        command = dict(_REMOTE_COMMANDS)[name]
        payload = (
            COMMANDS.encode(command, eui48=eui)
            if data is None
            else COMMANDS.encode(command, eui48=eui, data=data)
        )
        self._queue(self._remote(eui, name, payload))
        self._advance(now)

    def _remote(self, eui48: bytes, name: str, payload: bytes) -> "Procedure":
        answer = yield Request(
            payload, commands.PPROF_ACK, "echoed_command", payload[0], optional=True, attempts=2
        )
        reason = ""
        if not answer.messages:
            reason = "the modem did not acknowledge it"
        elif answer.messages[0].number("ack") != 0:
            reason = "the modem refused it"
        self._emit(NodeCommandDone(eui48, name, reason))

    def _zero_cross(self, eui48: bytes) -> "Procedure":
        payload = COMMANDS.encode(commands.PPROF_ZERO_CROSS_DIFFERENCE_REQUEST, eui48=eui48)
        answer = yield Request(payload, commands.PPROF_ACK, optional=True, attempts=2)
        reason = "" if answer.messages and answer.messages[0].number("ack") == 0 else "the modem refused it"
        if not reason:
            answer = yield Request(
                b"",
                commands.PPROF_ZERO_CROSS_DIFFERENCE_RESPONSE,
                optional=True,
                timeout_s=NODE_ANSWER_TIMEOUT_S,
                attempts=1,
            )
            for message in answer.messages:
                if message.octets("eui48") == eui48:
                    self._emit(
                        ZeroCrossRead(
                            eui48, message.number("frequency_time"), message.number("difference_time")
                        )
                    )
                    return
            reason = "the node did not answer"
        self._emit(ZeroCrossRead(eui48, 0, 0, reason))

    def _promote(self, eui48: bytes, beacon_mode: int, pch: int | None) -> "Procedure":
        if pch is None:
            confirm = commands.MLME_PROMOTE_CONFIRM
            payload = COMMANDS.encode(commands.MLME_PROMOTE_REQUEST, eui48=eui48, beacon_mode=beacon_mode)
        else:
            confirm = commands.MLME_MULTI_PHY_PROMOTE_CONFIRM
            payload = COMMANDS.encode(
                commands.MLME_MULTI_PHY_PROMOTE_REQUEST, eui48=eui48, beacon_mode=beacon_mode, pch=pch
            )
        answer = yield Request(payload, confirm, optional=True, timeout_s=NODE_ANSWER_TIMEOUT_S, attempts=1)
        words = result_in_words(answer)
        self._emit(NodeCommandDone(eui48, "promote", "" if words == "success" else words))

    def _demote(self, eui48: bytes) -> "Procedure":
        words = result_in_words((yield from set_attribute(pib.ACTION_DEMOTE, eui48, optional=True)))
        self._emit(NodeCommandDone(eui48, "demote", "" if words == "success" else words))

    def _read_attributes(self, attributes: "list[int]") -> "Procedure":
        found: "list[tuple[int, bytes]]" = []
        for attribute in attributes:
            found.append((attribute, value_of((yield from get(attribute, True)))))
        self._emit(AttributesRead(found))

    def _write_attribute(self, attribute: int, value: bytes) -> "Procedure":
        words = result_in_words((yield from set_attribute(attribute, value, optional=True)))
        self._emit(AttributeWritten(attribute, "" if words == "success" else words))

    # MNGP to the modem itself: USI protocols of their own, without a command octet.

    def _send_mngp(self, protocol: int, body: bytes, now: float) -> None:
        self._queue(self._say_mngp(protocol, body))
        self._advance(now)

    def _say_mngp(self, protocol: int, body: bytes) -> "Procedure":
        self._output.append(encode_frame(protocol, body, self._extended_length))
        yield _pause(SLOT_PAUSE_S)

    def _ask_mngp(self, protocol: int, body: bytes, response: int) -> "Procedure":
        self._mngp_answer = None
        self._mngp_waits = response
        self._output.append(encode_frame(protocol, body, self._extended_length))
        yield _pause(MNGP_TIMEOUT_S)
        self._mngp_waits = _NO_COMMAND

    def _query_modem(self, attributes: "list[tuple[int, int]]") -> "Procedure":
        yield from self._ask_mngp(
            PROTOCOL_MNGP_GET_QUERY, mngp.encode_get_query(attributes), PROTOCOL_MNGP_GET_RESPONSE
        )
        found: "dict[int, bytes]" = {}
        if self._mngp_answer is not None:
            try:
                for attribute, _, value in mngp.decode_get_response(self._mngp_answer[1]):
                    found[attribute] = value
            except MessageError:
                self.counters["short_messages"] += 1
        self._emit(AttributesRead([(attribute, found.get(attribute, b"")) for attribute, _ in attributes]))

    def _query_modem_list(self, attribute: int) -> "Procedure":
        yield from self._ask_mngp(
            PROTOCOL_MNGP_LIST_QUERY, mngp.encode_list_query(attribute), PROTOCOL_MNGP_LIST_RESPONSE
        )
        records: "list[bytes]" = []
        if self._mngp_answer is not None:
            try:
                records = [record for _, record in mngp.decode_list_response(self._mngp_answer[1])[1]]
            except MessageError:
                self.counters["short_messages"] += 1
        self._emit(AttributesRead([(attribute, record) for record in records]))

    def _take_foreign(self, protocol: int, payload: bytes, now: float) -> bool:
        if protocol not in (PROTOCOL_MNGP_GET_RESPONSE, PROTOCOL_MNGP_LIST_RESPONSE):
            return False
        self.counters["mngp_frames"] += 1
        if protocol == self._mngp_waits and self._mngp_answer is None:
            self._mngp_answer = (protocol, payload)
            self._end_pause(now)
        return True

    # Multicast.

    def _invite(self, handle: int, eui48: bytes, data: bytes) -> "Procedure":
        payload = COMMANDS.encode(
            commands.CON_JOIN_REQUEST,
            mode=MULTICAST,
            handle=handle,
            eui48=eui48,
            connection_type=enumerations.CONNECTION_432,
            data=data,
            authenticated_encryption=0,
        )
        answer = yield Request(
            payload, commands.CON_JOIN_CONFIRM, optional=True, timeout_s=MULTICAST_TIMEOUT_S, attempts=1
        )
        if not answer.messages:
            self._emit(MulticastMemberJoined(handle, eui48, "the modem did not confirm it"))
            return
        # The modem gives the group its handle.
        handle, result = answer.messages[0].number("handle"), answer.messages[0].number("result")
        reason = "" if result == 0 else name_of(enumerations.CON_ESTABLISH_RESULTS, result)
        if not reason:
            self._groups.setdefault(handle, set()).add(eui48)
        self._emit(MulticastMemberJoined(handle, eui48, reason))

    def _remove(self, handle: int, eui48: bytes) -> "Procedure":
        payload = COMMANDS.encode(commands.CON_LEAVE_REQUEST, handle=handle, eui48=eui48)
        yield Request(
            payload,
            commands.CON_LEAVE_CONFIRM,
            "handle",
            handle,
            True,
            timeout_s=MULTICAST_TIMEOUT_S,
            attempts=1,
        )
        self._forget_member(handle, eui48)

    def _multicast(self, handle: int, data: bytes) -> "Procedure":
        payload = COMMANDS.encode(
            commands.CON_DATA_REQUEST, handle=handle, data=data, priority=0, time_reference=0
        )
        answer = yield Request(
            payload,
            commands.CON_DATA_CONFIRM,
            "handle",
            handle,
            True,
            timeout_s=MULTICAST_TIMEOUT_S,
            attempts=1,
        )
        reason = "the modem did not confirm it"
        if answer.messages:
            result = answer.messages[0].number("result")
            reason = "" if result == 0 else name_of(enumerations.CON_DATA_RESULTS, result)
        self._emit(MulticastSent(handle, reason))

    def _forget_member(self, handle: int, eui48: bytes) -> None:
        members = self._groups.get(handle, set())
        if eui48 == b"\xff" * 6:
            self._groups.pop(handle, None)
        elif eui48 in members:
            members.discard(eui48)
        else:
            return
        self._emit(MulticastMemberLeft(handle, eui48))

    def _take_service_message(self, message: "Message") -> bool:
        """Take an indication about connections and groups; tells whether it is one."""
        command = message.command
        if command == commands.CON_JOIN_INDICATION:
            # A node asks into a group: into one that exists, it may.
            handle, eui48 = message.number("handle"), message.octets("eui48")
            welcome = handle in self._groups and self._nodes.get(eui48) is not None
            self._queue(
                _say(
                    COMMANDS.encode(
                        commands.CON_JOIN_RESPONSE,
                        handle=handle,
                        eui48=eui48,
                        answer=ACCEPT if welcome else REJECT,
                        authenticated_encryption=0,
                    )
                )
            )
            if welcome:
                self._groups[handle].add(eui48)
                self._emit(MulticastMemberJoined(handle, eui48))
        elif command == commands.CON_LEAVE_INDICATION:
            self._forget_member(message.number("handle"), message.octets("eui48"))
        elif command == commands.CON_ESTABLISH_INDICATION:
            # DLMS travels on 4-32 connections, which the modem accepts by itself: nothing else is for us.
            self.counters["connections_refused"] += 1
            self._queue(
                _say(
                    COMMANDS.encode(
                        commands.CON_ESTABLISH_RESPONSE,
                        handle=message.number("handle"),
                        answer=REJECT,
                        data=b"",
                        authenticated_encryption=0,
                    )
                )
            )
        elif command in (commands.PPROF_ZERO_CROSS_RESPONSE, commands.PPROF_ZERO_CROSS_DIFFERENCE_RESPONSE):
            self.counters["zero_cross_reports"] += 1
        else:
            return False
        return True

    def _abandon_data(self, reason: str, now: float) -> None:
        super()._abandon_data(reason, now)
        self._groups = {}
        self._mngp_waits = _NO_COMMAND


def _say(payload: bytes) -> "Procedure":
    """Send what nobody answers, and give the modem's one receive slot the time to be free again."""
    yield Request(payload, _NO_COMMAND, optional=True, timeout_s=SLOT_PAUSE_S, attempts=1)


def _pause(duration_s: float) -> Request:
    return Request(b"", _NO_COMMAND, optional=True, timeout_s=duration_s, attempts=1)
