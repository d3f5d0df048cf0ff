"""The bootstrap server on the host ("generation A"): who joins with which keys (ITU-T G.9903, LBP and EAP-PSK).

Sans-IO and without a modem's protocol: LBP frames and the time in, requests (destination and LBP frame) and
outcomes out. Each device under way has a slot; a frame that is not answered is sent again, and a slot that stays
unanswered is given up, after which the device begins anew. A new group master key (GMK) is first distributed to
every member, and only then activated by each.

Not here: what a device's address is and whether it may join (`admit` is asked), ARIB's longer identities.
"""

from plc.errors import LocalPlcError, MessageError
from plc.g3 import eap_psk, lbp
from plc.g3.eap_psk import KEY_SIZE, ServerExchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from plc.g3.ciphers import Aes

    Admit = Callable[[bytes], int | None]

# A message crosses up to 14 hops at the robust modulation, and so does its answer.
MESSAGE_TIMEOUT_S = 30.0
MESSAGE_ATTEMPTS = 3
RETRY_PAUSE_S = 3.0  # after the modem could not deliver a message
SLOTS = 8
LARGEST_SHORT_ADDRESS = 0x7FFF
COORDINATOR_SHORT_ADDRESS = 0x0000

JOINED = "joined"
LEFT = "left"
DECLINED = "declined"
FAILED = "failed"  # gave up on a device; it may begin anew
REKEYED = "rekeyed"  # has the new key, not yet in use
REKEY_FAILED = "rekey failed"
ACTIVATED = "activated"  # every member that could be reached uses the new key

_JOIN = 0
_REKEY = 1
_ACTIVATE = 2
_KICK = 3


class Outcome:
    """What came of a device: one of the words above, its EUI-64 and short address, and a reason in words."""

    __slots__ = ("address", "eui64", "kind", "reason")

    def __init__(self, kind: str, eui64: bytes, address: int, reason: str = "") -> None:
        self.kind = kind
        self.eui64 = eui64
        self.address = address
        self.reason = reason


class LbpRequest:
    """One frame for ADPM_LBP.request. `destination` is a short address (2 octets) or an EUI-64 (8)."""

    __slots__ = ("destination", "frame", "handle", "secured")

    def __init__(self, handle: int, destination: bytes, secured: bool, frame: bytes) -> None:
        self.handle = handle
        self.destination = destination
        self.secured = secured
        self.frame = frame


class _Slot:
    __slots__ = (
        "address", "attempts", "deadline", "destination", "disable_backup", "eui64", "exchange", "finished",
        "frame", "handle", "media", "purpose",
    )  # fmt: skip

    def __init__(self, eui64: bytes, address: int, destination: bytes, purpose: int) -> None:
        self.eui64 = eui64
        self.address = address
        self.destination = destination
        self.purpose = purpose
        self.exchange: ServerExchange | None = None
        self.finished = False  # the last frame is out: its confirm ends the slot
        self.media = 0
        self.disable_backup = False
        self.frame = b""
        self.handle = -1
        self.attempts = 0
        self.deadline = 0.0


class BootstrapServer:
    """The server of one PAN.

    `aes` is as plc/g3/ciphers.py says; `random` gives so many unpredictable octets. `admit` gives the short
    address of a device that may join, or None. `psk` serves every device that has none in `device_psks`; with b""
    all others are declined. Keys are in no outcome, error or repr.
    """

    def __init__(
        self,
        aes: "Aes",
        random: "Callable[[int], bytes]",
        admit: "Admit",
        server_identity: bytes,
        gmk: bytes,
        gmk_index: int = 0,
        psk: bytes = b"",
        device_psks: "dict[bytes, bytes] | None" = None,
        message_timeout_s: float = MESSAGE_TIMEOUT_S,
        attempts: int = MESSAGE_ATTEMPTS,
        slots: int = SLOTS,
    ) -> None:
        if len(gmk) != KEY_SIZE or gmk_index not in (0, 1):
            raise LocalPlcError(
                f"a GMK has {KEY_SIZE} octets and index 0 or 1, got {len(gmk)} and {gmk_index}"
            )
        for key in [psk or bytes(KEY_SIZE)] + list((device_psks or {}).values()):
            if len(key) != KEY_SIZE:
                raise LocalPlcError(f"a PSK has {KEY_SIZE} octets, got {len(key)}")
        self.server_identity = server_identity
        self.gmk_index = gmk_index
        self.counters = {
            "lbp_bad_frames": 0,
            "lbp_unexpected_frames": 0,
            "lbp_busy": 0,
            "lbp_retransmissions": 0,
            "lbp_given_up": 0,
            "lbp_failed_authentications": 0,
        }
        self._aes = aes
        self._random = random
        self._admit = admit
        self._gmk = gmk
        self._psk = psk
        self._device_psks = device_psks or {}
        self._message_timeout_s = message_timeout_s
        self._attempts = attempts
        self._largest_slots = slots
        self._slots: dict[bytes, _Slot] = {}
        self._requests: list[LbpRequest] = []
        self._outcomes: list[Outcome] = []
        self._next_handle = 0
        self._identifier = 0
        self._nonce = 0
        self._next_gmk = b""  # while a rotation is under way
        self._to_rekey: "list[tuple[bytes, int]]" = []
        self._to_activate: "list[tuple[bytes, int]]" = []
        self._activating = False

    # What goes in.

    def receive_frame(self, source: int, octets: bytes, now: float) -> None:
        """Take an LBP frame that came from a short address: the bootstrap agent's, or the device's own."""
        try:
            frame = lbp.decode_frame(octets)
            packet = None
            if frame.kind == lbp.JOINING and frame.data:
                packet = eap_psk.decode_packet(frame.data)
        except MessageError:
            self.counters["lbp_bad_frames"] += 1
            return
        if frame.kind == lbp.KICK_FROM_DEVICE:
            self._end(self._slots.get(frame.eui64))
            self._outcomes.append(Outcome(LEFT, frame.eui64, source, "left the network"))
        elif frame.kind != lbp.JOINING or source > LARGEST_SHORT_ADDRESS:
            self.counters["lbp_unexpected_frames"] += 1
        elif packet is None:
            self._begin_join(frame, source, now)
        else:
            self._continue(frame, packet, now)
        self._fill_slots(now)

    def confirm(self, handle: int, delivered: bool, now: float) -> None:
        """Take the modem's word on a request; what was not delivered is tried again soon."""
        for slot in list(self._slots.values()):
            if slot.handle == handle:
                slot.handle = -1
                if not delivered:
                    slot.deadline = min(slot.deadline, now + RETRY_PAUSE_S)
                elif slot.finished:
                    self._succeed(slot)
        self._fill_slots(now)

    def kick(self, eui64: bytes, address: int, now: float) -> None:
        """Tell a member to leave."""
        self._end(self._slots.get(eui64))
        self._to_rekey = [entry for entry in self._to_rekey if entry[0] != eui64]
        self._to_activate = [entry for entry in self._to_activate if entry[0] != eui64]
        self._open(eui64, address, _KICK, lbp.KICK_TO_DEVICE, b"", now)

    def set_device_psks(self, device_psks: "dict[bytes, bytes]") -> None:
        """Replace the PSKs of single devices; what is under way goes on with the old ones."""
        self._device_psks = device_psks

    def start_rotation(self, gmk: bytes, members: "list[tuple[bytes, int]]", now: float) -> None:
        """Give every member (EUI-64, short address) a new key, then let all of them use it."""
        if len(gmk) != KEY_SIZE:
            raise LocalPlcError(f"a GMK has {KEY_SIZE} octets, got {len(gmk)}")
        self.abandon()
        self._next_gmk = gmk
        self._to_rekey = list(members)
        self._fill_slots(now)

    def abandon(self) -> None:
        """Forget everything that is under way: the modem restarted."""
        self._slots = {}
        self._requests = []
        self._next_gmk = b""
        self._to_rekey = []
        self._to_activate = []
        self._activating = False

    # What comes out.

    def next_request(self) -> LbpRequest | None:
        """Give the oldest request that was not yet taken, or None."""
        return self._requests.pop(0) if self._requests else None

    def next_outcome(self) -> Outcome | None:
        """Give the oldest outcome that was not yet taken, or None."""
        return self._outcomes.pop(0) if self._outcomes else None

    def next_timeout(self) -> float | None:
        """Tell when handle_timeout() wants to be called, or None."""
        deadlines = [slot.deadline for slot in self._slots.values()]
        return min(deadlines) if deadlines else None

    def handle_timeout(self, now: float) -> None:
        """Send again what was not answered in time, or give up."""
        for slot in list(self._slots.values()):
            if now < slot.deadline:
                continue
            if slot.attempts < self._attempts:
                self.counters["lbp_retransmissions"] += 1
                self._transmit(slot, now)
            else:
                self._give_up(slot)
        self._fill_slots(now)

    # Joining.

    def _begin_join(self, frame: lbp.Frame, source: int, now: float) -> None:
        eui64 = frame.eui64
        busy = self._slots.get(eui64)
        if busy is not None and busy.purpose == _JOIN:
            return
        self._end(busy)
        if len(self._slots) >= self._largest_slots or self._activating:
            self.counters["lbp_busy"] += 1
            return
        # A device in reach of the coordinator has no agent: it is spoken to by its EUI-64.
        direct = source == COORDINATOR_SHORT_ADDRESS
        slot = _Slot(eui64, 0, eui64 if direct else source.to_bytes(2, "big"), _JOIN)
        slot.media = frame.media
        slot.disable_backup = frame.disable_backup
        psk = self._device_psks.get(eui64, self._psk)
        address = self._admit(eui64) if psk else None
        if address is None:
            if not psk:
                self._outcomes.append(Outcome(DECLINED, eui64, 0, "no PSK is known for it"))
            self._decline(slot)
            return
        slot.address = address
        slot.exchange = self._new_exchange(psk)
        self._slots[eui64] = slot
        self._send(slot, lbp.CHALLENGE, slot.exchange.message_1(), now)

    def _new_exchange(self, psk: bytes) -> ServerExchange:
        self._identifier = (self._identifier + 1) & 0xFF
        self._nonce = (self._nonce + 1) & 0xFFFFFFFF
        return ServerExchange(
            self._aes,
            psk,
            self.server_identity,
            self._random(eap_psk.RAND_SIZE),
            self._identifier,
            self._nonce - 1,
        )

    def _continue(self, frame: lbp.Frame, packet: eap_psk.Packet, now: float) -> None:
        slot = self._slots.get(frame.eui64)
        if slot is None or slot.exchange is None or slot.finished:
            self.counters["lbp_unexpected_frames"] += 1
            return
        try:
            if slot.exchange.stage == 1:
                self._second_message(slot, slot.exchange, packet, now)
            else:
                self._fourth_message(slot, slot.exchange, packet, now)
        except MessageError:
            # Late, repeated or forged: the one that is waited for may still come.
            self.counters["lbp_unexpected_frames"] += 1

    def _second_message(
        self, slot: _Slot, exchange: ServerExchange, packet: eap_psk.Packet, now: float
    ) -> None:
        if not exchange.take_message_2(packet):
            self._refuse(slot, "its PSK is another than the one that is known")
            return
        parameters = b""
        if slot.purpose == _JOIN:
            parameters = lbp.encode_parameter(lbp.PARAMETER_SHORT_ADDRESS, slot.address.to_bytes(2, "big"))
            parameters += lbp.encode_parameter(lbp.PARAMETER_GMK, bytes((self.gmk_index,)) + self._gmk)
            parameters += lbp.encode_parameter(lbp.PARAMETER_GMK_ACTIVATION, bytes((self.gmk_index,)))
        else:
            new_index = bytes((1 - self.gmk_index,))
            parameters = lbp.encode_parameter(lbp.PARAMETER_GMK, new_index + self._next_gmk)
        self._send(slot, lbp.CHALLENGE, exchange.message_3(parameters), now)

    def _fourth_message(
        self, slot: _Slot, exchange: ServerExchange, packet: eap_psk.Packet, now: float
    ) -> None:
        result, parameters = exchange.take_message_4(packet)
        for identifier, value in lbp.decode_parameters(parameters):
            if identifier == lbp.PARAMETER_RESULT and value[:1] != bytes((lbp.RESULT_SUCCESS,)):
                result = eap_psk.RESULT_DONE_FAILURE
        if result != eap_psk.RESULT_DONE_SUCCESS:
            self._refuse(slot, "it refused its configuration parameters")
            return
        slot.finished = True
        success = eap_psk.encode_outcome(eap_psk.CODE_SUCCESS, exchange.identifier)
        self._send(slot, lbp.ACCEPTED, success, now)

    def _refuse(self, slot: _Slot, reason: str) -> None:
        self.counters["lbp_failed_authentications"] += 1
        self._end(slot)
        if slot.purpose == _JOIN:
            self._decline(slot)
            self._outcomes.append(Outcome(DECLINED, slot.eui64, slot.address, reason))
        else:
            self._outcomes.append(Outcome(REKEY_FAILED, slot.eui64, slot.address, reason))

    def _decline(self, slot: _Slot) -> None:
        identifier = self._identifier if slot.exchange is None else slot.exchange.identifier
        failure = eap_psk.encode_outcome(eap_psk.CODE_FAILURE, identifier)
        self._put(slot, lbp.DECLINE, failure)
        self._request(slot)

    # Members: rotation and kicks.

    def _fill_slots(self, now: float) -> None:
        while self._to_rekey and len(self._slots) < self._largest_slots:
            eui64, address = self._to_rekey.pop(0)
            psk = self._device_psks.get(eui64, self._psk)
            if not psk:
                self._outcomes.append(Outcome(REKEY_FAILED, eui64, address, "no PSK is known for it"))
            elif eui64 not in self._slots:
                slot = _Slot(eui64, address, address.to_bytes(2, "big"), _REKEY)
                slot.exchange = self._new_exchange(psk)
                self._slots[eui64] = slot
                self._send(slot, lbp.CHALLENGE, slot.exchange.message_1(), now)
        if self._next_gmk and not self._to_rekey and not self._activating:
            # Nobody is given the old key any more from here on.
            if [slot for slot in self._slots.values() if slot.purpose in (_JOIN, _REKEY)]:
                return
            self._activating = True
        while self._activating and self._to_activate and len(self._slots) < self._largest_slots:
            eui64, address = self._to_activate.pop(0)
            index = bytes((1 - self.gmk_index,))
            parameter = lbp.encode_parameter(lbp.PARAMETER_GMK_ACTIVATION, index)
            self._open(eui64, address, _ACTIVATE, lbp.ACCEPTED, parameter, now)
        if self._activating and not [slot for slot in self._slots.values() if slot.purpose == _ACTIVATE]:
            self.gmk_index = 1 - self.gmk_index
            self._gmk = self._next_gmk
            self._next_gmk = b""
            self._activating = False
            self._outcomes.append(Outcome(ACTIVATED, b"", 0))

    def _open(self, eui64: bytes, address: int, purpose: int, kind: int, data: bytes, now: float) -> None:
        slot = _Slot(eui64, address, address.to_bytes(2, "big"), purpose)
        slot.finished = True
        self._slots[eui64] = slot
        self._send(slot, kind, data, now)

    def _succeed(self, slot: _Slot) -> None:
        self._end(slot)
        if slot.purpose == _JOIN:
            self._outcomes.append(Outcome(JOINED, slot.eui64, slot.address))
            if self._next_gmk:
                self._to_rekey.append((slot.eui64, slot.address))
        elif slot.purpose == _REKEY:
            self._to_activate.append((slot.eui64, slot.address))
            self._outcomes.append(Outcome(REKEYED, slot.eui64, slot.address))

    def _give_up(self, slot: _Slot) -> None:
        self.counters["lbp_given_up"] += 1
        self._end(slot)
        if slot.purpose == _JOIN:
            self._outcomes.append(Outcome(FAILED, slot.eui64, slot.address, "it did not answer any more"))
        elif slot.purpose in (_REKEY, _ACTIVATE):
            reason = "it could not be given the new group key"
            self._outcomes.append(Outcome(REKEY_FAILED, slot.eui64, slot.address, reason))

    def _end(self, slot: _Slot | None) -> None:
        if slot is not None and self._slots.get(slot.eui64) is slot:
            self._slots.pop(slot.eui64)

    # Frames out.

    def _send(self, slot: _Slot, kind: int, data: bytes, now: float) -> None:
        self._put(slot, kind, data)
        slot.attempts = 0
        self._transmit(slot, now)

    def _put(self, slot: _Slot, kind: int, data: bytes) -> None:
        frame = lbp.Frame(kind, slot.eui64, data, slot.media, slot.disable_backup)
        slot.frame = frame.to_bytes()

    def _transmit(self, slot: _Slot, now: float) -> None:
        slot.attempts += 1
        slot.deadline = now + self._message_timeout_s
        self._request(slot)

    def _request(self, slot: _Slot) -> None:
        slot.handle = self._next_handle
        self._next_handle = (self._next_handle + 1) & 0xFF
        # Between coordinator and agent the frame is under the group key; a device that joins has none yet.
        secured = len(slot.destination) == 2
        self._requests.append(LbpRequest(slot.handle, slot.destination, secured, slot.frame))
