"""The description of the JSON interface: OpenAPI 3.1, from one table beside the routes.

Shapes that are dataclasses here are described from these, so that the description cannot say something else.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

Schema = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {"type": "object"}
# Who sends a program's token needs nothing else; with a browser's cookie, what changes something needs the forms' too.
SECURITY_SCHEMES: Mapping[str, Schema] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a program: made by `concentrator users token add`, or on the page /users.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "session",
        "description": "The cookie of somebody who has logged in on the page; with TLS it is called __Host-session.",
    },
    "form": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Form-Token",
        "description": "The hidden field `token` of the forms of that session.",
    },
}
ERROR: Schema = {"type": "object", "properties": {"error": TEXT}, "required": ["error"]}
_PLAIN: dict[type, Schema] = {
    str: TEXT,
    int: WHOLE,
    float: NUMBER,
    bool: {"type": "boolean"},
    datetime: MOMENT,
    types.NoneType: {"type": "null"},
    dict: ANYTHING,
}


class BodyError(ValueError):
    """What was sent is no JSON object, or is too large; `status` is what is answered."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an address."""

    name: str
    words: str
    schema: Schema = field(default_factory=lambda: dict(TEXT))
    place: Literal["query", "path"] = "query"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, who answers there, and what: the schema of its success, and statuses with what they mean.

    `needs` is the operation that somebody has to be allowed; "" where whoever may look may ask. `body` is what a POST
    takes.
    """

    path: str
    handler: Handler
    words: str
    schema: Schema
    parameters: tuple[Parameter, ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict[int, str])
    media_types: tuple[str, ...] = ("application/json",)
    needs: str = ""
    method: Literal["GET", "POST"] = "GET"
    body: Schema | None = None
    status: int = 200

    @property
    def name(self) -> str:
        """A name for generated clients."""
        words = [
            part.strip("{}").replace("-", "_").replace(".", "_") for part in self.path.split("/") if part
        ]
        return "_".join([*words, *([] if self.method == "GET" else [self.method.lower()])])


def fields(**schemas: Schema) -> Schema:
    """An object with just these fields, all of them always there."""
    return {"type": "object", "properties": schemas, "required": list(schemas)}


def body(required: tuple[str, ...], **schemas: Schema) -> Schema:
    """What a POST takes: an object, of whose fields some may be left out."""
    return {"type": "object", "properties": schemas, "required": list(required)}


def items(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def or_null(schema: Schema) -> Schema:
    """A value that may be missing."""
    return {"anyOf": [schema, {"type": "null"}]}


def described(kind: Any) -> Schema:  # noqa: ANN401 - any type annotation
    """The schema of a type: plain values, unions, lists, literals and dataclasses of these."""
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return fields(**{one.name: described(hints[one.name]) for one in dataclasses.fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [described(one) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return dict(ANYTHING)
    if origin in (list, tuple):
        return items(described(arguments[0]))
    raise TypeError(f"no schema for {kind!r}")


def description(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Open data concentrator",
            "version": version("open-data-concentrator"),
            "description": "What the diagnostics page shows, as JSON. Times are RFC 3339; a reading's value is"
            " to be multiplied by 10 to the power of its scaler.",
        },
        "paths": paths,
        "components": {"securitySchemes": dict(SECURITY_SCHEMES)},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    found = {
        "description": endpoint.words,
        "content": {media_type: {"schema": endpoint.schema} for media_type in endpoint.media_types},
    }
    is_open = endpoint.path == "/health"
    errors = dict(endpoint.errors)
    if not is_open:
        errors[401] = "Nobody is logged in, and no token came with it that is one."
        errors[403] = "Whoever asks is known, and may not."
        errors.setdefault(503, "The collecting service does not answer, so nobody can tell who asks.")
        errors[429] = "Too many wrong tokens came from there: the header Retry-After tells how long to wait."
    asked: dict[str, Any] = {}
    if endpoint.body is not None:
        errors |= {400: errors.get(400, "What was sent is no JSON object."), 413: "It is too much."}
        errors[415] = "It is no application/json."
        asked = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": endpoint.body}}}
        }
    wrong = {
        str(status): {"description": words, "content": {"application/json": {"schema": ERROR}}}
        for status, words in sorted(errors.items())
    }
    by_cookie = {"session": list[str]()} | ({} if endpoint.method == "GET" else {"form": list[str]()})
    return {
        "operationId": endpoint.name,
        "summary": endpoint.words,
        "security": [] if is_open else [{"token": []}, by_cookie],
        "parameters": [
            {
                "name": one.name,
                "in": one.place,
                "required": one.place == "path",
                "description": one.words,
                "schema": one.schema,
            }
            for one in endpoint.parameters
        ],
        **asked,
        "responses": {str(endpoint.status): found, **wrong},
    }
