"""The MQTT uplink against a real Mosquitto that is killed, refuses, is slow, has limits, or stands half open.

After each fault the receiver's set of (meter, OBIS, time) is that of all which the store has acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import subprocess

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench import LOOPBACK, until
from mqtt_rig import TOPICS, Rig, ScriptedBroker, answer
from mqtt_schemas import validator
from ports import free_port

pytestmark = pytest.mark.system


@pytest.fixture
async def make_rig(tmp_path):
    rigs = []

    async def make(*lines, meters=6, slots=96, batches=2):
        rig = Rig(tmp_path, *lines)
        rigs.append(rig)
        await rig.fill(meters, slots, batches)
        return rig

    yield make
    for rig in rigs:
        await rig.close()


async def test_a_broker_that_ends_and_comes_again(make_rig, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    if os.geteuid() == 0:
        user = pwd.getpwnam("mosquitto")
        os.chown(folder, user.pw_uid, user.pw_gid)
    rig = await make_rig(
        "persistence true", f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1",
        meters=20, batches=4,
    )  # fmt: skip
    rig.broker.start()
    await rig.listen()
    uplink = rig.start(in_flight=4)
    await until(lambda: rig.receiver.ledger.messages > 20, 20)
    # Not killed: what it has acknowledged and not passed on would be lost with it, and not by us.
    rig.broker.stop()
    # What the meters answer meanwhile is stored, and owed.
    for number in range(20):
        await rig.put(answer(f"M{number}", 4 * 96, 96))
    await until(lambda: uplink.state == "not connected", 20)
    rig.broker.start()
    await rig.until_equal()
    await rig.until_acknowledged()


async def test_a_broker_that_refuses_the_password_and_then_not(make_rig, tmp_path):
    rig = await make_rig()
    passwords = tmp_path / "passwords"
    subprocess.run(  # noqa: ASYNC221 - a moment, before anything runs
        ["mosquitto_passwd", "-b", "-c", str(passwords), "box", "right"], check=True
    )
    passwords.chmod(0o644)
    rig.broker.configure("allow_anonymous false", f"password_file {passwords}")
    rig.broker.start()
    password = tmp_path / "password"
    password.write_text("wrong")
    uplink = rig.start(username="box", password_file=str(password))
    await until(lambda: "bad user name or password" in uplink.reason or "not authorized" in uplink.reason, 10)
    assert uplink.state == "not connected"
    assert "wrong" not in uplink.reason
    assert (await rig.store.destination_states())[0].pending_batches == 12
    # The broker was set up wrongly, and is mended; whoever restarts us has no need to wait for the long pause.
    await rig.stop()
    password.write_text("right")
    rig.receiver._client.username_pw_set("box", "right")
    await rig.listen()
    rig.start(username="box", password_file=str(password))
    await rig.until_equal()


async def test_an_access_list_that_forbids_readings_keeps_the_rows(make_rig, tmp_path):
    rig = await make_rig()
    access = tmp_path / "access"
    access.write_text("topic read #\ntopic write dcu/v1/lab/box/status\n")
    access.chmod(0o644)
    rig.broker.configure("allow_anonymous true", f"acl_file {access}")
    rig.broker.start()
    await rig.listen()
    uplink = rig.start()
    await until(lambda: "not authorized" in uplink.reason and uplink.state == "not connected", 10)
    assert "0x87" in uplink.reason
    assert rig.receiver.ledger.messages == 0
    assert (await rig.store.destination_states())[0].pending_batches == 12
    await rig.stop()
    access.write_text("topic readwrite #\n")
    rig.broker.signal(signal.SIGHUP)
    rig.start()
    await rig.until_equal()


async def test_a_command_topic_that_is_forbidden_does_not_stop_the_readings(make_rig, tmp_path):
    rig = await make_rig()
    access = tmp_path / "access"
    access.write_text("topic read dcu/v1/lab/box/m/#\ntopic write #\npattern read x\n")
    access.chmod(0o644)
    rig.broker.configure("allow_anonymous true", f"acl_file {access}")
    rig.broker.start()
    await rig.listen()
    rig.start()
    await rig.until_equal()


class Throttle:
    """A TCP proxy that lets so many octets a second through to the broker, or nothing at all."""

    def __init__(self, target_port: int, octets_per_s: int) -> None:
        self.port = free_port()
        self.octets_per_s = octets_per_s
        self.holes = False
        self._target_port = target_port
        self._server = None
        self._tasks: set[asyncio.Task] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _serve(self, reader, writer) -> None:
        far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source, sink) -> None:
        try:
            while data := await source.read(2048):
                if self.holes:
                    # Half open: both ends think that it stands, and nothing comes through.
                    continue
                await asyncio.sleep(len(data) / self.octets_per_s)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        sink.close()

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_slow_network_loses_nothing_and_sends_nothing_twice(make_rig):
    rig = await make_rig(meters=4, batches=1)
    rig.broker.start()
    await rig.listen()
    proxy = Throttle(rig.broker.port, 40_000)
    await proxy.start()
    rig.start(port=proxy.port)
    await rig.until_equal(40)
    await rig.until_acknowledged()
    assert rig.receiver.ledger.repeats == 0
    await rig.stop()
    await proxy.stop()


async def test_a_half_open_connection_is_noticed(make_rig):
    rig = await make_rig(meters=10)
    rig.broker.start()
    await rig.listen()
    proxy = Throttle(rig.broker.port, 200_000)
    await proxy.start()
    uplink = rig.start(port=proxy.port, keep_alive_s=2, acknowledge_timeout_s=2)
    await until(lambda: rig.receiver.ledger.messages > 5, 20)
    proxy.holes = True
    await until(lambda: uplink.state == "not connected", 20)
    proxy.holes = False
    await rig.until_equal()
    await rig.stop()
    await proxy.stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_broker_with_narrow_queues(make_rig, protocol):
    rig = await make_rig("max_inflight_messages 1", "max_queued_messages 2000", meters=10)
    rig.broker.start()
    await rig.listen()
    uplink = rig.start(in_flight=50, protocol=protocol)
    await rig.until_equal()
    await rig.until_acknowledged()
    # 0x93, receive maximum exceeded, would have ended the connection.
    assert uplink.reason == ""
    assert rig.receiver.ledger.repeats == 0


async def test_messages_are_made_to_fit_the_brokers_packets(make_rig):
    rig = await make_rig("max_packet_size 1500")
    rig.broker.start()
    await rig.listen()
    rig.start()
    await rig.until_equal()
    await rig.until_acknowledged()
    assert rig.receiver.ledger.repeats == 0


async def test_a_payload_that_the_broker_answers_with_too_large_comes_in_pieces(make_rig):
    # Not told in CONNACK: each PUBACK says 0x95 (message_size_limit counts the payload only).
    rig = await make_rig("message_size_limit 1200")
    rig.broker.start()
    await rig.listen()
    rig.start()
    await rig.until_equal()
    await rig.until_acknowledged()


async def test_what_the_broker_will_never_take_is_parked_and_lets_the_others_pass(make_rig):
    rig = await make_rig("message_size_limit 700", meters=3, slots=4)
    await rig.store.save_meter(_record("M" * 64))
    long_one = answer("M" * 64, 0, 1)
    text = long_one.readings[0]
    await rig.store.store_answer(_with_text(long_one, text))
    for number in range(3):
        await rig.put(answer(f"M{number}", 8, 4))
    rig.broker.start()
    await rig.listen()
    uplink = rig.start()
    await rig.until_equal()
    await rig.until_acknowledged()
    await until(lambda: "1 batches parked" in uplink.reason, 10)
    events = await rig.store.read(
        lambda c: c.execute("SELECT code, detail FROM event WHERE code = 'parked'").fetchall()
    )
    assert len(events) == 1
    assert "refuses batch 7 for good: the broker ended 3 connections over it" in events[0][1]
    # It is in the store as before.
    latest = await rig.store.latest_values("M" * 64)
    assert [len(one.reading.value) for one in latest] == [900]


def _record(identity):
    from concentrator.model import MeterRecord

    return MeterRecord(identity)


def _with_text(one, reading):
    from dataclasses import replace

    return replace(one, readings=(replace(reading, value="x" * 900),))


@pytest.mark.parametrize(
    ("code", "words"),
    [(0x8E, "session taken over"), (0x9D, "server moved: set host (0x9D)"), (0x8B, "server shutting down")],
)
async def test_why_the_broker_ended_it_is_told_on_the_page(make_rig, code, words):
    rig = await make_rig(meters=1, batches=1)
    async with ScriptedBroker(disconnect=code) as broker:
        uplink = rig.start(port=broker.port)
        await until(lambda: words in uplink.reason, 10)
        assert uplink.state == "not connected"
    assert (await rig.store.destination_states())[0].pending_batches == 1


@pytest.mark.parametrize("code", [0x97, 0x83])
async def test_rows_stay_while_the_broker_says_quota_exceeded(make_rig, code):
    rig = await make_rig(meters=2, batches=1)
    async with ScriptedBroker(answers=[code] * 3) as broker:
        uplink = rig.start(port=broker.port)
        await until(lambda: f"0x{code:02X}" in uplink.reason, 10)
        await rig.until_acknowledged()
        # Refused ones came again, until they were taken.
        assert len(broker.readings) >= 8 + 1
        assert len(set(broker.readings)) == 8


async def test_a_payload_that_is_called_invalid_is_parked(make_rig):
    rig = await make_rig(meters=2, batches=1)
    async with ScriptedBroker(answers=[0x99]) as broker:
        uplink = rig.start(port=broker.port)
        await rig.until_acknowledged()
        await until(lambda: "1 batches parked" in uplink.reason, 10)
        assert uplink.state == "connected"
        assert len(broker.readings) == 8


async def test_the_receive_maximum_bounds_the_window(make_rig):
    rig = await make_rig(meters=10, batches=1)
    async with ScriptedBroker(receive_maximum=3, slow=True) as broker:
        rig.start(port=broker.port, in_flight=50)
        await rig.until_acknowledged()
        assert 1 <= broker.most_unanswered <= 3


class Utility:
    """A head-end that speaks MQTT 5: orders with response topic and correlation data."""

    def __init__(self, port: int) -> None:
        self.heard: list[paho.MQTTMessage] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "utility", protocol=MQTTProtocolVersion.MQTTv5)
        self.subscribed = False
        self.client.on_message = lambda _client, _data, message: self.heard.append(message)
        self.client.on_connect = lambda client, *_rest: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_rest: setattr(self, "subscribed", True)
        self.client.connect(LOOPBACK, port)
        self.client.loop_start()

    def order(self, payload: bytes, *, retain: bool = False, **properties) -> None:
        made = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(made, name, value)
        self.client.publish(TOPICS.command, payload, qos=1, retain=retain, properties=made)

    def on(self, topic: str) -> list[paho.MQTTMessage]:
        return [message for message in self.heard if message.topic == topic]

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


async def test_orders_are_answered_where_and_how_they_ask(make_rig):
    rig = await make_rig(meters=1, slots=1, batches=1)
    rig.broker.start()
    utility = Utility(rig.broker.port)
    await until(lambda: utility.subscribed, 10)
    utility.order(b'{"id":"old","op":"ping"}', retain=True)
    uplink = rig.start(encoding="cbor", reply_prefixes="utility/answers")
    await until(lambda: uplink.state == "connected", 10)
    await until(lambda: utility.on(TOPICS.result("old")), 10)
    utility.order(
        b'{"id":"a","op":"ping"}', ResponseTopic="utility/answers/7", CorrelationData=b"\x01\x02",
        ContentType="application/json", UserProperty=[("schema", "1")],
    )  # fmt: skip
    utility.order(b'{"id":"b","op":"ping"}', ResponseTopic="dcu/v1/lab/other/cmd")
    utility.order(b'{"id":"c","op":"ping"}', UserProperty=[("schema", "2")])
    utility.order(b'{"id":"d","op":"ping"}', ResponseTopic=f"{TOPICS.replies}here")
    utility.order(bytes.fromhex("a2626964616562 6f70 6470696e67".replace(" ", "")))
    await until(lambda: len(utility.on("utility/answers/7")) == 2, 10)
    await until(lambda: len(utility.on(f"{TOPICS.replies}here")) == 2, 10)
    answers = [json.loads(message.payload) for message in utility.on("utility/answers/7")]
    assert [one["state"] for one in answers] == ["accepted", "done"]
    first = utility.on("utility/answers/7")[0].properties
    assert first.CorrelationData == b"\x01\x02"
    assert first.ContentType == "application/json"
    assert 0 < first.MessageExpiryInterval <= 7 * 86_400
    assert ("schema", "1") in first.UserProperty
    for name, words in (("b", b"response topic"), ("c", b"schema"), ("old", b"retained")):
        await until(lambda name=name: utility.on(TOPICS.result(name)), 10)
        assert words in utility.on(TOPICS.result(name))[0].payload
    await until(lambda: utility.on(TOPICS.result("e")), 10)
    assert sorted(order.order_id for order in rig.orders) == ["a", "d", "e"]
    # Readings never expire, and say what they are.
    reading = next(message for message in utility.heard if message.topic.endswith("/reading"))
    assert reading.properties.ContentType == "application/cbor"
    assert not hasattr(reading.properties, "MessageExpiryInterval")
    utility.stop()


async def test_cbor_readings_reconcile(make_rig):
    rig = await make_rig()
    rig.broker.start()
    await rig.listen()
    rig.start(encoding="cbor")
    await rig.until_equal()
    await until(lambda: rig.check.seen.keys() >= {"status", "health", "meters", "reading"}, 10)


async def test_a_long_list_of_meters_comes_in_pages_and_only_when_it_changed(make_rig):
    rig = await make_rig(meters=1, slots=1, batches=1)
    rig.meters = [{**rig.meters[0], "id": f"M{number:04}"} for number in range(450)]
    rig.broker.start()
    utility = Utility(rig.broker.port)
    await until(lambda: utility.subscribed, 10)
    uplink = rig.start()
    pages = [TOPICS.meters_page(number) for number in range(3)]
    await until(lambda: all(utility.on(page) for page in pages), 10)
    bodies = [json.loads(utility.on(page)[0].payload) for page in pages]
    assert [len(body["meters"]) for body in bodies] == [200, 200, 50]
    assert {(body["total"], body["pages"]) for body in bodies} == {(450, 3)}
    assert all(len(utility.on(page)[0].payload) < 48 * 1024 for page in pages)
    uplink.tell_update({"job": "j1", "target": "1.1", "state": "installing", "progress": 40, "error": ""})
    await until(lambda: utility.on(TOPICS.update), 10)
    assert json.loads(utility.on(TOPICS.update)[0].payload)["progress"] == 40
    validator("update").validate(json.loads(utility.on(TOPICS.update)[0].payload))
    assert [len(utility.on(page)) for page in pages] == [1, 1, 1]
    rig.meters = rig.meters[:199]
    await until(lambda: utility.on(pages[2])[-1].payload == b"", 30)
    assert json.loads(utility.on(pages[0])[-1].payload)["total"] == 199
    utility.stop()
