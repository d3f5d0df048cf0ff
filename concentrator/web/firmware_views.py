"""The page about firmware: the concentrator's own, campaigns that bring one to meters, and what meters have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from concentrator.store import firmware as firmware_tables
from concentrator.web.live import Snapshot
from concentrator.web.meters import MeterView
from concentrator.web.order_desk import FIRMWARE, OrderDesk
from concentrator.web.sources import Sources
from concentrator.web.translations import mark
from concentrator.web.views import Asked, Part, View, notices
from concentrator.web.visitors import Visitor
from concentrator.web.words import StateWords, Tone

MOST_ROWS = 200
_PACKAGE = "open-data-concentrator"

CAMPAIGN_STATES: dict[str, tuple[Tone, str]] = {
    "running": ("busy", mark("running")),
    "paused": ("warn", mark("paused")),
    "aborted": ("off", mark("aborted")),
    "finished": ("good", mark("finished")),
}
# In the order in which they are of interest.
METER_STAGES: dict[str, StateWords] = {
    "failed": StateWords("bad", mark("failed"), mark("The reason is beside it.")),
    "activating": StateWords("busy", mark("activating"), mark("Was told to use the image, and is asked.")),
    "verifying": StateWords("busy", mark("verifying"), mark("Checks the image.")),
    "verified": StateWords("busy", mark("verified"), mark("Has found the image good.")),
    "transferring": StateWords("busy", mark("transferring"), mark("Is being given blocks.")),
    "waiting_for_activation": StateWords(
        "busy", mark("waiting for activation"), mark("Has the image, and its time has not come.")
    ),
    "waiting": StateWords("off", mark("waiting"), mark("Nothing was sent yet.")),
    "aborted": StateWords("off", mark("aborted"), mark("The campaign was ended before it was done.")),
    "done": StateWords("good", mark("done"), mark("Runs the new version.")),
}
UPDATE_STATES: dict[str, tuple[Tone, str]] = {
    "installing": ("busy", mark("installing")),
    "installed": ("good", mark("installed")),
    "failed": ("bad", mark("failed")),
}
SLOT_STATES: dict[str, str] = {
    "booted": mark("running"),
    "active": mark("mounted"),
    "inactive": mark("not running"),
}
# What the service tells of an update in words of its own.
UPDATE_WORDS = (
    mark("concentrator update install, on the box"),
    mark("a head-end, by DLMS image transfer"),
    mark("nobody told how it ended: the service was stopped meanwhile"),
)
_PLACES = {stage: place for place, stage in enumerate(METER_STAGES)}


@dataclass(frozen=True, slots=True)
class FirmwareCount:
    """How many meters have one firmware."""

    manufacturer: str
    model: str
    firmware: str
    meters: int


def firmware_counts(meters: Iterable[MeterView]) -> list[FirmwareCount]:
    """The firmware of all meters, the most frequent of each model first."""
    counts = Counter((meter.manufacturer, meter.model, meter.firmware) for meter in meters)
    rows = [FirmwareCount(*names, count) for names, count in counts.items()]
    return sorted(rows, key=lambda row: (row.manufacturer, row.model, -row.meters, row.firmware))


class FirmwareViews:
    """Makes the page, and what its JSON shows."""

    def __init__(self, sources: Sources, desk: OrderDesk) -> None:
        self._sources = sources
        self._desk = desk

    async def firmware(self, snapshot: Snapshot, asked: Asked) -> View:
        """Which software runs where, and how far updates are."""
        facts = await self.facts(snapshot, asked.visitor)
        campaigns: list[dict[str, Any]] = facts["campaigns"]
        wanted = asked.parameters.get("campaign", "")
        shown = next((one for one in campaigns if one["name"] == wanted), campaigns[0] if campaigns else None)
        images, why_no_images = await self.images(snapshot, asked.visitor)
        running: str = facts["running"] or ""
        return View(
            "firmware.html",
            mark("Firmware"),
            {
                **notices(snapshot, snapshot.status or {}),
                "own_firmware": Part(
                    "own_firmware.html", (running, facts["installed"], facts["job"], facts["rauc"])
                ),
                "campaigns": Part(
                    "campaigns.html",
                    ([_without_meters(one) for one in campaigns], _shown(shown), snapshot.state),
                ),
                "orders": Part("orders.html", [order.data for order in self._desk.of(FIRMWARE)]),
                "images": Part("images.html", (images, why_no_images)),
                "upgrade": Part("upgrade.html", (facts["upgrade"], facts["upgrade_reason"])),
                "firmware": Part("firmware_counts.html", facts["meters"]),
            },
            {
                "pausable": [one["name"] for one in campaigns if one["state"] == "running"],
                "resumable": [one["name"] for one in campaigns if one["state"] == "paused"],
                "usable_images": [one for one in images if not one["reason"]],
            },
        )

    async def images(self, snapshot: Snapshot, visitor: Visitor) -> tuple[list[dict[str, Any]], str]:
        """The images on the box, and "" or why they are not known."""
        found, reason = await self._sources.question(snapshot, visitor, "firmware_images")
        return (found or {}).get("images", []), reason

    async def facts(self, snapshot: Snapshot, visitor: Visitor) -> dict[str, Any]:
        """All but the images: from the service, or where it does not run what the store has."""
        status: dict[str, Any] = snapshot.status or {}
        told = (
            await self._sources.watch.question("firmware", visitor) if snapshot.status is not None else None
        )
        if told is None:
            campaigns, _reason = await self._sources.ask(_stored_campaigns, [])
            told = {"job": None, "rauc": None, "campaigns": campaigns}
        upgrade, reason = None, ""
        if status.get("modem"):
            upgrade, reason = await self._sources.question(snapshot, visitor, "upgrade_status")
        return {
            "running": status.get("software"),
            "installed": version(_PACKAGE),
            "job": told["job"],
            "rauc": told["rauc"],
            "campaigns": told["campaigns"],
            "meters": firmware_counts(await self._sources.meters(snapshot)),
            "upgrade": upgrade,
            "upgrade_reason": reason,
        }


def _without_meters(campaign: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in campaign.items() if name != "meters"}


def _shown(campaign: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One campaign with the meters that are of most interest."""
    if campaign is None:
        return None
    meters: list[dict[str, Any]] = campaign["meters"]
    ordered = sorted(
        meters,
        key=lambda one: (not one["under_way"], _PLACES.get(one["state"], len(_PLACES)), one["meter"]),
    )
    return {**campaign, "meters": ordered[:MOST_ROWS], "more": max(0, len(meters) - MOST_ROWS)}


def _stored_campaigns(connection: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as Sources.ask has it
    """What the store has of campaigns, newest first, in the form of the service."""
    rows = firmware_tables.meters_of(connection)
    found: list[dict[str, Any]] = []
    for row in reversed(firmware_tables.campaigns(connection)):
        try:
            plan: dict[str, Any] = json.loads(row.definition)
            manifest: dict[str, Any] = plan["manifest"]
        except (ValueError, KeyError, TypeError):
            continue
        meters = [
            {
                "meter": one.meter,
                "state": one.state,
                "blocks_done": one.blocks_done,
                "blocks": one.blocks,
                "tries": one.tries,
                "next_try_at": None,
                "changed_at": _iso(one.changed_at),
                "from_version": one.from_version,
                "reason": one.reason,
                "under_way": False,
            }
            for one in rows
            if one.campaign == row.name
        ]
        counts = Counter(one["state"] for one in meters)
        told = ("not_before", "not_after", "activate_from", "hours", "at_once", "first", "failure_limit")
        found.append(
            {
                "name": row.name,
                "state": row.state,
                "reason": row.reason,
                "image": plan.get("image", ""),
                **{
                    name: manifest.get(name)
                    for name in ("manufacturer", "model", "to_version", "size", "sha256")
                },
                "from_versions": list(manifest.get("from_versions", [])),
                "meters_selected": str(plan.get("meters", ""))[:MOST_ROWS],
                **{name: plan.get(name) for name in told},
                "started_at": _iso(row.started_at),
                "started_by": plan.get("started_by", ""),
                "changed_at": _iso(row.changed_at),
                "total": len(meters),
                "counts": {stage: counts[stage] for stage in METER_STAGES},
                "meters": meters,
            }
        )
    return found


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
