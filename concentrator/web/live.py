"""The running service as the page sees it: asked over the control socket, shared by every open page.

One watch asks for all. It asks by itself only while a page is open, and no faster than the service
answers; a page that is loaded asks once. What is known is a snapshot with its age: an answer of a service
that has since stopped is never handed out as the present.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from concentrator.clock import Clock
from concentrator.control import ControlError, ServiceAbsentError, request
from concentrator.tasks import cancel_and_wait
from concentrator.web.visitors import Visitor

_INTERVAL_S = 1.0
_FRESH_S = 1.0
_ANSWER_TIMEOUT_S = 3.0
# Asking may cost the service at most this share of its time, however many meters there are.
_LARGEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of the service. `status` is None unless it is running and answered."""

    state: Literal["running", "absent", "not answering"]
    reason: str
    status: dict[str, Any] | None
    received_at: datetime
    last_answer_at: datetime | None = None


class ServiceWatch:
    """Keeps the snapshot."""

    def __init__(
        self, control_socket: Path, clock: Clock, answer_timeout_s: float = _ANSWER_TIMEOUT_S
    ) -> None:
        self._socket = control_socket
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._snapshot: Snapshot | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._pages = 0
        self._task: asyncio.Task[None] | None = None
        self._cost_s = 0.0

    @property
    def answers(self) -> bool:
        """Whether the service answered when it was last asked."""
        return self._snapshot is not None and self._snapshot.state == "running"

    async def snapshot(self) -> Snapshot:
        """The present state, not older than a second."""
        async with self._asking:
            age_s = self._clock.monotonic() - self._asked_at
            if self._snapshot is None or age_s > _FRESH_S:
                await self._ask()
            return cast("Snapshot", self._snapshot)

    async def question(self, operation: str, visitor: Visitor, target: str = "") -> dict[str, Any] | None:
        """Ask the service something that is not in its status; None when it does not answer, or refuses."""
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                asked = {"op": operation, "target": target, **visitor.credentials}
                return await request(self._socket, asked)
        except (ControlError, OSError, ValueError):
            # TimeoutError is an OSError. The snapshot tells why there is no answer.
            return None

    @asynccontextmanager
    async def page_open(self) -> AsyncGenerator[None]:
        """While at least one page is open, the watch asks by itself."""
        self._pages += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_asking())
        try:
            yield
        finally:
            self._pages -= 1
            if self._pages == 0:
                task, self._task = self._task, None
                await cancel_and_wait(task)

    async def wait(self, timeout_s: float) -> Snapshot:
        """The next snapshot after the present one, or the present one again after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait()
        return await self.snapshot() if self._snapshot is None else self._snapshot

    async def _keep_asking(self) -> None:
        while True:
            async with self._asking:
                await self._ask()
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(max(_INTERVAL_S, self._cost_s / _LARGEST_SHARE))

    async def _ask(self) -> None:
        before = self._snapshot
        last_answer_at = before.last_answer_at if before else None
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                status = await request(self._socket, {"op": "status"})
        except ServiceAbsentError as error:
            found = Snapshot("absent", str(error), None, self._clock.now(), last_answer_at)
        except TimeoutError:
            reason = f"no answer on {self._socket} within {self._answer_timeout_s:g} s"
            found = Snapshot("not answering", reason, None, self._clock.now(), last_answer_at)
        except (ControlError, OSError, ValueError) as error:
            found = Snapshot("not answering", str(error), None, self._clock.now(), last_answer_at)
        else:
            now = self._clock.now()
            found = Snapshot("running", "", status, now, now)
            self._cost_s = self._clock.monotonic() - began
        self._asked_at = self._clock.monotonic()
        self._snapshot = found
