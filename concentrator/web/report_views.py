"""Pages that report: the logs of concentrator and meters, the balance of a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from concentrator.model import IDENTITY_PATTERN, EventSeverity
from concentrator.web import queries
from concentrator.web.live import Snapshot
from concentrator.web.sources import Sources
from concentrator.web.translations import mark
from concentrator.web.views import Asked, Part, View, notices

EVENT_ROWS = 100
OUTAGE_ROWS = 50
LOG_DAYS = (1, 7, 30, 90)
_USUAL_DAYS = 7
_DAY_S = 86_400
SEVERITIES: dict[str, str] = {
    EventSeverity.ALARM: mark("Alarm"),
    EventSeverity.WARNING: mark("Warning"),
    EventSeverity.INFO: mark("Information"),
}
SCALES: dict[str, str] = {
    "meter": mark("one meter"),
    "several meters": mark("several meters"),
    "feeder": mark("feeder"),
}


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of the logs is shown: the parameters of the address, checked; what makes no sense is left out."""

    before: int | None
    meter: str
    severity: str
    days: int

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> LogQuery:
        """Take an address's parameters."""
        before, days = given.get("before", ""), given.get("days", "")
        meter, severity = given.get("meter", "").strip(), given.get("severity", "")
        return cls(
            int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,  # noqa: PLR2004 - 64 bits
            meter if IDENTITY_PATTERN.match(meter) else "",
            severity if severity in SEVERITIES else "",
            int(days) if days in map(str, LOG_DAYS) else _USUAL_DAYS,
        )


def day_of(given: str, today: date) -> date:
    """The day that is asked for, if it is one; else yesterday (UTC), the last that is whole."""
    try:
        asked = date.fromisoformat(given)
    except ValueError:
        asked = today
    return asked if asked < today else today - timedelta(days=1)


class ReportViews:
    """Makes the pages."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def log(self, snapshot: Snapshot, asked: Asked) -> View:
        """What has happened: to the concentrator, at the meters, to the supply."""
        sources, query = self._sources, LogQuery.from_parameters(asked.parameters)
        events, reason = await sources.ask(
            lambda c: queries.events(c, EVENT_ROWS + 1, query.before, query.meter), []
        )
        more = events[EVENT_ROWS - 1].event_id if len(events) > EVENT_ROWS else None
        since = int(sources.clock.now().timestamp()) - query.days * _DAY_S
        told, _reason = await sources.ask(
            lambda c: queries.meter_events(c, EVENT_ROWS, since, query.meter, query.severity), []
        )
        outages, why = await sources.question(snapshot, asked.visitor, "interruptions", {"days": query.days})
        shown = [
            one
            for one in (outages or {}).get("outages", [])
            if not query.meter or query.meter in one["names"]
        ]
        return View(
            "log.html",
            mark("Events"),
            {
                **notices(snapshot, snapshot.status or {}, reason),
                "outages": Part("outages.html", (shown[-OUTAGE_ROWS:][::-1], len(shown), query.days, why)),
                "meter_events": Part("meter_events.html", (told, len(told) >= EVENT_ROWS, query.days, "")),
                "events": Part("events.html", (events[:EVENT_ROWS], more)),
            },
            {"query": query, "severities": SEVERITIES, "log_days": LOG_DAYS},
        )

    async def balance(self, snapshot: Snapshot, asked: Asked) -> View:
        """What went out of the transformer and did not arrive at a meter."""
        today = self._sources.clock.now().astimezone(UTC).date()
        day = day_of(asked.parameters.get("day", ""), today)
        found, reason = await self._sources.question(
            snapshot, asked.visitor, "balance", {"day": day.isoformat()}
        )
        # The drawing of a day by intervals is the JSON's; the page shows what to act on.
        feeders = [
            {name: one.get(name) for name in ("name", "supervisor", "members", "totals", "suspicions")}
            for one in (found or {}).get("feeders", [])
        ]
        return View(
            "balance.html",
            mark("Balance"),
            {
                **notices(snapshot, snapshot.status or {}),
                "balance": Part("balance.html", (day, feeders, reason)),
            },
            {
                "day": day,
                "before": day - timedelta(days=1),
                "after": day + timedelta(days=1) if day + timedelta(days=1) < today else None,
            },
        )

    async def support(self, snapshot: Snapshot, _asked: Asked) -> View:
        """What helps somebody far away, and how a box is saved."""
        return View(
            "support.html",
            mark("Support"),
            {**notices(snapshot, snapshot.status or {})},
            {"service": snapshot.state},
        )
