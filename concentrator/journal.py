"""The concentrator's own event log: what changed its state, and when, for whoever comes later.

Once a second the states of modem, radio, destinations, store and meters are compared with those of a second ago;
what differs is written, together with what was noted since, all of it in one commit. The log that is read on the box
has the details; this one is kept in the store and shown on the page.

Codes: `boot`, `service_started`, `service_stopped`, `updated`, `fault`, `clock_step`, `access`, `registration`, and
`..._state` of what is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import structlog

from concentrator.clock import Clock, SystemClock, is_plausible
from concentrator.orders import Order
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from plc.network import Event, NodeDeclined, NodeJoined, NodeLeft

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_S = 1.0
# What is named by its kind and its name: ("meter", "ODC1") or ("modem", "").
Subject = tuple[str, str]
# State and the reason for it, in words.
State = tuple[str, str]
Entry = tuple[str, str, str]

# Changes with each start of the machine (Linux, random(4)).
_MACHINE_BOOT = Path("/proc/sys/kernel/random/boot_id")
_BOOT_SETTING, _SOFTWARE_SETTING, _RUNNING_SETTING = "machine_boot", "software", "service_running"
_PACKAGE = "open-data-concentrator"
# A clock that is disciplined moves less in a second; what jumps further was set.
_CLOCK_STEP = timedelta(seconds=2)
# Entries that wait for a store that takes nothing; then the oldest go.
_MOST_NOTED = 5000
# The log is bounded: the oldest entries give way.
_MOST_KEPT = 50_000
_TRIM_EVERY = 1000


def _machine_boot() -> str:
    try:
        return _MACHINE_BOOT.read_text().strip()
    except OSError:
        return ""


class Journal:
    """Watches states through `look`, which gives those of all subjects as they are now; `note()` takes the rest."""

    def __init__(
        self, store: Store, look: Callable[[], dict[Subject, State]], clock: Clock | None = None
    ) -> None:
        self._store = store
        self._look = look
        self._clock = clock or SystemClock()
        self._known: dict[Subject, State] = {}
        self._noted: list[Entry] = []
        self._joined: set[bytes] = set()
        self._clock_ahead_s = 0.0
        self._written = 0

    def note(self, code: str, detail: str, meter: str = "") -> None:
        """Enter something within the next second."""
        self._noted.append((code, detail, meter))
        del self._noted[:-_MOST_NOTED]

    def note_access(self, order: Order, outcome: str) -> None:
        """Enter who had what done; arguments, which may be secret, are left out."""
        self.note(
            "access",
            f"{order.operation}, order {order.order_id} from {order.who}: {outcome}",
            order.target,
        )

    def note_network(self, event: Event) -> None:
        """Enter a node that registered, left or was turned away; nodes that are told again are not."""
        match event:
            case NodeJoined() if event.eui not in self._joined:
                self._joined.add(event.eui)
                self.note("registration", f"node {event.eui.hex()} registered as {event.identity!r}")
            case NodeLeft():
                self._joined.discard(event.eui)
                self.note("registration", f"node {event.eui.hex()} left: {event.reason}")
            case NodeDeclined():
                self.note("registration", f"foreign node {event.eui.hex()} was turned away: {event.reason}")
            case _:
                pass

    async def run(self) -> None:
        """Write changes until cancelled, and the end of the service then."""
        self._known = self._look()
        self._clock_ahead_s = self._ahead_s()
        try:
            await self._write([*await self._beginning(), ("service_started", "", "")])
            while True:
                await asyncio.sleep(_INTERVAL_S)
                self._look_at_clock()
                await self._write(self._changes())
        finally:
            await asyncio.shield(self._end())

    async def _beginning(self) -> list[Entry]:
        """How the service comes to run: after a boot, an update, a crash, or none of these."""
        entries: list[Entry] = []
        boot, software = _machine_boot(), version(_PACKAGE)
        try:
            known_boot = await self._store.setting(_BOOT_SETTING)
            known_software = await self._store.setting(_SOFTWARE_SETTING)
            was_running = await self._store.setting(_RUNNING_SETTING) == "yes"
            for name, value in (
                (_BOOT_SETTING, boot),
                (_SOFTWARE_SETTING, software),
                (_RUNNING_SETTING, "yes"),
            ):
                await self._store.keep_setting(name, value)
        except StoreError as error:
            log.warning("how the service came to run is not known", reason=str(error))
            return entries
        booted = boot != known_boot
        if booted:
            entries.append(("boot", "the machine was started", ""))
        if was_running:
            reason = "power was cut, or the machine crashed" if booted else "it was killed, or crashed"
            entries.append(("fault", f"the service did not stop in order the last time: {reason}", ""))
        if known_software is not None and known_software != software:
            entries.append(("updated", f"software {known_software} → {software}", ""))
        return entries

    async def _end(self) -> None:
        await self._write([*self._changes(), ("service_stopped", "", "")])
        try:
            await self._store.keep_setting(_RUNNING_SETTING, "no")
        except StoreError as error:
            log.warning("the end of the service is not kept", reason=str(error))

    def _ahead_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _look_at_clock(self) -> None:
        ahead_s = self._ahead_s()
        step = timedelta(seconds=ahead_s - self._clock_ahead_s)
        # Slow drift is no step: the comparison goes on from where the clock is now.
        self._clock_ahead_s = ahead_s
        if abs(step) >= _CLOCK_STEP:
            now = self._clock.now()
            first = "" if is_plausible(now - step) else "; it had not been set before"
            self.note("clock_step", f"the clock was set by {step.total_seconds():+.1f} s{first}")

    def _changes(self) -> list[Entry]:
        """Code, detail and meter of everything that changed or was noted."""
        noted, self._noted = self._noted, []
        seen = self._look()
        changes: list[Entry] = []
        for subject, (state, reason) in seen.items():
            kind, name = subject
            before = self._known.get(subject)
            if before is not None and before[0] == state:
                continue
            detail = f"{state}: {reason}" if reason else state
            if before is not None:
                detail = f"{before[0]} → {detail}"
            is_meter = kind == "meter"
            label = "" if is_meter or not name else f"{name}: "
            changes.append((f"{kind}_state", label + detail, name if is_meter else ""))
        self._known = seen
        return noted + changes

    async def _write(self, changes: list[Entry]) -> None:
        if not changes:
            return
        try:
            await self._store.add_events(changes)
            self._written += len(changes)
            if self._written >= _TRIM_EVERY:
                self._written = 0
                await self._store.trim_events(_MOST_KEPT)
        except StoreError as error:
            # They wait for a store that takes them again.
            self._noted = (changes + self._noted)[-_MOST_NOTED:]
            log.warning("events not kept", events=len(changes), reason=str(error))
