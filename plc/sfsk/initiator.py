"""Initiator: the active initiator of an S-FSK network (IEC 61334-4-511), behind the face of plc/network.py.

It makes the modem a master, looks for New systems with Discover, gives those that report a MAC address with Register,
and makes sure with Ping. A search goes through rounds with growing reach, and with a smaller probability for large
networks where reports collide; between rounds APDUs travel. Servers do not say that they go: one that does not answer
three APDUs in a row, nor two Pings, has left. One that reports itself as New again has forgotten its registration.
Servers forget it by themselves when they are not addressed for long, so that each is pinged in time.

CIASE has no service to unregister: an expelled server is not addressed any more, and becomes New by itself.

Not here: the intelligent search of servers for their initiator (their side), HDLC-based LLC.
"""

from plc.errors import LocalPlcError, MessageError
from plc.host import Answer, Request, check_euis
from plc.network import (
    DiagnosticsRead,
    NetworkStarted,
    NodeDeclined,
    NodeDiagnosticsRead,
    NodeJoined,
    NodeLeft,
    ShortAddressAssigned,
    TopologyChanged,
)
from plc.prime.enumerations import name_of
from plc.sfsk import ciase, commands, llc, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.data_path import ANSWER_PATIENCE_S, DATA_CONFIRM_TIMEOUT_S, DataPath, is_management
from plc.sfsk.events import AlarmReported
from plc.sfsk.nodes import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from plc.commands import Message
    from plc.host import Procedure, Step

REFRESH_INTERVAL_S = 900.0
KEEPALIVE_INTERVAL_S = 60.0
SEARCH_INTERVAL_S = 300.0
# Servers unregister after this time without being addressed; shorter than any usual setting (60 min).
ADDRESS_EACH_WITHIN_S = 1800.0
PING_ATTEMPTS = 2
PINGS_PER_TURN = 8
SEARCHES_PER_REFRESH = 4
LARGEST_REGISTRATION = 20  # servers in one Register.request
LARGEST_DECLINED = 4096
# The rounds of a search: slots for reports, their initial credit, probability in percent.
ROUNDS = ((10, 1, 100), (10, 4, 100), (12, 7, 50), (12, 7, 10))
LONGEST_SEARCH_PAUSE_FACTOR = 4
LONELY_SEARCH_PAUSE_S = 60.0
TITLE_SIZES = ciase.TITLE_SIZES
_PAUSE = -1  # a command that never comes: a Request that waits


class Initiator(DataPath):
    """An S-FSK network behind a modem.

    `title` is the system title of this initiator, of 8 octets (6 in older networks). `known_addresses` maps the
    system title of each server that was ever registered to its MAC address; ShortAddressAssigned tells each new one.
    `allowed` are the titles that may be registered, None for all. `baud_rate` is that of the power line at 50 Hz.
    """

    def __init__(
        self,
        title: bytes,
        known_addresses: "dict[bytes, int] | None" = None,
        allowed: "set[bytes] | None" = None,
        local_address: int = mac.FIRST_INITIATOR,
        baud_rate: int = 2400,
        reset: bool = False,
        data_confirm_timeout_s: float = DATA_CONFIRM_TIMEOUT_S,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
        keepalive_interval_s: float = KEEPALIVE_INTERVAL_S,
        search_interval_s: float = SEARCH_INTERVAL_S,
    ) -> None:
        if len(title) not in TITLE_SIZES:
            raise LocalPlcError(f"a system title has 8 octets, or 6 in older networks; got {len(title)}")
        if not mac.FIRST_INITIATOR <= local_address <= mac.LAST_INITIATOR:
            raise LocalPlcError(f"an initiator's MAC address is 0xC00 to 0xDFF, got 0x{local_address:X}")
        if baud_rate not in [row[0] for row in commands.BAUD_RATES]:
            raise LocalPlcError(f"S-FSK has 300, 600, 1200 or 2400 baud, got {baud_rate}")
        super().__init__(
            local_address,
            baud_rate,
            known_addresses or {},
            data_confirm_timeout_s,
            refresh_interval_s,
            keepalive_interval_s,
        )
        self.title = title
        check_euis(allowed, TITLE_SIZES)
        self._allowed = allowed
        self._reset = reset
        self._search_interval_s = search_interval_s
        self._search_due: float | None = None
        self._round = 0
        self._search_pause_factor = 0
        self._found = False  # in this search
        self._reports: "dict[bytes, int]" = {}  # repetitions of the reports of this round, by title
        self._searching = False  # a round is queued
        self._pinging = False  # a turn of pings is queued
        self._check_queued = False
        self._declined: "dict[bytes, bool]" = {}
        self._expelled: "dict[bytes, bool]" = {}
        for name in ("declined_joins", "discover_rounds", "discover_reports", "pings", "unanswered_pings"):
            self.counters[name] = 0

    # Commands.

    def expel(self, eui: bytes, now: float) -> None:
        """Do not address a server any more: it unregisters by itself. Raises LocalPlcError when it is not known."""
        node = self._nodes.get(eui)
        if node is None:
            raise LocalPlcError(f"no server has system title {eui.hex()}")
        self._expelled[eui] = True
        node.suspect = False
        self._leave(node, "expelled")
        self._advance(now)

    def set_allowed(self, allowed: "set[bytes] | None", now: float) -> None:
        """Replace the system titles that may be registered; None lets all. An expelled one may come again."""
        check_euis(allowed, TITLE_SIZES)
        self._allowed = allowed
        self._declined = {}
        self._expelled = {}
        self._search_due = now if self._running else None
        self._advance(now)

    def repeater_call(
        self, now: float, reception_threshold: int = ciase.DEFAULT_RECEPTION_THRESHOLD, slots_for_new: int = 0
    ) -> None:
        """Let all stations find out whether they are needed as repeaters; the threshold is in dBuV."""
        self._queue(self._call_repeaters(slots_for_new, reception_threshold))
        self._advance(now)

    def clear_alarm(self, alarms: "list[int]", now: float, euis: "list[bytes] | None" = None) -> None:
        """Clear alarm descriptors of all servers, or of those named."""
        data = ciase.encode_clear_alarm(alarms, euis)
        self._queue(self._broadcast(data))
        self._advance(now)

    # Procedures.

    def _start_up(self) -> "Procedure":
        config = yield from self._access(commands.DB_READ_CONFIG, optional=True)
        if self._reset or commands.address_of_config(config) != self.local_address:
            payload = COMMANDS.encode(
                commands.WRITE_CONFIG_REQUEST,
                config=commands.master_config(self.local_address, self.baud_rate),
            )
            answer = yield Request(payload, commands.WRITE_CONFIG_CONFIRM)
            if answer.messages[0].command == commands.WRITE_CONFIG_ERROR:
                error = name_of(commands.ERRORS, answer.messages[0].number("error_code"))
                self._lose_modem("the modem refused its configuration: " + error, self._now)
                return
        version = yield from self._access(commands.DB_SOFT_VERSION, optional=True)
        self._started(self._now)
        self._searching = self._pinging = self._check_queued = False
        self._round = 0
        self._search_due = self._now
        description = f"S-FSK initiator, MAC address 0x{self.local_address:03X}, {self.baud_rate} baud"
        if version:
            description += ", modem firmware " + version.hex()
        self._emit(NetworkStarted(self.title, description))
        for node in self._nodes.nodes():
            # Whether it still has its registration shows by a Ping.
            if node.joined:
                self._emit(NodeJoined(node.title, node.address, ""))
            node.suspect = node.title not in self._expelled
        self._queue_pings()

    def _access(
        self, entry: int, optional: bool = False, value: bytes = b""
    ) -> "Generator[Request, Answer, bytes]":
        payload = COMMANDS.encode(commands.ACCESS_DB_REQUEST, entry=entry, value=value)
        answer = yield Request(
            payload, commands.ACCESS_DB_CONFIRM, "entry", entry, optional, attempts=2 if optional else 3
        )
        if not answer.messages or answer.messages[0].command != commands.ACCESS_DB_CONFIRM:
            return b""
        return answer.messages[0].octets("value")

    def _check_alive(self) -> "Procedure":
        self._check_queued = False
        config = yield from self._access(commands.DB_READ_CONFIG)
        if commands.address_of_config(config) != self.local_address:
            self._lose_modem("the modem restarted: it has lost its configuration", self._now)

    def _queue_alive_check(self) -> None:
        if not self._check_queued:
            self._check_queued = True
            self._queue(self._check_alive())

    def _read_counters(self) -> "Procedure":
        value = yield from self._access(commands.DB_DATA_COUNTERS, True, b"\x00")
        for index, name in enumerate(commands.DATA_COUNTERS):
            octets = value[4 * index : 4 * index + 4]
            if len(octets) == 4:
                self.counters["modem_" + name] = int.from_bytes(octets, "little")
        for entry, name in (
            (commands.DB_INVALID_FRAME_COUNTER, "modem_invalid_frames"),
            (commands.DB_MIN_DELTA_CREDIT, "modem_min_delta_credit"),
        ):
            value = yield from self._access(entry, True)
            if value:
                self.counters[name] = value[0]
        servers = [node for node in self._nodes.nodes() if node.joined]
        records: "list[dict[str, int | bytes]]" = [
            {
                "title": node.title,
                "mac_address": node.address,
                "repetitions": node.hops or 0,
                "initial_credit": node.initial_credit,
                "unanswered": node.unanswered,
            }
            for node in servers
        ]
        self._emit(DiagnosticsRead([("servers", records)] if records else []))

    def read_node_diagnostics(self, eui: bytes, now: float) -> None:
        """Ping a server, and tell what the credits say of the way to it. Raises LocalPlcError when it is not known."""
        node = self._nodes.get(eui)
        if node is None:
            raise LocalPlcError(f"no server has system title {eui.hex()}")
        self._queue(self._diagnose_node(node))
        self._advance(now)

    def _diagnose_node(self, node: Node) -> "Procedure":
        yield from self._ping(node)
        values = [
            ("mac_address", f"0x{node.address:03X}"),
            ("initial_credit", str(node.initial_credit)),
        ]
        if node.joined:
            values.append(("repetitions", str(node.hops or 0)))
        self._emit(NodeDiagnosticsRead(node.title, values, "" if node.joined else "it does not answer pings"))

    def _list_nodes(self, tell_all: bool) -> "Procedure":
        # There is no list: everyone is pinged, and a search begins.
        self._refresh_queued = False
        yield from self._check_alive()
        if not self._running:
            return
        for node in self._nodes.nodes():
            if tell_all and node.joined:
                self._emit(NodeJoined(node.title, node.address, ""))
                self._report(node)
            if tell_all or node.joined:
                node.suspect = node.title not in self._expelled
        # One that has left may have kept its registration, and does not report itself: it is asked now and then.
        absent = [
            node for node in self._nodes.nodes() if not node.joined and node.title not in self._expelled
        ]
        absent.sort(key=lambda node: node.searches)
        for node in absent[:SEARCHES_PER_REFRESH]:
            node.searches += 1
            node.suspect = True
        self._queue_pings()
        if tell_all:
            self._round = 0
            self._search_due = self._now

    # On the air.

    def _transmit_and_wait(self, destination: int, data: bytes, credit: int) -> "Step":
        """Send a CI-PDU; the answer is complete when the modem has sent it."""
        sdu = llc.encode_llc(llc.CIASE_SERVER_LSAP, llc.CIASE_CLIENT_LSAP, data)
        payload = self._mac_request(destination, sdu, credit)
        answer = yield Request(
            payload,
            commands.MA_DATA_CONFIRM,
            timeout_s=self._data_confirm_timeout_s,
            optional=True,
            attempts=2,
        )
        sent = bool(answer.messages) and (
            answer.messages[0].number("transmission_status") == commands.TRANSMISSION_OK
        )
        return Answer(answer.messages, sent)

    def _broadcast(self, data: bytes) -> "Procedure":
        answer = yield from self._transmit_and_wait(mac.ALL_PHYSICAL, data, mac.LARGEST_CREDIT)
        if answer.complete:
            yield _pause(mac.airtime_s(len(data) + 3, mac.LARGEST_CREDIT, self.baud_rate))

    def _search_round(self) -> "Procedure":
        slots, credit, probability = ROUNDS[self._round]
        began = self._now
        self._reports = {}
        self.counters["discover_rounds"] += 1
        data = ciase.encode_discover_request(probability, slots, credit, 0)
        answer = yield from self._transmit_and_wait(mac.ALL_PHYSICAL, data, credit)
        if answer.complete:
            # The request with its repetitions, then the slots: each takes one report with its repetitions.
            slot_s = mac.airtime_s(14, credit, self.baud_rate)
            yield _pause(slot_s * (1 + slots))
        newcomers = [self._admit(title) for title in self._reports]
        nodes = [node for node in newcomers if node is not None]
        for start in range(0, len(nodes), LARGEST_REGISTRATION):
            part = nodes[start : start + LARGEST_REGISTRATION]
            yield from self._broadcast(
                ciase.encode_register_request(self.title, [(node.title, node.address) for node in part])
            )
        for node in nodes:
            node.initial_credit = mac.LARGEST_CREDIT
            yield from self._ping(node)
        self._searching = False
        self._plan_search(bool(nodes), self._now - began)

    def _plan_search(self, found: bool, duration_s: float) -> None:
        """A round that found somebody is worth another one; else the next reaches further, or more.

        Between rounds the APDUs of those that are there have as much time as the round took; searches in vain become
        rarer.
        """
        self._found = self._found or found
        if not found:
            self._round += 1
        if self._round < len(ROUNDS):
            joined = [node for node in self._nodes.nodes() if node.joined]
            self._search_due = self._now + (duration_s if joined else 0.0)
            return
        self._round = 0
        factor = 1 if self._found else max(1, 2 * self._search_pause_factor)
        self._search_pause_factor = min(factor, LONGEST_SEARCH_PAUSE_FACTOR)
        pause_s = self._search_pause_factor * self._search_interval_s
        if not [node for node in self._nodes.nodes() if node.joined]:
            # Nothing else is to be done on this channel.
            pause_s = min(pause_s, LONELY_SEARCH_PAUSE_S)
        self._search_due = self._now + pause_s
        if self._found:
            # With new stations others may be needed as repeaters.
            self._found = False
            self._queue(self._call_repeaters(0, ciase.DEFAULT_RECEPTION_THRESHOLD))

    def _call_repeaters(self, slots_for_new: int, reception_threshold: int) -> "Procedure":
        largest = self._nodes.largest_address()
        data = ciase.encode_repeater_call(largest, slots_for_new, reception_threshold)
        yield from self._broadcast(data)
        # Each station sends in a short slot of its own: 14 bits of the 360 of a slot.
        yield _pause(mac.slot_s(self.baud_rate) * (1 + (largest + slots_for_new) * 14 / 360))
        self._emit(TopologyChanged(self.title, f"repeater call up to MAC address 0x{largest:03X}"))

    def _ping(self, node: Node) -> "Procedure":
        data = ciase.encode_ping(ciase.PING_REQUEST, node.title)
        for _ in range(PING_ATTEMPTS):
            self.counters["pings"] += 1
            node.spoken_to_at = self._now
            answer = yield from self._transmit_and_wait(node.address, data, node.initial_credit)
            if answer.complete:
                wait_s = (
                    2 * mac.airtime_s(len(data) + 3, mac.LARGEST_CREDIT, self.baud_rate)
                    + ANSWER_PATIENCE_S / 2
                )
                answer = yield Request(
                    b"", commands.MA_DATA_INDICATION, "ping", node.address, True, timeout_s=wait_s, attempts=1
                )
                if answer.messages:
                    self._heard(node, mac.decode_mac_frame(answer.messages[0].octets("mac_frame")))
                    self._join(node, False)
                    return
            self.counters["unanswered_pings"] += 1
            node.initial_credit = mac.LARGEST_CREDIT
        node.suspect = False
        self._leave(node, "it does not answer pings")

    def _ping_turn(self) -> "Procedure":
        self._pinging = False
        suspects = [node for node in self._nodes.nodes() if node.suspect]
        for node in suspects[:PINGS_PER_TURN]:
            yield from self._ping(node)
        if len(suspects) > PINGS_PER_TURN:
            self._queue_pings()

    def _queue_pings(self) -> None:
        if not self._pinging and self._running:
            self._pinging = True
            self._queue(self._ping_turn())

    # Nodes.

    def _admit(self, title: bytes) -> Node | None:
        if (self._allowed is not None and title not in self._allowed) or title in self._expelled:
            self.counters["declined_joins"] += 1
            if title not in self._declined and len(self._declined) < LARGEST_DECLINED:
                self._declined[title] = True
                reason = "was expelled" if title in self._expelled else "not on the whitelist"
                self._emit(NodeDeclined(title, reason))
            return None
        node = self._nodes.get(title)
        if node is None:
            node = self._nodes.add(title)
            if node is None:
                return None
            self._emit(ShortAddressAssigned(title, node.address))
        elif node.joined:
            self._leave(node, "it is New again: it had no power, or was not addressed for long")
        return node

    def _join(self, node: Node, tell: bool) -> None:
        joined = node.joined
        node.joined = True
        node.suspect = False
        node.unanswered = 0
        if tell or not joined:
            self._emit(NodeJoined(node.title, node.address, ""))
            self._report(node)

    def _leave(self, node: Node, reason: str) -> None:
        if not node.joined:
            return
        node.joined = False
        node.hops = None
        self._fail_waiting(node.address, reason)
        self._search_pause_factor = 0
        self._emit(NodeLeft(node.title, node.address, reason))

    # Messages.

    def _answers(self, request: Request, message: "Message") -> bool:
        command = message.command
        if request.confirm == commands.MA_DATA_INDICATION:
            return command == request.confirm and self._is_ping_of(request.value, message.octets("mac_frame"))
        if command == commands.ACCESS_DB_ERROR:
            return request.confirm == commands.ACCESS_DB_CONFIRM
        if command == commands.WRITE_CONFIG_ERROR:
            return request.confirm == commands.WRITE_CONFIG_CONFIRM
        return super()._answers(request, message)

    def _is_ping_of(self, address: int, octets: bytes) -> bool:
        try:
            frame = mac.decode_mac_frame(octets)
            destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
        except MessageError:
            return False
        node = self._nodes.by_address(address)
        return (
            frame.source == address
            and node is not None
            and is_management(destination_lsap, source_lsap, data)
            and data == ciase.encode_ping(ciase.PING_RESPONSE, node.title)
        )

    def _take_management(self, frame: mac.MacFrame, data: bytes, now: float) -> None:  # noqa: ARG002 a hook
        if data[0] == ciase.DISCOVER_REPORT:
            try:
                systems = ciase.decode_discover_report(data)
            except MessageError:
                self.counters["foreign_frames"] += 1
                return
            for title, alarm in systems:
                self.counters["discover_reports"] += 1
                self._reports[title] = frame.repetitions
                if alarm is not None:
                    self._emit(AlarmReported(title, alarm))
        else:
            # A Ping.response that came too late, or another initiator's business.
            self.counters["foreign_frames"] += 1

    # Time.

    def _data_timeout(self) -> float | None:
        nearest = super()._data_timeout()
        if not self._running:
            return nearest
        due = self._search_due
        if due is not None and not self._searching and (nearest is None or due < nearest):
            nearest = due
        for node in self._nodes.nodes():
            if node.joined and not self._pinging:
                due = node.spoken_to_at + ADDRESS_EACH_WITHIN_S
                if nearest is None or due < nearest:
                    nearest = due
        return nearest

    def _handle_data_timeout(self, now: float) -> None:
        super()._handle_data_timeout(now)
        if not self._running:
            return
        if self._search_due is not None and now >= self._search_due and not self._searching:
            self._search_due = None
            self._searching = True
            self._queue(self._search_round())
        if not self._pinging:
            for node in self._nodes.nodes():
                if node.joined and now >= node.spoken_to_at + ADDRESS_EACH_WITHIN_S:
                    node.suspect = True
            if [node for node in self._nodes.nodes() if node.suspect]:
                self._queue_pings()


def _pause(duration_s: float) -> Request:
    return Request(b"", _PAUSE, optional=True, timeout_s=duration_s, attempts=1)
