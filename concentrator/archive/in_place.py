"""A backup put in place of what the service works with, by the service itself: all of it or nothing.

The service's user may write in its state directory, but not put another in its place. So the files of a backup are laid
ready there (`archive/staged`), checked, and named in one file, `ready.json`. While that is not there, everything is as
it was; once it is, the next start of the service goes on with it before anything else: each file is put in place by a
rename, and what was there is kept in `before-restore`. A power cut at any moment leaves the old state, or a start that
goes on. The configuration goes on trial, as one that is changed on the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from concentrator import instance_lock
from concentrator.access.configuration import ConfigurationFile, difference
from concentrator.access.errors import ConfigurationChangeError
from concentrator.access.full_check import mistakes_of
from concentrator.archive.backup import CONFIGURATION, KEYS, SECRET_FILES, STORE, fill, named_files, unpack
from concentrator.archive.sealing import ArchiveError
from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_store import KeyStore
from concentrator.config import Config, load_config
from concentrator.errors import ConcentratorError
from concentrator.store.migrations import APPLICATION_ID

ROOM, STAGED, ASIDE = "archive", "staged", "before-restore"
_READY, _BEGUN = "ready.json", "begun"
# Of a store that is moved: what belongs to it has to go first, or it would be taken for the new one's.
_BESIDE_STORE = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Preview:
    """What a backup holds, and what stands against its configuration."""

    name: str
    made_at: str
    software: str
    with_readings: bool
    with_keys: bool
    meters: int
    readings: int
    # Why its configuration cannot be taken here; the rest can be restored without it.
    configuration_problems: tuple[str, ...]
    difference: tuple[str, ...]
    # Files that the configuration names and no backup holds.
    named_files: tuple[str, ...]


def stage(
    source: Path, staged: Path, config: Config, config_file: Path, passphrase: str, most_octets: int
) -> Preview:
    """Unpack and check a backup into a folder that is made anew.

    Raises:
        ArchiveError: it is no backup, is damaged, too large, of a newer release, or its keys cannot be opened here.
    """
    try:
        shutil.rmtree(staged, ignore_errors=True)
        unpacked = staged / "unpacked"
        unpacked.mkdir(parents=True, mode=0o700)
        manifest = unpack(source, unpacked, most_octets)
        fill(staged, unpacked, manifest, passphrase or None)
        (unpacked / CONFIGURATION).replace(staged / CONFIGURATION)
        shutil.rmtree(unpacked)
        meters, readings = _look_into_store(staged / STORE) if (staged / STORE).exists() else (0, 0)
        KeyStore(staged).unlock()
        text = (staged / CONFIGURATION).read_text(encoding="utf-8")
        for path in staged.iterdir():
            _sync(path)
    except OSError as error:
        raise ArchiveError(f"backup: {error.filename or ''}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ArchiveError("backup: its configuration is not UTF-8 text") from None
    except KeyFileError as error:
        raise ArchiveError(f"backup: its keys cannot be opened on this machine: {error}") from None
    problems, named = _about_configuration(staged / CONFIGURATION, text, config)
    return Preview(
        str(manifest.get("name", ""))[:64],
        str(manifest.get("made_at", ""))[:32],
        str(manifest.get("software", ""))[:32],
        bool(manifest.get("with_readings")),
        KEYS in manifest["parts"],
        meters,
        readings,
        tuple(problems),
        tuple(difference(config_file.read_text(encoding="utf-8"), text)),
        tuple(named),
    )


def _about_configuration(path: Path, text: str, config: Config) -> tuple[list[str], list[str]]:
    try:
        theirs = load_config(path, ports_exist=False)
    except ConcentratorError as error:
        return [str(error).removeprefix(f"{path}: ")], []
    problems = [one.words for one in mistakes_of(text, path.name)]
    if theirs.state_directory.absolute() != config.state_directory.absolute():
        problems.append(
            f"concentrator.state_directory: got '{theirs.state_directory}'; this box has '{config.state_directory}'"
        )
    return problems, named_files(theirs)


def _look_into_store(path: Path) -> tuple[int, int]:
    """How many meters and readings it has. Raises ArchiveError when it is no store of ours, or damaged."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            is_ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if not is_ours or check != "ok":
                raise ArchiveError(f"backup: {STORE} is damaged, or no store of a concentrator")
            found = [
                int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names
                for table in ("meter", "reading")
            ]
    except sqlite3.Error as error:
        raise ArchiveError(f"backup: {STORE}: {error}") from None
    return found[0], found[1]


def make_ready(  # noqa: PLR0913 - what the next start has to know
    staged: Path,
    *,
    given_by: str,
    connected: Iterable[str],
    with_configuration: bool,
    with_keys: bool,
    words: str,
) -> None:
    """From here on the backup is what counts: the next start puts it in place.

    Raises:
        ArchiveError: it cannot be written; then nothing has changed.
    """
    plan: dict[str, Any] = {
        "files": sorted(one.name for one in staged.iterdir() if one.name != CONFIGURATION),
        "gone": [name for name in SECRET_FILES if with_keys and not (staged / name).exists()],
        "with_configuration": with_configuration,
        "given_by": given_by,
        "connected": sorted(connected),
        "words": words,
    }
    fresh = staged / f"{_READY}.new"
    try:
        fresh.write_text(json.dumps(plan), encoding="utf-8")
        _sync(fresh)
        _sync(staged)
        fresh.replace(staged / _READY)
        _sync(staged)
    except OSError as error:
        raise ArchiveError(f"restore: {error.filename or ''}: {error.strerror or error}") from None


def finish(config_file: Path, now: datetime) -> str:
    """At the start of the service, before anything else: put in place what was made ready; gives what was done, or "".

    Raises:
        ArchiveError: a file cannot be moved; the next start tries again.
    """
    try:
        state = load_config(config_file, ports_exist=False).state_directory
    except ConcentratorError:
        # What is wrong with it is told by the start itself.
        return ""
    room = state / ROOM
    if not room.is_dir():
        return ""
    try:
        with instance_lock.hold(state):
            done = _go_on(state, room / STAGED, config_file, now) if (room / STAGED / _READY).exists() else ""
            shutil.rmtree(room, ignore_errors=True)
    except instance_lock.InUseError:
        # Another service works here: what lies there is its own.
        return ""
    except OSError as error:
        raise ArchiveError(
            f"restore: {error.filename or ''}: {error.strerror or error}; the next start goes on with it"
        ) from None
    return done


def _go_on(state: Path, staged: Path, config_file: Path, now: datetime) -> str:
    plan: dict[str, Any] = json.loads((staged / _READY).read_text(encoding="utf-8"))
    aside = state / ASIDE
    if not (staged / _BEGUN).exists():
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        _sync(state)
        (staged / _BEGUN).touch()
        _sync(staged)
    done = str(plan["words"])
    for name in plan["files"]:
        if not (staged / name).exists():
            # Put in place before a power cut.
            continue
        if name == STORE:
            done += _carry_counters(state, aside, staged / name)
        for suffix in (*_BESIDE_STORE, ""):
            _put_aside(state / f"{name}{suffix}", aside)
        (staged / name).replace(state / name)
        _sync(state)
    for name in plan["gone"]:
        _put_aside(state / name, aside)
    _sync(state)
    if plan["with_configuration"]:
        done += _try_configuration(staged / CONFIGURATION, config_file, plan, now)
    (staged / _READY).unlink()
    _sync(staged)
    return done


def _put_aside(path: Path, aside: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.replace(aside / path.name)


def _carry_counters(state: Path, aside: Path, fresh: Path) -> str:
    """No invocation counter may be used twice with a key, no batch number for another batch: the higher ones go on."""
    old = next((path for path in (state / STORE, aside / STORE) if path.exists()), None)
    if old is None:
        return ""
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            connection.execute("ATTACH ? AS old", (str(old),))
            connection.execute("BEGIN")
            connection.execute(
                "INSERT INTO main.invocation_counter SELECT * FROM old.invocation_counter WHERE true"
                " ON CONFLICT DO UPDATE SET reserved = max(reserved, excluded.reserved)"
            )
            connection.execute(
                "UPDATE main.sqlite_sequence AS mine SET seq = max(seq, ("
                "SELECT theirs.seq FROM old.sqlite_sequence AS theirs WHERE theirs.name = mine.name))"
                " WHERE name IN (SELECT name FROM old.sqlite_sequence)"
            )
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        # A store that cannot be read any more may be just why somebody restores.
        return f"; counters of the former store not taken over: {error}"
    return ""


def _try_configuration(path: Path, config_file: Path, plan: dict[str, Any], now: datetime) -> str:
    file = ConfigurationFile(config_file)
    text = path.read_text(encoding="utf-8")
    try:
        if file.text() != text:
            file.apply(text, str(plan["given_by"]), plan["connected"], now)
    except ConfigurationChangeError as error:
        return f"; without its configuration: {error}"
    return "; its configuration is on trial"


def told(preview: Preview) -> dict[str, Any]:
    """A preview as JSON values."""
    return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(preview).items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - texts


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
