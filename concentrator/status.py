"""The status of the running service, as the page, the commands and the health topic see it."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.balance_report import BalanceReport
from concentrator.collection.collector import Collector
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
from concentrator.uplink.uplink import Uplink
from concentrator.wmbus.reception import Reception

# Counting what waits in the outbox reads the store: not more often than this, whoever asks.
_OUTBOX_INTERVAL_S = 0.5


def _flash_octets() -> int:
    """What this process had written to disk since it began (getrusage(2) counts blocks of 512 octets)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_oublock * 512


class StatusReporter:
    """Puts the status together from the rooms. `app` sets the links once they are built."""

    def __init__(
        self, config: Config, store: Store, clock: Clock, boot_id: str, collector: Collector
    ) -> None:
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
        meters = [_plc_meter(meter) for meter in self._collector.registry]
        if self.listener is not None:
            meters += [
                {**_record(record), "reception": _reception(self.listener.reception.get(record.identity))}
                for record in self.listener.records.values()
            ]
        for record in self._collector.sub_meters.records.values():
            if self.listener is None or record.identity not in self.listener.records:
                meters.append(_record(record))
        for port in self.local_ports.values():
            meters += [_record(record) for record in port.meters.records.values()]
        return {
            "name": box.name,
            "site": box.site,
            "software": version("open-data-concentrator"),
            "boot_id": self._boot_id,
            "started_at": _iso(self._started_at),
            "modem": self._modem(),
            "radio": self._radio(),
            **{name: self._local_port(one) for name, one in self.local_ports.items()},
            "store": {"unavailable": self._store.unavailable, **self._disk()},
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
        usage = shutil.disk_usage(self._store.path.parent)
        return {
            "disk_free": usage.free,
            "disk_total": usage.total,
            "file_octets": self._store.path.stat().st_size,
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
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


def _record(record: MeterRecord) -> dict[str, Any]:
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
    }


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


def _plc_meter(meter: CollectedMeter) -> dict[str, Any]:
    return {
        **_record(meter.record),
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
