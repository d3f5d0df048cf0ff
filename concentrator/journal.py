"""The concentrator's own event log: what changed its state, and when, for whoever comes later.

Once a second the states of modem, radio, destinations, store and meters are compared with those of a second ago;
what differs is written, all of it in one commit. The log that is read on the box has the details; this one is
kept in the store and shown on the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from concentrator.store.errors import StoreError
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_INTERVAL_S = 1.0
# What is named by its kind and its name: ("meter", "ODC1") or ("modem", "").
Subject = tuple[str, str]
# State and the reason for it, in words.
State = tuple[str, str]


class Journal:
    """Watches states through `look`, which gives those of all subjects as they are now."""

    def __init__(self, store: Store, look: Callable[[], dict[Subject, State]]) -> None:
        self._store = store
        self._look = look
        self._known: dict[Subject, State] = {}
        self._noted: list[tuple[str, str, str]] = []

    def note(self, code: str, detail: str, meter: str = "") -> None:
        """Something happened that is no state: it is written with the next changes."""
        self._noted.append((code, detail, meter))

    async def run(self) -> None:
        """Write changes until cancelled, and the end of the service then."""
        self._known = self._look()
        await self._write([("service_started", "", "")])
        try:
            while True:
                await asyncio.sleep(_INTERVAL_S)
                await self._write(self._changes())
        finally:
            await asyncio.shield(self._write([*self._changes(), ("service_stopped", "", "")]))

    def _changes(self) -> list[tuple[str, str, str]]:
        """Code, detail and meter of everything that changed."""
        seen = self._look()
        changes, self._noted = self._noted, []
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
        return changes

    async def _write(self, changes: list[tuple[str, str, str]]) -> None:
        if not changes:
            return
        try:
            await self._store.add_events(changes)
        except StoreError as error:
            log.warning("events not kept", events=len(changes), reason=str(error))
