"""Alarms and application errors of a meter (EN 13757-3, CI-fields 6E to 71, 74 and 75): a code, as a record."""

from __future__ import annotations

from concentrator.wmbus.layers import Content
from concentrator.wmbus.record import NO_RECORDS, Function, Record, RecordHeader, RecordList
from concentrator.wmbus.security import DECRYPTION_CHECK
from concentrator.wmbus.vif import Kind

# EN 13757-3 table of application errors.
APPLICATION_ERRORS: dict[int, str] = {
    0: "unspecified",
    1: "unimplemented_ci_field",
    2: "buffer_too_long",
    3: "too_many_records",
    4: "premature_end_of_record",
    5: "more_than_ten_difes",
    6: "more_than_ten_vifes",
    8: "application_busy",
    9: "too_many_readouts",
    16: "access_denied",
    17: "unknown_command",
    18: "invalid_parameter",
    19: "unknown_receiver",
    20: "decryption_failed",
    21: "encryption_not_supported",
    22: "signature_not_supported",
}


def read_report(content: Content, payload: bytes) -> RecordList:
    """The record of an alarm (its bits) or an application error (its code and name)."""
    payload = payload.removeprefix(DECRYPTION_CHECK)
    if not payload:
        return NO_RECORDS
    code = payload[0]
    alarm = content is Content.ALARM
    header = RecordHeader(
        octets=b"",
        coding=1,
        function=Function.INSTANTANEOUS,
        storage=0,
        tariff=0,
        subunit=0,
        quantity="alarm_state" if alarm else "application_error",
        unit="",
        exponent=0,
        kind=Kind.UNSIGNED,
        qualifiers=() if alarm or code not in APPLICATION_ERRORS else (APPLICATION_ERRORS[code],),
    )
    return RecordList((Record(header, code, 0, True, payload[:1]),))
