"""The service: the one place that builds objects of several rooms, and runs them side by side.

Start-up reads as a list: store, registry, modem, radio, uplinks, control socket, page. Any loop that fails
stops the program, and the service manager starts it again; a lost modem or broker is not a failure but
a state, handled where it happens.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from concentrator.archive.backup_desk import BackupDesk
from concentrator.archive.support_bundle import make_bundle
from concentrator.clock import Clock, is_plausible
from concentrator.collection import order_book
from concentrator.collection.address_book import AddressBook
from concentrator.collection.balance_report import BalanceReport
from concentrator.collection.collector import Collector
from concentrator.collection.control.rules import OrderRules
from concentrator.collection.gateway_desk import GatewayDesk
from concentrator.collection.group_key import GroupKeyFile
from concentrator.collection.history_keeper import HistoryKeeper
from concentrator.collection.key_states import KeyStates
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.kpi_keeper import KpiKeeper
from concentrator.collection.late_validation import LateValidator
from concentrator.collection.mbus_collector import MbusCollector
from concentrator.collection.meter_tasks import tasks_of
from concentrator.collection.network_orders import NetworkOrders
from concentrator.collection.order_book import OrderBook
from concentrator.collection.p1_collector import P1Collector
from concentrator.collection.radio_listener import RadioListener
from concentrator.collection.registry import CollectedMeter
from concentrator.collection.registry_orders import RegistryOrders
from concentrator.collection.store_orders import StoreOrders
from concentrator.collection.topology_view import node_view, places_view
from concentrator.collection.whitelist import Whitelist
from concentrator.config import Config, DlmsSection, ModemSection
from concentrator.control import ControlServer
from concentrator.dlms_upstream import DlmsUpstream
from concentrator.errors import ConcentratorError
from concentrator.journal import Journal, State, Subject
from concentrator.links.board_control import BoardControl, make_board_control
from concentrator.links.plc_link import PlcLink
from concentrator.links.plc_networks import Remembered, load_network_keys, make_network
from concentrator.links.radio_link import RadioLink
from concentrator.links.radio_modules import AUTO, find_radio_module, make_radio_module
from concentrator.links.traffic_taps import TrafficTaps
from concentrator.logs import recent_lines
from concentrator.model import MeterRecord
from concentrator.notify import Notifier, Watchdog, watchdog_limit_s
from concentrator.orders import Order, OrderError
from concentrator.page_access import AccessParts, Surroundings, make_access
from concentrator.status import StatusReporter
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.time_source import TimeState, TimeWatch
from concentrator.traffic import TrafficHub
from concentrator.update.own_updates import OwnUpdates
from concentrator.uplink.dlms_listener import DlmsListener
from concentrator.uplink.files import FileUplink
from concentrator.uplink.management_device import LinkState
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt import MqttUplink
from concentrator.uplink.mqtt_state import BoxReport
from concentrator.uplink.push import WAITING
from concentrator.uplink.sparkplug import SparkplugUplink
from concentrator.uplink.uplink import CONNECTED, Uplink
from plc.network import Event, Network

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# What the page may ask as often as it likes.
_STORE_QUESTIONS = ("balance", "interruptions")
_NETWORK_QUESTIONS = ("upgrade_status",)
_FIRMWARE_IMAGES = "firmware_images"
_RETENTION_INTERVAL_S = 3600.0
_CHECKPOINT_LOOK_S = 10.0
# The WAL is folded into the file after so long without a write: seldom enough to spare the flash.
_STORE_IDLE_S = 60.0
_LAMP_INTERVAL_S = 1.0
# A loop that has not moved for this long hangs: systemd restarts the service.
_COLLECTION_BEAT_LIMIT_S = 300.0
_STORE_BEAT_LIMIT_S = 120.0
_STORE_BEAT_INTERVAL_S = 10.0


class Service:
    """Everything that one run of the concentrator consists of."""

    def __init__(self, config: Config, store: Store, clock: Clock, boot_id: str, keyring: Keyring) -> None:
        """Build it.

        Raises:
            TaskError: a task of the configuration makes no sense.
        """
        self._config = config
        self._store = store
        self._notifier = Notifier.from_environment()
        self.journal = Journal(store, self._states, clock)
        self._watchdog = Watchdog(self._notifier, clock, watchdog_limit_s(), self._tell_overdue)
        self._watchdog.register("store", _STORE_BEAT_LIMIT_S)
        box = config.concentrator
        topics = Topics(box.site, box.name)
        self.time_watch = TimeWatch(clock)
        self.traffic = TrafficHub(clock)
        self.collector = Collector(
            config.collection,
            store,
            clock,
            keyring,
            self._collection_moved,
            tasks_of(config.task, config.collection),
            self.time_watch,
            OrderRules.from_settings(config.orders),
            self.traffic,
            config.firmware,
        )
        self.updates = OwnUpdates(store, clock, self.journal.note, self._tell_update)
        self.link: PlcLink | None = None
        self.radio: RadioLink | None = None
        self.listener: RadioListener | None = None
        self.mbus = (
            MbusCollector(config.mbus, store, clock, keyring.wmbus_keys())
            if config.mbus is not None
            else None
        )
        self.p1 = P1Collector(config.p1, store, clock) if config.p1 is not None else None
        self.network_orders: NetworkOrders | None = None
        self.registry_orders = RegistryOrders(store, clock, (), self.collector.models, keyring)
        self.kpi = KpiKeeper(
            store,
            clock,
            self.collector.registry,
            self.collector.topology,
            self.collector.visits,
            config.collection.profile,
        )
        self.balance = BalanceReport(store, clock, config.balance, config.feeder, config.collection.profile)
        self.collector.phases.wanted = self.balance.is_set_up
        self.store_orders = StoreOrders(store, clock, config.collection.profile, self.kpi, self.balance)
        self.reporter = StatusReporter(config, store, clock, boot_id, self.collector)
        self.reporter.keys = KeyStates(keyring, clock)
        self.dlms_upstream = DlmsUpstream(config, store, clock, self.journal, self.updates)
        report = BoxReport(self.reporter.fresh_health, self.reporter.meter_list)
        self.uplinks: list[Uplink] = [
            *(MqttUplink(one, topics, store, clock, boot_id, report, self.carry_out) for one in config.mqtt),
            *(FileUplink(one, topics, store, clock) for one in config.files),
            *self.dlms_upstream.pushes,
            *(
                SparkplugUplink(one, topics, store, clock, self.reporter.meter_list)
                for one in config.sparkplug
            ),
        ]
        for uplink in self.uplinks:
            uplink.traffic = self.traffic
        self.reporter.uplinks, self.reporter.kpi = self.uplinks, self.kpi
        self.reporter.balance = self.balance
        self.order_book = OrderBook(store, clock, self._carry_out_now, self._tell_order)
        self._keyring = keyring
        self._clock = clock
        self.listener_for_head_ends: DlmsListener | None = None
        self._addresses = AddressBook(store, config.modem.family if config.modem is not None else "")
        self._history = HistoryKeeper(store, self.collector.topology)
        self._board = make_board_control(config.board)
        self.access: AccessParts | None = None
        self.restart_wanted = asyncio.Event()

    def open_to_page(self, config_file: Path, key_store: KeyStore) -> None:
        """Let people on the page in: accounts, configuration, keys."""
        around = Surroundings(
            self._store,
            self._clock,
            self._keyring,
            key_store,
            self.carry_out,
            lambda: {one.feed.destination for one in self.uplinks if one.state == CONNECTED},
            lambda: {one.feed.destination for one in self.uplinks},
            self._use_new_keys,
            lambda: [meter.record for meter in self.collector.registry],
            self.restart_wanted.set,
            BackupDesk(
                self._config,
                config_file,
                self._clock,
                lambda: {one.feed.destination for one in self.uplinks if one.state == CONNECTED},
                self.restart_wanted.set,
            ),
        )
        self.access = make_access(self._config, config_file, around)

    async def prepare(self) -> None:
        """What has to be read from the store before anything runs."""
        self.collector.task_orders.others = self
        await self.updates.load()
        config = self._config
        await self.collector.load()
        await self.kpi.load()
        if config.modem is not None:
            await self._addresses.load()
            await self._history.load()
            self.link = PlcLink(
                await self._make_network(config.modem),
                config.modem.port,
                config.modem.baud_rate,
                self._handle_network_event,
            )
            self.network_orders = self._make_network_orders(config.modem, self.link)
            self.reporter.network_orders = self.network_orders
            self._watchdog.register("collection", _COLLECTION_BEAT_LIMIT_S)
        if config.radio is not None:
            self.listener = RadioListener(
                self._store,
                self._clock,
                self._keyring.wmbus_keys(),
                config.radio.store_interval_s,
                config.radio.meters.replace(",", " ").split(),
            )
            await self.listener.load()
            self.collector.sub_meters.known_elsewhere = self.listener.records.__contains__
            settings = config.radio
            if settings.module == AUTO:
                found = await find_radio_module(settings.port, settings.mode)
                settings = replace(settings, module=found.name, baud_rate=found.baud_rate)
            self.radio = RadioLink(
                make_radio_module(settings), settings.port, settings.baud_rate, self.listener.hear
            )
        for collector in (self.mbus, self.p1):
            if collector is not None:
                await collector.load()
        self.registry_orders = self._make_registry_orders()
        self.reporter.local_ports = {
            name: collector
            for name, collector in (("mbus", self.mbus), ("p1", self.p1))
            if collector is not None
        }
        if config.dlms is not None:
            self.listener_for_head_ends = self._make_head_end_listener(config.dlms)
            self.listener_for_head_ends.traffic = self.traffic
        TrafficTaps(self.traffic, self.link, self.radio)
        self.reporter.link, self.reporter.radio, self.reporter.listener = self.link, self.radio, self.listener

    def _make_head_end_listener(self, settings: DlmsSection) -> DlmsListener:
        desk = None
        if self.link is not None:
            desk = GatewayDesk(
                self.collector.registry,
                self.collector.scheduler,
                self.link,
                self._clock,
                settings.network_id,
                self._config.collection.answer_timeout_s,
                most_meters=self._config.collection.meters_in_flight,
            )
        return self.dlms_upstream.make_listener(settings, self, self.uplinks, desk)

    def health(self) -> dict[str, Any]:
        """The numbers of the health topic."""
        return self.reporter.health()

    def links(self) -> list[LinkState]:
        """The ways to meters, with their states and counters."""
        found: list[LinkState] = []
        if self.link is not None:
            shell, totals = self.link.shell, self.collector.totals()
            share = 100 * totals["meters_reachable"] / totals["meters"] if totals["meters"] else None
            found.append(LinkState("modem", shell.state, dict(self.link.network.counters), share))
        if self.radio is not None and self.listener is not None:
            counters = {**self.radio.module.counters, **self.listener.counters}
            found.append(LinkState("radio", self.radio.shell.state, counters))
        for name, port in self.reporter.local_ports.items():
            found.append(LinkState(name, port.state, dict(port.counters)))
        return found

    def synchronised(self) -> bool:
        """Whether nothing says that the clock does not follow NTP."""
        return self.time_watch.state not in (TimeState.NOT_SET, TimeState.UNSYNCHRONISED)

    async def _make_network(self, settings: ModemSection) -> Network:
        """The network with everything that it has to remember."""
        keys = load_network_keys(settings)
        self._group_key = GroupKeyFile(
            self._config.state_directory / "group_key.json", keys.gmk, keys.gmk_index
        )
        self._whitelist = Whitelist(self._store, settings.whitelist_file, settings.family)
        await self._whitelist.load()
        remembered = Remembered(
            self._addresses.known,
            self._addresses.frame_counter,
            self._group_key.gmk,
            self._group_key.index,
            self._whitelist.allowed,
        )
        return make_network(settings, keys, remembered, bytes.fromhex(self._config.collection.system_title))

    def _make_network_orders(self, settings: ModemSection, link: PlcLink) -> NetworkOrders:
        return NetworkOrders(
            link,
            self.collector.registry,
            self.collector.topology,
            self._whitelist,
            self._group_key,
            self._config.state_directory / "node_firmware",
            lambda: load_network_keys(settings).device_keys,
        )

    def _make_registry_orders(self) -> RegistryOrders:
        ports = [port.meters for port in (self.mbus, self.p1) if port is not None]
        radio = [self.listener] if self.listener is not None else []
        return RegistryOrders(
            self._store,
            self._clock,
            [self.collector.registry, self.collector.sub_meters, *radio, *ports],
            self.collector.models,
            self._keyring,
            self._use_new_keys,
        )

    def _use_new_keys(self) -> None:
        keys = self._keyring.wmbus_keys()
        for user in (self.listener, self.mbus):
            if user is not None:
                user.use_keys(keys)
        self.collector.try_keys_again()

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry out one order, in its time and once; or take it, when it is deferred.

        Raises:
            ConcentratorError: it makes no sense, or could not be done; the text says why.
        """
        return await self.order_book.carry_out(order)

    async def answer_question(self, order: Order) -> dict[str, Any]:
        """Answer what changes nothing and needs no meter: not kept as an order, not in the event log.

        Raises:
            ConcentratorError: it is no such question, or cannot be answered; the text says why.
        """
        if order.operation in _STORE_QUESTIONS:
            return await self.store_orders.carry_out(order)
        if order.operation in _NETWORK_QUESTIONS and self.network_orders is not None:
            return await self.network_orders.carry_out(order)
        if order.operation == _FIRMWARE_IMAGES:
            return {"images": await self.collector.firmware_orders.images()}
        if order.operation == "support_bundle":
            content = await make_bundle(
                self._config, await self.reporter.status(), recent_lines(), self._clock.now()
            )
            self.journal.note_access(order, "done")
            if self.access is not None:
                await self.access.desk.note(order.operation, order.who, "done", "downloaded")
            return {"content": base64.b64encode(content).decode()}
        raise OrderError(
            f"order {order.order_id}: op: got {order.operation!r}; "
            f"allowed: support_bundle, {', '.join((*_STORE_QUESTIONS, *_NETWORK_QUESTIONS, _FIRMWARE_IMAGES))}"
        )

    async def _carry_out_now(self, order: Order) -> dict[str, Any]:
        """Carry out one order, of the network's or of a meter's kind.

        Raises:
            ConcentratorError: it makes no sense, or could not be done; the text says why.
        """
        try:
            result = await self._carry_out(order)
        except ConcentratorError as error:
            self.journal.note_access(order, f"failed: {error}")
            raise
        self.journal.note_access(order, "done")
        return result

    async def _carry_out(self, order: Order) -> dict[str, Any]:
        orders = self.network_orders
        if orders is not None and order.operation in orders.names:
            return await orders.carry_out(order)
        registry = self.registry_orders
        if order.operation in registry.names:
            result = await registry.carry_out(order)
            self.collector.scheduler.plan_all()
            return result
        if order.operation in self.store_orders.names:
            return await self.store_orders.carry_out(order)
        known = (
            *order_book.OPERATIONS,
            *registry.names,
            *self.store_orders.names,
            *(() if orders is None else orders.names),
        )
        return await self.collector.carry_out(order, known)

    def _tell_order(self, order: Order, state: str, outcome: dict[str, Any]) -> None:
        for uplink in self.uplinks:
            if isinstance(uplink, MqttUplink):
                uplink.tell_order(order, state, outcome)

    async def run(self, *extra: Coroutine[Any, Any, None]) -> None:
        """Run everything until something ends."""
        access = self.access
        control = ControlServer(
            self._config.control_socket,
            self.reporter.status,
            self.carry_out,
            self.answer_question,
            access.desk if access is not None else None,
            questions={
                "topology": self._places,
                "dialogue": self.collector.dialogues.view,
                "firmware": self._firmware,
            },
            news={"update": self.updates.told},
            traffic=self.traffic,
        )
        loops: list[Coroutine[Any, Any, None]] = [
            control.run(),
            self.journal.run(),
            LateValidator(self._store).run(),
            self.kpi.run(),
            self.balance.run(),
            self.updates.run(),
            self._keep_house(),
            self._prove_store(),
            self._watchdog.run(),
            self.time_watch.run(),
            *(uplink.run() for uplink in self.uplinks),
            *extra,
        ]
        if access is not None:
            loops.append(access.configuration.run(access.desk.note))
        if self.link is not None:
            loops += [
                self.link.run(),
                self.collector.run(self.link),
                self._addresses.run(),
                self._history.run(),
            ]
        if self.radio is not None and self.listener is not None:
            loops += [self.radio.run(), self.listener.run()]
        loops += [collector.run() for collector in (self.mbus, self.p1) if collector is not None]
        if self.listener_for_head_ends is not None:
            loops.append(self.listener_for_head_ends.run())
        if self._board is not None:
            loops += [self._board.run(), self._light_lamps(self._board)]
        self._notifier.ready(f"serving {self._config.concentrator.name}")
        await self.order_book.load()
        try:
            await until_first_ends(*loops)
        finally:
            self._notifier.stopping()
            await self.order_book.close()

    def _tell_update(self, update: dict[str, Any]) -> None:
        for uplink in self.uplinks:
            if isinstance(uplink, MqttUplink):
                uplink.tell_update(update)

    def _firmware(self, campaign: str) -> dict[str, Any]:
        """The concentrator's own firmware, and the campaigns that bring firmware to meters, or one of them."""
        return {**self.updates.view(), **self.collector.firmware.view(campaign)}

    def _places(self, eui: str) -> dict[str, Any]:
        """Who hangs where on the power line; with an EUI everything that is kept of that node."""
        names = {meter.record.link_address: meter.identity for meter in self.collector.registry}
        if not eui:
            return places_view(self.collector.topology, names)
        try:
            return node_view(self.collector.topology, bytes.fromhex(eui), names)
        except ValueError:
            return {"eui": eui, "known": False}

    def channel_meters(self) -> list[CollectedMeter]:
        """The meters on M-Bus channels of electricity meters."""
        return self.collector.sub_meters.collected()

    def heard_meters(self) -> list[tuple[MeterRecord, int]]:
        """The meters heard by radio or read at local ports, each with how often a reading of it is kept."""
        config = self._config
        found: list[tuple[MeterRecord, int]] = []
        if self.listener is not None and config.radio is not None:
            found += [(one, config.radio.store_interval_s) for one in self.listener.records.values()]
        if self.mbus is not None and config.mbus is not None:
            found += [(one, config.mbus.read_interval_s) for one in self.mbus.meters.records.values()]
        if self.p1 is not None and config.p1 is not None:
            found += [(one, config.p1.store_interval_s) for one in self.p1.meters.records.values()]
        return found

    def _handle_network_event(self, event: Event) -> None:
        self._addresses.note(event)
        if self._board is not None:
            self._board.note(event)
        self.collector.handle_event(event)
        self.journal.note_network(event)
        if self.network_orders is not None:
            self.network_orders.note(event)

    def _states(self) -> dict[Subject, State]:
        """What the journal watches."""
        states: dict[Subject, State] = {
            ("meter", meter.identity): (meter.record.state.value, meter.record.reason)
            for meter in self.collector.registry
        }
        others = [*self.collector.sub_meters.records.values()]
        if self.listener is not None:
            others += self.listener.records.values()
        for record in others:
            states["meter", record.identity] = (record.state.value, record.reason)
        for kind, collector in self.reporter.local_ports.items():
            states[kind, ""] = (collector.state, collector.reason)
            for record in collector.meters.records.values():
                states["meter", record.identity] = (record.state.value, record.reason)
        for kind, link in (("modem", self.link), ("radio", self.radio)):
            if link is not None:
                states[kind, ""] = (link.shell.state, link.shell.reason)
        for uplink in self.uplinks:
            states["destination", uplink.feed.destination] = (uplink.state, uplink.reason)
        states["clock", ""] = (self.time_watch.state.value, "")
        states["store", ""] = (self._store.state, self._store.unavailable)
        blocked = self._store.house.checkpoint_blocked
        states["checkpoint", ""] = ("blocked" if blocked else "in order", blocked)
        return states

    def _collection_moved(self) -> None:
        if self.link is not None:
            self._watchdog.beat("collection")

    def _tell_overdue(self, names: tuple[str, ...]) -> None:
        log.error("no progress", loops=",".join(names))
        self.journal.note("fault", f"no progress: {', '.join(names)}")

    async def _prove_store(self) -> None:
        """The store's threads answer: that is what the watchdog wants to know of it, full disk or not."""
        while True:
            with contextlib.suppress(StoreError):
                await self._store.destination_states()
            self._watchdog.beat("store")
            await asyncio.sleep(_STORE_BEAT_INTERVAL_S)

    async def _light_lamps(self, board: BoardControl) -> None:
        """`alive` while the service runs, `uplink` while every destination is connected."""
        board.light("alive", lit=True)
        try:
            while True:
                board.light(
                    "uplink", lit=all(uplink.state in (CONNECTED, WAITING) for uplink in self.uplinks)
                )
                await asyncio.sleep(_LAMP_INTERVAL_S)
        finally:
            for lamp in ("alive", "uplink"):
                board.light(lamp, lit=False)

    async def _keep_house(self) -> None:
        """Let old readings go, and those for which there is no room; fold the WAL into the file at rest."""
        due_s = self._clock.monotonic() + _RETENTION_INTERVAL_S
        while True:
            await asyncio.sleep(_CHECKPOINT_LOOK_S)
            try:
                await self._store.house.checkpoint_if_idle(_STORE_IDLE_S)
                if self._clock.monotonic() >= due_s:
                    due_s = self._clock.monotonic() + _RETENTION_INTERVAL_S
                    await self._make_room()
            except StoreError as error:
                log.warning("house-keeping of the store failed", reason=str(error))

    async def _make_room(self) -> None:
        settings, house = self._config.store, self._store.house
        removed = 0
        if is_plausible(self._clock.now()):
            removed += await house.purge(timedelta(days=settings.retention_days))
        removed += await house.make_room(settings.most_megabytes * 1_000_000)
        if removed:
            log.info("old readings removed", readings=removed)
            await house.give_back_space()
