"""Which network object goes with which modem, and what a G3 network has to remember across restarts."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import tomllib
from pathlib import Path

import structlog

from concentrator.config import ConfigError, ModemSection
from concentrator.store.errors import StoreError
from concentrator.store.store import Store
from plc.g3 import enumerations
from plc.g3.coordinator import Coordinator
from plc.network import Event, Network, ShortAddressAssigned
from plc.prime.base_node import BaseNode

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_SETTING = "g3_short_addresses"
_RETRY_S = 5.0
# The bands that can be configured, by the name that G.9903 gives them.
_BANDS = {name.lower(): number for number, name in enumerations.BANDS}


class AddressBook:
    """The short addresses that G3 devices were given, by EUI-64. They stay the device's own over restarts."""

    def __init__(self, store: Store) -> None:
        self.known: dict[bytes, int] = {}
        self._store = store
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Take them from the store."""
        kept = await self._store.setting(_SETTING)
        self.known = {bytes.fromhex(eui): int(address) for eui, address in json.loads(kept or "{}").items()}

    def note(self, event: Event) -> None:
        """Remember what a network tells of new addresses."""
        if isinstance(event, ShortAddressAssigned):
            self.known[event.eui] = event.address
            self._changed.set()

    async def run(self) -> None:
        """Write changes to the store, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            text = json.dumps({eui.hex(): address for eui, address in self.known.items()})
            try:
                await self._store.keep_setting(_SETTING, text)
            except StoreError as error:
                log.warning("short addresses not kept", reason=str(error))
                self._changed.set()
                await asyncio.sleep(_RETRY_S)


def make_network(settings: ModemSection, known_addresses: dict[bytes, int]) -> Network:
    """The network of the configured family.

    Raises:
        ConfigError: the G3 key file is missing, open to others, or not what it should be.
    """
    if settings.family == "prime":
        return BaseNode(data_confirm_timeout_s=settings.confirm_timeout_s)
    psk, gmk = _g3_keys(settings.key_file)
    return Coordinator(
        settings.pan_id,
        psk,
        gmk,
        known_addresses,
        band=_BANDS[settings.band],
        data_confirm_timeout_s=settings.confirm_timeout_s,
    )


def _g3_keys(key_file: str) -> tuple[bytes, bytes]:
    """PSK and GMK; no error shows what the file holds."""
    if not key_file:
        raise ConfigError(
            "modem.key_file: not given; a G3 network needs a file with psk and gmk (see docs/plc.md)"
        )
    path = Path(key_file)
    try:
        mode = path.stat().st_mode
        keys: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"modem.key_file: {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigError(f"modem.key_file: {path}: is not TOML") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"modem.key_file: {path}: others could read it; run chmod 0600 on it")
    values: list[bytes] = []
    for name in ("psk", "gmk"):
        value = keys.get(name)
        if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
            raise ConfigError(f"modem.key_file: {path}: {name} has to be 32 hexadecimal digits in quotes")
        values.append(bytes.fromhex(value))
    return values[0], values[1]
