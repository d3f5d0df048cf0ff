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
class NetworkKeys:
    """What the key file of a network holds: G3's keys, or the device unique keys of PRIME nodes."""

    psk: bytes = field(default=b"", repr=False)
    gmk: bytes = field(default=b"", repr=False)
    gmk_index: int = 0
    device_keys: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes], repr=False)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a network has to be told of its former life."""

    known_addresses: dict[bytes, int]
    frame_counter: int = 0
    gmk: bytes = field(default=b"", repr=False)  # b"": the key file's
    gmk_index: int = 0
    allowed: set[bytes] | None = None


def make_network(
    settings: ModemSection, keys: NetworkKeys, remembered: Remembered, initiator_title: bytes = bytes(8)
) -> Network:
    """The network of the configured family. `initiator_title` is the system title of an S-FSK initiator.

    Raises:
        ConfigError: a key is missing that this family needs.
    """
    if settings.family == "prime":
        return BaseNode(
            allowed=remembered.allowed,
            device_keys=keys.device_keys,
            data_confirm_timeout_s=settings.confirm_timeout_s,
        )
    if settings.family == "s-fsk":
        return Initiator(
            initiator_title,
            remembered.known_addresses,
            remembered.allowed,
            local_address=settings.initiator_address,
            baud_rate=settings.line_baud_rate,
            data_confirm_timeout_s=settings.confirm_timeout_s,
        )
    if settings.generation == "b" and not keys.psk:
        raise ConfigError(f"modem.key_file: {settings.key_file}: psk is needed with modem.generation b")
    return Coordinator(
        settings.pan_id,
        keys.psk,
        remembered.gmk or keys.gmk,
        remembered.known_addresses,
        remembered.allowed,
        band=_BANDS[settings.band],
        data_confirm_timeout_s=settings.confirm_timeout_s,
        generation=settings.generation,
        aes=aes,
        random=os.urandom,
        device_psks=keys.device_keys,
        gmk_index=remembered.gmk_index if remembered.gmk else keys.gmk_index,
        frame_counter=remembered.frame_counter,
    )


def load_network_keys(settings: ModemSection) -> NetworkKeys:
    """The keys of the configured network; no error shows what the file holds.

    Raises:
        ConfigError: the key file is missing, open to others, or not what it should be.
    """
    if settings.family == "g3":
        return _g3_keys(settings.key_file)
    if settings.family != "prime" or not settings.key_file:
        return NetworkKeys()
    path = Path(settings.key_file)
    return NetworkKeys(device_keys=_device_keys(path, _read_key_file(path), "device_keys", 12))


def _g3_keys(key_file: str) -> NetworkKeys:
    if not key_file:
        raise ConfigError(
            "modem.key_file: not given; a G3 network needs a file with psk and gmk (see docs/plc.md)"
        )
    path = Path(key_file)
    keys = _read_key_file(path)
    device_psks = _device_keys(path, keys, "device_psks", 16)
    index = keys.get("gmk_index", 0)
    if type(index) is not int or index not in (0, 1):
        raise ConfigError(f"modem.key_file: {path}: gmk_index has to be 0 or 1")
    psk = b"" if device_psks and "psk" not in keys else _key(path, "psk", keys.get("psk"))
    return NetworkKeys(psk, _key(path, "gmk", keys.get("gmk")), index, device_psks)


def _read_key_file(path: Path) -> dict[str, object]:
    try:
        mode = path.stat().st_mode
        keys: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"modem.key_file: {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigError(f"modem.key_file: {path}: is not TOML") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"modem.key_file: {path}: others could read it; run chmod 0600 on it")
    return keys


def _device_keys(path: Path, keys: dict[str, object], section: str, digits: int) -> dict[bytes, bytes]:
    given = keys.get(section, {})
    if not isinstance(given, dict):
        raise ConfigError(f"modem.key_file: {path}: {section} has to be a section [{section}]")
    found: dict[bytes, bytes] = {}
    for eui, value in cast("dict[str, object]", given).items():
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", eui):
            raise ConfigError(
                f"modem.key_file: {path}: {section}: each name has to be an EUI-{4 * digits} of {digits} digits"
            )
        found[bytes.fromhex(eui)] = _key(path, f"{section}.{eui}", value)
    return found


def _key(path: Path, name: str, value: object) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
        raise ConfigError(f"modem.key_file: {path}: {name} has to be 32 hexadecimal digits in quotes")
    return bytes.fromhex(value)
