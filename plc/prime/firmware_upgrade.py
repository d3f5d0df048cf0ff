"""Firmware upgrade of PRIME nodes: the file goes to the modem, which gives it to the nodes page by page.

The order of steps is the reference host's: options, targets, what the firmware is, match rules, signature, the file
in frames of its own, check of its CRC-32, start. Each step is acknowledged. From then on the modem tells the progress
of each node, and at last that the run is over. A node restarts with the new firmware and goes back to the old one
when the base node does not confirm it within the safety timer: which of both it runs is asked in the end.
"""

from plc.errors import LocalPlcError
from plc.host import Answer, Request
from plc.prime import commands, enumerations
from plc.prime.commands import COMMANDS
from plc.usi.crc import crc_32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.host import Step

FRAME_SIZE = 512
LARGEST_TEXT = 32  # octets of vendor, model and version in the modem
ALL_NODES = b"\xff" * 6
MATCH_MODEL = 0x02
MATCH_VENDOR = 0x04
CRC_POLL_S = 1.0
CRC_POLLS = 120
_NO_COMMAND = -1
RUN_REFUSED = "the modem refused: "
# A run in which nothing is heard for so long is asked about.
QUIET_S = 900.0
VERSION_TIMEOUT_S = 20.0

CONFIRMED = "confirmed"  # it runs the new firmware
REVERTED = "reverted"  # it had the new firmware, and runs another again
INCOMPLETE = "incomplete"  # it never had all pages
NOT_ANSWERED = "not answered"  # what it runs is not known
ABORTED = "aborted"


class FirmwareImage:
    """A file for nodes, and for which of them: vendor, model and version are texts of at most 32 octets."""

    __slots__ = ("data", "model", "signature_algorithm", "signature_size", "vendor", "version")

    def __init__(
        self,
        data: bytes,
        vendor: bytes,
        model: bytes,
        version: bytes,
        signature_algorithm: int = 0,
        signature_size: int = 0,
    ) -> None:
        for name, text in (("vendor", vendor), ("model", model), ("version", version)):
            if len(text) > LARGEST_TEXT:
                raise LocalPlcError(
                    f"the {name} of a firmware has at most {LARGEST_TEXT} octets, got {len(text)}"
                )
        if not data or len(data) > 0xFFFF * FRAME_SIZE:
            raise LocalPlcError(f"a firmware has 1 to {0xFFFF * FRAME_SIZE} octets, got {len(data)}")
        self.data = data
        self.vendor = vendor
        self.model = model
        self.version = version
        self.signature_algorithm = signature_algorithm
        self.signature_size = signature_size  # octets at the end of the file; 0: not signed


class UpgradeOptions:
    """How the pages travel, and when the nodes restart."""

    __slots__ = ("arq", "match_rules", "multicast", "page_size", "restart_delay_s", "safety_timer_s")

    def __init__(
        self,
        arq: bool = True,
        page_size: int = 0,
        multicast: bool = False,
        restart_delay_s: int = 60,
        safety_timer_s: int = 1800,
        match_rules: int = MATCH_MODEL | MATCH_VENDOR,
    ) -> None:
        self.arq = arq
        self.page_size = page_size  # plc.prime.enumerations.FU_PAGE_SIZES
        self.multicast = multicast
        self.restart_delay_s = restart_delay_s
        self.safety_timer_s = safety_timer_s
        self.match_rules = match_rules


class FirmwareUpgrade:
    """One run: what is sent, and how far each target is. `outcomes` is filled as nodes are decided."""

    def __init__(self, image: FirmwareImage, targets: "list[bytes]", options: UpgradeOptions) -> None:
        for target in targets:
            if len(target) != 6:
                raise LocalPlcError(f"an EUI-48 has 6 octets, got {target.hex()}")
        if not targets:
            raise LocalPlcError("a firmware upgrade needs at least one target")
        self.image = image
        self.targets = list(targets)
        self.options = options
        self.states: dict[bytes, int] = {}
        self.pages: dict[bytes, int] = {}
        self.outcomes: dict[bytes, str] = {}
        self.completed: dict[bytes, bool] = {}  # had all pages at some time
        self.running = False
        self._preparation = self._prepare()

    def _prepare(self) -> "list[bytes]":
        """What comes before the file. Raises LocalPlcError when an option does not fit its field."""
        image, options = self.image, self.options
        preparation = [
            COMMANDS.encode(
                commands.FU_OPTIONS_REQUEST,
                arq=1 if options.arq else 0,
                page_size=options.page_size,
                multicast=1 if options.multicast else 0,
                restart_delay_s=options.restart_delay_s,
                safety_timer_s=options.safety_timer_s,
            ),
            COMMANDS.encode(commands.FU_CLEAR_TARGETS_REQUEST),
        ]
        preparation += [
            COMMANDS.encode(commands.FU_ADD_TARGET_REQUEST, eui48=target) for target in self.targets
        ]
        preparation += [
            COMMANDS.encode(
                commands.FU_FIRMWARE_DATA_REQUEST,
                vendor=image.vendor,
                model=image.model,
                version=image.version,
            ),
            COMMANDS.encode(commands.FU_MATCH_RULE_REQUEST, rules=options.match_rules),
        ]
        if image.signature_size:
            preparation.append(
                COMMANDS.encode(
                    commands.FU_SIGNATURE_DATA_REQUEST,
                    algorithm=image.signature_algorithm,
                    length=image.signature_size,
                )
            )
        preparation.append(
            COMMANDS.encode(
                commands.FU_INIT_FILE_REQUEST,
                frame_count=_frame_count(image),
                file_size=len(image.data),
                frame_size=FRAME_SIZE,
                file_crc=crc_32(image.data),
            )
        )
        return preparation

    def steps(self) -> "Step":
        """Hand everything to the modem and start. The last answer is not complete when a step was refused."""
        image = self.image
        frame_count = _frame_count(image)
        answer = Answer([], False)
        for payload in self._preparation:
            answer = yield from _ask(payload)
            if not answer.complete:
                return answer
        for number in range(frame_count):
            data = image.data[number * FRAME_SIZE : (number + 1) * FRAME_SIZE]
            answer = yield from _ask(
                COMMANDS.encode(commands.FU_DATA_FRAME_REQUEST, frame_number=number + 1, data=data)
            )
            if not answer.complete:
                return answer
        for _ in range(CRC_POLLS):
            answer = yield from _ask(COMMANDS.encode(commands.FU_CHECK_CRC_REQUEST))
            if answer.complete or ack_of(answer) != enumerations.FU_ACK_CRC_ONGOING:
                break
            # Nothing is asked, and nothing answers: a pause.
            yield Request(b"", _NO_COMMAND, optional=True, timeout_s=CRC_POLL_S, attempts=1)
        if not answer.complete:
            return answer
        return (yield from _ask(COMMANDS.encode(commands.FU_START_REQUEST, enable=1)))

    def note_status(self, eui48: bytes, state: int, pages: int) -> bool:
        """Take the progress of a node; tells whether it is a target and something changed."""
        if eui48 not in self.targets or (self.states.get(eui48), self.pages.get(eui48)) == (state, pages):
            return False
        self.states[eui48] = state
        self.pages[eui48] = pages
        if state in (enumerations.FU_COMPLETE, enumerations.FU_COUNTDOWN, enumerations.FU_UPGRADE):
            self.completed[eui48] = True
        return True

    def decide(self, eui48: bytes, version: bytes | None) -> None:
        """Say what came of a target by the version that it runs; None when it did not answer."""
        if version == self.image.version:
            self.outcomes[eui48] = CONFIRMED
        elif version is None:
            self.outcomes[eui48] = NOT_ANSWERED
        else:
            self.outcomes[eui48] = REVERTED if eui48 in self.completed else INCOMPLETE

    def undecided(self) -> "list[bytes]":
        """The targets without an outcome."""
        return [target for target in self.targets if target not in self.outcomes]


def _frame_count(image: FirmwareImage) -> int:
    return (len(image.data) + FRAME_SIZE - 1) // FRAME_SIZE


def _ask(payload: bytes) -> "Step":
    """One step; the answer is complete when its acknowledgement is 0."""
    answer = yield Request(payload, commands.FU_ACK, "echoed_command", payload[0], optional=True, attempts=3)
    return Answer(answer.messages, ack_of(answer) == enumerations.FU_ACK_OK)


def ack_of(answer: Answer) -> int:
    """The acknowledgement, or -1 when none came."""
    return answer.messages[0].number("ack") if answer.messages else -1


def refusal_in_words(answer: Answer) -> str:
    """Which step was refused, and how."""
    if not answer.messages:
        return "the modem did not acknowledge a step"
    message = answer.messages[0]
    row = COMMANDS.row(message.number("echoed_command"))
    name = "?" if row is None else row[2]
    return RUN_REFUSED + name + ", " + enumerations.name_of(enumerations.FU_ACKS, message.number("ack"))


def get_version(eui48: bytes) -> "Step":
    """Ask a node, through the modem, which firmware it runs."""
    payload = COMMANDS.encode(commands.FU_GET_VERSION_REQUEST, eui48=eui48)
    return (
        yield Request(
            payload, commands.FU_VERSION_INDICATION, optional=True, timeout_s=VERSION_TIMEOUT_S, attempts=2
        )
    )
