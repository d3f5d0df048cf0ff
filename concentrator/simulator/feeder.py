"""The low-voltage feeder: who hears whom, how well, and how long a transfer takes on the one shared channel.

Deterministic by seed. Nodes sit at growing distances from the transformer; those that the base does not reach
well hang under a nearer, reliable node (a PRIME switch, a G3 router). Signal-to-noise falls with the distance
and with the load of the day. Drops follow a real PRIME network of 117 meters: hourly reachable share mean
89.8 %, lowest 66.7 %, highest 97.4 %; 72 of 117 meters at least 99 % of a day, 90 at least 95 %, 3 under 50
%.

Airtime is computed from the standards' symbol times (see `PRIME_PHY`, `G3_CENELEC_A_PHY`); what the standards
leave open is marked as an assumption there. Real feeders differ in noise spectra and phases; that is not
modelled.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

DAY_S = 86_400.0

_METRES_PER_NODE = 6.0
_LONGEST_FEEDER_M = 700.0
_BASE_SNR_DB = 36.0  # at the transformer; assumption
_ATTENUATION_DB_PER_M = 0.075  # 75 dB/km in CENELEC-A: assumption within published measurements
_NOISE_SWING_DB = 5.0  # between night and evening peak: assumption
_PARENT_SNR_DB = 12.0  # below this a node looks for a nearer parent
_LARGEST_LEVEL = 8
# PRIME tells switches apart by eight bits: a large network hangs under those that are switches already.
_MOST_PARENTS = 120

# Share of the nodes, lowest and highest availability within a day; after the 117 meters above.
_AVAILABILITY_CLASSES = (
    (0.62, 0.993, 1.0),
    (0.16, 0.95, 0.99),
    (0.195, 0.46, 0.72),
    (0.025, 0.15, 0.5),
)
_MEAN_OUTAGE_S = 1500.0
# Once an evening something noisy is switched on: it takes away everyone who hears badly anyway, and for a shorter time
# the far end of one phase. The real network's worst hour had 66.7 %, far below its mean; when, for how long and whom
# it hits is an assumption.
_NOISE_NOT_BEFORE_S = 19.0 * 3600.0
_NOISE_NOT_AFTER_S = 21.0 * 3600.0
_NOISY_FOR_S = 4200.0
_FAR_END_NOISY_FOR_S = 3000.0
_HEARS_BADLY_BELOW = 0.75  # availability
_FAR_END_FROM = 0.6  # of the feeder's length


@dataclass(frozen=True, slots=True)
class Modulation:
    """One way to send: useful bits of a symbol after coding, and the SNR from which it works."""

    name: str
    bits_per_symbol: float
    threshold_db: float


@dataclass(frozen=True, slots=True)
class Phy:
    """How long a frame is on the air: preamble + header + symbols of the payload, and what follows it."""

    modulations: tuple[Modulation, ...]  # best first
    symbol_s: float
    preamble_s: float
    header_s: float
    access_s: float  # mean wait before a frame: contention
    acknowledgement_s: float  # gap and acknowledgement frame
    segment_octets: int  # largest part of an APDU in one frame
    overhead_octets: int  # MAC and adaptation headers and check sequence of each frame
    coding_octets: int  # parity octets of each frame
    attempts: int  # of one frame on one hop

    def airtime_s(self, octets: int, modulation: Modulation) -> float:
        """Seconds that one frame with so many octets of an APDU holds the channel, acknowledged."""
        bits = 8 * (octets + self.overhead_octets + self.coding_octets)
        symbols = math.ceil(bits / modulation.bits_per_symbol)
        return (
            self.access_s + self.preamble_s + self.header_s + symbols * self.symbol_s + self.acknowledgement_s
        )


# PRIME 1.3.6/1.4 (ITU-T G.9904): 96 data carriers, symbol 2.24 ms, preamble 2.048 ms, header of two symbols,
# rate-1/2 code: 21.4, 42.9 and 64.3 kbit/s; robust DBPSK repeats four times. The acknowledgement is one frame
# with an ARQ sub-header in DBPSK: 6.53 ms and 3 symbols. Assumptions: 20 ms mean contention, segments of 240
# octets.
PRIME_PHY = Phy(
    modulations=(
        Modulation("D8PSK", 144.0, 20.0),
        Modulation("DQPSK", 96.0, 14.0),
        Modulation("DBPSK", 48.0, 8.0),
        Modulation("robust DBPSK", 12.0, 1.0),
    ),
    symbol_s=2.24e-3,
    preamble_s=2.048e-3,
    header_s=4.48e-3,
    access_s=20e-3,
    acknowledgement_s=13.2e-3,
    segment_octets=240,
    overhead_octets=13,
    coding_octets=0,
    attempts=6,
)

# ITU-T G.9903, CENELEC-A: 36 carriers, symbol 0.695 ms, preamble 9.5 symbols of 0.64 ms, frame control header
# of 13 symbols; rate-1/2 code and RS parity of 16 octets. RIFS 10 and CIFS 8 symbols around an
# acknowledgement of preamble and header. macMaxFrameRetries 3. Assumptions: mean contention of 3.5 slots of
# two symbols, fragments of 200 octets, 25 octets of MAC and mesh header and MIC.
G3_CENELEC_A_PHY = Phy(
    modulations=(
        Modulation("D8PSK", 54.0, 20.0),
        Modulation("DQPSK", 36.0, 14.0),
        Modulation("DBPSK", 18.0, 8.0),
        Modulation("robust", 4.5, 1.0),
    ),
    symbol_s=0.695e-3,
    preamble_s=6.08e-3,
    header_s=13 * 0.695e-3,
    access_s=3.5 * 2 * 0.695e-3,
    acknowledgement_s=18 * 0.695e-3 + 6.08e-3 + 13 * 0.695e-3,
    segment_octets=200,
    overhead_octets=25,
    coding_octets=16,
    attempts=4,
)


# IEC 61334-5-1 at 2400 baud: one bit a symbol. A slot is 45 octets, 150 ms: preamble 2, delimiter 2, subframe with its
# indicator 38, pause 3. An S-FSK frame is not acknowledged; its time on the air is that of its slots and repetitions
# (plc/sfsk/mac.py), and only its chance to be lost is taken from here.
SFSK_PHY = Phy(
    modulations=(Modulation("S-FSK", 1.0, 3.0),),
    symbol_s=1 / 2400,
    preamble_s=16 / 2400,
    header_s=16 / 2400,
    access_s=0.0,
    acknowledgement_s=0.0,
    segment_octets=242,
    overhead_octets=8,
    coding_octets=0,
    attempts=1,
)


@dataclass(slots=True)
class FeederNode:
    """One place on the feeder where a meter hangs."""

    index: int
    distance_m: float
    availability: float  # share of the day that it is reachable
    parent: FeederNode | None
    link_snr_db: float  # to its parent, with no load on the feeder
    noise_phase: float
    draws: random.Random = field(repr=False)
    # Where else it may hang, and how well: where its parent is away for long.
    others: list[tuple[FeederNode, float]] = field(
        default_factory=list["tuple[FeederNode, float]"], repr=False
    )

    @property
    def level(self) -> int:
        """How many nodes stand between it and the transformer's modem."""
        return 0 if self.parent is None else self.parent.level + 1

    def hang_under(self, parent: FeederNode) -> None:
        """Move to one of its other parents; the one that it leaves stays a choice."""
        if self.parent is None:
            raise ValueError("a node beside the transformer needs no other parent")
        snr_db = next(snr for other, snr in self.others if other is parent)
        self.others = [pair for pair in self.others if pair[0] is not parent]
        self.others.append((self.parent, self.link_snr_db))
        self.parent, self.link_snr_db = parent, snr_db

    def path(self) -> list[FeederNode]:
        """The nodes whose links a transfer passes: from the transformer outwards, this one last."""
        links: list[FeederNode] = []
        node: FeederNode | None = self
        while node is not None:
            links.append(node)
            node = node.parent
        return links[::-1]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What came of sending an APDU over the feeder."""

    duration_s: float  # from now, the wait for the channel included
    delivered: bool


def load(time_of_day_s: float) -> float:
    """How loaded the feeder is, 0 to 1: a morning and an evening peak."""
    hour = time_of_day_s / 3600.0
    morning = math.exp(-(((hour - 8.0) / 2.0) ** 2))
    evening = math.exp(-(((hour - 20.0) / 2.5) ** 2))
    return min(1.0, 0.15 + 0.55 * morning + 0.85 * evening)


class Feeder:
    """A feeder with `count` nodes.

    `loss` (0 to 1) is added to each frame's own chance to be lost; `speed` divides airtime and latency, not
    the day; `day_offset_s` is the time of day at second 0; `steady` leaves out the daily drops.
    """

    def __init__(
        self,
        count: int,
        seed: int = 1,
        phy: Phy = PRIME_PHY,
        loss: float = 0.0,
        speed: float = 1.0,
        day_offset_s: float = 0.0,
        steady: bool = False,
    ) -> None:
        self.phy = phy
        self.loss = loss
        self.speed = speed
        self.day_offset_s = day_offset_s
        self.steady = steady
        self.airtime_s = 0.0  # total that the channel was held
        self.least_airtime_s = 0.0  # what it would have been, had every segment that mattered arrived at once
        self._seed = seed
        self._channel_free_at = 0.0
        self._in_use = set[int]()  # indices of the nodes that others hang under
        self._draws = random.Random(f"feeder {seed}")
        self.nodes = self._build(count)

    def _build(self, count: int) -> list[FeederNode]:
        draws = self._draws
        self._length_m = min(_LONGEST_FEEDER_M, 60.0 + _METRES_PER_NODE * count)
        distances = sorted(draws.uniform(10.0, self._length_m) for _ in range(count))
        nodes: list[FeederNode] = []
        parents: list[FeederNode] = []
        # Classes by quota, not by lot: a network of 20 nodes has its bad ones too.
        classes = self._classes(count)
        for index, distance_m in enumerate(distances):
            lowest, highest = classes[index]
            parent, snr_db = self._find_parent(distance_m, parents)
            node = FeederNode(
                index=index,
                distance_m=distance_m,
                availability=1.0 if self.steady else draws.uniform(lowest, highest),
                parent=parent,
                link_snr_db=snr_db,
                noise_phase=draws.uniform(0.0, 2.0 * math.pi),
                draws=random.Random(f"node {self._seed} {index}"),
            )
            if parent is not None:
                node.others = self._other_parents(index, distance_m, parent, parents)
            nodes.append(node)
            if node.availability > 0.99 and node.level < _LARGEST_LEVEL:
                parents.append(node)
        return nodes

    def _classes(self, count: int) -> list[tuple[float, float]]:
        classes: list[tuple[float, float]] = []
        for share, lowest, highest in _AVAILABILITY_CLASSES[1:]:
            classes += [(lowest, highest)] * round(share * count)
        lowest, highest = _AVAILABILITY_CLASSES[0][1:]
        classes += [(lowest, highest)] * (count - len(classes))
        self._draws.shuffle(classes)
        return classes[:count]

    def _find_parent(self, distance_m: float, parents: list[FeederNode]) -> tuple[FeederNode | None, float]:
        direct_db = self._snr_over(distance_m) + self._draws.gauss(0.0, 2.5)
        if direct_db >= _PARENT_SNR_DB or not parents:
            return None, max(direct_db, 6.0)
        # The parent nearest to the middle of what one hop bridges well: few hops, each of them good.
        reach_m = (_BASE_SNR_DB - _PARENT_SNR_DB - 4.0) / _ATTENUATION_DB_PER_M
        candidates = [node for node in parents if distance_m - node.distance_m <= reach_m] or parents[-3:]
        if len(self._in_use) >= _MOST_PARENTS:
            candidates = [node for node in candidates if node.index in self._in_use] or candidates
        parent = min(candidates[:12], key=lambda node: (node.level, self._draws.random()))
        self._in_use.add(parent.index)
        snr_db = self._snr_over(distance_m - parent.distance_m) + self._draws.gauss(0.0, 2.5)
        return parent, max(snr_db, 8.0)

    def _other_parents(
        self, index: int, distance_m: float, parent: FeederNode, parents: list[FeederNode]
    ) -> list[tuple[FeederNode, float]]:
        """The two that are nearest after its parent.

        All of them are nearer to the transformer than it is, so that no circle can come about.
        """
        draws = random.Random(f"others {self._seed} {index}")
        nearest = sorted(
            (node for node in parents if node is not parent), key=lambda node: distance_m - node.distance_m
        )
        return [
            (node, max(6.0, self._snr_over(distance_m - node.distance_m) + draws.gauss(0.0, 2.5)))
            for node in nearest[:2]
        ]

    @staticmethod
    def _snr_over(distance_m: float) -> float:
        return _BASE_SNR_DB - _ATTENUATION_DB_PER_M * distance_m

    # Quality.

    def time_of_day(self, now: float) -> float:
        """Seconds since midnight on the feeder."""
        return (now + self.day_offset_s) % DAY_S

    def snr_db(self, node: FeederNode, now: float) -> float:
        """Signal-to-noise of the link between a node and its parent."""
        wobble = math.sin(now / 420.0 + node.noise_phase)
        return node.link_snr_db - _NOISE_SWING_DB * load(self.time_of_day(now)) + wobble

    def link_quality(self, node: FeederNode, now: float) -> int:
        """LQI as G3 counts it (ITU-T G.9903): SNR from -10 dB in steps of a quarter dB, 0 to 255."""
        return max(0, min(255, round((self.snr_db(node, now) + 10.0) * 4.0)))

    def modulation(self, node: FeederNode, now: float) -> Modulation:
        """The best modulation that the link bears."""
        snr_db = self.snr_db(node, now)
        for modulation in self.phy.modulations:
            if snr_db >= modulation.threshold_db + 2.0:
                return modulation
        return self.phy.modulations[-1]

    def frame_loss(self, node: FeederNode, now: float) -> float:
        """Chance that a frame on the link is lost: logistic in the margin (assumption), and `loss`."""
        margin_db = self.snr_db(node, now) - self.modulation(node, now).threshold_db
        own = 1.0 / (1.0 + math.exp(min(50.0, 1.2 * margin_db + 2.0)))
        return self.loss + (1.0 - self.loss) * own

    # Transfers.

    def transfer(self, node: FeederNode, octets: int, now: float) -> Transfer:
        """Send an APDU between the modem and a node, hop by hop, on the one channel.

        Each segment is tried `phy.attempts` times on each hop, as PRIME's ARQ and G3's MAC do.
        """
        held_s = least_s = 0.0
        delivered = True
        for link in node.path():
            modulation = self.modulation(link, now)
            loss = self.frame_loss(link, now)
            left = max(1, octets)
            while left > 0 and delivered:
                segment = min(left, self.phy.segment_octets)
                left -= segment
                airtime_s = self.phy.airtime_s(segment, modulation)
                least_s += airtime_s
                for _ in range(self.phy.attempts):
                    held_s += airtime_s
                    if node.draws.random() >= loss:
                        break
                else:
                    delivered = False
            if not delivered:
                break
        if delivered:
            self.least_airtime_s += least_s / self.speed
        return Transfer(self.hold(held_s, now), delivered)

    def attempt_in_vain(self, node: FeederNode, octets: int, now: float) -> Transfer:
        """Send an APDU to a node that does not hear: all attempts on its last hop are spent."""
        path = node.path()
        segment = min(max(1, octets), self.phy.segment_octets)
        held_s = sum(self.phy.airtime_s(segment, self.modulation(link, now)) for link in path[:-1])
        held_s += self.phy.attempts * self.phy.airtime_s(segment, self.phy.modulations[-1])
        return Transfer(self.hold(held_s, now), False)

    def hold(self, held_s: float, now: float) -> float:
        """Hold the channel for so long, after whoever holds it now; returns the seconds until it is free again."""
        held_s /= self.speed
        self.airtime_s += held_s
        self._channel_free_at = max(now, self._channel_free_at) + held_s
        return self._channel_free_at - now

    # Drops.

    def time_until_drop_s(self, node: FeederNode, now: float) -> float | None:
        """Seconds that a node which is up stays up; None when it never drops."""
        if node.availability >= 1.0:
            return None
        mean_up_s = _MEAN_OUTAGE_S * node.availability / (1.0 - node.availability)
        # More drops under load; the mean over the day is 1.
        delay_s = node.draws.expovariate(1.0 / mean_up_s) / (0.25 + 1.95 * load(self.time_of_day(now)))
        until_noise_s = self._until_noise_s(node, now)
        if until_noise_s is not None:
            delay_s = min(delay_s, until_noise_s + node.draws.uniform(0.0, 120.0))
        return delay_s

    def _noise(self, node: FeederNode, now: float) -> tuple[float, float]:
        """When the noise of this day begins for a node, in seconds since midnight, and how long it lasts."""
        day = int((now + self.day_offset_s) // DAY_S)
        begins_s = random.Random(f"noise {self._seed} {day}").uniform(
            _NOISE_NOT_BEFORE_S, _NOISE_NOT_AFTER_S - _NOISY_FOR_S
        )
        if node.availability < _HEARS_BADLY_BELOW:
            return begins_s, _NOISY_FOR_S
        far = node.distance_m > _FAR_END_FROM * self._length_m
        return begins_s, _FAR_END_NOISY_FOR_S if far and node.index % 3 == day % 3 else 0.0

    def _until_noise_s(self, node: FeederNode, now: float) -> float | None:
        """Seconds until the noise of today; 0 while it lasts, None when there is no more of it today."""
        time_s = self.time_of_day(now)
        begins_s, lasts_s = self._noise(node, now)
        if not lasts_s or time_s >= begins_s + lasts_s:
            tomorrow = now + DAY_S
            begins_s, lasts_s = self._noise(node, tomorrow)
            return DAY_S - time_s + begins_s if lasts_s else None
        return max(0.0, begins_s - time_s)

    def outage_s(self, node: FeederNode, now: float) -> float:
        """Seconds that a node which has dropped stays away: longer under load.

        `speed` shortens an outage as it does airtime; how often a node drops goes by the clock, so that a fast
        simulation is not all drops.
        """
        mean_s = _MEAN_OUTAGE_S * (0.4 + 1.6 * load(self.time_of_day(now)))
        outage_s = node.draws.expovariate(1.0 / mean_s)
        if self._until_noise_s(node, now) == 0.0:
            begins_s, lasts_s = self._noise(node, now)
            left_s = max(0.0, begins_s + lasts_s - self.time_of_day(now))
            outage_s = left_s + (outage_s if lasts_s == _NOISY_FOR_S else 0.0)
        return outage_s / self.speed
