"""The COSEM interface classes, one declarative row for each version (DLMS UA Blue Book part 2, clause 4).

A row lists the attributes after logical_name with their types, and the methods, in the order of their
numbers. `!` marks an attribute that the standard means to be written, `-` a number that no method has any
more. An object of a class that is not listed still reads generically, by attribute number.
"""

from __future__ import annotations

from typing import NamedTuple


class Attribute(NamedTuple):
    """One attribute: its number, name, type in the words of the Blue Book, and whether clients set it."""

    number: int
    name: str
    type: str
    settable: bool = False


class InterfaceClass(NamedTuple):
    """One class in one version; `attributes` starts with logical_name, attribute 1."""

    class_id: int
    version: int
    name: str
    attributes: tuple[Attribute, ...]
    methods: tuple[str, ...]

    def attribute_name(self, number: int) -> str:
        """The name of an attribute, or `attribute N` where the standard names none."""
        if 1 <= number <= len(self.attributes):
            return self.attributes[number - 1].name
        return f"attribute {number}"

    def method_name(self, number: int) -> str:
        """The name of a method, or `method N`."""
        name = self.methods[number - 1] if 1 <= number <= len(self.methods) else "-"
        return f"method {number}" if name == "-" else name


_LOGICAL_NAME = Attribute(1, "logical_name", "octet-string")


def _row(class_id: int, version: int, name: str, attributes: str, methods: str = "") -> InterfaceClass:
    rows = [_LOGICAL_NAME]
    for number, text in enumerate(filter(None, (part.strip() for part in attributes.split(";"))), 2):
        attribute, kind = text.split(" ", 1)
        rows.append(Attribute(number, attribute.rstrip("!"), kind, attribute.endswith("!")))
    return InterfaceClass(class_id, version, name, tuple(rows), tuple(methods.split()))


def _rows(
    class_id: int, versions: tuple[int, ...], name: str, attributes: str, methods: str = ""
) -> list[InterfaceClass]:
    return [_row(class_id, version, name, attributes, methods) for version in versions]


# What versions of one class share.
_SN_METHODS = "- - read_by_logicalname - change_secret - - reply_to_hls_authentication"
_LN_ATTRIBUTES = (
    "object_list array; associated_partners_id structure; application_context_name CHOICE; "
    "xdlms_context_info structure; authentication_mechanism_name CHOICE; secret! octet-string; "
    "association_status enum"
)
_LN_METHODS = "reply_to_hls_authentication change_hls_secret add_object remove_object"
_CALLS = "mode! enum; repetitions! unsigned; repetition_delay! long-unsigned; calling_window! array"
_PUSH = (
    "push_object_list! array; send_destination_and_method! structure; communication_window! array; "
    "randomisation_start_interval! long-unsigned; number_of_retries! unsigned"
)
_PUSH_PROTECTED = "port_reference! octet-string; push_client_sap! integer; push_protection_parameters! array"
_MBUS_CLIENT = (
    "mbus_port_reference! octet-string; capture_definition! array; capture_period! double-long-unsigned; "
    "primary_address! unsigned; identification_number! double-long-unsigned; manufacturer_id! long-unsigned; "
    "version! unsigned; device_type! unsigned; access_number! unsigned; status! unsigned; alarm! unsigned"
)
_MBUS_CLIENT_METHODS = (
    "slave_install slave_deinstall capture reset_alarm synchronize_clock "
    "data_send set_encryption_key transfer_key"
)
_G3_MAC = (
    "mac_short_address! long-unsigned; mac_rc_coord! long-unsigned; mac_pan_id! long-unsigned; "
    "mac_key_table! array; mac_frame_counter! double-long-unsigned; mac_tone_mask! bit-string; "
    "mac_tmr_ttl! unsigned; mac_max_frame_retries! unsigned; mac_neighbour_table_entry_ttl! unsigned; "
    "mac_neighbour_table array; mac_high_priority_window_size! unsigned; mac_csma_fairness_limit! unsigned; "
    "mac_beacon_randomization_window_length! unsigned; mac_a! unsigned; mac_k! unsigned; "
    "mac_min_cw_attempts! unsigned; mac_cenelec_legacy_mode unsigned; mac_fcc_legacy_mode unsigned; "
    "mac_max_be! unsigned; mac_max_csma_backoffs! unsigned; mac_min_be! unsigned"
)
_G3_MAC_2 = "mac_broadcast_max_cw_enabled! boolean; mac_transmit_atten! unsigned; mac_pos_table array"
_G3_MAC_METHODS = "mac_get_neighbour_table_entry mac_get_pos_table_entry"
_G3_ADP = (
    "adp_max_hops! unsigned; adp_weak_lqi_value! unsigned; adp_security_level! unsigned; "
    "adp_prefix_table! array; adp_routing_configuration! array; "
    "adp_broadcast_log_table_entry_ttl! long-unsigned; adp_routing_table array; "
    "adp_context_information_table! array; adp_blacklist_table array; adp_broadcast_log_table array; "
    "adp_group_table! array; adp_max_join_wait_time! long-unsigned; adp_path_discovery_time! unsigned; "
    "adp_active_key_index! unsigned; adp_metric_type! unsigned; adp_coord_short_address! long-unsigned; "
    "adp_disable_default_routing! boolean; adp_device_type! enum"
)
_G3_ADP_2 = "adp_default_coord_route_enabled! boolean; adp_destination_address_set! array"

_ROWS = (
    _row(1, 0, "Data", "value CHOICE"),
    _row(3, 0, "Register", "value CHOICE; scaler_unit structure", "reset"),
    _row(4, 0, "Extended register", "value CHOICE; scaler_unit structure; status CHOICE; "
         "capture_time octet-string",
         "reset"),
    _row(5, 0, "Demand register",
         "current_average_value CHOICE; last_average_value CHOICE; scaler_unit structure; status CHOICE; "
         "capture_time octet-string; start_time_current octet-string; period! double-long-unsigned; "
         "number_of_periods! long-unsigned", "reset next_period"),
    _row(6, 0, "Register activation",
         "register_assignment! array; mask_list! array; active_mask! octet-string",
         "add_register add_mask delete_mask"),
    _row(7, 0, "Profile generic",
         "buffer array; capture_objects! array; capture_period! double-long-unsigned; sort_method! enum; "
         "sort_object! structure; entries_in_use double-long-unsigned; profile_entries! double-long-unsigned",
         "reset capture get_buffer_by_range get_buffer_by_index"),
    _row(7, 1, "Profile generic",
         "buffer array; capture_objects! array; capture_period! double-long-unsigned; sort_method! enum; "
         "sort_object! structure; entries_in_use double-long-unsigned; profile_entries! double-long-unsigned",
         "reset capture"),
    _row(8, 0, "Clock",
         "time! octet-string; time_zone! long; status unsigned; daylight_savings_begin! octet-string; "
         "daylight_savings_end! octet-string; daylight_savings_deviation! integer; "
         "daylight_savings_enabled! boolean; clock_base enum",
         "adjust_to_quarter adjust_to_measuring_period adjust_to_minute adjust_to_preset_time "
         "preset_adjusting_time shift_time"),
    _row(9, 0, "Script table", "scripts! array", "execute"),
    _row(10, 0, "Schedule", "entries! array", "enable_disable insert delete"),
    _row(11, 0, "Special days table", "entries! array", "insert delete"),
    _row(12, 1, "Association SN", "object_list array", _SN_METHODS),
    _row(12, 2, "Association SN", "object_list array; access_rights_list array", _SN_METHODS),
    _row(12, 3, "Association SN",
         "object_list array; access_rights_list array; security_setup_reference octet-string", _SN_METHODS),
    _row(12, 4, "Association SN",
         "object_list array; access_rights_list array; security_setup_reference octet-string; "
         "user_list! array; current_user structure", _SN_METHODS + " add_user remove_user"),
    _row(15, 0, "Association LN", _LN_ATTRIBUTES, _LN_METHODS),
    _row(15, 1, "Association LN", _LN_ATTRIBUTES + "; security_setup_reference octet-string", _LN_METHODS),
    *_rows(15, (2, 3), "Association LN",
           _LN_ATTRIBUTES + "; security_setup_reference octet-string; user_list! array; current_user structure",
           _LN_METHODS + " add_user remove_user"),
    _row(17, 0, "SAP assignment", "sap_assignment_list array", "connect_logical_device"),
    _row(18, 0, "Image transfer",
         "image_block_size double-long-unsigned; image_transferred_blocks_status bit-string; "
         "image_first_not_transferred_block_number double-long-unsigned; image_transfer_enabled! boolean; "
         "image_transfer_status enum; image_to_activate_info array",
         "image_transfer_initiate image_block_transfer image_verify image_activate"),
    *_rows(19, (0, 1), "IEC local port setup",
         "default_mode! enum; default_baud! enum; prop_baud! enum; response_time! enum; "
         "device_addr! octet-string; "
         "pass_p1! octet-string; pass_p2! octet-string; pass_w5! octet-string"),
    _row(20, 0, "Activity calendar",
         "calendar_name_active octet-string; season_profile_active array; week_profile_table_active array; "
         "day_profile_table_active array; calendar_name_passive! octet-string; "
         "season_profile_passive! array; "
         "week_profile_table_passive! array; day_profile_table_passive! array; "
         "activate_passive_calendar_time! octet-string", "activate_passive_calendar"),
    _row(21, 0, "Register monitor", "thresholds! array; monitored_value! structure; actions! array"),
    _row(22, 0, "Single action schedule", "executed_script! structure; type! enum; execution_time! array"),
    *_rows(23, (0, 1), "IEC HDLC setup",
         "comm_speed! enum; window_size_transmit! unsigned; window_size_receive! unsigned; "
         "max_info_field_length_transmit! long-unsigned; max_info_field_length_receive! long-unsigned; "
         "inter_octet_time_out! long-unsigned; inactivity_time_out! long-unsigned; "
         "device_address! long-unsigned"),
    _row(24, 1, "IEC twisted pair (1) setup",
         "mode! enum; speed! enum; primary_address_list! array; tabi_list! array"),
    _row(25, 0, "M-Bus slave port setup",
         "default_baud! enum; avail_baud! enum; addr_state! enum; bus_address! unsigned"),
    _row(26, 0, "Utility tables", "table_id long-unsigned; length double-long-unsigned; buffer octet-string"),
    *_rows(27, (0, 1), "Modem configuration",
           "comm_speed! enum; initialization_string! array; modem_profile! array"),
    _row(28, 0, "Auto answer",
         "mode! enum; listening_window! array; status! enum; number_of_calls! unsigned; number_of_rings! structure"),
    _row(28, 2, "Auto answer",
         "mode! enum; listening_window! array; status! enum; number_of_calls! unsigned; number_of_rings! structure; "
         "list_of_allowed_callers! array"),
    _row(29, 0, "Auto dial", _CALLS + "; phone_list! array"),
    _row(29, 1, "Auto connect", _CALLS + "; destination_list! array"),
    _row(29, 2, "Auto connect", _CALLS + "; destination_list! array", "connect"),
    _row(30, 0, "Data protection",
         "protection_buffer octet-string; protection_object_list array; protection_parameters_get array; "
         "protection_parameters_set array; required_protection enum",
         "get_protected_attributes set_protected_attributes invoke_protected_method"),
    _row(40, 0, "Push setup", _PUSH + "; repetition_delay! long-unsigned", "push"),
    _row(40, 1, "Push setup", _PUSH + "; repetition_delay! long-unsigned; " + _PUSH_PROTECTED, "push"),
    *_rows(40, (2, 3), "Push setup",
           _PUSH + "; repetition_delay! structure; " + _PUSH_PROTECTED + "; push_operation_method! enum; "
           "confirmation_parameters! structure; last_confirmation_date_time date-time", "push reset"),
    _row(41, 0, "TCP-UDP setup",
         "tcp_udp_port! long-unsigned; ip_reference! octet-string; mss! long-unsigned; "
         "nb_of_sim_conn! unsigned; inactivity_time_out! long-unsigned"),
    _row(42, 0, "IPv4 setup",
         "dl_reference! octet-string; ip_address! double-long-unsigned; multicast_ip_address! array; "
         "ip_options! array; subnet_mask! double-long-unsigned; gateway_ip_address! double-long-unsigned; "
         "use_dhcp_flag! boolean; primary_dns_address! double-long-unsigned; "
         "secondary_dns_address! double-long-unsigned",
         "add_mc_ip_address delete_mc_ip_address get_nbof_mc_ip_addresses"),
    _row(43, 0, "MAC address setup", "mac_address! octet-string"),
    _row(44, 0, "PPP setup", "phy_reference! octet-string; lcp_options! array; ipcp_options! array; "
         "ppp_authentication! structure"),
    _row(45, 0, "GPRS modem setup", "apn! octet-string; pin_code! long-unsigned; "
         "quality_of_service! structure"),
    _row(46, 0, "SMTP setup",
         "server_port! long-unsigned; user_name! octet-string; login_password! octet-string; "
         "server_address! octet-string; sender_address! octet-string"),
    *_rows(47, (0, 1, 2), "GSM diagnostic",
         "operator visible-string; status enum; cs_attachment enum; ps_status enum; cell_info structure; "
         "adjacent_cells array; capture_time date-time"),
    _row(48, 0, "IPv6 setup",
         "dl_reference! octet-string; address_config_mode! enum; unicast_ipv6_addresses! array; "
         "multicast_ipv6_addresses! array; gateway_ipv6_addresses! array; primary_dns_address! octet-string; "
         "secondary_dns_address! octet-string; traffic_class! unsigned; neighbor_discovery_setup! array",
         "add_ipv6_address remove_ipv6_address"),
    _row(50, 1, "S-FSK Phy&MAC set-up",
         "initiator_electrical_phase! enum; delta_electrical_phase enum; max_receiving_gain! unsigned; "
         "max_transmitting_gain! unsigned; search_initiator_threshold! unsigned; frequencies! structure; "
         "mac_address! long-unsigned; mac_group_addresses! array; repeater! enum; repeater_status boolean; "
         "min_delta_credit unsigned; initiator_mac_address long-unsigned; synchronization_locked boolean; "
         "transmission_speed! enum"),
    _row(51, 0, "S-FSK Active initiator", "active_initiator structure", "reset_nedl_state"),
    _row(52, 0, "S-FSK MAC synchronization timeouts",
         "search_initiator_timeout! long-unsigned; synchronization_confirmation_timeout! long-unsigned; "
         "time_out_not_addressed! long-unsigned; time_out_frame_not_ok! long-unsigned"),
    _row(53, 0, "S-FSK MAC counters",
         "synchronization_register array; desynchronization_listing structure; "
         "broadcast_frames_counter array; "
         "repetitions_counter double-long-unsigned; transmissions_counter double-long-unsigned; "
         "crc_ok_frames_counter double-long-unsigned; crc_nok_frames_counter double-long-unsigned", "reset"),
    _row(55, 1, "IEC 61334-4-32 LLC setup", "max_frame_length unsigned; reply_status_list array"),
    _row(56, 0, "IEC 8802-2 LLC type 1 setup", "max_octets_ui_pdu! long-unsigned"),
    _row(57, 0, "IEC 8802-2 LLC type 2 setup",
         "transmit_window_size_k! unsigned; transmit_window_size_rw! unsigned; max_octets_i_pdu_n1! long-unsigned; "
         "max_number_transmissions_n2! unsigned; acknowledgement_timer! long-unsigned; p_bit_timer! long-unsigned; "
         "reject_timer! long-unsigned; busy_state_timer! long-unsigned"),
    _row(58, 0, "IEC 8802-2 LLC type 3 setup",
         "max_octets_acn_pdu_n3! long-unsigned; max_number_transmissions_n4! unsigned; "
         "acknowledgement_time_t1! long-unsigned; receive_lifetime_var_t2! long-unsigned; "
         "transmit_lifetime_var_t3! long-unsigned"),
    _row(61, 0, "Register table",
         "table_cell_values CHOICE; table_cell_definition structure; scaler_unit structure", "reset capture"),
    _row(63, 0, "Status mapping", "status_word CHOICE; mapping_table structure"),
    *_rows(62, (0, 1), "Compact data",
           "compact_buffer octet-string; capture_objects! array; template_id unsigned; "
           "template_description octet-string; capture_method! enum", "reset capture"),
    _row(64, 0, "Security setup",
         "security_policy! enum; security_suite! enum; client_system_title! octet-string; "
         "server_system_title octet-string", "security_activate global_key_transfer"),
    _row(64, 1, "Security setup",
         "security_policy! enum; security_suite! enum; client_system_title! octet-string; "
         "server_system_title octet-string; certificates array",
         "security_activate key_transfer key_agreement generate_key_pair generate_certificate_request "
         "import_certificate export_certificate remove_certificate"),
    _row(65, 0, "Parameter monitor",
         "changed_parameter structure; capture_time date-time; parameter_list! array",
         "add_parameter delete_parameter"),
    _row(65, 1, "Parameter monitor",
         "changed_parameter structure; capture_time date-time; parameter_list! array; "
         "parameter_list_name! octet-string; hash_algorithm_id! enum; parameter_value_digest octet-string; "
         "parameter_values structure", "add_parameter delete_parameter"),
    _row(67, 0, "Sensor manager",
         "serial_number octet-string; metrological_identification octet-string; output_type enum; "
         "adjustment_method octet-string; sealing_method enum; raw_value CHOICE; scaler_unit structure; "
         "status CHOICE; capture_time date-time; raw_value_thresholds! array; raw_value_actions! array; "
         "processed_value structure; processed_value_thresholds! array; processed_value_actions! array", "reset"),
    _row(68, 0, "Arbitrator",
         "actions array; permissions_table! array; weightings_table! array; "
         "most_recent_requests_table! array; "
         "last_outcome unsigned", "request_action reset"),
    _row(70, 0, "Disconnect control", "output_state boolean; control_state enum; control_mode! enum",
         "remote_disconnect remote_reconnect"),
    _row(71, 0, "Limiter",
         "monitored_value! structure; threshold_active CHOICE; threshold_normal! CHOICE; "
         "threshold_emergency! CHOICE; min_over_threshold_duration! double-long-unsigned; "
         "min_under_threshold_duration! double-long-unsigned; emergency_profile! structure; "
         "emergency_profile_group_id_list! array; emergency_profile_active boolean; actions! structure"),
    _row(72, 0, "M-Bus client", _MBUS_CLIENT, _MBUS_CLIENT_METHODS),
    *_rows(72, (1, 2), "M-Bus client",
           _MBUS_CLIENT + "; configuration! long-unsigned; encryption_key_status! enum", _MBUS_CLIENT_METHODS),
    _row(73, 1, "Wireless Mode Q channel", "addr_state enum; device_address octet-string; "
         "address_mask octet-string"),
    _row(74, 0, "DLMS M-Bus master port setup", "comm_speed! enum"),
    _row(76, 0, "DLMS server M-Bus port setup",
         "mbus_profile_selection! octet-string; mbus_port_communication_status enum; "
         "mbus_data_header_type enum; primary_address! unsigned; identification_number double-long-unsigned; "
         "manufacturer_id long-unsigned; mbus_version unsigned; device_type unsigned; "
         "max_pdu_size long-unsigned; "
         "listening_window! array"),
    _row(77, 0, "M-Bus diagnostic",
         "received_signal_strength unsigned; channel_id unsigned; link_status enum; "
         "broadcast_frames_counter array; "
         "transmissions_counter double-long-unsigned; fcs_ok_frames_counter double-long-unsigned; "
         "fcs_nok_frames_counter double-long-unsigned; capture_time structure", "reset"),
    _row(80, 0, "61334-4-32 LLC SSCS setup", "service_node_address long-unsigned; "
         "base_node_address long-unsigned",
         "reset"),
    _row(81, 0, "PRIME NB OFDM PLC physical layer counters",
         "phy_stats_crc_incorrect_count long-unsigned; phy_stats_crc_fail_count long-unsigned; "
         "phy_stats_tx_drop_count long-unsigned; phy_stats_rx_drop_count long-unsigned", "reset"),
    _row(82, 0, "PRIME NB OFDM PLC MAC setup",
         "mac_min_switch_search_time! unsigned; mac_max_promotion_pdu! unsigned; "
         "mac_promotion_pdu_tx_period! unsigned; "
         "mac_beacons_per_frame! unsigned; mac_scp_max_tx_attempts! unsigned; mac_ctl_re_tx_timer! unsigned; "
         "mac_max_ctl_re_tx! unsigned"),
    _row(83, 0, "PRIME NB OFDM PLC MAC functional parameters",
         "mac_lnid long; mac_lsid unsigned; mac_sid unsigned; mac_sna octet-string; mac_state enum; "
         "mac_scp_length long; mac_node_hierarchy_level unsigned; mac_beacon_slot_count unsigned; "
         "mac_beacon_rx_slot unsigned; mac_beacon_tx_slot unsigned; mac_beacon_rx_frequency unsigned; "
         "mac_beacon_tx_frequency unsigned; mac_capabilities long-unsigned"),
    _row(84, 0, "PRIME NB OFDM PLC MAC counters",
         "mac_tx_data_pkt_count double-long-unsigned; mac_rx_data_pkt_count double-long-unsigned; "
         "mac_tx_ctrl_pkt_count double-long-unsigned; mac_rx_ctrl_pkt_count double-long-unsigned; "
         "mac_csma_fail_count double-long-unsigned; mac_csma_ch_busy_count double-long-unsigned", "reset"),
    _row(85, 0, "PRIME NB OFDM PLC MAC network administration data",
         "mac_list_multicast_entries array; mac_list_switch_table array; mac_list_direct_table array; "
         "mac_list_available_switches array; mac_list_phy_comm array", "reset"),
    _row(86, 0, "PRIME NB OFDM PLC applications identification",
         "firmware_version octet-string; vendor_id long-unsigned; product_id long-unsigned"),
    _row(90, 1, "G3-PLC MAC layer counters",
         "mac_tx_data_packet_count double-long-unsigned; mac_rx_data_packet_count double-long-unsigned; "
         "mac_tx_cmd_packet_count double-long-unsigned; mac_rx_cmd_packet_count double-long-unsigned; "
         "mac_csma_fail_count double-long-unsigned; mac_csma_no_ack_count double-long-unsigned; "
         "mac_bad_crc_count double-long-unsigned; mac_tx_data_broadcast_count double-long-unsigned; "
         "mac_rx_data_broadcast_count double-long-unsigned", "reset"),
    _row(91, 1, "G3-PLC MAC setup", _G3_MAC, "mac_get_neighbour_table_entry"),
    _row(91, 2, "G3-PLC MAC setup", _G3_MAC + "; " + _G3_MAC_2, _G3_MAC_METHODS),
    _row(91, 3, "G3-PLC MAC setup",
         _G3_MAC + "; " + _G3_MAC_2 + "; mac_duplicate_detection_ttl! unsigned", _G3_MAC_METHODS),
    _row(92, 1, "G3-PLC 6LoWPAN adaptation layer setup", _G3_ADP),
    _row(92, 2, "G3-PLC 6LoWPAN adaptation layer setup", _G3_ADP + "; " + _G3_ADP_2),
    _row(92, 3, "G3-PLC 6LoWPAN adaptation layer setup",
         _G3_ADP + "; " + _G3_ADP_2 + "; adp_low_lqi_value! unsigned; adp_high_lqi_value! unsigned"),
    _row(100, 0, "NTP setup",
         "activated! boolean; server_address! octet-string; server_port! long-unsigned; "
         "authentication_method! enum; authentication_keys! array; client_key! octet-string",
         "synchronize add_authentication_key delete_authentication_key"),
    _row(111, 0, "Account",
         "account_mode_and_status structure; current_credit_in_use unsigned; "
         "current_credit_status bit-string; "
         "available_credit double-long; amount_to_clear double-long; clearance_threshold! double-long; "
         "aggregated_debt double-long; credit_reference_list! array; charge_reference_list! array; "
         "credit_charge_configuration! array; token_gateway_configuration! array; "
         "account_activation_time! octet-string; account_closure_time! octet-string; currency! structure; "
         "low_credit_threshold! double-long; next_credit_available_threshold! double-long; "
         "max_provision! long-unsigned; max_provision_period! double-long",
         "activate_account close_account reset_account"),
    _row(112, 0, "Credit",
         "current_credit_amount double-long; credit_type! enum; priority! unsigned; "
         "warning_threshold! double-long; "
         "limit! double-long; credit_configuration! bit-string; credit_status enum; "
         "preset_credit_amount! double-long; credit_available_threshold! double-long; period! octet-string",
         "update_amount set_amount_to_value invoke_credit"),
    _row(113, 0, "Charge",
         "total_amount_paid double-long; charge_type! enum; priority! unsigned; "
         "unit_charge_active structure; "
         "unit_charge_passive! structure; unit_charge_activation_time! octet-string; "
         "period! double-long-unsigned; charge_configuration! bit-string; last_collection_time octet-string; "
         "last_collection_amount double-long; total_amount_remaining double-long; proportion! long-unsigned",
         "update_unit_charge activate_passive_unit_charge collect update_total_amount_remaining "
         "set_total_amount_remaining"),
    _row(115, 0, "Token gateway",
         "token octet-string; token_time octet-string; token_description array; token_delivery_method enum; "
         "token_status structure", "enter"),
    _row(122, 0, "Function control", "activation_status array; function_list array",
         "set_function_status add_function remove_function"),
    _row(123, 0, "Array manager", "array_object_list! array",
         "retrieve_number_of_entries retrieve_entries insert_entry update_entry remove_entries"),
    _row(124, 0, "Communication port protection",
         "protection_mode! enum; allowed_failed_attempts! long-unsigned; "
         "initial_lockout_time! double-long-unsigned; steepness_factor! unsigned; "
         "max_lockout_time! double-long-unsigned; port_reference! octet-string; protection_status enum; "
         "failed_attempts double-long-unsigned; cumulative_failed_attempts double-long-unsigned", "reset"),
    _row(151, 0, "LTE monitoring", "lte_network_parameters structure; lte_quality_of_service structure"),
)  # fmt: skip

# The newest version of each class.
CLASSES: dict[int, InterfaceClass] = {row.class_id: row for row in _ROWS}
VERSIONS: dict[tuple[int, int], InterfaceClass] = {(row.class_id, row.version): row for row in _ROWS}


def interface_class(class_id: int, version: int | None = None) -> InterfaceClass:
    """The row of a class in a version; the newest one that is not newer where that version is not listed.

    Without a version it is the newest, since versions mostly add attributes at the end. A class that is not listed
    gets a row that knows only logical_name.
    """
    newest = CLASSES.get(class_id)
    if newest is None:
        return InterfaceClass(class_id, version or 0, f"class {class_id}", (_LOGICAL_NAME,), ())
    if version is None:
        return newest
    known = [number for listed, number in VERSIONS if listed == class_id and number <= version]
    return VERSIONS[class_id, max(known)] if known else newest
