"""Logical names of the management logical device; value group C from 128 on is the manufacturer's, here ours."""

from __future__ import annotations

from concentrator.obis import Obis

SAP_ASSIGNMENT = Obis(0, 0, 41, 0, 0, 255)
CLOCK = Obis(0, 0, 1, 0, 0, 255)
FIRMWARE = Obis(0, 0, 0, 2, 0, 255)
TCP_SETUP, IPV4_SETUP, IPV6_SETUP = (
    Obis(0, 0, 25, 0, 0, 255),
    Obis(0, 0, 25, 1, 0, 255),
    Obis(0, 0, 25, 7, 0, 255),
)
ERROR_REGISTER, ALARM_REGISTER = Obis(0, 0, 97, 97, 0, 255), Obis(0, 0, 97, 98, 0, 255)
EVENT_LOG, ACCESS_LOG, COMMUNICATION_LOG, FIRMWARE_LOG = (
    Obis(0, 0, 99, 98, number, 255) for number in range(4)
)
EVENT_CODE, EVENT_TEXT = Obis(0, 0, 96, 11, 0, 255), Obis(0, 0, 128, 3, 0, 255)
METER_LIST, STATISTICS = Obis(0, 0, 128, 1, 0, 255), Obis(0, 0, 128, 2, 0, 255)
LINK_STATISTICS, DESTINATION_STATISTICS, HEAD_END_STATISTICS = (
    Obis(0, 0, 128, 2, number, 255) for number in (1, 2, 3)
)
WAITING_READINGS, OLDEST_UNSENT = Obis(0, 0, 128, 2, 4, 255), Obis(0, 0, 128, 2, 5, 255)
PUSH_SCALERS, PUSH_QUALITIES = Obis(0, 0, 128, 5, 1, 255), Obis(0, 0, 128, 5, 2, 255)
DAY_FIGURES, DAY_PROFILE = Obis(0, 0, 128, 2, 6, 255), Obis(0, 0, 99, 128, 0, 255)


def invocation_counter_name(index: int) -> Obis:
    """Where the highest invocation counter that came from the client with this index stands."""
    return Obis(0, 0, 43, 1, index, 255)


def push_setup_name(index: int) -> Obis:
    """The Push setup of the push destination with this index."""
    return Obis(0, 0, 25, 9, index, 255)
