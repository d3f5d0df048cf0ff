"""G3 information bases: attribute ids of ADP and MAC, and the records of their tables.

Scalars of 1, 2 and 4 octets are big-endian on the wire. The ids of manufacturer attributes depend on the
firmware's release. The flag bits of a routing entry are inferred, not documented.
"""

from plc.commands import U8, U16, U32
from plc.errors import MessageError

# ADP.
ADP_CONTEXT_INFORMATION = 0x07
ADP_ROUTING_TABLE = 0x0C
ADP_MAX_HOPS = 0x0F
ADP_ROUTING_TABLE_ENTRY_TTL = 0x12
ADP_SOFT_VERSION = 0x1C
ADP_ACTIVE_KEY_INDEX = 0x22
ADP_MANUFACTURER_VERSION = 0x080000CE

# MAC.
MAC_PAN_ID = 0x50
MAC_SHORT_ADDRESS = 0x53
MAC_KEY_TABLE = 0x71
MAC_FRAME_COUNTER = 0x77
MAC_POS_TABLE = 0x120
MAC_NEIGHBOUR_TABLE = 0x10A
MAC_RF_POS_TABLE = 0x21D
MAC_DEVICE_TABLE = 0x08000000
MAC_EXTENDED_ADDRESS = 0x08000001
ADP_BLACKLIST_TABLE = 0x1E
ADP_GROUP_TABLE = 0x0E
ADP_PREFIX_TABLE = 0x01
# PSK of generation A.
ADP_PSK_GENERATION_A = 0x080000C2

ADP_ATTRIBUTES = (
    (0x01, "adp_prefix_table"),
    (0x04, "adp_low_lqi_value"),
    (0x05, "adp_high_lqi_value"),
    (0x07, "adp_context_information"),
    (0x08, "adp_coordinator_short_address"),
    (0x0B, "adp_broadcast_log_table"),
    (0x0C, "adp_routing_table"),
    (0x0E, "adp_group_table"),
    (0x0F, "adp_max_hops"),
    (0x10, "adp_device_type"),
    (0x12, "adp_routing_table_entry_ttl"),
    (0x13, "adp_kr"),
    (0x14, "adp_km"),
    (0x15, "adp_kc"),
    (0x16, "adp_kq"),
    (0x17, "adp_kh"),
    (0x1A, "adp_weak_lqi_value"),
    (0x1B, "adp_krt"),
    (0x1C, "adp_soft_version"),
    (0x1E, "adp_blacklist_table"),
    (0x1F, "adp_blacklist_table_entry_ttl"),
    (0x20, "adp_max_join_wait_time"),
    (0x22, "adp_active_key_index"),
    (0x24, "adp_default_coord_route_enabled"),
    (0x27, "adp_rreq_jitter_low_lqi"),
    (0x28, "adp_rreq_jitter_high_lqi"),
    (0xF0, "adp_disable_default_routing"),
    (0x080000C2, "adp_manufacturer_psk"),
    (0x080000C3, "adp_manufacturer_pan_id"),
    (0x080000C8, "adp_manufacturer_routing_table_count"),
    (0x080000CB, "adp_manufacturer_lqi_to_coordinator"),
    (0x080000CE, "adp_manufacturer_version"),
    (0x080000CF, "adp_manufacturer_circular_routes"),
    (0x080000D1, "adp_manufacturer_destination_short_address"),
    (0x080000D4, "adp_manufacturer_short_address"),
    (0x080000D6, "adp_manufacturer_queued_entries_removed_timeout"),
    (0x080000D7, "adp_manufacturer_queued_entries_removed_route_error"),
    (0x080000E3, "adp_manufacturer_routing_table_element"),
    (0x080000E6, "adp_manufacturer_last_phase_difference"),
)

MAC_ATTRIBUTES = (
    (0x50, "mac_pan_id"),
    (0x53, "mac_short_address"),
    (0x71, "mac_key_table"),
    (0x77, "mac_frame_counter"),
    (0x101, "mac_tx_data_packet_count"),
    (0x102, "mac_rx_data_packet_count"),
    (0x103, "mac_tx_cmd_packet_count"),
    (0x104, "mac_rx_cmd_packet_count"),
    (0x105, "mac_csma_fail_count"),
    (0x106, "mac_csma_no_ack_count"),
    (0x107, "mac_rx_data_broadcast_count"),
    (0x108, "mac_tx_data_broadcast_count"),
    (0x109, "mac_bad_crc_count"),
    (0x10A, "mac_neighbour_table"),
    (0x10D, "mac_tmr_ttl"),
    (0x10E, "mac_pos_table_entry_ttl"),
    (0x10F, "mac_rc_coord"),
    (0x110, "mac_tone_mask"),
    (0x120, "mac_pos_table"),
    (0x122, "mac_recent_pos_entries"),
    (0x207, "mac_rf_frame_counter"),
    (0x21D, "mac_rf_pos_table"),
    (0x08000000, "mac_device_table"),
    (0x08000001, "mac_extended_address"),
    (0x08000002, "mac_manufacturer_neighbour_table"),
    (0x08000012, "mac_neighbour_table_count"),
    (0x0800001E, "mac_pos_table_count"),
    (0x08000027, "mac_manufacturer_pos_table"),
)

# Counters that read_diagnostics() asks for.
DIAGNOSTIC_MAC_ATTRIBUTES = (
    0x101,
    0x102,
    0x103,
    0x104,
    0x105,
    0x106,
    0x107,
    0x108,
    0x109,
    0x08000012,
    0x0800001E,
)
DIAGNOSTIC_ADP_ATTRIBUTES = (0x080000C8, 0x080000CF, 0x080000D6, 0x080000D7)

# Tables that read_diagnostics() walks, entry by entry.
DIAGNOSTIC_TABLES = (
    ("adp", ADP_ROUTING_TABLE),
    ("adp", ADP_BLACKLIST_TABLE),
    ("adp", ADP_GROUP_TABLE),
    ("mac", MAC_NEIGHBOUR_TABLE),
    ("mac", MAC_POS_TABLE),
    ("mac", MAC_RF_POS_TABLE),
)

# A tone map takes three octets, the coefficients of a neighbour six.
_TONE_MAP = -3
_COEFFICIENTS = -6
_PREFIX = -16

# (layer, attribute, fields of one record)
RECORDS = (
    ("adp", 0x0B, (("source", U16), ("sequence", U8), ("ttl", U16))),
    ("adp", 0x0C,
     (("destination", U16), ("next_hop", U16), ("route_cost", U16), ("hops_and_weak_links", U8),
      ("flags", U8), ("valid_time", U16))),
    ("adp", 0x01,
     (("prefix_length", U8), ("on_link", U8), ("autonomous", U8), ("valid_lifetime", U32),
      ("preferred_lifetime", U32), ("prefix", _PREFIX))),
    ("adp", 0x0E, (("address", U16), ("valid", U8))),
    ("adp", 0x1E, (("address", U16), ("media", U8), ("valid_time", U16))),
    ("mac", 0x10A,
     (("short_address", U16), ("tone_map", _TONE_MAP), ("modulation", U8), ("tx_gain", U8), ("tx_res", U8),
      ("tx_coefficients", _COEFFICIENTS), ("modulation_scheme", U8), ("phase_difference", U8), ("lqi", U8),
      ("tmr_valid_time", U16))),
    ("mac", 0x120, (("short_address", U16), ("lqi", U8), ("valid_time", U16))),
    ("mac", 0x21D,
     (("short_address", U16), ("forward_lqi", U8), ("reverse_lqi", U8), ("duty_cycle", U8),
      ("forward_power_offset", U8), ("reverse_power_offset", U8), ("valid_time", U16),
      ("reverse_valid_time", U16))),
    ("mac", 0x08000000, (("pan_id", U16), ("short_address", U16), ("frame_counter", U32))),
)  # fmt: skip

_SAME_RECORDS = ((0x080000E3, 0x0C), (0x08000002, 0x10A), (0x08000027, 0x120))


def attribute_name(layer: str, attribute: int) -> str:
    """The name of an attribute of "adp" or "mac"; its id in hexadecimal when it has no row."""
    for candidate, name in ADP_ATTRIBUTES if layer == "adp" else MAC_ATTRIBUTES:
        if candidate == attribute:
            return name
    return f"0x{attribute:08X}"


def record_fields(layer: str, attribute: int) -> "tuple[tuple[str, int], ...]":
    """The fields of a table's record; none for an attribute that is no table or has no public layout."""
    for alias, original in _SAME_RECORDS:
        if attribute == alias:
            attribute = original
    for row in RECORDS:
        if row[0] == layer and row[1] == attribute:
            return row[2]
    return ()


def decode_record(layer: str, attribute: int, octets: bytes) -> "dict[str, int | bytes]":
    """Take one record of a table apart. Raises MessageError when it is too short or its layout is unknown."""
    fields = record_fields(layer, attribute)
    record: "dict[str, int | bytes]" = {}
    position = 0
    for name, kind in fields:
        part = octets[position : position + abs(kind)]
        position += abs(kind)
        record[name] = int.from_bytes(part, "big") if kind > 0 else part
    if not fields or position > len(octets):
        raise MessageError(f"{attribute_name(layer, attribute)}: {len(octets)} octets are no record")
    return record


def encode_record(layer: str, attribute: int, **values: "int | bytes") -> bytes:
    """Make one record of a table."""
    record = b""
    for name, kind in record_fields(layer, attribute):
        value = values[name]
        record += value.to_bytes(kind, "big") if isinstance(value, int) else value
    return record


# The flag bits of a routing entry, inferred from the order of the structure in memory: confirm on hardware.
ROUTE_FLAGS = (
    (0x01, "valid sequence number"),
    (0x02, "bidirectional"),
    (0x04, "RREP sent"),
    (0x20, "over RF"),
    (0x40, "is router"),
)


def record_in_words(layer: str, attribute: int, record: "dict[str, int | bytes]") -> str:
    """One record of a table for people."""
    words: list[str] = []
    for name, _ in record_fields(layer, attribute):
        value = record[name]
        if isinstance(value, bytes):
            words.append(name + "=" + value.hex())
        elif name == "hops_and_weak_links":
            words.append(f"hops={value & 0x0F}")
            words.append(f"weak_links={value >> 4}")
        elif name == "flags":
            flags = [text for bit, text in ROUTE_FLAGS if value & bit]
            words.append("flags=" + ("+".join(flags) or "none"))
        elif "address" in name or name in ("destination", "next_hop"):
            words.append(f"{name}=0x{value:04X}")
        else:
            words.append(f"{name}={value}")
    return ", ".join(words)


def media_of_route(record: "dict[str, int | bytes]") -> str:
    """The medium of a routing entry's next hop: "rf" or "plc", by the flag inferred above."""
    flags = record.get("flags")
    return "rf" if isinstance(flags, int) and flags & 0x20 else "plc"


def hop_count(record: "dict[str, int | bytes]") -> int:
    """The hop count of a routing entry: the low four bits of an octet that it shares with the weak links."""
    value = record["hops_and_weak_links"]
    return value & 0x0F if isinstance(value, int) else 0
