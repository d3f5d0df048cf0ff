"""What the simulation knows of a network's availability, and a large network polled in virtual time."""

from __future__ import annotations

import gc
import random
from collections import defaultdict

from concentrator.collection.topology import DAY_S, HOUR_S, Topology
from concentrator.simulator.feeder import Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.scheduler import VirtualScheduler
from plc.prime.base_node import BaseNode

from plc_rig import EchoDevice, Rig


class Truth:
    """Node seconds by hour, and by node and day, as the simulation knows them."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.since = {}
        self.hours = defaultdict(float)
        self.days = defaultdict(float)
        self.comings = defaultdict(int)

    def set(self, eui, available):
        now = self.scheduler.now()
        if available == (eui in self.since):
            return
        self.comings[eui, int(now // DAY_S)] += 1
        if available:
            self.since[eui] = now
        else:
            self.add(eui, self.since.pop(eui), now)

    def add(self, eui, first, last):
        while first < last:
            end = min(last, (first // HOUR_S + 1) * HOUR_S)
            self.hours[int(first // HOUR_S)] += end - first
            self.days[eui, int(first // DAY_S)] += end - first
            first = end

    def close(self):
        for eui, first in self.since.items():
            self.add(eui, first, self.scheduler.now())


def watched_prime_modem(truth, *arguments, **options):
    class Watched(PrimeModem):
        def _connect(self, node, visit):
            super()._connect(node, visit)
            if node.connected:
                truth.set(node.device.eui48, available=True)

        def _disconnect(self, node):
            super()._disconnect(node)
            truth.set(node.device.eui48, available=False)

    return Watched(*arguments, **options)


class LargeNetwork:
    """Many PRIME meters that join, are polled, expelled, given other keys and moved, against the truth."""

    def __init__(self, count=500, seed=1):
        self.scheduler = VirtualScheduler()
        self.truth = Truth(self.scheduler)
        self.draws = random.Random(seed)
        self.devices = [EchoDevice(number) for number in range(count)]
        self.keys = {device.eui48: bytes([1]) * 16 for device in self.devices}
        self.modem = watched_prime_modem(
            self.truth, self.devices, self.scheduler, Feeder(count, seed), seed, join_spread_s=600.0,
            security_profile=1, device_keys=self.keys,
        )  # fmt: skip
        self.network = BaseNode(device_keys=dict(self.keys))
        self.topology = Topology()
        self.rig = Rig(self.network, self.modem, self.scheduler)
        self.rig.link._on_event = self.take
        self.expelled = set()
        self.rekeyed = set()
        self.moved = []  # (when, EUI-48 of the switch that went away)
        self.answered = self.asked = 0
        self.objects = []  # live objects after each day
        self.network.start(0.0)
        self.modem.start()

    def take(self, event, now):
        self.topology.feed(event, now)
        self.rig.take(event, now)

    def run(self, days, polls_a_day):
        """Poll everyone so many times a day; each day something is done to somebody."""
        pause_s = DAY_S / polls_a_day
        for number in range(int(days * polls_a_day)):
            self.rig.link.run_until((number + 0.5) * pause_s)
            before = len(self.rig.answers)
            for address in list(self.rig.addresses.values()):
                self.rig.send(address)
                self.asked += 1
            assert self.rig.link.run_while(lambda: bool(self.rig.open_tokens), pause_s / 2), "a request hangs"
            self.rig.link.run_for(30.0)
            self.answered += len(self.rig.answers) - before
            self.rig.answers.clear()
            self.disturb(number)
            if (number + 1) % polls_a_day == 0:
                self.topology.take_batch()  # as the product does every minute
                gc.collect()
                kept = sum(len(node.changes) + len(node.days) for node in self.topology.nodes())
                self.objects.append(len(gc.get_objects()) - kept - len(self.topology.network_hours()))
        self.rig.link.run_until(days * DAY_S)
        self.topology.advance(self.scheduler.now())
        self.truth.close()

    def disturb(self, number):
        now = self.scheduler.now()
        joined = sorted(self.rig.addresses)
        if number % 3 == 0:
            eui = self.draws.choice(joined)
            self.expelled.add(eui)
            self.network.expel(eui, now)
        elif number % 3 == 1:
            # Another key in the node and in the host: it registers again with it.
            eui = self.draws.choice(joined)
            self.rekeyed.add(eui)
            self.keys[eui] = bytes([2 + number % 250]) * 16
            self.network.set_device_key(eui, self.keys[eui], now)
            self.modem.drop(eui, 300.0)
        else:
            switches = [node for node in self.modem.nodes if node.switch and node.heard]
            if switches:
                eui = self.draws.choice(switches).device.eui48
                self.moved.append((now, eui))
                self.modem.drop(eui, 900.0)
        self.rig.link.run_for(5.0)

    def check(self):
        """Nothing is stuck, nothing has leaked, and the history agrees with the truth."""
        connected = {node.device.eui48: node.address for node in self.modem.nodes if node.connected}
        assert self.rig.addresses == connected
        assert not self.expelled & connected.keys()
        assert self.rekeyed - self.expelled <= {
            node.device.eui48 for node in self.modem.nodes if not node.heard or node.registered
        }
        assert self.answered > 0.95 * self.asked
        assert not self.network._transmissions
        assert not self.network._procedures
        assert len(self.network._nodes) <= len(self.devices)
        if len(self.objects) > 2:
            # Beside the history, which grows to its bounds.
            assert self.objects[-1] < 1.05 * self.objects[0], self.objects
        hours = self.topology.network_hours()
        for hour in hours:
            seconds = hour.mean * hour.up_minutes * 60
            assert abs(seconds - self.truth.hours[hour.start // HOUR_S]) < 20, hour
        for node in self.modem.nodes:
            eui = node.device.eui48
            found = self.topology.node(eui)
            assert found.available == node.connected
            for day in self.topology.node_days(eui):
                number = day.start // DAY_S
                assert abs(day.available_minutes * 60 - self.truth.days[eui, number]) < 10
                assert day.changes == self.truth.comings[eui, number]
        for eui in self.expelled:
            assert self.topology.node(eui).changes[-1].what == "left"
        for when, eui in self.moved:
            changes = list(self.topology.node(eui).changes)
            kept_from = changes[0].at
            left = [
                change for change in changes if change.what == "left" and when - 60 < change.at < when + 900
            ]
            assert left or kept_from > when, (when, changes)
