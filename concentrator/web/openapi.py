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


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an address."""

    name: str
    words: str
    schema: Schema = field(default_factory=lambda: dict(TEXT))
    place: Literal["query", "path"] = "query"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address, who answers there, and what: the schema of 200, and statuses with what they mean."""

    path: str
    handler: Handler
    words: str
    schema: Schema
    parameters: tuple[Parameter, ...] = ()
    errors: Mapping[int, str] = field(default_factory=dict[int, str])
    media_types: tuple[str, ...] = ("application/json",)

    @property
    def name(self) -> str:
        """A name for generated clients."""
        return "_".join(
            part.strip("{}").replace("-", "_").replace(".", "_") for part in self.path.split("/") if part
        )


def fields(**schemas: Schema) -> Schema:
    """An object with just these fields, all of them always there."""
    return {"type": "object", "properties": schemas, "required": list(schemas)}


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
    if origin in (list, tuple):
        return items(described(arguments[0]))
    raise TypeError(f"no schema for {kind!r}")


def description(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Open data concentrator",
            "version": version("open-data-concentrator"),
            "description": "What the diagnostics page shows, as JSON. Times are RFC 3339; a reading's value is"
            " to be multiplied by 10 to the power of its scaler.",
        },
        "paths": {one.path: {"get": _operation(one)} for one in endpoints},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    found = {
        "description": endpoint.words,
        "content": {media_type: {"schema": endpoint.schema} for media_type in endpoint.media_types},
    }
    wrong = {
        str(status): {"description": words, "content": {"application/json": {"schema": ERROR}}}
        for status, words in endpoint.errors.items()
    }
    return {
        "operationId": endpoint.name,
        "summary": endpoint.words,
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
        "responses": {"200": found, **wrong},
    }
