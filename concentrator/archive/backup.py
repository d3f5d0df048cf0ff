"""Backup and restore of a box.

A backup is a tar archive of `manifest.json` (format, release, schema, SHA-256 of each part), `configuration.toml`,
`store.db` and, unless it was made without keys, `keys.sealed`: the files of the state directory that hold keys, and the
machine's secret, under a passphrase. Restoring makes a new state directory beside the old and puts it in place by one
rename: either everything is restored or nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from concentrator.archive.sealing import ArchiveError, seal, unseal
from concentrator.archive.store_copy import copy_store
from concentrator.collection import key_store, machine_secret
from concentrator.config import Config, load_config
from concentrator.store.migrations import SCHEMA_VERSION

FORMAT = 1
MANIFEST, CONFIGURATION, STORE, KEYS = "manifest.json", "configuration.toml", "store.db", "keys.sealed"
_PARTS = (CONFIGURATION, STORE, KEYS)
# Files of the state directory that hold keys or secrets.
SECRET_FILES = (key_store.FILE, machine_secret.FILE, "meter_keys.json", "group_key.json")
_LARGEST_SECRETS_OCTETS = 64 * 1024 * 1024
_LARGEST_MANIFEST_OCTETS = 1024 * 1024
# What is read as a whole.
_LARGEST_OCTETS = {CONFIGURATION: 1024 * 1024, KEYS: _LARGEST_SECRETS_OCTETS}
_LARGEST_READ_OCTETS = 4 * 1024 * 1024


def make_backup(
    config: Config,
    config_file: Path,
    target: Path,
    now: datetime,
    *,
    passphrase: str | None,
    with_readings: bool,
) -> list[str]:
    """Write a backup to `target` (mode 0600); without a passphrase it has no keys.

    Returns the files that the configuration names and that are not in it: they are the operator's.

    Raises:
        ArchiveError: the passphrase is too short, or a file cannot be read or written.
        StoreError: the store cannot be copied.
    """
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
            room = Path(folder)
            shutil.copyfile(config_file, room / CONFIGURATION)
            if config.store_file.exists():
                copy_store(config.store_file, room / STORE, with_readings=with_readings)
            if passphrase is not None:
                (room / KEYS).write_bytes(seal(_secrets_of(config.state_directory), passphrase))
            parts = {name: _digest(room / name) for name in _PARTS if (room / name).exists()}
            manifest = {
                "format": FORMAT,
                "software": version("open-data-concentrator"),
                "schema": SCHEMA_VERSION,
                "made_at": now.isoformat(timespec="seconds"),
                "name": config.concentrator.name,
                "with_readings": with_readings,
                "parts": parts,
            }
            (room / MANIFEST).write_text(json.dumps(manifest, indent=1))
            packed = room / "packed"
            with tarfile.open(packed, "w:gz", compresslevel=5) as archive:
                for name in (MANIFEST, *parts):
                    archive.add(room / name, name)
            packed.chmod(0o600)
            packed.replace(target)
    except OSError as error:
        raise ArchiveError(f"backup {target}: {error.filename or ''}: {error.strerror or error}") from None
    return named_files(config)


def named_files(config: Config) -> list[str]:
    """The files outside the state directory that a configuration names."""
    found: set[str] = set()

    def look(value: Any) -> None:  # noqa: ANN401 - any part of the configuration
        for name in getattr(value, "__dataclass_fields__", {}):
            one = getattr(value, name)
            if name.endswith("_file") and isinstance(one, str) and one:
                found.add(one)
            elif isinstance(one, tuple):
                for part in one:  # pyright: ignore[reportUnknownVariableType] - sections
                    look(part)
            else:
                look(one)

    look(config)
    return sorted(one for one in found if not Path(one).is_relative_to(config.state_directory))


def _secrets_of(state_directory: Path) -> bytes:
    files = {
        name: (state_directory / name).read_bytes()
        for name in SECRET_FILES
        if (state_directory / name).exists()
    }
    if key_store.FILE in files and machine_secret.FILE not in files:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        credential = Path(folder) / machine_secret.CREDENTIAL if folder else None
        if credential is None or not credential.exists():
            raise ArchiveError(
                "backup: the machine's secret is a systemd credential that this command was not given; "
                "without it the key store in the backup could not be opened. See docs/deployment.md"
            )
        files[machine_secret.FILE] = credential.read_bytes()
    return json.dumps({name: content.hex() for name, content in files.items()}).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore(source: Path, config_file: Path, now: datetime, *, passphrase: str | None, force: bool) -> Config:
    """Put a backup in place: the configuration at `config_file`, the state directory where that says.

    What was there before is kept beside it under another name, with `force`; without it nothing may be there.

    Raises:
        ArchiveError: it is no backup, is damaged or of a newer release, or something is there already.
        ConfigError: its configuration makes no sense to this release.
    """
    stamp = now.strftime("%Y%m%dT%H%M%S")
    try:
        config_file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=config_file.parent, prefix=".restore-") as folder:
            room = Path(folder)
            manifest = unpack(source, room)
            config = load_config(room / CONFIGURATION, ports_exist=False)
            state = config.state_directory
            _check_place(state, config_file, force=force)
            state.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=state.parent, prefix=".restore-") as beside:
                fresh = Path(beside) / "state"
                fresh.mkdir(mode=0o750)
                fill(fresh, room, manifest, passphrase)
                _put(fresh, state, stamp)
            _put(room / CONFIGURATION, config_file, stamp)
    except OSError as error:
        raise ArchiveError(f"restore {source}: {error.filename or ''}: {error.strerror or error}") from None
    return config


def unpack(source: Path, room: Path, most_octets: int | None = None) -> dict[str, Any]:
    """Unpack a backup into a folder, at most so many octets, and check each part; gives its manifest.

    Raises:
        ArchiveError: it is no backup, is damaged, of a newer release, or larger.
    """
    left = most_octets
    try:
        with _Bounded(source, most_octets) as octets, tarfile.open(fileobj=octets, mode="r:") as archive:
            manifest = json.loads(_member(archive, MANIFEST).read(_LARGEST_MANIFEST_OCTETS))
            _check_manifest(source, manifest)
            for name, digest in manifest["parts"].items():
                if archive.getmember(name).size > _LARGEST_OCTETS.get(name, sys.maxsize):
                    raise ArchiveError(f"backup {source.name}: its {name} is larger than any backup's")
                if left is not None:
                    left -= archive.getmember(name).size
                    if left < 0:
                        raise ArchiveError(
                            f"backup {source.name}: unpacked it has more than {most_octets} octets"
                        )
                with (room / name).open("wb") as file:
                    shutil.copyfileobj(_member(archive, name), file)
                if _digest(room / name) != digest:
                    raise ArchiveError(f"backup {source}: {name} is damaged; take another backup")
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise ArchiveError(f"backup {source}: is no backup, or is damaged: {type(error).__name__}") from None
    return manifest


class _Bounded(gzip.GzipFile):
    """A packed archive that gives little at a time: a header of gigabytes, of which it may tell, fills no memory."""

    def __init__(self, path: Path, most_octets: int | None) -> None:
        super().__init__(path)
        self._most = most_octets

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on to a place. Raises tarfile.ReadError when it is behind what may be unpacked."""
        if self._most is not None and offset > self._most + _LARGEST_READ_OCTETS:
            raise tarfile.ReadError(f"goes on at {offset}")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """Some octets. Raises tarfile.ReadError when more are asked for than a part of ours needs."""
        if size is None or not 0 <= size <= _LARGEST_READ_OCTETS:
            raise tarfile.ReadError(f"{size} octets at once")
        return super().read(size)


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedReader:
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found  # pyright: ignore[reportReturnType] - a binary file


def _check_manifest(source: Path, manifest: Mapping[str, Any]) -> None:
    if manifest["format"] != FORMAT or int(manifest["schema"]) > SCHEMA_VERSION:
        raise ArchiveError(
            f"backup {source}: is of format {manifest['format']!r}, schema {manifest['schema']!r}, release "
            f"{manifest['software']!r}; this release reads format {FORMAT}, schemas up to {SCHEMA_VERSION}"
        )
    if CONFIGURATION not in manifest["parts"] or not set(manifest["parts"]) <= set(_PARTS):
        raise ArchiveError(f"backup {source}: has parts {', '.join(manifest['parts'])}, which make no backup")


def _check_place(state: Path, config_file: Path, *, force: bool) -> None:
    taken = [
        str(one) for one in (state, config_file) if one.is_file() or (one.is_dir() and any(one.iterdir()))
    ]
    if taken and not force:
        raise ArchiveError(f"restore: {' and '.join(taken)} is there already; --force puts it aside")


def fill(fresh: Path, room: Path, manifest: Mapping[str, Any], passphrase: str | None) -> None:
    """Fill a state directory with what was unpacked: the store, and the keys with the passphrase.

    Raises:
        ArchiveError: the passphrase is missing or another, or there is a file that this release does not know.
    """
    if STORE in manifest["parts"]:
        shutil.move(room / STORE, fresh / STORE)
    if KEYS not in manifest["parts"]:
        return
    if passphrase is None:
        raise ArchiveError("restore: the backup has keys: a passphrase is needed")
    sealed = (room / KEYS).read_bytes()
    secrets_of_box: dict[str, str] = json.loads(unseal(sealed, passphrase))
    for name, content in secrets_of_box.items():
        if name not in SECRET_FILES:
            raise ArchiveError(f"restore: the backup has a file {name!r} that this release does not know")
        machine_secret.write_private(fresh / name, bytes.fromhex(content))


def _put(fresh: Path, place: Path, stamp: str) -> None:
    """Rename into place; what was there is kept beside it."""
    for path in sorted(fresh.rglob("*")) if fresh.is_dir() else [fresh]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if os.geteuid() == 0 and place.exists():
        owner = place.stat()
        for path in (fresh, *fresh.rglob("*")) if fresh.is_dir() else (fresh,):
            os.chown(path, owner.st_uid, owner.st_gid)
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    elif place.exists():
        place.rename(place.with_name(f"{place.name}.before-{stamp}"))
    fresh.rename(place)


def factory_reset(state_directory: Path) -> int:
    """Remove everything that the concentrator has kept, keys first; returns how many files there were.

    Without the machine's secret, which goes first, whatever the flash still holds of the key store cannot be opened.

    Raises:
        ArchiveError: a file cannot be removed.
    """
    if not state_directory.is_dir():
        return 0
    first = [state_directory / name for name in (machine_secret.FILE, *SECRET_FILES)]
    rest = sorted(path for path in state_directory.rglob("*") if path.is_file() or path.is_symlink())
    removed = 0
    try:
        for path in dict.fromkeys((*first, *rest)):
            if not path.exists() and not path.is_symlink():
                continue
            if path.is_file() and not path.is_symlink():
                _overwrite(path)
            path.unlink()
            removed += 1
        for path in list(state_directory.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise ArchiveError(f"factory reset: {error.filename}: {error.strerror or error}") from None
    return removed


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20)))
        file.flush()
        os.fsync(file.fileno())
