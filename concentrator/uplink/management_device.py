"""The concentrator's own logical device: who it is, what time it has, which meters it has, how it does.

Objects with a place in the Blue Book stand there; the meter list and the statistics have codes of ours. What the box is
set to is shown, and changed where it is set: in its configuration. Its clock follows NTP, and is set by nobody else.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concentrator.config import Config
from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data
from concentrator.dlms.cosem.objects import CosemObject, data, register
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.cosem.views import object_of_class
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.uplink.event_logs import event_log_objects
from concentrator.uplink.management_names import (
    ALARM_REGISTER,
    CLOCK,
    DAY_FIGURES,
    DAY_PROFILE,
    DESTINATION_STATISTICS,
    ERROR_REGISTER,
    FIRMWARE,
    HEAD_END_STATISTICS,
    IPV4_SETUP,
    IPV6_SETUP,
    LINK_STATISTICS,
    METER_LIST,
    OLDEST_UNSENT,
    SAP_ASSIGNMENT,
    STATISTICS,
    TCP_SETUP,
    WAITING_READINGS,
)
from concentrator.uplink.stored_meters import (
    LOGICAL_DEVICE_NAME,
    SERIAL_NUMBER,
    StoredMeters,
    moment_octets,
    text,
)

MANAGEMENT_DEVICE = 1
_MANUFACTURER = "ODC"
_COUNT, _SECOND = 255, 7
_UNSYNCHRONISED = 0x02
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class LinkState:
    """A way to meters: its state in words, its counters, and the share of its meters that can be reached."""

    name: str
    state: str
    counters: Mapping[str, int]
    availability_pct: float | None = None


@dataclass(frozen=True, slots=True)
class BoxFaults:
    """What is wrong now, as bits: of the box itself, and of its ways to meters and destinations."""

    errors: int = 0
    alarms: int = 0


@dataclass(frozen=True, slots=True)
class BoxState:
    """What changes, asked for when somebody reads it; called on the DLMS server's thread.

    `links` are the ways to meters, `destinations` the state of each by name, `head_ends` counts of connections.
    `more` gives objects that others make: push setups, image transfer.
    """

    now: Callable[[], datetime]
    software: str
    health: Callable[[], dict[str, Any]]
    links: Callable[[], Sequence[LinkState]] = tuple
    destinations: Callable[[], Mapping[str, str]] = dict
    head_ends: Callable[[], Mapping[str, int]] = dict
    faults: Callable[[], BoxFaults] = BoxFaults
    synchronised: Callable[[], bool] = lambda: True
    more: Callable[[], Sequence[CosemObject]] = field(default=tuple)


def management_objects(config: Config, stored: StoredMeters, box: BoxState) -> list[CosemObject]:
    """The objects of the management logical device."""
    name = (_MANUFACTURER + config.concentrator.name).encode("ascii", "replace")[:16]
    return [
        data(LOGICAL_DEVICE_NAME, axdr.octet_string(name)),
        data(SERIAL_NUMBER, axdr.octet_string(config.concentrator.name.encode())),
        data(FIRMWARE, axdr.octet_string(box.software.encode())),
        _clock(box),
        CosemObject(17, SAP_ASSIGNMENT, {2: lambda: _sap_list(name, stored)}),
        data(METER_LIST, lambda: _meter_list(name, stored)),
        data(ERROR_REGISTER, lambda: axdr.double_long_unsigned(box.faults().errors)),
        data(ALARM_REGISTER, lambda: axdr.double_long_unsigned(box.faults().alarms)),
        *_statistics(stored, box),
        *event_log_objects(stored),
        *_addresses(config),
        *box.more(),
    ]


def _clock(box: BoxState) -> CosemObject:
    def status() -> int:
        return 0 if box.synchronised() else _UNSYNCHRONISED

    def time() -> Data:
        now = CosemDateTime.from_datetime(box.now(), 0)._replace(status=status())
        return axdr.octet_string(now.to_bytes())

    return object_of_class(
        8,
        CLOCK,
        {"time": time, "time_zone": lambda: axdr.long(0), "status": lambda: axdr.unsigned(status())},
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


# Statistics


def _statistics(stored: StoredMeters, box: BoxState) -> list[CosemObject]:
    def waiting() -> Data:
        return axdr.double_long_unsigned(sum(one.pending_readings for one in stored.destinations()))

    def oldest() -> Data:
        ages = [_age_s(one.oldest_unsent_at, box) for one in stored.destinations()]
        return axdr.double_long_unsigned(max(ages, default=0))

    def last_day() -> Data:
        days = stored.day_figures(None, None)
        return text(days[-1][1] if days else "")

    return [
        data(STATISTICS, lambda: axdr.visible_string(json.dumps(box.health(), separators=(",", ":")))),
        data(LINK_STATISTICS, lambda: axdr.array(*(_link(one) for one in box.links()))),
        data(DESTINATION_STATISTICS, lambda: _destinations(stored, box)),
        data(HEAD_END_STATISTICS, lambda: _counts(box.head_ends())),
        register(WAITING_READINGS, waiting, 0, _COUNT),
        register(OLDEST_UNSENT, oldest, 0, _SECOND),
        data(DAY_FIGURES, last_day),
        profile_object(DAY_PROFILE, _DayRows(stored), capacity=_CAPACITY_DAYS),
    ]


_CAPACITY_DAYS = 400


def _age_s(moment: datetime | None, box: BoxState) -> int:
    return 0 if moment is None else max(0, round((box.now() - moment).total_seconds()))


def _counts(counters: Mapping[str, int]) -> Data:
    return axdr.array(
        *(
            axdr.structure(text(name), axdr.double_long_unsigned(count & 0xFFFFFFFF))
            for name, count in list(counters.items())
        )
    )


def _link(link: LinkState) -> Data:
    """Name, state, counters, and the share of meters that can be reached in tenths of a per cent, or null-data."""
    share = link.availability_pct
    known = axdr.NULL if share is None else axdr.long_unsigned(round(share * 10))
    return axdr.structure(text(link.name), text(link.state), _counts(link.counters), known)


def _destinations(stored: StoredMeters, box: BoxState) -> Data:
    """Name, state, batches and readings that wait, and the age of the oldest in seconds."""
    states = box.destinations()
    return axdr.array(
        *(
            axdr.structure(
                text(one.name),
                text(states.get(one.name, "not configured")),
                axdr.double_long_unsigned(one.pending_batches),
                axdr.double_long_unsigned(one.pending_readings),
                axdr.double_long_unsigned(_age_s(one.oldest_unsent_at, box)),
            )
            for one in stored.destinations()
        )
    )


class _DayRows:
    """The figures of days, as JSON: what docs/quality.md calls them."""

    columns: Sequence[CaptureObject] = (CLOCK_COLUMN, CaptureObject(1, DAY_FIGURES, 2))
    period_s = _DAY_S

    def __init__(self, stored: StoredMeters) -> None:
        self._stored = stored
        self._found: list[tuple[int, str]] = []

    def entries(self) -> Sequence[int]:
        """All that are kept."""
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        """Those of a span."""
        first = None if start is None else int(start.timestamp())
        self._found = self._stored.day_figures(first, None if end is None else int(end.timestamp()))
        return range(len(self._found))

    def cells(self, entry: int) -> Sequence[bytes]:
        """The day's beginning, and its figures."""
        day, figures = self._found[entry]
        return [
            axdr.octet_string(moment_octets(day)).to_bytes(),
            axdr.visible_string(figures.encode("ascii", "replace").decode()).to_bytes(),
        ]


def _addresses(config: Config) -> list[CosemObject]:
    """Where we listen: of an address that is not told, nothing is made up."""
    settings = config.dlms
    if settings is None:
        return []
    try:
        address = ipaddress.ip_address(settings.host)
    except ValueError:
        address = ipaddress.IPv4Address(0)
    ip_setup = IPV6_SETUP if address.version == 6 else IPV4_SETUP  # noqa: PLR2004 - IP's version
    port_setup = object_of_class(
        41,
        TCP_SETUP,
        {
            "tcp_udp_port": lambda: axdr.long_unsigned(settings.port),
            "ip_reference": lambda: axdr.octet_string(bytes(ip_setup)),
            "nb_of_sim_conn": lambda: axdr.unsigned(min(settings.most_connections, 255)),
            "inactivity_time_out": lambda: axdr.long_unsigned(min(settings.idle_s, 0xFFFF)),
        },
    )
    if isinstance(address, ipaddress.IPv6Address):
        unicast = axdr.array(axdr.octet_string(address.packed))
        return [port_setup, object_of_class(48, IPV6_SETUP, {"unicast_ipv6_addresses": lambda: unicast})]
    number = int(address)
    return [
        port_setup,
        object_of_class(42, IPV4_SETUP, {"ip_address": lambda: axdr.double_long_unsigned(number)}),
    ]
