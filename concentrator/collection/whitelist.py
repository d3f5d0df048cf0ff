"""Who may join the PLC network: a file of the operator's, changed by orders since.

The file has one EUI a line, in hexadecimal; what follows a # is for people. Orders change the list and are kept in the
store, until the file changes: then the file is right again. Without a file and orders everybody may join.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from concentrator.config import ConfigError
from concentrator.orders import OrderError
from concentrator.store.store import Store

_SETTING = "plc_whitelist"
# Octets of an EUI, by family; a system title is S-FSK's.
EUI_SIZES = {"prime": (6,), "g3": (8,), "s-fsk": (8, 6)}


class Whitelist:
    """The EUIs that may join; `allowed` is None when everybody may."""

    def __init__(self, store: Store, file: str, family: str) -> None:
        self._sizes = EUI_SIZES[family]
        self.allowed: set[bytes] | None = None
        self._store = store
        self._file = file
        self._mark = ""  # of the file's content

    @property
    def count(self) -> int | None:
        """How many may join; None for everybody."""
        return None if self.allowed is None else len(self.allowed)

    async def load(self) -> None:
        """Take the file, and what orders have changed since it was written.

        Raises:
            ConfigError: the file cannot be read, or a line of it is no EUI.
        """
        self.read_file()
        kept = json.loads(await self._store.setting(_SETTING) or "{}")
        if kept and kept["mark"] == self._mark:
            given = kept["allowed"]
            euis = {bytes.fromhex(eui) for eui in given or ()}
            # Of another family, when that was changed since.
            fitting = {eui for eui in euis if len(eui) in self._sizes}
            self.allowed = None if given is None else fitting

    def read_file(self) -> None:
        """Take the file as it is now. Raises ConfigError."""
        if self._file:
            self.allowed, self._mark = read_whitelist_file(Path(self._file), self._sizes)

    async def change(self, add: set[bytes], remove: set[bytes], *, everyone: bool = False) -> None:
        """Change the list for good; the first `add` to a list of everybody makes it a list of those only.

        Raises:
            OrderError: an EUI is none of this family's.
            StoreError: it could not be kept, and is unchanged.
        """
        for eui in add:
            if len(eui) not in self._sizes:
                raise OrderError(f"whitelist: got {eui.hex()}; allowed: EUIs of {self._sizes[0]} octets")
        allowed = None if everyone else ((self.allowed or set()) | add) - remove
        if self.allowed is None and not add and not everyone:
            allowed = None
        kept = {
            "mark": self._mark,
            "allowed": None if allowed is None else sorted(eui.hex() for eui in allowed),
        }
        await self._store.keep_setting(_SETTING, json.dumps(kept))
        self.allowed = allowed


def read_whitelist_file(path: Path, sizes: tuple[int, ...]) -> tuple[set[bytes], str]:
    """The EUIs of a file, and a mark of its content.

    Raises:
        ConfigError: it cannot be read, or a line of it is no EUI.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"modem.whitelist_file: {path}: cannot be read: {reason}") from None
    allowed: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            eui = bytes.fromhex(entry.replace(":", ""))
        except ValueError:
            eui = b""
        if len(eui) not in sizes:
            raise ConfigError(
                # Not what stands there: it may be a file of secrets, named by mistake or on purpose.
                f"modem.whitelist_file: {path}: line {number}: allowed: an EUI of {sizes[0]} octets in hexadecimal"
            )
        allowed.add(eui)
    return allowed, hashlib.sha256(text.encode()).hexdigest()
