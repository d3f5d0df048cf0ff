"""Enumerations of the G3 host interface. Each is a tuple of rows (value, name)."""

BAND_CENELEC_A = 0
BANDS = ((0, "CENELEC-A"), (1, "CENELEC-B"), (2, "FCC"), (3, "ARIB"), (255, "RF only"))
ROLE_DEVICE = 0
ROLE_COORDINATOR = 1
ROLES = ((0, "device"), (1, "coordinator"))

SERIAL_SUCCESS = 0
SERIAL_NOT_ALLOWED = 1
SERIAL_UNKNOWN_COMMAND = 2
SERIAL_INVALID_PARAMETER = 3
# Of ADP_STATUS.
SERIAL_STATUSES = ((0, "success"), (1, "not allowed"), (2, "unknown command"), (3, "invalid parameter"))

ADP_SUCCESS = 0x00
ADP_ROUTE_ERROR = 0xA5
ADP_BAD_INDEX = 0xA7
ADP_STATUSES = (
    (0x00, "success"),
    (0xA1, "invalid request"),
    (0xA2, "failed"),
    (0xA3, "bad IPv6 frame"),
    (0xA4, "not permitted"),
    (0xA5, "route error"),
    (0xA6, "timeout"),
    (0xA7, "bad index"),
    (0xA8, "bad parameter"),
    (0xA9, "no beacon"),
    (0xB0, "read only"),
    (0xB1, "unsupported attribute"),
    (0xB2, "incomplete path"),
    (0xB3, "busy"),
    (0xB4, "no buffers"),
    (0xB5, "trickle redundant"),
    (0xFF, "internal error"),
)
# Of ADPD_DATA.confirm: worth sending again.
TRANSIENT_ADP_STATUSES = (0xA2, 0xA5, 0xA6, 0xB3, 0xB4, 0xFF)

MAC_SUCCESS = 0x00
MAC_BAD_INDEX = 0xF9
MAC_ALTERNATE_PAN = 0x80
MAC_STATUSES = (
    (0x00, "success"),
    (0x80, "alternate PAN detected"),
    (0xD0, "queue full"),
    (0xDB, "counter error"),
    (0xDF, "unsupported security"),
    (0xE1, "channel access failure"),
    (0xE2, "denied"),
    (0xE4, "security error"),
    (0xE5, "frame too long"),
    (0xE7, "bad handle"),
    (0xE8, "bad parameter"),
    (0xE9, "no acknowledgement"),
    (0xEC, "no short address"),
    (0xF1, "overflow"),
    (0xF3, "unavailable key"),
    (0xF4, "unsupported attribute"),
    (0xF9, "bad index"),
    (0xFA, "limit reached"),
    (0xFB, "read only"),
)

LBP_SUCCESS = 0
LBP_STATUSES = (
    (0, "success"),
    (1, "failed"),
    (2, "unsupported attribute"),
    (3, "bad index"),
    (4, "bad length"),
    (5, "bad value"),
)
LBP_ATTRIBUTES = (
    (0, "IDS"),
    (1, "IDP"),
    (2, "PSK"),
    (3, "GMK"),
    (4, "rekey GMK"),
    (5, "RANDP"),
    (6, "message timeout"),
)

MEDIA_PLC = 0
MEDIA = ((0, "PLC"), (1, "RF"))
MODULATIONS = ((0, "robust"), (1, "DBPSK"), (2, "DQPSK"), (3, "D8PSK"), (4, "16QAM"))
