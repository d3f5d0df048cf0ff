"""Validates every message that the product publishes, strictly: a field that no schema names is a mistake."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import jsonschema
import xmlschema
from jsonschema import Draft202012Validator

from concentrator.uplink.schemas import load_schema

import cim_schemas


def _closed(schema: Any) -> Any:
    """The same schema, without room for what it does not name."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: value if key == "const" else _closed(value) for key, value in schema.items()}
    if "properties" in closed and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def validator(name: str, *, strict: bool = True) -> Draft202012Validator:
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(_closed(schema) if strict else schema)


_KINDS = {
    ("status",): "status",
    ("health",): "health",
    ("meters",): "meters",
    ("update",): "update",
}


def schema_of(topic: str) -> str:
    """Which schema a topic's payload has; "" for one that is not ours to publish."""
    parts = topic.split("/")
    match parts[4:]:
        case ["m", _, "reading" | "register" | "event" | "latest" as kind]:
            return kind
        case ["cmd"]:
            return ""
        case ["cmd", _, "result"] | ["reply", *_]:
            return "result"
        case ["meters", _]:
            return "meters"
        case rest:
            return _KINDS[tuple(rest)]


class MessageCheck:
    """Looks at messages as they arrive; keeps the first few complaints, with what they are about."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.seen: dict[str, int] = {}
        self._validators: dict[str, Draft202012Validator] = {}

    def look(self, topic: str, payload: bytes) -> None:
        if not payload:
            return
        if topic.rpartition("/")[2] in ("MeterReadings", "EndDeviceEvents", "ResponseMessage"):
            try:
                (cim_schemas.check_xml if payload.startswith(b"<") else cim_schemas.check_json)(payload)
            except (jsonschema.ValidationError, xmlschema.XMLSchemaException) as error:
                self.complaints.append(f"{topic}: {error}")
            self.seen[topic.rpartition("/")[2]] = self.seen.get(topic.rpartition("/")[2], 0) + 1
            return
        try:
            name = schema_of(topic)
        except KeyError:
            self.complaints.append(f"{topic}: no schema for this topic")
            return
        if not name:
            return
        self.seen[name] = self.seen.get(name, 0) + 1
        if name not in self._validators:
            self._validators[name] = validator(name)
        body = json.loads(payload) if payload[:1] == b"{" else cbor2.loads(payload)
        error = next(self._validators[name].iter_errors(body), None)
        if error is not None and len(self.complaints) < 10:
            self.complaints.append(f"{topic}: {error.json_path}: {error.message[:300]}")
