"""What a base node's host decides beside the data path: who may join with which key, expelling, asking nodes.

The whitelist is the modem's own; it and the device unique keys (security profiles 1 and 2) are given anew to a
modem that has restarted. Nodes far away are asked with PPROF, which carries the bodies of MNGP. Keys are in no event,
message, repr or error.
"""

from plc.errors import LocalPlcError, MessageError
from plc.host import Request, check_euis
from plc.network import DiagnosticsRead, NodeDeclined, NodeDiagnosticsRead, TopologyChanged
from plc.prime import commands, enumerations, mngp, pib
from plc.prime.commands import COMMANDS
from plc.prime.data_path import DataPath
from plc.prime.events import (
    FirmwareUpgradeFinished,
    FirmwareUpgradeProgressed,
    FirmwareUpgradeStarted,
    NodeAttributesRead,
    NodeListRead,
)
from plc.prime.firmware_upgrade import (
    ABORTED,
    ALL_NODES,
    QUIET_S,
    FirmwareImage,
    FirmwareUpgrade,
    UpgradeOptions,
    get_version,
    refusal_in_words,
)
from plc.prime.steps import get, get_list, result_in_words, set_attribute, value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from plc.commands import Message
    from plc.host import Answer, Procedure, Step

KEY_SIZE = 16
EUI48_SIZE = 6
# A node may be eight switches away, and the channel busy.
NODE_ANSWER_TIMEOUT_S = 20.0
LARGEST_LIST = 4096  # records
LARGEST_DECLINED = 4096


class Management(DataPath):
    """The half of a base node that manages its nodes."""

    def __init__(
        self,
        allowed: "set[bytes] | None",
        device_keys: "dict[bytes, bytes] | None",
        data_confirm_timeout_s: float,
        refresh_interval_s: float,
        keepalive_interval_s: float,
        extended_length: tuple[int, ...],
    ) -> None:
        super().__init__(data_confirm_timeout_s, refresh_interval_s, keepalive_interval_s, extended_length)
        check_euis(allowed, (EUI48_SIZE,))
        self._allowed = allowed
        self._device_keys: dict[bytes, bytes] = {}
        for eui48, key in (device_keys or {}).items():
            self._check_key(eui48, key)
            self._device_keys[eui48] = key
        self._listed: "set[bytes]" = set()  # what the modem's whitelist holds
        self._list_enabled = False
        self._declined: dict[bytes, bool] = {}
        self._upgrade: FirmwareUpgrade | None = None
        self._upgrade_due: float | None = None
        self.counters["declined_joins"] = 0

    # Commands.

    def expel(self, eui: bytes, now: float) -> None:
        """Make a node unregister. Raises LocalPlcError when it is not known."""
        if self._nodes.get(eui) is None:
            raise LocalPlcError(f"no node has EUI-48 {eui.hex()}")
        self._queue(self._expel(eui))
        self._advance(now)

    def set_allowed(self, allowed: "set[bytes] | None", now: float) -> None:
        """Replace the EUI-48 that may register; None lets all. Nodes that have registered stay."""
        check_euis(allowed, (EUI48_SIZE,))
        self._allowed = allowed
        self._declined = {}
        if self._running:
            self._queue(self._apply_whitelist())
            self._advance(now)

    def set_device_key(self, eui: bytes, key: bytes, now: float) -> None:
        """Give the modem the device unique key of a node. Raises LocalPlcError for a key of another size."""
        self._check_key(eui, key)
        self._device_keys[eui] = key
        self._declined.pop(eui, None)
        if self._running:
            self._queue(self._apply_keys([eui]))
            self._advance(now)

    def query_node(self, eui: bytes, attributes: "list[tuple[int, int]]", now: float) -> None:
        """Ask a node for attributes of its own, each with its index; NodeAttributesRead brings the answer."""
        self._queue(self._query(eui, attributes))
        self._advance(now)

    def query_node_list(
        self, eui: bytes, attribute: int, now: float, most: int = mngp.RECORDS_PER_QUERY
    ) -> None:
        """Ask a node for a list of its own, in pieces of `most` records; NodeListRead brings the answer."""
        self._queue(self._query_list(eui, attribute, most))
        self._advance(now)

    def read_node_diagnostics(self, eui: bytes, now: float) -> None:
        """Ask a node for its place, its versions and its counters; NodeDiagnosticsRead brings them."""
        if self._nodes.get(eui) is None:
            raise LocalPlcError(f"no node has EUI-48 {eui.hex()}")
        self._queue(self._diagnose_node(eui))
        self._advance(now)

    def start_firmware_upgrade(
        self, image: FirmwareImage, targets: "list[bytes]", options: UpgradeOptions, now: float
    ) -> None:
        """Upgrade nodes; FirmwareUpgradeFinished ends it. Raises LocalPlcError while another one runs."""
        if self._upgrade is not None:
            raise LocalPlcError("a firmware upgrade is under way; abort it first")
        if not self._running:
            raise LocalPlcError("the modem is not ready")
        self._upgrade = FirmwareUpgrade(image, targets, options)
        self._queue(self._run_upgrade(self._upgrade))
        self._advance(now)

    def abort_firmware_upgrade(self, now: float, eui: bytes = ALL_NODES) -> None:
        """End the upgrade of one node, or the whole run."""
        if self._upgrade is not None:
            self._queue(self._abort_upgrade(self._upgrade, eui))
            self._advance(now)

    # Who may join.

    def _check_key(self, eui48: bytes, key: bytes) -> None:
        if len(eui48) != EUI48_SIZE or len(key) != KEY_SIZE:
            raise LocalPlcError(
                f"a device unique key has {KEY_SIZE} octets, and its node an EUI-48; got {len(key)}, {len(eui48)}"
            )

    def _expel(self, eui48: bytes) -> "Procedure":
        answer = yield from set_attribute(pib.ACTION_UNREGISTER, eui48, optional=True)
        if answer.messages:
            self._emit(TopologyChanged(eui48, "expelled: " + result_in_words(answer)))
        else:
            self._emit(TopologyChanged(eui48, "the modem did not answer the order to expel it"))

    def _apply_rules(self) -> "Procedure":
        """Give everything to a modem that has just started."""
        self._listed = set()
        self._list_enabled = False
        yield from self._apply_keys(list(self._device_keys))
        yield from self._apply_whitelist()

    def _apply_keys(self, euis: "list[bytes]") -> "Procedure":
        for eui48 in euis:
            answer = yield from set_attribute(
                pib.DEVICE_UNIQUE_KEY, eui48 + self._device_keys[eui48], optional=True
            )
            if not answer.messages or answer.messages[0].number("result") != enumerations.MLME_SUCCESS:
                self._emit(TopologyChanged(eui48, "its device unique key: " + result_in_words(answer)))

    def _apply_whitelist(self) -> "Procedure":
        # Filled before it is in force, and lifted before it is emptied.
        allowed = self._allowed
        if allowed is None and self._list_enabled:
            yield from self._enable_whitelist(False)
        for eui48 in self._listed - (allowed or set()):
            if (yield from self._change_whitelist(commands.WHITELIST_REMOVE_REQUEST, eui48)):
                self._listed.discard(eui48)
        for eui48 in (allowed or set()) - self._listed:
            if (yield from self._change_whitelist(commands.WHITELIST_ADD_REQUEST, eui48)):
                self._listed.add(eui48)
        if allowed is not None and not self._list_enabled:
            yield from self._enable_whitelist(True)

    def _enable_whitelist(self, enabled: bool) -> "Procedure":
        answer = yield from set_attribute(pib.WHITELIST_ENABLED, bytes((1 if enabled else 0,)), optional=True)
        if answer.messages and answer.messages[0].number("result") == enumerations.MLME_SUCCESS:
            self._list_enabled = enabled
        else:
            self._emit(TopologyChanged(b"", "the whitelist: " + result_in_words(answer)))

    def _change_whitelist(self, command: int, eui48: bytes) -> "Generator[Request, Answer, bool]":
        answer = yield Request(
            COMMANDS.encode(command, eui48=eui48),
            commands.WHITELIST_ACK,
            "echoed_command",
            command,
            optional=True,
        )
        return bool(answer.messages) and answer.messages[0].number("ack") == 0

    def _decline(self, eui48: bytes, reason: str) -> None:
        self.counters["declined_joins"] += 1
        if eui48 not in self._declined and len(self._declined) < LARGEST_DECLINED:
            self._declined[eui48] = True
            self._emit(NodeDeclined(eui48, reason))

    # Asking nodes.

    def _ask_node(self, command: int, response: int, eui48: bytes, body: bytes) -> "Step":
        """The answer of a node; its messages are empty when modem or node refused or kept silent."""
        request = Request(
            COMMANDS.encode(command, eui48=eui48, data=body), commands.PPROF_ACK, optional=True, attempts=2
        )
        acknowledged = yield request
        if not acknowledged.messages or acknowledged.messages[0].number("ack") != 0:
            acknowledged.messages = []
            return acknowledged
        # Its own answer comes later, over the power line.
        answer = yield Request(b"", response, optional=True, timeout_s=NODE_ANSWER_TIMEOUT_S, attempts=1)
        if answer.messages and answer.messages[0].octets("eui48") != eui48:
            answer.messages = []
        return answer

    def _query(self, eui48: bytes, attributes: "list[tuple[int, int]]") -> "Procedure":
        answer = yield from self._ask_node(
            commands.PPROF_GET_REQUEST, commands.PPROF_GET_RESPONSE, eui48, mngp.encode_get_query(attributes)
        )
        if not answer.messages:
            self._emit(NodeAttributesRead(eui48, [], "the node did not answer"))
            return
        try:
            found = mngp.decode_get_response(answer.messages[0].octets("data"))
        except MessageError as error:
            self._emit(NodeAttributesRead(eui48, [], str(error)))
            return
        self._emit(NodeAttributesRead(eui48, found))

    def _query_list(self, eui48: bytes, attribute: int, most: int) -> "Procedure":
        records: "list[dict[str, int | bytes]]" = []
        iterator = mngp.FIRST_ITERATOR
        reason = ""
        while len(records) < LARGEST_LIST:
            answer = yield from self._ask_node(
                commands.PPROF_ENHANCED_GET_REQUEST,
                commands.PPROF_ENHANCED_GET_RESPONSE,
                eui48,
                mngp.encode_list_query(attribute, most, iterator),
            )
            if not answer.messages:
                reason = "the node did not answer"
                break
            try:
                _, found = mngp.decode_list_response(answer.messages[0].octets("data"))
                records += pib.decode_records(attribute, b"".join([record for _, record in found]))
            except MessageError as error:
                reason = str(error)
                break
            if len(found) < most:
                break
            if found[-1][0] == iterator:
                reason = "the node repeats its records"
                break
            iterator = found[-1][0]
        self._emit(NodeListRead(eui48, attribute, records, reason))

    def _diagnose_node(self, eui48: bytes) -> "Procedure":
        query = [(attribute, 0) for attribute in pib.NODE_ATTRIBUTES]
        answer = yield from self._ask_node(
            commands.PPROF_GET_REQUEST, commands.PPROF_GET_RESPONSE, eui48, mngp.encode_get_query(query)
        )
        values: "list[tuple[str, str]]" = []
        reason = "" if answer.messages else "the node did not answer"
        try:
            for message in answer.messages:
                for attribute, _, value in mngp.decode_get_response(message.octets("data")):
                    values.append((pib.attribute_name(attribute), pib.value_in_words(attribute, value)))
        except MessageError as error:
            reason = str(error)
        self._emit(NodeDiagnosticsRead(eui48, values, reason))

    def _read_counters(self) -> "Procedure":
        for attribute in pib.DIAGNOSTIC_ATTRIBUTES + pib.VERSION_ATTRIBUTES:
            value = value_of((yield from get(attribute, True)))
            if value:
                self.counters[pib.attribute_name(attribute)] = int.from_bytes(value, "big")
        tables: "list[tuple[str, list[dict[str, int | bytes]]]]" = []
        for attribute in pib.DIAGNOSTIC_LISTS:
            answer = yield from get_list(attribute, True)
            octets = b"".join([message.octets("records") for message in answer.messages])
            if octets:
                tables.append((pib.attribute_name(attribute), pib.decode_records(attribute, octets)))
        self._emit(DiagnosticsRead(tables))

    # Firmware upgrade.

    def _run_upgrade(self, upgrade: FirmwareUpgrade) -> "Procedure":
        answer = yield from upgrade.steps()
        if self._upgrade is not upgrade:
            return
        if not answer.complete:
            self._end_upgrade(upgrade, refusal_in_words(answer))
            return
        upgrade.running = True
        self._upgrade_due = self._now + QUIET_S
        self._emit(FirmwareUpgradeStarted(len(upgrade.targets)))

    def _abort_upgrade(self, upgrade: FirmwareUpgrade, eui48: bytes) -> "Procedure":
        yield Request(
            COMMANDS.encode(commands.FU_ABORT_REQUEST, eui48=eui48),
            commands.FU_ACK,
            "echoed_command",
            commands.FU_ABORT_REQUEST,
            optional=True,
        )
        if eui48 != ALL_NODES:
            upgrade.outcomes[eui48] = ABORTED
        elif self._upgrade is upgrade:
            for target in upgrade.undecided():
                upgrade.outcomes[target] = ABORTED
            self._end_upgrade(upgrade, "aborted")

    def _take_upgrade_status(self, message: "Message", now: float) -> None:
        upgrade = self._upgrade
        if upgrade is None:
            return
        self._upgrade_due = now + QUIET_S
        eui48, state, pages = message.octets("eui48"), message.number("state"), message.number("pages")
        if eui48 == ALL_NODES:
            if upgrade.running and pages == 0:
                upgrade.running = False
                self._upgrade_due = None
                self._queue(self._verify_upgrade(upgrade))
        elif upgrade.note_status(eui48, state, pages):
            words = enumerations.name_of(enumerations.FU_STATES, state)
            self._emit(FirmwareUpgradeProgressed(eui48, words, pages))

    def _verify_upgrade(self, upgrade: FirmwareUpgrade) -> "Procedure":
        for target in upgrade.undecided():
            answer = yield from get_version(target)
            messages = [message for message in answer.messages if message.octets("eui48") == target]
            upgrade.decide(target, messages[0].octets("version") if messages else None)
        if self._upgrade is upgrade:
            self._end_upgrade(upgrade, "")

    def _ask_upgrade_state(self, upgrade: FirmwareUpgrade) -> "Procedure":
        for target in [ALL_NODES] + upgrade.undecided():
            payload = COMMANDS.encode(commands.FU_GET_STATE_REQUEST, eui48=target)
            answer = yield Request(payload, commands.FU_STATUS_INDICATION, optional=True, attempts=1)
            for message in answer.messages:
                self._take_upgrade_status(message, self._now)

    def _end_upgrade(self, upgrade: FirmwareUpgrade, reason: str) -> None:
        self._upgrade = None
        self._upgrade_due = None
        for target in upgrade.undecided():
            upgrade.outcomes[target] = ABORTED
        self._emit(FirmwareUpgradeFinished(upgrade.outcomes, reason))

    def _take_upgrade_message(self, message: "Message", now: float) -> bool:
        """Take an indication about an upgrade; tells whether it is one."""
        if message.command == commands.FU_STATUS_INDICATION:
            self._take_upgrade_status(message, now)
        elif message.command == commands.FU_ERROR_INDICATION:
            eui48 = message.octets("eui48")
            self._emit(TopologyChanged(eui48, f"firmware upgrade: error {message.number('error')}"))
        elif message.command == commands.FU_KILL_INDICATION:
            eui48 = message.octets("eui48")
            if self._upgrade is not None and eui48 in self._upgrade.targets:
                self._upgrade.outcomes[eui48] = ABORTED
        else:
            return False
        return True

    def _data_timeout(self) -> float | None:
        nearest, due = super()._data_timeout(), self._upgrade_due
        return due if nearest is None or (due is not None and due < nearest) else nearest

    def _handle_data_timeout(self, now: float) -> None:
        super()._handle_data_timeout(now)
        if self._upgrade is not None and self._upgrade_due is not None and now >= self._upgrade_due:
            self._upgrade_due = now + QUIET_S
            self._queue(self._ask_upgrade_state(self._upgrade))

    def _abandon_data(self, reason: str, now: float) -> None:
        super()._abandon_data(reason, now)
        if self._upgrade is not None:
            # A modem that restarted knows nothing of it.
            self._end_upgrade(self._upgrade, reason)
