"""Firmware upgrade of the nodes behind a simulated PRIME base node: pages over the feeder, page by page.

Each node keeps which pages it has. A page that is lost is sent again in the next round, until a round brings nothing
new to a node for too long. A node with all pages checks them, counts down, restarts with the new firmware, and goes
back to the old one when it is not confirmed within the safety timer: that is, when it cannot register in time.

The acknowledgements of the commands are those of the reference; what an error indication's number means is not
public.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from concentrator.simulator.prime_nodes import MODEL, VENDOR, Base, PrimeNode
from plc.commands import Message
from plc.prime import commands, enumerations
from plc.usi.crc import crc_32

ALL_NODES = b"\xff" * 6
_ACK_OK, _ACK_ERROR, _ACK_MODEL, _ACK_DATA, _ACK_FILE_CRC = 0, 1, 3, 5, 6
_ACK_CRC_ONGOING, _ACK_ONGOING = 7, 8
_CRC_CHECK_S = 2.5
_PAGE_SIZES = (192, 32, 64, 128, 192)
_ROUND_PAUSE_S = 5.0
_RESTART_S = 20.0
_LARGEST_ROUNDS_IN_VAIN = 20
_MATCH_MODEL, _MATCH_VENDOR = 0x02, 0x04
_REPORT_EVERY_PAGES = 10
_ERROR_MISMATCH = 1


@dataclass(slots=True)
class TargetState:
    """What one node has got."""

    pages: set[int] = field(default_factory=set[int])
    state: int = enumerations.FU_RECEIVING
    rounds_in_vain: int = 0
    finished: bool = False
    told_pages: int = -1


class UpgradeEngine:
    """The modem's and the nodes' part of a firmware upgrade."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self.lost_pages = 0
        self.forget()

    def forget(self) -> None:
        """Lose everything, as by a restart."""
        self._run = 0  # counts starts and aborts, so that callbacks of an earlier run do nothing
        self.targets: dict[bytes, TargetState] = {}
        self._options: Message | None = None
        self._identity: Message | None = None
        self._file: Message | None = None
        self._rules = 0
        self._frames: dict[int, bytes] = {}
        self._image = b""
        self._crc_asked_at: float | None = None
        self.running = False

    def handlers(self) -> dict[int, Callable[[Message], None]]:
        """The commands that end here."""
        return {
            commands.FU_OPTIONS_REQUEST: self._take_options,
            commands.FU_CLEAR_TARGETS_REQUEST: self._clear_targets,
            commands.FU_ADD_TARGET_REQUEST: self._add_target,
            commands.FU_FIRMWARE_DATA_REQUEST: self._take_identity,
            commands.FU_MATCH_RULE_REQUEST: self._take_rules,
            commands.FU_SIGNATURE_DATA_REQUEST: self._acknowledge,
            commands.FU_INIT_FILE_REQUEST: self._begin_file,
            commands.FU_DATA_FRAME_REQUEST: self._take_frame,
            commands.FU_CHECK_CRC_REQUEST: self._check_crc,
            commands.FU_START_REQUEST: self._start,
            commands.FU_ABORT_REQUEST: self._abort,
            commands.FU_GET_VERSION_REQUEST: self._version,
            commands.FU_GET_STATE_REQUEST: self._tell_state,
        }

    # Preparation: each step is acknowledged.

    def _acknowledge(self, message: Message, ack: int = _ACK_OK) -> None:
        self._base.send(commands.FU_ACK, echoed_command=message.command, ack=ack, extra=0)

    def _prepare(self, message: Message) -> bool:
        if self.running:
            self._acknowledge(message, _ACK_ONGOING)
        return not self.running

    def _take_options(self, message: Message) -> None:
        if self._prepare(message):
            self._options = message
            self._acknowledge(message)

    def _clear_targets(self, message: Message) -> None:
        if self._prepare(message):
            self.targets = {}
            self._acknowledge(message)

    def _add_target(self, message: Message) -> None:
        if self._prepare(message):
            self.targets[message.octets("eui48")] = TargetState()
            self._acknowledge(message)

    def _take_identity(self, message: Message) -> None:
        if self._prepare(message):
            self._identity = message
            self._acknowledge(message)

    def _take_rules(self, message: Message) -> None:
        if self._prepare(message):
            self._rules = message.number("rules")
            self._acknowledge(message)

    def _begin_file(self, message: Message) -> None:
        if self._prepare(message):
            self._file, self._frames, self._crc_asked_at = message, {}, None
            self._acknowledge(message)

    def _take_frame(self, message: Message) -> None:
        file, number = self._file, message.number("frame_number")
        if file is None or self.running or not 1 <= number <= file.number("frame_count"):
            self._acknowledge(message, _ACK_DATA)
            return
        self._frames[number] = message.octets("data")
        self._acknowledge(message)

    def _check_crc(self, message: Message) -> None:
        if self._file is None:
            self._acknowledge(message, _ACK_ERROR)
            return
        now = self._base.now()
        if self._crc_asked_at is None:
            self._crc_asked_at = now
        if now < self._crc_asked_at + _CRC_CHECK_S:
            self._acknowledge(message, _ACK_CRC_ONGOING)
            return
        self._image = b"".join(octets for _, octets in sorted(self._frames.items()))
        right = len(self._image) == self._file.number("file_size") and crc_32(
            self._image
        ) == self._file.number("file_crc")
        self._acknowledge(message, _ACK_OK if right else _ACK_FILE_CRC)
        if not right:
            self._image = b""

    # The run.

    def _start(self, message: Message) -> None:
        if not message.number("enable"):
            self._stop()
            self._acknowledge(message)
            return
        if not self._image or self._options is None or self._identity is None or not self.targets:
            self._acknowledge(message, _ACK_ERROR)
            return
        self._acknowledge(message)
        self._run += 1
        self.running = True
        for eui48, target in self.targets.items():
            if not self._matches():
                target.state, target.finished = enumerations.FU_EXCEPTION, True
                self._base.send(commands.FU_ERROR_INDICATION, error=_ERROR_MISMATCH, eui48=eui48)
                self._tell(eui48, target)
        self._next_round()

    def _matches(self) -> bool:
        identity = self._identity
        return identity is not None and not (
            (self._rules & _MATCH_VENDOR and identity.octets("vendor") != VENDOR)
            or (self._rules & _MATCH_MODEL and identity.octets("model") != MODEL)
        )

    def _page_size(self) -> int:
        return _PAGE_SIZES[self._options.number("page_size") if self._options is not None else 0]

    @property
    def page_count(self) -> int:
        """Pages of the file."""
        return -(-len(self._image) // self._page_size())

    def _later(self, delay_s: float, callback: Callable[[], None]) -> None:
        run = self._run
        self._base.after(delay_s, lambda: callback() if run == self._run else None)

    def _next_round(self) -> None:
        """One page to each node that lacks some; the next round follows when the channel is free again."""
        busy_s = 0.0
        for eui48, target in self.targets.items():
            if target.finished or target.state != enumerations.FU_RECEIVING:
                continue
            node = self._node(eui48)
            missing = min(set(range(self.page_count)) - target.pages)
            if node is None or not node.registered or not self._base.reachable(node):
                self._in_vain(eui48, target)
                continue
            transfer = self._base.feeder.transfer(node.place, self._page_size(), self._base.now())
            busy_s = max(busy_s, transfer.duration_s)
            if not transfer.delivered:
                self.lost_pages += 1
                self._in_vain(eui48, target)
                continue
            target.rounds_in_vain = 0
            target.pages.add(missing)
            if len(target.pages) == self.page_count:
                self._complete(eui48, target)
            elif len(target.pages) % _REPORT_EVERY_PAGES == 0:
                self._tell(eui48, target)
        if all(target.finished for target in self.targets.values()):
            self._end()
            return
        self._later(max(busy_s, _ROUND_PAUSE_S if not busy_s else 0.0), self._next_round)

    def _in_vain(self, eui48: bytes, target: TargetState) -> None:
        target.rounds_in_vain += 1
        if target.rounds_in_vain > _LARGEST_ROUNDS_IN_VAIN:
            target.finished, target.state = True, enumerations.FU_EXCEPTION
            self._tell(eui48, target)

    def _complete(self, eui48: bytes, target: TargetState) -> None:
        target.state = enumerations.FU_COMPLETE
        self._tell(eui48, target)
        target.state = enumerations.FU_COUNTDOWN
        self._tell(eui48, target)
        delay_s = float(self._options.number("restart_delay_s")) if self._options is not None else 0.0
        self._later(delay_s, lambda: self._restart(eui48, target))

    def _restart(self, eui48: bytes, target: TargetState) -> None:
        node = self._node(eui48)
        if node is None or self._identity is None or self._options is None:
            return
        target.state = enumerations.FU_UPGRADE
        self._tell(eui48, target)
        old, node.version = node.version, self._identity.octets("version")
        self._base.disappear(node, _RESTART_S)
        deadline = self._base.now() + self._options.number("safety_timer_s")
        self._later(_RESTART_S, lambda: self._confirm(eui48, target, node, old, deadline))

    def _confirm(
        self, eui48: bytes, target: TargetState, node: PrimeNode, old: bytes, deadline: float
    ) -> None:
        now = self._base.now()
        if node.connected and self._base.reachable(node):
            target.state, target.finished = enumerations.FU_IDLE, True
        elif now >= deadline:
            # Nobody has confirmed it: it goes back on its own.
            node.version = old
            target.state, target.finished = enumerations.FU_EXCEPTION, True
        else:
            self._later(min(10.0, deadline - now), lambda: self._confirm(eui48, target, node, old, deadline))
            return
        self._tell(eui48, target)

    def _end(self) -> None:
        self.running = False
        self._run += 1
        self._base.send(commands.FU_STATUS_INDICATION, state=enumerations.FU_IDLE, pages=0, eui48=ALL_NODES)

    def _stop(self) -> None:
        self._run += 1
        self.running = False

    # Questions and orders at any time.

    def _abort(self, message: Message) -> None:
        eui48 = message.octets("eui48")
        self._acknowledge(message)
        if eui48 == ALL_NODES:
            self._stop()
        elif eui48 in self.targets:
            self.targets[eui48].finished = True
            self.targets[eui48].state = enumerations.FU_IDLE
            self._base.send(commands.FU_KILL_INDICATION, eui48=eui48)

    def _version(self, message: Message) -> None:
        self._acknowledge(message)
        node = self._node(message.octets("eui48"))
        if node is None or not node.registered or not self._base.reachable(node):
            return
        transfer = self._base.feeder.transfer(node.place, 32, self._base.now())
        if transfer.delivered:
            self._base.after(
                transfer.duration_s,
                lambda: self._base.send(
                    commands.FU_VERSION_INDICATION,
                    eui48=node.device.eui48,
                    vendor=VENDOR,
                    model=MODEL,
                    version=node.version,
                ),
            )

    def _tell_state(self, message: Message) -> None:
        self._acknowledge(message)
        eui48 = message.octets("eui48")
        target = self.targets.get(eui48)
        if target is not None:
            self._tell(eui48, target)
        elif eui48 == ALL_NODES:
            state = enumerations.FU_RECEIVING if self.running else enumerations.FU_IDLE
            pages = 1 if self.running else 0
            self._base.send(commands.FU_STATUS_INDICATION, state=state, pages=pages, eui48=eui48)

    def _tell(self, eui48: bytes, target: TargetState) -> None:
        self._base.send(
            commands.FU_STATUS_INDICATION, state=target.state, pages=len(target.pages), eui48=eui48
        )

    def _node(self, eui48: bytes) -> PrimeNode | None:
        return next((node for node in self._base.nodes if node.device.eui48 == eui48), None)
