"""Orders that concern the PLC network and its nodes, not what their meters have measured.

Each is a row: what it may be aimed at, which operation of the network it needs (what a family cannot do is refused
with words), and who carries it out. Orders that take long (a firmware upgrade, a rotation of the group key)
answer when they have begun; how far they are stands in the status, and their end in the event log.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from concentrator.collection.errors import MeterUnreachableError, NetworkOrderError
from concentrator.collection.group_key import GroupKeyFile
from concentrator.collection.registry import Registry
from concentrator.collection.topology import Topology
from concentrator.collection.topology_view import network_view, node_view
from concentrator.collection.whitelist import Whitelist
from concentrator.links.plc_link import PlcLink
from concentrator.orders import PAGE, Order, OrderError
from plc.errors import LocalPlcError
from plc.g3.coordinator import Coordinator
from plc.network import (
    DiagnosticsRead,
    Event,
    GroupKeyChanged,
    ModemLost,
    NetworkStarted,
    NodeDeclined,
    NodeDiagnosticsRead,
    NodeJoined,
)
from plc.prime.base_node import BaseNode
from plc.prime.events import (
    FirmwareUpgradeFinished,
    FirmwareUpgradeProgressed,
    FirmwareUpgradeStarted,
    NodeCommandDone,
)
from plc.prime.firmware_upgrade import FirmwareImage, UpgradeOptions
from plc.sfsk.events import AlarmReported
from plc.sfsk.initiator import Initiator

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_ANSWER_TIMEOUT_S = 240.0
_GMK_SIZE = 16
_EUI_SIZES = (6, 8)
_MOST_DECLINED = 256
# What changes the network is for the head-end and for people on the box.
_FOR_THE_PAGE = ("topology", "refresh", "diagnostics", "upgrade_status")

EventType = TypeVar("EventType", bound=Event)


@dataclass(slots=True)
class UpgradeState:
    """How far a firmware upgrade of nodes is."""

    file: str
    state: str  # "handing over", "running", "finished"
    targets: int
    pages: dict[str, int]
    states: dict[str, str]
    outcomes: dict[str, str]
    reason: str = ""


class NetworkOrders:
    """Carries orders out on one network; `note()` has to see its events."""

    def __init__(  # noqa: PLR0913 - what it is made of, once, in app.py
        self,
        link: PlcLink,
        registry: Registry,
        topology: Topology,
        whitelist: Whitelist,
        group_key: GroupKeyFile,
        firmware_folder: Path,
        reload_device_keys: Callable[[], dict[bytes, bytes]],
    ) -> None:
        self._link = link
        self._registry = registry
        self._topology = topology
        self._whitelist = whitelist
        self._group_key = group_key
        self._firmware_folder = firmware_folder
        self._reload_device_keys = reload_device_keys
        self._waiting: list[tuple[Callable[[Event], bool], asyncio.Future[Event]]] = []
        self._upgrade: UpgradeState | None = None
        self._rotating = False
        self._alarms: dict[str, int] = {}
        self._declined: dict[str, str] = {}  # foreign devices, and why they may not join
        self._device_keys: dict[bytes, bytes] = {}
        # Operation, needs a node (True), the network (False) or either (None), what the family has to be able to do.
        self._operations: dict[str, tuple[bool | None, str, Callable[[Order], Awaitable[dict[str, Any]]]]] = {
            "topology": (None, "", self._topology_order),
            "refresh": (False, "", self._refresh),
            "diagnostics": (None, "", self._diagnostics),
            "expel": (True, "", self._expel),
            "whitelist": (False, "", self._change_whitelist),
            "reload_keys": (False, "", self._reload_keys),
            "rotate_group_key": (False, "group_key_rotation", self._rotate_group_key),
            "upgrade": (False, "node_upgrade", self._start_upgrade),
            "upgrade_status": (False, "node_upgrade", self._upgrade_status),
            "abort_upgrade": (False, "node_upgrade", self._abort_upgrade),
            "promote": (True, "promotion", self._promote),
            "demote": (True, "promotion", self._promote),
            "reboot_node": (True, "promotion", self._reboot_node),
            "repeater_call": (False, "repeater_call", self._repeater_call),
            "clear_alarm": (False, "clear_alarm", self._clear_alarm),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The operations that end here."""
        return tuple(self._operations)

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry one order out.

        Raises:
            OrderError, UnknownMeterError: it makes no sense, or this family cannot do it.
            MeterUnreachableError: the node or the modem did not answer.
            NetworkOrderError: the network refused.
        """
        wants_node, needed, handler = self._operations[order.operation]
        if order.origin == PAGE and order.operation not in _FOR_THE_PAGE:
            raise OrderError(f"order {order.order_id}: {order.operation} is not taken from {PAGE}")
        capabilities = self._link.network.capabilities
        if needed and needed not in capabilities.operations:
            raise OrderError(
                f"order {order.order_id}: {order.operation} is not known to a {capabilities.family} network"
            )
        if wants_node is True and not order.target:
            raise OrderError(f"order {order.order_id}: target: not given; {order.operation} needs a meter")
        if wants_node is False and order.target:
            raise OrderError(f"order {order.order_id}: target: {order.operation} is for the whole network")
        try:
            return await handler(order)
        except LocalPlcError as error:
            raise NetworkOrderError(f"order {order.order_id}: {error}") from error

    def note(self, event: Event) -> None:
        """Follow the network."""
        for entry in [entry for entry in self._waiting if entry[0](event)]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(event)
        match event:
            case GroupKeyChanged():
                self._rotating = False
                self._group_key.confirm(event.index)
                log.info("group key rotated", index=event.index)
            case NetworkStarted():
                self._finish_rotation()
            case ModemLost():
                for _wanted, future in self._waiting:
                    if not future.done():
                        future.set_exception(MeterUnreachableError(f"the modem is lost: {event.reason}"))
                self._waiting = []
            case FirmwareUpgradeStarted() if self._upgrade is not None:
                self._upgrade.state = "running"
            case FirmwareUpgradeProgressed() if self._upgrade is not None:
                self._upgrade.pages[event.eui.hex()] = event.pages
                self._upgrade.states[event.eui.hex()] = event.state
            case FirmwareUpgradeFinished() if self._upgrade is not None:
                self._upgrade.state, self._upgrade.reason = "finished", event.reason
                self._upgrade.outcomes = {eui.hex(): words for eui, words in event.outcomes.items()}
                log.info(
                    "node firmware upgrade finished", outcomes=self._upgrade.outcomes, reason=event.reason
                )
            case NodeDeclined():
                if len(self._declined) < _MOST_DECLINED or event.eui.hex() in self._declined:
                    self._declined[event.eui.hex()] = event.reason
            case NodeJoined():
                self._declined.pop(event.eui.hex(), None)
            case AlarmReported():
                self._alarms[event.eui.hex()] = event.alarm
                log.warning("alarm reported", eui=event.eui.hex(), alarm=event.alarm)
            case _:
                pass

    def state(self) -> dict[str, Any]:
        """What the status tells of the network beside its modem."""
        capabilities = self._link.network.capabilities
        upgrade = self._upgrade
        return {
            "capabilities": {
                "largest_apdu": capabilities.largest_apdu,
                "requests_in_flight": capabilities.requests_in_flight,
                "broadcast": capabilities.broadcast,
                "operations": list(capabilities.operations),
            },
            "whitelist": self._whitelist.count,
            "rotating_group_key": self._rotating,
            "upgrade": {"file": upgrade.file, "state": upgrade.state, "targets": upgrade.targets}
            if upgrade
            else None,
            "alarms": dict(self._alarms),
            "declined": dict(self._declined),
        }

    # What the orders have in common.

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _wait_for(self, wanted: Callable[[Event], bool], begin: Callable[[], None]) -> Event:
        """Begin something, and wait for the event that ends it."""
        self._check_running()
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        try:
            begin()
            self._link.shell.pump()
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise MeterUnreachableError(f"no answer within {_ANSWER_TIMEOUT_S:g} s") from None
        finally:
            self._waiting = [entry for entry in self._waiting if entry[1] is not future]

    def _check_running(self) -> None:
        if self._link.shell.state != "running":
            raise MeterUnreachableError(
                f"the modem is {self._link.shell.state}: {self._link.shell.reason or 'it has not answered yet'}"
            )

    def _eui(self, order: Order) -> bytes:
        """The node of the order's meter."""
        meter = self._registry.known(order.target)
        try:
            return bytes.fromhex(meter.record.link_address)
        except ValueError:
            raise OrderError(f"order {order.order_id}: {order.target} is not on the power line") from None

    # The orders.

    async def _topology_order(self, order: Order) -> dict[str, Any]:
        names = {meter.record.link_address: meter.identity for meter in self._registry}
        if order.target:
            return node_view(self._topology, self._eui(order), names)
        return network_view(self._topology, names)

    async def _refresh(self, _order: Order) -> dict[str, Any]:
        self._check_running()
        self._link.refresh()
        return {"begun": True}

    async def _diagnostics(self, order: Order) -> dict[str, Any]:
        network = self._link.network
        if not order.target:
            event = await self._wait_for(
                lambda event: isinstance(event, DiagnosticsRead),
                lambda: network.read_diagnostics(self._now()),
            )
            tables = event.tables if isinstance(event, DiagnosticsRead) else []
            return {
                "counters": dict(network.counters),
                "tables": {name: [_as_json(record) for record in records] for name, records in tables},
            }
        eui = self._eui(order)
        event = await self._wait_for(
            lambda event: isinstance(event, NodeDiagnosticsRead) and event.eui == eui,
            lambda: network.read_node_diagnostics(eui, self._now()),
        )
        if not isinstance(event, NodeDiagnosticsRead):
            raise NetworkOrderError(f"meter {order.target}: nothing was found out")
        if event.reason and not event.values:
            raise MeterUnreachableError(f"meter {order.target}: {event.reason}")
        return {"values": [list(pair) for pair in event.values], "reason": event.reason}

    async def _expel(self, order: Order) -> dict[str, Any]:
        self._check_running()
        eui = self._eui(order)
        self._link.network.expel(eui, self._now())
        self._link.shell.pump()
        return {"expelled": eui.hex()}

    async def _change_whitelist(self, order: Order) -> dict[str, Any]:
        arguments = order.arguments
        unknown = set(arguments) - {"add", "remove", "everyone"}
        if unknown:
            raise OrderError(
                f"order {order.order_id}: args: {sorted(unknown)}: unknown; known: add, remove, everyone"
            )
        if arguments:
            add, remove = (_euis(order, arguments.get(name, [])) for name in ("add", "remove"))
            everyone = arguments.get("everyone")
            if everyone not in (None, True):
                raise OrderError(f"order {order.order_id}: args: everyone: got {everyone!r}; allowed: true")
            await self._whitelist.change(add, remove, everyone=everyone is True)
            self._apply_whitelist()
        allowed = self._whitelist.allowed
        return {"everyone": allowed is None, "allowed": sorted(eui.hex() for eui in allowed or ())}

    def _apply_whitelist(self) -> None:
        self._link.network.set_allowed(self._whitelist.allowed, self._now())
        self._link.shell.pump()

    async def _reload_keys(self, _order: Order) -> dict[str, Any]:
        """Read the whitelist's file and the device keys anew; keys never travel in an order."""
        self._whitelist.read_file()
        self._apply_whitelist()
        network = self._link.network
        keys = self._reload_device_keys()
        fresh = {eui: key for eui, key in keys.items() if self._device_keys.get(eui) != key}
        if isinstance(network, BaseNode):
            for eui, key in fresh.items():
                network.set_device_key(eui, key, self._now())
        elif isinstance(network, Coordinator):
            network.set_device_psks(keys)
        self._device_keys = dict(keys)
        self._link.shell.pump()
        return {"whitelist": self._whitelist.count, "device_keys": len(keys)}

    async def _rotate_group_key(self, order: Order) -> dict[str, Any]:
        self._check_running()
        network = self._link.network
        if not isinstance(network, Coordinator):
            raise OrderError(f"order {order.order_id}: the network has no group key")
        # On flash before the first device has it: a power cut must not leave us without it.
        gmk = os.urandom(_GMK_SIZE)
        self._group_key.prepare(gmk)
        network.rotate_group_key(gmk, self._now())
        self._rotating = True
        self._link.shell.pump()
        return {"begun": True}

    def _finish_rotation(self) -> None:
        """A rotation that the end of the service has interrupted begins anew, with the same key."""
        network = self._link.network
        if self._group_key.next_gmk and not self._rotating and isinstance(network, Coordinator):
            try:
                network.rotate_group_key(self._group_key.next_gmk, self._now())
            except LocalPlcError as error:
                log.warning("rotation of the group key not resumed", reason=str(error))
            else:
                self._rotating = True

    async def _start_upgrade(self, order: Order) -> dict[str, Any]:
        self._check_running()
        network = self._link.network
        if not isinstance(network, BaseNode):
            raise OrderError(f"order {order.order_id}: the nodes of this network cannot be upgraded")
        arguments = dict(order.arguments)
        name = arguments.pop("file", None)
        texts = {key: arguments.pop(key, None) for key in ("vendor", "model", "version")}
        targets = arguments.pop("targets", None)
        if not isinstance(name, str) or Path(name).name != name or not name:
            raise OrderError(
                f"order {order.order_id}: args: file: got {name!r}; allowed: a name in {self._firmware_folder}"
            )
        for key, text in texts.items():
            if not isinstance(text, str):
                raise OrderError(f"order {order.order_id}: args: {key}: got {text!r}; allowed: text")
        try:
            data = await asyncio.to_thread((self._firmware_folder / name).read_bytes)
        except OSError as error:
            raise OrderError(
                f"order {order.order_id}: {self._firmware_folder / name}: {error.strerror}"
            ) from None
        if targets is None:
            euis = [
                bytes.fromhex(meter.record.link_address)
                for meter in self._registry
                if meter.address is not None
            ]
        else:
            euis = sorted(_euis(order, targets))
        algorithm, size = (
            _number(order, arguments, key) for key in ("signature_algorithm", "signature_size")
        )
        vendor, model, version = (str(text).encode() for text in texts.values())
        image = FirmwareImage(data, vendor, model, version, algorithm, size)
        options = UpgradeOptions()
        for key in UpgradeOptions.__slots__:
            if key in arguments:
                value = arguments.pop(key)
                if type(value) is not type(getattr(options, key)):
                    raise OrderError(
                        f"order {order.order_id}: args: {key}: got {value!r}; allowed: as {getattr(options, key)!r}"
                    )
                setattr(options, key, value)
        if arguments:
            raise OrderError(f"order {order.order_id}: args: {sorted(arguments)}: unknown")
        network.start_firmware_upgrade(image, euis, options, self._now())
        self._upgrade = UpgradeState(name, "handing over", len(euis), {}, {}, {})
        self._link.shell.pump()
        return {"begun": True, "targets": len(euis)}

    async def _upgrade_status(self, _order: Order) -> dict[str, Any]:
        upgrade = self._upgrade
        if upgrade is None:
            return {"state": "none"}
        return {
            "file": upgrade.file,
            "state": upgrade.state,
            "targets": upgrade.targets,
            "pages": upgrade.pages,
            "states": upgrade.states,
            "outcomes": upgrade.outcomes,
            "reason": upgrade.reason,
        }

    async def _abort_upgrade(self, _order: Order) -> dict[str, Any]:
        network = self._link.network
        if self._upgrade is None or self._upgrade.state == "finished" or not isinstance(network, BaseNode):
            raise NetworkOrderError("no firmware upgrade is under way")
        event = await self._wait_for(
            lambda event: isinstance(event, FirmwareUpgradeFinished),
            lambda: network.abort_firmware_upgrade(self._now()),
        )
        return {"aborted": isinstance(event, FirmwareUpgradeFinished)}

    async def _promote(self, order: Order) -> dict[str, Any]:
        network = self._prime(order)
        begin = network.promote if order.operation == "promote" else network.demote
        return await self._command_node(order, lambda eui: begin(eui, self._now()))

    async def _reboot_node(self, order: Order) -> dict[str, Any]:
        network = self._prime(order)
        return await self._command_node(order, lambda eui: network.reboot_node(eui, self._now()))

    def _prime(self, order: Order) -> BaseNode:
        if not isinstance(self._link.network, BaseNode):
            raise OrderError(f"order {order.order_id}: {order.operation} is for PRIME networks")
        return self._link.network

    async def _command_node(self, order: Order, begin: Callable[[bytes], None]) -> dict[str, Any]:
        eui = self._eui(order)
        event = await self._wait_for(
            lambda event: isinstance(event, NodeCommandDone) and event.eui == eui, lambda: begin(eui)
        )
        if isinstance(event, NodeCommandDone) and event.reason:
            raise NetworkOrderError(f"meter {order.target}: {order.operation}: {event.reason}")
        return {"done": True}

    async def _repeater_call(self, order: Order) -> dict[str, Any]:
        self._initiator(order).repeater_call(self._now())
        self._link.shell.pump()
        return {"begun": True}

    async def _clear_alarm(self, order: Order) -> dict[str, Any]:
        initiator = self._initiator(order)
        alarms = order.arguments.get("alarms")
        if not isinstance(alarms, list) or not alarms:
            raise OrderError(
                f"order {order.order_id}: args: alarms: got {alarms!r}; allowed: a list of descriptors"
            )
        numbers: list[int] = []
        for alarm in alarms:  # pyright: ignore[reportUnknownVariableType] - decoded JSON
            if not isinstance(alarm, int) or not 0 <= alarm <= 0xFF:  # noqa: PLR2004 - one octet
                raise OrderError(f"order {order.order_id}: args: alarms: got {alarm!r}; allowed: 0 to 255")
            numbers.append(alarm)
        initiator.clear_alarm(
            numbers, self._now(), sorted(_euis(order, order.arguments.get("titles", []))) or None
        )
        self._alarms = {eui: alarm for eui, alarm in self._alarms.items() if alarm not in numbers}
        self._link.shell.pump()
        return {"begun": True}

    def _initiator(self, order: Order) -> Initiator:
        self._check_running()
        if not isinstance(self._link.network, Initiator):
            raise OrderError(f"order {order.order_id}: {order.operation} is for S-FSK networks")
        return self._link.network


def _euis(order: Order, given: object) -> set[bytes]:
    euis: set[bytes] = set()
    if not isinstance(given, list):
        raise OrderError(
            f"order {order.order_id}: args: got {given!r}; allowed: a list of EUIs in hexadecimal"
        )
    for text in given:  # pyright: ignore[reportUnknownVariableType] - decoded JSON
        try:
            eui = bytes.fromhex(str(text))  # pyright: ignore[reportUnknownArgumentType]
        except ValueError:
            eui = b""
        if len(eui) not in _EUI_SIZES:
            raise OrderError(
                f"order {order.order_id}: args: got {text!r}; allowed: an EUI-48 or EUI-64 in hexadecimal"
            )
        euis.add(eui)
    return euis


def _number(order: Order, arguments: dict[str, Any], key: str) -> int:
    value = arguments.pop(key, 0)
    if type(value) is not int or value < 0:
        raise OrderError(f"order {order.order_id}: args: {key}: got {value!r}; allowed: a whole number")
    return value


def _as_json(record: dict[str, int | bytes]) -> dict[str, int | str]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in record.items()}
