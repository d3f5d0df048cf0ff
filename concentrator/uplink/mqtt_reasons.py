"""What the reason codes of MQTT 5 (section 2.4) mean for the queue, and in words for the page."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Remedy(enum.Enum):
    """What becomes of the rows that a broker refused."""

    KEEP = "they stay; the connection is made anew later"
    WAIT_LONG = "they stay; it is tried again after a long pause, as nothing will change soon"
    SPLIT = "they are sent again in smaller messages; what cannot be smaller is parked"
    PARK = "they are parked: told as an alarm, kept in the store, and out of the way of the others"


@dataclass(frozen=True, slots=True)
class Reason:
    """One code: its meaning for people, and what to do."""

    words: str
    remedy: Remedy = Remedy.KEEP


UNSPECIFIED = 0x80
PROTOCOL_ERROR = 0x82
NOT_AUTHORIZED = 0x87
PACKET_TOO_LARGE = 0x95
# A connection that ends with one of these may have been ended over what a message holds.
OVER_A_MESSAGE = frozenset({0x81, PROTOCOL_ERROR, 0x90, PACKET_TOO_LARGE, 0x99})

REASONS: dict[int, Reason] = {
    UNSPECIFIED: Reason("unspecified error"),
    0x81: Reason("malformed packet"),
    PROTOCOL_ERROR: Reason("protocol error"),
    0x83: Reason("implementation specific error"),
    0x84: Reason("it does not speak this version of MQTT: set protocol", Remedy.WAIT_LONG),
    0x85: Reason("it does not take our client identifier", Remedy.WAIT_LONG),
    0x86: Reason("bad user name or password: see username and password_file", Remedy.WAIT_LONG),
    NOT_AUTHORIZED: Reason(
        "not authorized: the broker's access list has to allow our topics", Remedy.WAIT_LONG
    ),
    0x88: Reason("server unavailable"),
    0x89: Reason("server busy"),
    0x8A: Reason("banned by the broker's administrator", Remedy.WAIT_LONG),
    0x8B: Reason("server shutting down"),
    0x8C: Reason("bad authentication method", Remedy.WAIT_LONG),
    0x8D: Reason("keep alive timeout: the broker did not hear us"),
    0x8E: Reason("session taken over: another client has our client identifier", Remedy.WAIT_LONG),
    0x90: Reason("topic name invalid", Remedy.PARK),
    0x93: Reason("receive maximum exceeded"),
    0x94: Reason("topic alias invalid"),
    PACKET_TOO_LARGE: Reason("packet too large", Remedy.SPLIT),
    0x96: Reason("message rate too high"),
    0x97: Reason("quota exceeded"),
    0x98: Reason("administrative action"),
    0x99: Reason("payload format invalid", Remedy.PARK),
    0x9A: Reason("retain not supported"),
    0x9B: Reason("QoS not supported", Remedy.WAIT_LONG),
    0x9C: Reason("use another server: set host", Remedy.WAIT_LONG),
    0x9D: Reason("server moved: set host", Remedy.WAIT_LONG),
    0x9F: Reason("connection rate exceeded"),
    0xA0: Reason("maximum connect time"),
}


def reason_of(code: int) -> Reason:
    """The meaning of a code; one that is not in the table keeps the rows."""
    return REASONS.get(code, Reason("unknown reason"))


def in_words(code: int, said: str = "") -> str:
    """A code for the page, with what the broker said beside it (reason string, server reference)."""
    return f"{reason_of(code).words} (0x{code:02X})" + (f": {said[:200]}" if said else "")
