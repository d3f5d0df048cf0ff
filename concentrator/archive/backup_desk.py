"""Backup and restore as the page asks for them: the service makes, takes, checks and restores; the page hands on.

What the page gets is what `concentrator backup` writes: keys under a passphrase. Its files lie in a folder that only
the service's user may read, one backup and one upload at a time, and go after an hour or with the next start.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from concentrator.access.account_desk import Note, text_of
from concentrator.access.configuration import ConfigurationFile
from concentrator.archive import in_place
from concentrator.archive.backup import make_backup
from concentrator.archive.sealing import ArchiveError
from concentrator.clock import Clock
from concentrator.config import Config

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Of one request or answer; in base64 a third more, which is below what a request may have.
PART_OCTETS = 192 * 1024
LARGEST_UPLOAD_OCTETS = 8 * 1024**3
# What the service needs to go on storing while a backup lies there.
_KEPT_FREE_OCTETS = 64 * 1024**2
_KEPT_S = 3600.0
_RESTART_DELAY_S = 1.0


@dataclass(slots=True)
class _Held:
    """A file that lies in the folder: a backup on its way out, or an upload on its way in."""

    identity: str
    path: Path
    octets: int
    touched_at: float
    whole: int = 0
    preview: in_place.Preview | None = None


class BackupDesk:
    """Of one box. `connected` gives the destinations connected now, `restart` starts the service anew."""

    def __init__(
        self,
        config: Config,
        config_file: Path,
        clock: Clock,
        connected: Callable[[], Collection[str]],
        restart: Callable[[], None],
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._clock = clock
        self._connected = connected
        self._restart = restart
        self._room = config.state_directory / in_place.ROOM
        self._backup: _Held | None = None
        self._upload: _Held | None = None
        self._working = asyncio.Lock()
        self._going = False

    async def answer(self, do: str, request: Mapping[str, Any], who: str, note: Note) -> dict[str, Any]:
        """Do what is asked: state, make, read; begin, part, check, apply, cancel.

        Raises:
            ArchiveError: it cannot be done; the text says why, and shows no secret.
        """
        if self._going:
            raise ArchiveError("the service is about to start anew: wait a moment")
        await asyncio.to_thread(self._forget_old)
        if do in ("make", "check", "apply") and self._working.locked():
            raise ArchiveError(f"backup: {do}: another one is under way; wait until it is done")
        match do:
            case "state":
                return {"name": self._config.concentrator.name, "disk_free": self._free()}
            case "make":
                async with self._working:
                    return await self._make(request, who, note)
            case "read":
                return await asyncio.to_thread(self._read, request)
            case "begin":
                return await asyncio.to_thread(self._begin, request)
            case "part":
                return await asyncio.to_thread(self._part, request)
            case "check":
                async with self._working:
                    return await self._check(request)
            case "apply":
                async with self._working:
                    return await self._apply(request, who, note)
            case "cancel":
                await asyncio.to_thread(self._forget_upload)
                return {}
            case _:
                raise ArchiveError(
                    f"backup: got {do[:32]!r}; allowed: state, make, read, begin, part, check, apply, cancel"
                )

    # Out

    async def _make(self, request: Mapping[str, Any], who: str, note: Note) -> dict[str, Any]:
        with_readings = request.get("with_readings") is True
        passphrase = None if request.get("without_keys") is True else text_of(request, "passphrase")
        path = self._new_file("backup")
        needed = 2 * (self._config.store_file.stat().st_size if self._config.store_file.exists() else 0)
        self._check_room(needed if with_readings else needed // 4, "a backup")
        try:
            left_out = await asyncio.to_thread(
                make_backup,
                self._config,
                self._config_file,
                path,
                self._clock.now(),
                passphrase=passphrase,
                with_readings=with_readings,
            )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        octets = path.stat().st_size
        self._forget_backup()
        self._backup = _Held(secrets.token_hex(8), path, octets, time.monotonic())
        words = f"{octets} octets, {'with' if with_readings else 'without'} readings, "
        words += "without keys" if passphrase is None else "with keys under a passphrase"
        log.warning("backup made", by=who, octets=octets)
        await note("backup", who, "done", words)
        stamp = self._clock.now().strftime("%Y%m%d-%H%M")
        name = f"{self._config.concentrator.name}-{stamp}.backup"
        return {"id": self._backup.identity, "octets": octets, "name": name, "left_out": left_out}

    def _read(self, request: Mapping[str, Any]) -> dict[str, Any]:
        held = self._of(self._backup, request)
        offset = _whole(request, "offset")
        with held.path.open("rb") as file:
            file.seek(offset)
            content = file.read(PART_OCTETS)
        held.touched_at = time.monotonic()
        if offset + len(content) >= held.octets:
            self._forget_backup()
        return {"content": base64.b64encode(content).decode()}

    # In

    def _begin(self, request: Mapping[str, Any]) -> dict[str, Any]:
        octets = _whole(request, "octets")
        if octets > LARGEST_UPLOAD_OCTETS:
            raise ArchiveError(f"backup: has {octets} octets; at most {LARGEST_UPLOAD_OCTETS} are taken")
        self._forget_upload()
        # Beside itself its files have to lie there too.
        self._check_room(2 * octets, "this backup")
        path = self._new_file("upload")
        path.touch(mode=0o600)
        self._upload = _Held(secrets.token_hex(8), path, 0, time.monotonic(), whole=octets)
        return {"id": self._upload.identity, "part_octets": PART_OCTETS}

    def _part(self, request: Mapping[str, Any]) -> dict[str, Any]:
        held = self._of(self._upload, request)
        try:
            content = base64.b64decode(text_of(request, "content"), validate=True)
        except (binascii.Error, ValueError):
            raise ArchiveError("backup: a part is no base64") from None
        if _whole(request, "offset") != held.octets or held.octets + len(content) > held.whole:
            raise ArchiveError("backup: a part does not follow on the one before; upload it again")
        self._check_room(len(content), "this backup")
        with held.path.open("ab") as file:
            file.write(content)
        held.octets += len(content)
        held.preview = None
        held.touched_at = time.monotonic()
        return {"octets": held.octets}

    async def _check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        held = self._of(self._upload, request)
        held.preview = None
        most = self._free() - _KEPT_FREE_OCTETS
        held.preview = await asyncio.to_thread(
            in_place.stage,
            held.path,
            self._room / in_place.STAGED,
            self._config,
            self._config_file,
            text_of(request, "passphrase"),
            most,
        )
        held.touched_at = time.monotonic()
        return {
            **in_place.told(held.preview),
            "this_name": self._config.concentrator.name,
            "configuration_can_be_written": ConfigurationFile(self._config_file).can_be_written,
        }

    async def _apply(self, request: Mapping[str, Any], who: str, note: Note) -> dict[str, Any]:
        held = self._of(self._upload, request)
        name = self._config.concentrator.name
        if held.preview is None:
            raise ArchiveError("restore: check the backup first")
        if text_of(request, "confirm").strip() != name:
            raise ArchiveError(f"restore: the name of this box, {name}, has to be typed in")
        with_configuration = request.get("with_configuration") is True
        file = ConfigurationFile(self._config_file)
        if with_configuration and held.preview.configuration_problems:
            raise ArchiveError("restore: its configuration cannot be taken here; restore it without")
        if with_configuration and (file.trial() is not None or not file.can_be_written):
            raise ArchiveError(
                "restore: a configuration is on trial, or the service may not write the file; restore it without"
            )
        words = f"backup of {held.preview.name}, made {held.preview.made_at}, restored"
        await asyncio.to_thread(
            in_place.make_ready,
            self._room / in_place.STAGED,
            given_by=who,
            connected=self._connected(),
            with_configuration=with_configuration,
            with_keys=held.preview.with_keys,
            words=words,
        )
        self._going = True
        log.warning("restoring", by=who, backup_of=held.preview.name, made_at=held.preview.made_at)
        await note("restore", who, "begun", words)
        # Who asked gets the answer before the service goes.
        asyncio.get_running_loop().call_later(_RESTART_DELAY_S, self._restart)
        return {"restarting": True}

    # The folder

    def _new_file(self, kind: str) -> Path:
        self._room.mkdir(mode=0o700, exist_ok=True)
        return self._room / f"{kind}-{secrets.token_hex(4)}"

    def _of(self, held: _Held | None, request: Mapping[str, Any]) -> _Held:
        if held is None or not secrets.compare_digest(held.identity, text_of(request, "id")):
            raise ArchiveError("backup: it is not here any more; begin again")
        return held

    def _free(self) -> int:
        return shutil.disk_usage(self._config.state_directory).free

    def _check_room(self, octets: int, what: str) -> None:
        free = self._free()
        if octets + _KEPT_FREE_OCTETS > free:
            raise ArchiveError(
                f"backup: {free} octets are free; {what} needs {octets}, and the service {_KEPT_FREE_OCTETS}"
            )

    def _forget_old(self) -> None:
        now = time.monotonic()
        if self._backup is not None and now - self._backup.touched_at > _KEPT_S:
            self._forget_backup()
        if self._upload is not None and now - self._upload.touched_at > _KEPT_S:
            self._forget_upload()

    def _forget_backup(self) -> None:
        held, self._backup = self._backup, None
        if held is not None:
            held.path.unlink(missing_ok=True)

    def _forget_upload(self) -> None:
        held, self._upload = self._upload, None
        if held is not None:
            held.path.unlink(missing_ok=True)
        shutil.rmtree(self._room / in_place.STAGED, ignore_errors=True)


def _whole(request: Mapping[str, Any], name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArchiveError(f"backup: {name}: got {str(value)[:32]!r}; allowed: a whole number")
    return value
