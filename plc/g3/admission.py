"""Who is in a G3 network: joins, refusals, leaves and keys, for both generations of the host interface.

In generation B the bootstrap server is in the modem, which asks the host for each device's address. In generation
A the host is the server (plc/g3/bootstrap.py), and the modem carries its LBP frames.

A device keeps its short address for good, whether it is in the network or not.
"""

from plc.errors import LocalPlcError
from plc.g3 import commands, enumerations, ib
from plc.g3.bootstrap import (
    ACTIVATED,
    DECLINED,
    FAILED,
    JOINED,
    LEFT,
    REKEY_FAILED,
    BootstrapServer,
)
from plc.g3.commands import COMMANDS
from plc.g3.data_path import DataPath
from plc.g3.nodes import FIRST_SHORT_ADDRESS, LAST_SHORT_ADDRESS, Node
from plc.g3.steps import MAX_HOPS, adp_set, is_refusal, lbp_set, mac_get, mac_set, value_of
from plc.host import Request, check_euis
from plc.network import (
    FrameCounterAdvanced,
    GroupKeyChanged,
    NodeDeclined,
    NodeJoined,
    NodeLeft,
    ShortAddressAssigned,
    TopologyChanged,
)
from plc.usi.framing import EXTENDED_LENGTH_HARMONY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure

KEY_SIZE = 16
EUI64_SIZE = 8
# What is kept of the modem's frame counter is so much ahead of it: receivers refuse a lower one after a restart.
FRAME_COUNTER_MARGIN = 10_000
# Generation B: four messages of EAP-PSK cross all hops before the next member has its turn; one activates.
REKEY_PAUSE_S = 20.0
ACTIVATION_PAUSE_S = 3.0


class Admission(DataPath):
    """The half of a coordinator that knows who is in. `_server` is None in generation B."""

    def __init__(
        self,
        pan_id: int,
        known_addresses: "dict[bytes, int]",
        allowed: "set[bytes] | None",
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
    ) -> None:
        super().__init__(
            pan_id,
            known_addresses,
            data_confirm_timeout_s,
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self.eui64 = b""
        check_euis(allowed, (EUI64_SIZE,))
        self._allowed = allowed
        self._declined: dict[bytes, bool] = {}
        self._server: BootstrapServer | None = None
        self._device_psks: "dict[bytes, bytes]" = {}
        self._gmk = b""
        self._gmk_index = 0
        self._next_gmk = b""  # while a rotation is under way
        self._frame_counter = 0
        self.counters["declined_joins"] = 0

    # Commands.

    def expel(self, eui: bytes, now: float) -> None:
        """Kick a node out; it may ask to join again. Raises LocalPlcError when it is not known."""
        node = self._nodes.get(eui)
        if node is None:
            raise LocalPlcError(f"no node has EUI-64 {eui.hex()}")
        if self._server is not None:
            self._server.kick(eui, node.address, now)
        else:
            self._send(COMMANDS.encode(commands.KICK_REQUEST, short_address=node.address, eui64=eui))
        self._leave(node, "expelled")
        self._advance(now)

    def set_allowed(self, allowed: "set[bytes] | None", now: float) -> None:  # noqa: ARG002 the face of all families
        """Replace the EUI-64 that may join; None lets all join. Nodes that have joined stay."""
        check_euis(allowed, (EUI64_SIZE,))
        self._allowed = allowed
        self._declined = {}

    def set_device_psks(self, device_psks: "dict[bytes, bytes]") -> None:
        """Replace the PSKs of single devices, in generation A; who has joined stays. Raises LocalPlcError."""
        for key in device_psks.values():
            if len(key) != KEY_SIZE:
                raise LocalPlcError(f"a PSK has {KEY_SIZE} octets, got {len(key)}")
        self._device_psks = dict(device_psks)
        self._declined = {}
        if self._server is not None:
            self._server.set_device_psks(self._device_psks)

    def rotate_group_key(self, gmk: bytes, now: float) -> None:
        """Give every member a new GMK, and let the network use it; GroupKeyChanged tells when it is done.

        Members that cannot be reached meanwhile have to join anew; in generation A they are told as left, in
        generation B, where the modem is the server and does not say so, when they are spoken to. Raises LocalPlcError
        for a key of another size, while the network does not run, and while another rotation is under way.
        """
        if len(gmk) != KEY_SIZE:
            raise LocalPlcError(f"a GMK has {KEY_SIZE} octets, got {len(gmk)}")
        if not self._running:
            raise LocalPlcError("the group key can be rotated in a running network only")
        if self._next_gmk:
            raise LocalPlcError("a rotation of the group key is under way")
        self._next_gmk = gmk
        self._queue(self._begin_rotation())
        self._advance(now)

    # The group key.

    def _begin_rotation(self) -> "Procedure":
        if self._server is None:
            yield from self._rotate_in_modem()
            return
        # The modem has to decode those that use the new key already, while it still sends with the old one.
        answer = yield from mac_set(ib.MAC_KEY_TABLE, self._next_gmk, 1 - self._gmk_index)
        if is_refusal(answer):
            self._next_gmk = b""
            self._emit(TopologyChanged(self.eui64, "the modem refused the new group key"))
            return
        members = [(node.eui64, node.address) for node in self._nodes.nodes() if node.joined]
        self._server.start_rotation(self._next_gmk, members, self._now)

    def _rotate_in_modem(self) -> "Procedure":
        """Generation B: the modem gives each member the new key under the other index, then the order to use it.

        No confirm of 63 to 65 is documented. A member that was given the key may be told as joined again; when that is
        not so, the next one has its turn after a while.
        """
        index = 1 - self._gmk_index
        answer = yield from lbp_set(commands.LBP_REKEY_GMK, self._next_gmk, index)
        if not answer.messages or is_refusal(answer):
            self._next_gmk = b""
            self._emit(TopologyChanged(self.eui64, "the modem refused the new group key"))
            return
        self._send(COMMANDS.encode(commands.SET_REKEY_PHASE, start=1))
        members = [(node.eui64, node.address) for node in self._nodes.nodes() if node.joined]
        for eui64, address in members:
            yield self._rekey_request(eui64, address, 1, REKEY_PAUSE_S)
        self._send(COMMANDS.encode(commands.SET_REKEY_PHASE, start=0))
        for eui64, address in members:
            yield self._rekey_request(eui64, address, 0, ACTIVATION_PAUSE_S)
        self._send(COMMANDS.encode(commands.ACTIVATE_NEW_KEY))
        self._gmk = self._next_gmk
        self._gmk_index = index
        self._next_gmk = b""
        self._emit(GroupKeyChanged(index))

    def _rekey_request(self, eui64: bytes, address: int, distribute: int, pause_s: float) -> Request:
        payload = COMMANDS.encode(
            commands.REKEY_REQUEST, short_address=address, eui64=eui64, distribute=distribute
        )
        # A refusal comes as ADP_STATUS; what comes of the member itself shows when it is spoken to.
        return Request(
            payload,
            commands.JOIN_COMPLETE_INDICATION,
            "short_address",
            address,
            optional=True,
            timeout_s=pause_s,
            attempts=1,
        )

    def _end_rotation(self) -> "Procedure":
        yield from adp_set(ib.ADP_ACTIVE_KEY_INDEX, 0, bytes((self._gmk_index,)))
        self._emit(GroupKeyChanged(self._gmk_index))

    def _keep_frame_counter(self) -> "Procedure":
        value = value_of((yield from mac_get(ib.MAC_FRAME_COUNTER, optional=True)))
        # Told in large steps, ahead of what is in use: what keeps it may be flash.
        counter = int.from_bytes(value, "big")
        if value and counter + FRAME_COUNTER_MARGIN // 2 > self._frame_counter:
            self._frame_counter = min(counter + FRAME_COUNTER_MARGIN, 0xFFFFFFFF)
            self._emit(FrameCounterAdvanced(self._frame_counter))

    # Nodes.

    def _join(self, node: Node, tell: bool) -> None:
        joined = node.joined
        node.joined = True
        node.sought = False
        node.route_errors = 0
        if tell or not joined:
            self._emit(NodeJoined(node.eui64, node.address, ""))

    def _leave(self, node: Node, reason: str) -> None:
        if not node.joined:
            return
        node.joined = False
        self._fail_waiting(node.address, reason)
        self._emit(NodeLeft(node.eui64, node.address, reason))

    def _admit(self, eui64: bytes) -> int | None:
        """The short address of a device that may join, or None."""
        if self._allowed is not None and eui64 not in self._allowed:
            self._decline(eui64, "not on the whitelist")
            return None
        node = self._nodes.get(eui64)
        if node is None:
            node = self._nodes.add(eui64)
            if node is None:
                self._decline(eui64, "all short addresses are given")
                return None
            self._emit(ShortAddressAssigned(eui64, node.address))
        elif node.joined:
            # It has lost its keys, or its power for long: until it has joined again it cannot be reached.
            self._leave(node, "joins anew")
        # Should the indication that it has joined be lost on the line.
        node.sought = True
        return node.address

    def _decline(self, eui64: bytes, reason: str) -> None:
        self.counters["declined_joins"] += 1
        if eui64 not in self._declined and len(self._declined) < LAST_SHORT_ADDRESS:
            self._declined[eui64] = True
            self._emit(NodeDeclined(eui64, reason))

    def _complete_join(self, eui64: bytes, address: int) -> None:
        if not FIRST_SHORT_ADDRESS <= address <= LAST_SHORT_ADDRESS:
            return
        node = self._nodes.get(eui64)
        if node is None or node.address != address:
            # The modem knows better: it told the device.
            holder = self._nodes.by_address(address)
            for old in (node, holder):
                if old is not None:
                    self._leave(old, "its short address was given to another node")
                    self._nodes.remove(old)
            node = self._nodes.put(eui64, address)
            self._emit(ShortAddressAssigned(eui64, address))
        self._join(node, True)
        self._emit(TopologyChanged(eui64, f"joined with short address 0x{address:04X}"))

    # Generation B: the modem asks.

    def _answer_join_request(self, eui64: bytes) -> None:
        address = self._admit(eui64)
        if address is None:
            address = commands.DECLINE
        self._send(COMMANDS.encode(commands.SHORT_ADDRESS_ASSIGN, eui64=eui64, short_address=address))

    # Generation A: the server is ours.

    def _take_lbp(self, message: "Message", now: float) -> None:
        if self._server is None:
            self.counters["unexpected_confirms"] += 1
        elif message.command == commands.LBP_INDICATION:
            self._server.receive_frame(message.number("source"), message.octets("frame"), now)
        else:
            delivered = message.number("status") == enumerations.ADP_SUCCESS
            self._server.confirm(message.number("handle"), delivered, now)
        self._serve()

    def _serve(self) -> None:
        """Send what the server wants sent, and tell what came of it."""
        server = self._server
        if server is None:
            return
        while True:
            request = server.next_request()
            if request is None:
                break
            self._send(
                COMMANDS.encode(
                    commands.LBP_REQUEST,
                    handle=request.handle,
                    max_hops=MAX_HOPS,
                    discover_route=1,
                    quality_of_service=0,
                    security=1 if request.secured else 0,
                    address_size=len(request.destination),
                    length=len(request.frame),
                    address_and_frame=request.destination + request.frame,
                )
            )
        while True:
            outcome = server.next_outcome()
            if outcome is None:
                break
            self._take_outcome(outcome.kind, outcome.eui64, outcome.address, outcome.reason)
        for name in server.counters:
            self.counters[name] = server.counters[name]

    def _take_outcome(self, kind: str, eui64: bytes, address: int, reason: str) -> None:
        node = self._nodes.get(eui64)
        if kind == JOINED:
            self._complete_join(eui64, address)
        elif kind == DECLINED:
            self._decline(eui64, reason)
            if node is not None:
                node.sought = False
        elif kind == FAILED:
            self._emit(TopologyChanged(eui64, "did not finish its bootstrapping: " + reason))
        elif kind in (LEFT, REKEY_FAILED) and node is not None:
            # It may have the new key all the same: the last word on it may have been lost.
            node.sought = kind == REKEY_FAILED
            self._leave(node, reason)
        elif kind == ACTIVATED and self._server is not None:
            self._gmk = self._next_gmk
            self._gmk_index = self._server.gmk_index
            self._next_gmk = b""
            self._queue(self._end_rotation())

    def _data_timeout(self) -> float | None:
        nearest = super()._data_timeout()
        due = None if self._server is None or not self._running else self._server.next_timeout()
        return due if nearest is None or (due is not None and due < nearest) else nearest

    def _handle_data_timeout(self, now: float) -> None:
        super()._handle_data_timeout(now)
        if self._server is not None and self._running:
            self._server.handle_timeout(now)
            self._serve()

    def _advance(self, now: float) -> None:
        super()._advance(now)
        # A command or a procedure may have given the server something to say.
        self._serve()

    def _abandon_data(self, reason: str, now: float) -> None:
        super()._abandon_data(reason, now)
        if self._server is not None:
            self._server.abandon()
