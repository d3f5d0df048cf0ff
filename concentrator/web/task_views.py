"""Tasks on the page: the form for a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from concentrator.web.translations import mark

# What a task reads, with the words of the form.
TASK_KINDS: dict[str, str] = {
    "profile": mark("Load profile"),
    "registers": mark("Registers"),
    "billing": mark("Billing values"),
    "events": mark("Event logs"),
    "instantaneous": mark("Voltages, currents, powers"),
    "parameters": mark("Parameters"),
    "status": mark("State"),
}
_TEXTS = ("name", "what", "objects", "meters", "first_run", "period", "window")


def task_arguments(fields: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `add_task` from the fields of the form; the service checks them."""
    arguments: dict[str, Any] = {
        name: fields[name].strip() for name in _TEXTS if fields.get(name, "").strip()
    }
    priority = fields.get("priority", "2")
    arguments["priority"] = int(priority) if priority.isascii() and priority.isdigit() else 2
    for name in ("store", "send", "complete"):
        arguments[name] = name in fields
    return arguments
