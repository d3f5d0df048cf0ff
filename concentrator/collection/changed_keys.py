"""Keys of meters that were changed since the key file was written, in a file of mode 0600 in the state directory.

A new key is on flash before it goes to its meter: `pending` until an association has shown which keys the meter takes,
`current` from then on. Whatever was given up stays as `retired` for a while: a key that some meter may still hold is
never thrown away. Entries hold for the key file's entry that they began with; when the operator puts other keys
there, these count. The file is replaced as a whole, so that a power cut leaves the old one or the new one. Keys are
shown nowhere.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from concentrator.collection.errors import KeyFileError

_MOST_RETIRED = 4
_PRIVATE_BITS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(slots=True)
class KeySet:
    """Keys as they were given to a meter, all of them; `generation` counts the changes. Empty: not known yet.

    `counter` tells which invocation counter of ours they go with: 0 for the meter's first, which goes on over changes
    as long as it lasts, else the generation with which a new one was begun.
    """

    generation: int
    counter: int = 0
    encryption_key: bytes = field(default=b"", repr=False)
    authentication_key: bytes = field(default=b"", repr=False)
    master_key: bytes = field(default=b"", repr=False)

    def as_json(self) -> dict[str, Any]:
        """For the file only."""
        return {
            "generation": self.generation,
            "counter": self.counter,
            "encryption_key": self.encryption_key.hex(),
            "authentication_key": self.authentication_key.hex(),
            "master_key": self.master_key.hex(),
        }

    @classmethod
    def from_json(cls, content: Any) -> KeySet:  # noqa: ANN401 - decoded JSON
        """From the file. Raises ValueError, KeyError, TypeError."""
        names = ("encryption_key", "authentication_key", "master_key")
        return cls(
            int(content["generation"]),
            int(content["counter"]),
            *[bytes.fromhex(content[name]) for name in names],
        )


@dataclass(slots=True)
class ChangedEntry:
    """What was changed of one meter.

    `origin` is the fingerprint of the key file's entry, `lost` that the meter may hold a key that it agreed on and
    that never reached us: then it is to be given one by a recovery (see `KeySet`'s master key).
    """

    origin: str
    current: KeySet | None = None
    pending: KeySet | None = None
    retired: list[KeySet] = field(default_factory=list[KeySet])
    lost: bool = False
    meter_system_title: bytes = b""

    @property
    def newest_generation(self) -> int:
        """The highest generation that was ever given to this meter."""
        known = [one.generation for one in (self.current, self.pending, *self.retired) if one is not None]
        return max(known, default=0)


class ChangedKeys:
    """The file. Each change is on flash when its method returns; all raise KeyFileError where it cannot be."""

    def __init__(self, path: Path) -> None:
        """Read the file, where there is one.

        Raises:
            KeyFileError: others may read it, or it is not understood.
        """
        self._path = path
        self._entries: dict[str, ChangedEntry] = {}
        if path.exists():
            self._load()

    def __repr__(self) -> str:
        return f"ChangedKeys({self._path}, {len(self._entries)} meters)"

    def _load(self) -> None:
        try:
            mode = self._path.stat().st_mode
            content = cast("dict[str, Any]", json.loads(self._path.read_text(encoding="ascii")))
            if mode & _PRIVATE_BITS:
                raise KeyFileError(f"key file {self._path}: others could read it; run chmod 0600 on it")
            for name, one in content["meters"].items():
                self._entries[name] = ChangedEntry(
                    str(one["origin"]),
                    KeySet.from_json(one["current"]) if one["current"] else None,
                    KeySet.from_json(one["pending"]) if one["pending"] else None,
                    [KeySet.from_json(old) for old in one["retired"]],
                    bool(one["lost"]),
                    bytes.fromhex(one["meter_system_title"]),
                )
        except OSError as error:
            raise KeyFileError(f"key file {self._path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            # It holds the only copy of keys that meters have: never overwritten because it was not understood.
            raise KeyFileError(
                f"key file {self._path}: is not understood; put back a copy, or move it away and give each meter's "
                "keys in the key file"
            ) from None

    def entry(self, identity: str, origin: str) -> ChangedEntry | None:
        """What was changed of a meter since its entry in the key file had this fingerprint."""
        found = self._entries.get(identity)
        return found if found is not None and found.origin == origin else None

    def prepare(
        self, identity: str, origin: str, keys: KeySet, *, lost: bool = False, meter_system_title: bytes = b""
    ) -> None:
        """Keep keys that are about to go to a meter."""
        entry = self.entry(identity, origin) or ChangedEntry(origin)
        if entry.pending is not None:
            self._retire(entry, entry.pending)
        entry.pending = keys
        entry.lost = entry.lost or lost
        entry.meter_system_title = meter_system_title or entry.meter_system_title
        self._entries[identity] = entry
        self._write()

    def complete(self, identity: str, origin: str, keys: KeySet) -> None:
        """The keys that were agreed on, in place of those that were not known yet."""
        entry = self.entry(identity, origin)
        if entry is not None and entry.pending is not None and entry.pending.generation == keys.generation:
            entry.pending = keys
            self._write()

    def use(self, identity: str, origin: str, generation: int) -> None:
        """The meter takes the keys of this generation (0: those of the key file): all others are given up."""
        entry = self.entry(identity, origin)
        if entry is None:
            return
        everything = [one for one in (entry.current, entry.pending, *entry.retired) if one is not None]
        used = next((one for one in everything if one.generation == generation), None)
        entry.current, entry.pending, entry.lost = used, None, False
        entry.retired = []
        for one in sorted(everything, key=lambda one: one.generation):
            if one is not used:
                self._retire(entry, one)
        self._write()

    @staticmethod
    def _retire(entry: ChangedEntry, keys: KeySet) -> None:
        if keys.encryption_key:
            entry.retired = [*entry.retired, keys][-_MOST_RETIRED:]

    def _write(self) -> None:
        content = {
            "meters": {
                name: {
                    "origin": entry.origin,
                    "current": entry.current.as_json() if entry.current else None,
                    "pending": entry.pending.as_json() if entry.pending else None,
                    "retired": [old.as_json() for old in entry.retired],
                    "lost": entry.lost,
                    "meter_system_title": entry.meter_system_title.hex(),
                }
                for name, entry in self._entries.items()
            }
        }
        try:
            write_private(self._path, json.dumps(content))
        except OSError as error:
            raise KeyFileError(f"key file {self._path}: cannot be written: {error.strerror}") from None


def write_private(path: Path, text: str) -> None:
    """Replace a file that nobody else may read; on flash when this returns. Raises OSError."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
