"""DLMS towards head-ends, put together: the listener with all that its objects show and do, and the pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfo

from concentrator.clock import Clock
from concentrator.collection.gateway_desk import GatewayDesk
from concentrator.config import Config, DlmsSection, PushSection
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.journal import Journal
from concentrator.obis import Obis
from concentrator.orders import Order
from concentrator.store.audit import AuditEntry
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.update.own_updates import OwnUpdates
from concentrator.update.rauc import InstallOutcome, InstallState, inspect_bundle, install_bundle
from concentrator.uplink.dlms_devices import DlmsDevices
from concentrator.uplink.dlms_listener import DlmsListener
from concentrator.uplink.head_ends import HeadEnds
from concentrator.uplink.live_reading import LiveReadings
from concentrator.uplink.management_device import BoxFaults, BoxState, LinkState, management_objects
from concentrator.uplink.push import PushUplink
from concentrator.uplink.push_calendar import PushCalendar
from concentrator.uplink.push_objects import push_setup_objects
from concentrator.uplink.push_protection import load_push_protection
from concentrator.uplink.shared_counter import SharedCounter
from concentrator.uplink.update_image import ImageVerdict, UpdateImage
from concentrator.uplink.uplink import CONNECTED, Uplink

Result = TypeVar("Result")

_COUNTER = "head-ends"
_AUDIT_TIMEOUT_S = 10.0
_MIB = 1024 * 1024
# Bits of error and alarm register: docs/uplink.md has them.
_STORE_UNAVAILABLE, _CLOCK_UNSYNCHRONISED = 1, 2
_MODEM_DOWN, _RADIO_DOWN, _DESTINATION_DOWN, _LOCAL_PORT_DOWN = 1, 2, 4, 8


class Box(Protocol):
    """What is asked of the rest of the service."""

    def health(self) -> dict[str, Any]:
        """The numbers of the health topic."""
        ...

    def links(self) -> Sequence[LinkState]:
        """The ways to meters."""
        ...

    def synchronised(self) -> bool:
        """Whether the clock follows NTP."""
        ...

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Carry out an order."""
        ...


class DlmsUpstream:
    """Pushes from the start; a listener where the configuration has one."""

    def __init__(
        self, config: Config, store: Store, clock: Clock, journal: Journal, updates: OwnUpdates
    ) -> None:
        """Build the push uplinks.

        Raises:
            HeadEndFileError: a key file of a push destination cannot be used.
        """
        self._config = config
        self._store = store
        self._clock = clock
        self._journal = journal
        self._updates = updates
        self._counter = SharedCounter(store.invocation_counter(_COUNTER))
        self._title = bytes.fromhex(config.collection.system_title)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.pushes = [self._push(one) for one in config.push]

    def _push(self, settings: PushSection) -> PushUplink:
        zone = ZoneInfo(self._config.collection.time_zone)
        return PushUplink(
            settings,
            self._store,
            self._clock,
            PushCalendar.from_words(zone, settings.when, settings.every_s, settings.at, settings.windows),
            load_push_protection(
                Path(settings.key_file) if settings.key_file else None, self._title, self._counter
            ),
            self._store.invocation_counter(f"push-invoke-id:{settings.name}").next,
        )

    def make_listener(
        self, settings: DlmsSection, box: Box, uplinks: Sequence[Uplink], desk: GatewayDesk | None
    ) -> DlmsListener:
        """The listener for head-ends; within the event loop.

        Raises:
            HeadEndFileError: the file of head-ends cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        head_ends = HeadEnds(
            Path(settings.key_file) if settings.key_file else None, self._title, self._clock.now
        )
        head_ends.on_change = self._changed
        live = LiveReadings(box.carry_out, self._submit, self._clock.now)
        image = UpdateImage(
            self._config.state_directory / "update_image",
            settings.largest_image_mib * _MIB,
            _inspect,
            self._install,
            self._submit,
            self._note,
        )
        profile = Obis.parse(self._config.collection.profile)

        def more() -> list[CosemObject]:
            return [*push_setup_objects(self.pushes, profile, self._call), image.cosem_object()]

        def head_end_counts() -> Mapping[str, int]:
            return {"connections": listener.connections, **listener.counters, **devices.counters}

        state = BoxState(
            self._clock.now,
            version("open-data-concentrator"),
            box.health,
            box.links,
            lambda: {one.feed.destination: one.state for one in uplinks},
            head_end_counts,
            lambda: self._faults(box, uplinks),
            box.synchronised,
            more,
        )
        devices = DlmsDevices(
            self._store.path,
            head_ends,
            self._title,
            self._counter,
            lambda stored: management_objects(self._config, stored, state),
            self._clock.monotonic,
            self._note,
            live.objects,
        )
        live.client = lambda: devices.current_client
        listener = DlmsListener(
            settings,
            devices,
            desk.route if desk is not None else None,
            desk.close if desk is not None else None,
        )
        return listener

    def _faults(self, box: Box, uplinks: Sequence[Uplink]) -> BoxFaults:
        errors = (_STORE_UNAVAILABLE if self._store.unavailable else 0) | (
            0 if box.synchronised() else _CLOCK_UNSYNCHRONISED
        )
        bits = {"modem": _MODEM_DOWN, "radio": _RADIO_DOWN}
        alarms = 0
        for link in box.links():
            if link.state != "running":
                alarms |= bits.get(link.name, _LOCAL_PORT_DOWN)
        if any(one.state not in (CONNECTED, "waiting") for one in uplinks):
            alarms |= _DESTINATION_DOWN
        return BoxFaults(errors, alarms)

    # From the thread of the head-ends to the event loop

    def _submit(self, work: Awaitable[Result]) -> Future[Result]:
        async def run() -> Result:
            return await work

        assert self._loop is not None  # noqa: S101 - there is no listener without it
        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None  # noqa: S101 - there is no listener without it
        self._loop.call_soon_threadsafe(function)

    async def _install(self, bundle: Path) -> ImageVerdict:
        updates = self._updates
        job = await updates.begin(bundle.name, "a head-end, by DLMS image transfer")
        outcome = await install_bundle(
            bundle, progress=lambda percentage, step: updates.progressed(job, percentage, step)
        )
        await updates.end(job, outcome)
        return _verdict(outcome)

    def _note(self, code: str, words: str) -> None:
        self._call(lambda: self._journal.note(code, words))

    def _changed(self, client_sap: int, what: str) -> None:
        """A head-end has changed its keys, secret or security setup: in the audit trail before it is answered."""
        self._note("head_end", f"client {client_sap} changed its {what}")
        entry = _audit_entry(client_sap, what, self._clock.now())
        try:
            self._submit(self._store.add_audit_entry(entry)).result(_AUDIT_TIMEOUT_S)
        except (StoreError, TimeoutError) as error:
            self._note("fault", f"the audit trail lacks a change by client {client_sap}: {error}")


def _audit_entry(client_sap: int, what: str, now: datetime) -> AuditEntry:
    return AuditEntry(
        f"head-end-{client_sap}",
        f"change {what}",
        "",
        f"head-end, client {client_sap}",
        now,
        state="done",
        completed_at=now,
    )


async def _inspect(bundle: Path) -> ImageVerdict:
    return _verdict(await inspect_bundle(bundle))


def _verdict(outcome: InstallOutcome) -> ImageVerdict:
    return ImageVerdict(
        outcome.installed,
        f"{outcome.state}: {outcome.message}",
        outcome.state is InstallState.BUSY,
        outcome.message if outcome.installed else "",
    )
