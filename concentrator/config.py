"""The configuration: one TOML file, described once.

Every key is a dataclass field below with its default, what is allowed, and one line of help. From this
one table come the commented example (`concentrator config example`), the check at start, and the typed
values that the rest of the product reads. A mistake gets one line: the key, what was given, what is allowed.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo

from concentrator.errors import LocalError

_HOST_NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$")
_HOST_AND_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}$")
_IDENTITY = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


class ConfigError(LocalError):
    """The configuration is wrong: the text names the key, what was given and what is allowed."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A rule for one key: in words, and as a test of a value that has the right type."""

    words: str
    holds: Callable[[Any], bool]


def _whole(low: int, high: int) -> Allowed:
    return Allowed(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def _one_of(*choices: str) -> Allowed:
    return Allowed("one of " + ", ".join(choices), lambda value: value in choices)


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return bool(_HOST_NAME.match(value))
    return True


def _is_folder_to_be(value: str) -> bool:
    path = Path(value)
    if not path.is_absolute():
        return False
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    return nearest.is_dir()


def _is_file(value: str) -> bool:
    return not value or (Path(value).is_file() and os.access(value, os.R_OK))


def _is_time_zone(value: str) -> bool:
    if value == "UTC":
        # Known on a box without the time zone database too.
        return True
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _is_serial_port(value: str) -> bool:
    try:
        return Path(value).is_absolute() and stat.S_ISCHR(Path(value).stat().st_mode)
    except OSError:
        return False


def _are_mbus_addresses(value: str) -> bool:
    return all(
        (word.isdecimal() and len(word) <= 3 and int(word) <= 250)  # noqa: PLR2004 - primary addresses
        or re.fullmatch(r"[0-9A-Fa-f]{8}|[0-9A-Fa-f]{16}", word)
        for word in value.replace(",", " ").split()
    )


def _are_wmbus_meters(value: str) -> bool:
    words = value.replace(",", " ").split()
    return all(re.fullmatch(r"(?:[A-Za-z]{3}-)?[0-9A-Fa-f]{8}", word) for word in words)


_IDENTITY_RULE = Allowed("1 to 64 letters, digits, _ or -", lambda value: bool(_IDENTITY.match(value)))
_HOST = Allowed("a host name or an IP address", _is_host)
_TCP_PORT = _whole(1, 65535)
_FOLDER = Allowed("an absolute path of a folder that exists or can be made", _is_folder_to_be)


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


_READABLE_FOLDER = Allowed(
    "the path of a folder that exists and can be read, or empty",
    lambda value: not value or (Path(value).is_dir() and os.access(value, os.R_OK | os.X_OK)),
)
_FILE = Allowed("the path of a file that exists and can be read, or empty", _is_file)
_SERIAL_PORT = Allowed(
    "the absolute path of a serial device that exists, such as /dev/ttyAMA0", _is_serial_port
)
_PLACE = Allowed(
    "the absolute path of a serial device that exists, or HOST:PORT",
    lambda value: bool(_HOST_AND_PORT.match(value)) or _is_serial_port(value),
)
_MBUS_BAUD_RATE = Allowed(
    "one of 300, 600, 1200, 2400, 4800, 9600, 19200, 38400",
    lambda value: value in (300, 600, 1200, 2400, 4800, 9600, 19200, 38400),
)
_BAUD_RATE = Allowed(
    "one of 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600",
    lambda value: value in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600),
)
_METER_LIST = Allowed(
    "identities of meters, with commas between",
    lambda value: all(_IDENTITY.match(word) for word in value.replace(",", " ").split()),
)
_LIMITS = Allowed(
    "METER=WATTS, with commas between",
    lambda value: all(
        re.fullmatch(r"\s*[A-Za-z0-9_-]{1,64}\s*=\s*\d{1,9}\s*", part)
        for part in value.split(",")
        if part.strip()
    ),
)
_SECONDS = _whole(1, 86_400)
_WPORT = _whole(1, 65535)
_OBIS = Allowed(
    "an OBIS code such as 1-0:99.1.0*255",
    lambda value: bool(re.match(r"^\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}\*\d{1,3}$", value)),
)


_TIME_ZONE = Allowed("a name of the time zone database such as Europe/Madrid", _is_time_zone)
_HOURS = Allowed(
    "two times of day such as 02:00-04:00, or empty",
    lambda value: not value or bool(re.match(r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$", value)),
)


def _key(default: Any, allowed: Allowed, words: str) -> Any:  # noqa: ANN401 - a field of any type
    return field(default=default, metadata={"allowed": allowed, "help": words})


_ANY_TEXT = Allowed("text", lambda _value: True)
_YES_NO = Allowed("true or false", lambda _value: True)


@dataclass(frozen=True, slots=True)
class ConcentratorSection:
    """Who this box is, and where it keeps things."""

    name: str = _key("dcu-0001", _IDENTITY_RULE, "Name of this concentrator; it is in every MQTT topic.")
    site: str = _key("substation-1", _IDENTITY_RULE, "Name of the site; it is in every MQTT topic.")
    state_directory: str = _key(
        "/var/lib/concentrator", _FOLDER, "Folder of the store; the only one written to."
    )
    control_socket: str = _key(
        "", _ANY_TEXT, "Local socket of the service; empty: control.sock in state_directory."
    )
    log_level: str = _key("info", _one_of("debug", "info", "warning", "error"), "How much is logged.")


@dataclass(frozen=True, slots=True)
class ModemSection:
    """The PLC modem. Leave the section out on a box without one."""

    family: str = _key(
        "prime",
        _one_of("prime", "g3", "s-fsk"),
        "prime: base node; g3: coordinator; s-fsk: initiator.",
    )
    port: str = _key("/dev/ttyAMA0", _SERIAL_PORT, "Serial port of the modem.")
    baud_rate: int = _key(230400, _BAUD_RATE, "As the modem's firmware was built.")
    wait_for_port: bool = _key(
        False, _YES_NO, "true: start without the port and wait for it to appear (USB modems)."
    )
    confirm_timeout_s: int = _key(40, _SECONDS, "Give up on a data confirm of the modem after this time.")
    pan_id: int = _key(0x781D, _whole(0, 0xFFFE), "G3: the PAN identifier.")
    band: str = _key("cenelec-a", _one_of("cenelec-a", "cenelec-b", "fcc", "arib"), "G3: the frequency band.")
    generation: str = _key(
        "auto",
        _one_of("auto", "a", "b"),
        "G3: bootstrap server on the host (a) or in the modem (b); auto asks.",
    )
    key_file: str = _key("", _FILE, "File with the network's keys (TOML, mode 0600): see docs/plc.md.")
    whitelist_file: str = _key(
        "",
        _FILE,
        "File with the EUIs that may join, one a line; empty: all may, until an order says otherwise.",
    )
    line_baud_rate: int = _key(
        2400,
        Allowed("one of 300, 600, 1200, 2400", lambda value: value in (300, 600, 1200, 2400)),
        "S-FSK: speed on the power line at 50 Hz.",
    )
    initiator_address: int = _key(0xC00, _whole(0xC00, 0xDFF), "S-FSK: MAC address of this initiator.")


@dataclass(frozen=True, slots=True)
class RadioSection:
    """The wireless M-Bus module. Leave the section out on a box without one."""

    module: str = _key(
        "im871a",
        _one_of("im871a", "iu891a", "amb8465", "rc1180", "cul", "rtl-wmbus", "auto"),
        "Type of the radio module; auto: find out.",
    )
    port: str = _key("/dev/ttyUSB0", _SERIAL_PORT, "Serial port of the module.")
    baud_rate: int = _key(57600, _BAUD_RATE, "As the module is set.")
    wait_for_port: bool = _key(False, _YES_NO, "true: start without the port and wait for it to appear.")
    meters: str = _key(
        "",
        Allowed("identifications such as 12345678 or ELS-12345678", _are_wmbus_meters),
        "Meters to collect, with commas between; empty: all that are heard. One with a key is set up too.",
    )
    mode: str = _key("C/T", _one_of("S1", "T1", "T2", "C1-A", "C1-B", "C/T"), "Link mode to listen to.")
    store_interval_s: int = _key(900, _SECONDS, "Keep at most one reading of a meter in this time.")


@dataclass(frozen=True, slots=True)
class MbusSection:
    """A wired M-Bus. Leave the section out on a box without one."""

    port: str = _key("/dev/ttyUSB1", _PLACE, "Level converter: its serial port, or where it listens on TCP.")
    baud_rate: int = _key(2400, _MBUS_BAUD_RATE, "As the slaves are set.")
    wait_for_port: bool = _key(False, _YES_NO, "true: start without the port and wait for it to appear.")
    search: bool = _key(True, _YES_NO, "Find the slaves by their secondary addresses.")
    addresses: str = _key(
        "",
        Allowed("primary (0 to 250) or secondary (8 or 16 digits) addresses", _are_mbus_addresses),
        "Slaves to read whether found or not, with commas between.",
    )
    read_interval_s: int = _key(900, _SECONDS, "How often each slave is read.")


@dataclass(frozen=True, slots=True)
class P1Section:
    """A meter's consumer port P1. Leave the section out on a box without one."""

    port: str = _key("/dev/ttyUSB2", _PLACE, "Its serial port, or where a bridge listens on TCP.")
    baud_rate: int = _key(115_200, _BAUD_RATE, "115200; 9600 for DSMR 2 and 3.")
    wait_for_port: bool = _key(False, _YES_NO, "true: start without the port and wait for it to appear.")
    store_interval_s: int = _key(900, _SECONDS, "Keep one telegram in this time.")
    key_file: str = _key(
        "", _FILE, "File with the key of an encrypted port, 32 hexadecimal digits, mode 0600."
    )


@dataclass(frozen=True, slots=True)
class CollectionSection:
    """What is read from the electricity meters, and how."""

    client_sap: int = _key(1, _whole(1, 127), "DLMS client SAP that this concentrator is to the meters.")
    server_sap: int = _key(1, _whole(1, 16383), "Logical device of the meters that is read.")
    authentication: str = _key(
        "hls-gmac", _one_of("none", "hls-gmac"), "How to associate: none, or HLS-GMAC."
    )
    key_file: str = _key("", _FILE, "JSON file with the meters' keys, mode 0600 (see docs/deployment.md).")
    system_title: str = _key(
        "4F44430000000001",
        Allowed("16 hexadecimal digits", lambda value: bool(re.match(r"^[0-9A-Fa-f]{16}$", value))),
        "Our DLMS system title, unique for each concentrator.",
    )
    profile: str = _key("1-0:99.1.0*255", _OBIS, "Load profile to read.")
    models_directory: str = _key(
        "",
        _READABLE_FOLDER,
        "Folder with meter models of your own (see concentrator/collection/models/README.md).",
    )
    own_meters: str = _key(
        "",
        Allowed("a regular expression, or empty", _is_pattern),
        "Serial numbers or logical device names of our meters; others are foreign. Empty: all are ours.",
    )
    foreign_after_refusals: int = _key(
        0, _whole(0, 1000), "Refusals in a row after which a meter counts as foreign; 0: never."
    )
    history_days: int = _key(7, _whole(0, 3650), "How far back gaps are filled when a meter is new.")
    interval_s: int = _key(900, _SECONDS, "How often a meter is looked at for what is missing.")
    answer_delay_s: int = _key(60, _whole(0, 86_400), "How long after an interval's end it is asked for.")
    meters_in_flight: int = _key(4, _whole(1, 64), "Dialogues held at the same time; one per meter always.")
    answer_timeout_s: int = _key(30, _SECONDS, "How long to wait for a meter's answer to one request.")
    dialogue_timeout_s: int = _key(900, _SECONDS, "Longest time that one meter may keep a place.")
    time_zone: str = _key("UTC", _TIME_ZONE, "Time zone of the utility: days and months of tasks are its.")
    quiet_hours: str = _key("", _HOURS, "When routine reading rests, for firmware; orders go on.")
    clock_leave_s: int = _key(30, _SECONDS, "A meter's clock that is off by less is left alone.")
    clock_limit_s: int = _key(3600, _SECONDS, "One that is off by more is only set by order (sync_clock).")
    clock_step_s: int = _key(60, _whole(1, 900), "In between it is shifted by at most this in a visit.")
    clock_needs_ntp: bool = _key(
        True, _YES_NO, "false: correct meters' clocks though this box is not known to be synchronised."
    )

    events_interval_s: int = _key(21_600, _SECONDS, "How often the event logs of a meter are read.")
    companion: str = _key(
        "idis", _one_of("idis", "dsmr"), "Specification that the meters' event codes and alarms follow."
    )


@dataclass(frozen=True, slots=True)
class TaskSection:
    """What is read from which meters, and when. Repeat the section; without any, the load profile of all is read."""

    name: str = _key("load_profile", _IDENTITY_RULE, "Name of this task.")
    what: str = _key(
        "profile",
        _one_of("profile", "billing", "events", "registers", "instantaneous", "parameters", "status"),
        "What is read.",
    )
    objects: str = _key("", _ANY_TEXT, "OBIS codes with commas between; empty: those of the meter's model.")
    meters: str = _key("all", _ANY_TEXT, "all, group:NAME, medium:NAME, or identities with commas between.")
    first_run: str = _key("", _ANY_TEXT, "A time such as 2026-01-01T01:10; empty: midnight.")
    period: str = _key("15min", _ANY_TEXT, "15min, 1h, 1d, 1month; empty: once.")
    window: str = _key("", _ANY_TEXT, "How long a run may begin after its time; empty: until the next.")
    priority: int = _key(2, _whole(1, 3), "1 goes before 2 and 3.")
    store: bool = _key(True, _YES_NO, "Whether what is read stays in the store.")
    send: bool = _key(True, _YES_NO, "Whether it goes to the destinations.")
    complete: bool = _key(
        True, _YES_NO, "Whether each meter is tried until it has answered; else once a run."
    )


@dataclass(frozen=True, slots=True)
class MqttSection:
    """An MQTT broker that gets every reading. Repeat the section for several."""

    name: str = _key("mqtt", _IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    host: str = _key("broker.example", _HOST, "Where the broker is.")
    port: int = _key(8883, _TCP_PORT, "Its TCP port.")
    protocol: str = _key("5", _one_of("5", "3.1.1"), "MQTT version.")
    tls: bool = _key(True, _YES_NO, "false only on a trusted network.")
    ca_file: str = _key("", _FILE, "Certificates to trust; empty: those of the system.")
    certificate_file: str = _key("", _FILE, "Our client certificate (PEM).")
    private_key_file: str = _key("", _FILE, "Its private key (PEM), mode 0600.")
    username: str = _key("", _ANY_TEXT, "Name to log in with; empty: none.")
    password_file: str = _key("", _FILE, "File with the password, mode 0600.")
    in_flight: int = _key(20, _whole(1, 1000), "Messages sent and not yet acknowledged.")


@dataclass(frozen=True, slots=True)
class PushSection:
    """A head-end that gets DLMS data-notifications over the TCP wrapper. Repeat the section for several."""

    name: str = _key("push", _IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    host: str = _key("headend.example", _HOST, "Where the head-end listens.")
    port: int = _key(4059, _TCP_PORT, "Its TCP port.")
    source_wport: int = _key(1, _WPORT, "Our wPort: 1 is the management logical device.")
    destination_wport: int = _key(0x67, _WPORT, "The head-end's wPort: 103 is the push client.")
    confirmed: bool = _key(
        True, _YES_NO, "true: wait for data-notification-confirm. false: TCP's own acknowledgement has to do."
    )
    in_flight: int = _key(8, _whole(1, 1000), "Notifications sent and not yet confirmed.")
    timeout_s: int = _key(30, _SECONDS, "How long to wait for a confirmation.")


@dataclass(frozen=True, slots=True)
class DlmsSection:
    """Head-ends that connect to this box: a DLMS server and gateway on TCP. Leave the section out for none."""

    host: str = _key("127.0.0.1", _HOST, "Address to listen on; 0.0.0.0: all.")
    port: int = _key(4059, _TCP_PORT, "TCP port to listen on.")
    key_file: str = _key(
        "", _FILE, "JSON file with the clients and their keys, mode 0600 (see docs/uplink.md)."
    )
    certificate_file: str = _key("", _FILE, "Our certificate (PEM): TLS; empty: plain TCP.")
    private_key_file: str = _key("", _FILE, "Its private key (PEM), mode 0600.")
    ca_file: str = _key("", _FILE, "Certificates of head-ends to trust; empty: any may connect.")
    network_id: int = _key(0, _whole(0, 255), "Network id of the meters in gateway-requests.")
    most_connections: int = _key(32, _whole(1, 1000), "Connections at the same time; others are turned away.")
    idle_s: int = _key(300, _SECONDS, "A connection that is silent for so long is closed.")


@dataclass(frozen=True, slots=True)
class WebSection:
    """The local diagnostics page."""

    enabled: bool = _key(True, _YES_NO, "Whether `concentrator run` starts the page.")
    host: str = _key("127.0.0.1", _HOST, "Address to listen on.")
    port: int = _key(8080, _TCP_PORT, "TCP port to listen on.")


@dataclass(frozen=True, slots=True)
class BoardSection:
    """The board: its pins reset a silent modem and light lamps."""

    model: str = _key(
        "none", _one_of("none", "raspberry-pi"), "Data file of the board; none: no pins are used."
    )


_OPERATIONS = Allowed(
    "names of orders with commas between (docs/orders.md), all, or empty",
    lambda value: all(re.fullmatch(r"[a-z_]+", word) for word in value.replace(",", " ").split()),
)


@dataclass(frozen=True, slots=True)
class OrdersSection:
    """Who may order what changes a meter. Reading is open to all."""

    allow_local: str = _key("all", _OPERATIONS, "From root and the service's user, on the control socket.")
    allow_page: str = _key("", _OPERATIONS, "From the page, and others who may open the control socket.")
    allow_mqtt: str = _key("", _OPERATIONS, "From the head-end: such as disconnect, reconnect.")


@dataclass(frozen=True, slots=True)
class StoreSection:
    """How long readings stay."""

    retention_days: int = _key(
        45, _whole(1, 36_500), "Readings older than this go, once every destination has them."
    )


@dataclass(frozen=True, slots=True)
class ValidationSection:
    """Limits by which values are judged (docs/quality.md)."""

    connection_limit_w: int = _key(
        100_000, _whole(1, 100_000_000), "Most power of a connection (W), where nothing else is known of it."
    )
    connection_limits: str = _key(
        "", _LIMITS, "Of single meters, such as the supervisor: METER=WATTS, with commas between."
    )
    flow_limit_m3h: int = _key(100, _whole(1, 100_000), "Most flow of a gas or water meter, in m³/h.")


@dataclass(frozen=True, slots=True)
class BalanceSection:
    """The energy balance: what a supervisor meter sees go out against what meters take (docs/quality.md)."""

    supervisor: str = _key("", _METER_LIST, "Identity of the transformer's supervisor meter; empty: none.")
    coverage_pct: int = _key(
        90, _whole(1, 100), "An interval is judged when so many of its meters are known."
    )
    suspicion_days: int = _key(14, _whole(3, 90), "How many days suspicions are looked for.")


@dataclass(frozen=True, slots=True)
class FeederSection:
    """A feeder with a supervisor meter of its own. Repeat the section for several."""

    name: str = _key("feeder", _IDENTITY_RULE, "Name of this feeder.")
    supervisor: str = _key("", _METER_LIST, "Identity of its supervisor meter.")
    members: str = _key("", _METER_LIST, "Its meters, with commas between; empty: all that no other has.")


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
    board: BoardSection = field(default_factory=BoardSection)
    web: WebSection = field(default_factory=WebSection)
    task: tuple[TaskSection, ...] = ()
    dlms: DlmsSection | None = None
    mqtt: tuple[MqttSection, ...] = ()
    push: tuple[PushSection, ...] = ()

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
    ("board", BoardSection, False),
    ("web", WebSection, False),
    ("task", TaskSection, True),
    ("dlms", DlmsSection, False),
    ("mqtt", MqttSection, True),
    ("push", PushSection, True),
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
        ConfigError: one line that names the key, what was given and what is allowed.
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
    for name in tables:
        if name not in known:
            raise ConfigError(f"{source}: [{name}]: unknown section; allowed: {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for name, kind, repeats in _SECTIONS:
        if name not in tables:
            continue
        given: Any = tables[name]
        if repeats:
            if not isinstance(given, list):
                raise ConfigError(f"{source}: {name}: write it as [[{name}]], it may be repeated")
            items: list[Any] = given  # pyright: ignore[reportUnknownVariableType] - parsed TOML
            values[name] = tuple(
                _section(source, f"{name}[{number}]", kind, item, ports_exist=ports_exist)
                for number, item in enumerate(items, 1)
            )
        else:
            values[name] = _section(source, name, kind, given, ports_exist=ports_exist)
    config = Config(**values)
    feeders = [feeder.name for feeder in config.feeder]
    for name in feeders:
        if feeders.count(name) > 1:
            raise ConfigError(
                f"{source}: two feeders are named {name!r}; allowed: a name of its own for each"
            )
    names = [destination.name for destination in (*config.mqtt, *config.push)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{source}: two destinations are named {name!r}; allowed: a name of its own for each"
            )
    return config


def _section(source: str, section: str, kind: type[Any], given: object, *, ports_exist: bool) -> object:
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{source}: {section}: got {_shown(section, given)}; allowed: a section [{section}] with keys"
        )
    items: Mapping[str, Any] = given  # pyright: ignore[reportUnknownVariableType] - parsed TOML
    fields = {one.name: one for one in dataclasses.fields(kind)}
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in items.items():
        key = f"{section}.{name}"
        if name not in fields:
            raise ConfigError(f"{source}: {key}: unknown key; allowed: {', '.join(fields)}")
        allowed: Allowed = fields[name].metadata["allowed"]
        if type(value) is not types[name]:
            words = _TYPE_WORDS[types[name]]
            detail = "" if allowed.words in (words, "text") else f": {allowed.words}"
            raise ConfigError(f"{source}: {key}: got {_shown(name, value)}; allowed: {words}{detail}")
        waits = allowed in (_SERIAL_PORT, _PLACE) and (items.get("wait_for_port") is True or not ports_exist)
        if not waits and not allowed.holds(value):
            raise ConfigError(f"{source}: {key}: got {_shown(name, value)}; allowed: {allowed.words}")
        values[name] = value
    # A default can be wrong on this machine too (a port that is not there), and is then named likewise.
    for name, one in fields.items():
        waits = one.metadata["allowed"] in (_SERIAL_PORT, _PLACE) and (
            values.get("wait_for_port") is True or not ports_exist
        )
        if name not in values and not waits and not one.metadata["allowed"].holds(one.default):
            raise ConfigError(
                f"{source}: {section}.{name}: not given, and the default {one.default!r} does not hold here; "
                f"allowed: {one.metadata['allowed'].words}"
            )
    return kind(**values)


def _shown(name: str, value: object) -> str:
    """A value for an error message: shortened, and never a secret."""
    if any(word in name.split("_") for word in _SECRET_KEYS) and not name.endswith("_file"):
        return "a value that is not shown"
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
