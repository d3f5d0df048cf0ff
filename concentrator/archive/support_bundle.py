"""The support bundle: what somebody far away needs to understand a box, without a key and of bounded size."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import platform
import re
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from concentrator.config import Config

# A part that is larger loses its beginning: the newest is at the end.
_LARGEST_PART_OCTETS = 2_000_000
_CHECK_LIMIT_S = 20.0
_BOARD_FILES = (
    "/proc/version",
    "/proc/cmdline",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/device-tree/model",
    "/sys/class/thermal/thermal_zone0/temp",
)
_SECRET_NAME = re.compile(r"(?:^|_)(?:password|passphrase|secret|token|key|authorization)s?$", re.IGNORECASE)
_USER_INFO = re.compile(r"://[^/@\s]*@")
_HIDDEN = "(left out)"


async def make_bundle(
    config: Config, status: Mapping[str, Any] | None, log_lines: Sequence[str], now: datetime
) -> bytes:
    """The bundle as tar.gz: versions, configuration, status, statistics, check of the store, log, board."""
    parts = {
        "configuration.json": _json(without_secrets(dataclasses.asdict(config))),
        "status.json": _json(without_secrets(status)) if status else "the service did not run\n",
        "log.txt": "".join(f"{_USER_INFO.sub('://', line)}\n" for line in log_lines),
        "board.json": _json(_board(config.state_directory)),
        **await asyncio.to_thread(_about_store, config.store_file),
    }
    manifest = {
        "software": version("open-data-concentrator"),
        "made_at": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "parts": sorted(parts),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as archive:
        for name, text in {"manifest.json": _json(manifest), **parts}.items():
            content = text.encode("utf-8", "replace")[-_LARGEST_PART_OCTETS:]
            entry = tarfile.TarInfo(f"support/{name}")
            entry.size, entry.mtime = len(content), int(now.timestamp())
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def without_secrets(value: Any, name: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """The same without what a name calls a secret, and without user names and passwords in addresses."""
    if isinstance(value, Mapping):
        return {str(one): without_secrets(inside, str(one)) for one, inside in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON
    if isinstance(value, list | tuple):
        return [without_secrets(one, name) for one in value]  # pyright: ignore[reportUnknownVariableType] - JSON
    if isinstance(value, str) and value and _SECRET_NAME.search(name):
        return _HIDDEN
    return _USER_INFO.sub("://", value) if isinstance(value, str) else value


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"


def _board(state_directory: Path) -> dict[str, str]:
    found = {name: _text(Path(name)) for name in _BOARD_FILES}
    try:
        usage = shutil.disk_usage(state_directory)
    except OSError as error:
        return found | {"disk": str(error.strerror)}
    return found | {"disk": f"{usage.free} of {usage.total} octets free"}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n")
    except OSError as error:
        return f"({error.strerror})"


def _about_store(path: Path) -> dict[str, str]:
    """How the store is: rows of each table, the newest events, and SQLite's own check, as far as it comes."""
    if not path.exists():
        return {"store.json": _json({"file": "does not exist"})}
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            deadline = time.monotonic() + _CHECK_LIMIT_S
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
            tables = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            events = connection.execute(
                "SELECT happened_at, code, detail FROM event ORDER BY event_id DESC LIMIT 2000"
            ).fetchall()
            facts: dict[str, Any] = {
                "octets": path.stat().st_size,
                "schema": connection.execute("PRAGMA user_version").fetchone()[0],
                "rows": {name: _count(connection, name) for name in tables},
                "check": _check(connection),
            }
    except (sqlite3.Error, OSError) as error:
        return {"store.json": _json({"error": str(error)})}
    lines = [f"{at} {code} {_USER_INFO.sub('://', detail)}" for at, code, detail in reversed(events)]
    return {"store.json": _json(facts), "events.txt": "".join(f"{line}\n" for line in lines)}


def _count(connection: sqlite3.Connection, table: str) -> int | str:
    try:
        return int(connection.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - the store's names
    except sqlite3.OperationalError:
        return "not counted in time"


def _check(connection: sqlite3.Connection) -> list[str]:
    try:
        return [str(row[0]) for row in connection.execute("PRAGMA quick_check(20)")]
    except sqlite3.OperationalError:
        return [f"not done within {_CHECK_LIMIT_S:g} s"]
