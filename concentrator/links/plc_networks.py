"""Which network object goes with which modem."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

from concentrator.config import ConfigError, ModemSection
from plc.g3 import enumerations
from plc.g3.coordinator import Coordinator
from plc.network import Network
from plc.prime.base_node import BaseNode

# The bands that can be configured, by the name that G.9903 gives them.
_BANDS = {name.lower(): number for number, name in enumerations.BANDS}


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
