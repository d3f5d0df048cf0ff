"""The concentrator's own logical device: who it is, what time it has, which meters it has, how it does.

Objects with a place in the Blue Book stand there; the meter list and the statistics have codes of ours (value group C
from 128 on is the manufacturer's). What the box is set to is shown, and changed where it is set: in its configuration.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concentrator.config import Config
from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem.views import object_of_class
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis
from concentrator.uplink.stored_meters import (
    LOGICAL_DEVICE_NAME,
    SERIAL_NUMBER,
    StoredMeters,
    moment_octets,
    text,
)

MANAGEMENT_DEVICE = 1
SAP_ASSIGNMENT = Obis(0, 0, 41, 0, 0, 255)
CLOCK = Obis(0, 0, 1, 0, 0, 255)
FIRMWARE = Obis(0, 0, 0, 2, 0, 255)
EVENT_LOG = Obis(0, 0, 99, 98, 0, 255)
EVENT_CODE, EVENT_TEXT = Obis(0, 0, 96, 11, 0, 255), Obis(0, 0, 128, 3, 0, 255)
TCP_SETUP, IPV4_SETUP = Obis(0, 0, 25, 0, 0, 255), Obis(0, 0, 25, 1, 0, 255)
# Ours.
METER_LIST, STATISTICS = Obis(0, 0, 128, 1, 0, 255), Obis(0, 0, 128, 2, 0, 255)
_MANUFACTURER = "ODC"
# Numbers of the event log's codes; what has none is 0, with its name in the text.
EVENT_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            "service_started",
            "service_stopped",
            "clock_step",
            "clock_state",
            "modem_state",
            "radio_state",
            "destination_state",
            "store_state",
            "meter_state",
            "value_differs",
            "clock_shifted",
            "clock_set",
            "clock_wrong",
            "store_set_aside",
        ),
        1,
    )
}


@dataclass(frozen=True, slots=True)
class BoxState:
    """What changes, asked for when somebody reads it; called on the DLMS server's thread."""

    now: Callable[[], datetime]
    software: str
    health: Callable[[], dict[str, Any]]


def management_objects(config: Config, stored: StoredMeters, box: BoxState) -> list[CosemObject]:
    """The objects of the management logical device."""
    name = (_MANUFACTURER + config.concentrator.name).encode("ascii", "replace")[:16]
    return [
        data(LOGICAL_DEVICE_NAME, axdr.octet_string(name)),
        data(SERIAL_NUMBER, axdr.octet_string(config.concentrator.name.encode())),
        data(FIRMWARE, axdr.octet_string(box.software.encode())),
        _clock(box.now),
        CosemObject(17, SAP_ASSIGNMENT, {2: lambda: _sap_list(name, stored)}),
        data(METER_LIST, lambda: _meter_list(name, stored)),
        data(STATISTICS, lambda: axdr.visible_string(json.dumps(box.health(), separators=(",", ":")))),
        data(EVENT_CODE, lambda: axdr.unsigned(_last_event(stored))),
        data(EVENT_TEXT, axdr.visible_string("")),
        profile_object(EVENT_LOG, _EventRows(stored), capacity=1000),
        *_addresses(config),
    ]


def _clock(now: Callable[[], datetime]) -> CosemObject:
    return object_of_class(
        8,
        CLOCK,
        {
            "time": lambda: axdr.octet_string(CosemDateTime.from_datetime(now(), 0).to_bytes()),
            "time_zone": lambda: axdr.long(0),
            "status": lambda: axdr.unsigned(0),
        },
    )


def _sap_list(name: bytes, stored: StoredMeters) -> Data:
    devices = [(MANAGEMENT_DEVICE, name), *((meter.device, meter.name) for meter in stored.meters())]
    return axdr.array(
        *(axdr.structure(axdr.long_unsigned(sap), axdr.octet_string(text)) for sap, text in devices)
    )


def _meter_list(name: bytes, stored: StoredMeters) -> Data:
    """Our own name, and of each meter its name, logical device, identity, medium and state."""
    return axdr.structure(
        axdr.octet_string(name),
        axdr.array(
            *(
                axdr.structure(
                    axdr.octet_string(meter.name),
                    axdr.long_unsigned(meter.device),
                    axdr.visible_string(meter.identity),
                    axdr.visible_string(meter.medium),
                    axdr.visible_string(meter.state),
                )
                for meter in stored.meters()
            )
        ),
    )


def _last_event(stored: StoredMeters) -> int:
    events = stored.events(None, None)
    return EVENT_NUMBERS.get(events[-1][1], 0) if events else 0


def _addresses(config: Config) -> list[CosemObject]:
    settings = config.dlms
    if settings is None:
        return []
    try:
        address = int(ipaddress.IPv4Address(settings.host))
    except ValueError:
        address = 0
    return [
        object_of_class(
            41,
            TCP_SETUP,
            {
                "tcp_udp_port": lambda: axdr.long_unsigned(settings.port),
                "ip_reference": lambda: axdr.octet_string(bytes(IPV4_SETUP)),
                "nb_of_sim_conn": lambda: axdr.unsigned(min(settings.most_connections, 255)),
                "inactivity_time_out": lambda: axdr.long_unsigned(min(settings.idle_s, 0xFFFF)),
            },
        ),
        object_of_class(42, IPV4_SETUP, {"ip_address": lambda: axdr.double_long_unsigned(address)}),
    ]


class _EventRows:
    """The event log; entries count from the oldest that was asked for."""

    columns: Sequence[CaptureObject] = (
        CLOCK_COLUMN,
        CaptureObject(1, EVENT_CODE, 2),
        CaptureObject(1, EVENT_TEXT, 2),
    )
    period_s = 0

    def __init__(self, stored: StoredMeters) -> None:
        self._stored = stored
        self._found: list[tuple[int, str, str]] = []

    def entries(self) -> Sequence[int]:
        """All that are kept."""
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        """Those of a span."""
        first = None if start is None else int(start.timestamp())
        self._found = self._stored.events(first, None if end is None else int(end.timestamp()))
        return range(len(self._found))

    def cells(self, entry: int) -> Sequence[bytes]:
        """When, which code, and what."""
        at, code, detail = self._found[entry]
        number = EVENT_NUMBERS.get(code, 0)
        words = detail if number else f"{code}: {detail}"
        return [
            axdr.octet_string(moment_octets(at)).to_bytes(),
            axdr.unsigned(number).to_bytes(),
            text(words).to_bytes(),
        ]
