"""What the drivers of both PLC families share: one modem at the end of a serial line, asked step by step.

The host asks the modem in *procedures*: generators that yield a Request and are sent the answer. One request
is outstanding at a time, since modems have a single receive slot and confirms carry no sequence number. An
answer that does not come is asked for again; after that the modem is declared lost, and started again with
growing pauses until it answers. Frames that are not the awaited answer are indications.
"""

from plc.errors import LocalPlcError, MessageError
from plc.network import ApduNotSent, Capabilities, Event, ModemLost, Network
from plc.usi.framing import EXTENDED_LENGTH_HARMONY, FrameDecoder, encode_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from plc.commands import CommandTable, Message
    from plc.sfsk.framing import LocalFrameDecoder

    Decoder = FrameDecoder | LocalFrameDecoder
    Procedure = Generator["Request", "Answer", None]
    Step = Generator["Request", "Answer", "Answer"]

# The reference host waits this long for a synchronous confirm.
CONFIRM_TIMEOUT_S = 3.0
REQUEST_ATTEMPTS = 3
FIRST_RESTART_PAUSE_S = 2.0
LONGEST_RESTART_PAUSE_S = 60.0
REFRESH_AFTER_GARBAGE_S = 30.0

# More indications than that within the window are no network any more, but a modem gone mad.
FLOOD_WINDOW_S = 10.0
FLOOD_INDICATIONS = 2000
FLOOD_INDICATIONS_PER_NODE = 20

LARGEST_EVENT_QUEUE = 8192
LARGEST_APDU_QUEUE = 1024
LARGEST_PROCEDURE_QUEUE = 64

# Counters of a frame decoder that tell of octets which were no frame.
_GARBAGE_COUNTERS = ("bad_crc", "bad_length", "bad_escape", "too_long", "too_short", "garbage_octets")


class Request:
    """One question to the modem, and how its answer is known."""

    __slots__ = ("attempts", "confirm", "field", "optional", "parts", "payload", "timeout_s", "value")

    def __init__(
        self,
        payload: bytes,
        confirm: int,
        field: str = "",
        value: int = 0,
        optional: bool = False,
        parts: bool = False,
        timeout_s: float = CONFIRM_TIMEOUT_S,
        attempts: int = REQUEST_ATTEMPTS,
    ) -> None:
        self.payload = payload
        self.confirm = confirm  # command id of the answer; negative: none comes, and the time-out is a pause
        self.field = field  # field of the answer that must hold `value`; "" when the answer has none
        self.value = value
        self.optional = optional  # silence is an answer: firmware that does not know the command
        self.parts = parts  # the answer comes in several messages; subclasses tell the last one
        self.timeout_s = timeout_s
        self.attempts = attempts


class Answer:
    """What came back: the messages of the answer, none when the modem kept silent."""

    __slots__ = ("complete", "messages")

    def __init__(self, messages: "list[Message]", complete: bool) -> None:
        self.messages = messages
        self.complete = complete  # the last part came too


class ModemHost(Network):
    """The shared half of BaseNode and Coordinator. Subclasses fill in the hooks at the end."""

    def __init__(
        self,
        protocol: int,
        commands: "CommandTable",
        capabilities: Capabilities,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...] = EXTENDED_LENGTH_HARMONY,
        decoder: "Decoder | None" = None,
    ) -> None:
        self.capabilities = capabilities
        self._protocol = protocol
        self._commands = commands
        self._extended_length = extended_length
        self._refresh_interval_s = refresh_interval_s
        self._keepalive_interval_s = keepalive_interval_s
        self._decoder = decoder or FrameDecoder(extended_length)
        self.counters: dict[str, int] = self._decoder.counters
        for name in (
            "unknown_commands",
            "short_messages",
            "foreign_protocol_frames",
            "unexpected_confirms",
            "missing_confirms",
            "modem_lost",
            "events_dropped",
            "procedures_dropped",
            "procedures_failed",
            "indication_floods",
            "indications_ignored",
        ):
            self.counters[name] = 0
        self._events: list[Event] = []
        self._output: list[bytes] = []
        self._next_token = 1
        self._running = False  # the start-up procedure has ended well
        self._lost = False  # ModemLost was said, and NetworkStarted not yet again
        self._procedures: "list[Procedure]" = []
        self._procedure: "Procedure | None" = None
        self._held: "tuple[Procedure, Answer] | None" = None  # while it is asked whether the modem is alive
        self._now = 0.0  # of the step that a procedure is in
        self._stepping = False
        self._request: Request | None = None
        self._parts: "list[Message]" = []
        self._attempts_left = 0
        self._request_deadline: float | None = None
        self._restart_due: float | None = None
        self._restart_pause_s = FIRST_RESTART_PAUSE_S
        self._refresh_due: float | None = None
        self._refresh_queued = False
        self._keepalive_due: float | None = None
        self._frames_when_asked = 0
        self._foreign_when_asked = 0
        self._garbage_when_asked = 0
        self._garbage_seen = 0
        self._flood_window_end = 0.0
        self._indications = 0  # of this window

    # The face of Network.

    def start(self, now: float) -> None:
        """Begin, or begin anew after the port was reopened: identify, list, follow."""
        self._decoder.reset()
        self._output = []
        self._abandon("the port was reopened", now)
        self._restart_pause_s = FIRST_RESTART_PAUSE_S
        self._begin(now)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the modem, in any chunking."""
        self._decoder.receive_data(data)
        self._take_frames(now)
        garbage = self._garbage()
        if garbage != self._garbage_seen:
            self._garbage_seen = garbage
            if self._refresh_due is not None:
                # A spoilt frame may have been a join or a leave.
                self._refresh_due = min(self._refresh_due, now + REFRESH_AFTER_GARBAGE_S)
        self._advance(now)

    def _take_frames(self, now: float) -> None:
        while True:
            frame = self._decoder.next_frame()
            if frame is None:
                return
            protocol, payload = frame
            if protocol == self._protocol:
                self._take(payload, now)
            elif not self._take_foreign(protocol, payload, now):
                self.counters["foreign_protocol_frames"] += 1
            # Frame by frame, or it would depend on the chunking what is asked next.
            self._advance(now)

    def data_to_send(self) -> bytes:
        """Give the bytes that are to be written to the modem now; b"" when there are none."""
        if not self._output:
            return b""
        data = b"".join(self._output)
        self._output = []
        return data

    def next_event(self) -> Event | None:
        """Give the oldest event that was not yet taken, or None."""
        return self._events.pop(0) if self._events else None

    def next_timeout(self) -> float | None:
        """Tell when handle_timeout() wants to be called (monotonic seconds), or None."""
        nearest: float | None = None
        for due in (
            self._request_deadline,
            self._restart_due,
            self._refresh_due,
            self._keepalive_due,
            self._data_timeout(),
        ):
            if due is not None and (nearest is None or due < nearest):
                nearest = due
        return nearest

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that has run out at `now`."""
        if self._request_deadline is not None and now >= self._request_deadline:
            self._confirm_missing(now)
        if self._restart_due is not None and now >= self._restart_due:
            self._begin(now)
        if self._refresh_due is not None and now >= self._refresh_due:
            self._refresh_due = now + self._refresh_interval_s
            self._queue_refresh()
        if self._keepalive_due is not None and now >= self._keepalive_due:
            self._keepalive_due = now + self._keepalive_interval_s
            if self._procedure is None and not self._procedures:
                self._queue(self._check_alive())
        self._handle_data_timeout(now)
        self._advance(now)

    def refresh(self, now: float) -> None:
        """List all nodes and links anew; yields NodeJoined, NodeLeft and LinkQualityReported."""
        self._queue(self._list_nodes(True))
        self._advance(now)

    def read_diagnostics(self, now: float) -> None:
        """Read versions and counters of the modem into `counters`."""
        self._queue(self._read_counters())
        self._advance(now)

    # For subclasses.

    def _emit(self, event: Event) -> None:
        if len(self._events) >= LARGEST_EVENT_QUEUE:
            # Nobody takes them. What is lost is made good by the next list of all nodes.
            self.counters["events_dropped"] += 1
            self._queue_refresh()
            return
        self._events.append(event)

    def _send(self, payload: bytes) -> None:
        self._output.append(encode_frame(self._protocol, payload, self._extended_length))

    def _token(self) -> int:
        token = self._next_token
        self._next_token += 1
        return token

    def _queue(self, procedure: "Procedure") -> None:
        if len(self._procedures) >= LARGEST_PROCEDURE_QUEUE:
            self.counters["procedures_dropped"] += 1
            return
        self._procedures.append(procedure)

    def _queue_refresh(self) -> None:
        if self._running and not self._refresh_queued:
            self._refresh_queued = True
            self._queue(self._list_nodes(False))

    def _not_sent(self, token: int, reason: str, transient: bool) -> None:
        self._emit(ApduNotSent(token, reason, transient))

    def _may_wait(self, token: int, waiting: int) -> bool:
        """Whether one more APDU may wait behind so many; tells its token why not."""
        if waiting >= LARGEST_APDU_QUEUE:
            self._not_sent(token, "too many APDUs wait", True)
            return False
        if not self._running:
            self._not_sent(token, "the modem is not ready", True)
            return False
        return True

    def _asking(self) -> bool:
        return self._request is not None

    def _started(self, now: float) -> None:
        self._running = True
        self._lost = False
        self._restart_pause_s = FIRST_RESTART_PAUSE_S
        self._refresh_due = now + self._refresh_interval_s
        self._keepalive_due = now + self._keepalive_interval_s

    def _lose_modem(self, reason: str, now: float) -> None:
        """Say that the modem is gone, once, and plan to start it again."""
        self._abandon(reason, now)
        if not self._lost:
            self._lost = True
            self.counters["modem_lost"] += 1
            self._emit(ModemLost(reason))
        self._restart_due = now + self._restart_pause_s
        self._restart_pause_s = min(2 * self._restart_pause_s, LONGEST_RESTART_PAUSE_S)

    # The machinery.

    def _abandon(self, reason: str, now: float) -> None:
        if self._procedure is not None and not self._stepping:
            self._procedure.close()
        if self._held is not None:
            self._held[0].close()
        self._procedure = None
        self._held = None
        self._procedures = []
        self._refresh_queued = False
        self._request = None
        self._request_deadline = None
        self._refresh_due = None
        self._keepalive_due = None
        self._restart_due = None
        self._running = False
        self._abandon_data(reason, now)

    def _begin(self, now: float) -> None:
        self._restart_due = None
        self._queue(self._start_up())
        self._advance(now)

    def _advance(self, now: float) -> None:
        while self._procedure is None and self._procedures and self._may_ask():
            self._procedure = self._procedures.pop(0)
            self._step(None, now)
        self._send_apdus(now)

    def _step(self, answer: Answer | None, now: float) -> None:
        procedure = self._procedure
        if procedure is None:
            return
        self._now = now
        self._stepping = True
        try:
            request = next(procedure) if answer is None else procedure.send(answer)
        except StopIteration:
            self._end_procedure(procedure, now)
            return
        except LocalPlcError:
            # A value that does not fit its field, found out late: the network goes on without this procedure.
            self.counters["procedures_failed"] += 1
            self._end_procedure(procedure, now)
            return
        finally:
            self._stepping = False
        if self._procedure is not procedure:
            # The step itself lost the modem: whatever it wanted to ask is void.
            return
        self._request = request
        self._attempts_left = request.attempts
        self._ask(now)

    def _end_procedure(self, procedure: "Procedure", now: float) -> None:
        if self._procedure is not procedure:
            return
        self._procedure = None
        if self._held is not None:
            self._procedure, answer = self._held
            self._held = None
            self._step(answer, now)

    def _hold_procedure(self, answer: Answer, now: float) -> None:
        """Ask whether the modem is alive before the procedure learns that an optional request has no answer.

        A procedure of many optional requests would take minutes to get through a silent modem.
        """
        procedure = self._procedure
        self._request = None
        self._request_deadline = None
        self._parts = []
        if procedure is not None:
            self._held = (procedure, answer)
            self._procedure = self._check_alive()
            self._step(None, now)

    def _ask(self, now: float) -> None:
        request = self._request
        if request is None:
            return
        self._attempts_left -= 1
        self._parts = []
        self._frames_when_asked = self.counters["frames"]
        self._foreign_when_asked = self.counters["foreign_protocol_frames"]
        self._garbage_when_asked = self._garbage()
        self._request_deadline = now + request.timeout_s
        if request.payload:
            self._send(request.payload)

    def _confirm_missing(self, now: float) -> None:
        request = self._request
        if request is None:
            return
        if request.payload and request.confirm >= 0:
            self.counters["missing_confirms"] += 1
        if self._attempts_left > 0:
            self._ask(now)
            return
        if request.optional or self._parts:
            answer = Answer(self._parts, False)
            heard = self.counters["frames"] > self._frames_when_asked
            if (
                self._running
                and self._held is None
                and request.payload
                and request.confirm >= 0
                and not heard
            ):
                self._hold_procedure(answer, now)
            else:
                self._finish_request(answer, now)
            return
        self._lose_modem(self._silence_reason(), now)

    def _garbage(self) -> int:
        return sum([self.counters.get(name, 0) for name in _GARBAGE_COUNTERS])

    def _silence_reason(self) -> str:
        if self.counters["foreign_protocol_frames"] > self._foreign_when_asked:
            return "the modem speaks another protocol than " + self.capabilities.family
        if self.counters["frames"] > self._frames_when_asked:
            return "the modem sends, but does not answer requests"
        if self._garbage() > self._garbage_when_asked:
            return "bytes come that are no frames: wrong speed, or not a modem"
        return "the modem does not answer"

    def _finish_request(self, answer: Answer, now: float) -> None:
        self._request = None
        self._request_deadline = None
        self._parts = []
        self._step(answer, now)

    def _end_pause(self, now: float) -> None:
        """What a procedure without a question waits for has come by another way."""
        if self._request is not None and not self._request.payload:
            self._finish_request(Answer([], False), now)

    def _take(self, payload: bytes, now: float) -> None:
        try:
            message = self._commands.decode(payload)
        except MessageError:
            known = bool(payload) and self._commands.row(payload[0]) is not None
            self.counters["short_messages" if known or not payload else "unknown_commands"] += 1
            return
        if self._keepalive_due is not None:
            self._keepalive_due = now + self._keepalive_interval_s
        request = self._request
        if request is not None and self._answers(request, message):
            self._parts.append(message)
            if request.parts and not self._is_last_part(message):
                self._request_deadline = now + request.timeout_s
                return
            # A part that was spoilt on the line is missing from the answer.
            whole = not request.parts or self._garbage() == self._garbage_when_asked
            self._finish_request(Answer(self._parts, whole), now)
            return
        if self._is_flood(now):
            self.counters["indications_ignored"] += 1
            return
        self._handle_message(message, now)

    def _is_flood(self, now: float) -> bool:
        """Count an indication; tells whether it is one too many, and loses the modem at the first such."""
        if now >= self._flood_window_end:
            self._flood_window_end = now + FLOOD_WINDOW_S
            self._indications = 0
        self._indications += 1
        limit = FLOOD_INDICATIONS + FLOOD_INDICATIONS_PER_NODE * self._network_size()
        if self._indications <= limit:
            return False
        if self._running:
            self.counters["indication_floods"] += 1
            self._lose_modem(
                f"the modem floods: more than {limit} indications within {FLOOD_WINDOW_S:.0f} s", now
            )
        return True

    # Hooks.

    def _answers(self, request: Request, message: "Message") -> bool:
        return message.command == request.confirm and (
            not request.field or message.number(request.field) == request.value
        )

    def _may_ask(self) -> bool:
        return True

    def _take_foreign(self, protocol: int, payload: bytes, now: float) -> bool:  # noqa: ARG002 a hook
        return False

    def _is_last_part(self, message: "Message") -> bool:  # noqa: ARG002 a hook
        return True

    def _network_size(self) -> int:
        """How many nodes are known: a large network may have more to tell."""
        return 0

    def _start_up(self) -> "Procedure":
        raise NotImplementedError

    def _check_alive(self) -> "Procedure":
        raise NotImplementedError

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        raise NotImplementedError

    def _read_counters(self) -> "Procedure":
        raise NotImplementedError

    def _handle_message(self, message: "Message", now: float) -> None:
        raise NotImplementedError

    def _send_apdus(self, now: float) -> None:
        raise NotImplementedError

    def _data_timeout(self) -> float | None:
        raise NotImplementedError

    def _handle_data_timeout(self, now: float) -> None:
        raise NotImplementedError

    def _abandon_data(self, reason: str, now: float) -> None:
        raise NotImplementedError


def check_euis(euis: "set[bytes] | None", sizes: tuple[int, ...]) -> None:
    """Raise LocalPlcError when one of them has another size than this family's."""
    for eui in euis or ():
        if len(eui) not in sizes:
            raise LocalPlcError(f"an EUI of this network has {sizes[0]} octets, got {eui.hex()}")
