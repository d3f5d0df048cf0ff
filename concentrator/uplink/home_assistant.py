"""Meters announce themselves to Home Assistant by MQTT discovery, as whole devices.

Of each meter: a retained message under the discovery prefix that names the device, where it comes from (origin) and its
components (sensors), and a retained message with its latest values as plain numbers. From the same table of units come
device class, state class and unit, so that no sensor can be announced that has no value. All of it is made from the
store, not from the queue: it may come late or twice, and nothing is owed to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from importlib.metadata import version
from typing import Any

import structlog

from concentrator.model import Quality, Reading
from concentrator.obis import Obis
from concentrator.obis_words import describe
from concentrator.store.errors import StoreError
from concentrator.store.latest import LatestValue, meters_since
from concentrator.store.store import Store
from concentrator.units import unit_symbol
from concentrator.uplink.messages import JSON, SCHEMA, Topics, encode, timestamp
from concentrator.uplink.mqtt_connection import Connection, message_properties

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_POLL_INTERVAL_S = 5.0
_GONE = ("removed", "foreign")
_TOTAL, _MOMENT = "total_increasing", "measurement"
# By Blue Book unit code: device class, state class and unit as Home Assistant spells it, and the power of ten by which
# its unit differs from ours. Device class "" where it knows none.
_CLASSES: dict[int, tuple[str, str, str, int]] = {
    9: ("temperature", _MOMENT, "°C", 0),
    13: ("volume", _TOTAL, "m³", 0),
    14: ("volume", _TOTAL, "m³", 0),
    15: ("volume_flow_rate", _MOMENT, "m³/h", 0),
    16: ("volume_flow_rate", _MOMENT, "m³/h", 0),
    23: ("pressure", _MOMENT, "Pa", 0),
    24: ("pressure", _MOMENT, "bar", 0),
    25: ("energy", _TOTAL, "kJ", -3),
    27: ("power", _MOMENT, "W", 0),
    28: ("apparent_power", _MOMENT, "VA", 0),
    29: ("reactive_power", _MOMENT, "var", 0),
    30: ("energy", _TOTAL, "Wh", 0),
    32: ("reactive_energy", _TOTAL, "varh", 0),
    33: ("current", _MOMENT, "A", 0),
    35: ("voltage", _MOMENT, "V", 0),
    44: ("frequency", _MOMENT, "Hz", 0),
    56: ("", _MOMENT, "%", 0),
}
# Of water, "volume" is a tank's content, and what a meter counts has a class of its own.
_COUNTED_VOLUME = {"water": "water", "hot_water": "water", "gas": "gas"}


def component_key(obis: Obis) -> str:
    """A channel's name in keys: letters, digits and underscores only."""
    return re.sub(r"[^0-9A-Za-z]+", "_", str(obis))


def plain_value(reading: Reading, ten: int = 0) -> str | None:
    """The value in its unit, as a decimal number without exponent; None when it is not a sound number."""
    if isinstance(reading.value, str):
        return reading.value
    if reading.quality & (Quality.WRONG_DIGITS | Quality.SUSPECT):
        return None
    return format(Decimal(reading.value).scaleb(reading.channel.scaler + ten), "f")


def _ten_of(value: LatestValue) -> int:
    return _CLASSES.get(value.reading.channel.unit, ("", "", "", 0))[3]


def chosen(values: Sequence[LatestValue]) -> dict[str, LatestValue]:
    """Of each OBIS code the newest value, whatever profile it came from, by its key."""
    newest: dict[str, LatestValue] = {}
    for value in values:
        key = component_key(value.reading.channel.obis)
        if key not in newest or newest[key].reading.captured_at < value.reading.captured_at:
            newest[key] = value
    return newest


def discovery(topics: Topics, meter: dict[str, Any], values: dict[str, LatestValue]) -> dict[str, Any]:
    """The device with its sensors, in Home Assistant's abbreviated form."""
    identity, medium = meter["id"], meter["medium"]
    components: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        channel = value.reading.channel
        component: dict[str, Any] = {
            "p": "sensor",
            "uniq_id": f"{topics.concentrator}_{identity}_{key}",
            "name": describe(channel.obis) or str(channel.obis),
            "val_tpl": f"{{{{ value_json.values['{key}'] }}}}",
        }
        if not isinstance(value.reading.value, str):
            device_class, state_class, unit, _ten = _CLASSES.get(channel.unit, ("", "", "", 0))
            if device_class == "volume":
                device_class = _COUNTED_VOLUME.get(medium, device_class)
            unit = unit or unit_symbol(channel.unit)
            component |= {"dev_cla": device_class} if device_class else {}
            component |= {"stat_cla": state_class} if state_class else {}
            component |= {"unit_of_meas": unit} if unit else {}
        components[key] = component
    return {
        "dev": {
            "ids": [f"{topics.concentrator}_{identity}"],
            "name": f"{medium.replace('_', ' ').capitalize()} meter {identity}",
            "sn": identity,
            "via_device": topics.concentrator,
        },
        "o": {"name": "open-data-concentrator", "sw": version("open-data-concentrator")},
        "cmps": components,
        "stat_t": topics.meter(identity, "latest"),
        "avty_t": topics.status,
        "avty_tpl": "{{ value_json.state }}",
        "qos": 1,
    }


def latest_body(values: dict[str, LatestValue]) -> dict[str, Any]:
    """The latest values of a meter."""
    newest = max(one.reading.captured_at for one in values.values())
    return {
        "schema": SCHEMA,
        "t": timestamp(newest),
        "values": {key: plain_value(one.reading, _ten_of(one)) for key, one in values.items()},
    }


class HomeAssistant:
    """Keeps the announcements of one broker in step with the store."""

    def __init__(
        self, topics: Topics, prefix: str, store: Store, meters: Callable[[], Sequence[dict[str, Any]]]
    ) -> None:
        self._topics = topics
        self._prefix = prefix
        self._store = store
        self._meters = meters
        # Announced on this connection or an earlier one of this run.
        self._announced: dict[str, bytes] = {}
        self._properties = message_properties(JSON.content_type, SCHEMA)

    def topic(self, identity: str) -> str:
        """Where a meter is announced."""
        return f"{self._prefix}/device/{self._topics.concentrator}_{identity}/config"

    async def run(self, connection: Connection) -> None:
        """Announce every meter, and what changes, until cancelled."""
        self._announced.clear()
        sequence = 0
        while True:
            listed = {one["id"]: one for one in self._meters()}
            try:
                after = sequence
                changed, sequence = await self._store.read(lambda c, after=after: meters_since(c, after))
                for identity in sorted(changed | (listed.keys() - self._announced.keys())):
                    if identity in listed and listed[identity]["state"] not in _GONE:
                        await self._announce(connection, listed[identity])
            except StoreError as error:
                log.warning("latest values cannot be read", reason=str(error))
            for identity, one in listed.items():
                if one["state"] in _GONE and self._announced.get(identity) != b"":
                    await self._remove(connection, identity)
            for identity in [
                one for one, payload in self._announced.items() if payload and one not in listed
            ]:
                await self._remove(connection, identity)
            await self._store.wait_for_newer(sequence, _POLL_INTERVAL_S)
            await asyncio.sleep(1.0)

    async def _announce(self, connection: Connection, meter: dict[str, Any]) -> None:
        identity = meter["id"]
        values = chosen(await self._store.latest_values(identity))
        if not values:
            return
        payload = encode(discovery(self._topics, meter, values))
        if self._announced.get(identity) != payload:
            self._announced[identity] = payload
            await connection.publish_and_wait(
                self.topic(identity), payload, retain=True, properties=self._properties
            )
        await connection.publish_and_wait(
            self._topics.meter(identity, "latest"),
            encode(latest_body(values)),
            retain=True,
            properties=self._properties,
        )

    async def _remove(self, connection: Connection, identity: str) -> None:
        """An empty retained message takes a device from Home Assistant, and its last values from the broker."""
        self._announced[identity] = b""
        for topic in (self.topic(identity), self._topics.meter(identity, "latest")):
            await connection.publish_and_wait(topic, b"", retain=True)
