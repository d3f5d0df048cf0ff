"""The devices behind a simulated G3 coordinator, and what its tables tell of them: routes, neighbours, POS, RF POS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from concentrator.simulator.device import Device
from concentrator.simulator.feeder import Feeder, FeederNode
from plc.g3 import ib

_MODULATION_CODES = {"D8PSK": 3, "DQPSK": 2, "DBPSK": 1, "robust": 0}
_REVERSE_LOSS_LQI = 8  # the other side hears us a little worse: assumption


@dataclass(slots=True)
class G3Node:
    """A device at its place on the feeder."""

    device: Device
    place: FeederNode
    heard: bool = False
    short_address: int | None = None
    membership: tuple[int, bytes] | None = None  # PAN id and GMK it has joined with
    bootstrapping: bool = False
    routed: bool = False  # the coordinator has a route to it
    media: int = 0  # how it is spoken to: 0 PLC, 1 RF
    gone_at: float = 0.0
    visit: int = 0


class G3Tables:
    """The tables at one moment. `members` are the devices in the running network."""

    def __init__(
        self, members: Sequence[G3Node], by_place: Mapping[int, G3Node], feeder: Feeder, now: float
    ) -> None:
        self._members = members
        self._by_place = by_place
        self._feeder = feeder
        self._now = now

    def mac(self, attribute: int) -> list[bytes] | None:
        """The records of a table of the MAC; None when the attribute is none."""
        tables = {
            ib.MAC_POS_TABLE: self._pos_table,
            ib.MAC_NEIGHBOUR_TABLE: self._neighbours,
            ib.MAC_RF_POS_TABLE: self._rf_pos_table,
        }
        return tables[attribute]() if attribute in tables else None

    def near(self) -> list[G3Node]:
        """The members in the coordinator's own reach."""
        return [node for node in self._members if node.place.parent is None]

    def routes(self) -> list[bytes]:
        """The routing table."""
        entries: list[bytes] = []
        for node in self._members:
            if not node.routed or node.short_address is None:
                continue
            path = [self._by_place[place.index] for place in node.place.path()]
            entries.append(
                ib.encode_record(
                    "adp",
                    ib.ADP_ROUTING_TABLE,
                    destination=node.short_address,
                    next_hop=path[0].short_address or 0,
                    route_cost=20 * len(path),
                    hops_and_weak_links=len(path),
                    flags=0x03 | (0x20 if path[0].media else 0),
                    valid_time=360,
                )
            )
        return entries

    def _pos_table(self) -> list[bytes]:
        return [
            ib.encode_record(
                "mac",
                ib.MAC_POS_TABLE,
                short_address=node.short_address or 0,
                lqi=self._feeder.link_quality(node.place, self._now),
                valid_time=60,
            )
            for node in self.near()
        ]

    def _neighbours(self) -> list[bytes]:
        entries: list[bytes] = []
        for node in self.near():
            name = self._feeder.modulation(node.place, self._now).name
            entries.append(
                ib.encode_record(
                    "mac",
                    ib.MAC_NEIGHBOUR_TABLE,
                    short_address=node.short_address or 0,
                    tone_map=bytes(3),
                    modulation=_MODULATION_CODES[name],
                    tx_gain=0,
                    tx_res=0,
                    tx_coefficients=bytes(6),
                    modulation_scheme=0,
                    phase_difference=node.place.index % 3,
                    lqi=max(0, self._feeder.link_quality(node.place, self._now) - _REVERSE_LOSS_LQI),
                    tmr_valid_time=60,
                )
            )
        return entries

    def _rf_pos_table(self) -> list[bytes]:
        """Those that are spoken to by radio, in a hybrid network."""
        return [
            ib.encode_record(
                "mac",
                ib.MAC_RF_POS_TABLE,
                short_address=node.short_address or 0,
                forward_lqi=self._feeder.link_quality(node.place, self._now),
                reverse_lqi=max(0, self._feeder.link_quality(node.place, self._now) - _REVERSE_LOSS_LQI),
                duty_cycle=10,
                forward_power_offset=0,
                reverse_power_offset=0,
                valid_time=60,
                reverse_valid_time=60,
            )
            for node in self.near()
            if node.media
        ]
