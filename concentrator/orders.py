"""Orders from outside (the head-end, the page, a command line), in one form wherever they come from."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from concentrator.errors import LocalError

# Where an order was given: by somebody who may do anything on the box, by its page, or by the head-end.
LOCAL = "the concentrator itself"
PAGE = "the page"
MQTT = "MQTT"

_IDENTITY = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def _no_arguments() -> dict[str, Any]:
    return {}


class OrderError(LocalError):
    """An order that cannot be carried out as given; the text says why."""


class OrderRefusedError(OrderError):
    """An order that was not even taken: its id is another's, or too many are under way."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done (`operation`), to which meter or "" for the box itself, and who gave it.

    It is carried out neither before `not_before` nor after `not_after`, and those of priority 1 before 2 and 3. With
    `deferred` nobody waits for the result: it is kept, and told by `order_state`. `given_by` is who was logged in on
    the page: name, role and address.
    """

    order_id: str
    operation: str
    target: str = ""
    arguments: dict[str, Any] = field(default_factory=_no_arguments)
    not_after: datetime | None = None
    origin: str = LOCAL
    not_before: datetime | None = None
    priority: int = 2
    deferred: bool = False
    given_by: str = ""

    @property
    def who(self) -> str:
        """Where it comes from and who gave it, for the audit trail."""
        return f"{self.origin}, {self.given_by}" if self.given_by else self.origin

    @classmethod
    def from_payload(cls, payload: object, origin: str) -> Order:
        """Check a decoded JSON order: id, op, target, args, not_before, not_after, priority and deferred.

        Raises:
            OrderError: something is missing or has the wrong form.
        """
        if not isinstance(payload, dict):
            raise OrderError("an order is a JSON object with id, op and target")
        fields = cast("dict[str, Any]", payload)
        order_id, operation = fields.get("id"), fields.get("op")
        target, arguments = fields.get("target", ""), fields.get("args", {})
        if not isinstance(order_id, str) or not _IDENTITY.match(order_id):
            raise OrderError(f"order: id: got {order_id!r}; allowed: 1 to 64 letters, digits, _ or -")
        if not isinstance(operation, str):
            raise OrderError(f"order {order_id}: op: got {operation!r}; allowed: text")
        if not isinstance(target, str) or (target and not _IDENTITY.match(target)):
            raise OrderError(f"order {order_id}: target: got {target!r}; allowed: a meter's identity")
        if not isinstance(arguments, dict):
            raise OrderError(f"order {order_id}: args: got {arguments!r}; allowed: a JSON object")
        priority, deferred = fields.get("priority", 2), fields.get("deferred", False)
        if type(priority) is not int or priority not in (1, 2, 3):
            raise OrderError(f"order {order_id}: priority: got {priority!r}; allowed: 1, 2 or 3")
        if not isinstance(deferred, bool):
            raise OrderError(f"order {order_id}: deferred: got {deferred!r}; allowed: true or false")
        not_before = _moment(order_id, "not_before", fields.get("not_before"))
        not_after = _moment(order_id, "not_after", fields.get("not_after"))
        if not_before is not None and not_after is not None and not_after <= not_before:
            raise OrderError(f"order {order_id}: not_after: is not after not_before")
        return cls(
            order_id,
            operation,
            target,
            cast("dict[str, Any]", arguments),
            not_after,
            origin,
            not_before,
            priority,
            deferred,
        )

    def payload(self) -> dict[str, Any]:
        """The order as `from_payload` takes it."""
        return {
            "id": self.order_id,
            "op": self.operation,
            "target": self.target,
            "args": self.arguments,
            "not_before": self.not_before.isoformat() if self.not_before else None,
            "not_after": self.not_after.isoformat() if self.not_after else None,
            "priority": self.priority,
            "deferred": self.deferred,
        }


def _moment(order_id: str, name: str, given: object) -> datetime | None:
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise OrderError(f"order {order_id}: {name}: got {given!r}; allowed: an RFC 3339 time with its zone")
    return moment


# Carries an order out and returns its result; raises a ConcentratorError that says why it could not.
OrderHandler = Callable[[Order], Awaitable[dict[str, Any]]]
