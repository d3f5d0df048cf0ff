"""The same facts as JSON, beside every page; /health for a watchdog and /metrics for Prometheus."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from concentrator.model import IDENTITY_PATTERN
from concentrator.web import queries
from concentrator.web.meters import MeterQuery, MeterView, select
from concentrator.web.metrics import exposition
from concentrator.web.sources import Sources
from concentrator.web.views import EVENT_ROWS, UnknownMeterError

_MOST_ROWS = 5000
_MOST_GAPS = 1000


class Api:
    """The handlers, and where they answer."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.routes = [
            Route("/api/overview", self._overview),
            Route("/api/completeness", self._completeness),
            Route("/api/meters", self._meters),
            Route("/api/meters/{identity}", self._meter),
            Route("/api/events", self._events),
            Route("/api/tasks", self._tasks),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]

    async def _tasks(self, _request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        return _json({"service": snapshot.state, "tasks": (snapshot.status or {}).get("tasks", [])})

    async def _overview(self, _request: Request) -> Response:
        sources = self._sources
        snapshot = await sources.watch.snapshot()
        status: dict[str, Any] = snapshot.status or {}
        store: dict[str, Any] = status.get("store") or {}
        box = sources.config.concentrator
        disk = sources.disk()
        return _json(
            {
                "service": {"state": snapshot.state, "reason": snapshot.reason, "at": snapshot.received_at},
                "name": box.name,
                "site": box.site,
                "software": status.get("software"),
                "started_at": status.get("started_at"),
                "modem": status.get("modem"),
                "radio": status.get("radio"),
                "store": {
                    "unavailable": store.get("unavailable", ""),
                    "file_octets": sources.store_octets(),
                    "disk_free": disk[0] if disk else None,
                    "disk_total": disk[1] if disk else None,
                },
                "destinations": await sources.destinations(snapshot),
                "totals": sources.totals(await sources.meters(snapshot)),
            }
        )

    async def _completeness(self, _request: Request) -> Response:
        matrix, reason = await self._sources.matrix()
        if matrix is None:
            return _json({"error": reason}, 503)
        return _json(
            {
                "days": [day.isoformat() for day in matrix.days],
                "total": matrix.total.cells,
                "meters": {row.meter: row.cells for row in matrix.rows},
            }
        )

    async def _meters(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        query = MeterQuery.from_parameters(request.query_params)
        found = select(await self._sources.meters(snapshot), query, _MOST_ROWS)
        return _json(
            {
                "service": snapshot.state,
                "found": found.found,
                "known": found.known,
                "page": found.page,
                "pages": found.pages,
                "meters": found.rows,
            }
        )

    async def _meter(self, request: Request) -> Response:
        identity = request.path_params["identity"]
        meter = await self._known(identity)
        latest, reason = await self._sources.ask(lambda c: queries.latest_values(c, identity), [])
        gaps, _reason = await self._sources.ask(lambda c: queries.gaps(c, identity, _MOST_GAPS), [])
        return _json({"meter": meter, "latest": latest, "closed_gaps": gaps, "store_error": reason})

    async def _known(self, identity: str) -> MeterView:
        snapshot = await self._sources.watch.snapshot()
        for meter in await self._sources.meters(snapshot):
            if meter.identity == identity and IDENTITY_PATTERN.match(identity):
                return meter
        raise UnknownMeterError(identity)

    async def _events(self, request: Request) -> Response:
        before = request.query_params.get("before", "")
        number = int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None  # noqa: PLR2004 - 64 bits
        events, reason = await self._sources.ask(lambda c: queries.events(c, EVENT_ROWS, number), [])
        return _json({"error": reason}, 503) if reason else _json({"events": events})

    async def _health(self, _request: Request) -> Response:
        """200 while the service answers and can store; 503 with the reasons otherwise."""
        snapshot = await self._sources.watch.snapshot()
        reasons = [snapshot.reason] if snapshot.reason else []
        status: dict[str, Any] = snapshot.status or {}
        store: dict[str, Any] = status.get("store") or {}
        if unavailable := store.get("unavailable"):
            reasons.append(str(unavailable))
        return _json({"healthy": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _metrics(self, _request: Request) -> Response:
        sources = self._sources
        snapshot = await sources.watch.snapshot()
        meters = await sources.meters(snapshot)
        text = exposition(
            snapshot,
            meters,
            sources.totals(meters),
            await sources.destinations(snapshot),
            sources.disk(),
            sources.store_octets(),
            sources.clock.now(),
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Dataclasses and moments as JSON values."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in cast("dict[str, Any]", value).items()}
    return value


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(_plain(value), status)
