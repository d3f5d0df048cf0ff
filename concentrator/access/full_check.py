"""A configuration and all that it names, checked as the service would take them at its start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from concentrator.collection.control.rules import OrderRules
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_models import ModelLibrary
from concentrator.collection.meter_tasks import TaskError, tasks_of
from concentrator.collection.whitelist import EUI_SIZES, read_whitelist_file
from concentrator.config import Config, ConfigError, parse_config
from concentrator.dlms.security import MemoryCounter
from concentrator.errors import ConcentratorError
from concentrator.links.plc_networks import load_network_keys
from concentrator.uplink.head_ends import HeadEnds
from concentrator.uplink.push_protection import load_push_protection

_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_KEY = re.compile(r"(?:^|: )([a-z0-9_]+)(?:\[(\d+)\])?\.([a-z0-9_]+): ")
_SECTION = re.compile(r"(?:^|: )(?:\[([a-z0-9_]+)\]|([a-z0-9_]+)): ")


class Mistake(NamedTuple):
    """What is wrong, and in which line of the text; 0 where that cannot be told."""

    line: int
    words: str


def check_everything(config: Config, source: str) -> None:
    """Check what a configuration names: tasks, orders' rules, key files, models, the whitelist.

    Raises:
        ConcentratorError: the first mistake.
    """
    try:
        tasks_of(config.task, config.collection)
    except TaskError as error:
        raise ConfigError(f"{source}: {error}") from None
    if config.dlms is not None:
        HeadEnds(Path(config.dlms.key_file) if config.dlms.key_file else None)
    for push in config.push:
        load_push_protection(Path(push.key_file) if push.key_file else None, b"", MemoryCounter())
    OrderRules.from_settings(config.orders)
    key_file = config.collection.key_file
    Keyring.load(Path(key_file) if key_file else None, store=KeyStore(config.state_directory))
    models = config.collection.models_directory
    ModelLibrary.load(Path(models) if models else None)
    if config.modem is not None:
        load_network_keys(config.modem)
        if config.modem.whitelist_file:
            read_whitelist_file(Path(config.modem.whitelist_file), EUI_SIZES[config.modem.family])


def mistakes_of(text: str, source: str) -> list[Mistake]:
    """What is wrong with the text of a configuration file; nothing when it is right."""
    try:
        check_everything(parse_config(text, source), source)
    except ConcentratorError as error:
        lines = [line.removeprefix(f"{source}: ") for line in str(error).splitlines()]
        return [Mistake(line_of(text, words), words) for words in lines]
    return []


def line_of(text: str, words: str) -> int:
    """The line that a mistake is about, from 1 on; 0 where it cannot be told."""
    if found := _TOML_LINE.search(words):
        return int(found[1])
    lines = text.splitlines()
    if found := _KEY.search(words):
        section, number, key = found[1], int(found[2] or 1), found[3]
    elif found := _SECTION.search(words):
        section, number, key = found[1] or found[2], 1, ""
    else:
        return 0
    head = re.compile(rf"^\s*\[{{1,2}}\s*{re.escape(section)}\s*\]{{1,2}}\s*(?:#.*)?$")
    entry = re.compile(rf"^\s*{re.escape(key)}\s*=") if key else None
    seen = begun_at = 0
    for at, line in enumerate(lines, 1):
        if head.match(line):
            seen += 1
            begun_at = at if seen == number else begun_at
        elif seen == number and entry is not None and entry.match(line):
            return at
        elif seen == number and line.lstrip().startswith("["):
            break
    return begun_at
