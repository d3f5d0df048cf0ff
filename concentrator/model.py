"""The values that every layer speaks of: a meter, a channel, a reading, and how good it is.

Nothing here knows where a reading came from (PLC, radio, a local port) or where it goes. That is what
lets a water meter and an electricity meter flow through the same store, page and uplink.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import datetime

from concentrator.errors import LocalError
from concentrator.obis import Obis

# Topics, file names and URLs carry meter identities: nothing that could mean something there.
IDENTITY_PATTERN = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


class IdentityError(LocalError):
    """A meter identity that could not be carried safely in a topic, a URL or a file name."""


def safe_identity(text: str) -> str:
    """A meter's own name made safe: blanks and NULs trimmed, every other foreign character a hyphen.

    Raises:
        IdentityError: nothing is left of it.
    """
    cleaned = re.sub(r"[^A-Za-z0-9_-]", "-", text.strip("\x00 \t\r\n"))[:64]
    if not cleaned.strip("-"):
        raise IdentityError(f"a meter identity needs letters or digits, got {text!r}")
    return cleaned


class Medium(enum.StrEnum):
    """What a meter measures, by value group A of its OBIS codes and EN 13757-3 device types."""

    ELECTRICITY = "electricity"
    GAS = "gas"
    WATER = "water"
    HOT_WATER = "hot_water"
    HEAT = "heat"
    COOLING = "cooling"
    HEAT_COST = "heat_cost"
    OTHER = "other"


class MeterState(enum.StrEnum):
    """What the field engineer wants to know first of a meter."""

    DISCOVERED = "discovered"  # seen on the network or on the air; not yet identified
    IDENTIFYING = "identifying"
    ACTIVE = "active"  # identified, and read as planned
    UNREACHABLE = "unreachable"  # known, but does not answer
    REFUSED = "refused"  # answers, but refuses our credentials or requests
    KEY_MISSING = "key_missing"  # heard on the air, encrypted, and no key is set up
    KEY_WRONG = "key_wrong"  # heard, and what the key gives is noise
    FOREIGN = "foreign"  # not ours: listed and left alone
    REMOVED = "removed"  # was here once: its history stays


class Quality(enum.IntFlag):
    """How good one value is. Zero says that checks were made and nothing speaks against it.

    After the reading qualities of IEC 61968-9 (`reading_quality.py` has their codes); the meter's own status word is
    kept beside it.
    """

    VALID = 0
    CLOCK_INVALID = 1  # the meter said that its clock was invalid
    CLOCK_DOUBTFUL = 2
    POWER_DOWN = 4  # power failed within the interval
    CLOCK_ADJUSTED = 8  # the clock was set within the interval: it is longer or shorter than it should be
    INFERRED_TIME = 16  # the meter sent no time stamp for this row; it follows from the row before
    NOT_VALIDATED = 32  # nothing has checked it yet
    SUSPECT = 64  # a check failed
    ESTIMATED = 128
    WRONG_DIGITS = 256  # the meter sent digits that are no number (display codes, error values)
    # Which check failed; SUSPECT stands beside the first five.
    OUT_OF_RANGE = 512  # more than the connection can carry, or than the quantity can be
    RUNS_BACKWARDS = 1024  # a register below what it was before
    UNIT_UNEXPECTED = 2048  # unit or scaler is not that of the quantity, or of this channel until now
    SUM_CHECK = 4096  # intervals and registers do not agree
    DIFFERS = 8192  # the meter gave another value for the same time
    AFTER_GAP = (
        16384  # the meter lacks the interval before: the difference to the value before spans more than one
    )
    ROLLED_OVER = 32768  # the register began again from zero


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of what a meter delivers: an attribute of one COSEM object (or its M-Bus equal).

    `scaler` is the power of ten of the raw integers, `unit` the Blue Book's unit code (table of class 3:
    30 = Wh, 27 = W, 13 = m3, ...). `period_s` is the capture period; 0 for a register read now and then.
    """

    obis: Obis
    unit: int
    scaler: int = 0
    class_id: int = 3
    attribute: int = 2
    period_s: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one channel.

    `captured_at` is UTC; for an interval it is its END. `value` is the raw integer (times 10**scaler
    of the channel), or text for a channel that has no number. `status` is the meter's own status word.
    """

    channel: Channel
    captured_at: datetime
    value: int | str
    status: int | None = None
    quality: Quality = Quality.VALID


@dataclass(frozen=True, slots=True)
class Answer:
    """What one meter delivered in one go: stored in one commit, forwarded as one batch.

    `profile` names the object it was read from (a load profile), or the kind of telegram. Without `send` it is not
    for the destinations; without `keep` it goes from the store once every destination has it.
    """

    meter: str
    profile: Obis
    readings: tuple[Reading, ...]
    received_at: datetime
    send: bool = True
    keep: bool = True


@dataclass(slots=True)
class Registration:
    """What the operator and the registry say of a meter, beside what it says of itself.

    `connection_limit` is the agreed power of the connection in watts, as the utility's registry has it. `manual`:
    entered by somebody before it was met. `replaced_by` is the identity of the meter that came in its place; "": none.
    """

    installed_at: datetime | None = None
    removed_at: datetime | None = None
    manual: bool = False
    groups: tuple[str, ...] = ()
    connection_limit: int | None = None
    replaced_by: str = ""


class EventSeverity(enum.StrEnum):
    """How soon somebody should look at an event."""

    INFO = "info"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """One thing that a meter says has happened: an entry of a log that it keeps, or an alarm that it sent.

    `log` is the object that it came from; `happened_at` is UTC, by the meter's clock; `code` the meter's own. `ordinal`
    counts equal entries of the same second. `kind` is what the rest of the product goes by (`event_codes.toml`).
    """

    log: Obis
    happened_at: datetime
    code: int
    ordinal: int = 0
    group: str = ""
    severity: EventSeverity = EventSeverity.INFO
    kind: str = ""
    detail: str = ""


@dataclass(slots=True)
class MeterRecord:
    """A meter as the registry knows it. `identity` is what the head-end calls it; it never changes."""

    identity: str
    medium: Medium = Medium.ELECTRICITY
    state: MeterState = MeterState.DISCOVERED
    # How it is reached: "plc", "wmbus", "mbus", "p1", or "mbus-client" through an electricity meter; and its address
    # there (EUI-48 or EUI-64 in hex, M-Bus address, METER/CHANNEL).
    link: str = "plc"
    link_address: str = ""
    serial: str = ""
    logical_device_name: str = ""
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    reason: str = ""  # of the state, in words
    first_seen: datetime | None = None
    last_contact: datetime | None = None
    clock_offset_s: float | None = None
    signal: float | None = None
    details: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    registration: Registration = field(default_factory=Registration)

    @property
    def left_alone(self) -> bool:
        """Whether it is listed only: another utility's, or removed. Nobody asks it, nothing of it is stored."""
        return self.state in (MeterState.FOREIGN, MeterState.REMOVED)
