"""A head-end for the far side of both uplinks: it receives, confirms, and keeps account.

What it keeps is what a utility would reconcile: each value once by (meter, OBIS, time). A message that is
delivered again (same number) is a repeat, which at-least-once delivery allows; the same value under
another number is a duplicate, which nothing allows, unless it comes with other qualities: then it was judged anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import cbor2
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.profile import capture_objects
from concentrator.dlms.reader import Reader
from concentrator.dlms.wrapper import WrapperDecoder, WrapperFrame
from concentrator.model import Quality
from concentrator.obis import Obis
from concentrator.uplink.messages import quality_names

ValueKey = tuple[str, str, int]
# Invoke ids start anew with each connection: a push that comes again is told by its values alone.
_ONE_MESSAGE = 0


class Ledger:
    """What arrived, by (meter, OBIS, seconds since 1970)."""

    def __init__(self) -> None:
        self.values: dict[ValueKey, int | str] = {}
        self.messages = 0
        self.repeats = 0
        self.duplicates = 0
        self.conflicts = 0
        self.qualities: dict[ValueKey, frozenset[str]] = {}
        self._numbers: dict[ValueKey, int] = {}

    def take(  # noqa: PLR0913 - what tells one value from another
        self,
        meter: str,
        obis: str,
        at: int,
        value: int | str,
        number: int,
        qualities: frozenset[str] = frozenset(),
    ) -> None:
        """Account for one value that came with message `number`; an estimate gives way to what was measured."""
        key = (meter, obis, at)
        before = self.qualities.get(key)
        self.qualities[key] = qualities
        if (
            before is not None
            and before != qualities
            and ("estimated" in before or self.values[key] == value)
        ):
            del self._numbers[key]
        known = self._numbers.get(key)
        if known is None:
            self.values[key] = value
            self._numbers[key] = number
        elif self.values[key] != value:
            self.conflicts += 1
        elif known == number:
            self.repeats += 1
        else:
            self.duplicates += 1


class MqttReceiver:
    """Subscribes to everything that concentrators send; paho's thread does the work."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.statuses: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        # Called with topic and payload of each message, in paho's thread.
        self.look: Callable[[str, bytes], None] | None = None
        # Meter and payload of each event, as often as it came.
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id="head-end",
            protocol=MQTTProtocolVersion.MQTTv311,
            clean_session=False,
        )
        self.subscribed = False
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 2)

    def start(self, host: str, port: int) -> None:
        """Connect, and stay connected."""
        self._client.connect_async(host, port)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def send_order(self, site: str, concentrator: str, order: dict[str, Any]) -> None:
        """Publish an order to one concentrator."""
        self._client.publish(f"dcu/v1/{site}/{concentrator}/cmd", json.dumps(order), qos=1)

    def _on_connect(self, client: paho.Client, *_rest: object) -> None:
        client.subscribe("dcu/v1/#", qos=1)

    def _on_subscribe(self, *_rest: object) -> None:
        self.subscribed = True

    def _on_disconnect(self, *_rest: object) -> None:
        self.subscribed = False

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if self.look is not None:
            self.look(message.topic, bytes(message.payload))
        parts = message.topic.split("/")
        if not message.payload or message.payload[:1] == b"<":
            # CIM in XML is for another kind of head-end.
            return
        payload = json.loads(message.payload) if message.payload[:1] == b"{" else cbor2.loads(message.payload)
        match parts[4:]:
            case ["m", meter, "reading"]:
                self.ledger.messages += 1
                for item in payload["values"]:
                    self._take(meter, payload["obis"], item, payload["seq"])
            case ["m", meter, "register"]:
                self.ledger.messages += 1
                for item in payload["items"]:
                    self._take(meter, item["obis"], item, payload["seq"])
            case ["m", meter, "event"]:
                self.events.append((meter, payload))
            case ["status"]:
                self.statuses.append(payload)
            case ["cmd", _order, "result"]:
                self.results.append(payload)
            case _:
                pass

    def _take(self, meter: str, obis: str, item: dict[str, Any], number: int) -> None:
        qualities = frozenset(item.get("q", ()))
        self.ledger.take(meter, obis, _epoch(item["t"]), item["v"], number, qualities)


def _epoch(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp())


class PushReceiver:
    """Listens for data-notifications over the TCP wrapper and confirms those that ask for it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        # Meter, seconds since 1970 and code of each event, as often as it came.
        self.events: list[tuple[str, int, int]] = []
        self.port = 0
        self.malformed = 0
        # False: a head-end that takes everything and confirms nothing.
        self.confirms = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, host: str, port: int = 0) -> None:
        """Listen; `port` says where, when 0 was given."""
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and close what is open."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = WrapperDecoder()
        self._writers.add(writer)
        try:
            while data := await reader.read(4096):
                decoder.receive_data(data)
                while (frame := decoder.next_event()) is not None:
                    confirm = self._take(frame.apdu)
                    if confirm is not None:
                        writer.write(WrapperFrame(frame.destination, frame.source, confirm).to_bytes())
                        await writer.drain()
        except (DlmsError, ValueError):
            self.malformed += 1
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, apdu: bytes) -> bytes | None:
        if apdu[0] != DataNotification.TAG:
            self.malformed += 1
            return None
        notification = DataNotification.read(Reader(apdu, 1))
        meter, profile, columns, rows, _units, marks = notification.body.items(6)
        captured = capture_objects(columns)
        name = meter.octets().decode()
        self.ledger.messages += 1
        # Event logs and alarm objects: abstract objects 99.98 and 97.98.
        is_event = profile.octets()[2:4] in (b"\x63\x62", b"\x61\x62")
        flags = {
            (mark.items(3)[0].integer(), mark.items(3)[1].integer()): mark.items(3)[2].integer()
            for mark in marks.items()
        }
        for number, row in enumerate(rows.items()):
            cells = row.items(len(captured))
            at = round(CosemDateTime.from_bytes(cells[0].octets()).to_utc().timestamp())
            for place, (column, cell) in list(enumerate(zip(captured, cells, strict=True)))[2:]:
                if is_event:
                    self.events.append((name, at, cell.integer()))
                elif not cell.is_null:
                    value = cell.native
                    self.ledger.take(
                        name,
                        str(Obis(*column.obis)),
                        at,
                        value if isinstance(value, int | str) else str(value),
                        _ONE_MESSAGE,
                        frozenset(quality_names(Quality(flags.get((number, place), 0)))),
                    )
        if not notification.confirmed or not self.confirms:
            return None
        return DataNotificationConfirm(notification.long_invoke, notification.date_time).to_bytes()
