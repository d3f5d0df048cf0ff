"""The pages for those who may more than look: orders, configuration, keys, the audit trail."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concentrator.access.roles import USERS, Role
from concentrator.control import ControlError
from concentrator.model import IDENTITY_PATTERN
from concentrator.store import audit
from concentrator.web.live import Snapshot
from concentrator.web.order_desk import WORDS, outcome_words
from concentrator.web.sources import Sources
from concentrator.web.translations import mark
from concentrator.web.views import Asked, Part, View, notices
from concentrator.web.visitors import AccessClient, RefusedError, Visitor

_AUDIT_ROWS = 200
_OPEN_STATES = ("accepted", "running")
_LONGEST_OUTCOME = 400


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One order of any origin."""

    order_id: str
    words: str
    meter: str
    who: str
    state: str
    given_at: datetime
    changed_at: datetime
    outcome: str
    can_be_cancelled: bool


class AccessViews:
    """Makes these pages. What they show comes from the service in the visitor's name, the trail from the store."""

    def __init__(self, sources: Sources, access: AccessClient) -> None:
        self._sources = sources
        self._access = access

    async def orders(self, snapshot: Snapshot, asked: Asked) -> View:
        """All orders that the service remembers, newest first."""
        meter = asked.parameters.get("meter", "")
        meter = meter if IDENTITY_PATTERN.match(meter) else ""
        rows, reason = await self._order_rows(asked.visitor, meter)
        return View(
            "orders_page.html",
            mark("Orders"),
            {
                **notices(snapshot, snapshot.status or {}),
                "all_orders": Part("all_orders.html", (rows, reason, meter)),
            },
        )

    async def _order_rows(self, visitor: Visitor, meter: str) -> tuple[list[OrderRow], str]:
        if not visitor.session:
            return [], mark("Log in to see the orders.")
        order = {"id": f"page-{secrets.token_hex(6)}", "op": "orders"}
        answer, reason = await self._asked(visitor, {"op": "order", "order": order})
        if reason:
            return [], reason
        told: list[dict[str, Any]] = answer["result"]["orders"]
        may_cancel = visitor.may("cancel_order")
        return [_row(one, may_cancel=may_cancel) for one in told if meter in ("", one["target"])], ""

    async def configuration(
        self, snapshot: Snapshot, asked: Asked, edited: dict[str, Any] | None = None
    ) -> View:
        """The file, and what is on trial. `edited` is what a check of another text found."""
        trial, reason = await self._asked(asked.visitor, {"op": "configuration", "do": "state"})
        shown: dict[str, Any] = {}
        if edited is None:
            shown, reason = await self._asked(asked.visitor, {"op": "configuration", "do": "show"})
        return View(
            "configuration.html",
            mark("Configuration"),
            {
                **notices(snapshot, snapshot.status or {}),
                "trial": Part("trial.html", (trial, reason)),
            },
            {
                "text": shown.get("text", ""),
                "digest": shown.get("digest", ""),
                "mistakes": [],
                "difference": [],
                "checked": False,
                "can_be_written": trial.get("can_be_written", False),
                **(edited or {}),
            },
        )

    async def configuration_trial(self, snapshot: Snapshot, asked: Asked) -> View:
        """The configuration as its live stream needs it: without reading the file again and again."""
        return await self.configuration(snapshot, asked, {})

    async def keys(self, snapshot: Snapshot, asked: Asked) -> View:
        """Which meter has which keys; no key."""
        told, reason = await self._asked(asked.visitor, {"op": "keys", "do": "state"})
        rows: list[dict[str, Any]] = told.get("meters", [])
        order = {"wrong": 0, "missing": 1, "waiting": 2, "present": 3}
        rows.sort(key=lambda row: (order.get(row["state"], 4), row["meter"]))
        return View(
            "keys.html",
            mark("Keys"),
            {
                **notices(snapshot, snapshot.status or {}),
                "key_states": Part("key_states.html", (rows, reason)),
            },
            {"mistakes": []},
        )

    async def users(self, snapshot: Snapshot, asked: Asked) -> View:
        """Accounts, and tokens of programs; no password, no token but one that was made just now."""
        users, reason = await self._asked(asked.visitor, {"op": USERS, "do": "list"})
        tokens, _reason = await self._asked(asked.visitor, {"op": USERS, "do": "tokens"})
        return View(
            "users.html",
            mark("Users"),
            {**notices(snapshot, snapshot.status or {})},
            {
                "users": users.get("users", []),
                "tokens": tokens.get("tokens", []),
                "roles": [role.value for role in Role],
                "told": {"one_time_password": "", "token": "", "name": "", "label": ""},
                "mistake": reason,
            },
        )

    async def audit(self, snapshot: Snapshot, asked: Asked) -> View:
        """The newest entries of the trail."""
        meter = asked.parameters.get("meter", "")
        meter = meter if IDENTITY_PATTERN.match(meter) else ""
        entries, reason = await self._sources.ask(lambda c: audit.newest(c, _AUDIT_ROWS, meter), [])
        return View(
            "audit.html",
            mark("Audit trail"),
            {
                **notices(snapshot, snapshot.status or {}, reason),
                "audit": Part("audit.html", (entries, meter)),
            },
        )

    async def _asked(self, visitor: Visitor, asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
        try:
            return await self._access.ask(visitor, asked), ""
        except (ControlError, RefusedError) as error:
            return {}, str(error)


def _row(told: dict[str, Any], *, may_cancel: bool) -> OrderRow:
    outcome = told.get("error") or told.get("result") or ""
    text = outcome if isinstance(outcome, str) else outcome_words(str(told["op"]), outcome)
    return OrderRow(
        told["id"],
        WORDS.get(told["op"]) or str(told["op"]),
        told["target"],
        told["origin"],
        told["state"],
        datetime.fromisoformat(told["given_at"]),
        datetime.fromisoformat(told["changed_at"]),
        text[:_LONGEST_OUTCOME],
        may_cancel and told["state"] in _OPEN_STATES,
    )
