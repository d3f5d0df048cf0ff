"""What the running service knows of updates of the concentrator itself: the last job, by whomever, and RAUC's slots.

The last job is kept in the store. Who installs tells here: a command on the box over the control socket, a head-end's
Image transfer directly. RAUC is only looked at, every minute and when a job ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import structlog

from concentrator.clock import Clock
from concentrator.errors import LocalError
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from concentrator.update.rauc import InstallOutcome, SystemState, read_system

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

INSTALLING, INSTALLED, FAILED = "installing", "installed", "failed"
_SETTING = "own_update"
_LOOK_S = 60.0
_LONGEST_TEXT = 300
_UNTOLD = "nobody told how it ended: the service was stopped meanwhile"


class UpdateNewsError(LocalError):
    """What is told of an update makes no sense; the text says why."""


@dataclass(slots=True)
class UpdateJob:
    """One installation. `target` is the bundle, `error` RAUC's words where it failed; times are RFC 3339."""

    job: str
    target: str
    begun_by: str
    began_at: str
    state: str = INSTALLING
    progress: int = 0
    step: str = ""
    slot: str = ""
    error: str = ""
    ended_at: str = ""


class OwnUpdates:
    """Keeps the last job. `on_change` is told each change, in the form of the MQTT topic `update`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        note: Callable[[str, str], None],
        on_change: Callable[[dict[str, Any]], None] = lambda _update: None,
    ) -> None:
        self.job: UpdateJob | None = None
        self.system = SystemState(reason="RAUC was not asked yet")
        self._store = store
        self._clock = clock
        self._note = note
        self._on_change = on_change
        self._look = asyncio.Event()

    async def load(self) -> None:
        """Take over the job of an earlier run of the service."""
        text = await self._store.setting(_SETTING)
        if text is None:
            return
        try:
            job = UpdateJob(**json.loads(text))
        except (ValueError, TypeError) as error:
            log.warning("record of the last update not readable", reason=str(error))
            return
        if job.state == INSTALLING:
            # Whoever installs may still tell more of it.
            job.state, job.error, job.ended_at = FAILED, _UNTOLD, self._now()
        self.job = job

    async def run(self) -> None:
        """Look at RAUC until cancelled."""
        while True:
            self._look.clear()
            self.system = await read_system()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    def _now(self) -> str:
        moment: datetime = self._clock.now()
        return moment.isoformat(timespec="seconds")

    async def begin(self, target: str, begun_by: str, job: str = "") -> str:
        """An installation begins; gives its number."""
        number = job or f"update-{secrets.token_hex(4)}"
        self.job = UpdateJob(number, target[:_LONGEST_TEXT], begun_by[:_LONGEST_TEXT], self._now())
        self._note("update", f"installing {target} begun by {begun_by}, job {number}")
        await self._changed()
        return number

    def progressed(self, job: str, percentage: int, step: str) -> None:
        """How far it is."""
        if self.job is None or self.job.job != job:
            return
        if self.job.state != INSTALLING:
            self.job.state, self.job.error, self.job.ended_at = INSTALLING, "", ""
        self.job.progress, self.job.step = max(0, min(percentage, 100)), step[:_LONGEST_TEXT]
        self._tell()

    async def end(self, job: str, outcome: InstallOutcome) -> None:
        """It has ended."""
        await self._end(job, outcome.installed, outcome.slot, f"{outcome.state}: {outcome.message}")

    async def _end(self, job: str, installed: bool, slot: str, words: str) -> None:  # noqa: FBT001 - an outcome
        if self.job is None or self.job.job != job:
            return
        record = self.job
        record.state, record.ended_at, record.slot = (
            (INSTALLED if installed else FAILED),
            self._now(),
            slot[:_LONGEST_TEXT],
        )
        record.error = "" if installed else words[:_LONGEST_TEXT]
        record.progress = 100 if installed else record.progress
        self._note("update", f"{record.target}: {words}")
        await self._changed()
        self._look.set()

    async def told(self, news: Mapping[str, Any]) -> dict[str, Any]:
        """What the command on the box tells over the control socket: `do` is begin, progress or end.

        Raises:
            UpdateNewsError: it makes no sense.
        """
        do, job = _text(news, "do"), _text(news, "job")
        if not job:
            raise UpdateNewsError("update: job: missing; allowed: the number of a job")
        match do:
            case "begin":
                await self.begin(_text(news, "target"), _text(news, "by"), job)
            case "progress":
                progress = news.get("progress")
                self.progressed(job, progress if type(progress) is int else 0, _text(news, "step"))
            case "end":
                await self._end(job, news.get("installed") is True, _text(news, "slot"), _text(news, "words"))
            case _:
                raise UpdateNewsError(f"update: do: got {do[:40]!r}; allowed: begin, progress, end")
        return {}

    async def _changed(self) -> None:
        self._tell()
        if self.job is not None:
            try:
                await self._store.keep_setting(_SETTING, json.dumps(asdict(self.job)))
            except StoreError as error:
                log.warning("record of the update not kept", reason=str(error))

    def _tell(self) -> None:
        if self.job is not None:
            job = self.job
            self._on_change(
                {
                    "job": job.job,
                    "target": job.target,
                    "state": job.state,
                    "progress": job.progress,
                    "error": job.error,
                }
            )

    def view(self) -> dict[str, Any]:
        """The last job and RAUC's state, as JSON values."""
        return {
            "job": None if self.job is None else asdict(self.job),
            "rauc": asdict(self.system),
        }


def _text(news: Mapping[str, Any], name: str) -> str:
    value = news.get(name, "")
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""
