"""The real product as a subprocess, a simulated substation on its wires, and a utility on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from concentrator.control import ControlError, request
from concentrator.obis import Obis
from concentrator.simulator.head_end import MqttReceiver, PushReceiver
from concentrator.simulator.meter import ENERGY
from concentrator.simulator.substation import Substation, SubstationOptions

from mqtt_schemas import MessageCheck
from ports import free_port

LOOPBACK = "127.0.0.1"
CONCENTRATOR = [sys.executable, "-m", "concentrator"]


async def until(condition, timeout_s: float = 60.0, what: str = ""):
    """Wait until a condition holds; it may be a coroutine function. Returns its (true) value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.02)


class Mosquitto:
    """A real broker that can be killed and started again on its port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen | None = None
        config = directory / "mosquitto.conf"
        config.write_text(f"listener {self.port} {LOOPBACK}\nallow_anonymous true\n")
        self._config = config

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

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Network:
    """The network between product and broker: it can be cut and mended without the broker losing anything."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
        finally:
            self._open -= {writer, far_writer}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Bench:
    """Everything around one product."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = Mosquitto(directory)
        self.network = Network(self.broker.port)
        self.mqtt = MqttReceiver()
        self.check = MessageCheck()
        self.mqtt.look = self.check.look
        self.push = PushReceiver()
        self.web_port = free_port()
        self.substation: Substation | None = None
        self.product: asyncio.subprocess.Process | None = None
        self.days = 1
        now = int(datetime.now(UTC).timestamp()) // 900 * 900
        self.last = datetime.fromtimestamp(now - 900, UTC)

    @property
    def first(self) -> datetime:
        return self.last - timedelta(days=self.days) + timedelta(minutes=15)

    @property
    def config_file(self) -> Path:
        return self.directory / "concentrator.toml"

    @property
    def socket(self) -> Path:
        return self.directory / "state" / "control.sock"

    @property
    def log(self) -> str:
        return (self.directory / "product.log").read_text(errors="replace")

    async def start_outside(self) -> None:
        self.broker.start()
        await self.network.mend()
        self.mqtt.start(LOOPBACK, self.broker.port)
        await until(lambda: self.mqtt.subscribed, 10, "the head-end has subscribed")
        await self.push.start(LOOPBACK)

    def start_substation(self, others=(), **options) -> Substation:
        options = {"meters": 4, "seed": 3, "speed": 200.0, "steady": True, **options}
        self.substation = Substation(SubstationOptions(**options), others=others)
        self.substation.open(self.directory)
        return self.substation

    def write_config(self, **changes) -> Path:
        family = self.substation.options.protocol if self.substation else "prime"
        sections = {
            "concentrator": {
                "name": "bench",
                "site": "lab",
                "state_directory": str(self.directory / "state"),
                "log_level": "debug",
            },
            "modem": {"family": family, "port": str(self.directory / "modem")},
            "radio": {"port": str(self.directory / "radio")},
            "collection": {
                "key_file": str(self.directory / "keys.json"),
                "history_days": self.days,
                "answer_timeout_s": 5,
            },
            "web": {"port": self.web_port},
            "mqtt": {"name": "mqtt", "host": LOOPBACK, "port": self.network.port, "tls": False},
            "push": {"name": "push", "host": LOOPBACK, "port": self.push.port or 1},
        }
        if family.startswith("g3"):
            sections["modem"]["family"] = "g3"
            sections["modem"]["key_file"] = str(self.directory / "g3.toml")
        for name, values in changes.items():
            if values is None:
                del sections[name]
            else:
                sections.setdefault(name, {}).update(values)
        lines = []
        for name, values in sections.items():
            lines.append(f"[[{name}]]" if name in ("mqtt", "push", "files") else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config_file.write_text("\n".join(lines) + "\n")
        return self.config_file

    async def start_product(self, *, page: bool = False) -> None:
        log = (self.directory / "product.log").open("ab")
        self.product = await asyncio.create_subprocess_exec(
            *CONCENTRATOR,
            "run",
            "--config",
            str(self.config_file),
            "--page" if page else "--no-page",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    async def stop_product(self, number: int = signal.SIGTERM) -> int:
        product, self.product = self.product, None
        if product is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(product.pid, number) if number == signal.SIGKILL else product.send_signal(number)
        return await product.wait()

    async def status(self) -> dict:
        try:
            return await request(self.socket, {"op": "status"})
        except (ControlError, OSError, ValueError):
            return {}

    async def until_status(self, condition, timeout_s: float = 60.0, what: str = "") -> dict:
        async def holds():
            status = await self.status()
            return status if status and condition(status) else None

        try:
            return await until(holds, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{json.dumps(await self.status(), indent=1)[-3000:]}\n{self.log[-3000:]}"
            ) from None

    def truth(self) -> dict[tuple[str, str, int], int]:
        """What the meters measured in the window that every test waits for."""
        return {
            (serial, str(Obis(*obis)), round(row.captured_at.timestamp())): value
            for serial, rows in self.substation.truth(self.first, self.last).items()
            for row in rows
            for obis, value in zip(ENERGY, row.values, strict=True)
        }

    def lacking(self, ledger) -> int:
        truth = self.truth()
        return sum(key not in ledger.values for key in truth)

    async def until_delivered(self, timeout_s: float = 90.0, *ledgers) -> None:
        ledgers = ledgers or (self.mqtt.ledger, self.push.ledger)
        truth = self.truth()
        assert truth

        def complete():
            return all(not (truth.keys() - ledger.values.keys()) for ledger in ledgers)

        try:
            await until(complete, timeout_s, "everything at the head-end")
        except AssertionError as error:
            left = [len(truth.keys() - ledger.values.keys()) for ledger in ledgers]
            raise AssertionError(f"{error}: lacking {left} of {len(truth)}\n{self.log[-4000:]}") from None

    def check_ledger(self, ledger) -> None:
        """Every value of the truth, as it is, and nothing twice."""
        truth = self.truth()
        wrong = {
            key: (value, ledger.values.get(key))
            for key, value in truth.items()
            if ledger.values.get(key) != value
        }
        assert not wrong, list(wrong.items())[:5]
        assert ledger.conflicts == 0
        assert ledger.duplicates == 0

    async def close(self) -> None:
        await self.stop_product(signal.SIGKILL)
        if self.substation is not None and hasattr(self.substation, "modem_port"):
            self.substation.close()
        await asyncio.to_thread(self.mqtt.stop)
        await self.push.stop()
        await self.network.cut()
        self.broker.kill()
        # Whatever a test is about: all that the product published fits its schemas.
        assert not self.check.complaints, self.check.complaints
