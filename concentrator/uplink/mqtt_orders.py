"""Orders that come by MQTT, and what becomes of them on its way back.

An order that asks for a response topic gets its results there, with its correlation data (MQTT 5, section 4.10). That
topic has to be below our own `reply/`, or where the configuration allows: otherwise whoever may give orders could have
this box publish anywhere that its access list reaches, such as to the orders of another box.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import cbor2
import paho.mqtt.client as paho
import structlog

from concentrator.cim.controls import (
    ControlRequest,
    OrderOutcome,
    control_reply,
    controls_requested,
    refusal,
)
from concentrator.cim.errors import CimError
from concentrator.cim.message import CimMessage, message_id, parse, text_of
from concentrator.clock import Clock
from concentrator.errors import ConcentratorError
from concentrator.orders import MQTT, Order, OrderError, OrderHandler, OrderRefusedError
from concentrator.uplink.messages import CBOR, JSON, SCHEMA, Encoding, Topics, timestamp
from concentrator.uplink.mqtt_connection import Connection, message_properties

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_LARGEST_COMMAND_OCTETS = 64 * 1024
_LARGEST_CORRELATION_OCTETS = 1024
_LARGEST_RESPONSE_TOPIC = 512
_MOST_ORDERS_UNDER_WAY = 1024
_MOST_RESULTS_KEPT = 1000
_DEEPEST = 32
_FIRST_OF_CIM_OCTETS = 512
# A result is of no use after the broker has kept it this long for a head-end that is away.
_RESULT_EXPIRY_S = 7 * 86_400
_ENDED = ("done", "failed", "expired")
_ORDER_ID = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
# A CBOR map (RFC 8949, major type 5) begins with these octets; no JSON text does.
_CBOR_MAP = range(0xA0, 0xC0)


@dataclass(frozen=True, slots=True)
class _Return:
    """How the results of an order go back."""

    topic: str = ""  # "": to the order's own result topic
    correlation: bytes = b""
    encoding: Encoding = JSON


@dataclass(frozen=True, slots=True)
class _Result:
    topic: str
    payload: bytes
    correlation: bytes
    content_type: str


def is_cim(payload: bytes, content_type: str = "") -> bool:
    """Whether a payload is an IEC 61968 message: XML, or a JSON object with a Header."""
    if content_type.split(";", maxsplit=1)[0].strip().lower() in ("application/xml", "text/xml"):
        return True
    start = payload.lstrip(b"\xef\xbb\xbf \t\r\n")[:_FIRST_OF_CIM_OCTETS]
    return start.startswith(b"<") or (start.startswith(b"{") and b'"Header"' in start)


def decode_order(payload: bytes, content_type: str = "") -> tuple[object, Encoding]:
    """A payload as JSON values, and how it was written: by its content type, else by its first octet.

    Raises:
        OrderError: it is neither JSON nor CBOR with nothing but JSON's values.
    """
    said = content_type.split(";", maxsplit=1)[0].strip().lower()
    if said not in ("", JSON.content_type, CBOR.content_type):
        raise OrderError(
            f"content type: got {content_type[:80]!r}; allowed: application/json, application/cbor"
        )
    is_cbor = said == CBOR.content_type or (not said and payload[:1] != b"" and payload[0] in _CBOR_MAP)
    words = "an order is a JSON object with id, op and target"
    try:
        value: object = cbor2.loads(payload) if is_cbor else json.loads(payload)
    except (ValueError, RecursionError, OverflowError, TypeError, MemoryError):
        raise OrderError(words) from None
    except cbor2.CBORError:
        raise OrderError(words) from None
    if is_cbor and not _is_plain(value, _DEEPEST):
        raise OrderError(f"{words}: its CBOR may hold only what JSON can say")
    return value, CBOR if is_cbor else JSON


def _is_plain(value: object, depth: int) -> bool:
    if value is None or isinstance(value, str | bool | int | float):
        return True
    if depth == 0:
        return False
    if isinstance(value, list):
        return all(_is_plain(one, depth - 1) for one in cast("list[object]", value))
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return all(isinstance(name, str) and _is_plain(one, depth - 1) for name, one in items)
    return False


class OrderDesk:
    """Takes orders from one broker, and keeps each result until that broker has it."""

    def __init__(
        self,
        topics: Topics,
        clock: Clock,
        handle_order: OrderHandler,
        reply_prefixes: str,
        encoding: Encoding = JSON,
    ) -> None:
        self.connection: Connection | None = None
        self._topics = topics
        self._source = f"{topics.site}/{topics.concentrator}"
        self._clock = clock
        self._handle_order = handle_order
        self._encoding = encoding
        self._reply_prefixes = (
            topics.replies,
            *(f"{one}/" for one in reply_prefixes.replace(",", " ").split()),
        )
        self._under_way: set[asyncio.Task[None]] = set()
        self._returns: dict[str, _Return] = {}
        # What became of orders, as long as the broker has not said that it has it.
        self._results: dict[int, _Result] = {}
        self._numbers = count()

    def use(self, connection: Connection | None) -> None:
        """Send on this connection from now on, what is left first."""
        self.connection = connection
        for number in list(self._results):
            self._send(number)

    def received(self, message: paho.MQTTMessage) -> None:
        """A message came on the topic of orders."""
        properties = message.properties
        self.take(
            bytes(message.payload),
            retained=message.retain,
            content_type=str(getattr(properties, "ContentType", "")),
            response_topic=str(getattr(properties, "ResponseTopic", "")),
            correlation=bytes(getattr(properties, "CorrelationData", b"")),
            user_properties=getattr(properties, "UserProperty", ()),
        )

    def take(  # noqa: PLR0913 - what an order may come with
        self,
        payload: bytes,
        *,
        retained: bool = False,
        content_type: str = "",
        response_topic: str = "",
        correlation: bytes = b"",
        user_properties: object = (),
    ) -> None:
        """Take one order, or refuse it with words."""
        way = _Return(encoding=self._encoding)
        cim: ControlRequest | None = None
        order: Order | None = None
        try:
            if len(payload) > _LARGEST_COMMAND_OCTETS:
                raise OrderError(f"an order has at most {_LARGEST_COMMAND_OCTETS} octets, got {len(payload)}")
            if retained:
                raise OrderError(
                    "the order was retained by the broker, so it is old; publish orders without retain"
                )
            if len(self._under_way) >= _MOST_ORDERS_UNDER_WAY:
                raise OrderError(f"{_MOST_ORDERS_UNDER_WAY} orders are being taken in; give it later")
            self._check_schema(user_properties)
            if is_cim(payload, content_type):
                way = _Return(self._allowed(response_topic), self._short(correlation))
                cim = controls_requested(parse(payload), MQTT)
            else:
                value, encoding = decode_order(payload, content_type)
                way = _Return(self._allowed(response_topic), self._short(correlation), encoding)
                self._check_number(_field(value, "schema", SCHEMA))
                order = Order.from_payload(value, MQTT)
                if response_topic or correlation or encoding is not self._encoding:
                    self._remember(order.order_id, way)
        except CimError as error:
            self._refuse_cim(payload, str(error), way)
            return
        except OrderError as error:
            self._refuse(payload, str(error), way)
            return
        if cim is not None:
            work = self._carry_out_controls(cim, way)
        elif order is not None:
            work = self._carry_out(order)
        else:
            return
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _remember(self, order_id: str, way: _Return) -> None:
        self._returns[order_id] = way
        while len(self._returns) > _MOST_ORDERS_UNDER_WAY:
            del self._returns[next(iter(self._returns))]

    def _check_schema(self, user_properties: object) -> None:
        pairs = cast("list[tuple[str, str]]", user_properties) if isinstance(user_properties, list) else []
        for name, value in pairs:
            if name == "schema":
                self._check_number(int(value) if value.isdecimal() and len(value) < 10 else value)  # noqa: PLR2004 - digits

    @staticmethod
    def _check_number(given: object) -> None:
        if type(given) is not int or given != SCHEMA:
            raise OrderError(f"schema: got {given!r}; allowed: {SCHEMA}")

    def _allowed(self, topic: str) -> str:
        if not topic:
            return ""
        sound = len(topic) <= _LARGEST_RESPONSE_TOPIC and not re.search(r"[+#\x00-\x1f\x7f]", topic)
        if not sound or not topic.startswith(self._reply_prefixes):
            raise OrderError(
                f"response topic: got {topic[:80]!r}; allowed: what begins with {' or '.join(self._reply_prefixes)}"
            )
        return topic

    @staticmethod
    def _short(correlation: bytes) -> bytes:
        if len(correlation) > _LARGEST_CORRELATION_OCTETS:
            raise OrderError(
                f"correlation data: got {len(correlation)} octets; allowed: {_LARGEST_CORRELATION_OCTETS}"
            )
        return correlation

    def _refuse(self, payload: bytes, reason: str, way: _Return) -> None:
        """Tell the sender of what was not even read, where its id can be found."""
        log.warning("order refused", octets=len(payload), reason=reason)
        order_id = _id_of(payload[:_LARGEST_COMMAND_OCTETS])
        if order_id is not None:
            self._keep(order_id, {"state": "failed", "error": reason}, way)

    async def _carry_out(self, order: Order) -> None:
        try:
            await self._handle_order(order)
        except OrderRefusedError as error:
            self._publish(order.order_id, {"state": "failed", "error": str(error)})
        except ConcentratorError as error:
            # Told by `tell`, like every state of an order that was taken.
            log.info("order not carried out", order=order.order_id, reason=str(error))

    async def _carry_out_controls(self, asked: ControlRequest, way: _Return) -> None:
        """All orders of a CIM message at once; its answer when the last has ended."""

        async def carry_out(order: Order) -> OrderOutcome:
            try:
                await self._handle_order(order)
            except ConcentratorError as error:
                return OrderOutcome(order, str(error))
            return OrderOutcome(order)

        outcomes = await asyncio.gather(*(carry_out(order) for order in asked.orders))
        answer = control_reply(self._source, self._clock.now(), asked, list(outcomes))
        self._keep_cim(answer, asked.media_type, way)

    def _refuse_cim(self, payload: bytes, reason: str, way: _Return) -> None:
        log.warning("CIM message refused", octets=len(payload), reason=reason)
        try:
            received = parse(payload)
        except CimError:
            return
        name = text_of(received.header, "CorrelationID") or text_of(received.header, "MessageID")
        if name:
            self._keep_cim(refusal(self._source, self._clock.now(), name, reason), received.media_type, way)

    def _keep_cim(self, answer: CimMessage, media_type: str, way: _Return) -> None:
        name = message_id(answer.header.correlation_id)
        topic = way.topic or self._topics.response_message(name)
        self._keep_result(_Result(topic, answer.encode(media_type), way.correlation, media_type))

    def tell(self, order: Order, state: str, outcome: dict[str, Any]) -> None:
        """An order that came by MQTT has changed its state: its sender is told, here or on the next connection."""
        if order.origin == MQTT:
            fields = {"result": outcome} if state == "done" else outcome
            self._publish(order.order_id, {"state": state, **fields})

    def _publish(self, order_id: str, fields: dict[str, Any]) -> None:
        way = self._returns.get(order_id, _Return(encoding=self._encoding))
        if fields["state"] in _ENDED:
            self._returns.pop(order_id, None)
        self._keep(order_id, fields, way)

    def _keep(self, order_id: str, fields: dict[str, Any], way: _Return) -> None:
        body = {"schema": SCHEMA, "id": order_id, **fields, "ts": timestamp(self._clock.now())}
        self._keep_result(
            _Result(
                way.topic or self._topics.result(order_id),
                way.encoding.encode(body),
                way.correlation,
                way.encoding.content_type,
            )
        )

    def _keep_result(self, result: _Result) -> None:
        number = next(self._numbers)
        self._results[number] = result
        while len(self._results) > _MOST_RESULTS_KEPT:
            log.warning("a result was dropped: the broker takes none", kept=_MOST_RESULTS_KEPT)
            del self._results[next(iter(self._results))]
        self._send(number)

    def _send(self, number: int) -> None:
        """Send a result; it is kept until the broker has it."""
        if self.connection is None:
            return

        def acknowledged(code: int) -> None:
            if code < 0x80:  # noqa: PLR2004 - MQTT 5, 2.4: failures
                self._results.pop(number, None)

        result = self._results[number]
        more: dict[str, object] = {"MessageExpiryInterval": _RESULT_EXPIRY_S}
        if result.correlation:
            more["CorrelationData"] = result.correlation
        self.connection.publish(
            result.topic,
            result.payload,
            acknowledged,
            properties=message_properties(result.content_type, SCHEMA, **more),
        )


def _id_of(payload: bytes) -> str | None:
    found = _ORDER_ID.search(payload)
    if found is not None:
        return found[1].decode()
    try:
        value, _encoding = decode_order(payload)
    except OrderError:
        return None
    order_id = _field(value, "id", None)
    return order_id if isinstance(order_id, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", order_id) else None


def _field(value: object, name: str, default: object) -> object:
    return cast("dict[str, object]", value).get(name, default) if isinstance(value, dict) else default
