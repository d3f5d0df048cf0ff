"""The data path of a PRIME base node: APDUs by CL_432_DL_DATA, one at a time.

The confirm has no sequence number, and the modem has one receive slot: no request goes out while an APDU is
unconfirmed, and no APDU while a request is unanswered.
"""

from plc.errors import LocalPlcError
from plc.host import ModemHost
from plc.network import ApduSent, Capabilities
from plc.outgoing import Outgoing, place_of
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS
from plc.prime.nodes import NodeTable
from plc.prime.steps import get
from plc.usi.framing import PROTOCOL_PRIME_API

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Procedure

# The reference host gives up on a missing CL_432_DL_DATA.confirm after this time.
DATA_CONFIRM_TIMEOUT_S = 40.0
TRANSMIT_ATTEMPTS = 3
FIRST_RETRY_PAUSE_S = 0.5
LARGEST_NETWORK = 4096  # nodes; LNIDs would allow more, no transformer has them
LINK_CLASS = 0
OPERATIONS = ("device_keys", "node_upgrade", "multicast", "promotion")


class _Transmission(Outgoing):
    """One APDU on its way out."""

    def __init__(self, token: int, address: int, urgent: bool, saps: tuple[int, int], payload: bytes) -> None:
        super().__init__(token, address, urgent)
        self.source_sap, self.destination_sap = saps
        self.payload = payload


class DataPath(ModemHost):
    """The half of a base node that carries APDUs."""

    def __init__(
        self,
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...],
    ) -> None:
        super().__init__(
            PROTOCOL_PRIME_API,
            COMMANDS,
            Capabilities("prime", commands.LARGEST_APDU, 1, True, OPERATIONS),
            refresh_interval_s,
            keepalive_interval_s,
            extended_length,
        )
        self._data_confirm_timeout_s = data_confirm_timeout_s
        self._nodes = NodeTable(LARGEST_NETWORK)
        self._transmissions: list[_Transmission] = []
        self._transmitting: _Transmission | None = None
        self._transmit_deadline: float | None = None
        for name in ("retransmissions", "inferred_confirms", "apdus_sent", "apdus_received"):
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
        """Queue an APDU for a node, or for all of them at commands.BROADCAST_ADDRESS.

        `source_sap` is our client SAP and `destination_sap` the logical device: they travel as LSAPs. Raises
        LocalPlcError for an APDU or SAP that does not fit and for an address that no node has.
        """
        if len(apdu) > commands.LARGEST_APDU:
            raise LocalPlcError(
                f"PRIME carries APDUs of at most {commands.LARGEST_APDU} octets, got {len(apdu)}"
            )
        if address != commands.BROADCAST_ADDRESS and self._nodes.by_address(address) is None:
            raise LocalPlcError(f"no node has 4-32 address 0x{address:04X}")
        payload = COMMANDS.encode(
            commands.CL_432_DL_DATA_REQUEST,
            destination_lsap=destination_sap,
            source_lsap=source_sap,
            destination_address=address,
            data=apdu,
            link_class=LINK_CLASS,
        )
        token = self._token()
        if self._may_wait(token, len(self._transmissions)):
            self._transmissions.insert(
                place_of(self._transmissions, urgent),
                _Transmission(token, address, urgent, (source_sap, destination_sap), payload),
            )
            self._advance(now)
        return token

    def _check_after_silence(self) -> "Procedure":
        # A confirm is missing: the modem may be gone, or have restarted and forgotten everyone.
        yield from get(pib.PLC_STATE)
        yield from self._list_nodes(False)

    def _may_ask(self) -> bool:
        return self._transmitting is None

    def _send_apdus(self, now: float) -> None:
        if self._transmitting is not None or self._procedure is not None or not self._running:
            return
        blocked: list[int] = []
        for index, transmission in enumerate(self._transmissions):
            if transmission.not_before is None and transmission.address not in blocked:
                self._transmissions.pop(index)
                transmission.attempts += 1
                self._transmitting = transmission
                self._transmit_deadline = now + self._data_confirm_timeout_s
                self._send(transmission.payload)
                return
            blocked.append(transmission.address)

    def _confirm_data(self, message: "Message", now: float) -> None:
        transmission = self._transmitting
        if (
            transmission is None
            or message.number("destination_lsap") != transmission.destination_sap
            or message.number("source_lsap") != transmission.source_sap
            or message.number("destination_address") != transmission.address
        ):
            self.counters["unexpected_confirms"] += 1
            return
        status = message.number("transmit_status")
        if status == enumerations.TRANSMIT_SUCCESS:
            self._finish_transmission(transmission)
            return
        self._transmitting = None
        self._transmit_deadline = None
        reason = "transmit status " + enumerations.name_of(enumerations.TRANSMIT_STATUSES, status)
        transient = status in enumerations.TRANSIENT_TRANSMIT_STATUSES
        if transient and transmission.attempts < TRANSMIT_ATTEMPTS:
            self.counters["retransmissions"] += 1
            transmission.not_before = now + FIRST_RETRY_PAUSE_S * (1 << (transmission.attempts - 1))
            self._transmissions.insert(0, transmission)
            return
        self._not_sent(transmission.token, reason, transient)
        if not transient:
            self._queue_refresh()

    def _infer_confirm(self, address: int, message: "Message") -> None:
        # An answer to what is still unconfirmed: the confirm was lost on the line. Without this it would hold
        # up the whole network until its time-out.
        transmission = self._transmitting
        if (
            transmission is not None
            and address == transmission.address
            and message.number("source_lsap") == transmission.destination_sap
            and message.number("destination_lsap") == transmission.source_sap
        ):
            self.counters["inferred_confirms"] += 1
            self._finish_transmission(transmission)

    def _finish_transmission(self, transmission: _Transmission) -> None:
        self._transmitting = None
        self._transmit_deadline = None
        self.counters["apdus_sent"] += 1
        self._emit(ApduSent(transmission.token))

    def _fail_transmissions(self, address: int, reason: str) -> None:
        # The one that is out keeps its place: its confirm is still to come.
        waiting = self._transmissions
        self._transmissions = [entry for entry in waiting if entry.address != address]
        for entry in waiting:
            if entry.address == address:
                self._not_sent(entry.token, reason, True)

    def _data_timeout(self) -> float | None:
        if self._transmitting is not None:
            return self._transmit_deadline
        nearest: float | None = None
        for transmission in self._transmissions:
            due = transmission.not_before
            if due is not None and (nearest is None or due < nearest):
                nearest = due
        return nearest

    def _handle_data_timeout(self, now: float) -> None:
        for waiting in self._transmissions:
            if waiting.not_before is not None and now >= waiting.not_before:
                # It may go; what it waits for now is its turn, and no longer a time.
                waiting.not_before = None
        transmission = self._transmitting
        if transmission is None or self._transmit_deadline is None or now < self._transmit_deadline:
            return
        self._transmitting = None
        self._transmit_deadline = None
        self.counters["missing_confirms"] += 1
        self._not_sent(transmission.token, "the modem did not confirm it", True)
        self._queue(self._check_after_silence())

    def _abandon_data(self, reason: str, now: float) -> None:  # noqa: ARG002 a hook
        unsent = self._transmissions
        if self._transmitting is not None:
            unsent = [self._transmitting] + unsent
        self._transmissions = []
        self._transmitting = None
        self._transmit_deadline = None
        for transmission in unsent:
            self._not_sent(transmission.token, reason, True)
