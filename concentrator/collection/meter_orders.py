"""What an order may ask of one meter: each operation is a conversation within the association that is open.

What only reads is here, or in `control` where it belongs to a control function; everybody may order it. What changes
the meter is in `control`: it takes the right to do so, and leaves an entry in the audit trail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.operations import CONTROL_OPERATIONS, READ_OPERATIONS, ControlOperation
from concentrator.collection.control.rules import OrderRules
from concentrator.config import OrdersSection
from concentrator.dlms.attributes import AttributeDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem.classes import interface_class
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis, ObisError
from concentrator.orders import Order, OrderError

_CLOCK = AttributeDescriptor(8, Obis(0, 0, 1, 0, 0, 255), 2)
_ASSOCIATION_LN = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 2)
_DATE_TIME_OCTETS = 12


class MeterOperation(NamedTuple):
    """An operation that only reads: how it is done."""

    converse: Callable[[Client, Order], Conversation[dict[str, Any]]]
    changes_meter: bool = False


def check_order(
    order: Order, network_operations: tuple[str, ...] = (), rules: OrderRules | None = None
) -> MeterOperation | ControlOperation:
    """The operation of an order; what else is known here (`network_operations`) is told with an unknown one.

    Raises:
        NotAuthorisedError: it is not for whoever gave it, by `rules` (by default: on the concentrator itself only).
        OrderError: it is unknown, or its arguments are wrong.
    """
    operation = METER_OPERATIONS.get(order.operation)
    if operation is None:
        known = ", ".join([*METER_OPERATIONS, "collect", *network_operations])
        raise OrderError(f"order {order.order_id}: unknown op {order.operation!r}; known: {known}")
    if isinstance(operation, ControlOperation):
        (rules or OrderRules.from_settings(OrdersSection())).check(order)
        operation.prepare(order)
    return operation


def _ping(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    del order
    return (yield from _read_attribute(client, _CLOCK))


def _read(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    return (yield from _read_attribute(client, _attribute(order, class_id=3)))


def _read_attribute(client: Client, attribute: AttributeDescriptor) -> Conversation[dict[str, Any]]:
    value = yield from client.get(attribute)
    return {"obis": str(attribute.obis), "value": _shown(value), "axdr": value.to_bytes().hex()}


def _browse(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    del order
    listed = yield from client.get(_ASSOCIATION_LN)
    return {"objects": object_list(listed)}


def _reading(
    read: Callable[[Client, Arguments], Conversation[dict[str, Any]]],
) -> Callable[[Client, Order], Conversation[dict[str, Any]]]:
    return lambda client, order: read(client, Arguments.of(order))


METER_OPERATIONS: dict[str, MeterOperation | ControlOperation] = {
    "ping": MeterOperation(_ping),
    "read": MeterOperation(_read),
    "browse": MeterOperation(_browse),
    **{name: MeterOperation(_reading(read)) for name, read in READ_OPERATIONS.items()},
    **CONTROL_OPERATIONS,
}


def object_list(listed: Data) -> list[dict[str, Any]]:
    """Attribute 2 of Association LN in words, an entry for each object.

    Raises:
        DecodeError: it is no object list.
    """
    found: list[dict[str, Any]] = []
    for element in listed.items():
        class_id, version, name, _rights = element.items(4)
        found.append(object_entry(class_id.integer(), version.integer(), Obis.from_bytes(name.octets())))
    return found


def object_entry(class_id: int, version: int, obis: Obis) -> dict[str, Any]:
    """One object in words."""
    return {
        "obis": str(obis),
        "class": interface_class(class_id, version).name,
        "class_id": class_id,
        "version": version,
        "meaning": obis.describe(),
    }


def _attribute(order: Order, class_id: int) -> AttributeDescriptor:
    return AttributeDescriptor(
        _number(order, "class_id", class_id, 0, 0xFFFF),
        _obis(order),
        _number(order, "attribute", 2, -128, 127),
    )


def _obis(order: Order) -> Obis:
    try:
        return Obis.parse(str(order.arguments.get("obis")))
    except ObisError as error:
        raise OrderError(f"order {order.order_id}: {error}") from None


def _number(order: Order, name: str, default: int, low: int, high: int) -> int:
    given = order.arguments.get(name, default)
    if isinstance(given, int) and not isinstance(given, bool) and low <= given <= high:
        return given
    raise OrderError(
        f"order {order.order_id}: args: {name}: got {given!r}; allowed: a whole number from {low} to {high}"
    )


def _shown(value: Data) -> object:
    native = value.native
    if isinstance(native, bytes):
        if len(native) == _DATE_TIME_OCTETS:
            clock = CosemDateTime.from_bytes(native)
            if clock.is_moment:
                return str(clock)
        return native.hex()
    return native if isinstance(native, int | float | str | bool | None) else str(native)
