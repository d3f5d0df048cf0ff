"""CIASE, the configuration initiation service of S-FSK (IEC 61334-4-511): its PDUs in A-XDR.

The initiator asks who is New (Discover), gives the reporters MAC addresses (Register), asks one whether it is there
(Ping), lets all stations find out whether they are needed as repeaters (RepeaterCall) and clears alarms
(ClearAlarm). Source: the standard's ASN.1 as the DLMS UA's Green Book restates it in its S-FSK profile. System titles
have 8 octets, 6 in older networks; a report is taken with whichever fits it.
"""

from plc.errors import LocalPlcError, MessageError

PING_REQUEST = 25
PING_RESPONSE = 26
REGISTER_REQUEST = 28
DISCOVER_REQUEST = 29
DISCOVER_REPORT = 30
REPEATER_CALL_REQUEST = 31
CLEAR_ALARM_REQUEST = 57

NAMES = (
    (PING_REQUEST, "Ping.request"),
    (PING_RESPONSE, "Ping.response"),
    (REGISTER_REQUEST, "Register.request"),
    (DISCOVER_REQUEST, "Discover.request"),
    (DISCOVER_REPORT, "Discover.report"),
    (REPEATER_CALL_REQUEST, "RepeaterCall.request"),
    (CLEAR_ALARM_REQUEST, "ClearAlarm.request"),
)

TAGS = tuple([row[0] for row in NAMES])

TITLE_SIZES = (8, 6)
# What A-XDR leaves out when it has these values.
DEFAULT_SLOTS_FOR_NEW = 0
DEFAULT_RECEPTION_THRESHOLD = 104  # dBuV

# Choices of ClearAlarm.
_ONE_ALARM = 0
_ALARM_LIST = 1
_ALARMS_OF_SERVERS = 2
_ALARM_BY_SERVER = 3


def _unsigned(name: str, value: int, largest: int) -> int:
    if not 0 <= value <= largest:
        raise LocalPlcError(f"{name} is 0 to {largest}, got {value}")
    return value


def encode_discover_request(
    response_probability: int, allowed_time_slots: int, report_initial_credit: int, ic_equal_credit: int
) -> bytes:
    """Ask all New systems to report, each with a probability (percent) in one of so many slots.

    With `ic_equal_credit` 0 the initial credit given is that of the reports; with 1 a server uses the credit that it
    needs by what it has heard, if that is less.
    """
    return (
        bytes((DISCOVER_REQUEST, _unsigned("a probability", response_probability, 100)))
        + _unsigned("a number of slots", allowed_time_slots, 0xFFFF).to_bytes(2, "big")
        + bytes(
            (
                _unsigned("a credit", report_initial_credit, 7),
                _unsigned("ic_equal_credit", ic_equal_credit, 1),
            )
        )
    )


def decode_discover_request(octets: bytes) -> "tuple[int, int, int, int]":
    """Probability, slots, initial credit of the reports, ic_equal_credit. Raises MessageError."""
    _check(octets, DISCOVER_REQUEST, 6)
    return octets[1], int.from_bytes(octets[2:4], "big"), octets[4], octets[5]


def encode_discover_report(systems: "list[tuple[bytes, int | None]]") -> bytes:
    """Report New systems: the title of each, and its alarm descriptor or None."""
    body = bytes((DISCOVER_REPORT, len(systems)))
    for title, alarm in systems:
        body += title + (b"\x00" if alarm is None else bytes((1, alarm)))
    return body


def decode_discover_report(octets: bytes) -> "list[tuple[bytes, int | None]]":
    """The (title, alarm descriptor or None) of each reporting system. Raises MessageError."""
    _check(octets, DISCOVER_REPORT, 2)
    for size in TITLE_SIZES:
        systems = _report_with(octets, size)
        if systems is not None:
            return systems
    raise MessageError(f"a Discover.report of {len(octets)} octets does not hold {octets[1]} system titles")


def _report_with(octets: bytes, size: int) -> "list[tuple[bytes, int | None]] | None":
    systems: "list[tuple[bytes, int | None]]" = []
    position = 2
    for _ in range(octets[1]):
        end = position + size
        if end >= len(octets) or octets[end] > 1 or end + octets[end] >= len(octets):
            return None
        systems.append((octets[position:end], octets[end + 1] if octets[end] else None))
        position = end + 1 + octets[end]
    return systems if position == len(octets) else None


def encode_register_request(initiator: bytes, correspondence: "list[tuple[bytes, int]]") -> bytes:
    """Give New systems their MAC addresses, in the name of the active initiator."""
    body = bytes((REGISTER_REQUEST,)) + initiator + bytes((len(correspondence),))
    for title, address in correspondence:
        body += title + address.to_bytes(2, "big")
    return body


def decode_register_request(octets: bytes) -> "tuple[bytes, list[tuple[bytes, int]]]":
    """The initiator's title and the (title, MAC address) pairs. Raises MessageError."""
    _check(octets, REGISTER_REQUEST, 2)
    for size in TITLE_SIZES:
        count = octets[1 + size] if len(octets) > 1 + size else -1
        if len(octets) == 2 + size + count * (size + 2):
            pairs: "list[tuple[bytes, int]]" = []
            for start in range(2 + size, len(octets), size + 2):
                address = int.from_bytes(octets[start + size : start + size + 2], "big")
                pairs.append((octets[start : start + size], address))
            return octets[1 : 1 + size], pairs
    raise MessageError(f"a Register.request of {len(octets)} octets does not hold what it says")


def encode_ping(kind: int, title: bytes) -> bytes:
    """A Ping.request or Ping.response with the server's system title."""
    return bytes((kind,)) + title


def decode_ping(octets: bytes) -> bytes:
    """The system title of a Ping.request or Ping.response. Raises MessageError."""
    if len(octets) - 1 not in TITLE_SIZES or octets[0] not in (PING_REQUEST, PING_RESPONSE):
        raise MessageError(f"{len(octets)} octets are no Ping")
    return octets[1:]


def encode_repeater_call(
    largest_address: int,
    slots_for_new: int = DEFAULT_SLOTS_FOR_NEW,
    reception_threshold: int = DEFAULT_RECEPTION_THRESHOLD,
) -> bytes:
    """Begin a repeater call: every station up to an address sends in its own short slot, and all listen."""
    body = bytes((REPEATER_CALL_REQUEST,)) + _unsigned("an address", largest_address, 0xFFF).to_bytes(
        2, "big"
    )
    for value, default in (
        (slots_for_new, DEFAULT_SLOTS_FOR_NEW),
        (reception_threshold, DEFAULT_RECEPTION_THRESHOLD),
    ):
        body += b"\x00" if value == default else bytes((1, _unsigned("a value", value, 0xFF)))
    return body


def decode_repeater_call(octets: bytes) -> "tuple[int, int, int]":
    """Largest address, slots for New systems, reception threshold. Raises MessageError."""
    _check(octets, REPEATER_CALL_REQUEST, 5)
    values = [DEFAULT_SLOTS_FOR_NEW, DEFAULT_RECEPTION_THRESHOLD]
    position = 3
    for index in range(2):
        if position >= len(octets) or octets[position] > 1 or position + octets[position] >= len(octets):
            raise MessageError(f"a RepeaterCall.request of {len(octets)} octets is cut off")
        if octets[position]:
            values[index] = octets[position + 1]
        position += 1 + octets[position]
    return int.from_bytes(octets[1:3], "big"), values[0], values[1]


def encode_clear_alarm(alarms: "list[int]", servers: "list[bytes] | None" = None) -> bytes:
    """Clear alarm descriptors of all servers, or of those with the titles given."""
    if not alarms:
        raise LocalPlcError("ClearAlarm needs at least one alarm descriptor")
    if servers:
        body = bytes((CLEAR_ALARM_REQUEST, _ALARMS_OF_SERVERS, len(servers))) + b"".join(servers)
        return body + bytes((len(alarms),)) + bytes(alarms)
    if len(alarms) == 1:
        return bytes((CLEAR_ALARM_REQUEST, _ONE_ALARM, alarms[0]))
    return bytes((CLEAR_ALARM_REQUEST, _ALARM_LIST, len(alarms))) + bytes(alarms)


def encode_clear_alarm_by_server(pairs: "list[tuple[bytes, int]]") -> bytes:
    """Clear one alarm descriptor of each server."""
    body = bytes((CLEAR_ALARM_REQUEST, _ALARM_BY_SERVER, len(pairs)))
    return body + b"".join([title + bytes((alarm,)) for title, alarm in pairs])


def decode_clear_alarm(octets: bytes) -> "list[tuple[bytes, int]]":
    """The (title, alarm descriptor) pairs that are to be cleared; the title is empty for all servers.

    Raises MessageError.
    """
    _check(octets, CLEAR_ALARM_REQUEST, 3)
    choice, count = octets[1], octets[2]
    if choice == _ONE_ALARM and len(octets) == 3:
        return [(b"", count)]
    if choice == _ALARM_LIST and len(octets) == 3 + count:
        return [(b"", alarm) for alarm in octets[3:]]
    for size in TITLE_SIZES:
        if choice == _ALARM_BY_SERVER and len(octets) == 3 + count * (size + 1):
            return [
                (octets[start : start + size], octets[start + size])
                for start in range(3, len(octets), size + 1)
            ]
        end = 3 + count * size
        if choice == _ALARMS_OF_SERVERS and end < len(octets) and len(octets) == end + 1 + octets[end]:
            titles = [octets[start : start + size] for start in range(3, end, size)]
            return [(title, alarm) for title in titles for alarm in octets[end + 1 :]]
    raise MessageError(f"a ClearAlarm.request of {len(octets)} octets does not hold what it says")


def _check(octets: bytes, tag: int, least: int) -> None:
    if len(octets) < least or octets[0] != tag:
        raise MessageError(f"{len(octets)} octets are no {name_of_tag(tag)}")


def name_of_tag(tag: int) -> str:
    """The name of a CI-PDU; its tag when it has none."""
    for candidate, name in NAMES:
        if candidate == tag:
            return name
    return f"CI-PDU {tag}"


def describe_ciase(octets: bytes) -> "list[tuple[str, str]]":
    """A CI-PDU in words: its name, then its fields. Raises MessageError."""
    tag = octets[0] if octets else -1
    fields = [("ciase", name_of_tag(tag))]
    if tag == DISCOVER_REQUEST:
        names = ("response_probability", "allowed_time_slots", "report_initial_credit", "ic_equal_credit")
        fields += [(name, str(value)) for name, value in zip(names, decode_discover_request(octets))]
    elif tag == DISCOVER_REPORT:
        for title, alarm in decode_discover_report(octets):
            fields.append(("system", title.hex() + ("" if alarm is None else f", alarm {alarm}")))
    elif tag == REGISTER_REQUEST:
        initiator, pairs = decode_register_request(octets)
        fields.append(("initiator", initiator.hex()))
        fields += [("system", title.hex() + f" gets MAC address 0x{address:03X}") for title, address in pairs]
    elif tag in (PING_REQUEST, PING_RESPONSE):
        fields.append(("system", decode_ping(octets).hex()))
    elif tag == REPEATER_CALL_REQUEST:
        names = ("largest_address", "slots_for_new", "reception_threshold")
        fields += [(name, str(value)) for name, value in zip(names, decode_repeater_call(octets))]
    elif tag == CLEAR_ALARM_REQUEST:
        for title, alarm in decode_clear_alarm(octets):
            fields.append(("alarm", str(alarm) + (" of " + title.hex() if title else " of all")))
    else:
        raise MessageError(f"CI-PDU {tag} is not known")
    return fields
