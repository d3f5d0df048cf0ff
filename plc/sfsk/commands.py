"""Commands between a host and an S-FSK modem, as rows: those of ON Semiconductor's AMIS-49587 in master mode.

Source: its public data sheet. Numbers of two octets are little-endian there; credits and addresses of a MAC frame are
in the order of the air. What another vendor's modem (ST7570, NCN49597 with other firmware) needs is a table like this
one, and its envelope in place of plc/sfsk/framing.py: the layers above ask for nothing but a MAC frame to send, its
confirm, a MAC frame that came, a configuration and counters.
"""

from plc.commands import FROM_HOST, FROM_MODEM, REST, U8, U16_LITTLE, CommandTable

SYNCHRO_INDICATION = 0x10
DESYNCHRO_REQUEST = 0x11
RESET_REQUEST = 0x21
ACCESS_DB_REQUEST = 0x41
ACCESS_DB_CONFIRM = 0x42
ACCESS_DB_ERROR = 0x43
MA_DATA_INDICATION = 0x50
MA_DATA_REQUEST = 0x51
MA_DATA_CONFIRM = 0x52
MA_DATA_INDICATION_BAD_CRC = 0x53
ISA_REQUEST = 0x61
WRITE_CONFIG_REQUEST = 0x71
WRITE_CONFIG_CONFIRM = 0x72
WRITE_CONFIG_ERROR = 0x73

# Entries of the modem's data base.
DB_INVALID_FRAME_COUNTER = 0x0006
DB_MIN_DELTA_CREDIT = 0x0007
DB_REPEATER = 0x000B
DB_DATA_COUNTERS = 0x000D
DB_READ_CONFIG = 0x0012
DB_SOFT_VERSION = 0x0013
DB_ENTRIES = (
    (0x0000, "FIMA/LIMA"),
    (0x0001, "LocalMacAdd/InitMacAdd"),
    (0x0002, "Time-out-synchro-confirm"),
    (0x0003, "Time-out-frame-not-ok"),
    (0x0004, "Time-out-not-addressed"),
    (0x0005, "Mac-group-addresses"),
    (0x0006, "Invalid-frame-counter"),
    (0x0007, "Min-delta-credit"),
    (0x0008, "Max-transmitting-gain"),
    (0x0009, "Synchro-type-bit"),
    (0x000A, "Max-receiving-gain"),
    (0x000B, "Repeater"),
    (0x000C, "Frequency"),
    (0x000D, "Data-counters"),
    (0x000F, "PhyAlarmRequest"),
    (0x0010, "Data-stats"),
    (0x0011, "Time-search-initiator"),
    (0x0012, "ReadConfig"),
    (0x0013, "Soft-version"),
    (0x0014, "Min-receiving-gain"),
    (0x0015, "Gain-search-initiator"),
)
# Six counters of four octets each, in this order.
DATA_COUNTERS = (
    "crc_ok",
    "crc_not_ok",
    "repeated_frames",
    "transmitted_frames",
    "corrected_frames",
    "fi_not_ok",
)

TRANSMISSION_OK = 0xFF
TRANSMISSION_SYNTAX_ERROR = 0x03
TRANSMISSION_STATUSES = (
    (0x00, "LM_TU1: resources temporarily unavailable"),
    (0x03, "LM_SE: syntax error"),
    (0x0A, "LM_TU2: not authorised, or not synchronised with the mains"),
    (0x14, "LM_TU3: the modem is busy"),
    (0x1E, "LM_TU4: the modem is busy"),
    (0xFF, "OK"),
)
ERRORS = (
    (0x11, "unavailable resource"),
    (0x12, "request not allowed"),
    (0x21, "unavailable mode"),
    (0x22, "illegal data"),
    (0x23, "illegal local MAC address"),
    (0x24, "illegal initiator MAC address"),
    (0x25, "unavailable command"),
)
SYNCHRO_STATES = (
    (0x01, "synchronisation found"),
    (0x02, "synchronisation confirmed"),
    (0x04, "synchronisation lost"),
)

_MAC_FRAME = (("mac_frame", REST),)
_ENTRY = ("entry", U16_LITTLE)

ROWS = (
    (0x10, FROM_MODEM, "Synchro_Indication", (("state", U8),), (("data", REST),)),
    (0x11, FROM_HOST, "Desynchro_Request", (), ()),
    (0x21, FROM_HOST, "Reset_Request", (), ()),
    (0x41, FROM_HOST, "AccessDB_Request", (_ENTRY, ("value", REST)), ()),
    (0x42, FROM_MODEM, "AccessDB_Confirm", (_ENTRY, ("value", REST)), ()),
    (0x43, FROM_MODEM, "AccessDB_Error", (("error_code", U8),), ()),
    (0x50, FROM_MODEM, "MA_Data_Indication", _MAC_FRAME, ()),
    (0x51, FROM_HOST, "MA_Data_Request", _MAC_FRAME, ()),
    (0x52, FROM_MODEM, "MA_Data_Confirm", (("transmission_status", U8),), ()),
    (0x53, FROM_MODEM, "MA_Data_Indication_Bad_CRC", _MAC_FRAME, ()),
    (0x61, FROM_HOST, "ISA_Request", (("data", REST),), ()),
    (0x71, FROM_HOST, "WriteConfig_Request", (("config", REST),), ()),
    (0x72, FROM_MODEM, "WriteConfig_Confirm", (("config", REST),), ()),
    (0x73, FROM_MODEM, "WriteConfig_Error", (("error_code", U8),), ()),
)

COMMANDS = CommandTable("S-FSK modem", ROWS)

CONFIG_SIZE = 36
_MODE_MASTER = 0b001
# Bits per second at 50 Hz, and their code.
BAUD_RATES = ((300, 0), (600, 1), (1200, 2), (2400, 3))


def master_config(local_address: int, baud_rate: int) -> bytes:
    """The configuration that makes a modem a master (client) with an address, at 50 Hz.

    Carrier frequencies, gains and synchronisation keep the values of the data sheet's reference: frequencies are 0,
    which leaves the modem's own; 63.3 and 74 kHz are usual.
    """
    code = dict(BAUD_RATES)[baud_rate]
    config = b"".join(
        [
            value.to_bytes(2, "little")
            for value in (
                0xC00,
                0xDFF,
                local_address,
                0,
                0,
                0,
                0,
            )  # FIMA, LIMA, local, initiator, three time-outs
        ]
    )
    config += bytes(10)  # group addresses
    config += bytes(4)  # Fs, Fm
    config += bytes(
        (0, 0, _MODE_MASTER << 3 | code << 1, 0x01)
    )  # R_ZC_ADJUST, alarms and gain, R_CONF, synchro
    return config + bytes(CONFIG_SIZE - len(config))


def address_of_config(config: bytes) -> int | None:
    """The local MAC address of a configuration of a master; None when it is no master's."""
    if len(config) < CONFIG_SIZE or config[30] >> 3 & 7 != _MODE_MASTER:
        return None
    return int.from_bytes(config[4:6], "little")
