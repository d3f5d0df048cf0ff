"""What the values of the configuration may be: each rule in words, and as a test."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

_HOST_NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$")
_HOST_AND_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):\d{1,5}$")
_IDENTITY = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


@dataclass(frozen=True, slots=True)
class Allowed:
    """A rule for one key: in words, and as a test of a value that has the right type."""

    words: str
    holds: Callable[[Any], bool]


def whole(low: int, high: int) -> Allowed:
    """A whole number within bounds, both included."""
    return Allowed(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def one_of(*choices: str) -> Allowed:
    """One of some words."""
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


def are_mbus_addresses(value: str) -> bool:
    """Primary or secondary addresses of a wired M-Bus."""
    return all(
        (word.isdecimal() and len(word) <= 3 and int(word) <= 250)  # noqa: PLR2004 - primary addresses
        or re.fullmatch(r"[0-9A-Fa-f]{8}|[0-9A-Fa-f]{16}", word)
        for word in value.replace(",", " ").split()
    )


def are_host_names(value: str) -> bool:
    """Names of hosts, or nothing."""
    return all(_is_host(word) for word in value.replace(",", " ").split())


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this box only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def are_wmbus_meters(value: str) -> bool:
    """Identifications of wireless M-Bus meters, with or without their makers."""
    words = value.replace(",", " ").split()
    return all(re.fullmatch(r"(?:[A-Za-z]{3}-)?[0-9A-Fa-f]{8}", word) for word in words)


IDENTITY_RULE = Allowed("1 to 64 letters, digits, _ or -", lambda value: bool(_IDENTITY.match(value)))
IDENTITY_OR_EMPTY = Allowed(
    "1 to 64 letters, digits, _ or -, or empty", lambda value: not value or bool(_IDENTITY.match(value))
)
_TOPIC_LEVELS = re.compile(r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$")
TOPIC_LEVELS = Allowed(
    "levels of a topic, such as a/b, without wildcards", lambda value: bool(_TOPIC_LEVELS.match(value))
)
TOPIC_PREFIXES = Allowed(
    "beginnings of topics such as head-end/replies, with commas between, or empty",
    lambda value: all(_TOPIC_LEVELS.match(word) for word in value.replace(",", " ").split()),
)
HOST = Allowed("a host name or an IP address", _is_host)
TCP_PORT = whole(1, 65535)
FOLDER = Allowed("an absolute path of a folder that exists or can be made", _is_folder_to_be)


def is_pattern(value: str) -> bool:
    """A regular expression, or nothing."""
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


READABLE_FOLDER = Allowed(
    "the path of a folder that exists and can be read, or empty",
    lambda value: not value or (Path(value).is_dir() and os.access(value, os.R_OK | os.X_OK)),
)
FILE = Allowed("the path of a file that exists and can be read, or empty", _is_file)
SERIAL_PORT = Allowed(
    "the absolute path of a serial device that exists, such as /dev/ttyAMA0", _is_serial_port
)
PLACE = Allowed(
    "the absolute path of a serial device that exists, or HOST:PORT",
    lambda value: bool(_HOST_AND_PORT.match(value)) or _is_serial_port(value),
)


def _is_file_place(value: str) -> bool:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return False
    if url.scheme == "file":
        return not url.netloc and url.path.startswith("/")
    # A name or a password in the URL would end up in logs.
    return (
        url.scheme in ("http", "https", "sftp")
        and bool(url.hostname)
        and "@" not in url.netloc
        and not url.query
        and port != 0
    )


FILE_PLACE = Allowed(
    "https://HOST/PATH/, http://HOST/PATH/, sftp://HOST/PATH or file:///FOLDER, without names and passwords",
    _is_file_place,
)
MBUS_BAUD_RATE = Allowed(
    "one of 300, 600, 1200, 2400, 4800, 9600, 19200, 38400",
    lambda value: value in (300, 600, 1200, 2400, 4800, 9600, 19200, 38400),
)
BAUD_RATE = Allowed(
    "one of 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600",
    lambda value: value in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600),
)
METER_LIST = Allowed(
    "identities of meters, with commas between",
    lambda value: all(_IDENTITY.match(word) for word in value.replace(",", " ").split()),
)
LIMITS = Allowed(
    "METER=WATTS, with commas between",
    lambda value: all(
        re.fullmatch(r"\s*[A-Za-z0-9_-]{1,64}\s*=\s*\d{1,9}\s*", part)
        for part in value.split(",")
        if part.strip()
    ),
)
SECONDS = whole(1, 86_400)
WPORT = whole(1, 65535)
OBIS = Allowed(
    "an OBIS code such as 1-0:99.1.0*255",
    lambda value: bool(re.match(r"^\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}\*\d{1,3}$", value)),
)


TIME_ZONE = Allowed("a name of the time zone database such as Europe/Madrid", _is_time_zone)
HOURS = Allowed(
    "two times of day such as 02:00-04:00, or empty",
    lambda value: not value or bool(re.match(r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$", value)),
)


def key(default: Any, allowed: Allowed, words: str) -> Any:  # noqa: ANN401 - a field of any type
    """A key of a section: its default, what is allowed, and a line of help."""
    return field(default=default, metadata={"allowed": allowed, "help": words})


ANY_TEXT = Allowed("text", lambda _value: True)
YES_NO = Allowed("true or false", lambda _value: True)
