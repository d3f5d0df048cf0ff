"""G3-PLC host interface: every command of ADP and of the bootstrap server, as rows.

USI protocol 0x25. Source: g3/src/adp_serial and g3/src/lbp of Microchip's smartenergy_g3 ("generation B": the
bootstrap server lives in the modem), and the 2021 Linux host for the rows of "generation A" (bootstrap server
on the host). Fields that only one generation has are optional, or the row says so. Raw MAC commands (protocol
0x24) are not here; the old on-chip coordinator protocol (0x26) is in plc/g3/coordinator_commands.py.
"""

from plc.commands import (
    ADDRESS8,
    DATA8,
    DATA16,
    EUI64,
    FROM_HOST,
    FROM_MODEM,
    KEY,
    REST,
    U8,
    U16,
    U32,
    CommandTable,
)
from plc.g3.enumerations import MEDIA
from plc.prime.enumerations import name_of

STATUS = 0
INITIALIZE_REQUEST = 10
DATA_REQUEST = 11
DISCOVERY_REQUEST = 12
NETWORK_START_REQUEST = 13
RESET_REQUEST = 16
SET_REQUEST = 17
GET_REQUEST = 18
LBP_REQUEST = 19
ROUTE_DISCOVERY_REQUEST = 20
PATH_DISCOVERY_REQUEST = 21
MAC_SET_REQUEST = 22
MAC_GET_REQUEST = 23
DATA_CONFIRM = 30
DATA_INDICATION = 31
NETWORK_STATUS_INDICATION = 32
DISCOVERY_CONFIRM = 33
NETWORK_START_CONFIRM = 34
RESET_CONFIRM = 38
SET_CONFIRM = 39
GET_CONFIRM = 40
LBP_CONFIRM = 41
LBP_INDICATION = 42
ROUTE_DISCOVERY_CONFIRM = 43
PATH_DISCOVERY_CONFIRM = 44
MAC_SET_CONFIRM = 45
MAC_GET_CONFIRM = 46
BUFFER_INDICATION = 47
DISCOVERY_INDICATION = 48
NON_VOLATILE_DATA_INDICATION = 50
ROUTE_NOT_FOUND_INDICATION = 51
LBP_SET_REQUEST = 60
FORCE_REGISTER_REQUEST = 61
KICK_REQUEST = 62
REKEY_REQUEST = 63
SET_REKEY_PHASE = 64
ACTIVATE_NEW_KEY = 65
SHORT_ADDRESS_ASSIGN = 66
LBP_SET_CONFIRM = 70
JOIN_REQUEST_INDICATION = 71
JOIN_COMPLETE_INDICATION = 72
LEAVE_INDICATION = 73

# In SHORT_ADDRESS_ASSIGN: the device may not join.
DECLINE = 0xFFFF

# LBP attributes (LBP_SET).
LBP_IDS = 0
LBP_PSK = 2
LBP_GMK = 3
LBP_REKEY_GMK = 4
LBP_MESSAGE_TIMEOUT = 6

# A complete uncompressed IPv6 packet.
LARGEST_PACKET = 1280

_STATUS = ("status", U8)
_HANDLE = ("handle", U8)
_ATTRIBUTE = ("attribute", U32)
_INDEX = ("index", U16)
_VALUE = ("value", DATA8)
_PAN = ("pan_id", U16)
_SHORT = ("short_address", U16)
_EUI = ("eui64", EUI64)
_DESTINATION = ("destination", U16)
_DISCOVER_ROUTE = ("discover_route", U8)
_QOS = ("quality_of_service", U8)
_LQI = ("link_quality", U8)
_MEDIA = (("media", U8),)

ROWS = (
    (0, FROM_MODEM, "ADP_STATUS", (_STATUS, ("refused_command", U8)), ()),
    (10, FROM_HOST, "ADP_INITIALIZE.request", (("band", U8),), (("role", U8),)),
    (11, FROM_HOST, "ADPD_DATA.request", (_HANDLE, _DISCOVER_ROUTE, _QOS, ("packet", DATA16)), ()),
    (12, FROM_HOST, "ADPM_DISCOVERY.request", (("duration_s", U8),), ()),
    (13, FROM_HOST, "ADPM_NETWORK_START.request", (_PAN,), ()),
    (14, FROM_HOST, "ADPM_NETWORK_JOIN.request", (_PAN, ("lba", U16)), _MEDIA),
    (15, FROM_HOST, "ADPM_NETWORK_LEAVE.request", (), ()),
    (16, FROM_HOST, "ADPM_RESET.request", (), ()),
    (17, FROM_HOST, "ADPM_SET.request", (_ATTRIBUTE, _INDEX, _VALUE), ()),
    (18, FROM_HOST, "ADPM_GET.request", (_ATTRIBUTE, _INDEX), ()),
    # Generation A: an address of `address_size` octets and then the LBP frame of `length` octets.
    (19, FROM_HOST, "ADPM_LBP.request",
     (_HANDLE, ("max_hops", U8), _DISCOVER_ROUTE, _QOS, ("security", U8), ("address_size", U8),
      ("length", U16), ("address_and_frame", REST)), ()),
    (20, FROM_HOST, "ADPM_ROUTE_DISCOVERY.request", (_DESTINATION, ("max_hops", U8)), ()),
    (21, FROM_HOST, "ADPM_PATH_DISCOVERY.request", (_DESTINATION, ("metric_type", U8)), ()),
    (22, FROM_HOST, "MLME_SET.request", (_ATTRIBUTE, _INDEX, _VALUE), ()),
    (23, FROM_HOST, "MLME_GET.request", (_ATTRIBUTE, _INDEX), ()),
    (24, FROM_HOST, "ADPD_NO_IP_DATA.request",
     (_DESTINATION, _HANDLE, _DISCOVER_ROUTE, _QOS, ("data", DATA16)), ()),
    (30, FROM_MODEM, "ADPD_DATA.confirm", (_STATUS, _HANDLE), ()),
    (31, FROM_MODEM, "ADPD_DATA.indication", (_LQI, ("packet", DATA16)), ()),
    (32, FROM_MODEM, "ADPM_NETWORK_STATUS.indication",
     (_PAN, ("source", ADDRESS8), ("destination_address", ADDRESS8), ("mac_status", U8),
      ("security_level", U8), ("key_index", U8)), _MEDIA),
    (33, FROM_MODEM, "ADPM_DISCOVERY.confirm", (_STATUS,), ()),
    (34, FROM_MODEM, "ADPM_NETWORK_START.confirm", (_STATUS,), ()),
    (35, FROM_MODEM, "ADPM_NETWORK_JOIN.confirm", (_STATUS, _SHORT, _PAN), ()),
    (36, FROM_MODEM, "ADPM_NETWORK_LEAVE.confirm", (_STATUS,), ()),
    (37, FROM_MODEM, "ADPM_NETWORK_LEAVE.indication", (), ()),
    (38, FROM_MODEM, "ADPM_RESET.confirm", (_STATUS,), ()),
    (39, FROM_MODEM, "ADPM_SET.confirm", (_STATUS, _ATTRIBUTE, _INDEX), ()),
    (40, FROM_MODEM, "ADPM_GET.confirm", (_STATUS, _ATTRIBUTE, _INDEX), (_VALUE,)),
    (41, FROM_MODEM, "ADPM_LBP.confirm", (_STATUS, _HANDLE), ()),
    (42, FROM_MODEM, "ADPM_LBP.indication", (("source", U16), ("frame", DATA16), _LQI, ("security", U8)), ()),
    (43, FROM_MODEM, "ADPM_ROUTE_DISCOVERY.confirm", (_STATUS,), ()),
    # The hops (forward, then reverse) are 7 octets each: see decode_hops().
    (44, FROM_MODEM, "ADPM_PATH_DISCOVERY.confirm",
     (_STATUS, _DESTINATION, ("originator", U16), ("metric_type", U8), ("forward_count", U8),
      ("reverse_count", U8), ("hops", REST)), ()),
    (45, FROM_MODEM, "MLME_SET.confirm", (("mac_status", U8), _ATTRIBUTE, _INDEX), ()),
    (46, FROM_MODEM, "MLME_GET.confirm", (("mac_status", U8), _ATTRIBUTE, _INDEX), (_VALUE,)),
    (47, FROM_MODEM, "ADPM_BUFFER.indication", (("full_buffers", U8),), ()),
    (48, FROM_MODEM, "ADPM_DISCOVERY.indication", (_PAN, _LQI, ("lba", U16), ("rc_coord", U16)), _MEDIA),
    (49, FROM_MODEM, "ADPM_PREQ.indication", (), ()),
    # Generation A: time to store frame counters and sequence numbers.
    (50, FROM_MODEM, "ADPM_NON_VOLATILE_DATA.indication", (), ()),
    (51, FROM_MODEM, "ADPM_ROUTE_NOT_FOUND.indication",
     (("source", U16), _DESTINATION, ("next_hop", U16), ("previous_hop", U16), ("route_cost", U16),
      ("hop_count", U8), ("weak_links", U8), ("just_broken", U8), ("compressed", U8), ("frame", DATA16)), ()),
    (60, FROM_HOST, "LBP_SET.request", (_ATTRIBUTE, _INDEX, _VALUE), ()),
    (61, FROM_HOST, "LBP_FORCE_REGISTER.request", (_EUI, _SHORT, _PAN, ("key_index", U8), ("gmk", KEY)), ()),
    (62, FROM_HOST, "LBP_KICK.request", (_SHORT, _EUI), ()),
    (63, FROM_HOST, "LBP_REKEY.request", (_SHORT, _EUI, ("distribute", U8)), ()),
    (64, FROM_HOST, "LBP_SET_REKEY_PHASE.request", (("start", U8),), ()),
    (65, FROM_HOST, "LBP_ACTIVATE_NEW_KEY.request", (), ()),
    (66, FROM_HOST, "LBP_SHORT_ADDRESS_ASSIGN.request", (_EUI, _SHORT), ()),
    (70, FROM_MODEM, "LBP_SET.confirm", (("lbp_status", U8), _ATTRIBUTE, _INDEX), ()),
    (71, FROM_MODEM, "LBP_JOIN_REQUEST.indication", (_EUI,), ()),
    (72, FROM_MODEM, "LBP_JOIN_COMPLETE.indication", (_EUI, _SHORT), ()),
    (73, FROM_MODEM, "LBP_LEAVE.indication", (_SHORT,), ()),
)  # fmt: skip

COMMANDS = CommandTable("G3 ADP", ROWS)

# One hop of a path: (field, kind).
HOP_FIELDS = (
    ("address", U16),
    ("metric_not_supported", U8),
    ("link_cost", U8),
    ("phase_difference", U8),
    ("rx_media", U8),
    ("tx_media", U8),
)
_HOP_SIZE = 7


def decode_hops(octets: bytes) -> "list[dict[str, int]]":
    """Take the hops of a path discovery apart; a last one that is cut off is left out."""
    hops: "list[dict[str, int]]" = []
    for start in range(0, len(octets) - _HOP_SIZE + 1, _HOP_SIZE):
        hop = {"address": int.from_bytes(octets[start : start + 2], "big")}
        for offset, (name, _) in enumerate(HOP_FIELDS[1:]):
            hop[name] = octets[start + 2 + offset]
        hops.append(hop)
    return hops


def hop_in_words(hop: "dict[str, int]") -> str:
    """One hop of a path for people: who, at which cost, over which medium each way."""
    media = [name_of(MEDIA, hop[name]) for name in ("rx_media", "tx_media")]
    text = f"0x{hop['address']:04X}, link cost {hop['link_cost']}, phase difference {hop['phase_difference']}"
    if hop["metric_not_supported"]:
        text += ", metric not supported"
    return text + f", received over {media[0]}, sent over {media[1]}"
