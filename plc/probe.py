"""Which modem is this? Questions that change nothing, asked until a family has answered, then its particulars.

Sans-IO like a network (plc/network.py), but for one run: start(), then feed bytes and the time until `done`.
PRIME is told by an answer on USI protocol 0x30, G3 by one on 0x25, S-FSK by one in a local frame; the
firmware's generation by what its answers hold: PRIME's PLME_GET.confirm has a channel since Harmony, and G3's
bootstrap server lives in the modem ("B") when LBP_SET is a command that it knows.
"""

from plc.errors import MessageError
from plc.g3 import commands as g3_commands
from plc.g3 import ib
from plc.g3.steps import BOOTSTRAP_SERVER_QUESTION, has_bootstrap_server
from plc.prime import commands as prime_commands
from plc.prime import enumerations as prime_enumerations
from plc.prime import pib
from plc.sfsk import commands as sfsk_commands
from plc.sfsk.framing import LOCAL_FRAME, LocalFrameDecoder, encode_local_frame
from plc.usi.framing import PROTOCOL_ADP_G3, PROTOCOL_PRIME_API, FrameDecoder, encode_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from plc.commands import CommandTable, Message

ANSWER_TIMEOUT_S = 1.0
# Somebody who asked a moment ago may have left half a frame in the modem: the second question gets through.
FIRST_ATTEMPTS = 2

_PRIME_FACTS = (
    pib.EUI48_PRODUCTION, pib.MAC_EUI48, pib.PLC_STATE, pib.MAC_STATE, pib.MAC_SECURITY_PROFILE, 0x0075, 0x0076,
    0x0077, 0x8126, 0x8080, 0x8201,
)  # fmt: skip
_G3_MAC_FACTS = (ib.MAC_EXTENDED_ADDRESS, ib.MAC_PAN_ID, ib.MAC_SHORT_ADDRESS)
# In the place of a USI protocol: the question goes in a local frame.
_PROTOCOL_SFSK = -1
_G3_ADP_FACTS = (ib.ADP_SOFT_VERSION, ib.ADP_MANUFACTURER_VERSION)


class Finding:
    """What a modem said of itself. `facts` and `counters` are pairs (name, text) in the order of asking."""

    __slots__ = ("counters", "facts", "family", "generation", "identity", "remark")

    def __init__(self, family: str, generation: str) -> None:
        self.family = family  # "prime", "g3" or "s-fsk"
        self.generation = generation  # "harmony" or "2021"; "b" or "a"; "amis-49587"
        self.identity = b""  # EUI-48 or EUI-64; empty when it tells none
        self.remark = ""
        self.facts: "list[tuple[str, str]]" = []
        self.counters: "list[tuple[str, str]]" = []


class _Question:
    __slots__ = ("attempts", "confirm", "field", "payload", "protocol", "value")

    def __init__(
        self, protocol: int, payload: bytes, confirm: int, field: str = "", value: int = 0, attempts: int = 1
    ) -> None:
        self.protocol = protocol
        self.payload = payload
        self.confirm = confirm
        self.field = field
        self.value = value
        self.attempts = attempts


if TYPE_CHECKING:
    Questions = Generator[_Question, "Message | None", None]
    Ask = Generator[_Question, "Message | None", "Message | None"]


class ModemProbe:
    """Finds out what is at the other end. `finding` is None when nothing answered: `silence` says how."""

    def __init__(self, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.finding: Finding | None = None
        self.done = False
        self._answer_timeout_s = answer_timeout_s
        self._decoder = FrameDecoder()
        self._local_decoder = LocalFrameDecoder()
        self._questions: "Questions" = self._ask_everything()
        self._question: _Question | None = None
        self._attempts_left = 0
        self._deadline: float | None = None
        self._output = b""

    def start(self, now: float) -> None:
        """Ask the first question."""
        self._next(None, now, True)

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the modem, in any chunking."""
        self._decoder.receive_data(data)
        self._local_decoder.receive_data(data)
        while True:
            frame = self._decoder.next_frame()
            if frame is None:
                break
            self._take(frame[0], frame[1], now)
        while True:
            frame = self._local_decoder.next_frame()
            if frame is None:
                return
            if frame[0] == LOCAL_FRAME:
                self._take(_PROTOCOL_SFSK, frame[1], now)

    def _take(self, protocol: int, payload: bytes, now: float) -> None:
        question = self._question
        if question is None or protocol != question.protocol:
            return
        try:
            message = _table(protocol).decode(payload)
        except MessageError:
            return
        if _answers(question, message):
            self._next(message, now, False)

    def data_to_send(self) -> bytes:
        """Give the bytes that are to be written to the modem now; b"" when there are none."""
        data = self._output
        self._output = b""
        return data

    def next_timeout(self) -> float | None:
        """Tell when handle_timeout() wants to be called (monotonic seconds), or None when it is done."""
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Ask again, or go on without an answer."""
        if self._deadline is None or now < self._deadline:
            return
        if self._attempts_left > 0:
            self._ask(now)
        else:
            self._next(None, now, False)

    def silence(self) -> str:
        """What came in place of answers, in words."""
        counters = self._decoder.counters
        if counters["frames"]:
            return "frames of another protocol come, and no answers"
        if [name for name in counters if counters[name]]:
            return "octets come that are no frames: another speed, or not such a modem"
        return "nothing comes back"

    def _next(self, message: "Message | None", now: float, first: bool) -> None:
        try:
            question = next(self._questions) if first else self._questions.send(message)
        except StopIteration:
            self._question = None
            self._deadline = None
            self.done = True
            return
        self._question = question
        self._attempts_left = question.attempts
        self._ask(now)

    def _ask(self, now: float) -> None:
        question = self._question
        if question is not None:
            self._attempts_left -= 1
            self._deadline = now + self._answer_timeout_s
            if question.protocol == _PROTOCOL_SFSK:
                self._output += encode_local_frame(question.payload)
            else:
                self._output += encode_frame(question.protocol, question.payload)

    # The questions.

    def _ask_everything(self) -> "Questions":
        question = _prime_get(pib.PLC_STATE)
        question.attempts = FIRST_ATTEMPTS
        if (yield question) is not None:
            yield from self._ask_prime()
            return
        question = _g3_get("mac", ib.MAC_PAN_ID)
        question.attempts = FIRST_ATTEMPTS
        answer = yield question
        if answer is not None:
            yield from self._ask_g3(answer.command == g3_commands.STATUS)
            return
        question = _sfsk_access(sfsk_commands.DB_READ_CONFIG)
        question.attempts = FIRST_ATTEMPTS
        answer = yield question
        if answer is not None:
            yield from self._ask_sfsk(answer)

    def _ask_sfsk(self, answer: "Message") -> "Questions":
        finding = Finding("s-fsk", "amis-49587")
        self.finding = finding
        config = _sfsk_value(answer)
        address = sfsk_commands.address_of_config(config)
        if not config:
            finding.remark = "it is not configured, and tells no more until an initiator has started it"
        elif address is None:
            finding.remark = "it is no master: a concentrator cannot drive it as it is"
        else:
            finding.facts.append(("local_mac_address", f"0x{address:03X}"))
        for entry, name in sfsk_commands.DB_ENTRIES:
            if entry in (sfsk_commands.DB_SOFT_VERSION, sfsk_commands.DB_REPEATER):
                value = _sfsk_value((yield _sfsk_access(entry)))
                if value:
                    finding.facts.append((name, value.hex()))
        value = _sfsk_value((yield _sfsk_access(sfsk_commands.DB_DATA_COUNTERS, b"\x00")))
        for index, name in enumerate(sfsk_commands.DATA_COUNTERS):
            octets = value[4 * index : 4 * index + 4]
            if len(octets) == 4:
                finding.counters.append((name, str(int.from_bytes(octets, "little"))))

    def _ask_prime(self) -> "Questions":
        # The 2021 firmware's confirm ends without a channel, whatever the question held.
        answer = yield _prime_get(pib.PHY_SOFTWARE_VERSION)
        harmony = answer is not None and answer.values["pch"] is not None
        finding = Finding("prime", "harmony" if harmony else "2021")
        self.finding = finding
        for attribute in _PRIME_FACTS:
            value = _prime_value((yield _prime_get(attribute)))
            if attribute in (pib.EUI48_PRODUCTION, pib.MAC_EUI48):
                if len(value) == 6 and not finding.identity:
                    finding.identity = value
            elif value:
                finding.facts.append((pib.attribute_name(attribute), _in_words(value)))
            if attribute == pib.PLC_STATE and value and value[0] != pib.PLC_STATE_BASE:
                finding.remark = "it is no base node: a concentrator cannot drive it"
        for attribute in pib.DIAGNOSTIC_ATTRIBUTES:
            value = _prime_value((yield _prime_get(attribute)))
            if value:
                finding.counters.append((pib.attribute_name(attribute), str(int.from_bytes(value, "big"))))

    def _ask_g3(self, refused: bool) -> "Questions":
        answer = yield _Question(
            PROTOCOL_ADP_G3, BOOTSTRAP_SERVER_QUESTION, g3_commands.LBP_SET_CONFIRM, attempts=FIRST_ATTEMPTS
        )
        finding = Finding("g3", "b" if has_bootstrap_server(answer) else "a")
        self.finding = finding
        if refused:
            finding.remark = "it is not initialised, and tells no more until a coordinator has started it"
        for attribute in _G3_MAC_FACTS:
            value = _g3_value((yield _g3_get("mac", attribute)))
            if attribute == ib.MAC_EXTENDED_ADDRESS:
                finding.identity = value
            elif value:
                finding.facts.append((ib.attribute_name("mac", attribute), "0x" + value.hex()))
        for attribute in _G3_ADP_FACTS:
            value = _g3_value((yield _g3_get("adp", attribute)))
            if value:
                finding.facts.append((ib.attribute_name("adp", attribute), value.hex()))
        for layer, attributes in (
            ("mac", ib.DIAGNOSTIC_MAC_ATTRIBUTES),
            ("adp", ib.DIAGNOSTIC_ADP_ATTRIBUTES),
        ):
            for attribute in attributes:
                value = _g3_value((yield _g3_get(layer, attribute)))
                if value:
                    finding.counters.append(
                        (ib.attribute_name(layer, attribute), str(int.from_bytes(value, "big")))
                    )


def _table(protocol: int) -> "CommandTable":
    if protocol == _PROTOCOL_SFSK:
        return sfsk_commands.COMMANDS
    return prime_commands.COMMANDS if protocol == PROTOCOL_PRIME_API else g3_commands.COMMANDS


def _answers(question: _Question, message: "Message") -> bool:
    if question.protocol == PROTOCOL_ADP_G3 and message.command == g3_commands.STATUS:
        return message.number("refused_command") == question.payload[0]
    if question.protocol == _PROTOCOL_SFSK and message.command == sfsk_commands.ACCESS_DB_ERROR:
        return True
    return message.command == question.confirm and (
        not question.field or message.number(question.field) == question.value
    )


def _prime_get(attribute: int) -> _Question:
    command, confirm = prime_commands.MLME_GET_REQUEST, prime_commands.MLME_GET_CONFIRM
    if pib.is_phy(attribute):
        command, confirm = prime_commands.PLME_GET_REQUEST, prime_commands.PLME_GET_CONFIRM
        payload = prime_commands.COMMANDS.encode(command, pib=attribute, pch=0)
    else:
        payload = prime_commands.COMMANDS.encode(command, pib=attribute)
    return _Question(PROTOCOL_PRIME_API, payload, confirm, "pib", attribute)


def _prime_value(answer: "Message | None") -> bytes:
    if answer is None or answer.number("result") != prime_enumerations.MLME_SUCCESS:
        return b""
    return answer.octets("value")


def _g3_get(layer: str, attribute: int) -> _Question:
    command, confirm = g3_commands.GET_REQUEST, g3_commands.GET_CONFIRM
    if layer == "mac":
        command, confirm = g3_commands.MAC_GET_REQUEST, g3_commands.MAC_GET_CONFIRM
    payload = g3_commands.COMMANDS.encode(command, attribute=attribute, index=0)
    return _Question(PROTOCOL_ADP_G3, payload, confirm, "attribute", attribute)


def _g3_value(answer: "Message | None") -> bytes:
    if answer is None or "value" not in answer.values:
        return b""
    return answer.octets("value")


def _sfsk_access(entry: int, value: bytes = b"") -> _Question:
    payload = sfsk_commands.COMMANDS.encode(sfsk_commands.ACCESS_DB_REQUEST, entry=entry, value=value)
    return _Question(_PROTOCOL_SFSK, payload, sfsk_commands.ACCESS_DB_CONFIRM, "entry", entry)


def _sfsk_value(answer: "Message | None") -> bytes:
    if answer is None or answer.command != sfsk_commands.ACCESS_DB_CONFIRM:
        return b""
    return answer.octets("value")


def _in_words(value: bytes) -> str:
    printable = value.replace(b"\x00", b"")
    if len(printable) > 4 and all([0x20 <= octet < 0x7F for octet in printable]):
        return printable.decode()
    return value.hex()
