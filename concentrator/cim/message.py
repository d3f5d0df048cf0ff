"""An IEC 61968-100 message as nested names and values, written as XML or as JSON with the same names.

A `Node` is what both are made from: a mapping of element names, in the order of the schema, to text, a number, a
boolean, a nested node, or a list for an element that repeats. `ref` is an attribute. Nothing is put into both forms by
hand, so they cannot disagree.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias, cast
from xml.etree import ElementTree as ET
from xml.parsers import expat

from concentrator.cim.errors import CimError

MESSAGE_NAMESPACE = "http://iec.ch/TC57/2011/schema/message"
MESSAGE_TYPES = ("EventMessage", "RequestMessage", "ResponseMessage", "FaultMessage", "Message")
REVISION = "2.0"
XML, JSON = "application/xml", "application/json"
# Longer messages are refused before they are parsed.
LARGEST_MESSAGE_OCTETS = 256 * 1024
_DEEPEST = 32
_NAMES = uuid.UUID("5f0c1f0e-6f2b-5d43-9d0a-4f7b64a3c3de")

Value: TypeAlias = "str | int | bool | Node | list[str] | list[Node]"
Node: TypeAlias = "dict[str, Value]"


def payload_namespace(noun: str) -> str:
    """The namespace of a payload, `MeterReadings` for instance."""
    return f"http://iec.ch/TC57/2011/{noun}#"


def moment(at: datetime) -> str:
    """A time as xs:dateTime in UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def message_id(*parts: object) -> str:
    """A UUID that is the same whenever the same message is made again: receivers drop repeats by it."""
    return str(uuid.uuid5(_NAMES, "/".join(str(part) for part in parts)))


@dataclass(frozen=True, slots=True)
class Header:
    """Who says what to whom. `verb` is created, reply, ...; `noun` names the payload."""

    verb: str
    noun: str
    created_at: datetime
    source: str
    message_id: str
    correlation_id: str = ""

    def node(self) -> Node:
        """In the order of the schema."""
        node: Node = {
            "Verb": self.verb,
            "Noun": self.noun,
            "Revision": REVISION,
            "Timestamp": moment(self.created_at),
            "Source": self.source,
            "MessageID": self.message_id,
        }
        if self.correlation_id:
            node["CorrelationID"] = self.correlation_id
        return node


@dataclass(frozen=True, slots=True)
class CimMessage:
    """`kind` is one of `MESSAGE_TYPES`; `payload` the node of the header's noun, None where there is none."""

    kind: str
    header: Header
    payload: Node | None = None
    reply: Node | None = None

    def to_json(self) -> bytes:
        """Compact JSON."""
        body: Node = {"Header": self.header.node()}
        if self.reply is not None:
            body["Reply"] = self.reply
        if self.payload is not None:
            body["Payload"] = {self.header.noun: self.payload}
        return json.dumps({self.kind: body}, separators=(",", ":"), ensure_ascii=False).encode()

    def to_xml(self) -> bytes:
        """XML in UTF-8, with its declaration."""
        root = ET.Element(self.kind, {"xmlns": MESSAGE_NAMESPACE})
        _write(root, "Header", self.header.node())
        if self.reply is not None:
            _write(root, "Reply", self.reply)
        if self.payload is not None:
            place = ET.SubElement(root, "Payload")
            content = ET.SubElement(place, self.header.noun, {"xmlns": payload_namespace(self.header.noun)})
            _write_all(content, self.payload)
        return ET.tostring(root, encoding="utf-8", xml_declaration=True)

    def encode(self, media_type: str) -> bytes:
        """As `application/xml` or `application/json`."""
        return self.to_xml() if media_type == XML else self.to_json()


def fragment(name: str, node: Node, media_type: str) -> bytes:
    """One element of a payload, as it stands inside of it."""
    if media_type != XML:
        return json.dumps(node, separators=(",", ":"), ensure_ascii=False).encode()
    parent = ET.Element("parent")
    _write(parent, name, node)
    return ET.tostring(parent[0], encoding="utf-8")


def _write_all(element: ET.Element, node: Mapping[str, Value]) -> None:
    for name, value in node.items():
        if name == "ref":
            element.set("ref", str(value))
        else:
            _write(element, name, value)


def _write(parent: ET.Element, name: str, value: Value) -> None:
    if isinstance(value, list):
        for one in value:
            _write(parent, name, one)
        return
    child = ET.SubElement(parent, name)
    if isinstance(value, dict):
        _write_all(child, value)
    elif isinstance(value, bool):
        child.text = "true" if value else "false"
    else:
        child.text = _printable(str(value))


def _printable(text: str) -> str:
    """Text without the characters that XML 1.0 cannot carry, such as the NULs in a meter's name."""
    return "".join(
        one
        if one in "\t\n\r" or " " <= one <= "\ud7ff" or (one >= "\ue000" and one not in "\ufffe\uffff")
        else "\ufffd"
        for one in text
    )


@dataclass(frozen=True, slots=True)
class Received:
    """A message that came in: its root's name, its header and payload as plain nodes, and how it was written."""

    kind: str
    header: Node
    payload: Node
    media_type: str


def parse(data: bytes) -> Received:
    """Read a message, XML or JSON, whatever its root is called.

    Raises:
        CimError: it is neither, has a document type, or is too long or too deep.
    """
    if len(data) > LARGEST_MESSAGE_OCTETS:
        raise CimError(f"CIM message: {len(data)} octets; at most {LARGEST_MESSAGE_OCTETS} are taken")
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    kind, body, media_type = (*_from_xml(text), XML) if text.startswith(b"<") else (*_from_json(text), JSON)
    header, payload = body.get("Header"), body.get("Payload")
    if not isinstance(header, dict):
        raise CimError(f"CIM message {kind}: has no Header; it begins with Verb and Noun")
    return Received(kind, header, payload if isinstance(payload, dict) else {}, media_type)


def _from_json(text: bytes) -> tuple[str, Node]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise CimError("CIM message: neither XML nor JSON") from None
    if not isinstance(body, dict):
        raise CimError("CIM message: a JSON object is expected, with Header and Payload")
    fields = cast("dict[str, object]", body)
    kind = "Message"
    if "Header" not in fields and len(fields) == 1:
        kind, inner = next(iter(fields.items()))
        if not isinstance(inner, dict):
            raise CimError(f"CIM message {kind}: a JSON object is expected, with Header and Payload")
        fields = cast("dict[str, object]", inner)
    return kind, _clean(fields, _DEEPEST)


def _clean(fields: Mapping[str, object], depth: int) -> Node:
    """JSON as nodes: numbers and null as text, `@ref` (as XML converters write it) as `ref`."""
    if not depth:
        raise CimError(f"CIM message: nested deeper than {_DEEPEST} levels")
    node: Node = {}
    for name, value in fields.items():
        node[name.removeprefix("@")] = _clean_value(value, depth)
    return node


def _clean_value(value: object, depth: int) -> Value:
    if isinstance(value, dict):
        return _clean(cast("dict[str, object]", value), depth - 1)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [
            _clean(cast("dict[str, object]", one), depth - 1) if isinstance(one, dict) else {"": str(one)}
            for one in items
        ]
    if isinstance(value, bool):
        return value
    return "" if value is None else str(value)


def _from_xml(text: bytes) -> tuple[str, Node]:
    parser = expat.ParserCreate(namespace_separator=" ")
    root: list[tuple[str, Node, list[str]]] = [("", {}, [])]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(root) > _DEEPEST:
            raise CimError(f"CIM message: nested deeper than {_DEEPEST} levels")
        node: Node = {local: value for key, value in attributes.items() if (local := _local(key)) == "ref"}
        root.append((_local(name), node, []))

    def end(_name: str) -> None:
        name, node, texts = root.pop()
        content: Node | str = node or "".join(texts).strip()
        _, parent, _ = root[-1]
        known = parent.get(name)
        if known is None:
            parent[name] = content
        else:
            nodes = cast("list[Node]", known if isinstance(known, list) else [_as_node(known)])
            nodes.append(_as_node(content))
            parent[name] = nodes

    def characters(data: str) -> None:
        root[-1][2].append(data)

    def refuse(*_: object) -> None:
        raise CimError("CIM message: has a document type; none is taken")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    # Entities are what XML is attacked with, and no message has any.
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)  # noqa: FBT003 - expat's own argument
    except expat.ExpatError as error:
        raise CimError(f"CIM message: no XML: {error}") from None
    if len(root[0][1]) != 1:
        raise CimError("CIM message: has no root element")
    kind, body = next(iter(root[0][1].items()))
    if not isinstance(body, dict):
        raise CimError(f"CIM message {kind}: is empty")
    return kind, body


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _as_node(value: Value) -> Node:
    return value if isinstance(value, dict) else {"": cast("str", value)}


def nodes_of(node: Node, name: str) -> list[Node]:
    """The elements of a name below a node, whether it came as one, as several or not at all."""
    found = node.get(name)
    if found is None or found == "":
        return []
    if isinstance(found, list):
        return [_as_node(one) for one in cast("Iterable[Value]", found)]
    return [_as_node(found)]


def text_of(node: Node, *path: str) -> str:
    """The text at the end of a path of names, the first of each; "" where there is none."""
    for name in path:
        found = nodes_of(node, name)
        if not found:
            return ""
        node = found[0]
    text = node.get("", "")
    return text if isinstance(text, str) else ""
