"""Which phase a meter hangs on, where the modem tells it: by the zero crossings of PRIME nodes.

A node tells how far its zero crossing lies behind the base node's. Of three phases each lies a third of a period
behind the next; zero crossings come twice a period, so that a half period is all that can be told apart.
"""

from __future__ import annotations

from concentrator.collection.balance_report import SEEN_PHASE_DETAIL
from concentrator.collection.registry import CollectedMeter
from concentrator.links.plc_link import PlcLink
from plc.errors import LocalPlcError
from plc.prime.base_node import BaseNode
from plc.prime.events import ZeroCrossRead

# By thirds of a half period: the phase of the modem itself, the one two thirds behind it, the one a third behind it.
_PHASES = ("L1", "L3", "L2")


def phase_of(half_period: int, difference: int) -> str:
    """The phase of a node, with L1 for that of the modem; "" where the times make no sense."""
    if half_period <= 0:
        return ""
    thirds = 3 * (difference % half_period) / half_period
    nearest = round(thirds)
    return _PHASES[nearest % 3] if abs(thirds - nearest) <= 1 / 4 else ""


class PhaseFinder:
    """Asks each meter once in a run of the service, after a visit that showed that it answers; where it is `wanted`."""

    def __init__(self) -> None:
        self.wanted = False
        self._asked: set[str] = set()

    def ask(self, link: PlcLink, meter: CollectedMeter, now_s: float) -> None:
        """Ask for a meter's zero crossing; the answer comes as an event of the network."""
        address = meter.record.link_address
        if not self.wanted or not isinstance(link.network, BaseNode) or address in self._asked:
            return
        self._asked.add(address)
        try:
            link.network.read_zero_cross(bytes.fromhex(address), now_s)
        except (LocalPlcError, ValueError):
            return
        link.shell.pump()

    @staticmethod
    def take(event: ZeroCrossRead, meter: CollectedMeter | None) -> None:
        """Note the phase that a meter was seen on."""
        phase = "" if event.reason else phase_of(event.frequency_time, event.difference_time)
        if meter is not None and phase:
            meter.record.details[SEEN_PHASE_DETAIL] = phase
