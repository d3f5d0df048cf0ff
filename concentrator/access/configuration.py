"""Changes of the configuration file that take themselves back: a new file is on trial until somebody confirms it.

Beside `concentrator.toml` stand, while one is on trial, `concentrator.toml.former` (what was in force) and
`concentrator.toml.trial` (what is tried, since when, by whom). Each is written as a whole and is on flash before
the next step, so that a power cut at any moment leaves either the former file or one that is on trial.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from concentrator.access.errors import ConfigurationChangeError

LARGEST_OCTETS = 64 * 1024
# A configuration under which the service does not stay up is taken back without waiting for the time.
_MOST_STARTS = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration on trial. `connected_before` are the destinations that were connected under the former."""

    digest: str
    given_by: str
    applied_at: str
    connected_before: tuple[str, ...] = ()
    starts: int = 0


def digest_of(text: str) -> str:
    """What tells one text of the file from another."""
    return hashlib.sha256(text.encode()).hexdigest()


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, as a unified diff with three lines of context, without the names of files."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=3, lineterm="")
    return list(lines)[2:]


class ConfigurationFile:
    """One configuration file and what stands beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._former = path.with_name(f"{path.name}.former")
        self._trial = path.with_name(f"{path.name}.trial")

    @property
    def can_be_written(self) -> bool:
        """Whether this process may put another file in its place."""
        return os.access(self.path.parent, os.W_OK | os.X_OK)

    def text(self) -> str:
        """The file as it is. Raises ConfigurationChangeError."""
        return _read(self.path)

    def trial(self) -> Trial | None:
        """The trial that is under way, if the file is the one that is tried."""
        try:
            content: dict[str, Any] = json.loads(self._trial.read_text(encoding="utf-8"))
            trial = Trial(
                str(content["digest"]),
                str(content["given_by"]),
                str(content["applied_at"]),
                tuple(str(name) for name in content["connected_before"]),
                int(content["starts"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(ConfigurationChangeError):
            if digest_of(self.text()) == trial.digest:
                return trial
        return None

    def apply(self, text: str, given_by: str, connected: Iterable[str], now: datetime) -> None:
        """Put another text in force, on trial. It is to be checked before; the service has to be started anew after.

        Raises:
            ConfigurationChangeError: one is on trial already, or the files cannot be written; then nothing was changed.
        """
        if self.trial() is not None:
            raise ConfigurationChangeError("a configuration is on trial: confirm it, or take it back, first")
        trial = Trial(digest_of(text), given_by, now.isoformat(timespec="seconds"), tuple(sorted(connected)))
        self._write(self._former, self.text())
        self._write(self._trial, json.dumps(asdict(trial)))
        self._write(self.path, text)

    def confirm(self) -> None:
        """Keep what is on trial. Raises ConfigurationChangeError when nothing is."""
        if self.trial() is None:
            raise ConfigurationChangeError("no configuration is on trial")
        self._forget_trial()

    def revert(self) -> None:
        """Put the former file back; the service has to be started anew after.

        Raises:
            ConfigurationChangeError: nothing is on trial, or the file cannot be written.
        """
        if self.trial() is None:
            raise ConfigurationChangeError("no configuration is on trial")
        self._write(self.path, _read(self._former))
        self._forget_trial()

    def begin(self) -> str:
        """To be called once at each start of the service; gives why a trial was taken back now, or "".

        Raises:
            ConfigurationChangeError: it was to be taken back, and the file cannot be written.
        """
        trial = self.trial()
        if trial is None:
            # What a power cut left between two steps, or a file that somebody has changed by hand since.
            if self.can_be_written:
                self._forget_trial()
            return ""
        if trial.starts >= _MOST_STARTS:
            self.revert()
            return f"the service was started {trial.starts} times under it, and nobody confirmed it"
        self._write(self._trial, json.dumps({**asdict(trial), "starts": trial.starts + 1}))
        return ""

    def _forget_trial(self) -> None:
        for path in (self._trial, self._former):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        _sync_folder(self.path.parent)

    def _write(self, path: Path, text: str) -> None:
        """As a whole, with the mode and the group of the configuration file."""
        fresh = path.with_name(f".{path.name}.new")
        try:
            like = self.path.stat()
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text.encode())
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), like.st_uid if os.geteuid() == 0 else -1, like.st_gid)
                os.fchmod(file.fileno(), like.st_mode & 0o777)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise ConfigurationChangeError(
                f"{path}: cannot be written: {error.strerror}; the service's user has to own the folder "
                "(docs/deployment.md)"
            ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigurationChangeError(f"{path}: cannot be read: {reason}") from None


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
