"""The JSON addresses that need a role: orders, configuration, keys, accounts, the trail, traffic, decoder, bundle.

So that a program can do what somebody does on the page. It comes with a token of an account (`Authorization: Bearer`);
with the cookie of a session a POST also needs the token of that session's forms in the header `X-Form-Token`.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from concentrator.access.roles import (
    AUDIT,
    CONFIGURATION,
    DIALOGUE,
    KEYS,
    SUPPORT_BUNDLE,
    TRAFFIC,
    USERS,
    permits,
)
from concentrator.control import ControlError
from concentrator.errors import TransientError
from concentrator.model import IDENTITY_PATTERN
from concentrator.store import audit
from concentrator.store.audit import AuditEntry
from concentrator.store.network_history import NodeDay
from concentrator.web import network_queries
from concentrator.web.decode_views import KEY_FIELDS, LARGEST_TEXT, DecodeViews, Explained
from concentrator.web.gate import visitor_of
from concentrator.web.json_answers import json_answer
from concentrator.web.network_views import NetworkViews
from concentrator.web.openapi import (
    ANYTHING,
    MOMENT,
    TEXT,
    WHOLE,
    BodyError,
    Endpoint,
    Parameter,
    Schema,
    body,
    described,
    fields,
    items,
    or_null,
)
from concentrator.web.sources import Sources
from concentrator.web.topology import Place
from concentrator.web.traffic import SOURCES, Frame, TrafficQuery, TrafficWatch
from concentrator.web.views import Asked
from concentrator.web.visitors import AccessClient, RefusedError, Visitor

_AUDIT_ROWS = 200
_LARGEST_BODY_OCTETS = 512 * 1024
_ORDER_FIELDS = ("id", "op", "target", "args", "priority", "not_before", "not_after")
_FLAG: Schema = {"type": "boolean"}
_NOT_DONE = {503: "The collecting service does not answer; the text says why."}
_REFUSED = {400: "What was sent makes no sense, or the service refused; the text says why.", **_NOT_DONE}


class AccessApi:
    """The handlers, and where they answer."""

    def __init__(  # noqa: PLR0913 - where the facts come from
        self,
        sources: Sources,
        network: NetworkViews,
        access: AccessClient,
        traffic: TrafficWatch,
        decoder: DecodeViews,
    ) -> None:
        self._sources = sources
        self._network = network
        self._access = access
        self._traffic = traffic
        self._decoder = decoder
        self.endpoints = (*self._for_orders(), *self._for_the_line(), *self._for_the_box())

    def _for_orders(self) -> tuple[Endpoint, ...]:
        order = {
            "type": "object",
            "properties": {
                "id": TEXT,
                "op": TEXT,
                "target": TEXT,
                "origin": TEXT,
                "state": TEXT,
                "given_at": MOMENT,
                "changed_at": MOMENT,
            },
            "required": ["id", "op", "target", "origin", "state", "given_at", "changed_at"],
        }
        meter = Parameter("meter", "Only of this meter.")
        one = Parameter("order", "The identity that the order was given.", place="path")
        given = body(
            required=("op",),
            op={**TEXT, "description": "What is ordered: docs/orders.md."},
            target={**TEXT, "description": "A meter's identity."},
            args=ANYTHING,
            id={
                **TEXT,
                "pattern": "^[A-Za-z0-9_-]{1,64}$",
                "description": "Made by the page where it is left out.",
            },
            priority={"enum": [1, 2, 3]},
            not_before=MOMENT,
            not_after=MOMENT,
        )
        return (
            Endpoint(
                "/api/orders",
                self._orders,
                "The orders that the service remembers, newest first.",
                fields(orders=items(order)),
                (meter,),
                _NOT_DONE,
                needs="orders",
            ),
            Endpoint(
                "/api/orders",
                self._give_order,
                "Give an order, which is carried out when it can be; ask for its state at /api/orders/ID.",
                fields(id=TEXT, state=TEXT),
                errors=_REFUSED,
                needs="orders",
                method="POST",
                body=given,
                status=202,
            ),
            Endpoint(
                "/api/orders/{order}",
                self._order,
                "One order: its state, and its result or why it failed.",
                order,
                (one,),
                {404: "No such order is known.", **_NOT_DONE},
                needs="orders",
            ),
        )

    def _for_the_line(self) -> tuple[Endpoint, ...]:
        place = Parameter("identity", "The EUI-48 or EUI-64 of the node.", place="path")
        meter = Parameter("identity", "What the meter is called.", place="path")
        traffic = (
            Parameter("source", "Only from there.", {"enum": list(SOURCES)}),
            Parameter("meter", "Only of meters whose identity contains this."),
            Parameter("q", "Only what contains these words."),
            Parameter("after", "Only frames after this number.", {"type": "integer", "minimum": 0}),
        )
        apdu = fields(
            at=MOMENT,
            direction=TEXT,
            octets=TEXT,
            doing=TEXT,
            tree=ANYTHING,
            opened=TEXT,
            opened_tree=ANYTHING,
        )
        return (
            Endpoint(
                "/api/topology/{identity}",
                self._node,
                "One node of the PLC network, and what became of it.",
                fields(
                    live=_FLAG,
                    node=described(Place),
                    children=items(TEXT),
                    changes=items(described(network_queries.NodeChange)),
                    days=items(described(NodeDay)),
                ),
                (place,),
                {404: "No such node is known."},
            ),
            Endpoint(
                "/api/meters/{identity}/dialogue",
                self._dialogue,
                "The last dialogue with a meter, decoded. `known` is false where there was none since the start.",
                fields(
                    known=_FLAG,
                    began_at=or_null(MOMENT),
                    ended_at=or_null(MOMENT),
                    outcome=TEXT,
                    left_out=WHOLE,
                    apdus=items(apdu),
                    problem=TEXT,
                ),
                (meter,),
                {404: "No such meter is known."},
                needs=DIALOGUE,
            ),
            Endpoint(
                "/api/traffic",
                self._frames,
                "What passed on the lines of late, decoded, oldest first. The service listens for half a minute after"
                " each question: the first answer has nothing, and those who ask again with `after` miss nothing.",
                fields(newest=WHOLE, oldest=WHOLE, dropped=WHOLE, frames=items(described(Frame))),
                traffic,
                needs=TRAFFIC,
            ),
            Endpoint(
                "/api/decode",
                self._decode,
                "What is this hex? Keys are used for this once and kept nowhere.",
                fields(frames=items(described(Explained))),
                errors={400: "It is nothing that can be decoded; the text says why.", 413: "It is too much."},
                needs=TRAFFIC,
                method="POST",
                body=body(required=("text",), text=TEXT, **dict.fromkeys(KEY_FIELDS, TEXT)),
            ),
        )

    def _for_the_box(self) -> tuple[Endpoint, ...]:
        state = {
            "can_be_written": _FLAG,
            "restarting": _FLAG,
            "trial": or_null(
                fields(given_by=TEXT, applied_at=MOMENT, seconds_left=WHOLE, waits_for=items(TEXT))
            ),
        }
        key_row = fields(meter=TEXT, kinds=items(TEXT), state=TEXT, reason=TEXT, replaced_at=or_null(MOMENT))
        user = fields(
            name=TEXT, role=TEXT, one_time=_FLAG, last_login=or_null(MOMENT), sessions=WHOLE, tokens=WHOLE
        )
        token = fields(
            id=TEXT,
            user=TEXT,
            label=TEXT,
            role=TEXT,
            made_at=MOMENT,
            ends_at=or_null(MOMENT),
            used_on=or_null(MOMENT),
        )
        return (
            Endpoint(
                "/api/configuration",
                self._configuration,
                "The configuration file, and what is on trial. It names files with secrets, and has none.",
                fields(text=TEXT, digest=TEXT, **state),
                errors=_REFUSED,
                needs=CONFIGURATION,
            ),
            Endpoint(
                "/api/configuration",
                self._change_configuration,
                "Check a text, apply it on trial, confirm what is on trial, or take it back.",
                ANYTHING,
                errors=_REFUSED,
                needs=CONFIGURATION,
                method="POST",
                body=body(
                    required=("do",),
                    do={"enum": ["check", "apply", "confirm", "revert"]},
                    text=TEXT,
                    digest={
                        **TEXT,
                        "description": "That of the text that was changed: refused when it is another now.",
                    },
                ),
            ),
            Endpoint(
                "/api/keys",
                self._keys,
                "Which meter has which keys; no key.",
                fields(meters=items(key_row)),
                errors=_REFUSED,
                needs=KEYS,
            ),
            Endpoint(
                "/api/keys",
                self._import_keys,
                "Take a list of keys in, all of it or nothing.",
                fields(keys=WHOLE, meters=WHOLE),
                errors=_REFUSED,
                needs=KEYS,
                method="POST",
                body=body(required=("list",), list={**TEXT, "description": "CSV or JSON: docs/registry.md."}),
            ),
            Endpoint(
                "/api/audit",
                self._audit,
                f"The newest {_AUDIT_ROWS} entries of the audit trail, newest first.",
                fields(entries=items(described(AuditEntry))),
                (Parameter("meter", "Only of this meter."),),
                {503: "The store cannot be read; the text says why."},
                needs=AUDIT,
            ),
            Endpoint(
                "/api/users",
                self._users,
                "Accounts, and tokens of programs; no password, no token.",
                fields(users=items(user), tokens=items(token)),
                errors=_REFUSED,
                needs=USERS,
            ),
            Endpoint(
                "/api/support",
                self._support,
                "Whether there is a support bundle to be had, and where.",
                fields(service=TEXT, bundle=TEXT, allowed=_FLAG),
            ),
            Endpoint(
                "/api/support/bundle",
                self._bundle,
                "The support bundle (tar.gz): log, configuration without secrets, state, statistics.",
                ANYTHING,
                errors=_NOT_DONE,
                media_types=("application/gzip",),
                needs=SUPPORT_BUNDLE,
            ),
        )

    # Orders

    async def _orders(self, request: Request) -> Response:
        meter = request.query_params.get("meter", "")
        answer = await self._ordered(request, "orders", {})
        if isinstance(answer, Response):
            return answer
        told: list[dict[str, Any]] = answer["orders"]
        return json_answer({"orders": [one for one in told if meter in ("", one["target"])]})

    async def _order(self, request: Request) -> Response:
        answer = await self._ordered(
            request, "order_state", {"id": request.path_params["order"]}, unknown=404
        )
        return answer if isinstance(answer, Response) else json_answer(answer)

    async def _give_order(self, request: Request) -> Response:
        visitor, given = visitor_of(request), await self._body(request)
        operation = given.get("op")
        if isinstance(operation, str) and visitor.role is not None and not permits(visitor.role, operation):
            # The service would say the same; so it is told apart from an order that makes no sense.
            reason = f"the role {visitor.role} may not order {operation[:64]}"
            return json_answer({"error": reason}, 403)
        order = {name: given[name] for name in _ORDER_FIELDS if name in given}
        order = {"id": f"api-{secrets.token_hex(6)}", **order, "deferred": True}
        answer = await self._asked(visitor, {"op": "order", "order": order})
        if isinstance(answer, Response):
            return answer
        result: dict[str, Any] = answer["result"]
        headers = {"Location": f"/api/orders/{order['id']}"}
        # What is carried out at once answers with its result, which may be the state of another order.
        state = result["state"] if result.get("order") == order["id"] and "state" in result else "done"
        return json_answer({"id": order["id"], "state": state}, 202, headers)

    async def _ordered(
        self, request: Request, operation: str, arguments: dict[str, Any], unknown: int = 400
    ) -> dict[str, Any] | Response:
        order = {"id": f"api-{secrets.token_hex(6)}", "op": operation, "args": arguments}
        answer = await self._asked(visitor_of(request), {"op": "order", "order": order}, unknown)
        return answer if isinstance(answer, Response) else answer["result"]

    async def _asked(
        self, visitor: Visitor, asked: dict[str, Any], failed: int = 400
    ) -> dict[str, Any] | Response:
        """The service's answer, or what is answered instead."""
        try:
            return await self._access.ask(visitor, asked)
        except RefusedError as error:
            return json_answer({"error": str(error)}, {"login": 401, "role": 403}.get(error.why, 400))
        except ControlError as error:
            status = 503 if isinstance(error, TransientError) else failed
            return json_answer({"error": str(error)}, status)

    # The line

    async def _node(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        identity = request.path_params["identity"]
        found, _reason = await self._network.node_facts(snapshot, visitor_of(request), identity)
        return json_answer(
            {
                "live": found.live,
                "node": found.place,
                "children": [eui for eui, _name in found.children],
                "changes": found.changes,
                "days": found.days,
            }
        )

    async def _dialogue(self, request: Request) -> Response:
        asked = Asked(request.query_params, str(request.path_params["identity"]), visitor_of(request))
        view = await self._decoder.dialogue(await self._sources.watch.snapshot(), asked)
        told: dict[str, Any] = view.fixed["told"]
        frames: list[tuple[dict[str, Any], Explained, Explained | None]] = view.fixed["frames"]
        return json_answer(
            {
                "known": bool(told.get("known")),
                "began_at": told.get("began_at"),
                "ended_at": told.get("ended_at"),
                "outcome": told.get("outcome", ""),
                "left_out": told.get("left_out", 0),
                "apdus": [
                    {
                        **{name: one[name] for name in ("at", "direction", "octets", "doing")},
                        "tree": explained.tree,
                        "opened": one.get("opened", ""),
                        "opened_tree": opened.tree if opened else {},
                    }
                    for one, explained, opened in frames
                ],
                "problem": view.fixed["problem"],
            }
        )

    async def _frames(self, request: Request) -> Response:
        self._traffic.look(visitor_of(request))
        given = request.query_params.get("after", "0")
        after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0  # noqa: PLR2004 - digits
        frames = self._traffic.frames(TrafficQuery.from_parameters(request.query_params), after)
        told = {
            "newest": self._traffic.newest,
            "oldest": self._traffic.oldest,
            "dropped": self._traffic.dropped,
        }
        return json_answer({**told, "frames": frames})

    async def _decode(self, request: Request) -> Response:
        given = await self._body(request)
        texts = {name: one for name in ("text", *KEY_FIELDS) if isinstance(one := given.get(name), str)}
        if len(texts.get("text", "")) > LARGEST_TEXT:
            return json_answer({"error": f"more than {LARGEST_TEXT // 1024} kB; send less"}, 413)
        frames, problem = await self._decoder.explained(texts.pop("text", ""), texts)
        if problem:
            return json_answer({"error": problem}, 400)
        return json_answer({"frames": frames})

    # The box

    async def _configuration(self, request: Request) -> Response:
        return await self._answered(request, {"op": CONFIGURATION, "do": "show"})

    async def _change_configuration(self, request: Request) -> Response:
        given = await self._body(request)
        if given.get("do") not in ("check", "apply", "confirm", "revert"):
            return json_answer({"error": "do: allowed: check, apply, confirm, revert"}, 400)
        asked = {name: given[name] for name in ("do", "text", "digest") if name in given}
        return await self._answered(request, {"op": CONFIGURATION, **asked})

    async def _keys(self, request: Request) -> Response:
        return await self._answered(request, {"op": KEYS, "do": "state"})

    async def _import_keys(self, request: Request) -> Response:
        given = await self._body(request)
        return await self._answered(request, {"op": KEYS, "do": "import", "text": given.get("list")})

    async def _answered(self, request: Request, asked: dict[str, Any]) -> Response:
        answer = await self._asked(visitor_of(request), asked)
        return answer if isinstance(answer, Response) else json_answer(answer)

    async def _audit(self, request: Request) -> Response:
        meter = request.query_params.get("meter", "")
        meter = meter if IDENTITY_PATTERN.match(meter) else ""
        entries, reason = await self._sources.ask(lambda c: audit.newest(c, _AUDIT_ROWS, meter), [])
        return json_answer({"error": reason}, 503) if reason else json_answer({"entries": entries})

    async def _users(self, request: Request) -> Response:
        found: dict[str, Any] = {}
        for do in ("list", "tokens"):
            answer = await self._asked(visitor_of(request), {"op": USERS, "do": do})
            if isinstance(answer, Response):
                return answer
            found |= answer
        return json_answer(found)

    async def _support(self, request: Request) -> Response:
        snapshot = await self._sources.watch.snapshot()
        allowed = visitor_of(request).may(SUPPORT_BUNDLE)
        return json_answer({"service": snapshot.state, "bundle": "/api/support/bundle", "allowed": allowed})

    async def _bundle(self, request: Request) -> Response:
        content, reason = await self._sources.questions.support_bundle(visitor_of(request))
        if not content:
            return json_answer({"error": reason}, 503)
        name = f"{self._sources.config.concentrator.name}-support.tar.gz"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/gzip", headers=headers)

    @staticmethod
    async def _body(request: Request) -> dict[str, Any]:
        """The JSON object that was sent. Raises BodyError."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BodyError("a JSON object is expected, as application/json", 415)
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > _LARGEST_BODY_OCTETS:
                raise BodyError(f"more than {_LARGEST_BODY_OCTETS} octets; send less", 413)
        try:
            found: object = json.loads(content)
        except (ValueError, RecursionError):
            raise BodyError("no JSON") from None
        if not isinstance(found, dict):
            raise BodyError("a JSON object is expected")
        return cast("dict[str, Any]", found)
