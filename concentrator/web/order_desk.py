"""Orders that were given on the page: sent over the control socket, and their results kept a while."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import structlog

from concentrator.clock import Clock
from concentrator.control import ControlError, request
from concentrator.errors import LocalError
from concentrator.web.translations import mark
from concentrator.web.visitors import Visitor

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# What the page may ask of a meter, with the words of its button.
OPERATIONS: dict[str, str] = {
    "collect": mark("Read now"),
    "ping": mark("Ping"),
    "read_switch": mark("Read switch"),
}
# What changes one: by the rules of `orders.allow_page` too; those of the switch are confirmed by the meter's identity.
CHANGES: dict[str, str] = {"sync_clock": mark("Set clock")}
CONFIRMED: dict[str, str] = {"disconnect": mark("Disconnect"), "reconnect": mark("Reconnect")}
TASK_OPERATIONS: dict[str, str] = {
    "run_task": mark("Run now"),
    "add_task": mark("Add"),
    "remove_task": mark("Remove"),
}
FIRMWARE_OPERATIONS: dict[str, str] = {
    "firmware_start": mark("Start campaign"),
    "firmware_pause": mark("Pause campaign"),
    "firmware_resume": mark("Resume campaign"),
    "firmware_abort": mark("Abort campaign"),
}
# Of these what takes `orders.allow_page` too.
FIRMWARE_CHANGES = ("firmware_start", "firmware_resume")
# Under which orders on tasks and firmware are listed: no meter has such a name.
TASKS, FIRMWARE = "/tasks", "/firmware"
WORDS = {
    **OPERATIONS,
    **CHANGES,
    **CONFIRMED,
    **TASK_OPERATIONS,
    **FIRMWARE_OPERATIONS,
    "cancel_order": mark("Cancel"),
}
MOST_WAITING = 8
_KEPT = 50
_TIMEOUT_S = 330.0


class DeskFullError(LocalError):
    """Too many orders wait already."""


@dataclass(slots=True)
class GivenOrder:
    """One order and what came of it."""

    order_id: str
    operation: str
    target: str
    given_at: datetime
    arguments: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    state: str = "waiting"
    outcome: str = ""
    done_at: datetime | None = None

    @property
    def data(self) -> tuple[Any, ...]:
        """What is shown, for telling whether it has changed."""
        return (
            self.order_id,
            WORDS[self.operation],
            str(self.arguments.get("name", "")),
            self.given_at,
            self.state,
            self.outcome,
            self.done_at,
        )


class OrderDesk:
    """Keeps the orders of this run of the page."""

    def __init__(self, control_socket: Path, clock: Clock) -> None:
        self._socket = control_socket
        self._clock = clock
        self._orders: deque[GivenOrder] = deque(maxlen=_KEPT)
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, target: str) -> list[GivenOrder]:
        """The orders for one meter, newest first."""
        return [order for order in reversed(self._orders) if order.target == target][:5]

    def give(
        self, visitor: Visitor, operation: str, target: str, arguments: dict[str, Any] | None = None
    ) -> GivenOrder:
        """Send an order on its way in the name of somebody; its state follows.

        Raises:
            DeskFullError: too many wait already.
        """
        if len(self._tasks) >= MOST_WAITING:
            raise DeskFullError(f"{MOST_WAITING} orders wait already; wait until one is done")
        order = GivenOrder(
            f"page-{secrets.token_hex(6)}", operation, target, self._clock.now(), arguments or {}
        )
        self._orders.append(order)
        task = asyncio.create_task(self._carry_out(order, visitor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        log.info("order given on the page", order=order.order_id, op=operation, meter=target, by=visitor.name)
        return order

    async def _carry_out(self, order: GivenOrder, visitor: Visitor) -> None:
        # Those that are of no meter are listed under an address of the page.
        target = "" if order.target.startswith("/") else order.target
        payload = {"id": order.order_id, "op": order.operation, "target": target, "args": order.arguments}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await request(
                    self._socket,
                    {
                        "op": "order",
                        "order": payload,
                        "session": visitor.session,
                        "address": visitor.address,
                    },
                )
        except TimeoutError:
            order.state, order.outcome = "failed", mark("no answer from the service")
        except (ControlError, OSError, ValueError) as error:
            order.state, order.outcome = "failed", str(error)
        else:
            order.state, order.outcome = "done", outcome_words(order.operation, answer.get("result"))
        order.done_at = self._clock.now()

    async def close(self) -> None:
        """Forget what waits."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def outcome_words(operation: str, result: object) -> str:
    """What an order gave, for people; as JSON where there are no words for it."""
    if operation == "collect":
        return mark("The meter is next in line; what it owes appears above as it comes.")
    if operation in TASK_OPERATIONS:
        return ""
    if operation in FIRMWARE_OPERATIONS:
        # Who is left out, and why, in the service's words.
        left_out: object = (
            cast("dict[str, object]", result).get("left_out_reasons") if isinstance(result, dict) else None
        )
        return json.dumps(left_out, ensure_ascii=False)[:500] if left_out else ""
    told = cast("dict[str, Any]", result) if isinstance(result, dict) else {}
    if operation == "ping" and "value" in told:
        return f"it answers; its clock shows {told['value']}"
    switch = told if operation == "read_switch" else told.get("after")
    if isinstance(switch, dict) and "control_state" in switch and told.get("outcome", "done") == "done":
        found = cast("dict[str, Any]", switch)
        state = str(found["control_state"]).replace("_", " ")
        on = found.get("output_state")
        return (
            f"the switch is {state}, the supply is on" if on else f"the switch is {state}, the supply is off"
        )
    return json.dumps(result, ensure_ascii=False)[:500]
