"""EndDeviceControls: orders to meters as IEC 61968-9 has them, and the answer to them.

A control's type is four numbers, device type.domain.subdomain.action; those that this concentrator carries out stand
in `CONTROLS`. A message with several controls or several meters becomes as many orders, each with a name of its own
that follows from the message's: the same message again is the same orders again, and they are carried out once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from concentrator.cim.errors import CimError
from concentrator.cim.message import CimMessage, Header, Node, Received, message_id, nodes_of, text_of
from concentrator.orders import Order, OrderError

END_DEVICE_CONTROLS = "EndDeviceControls"
# domain.subdomain.action, and the operation.
CONTROLS = {
    "31.0.18": "reconnect",
    "31.0.23": "disconnect",
    "31.17.46": "read_switch",
    "36.116.13": "sync_clock",
    "8.0.214": "reset_billing",
    "21.87.46": "collect",
    "1.111.46": "ping",
}
# These want the meter's name a second time. A control names its end device in a message that a program has made: no
# slip of a hand is to be caught here.
_CONFIRMED = ("reconnect", "disconnect", "reset_billing")
_TYPE = re.compile(r"\d{1,3}\.(\d{1,3}\.\d{1,3}\.\d{1,3})")
_MOST_ORDERS = 1000
# Codes of Reply.Error: what went wrong, by this concentrator's own list (IEC 61968-100 leaves them to the parties).
INVALID_REQUEST, NOT_DONE = "1.0", "5.0"


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """Orders that a message asks for, and what its answer needs."""

    orders: tuple[Order, ...]
    correlation_id: str
    media_type: str


@dataclass(frozen=True, slots=True)
class OrderOutcome:
    """What became of one order: "done", or why not."""

    order: Order
    error: str = ""


def controls_requested(received: Received, origin: str) -> ControlRequest:
    """The orders of an EndDeviceControls message; `origin` says where it came from.

    Raises:
        CimError: it is another noun or verb, or has a control that is not known here or without a meter.
    """
    noun, verb = text_of(received.header, "Noun"), text_of(received.header, "Verb")
    if noun != END_DEVICE_CONTROLS or verb not in ("create", "execute"):
        raise CimError(
            f"CIM message: verb {verb or 'none'}, noun {noun or 'none'}; taken: create or execute {END_DEVICE_CONTROLS}"
        )
    name = text_of(received.header, "MessageID") or text_of(received.header, "CorrelationID")
    if not name:
        raise CimError(
            "CIM message: Header has neither MessageID nor CorrelationID: it could not be told apart"
        )
    orders: list[Order] = []
    for controls in nodes_of(received.payload, END_DEVICE_CONTROLS):
        for place, control in enumerate(nodes_of(controls, "EndDeviceControl")):
            orders += _orders(control, f"{name}/{place}", origin)
            if len(orders) > _MOST_ORDERS:
                raise CimError(f"CIM message: more than {_MOST_ORDERS} orders; send them in several")
    if not orders:
        raise CimError("CIM message: Payload has no EndDeviceControl")
    return ControlRequest(
        tuple(orders), text_of(received.header, "CorrelationID") or name, received.media_type
    )


def _orders(control: Node, name: str, origin: str) -> list[Order]:
    ref = text_of(control, "EndDeviceControlType", "ref")
    found = _TYPE.fullmatch(ref)
    if found is None or found[1] not in CONTROLS:
        known = ", ".join(f"*.{code} ({operation})" for code, operation in CONTROLS.items())
        raise CimError(f"CIM message: EndDeviceControlType {ref or 'none'}: not known; known: {known}")
    operation = CONTROLS[found[1]]
    meters = [
        text_of(device, "mRID") or text_of(device, "Names", "name")
        for device in nodes_of(control, "EndDevices")
    ]
    if not meters or not all(meters):
        raise CimError("CIM message: EndDeviceControl has no EndDevices with an mRID or a name")
    interval = nodes_of(control, "scheduledInterval")
    times = interval[0] if interval else {}
    orders: list[Order] = []
    for meter in meters:
        payload = {
            "id": message_id(name, meter),
            "op": operation,
            "target": meter,
            "args": {"confirm": meter} if operation in _CONFIRMED else {},
            "not_before": text_of(times, "start") or None,
            "not_after": text_of(times, "end") or None,
        }
        try:
            orders.append(Order.from_payload(payload, origin))
        except OrderError as error:
            raise CimError(f"CIM message: EndDeviceControl of {meter!r}: {error}") from None
    return orders


def control_reply(
    source: str, created_at: datetime, request: ControlRequest, outcomes: list[OrderOutcome]
) -> CimMessage:
    """The ResponseMessage: OK, PARTIAL or FAILED, and an Error for each order that was not done."""
    failed = [outcome for outcome in outcomes if outcome.error]
    result = "OK" if not failed else "FAILED" if len(failed) == len(outcomes) else "PARTIAL"
    errors: list[Node] = [
        {"code": NOT_DONE, "level": "FATAL", "reason": outcome.error, "ID": outcome.order.target}
        for outcome in failed
    ]
    return _reply(source, created_at, request.correlation_id, result, errors)


def refusal(source: str, created_at: datetime, correlation_id: str, reason: str) -> CimMessage:
    """The ResponseMessage to what was not even understood."""
    errors: list[Node] = [{"code": INVALID_REQUEST, "level": "FATAL", "reason": reason}]
    return _reply(source, created_at, correlation_id, "FAILED", errors)


def _reply(
    source: str, created_at: datetime, correlation_id: str, result: str, errors: list[Node]
) -> CimMessage:
    node: Node = {"Result": result}
    if errors:
        node["Error"] = errors
    identity = message_id(source, "reply", correlation_id, result, len(errors))
    header = Header("reply", END_DEVICE_CONTROLS, created_at, source, identity, correlation_id)
    return CimMessage("ResponseMessage", header, reply=node)
