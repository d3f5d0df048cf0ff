"""A box for the page to look at: a store filled by hand, and a service that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import base64
import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from concentrator.access.configuration import ConfigurationFile
from concentrator.access.configuration_desk import ConfigurationDesk
from concentrator.access.desk import AccessDesk
from concentrator.access.roles import Role
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import TokenBook
from concentrator.access.users import UserBook
from concentrator.clock import SystemClock
from concentrator.collection.key_import import key_list_of
from concentrator.config import Config, parse_config
from concentrator.control import ControlServer
from concentrator.model import (
    Answer,
    Channel,
    EventSeverity,
    Medium,
    MeterEvent,
    MeterRecord,
    MeterState,
    Quality,
    Reading,
)
from concentrator.obis import Obis
from concentrator.orders import OrderError
from concentrator.store.readings import to_epoch
from concentrator.store.store import Store
from concentrator.traffic import Source, TrafficHub

PROFILE = Obis(1, 0, 99, 1, 0)
IMPORT = Channel(Obis(1, 0, 1, 8, 0), unit=30, period_s=900)
EXPORT = Channel(Obis(1, 0, 2, 8, 0), unit=30, period_s=900)
VOLUME = Channel(Obis(8, 0, 1, 0, 0), unit=13, scaler=-3)
PERIOD = timedelta(minutes=15)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&"
METERS = ("ODC0000000001", "ODC0000000002", "ODC0000000003")
WATER = "ODC-12345678-01-07"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def latest_end() -> datetime:
    """The end of the newest interval that every meter can have captured."""
    return datetime.fromtimestamp((now().timestamp() - 60) // 900 * 900, UTC)


PASSWORD = "correct horse battery"
USERS = {"vera": Role.VIEWER, "otto": Role.OPERATOR, "ada": Role.ADMIN}


def config_text(
    directory: Path,
    *,
    port: int = 8080,
    host: str = "127.0.0.1",
    history_days: int = 2,
    open_view: bool = True,
    allow_page: str = "",
    web: str = "",
) -> str:
    if host == "127.0.0.1":
        web += f"open_view = {str(open_view).lower()}\n"
    return (
        f'[concentrator]\nname = "box-7"\nsite = "mill-lane"\nstate_directory = "{directory}"\n'
        f"[collection]\nhistory_days = {history_days}\n"
        f'[orders]\nallow_page = "{allow_page}"\n'
        f'[web]\nhost = "{host}"\nport = {port}\n{web}'
        '[[mqtt]]\nname = "mqtt"\nhost = "127.0.0.1"\n'
    )


def config(directory: Path, **options: Any) -> Config:
    return parse_config(config_text(directory, **options))


def _meter_event(detail: str, code: int) -> MeterEvent:
    log, at = Obis(0, 0, 99, 98, 0), now() - timedelta(hours=code)
    return MeterEvent(log, at, code, 0, "standard", EventSeverity.ALARM, "power_down", detail)


async def _fill(directory: Path, days: int, hostile: str) -> None:
    store = Store(directory / "store.db", SystemClock())
    await store.boot_id()
    await store.register_destination("mqtt")
    last = latest_end()
    count = days * 96 + 8
    for number, identity in enumerate(METERS):
        await store.save_meter(
            MeterRecord(
                identity,
                state=MeterState.ACTIVE if number < 2 else MeterState.UNREACHABLE,
                reason="" if number < 2 else f"no answer within 30 s {hostile}",
                link_address=f"0200000000{number + 1:02x}",
                manufacturer="ODC" if number else hostile or "ODC",
                firmware="1.0",
                first_seen=now() - timedelta(days=9),
                last_contact=now() - timedelta(minutes=2 if number < 2 else 60 * 30),
                clock_offset_s=1.5,
            )
        )
        for channel in (IMPORT, EXPORT) if number < 2 else ():
            readings = tuple(
                Reading(channel, last - back * PERIOD, 1_000_000 + 150 * (count - back), 0, Quality.VALID)
                for back in range(count, -1, -1)
                # The second meter lacks an hour, 5 hours ago, and one interval, 48.5 hours ago, that will never come.
                if number == 0 or not (20 <= back < 24 or back == 194)
            )
            await store.store_answer(Answer(identity, PROFILE, readings, now()))
    gap_end = last - 194 * PERIOD
    await store.keep_gaps(
        METERS[1],
        PROFILE,
        (),
        [(to_epoch(gap_end), to_epoch(gap_end), f"the meter has no data for it {hostile}")],
    )
    await store.save_meter(
        MeterRecord(
            WATER,
            medium=Medium.WATER,
            state=MeterState.ACTIVE,
            link="wmbus",
            link_address=WATER,
            manufacturer="ODC",
            signal=-72.0,
            last_contact=now(),
        )
    )
    volume = Reading(VOLUME, now() - timedelta(minutes=5), 180_949, 0, Quality.SUSPECT)
    await store.store_answer(Answer(WATER, Obis(8, 0, 99, 1, 0), (volume,), now()))
    events = [_meter_event("", 41), _meter_event(hostile, 40)]
    await store.store_meter_events(METERS[0], events[0].log, events)
    await store.add_events([("store_set_aside", f"damaged file renamed {hostile}", "")])
    store.close()


def fill_store(directory: Path, *, days: int = 2, hostile: str = "") -> None:
    """Three electricity meters (one complete, one with an hour missing, one never read) and a water meter."""
    directory.mkdir(parents=True, exist_ok=True)
    # On a thread of its own: playwright keeps a loop going on the test's.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(_fill(directory, days, hostile))).result()


def plc_meter(identity: str, **changes: Any) -> dict[str, Any]:
    return {
        "identity": identity,
        "medium": "electricity",
        "state": "active",
        "reason": "",
        "link": "plc",
        "link_address": "020000000001",
        "manufacturer": "ODC",
        "firmware": "1.0",
        "last_contact": (now() - timedelta(seconds=30)).isoformat(),
        "clock_offset_s": 1.5,
        "signal": None,
        "reachable": True,
        "address": 5,
        "parent": "",
        "level": 1,
        "hops": None,
        "role": "",
        "expected": 200,
        "stored": 150,
        "closed": 0,
        "activity": "",
        **changes,
    }


def status(meters: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    meters = meters if meters is not None else [plc_meter(identity) for identity in METERS]
    return {
        "name": "box-7",
        "site": "mill-lane",
        "software": "0.1.0",
        "boot_id": "00",
        "started_at": (now() - timedelta(hours=3)).isoformat(),
        "modem": {
            "family": "prime",
            "port": "/dev/ttyAMA0",
            "state": "running",
            "reason": "",
            "description": "PRIME base node",
            "counters": {"nodes_joined": 3},
        },
        "radio": None,
        "store": {"unavailable": "", "disk_free": 1, "disk_total": 2, "file_octets": 3},
        "destinations": [
            {
                "name": "mqtt",
                "kind": "mqtt",
                "state": "connected",
                "reason": "",
                "cursor": 5,
                "pending_batches": 0,
                "pending_readings": 0,
                "oldest_unsent_at": None,
                "acknowledged_at": now().isoformat(),
            }
        ],
        "tasks": [
            {
                "name": "load_profile",
                "what": "profile",
                "objects": "1-0:99.1.0*255",
                "meters": "all",
                "first_run": "2026-01-01T00:00:00+00:00",
                "period": "15min",
                "window": "",
                "priority": 2,
                "store": True,
                "send": True,
                "complete": True,
                "origin": "configuration",
                "run": now().isoformat(),
                "next_run": (now() + timedelta(minutes=15)).isoformat(),
                "meters_selected": 3,
                "waiting": 1,
                "done": 2,
                "failed": 0,
                "expired": 0,
                "done_at_first_try": 2,
                "reasons": {"no answer <b>at all</b>": 1},
            }
        ],
        "totals": {},
        "meters": meters,
        **changes,
    }


def node(eui: str, parent: str = "", **changes: Any) -> dict[str, Any]:
    """A node of a PRIME network as the service tells it."""
    return {
        "eui": eui,
        "meter": "",
        "available": True,
        "since": (now() - timedelta(hours=5)).isoformat(),
        "address": 5,
        "parent": parent,
        "level": 1 if parent else 0,
        "hops": None,
        "role": "terminal",
        "quality": 5,
        "reverse_quality": None,
        "modulation": "",
        "media": "",
        **changes,
    }


def prime_tree(switches: int, terminals: int) -> list[dict[str, Any]]:
    """Switches under the concentrator, each with its terminals; every third switch hangs under the one before it."""
    nodes: list[dict[str, Any]] = []
    for number in range(switches):
        eui = f"0200000a{number:04x}"
        parent = f"0200000a{number - 1:04x}" if number % 3 == 2 else ""
        nodes.append(node(eui, parent, role="switch", quality=6 - number % 5))
        nodes += [
            node(f"0200{number + 16:04x}{one:04x}", eui, level=2, quality=(one * 3 + number) % 8)
            for one in range(terminals)
        ]
    return nodes


def answers() -> dict[str, dict[str, Any]]:
    """What the service answers to each question, in its own form."""
    return {
        "balance": {
            "day": "2026-11-20",
            "feeders": [
                {
                    "name": "transformer",
                    "supervisor": METERS[0],
                    "members": 2,
                    "totals": {
                        "intervals": 96,
                        "intervals_judged": 90,
                        "coverage_pct": 98.5,
                        "supplied_kwh": 120.5,
                        "delivered_kwh": 100.25,
                        "loss_kwh": 20.25,
                        "loss_pct": 16.8,
                        "estimated_supplied_kwh": 130.0,
                        "estimated_delivered_kwh": 110.0,
                        "estimated_loss_kwh": 20.0,
                        "estimated_loss_pct": 15.38,
                        "estimated_loss_low_kwh": 18.5,
                        "estimated_loss_high_kwh": 21.5,
                    },
                    "phases": {},
                    "intervals": [],
                    "suspicions": [
                        {"meter": METERS[1], "score": 0.82, "reasons": [f"less since the 12th {HOSTILE}"]}
                    ],
                }
            ],
        },
        "interruptions": {
            "from": (now() - timedelta(days=7)).isoformat(),
            "to": now().isoformat(),
            "outages": [
                {
                    "start": (now() - timedelta(hours=5)).isoformat(),
                    "end": (now() - timedelta(hours=4)).isoformat(),
                    "minutes": 60.0,
                    "meters": 3,
                    "scale": "feeder",
                    "suspected": False,
                    "feeders": ["transformer"],
                    "meter_minutes": 180.0,
                    "names": list(METERS),
                }
            ],
        },
        "firmware_images": {"images": IMAGES},
        "support_bundle": {"content": base64.b64encode(b"a bundle").decode()},
        "upgrade_status": {
            "file": "node-2.bin",
            "state": "running",
            "targets": 2,
            "pages": {"020000000001": 40},
            "states": {"020000000001": "receiving"},
            "outcomes": {},
            "reason": "",
        },
    }


IMAGES = [
    {
        "image": "meter-2.0.json",
        "reason": "",
        "manufacturer": "ODC",
        "model": "simulated",
        "from_versions": ["1.0"],
        "to_version": "2.0",
        "size": 300_000,
    },
    {"image": "other.json", "reason": f"other.json: not signed {HOSTILE}"},
]


def firmware_meter(identity: str, state: str, done: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "meter": identity,
        "state": state,
        "blocks_done": done,
        "blocks": 2344,
        "tries": 0,
        "next_try_at": None,
        "changed_at": now().isoformat(),
        "from_version": "1.0",
        "reason": "",
        "under_way": state == "transferring",
        **changes,
    }


def campaign(meters: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A firmware campaign as the service tells it."""
    states = (
        *("waiting", "transferring", "verifying", "verified", "waiting_for_activation", "activating"),
        *("done", "failed", "aborted"),
    )
    return {
        "name": "spring",
        "state": "running",
        "reason": "",
        "image": "meter-2.0.json",
        "manufacturer": "ODC",
        "model": "simulated",
        "from_versions": ["1.0"],
        "to_version": "2.0",
        "size": 300_000,
        "sha256": "00" * 32,
        "meters_selected": "model:simulated",
        "not_before": None,
        "not_after": (now() + timedelta(days=7)).isoformat(),
        "activate_from": None,
        "hours": "quiet",
        "at_once": 2,
        "first": 1,
        "failure_limit": 3,
        "started_at": now().isoformat(),
        "started_by": f"the page, ada {HOSTILE}",
        "changed_at": now().isoformat(),
        "total": len(meters),
        "counts": {state: sum(one["state"] == state for one in meters) for state in states},
        "meters": meters,
        **changes,
    }


def firmware() -> dict[str, Any]:
    """What the service answers to the question `firmware`."""
    return {
        "job": {
            "job": "update-1",
            "target": f"box-2026.11.raucb {HOSTILE}",
            "begun_by": "concentrator update install, on the box",
            "began_at": now().isoformat(),
            "state": "installing",
            "progress": 40,
            "step": "Copying image to rootfs.1",
            "slot": "",
            "error": "",
            "ended_at": "",
        },
        "rauc": {
            "reason": "",
            "compatible": "open-data-concentrator",
            "operation": "installing",
            "booted": "A",
            "last_error": "",
            "slots": [
                {"name": "rootfs.0", "state": "booted", "bootname": "A", "boot_status": "good",
                 "version": "2026.10", "installed_at": now().isoformat(), "is_next": True},
                {"name": "rootfs.1", "state": "inactive", "bootname": "B", "boot_status": "bad",
                 "version": "", "installed_at": "", "is_next": False},
            ],
        },
        "campaigns": [
            campaign(
                [
                    firmware_meter(METERS[0], "transferring", 900),
                    firmware_meter(METERS[1], "failed", 2344, reason=f"refused {HOSTILE}", tries=2),
                    firmware_meter(METERS[2], "waiting", blocks=0),
                ]
            )
        ],
    }  # fmt: skip


class Trail:
    """What the desk of accounts wants of a store: the audit trail, kept in a list."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    async def add_audit_entry(self, entry: Any) -> int:
        self.entries.append(entry)
        return len(self.entries)


class HeldKeys:
    """The desk of keys over a list; lists are read by the real reader and kept nowhere."""

    async def state(self) -> list[dict[str, Any]]:
        held = {"kinds": ["guek"], "state": "present", "reason": "", "replaced_at": None}
        lacking = {"kinds": [], "state": "missing", "reason": HOSTILE, "replaced_at": None}
        return [{"meter": METERS[0], **held}, {"meter": METERS[1], **lacking}]

    async def take(self, text: object) -> dict[str, int]:
        found = key_list_of(Path("list"), text if isinstance(text, str) else "")
        return {"keys": sum(map(len, found.values())), "meters": len(found)}


class FakeService:
    """The service's end of the control socket: the real ControlServer and accounts over a status that tests change."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.status = status()
        self.hangs = False
        self.open_view = True
        self.archive: Any = None
        self.orders: list[Any] = []
        self.nodes: list[dict[str, Any]] = []
        self.dialogues: dict[str, dict[str, Any]] = {}
        self.traffic = TrafficHub(SystemClock())
        self.questions: list[Any] = []
        self.answers: dict[str, dict[str, Any]] = answers()
        self.firmware: dict[str, Any] = firmware()
        self.listed: list[dict[str, Any]] = []
        self.trail = Trail()
        self.users = UserBook(socket.parent / "accounts", cost=2)
        for name, role in USERS.items():
            self.users.add(name, role, PASSWORD)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    async def _tell(self) -> dict[str, Any]:
        if self.hangs:
            await asyncio.sleep(3600)
        return copy.deepcopy(self.status)

    async def _carry_out(self, order: Any) -> dict[str, Any]:
        if order.operation == "orders":
            return {"orders": self.listed}
        if order.operation == "order_state":
            for one in self.listed:
                if one["id"] == order.arguments.get("id"):
                    return one
            raise OrderError(f"no order {order.arguments.get('id')!r} is known")
        self.orders.append(order)
        if order.operation == "cancel_order":
            return {"id": order.arguments.get("id"), "op": "ping", "state": "failed"}
        if order.deferred:
            return {"order": order.order_id, "state": "accepted"}
        return {"meter": order.target, "seconds": 0.4, "said": HOSTILE}

    def _configuration_desk(self, clock: SystemClock) -> ConfigurationDesk:
        """The real one, over a file of its own; nothing starts anew."""
        path = self.users.path.parent / "box.toml"
        path.write_text(config_text(self.users.path.parent))
        return ConfigurationDesk(
            ConfigurationFile(path), clock, lambda: {"mqtt"}, lambda: {"mqtt"}, lambda: None, 120.0
        )

    async def _answer(self, order: Any) -> dict[str, Any]:
        """Questions, with answers in the service's form."""
        self.questions.append((order.operation, order.arguments))
        return copy.deepcopy(self.answers[order.operation])

    def _places(self, eui: str) -> dict[str, Any]:
        return {"eui": eui, "known": False} if eui else {"nodes": copy.deepcopy(self.nodes)}

    def _dialogue(self, meter: str) -> dict[str, Any]:
        return self.dialogues.get(meter, {"meter": meter, "known": False})

    def publish(
        self, source: Source, direction: str, octets: bytes = b"", meter: str = "", note: str = ""
    ) -> None:
        """Something passes on a line."""
        self._loop.call_soon_threadsafe(self.traffic.publish, source, direction, octets, meter, note)

    def start(self) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            clock = SystemClock()
            sessions = Sessions(self.users, clock, self.users.path.parent, idle_s=600, longest_s=3600)
            self.tokens = TokenBook(self.users, clock, self.users.path.parent)
            self.desk = desk = AccessDesk(
                self.users,
                sessions,
                self.tokens,
                self.trail,
                clock,
                self._carry_out,
                self._configuration_desk(clock),
                HeldKeys(),
                self.archive,
                open_view=self.open_view,
            )
            questions = {
                "topology": self._places,
                "dialogue": self._dialogue,
                "firmware": lambda _campaign: copy.deepcopy(self.firmware),
            }
            server = ControlServer(
                self.socket,
                self._tell,
                self._carry_out,
                self._answer,
                desk,
                questions=questions,
                traffic=self.traffic,
            )
            self._task = asyncio.create_task(server.run())
            await asyncio.gather(self._task, return_exceptions=True)

        self._thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 5
        while not self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def stop(self) -> None:
        if self._thread is not None:
            self.hangs = False
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(5)
            self._thread = None
