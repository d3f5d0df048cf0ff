"""The configuration: one TOML file, described once.

Every key is a dataclass field in `config_sections` with its default, what is allowed, and one line of help. From this
one table come the commented example (`concentrator config example`), the check at start, and the typed
values that the rest of the product reads. A mistake gets one line: the key, what was given, what is allowed.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from concentrator.config_rules import PLACE, SERIAL_PORT, Allowed, is_loopback
from concentrator.config_sections import (
    BalanceSection,
    BoardSection,
    BrokerSection,
    CollectionSection,
    ConcentratorSection,
    DlmsSection,
    FeederSection,
    FilesSection,
    FirmwareSection,
    MbusSection,
    ModemSection,
    MqttSection,
    OrdersSection,
    P1Section,
    PushSection,
    RadioSection,
    SparkplugSection,
    StoreSection,
    TaskSection,
    ValidationSection,
    WebSection,
)
from concentrator.errors import LocalError

__all__ = [
    "BalanceSection",
    "BoardSection",
    "BrokerSection",
    "CollectionSection",
    "ConcentratorSection",
    "Config",
    "ConfigError",
    "DlmsSection",
    "FeederSection",
    "FirmwareSection",
    "MbusSection",
    "ModemSection",
    "MqttSection",
    "OrdersSection",
    "P1Section",
    "PushSection",
    "RadioSection",
    "SparkplugSection",
    "StoreSection",
    "TaskSection",
    "ValidationSection",
    "WebSection",
    "config_example",
    "load_config",
    "parse_config",
]


class ConfigError(LocalError):
    """The configuration is wrong: the text names the key, what was given and what is allowed."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    concentrator: ConcentratorSection = field(default_factory=ConcentratorSection)
    modem: ModemSection | None = None
    radio: RadioSection | None = None
    mbus: MbusSection | None = None
    p1: P1Section | None = None
    collection: CollectionSection = field(default_factory=CollectionSection)
    orders: OrdersSection = field(default_factory=OrdersSection)
    store: StoreSection = field(default_factory=StoreSection)
    validation: ValidationSection = field(default_factory=ValidationSection)
    balance: BalanceSection = field(default_factory=BalanceSection)
    feeder: tuple[FeederSection, ...] = ()
    firmware: FirmwareSection = field(default_factory=FirmwareSection)
    board: BoardSection = field(default_factory=BoardSection)
    web: WebSection = field(default_factory=WebSection)
    task: tuple[TaskSection, ...] = ()
    dlms: DlmsSection | None = None
    mqtt: tuple[MqttSection, ...] = ()
    push: tuple[PushSection, ...] = ()
    files: tuple[FilesSection, ...] = ()
    sparkplug: tuple[SparkplugSection, ...] = ()

    @property
    def destinations(self) -> tuple[MqttSection | PushSection | FilesSection | SparkplugSection, ...]:
        """Everything that gets what is stored, each with its name."""
        return (*self.mqtt, *self.push, *self.files, *self.sparkplug)

    @property
    def state_directory(self) -> Path:
        """Folder of the store."""
        return Path(self.concentrator.state_directory)

    @property
    def store_file(self) -> Path:
        """The store's file."""
        return self.state_directory / "store.db"

    @property
    def control_socket(self) -> Path:
        """Where page and commands reach the running service."""
        given = self.concentrator.control_socket
        return Path(given) if given else self.state_directory / "control.sock"


_SECTIONS: tuple[tuple[str, type[Any], bool], ...] = (
    ("concentrator", ConcentratorSection, False),
    ("modem", ModemSection, False),
    ("radio", RadioSection, False),
    ("mbus", MbusSection, False),
    ("p1", P1Section, False),
    ("collection", CollectionSection, False),
    ("orders", OrdersSection, False),
    ("store", StoreSection, False),
    ("validation", ValidationSection, False),
    ("balance", BalanceSection, False),
    ("feeder", FeederSection, True),
    ("firmware", FirmwareSection, False),
    ("board", BoardSection, False),
    ("web", WebSection, False),
    ("task", TaskSection, True),
    ("dlms", DlmsSection, False),
    ("mqtt", MqttSection, True),
    ("push", PushSection, True),
    ("files", FilesSection, True),
    ("sparkplug", SparkplugSection, True),
)
_TYPE_WORDS = {str: "text in quotes", int: "a whole number", bool: "true or false"}
_TOML_WORDS: tuple[tuple[type, str], ...] = (
    (str, "text"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (bool, "true or false"),
)
_SECRET_KEYS = frozenset({"password", "key", "psk", "gmk"})


def load_config(path: Path, *, ports_exist: bool = True) -> Config:
    """Read and check a file; without `ports_exist` its ports need not be there now: the service has them, or had.

    Raises:
        ConfigError: a line for each mistake, which names the key, what was given and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: cannot be read: {reason}; `concentrator config example` prints one"
        ) from error
    return parse_config(text, str(path), ports_exist=ports_exist)


def parse_config(text: str, source: str = "configuration", *, ports_exist: bool = True) -> Config:
    """Check the text of a file.

    Raises:
        ConfigError: as for `load_config`.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    known = {name for name, _kind, _repeats in _SECTIONS}
    problems = [
        f"{source}: [{name}]: unknown section; allowed: {', '.join(sorted(known))}"
        for name in tables
        if name not in known
    ]
    values: dict[str, Any] = {}
    for name, kind, repeats in _SECTIONS:
        if name not in tables:
            continue
        given: Any = tables[name]
        if repeats:
            if not isinstance(given, list):
                problems.append(f"{source}: {name}: write it as [[{name}]], it may be repeated")
                continue
            items: list[Any] = given  # pyright: ignore[reportUnknownVariableType] - parsed TOML
            values[name] = tuple(
                _section(source, f"{name}[{number}]", kind, item, problems, ports_exist=ports_exist)
                for number, item in enumerate(items, 1)
            )
        else:
            values[name] = _section(source, name, kind, given, problems, ports_exist=ports_exist)
    if problems:
        raise ConfigError("\n".join(problems))
    config = Config(**values)
    _check_page(source, config.web)
    clocks = config.collection
    if clocks.clock_leave_s >= clocks.clock_limit_s:
        raise ConfigError(
            f"{source}: collection.clock_leave_s: got {clocks.clock_leave_s}; allowed: less than clock_limit_s, "
            f"which is {clocks.clock_limit_s}"
        )
    feeders = [feeder.name for feeder in config.feeder]
    for name in feeders:
        if feeders.count(name) > 1:
            raise ConfigError(
                f"{source}: two feeders are named {name!r}; allowed: a name of its own for each"
            )
    names = [destination.name for destination in config.destinations]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{source}: two destinations are named {name!r}; allowed: a name of its own for each"
            )
    for one in config.mqtt:
        if one.home_assistant and one.encoding != "json":
            raise ConfigError(
                f'{source}: mqtt {one.name}: home_assistant: Home Assistant reads JSON only; allowed: encoding = "json"'
            )
    for number, place in enumerate(config.files, 1):
        if place.url.startswith("sftp:") and not place.known_hosts_file:
            raise ConfigError(
                f"{source}: files[{number}].known_hosts_file: not given; an SFTP server is trusted by its host key "
                "(ssh-keyscan writes one: compare it with the server's)"
            )
    return config


def _check_page(source: str, web: WebSection) -> None:
    """What the page's keys allow one another."""
    if web.tls == "files":
        for name in ("certificate_file", "private_key_file"):
            if not getattr(web, name):
                raise ConfigError(f'{source}: web.{name}: not given; web.tls = "files" needs it')
    if not is_loopback(web.host):
        if web.tls == "off":
            raise ConfigError(
                f"{source}: web.tls: got 'off' (text) with web.host = {web.host!r}, which others can reach; "
                "allowed: own, or files with a certificate"
            )
        if web.open_view:
            raise ConfigError(
                f"{source}: web.open_view: got True (true or false) with web.host = {web.host!r}, which others can "
                "reach; allowed: false"
            )


def _section(  # noqa: PLR0913 - where it stands, and where mistakes go
    source: str, section: str, kind: type[Any], given: object, problems: list[str], *, ports_exist: bool
) -> object:
    """One section, or what can be taken of it; what is wrong with it goes into `problems`."""
    if not isinstance(given, Mapping):
        problems.append(
            f"{source}: {section}: got {_shown(section, given)}; allowed: a section [{section}] with keys"
        )
        return None
    items: Mapping[str, Any] = given  # pyright: ignore[reportUnknownVariableType] - parsed TOML
    fields = {one.name: one for one in dataclasses.fields(kind)}
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in items.items():
        key = f"{section}.{name}"
        if name not in fields:
            problems.append(f"{source}: {key}: unknown key; allowed: {', '.join(fields)}")
            continue
        allowed: Allowed = fields[name].metadata["allowed"]
        if type(value) is not types[name]:
            words = _TYPE_WORDS[types[name]]
            detail = "" if allowed.words in (words, "text") else f": {allowed.words}"
            problems.append(f"{source}: {key}: got {_shown(name, value)}; allowed: {words}{detail}")
            continue
        waits = allowed in (SERIAL_PORT, PLACE) and (items.get("wait_for_port") is True or not ports_exist)
        if not waits and not allowed.holds(value):
            problems.append(f"{source}: {key}: got {_shown(name, value)}; allowed: {allowed.words}")
            continue
        values[name] = value
    # A default can be wrong on this machine too (a port that is not there), and is then named likewise.
    for name, one in fields.items():
        waits = one.metadata["allowed"] in (SERIAL_PORT, PLACE) and (
            values.get("wait_for_port") is True or not ports_exist
        )
        if name not in items and not waits and not one.metadata["allowed"].holds(one.default):
            problems.append(
                f"{source}: {section}.{name}: not given, and the default {one.default!r} does not hold here; "
                f"allowed: {one.metadata['allowed'].words}"
            )
    return kind(**values)


def _shown(name: str, value: object) -> str:
    """A value for an error message: shortened, and never a secret."""
    if any(word in name.split("_") for word in _SECRET_KEYS) and not name.endswith("_file"):
        return "a value that is not shown"
    if isinstance(value, str) and "://" in value and "@" in value:
        return "a URL with a name or password, which is not shown"
    words = next((words for kind, words in _TOML_WORDS if type(value) is kind), "a table or list")
    text = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."  # noqa: PLR2004 - one line
    return f"{text} ({words})"


def config_example() -> str:
    """The commented example: every key with its default, what is allowed, and a line of help.

    Sections that a box may lack are commented out, so that the example holds on any machine.
    """
    lines = [
        "# Configuration of the open data concentrator (TOML).",
        "# Keys that are left out have the values shown here. `concentrator check-config FILE` checks a file.",
        "# Sections that stand behind a # are for boxes that have such a part: take the # away.",
    ]
    defaults = {one.name: one for one in dataclasses.fields(Config)}
    for name, kind, repeats in _SECTIONS:
        optional = repeats or defaults[name].default is None
        mark = "# " if optional else ""
        lines += [
            "",
            f"# {(kind.__doc__ or '').splitlines()[0]}",
            f"{mark}[[{name}]]" if repeats else f"{mark}[{name}]",
        ]
        for one in dataclasses.fields(kind):
            lines.append(f"#   {one.metadata['help']} Allowed: {one.metadata['allowed'].words}.")
            lines.append(f"{mark}{one.name} = {_toml(one.default)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'
