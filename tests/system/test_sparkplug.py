"""Sparkplug B through a real broker, read by another implementation (pysparkplug)."""

from __future__ import annotations

import asyncio
import json

import paho.mqtt.client as paho
import pysparkplug
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from concentrator.config import SparkplugSection
from concentrator.uplink.sparkplug import SparkplugUplink
from concentrator.uplink.sparkplug_payload import BOOLEAN, Metric, Payload, encode_payload

from bench import LOOPBACK, until
from mqtt_rig import TOPICS, Rig, answer

pytestmark = pytest.mark.system

_KINDS = {
    "NBIRTH": pysparkplug.NBirth, "DBIRTH": pysparkplug.DBirth, "DDATA": pysparkplug.DData,
    "DDEATH": pysparkplug.DDeath, "NDEATH": pysparkplug.NDeath,
}  # fmt: skip


class Host:
    """A host application: keeps births, names and values, and checks the numbers."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, str, object]] = []
        self.values: dict[tuple[str, str, int], int] = {}
        self.births: dict[str, object] = {}
        self.historical = 0
        self.gaps = 0
        self.qos: set[int] = set()
        self._seq: int | None = None
        self.subscribed = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "host")
        self.client.on_message = self._take
        self.client.on_connect = lambda client, *_rest: client.subscribe("spBv1.0/lab/#", qos=1)
        self.client.on_subscribe = lambda *_rest: setattr(self, "subscribed", True)
        self.client.connect(LOOPBACK, port)
        self.client.loop_start()

    def _take(self, _client, _data, message) -> None:
        _space, _group, kind, _edge, *device = message.topic.split("/")
        if kind not in _KINDS:
            return
        meter = device[0] if device else ""
        if kind == "DDATA":
            payload = pysparkplug.DData.decode(message.payload, birth=self.births[meter])
        else:
            payload = _KINDS[kind].decode(message.payload)
        if kind == "DBIRTH":
            self.births[meter] = payload
        self.messages.append((kind, meter, payload))
        if kind != "NDEATH":
            assert not message.retain
            self.qos.add(message.qos)
            expected = 0 if kind == "NBIRTH" else None if self._seq is None else (self._seq + 1) % 256
            self.gaps += expected is not None and payload.seq != expected
            self._seq = payload.seq
        for metric in getattr(payload, "metrics", ()):
            if kind == "DDATA":
                self.historical += bool(metric.is_historical)
                obis = metric.name.split("/")[1]
                self.values[meter, obis, metric.timestamp // 1000] = metric.value

    def of(self, kind: str, meter: str = "") -> list:
        return [payload for one, who, payload in self.messages if (one, who) == (kind, meter)]

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Edge:
    """The product's uplink."""

    def __init__(self, rig: Rig, **changes) -> None:
        settings = SparkplugSection(host=LOOPBACK, port=rig.broker.port, tls=False, **changes)
        self.uplink = SparkplugUplink(settings, TOPICS, rig.store, rig.clock, lambda: rig.meters)
        self._running = asyncio.ensure_future(self.uplink.run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
async def rig(tmp_path):
    rig = Rig(tmp_path)
    await rig.fill(3, 96, 2)
    rig.broker.start()
    yield rig
    await rig.close()


def bd_seq(payload) -> int:
    return next(metric.value for metric in payload.metrics if metric.name == "bdSeq")


async def test_births_data_rebirth_and_deaths(rig):
    host = Host(rig.broker.port)
    await until(lambda: host.subscribed, 10)
    edge = Edge(rig)
    await until(lambda: host.values == rig.truth, 30)
    birth = host.of("NBIRTH")[0]
    assert birth.seq == 0
    assert bd_seq(birth) == 0
    names = {metric.name: metric for metric in birth.metrics}
    assert names["Node Control/Rebirth"].value is False
    assert host.gaps == 0
    # The births have the newest values: all that was waiting is the past.
    assert host.historical == len(rig.truth)
    # A live value is not.
    before = host.historical
    await rig.put(answer("M1", 192, 1))
    await until(lambda: host.values == rig.truth, 10)
    assert host.historical == before
    # A host that comes later asks for births.
    births = len(host.of("DBIRTH", "M0"))
    host.client.publish(
        "spBv1.0/lab/NCMD/box",
        encode_payload(Payload(1, (Metric(True, BOOLEAN, 0, "Node Control/Rebirth"),))),
    )
    await until(lambda: len(host.of("NBIRTH")) == 2 and len(host.of("DBIRTH", "M0")) > births, 10)
    assert bd_seq(host.of("NBIRTH")[1]) == 0
    rig.meters[2]["state"] = "unreachable"
    await until(lambda: host.of("DDEATH", "M2"), 10)
    rig.meters[2]["state"] = "active"
    before = len(host.of("DBIRTH", "M2"))
    await until(lambda: len(host.of("DBIRTH", "M2")) > before, 10)
    await rig.put(answer("M2", 192, 1))
    await until(lambda: host.values == rig.truth, 10)
    await rig.until_acknowledged(10, "sparkplug")
    await edge.stop()
    await until(lambda: host.of("NDEATH"), 10)
    assert host.of("NDEATH")[0].bd_seq_metric.value == 0
    # The next session has the next number, after a restart too, and repeats nothing.
    host.values.clear()
    edge = Edge(rig)
    await until(lambda: len(host.of("NBIRTH")) == 3, 10)
    assert bd_seq(host.of("NBIRTH")[2]) == 1
    await rig.put(answer("M0", 192, 1))
    await until(lambda: len(host.values) == 4, 10)
    await edge.stop()
    assert host.gaps == 0
    assert host.qos == {0}
    host.stop()


async def test_readings_wait_for_the_primary_host(rig):
    host = Host(rig.broker.port)
    await until(lambda: host.subscribed, 10)
    edge = Edge(rig, primary_host="scada")
    await until(lambda: "primary host scada is not online" in edge.uplink.reason, 10)

    def state(online: bool, at: int) -> None:
        host.client.publish(
            "spBv1.0/STATE/scada", json.dumps({"online": online, "timestamp": at}), qos=1, retain=True
        )

    state(True, 1000)
    await until(lambda: host.values == rig.truth, 30)
    # An older message is a late one, and changes nothing.
    state(False, 500)
    await rig.put(answer("M0", 192, 1))
    await until(lambda: host.values == rig.truth, 10)
    state(False, 2000)
    await until(lambda: edge.uplink.state == "not connected", 10)
    await until(lambda: host.of("NDEATH"), 10)
    births = len(host.of("NBIRTH"))
    await rig.put(answer("M0", 193, 1))
    await until(lambda: "is not online" in edge.uplink.reason, 10)
    assert len(host.of("NBIRTH")) == births
    assert len(host.values) == len(rig.truth) - 4
    state(True, 3000)
    await until(lambda: host.values == rig.truth, 20)
    await edge.stop()
    host.stop()


async def test_what_is_read_while_the_broker_is_dead_comes_after(rig):
    host = Host(rig.broker.port)
    await until(lambda: host.subscribed, 10)
    online = ("spBv1.0/STATE/scada", json.dumps({"online": True, "timestamp": 1000}))
    edge = Edge(rig, primary_host="scada")
    host.client.publish(*online, qos=1, retain=True)
    await until(lambda: host.values == rig.truth, 20)
    host.subscribed = False
    rig.broker.kill()
    await rig.put(answer("M0", 192, 8))
    await until(lambda: edge.uplink.state == "not connected", 20)
    rig.broker.start()
    # The host tells that it listens, and only then anything is sent.
    await until(lambda: host.subscribed, 20)
    host.client.publish(*online, qos=1, retain=True)
    await until(lambda: host.values == rig.truth, 30)
    await edge.stop()
    host.stop()
