"""What an order may ask of one meter: each operation is a conversation within the association that is open.

`write` and `action` change the meter. They are carried out only for somebody who is on the concentrator itself
(`Order.origin`), and each is told in the log with who gave it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.cosem.classes import interface_class
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DlmsError
from concentrator.obis import Obis, ObisError
from concentrator.orders import LOCAL, Order, OrderError

_CLOCK = AttributeDescriptor(8, Obis(0, 0, 1, 0, 0, 255), 2)
_ASSOCIATION_LN = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 2)
_DATE_TIME_OCTETS = 12


class MeterOperation(NamedTuple):
    """One operation: how it is done, and whether it changes the meter."""

    converse: Callable[[Client, Order], Conversation[dict[str, Any]]]
    changes_meter: bool = False


def check_order(order: Order, network_operations: tuple[str, ...] = ()) -> MeterOperation:
    """The operation of an order; what else is known here (`network_operations`) is told with an unknown one.

    Raises:
        OrderError: it is unknown, or not for whoever gave it.
    """
    operation = METER_OPERATIONS.get(order.operation)
    if operation is None:
        known = ", ".join([*METER_OPERATIONS, "collect", *network_operations])
        raise OrderError(f"order {order.order_id}: unknown op {order.operation!r}; known: {known}")
    if operation.changes_meter and order.origin != LOCAL:
        raise OrderError(
            f"order {order.order_id}: {order.operation} changes a meter, and is taken on the concentrator itself "
            f"only, not from {order.origin}"
        )
    return operation


def _ping(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    del order
    return (yield from _read_attribute(client, _CLOCK))


def _read(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    return (yield from _read_attribute(client, _attribute(order, class_id=3)))


def _read_attribute(client: Client, attribute: AttributeDescriptor) -> Conversation[dict[str, Any]]:
    value = yield from client.get(attribute)
    return {"obis": str(attribute.obis), "value": _shown(value), "axdr": value.to_bytes().hex()}


def _write(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    attribute = _attribute(order, class_id=1)
    value = _data(order, "value")
    if value is None:
        raise OrderError(f"order {order.order_id}: args: value: missing; allowed: A-XDR data in hexadecimal")
    yield from client.set(attribute, value)
    return {"obis": str(attribute.obis), "written": True}


def _action(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    method = MethodDescriptor(
        _number(order, "class_id", None),
        _obis(order),
        _number(order, "method", 1),
    )
    answer = yield from client.action(method, _data(order, "parameter"))
    result: dict[str, Any] = {"obis": str(method.obis), "done": True}
    if answer is not None:
        result |= {"answer": _shown(answer), "axdr": answer.to_bytes().hex()}
    return result


def _browse(client: Client, order: Order) -> Conversation[dict[str, Any]]:
    del order
    listed = yield from client.get(_ASSOCIATION_LN)
    return {"objects": object_list(listed)}


METER_OPERATIONS = {
    "ping": MeterOperation(_ping),
    "read": MeterOperation(_read),
    "browse": MeterOperation(_browse),
    "write": MeterOperation(_write, changes_meter=True),
    "action": MeterOperation(_action, changes_meter=True),
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
        _number(order, "class_id", class_id), _obis(order), _number(order, "attribute", 2)
    )


def _obis(order: Order) -> Obis:
    try:
        return Obis.parse(str(order.arguments.get("obis")))
    except ObisError as error:
        raise OrderError(f"order {order.order_id}: {error}") from None


def _number(order: Order, name: str, default: int | None) -> int:
    given = order.arguments.get(name, default)
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    raise OrderError(f"order {order.order_id}: args: {name}: got {given!r}; allowed: a number")


def _data(order: Order, name: str) -> Data | None:
    given = order.arguments.get(name)
    if given is None:
        return None
    try:
        return axdr.decode(bytes.fromhex(str(given)))
    except (ValueError, DlmsError):
        # What was given may be a password: it is not repeated.
        raise OrderError(
            f"order {order.order_id}: args: {name}: no A-XDR data in hexadecimal, such as 1105 for an unsigned 5"
        ) from None


def _shown(value: Data) -> object:
    native = value.native
    if isinstance(native, bytes):
        if len(native) == _DATE_TIME_OCTETS:
            clock = CosemDateTime.from_bytes(native)
            if clock.is_moment:
                return str(clock)
        return native.hex()
    return native if isinstance(native, int | float | str | bool | None) else str(native)
