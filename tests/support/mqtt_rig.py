"""An uplink of the product in this process, a real store behind it and a real Mosquitto before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta

from concentrator.clock import SystemClock
from concentrator.config import MqttSection
from concentrator.model import Answer, Channel, Medium, MeterRecord, MeterState, Reading
from concentrator.obis import Obis
from concentrator.simulator.head_end import MqttReceiver
from concentrator.store.store import Store
from concentrator.uplink.messages import Topics
from concentrator.uplink.mqtt import MqttUplink
from concentrator.uplink.mqtt_state import BoxReport

from bench import LOOPBACK, until
from mqtt_schemas import MessageCheck
from ports import free_port

PROFILE = Obis(1, 0, 99, 1, 0)
UNITS = {1: 30, 2: 30, 3: 32, 4: 32}
CHANNELS = tuple(Channel(Obis(1, 0, c, 8, 0), unit, 0, period_s=900) for c, unit in UNITS.items())
START = datetime(2026, 11, 1, tzinfo=UTC)
TOPICS = Topics("lab", "box")


def answer(meter: str, first: int, slots: int, channels=CHANNELS) -> Answer:
    """So many intervals of a meter, from the interval with number `first` on."""
    readings = tuple(
        Reading(channel, START + timedelta(minutes=15 * slot), 1000 * number + slot, 0)
        for number, channel in enumerate(channels)
        for slot in range(first, first + slots)
    )
    return Answer(meter, PROFILE, readings, START + timedelta(minutes=15 * (first + slots)))


class Broker:
    """Mosquitto with settings of its own; it can be killed, halted and started again on its port."""

    def __init__(self, directory, *lines: str) -> None:
        self.port = free_port()
        self.ports = [self.port]
        self._process: subprocess.Popen | None = None
        self._config = directory / "broker.conf"
        self._lines = lines
        self._config.write_text(
            "\n".join([f"listener {self.port} {LOOPBACK}", "allow_anonymous true", *lines, ""])
        )
        if os.geteuid() == 0:
            # Mosquitto gives its root rights up, and has to reach its files.
            for folder in (directory, *list(directory.parents)[:3]):
                folder.chmod(folder.stat().st_mode | 0o077)

    def configure(self, *lines: str) -> None:
        self._config.write_text("\n".join([f"listener {self.port} {LOOPBACK}", *lines, ""]))

    def start(self) -> None:
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        assert program, "mosquitto is missing: make test names the Debian packages"
        self._process = subprocess.Popen(
            [program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 0.2):
                return
            assert time.monotonic() < deadline, "mosquitto does not listen"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """In order: what it keeps is written."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ScriptedBroker:
    """Speaks MQTT 5 as far as an uplink needs it, and answers readings with the reason codes that a test wants."""

    def __init__(self, *, answers=(), disconnect=None, receive_maximum=65_535, slow=False) -> None:
        self.port = 0
        self.readings: list[str] = []
        self.most_unanswered = 0
        self._answers = list(answers)
        self._disconnect = disconnect
        self._receive_maximum = receive_maximum
        self._slow = slow
        self._unanswered = 0
        self._later: set[asyncio.Task] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_rest):
        self._server.close()
        for task in self._later:
            task.cancel()

    async def _serve(self, reader, writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind = (await reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    octet = (await reader.readexactly(1))[0]
                    length |= (octet & 0x7F) << shift
                    shift += 7
                    if octet < 0x80:
                        break
                body = await reader.readexactly(length)
                self._answer(kind, body, writer)
        writer.close()

    def _answer(self, kind: int, body: bytes, writer) -> None:
        if kind >> 4 == 1:  # CONNECT
            properties = b"\x21" + self._receive_maximum.to_bytes(2, "big")
            writer.write(bytes([0x20, 3 + len(properties), 0, 0, len(properties)]) + properties)
        elif kind >> 4 == 8:  # SUBSCRIBE
            writer.write(bytes([0x90, 4]) + body[:2] + b"\x00\x01")
        elif kind >> 4 == 12:  # PINGREQ
            writer.write(b"\xd0\x00")
        elif kind >> 4 == 3:
            topic_octets = int.from_bytes(body[:2], "big")
            topic = body[2 : 2 + topic_octets].decode()
            number = body[2 + topic_octets : 4 + topic_octets]
            code = 0
            if "/m/" in topic:
                self.readings.append(body[4 + topic_octets :].decode("utf-8", "replace"))
                if self._disconnect is not None:
                    writer.write(bytes([0xE0, 2, self._disconnect, 0]))
                    writer.close()
                    return
                code = self._answers.pop(0) if self._answers else 0
            self._unanswered += 1
            self.most_unanswered = max(self.most_unanswered, self._unanswered)
            if self._slow:
                task = asyncio.ensure_future(self._acknowledge_later(number, code, writer))
                self._later.add(task)
            else:
                self._acknowledge(number, code, writer)

    async def _acknowledge_later(self, number: bytes, code: int, writer) -> None:
        await asyncio.sleep(0.02)
        self._acknowledge(number, code, writer)

    def _acknowledge(self, number: bytes, code: int, writer) -> None:
        self._unanswered -= 1
        writer.write(bytes([0x40, 4]) + number + bytes([code, 0]))


class Rig:
    """Store, uplink, broker, receiver; and the truth: what the store has said that it keeps."""

    def __init__(self, directory, *broker_lines: str) -> None:
        self.broker = Broker(directory, *broker_lines)
        self.clock = SystemClock()
        self.store = Store(directory / "store.db", self.clock)
        self.receiver = MqttReceiver()
        self.check = MessageCheck()
        self.receiver.look = self.check.look
        self.truth: dict[tuple[str, str, int], int | str] = {}
        self.meters: list[dict] = []
        self.orders: list = []
        self.uplink: MqttUplink | None = None
        self._running: asyncio.Task | None = None

    async def listen(self) -> None:
        self.receiver.start(LOOPBACK, self.broker.port)
        await until(lambda: self.receiver.subscribed, 10, "the head-end has subscribed")

    async def health(self) -> dict:
        return {
            "queue_rows": 0, "oldest_unsent_s": 0, "disk_free": 1, "cpu_c": None,
            "meters_total": len(self.meters), "meters_reachable": 0, "availability_pct": None,
        }  # fmt: skip

    async def handle_order(self, order):
        self.orders.append(order)
        self.uplink.tell_order(order, "accepted", {})
        self.uplink.tell_order(order, "done", {"answer": 42})
        return {}

    async def save_meters(self, count: int) -> None:
        for number in range(count):
            await self.store.save_meter(MeterRecord(f"M{number}", state=MeterState.ACTIVE))
            self.meters.append(
                {
                    "id": f"M{number}",
                    "medium": Medium.ELECTRICITY.value,
                    "state": "active",
                    "last_seen": None,
                    "parent": None,
                    "lqi": None,
                    "rssi_dbm": None,
                }
            )

    async def put(self, one: Answer) -> None:
        """Store an answer; it is part of the truth from when the store says so."""
        await self.store.store_answer(one)
        for reading in one.readings:
            at = round(reading.captured_at.timestamp())
            self.truth[one.meter, str(reading.channel.obis), at] = reading.value

    async def fill(self, meters: int, slots: int, batches: int = 1) -> None:
        await self.save_meters(meters)
        for batch in range(batches):
            for number in range(meters):
                await self.put(answer(f"M{number}", batch * slots, slots))

    def settings(self, **changes) -> MqttSection:
        return MqttSection(**{"host": LOOPBACK, "port": self.broker.port, "tls": False, **changes})

    def start(self, **changes) -> MqttUplink:
        self.uplink = MqttUplink(
            self.settings(**changes), TOPICS, self.store, self.clock, "boot",
            BoxReport(self.health, lambda: self.meters), self.handle_order,
        )  # fmt: skip
        self._running = asyncio.ensure_future(self.uplink.run())
        return self.uplink

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    def lacking(self) -> int:
        return len(self.truth.keys() - self.receiver.ledger.values.keys())

    async def until_equal(self, timeout_s: float = 30.0) -> None:
        """Until the receiver's set of (meter, OBIS, time) is the truth, with the same values and nothing of its own."""
        try:
            await until(lambda: not self.lacking(), timeout_s, "everything at the receiver")
        except AssertionError as error:
            state = (self.uplink.state, self.uplink.reason) if self.uplink else ()
            raise AssertionError(f"{error}: lacking {self.lacking()} of {len(self.truth)}; {state}") from None
        ledger = self.receiver.ledger
        assert dict(ledger.values) == self.truth
        assert (ledger.conflicts, ledger.duplicates) == (0, 0)

    async def until_acknowledged(self, timeout_s: float = 30.0, name: str = "mqtt") -> None:
        async def done():
            states = [one for one in await self.store.destination_states() if one.name == name]
            return states and not states[0].pending_batches

        await until(done, timeout_s, "nothing waits in the store")

    async def close(self) -> None:
        await self.stop()
        await asyncio.to_thread(self.receiver.stop)
        self.broker.kill()
        self.store.close()
        assert not self.check.complaints, self.check.complaints
