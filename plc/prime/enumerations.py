"""Enumerations of PRIME_API: results, statuses, events. Each is a tuple of rows (value, name)."""

CONNECTION_TYPES = (
    (1, "IPv4 address resolution"),
    (2, "IPv4 unicast"),
    (3, "CL 4-32"),
    (4, "management"),
    (5, "IPv6 address resolution"),
    (6, "IPv6 unicast"),
)

CONNECTION_432 = 3
PLME_RESULTS = ((0, "success"), (1, "failed"), (2, "rejected"))

MLME_SUCCESS = 0
MLME_BAD_ATTRIBUTE = 11
MLME_READ_ONLY = 13
MLME_RESULTS = (
    (0, "success"),
    (1, "failed"),
    (2, "timeout"),
    (4, "no such device"),
    (8, "no SNA"),
    (9, "no switch or wrong medium"),
    (10, "redundant"),
    (11, "bad attribute"),
    (12, "out of range"),
    (13, "read only"),
    (15, "wrong LSID"),
)

CON_ESTABLISH_RESULTS = (
    (0, "success"),
    (1, "reject"),
    (2, "timeout"),
    (3, "no bandwidth"),
    (4, "no such device"),
    (5, "redirect failed"),
    (6, "not registered"),
    (7, "no more LCIDs"),
    (8, "direct connection unsupported"),
    (14, "security profile unsupported"),
    (0x80, "in progress"),
)

CON_DATA_RESULTS = (
    (0, "success"),
    (2, "timeout"),
    (0x80, "send error"),
    (0x81, "previous pending"),
    (0x82, "no buffers"),
    (0x83, "connection closed"),
    (0x84, "receiving"),
)

TRANSMIT_SUCCESS = 0x00
TRANSMIT_TIMEOUT = 0x02
TRANSMIT_BAD_ADDRESS = 0xC0
TRANSMIT_BAD_DESTINATION = 0xC3
# Of CL_432_DL_DATA.confirm.
TRANSMIT_STATUSES = (
    (0x00, "success"),
    (0x02, "timeout"),
    (0x80, "MAC sending"),
    (0x81, "MAC busy"),
    (0x82, "no buffers"),
    (0x83, "connection closed"),
    (0x84, "receiving"),
    (0xC0, "bad address"),
    (0xC1, "bad handler"),
    (0xC2, "busy"),
    (0xC3, "bad destination"),
)
# Worth sending again; with any other the node is gone.
TRANSIENT_TRANSMIT_STATUSES = (0x02, 0x80, 0x81, 0x82, 0x84, 0xC2)

EVENT_REGISTER = 0
EVENT_UNREGISTER = 1
EVENT_PROMOTE = 2
EVENT_DEMOTE = 3
EVENT_ALIVE = 4
EVENT_REBOOT = 5
EVENT_NO_DUK = 6
EVENT_UNKNOWN_NODE = 7
NETWORK_EVENTS = (
    (0, "register"),
    (1, "unregister"),
    (2, "promote"),
    (3, "demote"),
    (4, "alive"),
    (5, "reboot"),
    (6, "no device unique key"),
    (7, "unknown node"),
)

STATE_TERMINAL = 1
STATE_SWITCH = 2
NODE_STATES = ((1, "terminal"), (2, "switch"))

# PRIME's codes of the payload's modulation (ITU-T G.9904).
MODULATIONS = (
    (0, "DBPSK"), (1, "DQPSK"), (2, "D8PSK"), (4, "DBPSK_CC"), (5, "DQPSK_CC"), (6, "D8PSK_CC"), (12, "robust DBPSK"),
    (13, "robust DQPSK"),
)  # fmt: skip

FU_PAGE_SIZES = ((0, "automatic"), (1, "32"), (2, "64"), (3, "128"), (4, "192"))
FU_ACK_OK = 0
FU_ACK_CRC_ONGOING = 7
FU_ACKS = (
    (0, "ok"),
    (1, "error"),
    (2, "MAC error"),
    (3, "model error"),
    (4, "CRC error"),
    (5, "data error"),
    (6, "file CRC error"),
    (7, "CRC ongoing"),
    (8, "upgrade ongoing"),
)
FU_IDLE = 0
FU_RECEIVING = 1
FU_COMPLETE = 2
FU_COUNTDOWN = 3
FU_UPGRADE = 4
FU_EXCEPTION = 5
FU_STATES = (
    (0, "idle"),
    (1, "receiving"),
    (2, "complete"),
    (3, "countdown"),
    (4, "upgrade"),
    (5, "exception"),
    (0x7F, "unknown"),
)
ACKS = ((0, "ok"), (1, "error"))


def name_of(rows: tuple[tuple[int, str], ...], value: int) -> str:
    """The name of a value of an enumeration, or the value in hexadecimal."""
    for candidate, name in rows:
        if candidate == value:
            return name
    return f"0x{value:02X}"
