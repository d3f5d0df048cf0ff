"""The group key of a G3 network that was rotated since its key file was written, in a file of mode 0600.

A new key is on flash before the first device gets it: `next_gmk` until the rotation has ended, `gmk` from then on. The
file is for the key file that it began with; when the operator puts another GMK there, it counts no more. It is replaced
as a whole, so that a power cut leaves the old one or the new one. Keys are shown nowhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from concentrator.collection.changed_keys import write_private


class GroupKeyFile:
    """The key that is in use, and the one that is being given out."""

    def __init__(self, path: Path, configured_gmk: bytes, configured_index: int) -> None:
        self.gmk = configured_gmk
        self.index = configured_index
        self.next_gmk = b""
        self._path = path
        self._origin = hashlib.sha256(b"group key" + configured_gmk).hexdigest()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="ascii"))
            if kept["origin"] == self._origin:
                self.gmk, self.next_gmk = bytes.fromhex(kept["gmk"]), bytes.fromhex(kept["next_gmk"])
                self.index = int(kept["index"])

    def __repr__(self) -> str:
        return f"GroupKeyFile({self._path}, index {self.index})"

    def prepare(self, gmk: bytes) -> None:
        """Keep a key that is about to be given out. Raises OSError."""
        self.next_gmk = gmk
        self._write()

    def confirm(self, index: int) -> None:
        """The key that was prepared is in use now, under this index. Raises OSError."""
        if self.next_gmk:
            self.gmk, self.next_gmk = self.next_gmk, b""
        self.index = index
        self._write()

    def _write(self) -> None:
        text = json.dumps(
            {
                "origin": self._origin,
                "gmk": self.gmk.hex(),
                "index": self.index,
                "next_gmk": self.next_gmk.hex(),
            }
        )
        write_private(self._path, text)
