"""PRIME information base: attribute ids, their sizes, and the records of list attributes.

Attributes of the PHY (0x00Ax, 0x00Bx, 0x1xxx, 0x808x to 0x809x) are asked for with PLME_GET, all others with
MLME_GET. Values of 2 and 4 octets are big-endian, every other size is raw octets. Layouts that are not in
public source (0x2000, 0x2050, 0x2056, 0x2059, 0x005A) have no row: their records stay raw.
"""

from plc.commands import EUI48, U8, U16
from plc.errors import MessageError

EUI48_PRODUCTION = 0x8100
MAC_EUI48 = 0x001F
MAC_STATE = 0x0024
PLC_STATE = 0x8101
PLC_STATE_BASE = 4
MAC_SECURITY_PROFILE = 0x8141
PHY_SOFTWARE_VERSION = 0x8080
DEVICE_UNIQUE_KEY = 0x8140
WHITELIST_ENABLED = 0x8151
LIST_REGISTERED_DEVICES = 0x0050
LIST_432_NODES = 0x8250
LISTS_PHY = (0x0059, 0x0057)
# Unregisters the node of the EUI-48 that is its value. The layout of the value is not in public source.
ACTION_UNREGISTER = 0x006D
# Demotes the switch of the EUI-48 that is its value; the layout is assumed likewise.
ACTION_DEMOTE = 0x0066

# (id, name, octets of the value, 0 = varies)
ATTRIBUTES = (
    (0x001F, "mac_eui48", 6),
    (0x0020, "mac_lnid", 2),
    (0x0021, "mac_lsid", 1),
    (0x0022, "mac_sid", 1),
    (0x0023, "mac_sna", 6),
    (0x0024, "mac_state", 1),
    (0x0025, "mac_scp_length", 2),
    (0x0026, "mac_hierarchy_level", 1),
    (0x002D, "mac_frame_length", 2),
    (0x002E, "mac_cfp_length", 2),
    (0x0032, "mac_beacon_rx_quality", 2),
    (0x0033, "mac_beacon_tx_quality", 2),
    (0x0040, "mac_tx_data_packets", 4),
    (0x0041, "mac_rx_data_packets", 4),
    (0x0042, "mac_tx_control_packets", 4),
    (0x0043, "mac_rx_control_packets", 4),
    (0x0044, "mac_csma_fail", 4),
    (0x0045, "mac_channel_busy", 4),
    (0x0046, "mac_rf_csma_fail", 4),
    (0x0047, "mac_rf_channel_busy", 4),
    (0x0061, "action_close_connection", 0),
    (0x0062, "action_reject_registration", 0),
    (0x0064, "action_unregister_node", 0),
    (0x0065, "action_promote", 0),
    (0x0066, "action_demote", 0),
    (0x0067, "action_reject", 0),
    (0x006D, "action_unregister", 6),
    (0x006E, "action_close_connections", 0),
    (0x0075, "firmware_version", 16),
    (0x0076, "vendor_id", 2),
    (0x0077, "product_id", 2),
    (0x00A0, "phy_crc_incorrect", 2),
    (0x00A1, "phy_crc_fail", 2),
    (0x00A2, "phy_tx_drop", 2),
    (0x00A3, "phy_rx_drop", 2),
    (0x00A4, "phy_rx_total", 4),
    (0x00A5, "phy_average_evm", 2),
    (0x00A8, "phy_ema_smoothing", 1),
    (0x00B0, "phy_tx_queue_length", 2),
    (0x00B1, "phy_rx_queue_length", 2),
    (0x00B2, "phy_tx_processing_delay", 4),
    (0x00B3, "phy_rx_processing_delay", 4),
    (0x8080, "phy_software_version", 4),
    (0x8081, "phy_zero_cross_time", 4),
    (0x8082, "host_version", 4),
    (0x8090, "phy_tx_channel", 1),
    (0x8092, "phy_channel_list", 1),
    (0x8100, "eui48_production", 6),
    (0x8101, "plc_state", 1),
    (0x8103, "registration_rss", 1),
    (0x8126, "mac_software_version", 4),
    (0x8140, "device_unique_key", 22),
    (0x8141, "security_profile", 1),
    (0x8151, "whitelist_enabled", 1),
    (0x8201, "cl_software_version", 4),
)

# Counters that read_diagnostics() asks for.
DIAGNOSTIC_ATTRIBUTES = (
    0x0040, 0x0041, 0x0042, 0x0043, 0x0044, 0x0045, 0x00A0, 0x00A1, 0x00A2, 0x00A3, 0x00A4, 0x00A5,
)  # fmt: skip
VERSION_ATTRIBUTES = (0x8126, 0x8080, 0x8201)
# Lists that read_diagnostics() asks for; which of the two PHY tables a modem has depends on its release.
DIAGNOSTIC_LISTS = (0x0052, 0x0053, 0x0058, 0x0057, 0x0059)
# What read_node_diagnostics() asks a node for.
NODE_ATTRIBUTES = (
    0x001F, 0x0020, 0x0021, 0x0022, 0x0023, 0x0026, 0x0075, 0x0076, 0x0077, 0x0040, 0x0041, 0x0042, 0x0043, 0x0044,
    0x0045,
)  # fmt: skip
# These attributes are texts.
_TEXTS = (0x0075, 0x0076, 0x0077)

OCTETS_16 = -16

# List attribute -> (name, fields of one record).
RECORDS = (
    (0x0050, "registered_devices",
     (("eui48", EUI48), ("lnid", U16), ("state", U8), ("lsid", U8), ("sid", U8), ("level", U8),
      ("terminal_capabilities", U8), ("switch_capabilities", U8))),
    (0x0051, "active_connections", (("sid", U8), ("lnid", U16), ("lcid", U16), ("eui48", EUI48))),
    (0x0058, "active_connections_extended",
     (("sid", U16), ("lnid", U16), ("lcid", U16), ("eui48", EUI48), ("connection_type", U8))),
    (0x0052, "multicast_entries", (("lcid", U16), ("members", U16))),
    (0x0053, "switch_table", (("lnid", U16), ("lsid", U8), ("sid", U8), ("alive_time", U8))),
    (0x0055, "direct_table",
     (("source_sid", U8), ("source_lnid", U16), ("source_lcid", U16), ("destination_sid", U8),
      ("destination_lnid", U16), ("destination_lcid", U16), ("eui48", EUI48))),
    (0x0056, "available_switches",
     (("sna", EUI48), ("lsid", U8), ("level", U8), ("rx_level", U8), ("rx_snr", U8))),
    (0x0057, "phy_communication",
     (("lnid", U16), ("sid", U8), ("tx_power", U8), ("rx_level", U8), ("snr", U8), ("tx_modulation", U8),
      ("phy_capability", U8), ("rx_age", U16))),
    (0x0059, "phy_communication",
     (("lnid", U16), ("sid", U8), ("tx_power", U8), ("rx_level", U8), ("snr", U8), ("tx_modulation", U8),
      ("phy_capability", U8), ("rx_age", U16))),
    (0x8250, "nodes_432", (("address", U16), ("serial", OCTETS_16), ("serial_length", U8), ("eui48", EUI48))),
)  # fmt: skip


def is_phy(pib: int) -> bool:
    """Tell whether an attribute belongs to the PHY, that is to PLME_GET and PLME_SET."""
    return 0x00A0 <= pib <= 0x00BF or 0x1000 <= pib <= 0x1FFF or 0x8080 <= pib <= 0x809F


def attribute_name(pib: int) -> str:
    """The name of an attribute or list; its id in hexadecimal when it has no row."""
    for row in ATTRIBUTES:
        if row[0] == pib:
            return row[1]
    for row in RECORDS:
        if row[0] == pib:
            return row[1]
    return f"0x{pib:04X}"


def attribute_size(pib: int) -> int:
    """Octets of the value of an attribute; 0 when it varies or is not known."""
    for row in ATTRIBUTES:
        if row[0] == pib:
            return row[2]
    return 0


def value_in_words(pib: int, value: bytes) -> str:
    """A value for people: text where it is text, a number up to four octets, hexadecimal beyond."""
    if pib in _TEXTS:
        return "".join([chr(octet) for octet in value if 0x20 <= octet < 0x7F]).strip()
    if pib in VERSION_ATTRIBUTES or len(value) > 4:
        return value.hex()
    return str(int.from_bytes(value, "big"))


def record_fields(pib: int) -> tuple[tuple[str, int], ...]:
    """The fields of one record of a list. Raises MessageError for a list of unknown layout."""
    for row in RECORDS:
        if row[0] == pib:
            return row[2]
    raise MessageError(f"the records of list attribute 0x{pib:04X} have no public layout")


def record_size(pib: int) -> int:
    """Octets of one record. Raises MessageError for a list of unknown layout."""
    return sum([abs(kind) for _, kind in record_fields(pib)])


def decode_records(pib: int, data: bytes) -> "list[dict[str, int | bytes]]":
    """Take the records of a list apart; a last one that is cut off is left out.

    Raises MessageError for a list of unknown layout.
    """
    fields = record_fields(pib)
    size = record_size(pib)
    records: "list[dict[str, int | bytes]]" = []
    for start in range(0, len(data) - size + 1, size):
        record: "dict[str, int | bytes]" = {}
        position = start
        for name, kind in fields:
            octets = data[position : position + abs(kind)]
            record[name] = int.from_bytes(octets, "big") if kind > 0 else octets
            position += abs(kind)
        records.append(record)
    return records


def encode_record(pib: int, **values: "int | bytes") -> bytes:
    """Make one record. Raises MessageError for a list of unknown layout."""
    record = b""
    for name, kind in record_fields(pib):
        value = values[name]
        record += value.to_bytes(kind, "big") if isinstance(value, int) else value
    return record
