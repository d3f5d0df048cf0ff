"""One connection to an MQTT broker: paho behind an asyncio face, with the limits that the broker told.

paho runs its network loop in a thread of its own; its callbacks are handed to the event loop and do
nothing else. Each connection gets a new client object, so that nothing is kept in the library's memory
across connections: the store is the only queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from concentrator.client_tls import client_context
from concentrator.config import BrokerSection
from concentrator.uplink.mqtt_reasons import PROTOCOL_ERROR, UNSPECIFIED, Remedy, in_words, reason_of
from concentrator.uplink.uplink import RECEIVED, SENT, UplinkLostError

_CONNECT_TIMEOUT_S = 20.0
_FAREWELL_TIMEOUT_S = 2.0
# MQTT 5, section 3.1.2.11: what we can take. A larger order is refused with words up to here, and dropped above.
_LARGEST_INCOMING_OCTETS = 1024 * 1024
_MOST_INCOMING = 64
_LARGEST_PACKET_OCTETS = 268_435_460
_LARGEST_RECEIVE_MAXIMUM = 65_535
# Fixed header, packet identifier, lengths of topic and properties.
_PACKET_OVERHEAD_OCTETS = 16

Acknowledged = Callable[[int], None]
Passed = Callable[[str, str, int], None]


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What the broker told in its CONNACK (MQTT 5, section 3.2.2.3). MQTT 3.1.1 tells nothing."""

    receive_maximum: int = _LARGEST_RECEIVE_MAXIMUM
    packet_octets: int = _LARGEST_PACKET_OCTETS
    maximum_qos: int = 2
    retain: bool = True

    @classmethod
    def from_properties(cls, properties: object) -> BrokerLimits:
        """Read the properties of a CONNACK."""
        return cls(
            getattr(properties, "ReceiveMaximum", _LARGEST_RECEIVE_MAXIMUM),
            getattr(properties, "MaximumPacketSize", _LARGEST_PACKET_OCTETS),
            getattr(properties, "MaximumQoS", 2),
            bool(getattr(properties, "RetainAvailable", 1)),
        )


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when we are lost."""

    topic: str
    payload: bytes
    retain: bool = True
    content_type: str = ""


class BrokerRefusedError(UplinkLostError):
    """The broker ended it with a reason code."""

    def __init__(self, code: int, said: str = "", what: str = "the broker refused us") -> None:
        super().__init__(f"{what}: {in_words(code, said)}")
        self.code = code

    @property
    def lasts(self) -> bool:
        """Whether trying again soon is pointless."""
        return reason_of(self.code).remedy is Remedy.WAIT_LONG


def message_properties(content_type: str, schema: int, **more: object) -> Properties:
    """Properties of a PUBLISH; `more` by their names in paho."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = content_type
    properties.UserProperty = [("schema", str(schema))]
    for name, value in more.items():
        setattr(properties, name, value)
    return properties


@dataclass(frozen=True, slots=True)
class _Publish:
    topic: str
    payload: bytes
    acknowledged: Acknowledged | None
    retain: bool
    qos: int
    properties: Properties | None


class Connection:
    """One connection of one client. Lives until it is lost; everything here runs on the event loop."""

    def __init__(
        self,
        broker: BrokerSection,
        client_id: str,
        will: Will,
        received: Callable[[paho.MQTTMessage], None],
        *,
        session_expiry_s: int = 0,
        passed: Passed | None = None,
    ) -> None:
        """`session_expiry_s`: how long the broker keeps our subscriptions while we are away; 0: it begins anew.

        `passed` is told of each message: direction, topic, octets of its payload.
        """
        self.limits = BrokerLimits()
        self.five = broker.protocol == "5"
        self._loop = asyncio.get_running_loop()
        self._broker = broker
        self._session_expiry_s = session_expiry_s
        self._received = received
        self._passed = passed
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[UplinkLostError] = self._loop.create_future()
        self._unacknowledged: dict[int, Acknowledged | None] = {}
        # More than the broker takes at a time.
        self._waiting: deque[_Publish] = deque()
        self._subscriptions: dict[int, asyncio.Future[None]] = {}
        # From paho's thread to the loop: many acknowledgements are handed over at once.
        self._published: deque[tuple[int, int]] = deque()
        self._handing_over = False
        self._client = self._make_client(client_id, will)

    def _make_client(self, client_id: str, will: Will) -> paho.Client:
        broker = self._broker
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self.five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self.five else self._session_expiry_s == 0,
            reconnect_on_failure=False,
        )
        if broker.username:
            password = Path(broker.password_file).read_text().strip() if broker.password_file else None
            client.username_pw_set(broker.username, password)
        if broker.tls:
            context = client_context(broker.ca_file, broker.certificate_file, broker.private_key_file)
            client.tls_set_context(context)  # pyright: ignore[reportUnknownMemberType] - untyped in paho
        # The window is kept here: it follows the broker's receive maximum, which paho does not.
        client.max_inflight_messages_set(0)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        properties = None
        if self.five:
            properties = Properties(PacketTypes.WILLMESSAGE)
            if will.content_type:
                properties.ContentType = will.content_type
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    async def open(self) -> None:
        """Connect; returns when the broker has accepted us.

        Raises:
            BrokerRefusedError: it did not.
            UplinkLostError: it cannot be reached, or does not answer.
        """
        broker = self._broker
        arguments: dict[str, Any] = {}
        if self.five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self._session_expiry_s
            properties.ReceiveMaximum = _MOST_INCOMING
            properties.MaximumPacketSize = _LARGEST_INCOMING_OCTETS
            arguments = {"clean_start": self._session_expiry_s == 0, "properties": properties}
        try:
            await asyncio.to_thread(
                self._client.connect, broker.host, broker.port, broker.keep_alive_s, **arguments
            )
        except (OSError, ValueError) as error:
            raise UplinkLostError(str(error) or type(error).__name__) from error
        self._client.loop_start()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._connected
        except TimeoutError:
            raise UplinkLostError("the broker does not answer CONNECT") from None

    async def close(self, *farewell: tuple[str, bytes]) -> None:
        """Publish the last retained messages where the connection still stands, and end it and paho's thread."""
        if not self.lost.done():
            for topic, payload in farewell:
                info = self._client.publish(topic, payload, qos=1, retain=self.limits.retain)
                await asyncio.to_thread(_wait_for_publish, info)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def watch(self) -> None:
        """Wait until the connection is lost.

        Raises:
            UplinkLostError: it was; the text says why.
        """
        raise await asyncio.shield(self.lost)

    def give_up(self, error: UplinkLostError) -> None:
        """Call the connection lost."""
        if not self.lost.done():
            self.lost.set_result(error)

    def fits(self, topic: str, payload: bytes, properties_octets: int) -> bool:
        """Tell whether the broker takes a packet of this size."""
        octets = _PACKET_OVERHEAD_OCTETS + len(topic) + len(payload) + properties_octets
        return octets <= self.limits.packet_octets

    async def subscribe(self, *topics: str, qos: int = 1) -> None:
        """Listen to topics; returns when the broker has answered, and so has taken all that was sent before.

        Raises:
            UplinkLostError: it does not answer.
        """
        _result, number = self._client.subscribe([(topic, qos) for topic in topics])
        if number is None:
            raise UplinkLostError("the connection is not open any more")
        answered: asyncio.Future[None] = self._loop.create_future()
        self._subscriptions[number] = answered
        try:
            async with asyncio.timeout(self._broker.acknowledge_timeout_s):
                await answered
        except TimeoutError:
            raise UplinkLostError("the broker does not answer SUBSCRIBE") from None

    def publish(  # noqa: PLR0913 - what a PUBLISH has
        self,
        topic: str,
        payload: bytes,
        acknowledged: Acknowledged | None = None,
        *,
        retain: bool = False,
        qos: int = 1,
        properties: Properties | None = None,
    ) -> None:
        """Publish; `acknowledged` is called with the broker's reason code (QoS 1)."""
        request = _Publish(topic, payload, acknowledged, retain, qos, properties)
        if qos and (self._waiting or len(self._unacknowledged) >= self.limits.receive_maximum):
            self._waiting.append(request)
        else:
            self._publish_now(request)

    def _publish_now(self, request: _Publish) -> None:
        if self._passed is not None:
            self._passed(SENT, request.topic, len(request.payload))
        info = self._client.publish(
            request.topic,
            request.payload,
            request.qos,
            request.retain and self.limits.retain,
            request.properties if self.five else None,
        )
        if request.qos and info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            # The PUBACK is handed to this loop, so it cannot overtake this line.
            self._unacknowledged[info.mid] = request.acknowledged

    async def publish_and_wait(
        self, topic: str, payload: bytes, *, retain: bool = False, properties: Properties | None = None
    ) -> int:
        """Publish with QoS 1 and return the broker's reason code; whoever waits is cancelled when it is lost."""
        answered: asyncio.Future[int] = self._loop.create_future()

        def acknowledged(code: int) -> None:
            if not answered.done():
                answered.set_result(code)

        self.publish(topic, payload, acknowledged, retain=retain, properties=properties)
        return await answered

    # Callbacks of paho's thread: each only hands over to the loop.

    def _on_connect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, properties: object
    ) -> None:
        self._call_soon(self._connect_answered, reason, properties)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: object,
    ) -> None:
        self._call_soon(self._disconnected, flags.is_disconnect_packet_from_server, reason, properties)

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._published.append((mid, reason.value))
        if not self._handing_over:
            self._handing_over = True
            self._call_soon(self._take_published)

    def _on_subscribe(
        self, _client: paho.Client, _data: object, mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        self._call_soon(self._subscribed, mid, [reason.value for reason in reasons])

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._call_soon(self._message_came, message)

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the loop.

    def _message_came(self, message: paho.MQTTMessage) -> None:
        if self._passed is not None:
            self._passed(RECEIVED, message.topic, len(message.payload))
        self._received(message)

    def _connect_answered(self, reason: ReasonCode, properties: object) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            self._connected.set_exception(BrokerRefusedError(reason.value, _said(properties)))
        else:
            self.limits = BrokerLimits.from_properties(properties)
            self._connected.set_result(None)

    def _disconnected(self, by_server: object, reason: ReasonCode, properties: object) -> None:
        if by_server and reason.is_failure:
            error: UplinkLostError = BrokerRefusedError(
                reason.value, _said(properties), "the broker ended the connection"
            )
        elif not by_server and reason.value == PROTOCOL_ERROR:
            # paho gave up: Mosquitto 2.0 puts reason codes into a PUBACK that a PUBACK cannot have.
            error = BrokerRefusedError(reason.value, what="what the broker sent breaks the protocol")
        elif by_server:
            error = UplinkLostError("the broker ended the connection")
        else:
            named = reason.value != UNSPECIFIED
            error = UplinkLostError(
                f"the connection was lost: {reason}" if named else "the connection was lost"
            )
        if not self._connected.done():
            self._connected.set_exception(error)
        for answered in self._subscriptions.values():
            if not answered.done():
                answered.set_exception(error)
        self._subscriptions.clear()
        self.give_up(error)

    def _take_published(self) -> None:
        self._handing_over = False
        while self._published:
            mid, code = self._published.popleft()
            acknowledged = self._unacknowledged.pop(mid, None)
            if acknowledged is not None:
                acknowledged(code)
            while self._waiting and len(self._unacknowledged) < self.limits.receive_maximum:
                self._publish_now(self._waiting.popleft())

    def _subscribed(self, mid: int, codes: list[int]) -> None:
        answered = self._subscriptions.pop(mid, None)
        if answered is None or answered.done():
            return
        refused = [code for code in codes if code >= 0x80]  # noqa: PLR2004 - MQTT 5, 2.4: failures
        if refused:
            answered.set_exception(BrokerRefusedError(refused[0], what="the broker refused a subscription"))
        else:
            answered.set_result(None)


def _said(properties: object) -> str:
    """What a broker adds to a reason: its own words, or where to go instead."""
    words = [str(getattr(properties, name, "")) for name in ("ReasonString", "ServerReference")]
    return ", ".join(word for word in words if word)


def _wait_for_publish(info: paho.MQTTMessageInfo) -> None:
    try:
        info.wait_for_publish(_FAREWELL_TIMEOUT_S)
    except (RuntimeError, ValueError):
        return
