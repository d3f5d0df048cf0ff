"""PRIME_API: every command between a host and a PRIME base node modem, as rows.

USI protocol 0x30. The authority for the order of fields is the modem application `prime_base_1_4_modem` of
Microchip's smartenergy_prime_apps; differences of older firmware are optional fields. A row marked UNUSED has
an id, but the base-node application neither sends nor accepts it, and its fields are not public.
"""

from plc.commands import (
    DATA8,
    DATA16,
    EUI48,
    FROM_HOST,
    FROM_MODEM,
    MAC_THEN_1,
    REST,
    U8,
    U16,
    U32,
    UNUSED,
    CommandTable,
)

CON_ESTABLISH_REQUEST = 0x01
CON_ESTABLISH_INDICATION = 0x02
CON_ESTABLISH_CONFIRM = 0x03
CON_ESTABLISH_RESPONSE = 0x04
CON_JOIN_REQUEST = 0x09
CON_JOIN_INDICATION = 0x0A
CON_JOIN_RESPONSE = 0x0B
CON_JOIN_CONFIRM = 0x0C
CON_LEAVE_REQUEST = 0x0D
CON_LEAVE_CONFIRM = 0x0E
CON_LEAVE_INDICATION = 0x0F
CON_DATA_REQUEST = 0x10
CON_DATA_CONFIRM = 0x11
CON_DATA_INDICATION = 0x12
PLME_RESET_REQUEST = 0x13
PLME_RESET_CONFIRM = 0x14
PLME_GET_REQUEST = 0x1B
PLME_GET_CONFIRM = 0x1C
PLME_SET_REQUEST = 0x1D
PLME_SET_CONFIRM = 0x1E
MLME_PROMOTE_REQUEST = 0x25
MLME_PROMOTE_CONFIRM = 0x26
MLME_RESET_REQUEST = 0x2B
MLME_RESET_CONFIRM = 0x2C
MLME_GET_REQUEST = 0x2D
MLME_GET_CONFIRM = 0x2E
MLME_LIST_GET_REQUEST = 0x2F
MLME_LIST_GET_CONFIRM = 0x30
MLME_SET_REQUEST = 0x31
MLME_SET_CONFIRM = 0x32
CL_432_RELEASE_REQUEST = 0x35
CL_432_DL_DATA_REQUEST = 0x37
CL_432_DL_DATA_INDICATION = 0x38
CL_432_DL_DATA_CONFIRM = 0x39
CL_432_JOIN_INDICATION = 0x3A
CL_432_LEAVE_INDICATION = 0x3B
FU_CLEAR_TARGETS_REQUEST = 0x3D
FU_ADD_TARGET_REQUEST = 0x3E
FU_FIRMWARE_DATA_REQUEST = 0x3F
FU_OPTIONS_REQUEST = 0x40
FU_INIT_FILE_REQUEST = 0x41
FU_DATA_FRAME_REQUEST = 0x42
FU_CHECK_CRC_REQUEST = 0x43
FU_ABORT_REQUEST = 0x44
FU_START_REQUEST = 0x45
FU_MATCH_RULE_REQUEST = 0x46
FU_GET_VERSION_REQUEST = 0x47
FU_GET_STATE_REQUEST = 0x48
FU_ACK = 0x49
FU_STATUS_INDICATION = 0x4A
FU_ERROR_INDICATION = 0x4B
FU_VERSION_INDICATION = 0x4C
FU_KILL_INDICATION = 0x4D
FU_SIGNATURE_DATA_REQUEST = 0x4E
NETWORK_EVENT_INDICATION = 0x4F
PPROF_GET_REQUEST = 0x50
PPROF_SET_REQUEST = 0x51
PPROF_RESET_STATISTICS_REQUEST = 0x52
PPROF_REBOOT_REQUEST = 0x53
PPROF_ZERO_CROSS_RESPONSE = 0x58
PPROF_ZERO_CROSS_DIFFERENCE_REQUEST = 0x59
PPROF_ZERO_CROSS_DIFFERENCE_RESPONSE = 0x5A
MLME_MULTI_PHY_PROMOTE_REQUEST = 0x6E
MLME_MULTI_PHY_PROMOTE_CONFIRM = 0x6F
PPROF_ACK = 0x55
PPROF_GET_RESPONSE = 0x56
PPROF_ENHANCED_GET_REQUEST = 0x54
PPROF_ENHANCED_GET_RESPONSE = 0x57
WHITELIST_ADD_REQUEST = 0x5B
WHITELIST_REMOVE_REQUEST = 0x5C
WHITELIST_ACK = 0x5D

# 4-32 addresses that name no single node.
BROADCAST_ADDRESS = 0x0FFF
INVALID_ADDRESS = 0xFFFF
# Entries of the 4-32 list from here on are not nodes.
FIRST_RESERVED_ADDRESS = 0x0FFE
# The modem takes whole messages shorter than 1021 octets, 8 of which are the fields of
# CL_432_DL_DATA.request.
LARGEST_APDU = 1012

_HANDLE = ("handle", U16)
_EUI = ("eui48", EUI48)
_RESULT = ("result", U8)
_AE = ("authenticated_encryption", U8)
_DATA = ("data", DATA16)
_TYPE = ("connection_type", U8)
_PIB = ("pib", U16)
_VALUE = ("value", DATA8)
_BODY = (("body", REST),)
_PCH = (("pch", U16),)
_ADDRESS = ("address", U16)
_DESTINATION_LSAP = ("destination_lsap", U8)
_SOURCE_LSAP = ("source_lsap", U8)
_DESTINATION_ADDRESS = ("destination_address", U16)
_VENDOR_MODEL_VERSION = (("vendor", DATA8), ("model", DATA8), ("version", DATA8))

ROWS = (
    (0x01, FROM_HOST, "CON_ESTABLISH.request",
     (_EUI, _TYPE, _DATA, ("arq", U8), ("cf_bytes", U8), _AE), ()),
    (0x02, FROM_MODEM, "CON_ESTABLISH.indication", (_HANDLE, _EUI, _TYPE, _DATA, ("cf_bytes", U8), _AE), ()),
    (0x03, FROM_MODEM, "CON_ESTABLISH.confirm", (_HANDLE, _RESULT, _EUI, _TYPE, _DATA, _AE), ()),
    (0x04, FROM_HOST, "CON_ESTABLISH.response", (_HANDLE, ("answer", U8), _DATA, _AE), ()),
    (0x05, FROM_HOST, "CON_RELEASE.request", (_HANDLE,), ()),
    (0x06, FROM_MODEM, "CON_RELEASE.indication", (_HANDLE, ("reason", U8)), ()),
    (0x07, FROM_MODEM, "CON_RELEASE.confirm", (_HANDLE, _RESULT), ()),
    (0x08, FROM_HOST, "CON_RELEASE.response", (_HANDLE, ("answer", U8)), ()),
    (0x09, FROM_HOST, "CON_JOIN.request", (("mode", U8), _HANDLE, _EUI, _TYPE, _DATA, _AE), ()),
    (0x0A, FROM_MODEM, "CON_JOIN.indication", (_HANDLE, _EUI, _TYPE, _DATA, _AE), ()),
    (0x0B, FROM_HOST, "CON_JOIN.response", (_HANDLE, _EUI, ("answer", U8), _AE), ()),
    (0x0C, FROM_MODEM, "CON_JOIN.confirm", (_HANDLE, _RESULT, _AE), ()),
    (0x0D, FROM_HOST, "CON_LEAVE.request", (_HANDLE, _EUI), ()),
    (0x0E, FROM_MODEM, "CON_LEAVE.confirm", (_HANDLE, _RESULT), ()),
    (0x0F, FROM_MODEM, "CON_LEAVE.indication", (_HANDLE, _EUI), ()),
    (0x10, FROM_HOST, "CON_DATA.request", (_HANDLE, _DATA, ("priority", U8), ("time_reference", U32)), ()),
    (0x11, FROM_MODEM, "CON_DATA.confirm", (_HANDLE, ("buffer", U32), _RESULT), ()),
    (0x12, FROM_MODEM, "CON_DATA.indication", (_HANDLE, _DATA, ("time_reference", U32)), ()),
    (0x13, FROM_HOST, "PLME_RESET.request", (), _PCH),
    (0x14, FROM_MODEM, "PLME_RESET.confirm", (_RESULT,), _PCH),
    (0x15, FROM_HOST, "PLME_SLEEP.request", (), _PCH),
    (0x16, FROM_MODEM, "PLME_SLEEP.confirm", (_RESULT,), _PCH),
    (0x17, FROM_HOST, "PLME_RESUME.request", (), _PCH),
    (0x18, FROM_MODEM, "PLME_RESUME.confirm", (_RESULT,), _PCH),
    (0x19, UNUSED, "PLME_TESTMODE.request", _BODY, ()),
    (0x1A, UNUSED, "PLME_TESTMODE.confirm", _BODY, ()),
    (0x1B, FROM_HOST, "PLME_GET.request", (_PIB,), _PCH),
    (0x1C, FROM_MODEM, "PLME_GET.confirm", (_RESULT, _PIB, _VALUE), _PCH),
    (0x1D, FROM_HOST, "PLME_SET.request", (_PIB, _VALUE), _PCH),
    (0x1E, FROM_MODEM, "PLME_SET.confirm", (_RESULT,), _PCH),
    (0x1F, UNUSED, "MLME_REGISTER.request", _BODY, ()),
    (0x20, UNUSED, "MLME_REGISTER.confirm", _BODY, ()),
    (0x21, UNUSED, "MLME_REGISTER.indication", _BODY, ()),
    # The 2021 host sends this with an EUI-48 to expel a node; the current base node does not take it.
    (0x22, UNUSED, "MLME_UNREGISTER.request", _BODY, ()),
    (0x23, UNUSED, "MLME_UNREGISTER.confirm", _BODY, ()),
    (0x24, UNUSED, "MLME_UNREGISTER.indication", _BODY, ()),
    (0x25, FROM_HOST, "MLME_PROMOTE.request", (_EUI, ("beacon_mode", U8)), ()),
    (0x26, FROM_MODEM, "MLME_PROMOTE.confirm", (_RESULT,), ()),
    (0x28, UNUSED, "MLME_DEMOTE.request", _BODY, ()),
    (0x29, UNUSED, "MLME_DEMOTE.confirm", _BODY, ()),
    (0x2A, UNUSED, "MLME_DEMOTE.indication", _BODY, ()),
    (0x2B, FROM_HOST, "MLME_RESET.request", (), ()),
    (0x2C, FROM_MODEM, "MLME_RESET.confirm", (_RESULT,), ()),
    (0x2D, FROM_HOST, "MLME_GET.request", (_PIB,), ()),
    (0x2E, FROM_MODEM, "MLME_GET.confirm", (_RESULT, _PIB, _VALUE), ()),
    (0x2F, FROM_HOST, "MLME_LIST_GET.request", (_PIB,), ()),
    (0x30, FROM_MODEM, "MLME_LIST_GET.confirm", (_RESULT, _PIB, ("records", DATA16)), ()),
    (0x31, FROM_HOST, "MLME_SET.request", (_PIB, _VALUE), ()),
    (0x32, FROM_MODEM, "MLME_SET.confirm", (_RESULT,), ()),
    (0x33, UNUSED, "CL_432_ESTABLISH.request", _BODY, ()),
    (0x34, UNUSED, "CL_432_ESTABLISH.confirm", _BODY, ()),
    (0x35, FROM_HOST, "CL_432_RELEASE.request", (_ADDRESS,), ()),
    (0x36, UNUSED, "CL_432_RELEASE.confirm", _BODY, ()),
    (0x37, FROM_HOST, "CL_432_DL_DATA.request",
     (_DESTINATION_LSAP, _SOURCE_LSAP, _DESTINATION_ADDRESS, _DATA, ("link_class", U8)), ()),
    (0x38, FROM_MODEM, "CL_432_DL_DATA.indication",
     (_DESTINATION_LSAP, _SOURCE_LSAP, _DESTINATION_ADDRESS, ("source_address", U16), _DATA,
      ("link_class", U8)),
     ()),
    (0x39, FROM_MODEM, "CL_432_DL_DATA.confirm",
     (_DESTINATION_LSAP, _SOURCE_LSAP, _DESTINATION_ADDRESS, ("transmit_status", U8)), ()),
    # Current firmware writes 8 octets of MAC address, the 2021 host reads 6; the EUI-48 is the first six of
    # them.
    (0x3A, FROM_MODEM, "CL_432_JOIN.indication",
     (("device_id", DATA8), _ADDRESS, ("mac", MAC_THEN_1), _AE), ()),
    (0x3B, FROM_MODEM, "CL_432_LEAVE.indication", (_ADDRESS,), ()),
    (0x3C, FROM_HOST, "CON_REDIRECT.response", (_HANDLE, _EUI, _DATA), ()),
    (0x3D, FROM_HOST, "FU_CLEAR_TARGETS.request", (), ()),
    (0x3E, FROM_HOST, "FU_ADD_TARGET.request", (_EUI,), ()),
    (0x3F, FROM_HOST, "FU_FIRMWARE_DATA.request", _VENDOR_MODEL_VERSION, ()),
    (0x40, FROM_HOST, "FU_OPTIONS.request",
     (("arq", U8), ("page_size", U8), ("multicast", U8), ("restart_delay_s", U32), ("safety_timer_s", U32)),
     ()),
    (0x41, FROM_HOST, "FU_INIT_FILE.request",
     (("frame_count", U16), ("file_size", U32), ("frame_size", U16), ("file_crc", U32)), ()),
    (0x42, FROM_HOST, "FU_DATA_FRAME.request", (("frame_number", U16), _DATA), ()),
    (0x43, FROM_HOST, "FU_CHECK_CRC.request", (), ()),
    (0x44, FROM_HOST, "FU_ABORT.request", (_EUI,), ()),
    (0x45, FROM_HOST, "FU_START.request", (("enable", U8),), ()),
    (0x46, FROM_HOST, "FU_MATCH_RULE.request", (("rules", U8),), ()),
    (0x47, FROM_HOST, "FU_GET_VERSION.request", (_EUI,), ()),
    (0x48, FROM_HOST, "FU_GET_STATE.request", (_EUI,), ()),
    (0x49, FROM_MODEM, "FU_ACK", (("echoed_command", U8), ("ack", U8), ("extra", U16)), ()),
    (0x4A, FROM_MODEM, "FU_STATUS.indication", (("state", U8), ("pages", U16), _EUI), ()),
    (0x4B, FROM_MODEM, "FU_ERROR.indication", (("error", U8), _EUI), ()),
    (0x4C, FROM_MODEM, "FU_VERSION.indication", (_EUI,) + _VENDOR_MODEL_VERSION, ()),
    (0x4D, FROM_MODEM, "FU_KILL.indication", (_EUI,), ()),
    (0x4E, FROM_HOST, "FU_SIGNATURE_DATA.request", (("algorithm", U8), ("length", U16)), ()),
    (0x4F, FROM_MODEM, "NETWORK_EVENT.indication",
     (("event", U8), _EUI, ("sid", U8), ("lnid", U16), ("lsid", U8), ("alive_rx", U8), ("alive_tx", U8),
      ("alive_time", U8)),
     (("pch", U16), ("pch_lsid", U16))),
    (0x50, FROM_HOST, "PPROF_GET.request", (_EUI, _DATA), ()),
    (0x51, FROM_HOST, "PPROF_SET.request", (_EUI, _DATA), ()),
    (0x52, FROM_HOST, "PPROF_RESET_STATISTICS.request", (_EUI,), ()),
    (0x53, FROM_HOST, "PPROF_REBOOT.request", (_EUI,), ()),
    (0x54, FROM_HOST, "PPROF_ENHANCED_GET.request", (_EUI, _DATA), ()),
    (0x55, FROM_MODEM, "PPROF_ACK", (("echoed_command", U8), ("ack", U8)), ()),
    (0x56, FROM_MODEM, "PPROF_GET.response", (_EUI, _DATA), ()),
    (0x57, FROM_MODEM, "PPROF_ENHANCED_GET.response", (_EUI, _DATA), ()),
    (0x58, FROM_MODEM, "PPROF_ZERO_CROSS.response", (_EUI, ("status", U8), ("time", U32)), ()),
    (0x59, FROM_HOST, "PPROF_ZERO_CROSS_DIFFERENCE.request", (_EUI,), ()),
    (0x5A, FROM_MODEM, "PPROF_ZERO_CROSS_DIFFERENCE.response",
     (_EUI, ("frequency_time", U32), ("difference_time", U32)), ()),
    (0x5B, FROM_HOST, "WHITELIST_ADD.request", (_EUI,), ()),
    (0x5C, FROM_HOST, "WHITELIST_REMOVE.request", (_EUI,), ()),
    (0x5D, FROM_MODEM, "WHITELIST_ACK", (("echoed_command", U8), ("ack", U8)), ()),
    (0x5E, FROM_MODEM, "DEBUG_REPORT.indication", (("error", U32),), ()),
    (0x6E, FROM_HOST, "MLME_MULTI_PHY_PROMOTE.request", (_EUI, ("beacon_mode", U8), ("pch", U16)), ()),
    (0x6F, FROM_MODEM, "MLME_MULTI_PHY_PROMOTE.confirm", (_RESULT,), ()),
)  # fmt: skip

COMMANDS = CommandTable("PRIME_API", ROWS)
