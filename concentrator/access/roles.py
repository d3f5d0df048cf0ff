"""The three roles, and what each may order. The service decides by this table; the page leaves out what it refuses."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What somebody on the page may do; each may what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_RANK = {role: rank for rank, role in enumerate(Role)}

# Orders that tell what the box knows already: no meter is spoken with, nothing changes.
_LOOKING = frozenset(
    {
        "balance", "events", "firmware", "firmware_images", "firmware_status", "gaps", "interruptions", "kpi", "meters",
        "order_state", "orders", "tasks", "topology", "upgrade_status",
    }
)  # fmt: skip
# What the field engineer does. Those that change a meter also need `orders.allow_page`.
_WORKING = frozenset(
    {
        "add_task", "browse", "cancel_order", "collect", "diagnostics", "dialogue", "disconnect", "ping", "read",
        "read_billing", "read_limiter", "read_prepayment", "read_switch", "read_tariff", "reconnect", "refresh",
        "remove_task", "run_task", "show_message", "support_bundle", "sync_clock", "traffic",
    }
)  # fmt: skip
# What is not an order: asked for on the control socket under these names.
AUDIT, CONFIGURATION, KEYS, USERS, BACKUP = "audit", "configuration", "keys", "users", "backup"
# What nobody changes who comes with a token instead of a password: it could make itself another, or another box.
BY_PASSWORD_ONLY = frozenset({USERS, BACKUP})
SUPPORT_BUNDLE = "support_bundle"
# What a token of a program begins with: by this anybody sees what was found in a log, and tells it from a session.
PREFIX = "odc_"
# What passes on the lines, and what was said with a meter.
TRAFFIC, DIALOGUE = "traffic", "dialogue"


def needed_role(operation: str) -> Role:
    """The least role that may order something; what the table does not name is the administrator's."""
    if operation in _LOOKING:
        return Role.VIEWER
    return Role.OPERATOR if operation in _WORKING else Role.ADMIN


def permits(role: Role, operation: str) -> bool:
    """Whether a role may order something."""
    return _RANK[role] >= _RANK[needed_role(operation)]


def lesser(one: Role, other: Role) -> Role:
    """The lesser of two roles."""
    return one if _RANK[one] <= _RANK[other] else other
