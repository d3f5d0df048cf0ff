"""A simulated S-FSK modem of the AMIS-49587 kind in master mode, with a feeder full of servers behind it.

Speaks its local frames octet for octet (plc/sfsk/framing.py), answers 06 and 15 as it does, and has no configuration
after power-up: it then refuses everything but WriteConfig, Reset and what reads the data base. The servers behind it
speak CIASE and LLC by themselves: New at power-up, they report in a slot of their own choice when they are asked to
Discover (two in one slot are lost both), take the MAC address that Register gives them, answer Pings, forget their
registration when they are not addressed for an hour, or lose power.

Repetition is modelled by credits: a server behind n others hears a frame that has credit for n repetitions, and
each credit beyond that is one more chance. A slot at 2400 baud is 150 ms and a frame holds the channel for (credit
+ 1) times its subframes: plc/sfsk/mac.py. Not modelled: the choice of repeaters (every station repeats), signal
alarms, servers that search their initiator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import SFSK_PHY, Feeder, FeederNode
from concentrator.simulator.scheduler import Scheduler
from concentrator.simulator.simulated_modem import SimulatedModem
from plc.commands import Message
from plc.errors import MessageError
from plc.sfsk import ciase, commands, llc, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.framing import ACK, ANSWER, LOCAL_FRAME, NAK, LocalFrameDecoder, encode_local_frame

_PROCESSING_S = 0.001
_POWER_UP_S = 5.0
# A server that nobody addresses for so long becomes New: time-out-not-addressed, 60 minutes as a rule.
_NOT_ADDRESSED_S = 3600.0
_CONFIG_MISSING = 0x21
_ILLEGAL_DATA = 0x22
_BUSY = 0x14
_NOT_SET_COMMANDS = (commands.WRITE_CONFIG_REQUEST, commands.RESET_REQUEST)
_SOFT_VERSION = b"\x32"


@dataclass(slots=True)
class SfskNode:
    """A server at its place on the feeder."""

    device: Device
    place: FeederNode
    title: bytes
    heard: bool = False
    address: int = mac.NEW
    initiator: bytes = b""  # the title of who registered it
    addressed_at: float = 0.0
    alarm: int | None = None
    last_hops: int = 0  # repetitions that the initiator's last frame has needed
    visit: int = 0

    @property
    def registered(self) -> bool:
        """Whether it has a MAC address."""
        return self.address != mac.NEW


class SfskModem(SimulatedModem):
    """The modem and its network. Hand octets from the host to receive_data(); set `output` to get its own.

    `titles` are the system titles of the servers; left out, they are the EUI-64 of the devices.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        scheduler: Scheduler,
        feeder: Feeder | None = None,
        seed: int = 1,
        output: Callable[[bytes], None] | None = None,
        titles: Sequence[bytes] = (),
        join_spread_s: float = 60.0,
        baud_rate: int = 2400,
    ) -> None:
        feeder = feeder or Feeder(len(devices), seed, SFSK_PHY)
        super().__init__("s-fsk modem", scheduler, feeder, seed, output, join_spread_s)
        self.baud_rate = baud_rate
        self._decoder = LocalFrameDecoder()
        titles = titles or [device.eui64 for device in devices]
        self._nodes = [
            SfskNode(device, place, title)
            for device, place, title in zip(devices, self.feeder.nodes, titles, strict=True)
        ]
        self._config = b""  # not set
        self._sending = False
        self._last_frame = b""
        self._counts = [0] * len(commands.DATA_COUNTERS)
        self._handlers: dict[int, Callable[[Message], None]] = {
            commands.WRITE_CONFIG_REQUEST: self._write_config,
            commands.ACCESS_DB_REQUEST: self._access,
            commands.RESET_REQUEST: self._reset,
            commands.DESYNCHRO_REQUEST: lambda _message: None,
            commands.ISA_REQUEST: lambda _message: None,
            commands.MA_DATA_REQUEST: self._data,
        }

    # What tests and the demo use.

    def start(self) -> None:
        """Power the feeder: servers come up one after the other within `join_spread_s`."""
        for node in self._nodes:
            self._scheduler.call_later(
                self._draws.uniform(0.0, self._join_spread_s) / self.feeder.speed,
                lambda node=node: self._come(node),
            )

    def restart(self) -> None:
        """Lose power for a moment: the configuration is gone, and no message tells. The servers stay."""
        self._epoch += 1
        self._config = b""
        self._sending = False
        self._decoder.reset()

    def joined_titles(self) -> set[bytes]:
        """System titles of every server that is registered and has power."""
        return {node.title for node in self._nodes if node.registered and node.heard}

    def addresses(self) -> dict[bytes, int]:
        """MAC addresses by system title, of those that are registered and have power."""
        return {node.title: node.address for node in self._nodes if node.registered and node.heard}

    def drop(self, title: bytes, duration_s: float | None = None) -> None:
        """Take the power from a server; it comes back New after the duration, or not at all when None."""
        self._go(self._find(title), duration_s)

    def raise_alarm(self, title: bytes, alarm: int) -> None:
        """Let a server report an alarm descriptor with its next Discover.report."""
        self._find(title).alarm = alarm

    def alarms(self) -> dict[bytes, int]:
        """The alarm descriptors that are not cleared."""
        return {node.title: node.alarm for node in self._nodes if node.alarm is not None}

    def push_apdu(self, title: bytes, client_sap: int, server_sap: int, apdu: bytes) -> None:
        """Let a server send on its own: a data notification."""
        self._send_up(self._find(title), client_sap, server_sap, apdu)

    def receive_data(self, data: bytes) -> None:
        """Take octets from the host."""
        bad = self._decoder.counters["bad_crc"]
        self._decoder.receive_data(data)
        while (frame := self._decoder.next_frame()) is not None:
            kind, payload = frame
            if kind == LOCAL_FRAME:
                self.write(bytes((ACK,)))
                self.after(_PROCESSING_S, lambda payload=payload: self._process(payload))
            elif kind == ANSWER and payload == bytes((NAK,)) and self._last_frame:
                self.write(self._last_frame)
        if self._decoder.counters["bad_crc"] > bad:
            self.write(bytes((NAK,)))

    # The life of a server.

    def _find(self, title: bytes) -> SfskNode:
        return next(node for node in self._nodes if node.title == title)

    def _come(self, node: SfskNode) -> None:
        node.heard = True
        node.visit += 1
        node.address, node.initiator = mac.NEW, b""
        visit = node.visit
        delay_s = self.feeder.time_until_drop_s(node.place, self.now())
        if delay_s is not None:
            self._scheduler.call_later(
                delay_s,
                lambda: (
                    self._go(node, self.feeder.outage_s(node.place, self.now()))
                    if node.visit == visit
                    else None
                ),
            )

    def _go(self, node: SfskNode, duration_s: float | None) -> None:
        if not node.heard:
            return
        self.counters.drops += 1
        node.heard = False
        node.visit += 1
        visit = node.visit
        node.device.link_lost()
        if duration_s is not None:
            back_s = duration_s + _POWER_UP_S / self.feeder.speed
            self._scheduler.call_later(back_s, lambda: self._come(node) if node.visit == visit else None)

    def _forget_if_neglected(self, node: SfskNode) -> None:
        if node.registered and self.now() - node.addressed_at > _NOT_ADDRESSED_S:
            node.address, node.initiator = mac.NEW, b""
            node.device.link_lost()

    # Requests of the host.

    def _send(self, command: int, **values: int | bytes | None) -> None:
        self._last_frame = encode_local_frame(COMMANDS.encode(command, **values))
        self.write(self._last_frame)

    def _process(self, payload: bytes) -> None:
        try:
            message = COMMANDS.decode(payload)
        except MessageError:
            self.counters.unknown_commands += 1
            return
        handler = self._handlers.get(message.command)
        if handler is None:
            self.counters.unknown_commands += 1
        elif not self._config and message.command not in _NOT_SET_COMMANDS:
            self.counters.refused_commands += 1
            if message.command == commands.ACCESS_DB_REQUEST:
                self._send(commands.ACCESS_DB_ERROR, error_code=_CONFIG_MISSING)
            elif message.command == commands.MA_DATA_REQUEST:
                self._send(commands.MA_DATA_CONFIRM, transmission_status=0x0A)
        else:
            handler(message)

    def _write_config(self, message: Message) -> None:
        config = message.octets("config")
        if commands.address_of_config(config) is None or len(config) != commands.CONFIG_SIZE:
            self._send(commands.WRITE_CONFIG_ERROR, error_code=_ILLEGAL_DATA)
            return
        self._config = config
        self._send(commands.WRITE_CONFIG_CONFIRM, config=config)

    def _reset(self, message: Message) -> None:  # noqa: ARG002 one signature for all handlers
        self.restart()

    def _access(self, message: Message) -> None:
        entry = message.number("entry")
        values = {
            commands.DB_READ_CONFIG: self._config,
            commands.DB_SOFT_VERSION: _SOFT_VERSION,
            commands.DB_INVALID_FRAME_COUNTER: b"\x00",
            commands.DB_MIN_DELTA_CREDIT: b"\x07",
            commands.DB_DATA_COUNTERS: b"".join(count.to_bytes(4, "little") for count in self._counts),
            commands.DB_REPEATER: b"\x00",
        }
        value = values.get(entry)
        if value is None:
            self._send(commands.ACCESS_DB_ERROR, error_code=_ILLEGAL_DATA)
        else:
            self._send(commands.ACCESS_DB_CONFIRM, entry=entry, value=value)

    # The air, downwards.

    def _data(self, message: Message) -> None:
        try:
            frame = mac.decode_mac_frame(message.octets("mac_frame"))
            destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
        except MessageError:
            self._send(commands.MA_DATA_CONFIRM, transmission_status=commands.TRANSMISSION_SYNTAX_ERROR)
            return
        if self._sending:
            self._send(commands.MA_DATA_CONFIRM, transmission_status=_BUSY)
            return
        self._sending = True
        self._counts[3] += 1
        slots_s = mac.subframes(len(frame.sdu)) * mac.slot_s(self.baud_rate) / self.feeder.speed
        on_air_s = mac.airtime_s(len(frame.sdu), frame.initial_credit, self.baud_rate)
        end_s = self.feeder.hold(on_air_s, self.now())

        def sent() -> None:
            # The own transmission is over; the others repeat it.
            self._sending = False
            self._send(commands.MA_DATA_CONFIRM, transmission_status=commands.TRANSMISSION_OK)

        self.after(end_s - frame.initial_credit * slots_s, sent)
        self.after(end_s, lambda: self._arrive(frame, destination_lsap, source_lsap, data))

    def _hears(self, node: SfskNode, credit: int) -> bool:
        """Whether a frame with a credit gets through between the modem and a server, in either direction."""
        spare = credit - node.place.level
        path = node.place.path()
        if spare < 0 or not node.heard or not all(self._nodes[place.index].heard for place in path):
            return False
        now = self.now()
        return all(
            node.place.draws.random() >= self.feeder.frame_loss(link, now) ** (1 + spare) for link in path
        )

    def _arrive(self, frame: mac.MacFrame, destination_lsap: int, source_lsap: int, data: bytes) -> None:
        reports: list[SfskNode] = []
        for node in self._nodes:
            self._forget_if_neglected(node)
            if frame.destination not in (mac.ALL_PHYSICAL, node.address) or not node.heard:
                continue
            if not self._hears(node, frame.initial_credit):
                if frame.destination == node.address:
                    self.counters.apdus_lost_down += 1
                continue
            node.last_hops = node.place.level
            if frame.destination == node.address:
                node.addressed_at = self.now()
            if data and data[0] in ciase.TAGS and destination_lsap == llc.CIASE_SERVER_LSAP:
                if data[0] == ciase.DISCOVER_REQUEST:
                    reports.append(node)
                else:
                    self._take_management(node, data)
            elif node.registered:
                self.counters.apdus_down += 1
                self._deliver(node, source_lsap, destination_lsap, data)
        if reports:
            self._report(reports, data)

    def _take_management(self, node: SfskNode, data: bytes) -> None:
        try:
            if data[0] == ciase.REGISTER_REQUEST:
                initiator, pairs = ciase.decode_register_request(data)
                addresses = dict(pairs)
                if node.title in addresses and not node.registered:
                    node.address, node.initiator = addresses[node.title], initiator
                    node.addressed_at = self.now()
                    self.counters.joins += 1
            elif data[0] == ciase.PING_REQUEST:
                if node.registered and ciase.decode_ping(data) == node.title:
                    answer = ciase.encode_ping(ciase.PING_RESPONSE, node.title)
                    self._send_sdu(node, _management(answer), mac.LARGEST_CREDIT)
            elif data[0] == ciase.CLEAR_ALARM_REQUEST and any(
                title in (b"", node.title) and alarm == node.alarm
                for title, alarm in ciase.decode_clear_alarm(data)
            ):
                node.alarm = None
        except MessageError:
            self.counters.unknown_commands += 1

    def _report(self, nodes: Sequence[SfskNode], data: bytes) -> None:
        """Let New servers report, each in a slot by lot; what meets another in its slot is lost."""
        try:
            probability, slots, credit, _equal = ciase.decode_discover_request(data)
        except MessageError:
            return
        chosen: dict[int, list[SfskNode]] = {}
        for node in nodes:
            if not node.registered and self._draws.randrange(100) < probability:
                chosen.setdefault(self._draws.randrange(max(1, slots)), []).append(node)
        for slot, reporters in chosen.items():
            if len(reporters) > 1:
                self.counters.collisions += len(reporters)
                continue
            node = reporters[0]
            sdu = _management(ciase.encode_discover_report([(node.title, node.alarm)]))
            slot_s = mac.airtime_s(len(sdu), credit, self.baud_rate)
            self.later((1 + slot) * slot_s, lambda node=node, sdu=sdu: self._up(node, sdu, credit))
        self.feeder.hold(slots * mac.airtime_s(14, credit, self.baud_rate), self.now())

    # The air, upwards.

    def _deliver(self, node: SfskNode, client_sap: int, server_sap: int, apdu: bytes) -> None:
        visit, epoch = node.visit, self._epoch

        def reply(answer: bytes) -> None:
            if node.visit == visit and epoch == self._epoch:
                self._send_up(node, client_sap, server_sap, answer)

        node.device.receive_apdu(client_sap, server_sap, apdu, reply)

    def _send_up(self, node: SfskNode, client_sap: int, server_sap: int, apdu: bytes) -> None:
        if not node.registered or not node.heard or len(apdu) > llc.LARGEST_DATA:
            self.counters.apdus_lost_up += 1
            return
        self.counters.apdus_up += 1
        # A server gives its answer the credit that the request has needed, and one more.
        credit = min(mac.LARGEST_CREDIT, node.last_hops + 1)
        self._send_sdu(node, llc.encode_llc(client_sap, server_sap, apdu), credit)

    def _send_sdu(self, node: SfskNode, sdu: bytes, credit: int) -> None:
        end_s = self.feeder.hold(mac.airtime_s(len(sdu), credit, self.baud_rate), self.now())
        self.after(end_s, lambda: self._up(node, sdu, credit))

    def _up(self, node: SfskNode, sdu: bytes, credit: int) -> None:
        if not self._config or not self._hears(node, credit):
            self.counters.apdus_lost_up += 1
            return
        self._counts[0] += 1
        local = commands.address_of_config(self._config) or mac.FIRST_INITIATOR
        frame = mac.MacFrame(
            node.address,
            local,
            sdu,
            credit,
            credit - node.place.level,
            min(mac.LARGEST_DELTA_CREDIT, node.last_hops),
        )
        self._send(commands.MA_DATA_INDICATION, mac_frame=frame.to_bytes())


def _management(data: bytes) -> bytes:
    return llc.encode_llc(llc.CIASE_CLIENT_LSAP, llc.CIASE_SERVER_LSAP, data)
