"""The sections of the configuration: every key with its default, what is allowed, and one line of help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from concentrator.config_rules import (
    ANY_TEXT,
    BAUD_RATE,
    EVENT_KINDS,
    FILE,
    FILE_PLACE,
    FOLDER,
    HOST,
    HOURS,
    IDENTITY_OR_EMPTY,
    IDENTITY_RULE,
    LIMITS,
    MBUS_BAUD_RATE,
    METER_LIST,
    OBIS,
    PLACE,
    READABLE_FOLDER,
    SECONDS,
    SERIAL_PORT,
    TCP_PORT,
    TIME_ZONE,
    TOPIC_LEVELS,
    TOPIC_PREFIXES,
    WPORT,
    YES_NO,
    Allowed,
    are_host_names,
    are_mbus_addresses,
    are_wmbus_meters,
    is_pattern,
    key,
    one_of,
    whole,
)


@dataclass(frozen=True, slots=True)
class ConcentratorSection:
    """Who this box is, and where it keeps things."""

    name: str = key("dcu-0001", IDENTITY_RULE, "Name of this concentrator; it is in every MQTT topic.")
    site: str = key("substation-1", IDENTITY_RULE, "Name of the site; it is in every MQTT topic.")
    state_directory: str = key(
        "/var/lib/concentrator", FOLDER, "Folder of the store; the only one written to."
    )
    control_socket: str = key(
        "", ANY_TEXT, "Local socket of the service; empty: control.sock in state_directory."
    )
    configuration_trial_s: int = key(
        120, whole(5, 3600), "A configuration that nobody confirms in this time is taken back."
    )
    log_level: str = key("info", one_of("debug", "info", "warning", "error"), "How much is logged.")


@dataclass(frozen=True, slots=True)
class ModemSection:
    """The PLC modem. Leave the section out on a box without one."""

    family: str = key(
        "prime",
        one_of("prime", "g3", "s-fsk"),
        "prime: base node; g3: coordinator; s-fsk: initiator.",
    )
    port: str = key("/dev/ttyAMA0", SERIAL_PORT, "Serial port of the modem.")
    baud_rate: int = key(230400, BAUD_RATE, "As the modem's firmware was built.")
    wait_for_port: bool = key(
        False, YES_NO, "true: start without the port and wait for it to appear (USB modems)."
    )
    confirm_timeout_s: int = key(40, SECONDS, "Give up on a data confirm of the modem after this time.")
    pan_id: int = key(0x781D, whole(0, 0xFFFE), "G3: the PAN identifier.")
    band: str = key("cenelec-a", one_of("cenelec-a", "cenelec-b", "fcc", "arib"), "G3: the frequency band.")
    generation: str = key(
        "auto",
        one_of("auto", "a", "b"),
        "G3: bootstrap server on the host (a) or in the modem (b); auto asks.",
    )
    key_file: str = key("", FILE, "File with the network's keys (TOML, mode 0600): see docs/plc.md.")
    whitelist_file: str = key(
        "",
        FILE,
        "File with the EUIs that may join, one a line; empty: all may, until an order says otherwise.",
    )
    line_baud_rate: int = key(
        2400,
        Allowed("one of 300, 600, 1200, 2400", lambda value: value in (300, 600, 1200, 2400)),
        "S-FSK: speed on the power line at 50 Hz.",
    )
    initiator_address: int = key(0xC00, whole(0xC00, 0xDFF), "S-FSK: MAC address of this initiator.")


@dataclass(frozen=True, slots=True)
class RadioSection:
    """The wireless M-Bus module. Leave the section out on a box without one."""

    module: str = key(
        "im871a",
        one_of("im871a", "iu891a", "amb8465", "rc1180", "cul", "rtl-wmbus", "auto"),
        "Type of the radio module; auto: find out.",
    )
    port: str = key("/dev/ttyUSB0", SERIAL_PORT, "Serial port of the module.")
    baud_rate: int = key(57600, BAUD_RATE, "As the module is set.")
    wait_for_port: bool = key(False, YES_NO, "true: start without the port and wait for it to appear.")
    meters: str = key(
        "",
        Allowed("identifications such as 12345678 or ELS-12345678", are_wmbus_meters),
        "Meters to collect, with commas between; empty: all that are heard. One with a key is set up too.",
    )
    mode: str = key("C/T", one_of("S1", "T1", "T2", "C1-A", "C1-B", "C/T"), "Link mode to listen to.")
    store_interval_s: int = key(900, SECONDS, "Keep at most one reading of a meter in this time.")


@dataclass(frozen=True, slots=True)
class MbusSection:
    """A wired M-Bus. Leave the section out on a box without one."""

    port: str = key("/dev/ttyUSB1", PLACE, "Level converter: its serial port, or where it listens on TCP.")
    baud_rate: int = key(2400, MBUS_BAUD_RATE, "As the slaves are set.")
    wait_for_port: bool = key(False, YES_NO, "true: start without the port and wait for it to appear.")
    search: bool = key(True, YES_NO, "Find the slaves by their secondary addresses.")
    addresses: str = key(
        "",
        Allowed("primary (0 to 250) or secondary (8 or 16 digits) addresses", are_mbus_addresses),
        "Slaves to read whether found or not, with commas between.",
    )
    read_interval_s: int = key(900, SECONDS, "How often each slave is read.")


@dataclass(frozen=True, slots=True)
class P1Section:
    """A meter's consumer port P1. Leave the section out on a box without one."""

    port: str = key("/dev/ttyUSB2", PLACE, "Its serial port, or where a bridge listens on TCP.")
    baud_rate: int = key(115_200, BAUD_RATE, "115200; 9600 for DSMR 2 and 3.")
    wait_for_port: bool = key(False, YES_NO, "true: start without the port and wait for it to appear.")
    store_interval_s: int = key(900, SECONDS, "Keep one telegram in this time.")
    key_file: str = key("", FILE, "File with the key of an encrypted port, 32 hexadecimal digits, mode 0600.")


@dataclass(frozen=True, slots=True)
class CollectionSection:
    """What is read from the electricity meters, and how."""

    client_sap: int = key(1, whole(1, 127), "DLMS client SAP that this concentrator is to the meters.")
    server_sap: int = key(1, whole(1, 16383), "Logical device of the meters that is read.")
    authentication: str = key("hls-gmac", one_of("none", "hls-gmac"), "How to associate: none, or HLS-GMAC.")
    key_file: str = key("", FILE, "JSON file with the meters' keys, mode 0600 (see docs/deployment.md).")
    system_title: str = key(
        "4F44430000000001",
        Allowed("16 hexadecimal digits", lambda value: bool(re.match(r"^[0-9A-Fa-f]{16}$", value))),
        "Our DLMS system title, unique for each concentrator.",
    )
    profile: str = key("1-0:99.1.0*255", OBIS, "Load profile to read.")
    models_directory: str = key(
        "",
        READABLE_FOLDER,
        "Folder with meter models of your own (see concentrator/collection/models/README.md).",
    )
    own_meters: str = key(
        "",
        Allowed("a regular expression, or empty", is_pattern),
        "Serial numbers or logical device names of our meters; others are foreign. Empty: all are ours.",
    )
    foreign_after_refusals: int = key(
        0, whole(0, 1000), "Refusals in a row after which a meter counts as foreign; 0: never."
    )
    history_days: int = key(7, whole(0, 3650), "How far back gaps are filled when a meter is new.")
    interval_s: int = key(900, SECONDS, "How often a meter is looked at for what is missing.")
    answer_delay_s: int = key(60, whole(0, 86_400), "How long after an interval's end it is asked for.")
    meters_in_flight: int = key(4, whole(1, 64), "Dialogues held at the same time; one per meter always.")
    answer_timeout_s: int = key(30, SECONDS, "How long to wait for a meter's answer to one request.")
    dialogue_timeout_s: int = key(900, SECONDS, "Longest time that one meter may keep a place.")
    time_zone: str = key("UTC", TIME_ZONE, "Time zone of the utility: days and months of tasks are its.")
    quiet_hours: str = key("", HOURS, "When routine reading rests, for firmware; orders go on.")
    clock_leave_s: int = key(30, SECONDS, "A meter's clock that is off by less is left alone.")
    clock_limit_s: int = key(3600, SECONDS, "One that is off by more is only set by order (sync_clock).")
    clock_step_s: int = key(60, whole(1, 900), "In between it is shifted by at most this in a visit.")
    clock_needs_ntp: bool = key(
        True, YES_NO, "false: correct meters' clocks though this box is not known to be synchronised."
    )

    events_interval_s: int = key(21_600, SECONDS, "How often the event logs of a meter are read.")
    companion: str = key(
        "idis", one_of("idis", "dsmr"), "Specification that the meters' event codes and alarms follow."
    )


@dataclass(frozen=True, slots=True)
class TaskSection:
    """What is read from which meters, and when. Repeat the section; without any, the load profile of all is read."""

    name: str = key("load_profile", IDENTITY_RULE, "Name of this task.")
    what: str = key(
        "profile",
        one_of("profile", "billing", "events", "registers", "instantaneous", "parameters", "status"),
        "What is read.",
    )
    objects: str = key("", ANY_TEXT, "OBIS codes with commas between; empty: those of the meter's model.")
    meters: str = key("all", ANY_TEXT, "all, group:NAME, medium:NAME, or identities with commas between.")
    first_run: str = key("", ANY_TEXT, "A time such as 2026-01-01T01:10; empty: midnight.")
    period: str = key("15min", ANY_TEXT, "15min, 1h, 1d, 1month; empty: once.")
    window: str = key("", ANY_TEXT, "How long a run may begin after its time; empty: until the next.")
    priority: int = key(2, whole(1, 3), "1 goes before 2 and 3.")
    store: bool = key(True, YES_NO, "Whether what is read stays in the store.")
    send: bool = key(True, YES_NO, "Whether it goes to the destinations.")
    complete: bool = key(True, YES_NO, "Whether each meter is tried until it has answered; else once a run.")


@dataclass(frozen=True, slots=True)
class BrokerSection:
    """How to reach an MQTT broker."""

    name: str = key("mqtt", IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    host: str = key("broker.example", HOST, "Where the broker is.")
    port: int = key(8883, TCP_PORT, "Its TCP port.")
    protocol: str = key("5", one_of("5", "3.1.1"), "MQTT version.")
    tls: bool = key(True, YES_NO, "false only on a trusted network.")
    ca_file: str = key("", FILE, "Certificates to trust; empty: those of the system.")
    certificate_file: str = key("", FILE, "Our client certificate (PEM).")
    private_key_file: str = key("", FILE, "Its private key (PEM), mode 0600.")
    username: str = key("", ANY_TEXT, "Name to log in with; empty: none.")
    password_file: str = key("", FILE, "File with the password, mode 0600.")
    in_flight: int = key(20, whole(1, 1000), "Messages sent and not yet acknowledged.")
    keep_alive_s: int = key(30, whole(1, 3600), "A connection that was silent for so long is tested.")
    acknowledge_timeout_s: int = key(60, SECONDS, "Without any acknowledgement for so long we connect anew.")


@dataclass(frozen=True, slots=True)
class MqttSection(BrokerSection):
    """An MQTT broker that gets every reading. Repeat the section for several."""

    encoding: str = key(
        "json",
        one_of("json", "cbor", "cim-xml", "cim-json"),
        "How readings and events are written (docs/uplink.md).",
    )
    reply_prefixes: str = key(
        "", TOPIC_PREFIXES, "Where results may be asked for by response topic, beside our own reply/."
    )
    home_assistant: bool = key(False, YES_NO, "Whether meters announce themselves to Home Assistant there.")
    home_assistant_prefix: str = key(
        "homeassistant", TOPIC_LEVELS, "Discovery prefix of that Home Assistant."
    )


@dataclass(frozen=True, slots=True)
class SparkplugSection(BrokerSection):
    """A broker that gets every reading as Sparkplug B. Repeat the section for several."""

    name: str = key("sparkplug", IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    group: str = key("", IDENTITY_OR_EMPTY, "Sparkplug group; empty: the site.")
    edge_node: str = key("", IDENTITY_OR_EMPTY, "Sparkplug edge node; empty: the name of the concentrator.")
    primary_host: str = key(
        "", IDENTITY_OR_EMPTY, "Host application without which nothing is sent; empty: whoever listens."
    )


_PUSH_WORDS = frozenset({"fresh", "schedule", "events"})
_PUSH_TIMES = Allowed(
    "fresh, schedule, events, or several with commas between",
    lambda value: bool(value) and _PUSH_WORDS.issuperset(value.replace(",", " ").split()),
)
_TIME_OF_DAY = Allowed(
    "a time of day such as 02:30", lambda value: bool(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value))
)
_WINDOWS = Allowed(
    "times of day such as 02:00-04:00, with commas between, or empty",
    lambda value: all(HOURS.holds(word) for word in value.replace(",", " ").split()),
)


@dataclass(frozen=True, slots=True)
class PushSection:
    """A head-end that gets DLMS data-notifications over the TCP wrapper. Repeat the section for several."""

    name: str = key("push", IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    host: str = key("headend.example", HOST, "Where the head-end listens.")
    port: int = key(4059, TCP_PORT, "Its TCP port.")
    source_wport: int = key(1, WPORT, "Our wPort: 1 is the management logical device.")
    destination_wport: int = key(0x67, WPORT, "The head-end's wPort: 103 is the push client.")
    confirmed: bool = key(
        True, YES_NO, "true: wait for data-notification-confirm. false: TCP's own acknowledgement has to do."
    )
    in_flight: int = key(8, whole(1, 1000), "Notifications sent and not yet confirmed.")
    timeout_s: int = key(30, SECONDS, "How long to wait for a confirmation.")
    when: str = key("fresh", _PUSH_TIMES, "Readings as they come or by the schedule; events at once.")
    every_s: int = key(3600, SECONDS, "Schedule: how often; counted from `at`, anew each day.")
    at: str = key("00:00", _TIME_OF_DAY, "Schedule: time of day from which `every_s` is counted.")
    windows: str = key("", _WINDOWS, "Times of day in which readings are sent; empty: always.")
    randomisation_s: int = key(
        0, whole(0, 65535), "Readings begin up to so much later than schedule or window say, by chance."
    )
    retries: int = key(
        0,
        whole(0, 255),
        "Tries after the first before the next schedule or window is waited for; 0: no limit.",
    )
    retry_delay_s: int = key(10, SECONDS, "Time before the first of these; each further takes twice as long.")
    pause_s: int = key(900, SECONDS, "After all tries: pause where neither schedule nor window is set.")
    event_kinds: str = key("", EVENT_KINDS, "Kinds of events that are sent, with commas between; empty: all.")
    tls: bool = key(False, YES_NO, "true: the head-end listens with TLS.")
    ca_file: str = key("", FILE, "Certificates to trust; empty: those of the system.")
    certificate_file: str = key("", FILE, "Our client certificate (PEM).")
    private_key_file: str = key("", FILE, "Its private key (PEM), mode 0600.")
    key_file: str = key(
        "", FILE, "JSON file with protection and keys, mode 0600 (docs/uplink.md); empty: no protection."
    )


@dataclass(frozen=True, slots=True)
class FilesSection:
    """A place that gets files: an HTTP or SFTP server, or a folder to fetch from. Repeat the section for several."""

    name: str = key("files", IDENTITY_RULE, "Name of this destination; its position is kept under it.")
    url: str = key(
        "https://headend.example/readings/",
        FILE_PLACE,
        "https://HOST/PATH/, sftp://HOST/PATH or file:///FOLDER.",
    )
    format: str = key(
        "csv", one_of("csv", "jsonl", "cim-xml", "cim-json"), "What the files hold (docs/uplink.md)."
    )
    compress: bool = key(False, YES_NO, "true: gzip.")
    every_s: int = key(900, SECONDS, "Longest time that what has come waits for its file.")
    most_values: int = key(100_000, whole(1, 1_000_000), "A file that holds so many is not waited for.")
    method: str = key(
        "PUT", one_of("PUT", "POST"), "HTTP: PUT each file under its name, or POST all to the URL."
    )
    username: str = key(
        "", ANY_TEXT, "Name to log in with. HTTP without one: the password is a bearer token."
    )
    password_file: str = key("", FILE, "File with the password or token, mode 0600.")
    private_key_file: str = key("", FILE, "SFTP: our private key. HTTPS: that of our certificate.")
    known_hosts_file: str = key("", FILE, "SFTP: the server's host key, as OpenSSH writes known_hosts.")
    ca_file: str = key("", FILE, "HTTPS: certificates to trust; empty: those of the system.")
    certificate_file: str = key("", FILE, "HTTPS: our client certificate (PEM).")
    most_files: int = key(1000, whole(1, 100_000), "Folder: nothing is added while so many wait there.")


@dataclass(frozen=True, slots=True)
class DlmsSection:
    """Head-ends that connect to this box: a DLMS server and gateway on TCP. Leave the section out for none."""

    host: str = key("127.0.0.1", HOST, "Address to listen on; 0.0.0.0: all.")
    port: int = key(4059, TCP_PORT, "TCP port to listen on.")
    key_file: str = key(
        "", FILE, "JSON file with the clients and their keys, mode 0600 (see docs/uplink.md)."
    )
    certificate_file: str = key("", FILE, "Our certificate (PEM): TLS; empty: plain TCP.")
    private_key_file: str = key("", FILE, "Its private key (PEM), mode 0600.")
    ca_file: str = key("", FILE, "Certificates of head-ends to trust; empty: any may connect.")
    network_id: int = key(0, whole(0, 255), "Network id of the meters in gateway-requests.")
    gateway: str = key(
        "all",
        one_of("all", "associated"),
        "Whose gateway-requests go on: all connections', or those on which a client has associated with this box.",
    )
    largest_image_mib: int = key(
        256, whole(1, 4096), "Largest update (MiB) that a head-end may transfer; kept in state_directory."
    )
    most_connections: int = key(32, whole(1, 1000), "Connections at the same time; others are turned away.")
    idle_s: int = key(300, SECONDS, "A connection that is silent for so long is closed.")


@dataclass(frozen=True, slots=True)
class WebSection:
    """The local diagnostics page."""

    enabled: bool = key(True, YES_NO, "Whether `concentrator run` starts the page.")
    host: str = key("127.0.0.1", HOST, "Address to listen on; off the loopback with TLS only.")
    port: int = key(8080, TCP_PORT, "TCP port to listen on.")
    names: str = key(
        "",
        Allowed("host names with commas between", are_host_names),
        "Names by which browsers reach it off the loopback, beside its address and the machine's own name.",
    )
    tls: str = key(
        "off", one_of("off", "own", "files"), "own: a certificate made by the box; files: certificate_file."
    )
    certificate_file: str = key("", FILE, "Certificate chain of the page (PEM).")
    private_key_file: str = key("", FILE, "Its private key (PEM), readable to the page's user only.")
    open_view: bool = key(False, YES_NO, "Let everybody look without logging in, on the loopback only.")
    session_idle_min: int = key(30, whole(1, 1440), "A session ends after this time without use.")
    session_longest_min: int = key(720, whole(1, 10_080), "A session ends after this time in any case.")


@dataclass(frozen=True, slots=True)
class BoardSection:
    """The board: its pins reset a silent modem and light lamps."""

    model: str = key(
        "none", one_of("none", "raspberry-pi"), "Data file of the board; none: no pins are used."
    )


_OPERATIONS = Allowed(
    "names of orders with commas between (docs/orders.md), all, or empty",
    lambda value: all(re.fullmatch(r"[a-z_]+", word) for word in value.replace(",", " ").split()),
)


@dataclass(frozen=True, slots=True)
class OrdersSection:
    """Who may order what changes a meter. Reading is open to all."""

    allow_local: str = key("all", _OPERATIONS, "From root and the service's user, on the control socket.")
    allow_page: str = key("", _OPERATIONS, "From the page, and others who may open the control socket.")
    allow_mqtt: str = key("", _OPERATIONS, "From the head-end: such as disconnect, reconnect.")


@dataclass(frozen=True, slots=True)
class StoreSection:
    """How long readings stay, and how much room they may take."""

    retention_days: int = key(
        45, whole(1, 36_500), "Readings older than this go, once every destination has them."
    )
    most_megabytes: int = key(
        2000,
        whole(10, 10_000_000),
        "Above this the oldest go: those sent, then unsent statistics, then unsent billing data.",
    )


@dataclass(frozen=True, slots=True)
class ValidationSection:
    """Limits by which values are judged (docs/quality.md)."""

    connection_limit_w: int = key(
        100_000, whole(1, 100_000_000), "Most power of a connection (W), where nothing else is known of it."
    )
    connection_limits: str = key(
        "", LIMITS, "Of single meters, such as the supervisor: METER=WATTS, with commas between."
    )
    flow_limit_m3h: int = key(100, whole(1, 100_000), "Most flow of a gas or water meter, in m³/h.")


_FILES = Allowed(
    "paths of files that exist and can be read, with commas between, or empty",
    lambda value: all(FILE.holds(name.strip()) for name in value.split(",")),
)


@dataclass(frozen=True, slots=True)
class FirmwareSection:
    """Firmware of meters: whose images are believed, and where they lie (docs/firmware.md)."""

    trusted_keys: str = key("", _FILES, "Ed25519 public keys (PEM) whose images are believed; empty: none.")
    folder: str = key(
        "", READABLE_FOLDER, "Folder with images and manifests; empty: meter_firmware in state_directory."
    )


@dataclass(frozen=True, slots=True)
class BalanceSection:
    """The energy balance: what a supervisor meter sees go out against what meters take (docs/quality.md)."""

    supervisor: str = key("", METER_LIST, "Identity of the transformer's supervisor meter; empty: none.")
    coverage_pct: int = key(90, whole(1, 100), "An interval is judged when so many of its meters are known.")
    suspicion_days: int = key(14, whole(3, 90), "How many days suspicions are looked for.")


@dataclass(frozen=True, slots=True)
class FeederSection:
    """A feeder with a supervisor meter of its own. Repeat the section for several."""

    name: str = key("feeder", IDENTITY_RULE, "Name of this feeder.")
    supervisor: str = key("", METER_LIST, "Identity of its supervisor meter.")
    members: str = key("", METER_LIST, "Its meters, with commas between; empty: all that no other has.")
