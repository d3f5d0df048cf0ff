"""Which network object goes with which modem."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from concentrator.config import ConfigError, ModemSection
from concentrator.links.aes import aes
from plc.g3 import enumerations
from plc.g3.coordinator import Coordinator
from plc.network import Network
from plc.prime.base_node import BaseNode
from plc.sfsk.initiator import Initiator

# The bands that can be configured, by the name that G.9903 gives them.
_BANDS = {name.lower(): number for number, name in enumerations.BANDS}


@dataclass(frozen=True, slots=True)
class _Keys:
    """What a G3 key file holds."""

    psk: bytes = field(repr=False)
    gmk: bytes = field(repr=False)
    gmk_index: int
    device_psks: dict[bytes, bytes] = field(repr=False)


def make_network(
    settings: ModemSection,
    known_addresses: dict[bytes, int],
    frame_counter: int = 0,
    initiator_title: bytes = bytes(8),
) -> Network:
    """The network of the configured family; what follows the settings is what has to be remembered over restarts.

    `initiator_title` is the system title of an S-FSK initiator.

    Raises:
        ConfigError: the G3 key file is missing, open to others, or not what it should be.
    """
    if settings.family == "prime":
        return BaseNode(data_confirm_timeout_s=settings.confirm_timeout_s)
    if settings.family == "s-fsk":
        return Initiator(
            initiator_title,
            known_addresses,
            local_address=settings.initiator_address,
            baud_rate=settings.line_baud_rate,
            data_confirm_timeout_s=settings.confirm_timeout_s,
        )
    keys = _g3_keys(settings.key_file)
    if settings.generation == "b" and not keys.psk:
        raise ConfigError(f"modem.key_file: {settings.key_file}: psk is needed with modem.generation b")
    return Coordinator(
        settings.pan_id,
        keys.psk,
        keys.gmk,
        known_addresses,
        band=_BANDS[settings.band],
        data_confirm_timeout_s=settings.confirm_timeout_s,
        generation=settings.generation,
        aes=aes,
        random=os.urandom,
        device_psks=keys.device_psks,
        gmk_index=keys.gmk_index,
        frame_counter=frame_counter,
    )


def _g3_keys(key_file: str) -> _Keys:
    """The network's keys; no error shows what the file holds."""
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
    device_psks: dict[bytes, bytes] = {}
    given = keys.get("device_psks", {})
    if not isinstance(given, dict):
        raise ConfigError(f"modem.key_file: {path}: device_psks has to be a section [device_psks]")
    for eui64, value in cast("dict[str, object]", given).items():
        if not re.fullmatch(r"[0-9A-Fa-f]{16}", eui64):
            raise ConfigError(
                f"modem.key_file: {path}: device_psks: each name has to be an EUI-64 of 16 digits"
            )
        device_psks[bytes.fromhex(eui64)] = _key(path, f"device_psks.{eui64}", value)
    index = keys.get("gmk_index", 0)
    if type(index) is not int or index not in (0, 1):
        raise ConfigError(f"modem.key_file: {path}: gmk_index has to be 0 or 1")
    psk = b"" if device_psks and "psk" not in keys else _key(path, "psk", keys.get("psk"))
    return _Keys(psk, _key(path, "gmk", keys.get("gmk")), index, device_psks)


def _key(path: Path, name: str, value: object) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
        raise ConfigError(f"modem.key_file: {path}: {name} has to be 32 hexadecimal digits in quotes")
    return bytes.fromhex(value)
