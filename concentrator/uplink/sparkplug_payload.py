"""Payloads of Sparkplug B (specification 3.0, section 6.4): Protocol Buffers, built with the public field numbers.

The description of the messages is made here, so that neither a compiler nor a generated file is needed. Only what an
edge node of meters says and hears is in it; fields that it does not know are passed over, as Protocol Buffers want.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from concentrator.errors import RemoteError

INT32, INT64, UINT64, BOOLEAN, STRING = 3, 4, 8, 11, 12
# The value of the property `Quality`, as hosts understand it.
GOOD, BAD, STALE = 192, 0, 500
_BITS_64 = 1 << 64
_BITS_32 = 1 << 32

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "concentrator.sparkplug"
# Message, and of each field: name, number, type, and "*" for repeated or "?" for a member of the oneof.
_MESSAGES: tuple[tuple[str, tuple[tuple[str, int, object, str], ...]], ...] = (
    (
        "PropertyValue",
        (
            ("type", 1, _Field.TYPE_UINT32, ""),
            ("is_null", 2, _Field.TYPE_BOOL, ""),
            ("int_value", 3, _Field.TYPE_UINT32, "?"),
            ("long_value", 4, _Field.TYPE_UINT64, "?"),
            ("float_value", 5, _Field.TYPE_FLOAT, "?"),
            ("double_value", 6, _Field.TYPE_DOUBLE, "?"),
            ("boolean_value", 7, _Field.TYPE_BOOL, "?"),
            ("string_value", 8, _Field.TYPE_STRING, "?"),
        ),
    ),
    ("PropertySet", (("keys", 1, _Field.TYPE_STRING, "*"), ("values", 2, "PropertyValue", "*"))),
    (
        "Metric",
        (
            ("name", 1, _Field.TYPE_STRING, ""),
            ("alias", 2, _Field.TYPE_UINT64, ""),
            ("timestamp", 3, _Field.TYPE_UINT64, ""),
            ("datatype", 4, _Field.TYPE_UINT32, ""),
            ("is_historical", 5, _Field.TYPE_BOOL, ""),
            ("is_transient", 6, _Field.TYPE_BOOL, ""),
            ("is_null", 7, _Field.TYPE_BOOL, ""),
            ("properties", 9, "PropertySet", ""),
            ("int_value", 10, _Field.TYPE_UINT32, "?"),
            ("long_value", 11, _Field.TYPE_UINT64, "?"),
            ("float_value", 12, _Field.TYPE_FLOAT, "?"),
            ("double_value", 13, _Field.TYPE_DOUBLE, "?"),
            ("boolean_value", 14, _Field.TYPE_BOOL, "?"),
            ("string_value", 15, _Field.TYPE_STRING, "?"),
            ("bytes_value", 16, _Field.TYPE_BYTES, "?"),
        ),
    ),
    (
        "Payload",
        (
            ("timestamp", 1, _Field.TYPE_UINT64, ""),
            ("metrics", 2, "Metric", "*"),
            ("seq", 3, _Field.TYPE_UINT64, ""),
            ("uuid", 4, _Field.TYPE_STRING, ""),
            ("body", 5, _Field.TYPE_BYTES, ""),
        ),
    ),
)
Value = int | str | bool | None


class SparkplugError(RemoteError):
    """A payload that is no Sparkplug B payload."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `timestamp` is in milliseconds since 1970; names and data types stand in births only."""

    value: Value
    datatype: int = 0
    timestamp: int = 0
    name: str = ""
    alias: int | None = None
    is_historical: bool = False
    is_transient: bool = False
    properties: dict[str, int | str] = field(default_factory=dict[str, int | str])


@dataclass(frozen=True, slots=True)
class Payload:
    """A message: `seq` is None in those that have none (NDEATH, commands)."""

    timestamp: int
    metrics: tuple[Metric, ...]
    seq: int | None = None


def _payload_class() -> type[message.Message]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES:
        described = file.message_type.add(name=name)
        if any(kind == "?" for *_rest, kind in fields):
            described.oneof_decl.add(name="value")
        for field_name, number, type_, kind in fields:
            one = described.field.add(name=field_name, number=number)
            one.label = _Field.LABEL_REPEATED if kind == "*" else _Field.LABEL_OPTIONAL
            if isinstance(type_, str):
                one.type, one.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{type_}"
            else:
                one.type = cast("Any", type_)
            if kind == "?":
                one.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


_Payload: Any = _payload_class()


def encode_payload(payload: Payload) -> bytes:
    """The octets of a payload."""
    built = _Payload(timestamp=payload.timestamp)
    if payload.seq is not None:
        built.seq = payload.seq
    for metric in payload.metrics:
        _add_metric(built, metric)
    return built.SerializeToString()


def _add_metric(built: Any, metric: Metric) -> None:  # noqa: ANN401 - made at run time
    one = built.metrics.add()
    if metric.name:
        one.name = metric.name
    if metric.alias is not None:
        one.alias = metric.alias
    if metric.timestamp:
        one.timestamp = metric.timestamp
    if metric.datatype:
        one.datatype = metric.datatype
    if metric.is_historical:
        one.is_historical = True
    if metric.is_transient:
        one.is_transient = True
    match metric.value:
        case None:
            one.is_null = True
        case bool():
            one.boolean_value = metric.value
        case str():
            one.string_value = metric.value
        case int():
            # Signed numbers travel as the unsigned ones of their 64 bits.
            one.long_value = metric.value % _BITS_64
    for key, value in metric.properties.items():
        one.properties.keys.append(key)
        added = one.properties.values.add()
        if isinstance(value, str):
            added.type, added.string_value = STRING, value
        else:
            added.type, added.int_value = INT32, value % _BITS_32


def decode_payload(data: bytes) -> Payload:
    """A payload from its octets.

    Raises:
        SparkplugError: they are none.
    """
    built = _Payload()
    try:
        built.ParseFromString(data)
    except (message.DecodeError, ValueError, RuntimeError) as error:
        raise SparkplugError(f"no Sparkplug B payload in {len(data)} octets: {error}") from None
    metrics = tuple(_metric(one) for one in built.metrics)
    return Payload(built.timestamp, metrics, built.seq if built.HasField("seq") else None)


def _metric(one: Any) -> Metric:  # noqa: ANN401 - made at run time
    which = one.WhichOneof("value")
    value: Value = None
    if which in ("int_value", "long_value"):
        value = int(getattr(one, which))
        bits = _BITS_64 if which == "long_value" else _BITS_32
        if one.datatype in (INT32, INT64) and value >= bits // 2:
            value -= bits
    elif which in ("boolean_value", "string_value"):
        value = getattr(one, which)
    elif which is not None:
        value = str(getattr(one, which))
    pairs = zip(one.properties.keys, one.properties.values, strict=False)
    properties = {key: _property(found) for key, found in pairs}
    return Metric(
        value,
        one.datatype,
        one.timestamp,
        one.name,
        one.alias if one.HasField("alias") else None,
        one.is_historical,
        one.is_transient,
        properties,
    )


def _property(found: Any) -> int | str:  # noqa: ANN401 - made at run time
    which = found.WhichOneof("value")
    if which == "int_value":
        number = int(found.int_value)
        return number - _BITS_32 if number >= _BITS_32 // 2 else number
    return str(getattr(found, which)) if which else ""
