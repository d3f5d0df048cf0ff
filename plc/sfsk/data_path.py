"""The data path of an S-FSK initiator: one APDU out, then silence until its answer, since the channel is half duplex.

MA_Data.confirm tells only that the own modem has sent the frame. Whether the server heard it shows by what comes
back; the credits of that tell how many repetitions it takes, and how many to allow next time.
"""

from plc.errors import LocalPlcError, MessageError
from plc.host import ModemHost
from plc.network import ApduReceived, ApduSent, Capabilities, LinkQualityReported
from plc.outgoing import Outgoing, place_of
from plc.prime.enumerations import name_of
from plc.sfsk import ciase, commands, llc, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.framing import ANSWER, LOCAL_FRAME, NAK, STATUS, LocalFrameDecoder, encode_local_frame
from plc.sfsk.nodes import Node, NodeTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message

DATA_CONFIRM_TIMEOUT_S = 20.0
# A meter takes so long to make its answer, beside the time on the air.
ANSWER_PATIENCE_S = 8.0
TRANSMIT_ATTEMPTS = 3
RETRY_PAUSE_S = 1.0
CREDIT_MARGIN = 1
UNANSWERED_UNTIL_SUSPECT = 3
OPERATIONS = ("repeater_call", "clear_alarm")
_ACK = b"\x06"


class _Transmission(Outgoing):
    """One APDU on its way out."""

    def __init__(self, token: int, address: int, urgent: bool, sdu: bytes) -> None:
        super().__init__(token, address, urgent)
        self.sdu = sdu


class DataPath(ModemHost):
    """The half of an initiator that carries APDUs. Subclasses take the CI-PDUs."""

    def __init__(
        self,
        local_address: int,
        baud_rate: int,
        known_addresses: "dict[bytes, int]",
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
    ) -> None:
        super().__init__(
            LOCAL_FRAME,
            COMMANDS,
            Capabilities("s-fsk", llc.LARGEST_DATA, 1, True, OPERATIONS),
            refresh_interval_s,
            keepalive_interval_s,
            decoder=LocalFrameDecoder(),
        )
        self.local_address = local_address
        self.baud_rate = baud_rate
        self._data_confirm_timeout_s = data_confirm_timeout_s
        self._nodes = NodeTable(known_addresses)
        self._transmissions: "list[_Transmission]" = []
        self._transmitting: _Transmission | None = None
        self._transmit_deadline: float | None = None
        self._silent_until: float | None = None  # the channel belongs to whoever is to answer
        self._asked = mac.NO_BODY  # that one's address
        self._last_frame = b""  # for a modem that did not take it
        for name in (
            "retransmissions", "apdus_sent", "apdus_received", "unanswered_apdus", "foreign_frames",
            "refused_local_frames", "status_messages",
        ):  # fmt: skip
            self.counters[name] = 0

    def _network_size(self) -> int:
        return len(self._nodes)

    def send_apdu(
        self,
        address: int,
        source_sap: int,
        destination_sap: int,
        apdu: bytes,
        now: float,
        urgent: bool = False,
    ) -> int:
        """Queue an APDU for a server, or for all of them at mac.ALL_PHYSICAL.

        `source_sap` is our client SAP and `destination_sap` the logical device: they travel as LSAPs. Raises
        LocalPlcError for an APDU or SAP that does not fit and for an address that no joined server has.
        """
        sdu = llc.encode_llc(destination_sap, source_sap, apdu)
        node = self._nodes.by_address(address)
        if address != mac.ALL_PHYSICAL and (node is None or not node.joined):
            raise LocalPlcError(f"no server has MAC address 0x{address:03X}")
        token = self._token()
        if self._may_wait(token, len(self._transmissions)):
            self._transmissions.insert(
                place_of(self._transmissions, urgent), _Transmission(token, address, urgent, sdu)
            )
            self._advance(now)
        return token

    # The local frames.

    def _send(self, payload: bytes) -> None:
        self._last_frame = encode_local_frame(payload)
        self._output.append(self._last_frame)

    def _take_foreign(self, protocol: int, payload: bytes, now: float) -> bool:  # noqa: ARG002 a hook
        if protocol == STATUS:
            self.counters["status_messages"] += 1
        elif protocol == ANSWER and payload[0] == NAK and self._last_frame:
            # Once: what was spoilt twice is asked again by its time-out.
            self.counters["refused_local_frames"] += 1
            self._output.append(self._last_frame)
            self._last_frame = b""
        return True

    def _take(self, payload: bytes, now: float) -> None:
        self._output.append(_ACK)
        super()._take(payload, now)

    def _confirm_missing(self, now: float) -> None:
        # The answer may be hidden behind an octet that looked like the start of a frame.
        request = self._request
        if isinstance(self._decoder, LocalFrameDecoder):
            self._decoder.give_up()
        self._take_frames(now)
        if self._request is request:
            super()._confirm_missing(now)

    # The air.

    def _mac_request(self, destination: int, sdu: bytes, credit: int) -> bytes:
        frame = mac.MacFrame(self.local_address, destination, sdu, credit)
        return COMMANDS.encode(commands.MA_DATA_REQUEST, mac_frame=frame.to_bytes())

    def _answer_time_s(self, sdu_size: int, credit: int) -> float:
        """Until the answer to a frame has come, a full frame each way, or will not come any more."""
        there = mac.airtime_s(sdu_size, credit, self.baud_rate)
        back = mac.airtime_s(mac.LARGEST_SDU, mac.LARGEST_CREDIT, self.baud_rate)
        return there + back + ANSWER_PATIENCE_S

    def _may_ask(self) -> bool:
        return self._transmitting is None and self._silent_until is None

    def _send_apdus(self, now: float) -> None:
        if not self._may_ask() or self._procedure is not None or not self._running:
            return
        for index, entry in enumerate(self._transmissions):
            if entry.not_before is None:
                self._transmissions.pop(index)
                self._transmit(entry, now)
                return

    def _transmit(self, entry: _Transmission, now: float) -> None:
        node = self._nodes.by_address(entry.address)
        credit = mac.LARGEST_CREDIT if node is None else node.initial_credit
        entry.attempts += 1
        self._transmitting = entry
        self._transmit_deadline = now + self._data_confirm_timeout_s
        self._send(self._mac_request(entry.address, entry.sdu, credit))

    def _confirm_data(self, status: int, now: float) -> None:
        entry = self._transmitting
        if entry is None:
            self.counters["unexpected_confirms"] += 1
            return
        self._transmitting = None
        self._transmit_deadline = None
        if status == commands.TRANSMISSION_OK:
            self.counters["apdus_sent"] += 1
            node = self._nodes.by_address(entry.address)
            credit = mac.LARGEST_CREDIT if node is None else node.initial_credit
            if node is None:
                # To all: nobody answers, but it is repeated.
                self._silent_until = now + mac.airtime_s(len(entry.sdu), credit, self.baud_rate)
            else:
                node.spoken_to_at = now
                self._silent_until = now + self._answer_time_s(len(entry.sdu), credit)
            self._asked = entry.address
            self._emit(ApduSent(entry.token))
            return
        transient = status != commands.TRANSMISSION_SYNTAX_ERROR
        if transient and entry.attempts < TRANSMIT_ATTEMPTS:
            self.counters["retransmissions"] += 1
            entry.not_before = now + RETRY_PAUSE_S
            self._transmissions.insert(0, entry)
            return
        reason = "transmission status " + name_of(commands.TRANSMISSION_STATUSES, status)
        self._not_sent(entry.token, reason, transient)

    def _take_mac_frame(self, octets: bytes, now: float) -> None:
        try:
            frame = mac.decode_mac_frame(octets)
            destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
        except MessageError:
            self.counters["foreign_frames"] += 1
            return
        if frame.destination not in (self.local_address, mac.ALL_PHYSICAL):
            self.counters["foreign_frames"] += 1
            return
        if is_management(destination_lsap, source_lsap, data):
            self._take_management(frame, data, now)
            return
        node = self._nodes.by_address(frame.source)
        if node is None:
            self.counters["foreign_frames"] += 1
            return
        self._heard(node, frame)
        self.counters["apdus_received"] += 1
        if frame.source == self._asked and self._silent_until is not None:
            self._silent_until = None
            self._asked = mac.NO_BODY
        if not node.joined:
            self._join(node, False)
        self._emit(ApduReceived(node.address, source_lsap, destination_lsap, data))

    def _heard(self, node: Node, frame: mac.MacFrame) -> None:
        """A frame of a server came: it is there, and the credits tell how far away."""
        node.unanswered = 0
        node.suspect = False
        hops = max(frame.repetitions, frame.delta_credit)
        if frame.delta_credit == mac.LARGEST_DELTA_CREDIT:
            # Two bits cannot tell more: it may have been all.
            node.initial_credit = mac.LARGEST_CREDIT
        else:
            node.initial_credit = min(mac.LARGEST_CREDIT, hops + CREDIT_MARGIN)
        if hops != node.hops:
            node.hops = hops
            if node.joined:
                self._report(node)

    def _report(self, node: Node) -> None:
        self._emit(LinkQualityReported(node.title, node.address, hops=(node.hops or 0) + 1))

    def _unanswered(self, node: Node) -> None:
        node.unanswered += 1
        node.initial_credit = mac.LARGEST_CREDIT
        if node.unanswered >= UNANSWERED_UNTIL_SUSPECT:
            node.suspect = True

    def _data_timeout(self) -> float | None:
        nearest = self._transmit_deadline
        if self._silent_until is not None and (nearest is None or self._silent_until < nearest):
            nearest = self._silent_until
        for entry in self._transmissions:
            due = entry.not_before
            if due is not None and (nearest is None or due < nearest):
                nearest = due
        return nearest

    def _handle_data_timeout(self, now: float) -> None:
        for waiting in self._transmissions:
            if waiting.not_before is not None and now >= waiting.not_before:
                waiting.not_before = None
        if self._silent_until is not None and now >= self._silent_until:
            self._silent_until = None
            node = self._nodes.by_address(self._asked)
            if node is not None:
                self.counters["unanswered_apdus"] += 1
                self._unanswered(node)
        entry = self._transmitting
        if entry is None or self._transmit_deadline is None or now < self._transmit_deadline:
            return
        self._transmitting = None
        self._transmit_deadline = None
        self.counters["missing_confirms"] += 1
        self._not_sent(entry.token, "the modem did not confirm it", True)
        self._queue_alive_check()

    def _abandon_data(self, reason: str, now: float) -> None:  # noqa: ARG002 a hook
        unsent = self._transmissions
        if self._transmitting is not None:
            unsent = [self._transmitting] + unsent
        self._transmissions = []
        self._transmitting = None
        self._transmit_deadline = None
        self._silent_until = None
        for entry in unsent:
            self._not_sent(entry.token, reason, True)

    def _fail_waiting(self, address: int, reason: str) -> None:
        waiting = self._transmissions
        self._transmissions = [entry for entry in waiting if entry.address != address]
        for entry in waiting:
            if entry.address == address:
                self._not_sent(entry.token, reason, True)

    # Hooks.

    def _queue_alive_check(self) -> None:
        raise NotImplementedError

    def _join(self, node: Node, tell: bool) -> None:
        raise NotImplementedError

    def _take_management(self, frame: mac.MacFrame, data: bytes, now: float) -> None:
        raise NotImplementedError

    def _handle_message(self, message: "Message", now: float) -> None:
        command = message.command
        if command == commands.MA_DATA_INDICATION:
            self._take_mac_frame(message.octets("mac_frame"), now)
        elif command == commands.MA_DATA_CONFIRM:
            self._confirm_data(message.number("transmission_status"), now)
        elif command == commands.MA_DATA_INDICATION_BAD_CRC:
            self.counters["foreign_frames"] += 1
        elif message.name.endswith("_Confirm") or message.name.endswith("_Error"):  # noqa: PIE810 no tuples there
            self.counters["unexpected_confirms"] += 1


def is_management(destination_lsap: int, source_lsap: int, data: bytes) -> bool:
    """Tell whether an LPDU carries a CI-PDU: its LSAPs are those of CIASE, and its tag is known."""
    lsaps = (llc.CIASE_CLIENT_LSAP, llc.CIASE_SERVER_LSAP)
    return bool(data) and data[0] in ciase.TAGS and (destination_lsap in lsaps or source_lsap in lsaps)
