"""The status of the running service, as the page, the commands and the health topic see it."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.balance_report import BalanceReport
from concentrator.collection.collector import Collector
from concentrator.collection.key_states import KeyStates
from concentrator.collection.kpi_keeper import KpiKeeper
from concentrator.collection.mbus_collector import MbusCollector
from concentrator.collection.network_orders import NetworkOrders
from concentrator.collection.p1_collector import P1Collector
from concentrator.collection.radio_listener import RadioListener
from concentrator.collection.registry import CollectedMeter
from concentrator.config import Config
from concentrator.links.plc_link import PlcLink
from concentrator.links.radio_link import RadioLink
from concentrator.model import MeterRecord
from concentrator.store.errors import StoreError
from concentrator.store.outbox import DestinationState
from concentrator.store.store import Store
from concentrator.uplink.messages import timestamp
from concentrator.uplink.uplink import Uplink
from concentrator.wmbus.reception import Reception

# Counting what waits in the outbox reads the store: not more often than this, whoever asks.
_OUTBOX_INTERVAL_S = 0.5
_PROCESSOR_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")


def _flash_octets() -> int:
    """What this process had written to disk since it began (getrusage(2) counts blocks of 512 octets)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * 512


class StatusReporter:
    """Puts the status together from the rooms. `app` sets the links once they are built."""

    def __init__(
        self, config: Config, store: Store, clock: Clock, boot_id: str, collector: Collector
    ) -> None:
        self.keys: KeyStates | None = None
        self.link: PlcLink | None = None
        self.radio: RadioLink | None = None
        self.listener: RadioListener | None = None
        self.local_ports: Mapping[str, MbusCollector | P1Collector] = {}
        self.network_orders: NetworkOrders | None = None
        self.uplinks: Sequence[Uplink] = ()
        self.kpi: KpiKeeper | None = None
        self.balance: BalanceReport | None = None
        self._config = config
        self._store = store
        self._clock = clock
        self._boot_id = boot_id
        self._collector = collector
        self._started_at = clock.now()
        self._destinations: list[DestinationState] = []
        self._read_at = -_OUTBOX_INTERVAL_S
        self._reading = asyncio.Lock()

    async def status(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        await self._read_outbox()
        box = self._config.concentrator
        meters = [self._plc_meter(meter) for meter in self._collector.registry]
        if self.listener is not None:
            meters += [
                {
                    **self._record(record),
                    "reception": _reception(self.listener.reception.get(record.identity)),
                }
                for record in self.listener.records.values()
            ]
        for record in self._collector.sub_meters.records.values():
            if self.listener is None or record.identity not in self.listener.records:
                meters.append(self._record(record))
        for port in self.local_ports.values():
            meters += [self._record(record) for record in port.meters.records.values()]
        return {
            "name": box.name,
            "site": box.site,
            "software": version("open-data-concentrator"),
            "boot_id": self._boot_id,
            "started_at": _iso(self._started_at),
            "modem": self._modem(),
            "radio": self._radio(),
            **{name: self._local_port(one) for name, one in self.local_ports.items()},
            "store": {
                "state": self._store.state,
                "unavailable": self._store.unavailable,
                "checkpoint_blocked": self._store.house.checkpoint_blocked,
                "lost_readings": self._store.house.lost,
                **self._disk(),
            },
            "destinations": [self._destination(state) for state in self._destinations],
            "flash_octets": _flash_octets(),
            "clock": {
                "state": self._collector.time_watch.state.value,
                "steps": self._collector.time_watch.steps,
            },
            "tasks": self._collector.task_progress(),
            "in_flight": {
                "limit": self._collector.in_flight.limit,
                "most": self._collector.in_flight.most,
                "latency_s": self._collector.in_flight.latency_s,
            },
            "totals": self._collector.totals(),
            "availability": self._collector.availability(),
            "kpi": self.kpi.latest if self.kpi is not None else {},
            "balance": self.balance.latest if self.balance is not None else {},
            "meters": meters,
        }

    async def fresh_health(self) -> dict[str, Any]:
        """The numbers of the health topic, with the outbox as it is now."""
        await self._read_outbox()
        return self.health()

    def meter_list(self) -> list[dict[str, Any]]:
        """Every meter in short, as the topic `meters` has it: `lqi` is of the power line, `rssi_dbm` of the air."""
        found = [_listed(meter.record, meter.parent) for meter in self._collector.registry]
        others = [*self._collector.sub_meters.records.values()]
        if self.listener is not None:
            others += self.listener.records.values()
        for port in self.local_ports.values():
            others += port.meters.records.values()
        known = {one["id"] for one in found}
        for record in others:
            if record.identity not in known:
                known.add(record.identity)
                found.append(_listed(record, ""))
        return found

    def health(self) -> dict[str, Any]:
        """The few numbers of the health topic."""
        totals = self._collector.totals()
        unsent = [
            state.oldest_unsent_at for state in self._destinations if state.oldest_unsent_at is not None
        ]
        oldest = (self._clock.now() - min(unsent)).total_seconds() if unsent else 0
        reachable, known = totals["meters_reachable"], totals["meters"]
        return {
            "queue_rows": sum(state.pending_readings for state in self._destinations),
            "oldest_unsent_s": round(oldest),
            "disk_free": self._disk()["disk_free"],
            "cpu_c": _processor_celsius(),
            "meters_total": known
            + (len(self.listener.records) if self.listener else 0)
            + len(self._collector.sub_meters.records)
            + sum(len(port.meters.records) for port in self.local_ports.values()),
            "meters_reachable": reachable,
            "availability_pct": round(100 * reachable / known, 1) if known else None,
        }

    async def _read_outbox(self) -> None:
        async with self._reading:
            now = self._clock.monotonic()
            if now - self._read_at < _OUTBOX_INTERVAL_S:
                return
            try:
                self._destinations = await self._store.destination_states()
            except StoreError:
                return
            self._read_at = now

    def _disk(self) -> dict[str, int]:
        try:
            usage = shutil.disk_usage(self._store.path.parent)
            octets = self._store.path.stat().st_size
        except OSError:
            return {"disk_free": 0, "disk_total": 0, "file_octets": 0}
        return {"disk_free": usage.free, "disk_total": usage.total, "file_octets": octets}

    def _record(self, record: MeterRecord) -> dict[str, Any]:
        return {
            "identity": record.identity,
            "medium": record.medium.value,
            "state": record.state.value,
            "reason": record.reason,
            "link": record.link,
            "link_address": record.link_address,
            "manufacturer": record.manufacturer,
            "model": record.model,
            "serial": record.serial,
            "groups": list(record.registration.groups),
            "installed_at": _iso(record.registration.installed_at),
            "removed_at": _iso(record.registration.removed_at),
            "replaced_by": record.registration.replaced_by,
            "firmware": record.firmware,
            "last_contact": _iso(record.last_contact),
            "clock_offset_s": record.clock_offset_s,
            "signal": record.signal,
            "keys": self.keys.of(record) if self.keys is not None else "",
        }

    def _plc_meter(self, meter: CollectedMeter) -> dict[str, Any]:
        return {
            **self._record(meter.record),
            "reachable": meter.address is not None,
            "address": meter.address,
            "parent": meter.parent,
            "level": meter.level,
            "hops": meter.hops,
            "role": meter.role,
            "expected": meter.expected,
            "stored": meter.stored,
            "closed": meter.closed,
            "activity": meter.activity,
        }

    def _modem(self) -> dict[str, Any] | None:
        if self.link is None:
            return None
        shell = self.link.shell
        return {
            "family": self.link.network.capabilities.family,
            "port": shell.port,
            "state": shell.state,
            "reason": shell.reason,
            "description": self.link.description,
            "counters": dict(self.link.network.counters),
            "network": self.network_orders.state() if self.network_orders is not None else None,
        }

    def _radio(self) -> dict[str, Any] | None:
        if self.radio is None or self.listener is None:
            return None
        shell = self.radio.shell
        return {
            "port": shell.port,
            "state": shell.state,
            "reason": shell.reason,
            "description": self.radio.description,
            "counters": {**self.radio.module.counters, **self.listener.counters},
            "reception": _reception(self.listener.reception[""]),
        }

    @staticmethod
    def _local_port(port: MbusCollector | P1Collector) -> dict[str, Any]:
        return {
            "state": port.state,
            "reason": port.reason,
            "counters": {**port.counters, "stored": port.meters.stored},
        }

    def _destination(self, state: DestinationState) -> dict[str, Any]:
        uplink = next((one for one in self.uplinks if one.feed.destination == state.name), None)
        return {
            "name": state.name,
            "kind": uplink.kind if uplink else "not configured",
            "state": uplink.state if uplink else "not configured",
            "reason": uplink.reason if uplink else "",
            "cursor": state.cursor,
            "pending_batches": state.pending_batches,
            "pending_readings": state.pending_readings,
            "oldest_unsent_at": _iso(state.oldest_unsent_at),
            "acknowledged_at": _iso(state.acknowledged_at),
            "retired_at": _iso(state.retired_at),
        }


def _listed(record: MeterRecord, parent: str) -> dict[str, Any]:
    signal = None if record.signal is None else round(record.signal)
    wireless = record.link == "wmbus"
    return {
        "id": record.identity,
        "medium": record.medium.value,
        "state": record.state.value,
        "last_seen": timestamp(record.last_contact) if record.last_contact else None,
        "parent": parent or None,
        "lqi": None if wireless else signal,
        "rssi_dbm": signal if wireless else None,
    }


def _processor_celsius() -> float | None:
    """Of the processor, where Linux tells it."""
    try:
        return int(_PROCESSOR_TEMPERATURE.read_text()) / 1000
    except (OSError, ValueError):
        return None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _reception(reception: Reception | None) -> dict[str, Any] | None:
    if reception is None:
        return None
    heard_at = reception.last_heard_at
    share = reception.received_share
    return {
        "last_heard": _iso(datetime.fromtimestamp(heard_at, UTC)) if heard_at is not None else None,
        "interval_s": round(reception.interval_s, 1) if reception.interval_s is not None else None,
        "rssi_dbm": round(reception.rssi_dbm, 1) if reception.rssi_dbm is not None else None,
        "received": reception.received,
        "missed": reception.missed,
        "duplicates": reception.duplicates,
        "received_pct": round(100 * share, 1) if share is not None else None,
    }
