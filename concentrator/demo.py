"""The demo: the whole main job on one machine, with the world outside simulated on its wires.

Three processes: the simulated substation (modem and radio module behind pseudo-terminals), the product as
anybody would run it (`concentrator run --config ...`), and this one, which plays broker and head-end,
shows what happens, and in the end reconciles what arrived with what the meters really measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from amqtt.broker import Broker
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from concentrator.access.users import UserBook
from concentrator.control import ControlError, subscribe
from concentrator.errors import ConcentratorError
from concentrator.obis import Obis
from concentrator.simulator.head_end import Ledger, MqttReceiver, PushReceiver
from concentrator.simulator.meter import ENERGY, LOAD_PROFILE
from concentrator.simulator.substation import Substation, SubstationOptions
from concentrator.store.database import connect

_LOOPBACK = "127.0.0.1"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_COUNT_INTERVAL_S = 1.0


class DemoError(ConcentratorError):
    """A part of the demo did not start, or ended on its own."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line asked for."""

    protocol: Literal["prime", "g3", "g3-a", "s-fsk"]
    meters: int
    days: int
    seed: int
    loss: float
    speed: float
    once: bool
    as_json: bool
    timeout_s: int
    web_port: int
    keep: Path | None


@dataclass(frozen=True, slots=True)
class Count:
    """How far the product is, read from its store: intervals are rows of a load profile."""

    stored: int = 0
    acknowledged: int = 0
    wireless_readings: int = 0
    wireless_acknowledged: int = 0
    meters: int = 0
    wireless_meters: int = 0


class Demo:
    """One run."""

    def __init__(self, options: DemoOptions, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._console = Console(stderr=options.as_json)
        self._web_port = options.web_port or _free_port()
        self._mqtt_port = _free_port()
        self._mqtt = MqttReceiver()
        self._push = PushReceiver()
        self._status: dict[str, Any] = {}
        self._joined: set[str] = set()
        self._identified: set[str] = set()
        self._destinations: dict[str, str] = {}
        self._count = Count()
        self._began = time.monotonic()
        # What has to be there when it ends: the days before the start, up to the last interval that had ended.
        period = timedelta(minutes=15)
        now = datetime.now(UTC)
        self._last = datetime.fromtimestamp(now.timestamp() // 900 * 900, UTC) - period
        self._first = self._last - timedelta(days=options.days) + period
        self._substation = Substation(SubstationOptions(options.protocol, options.meters, options.seed))
        self._expected = options.meters * options.days * 96
        self._password = ""

    async def run(self) -> int:
        """Run until Ctrl-C, or with --once until everything is acknowledged; returns the exit status."""
        options = self._options
        self._console.print(
            f"[bold]A simulated substation[/] with {options.meters} meters behind a {options.protocol.upper()} modem, "
            f"{options.days} days of load profile, seed {options.seed}"
        )
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with self._outside(), self._process("simulate", *self._simulate_arguments()) as simulator:
            await self._wait_for_file(self._directory / "modem", simulator)
            config = self._write_config()
            self._password = UserBook(self._directory / "state").provision() or "that was given before"
            async with self._process("run", "--config", str(config)) as product:
                return await self._watch(product, simulator, stop)

    @asynccontextmanager
    async def _outside(self) -> AsyncGenerator[None]:
        """The utility's side: a broker, a subscriber, and a head-end that listens for pushes."""
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{_LOOPBACK}:{self._mqtt_port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        self._mqtt.start(_LOOPBACK, self._mqtt_port)
        await self._push.start(_LOOPBACK)
        try:
            yield
        finally:
            await asyncio.to_thread(self._mqtt.stop)
            await self._push.stop()
            with contextlib.suppress(Exception):
                await broker.shutdown()

    @asynccontextmanager
    async def _process(self, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
        log_file = self._directory / f"{arguments[0]}.log"
        with log_file.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "concentrator",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _simulate_arguments(self) -> list[str]:
        options = self._options
        return [
            "--directory",
            str(self._directory),
            "--protocol",
            options.protocol,
            "--meters",
            str(options.meters),
            "--seed",
            str(options.seed),
            "--loss",
            str(options.loss),
            "--speed",
            str(options.speed),
        ]

    async def _wait_for_file(self, path: Path, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not await asyncio.to_thread(path.exists):
            if process.returncode is not None or time.monotonic() > deadline:
                raise DemoError(f"the simulator did not start; it said:\n{self._log_tail('simulate')}")
            await asyncio.sleep(0.05)

    def _log_tail(self, name: str) -> str:
        lines = (self._directory / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def _write_config(self) -> Path:
        """The configuration that a user would write."""
        options, directory = self._options, self._directory
        # The window is counted from the product's own now: one interval more than is waited for.
        path = directory / "concentrator.toml"
        path.write_text(
            f"""[concentrator]
name = "demo"
site = "simulated-substation"
state_directory = "{directory}/state"

[modem]
family = "{"g3" if options.protocol == "g3-a" else options.protocol}"
port = "{directory}/modem"
key_file = "{directory / "g3.toml" if options.protocol in ("g3", "g3-a") else ""}"

[radio]
port = "{directory}/radio"

[collection]
key_file = "{directory}/keys.json"
history_days = {options.days}
meters_in_flight = 6
answer_timeout_s = 15

[orders]
allow_page = "sync_clock, disconnect, reconnect"

[web]
port = {self._web_port}
open_view = true

[[mqtt]]
name = "mqtt"
host = "{_LOOPBACK}"
port = {self._mqtt_port}
protocol = "3.1.1"
tls = false

[[push]]
name = "push"
host = "{_LOOPBACK}"
port = {self._push.port}
"""
        )
        return path

    async def _watch(
        self, product: asyncio.subprocess.Process, simulator: asyncio.subprocess.Process, stop: asyncio.Event
    ) -> int:
        options = self._options
        self._console.print(
            f"Diagnostics page: [link]http://{_LOOPBACK}:{self._web_port}/[/]   (state and logs in {self._directory})"
        )
        self._console.print(f"Log in there as admin with the one-time password [bold]{self._password}[/]")
        following = asyncio.create_task(self._follow_status())
        deadline = time.monotonic() + options.timeout_s
        complete = False
        try:
            with self._progress() as progress:
                bars = self._bars(progress)
                while not stop.is_set():
                    for process, name in ((product, "run"), (simulator, "simulate")):
                        if process.returncode is not None:
                            raise DemoError(
                                f"`concentrator {name}` ended by itself; it said:\n{self._log_tail(name)}"
                            )
                    self._count = await asyncio.to_thread(self._read_store)
                    self._show(progress, bars)
                    if self._is_complete() and not complete:
                        complete = True
                        self._console.print("[green]Every interval is in the store and acknowledged.[/]")
                        if options.once:
                            break
                        self._print_summary(complete=True)
                        self._console.print(
                            "It goes on: new intervals follow each quarter of an hour. Ctrl-C ends it."
                        )
                    if options.once and time.monotonic() > deadline:
                        self._console.print(f"[red]Not complete after {options.timeout_s} s.[/]")
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_COUNT_INTERVAL_S):
                            await stop.wait()
        finally:
            following.cancel()
        if options.once or not complete:
            self._print_summary(complete=complete)
        return 0 if complete or not options.once else 1

    async def _follow_status(self) -> None:
        """Keep the product's status, as its page does, and say what changes."""
        socket_path = self._directory / "state" / "control.sock"
        while True:
            with contextlib.suppress(ControlError, OSError, ValueError):
                async for status in subscribe(socket_path):
                    self._status = status
                    self._say_changes(status)
            await asyncio.sleep(0.2)

    def _say_changes(self, status: dict[str, Any]) -> None:
        for meter in status["meters"]:
            identity, key = meter["identity"], meter["link_address"]
            if key not in self._joined:
                self._joined.add(key)
                if meter["link"] == "wmbus":
                    self._console.print(f"  heard  {identity} ({meter['medium']}, {meter['signal']} dBm)")
                else:
                    self._console.print(f"  joined {identity} EUI {key}, level {meter['level'] or 0}")
            if meter["firmware"] and key not in self._identified:
                self._identified.add(key)
                self._console.print(
                    f"  known  {identity} by {meter['manufacturer']}, firmware {meter['firmware']}"
                )
        for destination in status["destinations"]:
            name, state = destination["name"], destination["state"]
            if self._destinations.get(name) != state:
                self._destinations[name] = state
                self._console.print(f"  uplink {name}: {state} {destination['reason']}")

    # Counting

    def _read_store(self) -> Count:
        path = self._directory / "state" / "store.db"
        if not path.exists():
            return Count()
        try:
            with contextlib.closing(connect(path, query_only=True)) as connection:
                meters = dict(connection.execute("SELECT link, COUNT(*) FROM meter GROUP BY link").fetchall())
                return Count(
                    *self._count_rows(connection, "plc"),
                    *self._count_rows(connection, "wmbus"),
                    meters.get("plc", 0),
                    meters.get("wmbus", 0),
                )
        except (sqlite3.Error, ConcentratorError):
            return self._count

    def _count_rows(self, connection: sqlite3.Connection, link: str) -> tuple[int, int]:
        """Rows of a profile (meter and capture time) stored, and acknowledged by every destination."""
        stored, acknowledged = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(acknowledged), 0) FROM ("
            " SELECT MIN(reading.sequence <= (SELECT COALESCE(MIN(cursor), 0) FROM destination)) AS acknowledged"
            " FROM meter JOIN channel USING (meter_id) JOIN reading USING (channel_id)"
            " WHERE meter.link = ? AND (meter.link <> 'plc' OR channel.profile = ?"
            "       AND reading.captured_at BETWEEN ? AND ?)"
            " GROUP BY meter.meter_id, reading.captured_at)",
            (link, str(LOAD_PROFILE), round(self._first.timestamp()), round(self._last.timestamp())),
        ).fetchone()
        return int(stored), int(acknowledged)

    def _is_complete(self) -> bool:
        count = self._count
        return count.acknowledged >= self._expected and count.wireless_acknowledged > 0

    def _reconcile(self, ledger: Ledger) -> tuple[int, int]:
        """Values of the truth that a receiver has not, or has otherwise."""
        missing = wrong = 0
        for serial, rows in self._substation.truth(self._first, self._last).items():
            for row in rows:
                for obis, value in zip(ENERGY, row.values, strict=True):
                    got = ledger.values.get((serial, str(Obis(*obis)), round(row.captured_at.timestamp())))
                    missing += got is None
                    wrong += got is not None and got != value
        return missing, wrong

    # Showing

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
        )

    def _bars(self, progress: Progress) -> dict[str, Any]:
        return {
            "meters": progress.add_task("meters", total=self._options.meters),
            "stored": progress.add_task("read", total=self._expected),
            "acknowledged": progress.add_task("delivered", total=self._expected),
        }

    def _show(self, progress: Progress, bars: dict[str, Any]) -> None:
        progress.update(bars["meters"], completed=self._count.meters)
        progress.update(bars["stored"], completed=self._count.stored)
        progress.update(bars["acknowledged"], completed=self._count.acknowledged)

    def summary(self, *, complete: bool) -> dict[str, Any]:
        """The figures of --json."""
        mqtt_missing, mqtt_wrong = self._reconcile(self._mqtt.ledger)
        push_missing, push_wrong = self._reconcile(self._push.ledger)
        return {
            "protocol": self._options.protocol,
            "complete": complete,
            "meters_simulated": self._options.meters,
            "meters_discovered": self._count.meters,
            "wireless_meters_heard": self._count.wireless_meters,
            "intervals_expected": self._expected,
            "intervals_stored": self._count.stored,
            "intervals_acknowledged": self._count.acknowledged,
            "wireless_readings_stored": self._count.wireless_readings,
            "duplicates": self._mqtt.ledger.duplicates
            + self._push.ledger.conflicts
            + self._mqtt.ledger.conflicts,
            "values_missing_at_head_end": mqtt_missing + push_missing,
            "values_wrong_at_head_end": mqtt_wrong + push_wrong,
            "mqtt_messages": self._mqtt.ledger.messages,
            "push_notifications": self._push.ledger.messages,
            "redelivered_values": self._mqtt.ledger.repeats + self._push.ledger.repeats,
            "seconds": round(time.monotonic() - self._began, 1),
        }

    def _print_summary(self, *, complete: bool) -> None:
        summary = self.summary(complete=complete)
        if self._options.as_json:
            print(json.dumps(summary), flush=True)  # noqa: T201 - this is what --json is for
            return
        table = Table(title="Summary", show_header=False)
        for name, value in summary.items():
            table.add_row(name.replace("_", " "), str(value))
        self._console.print(table)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return probe.getsockname()[1]


def run_demo(options: DemoOptions) -> int:
    """Run the demo in a folder of its own; returns the exit status."""
    # The broker's own log would drown what the demo has to say.
    for name in ("amqtt", "transitions", "passlib"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        return asyncio.run(Demo(options, options.keep.resolve()).run())
    with tempfile.TemporaryDirectory(prefix="concentrator-demo-") as directory:
        return asyncio.run(Demo(options, Path(directory)).run())
