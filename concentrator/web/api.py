"""The same facts as JSON, beside every page; /health for a watchdog and /metrics for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from concentrator.model import IDENTITY_PATTERN
from concentrator.store.errors import StoreError
from concentrator.web import attention, profile_chart, queries
from concentrator.web.attention import ToldConcern
from concentrator.web.completeness import Cell
from concentrator.web.export import ENDINGS, FORMATS, ExportError, ExportQuery, Piece, make_writer, pieces
from concentrator.web.firmware_views import FirmwareCount, FirmwareViews
from concentrator.web.gate import visitor_of
from concentrator.web.json_answers import json_answer
from concentrator.web.meters import SORTS, SPECIAL_STATES, MeterQuery, MeterView, as_csv, select
from concentrator.web.metrics import exposition
from concentrator.web.network_views import NetworkViews
from concentrator.web.openapi import (
    ANYTHING,
    MOMENT,
    NUMBER,
    TEXT,
    WHOLE,
    BodyError,
    Endpoint,
    Parameter,
    Schema,
    described,
    description,
    fields,
    items,
    or_null,
)
from concentrator.web.report_views import (
    EVENT_ROWS,
    LOG_DAYS,
    SEVERITIES,
    LogQuery,
    day_of,
)
from concentrator.web.security import Forms
from concentrator.web.sources import DestinationView, Sources, Totals
from concentrator.web.topology import Place
from concentrator.web.views import UnknownMeterError
from concentrator.web.words import KEY_STATES

_MOST_ROWS = 5000
_MOST_GAPS = 1000
_MOST_EXPORTS = 2


class _Export(StreamingResponse):
    """An export that tells when it is over, also when whoever asked went away before its first octet."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        over: Callable[[], None],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


class Api:
    """The handlers, and where they answer."""

    def __init__(  # noqa: PLR0913 - where the facts come from, once
        self,
        sources: Sources,
        network: NetworkViews,
        firmware: FirmwareViews,
        forms: Forms,
        more: Sequence[Endpoint] = (),
    ) -> None:
        self._sources = sources
        self._network = network
        self._firmware_views = firmware
        self._exports = 0
        self._forms = forms
        self.endpoints = (*self._endpoints(), *more)
        self.routes = [
            *(Route(one.path, self._guarded(one), methods=[one.method]) for one in self.endpoints),
            Route("/metrics", self._metrics),
        ]

    def _guarded(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        """What an address answers to those who may not, and to what is no JSON."""

        async def answer(request: Request) -> Response:
            visitor = visitor_of(request)
            if endpoint.needs and visitor.role is None:
                # With `web.open_view` the gate lets everybody look.
                return json_answer(
                    {"error": "log in first, or send a token"}, 401, {"WWW-Authenticate": "Bearer"}
                )
            if endpoint.needs and visitor.remembered:
                reason = "the collecting service does not answer; what needs a role cannot be done meanwhile"
                return json_answer({"error": reason}, 503, {"Retry-After": "5"})
            if endpoint.needs and not visitor.may(endpoint.needs):
                return json_answer({"error": f"not for the role {visitor.role}"}, 403)
            if endpoint.method != "GET" and not visitor.by_token:
                # A browser sends the cookie by itself: what came has to be from a page of this session.
                sent = request.headers.get("x-form-token", "")
                if refusal := self._forms.refusal(request.headers, visitor, sent):
                    return json_answer({"error": refusal}, 403)
            try:
                return await endpoint.handler(request)
            except BodyError as error:
                return json_answer({"error": str(error)}, error.status)

        return answer

    def _endpoints(self) -> tuple[Endpoint, ...]:
        """Every JSON address; the description at /api/openapi.json is made from this."""
        no_store = {503: "The store cannot be read; the text says why."}
        not_told = {503: "The collecting service does not run, or cannot tell; the text says why."}
        meter = Parameter("meter", "Only of this meter.")
        service = fields(state=TEXT, reason=TEXT, at=MOMENT)
        store = fields(
            unavailable=TEXT, file_octets=WHOLE, disk_free=or_null(WHOLE), disk_total=or_null(WHOLE)
        )
        overview = fields(
            service=service,
            name=TEXT,
            site=TEXT,
            software=or_null(TEXT),
            started_at=or_null(MOMENT),
            modem=or_null(ANYTHING),
            radio=or_null(ANYTHING),
            store=store,
            destinations=items(described(DestinationView)),
            totals=described(Totals),
            attention=items(described(ToldConcern)),
        )
        cells = items(described(Cell))
        by_meter: Schema = {"type": "object", "additionalProperties": cells}
        filters = (
            Parameter("q", "Words that identity, address, manufacturer, model, firmware or reason contain."),
            Parameter("state", f"A state, or one of {', '.join(SPECIAL_STATES)}."),
            Parameter("medium", "A medium."),
            Parameter("keys", f"How they stand with their keys: {', '.join(KEY_STATES)}."),
            Parameter("below", "The EUI of a node: it, and all that hangs under it."),
            Parameter("sort", f"What to sort by, backwards with a minus sign before it: {', '.join(SORTS)}."),
            Parameter("page", f"The page, of {_MOST_ROWS} meters each."),
        )
        meters = fields(
            service=TEXT,
            found=WHOLE,
            known=WHOLE,
            page=WHOLE,
            pages=WHOLE,
            meters=items(described(MeterView)),
        )
        one_meter = fields(
            meter=described(MeterView),
            latest=items(described(queries.LatestValue)),
            closed_gaps=items(described(queries.Gap)),
            store_error=TEXT,
        )
        chart_parameters = (
            Parameter("identity", "What the meter is called.", place="path"),
            Parameter("channel", "The number of a channel, as in the meter's latest values."),
            Parameter("days", f"How many days, up to {profile_chart.MOST_DAYS}."),
            Parameter("day", "The last of them; today by default.", {"type": "string", "format": "date"}),
        )
        days: Schema = {"enum": [str(number) for number in LOG_DAYS]}
        export_parameters = (
            Parameter("format", "CSV, JSON lines, or IEC 61968-9 MeterReadings.", {"enum": list(FORMATS)}),
            Parameter("from", "Captured from then on: an RFC 3339 time or a date.", MOMENT),
            Parameter("to", "Captured up to then, itself included; now by default.", MOMENT),
            meter,
        )
        return (
            Endpoint(
                "/api/overview",
                self._overview,
                "Service, destinations, totals, and what needs a person.",
                overview,
            ),
            Endpoint(
                "/api/completeness",
                self._completeness,
                "How much of the load profile is stored, by meter and day.",
                fields(days=items({"type": "string", "format": "date"}), total=cells, meters=by_meter),
                errors=no_store,
            ),
            Endpoint("/api/meters", self._meters, "The meters.", meters, filters),
            Endpoint(
                "/api/meters.csv",
                self._meters_csv,
                "The meters as CSV.",
                TEXT,
                filters,
                media_types=("text/csv",),
            ),
            Endpoint(
                "/api/meters/{identity}",
                self._meter,
                "One meter with its latest values and gaps.",
                one_meter,
                (Parameter("identity", "What the meter is called.", place="path"),),
                {404: "No such meter is known."},
            ),
            Endpoint(
                "/api/meters/{identity}/profile",
                self._profile,
                "What the chart of a meter shows: every interval, holes too.",
                fields(
                    channel=or_null(described(queries.LatestValue)),
                    values=items(
                        fields(
                            **{"from": MOMENT, "to": MOMENT}, value=or_null(NUMBER), quality=TEXT, reason=TEXT
                        )
                    ),
                ),
                chart_parameters,
                {404: "No such meter is known."},
            ),
            Endpoint(
                "/api/meters/{identity}/profile.csv",
                self._profile_csv,
                "The same as CSV.",
                TEXT,
                chart_parameters,
                {404: "No such meter is known."},
                ("text/csv",),
            ),
            Endpoint(
                "/api/events",
                self._events,
                "The concentrator's own events, newest first.",
                fields(events=items(described(queries.LoggedEvent))),
                (Parameter("before", "Only those before the event of this number."), meter),
                no_store,
            ),
            Endpoint(
                "/api/meter-events",
                self._meter_events,
                "Events and alarms of meters, newest first.",
                fields(events=items(described(queries.LoggedMeterEvent))),
                (meter, Parameter("severity", "Only these.", {"enum": list(SEVERITIES)}), _days(days)),
                no_store,
            ),
            Endpoint(
                "/api/outages",
                self._outages,
                "Interruptions of supply, put together from what meters and network tell.",
                {"type": "object", "properties": {"outages": items(ANYTHING)}, "required": ["outages"]},
                (_days(days),),
                not_told,
            ),
            Endpoint(
                "/api/balance",
                self._balance,
                "The energy balance of a day (UTC), by feeder, with its suspicions.",
                fields(day={"type": "string", "format": "date"}, feeders=items(ANYTHING)),
                (Parameter("day", "Yesterday by default.", {"type": "string", "format": "date"}),),
                not_told,
            ),
            Endpoint(
                "/api/firmware",
                self._firmware,
                "The concentrator's software and slots with the last update, campaigns that bring firmware to meters "
                "with the progress of each, images, the firmware of meters, and how far an upgrade of nodes is.",
                fields(
                    running=or_null(TEXT),
                    installed=TEXT,
                    meters=items(described(FirmwareCount)),
                    upgrade=or_null(ANYTHING),
                    job=or_null(ANYTHING),
                    rauc=or_null(ANYTHING),
                    campaigns=items(ANYTHING),
                    images=items(ANYTHING),
                ),
            ),
            Endpoint(
                "/api/topology",
                self._topology,
                "The nodes of the PLC network and where each hangs; as the store last knew it where `live` is false.",
                fields(service=TEXT, live={"type": "boolean"}, nodes=items(described(Place))),
            ),
            Endpoint(
                "/api/tasks",
                self._tasks,
                "What is read when, and how far it is.",
                fields(service=TEXT, tasks=items(ANYTHING)),
            ),
            Endpoint(
                "/api/export",
                self._export,
                "Readings: CSV and JSON lines with raw value and scaler, CIM in the base unit.",
                ANYTHING,
                export_parameters,
                {
                    400: "A parameter makes no sense.",
                    503: "The store cannot be read, or others export already.",
                },
                tuple(FORMATS.values()),
            ),
            Endpoint("/api/openapi.json", self._description, "This description.", ANYTHING),
            Endpoint(
                "/health",
                self._health,
                "Whether the service answers and can store.",
                fields(healthy={"type": "boolean"}, reasons=items(TEXT)),
                errors={503: "It does not."},
            ),
        )

    async def _description(self, _request: Request) -> Response:
        return JSONResponse(description(self.endpoints))

    async def _meter_events(self, request: Request) -> Response:
        query = LogQuery.from_parameters(request.query_params)
        since = int(self._sources.clock.now().timestamp()) - query.days * 86_400
        events, reason = await self._sources.ask(
            lambda c: queries.meter_events(c, _MOST_ROWS, since, query.meter, query.severity), []
        )
        return json_answer({"error": reason}, 503) if reason else json_answer({"events": events})

    async def _outages(self, request: Request) -> Response:
        query = LogQuery.from_parameters(request.query_params)
        return await self._asked(request, "interruptions", {"days": query.days})

    async def _balance(self, request: Request) -> Response:
        today = self._sources.clock.now().astimezone(UTC).date()
        return await self._asked(
            request, "balance", {"day": day_of(request.query_params.get("day", ""), today).isoformat()}
        )

    async def _asked(self, request: Request, question: str, arguments: dict[str, Any]) -> Response:
        snapshot = await self._sources.watch.snapshot()
        found, reason = await self._sources.question(snapshot, visitor_of(request), question, arguments)
        return json_answer({"error": reason}, 503) if found is None else json_answer(found)

    async def _firmware(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        visitor = visitor_of(request)
        images, _reason = await self._firmware_views.images(snapshot, visitor)
        facts = await self._firmware_views.facts(snapshot, visitor)
        del facts["upgrade_reason"]
        return json_answer({**facts, "images": images})

    async def _export(self, request: Request) -> Response:
        try:
            query = ExportQuery.from_parameters(request.query_params, self._sources.clock.now())
        except ExportError as error:
            return json_answer({"error": str(error)}, 400)
        if self._exports >= _MOST_EXPORTS:
            return JSONResponse(
                {"error": f"{_MOST_EXPORTS} exports are under way; ask again later"},
                503,
                {"Retry-After": "10"},
            )
        found = pieces(self._sources.store, query)
        # Counted before the store is asked for the first time: others ask for an export meanwhile.
        self._exports += 1
        under_way = False
        try:
            # What is wrong with the store is told as a status, not in the middle of the answer.
            first = await anext(found, Piece())
            under_way = True
        except StoreError as error:
            return json_answer({"error": str(error)}, 503)
        finally:
            self._exports -= not under_way

        box = self._sources.config.concentrator
        writer = make_writer(query.form, f"{box.site}/{box.name}", self._sources.clock.now())

        async def octets() -> AsyncGenerator[bytes]:
            yield writer.head + writer.piece(first)
            async for piece in found:
                yield writer.piece(piece)
            yield writer.tail()

        headers = {"Content-Disposition": f'attachment; filename="readings.{ENDINGS[query.form]}"'}
        return _Export(octets(), self._export_over, FORMATS[query.form], headers)

    def _export_over(self) -> None:
        self._exports -= 1

    async def _tasks(self, _request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        return json_answer({"service": snapshot.state, "tasks": (snapshot.status or {}).get("tasks", [])})

    async def _overview(self, _request: Request) -> Response:
        sources = self._sources
        snapshot = await sources.watch.snapshot()
        status: dict[str, Any] = snapshot.status or {}
        store: dict[str, Any] = status.get("store") or {}
        box = sources.config.concentrator
        disk = sources.disk()
        _newest, store_reason = await sources.ask(queries.newest_event, 0)
        return json_answer(
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
                "attention": [one.told() for one in await attention.look(sources, snapshot, store_reason)],
            }
        )

    async def _completeness(self, _request: Request) -> Response:
        matrix, reason = await self._sources.matrix(await self._sources.watch.snapshot())
        if matrix is None:
            return json_answer({"error": reason}, 503)
        return json_answer(
            {
                "days": [day.isoformat() for day in matrix.days],
                "total": matrix.total.cells,
                "meters": {row.meter: row.cells for row in matrix.rows},
            }
        )

    async def _meters(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        query = MeterQuery.from_parameters(request.query_params)
        found = select(await self._sources.meters(snapshot), query, self._sources.clock.now(), _MOST_ROWS)
        return json_answer(
            {
                "service": snapshot.state,
                "found": found.found,
                "known": found.known,
                "page": found.page,
                "pages": found.pages,
                "meters": found.rows,
            }
        )

    async def _meters_csv(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        query = MeterQuery.from_parameters(request.query_params)
        meters = await self._sources.meters(snapshot)
        found = select(meters, query, self._sources.clock.now(), max(1, len(meters)))
        headers = {"Content-Disposition": 'attachment; filename="meters.csv"'}
        return Response(as_csv(found.rows), media_type="text/csv", headers=headers)

    async def _meter(self, request: Request) -> Response:
        identity = request.path_params["identity"]
        meter = await self._known(identity)
        latest, reason = await self._sources.ask(lambda c: queries.latest_values(c, identity), [])
        gaps, _reason = await self._sources.ask(lambda c: queries.gaps(c, identity, _MOST_GAPS), [])
        return json_answer({"meter": meter, "latest": latest, "closed_gaps": gaps, "store_error": reason})

    async def _charted(self, request: Request) -> profile_chart.Shown:
        identity = (await self._known(request.path_params["identity"])).identity
        latest, _reason = await self._sources.ask(lambda c: queries.latest_values(c, identity), [])
        return await profile_chart.shown(self._sources, identity, latest, request.query_params)

    async def _profile(self, request: Request) -> Response:
        found = await self._charted(request)
        return json_answer({"channel": found.channel, "values": profile_chart.as_rows(found)})

    async def _profile_csv(self, request: Request) -> Response:
        found, identity = await self._charted(request), request.path_params["identity"]
        headers = {"Content-Disposition": f'attachment; filename="{identity}-{found.day}.csv"'}
        return Response(profile_chart.as_csv(identity, found), media_type="text/csv", headers=headers)

    async def _known(self, identity: str) -> MeterView:
        snapshot = await self._sources.watch.snapshot()
        for meter in await self._sources.meters(snapshot):
            if meter.identity == identity and IDENTITY_PATTERN.match(identity):
                return meter
        raise UnknownMeterError(identity)

    async def _topology(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        places, live = await self._network.places(snapshot, visitor_of(request))
        return json_answer({"service": snapshot.state, "live": live, "nodes": places})

    async def _events(self, request: Request) -> Response:
        query = LogQuery.from_parameters(request.query_params)
        events, reason = await self._sources.ask(
            lambda c: queries.events(c, EVENT_ROWS, query.before, query.meter), []
        )
        return json_answer({"error": reason}, 503) if reason else json_answer({"events": events})

    async def _health(self, _request: Request) -> Response:
        """200 while the service answers and can store; 503 with the reasons otherwise."""
        snapshot = await self._sources.watch.snapshot()
        reasons = [snapshot.reason] if snapshot.reason else []
        status: dict[str, Any] = snapshot.status or {}
        store: dict[str, Any] = status.get("store") or {}
        if unavailable := store.get("unavailable"):
            reasons.append(str(unavailable))
        return json_answer({"healthy": not reasons, "reasons": reasons}, 503 if reasons else 200)

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


def _days(schema: Schema) -> Parameter:
    return Parameter("days", "How far back.", schema)
